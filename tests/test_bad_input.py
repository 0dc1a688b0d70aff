"""Bad input of every kind: the message it gets, and that it never costs a fitted model."""

import re

import ml_dtypes
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import sklearn
import torch
from PIL import Image
from skorch.helper import SliceDataset
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

from skvae import ContinuousBernoulliVAETransformer, NormalVAETransformer
from skvae.classifiers import MultilayerCNNClassifier, SimpleCNNClassifier

from conftest import bits, make

NORMAL, CB = NormalVAETransformer, ContinuousBernoulliVAETransformer
BOTH = (NORMAL, CB)


def with_entry(value, dtype=float):
    X = np.ones((5, 64), dtype)
    X[2, 3] = value
    return X


# What is handed to fit, transform, posterior, score_samples and partial_fit of a model of 64 features: the message.
BAD_DATA = {
    "infinity": (lambda: with_entry(np.inf), "Input X contains infinity or a value too large"),
    "minus infinity": (lambda: with_entry(-np.inf, np.float32), "Input X contains infinity or a value too large"),
    "too large for float32": (lambda: with_entry(1e39), r"X contains 1e\+39, a value too large for dtype\('float32'\)"),
    "complex": (lambda: with_entry(1j, complex), "Complex data not supported"),
    "sparse": (lambda: scipy.sparse.csr_matrix(np.eye(64)), "Sparse data was passed for X, but dense data is required"),
    "one-dimensional": (lambda: np.ones(64), "Expected 2D array, got 1D array instead"),
    "three-dimensional": (lambda: np.ones((2, 8, 8)), "Found array with dim 3"),
    "scalar": (lambda: 3.0, "Expected 2D array, got scalar array instead"),
    "no rows": (lambda: np.ones((0, 64)), r"Found array with 0 sample\(s\)"),
    "no columns": (lambda: np.ones((5, 0)), r"Found array with 0 feature\(s\)"),
    "strings": (lambda: np.full((5, 64), "a"), "dtype='numeric' is not compatible with arrays of bytes/strings"),
    "objects": (lambda: np.full((5, 64), "a", dtype=object), "could not convert string to float"),
    "None": (lambda: None, "Expected 2D array, got scalar array instead"),
    "dates": (lambda: np.full((5, 64), np.datetime64("2020-01-01")), "X has dtype datetime64.*numbers are expected"),
    "durations": (lambda: np.full((5, 64), np.timedelta64(1, "D")), "X has dtype timedelta64.*numbers are expected"),
    "ragged": (lambda: [[1, 2], [3]], "inhomogeneous shape"),
}


@pytest.mark.parametrize("method", ["fit", "partial_fit", "transform", "posterior", "score_samples", "score"])
@pytest.mark.parametrize("bad", BAD_DATA)
def test_bad_data(fitted, digits, bad, method):
    make_data, message = BAD_DATA[bad]
    before, attributes = bits(fitted, digits), set(vars(fitted))
    with pytest.raises((ValueError, TypeError), match=message):
        getattr(fitted, method)(make_data())
    assert bits(fitted, digits) == before
    assert set(vars(fitted)) == attributes


@pytest.mark.parametrize("bad", [name for name in BAD_DATA if name != "None"])
def test_bad_validation_data_is_called_by_its_name(fitted, digits, bad):
    make_data, _ = BAD_DATA[bad]
    before = bits(fitted, digits)
    with pytest.raises((ValueError, TypeError)) as caught:
        fitted.fit(digits, X_val=make_data())
    message = str(caught.value)
    assert "X_val" in message or "X" not in message
    assert bits(fitted, digits) == before


