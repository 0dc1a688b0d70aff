"""
=================
Rows of one class
=================

A model that knows no classes makes digits of each: the latent components of a class get a mixture of normal
distributions, from which new ones are drawn and decoded.
"""

# %%
# Rows of one class lie together in the latent space, though the model has seen no labels. `transform` says where. A
# ``GaussianMixture`` is fitted to the latent components of each digit; its draws, decoded, are digits of that kind.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from sklearn.utils import shuffle

from skvae import NormalVAETransformer
from skvae.inspection import SamplesDisplay

X, y = load_digits(return_X_y=True)


def draw(model, label, n_samples=10):
    """Return new rows of one class."""
    latents = model.transform(X[y == label]).astype(float)  # for covariances that are exact enough to draw from
    mixture = GaussianMixture(3, reg_covar=1e-3, random_state=0).fit(latents)
    # The draws come in the order of the mixture's components.
    return model.inverse_transform(shuffle(mixture.sample(n_samples)[0], random_state=0))


vae = NormalVAETransformer(n_components=10, max_iter=60, random_state=0).fit(X)
pca = PCA(n_components=10, random_state=0).fit(X)

# %%
# The same can be done with any transformer that has an inverse. PCA has a blurred copy of each digit to offer, with
# shadows of other strokes; those of the VAE are cleaner.

images = {
    "real": [X[y == label][:10] for label in range(10)],
    "PCA": [draw(pca, label) for label in range(10)],
    "normal VAE": [draw(vae, label) for label in range(10)],
}
figure, axes = plt.subplots(1, 3, figsize=(10, 3.9), layout="constrained")
for ax, (title, rows) in zip(axes, images.items(), strict=True):
    SamplesDisplay(np.concatenate(rows), 10).plot(ax=ax, vmin=0, vmax=16).ax_.set_title(title)
plt.show()

# %%
# :doc:`The how-to page </how_to/generating>` says what to look out for, and how to tell how good such rows are.
