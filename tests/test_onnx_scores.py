"""Graphs of scores and of detectors give what the estimators give, to 1e-4 and 1e-3 nats."""

import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
import skl2onnx
import torch
from sklearn.compose import make_column_transformer
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler
from test_onnx import Reshaping, seeded, session

from skvae import ContinuousBernoulliVAETransformer, NormalVAETransformer
from skvae.likelihoods import Likelihood
from skvae.onnx import to_onnx
from skvae.outliers import DensityOutlierDetector

from conftest import make

TOLERANCE = {"rtol": 1e-4, "atol": 1e-3}


def assert_same_scores(estimator, X):
    """Compare the scores of rows, of one row and of none."""
    model = session(to_onnx(estimator, method="score_samples"))
    assert [output.name for output in model.get_outputs()] == ["scores"]
    (scores,) = model.run(None, {"X": X})
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, estimator.score_samples(X), **TOLERANCE)
    np.testing.assert_allclose(model.run(None, {"X": X[:1]})[0], scores[:1], **TOLERANCE)
    assert model.run(None, {"X": X[:0]})[0].shape == (0,)


@pytest.fixture
def table_of(digits):
    """What makes a table of so many columns: the ELBO of 20, 64 and 301 is computed in three ways."""
    columns = np.concatenate([digits, digits[::-1], digits**2, digits[:, ::-1], -digits], axis=1).astype(np.float32)
    return lambda n_features: columns[:, :n_features]


@pytest.mark.parametrize("noise", ["feature", "shared", "network"])
@pytest.mark.parametrize("prior", ["normal", "mixture"])
@pytest.mark.parametrize("n_features", [20, 64, 301])
def test_scores_of_the_normal_model(noise, prior, n_features, table_of):
    X = table_of(n_features)
    vae = make(NormalVAETransformer, noise=noise, prior=prior).fit(X)
    assert (vae.prior_ is None) == (prior == "normal")
    assert_same_scores(vae, X)


@pytest.mark.parametrize("prior", ["normal", "mixture"])
@pytest.mark.parametrize("n_features", [20, 64, 301])
def test_scores_of_the_continuous_bernoulli_model(prior, n_features, table_of):
    X = table_of(n_features)
    assert_same_scores(make(ContinuousBernoulliVAETransformer, prior=prior).fit(X), X)


@pytest.mark.parametrize(
    "parameters",
    [{"init": "random"}, {"encoder": "conv"}, {"hidden_layer_sizes": ()}, {"n_components": 40}],
    ids=str,
)
@pytest.mark.parametrize("n_features", [25, 64])
def test_scores_of_other_networks(parameters, n_features, table_of, estimator_class):
    X = table_of(n_features)
    n_components = min(parameters.get("n_components", 3), n_features)
    assert_same_scores(make(estimator_class, **parameters | {"n_components": n_components}).fit(X), X)


def test_scores_with_modules_of_ones_own(estimator_class, table_of):
    X = table_of(64)
    for parameters in ({"encoder": seeded(Reshaping, 64, 6)}, {"decoder": seeded(Reshaping, 3, 64)}):
        assert_same_scores(make(estimator_class, **parameters).fit(X), X)


class Cauchy(Likelihood):
    def log_prob(self, x, parameters):
        return -torch.log1p((x - parameters).square()) - np.log(np.pi)

    def mean(self, parameters):
        return parameters

    def sample(self, parameters, generator):
        return parameters


class SmoothCauchy(Cauchy):
    smooth = True


class Bounded(Cauchy):
    def in_support(self, summary, units):
        return summary.extent_of_rows[0] >= 0


class OfLikelihood(NormalVAETransformer):
    likelihood_class: type[Likelihood]

    def make_likelihood(self, n_features):
        return self.likelihood_class()


@pytest.mark.parametrize("likelihood", [Cauchy, SmoothCauchy])
def test_scores_with_a_likelihood_of_ones_own(likelihood, table_of, monkeypatch):
    monkeypatch.setattr(OfLikelihood, "likelihood_class", likelihood, raising=False)
    X = table_of(40)
    assert_same_scores(OfLikelihood(3, init="random", max_iter=3, random_state=0).fit(X), X)


