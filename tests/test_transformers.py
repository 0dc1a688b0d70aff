"""What the two estimators do: shapes, units, input of every kind, stopping, going on, and failing well."""

import contextlib
import copy
import pickle
import signal
import threading
import tracemalloc
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from torch import nn

from skvae import ContinuousBernoulliVAETransformer, NormalVAETransformer
from skvae._data.rows import Batch, Rows, Summary, Units, blocks
from skvae.distributions import ContinuousBernoulli

from conftest import Identity, bits, make, make_plain, memory_map


def test_shapes_and_dtypes(fitted, digits):
    mean, std = fitted.posterior(digits)
    assert mean.shape == std.shape == (300, 3)
    assert (std > 0).all()
    assert fitted.transform(digits).tobytes() == mean.tobytes()
    assert fitted.inverse_transform(mean).shape == digits.shape
    assert fitted.sample().shape == (1, 64)
    assert fitted.score_samples(digits).shape == (300,)
    outputs = (mean, std, fitted.inverse_transform(mean), fitted.sample(2), fitted.score_samples(digits))
    assert {output.dtype for output in outputs} == {np.dtype("float32")}
    score = fitted.score(digits)
    assert type(score) is float
    assert score == pytest.approx(fitted.score_samples(digits).mean())


def test_fitted_attributes(fitted):
    assert fitted.n_iter_ == len(fitted.loss_curve_) == 4
    assert set(fitted.history_) == {"elbo", "log_likelihood", "kl"}
    for elbo, log_likelihood, kl, loss in zip(
        *(fitted.history_[name] for name in ("elbo", "log_likelihood", "kl")), fitted.loss_curve_, strict=True
    ):
        assert elbo == pytest.approx(log_likelihood - kl)
        assert loss == pytest.approx(-elbo)
    assert fitted.loss_curve_[-1] < fitted.loss_curve_[0]
    assert fitted.n_features_in_ == 64
    assert fitted.validation_scores_ is fitted.best_validation_score_ is None


def test_batching_and_order_do_not_matter(fitted, digits):
    order = np.random.RandomState(0).permutation(len(digits))
    for method in (fitted.transform, fitted.score_samples):
        whole = method(digits)
        np.testing.assert_allclose(method(digits[order]), whole[order], rtol=1e-5, atol=1e-5)
        rows = np.concatenate([method(digits[i : i + 1]) for i in range(20)])
        np.testing.assert_allclose(rows, whole[:20], rtol=1e-5, atol=1e-5)


LAYOUTS = {
    "lists": lambda X, folder: X.tolist(),
    "fortran": lambda X, folder: np.asfortranarray(X),
    "reversed twice": lambda X, folder: np.ascontiguousarray(X[::-1])[::-1],
    "strided": lambda X, folder: np.repeat(X, 2, axis=1)[:, ::2],
    "big-endian": lambda X, folder: X.astype(">f8"),
    "longdouble": lambda X, folder: X.astype(np.longdouble),
    "object": lambda X, folder: X.astype(object),
    "int64": lambda X, folder: X.astype(np.int64),
    "DataFrame": lambda X, folder: pd.DataFrame(X),
    "memmap": lambda X, folder: memory_map(X, folder / "X.dat"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_bits(estimator_class, digits, layout, tmp_path):
    X = LAYOUTS[layout](digits, tmp_path)
    fitted = make(estimator_class, max_iter=2).fit(X)
    assert fitted.transform(X).tobytes() == make(estimator_class, max_iter=2).fit(digits).transform(digits).tobytes()


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "uint32", "float16", "float32"])
def test_every_dtype_gives_the_same_latents(estimator_class, digits, dtype):
    X = digits.astype(dtype)
    before = X.copy()
    from_floats = make(estimator_class, max_iter=2).fit(digits).transform(digits)
    np.testing.assert_allclose(make(estimator_class, max_iter=2).fit(X).transform(X), from_floats, atol=1e-4)
    np.testing.assert_array_equal(X, before)


def test_boolean_data(estimator_class, digits):
    assert make(estimator_class).fit(digits > 8).transform(digits > 8).shape == (300, 3)


def test_integers_are_converted_a_minibatch_at_a_time(estimator_class):
    X = np.random.RandomState(0).randint(0, 255, size=(16000, 1024), dtype=np.uint8)
    estimator = make(estimator_class, encoder="dense", max_iter=1)
    tracemalloc.start()
    estimator.fit(X).transform(X)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # NumPy's allocations; a copy in float32 would be four times the data.
    assert peak < X.nbytes / 3


def test_data_are_read_no_more_often_than_is_needed(digits, monkeypatch):
    """Passes over the training data, or over the rows of `transform` and `score_samples`, to learn what is in them."""
    passes, columns = [], []
    without_broken = Summary._without_broken

    def counted(X, index=None):
        passes.append(1 if index is None else len(index) / len(X))
        return blocks(X, index)

    def counted_column(summary, column, most):
        columns.append(column)
        return without_broken(summary, column, most)

    monkeypatch.setattr("skvae._data.rows.blocks", counted)
    monkeypatch.setattr(Summary, "_without_broken", counted_column)

    def n_passes(call, *args, **kwargs):
        passes.clear()
        call(*args, **kwargs)
        return pytest.approx(sum(passes))

    for dtype, n_to_check in ((np.uint8, 0), (np.float32, 1), (float, 1)):
        X = digits.astype(dtype)
        normal, bounded = make(NormalVAETransformer), make(ContinuousBernoulliVAETransformer)
        # The means, and the spread around them; of the tenth that is set aside, the ends.
        assert n_passes(normal.fit, X) == 1.9 + n_to_check
        assert n_passes(normal.fit, X, X_val=X[:50]) == 2 + 2 * n_to_check
        assert n_passes(normal.partial_fit, X) == 2 + n_to_check
        assert n_passes(bounded.fit, X) == 2 + n_to_check
        assert n_passes(make(ContinuousBernoulliVAETransformer, data_range=(0, 16)).fit, X) == 1
        for fitted in (normal, bounded):
            assert n_passes(fitted.transform, X) == n_to_check
        assert n_passes(normal.score_samples, X) == n_to_check
        assert n_passes(bounded.score_samples, X) == 1 + n_to_check
    # Of columns that may have broken entries, those that do are read, and one more.
    for n_broken in (0, 3):
        X = np.random.default_rng(0).lognormal(sigma=2, size=(300, 20))
        X[7, :n_broken] = 1e12
        columns.clear()
        with pytest.warns(UserWarning, match="An entry") if n_broken else contextlib.nullcontext():
            make(NormalVAETransformer).fit(X)
        assert len(columns) == n_broken + 1


