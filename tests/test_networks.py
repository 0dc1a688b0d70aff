"""The networks against torch's own layers, and how they are stored."""

import pickle

import numpy as np
import pytest
import torch
from torch import nn

from skvae._networks import ConvEncoder, DenseNetwork, Dropout, Template, make_decoder, make_encoder


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def initialized(network):
    network.initialize(generator())
    return network


def test_default_architectures():
    """The layer sizes of the study: 20 components, images of 28 x 28."""
    encoder = make_encoder(
        "auto",
        784,
        40,
        image_shape=(28, 28, 1),
        hidden_layer_sizes=(512, 512),
        dropout=0.1,
        generator=generator(),
    )
    shapes = [tuple(p.shape) for p in encoder.parameters()]
    assert shapes == [(32, 1, 3, 3), (32,), (512, 6272), (512,), (512, 512), (512,), (40, 512), (40,)]
    decoder = make_decoder(
        "dense", 20, 1568, hidden_layer_sizes=(256, 128), activation="sigmoid", dropout=0.0, generator=generator()
    )
    assert [tuple(p.shape) for p in decoder.parameters() if p.ndim == 2] == [(128, 20), (256, 128), (1568, 256)]


def test_dense_network_against_torch():
    network = initialized(DenseNetwork(5, (7, 3), 2, "sigmoid", 0.5))
    reference = nn.Sequential(network.layers[0], nn.Sigmoid(), network.layers[1], nn.Sigmoid(), network.layers[2])
    x = torch.randn(4, 5, generator=generator())
    assert torch.equal(network(x), reference(x))


@pytest.mark.parametrize("image_shape", [(28, 28, 1), (5, 7, 1), (4, 6, 3), (1, 9, 1)])
def test_convolution_reads_images_in_c_order(image_shape):
    height, width, channels = image_shape
    network = initialized(ConvEncoder(image_shape, (), 3, 0.0))
    images = torch.randn(2, height, width, channels, generator=generator())
    maps = nn.functional.conv2d(images.movedim(-1, 1), network.convolution.weight, network.convolution.bias, padding=1)
    assert maps.shape == (2, 32, height, width)
    pooled = nn.functional.max_pool2d(maps, 2, ceil_mode=True)
    assert torch.allclose(network(images.flatten(1)), network.dense(pooled.flatten(1)), atol=1e-6)


def test_no_pixel_is_lost_to_pooling():
    network = initialized(ConvEncoder((5, 5, 1), (), 3, 0.0))
    x = torch.randn(1, 25, generator=generator(), requires_grad=True)
    network(x).sum().backward()
    assert (x.grad != 0).all()


def test_dropout_keeps_the_mean_and_the_draws():
    rate = 0.25
    dropped = Dropout(torch.Size((1001, 203)), rate, generator(1)).apply(torch.ones(1001, 203))
    assert dropped.unique().tolist() == pytest.approx([0, 1 / (1 - rate)])
    assert float((dropped == 0).float().mean()) == pytest.approx(rate, abs=5 * (rate / 1001 / 203) ** 0.5)
    again, other = (Dropout(torch.Size((1001, 203)), rate, generator(s)).apply(torch.ones(1001, 203)) for s in (1, 2))
    assert torch.equal(dropped, again)
    assert not torch.equal(dropped, other)


@pytest.mark.parametrize("rate", [1e-9, 0.1, 1 - 1e-9])
def test_dropout_of_any_rate_is_finite_and_unbiased(rate):
    mask = Dropout(torch.Size((4000, 500)), rate, generator()).apply(torch.ones(4000, 500))
    scale = float(mask.max())
    assert float(mask.mean()) == pytest.approx(1, abs=5 * (scale / mask.numel()) ** 0.5)


def dropout_reference(network, x, seed):
    """A network's output with the masks that `vjp` draws, in plain layers."""
    draws = generator(seed)
    *hidden, last = network.layers
    activation = getattr(torch, network.config["activation"])
    for layer in hidden:
        x = activation(layer(x))
        x = x * Dropout(x.shape, network.config["dropout"], draws).apply(torch.ones_like(x))
    return last(x)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
@pytest.mark.parametrize("hidden_layer_sizes", [(), (7,), (7, 3)])
def test_dense_gradients_against_automatic_differentiation(hidden_layer_sizes, activation, dropout):
    network = initialized(DenseNetwork(5, hidden_layer_sizes, 2, activation, dropout))
    x = torch.randn(11, 5, generator=generator(), requires_grad=True)
    expected = dropout_reference(network, x, seed=1)
    weight = torch.randn(11, 2, generator=generator(2))
    references = torch.autograd.grad(expected, [x, *network.parameters()], weight)
    with torch.no_grad():
        output, pullback = network.vjp(x, generator(1), wants_input=True)
        input_gradient, gradients = pullback(weight)
        nothing, same_gradients = network.vjp(x, generator(1), wants_input=False)[1](weight)
    assert nothing is None
    assert torch.allclose(output, expected, atol=1e-6)
    for gradient, reference in zip([input_gradient, *gradients], references, strict=True):
        assert torch.allclose(gradient, reference, atol=1e-5)
    assert all(torch.equal(*pair) for pair in zip(gradients, same_gradients, strict=True))


