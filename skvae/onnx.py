"""Fitted estimators as ONNX graphs, which run without torch, scikit-learn and this library.

Importing this module registers the estimators of the library with skl2onnx, so that ``skl2onnx.to_onnx`` converts
them, and any Pipeline that holds one, with all its options. It also registers scikit-learn's `FrozenEstimator`, and
`FunctionTransformer` with the functions that are advised ahead of a VAE, such as `np.log1p`. Built-in networks are
written node by node; modules and likelihoods of a user's own go through torch's exporter.
"""

import contextlib
import copy
import logging
import math
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, DTypeLike, NDArray
from sklearn.base import BaseEstimator, OutlierMixin, TransformerMixin, is_classifier
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import GaussianMixture
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, MaxAbsScaler, RobustScaler, StandardScaler
from sklearn.svm import LinearSVC
from torch import Tensor, nn

from skvae import distributions
from skvae._base import BaseVAETransformer
from skvae._data.checks import LARGEST, check_is_fitted
from skvae._model import bounds, ops
from skvae._model.bounds import LowerBound, n_groups_of_features
from skvae._model.networks import ConvEncoder, DenseNetwork, Network, UserModule
from skvae._model.vae import VAE
from skvae.classifiers import MultilayerCNNClassifier, SimpleCNNClassifier
from skvae.likelihoods import ContinuousBernoulliLikelihood, Likelihood, NormalLikelihood
from skvae.outliers import DensityOutlierDetector

try:
    import onnx
    from skl2onnx import convert_sklearn, get_model_alias, update_registered_converter, update_registered_parser
    from skl2onnx._parse import _parse_sklearn
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, Int64TensorType
    from skl2onnx.common.shape_calculator import calculate_linear_classifier_output_shapes as shape_classifier
    from skl2onnx.common.utils_classifier import get_label_classes
    from skl2onnx.operator_converters.function_transformer import (
        convert_sklearn_function_transformer as convert_identity,
    )
except ImportError as error:
    raise ImportError(f"skvae.onnx needs onnx and skl2onnx: pip install skvae[onnx]. {error}") from error

__all__ = ["decoder_to_onnx", "to_onnx"]

_LOG_2PI = math.log(2 * math.pi)

# Operators that draw random numbers; dropout that is still there in evaluation mode is one.
_RANDOM = ("Random", "Bernoulli", "Multinomial", "Dropout")

# The oldest operators that the converters write.
_OLDEST_OPSET = 11

# Scalers of which skl2onnx rounds the numbers to float32, unless it is asked not to.
_SCALERS = (StandardScaler, RobustScaler, MaxAbsScaler)

# torch exports one module at a time.
_exporting = threading.Lock()


def to_onnx(estimator: BaseEstimator, *, method: str | None = None) -> onnx.ModelProto:
    """Return what a fitted estimator computes as an ONNX graph.

    The graph has one input, ``"X"``, a float32 tensor of shape (n_samples, n_features). Of a transformer, or a Pipeline
    that ends in one, its output is what `transform` returns; of a classifier it has two, ``"label"`` and
    ``"probabilities"``, which without `predict_proba` are what `decision_function` returns. Of a detector of outliers
    they are ``"label"``, as of `predict`, and ``"scores"``, what `decision_function` returns. The units of a VAE's data
    are part of the graph; its checks are not: values outside a `data_range` are clipped, and have the score -inf.
    Neither is what the estimator does with missing entries: NaN in a row makes NaN of its components and its score,
    and an outlier of it.

    Parameters
    ----------
    estimator : estimator
        A VAE transformer, a CNN classifier, a `DensityOutlierDetector` with a VAE, or a Pipeline of these and of
        scikit-learn's own steps. It may have been fitted on any device. The `func` of a `FunctionTransformer` is None,
        or one of `np.abs`, `np.exp`, `np.expm1`, `np.log`, `np.log1p`, `np.sqrt` and `np.square`.
    method : {"score_samples"}, default=None
        What the graph computes. ``"score_samples"`` is the ELBO of each row, as a VAE transformer, a Pipeline that ends
        in one, or a detector with one returns it: the graph has the output ``"scores"`` of shape (n_samples,). None is
        what is said above.

    Returns
    -------
    onnx.ModelProto
        The graph. Its bytes for a file are ``model.SerializeToString()``.

    Raises
    ------
    NotFittedError
        When `estimator` is not fitted.
    ValueError
        When torch cannot export a module of the user's own, a class of the user's own has another `transform` or
        `score_samples`, a `FunctionTransformer` has another function, or scores are those of another estimator than a
        VAE.

    See Also
    --------
    decoder_to_onnx : The way back.

    Notes
    -----
    ``skl2onnx.to_onnx(estimator, X[:1])``, once this module is imported, does the same for an input of the type of `X`,
    for the columns of a DataFrame as inputs of their own, and with further options.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from skvae import NormalVAETransformer
    >>> from skvae.onnx import to_onnx
    >>> X, y = load_digits(return_X_y=True)
    >>> vae = NormalVAETransformer(8, max_iter=5, random_state=0)
    >>> model = to_onnx(make_pipeline(vae, LogisticRegression(max_iter=1000)).fit(X, y))
    >>> [output.name for output in model.graph.output]
    ['label', 'probabilities']
    """
    check_is_fitted(estimator)
    _register()
    if not hasattr(estimator, "n_features_in_"):
        raise NotFittedError(
            f"This {type(estimator).__name__} has no n_features_in_: its first step has not been fitted, or it is a "
            f"search with refit=False. Call its fit, of a search with refit=True."
        )
    if method not in (None, "score_samples"):
        raise ValueError(f"method must be 'score_samples' or None; got {method!r}.")
    options: dict[Any, Any] = dict.fromkeys(_SCALERS, {"div": "div_cast"})
    last = _last_step(estimator)
    # Probabilities are to be an array rather than dictionaries, which a LinearSVC does not even have.
    if is_classifier(estimator) and not isinstance(last, LinearSVC):
        options[id(last)] = {"zipmap": False}
    return convert_sklearn(
        estimator if method is None else _scoring(estimator),
        name=type(estimator).__name__,
        initial_types=[("X", FloatTensorType([None, estimator.n_features_in_]))],
        final_types=None if method is None else [("scores", None)],
        options=options,
    )


