"""Measure this library against its alternatives and against the matrix products that nobody can avoid.

    python examples/benchmarks                        # all sections, about half an hour on two cores
    python examples/benchmarks --sections training    # a part; the others keep their last figures
    python examples/benchmarks --sections gpu         # some minutes on a machine with a CUDA device

Contestants run in turn in one process; every figure is a median with its quartiles, and ratios are taken within a
round. The results go to docs/results/benchmarks.json and benchmarks.md, and a plot to docs/images/benchmarks.png.
How good a fit is in how much time has scripts of its own, each of which goes on where it stopped::

    python examples/benchmarks/time_to_quality.py     # three hours on one core
    python examples/benchmarks/panel.py               # some ten minutes
    python examples/benchmarks/imputing.py            # some twenty minutes

What it compares with, ``pip install -e ".[benchmarks]"`` installs.
"""

import argparse
import importlib
import json
import os
import shutil
import sys
import warnings
from pathlib import Path

import matplotlib
import report
import torch
from harness import machine
from sklearn.exceptions import ConvergenceWarning

matplotlib.use("Agg")

DOCS = Path(__file__).parents[2] / "docs"

# Each section is a module; what its function `measure` is called with, given the seconds for each comparison.
SECTIONS = {
    "training": lambda seconds: {"seconds": seconds, "with_compiler": shutil.which("g++") is not None},
    "defaults": lambda seconds: {"seconds": seconds},
    "parts": lambda seconds: {"seconds": seconds},
    "fitting": lambda seconds: {"seconds": seconds},
    "start": lambda seconds: {"seconds": seconds},
    "growth": lambda seconds: {},
    "inference": lambda seconds: {"seconds": seconds},
    "memory": lambda seconds: {},
    "loading": lambda seconds: {},
    "deployment": lambda seconds: {"seconds": seconds},
    "search": lambda seconds: {},
    "gpu": lambda seconds: {},
}


def main():
    """Run the sections that are asked for and write the report."""
    default = [name for name in SECTIONS if name != "gpu" or torch.cuda.is_available()]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=default)
    parser.add_argument("--seconds", type=float, default=40, help="time for each comparison (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="default: one for each core")
    parser.add_argument("--output", type=Path, default=DOCS, help="folder that gets results/ and images/")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)  # for the processes that are started
    warnings.simplefilter("ignore", ConvergenceWarning)
    # Timings take an epoch or two.
    warnings.filterwarnings("ignore", message=".* components are active|The decoder does not begin at a linear model")

    path = arguments.output / "results" / "benchmarks.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    results = json.loads(path.read_text()) if path.exists() else {}
    for name in arguments.sections:
        sys.stdout.write(f"{name} ...\n")
        sys.stdout.flush()
        # What a section compares with is imported with it.
        figures = importlib.import_module(name).measure(**SECTIONS[name](arguments.seconds))
        results[name] = {"machine": machine(), "figures": figures}
        path.write_text(json.dumps(results, indent=1) + "\n")
    report.write(results, arguments.output)


if __name__ == "__main__":
    main()