BAD_CALLS = {
    "width of X": (lambda e, X: e.transform(X[:, :9]), "X has 9 features, but .* is expecting 64 features as input"),
    "width of X in partial_fit": (lambda e, X: e.partial_fit(X[:, :9]), "X has 9 features, but .* is expecting 64"),
    "width of X_val": (lambda e, X: e.fit(X, X_val=X[:, :9]), "X_val: X has 9 features, but .* is expecting 64"),
    "width of Z": (lambda e, X: e.inverse_transform(X), "Z has 64 columns, but the model has 3 latent components"),
    "NaN in Z": (lambda e, X: e.inverse_transform(np.full((1, 3), np.nan)), "Input Z contains NaN"),
    "one-dimensional Z": (lambda e, X: e.inverse_transform(np.zeros(3)), "Expected 2D array, got 1D array instead"),
    "empty Z": (lambda e, X: e.inverse_transform(np.zeros((0, 3))), r"Found array with 0 sample\(s\)"),
    "large Z": (lambda e, X: e.inverse_transform(np.full((1, 3), 1e39)), "Input Z contains infinity or a value too"),
    "no samples": (lambda e, X: e.sample(0), "n_samples must be a positive integer; got 0"),
    "negative samples": (lambda e, X: e.sample(-3), "n_samples must be a positive integer; got -3"),
    "fractional samples": (lambda e, X: e.sample(2.5), "n_samples must be a positive integer; got 2.5"),
    "boolean samples": (lambda e, X: e.sample(True), "n_samples must be a positive integer; got True"),
    "seed of sample": (lambda e, X: e.sample(random_state="x"), "'x' cannot be used to seed"),
    "no importance samples": (
        lambda e, X: e.score_samples(X, n_importance_samples=0),
        "n_importance_samples must be a positive integer; got 0",
    ),
    "text importance samples": (
        lambda e, X: e.score_samples(X, n_importance_samples="many"),
        "n_importance_samples must be a positive integer; got 'many'",
    ),
}


@pytest.mark.parametrize("bad", BAD_CALLS)
def test_bad_call(estimator_class, digits, bad):
    call, message = BAD_CALLS[bad]
    fitted = make(estimator_class).fit(digits)
    before = bits(fitted, digits)
    with pytest.raises((ValueError, TypeError), match=message):
        call(fitted, digits)
    assert bits(fitted, digits) == before


def test_other_feature_names(estimator_class, digits):
    frame = pd.DataFrame(digits).add_prefix("p")
    fitted = make(estimator_class).fit(frame)
    before = fitted.transform(frame).tobytes()
    for call in (fitted.transform, fitted.partial_fit, fitted.score):
        with pytest.raises(ValueError, match="The feature names should match those that were passed during fit"):
            call(frame.add_prefix("q"))
    assert fitted.transform(frame).tobytes() == before


class Shaped(nn.Module):
    """Returns zeros of a fixed shape, or something that is no tensor."""

    def __init__(self, n_columns):
        super().__init__()
        self.n_columns = n_columns

    def forward(self, x):
        return torch.zeros(len(x), self.n_columns) if self.n_columns else "nothing"


class Failing(nn.Module):
    def forward(self, x):
        raise RuntimeError("no way")


