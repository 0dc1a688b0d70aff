"""The posterior of rows with missing entries: a normal distribution whose components depend on each other."""

import torch
from torch import Tensor

from skvae._data.rows import Batch
from skvae._model.prior import log_prior
from skvae._model.vae import VAE, Gaussian

__all__ = ["around_modes", "given_observed"]

# Steps towards the likeliest latent components of a row, and the shares of a step that are tried.
_N_STEPS, _SHARES = 3, (1.0, 0.5, 0.25, 0.0)

# How far from the middle the decoder is looked at to find its slopes, in standard deviations.
_REACH = 0.5

# The smallest variance of an entry.
_SMALLEST_VARIANCE = 1e-12

# Entries that are decoded at once.
_BLOCK_ENTRIES = 1 << 20


def given_observed(model: VAE, batch: Batch) -> Gaussian:
    r"""Return the posterior of each row given its observed entries: the encoder's where all are.

    For the other rows, Gauss-Newton steps go from the encoder's posterior towards the z that is likeliest under the
    prior N(0, I). The precision there is :math:`I + \sum_j J_j J_j' / v_j` over the observed entries j, with the slopes
    J of their means and their variances v. That is exact for a linear decoder with constant noise.

    Parameters
    ----------
    model : VAE
        The model.
    batch : Batch
        Rows.

    Returns
    -------
    Gaussian
        With standard deviations as its scale where no entry is missing, and else with roots of covariance matrices.
    """
    posterior = model.posterior(batch)
    if batch.observed is None:
        return posterior
    mean, root = posterior.mean.clone(), torch.diag_embed(posterior.scale)
    lacking = (~batch.observed).any(1).nonzero()[:, 0]
    width = max(model.decoder_width, model.n_components) * 2 * model.n_components
    for rows in lacking.split(max(1, _BLOCK_ENTRIES // width)):
        mean[rows], root[rows] = _approximate(model, Batch(batch.x[rows], batch.observed[rows]), mean[rows], root[rows])
    return Gaussian(mean, root)


def around_modes(model: VAE, batch: Batch, starts: Tensor) -> Gaussian:
    """Return normal distributions around what Gauss-Newton steps find from several starts: modes of p(z | observed).

    Parameters
    ----------
    model : VAE
        The model.
    batch : Batch
        Rows.
    starts : Tensor of shape (n_starts, n_components)
        Where the steps begin, beside the mean that the encoder gives.

    Returns
    -------
    Gaussian
        Of ``n_rows * (1 + n_starts)`` distributions, those of a row one after the other, with roots as their scale.
    """
    posterior, n_modes = model.posterior(batch), 1 + len(starts)
    mean = torch.cat([posterior.mean[:, None], starts.expand(len(batch), *starts.shape)], dim=1).flatten(0, 1)
    root = torch.diag_embed(posterior.scale).repeat_interleave(n_modes, 0)
    repeated = Batch(batch.x.repeat_interleave(n_modes, 0), batch.mask.repeat_interleave(n_modes, 0))
    return Gaussian(*_approximate(model, repeated, mean, root))


def _approximate(model: VAE, batch: Batch, mean: Tensor, root: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and root of the posterior of rows, from those to begin at."""
    likelihood, observed = model.likelihood, batch.mask
    for _ in range(_N_STEPS):
        around = mean[:, None] + _REACH * torch.cat([root, -root], 2).mT
        upper, lower = likelihood.mean(model.decode_parameters(around)).chunk(2, dim=1)
        slopes = (upper - lower) / (2 * _REACH)  # along the columns of the root
        parameters = model.decoder(mean)
        variance = likelihood.variance(parameters).clamp_min(_SMALLEST_VARIANCE)
        weighted = slopes * (observed / variance)[:, None]
        left = (batch.x - likelihood.mean(parameters))[:, :, None]
        # In float64, which not every device has.
        precision, gradient, wide, z = (
            values.cpu().double() for values in (weighted @ slopes.mT, weighted @ left, root, mean[:, :, None])
        )
        factor = torch.linalg.cholesky(precision + wide.mT @ wide)
        step = (wide @ torch.cholesky_solve(gradient - wide.mT @ z, factor))[:, :, 0].to(mean)
        root = torch.linalg.solve_triangular(factor.mT, wide, upper=True, left=False).to(root)
        tried = mean[:, None] + step[:, None] * step.new_tensor(_SHARES)[:, None]
        log_joint = model.log_likelihood(batch, tried) + log_prior(None, tried)
        mean = tried[torch.arange(len(tried), device=tried.device), log_joint.argmax(1)]
    return mean, root
