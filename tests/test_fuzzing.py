"""Whatever is handed in, the outcome is a valid result, or a ValueError or TypeError that names the culprit."""

import os
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skvae import ContinuousBernoulliVAETransformer, NormalVAETransformer
from skvae.classifiers import MultilayerCNNClassifier, SimpleCNNClassifier

N_EXAMPLES = int(os.environ.get("SKVAE_FUZZ_EXAMPLES", "40"))

SHAPES = [(0, 3), (3, 0), (1, 1), (1, 7), (2, 1), (5, 16), (17, 20), (3, 10_000)]

DTYPES = [
    "?",
    "u1",
    "u2",
    "u4",
    "u8",
    "i1",
    "i2",
    "i4",
    "i8",
    "f2",
    "f4",
    "f8",
    "g",
    ">f4",
    ">i2",
    "O",
    "S8",
    "U8",
    "c8",
]

POISONS = [None, None, None, np.nan, np.inf, -np.inf, 1e38, 1e300, -1e300]


@st.composite
def data(draw):
    """Draw an array or DataFrame, whether anything is wrong with it, and the number of rows with a missing entry."""
    shape, dtype = draw(st.sampled_from(SHAPES)), draw(st.sampled_from(DTYPES))
    values = np.random.RandomState(draw(st.integers(0, 9))).uniform(0, 100, shape)
    poison = draw(st.sampled_from(POISONS))
    kind = np.dtype(dtype).kind
    if poison is not None and values.size and kind in ("f", "O"):
        values[draw(st.integers(0, shape[0] - 1)), draw(st.integers(0, shape[1] - 1))] = poison
    elif draw(st.booleans()) and values.size:
        values[:, draw(st.integers(0, shape[1] - 1))] = 3  # a constant column
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        X = np.asarray(values.astype(dtype), order=draw(st.sampled_from("CF")))
    largest = np.nanmax(np.abs(values), initial=0)
    fits_float32 = np.isfinite(largest) and largest < 3e38 and (kind != "f" or not np.isinf(X.astype("f8")).any())
    n_missing = int(np.isnan(values).any(axis=1).sum()) if values.size and kind in ("f", "O") else 0
    wrong = not values.size or kind in "SUc" or not fits_float32
    form = draw(st.sampled_from(["array", "array", "reversed", "read-only", "frame", "list"]))
    if form == "reversed":
        X = X[::-1, ::-1]
    elif form == "read-only":
        X.flags.writeable = False
    elif form == "frame" and kind not in "gSUc" and X.dtype.isnative:
        names = draw(st.sampled_from(["", "a", "é\n", "__", "normalvaetransformer"]))
        X = pd.DataFrame(X, columns=[names + str(i) for i in range(shape[1])])
    elif form == "list" and shape[1] < 100:
        X = X.tolist()
        wrong = wrong and not (kind in "SU" and values.size)  # scikit-learn may read numbers in lists of strings
        wrong = None if kind in "SU" else wrong
    return X, wrong, n_missing


# Values at and beyond the bounds of each parameter: valid ones, and ones that are not.
PARAMETERS = {
    "n_components": ([1, 2, 30, np.int64(3)], [0, -1, 2.5, "3", None, 10**9]),
    "encoder": (["dense", "auto"], ["cnn", 3, None]),
    "hidden_layer_sizes": ([(), 5, (3, 4), [2], np.array([3])], [0, (0,), (-1, 2), "ab", None, (2.5,)]),
    "dropout": ([0.0, 0.5, 0.999], [-0.1, 1.0, "a", None]),
    "image_shape": ([None], [(0, 3), (3,), 5, "ab", (1.5, 2), (7, 11, 13)]),
    "init": (["pca", "random"], ["nndsvd", None, 3]),
    "prior": (["normal", "mixture"], ["uniform", None, 3]),
    "min_scale": ([1e-6, 10.0], [0, -1, np.nan, "a", None]),
    "beta": ([0, 1e-30, 1e6], [-1, np.inf, np.nan, "a", None]),
    "learning_rate_init": ([1e-30, 1e-3], [0, -1, np.nan, "a", None]),
    "learning_rate": (["constant", "cosine"], ["adaptive", None, 1e-3]),
    "weight_decay": ([0, 0.1, 1e6, "auto"], [-1, np.inf, np.nan, "a", None]),
    "batch_size": ([1, 10**9, "auto"], [0, -5, 1.5, "all", None]),
    "max_iter": ([1, 2], [0, -1, 1.5, "auto"]),
    "clip_value": ([None, 1e-30, 5], [0, -1, np.nan, "a"]),
    "early_stopping": ([False], ["yes", 3, None]),
    "validation_fraction": ([0.01, 0.9], [0.0, 1.0, -1, "a", None]),
    "n_iter_no_change": ([1, 100], [0, 1.5, None]),
    "tol": ([0, 1e9], [-1, np.nan, "a", None]),
    "warm_start": ([True], ["yes", None]),
    "checkpoint": ([None], [5, ["a"]]),
    "random_state": ([0, 2**32 - 1, None, np.random.RandomState(0)], [-1, "a", 1.5, 2**40]),
    "device": (["cpu", "auto"], ["quantum", "cuda:99", None, 1.5]),
    "verbose": ([0, False], [-1, "a", None]),
}

