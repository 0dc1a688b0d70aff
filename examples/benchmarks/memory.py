"""Peak memory of fits and transforms beyond the data, by dtype and for a memory map larger than is comfortable."""

import tempfile
from pathlib import Path

import numpy as np
from harness import PeakMemory, in_a_process
from training import MODELS


def use(model, kind, n_rows, batch_size):
    """Return the peak growth of anonymous memory of a fit of one epoch and of a transform.

    Parameters
    ----------
    model : str
        Which estimator.
    kind : {"float32", "float64", "uint8", "memory map"}
        What the data is; a memory map holds uint8.
    n_rows, batch_size : int
        How much of it, 784 features wide, and how much at a time.
    """
    fitted = MODELS[model](max_iter=1, batch_size=batch_size, random_state=0)
    with tempfile.TemporaryDirectory() as folder:
        if kind == "memory map":
            X = np.lib.format.open_memmap(Path(folder) / "X.npy", "w+", np.uint8, (n_rows, 784))
            random = np.random.RandomState(0)
            for start in range(0, n_rows, 10_000):
                X[start : start + 10_000] = random.randint(0, 256, X[start : start + 10_000].shape, dtype=np.uint8)
            X.flush()
            X = np.load(Path(folder) / "X.npy", mmap_mode="r")
        else:
            X = np.random.RandomState(0).randint(0, 256, (n_rows, 784), dtype=np.uint8).astype(kind)
        MODELS[model](max_iter=1, random_state=0).fit(np.zeros((200, 784), np.uint8))
        with PeakMemory() as fit:
            fitted.fit(X)
        with PeakMemory() as transform:
            Z = fitted.transform(X)
    return {"fit": fit.megabytes, "transform": transform.megabytes, "output": Z.nbytes / 1e6, "data": X.nbytes / 1e6}


def measure():
    """Return the table; each row is measured in a process of its own."""
    cases = [("normal", kind, 60_000, 128) for kind in ("float32", "float64", "uint8", "memory map")]
    cases += [("normal", "memory map", 600_000, 512), ("continuous Bernoulli", "uint8", 10_000, 128)]
    return [
        {
            "model": model,
            "data": kind,
            "rows": n_rows,
            "megabytes": in_a_process("memory", "use", model=model, kind=kind, n_rows=n_rows, batch_size=batch_size),
        }
        for model, kind, n_rows, batch_size in cases
    ]
