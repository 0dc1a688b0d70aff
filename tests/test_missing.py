"""Missing entries: fits, transforms and scores that count what is observed, and imputation."""

import warnings

import joblib
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.preprocessing import StandardScaler
from test_checkpoint import interrupt
from torch import nn

from skvae import ContinuousBernoulliVAETransformer, NormalVAETransformer
from skvae._data.rows import Rows, Summary, Units
from skvae._data.split import split_rows
from skvae._fit.distributed import Group
from skvae._fit.run import Seeds
from skvae._model.em import fit_to_observed
from skvae._model.noise import Noise
from skvae._model.vae import VAE

from conftest import bits, make

BOTH = (NormalVAETransformer, ContinuousBernoulliVAETransformer)
CPU = torch.device("cpu")


def with_holes(X, share, seed=0):
    """Return `X` with NaN at random; the first row keeps all of its entries."""
    hidden = np.random.RandomState(seed).random_sample(X.shape) < share
    hidden[0] = False
    return np.where(hidden, np.nan, X)


@pytest.fixture(scope="module")
def table():
    """A standardized table, complete and with a quarter of its entries missing."""
    X = StandardScaler().fit_transform(load_breast_cancer().data)
    return X, with_holes(X, 0.25)


@pytest.fixture(scope="module")
def holey(digits):
    return with_holes(digits, 0.2)


@pytest.fixture(scope="module", params=BOTH)
def fitted(request, holey):
    return make(request.param, prior="mixture").fit(holey)


def linear_model(rng, n_rows, n_features, n_components, noise):
    """Return rows of probabilistic PCA, its mean and its covariance matrix."""
    W, mean = rng.normal(size=(n_components, n_features)), rng.normal(size=n_features)
    X = mean + rng.normal(size=(n_rows, n_components)) @ W + noise * rng.normal(size=(n_rows, n_features))
    return X, mean, W.T @ W + noise**2 * np.eye(n_features)


def conditional(X, mean, covariance):
    """Return the log density of the observed entries of each row of a normal distribution, and its completed rows."""
    densities, completed = [], X.copy()
    for row in completed:
        seen = ~np.isnan(row)
        left, block = row[seen] - mean[seen], covariance[np.ix_(seen, seen)]
        densities.append(
            -0.5 * (left @ np.linalg.solve(block, left) + np.linalg.slogdet(2 * np.pi * block)[1] if seen.any() else 0)
        )
        row[~seen] = mean[~seen] + covariance[np.ix_(~seen, seen)] @ np.linalg.solve(block, left)
    return np.array(densities), completed