# Estimators, parameters, message.
BAD_PARAMETERS = [
    (BOTH, {"n_components": 0}, "The 'n_components' parameter of .* must be an int in the range"),
    (BOTH, {"n_components": 2.0}, "The 'n_components' parameter"),
    (BOTH, {"n_components": 10**6}, "The 'n_components' parameter"),
    (BOTH, {"encoder": "deep"}, "The 'encoder' parameter of .* must be a str among"),
    (BOTH, {"encoder": nn.Linear}, "The 'encoder' parameter"),
    (BOTH, {"encoder": Shaped(5)}, r"encoder must map .*\(batch, 64\) to \(batch, 6\).*it returned \(2, 5\)"),
    (BOTH, {"encoder": Shaped(0)}, r"encoder must map .*it returned str"),
    (BOTH, {"encoder": Failing()}, r"encoder must map .*it raised RuntimeError\('no way'\)"),
    (BOTH, {"decoder": "conv"}, "The 'decoder' parameter"),
    ((NORMAL,), {"decoder": Shaped(64), "noise": "network"}, r"decoder must map .*\(batch, 3\) to \(batch, 128\)"),
    (BOTH, {"decoder": Shaped(128)}, r"decoder must map .*\(batch, 3\) to \(batch, 64\)"),
    (BOTH, {"hidden_layer_sizes": (8, 0)}, r"hidden_layer_sizes must hold positive integers; got \(8, 0\)"),
    (BOTH, {"hidden_layer_sizes": np.array(8.5)}, "hidden_layer_sizes must hold positive integers"),
    (BOTH, {"hidden_layer_sizes": (8.5,)}, "hidden_layer_sizes must hold positive integers"),
    (BOTH, {"hidden_layer_sizes": -1}, "The 'hidden_layer_sizes' parameter"),
    (BOTH, {"hidden_layer_sizes": "8"}, "The 'hidden_layer_sizes' parameter"),
    (BOTH, {"dropout": 1.0}, "The 'dropout' parameter"),
    (BOTH, {"dropout": -0.1}, "The 'dropout' parameter"),
    (BOTH, {"image_shape": (8,)}, r"image_shape must be \(height, width\) or"),
    (BOTH, {"image_shape": (8, 8.0)}, r"image_shape must be \(height, width\) or"),
    (BOTH, {"image_shape": (8, 9)}, r"image_shape=\(8, 9\) describes 72 features, but X has 64 features"),
    (BOTH, {"image_shape": "8x8"}, "The 'image_shape' parameter"),
    (BOTH, {"beta": -1.0}, "The 'beta' parameter"),
    (BOTH, {"beta": np.nan}, "The 'beta' parameter"),
    (BOTH, {"beta": 1e39}, "The 'beta' parameter"),
    (BOTH, {"learning_rate_init": 0.0}, "The 'learning_rate_init' parameter"),
    (BOTH, {"learning_rate_init": 10**400}, "The 'learning_rate_init' parameter"),
    (BOTH, {"batch_size": 0}, "The 'batch_size' parameter"),
    (BOTH, {"batch_size": "all"}, "The 'batch_size' parameter"),
    (BOTH, {"max_iter": 0}, "The 'max_iter' parameter"),
    (BOTH, {"max_iter": "auto"}, "The 'max_iter' parameter"),
    (BOTH, {"init": "nndsvd"}, "The 'init' parameter"),
    (BOTH, {"prior": "uniform"}, "The 'prior' parameter"),
    (BOTH, {"learning_rate": "adaptive"}, "The 'learning_rate' parameter"),
    (BOTH, {"weight_decay": -1.0}, "The 'weight_decay' parameter"),
    (BOTH, {"weight_decay": 1e39}, "The 'weight_decay' parameter"),
    (BOTH, {"weight_decay": "none"}, "The 'weight_decay' parameter"),
    ((NORMAL,), {"noise": "row"}, "The 'noise' parameter"),
    (BOTH, {"clip_value": 0.0}, "The 'clip_value' parameter"),
    (BOTH, {"clip_value": 1e39}, "The 'clip_value' parameter"),
    (BOTH, {"early_stopping": "yes"}, "The 'early_stopping' parameter"),
    (BOTH, {"validation_fraction": 1.0}, "The 'validation_fraction' parameter"),
    (BOTH, {"early_stopping": True, "validation_fraction": 0.999}, "leaves none of n_samples=300 to train on"),
    (BOTH, {"n_iter_no_change": 0}, "The 'n_iter_no_change' parameter"),
    (BOTH, {"tol": -1e-3}, "The 'tol' parameter"),
    (BOTH, {"warm_start": 1.5}, "The 'warm_start' parameter"),
    (BOTH, {"random_state": "seed"}, "The 'random_state' parameter"),
    (BOTH, {"random_state": -1}, "The 'random_state' parameter"),
    (BOTH, {"device": "gpu"}, "device='gpu' cannot be used"),
    (BOTH, {"device": 1.5}, "The 'device' parameter"),
    (BOTH, {"device": "meta"}, "device='meta' cannot be used"),
    (BOTH, {"device": 10**30}, "device=10+ cannot be used"),
    (BOTH, {"encoder": nn.Linear(64, 6, device="meta")}, "encoder must map .*on the device 'meta'"),
    (BOTH, {"verbose": "loud"}, "The 'verbose' parameter"),
    (BOTH, {"min_scale": 0.0}, "The 'min_scale' parameter"),
    (BOTH, {"min_scale": 1e39}, "The 'min_scale' parameter"),
    (BOTH, {"min_scale": 10**400}, "The 'min_scale' parameter"),
    (BOTH, {"min_scale": np.inf}, "The 'min_scale' parameter"),
    ((CB,), {"data_range": (0, 1)}, r"X contains 16, outside data_range=\(0, 1\)"),
    ((CB,), {"data_range": (1, 20)}, r"X contains 0, outside data_range=\(1, 20\)"),
    ((CB,), {"data_range": (1, 1)}, "data_range must be .* low < high"),
    ((CB,), {"data_range": (0, np.inf)}, "data_range must be .* two finite numbers"),
    ((CB,), {"data_range": (0, 1, 2)}, "data_range must be"),
    ((CB,), {"data_range": ("0", "1")}, "data_range must be"),
    ((CB,), {"data_range": 16}, "The 'data_range' parameter"),
]


