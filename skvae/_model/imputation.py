"""Missing entries of rows given those observed: their expectation, and draws."""

import torch
from torch import Tensor

from skvae._data.rows import Batch
from skvae._model.approximation import around_modes
from skvae._model.bounds import block_entries, standard_normal_points
from skvae._model.prior import log_prior
from skvae._model.vae import VAE

__all__ = ["Imputation"]

# Starts beside the encoder's mean from which modes are looked for.
_N_STARTS = 4


class Imputation:
    r"""The conditional distribution of missing entries, by self-normalized importance sampling [1]_.

    The prior is N(0, I), with which the model was trained. Points of the normal distribution that approximates
    p(z | observed entries) get weights, which make them stand for that distribution itself. It is a mixture of normal
    distributions, one around each of the modes that are found from a few starts.

    Parameters
    ----------
    model : VAE
        The model.
    n_importance_samples : int
        The number of points for each row.

    Attributes
    ----------
    n_rows : int
        Rows for which one block has room.

    References
    ----------
    .. [1] Mattei, P.-A. and Frellsen, J., "MIWAE: deep generative modelling and imputation of incomplete data sets",
       ICML 2019.
    """

    def __init__(self, model: VAE, n_importance_samples: int) -> None:
        self._model = model
        self._points = standard_normal_points(n_importance_samples, model.n_components).to(model.device)
        self._starts = standard_normal_points(_N_STARTS, model.n_components).to(model.device)
        n_decoded = max(n_importance_samples, 2 * model.n_components * (1 + _N_STARTS))
        width = max(model.encoder_width, model.decoder_width, model.n_components)
        self.n_rows = max(1, block_entries(model.device) // (n_decoded * width))

    def mean(self, batch: Batch) -> Tensor:
        """Return the expectation of every entry given the observed ones: ``(n_rows, n_features)``."""
        z, weights = self._weighted(batch)
        means = self._model.likelihood.mean(self._model.decode_parameters(z))
        return (weights[:, None] @ means)[:, 0]

    def draw(self, batch: Batch, n_draws: int, generator: torch.Generator) -> Tensor:
        """Return draws of every entry given the observed ones: ``(n_draws, n_rows, n_features)``."""
        z, weights = self._weighted(batch)
        chosen = torch.multinomial(weights.cpu(), n_draws, replacement=True, generator=generator).to(z.device)
        z = z.gather(1, chosen[:, :, None].expand(-1, -1, z.shape[2]))
        return self._model.likelihood.sample(self._model.decode_parameters(z), generator).transpose(0, 1)

    def _weighted(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return points of z for each row, ``(n_rows, n_points, n_components)``, and weights that stand for them."""
        modes, n_modes = around_modes(self._model, batch, self._starts), 1 + len(self._starts)
        mean, root = (values.unflatten(0, (-1, n_modes)) for values in modes)
        of_point = torch.arange(len(self._points), device=mean.device) % n_modes
        deviations = torch.empty(len(batch), *self._points.shape, device=mean.device)
        for mode in range(n_modes):
            deviations[:, of_point == mode] = self._points[of_point == mode] @ root[:, mode].mT
        z = mean[:, of_point] + deviations
        standard = torch.linalg.solve_triangular(root, (z[:, None] - mean[:, :, None]).mT, upper=True).mT
        log_proposal = log_prior(None, standard) - modes.log_volume.unflatten(0, (-1, n_modes))[:, :, None]
        log_weights = self._model.log_likelihood(batch, z) + log_prior(None, z) - log_proposal.logsumexp(1)
        return z, torch.softmax(log_weights, dim=1)
