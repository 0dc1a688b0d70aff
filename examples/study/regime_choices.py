"""Choose what the study leaves open, in each regime on a validation part of its own training images.

The training images of a regime are split five to one; everything is fitted to the larger part and measured on the
smaller. The models are the study's, with one or two changes. What is measured: what the weight of the KL term, the
size of the network, the scale floor (in standard deviations of all pixels) and the scaling of the latents are worth to
classifiers; how far `data_range` of the continuous Bernoulli VAE reaches beyond the pixels, 0
to 255; and for the CNNs the activation of the convolution and the number of epochs. What is measured already is not
measured again.

    python examples/study/regime_choices.py --output docs/results/regime_choices.json
"""

import argparse
import json
import sys
import warnings
from pathlib import Path

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from skvae.datasets import fetch_fashion_mnist

sys.path.insert(0, str(Path(__file__).parents[1]))  # where the package `study` lies

from study import models

# As many steps in either regime: epochs of a dense VAE on 50,000 images and on 8,333.
N_EPOCHS = {"large": 40, "small": 240}

CB_DENSE = "continuous_bernoulli_vae, study, dense 128"
CB_MARGIN = "continuous_bernoulli_vae, study, dense 128, data_range=(-4, 259)"

CHANGES = [
    ("normal_vae, study", {}),
    ("normal_vae, study", {"beta": 0.5}),
    ("normal_vae, study", {"beta": 0.2}),
    ("normal_vae, study", {"beta": 0.1}),
    ("normal_vae, study", {"hidden_layer_sizes": (512,)}),
    ("normal_vae, study", {"hidden_layer_sizes": (512,), "beta": 0.2}),
    ("normal_vae, study", {"min_scale": 0.3}),
    *((CB_DENSE, {"data_range": (-margin, 255 + margin)}) for margin in (0, 0.5, 4, 8, 16)),
    (CB_MARGIN, {"beta": 0.2}),
    (CB_MARGIN, {"hidden_layer_sizes": (512,), "beta": 0.2}),
]


def measure_model(regime, model, change, X, y, X_val, y_val):
    """Fit a VAE that differs from one of the study and return what it and its latents are worth."""
    change = {name: tuple(value) if isinstance(value, list) else value for name, value in change.items()}
    vae = models.representation(model, "fashion-mnist", N_EPOCHS[regime], 0, **change).fit(X)
    latents, latents_val = vae.transform(X), vae.transform(X_val)
    scaler = StandardScaler().fit(latents)
    scaled, scaled_val = scaler.transform(latents), scaler.transform(latents_val)
    classifiers = {name: classifier.set_callbacks() for name, classifier in models.classifiers(20, 0).items()}
    logistic, network = classifiers["logistic"], classifiers["multilayer_cnn"]
    return {
        "elbo": vae.score(X_val[:2000]),
        "mse": float(np.mean(np.square((vae.inverse_transform(latents_val) - X_val) / 255))),
        "active": int((latents_val.var(axis=0) > 0.05).sum()),
        "largest_variance": float(latents_val.var(axis=0).max()),
        "logistic": logistic.fit(latents, y).score(latents_val, y_val),
        "multilayer_cnn": network.fit(latents, y).score(latents_val, y_val),
        "multilayer_cnn_scaled": network.fit(scaled, y).score(scaled_val, y_val),
    }


def measure_classifier(regime, classifier, representation, activation, X, y, X_val, y_val):
    """Train a CNN on pixels or on the components of PCA and return its validation accuracy by epoch."""
    transformer = models.representation(representation, "fashion-mnist", None, 0)
    n_epochs = 15 if (regime, representation) == ("large", "pixels") else 40
    network = models.classifiers(n_epochs, 0, activation)[classifier].set_callbacks()
    network.fit(transformer.fit_transform(X), y, X_val=transformer.transform(X_val), y_val=y_val)
    return {"accuracy": network.history_["validation_accuracy"]}


MEASURES = {"models": measure_model, "classifiers": measure_classifier}

SETTINGS = {
    "models": [
        {"regime": regime, "model": model, "change": {k: list(v) if isinstance(v, tuple) else v for k, v in c.items()}}
        for regime in models.REGIMES
        for model, c in CHANGES
    ],
    "classifiers": [
        {"regime": regime, "classifier": classifier, "representation": representation, "activation": activation}
        for regime in models.REGIMES
        for representation in ("pca", "pixels")
        for classifier in ("simple_cnn", "multilayer_cnn")
        for activation in ("relu", "identity")
    ],
}


def tables(results):
    """Return the results as tables in Markdown, by name."""
    lines = [
        "| regime | model | change | ELBO | MSE | active | largest variance | logistic | multilayer CNN | scaled |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in results["models"]:
        change = ", ".join(f"`{name}={value}`" for name, value in row["change"].items()) or "none"
        lines.append(
            f"| {row['regime']} | `{row['model']}` | {change} | {row['elbo']:.1f} | {row['mse']:.4f} | {row['active']} "
            f"| {row['largest_variance']:.1f} | {row['logistic']:.4f} | {row['multilayer_cnn']:.4f} "
            f"| {row['multilayer_cnn_scaled']:.4f} |"
        )
    epochs = (5, 10, 15, 20, 30, 40)
    curves = [
        "| regime | classifier | representation | activation |" + "".join(f" {n} epochs |" for n in epochs),
        "| --- | --- | --- | --- |" + " ---: |" * len(epochs),
    ]
    for row in results["classifiers"]:
        cells = (f"{row['accuracy'][n - 1]:.4f}" if n <= len(row["accuracy"]) else "" for n in epochs)
        names = (row[name] for name in ("regime", "classifier", "representation", "activation"))
        curves.append("| " + " | ".join([*names, *cells]) + " |")
    return {"models": "\n".join(lines), "classifiers": "\n".join(curves)}


def main():
    """Measure what is missing and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--output", type=Path, default=Path("examples/output/regime_choices.json"))
    options = parser.parse_args()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore", ConvergenceWarning)
    results = json.loads(options.output.read_text()) if options.output.exists() else {kind: [] for kind in SETTINGS}
    for kind, settings in SETTINGS.items():
        for setting in settings:
            if any(setting.items() <= row.items() for row in results[kind]):
                continue
            X, y = fetch_fashion_mnist(subset="train" if setting["regime"] == "large" else "test", return_X_y=True)
            X, X_val, y, y_val = train_test_split(X, y, test_size=1 / 6, random_state=0, stratify=y)
            measured = MEASURES[kind](**setting, X=X, y=y, X_val=X_val, y_val=y_val)
            results[kind].append(setting | measured)
            options.output.write_text(json.dumps(results, indent=1) + "\n")
            print(setting | {name: value for name, value in measured.items() if name != "accuracy"}, flush=True)
    for table in tables(results).values():
        print(f"\n{table}")


if __name__ == "__main__":
    main()