@pytest.mark.parametrize(
    ("estimator_class", "parameters", "message"),
    [(cls, parameters, message) for classes, parameters, message in BAD_PARAMETERS for cls in classes],
)
def test_bad_parameter(estimator_class, parameters, message, digits):
    with pytest.raises(ValueError, match=message):
        make(estimator_class, **parameters).fit(digits)
    fitted = make(estimator_class).fit(digits)
    before = bits(fitted, digits)
    for method in (fitted.fit, fitted.partial_fit):
        if method == fitted.partial_fit and parameters.get("early_stopping"):
            continue  # no rows are set aside in partial_fit
        fitted.set_params(**parameters)
        with pytest.raises(ValueError, match=f"{message}|is not the range .* that the model was fitted with"):
            method(digits)
        assert bits(fitted, digits) == before


def test_convolution_without_an_image(estimator_class):
    with pytest.raises(ValueError, match=r"encoder='conv' needs images, and 10 features are not a square"):
        make(estimator_class, encoder="conv").fit(np.ones((5, 10)))


def test_one_row_cannot_be_split(estimator_class):
    with pytest.raises(ValueError, match="leaves none of n_samples=1 to train on"):
        make(estimator_class, early_stopping=True).fit(np.ones((1, 10)))


class NaNInEvaluation(nn.Linear):
    def forward(self, x):
        return super().forward(x) * (1 if self.training else float("nan"))


@pytest.mark.draws_globally
def test_a_module_that_fails_in_evaluation(estimator_class, digits):
    with pytest.raises(ValueError, match="validation ELBO is nan after epoch 1"):
        make(estimator_class, encoder=NaNInEvaluation(64, 6), early_stopping=True).fit(digits)


def test_a_generator_that_a_failed_fit_has_drawn_from_is_put_back(estimator_class, digits):
    random_state = np.random.RandomState(3)
    before = random_state.get_state()[1].tolist(), random_state.get_state()[2]
    for method in ("fit", "partial_fit"):
        with pytest.raises(ValueError, match="Training diverged"):
            getattr(make(estimator_class, random_state=random_state, learning_rate_init=1e30), method)(digits)
        assert (random_state.get_state()[1].tolist(), random_state.get_state()[2]) == before


@pytest.mark.draws_globally
@pytest.mark.parametrize("parameters", [{"learning_rate_init": 1e30}, {"encoder": NaNInEvaluation(64, 6)}])
def test_what_the_last_step_leaves_is_tried(estimator_class, parameters, digits):
    fitted = make(estimator_class).fit(digits)
    before = bits(fitted, digits)
    fitted.set_params(**parameters)
    if "encoder" in parameters:
        with pytest.raises(ValueError, match="diverged in epoch 4: what it makes of training rows after its"):
            fitted.fit(digits)
    else:
        fitted.set_params(batch_size=1000)
        with pytest.raises(ValueError, match="diverged in epoch 5: .*Try a smaller learning_rate_init"):
            fitted.partial_fit(digits)
    assert bits(fitted, digits) == before


def test_numbers_that_are_no_floats(estimator_class, digits):
    expected = bits(make(estimator_class, clip_value=2.0, batch_size=200).fit(digits), digits)
    numbers = {"clip_value": np.uint8(2), "batch_size": np.uint8(200)}
    assert bits(make(estimator_class, **numbers).fit(digits), digits) == expected


def test_small_integers_for_an_image_shape():
    X = np.random.RandomState(0).rand(5, 256)
    make(NormalVAETransformer, image_shape=np.array([16, 16], np.uint8)).fit(X)


