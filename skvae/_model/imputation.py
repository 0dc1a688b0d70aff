"""Missing entries of rows given those observed: their expectation, and draws."""

from collections.abc import Callable

import torch
from torch import Tensor

from skvae._data.rows import Batch
from skvae._model.bounds import BLOCK_ENTRIES, standard_normal_points
from skvae._model.prior import log_prior
from skvae._model.vae import VAE

__all__ = ["Imputation"]

# Steps towards the likeliest latent components of a row, and the shares of a step that are tried.
_N_STEPS, _SHARES = 4, (1.0, 0.5, 0.25, 0.0)

# How far from the middle the decoder is looked at to find its slopes, in standard deviations.
_REACH = 0.5

# The smallest variance of an entry.
_SMALLEST_VARIANCE = 1e-12


class Imputation:
    r"""The conditional distribution of missing entries, by self-normalized importance sampling [1]_.

    Draws of z come from a normal distribution that approximates p(z | observed entries), with components that depend on
    each other. It is found by Gauss-Newton steps from the posterior that the encoder gives. Its precision is
    :math:`I + \sum_j J_j J_j' / v_j` over the observed entries j, with the slopes J of their means and their variances
    v. That is exact for a linear decoder with constant noise and the prior N(0, I).

    Parameters
    ----------
    model : VAE
        The model.
    n_importance_samples : int
        The number of draws of z for each row.

    References
    ----------
    .. [1] Mattei, P.-A. and Frellsen, J., "MIWAE: deep generative modelling and imputation of incomplete data sets",
       ICML 2019.
    """

    def __init__(self, model: VAE, n_importance_samples: int) -> None:
        self._model = model
        self._points = standard_normal_points(n_importance_samples, model.n_components).to(model.device)
        n_decoded = max(n_importance_samples, 2 * model.n_components)
        width = max(model.encoder_width, model.decoder_width, model.n_components**2)
        self.n_rows = max(1, BLOCK_ENTRIES // (n_decoded * width))

    def mean(self, batch: Batch) -> Tensor:
        """Return the expectation of every entry given the observed ones: ``(n_rows, n_features)``."""
        z, weights = self._weighted(batch)
        means = self._decode(self._model.likelihood.mean, z)
        return torch.einsum("rpf,rp->rf", means, weights)

    def draw(self, batch: Batch, n_draws: int, generator: torch.Generator) -> Tensor:
        """Return draws of every entry given the observed ones: ``(n_draws, n_rows, n_features)``."""
        z, weights = self._weighted(batch)
        chosen = torch.multinomial(weights.cpu(), n_draws, replacement=True, generator=generator).to(z.device)
        z = z.gather(1, chosen[:, :, None].expand(-1, -1, z.shape[2]))
        return self._decode(lambda parameters: self._model.likelihood.sample(parameters, generator), z).transpose(0, 1)

    def _weighted(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return points of z for each row, ``(n_rows, n_points, n_components)``, and weights that stand for them."""
        center, root = self._approximate(batch)
        z = center[:, None] + self._points @ root.transpose(1, 2)
        # The determinant of the root is the same for all points of a row.
        log_weights = self._log_joint(batch, z) - log_prior(None, self._points)
        return z, torch.softmax(log_weights.double(), dim=1).float()

    def _log_joint(self, batch: Batch, z: Tensor) -> Tensor:
        """Return log p(observed entries, z) at points of each row."""
        entries = self._decode(lambda parameters: self._model.likelihood.log_prob(batch.x[:, None], parameters), z)
        return torch.where(batch.mask[:, None], entries, 0).sum(2) + log_prior(None, z)

    def _decode(self, function: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
        """Return a function of what the decoder makes of points of each row."""
        return function(self._model.decoder(z.flatten(0, 1)).unflatten(0, z.shape[:2]))

    def _approximate(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the mean of a normal approximation of p(z | observed entries), and a root R of its covariance RR'."""
        likelihood = self._model.likelihood
        center, std = self._model.posterior(batch)
        root = torch.diag_embed(std)
        for _ in range(_N_STEPS):
            around = center[:, None] + _REACH * torch.cat([root, -root], 2).transpose(1, 2)
            upper, lower = self._decode(likelihood.mean, around).chunk(2, dim=1)
            slopes = ((upper - lower) / (2 * _REACH)).double()
            parameters = self._model.decoder(center)
            variance = likelihood.variance(parameters).double().clamp_min(_SMALLEST_VARIANCE)
            weighted = slopes * (batch.mask / variance)[:, None]
            root = root.double()
            precision = weighted @ slopes.transpose(1, 2) + root.transpose(1, 2) @ root
            left = (batch.x - likelihood.mean(parameters)).double()
            gradient = weighted @ left[:, :, None] - root.transpose(1, 2) @ center[:, :, None].double()
            factor = torch.linalg.cholesky(precision)
            step = (root @ torch.cholesky_solve(gradient, factor))[:, :, 0].float()
            root = torch.linalg.solve_triangular(factor.transpose(1, 2), root, upper=True, left=False).float()
            tried = center[:, None] + step[:, None] * step.new_tensor(_SHARES)[:, None]
            best = self._log_joint(batch, tried).argmax(1)
            center = tried[torch.arange(len(tried), device=tried.device), best]
        return center, root
