"""Fixtures shared by the tests."""

import hashlib
import os
import pickle

# Networks this small are slowed down by threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# scikit-learn's array API checks run only where SciPy was imported with this.
os.environ["SCIPY_ARRAY_API"] = "1"

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from skvae import ContinuousBernoulliVAETransformer, NormalVAETransformer

QUICK = {
    cls: {
        "n_components": 3,
        "hidden_layer_sizes": (16,),
        "prior": "normal",
        "batch_size": 128,
        "max_iter": 4,
        "random_state": 0,
    }
    for cls in (NormalVAETransformer, ContinuousBernoulliVAETransformer)
}

# So that what holds of every estimator is tried on a convolution and on dropout as well.
QUICK[ContinuousBernoulliVAETransformer] |= {"encoder": "auto", "dropout": 0.1}

# Parameters of a fit of which each epoch could be the last: no step depends on how many there are, no row is set aside,
# and nothing is set when training has ended.
PLAIN = {
    NormalVAETransformer: {"noise": "shared"},
    ContinuousBernoulliVAETransformer: {},
}
for _parameters in PLAIN.values():
    _parameters |= {"prior": "normal", "learning_rate": "constant", "weight_decay": 0.0}


def make(estimator_class, **parameters):
    """Return an estimator that is quick to fit."""
    return estimator_class(**{**QUICK[estimator_class], **parameters})


def make_plain(estimator_class, **parameters):
    """Return one that trains and does nothing else."""
    return make(estimator_class, **{**PLAIN[estimator_class], **parameters})


class Identity(nn.Module):
    """Decodes to what it is given."""

    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, z):
        return z + 0 * self.bias


class Callback:
    """A callback of scikit-learn's protocol that does nothing but what a subclass has at the end of a task."""

    def setup(self, estimator, context):
        pass

    def teardown(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context):
        pass


def memory_map(X, path):
    """Return an array as a memory map of a file, which it is written to."""
    X.tofile(path)
    return np.memmap(path, dtype=X.dtype, mode="r", shape=X.shape)


def bits(estimator, X, n_scored=50):
    """Return what a fitted estimator computes, as bytes; scores, which take longest, of the first rows, or all."""
    outputs = (
        *estimator.posterior(X),
        estimator.score_samples(X if n_scored is None else X[:n_scored]),
        estimator.inverse_transform(estimator.transform(X)),
        estimator.sample(3, random_state=0, observation_noise=True),
    )
    return b"".join(output.tobytes() for output in outputs)


def global_random_state():
    """Return the state of the global generators of NumPy and torch."""
    numpy_state = pickle.dumps(np.random.get_state())
    torch_state = torch.get_rng_state().numpy().tobytes()
    return hashlib.sha256(numpy_state).hexdigest(), hashlib.sha256(torch_state).hexdigest()


@pytest.fixture(scope="session")
def digits():
    """The digits, 300 images of 64 pixels from 0 to 16."""
    X, _ = load_digits(return_X_y=True)
    X = X[:300].copy()
    X.flags.writeable = False
    return X


@pytest.fixture(params=[NormalVAETransformer, ContinuousBernoulliVAETransformer])
def estimator_class(request):
    """Each of the two estimators."""
    return request.param


@pytest.fixture(scope="session")
def fitted_estimators(digits):
    """One fitted estimator of each class; not to be changed."""
    return {cls: make(cls).fit(digits) for cls in QUICK}


@pytest.fixture
def fitted(estimator_class, fitted_estimators):
    """A fitted estimator of each class; not to be changed."""
    return fitted_estimators[estimator_class]


@pytest.fixture(autouse=True)
def _global_generators_untouched(request):
    """No test sees the global generators change, unless it says that it does so itself."""
    before = global_random_state()
    yield
    if "draws_globally" not in request.keywords:
        assert global_random_state() == before, "a global random generator was used"
