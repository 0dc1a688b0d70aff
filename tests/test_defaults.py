"""What a fit does when nothing is said: noise, steps, warnings, and never worse than the linear model."""

import contextlib
import pickle
import warnings

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits, load_iris, load_wine
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from skvae import ContinuousBernoulliVAETransformer, NormalVAETransformer
from skvae._data.split import split_rows
from skvae._fit import schedule
from skvae._fit.run import Seeds
from skvae._fit.schedule import Plan
from skvae.likelihoods import NormalLikelihood

from conftest import make, make_plain


def sensors(n_rows=500, n_features=6, noise=(0.1, 1.0), seed=0):
    """Return rows of two factors, with more noise in each feature than in the one before it."""
    rng = np.random.default_rng(seed)
    loadings = np.random.default_rng(99).normal(size=(2, n_features))
    return rng.normal(size=(n_rows, 2)) @ loadings + rng.normal(size=(n_rows, n_features)) * np.linspace(
        *noise, n_features
    )


def curved(n_rows=500, seed=0):
    """Return rows of two factors on a curved surface, with more noise in each feature than in the one before it."""
    X = sensors(n_rows, noise=(0, 0), seed=seed)
    noise = np.random.default_rng(seed + 100).normal(size=X.shape) * np.linspace(0.1, 1.0, X.shape[1])
    return X + 3 * np.sin(2 * X[:, ::-1]) + noise


def mean_squares(vae, X, n_draws=500):
    """Return, for each entry, the expected square of what the decoded mean leaves of it under the posterior."""
    mean, std = vae.posterior(X)
    rng = np.random.default_rng(5)
    draws = (mean + std * rng.normal(size=mean.shape) for _ in range(n_draws))
    return sum(np.square(X - vae.inverse_transform(z)) for z in draws) / n_draws


# Noise


@pytest.mark.parametrize("hidden_layer_sizes", [(), (16,)])
def test_the_noise_of_each_feature_is_what_its_mean_leaves(hidden_layer_sizes):
    """That of the training rows, by one factor that rows which were not trained on say."""
    X, X_val = sensors(), sensors(200, seed=1)
    vae = NormalVAETransformer(2, hidden_layer_sizes=hidden_layer_sizes, max_iter=10, random_state=0)
    vae.fit(X, X_val=X_val)
    variances, expected = vae.noise_variance_, mean_squares(vae, X).mean(axis=0)
    assert variances.shape == (6,)
    assert variances.dtype == np.float64
    factors = variances / expected
    assert np.ptp(factors) < 0.05
    by_row = (mean_squares(vae, X_val) / expected).mean(axis=1)
    factor = np.minimum(by_row, 10 * np.median(by_row)).mean()
    assert factors.mean() == pytest.approx(max(factor, 1), rel=0.03)


def test_the_noise_of_each_feature_is_never_less_than_the_training_rows_have():
    X = sensors()
    vae = NormalVAETransformer(2, max_iter=10, random_state=0).fit(X, X_val=X[:50] * 0.01 + X.mean(axis=0))
    np.testing.assert_allclose(vae.noise_variance_, mean_squares(vae, X).mean(axis=0), rtol=0.05)


def test_one_noise_for_all_features():
    X = sensors()
    vae = NormalVAETransformer(2, noise="shared", max_iter=20, random_state=0).fit(X)
    assert type(vae.noise_variance_) is float
    assert vae.noise_variance_ == pytest.approx(mean_squares(vae, X).mean(), rel=0.1)


def test_noise_that_the_decoder_gives():
    X = sensors()
    vae = NormalVAETransformer(2, noise="network", max_iter=2, random_state=0).fit(X)
    assert not hasattr(vae, "noise_variance_")
    assert hasattr(vae, "prior_")
    assert vae.module_.decoder(torch.zeros(3, 2)).shape == (3, 12)


def test_no_noise_variance_of_the_continuous_bernoulli_model(digits):
    assert not hasattr(make(ContinuousBernoulliVAETransformer).fit(digits), "noise_variance_")


@pytest.mark.parametrize("noise", ["feature", "shared"])
def test_the_smallest_noise(noise):
    X = np.column_stack([sensors(noise=(1e-4, 0.5)), np.full(500, 3.0)])
    vae = NormalVAETransformer(2, noise=noise, min_scale=0.1, max_iter=20, random_state=0).fit(X)
    smallest = (0.1 * vae.scale_) ** 2
    assert np.all(vae.noise_variance_ >= smallest)
    assert np.min(vae.noise_variance_) < 2 * smallest or noise == "shared"
    assert np.isfinite(vae.score(X))


