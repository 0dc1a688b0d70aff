"""The training loop: shuffled minibatches, clipped gradients, Adam, history and early stopping.

It knows nothing of autoencoders: a module offers ``loss(batch, generator)``, which returns the objective on a batch
and a dictionary of terms summed over its rows.
"""

import math
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["EarlyStopping", "Trainer"]


class Batches(Protocol):
    """Rows that can be counted and taken by an index tensor."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Tensor) -> Tensor: ...


class EarlyStopping:
    """Remember the best weights, and say when the validation score has stopped rising.

    Parameters
    ----------
    n_iter_no_change : int
        Number of epochs in a row without an improvement of more than `tol` after which to stop.
    tol : float
        The improvement that counts.
    """

    def __init__(self, n_iter_no_change: int, tol: float) -> None:
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.best_score = -math.inf
        self._best_weights: dict[str, Tensor] = {}
        self._n_stale = 0

    def update(self, score: float, module: nn.Module) -> bool:
        """Take note of an epoch's score; return True when it is time to stop."""
        self._n_stale = 0 if score > self.best_score + self.tol else self._n_stale + 1
        is_best = score > self.best_score
        if is_best:
            self.best_score = score
        if is_best or not self._best_weights:
            self._best_weights = {name: value.clone() for name, value in module.state_dict().items()}
        return self._n_stale >= self.n_iter_no_change

    def restore(self, module: nn.Module) -> None:
        """Give `module` the best weights."""
        module.load_state_dict(self._best_weights)


def _divergence(epoch: int, what: str) -> ValueError:
    return ValueError(
        f"Training diverged in epoch {epoch}: {what}. Try a smaller learning_rate_init or clip_value, look for extreme "
        f"values in the data, and if a module of your own is in use, check that its output is finite."
    )


class Trainer:
    """Adam on a module's loss, an epoch at a time.

    Parameters
    ----------
    module : nn.Module
        Offers ``loss(batch, generator) -> (loss, terms)``. It is trained in place.
    learning_rate : float
        Adam's step size.
    batch_size : int
        Rows of a minibatch; the last one of an epoch may be smaller.
    clip_value : float or None
        Bound on the absolute value of each entry of the gradient; None leaves the gradient alone.
    shuffle_generator, noise_generator : torch.Generator
        The sources of the order of the rows (on the CPU) and of all that the loss draws (on the module's device).
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        learning_rate: float,
        batch_size: int,
        clip_value: float | None,
        shuffle_generator: torch.Generator,
        noise_generator: torch.Generator,
    ) -> None:
        self.module = module
        self.batch_size = batch_size
        self.clip_value = clip_value
        self.shuffle_generator = shuffle_generator
        self.noise_generator = noise_generator
        trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
        if not trained:
            raise ValueError("There is nothing to train: no parameter of any network requires a gradient.")
        self._names, self._parameters = list(trained), list(trained.values())
        self.optimizer = torch.optim.Adam(self._parameters, lr=learning_rate, fused=True)

    def run(
        self,
        rows: Batches,
        n_epochs: int,
        *,
        history: dict[str, list[float]],
        summarize: Callable[[dict[str, float]], dict[str, float]],
        early_stopping: EarlyStopping | None = None,
        on_epoch_begin: Callable[[], None],
        on_epoch_end: Callable[[], bool],
    ) -> bool:
        """Train for at most `n_epochs` epochs.

        Parameters
        ----------
        rows : Batches
            The training data.
        n_epochs : int
            The most epochs to run.
        history : dict of str to list of float
            Gets a new entry in every list after each epoch.
        summarize : callable
            Turns the mean terms of an epoch into the new entries of `history`.
        early_stopping : EarlyStopping, default=None
            Fed with ``history["validation_elbo"]``; the module ends with its best weights.
        on_epoch_begin, on_epoch_end : callable
            Called before and after each epoch; training stops when `on_epoch_end` returns True.

        Returns
        -------
        bool
            Whether training was stopped before `n_epochs`.

        Raises
        ------
        ValueError
            When the loss or a weight is no longer finite; the message names the epoch.
        """
        stop = False
        for _ in range(n_epochs):
            on_epoch_begin()
            epoch = 1 + max(map(len, history.values()), default=0)
            for name, value in summarize(self.run_epoch(rows, epoch)).items():
                history.setdefault(name, []).append(value)
            if early_stopping is not None:
                stop = early_stopping.update(history["validation_elbo"][-1], self.module)
            stop = on_epoch_end() or stop
            if stop:
                break
        self.optimizer.zero_grad()  # gives back the memory of the gradients
        if early_stopping is not None:
            early_stopping.restore(self.module)
        # A loss that is finite says that the weights before the last step were; these are the ones after it.
        if not all(bool(parameter.isfinite().all()) for parameter in self.module.parameters()):
            raise _divergence(epoch, "its last step left weights that are not finite")
        return stop

    def run_epoch(self, rows: Batches, epoch: int) -> dict[str, float]:
        """Train on every row once and return the mean over the rows of each term of the loss."""
        self.module.train()
        sums: dict[str, list[Tensor]] = {}
        order = torch.randperm(len(rows), generator=self.shuffle_generator, device="cpu")
        with torch.enable_grad():
            for index in order.split(min(int(self.batch_size), len(rows))):
                for name, term in self._step(rows[index]).items():
                    sums.setdefault(name, []).append(term)
        self.module.eval()
        # The device is read once an epoch; the addition is in float64, which not every device has.
        means = {name: float(torch.stack(terms).cpu().double().sum()) / len(rows) for name, terms in sums.items()}
        if not all(map(math.isfinite, means.values())):
            raise _divergence(epoch, ", ".join(f"{name} {mean:g}" for name, mean in means.items()))
        return means

    def _step(self, batch: Tensor) -> dict[str, Tensor]:
        self.optimizer.zero_grad()
        # To mypy, every attribute of a module is a tensor or a module.
        loss, terms = self.module.loss(batch, self.noise_generator)  # type: ignore[operator]
        loss.backward()
        if self.clip_value is not None:
            nn.utils.clip_grad_value_(self._parameters, self.clip_value)
        self.optimizer.step()
        return terms

    def state(self) -> dict[str, Any]:
        """Return the state of the optimiser and the generators as NumPy arrays."""
        moments = self.optimizer.state_dict()["state"]
        return {
            "moments": {
                self._names[i]: {key: value.cpu().numpy().copy() for key, value in entry.items()}
                for i, entry in moments.items()
            },
            "shuffle": self.shuffle_generator.get_state().numpy(),
            "noise": self.noise_generator.get_state().numpy(),
            "noise_device": self.noise_generator.device.type,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned.

        A parameter that it does not know starts anew, as does the noise on another kind of device.
        """
        moments = {
            i: {key: torch.from_numpy(np.array(value)) for key, value in state["moments"][name].items()}
            for i, name in enumerate(self._names)
            if name in state["moments"]
        }
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        self.shuffle_generator.set_state(torch.from_numpy(np.array(state["shuffle"])))
        if state["noise_device"] == self.noise_generator.device.type:
            self.noise_generator.set_state(torch.from_numpy(np.array(state["noise"])))
