"""
================
The latent plane
================

With two components, all that a model knows can be looked at: where the images lie, and what lies between them.
"""

# %%
# Each digit is a point: above on the left at its two principal components, on the right at the mean that the encoder of
# a VAE gives it. Below, the plane of the VAE is decoded on a grid of quantiles of its prior, the mixture that `sample`
# draws from. The grid spans the central nine tenths of each component.

import matplotlib.pyplot as plt
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from skvae import NormalVAETransformer
from skvae.inspection import LatentDisplay

X, y = load_digits(return_X_y=True)
vae = NormalVAETransformer(n_components=2, random_state=0).fit(X)

figure, axes = plt.subplot_mosaic([["pca", "vae"], ["plane", "plane"]], figsize=(8, 9), layout="constrained")
LatentDisplay.from_estimator(PCA(2).fit(X), X, y, kind="scatter", ax=axes["pca"], s=8)
axes["pca"].set_title("PCA")
LatentDisplay.from_estimator(vae, X, y, kind="scatter", ax=axes["vae"], s=8)
axes["vae"].set_title("VAE")
LatentDisplay.from_estimator(vae, ax=axes["plane"])
axes["plane"].set_title("what the plane of the VAE decodes to")
plt.show()
