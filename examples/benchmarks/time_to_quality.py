"""Measure how long a fit takes to be as good as 200 epochs of the earlier defaults.

    python examples/benchmarks/time_to_quality.py                       # three hours on one core
    python examples/benchmarks/time_to_quality.py --sets MNIST sensors  # goes on where it stopped
    python examples/benchmarks/time_to_quality.py --fresh               # from the beginning

At the defaults of today there is one fit for each of several `max_iter`, since the learning rate falls over the epochs
that are given. The earlier defaults, those of the study, have a constant one: one fit has a point after each of several
epochs. A plain loop of torch and pythae's trainer train the same network for as many epochs, where that is cheap.
``--epochs`` cuts all of these short; the tables say how many there were. Seconds are of processor time, on one thread;
where there is a CUDA device, which the estimators then take, they are of the wall clock. What the measures take is not
counted. Each set keeps the machine on which it was measured. The figures go to docs/results/time_to_quality.json,
docs/performance.md and docs/images/time_to_quality.png. Fashion-MNIST is downloaded where the environment variable
SKVAE_DATA_HOME names no folder that holds it.
"""

import argparse
import json
import sys
import time
import warnings
from functools import partial
from pathlib import Path

import matplotlib
import numpy as np
import time_to_quality_report
import torch
from alternatives import train_by_index, train_by_pythae
from harness import machine
from panel_data import LOADERS, WITH_ENDS, Part
from panel_measures import CLASSIFIERS, number, reconstruction
from plain_models import PlainModel
from sklearn.decomposition import PCA

from skvae import ContinuousBernoulliVAETransformer, NormalVAETransformer
from skvae.datasets import fetch_fashion_mnist

sys.path.append(str(Path(__file__).parents[1]))  # where the package `study` lies

from study.models import CONTINUOUS_BERNOULLI, NORMAL, sigmoid_decoder

matplotlib.use("Agg")

DOCS = Path(__file__).parents[2] / "docs"

# None is the default.
EPOCHS = (1, 2, 5, 10, 20, 50, None)

# Epochs of the earlier defaults, and of the loops beside them, after which there is a point.
NOTED = (1, 2, 5, 10, 20, 50, 100, 200)

# So many held-out rows have an ELBO, and a classifier is fitted to so many rows at most.
N_SCORED, N_CLASSIFIED = 2000, 10_000


def fashion_mnist(n_rows, held_out):
    """Return the first images of Fashion-MNIST, and others that are held out."""
    X, y = fetch_fashion_mnist(return_X_y=True)
    return Part(X[:n_rows], X[held_out], 20, y[:n_rows], y[held_out])


# A function for each set by its name, which loads its rows.
SETS = {
    "Fashion-MNIST 10,000": partial(fashion_mnist, 10_000, slice(10_000, 15_000)),
    "Fashion-MNIST 60,000": partial(fashion_mnist, 60_000, slice(60_000, 70_000)),
    **{
        name: lambda load=LOADERS[name]: load().part("test")
        for name in ("MNIST", "breast cancer", "image segments", "sensors")
    },
}


def now():
    """Return seconds: of the wall clock where there is a CUDA device, else of processor time.

    All that the device has been asked for is done first.
    """
    if not torch.cuda.is_available():
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def quality(model, part):
    """Return R² of held-out rows, their ELBO, and the accuracy of logistic regression where there are labels."""
    latents = model.transform(part.X_held_out)
    reconstructed = model.inverse_transform(latents).astype(float)
    measured = {
        "elbo": number(float(model.score(part.X_held_out[:N_SCORED]))),
        "r2": reconstruction(part, reconstructed)["r2"],
    }
    if part.y is not None:
        some = slice(N_CLASSIFIED)
        classifier = CLASSIFIERS["logistic"]().fit(model.transform(part.X[some]), part.y[some])
        measured["accuracy"] = number(classifier.score(latents, part.y_held_out))
    return measured


