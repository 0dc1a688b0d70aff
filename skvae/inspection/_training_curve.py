"""The history of a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from sklearn.utils.validation import check_is_fitted

from skvae.inspection._montage import make_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

# Each curve of a `history_`: its label, the side of its axis and its color.
_CURVES = {
    "elbo": ("ELBO", "left", "C0"),
    "log_likelihood": ("log likelihood", "left", "C1"),
    "kl": ("KL", "right", "C2"),
    "loss": ("loss", "left", "C0"),
    "accuracy": ("accuracy", "right", "C1"),
}


class TrainingCurveDisplay:
    """The records in `history_`, by epoch.

    The curves of a VAE are the ELBO and its terms, in nats per row. The KL term has an axis of its own on the right.
    The curves of a classifier are the loss and, on the right, the accuracy. Curves of validation data are dashed.

    Make one with `from_estimator`.

    Parameters
    ----------
    history : dict of str to list of float
        The records, by epoch.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes.
    right_ax_ : matplotlib Axes
        The axes on the right, with the same epochs.
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

    def __init__(self, history: Mapping[str, Sequence[float]]) -> None:
        self.history = history

    @classmethod
    def from_estimator(cls, estimator: Any, *, ax: Axes | None = None, **line_kwargs: Any) -> Self:
        """Plot the training curves of a fitted estimator.

        Parameters
        ----------
        estimator : estimator
            A fitted estimator with the attribute `history_`.
        ax : matplotlib Axes, default=None
            Axes to plot on. None makes a figure.
        **line_kwargs : dict
            Arguments of matplotlib's `plot`, for all curves.

        Returns
        -------
        TrainingCurveDisplay
            The display.
        """
        check_is_fitted(estimator)
        if not hasattr(estimator, "history_"):
            raise ValueError(
                f"{type(estimator).__name__} has no history_. Give a VAE or a CNN classifier of this library. If it "
                f"is in a Pipeline, give the step."
            )
        return cls(estimator.history_).plot(ax=ax, **line_kwargs)

    def plot(self, *, ax: Axes | None = None, **line_kwargs: Any) -> Self:
        """Plot the curves.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to plot on. None makes a figure.
        **line_kwargs : dict
            Arguments of matplotlib's `plot`, for all curves.

        Returns
        -------
        TrainingCurveDisplay
            The display.
        """
        if not set(self.history) & set(_CURVES):
            raise ValueError(f"history must hold some of {', '.join(_CURVES)}; got {self.history!r}.")
        from matplotlib.cbook import normalize_kwargs
        from matplotlib.lines import Line2D

        line_kwargs = normalize_kwargs(line_kwargs, Line2D)  # "c" is "color", as in the defaults
        self.ax_ = make_axes(ax)
        self.right_ax_ = self.ax_.twinx()
        self.figure_ = self.ax_.figure
        sides = {"left": self.ax_, "right": self.right_ax_}
        self.lines_: list[Line2D] = []
        for name, (label, side, color) in _CURVES.items():
            for key, full_label, style in ((name, label, "-"), (f"validation_{name}", f"validation {label}", "--")):
                if key in self.history:
                    values = self.history[key]
                    defaults = {"color": color, "linestyle": style, "label": full_label}
                    self.lines_ += sides[side].plot(range(1, len(values) + 1), values, **defaults | line_kwargs)
        self.ax_.set_xlabel("epoch")
        for axes in sides.values():
            axes.set_ylabel(", ".join(str(line.get_label()) for line in self.lines_ if line.axes is axes))
        self.right_ax_.legend(handles=self.lines_, loc="center right")
        return self