def _last_step(estimator: Any) -> Any:
    """Return what gives the output of Pipelines, searches and frozen estimators, which may hold each other."""
    while True:
        if isinstance(estimator, FrozenEstimator):
            estimator = estimator.estimator
        elif isinstance(estimator, Pipeline):
            estimator = estimator[-1]
        elif hasattr(estimator, "best_estimator_"):
            estimator = estimator.best_estimator_
        else:
            return estimator


def decoder_to_onnx(vae: BaseVAETransformer) -> onnx.ModelProto:
    """Return the decoder of a fitted VAE as an ONNX graph.

    Its input is ``"Z"``, a float32 tensor of shape (n_samples, n_components), and its output ``"X"`` what
    `inverse_transform` returns, in its dtype: the mean of p(x | z) in the units of the training data. For ``"Z"`` drawn
    from the prior (`prior_`, or N(0, I) where it is None) these are samples, as of `sample`.

    Parameters
    ----------
    vae : NormalVAETransformer or ContinuousBernoulliVAETransformer
        A fitted VAE transformer, or a `FrozenEstimator` of one. It may have been fitted on any device.

    Returns
    -------
    onnx.ModelProto
        The graph. Its bytes for a file are ``model.SerializeToString()``.

    Raises
    ------
    NotFittedError
        When `vae` is not fitted.
    TypeError
        When `vae` is not a VAE transformer.
    ValueError
        When torch cannot export a module of the user's own, or its class has another `inverse_transform`.

    See Also
    --------
    to_onnx : What `transform` computes, and whole Pipelines.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skvae import NormalVAETransformer
    >>> from skvae.onnx import decoder_to_onnx
    >>> X, _ = load_digits(return_X_y=True)
    >>> model = decoder_to_onnx(NormalVAETransformer(8, max_iter=5, random_state=0).fit(X))
    >>> [output.name for output in model.graph.output]
    ['X']
    """
    while isinstance(vae, FrozenEstimator):
        vae = vae.estimator
    if not isinstance(vae, BaseVAETransformer):
        raise TypeError(
            f"decoder_to_onnx takes a VAE transformer, which has a decoder; got {type(vae).__name__}. Of a Pipeline, "
            f"give the step that is one, such as pipeline[0]."
        )
    check_is_fitted(vae)
    return convert_sklearn(
        _Decoder(vae),
        name=type(vae).__name__,
        initial_types=[("Z", FloatTensorType([None, vae.module_.n_components]))],
        final_types=[("X", None)],
    )


class _Decoder(TransformerMixin, BaseEstimator):
    """The decoder of a VAE as a transformer of its own."""

    def __init__(self, vae: BaseVAETransformer) -> None:
        self.vae = vae


class _Scores(TransformerMixin, BaseEstimator):
    """What `score_samples` of a VAE computes, as a transformer of its own."""

    def __init__(self, vae: BaseVAETransformer) -> None:
        self.vae = vae


class _Threshold(OutlierMixin, BaseEstimator):
    """What a detector makes of scores."""

    def __init__(self, offset: float) -> None:
        self.offset = offset


def _scoring(estimator: Any) -> Any:
    """Return the estimator whose output is what `score_samples` of this one returns."""
    if isinstance(estimator, Pipeline):
        *steps, (name, last) = estimator.steps
        return Pipeline([*steps, (name, _scoring(last))])
    if isinstance(estimator, FrozenEstimator):
        return _scoring(estimator.estimator)
    if isinstance(estimator, DensityOutlierDetector):
        return _scoring(estimator.estimator_)
    if hasattr(estimator, "best_estimator_"):
        return _scoring(estimator.best_estimator_)
    if isinstance(estimator, BaseVAETransformer):
        return _Scores(estimator)
    raise ValueError(
        f"No graph can be made of the scores of {type(estimator).__name__}. Those of a VAE transformer have one: "
        f"alone, as the last step of a Pipeline, or in a DensityOutlierDetector. Take a VAE, or keep the estimator."
    )


class _Graph:
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
        _add_prefix(graph, prefix)
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


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield a graph and those of its branches."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for branch in (attribute.g,) if attribute.HasField("g") else attribute.graphs:
                yield from _graphs(branch)


