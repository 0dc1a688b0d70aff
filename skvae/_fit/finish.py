"""What is set, and looked at, when training has ended, one small class each."""

from collections.abc import Iterator

import numpy as np
import sklearn
import torch
from numpy.typing import NDArray
from torch import Tensor

from skvae._data.checks import warn_user
from skvae._data.rows import Rows
from skvae._fit.run import Hook, Run
from skvae._model.bounds import BLOCK_ENTRIES, standard_normal_points
from skvae._model.prior import fit_mixture

__all__ = ["CalibrateNoise", "CheckComponents", "FitPrior"]

# Points for each row at which its noise is looked at: few for many rows, each with its mirror image.
_MOST_POINTS, _LEAST_POINTS, _POINTS_OF_ALL = 64, 2, 1 << 15

# What is left of a row counts as at most this many times the median.
_MOST_TIMES_MEDIAN = 10

# Rows of which the latent components are looked at.
_MOST_ROWS = 10_000

# A component is active when the posterior means of the rows have at least this variance.
_SMALLEST_ACTIVE = 0.01


class CalibrateNoise(Hook):
    """The noise of each feature, from what its mean leaves under the posterior.

    What it leaves of the training rows says how the features differ. Rows that were not trained on say how much more it
    leaves of later rows, by one factor for all features.

    Parameters
    ----------
    rows, held_out : Rows
        The training rows, and rows that were set aside, maybe none.
    """

    def __init__(self, rows: Rows, held_out: Rows) -> None:
        self._rows, self._held_out = rows, held_out

    def begin_run(self, run: Run) -> None:
        """Train with one level, also a model that has been calibrated before."""
        run.model.likelihood.begin_training()

    def end_run(self, run: Run) -> None:
        """Hand the mean squares of what is left to the likelihood."""
        likelihood = run.model.likelihood
        total = torch.zeros(run.model.n_features, dtype=torch.float64, device="cpu")
        for squares in _squares_left(run, self._rows):
            total += squares.sum(0)
        mean_squares = run.group.sum(total) / len(self._rows)
        mean_squares = mean_squares.clamp_min(likelihood.smallest_scale**2)
        if len(self._held_out):
            ratios = [(squares / mean_squares).mean(1) for squares in _squares_left(run, self._held_out, whole=True)]
            ratio = torch.cat(ratios)
            # A row far away says nothing of the others.
            mean_squares *= ratio.clamp_max(_MOST_TIMES_MEDIAN * ratio.median()).mean().clamp_min(1)
        with torch.no_grad():
            likelihood.calibrate(mean_squares)


def _squares_left(run: Run, rows: Rows, *, whole: bool = False) -> Iterator[Tensor]:
    """Yield the expected squares of what the decoded mean leaves of rows, a block of this process's at a time."""
    model, n_rows = run.model, len(rows)
    n_points = min(max(_POINTS_OF_ALL // n_rows // 2 * 2, _LEAST_POINTS), _MOST_POINTS)
    points = standard_normal_points(n_points, model.n_components).to(model.device)
    share = rows if whole else rows.between(*run.group.part(n_rows))
    with torch.inference_mode(), torch.autocast(model.device.type, enabled=False):
        for batch in share.blocks(max(1, BLOCK_ENTRIES // (n_points * model.decoder_width))):
            mean, std = model.posterior(batch.x)
            decoded = model.decode((mean + std * points[:, None]).flatten(0, 1)).unflatten(0, (n_points, -1))
            yield (batch.x - decoded).square_().mean(0).cpu().double()


class FitPrior(Hook):
    """A mixture over the latent components of the training rows, which becomes the prior.

    Parameters
    ----------
    rows : Rows
        The training rows.
    seed : int
        Where the draws and the EM algorithm begin.
    """

    def __init__(self, rows: Rows, seed: int) -> None:
        self._rows, self._seed = rows, seed

    def end_run(self, run: Run) -> None:
        """Fit the mixture in the first process."""
        prior = None
        if run.group.rank == 0:
            mean, std = encode(run, self._rows, self._seed)
            points = np.random.RandomState(self._seed).standard_normal(mean.shape).astype(np.float32)
            draws = mean + std * points
            draws = draws[np.isfinite(draws).all(axis=1)]  # the run itself looks for what is not finite
            with sklearn.config_context(array_api_dispatch=False):
                prior = fit_mixture(draws, self._seed)
        run.model.prior = run.group.broadcast(prior)


class CheckComponents(Hook):
    """A warning when most components have collapsed.

    Parameters
    ----------
    rows : Rows
        The training rows.
    seed : int
        Where the draw of rows begins.
    """

    def __init__(self, rows: Rows, seed: int) -> None:
        self._rows, self._seed = rows, seed

    def end_run(self, run: Run) -> None:
        """Warn."""
        mean, _ = encode(run, self._rows, self._seed)
        n_active = int((mean.var(axis=0) >= _SMALLEST_ACTIVE).sum())
        n_useful = min(run.model.n_components, run.model.n_features, len(self._rows) - 1)
        if np.isfinite(mean).all() and 2 * n_active < n_useful:
            warn_user(
                f"{n_active} of {run.model.n_components} components are active. The others have collapsed: they say "
                f"nothing of the rows. Scale the columns, choose fewer n_components, a smaller min_scale or "
                f"beta, or more epochs (max_iter).",
                UserWarning,
            )


def encode(run: Run, rows: Rows, seed: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return mean and standard deviation of the posterior of rows, or of a part of many."""
    if len(rows) > _MOST_ROWS:
        rows = rows.subset(np.sort(np.random.RandomState(seed).choice(len(rows), _MOST_ROWS, replace=False)))
    model = run.model
    with torch.inference_mode(), torch.autocast(model.device.type, enabled=False):
        blocks = [model.posterior(batch.x) for batch in rows.blocks(max(1, BLOCK_ENTRIES // model.encoder_width))]
    means, stds = zip(*blocks, strict=True)
    return torch.cat(means).cpu().numpy(), torch.cat(stds).cpu().numpy()
