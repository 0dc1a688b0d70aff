"""The continuous Bernoulli against 50-digit arithmetic."""

import copy
import functools
import math
import pickle

import mpmath
import numpy as np
import pytest
import torch
from scipy import stats
from torch.autograd import forward_ad
from torch.distributions import (
    AffineTransform,
    Beta,
    Exponential,
    Gamma,
    Gumbel,
    Independent,
    Laplace,
    Normal,
    Pareto,
    TransformedDistribution,
    Uniform,
    kl_divergence,
)
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vmap

from skvae.distributions import ContinuousBernoulli, log_prob

TOLERANCE = {torch.float32: 2e-6, torch.float64: 1e-12}
POINTS = (0.0, 1e-7, 0.1, 0.5, 0.7, 0.999, 1.0)
LOGITS = np.unique(
    np.concatenate(
        [
            np.linspace(-500, 500, 21),
            np.linspace(-3, 3, 25),
            np.geomspace(1e-12, 400, 15),
            -np.geomspace(1e-12, 400, 15),
            [0.0, 0.499, 0.5, 0.999, 1.0, 1.001, -0.999, -1.0, -1.001],
        ]
    )
)


@pytest.fixture(autouse=True)
def _digits():
    with mpmath.workdps(50):
        yield


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request):
    return request.param


@pytest.fixture
def logits(dtype):
    return torch.tensor(LOGITS, dtype=dtype, requires_grad=True)


def exact(values):
    return [mpmath.mpf(value) for value in values.detach().double().tolist()]


def cumulant(e, order):
    """The derivative of A(e) = log((exp(e) - 1) / e) of the given order, from 0 to 4."""
    if abs(e) < 0.3:
        value = [e / 2, mpmath.mpf("0.5"), 0, 0, 0][order]
        for k in range(1, 30):
            if 2 * k >= order:
                coefficient = mpmath.bernoulli(2 * k) / (2 * k * mpmath.factorial(2 * k))
                value += coefficient * mpmath.ff(2 * k, order) * e ** (2 * k - order)
        return value
    if order == 0:
        return mpmath.log(mpmath.expm1(e) / e)
    if order == 1:
        return 1 / (1 - mpmath.exp(-e)) - 1 / e
    coth, csch2 = mpmath.coth(e / 2), mpmath.csch(e / 2) ** 2
    return {
        2: 1 / e**2 - csch2 / 4,
        3: coth * csch2 / 4 - 2 / e**3,
        4: 6 / e**4 - csch2 * coth**2 / 4 - csch2**2 / 8,
    }[order]


def derivative(values, logits):
    return torch.autograd.grad(values.sum(), logits, create_graph=True)[0]


def assert_close(values, truth, scale=1):
    """The error, relative or absolute where the truth is below 1, is within the bar."""
    tolerance = scale * TOLERANCE[values.dtype]
    for value, true in zip(exact(values), truth, strict=True):
        assert abs(value - true) <= tolerance * max(1, abs(true)), (float(value), float(true))


def test_mean_and_its_derivatives(logits):
    mean = ContinuousBernoulli(logits=logits).mean
    first = derivative(mean, logits)
    for order, values in enumerate((mean, first, derivative(first, logits)), 1):
        assert_close(values, [cumulant(e, order) for e in exact(logits)])


def test_variance_and_its_derivatives(logits):
    variance = ContinuousBernoulli(logits=logits).variance
    first = derivative(variance, logits)
    for order, values in enumerate((variance, first, derivative(first, logits)), 2):
        assert_close(values, [cumulant(e, order) for e in exact(logits)])


def test_variance_and_mean_keep_their_digits_where_they_are_small(logits):
    lower = torch.where(logits > 0, -logits, logits)
    distribution = ContinuousBernoulli(logits=lower)
    for values, order in ((distribution.mean, 1), (distribution.variance, 2)):
        for value, e in zip(exact(values), exact(lower), strict=True):
            assert abs(value / cumulant(e, order) - 1) < TOLERANCE[logits.dtype]


def test_stddev_and_its_derivatives(logits):
    stddev = ContinuousBernoulli(logits=logits).stddev
    first = derivative(stddev, logits)
    assert_close(stddev, [mpmath.sqrt(cumulant(e, 2)) for e in exact(logits)])
    assert_close(first, [cumulant(e, 3) / (2 * mpmath.sqrt(cumulant(e, 2))) for e in exact(logits)])
    assert derivative(first, logits).isfinite().all()


def test_entropy_and_its_derivatives(logits):
    entropy = ContinuousBernoulli(logits=logits).entropy()
    first = derivative(entropy, logits)
    assert_close(entropy, [cumulant(e, 0) - e * cumulant(e, 1) for e in exact(logits)])
    assert_close(first, [-e * cumulant(e, 2) for e in exact(logits)])
    assert_close(derivative(first, logits), [-cumulant(e, 2) - e * cumulant(e, 3) for e in exact(logits)])


@pytest.mark.parametrize("point", POINTS)
def test_log_prob_and_its_derivatives(logits, point):
    x = torch.full_like(logits, point, requires_grad=True)
    (true_x,) = set(exact(x))
    values = ContinuousBernoulli(logits=logits).log_prob(x)
    first = derivative(values, logits)
    assert_close(values, [e * true_x - cumulant(e, 0) for e in exact(logits)])
    assert_close(first, [true_x - cumulant(e, 1) for e in exact(logits)])
    assert_close(derivative(first, logits), [-cumulant(e, 2) for e in exact(logits)])
    assert_close(torch.autograd.grad(values.sum(), x)[0], exact(logits))