HUGE = np.array([[10**400, 1.0]] * 5, dtype=object)
TRACKED = torch.ones(5, 2, requires_grad=True)


@pytest.mark.parametrize("data", [HUGE, TRACKED], ids=["huge", "tracked"])
def test_what_cannot_become_an_array_is_named(estimator_class, data):
    fitted = make(estimator_class, n_components=2).fit(np.eye(5, 2))
    for method in (fitted.fit, fitted.partial_fit, fitted.transform):
        with pytest.raises(ValueError, match="^X cannot be read as an array of numbers"):
            method(data)
    with pytest.raises(ValueError, match="^Z cannot be read as an array of numbers"):
        fitted.inverse_transform(data)
    with pytest.raises(ValueError, match="^X_val cannot be read as an array of numbers"):
        fitted.fit(np.eye(5, 2), X_val=data)


MIXED = pd.DataFrame(np.ones((5, 2)), columns=[0, "1"])
MISSING = pd.DataFrame(np.full((5, 2), pd.NA, object))


@pytest.mark.parametrize("data", [MIXED, MISSING, np.ones((5, 2)) * 1j])
def test_wrong_types_of_validation_data_are_named(estimator_class, data):
    with pytest.raises((TypeError, ValueError), match="^X_val: "):
        make(estimator_class).fit(np.eye(5, 2), X_val=data)


def test_more_than_memory_holds(fitted, digits):
    for n in (10**16, 10**30):
        with pytest.raises(MemoryError, match=f"n_samples={n} takes more memory"):
            fitted.sample(n)
        # A bound needs no more memory for more samples.
        assert np.isfinite(fitted.score_samples(digits[:2], n_importance_samples=n)).all()


def test_tiny_values_are_those_of_float64(estimator_class, digits):
    X = (digits * 1e-43).astype(np.float32)
    narrow, wide = make(estimator_class).fit(X), make(estimator_class).fit(X.astype(np.float64))
    assert narrow.transform(X).tobytes() == wide.transform(X.astype(np.float64)).tobytes()
    with np.errstate(all="raise"):
        narrow.inverse_transform(np.zeros((1, 3)))


def test_autocast_outside_has_no_part_in_it(estimator_class, digits):
    expected = bits(make(estimator_class).fit(digits, X_val=digits), digits)
    with torch.autocast("cpu", torch.bfloat16):
        assert bits(make(estimator_class).fit(digits, X_val=digits), digits) == expected


class ArrayAlone:
    """Can be made an array, and has neither a shape nor a length."""

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.values, dtype)


class ShapeOfRows(ArrayAlone):
    """Tells the number of its rows, but not of its columns."""

    shape = property(lambda self: (len(self.values),))


class RowsAlone(Dataset):
    """A dataset of torch that has no labels."""

    def __init__(self, values):
        self.values = torch.from_numpy(values)

    def __len__(self):
        return len(self.values)

    def __getitem__(self, index):
        return self.values[index]


def labeled_dataset(X):
    return TensorDataset(torch.from_numpy(X), torch.arange(len(X)) % 2)


# Of 2-D arrays in float32: what the estimators read as the same.
ARRAY_LIKES = {
    "__array__ alone": ArrayAlone,
    "a shape of rows alone": ShapeOfRows,
    "rows with __array__ alone": lambda X: [ArrayAlone(row) for row in X],
    "SliceDataset": lambda X: SliceDataset(labeled_dataset(X)),
    "dataset without labels": RowsAlone,
    "tensor": torch.from_numpy,
    "list of tensors": lambda X: list(torch.from_numpy(X)),
}


@pytest.fixture(params=[False, True], ids=["no dispatch", "dispatch"])
def _array_api(request):
    with sklearn.config_context(array_api_dispatch=request.param):
        yield


