"""Choose what the regime comparison leaves open, without a look at its test images.

A regime's training images are split five to one; everything is fitted to the larger part and measured on the smaller.
In the small regime that is how far `data_range` of the continuous Bernoulli VAE reaches beyond the pixels, 0 to 255,
and for the CNNs the activation of the convolution and the number of epochs; in the large regime what the weight of the
KL term, the size of the network and the scale floor are worth to the classifiers. What is measured already is not
measured again.

    python examples/regime_choices.py --output docs/results/regime_choices.json
"""

import argparse
import json
import warnings
from pathlib import Path

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from study import models

from skvae import ContinuousBernoulliVAETransformer
from skvae.datasets import fetch_fashion_mnist

MARGINS = (0, 0.5, 4, 8, 16)

# The larger network takes about as long for thirty epochs as the smaller one for several hundred.
NETWORKS = {"dense 128": (models.DENSE_128, 90), "conv 512": (models.CONV_512, 30)}


# Changes to the models of the study, each after forty epochs on 50,000 images.
CHANGES = [
    ("normal_vae", {}),
    ("normal_vae", {"beta": 0.5}),
    ("normal_vae", {"beta": 0.2}),
    ("normal_vae", {"beta": 0.1}),
    ("normal_vae", {"hidden_layer_sizes": (512,)}),
    ("normal_vae", {"hidden_layer_sizes": (512,), "beta": 0.2}),
    ("normal_vae", {"min_scale": 0.3}),
    ("continuous_bernoulli_vae, dense 128, data_range=(-4, 259)", {}),
    ("continuous_bernoulli_vae, dense 128, data_range=(-4, 259)", {"beta": 0.2}),
    ("continuous_bernoulli_vae, dense 128, data_range=(-4, 259)", {"hidden_layer_sizes": (512,), "beta": 0.2}),
]


def measure_change(model, change, X, y, X_val, y_val):
    """Fit a VAE that differs from the study's and return what its latents are worth to two classifiers."""
    vae = models.representation(model, "fashion-mnist", 40, 0).set_params(**change).fit(X)
    latents, latents_val = vae.transform(X), vae.transform(X_val)
    classifiers = models.classifiers(20, 0)
    return {
        "elbo": vae.score(X_val[:2000]),
        "mse": float(np.mean(np.square((vae.inverse_transform(latents_val) - X_val) / 255))),
        "active": int((latents_val.var(axis=0) > 0.05).sum()),
        **{
            name: classifiers[name].set_callbacks().fit(latents, y).score(latents_val, y_val)
            for name in ("logistic", "multilayer_cnn")
        },
    }


def measure_margin(margin, network, X, y, X_val, y_val):
    """Fit a VAE and say what it and its latents are worth."""
    parameters, n_epochs = NETWORKS[network]
    vae = ContinuousBernoulliVAETransformer(
        data_range=(-margin, 255 + margin), max_iter=n_epochs, random_state=0, **parameters
    ).fit(X)
    latents, latents_val = vae.transform(X), vae.transform(X_val)
    error = (vae.inverse_transform(latents_val) - X_val) / 255
    return {
        "elbo": vae.score(X_val),
        "training_elbo": vae.history_["elbo"][-1],
        "mse": float(np.mean(np.square(error))),
        "active": int((latents_val.var(axis=0) > 0.05).sum()),
        "largest_variance": float(latents_val.var(axis=0).max()),
        "accuracy": LogisticRegression(max_iter=2000).fit(latents, y).score(latents_val, y_val),
    }


def measure_classifier(name, representation, activation, X, y, X_val, y_val):
    """Train a CNN on pixels or on the components of PCA and return its validation accuracy by epoch."""
    transformer = models.representation(representation, "fashion-mnist", None, 0)
    classifier = models.classifiers(40, 0, activation)[name].set_callbacks()
    latents = transformer.fit_transform(X)
    classifier.fit(latents, y, X_val=transformer.transform(X_val), y_val=y_val)
    return {"accuracy": classifier.history_["validation_accuracy"]}


def print_tables(results):
    """Print the results as tables in Markdown."""
    print("\n| network | margin | training ELBO | ELBO | MSE | active | largest variance | accuracy |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for row in results["margins"]:
        print(
            f"| {row['network']} | {row['margin']:g} | {row['training_elbo']:.1f} | {row['elbo']:.1f} "
            f"| {row['mse']:.4f} | {row['active']} | {row['largest_variance']:.1f} | {row['accuracy']:.3f} |"
        )
    print("\n| model | change | ELBO | MSE | active | logistic | multilayer CNN |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for row in results["changes"]:
        change = ", ".join(f"{name}={value}" for name, value in row["change"].items()) or "none"
        print(
            f"| {row['model']} | {change} | {row['elbo']:.1f} | {row['mse']:.4f} | {row['active']} "
            f"| {row['logistic']:.4f} | {row['multilayer_cnn']:.4f} |"
        )
    epochs = (5, 10, 15, 20, 30, 40)
    print("\n| classifier | representation | activation |" + "".join(f" {n} |" for n in epochs))
    print("| --- | --- | --- |" + " ---: |" * len(epochs))
    for row in results["classifiers"]:
        cells = "".join(f" {row['accuracy'][n - 1]:.3f} |" for n in epochs)
        print(f"| {row['name']} | {row['representation']} | {row['activation']} |{cells}")


def main():
    """Measure what is missing and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--output", type=Path, default=Path("examples/output/regime_choices.json"))
    options = parser.parse_args()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore", ConvergenceWarning)
    settings = {
        "changes": [{"model": model, "change": change} for model, change in CHANGES],
        "margins": [{"network": network, "margin": margin} for network in NETWORKS for margin in MARGINS],
        "classifiers": [
            {"name": name, "representation": representation, "activation": activation}
            for name in ("simple_cnn", "multilayer_cnn")
            for representation in ("pca", "pixels")
            for activation in ("relu", "identity")
        ],
    }
    measure = {"changes": measure_change, "margins": measure_margin, "classifiers": measure_classifier}
    results = json.loads(options.output.read_text()) if options.output.exists() else {name: [] for name in settings}
    for kind, rows in settings.items():
        X, y = fetch_fashion_mnist(subset="train" if kind == "changes" else "test", return_X_y=True)
        X, X_val, y, y_val = train_test_split(X, y, test_size=1 / 6, random_state=0, stratify=y)
        for setting in rows[len(results[kind]) :]:
            results[kind].append(setting | measure[kind](**setting, X=X, y=y, X_val=X_val, y_val=y_val))
            options.output.write_text(json.dumps(results, indent=1) + "\n")
            print(results[kind][-1], flush=True)
    print_tables(results)


if __name__ == "__main__":
    main()