def test_a_support_of_ones_own_has_no_graph(table_of, monkeypatch):
    monkeypatch.setattr(OfLikelihood, "likelihood_class", Bounded, raising=False)
    vae = OfLikelihood(3, init="random", max_iter=1, random_state=0).fit(table_of(20))
    with pytest.raises(ValueError, match="Bounded overrides in_support, and no graph can be made of that"):
        to_onnx(vae, method="score_samples")


@pytest.mark.parametrize("n_features", [20, 64])
def test_extreme_values_have_the_scores_of_the_estimator(n_features, estimator_class, table_of):
    X = table_of(n_features)
    vae = make(estimator_class).fit(X)
    far = X[:6] * np.array([1, 10, 1e3, 1e6, -1e10, 1e30], np.float32)[:, None]
    far[0, 3] = 3e38
    (scores,) = session(to_onnx(vae, method="score_samples")).run(None, {"X": far})
    np.testing.assert_allclose(scores, vae.score_samples(far), rtol=1e-4)
    assert np.isneginf(scores).any() == (estimator_class is ContinuousBernoulliVAETransformer)


@pytest.mark.parametrize("data_range", [None, (0, 16)])
@pytest.mark.parametrize("offset", [0, 1000])
def test_rows_outside_the_range(data_range, offset, table_of):
    X = table_of(20) + np.float32(offset)
    if data_range is not None:
        data_range = tuple(offset + end for end in data_range)
    vae = make(ContinuousBernoulliVAETransformer, data_range=data_range, max_iter=1).fit(X)
    rows = X[:4].copy()
    rows[1, 0], rows[2, 0] = X.max() + 1, X.min() - 1
    rows[3, 0] = np.nextafter(X.max(), np.float32(np.inf))  # no more than rounding
    (scores,) = session(to_onnx(vae, method="score_samples")).run(None, {"X": rows})
    assert np.isneginf(scores).tolist() == [False, True, True, False]


def test_a_missing_entry_makes_no_score_and_an_outlier(estimator_class, table_of):
    X = table_of(40)
    detector = DensityOutlierDetector(make(estimator_class), contamination=0.1, cv=2, random_state=0).fit(X)
    rows = X[detector.predict(X) == 1][:3]
    rows[1, 2] = np.nan
    label, scores = session(to_onnx(detector)).run(["label", "scores"], {"X": rows})
    assert np.isnan(scores).tolist() == [False, True, False]
    assert label.tolist() == [1, -1, 1]


@pytest.mark.parametrize("scaler", [StandardScaler(), RobustScaler(), MinMaxScaler(), MaxAbsScaler()], ids=str)
@pytest.mark.parametrize("offset", [0, 1e4])
def test_scalers_ahead(scaler, offset, estimator_class, table_of):
    # Far from zero, a scaler in float32 would be off by nats.
    X = table_of(20) * np.float32(0.1) + np.arange(20, dtype=np.float32) % 3 + np.float32(offset)
    assert_same_scores(make_pipeline(scaler, make(estimator_class)).fit(X), X)


def test_searches_and_frozen_estimators(table_of):
    X = table_of(20)
    pipeline = make_pipeline(StandardScaler(), make(NormalVAETransformer))
    search = GridSearchCV(pipeline, {"normalvaetransformer__n_components": [2, 3]}, cv=2).fit(X)
    for estimator in (search, FrozenEstimator(search), make_pipeline(MinMaxScaler(), pipeline).fit(X)):
        assert_same_scores(estimator, X)


def assert_same_detector(detector, X, model=None, **inputs):
    model = session(to_onnx(detector) if model is None else model)
    label, scores = model.run(["label", "scores"], inputs or {"X": X})
    np.testing.assert_allclose(scores, detector.decision_function(X), **TOLERANCE)
    certain = abs(scores) > 1e-3
    np.testing.assert_array_equal(label[certain], detector.predict(X)[certain])
    assert label.dtype == np.int64
    assert 0 < (label == -1).sum() < len(X) / 4


