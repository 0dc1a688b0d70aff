"""The linear model that a fit begins at: probabilistic PCA."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from skvae._data.rows import Rows
from skvae._model.completion import MOST_DIRECTIONS
from skvae._model.em import fit_to_observed
from skvae._model.networks import Network
from skvae._model.threads import alone
from skvae._model.vae import VAE

__all__ = ["LinearModel", "begin_at_linear_model"]

# Up to this many features the covariance matrix is made; beyond, a basis is found by subspace iteration.
_MOST_COVARIANCES = 1024

# The most steps of the subspace iteration, the growth of the variance that it keeps, as a share, at which one is the
# last, and how many more directions it follows than are wanted.
_MOST_ITERATIONS, _TOLERANCE, _N_EXTRA = 8, 1e-4, 10

# Products that may go into the moments. Of more rows a part is drawn, which takes less than an epoch.
_MOST_PRODUCTS = 1 << 34

# Products that may go into a step of the EM algorithm, where entries are missing. Of more rows a part is drawn.
_MOST_PRODUCTS_OF_EM, _FEWEST_ROWS_OF_EM = 1 << 30, 500

# Entries of a block of rows, and the fewest rows that make up for going through a sum of many features.
_BLOCK_ENTRIES, _FEWEST_ROWS = 1 << 20, 64

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
        rank = min(n_components, n_features, MOST_DIRECTIONS if rows.has_missing else n_features)
        if n_features <= _MOST_COVARIANCES:
            covariance = moments.covariance()
            with alone():
                variances, vectors = torch.linalg.eigh(covariance)
            total = float(variances.sum())
        else:
            variances, vectors, total = moments.leading(min(rank + _N_EXTRA, n_features), seed)
        variances, vectors = variances.flip(0)[:rank].clamp_min(0), vectors.flip(1)[:, :rank]
        left = max(total - float(variances.sum()), 0.0)
        smallest = max(vae.likelihood.smallest_scale**2, _SMALLEST_VARIANCE)
        noise = max(left / max(n_features - rank, 1), smallest)
        mean, leading = moments.mean, vectors.T * (variances - noise).clamp_min(_SMALLEST_VARIANCE).sqrt()[:, None]
        if rows.has_missing:
            some = rows.sample(max(_MOST_PRODUCTS_OF_EM // (n_features * rank**2), _FEWEST_ROWS_OF_EM), seed)
            mean, leading, noise, left = fit_to_observed(mean, leading, noise, some, group, smallest=smallest)
            _, scales, axes = torch.linalg.svd(leading, full_matrices=False)
            leading, total = scales[:, None] * axes, moments.mean_square()
        components = torch.zeros(n_components, n_features, dtype=torch.float64, device="cpu")
        components[:rank] = leading
        return cls(mean, components, noise, 1 - left / total if total > 0 else 0.0)


class _Moments:
    """Mean and second moments of the observed entries of rows, a block at a time."""

    def __init__(self, rows: Rows, group: Any) -> None:
        self._share, self._n_rows, self._group = rows.between(*group.part(len(rows))), len(rows), group
        self._n_features, self._has_missing = rows.n_features, rows.has_missing
        self.mean = torch.zeros(self._n_features, dtype=torch.float64, device="cpu")
        self._counts: Tensor | int = len(rows)
        if self._has_missing:
            self._counts = self._sum(lambda _, observed: observed.sum(0), (self._n_features,)).clamp_min(1)
        self.mean = self._sum(lambda x, _: x.sum(0), (self._n_features,)) / self._counts

    def _sum(self, moment: Callable[[Tensor, Any], Tensor], shape: tuple[int, ...]) -> Tensor:
        """Return the sum over all rows of what `moment` sums over those of a block.

        It gets the entries less their mean, which are 0 where they are missing, and 1 for each that is observed; None
        where all are.
        """
        total = torch.zeros(shape, dtype=torch.float64, device="cpu")
        for batch in self._share.blocks(max(_FEWEST_ROWS, _BLOCK_ENTRIES // self._n_features)):
            centered, observed = batch.x.cpu().double().sub_(self.mean), None
            if batch.observed is not None:
                observed = batch.observed.cpu().double()
                centered *= observed
            total += moment(centered, observed)
        return self._group.sum(total)

    def covariance(self) -> Tensor:
        """Return the covariance matrix, each entry over the rows that have both features."""
        shape = self._n_features, self._n_features
        counts = self._counts
        if self._has_missing:
            counts = self._sum(lambda _, observed: observed.T @ observed, shape).clamp_min(1)
        return self._sum(lambda x, _: x.T @ x, shape) / counts

    def mean_square(self) -> float:
        """Return the mean square of the entries less their means."""
        total = self._sum(lambda x, _: x.square().sum(), ())
        return float(total / torch.as_tensor(self._counts).sum())

    def leading(self, n_directions: int, seed: int) -> tuple[Tensor, Tensor, float]:
        """Return the leading variances in rising order, their directions, and the total variance."""
        generator = torch.Generator("cpu").manual_seed(seed)
        shape = self._n_features, n_directions
        basis = torch.randn(shape, generator=generator, dtype=torch.float64, device="cpu")
        kept = 0.0
        for _ in range(_MOST_ITERATIONS):
            q = self._group.broadcast(torch.linalg.qr(basis).Q)
            basis = self._sum(functools.partial(_along, q), shape) / self._n_rows
            before, kept = kept, float((q * basis).sum())
            # Processors may round differently, and all processes have to end together.
            if self._group.broadcast(kept - before <= _TOLERANCE * kept):
                break
        variances, vectors = torch.linalg.eigh(q.T @ basis)
        return variances, q @ vectors, float(self._sum(lambda x, _: x.square().sum(), ()) / self._n_rows)


def _along(q: Tensor, x: Tensor, _: Any) -> Tensor:
    return x.T @ (x @ q)


def begin_at_linear_model(vae: VAE, rows: Rows, seed: int, group: Any) -> LinearModel | None:
    """Fit a linear model to rows, and give it to a model: for missing entries, and as a start where there are paths.

    A model whose networks have linear paths begins with the posterior of the linear model, and its mean. Where it has
    none and no entry is missing, the means of the rows are enough.

    With W the components and s the variance of the noise, the precision of the posterior of z is I + W W' / s, which is
    diagonal. Where the likelihood can have the mean and the noise of the linear model, the ELBO is then the log
    likelihood of that model.

    Parameters
    ----------
    vae : VAE
        The model. Networks without linear paths stay as they are.
    rows, seed, group
        As in `LinearModel.fit`.

    Returns
    -------
    LinearModel or None
        The linear model; None where the decoder does not begin at it.
    """
    encoder, decoder = vae.encoder, vae.decoder
    if getattr(encoder, "path", None) is None and not rows.has_missing:
        vae.completion.begin_at(_Moments(rows, group).mean)
        return None
    linear = group.broadcast(LinearModel.fit(rows, vae, seed, group))  # signs of axes may differ among processes
    mean, components, noise = linear.mean, linear.components, linear.noise_variance
    vae.completion.begin_at(mean, components, noise)
    if not isinstance(encoder, Network) or not isinstance(decoder, Network) or encoder.path is None:
        return None
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
