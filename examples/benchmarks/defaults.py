"""The defaults: steps beside their matrix products, what early stopping adds to an epoch, scores and their error."""

import numpy as np
import torch
from harness import images, in_turn, quartiles, ratios
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.preprocessing import StandardScaler

from skvae import ContinuousBernoulliVAETransformer, NormalVAETransformer
from skvae._data.rows import Rows, Summary
from skvae._fit.distributed import Group
from skvae._fit.hooks import Validation
from skvae._fit.run import Run, Seeds
from skvae._fit.schedule import Plan
from skvae._model.bounds import LowerBound, standard_normal_points
from skvae._model.build import build_vae

MODELS = {"normal": NormalVAETransformer, "continuous Bernoulli": ContinuousBernoulliVAETransformer}
N_ROWS = 10_240

# Inputs and outputs of each layer and each linear path on images of 28 x 28, and whether it passes a gradient on.
LAYERS = [(784, 128, False), (784, 20, False), (128, 40, True), (20, 128, True), (128, 784, True), (20, 784, True)]


def products_epoch(batch_size):
    """Return a function that does the matrix products of one epoch."""
    products = [
        (torch.randn(batch_size, n), torch.randn(m, n), torch.randn(batch_size, m), passes) for n, m, passes in LAYERS
    ]
    outputs = [[torch.empty_like(g), torch.empty_like(w), torch.empty_like(x)] for x, w, g, _ in products]

    def epoch():
        for _ in range(N_ROWS // batch_size):
            for (x, weight, *_), (y, *_) in zip(products, outputs, strict=True):
                torch.mm(x, weight.t(), out=y)
            for (x, weight, gradient, passes), (_, by_weight, by_x) in zip(products, outputs, strict=True):
                torch.mm(gradient.t(), x, out=by_weight)
                if passes:
                    torch.mm(gradient, weight, out=by_x)

    return epoch


def make_run(estimator, X, n_validation):
    """Return a training as `fit` begins it, and its validation on the first rows."""
    likelihood = estimator.make_likelihood(X.shape[1])
    units, device = likelihood.learn_units(Summary(X)), torch.device("cpu")
    vae = build_vae(estimator, likelihood, units, X.shape[1], seed=0, fitted=None)
    validation = Validation(Rows(X[:n_validation], units, device, read_often=True))
    rows = Rows(X[n_validation:], units, device, read_often=True)
    run = Run(vae, rows, Seeds(0, 0, 0, 0, 0), Group(), Plan.of_fit(estimator, len(rows)), history={}, hooks=[])
    validation.begin_run(run)
    return run, validation


def steps(seconds):
    """Return the time of an epoch over that of its matrix products, by size of batch."""
    results, X = [], images(N_ROWS)
    for batch_size in (128, 512):
        contestants = {"matrix products": products_epoch(batch_size)}
        for model, estimator in MODELS.items():
            contestants[model] = make_run(estimator(batch_size=batch_size), X, 0)[0].train_epoch
        over = ratios(in_turn(contestants, seconds=seconds), "matrix products")
        results += [{"model": model, "batch_size": batch_size, "time_over_products": over[model]} for model in MODELS]
    return results


def early_stopping(seconds):
    """Return the time of an epoch with validation on a tenth of the rows over that of one without."""
    results = []
    for data, X, n_components in (("10,000 images", images(10_000), 20), ("digits", load_digits().data, 10)):
        for model, estimator in MODELS.items():
            run, validation = make_run(estimator(n_components, batch_size=128), X, len(X) // 10)

            def with_validation(run=run, validation=validation):
                run.train_epoch()
                validation.end_epoch(run)

            over = ratios(in_turn({"with": with_validation, "without": run.train_epoch}, seconds=seconds), "without")
            results.append({"data": data, "model": model, "time_over_epoch": over["with"]})
    return results


def mean_weights(vae, rows, n_points):
    """Return the ELBO of each row as the mean of the log importance weights over so many points."""
    points = standard_normal_points(n_points, vae.n_components)
    n_rows = max(1, (1 << 20) // (n_points * vae.decoder_width))
    with torch.inference_mode():
        return np.concatenate(
            [vae.log_weights(batch, points).double().mean(1).numpy() for batch in rows.blocks(n_rows)]
        )


def score_one(data, model, fitted, X, seconds):
    """Return what `scores` does for one model and rows that it was not trained on."""
    vae = fitted.module_
    X = X[np.isfinite(fitted.score_samples(X))]
    rows, bound = Rows(X, vae.units, vae.device), LowerBound(vae, 1)
    contestants = {
        "at all points": lambda: mean_weights(vae, rows, max(32, 2 * vae.n_components)),
        "by moments": lambda: bound(rows) + vae.units.log_volume(vae.n_features),
    }
    times = in_turn(contestants, seconds=seconds)
    exact = mean_weights(vae, rows, 4096)
    errors = {how: contestant() - exact for how, contestant in contestants.items()}
    return [
        {
            "data": data,
            "model": model,
            "how": how,
            "rows_per_second": quartiles([len(X) / value for value in values]),
            "speed": quartiles([a / b for a, b in zip(times["at all points"], values, strict=True)]),
            "mean_error": float(errors[how].mean()),
            "root_mean_square_error": float(np.sqrt(np.square(errors[how]).mean())),
            "largest_error": float(np.abs(errors[how]).max()),
        }
        for how, values in times.items()
    ]


def scores(seconds):
    """Return rows per second and the error of ELBOs, beside those of which each row is decoded at all points."""
    table = StandardScaler().fit_transform(load_breast_cancer().data)
    sets = {
        "10,000 images": (images(10_300), 10_000, 20),
        "digits": (load_digits().data, 1_400, 10),
        "breast cancer": (table, 400, 5),
    }
    results = []
    for data, (X, n_trained, n_components) in sets.items():
        settings = {"max_iter": 30, "random_state": 0}
        models = {
            "normal, a noise for each feature": NormalVAETransformer(n_components, **settings),
            "normal, one noise": NormalVAETransformer(n_components, noise="shared", **settings),
            "continuous Bernoulli": ContinuousBernoulliVAETransformer(n_components, **settings),
        }
        for model, estimator in models.items():
            results += score_one(data, model, estimator.fit(X[:n_trained]), X[n_trained:], seconds / 4)
    return results


def measure(seconds):
    """Return all three tables."""
    return {"steps": steps(seconds), "early stopping": early_stopping(seconds), "scores": scores(seconds)}
