"""What is set, and looked at, when training has ended, one small class each."""

import functools
import math

import numpy as np
import sklearn
import torch
from numpy.typing import NDArray
from torch import Tensor

from skvae._data.checks import warn_user
from skvae._data.rows import Batch, Rows
from skvae._fit.run import Hook, Run
from skvae._model.bounds import block_entries
from skvae._model.imputation import Imputation
from skvae._model.linear import LinearModel
from skvae._model.mixture import fit_mixture
from skvae._model.stored import copy_weights
from skvae._model.threads import alone
from skvae._model.vae import VAE

__all__ = ["CalibrateNoise", "CheckComponents", "CheckReconstructions", "FitPrior", "KeepBetter"]

# Draws for each row at which its noise is looked at, each with its mirror image: few for many rows or entries.
_FEWEST_PAIRS, _MOST_PAIRS, _POINTS_OF_ALL, _ENTRIES_OF_ALL = 3, 32, 1 << 15, 1 << 27

# The fewest held-out rows that say how much is left of later rows.
_FEWEST_HELD_OUT = 5

# The smallest mean square that is left, where the likelihood has no bound.
_SMALLEST_VARIANCE = 1e-12

# What is left of a row counts as at most this many times the median.
_MOST_TIMES_MEDIAN = 10

# Rows of which the latent components are looked at, and entries of those of which the noise is, of at least so many.
_MOST_ROWS = 10_000
_MOST_ENTRIES, _FEWEST_ROWS = 1 << 20, 200

# Rows of which is seen whether they vary more in one direction than in others, and by how much more than by chance.
_MOST_STRUCTURE_ROWS, _MORE_THAN_CHANCE = 500, 1.2

# Rows that are reconstructed to see how much of their variance is kept, and by how much less it may be than the linear
# model keeps of all training rows.
_MOST_RECONSTRUCTED, _LARGEST_LOSS = 1000, 0.02

# Where entries are missing, the least share of the others that held-out rows lose, how many such rows there are at
# least, and the points with which what is lost is filled in.
_SMALLEST_SHARE_LOST, _FEWEST_FILLED, _POINTS_OF_FILLED = 0.1, 300, 64

# The rows for that hold so many times fewer entries than those of which the noise is looked at in the end.
_TIMES_CHEAPER = 4

# A component is active when the posterior means of the rows have at least this variance.
_SMALLEST_ACTIVE = 0.01


class KeepBetter(Hook):
    """The linear model where training has made nothing better of it: held-out rows decide.

    They are reconstructed, or, where entries are missing, they lose some more, which are filled in.

    Parameters
    ----------
    model : VAE
        The model as it begins, at the linear one.
    held_out : Rows
        Rows that were not trained on. A few say nothing.
    calibration : CalibrateNoise
        What sets the noise, on which it depends what is filled in.
    """

    def __init__(self, model: VAE, held_out: Rows, calibration: "CalibrateNoise") -> None:
        self._start, self._held_out, self._calibration = copy_weights(model.state_dict()), held_out, calibration

    def end_run(self, run: Run) -> None:
        """Put back the weights of the start if they are better for the held-out rows."""
        if len(self._held_out) < _FEWEST_HELD_OUT:
            return
        rows = self._held_out.sample(_MOST_RECONSTRUCTED, run.seeds.finish)
        measure = functools.partial(_mean_squares_left, run.model, rows)
        if run.rows.has_missing:
            measure = functools.partial(self._mean_squares_of_lost, run, rows.sample(_some(run), run.seeds.finish))
        trained, errors = copy_weights(run.model.state_dict()), measure()
        run.model.load_state_dict(self._start)
        start_errors = measure()
        if len(errors) < _FEWEST_HELD_OUT:  # of rows that are nearly empty none loses an entry
            run.model.load_state_dict(trained)
            return
        # A row far away says nothing of the others.
        most = _MOST_TIMES_MEDIAN * (start_errors.quantile(0.9) if run.rows.has_missing else start_errors.median())
        is_better = bool(start_errors.clamp_max(most).mean() < errors.clamp_max(most).mean())
        if not run.group.broadcast(is_better):
            run.model.load_state_dict(trained)

    def _mean_squares_of_lost(self, run: Run, rows: Rows) -> Tensor:
        """Return the mean square error of what is filled in where rows lose entries, for each that loses one.

        The noise is calibrated first, since what is filled in depends on it.
        """
        self._calibration.calibrate(run, _some(run))
        missing = run.rows.count_missing() / (len(run.rows) * run.rows.n_features)
        n_rows, share = max(len(rows), _FEWEST_FILLED), max(missing, _SMALLEST_SHARE_LOST)
        lossy = run.model.completion.complete(rows.with_more_missing(share, n_rows, run.seeds.finish))
        imputation, whole = Imputation(run.model, _POINTS_OF_FILLED), rows[:]
        means, start = [], 0
        with torch.inference_mode(), torch.autocast(run.model.device.type, enabled=False):
            for batch in lossy.blocks(imputation.n_rows):
                number = torch.arange(start, start + len(batch)) % len(rows)
                lost = whole.mask[number] & ~batch.mask
                means.append(_mean_square(Batch(whole.x[number], lost), imputation.mean(batch))[lost.any(1)].cpu())
                start += len(batch)
        return torch.cat(means).double()


