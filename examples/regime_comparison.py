"""Compare representations in two data regimes: pixels, PCA and both VAEs, under logistic regression.

In the large regime the models are trained on the larger part of the data and tested on the smaller, in the small
regime the other way round. Every representation is fitted to the training part of its regime alone. The script prints
the table of test accuracies and the ELBO of the test part, and saves a picture of originals, reconstructions and
samples.

    python examples/regime_comparison.py                                        # digits, a minute or two
    python examples/regime_comparison.py --dataset fashion-mnist --epochs 25    # 70,000 images, about an hour
"""

import argparse
import json
import time
import warnings
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer

from skvae import ContinuousBernoulliVAETransformer, NormalVAETransformer
from skvae.datasets import fetch_fashion_mnist


class EpochProgress:
    """A scikit-learn callback that moves a bar on by one at the end of each epoch."""

    def __init__(self, progress, task):
        self.progress, self.task = progress, task

    def setup(self, estimator, context):
        """Do nothing; part of the protocol."""

    def teardown(self, estimator, context):
        """Do nothing; part of the protocol."""

    def on_fit_task_begin(self, estimator, context):
        """Do nothing; part of the protocol."""

    def on_fit_task_end(self, estimator, context):
        """Move on."""
        if context.task_name == "epoch":
            self.progress.advance(self.task)


def load(dataset):
    """Return the larger and the smaller part of the data, the range of a pixel and the shape of an image."""
    if dataset == "fashion-mnist":
        large = fetch_fashion_mnist(subset="train", return_X_y=True)
        small = fetch_fashion_mnist(subset="test", return_X_y=True)
        return large, small, 255, (28, 28)
    X, y = load_digits(return_X_y=True)
    X_large, X_small, y_large, y_small = train_test_split(X, y, test_size=0.2, stratify=y, random_state=0)
    return (X_large, y_large), (X_small, y_small), 16, (8, 8)


def to_unit(X, highest):
    """Bring pixels to [0, 1], in float32."""
    return (X / highest).astype(np.float32)


def representations(n_epochs, highest, seed):
    """Return the steps that stand ahead of the classifier, by name."""
    scale = FunctionTransformer(to_unit, kw_args={"highest": highest})
    return {
        "pixels": scale,
        "PCA(20)": Pipeline([("scale", scale), ("pca", PCA(20, random_state=seed))]),
        "Normal VAE": NormalVAETransformer(max_iter=n_epochs, random_state=seed),
        "continuous Bernoulli VAE": ContinuousBernoulliVAETransformer(
            max_iter=n_epochs, data_range=(0, highest), random_state=seed
        ),
    }


def compare(options):
    """Fit and score every Pipeline; return the table's rows and the VAEs fitted in the large regime."""
    large, small, highest, image_shape = load(options.dataset)
    rows, vaes = [], {}
    columns = (TextColumn("{task.description:45}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        # Per regime: four classifiers, and the epochs of two VAEs.
        overall = progress.add_task("", total=2 * (4 + 2 * options.epochs))
        for regime, (X, y), (X_test, y_test) in (("large", large, small), ("small", small, large)):
            for name, representation in representations(options.epochs, highest, options.seed).items():
                progress.update(overall, description=f"{regime}: {name}")
                vae = representation if hasattr(representation, "sample") else None
                if vae is not None:
                    vae.set_callbacks(EpochProgress(progress, overall))
                classifier = LogisticRegression(max_iter=options.classifier_iterations)
                pipeline = Pipeline([("representation", representation), ("classifier", classifier)])
                start = time.perf_counter()
                with warnings.catch_warnings():
                    # On pixels, the last digits of the weights take thousands of iterations and change no accuracy.
                    warnings.simplefilter("ignore", ConvergenceWarning)
                    pipeline.fit(X, y)
                rows.append(
                    {
                        "representation": name,
                        "regime": regime,
                        "accuracy": pipeline.score(X_test, y_test),
                        "elbo": None if vae is None else vae.score(X_test),
                        "seconds": time.perf_counter() - start,
                    }
                )
                if vae is not None and regime == "large":
                    vaes[name] = vae.set_callbacks()
                progress.advance(overall)
    return rows, vaes, small[0], highest, image_shape


def print_table(rows):
    """Print accuracies by representation and regime, and the ELBO of the test part."""
    print(f"\n{'':26}{'large':>10}{'small':>10}{'ELBO large':>14}{'ELBO small':>14}")
    for name in dict.fromkeys(row["representation"] for row in rows):
        large, small = (next(r for r in rows if r["representation"] == name and r["regime"] == g) for g in REGIMES)
        elbos = "".join(f"{'' if row['elbo'] is None else format(row['elbo'], '.1f'):>14}" for row in (large, small))
        print(f"{name:26}{large['accuracy']:>10.4f}{small['accuracy']:>10.4f}{elbos}")
    print("\nTest accuracy of logistic regression; mean test ELBO in nats per image, in units of the pixels.")


REGIMES = ("large", "small")


def save_picture(path, vaes, X_test, highest, image_shape, seed):
    """Save originals, reconstructions and samples of each VAE, one above the other."""
    n_columns = 12
    originals = X_test[:n_columns]
    blocks = [("originals", originals)]
    for name, vae in vaes.items():
        blocks.append((f"{name}: reconstructions", vae.inverse_transform(vae.transform(originals))))
        blocks.append((f"{name}: samples", vae.sample(n_columns, random_state=seed)))
    figure, axes = plt.subplots(len(blocks), 1, figsize=(9, 1.02 * len(blocks)), layout="constrained")
    for ax, (title, images) in zip(axes, blocks, strict=True):
        strip = np.hstack([np.pad(image, 1) for image in images.reshape(-1, *image_shape)])
        ax.imshow(strip, cmap="gray_r", vmin=0, vmax=highest, interpolation="nearest")
        ax.set_title(title, fontsize=9, loc="left", pad=2)
        ax.axis("off")
    figure.savefig(path, dpi=100)
    plt.close(figure)


def main():
    """Run the comparison that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--dataset", choices=["digits", "fashion-mnist"], default="digits")
    parser.add_argument("--epochs", type=int, default=100, help="epochs of each VAE")
    parser.add_argument("--classifier-iterations", type=int, default=300, help="most iterations of the regression")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("examples/output"), help="folder for picture and table")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    rows, vaes, X_test, highest, image_shape = compare(options)
    print_table(rows)
    stem = options.output / f"regime_comparison_{options.dataset}"
    table = {"dataset": options.dataset, "epochs": options.epochs, "seed": options.seed, "table": rows}
    stem.with_suffix(".json").write_text(json.dumps(table, indent=1) + "\n")
    save_picture(stem.with_suffix(".png"), vaes, X_test, highest, image_shape, options.seed)
    print(f"Picture: {stem.with_suffix('.png')}")


if __name__ == "__main__":
    main()
