"""Images and their reconstructions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike

from skvae.inspection._montage import draw_montage, shape_of_images

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class ReconstructionDisplay:
    """Images above their reconstructions.

    Make one with `from_estimator`.

    Parameters
    ----------
    originals : array-like of shape (n_samples, n_features)
        The images.
    reconstructions : array-like of shape (n_samples, n_features)
        The reconstruction of each image.
    image_shape : tuple of int, default=None
        (height, width) or (height, width, 3) of a row. None makes square images, if the number of features is a
        square.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes.
    figure_ : matplotlib Figure
        The figure.
    im_ : matplotlib AxesImage
        The images, in one.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.decomposition import PCA
    >>> from skvae.inspection import ReconstructionDisplay
    >>> X, _ = load_digits(return_X_y=True)
    >>> display = ReconstructionDisplay.from_estimator(PCA(10).fit(X), X[:8])
    >>> display.reconstructions.shape
    (8, 64)
    """

    def __init__(
        self, originals: ArrayLike, reconstructions: ArrayLike, *, image_shape: Sequence[int] | None = None
    ) -> None:
        self.originals = originals
        self.reconstructions = reconstructions
        self.image_shape = image_shape

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: ArrayLike,
        *,
        image_shape: Sequence[int] | None = None,
        ax: Axes | None = None,
        **imshow_kwargs: Any,
    ) -> Self:
        """Reconstruct images and plot the results below the originals.

        Parameters
        ----------
        estimator : estimator
            A fitted model with the methods `transform` and `inverse_transform`.
        X : array-like of shape (n_samples, n_features)
            The images. All of them are shown.
        image_shape : tuple of int, default=None
            (height, width) or (height, width, 3) of a row. None takes the `image_shape` of the estimator. If there
            is none, images are square.
        ax : matplotlib Axes, default=None
            Axes to plot on. None makes a figure.
        **imshow_kwargs : dict
            Arguments of matplotlib's `imshow`.

        Returns
        -------
        ReconstructionDisplay
            The display.
        """
        reconstructions = estimator.inverse_transform(estimator.transform(X))
        display = cls(X, reconstructions, image_shape=shape_of_images(estimator, image_shape))
        return display.plot(ax=ax, **imshow_kwargs)

    def plot(self, *, ax: Axes | None = None, **imshow_kwargs: Any) -> Self:
        """Plot originals and reconstructions.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to plot on. None makes a figure.
        **imshow_kwargs : dict
            Arguments of matplotlib's `imshow`.

        Returns
        -------
        ReconstructionDisplay
            The display.
        """
        originals, reconstructions = np.asarray(self.originals), np.asarray(self.reconstructions)
        if originals.shape != reconstructions.shape:
            raise ValueError(
                f"originals and reconstructions must have the same shape; got {originals.shape} and "
                f"{reconstructions.shape}."
            )
        rows = np.concatenate([originals, reconstructions])
        montage = draw_montage(rows, len(originals), self.image_shape, ax, imshow_kwargs)
        self.im_ = montage.image
        self.ax_ = self.im_.axes
        self.figure_ = self.ax_.figure
        self.ax_.set_yticks(montage.row_centers, ["original", "reconstruction"])
        return self
