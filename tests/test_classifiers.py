"""The CNN classifiers: scikit-learn's contract, and the networks they promise."""

import copy
import functools
import math
import pickle
import signal
import sys
import threading
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.callback import ScoringMonitor
from sklearn.datasets import load_digits
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks
from sklearn.utils.class_weight import compute_sample_weight
from skorch import NeuralNetClassifier
from torch.nn import functional

from skvae import NormalVAETransformer
from skvae.classifiers import MultilayerCNNClassifier, SimpleCNNClassifier

from conftest import Callback


@pytest.fixture(params=[SimpleCNNClassifier, MultilayerCNNClassifier])
def classifier_class(request):
    """Each of the two classifiers."""
    return request.param


@pytest.fixture(scope="session")
def labeled():
    """Digits in [0, 1] and their labels."""
    X, y = load_digits(return_X_y=True)
    return X[:400] / 16, y[:400]


EQUIVALENCE = "check_sample_weight_equivalence_on_dense_data"


@pytest.mark.draws_globally
@pytest.mark.parametrize(
    # A check of class weights trains for a thousand epochs.
    "classifier_class",
    [SimpleCNNClassifier, pytest.param(MultilayerCNNClassifier, marks=pytest.mark.slow)],
)
def test_check_estimator(classifier_class):
    expected = {EQUIVALENCE: "it asks for 1e-7, and the networks compute in float32"}
    results = estimator_checks.check_estimator(classifier_class(), on_skip=None, expected_failed_checks=expected)
    assert len(results) == 63
    assert {result["check_name"] for result in results if result["status"] != "passed"} <= {EQUIVALENCE}


def test_weights_are_repetitions_to_float32(classifier_class, monkeypatch):
    compare = functools.partial(estimator_checks.assert_allclose_dense_sparse, rtol=1e-5)
    monkeypatch.setattr(estimator_checks, "assert_allclose_dense_sparse", compare)
    getattr(estimator_checks, EQUIVALENCE)(classifier_class.__name__, classifier_class())


@pytest.mark.draws_globally
@pytest.mark.parametrize(
    "check",
    [
        estimator_checks.check_classifier_data_not_an_array,
        estimator_checks.check_dataframe_column_names_consistency,
        estimator_checks.check_param_validation,
    ],
    ids=lambda check: check.__name__,
)
def test_check_not_yielded(check, classifier_class):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "X (does not have valid|has) feature names", UserWarning)
        check(classifier_class.__name__, classifier_class(max_iter=2))


def logits_by_hand(classifier, X, shape):
    """Return the logits as torch's functions give them from the weights."""
    weights = dict(classifier.net_.module_.named_parameters())
    images = torch.tensor(X, dtype=torch.float32).reshape(-1, *shape).permute(0, 3, 1, 2)
    x = functional.conv2d(images, weights["features.0.weight"], weights["features.0.bias"], padding="same")
    if classifier.activation == "relu":
        x = x.relu()
    if isinstance(classifier, MultilayerCNNClassifier):
        x = functional.max_pool2d(x, 2, ceil_mode=True).flatten(1)
        x = functional.linear(x, weights["features.4.weight"], weights["features.4.bias"]).relu()
    return functional.linear(x.flatten(1), weights["head.weight"], weights["head.bias"])


@pytest.mark.parametrize("activation", ["relu", "identity"])
@pytest.mark.parametrize(
    ("n_features", "image_shape", "shape"),
    [(64, None, (8, 8, 1)), (20, None, (4, 5, 1)), (7, None, (1, 7, 1)), (60, (4, 5, 3), (4, 5, 3))],
)
def test_the_networks_are_those_described(classifier_class, activation, n_features, image_shape, shape, labeled):
    X, y = labeled
    X = np.ascontiguousarray(X[:, :n_features])
    classifier = classifier_class(activation=activation, image_shape=image_shape, max_iter=2, random_state=0)
    classifier.fit(X, y)
    expected = logits_by_hand(classifier, X, shape).softmax(1).detach().numpy()
    np.testing.assert_allclose(classifier.predict_proba(X), expected, atol=1e-6)


def test_number_of_weights(labeled):
    X, y = np.zeros((10, 784)), np.arange(10)
    sizes = {SimpleCNNClassifier: 320 + 25088 * 10 + 10, MultilayerCNNClassifier: 320 + 6272 * 128 + 128 + 1290}
    for classifier_class, size in sizes.items():
        module = classifier_class(max_iter=1).fit(X, y).net_.module_
        assert sum(parameter.numel() for parameter in module.parameters()) == size


