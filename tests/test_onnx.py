"""Graphs give what the estimators give, without torch, and what cannot be one is an error."""

import importlib
import logging
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pandas as pd
import pytest
import skl2onnx
import torch
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import LinearSVC
from torch import nn

from skvae import ContinuousBernoulliVAETransformer, NormalVAETransformer
from skvae._onnx.graph import add_prefix
from skvae.classifiers import MultilayerCNNClassifier, SimpleCNNClassifier
from skvae.distributions import ContinuousBernoulli
from skvae.likelihoods import Likelihood
from skvae.onnx import decoder_to_onnx, to_onnx

from conftest import make

TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


def session(model):
    onnx.checker.check_model(model, full_check=True)
    return onnxruntime.InferenceSession(model.SerializeToString())


def run(model, **inputs):
    return session(model).run(None, inputs)


def latents(n_rows, n_components):
    return 4 * np.random.RandomState(0).standard_normal((n_rows, n_components)).astype(np.float32)


@pytest.fixture(scope="module")
def labeled_digits():
    """The digits in float32, and their labels."""
    X, y = load_digits(return_X_y=True)
    return X[:300].astype(np.float32), y[:300]


def test_encoder_is_transform(fitted, digits):
    X = np.concatenate([digits, 3 * digits - 5]).astype(np.float32)  # some of it off the range of the training data
    model = session(to_onnx(fitted))
    (Z,) = model.run(None, {"X": X})
    np.testing.assert_allclose(Z, fitted.transform(X), **TOLERANCE)
    np.testing.assert_allclose(model.run(None, {"X": X[:1]})[0], Z[:1], **TOLERANCE)
    assert model.run(None, {"X": X[:0]})[0].shape == (0, 3)


def test_decoder_is_inverse_transform(fitted):
    Z = latents(500, 3)
    model = session(decoder_to_onnx(fitted))
    (X,) = model.run(None, {"Z": Z})
    assert X.dtype == np.float32
    np.testing.assert_allclose(X, fitted.inverse_transform(Z), **TOLERANCE)
    np.testing.assert_allclose(model.run(None, {"Z": Z[:1]})[0], X[:1], **TOLERANCE)
    assert model.run(None, {"Z": Z[:0]})[0].shape == (0, 64)


@pytest.mark.parametrize("parameters", [{"image_shape": (7, 5, 3)}, {"encoder": "dense", "hidden_layer_sizes": ()}])
@pytest.mark.parametrize("data_range", [None, (-1, 2)])
def test_shapes_of_images_and_networks(parameters, data_range):
    X = np.random.RandomState(0).uniform(size=(60, 105)).astype(np.float32)
    parameters = {"data_range": data_range, "max_iter": 1, **parameters}
    vae = make(ContinuousBernoulliVAETransformer, **parameters).fit(X)
    np.testing.assert_allclose(run(to_onnx(vae), X=X)[0], vae.transform(X), **TOLERANCE)
    Z = latents(60, 3)
    np.testing.assert_allclose(run(decoder_to_onnx(vae), Z=Z)[0], vae.inverse_transform(Z), **TOLERANCE)


@pytest.mark.parametrize("noise", ["feature", "shared", "network"])
@pytest.mark.parametrize(
    "parameters", [{}, {"init": "random"}, {"encoder": "conv"}, {"hidden_layer_sizes": ()}], ids=str
)
def test_linear_paths_and_noise_of_every_kind(noise, parameters, digits):
    X = digits.astype(np.float32)
    vae = make(NormalVAETransformer, noise=noise, **parameters).fit(X)
    np.testing.assert_allclose(run(to_onnx(vae), X=X)[0], vae.transform(X), **TOLERANCE)
    Z = latents(60, 3)
    np.testing.assert_allclose(run(decoder_to_onnx(vae), Z=Z)[0], vae.inverse_transform(Z), **TOLERANCE)