@pytest.mark.parametrize("point", POINTS)
def test_cdf_and_its_derivatives(logits, point):
    x = torch.full_like(logits, point, requires_grad=True)
    (true_x,) = set(exact(x))
    values = ContinuousBernoulli(logits=logits).cdf(x)
    truth = [mpmath.expm1(e * true_x) / mpmath.expm1(e) if e else true_x for e in exact(logits)]
    slopes = [
        F * (true_x * cumulant(e * true_x, 1) - cumulant(e, 1)) for F, e in zip(truth, exact(logits), strict=True)
    ]
    first = derivative(values, logits)
    assert_close(values, truth)
    assert_close(first, slopes)
    assert derivative(first, logits).isfinite().all()
    density = [mpmath.exp(e * true_x - cumulant(e, 0)) for e in exact(logits)]
    # The density at the boundary is as large as the logit: its error is that of an exponential of log_prob.
    assert_close(torch.autograd.grad(values.sum(), x)[0], density, scale=5)


@pytest.mark.parametrize("point", POINTS)
def test_icdf_and_its_derivatives(logits, point):
    u = torch.full_like(logits, point)
    (true_u,) = set(exact(u))
    values = ContinuousBernoulli(logits=logits).icdf(u)
    first = derivative(values, logits)
    quantiles, slopes = [], []
    with mpmath.workdps(500):
        for e in exact(logits):
            x = mpmath.log1p(true_u * mpmath.expm1(e)) / e if e else true_u
            F = mpmath.expm1(e * x) / mpmath.expm1(e) if e else x
            density = mpmath.exp(e * x - cumulant(e, 0))
            quantiles.append(x)
            slopes.append(-F * (x * cumulant(e * x, 1) - cumulant(e, 1)) / density)
    assert_close(values, quantiles)
    assert_close(first, slopes)
    assert derivative(first, logits).isfinite().all()


@pytest.mark.parametrize("other", [-500.0, -20.0, -0.5, 0.0, 0.3, 20.0, 499.0, 500.0])
def test_kl_and_its_derivative(logits, other):
    q = mpmath.mpf(other)
    values = kl_divergence(
        ContinuousBernoulli(logits=logits), ContinuousBernoulli(logits=torch.full_like(logits, other))
    )
    truth = [(p - q) * cumulant(p, 1) - cumulant(p, 0) + cumulant(q, 0) for p in exact(logits)]
    assert_close(values, truth)
    assert_close(derivative(values, logits), [(p - q) * cumulant(p, 2) for p in exact(logits)])


@pytest.mark.draws_globally
def test_rsample_gradient_is_that_of_the_quantile(logits):
    torch.manual_seed(0)
    sample = ContinuousBernoulli(logits=logits).rsample()
    gradient = derivative(sample, logits)
    # The quantile's slope is -(dF/de) / p at the sample.
    x = sample.detach().requires_grad_()
    F = ContinuousBernoulli(logits=logits).cdf(x)
    density = ContinuousBernoulli(logits=logits).log_prob(x).exp()
    assert torch.allclose(gradient, -derivative(F, logits) / density, rtol=1e-3, atol=2e-6)


class TestKnownFailures:
    """Inputs on which torch 2.13's own continuous Bernoulli is wrong in float32."""

    def test_mean_and_variance_next_to_one_half(self):
        distribution = ContinuousBernoulli(probs=torch.tensor(0.49899974))
        assert float(distribution.variance) == pytest.approx(0.0833332, abs=1e-6)
        assert float(distribution.mean) == pytest.approx(0.4996666, abs=1e-6)

    @pytest.mark.parametrize(("logit", "value"), [(-20.0, 2.9957323), (-100.0, 4.6051702)])
    def test_log_prob_of_zero(self, logit, value):
        assert float(ContinuousBernoulli(logits=torch.tensor(logit)).log_prob(torch.tensor(0.0))) == pytest.approx(
            value, rel=1e-6
        )

    def test_gradient_of_log_prob_of_zero(self):
        logits = torch.tensor(-100.0, requires_grad=True)
        ContinuousBernoulli(logits=logits).log_prob(torch.tensor(0.0)).backward()
        assert float(logits.grad) == pytest.approx(-0.01, rel=1e-6)

    def test_moments_of_an_extreme_logit(self):
        distribution = ContinuousBernoulli(logits=torch.tensor(-100.0))
        assert float(distribution.mean) == pytest.approx(0.01, rel=1e-6)
        assert float(distribution.variance) == pytest.approx(1e-4, rel=1e-6)
        assert float(distribution.entropy()) == pytest.approx(1 - math.log(100), rel=1e-6)

    def test_small_quantile(self):
        quantile = ContinuousBernoulli(logits=torch.tensor(20.0)).icdf(torch.tensor(1e-7))
        u = mpmath.mpf(float(torch.tensor(1e-7)))
        assert float(quantile) == pytest.approx(float(mpmath.log1p(u * mpmath.expm1(20)) / 20), rel=1e-6)
        assert float(quantile) == pytest.approx(0.195, abs=1e-3)

    def test_gradient_of_the_median_at_one_half(self):
        probs = torch.tensor(0.5, requires_grad=True)
        ContinuousBernoulli(probs=probs).icdf(torch.tensor(0.5)).backward()
        assert float(probs.grad) == pytest.approx(0.5, rel=1e-6)

    def test_kl_across_the_range(self):
        p, q = (ContinuousBernoulli(logits=torch.tensor(logit)) for logit in (-500.0, 20.0))
        assert float(kl_divergence(p, q)) == pytest.approx(22.179, abs=1e-3)

    def test_infinite_logits_are_point_masses(self):
        distribution = ContinuousBernoulli(logits=torch.tensor([-torch.inf, torch.inf]))
        assert distribution.log_prob(torch.tensor(0.0)).tolist() == [torch.inf, -torch.inf]
        assert distribution.log_prob(torch.tensor(0.3)).tolist() == [-torch.inf, -torch.inf]
        assert distribution.log_prob(torch.tensor(1.0)).tolist() == [-torch.inf, torch.inf]
        assert distribution.mean.tolist() == [0, 1]
        assert distribution.variance.tolist() == [0, 0]
        assert distribution.entropy().tolist() == [-torch.inf, -torch.inf]
        assert distribution.stddev.tolist() == [0, 0]
        assert distribution.icdf(torch.tensor(0.5)).tolist() == [0, 1]
        assert distribution.cdf(torch.tensor(0.5)).tolist() == [1, 0]
        assert distribution.cdf(torch.tensor(1.0)).tolist() == [1, 1]
        other = ContinuousBernoulli(logits=torch.tensor([-torch.inf, 3.0]))
        assert kl_divergence(distribution, other).tolist() == [0, torch.inf]
        assert kl_divergence(other, distribution).tolist() == [0, torch.inf]

    @pytest.mark.parametrize("probs", [1.5, -0.1, math.nan])
    def test_probs_outside_the_unit_interval(self, probs):
        with pytest.raises(ValueError, match="probs"):
            ContinuousBernoulli(probs=torch.tensor(probs))


