"""Probabilistic PCA of rows with missing entries, by the EM algorithm."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from skvae._data.rows import Rows
from skvae._model.completion import pair_products, solve_latent

__all__ = ["fit_to_observed"]

# Entries of a block of rows, with the products of their latent components.
_BLOCK_ENTRIES = 1 << 20

# The most steps, and the change of the mean and the components, as a share of the noise, at which one is the last.
_MOST_STEPS, _TOLERANCE = 50, 3e-2

# The precision of the prior of a feature's mean, times the variance of the noise.
_PRECISION_OF_MEAN = 1e-6


@dataclass(frozen=True)
class _Estimate:
    """A linear model: x = mean + z W + noise, with what is not known of W.

    Attributes
    ----------
    mean : Tensor of shape (n_features,), float64
    components : Tensor of shape (n_directions, n_features), float64
        W.
    variance : float
        The variance of the noise.
    uncertainty : Tensor of shape (n_directions, n_directions, n_features), float64
        The covariance of the components of each feature.
    """

    mean: Tensor
    components: Tensor
    variance: float
    uncertainty: Tensor


def fit_to_observed(
    mean: Tensor, components: Tensor, variance: float, rows: Rows, group: Any, *, smallest: float
) -> tuple[Tensor, Tensor, float, float]:
    r"""Return a linear model of the observed entries, from one to begin at.

    Each step takes the distribution of the latent components of each row, given its observed entries, and then for each
    feature a regression on them [1]_. The components have a prior, N(0, 1 / a) for all features, with a precision a of
    each direction that is learned, and what is not known of them counts [2]_: few rows make a cautious model. After
    each step the components are scaled by the covariance of the latent components, which makes steps much longer [3]_.

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
    components : Tensor of shape (n_directions, n_features), float64
    variance : float
    left : float
        The mean square of what the model, as it was before the last step, leaves of the observed entries.

    References
    ----------
    .. [1] Tipping, M. E. and Bishop, C. M., "Probabilistic principal component analysis", Journal of the Royal
       Statistical Society B 61, 1999.
    .. [2] Ilin, A. and Raiko, T., "Practical approaches to principal component analysis in the presence of missing
       values", Journal of Machine Learning Research 11, 2010.
    .. [3] Liu, C., Rubin, D. B. and Wu, Y. N., "Parameter expansion to accelerate EM: the PX-EM algorithm", Biometrika
       85, 1998.
    """
    part = rows.between(*group.part(len(rows)))
    n_directions = len(components)
    estimate = _Estimate(mean, components, variance, mean.new_zeros(n_directions, n_directions, len(mean)))
    for _ in range(_MOST_STEPS):
        before, sums = estimate, _Sums(part, estimate, group)
        estimate = sums.maximize(smallest)
        change = (estimate.mean - before.mean).square() + (estimate.components - before.components).square().sum(0)
        # Processors may round differently, and all processes have to end together.
        if group.broadcast(float(change.mean()) < _TOLERANCE**2 * estimate.variance):
            break
    return estimate.mean, estimate.components, estimate.variance, float(sums.left / sums.n_entries)


class _Sums:
    """What a step needs of the rows: sums over those in which a feature is observed, and over all.

    Parameters
    ----------
    rows : Rows
        The rows of this process.
    estimate : _Estimate
        The model that gives the latent components of the rows. A constant follows them.
    group : Group
        The processes.
    """

    def __init__(self, rows: Rows, estimate: _Estimate, group: Any) -> None:
        self._estimate = estimate
        (n_directions, n_features), zeros = estimate.components.shape, estimate.mean.new_zeros
        self._size = n_directions + 1
        self._products, self._with_x = zeros(n_features, self._size**2), zeros(n_features, self._size)
        self._squares, self._latent = zeros(()), zeros(self._size**2)
        self._pairs = pair_products(estimate.components) + estimate.uncertainty.flatten(0, 1)
        self.left, self.n_entries = zeros(()), zeros(())
        for batch in rows.blocks(max(1, _BLOCK_ENTRIES // max(n_features, self._size**2))):
            self._add(batch.x.cpu().double() - estimate.mean, batch.mask.cpu().double())
        for total in (self._products, self._with_x, self._squares, self._latent, self.left, self.n_entries):
            total.copy_(group.sum(total))

    def _add(self, centered: Tensor, observed: Tensor) -> None:
        components, variance = self._estimate.components, self._estimate.variance
        latent, covariance = solve_latent(centered, observed, components, self._pairs, variance)
        extended = torch.cat([latent, latent.new_ones(len(latent), 1)], 1)
        products = extended[:, :, None] * extended[:, None]
        products[:, :-1, :-1] += covariance
        seen = centered * observed
        self._products += observed.T @ products.flatten(1)
        self._with_x += seen.T @ extended
        self._squares += seen.square().sum()
        self._latent += products.flatten(1).sum(0)
        self.left += (seen - latent @ components * observed).square().sum()
        self.n_entries += observed.sum()

    def maximize(self, smallest: float) -> _Estimate:
        """Return the model of the next step."""
        before, products = self._estimate, self._products.view(-1, self._size, self._size)
        strengths = before.components.square().sum(1) + before.uncertainty.sum(2).diagonal()
        ridge = before.variance * len(before.mean) / strengths
        ridge = torch.cat([ridge, ridge.new_full((1,), _PRECISION_OF_MEAN)])
        inverse = torch.linalg.inv(products + torch.diag(ridge))
        found, covariance = (inverse @ self._with_x[:, :, None])[:, :, 0], before.variance * inverse
        explained = (
            2 * (found * self._with_x).sum() - (products * (found[:, :, None] * found[:, None] + covariance)).sum()
        )
        variance = max(float((self._squares - explained) / self.n_entries), smallest)
        latent = self._latent.view(self._size, self._size) / self._latent[-1]
        center = latent[:-1, -1]
        root = torch.linalg.cholesky(latent[:-1, :-1] - center.outer(center))
        components, constant = found[:, :-1].T, found[:, -1]
        return _Estimate(
            before.mean + constant + center @ components,
            root.T @ components,
            variance,
            torch.einsum("ak,fab,bl->klf", root, covariance[:, :-1, :-1], root),
        )
