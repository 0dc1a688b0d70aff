"""The mixture that takes the place of N(0, I) when training has ended."""

import copy
import io
import math
import pickle

import joblib
import numpy as np
import pytest
import sklearn
import skops.io
import torch
from scipy.special import logsumexp
from scipy.stats import norm
from sklearn.mixture import GaussianMixture
from torch import nn

from skvae import TRUSTED_TYPES, ContinuousBernoulliVAETransformer, NormalVAETransformer
from skvae._model import mixture as mixtures
from skvae._model.mixture import fit_mixture
from skvae._model.prior import draw_from_prior, expected_log_prior, log_prior

from conftest import Identity, bits, make


def mixture():
    """Return a mixture of three components in two dimensions, each of another shape."""
    model = GaussianMixture(3)
    model.weights_ = np.array([0.5, 0.3, 0.2])
    model.means_ = np.array([[2.0, 0.0], [-3.0, 1.0], [0.0, -1.0]])
    roots = np.array([[[1.0, 0.0], [0.5, 0.3]], [[0.2, 0.0], [0.0, 1.5]], [[0.7, 0.0], [-0.6, 0.4]]])
    model.covariances_ = roots @ roots.transpose(0, 2, 1)
    model.precisions_cholesky_ = np.linalg.inv(np.linalg.cholesky(model.covariances_)).transpose(0, 2, 1)
    return model


def moments(model):
    """Return mean and covariance of a mixture."""
    mean = model.weights_ @ model.means_
    off = model.means_ - mean
    covariance = np.einsum("k,kij->ij", model.weights_, model.covariances_ + off[:, :, None] * off[:, None, :])
    return mean, covariance


def clusters(n_rows=600, n_features=6, seed=0, centers=((0, 4), (4, -2), (-4, -2))):
    """Return rows around a few points of a plane."""
    rng = np.random.default_rng(seed)
    plane = np.array(centers, float)[rng.integers(len(centers), size=n_rows)] + 0.3 * rng.normal(size=(n_rows, 2))
    loadings = np.random.default_rng(99).normal(size=(2, n_features))
    return plane @ loadings + 0.3 * rng.normal(size=(n_rows, n_features))


QUICK = {"n_components": 2, "hidden_layer_sizes": 32, "batch_size": 50, "max_iter": 20, "random_state": 0}


def fitted_to(X, **parameters):
    return NormalVAETransformer(**QUICK | parameters).fit(X)


