"""Encoders and decoders: fully connected, convolutional, or a module of the user's own.

Every network offers `forward`, which is plain, and `vjp`, which trains: it returns the output and a function from the
output's gradient to the gradients of the input and of the parameters (a vector-Jacobian product). Built-in networks
have theirs written by hand: on small networks automatic differentiation costs as much as the matrix products.
"""

import copy
import math
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from skvae._distributed import draw_rows
from skvae._version import __version__

__all__ = [
    "Conv2d",
    "ConvEncoder",
    "DenseNetwork",
    "Linear",
    "Network",
    "Template",
    "make_decoder",
    "make_encoder",
]

# Takes the gradient of the output; returns that of the input, or None where it was not asked for, and a list of the
# gradients of the parameters that are trained (None for one that plays no part).
Pullback = Callable[[Tensor], tuple[Any, list[Tensor | None]]]

_aten = torch.ops.aten

# Each activation, in place, with its derivative in terms of its value.
_ACTIVATIONS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]]] = {
    "relu": (torch.relu_, lambda gradient, value: _aten.threshold_backward.default(gradient, value, 0)),
    "sigmoid": (torch.sigmoid_, lambda gradient, value: _aten.sigmoid_backward.default(gradient, value)),
}

_N_FILTERS = 32

# Entries of the convolution's output that are held at once: small enough for the caches.
_CONVOLUTION_ENTRIES = 1 << 20


class Network(nn.Module):
    """A network that is stored as its configuration and its weights in NumPy arrays.

    Such a state holds nothing of torch and nothing of a device: it loads on a machine without the one it was made on.
    """

    capturable = True

    def __init__(self, **config: Any) -> None:
        super().__init__()
        self.config = config

    def __getstate__(self) -> dict[str, Any]:
        weights = {name: value.cpu().numpy().copy() for name, value in self.state_dict().items()}
        return {"config": self.config, "weights": weights, "version": __version__}

    def __setstate__(self, state: dict[str, Any]) -> None:
        try:
            type(self).__init__(self, **state["config"])
            self.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in state["weights"].items()})
        except Exception as error:  # whatever another version, or damage, has made of it
            raise ValueError(
                f"A {type(self).__name__} that skvae {state.get('version', 'before 0.1.0')} has saved cannot be loaded "
                f"by skvae {__version__}: {error}"
            ) from error
        self.eval()

    def initialize(self, generator: torch.Generator) -> None:
        """Draw Glorot-uniform weights and set the biases to zero."""
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            else:
                nn.init.xavier_uniform_(parameter, generator=generator)


class _Unset:
    """A layer whose weights are drawn or loaded later, and not from torch's global generator on the way."""

    def reset_parameters(self) -> None:
        """Leave the weights as they are."""


class Linear(_Unset, nn.Linear):
    """A fully connected layer, its weights not yet set."""


class Conv2d(_Unset, nn.Conv2d):
    """A convolution, its weights not yet set."""


def _vjp_by_autograd(
    function: Callable[[Tensor], Tensor], x: Tensor, parameters: Sequence[Tensor], wants_input: bool
) -> tuple[Tensor, Pullback]:
    with torch.enable_grad():
        x = x.detach().requires_grad_(wants_input)
        # A copy, since a module may write to what it gets.
        y = function(x.clone())

    def pullback(gradient: Tensor) -> tuple[Any, list[Tensor | None]]:
        sources = [x, *parameters] if wants_input else list(parameters)
        gradients: list[Tensor | None] = [None] * len(sources)
        if sources and y.requires_grad:
            gradients = list(torch.autograd.grad(y, sources, gradient, allow_unused=True))
        if not wants_input:
            return None, gradients
        input_gradient, *gradients = gradients
        return torch.zeros_like(x) if input_gradient is None else input_gradient, gradients

    return y.detach(), pullback


