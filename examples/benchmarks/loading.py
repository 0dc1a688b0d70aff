"""Starting a process: importing, loading a fitted model, the first prediction."""

import tempfile
import time
from pathlib import Path

import joblib
from harness import images, median_of_processes


def first_prediction(path):
    """Return the seconds that loading a pickle and transforming one row take, once skvae is imported."""
    import numpy as np

    import skvae  # noqa: F401

    start = time.perf_counter()
    fitted = joblib.load(path)
    loaded = time.perf_counter()
    fitted.transform(np.zeros((1, 784), np.uint8))
    return {"load": loaded - start, "first transform": time.perf_counter() - loaded}


def measure():
    """Return seconds and file sizes, medians over five processes."""
    from training import MODELS

    results = {"import": median_of_processes("starting", "importing"), "models": []}
    with tempfile.TemporaryDirectory() as folder:
        for model, estimator in MODELS.items():
            path = Path(folder) / "model.joblib"
            joblib.dump(estimator(max_iter=1, random_state=0).fit(images(1000)), path)
            seconds = median_of_processes("loading", "first_prediction", path=str(path))
            results["models"].append({"model": model, "megabytes": path.stat().st_size / 1e6, **seconds})
    return results
