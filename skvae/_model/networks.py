"""Encoders and decoders: fully connected, convolutional, or a module of the user's own.

Every network is called with its input, and in training with the source of its noise as well.
"""

import contextlib
import copy
import math
import os
import threading
from collections.abc import Iterator, Sequence
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from skvae._model import ops
from skvae._model.noise import Noise, draw_seed
from skvae._model.stored import StoredModule

__all__ = ["Conv2d", "ConvEncoder", "DenseNetwork", "Linear", "Network", "UserModule", "make_decoder", "make_encoder"]

_N_FILTERS = 32


class Network(StoredModule):
    """A network of this library, with or without a linear path beside it.

    Weights have no memory until they are drawn or loaded, so that a damaged file cannot make a network take more memory
    than the weights in it.
    """

    # Whether a training step can be recorded as a CUDA graph.
    capturable = True

    # What goes in and comes out for one row, and the most numbers that a layer makes of it.
    n_inputs: int
    n_outputs: int
    width: int

    # A linear map of the input, which is added to the first outputs.
    path: "Linear | None"

    @property
    def last_layer(self) -> "Linear":
        """The layer that the outputs come from."""
        raise NotImplementedError

    @property
    def inner_weights(self) -> list[nn.Parameter]:
        """The weights that make the network more than its linear path."""
        return [weight for name, weight in self.named_parameters() if weight.ndim > 1 and not name.startswith("path")]

    def begin_at(self, weight: Tensor, bias: Tensor) -> None:
        """Begin at a linear map: the path has this weight, the last layer this bias and no weight."""
        path = cast("Linear", self.path)
        with torch.no_grad():
            path.weight.copy_(weight)
            self.last_layer.weight.zero_()
            self.last_layer.bias.copy_(bias)

    def _add_path(self, x: Tensor, outputs: Tensor) -> Tensor:
        """Return the outputs with what the linear path makes of the input."""
        if self.path is None:
            return outputs
        n_missing = self.n_outputs - self.path.out_features
        if n_missing == 0:
            return torch.addmm(outputs, x, self.path.weight.T)
        return outputs + nn.functional.pad(nn.functional.linear(x, self.path.weight), (0, n_missing))

    def allocate(self) -> Self:
        """Give the weights memory on the CPU, with nothing meant in it.

        `to_empty` would do, but it imports sympy: most of a second, and a forked child that waits for the import of
        another thread waits forever.
        """
        for layer in self.modules():
            for name, parameter in layer.named_parameters(recurse=False):
                setattr(layer, name, nn.Parameter(torch.empty(parameter.shape, dtype=parameter.dtype, device="cpu")))
        return self

    def initialize(self, generator: torch.Generator) -> None:
        """Draw Glorot-uniform weights and set the biases to zero, on the CPU."""
        self.allocate()
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
    """A fully connected layer, its weights not yet there."""

    def __init__(self, n_inputs: int, n_outputs: int, *, bias: bool = True) -> None:
        super().__init__(n_inputs, n_outputs, bias, device="meta", dtype=torch.float32)


class Conv2d(_Unset, nn.Conv2d):
    """A 3 x 3 convolution that keeps the image's size, its weights not yet there."""

    def __init__(self, n_channels: int, n_filters: int) -> None:
        super().__init__(n_channels, n_filters, 3, padding=1, device="meta", dtype=torch.float32)


