"""Epochs of training: this library, its alternatives, and the matrix products that nobody can avoid."""

import sys
from functools import partial
from pathlib import Path

import torch
from alternatives import data_loader_loop, index_tensor_loop, pythae_epoch, skorch_epoch
from harness import images, in_turn, quartiles, ratios

from skvae import ContinuousBernoulliVAETransformer, NormalVAETransformer
from skvae._data.rows import Rows, Summary
from skvae._fit.distributed import Group
from skvae._fit.run import Run, Seeds
from skvae._fit.schedule import Plan
from skvae._model.build import build_vae

sys.path.append(str(Path(__file__).parents[1]))  # where the package `study` lies

from study.models import CONTINUOUS_BERNOULLI, NORMAL

# What is timed: the study's settings, so that the alternatives train the same. They have no start, no mixture and no
# schedule of a number of epochs. The decoder of the normal model is the library's own, with ReLU.
MODELS = {
    "normal": partial(NormalVAETransformer, **NORMAL),
    "continuous Bernoulli": partial(ContinuousBernoulliVAETransformer, **CONTINUOUS_BERNOULLI),
}

# Inputs and outputs of each layer; the first of each model reads data, of which no gradient is needed.
LAYERS = {
    "normal": [(784, 128), (128, 40), (20, 128), (128, 1568)],
    "continuous Bernoulli": [(6272, 512), (512, 512), (512, 40), (20, 512), (512, 512), (512, 784)],
}


def make_run(estimator, X, device):
    """Return a training as `fit` begins it, but for the start at a linear model."""
    likelihood = estimator.make_likelihood(X.shape[1])
    units = likelihood.learn_units(Summary(X))
    rows = Rows(X, units, device, read_often=True)
    vae = build_vae(estimator, likelihood, units, X.shape[1], seed=0, fitted=None).to(device)
    plan = Plan.of_fit(estimator, len(X))
    return Run(vae, rows, Seeds(0, 0, 0, 0, 0), Group(), plan, history={}, hooks=[])


def skvae_epoch(model, X, batch_size):
    """Return a function that trains for one epoch as `fit` does."""
    return make_run(MODELS[model](batch_size=batch_size), X, torch.device("cpu")).train_epoch


def products_epoch(model, n_rows, batch_size):
    """Return a function that does the matrix products of one epoch: forward, and both backward ones where needed."""
    products = []
    if model == "continuous Bernoulli":  # the convolution, its patches laid out as rows
        products.append((torch.randn(784 * batch_size, 9), torch.randn(32, 9), False))
    for n_inputs, n_outputs in LAYERS[model]:
        x, weight = torch.randn(batch_size, n_inputs), torch.randn(n_outputs, n_inputs)
        products.append((x, weight, bool(products)))
    products = [
        (x, weight, torch.randn(len(x), len(weight)), torch.empty_like(weight), torch.empty_like(x), needs_input)
        for x, weight, needs_input in products
    ]
    outputs = [torch.empty_like(gradient) for _, _, gradient, *_ in products]

    def epoch():
        for _ in range(n_rows // batch_size):
            for (x, weight, *_), output in zip(products, outputs, strict=True):
                torch.mm(x, weight.t(), out=output)
            for x, weight, gradient, weight_gradient, input_gradient, needs_input in reversed(products):
                torch.mm(gradient.t(), x, out=weight_gradient)
                if needs_input:
                    torch.mm(gradient, weight, out=input_gradient)

    return epoch


def measure(seconds, with_compiler):
    """Return images per second and ratios for both models at batches of 128 and 512."""
    results = []
    for model, n_rows in (("normal", 10240), ("continuous Bernoulli", 2048)):
        X = images(n_rows)
        tensor = torch.from_numpy(X).float().div_(255)
        for batch_size in (128, 512):
            contestants = {
                "matrix products": products_epoch(model, n_rows, batch_size),
                "skvae": skvae_epoch(model, X, batch_size),
                "index-tensor loop": index_tensor_loop(model, tensor, batch_size),
                "DataLoader loop": data_loader_loop(model, tensor, batch_size),
                "skorch": skorch_epoch(model, tensor, batch_size),
                "pythae": pythae_epoch(model, tensor, batch_size),
                "index-tensor loop, bfloat16": index_tensor_loop(model, tensor, batch_size, bfloat16=True),
            }
            if with_compiler:
                contestants["index-tensor loop, compiled"] = index_tensor_loop(model, tensor, batch_size, compiled=True)
            times = in_turn(contestants, seconds=seconds, n_rounds=7)
            to_products, to_skvae = ratios(times, "matrix products"), ratios(times, "skvae")
            results += [
                {
                    "model": model,
                    "batch_size": batch_size,
                    "contestant": name,
                    "images_per_second": quartiles([n_rows / value for value in values]),
                    "time_over_matrix_products": to_products[name],
                    "time_over_skvae": to_skvae[name],
                }
                for name, values in times.items()
            ]
    return results
