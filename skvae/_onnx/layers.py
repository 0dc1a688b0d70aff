"""The parts of a model in a graph: units, networks, and the mean of the continuous Bernoulli."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import onnx
from numpy.typing import ArrayLike, DTypeLike, NDArray
from skl2onnx.common.data_types import FloatTensorType
from torch import Tensor, nn

from skvae import distributions
from skvae._model.networks import ConvEncoder, DenseNetwork, Network, UserModule
from skvae._model.vae import VAE
from skvae._onnx.graph import Graph
from skvae.likelihoods import ContinuousBernoulliLikelihood

__all__ = [
    "add_continuous_bernoulli_mean",
    "add_hidden",
    "add_images",
    "add_layer",
    "add_log1p",
    "add_logits",
    "add_network",
    "add_rows",
    "add_softplus",
    "add_units",
    "array",
]


def add_rows(graph: Graph, variables: Sequence[Any], dtype: DTypeLike) -> str:
    """Write the variables side by side; they are one, or with a DataFrame the columns."""
    to = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    names = [graph.add("Cast", variable.full_name, to=to) for variable in variables]
    return names[0] if len(names) == 1 else graph.add("Concat", *names, axis=1)


def add_units(graph: Graph, model: VAE, variables: Sequence[Any]) -> str:
    """Write the map to the units of the likelihood; what float32 may not hold is mapped in float64."""
    units = model.units
    narrow = units.fit_float32 and all(isinstance(variable.type, FloatTensorType) for variable in variables)
    dtype = np.float32 if narrow else np.float64
    x = add_rows(graph, variables, dtype)
    x = graph.add("Div", graph.add("Sub", x, np.asarray(units.shift, dtype)), dtype(units.scale))
    if dtype == np.float64:
        x = graph.add("Cast", x, to=onnx.TensorProto.FLOAT)
    return graph.add("Clip", x, np.float32(units.low), np.float32(units.high))


def add_network(graph: Graph, role: str, network: nn.Module, x: str, n_inputs: int, n_wanted: int) -> str:
    """Write an encoder or a decoder and return the name of its output's first `n_wanted` columns."""
    path = network.path if isinstance(network, Network) else None
    y = _add_layers(graph, role, network, x, n_inputs, n_wanted)
    if path is None:
        return y
    weight = np.zeros((n_inputs, n_wanted), np.float32)
    weight[:, : path.out_features] = array(path.weight).T[:, :n_wanted]
    return graph.add("Add", y, graph.add("MatMul", x, weight))


def _add_layers(graph: Graph, role: str, network: nn.Module, x: str, n_inputs: int, n_wanted: int) -> str:
    """Write what an encoder or a decoder has but for a linear path."""
    if type(network) is ConvEncoder:
        x = add_images(graph, x, network.config["image_shape"])
        layers: list[nn.Module] = [network.convolution, nn.MaxPool2d(2, ceil_mode=True), nn.Flatten()]
        for layer in layers:
            x = add_layer(graph, layer, x)
        network = network.dense
    if type(network) is DenseNetwork:
        last, x = network.last_layer, add_hidden(graph, network, x)
        return graph.add("Gemm", x, array(last.weight)[:n_wanted], array(last.bias)[:n_wanted], transB=1)
    y = graph.add_module(role, network.module if isinstance(network, UserModule) else network, x, n_inputs)
    return graph.slice(y, 0, n_wanted)


def add_hidden(graph: Graph, network: DenseNetwork, x: str) -> str:
    """Write the hidden layers of a dense network."""
    for layer in cast("list[nn.Linear]", network.layers)[:-1]:
        x = graph.add("Relu", add_layer(graph, layer, x))
    return x


def add_images(graph: Graph, x: str, image_shape: Sequence[int]) -> str:
    """Write rows as images with the channels first; a 0 in a shape keeps the number of rows."""
    return graph.add("Transpose", graph.add("Reshape", x, np.array([0, *image_shape])), perm=[0, 3, 1, 2])


def add_layer(graph: Graph, layer: nn.Module, x: str) -> str:
    """Write a layer of the built-in networks."""
    match layer:
        case nn.Linear():
            return graph.add("Gemm", x, array(layer.weight), array(layer.bias), transB=1)
        case nn.Conv2d(bias=Tensor() as bias):
            return graph.add("Conv", x, array(layer.weight), array(bias), pads=[1, 1, 1, 1])
        case nn.MaxPool2d():
            return graph.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)
        case nn.Flatten():
            return graph.add("Flatten", x)
        case nn.ReLU():
            return graph.add("Relu", x)
        case nn.Identity():
            return x
    raise NotImplementedError(f"There is no converter for the layer {type(layer).__name__}.")


def array(parameter: Tensor) -> NDArray[Any]:
    return parameter.detach().cpu().numpy()


def add_logits(graph: Graph, likelihood: ContinuousBernoulliLikelihood, x: str) -> str:
    """Write the logits of a continuous Bernoulli likelihood, within their bound."""
    bound = np.float32(1 / likelihood.config["min_scale"])
    x = graph.add("Mul", x, np.float32(float(likelihood.get_buffer("gain")) / bound))
    return graph.add("Mul", graph.add("Tanh", x), bound)


def add_continuous_bernoulli_mean(graph: Graph, e: str) -> str:
    """Write the mean for the logits `e`, as `skvae.distributions` computes it: from the likelier end of [0, 1].

    With a = |e| that end is ahead by 1 / a - 1 / (exp(a) - 1), or for a < 1, where this cancels, by a series.
    """
    a, one = graph.add("Abs", e), np.float32(1)
    near, far = graph.add("Min", a, one), graph.add("Max", a, one)
    square = graph.add("Mul", near, near)
    *coefficients, last = map(np.float32, distributions._MEAN_SERIES[: distributions._FLOAT32_TERMS])
    series: ArrayLike = last
    for coefficient in reversed(coefficients):
        series = graph.add("Add", graph.add("Mul", square, series), coefficient)
    series = graph.add("Sub", np.float32(0.5), graph.add("Mul", near, series))
    t = graph.add("Exp", graph.add("Neg", far))
    closed = graph.add("Sub", graph.add("Reciprocal", far), graph.add("Div", t, graph.add("Sub", one, t)))
    lower = graph.add("Where", graph.add("Less", a, one), series, closed)
    return graph.add("Where", graph.add("Less", e, np.float32(0)), lower, graph.add("Sub", one, lower))


def add_softplus(graph: Graph, x: str) -> str:
    """Write log(1 + exp(x)) in float32, with all its digits where it is small."""
    tail = add_log1p(graph, graph.add("Exp", graph.add("Neg", graph.add("Abs", x))), np.float32(1))
    return graph.add("Add", graph.add("Relu", x), tail)


def add_log1p(graph: Graph, x: str, one: np.floating[Any]) -> str:
    """Write log(1 + x) as log(u) x / (u - 1) for the rounded u = 1 + x; where u is 1 or x, that would be no number."""
    u = graph.add("Add", x, one)
    log = graph.add("Log", u)
    y = graph.add("Mul", log, graph.add("Div", x, graph.add("Sub", u, one)))
    y = graph.add("Where", graph.add("Equal", u, x), log, y)
    return graph.add("Where", graph.add("Equal", u, one), x, y)