@pytest.mark.parametrize("magnitude", [1e-45, 1e-38, 1e-20, 1e10, 1e20, 1e30, 3.4e38])
def test_no_finite_logit_gives_nan(magnitude):
    logits = torch.tensor([-magnitude, magnitude], requires_grad=True)
    distribution = ContinuousBernoulli(logits=logits)
    other = ContinuousBernoulli(logits=torch.tensor(3.0))
    outputs = [
        *(distribution.mean, distribution.variance, distribution.stddev, distribution.entropy()),
        *(kl_divergence(distribution, other), kl_divergence(other, distribution)),
        *(method(torch.tensor(x)) for x in POINTS for method in (distribution.log_prob, distribution.cdf)),
        *(distribution.icdf(torch.tensor(u)) for u in POINTS),
    ]
    for output in outputs:
        first = derivative(output, logits)
        for values in (output, first, derivative(first, logits)):
            assert not values.isnan().any()


def test_density_integrates_to_one():
    x = torch.linspace(0, 1, 200001, dtype=torch.float64)
    for logit in (-30.0, -1.0, 0.0, 1e-6, 0.7, 30.0):
        density = ContinuousBernoulli(logits=torch.tensor(logit, dtype=torch.float64)).log_prob(x).exp()
        assert float(torch.trapezoid(density, x)) == pytest.approx(1, abs=1e-7)


@pytest.mark.draws_globally
@pytest.mark.parametrize("logit", [-200.0, -5.0, -0.01, 0.0, 0.8, 30.0])
def test_samples_follow_the_cdf(logit):
    torch.manual_seed(0)
    distribution = ContinuousBernoulli(logits=torch.tensor(logit, dtype=torch.float64))
    sample = distribution.sample((20000,))
    assert sample.shape == (20000,)
    assert ((sample >= 0) & (sample <= 1)).all()
    assert stats.kstest(sample.numpy(), lambda x: distribution.cdf(torch.from_numpy(x)).numpy()).pvalue > 1e-3
    assert float(sample.mean()) == pytest.approx(float(distribution.mean), abs=5 * float(distribution.stddev) / 141)


def test_icdf_inverts_the_cdf(dtype):
    logits = torch.linspace(-30, 30, 61, dtype=dtype)
    distribution = ContinuousBernoulli(logits=logits)
    u = torch.linspace(0.01, 0.99, 99, dtype=dtype)[:, None]
    assert torch.allclose(distribution.cdf(distribution.icdf(u)), u.expand(99, 61), atol=40 * TOLERANCE[dtype])


def test_uniform_at_one_half():
    distribution, uniform = ContinuousBernoulli(probs=torch.tensor(0.5)), Uniform(0.0, 1.0)
    assert float(distribution.mean) == float(uniform.mean)
    assert float(distribution.variance) == pytest.approx(float(uniform.variance))
    assert float(distribution.entropy()) == 0
    assert float(distribution.mode) == 0.5


@pytest.mark.draws_globally
def test_interface():
    distribution = ContinuousBernoulli(logits=torch.zeros(3, 2))
    assert distribution.batch_shape == (3, 2)
    expanded = distribution.expand((4, 3, 2))
    assert expanded.batch_shape == (4, 3, 2)
    assert expanded.sample((5,)).shape == (5, 4, 3, 2)
    assert ContinuousBernoulli(probs=0.3).expand((2,)).probs.tolist() == pytest.approx([0.3, 0.3])
    assert torch.allclose(ContinuousBernoulli(probs=torch.tensor(0.3)).logits, torch.tensor(0.3).logit())
    independent = Independent(distribution, 1)
    assert independent.log_prob(torch.rand(3, 2)).shape == (3,)
    assert float(kl_divergence(independent, independent).abs().max()) == 0
    scaled = TransformedDistribution(distribution, AffineTransform(0.0, 255.0))
    assert torch.allclose(scaled.log_prob(torch.full((3, 2), 51.0)), -torch.tensor(255.0).log().expand(3, 2))
    assert distribution.rsample().requires_grad is False
    assert "ContinuousBernoulli" in repr(distribution)


def test_wrong_arguments():
    with pytest.raises(ValueError, match="either `probs` or `logits`"):
        ContinuousBernoulli()
    with pytest.raises(ValueError, match="either `probs` or `logits`"):
        ContinuousBernoulli(probs=0.5, logits=0.0)
    distribution = ContinuousBernoulli(logits=torch.tensor(1.0))
    with pytest.raises(ValueError, match="support"):
        distribution.log_prob(torch.tensor(1.5))
    with pytest.raises(ValueError, match="probability"):
        distribution.icdf(torch.tensor(1.5))
    with pytest.raises(ValueError, match="logits"):
        ContinuousBernoulli(logits=torch.tensor(math.nan))


@pytest.mark.draws_globally
def test_gradients_agree_with_finite_differences():
    logits = torch.tensor([-40.0, -2.0, -0.3, 0.0, 0.4, 1.5, 25.0], dtype=torch.float64, requires_grad=True)
    x = torch.full_like(logits, 0.3, requires_grad=True)
    for method in ("log_prob", "cdf", "icdf"):
        assert torch.autograd.gradgradcheck(
            lambda e, v, method=method: getattr(ContinuousBernoulli(logits=e, validate_args=False), method)(v),
            (logits, x),
        )


