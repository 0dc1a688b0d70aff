"""Lower bounds on the log density of rows, over points that stand for the posterior."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skvae._data.checks import in_memory
from skvae._data.rows import Rows
from skvae._model.vae import VAE

__all__ = ["BLOCK_ENTRIES", "LowerBound", "standard_normal_points"]

# Entries in one block of rows to encode, decode or score: keeps the activations in the caches, or near them.
BLOCK_ENTRIES = 1 << 19

# An ELBO takes two points for each component, up to this many components.
_MOST_WHITE_COMPONENTS = 256


def standard_normal_points(n_points: int, n_components: int) -> Tensor:
    """Return a fixed set of points that stands for N(0, I): ``(n_points, n_components)`` in float32.

    Half are scrambled Sobol points, the other half their mirror images. Their mean is zero (for an even number), and
    their covariance is the identity if there are twice as many as components, or has a diagonal of ones otherwise:
    expectations of quadratic functions, which are most of an ELBO, are exact rather than off by nats.
    """
    n_pairs = (n_points + 1) // 2
    with torch.device("cpu"):
        engine = torch.quasirandom.SobolEngine(n_components, scramble=True, seed=0)
        # In float32 the engine gives the same points whatever torch's default dtype; the bounds keep them off 0 and 1.
        uniform = engine.draw(n_pairs, dtype=torch.float32).double().clamp(2.0**-25, 1 - 2.0**-25)
    half = torch.special.ndtri(uniform)
    if n_pairs >= n_components:
        half = torch.linalg.qr(half).Q * math.sqrt(n_pairs)
    else:
        half = half / half.square().mean(0).sqrt()
    return torch.cat([half, -half])[:n_points].float()


class LowerBound:
    """The importance-weighted bound of rows, with one sample the ELBO, in nats of the data's own units.

    With few samples the bound is the mean of several groups of that many points, so that there are enough points for
    their first two moments to be exact.

    Parameters
    ----------
    n_components : int
        Number of latent components.
    n_importance_samples : int
        Number of points in a group.
    device : torch.device
        Where the model is.
    """

    def __init__(self, n_components: int, n_importance_samples: int, device: torch.device) -> None:
        n_groups = math.ceil(max(32, 2 * min(n_components, _MOST_WHITE_COMPONENTS)) / n_importance_samples)
        self._groups = n_groups, n_importance_samples
        with in_memory("n_importance_samples", n_importance_samples):
            self._points = standard_normal_points(n_groups * n_importance_samples, n_components).to(device)

    def __call__(self, model: VAE, rows: Rows) -> NDArray[np.float64]:
        """Return the bound of each row."""
        n_features = model.n_features
        n_rows = max(1, BLOCK_ENTRIES // (len(self._points) * n_features))
        blocks = self._points.split(max(1, BLOCK_ENTRIES // (n_rows * n_features)))
        bounds = []
        with torch.inference_mode(), torch.autocast(model.device.type, enabled=False):
            for batch in rows.blocks(n_rows):
                log_weights = torch.cat([model.log_weights(batch, points) for points in blocks], dim=1).cpu().double()
                groups = log_weights.unflatten(1, self._groups)
                bounds.append((groups.logsumexp(2) - math.log(self._groups[1])).mean(1).numpy())
        return np.concatenate([np.empty(0), *bounds]) - model.units.log_volume(n_features)
