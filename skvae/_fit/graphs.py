"""Training steps on a CUDA device, recorded as graphs and replayed."""

import threading
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["RecordedSteps"]


class RecordedSteps:
    """Steps that are recorded once for each size of a minibatch and then replayed.

    Parameters
    ----------
    generator : torch.Generator
        What a step draws from; each replay goes on where the one before it stopped.
    """

    # Libraries set themselves up in the first steps, which a recording must not contain; and a recording takes as long
    # as some dozens of ordinary steps.
    n_ordinary = 20

    # One process records one graph at a time.
    _recording = threading.Lock()

    def __init__(self, generator: torch.Generator) -> None:
        self._generator = generator
        self._n_seen: dict[int, int] = {}
        self._recorded: dict[int, tuple[Tensor, Callable[[], None]]] = {}

    def __call__(self, step: Callable[[Tensor], None], rows: Tensor) -> None:
        """Take `step`, always the same one, on the rows with these numbers.

        What it reads and writes besides must stay where it is.
        """
        size = len(rows)
        n_seen = self._n_seen[size] = self._n_seen.get(size, 0) + 1
        if n_seen <= self.n_ordinary:
            step(rows)
            return
        if size not in self._recorded:
            held = torch.empty_like(rows)
            self._recorded[size] = held, self._record(step, held)
        held, replay = self._recorded[size]
        held.copy_(rows)
        replay()

    def _record(self, step: Callable[[Tensor], None], held: Tensor) -> Callable[[], None]:
        """Record `step` on the rows whose numbers `held` will hold; nothing is computed yet."""
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self._generator)
        with (
            self._recording,
            torch.cuda.device(held.device),
            torch.cuda.graph(graph, stream=torch.cuda.Stream(held.device), capture_error_mode="thread_local"),
        ):
            step(held)
        return graph.replay
