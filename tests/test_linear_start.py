"""A fit begins at probabilistic PCA: before the first step, the ELBO is the log likelihood of the linear model."""

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.decomposition import PCA
from torch import nn

from skvae import ContinuousBernoulliVAETransformer, NormalVAETransformer
from skvae.distributions import ContinuousBernoulli

from conftest import bits, make, memory_map

# As good as no step, and nothing after it.
START = {"max_iter": 1, "learning_rate_init": 1e-9, "noise": "shared", "prior": "normal", "random_state": 0}


def begun(n_components, X, **parameters):
    return NormalVAETransformer(n_components, **START | parameters).fit(X)


def table(n_rows=300, n_features=16, n_factors=3, noise=0.5, seed=0):
    """Return rows of a linear model, far from 0."""
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(n_rows, n_factors)) * np.arange(1, n_factors + 1)
    return (
        10 * rng.normal(size=n_features)
        + factors @ rng.normal(size=(n_factors, n_features))
        + (noise * rng.normal(size=(n_rows, n_features)))
    )


def log_density(n_components, X, smallest_variance=0.0):
    """Return the log density of each row under probabilistic PCA of all, its noise bounded below."""
    mean, covariance = X.mean(axis=0), np.atleast_2d(np.cov(X.T, bias=True))
    variances, vectors = np.linalg.eigh(covariance)
    n_components = min(n_components, len(mean))
    left = variances[: len(mean) - n_components]
    noise = max(left.mean() if len(left) else 0.0, smallest_variance)
    extra = (variances[len(left) :] - noise).clip(0)
    model = noise * np.eye(len(mean)) + (vectors[:, len(left) :] * extra) @ vectors[:, len(left) :].T
    return multivariate_normal(mean, model).logpdf(X)


def assert_begins_at(vae, X, expected, **tolerance):
    tolerance = {"rtol": 1e-4, "atol": 1e-3} | tolerance
    np.testing.assert_allclose(vae.score_samples(X), expected, **tolerance)
    # The posterior is exact, so that the importance weights are constant.
    np.testing.assert_allclose(vae.score_samples(X[:10], n_importance_samples=16), expected[:10], **tolerance)


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"hidden_layer_sizes": ()},
        {"hidden_layer_sizes": (16, 8), "dropout": 0.5},
        {"encoder": "conv"},
        {"encoder": "conv", "image_shape": (2, 4, 2), "dropout": 0.1},
        {"noise": "network"},
        {"init": "pca", "batch_size": 7, "beta": 3.0},
    ],
    ids=str,
)
def test_the_elbo_is_the_log_likelihood_of_probabilistic_pca(parameters):
    X = table()
    assert_begins_at(begun(3, X, **parameters), X, log_density(3, X))


def test_the_log_likelihood_is_that_of_scikit_learn():
    """It divides by one row less, and so is fitted to rows that are nearer to their mean."""
    X = table()
    nearer = X.mean(axis=0) + (X - X.mean(axis=0)) * np.sqrt(1 - 1 / len(X))
    pca, vae = PCA(3).fit(nearer), begun(3, X)
    assert_begins_at(vae, X, pca.score_samples(X))
    assert vae.noise_variance_ == pytest.approx(pca.noise_variance_, rel=1e-4)


def test_latents_and_reconstructions_are_those_of_probabilistic_pca():
    X = table()
    vae, pca = begun(3, X), PCA(3, whiten=True).fit(X)
    latents, whitened = vae.transform(X), pca.transform(X)
    # The posterior mean is the component with unit variance, shrunken, in either direction.
    assert np.abs(np.corrcoef(latents.T, whitened.T)[:3, 3:]).max(axis=1) == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(np.corrcoef(latents.T), np.eye(3), atol=1e-5)
    mean, std = vae.posterior(X)
    np.testing.assert_allclose(mean.var(axis=0) + std[0] ** 2, 1, atol=1e-3)
    assert np.ptp(std, axis=0) == pytest.approx(0, abs=1e-6)
    shift = X.mean(axis=0)
    np.testing.assert_allclose(vae.shift_, shift, rtol=1e-12)
    W = vae.module_.decoder.path.weight.detach().double().numpy() * vae.scale_
    np.testing.assert_allclose(vae.inverse_transform(latents), shift + latents @ W.T, atol=1e-4)
    # W is that of scikit-learn.
    covariance = W @ W.T + vae.noise_variance_ * np.eye(16)
    np.testing.assert_allclose(covariance, PCA(3).fit(X).get_covariance() * (1 - 1 / 300), rtol=1e-3, atol=1e-3)


