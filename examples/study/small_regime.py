"""Why a representation is worth what it is to logistic regression where images are few, on training images alone.

PCA and VAEs are fitted without labels to the 10,000 training images of the small regime. Logistic regression on their
latents is cross-validated on the same images: those on which the comparison is tested have no part in it.

    python examples/study/small_regime.py    # ten minutes on one core
"""

import sys
from pathlib import Path

from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score

sys.path.insert(0, str(Path(__file__).parents[1]))  # where the package `study` lies

from study import models
from study.pieces import split

CHANGES = [
    ("pca", {}),
    ("continuous_bernoulli_vae", {}),
    ("normal_vae", {}),
    ("normal_vae", {"weight_decay": 0.03}),
    ("normal_vae", {"weight_decay": 0.1}),
    ("normal_vae", {"max_iter": 40}),
    ("normal_vae", {"hidden_layer_sizes": (256,)}),
]


def main():
    """Print the accuracy of each representation."""
    X, y, cv = models.load("fashion-mnist")
    train, _ = split(cv, X, y, "small")
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    for name, change in CHANGES:
        latents = models.representation(name, "fashion-mnist", None, 0, **change).fit_transform(X[train])
        accuracy = cross_val_score(LogisticRegression(max_iter=1000), latents, y[train], cv=folds).mean()
        print(f"{name} {change or ''}: {accuracy:.4f}", flush=True)


if __name__ == "__main__":
    main()
