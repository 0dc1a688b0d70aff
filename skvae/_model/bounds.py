"""Lower bounds on the log density of rows, over points that stand for the posterior."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skvae._data.checks import LARGEST, enough_memory
from skvae._data.rows import Batch, Rows
from skvae._model.vae import VAE

__all__ = ["BLOCK_ENTRIES", "FEWER_ROWS", "LowerBound"]

# Entries that the widest layer makes of one block of rows to encode, decode or score: they stay near the caches.
BLOCK_ENTRIES = 1 << 20

# What to do when there is no memory for a block.
FEWER_ROWS = "Give fewer rows at a time, or fit narrower networks."

# An ELBO takes two points for each component, up to this many components.
_MOST_WHITE_COMPONENTS = 256

# Points of which an importance bound is made, and how often they are drawn from.
_N_WIDE_POINTS, _N_DRAWS = 1 << 14, 1 << 16

# How much wider than the posterior they lie: the variance is 1 + _EXCESS / sqrt(n_components).
_EXCESS = 1.5

# Torch imports what this needs when it is first used. A child that is forked meanwhile would wait for it forever.
with torch.device("cpu"):
    pass


def _sobol_normal(n_points: int, n_components: int) -> Tensor:
    """Return scrambled Sobol points, mapped to the standard normal distribution, in float64."""
    with torch.device("cpu"):
        engine = torch.quasirandom.SobolEngine(n_components, scramble=True, seed=0)
        # The engine makes the first point in torch's default dtype, whatever it is asked for.
        first = engine.quasi.double().div(2**engine.MAXBIT).float()[None]
        others = engine.fast_forward(1).draw(n_points - 1, dtype=torch.float32)
    # The bounds keep points off 0 and 1.
    return torch.special.ndtri(torch.cat([first, others]).double().clamp(2.0**-25, 1 - 2.0**-25))


def standard_normal_points(n_points: int, n_components: int) -> Tensor:
    """Return a fixed set of points that stands for N(0, I): ``(n_points, n_components)`` in float32.

    Half are scrambled Sobol points, the other half their mirror images. Their mean is zero (for an even number), and
    their covariance is the identity if there are twice as many as components, or has a diagonal of ones otherwise:
    expectations of quadratic functions, which are most of an ELBO, are exact rather than off by nats.
    """
    n_pairs = (n_points + 1) // 2
    half = _sobol_normal(n_pairs, n_components)
    if n_pairs >= n_components:
        half = torch.linalg.qr(half).Q * math.sqrt(n_pairs)
    else:
        half = half / half.square().mean(0).sqrt()
    return torch.cat([half, -half])[:n_points].float()


def wide_points(n_points: int, n_components: int) -> tuple[Tensor, Tensor]:
    """Return points that reach further out than N(0, I), and probabilities with which they stand for it.

    The largest importance weights belong to few draws from the tails, where draws from N(0, I) itself hardly come.

    Returns
    -------
    points : Tensor of shape (n_points, n_components), float32
        Scrambled Sobol points of a wider normal distribution, and their mirror images.
    probabilities : Tensor of shape (n_points,), float64
        With them the mean is zero, and the covariance the identity if there are more than twice as many points as
        components.
    """
    variance = 1 + _EXCESS / math.sqrt(n_components)
    half = _sobol_normal(n_points // 2, n_components)
    probabilities = torch.softmax(0.5 * (1 - variance) * half.square().sum(1), 0)
    half = half * math.sqrt(variance)
    if len(half) > n_components:
        root = torch.linalg.cholesky((half.T * probabilities) @ half)
        half = torch.linalg.solve_triangular(root, half.T, upper=False).T
    return torch.cat([half, -half]).float(), torch.cat([probabilities, probabilities]) / 2


def balanced_groups(probabilities: Tensor, size: int) -> Tensor:
    """Return fixed groups of draws: in all of them together each point comes as often as its probability says.

    Returns
    -------
    Tensor of shape (n_groups, size), int64
        Numbers of points. Groups are independent draws with replacement, but for the balance.
    """
    positions = (torch.arange(_N_DRAWS, dtype=torch.float64, device="cpu") + 0.5) / _N_DRAWS
    drawn = torch.searchsorted(torch.cumsum(probabilities, 0), positions).clamp_max(len(probabilities) - 1)
    order = torch.from_numpy(np.random.RandomState(0).permutation(_N_DRAWS))
    size = min(size, _N_DRAWS)
    return drawn[order][: _N_DRAWS // size * size].view(-1, size)


class LowerBound:
    r"""The importance-weighted bound of rows, with one sample the ELBO, in nats of the data's own units.

    It is the expected logarithm of the mean of K importance weights [1]_. The ELBO is a mean over points whose first
    two moments are exact. For K > 1, one larger set of points serves every K, and the expectation is over groups of K
    draws from it. So the bound rises with K.

    Parameters
    ----------
    model : VAE
        The model.
    n_importance_samples : int
        The number K.

    References
    ----------
    .. [1] Burda, Y., Grosse, R. and Salakhutdinov, R., "Importance weighted autoencoders", ICLR 2016.
    """

    def __init__(self, model: VAE, n_importance_samples: int) -> None:
        self._model = model
        n_components = model.n_components
        if n_importance_samples == 1:
            points = standard_normal_points(max(32, 2 * min(n_components, _MOST_WHITE_COMPONENTS)), n_components)
            self._groups = None
        else:
            points, probabilities = wide_points(_N_WIDE_POINTS, n_components)
            self._groups = balanced_groups(probabilities, n_importance_samples)
        self._points = points.to(model.device)

    def __call__(self, rows: Rows) -> NDArray[np.float64]:
        """Return the bound of each row."""
        model = self._model
        width = max(model.encoder_width, model.decoder_width)
        n_rows = max(1, BLOCK_ENTRIES // (len(self._points) * width))
        blocks = self._points.split(max(1, BLOCK_ENTRIES // (n_rows * width)))
        bounds = []
        with torch.inference_mode(), torch.autocast(model.device.type, enabled=False), enough_memory(FEWER_ROWS):
            for batch in rows.blocks(n_rows):
                log_weights = torch.cat([model.log_weights(batch, points) for points in blocks], dim=1).cpu().double()
                bounds.append(self._expectation(log_weights).clamp_min(-LARGEST).numpy() - self._log_volumes(batch))
        return np.concatenate([np.empty(0), *bounds])

    def _log_volumes(self, batch: Batch) -> NDArray[np.float64] | float:
        """Return what the units take from the log density of each row: that of its observed entries."""
        units = self._model.units
        if batch.observed is None:
            return units.log_volume(self._model.n_features)
        return batch.observed.sum(1).cpu().numpy() * units.log_volume(1)

    def _expectation(self, log_weights: Tensor) -> Tensor:
        """Return the expected logarithm of the mean of a group of weights, for each row."""
        if self._groups is None:
            return log_weights.mean(1)
        size = self._groups.shape[1]
        return torch.cat([row[:, self._groups].logsumexp(2).mean(1) - math.log(size) for row in log_weights.split(1)])
