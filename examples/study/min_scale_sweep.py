"""Sweep `min_scale` of the study's normal VAE on Fashion-MNIST and compare what the latents are worth.

For each value and each regime (trained on the 60,000 images, or on the 10,000), the model is fitted to five sixths of
the training images, and everything is measured on the other sixth: ELBO and importance bound in nats per image (in
units of the pixels, 0 to 255), reconstruction error in units of 0 to 1, the number of components whose latent mean has
a variance above 0.05, and the accuracy of logistic regression on the latents. Test images have no part in it. Values
of `min_scale` are in standard deviations of all pixels. What is measured already is not measured again.

    python examples/study/min_scale_sweep.py --epochs 50 --output docs/results/min_scale.json
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

from skvae.datasets import fetch_fashion_mnist

sys.path.insert(0, str(Path(__file__).parents[1]))  # where the package `study` lies

from study import models

VALUES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0)


def measure(min_scale, X, y, n_epochs, seed):
    """Fit on five sixths of the rows and measure on the rest."""
    X, X_val, y, y_val = train_test_split(X, y, test_size=1 / 6, random_state=0, stratify=y)
    vae = models.representation("normal_vae, study", "fashion-mnist", n_epochs, seed, min_scale=min_scale).fit(X)
    latents, latents_val = vae.transform(X), vae.transform(X_val)
    error = (vae.inverse_transform(latents_val) - X_val) / 255
    classifier = LogisticRegression(max_iter=2000).fit(latents, y)
    return {
        "elbo": vae.score(X_val),
        "importance_bound": float(np.mean(vae.score_samples(X_val[:2000], n_importance_samples=128))),
        "mse": float(np.mean(np.square(error))),
        "active": int((latents_val.var(axis=0) > 0.05).sum()),
        "accuracy": classifier.score(latents_val, y_val),
    }


def print_table(results):
    """Print the results as a table in Markdown, means over the seeds."""
    print("\n| regime | `min_scale` | ELBO | importance bound | MSE | active components | accuracy |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for regime, min_scale in sorted({(row["regime"], row["min_scale"]) for row in results}):
        rows = [row for row in results if (row["regime"], row["min_scale"]) == (regime, min_scale)]
        means = {name: np.mean([row[name] for row in rows]) for name in rows[0] if name != "regime"}
        print(
            f"| {regime} | {min_scale:g} | {means['elbo']:.1f} | {means['importance_bound']:.1f} "
            f"| {means['mse']:.4f} | {means['active']:g} | {means['accuracy']:.3f} |"
        )


def main():
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--epochs", type=int, default=50, help="epochs on 60,000 images; six times as many on 10,000")
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds")
    parser.add_argument("--output", type=Path, default=Path("examples/output/min_scale.json"))
    options = parser.parse_args()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    results = json.loads(options.output.read_text()) if options.output.exists() else []
    done = {(row["regime"], row["min_scale"], row["seed"]) for row in results}
    for regime, subset, n_epochs in (("small", "test", 6 * options.epochs), ("large", "train", options.epochs)):
        X, y = fetch_fashion_mnist(subset=subset, return_X_y=True)
        for seed in range(options.seeds):
            for min_scale in VALUES:
                if (regime, min_scale, seed) in done:
                    continue
                row = {"regime": regime, "min_scale": min_scale, "seed": seed, "epochs": n_epochs}
                row |= measure(min_scale, X, y, n_epochs, seed)
                results.append(row)
                options.output.write_text(json.dumps(results, indent=1) + "\n")
                print(
                    *(f"{name} {value:.5g}" if name != "regime" else value for name, value in row.items()), flush=True
                )
    print_table(results)


if __name__ == "__main__":
    main()
