"""The networks against torch's own layers, and how they are stored."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from skvae._model import ops
from skvae._model.networks import ConvEncoder, DenseNetwork, UserModule, make_decoder, make_encoder
from skvae._model.noise import Noise

CPU = torch.device("cpu")


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
        n_path=0,
        generator=generator(),
    )
    shapes = [tuple(p.shape) for p in encoder.parameters()]
    assert shapes == [(32, 1, 3, 3), (32,), (512, 6272), (512,), (512, 512), (512,), (40, 512), (40,)]
    decoder = make_decoder(
        "dense", 20, 1568, hidden_layer_sizes=(256, 128), dropout=0.0, n_path=0, generator=generator()
    )
    assert [tuple(p.shape) for p in decoder.parameters() if p.ndim == 2] == [(128, 20), (256, 128), (1568, 256)]


def test_dense_network_against_torch():
    network = initialized(DenseNetwork(5, (7, 3), 2, 0.5))
    reference = nn.Sequential(network.layers[0], nn.ReLU(), network.layers[1], nn.ReLU(), network.layers[2])
    x = torch.randn(4, 5, generator=generator())
    assert torch.equal(network(x), reference(x))


NETWORKS = {
    "dense": lambda n_path: DenseNetwork(16, (7,), 6, 0.0, n_path),
    "linear": lambda n_path: DenseNetwork(16, (), 6, 0.0, n_path),
    "conv": lambda n_path: ConvEncoder((4, 4, 1), (7,), 6, 0.0, n_path),
}


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("n_path", [2, 6])
def test_a_linear_path_is_added_to_the_first_outputs(kind, n_path):
    network = initialized(NETWORKS[kind](n_path))
    plain = NETWORKS[kind](0).allocate()
    plain.load_state_dict({name: value for name, value in network.state_dict().items() if name != "path.weight"})
    x = torch.randn(9, 16, generator=generator())
    expected = plain(x)
    expected[:, :n_path] += x @ network.path.weight.T
    torch.testing.assert_close(network(x), expected)
    # What decays is the rest: all weights but those of the path and the biases.
    names = {name for name, p in network.named_parameters() if any(p is weight for weight in network.inner_weights)}
    assert names == {name for name in plain.state_dict() if name.endswith("weight")}


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_network_begins_at_a_linear_map(kind):
    network = initialized(NETWORKS[kind](2))
    weight, bias = torch.randn(2, 16, generator=generator(1)), torch.arange(6.0)
    network.begin_at(weight, bias)
    x = torch.randn(9, 16, generator=generator())
    expected = bias.expand(9, 6).clone()
    expected[:, :2] += x @ weight.T
    torch.testing.assert_close(network(x), expected)


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


def dropout_mask(shape, rate, seed):
    return ops.dropout_mask(Noise(CPU, seed).bits(torch.Size(shape)), rate)


def test_dropout_keeps_the_mean_and_the_draws():
    rate = 0.25
    dropped, again, other = (dropout_mask((1001, 203), rate, seed) for seed in (1, 1, 2))
    assert dropped.unique().tolist() == pytest.approx([0, 1 / (1 - rate)])
    assert float((dropped == 0).float().mean()) == pytest.approx(rate, abs=5 * (rate / 1001 / 203) ** 0.5)
    assert torch.equal(dropped, again)
    assert not torch.equal(dropped, other)


@pytest.mark.parametrize("rate", [1e-9, 0.1, 1 - 1e-9])
def test_dropout_of_any_rate_is_finite_and_unbiased(rate):
    mask = dropout_mask((4000, 500), rate, 0)
    scale = float(mask.max())
    assert float(mask.mean()) == pytest.approx(1, abs=5 * (scale / mask.numel()) ** 0.5)


def dropout_reference(network, x, seed):
    """A network's output with the masks that it draws, in plain layers."""
    noise = Noise(CPU, seed)
    *hidden, last = network.layers
    for layer in hidden:
        x = torch.relu(layer(x))
        x = x * ops.dropout_mask(noise.bits(x.shape), network.config["dropout"])
    return last(x)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("n_path", [0, 1, 2])
@pytest.mark.parametrize("hidden_layer_sizes", [(), (7,), (7, 3)])
def test_dense_gradients_against_plain_layers(hidden_layer_sizes, n_path, dropout):
    network = initialized(DenseNetwork(5, hidden_layer_sizes, 2, dropout, n_path))
    x = torch.randn(11, 5, generator=generator(), requires_grad=True)
    expected = dropout_reference(network, x, seed=1)
    if n_path:
        expected = expected + nn.functional.pad(network.path(x), (0, 2 - n_path))
    weight = torch.randn(11, 2, generator=generator(2))
    references = torch.autograd.grad(expected, [x, *network.parameters()], weight)
    output = network(x, Noise(CPU, 1))
    assert torch.allclose(output, expected, atol=1e-6)
    gradients = torch.autograd.grad(output, [x, *network.parameters()], weight)
    for gradient, reference in zip(gradients, references, strict=True):
        assert torch.allclose(gradient, reference, atol=1e-5)