def _add_prefix(whole: onnx.GraphProto, prefix: str) -> None:
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
    name = type(module.likelihood if isinstance(module, (_Mean, _LogProb)) else module).__name__
    module = copy.deepcopy(module).cpu().eval()
    example = torch.zeros(2, n_inputs, dtype=torch.float32, device="cpu")
    try:
        with _exporting, _quiet(logging.getLogger("torch.onnx")), torch.no_grad(), warnings.catch_warnings():
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


class _Mean(nn.Module):
    """The mean of a likelihood of the user's own."""

    def __init__(self, likelihood: Likelihood) -> None:
        super().__init__()
        self.likelihood = likelihood

    def forward(self, parameters: Tensor) -> Tensor:
        return self.likelihood.mean(parameters)


class _LogProb(nn.Module):
    """The log density of a likelihood of the user's own, of rows with their parameters beside them."""

    def __init__(self, likelihood: Likelihood, n_features: int) -> None:
        super().__init__()
        self.likelihood, self.n_features = likelihood, n_features

    def forward(self, joined: Tensor) -> Tensor:
        return self.likelihood.log_prob(joined[:, : self.n_features], joined[:, self.n_features :])


def _check_method(vae: BaseVAETransformer, name: str) -> None:
    """Raise ValueError when the class has a method of its own where the graph would have that of this library."""
    if getattr(type(vae), name) is not getattr(BaseVAETransformer, name):
        raise ValueError(
            f"{type(vae).__name__} overrides {name}, and no graph can be made of that. Put what it does into a "
            f"step of a Pipeline, or export a class without it."
        )


def _convert_encoder(scope: Any, operator: Any, container: Any) -> None:
    """Write what `transform` computes: the posterior mean."""
    vae = operator.raw_operator
    graph = _Graph(scope, container)
    _check_method(vae, "transform")
    x = _add_units(graph, vae.module_, operator.inputs)
    mean = _add_network(graph, "encoder", vae.module_.encoder, x, vae.n_features_in_, vae.module_.n_components)
    graph.finish(mean, operator.outputs[0])


def _convert_decoder(scope: Any, operator: Any, container: Any) -> None:
    """Write what `inverse_transform` computes: the mean of the likelihood in the units of the data."""
    vae, (source,) = operator.raw_operator.vae, operator.inputs
    _check_method(vae, "inverse_transform")
    graph = _Graph(scope, container)
    likelihood = vae.module_.likelihood
    n_outputs = likelihood.n_parameters * vae.n_features_in_
    # The mean of a normal likelihood is the first of its parameters, and another is not needed.
    n_wanted = vae.n_features_in_ if type(likelihood) is NormalLikelihood else n_outputs
    x = _add_network(graph, "decoder", vae.module_.decoder, source.full_name, vae.module_.n_components, n_wanted)
    if type(likelihood) is ContinuousBernoulliLikelihood:
        x = _add_continuous_bernoulli_mean(graph, _add_logits(graph, likelihood, x))
    elif type(likelihood) is not NormalLikelihood:
        x = graph.add_module("likelihood", _Mean(likelihood), x, n_outputs)
    units = vae.module_.units
    x = graph.add("Mul", graph.add("Cast", x, to=onnx.TensorProto.DOUBLE), np.float64(units.scale))
    x = graph.add("Add", x, np.asarray(units.shift, np.float64))
    if units.dtype == np.float32:
        x = graph.add("Cast", x, to=onnx.TensorProto.FLOAT)
    graph.finish(x, operator.outputs[0])


def _convert_scores(scope: Any, operator: Any, container: Any) -> None:
    """Write what `score_samples` computes: the ELBO, at its fixed points."""
    vae = operator.raw_operator.vae
    _check_method(vae, "score_samples")
    graph, model = _Graph(scope, container), vae.module_
    x = _add_units(graph, model, operator.inputs)
    elbo = _add_elbo(graph, model, x)
    score = graph.add("Sub", elbo, np.float64(model.units.log_volume(model.n_features)))
    score = graph.add("Cast", graph.add("Max", score, np.float64(-LARGEST)), to=onnx.TensorProto.FLOAT)
    score = _add_support(graph, model, operator.inputs, score)
    graph.finish(score, operator.outputs[0])


def _convert_threshold(scope: Any, operator: Any, container: Any) -> None:
    """Write the labels of a detector and its `decision_function`; what has no score is an outlier."""
    graph, (source,), (labels, scores) = _Graph(scope, container), operator.inputs, operator.outputs
    score = graph.add("Cast", source.full_name, to=onnx.TensorProto.DOUBLE)
    score = graph.add("Sub", score, np.float64(operator.raw_operator.offset))
    is_outlier = graph.add("Or", graph.add("Less", score, np.float64(0)), graph.add("IsNaN", score))
    graph.finish(graph.add("Where", is_outlier, np.int64(-1), np.int64(1)), labels)
    graph.finish(score, scores)


