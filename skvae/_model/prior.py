"""The mixture that is fitted to the latent components when training has ended, and takes the place of N(0, I)."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.mixture import GaussianMixture
from torch import Tensor, nn

__all__ = ["check_mixture", "draw_from_prior", "expected_log_prior", "log_prior"]

# Products of two latent numbers of a block of rows at some points.
_BLOCK_ENTRIES = 1 << 18

_LOG_2PI = math.log(2 * math.pi)


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