@pytest.mark.filterwarnings("ignore:0 of 1 components are active")
def test_mean_of_the_continuous_bernoulli_for_every_logit():
    X = np.linspace(0, 1, 20).reshape(-1, 1)
    parameters = {"n_components": 1, "hidden_layer_sizes": (), "init": "random", "data_range": (0, 1), "max_iter": 1}
    vae = make(ContinuousBernoulliVAETransformer, **parameters).fit(X)
    for parameter, value in zip(vae.module_.decoder.parameters(), (1, 0), strict=True):  # logit = z
        nn.init.constant_(parameter, value)
    small = np.geomspace(1e-30, 2, 400)
    logits = np.concatenate([np.linspace(-500, 500, 2001), small, -small, [0, 1, -1]]).astype(np.float32)
    (mean,) = run(decoder_to_onnx(vae), Z=logits[:, None])
    expected = ContinuousBernoulli(logits=64 * torch.tanh(torch.from_numpy(logits).double() / 64)).mean.numpy()
    np.testing.assert_allclose(mean[:, 0], expected, rtol=2e-6)


@pytest.mark.parametrize("dtype", [np.float64, np.int64, np.uint8])
def test_other_types_of_input(estimator_class, dtype, digits):
    offset = 0 if dtype == np.uint8 else 10**8  # which float32 does not hold to the unit
    X = digits.astype(dtype) + dtype(offset)
    vae = make(estimator_class, max_iter=1).fit(X)
    np.testing.assert_allclose(run(skl2onnx.to_onnx(vae, X[:1]), X=X)[0], vae.transform(X), **TOLERANCE)


@pytest.mark.filterwarnings("ignore:.* encountered in reduce:RuntimeWarning")  # in scikit-learn's checks
def test_values_near_the_ends_of_float32(estimator_class):
    X = (np.random.RandomState(0).uniform(size=(80, 16)) ** 3 * 6.6e38 - 3.3e38).astype(np.float32)
    vae = make(estimator_class, encoder="dense", max_iter=1).fit(X)
    np.testing.assert_allclose(run(to_onnx(vae), X=X)[0], vae.transform(X), **TOLERANCE)


def test_operators_that_are_too_old(fitted, digits):
    with pytest.raises(ValueError, match="target_opset=10 is too old: skvae writes version 11 or newer"):
        skl2onnx.to_onnx(fitted, digits[:1], target_opset=10)
    model = skl2onnx.to_onnx(fitted, digits[:1], target_opset=11)
    np.testing.assert_allclose(run(model, X=digits)[0], fitted.transform(digits), **TOLERANCE)


class OtherMethods(NormalVAETransformer):
    def transform(self, X):
        return super().transform(X) * 10

    def inverse_transform(self, Z):
        return super().inverse_transform(Z / 10)


def test_methods_of_a_class_of_ones_own_are_no_graph(digits):
    vae = OtherMethods(3, encoder="dense", max_iter=1, random_state=0).fit(digits)
    with pytest.raises(ValueError, match="OtherMethods overrides transform, and no graph can be made of that"):
        to_onnx(vae)
    with pytest.raises(ValueError, match="OtherMethods overrides inverse_transform"):
        decoder_to_onnx(vae)


def test_a_large_offset_comes_back(estimator_class, digits):
    vae = make(estimator_class, max_iter=1).fit(digits + 1e8)
    Z = latents(50, 3)
    np.testing.assert_allclose(run(decoder_to_onnx(vae), Z=Z)[0], vae.inverse_transform(Z), rtol=1e-6)


