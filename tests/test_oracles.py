"""The bounds against what is known exactly."""

import numpy as np
import pytest
import scipy.stats
import torch
from sklearn.decomposition import PCA, FactorAnalysis
from torch import nn
from torch.distributions import Normal, kl_divergence

from skvae import ContinuousBernoulliVAETransformer, NormalVAETransformer
from skvae._data.rows import Batch, Rows, Units
from skvae._model import ops
from skvae._model.bounds import (
    ElboEstimate,
    LowerBound,
    balanced_groups,
    standard_normal_points,
    three_points,
    wide_points,
)
from skvae._model.networks import DenseNetwork
from skvae._model.noise import Noise
from skvae._model.vae import VAE
from skvae.likelihoods import ContinuousBernoulliLikelihood, Likelihood, NormalLikelihood

from conftest import make


def test_elbo_is_below_the_importance_bound_which_grows(estimator_class, digits):
    fitted = make(estimator_class, max_iter=100, batch_size=100).fit(digits)
    bounds = [fitted.score_samples(digits[:20], n_importance_samples=k) for k in (1, 2, 3, 4, 8, 100, 1000, 10**6)]
    np.testing.assert_array_equal(bounds[0], fitted.score_samples(digits[:20]))
    for smaller, larger in zip(bounds[1:], bounds[2:], strict=False):
        assert (larger >= smaller - 0.01).all()
    assert (bounds[1] > bounds[0] - 0.1).all()
    assert bounds[-1].mean() > bounds[0].mean() + 0.1


