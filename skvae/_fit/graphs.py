"""Training steps on a CUDA device, recorded as graphs and replayed."""

import threading
from collections.abc import Callable
from typing import Any

import torch

from skvae._data.rows import Batch

__all__ = ["RecordedSteps"]


class RecordedSteps:
    """Steps that are recorded once for each size of batch and then replayed.

    Parameters
    ----------
    generator : torch.Generator
        What the step draws from; each replay goes on where the one before it stopped.
    """

    # Libraries set themselves up in the first steps, which a recording must not contain; and a recording takes as long
    # as some dozens of ordinary steps.
    n_ordinary = 20

    # One process records one graph at a time.
    _recording = threading.Lock()

    def __init__(self, generator: torch.Generator) -> None:
        self._generator = generator
        self._n_seen: dict[Any, int] = {}
        self._recorded: dict[Any, tuple[Batch, Callable[[], None]]] = {}

    def __call__(self, step: Callable[[Batch], None], batch: Batch) -> None:
        """Take `step`, always the same one, on `batch`. What it reads and writes besides must stay where it is."""
        kind = len(batch), batch.observed is None
        n_seen = self._n_seen[kind] = self._n_seen.get(kind, 0) + 1
        if n_seen <= self.n_ordinary:
            step(batch)
            return
        if kind not in self._recorded:
            held = batch.empty_like()
            self._recorded[kind] = held, self._record(step, held)
        held, replay = self._recorded[kind]
        held.copy_(batch)
        replay()

    def _record(self, step: Callable[[Batch], None], held: Batch) -> Callable[[], None]:
        """Record `step` on what `held` will hold; nothing is computed yet."""
        device = held.x.device
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self._generator)
        with (
            self._recording,
            torch.cuda.device(device),
            torch.cuda.graph(graph, stream=torch.cuda.Stream(device), capture_error_mode="thread_local"),
        ):
            step(held)
        return graph.replay