@pytest.mark.parametrize(
    "classifier",
    [
        LogisticRegression(max_iter=1000),
        SimpleCNNClassifier(max_iter=1, random_state=0),
        SimpleCNNClassifier(activation="identity", max_iter=1, random_state=0),
        MultilayerCNNClassifier(max_iter=1, random_state=0),
    ],
    ids=lambda classifier: type(classifier).__name__,
)
@pytest.mark.parametrize("labels", [np.arange(10), np.array(["class " + digit for digit in "0123456789"])])
def test_pipeline(labeled_digits, classifier, labels):
    X, y = labeled_digits
    vae = make(NormalVAETransformer, n_components=4)
    pipeline = make_pipeline(StandardScaler(), vae, classifier).fit(X, labels[y])
    model = session(to_onnx(pipeline))
    predicted, probabilities = model.run(["label", "probabilities"], {"X": X})
    np.testing.assert_allclose(probabilities, pipeline.predict_proba(X), **TOLERANCE)
    np.testing.assert_array_equal(predicted, pipeline.predict(X))
    assert model.run(None, {"X": X[:0]})[1].shape == (0, 10)


def test_a_classifier_without_probabilities_gives_its_decision_function(labeled_digits):
    X, y = labeled_digits
    pipeline = make_pipeline(make(NormalVAETransformer, max_iter=1), LinearSVC(random_state=0))
    for estimator in (pipeline, GridSearchCV(pipeline, {"linearsvc__C": [0.1, 1]}, cv=2)):
        label, decision = session(to_onnx(estimator.fit(X, y))).run(["label", "probabilities"], {"X": X})
        np.testing.assert_array_equal(label, estimator.predict(X))
        np.testing.assert_allclose(decision, estimator.decision_function(X), **TOLERANCE)


@pytest.mark.parametrize("classifier", [LogisticRegression(max_iter=1000), SimpleCNNClassifier(max_iter=1)])
def test_columns_of_a_frame_are_inputs(labeled_digits, classifier):
    X, y = labeled_digits
    frame = pd.DataFrame(X.astype(np.float64)).add_prefix("pixel_")
    pipeline = make_pipeline(make(ContinuousBernoulliVAETransformer, max_iter=1), classifier).fit(frame, y)
    model = skl2onnx.to_onnx(pipeline, frame[:1], options={"zipmap": False})
    _, probabilities = run(model, **{name: frame[[name]].to_numpy() for name in frame})
    np.testing.assert_allclose(probabilities, pipeline.predict_proba(frame), **TOLERANCE)


def test_options_of_skl2onnx(labeled_digits):
    X, y = labeled_digits
    classifier = SimpleCNNClassifier(max_iter=1, random_state=0).fit(X, y > 4)
    expected = classifier.predict_proba(X)
    maps = run(skl2onnx.to_onnx(classifier, X[:1]), X=X)[1]
    np.testing.assert_allclose([[row[0], row[1]] for row in maps], expected, **TOLERANCE)
    probabilities = run(skl2onnx.to_onnx(classifier, X[:1].astype(float), options={"zipmap": False}), X=X.astype(float))
    np.testing.assert_allclose(probabilities[1], expected, **TOLERANCE)
    model = skl2onnx.to_onnx(classifier, X[:1], options={"zipmap": False}, target_opset=15)
    np.testing.assert_allclose(run(model, X=X)[1], expected, **TOLERANCE)


FUNCTIONS = [np.abs, np.exp, np.expm1, np.log, np.log1p, np.sqrt, np.square]


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.int32, np.uint8])
@pytest.mark.parametrize("opset", [11, None])
def test_functions_are_those_of_numpy(function, dtype, opset):
    numbers = [0, 1, 2, 3, 5, 11, 80]
    if np.dtype(dtype).kind == "f":
        numbers += [1e-30, 1e-12, 1e-7, 1e-3, 0.3, 1e3, 1e20, 3e38, np.inf, np.nan]
        numbers += [-number for number in numbers]
    X = np.array(numbers, dtype)[:, None]
    transformer = FunctionTransformer(function)
    with np.errstate(all="ignore"):
        expected = transformer.fit_transform(X)
    (y,) = run(skl2onnx.to_onnx(transformer, X[:1], target_opset=opset), X=X)
    precision = np.finfo(expected.dtype).eps if expected.dtype.kind == "f" else 0
    np.testing.assert_allclose(y, expected, rtol=2 * float(precision))


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_functions_ahead_of_a_vae(function):
    X = np.random.RandomState(0).lognormal(size=(300, 5)).astype(np.float32)
    transformer = FunctionTransformer(function, np.expm1, check_inverse=False)
    pipeline = make_pipeline(transformer, StandardScaler(), make(NormalVAETransformer)).fit(X)
    np.testing.assert_allclose(run(to_onnx(pipeline), X=X)[0], pipeline.transform(X), rtol=1e-4, atol=1e-4)
    frame = pd.DataFrame(X.astype(np.float64)).add_prefix("column_").assign(count=1 + np.arange(300) % 7)
    pipeline.fit(frame)
    model = skl2onnx.to_onnx(pipeline, frame[:1])
    (Z,) = run(model, **{name: frame[[name]].to_numpy() for name in frame})
    np.testing.assert_allclose(Z, pipeline.transform(frame), **TOLERANCE)