@pytest.mark.parametrize("layout", ["fortran", "columns"])
def test_a_minibatch_does_not_copy_the_rest(layout):
    X = np.zeros((20000, 100), np.uint8)
    X = np.asfortranarray(X) if layout == "fortran" else X[:, :50]
    rows = Rows(X, Units(0.0, 255.0), torch.device("cpu"))
    placed = rows.place(torch.arange(0, 20000, 100))
    tracemalloc.start()
    try:
        rows.take(placed)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < X.nbytes / 10


def test_single_rows_and_columns_of_any_strides(fitted, digits):
    expected = fitted.transform(digits[:1])
    assert fitted.transform(digits[:1][::-1]).tobytes() == expected.tobytes()
    records = np.zeros(3, [("x", "f4", (64,)), ("y", "u1")])["x"]
    records[:] = digits[:3]
    np.testing.assert_allclose(fitted.transform(records[:1]), expected, rtol=1e-4, atol=1e-5)
    column = digits[:, 20:21]
    one = make(NormalVAETransformer, n_components=1).fit(column)
    assert one.transform(column[:, ::-1]).tobytes() == one.transform(column).tobytes()


def test_autocast_does_not_reach_into_training(estimator_class, digits):
    plain = make(estimator_class, max_iter=2).fit(digits)
    with torch.autocast("cpu", torch.bfloat16):
        inside = make(estimator_class, max_iter=2).fit(digits)
    assert inside.loss_curve_ == plain.loss_curve_


def test_units_of_the_data(digits):
    """A density in the data's own units: rescaling by c changes log p by exactly n_features * log(c)."""
    raw = digits * (255 / 16)
    for estimator_class in (NormalVAETransformer, ContinuousBernoulliVAETransformer):
        of_raw, of_unit = (make(estimator_class, max_iter=10).fit(X) for X in (raw, raw / 255))
        difference = of_unit.score_samples(raw / 255).astype(float) - of_raw.score_samples(raw)
        np.testing.assert_allclose(difference, 64 * np.log(255), rtol=1e-5)
        np.testing.assert_allclose(of_raw.transform(raw), of_unit.transform(raw / 255), atol=1e-4)
        Z = of_raw.transform(raw)
        np.testing.assert_allclose(
            of_raw.inverse_transform(Z) / 255, of_unit.inverse_transform(Z), rtol=1e-4, atol=1e-5
        )
        assert of_raw.history_["elbo"][-1] + 64 * np.log(255) == pytest.approx(of_unit.history_["elbo"][-1], rel=1e-5)


def test_ranges_that_float32_cannot_span(digits):
    X = digits * 2e37
    for estimator in (
        make(NormalVAETransformer),
        make(ContinuousBernoulliVAETransformer, data_range=(-3.3e38, 3.3e38)),
    ):
        wide, narrow = clone(estimator).fit(X).transform(X), estimator.fit(X.astype(np.float32)).transform(X)
        np.testing.assert_allclose(narrow, wide, atol=1e-3)
        assert np.ptp(narrow) > 0.1


@pytest.mark.parametrize("scale", [1e-30, 1e-10, 1e10, 1e30])
def test_extreme_scales(digits, scale):
    reference = make(NormalVAETransformer).fit(digits).transform(digits)
    np.testing.assert_allclose(
        make(NormalVAETransformer).fit(digits * scale).transform(digits * scale), reference, atol=1e-3
    )


def test_a_large_offset_keeps_the_digits(digits):
    reference = make(NormalVAETransformer).fit(digits).transform(digits)
    shifted = digits + 1e9
    np.testing.assert_allclose(make(NormalVAETransformer).fit(shifted).transform(shifted), reference, atol=1e-3)


@pytest.mark.filterwarnings("ignore:. of . components are active")
@pytest.mark.parametrize(("offset", "spread"), [(1e4, 1), (1e6, 3), (1e7, 3), (-3e7, 40)])
def test_float32_data_with_an_offset_are_those_of_float64(estimator_class, offset, spread):
    X = np.random.RandomState(0).normal(offset + 0.3, spread, (400, 4)).astype(np.float32)
    narrow, wide = (make(estimator_class, max_iter=30).fit(data) for data in (X, X.astype(np.float64)))
    np.testing.assert_allclose(narrow.transform(X), wide.transform(X.astype(np.float64)), atol=1e-5)
    np.testing.assert_allclose(narrow.transform(X), narrow.transform(X.astype(np.float64)), atol=1e-5)
    assert narrow.score(X) == pytest.approx(narrow.score(X.astype(np.float64)), rel=1e-6)
    assert len(np.unique(narrow.transform(X)[:, 0])) > 100


@pytest.mark.filterwarnings("ignore:. of . components are active")
@pytest.mark.parametrize("offset", [1e5, 1e9, -1e12])
def test_output_that_float32_could_not_hold(estimator_class, offset):
    X = np.random.RandomState(0).normal(offset, 1, (400, 3))
    fitted = make(estimator_class, max_iter=60, batch_size=100).fit(X)
    noisy = fitted.sample(5000, random_state=0, observation_noise=True)
    assert noisy.dtype == fitted.inverse_transform(fitted.transform(X)).dtype == np.float64
    assert 0.5 < noisy.std(dtype=float) < 2
    near = make(estimator_class, max_iter=60, batch_size=100).fit(X - offset)
    assert near.sample(3, random_state=0).dtype == np.float32
    np.testing.assert_allclose(fitted.sample(3, random_state=0) - offset, near.sample(3, random_state=0), atol=1e-2)


