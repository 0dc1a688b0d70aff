"""The noise of features as a function of their means, fitted to what the means leave."""

import torch
from torch import Tensor
from torch.nn.functional import softplus

__all__ = ["fit_scale"]

# Fisher's steps, and how often one that does not help is halved.
_N_STEPS, _N_HALVINGS = 8, 8

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

    def loss(level: Tensor, slope: Tensor, some: Tensor) -> Tensor:
        scale = min_scale + softplus(level + slope * deviations[:, some])
        losses = (0.5 * squares[:, some] / scale.square() + scale.log()) * known[:, some]
        return losses.sum(0) + 0.5 * _RIDGE * slope.square()

    level, slope, features = raw.clone(), torch.zeros_like(raw), torch.arange(len(raw), device=raw.device)
    smallest = loss(level, slope, features)
    for _ in range(_N_STEPS):
        r = level + slope * deviations
        scale = min_scale + softplus(r)
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
        share, left = 1.0, features
        for _ in range(1 + _N_HALVINGS):
            tried = level[left] + share * level_step[left], slope[left] + share * slope_step[left]
            found = loss(*tried, left)
            helps = found <= smallest[left]
            for values, better in zip((level, slope, smallest), (*tried, found), strict=True):
                values[left[helps]] = better[helps]
            share, left = share / 2, left[~helps]
            if len(left) == 0:
                break
    return level - slope * center, slope
