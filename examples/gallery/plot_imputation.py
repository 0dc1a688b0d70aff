"""
=======================
Filling missing entries
=======================

A table with a quarter of its entries missing, and images that lack a quadrant: ``VAEImputer`` learns from incomplete
rows, and fills in what is missing.
"""

# %%
# Entries of the breast cancer table are hidden at random, in the rows to learn from and in those to fill. Each imputer
# is fitted to the first and fills the second. Errors are in standard deviations of a column. That of the VAE is the
# smallest.

import warnings

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.experimental import enable_iterative_imputer  # noqa: F401 (makes it importable)
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from skvae import NormalVAETransformer
from skvae.impute import VAEImputer
from skvae.inspection import SamplesDisplay


def fill(imputers, X, hidden):
    """Return the held-out rows and what each imputer makes of them, and print its error on the hidden entries."""
    X_train, X_test, hidden_train, hidden_test = train_test_split(X, hidden, test_size=0.25, random_state=0)
    filled = {"original": X_test, "incomplete": np.where(hidden_test, np.nan, X_test)}
    for name, imputer in imputers.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # more iterations make IterativeImputer no better here
            imputer.fit(np.where(hidden_train, np.nan, X_train))
        filled[name] = imputer.transform(filled["incomplete"])
        error = np.sqrt(np.mean((filled[name] - X_test)[hidden_test] ** 2))
        print(f"{name}: root mean square error {error:.2f}")
    return filled


rng = np.random.default_rng(0)
X = StandardScaler().fit_transform(load_breast_cancer().data)
imputers = {
    "mean": SimpleImputer(),
    "nearest neighbors": KNNImputer(),
    "linear regressions": IterativeImputer(random_state=0),
    "VAE": VAEImputer(random_state=0),
}
_ = fill(imputers, X, rng.random(X.shape) < 0.25)

# %%
# Each image of a digit lacks a quadrant, which is drawn at random. No image is complete, neither to learn from nor to
# fill. Pixels are in one unit, so that no scaler is needed, and errors are in gray values from 0 to 16. The nearest
# neighbors have the smallest error: for most of these digits there is another image of almost the same shape. The VAE
# comes next, ahead of linear regressions, which see no shapes.

X = load_digits().data
quadrants = np.zeros((4, 8, 8), dtype=bool)
for quadrant, (row, column) in zip(quadrants, [(0, 0), (0, 4), (4, 0), (4, 4)], strict=True):
    quadrant[row : row + 4, column : column + 4] = True
hidden = quadrants.reshape(4, 64)[rng.integers(4, size=len(X))]
imputers["VAE"] = VAEImputer(NormalVAETransformer(10, random_state=0))
filled = fill(imputers, X, hidden)

# %%

figure, ax = plt.subplots(figsize=(9, 4.6), layout="constrained")
strip = np.concatenate([rows[:12] for rows in filled.values()])
gray = np.nan_to_num(strip, nan=8)  # what is missing is shown in gray
SamplesDisplay(gray, 12, row_labels=list(filled)).plot(ax=ax, vmin=0, vmax=16)
plt.show()
