"""
===========
Quick start
===========

A variational autoencoder (VAE) is a transformer: it stands ahead of a classifier in a `Pipeline`, as `PCA` does.
Besides, it says how probable a row is, and makes new ones.
"""

# %%
# Fit
# ---
# The digits of scikit-learn are 1,797 images of 8 x 8 pixels. Pixels need not be scaled before, and nothing else
# needs to be set: training begins at the linear model, and goes on for as many steps as the data need.

import matplotlib.pyplot as plt
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline

from skvae import NormalVAETransformer
from skvae.inspection import ReconstructionDisplay, SamplesDisplay

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.25, stratify=y, random_state=0)

pipeline = make_pipeline(NormalVAETransformer(n_components=10, random_state=0), LogisticRegression(max_iter=2000))
pipeline.fit(X_train, y_train)
print(f"accuracy on {len(X_test)} digits it has not seen: {pipeline.score(X_test, y_test):.3f}")

# %%
# Look inside
# -----------
# `transform` gives ten numbers for each image, its latent components. `inverse_transform` makes images of them again,
# and `score` says how probable images are: it is a lower bound of their log density, the ELBO, on average, in nats
# (:doc:`/guide/models`).

vae = pipeline[0]
latents = vae.transform(X_test)
print(f"latents: {latents.shape}, {latents.dtype}")
print(f"ELBO of an image: {vae.score(X_test):.1f} nats, of one upside down: {vae.score(X_test[:, ::-1]):.1f} nats")

# %%
# Generate
# --------
# The reconstructions are what `inverse_transform` makes of ten numbers, and the samples what it makes of random ones.

figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), width_ratios=(2, 1), layout="constrained")
ReconstructionDisplay.from_estimator(vae, X_test[:10], ax=axes[0], vmin=0, vmax=16)
SamplesDisplay.from_estimator(vae, n_samples=36, random_state=0, ax=axes[1], vmin=0, vmax=16)
axes[1].set_title("samples")
plt.show()