@pytest.fixture(scope="module")
def linear():
    """A fit that has stayed at the linear model, rows with holes, and mean and covariance of its decoder."""
    X, *_ = linear_model(np.random.default_rng(0), 400, 8, 2, 0.5)
    H = with_holes(X, 0.3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        vae = NormalVAETransformer(
            3, noise="shared", prior="normal", max_iter=1, learning_rate_init=1e-30, random_state=0
        )
        vae.fit(H)
    mean = vae.inverse_transform(np.zeros((1, 3)))[0].astype(float)
    W = vae.inverse_transform(np.eye(3)).astype(float) - mean
    return vae, H, mean, W.T @ W + float(vae.noise_variance_) * np.eye(8)


class TestOracles:
    def test_the_score_of_a_linear_model_is_the_marginal_density_of_what_is_observed(self, linear):
        vae, H, mean, covariance = linear
        exact, _ = conditional(H, mean, covariance)
        np.testing.assert_allclose(vae.score_samples(H), exact, rtol=1e-3, atol=2e-3)
        bound = vae.score_samples(H[:40], n_importance_samples=20)
        np.testing.assert_allclose(bound, exact[:40], rtol=1e-3, atol=2e-3)

    def test_the_imputed_mean_of_a_linear_model_is_its_conditional_mean(self, linear):
        vae, H, mean, covariance = linear
        _, exact = conditional(H, mean, covariance)
        np.testing.assert_allclose(vae.impute(H), exact, atol=0.01 * H[~np.isnan(H)].std())

    def test_draws_of_a_linear_model_have_its_conditional_distribution(self, linear):
        vae, H, mean, covariance = linear
        row = H[np.isnan(H).sum(axis=1) == 3][:1]
        draws = vae.impute(row, n_draws=4000, n_importance_samples=4000, random_state=0)[:, 0]
        _, exact = conditional(row, mean, covariance)
        hidden, seen = np.isnan(row[0]), ~np.isnan(row[0])
        left = covariance[np.ix_(hidden, seen)] @ np.linalg.inv(covariance[np.ix_(seen, seen)])
        expected = covariance[np.ix_(hidden, hidden)] - left @ covariance[np.ix_(seen, hidden)]
        np.testing.assert_allclose(draws[:, hidden].mean(axis=0), exact[0, hidden], atol=0.05)
        np.testing.assert_allclose(np.cov(draws[:, hidden].T), expected, atol=0.1 * expected.max())

    def test_the_posterior_mean_of_a_linear_model_is_that_given_what_is_observed(self, linear):
        vae, H, mean, covariance = linear
        W = vae.inverse_transform(np.eye(3)).astype(float) - mean
        for row, z in zip(H[:50], vae.transform(H[:50]), strict=True):
            seen = ~np.isnan(row)
            block = covariance[np.ix_(seen, seen)]
            expected = W[:, seen] @ np.linalg.solve(block, row[seen] - mean[seen])
            np.testing.assert_allclose(z, expected, atol=1e-3)

    def test_the_linear_model_is_found_where_entries_are_missing(self):
        X, mean, covariance = linear_model(np.random.default_rng(1), 3000, 10, 2, 0.3)
        H = with_holes(X, 0.4)
        rows = Rows(H, Units(0.0, 1.0), CPU, has_missing=True)
        start = torch.zeros(10, dtype=torch.float64), torch.eye(10, dtype=torch.float64)[:2], 1.0
        found_mean, W, variance, left = fit_to_observed(*start, rows, Group(), smallest=1e-6)
        assert variance == pytest.approx(0.09, rel=0.05)
        assert left < variance
        np.testing.assert_allclose(found_mean, mean, atol=0.1)
        relative = np.abs((W.T @ W).numpy() + variance * np.eye(10) - covariance).max() / covariance.max()
        assert relative < 0.06

    def test_a_score_is_a_density_in_the_units_of_what_is_observed(self, digits, holey):
        one, other = (make(NormalVAETransformer).fit(scale * holey) for scale in (1, 8))
        n_observed = (~np.isnan(holey)).sum(axis=1)
        np.testing.assert_allclose(
            other.score_samples(8 * holey), one.score_samples(holey) - n_observed * np.log(8), atol=0.05
        )


class TestFits:
    @pytest.mark.parametrize("estimator_class", BOTH)
    @pytest.mark.parametrize(
        "parameters",
        [
            {},
            {"init": "random"},
            {"early_stopping": True, "n_iter_no_change": 1, "tol": 1e6},
            {"encoder": nn.Linear(64, 6), "decoder": nn.Linear(3, 64)},
            {"encoder": "conv"},
            {"prior": "mixture"},
            {"learning_rate": "constant", "batch_size": 17},
        ],
        ids=str,
    )
    def test_all_settings(self, estimator_class, parameters, holey):
        estimator = make(estimator_class, **parameters).fit(holey)
        assert np.isfinite(estimator.history_["elbo"]).all()
        assert np.isfinite(estimator.transform(holey)).all()
        assert np.isfinite(estimator.score_samples(holey)).all()
        assert np.isfinite(estimator.impute(holey)).all()
        estimator.partial_fit(holey)
        assert np.isfinite(estimator.transform(holey)).all()

    @pytest.mark.parametrize("estimator_class", BOTH)
    def test_a_model_is_nearly_that_of_complete_rows(self, estimator_class, digits, holey):
        scores = [make(estimator_class).fit(X).score_samples(digits) for X in (digits, holey)]
        assert np.median(scores[1]) > np.median(scores[0]) - 25

    @pytest.mark.parametrize("noise", ["shared", "network", "feature"])
    def test_noise(self, noise, holey):
        estimator = make(NormalVAETransformer, noise=noise).fit(holey, X_val=holey[:20])
        assert np.isfinite(estimator.validation_scores_ or estimator.history_["validation_elbo"]).all()
        assert np.isfinite(estimator.impute(holey)).all()

    def test_training_ignores_what_stands_in_a_missing_entry(self, holey):
        """Terms and their gradients are the same whatever the decoder gives for missing entries."""
        vae = make(NormalVAETransformer, noise="shared").fit(holey).module_
        batch = vae.completion.complete(Rows(holey, vae.units, CPU, has_missing=True))[:5]
        assert batch.x.isfinite().all()
        decoded = torch.zeros_like(batch.x, requires_grad=True)
        outcomes = []
        for other in (0.0, 100.0):
            vae.decoder.forward = lambda z, noise, other=other: torch.where(batch.observed, decoded, other)
            log_likelihood = vae.terms(batch, Noise(CPU, 0)).log_likelihood
            (gradient,) = torch.autograd.grad(log_likelihood, decoded)
            outcomes.append((log_likelihood.detach(), gradient))
        assert torch.equal(outcomes[0][0], outcomes[1][0])
        assert torch.equal(outcomes[0][1], outcomes[1][1])
        assert (outcomes[0][1] != 0).any()

    def test_what_stands_in_the_place_of_a_missing_entry_is_within_the_units(self):
        """A likelihood may have no density beyond them."""
        X = with_holes(np.random.RandomState(0).lognormal(size=(200, 5)), 0.3)
        units = Units(0.0, 1.0, 0.1, 3.0)
        rows = Rows(X, units, CPU, has_missing=True)
        assert rows[:].x.min() >= 0.1
        far = torch.full((5,), -7.0), torch.ones(2, 5), torch.linspace(-9, 30, 400).view(200, 2)
        filled = rows.filled(*far)[:]
        assert filled.x[~filled.observed].min() >= 0.1
        assert filled.x[~filled.observed].max() <= 3.0

    def test_the_decoder_learns_from_what_is_observed(self):
        """A column that is mostly missing is learned from the rows that have it, beyond what is linear in others."""
        rng = np.random.default_rng(0)
        z = rng.normal(size=(2000, 1))
        X = np.hstack([z, z**2, -z, np.sin(2 * z)]) + 0.05 * rng.normal(size=(2000, 4))
        H = X.copy()
        H[200:, 3] = np.nan
        vae = NormalVAETransformer(1, hidden_layer_sizes=32, max_iter=40, random_state=0).fit(H)
        filled = vae.impute(H)
        of_lines = np.corrcoef(X[:, 0], X[:, 3])[0, 1]
        assert np.corrcoef(filled[200:, 3], X[200:, 3])[0, 1] > of_lines + 0.2

    def test_more_rows_recover_more(self):
        rng = np.random.default_rng(0)
        z = rng.normal(size=(2200, 2))
        X = np.tanh(z @ rng.normal(size=(2, 12))) + 0.05 * rng.normal(size=(2200, 12))
        H = with_holes(X, 0.25)
        hidden = np.isnan(H[2000:])
        errors = []
        for n_rows in (40, 300, 2000):
            vae = NormalVAETransformer(2, hidden_layer_sizes=64, max_iter=10, random_state=0).fit(H[:n_rows])
            errors.append(np.sqrt(np.mean((vae.impute(H[2000:]) - X[2000:])[hidden] ** 2)))
        assert errors[0] > errors[1] > errors[2]

    @pytest.mark.parametrize("dtype", [np.float64, np.uint8])
    def test_data_without_missing_entries_get_no_mask(self, digits, dtype, monkeypatch):
        masks = []
        terms = VAE.terms
        monkeypatch.setattr(
            VAE, "terms", lambda vae, batch, noise: masks.append(batch.observed) or terms(vae, batch, noise)
        )
        make(NormalVAETransformer, max_iter=1).fit(digits.astype(dtype))
        assert masks
        assert all(mask is None for mask in masks)

    def test_the_best_validation_score_is_the_score(self, digits, holey):
        settings = {"noise": "shared", "prior": "normal", "early_stopping": True, "n_iter_no_change": 1, "tol": 1e6}
        for X, X_val in ((holey, holey[:40]), (digits, holey[:40]), (holey, digits[:40])):
            vae = make(NormalVAETransformer, **settings).fit(X, X_val=X_val)
            assert vae.score(X_val) == pytest.approx(vae.best_validation_score_, rel=1e-6)
            # Estimates take the encoder's posterior, which is a little behind where entries are missing.
            assert max(vae.validation_scores_) == pytest.approx(vae.best_validation_score_, abs=2)

    def test_a_checkpoint_goes_on_with_the_same_bits(self, holey, tmp_path):
        whole = make(NormalVAETransformer, max_iter=4).fit(holey)
        stopped = make(NormalVAETransformer, max_iter=4, checkpoint=tmp_path / "checkpoint")
        interrupt(stopped, holey, 2)
        again = make(NormalVAETransformer, max_iter=4, checkpoint=tmp_path / "checkpoint").fit(holey)
        assert again.n_iter_ == 4
        assert bits(again, holey) == bits(whole, holey)

    def test_a_pickle_fills_in_the_same(self, fitted, holey, tmp_path):
        joblib.dump(fitted, tmp_path / "model.joblib")
        loaded = joblib.load(tmp_path / "model.joblib")
        np.testing.assert_array_equal(loaded.impute(holey), fitted.impute(holey))
        np.testing.assert_array_equal(loaded.transform(holey), fitted.transform(holey))

    def test_warm_start(self, digits, holey):
        estimator = make(NormalVAETransformer, warm_start=True).fit(digits).fit(holey).fit(digits)
        assert np.isfinite(estimator.impute(holey)).all()

    def test_the_same_rows_in_any_container(self, holey):
        X = holey[:100, :6].copy()
        X[0] = 1.0
        expected = make(NormalVAETransformer).fit(X)
        names = [f"c{i}" for i in range(6)]
        frame = pd.DataFrame(X, columns=names)
        whole = frame.round().astype("Int64")
        for other in (
            frame,
            frame.astype("Float64"),
            whole,
            pl.from_pandas(frame, nan_to_null=True),
            pa.table({name: pa.array(frame[name], from_pandas=True) for name in names}),
            np.asfortranarray(X),
            X.tolist(),
        ):
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="X does not have valid feature names")
                result = make(NormalVAETransformer).fit(other)
                np.testing.assert_allclose(result.transform(other), expected.transform(X), atol=1e-5)
                np.testing.assert_allclose(result.impute(other), expected.impute(X), atol=1e-4)