def timed(model, part):
    """Return a point: seconds of a fit, and how good it is."""
    start = now()
    model.fit(part.X)
    return {"seconds": number(now() - start, 3), **quality(model, part)}


def pca(part, n_epochs):
    """Return the only point of PCA, whose score is its log likelihood."""
    return [timed(PCA(part.n_components, random_state=0), part)]


def today(estimator, part, n_epochs):
    """Return a point for each fit at the defaults."""
    points = []
    for max_iter in EPOCHS:
        vae = estimator(part.n_components, max_iter=max_iter, random_state=0)
        point = timed(vae, part)
        points.append({"epochs": vae.n_iter_, **point})
    return points


class Callback:
    """What scikit-learn asks of a callback, and nothing done."""

    def setup(self, estimator, context):
        """Before the fit."""

    def teardown(self, estimator, context):
        """After the fit."""

    def on_fit_task_begin(self, estimator, context):
        """Before an epoch and before the whole fit."""

    def on_fit_task_end(self, estimator, context):
        """After an epoch and after the whole fit."""


class Clock(Callback):
    """Callback that counts the seconds of epochs and of what is ahead of them. It goes ahead of other callbacks."""

    def __init__(self):
        self.seconds, self._start = 0.0, now()

    def on_fit_task_begin(self, estimator, context):
        """Go on."""
        if context.task_name == "epoch" and context.task_id > 0:
            self._start = now()

    def on_fit_task_end(self, estimator, context):
        """Stop."""
        if context.task_name == "epoch":
            self.seconds += now() - self._start


class Notes(Callback):
    """Callback that adds a point after some epochs of a fit."""

    def __init__(self, part, clock):
        self.part, self.clock, self.points = part, clock, []

    def on_fit_task_end(self, estimator, context, *, fitted_estimator):
        """Measure the model if it is time."""
        epochs = context.task_id + 1
        if context.task_name == "epoch" and epochs in NOTED:
            measured = quality(fitted_estimator, self.part)
            self.points.append({"epochs": epochs, "seconds": number(self.clock.seconds, 3), **measured})


def earlier(estimator, part, n_epochs):
    """Return a point after some epochs at the earlier defaults."""
    if estimator is NormalVAETransformer:
        n_columns, n_components = part.X.shape[1], part.n_components
        # The smallest scale was in standard deviations of all entries.
        deviation = part.X.std() / np.sqrt(part.X.var(axis=0).mean())
        settings = NORMAL | {
            "decoder": sigmoid_decoder(NORMAL["hidden_layer_sizes"], NORMAL["dropout"], 2 * n_columns, 0, n_components),
            "min_scale": NORMAL["min_scale"] * deviation,
        }
    else:
        settings = CONTINUOUS_BERNOULLI
    vae = estimator(part.n_components, **settings | {"max_iter": n_epochs, "random_state": 0})
    clock = Clock()
    notes = Notes(part, clock)
    vae.set_callbacks(clock, notes).fit(part.X)
    return notes.points


def plain(train, model, part, n_epochs):
    """Return a point after some epochs of a loop that trains a plain network.

    Parameters
    ----------
    train : callable
        Returns a function that trains for an epoch, given a module, rows and the size of batches.
    model : {"normal", "continuous Bernoulli"}
        Which network.
    part : Part
        The rows.
    n_epochs : int
        How long.
    """
    torch.manual_seed(0)
    few = PlainModel(model, part.X[:100], part.n_components)
    train(few.module, few.rows, NORMAL["batch_size"])()  # what happens only at first
    start = now()
    vae = PlainModel(model, part.X, part.n_components)
    epoch = train(vae.module, vae.rows, NORMAL["batch_size"])
    seconds, points = now() - start, []
    for number_of_epochs in range(1, n_epochs + 1):
        vae.module.train()
        start = now()
        epoch()
        seconds += now() - start
        if number_of_epochs in NOTED:
            points.append({"epochs": number_of_epochs, "seconds": number(seconds, 3), **quality(vae, part)})
    return points


