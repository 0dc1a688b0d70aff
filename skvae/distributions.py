"""The continuous Bernoulli distribution, accurate for every logit in float32 and in float64."""

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.distributions import ExponentialFamily, constraints
from torch.distributions.kl import register_kl
from torch.distributions.utils import broadcast_all, lazy_property

from skvae import _kl
from skvae._model import ops

__all__ = ["ContinuousBernoulli"]

# Bernoulli numbers B_2, B_4, ..., B_24.
_BERNOULLI = [
    *(Fraction(1, 6), Fraction(-1, 30), Fraction(1, 42), Fraction(-1, 30), Fraction(5, 66)),
    *(Fraction(-691, 2730), Fraction(7, 6), Fraction(-3617, 510), Fraction(43867, 798)),
    *(Fraction(-174611, 330), Fraction(854513, 138), Fraction(-236364091, 2730)),
]

# A(e) = e / 2 + sum_k B_2k / (2k (2k)!) e^2k converges for |e| < 2 pi; its derivatives give the mean,
# 1/2 + sum_k B_2k / (2k)! e^(2k - 1), and the variance. They are used for |e| < 1, where the closed forms cancel.
_MEAN_SERIES = [float(b / math.factorial(2 * k)) for k, b in enumerate(_BERNOULLI, 1)]
_VARIANCE_SERIES = [(2 * k - 1) * c for k, c in enumerate(_MEAN_SERIES, 1)]
_EXPM1_SERIES = [1 / math.factorial(k + 1) for k in range(19)]

# Six terms of the mean's series reach float32, second derivatives included.
_FLOAT32_TERMS = 6


def _polynomial(coefficients: list[float], x: Tensor) -> Tensor:
    """Return ``coefficients[0] + coefficients[1] x + ...`` by Horner's rule."""
    value = torch.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        value = torch.addcmul(x.new_full((), coefficient), value, x)
    return value


def _series(coefficients: list[float], x: Tensor) -> Tensor:
    return _polynomial(coefficients if x.dtype == torch.float64 else coefficients[:_FLOAT32_TERMS], x)


