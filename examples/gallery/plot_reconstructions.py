"""
===============
Reconstructions
===============

How much of an image do a few numbers keep? A normal VAE and PCA, with two, five, ten and twenty components.
"""

# %%
# Of the training data, PCA gives the best linear reconstruction there is. A VAE is not linear, which helps most where
# components are few. But it does not minimize the squared error alone, since it pays for the information in its
# components (:doc:`/guide/models`). It begins at probabilistic PCA, and gets better from there.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.model_selection import train_test_split

from skvae import NormalVAETransformer
from skvae.inspection import ReconstructionDisplay
from skvae.metrics import reconstruction_mse

X, y = load_digits(return_X_y=True)
X_train, X_test = train_test_split(X, test_size=0.25, stratify=y, random_state=0)
sizes = [2, 5, 10, 20]
models = {
    "PCA": [PCA(size, random_state=0).fit(X_train) for size in sizes],
    "normal VAE": [NormalVAETransformer(size, max_iter=30, random_state=0).fit(X_train) for size in sizes],
}
errors = {name: [reconstruction_mse(model, X_test) for model in fitted] for name, fitted in models.items()}
for name, values in errors.items():
    print(name, *(f"{size}: {error:.2f}" for size, error in zip(sizes, values, strict=True)))

# %%
# On images that neither has seen, the VAE is ahead with any of these numbers of components.

figure, panels = plt.subplot_mosaic([[0, 1], [0, 2]], figsize=(9, 3.6), width_ratios=(1, 1.4), layout="constrained")
axes = [panels[number] for number in range(3)]
for name, values in errors.items():
    axes[0].plot(sizes, values, marker="o", label=name)
axes[0].axhline(np.mean((X_test - X_train.mean(axis=0)) ** 2), color="gray", linestyle=":", label="the mean image")
axes[0].set(xlabel="components", ylabel="mean squared error", xticks=sizes, ylim=(0, None))
axes[0].legend()
for ax, (name, fitted) in zip(axes[1:], models.items(), strict=True):
    display = ReconstructionDisplay.from_estimator(fitted[1], X_test[:10], ax=ax, vmin=0, vmax=16)
    display.ax_.set_title(f"{name}, {sizes[1]} components")
plt.show()