@pytest.mark.usefixtures("_array_api")
@pytest.mark.parametrize("kind", ARRAY_LIKES)
def test_array_likes_are_the_arrays_that_they_hold(estimator_class, digits, kind):
    X = digits.astype(np.float32)
    X_like = ARRAY_LIKES[kind](X)
    expected = bits(make(estimator_class).fit(X, X_val=X), X, n_scored=None)
    fitted = make(estimator_class).fit(X_like, X_val=X_like)
    assert fitted.n_features_in_ == 64
    assert bits(fitted, X_like, n_scored=None) == expected
    assert fitted.score(X_like) == fitted.score(X)
    first = make(estimator_class).partial_fit(X_like).transform(X_like)
    assert first.tobytes() == make(estimator_class).partial_fit(X).transform(X).tobytes()
    with pytest.raises(ValueError, match="X has 9 features, but .* is expecting 64 features"):
        fitted.transform(ARRAY_LIKES[kind](X[:, :9]))
    Z_like = ARRAY_LIKES[kind](fitted.transform(X))
    assert fitted.inverse_transform(Z_like).tobytes() == fitted.inverse_transform(fitted.transform(X)).tobytes()


@pytest.mark.usefixtures("_array_api")
@pytest.mark.parametrize("kind", ARRAY_LIKES)
@pytest.mark.parametrize("classifier_class", [SimpleCNNClassifier, MultilayerCNNClassifier])
def test_classifiers_read_array_likes(digits, classifier_class, kind):
    X, y = digits[:50].astype(np.float32) / 16, np.arange(50) % 2
    X_like, y_like = ARRAY_LIKES[kind](X), torch.from_numpy(y) if kind == "tensor" else y
    if kind == "SliceDataset":
        y_like = SliceDataset(labeled_dataset(X), idx=1)
    expected = classifier_class(max_iter=1, random_state=0).fit(X, y, X_val=X, y_val=y)
    classifier = classifier_class(max_iter=1, random_state=0).fit(X_like, y_like, X_val=X_like, y_val=y_like)
    assert classifier.predict_proba(X_like).tobytes() == expected.predict_proba(X).tobytes()
    assert classifier.history_ == expected.history_
    assert classifier.score(X_like, y) == expected.score(X, y)


def test_a_picture_is_its_rows():
    X = np.random.RandomState(0).randint(256, size=(30, 16)).astype(np.uint8)
    picture = Image.fromarray(X)
    fitted = make(NormalVAETransformer).fit(picture, X_val=picture)
    expected = bits(make(NormalVAETransformer).fit(X, X_val=X), X, n_scored=None)
    assert bits(fitted, picture, n_scored=None) == expected
    with pytest.raises(ValueError, match=r"X has shape \(30, 4, 4\).*np.reshape\(X, \(len\(X\), -1\)\)"):
        fitted.fit([Image.fromarray(row.reshape(4, 4)) for row in X])


def in_other_floats(name):
    return np.ones((5, 64)).astype(getattr(ml_dtypes, name))


STACK = "np.stack([row for row, *_ in dataset])"

# What cannot be read, and the message that says what to do; N stands for the argument's name.
NOT_READ = {
    "bfloat16 tensor": (lambda: torch.ones(5, 64).bfloat16(), "NumPy has no torch.bfloat16. .*by N.float()."),
    "float8 tensor": (
        lambda: torch.ones(5, 64).to(torch.float8_e5m2),
        "NumPy has no torch.float8_e5m2. .*by N.float().",
    ),
    "bfloat16 array": (lambda: in_other_floats("bfloat16"), "N has dtype bfloat16, .*by N.astype(np.float32)."),
    "int4 array": (lambda: in_other_floats("int4"), "N has dtype int4, .*by N.astype(np.float32)."),
    "sparse tensor": (lambda: torch.ones(5, 64).to_sparse(), "N cannot be read as .*Use Tensor.to_dense() first."),
    "tensor elsewhere": (lambda: torch.ones(5, 64, device="meta"), "N cannot be read as .*Use Tensor.cpu() to copy"),
    "dataset": (lambda: TensorDataset(torch.ones(5, 64)), "N is a TensorDataset of torch; .*by N.tensors[0]."),
    "labeled dataset": (lambda: labeled_dataset(np.ones((5, 64))), "N is a TensorDataset of torch; .*by N.tensors[0]."),
    "subset": (lambda: Subset(labeled_dataset(np.ones((5, 64))), [0, 1]), "N is a Subset of torch; .*by " + STACK),
    "images in a dataset": (lambda: RowsAlone(np.ones((5, 8, 8))), "N is a RowsAlone of torch; .*by " + STACK),
    "loader": (lambda: DataLoader(TensorDataset(torch.ones(5, 64))), "N is a DataLoader of torch; .*by " + STACK),
    "images": (
        lambda: np.ones((5, 4, 16)),
        "Found array with dim 3: N has shape (5, 4, 16), .*np.reshape(N, (len(N), -1)), .*image_shape=(4, 16).",
    ),
    "images with channels": (
        lambda: torch.ones(5, 4, 8, 2),
        "Found array with dim 4: N has shape (5, 4, 8, 2), .*np.reshape(N, (len(N), -1)), .*image_shape=(4, 8, 2).",
    ),
    "images of torch": (
        lambda: torch.ones(5, 3, 8, 9),
        "dim 4: .*np.reshape(np.transpose(N, (0, 2, 3, 1)), (len(N), -1)), and give image_shape=(8, 9, 3).",
    ),
    "videos": (lambda: np.ones((2, 2, 2, 2, 8)), "Found array with dim 5: .*np.reshape(N, (len(N), -1))."),
}


