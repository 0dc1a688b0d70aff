"""Callbacks for the training of models, in scikit-learn's protocol."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from numbers import Integral
from typing import TYPE_CHECKING, Any

from numpy.random import RandomState
from numpy.typing import ArrayLike, NDArray
from sklearn.callback import ScoringMonitor
from sklearn.utils import check_random_state

from skvae._data.checks import check_positive_integer, spawn_seeds

if TYPE_CHECKING:
    from sklearn.callback import CallbackContext

__all__ = ["SampleMonitor"]


class SampleMonitor:
    """Callback that draws samples during training, always from the same points of the latent space.

    Set it on a model, or on the Pipeline or the search that holds the model. It reaches all estimators inside that
    report their epochs and have a method `sample`, also in other processes. scikit-learn wants it on the outermost
    estimator. A model that comes out of a cache is not trained, so the monitor does not see it.

    A model is pickled with its callbacks and all their samples. ``set_callbacks()`` removes them.

    Parameters
    ----------
    n_samples : int, default=10
        Number of samples.
    epochs : int or sequence of int, default=None
        The epochs after which samples are drawn, counted from 1. None stands for 1, 2, 5, 10, 20, 50 and so on.
    random_state : int, RandomState instance or None, default=None
        Source of the samples. An integer is passed on to `sample` after each of the epochs. Otherwise an integer is
        drawn once: from the RandomState, or from fresh entropy for None.

    See Also
    --------
    skvae.inspection.SamplesDisplay.from_monitor : Plot the samples of a monitor.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skvae import NormalVAETransformer
    >>> from skvae.callbacks import SampleMonitor
    >>> from skvae.inspection import SamplesDisplay
    >>> X, _ = load_digits(return_X_y=True)
    >>> monitor = SampleMonitor(random_state=0)
    >>> vae = NormalVAETransformer(max_iter=5, random_state=0).set_callbacks(monitor).fit(X)
    >>> {epoch: samples.shape for epoch, samples in monitor.get_samples()[0].items()}
    {1: (10, 64), 2: (10, 64), 5: (10, 64)}
    >>> display = SamplesDisplay.from_monitor(monitor)
    """

    # scikit-learn passes a callback with this attribute on to inner estimators. None stands for any depth.
    max_propagation_depth: int | None = None

    def __init__(
        self,
        n_samples: int = 10,
        *,
        epochs: int | Iterable[int] | None = None,
        random_state: int | RandomState | None = None,
    ) -> None:
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
        # A ScoringMonitor brings back what it logs in other processes.
        self._monitor = ScoringMonitor(scoring={"samples": sampler})

    def setup(self, estimator: Any, context: CallbackContext) -> None:
        """Do nothing; part of the protocol.

        Parameters
        ----------
        estimator : estimator
            The estimator that is being fitted.
        context : CallbackContext
            The task.
        """

    def teardown(self, estimator: Any, context: CallbackContext) -> None:
        """Do nothing; part of the protocol.

        Parameters
        ----------
        estimator : estimator
            The estimator that is being fitted.
        context : CallbackContext
            The task.
        """

    def on_fit_task_begin(self, estimator: Any, context: CallbackContext) -> None:
        """Do nothing; part of the protocol.

        Parameters
        ----------
        estimator : estimator
            The estimator that is being fitted.
        context : CallbackContext
            The task.
        """

    def on_fit_task_end(self, estimator: Any, context: CallbackContext, *, fitted_estimator: Any = None) -> None:
        """Draw samples at the end of an epoch, if it is one of `epochs`.

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

    def get_samples(self) -> list[dict[int, NDArray[Any]]]:
        """Return the samples.

        Returns
        -------
        list of dict of int to ndarray of shape (n_samples, n_features)
            The samples by epoch, for each fit that the monitor has seen. Fits are in their order.

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
        fits: dict[Any, dict[int, NDArray[Any]]] = {}
        for log in logs:
            for row in log.data:
                fits.setdefault((log.run_id, row["parent_task_id_path"]), {})[row["task_id"] + 1] = row["samples"]
        return list(fits.values())


def _draw_samples(estimator: Any, X: ArrayLike, y: ArrayLike, *, n_samples: int, seed: int) -> NDArray[Any]:
    """Return samples in place of the score that scikit-learn asks for."""
    return estimator.sample(n_samples, random_state=seed)


def _is_milestone(epoch: int) -> bool:
    """Return whether `epoch` is one, two or five times a power of ten."""
    leading = int(str(epoch).rstrip("0"))
    return leading in (1, 2, 5)
