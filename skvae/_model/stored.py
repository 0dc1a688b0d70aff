"""Modules that are saved as their configuration and their weights in NumPy arrays."""

import copy
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from skvae._version import __version__

__all__ = ["StoredModule", "copy_weights", "weights_from_numpy", "weights_to_numpy"]


def copy_weights(weights: dict[str, Any]) -> dict[str, Any]:
    """Return weights as tensors of their own.

    `copy.deepcopy` of a state_dict would do, but Python loses a Ctrl-C that comes while it copies a class by its slots.
    """
    return {
        name: value.detach().clone() if isinstance(value, Tensor) else copy.deepcopy(value)
        for name, value in weights.items()
    }


def weights_to_numpy(weights: dict[str, Any]) -> dict[str, Any]:
    """Return weights as NumPy arrays of their own; what a module keeps besides stays as it is."""
    return {
        name: value.detach().cpu().numpy().copy() if isinstance(value, Tensor) else copy.deepcopy(value)
        for name, value in weights.items()
    }


def weights_from_numpy(weights: dict[str, Any]) -> dict[str, Any]:
    """Undo `weights_to_numpy`."""
    return {
        # In memory that torch allocates: kernels round otherwise in other places.
        name: torch.tensor(value, device="cpu") if isinstance(value, np.ndarray) else value
        for name, value in weights.items()
    }


class StoredModule(nn.Module):
    """A module whose saved state holds nothing of torch and nothing of a device.

    It loads on a machine without the device that it was made on. A copy, on the other hand, stays on the device.

    Parameters
    ----------
    **config
        The arguments of the subclass: numbers, strings and tuples of them. The module is built from them again, and
        then takes over the stored weights, whose shapes have to fit.
    """

    def __init__(self, **config: Any) -> None:
        super().__init__()
        self.config = config

    def __getstate__(self) -> dict[str, Any]:
        return {"config": self.config, "weights": weights_to_numpy(self.state_dict()), "version": __version__}

    def __setstate__(self, state: dict[str, Any]) -> None:
        try:
            self._build(state["config"], weights_from_numpy(state["weights"]))
        except Exception as error:  # whatever another version, or damage, has made of it
            raise ValueError(
                f"A {type(self).__name__} that skvae {state.get('version', 'before 0.1.0')} has saved cannot be loaded "
                f"by skvae {__version__}: {error}"
            ) from error
        self.eval()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        copied = type(self).__new__(type(self))
        memo[id(self)] = copied
        copied._build(self.config, copy_weights(self.state_dict()))
        return copied.train(self.training)

    def _build(self, config: dict[str, Any], weights: dict[str, Tensor]) -> None:
        """Make the module anew with these weights, which it takes over."""
        type(self).__init__(self, **config)
        self.load_state_dict(weights, assign=True)
