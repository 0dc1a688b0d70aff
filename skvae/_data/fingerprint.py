"""Fingerprints: what tells one parameter, one set of data or one model from another, in a line of text."""

import functools
import hashlib
import sys
from typing import Any

import numpy as np
import torch

from skvae._data.rows import as_tensor, blocks
from skvae._version import __version__

__all__ = ["Identity", "fingerprint"]


def fingerprint(value: object) -> str:
    """Return what tells a parameter or data from others: itself if it is short, a digest if it is large."""
    digest = hashlib.sha256()
    if isinstance(value, np.ndarray) and value.ndim == 2:
        text = f"{value.dtype} array of shape {value.shape}"
        for block in blocks(value):
            digest.update(as_tensor(block).numpy().data)
    elif isinstance(value, torch.nn.Module):
        text = type(value).__name__
        _update_with_module(digest, value)
    elif isinstance(value, np.random.RandomState):
        text = "RandomState"
        with np.printoptions(threshold=sys.maxsize):
            digest.update(repr(value.get_state(legacy=False)).encode())
    elif len(text := repr(value)) > 200:
        digest.update(text.encode())
        text = type(value).__name__
    else:
        return text
    return f"{text} with sha256 {digest.hexdigest()[:16]}"


def _update_with_module(digest: "hashlib._Hash", module: torch.nn.Module) -> None:
    """Add to `digest` the layers of a module, its weights, and what its attributes say that is no weight."""
    digest.update(repr(module).encode())
    for part in module.modules():
        plain = {key: item for key, item in vars(part).items() if isinstance(item, (bool, int, float, str, tuple))}
        digest.update(repr(plain).encode())
    for name, weight in module.state_dict().items():
        digest.update(name.encode())
        if isinstance(weight, torch.Tensor) and not torch.nn.parameter.is_lazy(weight):
            digest.update(weight.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy().data)
        else:
            digest.update(repr(weight).encode())


class Identity:
    """What a fit is a fit of: parameters, data, and where it starts. It is worked out when somebody asks for it.

    Parameters
    ----------
    estimator : BaseEstimator
        The estimator.
    method : {"fit", "partial_fit"}
        What was called.
    X, X_val : ndarray or None
        The data.
    device : torch.device
        Where the fit computes.
    goes_on : bool
        Whether it starts from the fitted model.
    """

    def __init__(self, estimator: Any, method: str, X: Any, X_val: Any, device: torch.device, *, goes_on: bool) -> None:
        self._estimator, self._method, self._data, self._device = estimator, method, {"X": X, "X_val": X_val}, device
        self._goes_on = goes_on

    @functools.cached_property
    def of_training(self) -> dict[str, str]:
        """What the result of the training depends on, in words."""
        estimator = self._estimator
        parameters = estimator.get_params(deep=False)
        for name in ("checkpoint", "device", "verbose"):
            del parameters[name]
        identity = {"skvae": __version__, "estimator": f"{type(estimator).__module__}.{type(estimator).__qualname__}"}
        identity |= {name: fingerprint(value) for name, value in (parameters | self._data).items()}
        identity["device"] = self._device.type
        if self._goes_on:
            start = {name: getattr(estimator, name) for name in ("module_", "loss_curve_", "history_")}
            identity |= {f"{name} before": fingerprint(value) for name, value in start.items()}
        return identity

    @property
    def of_process(self) -> dict[str, str]:
        """What has to be the same in all processes of a fit, in words."""
        estimator = self._estimator
        state = getattr(estimator, "_run_state", None) if self._method == "partial_fit" else None
        n_steps = max((int(steps) for steps, *_ in state["optimizer"].values()), default=0) if state else 0
        return self.of_training | {
            "the method": self._method,
            "the steps of the optimizer": str(n_steps),
            "checkpoint": "None" if estimator.checkpoint is None else "given",
            "feature names": fingerprint(list(getattr(estimator, "feature_names_in_", ()))),
        }
