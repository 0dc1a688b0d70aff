"""The mixture that is fitted to the latent components when training has ended, and takes the place of N(0, I)."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import kmeans_plusplus
from sklearn.mixture import GaussianMixture
from torch import Tensor, nn

__all__ = ["check_mixture", "draw_from_prior", "expected_log_prior", "fit_mixture", "log_prior"]

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

# Products of two latent numbers of a block of rows at some points.
_BLOCK_ENTRIES = 1 << 18

_LOG_2PI = math.log(2 * math.pi)


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
    held_out, fitted = np.split(z[np.random.RandomState(seed).permutation(n_rows)], [n_held_out])
    best, last = None, -math.inf
    best_scores = log_prior(None, torch.from_numpy(held_out)).numpy()
    for size in _SIZES:
        n_parameters = size * (n_components + 1) * (n_components + 2) // 2
        if n_parameters * _ENTRIES_PER_PARAMETER > fitted.size or n_held_out < 2:
            break
        mixture = GaussianMixture(
            size,
            tol=_TOLERANCE,
            max_iter=_MAX_ITER,
            reg_covar=_REGULARIZATION,
            random_state=seed,
            **_first_parameters(fitted, size, seed),
        )
        try:
            scores = mixture.fit(fitted).score_samples(held_out)
        except ValueError:  # a covariance that float32 cannot hold
            break
        gain = scores - best_scores
        if gain.mean() > gain.std() / math.sqrt(n_held_out):
            best, best_scores = mixture, scores
        if scores.mean() < last:
            break
        last = scores.mean()
    if best is not None:  # fitted in float32, which is twice as fast, it is to draw samples in float64
        best.set_params(weights_init=None, means_init=None, precisions_init=None)
        for name in ("weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_"):
            setattr(best, name, getattr(best, name).astype(np.float64))
        best.weights_ /= best.weights_.sum()
        best.covariances_ = (best.covariances_ + best.covariances_.transpose(0, 2, 1)) / 2
    return best


def _first_parameters(z: NDArray[np.float32], size: int, seed: int) -> dict[str, NDArray[np.float32]]:
    """Return the parameters at which the EM algorithm begins: clusters with one covariance.

    `KMeans` would do, but it hangs in a forked child, whose threads of OpenMP are gone.
    """
    means, _ = kmeans_plusplus(z, size, random_state=seed)
    for _ in range(_N_LLOYD):
        nearest = (0.5 * np.square(means).sum(axis=1) - z @ means.T).argmin(axis=1)
        counts = np.bincount(nearest, minlength=size)
        sums = np.zeros_like(means)
        np.add.at(sums, nearest, z)
        means = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], means)
    left = z - means[nearest]
    covariance = left.T @ left / len(z) + _REGULARIZATION * np.eye(z.shape[1], dtype=z.dtype)
    return {
        "weights_init": ((counts + 1) / (len(z) + size)).astype(z.dtype),
        "means_init": means,
        "precisions_init": np.repeat(np.linalg.inv(covariance)[None], size, axis=0),
    }


def check_mixture(prior: GaussianMixture, n_components: int) -> None:
    """Raise ValueError unless `prior` is a fitted mixture over this many components of z."""
    size = len(prior.weights_) if isinstance(prior, GaussianMixture) else 0
    square = size, n_components, n_components
    shapes = {"weights_": (size,), "means_": square[:2], "covariances_": square, "precisions_cholesky_": square}
    for name, shape in shapes.items():
        values = np.asarray(getattr(prior, name, np.nan))
        if size == 0 or values.shape != shape or not np.isfinite(values).all():
            raise ValueError(f"prior has no {name} of shape {shape} that is finite.")


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


def expected_log_prior(prior: GaussianMixture | None, mean: Tensor, std: Tensor, deviations: Tensor) -> Tensor:
    """Return the expected log density of N(0, I), or of a mixture, under posteriors, in the mean over mirrored points.

    At the points m + d and m - d, the squared distance from a component with the precision R R' and the mean c is
    ``|R'(m - c)|^2 + d'R R'd``, plus and minus ``2 d'R R'(m - c)``.

    Parameters
    ----------
    prior : GaussianMixture or None
        The mixture; None is N(0, I), whose expectation is exact.
    mean, std : Tensor of shape (n_rows, n_components)
        The posteriors.
    deviations : Tensor of shape (n_rows, n_pairs, n_components)
        What one point of each mirrored pair, of points that stand for the posterior, is away from the mean.

    Returns
    -------
    Tensor of shape (n_rows,)
        In nats.
    """
    if prior is None:
        return -0.5 * (mean.square() + std.square() + _LOG_2PI).sum(1)
    weights, means, roots = (
        torch.as_tensor(values, dtype=torch.float32, device=mean.device)
        for values in (prior.weights_, prior.means_, prior.precisions_cholesky_)
    )
    heights = weights.log() + (roots.diagonal(dim1=1, dim2=2).log() - 0.5 * _LOG_2PI).sum(1)
    precisions = (roots @ roots.mT).flatten(1)
    to_middle = torch.einsum("rci,cij->rcj", mean[:, None] - means, roots)
    middle = heights - 0.5 * to_middle.square().sum(2)
    slopes = torch.einsum("rcj,cij->ric", to_middle, roots).contiguous()
    total = torch.zeros_like(mean[:, 0])
    n_pairs = deviations.shape[1]
    for some in deviations.split(max(1, _BLOCK_ENTRIES // std.numel() // std.shape[1]), dim=1):
        products = (some[..., None] * some[..., None, :]).flatten(2)
        even = middle[:, None] - 0.5 * nn.functional.linear(products, precisions)
        odd = some @ slopes
        log_densities = torch.stack([even + odd, even - odd])
        largest = log_densities.amax(3, keepdim=True)
        # Below the bound, which makes no difference, float32 has numbers that take many times as long.
        shares = log_densities.sub_(largest).clamp_min_(-80).exp_().sum(3, keepdim=True)
        total += shares.log_().add_(largest).sum((0, 2, 3))
    return total / (2 * n_pairs)


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