def test_it_holds_a_skorch_net_that_works_by_itself(classifier_class, labeled):
    X, y = labeled
    classifier = classifier_class(max_iter=2, random_state=0).fit(X, y)
    assert isinstance(classifier.net_, NeuralNetClassifier)
    probabilities = classifier.net_.predict_proba(X.astype(np.float32))
    np.testing.assert_allclose(probabilities, classifier.predict_proba(X), atol=1e-6)


def test_learns(classifier_class, labeled):
    X, y = labeled
    classifier = classifier_class(max_iter=40, random_state=0).fit(X[:300], y[:300])
    assert classifier.score(X[300:], y[300:]) > 0.85


def test_history_against_predictions(classifier_class, labeled):
    X, y = labeled
    classifier = classifier_class(max_iter=3, random_state=0)
    classifier.fit(X[:300], y[:300], X_val=X[300:], y_val=y[300:])
    assert {name: len(values) for name, values in classifier.history_.items()} == {
        "loss": 3,
        "accuracy": 3,
        "validation_loss": 3,
        "validation_accuracy": 3,
    }
    assert classifier.history_["validation_accuracy"][-1] == pytest.approx(classifier.score(X[300:], y[300:]))
    probabilities = classifier.predict_proba(X[300:])[np.arange(100), y[300:]]
    assert classifier.history_["validation_loss"][-1] == pytest.approx(-np.log(probabilities).mean(), rel=1e-5)
    without = classifier_class(max_iter=3, random_state=0).fit(X[:300], y[:300])
    assert without.history_ == {name: classifier.history_[name] for name in ("loss", "accuracy")}


def test_loss_is_the_weighted_mean(classifier_class, labeled):
    X, y = labeled
    weights = np.random.RandomState(0).exponential(size=len(y))
    # Steps of this size change nothing, so that each minibatch meets the same network.
    classifier = classifier_class(max_iter=1, batch_size=7, learning_rate_init=1e-20, random_state=0)
    classifier.fit(X, y, weights)
    losses = -classifier.predict_log_proba(X)[np.arange(len(y)), y]
    assert classifier.history_["loss"] == [pytest.approx(np.average(losses, weights=weights), rel=1e-5)]
    assert classifier.history_["accuracy"] == [pytest.approx(classifier.score(X, y))]


@pytest.mark.parametrize("kind", [list, pd.Series, np.float32, np.int64, torch.tensor])
def test_weights_of_any_kind_and_size(classifier_class, labeled, kind):
    X, y = labeled
    weights = np.arange(len(y)) % 5
    convert = kind if kind in (list, pd.Series, torch.tensor) else weights.astype
    converted = convert(weights if kind in (list, pd.Series, torch.tensor) else kind)
    expected = classifier_class(max_iter=2, random_state=0).fit(X, y, weights).predict_proba(X)
    for sample_weight in (converted, 2.0**1000 * weights):
        classifier = classifier_class(max_iter=2, random_state=0).fit(X, y, sample_weight=sample_weight)
        np.testing.assert_array_equal(classifier.predict_proba(X), expected)
    alike = classifier_class(max_iter=2, random_state=0).fit(X, y, np.full(len(y), 3.0))
    without = classifier_class(max_iter=2, random_state=0).fit(X, y)
    np.testing.assert_allclose(alike.predict_proba(X), without.predict_proba(X), rtol=1e-4)


def test_rows_without_weight_count_in_no_minibatch(classifier_class, labeled):
    X, y = labeled
    weights = np.zeros(len(y))
    weights[[3, 200]] = 1  # most minibatches have no row that counts
    classifier = classifier_class(max_iter=30, batch_size=8, random_state=0).fit(X, y, weights)
    assert (classifier.predict(X[[3, 200]]) == y[[3, 200]]).all()
    assert classifier.classes_.tolist() == list(range(10))


