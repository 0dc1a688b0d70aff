"""The noise of features as a function of their means, fitted to what the means leave."""

import torch
from torch import Tensor
from torch.nn.functional import softplus

__all__ = ["fit_scale"]

# Fisher's steps, and how often one is tried that does not help, at half the length each time.
_N_STEPS, _N_TRIES = 8, 8

# A step is the last one when it is worth less to every feature, in nats of all its rows.
_SMALLEST_GAIN = 1e-3

# How many rows hold the slope back.
_RIDGE = 10.0

# Entries of the columns that are fitted at once.
_BLOCK_ENTRIES = 1 << 20


def fit_scale(means: Tensor, squares: Tensor, raw: Tensor, min_scale: float) -> tuple[Tensor, Tensor]:
    r"""Return a and b of each feature, of which the standard deviation is :math:`s = s_{\min} + \log(1 + e^{a + b m})`.

    They make a normal distribution likeliest in which the feature has the mean m, with a ridge on b:

    .. math::

        \sum_i \left[ \frac{q_i}{2 s_i^2} + \log s_i \right] + \frac{c}{2} b^2

    Fisher's scoring finds them. A step of a feature that does not help is halved.

    Parameters
    ----------
    means, squares : Tensor of shape (n_samples, n_features), float64
        The means m, and the squares q of what they leave; NaN where that is not known.
    raw : Tensor of shape (n_features,), float64
        Where a begins, with b = 0: no feature gets worse.
    min_scale : float
        The smallest standard deviation.
    """
    step = max(1, _BLOCK_ENTRIES // len(means))
    columns = zip(means.split(step, 1), squares.split(step, 1), raw.split(step), strict=True)
    blocks = [_fit_block(*some, min_scale) for some in columns]
    levels, slopes = zip(*blocks, strict=True)
    return torch.cat(levels), torch.cat(slopes)


def _fit_block(means: Tensor, squares: Tensor, raw: Tensor, min_scale: float) -> tuple[Tensor, Tensor]:
    """Return the same for a few features."""
    center = means.mean(0)
    deviations, known = means - center, ~squares.isnan()
    squares = squares.nan_to_num(0.0)

    def at(level: Tensor, slope: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return a + b m and s of each entry, and the sum of each feature."""
        r = level + slope * deviations
        scale = min_scale + softplus(r)
        sums = ((0.5 * squares / scale.square() + scale.log()) * known).sum(0)
        return r, scale, sums + 0.5 * _RIDGE * slope.square()

    level, slope = raw, torch.zeros_like(raw)
    r, scale, smallest = at(level, slope)
    for _ in range(_N_STEPS):
        rate = torch.sigmoid(r) / scale * known  # the derivative of log s
        weight, score = 2 * rate.square(), (squares / scale.square() - 1) * rate
        weighted = weight * deviations
        a, b, c = weight.sum(0), weighted.sum(0), (weighted * deviations).sum(0) + _RIDGE
        by_level, by_slope = score.sum(0), (score * deviations).sum(0) - _RIDGE * slope
        determinant = (a * c - b * b).clamp_min(1e-30)
        level_step, slope_step = (
            (c * by_level - b * by_slope) / determinant,
            (a * by_slope - b * by_level) / determinant,
        )
        share = torch.ones_like(level)
        for n_tried in range(1, _N_TRIES + 1):
            r, scale, found = at(level + share * level_step, slope + share * slope_step)
            helps = found <= smallest
            if bool(helps.all()):
                break
            share = torch.where(helps, share, 0.5 * share if n_tried < _N_TRIES else 0.0)
        else:  # features that no length helps stay where they are
            r, scale, found = at(level + share * level_step, slope + share * slope_step)
        level, slope = level + share * level_step, slope + share * slope_step
        gain, smallest = smallest - found, found
        if bool((gain < _SMALLEST_GAIN).all()):
            break
    return level - slope * center, slope
