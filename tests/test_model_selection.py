"""The regimes: splitter, search and table."""

import os
import pickle
import subprocess
import sys
import time
import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from joblib import Memory
from sklearn.callback import ProgressBar
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, StandardScaler

from skvae import NormalVAETransformer
from skvae.classifiers import SimpleCNNClassifier
from skvae.model_selection import RegimeSplit, regime_search, regime_table

X, y = load_digits(return_X_y=True)
X, y = X[:400], y[:400]


def test_the_two_splits_are_each_other_swapped():
    for cv in (RegimeSplit(60), RegimeSplit(0.15), RegimeSplit(60, shuffle=True, random_state=0)):
        (train, test), (other_train, other_test) = cv.split(X, y)
        assert len(train) == 340
        assert len(test) == 60
        np.testing.assert_array_equal(train, other_test)
        np.testing.assert_array_equal(test, other_train)
        np.testing.assert_array_equal(np.sort(np.concatenate([train, test])), np.arange(400))


def test_without_shuffling_the_small_part_comes_last():
    train, test = next(RegimeSplit(100).split(X))
    np.testing.assert_array_equal(train, np.arange(300))
    np.testing.assert_array_equal(test, np.arange(300, 400))


def test_random_state_of_the_split():
    def first(random_state):
        return next(RegimeSplit(100, shuffle=True, random_state=random_state).split(X))[1]

    np.testing.assert_array_equal(first(0), first(0))
    assert not np.array_equal(first(0), first(1))
    assert not np.array_equal(first(None), first(None))


def test_stratified_classes_are_as_frequent():
    labels = np.repeat([0, 1, 2], [200, 150, 50])
    train, test = next(RegimeSplit(0.2, shuffle=True, stratify=True, random_state=0).split(X, labels))
    np.testing.assert_array_equal(np.bincount(labels[train]), [160, 120, 40])
    np.testing.assert_array_equal(np.bincount(labels[test]), [40, 30, 10])


@pytest.mark.parametrize("kind", [list, pd.DataFrame, scipy.sparse.csr_array])
def test_splits_anything_with_rows(kind):
    rows = X.tolist() if kind is list else kind(X)
    assert [len(test) for _, test in RegimeSplit(100).split(rows)] == [100, 300]


def test_errors_of_the_split():
    with pytest.raises(ValueError, match="small_size=300 makes the small part, of 300 rows, larger"):
        list(RegimeSplit(300).split(X))
    with pytest.raises(ValueError, match="stratify=True needs shuffle=True"):
        list(RegimeSplit(10, stratify=True).split(X, y))
    with pytest.raises(ValueError, match="stratify=True needs y"):
        list(RegimeSplit(10, shuffle=True, stratify=True).split(X))
    for size in (0, 1.0, -1, True, "half", None):
        with pytest.raises(
            ValueError, match=f"small_size must be a number of rows, or a share in .0, 1.; got {size!r}"
        ):
            list(RegimeSplit(size).split(X))


def test_split_is_a_cross_validator_like_any_other():
    cv = RegimeSplit(100)
    assert cv.get_n_splits() == 2
    assert repr(cv) == "RegimeSplit(random_state=None, shuffle=False, small_size=100, stratify=False)"
    assert cross_val_score(KNeighborsClassifier(), X, y, cv=cv).shape == (2,)


class CountingPCA(PCA):
    """Counts its fits by the number of rows."""

    fits: list = []

    def fit_transform(self, X, y=None):
        self.fits.append(len(X))
        return super().fit_transform(X, y)


CLASSIFIERS = {
    "logistic": LogisticRegression(max_iter=2000),
    "neighbors": KNeighborsClassifier(),
    "simple_cnn": SimpleCNNClassifier(max_iter=3, random_state=0),
}


@pytest.fixture
def counted():
    CountingPCA.fits.clear()
    return CountingPCA.fits


@pytest.mark.parametrize("memory", ["none", "str", "path", "joblib"])
def test_each_transformer_is_fitted_once_in_each_regime(memory, tmp_path, counted):
    memory = {"none": None, "str": str(tmp_path), "path": tmp_path, "joblib": Memory(tmp_path, verbose=0)}[memory]
    transformers = {
        "pca": CountingPCA(5, random_state=0),
        "scaled": make_pipeline(StandardScaler(), PCA(3, random_state=0)),
    }
    search = regime_search(transformers, CLASSIFIERS, cv=RegimeSplit(100), memory=memory)
    search.fit(X, y)
    assert sorted(counted) == [100, 300]
    search.fit(X, y)
    assert sorted(counted) == [100, 300]