class Dropout:
    """Inverted dropout with one mask: `apply` zeroes the same entries of whatever it is given.

    Sixteen random bits decide on each entry, four entries to a draw, which is several times as fast as a draw for
    each; the rate is rounded to a multiple of 2^-16, and what is left is scaled by what remains.

    Parameters
    ----------
    shape : torch.Size
        Shape of what it will be applied to.
    rate : float
        Probability with which an entry is zeroed.
    generator : torch.Generator
        The source of the bits, on the device of what it will be applied to.
    """

    def __init__(self, shape: torch.Size, rate: float, generator: torch.Generator) -> None:
        n_dropped = min(round(float(rate) * 2**16), 2**16 - 1)

        def draw(shape: torch.Size) -> Tensor:
            draws = torch.empty((shape.numel() + 3) // 4, dtype=torch.int64, device=generator.device)
            draws.random_(-(2**63), None, generator=generator)
            return draws.view(torch.int16)[: shape.numel()].view(shape)

        self._bits = draw_rows(draw, shape, generator).float()
        self._last_dropped = n_dropped - 2**15 - 1
        self._scale = 2**16 / (2**16 - n_dropped)

    def apply(self, x: Tensor) -> Tensor:
        """Return `x` with the dropped entries zeroed and the others scaled."""
        return _aten.threshold_backward.default(x, self._bits, self._last_dropped).mul_(self._scale)


class DenseNetwork(Network):
    """Fully connected hidden layers, each with activation and dropout, and a linear layer after them.

    Parameters
    ----------
    n_inputs, n_outputs : int
        Number of columns that go in and come out.
    hidden_layer_sizes : sequence of int
        Width of each hidden layer.
    activation : {"relu", "sigmoid"}
        Activation of the hidden layers.
    dropout : float
        Probability with which a hidden unit is zeroed in training.
    """

    def __init__(
        self, n_inputs: int, hidden_layer_sizes: Sequence[int], n_outputs: int, activation: str, dropout: float
    ) -> None:
        hidden_layer_sizes = tuple(hidden_layer_sizes)
        super().__init__(
            n_inputs=n_inputs,
            hidden_layer_sizes=hidden_layer_sizes,
            n_outputs=n_outputs,
            activation=activation,
            dropout=dropout,
        )
        widths = [n_inputs, *hidden_layer_sizes, n_outputs]
        self._linears = [
            Linear(*pair, device="cpu", dtype=torch.float32) for pair in zip(widths, widths[1:], strict=False)
        ]
        self.layers = nn.ModuleList(self._linears)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(batch, n_outputs)``, without dropout."""
        activate, _ = _ACTIVATIONS[self.config["activation"]]
        *hidden, last = self._linears
        for layer in hidden:
            x = activate(layer(x))
        return last(x)

    def vjp(self, x: Tensor, generator: torch.Generator, *, wants_input: bool) -> tuple[Tensor, Pullback]:
        """Return ``(batch, n_outputs)``, with dropout drawn from `generator`, and the pullback of its gradient."""
        activate, differentiate = _ACTIVATIONS[self.config["activation"]]
        rate = self.config["dropout"]
        inputs, values, dropouts = [x], [], []
        *hidden, last = self._linears
        for layer in hidden:
            value = activate(torch.addmm(layer.bias, x, layer.weight.t()))
            dropout = Dropout(value.shape, rate, generator) if rate else None
            x = dropout.apply(value) if dropout else value
            inputs.append(x)
            values.append(value)
            dropouts.append(dropout)
        output = torch.addmm(last.bias, x, last.weight.t())

        def pullback(gradient: Tensor) -> tuple[Any, list[Tensor | None]]:
            gradients: list[Tensor | None] = []
            for i in reversed(range(len(self._linears))):
                gradients[:0] = torch.mm(gradient.t(), inputs[i]), gradient.sum(0)
                if i == 0 and not wants_input:
                    return None, gradients
                gradient = torch.mm(gradient, self._linears[i].weight)
                if i > 0:
                    dropout = dropouts[i - 1]
                    gradient = differentiate(dropout.apply(gradient) if dropout else gradient, values[i - 1])
            return gradient, gradients

        return output, pullback


class ConvEncoder(Network):
    """A 3 x 3 convolution of 32 filters that keeps the image's size, 2 x 2 max-pooling, and a dense ReLU network.

    Parameters
    ----------
    image_shape : tuple of int
        (height, width, channels) of a row, flattened in C order. An odd side is pooled with a last window of half
        size, so that no pixel is lost.
    hidden_layer_sizes : sequence of int
        Width of each dense hidden layer.
    n_outputs : int
        Number of columns that come out.
    dropout : float
        Probability with which a dense hidden unit is zeroed in training.
    """

    def __init__(
        self, image_shape: tuple[int, int, int], hidden_layer_sizes: Sequence[int], n_outputs: int, dropout: float
    ) -> None:
        hidden_layer_sizes = tuple(hidden_layer_sizes)
        super().__init__(
            image_shape=image_shape, hidden_layer_sizes=hidden_layer_sizes, n_outputs=n_outputs, dropout=dropout
        )
        height, width, channels = image_shape
        self.convolution = Conv2d(channels, _N_FILTERS, 3, padding=1, device="cpu", dtype=torch.float32)
        n_pooled = _N_FILTERS * math.ceil(height / 2) * math.ceil(width / 2)
        self.dense = DenseNetwork(n_pooled, hidden_layer_sizes, n_outputs, "relu", dropout)
        self._windows = _PoolingWindows(image_shape) if height % 2 == 0 and width % 2 == 0 else None

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(batch, n_outputs)``, without dropout."""
        if self._windows is None or torch.is_grad_enabled():
            return self.dense(self._pooled(x))
        pooled, _ = self._windows.vjp(x, self.convolution)
        return self.dense(pooled)

    def vjp(self, x: Tensor, generator: torch.Generator, *, wants_input: bool) -> tuple[Tensor, Pullback]:
        """Return ``(batch, n_outputs)``, with dropout drawn from `generator`, and the pullback of its gradient.

        There is no gradient of the input, which is data.
        """
        if wants_input:
            raise NotImplementedError("A convolution reads data, of which there is no gradient.")
        if self._windows is None:
            parameters = list(self.convolution.parameters())
            pooled, pull_convolution = _vjp_by_autograd(self._pooled, x, parameters, wants_input=False)
        else:
            pooled, pull_convolution = self._windows.vjp(x, self.convolution)
        output, pull_dense = self.dense.vjp(pooled, generator, wants_input=True)

        def pullback(gradient: Tensor) -> tuple[Any, list[Tensor | None]]:
            pooled_gradient, dense_gradients = pull_dense(gradient)
            _, gradients = pull_convolution(pooled_gradient)
            return None, gradients + dense_gradients

        return output, pullback

    def _pooled(self, x: Tensor) -> Tensor:
        images = x.unflatten(1, self.config["image_shape"]).permute(0, 3, 1, 2)
        return nn.functional.max_pool2d(self.convolution(images), 2, ceil_mode=True).flatten(1)


class _PoolingWindows(nn.Module):
    """A 3 x 3 convolution and 2 x 2 max-pooling as one matrix product over the 4 x 4 patches the windows see.

    The product yields all four positions of a window, a few images at a time, so that the full-size convolution,
    which is four times the size of all that goes in and comes out, stays in the cache and is computed again for the
    gradient. On a CPU that takes less than half of the time of the two layers one after the other.

    Parameters
    ----------
    image_shape : tuple of int
        (height, width, channels), height and width even.
    """

    _index: Tensor

    def __init__(self, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        height, width, channels = image_shape
        self.n_windows = height * width // 4
        # Where each entry of each patch is in a row to which a zero has been appended, for what lies off the image.
        padded = torch.full((height + 2, width + 2, channels), height * width * channels, device="cpu")
        padded[1:-1, 1:-1] = torch.arange(height * width * channels, device="cpu").view(image_shape)
        index = padded.unfold(0, 4, 2).unfold(1, 4, 2).permute(3, 4, 2, 0, 1).flatten()
        self.register_buffer("_index", index, persistent=False)
        self._n_images = max(1, _CONVOLUTION_ENTRIES // (4 * _N_FILTERS * self.n_windows))

    def vjp(self, x: Tensor, convolution: nn.Conv2d) -> tuple[Tensor, Pullback]:
        """Return the pooled convolution, flattened, and the pullback to its parameters; the input has no gradient."""
        patches = nn.functional.pad(x, (0, 1)).index_select(1, self._index).view(len(x), -1, self.n_windows)
        kernels = self._spread(convolution.weight)
        pooled = x.new_empty(len(x), _N_FILTERS * self.n_windows)
        n_images = len(x) if x.is_cuda else min(len(x), self._n_images)
        positions = x.new_empty(n_images, 4 * _N_FILTERS, self.n_windows)
        for block, out in zip(patches.split(n_images), pooled.split(n_images), strict=True):
            p00, p01, p10, p11 = self._convolve(kernels, block, positions)
            torch.maximum(torch.maximum(p00, p01, out=p00), torch.maximum(p10, p11, out=p10), out=out)
        pooled.view(len(x), _N_FILTERS, -1).add_(convolution.get_parameter("bias")[:, None])

        def pullback(gradient: Tensor) -> tuple[Any, list[Tensor | None]]:
            kernel_gradient = torch.zeros_like(kernels)
            routed = torch.empty_like(positions)
            for block, out in zip(patches.split(n_images), gradient.split(n_images), strict=True):
                p00, p01, p10, p11 = self._convolve(kernels, block, positions)
                g00, g01, g10, g11 = routed[: len(block)].flatten(1).chunk(4, dim=1)
                # The first of the largest takes it all: a later one does only where it is larger.
                upper, lower = torch.maximum(p00, p01), torch.maximum(p10, p11)
                _route(out, lower.sub_(upper), g00, g10)
                _route(g00, p01.sub_(p00), g00, g01)
                _route(g10, p11.sub_(p10), g10, g11)
                kernel_gradient += torch.bmm(routed[: len(block)], block.transpose(1, 2)).sum(0)
            return None, [self._gather(kernel_gradient), gradient.view(len(x), _N_FILTERS, -1).sum((0, 2))]

        return pooled, pullback

    @staticmethod
    def _convolve(kernels: Tensor, patches: Tensor, out: Tensor) -> tuple[Tensor, ...]:
        """Return the convolution without its bias at the four positions of each window."""
        out = out[: len(patches)]
        return torch.bmm(kernels.expand(len(patches), -1, -1), patches, out=out).flatten(1).chunk(4, dim=1)

    @staticmethod
    def _spread(weight: Tensor) -> Tensor:
        """Return the kernels as they lie in a patch for each position: ``(4 * n_filters, 16 * channels)``."""
        kernels = weight.new_zeros(2, 2, _N_FILTERS, 4, 4, weight.shape[1])
        for row in (0, 1):
            for column in (0, 1):
                kernels[row, column, :, row : row + 3, column : column + 3] = weight.permute(0, 2, 3, 1)
        return kernels.view(4 * _N_FILTERS, -1)

    @staticmethod
    def _gather(gradient: Tensor) -> Tensor:
        """Return the gradient of the weight from that of the spread kernels."""
        gradient = gradient.view(2, 2, _N_FILTERS, 4, 4, -1)
        parts = [gradient[i, j, :, i : i + 3, j : j + 3] for i in (0, 1) for j in (0, 1)]
        return torch.stack(parts).sum(0).permute(0, 3, 1, 2).contiguous()


def _route(gradient: Tensor, difference: Tensor, first: Tensor, second: Tensor) -> None:
    """Send `gradient` to `second` where `difference` is positive, to `first` elsewhere; `first` may be `gradient`."""
    _aten.threshold_backward.grad_input(gradient, difference, 0, grad_input=second)
    torch.sub(gradient, second, out=first)


_global_generator = threading.RLock()
if hasattr(os, "register_at_fork"):

    def _before_fork() -> None:
        """Wait until no thread uses torch's global generator, whose own lock a child could never open."""
        _global_generator.acquire()

    def _after_fork_in_parent() -> None:
        _global_generator.release()

    def _after_fork_in_child() -> None:
        """Make a new lock, and leave it at one thread: OpenMP's others are gone, and would be waited for forever."""
        global _global_generator
        _global_generator = threading.RLock()
        torch.set_num_threads(1)

    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)


class Template(nn.Module):
    """A copy of a module of the user's own, whose random draws come from the model's private generator.

    Layers such as ``torch.nn.Dropout`` draw from torch's global generator. While the module runs, that generator is
    lent a private seed under a lock, and is put back as it was.

    Parameters
    ----------
    module : nn.Module
        Maps ``(batch, n_inputs)`` to ``(batch, n_outputs)``. It is copied, in float32, and never changed.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = copy.deepcopy(module).to(torch.float32)

    def __getstate__(self) -> dict[str, Any]:
        return {"module": copy.deepcopy(self.module).cpu()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__init__()
        self.module = state["module"]
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Return what the module returns; whatever it draws is the same each time."""
        return self.seeded(x, 0)

    def vjp(self, x: Tensor, generator: torch.Generator, *, wants_input: bool) -> tuple[Tensor, Pullback]:
        """Return what the module returns, its draws seeded by `generator`, and the pullback of its gradient."""
        seed = _draw_seed(generator) + getattr(generator, "start", 0)  # each process draws its own
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return _vjp_by_autograd(lambda x: self.seeded(x, seed), x, trained, wants_input)

    def seeded(self, x: Tensor, seed: int) -> Tensor:
        """Return what the module returns when its draws come from a generator with this seed."""
        cuda = x.device.type == "cuda"
        with _global_generator, torch.random.fork_rng([x.device] if cuda else []):
            torch.default_generator.manual_seed(seed)
            if cuda:
                with torch.cuda.device(x.device):
                    torch.cuda.manual_seed(seed)
            return self.module(x)


def _draw_seed(generator: torch.Generator) -> int:
    return int(torch.randint(2**62, (1,), generator=generator, device=generator.device))


def _make_template(
    name: str, module: nn.Module, n_inputs: int, n_outputs: int, generator: torch.Generator | None
) -> Template:
    """Wrap the user's `module` after a trial that its output has the shape the model needs."""
    seed = 0 if generator is None else _draw_seed(generator)  # for the weights that lazy layers draw now
    contract = f"{name} must map a float32 tensor of shape (batch, {n_inputs}) to (batch, {n_outputs})"
    try:
        template = Template(module).eval()
    except Exception as error:
        raise ValueError(f"{contract}; to copy it raised {error!r}.") from error
    device = next((p.device for p in template.parameters()), torch.device("cpu"))
    if device.type == "meta":
        raise ValueError(f"{contract}; its weights are on the device 'meta', which holds no numbers.")
    for batch in (2, 1):
        try:
            with torch.no_grad():
                output = template.seeded(torch.zeros(batch, n_inputs, device=device, dtype=torch.float32), seed)
        except Exception as error:
            raise ValueError(f"{contract}; on zeros of shape ({batch}, {n_inputs}) it raised {error!r}.") from error
        got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        if got != (batch, n_outputs):
            raise ValueError(f"{contract}; on zeros of shape ({batch}, {n_inputs}) it returned {got}.")
    return template


def make_encoder(
    encoder: str | nn.Module,
    n_features: int,
    n_outputs: int,
    *,
    image_shape: tuple[int, int, int] | None,
    hidden_layer_sizes: Sequence[int],
    dropout: float,
    generator: torch.Generator | None,
) -> nn.Module:
    """Return the encoder that the parameter `encoder` asks for, with fresh weights unless it is a module.

    Raises
    ------
    ValueError
        When a convolution is asked for without an image, or a module does not have the shape that is needed.
    """
    if isinstance(encoder, nn.Module):
        return _make_template("encoder", encoder, n_features, n_outputs, generator)
    if encoder == "conv" or (encoder == "auto" and image_shape is not None):
        if image_shape is None:
            raise ValueError(
                f"encoder='conv' needs images, and {n_features} features are not a square of at least 4 x 4. "
                f"Give image_shape=(height, width) or (height, width, channels), or choose encoder='dense'."
            )
        network: Network = ConvEncoder(image_shape, hidden_layer_sizes, n_outputs, dropout)
    else:
        network = DenseNetwork(n_features, hidden_layer_sizes, n_outputs, "relu", dropout)
    if generator is not None:
        network.initialize(generator)
    return network


def make_decoder(
    decoder: str | nn.Module,
    n_components: int,
    n_outputs: int,
    *,
    hidden_layer_sizes: Sequence[int],
    activation: str,
    dropout: float,
    generator: torch.Generator | None,
) -> nn.Module:
    """Return the decoder that the parameter `decoder` asks for; its hidden layers mirror the encoder's.

    Raises
    ------
    ValueError
        When a module does not have the shape that is needed.
    """
    if isinstance(decoder, nn.Module):
        return _make_template("decoder", decoder, n_components, n_outputs, generator)
    network = DenseNetwork(n_components, tuple(hidden_layer_sizes)[::-1], n_outputs, activation, dropout)
    if generator is not None:
        network.initialize(generator)
    return network