@pytest.mark.parametrize("method", ["log_prob", "cdf", "icdf"])
def test_function_transforms(method):
    logits, x = torch.tensor([-3.0, 0.0, 0.4, 8.0]), torch.tensor(0.3)

    def evaluate(e):
        return getattr(ContinuousBernoulli(logits=e, validate_args=False), method)(x)

    expected = logits.clone().requires_grad_()
    first = derivative(evaluate(expected), expected)
    assert torch.allclose(torch.func.vmap(evaluate)(logits), evaluate(logits))
    assert torch.allclose(torch.func.vmap(torch.func.grad(evaluate))(logits), first, atol=1e-6)
    second = torch.func.vmap(torch.func.grad(torch.func.grad(evaluate)))(logits)
    assert torch.allclose(second, derivative(first, expected), atol=1e-6)


def test_low_precision_is_computed_in_float32():
    logits = torch.tensor([-3.0, 0.1, 9.0], dtype=torch.bfloat16)
    value = log_prob(logits, torch.tensor([0.1, 0.5, 0.9], dtype=torch.bfloat16))
    assert value.dtype == torch.float32


OTHER = 2.0
FUNCTIONS = {
    "log_prob": lambda e: ContinuousBernoulli(logits=e).log_prob(0.3),
    "cdf": lambda e: ContinuousBernoulli(logits=e).cdf(0.3),
    "icdf": lambda e: ContinuousBernoulli(logits=e).icdf(0.3),
    "entropy": lambda e: ContinuousBernoulli(logits=e).entropy(),
    "mean": lambda e: ContinuousBernoulli(logits=e).mean,
    "variance": lambda e: ContinuousBernoulli(logits=e).variance,
    "stddev": lambda e: ContinuousBernoulli(logits=e).stddev,
    "mean by probs": lambda e: ContinuousBernoulli(probs=0.5 + 0.4 * (e / 9).tanh()).mean,
    "KL from": lambda e: kl_divergence(ContinuousBernoulli(logits=e), ContinuousBernoulli(logits=OTHER)),
    "KL to": lambda e: kl_divergence(ContinuousBernoulli(logits=OTHER), ContinuousBernoulli(logits=e)),
    "log_prob of a point that moves": lambda e: ContinuousBernoulli(logits=e).log_prob((e / 99).sigmoid()),
    "cdf of a point that moves": lambda e: ContinuousBernoulli(logits=e).cdf((e / 99).sigmoid()),
    "icdf of a point that moves": lambda e: ContinuousBernoulli(logits=e).icdf((e / 99).sigmoid()),
    "quantile at given uniform draws": lambda e: ContinuousBernoulli(logits=e).icdf(torch.linspace(0, 1, len(e)).to(e)),
}


@pytest.fixture(params=FUNCTIONS)
def function(request):
    return FUNCTIONS[request.param]


def forward(function):
    """The derivative, element by element, of an elementwise function, in forward mode."""
    return lambda e: jvp(function, (e,), (torch.ones_like(e),))[1]


def reverse(function):
    return grad(lambda e: function(e).sum())


def same(values, expected, scale=1):
    tolerance = scale * TOLERANCE[expected.dtype]
    return torch.allclose(values, expected, rtol=tolerance, atol=tolerance)


# Of torch's own forward mode.
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
class TestForwardMode:
    def test_first_derivative(self, function, logits):
        e = logits.detach()
        assert same(forward(function)(e), reverse(function)(e), scale=2)

    @pytest.mark.parametrize("outer", [forward, reverse])
    @pytest.mark.parametrize("inner", [forward, reverse])
    def test_second_derivative(self, function, outer, inner):
        """Modes may be nested in every order; a second derivative in forward mode alone is the one that gets lost."""
        e = torch.tensor(LOGITS)
        expected = derivative(derivative(function(e.requires_grad_()), e), e)
        assert same(outer(inner(function))(e.detach()), expected, scale=10)

    def test_third_derivative(self, function):
        e = torch.tensor([-40.0, -2.0, -0.3, 0.0, 0.4, 1.5, 25.0], dtype=torch.float64)
        expected = reverse(reverse(reverse(function)))(e)
        assert torch.allclose(forward(forward(forward(function)))(e), expected, rtol=1e-9, atol=1e-9)

    def test_jacobians(self, function):
        e = torch.tensor([-7.0, -0.3, 0.0, 1.5], dtype=torch.float64)
        first, second = reverse(function)(e), reverse(reverse(function))(e)
        assert same(jacfwd(function)(e), first.diag())
        for jacobian in (hessian, lambda f: jacrev(jacfwd(f)), lambda f: jacfwd(jacfwd(f))):
            assert same(jacobian(lambda e: function(e).sum())(e), second.diag(), scale=10)
        assert same(vmap(forward(function))(e[:, None])[:, 0], vmap(reverse(function))(e[:, None])[:, 0])

    def test_dual_numbers(self, function):
        e = torch.tensor([-7.0, -0.3, 0.0, 1.5], dtype=torch.float64, requires_grad=True)
        with forward_ad.dual_level():
            first = forward_ad.unpack_dual(function(forward_ad.make_dual(e, torch.ones_like(e)))).tangent
            second = derivative(first, e)
        assert same(first, reverse(function)(e.detach()))
        assert same(second, reverse(reverse(function))(e.detach()), scale=10)

    @pytest.mark.parametrize("method", ["log_prob", "cdf", "icdf"])
    def test_argument_alone(self, method):
        e = torch.tensor([-7.0, -0.3, 0.0, 1.5], dtype=torch.float64)
        evaluate = getattr(ContinuousBernoulli(logits=e), method)
        x = torch.full_like(e, 0.3)
        assert same(forward(evaluate)(x), reverse(evaluate)(x))
        assert same(forward(forward(evaluate))(x), reverse(reverse(evaluate))(x))

    @pytest.mark.parametrize("magnitude", [1e-45, 1e-38, 1e-20, 500.0, 1e10, 1e20, 1e30, 3.4e38])
    def test_no_finite_logit_gives_nan(self, function, magnitude):
        e = torch.tensor([-magnitude, magnitude])
        for derive in (forward, lambda f: forward(forward(f)), lambda f: forward(reverse(f))):
            assert not derive(function)(e).isnan().any()

    @pytest.mark.parametrize("point", [0.0, 1.0])
    def test_quantile_of_a_bound_where_its_density_is_infinite(self, point):
        e = torch.tensor([-500.0, 500.0])
        assert same(forward(lambda e: ContinuousBernoulli(logits=e).icdf(point))(e), torch.zeros(2))

    @pytest.mark.draws_globally
    def test_rsample(self):
        e = torch.tensor([-7.0, -0.3, 0.0, 1.5], dtype=torch.float64)

        def sample(e, method="rsample"):
            torch.manual_seed(0)
            return getattr(ContinuousBernoulli(logits=e), method)()

        assert same(forward(sample)(e), derivative(sample(e.requires_grad_()), e))
        assert not forward(functools.partial(sample, method="sample"))(e.detach()).any()


