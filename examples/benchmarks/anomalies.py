"""Measure how well detectors find anomalies, and whether their thresholds hold for later rows.

    python examples/benchmarks/anomalies.py          # ten minutes on one core
    python examples/benchmarks/anomalies.py --fresh  # what has been measured is measured again

Every contestant is the estimator of a `DensityOutlierDetector`, which finds the threshold of 1 % false alarms by
cross-fitting. The results go to docs/results/anomalies.json and to the tables of docs/guide/scores.md.
"""

import argparse
import json
import warnings
from pathlib import Path

import numpy as np
from harness import machine
from panel_data import LOADERS, split
from panel_measures import number
from panel_report import fill
from report import table
from sklearn.base import BaseEstimator, clone
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import LocalOutlierFactor

from skvae import NormalVAETransformer
from skvae.outliers import DensityOutlierDetector

DOCS = Path(__file__).parents[2] / "docs"

# The share of usual rows that may be called outliers.
FALSE_ALARMS = 0.01


class ReconstructionError(BaseEstimator):
    """The squared error of the reconstructions of a transformer, times -1, in the place of a log density.

    Parameters
    ----------
    transformer : object
        A transformer that has an inverse.
    """

    def __init__(self, transformer):
        self.transformer = transformer

    def fit(self, X, y=None):
        """Fit the transformer."""
        self.transformer_ = clone(self.transformer).fit(X)
        return self

    def score_samples(self, X):
        """Return the sum of squares that a reconstruction leaves of each row, times -1."""
        reconstructed = self.transformer_.inverse_transform(self.transformer_.transform(X))
        return -np.square(reconstructed - X).sum(axis=1)


# What is compared, given the number of components.
CONTESTANTS = {
    "normal VAE, density": lambda k: NormalVAETransformer(k, random_state=0),
    "normal VAE, reconstruction error": lambda k: ReconstructionError(NormalVAETransformer(k, random_state=0)),
    "PCA, density": lambda k: PCA(k, random_state=0),
    "PCA, reconstruction error": lambda k: ReconstructionError(PCA(k, random_state=0)),
    "GaussianMixture(10)": lambda k: GaussianMixture(10, reg_covar=1e-3, random_state=0),
    "IsolationForest": lambda k: IsolationForest(random_state=0),
    "LocalOutlierFactor": lambda k: LocalOutlierFactor(novelty=True),
}


def drifting_sensors():
    """Return twelve sensors of a state of two numbers, which they read through curves.

    In an anomaly one sensor is off by half to one of its standard deviations.
    """
    rng = np.random.default_rng(0)
    n_rows, n_anomalies, n_sensors = 3000, 2000, 12
    state = rng.uniform(-1, 1, size=(n_rows + n_anomalies, 2))
    linear, bent = rng.normal(size=(2, 2, n_sensors))
    phase = rng.uniform(0, 2 * np.pi, n_sensors)
    X = state @ linear + np.sin(2 * state @ bent + phase) + 0.1 * rng.normal(size=(len(state), n_sensors))
    usual, anomalies = X[:n_rows], X[n_rows:].copy()
    sensor = rng.integers(n_sensors, size=n_anomalies)
    drift = rng.choice([-1, 1], n_anomalies) * rng.uniform(0.5, 1, n_anomalies) * usual.std(axis=0)[sensor]
    anomalies[np.arange(n_anomalies), sensor] += drift
    return split(usual, 3, anomalies=anomalies, standardized=True)


SETS = {
    "one of twelve sensors drifts": drifting_sensors,
    "two of fourteen sensors read another row": LOADERS["sensors"],
    "malignant tumors among benign ones": LOADERS["malignant tumors"],
}


def measure(estimator, part):
    """Return how well anomalies are told from later usual rows, and what is found and what is not at the threshold."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        detector = DensityOutlierDetector(estimator, contamination=FALSE_ALARMS, random_state=0).fit(part.X)
    usual, strange = (detector.decision_function(X) for X in (part.X_held_out, part.anomalies))
    known = np.mean(detector.score_samples(part.X_held_out) < np.quantile(detector.score_samples(part.X), FALSE_ALARMS))
    labels = np.repeat([0, 1], [len(usual), len(strange)])
    return {
        "auc": number(roc_auc_score(labels, -np.concatenate([usual, strange]))),
        "found": number(np.mean(strange < 0)),
        "false_alarms": number(np.mean(usual < 0)),
        "false_alarms_of_training_threshold": number(known),
    }


def tables(sets):
    """Return a table for each set."""
    parts = []
    for name, entry in sets.items():
        rows = [
            [contestant, *(f"{found[key]:.3f}" for key in ("auc", "found", "false_alarms"))]
            + [f"{found['false_alarms_of_training_threshold']:.3f}"]
            for contestant, found in entry["contestants"].items()
        ]
        header = [name, "AUC", "found", "false alarms", "with the threshold of the training rows"]
        size = f"{entry['rows']:,} usual rows of {entry['columns']} columns to fit, {entry['usual']:,} others and "
        parts.append(table(header, rows) + f"\n*{size}{entry['anomalies']:,} anomalies to find.*")
    return "\n\n".join(parts)


def main():
    """Measure what is missing, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fresh", action="store_true", help="measure again what has been measured")
    parser.add_argument("--output", type=Path, default=DOCS, help="folder that gets results/ and the page")
    arguments = parser.parse_args()
    path = arguments.output / "results" / "anomalies.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    sets = json.loads(path.read_text())["sets"] if path.exists() and not arguments.fresh else {}
    for name, load in SETS.items():
        part = load().part("test")
        sizes = {"rows": len(part.X), "columns": part.X.shape[1], "usual": len(part.X_held_out)}
        entry = sets.setdefault(name, sizes | {"anomalies": len(part.anomalies), "contestants": {}})
        for contestant, make in CONTESTANTS.items():
            if contestant not in entry["contestants"]:
                entry["contestants"][contestant] = measure(make(part.n_components), part)
                print(f"{name}, {contestant}: {entry['contestants'][contestant]}", flush=True)
                path.write_text(json.dumps({"machine": machine(), "sets": sets}, indent=1) + "\n")
    page = (DOCS / "guide" / "scores.md").read_text()
    (arguments.output / "guide").mkdir(exist_ok=True)
    (arguments.output / "guide" / "scores.md").write_text(fill(page, {"anomalies": tables(sets)}))


if __name__ == "__main__":
    main()