class TestRows:
    def test_a_row_with_nothing_has_the_prior(self, fitted, holey):
        X = np.vstack([holey[:3], np.full((1, 64), np.nan)])
        mean, std = fitted.posterior(X)
        np.testing.assert_array_equal(mean[3], 0)
        np.testing.assert_allclose(std[3], 1, atol=1e-5)
        for n_importance_samples in (1, 20):
            assert fitted.score_samples(X, n_importance_samples=n_importance_samples)[3] == 0
        assert np.isfinite(fitted.impute(X)).all()

    def test_what_is_observed_makes_the_posterior_narrower(self, fitted, digits):
        less = digits[:50].copy()
        less[:, ::2] = np.nan
        assert (fitted.posterior(less)[1].mean(axis=0) > fitted.posterior(digits[:50])[1].mean(axis=0)).all()

    def test_complete_rows_are_what_they_are_beside_incomplete_ones(self, fitted, digits):
        X = with_holes(digits[:40], 0.3)
        X[::2] = digits[:40:2]
        np.testing.assert_allclose(fitted.transform(X)[::2], fitted.transform(digits[:40:2]), atol=1e-5)
        np.testing.assert_allclose(fitted.score_samples(X)[::2], fitted.score_samples(digits[:40:2]), rtol=1e-5)

    def test_order_and_blocks_do_not_matter(self, fitted, holey):
        X = holey[:30]
        for method in (fitted.transform, fitted.score_samples, fitted.impute):
            np.testing.assert_allclose(method(X[::-1])[::-1], method(X), rtol=1e-4, atol=1e-3)
            np.testing.assert_allclose(method(X[7:8])[0], method(X)[7], rtol=1e-4, atol=1e-3)

    def test_out_of_range(self, holey):
        vae = make(ContinuousBernoulliVAETransformer, data_range=(0, 16)).fit(holey)
        wrong = holey[:5].copy()
        wrong[2, np.isnan(wrong[2]).argmin()] = 17
        with pytest.raises(ValueError, match="X contains 17, outside data_range"):
            vae.transform(wrong)
        learned = make(ContinuousBernoulliVAETransformer).fit(holey)
        scores = learned.score_samples(wrong)
        assert np.isneginf(scores[2])
        assert np.isfinite(np.delete(scores, 2)).all()