def _convert_classifier(scope: Any, operator: Any, container: Any) -> None:
    """Write the labels and the probabilities of a CNN classifier."""
    classifier = operator.raw_operator
    labels, probabilities = operator.outputs
    graph = _Graph(scope, container)
    network = classifier.net_.module_
    x = _add_images(graph, _add_rows(graph, operator.inputs, np.float32), network.config["image_shape"])
    for layer in (*network.features, network.head):
        x = _add_layer(graph, layer, x)
    y = graph.add("Softmax", x, axis=1)
    if isinstance(probabilities.type, DoubleTensorType):
        y = graph.add("Cast", y, to=onnx.TensorProto.DOUBLE)
    graph.finish(y, probabilities)
    classes = get_label_classes(scope, classifier)
    classes = classes.astype(np.int64) if classes.dtype.kind in "biuf" else classes.astype(object)
    graph.finish(graph.add("Gather", classes, graph.add("ArgMax", x, axis=1, keepdims=0)), labels)


def _add_rows(graph: _Graph, variables: Sequence[Any], dtype: DTypeLike) -> str:
    """Write the variables side by side; they are one, or with a DataFrame the columns."""
    to = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    names = [graph.add("Cast", variable.full_name, to=to) for variable in variables]
    return names[0] if len(names) == 1 else graph.add("Concat", *names, axis=1)


def _add_units(graph: _Graph, model: VAE, variables: Sequence[Any]) -> str:
    """Write the map to the units of the likelihood; what float32 may not hold is mapped in float64."""
    units = model.units
    narrow = units.fit_float32 and all(isinstance(variable.type, FloatTensorType) for variable in variables)
    dtype = np.float32 if narrow else np.float64
    x = _add_rows(graph, variables, dtype)
    x = graph.add("Div", graph.add("Sub", x, np.asarray(units.shift, dtype)), dtype(units.scale))
    if dtype == np.float64:
        x = graph.add("Cast", x, to=onnx.TensorProto.FLOAT)
    return graph.add("Clip", x, np.float32(units.low), np.float32(units.high))


def _add_network(graph: _Graph, role: str, network: nn.Module, x: str, n_inputs: int, n_wanted: int) -> str:
    """Write an encoder or a decoder and return the name of its output's first `n_wanted` columns."""
    path = network.path if isinstance(network, Network) else None
    y = _add_layers(graph, role, network, x, n_inputs, n_wanted)
    if path is None:
        return y
    weight = np.zeros((n_inputs, n_wanted), np.float32)
    weight[:, : path.out_features] = _array(path.weight).T[:, :n_wanted]
    return graph.add("Add", y, graph.add("MatMul", x, weight))


def _add_layers(graph: _Graph, role: str, network: nn.Module, x: str, n_inputs: int, n_wanted: int) -> str:
    """Write what an encoder or a decoder has but for a linear path."""
    if type(network) is ConvEncoder:
        x = _add_images(graph, x, network.config["image_shape"])
        layers: list[nn.Module] = [network.convolution, nn.MaxPool2d(2, ceil_mode=True), nn.Flatten()]
        for layer in layers:
            x = _add_layer(graph, layer, x)
        network = network.dense
    if type(network) is DenseNetwork:
        last, x = network.last_layer, _add_hidden(graph, network, x)
        return graph.add("Gemm", x, _array(last.weight)[:n_wanted], _array(last.bias)[:n_wanted], transB=1)
    y = graph.add_module(role, network.module if isinstance(network, UserModule) else network, x, n_inputs)
    return graph.slice(y, 0, n_wanted)


def _add_hidden(graph: _Graph, network: DenseNetwork, x: str) -> str:
    """Write the hidden layers of a dense network."""
    for layer in cast("list[nn.Linear]", network.layers)[:-1]:
        x = graph.add("Relu", _add_layer(graph, layer, x))
    return x


def _add_images(graph: _Graph, x: str, image_shape: Sequence[int]) -> str:
    """Write rows as images with the channels first; a 0 in a shape keeps the number of rows."""
    return graph.add("Transpose", graph.add("Reshape", x, np.array([0, *image_shape])), perm=[0, 3, 1, 2])


def _add_layer(graph: _Graph, layer: nn.Module, x: str) -> str:
    """Write a layer of the built-in networks."""
    match layer:
        case nn.Linear():
            return graph.add("Gemm", x, _array(layer.weight), _array(layer.bias), transB=1)
        case nn.Conv2d(bias=Tensor() as bias):
            return graph.add("Conv", x, _array(layer.weight), _array(bias), pads=[1, 1, 1, 1])
        case nn.MaxPool2d():
            return graph.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)
        case nn.Flatten():
            return graph.add("Flatten", x)
        case nn.ReLU():
            return graph.add("Relu", x)
        case nn.Identity():
            return x
    raise NotImplementedError(f"There is no converter for the layer {type(layer).__name__}.")


def _array(parameter: Tensor) -> NDArray[Any]:
    return parameter.detach().cpu().numpy()


def _add_logits(graph: _Graph, likelihood: ContinuousBernoulliLikelihood, x: str) -> str:
    """Write the logits of a continuous Bernoulli likelihood, within their bound."""
    bound = np.float32(1 / likelihood.config["min_scale"])
    x = graph.add("Mul", x, np.float32(float(likelihood.get_buffer("gain")) / bound))
    return graph.add("Mul", graph.add("Tanh", x), bound)