def detector_of(estimator):
    return DensityOutlierDetector(estimator, contamination=0.1, cv=2, random_state=0)


def test_detectors(estimator_class, table_of):
    X = table_of(20)
    whole = detector_of(make_pipeline(MinMaxScaler(), make(estimator_class))).fit(X)
    behind = make_pipeline(MinMaxScaler(), detector_of(make(estimator_class))).fit(X)
    for detector in (whole, behind, FrozenEstimator(whole)):
        assert_same_detector(detector, X)
        assert_same_scores(detector, X)


@pytest.mark.parametrize("dtype", [np.float64, np.int64, np.uint8])
@pytest.mark.parametrize("opset", [11, 13, 18, None])
def test_detectors_of_other_types_of_input(dtype, opset, estimator_class, digits):
    offset = 0 if dtype == np.uint8 else 10**8  # which float32 does not hold to the unit
    X = digits[:, 20:40].astype(dtype) + dtype(offset)
    detector = detector_of(make(estimator_class)).fit(X)
    assert_same_detector(detector, X, skl2onnx.to_onnx(detector, X[:1], target_opset=opset))


def test_detectors_of_the_columns_of_a_frame(digits):
    frame = pd.DataFrame(digits[:, 20:40]).add_prefix("pixel_").astype({"pixel_3": np.int64})
    scaled = make_column_transformer((StandardScaler(), ["pixel_0", "pixel_5"]), (MinMaxScaler(), ["pixel_3"]))
    vae = make(NormalVAETransformer, n_components=2)
    for estimator in (vae, make_pipeline(scaled, vae)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            detector = detector_of(estimator).fit(frame)
        model = skl2onnx.to_onnx(detector, frame[:1])
        assert_same_detector(detector, frame, model, **{name: frame[[name]].to_numpy() for name in frame})


def test_a_detector_runs_without_torch(tmp_path, table_of):
    X = table_of(20)
    detector = detector_of(make_pipeline(StandardScaler(), make(NormalVAETransformer))).fit(X)
    path = tmp_path / "detector.onnx"
    path.write_bytes(to_onnx(detector).SerializeToString())
    np.save(tmp_path / "X.npy", X)
    code = f"""
import sys
sys.modules.update(dict.fromkeys(["torch", "sklearn", "scipy", "skvae", "onnx"]))
import numpy, onnxruntime
X = numpy.load({str(tmp_path / "X.npy")!r})
(scores,) = onnxruntime.InferenceSession({str(path)!r}).run(["scores"], {{"X": X}})
numpy.save({str(tmp_path / "scores.npy")!r}, scores)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    np.testing.assert_allclose(np.load(tmp_path / "scores.npy"), detector.decision_function(X), **TOLERANCE)


def test_the_same_model_gives_the_same_bytes(fitted):
    first, second = (to_onnx(fitted, method="score_samples").SerializeToString() for _ in range(2))
    assert first == second


class OtherScores(NormalVAETransformer):
    def score_samples(self, X, **parameters):
        return 2 * super().score_samples(X, **parameters)


def test_scores_without_a_graph(fitted, digits):
    detector = DensityOutlierDetector(make_pipeline(StandardScaler(), PCA(3)), cv=2).fit(digits[:, 20:30])
    for method in (None, "score_samples"):
        with pytest.raises(ValueError, match="No graph can be made of the scores of PCA. .* Take a VAE, or keep"):
            to_onnx(detector, method=method)
    with pytest.raises(ValueError, match="OtherScores overrides score_samples, and no graph can be made of that"):
        to_onnx(OtherScores(3, max_iter=1, random_state=0).fit(digits), method="score_samples")
    with pytest.raises(ValueError, match="method must be 'score_samples' or None; got 'predict'"):
        to_onnx(fitted, method="predict")
    with pytest.raises(NotFittedError):
        to_onnx(DensityOutlierDetector(NormalVAETransformer()))
    with pytest.raises(NotFittedError):
        skl2onnx.to_onnx(DensityOutlierDetector(NormalVAETransformer()), digits[:1])