class TestImpute:
    @pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
    def test_observed_entries_keep_their_bits(self, fitted, holey, dtype):
        X = (holey[:20] / 3).astype(dtype)
        filled = fitted.impute(X)
        assert filled.dtype == dtype
        assert filled.shape == X.shape
        seen = ~np.isnan(X)
        assert filled[seen].tobytes() == X[seen].tobytes()
        assert np.isfinite(filled).all()

    def test_nothing_to_fill(self, fitted, digits):
        X = digits[:5]
        filled = fitted.impute(X)
        np.testing.assert_array_equal(filled, X)
        filled[0, 0] = -1
        assert X[0, 0] != -1
        whole = fitted.impute(X.astype(int))
        assert whole.dtype == np.float64
        assert fitted.impute(X, n_draws=3).shape == (3, 5, 64)

    def test_draws(self, fitted, holey):
        X = holey[:10]
        draws = fitted.impute(X, n_draws=5, random_state=0)
        assert draws.shape == (5, 10, 64)
        hidden = np.isnan(X)
        np.testing.assert_array_equal(draws[:, ~hidden], np.broadcast_to(X[~hidden], (5, (~hidden).sum())))
        assert (draws[:, hidden].std(axis=0) > 0).all()
        np.testing.assert_array_equal(draws, fitted.impute(X, n_draws=5, random_state=0))
        assert not np.array_equal(draws, fitted.impute(X, n_draws=5, random_state=1))
        assert not np.array_equal(draws, fitted.impute(X, n_draws=5))

    def test_the_mean_of_draws_is_what_is_filled_in(self, fitted, holey):
        X, hidden = holey[:5], np.isnan(holey[:5])
        draws = fitted.impute(X, n_draws=400, random_state=0)[:, hidden]
        error = draws.std(axis=0) / 20
        assert (np.abs(draws.mean(axis=0) - fitted.impute(X)[hidden]) < 5 * error + 0.02).all()

    def test_better_than_the_means_of_columns(self, table):
        X, H = table
        hidden = np.isnan(H)
        vae = NormalVAETransformer(10, max_iter=20, random_state=0).fit(H)
        error = np.mean((vae.impute(H) - X)[hidden] ** 2)
        assert error < 0.4 * np.mean((np.nanmean(H, axis=0) - X)[hidden] ** 2)

    def test_a_model_of_complete_rows_fills_in_others(self, table):
        X, H = table
        vae = NormalVAETransformer(10, max_iter=20, random_state=0).fit(X[:400])
        error = np.mean((vae.impute(H[400:]) - X[400:])[np.isnan(H[400:])] ** 2)
        assert error < 0.4

    def test_intervals_hold_the_truth(self):
        rng = np.random.default_rng(0)
        z = rng.normal(size=(1500, 2))
        X = np.hstack([np.tanh(z @ rng.normal(size=(2, 8))), z @ rng.normal(size=(2, 4))])
        X += np.linspace(0.05, 0.3, 12) * rng.normal(size=X.shape)
        H = with_holes(X, 0.25)
        vae = NormalVAETransformer(4, max_iter=40, random_state=0).fit(H[:1000])
        draws, hidden = vae.impute(H[1000:], n_draws=100, random_state=0), np.isnan(H[1000:])
        low, high = np.quantile(draws[:, hidden], (0.05, 0.95), axis=0)
        assert 0.85 < np.mean((low <= X[1000:][hidden]) & (X[1000:][hidden] <= high)) < 0.95

    def test_draws_come_from_all_modes(self):
        """Two clusters of rows share the entry that is observed."""
        rng = np.random.default_rng(0)
        cluster = rng.integers(0, 3, 500)
        X = np.array([[0, -4, -4], [0, 4, 4], [5, 0, 1]], float)[cluster] + 0.3 * rng.normal(size=(500, 3))
        X[::3, 1:] = np.nan
        vae = NormalVAETransformer(1, noise="shared", prior="normal", max_iter=40, random_state=1).fit(X)
        samples = vae.sample(100_000, random_state=0, observation_noise=True)
        near = samples[np.abs(samples[:, 0]) < 0.1]
        draws = vae.impute([[0.0, np.nan, np.nan]], n_draws=2000, random_state=0)[:, 0]
        assert 0.1 < np.mean(near[:, 1] > 0) < 0.9
        assert np.mean(draws[:, 1] > 0) == pytest.approx(np.mean(near[:, 1] > 0), abs=0.1)

    def test_means_of_bounded_data_stay_in_their_range(self, holey):
        vae = make(ContinuousBernoulliVAETransformer).fit(holey)
        for filled in (vae.impute(holey[:50]), vae.impute(holey[:50], n_draws=3, random_state=0)):
            assert filled.min() >= 0
            assert filled.max() <= 16

    @pytest.mark.parametrize("name", ["n_importance_samples", "n_draws"])
    @pytest.mark.parametrize("value", [0, 2.5, True, "a"])
    def test_bad_numbers(self, fitted, holey, name, value):
        with pytest.raises(ValueError, match=f"{name} must be a positive integer"):
            fitted.impute(holey, **{name: value})