@pytest.mark.parametrize("transformer", [FunctionTransformer(), FunctionTransformer(inverse_func=np.exp)])
def test_no_function_is_the_identity_as_before(transformer, digits):
    frame = pd.DataFrame(digits).add_prefix("pixel_")
    vae = make(NormalVAETransformer)
    pipeline = make_pipeline(transformer, vae).fit(frame)
    model = skl2onnx.to_onnx(pipeline, frame[:1])
    (Z,) = run(model, **{name: frame[[name]].to_numpy() for name in frame})
    np.testing.assert_allclose(Z, pipeline.transform(frame), **TOLERANCE)
    X = digits.astype(np.float32)
    np.testing.assert_allclose(run(to_onnx(pipeline), X=X)[0], Z, **TOLERANCE)


@pytest.mark.parametrize(
    "transformer", [FunctionTransformer(np.cbrt), FunctionTransformer(np.log, kw_args={"where": True})]
)
def test_functions_without_a_graph(transformer, digits):
    pipeline = make_pipeline(transformer, make(NormalVAETransformer, max_iter=1)).fit(digits + 1)
    message = r"No graph can be made of FunctionTransformer\(.*must be None or one of np.absolute, .*np.log1p.*register"
    with pytest.raises(ValueError, match=message):
        to_onnx(pipeline)


def test_a_converter_of_the_users_own_stays():
    code = """
import numpy as np, skl2onnx
from sklearn.preprocessing import FunctionTransformer
skl2onnx.update_registered_converter(
    FunctionTransformer, "Own", lambda operator: None, lambda scope, operator, container: None
)
import skvae.onnx
print(skl2onnx.get_model_alias(FunctionTransformer))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "Own"


def test_a_pipeline_that_does_not_know_its_features(fitted):
    for estimator in (make_pipeline(FunctionTransformer(), fitted), FrozenEstimator(make_pipeline(StandardScaler()))):
        with pytest.raises(NotFittedError, match="Call its fit|is not fitted yet"):
            to_onnx(estimator)


def test_frozen_estimators(labeled_digits):
    X, y = labeled_digits
    vae = make(NormalVAETransformer, max_iter=1).fit(X)
    for frozen in (FrozenEstimator(vae), FrozenEstimator(FrozenEstimator(vae)), make_pipeline(FrozenEstimator(vae))):
        np.testing.assert_allclose(run(to_onnx(frozen), X=X)[0], vae.transform(X), **TOLERANCE)
    Z = latents(20, 3)
    np.testing.assert_allclose(
        run(decoder_to_onnx(FrozenEstimator(vae)), Z=Z)[0], vae.inverse_transform(Z), **TOLERANCE
    )
    pipeline = make_pipeline(StandardScaler(), FrozenEstimator(vae), LogisticRegression(max_iter=1000)).fit(X, y)
    cnn = SimpleCNNClassifier(max_iter=1, random_state=0).fit(X, y)
    whole = make_pipeline(PCA(5), LogisticRegression(max_iter=1000)).fit(X, y)
    behind = make_pipeline(StandardScaler(), FrozenEstimator(whole)).fit(X, y)
    for estimator in (pipeline, FrozenEstimator(pipeline), FrozenEstimator(cnn), behind):
        label, probabilities = session(to_onnx(estimator)).run(["label", "probabilities"], {"X": X})
        np.testing.assert_array_equal(label, estimator.predict(X))
        np.testing.assert_allclose(probabilities, estimator.predict_proba(X), **TOLERANCE)
    decisions = FrozenEstimator(make_pipeline(vae, LinearSVC(random_state=0)).fit(X, y))
    _, scores = session(to_onnx(decisions)).run(["label", "probabilities"], {"X": X})
    np.testing.assert_allclose(scores, decisions.decision_function(X), **TOLERANCE)
    maps = run(skl2onnx.to_onnx(FrozenEstimator(cnn), X[:1]), X=X)[1]
    np.testing.assert_allclose([[row[i] for i in range(10)] for row in maps], cnn.predict_proba(X), **TOLERANCE)


def test_the_same_model_gives_the_same_bytes(fitted):
    for export in (to_onnx, decoder_to_onnx):
        assert export(fitted).SerializeToString() == export(fitted).SerializeToString()


def test_a_file_runs_without_torch(tmp_path, fitted_estimators, digits):
    path = tmp_path / "model.onnx"
    vae = fitted_estimators[NormalVAETransformer]
    path.write_bytes(to_onnx(vae).SerializeToString())
    np.save(tmp_path / "X.npy", digits.astype(np.float32))
    code = f"""