def test_features_of_more_noise_than_the_others_keep_their_means():
    """In training, the noise of all features is one; each one's own is set when it has ended."""

    def fit(rows):
        for noise in ("shared", "feature"):
            vae = NormalVAETransformer(2, noise=noise, max_iter=20, random_state=0)
            yield vae.fit(rows(), X_val=rows(100, seed=1))

    (shared, feature), later = fit(curved), curved(seed=2)
    np.testing.assert_allclose(shared.transform(later), feature.transform(later), atol=1e-5)
    for name, values in shared.history_.items():
        np.testing.assert_allclose(feature.history_[name], values, rtol=1e-6)
    (shared, feature), later = fit(sensors), sensors(seed=2)
    assert feature.score(later) > shared.score(later) + 0.1


def test_noise_that_grows_with_the_mean():
    """It is found, and it is the likeliest: no other level or slope makes the residuals more likely."""
    rng = np.random.default_rng(0)
    means = torch.from_numpy(rng.normal(size=(20_000, 4)))
    raw = torch.tensor([-1.0, -2.0, 0.3, -1.5]) + torch.tensor([0.5, -0.8, 0.2, 0.0]) * means
    scale = 0.02 + torch.nn.functional.softplus(raw)
    squares = (scale * torch.from_numpy(rng.normal(size=means.shape))).square()
    squares[:, 3] = 0  # where nothing is left, the noise is the smallest
    likelihood = NormalLikelihood(0.02, 4)
    with torch.no_grad():
        likelihood.calibrate(means, squares)
    found = torch.stack([likelihood.level + likelihood.offsets, likelihood.slopes]).detach().double()
    np.testing.assert_allclose(found[:, :3], [[-1.0, -2.0, 0.3], [0.5, -0.8, 0.2]], atol=0.03)
    assert found[1, 3] == 0
    assert likelihood.scale[3] < 0.021

    best = found[:, :3].clone().requires_grad_()
    scale = 0.02 + torch.nn.functional.softplus(best[0] + best[1] * means[:, :3])
    loss = (0.5 * squares[:, :3] / scale.square() + scale.log()).sum(0) + 5 * best[1].square()
    (slope,) = torch.autograd.grad(loss.sum(), best)
    assert slope.abs().max() < 1e-3 * len(means)


def loss_of_noise(likelihood, means, squares):
    """Return what is minimal when the noise of each feature is likeliest, without the ridge."""
    raw = likelihood._raw_at(means.float()).double()
    scale = 0.02 + torch.nn.functional.softplus(raw)
    return (0.5 * squares / scale.square() + scale.log()).mean(0).detach()


@pytest.mark.parametrize("kind", ["t(2)", "Cauchy", "counts", "binary", "few"])
def test_noise_that_follows_the_mean_makes_no_feature_less_likely(kind):
    rng = np.random.default_rng(0)
    n_rows = 20 if kind == "few" else 2000
    draw = {
        "t(2)": lambda: rng.standard_t(2, size=(n_rows, 20)),
        "Cauchy": lambda: rng.standard_cauchy(size=(n_rows, 20)),
        "counts": lambda: rng.poisson(0.05, size=(n_rows, 20)) * 5.0,
        "binary": lambda: (rng.random((n_rows, 20)) < 0.1) * 3.0,
        "few": lambda: rng.normal(size=(n_rows, 20)),
    }[kind]
    means, squares = torch.from_numpy(draw()).clamp(-1e5, 1e5), torch.from_numpy(draw() ** 2).clamp_max(1e9)
    likelihood = NormalLikelihood(0.02, 20)
    with torch.no_grad():
        likelihood.calibrate(means, squares)
        found = loss_of_noise(likelihood, means, squares)
        likelihood.slopes.zero_()
        likelihood.offsets.copy_(likelihood._raw(squares.mean(0)) - likelihood.level)
        assert (found <= loss_of_noise(likelihood, means, squares) + 1e-4).all()


def test_noise_stays_what_it_is_beyond_the_means_of_training():
    rng = np.random.default_rng(0)
    means = torch.from_numpy(rng.uniform(-1, 2, size=(5000, 1)))
    true = torch.nn.functional.softplus
    squares = ((0.02 + true(0.5 + means)) * torch.from_numpy(rng.normal(size=(5000, 1)))).square()
    likelihood = NormalLikelihood(0.02, 1)
    with torch.no_grad():
        likelihood.calibrate(means, squares)
        at = torch.tensor([[-100.0], [-1], [0], [2], [100]])
        scales = torch.exp(-likelihood.log_prob(at, at)) / np.sqrt(2 * np.pi)
    np.testing.assert_allclose(scales[[0, 4]], scales[[1, 3]], rtol=1e-3)
    torch.testing.assert_close(scales[1:4], 0.02 + true(0.5 + at[1:4]), rtol=0.05, atol=0)


def test_partial_fit_goes_on_with_the_noise_that_a_fit_has_found():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(2000, 1))
    X = z * np.array([1.0, 3, -3, 2]) + 0.3 * np.exp(0.7 * z) * rng.normal(size=(2000, 4))
    vae = NormalVAETransformer(1, prior="normal", max_iter=10, random_state=0).fit(X)
    likelihood, score = vae.module_.likelihood, vae.score(X)
    slopes = likelihood.slopes.clone()
    copied = pickle.loads(pickle.dumps(vae))
    assert copied.score(X) == score
    for _ in range(5):
        vae.partial_fit(X)
    torch.testing.assert_close(vae.module_.likelihood.slopes, slopes)
    assert vae.score(X) > score - 0.02
    # What it trains is what it scores.
    assert vae.history_["elbo"][-1] == pytest.approx(vae.score(X), abs=0.1)