def _add_continuous_bernoulli_mean(graph: _Graph, e: str) -> str:
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


def _add_support(graph: _Graph, model: VAE, variables: Sequence[Any], score: str) -> str:
    """Write the scores, with -inf for rows outside the support of the likelihood."""
    likelihood = model.likelihood
    if type(likelihood).in_support is Likelihood.in_support:
        return score
    if type(likelihood).in_support is not ContinuousBernoulliLikelihood.in_support:
        raise ValueError(
            f"{type(likelihood).__name__} overrides in_support, and no graph can be made of that. Keep the estimator "
            f"for its scores, or export a likelihood without it and look at the support before the graph."
        )
    types = [variable.type.to_onnx_type().tensor_type.elem_type for variable in variables]
    dtype = np.result_type(*map(onnx.helper.tensor_dtype_to_np_dtype, types))
    low, high = ContinuousBernoulliLikelihood._ends(model.units, dtype)
    x = _add_rows(graph, variables, np.float64)
    is_outside = graph.add(
        "Or",
        graph.add("Less", graph.reduce("ReduceMin", x, 1), np.float64(low)),
        graph.add("Less", np.float64(high), graph.reduce("ReduceMax", x, 1)),
    )
    return graph.add("Where", is_outside, np.float32(-np.inf), score)


def _add_elbo(graph: _Graph, model: VAE, x: str) -> str:
    """Write the ELBO of rows in the units of the likelihood, in float64, as `skvae._model.bounds` computes it.

    It is E log p(x | z) + E log p(z) + the entropy of the posterior, which are means over fixed points.
    """
    n_components, bound = model.n_components, LowerBound(model, 1)
    points = _array(bound.points)
    encoded = _add_network(graph, "encoder", model.encoder, x, model.n_features, 2 * n_components)
    mean, raw = graph.slice(encoded, 0, n_components), graph.slice(encoded, n_components, 2 * n_components)
    std, log_std = _add_std_and_log(graph, raw, model.posterior_scale)
    single = np.array([0, 1, n_components])
    z = graph.add("Mul", graph.add("Reshape", std, single), points)
    z = graph.add("Reshape", graph.add("Add", graph.add("Reshape", mean, single), z), np.array([-1, n_components]))
    add_likelihood = _add_likelihood_by_moments if bound.by_moments else _add_likelihood_at_points
    log_likelihood = add_likelihood(graph, model, x, z, len(points))
    log_prior = _add_log_prior(graph, model.prior, mean, std, z, len(points))
    entropy = graph.add("Add", _add_total(graph, log_std), np.float64(0.5 * (1 + _LOG_2PI) * n_components))
    return graph.add("Add", graph.add("Add", log_likelihood, log_prior), entropy)


def _add_total(graph: _Graph, values: str) -> str:
    """Write the sum over the last axis in float64."""
    return graph.add("Cast", graph.reduce("ReduceSum", values, -1), to=onnx.TensorProto.DOUBLE)


def _add_std_and_log(graph: _Graph, raw: str, posterior_scale: str) -> tuple[str, str]:
    """Write the standard deviations of posteriors and their logarithms, as `skvae._model.ops` bounds them."""
    largest = np.float32(ops._LARGEST_LOG_STD)
    if posterior_scale == "log_variance":
        log_std = graph.add("Clip", graph.add("Mul", raw, np.float32(0.5)), -largest, largest)
        return graph.add("Exp", log_std), log_std
    std = graph.add("Add", _add_softplus(graph, raw), np.float32(ops._SMALLEST_STD))
    std = graph.add("Min", std, np.exp(largest))
    return std, graph.add("Log", std)


def _add_softplus(graph: _Graph, x: str) -> str:
    """Write log(1 + exp(x)) in float32, with all its digits where it is small."""
    tail = _add_log1p(graph, graph.add("Exp", graph.add("Neg", graph.add("Abs", x))), np.float32(1))
    return graph.add("Add", graph.add("Relu", x), tail)


def _add_log_prior(graph: _Graph, prior: GaussianMixture | None, mean: str, std: str, z: str, n_points: int) -> str:
    """Write the expected log density of N(0, I), or of a mixture, under posteriors, in float64."""
    if prior is None:
        squares = graph.add("Add", graph.add("Mul", mean, mean), graph.add("Mul", std, std))
        return _add_total(graph, graph.add("Mul", graph.add("Add", squares, np.float32(_LOG_2PI)), np.float32(-0.5)))
    roots = prior.precisions_cholesky_
    n_normals, n_components = prior.means_.shape
    shifts = np.einsum("cj,cjk->ck", prior.means_, roots).ravel()
    standard = graph.add("MatMul", z, np.concatenate(roots, axis=1).astype(np.float32))
    standard = graph.add("Sub", standard, shifts.astype(np.float32))
    standard = graph.add("Reshape", standard, np.array([-1, n_normals, n_components]))
    distances = graph.reduce("ReduceSum", graph.add("Mul", standard, standard), 2)
    diagonals = np.log(np.diagonal(roots, axis1=1, axis2=2)) - 0.5 * _LOG_2PI
    heights = (np.log(prior.weights_) + diagonals.sum(1)).astype(np.float32)
    log_densities = graph.add("Add", graph.add("Mul", distances, np.float32(-0.5)), heights)
    largest = graph.reduce("ReduceMax", log_densities, 1, keepdims=True)
    shares = graph.reduce("ReduceSum", graph.add("Exp", graph.add("Sub", log_densities, largest)), 1, keepdims=True)
    log_density = graph.add("Reshape", graph.add("Add", graph.add("Log", shares), largest), np.array([-1, n_points]))
    return graph.reduce("ReduceMean", graph.add("Cast", log_density, to=onnx.TensorProto.DOUBLE), 1)


