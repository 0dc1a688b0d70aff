"""Measure this library against its alternatives and against the matrix products that nobody can avoid.

    python examples/benchmarks                        # everything, about twenty minutes on two cores
    python examples/benchmarks --sections training    # a part; the others keep their last figures

Contestants run in turn in one process; every figure is a median with its quartiles, and ratios are taken within a
round. The results go to docs/results/benchmarks.json and benchmarks.md, and a plot to docs/images/benchmarks.png.
What it compares with, ``pip install -e ".[benchmarks]"`` installs.
"""

import argparse
import json
import os
import shutil
import sys
import warnings
from pathlib import Path

import deployment
import fitting
import inference
import loading
import matplotlib
import memory
import parts
import report
import search
import torch
import training
from harness import machine
from sklearn.exceptions import ConvergenceWarning

matplotlib.use("Agg")

DOCS = Path(__file__).parents[2] / "docs"


def main():
    """Run the sections that are asked for and write the report."""
    sections = {
        "training": lambda seconds: training.measure(seconds, with_compiler=shutil.which("g++") is not None),
        "parts": parts.measure,
        "fitting": fitting.measure,
        "inference": inference.measure,
        "memory": lambda seconds: memory.measure(),
        "loading": lambda seconds: loading.measure(),
        "deployment": deployment.measure,
        "search": lambda seconds: search.measure(),
    }
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sections", nargs="+", choices=sections, default=list(sections))
    parser.add_argument("--seconds", type=float, default=40, help="time for each comparison (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="default: one for each core")
    parser.add_argument("--output", type=Path, default=DOCS, help="folder that gets results/ and images/")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)  # for the processes that are started
    warnings.simplefilter("ignore", ConvergenceWarning)

    path = arguments.output / "results" / "benchmarks.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    results = json.loads(path.read_text()) if path.exists() else {}
    for name in arguments.sections:
        sys.stdout.write(f"{name} ...\n")
        sys.stdout.flush()
        results[name] = {"machine": machine(), "figures": sections[name](arguments.seconds)}
        path.write_text(json.dumps(results, indent=1) + "\n")
    report.write(results, arguments.output)


if __name__ == "__main__":
    main()