class DenseNetwork(Network):
    """Fully connected hidden layers, each with ReLU and dropout, and a linear layer after them.

    Parameters
    ----------
    n_inputs, n_outputs : int
        Number of columns that go in and come out.
    hidden_layer_sizes : sequence of int
        Width of each hidden layer.
    dropout : float
        Probability with which a hidden unit is zeroed in training.
    n_path : int, default=0
        Number of outputs that the linear path adds to; 0 is no path.
    """

    def __init__(
        self,
        n_inputs: int,
        hidden_layer_sizes: Sequence[int],
        n_outputs: int,
        dropout: float,
        n_path: int = 0,
    ) -> None:
        hidden_layer_sizes = tuple(hidden_layer_sizes)
        super().__init__(
            n_inputs=n_inputs,
            hidden_layer_sizes=hidden_layer_sizes,
            n_outputs=n_outputs,
            dropout=dropout,
            n_path=n_path,
        )
        widths = [n_inputs, *hidden_layer_sizes, n_outputs]
        pairs = zip(widths, widths[1:], strict=False)
        self.layers = nn.ModuleList(Linear(*pair) for pair in pairs)
        self.path = Linear(n_inputs, n_path, bias=False) if n_path else None
        self.n_inputs, self.n_outputs, self.width = n_inputs, n_outputs, max(widths)

    def forward(self, x: Tensor, noise: Noise | None = None) -> Tensor:
        """Return ``(batch, n_outputs)``; with a source of noise with dropout, otherwise without."""
        hidden, last = self._hidden(x, noise), self.last_layer
        return self._add_path(x, nn.functional.linear(hidden, last.weight, last.bias))

    def _hidden(self, x: Tensor, noise: Noise | None) -> Tensor:
        rate = self.config["dropout"]
        h = x
        for layer in cast("list[Linear]", self.layers)[:-1]:
            h = torch.relu_(nn.functional.linear(h, layer.weight, layer.bias))
            if rate and noise is not None:
                h = h * ops.dropout_mask(noise.bits(h.shape), rate)
        return h

    def before_last(self, x: Tensor) -> Tensor:
        """Return what the outputs are a linear function of: the last hidden layer, and the input of the path."""
        hidden = self._hidden(x, None)
        return hidden if self.path is None else torch.cat([hidden, x], dim=1)

    @property
    def last_map(self) -> tuple[Tensor, Tensor]:
        """The weight and the bias that make the outputs of `before_last`, where the path leads to all of them."""
        weight = self.last_layer.weight
        return weight if self.path is None else torch.cat([weight, self.path.weight], dim=1), self.last_layer.bias

    @property
    def last_layer(self) -> Linear:
        """The layer that the outputs come from."""
        return cast("Linear", self.layers[-1])


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
    n_path : int, default=0
        Number of outputs that the linear path, which reads the pixels, adds to; 0 is no path.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        hidden_layer_sizes: Sequence[int],
        n_outputs: int,
        dropout: float,
        n_path: int = 0,
    ) -> None:
        hidden_layer_sizes = tuple(hidden_layer_sizes)
        super().__init__(
            image_shape=image_shape,
            hidden_layer_sizes=hidden_layer_sizes,
            n_outputs=n_outputs,
            dropout=dropout,
            n_path=n_path,
        )
        height, width, channels = image_shape
        self.convolution = Conv2d(channels, _N_FILTERS)
        n_pooled = _N_FILTERS * math.ceil(height / 2) * math.ceil(width / 2)
        self.dense = DenseNetwork(n_pooled, hidden_layer_sizes, n_outputs, dropout)
        self.n_inputs, self.n_outputs = height * width * channels, n_outputs
        self.path = Linear(self.n_inputs, n_path, bias=False) if n_path else None
        self.width = max(_N_FILTERS * height * width, self.dense.width)
        self._windows: Tensor | None = None

    def forward(self, x: Tensor, noise: Noise | None = None) -> Tensor:
        """Return ``(batch, n_outputs)``; with a source of noise with dropout, otherwise without."""
        height, width, _ = self.config["image_shape"]
        windows = self._windows
        if height % 2 == 0 and width % 2 == 0 and (windows is None or windows.device != x.device):
            windows = self._windows = ops.window_index(self.config["image_shape"]).to(x.device)
        weight, bias = self.convolution.parameters()
        pooled = ops.convolve_and_pool(x, weight, bias, self.config["image_shape"], windows)
        return self._add_path(x, self.dense(pooled, noise))

    @property
    def last_layer(self) -> Linear:
        """The layer that the outputs come from."""
        return self.dense.last_layer


_global_generator_lock = threading.RLock()
if hasattr(os, "register_at_fork"):

    def _before_fork() -> None:
        """Wait until no thread uses torch's global generator, whose own lock a child could never open."""
        _global_generator_lock.acquire()

    def _after_fork_in_parent() -> None:
        _global_generator_lock.release()

    def _after_fork_in_child() -> None:
        """Make a new lock, and leave it at one thread: OpenMP's others are gone, and would be waited for forever."""
        global _global_generator_lock
        _global_generator_lock = threading.RLock()
        torch.set_num_threads(1)

    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)