def _add_likelihood_at_points(graph: _Graph, model: VAE, x: str, z: str, n_points: int) -> str:
    """Write the expected log likelihood as its mean over all points."""
    n_features, n_outputs = model.n_features, model.likelihood.n_parameters * model.n_features
    parameters = _add_network(graph, "decoder", model.decoder, z, model.n_components, n_outputs)
    x = graph.add("Add", graph.add("Reshape", x, np.array([0, 1, n_features])), np.zeros((n_points, 1), np.float32))
    entries = _add_log_prob(graph, model, graph.add("Reshape", x, np.array([-1, n_features])), parameters)
    return graph.reduce("ReduceMean", graph.add("Reshape", _add_total(graph, entries), np.array([-1, n_points])), 1)


def _add_likelihood_by_moments(graph: _Graph, model: VAE, x: str, z: str, n_points: int) -> str:
    """Write the expected log likelihood from three values of each parameter, which have its first four moments."""
    decoder = cast("DenseNetwork", model.decoder)
    hidden = _add_hidden(graph, decoder, z)
    if decoder.path is not None:
        hidden = graph.add("Concat", hidden, z, axis=1)
    weight, bias = map(_array, decoder.last_map)
    n_hidden, n_groups = weight.shape[1], n_groups_of_features(model.n_features)
    hidden = graph.add("Reshape", hidden, np.array([-1, n_points, n_hidden]))
    center = graph.reduce("ReduceMean", hidden, 1, keepdims=True)
    hidden = graph.add("Sub", hidden, center)
    center = graph.add("Reshape", center, np.array([0, n_hidden]))
    moments: list[list[str]] = []
    for group in range(n_groups):
        size, group_weight = n_points // n_groups, graph.constant(weight[group::n_groups].T)
        differences = graph.add("MatMul", graph.slice(hidden, group * size, (group + 1) * size), group_weight)
        squares = graph.add("Mul", differences, differences)
        powers = squares, graph.add("Mul", differences, squares), graph.add("Mul", squares, squares)
        mean = graph.add("Add", graph.add("MatMul", center, group_weight), bias[group::n_groups])
        moments.append([mean, *(graph.reduce("ReduceMean", power, 1) for power in powers)])
    order = np.argsort(np.concatenate([np.arange(model.n_features)[group::n_groups] for group in range(n_groups)]))
    joined = (graph.add("Concat", *parts, axis=1) for parts in zip(*moments, strict=True))
    joined = (graph.add("Gather", values, order, axis=1) for values in joined)
    terms = [
        graph.add("Mul", weights, _add_log_prob(graph, model, x, parameters))
        for parameters, weights in _add_three_points(graph, *joined)
    ]
    return _add_total(graph, graph.add("Sum", *terms))


def _add_three_points(graph: _Graph, mean: str, second: str, third: str, fourth: str) -> list[tuple[str, str]]:
    """Write the numbers and weights that `skvae._model.bounds.three_points` returns."""
    one = np.float32(1)
    variance = graph.add("Max", second, np.float32(bounds._SMALLEST_VARIANCE))
    std = graph.add("Sqrt", variance)
    skewness = graph.add("Div", third, graph.add("Mul", variance, std))
    skewness = graph.add("Where", graph.add("IsNaN", skewness), np.float32(0), skewness)
    largest = np.float32(bounds._LARGEST_SKEWNESS)
    skewness = graph.add("Clip", skewness, -largest, largest)
    squared = graph.add("Mul", skewness, skewness)
    kurtosis = graph.add("Div", fourth, graph.add("Mul", variance, variance))
    kurtosis = graph.add("Where", graph.add("IsNaN", kurtosis), np.float32(3), kurtosis)
    kurtosis = graph.add("Min", kurtosis, np.float32(bounds._LARGEST_KURTOSIS))
    kurtosis = graph.add("Max", kurtosis, graph.add("Add", squared, one))
    gap = graph.add("Sub", graph.add("Mul", kurtosis, np.float32(4)), graph.add("Mul", squared, np.float32(3)))
    gap = graph.add("Sqrt", gap)
    upper = graph.add("Mul", graph.add("Add", skewness, gap), np.float32(0.5))
    lower = graph.add("Mul", graph.add("Sub", skewness, gap), np.float32(0.5))
    middle = graph.add("Sub", one, graph.add("Reciprocal", graph.add("Sub", kurtosis, squared)))
    points = [(mean, middle)]
    for root, sign in ((upper, 1), (lower, -1)):
        weight = graph.add("Div", np.float32(sign), graph.add("Mul", root, gap))
        points.append((graph.add("Add", mean, graph.add("Mul", std, root)), weight))
    return points