def test_the_noise_of_a_row_follows_its_mean():
    """In draws and in densities; where it does not depend on the mean, hardly."""
    rng = np.random.default_rng(0)
    loadings = np.array([1.0, 3, -3, 2, 3, -3])
    noise = np.full((3000, 6), 0.3)
    z = rng.normal(size=(3000, 1))
    noise[:, 0] *= np.exp(0.7 * z[:, 0])
    X = z * loadings + noise * rng.normal(size=(3000, 6))
    vae = NormalVAETransformer(1, max_iter=10, random_state=0).fit(X)
    slopes = vae.module_.likelihood.slopes
    assert slopes[0] > 5 * slopes[1:].abs().max()
    Z = torch.from_numpy(vae.transform([-loadings, loadings])).repeat_interleave(5000, dim=0)
    draws = vae.module_.likelihood.sample(vae.module_.decoder(Z), torch.Generator().manual_seed(0))
    low, high = draws[:5000, 0].std(), draws[5000:, 0].std()
    assert 2 < high / low < np.exp(1.4) * 1.2
    before = vae.score(X)
    slopes.zero_()
    assert before > vae.score(X) + 0.05


def test_observation_noise_is_that_of_each_feature():
    vae = NormalVAETransformer(2, max_iter=5, random_state=0).fit(sensors())
    mean, noisy = (vae.sample(20_000, random_state=0, observation_noise=noise) for noise in (False, True))
    np.testing.assert_allclose((noisy - mean).var(axis=0), vae.noise_variance_, rtol=0.08)


def test_a_row_far_away_among_those_set_aside_does_not_decide_the_noise():
    X_val = sensors(60, seed=1)
    plain = NormalVAETransformer(2, max_iter=5, random_state=0).fit(sensors(), X_val=X_val)
    X_val[7] *= 1e4
    odd = NormalVAETransformer(2, max_iter=5, random_state=0).fit(sensors(), X_val=X_val)
    assert (odd.noise_variance_ < 1.5 * plain.noise_variance_).all()


# Rows that were set aside decide whether training has helped


def test_a_start_that_training_makes_worse_comes_back():
    """With a signal far below the noise the networks learn what is peculiar to the training rows."""
    rng = np.random.default_rng(0)
    X = 0.3 * rng.normal(size=(400, 3)) @ rng.normal(size=(3, 200)) + rng.normal(size=(400, 200))
    X, later = X[:100], X[100:]
    parameters = {"prior": "normal", "weight_decay": 0.0, "learning_rate_init": 0.01, "max_iter": 40, "random_state": 0}
    vae = NormalVAETransformer(3, **parameters).fit(X)
    trained = NormalVAETransformer(3, noise="shared", **parameters).fit(X)
    assert r2(trained, later) < r2(PCA(3).fit(X), later) - 0.05
    assert r2(vae, later) > r2(PCA(3).fit(X), later) - 0.01
    # It is the linear model to the last bit: the networks beside the paths are 0.
    assert not vae.module_.decoder.last_layer.weight.any()
    assert not vae.module_.encoder.last_layer.weight.any()
    assert len(vae.history_["elbo"]) == 40


def test_training_that_helps_is_kept():
    vae = NormalVAETransformer(2, max_iter=20, random_state=0).fit(curved())
    assert vae.module_.decoder.last_layer.weight.any()


def test_a_fit_that_goes_on_does_not_go_back():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(100, 40))
    vae = NormalVAETransformer(3, prior="normal", max_iter=10, warm_start=True, random_state=0).fit(X)
    assert not vae.module_.decoder.last_layer.weight.any()
    vae.fit(X)
    assert vae.module_.decoder.last_layer.weight.any()


# Rows that are set aside


@pytest.mark.parametrize(
    ("parameters", "n_rows", "expected"),
    [
        ({}, 1000, 100),
        ({}, 60_000, 500),
        ({}, 9, 0),
        ({"noise": "shared"}, 1000, 0),
        ({"noise": "network"}, 1000, 0),
        ({"early_stopping": True, "validation_fraction": 0.25}, 1000, 250),
    ],
)
def test_how_many_rows_are_set_aside(parameters, n_rows, expected):
    vae = NormalVAETransformer(**parameters)
    index, aside = split_rows(vae, n_rows, 0, calibrates=vae.make_likelihood(5).calibrates)
    assert len(aside) == expected
    kept = np.arange(n_rows) if index is None else index
    np.testing.assert_array_equal(np.sort(np.concatenate([kept, aside])), np.arange(n_rows))


