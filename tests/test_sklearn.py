"""scikit-learn's own checks, with none expected to fail, and the conventions they do not cover."""

import warnings

import numpy as np
import pytest
import sklearn
import torch
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.utils import estimator_checks

from skvae import ContinuousBernoulliVAETransformer, NormalVAETransformer
from skvae.impute import VAEImputer

from conftest import make

CONFIGURATIONS = [
    NormalVAETransformer(max_iter=3),
    NormalVAETransformer(3, hidden_layer_sizes=8, early_stopping=True, validation_fraction=0.3, max_iter=3),
    NormalVAETransformer(3, encoder="auto", hidden_layer_sizes=(8, 4), dropout=0.2, max_iter=3),
    NormalVAETransformer(2, hidden_layer_sizes=(), min_scale=0.01, beta=0.5, clip_value=None, max_iter=3),
    ContinuousBernoulliVAETransformer(max_iter=3),
    ContinuousBernoulliVAETransformer(
        3, hidden_layer_sizes=8, early_stopping=True, validation_fraction=0.3, max_iter=3
    ),
    ContinuousBernoulliVAETransformer(3, encoder="dense", hidden_layer_sizes=(8, 4), dropout=0.0, max_iter=3),
    ContinuousBernoulliVAETransformer(
        2, hidden_layer_sizes=(), data_range=(-1e4, 1e4), beta=0.5, clip_value=None, max_iter=3
    ),
    VAEImputer(NormalVAETransformer(2, prior="normal", max_iter=2)),
    VAEImputer(ContinuousBernoulliVAETransformer(2, prior="normal", max_iter=2), missing_values=-1e9),
    pytest.param(NormalVAETransformer(), marks=pytest.mark.slow),
    pytest.param(ContinuousBernoulliVAETransformer(), marks=pytest.mark.slow),
]

DIRECT_CHECKS = [
    estimator_checks.check_dataframe_column_names_consistency,
    estimator_checks.check_estimators_partial_fit_n_features,
    estimator_checks.check_get_feature_names_out_error,
    estimator_checks.check_global_output_transform_pandas,
    estimator_checks.check_global_set_output_transform_polars,
    estimator_checks.check_param_validation,
    estimator_checks.check_set_output_transform,
    estimator_checks.check_set_output_transform_pandas,
    estimator_checks.check_set_output_transform_polars,
    estimator_checks.check_transformer_get_feature_names_out,
    estimator_checks.check_transformer_get_feature_names_out_pandas,
]


# Those of transformers and of arrays of other kinds, which scikit-learn leaves out where tags or packages say so.
NEEDED_CHECKS = {
    "check_array_api_input",
    "check_dict_unchanged",
    "check_fit2d_1sample",
    "check_methods_sample_order_invariance",
    "check_methods_subset_invariance",
    "check_n_features_in_after_fitting",
    "check_readonly_memmap_input",
    "check_transformer_data_not_an_array",
    "check_transformer_general",
    "check_transformer_preserve_dtypes",
}


@pytest.mark.draws_globally
@pytest.mark.filterwarnings("ignore:0 of . components are active")  # in a range that is much wider than the data
@pytest.mark.parametrize("estimator", CONFIGURATIONS, ids=str)
def test_check_estimator(estimator):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        results = estimator_checks.check_estimator(estimator, on_fail="raise", on_skip=None)
    assert {result["status"] for result in results} == {"passed"}
    assert {result["check_name"] for result in results} >= NEEDED_CHECKS


@pytest.mark.draws_globally
@pytest.mark.parametrize("check", DIRECT_CHECKS, ids=lambda check: check.__name__)
def test_check_not_yielded(check, estimator_class):
    with warnings.catch_warnings():
        # The checks go from a DataFrame to an array and back.
        warnings.filterwarnings("ignore", "X (does not have valid|has) feature names", UserWarning)
        check(estimator_class.__name__, make(estimator_class, max_iter=2))


@pytest.mark.draws_globally
@pytest.mark.parametrize("check", DIRECT_CHECKS, ids=lambda check: check.__name__)
def test_check_of_imputer_not_yielded(check, estimator_class):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "X (does not have valid|has) feature names", UserWarning)
        check("VAEImputer", VAEImputer(make(estimator_class, max_iter=2)))


