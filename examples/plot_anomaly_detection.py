"""
=================
Anomaly detection
=================

The ELBO of a row is a bound on its log density, and so a score of how usual it is. A model of one digit finds the
others; and a warning of what such scores do not see.
"""

# %%
# A model of zeros
# ----------------
# It has seen no other digit. The rows with the lowest ELBO are those it finds strangest.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.metrics import RocCurveDisplay, roc_auc_score
from sklearn.model_selection import train_test_split

from skvae import NormalVAETransformer
from skvae.inspection import SamplesDisplay

X, y = load_digits(return_X_y=True)
zeros, zeros_test = train_test_split(X[y == 0], test_size=0.3, random_state=0)
others = X[y != 0]
rows = np.concatenate([zeros_test, others])
is_other = np.repeat([0, 1], [len(zeros_test), len(others)])

vae = NormalVAETransformer(n_components=5, max_iter=400, random_state=0).fit(zeros)
pca = PCA(5).fit(zeros)
scores = {"VAE, ELBO": vae.score_samples(rows), "PCA, log density": pca.score_samples(rows)}
for name, score in scores.items():
    print(f"{name}: area under the ROC curve {roc_auc_score(is_other, -score):.4f}")

# %%
# A probabilistic PCA, which is `PCA.score_samples`, is the model to beat, and fitted in a moment.

figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), layout="constrained")
for name, score in scores.items():
    RocCurveDisplay.from_predictions(is_other, -score, name=name, ax=axes[0])
strange = np.argsort(scores["VAE, ELBO"][: len(zeros_test)])[:10]
usual = len(zeros_test) + np.argsort(-scores["VAE, ELBO"][len(zeros_test) :])[:10]
SamplesDisplay(rows[strange], 5).plot(ax=axes[1]).ax_.set_title("zeros with the lowest ELBO")
SamplesDisplay(rows[usual], 5).plot(ax=axes[2]).ax_.set_title("other digits with the highest")

# %%
# What it does not see
# --------------------
# A density is not a judgement. An image without any ink is in the middle of what is smooth and easy to explain: models
# of images often give such rows a higher density than the images they were trained on.

blank = np.full((1, 64), zeros.mean())
print(f"zeros: {vae.score(zeros_test):.1f} nats, a grey square: {vae.score(blank):.1f} nats")
plt.show()