class TestVmap:
    logits = torch.tensor([-3.0, 0.0, 0.4, 8.0])

    @pytest.mark.parametrize("method", ["log_prob", "cdf", "icdf"])
    def test_values_are_checked(self, method):
        def evaluate(e, x):
            return getattr(ContinuousBernoulli(logits=e, validate_args=True), method)(x)

        x = torch.tensor([0.0, 0.1, 0.5, 1.0])
        assert same(vmap(evaluate)(self.logits, x), evaluate(self.logits, x))
        assert same(vmap(evaluate, (0, None))(self.logits, x), evaluate(self.logits[:, None], x))
        with pytest.raises((ValueError, RuntimeError)):
            vmap(evaluate)(self.logits, x + 0.1)

    @pytest.mark.draws_globally
    @pytest.mark.parametrize("method", ["sample", "rsample"])
    def test_samples(self, method):
        torch.manual_seed(0)

        def sample(e):
            return getattr(ContinuousBernoulli(logits=e, validate_args=True), method)((1000,))

        e = self.logits[:, None]
        different = vmap(sample, randomness="different")(e)[..., 0]
        assert different.shape == (4, 1000)
        distribution = ContinuousBernoulli(logits=self.logits)
        assert ((different.mean(1) - distribution.mean).abs() < 5 * distribution.stddev / 1000**0.5).all()
        equal = ContinuousBernoulli(logits=e).cdf(vmap(sample, randomness="same")(e)[..., 0])
        assert (equal - equal[0]).abs().max() < 1e-4
        assert (ContinuousBernoulli(logits=e).cdf(different) - equal[0]).abs().max() > 0.1

    def test_divergences(self):
        def divergence(e, f):
            return kl_divergence(ContinuousBernoulli(logits=e), ContinuousBernoulli(probs=f))

        f = torch.tensor([0.1, 0.2, 0.5, 0.9])
        assert same(vmap(divergence)(self.logits, f), divergence(self.logits, f))


TorchContinuousBernoulli = torch.distributions.ContinuousBernoulli
KL_LOGITS = (-500.0, -37.5, -1.0, -0.25, 0.0, 1e-3, 0.75, 2.0, 60.0, 500.0)


def log_density(e):
    shift = -mpmath.log(mpmath.expm1(e) / e) if e else mpmath.mpf(0)
    return lambda x: e * x + shift


def integrated_kl(log_p, log_q, e=0):
    """The integral over [0, 1] for a density p that falls with the rate |e| from one of the ends."""
    steps = [min(mpmath.mpf(k) / max(abs(e), 1), 1) for k in (1, 4, 16, 64)]
    points = [0, *steps, 1] if e <= 0 else [0, *(1 - x for x in reversed(steps)), 1]
    return mpmath.quad(lambda x: mpmath.exp(log_p(x)) * (log_p(x) - log_q(x)), points)


def log_beta_density(a, b):
    return lambda x: (a - 1) * mpmath.log(x) + (b - 1) * mpmath.log1p(-x) - mpmath.log(mpmath.beta(a, b))


def log_normal_density(m, s):
    return lambda x: -(((x - m) / s) ** 2) / 2 - mpmath.log(s * mpmath.sqrt(2 * mpmath.pi))


def log_exponential_density(r):
    return lambda x: mpmath.log(r) - r * x


def log_uniform_density(low, high):
    return lambda x: -mpmath.log(mpmath.mpf(high) - low)


TO = [
    *((Exponential, (rate,), log_exponential_density) for rate in (2.0**-20, 0.5, 40.0, 512.0)),
    *(
        (Normal, parameters, log_normal_density)
        for parameters in ((0.0, 1.0), (0.75, 0.25), (1.0, 2.0**-9), (-8.0, 32.0))
    ),
    *((Uniform, parameters, log_uniform_density) for parameters in ((0.0, 1.0), (-3.0, 1.0), (0.0, 64.0), (-1.0, 2.0))),
]
FROM = [
    *(
        (Uniform, bounds, log_uniform_density)
        for bounds in ((0.0, 1.0), (0.25, 0.5), (1 - 2.0**-10, 1.0), (0.0, 2.0**-20))
    ),
    *((Beta, shape, log_beta_density) for shape in ((1.0, 1.0), (0.5, 1.0), (2.0, 3.0), (96.0, 1.5), (2.0, 768.0))),
]


def positions(pairs):
    return pytest.mark.parametrize(
        ("family", "parameters", "log_other"), pairs, ids=[f"{f.__name__}{p}" for f, p, _ in pairs]
    )


