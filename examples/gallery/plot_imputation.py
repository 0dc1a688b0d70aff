"""
=========================
Imputing occluded pixels
=========================

A block of every test image is missing. A model of whole images fills it in: guess the missing pixels, encode, decode,
take the decoded pixels for the next guess, within the range of gray values, and do so fifty times.
"""

# %%
# The same iteration with PCA is the classical algorithm of iterated low-rank approximation. Both models do better than
# the mean of each pixel, and the VAE a little better than PCA. ``KNNImputer`` takes the mean of the images that are
# nearest in the visible pixels, and does best here.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.impute import KNNImputer
from sklearn.model_selection import train_test_split

from skvae import NormalVAETransformer
from skvae.inspection import SamplesDisplay

X, y = load_digits(return_X_y=True)
X_train, X_test = train_test_split(X, test_size=0.25, stratify=y, random_state=0)
missing = np.zeros((8, 8), dtype=bool)
missing[2:6, 2:6] = True
missing = missing.ravel()


def impute(model, occluded):
    filled = np.where(missing, X_train.mean(axis=0), occluded)
    for _ in range(50):
        filled[:, missing] = model.inverse_transform(model.transform(filled))[:, missing].clip(0, 16)
    return filled


occluded = np.where(missing, np.nan, X_test)
images = {
    "original": X_test,
    "occluded": occluded,
    "mean of the pixels": np.where(missing, X_train.mean(axis=0), occluded),
    "PCA": impute(PCA(10, random_state=0).fit(X_train), occluded),
    "normal VAE": impute(NormalVAETransformer(10, random_state=0).fit(X_train), occluded),
    "nearest neighbors": KNNImputer(n_neighbors=5).fit(X_train).transform(occluded),
}
for name, rows in list(images.items())[2:]:
    print(f"{name}: mean squared error of the missing pixels {np.mean((rows - X_test)[:, missing] ** 2):.1f}")

# %%

figure, ax = plt.subplots(figsize=(9, 4.6), layout="constrained")
strip = np.concatenate([rows[:12] for rows in images.values()])
gray = np.nan_to_num(strip, nan=8)  # what is missing is shown in gray
SamplesDisplay(gray, 12, row_labels=list(images)).plot(ax=ax, vmin=0, vmax=16)
plt.show()