@pytest.mark.filterwarnings("ignore:. of . components are active")
@pytest.mark.parametrize("value", [0.0, 7.0, -0.1, 1e20, 255])
def test_constant_data(estimator_class, value):
    X = np.full((20, 5), value)
    fitted = make(estimator_class, max_iter=50).fit(X)
    assert np.isfinite(fitted.score_samples(X)).all()
    assert fitted.scale_ == 1
    assert np.isfinite(fitted.sample(3)).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (7, 1), (129, 3)])
def test_small_shapes(estimator_class, shape):
    X = np.random.RandomState(0).rand(*shape)
    fitted = make(estimator_class).fit(X)
    assert fitted.transform(X).shape == (shape[0], 3)
    assert np.isfinite(fitted.score(X))


@pytest.mark.filterwarnings("ignore:0 of 3 components are active")
def test_no_row_is_dropped(estimator_class, digits):
    """Training sees every row once an epoch, also when the last batch has a single row."""
    seen = []

    class Recorder(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.utils.skip_init(nn.Linear, 64, 6)
            nn.init.zeros_(self.linear.weight)
            nn.init.zeros_(self.linear.bias)

        def forward(self, x):
            if self.training:
                seen.append(x.detach().clone())
            return self.linear(x)

    make_plain(estimator_class, encoder=Recorder(), batch_size=23, max_iter=1).fit(digits)
    assert [len(batch) for batch in seen] == [23] * 13 + [1]
    rows = torch.cat(seen).double().numpy()
    units = make_plain(estimator_class, max_iter=1).fit(digits)
    expected = (digits - units.shift_) / units.scale_
    np.testing.assert_allclose(rows[np.lexsort(rows.T)], expected[np.lexsort(expected.T)], atol=1e-6)


class TestContinuousBernoulliRange:
    def test_learned_range_clips_later_values(self, digits):
        fitted = make(ContinuousBernoulliVAETransformer).fit(digits)
        assert (fitted.shift_, fitted.scale_) == (0, 16)
        beyond = digits.copy()
        beyond[beyond == 16] = 20
        np.testing.assert_array_equal(fitted.transform(beyond), fitted.transform(digits))

    def test_a_row_outside_a_learned_range_has_the_density_zero(self, digits):
        fitted = make(ContinuousBernoulliVAETransformer).fit(digits)
        rows = np.vstack([digits[:4], digits[:2] - 0.1, digits[:2] + 2, np.full((1, 64), 1e6)])
        for n in (1, 16):
            scores = fitted.score_samples(rows, n_importance_samples=n)
            assert np.isfinite(scores[:4]).all()
            assert np.isneginf(scores[4:]).all()
        assert np.isfinite(fitted.transform(rows)).all()
        assert fitted.score(rows) == -np.inf

    def test_validation_rows_outside_a_learned_range_are_clipped_with_a_warning(self, digits):
        X_val = np.vstack([digits[:50], digits[:5] + 5])
        estimator = make_plain(ContinuousBernoulliVAETransformer, early_stopping=True, n_iter_no_change=1, tol=1e9)
        with pytest.warns(UserWarning, match="5 of 55 rows of X_val have values outside .* Give data_range") as caught:
            estimator.fit(digits, X_val=X_val)
        assert caught[0].filename == __file__
        assert np.isfinite(estimator.validation_scores_).all()
        clipped = X_val.clip(estimator.shift_, estimator.shift_ + estimator.scale_)
        assert estimator.score(clipped) == pytest.approx(estimator.best_validation_score_, rel=1e-6)

    def test_given_range_is_used_and_enforced(self, digits):
        fitted = make(ContinuousBernoulliVAETransformer, data_range=(-1, 31)).fit(digits)
        assert (fitted.shift_, fitted.scale_) == (-1, 32)
        with pytest.raises(ValueError, match=r"X contains 40, outside data_range=\(-1, 31\)"):
            fitted.transform(np.full((1, 64), 40))

    def test_given_range_forgives_rounding(self, digits):
        X = np.clip(digits / 16, None, 1 + 1e-7)
        X[0, 0], X[0, 1] = 1 + 1e-7, -1e-9
        make(ContinuousBernoulliVAETransformer, data_range=(0, 1)).fit(X)

    def test_decoded_values_stay_in_the_range(self, digits):
        fitted = make(ContinuousBernoulliVAETransformer).fit(digits)
        for X in (
            fitted.inverse_transform(100 * np.eye(3)),
            fitted.sample(50, random_state=0, observation_noise=True),
        ):
            assert X.min() >= 0
            assert X.max() <= 16

    def test_inverse_transform_is_the_mean_and_not_lambda(self, digits):
        fitted = make(ContinuousBernoulliVAETransformer, data_range=(0, 16)).fit(digits)
        Z = fitted.transform(digits[:5])
        with torch.no_grad():
            logits = 64 * np.tanh(12 * fitted.module_.decoder(torch.tensor(Z)).double().numpy() / 64)
        mean = 1 / (1 - np.exp(-logits)) - 1 / logits
        np.testing.assert_allclose(fitted.inverse_transform(Z), 16 * mean, atol=1e-3)

    @pytest.mark.parametrize("min_scale", [1 / 64, 0.1])
    def test_the_smallest_scale_bounds_the_logits(self, digits, min_scale):
        """There the standard deviation is about that share of the range, and the mean is as far from its ends."""
        fitted = make(ContinuousBernoulliVAETransformer, data_range=(0, 16), min_scale=min_scale).fit(digits)
        Z = 1e4 * np.eye(3)
        far = fitted.inverse_transform(Z)
        assert far.min() == pytest.approx(16 * min_scale, rel=1e-3)
        assert far.max() == pytest.approx(16 - 16 * min_scale, rel=1e-3)
        distribution = ContinuousBernoulli(logits=torch.tensor(1 / min_scale))
        assert float(distribution.stddev) == pytest.approx(min_scale, rel=0.02)

    @pytest.mark.parametrize("method", ["partial_fit", "fit"])
    def test_training_on_never_loses_data(self, digits, method):
        fitted = make(ContinuousBernoulliVAETransformer, warm_start=True).fit(digits)
        before = bits(fitted, digits)
        with pytest.raises(ValueError, match=r"X contains 32, outside the range \[0, 16\].*Give data_range"):
            getattr(fitted, method)(2 * digits)
        assert bits(fitted, digits) == before


class TestSampling:
    def test_seed(self, fitted):
        first, second = fitted.sample(5, random_state=3), fitted.sample(5, random_state=3)
        assert first.tobytes() == second.tobytes() != fitted.sample(5, random_state=4).tobytes()

    def test_observation_noise_has_the_likelihoods_spread(self, fitted):
        mean = fitted.sample(4000, random_state=0)
        noisy = fitted.sample(4000, random_state=0, observation_noise=True)
        noise = (noisy - mean).astype(float)
        assert noise.std() > 0.1
        # Same latents: the noise is centered on the mean.
        assert np.abs(noise.mean(axis=0)).max() < 6 * noise.std() / np.sqrt(4000)

    def test_latents_are_standard_normal(self, digits):
        X = digits[:, 20:23]
        fitted = make(NormalVAETransformer, decoder=Identity(), prior="normal", max_iter=1).fit(X)
        Z = (fitted.sample(20000, random_state=0) - fitted.shift_) / fitted.scale_
        np.testing.assert_allclose(Z.mean(axis=0), 0, atol=0.03)
        np.testing.assert_allclose(np.cov(Z.T), np.eye(3), atol=0.05)


class TestStopping:
    def test_best_weights_are_kept(self, estimator_class, digits):
        estimator = make_plain(
            estimator_class, early_stopping=True, max_iter=300, n_iter_no_change=3, learning_rate_init=0.02
        )
        estimator.fit(digits[:200], X_val=digits[200:])
        assert estimator.n_iter_ < 300
        assert estimator.validation_scores_ == estimator.history_["validation_elbo"]
        # Estimates have an error, most of which epochs share.
        assert estimator.best_validation_score_ == pytest.approx(max(estimator.validation_scores_), abs=0.5)
        assert max(estimator.validation_scores_) > estimator.validation_scores_[-1]
        assert estimator.score(digits[200:]) == pytest.approx(estimator.best_validation_score_, rel=1e-6)

    def test_stops_after_n_iter_no_change(self, estimator_class, digits):
        estimator = make(estimator_class, early_stopping=True, max_iter=50, n_iter_no_change=4, tol=1e9).fit(digits)
        assert estimator.n_iter_ == 5

    def test_warns_when_max_iter_comes_first(self, estimator_class, digits):
        with pytest.warns(ConvergenceWarning, match="max_iter=2") as caught:
            make(estimator_class, early_stopping=True, max_iter=2).fit(digits)
        assert caught[0].filename == __file__  # it points at the caller

    @pytest.mark.parametrize("wrap", [lambda vae: vae, make_pipeline, lambda vae: make_pipeline(make_pipeline(vae))])
    def test_the_warning_points_at_the_caller_of_whatever_fits(self, estimator_class, wrap, digits):
        estimator = wrap(make(estimator_class, early_stopping=True, max_iter=2))
        with pytest.warns(ConvergenceWarning, match="max_iter=2") as caught:
            estimator.fit_transform(digits)
        assert {warning.filename for warning in caught} == {__file__}

    def test_no_warning_without_early_stopping(self, estimator_class, digits):
        with warnings.catch_warnings():
            warnings.simplefilter("error", ConvergenceWarning)
            make(estimator_class, max_iter=2).fit(digits, X_val=digits[:10])

    def test_validation_data_alone_only_records(self, estimator_class, digits):
        with_val = make_plain(estimator_class).fit(digits, X_val=digits[:50])
        assert len(with_val.history_["validation_elbo"]) == with_val.n_iter_ == 4
        assert with_val.history_["validation_elbo"][-1] == pytest.approx(with_val.score(digits[:50]), abs=0.5)
        assert with_val.validation_scores_ is None
        assert bits(with_val, digits) == bits(make_plain(estimator_class).fit(digits), digits)

    def test_split_leaves_validation_rows_out(self, digits):
        """A row that is set aside must not shape the units."""
        X = digits[:20].copy()
        estimators = []
        for factor in (1, 2):
            for row in range(20):
                changed = X.copy()
                changed[row] *= factor
                estimator = make(
                    NormalVAETransformer, early_stopping=True, validation_fraction=0.5, n_iter_no_change=1, tol=1e9
                )
                estimators.append(estimator.fit(changed))
        base = estimators[0].scale_
        assert sum(estimator.scale_ == base for estimator in estimators[20:]) == 10


class TestGoingOn:
    def test_warm_start_goes_on(self, estimator_class, digits):
        estimator = make(estimator_class, warm_start=True, max_iter=3).fit(digits)
        first, score = bits(estimator, digits), estimator.score(digits)
        estimator.set_params(max_iter=30).fit(digits)
        assert estimator.n_iter_ == 33 == len(estimator.loss_curve_) == len(estimator.history_["kl"])
        assert estimator.score(digits) > score
        assert bits(estimator, digits) != first

    def test_fit_starts_anew_without_warm_start(self, estimator_class, digits):
        estimator = make(estimator_class).fit(digits)
        first = bits(estimator, digits)
        assert bits(estimator.fit(digits), digits) == first
        assert bits(estimator.fit(digits[:, :10]), digits[:, :10]) != first
        assert estimator.n_features_in_ == 10

    def test_partial_fit_trains_for_one_epoch(self, estimator_class, digits):
        estimator = make_plain(estimator_class, max_iter=1, warm_start=True)
        assert bits(estimator.partial_fit(digits), digits) == bits(
            make_plain(estimator_class, max_iter=1).fit(digits), digits
        )
        for n_iter in range(2, 12):
            estimator.partial_fit(digits)
            assert estimator.n_iter_ == n_iter == len(estimator.loss_curve_)
        assert estimator.loss_curve_[-1] < estimator.loss_curve_[0]

    def test_partial_fit_in_a_row_is_fit(self, estimator_class, digits):
        """The optimizer and the generators go on from call to call."""
        stream = make_plain(estimator_class)
        for _ in range(4):
            stream.partial_fit(digits)
        assert bits(stream, digits) == bits(make_plain(estimator_class, max_iter=4).fit(digits), digits)

    def test_partial_fit_survives_a_pickle(self, estimator_class, digits):
        stream = make(estimator_class).partial_fit(digits)
        copied = pickle.loads(pickle.dumps(stream))
        assert bits(copied.partial_fit(digits), digits) == bits(stream.partial_fit(digits), digits)

    def test_fit_forgets_the_optimizer(self, estimator_class, digits):
        estimator = make(estimator_class).partial_fit(digits)
        size = len(pickle.dumps(estimator))
        assert len(pickle.dumps(estimator.fit(digits))) < size / 2

    def test_history_stays_aligned(self, estimator_class, digits):
        estimator = make(estimator_class, max_iter=2, warm_start=True).fit(digits)
        estimator.fit(digits, X_val=digits[:9]).partial_fit(digits)
        assert {len(values) for values in estimator.history_.values()} == {5}
        assert np.isfinite(estimator.history_["validation_elbo"]).tolist() == [False, False, True, True, False]

    def test_a_changed_architecture_is_an_error(self, estimator_class, digits):
        estimator = make(estimator_class).fit(digits)
        before = bits(estimator, digits)
        with pytest.raises(ValueError, match="a parameter that shapes the networks has changed"):
            estimator.set_params(n_components=5).partial_fit(digits)
        assert bits(estimator, digits) == before


def repeat(method, X):
    for _ in range(5000):
        method(X)


class TestFailingWell:
    def test_divergence_names_the_epoch_and_the_remedy(self, estimator_class, digits):
        estimator = make(estimator_class, learning_rate_init=1e30, batch_size=50, max_iter=20)
        with pytest.raises(ValueError, match=r"diverged in epoch \d+.*smaller learning_rate_init"):
            estimator.fit(digits)
        assert not hasattr(estimator, "module_")
        assert not hasattr(estimator, "n_features_in_")

    def test_divergence_leaves_a_fitted_model_alone(self, estimator_class, digits):
        estimator = make(estimator_class).fit(digits)
        before = bits(estimator, digits)
        with pytest.raises(ValueError, match="diverged"):
            estimator.set_params(learning_rate_init=1e30, batch_size=50, max_iter=20).fit(digits[:, :30])
        assert bits(estimator, digits) == before
        for _ in range(20):
            try:
                estimator.partial_fit(digits)
            except ValueError:
                break
        assert all(bool(value.isfinite().all()) for value in estimator.module_.state_dict().values())

    def test_a_module_that_returns_nan(self, digits):
        class Broken(nn.Module):
            def __init__(self):
                super().__init__()
                self.linear = nn.utils.skip_init(nn.Linear, 64, 6)

            def forward(self, x):
                return self.linear(x) * float("nan")

        with pytest.raises(ValueError, match="module of your own"):
            make(NormalVAETransformer, encoder=Broken()).fit(digits)

    @pytest.mark.parametrize("method", ["fit", "partial_fit"])
    def test_ctrl_c_leaves_the_estimator_as_it_was(self, estimator_class, digits, method):
        estimator = make(estimator_class).fit(digits)
        before, state = bits(estimator, digits), copy.copy(vars(estimator))

        # A process in the background may have been started with Ctrl-C ignored.
        handler = signal.signal(signal.SIGINT, signal.default_int_handler)
        timer = threading.Timer(0.5, lambda: signal.raise_signal(signal.SIGINT))
        timer.start()
        try:
            with pytest.raises(KeyboardInterrupt):
                repeat(getattr(estimator.set_params(max_iter=5000), method), digits)
        finally:
            timer.join()
            signal.signal(signal.SIGINT, handler)
        estimator.set_params(max_iter=4)
        if method == "fit":
            assert bits(estimator, digits) == before
            assert vars(estimator).keys() == state.keys()
        assert np.isfinite(estimator.score(digits))

    def test_extreme_values_at_prediction(self, estimator_class, digits):
        fitted = make(estimator_class).fit(digits)
        with pytest.raises(ValueError, match="too large for dtype"):
            fitted.transform(np.full((1, 64), 1e200))
        rows = np.vstack([digits[:3], np.full((1, 64), 1e38), np.full((1, 64), -3e5)])
        scores = fitted.score_samples(rows)
        np.testing.assert_array_equal(scores[:3], fitted.score_samples(digits[:5])[:3])
        assert (scores[3:] < scores[:3].min()).all()
        assert np.isfinite(scores[3:]).all() == (estimator_class is NormalVAETransformer)
        for output in (fitted.transform(rows), *fitted.posterior(rows)):
            assert np.isfinite(output).all()


class TestModules:
    @pytest.mark.draws_globally
    def test_a_users_module_is_never_changed(self, estimator_class, digits):
        encoder, decoder = nn.Linear(64, 6), nn.Linear(3, 64)
        weights = [p.detach().clone() for module in (encoder, decoder) for p in module.parameters()]
        fitted = make(estimator_class, encoder=encoder, decoder=decoder).fit(digits)
        now = [p for module in (encoder, decoder) for p in module.parameters()]
        assert all(torch.equal(a, b) for a, b in zip(weights, now, strict=True))
        assert all(p.grad is None for p in now)
        assert not torch.equal(fitted.module_.encoder.module.weight, encoder.weight)

    @pytest.mark.draws_globally
    def test_double_precision_and_dropout_modules(self, estimator_class, digits):
        encoder = nn.Sequential(nn.Linear(64, 8), nn.ReLU(), nn.Dropout(0.5), nn.BatchNorm1d(8), nn.Linear(8, 6))
        fitted = make(estimator_class, encoder=encoder.double()).fit(digits)
        assert bits(pickle.loads(pickle.dumps(fitted)), digits) == bits(fitted, digits)

    @pytest.mark.filterwarnings("ignore:. of . components are active")
    @pytest.mark.draws_globally
    @pytest.mark.parametrize("batch_size", [23, 299])
    def test_batch_normalization_and_a_last_minibatch_of_one_row(self, estimator_class, digits, batch_size):
        encoder = nn.Sequential(nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Linear(8, 6))
        fitted = make_plain(estimator_class, encoder=encoder, batch_size=batch_size, max_iter=2).fit(digits)
        n_minibatches = int(fitted.module_.encoder.module[1].num_batches_tracked)
        assert n_minibatches == 2 * (300 // batch_size)
        assert np.isfinite(fitted.score(digits))

    def test_pickle_and_deepcopy(self, fitted, digits):
        for copied in (pickle.loads(pickle.dumps(fitted)), copy.deepcopy(fitted)):
            assert bits(copied, digits) == bits(fitted, digits)

    def test_pickle_holds_weights_and_little_else(self, fitted):
        weights = sum(value.numel() * 4 for value in fitted.module_.state_dict().values())
        assert len(pickle.dumps(fitted)) < 1.1 * weights + 50_000

    @pytest.mark.parametrize("encoder", ["dense", "conv", "auto"])
    @pytest.mark.parametrize("image_shape", [None, (8, 8), (4, 16), (4, 4, 4), (2, 16, 2)])
    def test_every_architecture_under_every_likelihood(self, estimator_class, digits, encoder, image_shape):
        fitted = make(estimator_class, encoder=encoder, image_shape=image_shape, max_iter=1, dropout=0.1).fit(digits)
        assert fitted.transform(digits).shape == (300, 3)
        is_conv = hasattr(fitted.module_.encoder, "convolution")
        assert is_conv == (encoder != "dense")


class Spare(nn.Module):
    """Has a parameter that its output does not depend on, ahead of those that it does."""

    def __init__(self):
        super().__init__()
        self.spare = nn.utils.skip_init(nn.Linear, 2, 2)
        self.linear = nn.utils.skip_init(nn.Linear, 64, 6)
        self.register_buffer("mask", torch.tensor([0.0, -torch.inf]))
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x):
        return self.linear(x)


class TestOddModules:
    def test_a_parameter_without_a_gradient(self, digits):
        stream = make_plain(NormalVAETransformer, encoder=Spare())
        for _ in range(3):
            stream.partial_fit(digits)
        fitted = make_plain(NormalVAETransformer, encoder=Spare(), max_iter=3).fit(digits)
        assert bits(stream, digits) == bits(fitted, digits)

    def test_freezing_between_calls(self, estimator_class, digits):
        module = Spare()
        stream = make(estimator_class, encoder=module).partial_fit(digits)
        stream.set_params(encoder=Spare().requires_grad_(False)).partial_fit(digits)
        frozen = stream.module_.encoder.module.linear.weight.clone()
        stream.partial_fit(digits)
        assert torch.equal(frozen, stream.module_.encoder.module.linear.weight)
        stream.set_params(encoder=module).partial_fit(digits)
        assert not torch.equal(frozen, stream.module_.encoder.module.linear.weight)

    def test_nothing_to_train(self, digits):
        decoder = nn.utils.skip_init(nn.Linear, 3, 128).requires_grad_(False)
        nn.init.zeros_(decoder.weight)
        with pytest.raises(ValueError, match="There is nothing to train"):
            make(NormalVAETransformer, encoder=Spare().requires_grad_(False), decoder=decoder, noise="network").fit(
                digits
            )

    def test_lazy_layers_are_drawn_from_random_state(self, digits):
        weights = []
        for seed in (0, 0, 1):
            lazy = nn.Sequential(nn.LazyLinear(6))
            fitted = make(NormalVAETransformer, encoder=lazy, random_state=seed, learning_rate_init=1e-12).fit(digits)
            weights.append(fitted.module_.encoder.module[0].weight)
        assert torch.equal(weights[0], weights[1])
        assert not torch.allclose(weights[0], weights[2])


@pytest.mark.parametrize("batch_size", [np.int64(50), 2**70])
def test_batch_sizes(estimator_class, digits, batch_size):
    expected = make_plain(estimator_class, batch_size=min(int(batch_size), 300)).fit(digits)
    assert bits(make_plain(estimator_class, batch_size=batch_size).fit(digits), digits) == bits(expected, digits)


def test_numpy_parameters(estimator_class, digits):
    fitted = make(
        estimator_class, n_components=np.int64(3), hidden_layer_sizes=np.array([16]), image_shape=np.array([8, 8])
    ).fit(digits)
    assert bits(fitted, digits) == bits(make(estimator_class).fit(digits), digits)


def test_a_range_that_does_not_survive_rounding(digits):
    """low + (high - low) need not be high."""
    assert -0.8 + (1.5 - -0.8) != 1.5
    stream = make(ContinuousBernoulliVAETransformer, data_range=(-0.8, 1.5))
    stream.partial_fit(digits / 16).partial_fit(digits / 16)
    assert stream.n_iter_ == 2


def test_learned_range_covers_the_rows_that_are_set_aside(digits):
    X = digits.copy()
    X[7, 7] = 30
    for seed in range(4):
        fitted = make(
            ContinuousBernoulliVAETransformer, early_stopping=True, n_iter_no_change=1, tol=1e9, random_state=seed
        ).fit(X)
        assert fitted.scale_ == 30
        fitted.partial_fit(X)


def test_scores_of_a_warm_start_are_those_of_the_last_fit(estimator_class, digits):
    estimator = make(estimator_class, early_stopping=True, n_iter_no_change=2, tol=1e9, warm_start=True)
    estimator.fit(digits).fit(digits)
    assert len(estimator.validation_scores_) == 3
    assert len(estimator.history_["validation_elbo"]) == 6
    assert estimator.best_validation_score_ == pytest.approx(max(estimator.validation_scores_), abs=0.5)


def test_optimizer_state_from_another_kind_of_device(estimator_class, digits):
    stream = make(estimator_class).partial_fit(digits)
    stream._continuation["noise"] = {"generator": np.zeros(16, np.uint8), "device": "cuda"}
    assert stream.partial_fit(digits).n_iter_ == 2


def test_verbose_prints_a_line_an_epoch(estimator_class, digits, capsys):
    make(estimator_class, verbose=1, max_iter=3).fit(digits, X_val=digits[:5])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    for epoch, line in enumerate(lines, 1):
        assert line.startswith(f"epoch {epoch}/3  ELBO ")
        for part in ("log likelihood", "KL", "validation ELBO", " s left"):
            assert part in line


@pytest.mark.filterwarnings("ignore:. of . components are active")
def test_beta_zero_ignores_the_prior(estimator_class, digits):
    free, tied = (make(estimator_class, beta=beta, max_iter=60, batch_size=100).fit(digits) for beta in (0.0, 20.0))
    assert free.history_["kl"][-1] > 2 * tied.history_["kl"][-1]
    assert tied.loss_curve_[-1] == pytest.approx(
        20 * tied.history_["kl"][-1] - tied.history_["log_likelihood"][-1], rel=1e-6
    )


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu"), torch.device("cpu", 0)])
def test_devices_by_name_and_as_they_are(estimator_class, device, digits):
    fitted = make(estimator_class, device=device).fit(digits)
    assert bits(fitted, digits) == bits(make(estimator_class).fit(digits), digits)
    assert fitted.module_.device.type == "cpu"


def test_a_device_by_number(estimator_class, digits):
    """It is an accelerator's, which is an error where there is none."""
    if torch.accelerator.is_available():
        assert make(estimator_class, device=0).fit(digits).module_.device.index == 0
    else:
        with pytest.raises(ValueError, match="device=0 cannot be used"):
            make(estimator_class, device=0).fit(digits)


def test_scores_with_many_components(estimator_class, digits):
    """With more components than points whiten, the ELBO is still near that of many independent draws."""
    fitted = make(estimator_class, n_components=100, max_iter=30).fit(digits)
    vae = fitted.module_
    x = torch.from_numpy((digits[:20] - fitted.shift_) / fitted.scale_).float()
    draws = torch.randn(4000, 100, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        log_weights = torch.cat([vae.log_weights(Batch(x), block) for block in draws.split(500)], dim=1)
    expected = log_weights.double().mean(1).numpy() - 64 * np.log(fitted.scale_)
    errors = 5 * log_weights.std(1).numpy() / np.sqrt(4000)
    np.testing.assert_array_less(np.abs(fitted.score_samples(digits[:20]) - expected), errors + 0.1)


def log_normal_table(seed):
    rng = np.random.default_rng(seed)
    return np.exp(3 * rng.normal(size=(3000, 3)) @ rng.normal(size=(3, 40)))


@pytest.mark.filterwarnings("ignore:Column .* of X has a standard deviation")
@pytest.mark.filterwarnings("ignore:An entry of column .* of X is")
@pytest.mark.filterwarnings("ignore:. of . components are active")
@pytest.mark.parametrize("seed", range(3))
def test_heavy_tails_go_through(estimator_class, seed):
    X = log_normal_table(seed)
    fitted = make(estimator_class, max_iter=3, encoder="dense").fit(X)
    in_range = estimator_class is NormalVAETransformer or (X <= fitted.shift_ + fitted.scale_).all(axis=1)
    np.testing.assert_array_equal(np.isfinite(fitted.score_samples(X)), in_range)
    assert np.isfinite(fitted.transform(X)).all()


@pytest.mark.filterwarnings("ignore:An entry of column 3 of X is")
def test_a_broken_row_does_not_keep_a_fit_or_a_search_from_its_end(digits):
    X = digits.copy()
    X[7, 3] = 1e9
    search = GridSearchCV(make(NormalVAETransformer), {"n_components": [1, 4]}, cv=3, error_score="raise").fit(X)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    far = digits[:20].copy()
    far[0, 0] = 1e30
    fitted = make(NormalVAETransformer).fit(digits, X_val=far)
    assert np.isfinite(fitted.history_["validation_elbo"]).all()


def test_a_quiet_first_block(estimator_class, digits):
    parameters = {"data_range": (0, 16)} if estimator_class is ContinuousBernoulliVAETransformer else {}
    stream = make(estimator_class, **parameters).partial_fit(1e-3 * digits[:100])
    expects = pytest.warns(UserWarning, match="times as far") if not parameters else contextlib.nullcontext()
    with expects:
        for _ in range(5):
            stream.partial_fit(digits)
    assert np.isfinite(stream.score(digits))


def test_memory_does_not_grow_with_the_widest_layer(estimator_class):
    """Rows are taken in blocks that leave room for what the widest layer makes of them."""
    fitted = make(estimator_class, encoder="dense", hidden_layer_sizes=(1000,), max_iter=1).fit(np.eye(9, 2))
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        linear = nn.functional.linear
        patch.setattr(nn.functional, "linear", lambda *args: (seen.append(linear(*args)), seen[-1])[1])
        fitted.transform(np.zeros((5000, 2)))
        fitted.inverse_transform(np.zeros((5000, 3)))
        fitted.score_samples(np.zeros((100, 2)))
        fitted.score_samples(np.zeros((2, 2)), n_importance_samples=4)
    assert max(output.numel() for output in seen) <= 1 << 20


class Wide(nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution = nn.utils.skip_init(nn.Conv2d, 1, 50, 3)
        self.out = nn.utils.skip_init(nn.Linear, 50, 6)
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x):
        return self.out(self.convolution(x.unflatten(1, (1, 8, 8))).amax((2, 3)))


@pytest.mark.filterwarnings("ignore:. of . components are active")
def test_the_width_of_a_users_module_is_measured(digits):
    fitted = make(NormalVAETransformer, encoder=Wide(), max_iter=1).fit(digits)
    assert fitted.module_.encoder_width == 50 * 6 * 6
    assert pickle.loads(pickle.dumps(fitted)).module_.encoder_width == 50 * 6 * 6


@pytest.mark.draws_globally
def test_a_layer_that_two_modules_hold_is_copied_to_each(digits):
    shared = nn.Linear(6, 6)
    encoder, decoder = (
        nn.Sequential(nn.Linear(64, 6), shared),
        nn.Sequential(nn.Linear(3, 6), shared, nn.Linear(6, 64)),
    )
    before = shared.weight.detach().clone()
    module = make(NormalVAETransformer, encoder=encoder, decoder=decoder).fit(digits).module_
    weights = [layer.weight for layer in module.modules() if isinstance(layer, nn.Linear) and layer.in_features == 6]
    one, other = (weight for weight in weights if weight.shape == (6, 6))
    assert not torch.equal(one, other)
    assert torch.equal(shared.weight, before)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int16", "int32", "float32"])
def test_units_clip_every_type_alike(dtype):
    X = np.array([[0, 1], [1, 1]]) * (1 if dtype == "bool" else 100)
    for units in (Units(0.0, 1.0, -3.0, 30.0), Units(1e30, 1.0), Units(0.0, 1e-9), Units(0.0, 255.0)):
        rows = Rows(X.astype(dtype), units, torch.device("cpu"))
        expected = ((X - units.shift) / units.scale).clip(units.low, units.high)
        np.testing.assert_allclose(rows[:].x.numpy(), expected, rtol=1e-6)


class Tied(nn.Module):
    """Two layers with one weight."""

    def __init__(self):
        super().__init__()
        self.first, self.second = (nn.utils.skip_init(nn.Linear, 64, 64) for _ in range(2))
        self.out = nn.utils.skip_init(nn.Linear, 64, 6)
        for parameter in self.parameters():
            nn.init.constant_(parameter, 0.01)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.out(self.second(self.first(x)))


@pytest.mark.filterwarnings("ignore:. of . components are active")
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_tied_weights_stay_tied(digits, method):
    estimator = make(NormalVAETransformer, encoder=Tied(), warm_start=True, max_iter=1)
    for _ in range(3):
        getattr(estimator, method)(digits)
        module = estimator.module_.encoder.module
        assert module.first.weight is module.second.weight


@pytest.mark.draws_globally
@pytest.mark.parametrize(("batch_size", "n_rows"), [(1, 20), (8, 1)])
def test_batch_normalization_of_single_rows_is_an_error_that_says_so(digits, batch_size, n_rows):
    encoder = nn.Sequential(nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Linear(8, 6))
    with pytest.raises(ValueError, match=f"two rows or more in each; got batch_size={batch_size} and {n_rows} rows"):
        make(NormalVAETransformer, encoder=encoder, batch_size=batch_size, noise="shared").fit(digits[:n_rows])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("data_range", [(100.1, 100.2), (0.1, 0.9), (-273.15, 100.05), (1 / 3, 2 / 3)])
def test_the_ends_of_a_given_range_belong_to_it(dtype, data_range):
    X = np.linspace(*data_range, 20).reshape(10, 2).astype(dtype)
    fitted = make(ContinuousBernoulliVAETransformer, data_range=data_range, max_iter=1).fit(X)
    assert np.isfinite(fitted.score_samples(X)).all()


def test_a_fit_under_way_changes_nothing_of_the_fitted_model(estimator_class, digits):
    """Data of another width are noted when the fit is over, and not at its begin."""
    fitted = make(estimator_class, encoder="dense").fit(pd.DataFrame(digits).add_prefix("pixel"))
    before, seen = set(vars(fitted)), []

    class Watch:
        def setup(self, estimator, context):
            pass

        teardown = setup

        def on_fit_task_begin(self, estimator, context):
            seen.append((estimator.n_features_in_, len(estimator.feature_names_in_)))

        def on_fit_task_end(self, estimator, context, *, fitted_estimator=None):
            if context.task_name == "epoch":
                seen.append((estimator.n_features_in_, len(estimator.feature_names_in_)))
                assert fitted_estimator.n_features_in_ == 10
                assert fitted_estimator.transform(digits[:, :10]).shape == (300, 3)

    fitted.set_callbacks(Watch()).fit(digits[:, :10])
    assert set(seen) == {(64, 64)}
    assert fitted.n_features_in_ == 10
    assert set(vars(fitted)) == before - {"feature_names_in_"} | {"_skl_callbacks"}


class WithAnOption(NormalVAETransformer):
    note = "of the class"


def test_an_attribute_that_hides_one_of_the_class_is_no_damage(digits):
    estimator = WithAnOption(**make(NormalVAETransformer).get_params()).fit(digits)
    estimator.note = "of the instance"
    assert copy.deepcopy(estimator).note == "of the instance"
    estimator.__dict__["transform"] = None
    with pytest.raises(ValueError, match="The file is damaged: it has 'transform'"):
        copy.deepcopy(estimator)
