"""Score images that a model of Fashion-MNIST has never seen the like of, and images that are no images of clothes.

The models, two VAEs with the study's settings and a PCA, are fitted to the 60,000 training images. A score is good for
finding anomalies where it is lower for them than for test images: the area under the ROC curve (AUC) is the probability
of that for a random pair, so that 0.5 is chance, and below 0.5 anomalies look more usual than what the model was fitted
to.

    python examples/study/out_of_distribution.py        # some ten minutes; table and figure of docs/guide/scores.md
"""

import argparse
import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from scipy.ndimage import zoom
from sklearn.datasets import load_digits, load_sample_images
from sklearn.decomposition import PCA
from sklearn.feature_extraction.image import extract_patches_2d
from sklearn.metrics import roc_auc_score

from skvae.datasets import fetch_fashion_mnist

sys.path.insert(0, str(Path(__file__).parents[1]))  # where the package `study` lies

from study.models import representation
from study.report import markdown

DOCS = Path(__file__).parents[2] / "docs"

N_IMAGES = 1000


def others(X):
    """Return images that are not of Fashion-MNIST, by name, as rows of 784 bytes."""
    random_state = np.random.RandomState(0)
    digits = load_digits().images[:N_IMAGES] * (255 / 16)
    large = [zoom(image, 28 / 8, order=1) for image in digits]
    photographs = [image.mean(axis=2) for image in load_sample_images().images]
    patches = [extract_patches_2d(image, (28, 28), max_patches=N_IMAGES // 2, random_state=0) for image in photographs]
    X = X[:N_IMAGES]
    images = {
        "digits": large,
        "patches of photographs": np.concatenate(patches),
        "clothes upside down": X.reshape(-1, 28, 28)[:, ::-1],
        "clothes in negative": 255 - X,
        "clothes at half contrast": X / 2,
        "clothes with pixels shuffled": np.take_along_axis(X, random_state.rand(*X.shape).argsort(axis=1), axis=1),
        "noise": random_state.uniform(0, 255, size=(N_IMAGES, 784)),
        "black": np.zeros((N_IMAGES, 784)),
    }
    return {name: np.round(np.reshape(rows, (N_IMAGES, 784))).astype(np.uint8) for name, rows in images.items()}


def measure(scores):
    """Return, for each model and each kind of images, the median score and the area under the ROC curve."""
    rows = []
    for kind in next(iter(scores.values())):
        row = {"images": kind}
        for name, by_kind in scores.items():
            is_usual = np.repeat([1, 0], N_IMAGES)
            both = np.concatenate([by_kind["clothes"], by_kind[kind]])
            row[name] = {"auc": roc_auc_score(is_usual, both), "median": float(np.median(by_kind[kind]))}
        rows.append(row)
    return rows


def table(rows):
    """Return the table of the page."""
    names = list(rows[0])[1:]
    header = ["images", *(f"AUC, {name}" for name in names), *(f"median, {name}" for name in names)]
    cells = [
        [
            row["images"],
            *(f"{row[name]['auc']:.3f}" for name in names),
            *(f"{row[name]['median']:.5g}" for name in names),
        ]
        for row in rows
    ]
    return markdown(header, cells, n_names=1)


def draw(images, scores, path):
    """Draw some images of each kind beside the spread of their scores."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.5), layout="constrained", width_ratios=(1, 2.4))
    strip = np.concatenate([rows[:4] for rows in images.values()])
    axes[0].imshow(strip.reshape(-1, 4, 28, 28).swapaxes(1, 2).reshape(-1, 4 * 28), cmap="gray", vmin=0, vmax=255)
    axes[0].set(xticks=[], yticks=14 + 28 * np.arange(len(images)), yticklabels=images)
    axes[1].boxplot([scores[kind] for kind in images], orientation="horizontal", whis=(1, 99), showfliers=False)
    lowest = -9000
    axes[1].set(yticks=[], xlabel="ELBO of the normal VAE, nats per image", ylim=(len(images) + 0.5, 0.5))
    axes[1].set_xlim(lowest, 300 + max(np.max(values) for values in scores.values()))
    for row, kind in enumerate(images):
        if np.median(scores[kind]) < lowest:
            axes[1].text(lowest, row + 1, f"  ← median {np.median(scores[kind]):.0e}", va="center")
    figure.savefig(path, dpi=80)


def main():
    """Fit, score, and write the table and the figure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--epochs", type=int, default=30, help="of each VAE (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=DOCS, help="folder that gets results/ and images/guide/")
    options = parser.parse_args()
    X, _ = fetch_fashion_mnist(subset="train", return_X_y=True)
    X_test, _ = fetch_fashion_mnist(subset="test", return_X_y=True)
    images = {"clothes": X_test[-N_IMAGES:], **others(X_test)}
    margin = "continuous_bernoulli_vae, study, dense 128, data_range=(-4, 259)"
    models = {
        "normal VAE": representation("normal_vae, study", "fashion-mnist", options.epochs, 0),
        "CB VAE": representation(margin, "fashion-mnist", options.epochs, 0),
        "PCA": PCA(20, random_state=0),
    }
    scores = {}
    for name, model in models.items():
        model.fit(X)
        scores[name] = {kind: model.score_samples(rows) for kind, rows in images.items()}
    for folder in ("results", "images/guide"):
        (options.output / folder).mkdir(parents=True, exist_ok=True)
    rows = measure(scores)
    (options.output / "results" / "out_of_distribution.json").write_text(json.dumps(rows, indent=1) + "\n")
    draw(images, scores["normal VAE"], options.output / "images" / "guide" / "out_of_distribution.png")
    print(table(rows))


if __name__ == "__main__":
    main()