import sys
sys.modules.update(dict.fromkeys(["torch", "sklearn", "scipy", "skvae", "onnx"]))
import numpy, onnxruntime
X = numpy.load({str(tmp_path / "X.npy")!r})
numpy.save({str(tmp_path / "Z.npy")!r}, onnxruntime.InferenceSession({str(path)!r}).run(None, {{"X": X}})[0])
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    np.testing.assert_allclose(np.load(tmp_path / "Z.npy"), vae.transform(digits), **TOLERANCE)


def test_input_of_the_wrong_shape_or_type_is_an_error_of_the_runtime(fitted_estimators):
    model = session(to_onnx(fitted_estimators[NormalVAETransformer]))
    for X in (np.zeros((2, 63)), np.zeros((2, 65)), np.zeros(64)):
        with pytest.raises(Exception, match="INVALID_ARGUMENT.*(dimensions|rank)"):
            model.run(None, {"X": X.astype(np.float32)})
    with pytest.raises(Exception, match="INVALID_ARGUMENT.*data type"):
        model.run(None, {"X": np.zeros((2, 64))})


def test_estimators_that_are_not_fitted_or_have_no_decoder(digits):
    for estimator in (NormalVAETransformer(), make_pipeline(NormalVAETransformer()), SimpleCNNClassifier()):
        with pytest.raises(NotFittedError):
            to_onnx(estimator)
    with pytest.raises(NotFittedError):
        skl2onnx.to_onnx(make_pipeline(NormalVAETransformer()), digits[:1])
    with pytest.raises(NotFittedError):
        decoder_to_onnx(NormalVAETransformer())
    with pytest.raises(TypeError, match="takes a VAE transformer, which has a decoder; got PCA"):
        decoder_to_onnx(PCA())
    with pytest.raises(TypeError, match=r"got Pipeline. Of a Pipeline, give the step that is one, .* pipeline\[0\]"):
        decoder_to_onnx(make_pipeline(NormalVAETransformer()))


