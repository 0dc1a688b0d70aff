"""Displays of what a model generates, reconstructs and learns, after scikit-learn's conventions.

They use public methods of estimators alone, so that most of them take a PCA or a whole Pipeline as well.
"""

import functools
import math
from collections.abc import Iterable

import numpy as np
from scipy.stats import norm
from sklearn.callback import ScoringMonitor
from sklearn.utils import check_array, check_consistent_length, check_random_state, column_or_1d
from sklearn.utils.validation import check_is_fitted

from skvae._validation import Integral, check_positive_integer, image_dimensions, spawn_seeds

__all__ = ["LatentDisplay", "ReconstructionDisplay", "SampleMonitor", "SamplesDisplay", "TrainingCurveDisplay"]

# Each curve of a `history_`: its label, the side of its axis, its colour.
_CURVES = {
    "elbo": ("ELBO", "left", "C0"),
    "log_likelihood": ("log likelihood", "left", "C1"),
    "kl": ("KL", "right", "C2"),
    "loss": ("loss", "left", "C0"),
    "accuracy": ("accuracy", "right", "C1"),
}


def _set_axes(display, ax):
    """Make `ax`, or that of a new figure, the one that `display` draws on, and return it."""
    if ax is None:
        import matplotlib.pyplot as plt

        _, ax = plt.subplots()
    display.ax_, display.figure_ = ax, ax.figure
    return ax


