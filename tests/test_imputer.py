"""The imputer: what it fills, what it leaves alone, and what stands for a missing entry."""

import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, Normalizer, StandardScaler

from skvae import TRUSTED_TYPES, NormalVAETransformer
from skvae.impute import VAEImputer

from conftest import make

N_ROWS, N_COLUMNS = 200, 6


@pytest.fixture(scope="module")
def table():
    """Rows of two factors in columns of different units, complete and with a fifth of the entries missing."""
    rng = np.random.default_rng(0)
    complete = rng.normal(size=(N_ROWS, 2)) @ rng.normal(size=(2, N_COLUMNS)) + 0.1 * rng.normal(
        size=(N_ROWS, N_COLUMNS)
    )
    complete = 10.0 ** np.arange(N_COLUMNS) * (complete + 3)
    missing = rng.random(complete.shape) < 0.2
    missing[:, 5] = False
    X = np.where(missing, np.nan, complete)
    for array in (complete, X):
        array.flags.writeable = False
    return complete, X


@pytest.fixture(scope="module")
def X(table):
    return table[1]


def vae():
    return make(NormalVAETransformer, n_components=2)


def imputer(estimator=None, **parameters):
    estimator = make_pipeline(StandardScaler(), vae()) if estimator is None else estimator
    return VAEImputer(estimator, **{"n_importance_samples": 20} | parameters)


def error(filled, table):
    complete, X = table
    return np.sqrt(np.mean(np.square((filled - complete) / complete.std(axis=0))[np.isnan(X)]))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_observed_entries_stay_as_they_are(dtype, X):
    rows = X.astype(dtype)
    before = rows.tobytes()
    filled = imputer().fit_transform(rows)
    observed = ~np.isnan(rows)
    assert rows.tobytes() == before
    assert filled.dtype == dtype
    assert filled[observed].tobytes() == rows[observed].tobytes()
    assert np.isfinite(filled).all()


def test_missing_entries_are_filled_from_the_others(table):
    """The default estimator puts all columns on one scale."""
    complete, X = table
    filled = VAEImputer(random_state=0).fit(X[:150]).transform(X[150:])
    rows = complete[150:], X[150:]
    assert error(filled, rows) < 0.5 * error(SimpleImputer().fit(X[:150]).transform(X[150:]), rows)


def test_components_of_the_default_estimator_go_by_the_columns(X):
    columns = np.column_stack([X, np.full(N_ROWS, np.nan)])[:40]
    estimator = VAEImputer(random_state=3).fit(columns).estimator_
    assert estimator[-1].n_components == N_COLUMNS
    assert estimator[-1].random_state == 3


def test_steps_ahead_are_undone(X):
    scaler = StandardScaler().fit(X)
    alone = imputer(vae()).fit_transform(scaler.transform(X))
    in_pipeline = imputer(make_pipeline("passthrough", StandardScaler(), vae())).fit_transform(X)
    np.testing.assert_allclose(scaler.transform(in_pipeline), alone, rtol=1e-5, atol=1e-5)


def test_it_is_what_the_estimator_imputes(estimator_class, X):
    rows = X / np.nanmax(X, axis=0)
    fitted = imputer(make(estimator_class)).fit(rows)
    np.testing.assert_array_equal(fitted.transform(rows), fitted.estimator_.impute(rows, n_importance_samples=20))


def test_same_array_same_bits(X):
    fitted = imputer().fit(X)
    assert fitted.transform(X).tobytes() == fitted.transform(X).tobytes() == imputer().fit_transform(X).tobytes()


def test_the_estimator_is_a_template(X):
    template = make_pipeline(StandardScaler(), vae()).set_output(transform="pandas")
    fitted = imputer(template).fit(X)
    assert isinstance(fitted.transform(X), np.ndarray)
    assert not hasattr(template[-1], "module_")
    assert fitted.estimator is template
    assert clone(fitted).get_params()["estimator__normalvaetransformer__n_components"] == 2


def test_new_patterns_after_a_fit_without_any(table):
    complete, X = table
    fitted = imputer().fit(complete)
    assert fitted.transform(complete).tobytes() == complete.tobytes()
    rows = complete.copy()
    rows[::2, 5] = np.nan
    filled = fitted.transform(rows)
    assert np.isfinite(filled).all()
    assert filled[1::2].tobytes() == complete[1::2].tobytes()
    nothing = np.full((3, N_COLUMNS), np.nan)
    assert np.isfinite(fitted.transform(nothing)).all()


@pytest.mark.filterwarnings("ignore:Skipping features without any observed values")  # of scikit-learn
@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("indicator", [False, True])
def test_columns_are_those_of_scikit_learn(keep, indicator, X):
    """An empty column is dropped, or 0, whatever it holds later."""
    frame = pd.DataFrame(X, columns=list("abcdef")).assign(b=np.nan)
    options = {"keep_empty_features": keep, "add_indicator": indicator}
    ours = imputer(**options).set_output(transform="pandas").fit(frame)
    theirs = SimpleImputer(**options).set_output(transform="pandas").fit(frame)
    later = frame.assign(b=1.0)
    for rows in (frame, later):
        filled, expected = ours.transform(rows), theirs.transform(rows)
        assert list(filled.columns) == list(expected.columns) == list(ours.get_feature_names_out())
        if indicator:
            added = [name for name in expected if name.startswith("missing")]
            np.testing.assert_array_equal(filled[added], expected[added])
    assert not keep or (ours.transform(frame)["b"] == 0).all()


