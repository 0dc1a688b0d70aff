"""The EM algorithm for mixtures of normal distributions, which finds the one that suits draws best."""

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import kmeans_plusplus
from sklearn.mixture import GaussianMixture
from torch import Tensor

from skvae._model.prior import log_prior
from skvae._model.threads import one_thread

__all__ = ["fit_mixture"]

# The numbers of mixture components that are tried, in this order, until later ones do worse.
_SIZES = (1, 3, 10, 40)

# The share of the rows on which they are compared.
_HELD_OUT = 0.2

# How many latent numbers there are at least for each parameter of a mixture.
_ENTRIES_PER_PARAMETER = 4

# What is added to the variances of a component, in units of the standard normal distribution.
_REGULARIZATION = 1e-3

# A step of the EM algorithm is the last one when it raises the log density by less than this.
_TOLERANCE = 1e-2

# More than it ever takes.
_MAX_ITER = 1000

# Steps by which the first means are moved to the middle of the rows that are nearest to them.
_N_LLOYD = 5

# Rows that a component has besides its share, so that nothing is divided by 0.
_SMALLEST_SHARE = 1e-6


class _Components(NamedTuple):
    """The parameters of a mixture: weights, means, and covariances."""

    weights: Tensor
    means: Tensor
    covariances: Tensor


def fit_mixture(z: NDArray[np.float32], seed: int) -> GaussianMixture | None:
    """Return the mixture of normal distributions that suits draws best, None for N(0, I).

    A fifth of the rows is held out. A larger mixture is taken when the log density that it gives them is higher by more
    than the standard error of the difference.

    Parameters
    ----------
    z : ndarray of shape (n_rows, n_components), float32
        Draws from the posterior of the training rows, one for each.
    seed : int
        Where the order of the rows and the EM algorithm begin.
    """
    n_rows, n_components = z.shape
    n_held_out = int(_HELD_OUT * n_rows)
    order = torch.from_numpy(np.random.RandomState(seed).permutation(n_rows))
    held_out, fitted = torch.from_numpy(z)[order].split([n_held_out, n_rows - n_held_out])
    best, last = None, -math.inf
    best_scores = log_prior(None, held_out)
    for size in _SIZES:
        n_parameters = size * (n_components + 1) * (n_components + 2) // 2
        if n_parameters * _ENTRIES_PER_PARAMETER > fitted.numel() or n_held_out < 2:
            break
        with one_thread():
            mixture = _fit(fitted, size, seed)
        if mixture is None:
            break
        scores = log_prior(mixture, held_out)
        gain = scores - best_scores
        if gain.mean() > gain.std(correction=0) / math.sqrt(n_held_out):
            best, best_scores = mixture, scores
        if scores.mean() < last:
            break
        last = float(scores.mean())
    return best


def _fit(z: Tensor, size: int, seed: int) -> GaussianMixture | None:
    """Return the mixture of so many components, None where a covariance has no root in float32.

    `GaussianMixture.fit` takes the same steps. But it leaves its small products to the threads of the BLAS, which wait
    for each other on a busy machine. Their number is that of the whole process, and not to be changed here.
    """
    components, bounds = _first_components(z, size, seed), [-math.inf]
    for _ in range(_MAX_ITER):
        roots = _precision_roots(components.covariances)
        if roots is None:
            return None
        densities = torch.stack(
            [
                weight.log() + root.diagonal().log().sum() - 0.5 * (z @ root - mean @ root).square().sum(1)
                for weight, mean, root in zip(components.weights, components.means, roots, strict=True)
            ]
        )
        totals = densities.logsumexp(0)
        bounds.append(float(totals.mean()) - 0.5 * z.shape[1] * math.log(2 * math.pi))
        components = _maximize(z, (densities - totals).exp())
        if bounds[-1] - bounds[-2] < _TOLERANCE:
            break
    return _as_estimator(components, bounds, seed)


def _maximize(z: Tensor, shares: Tensor) -> _Components:
    """Return the components that are likeliest where each has these shares of the rows."""
    n_rows = shares.sum(1) + _SMALLEST_SHARE
    means = shares @ z / n_rows[:, None]
    deviations = ((z - mean) * share.sqrt()[:, None] for share, mean in zip(shares, means, strict=True))
    covariances = torch.stack([some.T @ some for some in deviations]) / n_rows[:, None, None]
    covariances.diagonal(dim1=1, dim2=2).add_(_REGULARIZATION)
    return _Components(n_rows / n_rows.sum(), means, covariances)


def _precision_roots(covariances: Tensor) -> Tensor | None:
    """Return upper triangular roots R of the inverse of each covariance matrix, RR', None where there are none."""
    factors, failed = torch.linalg.cholesky_ex(covariances)
    if failed.any():
        return None
    identity = torch.eye(covariances.shape[1], dtype=covariances.dtype, device="cpu")
    return torch.linalg.solve_triangular(factors, identity.expand_as(factors), upper=False).mT


def _first_components(z: Tensor, size: int, seed: int) -> _Components:
    """Return the components at which the EM algorithm begins: clusters with one covariance.

    `KMeans` would do, but it hangs in a forked child, whose threads of OpenMP are gone.
    """
    means = torch.from_numpy(kmeans_plusplus(z.numpy(), size, random_state=seed)[0])
    for _ in range(_N_LLOYD):
        nearest = (0.5 * means.square().sum(1) - z @ means.T).argmin(1)
        shares = torch.nn.functional.one_hot(nearest, size).T.to(z.dtype)
        counts = shares.sum(1)
        means = torch.where(counts[:, None] > 0, shares @ z / counts.clamp_min(1)[:, None], means)
    left = z - means[nearest]
    covariance = left.T @ left / len(z)
    covariance.diagonal().add_(_REGULARIZATION)
    return _Components((counts + 1) / (len(z) + size), means, covariance.expand(size, -1, -1))


def _as_estimator(components: _Components, bounds: list[float], seed: int) -> GaussianMixture | None:
    """Return scikit-learn's mixture with these parameters, as its own `fit` leaves it, in float64.

    `bounds` are those before each step, and one ahead of them.
    """
    weights, means, covariances = (values.double() for values in components)
    covariances = 0.5 * (covariances + covariances.mT)
    roots = _precision_roots(covariances)
    if roots is None:
        return None
    mixture = GaussianMixture(
        len(weights), tol=_TOLERANCE, max_iter=_MAX_ITER, reg_covar=_REGULARIZATION, random_state=seed
    )
    fitted = {
        "weights_": weights / weights.sum(),
        "means_": means,
        "covariances_": covariances,
        "precisions_": roots @ roots.mT,
        "precisions_cholesky_": roots.contiguous(),
    }
    for name, values in fitted.items():
        setattr(mixture, name, values.numpy())
    mixture.n_features_in_, mixture.n_iter_ = means.shape[1], len(bounds) - 1
    mixture.converged_ = bounds[-1] - bounds[-2] < _TOLERANCE
    mixture.lower_bounds_, mixture.lower_bound_ = bounds[1:], bounds[-1]
    return mixture
