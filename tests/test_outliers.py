"""The detector of outliers: its threshold, and that it takes any estimator with a density."""

import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
import skops.io
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.decomposition import PCA, FactorAnalysis
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, GroupKFold, ShuffleSplit, StratifiedKFold
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.utils import estimator_checks

from skvae import TRUSTED_TYPES, ContinuousBernoulliVAETransformer, NormalVAETransformer
from skvae.outliers import DensityOutlierDetector

from conftest import make


def rows(n_rows, seed=0, n_columns=6):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n_rows, 2)) @ np.random.default_rng(9).normal(size=(2, n_columns)) + 0.2 * rng.normal(
        size=(n_rows, n_columns)
    )


ESTIMATORS = {
    "normal VAE": make(NormalVAETransformer, max_iter=3),
    "PCA": PCA(2),
    "factor analysis": FactorAnalysis(2),
    "mixture": GaussianMixture(2, random_state=0),
    "kernels": KernelDensity(),
    "Pipeline": make_pipeline(StandardScaler(), PCA(2)),
}

# They ask that the share of the training rows is met exactly. The threshold is that of rows that were held out.
OF_TRAINING_ROWS = {
    "check_outliers_train": "contamination is a share of rows that the estimator was not fitted to",
    "check_outliers_fit_predict": "contamination is a share of rows that the estimator was not fitted to",
}


@pytest.mark.draws_globally
@pytest.mark.parametrize(
    ("detector", "expected_failed_checks"),
    [
        (DensityOutlierDetector(PCA(1), contamination=0.1, cv=None), {}),
        (DensityOutlierDetector(make_pipeline(StandardScaler(), PCA(1)), contamination=0.1, cv=None), {}),
        (
            DensityOutlierDetector(
                NormalVAETransformer(2, max_iter=2, prior="normal", random_state=0), contamination=0.1, cv=None
            ),
            {},
        ),
        (DensityOutlierDetector(PCA(1), contamination=0.1, cv=3), OF_TRAINING_ROWS),
    ],
    ids=str,
)
def test_check_estimator(detector, expected_failed_checks):
    results = estimator_checks.check_estimator(
        detector, expected_failed_checks=expected_failed_checks, on_fail=None, on_skip=None
    )
    failed = {result["check_name"] for result in results if result["status"] != "passed"}
    assert failed == set(expected_failed_checks)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_any_estimator_with_a_density(name):
    X, later = rows(200), rows(100, seed=1)
    detector = DensityOutlierDetector(ESTIMATORS[name], contamination=0.1, cv=3, random_state=0).fit(X)
    scores = detector.score_samples(later)
    np.testing.assert_array_equal(scores, clone(ESTIMATORS[name]).fit(X).score_samples(later))
    np.testing.assert_allclose(detector.decision_function(later), scores - detector.offset_)
    np.testing.assert_array_equal(detector.predict(later), np.where(scores < detector.offset_, -1, 1))
    assert detector.predict(later + 100).max() == -1


def test_contamination_is_the_share_of_later_rows():
    """An estimator that adapts to few rows knows these better than later ones."""
    X, later = rows(60, n_columns=15), rows(20_000, seed=1, n_columns=15)
    shares = {}
    for cv in (5, None):
        detector = DensityOutlierDetector(PCA(13), contamination=0.1, cv=cv, random_state=0).fit(X)
        shares[cv] = np.mean(detector.predict(later) == -1)
    assert shares[5] == pytest.approx(0.1, abs=0.06)
    assert shares[None] > 0.25


def test_the_threshold_is_the_quantile_of_held_out_rows():
    X = rows(100)
    cv = ShuffleSplit(1, test_size=0.3, random_state=0)
    ((fitted, held_out),) = cv.split(X)
    detector = DensityOutlierDetector(PCA(2), contamination=0.2, cv=cv).fit(X)
    scores = PCA(2).fit(X[fitted]).score_samples(X[held_out])
    assert detector.offset_ == pytest.approx(np.sort(scores)[5])  # the sixth of 30: 6 / 31 is at most 0.2
    every = DensityOutlierDetector(PCA(2), contamination=0.2, cv=None).fit(X)
    assert np.sum(PCA(2).fit(X).score_samples(X) < every.offset_) == 20
    splits = [(fitted, held_out)]
    assert DensityOutlierDetector(PCA(2), contamination=0.2, cv=splits).fit(X).offset_ == detector.offset_


