"""The source of all that a training step draws."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["Noise"]


class Noise:
    """A private random generator, and the rows of the minibatch that this process has.

    Where several processes share a minibatch, each draws for all of its rows and keeps those of its own, so that
    together they draw what one process would.

    Parameters
    ----------
    device : torch.device
        Where the draws are made.
    seed : int
        Where they begin.

    Attributes
    ----------
    generator : torch.Generator
        The generator.
    first, n_rows : int
        The first of this process's rows, and the rows of the whole minibatch.
    """

    def __init__(self, device: torch.device, seed: int) -> None:
        self.generator = torch.Generator(device).manual_seed(seed)
        self.first = self.n_rows = 0

    def share(self, first: int, n_rows: int) -> None:
        """Say which rows this process has of a minibatch of `n_rows`: those from `first` on."""
        self.first, self.n_rows = first, n_rows

    def normal(self, shape: torch.Size) -> Tensor:
        """Return standard-normal numbers, a row for each of this process's rows."""
        return self._draw(self._normal, shape)

    def bits(self, shape: torch.Size) -> Tensor:
        """Return random 16-bit integers, a row for each of this process's rows."""
        return self._draw(self._bits, shape)

    def seed(self) -> int:
        """Return a seed for torch's global generator, different in each process."""
        return draw_seed(self.generator) + self.first

    def state(self) -> dict[str, Any]:
        """Return the state of the generator as a NumPy array, and the kind of its device."""
        return {"generator": self.generator.get_state().numpy(), "device": self.generator.device.type}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned, if it is from the same kind of device."""
        if state["device"] == self.generator.device.type:
            self.generator.set_state(torch.from_numpy(np.array(state["generator"])))

    def _draw(self, draw: Callable[[torch.Size], Tensor], shape: torch.Size) -> Tensor:
        if shape[0] >= self.n_rows:
            return draw(shape)
        return draw(torch.Size((self.n_rows, *shape[1:])))[self.first : self.first + shape[0]]

    def _normal(self, shape: torch.Size) -> Tensor:
        return torch.randn(shape, generator=self.generator, device=self.generator.device, dtype=torch.float32)

    def _bits(self, shape: torch.Size) -> Tensor:
        # Four to a draw, which is several times as fast as a draw for each.
        draws = torch.empty((shape.numel() + 3) // 4, dtype=torch.int64, device=self.generator.device)
        draws.random_(-(2**63), None, generator=self.generator)
        return draws.view(torch.int16)[: shape.numel()].view(shape)


def draw_seed(generator: torch.Generator) -> int:
    """Return a seed drawn from `generator`."""
    return int(torch.randint(2**62, (1,), generator=generator, device=generator.device))
