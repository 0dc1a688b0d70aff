"""The start of a fit at a linear model, beside an epoch with the same settings."""

import torch
from defaults import MODELS
from growth import low_rank
from harness import images, in_turn, quartiles, ratios

from skvae._data.rows import Rows, Summary
from skvae._fit.distributed import Group
from skvae._fit.run import Run, Seeds
from skvae._fit.schedule import Plan
from skvae._model.build import build_vae
from skvae._model.linear import begin_at_linear_model

# Each set of data: how it is made, and its number of components.
SETS = {
    "60,000 × 784 bytes": (lambda: images(60_000), 20),
    "1,000,000 × 50 float32": (lambda: to_unit(low_rank(1_000_000, 50)), 10),
}


def to_unit(X):
    """Bring values to [0, 1], where the continuous Bernoulli model has its support, a column at a time."""
    for column in X.T:
        column -= column.min()
        column /= column.max()
    return X


def contestants(estimator, X):
    """Return functions that begin at the linear model, and that train for an epoch, as `fit` does."""
    likelihood, group = estimator.make_likelihood(X.shape[1]), Group()
    units = likelihood.learn_units(Summary(X))
    vae = build_vae(estimator, likelihood, units, X.shape[1], seed=0, fitted=None)
    rows = Rows(X, units, torch.device("cpu"), read_often=True)
    run = Run(vae, rows, Seeds(0, 0, 0, 0, 0), group, Plan.of_fit(estimator, len(rows)), history={}, hooks=[])
    return {"start": lambda: begin_at_linear_model(vae, rows, 0, group), "epoch": run.train_epoch}


def measure(seconds):
    """Return the seconds of the start and its time over that of an epoch, by data and model."""
    results = []
    for data, (load, n_components) in SETS.items():
        X = load()
        for model, estimator in MODELS.items():
            times = in_turn(contestants(estimator(n_components), X), seconds=seconds / 4, n_rounds=3)
            results.append(
                {
                    "data": data,
                    "model": model,
                    "seconds": quartiles(times["start"]),
                    "time_over_epoch": ratios(times, "epoch")["start"],
                }
            )
    return results
