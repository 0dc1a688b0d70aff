"""The kernels against the plain versions beside them, also where torch lacks what they need."""

import math

import pytest
import torch
from torch import nn

from skvae import distributions
from skvae._model import ops


def randn(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def gradients(output, inputs):
    """Return the gradients of a random combination of the output's entries."""
    outputs = output if isinstance(output, tuple) else (output,)
    weights = [randn(*value.shape, seed=9, dtype=value.dtype) for value in outputs]
    return torch.autograd.grad(outputs, inputs, weights)


def assert_same(results, references, **tolerance):
    assert len(results) == len(references) > 0
    for result, reference in zip(results, references, strict=True):
        torch.testing.assert_close(result, reference, **tolerance)


NETWORK_NORMAL = ops.network_normal_log_prob, ops.plain_network_normal_log_prob

SHAPES = [((9, 3), ()), ((2, 1, 3), (5,)), ((3,), (4, 5)), ((7, 3), (1,))]


@pytest.mark.parametrize("min_scale", [1e-6, 0.4])
@pytest.mark.parametrize("spread", [1.0, 40.0])
def test_network_normal_log_prob(min_scale, spread):
    x, parameters = randn(5, 7), spread * randn(5, 14, seed=1)
    parameters.requires_grad_()
    fast, plain = (f(x, parameters, min_scale) for f in NETWORK_NORMAL)
    torch.testing.assert_close(fast, plain)
    assert_same(gradients(fast, [parameters]), gradients(plain, [parameters]), rtol=1e-4, atol=1e-5)


def test_network_normal_log_prob_of_a_sum_and_over_points():
    """The gradient of a sum is one number for all entries, and importance points come before the features."""
    x, parameters = randn(4, 1, 3), randn(4, 5, 6, seed=1).requires_grad_()
    sums = [f(x, parameters, 0.3).sum() for f in NETWORK_NORMAL]
    assert_same(*(torch.autograd.grad(total, [parameters]) for total in sums), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("x_shape", "batch_shape"), SHAPES)
def test_network_normal_log_prob_broadcasts(x_shape, batch_shape):
    x, parameters = randn(*x_shape), randn(*batch_shape, 6, seed=1).requires_grad_()
    fast, plain = (f(x, parameters, 0.3) for f in NETWORK_NORMAL)
    torch.testing.assert_close(fast, plain)
    assert_same(gradients(fast, [parameters]), gradients(plain, [parameters]), rtol=1e-4, atol=1e-5)


def test_network_normal_log_prob_is_differentiable_in_x():
    x, parameters = randn(5, 7).requires_grad_(), randn(5, 14, seed=1)
    (gradient,) = torch.autograd.grad(ops.network_normal_log_prob(x, parameters, 0.3).sum(), [x])
    location, raw = parameters.chunk(2, dim=1)
    torch.testing.assert_close(gradient, (location - x) / (0.3 + nn.functional.softplus(raw)).square())


NORMAL = ops.normal_log_prob, ops.plain_normal_log_prob


def double(*shape, seed=0):
    return randn(*shape, seed=seed, dtype=torch.float64)


@pytest.mark.parametrize("scale_shape", [(), (3,)])
@pytest.mark.parametrize("batch_shape", [(4,), (4, 5), (1,)])
def test_normal_log_prob_has_the_gradient_of_differences(batch_shape, scale_shape):
    location = double(*batch_shape, 3, seed=1).requires_grad_()
    scale = (0.3 + double(*scale_shape, seed=2).exp()).requires_grad_()
    x = double(*batch_shape, 3) if len(batch_shape) == 1 else double(4, 1, 3)
    for reduce in (lambda density: density, torch.sum):  # the gradient of a sum goes another way
        assert torch.autograd.gradcheck(
            lambda m, s, reduce=reduce: reduce(ops.normal_log_prob(x, m, s)), [location, scale]
        )


@pytest.mark.parametrize("scale_shape", [(), (3,)])
@pytest.mark.parametrize(("x_shape", "batch_shape"), [*SHAPES, ((4, 3), (4,)), ((4, 1, 3), (4, 5))])
def test_normal_log_prob(x_shape, batch_shape, scale_shape):
    x = double(*x_shape)
    inputs = [double(*batch_shape, 3, seed=1).requires_grad_(), double(*scale_shape, seed=2).exp().requires_grad_()]
    fast, plain = (f(x, *inputs) for f in NORMAL)
    torch.testing.assert_close(fast, plain)
    torch.testing.assert_close(fast, torch.distributions.Normal(*inputs).log_prob(x))
    assert_same(gradients(fast, inputs), gradients(plain, inputs))
    assert_same(*(torch.autograd.grad(f(x, *inputs).sum(), inputs) for f in NORMAL))


def test_normal_log_prob_is_differentiable_in_x():
    x, location, scale = double(5, 7).requires_grad_(), double(5, 7, seed=1), double(7, seed=2).exp()
    (gradient,) = torch.autograd.grad(ops.normal_log_prob(x, location, scale).sum(), [x])
    torch.testing.assert_close(gradient, (location - x) / scale.square())


@pytest.mark.parametrize("posterior_scale", ["log_variance", "softplus"])
def test_draw(posterior_scale):
    encoded, points = 2 * randn(5, 6), randn(5, 3, seed=1)
    encoded.requires_grad_()
    fast, plain = (f(encoded, points, posterior_scale) for f in (ops.draw, ops.plain_draw))
    assert_same(fast, plain)
    assert_same(gradients(fast, [encoded]), gradients(plain, [encoded]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("image_shape", [(28, 28, 1), (4, 6, 3), (2, 2, 1), (64, 64, 2), (5, 7, 1)])
def test_convolve_and_pool(image_shape):
    """Ties included: constant areas make many, and only one of the tied positions may get the gradient."""
    height, width, channels = image_shape
    images = randn(9, height, width, channels, dtype=torch.float64)
    images[:, : height // 2] = 0.7
    images[0] = 0.0
    x = images.flatten(1)
    weight = randn(32, channels, 3, 3, seed=1, dtype=torch.float64).requires_grad_()
    bias = randn(32, seed=2, dtype=torch.float64).requires_grad_()
    index = ops.window_index(image_shape) if height % 2 == width % 2 == 0 else None
    fast = ops.convolve_and_pool(x, weight, bias, image_shape, index)
    plain = ops.plain_convolve_and_pool(x, weight, bias, image_shape)
    torch.testing.assert_close(fast, plain, rtol=1e-12, atol=1e-12)
    assert_same(gradients(fast, [weight, bias]), gradients(plain, [weight, bias]), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(("gain", "bound"), [(1.0, 64.0), (12.0, 64.0), (1.0, 1e4), (0.5, 2.0)])
def test_bounded_log_prob_has_the_values_and_slopes_of_the_distribution(gain, bound):
    """For logits of any size, and with the mean at either end of [0, 1]."""
    raw = randn(60, 50) * 10 ** randn(60, 50, seed=1)
    raw[0] = 0
    x = torch.rand(60, 50, generator=torch.Generator().manual_seed(2)).round(decimals=1)
    raw.requires_grad_()
    fast, plain = (f(x, raw, torch.tensor(gain), bound) for f in (ops.bounded_log_prob, ops.plain_bounded_log_prob))
    torch.testing.assert_close(fast, plain, rtol=2e-6, atol=2e-6)
    exact_raw = raw.detach().double().requires_grad_()
    exact = distributions.log_prob(bound * torch.tanh(gain / bound * exact_raw), x.double())
    torch.testing.assert_close(fast.double(), exact, rtol=2e-6, atol=2e-6)
    (expected,) = torch.autograd.grad(exact.sum(), [exact_raw])
    for weight in (torch.ones(()).expand(60, 50), randn(60, 50, seed=3)):  # the gradient of a sum goes another way
        (slopes,) = torch.autograd.grad([fast], [raw], [weight], retain_graph=True)
        torch.testing.assert_close(slopes.double(), weight * expected, rtol=2e-6, atol=2e-6 * gain)


@pytest.mark.parametrize(("x_shape", "batch_shape"), SHAPES)
def test_bounded_log_prob_broadcasts(x_shape, batch_shape):
    x, raw = randn(*x_shape).sigmoid(), randn(*batch_shape, 3, seed=1).requires_grad_()
    fast, plain = (f(x, raw, torch.tensor(2.0), 8.0) for f in (ops.bounded_log_prob, ops.plain_bounded_log_prob))
    torch.testing.assert_close(fast, plain)
    assert_same(gradients(fast, [raw]), gradients(plain, [raw]), rtol=1e-4, atol=1e-5)


def test_convolve_and_pool_is_differentiable_in_the_image():
    x, weight, bias = randn(3, 16).requires_grad_(), randn(32, 1, 3, 3, seed=1), randn(32, seed=2)
    pooled = ops.convolve_and_pool(x, weight, bias, (4, 4, 1), ops.window_index((4, 4, 1)))
    plain = ops.plain_convolve_and_pool(x, weight, bias, (4, 4, 1))
    assert_same(gradients(pooled, [x]), gradients(plain, [x]))


KERNELS = {
    "network_normal_log_prob": lambda p: ops.network_normal_log_prob(randn(5, 7), p, 0.3),
    "normal_log_prob": lambda p: ops.normal_log_prob(randn(5, 14), p, torch.tensor(0.3)),
    "bounded_log_prob": lambda p: ops.bounded_log_prob(randn(5, 14).sigmoid(), p, torch.tensor(12.0), 64.0),
    "draw": lambda p: ops.draw(p, randn(5, 7), "softplus")[0],
}


@pytest.mark.parametrize("name", KERNELS)
def test_no_second_derivative_is_an_error_and_not_a_wrong_number(name):
    parameters = randn(5, 14, seed=1).requires_grad_()
    (gradient,) = torch.autograd.grad(KERNELS[name](parameters).sum(), [parameters], create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice|does not require grad"):
        torch.autograd.grad(gradient.sum(), [parameters])


def adam_steps(function, n_steps, weight_decay=0.0):
    """Return parameters, moments and step counts after some steps of `function` along drawn gradients."""
    parameters = [randn(4, 3), randn(5)]
    means, squares = ([torch.zeros_like(p) for p in parameters] for _ in range(2))
    counts = [torch.zeros(()) for _ in parameters]
    for step in range(n_steps):
        drawn = [randn(*p.shape, seed=step + 1) for p in parameters]
        function(parameters, drawn, means, squares, counts, torch.tensor(0.01), weight_decay)
    return [*parameters, *means, *squares, *counts]


@pytest.mark.parametrize("weight_decay", [0.0, 3.0])
def test_adam(weight_decay):
    results = adam_steps(ops.adam_, 7, weight_decay)
    assert_same(results, adam_steps(ops.plain_adam_, 7, weight_decay))
    reference = [nn.Parameter(randn(4, 3)), nn.Parameter(randn(5))]
    optimizer = torch.optim.AdamW(reference, lr=0.01, weight_decay=weight_decay)
    for step in range(7):
        for p in reference:
            p.grad = randn(*p.shape, seed=step + 1)
        optimizer.step()
    assert_same(results[:2], [p.detach() for p in reference])


def test_a_learning_rate_that_changes_is_seen():
    rate = torch.tensor(0.0)
    parameters = [randn(3)]
    state = [[torch.zeros(3)], [torch.zeros(3)], [torch.zeros(())]]
    before = parameters[0].clone()
    ops.adam_(parameters, [torch.ones(3)], *state, rate, 0.0)
    assert torch.equal(parameters[0], before)
    rate.fill_(0.5)
    ops.adam_(parameters, [torch.ones(3)], *state, rate, 0.0)
    torch.testing.assert_close(parameters[0], before - 0.5)


def test_gradients_of_weighted_sums():
    a, b, idle = (torch.ones(2, requires_grad=True) for _ in range(3))
    outputs = [a.square().sum(), (a * b).sum(), torch.tensor(3.0)]
    by_a, by_b, by_idle = ops.gradients(outputs, torch.tensor([2.0, -1.0, 5.0]).unbind(), [a, b, idle])
    assert by_a.tolist() == [3, 3]
    assert by_b.tolist() == [-1, -1]
    assert by_idle is None
    assert ops.gradients([torch.tensor(3.0)], [torch.tensor(1.0)], [a]) == [None]


def test_a_torch_without_private_calls_gives_the_same(monkeypatch):
    parameters = randn(5, 14, seed=1).requires_grad_()
    bits = torch.randint(-(2**15), 2**15, (40, 50), generator=torch.Generator().manual_seed(0)).short()
    image = randn(3, 16), randn(32, 1, 3, 3, seed=1), randn(32, seed=2), (4, 4, 1), ops.window_index((4, 4, 1))

    def everything():
        density = ops.network_normal_log_prob(randn(5, 7), parameters, 0.3)
        return [
            density.detach(),
            *ops.gradients([density.sum()], [torch.tensor(2.0)], [parameters]),
            ops.dropout_mask(bits, 0.3),
            ops.convolve_and_pool(*image),
            *adam_steps(ops.adam_, 3),
        ]

    with_them = everything()
    private = [name for name in vars(ops) if name.startswith("_private_")]
    assert len(private) == 7
    for name in private:
        assert getattr(ops, name) is not None
        monkeypatch.setattr(ops, name, None)
    assert_same(everything(), with_them)


def test_the_constant_of_the_normal_density():
    for density in (
        ops.network_normal_log_prob(torch.zeros(1), torch.tensor([0.0, math.log(math.e - 1)]), 0.0),
        ops.normal_log_prob(torch.zeros(1), torch.zeros(1), torch.ones(())),
    ):
        assert float(density) == pytest.approx(-0.5 * math.log(2 * math.pi))
