"""
================
Generated digits
================

Digits that nobody has written: random latent components, drawn from the prior and decoded. The same with observation
noise, which is what the model takes real images to be like, and the same from PCA.
"""

# %%
# The prior is N(0, I) in training. When training has ended, a mixture of normal distributions is fitted to where the
# latent components of the digits lie, and takes its place (``prior="mixture"``, the default). `sample` returns the mean
# image of each draw. With ``observation_noise=True`` every pixel is drawn as well, from the
# distribution that the decoder gives it: such images have the noise that the model ascribes to real ones.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from skvae import ContinuousBernoulliVAETransformer, NormalVAETransformer
from skvae.inspection import SamplesDisplay

X, _ = load_digits(return_X_y=True)
normal = NormalVAETransformer(n_components=10, max_iter=60, random_state=0).fit(X)
bernoulli = ContinuousBernoulliVAETransformer(n_components=10, max_iter=60, random_state=0).fit(X)

# %%
# PCA generates too, when its components are drawn from normal distributions of their variances. It knows only the
# covariance of the pixels, and mixes digits that are far from each other.

pca = PCA(10).fit(X)
draws = np.random.RandomState(0).normal(size=(49, 10)) * np.sqrt(pca.explained_variance_)
images = {
    "real": X[:49],
    "PCA": pca.inverse_transform(draws),
    "normal VAE": normal.sample(49, random_state=0),
    "normal VAE, with noise": normal.sample(49, random_state=0, observation_noise=True),
    "continuous Bernoulli (CB) VAE": bernoulli.sample(49, random_state=0),
    "CB VAE, with noise": bernoulli.sample(49, random_state=0, observation_noise=True),
}
figure, axes = plt.subplots(2, 3, figsize=(9, 6.3), layout="constrained")
for ax, (title, rows) in zip(axes.T.ravel(), images.items(), strict=True):
    SamplesDisplay(rows, 7).plot(ax=ax, vmin=0, vmax=16).ax_.set_title(title)
plt.show()
