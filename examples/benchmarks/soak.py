"""Fit, use, save and drop models for ten minutes, and show that memory, threads and open files stay where they are.

Each round fits both VAEs and both CNNs to the digits, also in parts and with a checkpoint, uses all their methods,
pickles and loads them. The figure, with the numbers behind it, goes to docs/images/soak.png and docs/results/soak.json.

    python examples/benchmarks/soak.py --minutes 10
"""

import argparse
import gc
import json
import os
import pickle
import tempfile
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from sklearn.datasets import load_digits

from skvae import ContinuousBernoulliVAETransformer, NormalVAETransformer
from skvae.classifiers import MultilayerCNNClassifier, SimpleCNNClassifier

DOCS = Path(__file__).parents[2] / "docs"


def one_round(X, y, folder):
    """Fit, use, save, load and drop a model of each kind."""
    for vae_class in (NormalVAETransformer, ContinuousBernoulliVAETransformer):
        vae = vae_class(10, max_iter=3, checkpoint=Path(folder) / f"{time.monotonic_ns()}").fit(X)
        vae.checkpoint.unlink()
        vae.inverse_transform(vae.transform(X))
        vae.score_samples(X[:100], n_importance_samples=8)
        vae.sample(100)
        pickle.loads(pickle.dumps(vae)).set_params(warm_start=True, checkpoint=None).fit(X)
        vae_class(10).partial_fit(X).partial_fit(X)
    for classifier_class in (SimpleCNNClassifier, MultilayerCNNClassifier):
        classifier = classifier_class(max_iter=2).fit(X / 16, y)
        pickle.loads(pickle.dumps(classifier)).predict(X / 16)


def held():
    """Return resident memory in MB, threads and open files of this process."""
    gc.collect()
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {
        "megabytes": int(status["VmRSS"].split()[0]) / 1024,
        "threads": int(status["Threads"]),
        "files": len(os.listdir("/proc/self/fd")),
    }


def draw(rounds, path):
    """Draw what was held after each round."""
    figure, axes = plt.subplots(3, 1, figsize=(7, 5), layout="constrained", sharex=True)
    labels = {"megabytes": "memory, MB", "threads": "threads", "files": "open files"}
    for ax, (name, label) in zip(axes, labels.items(), strict=True):
        values = [row[name] for row in rounds]
        ax.plot([row["minutes"] for row in rounds], values)
        ax.set(ylabel=label, ylim=(0, 1.2 * max(values)))
    axes[-1].set_xlabel(f"minutes ({len(rounds)} rounds)")
    figure.savefig(path, dpi=90)


def main():
    """Run for as long as the command line asks for, and draw what was held."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--output", type=Path, default=DOCS, help="folder that gets results/ and images/")
    options = parser.parse_args()
    X, y = load_digits(return_X_y=True)
    rounds = []
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        while time.perf_counter() - start < 60 * options.minutes:
            one_round(X, y, folder)
            rounds.append({"minutes": (time.perf_counter() - start) / 60, **held()})
            print(f"round {len(rounds)}", *(f"{name} {value:.1f}" for name, value in rounds[-1].items()), flush=True)
    for name in ("results", "images"):
        (options.output / name).mkdir(parents=True, exist_ok=True)
    (options.output / "results" / "soak.json").write_text(json.dumps(rounds, indent=1) + "\n")
    draw(rounds, options.output / "images" / "soak.png")


if __name__ == "__main__":
    main()
