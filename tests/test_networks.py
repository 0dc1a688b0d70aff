"""The networks against torch's own layers, and how they are stored."""

import pickle

import numpy as np
import pytest
import torch
from torch import nn

from skvae._networks import ConvEncoder, DenseNetwork, Template, make_decoder, make_encoder


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


def test_dropout_keeps_the_mean_and_needs_a_generator():
    network = initialized(DenseNetwork(1, (2000,), 1, "relu", 0.25))
    nn.init.ones_(network.layers[0].weight)
    nn.init.ones_(network.layers[1].weight)
    x = torch.ones(200, 1)
    assert torch.equal(network(x), torch.full((200, 1), 2000.0))
    dropped = network(x, generator()) / 2000
    assert float(dropped.detach().mean()) == pytest.approx(1, abs=0.01)
    assert float(dropped.detach().std()) == pytest.approx((0.25 / 0.75 / 2000) ** 0.5, rel=0.2)
    assert torch.equal(network(x, generator(1)), network(x, generator(1)))
    assert not torch.equal(network(x, generator(1)), network(x, generator(2)))


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
    assert torch.equal(template(x, generator(1)), template(x, generator(1)))
    assert not torch.equal(template(x, generator(1)), template(x, generator(2)))
    assert torch.equal(torch.get_rng_state(), state)