def _draw_montage(display, rows, n_columns, ax, imshow_kwargs):
    """Draw rows of features as images, `n_columns` of them side by side, in the shape that `display` has for them.

    Returns
    -------
    tuple of list of float
        The vertical centres of the rows of images, and the horizontal centres of their columns.
    """
    check_positive_integer(n_columns, "n_columns")
    rows = check_array(rows, input_name="images")
    shape = image_dimensions(display.image_shape, rows.shape[1])
    if shape is None or shape[2] not in (1, 3):
        raise ValueError(
            f"Rows of {rows.shape[1]} features cannot be shown as images with image_shape={display.image_shape!r}. "
            f"Give image_shape=(height, width) or (height, width, 3)."
        )
    height, width, n_channels = shape
    defaults = {"interpolation": "nearest", "cmap": "gray_r", "vmin": rows.min(), "vmax": rows.max()}
    if "norm" in imshow_kwargs:  # it takes the place of both
        del defaults["vmin"], defaults["vmax"]
    settings = defaults | imshow_kwargs
    n_rows = -(-len(rows) // n_columns)
    # The pixel around each image, and what is missing in the last row, are left blank.
    tiles = np.full((n_rows * n_columns, height + 2, width + 2, n_channels), np.nan)
    tiles[: len(rows), 1:-1, 1:-1] = rows.reshape(-1, *shape)
    tiles = tiles.reshape(n_rows, n_columns, *tiles.shape[1:]).swapaxes(1, 2)
    montage = tiles.reshape(n_rows * (height + 2), n_columns * (width + 2), n_channels)
    if n_channels == 3:
        low, high = settings.pop("vmin", rows.min()), settings.pop("vmax", rows.max())
        montage = np.nan_to_num((montage - low) / ((high - low) or 1), nan=1).clip(0, 1)
    ax = _set_axes(display, ax)
    display.im_ = ax.imshow(montage[:, :, 0] if n_channels == 1 else montage, **settings)
    ax.set(xticks=[], yticks=[])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    vertical = [(row + 0.5) * (height + 2) - 0.5 for row in range(n_rows)]
    horizontal = [(column + 0.5) * (width + 2) - 0.5 for column in range(n_columns)]
    return vertical, horizontal


def _image_shape(estimator, image_shape):
    """Return `image_shape`, or where that is None what the estimator has for it."""
    return getattr(estimator, "image_shape", None) if image_shape is None else image_shape


class SamplesDisplay:
    """Samples of a model as images, side by side or by epoch.

    It is recommended to make one with `from_estimator` or `from_monitor`.

    Parameters
    ----------
    samples : array-like of shape (n_samples, n_features)
        The samples.
    n_columns : int
        Number of images side by side.
    image_shape : tuple of int, default=None
        (height, width) or (height, width, 3) of a row. None takes a square number of features for a square image.
    row_labels : list of str, default=None
        What stands to the left of each row of images.

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

    def __init__(self, samples, n_columns, *, image_shape=None, row_labels=None):
        self.samples = samples
        self.n_columns = n_columns
        self.image_shape = image_shape
        self.row_labels = row_labels

    @classmethod
    def from_estimator(
        cls, estimator, *, n_samples=25, n_columns=None, image_shape=None, random_state=None, ax=None, **imshow_kwargs
    ):
        """Draw samples from a fitted model and plot them.

        Parameters
        ----------
        estimator : estimator
            A fitted model with a method ``sample(n_samples, random_state=...)``.
        n_samples : int, default=25
            Number of samples.
        n_columns : int, default=None
            Number of images side by side; None makes the whole about square.
        image_shape : tuple of int, default=None
            (height, width) or (height, width, 3) of a row. None takes that of the estimator if it has one, or a square.
        random_state : int, RandomState instance or None, default=None
            Source of the samples.
        ax : matplotlib Axes, default=None
            Where to plot; None makes a figure.
        **imshow_kwargs : dict
            Arguments of matplotlib's `imshow`, such as ``cmap``, ``vmin`` and ``vmax``.

        Returns
        -------
        SamplesDisplay
            The display.
        """
        check_positive_integer(n_samples, "n_samples")
        samples = estimator.sample(n_samples, random_state=random_state)
        n_columns = int(np.ceil(np.sqrt(n_samples))) if n_columns is None else n_columns
        display = cls(samples, n_columns, image_shape=_image_shape(estimator, image_shape))
        return display.plot(ax=ax, **imshow_kwargs)

    @classmethod
    def from_monitor(cls, monitor, *, fit=-1, image_shape=None, ax=None, **imshow_kwargs):
        """Plot the samples that a monitor has drawn, a row for each epoch.

        Parameters
        ----------
        monitor : SampleMonitor
            The monitor.
        fit : int, default=-1
            Which of the fits it has seen, in their order.
        image_shape : tuple of int, default=None
            (height, width) or (height, width, 3) of a row. None takes a square number of features for a square image.
        ax : matplotlib Axes, default=None
            Where to plot; None makes a figure.
        **imshow_kwargs : dict
            Arguments of matplotlib's `imshow`.

        Returns
        -------
        SamplesDisplay
            The display.
        """
        by_epoch = monitor.get_samples()[fit]
        labels = [f"epoch {epoch}" for epoch in by_epoch]
        display = cls(
            np.concatenate(list(by_epoch.values())), monitor.n_samples, image_shape=image_shape, row_labels=labels
        )
        return display.plot(ax=ax, **imshow_kwargs)

    def plot(self, *, ax=None, **imshow_kwargs):
        """Plot the samples.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to plot; None makes a figure.
        **imshow_kwargs : dict
            Arguments of matplotlib's `imshow`.

        Returns
        -------
        SamplesDisplay
            The display.
        """
        centres, _ = _draw_montage(self, self.samples, self.n_columns, ax, imshow_kwargs)
        if self.row_labels is not None:
            self.ax_.set_yticks(centres, self.row_labels)
        return self


class ReconstructionDisplay:
    """Images above their reconstructions.

    It is recommended to make one with `from_estimator`.

    Parameters
    ----------
    originals : array-like of shape (n_samples, n_features)
        The images.
    reconstructions : array-like of shape (n_samples, n_features)
        What a model makes of them.
    image_shape : tuple of int, default=None
        (height, width) or (height, width, 3) of a row. None takes a square number of features for a square image.

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

    def __init__(self, originals, reconstructions, *, image_shape=None):
        self.originals = originals
        self.reconstructions = reconstructions
        self.image_shape = image_shape

    @classmethod
    def from_estimator(cls, estimator, X, *, image_shape=None, ax=None, **imshow_kwargs):
        """Reconstruct images and plot them below the originals.

        Parameters
        ----------
        estimator : estimator
            A fitted model with the methods `transform` and `inverse_transform`.
        X : array-like of shape (n_samples, n_features)
            The images, all of which are shown.
        image_shape : tuple of int, default=None
            (height, width) or (height, width, 3) of a row. None takes that of the estimator if it has one, or a
            square.
        ax : matplotlib Axes, default=None
            Where to plot; None makes a figure.
        **imshow_kwargs : dict
            Arguments of matplotlib's `imshow`.

        Returns
        -------
        ReconstructionDisplay
            The display.
        """
        reconstructions = estimator.inverse_transform(estimator.transform(X))
        display = cls(X, reconstructions, image_shape=_image_shape(estimator, image_shape))
        return display.plot(ax=ax, **imshow_kwargs)

    def plot(self, *, ax=None, **imshow_kwargs):
        """Plot originals and reconstructions.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to plot; None makes a figure.
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
                f"originals have the shape {originals.shape} and reconstructions {reconstructions.shape}; they must "
                f"have the same."
            )
        rows = np.concatenate([originals, reconstructions])
        centres, _ = _draw_montage(self, rows, len(originals), ax, imshow_kwargs)
        self.ax_.set_yticks(centres, ["original", "reconstruction"])
        return self


class TrainingCurveDisplay:
    """What `history_` records of a training, by epoch.

    For an autoencoder these are the ELBO and its terms, in nats per row, with the KL term on an axis of its own on the
    right; for a classifier the loss, and on the right the accuracy. What was measured on validation data is dashed.

    It is recommended to make one with `from_estimator`.

    Parameters
    ----------
    history : dict of str to list of float
        The records, by epoch.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes.
    right_ax_ : matplotlib Axes
        The axes on the right, which share their epochs.
    figure_ : matplotlib Figure
        The figure.
    lines_ : list of matplotlib Line2D
        The curves.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skvae import NormalVAETransformer
    >>> from skvae.inspection import TrainingCurveDisplay
    >>> X, _ = load_digits(return_X_y=True)
    >>> vae = NormalVAETransformer(max_iter=5, random_state=0).fit(X)
    >>> display = TrainingCurveDisplay.from_estimator(vae)
    >>> [line.get_label() for line in display.lines_]
    ['ELBO', 'log likelihood', 'KL']
    """

    def __init__(self, history):
        self.history = history

    @classmethod
    def from_estimator(cls, estimator, *, ax=None, **line_kwargs):
        """Plot the training curves of a fitted estimator.

        Parameters
        ----------
        estimator : estimator
            One with the attribute `history_`.
        ax : matplotlib Axes, default=None
            Where to plot; None makes a figure.
        **line_kwargs : dict
            Arguments of matplotlib's `plot`.

        Returns
        -------
        TrainingCurveDisplay
            The display.
        """
        check_is_fitted(estimator)
        if not hasattr(estimator, "history_"):
            raise ValueError(
                f"{type(estimator).__name__} has no history_. Give a VAE or a CNN classifier of this library; of a "
                f"Pipeline, give the step."
            )
        return cls(estimator.history_).plot(ax=ax, **line_kwargs)

    def plot(self, *, ax=None, **line_kwargs):
        """Plot the curves.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to plot; None makes a figure.
        **line_kwargs : dict
            Arguments of matplotlib's `plot`.

        Returns
        -------
        TrainingCurveDisplay
            The display.
        """
        if not set(self.history) & set(_CURVES):
            raise ValueError(f"history must hold some of {', '.join(_CURVES)}; got {self.history!r}.")
        left = _set_axes(self, ax)
        self.right_ax_ = left.twinx()
        sides = {"left": left, "right": self.right_ax_}
        self.lines_ = []
        for name, (label, side, colour) in _CURVES.items():
            for key, full_label, style in ((name, label, "-"), (f"validation_{name}", f"validation {label}", "--")):
                if key in self.history:
                    values = self.history[key]
                    defaults = {"color": colour, "linestyle": style, "label": full_label}
                    self.lines_ += sides[side].plot(range(1, len(values) + 1), values, **defaults | line_kwargs)
        left.set_xlabel("epoch")
        for axes in sides.values():
            axes.set_ylabel(", ".join(line.get_label() for line in self.lines_ if line.axes is axes))
        self.right_ax_.legend(handles=self.lines_, loc="center right")
        return self


class LatentDisplay:
    """A plane of the latent space, decoded on a grid, or a scatter plot of two latent components.

    It is recommended to make one with `from_estimator`.

    Parameters
    ----------
    components : tuple of int
        The two components, the horizontal one first.
    points : array-like of shape (n_points, 2)
        Their values: of the rows of data in a scatter plot, and in a plane of a square grid, line by line from the
        top.
    images : array-like of shape (n_points, n_features), default=None
        What the points of a grid decode to. None makes a scatter plot.
    y : array-like of shape (n_points,), default=None
        Labels for the colours of a scatter plot.
    image_shape : tuple of int, default=None
        (height, width) or (height, width, 3) of a row. None takes a square number of features for a square image.

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

    def __init__(self, components, points, *, images=None, y=None, image_shape=None):
        self.components = components
        self.points = points
        self.images = images
        self.y = y
        self.image_shape = image_shape

    @classmethod
    def from_estimator(
        cls,
        estimator,
        X=None,
        y=None,
        *,
        kind="plane",
        components=(0, 1),
        n_points=15,
        image_shape=None,
        ax=None,
        **kwargs,
    ):
        """Decode a plane of the latent space, or transform data, and plot it.

        Parameters
        ----------
        estimator : estimator
            A fitted model with the methods `transform`, `inverse_transform` and `get_feature_names_out`.
        X : array-like of shape (n_samples, n_features), default=None
            Data; a scatter plot needs it. With it, a plane spans the central nine tenths of its latents, with the
            other components at their means; without it, those of the prior N(0, I), with the others at zero.
        y : array-like of shape (n_samples,), default=None
            Labels of the rows of `X`, for the colours of a scatter plot.
        kind : {"plane", "scatter"}, default="plane"
            What to plot.
        components : tuple of int, default=(0, 1)
            The two components, the horizontal one first.
        n_points : int, default=15
            Number of points of the grid in either direction.
        image_shape : tuple of int, default=None
            (height, width) or (height, width, 3) of a row. None takes that of the estimator if it has one, or a
            square.
        ax : matplotlib Axes, default=None
            Where to plot; None makes a figure.
        **kwargs : dict
            Arguments of matplotlib's `imshow` for a plane, or `scatter`.

        Returns
        -------
        LatentDisplay
            The display.
        """
        if kind not in ("plane", "scatter"):
            raise ValueError(f"kind must be 'plane' or 'scatter'; got {kind!r}.")
        if kind == "scatter" and X is None:
            raise ValueError("kind='scatter' needs X, the data to transform; got None.")
        n_components = len(estimator.get_feature_names_out())
        components = tuple(components) if isinstance(components, Iterable) else (components,)
        are_indices = all(isinstance(c, Integral) and not isinstance(c, bool) for c in components)
        if not are_indices or len(set(components)) != 2 or not set(components) <= set(range(n_components)):
            raise ValueError(
                f"components must be two different ones of the model's {n_components}, counted from 0; got "
                f"{components}."
            )
        latents = None if X is None else np.asarray(estimator.transform(X))
        if kind == "scatter":
            if y is not None:
                y = column_or_1d(y)
                check_consistent_length(latents, y)
            return cls(components, latents[:, components], y=y).plot(ax=ax, **kwargs)
        check_positive_integer(n_points, "n_points")
        levels = np.linspace(0.05, 0.95, n_points)
        if latents is None:
            origin, grid = np.zeros(n_components), np.tile(norm.ppf(levels), (2, 1))
        else:
            origin, grid = latents.mean(axis=0), np.quantile(latents[:, components], levels, axis=0).T
        horizontal, vertical = np.meshgrid(grid[0], grid[1][::-1])
        points = np.column_stack([horizontal.ravel(), vertical.ravel()])
        Z = np.tile(origin, (len(points), 1))
        Z[:, components] = points
        images = estimator.inverse_transform(Z)
        display = cls(components, points, images=images, image_shape=_image_shape(estimator, image_shape))
        return display.plot(ax=ax, **kwargs)

    def plot(self, *, ax=None, **kwargs):
        """Plot the plane or the scatter plot.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to plot; None makes a figure.
        **kwargs : dict
            Arguments of matplotlib's `imshow` for a plane, or `scatter`.

        Returns
        -------
        LatentDisplay
            The display.
        """
        points = np.asarray(self.points)
        if self.images is None:
            ax = _set_axes(self, ax)
            labels, numbers = np.unique(np.zeros(len(points)) if self.y is None else self.y, return_inverse=True)
            self.scatter_ = [
                ax.scatter(*points[numbers == number].T, **{"s": 4, "alpha": 0.6, "label": label} | kwargs)
                for number, label in enumerate(labels)
            ]
            if self.y is not None:
                ax.legend(markerscale=3)
        else:
            n_points = math.isqrt(len(points))
            vertical, horizontal = _draw_montage(self, self.images, n_points, ax, kwargs)
            ax = self.ax_
            every = slice(None, None, 1 + n_points // 10)  # no more labels than there is room for
            ax.set_xticks(horizontal[every], [f"{value:z.1f}" for value in points[:n_points, 0][every]])
            ax.set_yticks(vertical[every], [f"{value:z.1f}" for value in points[::n_points, 1][every]])
        ax.set(xlabel=f"component {self.components[0]}", ylabel=f"component {self.components[1]}")
        return self


class SampleMonitor:
    """Callback that draws samples as training goes on, always from the same points of the latent space.

    Set it on a model, or on the Pipeline or the search that holds one: it reaches all estimators inside that report
    their epochs and have a method `sample`, also in other processes. Of several estimators one inside the other,
    scikit-learn wants it on the outermost. What comes out of a cache is not seen. A model that is pickled with its
    callbacks takes all samples along; ``set_callbacks()`` removes them.

    Parameters
    ----------
    n_samples : int, default=10
        Number of samples.
    epochs : sequence of int, default=None
        The epochs after which they are drawn, the first being 1. None is 1, 2, 5, 10, 20, 50 and so on.
    random_state : int, RandomState instance or None, default=None
        Source of the samples. An integer is what `sample` gets as its `random_state` after each of the epochs;
        otherwise an integer is drawn, from fresh entropy for None.

    See Also
    --------
    SamplesDisplay.from_monitor : Plots what the monitor has drawn.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skvae import NormalVAETransformer
    >>> from skvae.inspection import SampleMonitor, SamplesDisplay
    >>> X, _ = load_digits(return_X_y=True)
    >>> monitor = SampleMonitor(random_state=0)
    >>> vae = NormalVAETransformer(max_iter=5, random_state=0).set_callbacks(monitor).fit(X)
    >>> {epoch: samples.shape for epoch, samples in monitor.get_samples()[0].items()}
    {1: (10, 64), 2: (10, 64), 5: (10, 64)}
    >>> display = SamplesDisplay.from_monitor(monitor)
    """

    # scikit-learn hands a callback with this attribute on to the estimators inside another one, here at any depth.
    max_propagation_depth = None

    def __init__(self, n_samples=10, *, epochs=None, random_state=None):
        check_positive_integer(n_samples, "n_samples")
        if epochs is not None:
            epochs = tuple(epochs) if isinstance(epochs, Iterable) else (epochs,)
            for epoch in epochs:
                check_positive_integer(epoch, "each of epochs")
        check_random_state(random_state)
        self.n_samples = n_samples
        self.epochs = epochs
        seed = random_state if isinstance(random_state, Integral) else spawn_seeds(random_state, 1)[0]
        sampler = functools.partial(_draw_samples, n_samples=n_samples, seed=seed)
        # It brings what it logs back from other processes.
        self._monitor = ScoringMonitor(scoring={"samples": sampler})

    def setup(self, estimator, context):
        """Do nothing; part of the protocol.

        Parameters
        ----------
        estimator : estimator
            The estimator that is being fitted.
        context : CallbackContext
            The task.
        """

    def teardown(self, estimator, context):
        """Do nothing; part of the protocol.

        Parameters
        ----------
        estimator : estimator
            The estimator that is being fitted.
        context : CallbackContext
            The task.
        """

    def on_fit_task_begin(self, estimator, context):
        """Do nothing; part of the protocol.

        Parameters
        ----------
        estimator : estimator
            The estimator that is being fitted.
        context : CallbackContext
            The task.
        """

    def on_fit_task_end(self, estimator, context, *, fitted_estimator=None):
        """Draw samples after an epoch that is asked for.

        Parameters
        ----------
        estimator : estimator
            The estimator that is being fitted.
        context : CallbackContext
            The task that ends.
        fitted_estimator : estimator, default=None
            The model as if training had ended now.
        """
        if context.task_name != "epoch" or not hasattr(fitted_estimator, "sample"):
            return
        epoch = context.task_id + 1
        if _is_milestone(epoch) if self.epochs is None else epoch in self.epochs:
            self._monitor.setup(estimator, context)
            self._monitor.on_fit_task_end(estimator, context, X=(), y=(), fitted_estimator=fitted_estimator)
            self._monitor.teardown(estimator, context)

    def get_samples(self):
        """Return the samples.

        Returns
        -------
        list of dict of int to ndarray of shape (n_samples, n_features)
            For each fit that was seen, in their order, the samples by epoch.

        Raises
        ------
        ValueError
            When no samples have been drawn yet.
        """
        try:
            logs = self._monitor.get_logs(select="all")
        except ValueError as error:
            raise ValueError(
                f"There are no samples yet: no fit of a model with a method `sample` has come to the first of "
                f"epochs={self.epochs} under this monitor."
            ) from error
        fits = {}
        for log in logs:
            for row in log.data:
                fits.setdefault((log.run_id, row["parent_task_id_path"]), {})[row["task_id"] + 1] = row["samples"]
        return list(fits.values())


def _draw_samples(estimator, X, y, *, n_samples, seed):
    """Return samples, where scikit-learn expects a score."""
    return estimator.sample(n_samples, random_state=seed)


def _is_milestone(epoch):
    """Return whether `epoch` is a power of ten, or two or five times one."""
    leading = int(str(epoch).rstrip("0"))
    return leading in (1, 2, 5)
