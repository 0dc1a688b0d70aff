"""The linear model that a fit begins at: probabilistic PCA."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from skvae._data.rows import Rows
from skvae._model.networks import Network
from skvae._model.vae import VAE

__all__ = ["LinearModel", "begin_at_linear_model"]

# Up to this many features the covariance matrix is made; beyond, a basis is found by subspace iteration.
_MOST_COVARIANCES = 2048

# Steps of the subspace iteration, and how many more directions it follows than are wanted.
_N_ITERATIONS, _N_EXTRA = 8, 10

# Products that may go into the moments. Of more rows a part is drawn, which takes less than an epoch.
_MOST_PRODUCTS = 1 << 34

# Entries of a block of rows.
_BLOCK_ENTRIES = 1 << 20

# The smallest variance of a component.
_SMALLEST_VARIANCE = 1e-6


@dataclass(frozen=True)
class LinearModel:
    """Probabilistic PCA [1]_: x = mean + z W + noise of one variance, with z from N(0, I), its components rotated.

    They are rotated so that the posterior has independent components: W W' is diagonal.

    Attributes
    ----------
    mean : Tensor of shape (n_features,), float64
        The mean of the rows.
    components : Tensor of shape (n_components, n_features), float64
        W. Beyond the number of features its rows are zero, and where the data have no variance they are small.
    noise_variance : float
        The variance of the noise.
    explained : float
        The share of the variance that reconstructions keep.

    References
    ----------
    .. [1] Tipping, M. E. and Bishop, C. M., "Probabilistic principal component analysis", Journal of the Royal
       Statistical Society B 61, 1999.
    """

    mean: Tensor
    components: Tensor
    noise_variance: float
    explained: float

    @classmethod
    def fit(
        cls,
        rows: Rows,
        vae: VAE,
        seed: int,
        group: Any,
    ) -> "LinearModel":
        """Return the model of rows, with the moments of their blocks summed in float64.

        Parameters
        ----------
        rows : Rows
            The training rows.
        vae : VAE
            The model that is to begin at the linear one, for its number of components and its smallest noise.
        seed : int
            Where draws of rows and directions begin.
        group : Group
            The processes, which sum the moments of their rows.
        """
        n_components, n_features = vae.n_components, rows.n_features
        most = max(_MOST_PRODUCTS // min(n_features, _MOST_COVARIANCES) ** 2, 10 * n_features)
        moments = _Moments(rows.sample(most, seed), group)
        rank = min(n_components, n_features)
        if n_features <= _MOST_COVARIANCES:
            variances, vectors = torch.linalg.eigh(moments.covariance())
            total = float(variances.sum())
        else:
            variances, vectors, total = moments.leading(min(rank + _N_EXTRA, n_features), seed)
        variances, vectors = variances.flip(0)[:rank].clamp_min(0), vectors.flip(1)[:, :rank]
        left = max(total - float(variances.sum()), 0.0)
        noise = max(left / max(n_features - rank, 1), vae.likelihood.smallest_scale**2, _SMALLEST_VARIANCE)
        components = torch.zeros(n_components, n_features, dtype=torch.float64, device="cpu")
        components[:rank] = vectors.T * (variances - noise).clamp_min(_SMALLEST_VARIANCE).sqrt()[:, None]
        return cls(moments.mean, components, noise, 1 - left / total if total > 0 else 0.0)


class _Moments:
    """Mean and second moments of rows, a block at a time."""

    def __init__(self, rows: Rows, group: Any) -> None:
        self._share, self._n_rows, self._group = rows.between(*group.part(len(rows))), len(rows), group
        self._n_features = rows.n_features
        self.mean = self._average(lambda x: x.sum(0), (self._n_features,))

    def _average(self, moment: Callable[[Tensor], Tensor], shape: tuple[int, ...]) -> Tensor:
        """Return the mean over all rows of what `moment` sums over the rows of a block."""
        total = torch.zeros(shape, dtype=torch.float64, device="cpu")
        for batch in self._share.blocks(max(1, _BLOCK_ENTRIES // self._n_features)):
            total += moment(batch.x.cpu().double())
        return self._group.sum(total) / self._n_rows

    def covariance(self) -> Tensor:
        """Return the covariance matrix."""
        return self._average(lambda x: (x - self.mean).T @ (x - self.mean), (self._n_features, self._n_features))

    def leading(self, n_directions: int, seed: int) -> tuple[Tensor, Tensor, float]:
        """Return the leading variances in rising order, their directions, and the total variance."""
        generator = torch.Generator("cpu").manual_seed(seed)
        shape = self._n_features, n_directions
        basis = torch.randn(shape, generator=generator, dtype=torch.float64, device="cpu")
        for _ in range(_N_ITERATIONS):
            q = self._group.broadcast(torch.linalg.qr(basis).Q)
            basis = self._average(functools.partial(self._along, q), shape)
        variances, vectors = torch.linalg.eigh(q.T @ basis)
        return variances, q @ vectors, float(self._average(lambda x: (x - self.mean).square().sum(), ()))

    def _along(self, q: Tensor, x: Tensor) -> Tensor:
        x = x - self.mean
        return x.T @ (x @ q)


def begin_at_linear_model(vae: VAE, rows: Rows, seed: int, group: Any) -> LinearModel | None:
    """Give a model whose networks have linear paths the posterior of a linear model of rows, and its mean.

    With W the components and s the variance of the noise, the precision of the posterior of z is I + W W' / s, which is
    diagonal. Where the likelihood can have the mean and the noise of the linear model, the ELBO is then the log
    likelihood of that model.

    Parameters
    ----------
    vae : VAE
        The model. Without linear paths it stays as it is.
    rows, seed, group
        As in `LinearModel.fit`.

    Returns
    -------
    LinearModel or None
        The linear model; None where the decoder does not begin at it.
    """
    encoder, decoder = vae.encoder, vae.decoder
    if not isinstance(encoder, Network) or not isinstance(decoder, Network) or encoder.path is None:
        return None
    linear = group.broadcast(LinearModel.fit(rows, vae, seed, group))  # signs of axes may differ among processes
    mean, components, noise = linear.mean, linear.components, linear.noise_variance
    precisions = 1 + components.square().sum(1) / noise
    log_variances = -precisions.log()
    raw = log_variances if vae.posterior_scale == "log_variance" else _inverse_softplus((0.5 * log_variances).exp())
    to_latent = components / (noise * precisions[:, None])
    encoder.begin_at(to_latent, torch.cat([-(to_latent @ mean), raw]))
    bias = vae.likelihood.begin_at(mean, noise)
    if bias is None:
        return None
    decoder.begin_at(components.T, bias)
    return linear


def _inverse_softplus(values: Tensor) -> Tensor:
    return values + torch.log(-torch.expm1(-values))
