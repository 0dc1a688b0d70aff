"""
================================
Representations in two regimes
================================

What is a representation worth to a classifier when there is much training data, and when there is little? Pixels, PCA
and both VAEs under two classifiers, in one grid search.
"""

# %%
# The search
# ----------
# ``RegimeSplit`` trains on four fifths and tests on one, and then the other way round. Each transformer is fitted to
# the training part of its regime alone, and once for both classifiers.

import matplotlib.pyplot as plt
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import MinMaxScaler

from skvae import ContinuousBernoulliVAETransformer, NormalVAETransformer
from skvae.classifiers import MultilayerCNNClassifier
from skvae.model_selection import RegimeSplit, regime_search, regime_table

X, y = load_digits(return_X_y=True)
transformers = {
    "pixels": MinMaxScaler(),
    "pca": PCA(10, random_state=0),
    "normal_vae": NormalVAETransformer(10, max_iter=60, random_state=0),
    "cb_vae": ContinuousBernoulliVAETransformer(10, max_iter=60, random_state=0),
}
classifiers = {
    "logistic": LogisticRegression(max_iter=5000),
    "cnn": MultilayerCNNClassifier(batch_size=32, max_iter=20, random_state=0),
}
cv = RegimeSplit(0.2, shuffle=True, stratify=True, random_state=0)
search = regime_search(transformers, classifiers, cv=cv).fit(X, y)
table = regime_table(search)
print(table.round(3))

# %%
# Under logistic regression both VAEs are worth more than PCA in the small regime, by about two points, and the normal
# one in the large regime too. Under the CNN the normal VAE is level with PCA, and the other one a point or two behind.
# Pixels are worth more than any: the digits are small, and a classifier can use all of them.
#
# The same comparison on Fashion-MNIST, in full, is in :doc:`the results </results/fashion_mnist>`.

ax = table.plot.bar(figsize=(9, 4), ylim=(0.8, 1), rot=0, ylabel="test accuracy", xlabel="")
ax.legend(title="classifier, regime", ncols=4, fontsize="small", loc="lower center", bbox_to_anchor=(0.5, 1))
ax.figure.tight_layout()
plt.show()
