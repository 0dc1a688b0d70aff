"""Fitted estimators as ONNX graphs, which run without torch, scikit-learn and this library.

Importing this module registers the estimators of the library with skl2onnx, so that ``skl2onnx.to_onnx`` converts
them, and any Pipeline that holds one, with all its options. It also registers scikit-learn's `FrozenEstimator`, and
`FunctionTransformer` with the functions that are advised ahead of a VAE, such as `np.log1p`. Built-in networks are
written node by node; modules and likelihoods of a user's own go through torch's exporter.
"""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, OutlierMixin, TransformerMixin, is_classifier
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, MaxAbsScaler, RobustScaler, StandardScaler
from sklearn.svm import LinearSVC

from skvae._base import BaseVAETransformer
from skvae._data.checks import LARGEST, check_is_fitted
from skvae.classifiers import MultilayerCNNClassifier, SimpleCNNClassifier
from skvae.likelihoods import ContinuousBernoulliLikelihood, NormalLikelihood
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

    from skvae._onnx.graph import Graph, Mean, one_at_a_time
    from skvae._onnx.layers import (
        add_continuous_bernoulli_mean,
        add_images,
        add_layer,
        add_log1p,
        add_logits,
        add_network,
        add_rows,
        add_units,
    )
    from skvae._onnx.scores import add_elbo, add_support
except ImportError as error:
    raise ImportError(f"skvae.onnx needs onnx and skl2onnx: pip install skvae[onnx]. {error}") from error

__all__ = ["decoder_to_onnx", "to_onnx"]

# Scalers of which skl2onnx multiplies by the inverse, unless it is asked to divide as they do.
_SCALERS = (StandardScaler, RobustScaler, MaxAbsScaler)


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
    options: dict[Any, Any] = dict.fromkeys(_SCALERS, {"div": "div"})
    if is_classifier(estimator):
        last = _last_step(estimator)
        # Probabilities are to be an array rather than dictionaries, which a LinearSVC does not even have.
        options[id(last)] = {} if isinstance(last, LinearSVC) else {"zipmap": False}
    with one_at_a_time:
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
    with one_at_a_time:
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
    graph = Graph(scope, container)
    _check_method(vae, "transform")
    x = add_units(graph, vae.module_, operator.inputs)
    mean = add_network(graph, "encoder", vae.module_.encoder, x, vae.n_features_in_, vae.module_.n_components)
    graph.finish(mean, operator.outputs[0])


def _convert_decoder(scope: Any, operator: Any, container: Any) -> None:
    """Write what `inverse_transform` computes: the mean of the likelihood in the units of the data."""
    vae, (source,) = operator.raw_operator.vae, operator.inputs
    _check_method(vae, "inverse_transform")
    graph = Graph(scope, container)
    likelihood = vae.module_.likelihood
    n_outputs = likelihood.n_parameters * vae.n_features_in_
    # The mean of a normal likelihood is the first of its parameters, and another is not needed.
    n_wanted = vae.n_features_in_ if type(likelihood) is NormalLikelihood else n_outputs
    x = add_network(graph, "decoder", vae.module_.decoder, source.full_name, vae.module_.n_components, n_wanted)
    if type(likelihood) is ContinuousBernoulliLikelihood:
        x = add_continuous_bernoulli_mean(graph, add_logits(graph, likelihood, x))
    elif type(likelihood) is not NormalLikelihood:
        x = graph.add_module("likelihood", Mean(likelihood), x, n_outputs)
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
    graph, model = Graph(scope, container), vae.module_
    x = add_units(graph, model, operator.inputs)
    elbo = add_elbo(graph, model, x)
    score = graph.add("Sub", elbo, np.float64(model.units.log_volume(model.n_features)))
    score = graph.add("Cast", graph.add("Max", score, np.float64(-LARGEST)), to=onnx.TensorProto.FLOAT)
    score = add_support(graph, model, operator.inputs, score)
    graph.finish(score, operator.outputs[0])


def _convert_threshold(scope: Any, operator: Any, container: Any) -> None:
    """Write the labels of a detector and its `decision_function`; what has no score is an outlier."""
    graph, (source,), (labels, scores) = Graph(scope, container), operator.inputs, operator.outputs
    score = graph.add("Cast", source.full_name, to=onnx.TensorProto.DOUBLE)
    score = graph.add("Sub", score, np.float64(operator.raw_operator.offset))
    is_outlier = graph.add("Or", graph.add("Less", score, np.float64(0)), graph.add("IsNaN", score))
    graph.finish(graph.add("Where", is_outlier, np.int64(-1), np.int64(1)), labels)
    graph.finish(score, scores)


def _convert_classifier(scope: Any, operator: Any, container: Any) -> None:
    """Write the labels and the probabilities of a CNN classifier."""
    classifier = operator.raw_operator
    labels, probabilities = operator.outputs
    graph = Graph(scope, container)
    network = classifier.net_.module_
    x = add_images(graph, add_rows(graph, operator.inputs, np.float32), network.config["image_shape"])
    for layer in (*network.features, network.head):
        x = add_layer(graph, layer, x)
    y = graph.add("Softmax", x, axis=1)
    if isinstance(probabilities.type, DoubleTensorType):
        y = graph.add("Cast", y, to=onnx.TensorProto.DOUBLE)
    graph.finish(y, probabilities)
    classes = get_label_classes(scope, classifier)
    classes = classes.astype(np.int64) if classes.dtype.kind in "biuf" else classes.astype(object)
    graph.finish(graph.add("Gather", classes, graph.add("ArgMax", x, axis=1, keepdims=0)), labels)


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
    graph, dtype = Graph(scope, container), _result_dtype(operator)
    x = add_rows(graph, operator.inputs, np.int64 if dtype.kind in "biu" else np.float64)
    y = _FUNCTIONS[operator.raw_operator.func](graph, x)
    y = graph.add("Cast", y, to=onnx.helper.np_dtype_to_tensor_dtype(dtype))  # rounds, as NumPy has done
    output_type = operator.outputs[0].type.to_onnx_type().tensor_type.elem_type
    graph.finish(graph.add("Cast", y, to=output_type), operator.outputs[0])


def _add_expm1(graph: Graph, x: str) -> str:
    """Write exp(x) - 1 as tanh(x / 2) (exp(x) + 1), which does not cancel near zero."""
    tanh = graph.add("Tanh", graph.add("Mul", x, np.float64(0.5)))
    return graph.add("Mul", tanh, graph.add("Add", graph.add("Exp", x), np.float64(1)))


# What writes each function that a FunctionTransformer may have.
_FUNCTIONS: dict[Any, Callable[[Graph, str], str]] = {
    np.abs: lambda graph, x: graph.add("Abs", x),
    np.exp: lambda graph, x: graph.add("Exp", x),
    np.expm1: _add_expm1,
    np.log: lambda graph, x: graph.add("Log", x),
    np.log1p: lambda graph, x: add_log1p(graph, x, np.float64(1)),
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