def test_every_row_is_trained_on_where_none_has_to_be_set_aside():
    """The units tell which: they are those of the rows that are trained on."""
    X = sensors(50)
    alone, with_val = NormalVAETransformer(2, max_iter=1, random_state=0), NormalVAETransformer(2, max_iter=1)
    assert not np.allclose(alone.fit(X).shift_, X.mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(with_val.fit(X, X_val=X[:5]).shift_, X.mean(axis=0))
    shared = NormalVAETransformer(2, noise="shared", max_iter=1).fit(X)
    np.testing.assert_allclose(shared.shift_, X.mean(axis=0))
    stream = NormalVAETransformer(2).partial_fit(X)
    np.testing.assert_allclose(stream.shift_, X.mean(axis=0))


# Units


def test_units_are_the_mean_of_each_feature_and_one_scale():
    X = sensors() + np.array([1e3, -5, 0, 7, 1e4, 2])
    vae = NormalVAETransformer(2, noise="shared", max_iter=1).fit(X)
    np.testing.assert_allclose(vae.shift_, X.mean(axis=0), rtol=1e-12)
    assert vae.scale_ == pytest.approx(np.sqrt(X.var(axis=0).mean()), rel=1e-9)


def test_features_may_lie_anywhere():
    """Where each feature lies has no part in the fit."""
    X = sensors()
    offset = np.array([1013.0, 900, -850, 7, 1e4, 0])
    here, there = (NormalVAETransformer(2, max_iter=5, random_state=0).fit(data) for data in (X, X + offset))
    np.testing.assert_allclose(here.transform(X), there.transform(X + offset), atol=1e-3)
    np.testing.assert_allclose(here.score_samples(X), there.score_samples(X + offset), atol=0.05)
    np.testing.assert_allclose(
        here.sample(5, random_state=0) + offset, there.sample(5, random_state=0), rtol=1e-4, atol=1e-2
    )


# Steps


@pytest.mark.parametrize("n_rows", [1, 5, 40, 256, 1000, 4000, 20_000, 60_000, 10**6])
@pytest.mark.parametrize(
    ("estimator_class", "decay"), [(NormalVAETransformer, 100), (ContinuousBernoulliVAETransformer, 300)]
)
def test_small_data_get_small_batches_and_many_epochs(n_rows, estimator_class, decay):
    plan = Plan.of_fit(estimator_class(), n_rows)
    assert 8 <= plan.batch_size <= 128
    n_steps = int(np.ceil(n_rows / plan.batch_size))
    if 8 < plan.batch_size < 128:
        assert 32 <= n_steps <= 36
    fewest, most = schedule._FEWEST_EPOCHS, schedule._MOST_EPOCHS
    assert fewest <= plan.n_epochs <= most
    if fewest < plan.n_epochs < most:
        assert 10_000 <= plan.n_epochs * n_steps < 10_000 + n_steps
    # What keeps the networks near the linear model falls with the number of rows.
    assert plan.weight_decay == pytest.approx(min(decay / n_rows, 0.1 / 2e-3))


def test_decay_leaves_most_of_a_weight_at_each_step():
    plan = Plan.of_fit(NormalVAETransformer(learning_rate_init=0.5), 3)
    assert plan.learning_rate * plan.weight_decay <= 0.1


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_decay_that_takes_more_than_there_is(method, estimator_class, digits):
    with pytest.raises(ValueError, match="weight_decay=50 times learning_rate_init=0.1 is 5, .* expected 1 at most"):
        getattr(make(estimator_class, weight_decay=50, learning_rate_init=0.1), method)(digits)
    assert Plan.of_fit(estimator_class(weight_decay=10, learning_rate_init=0.1), 100).weight_decay == 10


def test_what_is_given_is_taken():
    vae = NormalVAETransformer(batch_size=7, max_iter=3, weight_decay=0.5, learning_rate="constant", clip_value=None)
    assert Plan.of_fit(vae, 1000) == Plan(3, 7, 2e-3, "constant", 0.5, None, 1.0)
    stream = Plan.of_partial_fit(NormalVAETransformer(max_iter=9, beta=2.0), 1000)
    assert (stream.n_epochs, stream.schedule, stream.weight_decay, stream.beta) == (1, "constant", 0.0, 2.0)
    assert Plan.of_partial_fit(vae, 1000).weight_decay == 0.5


def test_the_number_of_epochs_of_a_fit(estimator_class, digits):
    vae = make_plain(estimator_class, max_iter=None, hidden_layer_sizes=4, encoder="dense")
    X = digits[:40]
    assert vae.fit(X).n_iter_ == Plan.of_fit(vae, 40).n_epochs == len(vae.loss_curve_)
    n_iter = vae.n_iter_
    assert vae.partial_fit(X).n_iter_ == n_iter + 1


def test_the_learning_rate_falls(digits):
    """So that the last epochs of a fit move hardly anything, and those of a constant one do."""
    moved = {}
    for rate in ("constant", "cosine"):
        vae = make(NormalVAETransformer, learning_rate=rate, max_iter=30, prior="normal", noise="shared", batch_size=50)
        latents = []

        class Watch:
            def setup(self, estimator, context):
                pass

            teardown = on_fit_task_begin = setup

            def on_fit_task_end(self, estimator, context, *, fitted_estimator=None):
                if context.task_name == "epoch":
                    latents.append(fitted_estimator.transform(digits))  # noqa: B023

        vae.set_callbacks(Watch()).fit(digits)
        moved[rate] = [np.abs(b - a).mean() for a, b in zip(latents, latents[1:], strict=False)]
    assert moved["cosine"][-1] < 0.1 * moved["constant"][-1]
    assert moved["cosine"][0] == pytest.approx(moved["constant"][0], rel=0.2)


def test_weight_decay_keeps_the_networks_near_the_linear_model(digits):
    parameters = {"noise": "shared", "prior": "normal", "max_iter": 10, "batch_size": 50}
    free, bound = (make(NormalVAETransformer, weight_decay=decay, **parameters).fit(digits) for decay in (0.0, 200.0))

    def norms(vae):
        weights = {id(weight): weight for weight in vae.module_.inner_weights}
        inner = sum(float(weight.detach().square().sum()) for weight in weights.values())
        paths = [vae.module_.encoder.path.weight, vae.module_.decoder.path.weight]
        return inner, sum(float(weight.detach().square().sum()) for weight in paths)

    (free_inner, free_path), (bound_inner, bound_path) = norms(free), norms(bound)
    assert bound_inner < 0.05 * free_inner
    assert bound_path > 0.5 * free_path


# Warnings


@pytest.fixture
def _no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.usefixtures("_no_warning")
@pytest.mark.parametrize(
    "X",
    [load_digits().data[:600], load_iris().data, StandardScaler().fit_transform(load_wine().data), sensors()],
    ids=["digits", "iris", "wine", "sensors"],
)
def test_no_warning_on_a_fit_that_is_fine(X):
    vae = NormalVAETransformer(2, max_iter=20, random_state=0).fit(X)
    vae.partial_fit(X[::2]).partial_fit(X[1::2])
    NormalVAETransformer(2, random_state=0).partial_fit(X[::2]).partial_fit(X[1::2])


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_columns_of_very_different_scales(method):
    X = sensors() * [1, 1, 1, 1e4, 1, 1]
    with pytest.warns(UserWarning, match="Column 3 of X has a standard deviation of .* StandardScaler") as caught:
        getattr(NormalVAETransformer(2, max_iter=1), method)(X)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        getattr(NormalVAETransformer(2, max_iter=1), method)(StandardScaler().fit_transform(X))


def test_raw_wine_is_warned_of():
    with pytest.warns(UserWarning, match="StandardScaler"):
        NormalVAETransformer(5, max_iter=1).fit(load_wine().data)


def test_components_that_collapse(estimator_class, digits):
    with pytest.warns(UserWarning, match="0 of 3 components are active. The others have collapsed") as caught:
        make(estimator_class, beta=1e4, learning_rate_init=0.05, max_iter=20, batch_size=50).fit(digits)
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    "X",
    [np.full((50, 6), 3.0), np.random.default_rng(0).normal(size=(200, 6)), np.random.default_rng(0).random((40, 100))],
    ids=["constant", "noise", "wide noise"],
)
@pytest.mark.filterwarnings("error:.* components are active", "ignore:Reconstructions of training rows keep")
def test_no_collapse_where_there_is_nothing_to_find(X, estimator_class):
    """The settings are not to blame: the linear model finds nothing either."""
    vae = make(estimator_class, beta=1e4, learning_rate_init=0.05, max_iter=50, batch_size=10).fit(X)
    assert (vae.transform(X).var(axis=0) < 0.01).all()