@pytest.mark.parametrize("image_shape", [(28, 28, 1), (4, 6, 3), (2, 2, 1), (64, 64, 2), (5, 7, 1)])
def test_convolution_and_its_gradient_against_torch(image_shape):
    """Ties included: constant areas make many, and only one of the tied positions may get the gradient."""
    network = initialized(ConvEncoder(image_shape, (6,), 3, 0.0)).double()
    height, width, channels = image_shape
    images = torch.randn(9, height, width, channels, generator=generator(), dtype=torch.float64)
    images[:, : height // 2] = 0.7
    images[0] = 0.0
    x = images.flatten(1)
    maps = network.convolution(images.movedim(-1, 1))
    expected = network.dense(nn.functional.max_pool2d(maps, 2, ceil_mode=True).flatten(1))
    weight = torch.randn(9, 3, generator=generator(2), dtype=torch.float64)
    references = torch.autograd.grad(expected, list(network.parameters()), weight)
    with torch.no_grad():
        output, pullback = network.vjp(x, generator(1), wants_input=False)
        _, gradients = pullback(weight)
        assert torch.allclose(network(x), expected, rtol=1e-12, atol=1e-12)
    assert torch.allclose(output, expected, rtol=1e-12, atol=1e-12)
    for gradient, reference in zip(gradients, references, strict=True):
        assert torch.allclose(gradient, reference, rtol=1e-9, atol=1e-11)


@pytest.mark.draws_globally
def test_template_gradients():
    module = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    module[0].weight.requires_grad_(False)
    template = Template(module)
    x = torch.randn(5, 4, generator=generator(), requires_grad=True)
    trained = [p for p in template.parameters() if p.requires_grad]
    weight = torch.randn(5, 3, generator=generator(1))
    references = torch.autograd.grad(template(x), [x, *trained], weight)
    with torch.no_grad():
        _, pullback = template.vjp(x, generator(), wants_input=True)
        input_gradient, gradients = pullback(weight)
    for gradient, reference in zip([input_gradient, *gradients], references, strict=True):
        assert torch.allclose(gradient, reference)


def test_template_whose_output_ignores_its_input():
    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.idle = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(1))

        def forward(self, x):
            return self.used.expand(len(x), 2)

    output, pullback = Template(Constant()).vjp(torch.zeros(3, 4), generator(), wants_input=True)
    input_gradient, (used, idle) = pullback(torch.ones_like(output))
    assert torch.equal(input_gradient, torch.zeros(3, 4))
    assert torch.equal(used, torch.full((2,), 3.0))
    assert idle is None


def test_initial_weights():
    network = initialized(DenseNetwork(300, (200,), 100, "relu", 0.0))
    weight = network.layers[0].weight.detach()
    assert float(weight.abs().max()) == pytest.approx((6 / 500) ** 0.5, rel=1e-3)
    assert float(weight.mean()) == pytest.approx(0, abs=2e-3)
    assert not network.layers[0].bias.any()


@pytest.mark.parametrize(
    "network", [DenseNetwork(5, (7,), 2, "relu", 0.5), ConvEncoder((4, 4, 1), (6,), 3, 0.1)], ids=["dense", "conv"]
)
def test_a_stored_network_holds_numpy_arrays_only(network):
    initialized(network)
    state = network.__getstate__()
    assert all(isinstance(value, np.ndarray) for value in state["weights"].values())
    restored = pickle.loads(pickle.dumps(network))
    for name, value in network.state_dict().items():
        assert torch.equal(restored.state_dict()[name], value)
    assert restored.config == network.config


@pytest.mark.draws_globally
def test_template_is_a_copy_with_private_draws():
    module = nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.5)).double()
    template = Template(module)
    assert module[0].weight.dtype == torch.float64
    assert template.module[0].weight.dtype == torch.float32
    x = torch.ones(3, 4)
    state = torch.get_rng_state()
    first, same, other = (template.vjp(x, generator(seed), wants_input=False)[0] for seed in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_template_may_write_to_its_input():
    x = torch.randn(5, 4, generator=generator())
    before = x.clone()
    template = Template(nn.ReLU(inplace=True))
    _, pullback = template.vjp(x, generator(), wants_input=True)
    input_gradient, _ = pullback(torch.ones(5, 4))
    assert torch.equal(x, before)
    assert torch.equal(input_gradient, (x > 0).float())


def test_a_template_that_reads_data_gets_data():
    class Detour(nn.Module):
        def forward(self, x):
            return torch.from_numpy(x.numpy() + 1)

    output, _ = Template(Detour()).vjp(torch.zeros(2, 3), generator(), wants_input=False)
    assert torch.equal(output, torch.ones(2, 3))