LAYOUTS = {
    "bytes": lambda X, folder: X,
    "float64": lambda X, folder: X.astype(float),
    "float32 with an offset": lambda X, folder: X.astype(np.float32) + np.float32(2**20),
    "fortran": lambda X, folder: np.asfortranarray(X),
    "memory map": lambda X, folder: memory_map(X, folder / "X.dat"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("encoder", ["dense", "conv"])
def test_rows_of_every_kind(layout, encoder, tmp_path):
    X = (table(n_rows=5000, n_features=36) * 2 + 128).clip(0, 255).astype(np.uint8)
    given = LAYOUTS[layout](X, tmp_path)
    vae = begun(3, given, encoder=encoder)
    np.testing.assert_allclose(vae.score_samples(given), log_density(3, X.astype(float)), rtol=1e-4, atol=5e-3)


def test_more_features_than_a_covariance_matrix_is_made_for():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(80, 4)) * [8, 6, 5, 4] @ rng.normal(size=(4, 2500)) + rng.normal(size=(80, 2500)) + 50
    centered = X - X.mean(axis=0)
    vae = begun(4, X, hidden_layer_sizes=8)
    _, values, vectors = np.linalg.svd(centered, full_matrices=False)
    variances = values**2 / len(X)
    noise = variances[4:].sum() / 2496
    assert vae.noise_variance_ == pytest.approx(noise, rel=1e-4)
    along = centered @ vectors[:4].T
    squares = np.square(centered).sum(axis=1) - np.square(along).sum(axis=1)
    expected = squares / noise + np.square(along) @ (1 / variances[:4])
    expected += 2500 * np.log(2 * np.pi) + 2496 * np.log(noise) + np.log(variances[:4]).sum()
    assert_begins_at(vae, X, -0.5 * expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("n_rows", "n_features", "n_components"), [(5, 10, 8), (200, 3, 5), (200, 3, 3), (2, 6, 3), (40, 1, 1)]
)
def test_fewer_rows_or_columns_than_components(n_rows, n_features, n_components):
    """Directions that the data do not have are left out, and the noise is the smallest that there may be."""
    X = np.random.default_rng(0).normal(3, 2, size=(n_rows, n_features))
    vae = begun(n_components, X, min_scale=0.1)
    assert np.sqrt(vae.noise_variance_) / vae.scale_ == pytest.approx(0.1, rel=0.05)
    assert_begins_at(vae, X, log_density(n_components, X, vae.noise_variance_), atol=0.01)


@pytest.mark.filterwarnings("ignore:0 of 2 components are active")
def test_rows_that_do_not_vary():
    for X in (np.full((30, 4), 7.0), np.ones((1, 5))):
        vae = begun(2, X)
        np.testing.assert_allclose(vae.inverse_transform(vae.transform(X)), X, rtol=1e-5)
        assert np.isfinite(vae.score(X))


def test_the_smallest_noise_bounds_that_of_the_start():
    X = table(noise=1e-3)
    vae = begun(3, X, min_scale=0.05)
    assert np.sqrt(vae.noise_variance_) / vae.scale_ == pytest.approx(0.05, rel=0.05)
    assert_begins_at(vae, X, log_density(3, X, vae.noise_variance_), atol=5e-3)


def test_a_calibrated_start_has_the_density_of_the_same_model_with_the_noise_of_each_feature():
    """The network is the linear model, so that its bound is at most the density of that model, which is normal.

    It is where the noise does not depend on the mean, as in these data.
    """
    rng = np.random.default_rng(0)
    X = rng.normal(size=(2000, 2)) @ rng.normal(size=(2, 6)) + rng.normal(size=(2000, 6)) * np.linspace(0.2, 1, 6)
    vae = begun(2, X, noise="feature")
    slopes = vae.module_.likelihood.slopes
    assert slopes.abs().max() < 0.1
    slopes.zero_()
    W = vae.module_.decoder.path.weight.detach().double().numpy() * vae.scale_
    model = multivariate_normal(vae.shift_, W @ W.T + np.diag(vae.noise_variance_))
    bounds = [vae.score_samples(X[:300], n_importance_samples=n) for n in (1, 4096)]
    exact = model.logpdf(X[:300])
    assert (bounds[0] < exact + 1e-3).all()
    np.testing.assert_allclose(bounds[1], exact, atol=0.02)
    assert vae.score(X) > begun(2, X).score(X) + 0.1


def begun_continuous_bernoulli(n_components, X, **parameters):
    parameters = {name: value for name, value in START.items() if name != "noise"} | parameters
    return ContinuousBernoulliVAETransformer(n_components, **parameters).fit(X)


@pytest.mark.parametrize(
    "parameters", [{}, {"encoder": "conv", "hidden_layer_sizes": (16, 8), "dropout": 0.5}], ids=str
)
def test_the_continuous_bernoulli_model_begins_with_the_posterior_of_the_linear_model(parameters, digits):
    vae = begun_continuous_bernoulli(4, digits, **parameters)
    x = (digits - vae.shift_) / vae.scale_
    centered = x - x.mean(axis=0)
    variances, vectors = np.linalg.eigh(centered.T @ centered / len(x))
    noise = variances[:-4].mean()
    components = vectors[:, -4:].T * np.sqrt(variances[-4:, None] - noise)
    covariance = np.linalg.inv(np.eye(4) + components @ components.T / noise)
    mean, std = vae.posterior(digits)
    expected = centered @ components.T / noise @ covariance
    np.testing.assert_allclose(np.abs(mean[:, ::-1]), np.abs(expected), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(std[:, ::-1], np.sqrt(np.diag(covariance))[None].repeat(300, 0), rtol=1e-2)


def test_the_mean_of_the_continuous_bernoulli_model_begins_at_the_linear_one_in_the_middle_of_the_range():
    rng = np.random.default_rng(0)
    X = 0.5 + 0.01 * rng.normal(size=(800, 2)) @ rng.normal(size=(2, 9)) + 0.001 * rng.normal(size=(800, 9))
    vae, pca = begun_continuous_bernoulli(2, X, data_range=(0, 1), min_scale=1e-3), PCA(2).fit(X)
    expected = pca.inverse_transform(pca.transform(X))
    reconstructed = vae.inverse_transform(vae.transform(X))
    assert (np.abs(reconstructed - expected) < 3 * np.abs(expected - 0.5) ** 3 + 1e-4).all()
    # Elsewhere it bends, and stays within the range.
    far = vae.inverse_transform(1000 * vae.transform(X))
    assert 0 < far.min() < 0.05 < 0.95 < far.max() < 1


@pytest.mark.draws_globally
def test_logits_begin_at_random_as_the_decoder_puts_them_out(digits):
    """Where training does not begin at the linear model, the gain is 1."""
    for parameters in ({"init": "random"}, {"decoder": nn.Linear(4, 64)}):
        vae = begun_continuous_bernoulli(4, digits, encoder="dense", **parameters)
        r = vae.module_.decoder(torch.zeros(1, 4)).detach()
        mean = ContinuousBernoulli(logits=64 * torch.tanh(r / 64)).mean.numpy()
        np.testing.assert_allclose(vae.inverse_transform(np.zeros((1, 4))), 16 * mean, rtol=1e-5)


@pytest.mark.draws_globally
@pytest.mark.parametrize("role", ["encoder", "decoder"])
def test_modules_of_ones_own_have_no_path(estimator_class, role, digits):
    modules = {"encoder": nn.Linear(64, 6)} if role == "encoder" else {"decoder": nn.Linear(3, 64)}
    vae = make(estimator_class, **modules).fit(digits)
    assert getattr(vae.module_, "decoder" if role == "encoder" else "encoder").path is None
    same = make(estimator_class, **vae.get_params() | {"init": "random"}).fit(digits)
    assert bits(same, digits) == bits(vae, digits)


def test_networks_alone_have_no_path(estimator_class, digits):
    vae = make(estimator_class, init="random").fit(digits)
    assert vae.module_.encoder.path is vae.module_.decoder.path is None
    assert make(estimator_class).fit(digits).module_.encoder.path is not None


def test_training_goes_up_from_the_start(digits):
    trained = begun(5, digits, max_iter=30, learning_rate_init=2e-3)
    assert trained.score(digits) > begun(5, digits).score(digits) + 1


def test_a_warm_start_does_not_begin_anew(digits):
    vae = make(NormalVAETransformer, warm_start=True, noise="shared", prior="normal", max_iter=10).fit(digits)
    before, shift = vae.score(digits), vae.shift_
    vae.set_params(max_iter=1, learning_rate_init=1e-9).fit(digits[:100] + 1)
    assert vae.score(digits) == pytest.approx(before, rel=1e-4)
    np.testing.assert_array_equal(vae.shift_, shift)


def test_the_first_block_of_a_stream_is_what_it_begins_at():
    X = table()
    stream = NormalVAETransformer(3, **START).partial_fit(X[:100])
    assert_begins_at(stream, X[:100], log_density(3, X[:100]))
    # A later block does not begin anew.
    np.testing.assert_allclose(stream.partial_fit(X[100:]).score(X[:100]), log_density(3, X[:100]).mean(), rtol=1e-3)


@pytest.mark.parametrize("n_first", [1, 2, 4])
def test_a_first_block_of_fewer_rows_than_components(estimator_class, n_first, digits):
    """The directions that it has not are learned from later ones."""
    parameters = {} if estimator_class is NormalVAETransformer else {"data_range": (0, 16), "encoder": "dense"}
    stream = make(estimator_class, n_components=5, learning_rate_init=0.01, batch_size=16, **parameters)
    scores = [stream.partial_fit(block).score(digits) for block in (digits[:n_first], *[digits] * 15)]
    assert np.isfinite(scores).all()
    assert scores[-1] > scores[0]
    assert (stream.transform(digits).var(axis=0) > 0.01).sum() >= 3
