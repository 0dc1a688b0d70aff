"""Lower bounds on the log density of rows, over points that stand for the posterior."""

import math
from collections.abc import Iterator
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from skvae._data.checks import LARGEST, enough_memory
from skvae._data.rows import Batch, Rows
from skvae._model import ops
from skvae._model.approximation import given_observed
from skvae._model.networks import DenseNetwork
from skvae._model.prior import expected_log_prior
from skvae._model.vae import VAE

__all__ = ["FEWER_ROWS", "ElboEstimate", "LowerBound", "block_entries", "n_groups_of_features"]

# Entries that the widest layer makes of one block of rows. Those of a processor stay near its caches. A GPU has room,
# and each block costs it the same launches.
_BLOCK_ENTRIES, _BLOCK_ENTRIES_OF_A_GPU = 1 << 20, 1 << 24

# What to do when there is no memory for a block.
FEWER_ROWS = "Give fewer rows at a time, or fit narrower networks."

# An ELBO takes two points for each component, up to this many components.
_MOST_WHITE_COMPONENTS = 256

# Entries that the decoder makes of one block of rows at some points: they stay in a core's cache.
_CACHED_ENTRIES = 1 << 18

# Fewer features are decoded at all points as fast as three values stand for them.
_FEWEST_FEATURES = 32

# Of so many features it averages out which points their spread comes from.
_MANY_FEATURES = 256

# Fewer rows than these would not make up for reading the weights of a wide decoder at each point.
_FEWEST_ROWS = 32

# Moments of what the decoder puts out: no smaller variance, and no larger ratios, make a difference.
_SMALLEST_VARIANCE, _LARGEST_SKEWNESS, _LARGEST_KURTOSIS = 1e-18, 8.0, 1000.0

# Mirrored pairs of points that rows share in an estimate of a mean ELBO, how many there are for each row, and in all.
_N_SHARED_PAIRS, _FEWEST_PAIRS, _MOST_PAIRS, _N_PAIRS = 1 << 10, 2, 16, 1 << 10

# Points of which an importance bound is made, and how often they are drawn from.
_N_WIDE_POINTS, _N_DRAWS = 1 << 14, 1 << 16

# How much wider than the posterior they lie: the variance is 1 + _EXCESS / sqrt(n_components).
_EXCESS = 1.5

# Torch imports what this needs when it is first used. A child that is forked meanwhile would wait for it forever.
with torch.device("cpu"):
    pass


def block_entries(device: torch.device) -> int:
    """Return how many entries the widest layer makes of one block of rows to encode, decode or score."""
    return _BLOCK_ENTRIES_OF_A_GPU if device.type == "cuda" else _BLOCK_ENTRIES


def _sobol_normal(n_points: int, n_components: int) -> Tensor:
    """Return scrambled Sobol points, mapped to the standard normal distribution, in float64."""
    with torch.device("cpu"):
        engine = torch.quasirandom.SobolEngine(n_components, scramble=True, seed=0)
        # The engine makes the first point in torch's default dtype, whatever it is asked for.
        first = engine.quasi.double().div(2**engine.MAXBIT).float()[None]
        others = engine.fast_forward(1).draw(n_points - 1, dtype=torch.float32)
    # The bounds keep points off 0 and 1.
    return torch.special.ndtri(torch.cat([first, others]).double().clamp(2.0**-25, 1 - 2.0**-25))


def standard_normal_points(n_points: int, n_components: int) -> Tensor:
    """Return a fixed set of points that stands for N(0, I): ``(n_points, n_components)`` in float32.

    Half are scrambled Sobol points, the other half their mirror images. Their mean is zero (for an even number), and
    their covariance is the identity if there are twice as many as components, or has a diagonal of ones otherwise:
    expectations of quadratic functions, which are most of an ELBO, are exact rather than off by nats.
    """
    n_pairs = (n_points + 1) // 2
    half = _sobol_normal(n_pairs, n_components)
    if n_pairs >= n_components:
        half = torch.linalg.qr(half).Q * math.sqrt(n_pairs)
    else:
        half = half / half.square().mean(0).sqrt()
    return torch.cat([half, -half])[:n_points].float()