def _add_log_prob(graph: _Graph, model: VAE, x: str, parameters: str) -> str:
    """Write the log density of each entry of rows `x`, which have a row of parameters each."""
    likelihood, n_features = model.likelihood, model.n_features
    if type(likelihood) is ContinuousBernoulliLikelihood:
        return _add_continuous_bernoulli_log_prob(graph, x, _add_logits(graph, likelihood, parameters))
    if type(likelihood) is NormalLikelihood:
        return _add_normal_log_prob(graph, likelihood, x, parameters)
    joined = graph.add("Concat", x, parameters, axis=1)
    n_columns = (1 + likelihood.n_parameters) * n_features
    return graph.add_module("likelihood", _LogProb(likelihood, n_features), joined, n_columns)


def _add_normal_log_prob(graph: _Graph, likelihood: NormalLikelihood, x: str, parameters: str) -> str:
    """Write the log density of each entry of a normal likelihood, whatever its noise depends on."""
    constant_scale, n_features = likelihood._constant_scale, likelihood.config["n_features"]
    mean = parameters
    if constant_scale is not None:
        scale: ArrayLike = _array(constant_scale)
        log_scale: ArrayLike = np.log(scale)
    else:
        if likelihood.config["noise"] == "network":
            mean = graph.slice(parameters, 0, n_features)
            raw = graph.slice(parameters, n_features, 2 * n_features)
        else:
            names = "offsets", "slopes", "lowest", "highest"
            offsets, slopes, lowest, highest = (_array(likelihood.get_buffer(name)) for name in names)
            within = graph.add("Min", graph.add("Max", mean, lowest), highest)
            raw = graph.add("Add", graph.add("Mul", within, slopes), _array(likelihood.level) + offsets)
        scale = graph.add("Add", _add_softplus(graph, raw), np.float32(likelihood.config["min_scale"]))
        log_scale = graph.add("Log", scale)
    deviation = graph.add("Div", graph.add("Sub", x, mean), scale)
    squares = graph.add("Mul", graph.add("Mul", deviation, deviation), np.float32(-0.5))
    return graph.add("Sub", graph.add("Sub", squares, log_scale), np.float32(0.5 * _LOG_2PI))


def _add_continuous_bernoulli_log_prob(graph: _Graph, x: str, e: str) -> str:
    """Write log(h + h / tanh(h)) + e (x - 1 where e > 0) with h = |e| / 2, which is the log density at logits e."""
    half = graph.add("Max", graph.add("Mul", graph.add("Abs", e), np.float32(0.5)), np.float32(ops._SMALLEST_HALF))
    peak = graph.add("Log", graph.add("Add", half, graph.add("Div", half, graph.add("Tanh", half))))
    end = graph.add("Where", graph.add("Less", np.float32(0), e), np.float32(1), np.float32(0))
    return graph.add("Add", peak, graph.add("Mul", e, graph.add("Sub", x, end)))


def _parse_detector(scope: Any, model: Any, inputs: list[Any], custom_parsers: Any = None) -> list[Any]:
    """Declare the scores of the estimator inside, and what the detector makes of them."""
    check_is_fitted(model)
    steps = Pipeline([("scores", _scoring(model.estimator_)), ("threshold", _Threshold(model.offset_))])
    return _parse_sklearn(scope, steps, inputs, custom_parsers=custom_parsers)


def _shape_scores(operator: Any) -> None:
    check_is_fitted(operator.raw_operator.vae)
    operator.outputs[0].type = FloatTensorType([operator.inputs[0].get_first_dimension()])


def _shape_threshold(operator: Any) -> None:
    for output, kind in zip(operator.outputs, (Int64TensorType, DoubleTensorType), strict=True):
        output.type = kind([operator.inputs[0].get_first_dimension()])


def _parse_encoder(scope: Any, model: Any, inputs: list[Any], custom_parsers: Any = None) -> list[Any]:
    """Declare the output, which is float32 for any input."""
    operator = scope.declare_local_operator("SkvaeEncoder", model)
    operator.inputs = inputs
    operator.outputs.append(scope.declare_local_variable("variable", FloatTensorType()))
    return operator.outputs


def _shape_encoder(operator: Any) -> None:
    vae = operator.raw_operator
    check_is_fitted(vae)
    n_rows = operator.inputs[0].get_first_dimension()
    operator.outputs[0].type = FloatTensorType([n_rows, vae.module_.n_components])


def _shape_decoder(operator: Any) -> None:
    vae = operator.raw_operator.vae
    kind = FloatTensorType if vae.module_.units.dtype == np.float32 else DoubleTensorType
    operator.outputs[0].type = kind([operator.inputs[0].get_first_dimension(), vae.n_features_in_])


def _parse_frozen(scope: Any, model: Any, inputs: list[Any], custom_parsers: Any = None) -> list[Any]:
    """Declare what the estimator inside declares, with the options of the whole."""
    options = scope.get_options(model, fail=False)
    if options:
        scope.add_options(id(model.estimator), options)
    return _parse_sklearn(scope, model.estimator, inputs, custom_parsers=custom_parsers)


