"""Encoders and decoders: fully connected, convolutional, or a module of the user's own."""

import copy
import math
import os
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["ConvEncoder", "DenseNetwork", "Template", "make_decoder", "make_encoder"]

_ACTIVATIONS = {"relu": torch.relu, "sigmoid": torch.sigmoid}
_N_FILTERS = 32


class Network(nn.Module):
    """A network that is stored as its configuration and its weights in NumPy arrays.

    Such a state holds nothing of torch and nothing of a device: it loads on a machine without the one it was made on.
    """

    def __init__(self, **config: Any) -> None:
        super().__init__()
        self.config = config

    def __getstate__(self) -> dict[str, Any]:
        weights = {name: value.cpu().numpy().copy() for name, value in self.state_dict().items()}
        return {"config": self.config, "weights": weights}

    def __setstate__(self, state: dict[str, Any]) -> None:
        type(self).__init__(self, **state["config"])
        self.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in state["weights"].items()})
        self.eval()

    def initialize(self, generator: torch.Generator) -> None:
        """Draw Glorot-uniform weights and set the biases to zero."""
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            else:
                nn.init.xavier_uniform_(parameter, generator=generator)


def _linear(n_inputs: int, n_outputs: int) -> nn.Linear:
    return nn.utils.skip_init(nn.Linear, n_inputs, n_outputs, device="cpu", dtype=torch.float32)


def _dropout(x: Tensor, rate: float, generator: torch.Generator) -> Tensor:
    keep = torch.empty_like(x).bernoulli_(1 - rate, generator=generator)
    return x * keep.div_(1 - rate)


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
        self.layers = nn.ModuleList(_linear(*pair) for pair in zip(widths, widths[1:], strict=False))

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return ``(batch, n_outputs)``; dropout draws from `generator` and is off without one."""
        *hidden, last = self.layers
        for layer in hidden:
            x = _ACTIVATIONS[self.config["activation"]](layer(x))
            if generator is not None and self.config["dropout"]:
                x = _dropout(x, self.config["dropout"], generator)
        return last(x)


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
        self, image_shape: Sequence[int], hidden_layer_sizes: Sequence[int], n_outputs: int, dropout: float
    ) -> None:
        image_shape, hidden_layer_sizes = tuple(image_shape), tuple(hidden_layer_sizes)
        super().__init__(
            image_shape=image_shape, hidden_layer_sizes=hidden_layer_sizes, n_outputs=n_outputs, dropout=dropout
        )
        height, width, channels = image_shape
        self.convolution = nn.utils.skip_init(
            nn.Conv2d, channels, _N_FILTERS, 3, padding=1, device="cpu", dtype=torch.float32
        )
        n_pooled = _N_FILTERS * math.ceil(height / 2) * math.ceil(width / 2)
        self.dense = DenseNetwork(n_pooled, hidden_layer_sizes, n_outputs, "relu", dropout)

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return ``(batch, n_outputs)``; dropout draws from `generator` and is off without one."""
        images = x.unflatten(1, self.config["image_shape"]).permute(0, 3, 1, 2)
        pooled = nn.functional.max_pool2d(self.convolution(images), 2, ceil_mode=True)
        return self.dense(pooled.flatten(1), generator)


_global_generator = threading.RLock()
if hasattr(os, "register_at_fork"):

    def _renew_lock() -> None:
        global _global_generator
        _global_generator = threading.RLock()

    os.register_at_fork(after_in_child=_renew_lock)


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

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return what the module returns; its draws are seeded by `generator`, or all alike without one."""
        seed = 0
        if generator is not None:
            seed = int(torch.randint(2**62, (1,), generator=generator, device=generator.device))
        cuda = x.device.type == "cuda"
        with _global_generator, torch.random.fork_rng([x.device] if cuda else []):
            torch.default_generator.manual_seed(seed)
            if cuda:
                with torch.cuda.device(x.device):
                    torch.cuda.manual_seed(seed)
            return self.module(x)


def _make_template(name: str, module: nn.Module, n_inputs: int, n_outputs: int, generator: torch.Generator) -> Template:
    """Wrap the user's `module` after a trial that its output has the shape the model needs."""
    template = Template(module).eval()
    contract = f"{name} must map a float32 tensor of shape (batch, {n_inputs}) to (batch, {n_outputs})"
    device = next((p.device for p in template.parameters()), torch.device("cpu"))
    for batch in (2, 1):
        try:
            with torch.no_grad():
                output = template(torch.zeros(batch, n_inputs, device=device, dtype=torch.float32), generator)
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
    generator: torch.Generator,
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
    generator: torch.Generator,
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
    network.initialize(generator)
    return network
