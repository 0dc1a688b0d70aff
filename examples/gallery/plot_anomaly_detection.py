"""
=================
Anomaly detection
=================

The ELBO of a row, `score_samples`, is a lower bound of its log density, and so a score of how usual the row is. A
model of one digit finds the others about as well as a probabilistic PCA does, and both have a blind spot.
"""

# %%
# A model of eights
# -----------------
# The model is fitted to eights alone. Then it scores eights that it has not seen, and all other digits: these should
# get lower scores. The model to beat is a probabilistic PCA, whose log density is ``PCA.score_samples``; it is fitted
# in a moment.
#
# ``noise="shared"`` gives all pixels one noise level, as a PCA has. By default each pixel has its own, and a pixel that
# is white in nearly all eights has a very small one. An eight with some ink there then gets a low score. That makes the
# density higher on average, but it finds the other digits less well.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.metrics import RocCurveDisplay, roc_auc_score
from sklearn.model_selection import train_test_split

from skvae import NormalVAETransformer
from skvae.inspection import SamplesDisplay

X, y = load_digits(return_X_y=True)
eights, eights_test = train_test_split(X[y == 8], test_size=0.3, random_state=0)
others = X[y != 8]
rows = np.concatenate([eights_test, others])
is_other = np.repeat([0, 1], [len(eights_test), len(others)])

vae = NormalVAETransformer(n_components=5, noise="shared", random_state=0).fit(eights)
pca = PCA(5).fit(eights)
scores = {"VAE, ELBO": vae.score_samples(rows), "PCA, log density": pca.score_samples(rows)}
for name, score in scores.items():
    print(f"{name}: area under the ROC curve {roc_auc_score(is_other, -score):.4f}")
by_pixel = NormalVAETransformer(n_components=5, random_state=0).fit(eights)
print(f"with a level for each pixel: {roc_auc_score(is_other, -by_pixel.score_samples(rows)):.4f}")

# %%
# What it does not see
# --------------------
# A high density does not mean that an image looks like the training data. The density is highest near the mean of all
# images, which has nothing unusual about it. Fade the other digits toward the mean of the eights, and at some point
# they get higher scores than real eights do, though nobody would call any of them an eight. See
# :doc:`/guide/scores` for what to do about it.

shares = np.linspace(0, 1, 11)
faded = [eights.mean(axis=0) + share * (others - eights.mean(axis=0)) for share in shares]
medians = {
    "VAE, ELBO": [np.median(vae.score_samples(images)) for images in faded],
    "PCA, log density": [np.median(pca.score_samples(images)) for images in faded],
}

figure, axes = plt.subplots(2, 2, figsize=(8, 6.6), layout="constrained")
axes = axes.ravel()
for name, score in scores.items():
    RocCurveDisplay.from_predictions(is_other, -score, name=name, ax=axes[0])
usual = len(eights_test) + np.argsort(-scores["VAE, ELBO"][len(eights_test) :])[:10]
SamplesDisplay(rows[usual], 5).plot(ax=axes[1]).ax_.set_title("other digits with the highest ELBO")
for (name, values), model in zip(medians.items(), (vae, pca), strict=True):
    (line,) = axes[2].plot(shares, values, label=f"other digits: {name}")
    usual_eight = np.median(model.score_samples(eights_test))
    axes[2].axhline(usual_eight, color=line.get_color(), linestyle="--", label="the median eight")
axes[2].set(xlabel="contrast of the other digits", ylabel="median score, nats")
axes[2].legend(fontsize="small")
strip = np.concatenate([images[:1] for images in faded])
SamplesDisplay(strip, 4).plot(ax=axes[3], vmin=0, vmax=16).ax_.set_title("one digit, contrast 0 to 1")
plt.show()
