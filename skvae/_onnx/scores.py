"""The ELBO of rows in a graph, at its fixed points."""

import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import onnx
from numpy.typing import ArrayLike
from sklearn.mixture import GaussianMixture

from skvae._model import bounds, ops
from skvae._model.networks import DenseNetwork
from skvae._model.vae import VAE
from skvae._onnx.graph import Graph, LogProb
from skvae._onnx.layers import add_hidden, add_logits, add_network, add_rows, add_softplus, array
from skvae.likelihoods import ContinuousBernoulliLikelihood, Likelihood, NormalLikelihood

__all__ = ["add_elbo", "add_support"]

_LOG_2PI = math.log(2 * math.pi)


def add_support(graph: Graph, model: VAE, variables: Sequence[Any], score: str) -> str:
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
    x = add_rows(graph, variables, np.float64)
    is_outside = graph.add(
        "Or",
        graph.add("Less", graph.reduce("ReduceMin", x, 1), np.float64(low)),
        graph.add("Less", np.float64(high), graph.reduce("ReduceMax", x, 1)),
    )
    return graph.add("Where", is_outside, np.float32(-np.inf), score)


def add_elbo(graph: Graph, model: VAE, x: str) -> str:
    """Write the ELBO of rows in the units of the likelihood, in float64, as `skvae._model.bounds` computes it.

    It is E log p(x | z) + E log p(z) + the entropy of the posterior, which are means over fixed points.
    """
    n_components, bound = model.n_components, bounds.LowerBound(model, 1)
    points = array(bound.points)
    encoded = add_network(graph, "encoder", model.encoder, x, model.n_features, 2 * n_components)
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


def _add_total(graph: Graph, values: str) -> str:
    """Write the sum over the last axis in float64."""
    return graph.add("Cast", graph.reduce("ReduceSum", values, -1), to=onnx.TensorProto.DOUBLE)


def _add_std_and_log(graph: Graph, raw: str, posterior_scale: str) -> tuple[str, str]:
    """Write the standard deviations of posteriors and their logarithms, as `skvae._model.ops` bounds them."""
    largest = np.float32(ops._LARGEST_LOG_STD)
    if posterior_scale == "log_variance":
        log_std = graph.add("Clip", graph.add("Mul", raw, np.float32(0.5)), -largest, largest)
        return graph.add("Exp", log_std), log_std
    std = graph.add("Add", add_softplus(graph, raw), np.float32(ops._SMALLEST_STD))
    std = graph.add("Min", std, np.exp(largest))
    return std, graph.add("Log", std)


def _add_log_prior(graph: Graph, prior: GaussianMixture | None, mean: str, std: str, z: str, n_points: int) -> str:
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


def _add_likelihood_at_points(graph: Graph, model: VAE, x: str, z: str, n_points: int) -> str:
    """Write the expected log likelihood as its mean over all points."""
    n_features, n_outputs = model.n_features, model.likelihood.n_parameters * model.n_features
    parameters = add_network(graph, "decoder", model.decoder, z, model.n_components, n_outputs)
    x = graph.add("Add", graph.add("Reshape", x, np.array([0, 1, n_features])), np.zeros((n_points, 1), np.float32))
    entries = _add_log_prob(graph, model, graph.add("Reshape", x, np.array([-1, n_features])), parameters)
    return graph.reduce("ReduceMean", graph.add("Reshape", _add_total(graph, entries), np.array([-1, n_points])), 1)


def _add_likelihood_by_moments(graph: Graph, model: VAE, x: str, z: str, n_points: int) -> str:
    """Write the expected log likelihood from three values of each parameter, which have its first four moments."""
    decoder = cast("DenseNetwork", model.decoder)
    hidden = add_hidden(graph, decoder, z)
    if decoder.path is not None:
        hidden = graph.add("Concat", hidden, z, axis=1)
    weight, bias = map(array, decoder.last_map)
    n_hidden, n_groups = weight.shape[1], bounds.n_groups_of_features(model.n_features)
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


def _add_three_points(graph: Graph, mean: str, second: str, third: str, fourth: str) -> list[tuple[str, str]]:
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


def _add_log_prob(graph: Graph, model: VAE, x: str, parameters: str) -> str:
    """Write the log density of each entry of rows `x`, which have a row of parameters each."""
    likelihood, n_features = model.likelihood, model.n_features
    if type(likelihood) is ContinuousBernoulliLikelihood:
        return _add_continuous_bernoulli_log_prob(graph, x, add_logits(graph, likelihood, parameters))
    if type(likelihood) is NormalLikelihood:
        return _add_normal_log_prob(graph, likelihood, x, parameters)
    joined = graph.add("Concat", x, parameters, axis=1)
    n_columns = (1 + likelihood.n_parameters) * n_features
    return graph.add_module("likelihood", LogProb(likelihood, n_features), joined, n_columns)


def _add_normal_log_prob(graph: Graph, likelihood: NormalLikelihood, x: str, parameters: str) -> str:
    """Write the log density of each entry of a normal likelihood, whatever its noise depends on."""
    constant_scale, n_features = likelihood._constant_scale, likelihood.config["n_features"]
    mean = parameters
    if constant_scale is not None:
        scale: ArrayLike = array(constant_scale)
        log_scale: ArrayLike = np.log(scale)
    else:
        if likelihood.config["noise"] == "network":
            mean = graph.slice(parameters, 0, n_features)
            raw = graph.slice(parameters, n_features, 2 * n_features)
        else:
            names = "offsets", "slopes", "lowest", "highest"
            offsets, slopes, lowest, highest = (array(likelihood.get_buffer(name)) for name in names)
            within = graph.add("Min", graph.add("Max", mean, lowest), highest)
            raw = graph.add("Add", graph.add("Mul", within, slopes), array(likelihood.level) + offsets)
        scale = graph.add("Add", add_softplus(graph, raw), np.float32(likelihood.config["min_scale"]))
        log_scale = graph.add("Log", scale)
    deviation = graph.add("Div", graph.add("Sub", x, mean), scale)
    squares = graph.add("Mul", graph.add("Mul", deviation, deviation), np.float32(-0.5))
    return graph.add("Sub", graph.add("Sub", squares, log_scale), np.float32(0.5 * _LOG_2PI))


def _add_continuous_bernoulli_log_prob(graph: Graph, x: str, e: str) -> str:
    """Write log(h + h / tanh(h)) + e (x - 1 where e > 0) with h = |e| / 2, which is the log density at logits e."""
    half = graph.add("Max", graph.add("Mul", graph.add("Abs", e), np.float32(0.5)), np.float32(ops._SMALLEST_HALF))
    peak = graph.add("Log", graph.add("Add", half, graph.add("Div", half, graph.add("Tanh", half))))
    end = graph.add("Where", graph.add("Less", np.float32(0), e), np.float32(1), np.float32(0))
    return graph.add("Add", peak, graph.add("Mul", e, graph.add("Sub", x, end)))
