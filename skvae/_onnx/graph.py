"""A graph that skl2onnx is building, and what torch's exporter makes of modules of a user's own."""

import contextlib
import copy
import logging
import threading
import warnings
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import onnx
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from skvae.likelihoods import Likelihood

__all__ = ["Graph", "LogProb", "Mean", "add_prefix", "one_at_a_time"]

# Operators that draw random numbers; dropout that is still there in evaluation mode is one.
_RANDOM = ("Random", "Bernoulli", "Multinomial", "Dropout")

# The oldest operators that the converters write.
_OLDEST_OPSET = 11

# One graph is made at a time: torch exports one module at a time, and meanwhile it and skl2onnx both change the filters
# of warnings, which all threads share.
one_at_a_time = threading.RLock()


class Graph:
    """The graph that skl2onnx is building, written node by node.

    Parameters
    ----------
    scope : skl2onnx.common._topology.Scope
        The source of unique names.
    container : skl2onnx.common._container.ModelComponentContainer
        What holds nodes and constants.
    """

    def __init__(self, scope: Any, container: Any) -> None:
        self.scope, self.container = scope, container
        self.opset = container.target_opset_any_domain("")
        if self.opset < _OLDEST_OPSET:
            raise ValueError(f"target_opset={self.opset} is too old: skvae writes version {_OLDEST_OPSET} or newer.")

    def add(self, op_type: str, *inputs: ArrayLike, **attributes: Any) -> str:
        """Add a node, whose inputs are names of what is there or arrays, and return the name of its output."""
        names = [value if isinstance(value, str) else self.constant(value) for value in inputs]
        output = self.scope.get_unique_variable_name(op_type.lower())
        name = self.scope.get_unique_operator_name(op_type)
        self.container.add_node(op_type, names, output, name=name, **attributes)
        return output

    def reduce(self, op_type: str, x: str, axis: int, *, keepdims: bool = False) -> str:
        """Add a node that reduces an axis, which newer operators take as an input."""
        if self.opset >= (13 if op_type == "ReduceSum" else 18):
            return self.add(op_type, x, np.array([axis]), keepdims=int(keepdims))
        return self.add(op_type, x, axes=[axis], keepdims=int(keepdims))

    def slice(self, x: str, first: int, stop: int) -> str:
        """Add a node that takes a part of the second axis."""
        return self.add("Slice", x, np.array([first]), np.array([stop]), np.array([1]))

    def constant(self, value: ArrayLike) -> str:
        """Add an array and return its name."""
        name = self.scope.get_unique_variable_name("constant")
        self.container.initializers.append(onnx.numpy_helper.from_array(np.asarray(value), name))
        return name

    def finish(self, name: str, variable: Any) -> None:
        """Make what has this name a variable of skl2onnx."""
        self.container.add_node("Identity", name, variable.full_name, name=self.scope.get_unique_operator_name("Out"))

    def add_module(self, role: str, module: nn.Module, x: str, n_inputs: int) -> str:
        """Add what torch makes of `module`, applied to `x`, and return the name of its output in float32."""
        model = _export(role, module, n_inputs, self.opset)
        graph, prefix = model.graph, f"{self.scope.get_unique_operator_name(role)}_"
        add_prefix(graph, prefix)
        source = onnx.helper.make_node("Identity", [x], [graph.input[0].name], name=f"{prefix}input")
        graph.node.insert(0, source)
        del graph.input[:]
        (output,) = graph.output
        graph.node.append(
            onnx.helper.make_node(
                "Cast", [output.name], [f"{prefix}output"], to=onnx.TensorProto.FLOAT, name=f"{prefix}output"
            )
        )
        output.name, output.type.tensor_type.elem_type = f"{prefix}output", onnx.TensorProto.FLOAT
        # skl2onnx cannot sort nodes that leave out an input, but does not look into the branches of a choice. Of this
        # one it sees the condition alone, which is always true, and has to come after x.
        other = onnx.helper.make_graph(
            [onnx.helper.make_node("Identity", [x], [f"{prefix}other"], name=f"{prefix}other")],
            f"{prefix}other",
            [],
            [onnx.helper.make_tensor_value_info(f"{prefix}other", onnx.TensorProto.FLOAT, None)],
        )
        self.container.node_domain_version_pair_sets.update(
            (opset.domain, opset.version) for opset in model.opset_import
        )
        return self.add("If", self.add("Less", np.array(-1), self.add("Size", x)), then_branch=graph, else_branch=other)