def seeded(module_class, *sizes):
    """Return a module whose weights are drawn from torch's global generator, which is put back."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return module_class(*sizes)


class Reshaping(nn.Module):
    """Layers that the library does not have, and tensors that change their shape."""

    def __init__(self, n_inputs, n_outputs):
        super().__init__()
        self.wide = nn.Sequential(nn.Linear(n_inputs, 16), nn.BatchNorm1d(16), nn.GELU(), nn.Dropout(0.3))
        self.out = nn.Linear(16, n_outputs)

    def forward(self, x):
        h = self.wide(x)
        h = h.reshape(h.shape[0], 4, 4).flip(1).flatten(1)
        return self.out(h)


class LaplaceLikelihood(Likelihood):
    """A location and the logarithm of a scale for each feature."""

    n_parameters = 2

    def log_prob(self, x, parameters):
        location, log_scale = parameters.chunk(2, dim=-1)
        return -((x - location).abs() * (-log_scale).exp() + log_scale)

    def mean(self, parameters):
        return parameters.chunk(2, dim=-1)[0]

    def sample(self, parameters, generator):
        raise NotImplementedError


class LaplaceVAETransformer(NormalVAETransformer):
    def make_likelihood(self, n_features):
        return LaplaceLikelihood()


def test_modules_and_likelihoods_of_ones_own(digits):
    vae = LaplaceVAETransformer(3, decoder=seeded(Reshaping, 3, 128), max_iter=2, random_state=0).fit(digits)
    model = session(decoder_to_onnx(vae))
    for n_rows in (200, 3, 1):
        Z = latents(n_rows, 3)
        np.testing.assert_allclose(model.run(None, {"Z": Z})[0], vae.inverse_transform(Z), **TOLERANCE)
    X = digits.astype(np.float32)
    np.testing.assert_allclose(run(to_onnx(make_pipeline(vae)), X=X)[0], vae.transform(X), **TOLERANCE)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(8, 8, batch_first=True)
        self.out = nn.Linear(8, 6)

    def forward(self, x):
        return self.out(self.lstm(x.reshape(x.shape[0], 8, 8))[0][:, -1])


class InDouble(nn.Linear):
    def forward(self, x):
        return super().forward(x).double()


class InHalf(nn.Linear):
    def forward(self, x):
        return super().forward(x).half()


@pytest.mark.parametrize(("module", "sizes"), [(Recurrent, ()), (InDouble, (64, 6)), (InHalf, (64, 6))])
def test_encoders_that_leave_out_inputs_or_return_other_types(digits, module, sizes):
    vae = make(NormalVAETransformer, encoder=seeded(module, *sizes), max_iter=1).fit(digits)
    X = digits.astype(np.float32)
    tolerance = {"rtol": 1e-3, "atol": 1e-3} if module is InHalf else TOLERANCE
    model = session(to_onnx(vae))
    for n_rows in (300, 1):
        np.testing.assert_allclose(model.run(None, {"X": X[:n_rows]})[0], vae.transform(X[:n_rows]), **tolerance)


def upsampling():
    return nn.Sequential(
        nn.Linear(3, 16),
        nn.Unflatten(1, (1, 4, 4)),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(1, 1, 3, padding=1),
        nn.Flatten(),
    )


@pytest.mark.filterwarnings("ignore:1 of 3 components are active")
def test_a_decoder_that_leaves_out_inputs_in_silence(digits, capfd, caplog):
    vae = make(ContinuousBernoulliVAETransformer, decoder=seeded(upsampling), max_iter=1).fit(digits)
    Z = latents(50, 3)
    capfd.readouterr()
    caplog.clear()
    model = decoder_to_onnx(vae)
    assert capfd.readouterr() == ("", "")
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    np.testing.assert_allclose(run(model, Z=Z)[0], vae.inverse_transform(Z), **TOLERANCE)


def test_the_graph_of_a_module_does_not_tell_of_its_source(digits):
    vae = make(NormalVAETransformer, encoder=seeded(Reshaping, 64, 6), max_iter=1).fit(digits)
    content = to_onnx(vae).SerializeToString()
    for text in (str(Path(__file__).parent), "site-packages", "stack_trace", "self.wide"):
        assert text.encode() not in content


def test_modules_are_exported_from_threads(digits):
    vae = make(NormalVAETransformer, encoder=seeded(nn.Linear, 64, 6), max_iter=1).fit(digits[:20])
    with ThreadPoolExecutor(3) as pool:
        models = [model.SerializeToString() for model in pool.map(to_onnx, [vae] * 3)]
    assert len(set(models)) == 1


def test_names_in_branches_get_the_prefix_too():
    model = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["": 18]>
        choice (float[N] x, bool negate) => (float[N] y) {
            two = Constant <value_float = 2.0> ()
            y = If (negate) <
                then_branch = negative () => (float[N] a) { b = Neg (x) a = Mul (b, two) },
                else_branch = positive () => (float[N] c) { c = Mul (x, two) }
            >
        }
    """)
    x = np.arange(3, dtype=np.float32)
    add_prefix(model.graph, "the_")
    np.testing.assert_array_equal(run(model, the_x=x, the_negate=np.array(True))[0], -2 * x)
    np.testing.assert_array_equal(run(model, the_x=x, the_negate=np.array(False))[0], 2 * x)


