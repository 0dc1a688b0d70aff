"""The full run, in pieces that are kept when they are done, so that an interrupted run goes on where it stopped."""

import json
import re
import time
from dataclasses import asdict

import joblib
import numpy as np
import torch
from sklearn.frozen import FrozenEstimator

from skvae.model_selection import regime_search
from study import few_labels, models, quality
from study.pieces import Piece, fit_representation, keep, piece_path, plan, split

# Rows on which the ELBO is measured, each of which takes forty passes through the decoder, and rows and points of the
# importance bound, which is that of seed 0 alone.
N_SCORED = 5000
N_BOUNDED, N_POINTS = 200, 1000


def accuracies(piece, options):
    """Return accuracies, training curves and, of a VAE, its history and what test images are worth to it."""
    X, y, cv = models.load(options.dataset)
    train, test = split(cv, X, y, piece.regime)
    kept = fit_representation(*piece.fit, options)
    fitted = kept["fitted"]
    if piece.measure == "neighbors":
        classifiers = {"neighbors": models.neighbors()}
    else:
        activation = "identity" if piece.measure == "identity" else "relu"
        # Networks for a few latents are as fast on a CPU, and leave the accelerator to the fits.
        device = "auto" if piece.representation == "pixels" else "cpu"
        classifiers = models.classifiers(options.classifier_epochs, piece.seed, activation, device)
    if piece.measure == "identity":
        del classifiers["logistic"]  # it has no activation
    search = regime_search({piece.representation: FrozenEstimator(fitted)}, classifiers, cv=[(train, test)])
    results = search.fit(X, y).cv_results_
    names = [params["classifier"].steps[0][0] for params in results["params"]]
    measured = {
        "accuracy": dict(zip(names, results["split0_test_score"].tolist(), strict=True)),
        "seconds": {
            "representation": kept["seconds"],
            **dict(zip(names, results["mean_fit_time"].tolist(), strict=True)),
        },
    }
    if piece.measure == "accuracy":
        measured["curves"] = {name: next(iter(models.curves(c).values())) for name, c in classifiers.items()}
        if hasattr(fitted, "history_") and piece.protocol != "unlabeled":
            measured["history"] = fitted.history_
            measured["test_elbo"] = fitted.score(X[test[:N_SCORED]])
            if piece.seed == 0:
                few = X[test[:N_BOUNDED]]
                measured["few_test_elbo"] = fitted.score(few)
                measured["few_test_bound"] = float(fitted.score_samples(few, n_importance_samples=N_POINTS).mean())
            measured["active"] = int((fitted.transform(X[test]).var(axis=0) > 0.05).sum())
    return measured


def measure(piece, options):
    """Return what a piece gives."""
    start = time.perf_counter()
    if piece.measure == "quality":
        measured = quality.measure(piece, options)
    elif piece.measure == "few labels":
        measured = few_labels.measure(piece, options)
    else:
        measured = accuracies(piece, options)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return asdict(piece) | measured | {"device": device, "seconds_in_all": time.perf_counter() - start}


def take_over(path, options):
    """Keep the accuracies that an earlier run has of what the defaults have no part in; `path` has its results."""
    for row in json.loads(path.read_text())["pieces"]:
        piece = Piece(*(row[field] for field in Piece.__dataclass_fields__))
        if "accuracy" in row and not piece_path(piece, options).exists():
            text = json.dumps(row | {"earlier": True})
            keep(piece_path(piece, options), lambda part, text=text: part.write_text(text))


def run(options):
    """Measure what is missing of the plan and fits `options.only`, in `options.jobs` processes.

    One of them has the fit of a VAE and all that is measured of it. The longest come first.
    """
    missing = [piece for piece in plan() if not piece_path(piece, options).exists()]
    missing = [piece for piece in missing if re.search(options.only, str(piece))]
    for regime in {piece.regime for piece in missing if piece.measure == "quality"}:
        quality.judge(regime, options)  # ahead of the processes, which share it
    groups = {}
    for piece in missing:
        groups.setdefault(piece.fit if piece.representation in models.VAES else piece, []).append(piece)
    groups = sorted(groups.values(), key=lambda pieces: is_short(pieces[0]))
    joblib.Parallel(options.jobs, batch_size=1)(joblib.delayed(run_pieces)(pieces, options) for pieces in groups)


def is_short(piece):
    """Return whether its fit is to few images, and whether it has no convolution."""
    name, regime, _ = piece.fit
    return regime == "small", name not in models.VAES or models.VAES[name][1].get("encoder") != "conv"


def run_pieces(pieces, options):
    """Measure pieces and keep what they give: of a fit that diverges, the error."""
    for piece in pieces:
        try:
            measured = measure(piece, options)
        except ValueError as error:
            if not str(error).startswith("Training diverged"):
                raise
            measured = asdict(piece) | {"diverged": str(error)}
        keep(piece_path(piece, options), lambda part, measured=measured: part.write_text(json.dumps(measured)))
        print(f"{piece}: {measured.get('seconds_in_all', 0):.0f} s {measured.get('accuracy', '')}", flush=True)


def results(options):
    """Return all that has been measured, in the order of the plan."""
    paths = [piece_path(piece, options) for piece in plan()]
    return [json.loads(path.read_text()) for path in paths if path.exists()]


def table(measured):
    """Return the rows of the table: mean and standard deviation of the test accuracy over the seeds."""
    cells = {}
    for piece in measured:
        suffix = ", activation=identity" if piece["measure"] == "identity" else ""
        for name, accuracy in piece.get("accuracy", {}).items():
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
        kind = row["classifier"] == "neighbors", "," in row["classifier"]
        return row["protocol"] != "refit", *kind, row["representation"] not in models.COMPARED

    return sorted(rows, key=is_beside_the_main_table)
