"""What stands in the place of missing entries on their way to the encoder."""

import math

import numpy as np
import torch
from torch import Tensor

from skvae._data.rows import Rows
from skvae._model.stored import StoredModule

__all__ = ["MOST_DIRECTIONS", "Completion", "pair_products", "solve_latent"]

# Directions that tell what is missing. What they cost grows as their square, times the features.
MOST_DIRECTIONS = 64

# Entries of the matrices that are solved at once.
_BLOCK_ENTRIES = 1 << 20


class Completion(StoredModule):
    r"""The linear model of the training rows, for its expectation of missing entries given those observed.

    The linear model is x = mean + z W + noise of variance v, with z from N(0, I). Given the observed entries of a row,
    z has the precision :math:`I + W_o W_o' / v` and the mean :math:`(I + W_o W_o' / v)^{-1} W_o (x_o - mean_o) / v`.
    An encoder that begins as the posterior of the linear model gives that mean when the missing entries of the row are
    replaced by their expectation.

    Parameters
    ----------
    n_directions, n_features : int
        The shape of W.
    """

    def __init__(self, n_directions: int, n_features: int) -> None:
        super().__init__(n_directions=n_directions, n_features=n_features)
        # NumPy's zeros take no memory until they are read.
        for name, shape in (("mean", (n_features,)), ("components", (n_directions, n_features))):
            self.register_buffer(name, torch.from_numpy(np.zeros(shape, np.float32)))
        self.register_buffer("noise_variance", torch.ones((), dtype=torch.float32, device="cpu"))

    def begin_at(self, mean: Tensor, components: Tensor | None = None, noise_variance: float = 1.0) -> None:
        """Take over a linear model, by default without components."""
        self.get_buffer("mean").copy_(mean)
        if components is not None:
            self.get_buffer("components").copy_(components)
        self.get_buffer("noise_variance").fill_(noise_variance)

    def complete(self, rows: Rows) -> Rows:
        """Return the rows with expected entries in the place of missing ones."""
        if not rows.has_missing:
            return rows
        mean, components = self.get_buffer("mean"), self.get_buffer("components")
        return rows.filled(mean, components, self._coordinates(rows))

    def _coordinates(self, rows: Rows) -> Tensor:
        """Return the expected z of each row that lacks entries, and 0 for the others, which do not need it."""
        mean, components, variance = (buffer.cpu().double() for buffer in self.buffers())
        coordinates = torch.zeros(len(rows), len(components), dtype=torch.float64, device="cpu")
        components = components[:MOST_DIRECTIONS]
        n_directions, n_features = components.shape
        products, start = pair_products(components), 0
        for batch in rows.blocks(max(1, _BLOCK_ENTRIES // max(n_features, n_directions**2))):
            x, observed = batch.x.cpu(), batch.mask.cpu()
            lacking = (~observed).any(1).nonzero()[:, 0]
            if len(lacking):
                x, observed = x[lacking].double(), observed[lacking].double()
                latent, _ = solve_latent(x - mean, observed, components, products, variance)
                coordinates[start + lacking, :n_directions] = latent
            start += len(batch)
        return coordinates.to(rows.device, torch.float32)

    def widen(self, encoded: Tensor, observed: Tensor, posterior_scale: str) -> Tensor:
        r"""Return the parameters of the posterior given the observed entries, of those given whole rows.

        The variance of component k grows as that of the linear model does, by
        :math:`(1 + \sum_j W_{kj}^2 / v) / (1 + \sum_{j\,observed} W_{kj}^2 / v)`. The standard deviation that
        log(1 + exp(r)) stands for grows about so where it is small. Where nothing is observed, the posterior is
        N(0, I).

        Parameters
        ----------
        encoded : Tensor of shape (batch, 2 * n_components)
            Means, then raw scales.
        observed : Tensor of shape (batch, n_features), bool
            Which entries are observed.
        posterior_scale : {"log_variance", "softplus"}
            What a raw scale r stands for: the standard deviation exp(r / 2) or log(1 + exp(r)).
        """
        with torch.no_grad():
            precisions = self.get_buffer("components").square() / self.get_buffer("noise_variance")
            growth = (1 + precisions.sum(1)).log() - torch.log1p(observed.to(encoded.dtype) @ precisions.T)
            seen = observed.any(1, keepdim=True)
            share, raw_of_prior = (1.0, 0.0) if posterior_scale == "log_variance" else (0.5, _RAW_OF_ONE)
            added = torch.cat([torch.zeros_like(growth), torch.where(seen, share * growth, raw_of_prior)], dim=1)
        return torch.addcmul(added, encoded, seen.to(encoded.dtype))


# The softplus of this is 1.
_RAW_OF_ONE = math.log(math.expm1(1))


def pair_products(components: Tensor) -> Tensor:
    """Return the products of each pair of directions, by feature: ``(n_directions ** 2, n_features)``."""
    return (components[:, None] * components).flatten(0, 1)


def solve_latent(
    centered: Tensor, observed: Tensor, components: Tensor, products: Tensor, variance: Tensor | float
) -> tuple[Tensor, Tensor]:
    """Return mean and covariance of z given the observed entries of each row under a linear model.

    Parameters
    ----------
    centered : Tensor of shape (n_rows, n_features), float64
        Rows less the mean of the linear model; what is not observed may be any number.
    observed : Tensor of shape (n_rows, n_features), float64
        1 for each entry that is observed, and 0 for the others.
    components : Tensor of shape (n_directions, n_features), float64
        W.
    products : Tensor of shape (n_directions ** 2, n_features), float64
        What `pair_products` makes of W, or their expectation where W is not known exactly.
    variance : Tensor or float
        The variance of the noise.

    Returns
    -------
    mean : Tensor of shape (n_rows, n_directions), float64
    covariance : Tensor of shape (n_rows, n_directions, n_directions), float64
    """
    n_directions = len(components)
    precisions = (observed @ products.T).unflatten(1, (n_directions, n_directions)) / variance
    precisions.diagonal(dim1=1, dim2=2).add_(1)
    covariance = torch.cholesky_inverse(torch.linalg.cholesky(precisions))
    projected = (centered * observed) @ components.T / variance
    return (covariance @ projected[:, :, None])[:, :, 0], covariance
