"""
===========
Quick start
===========

A variational autoencoder is a transformer: it stands ahead of a classifier in a `Pipeline`, as `PCA` does. Besides, it
has a density and generates data.
"""

# %%
# Fit
# ---
# The digits of scikit-learn are 1,797 images of 8 x 8 pixels. Nothing has to be scaled before.

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
# `transform` gives ten numbers for each image, the mean of what the model believes its latent components to be.
# `inverse_transform` makes images of them again, and `score` says how probable images are, in nats: the ELBO, a lower
# bound of the log density.

vae = pipeline[0]
latents = vae.transform(X_test)
print(f"latents: {latents.shape}, {latents.dtype}")
print(f"ELBO of an image: {vae.score(X_test):.1f} nats, of one upside down: {vae.score(X_test[:, ::-1]):.1f} nats")

# %%
# Generate
# --------

figure, axes = plt.subplots(1, 2, figsize=(9, 4), width_ratios=(2, 1), layout="constrained")
ReconstructionDisplay.from_estimator(vae, X_test[:10], ax=axes[0], vmin=0, vmax=16)
SamplesDisplay.from_estimator(vae, n_samples=36, random_state=0, ax=axes[1], vmin=0, vmax=16)
axes[1].set_title("samples")
plt.show()
