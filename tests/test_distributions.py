"""The continuous Bernoulli against 50-digit arithmetic."""

import math

import mpmath
import numpy as np
import pytest
import torch
from scipy import stats
from torch.distributions import (
    AffineTransform,
    Independent,
    TransformedDistribution,
    Uniform,
    kl_divergence,
)

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