@pytest.mark.parametrize("parameters", [{"init": "random"}, {"decoder": torch.nn.Linear(2, 6)}])
def test_too_few_steps_from_random_weights(parameters):
    X = sensors(320)
    few = NormalVAETransformer(2, noise="shared", prior="normal", batch_size=32, max_iter=19, **parameters)
    with pytest.warns(UserWarning, match="has 190 steps: 19 epochs of 320 rows in batches of 32.*max_iter") as caught:
        few.fit(X)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        few.set_params(max_iter=20).fit(X)
        few.set_params(max_iter=1, warm_start=True).fit(X)
        few.partial_fit(X)


def test_few_steps_from_the_linear_model_are_enough():
    """They are no worse than it is."""
    X, later = sensors(), sensors(seed=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        vae = NormalVAETransformer(2, max_iter=1, random_state=0).fit(X)
    assert r2(vae, later) > r2(PCA(2).fit(X), later) - 0.01


def test_more_components_than_the_data_have_is_no_collapse():
    X = sensors()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        NormalVAETransformer(10, max_iter=1, random_state=0).fit(X)
        NormalVAETransformer(10, max_iter=1, random_state=0).fit(X[:3])


@pytest.mark.parametrize("method", ["partial_fit", "fit"])
def test_rows_that_are_nothing_like_the_first_ones(method):
    X = sensors()
    vae = NormalVAETransformer(2, warm_start=True, max_iter=1, random_state=0).fit(X)
    for later in (X + 1e3, 1e3 * X):
        with pytest.warns(UserWarning, match="times as far from shift_ as scale_=.*Begin with rows that are like"):
            getattr(vae, method)(later)


@pytest.mark.parametrize("method", ["partial_fit", "fit"])
@pytest.mark.filterwarnings("ignore:Column 3 of X has a standard deviation")
def test_rows_that_vary_far_less_than_the_first_ones(method):
    X = sensors()
    spoiled = X.copy()
    spoiled[::20, 3] = 1e3  # too many to be told from what the data are like
    for first in (12 * X, spoiled):
        vae = NormalVAETransformer(2, warm_start=True, max_iter=1, random_state=0).partial_fit(first)
        with pytest.warns(UserWarning, match="vary 0.0.* times as much as scale_=.*Look for extreme values") as caught:
            getattr(vae, method)(X)
        assert caught[0].filename == __file__


def test_ordinary_blocks_of_a_stream():
    """Blocks of any size, of columns with heavy tails, are like the first one, and so is a block that is constant."""
    rng = np.random.default_rng(0)
    vae = NormalVAETransformer(2, hidden_layer_sizes=8, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for n_rows in (100, 8, 1000, 1, 8, 30, 2, 300, 8):
            vae.partial_fit(rng.standard_t(3, size=(n_rows, 3)))
        vae.partial_fit(np.zeros((20, 3)))


# Never worse than the linear model


def one_unit(rng):
    """Barometers at different heights, all in hPa."""
    return (
        np.linspace(1013, 845, 8) + 4 * rng.normal(size=(500, 2)) @ LOADINGS[:2, :8] + 0.5 * rng.normal(size=(500, 8))
    )


def two_factors(rng):
    return rng.normal(size=(500, 2)) @ LOADINGS[:2] + 0.3 * rng.normal(size=(500, 12))


def one_hot(rng):
    return np.hstack([np.eye(4)[rng.integers(4, size=500)], np.eye(5)[rng.integers(5, size=500)]])


def skewed_columns(rng):
    L = rng.normal(size=(500, 2)) @ LOADINGS[:2, :6] + 0.2 * rng.normal(size=(500, 6))
    L[:, :3] = np.exp(L[:, :3])
    return L


LOADINGS = np.random.default_rng(99).normal(size=(2, 12))


def r2(model, X):
    left = X - model.inverse_transform(model.transform(X))
    return 1 - np.square(left).sum() / np.square(X - X.mean(axis=0)).sum()


EPOCHS = [15, pytest.param(None, marks=pytest.mark.slow)]


@pytest.mark.parametrize("max_iter", EPOCHS)
@pytest.mark.parametrize(("rows", "n_components"), [(one_unit, 2), (two_factors, 2), (one_hot, 7), (skewed_columns, 3)])
def test_reconstructions_are_at_least_those_of_pca(rows, n_components, max_iter):
    X = rows(np.random.default_rng(0))
    later = rows(np.random.default_rng(1))
    if rows is skewed_columns:
        scaler = StandardScaler().fit(X)
        X, later = scaler.transform(X), scaler.transform(later)
    vae, pca = NormalVAETransformer(n_components, max_iter=max_iter, random_state=0).fit(X), PCA(n_components).fit(X)
    assert r2(vae, later) >= r2(pca, later) - 0.01


@pytest.mark.parametrize("max_iter", EPOCHS)
@pytest.mark.filterwarnings("ignore:Column 12 of X has")
def test_reconstructions_of_a_raw_table(max_iter):
    X = load_wine().data
    train, later = X[::2], X[1::2]
    vae, pca = NormalVAETransformer(5, max_iter=max_iter, random_state=0).fit(train), PCA(5).fit(train)
    assert r2(vae, later) >= r2(pca, later) - 0.01


@pytest.fixture(scope="module")
def fitted_to_two_factors():
    """What is fitted to rows without a broken entry; not to be changed."""
    return NormalVAETransformer(2, max_iter=15, random_state=0).fit(two_factors(np.random.default_rng(0)))


@pytest.mark.parametrize(
    ("broken", "most"),
    [
        ({(7, 3): 1e4}, 1.1),
        ({(7, 3): -1e10}, 1.1),
        ({(7, 3): 1e6, (20, 5): -1e4, (411, 0): 1e3}, 1.1),
        ({(7, 3): 400}, 1.1),
        ({(7, 3): -999, (9, 3): -999, (300, 3): -999}, 1.2),
        ({(7, 3): 1e4, (9, 3): -300, (11, 3): 1e7, (13, 4): 9999}, 1.2),
    ],
)
@pytest.mark.filterwarnings("ignore:An entry of column . of X is")
def test_broken_entries_do_not_hide_the_others(broken, most, fitted_to_two_factors):
    """PCA gives each a component; the VAE is about as good as if they were not there, though it sees them clipped."""
    X, later = two_factors(np.random.default_rng(0)), two_factors(np.random.default_rng(1))
    for place, value in broken.items():
        X[place] = value
    vae, pca = NormalVAETransformer(2, max_iter=15, random_state=0).fit(X), PCA(2).fit(X)

    def left(model):
        return np.square(later - model.inverse_transform(model.transform(later))).mean()

    assert left(vae) < left(pca)
    assert left(vae) < most * left(fitted_to_two_factors)
    assert vae.score(later) > pca.score(later)


def test_a_broken_entry_has_no_part_in_the_units():
    X = np.repeat(two_factors(np.random.default_rng(0)), 2, axis=0)
    others = np.delete(X[:, 3], 7)
    X[7, 3] = 1e8
    vae = NormalVAETransformer(2, noise="shared", max_iter=1, random_state=0)
    with pytest.warns(UserWarning, match=r"entry of column 3 of X is 9.99e\+07 away .* standard deviation") as caught:
        vae.fit(X)
    assert caught[0].filename == __file__
    centered = X - X.mean(axis=0)
    centered[:, 3] = 0
    mean_square = (np.square(centered).mean(axis=0).sum() + others.var()) / 12
    np.testing.assert_allclose(vae.shift_[[2, 3]], [X[:, 2].mean(), others.mean()], rtol=1e-9)
    assert vae.scale_ == pytest.approx(np.sqrt(mean_square), rel=1e-9)


def test_scores_tell_apart_what_training_sees_clipped():
    X = two_factors(np.random.default_rng(0))
    X[7, 3] = 1e4
    with pytest.warns(UserWarning, match="An entry of column 3 of X is"):
        vae = NormalVAETransformer(2, max_iter=2, random_state=0).fit(X)
    rows = np.repeat(X[:1], 5, axis=0)
    rows[:, 3] = 10, 30, 100, 1e4, 1e5
    assert (np.diff(vae.score_samples(rows)) < -100).all()


@pytest.mark.parametrize("where", ["set aside", "X_val"])
def test_a_broken_entry_does_not_decide_early_stopping(where):
    """It counts as one at twice the distance of the farthest, which is not broken."""
    X, X_val = two_factors(np.random.default_rng(0)), two_factors(np.random.default_rng(1))
    vae = NormalVAETransformer(2, early_stopping=True, n_iter_no_change=3, tol=1e9, random_state=0)
    index, aside = split_rows(vae, len(X), Seeds.draw(0).split, calibrates=True)
    rows, row, validation = (X, aside[0], {}) if where == "set aside" else (X_val, 0, {"X_val": X_val})
    trained = X[index] if where == "set aside" else X
    farthest = np.abs(X - trained.mean(axis=0)).max()
    rows[row, 3] = trained[:, 3].mean() + 1.999 * farthest
    vae.fit(X, **validation)
    expected, shift, scale = vae.history_["validation_elbo"], vae.shift_, vae.scale_
    rows[row, 3] = 1e9
    with contextlib.nullcontext() if validation else pytest.warns(UserWarning, match=r"column 3 of X is 1e\+09 away"):
        vae.fit(X, **validation)
    np.testing.assert_allclose(vae.history_["validation_elbo"], expected, rtol=5e-3)
    np.testing.assert_allclose(vae.shift_, shift, rtol=1e-9)
    assert vae.scale_ == pytest.approx(scale, rel=1e-9)


@pytest.mark.filterwarnings("ignore:Early stopping did not set in")
@pytest.mark.parametrize("early_stopping", [False, True])
def test_a_learned_range_has_no_room_for_broken_entries(digits, early_stopping):
    X = digits.copy()
    X[7, 3] = X[9, 5] = 9999
    vae = make(ContinuousBernoulliVAETransformer, early_stopping=early_stopping, max_iter=2)
    with pytest.warns(UserWarning, match="column 3 of X .* and 1 more column has such entries.* give data_range"):
        vae.fit(X)
    assert (vae.shift_, vae.scale_) == (0, 16)
    np.testing.assert_array_equal(np.flatnonzero(np.isneginf(vae.score_samples(X))), [7, 9])
    assert r2(vae, digits) > r2(make(ContinuousBernoulliVAETransformer, max_iter=2).fit(digits), digits) - 0.01
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="An entry of column")
        assert make(ContinuousBernoulliVAETransformer, data_range=(0, 9999), max_iter=1).fit(X).scale_ == 9999


@pytest.mark.parametrize("method", ["partial_fit", "fit"])
@pytest.mark.parametrize("first", ["broken", "clean"])
def test_training_goes_on_with_a_broken_entry(estimator_class, digits, method, first):
    """One warning in each call says so, and the model is about that of the clean rows."""
    X = digits.copy()
    X[7, 3] = 1e6
    vae, clean = (make_plain(estimator_class, warm_start=True, max_iter=1) for _ in range(2))
    getattr(clean, method)(digits)
    getattr(clean, method)(digits)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", message="Reconstructions of training rows keep")
        getattr(vae, method)(X if first == "broken" else digits)
        getattr(vae, method)(X)
    assert len(caught) == (2 if first == "broken" else 1)
    assert all("An entry of column 3 of X is" in str(warning.message) for warning in caught)
    assert vae.score(digits) == pytest.approx(clean.score(digits), abs=1)


@pytest.mark.parametrize("kind", ["many", "near", "constant otherwise", "small", "reached"])
def test_entries_that_are_not_broken(kind):
    """Too many, some not far enough, one of a column that is constant otherwise, or one within what others reach."""
    X = two_factors(np.random.default_rng(0))
    if kind == "many":
        X[5:11, 3] = 60
    elif kind == "near":
        X[[7, 9], 3] = 40
    elif kind == "constant otherwise":
        X[:, 3] = 1
        X[7, 3] = 40
    else:
        X[:, 3] *= 1e-3
        X[7, 3] = 5 if kind == "small" else 1.5 * np.abs(X).max()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="An entry of column")
        vae = NormalVAETransformer(2, noise="shared", max_iter=1, random_state=0).fit(X)
    np.testing.assert_allclose(vae.shift_, X.mean(axis=0), rtol=1e-9)