@pytest.mark.parametrize("names", [np.arange(10), np.array([f"class {digit}" for digit in range(10)])])
def test_class_weights_multiply_the_weights_of_rows(classifier_class, labeled, names):
    X, y = labeled
    y, weights = names[y], 1.0 + np.arange(len(y)) % 3
    class_weight = dict(zip(names.tolist(), range(10), strict=True))
    classifier = classifier_class(class_weight=class_weight, max_iter=2, random_state=0).fit(X, y, weights)
    expected = classifier_class(max_iter=2, random_state=0).fit(X, y, weights * compute_sample_weight(class_weight, y))
    np.testing.assert_array_equal(classifier.predict_proba(X), expected.predict_proba(X))
    balanced = classifier_class(class_weight="balanced", max_iter=2, random_state=0).fit(X, y)
    expected = classifier_class(max_iter=2, random_state=0).fit(X, y, compute_sample_weight("balanced", y))
    np.testing.assert_allclose(balanced.predict_proba(X), expected.predict_proba(X), rtol=1e-4)


def test_balanced_classes_of_which_one_does_not_count(classifier_class, labeled):
    X, y = labeled
    classifier = classifier_class(class_weight="balanced", max_iter=2, random_state=0).fit(X, y, y != 3)
    assert np.isfinite(classifier.history_["loss"]).all()


def test_validation_has_no_weights(classifier_class, labeled):
    X, y = labeled
    classifier = classifier_class(class_weight={0: 100}, max_iter=2, random_state=0)
    classifier.fit(X[:300], y[:300], 1.0 + y[:300], X_val=X[300:], y_val=y[300:])
    logarithms = classifier.predict_log_proba(X[300:])[np.arange(100), y[300:]]
    assert classifier.history_["validation_loss"][-1] == pytest.approx(-logarithms.mean(), rel=1e-5)


@pytest.mark.parametrize(
    ("sample_weight", "class_weight", "message"),
    [
        (-1.0, None, "Negative values in data passed to `sample_weight`"),
        (np.nan, None, "Input sample_weight contains NaN"),
        (0.0, None, "must contain at least one non-zero number"),
        (1.0, {0: -1.0}, r"class_weight=\{0: -1.0\} must give finite weights, none negative"),
        (1.0, {0: np.inf}, "class_weight=.* must give finite weights"),
        (1.0, dict.fromkeys(range(10), 0), "not 0 to all rows that count"),
        (1.0, {11: 2.0}, r"The classes, \[0, 1.*are not in class_weight"),
        (1.0, "auto", "The 'class_weight' parameter"),
    ],
)
def test_weights_that_are_none(classifier_class, labeled, sample_weight, class_weight, message):
    X, y = labeled
    with pytest.raises(ValueError, match=message):
        classifier_class(class_weight=class_weight).fit(X, y, np.full(len(y), sample_weight))


def test_log_probabilities_of_what_is_next_to_impossible(classifier_class, labeled):
    X, y = labeled
    classifier = classifier_class(max_iter=5, random_state=0).fit(X, y)
    np.testing.assert_allclose(classifier.predict_log_proba(X), np.log(classifier.predict_proba(X)), atol=1e-12)
    assert (classifier.predict_proba(X * 1e6) == 0).any()
    assert np.isfinite(classifier.predict_log_proba(X * 1e6)).all()


class Weighing(Callback):
    def on_fit_task_begin(self, estimator, context, *, metadata):
        self.metadata = metadata

    def on_fit_task_end(self, estimator, context):
        return False


def test_callbacks_get_the_weights(classifier_class, labeled):
    X, y = labeled
    monitor, weighing = ScoringMonitor(scoring="accuracy"), Weighing()
    classifier = classifier_class(max_iter=1, random_state=0).set_callbacks(monitor, weighing).fit(X, y, y < 5)
    np.testing.assert_array_equal(weighing.metadata["sample_weight"], y < 5)
    (logged,) = (row["accuracy"] for row in monitor.get_logs().data if row["task_name"] == "epoch")
    assert logged == pytest.approx(classifier.score(X, y, y < 5))


def test_first_loss_is_that_of_the_first_weights(classifier_class, labeled):
    X, y = labeled
    classifier = classifier_class(max_iter=1, batch_size=1000, random_state=0).fit(X, y)
    # Before any step, Glorot weights hardly tell the classes apart.
    assert classifier.history_["loss"][0] == pytest.approx(math.log(10), abs=0.3)