def test_folds_are_shuffled_and_repeated_by_their_seed():
    X = np.sort(rows(100), axis=0)  # rows in their order: folds in a row would be unlike the others
    detectors = [DensityOutlierDetector(PCA(2), contamination=0.1, random_state=0).fit(X) for _ in range(2)]
    assert detectors[0].offset_ == detectors[1].offset_
    assert DensityOutlierDetector(PCA(2), contamination=0.1, random_state=1).fit(X).offset_ != detectors[0].offset_


def test_a_fitted_estimator_stays_as_it_is():
    X = rows(200)
    pca = PCA(2).fit(X)
    usual = rows(500, seed=1)
    detector = DensityOutlierDetector(FrozenEstimator(pca), contamination=0.1).fit(usual)
    assert np.sum(pca.score_samples(usual) < detector.offset_) == 49
    np.testing.assert_array_equal(detector.score_samples(X), pca.score_samples(X))


def test_missing_entries_go_to_an_estimator_that_takes_them():
    X = rows(100)
    X[::7, 2] = np.nan
    detector = DensityOutlierDetector(
        make(NormalVAETransformer, max_iter=2), contamination=0.1, cv=2, random_state=0
    ).fit(X)
    assert np.isfinite(detector.score_samples(X)).all()
    with pytest.raises(ValueError, match="NaN"):
        DensityOutlierDetector(PCA(2)).fit(X)


def test_columns_of_a_data_frame():
    table = pd.DataFrame(rows(80), columns=list("abcdef"))
    table["kind"] = np.where(table.a > 0, "high", "low")
    encode = make_column_transformer((OneHotEncoder(sparse_output=False), ["kind"]), remainder="passthrough")
    detector = DensityOutlierDetector(make_pipeline(encode, PCA(2)), contamination=0.1, cv=2, random_state=0).fit(table)
    assert detector.feature_names_in_.tolist() == [*"abcdef", "kind"]
    assert detector.predict(table).shape == (80,)
    with pytest.raises(ValueError, match="feature names should match"):
        detector.predict(table.rename(columns={"a": "A"}))


def test_columns_of_polars():
    table = pl.DataFrame({"a": rows(60)[:, 0], "b": rows(60)[:, 1], "kind": ["p", "q"] * 30})
    encode = make_column_transformer((OneHotEncoder(sparse_output=False), ["kind"]), remainder="passthrough")
    detector = DensityOutlierDetector(make_pipeline(encode, PCA(1)), contamination=0.1, cv=2, random_state=0).fit(table)
    assert detector.feature_names_in_.tolist() == ["a", "b", "kind"]
    assert detector.predict(table).shape == (60,)


def test_folds_that_keep_rows_together():
    X, groups = rows(120), np.repeat(np.arange(12), 10)
    folds = list(GroupKFold(3).split(X, groups=groups))
    scores = np.concatenate([PCA(2).fit(X[fitted]).score_samples(X[held_out]) for fitted, held_out in folds])
    detector = DensityOutlierDetector(PCA(2), contamination=0.1, cv=folds).fit(X)
    assert detector.offset_ == pytest.approx(np.sort(scores)[11])
    stratified = list(StratifiedKFold(3).split(X, groups))
    offsets = [
        DensityOutlierDetector(PCA(2), contamination=0.1, cv=cv).fit(X, groups).offset_
        for cv in (stratified, StratifiedKFold(3))
    ]
    assert offsets[0] == offsets[1]


def test_a_search_over_what_it_holds():
    def rate(detector, X, y=None):
        return -abs(np.mean(detector.predict(X) == -1) - 0.1)

    search = GridSearchCV(
        DensityOutlierDetector(PCA(), contamination=0.1, random_state=0),
        {"estimator__n_components": [1, 3]},
        scoring=rate,
        cv=2,
    )
    assert search.fit(rows(200)).best_score_ > -0.06


class Given(PCA):
    """Gives the first column as the score."""

    def score_samples(self, X):
        return np.where(X[:, 0] < -1e9, -np.inf, X[:, 0])