def test_log_density_is_that_of_scikit_learn():
    z = 4 * torch.randn(5, 7, 2, generator=torch.Generator().manual_seed(0))
    expected = mixture().score_samples(z.reshape(-1, 2).numpy()).reshape(5, 7)
    np.testing.assert_allclose(log_prior(mixture(), z).numpy(), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(log_prior(None, z).numpy(), norm.logpdf(z.numpy()).sum(axis=2), rtol=1e-5)


@pytest.mark.parametrize("prior", [None, mixture()], ids=["normal", "mixture"])
def test_expected_log_density_is_the_mean_over_mirrored_points(prior):
    generator = torch.Generator().manual_seed(0)
    mean, std = 3 * torch.randn(50, 2, generator=generator), torch.rand(50, 2, generator=generator)
    mean[0] = 1e4  # a row that is far away
    half = math.sqrt(10) * torch.linalg.qr(torch.randn(10, 2, generator=generator)).Q
    z = mean[:, None] + std[:, None] * torch.cat([half, -half])
    points = z.double().flatten(0, 1).numpy()
    expected = norm.logpdf(points).sum(1) if prior is None else prior.score_samples(points)
    expected = expected.reshape(50, 20).mean(1)
    np.testing.assert_allclose(
        expected_log_prior(prior, mean, std, std[:, None] * half).numpy(), expected, rtol=1e-5, atol=1e-5
    )


def test_draws_have_the_moments_of_the_mixture():
    n = 200_000
    draws = draw_from_prior(mixture(), n, 2, torch.Generator().manual_seed(0))
    assert draws.dtype == np.float32
    mean, covariance = moments(mixture())
    np.testing.assert_allclose(draws.mean(axis=0), mean, atol=0.03)
    np.testing.assert_allclose(np.cov(draws.T), covariance, atol=0.06)
    # And its log density, on the average.
    own = mixture()
    own.converged_ = True
    entropy = -own.score(draws[:5000])
    grid = np.stack(np.meshgrid(np.linspace(-9, 9, 721), np.linspace(-9, 9, 721)), axis=-1).reshape(-1, 2)
    density = np.exp(own.score_samples(grid))
    assert density.sum() * 0.025**2 == pytest.approx(1, abs=1e-4)
    assert entropy == pytest.approx(-(density * np.log(density)).sum() * 0.025**2, abs=0.06)


def test_draws_of_the_standard_normal_distribution():
    draws = draw_from_prior(None, 100_000, 3, torch.Generator().manual_seed(0))
    np.testing.assert_allclose(np.cov(draws.T), np.eye(3), atol=0.02)


def test_a_mixture_is_fitted_where_there_is_one():
    z = draw_from_prior(mixture(), 4000, 2, torch.Generator().manual_seed(0))
    later = draw_from_prior(mixture(), 4000, 2, torch.Generator().manual_seed(1))
    found = fit_mixture(z, 0)
    assert found.n_components >= 3
    assert found.score(later) == pytest.approx(mixture().score(later), abs=0.05)
    again = fit_mixture(z, 0)
    np.testing.assert_array_equal(found.means_, again.means_)
    np.testing.assert_array_equal(found.covariances_, again.covariances_)


def test_the_mixture_is_that_of_scikit_learn_from_the_same_start(monkeypatch):
    z = draw_from_prior(mixture(), 4000, 2, torch.Generator().manual_seed(0))
    fitted = []
    first = mixtures._first_components
    monkeypatch.setattr(mixtures, "_SIZES", (3,))
    monkeypatch.setattr(mixtures, "_first_components", lambda z, *k: fitted.extend([z, start := first(z, *k)]) or start)
    found = fit_mixture(z, 0)
    rows, (weights, means, covariances) = fitted
    expected = GaussianMixture(
        3,
        tol=found.tol,
        reg_covar=found.reg_covar,
        max_iter=found.max_iter,
        weights_init=weights.double().numpy() / weights.double().sum().numpy(),
        means_init=means.numpy(),
        precisions_init=np.linalg.inv(covariances.double().numpy()),
    ).fit(rows.double().numpy())
    assert found.n_iter_ == expected.n_iter_
    assert found.converged_
    np.testing.assert_allclose(found.lower_bounds_, expected.lower_bounds_, rtol=1e-4, atol=1e-4)
    for name in ("weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=2e-3, atol=2e-3, err_msg=name)
    assert vars(found).keys() == vars(expected).keys()


def test_a_row_far_away_does_not_keep_a_mixture_from_its_end():
    z = draw_from_prior(mixture(), 500, 2, torch.Generator().manual_seed(0))
    z[7] = 1e18
    assert fit_mixture(z, 0) is None


@pytest.mark.parametrize("seed", range(3))
def test_draws_from_the_standard_normal_distribution_stay_near_it(seed):
    z = np.random.RandomState(seed).standard_normal((2000, 4)).astype(np.float32)
    later = np.random.RandomState(9).standard_normal((4000, 4)).astype(np.float32)
    found = fit_mixture(z, seed)
    if found is not None:
        assert found.score(later) > norm.logpdf(later).sum(axis=1).mean() - 0.02


@pytest.mark.parametrize("n_rows", [0, 1, 2, 5, 9])
def test_too_few_rows_for_a_mixture(n_rows):
    z = np.random.RandomState(0).standard_normal((n_rows, 5)).astype(np.float32)
    assert fit_mixture(z, 0) is None


def test_a_mixture_raises_the_density_of_clustered_data():
    X, later = clusters(), clusters(seed=1)
    normal, mixed = fitted_to(X, prior="normal"), fitted_to(X)
    assert normal.prior_ is None
    assert mixed.prior_.n_components > 1
    # The networks are the same.
    np.testing.assert_array_equal(mixed.transform(later), normal.transform(later))
    np.testing.assert_array_equal(mixed.noise_variance_, normal.noise_variance_)
    for n in (1, 64):
        gain = mixed.score_samples(later, n_importance_samples=n) - normal.score_samples(later, n_importance_samples=n)
        assert gain.mean() > 0.5


@pytest.mark.parametrize("noise", ["shared", "feature", "network"])
def test_the_bounds_are_below_the_log_density(noise):
    """With one component the density is an integral over a line."""
    X = clusters(centers=((0, 0), (5, 1), (-5, -1)))
    vae = fitted_to(X, n_components=1, noise=noise, max_iter=60)
    assert vae.prior_.n_components > 1
    z = np.linspace(-12, 12, 40_001)
    rows = torch.from_numpy((X[:25] - vae.shift_) / vae.scale_)
    with torch.inference_mode():
        parameters = vae.module_.decoder(torch.from_numpy(z[:, None]).float()).double()
        log_likelihoods = np.stack(
            [torch.distributions.Normal(*_location_and_scale(vae, parameters)).log_prob(x).sum(1).numpy() for x in rows]
        )
    log_joint = log_likelihoods + vae.prior_.score_samples(z[:, None])
    exact = logsumexp(log_joint, axis=1) + np.log(z[1] - z[0]) - 6 * np.log(vae.scale_)
    elbo, few, many = (vae.score_samples(X[:25], n_importance_samples=n) for n in (1, 4, 4096))
    assert (elbo <= few + 0.1).all()
    assert elbo.mean() <= few.mean() + 1e-3 <= many.mean() + 2e-3
    assert (many <= exact + 0.02).all()
    np.testing.assert_allclose(many, exact, atol=0.1)


def _location_and_scale(vae, parameters):
    if vae.noise == "network":
        location, raw = parameters.chunk(2, dim=1)
        return location, vae.min_scale + nn.functional.softplus(raw)
    if vae.noise == "feature":
        likelihood = vae.module_.likelihood
        raw = likelihood.level + likelihood.offsets + likelihood.slopes * parameters
        return parameters, vae.min_scale + nn.functional.softplus(raw.detach().double())
    return parameters, torch.from_numpy(np.sqrt(np.broadcast_to(vae.noise_variance_, 6)) / vae.scale_)


def test_samples_follow_the_mixture():
    X = clusters(n_features=2)
    vae = NormalVAETransformer(2, decoder=Identity(), max_iter=100, random_state=0).fit(X)
    assert vae.prior_.n_components > 1
    Z = (vae.sample(40_000, random_state=0) - vae.shift_) / vae.scale_
    mean, covariance = moments(vae.prior_)
    np.testing.assert_allclose(Z.mean(axis=0), mean, atol=0.03)
    np.testing.assert_allclose(np.cov(Z.T), covariance, atol=0.05)
    # Each cluster has its share, as with N(0, I) none has.
    shares = np.bincount(vae.prior_.predict(Z), minlength=len(vae.prior_.weights_)) / len(Z)
    np.testing.assert_allclose(shares, vae.prior_.weights_, atol=0.05)


def test_samples_are_nearer_to_the_data():
    X = clusters(n_rows=900)
    distances = {}
    for prior in ("normal", "mixture"):
        samples = fitted_to(X, prior=prior).sample(500, random_state=0)
        distances[prior] = np.sqrt(np.square(samples[:, None] - X[None, ::3]).sum(axis=2)).min(axis=1).mean()
    assert distances["mixture"] < 0.7 * distances["normal"]


COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda vae: pickle.loads(pickle.dumps(vae)),
    "joblib": lambda vae: joblib_copy(vae),
    "skops": lambda vae: skops.io.loads(skops.io.dumps(vae), trusted=TRUSTED_TYPES),
}


def joblib_copy(vae):
    file = io.BytesIO()
    joblib.dump(vae, file)
    file.seek(0)
    return joblib.load(file)


@pytest.mark.parametrize("form", COPIES)
def test_a_copy_has_the_prior(estimator_class, form, digits):
    vae = make(estimator_class, prior="mixture").fit(digits)
    copied = COPIES[form](vae)
    assert copied.module_.prior is copied.prior_ is not vae.prior_
    np.testing.assert_array_equal(copied.prior_.means_, vae.prior_.means_)
    np.testing.assert_array_equal(copied.prior_.covariances_, vae.prior_.covariances_)
    assert bits(copied, digits) == bits(vae, digits)


def test_a_prior_of_another_size_is_damage(digits):
    vae = make(NormalVAETransformer, prior="mixture").fit(digits)
    vae.module_.prior = mixture()
    with pytest.raises(ValueError, match="The file is damaged: .*prior has no means_ of shape"):
        pickle.loads(pickle.dumps(vae))


@pytest.mark.parametrize("name", ["weights_", "means_", "covariances_", "precisions_cholesky_"])
def test_a_prior_that_lacks_something_is_damage(digits, name):
    vae = make(NormalVAETransformer, prior="mixture").fit(digits)
    setattr(vae.prior_, name, getattr(vae.prior_, name) * np.nan)
    with pytest.raises(ValueError, match=f"The file is damaged: .*prior has no {name}"):
        pickle.loads(pickle.dumps(vae))


def test_what_is_trained_on_has_the_standard_normal_prior_again(estimator_class, digits):
    parameters = {"data_range": (0, 16)} if estimator_class is ContinuousBernoulliVAETransformer else {}
    vae = make(estimator_class, prior="mixture", warm_start=True, **parameters).fit(digits)
    first = vae.prior_
    assert first is not None
    assert vae.partial_fit(digits).prior_ is None
    assert vae.score(digits) < vae.fit(digits).score(digits)
    assert vae.prior_ is not None
    assert vae.prior_ is not first
    assert vae.set_params(prior="normal").fit(digits).prior_ is None


def test_the_prior_is_not_there_before_a_fit(estimator_class):
    assert not hasattr(estimator_class(), "prior_")


def test_a_row_far_away(digits):
    X = digits.copy()
    X[7, 3] = 1e6
    with pytest.warns(UserWarning, match="An entry of column 3 of X is"):
        vae = make(NormalVAETransformer, prior="mixture", max_iter=10).fit(X)
    assert np.isfinite(vae.score_samples(X)).all()
    assert np.isfinite(vae.sample(100, random_state=0)).all()


def test_no_seed_of_the_prior_is_shared_with_the_networks(digits):
    """The draws that it is fitted to change no weight."""
    with_it, without = (make(NormalVAETransformer, prior=prior).fit(digits) for prior in ("mixture", "normal"))
    assert with_it.history_ == without.history_
    for name, value in without.module_.state_dict().items():
        assert torch.equal(with_it.module_.state_dict()[name], value)


def test_array_api_dispatch_has_no_part_in_it(digits):
    expected = bits(make(NormalVAETransformer, prior="mixture").fit(digits), digits)
    with sklearn.config_context(array_api_dispatch=True):
        assert bits(make(NormalVAETransformer, prior="mixture").fit(digits), digits) == expected