@pytest.mark.parametrize(
    "labels",
    [
        np.array(["shirt", "bag", "boot"], dtype=object),
        np.array([-1.0, 0.0, 7.0]),
        np.array([True, False, True]),
        pd.Categorical(["a", "b", "c"]),
    ],
    ids=["str", "float", "bool", "categorical"],
)
def test_any_labels(classifier_class, labeled, labels):
    X, y = labeled
    y = labels[y % 3]
    classifier = classifier_class(max_iter=2, random_state=0).fit(X, y)
    assert set(classifier.predict(X)) <= set(y)
    np.testing.assert_array_equal(classifier.classes_, np.unique(y))


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float16, np.float64, ">f4"])
def test_any_dtype(classifier_class, labeled, dtype):
    X, y = labeled
    X = (X * 16).astype(np.uint8)
    reference = classifier_class(max_iter=2, random_state=0).fit(X.astype(np.float32), y).predict_proba(X)
    np.testing.assert_array_equal(
        classifier_class(max_iter=2, random_state=0).fit(X.astype(dtype), y).predict_proba(X.astype(dtype)), reference
    )


def test_random_state_alone_decides(classifier_class, labeled):
    X, y = labeled
    first, second = (classifier_class(max_iter=2, random_state=3).fit(X, y).predict_proba(X) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, classifier_class(max_iter=2, random_state=4).fit(X, y).predict_proba(X))
    assert not np.array_equal(*(classifier_class(max_iter=2).fit(X, y).predict_proba(X) for _ in range(2)))


@pytest.mark.parametrize(
    ("change", "value", "default"),
    [(torch.set_default_device, "meta", None), (torch.set_default_dtype, torch.float64, torch.float32)],
    ids=["device", "dtype"],
)
def test_defaults_of_torch_have_no_part_in_it(classifier_class, labeled, change, value, default):
    X, y = labeled
    expected = classifier_class(max_iter=2, random_state=0).fit(X, y).predict_proba(X)
    change(value)
    try:
        with torch.inference_mode():
            classifier_class(max_iter=1, device="cpu").fit(X, y)
        changed = classifier_class(max_iter=2, random_state=0, device="cpu").fit(X, y).predict_proba(X)
    finally:
        change(default)
    np.testing.assert_array_equal(changed, expected)