class TestErrors:
    @pytest.mark.parametrize("estimator_class", BOTH)
    def test_a_column_with_nothing(self, estimator_class, holey):
        X = holey.copy()
        X[:, [5, 9]] = np.nan
        for method in ("fit", "partial_fit"):
            with pytest.raises(ValueError, match="Column 5 of X has missing entries .*alone, like 1 other column"):
                getattr(make(estimator_class), method)(X)
        fitted = make(estimator_class).partial_fit(holey)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            fitted.partial_fit(X)
        assert np.isfinite(fitted.impute(X)).all()

    @pytest.mark.parametrize("estimator_class", BOTH)
    def test_a_table_with_nothing(self, estimator_class, holey):
        nothing = np.full((5, 64), np.nan)
        fitted = make(estimator_class).fit(holey)
        before = bits(fitted, holey)
        for method in (fitted.fit, fitted.partial_fit):
            with pytest.raises(ValueError, match="All entries of X are missing"):
                method(nothing)
        assert bits(fitted, holey) == before
        assert (fitted.score_samples(nothing) == 0).all()

    def test_a_column_that_only_rows_set_aside_have(self):
        X = np.random.default_rng(0).normal(size=(60, 5))
        X[1:, 3] = np.nan
        was_aside = 0
        for seed in range(12):
            vae = NormalVAETransformer(
                2, hidden_layer_sizes=8, early_stopping=True, n_iter_no_change=1, tol=1e6, random_state=seed
            )
            was_aside += 0 in split_of(seed, 60)[1]
            assert np.isfinite(vae.fit(X).impute(X)).all()
        assert 0 < was_aside < 12

    def test_rows_set_aside_have_all_entries(self):
        """What is left to train on has none."""
        X = np.full((20, 3), np.nan)
        X[4] = 1.0
        seeds = [seed for seed in range(40) if 4 in split_of(seed, 20)[1]]
        vae = NormalVAETransformer(2, early_stopping=True, random_state=seeds[0])
        with pytest.raises(ValueError, match="rows of X that are not set aside are missing"):
            vae.fit(X)

    def test_nearly_empty_tables(self):
        """No row set aside loses an entry, because none has one to lose."""
        X = np.random.default_rng(0).normal(size=(100, 4))
        X[5:] = np.nan
        vae = NormalVAETransformer(2, hidden_layer_sizes=8, max_iter=2, random_state=0).fit(X)
        assert np.isfinite(vae.impute(X)).all()
        with pytest.raises(ValueError, match="All entries of X_val are missing"):
            vae.fit(X, X_val=np.full((6, 4), np.nan))
        assert np.isfinite(vae.impute(X)).all()