def test_a_later_value_of_an_empty_column_is_not_kept():
    X = np.array([[1.0, np.nan], [2.0, np.nan], [3.0, np.nan]] * 10)
    later = np.array([[np.nan, 7.0], [4.0, 8.0]])
    for filling in (imputer(keep_empty_features=True), KNNImputer(keep_empty_features=True)):
        np.testing.assert_array_equal(filling.fit(X).transform(later)[:, 1], 0)


@pytest.mark.parametrize("dtype", [np.int64, np.float32])
def test_a_number_stands_for_missing_entries(dtype, X):
    rows = np.round(np.where(np.isnan(X), -1, np.abs(X))).astype(dtype)
    with_nan = np.where(rows == -1, np.nan, rows).astype(np.float64 if dtype == np.int64 else dtype)
    filled = imputer(missing_values=-1).fit_transform(rows)
    assert filled.tobytes() == imputer().fit_transform(with_nan).tobytes()
    assert (filled != -1).any(axis=1).all()


def test_nan_is_an_error_where_a_number_stands_for_missing_entries(X):
    with pytest.raises(ValueError, match=r"X contains NaN, but missing_values=-1 stands for .* Set missing_values=np"):
        imputer(missing_values=-1).fit(X)


@pytest.mark.parametrize("placeholder", [np.nan, None, pd.NA], ids=str)
def test_nulls_of_data_frames_are_missing(placeholder, X):
    nullable = pd.DataFrame(X).astype("Float64")
    objects = np.where(np.isnan(X), None, X.astype(object))
    for rows in (nullable, objects):
        filled = imputer(missing_values=placeholder).fit_transform(rows)
        np.testing.assert_allclose(filled, imputer().fit_transform(X), rtol=1e-3)


@pytest.mark.parametrize("parameters", [{"missing_values": "?"}, {"n_importance_samples": 0}, {"estimator": 3}])
def test_parameters_are_checked(parameters, X):
    with pytest.raises(ValueError, match=f"The '{next(iter(parameters))}' parameter of VAEImputer"):
        VAEImputer(**parameters).fit(X)


def test_infinity_is_an_error(X):
    broken = X.copy()
    broken[3, 2] = np.inf
    with pytest.raises(ValueError, match="infinity"):
        imputer().fit(broken)
    with pytest.raises(ValueError, match="infinity"):
        imputer().fit(X).transform(broken)


def test_a_table_without_entries_is_an_error():
    with pytest.raises(ValueError, match="All entries of X are missing"):
        imputer().fit(np.full((20, 3), np.nan))


UNSUITED = {
    "no VAE": (PCA(2), TypeError, "estimator ends in a PCA, which has no method impute. Give a NormalVAE"),
    "no way back": (make_pipeline(Normalizer(), vae()), TypeError, "Normalizer of estimator has no method inverse_tr"),
    "other columns": (
        make_pipeline(StandardScaler(), FunctionTransformer(lambda X: X[:, :4]), vae()),
        ValueError,
        "make 4 columns out of 6",
    ),
}


@pytest.mark.parametrize("name", UNSUITED)
def test_an_unsuited_estimator_is_an_error_and_changes_nothing(name, X):
    estimator, error, message = UNSUITED[name]
    fitted = imputer().fit(X)
    before = fitted.transform(X)
    with pytest.raises(error, match=message):
        fitted.set_params(estimator=estimator).fit(X)
    assert fitted.transform(X).tobytes() == before.tobytes()


def test_a_pipeline_is_searched(X):
    y = np.arange(N_ROWS) % 2
    pipeline = make_pipeline(imputer(), StandardScaler(), LogisticRegression())
    name = "vaeimputer__estimator__normalvaetransformer__n_components"
    search = GridSearchCV(pipeline, {name: [1, 2]}, cv=2).fit(X, y)
    assert search.predict(X).shape == (N_ROWS,)


def test_a_broken_entry_does_not_spoil_its_column(X):
    X = X[:50]
    broken = X.copy()
    row = int(np.isnan(X[:, 1]).argmin())
    broken[row, 1] = 1e6
    with pytest.warns(UserWarning, match="An entry of column 1 of X is"):
        filled = VAEImputer(random_state=0).fit_transform(broken)
    hidden = np.isnan(X[:, 1])
    assert np.abs(filled[hidden, 1]).max() < 10 * np.nanmax(np.abs(X[:, 1]))


def test_skops(X):
    fitted = imputer(add_indicator=True).fit(X)
    loaded = skops.io.loads(skops.io.dumps(fitted), trusted=TRUSTED_TYPES)
    assert loaded.transform(X).tobytes() == fitted.transform(X).tobytes()


def test_feature_names_are_checked(X):
    fitted = imputer().fit(pd.DataFrame(X, columns=list("abcdef")))
    with pytest.raises(ValueError, match="feature names should match"):
        fitted.transform(pd.DataFrame(X, columns=list("fedcba")))
    fitted.fit(X)
    assert not hasattr(fitted, "feature_names_in_")
