"""Take a grid search to a cluster of one worker and of two, on this machine, and compare with one process.

The search is an ordinary one of scikit-learn; joblib's backend takes it to Dask or Ray. Everything has one thread.

    python examples/benchmarks/search_on_a_cluster.py dask
    python examples/benchmarks/search_on_a_cluster.py ray
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import joblib
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline

from skvae import NormalVAETransformer

DOCS = Path(__file__).parents[2] / "docs"


@contextlib.contextmanager
def dask_cluster(n_workers, *options):
    """Start a scheduler and its workers as processes of their own, and yield a client of theirs."""
    from dask.distributed import Client

    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        file = Path(folder) / "scheduler.json"
        common = ["--scheduler-file", str(file), "--host", "127.0.0.1", "--no-dashboard"]
        workers = ["--nworkers", str(n_workers), "--nthreads", "1", "--local-directory", folder, *options]
        log = stack.enter_context(open(Path(folder) / "log", "w"))
        for command in (["scheduler", "--port", "0", *common], ["worker", *common, *workers]):
            process = subprocess.Popen([sys.executable, "-m", "dask", *command], stdout=log, stderr=log)
            stack.callback(process.wait)
            stack.callback(process.terminate)
        with Client(scheduler_file=str(file)) as client:
            client.wait_for_workers(n_workers, timeout=60)
            yield client


@contextlib.contextmanager
def ray_cluster(n_workers):
    """Start Ray on the loopback interface, with as many processors."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # so named, it keeps Ray on 127.0.0.1 on any system
    import ray
    from ray.util.joblib import register_ray

    ray.init(num_cpus=n_workers, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    register_ray()
    try:
        yield
    finally:
        ray.shutdown()


CLUSTERS = {"dask": dask_cluster, "ray": ray_cluster}


def make_search(n_epochs):
    """Return a search over the size of the latent space and the weight of its prior, 24 fits of much the same cost."""
    vae = NormalVAETransformer(prior="normal", batch_size=128, max_iter=n_epochs, random_state=0)
    pipeline = Pipeline([("vae", vae), ("classifier", LogisticRegression(max_iter=2000))])
    grid = {"vae__n_components": [2, 5, 10, 20], "vae__beta": [0.5, 1.0]}
    return GridSearchCV(pipeline, grid, cv=3, n_jobs=-1, refit=False)


def scores(search):
    """Return all scores of a fitted search, as bytes."""
    return b"".join(search.cv_results_[f"split{i}_test_score"].tobytes() for i in range(search.n_splits_))


def timed(search, X, y, n_runs):
    """Return the scores of a search, and the median of the seconds that it takes."""
    seconds = []
    for _ in range(n_runs):
        start = time.perf_counter()
        search.fit(X, y)
        seconds.append(time.perf_counter() - start)
    return scores(search), statistics.median(seconds)


def main():
    """Search in this process and on clusters of one and two workers; print and keep the seconds."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("engine", choices=CLUSTERS)
    parser.add_argument("--epochs", type=int, default=200, help="of each fit (default: %(default)s)")
    parser.add_argument("--runs", type=int, default=3, help="of each search, of which the median counts")
    parser.add_argument("--output", type=Path, default=DOCS / "results" / "scaling_search.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    X, y = load_digits(return_X_y=True)
    search = make_search(options.epochs)
    with joblib.parallel_config("sequential"):
        expected, seconds = timed(search, X, y, options.runs)
    times = {"in this process": seconds}
    for n_workers, name in ((1, "one worker"), (2, "two workers")):
        with CLUSTERS[options.engine](n_workers), joblib.parallel_config(options.engine):
            make_search(1).fit(X, y)  # workers import what they need when they first need it
            found, times[name] = timed(search, X, y, options.runs)
        if found != expected:
            raise RuntimeError(f"On {name} the scores are others than in one process.")
    print(f"The same scores everywhere. Seconds on {options.engine}: {times}")
    results = json.loads(options.output.read_text()) if options.output.exists() else {}
    options.output.write_text(json.dumps(results | {options.engine: times}, indent=1) + "\n")


if __name__ == "__main__":
    main()