class Mean(nn.Module):
    """The mean of a likelihood of the user's own."""

    def __init__(self, likelihood: Likelihood) -> None:
        super().__init__()
        self.likelihood = likelihood

    def forward(self, parameters: Tensor) -> Tensor:
        return self.likelihood.mean(parameters)


class LogProb(nn.Module):
    """The log density of a likelihood of the user's own, of rows with their parameters beside them."""

    def __init__(self, likelihood: Likelihood, n_features: int) -> None:
        super().__init__()
        self.likelihood, self.n_features = likelihood, n_features

    def forward(self, joined: Tensor) -> Tensor:
        return self.likelihood.log_prob(joined[:, : self.n_features], joined[:, self.n_features :])


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield a graph and those of its branches."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for branch in (attribute.g,) if attribute.HasField("g") else attribute.graphs:
                yield from _graphs(branch)


def add_prefix(whole: onnx.GraphProto, prefix: str) -> None:
    """Put `prefix` ahead of every name in a graph and its branches; what has no name gets none."""
    for graph in _graphs(whole):
        for node in graph.node:
            node.name = node.name and prefix + node.name
            node.input[:] = [name and prefix + name for name in node.input]
            node.output[:] = [name and prefix + name for name in node.output]
        for value in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
            value.name = prefix + value.name


def _remove_origin(whole: onnx.GraphProto) -> None:
    """Remove what torch notes of where in the source, and in which file, each part comes from."""
    for graph in _graphs(whole):
        for part in (graph, *graph.node, *graph.input, *graph.output, *graph.initializer, *graph.value_info):
            part.ClearField("doc_string")
            part.ClearField("metadata_props")


def _export(role: str, module: nn.Module, n_inputs: int, opset: int) -> onnx.ModelProto:
    """Return the model that torch's exporter makes of a module of the user's own."""
    try:
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(f"torch needs onnxscript to export the {role}: pip install skvae[onnx]. {error}") from error
    name = type(module.likelihood if isinstance(module, (Mean, LogProb)) else module).__name__
    module = copy.deepcopy(module).cpu().eval()
    example = torch.zeros(2, n_inputs, dtype=torch.float32, device="cpu")
    try:
        with one_at_a_time, _quiet(logging.getLogger("torch.onnx")), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch about its own code
            program = torch.export.export(module, (example,), dynamic_shapes=({0: torch.export.Dim("n_samples")},))
            exported = torch.onnx.export(program, dynamo=True, opset_version=opset, verbose=False)
            model = cast("torch.onnx.ONNXProgram", exported).model_proto  # None is for dynamo=False
    except Exception as error:
        raise ValueError(
            f"torch cannot export the {role} {name} to ONNX: {str(error).strip().splitlines()[0]} It has to be one "
            f"graph for any number of rows (x.shape[0], not len(x)), without decisions that depend on their values."
        ) from error
    nodes = (node for graph in _graphs(model.graph) for node in graph.node)
    random = {node.op_type for node in nodes if node.op_type.startswith(_RANDOM)}
    if random:
        raise ValueError(
            f"The {role} {name} draws random numbers in evaluation mode ({', '.join(sorted(random))}); its ONNX graph "
            f"would draw others. Let it draw in training mode only."
        )
    _remove_origin(model.graph)
    return model


@contextlib.contextmanager
def _quiet(logger: logging.Logger) -> Iterator[None]:
    """Have a logger say nothing but errors: torch lists the packages that it could do with."""
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