def test_two_columns_of_different_scales_are_warned_of():
    X = np.random.default_rng(0).normal(size=(60, 2)) * (1, 1e6)
    with pytest.warns(UserWarning, match="Column 1 of X has .* StandardScaler"):
        NormalVAETransformer(1, max_iter=1, random_state=0).fit(X)


def test_the_noise_of_each_feature_is_that_of_the_shared_level_where_all_are_alike():
    """Of more rows than there are draws for each: what all rows share would not average out."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(20_000, 4)) @ rng.normal(size=(4, 8)) + 0.3 * rng.normal(size=(20_000, 8))
    start = {"max_iter": 1, "learning_rate_init": 1e-9, "random_state": 0}
    each = NormalVAETransformer(4, **start).fit(X).noise_variance_
    np.testing.assert_allclose(each, 0.09, rtol=0.05)


def test_one_far_row_to_validate_with_says_nothing_of_the_noise(digits):
    near, far = (
        NormalVAETransformer(3, max_iter=1, random_state=0).fit(digits, X_val=rows)
        for rows in (digits[:1], 100 * digits[:1])
    )
    np.testing.assert_array_equal(near.noise_variance_, far.noise_variance_)


# What the continuous Bernoulli model is for


def shares(spread, seed=0):
    """Return two factors' worth of shares around one half, clipped to [0, 1]."""
    rng = np.random.default_rng(seed)
    X = 0.5 + spread * rng.normal(size=(600, 2)) @ rng.normal(size=(2, 10)) + 0.1 * spread * rng.normal(size=(600, 10))
    return X.clip(0, 1)


