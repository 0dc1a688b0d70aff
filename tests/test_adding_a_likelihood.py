"""The page that adds a likelihood: its code runs, and what it makes is right."""

import copy
import math
import pickle
import re
import sys
import types
from pathlib import Path

import cloudpickle
import numpy as np
import pytest
import torch
from sklearn.utils.estimator_checks import check_estimator

from skvae import NormalVAETransformer
from skvae.likelihoods import Likelihood

from conftest import bits

PAGE = Path(__file__).parents[1] / "docs" / "adding_a_likelihood.md"


@pytest.fixture(scope="module")
def page():
    """The names that the page's code defines, in a module of their own so that they can be pickled."""
    module = sys.modules["likelihood_page"] = types.ModuleType("likelihood_page")
    for block in re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.S | re.M):
        exec(block, vars(module))
    yield vars(module)
    del sys.modules["likelihood_page"]


def test_density_integrates_to_one_and_draws_belong_to_it(page):
    likelihood = page["LaplaceLikelihood"](0.1)
    parameters = torch.tensor([0.7, -0.2])
    x = torch.linspace(-30, 30, 600001)
    density = likelihood.log_prob(x[:, None], parameters)[:, 0].exp().double()
    assert float(torch.trapezoid(density, x.double())) == pytest.approx(1, abs=1e-3)
    draws = likelihood.sample(parameters.expand(40000, -1), torch.Generator().manual_seed(0))
    spread = float(torch.trapezoid(density * (x.double() - 0.7) ** 2, x.double())) ** 0.5
    assert float(draws.mean()) == pytest.approx(0.7, abs=5 * spread / 200)
    assert float(draws.std()) == pytest.approx(spread, rel=0.05)


@pytest.mark.draws_globally
def test_the_estimator_passes_every_check(page):
    check_estimator(page["LaplaceVAETransformer"](2, hidden_layer_sizes=4, max_iter=3))


def test_the_estimator_learns(page, digits):
    estimator = page["LaplaceVAETransformer"](4, max_iter=30, random_state=0).fit(digits)
    assert estimator.history_["elbo"][-1] > estimator.history_["elbo"][0]
    before = bits(estimator, digits)
    with pytest.raises(ValueError, match="infinity"):
        estimator.fit(digits + float("inf"))
    assert bits(estimator, digits) == before


def test_the_page_uses_public_names_alone():
    code = "\n".join(re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.S | re.M))
    names = re.findall(r"(?:from|import) (skvae[\w.]*)(?: import (.*))?", code)
    assert names
    assert not [name for pair in names for name in re.split(r"[.,\s]+", " ".join(pair)) if name.startswith("_")]
    # What the classes reach for on objects of the library.
    assert set(re.findall(r"self\.(_\w+)", code)) == {"_location_and_scale"}


def test_parameters_of_its_own_are_trained_and_saved(digits):
    fitted = make_learned_noise()(3, hidden_layer_sizes=16, max_iter=3, random_state=0).fit(digits)
    (scale,) = fitted.module_.likelihood.parameters()
    assert not torch.equal(scale, torch.zeros(64))
    for copied in (copy.deepcopy(fitted), pickle.loads(cloudpickle.dumps(fitted))):
        assert bits(copied, digits) == bits(fitted, digits)
        again, expected = copied.partial_fit(digits), copy.deepcopy(fitted).partial_fit(digits)
        assert bits(again, digits) == bits(expected, digits)


def make_learned_noise():
    """Return an estimator of a normal likelihood with a learned standard deviation for each feature."""

    class LearnedNoise(Likelihood):
        def __init__(self):
            super().__init__()
            self.log_scale = torch.nn.Parameter(torch.zeros(64))

        def log_prob(self, x, parameters):
            return torch.distributions.Normal(parameters, self.log_scale.exp()).log_prob(x)

        def mean(self, parameters):
            return parameters

        def sample(self, parameters, generator):
            return parameters + self.log_scale.exp() * torch.randn(parameters.shape, generator=generator)

    class LearnedNoiseVAETransformer(NormalVAETransformer):
        likelihood_class = LearnedNoise

        def make_likelihood(self, n_features):
            return LearnedNoise()

    return LearnedNoiseVAETransformer


def test_it_may_begin_at_the_linear_model_and_be_calibrated(digits):
    """What the normal likelihood does, by the methods that any likelihood may have.

    The noise of the linear model is what it leaves in the mean, where no step changes it and no row is set aside.
    """
    seen = []

    class Normal(make_learned_noise().likelihood_class):
        calibrates = True
        smallest_scale = 0.0204  # a little above the default of min_scale, as in the normal likelihood

        def begin_at(self, mean, noise_variance):
            seen.append(noise_variance)
            with torch.no_grad():
                self.log_scale.fill_(0.5 * math.log(noise_variance))
            return mean

        def calibrate(self, means, squares):
            assert means.shape == squares.shape == digits.shape
            seen.append(float(squares.mean()))
            self.log_scale.copy_(0.5 * squares.mean(0).log())

    kind = type("Vae", (NormalVAETransformer,), {"make_likelihood": lambda self, n_features: Normal()})
    start = {"max_iter": 1, "learning_rate_init": 1e-9, "random_state": 0}
    own, normal = (cls(3, **start).fit(digits, X_val=digits) for cls in (kind, NormalVAETransformer))
    assert own.module_.encoder.path is not None
    assert own.module_.decoder.path is not None
    assert seen[1] == pytest.approx(seen[0], rel=0.01)
    np.testing.assert_allclose(own.transform(digits), normal.transform(digits), atol=1e-4)


def make_faulty(**members):
    """Return an estimator whose likelihood has these members in the place of right ones."""
    defaults = {
        "n_parameters": 1,
        "log_prob": lambda self, x, p: -(x - p).square(),
        "mean": lambda self, p: p,
        "sample": lambda self, p, generator: p,
    }
    kind = type("Faulty", (Likelihood,), defaults | members)
    return type("Vae", (NormalVAETransformer,), {"make_likelihood": lambda self, n_features: kind()})


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({}, None),
        (
            {"log_prob": lambda self, x, p: -(x - p).square().sum(-1)},
            r"log_prob must .* shape \(2, 64\), a number",
        ),
        (
            {"log_prob": lambda self, x, p: -(x[:, None] - p).square()},
            r"log_prob must .*; it returned \(2, 2, 64\)",
        ),
        ({"mean": lambda self, p: p[..., :1]}, r"mean must return .* it returned \(2, 1\)"),
        ({"mean": lambda self, p: p.numpy()}, "mean must return a tensor .* it returned ndarray"),
        ({"mean": lambda self, p: p.nothing}, "mean raised AttributeError"),
        ({"n_parameters": 0}, "n_parameters must be a positive integer; got 0"),
        ({"n_parameters": 1.0}, "n_parameters must be a positive integer; got 1.0"),
    ],
)
def test_a_likelihood_is_tried_before_it_is_trained(members, message, digits):
    estimator = make_faulty(**members)(3, hidden_layer_sizes=16, max_iter=1, random_state=0)
    if message is None:
        assert estimator.fit(digits).n_iter_ == 1
    else:
        with pytest.raises(ValueError, match=f"Faulty.{message}"):
            estimator.fit(digits)


def test_something_else_than_a_likelihood(digits):
    kind = type("Vae", (NormalVAETransformer,), {"make_likelihood": lambda self, n_features: torch.nn.Identity()})
    with pytest.raises(ValueError, match="must return a skvae.likelihoods.Likelihood; it returned a Identity"):
        kind(3, max_iter=1).fit(digits)
