"""What the displays share: the axes, and images side by side in one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_array

from skvae._data.checks import check_positive_integer, image_dimensions

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage


class Montage(NamedTuple):
    """Images side by side, as they were drawn.

    Parameters
    ----------
    image : AxesImage
        The images, in one.
    row_centers : list of float
        The vertical center of each row of images.
    column_centers : list of float
        The horizontal center of each column of images.
    """

    image: AxesImage
    row_centers: list[float]
    column_centers: list[float]


def make_axes(ax: Axes | None) -> Axes:
    """Return `ax`, or the axes of a new figure for None."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots()[1]


def shape_of_images(estimator: Any, image_shape: Sequence[int] | None) -> Sequence[int] | None:
    """Return `image_shape`, or that of the estimator for None."""
    return getattr(estimator, "image_shape", None) if image_shape is None else image_shape


def draw_montage(
    rows: ArrayLike,
    n_columns: int,
    image_shape: Sequence[int] | None,
    ax: Axes | None,
    imshow_kwargs: Mapping[str, Any],
) -> Montage:
    """Draw each row of features as an image, with `n_columns` images side by side."""
    check_positive_integer(n_columns, "n_columns")
    X: NDArray[Any] = check_array(rows, input_name="images")
    shape = image_dimensions(image_shape, X.shape[1])
    if shape is None or shape[2] not in (1, 3):
        raise ValueError(
            f"Rows of {X.shape[1]} features cannot be shown as images with image_shape={image_shape!r}. "
            f"Give image_shape=(height, width) or (height, width, 3)."
        )
    height, width, n_channels = shape
    limits = {"vmin": float(X.min()), "vmax": float(X.max())}
    limits |= {name: imshow_kwargs[name] for name in limits if imshow_kwargs.get(name) is not None}
    settings = {"interpolation": "nearest", "cmap": "gray_r"} | dict(imshow_kwargs)
    pixels = _arrange(X.reshape(-1, *shape), n_columns)
    if n_channels == 3:  # matplotlib does not scale colors
        pixels = _scale(pixels, limits["vmin"], limits["vmax"])
    elif settings.get("norm") is None:  # matplotlib takes either a norm or limits
        settings |= limits
    ax = make_axes(ax)
    image = ax.imshow(pixels[:, :, 0] if n_channels == 1 else pixels, **settings)
    ax.set(xticks=[], yticks=[])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    n_rows = len(pixels) // (height + 2)
    return Montage(
        image,
        [(row + 0.5) * (height + 2) - 0.5 for row in range(n_rows)],
        [(column + 0.5) * (width + 2) - 0.5 for column in range(n_columns)],
    )


def _arrange(images: NDArray[Any], n_columns: int) -> NDArray[np.float64]:
    """Return the images in one; a border of one pixel around each and the unused places are NaN."""
    n_images, height, width, n_channels = images.shape
    n_rows = -(-n_images // n_columns)
    tiles = np.full((n_rows * n_columns, height + 2, width + 2, n_channels), np.nan)
    tiles[:n_images, 1:-1, 1:-1] = images
    grid = tiles.reshape(n_rows, n_columns, height + 2, width + 2, n_channels).swapaxes(1, 2)
    return grid.reshape(n_rows * (height + 2), n_columns * (width + 2), n_channels)


def _scale(pixels: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    """Return colors between 0 for `low` and 1 for `high`, with white in place of NaN."""
    return np.nan_to_num((pixels - low) / ((high - low) or 1), nan=1).clip(0, 1)