def test_without_noise_there_is_no_dropout():
    network = initialized(DenseNetwork(5, (7,), 2, 0.5))
    x = torch.randn(11, 5, generator=generator())
    assert torch.equal(network(x), network(x))
    assert not torch.equal(network(x, Noise(CPU, 0)), network(x, Noise(CPU, 1)))


@pytest.mark.draws_globally
def test_gradients_of_a_users_module():
    module = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    module[0].weight.requires_grad_(False)
    copied = UserModule(module)
    x = torch.randn(5, 4, generator=generator(), requires_grad=True)
    weight = torch.randn(5, 3, generator=generator(1))
    trained = [(p, q) for p, q in zip(module.parameters(), copied.parameters(), strict=True) if p.requires_grad]
    references = torch.autograd.grad(module(x), [x, *(p for p, _ in trained)], weight)
    gradients = torch.autograd.grad(copied(x, Noise(CPU, 0)), [x, *(q for _, q in trained)], weight)
    for gradient, reference in zip(gradients, references, strict=True):
        assert torch.allclose(gradient, reference)


def test_initial_weights():
    network = initialized(DenseNetwork(300, (200,), 100, 0.0))
    weight = network.layers[0].weight.detach()
    assert float(weight.abs().max()) == pytest.approx((6 / 500) ** 0.5, rel=1e-3)
    assert float(weight.mean()) == pytest.approx(0, abs=2e-3)
    assert not network.layers[0].bias.any()


@pytest.mark.parametrize(
    "network",
    [DenseNetwork(5, (7,), 2, 0.5), DenseNetwork(5, (7,), 2, 0.5, 1), ConvEncoder((4, 4, 1), (6,), 3, 0.1, 2)],
    ids=["dense", "dense with a path", "conv"],
)
def test_a_stored_network_holds_numpy_arrays_only(network):
    initialized(network)
    state = network.__getstate__()
    assert all(isinstance(value, np.ndarray) for value in state["weights"].values())
    restored = pickle.loads(pickle.dumps(network))
    for name, value in network.state_dict().items():
        assert torch.equal(restored.state_dict()[name], value)
    assert restored.config == network.config


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("training", [True, False])
def test_a_copy_is_what_the_network_is(dtype, training):
    """A pickle is read on the CPU, ready to be used; a copy stays where and what it is."""
    network = initialized(ConvEncoder((4, 4, 1), (6,), 3, 0.1)).to(dtype).train(training)
    copied = copy.deepcopy(network)
    assert {p.dtype for p in copied.parameters()} == {dtype}
    assert copied.training == training
    for name, value in network.state_dict().items():
        assert torch.equal(copied.state_dict()[name], value)
    assert all(p.requires_grad for p in copied.parameters())
    assert not any(p is q for p, q in zip(copied.parameters(), network.parameters(), strict=True))
    loaded = pickle.loads(pickle.dumps(network))
    assert {p.dtype for p in loaded.parameters()} == {dtype}
    assert not loaded.training


@pytest.mark.draws_globally
def test_a_copy_of_a_users_module_is_what_it_is():
    module = UserModule(nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6))).double().eval()
    copied = copy.deepcopy(module)
    assert copied.module[0].weight.dtype == torch.float64
    assert not copied.module[1].training


@pytest.mark.draws_globally
def test_a_users_module_is_a_copy_with_private_draws():
    module = nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.5)).double()
    copied = UserModule(module)
    assert module[0].weight.dtype == torch.float64
    assert copied.module[0].weight.dtype == torch.float32
    x = torch.ones(3, 4)
    state = torch.get_rng_state()
    first, same, other = (copied(x, Noise(CPU, seed)) for seed in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_users_module_may_write_to_its_input():
    x = torch.randn(5, 4, generator=generator(), requires_grad=True)
    before = x.detach().clone()
    (gradient,) = torch.autograd.grad(UserModule(nn.ReLU(inplace=True))(x, Noise(CPU, 0)), x, torch.ones(5, 4))
    assert torch.equal(x, before)
    assert torch.equal(gradient, (x > 0).float())


def test_a_users_module_that_reads_data_gets_data():
    class Detour(nn.Module):
        def forward(self, x):
            return torch.from_numpy(x.numpy() + 1)

    assert torch.equal(UserModule(Detour())(torch.zeros(2, 3), Noise(CPU, 0)), torch.ones(2, 3))