def wide_points(n_points: int, n_components: int) -> tuple[Tensor, Tensor]:
    """Return points that reach further out than N(0, I), and probabilities with which they stand for it.

    The largest importance weights belong to few draws from the tails, where draws from N(0, I) itself hardly come.

    Returns
    -------
    points : Tensor of shape (n_points, n_components), float32
        Scrambled Sobol points of a wider normal distribution, and their mirror images.
    probabilities : Tensor of shape (n_points,), float64
        With them the mean is zero, and the covariance the identity if there are more than twice as many points as
        components.
    """
    variance = 1 + _EXCESS / math.sqrt(n_components)
    half = _sobol_normal(n_points // 2, n_components)
    probabilities = torch.softmax(0.5 * (1 - variance) * half.square().sum(1), 0)
    half = half * math.sqrt(variance)
    if len(half) > n_components:
        root = torch.linalg.cholesky((half.T * probabilities) @ half)
        half = torch.linalg.solve_triangular(root, half.T, upper=False).T
    return torch.cat([half, -half]).float(), torch.cat([probabilities, probabilities]) / 2


def balanced_groups(probabilities: Tensor, size: int) -> Tensor:
    """Return fixed groups of draws: in all of them together each point comes as often as its probability says.

    Returns
    -------
    Tensor of shape (n_groups, size), int64
        Numbers of points. Groups are independent draws with replacement, but for the balance.
    """
    positions = (torch.arange(_N_DRAWS, dtype=torch.float64, device="cpu") + 0.5) / _N_DRAWS
    drawn = torch.searchsorted(torch.cumsum(probabilities, 0), positions).clamp_max(len(probabilities) - 1)
    order = torch.from_numpy(np.random.RandomState(0).permutation(_N_DRAWS))
    size = min(size, _N_DRAWS)
    return drawn[order][: _N_DRAWS // size * size].view(-1, size)


def three_points(
    mean: Tensor, second: Tensor, third: Tensor, fourth: Tensor
) -> tuple[tuple[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]:
    """Return three numbers and their weights, which have the same mean and central moments as a distribution.

    One of them is the mean. The others are s times the roots of ``t^2 - g t - (k - g^2)``, with the standard deviation
    s, the skewness g and the kurtosis k. So the expectation of a polynomial of degree 4 is exact.

    Parameters
    ----------
    mean, second, third, fourth : Tensor
        The mean and the central moments, element by element.

    Returns
    -------
    points, weights : tuple of three Tensor
        The numbers, and weights with the sum 1.
    """
    variance = second.clamp_min(_SMALLEST_VARIANCE)
    std = variance.sqrt()
    # Where there is hardly any variance, rounding decides the ratios. No kurtosis is below its bound here.
    skewness = (third / (variance * std)).nan_to_num(0).clamp(-_LARGEST_SKEWNESS, _LARGEST_SKEWNESS)
    squared = skewness.square()
    kurtosis = torch.maximum((fourth / variance.square()).nan_to_num(3).clamp_max(_LARGEST_KURTOSIS), 1 + squared)
    gap = (4 * kurtosis - 3 * squared).sqrt()
    upper, lower = 0.5 * (skewness + gap), 0.5 * (skewness - gap)
    weights = 1 - 1 / (kurtosis - squared), 1 / (upper * gap), -1 / (lower * gap)
    return (mean, mean + std * upper, mean + std * lower), weights


class LowerBound:
    r"""The importance-weighted bound of rows, with one sample the ELBO, in nats of the data's own units.

    It is the expected logarithm of the mean of K importance weights [1]_. The ELBO is a mean over points whose first
    two moments are exact. For K > 1, one larger set of points serves every K, and the expectation is over groups of K
    draws from it. So the bound rises with K.

    Parameters
    ----------
    model : VAE
        The model.
    n_importance_samples : int
        The number K.

    Attributes
    ----------
    points : Tensor of shape (n_points, n_components)
        Standard-normal points that stand for each posterior, on the device of the model.
    by_moments : bool
        Whether three values of each parameter stand for its values at all points.

    References
    ----------
    .. [1] Burda, Y., Grosse, R. and Salakhutdinov, R., "Importance weighted autoencoders", ICLR 2016.
    """

    def __init__(self, model: VAE, n_importance_samples: int) -> None:
        self._model = model
        n_components = model.n_components
        self.by_moments = False
        if n_importance_samples == 1:
            is_wide = model.n_features >= _FEWEST_FEATURES
            self.by_moments = is_wide and model.likelihood.smooth and isinstance(model.decoder, DenseNetwork)
            points = standard_normal_points(max(32, 2 * min(n_components, _MOST_WHITE_COMPONENTS)), n_components)
            self._groups = None
        else:
            points, probabilities = wide_points(_N_WIDE_POINTS, n_components)
            self._groups = balanced_groups(probabilities, n_importance_samples)
        self.points = points.to(model.device)

    def __call__(self, rows: Rows) -> NDArray[np.float64]:
        """Return the bound of each row."""
        model = self._model
        with torch.inference_mode(), torch.autocast(model.device.type, enabled=False), enough_memory(FEWER_ROWS):
            ops.keep_freed_memory()
            bounds = [self._in_units_of_data(batch, bound) for batch, bound in self._bounds(rows)]
        return np.concatenate([np.empty(0), *bounds])

    def _bounds(self, rows: Rows) -> Iterator[tuple[Batch, Tensor]]:
        """Yield one block of rows after another, and their bounds in the units of the likelihood."""
        model = self._model
        if self.by_moments:
            elbo = _Elbo(model, self.points)
            yield from ((batch, elbo(batch)) for batch in rows.blocks(elbo.n_rows))
            return
        width = max(model.encoder_width, model.decoder_width)
        entries = block_entries(model.device)
        n_rows = max(1, entries // (len(self.points) * width))
        blocks = self.points.split(max(1, entries // (n_rows * width)))
        for batch in rows.blocks(n_rows):
            posterior = given_observed(model, batch)
            log_weights = torch.cat([model.log_weights(batch, points, posterior) for points in blocks], dim=1)
            log_weights = log_weights.cpu().double()
            yield batch, self._expectation(log_weights)

    def _in_units_of_data(self, batch: Batch, bound: Tensor) -> NDArray[np.float64]:
        """Return the bounds of a block of rows as densities of their observed entries; 0 where there are none."""
        bounds, units = bound.cpu().double().clamp_min(-LARGEST).numpy(), self._model.units
        if batch.observed is None:
            return bounds - units.log_volume(self._model.n_features)
        n_observed = batch.observed.sum(1).cpu().numpy()
        return np.where(n_observed > 0, bounds - n_observed * units.log_volume(1), 0.0)

    def _expectation(self, log_weights: Tensor) -> Tensor:
        """Return the expected logarithm of the mean of a group of weights, for each row."""
        if self._groups is None:
            return log_weights.mean(1)
        size = self._groups.shape[1]
        return torch.cat([row[:, self._groups].logsumexp(2).mean(1) - math.log(size) for row in log_weights.split(1)])


def n_groups_of_features(n_features: int) -> int:
    """Return into how many groups features are dealt in turn, each with a part of the points of its own."""
    return 1 if n_features < _MANY_FEATURES else 2


class _Elbo:
    """The ELBO of rows, where the density of an entry depends on one parameter, which is linear in hidden units.

    Three values of each parameter, with the first four moments that it has over all points, stand for them: the density
    is taken at no others. Of many features, every other one has its spread, skewness and kurtosis at one point of each
    mirrored pair, the others at the other point. What that leaves out of the odd moments averages out.

    Parameters
    ----------
    model : VAE
        The model, as it now is.
    points : Tensor of shape (n_points, n_components)
        Mirrored points that stand for N(0, I).

    Attributes
    ----------
    n_rows : int
        Rows for which one block has room.
    """

    def __init__(self, model: VAE, points: Tensor) -> None:
        self._model, self._half = model, points[: len(points) // 2]
        self._decoder = cast("DenseNetwork", model.decoder)
        self._weight, self._bias = self._decoder.last_map
        n_groups = n_groups_of_features(model.n_features)
        self._groups = [self._weight[first::n_groups].T.contiguous() for first in range(n_groups)]
        self._entries = block_entries(points.device) if points.is_cuda else _CACHED_ENTRIES
        largest = max(model.encoder_width, len(points) * self._weight.shape[1])
        self.n_rows = max(_FEWEST_ROWS, block_entries(points.device) // largest)

    def __call__(self, batch: Batch) -> Tensor:
        """Return the ELBO of each row, in the units of the likelihood."""
        model = self._model
        posterior = given_observed(model, batch)
        deviations = posterior.deviations(self._half)
        entries = torch.zeros_like(batch.x)
        for parameters, weights in zip(*three_points(*self._moments(posterior.mean, deviations)), strict=True):
            entries += weights * model.likelihood.log_prob(batch.x, parameters)
        if batch.observed is not None:
            entries = torch.where(batch.observed, entries, 0)
        entropy = posterior.log_volume + 0.5 * (1 + math.log(2 * math.pi)) * model.n_components
        return entries.sum(1) + expected_log_prior(model.prior, posterior.mean, posterior.std, deviations) + entropy

    def _moments(self, mean: Tensor, deviations: Tensor) -> tuple[Tensor, ...]:
        """Return the mean of each parameter, and its central moments from the second to the fourth."""
        deviations = deviations.transpose(0, 1)
        z = torch.stack([mean + deviations, mean - deviations])
        hidden = self._decoder.before_last(z.flatten(0, 2)).view(-1, len(mean), self._weight.shape[1])
        center = _total(hidden) / len(hidden)
        hidden -= center
        moments = mean.new_empty(3, len(mean), len(self._weight))
        n_groups = len(self._groups)
        for first, (units, weight) in enumerate(zip(hidden.chunk(n_groups), self._groups, strict=True)):
            totals = mean.new_zeros(3, len(mean), weight.shape[1])
            for block in units.split(max(1, self._entries // totals[0].numel())):
                differences = block @ weight
                squares = differences.square()
                totals[0] += _total(squares)
                totals[1] += _total(differences.mul_(squares))
                totals[2] += _total(squares.square_())
            torch.div(totals, len(units), out=moments[..., first::n_groups])
        return nn.functional.linear(center, self._weight, self._bias), *moments


def _total(values: Tensor) -> Tensor:
    """Return the sum over the first axis, added in order: torch's own order depends on where a row lies."""
    total = values[0].clone()
    for value in values[1:]:
        total += value
    return total


class ElboEstimate:
    """An estimate of the mean ELBO of rows, to compare a model with itself as it is trained.

    Each row has a few mirrored pairs of points of its own, the same each time: what they leave out of the ELBO of a row
    averages out over the rows, and more of it out of a difference between two epochs. At the posterior that is best, a
    quadratic ELBO is the same at every point.

    Parameters
    ----------
    model : VAE
        The model.
    n_rows : int
        Number of all rows.
    """

    def __init__(self, model: VAE, n_rows: int) -> None:
        self._model = model
        self._n_pairs = min(max(_N_PAIRS // max(n_rows, 1), _FEWEST_PAIRS), _MOST_PAIRS)
        points = standard_normal_points(2 * _N_SHARED_PAIRS, model.n_components)
        self._half = points[:_N_SHARED_PAIRS].to(model.device)

    def total(self, rows: Rows, first: int) -> float:
        """Return the sum over rows, in nats of the data's own units.

        Parameters
        ----------
        rows : Rows
            The rows, or the part of them that this process has.
        first : int
            The number of the first of them among all rows.

        Returns
        -------
        float
            The sum of their estimates.
        """
        model, n_pairs = self._model, self._n_pairs
        n_rows = max(1, block_entries(model.device) // max(2 * n_pairs * model.decoder_width, model.encoder_width))
        total = 0.0
        with torch.inference_mode(), torch.autocast(model.device.type, enabled=False), enough_memory(FEWER_ROWS):
            for batch in rows.blocks(n_rows):
                numbers = torch.arange(first * n_pairs, (first + len(batch)) * n_pairs, device=model.device)
                half = self._half[numbers % _N_SHARED_PAIRS].unflatten(0, (len(batch), n_pairs))
                elbo = model.log_weights(batch, torch.cat([half, -half], dim=1)).mean(1)
                n_observed = batch.x.numel() if batch.observed is None else int(batch.observed.sum())
                total += float(elbo.cpu().double().clamp_min(-LARGEST).sum()) - model.units.log_volume(n_observed)
                first += len(batch)
        return total
