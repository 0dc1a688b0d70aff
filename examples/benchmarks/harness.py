"""Timing contestants in turn, measuring memory in processes of their own, and describing the machine."""

import json
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import sklearn
import torch
from sklearn.datasets import load_digits

import skvae
from skvae.datasets import fetch_fashion_mnist

HERE = Path(__file__).parent


def machine():
    """Return what the figures depend on: processor, threads and versions."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), model)
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "vector instructions": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "scikit-learn": sklearn.__version__,
        "numpy": np.__version__,
        "skvae": skvae.__version__,
    }


def images(n_rows):
    """Return `n_rows` uint8 images of 28 x 28: Fashion-MNIST if it is there, else digits of scikit-learn, enlarged."""
    try:
        data = fetch_fashion_mnist(subset="train", return_X_y=True)[0]
    except OSError:
        digits = load_digits().images
        data = np.pad(digits.repeat(3, axis=1).repeat(3, axis=2), ((0, 0), (2, 2), (2, 2))) * 15.9375
        data = data.reshape(len(data), -1).astype(np.uint8)
    return np.ascontiguousarray(np.resize(data, (n_rows, data.shape[1])))


def in_turn(contestants, *, seconds, n_rounds=5):
    """Time callables in turn, each once a round, so that a busy machine is busy for all of them.

    Parameters
    ----------
    contestants : dict of str to callable
        What to time. A first call of each is not counted.
    seconds : float
        How long to go on, once `n_rounds` rounds are done.
    n_rounds : int, default=5
        The fewest rounds.

    Returns
    -------
    dict of str to list of float
        Seconds, by contestant and round.
    """
    for contestant in contestants.values():
        contestant()
    times = {name: [] for name in contestants}
    start = time.perf_counter()
    while time.perf_counter() - start < seconds or len(next(iter(times.values()))) < n_rounds:
        for name, contestant in contestants.items():
            before = time.perf_counter()
            contestant()
            times[name].append(time.perf_counter() - before)
    return times


def quartiles(values):
    """Return the median and the quartiles of `values`."""
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75])
    return {"median": float(median), "quartiles": [float(low), float(high)]}


def ratios(times, reference):
    """Return the quartiles of each contestant's time over the reference's in the same round."""
    return {
        name: quartiles([a / b for a, b in zip(values, times[reference], strict=True)])
        for name, values in times.items()
    }


def anonymous_memory():
    """Return the bytes of memory of this process that no file backs."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    raise OSError("This system does not tell how much anonymous memory a process has (RssAnon).")


class PeakMemory:
    """The largest growth of anonymous memory while the context is open, sampled every two milliseconds."""

    def __enter__(self):
        """Start to watch."""
        self._before = self._largest = anonymous_memory()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self):
        while not self._done.wait(0.002):
            self._largest = max(self._largest, anonymous_memory())

    def __exit__(self, *exception):
        """Stop, and set `megabytes`."""
        self._done.set()
        self._thread.join()
        self.megabytes = (max(self._largest, anonymous_memory()) - self._before) / 1e6


def in_a_process(module, function, **arguments):
    """Return what ``module.function(**arguments)`` returns in a fresh process, where nothing has been allocated yet."""
    code = (
        "import importlib, json, sys, warnings; warnings.simplefilter('ignore'); sys.path.insert(0, sys.argv[1]); "
        "result = getattr(importlib.import_module(sys.argv[2]), sys.argv[3])(**json.loads(sys.argv[4])); "
        "print(json.dumps(result))"
    )
    command = [sys.executable, "-c", code, str(HERE), module, function, json.dumps(arguments)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(output.splitlines()[-1])


def median_of_processes(module, function, n_processes=5, **arguments):
    """Return the median of each number that the function returns over `n_processes` fresh processes."""
    results = [in_a_process(module, function, **arguments) for _ in range(n_processes)]
    return {name: statistics.median(result[name] for result in results) for name in results[0]}
