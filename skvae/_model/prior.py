"""The mixture that is fitted to the latent components when training has ended, and takes the place of N(0, I)."""

import math
import warnings

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from torch import Tensor

__all__ = ["draw_from_prior", "fit_mixture", "log_prior"]

# The numbers of mixture components that are tried, in this order, until the criterion stops falling.
_SIZES = (1, 2, 4, 8, 16, 32)

# How many latent numbers there are at least for each parameter of a mixture.
_ENTRIES_PER_PARAMETER = 4

# What is added to the variances of a component, in units of the standard normal distribution.
_REGULARIZATION = 1e-3

# A step of the EM algorithm is the last one when it raises the log density by less than this.
_TOLERANCE = 1e-3

_MAX_ITER = 50

_LOG_2PI = math.log(2 * math.pi)


def fit_mixture(z: NDArray[np.float32], seed: int) -> GaussianMixture | None:
    """Return the mixture of normal distributions with the lowest Bayesian information criterion, None for N(0, I).

    Parameters
    ----------
    z : ndarray of shape (n_rows, n_components)
        Draws from the posterior of the training rows, one for each.
    seed : int
        Where the EM algorithm begins.
    """
    n_rows, n_components = z.shape
    z = z.astype(np.float64)
    best, last = None, math.inf
    lowest = float(np.square(z).sum() + z.size * _LOG_2PI)  # that of N(0, I), which has no parameters
    for size in _SIZES:
        n_parameters = size * (n_components + 1) * (n_components + 2) // 2
        if n_parameters * _ENTRIES_PER_PARAMETER > z.size:
            break
        mixture = GaussianMixture(
            size, tol=_TOLERANCE, max_iter=_MAX_ITER, reg_covar=_REGULARIZATION, random_state=seed
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a mixture that could be a little better will do
            criterion = mixture.fit(z).bic(z)
        if criterion >= last:
            break
        last = criterion
        if criterion < lowest:
            best, lowest = mixture, criterion
    return best


def log_prior(prior: GaussianMixture | None, z: Tensor) -> Tensor:
    """Return the log density of N(0, I), or of a mixture, at points ``(..., n_components)``."""
    if prior is None:
        return -0.5 * (z.square() + _LOG_2PI).sum(-1)
    weights, means, roots = (
        torch.as_tensor(values, dtype=torch.float32, device=z.device)
        for values in (prior.weights_, prior.means_, prior.precisions_cholesky_)
    )
    log_densities = []
    for weight, mean, root in zip(weights, means, roots, strict=True):
        standard = z @ root - mean @ root
        log_densities.append(root.diagonal().log().sum() + weight.log() - 0.5 * (standard.square() + _LOG_2PI).sum(-1))
    return torch.stack(log_densities).logsumexp(0)


def draw_from_prior(
    prior: GaussianMixture | None, n_samples: int, n_components: int, generator: torch.Generator
) -> NDArray[np.float32]:
    """Return draws from N(0, I), or from a mixture: ``(n_samples, n_components)``."""
    z = torch.randn((n_samples, n_components), generator=generator, dtype=torch.float32, device="cpu").numpy()
    if prior is None:
        return z
    chosen = torch.rand(n_samples, generator=generator, dtype=torch.float64, device="cpu").numpy()
    chosen = np.searchsorted(np.cumsum(prior.weights_)[:-1], chosen)
    for number, (mean, covariance) in enumerate(zip(prior.means_, prior.covariances_, strict=True)):
        rows = chosen == number
        z[rows] = mean + z[rows] @ np.linalg.cholesky(covariance).T
    return z
