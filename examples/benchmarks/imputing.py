"""Fill missing entries of the panel's tables with VAEs and with scikit-learn's imputers.

    python examples/benchmarks/imputing.py                                   # everything; goes on where it stopped
    python examples/benchmarks/imputing.py --fresh                           # from the beginning
    python examples/benchmarks/imputing.py --sets iris sensors --imputers KNNImputer
    python examples/benchmarks/imputing.py --part validation --output /tmp   # for choices

A quarter of the entries is hidden at random, in the rows that are fitted and in those that are held out. An imputer
learns from the incomplete rows, and fills the held-out ones. The columns are standardized by what is not hidden.
Those that hardly vary are left out, such as pixels at the corners of images: in units of their standard deviation, one
rare value would weigh more than all others together.

The test rows are for the result: it goes to docs/results/imputation.json and docs/guide/missing_values.md. Choices are
made with ``--part validation``, which fits and measures on other rows, and writes results/imputation_validation.json
and nothing else. Data come from the same packages as those of panel.py.
"""

import argparse
import json
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import imputing_report
import numpy as np
from harness import machine
from panel_data import LOADERS, data_sets
from panel_measures import accuracies, number
from sklearn.decomposition import PCA
from sklearn.experimental import enable_iterative_imputer  # noqa: F401 (makes it importable)
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer
from sklearn.preprocessing import StandardScaler

from skvae import NormalVAETransformer
from skvae.impute import VAEImputer

DOCS = Path(__file__).parents[2] / "docs"
PAGE = "missing_values.md"

# The columns of a table are standardized here: it is the same with and without "raw".
SETS = [name for name in LOADERS if not name.endswith(", raw")]

HIDDEN_SHARE = 0.25

# As many draws tell the interval of an entry.
N_DRAWS = 100

# The largest share of the rows that may have the same value in a column.
SAME_SHARE = 0.95

# Wider tables have as many rows to fit and to fill, and IterativeImputer sees as many columns at a time.
WIDE, ROWS_OF_WIDE, HELD_OUT_ROWS_OF_WIDE, COLUMNS_OF_WIDE = 100, 1000, 500, 50


@dataclass(frozen=True)
class Holes:
    """A table whose columns are standardized by what is observed, complete and with NaN where entries are hidden."""

    complete: np.ndarray
    X: np.ndarray
    complete_held_out: np.ndarray
    X_held_out: np.ndarray
    n_components: int
    y: np.ndarray | None
    y_held_out: np.ndarray | None

    @classmethod
    def of(cls, part):
        """Return a part of a set of the panel with holes."""
        n_rows, n_held_out = (ROWS_OF_WIDE, HELD_OUT_ROWS_OF_WIDE) if part.X.shape[1] > WIDE else (None, None)
        rng = np.random.default_rng(0)
        complete, complete_held_out = part.X[:n_rows].astype(float), part.X_held_out[:n_held_out].astype(float)
        varying = [np.unique(column, return_counts=True)[1].max() <= SAME_SHARE * len(column) for column in complete.T]
        complete, complete_held_out = complete[:, varying], complete_held_out[:, varying]
        X, X_held_out = (hide(rows, rng) for rows in (complete, complete_held_out))
        scaler = StandardScaler().fit(X)
        arrays = (scaler.transform(rows) for rows in (complete, X, complete_held_out, X_held_out))
        labels = (None, None) if part.y is None else (part.y[:n_rows], part.y_held_out[:n_held_out])
        return cls(*arrays, part.n_components, *labels)

    def error(self, filled):
        """Return the root mean square error of the hidden entries of the held-out rows."""
        return number(np.sqrt(np.mean((filled - self.complete_held_out)[np.isnan(self.X_held_out)] ** 2)))

    def coverage(self, draws):
        """Return the share of the hidden entries of the held-out rows that lie within 90 % of their draws."""
        hidden = np.isnan(self.X_held_out)
        low, high = np.quantile(draws[:, hidden], (0.05, 0.95), axis=0)
        truth = self.complete_held_out[hidden]
        return number(np.mean((low <= truth) & (truth <= high)))


def hide(X, rng):
    """Return rows with NaN at random, with at least one entry left in each row and in each column."""
    hidden = rng.random(X.shape) < HIDDEN_SHARE
    rows, columns = hidden.all(axis=1), hidden.all(axis=0)
    hidden[rows, rng.integers(X.shape[1], size=rows.sum())] = False
    hidden[rng.integers(len(X), size=columns.sum()), columns] = False
    return np.where(hidden, np.nan, X)