@pytest.mark.parametrize(
    ("estimator_class", "n_components", "parameters"),
    [
        (NormalVAETransformer, 3, {}),
        (NormalVAETransformer, 20, {}),
        (NormalVAETransformer, 3, {"noise": "shared"}),
        (ContinuousBernoulliVAETransformer, 3, {}),
        (ContinuousBernoulliVAETransformer, 20, {}),
    ],
)
def test_importance_bounds_are_those_of_independent_draws(estimator_class, n_components, parameters, digits):
    """The mean over rows is within 0.05 nats of that of Monte Carlo, single rows are within 0.2."""
    parameters = {"n_components": n_components, "max_iter": 60, "batch_size": 100, "encoder": "dense"} | parameters
    fitted = make(estimator_class, **parameters).fit(digits)
    vae = fitted.module_
    rows = Rows(digits[:20], vae.units, vae.device)
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        draws = torch.randn(40, 1000, n_components, generator=generator)
        log_weights = torch.cat([vae.log_weights(rows[:], block) for block in draws], dim=1).double()
    log_weights = log_weights - vae.units.log_volume(64)
    for k in (2, 5, 16, 100):
        groups = log_weights[:, : 40_000 // k * k].unflatten(1, (-1, k)).logsumexp(2) - np.log(k)
        difference = fitted.score_samples(digits[:20], n_importance_samples=k) - groups.mean(1).numpy()
        noise = groups.std(1).numpy() / np.sqrt(groups.shape[1])
        assert abs(difference.mean()) < 0.05 + 3 * noise.mean() / np.sqrt(20)
        assert (abs(difference) < 0.2 + 4 * noise).all()


def test_importance_bound_of_a_density_that_is_known():
    """A linear model with one component and a posterior that is too narrow, by quadrature."""
    encoder, decoder = DenseNetwork(1, (), 2, 0.0), DenseNetwork(1, (), 2, 0.0)
    with torch.no_grad():
        for network, weight, bias in ((encoder, [[0.4], [0.0]], [0.0, -1.2]), (decoder, [[1.0], [0.0]], [0.0, 0.0])):
            network.initialize(torch.Generator())
            network.layers[0].weight.copy_(torch.tensor(weight))
            network.layers[0].bias.copy_(torch.tensor(bias))
    sizes = {"n_features": 1, "n_components": 1, "posterior_scale": "log_variance"}
    vae = VAE(encoder, decoder, NormalLikelihood(0.5, 1, noise="network"), Units(0.0, 1.0), **sizes)
    X = np.linspace(-3, 3, 7)[:, None]
    rows = Rows(X, vae.units, torch.device("cpu"))
    scale = 0.5 + np.log(2)
    exact = scipy.stats.norm(0, np.sqrt(1 + scale**2)).logpdf(X[:, 0])
    nodes, weights = np.polynomial.hermite_e.hermegauss(200)
    with torch.inference_mode():
        log_weights = vae.log_weights(rows[:], torch.tensor(nodes[:, None], dtype=torch.float32)).double().numpy()
    elbo = log_weights @ weights / weights.sum()
    np.testing.assert_allclose(LowerBound(vae, 1)(rows), elbo, atol=1e-3)
    pairs = np.logaddexp(log_weights[:, :, None], log_weights[:, None, :]) - np.log(2)
    two = np.einsum("rij,i,j->r", pairs, weights, weights) / weights.sum() ** 2
    np.testing.assert_allclose(LowerBound(vae, 2)(rows), two, atol=0.02)
    limit = LowerBound(vae, 10**9)(rows)
    np.testing.assert_allclose(limit, exact, atol=0.05)


def test_wide_points_stand_for_the_standard_normal_distribution():
    for n_components in (1, 5, 60):
        points, probabilities = wide_points(4096, n_components)
        points = points.double()
        assert float(probabilities.sum()) == pytest.approx(1)
        assert torch.allclose(probabilities @ points, torch.zeros(n_components, dtype=torch.float64), atol=1e-6)
        covariance = (points.T * probabilities) @ points
        assert torch.allclose(covariance, torch.eye(n_components, dtype=torch.float64), atol=1e-5)
        assert float((probabilities * points[:, 0] ** 4).sum()) == pytest.approx(3, rel=0.1)


@pytest.mark.parametrize("size", [1, 3, 1000, 10**9])
def test_groups_are_balanced(size):
    probabilities = torch.tensor([0.5, 0.25, 0.125, 0.125], dtype=torch.float64)
    groups = balanced_groups(probabilities, size)
    assert groups.shape[1] == min(size, 1 << 16)
    shares = torch.bincount(groups.flatten(), minlength=4) / groups.numel()
    assert torch.allclose(shares.double(), probabilities, atol=1e-3 if size > 1 else 1e-6)


def test_three_points_have_the_moments_of_a_distribution():
    values = torch.rand(50, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64) ** torch.arange(1, 7)
    values[:, 5] = values[0, 5]  # one that does not vary
    mean = values.mean(0)
    central = [(values - mean).pow(order).mean(0) for order in (2, 3, 4)]
    points, weights = (torch.stack(parts) for parts in three_points(mean, *central))
    assert (weights >= 0).all()
    assert torch.allclose(weights.sum(0), torch.ones(6, dtype=torch.float64))
    assert torch.allclose((weights * points).sum(0), mean)
    for order, moment in zip((2, 3, 4), central, strict=True):
        assert torch.allclose((weights * (points - mean) ** order).sum(0), moment, atol=1e-12)


@pytest.mark.parametrize("third", [0.0, 1e30, float("inf"), float("nan")])
def test_three_points_are_finite_whatever_rounding_makes_of_the_moments(third):
    for second in (0.0, -1e-9, 1e-30, 1.0):
        moments = (torch.tensor(value, dtype=torch.float32) for value in (1.0, second, third, third))
        points, weights = (torch.stack(parts) for parts in three_points(*moments))
        assert points.isfinite().all()
        assert weights.isfinite().all()
        assert float(weights.sum()) == pytest.approx(1)


def decoder_of(n_features, hidden_layer_sizes):
    decoder = DenseNetwork(3, hidden_layer_sizes, n_features, 0.0, n_features)
    decoder.initialize(torch.Generator().manual_seed(0))
    return decoder


@pytest.mark.parametrize("n_features", [6, 301])
@pytest.mark.parametrize("hidden_layer_sizes", [(), (16,)])
@pytest.mark.parametrize("likelihood_class", [NormalLikelihood, ContinuousBernoulliLikelihood])
def test_elbo_by_moments_is_the_mean_over_all_points(likelihood_class, hidden_layer_sizes, n_features):
    """Of many features the moments come from half of the points, which is exact for a linear decoder."""
    is_normal = likelihood_class is NormalLikelihood
    likelihood = NormalLikelihood(0.5, n_features) if is_normal else ContinuousBernoulliLikelihood()
    encoder = DenseNetwork(n_features, (), 6, 0.0)
    encoder.initialize(torch.Generator().manual_seed(1))
    sizes = {"n_features": n_features, "n_components": 3, "posterior_scale": "log_variance"}
    vae = VAE(encoder, decoder_of(n_features, hidden_layer_sizes), likelihood, Units(0.0, 1.0), **sizes)
    X = np.random.RandomState(0).rand(40, n_features).astype(np.float32)
    rows = Rows(X, vae.units, vae.device)
    with torch.inference_mode():
        expected = vae.log_weights(rows[:], standard_normal_points(32, 3)).double().mean(1).numpy()
    difference = LowerBound(vae, 1)(rows) - expected
    is_exact = is_normal and (n_features == 6 or not hidden_layer_sizes)
    assert abs(difference).max() < (1e-3 if is_exact else 0.3)
    assert abs(difference.mean()) < (1e-3 if is_exact else 0.1)


def test_the_estimate_of_a_mean_elbo(estimator_class, digits):
    """It agrees with the scores within its standard error, and does not depend on how rows are divided."""
    fitted = make(estimator_class, max_iter=30, batch_size=50).fit(digits)
    vae = fitted.module_
    rows, n_rows = Rows(digits, vae.units, vae.device), len(digits)
    estimate = ElboEstimate(vae, n_rows)
    total = estimate.total(rows, 0)
    assert total == estimate.total(rows, 0)
    parts = estimate.total(rows.between(0, 100), 0) + estimate.total(rows.between(100, n_rows), 100)
    assert parts == pytest.approx(total, rel=1e-6)
    with torch.inference_mode():
        points = standard_normal_points(6, vae.n_components)
        weights = vae.log_weights(rows[:], torch.stack([points] * n_rows))
        assert torch.allclose(weights, vae.log_weights(rows[:], points))
    with torch.inference_mode():
        draws = torch.randn(40, vae.n_components, generator=torch.Generator().manual_seed(0))
        spread = float(vae.log_weights(rows[:], draws).std(1).mean())
    # Each row has four points or more, and mirrored pairs have less error than as many independent points.
    assert total / n_rows == pytest.approx(fitted.score(digits), abs=4 * spread / np.sqrt(4 * n_rows))


@pytest.mark.parametrize("prior", ["normal", "mixture"])
def test_elbo_agrees_with_expectations_over_many_draws(estimator_class, prior, digits):
    """The KL term, in closed form for N(0, I), and the expected log likelihood over independent draws."""
    fitted = make(estimator_class, prior=prior).fit(digits)
    assert (fitted.prior_ is None) == (prior == "normal")
    module = fitted.module_
    x = torch.from_numpy((digits - fitted.shift_) / fitted.scale_).float()
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        mean, std = module.posterior(Batch(x))
        draws = [mean + std * torch.randn(mean.shape, generator=generator) for _ in range(2000)]
        log_likelihoods = torch.stack([module.likelihood.log_prob(x, module.decoder(z)).sum(1).mean() for z in draws])
        if fitted.prior_ is None:
            kl = kl_divergence(Normal(mean, std), Normal(0.0, 1.0)).sum(1).mean()
        else:
            log_priors = [fitted.prior_.score_samples(z.double().numpy()).mean() for z in draws[:200]]
            kl = -Normal(mean, std).entropy().sum(1).mean() - np.mean(log_priors)
        elbo = float(log_likelihoods.mean() - kl) - 64 * np.log(fitted.scale_)
    # What is left is the part of the expectation that is not quadratic.
    assert fitted.score(digits) == pytest.approx(elbo, abs=0.03)


def test_scores_are_deterministic_and_independent_per_row(fitted, digits):
    rows = digits[:30]
    for n in (1, 5):
        scores = fitted.score_samples(rows, n_importance_samples=n)
        assert scores.tobytes() == fitted.score_samples(rows, n_importance_samples=n).tobytes()
        np.testing.assert_allclose(fitted.score_samples(digits[7:9], n_importance_samples=n), scores[7:9], rtol=1e-5)


@pytest.mark.parametrize(("n_points", "n_components"), [(16, 1), (16, 3), (40, 20), (128, 64), (1000, 5)])
def test_points_have_the_moments_of_a_standard_normal(n_points, n_components):
    points = standard_normal_points(n_points, n_components).double()
    assert points.shape == (n_points, n_components)
    assert torch.allclose(points.mean(0), torch.zeros(n_components, dtype=torch.float64), atol=1e-6)
    covariance = points.T @ points / n_points
    assert torch.allclose(covariance, torch.eye(n_components, dtype=torch.float64), atol=1e-5)
    assert torch.equal(points, standard_normal_points(n_points, n_components).double())


def test_few_points_have_unit_variances():
    points = standard_normal_points(16, 40).double()
    assert torch.allclose(points.square().mean(0), torch.ones(40, dtype=torch.float64), atol=1e-5)


def test_many_points_follow_the_normal_distribution():
    points = standard_normal_points(4096, 2).double()
    uniform = torch.special.ndtr(points).sort(dim=0).values
    expected = (torch.arange(4096, dtype=torch.float64) + 0.5) / 4096
    assert float((uniform - expected[:, None]).abs().max()) < 0.01


@pytest.mark.parametrize("posterior_scale", ["log_variance", "softplus"])
def test_draw_and_divergence_against_torch(posterior_scale):
    mean, raw = torch.tensor([[0.3, -2.0, 0.0]]), torch.tensor([[-4.6, 2.2, 0.0]])
    points = torch.tensor([[1.0, -2.0, 0.5]])
    std = (raw / 2).exp() if posterior_scale == "log_variance" else nn.functional.softplus(raw) + 1e-6
    z, kl = ops.draw(torch.cat([mean, raw], dim=1), points, posterior_scale)
    assert torch.allclose(z, mean + std * points)
    assert torch.allclose(kl, kl_divergence(Normal(mean, std), Normal(0.0, 1.0)).sum())


def test_densities_against_torch():
    generator = torch.Generator().manual_seed(0)
    x, parameters = (torch.randn(5, n, generator=generator) for n in (3, 6))
    location, raw = parameters.chunk(2, dim=1)
    likelihood = NormalLikelihood(0.2, 3, noise="network")
    scale = 0.2 + torch.nn.functional.softplus(raw)
    assert torch.allclose(likelihood.log_prob(x, parameters), Normal(location, scale).log_prob(x))
    assert torch.equal(likelihood.mean(parameters), location)


@pytest.mark.parametrize(
    "likelihood",
    [NormalLikelihood(0.1, 1, noise=noise) for noise in ("feature", "shared", "network")]
    + [ContinuousBernoulliLikelihood()],
    ids=["feature", "shared", "network", "continuous Bernoulli"],
)
@torch.no_grad()
def test_density_mean_and_samples_of_a_likelihood_belong_together(likelihood):
    """The density integrates to one, and the draws have its mean."""
    parameters = torch.tensor([1.7, -0.4][: likelihood.n_parameters])
    is_normal = isinstance(likelihood, NormalLikelihood)
    x = torch.linspace(-20, 20, 400001) if is_normal else torch.linspace(0, 1, 100001)
    density = likelihood.log_prob(x[:, None], parameters)[:, 0].double().exp()
    x = x.double()
    assert float(torch.trapezoid(density, x)) == pytest.approx(1, abs=1e-3)
    mean = float(torch.trapezoid(density * x, x))
    assert float(likelihood.mean(parameters)) == pytest.approx(mean, abs=1e-3)
    draws = likelihood.sample(parameters.expand(40000, -1), torch.Generator().manual_seed(0))
    spread = float(torch.trapezoid(density * (x - mean) ** 2, x)) ** 0.5
    assert float(draws.mean()) == pytest.approx(mean, abs=5 * spread / 200)
    assert float(draws.std()) == pytest.approx(spread, rel=0.03)


NORMAL = [NormalLikelihood(0.1, 6, noise=noise) for noise in ("feature", "shared", "network")]


def vae_with(likelihood, posterior_scale="softplus"):
    generator = torch.Generator().manual_seed(0)
    encoder = DenseNetwork(6, (8,), 4, 0.0)
    decoder = DenseNetwork(2, (8,), likelihood.n_parameters * 6, 0.0)
    for network in (encoder, decoder):
        network.initialize(generator)
    sizes = {"n_features": 6, "n_components": 2}
    return VAE(encoder, decoder, likelihood, Units(0.0, 1.0), **sizes, posterior_scale=posterior_scale)


def uniform_rows(n_rows):
    return torch.rand(n_rows, 6, generator=torch.Generator().manual_seed(1))


def noise(seed=2):
    return Noise(torch.device("cpu"), seed)


class OtherNormal(Likelihood):
    """A normal likelihood with a scale of one, as a user would write it."""

    def log_prob(self, x, parameters):
        return Normal(parameters, 1.0).log_prob(x)


def gradients_of(vae, terms, beta):
    return torch.autograd.grad(beta * terms.kl - terms.log_likelihood, list(vae.parameters()), retain_graph=True)


@pytest.mark.parametrize("beta", [1.0, 0.3])
@pytest.mark.parametrize("posterior_scale", ["softplus", "log_variance"])
@pytest.mark.parametrize("likelihood", [*NORMAL, ContinuousBernoulliLikelihood(), OtherNormal()])
def test_gradient_against_plain_terms(likelihood, posterior_scale, beta):
    vae = vae_with(likelihood, posterior_scale)
    x = uniform_rows(32)
    terms = vae.terms(Batch(x), noise())
    mean, std = vae.posterior(Batch(x))
    z = mean + std * noise().normal(mean.shape)
    log_likelihood = likelihood.log_prob(x, vae.decoder(z)).sum()
    kl = kl_divergence(Normal(mean, std), Normal(0.0, 1.0)).sum()
    assert float(terms.log_likelihood.detach()) == pytest.approx(float(log_likelihood.detach()), rel=1e-5)
    assert float(terms.kl.detach()) == pytest.approx(float(kl.detach()), rel=1e-5)
    expected = torch.autograd.grad(beta * kl - log_likelihood, list(vae.parameters()))
    names = dict(vae.named_parameters())
    for name, gradient, reference in zip(names, gradients_of(vae, terms, beta), expected, strict=True):
        assert reference.abs().sum() > 0, name
        assert torch.allclose(gradient, reference, rtol=1e-4, atol=3e-5), name


@pytest.mark.parametrize("likelihood", [*NORMAL, ContinuousBernoulliLikelihood()])
def test_entries_that_are_not_observed_have_no_part_in_the_likelihood(likelihood):
    vae = vae_with(likelihood)
    x = uniform_rows(32)
    observed = torch.rand(x.shape, generator=torch.Generator().manual_seed(3)) < 0.7
    terms = vae.terms(Batch(x, observed), noise())
    mean, std = vae.posterior(Batch(x))
    entries = likelihood.log_prob(x, vae.decoder(mean + std * noise().normal(mean.shape)))
    assert float(terms.log_likelihood.detach()) == pytest.approx(float(entries[observed].sum().detach()), rel=1e-5)
    assert torch.allclose(terms.kl, vae.terms(Batch(x), noise()).kl)
    points = standard_normal_points(16, 2)
    with torch.no_grad():
        whole, part = (vae.log_weights(Batch(x, mask), points) for mask in (None, observed))
        z = mean[:, None] + std[:, None] * points
        parameters = vae.decoder(z.flatten(0, 1)).unflatten(0, z.shape[:2])
        missing = (likelihood.log_prob(x[:, None], parameters) * ~observed[:, None]).sum(2)
    assert torch.allclose(part, whole - missing, atol=1e-4)


def test_a_collapsed_posterior_keeps_a_finite_gradient():
    vae = vae_with(NormalLikelihood(0.1, 6), "log_variance")
    torch.nn.init.constant_(vae.encoder.layers[-1].bias, -190.0)
    terms = vae.terms(Batch(uniform_rows(5)), noise())
    for beta in (0.0, 1.0):
        assert all(gradient.isfinite().all() for gradient in gradients_of(vae, terms, beta))


def test_kl_is_positive_and_reaches_the_encoder_alone():
    vae = vae_with(NormalLikelihood(0.1, 6))
    kl = vae.terms(Batch(uniform_rows(32)), noise()).kl
    assert kl > 0
    kl.backward()
    assert all(p.grad.abs().sum() > 0 for p in vae.encoder.parameters())
    assert not any(p.grad.any() for p in vae.decoder.parameters() if p.grad is not None)


def test_training_objective_is_unbiased_for_the_elbo():
    """The mean of the one-draw objective over many seeds is the ELBO over many points."""
    vae = vae_with(NormalLikelihood(0.1, 6))
    batch = Batch(uniform_rows(64))
    with torch.no_grad():
        terms = [vae.terms(batch, noise(seed)) for seed in range(400)]
        losses = torch.stack([term.kl - term.log_likelihood for term in terms]) / len(batch)
        elbo = vae.log_weights(batch, standard_normal_points(4096, 2)).mean()
    assert float(losses.mean()) == pytest.approx(-float(elbo), abs=5 * float(losses.std()) / 20)


class LinearDecoder(nn.Module):
    """A linear map with one scale for all features: probabilistic PCA; or one for each: factor analysis."""

    def __init__(self, n_components, n_features, n_scales):
        super().__init__()
        self.mean = nn.utils.skip_init(nn.Linear, n_components, n_features)
        nn.init.zeros_(self.mean.bias)
        nn.init.normal_(self.mean.weight, std=0.1, generator=torch.Generator().manual_seed(0))
        self.raw_scale = nn.Parameter(torch.zeros(n_scales))

    def forward(self, z):
        mean = self.mean(z)
        return torch.cat([mean, self.raw_scale.expand_as(mean)], dim=-1)


@pytest.mark.parametrize("model", ["probabilistic PCA", "factor analysis"])
def test_a_linear_model_approaches_the_exact_likelihood_from_below(model):
    """The ELBO of a linear-Gaussian VAE reaches the maximum likelihood of the model it contains.

    Lucas et al., "Don't blame the ELBO!", NeurIPS 2019: the optimal encoder of probabilistic PCA is linear.
    """
    rng = np.random.RandomState(0)
    noise = 0.5 if model == "probabilistic PCA" else rng.uniform(0.3, 0.8, size=8)
    X = rng.randn(600, 2) @ rng.randn(2, 8) + noise * rng.randn(600, 8) + 3
    exact = (PCA(2) if model == "probabilistic PCA" else FactorAnalysis(2, tol=1e-8, max_iter=5000)).fit(X).score(X)
    vae = NormalVAETransformer(
        2,
        encoder="dense",
        hidden_layer_sizes=(),
        decoder=LinearDecoder(2, 8, 1 if model == "probabilistic PCA" else 8),
        noise="network",
        prior="normal",
        min_scale=1e-3,
        learning_rate="constant",
        learning_rate_init=0.01,
        batch_size=200,
        max_iter=250,
        random_state=0,
    ).fit(X)
    vae.set_params(learning_rate_init=1e-3, batch_size=600, warm_start=True, max_iter=200).fit(X)
    elbo = vae.score(X)
    bound = vae.score_samples(X, n_importance_samples=256).mean(dtype=float)
    assert elbo < exact + 1e-3
    assert bound < exact + 1e-3
    assert elbo > exact - 0.01 * abs(exact)
    assert bound > exact - 0.005 * abs(exact)


def test_more_training_and_more_components_raise_the_elbo(estimator_class, digits):
    short, long = (make(estimator_class, max_iter=n).fit(digits).score(digits) for n in (3, 40))
    assert long > short