def split_of(seed, n_rows):
    vae = NormalVAETransformer(2, early_stopping=True, random_state=seed)
    return split_rows(vae, n_rows, Seeds.draw(seed).split, calibrates=True)


def test_facts_of_columns_are_those_of_what_is_observed(holey):
    frame = pd.DataFrame(holey)
    facts = Summary(holey).columns
    np.testing.assert_allclose(facts.mean, frame.mean())
    np.testing.assert_allclose(facts.spread, frame.std(ddof=0), atol=1e-12)
    np.testing.assert_array_equal(facts.low, frame.min())
    np.testing.assert_array_equal(facts.high, frame.max())
    np.testing.assert_array_equal(Summary(holey).n_observed, frame.count())
    assert Summary(holey).extent == (frame.min().min(), frame.max().max())


def test_a_broken_entry_is_told_beside_missing_ones():
    rng = np.random.default_rng(0)
    X = with_holes(rng.normal(size=(300, 4)), 0.3)
    X[0, 2] = 1e6
    with pytest.warns(UserWarning, match="An entry of column 2 of X is"):
        vae = NormalVAETransformer(2, hidden_layer_sizes=8, max_iter=2, random_state=0).fit(X)
    assert vae.scale_ < 2


def test_few_entries_of_a_column_are_not_told_to_be_broken():
    X = np.random.default_rng(0).normal(size=(300, 4))
    X[:, 3] = np.nan
    X[:3, 3] = 0, 1, 100
    assert Summary(X).without_broken_entries.high[3] == 100


def test_digits_with_a_missing_quadrant():
    """A model of complete digits fills in what the rest of a digit says."""
    X = load_digits().data
    H = X[1400:].copy().reshape(-1, 8, 8)
    H[:, :4, :4] = np.nan
    H = H.reshape(-1, 64)
    hidden = np.isnan(H)
    vae = NormalVAETransformer(16, max_iter=15, random_state=0).fit(X[:1400])
    error = np.mean((vae.impute(H) - X[1400:])[hidden] ** 2)
    of_means = np.mean((np.broadcast_to(X[:1400].mean(axis=0), H.shape) - X[1400:])[hidden] ** 2)
    assert error < 0.6 * of_means
