"""The full run on Fashion-MNIST, in pieces that are kept as soon as they are done.

A piece is one representation in one regime with one seed, under all classifiers. Fitted representations are kept too,
so that an interrupted run goes on where it stopped, and several runs on one folder share what each has finished.
"""

import json
import time
from dataclasses import asdict, dataclass

import joblib
import numpy as np
from sklearn.frozen import FrozenEstimator

from skvae.callbacks import SampleMonitor
from skvae.model_selection import regime_search
from study import models

# How many seeds each representation has in the large and in the small regime.
SEEDS = {
    "pixels": (3, 3),
    "pca": (3, 3),
    "normal_vae": (3, 3),
    "continuous_bernoulli_vae": (3, 3),
    "normal_vae, study": (3, 3),
    "continuous_bernoulli_vae, study": (1, 3),
    "normal_vae, study, dense 512": (1, 3),
    "normal_vae, study, conv 512": (0, 1),
    "continuous_bernoulli_vae, study, dense 128": (1, 3),
    "continuous_bernoulli_vae, study, data_range=(-4, 259)": (0, 1),
    "continuous_bernoulli_vae, study, dense 128, data_range=(-4, 259)": (1, 3),
}

# Rows on which the ELBO is measured; each takes forty passes through the decoder.
N_SCORED = 5000


@dataclass(frozen=True)
class Piece:
    """What one search measures.

    Attributes
    ----------
    representation : str
        Its name.
    regime : {"large", "small"}
        What the classifiers are trained on, the 60,000 images or the 10,000; they are tested on the others.
    seed : int
        Seed of representation and classifiers.
    protocol : {"refit", "unlabeled-60000"}
        Whether the representation is fitted to the regime's training images, or without labels to the 60,000.
    activation : {"relu", "identity"}
        What follows the convolution of the classifiers.
    """

    representation: str
    regime: str
    seed: int
    protocol: str = "refit"
    activation: str = "relu"

    @property
    def slug(self):
        """A name for files."""
        words = "_".join(map(str, asdict(self).values()))
        return "".join(c if c.isalnum() or c == "-" else "_" for c in words)


def plan():
    """Return the pieces, the most wanted first."""
    refit = [
        Piece(name, regime, seed)
        for seed in range(3)
        for name in SEEDS
        for regime, n_seeds in zip(models.REGIMES, SEEDS[name], strict=True)
        if seed < n_seeds
    ]
    unlabeled = [
        Piece(piece.representation, "small", piece.seed, "unlabeled-60000")
        for piece in refit
        if piece.regime == "large" and piece.representation != "pixels"
    ]
    identity = [
        Piece(piece.representation, piece.regime, 0, activation="identity")
        for piece in refit
        if piece.seed == 0 and piece.representation in models.COMPARED
    ]
    return refit + unlabeled + identity


def split(cv, X, y, regime):
    """Return the training and the test rows of a regime."""
    return list(cv.split(X, y))[models.REGIMES.index(regime)]


def keep(path, write):
    """Let `write` write a file, and put it in its place when it is whole."""
    part = path.with_suffix(".part")
    write(part)
    part.replace(path)


def fit_representation(piece, options):
    """Return the fitted representation of a piece, the seconds it took and the samples by epoch of a VAE.

    What has been fitted is not fitted again.
    """
    path = options.output / f"{Piece(piece.representation, piece.regime, piece.seed).slug}.joblib"
    if not path.exists():
        X, y, cv = models.load("fashion-mnist")
        train, _ = split(cv, X, y, piece.regime)
        transformer = models.representation(piece.representation, "fashion-mnist", options.epochs, piece.seed)
        monitor = SampleMonitor(epochs=(1, 5, 20, 50, 100, 200), random_state=0)
        is_vae = piece.representation in models.VAES
        if is_vae:
            transformer.set_callbacks(monitor)
        start = time.perf_counter()
        transformer.fit(X[train])
        kept = {"seconds": time.perf_counter() - start}
        if is_vae:
            transformer.set_callbacks()
            kept["samples"] = monitor.get_samples()[0]
        keep(path, lambda part: joblib.dump({"fitted": transformer, **kept}, part))
    return joblib.load(path)


def measure(piece, options):
    """Return what a piece gives: accuracies, training curves and, of a VAE, its history and test ELBO."""
    X, y, cv = models.load("fashion-mnist")
    train, test = split(cv, X, y, piece.regime)
    unlabeled = piece.protocol == "unlabeled-60000"
    source = Piece(piece.representation, "large" if unlabeled else piece.regime, piece.seed)
    kept = fit_representation(source, options)
    fitted = kept["fitted"]
    classifiers = models.classifiers(options.classifier_epochs, piece.seed, piece.activation)
    if piece.activation != "relu":
        del classifiers["logistic"]  # it has no activation
    search = regime_search({piece.representation: FrozenEstimator(fitted)}, classifiers, cv=[(train, test)])
    results = search.fit(X, y).cv_results_
    names = [params["classifier"].steps[0][0] for params in results["params"]]
    measured = {
        **asdict(piece),
        "accuracy": dict(zip(names, results["split0_test_score"].tolist(), strict=True)),
        "seconds": {
            "representation": kept["seconds"],
            **dict(zip(names, results["mean_fit_time"].tolist(), strict=True)),
        },
        "curves": {name: next(iter(models.curves(classifier).values())) for name, classifier in classifiers.items()},
    }
    if hasattr(fitted, "history_") and not unlabeled:
        measured["history"] = fitted.history_
        measured["test_elbo"] = fitted.score(X[test[:N_SCORED]])
        measured["active"] = int((fitted.transform(X[test]).var(axis=0) > 0.05).sum())
    return measured


def piece_path(piece, options):
    """Return where the measurements of a piece are kept."""
    return options.output / f"{piece.slug}.json"


def run(options):
    """Measure what is missing of the plan."""
    for piece in plan():
        path = piece_path(piece, options)
        if path.exists():
            continue
        measured = measure(piece, options)
        keep(path, lambda part, measured=measured: part.write_text(json.dumps(measured)))
        print(piece, {name: round(value, 4) for name, value in measured["accuracy"].items()}, flush=True)


def results(options):
    """Return all that has been measured, in the order of the plan."""
    paths = [piece_path(piece, options) for piece in plan()]
    return [json.loads(path.read_text()) for path in paths if path.exists()]


def table(measured):
    """Return the rows of the table: mean and standard deviation of the test accuracy over the seeds."""
    cells = {}
    for piece in measured:
        suffix = "" if piece["activation"] == "relu" else f", activation={piece['activation']}"
        for name, accuracy in piece["accuracy"].items():
            key = piece["representation"], name + suffix, piece["regime"], piece["protocol"]
            cells.setdefault(key, []).append(accuracy)
    rows = [
        {
            "representation": representation,
            "classifier": classifier,
            "regime": regime,
            "accuracy": float(np.mean(accuracies)),
            "std": float(np.std(accuracies, ddof=1)) if len(accuracies) > 1 else None,
            "seeds": len(accuracies),
            "protocol": protocol,
        }
        for (representation, classifier, regime, protocol), accuracies in cells.items()
    ]

    def is_beside_the_main_table(row):
        return row["protocol"] != "refit", "," in row["classifier"], row["representation"] not in models.COMPARED

    return sorted(rows, key=is_beside_the_main_table)