class UserModule(nn.Module):
    """A copy of a module of the user's own, whose random draws come from the model's private generator.

    Layers such as ``torch.nn.Dropout`` draw from torch's global generator. While the module runs, that generator is
    lent a private seed under a lock, and is put back as it was.

    Parameters
    ----------
    module : nn.Module
        Maps ``(batch, n_inputs)`` to ``(batch, n_outputs)``. It is copied, in float32, and never changed.

    Attributes
    ----------
    width : int
        The most numbers that one of its layers made of a row in `measure_width`.
    """

    capturable = False

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = copy.deepcopy(module).to(torch.float32)
        self.width = 0

    def __getstate__(self) -> dict[str, Any]:
        return {"module": copy.deepcopy(self.module).cpu(), "width": self.width}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__init__()
        self.module, self.width = state["module"], state["width"]
        self.eval()

    def __deepcopy__(self, memo: dict[int, Any]) -> "UserModule":
        copied = UserModule.__new__(UserModule)
        memo[id(self)] = copied
        nn.Module.__init__(copied)
        copied.module, copied.width = copy.deepcopy(self.module, memo), self.width
        copied.training = self.training
        return copied

    def forward(self, x: Tensor, noise: Noise | None = None) -> Tensor:
        """Return what the module returns; without a source of noise, what it draws is the same each time."""
        # It gets a copy, since it may write to its input.
        return self.seeded(x.clone(), 0 if noise is None else noise.seed())

    @contextlib.contextmanager
    def measure_width(self) -> Iterator[None]:
        """Note, while it runs in this context, the largest output of any of its layers."""

        def note(layer: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.ndim > 0:
                self.width = max(self.width, output.numel() // max(1, len(output)))

        hooks = [layer.register_forward_hook(note) for layer in self.module.modules()]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def seeded(self, x: Tensor, seed: int) -> Tensor:
        """Return what the module returns when its draws come from a generator with this seed."""
        cuda = x.device.type == "cuda"
        with _global_generator_lock, torch.random.fork_rng([x.device] if cuda else []):
            torch.default_generator.manual_seed(seed)
            if cuda:
                with torch.cuda.device(x.device):
                    torch.cuda.manual_seed(seed)
            return self.module(x)


def _make_user_module(
    name: str, module: nn.Module, n_inputs: int, n_outputs: int, generator: torch.Generator | None
) -> UserModule:
    """Wrap the user's `module` after a trial that its output has the shape the model needs."""
    seed = 0 if generator is None else draw_seed(generator)  # for the weights that lazy layers draw now
    contract = f"{name} must map a float32 tensor of shape (batch, {n_inputs}) to (batch, {n_outputs})"
    try:
        copied = UserModule(module).eval()
    except Exception as error:
        raise ValueError(f"{contract}; to copy it raised {error!r}.") from error
    device = next((p.device for p in copied.parameters()), torch.device("cpu"))
    if device.type == "meta":
        raise ValueError(f"{contract}; its weights are on the device 'meta', which holds no numbers.")
    for batch in (2, 1):
        try:
            with torch.no_grad(), copied.measure_width():
                output = copied.seeded(torch.zeros(batch, n_inputs, device=device, dtype=torch.float32), seed)
        except Exception as error:
            raise ValueError(f"{contract}; on zeros of shape ({batch}, {n_inputs}) it raised {error!r}.") from error
        got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        if got != (batch, n_outputs):
            raise ValueError(f"{contract}; on zeros of shape ({batch}, {n_inputs}) it returned {got}.")
    return copied


def _with_weights(network: Network, generator: torch.Generator | None) -> Network:
    """Return the network with weights from `generator`, or without one with memory for weights to be loaded."""
    if generator is None:
        return network.allocate()
    network.initialize(generator)
    return network


def make_encoder(
    encoder: str | nn.Module,
    n_features: int,
    n_outputs: int,
    *,
    image_shape: tuple[int, int, int] | None,
    hidden_layer_sizes: Sequence[int],
    dropout: float,
    n_path: int,
    generator: torch.Generator | None,
) -> nn.Module:
    """Return the encoder that the parameter `encoder` asks for, with fresh weights unless it is a module.

    Raises
    ------
    ValueError
        When a convolution is asked for without an image, or a module does not have the shape that is needed.
    """
    if isinstance(encoder, nn.Module):
        return _make_user_module("encoder", encoder, n_features, n_outputs, generator)
    is_conv = encoder == "conv" or (encoder == "auto" and image_shape is not None)
    if is_conv and image_shape is None:
        raise ValueError(
            f"encoder='conv' needs images, and {n_features} features are not a square of at least 4 x 4. "
            f"Give image_shape=(height, width) or (height, width, channels), or choose encoder='dense'."
        )
    network: Network = (
        ConvEncoder(image_shape, hidden_layer_sizes, n_outputs, dropout, n_path)
        if is_conv and image_shape is not None
        else DenseNetwork(n_features, hidden_layer_sizes, n_outputs, dropout, n_path)
    )
    return _with_weights(network, generator)


def make_decoder(
    decoder: str | nn.Module,
    n_components: int,
    n_outputs: int,
    *,
    hidden_layer_sizes: Sequence[int],
    dropout: float,
    n_path: int,
    generator: torch.Generator | None,
) -> nn.Module:
    """Return the decoder that the parameter `decoder` asks for; its hidden layers mirror the encoder's.

    Raises
    ------
    ValueError
        When a module does not have the shape that is needed.
    """
    if isinstance(decoder, nn.Module):
        return _make_user_module("decoder", decoder, n_components, n_outputs, generator)
    network = DenseNetwork(n_components, tuple(hidden_layer_sizes)[::-1], n_outputs, dropout, n_path)
    return _with_weights(network, generator)