def _branches(e: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Split the logits at 1: the mask of the small ones, and a harmless argument for either branch."""
    small = e.abs() < 1
    return small, torch.where(small, e, 0), torch.where(small, 1, e)


def _positive(x: Tensor) -> Tensor:
    """Return 1 where x > 0 and 0 elsewhere, in the dtype of `x`.

    Such numbers, multiplied with or given to `torch.lerp`, select at a sixth of what booleans and `torch.where` cost
    on a CPU.
    """
    return x.detach().sign().clamp_min(0)


def _likelier_end(e: Tensor) -> tuple[Tensor, Tensor]:
    """Return the end of [0, 1] where the density is larger, 0 or 1, and the sign of e that goes with it."""
    end = _positive(e)
    return end, 2 * end - 1


def _lower_mean(a: Tensor) -> Tensor:
    """Return A'(-a) for a >= 0: 1 / a - 1 / (exp(a) - 1), which keeps its digits when it is tiny."""
    near, far = a.clamp_max(1), a.clamp_min(1)
    t = (-far).exp()
    return torch.lerp(0.5 - near * _series(_MEAN_SERIES, near * near), far.reciprocal() - t / (1 - t), _positive(a - 1))


def mean(e: Tensor) -> Tensor:
    """Return A'(e), the mean, for finite logits `e`, element by element."""
    end, sign = _likelier_end(e)
    return torch.addcmul(end, sign, _lower_mean(sign * e), value=-1)


def _far_deviation(a: Tensor) -> tuple[Tensor, Tensor]:
    """Return 1 / a and the factor that makes it the standard deviation for a >= 1.

    A''(e) = 1 / a^2 - exp(-a) / (1 - exp(-a))^2 = (1 - t^2) / a^2, where t never overflows.
    """
    t = a * (-a / 2).exp() / -torch.expm1(-a)
    return a.reciprocal(), 1 - t * t


def _variance(e: Tensor) -> Tensor:
    """Return A''(e), the variance."""
    small, near, far = _branches(e)
    scale, factor = _far_deviation(far.abs())
    return torch.where(small, _series(_VARIANCE_SERIES, near * near), scale * scale * factor)


def _stddev(e: Tensor) -> Tensor:
    """Return the square root of A''(e); its gradient survives where the variance underflows."""
    small, near, far = _branches(e)
    scale, factor = _far_deviation(far.abs())
    return torch.where(small, _series(_VARIANCE_SERIES, near * near).sqrt(), scale * factor.sqrt())


def _log_prob(e: Tensor, x: Tensor) -> Tensor:
    """Return e x - A(e), written for x minus the likelier end of [0, 1], so that nothing cancels.

    There it is minus the logarithm of (1 - exp(-|e|)) / |e|, which is 2 / (|e| (1 + 1 / tanh(|e| / 2))).
    """
    half = (0.5 * e.abs()).clamp_min(1e-30)
    return torch.addcmul(torch.addcdiv(half, half, half.tanh()).log(), e, x - _positive(e))


def slope(e: Tensor, x: Tensor) -> Tensor:
    """Return the derivative of `_log_prob` in e, x - A'(e), measured from the same end."""
    end, sign = _likelier_end(e)
    return torch.addcmul(x - end, sign, _lower_mean(sign * e))


def _tangent(ctx: Any, tangents: tuple[Tensor | None, ...], *partials: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Return the tangent of a function whose partial derivatives, at the saved tensors, are `partials`.

    Around a `jvp`, torch turns forward mode off. A second derivative, forward over forward, would then be 0 without
    a word (pytorch/pytorch#197867). Here it is on again, for the numbers beneath the present level.
    """
    with ops.forward_mode():
        saved = [forward_ad.unpack_dual(tensor).primal for tensor in ctx.saved_tensors]
        terms = [
            forward_ad.unpack_dual(tangent).primal * partial(*saved)
            for tangent, partial in zip(tangents, partials, strict=True)
            if tangent is not None
        ]
        return terms[0] if len(terms) == 1 else terms[0] + terms[1]


class _LogProb(torch.autograd.Function):
    """log p(x | e) = e x - A(e), whose gradient is not taken through the steps of its computation."""

    generate_vmap_rule = True

    @staticmethod
    def forward(e: Tensor, x: Tensor) -> Tensor:
        return _log_prob(e, x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None]:
        (grad,) = grads
        e, x = ctx.saved_tensors
        return (
            grad * slope(e, x) if ctx.needs_input_grad[0] else None,
            grad * e if ctx.needs_input_grad[1] else None,
        )

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:
        return _tangent(ctx, tangents, slope, lambda e, x: e)


def log_prob(e: Tensor, x: Tensor) -> Tensor:
    """Return the log density of the continuous Bernoulli with finite logits `e` at `x`, element by element.

    Parameters
    ----------
    e : Tensor
        Logits, finite; any shape that broadcasts with `x`.
    x : Tensor
        Points of [0, 1]. They are not checked.

    Returns
    -------
    Tensor
        ``e * x - A(e)`` in nats, in the wider of the two dtypes and at least in float32: automatic mixed precision
        does not reach into it.
    """
    dtype = torch.promote_types(torch.promote_types(e.dtype, x.dtype), torch.float32)
    e, x = torch.broadcast_tensors(e.to(dtype), x.to(dtype))
    return _LogProb.apply(e, x)


def _cdf_upward(a: Tensor, w: Tensor) -> Tensor:
    """Return the cdf at w for the logit a >= 1: (exp(a w) - 1) / (exp(a) - 1) without overflow."""
    return (-a * (1 - w)).exp() * torch.expm1(-a * w) / torch.expm1(-a)


def _quantile_slope(e: Tensor, x: Tensor) -> Tensor:
    """Return the derivative in e of the quantile x = F^-1(u; e) at fixed u.

    It is -(dF/de) / p = x (1 - exp(-e x)) / (e x) (A'(e) - x A'(e x)); for |e| >= 1, with w the distance from x to
    the unlikelier end, (w - F(w; |e|)) / |e|.
    """
    small, near, far = _branches(e)
    t = near * x
    series = _MEAN_SERIES if e.dtype == torch.float64 else _MEAN_SERIES[:_FLOAT32_TERMS]
    difference, power, x_power = 0.5 * (1 - x), near, x * x
    for coefficient in series:
        difference = difference + coefficient * power * (1 - x_power)
        power, x_power = power * near * near, x_power * x * x
    a = far.abs()
    w = torch.where(far > 0, 1 - x, x)
    return torch.where(small, x * _polynomial(_EXPM1_SERIES, -t) * difference, (w - _cdf_upward(a, w)) * a.reciprocal())


def _save(ctx: Any, *tensors: Tensor) -> None:
    """Save tensors for both modes; derivatives of what does not vary are left out, for they may be infinite."""
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors)
    ctx.save_for_forward(*tensors)


def _gradients(ctx: Any, grad: Tensor | None, *partials: Callable[[Tensor, Tensor], Tensor]) -> Any:
    """Return the gradients of a function whose partial derivatives, at the saved tensors, are `partials`."""
    if grad is None:
        return None, None
    needed = zip(ctx.needs_input_grad, partials, strict=True)
    return tuple(grad * partial(*ctx.saved_tensors) if needs else None for needs, partial in needed)


def _density(e: Tensor, x: Tensor) -> Tensor:
    return log_prob(e, x).exp()


def _quantile_density(e: Tensor, x: Tensor) -> Tensor:
    """Return the derivative in u of the quantile x = F^-1(u; e)."""
    return (-log_prob(e, x)).exp()


def _cdf_slope(e: Tensor, x: Tensor) -> Tensor:
    """Return the derivative in e of the cdf at x."""
    return -_density(e, x) * _quantile_slope(e, x)


class _Cdf(torch.autograd.Function):
    """F(x; e) = (exp(e x) - 1) / (exp(e) - 1)."""

    generate_vmap_rule = True

    @staticmethod
    def forward(e: Tensor, x: Tensor) -> Tensor:
        a = e.abs()
        downward = torch.expm1(-a * x) / torch.expm1(-a)
        value = torch.where(e > 0, downward * (-a * (1 - x)).exp(), downward)
        return torch.where(a < 1e-20, x, value)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        _save(ctx, *inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        return _gradients(ctx, grads[0], _cdf_slope, _density)

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:
        return _tangent(ctx, tangents, _cdf_slope, _density)


class _Icdf(torch.autograd.Function):
    """The inverse of `_Cdf` in x; u and 1 - u are both carried, since one of them holds the digits."""

    generate_vmap_rule = True

    @staticmethod
    def forward(e: Tensor, u: Tensor) -> Tensor:
        a = e.abs()
        v, complement = torch.where(e > 0, 1 - u, u), torch.where(e > 0, u, 1 - u)
        mass = v * -torch.expm1(-a)
        log = torch.where(mass < 0.5, torch.log1p(-mass), torch.logaddexp(complement.log(), v.log() - a))
        w = torch.where(a < 1e-20, v, -log / a).clamp(0, 1)
        return torch.where(e > 0, 1 - w, w)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        _save(ctx, inputs[0], output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        return _gradients(ctx, grads[0], _quantile_slope, _quantile_density)

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:
        return _tangent(ctx, tangents, _quantile_slope, _quantile_density)


def _elementwise(function: type[torch.autograd.Function], e: Tensor, x: Tensor) -> Tensor:
    """Apply a function of two tensors, at least in float32, to tensors of any shapes and dtypes that fit."""
    dtype = torch.promote_types(e.dtype, x.dtype)
    wider = torch.promote_types(dtype, torch.float32)
    value: Tensor = function.apply(*torch.broadcast_tensors(e.to(wider), x.to(wider)))
    return value.to(dtype)


def _finite(e: Tensor) -> Tensor:
    limits = torch.finfo(e.dtype)
    return e.clamp(limits.min, limits.max)


def _entropy(e: Tensor) -> Tensor:
    """Return A(e) - e A'(e), an even function, on the side where neither term is large."""
    r = torch.where(e.abs() < 1, e, -e.abs())
    return -log_prob(r, torch.zeros_like(r)) - r * mean(r)


class ContinuousBernoulli(ExponentialFamily):
    r"""Continuous Bernoulli distribution on [0, 1], right for every logit.

    With the logit :math:`e = \log(\lambda / (1 - \lambda))` of the parameter :math:`\lambda`, it is the exponential
    family

    .. math::

        p(x \mid e) = \exp(e x - A(e)), \qquad A(e) = \log \frac{\exp(e) - 1}{e}, \qquad x \in [0, 1],

    with mean :math:`A'(e)` and variance :math:`A''(e)` [1]_. The mean is not :math:`\lambda`. Near :math:`e = 0` the
    closed forms are 0 / 0 and give way to their Taylor series; elsewhere they are written so that nothing cancels.
    In float32 every method is accurate to 2e-6 for logits in [-500, 500], relative to the true value or absolute
    where that is below 1; in float64 to 1e-12. No finite logit gives NaN, first and second derivatives included.
    Derivatives may be taken in reverse or forward mode, and under ``torch.func.vmap``.

    Give extreme parameters as `logits`. In float32, `probs` can stand for logits between about -87 and 16.6 only:
    beyond, a sigmoid rounds to 0 or 1, which is a point mass.

    Parameters
    ----------
    probs : Tensor or float, default=None
        The parameter :math:`\lambda` in [0, 1]. Give either `probs` or `logits`.
    logits : Tensor or float, default=None
        The natural parameter :math:`e`. Infinite logits are point masses at 0 and 1.
    validate_args : bool, default=None
        Whether to check parameters and values; None follows ``Distribution.set_default_validate_args``.

    Raises
    ------
    ValueError
        When both or neither of `probs` and `logits` are given, or one is outside its domain.

    References
    ----------
    .. [1] Loaiza-Ganem, G. and Cunningham, J. P., "The continuous Bernoulli: fixing a pervasive error in variational
       autoencoders", NeurIPS 2019.

    Examples
    --------
    >>> import torch
    >>> from skvae.distributions import ContinuousBernoulli
    >>> ContinuousBernoulli(logits=torch.tensor(-100.0)).mean
    tensor(0.0100)
    """

    arg_constraints = {"probs": constraints.unit_interval, "logits": constraints.real}
    support = constraints.unit_interval
    has_rsample = True
    _mean_carrier_measure = 0

    def __init__(
        self,
        probs: Tensor | float | None = None,
        logits: Tensor | float | None = None,
        validate_args: bool | None = None,
    ) -> None:
        if probs is not None and logits is None:
            (self.probs,) = broadcast_all(probs)
        elif logits is not None and probs is None:
            (self.logits,) = broadcast_all(logits)
        else:
            raise ValueError("Give either `probs` or `logits`, and not both.")
        super().__init__(self._param.shape, validate_args=validate_args)

    @property
    def _param(self) -> Tensor:
        return self.__dict__["probs"] if "probs" in self.__dict__ else self.logits

    @lazy_property
    def logits(self) -> Tensor:
        """Return the natural parameter e."""
        return torch.logit(self.probs)

    @lazy_property
    def probs(self) -> Tensor:
        """Return the parameter lambda = sigmoid(e), which is not the mean."""
        return torch.sigmoid(self.logits)

    @property
    def _finite_logits(self) -> Tensor:
        """The logits, infinities brought to the largest finite number, at which the distribution is a point as well."""
        return _finite(self.logits)

    @property
    def _toward_zero(self) -> "ContinuousBernoulli":
        """The distribution of x or, where that is likelier near 1, of 1 - x, whose mean keeps its digits."""
        return ContinuousBernoulli(logits=torch.where(self.logits > 0, -self.logits, self.logits), validate_args=False)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> "ContinuousBernoulli":
        """Return the distribution with its parameters expanded to `batch_shape`."""
        new = self._get_checked_instance(ContinuousBernoulli, _instance)
        batch_shape = torch.Size(batch_shape)
        for name in ("probs", "logits"):
            if name in self.__dict__:
                setattr(new, name, self.__dict__[name].expand(batch_shape))
        super(ContinuousBernoulli, new).__init__(batch_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def param_shape(self) -> torch.Size:
        """The shape of the parameter."""
        return self._param.shape

    @property
    def mean(self) -> Tensor:
        """The mean A'(e)."""
        return torch.where(self.logits.isinf(), (self.logits > 0).to(self.logits.dtype), mean(self._finite_logits))

    @property
    def mode(self) -> Tensor:
        """The end of [0, 1] where the density is largest, 0.5 for the uniform distribution."""
        return 0.5 + 0.5 * self.logits.sign()

    @property
    def variance(self) -> Tensor:
        """The variance A''(e)."""
        return _variance(self._finite_logits)

    @property
    def stddev(self) -> Tensor:
        """The standard deviation."""
        return torch.where(self.logits.isinf(), 0, _stddev(self._finite_logits))

    def log_prob(self, value: Tensor | float) -> Tensor:
        """Return the log density e x - A(e) at `value`, in nats."""
        value = self._checked(value)
        density = log_prob(self._finite_logits, value)
        point = torch.where(value == (self.logits > 0), torch.inf, -torch.inf).to(density.dtype)
        return torch.where(self.logits.isinf(), point, density)

    def cdf(self, value: Tensor | float) -> Tensor:
        """Return the cumulative distribution function at `value`."""
        x = self._checked(value)
        probability = _elementwise(_Cdf, self._finite_logits, x.clamp(0, 1))
        point = torch.where(self.logits > 0, x >= 1, x >= 0).to(probability.dtype)
        return torch.where(self.logits.isinf(), point, probability)

    def icdf(self, value: Tensor | float) -> Tensor:
        """Return the quantile at the probability `value` in [0, 1]."""
        try:
            value = self._checked(value)
        except ValueError as error:
            raise ValueError(f"The argument of icdf is a probability in [0, 1]. {error}") from error
        return self._quantile(value)

    def _quantile(self, u: Tensor) -> Tensor:
        quantile = _elementwise(_Icdf, self._finite_logits, u)
        return torch.where(self.logits.isinf(), (self.logits > 0).to(quantile.dtype), quantile)

    def rsample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        """Return reparametrized samples: the quantiles of uniform draws from torch's global generator."""
        shape = self._extended_shape(sample_shape)
        return self._quantile(torch.rand(shape, dtype=self.logits.dtype, device=self.logits.device))

    def sample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        """Return samples without gradient."""
        with torch.no_grad():
            return self.rsample(sample_shape).detach()

    def entropy(self) -> Tensor:
        """Return the differential entropy A(e) - e A'(e), in nats; at most 0."""
        return torch.where(self.logits.isinf(), -torch.inf, _entropy(self._finite_logits))

    def _checked(self, value: Tensor | float) -> Tensor:
        """Return the value as a tensor, a point of [0, 1] that suits the shape if arguments are to be checked."""
        if not isinstance(value, Tensor):
            value = torch.as_tensor(value, dtype=self.logits.dtype, device=self.logits.device)
        if self._validate_args:
            # Under vmap this looks at all of the batch at once, as torch's own distributions do.
            self._validate_sample(value)
        return value

    @property
    def _natural_params(self) -> tuple[Tensor]:
        return (self.logits,)

    def _log_normalizer(self, *natural_params: Tensor) -> Tensor:
        (e,) = natural_params
        return -log_prob(e, torch.zeros_like(e))


_kl.register(ContinuousBernoulli)


@register_kl(ContinuousBernoulli, ContinuousBernoulli)
@register_kl(ContinuousBernoulli, torch.distributions.ContinuousBernoulli)
@register_kl(torch.distributions.ContinuousBernoulli, ContinuousBernoulli)
def _kl_continuous_bernoulli(p: Any, q: Any) -> Tensor:
    """KL(p || q) = -H(p) - log q(E_p x), taken from the end of [0, 1] that p prefers."""
    e, f = broadcast_all(_finite(p.logits), _finite(q.logits))
    flip = e >= 1
    e, f = torch.where(flip, -e, e), torch.where(flip, -f, f)
    divergence = -_entropy(e) - log_prob(f, mean(e))
    point = torch.where(p.logits == q.logits, 0.0, torch.inf).to(divergence.dtype)
    return torch.where(p.logits.isinf() | q.logits.isinf(), point, divergence)