def test_a_callback_does_not_void_the_cache(tmp_path, counted):
    search = regime_search({"pca": CountingPCA(5, random_state=0)}, CLASSIFIERS, cv=RegimeSplit(100), memory=tmp_path)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not support callbacks")
        search.set_callbacks(ProgressBar(max_propagation_depth=None)).fit(X, y)
        search.set_callbacks(ProgressBar(max_propagation_depth=0)).fit(X, y)
    assert sorted(counted) == [100, 300]


@pytest.mark.parametrize("kind", ["str", "path", "joblib", "other"])
def test_a_folder_keeps_what_is_random_and_the_user_is_told(kind, tmp_path):
    class OtherCache:
        cache = Memory(tmp_path, verbose=0).cache

    memory = {"str": str(tmp_path), "path": tmp_path, "joblib": Memory(tmp_path, verbose=0), "other": OtherCache()}[
        kind
    ]
    transformers = {
        "vae": NormalVAETransformer(2, hidden_layer_sizes=8, max_iter=2),
        "pca": make_pipeline(StandardScaler(), PCA(2)),
        "seeded": PCA(2, random_state=0),
        "generator": PCA(2, random_state=np.random.RandomState(0)),
        "pixels": "passthrough",
    }
    message = "these are None: vae__random_state, pca__pca__random_state. .*no spread. Give an integer"
    with pytest.warns(UserWarning, match=message) as caught:
        regime_search(transformers, CLASSIFIERS, memory=memory)
    assert [warning.filename for warning in caught] == [__file__]


def test_what_a_search_makes_of_random_fits(tmp_path):
    """As the documentation says: one fit for all classifiers and in a second fit, and in a folder in later searches."""
    transformers = {"vae": NormalVAETransformer(2, hidden_layer_sizes=8, max_iter=2)}
    classifiers = {"one": KNeighborsClassifier(), "two": KNeighborsClassifier()}

    def scores(search):
        return regime_table(search.fit(X, y)).to_numpy().ravel().tolist()

    def make_search(memory=None):
        return regime_search(transformers, classifiers, cv=RegimeSplit(100), memory=memory)

    searches = [make_search() for _ in range(3)]
    one, *others = [scores(search) for search in searches]
    assert one[:2] == one[2:]
    assert scores(searches[0]) == one
    assert any(other != one for other in others)
    with pytest.warns(UserWarning, match="repeated runs show no spread"):
        assert scores(make_search(tmp_path)) == scores(make_search(tmp_path))


def test_caches_that_keep_nothing_need_no_warning():
    regime_search({"pca": PCA(2)}, CLASSIFIERS, memory=Memory(None))


@pytest.mark.parametrize("kind", ["none", "path", "joblib"])
def test_a_slow_disk_is_no_failed_fit(kind, tmp_path, monkeypatch):
    memory = {"none": None, "path": tmp_path, "joblib": Memory(tmp_path, verbose=0)}[kind]
    backend = type(Memory(tmp_path).store_backend)
    store = backend.store_metadata
    monkeypatch.setattr(backend, "store_metadata", lambda *args: time.sleep(0.6) or store(*args))
    with pytest.warns(UserWarning, match="Persisting input arguments took"):
        Memory(tmp_path / "other", verbose=0).cache(np.mean)([1, 2])
    search = regime_search({"pca": PCA(2, random_state=0)}, CLASSIFIERS, cv=RegimeSplit(100), memory=memory)
    search.set_params(error_score="raise")
    # Worker processes get the search pickled.
    regime_table(pickle.loads(pickle.dumps(search)).fit(X, y))


def test_a_vae_is_fitted_once_in_each_regime(monkeypatch):
    fits = []
    fit = NormalVAETransformer.fit
    monkeypatch.setattr(NormalVAETransformer, "fit", lambda self, X, y=None: fits.append(len(X)) or fit(self, X, y))
    vae = NormalVAETransformer(3, hidden_layer_sizes=8, max_iter=2, random_state=0)
    regime_search({"vae": vae}, CLASSIFIERS, cv=RegimeSplit(100)).fit(X, y)
    assert sorted(fits) == [100, 300]


def test_the_search_is_scikit_learns_own_and_not_fitted():
    transformers = {"pixels": "passthrough", "pca": PCA(5)}
    search = regime_search(transformers, CLASSIFIERS, n_jobs=1, scoring="balanced_accuracy")
    assert type(search) is GridSearchCV
    assert isinstance(search.estimator, Pipeline)
    assert not hasattr(search, "cv_results_")
    assert search.scoring == "balanced_accuracy"
    with pytest.raises(ValueError, match="not fitted"):
        regime_table(search)
    assert not hasattr(transformers["pca"], "components_")