def pattern_of(message, name):
    named = re.sub(r"\bN\b", name, message)
    return ".*".join(map(re.escape, named.split(".*")))


@pytest.mark.usefixtures("_array_api")
@pytest.mark.parametrize("bad", NOT_READ)
def test_what_to_do_with_what_cannot_be_read(digits, bad):
    make_data, message = NOT_READ[bad]
    X, y = digits[:20] / 16, np.arange(20) % 2
    vae = make(NormalVAETransformer).fit(X)
    classifier = SimpleCNNClassifier(max_iter=1).fit(X, y)
    calls = [vae.fit, vae.partial_fit, vae.transform, vae.score, classifier.predict]
    for call in (*calls, lambda rows: classifier.fit(rows, np.arange(5) % 2)):
        with pytest.raises((TypeError, ValueError), match=pattern_of(message, "X")):
            call(make_data())
    for call in (lambda rows: vae.fit(X, X_val=rows), lambda rows: classifier.fit(X, y, X_val=rows, y_val=y)):
        with pytest.raises((TypeError, ValueError), match=pattern_of(message, "X_val")):
            call(make_data())


@pytest.mark.parametrize("hidden_layer_sizes", [(10**9, 10**9), (10**18, 10**18)])
def test_networks_that_no_memory_holds(estimator_class, hidden_layer_sizes, digits):
    fitted = make(estimator_class).fit(digits)
    before = bits(fitted, digits)
    with pytest.raises(MemoryError, match="There is not enough memory: .* Choose a smaller batch_size"):
        fitted.set_params(hidden_layer_sizes=hidden_layer_sizes, encoder="dense").fit(digits)
    assert bits(fitted, digits) == before


def test_no_memory_for_a_block_says_what_to_do(fitted, digits, monkeypatch):
    def fail(*args):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: 8 bytes.")

    Z = fitted.transform(digits)
    monkeypatch.setattr(nn.functional, "linear", fail)
    calls = fitted.transform, fitted.score_samples, lambda X: fitted.inverse_transform(Z)
    for call in calls:
        with pytest.raises(MemoryError, match="8 bytes. Give fewer rows at a time"):
            call(digits)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_torchs_default_dtype_has_no_part_in_it(estimator_class, dtype, digits):
    def everything():
        fitted = make(estimator_class, early_stopping=True, n_iter_no_change=1, tol=1e9).fit(digits)
        return bits(fitted, digits), fitted.score_samples(digits[:3], n_importance_samples=8).tobytes()

    expected = everything()
    torch.set_default_dtype(dtype)
    try:
        assert everything() == expected
    finally:
        torch.set_default_dtype(torch.float32)


def test_torchs_default_device_has_no_part_in_it(estimator_class, digits):
    def everything():
        fitted = make(estimator_class, early_stopping=True, n_iter_no_change=1, tol=1e9).fit(digits)
        return bits(fitted.partial_fit(digits), digits)

    expected = everything()
    torch.set_default_device("meta")
    try:
        assert everything() == expected
    finally:
        torch.set_default_device(None)
