"""How long a fit trains, in steps of which size."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from skvae._data.checks import warn_user

__all__ = ["Plan"]

# Small data get small batches, so that an epoch has about as many steps as this.
_STEPS_PER_EPOCH = 32

_SMALLEST_BATCH, _LARGEST_BATCH = 8, 128

# Steps of a fit whose number of epochs is not given, and the bounds on that number.
_N_STEPS = 10_000

_FEWEST_EPOCHS, _MOST_EPOCHS = 10, 150

# With fewer steps than this, a decoder that does not begin at a linear model is nearly always behind it.
_FEWEST_STEPS = 200

# The largest share of the weights beside a linear path that a step takes by default.
_LARGEST_DECAY = 0.1


@dataclass(frozen=True)
class Plan:
    """The steps of a training.

    Attributes
    ----------
    n_epochs : int
        The most epochs.
    batch_size : int
        Rows of a minibatch; the last one of an epoch may be smaller.
    learning_rate, schedule : float, {"constant", "cosine"}
        The step size of Adam at the beginning, and how it falls.
    weight_decay : float
        The decay of the weights beside a linear path.
    clip_value : float or None
        The bound on the gradient's entries.
    beta : float
        The weight of the KL term.
    """

    n_epochs: int
    batch_size: int
    learning_rate: float
    schedule: str
    weight_decay: float
    clip_value: float | None
    beta: float

    @classmethod
    def of_fit(cls, estimator: Any, n_rows: int) -> "Plan":
        """Return what the parameters of an estimator say of a fit to so many rows.

        Raises
        ------
        ValueError
            When a step would take more from a weight than there is.
        """
        batch_size, n_epochs, decay = estimator.batch_size, estimator.max_iter, estimator.weight_decay
        if batch_size == "auto":
            batch_size = min(max(n_rows // _STEPS_PER_EPOCH, _SMALLEST_BATCH), _LARGEST_BATCH)
        if n_epochs is None:
            n_epochs = math.ceil(_N_STEPS / math.ceil(n_rows / batch_size))
            n_epochs = min(max(n_epochs, _FEWEST_EPOCHS), _MOST_EPOCHS)
        rate = float(estimator.learning_rate_init)
        if decay != "auto" and decay * rate > 1:
            raise ValueError(
                f"weight_decay={decay:g} times learning_rate_init={rate:g} is {decay * rate:g}, the share of a weight "
                f"that a step takes away; expected 1 at most. Give a smaller weight_decay or learning_rate_init."
            )
        return cls(
            int(n_epochs),
            int(batch_size),
            rate,
            estimator.learning_rate,
            min(estimator._decay_times_rows / n_rows, _LARGEST_DECAY / rate) if decay == "auto" else float(decay),
            None if estimator.clip_value is None else float(estimator.clip_value),
            float(estimator.beta),
        )

    @classmethod
    def of_partial_fit(cls, estimator: Any, n_rows: int) -> "Plan":
        """Return the same for one epoch of a stream, of which nobody knows the length."""
        plan = dataclasses.replace(cls.of_fit(estimator, n_rows), n_epochs=1, schedule="constant")
        return dataclasses.replace(plan, weight_decay=0.0) if estimator.weight_decay == "auto" else plan

    def warn_of_few_steps(self, n_rows: int) -> None:
        """Warn when a fit to so many rows, whose decoder begins at no linear model, can hardly learn anything."""
        n_steps = self.n_epochs * math.ceil(n_rows / self.batch_size)
        if n_steps < _FEWEST_STEPS:
            warn_user(
                f"The decoder does not begin at a linear model, and the fit has {n_steps} steps: {self.n_epochs} "
                f"epochs of {n_rows} rows in batches of {self.batch_size}. With fewer than {_FEWEST_STEPS} it learns "
                f"little. Give more epochs (max_iter) or a smaller batch_size.",
                UserWarning,
            )

    def learning_rate_at(self, progress: float) -> float:
        """Return the step size when this share of all steps has been taken."""
        fall = 0.5 * (1 + math.cos(math.pi * progress)) if self.schedule == "cosine" else 1.0
        return self.learning_rate * fall