def _some(run: Run) -> int:
    """Return how many rows tell which of two models fills in better."""
    return min(max(_MOST_ENTRIES // _TIMES_CHEAPER // run.rows.n_features, _FEWEST_ROWS), _MOST_RECONSTRUCTED)


def _mean_squares_left(model: VAE, rows: Rows) -> Tensor:
    """Return the mean square of what the reconstruction of each row leaves of it."""
    step = max(1, block_entries(model.device) // max(model.encoder_width, model.decoder_width))
    with torch.inference_mode(), torch.autocast(model.device.type, enabled=False):
        means = [_mean_square(batch, model.decode(model.posterior(batch)[0])).cpu() for batch in rows.blocks(step)]
    return torch.cat(means).double()


def _mean_square(batch: Batch, expected: Tensor) -> Tensor:
    """Return the mean square of the observed entries of each row less what was expected; 0 where there are none."""
    squares = (batch.x - expected).square()
    if batch.observed is None:
        return squares.mean(1)
    return torch.where(batch.observed, squares, 0).sum(1) / batch.observed.sum(1).clamp_min(1)


class CalibrateNoise(Hook):
    """The noise of each feature, from what its mean leaves under the posterior.

    What it leaves of the training rows says how the features differ, and how it depends on the mean. Rows that were not
    trained on say how much more it leaves of later rows, by one factor for all features.

    Parameters
    ----------
    held_out : Rows
        Rows that were not trained on, maybe none.
    """

    def __init__(self, held_out: Rows) -> None:
        self._held_out = held_out

    def begin_run(self, run: Run) -> None:
        """Train with one level, also a model that has been calibrated before."""
        run.model.likelihood.begin_training()

    def end_run(self, run: Run) -> None:
        """Hand to the likelihood what is left."""
        self.calibrate(run, min(max(_MOST_ENTRIES // run.rows.n_features, _FEWEST_ROWS), _MOST_ROWS))

    def calibrate(self, run: Run, most: int) -> None:
        """Hand to the likelihood what is left of at most so many rows."""
        likelihood = run.model.likelihood
        smallest = max(likelihood.smallest_scale**2, _SMALLEST_VARIANCE)
        means, squares = _decoded(run, run.rows.sample(most, run.seeds.finish))
        mean_squares = squares.nanmean(0)
        noisy = mean_squares > smallest
        if len(self._held_out) >= _FEWEST_HELD_OUT and bool(noisy.any()):
            _, left = _decoded(run, self._held_out.sample(most, run.seeds.finish))
            ratio = (left[:, noisy] / mean_squares[noisy]).nanmean(1)
            # A row far away says nothing of the others.
            factor = ratio.clamp_max(_MOST_TIMES_MEDIAN * ratio.nanmedian()).nanmean().clamp_min(1)
            squares = torch.where(noisy, squares * factor.nan_to_num(1.0), squares)
        squares += (smallest - squares.nanmean(0)).clamp_min(0)
        with torch.no_grad():
            likelihood.calibrate(means, squares)


def _decoded(run: Run, rows: Rows) -> tuple[Tensor, Tensor]:
    """Return the expected decoded mean of each entry, and the expected square of what it leaves.

    The square of a missing entry is NaN. The posterior is drawn from anew for each row: what is the same for all rows
    does not average out.
    """
    model = run.model
    generator = torch.Generator("cpu").manual_seed(run.seeds.finish)
    n_pairs = min(max(_POINTS_OF_ALL // max(len(rows), 1) // 2, 1), _MOST_PAIRS)
    n_pairs = min(n_pairs, max(_ENTRIES_OF_ALL // (2 * max(len(rows), 1) * rows.n_features), _FEWEST_PAIRS))
    # Blocks that are kept, between larger ones that are not, would leave holes in memory where these do not fit again.
    means, squares = torch.empty(2, len(rows), rows.n_features, dtype=torch.float64, device="cpu")
    step = max(1, block_entries(model.device) // (2 * n_pairs * model.decoder_width))
    with torch.inference_mode(), torch.autocast(model.device.type, enabled=False):
        for number, batch in enumerate(rows.blocks(step)):
            mean, std = model.posterior(batch)
            shape = n_pairs, *mean.shape
            points = torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu").to(mean.device)
            z = mean + std * torch.cat([points, -points])
            decoded = model.decode(z.flatten(0, 1)).unflatten(0, z.shape[:2])
            left = (batch.x - decoded).square().mean(0)
            if batch.observed is not None:
                left = torch.where(batch.observed, left, math.nan)
            block = slice(number * step, number * step + len(batch))
            means[block], squares[block] = decoded.mean(0), left
    return means, squares


class FitPrior(Hook):
    """A mixture over the latent components of the training rows, which becomes the prior."""

    def end_run(self, run: Run) -> None:
        """Fit the mixture in the first process."""
        prior = None
        if run.group.rank == 0:
            mean, std = encode(run)
            points = np.random.RandomState(run.seeds.finish).standard_normal(mean.shape).astype(np.float32)
            draws = mean + std * points
            draws = draws[np.isfinite(draws).all(axis=1)]  # the run itself looks for what is not finite
            with alone(), sklearn.config_context(array_api_dispatch=False):
                prior = fit_mixture(draws, run.seeds.finish)
        run.model.prior = run.group.broadcast(prior)


class CheckComponents(Hook):
    """A warning when most components have collapsed, although there is something to find."""

    def end_run(self, run: Run) -> None:
        """Warn."""
        mean, _ = encode(run)
        n_active = int((mean.var(axis=0) >= _SMALLEST_ACTIVE).sum())
        n_useful = min(run.model.n_components, run.model.n_features, len(run.rows) - 1)
        if np.isfinite(mean).all() and 2 * n_active < n_useful and _has_structure(run):
            warn_user(
                f"{n_active} of {run.model.n_components} components are active. The others have collapsed: they say "
                f"nothing of the rows. Scale the columns, choose fewer n_components, a smaller min_scale or "
                f"beta, or more epochs (max_iter).",
                UserWarning,
            )


def _has_structure(run: Run) -> bool:
    r"""Return whether rows vary in one direction by more than white noise does in the direction where it varies most.

    Of n rows of d features with white noise of variance v, that is about :math:`v (1 + \sqrt{d / n})^2`.
    """
    batch = run.rows.sample(_MOST_STRUCTURE_ROWS, run.seeds.finish)[:]
    x = batch.x.cpu()
    x -= x.mean(0)
    if batch.observed is not None:
        x *= batch.observed.cpu()
    variances = torch.linalg.eigvalsh((x @ x.T).double() / len(x))
    by_chance = float(variances.sum()) / run.model.n_features * (1 + math.sqrt(run.model.n_features / len(x))) ** 2
    return float(variances[-1]) > _MORE_THAN_CHANCE * by_chance


class CheckReconstructions(Hook):
    """A warning when reconstructions of the training rows are worse than those of the linear model.

    Parameters
    ----------
    linear : LinearModel
        Where training has begun.
    """

    def __init__(self, linear: LinearModel) -> None:
        self._linear = linear

    def end_run(self, run: Run) -> None:
        """Warn."""
        rows = run.rows.sample(_MOST_RECONSTRUCTED, run.seeds.finish)
        mean = self._linear.mean.to(run.model.device, torch.float32)
        left = float(_mean_squares_left(run.model, rows).sum())
        total = sum(float(_mean_square(batch, mean).sum()) for batch in rows.blocks(_MOST_RECONSTRUCTED))
        kept = 1 - left / total if total > 0 else 1.0
        if kept < self._linear.explained - _LARGEST_LOSS and _has_structure(run):
            warn_user(
                f"Reconstructions of training rows keep {kept:.3g} of the variance, where PCA with as many components "
                f"keeps {self._linear.explained:.3g}. {run.model.likelihood.remedy}",
                UserWarning,
            )


def encode(run: Run) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return mean and standard deviation of the posterior of the training rows, or of a part of many."""
    model, rows = run.model, run.rows.sample(_MOST_ROWS, run.seeds.finish)
    with torch.inference_mode(), torch.autocast(model.device.type, enabled=False):
        blocks = [
            model.posterior(batch) for batch in rows.blocks(max(1, block_entries(model.device) // model.encoder_width))
        ]
    means, stds = zip(*blocks, strict=True)
    return torch.cat(means).cpu().numpy(), torch.cat(stds).cpu().numpy()