def _result_dtype(operator: Any) -> np.dtype[Any]:
    """Return the dtype that the function of a FunctionTransformer gives for its inputs."""
    types = [variable.type.to_onnx_type().tensor_type.elem_type for variable in operator.inputs]
    examples = [np.ones(1, onnx.helper.tensor_dtype_to_np_dtype(elem_type)) for elem_type in types]
    return np.result_type(*[operator.raw_operator.func(example) for example in examples])


def _shape_function(operator: Any) -> None:
    """Declare the output of a FunctionTransformer, and raise ValueError unless its function has a graph."""
    transformer = operator.raw_operator
    widths = [variable.type.shape[1] for variable in operator.inputs]
    shape = [operator.inputs[0].get_first_dimension(), None if None in widths else sum(widths)]
    if transformer.func is None:
        operator.outputs[0].type = copy.deepcopy(operator.inputs[0].type)
        operator.outputs[0].type.shape = shape
        return
    if not any(transformer.func is function for function in _FUNCTIONS) or transformer.kw_args:
        raise ValueError(
            f"No graph can be made of {transformer!r}. Its func must be None or one of "
            f"{', '.join(f'np.{function.__name__}' for function in _FUNCTIONS)}, and without kw_args. Use one of them, "
            f"apply the function before the graph, or register a converter of your own for FunctionTransformer with "
            f"skl2onnx."
        )
    dtype = _result_dtype(operator)
    output_type = (
        Int64TensorType if dtype.kind in "biu" else DoubleTensorType if dtype.itemsize > 4 else FloatTensorType
    )
    operator.outputs[0].type = output_type(shape)


def _convert_function(scope: Any, operator: Any, container: Any) -> None:
    """Write what a FunctionTransformer computes: in float64, or of integers that stay integers in int64."""
    if operator.raw_operator.func is None:
        convert_identity(scope, operator, container)
        return
    graph, dtype = _Graph(scope, container), _result_dtype(operator)
    x = _add_rows(graph, operator.inputs, np.int64 if dtype.kind in "biu" else np.float64)
    y = _FUNCTIONS[operator.raw_operator.func](graph, x)
    y = graph.add("Cast", y, to=onnx.helper.np_dtype_to_tensor_dtype(dtype))  # rounds, as NumPy has done
    output_type = operator.outputs[0].type.to_onnx_type().tensor_type.elem_type
    graph.finish(graph.add("Cast", y, to=output_type), operator.outputs[0])


def _add_expm1(graph: _Graph, x: str) -> str:
    """Write exp(x) - 1 as tanh(x / 2) (exp(x) + 1), which does not cancel near zero."""
    tanh = graph.add("Tanh", graph.add("Mul", x, np.float64(0.5)))
    return graph.add("Mul", tanh, graph.add("Add", graph.add("Exp", x), np.float64(1)))


def _add_log1p(graph: _Graph, x: str, one: np.floating[Any]) -> str:
    """Write log(1 + x) as log(u) x / (u - 1) for the rounded u = 1 + x; where u is 1 or x, that would be no number."""
    u = graph.add("Add", x, one)
    log = graph.add("Log", u)
    y = graph.add("Mul", log, graph.add("Div", x, graph.add("Sub", u, one)))
    y = graph.add("Where", graph.add("Equal", u, x), log, y)
    return graph.add("Where", graph.add("Equal", u, one), x, y)


# What writes each function that a FunctionTransformer may have.
_FUNCTIONS: dict[Any, Callable[[_Graph, str], str]] = {
    np.abs: lambda graph, x: graph.add("Abs", x),
    np.exp: lambda graph, x: graph.add("Exp", x),
    np.expm1: _add_expm1,
    np.log: lambda graph, x: graph.add("Log", x),
    np.log1p: lambda graph, x: _add_log1p(graph, x, np.float64(1)),
    np.sqrt: lambda graph, x: graph.add("Sqrt", x),
    np.square: lambda graph, x: graph.add("Mul", x, x),
}


def _register() -> None:
    """Tell skl2onnx about the estimators, those derived from them elsewhere included."""
    classes = [BaseVAETransformer]
    for cls in classes:  # which grows on the way
        classes += cls.__subclasses__()
        update_registered_converter(cls, "SkvaeEncoder", _shape_encoder, _convert_encoder, parser=_parse_encoder)
    update_registered_converter(_Decoder, "SkvaeDecoder", _shape_decoder, _convert_decoder)
    update_registered_converter(_Scores, "SkvaeScores", _shape_scores, _convert_scores)
    update_registered_converter(_Threshold, "SkvaeThreshold", _shape_threshold, _convert_threshold)
    update_registered_parser(DensityOutlierDetector, _parse_detector)
    options = {"zipmap": [True, False, "columns"], "nocl": [False, True], "output_class_labels": [False, True]}
    for cls in (SimpleCNNClassifier, MultilayerCNNClassifier):
        update_registered_converter(cls, "SkvaeClassifier", shape_classifier, _convert_classifier, options=options)


def _register_others() -> None:
    """Tell skl2onnx about estimators of scikit-learn; a converter that a user has registered for one stays."""
    update_registered_parser(FrozenEstimator, _parse_frozen)
    if get_model_alias(FunctionTransformer) == "SklearnFunctionTransformer":
        update_registered_converter(FunctionTransformer, "SkvaeFunctionTransformer", _shape_function, _convert_function)


_register()
_register_others()
