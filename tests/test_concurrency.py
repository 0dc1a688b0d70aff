"""Fitted models are shared by threads, and fits run beside each other, to the same bits as alone."""

import json
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from skvae.classifiers import SimpleCNNClassifier

from conftest import Callback, bits, make


def test_sixteen_threads_share_a_model(fitted, digits):
    alone = bits(fitted, digits)
    with ThreadPoolExecutor(16) as pool:
        assert set(pool.map(lambda _: bits(fitted, digits), range(48))) == {alone}


def test_sixteen_threads_share_a_classifier(digits):
    classifier = SimpleCNNClassifier(max_iter=2, random_state=0).fit(digits / 16, np.arange(len(digits)) % 3)
    alone = classifier.predict_proba(digits / 16).tobytes()
    with ThreadPoolExecutor(16) as pool:
        assert {array.tobytes() for array in pool.map(classifier.predict_proba, [digits / 16] * 48)} == {alone}


FITS = """
import json, os, sys
import numpy as np
import torch
from joblib import Parallel, delayed, parallel_config
from sklearn.datasets import load_digits
from skvae import ContinuousBernoulliVAETransformer, NormalVAETransformer

X = np.tile(load_digits().data[:600], (1, 4))
MODELS = (NormalVAETransformer, ContinuousBernoulliVAETransformer)

def fit(estimator_class, seed):
    before = torch.get_num_threads()
    vae = estimator_class(5, hidden_layer_sizes=256, batch_size=256, max_iter=2, random_state=seed).fit(X)
    return vae.transform(X[:50]).sum().item(), before, os.getpid()

if __name__ == "__main__":
    tasks = [(model, seed) for model in MODELS for seed in range(2)]
    n_cores = os.cpu_count()
    torch.set_num_threads(2)
    fit(*tasks[0])  # OpenMP has threads now, which a fork does not take along
    results = {}
    for backend in ("loky", "multiprocessing", "threading"):
        torch.set_num_threads(2 if backend != "threading" else 1)
        with parallel_config(backend, n_jobs=2):
            together = Parallel()(delayed(fit)(*task) for task in tasks)
        # Alone, with as many threads as they had together.
        torch.set_num_threads(together[0][1])
        alone = [fit(*task) for task in tasks]
        results[backend] = {
            "same": [one[0] == other[0] for one, other in zip(together, alone)],
            "threads": 2 * max(n_threads for _, n_threads, _ in together),
            "processes": len({process for *_, process in together} | {os.getpid()}),
        }
    print(json.dumps(results | {"cores": n_cores}))
"""


@pytest.mark.slow
def test_fits_under_the_backends_of_joblib(tmp_path):
    script = tmp_path / "fits.py"  # loky and multiprocessing import it
    script.write_text(FITS)
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    run = subprocess.run(
        [sys.executable, "-W", "ignore", script], capture_output=True, text=True, timeout=200, env=environment
    )
    assert run.returncode == 0, run.stderr
    results = json.loads(run.stdout)
    cores = results.pop("cores")
    assert set(results) == {"loky", "multiprocessing", "threading"}
    for backend, result in results.items():
        assert all(result["same"]), backend
        assert result["threads"] <= max(cores, 2), backend
        assert (result["processes"] == 1) == (backend == "threading")


FORKS = """
import os, threading, warnings
import torch
from sklearn.datasets import load_digits
from skvae import NormalVAETransformer

torch.set_num_threads(1)
warnings.simplefilter("ignore")  # of Python about threads and forks
X = load_digits().data
encoder = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.Dropout(), torch.nn.Linear(32, 4))

def fit(n_rows):
    NormalVAETransformer(2, encoder=encoder, hidden_layer_sizes=8, max_iter=2, random_state=0).fit(X[:n_rows])

def fit_on():
    while True:
        fit(1000)

for _ in range(2):
    threading.Thread(target=fit_on, daemon=True).start()
for _ in range(10):
    child = os.fork()
    if not child:
        fit(100)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
os._exit(0)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_children_forked_beside_fits_do_not_hang():
    """A module of the user's own draws from torch's global generator, whose lock another thread may hold."""
    subprocess.run([sys.executable, "-c", FORKS], check=True, timeout=120)


FORK_AFTER_A_FIT = """
import os
from sklearn.datasets import make_blobs
from sklearn.mixture import GaussianMixture
from skvae import NormalVAETransformer

X, _ = make_blobs(2000, 6, centers=5, random_state=0)
vae = NormalVAETransformer(2, hidden_layer_sizes=8, max_iter=2, random_state=0).fit(X)
child = os.fork()
if not child:
    vae.fit(X)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_fits_after_its_parent_has():
    """scikit-learn, imported first, has threads of its own, which a child does not have."""
    environment = os.environ | {"OMP_NUM_THREADS": "2"}
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORK_AFTER_A_FIT], check=True, timeout=120, env=environment)


IMPORTS = """
import sys
from sklearn.datasets import load_digits
from skvae import ContinuousBernoulliVAETransformer, NormalVAETransformer

X = load_digits().data[:100]
before = set(sys.modules)
for estimator_class in (NormalVAETransformer, ContinuousBernoulliVAETransformer):
    estimator_class(2, hidden_layer_sizes=8, max_iter=2, random_state=0).fit(X)
print(*sorted(set(sys.modules) - before))
"""


def test_a_fit_imports_nothing():
    """A child that is forked while another thread imports a module waits for that module forever."""
    done = subprocess.run([sys.executable, "-c", IMPORTS], check=True, capture_output=True, text=True)
    assert not done.stdout.split()


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs signals")
def test_ctrl_c_within_a_minibatch(estimator_class, digits):
    """One epoch of many minibatches: the interruption comes in its middle, and its end is not waited for."""
    estimator = make(estimator_class).fit(digits)
    before = bits(estimator, digits)
    rows = np.tile(digits, (100, 1))
    old = signal.signal(signal.SIGINT, signal.default_int_handler)
    ended = []

    class Watch(Callback):
        def on_fit_task_end(self, estimator, context):
            ended.append(context.task_name)

    interrupt = threading.main_thread().ident, signal.SIGINT
    timer = threading.Timer(0.5, signal.pthread_kill, interrupt)
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            estimator.set_params(batch_size=2, max_iter=1000).set_callbacks(Watch()).fit(rows)
    finally:
        timer.cancel()
        signal.signal(signal.SIGINT, old)
    assert ended == []
    assert bits(estimator, digits) == before


def test_a_transform_beside_a_refit_is_of_one_model(estimator_class, digits):
    """What another thread fits, and how wide its data are, changes nothing of a call that has begun."""
    narrow, wide = np.tile(digits[:, :30], (200, 1)), np.tile(digits, (1, 2)) * 3
    parameters = {"encoder": "dense", "max_iter": 1}
    models = [make(estimator_class, **parameters).fit(data) for data in (digits[:, :30], wide)]
    shared = make(estimator_class, **parameters).fit(digits[:, :30])
    expected = models[0].transform(narrow)
    stop = threading.Event()

    def refit():
        while not stop.is_set():
            for data in (wide, digits[:, :30]):
                shared.fit(data)

    thread = threading.Thread(target=refit)
    thread.start()
    outcomes = []
    try:
        for _ in range(20):
            try:
                outcomes.append(np.array_equal(shared.transform(narrow), expected))
            except ValueError as error:
                outcomes.append("features" in str(error))
    finally:
        stop.set()
        thread.join()
    assert all(outcomes)
