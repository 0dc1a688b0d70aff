"""
=========
Denoising
=========

A model that has learned what digits look like leaves out what does not belong to them. Noisy images go through
``transform`` and ``inverse_transform``, and come out cleaner.
"""

# %%
# The models are fitted to clean images. What they cannot express with ten components, they drop, and most of the noise
# is among it. PCA does the same, with a projection instead of an encoder.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.model_selection import train_test_split

from skvae import NormalVAETransformer
from skvae.inspection import SamplesDisplay

X, y = load_digits(return_X_y=True)
X_train, X_test = train_test_split(X, test_size=0.25, stratify=y, random_state=0)
noisy = X_test + np.random.RandomState(0).normal(scale=4, size=X_test.shape)
models = {
    "PCA": PCA(10, random_state=0).fit(X_train),
    "normal VAE": NormalVAETransformer(10, max_iter=300, random_state=0).fit(X_train),
}
images = {"clean": X_test, "noisy": noisy}
images |= {name: model.inverse_transform(model.transform(noisy)) for name, model in models.items()}
for name, rows in images.items():
    print(f"{name}: mean squared error {np.mean((rows - X_test) ** 2):.2f}")

# %%
# The noise has a variance of 16, on gray values of 0 to 16. Both models take away more than half of the error; the VAE
# a little more than PCA.

figure, ax = plt.subplots(figsize=(9, 3.2), layout="constrained")
strip = np.concatenate([rows[:12] for rows in images.values()])
SamplesDisplay(strip, 12, row_labels=list(images)).plot(ax=ax, vmin=0, vmax=16)
plt.show()
