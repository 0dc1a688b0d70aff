"""SampleMonitor draws the samples that it says it draws."""

import pickle
import warnings

import numpy as np
import pytest
from joblib import Memory
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import Pipeline

from skvae import NormalVAETransformer
from skvae.callbacks import SampleMonitor

from conftest import make, make_plain

Y = load_digits().target[:300]


def test_errors(digits):
    for epochs in (0, "abc", [1.5], [0, 1], [True]):
        with pytest.raises(ValueError, match="each of epochs must be a positive integer"):
            SampleMonitor(epochs=epochs)
    for random_state in (-1, 2**40, "a"):
        with pytest.raises(ValueError, match=r"[Ss]eed"):
            SampleMonitor(random_state=random_state)
    monitor = SampleMonitor(epochs=9)
    make(NormalVAETransformer).set_callbacks(monitor).fit(digits)
    with pytest.raises(ValueError, match=r"There are no samples yet: .* epochs=\(9,\) under this monitor"):
        monitor.get_samples()


def test_monitor_draws_the_samples_of_each_epoch(estimator_class, digits):
    monitor = SampleMonitor(4, epochs=(1, 3), random_state=7)
    vae = make_plain(estimator_class, max_iter=3).set_callbacks(monitor).fit(digits)
    (by_epoch,) = monitor.get_samples()
    assert list(by_epoch) == [1, 3]
    np.testing.assert_array_equal(by_epoch[3], vae.sample(4, random_state=7))
    after_one = make_plain(estimator_class, max_iter=1).fit(digits)
    np.testing.assert_array_equal(by_epoch[1], after_one.sample(4, random_state=7))
    np.testing.assert_array_equal(
        vae.transform(digits), make_plain(estimator_class, max_iter=3).fit(digits).transform(digits)
    )


def test_monitor_by_default_thins_out(digits):
    monitor = SampleMonitor(1)
    make(NormalVAETransformer, max_iter=51).set_callbacks(monitor).fit(digits)
    assert list(monitor.get_samples()[0]) == [1, 2, 5, 10, 20, 50]


def test_monitors_without_random_state_differ(digits):
    first, second = SampleMonitor(2), SampleMonitor(2)
    make(NormalVAETransformer).set_callbacks(first, second).fit(digits)
    one, other = (monitor.get_samples()[0] for monitor in (first, second))
    assert not np.array_equal(one[2], other[2])


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_monitor_of_a_search(digits, n_jobs):
    monitor = SampleMonitor(2, random_state=0)
    pipeline = Pipeline([("vae", make_plain(NormalVAETransformer)), ("classifier", LogisticRegression(max_iter=1000))])
    search = GridSearchCV(pipeline, {"vae__beta": [0.5, 1.0]}, cv=2, n_jobs=n_jobs, refit=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not support callbacks")
        search.set_callbacks(monitor).fit(digits, Y)
    fits = monitor.get_samples()
    assert len(fits) == 4
    train, _ = next(StratifiedKFold(2).split(digits, Y))
    vae = make_plain(NormalVAETransformer, beta=0.5, max_iter=2).fit(digits[train])
    np.testing.assert_array_equal(fits[0][2], vae.sample(2, random_state=0))


def test_monitor_does_not_void_a_cache(digits, tmp_path):
    pipeline = Pipeline(
        [("vae", make(NormalVAETransformer)), ("end", "passthrough")], memory=Memory(tmp_path, verbose=0)
    )
    monitor = SampleMonitor(2)
    for _ in range(2):
        pipeline.set_callbacks(monitor).fit(digits)
    assert len(monitor.get_samples()) == 1


def test_monitor_survives_pickling(digits):
    monitor = SampleMonitor(2, random_state=0)
    vae = make(NormalVAETransformer).set_callbacks(monitor).fit(digits)
    copied = pickle.loads(pickle.dumps(vae))
    np.testing.assert_array_equal(copied.transform(digits), vae.transform(digits))
    pickled = pickle.loads(pickle.dumps(monitor))
    np.testing.assert_array_equal(pickled.get_samples()[0][2], monitor.get_samples()[0][2])