# Those of the continuous Bernoulli model are for sets of images.
CONTESTANTS = {
    "pca": pca,
    "normal_vae": partial(today, NormalVAETransformer),
    "continuous_bernoulli_vae": partial(today, ContinuousBernoulliVAETransformer),
    # The bound of the earlier density, without which ELBOs are not the same measure.
    "continuous_bernoulli_vae, earlier bound": partial(
        today, partial(ContinuousBernoulliVAETransformer, min_scale=CONTINUOUS_BERNOULLI["min_scale"])
    ),
    "normal_vae, earlier": partial(earlier, NormalVAETransformer),
    "continuous_bernoulli_vae, earlier": partial(earlier, ContinuousBernoulliVAETransformer),
    "normal_vae, plain loop": partial(plain, train_by_index, "normal"),
    "normal_vae, pythae": partial(plain, train_by_pythae, "normal"),
    "continuous_bernoulli_vae, plain loop": partial(plain, train_by_index, "continuous Bernoulli"),
    "continuous_bernoulli_vae, pythae": partial(plain, train_by_pythae, "continuous Bernoulli"),
}


def suits(contestant, name):
    """Return whether a contestant is for a set. The loops take minutes on small sets, and longer on others."""
    if contestant.endswith(("plain loop", "pythae")):
        return name != "Fashion-MNIST 60,000" and (contestant.startswith("normal_vae") or name == "MNIST")
    return not contestant.startswith("continuous_bernoulli_vae") or name.startswith(WITH_ENDS)


def run(arguments, sets, save):
    """Measure what is missing from `sets`, and call `save` after each contestant."""
    for name in arguments.sets:
        curves = sets.get(name, {"curves": {}})["curves"]
        wanted = [contestant for contestant in arguments.contestants if suits(contestant, name)]
        missing = [contestant for contestant in wanted if arguments.fresh or contestant not in curves]
        if not missing:
            continue
        if curves and sets[name]["machine"] != machine():
            if not arguments.fresh:
                raise SystemExit(f"{name} was measured on another machine, or with other versions. Take --fresh.")
            curves = {}
        part = SETS[name]()
        about = {
            "machine": machine(),
            "rows": len(part.X),
            "rows_held_out": len(part.X_held_out),
            "columns": part.X.shape[1],
            "n_components": part.n_components,
        }
        sets[name] = about | {"curves": curves}
        for contestant in missing:
            curves[contestant] = CONTESTANTS[contestant](part, arguments.epochs)
            print(f"{name}, {contestant}: {curves[contestant][-1]}", flush=True)
            save()


def warm_up():
    """Fit each model once, so that no contestant pays for what happens only at first."""
    X = np.random.default_rng(0).normal(size=(200, 10))
    for model in (PCA(2), NormalVAETransformer(2, max_iter=1), ContinuousBernoulliVAETransformer(2, max_iter=1)):
        model.fit(X).score(X)


def parse():
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS), metavar="SET")
    parser.add_argument("--contestants", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS), metavar="NAME")
    parser.add_argument("--epochs", type=int, default=200, help="of the earlier defaults (default: %(default)s)")
    parser.add_argument("--fresh", action="store_true", help="measure again what has been measured")
    parser.add_argument("--output", type=Path, default=DOCS, help="folder that gets the page, results/ and images/")
    return parser.parse_args()


def main():
    """Measure, and write the report."""
    arguments = parse()
    if not torch.cuda.is_available():
        torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    path = arguments.output / "results" / "time_to_quality.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    sets = json.loads(path.read_text())["sets"] if path.exists() else {}

    def save():
        content = {"sets": {name: sets[name] for name in SETS if name in sets}}
        path.write_text(json.dumps(content, indent=1) + "\n")

    warm_up()
    run(arguments, sets, save)
    save()
    page = (DOCS / "performance.md").read_text()
    time_to_quality_report.write(json.loads(path.read_text()), page, arguments.output)


if __name__ == "__main__":
    main()
