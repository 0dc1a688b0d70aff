"""The latent space."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm
from sklearn.mixture import GaussianMixture
from sklearn.utils import check_consistent_length, column_or_1d

from skvae._data.checks import check_positive_integer
from skvae.inspection._montage import draw_montage, make_axes, shape_of_images

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Values at which the distribution function of a component is looked at.
_N_VALUES = 10_001


class LatentDisplay:
    """A plane of the latent space, decoded on a grid, or a scatter plot of two latent components.

    Make one with `from_estimator`.

    Parameters
    ----------
    components : tuple of int
        The two components, the horizontal one first.
    points : array-like of shape (n_points, 2)
        Their values. In a scatter plot these are the values of the rows of data. In a plane they form a square grid,
        line by line from the top.
    images : array-like of shape (n_points, n_features), default=None
        The decoded points of a grid. None makes a scatter plot.
    y : array-like of shape (n_points,), default=None
        Labels for the colors of a scatter plot.
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
        The images of a plane, in one.
    scatter_ : list of matplotlib PathCollection
        The points of a scatter plot, by label.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skvae import NormalVAETransformer
    >>> from skvae.inspection import LatentDisplay
    >>> X, y = load_digits(return_X_y=True)
    >>> vae = NormalVAETransformer(2, max_iter=5, random_state=0).fit(X)
    >>> LatentDisplay.from_estimator(vae).images.shape
    (225, 64)
    >>> len(LatentDisplay.from_estimator(vae, X, y, kind="scatter").scatter_)
    10
    """

    def __init__(
        self,
        components: Sequence[int],
        points: ArrayLike,
        *,
        images: ArrayLike | None = None,
        y: ArrayLike | None = None,
        image_shape: Sequence[int] | None = None,
    ) -> None:
        self.components = components
        self.points = points
        self.images = images
        self.y = y
        self.image_shape = image_shape

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: ArrayLike | None = None,
        y: ArrayLike | None = None,
        *,
        kind: Literal["plane", "scatter"] = "plane",
        components: Sequence[int] = (0, 1),
        n_points: int = 15,
        image_shape: Sequence[int] | None = None,
        ax: Axes | None = None,
        **kwargs: Any,
    ) -> Self:
        """Plot a decoded plane of the latent space, or transformed data.

        Parameters
        ----------
        estimator : estimator
            A fitted model with the methods `transform`, `inverse_transform` and `get_feature_names_out`.
        X : array-like of shape (n_samples, n_features), default=None
            Data. A scatter plot needs it. A plane spans the central nine tenths of the latents of the data; all
            other components are at their means. For None, a plane spans the central nine tenths of the prior in the
            same way: of the mixture `prior_`, or of N(0, I) where the estimator has none.
        y : array-like of shape (n_samples,), default=None
            Labels of the rows of `X`, for the colors of a scatter plot.
        kind : {"plane", "scatter"}, default="plane"
            Kind of plot.
        components : tuple of int, default=(0, 1)
            The two components, the horizontal one first.
        n_points : int, default=15
            Number of points of the grid in each direction.
        image_shape : tuple of int, default=None
            (height, width) or (height, width, 3) of a row. None takes the `image_shape` of the estimator. If there
            is none, images are square.
        ax : matplotlib Axes, default=None
            Axes to plot on. None makes a figure.
        **kwargs : dict
            Arguments of matplotlib's `imshow` for a plane, or of `scatter` for a scatter plot.

        Returns
        -------
        LatentDisplay
            The display.
        """
        if kind not in ("plane", "scatter"):
            raise ValueError(f"kind must be 'plane' or 'scatter'; got {kind!r}.")
        n_components = len(estimator.get_feature_names_out())
        components = _check_components(components, n_components)
        latents = None if X is None else np.asarray(estimator.transform(X))
        if kind == "scatter":
            if latents is None:
                raise ValueError("kind='scatter' needs X, the data to transform; got None.")
            if y is not None:
                y = column_or_1d(y)
                check_consistent_length(latents, y)
            return cls(components, latents[:, components], y=y).plot(ax=ax, **kwargs)
        check_positive_integer(n_points, "n_points")
        Z = _plane(latents, getattr(estimator, "prior_", None), components, n_components, n_points)
        display = cls(
            components,
            Z[:, components],
            images=estimator.inverse_transform(Z),
            image_shape=shape_of_images(estimator, image_shape),
        )
        return display.plot(ax=ax, **kwargs)

    def plot(self, *, ax: Axes | None = None, **kwargs: Any) -> Self:
        """Plot the plane or the scatter plot.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to plot on. None makes a figure.
        **kwargs : dict
            Arguments of matplotlib's `imshow` for a plane, or of `scatter` for a scatter plot.

        Returns
        -------
        LatentDisplay
            The display.
        """
        points = np.asarray(self.points)
        if self.images is None:
            self._plot_scatter(points, ax, kwargs)
        else:
            self._plot_plane(points, self.images, ax, kwargs)
        self.ax_.set(xlabel=f"component {self.components[0]}", ylabel=f"component {self.components[1]}")
        return self

    def _plot_scatter(self, points: NDArray[Any], ax: Axes | None, scatter_kwargs: Mapping[str, Any]) -> None:
        settings = {"s": 4, "alpha": 0.6} | dict(scatter_kwargs)
        if "sizes" in settings:  # the name of "s" in a PathCollection
            if "s" in scatter_kwargs:
                raise TypeError("Got both 's' and 'sizes', which are aliases of one another.")
            settings["s"] = settings.pop("sizes")
        self.ax_ = ax = make_axes(ax)
        self.figure_ = ax.figure
        labels, numbers = np.unique(np.zeros(len(points)) if self.y is None else self.y, return_inverse=True)
        self.scatter_ = [
            ax.scatter(*points[numbers == number].T, **{"label": label} | settings)
            for number, label in enumerate(labels)
        ]
        if self.y is not None:
            ax.legend(markerscale=3)

    def _plot_plane(
        self, points: NDArray[Any], images: ArrayLike, ax: Axes | None, imshow_kwargs: Mapping[str, Any]
    ) -> None:
        n_points = math.isqrt(len(points))
        montage = draw_montage(images, n_points, self.image_shape, ax, imshow_kwargs)
        self.im_ = montage.image
        self.ax_ = self.im_.axes
        self.figure_ = self.ax_.figure
        every = slice(None, None, 1 + n_points // 10)  # leaves room between the labels
        horizontal, vertical = points[:n_points, 0], points[::n_points, 1]
        self.ax_.set_xticks(montage.column_centers[every], [f"{value:z.1f}" for value in horizontal[every]])
        self.ax_.set_yticks(montage.row_centers[every], [f"{value:z.1f}" for value in vertical[every]])


def _check_components(components: Any, n_components: int) -> tuple[int, ...]:
    """Return `components` as a tuple of two different indices."""
    pair = tuple(components) if isinstance(components, Iterable) else (components,)
    are_indices = all(isinstance(c, Integral) and not isinstance(c, bool) for c in pair)
    if not are_indices or len(set(pair)) != 2 or not set(pair) <= set(range(n_components)):
        raise ValueError(
            f"components must be two different ones of the model's {n_components}, counted from 0; got {pair}."
        )
    return pair


def _plane(
    latents: NDArray[Any] | None,
    prior: GaussianMixture | None,
    components: tuple[int, ...],
    n_components: int,
    n_points: int,
) -> NDArray[Any]:
    """Return latent points of a square grid in two components, line by line from the top.

    The grid spans the central nine tenths of the latents; None stands for latents from the prior.
    """
    levels = np.linspace(0.05, 0.95, n_points)
    if latents is not None:
        origin, grid = latents.mean(axis=0), np.quantile(latents[:, components], levels, axis=0).T
    elif prior is not None:
        origin = prior.weights_ @ prior.means_
        grid = np.array([_quantiles(prior, component, levels) for component in components])
    else:
        origin, grid = np.zeros(n_components), np.tile(norm.ppf(levels), (2, 1))
    horizontal, vertical = np.meshgrid(grid[0], grid[1][::-1])
    Z = np.tile(origin, (n_points**2, 1))
    Z[:, components] = np.column_stack([horizontal.ravel(), vertical.ravel()])
    return Z


def _quantiles(prior: GaussianMixture, component: int, levels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the quantiles of one component of a mixture."""
    means, stds = prior.means_[:, [component]], np.sqrt(prior.covariances_[:, component, component])[:, None]
    values = np.linspace((means - 5 * stds).min(), (means + 5 * stds).max(), _N_VALUES)
    return np.interp(levels, prior.weights_ @ norm.cdf(values, means, stds), values)