OWN_PARAMETERS = {
    NormalVAETransformer: {"noise": (["feature", "shared", "network"], ["row", None, 3])},
    ContinuousBernoulliVAETransformer: {
        "data_range": ([None, (-1e3, 1e38), (-1e4, 1e4)], [(1, 0), (0, 1e39), (0, np.nan), (0,), 5, "ab"]),
    },
}

CLASSIFIER_PARAMETERS = {
    "activation": (["relu", "identity"], ["tanh", 3, None]),
    **{name: PARAMETERS[name] for name in ("image_shape", "learning_rate_init", "random_state", "device", "verbose")},
    "batch_size": ([1, 10**9], [0, -5, 1.5, "auto", None]),
    "max_iter": ([1, 2], [0, -1, 1.5, None]),
}


@st.composite
def parameters(draw, choices):
    """Draw a few parameters, and the name of one that is not valid, or None."""
    names = draw(st.lists(st.sampled_from(sorted(choices)), max_size=4, unique=True))
    drawn = {name: draw(st.sampled_from(choices[name][0])) for name in names}
    culprit = draw(st.sampled_from([None, None, *sorted(choices)]))
    if culprit is not None:
        drawn[culprit] = draw(st.sampled_from(choices[culprit][1]))
    return drawn, culprit


def fuzz(test):
    """Run a test on random inputs, each with a limit of time."""
    health = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
    return settings(max_examples=N_EXAMPLES, deadline=20_000, suppress_health_check=health, database=None)(test)


def check_error(error, culprit, wrong, changes):
    """Fail unless the error names the parameter at fault, or the data where they are."""
    text = str(error)
    if culprit is None and wrong is False:
        # What is valid by itself, and not together, such as a range too narrow for the data.
        assert any(name in text for name in changes), text
        return
    words = ["X", "array", "sample", "feature", "dtype", "Complex", "NaN", "infinity", "could not convert", "Unable"]
    about_data = wrong is not False and any(word in text for word in words)
    about_parameter = culprit is not None and culprit in text
    assert about_parameter or about_data, f"{culprit=} {wrong=}: {text}"


def check_fuzzed(estimator_class, choices, drawn, X, wrong, n_missing):
    changes, culprit = drawn
    wrong = True if n_missing == len(X) > 0 else wrong  # a column with nothing in it
    base = {"n_components": 2, "encoder": "dense", "hidden_layer_sizes": (4,), "max_iter": 1, "random_state": 0}
    estimator = estimator_class(**base | changes)
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            estimator.fit(X)
    except (ValueError, TypeError) as error:
        assert not hasattr(estimator, "module_")
        if "Training diverged" in str(error):
            return
        check_error(error, culprit, wrong, changes)
        return
    assert culprit is None, f"{culprit}={changes[culprit]!r} went through"
    assert not wrong
    n_rows, n_columns = np.shape(X)
    Z = estimator.transform(X)
    assert Z.shape == (n_rows, estimator.n_components)
    assert estimator.inverse_transform(Z).shape == (n_rows, n_columns)
    for output in (Z, estimator.inverse_transform(Z), estimator.sample(2, random_state=0), *estimator.posterior(X)):
        assert output.dtype == np.float32
        assert np.isfinite(output).all()
    assert estimator.score_samples(X).shape == (n_rows,)


@fuzz
@given(drawn=parameters(PARAMETERS | OWN_PARAMETERS[NormalVAETransformer]), rows=data())
def test_normal(drawn, rows):
    check_fuzzed(NormalVAETransformer, PARAMETERS, drawn, *rows)


@fuzz
@given(drawn=parameters(PARAMETERS | OWN_PARAMETERS[ContinuousBernoulliVAETransformer]), rows=data())
def test_continuous_bernoulli(drawn, rows):
    check_fuzzed(ContinuousBernoulliVAETransformer, PARAMETERS, drawn, *rows)


@pytest.mark.parametrize("classifier_class", [SimpleCNNClassifier, MultilayerCNNClassifier])
@fuzz
@given(drawn=parameters(CLASSIFIER_PARAMETERS), rows=data())
def test_classifiers(classifier_class, drawn, rows):
    changes, culprit = drawn
    X, wrong, n_missing = rows
    wrong = True if n_missing else wrong
    classifier = classifier_class(**{"max_iter": 1, "random_state": 0} | changes)
    y = np.array(["a", "b"])[np.arange(len(X)) % 2]
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            classifier.fit(X, y)
    except (ValueError, TypeError) as error:
        assert not hasattr(classifier, "net_")
        if "Training diverged" not in str(error):
            check_error(error, culprit, wrong, changes)
        return
    assert culprit is None, f"{culprit}={changes[culprit]!r} went through"
    assert not wrong
    probabilities = classifier.predict_proba(X)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert set(classifier.predict(X)) <= set(y)


@fuzz
@given(rows=data())
def test_a_fitted_model_survives_whatever_it_is_given(rows):
    estimator = NormalVAETransformer(2, hidden_layer_sizes=(4,), max_iter=1, random_state=0)
    X = np.random.RandomState(0).uniform(0, 100, (20, 16))
    before = estimator.fit(X).transform(X)
    for method in (estimator.transform, estimator.score_samples, estimator.inverse_transform, estimator.partial_fit):
        trained = method == estimator.partial_fit
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                result = method(rows[0])
        except (ValueError, TypeError):
            trained = False
        else:
            assert trained or np.isfinite(result).all()
        if not trained:
            np.testing.assert_array_equal(estimator.transform(X), before)