class Noisy(nn.Linear):
    def forward(self, x):
        return nn.functional.dropout(super().forward(x))


class NoisyAtTimes(nn.Linear):
    def forward(self, x):
        h = super().forward(x)
        if self.training:
            return h
        return torch.cond(x.sum() > 0, lambda h: h + torch.randn_like(h), lambda h: -h, (h,))


class Deciding(nn.Linear):
    def forward(self, x):
        return super().forward(x if x.sum() > 0 else -x)


class Counting(nn.Linear):
    def forward(self, x):
        return torch.cat([super(Counting, self).forward(row[None]) for row in x])


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Noisy, r"encoder Noisy draws random numbers in evaluation mode \(Dropout\)"),
        (NoisyAtTimes, r"encoder NoisyAtTimes draws random numbers in evaluation mode \(RandomNormalLike\)"),
        (
            Deciding,
            "cannot export the encoder Deciding to ONNX: .* without decisions that depend on their values",
        ),
        (Counting, "cannot export the encoder Counting to ONNX: .* one graph for any number of rows"),
    ],
)
def test_modules_that_are_no_graph(digits, module, message):
    vae = make(NormalVAETransformer, encoder=seeded(module, 64, 6), max_iter=1).fit(digits[:20])
    with pytest.raises(ValueError, match=message):
        to_onnx(vae)


def test_missing_packages(monkeypatch, digits):
    vae = make(NormalVAETransformer, encoder=seeded(nn.Linear, 64, 6), max_iter=1).fit(digits[:20])
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ImportError, match=r"needs onnxscript to export the encoder: pip install skvae\[onnx\]"):
        to_onnx(vae)
    monkeypatch.setitem(sys.modules, "skl2onnx", None)
    monkeypatch.delitem(sys.modules, "skvae.onnx")
    with pytest.raises(ImportError, match=r"skvae.onnx needs onnx and skl2onnx: pip install skvae\[onnx\]"):
        importlib.import_module("skvae.onnx")


@pytest.mark.parametrize("offset", [0.0, 1e9])
def test_output_is_of_the_dtype_of_inverse_transform(estimator_class, offset, digits):
    vae = make(estimator_class, max_iter=2).fit(digits + offset)
    Z = latents(20, 3)
    (X,) = run(decoder_to_onnx(vae), Z=Z)
    expected = vae.inverse_transform(Z)
    assert X.dtype == expected.dtype == (np.float64 if offset else np.float32)
    np.testing.assert_allclose(X - offset, expected - offset, rtol=1e-3, atol=1e-3)


def test_extreme_values_are_clipped_as_in_the_estimator(digits):
    vae = make(NormalVAETransformer, max_iter=2).fit(digits)
    X = digits[:3].astype(np.float32)
    X[1, 5] = 1e30
    np.testing.assert_allclose(run(to_onnx(vae), X=X)[0], vae.transform(X), rtol=1e-3)