class TestDivergences:
    """KL divergences with other distributions, against numerical integration."""

    @pytest.fixture(autouse=True)
    def _fewer_digits(self):
        with mpmath.workdps(30):
            yield

    @positions(TO)
    def test_to(self, family, parameters, log_other):
        truth = [integrated_kl(log_density(mpmath.mpf(e)), log_other(*parameters), e) for e in KL_LOGITS]
        for dtype in TOLERANCE:
            p = ContinuousBernoulli(logits=torch.tensor(KL_LOGITS, dtype=dtype))
            q = family(*(torch.tensor(value, dtype=dtype) for value in parameters))
            assert_close(kl_divergence(p, q), truth)

    @positions(FROM)
    def test_from(self, family, parameters, log_other):
        log_p = log_other(*parameters)
        low, high = parameters if family is Uniform else (0, 1)

        def truth(e):
            log_q = log_density(mpmath.mpf(e))
            return mpmath.quad(
                lambda x: mpmath.exp(log_p(x)) * (log_p(x) - log_q(x)),
                [low, *(low + (high - low) * mpmath.mpf(k) / 64 for k in (1, 4, 16, 32, 48, 60, 63)), high],
            )

        truths = [truth(e) for e in KL_LOGITS]
        for dtype in TOLERANCE:
            p = family(*(torch.tensor(value, dtype=dtype) for value in parameters))
            q = ContinuousBernoulli(logits=torch.tensor(KL_LOGITS, dtype=dtype))
            assert_close(kl_divergence(p, q), truths)

    @pytest.mark.parametrize("other", [-12.0, -0.5, 0.0, 3.0])
    def test_torchs_own(self, other):
        for dtype in TOLERANCE:
            ours = ContinuousBernoulli(logits=torch.tensor(KL_LOGITS, dtype=dtype))
            theirs = TorchContinuousBernoulli(logits=torch.tensor(other, dtype=dtype))
            by_probs = TorchContinuousBernoulli(probs=torch.tensor(other, dtype=dtype).sigmoid())
            log_p, log_q = [log_density(mpmath.mpf(e)) for e in KL_LOGITS], log_density(mpmath.mpf(other))
            to = [integrated_kl(log, log_q, e) for e, log in zip(KL_LOGITS, log_p, strict=True)]
            back = [integrated_kl(log_q, log, other) for log in log_p]
            assert_close(kl_divergence(ours, theirs), to)
            assert_close(kl_divergence(theirs, ours), back)
            assert_close(kl_divergence(by_probs, ours), back, scale=20)

    @pytest.mark.parametrize(
        "other",
        [
            *(
                Exponential(2.0),
                Gamma(2.0, 3.0),
                Gumbel(0.0, 1.0),
                Laplace(0.0, 1.0),
                Normal(0.5, 0.1),
                Pareto(0.5, 2.0),
            ),
            *(Uniform(-0.1, 0.5), Uniform(0.5, 1.1), Uniform(2.0, 3.0)),
        ],
        ids=repr,
    )
    def test_infinite_from(self, other):
        q = ContinuousBernoulli(logits=torch.tensor([[-3.0], [-torch.inf]]))
        p = other.expand((2,))
        assert kl_divergence(p, q).tolist() == [[torch.inf] * 2] * 2

    @pytest.mark.parametrize(
        "other", [Pareto(0.5, 2.0), Uniform(0.1, 2.0), Uniform(-1.0, 0.9), Uniform(2.0, 3.0)], ids=repr
    )
    def test_infinite_to(self, other):
        p = ContinuousBernoulli(logits=torch.tensor([[-3.0], [-torch.inf]]))
        assert kl_divergence(p, other.expand((2,))).tolist() == [[torch.inf] * 2] * 2

    def test_points(self):
        points = ContinuousBernoulli(logits=torch.tensor([-torch.inf, torch.inf]))
        for other in (
            Exponential(2.0),
            Normal(0.0, 1.0),
            Uniform(0.0, 1.0),
            Pareto(1.0, 1.0),
            TorchContinuousBernoulli(0.3),
        ):
            assert kl_divergence(points, other).tolist() == [torch.inf] * 2
        for other in (Beta(2.0, 3.0), Uniform(0.0, 1.0), TorchContinuousBernoulli(0.3)):
            assert kl_divergence(other, points).tolist() == [torch.inf] * 2

    @pytest.mark.draws_globally
    @pytest.mark.parametrize("logit", [-500.0, -3.0, 0.0, 0.25, 40.0])
    def test_gradients(self, logit):
        """By finite differences in float64, and in float32 what they are in float64."""
        divergences = {
            "exponential": (lambda e, r: kl_divergence(ContinuousBernoulli(logits=e), Exponential(r)), (2.0,)),
            "normal": (lambda e, m, s: kl_divergence(ContinuousBernoulli(logits=e), Normal(m, s)), (0.7, 0.2)),
            "uniform": (lambda e, a, b: kl_divergence(ContinuousBernoulli(logits=e), Uniform(a, b)), (-0.5, 1.5)),
            "torch": (
                lambda e, f: kl_divergence(ContinuousBernoulli(logits=e), TorchContinuousBernoulli(logits=f)),
                (2.0,),
            ),
            "from beta": (lambda e, a, b: kl_divergence(Beta(a, b), ContinuousBernoulli(logits=e)), (2.0, 0.5)),
            "from uniform": (lambda e, a, b: kl_divergence(Uniform(a, b), ContinuousBernoulli(logits=e)), (0.25, 0.5)),
            "from torch": (
                lambda e, f: kl_divergence(TorchContinuousBernoulli(logits=f), ContinuousBernoulli(logits=e)),
                (2.0,),
            ),
        }
        for divergence, parameters in divergences.values():
            wide = torch.tensor([logit, *parameters], dtype=torch.float64, requires_grad=True)
            narrow = wide.detach().float().requires_grad_()
            assert torch.autograd.gradcheck(lambda v, f=divergence: f(*v), wide, eps=1e-5, atol=1e-5)
            assert torch.autograd.gradgradcheck(lambda v, f=divergence: f(*v), wide, eps=1e-5, atol=1e-5)
            first, second = (derivative(divergence(*v), v) for v in (narrow, wide))
            assert torch.allclose(first.double(), second, rtol=5e-6, atol=5e-6)

    @pytest.mark.parametrize("magnitude", [1e-45, 1e-20, 1e10, 1e20, 3.4e38])
    def test_no_finite_logit_gives_nan(self, magnitude):
        logits = torch.tensor([-magnitude, magnitude], requires_grad=True)
        ours = ContinuousBernoulli(logits=logits)
        for other in (
            Exponential(2.0),
            Normal(0.7, 0.2),
            Uniform(0.0, 1.0),
            Uniform(0.2, 0.3),
            TorchContinuousBernoulli(0.3),
        ):
            for p, q in ((ours, other), (other, ours)):
                divergence = kl_divergence(p, q)
                assert not divergence.isnan().any()
                if divergence.requires_grad:
                    first = derivative(divergence, logits)
                    assert not first.isnan().any()
                    assert not derivative(first, logits).isnan().any()

    def test_independent(self):
        p = Independent(ContinuousBernoulli(logits=torch.tensor([[-3.0, 0.0], [1.0, 60.0]])), 1)
        q = Independent(Normal(torch.zeros(2, 2), torch.ones(2, 2)), 1)
        assert torch.equal(kl_divergence(p, q), kl_divergence(p.base_dist, q.base_dist).sum(-1))

    def test_dtypes_and_shapes(self):
        p = ContinuousBernoulli(logits=torch.zeros(3, 1, dtype=torch.float64))
        for other in (
            Exponential(torch.ones(2)),
            Normal(torch.zeros(2), torch.ones(2)),
            Uniform(torch.zeros(2), torch.ones(2)),
        ):
            for divergence in (kl_divergence(p, other), kl_divergence(other, p)):
                assert (divergence.shape, divergence.dtype) == ((3, 2), torch.float64)
        assert kl_divergence(Beta(torch.ones(2), torch.ones(2)), p).dtype == torch.float64
        single = ContinuousBernoulli(logits=torch.zeros(3, 1))
        assert kl_divergence(Beta(torch.ones(2), torch.ones(2)), single).dtype == torch.float32


