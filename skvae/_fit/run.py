"""One training: its model, rows, optimizer, random streams and history as one object with a state, and its loop."""

import functools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from skvae._data.checks import spawn_seeds
from skvae._data.rows import Rows
from skvae._fit.distributed import Group
from skvae._fit.graphs import RecordedSteps
from skvae._fit.optimizer import Adam
from skvae._fit.schedule import Plan
from skvae._model import ops
from skvae._model.noise import Noise
from skvae._model.stored import weights_from_numpy, weights_to_numpy
from skvae._model.threads import threads_for
from skvae._model.vae import VAE

__all__ = ["Hook", "Run", "Seeds", "divergence_error"]

# Training rows on which a model is tried after its last step.
_N_TRIED = 4


@dataclass(frozen=True)
class Seeds:
    """The seeds of a fit: of the initial weights, rows set aside, order of the rows, noise, and what ends a fit."""

    weights: int
    split: int
    order: int
    noise: int
    finish: int

    @classmethod
    def draw(cls, random_state: Any) -> "Seeds":
        """Return seeds drawn from the parameter `random_state`."""
        return cls(*spawn_seeds(random_state, 5))

    def state(self) -> dict[str, int]:
        """Return the seeds by their names."""
        return asdict(self)


class Hook:
    """Something that happens around each epoch of a run."""

    def begin_run(self, run: "Run") -> None:
        """Act before the first epoch of a run, if it has one."""

    def begin_epoch(self, run: "Run") -> None:
        """Act before an epoch."""

    def end_epoch(self, run: "Run") -> bool | None:
        """Act after an epoch, whose records are in the history; true asks the run to stop."""

    def end_run(self, run: "Run") -> None:
        """Act after the last epoch."""

    def state(self) -> dict[str, Any]:
        """Return what an interrupted fit has to remember."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""

    def results(self, run: "Run") -> dict[str, Any]:
        """Return fitted attributes of the estimator."""
        return {}


def divergence_error(epoch: int, what: str) -> ValueError:
    """Return the error that training diverged in `epoch`; `what` says how that shows."""
    return ValueError(
        f"Training diverged in epoch {epoch}: {what}. Try a smaller learning_rate_init or clip_value, look for extreme "
        f"values in the data, and if a module of your own is in use, check that its output is finite."
    )


class Run:
    """A training of a model.

    On a CUDA device the steps of a model that allows it are recorded as graphs.

    Parameters
    ----------
    model : VAE
        What is trained, in place and where it is.
    rows : Rows
        What it is trained on.
    seeds : Seeds
        Where the random streams begin.
    group : Group
        The processes that train together, all with the same rows and seeds. Each takes its part of every minibatch.
    plan : Plan
        Its steps.
    history : dict of str to list of float
        What was recorded of earlier epochs; empty for a new model.
    hooks : sequence of Hook
        What happens around each epoch, in this order.

    Attributes
    ----------
    history : dict of str to list of float
        By epoch, in nats per row in the units of the data: "loss", "elbo", "log_likelihood", "kl", and what hooks add.
    n_before : int
        How many epochs of the history are of earlier runs.
    stopped : bool
        Whether a hook has asked to stop.
    beta : float
        Weight of the KL term, which a hook may set: steps that were recorded see the change.
    """

    def __init__(
        self,
        model: VAE,
        rows: Rows,
        seeds: Seeds,
        group: Group,
        plan: Plan,
        *,
        history: dict[str, list[float]],
        hooks: Sequence[Hook],
    ) -> None:
        self.model, self.rows, self.seeds, self.group, self.plan, self.hooks = model, rows, seeds, group, plan, hooks
        self.optimizer = Adam(model, plan.learning_rate, plan.clip_value, model.inner_weights, plan.weight_decay)
        self.order = torch.Generator("cpu").manual_seed(seeds.order)
        self.noise = Noise(model.device, seeds.noise)
        self._term_weights = torch.tensor([-1.0, plan.beta], dtype=torch.float32, device=model.device)
        self._beta = plan.beta
        self._log_volume = model.units.log_volume(rows.n_features - rows.count_missing() / len(rows))
        self.history: dict[str, list[float]] = {"loss": [], "elbo": [], "log_likelihood": [], "kl": []}
        self.history |= {name: list(values) for name, values in history.items()}
        self.n_before = len(self.history["loss"])
        self.stopped = False
        kinds = nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d
        self._normalizes = any(isinstance(layer, kinds) for layer in model.modules())
        # Not every device has float64.
        dtype = torch.float32 if model.device.type == "mps" else torch.float64
        self._sums = [torch.zeros((), dtype=dtype, device=model.device) for _ in range(2)]
        records = not group.exchanges and model.device.type == "cuda" and model.capturable
        self._recorded_steps = RecordedSteps(self.noise.generator) if records else None

    @property
    def beta(self) -> float:
        """The weight of the KL term."""
        return self._beta

    @beta.setter
    def beta(self, beta: float) -> None:
        self._beta = beta
        self._term_weights[1] = beta

    @property
    def epoch(self) -> int:
        """The number of epochs that the model has been trained for, in earlier runs as well."""
        return len(self.history["loss"])

    @property
    def n_done(self) -> int:
        """The number of epochs of this run."""
        return self.epoch - self.n_before

    def train(self) -> None:
        """Train until the run has all its epochs, or a hook asks to stop.

        Raises
        ------
        ValueError
            When the loss, a weight, or what the model makes of a training row is no longer finite.
        """
        if self._normalizes and min(self.plan.batch_size, len(self.rows)) == 1:
            raise ValueError(
                f"The encoder or the decoder normalizes by minibatches, which needs two rows or more in each; got "
                f"batch_size={self.plan.batch_size} and {len(self.rows)} rows. Give more of them, or a module without "
                f"BatchNorm."
            )
        with threads_for(self.model, min(self.plan.batch_size, len(self.rows))):
            self._train()

    def _train(self) -> None:
        """Run the epochs and the hooks."""
        n_epochs = self.plan.n_epochs
        self.model.eval()  # also where no epoch is left
        if self.n_done < n_epochs and not self.stopped:
            for hook in self.hooks:
                hook.begin_run(self)
        while self.n_done < n_epochs and not self.stopped:
            for hook in self.hooks:
                hook.begin_epoch(self)
            self.train_epoch()
            for hook in self.hooks:
                self.stopped = self.group.any(bool(hook.end_epoch(self))) or self.stopped
        for hook in self.hooks:
            hook.end_run(self)
        self._check_last_step()
        if self.group.exchanges:  # processors of different kinds may round differently
            weights = self.group.broadcast(weights_to_numpy(self.model.state_dict()))
            self.model.load_state_dict(weights_from_numpy(weights))

    def train_epoch(self) -> None:
        """Train on every row once, and record the epoch."""
        ops.keep_freed_memory()
        self.model.train()
        order = self.rows.place(torch.randperm(len(self.rows), generator=self.order, device="cpu"))
        with torch.autocast(self.model.device.type, enabled=False):
            minibatches = self._minibatches(order)
            for number, minibatch in enumerate(minibatches):
                progress = (self.n_done + number / len(minibatches)) / self.plan.n_epochs
                self.optimizer.learning_rate.fill_(self.plan.learning_rate_at(progress))
                first, stop = self.group.part(len(minibatch))
                self.noise.share(first, len(minibatch))
                step = functools.partial(self._step, len(minibatch))
                if first == stop:
                    self._step_without_rows(minibatch[:1])
                elif self.rows.is_resident and self._recorded_steps is not None:
                    self._recorded_steps(step, minibatch[first:stop])
                else:
                    step(minibatch[first:stop])
        self.model.eval()
        self._record()

    def _minibatches(self, order: Tensor) -> list[Tensor]:
        """Return the rows in minibatches. Batch normalization cannot train on one row, which joins those before it."""
        minibatches = list(order.split(min(self.plan.batch_size, len(order))))
        if self._normalizes and len(minibatches) > 1 and len(minibatches[-1]) == 1:
            minibatches[-2:] = [torch.cat(minibatches[-2:])]
        return minibatches

    def _step(self, n_rows: int, placed: Tensor) -> None:
        """Take one step: down the gradient of ``beta * KL - log likelihood``, in the mean over `n_rows` rows."""
        terms = self.model.terms(self.rows.take(placed), self.noise)
        for total, term in zip(self._sums, terms, strict=True):
            total += term.detach()
        # The objective is the sum of the terms with these weights.
        weights = (self._term_weights / n_rows).unbind()
        parameters = self.optimizer.parameters
        gradients = ops.gradients(terms, weights, parameters)
        self.optimizer.step(self.group.sum_gradients(gradients, parameters))

    def _step_without_rows(self, placed: Tensor) -> None:
        """Take part in a step of which this process has no row.

        It draws for a row that it does not train on, so that its generator stays equal to the others'.
        """
        with torch.no_grad():
            self.model.terms(self.rows.take(placed), self.noise)
        parameters = self.optimizer.parameters
        self.optimizer.step(self.group.sum_gradients([None] * len(parameters), parameters))

    def _record(self) -> None:
        """Add the means over the rows, those before each step, to the history."""
        totals = self.group.sum(torch.stack(self._sums))
        log_likelihood, kl = (total / len(self.rows) for total in totals.tolist())  # the device is read once an epoch
        for total in self._sums:
            total.zero_()
        if not (math.isfinite(log_likelihood) and math.isfinite(kl)):
            raise divergence_error(self.epoch + 1, f"log_likelihood {log_likelihood:g}, kl {kl:g}")
        log_likelihood -= self._log_volume
        record = {"loss": self.beta * kl - log_likelihood, "elbo": log_likelihood - kl}
        record |= {"log_likelihood": log_likelihood, "kl": kl}
        for name, values in self.history.items():
            values.append(record.get(name, math.nan))

    def _check_last_step(self) -> None:
        """Raise ValueError unless the model is finite.

        Recorded losses precede each update; this checks the model after the last one.
        """
        if not all(bool(parameter.isfinite().all()) for parameter in self.model.parameters()):
            raise divergence_error(self.epoch, "its last step left weights that are not finite")
        batch = self.rows[:_N_TRIED]
        with torch.inference_mode(), torch.autocast(self.model.device.type, enabled=False):
            mean, std = self.model.posterior(batch)
            entries = self.model.likelihood.log_prob(batch.x, self.model.decoder(mean))
        if not all(bool(values.isfinite().all()) for values in (mean, std, entries)):
            raise divergence_error(self.epoch, "what it makes of training rows after its last step is not finite")

    def results(self) -> dict[str, Any]:
        """Return the fitted attributes of an estimator that is trained by this run, as it stands."""
        history = {name: list(values) for name, values in self.history.items()}
        attributes = {
            "module_": self.model,
            "n_iter_": self.epoch,
            "loss_curve_": history.pop("loss"),
            "history_": history,
            "validation_scores_": None,
            "best_validation_score_": None,
        }
        for hook in self.hooks:
            attributes |= hook.results(self)
        return attributes

    def state(self) -> dict[str, Any]:
        """Return the state of the run, as NumPy arrays and plain values."""
        return self.continuation() | {
            "weights": weights_to_numpy(self.model.state_dict()),
            "history": {name: np.array(values) for name, values in self.history.items()},
            "stopped": self.stopped,
            "hooks": {type(hook).__name__: hook.state() for hook in self.hooks if hook.state()},
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.model.load_state_dict(weights_from_numpy(state["weights"]))
        self.history = {name: values.tolist() for name, values in state["history"].items()}
        self.stopped = bool(state["stopped"])
        for hook in self.hooks:
            if hook.state():  # others may come and go between two calls
                hook.load_state(state["hooks"][type(hook).__name__])
        self.load_continuation(state)

    def continuation(self) -> dict[str, Any]:
        """Return the optimizer and the random streams, which go on from one call of `partial_fit` to the next."""
        return {
            "optimizer": self.optimizer.state(),
            "order": self.order.get_state().numpy(),
            "noise": self.noise.state(),
        }

    def load_continuation(self, state: dict[str, Any]) -> None:
        """Go on from what `continuation` returned."""
        self.optimizer.load_state(state["optimizer"])
        self.order.set_state(torch.from_numpy(np.array(state["order"])))
        self.noise.load_state(state["noise"])
