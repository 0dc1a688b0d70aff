"""The training loop: shuffled minibatches, clipped gradients, Adam, history and early stopping.

It knows nothing of autoencoders: a module offers ``loss(batch, generator)``, which returns a dictionary of terms summed
over the rows of the batch, and a function that gives the gradient of the objective.
"""

import copy
import math
import threading
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from skvae._distributed import Group

__all__ = ["EarlyStopping", "Trainer", "divergence"]


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
        self._best_weights: dict[str, Any] = {}
        self._n_stale = 0

    def update(self, score: float, module: nn.Module) -> bool:
        """Take note of an epoch's score; return True when it is time to stop."""
        self._n_stale = 0 if score > self.best_score + self.tol else self._n_stale + 1
        is_best = score > self.best_score
        if is_best:
            self.best_score = score
        if is_best or not self._best_weights:
            self._best_weights = copy.deepcopy(module.state_dict())
        return self._n_stale >= self.n_iter_no_change

    def restore(self, module: nn.Module) -> None:
        """Give `module` the best weights."""
        module.load_state_dict(self._best_weights)

    def state(self) -> dict[str, Any]:
        """Return all that it remembers, weights as NumPy arrays."""
        return {
            "best_score": self.best_score,
            "best_weights": arrays(self._best_weights),
            "n_stale": self._n_stale,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        self.best_score, self._n_stale = state["best_score"], state["n_stale"]
        self._best_weights = tensors(state["best_weights"])


def arrays(weights: dict[str, Any]) -> dict[str, Any]:
    """Return weights as NumPy arrays of their own; what a module keeps besides stays as it is."""
    return {
        name: value.cpu().numpy().copy() if isinstance(value, Tensor) else copy.deepcopy(value)
        for name, value in weights.items()
    }


def tensors(weights: dict[str, Any]) -> dict[str, Any]:
    """Undo `arrays`."""
    return {
        name: torch.from_numpy(np.array(value)) if isinstance(value, np.ndarray) else value
        for name, value in weights.items()
    }


def divergence(epoch: int, what: str) -> ValueError:
    """Return the error that training diverged in `epoch`; `what` says how that shows."""
    return ValueError(
        f"Training diverged in epoch {epoch}: {what}. Try a smaller learning_rate_init or clip_value, look for extreme "
        f"values in the data, and if a module of your own is in use, check that its output is finite."
    )


# What an allocation must not exceed to be handed out again by glibc rather than returned to the system and faulted in
# anew, once an allocation of that size has been freed.
_LARGEST_KEPT_ALLOCATION = (1 << 25) - (1 << 16)


class Trainer:
    """Adam on a module's loss, an epoch at a time.

    On a CUDA device the steps of a module whose attribute ``capturable`` is true are captured as graphs, one for each
    size of batch.

    Parameters
    ----------
    module : nn.Module
        Offers ``loss(batch, generator) -> (terms, gradients)``: the terms to record, summed over the rows, and a
        function that returns the gradient of the objective in each parameter that requires one, or None for one that
        plays no part. It is trained in place.
    learning_rate : float
        Adam's step size.
    batch_size : int
        Rows of a minibatch; the last one of an epoch may be smaller.
    clip_value : float or None
        Bound on the absolute value of each entry of the gradient; None leaves the gradient alone.
    shuffle_generator, noise_generator : torch.Generator
        The sources of the order of the rows (on the CPU) and of all that the loss draws (on the module's device).
    group : Group, default=None
        The processes that train together, all with the same rows and generators. Each takes its part of every
        minibatch, and the gradients are averaged over the rows of all.

    References
    ----------
    .. [1] Kingma, D. P. and Ba, J., "Adam: a method for stochastic optimization", ICLR 2015.
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
        group: Group | None = None,
    ) -> None:
        self.module = module
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.clip_value = clip_value
        self.shuffle_generator = shuffle_generator
        self.noise_generator = noise_generator
        self.group = group
        trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
        if not trained:
            raise ValueError("There is nothing to train: no parameter of any network requires a gradient.")
        self._names, self._parameters = list(trained), list(trained.values())
        self._means = [torch.zeros_like(p) for p in self._parameters]
        self._squares = [torch.zeros_like(p) for p in self._parameters]
        self._n_steps = [torch.zeros((), dtype=torch.float32, device=p.device) for p in self._parameters]
        self._sums: dict[str, Tensor] = {}
        self._device = self._parameters[0].device
        captures = group is None and self._device.type == "cuda" and getattr(module, "capturable", False)
        self._captured = _CapturedSteps(noise_generator) if captures else None

    def run(
        self,
        rows: Batches,
        n_epochs: int,
        *,
        history: dict[str, list[float]],
        summarize: Callable[[dict[str, float]], dict[str, float]],
        early_stopping: EarlyStopping | None = None,
        stop: bool = False,
        save: Callable[[bool], None] | None = None,
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
        stop : bool, default=False
            Whether training that goes on here has stopped before.
        save : callable, default=None
            Called before the first epoch, if there is one, and after each one, with whether training stops there.
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
        n_epochs = 0 if stop else n_epochs
        if save is not None and n_epochs:
            save(stop)
        for _ in range(n_epochs):
            on_epoch_begin()
            epoch = 1 + max(map(len, history.values()), default=0)
            for name, value in summarize(self.run_epoch(rows, epoch)).items():
                history.setdefault(name, []).append(value)
            if early_stopping is not None:
                stop = early_stopping.update(history["validation_elbo"][-1], self.module)
            if save is not None:
                save(stop)
            asked_to_stop = on_epoch_end()
            if self.group is not None:
                asked_to_stop = self.group.any(asked_to_stop)
            if asked_to_stop and not stop:
                stop = True
                if save is not None:
                    save(stop)
            if stop:
                break
        if early_stopping is not None:
            early_stopping.restore(self.module)
        # A loss that is finite says that the weights before the last step were; these are the ones after it.
        if not all(bool(parameter.isfinite().all()) for parameter in self.module.parameters()):
            n_epochs = max(map(len, history.values()), default=0)
            raise divergence(n_epochs, "its last step left weights that are not finite")
        return stop

    def run_epoch(self, rows: Batches, epoch: int) -> dict[str, float]:
        """Train on every row once and return the mean over the rows of each term of the loss."""
        torch.empty(_LARGEST_KEPT_ALLOCATION, dtype=torch.uint8, device="cpu")
        self.module.train()
        order = torch.randperm(len(rows), generator=self.shuffle_generator, device="cpu")
        with torch.autocast(self._device.type, enabled=False):
            for index in order.split(min(int(self.batch_size), len(rows))):
                if self.group is not None:
                    self._shared_step(rows, index, self.group)
                elif self._captured is not None:
                    self._captured(self._step, rows[index])
                else:
                    self._step(rows[index])
        self.module.eval()
        # The device is read once an epoch.
        totals = torch.stack(list(self._sums.values()))
        if self.group is not None:
            totals = self.group.sum(totals)
        means = {name: total / len(rows) for name, total in zip(self._sums, totals.tolist(), strict=True)}
        for total in self._sums.values():
            total.zero_()
        if not all(map(math.isfinite, means.values())):
            raise divergence(epoch, ", ".join(f"{name} {mean:g}" for name, mean in means.items()))
        return means

    @torch.no_grad()
    def _step(self, batch: Tensor) -> None:
        """Take one step on `batch`, and add its terms to the sums."""
        # To mypy, every attribute of a module is a tensor or a module.
        terms, differentiate = self.module.loss(batch, self.noise_generator)  # type: ignore[operator]
        self._add_terms(terms)
        self._adam(differentiate())

    @torch.no_grad()
    def _shared_step(self, rows: Batches, index: Tensor, group: Group) -> None:
        """Take one step on the rows `index`, of which this process has its part."""
        start, stop = group.part(len(index))
        generator = self.noise_generator
        generator.start, generator.n_rows = start, len(index)  # type: ignore[attr-defined]
        # A process that has no row takes one that counts for nothing.
        batch = rows[index[start : max(stop, start + 1)]]
        share = (stop - start) / len(index)
        terms, differentiate = self.module.loss(batch, generator)  # type: ignore[operator]
        self._add_terms(terms if share else {name: torch.zeros_like(term) for name, term in terms.items()})
        # Which parameters play a part may depend on the rows; one that no row of any process uses has no gradient.
        gradients: list[Tensor | None] = [g if share else None for g in differentiate()]
        sizes = [p.numel() for p in self._parameters]
        flat = [
            p.new_zeros(n) if g is None else share * g.reshape(-1)
            for p, g, n in zip(self._parameters, gradients, sizes, strict=True)
        ]
        present = torch.tensor([float(g is not None) for g in gradients], device=self._device)
        *parts, counts = group.sum(torch.cat([*flat, present])).split([*sizes, len(gradients)])
        self._adam(
            [
                part.view_as(p).to(p.dtype) if count else None
                for p, part, count in zip(self._parameters, parts, counts.tolist(), strict=True)
            ]
        )

    def _add_terms(self, terms: dict[str, Tensor]) -> None:
        for name, term in terms.items():
            if name not in self._sums:
                # Not every device has float64.
                dtype = torch.float32 if term.device.type == "mps" else torch.float64
                self._sums[name] = torch.zeros((), dtype=dtype, device=term.device)
            self._sums[name] += term

    def _adam(self, gradients: list[Tensor | None]) -> None:
        """Clip the gradients and update the parameters and their moments [1]_."""
        updates = [
            (p, g if g.stride() == p.stride() else torch.empty_like(p).copy_(g), mean, square, n_steps)
            for p, g, mean, square, n_steps in zip(
                self._parameters, gradients, self._means, self._squares, self._n_steps, strict=True
            )
            if g is not None
        ]
        if not updates:
            raise ValueError("There is nothing to train: the loss depends on no parameter that requires a gradient.")
        parameters, present, means, squares, n_steps = (list(column) for column in zip(*updates, strict=True))
        if self.clip_value is not None:
            for gradient in present:
                gradient.clamp_(-self.clip_value, self.clip_value)
        torch._foreach_add_(n_steps, 1)
        # torch.optim.Adam(fused=True) ends in this call, after as much time again on a small network.
        torch._fused_adam_(
            parameters,
            present,
            means,
            squares,
            [],
            n_steps,
            lr=self.learning_rate,
            beta1=0.9,
            beta2=0.999,
            weight_decay=0.0,
            eps=1e-8,
            amsgrad=False,
            maximize=False,
        )

    def state(self) -> dict[str, Any]:
        """Return the state of the optimiser and the generators as NumPy arrays."""
        return {
            "adam": {
                name: [value.cpu().numpy().copy() for value in values]
                for name, *values in zip(self._names, self._n_steps, self._means, self._squares, strict=True)
            },
            "shuffle": self.shuffle_generator.get_state().numpy(),
            "noise": self.noise_generator.get_state().numpy(),
            "noise_device": self.noise_generator.device.type,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned.

        A parameter that it does not know starts anew, as does the noise on another kind of device.
        """
        for name, *values in zip(self._names, self._n_steps, self._means, self._squares, strict=True):
            for value, stored in zip(values, state["adam"].get(name, ()), strict=False):
                value.copy_(torch.from_numpy(np.array(stored)))
        self.shuffle_generator.set_state(torch.from_numpy(np.array(state["shuffle"])))
        if state["noise_device"] == self.noise_generator.device.type:
            self.noise_generator.set_state(torch.from_numpy(np.array(state["noise"])))


class _CapturedSteps:
    """Training steps on a CUDA device, recorded once for each size of batch and then replayed.

    Parameters
    ----------
    generator : torch.Generator
        What a step draws from; each replay goes on where the one before it stopped.
    """

    # Libraries set themselves up in the first steps, which a recording must not contain; and a recording takes as long
    # as some dozens of ordinary steps.
    _N_ORDINARY = 20

    # One process records one graph at a time.
    _recording = threading.Lock()

    def __init__(self, generator: torch.Generator) -> None:
        self._generator = generator
        self._n_seen: dict[torch.Size, int] = {}
        self._recorded: dict[torch.Size, tuple[Tensor, Callable[[], None]]] = {}

    def __call__(self, step: Callable[[Tensor], None], batch: Tensor) -> None:
        """Take `step` on `batch`; whatever else the step reads or writes must stay where it is."""
        shape = batch.shape
        n_seen = self._n_seen[shape] = self._n_seen.get(shape, 0) + 1
        if n_seen <= self._N_ORDINARY:
            step(batch)
            return
        if shape not in self._recorded:
            held = torch.empty_like(batch)
            self._recorded[shape] = held, self._record(step, held)
        held, replay = self._recorded[shape]
        held.copy_(batch)
        replay()

    def _record(self, step: Callable[[Tensor], None], held: Tensor) -> Callable[[], None]:
        """Record `step` on what `held` will hold; nothing is computed yet."""
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self._generator)
        stream = torch.cuda.Stream(held.device)
        with (
            self._recording,
            torch.cuda.device(held.device),
            torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"),
        ):
            step(held)
        return graph.replay
