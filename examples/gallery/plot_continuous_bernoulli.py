"""
=====================================================
Continuous Bernoulli, Bernoulli and normal likelihood
=====================================================

Gray values lie between black and white. Which distribution does a model take them to have?
"""

# %%
# The "binary cross-entropy" that many programs apply to gray values is the log likelihood of a Bernoulli distribution,
# which gives 0 and 1 and nothing between. To be a density on [0, 1] it needs a normalizing constant. With it, it is the
# continuous Bernoulli distribution of the logit :math:`e`,
# :math:`p(x \mid e) = \exp(e x - A(e))` with :math:`A(e) = \log((\exp(e) - 1) / e)`.

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits

from skvae import ContinuousBernoulliVAETransformer, NormalVAETransformer
from skvae.distributions import ContinuousBernoulli
from skvae.inspection import SamplesDisplay

x = torch.linspace(0, 1, 201)
figure, axes = plt.subplots(1, 2, figsize=(8, 3.4), layout="constrained")
for logit in (-20.0, -5.0, -1.0, 0.0, 1.0, 5.0):
    axes[0].plot(x, ContinuousBernoulli(logits=torch.tensor(logit)).log_prob(x).exp(), label=f"logit {logit:g}")
axes[0].set(xlabel="x", ylabel="density", ylim=(0, 8), title="continuous Bernoulli")
axes[0].legend()
probs = torch.linspace(0.001, 0.999, 999)
axes[1].plot(probs, ContinuousBernoulli(probs=probs).mean, label="continuous Bernoulli")
axes[1].plot(probs, probs, "--", label="Bernoulli")
axes[1].set(xlabel="parameter λ", ylabel="mean", title="the parameter is not the mean")
axes[1].legend()
plt.show()

# %%
# The mean of a Bernoulli distribution is its parameter. That of the continuous Bernoulli is drawn toward the middle,
# and a model that shows its parameter for its reconstruction shows too much contrast. `inverse_transform` and `sample`
# give the mean.
#
# Three models of the digits
# --------------------------
# A Bernoulli likelihood is a few lines, after :doc:`/adding_a_likelihood`.

from torch.nn.functional import binary_cross_entropy_with_logits

from skvae.likelihoods import ContinuousBernoulliLikelihood


class BernoulliLikelihood(ContinuousBernoulliLikelihood):
    """Bernoulli likelihood, of gray values that it was not made for. Its range is that of its parent."""

    def begin_at(self, mean, noise_variance):
        bias = super().begin_at(mean, noise_variance)
        self.gain.fill_(4)  # the slope of the logit, by the mean, in the middle of the range
        return bias

    def log_prob(self, x, parameters):
        logits = self.logits(parameters)
        return -binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="none")

    def mean(self, parameters):
        return self.logits(parameters).sigmoid()

    def sample(self, parameters, generator):
        return torch.bernoulli(self.mean(parameters).cpu(), generator=generator).to(parameters.device)


class BernoulliVAETransformer(ContinuousBernoulliVAETransformer):
    """Variational autoencoder with a Bernoulli likelihood."""

    def make_likelihood(self, n_features):
        return BernoulliLikelihood(self.data_range, self.min_scale)


X, _ = load_digits(return_X_y=True)
common = {"n_components": 10, "max_iter": 50, "random_state": 0}
vaes = {
    "Bernoulli": BernoulliVAETransformer(**common),
    "continuous Bernoulli": ContinuousBernoulliVAETransformer(**common),
    "normal": NormalVAETransformer(**common),
}

# %%
# Mean images look much alike. Draws from the whole model, with the noise that each takes a pixel to have, tell them
# apart. The Bernoulli model knows black and white only. The continuous Bernoulli model stays within the range, and
# most of its pixels are near its ends, as those of digits are. The normal one leaves the range on both sides.

figure, axes = plt.subplots(2, 4, figsize=(9, 4.6), height_ratios=(3, 2), sharey="row", layout="constrained")
draws = {"digits": X[:2000]}
for name, vae in vaes.items():
    draws[name] = vae.fit(X).sample(2000, random_state=0, observation_noise=True)
for column, (name, rows) in zip(axes.T, draws.items(), strict=True):
    SamplesDisplay(rows[:36], 6).plot(ax=column[0], vmin=0, vmax=16).ax_.set_title(name)
    column[1].hist(np.ravel(rows), bins=np.arange(-8.5, 25.5), density=True)
    column[1].set(xlabel="gray value", yscale="log", ylim=(1e-4, 1))
axes[1, 0].set_ylabel("share of pixels")
plt.show()
