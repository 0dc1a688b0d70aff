"""Searches on real clusters of Dask and Ray, of two worker processes on this machine, are those of one process."""

import contextlib
import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

import joblib
import pytest
import torch
from cluster_steps import KilledOnce, process_and_threads
from sklearn.callback import ProgressBar
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold, cross_val_score
from sklearn.pipeline import make_pipeline

from skvae import ContinuousBernoulliVAETransformer, NormalVAETransformer
from skvae.callbacks import SampleMonitor
from skvae.classifiers import MultilayerCNNClassifier
from skvae.model_selection import regime_search, regime_table

EXAMPLES = Path(__file__).parents[1] / "examples" / "benchmarks"
sys.path.append(str(EXAMPLES))

from search_on_a_cluster import CLUSTERS, dask_cluster


@pytest.fixture(scope="module")
def data():
    X, y = load_digits(return_X_y=True)
    return X[:500], y[:500]


@contextlib.contextmanager
def steps_on_path():
    """Let processes that are started find cluster_steps.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        yield


@pytest.fixture(scope="module", params=CLUSTERS)
def engine(request):
    """The name of an engine of which two workers are running, and its client, if it has one."""
    with steps_on_path(), CLUSTERS[request.param](2) as client:
        yield request.param, client


def make_search(monitor=None):
    settings = {"n_components": 5, "hidden_layer_sizes": 16, "max_iter": 3, "random_state": 0}
    search = regime_search(
        {"normal": NormalVAETransformer(**settings), "cb": ContinuousBernoulliVAETransformer(**settings)},
        {"logistic": LogisticRegression(max_iter=200), "cnn": MultilayerCNNClassifier(max_iter=2, random_state=0)},
        n_jobs=-1,
    )
    return search if monitor is None else search.set_callbacks(monitor, ProgressBar(max_propagation_depth=0))


@pytest.fixture(scope="module")
def alone(data):
    """Table and samples of the search in this process."""
    before, monitor = torch.get_num_threads(), SampleMonitor(random_state=0)
    torch.set_num_threads(1)
    with joblib.parallel_config("sequential"):
        table = regime_table(make_search(monitor).fit(*data))
    torch.set_num_threads(before)
    return table, monitor.get_samples()


def drawn(samples):
    return {(epoch, array.tobytes()) for fit in samples for epoch, array in fit.items()}


def test_the_table_is_that_of_one_process_to_the_bit_and_callbacks_report(engine, data, alone):
    monitor = SampleMonitor(random_state=0)
    with joblib.parallel_config(engine[0]):
        table = regime_table(make_search(monitor).fit(*data))
    assert table.equals(alone[0])
    # Two workers may both fit a model that is not in the cache yet, or one may find that of the other.
    assert drawn(monitor.get_samples()) == drawn(alone[1])


def test_workers_have_one_thread_each(engine):
    with joblib.parallel_config(engine[0], n_jobs=-1):
        found = joblib.Parallel()(joblib.delayed(process_and_threads)(i) for i in range(20))
    assert os.getpid() not in dict(found)
    assert {n_threads for _, n_threads in found} == {1}


def safe(engine, client, *arrays):
    """Return what `parallel_config` has to be told, so that a worker that dies takes nothing along."""
    if engine == "ray":
        return {"ray_remote_args": {"max_restarts": -1, "max_task_retries": -1}}
    client.amm.stop()  # it would delete the copies
    return {"scatter": list(arrays)}


@pytest.mark.parametrize("engine", ["dask", pytest.param("ray", marks=pytest.mark.slow)], indirect=True)
def test_a_worker_that_is_killed_does_not_lose_the_search(engine, data, tmp_path):
    X, y = data
    splits = list(KFold(6).split(X))
    pipeline = make_pipeline(
        KilledOnce(str(tmp_path / "killed")),
        NormalVAETransformer(5, hidden_layer_sizes=16, max_iter=3, random_state=0),
        LogisticRegression(max_iter=200),
    )
    with joblib.parallel_config(engine[0], **safe(*engine, X, y, *itertools.chain(*splits))):
        scores = cross_val_score(pipeline, X, y, cv=splits, n_jobs=-1)
    assert (tmp_path / "killed").exists()
    assert scores.tobytes() == cross_val_score(pipeline, X, y, cv=splits).tobytes()


@contextlib.contextmanager
def another_dask_worker(client):
    """Add a worker of one thread, which gets the environment as it is now."""
    command = ["worker", client.scheduler.address, "--nthreads", "1", "--host", "127.0.0.1", "--no-dashboard"]
    worker = subprocess.Popen(
        [sys.executable, "-m", "dask", *command], stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
    )
    try:
        client.wait_for_workers(2, timeout=60)
        yield
    finally:
        worker.terminate()
        worker.wait()


def test_threads_of_dask_workers():
    """One for each fit, also where fits are threads of one worker; more if the variables say so."""
    with steps_on_path(), pytest.MonkeyPatch.context() as patch:
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            patch.delenv(name, raising=False)
        with dask_cluster(1, "--nthreads", "2") as client:
            for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
                patch.setenv(name, "2")
            (first,) = client.scheduler_info()["workers"]
            with another_dask_worker(client):
                (second,) = set(client.scheduler_info(n_workers=-1)["workers"]) - {first}
                tasks = [
                    client.map(process_and_threads, range(10), workers=[worker], pure=False)
                    for worker in (first, second)
                ]
                found = client.gather(tasks)
    assert [{n for _, n in of_worker} for of_worker in found] == [{1}, {2}]


def test_threads_of_a_dask_worker_without_nanny(data):
    """Nobody sets them there; torch can be told before the first fit."""
    X, y = data
    vae = NormalVAETransformer(5, hidden_layer_sizes=16, max_iter=3, random_state=0)
    pipeline = make_pipeline(vae, LogisticRegression(max_iter=200))
    with steps_on_path(), pytest.MonkeyPatch.context() as patch:
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            patch.delenv(name, raising=False)
        with dask_cluster(1, "--no-nanny", "--nthreads", "2") as client:
            client.run(torch.set_num_threads, 1)
            found = client.gather(client.map(process_and_threads, range(10)))
            with joblib.parallel_config("dask"):
                scores = cross_val_score(pipeline, X, y, cv=4, n_jobs=-1)
    assert {n for _, n in found} == {1}
    assert scores.tobytes() == cross_val_score(pipeline, X, y, cv=4).tobytes()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["search_on_a_cluster.py", "dask", "--epochs", "2", "--runs", "1"], "The same scores everywhere."),
        (["search_on_a_cluster.py", "ray", "--epochs", "2", "--runs", "1"], "The same scores everywhere."),
        (["ray_batches.py"], r"1797 rows, the largest difference to one process is (0\.0e\+00|\d\.\de-0[678])"),
        (
            ["larger_than_memory.py", "--files", "10", "--megabytes", "250", "--epochs", "1"],
            "288 MB of data, 250 MB for it; fit in memory: False",
        ),
    ],
    ids=["dask", "ray", "ray_batches", "larger_than_memory"],
)
def test_examples(command, expected, tmp_path):
    script, *options = command
    if script.startswith("search"):
        options += ["--output", str(tmp_path / "times.json")]
    run = subprocess.run(
        [sys.executable, str(EXAMPLES / script), *options],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert run.returncode == 0, run.stderr
    assert re.search(expected, run.stdout), run.stdout