def test_raw_integers(estimator_class, digits):
    raw = digits.astype(np.uint8)
    from_raw, from_floats = (make(estimator_class, batch_size=100).fit(X).transform(X) for X in (raw, digits))
    np.testing.assert_allclose(from_raw, from_floats, atol=1e-4)


def test_pipeline_and_cross_validation(estimator_class, digits):
    y = np.arange(len(digits)) % 2
    pipeline = make_pipeline(make(estimator_class), LogisticRegression())
    assert cross_val_score(pipeline, digits, y, cv=2).shape == (2,)


def test_grid_search_selects_on_the_elbo(estimator_class, digits):
    search = GridSearchCV(make(estimator_class), {"n_components": [1, 4]}, cv=2).fit(digits)
    assert search.best_score_ == max(search.cv_results_["mean_test_score"])
    assert search.best_estimator_.transform(digits).shape[1] == search.best_params_["n_components"]


def test_unfitted(estimator_class, digits):
    estimator = estimator_class()
    assert not hasattr(estimator, "_n_features_out")
    for call in (
        lambda: estimator.transform(digits),
        lambda: estimator.posterior(digits),
        lambda: estimator.score_samples(digits),
        lambda: estimator.score(digits),
        lambda: estimator.inverse_transform(digits[:, :20]),
        lambda: estimator.sample(),
        lambda: estimator.get_feature_names_out(),
    ):
        with pytest.raises(NotFittedError, match=f"This {estimator_class.__name__} instance is not fitted yet"):
            call()


def test_feature_names_out(fitted, estimator_class):
    prefix = estimator_class.__name__.lower()
    assert list(fitted.get_feature_names_out()) == [f"{prefix}{i}" for i in range(3)]


def test_pandas_output_and_back(estimator_class, digits):
    fitted = make(estimator_class).set_output(transform="pandas").fit(digits)
    frame = fitted.transform(digits)
    assert list(frame.columns) == list(fitted.get_feature_names_out())
    assert (frame.dtypes == np.float32).all()
    assert fitted.inverse_transform(frame).shape == digits.shape


def test_clone_carries_every_parameter(estimator_class):
    changed = estimator_class(7, beta=0.25, device="cpu", hidden_layer_sizes=[3, 2])
    assert clone(changed).get_params() == changed.get_params()


def test_same_surface_as_pca(estimator_class):
    surface = {"fit", "fit_transform", "transform", "inverse_transform", "score", "score_samples", "set_output"}
    assert surface <= set(dir(PCA))
    assert surface <= set(dir(estimator_class))


def test_x_val_reaches_fit_through_a_pipeline(estimator_class, digits):
    pipeline = Pipeline([("vae", make(estimator_class)), ("classifier", LogisticRegression())])
    pipeline.fit(digits, np.arange(len(digits)) % 2, vae__X_val=digits[:20])
    assert len(pipeline["vae"].history_["validation_elbo"]) == 4


@pytest.mark.draws_globally
def test_x_val_is_routed(estimator_class, digits):
    with sklearn.config_context(enable_metadata_routing=True):
        vae = make(estimator_class).set_fit_request(X_val=True)
        pipeline = Pipeline([("vae", vae), ("classifier", LogisticRegression())])
        pipeline.fit(digits, np.arange(len(digits)) % 2, X_val=digits[:20])
        assert len(pipeline["vae"].history_["validation_elbo"]) == 4
        refusing = Pipeline([("vae", make(estimator_class)), ("classifier", LogisticRegression())])
        with pytest.raises(sklearn.exceptions.UnsetMetadataPassedError, match="X_val"):
            refusing.fit(digits, np.arange(len(digits)) % 2, X_val=digits[:20])


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_validation_of_parameters_can_be_left_out(estimator_class, method, digits):
    """Something that is no Integral and works like one goes through when nobody asks."""
    estimator = make(estimator_class, max_iter=1, beta=torch.tensor(1.0))
    with pytest.raises(ValueError, match="The 'beta' parameter"):
        getattr(estimator, method)(digits)
    with sklearn.config_context(skip_parameter_validation=True):
        getattr(estimator, method)(digits)
    assert estimator.n_iter_ == 1