def iterative_imputer(n_columns):
    """Return an IterativeImputer, which on wide tables takes a part of the columns at a time."""
    return IterativeImputer(n_nearest_features=COLUMNS_OF_WIDE if n_columns > WIDE else None, random_state=0)


# Each imputer for a table with so many columns.
IMPUTERS = {
    "SimpleImputer": lambda n_columns: SimpleImputer(),
    "KNNImputer": lambda n_columns: KNNImputer(),
    "IterativeImputer": iterative_imputer,
    "VAEImputer": lambda n_columns: VAEImputer(random_state=0),
}

# The VAE with as many components as the panel has for a table; it is measured by more than its error.
VAE = "NormalVAETransformer"


def seconds_of(call):
    """Return what a call returns, and how long it takes."""
    start = time.perf_counter()
    result = call()
    return result, number(time.perf_counter() - start, 3)


def measure(name, table):
    """Return the error of an imputer, how long it took, and what else is measured of it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if name == VAE:
            return measure_vae(table)
        imputer = IMPUTERS[name](table.X.shape[1])
        filled, seconds = seconds_of(lambda: imputer.fit(table.X).transform(table.X_held_out))
        measured = {"rmse": table.error(filled), "seconds": seconds}
        if name == "SimpleImputer":
            measured |= accuracy_of_pca(imputer.transform(table.X), filled, table)
    return measured


def measure_vae(table):
    """Return what is measured of a VAE."""
    vae = NormalVAETransformer(table.n_components, random_state=0)
    _, seconds_complete = seconds_of(lambda: vae.fit(table.complete))
    _, seconds_fit = seconds_of(lambda: vae.fit(table.X))
    filled, seconds_impute = seconds_of(lambda: vae.impute(table.X_held_out, random_state=0))
    draws = vae.impute(table.X_held_out, n_draws=N_DRAWS, random_state=0)
    return {
        "rmse": table.error(filled),
        "seconds": number(seconds_fit + seconds_impute, 3),
        "seconds_fit": seconds_fit,
        "seconds_fit_complete": seconds_complete,
        "coverage": table.coverage(draws),
        **accuracies(table, vae.transform(table.X), vae.transform(table.X_held_out)),
    }


def accuracy_of_pca(filled, filled_held_out, table):
    """Return the accuracy of classifiers on as many principal components of rows that have been filled."""
    pca = PCA(table.n_components, random_state=0).fit(filled)
    return accuracies(table, pca.transform(filled), pca.transform(filled_held_out))


def run(arguments, results, save):
    """Measure what is missing from `results`, and call `save` after each measurement."""
    for name, load in data_sets().items():
        measured = results.get(name, {"imputers": {}})["imputers"]
        missing = [imputer for imputer in arguments.imputers if imputer not in measured]
        if name not in arguments.sets or not missing:
            continue
        part = load().part(arguments.part)
        table = Holes.of(part)
        size = {
            "rows": len(table.X),
            "rows_held_out": len(table.X_held_out),
            "columns": table.X.shape[1],
            "n_components": table.n_components,
        }
        entry = results[name] = size | {"imputers": measured}
        for imputer in missing:
            entry["imputers"][imputer] = measure(imputer, table)
            print(f"{name}, {imputer}: {entry['imputers'][imputer]}", flush=True)
            save()


def parse():
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS, metavar="SET")
    parser.add_argument("--imputers", nargs="+", choices=[*IMPUTERS, VAE], default=[*IMPUTERS, VAE])
    parser.add_argument("--part", choices=("validation", "test"), default="test", help="default: %(default)s")
    parser.add_argument("--fresh", action="store_true", help="measure again what has been measured")
    parser.add_argument("--output", type=Path, default=DOCS, help="folder that gets results/ and the page")
    return parser.parse_args()


def main():
    """Measure, and write the results."""
    arguments = parse()
    path = arguments.output / "results" / ("imputation" + "_validation" * (arguments.part == "validation") + ".json")
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = json.loads(path.read_text()) if path.exists() else {"sets": {}}
    if arguments.fresh:
        for name in arguments.sets:
            for imputer in arguments.imputers:
                kept["sets"].get(name, {"imputers": {}})["imputers"].pop(imputer, None)
    content = {"machine": machine(), "sets": kept["sets"]}

    def save():
        path.write_text(json.dumps(content, indent=1) + "\n")

    run(arguments, content["sets"], save)
    content["sets"] = {name: content["sets"][name] for name in SETS if name in content["sets"]}
    save()
    if arguments.part == "test":
        imputing_report.write(content, (DOCS / "guide" / PAGE).read_text(), arguments.output / "guide" / PAGE)


if __name__ == "__main__":
    main()
