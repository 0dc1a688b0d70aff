"""Probabilistic PCA of rows with missing entries, by the EM algorithm."""

from typing import Any

import torch
from torch import Tensor

from skvae._data.rows import Rows
from skvae._model.completion import solve_latent

__all__ = ["fit_to_observed"]

# Entries of a block of rows, with the products of their latent components.
_BLOCK_ENTRIES = 1 << 20

# The most steps, and the change of the fitted entries, in units of the noise, at which a step is the last one.
_MOST_STEPS, _TOLERANCE = 50, 3e-2

# How many rows of the prior hold back the components of a feature.
_RIDGE = 1.0


def fit_to_observed(
    mean: Tensor, components: Tensor, variance: float, rows: Rows, group: Any, *, smallest: float
) -> tuple[Tensor, Tensor, float, float]:
    r"""Return the linear model that makes the observed entries likeliest, from one to begin at.

    Each step takes the expectation of the latent components of each row, given its observed entries, and then for each
    feature a regression on them [1]_. The components are scaled by the covariance of the latent components after each
    step, which makes steps much longer [2]_.

    Parameters
    ----------
    mean, components, variance : Tensor, Tensor, float
        The linear model to begin at: x = mean + z W + noise of this variance.
    rows : Rows
        The rows.
    group : Group
        The processes, each of which takes a part of the rows.
    smallest : float
        The smallest variance of the noise.

    Returns
    -------
    mean : Tensor of shape (n_features,), float64
    components : Tensor of shape (n_components, n_features), float64
    variance : float
    left : float
        The mean square of what the expected mean leaves of the observed entries.

    References
    ----------
    .. [1] Tipping, M. E. and Bishop, C. M., "Probabilistic principal component analysis", Journal of the Royal
       Statistical Society B 61, 1999.
    .. [2] Liu, C., Rubin, D. B. and Wu, Y. N., "Parameter expansion to accelerate EM: the PX-EM algorithm", Biometrika
       85, 1998.
    """
    part = rows.between(*group.part(len(rows)))
    left, uncertainty = 0.0, 0.0
    for _ in range(_MOST_STEPS):
        sums = _Sums(part, mean, components, variance, uncertainty, group)
        found_mean, found, variance, left, uncertainty = sums.maximize(variance, smallest)
        change = ((found_mean - mean).square() + (found - components).square().sum(0)).mean()
        mean, components = found_mean, found
        if float(change) < _TOLERANCE**2 * variance:
            break
    return mean, components, variance, left


class _Sums:
    """What a step needs of the rows: sums over those in which a feature is observed, and over all."""

    def __init__(self, rows: Rows, mean: Tensor, components: Tensor, variance: float, uncertainty, group: Any) -> None:
        self._mean, self._components, self._uncertainty = mean, components, uncertainty
        n_directions, n_features = components.shape
        size = n_directions + 1  # the last one is the constant
        self._products = mean.new_zeros(n_features, size * size)
        self._with_x, self._squares = mean.new_zeros(n_features, size), mean.new_zeros(n_features)
        self._latent, self._left = mean.new_zeros(size * size), mean.new_zeros(())
        self._n_observed = mean.new_zeros(n_features)
        for batch in rows.blocks(max(1, _BLOCK_ENTRIES // max(n_features, size * size))):
            self._add(batch.x.cpu().double() - mean, batch.observed.cpu().double(), variance)
        sums = (self._products, self._with_x, self._squares, self._latent, self._left, self._n_observed)
        for total in sums:
            total.copy_(group.sum(total))

    def _add(self, centered: Tensor, observed: Tensor, variance: float) -> None:
        latent, covariance = solve_latent(centered, observed, self._components, variance, self._uncertainty)
        extended = torch.cat([latent, latent.new_ones(len(latent), 1)], 1)
        products = extended[:, :, None] * extended[:, None]
        products[:, :-1, :-1] += covariance
        seen = centered * observed
        self._products += observed.T @ products.flatten(1)
        self._with_x += seen.T @ extended
        self._squares += seen.square().sum(0)
        self._latent += products.flatten(1).sum(0)
        self._left += (seen - latent @ self._components * observed).square().sum()
        self._n_observed += observed.sum(0)

    def maximize(self, variance: float, smallest: float):
        """Return mean, components and variance of the noise, and the mean square that the earlier ones left."""
        size = len(self._components) + 1
        n_features = len(self._products)
        products = self._products.view(-1, size, size)
        strengths = self._components.square().sum(1)
        if torch.is_tensor(self._uncertainty):
            strengths = strengths + self._uncertainty.sum(2).diagonal()
        alpha = n_features / strengths
        if not VB: alpha = alpha*0+1/variance
        ridge = torch.diag(torch.cat([alpha, alpha.new_tensor([1e-6])])) * variance
        precision = (products + ridge)
        covariance = variance * torch.linalg.inv(precision)
        found = torch.linalg.solve(precision, self._with_x[:, :, None])[:, :, 0]
        second = found[:, :, None] * found[:, None] + (covariance if VB else 0)
        explained = 2 * (found * self._with_x).sum() - (products * second).sum()
        n_entries = self._n_observed.sum()
        variance = max(float((self._squares.sum() - explained) / n_entries), smallest)
        latent = self._latent.view(size, size) / self._latent[-1]
        center = latent[:-1, -1]
        root = torch.linalg.cholesky(latent[:-1, :-1] - center.outer(center))
        weights, constant = found[:, :-1].T, found[:, -1]
        mean = self._mean + constant + center @ weights
        uncertainty = torch.einsum("ak,fab,bl->klf", root, covariance[:, :-1, :-1], root) if VB else 0.0
        return mean, root.T @ weights, variance, float(self._left / n_entries), uncertainty
VB = True