def fit_shares(X, **parameters):
    parameters = {"prior": "normal", "max_iter": 20, "random_state": 0, "data_range": (0, 1)} | parameters
    return ContinuousBernoulliVAETransformer(2, **parameters).fit(X)


@pytest.mark.parametrize("spread", [0.02, 0.05])
@pytest.mark.filterwarnings("ignore:0 of 2 components are active")
def test_values_in_the_middle_of_the_range_are_for_another_model(spread):
    with pytest.warns(
        UserWarning, match="Reconstructions of training rows keep .* PCA .* Take NormalVAETransformer"
    ) as caught:
        fit_shares(shares(spread))
    assert caught[-1].filename == __file__


@pytest.mark.parametrize(
    "X",
    [
        shares(0.5),
        (shares(0.5) > 0.5).astype(float),
        np.zeros((30, 4)),
        np.eye(4)[np.random.default_rng(0).integers(4, size=300)],
    ],
    ids=["shares", "masks", "zeros", "one-hot"],
)
@pytest.mark.filterwarnings("ignore:. of 2 components are active")
def test_values_at_the_ends_of_the_range_are_not(X):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Reconstructions of training rows")
        fit_shares(X)


@pytest.mark.parametrize("max_iter", [60, pytest.param(150, marks=pytest.mark.slow)])
@pytest.mark.parametrize("values", ["shares", "masks"])
def test_exact_ends_of_a_learned_range_do_no_harm(values, max_iter):
    """However long the fit: the density is bounded there."""
    X = shares(0.5)
    X = X if values == "shares" else (X > 0.5).astype(float)
    vae = fit_shares(X, max_iter=max_iter, data_range=None)
    elbo = np.array(vae.history_["elbo"])
    assert elbo[-5:].mean() > elbo.max() - 0.02 * np.ptp(elbo)
    left = np.square(vae.inverse_transform(vae.transform(X)) - X).sum()
    pca = PCA(2).fit(X)
    assert left < np.square(pca.inverse_transform(pca.transform(X)) - X).sum()