def test_fits_in_threads_do_not_disturb_each_other(classifier_class, labeled):
    X, y = labeled
    alone = classifier_class(max_iter=3, random_state=0).fit(X, y).predict_proba(X)
    results = [None] * 4

    def fit(i):
        results[i] = classifier_class(max_iter=3, random_state=0).fit(X, y).predict_proba(X)

    threads = [threading.Thread(target=fit, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        np.testing.assert_array_equal(result, alone)


def test_pickles_small_and_without_data(classifier_class, labeled):
    X, y = labeled
    classifier = classifier_class(max_iter=5, batch_size=4, random_state=0)
    classifier.fit(X[:300], y[:300], X_val=X[300:], y_val=y[300:])
    weights = sum(parameter.numel() * 4 for parameter in classifier.net_.module_.parameters())
    for copied in (pickle.loads(pickle.dumps(classifier)), copy.deepcopy(classifier)):
        np.testing.assert_array_equal(copied.predict_proba(X), classifier.predict_proba(X))
        np.testing.assert_array_equal(copied.net_.predict(X.astype(np.float32)), classifier.predict(X))
        assert copied.history_ == classifier.history_
        assert isinstance(copied.net_, NeuralNetClassifier)
        copied.set_params(max_iter=1).fit(X, y)
    assert len(pickle.dumps(classifier)) < 1.1 * weights + 50_000


def test_a_clone_of_the_net_has_learned_nothing(classifier_class, labeled):
    X, y = labeled
    X = X.astype(np.float32)
    classifier = classifier_class(max_iter=20, random_state=0).fit(X, y)
    assert classifier.net_.score(X, y) > 0.8
    assert clone(classifier.net_).initialize().score(X, y) < 0.4
    assert classifier.net_.partial_fit(X, y).score(X, y) > 0.8


def test_loads_whatever_its_parameters_have_become(classifier_class, labeled):
    X, y = labeled
    classifier = classifier_class(max_iter=2, random_state=0).fit(X, y)
    expected = classifier.predict_proba(X)
    classifier.set_params(learning_rate_init=-1, batch_size="a", verbose="b", activation="c", image_shape=7)
    for copied in (pickle.loads(pickle.dumps(classifier)), copy.copy(classifier)):
        np.testing.assert_array_equal(copied.predict_proba(X), expected)
    copied.net_.module_.head.bias.data += 1
    np.testing.assert_array_equal(classifier.predict_proba(X), expected)


def test_stands_behind_a_vae(classifier_class, labeled):
    X, y = labeled
    vae = NormalVAETransformer(20, max_iter=10, random_state=0)
    pipeline = make_pipeline(vae, classifier_class(max_iter=10, random_state=0)).fit(X, y)
    assert pipeline[-1].net_.module_.config["image_shape"] == (4, 5, 1)
    assert pipeline.score(X, y) > 0.3


def test_callbacks_see_every_epoch_and_may_stop(classifier_class, labeled):
    X, y = labeled
    monitor = ScoringMonitor(scoring="accuracy")
    classifier = classifier_class(max_iter=3, random_state=0).set_callbacks(monitor).fit(X, y)
    epochs = [row["accuracy"] for row in monitor.get_logs().data if row["task_name"] == "epoch"]
    assert len(epochs) == 3
    assert epochs[-1] == pytest.approx(classifier.score(X, y))
    assert epochs[0] == pytest.approx(classifier_class(max_iter=1, random_state=0).fit(X, y).score(X, y))
    np.testing.assert_array_equal(
        classifier.predict_proba(X), classifier_class(max_iter=3, random_state=0).fit(X, y).predict_proba(X)
    )


class StopAtOnce(Callback):
    def on_fit_task_end(self, estimator, context):
        return True


def test_a_callback_may_stop(classifier_class, labeled):
    classifier = classifier_class(max_iter=5).set_callbacks(StopAtOnce()).fit(*labeled)
    assert classifier.n_iter_ == len(classifier.history_["loss"]) == 1


class Interrupt(Callback):
    def on_fit_task_end(self, estimator, context):
        if context.task_name == "epoch":
            signal.raise_signal(signal.SIGINT)


def test_ctrl_c_is_not_swallowed(classifier_class, labeled):
    X, y = labeled
    classifier = classifier_class(max_iter=2, random_state=0).fit(X, y)
    before = classifier.predict_proba(X)
    old = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            classifier.set_callbacks(Interrupt()).fit(X[::-1], y[::-1])
    finally:
        signal.signal(signal.SIGINT, old)
    np.testing.assert_array_equal(classifier.predict_proba(X), before)


def test_what_interrupts_a_minibatch_is_not_swallowed(classifier_class, labeled, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(NeuralNetClassifier, "train_step", interrupted)
    classifier = classifier_class(max_iter=2)
    with pytest.raises(KeyboardInterrupt):
        classifier.fit(*labeled)
    assert not hasattr(classifier, "net_")


def test_divergence_is_an_error(classifier_class, labeled):
    X, y = labeled
    classifier = classifier_class(max_iter=2, random_state=0).fit(X, y)
    before = classifier.predict_proba(X)
    with pytest.raises(ValueError, match=r"Training diverged in epoch \d: .*learning_rate_init"):
        classifier.set_params(learning_rate_init=1e30, max_iter=5).fit(X, y)
    np.testing.assert_array_equal(classifier.predict_proba(X), before)


def test_errors_say_what_is_wrong(classifier_class, labeled):
    X, y = labeled
    classifier = classifier_class(max_iter=1)
    with pytest.raises(ValueError, match="X_val and y_val belong together"):
        classifier.fit(X, y, X_val=X)
    with pytest.raises(ValueError, match="y_val contains labels that y does not, such as 11"):
        classifier.fit(X, y, X_val=X, y_val=np.where(y == 3, 11, y))
    with pytest.raises(ValueError, match="y_val contains labels that y does not, such as None"):
        classifier.fit(X, y, X_val=X[:2], y_val=np.array([None, "a"], dtype=object))
    with pytest.raises(ValueError, match="X_val: Found array with 0 sample"):
        classifier.fit(X, y, X_val=X[:0], y_val=y[:0])
    with pytest.raises(ValueError, match="X_val has 400 rows and y_val 399 labels"):
        classifier.fit(X, y, X_val=X, y_val=y[1:])
    with pytest.raises(ValueError, match="X_val: X has 63 features"):
        classifier.fit(X, y, X_val=X[:, 1:], y_val=y)
    with pytest.raises(ValueError, match=r"image_shape=\(7, 7\) describes 49 features, but X has 64"):
        classifier_class(image_shape=(7, 7)).fit(X, y)
    with pytest.raises(ValueError, match="Unknown label type: continuous"):
        classifier.fit(X, y + 0.5)
    with pytest.raises(ValueError, match="too large for dtype"):
        classifier.fit(X * 1e300, y)
    with pytest.raises(ValueError, match="device='quantum' cannot be used"):
        classifier_class(device="quantum").fit(X, y)


def test_embed_is_what_the_last_layer_sees(classifier_class, labeled):
    X, y = labeled
    classifier = classifier_class(max_iter=2, random_state=0).fit(X, y)
    head = classifier.net_.module_.head
    logits = classifier.embed(X) @ head.weight.detach().numpy().T + head.bias.detach().numpy()
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probabilities, classifier.predict_proba(X), atol=1e-6)


def test_what_overflows_is_an_error(classifier_class, labeled):
    X, y = labeled
    classifier = classifier_class(max_iter=2, random_state=0).fit(X, y)
    far = np.where(np.random.RandomState(0).rand(5, 64) > 0.5, 3.4e38, -3.4e38)
    for method in (classifier.predict, classifier.predict_proba):
        with pytest.raises(ValueError, match=r"of row \d of X is not finite. Its values are out of proportion"):
            method(far)
    with pytest.raises(ValueError, match="The validation loss is (nan|inf) after epoch 1. .*X_val"):
        classifier.fit(X, y, X_val=far, y_val=y[:5])


def test_what_the_last_step_leaves_is_tried(classifier_class, labeled):
    X, y = labeled
    classifier = classifier_class(max_iter=2, random_state=0).fit(X, y)
    before = classifier.predict_proba(X).tobytes()
    with pytest.raises(ValueError, match="diverged in epoch 1: .*its last step has left.*smaller learning_rate_init"):
        classifier.set_params(learning_rate_init=1e30, max_iter=1, batch_size=1000).fit(X, y)
    assert classifier.predict_proba(X).tobytes() == before


def test_autocast_outside_has_no_part_in_it(classifier_class, labeled):
    X, y = labeled
    expected = classifier_class(max_iter=2, random_state=0).fit(X, y).predict_proba(X)
    with torch.autocast("cpu", torch.bfloat16):
        within = classifier_class(max_iter=2, random_state=0).fit(X, y).predict_proba(X)
    np.testing.assert_array_equal(within, expected)


@pytest.mark.parametrize("labels", [["a", None, "b"], ["a", 1, "b"], ["a", pd.NA, "b"]])
def test_labels_of_several_kinds(classifier_class, labels):
    with pytest.raises((TypeError, ValueError), match=r"\by\b"):
        classifier_class().fit(np.eye(3, 4), pd.Series(labels, dtype=object))


def test_errors_name_the_culprit(classifier_class, labeled):
    X, y = labeled
    with pytest.raises(ValueError, match="The 'learning_rate_init' parameter"):
        classifier_class(learning_rate_init=3e38).fit(X, y)
    with pytest.raises(ValueError, match="^y_val: y should be a 1d array"):
        classifier_class().fit(X, y, X_val=X, y_val=np.c_[y, y])
    with pytest.raises(ValueError, match="^X cannot be read as an array of numbers"):
        classifier_class().fit(torch.ones(4, 4, requires_grad=True), [0, 1, 0, 1])


@pytest.mark.parametrize("verbose", [0, 1])
def test_no_standard_output_is_no_error(classifier_class, labeled, verbose, monkeypatch):
    X, y = labeled
    expected = classifier_class(max_iter=2, random_state=0).fit(X, y).predict_proba(X)
    monkeypatch.setattr(sys, "stdout", None)
    classifier = classifier_class(max_iter=2, random_state=0, verbose=verbose).fit(X, y)
    assert classifier.predict_proba(X).tobytes() == expected.tobytes()


def test_verbose_prints_a_line_for_each_epoch(classifier_class, labeled, capsys):
    X, y = labeled
    classifier_class(max_iter=2, verbose=0).fit(X, y)
    assert capsys.readouterr().out == ""
    classifier_class(max_iter=2, verbose=1).fit(X, y)
    assert len(capsys.readouterr().out.splitlines()) == 4


@pytest.mark.parametrize("shape", [(2, 16), (3, 1), (5, 2), (130, 16)])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.uint8])
def test_small_data_give_no_warning(classifier_class, shape, dtype):
    X, y = np.ones(shape, dtype), np.arange(shape[0]) % 2
    X.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        classifier_class(max_iter=2).fit(X, y, X_val=X, y_val=y).score(X, y)
