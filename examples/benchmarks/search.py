"""A grid search over the classifier behind an autoencoder, with and without a cache of the fitted autoencoder."""

import tempfile
import time

from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, ShuffleSplit
from sklearn.pipeline import Pipeline
from training import MODELS


def search(model, memory):
    """Return the seconds of a search over four penalties in two splits of the digits."""
    X, y = load_digits(return_X_y=True)
    pipeline = Pipeline(
        [("vae", MODELS[model](max_iter=20, random_state=0)), ("classifier", LogisticRegression(max_iter=2000))],
        memory=memory,
    )
    grid = {"classifier__C": [0.01, 0.1, 1, 10]}
    start = time.perf_counter()
    GridSearchCV(pipeline, grid, cv=ShuffleSplit(2, random_state=0), refit=False, error_score="raise").fit(X, y)
    return time.perf_counter() - start


def measure():
    """Return the seconds of both searches for both models."""
    results = []
    for model in MODELS:
        with tempfile.TemporaryDirectory() as folder:
            results.append({"model": model, "without cache": search(model, None), "with cache": search(model, folder)})
    return results
