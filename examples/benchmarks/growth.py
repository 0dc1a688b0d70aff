"""How time and memory of a fit grow with the rows, the features, the components and the size of batches.

Seconds are of processor time, on one thread.
"""

import time

import numpy as np
import torch
from harness import PeakMemory, in_a_process

from skvae import NormalVAETransformer

# Directions in which the generated rows vary, beside noise.
RANK = 10

# What each series changes of what it has in common.
GROWTH = {
    "n_rows": ({"n_features": 50, "n_components": 10, "batch_size": 128}, (1_000, 10_000, 100_000, 1_000_000)),
    "n_features": ({"n_rows": 1_000, "n_components": 10, "batch_size": 128}, (100, 1_000, 10_000, 100_000)),
    "n_components": ({"n_rows": 10_000, "n_features": 1_000, "batch_size": 128}, (5, 50, 500)),
    "batch_size": ({"n_rows": 10_000, "n_features": 50, "n_components": 10}, (16, 128, 1_024, 8_192)),
}


def low_rank(n_rows, n_features):
    """Return float32 rows that vary in a few directions, and noise."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n_rows, n_features), dtype=np.float32)
    for some in np.array_split(X, max(1, X.size // 10_000_000)):
        factors = rng.standard_normal((len(some), RANK), dtype=np.float32)
        some += factors @ np.random.default_rng(1).standard_normal((RANK, n_features), dtype=np.float32)
    return X


class Parts:
    """Callback that tells when the epoch began and when it ended."""

    def setup(self, estimator, context):
        """Before the fit."""

    def teardown(self, estimator, context):
        """After the fit."""

    def on_fit_task_begin(self, estimator, context):
        """Note the beginning of the epoch."""
        if context.task_name == "epoch":
            self.begun = time.process_time()

    def on_fit_task_end(self, estimator, context):
        """Note its end."""
        if context.task_name == "epoch":
            self.ended = time.process_time()


def fit(n_rows, n_features, n_components, batch_size):
    """Return the seconds of a fit of one epoch, by part, and its peak memory beyond the data."""
    torch.set_num_threads(1)
    X, parts = low_rank(n_rows, n_features), Parts()
    estimator = NormalVAETransformer(n_components, batch_size=batch_size, max_iter=1, random_state=0)
    NormalVAETransformer(2, max_iter=1, random_state=0).fit(X[:100, :10])  # what happens only at first
    estimator.set_callbacks(parts)
    with PeakMemory() as peak:
        start = time.process_time()
        estimator.fit(X)
        end = time.process_time()
    return {
        "n_rows": n_rows,
        "start": parts.begun - start,
        "epoch": parts.ended - parts.begun,
        "end": end - parts.ended,
        "megabytes": peak.megabytes,
        "megabytes_of_data": X.nbytes / 1e6,
    }


def measure():
    """Return time and memory along each series, each fit in a process of its own."""
    return [
        {"varies": name, "value": value, **in_a_process("growth", "fit", **common, **{name: value})}
        for name, (common, values) in GROWTH.items()
        for value in values
    ]