def offset_of(scores, cv=None, **parameters):
    X = np.column_stack([scores, rows(len(scores))])
    return DensityOutlierDetector(Given(1), cv=cv, random_state=0, **parameters).fit(X).offset_


def test_the_rate_of_later_rows_is_at_most_contamination():
    """On average over what is held out, whatever the distribution of the scores."""
    rng = np.random.default_rng(0)
    for n_rows, contamination, expected in ((99, 0.01, 0.01), (60, 0.1, 6 / 61), (300, 0.05, 0.05 - 0.05 / 301)):
        rates = [
            offset_of(rng.uniform(size=n_rows), cv=3, contamination=contamination) for _ in range(300)
        ]  # of uniform scores, the threshold is the rate
        assert np.mean(rates) == pytest.approx(expected, abs=4 * np.std(rates) / 300**0.5)


def test_rows_with_the_density_0_leave_the_others_their_scores():
    scores = np.arange(300.0)
    assert offset_of(scores, contamination=0.01) == 3
    scores[:3] = -1e10
    assert offset_of(scores, contamination=0.01) == 3
    assert offset_of(scores, contamination=0.29) == 87
    scores[:50] = -1e10
    with pytest.warns(UserWarning, match="50 of 300 rows have the density 0, .* about 0.17 of later rows"):
        assert offset_of(scores, contamination=0.02) == 50
    with pytest.raises(ValueError, match="All 300 rows have the density 0"):
        offset_of(np.full(300, -1e10))


def test_few_rows_cannot_tell_a_rare_outlier():
    with pytest.warns(UserWarning, match="the lowest of 50 scores, and about 0.02 of later rows"):
        assert offset_of(np.arange(50.0), cv=2, contamination=0.01) == 0
    assert offset_of(np.arange(199.0), cv=2, contamination=0.01) == 1


def test_a_range_that_later_rows_leave():
    X = rows(60)
    vae = make(ContinuousBernoulliVAETransformer, max_iter=2)
    with pytest.warns(UserWarning, match="have the density 0, more than"):
        detector = DensityOutlierDetector(vae, cv=3, random_state=0).fit(X)
    far = detector.decision_function(X.max(axis=0, keepdims=True) + 1)
    assert np.isneginf(far).all()
    wide = make(ContinuousBernoulliVAETransformer, max_iter=2, data_range=(-20, 20))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Reconstructions of training rows keep")
        assert DensityOutlierDetector(wide, contamination=0.1, cv=3, random_state=0).fit(X).offset_ > -100


class NoNumbers(PCA):
    def score_samples(self, X):
        return np.full(len(X), np.nan)


def test_errors():
    X = rows(50)
    detector = DensityOutlierDetector(PCA(2), contamination=0.1, cv=2).fit(X)
    before = vars(detector).copy()
    with pytest.raises(ValueError, match="50 of 50 rows have a score that is NaN or infinite"):
        detector.set_params(estimator=NoNumbers(2)).fit(X)
    assert detector.offset_ == before["offset_"]
    detector.estimator_ = NoNumbers(2).fit(X)
    assert (detector.predict(X) == -1).all()  # what has no score is not usual
    for parameters, name in (
        ({"contamination": 0.0}, "contamination"),
        ({"contamination": 0.6}, "contamination"),
        ({"cv": 1}, "cv"),
        ({"estimator": StandardScaler()}, "estimator"),
    ):
        with pytest.raises(ValueError, match=f"The '{name}' parameter"):
            DensityOutlierDetector(**{"estimator": PCA(2)} | parameters).fit(X)
    with pytest.raises(ValueError, match="n_splits=5"):
        DensityOutlierDetector(PCA(2)).fit(X[:3])
    with pytest.raises(NotFittedError):
        DensityOutlierDetector(PCA(2)).predict(X)


def test_a_skops_file():
    X = rows(60)
    detector = DensityOutlierDetector(
        make(NormalVAETransformer, max_iter=2), contamination=0.1, cv=2, random_state=0
    ).fit(X)
    loaded = skops.io.loads(skops.io.dumps(detector), trusted=TRUSTED_TYPES)
    np.testing.assert_array_equal(loaded.decision_function(X), detector.decision_function(X))
