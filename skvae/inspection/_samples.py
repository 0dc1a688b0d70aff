"""Samples as images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.random import RandomState
from numpy.typing import ArrayLike

from skvae._data.checks import check_positive_integer
from skvae.inspection._montage import draw_montage, shape_of_images

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from skvae.callbacks import SampleMonitor


class SamplesDisplay:
    """Samples of a model as images, side by side or by epoch.

    Make one with `from_estimator` or `from_monitor`.

    Parameters
    ----------
    samples : array-like of shape (n_samples, n_features)
        The samples.
    n_columns : int
        Number of images side by side.
    image_shape : tuple of int, default=None
        (height, width) or (height, width, 3) of a row. None makes square images, if the number of features is a
        square.
    row_labels : list of str, default=None
        The label to the left of each row of images. None draws no labels.

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
    >>> from skvae import NormalVAETransformer
    >>> from skvae.inspection import SamplesDisplay
    >>> X, _ = load_digits(return_X_y=True)
    >>> vae = NormalVAETransformer(max_iter=5, random_state=0).fit(X)
    >>> display = SamplesDisplay.from_estimator(vae, random_state=0)
    >>> display.samples.shape
    (25, 64)
    """

    def __init__(
        self,
        samples: ArrayLike,
        n_columns: int,
        *,
        image_shape: Sequence[int] | None = None,
        row_labels: Sequence[str] | None = None,
    ) -> None:
        self.samples = samples
        self.n_columns = n_columns
        self.image_shape = image_shape
        self.row_labels = row_labels

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        *,
        n_samples: int = 25,
        n_columns: int | None = None,
        image_shape: Sequence[int] | None = None,
        random_state: int | RandomState | None = None,
        ax: Axes | None = None,
        **imshow_kwargs: Any,
    ) -> Self:
        """Draw samples from a fitted model and plot them.

        Parameters
        ----------
        estimator : estimator
            A fitted model with a method ``sample(n_samples, random_state=...)``.
        n_samples : int, default=25
            Number of samples.
        n_columns : int, default=None
            Number of images side by side. None makes about as many columns as rows.
        image_shape : tuple of int, default=None
            (height, width) or (height, width, 3) of a row. None takes the `image_shape` of the estimator. If there
            is none, images are square.
        random_state : int, RandomState instance or None, default=None
            Source of the samples.
        ax : matplotlib Axes, default=None
            Axes to plot on. None makes a figure.
        **imshow_kwargs : dict
            Arguments of matplotlib's `imshow`, such as ``cmap``, ``vmin`` and ``vmax``.

        Returns
        -------
        SamplesDisplay
            The display.
        """
        check_positive_integer(n_samples, "n_samples")
        samples = estimator.sample(n_samples, random_state=random_state)
        if n_columns is None:
            n_columns = math.ceil(math.sqrt(n_samples))
        display = cls(samples, n_columns, image_shape=shape_of_images(estimator, image_shape))
        return display.plot(ax=ax, **imshow_kwargs)

    @classmethod
    def from_monitor(
        cls,
        monitor: SampleMonitor,
        *,
        fit: int = -1,
        image_shape: Sequence[int] | None = None,
        ax: Axes | None = None,
        **imshow_kwargs: Any,
    ) -> Self:
        """Plot the samples that a monitor has drawn, one row of images for each epoch.

        Parameters
        ----------
        monitor : SampleMonitor
            The monitor.
        fit : int, default=-1
            Index of the fit, among all that the monitor has seen. The last fit is -1.
        image_shape : tuple of int, default=None
            (height, width) or (height, width, 3) of a row. None makes square images, if the number of features is a
            square.
        ax : matplotlib Axes, default=None
            Axes to plot on. None makes a figure.
        **imshow_kwargs : dict
            Arguments of matplotlib's `imshow`.

        Returns
        -------
        SamplesDisplay
            The display.
        """
        by_epoch = monitor.get_samples()[fit]
        display = cls(
            np.concatenate(list(by_epoch.values())),
            monitor.n_samples,
            image_shape=image_shape,
            row_labels=[f"epoch {epoch}" for epoch in by_epoch],
        )
        return display.plot(ax=ax, **imshow_kwargs)

    def plot(self, *, ax: Axes | None = None, **imshow_kwargs: Any) -> Self:
        """Plot the samples.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to plot on. None makes a figure.
        **imshow_kwargs : dict
            Arguments of matplotlib's `imshow`.

        Returns
        -------
        SamplesDisplay
            The display.
        """
        montage = draw_montage(self.samples, self.n_columns, self.image_shape, ax, imshow_kwargs)
        self.im_ = montage.image
        self.ax_ = self.im_.axes
        self.figure_ = self.ax_.figure
        if self.row_labels is not None:
            self.ax_.set_yticks(montage.row_centers, self.row_labels)
        return self
