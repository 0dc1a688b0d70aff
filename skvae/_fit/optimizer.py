"""Adam over the parameters of a model, with gradients clipped by value."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from skvae._model import ops

__all__ = ["Adam"]


class Adam:
    """Adam, its state by the names of the parameters.

    Parameters
    ----------
    model : nn.Module
        What is trained: its parameters that require a gradient.
    learning_rate : float
        The step size. It is kept as a tensor, so that a recorded step sees a change.
    clip_value : float or None
        Bound on the absolute value of each entry of the gradient; None leaves the gradient alone.
    decayed : sequence of Tensor
        The parameters that decay.
    weight_decay : float
        Times the step size, the share of themselves that they lose at each step.
    """

    def __init__(
        self,
        model: nn.Module,
        learning_rate: float,
        clip_value: float | None,
        decayed: Sequence[Tensor],
        weight_decay: float,
    ) -> None:
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        if not trained:
            raise ValueError("There is nothing to train: no parameter of any network requires a gradient.")
        self._names, self.parameters = list(trained), list(trained.values())
        self._means = [torch.zeros_like(p) for p in self.parameters]
        self._squares = [torch.zeros_like(p) for p in self.parameters]
        self._n_steps = [torch.zeros((), dtype=torch.float32, device=p.device) for p in self.parameters]
        self.learning_rate = torch.tensor(learning_rate, dtype=torch.float32, device=self.parameters[0].device)
        self.clip_value, self.weight_decay = clip_value, weight_decay
        ids = {id(p) for p in decayed} if weight_decay else set()
        self._decays = [id(p) in ids for p in self.parameters]

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor | None]) -> None:
        """Take a step along the gradients, which are written to. A parameter with None stays as it is."""
        columns: list[list[Any]] = [self.parameters, list(gradients), self._means, self._squares, self._n_steps]
        if all(g is None for g in gradients):
            raise ValueError("There is nothing to train: the loss depends on no parameter that requires a gradient.")
        for decays, weight_decay in ((True, self.weight_decay), (False, 0.0)):
            chosen = [g is not None and d == decays for g, d in zip(gradients, self._decays, strict=True)]
            if not any(chosen):
                continue
            parameters, slopes, means, squares, n_steps = (
                list(itertools.compress(column, chosen)) for column in columns
            )
            for i, (p, g) in enumerate(zip(parameters, slopes, strict=True)):
                if g.stride() != p.stride():  # Adam runs over memory in order
                    slopes[i] = torch.empty_like(p).copy_(g)
                if self.clip_value is not None:
                    slopes[i].clamp_(-self.clip_value, self.clip_value)
            ops.adam_(parameters, slopes, means, squares, n_steps, self.learning_rate, weight_decay)

    def state(self) -> dict[str, Any]:
        """Return the number of steps and the moments of each parameter as NumPy arrays."""
        return {
            name: [value.cpu().numpy().copy() for value in values]
            for name, *values in zip(self._names, self._n_steps, self._means, self._squares, strict=True)
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned; a parameter that it does not know starts anew."""
        for name, *values in zip(self._names, self._n_steps, self._means, self._squares, strict=True):
            for value, stored in zip(values, state.get(name, ()), strict=False):
                value.copy_(torch.from_numpy(np.array(stored)))