PARAMETERS = {
    "logits": {"logits": torch.tensor([[-30.0, -0.4, 0.0], [0.3, 2.0, 9.0]])},
    "probs": {"probs": torch.tensor([[0.001, 0.4, 0.5], [0.50001, 0.7, 0.999]])},
    "double": {"logits": torch.tensor([[-500.0, -0.4, 0.0], [1e-9, 2.0, 500.0]], dtype=torch.float64)},
    "number": {"logits": -2.0},
    "whole number": {"probs": 1},
    "empty": {"logits": torch.zeros(0, 3)},
}
SUMMARIES = ("mean", "variance", "stddev", "mode", "probs", "logits")


@pytest.fixture(params=PARAMETERS)
def parameters(request):
    return PARAMETERS[request.param]


class TestContract:
    """What any distribution of torch does."""

    def test_shapes_and_dtypes(self, parameters):
        distribution = ContinuousBernoulli(**parameters)
        parameter = torch.as_tensor(next(iter(parameters.values())))
        dtype = parameter.dtype if parameter.is_floating_point() else torch.float32
        assert distribution.batch_shape == distribution.param_shape == parameter.shape
        assert distribution.event_shape == ()
        for name in SUMMARIES:
            assert (getattr(distribution, name).shape, getattr(distribution, name).dtype) == (parameter.shape, dtype)
        assert (distribution.entropy().shape, distribution.entropy().dtype) == (parameter.shape, dtype)
        x = torch.full((5, *parameter.shape), 0.25, dtype=dtype)
        for method in (distribution.log_prob, distribution.cdf, distribution.icdf):
            assert (method(x).shape, method(x).dtype) == (x.shape, dtype)
            assert torch.equal(method(x)[0], method(torch.tensor(0.25, dtype=dtype)))
            assert method(x.reshape(5, *[1] * parameter.dim(), *parameter.shape)).shape[0] == 5

    @pytest.mark.draws_globally
    def test_samples(self, parameters):
        distribution = ContinuousBernoulli(**parameters)
        for shape in ((), (7,), torch.Size([2, 3]), [4, 1]):
            for draw in (distribution.sample, distribution.rsample):
                sample = draw(shape)
                assert sample.shape == (*shape, *distribution.batch_shape)
                assert sample.dtype == distribution.logits.dtype
                assert distribution.support.check(sample).all()
                assert not distribution.log_prob(sample).isnan().any()

    @pytest.mark.draws_globally
    def test_expand(self, parameters):
        distribution = ContinuousBernoulli(**parameters, validate_args=True)
        assert distribution.logits is distribution.logits
        expanded = distribution.expand((4, *distribution.batch_shape))
        assert type(expanded) is ContinuousBernoulli
        assert expanded.batch_shape == expanded.param_shape == (4, *distribution.batch_shape)
        for name in SUMMARIES:
            assert torch.equal(getattr(expanded, name), getattr(distribution, name).expand(expanded.batch_shape))
        assert expanded.sample((2,)).shape == (2, *expanded.batch_shape)
        assert torch.equal(expanded.log_prob(0.25)[0], distribution.log_prob(0.25))
        with pytest.raises(ValueError, match="support"):
            expanded.log_prob(1.5)

    def test_copies(self, parameters):
        distribution = ContinuousBernoulli(**parameters, validate_args=False)
        text = repr(distribution)
        for other in (pickle.loads(pickle.dumps(distribution)), copy.deepcopy(distribution), copy.copy(distribution)):
            assert repr(other) == text
            assert torch.equal(other.mean, distribution.mean)
            assert torch.equal(other.log_prob(2.0), distribution.log_prob(2.0))

    def test_repr(self):
        assert repr(ContinuousBernoulli(logits=torch.zeros(3, 2))) == "ContinuousBernoulli(logits: torch.Size([3, 2]))"
        assert repr(ContinuousBernoulli(probs=0.25)) == "ContinuousBernoulli(probs: 0.25)"

    def test_parameters_are_computed_once_and_agree(self):
        by_probs = ContinuousBernoulli(probs=torch.tensor([0.1, 0.9]))
        assert "logits" not in vars(by_probs)
        assert by_probs.logits is by_probs.logits
        by_logits = ContinuousBernoulli(logits=by_probs.logits)
        assert "probs" not in vars(by_logits)
        assert torch.allclose(by_logits.probs, by_probs.probs)

    @pytest.mark.parametrize("method", ["log_prob", "cdf", "icdf"])
    @pytest.mark.parametrize("number", [0, 1, 0.3, np.float32(0.3), np.float64(0.3)], ids=repr)
    @pytest.mark.parametrize("validate_args", [False, True])
    def test_numbers(self, method, number, validate_args, logits):
        evaluate = getattr(ContinuousBernoulli(logits=logits, validate_args=validate_args), method)
        assert torch.equal(evaluate(number), evaluate(torch.tensor(float(number), dtype=logits.dtype)))
        assert evaluate(number).dtype == logits.dtype

    @pytest.mark.parametrize("method", ["log_prob", "cdf", "icdf"])
    @pytest.mark.parametrize("value", [1.5, -0.1, math.nan, torch.tensor([0.5, 1.5]), torch.full((3,), 0.5)], ids=repr)
    def test_wrong_values(self, method, value):
        logits = torch.zeros(2)
        with pytest.raises(ValueError, match=r"support|broadcast"):
            getattr(ContinuousBernoulli(logits=logits, validate_args=True), method)(value)
        if np.shape(value) != (3,):
            getattr(ContinuousBernoulli(logits=logits, validate_args=False), method)(value)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    @pytest.mark.draws_globally
    def test_low_precision(self, dtype):
        logits = torch.tensor([-500.0, -3.0, -6e-8, 0.0, 0.1, 20.0, 500.0], dtype=dtype)
        low, exact = ContinuousBernoulli(logits=logits), ContinuousBernoulli(logits=logits.double())
        u = torch.tensor([0.0, 0.01, 0.5, 1.0], dtype=dtype)[:, None]
        for method in ("cdf", "icdf"):
            values = getattr(low, method)(u)
            assert values.dtype == dtype
            assert torch.allclose(values.double(), getattr(exact, method)(u.double()), atol=0.01)
        assert low.sample((100,)).dtype == dtype
        for name in SUMMARIES:
            assert torch.allclose(getattr(low, name).double(), getattr(exact, name), atol=0.01)

    def test_density_is_the_slope_of_the_cdf(self, dtype):
        distribution = ContinuousBernoulli(logits=torch.linspace(-20, 20, 41, dtype=dtype))
        x = torch.linspace(0, 1, 11, dtype=dtype)[:, None].expand(11, 41).clone().requires_grad_()
        density = distribution.log_prob(x).exp()
        assert torch.allclose(derivative(distribution.cdf(x), x), density, rtol=2e-5)
        distribution = ContinuousBernoulli(logits=torch.linspace(-4, 4, 41, dtype=dtype))
        assert torch.allclose(distribution.icdf(distribution.cdf(x)), x, atol=50 * TOLERANCE[dtype])

    @pytest.mark.draws_globally
    @pytest.mark.parametrize("logit", [-60.0, -1.5, 0.0, 0.01, 4.0])
    def test_moments_and_gradients_of_samples(self, logit):
        torch.manual_seed(0)
        n_samples = 100_000
        e = torch.full((n_samples,), logit, dtype=torch.float64, requires_grad=True)
        sample = ContinuousBernoulli(logits=e).rsample()
        distribution = ContinuousBernoulli(logits=e.detach())
        x = sample.detach()

        def assert_mean(values, truth):
            values = values.detach()
            assert abs(values.mean() - truth) < 5 * values.std() / n_samples**0.5 + 1e-12

        assert_mean(x, distribution.mean[0])
        assert_mean((x - distribution.mean[0]) ** 2, distribution.variance[0])
        assert_mean(-distribution.log_prob(x), distribution.entropy()[0])
        # The gradient of E x^3 by the paths of the samples and by the score.
        paths = derivative(sample**3, e)
        score = x**3 * derivative(ContinuousBernoulli(logits=e).log_prob(x), e)
        assert_mean(paths - score, 0)
        x = torch.linspace(0, 1, 100_001, dtype=torch.float64)
        one = e.detach()[0].requires_grad_()
        moment = torch.trapezoid(x**3 * ContinuousBernoulli(logits=one).log_prob(x).exp(), x)
        assert_mean(paths, derivative(moment, one).detach())

    @pytest.mark.draws_globally
    def test_wrappers(self):
        logits = torch.tensor([[-3.0, 0.0], [1.0, 60.0], [7.0, 0.5]])
        distribution = ContinuousBernoulli(logits=logits)
        independent = Independent(distribution, 1)
        x = independent.rsample((4,))
        assert x.shape == (4, 3, 2)
        assert torch.equal(independent.log_prob(x), distribution.log_prob(x).sum(-1))
        assert torch.equal(independent.entropy(), distribution.entropy().sum(-1))
        assert independent.expand((5, 3)).sample().shape == (5, 3, 2)
        scaled = TransformedDistribution(distribution, AffineTransform(-1.0, 4.0))
        y = 4 * x - 1
        assert torch.allclose(scaled.log_prob(y), distribution.log_prob((y + 1) / 4) - math.log(4))
        assert torch.allclose(scaled.cdf(y), distribution.cdf((y + 1) / 4))
        assert torch.allclose(scaled.icdf(torch.tensor(0.3)), 4 * distribution.icdf(0.3) - 1)
        assert scaled.support.check(scaled.sample((10,))).all()

    def test_subclass(self):
        class Pixels(ContinuousBernoulli):
            pass

        expanded = Pixels(logits=torch.zeros(2)).expand((3, 2))
        assert isinstance(expanded, Pixels)
        assert kl_divergence(expanded, Normal(0.5, 1.0)).shape == (3, 2)
        assert kl_divergence(Beta(1.0, 1.0), expanded).abs().max() < 1e-6
