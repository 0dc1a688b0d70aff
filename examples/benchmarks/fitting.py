"""Whole fits: what starting up costs, and how time and memory grow with the data and the model."""

import time

import numpy as np
from harness import PeakMemory, images, in_a_process, in_turn, quartiles
from sklearn.datasets import load_digits
from training import MODELS


def epochs(seconds):
    """Return the seconds of fits of 1, 5 and 200 epochs on digits, and of 1 and 5 on 10,000 images."""
    results = []
    for data, X, numbers in (("digits", load_digits().data, (1, 5, 200)), ("10,000 images", images(10000), (1, 5))):
        for model, estimator in MODELS.items():
            fits = {n: (lambda n=n, e=estimator, X=X: e(max_iter=n, random_state=0).fit(X)) for n in numbers}
            for n_epochs, fit in fits.items():
                times = in_turn({"fit": fit}, seconds=min(seconds, 5), n_rounds=1 if n_epochs == 200 else 3)
                results.append({"data": data, "model": model, "epochs": n_epochs, "seconds": quartiles(times["fit"])})
    return results


def fit(n_rows, n_features, n_components, batch_size):
    """Return the seconds and the peak memory beyond the data of one epoch of `NormalVAETransformer` on random bytes."""
    X = np.random.RandomState(0).randint(0, 256, (n_rows, n_features), dtype=np.uint8)
    estimator = MODELS["normal"](n_components, batch_size=batch_size, max_iter=1, random_state=0)
    MODELS["normal"](n_components, max_iter=1, random_state=0).fit(X[:100])
    with PeakMemory() as peak:
        start = time.perf_counter()
        estimator.fit(X)
        seconds = time.perf_counter() - start
    return {"seconds": seconds, "megabytes": peak.megabytes}


# What each series changes, from 10,000 rows of 64 features, 20 components and batches of 128.
GROWTH = {
    "n_rows": (1_000, 10_000, 100_000, 1_000_000),
    "n_features": (64, 784, 3_072, 12_288),
    "n_components": (2, 20, 200),
    "batch_size": (16, 128, 1_024, 8_192),
}


def growth():
    """Return time and peak memory of one epoch along each series, each fit in a process of its own."""
    standard = {"n_rows": 10_000, "n_features": 64, "n_components": 20, "batch_size": 128}
    return [
        {"varies": name, "value": value, **in_a_process("fitting", "fit", **{**standard, name: value})}
        for name, values in GROWTH.items()
        for value in values
    ]


def measure(seconds):
    """Return both tables."""
    return {"epochs": epochs(seconds), "growth": growth()}
