"""Kullback-Leibler divergences between the continuous Bernoulli distribution and other distributions of torch.

They are those that torch has for its own continuous Bernoulli. A mean that is near 1 is measured from 1, so that they
keep their digits for extreme logits.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Beta, Distribution, Exponential, Gamma, Gumbel, Laplace, Normal, Pareto, Uniform
from torch.distributions.kl import register_kl


def _infinite(p: Any, q: Any) -> Tensor:
    """Return infinity, since p reaches where q does not."""
    logits: Tensor = p.logits if hasattr(p, "logits") else q.logits
    return logits.new_full(torch.broadcast_shapes(p.batch_shape, q.batch_shape), math.inf)


def _to_exponential(p: Any, q: Exponential) -> Tensor:
    return -p.entropy() - q.rate.log() + q.rate * p.mean


def _to_normal(p: Any, q: Normal) -> Tensor:
    location = torch.where(p.logits > 0, 1 - q.loc, q.loc)
    distance = (p._toward_zero.mean - location) / q.scale
    spread = p.stddev / q.scale
    return -p.entropy() + q.scale.log() + 0.5 * (math.log(2 * math.pi) + distance * distance + spread * spread)


def _to_uniform(p: Any, q: Uniform) -> Tensor:
    # Unlike torch's, it is finite for the uniform distribution on [0, 1] itself.
    return torch.where((q.low > 0) | (q.high < 1), math.inf, -p.entropy() + (q.high - q.low).log())


def _expected_log_prob(q: Any, mean: Tensor, mean_from_one: Tensor) -> Tensor:
    """Return the expectation of log q under a distribution with the mean given, since log q is linear."""
    expectation = q._toward_zero.log_prob(torch.where(q.logits > 0, mean_from_one, mean))
    return torch.where(q.logits.isinf(), -math.inf, expectation)


def _from_uniform(p: Uniform, q: Any) -> Tensor:
    expectation = _expected_log_prob(q, 0.5 * (p.low + p.high), 0.5 * ((1 - p.low) + (1 - p.high)))
    return torch.where((p.low < 0) | (p.high > 1), math.inf, -(p.high - p.low).log() - expectation)


def _from_beta(p: Beta, q: Any) -> Tensor:
    a, b = p.concentration1, p.concentration0
    # The terms of this entropy are large and cancel.
    wide = a.dtype if a.device.type == "mps" else torch.float64
    entropy = Beta(a.to(wide), b.to(wide), validate_args=False).entropy()
    expectation = _expected_log_prob(q, a / (a + b), b / (a + b))
    return -entropy.to(expectation.dtype) - expectation


def register(family: type[Distribution]) -> None:
    """Register the divergences from and to `family`, the continuous Bernoulli, with ``torch.distributions``."""
    register_kl(family, Exponential)(_to_exponential)
    register_kl(family, Normal)(_to_normal)
    register_kl(family, Pareto)(_infinite)
    register_kl(family, Uniform)(_to_uniform)
    register_kl(Beta, family)(_from_beta)
    register_kl(Uniform, family)(_from_uniform)
    for unbounded in (Exponential, Gamma, Gumbel, Laplace, Normal, Pareto):
        register_kl(unbounded, family)(_infinite)