def test_the_table_against_pipelines_by_hand():
    transformers = {"pixels": "passthrough", "pca": PCA(5, random_state=0), "scaled": MinMaxScaler()}
    cv = RegimeSplit(0.25, shuffle=True, stratify=True, random_state=1)
    table = regime_table(regime_search(transformers, CLASSIFIERS, cv=cv).fit(X, y))
    assert list(table.index) == list(transformers)
    assert list(table.columns) == [(name, regime) for name in CLASSIFIERS for regime in ("large", "small")]
    assert table.columns.names == ["classifier", "regime"]
    for name, transformer in transformers.items():
        for classifier_name, classifier in CLASSIFIERS.items():
            scores = [
                Pipeline([("t", transformer), ("c", classifier)]).fit(X[train], y[train]).score(X[test], y[test])
                for train, test in cv.split(X, y)
            ]
            np.testing.assert_array_equal(table.loc[name, classifier_name], scores)


def test_two_processes_give_the_same_table():
    transformers = {
        "pca": PCA(5, random_state=0),
        "vae": NormalVAETransformer(3, hidden_layer_sizes=8, max_iter=3, random_state=0),
    }
    alone, together = (
        regime_table(regime_search(transformers, CLASSIFIERS, cv=RegimeSplit(100), n_jobs=n_jobs).fit(X, y))
        for n_jobs in (1, 2)
    )
    pd.testing.assert_frame_equal(alone, together)


def test_default_regimes_are_six_to_one():
    search = regime_search({"pca": PCA(3)}, {"neighbors": KNeighborsClassifier()})
    assert [len(test) for _, test in search.cv.split(X, y)] == [58, 342]


def test_the_temporary_cache_goes_with_the_process():
    code = """
import numpy as np
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.neighbors import KNeighborsClassifier
from skvae.model_selection import regime_search

search = clone(regime_search({"pca": PCA(2)}, {"neighbors": KNeighborsClassifier(1)}))
X, y = np.random.RandomState(0).normal(size=(70, 3)), np.arange(70) % 2
search.fit(X, y)
print(search.estimator.memory.location)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "regime_search_" in run.stdout
    assert not os.path.exists(run.stdout.strip())


@pytest.mark.parametrize(
    ("transformers", "classifiers", "error", "message"),
    [
        ({}, CLASSIFIERS, ValueError, "transformers must hold at least one of them"),
        ({"pca": PCA()}, {}, ValueError, "classifiers must hold at least one"),
        ([PCA()], CLASSIFIERS, TypeError, r"transformers must be a dict of names to transformers; got \[PCA"),
        ({"my__pca": PCA()}, CLASSIFIERS, ValueError, "transformers has the name 'my__pca'"),
        ({1: PCA()}, CLASSIFIERS, ValueError, "transformers has the name 1"),
        ({"pca": PCA()}, {"steps": CLASSIFIERS["logistic"]}, ValueError, "classifiers has the name 'steps'"),
        ({"pca": PCA}, CLASSIFIERS, TypeError, r"transformers\['pca'\] must be a transformer"),
        ({"pca": "drop"}, CLASSIFIERS, TypeError, r"transformers\['pca'\] must be a transformer"),
        (
            {"pca": LogisticRegression()},
            CLASSIFIERS,
            TypeError,
            r"transformers\['pca'\] must be a transformer",
        ),
        ({"pca": PCA()}, {"linear": LinearRegression()}, TypeError, r"classifiers\['linear'\] must be a classifier"),
        (
            {"unit": FunctionTransformer(lambda X: X / 16)},
            CLASSIFIERS,
            ValueError,
            r"transformers\['unit'\] cannot be cached, because it cannot be pickled",
        ),
    ],
)
def test_mistakes_are_found_before_anything_is_fitted(transformers, classifiers, error, message):
    with pytest.raises(error, match=message):
        regime_search(transformers, classifiers)


def test_other_errors_of_search_and_table():
    with pytest.raises(TypeError, match="memory must be a folder, a joblib.Memory or None; got 5"):
        regime_search({"pca": PCA()}, CLASSIFIERS, memory=5)
    with pytest.raises(ValueError, match="search must be one that regime_search made"):
        regime_table(GridSearchCV(KNeighborsClassifier(), {"n_neighbors": [1, 2]}).fit(X, y))
    search = regime_search({"pca": PCA(3, random_state=0)}, {"neighbors": KNeighborsClassifier()}, cv=RegimeSplit(50))
    search.param_grid["classifier__neighbors__n_neighbors"] = [1, 2]
    with pytest.raises(ValueError, match="nothing added to its grid"):
        regime_table(search.fit(X, y))
