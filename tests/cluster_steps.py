"""Steps of a Pipeline that workers of a cluster import; see tests/test_clusters.py."""

import os
import signal
from pathlib import Path

import torch
from sklearn.base import BaseEstimator, TransformerMixin


class KilledOnce(TransformerMixin, BaseEstimator):
    """Pass data on; the process of the first of all fits is killed, which leaves a file that says so."""

    def __init__(self, marker):
        self.marker = marker

    def fit(self, X, y=None):
        try:
            Path(self.marker).touch(exist_ok=False)  # of two processes at once only one makes it
        except FileExistsError:
            return self
        os.kill(os.getpid(), signal.SIGKILL)

    def transform(self, X):
        return X

    def __sklearn_is_fitted__(self):
        return True


def process_and_threads(_):
    """Return the process and its number of torch threads, after some work for them."""
    torch.ones(200, 200) @ torch.ones(200, 200)
    return os.getpid(), torch.get_num_threads()
