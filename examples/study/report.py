"""The report of the full run: figures, fashion_mnist.json in docs/results, and the tables of fashion_mnist.md there."""

import json
import os
import platform
import re
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from study import figures, full, models, quality, regime_choices

DOCS = Path(__file__).parents[2] / "docs"

# What an earlier run has measured, with the study's settings.
EARLIER = DOCS / "results" / "fashion_mnist_study.json"

CLASSIFIERS = ("logistic", "simple_cnn", "multilayer_cnn")

# Accuracies that the study reports, in the large and in the small regime.
STUDY = {
    ("pixels", "logistic"): (0.8386, 0.8251),
    ("pixels", "simple_cnn"): (0.8364, 0.8269),
    ("pixels", "multilayer_cnn"): (0.9071, 0.8767),
    ("normal_vae, study", "logistic"): (0.7459, 0.7028),
    ("normal_vae, study", "simple_cnn"): (0.7484, 0.7523),
    ("normal_vae, study", "multilayer_cnn"): (0.7914, 0.7569),
    ("continuous_bernoulli_vae, study", "logistic"): (0.7774, 0.7271),
    ("continuous_bernoulli_vae, study", "simple_cnn"): (0.7826, 0.7805),
    ("continuous_bernoulli_vae, study", "multilayer_cnn"): (0.8223, 0.7844),
}


def markdown(header, rows, n_names=2):
    """Return a Markdown table, whose first columns are names."""
    rule = ["---"] * n_names + ["---:"] * (len(header) - n_names)
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in [header, rule, *rows])


def accuracies(rows, *, suffix="", study=False):
    """Return a table of accuracies by representation and regime, each with its spread, and with what the study has."""
    found = {(row["representation"], row["regime"], row["classifier"]): row for row in rows}
    lines = []
    for name, regime in dict.fromkeys(key[:2] for key in found):
        cells = []
        for classifier in CLASSIFIERS:
            row = found.get((name, regime, classifier + suffix))
            cell = f"{row['accuracy']:.4f}" if row else ""
            if row and row["std"] is not None:
                cell += f" ± {row['std']:.4f}"
            if study and (name, classifier) in STUDY:
                cell += f" ({STUDY[name, classifier][models.REGIMES.index(regime)]:.4f})"
            cells.append(cell)
        n_seeds = max(row["seeds"] for key, row in found.items() if key[:2] == (name, regime))
        lines.append([f"`{name}`", regime, *cells, n_seeds])
    return markdown(["representation", "regime", "logistic", "simple CNN", "multilayer CNN", "seeds"], lines)


def training(pieces):
    """Return the table of what training gave: ELBO, KL and active components, means over the seeds."""
    groups = {}
    for piece in pieces:
        if "test_elbo" in piece and piece["activation"] == "relu":
            groups.setdefault((piece["representation"], piece["regime"]), []).append(piece)
    lines = []
    for (name, regime), group in groups.items():
        values = {
            "train": [piece["last_epoch"]["elbo"] for piece in group],
            "test": [piece["test_elbo"] for piece in group],
            "kl": [piece["last_epoch"]["kl"] for piece in group],
            "active": [piece["active"] for piece in group],
        }
        means = {key: np.mean(numbers) for key, numbers in values.items()}
        cells = [f"{means['train']:.1f}", f"{means['test']:.1f}", f"{means['kl']:.1f}", f"{means['active']:.3g}"]
        lines.append([f"`{name}`", regime, *cells])
    header = ["model", "regime", "training ELBO", "test ELBO", "KL", "active components"]
    return markdown(header, lines)


def judged(measured):
    """Return the table of the quality of reconstructions and samples."""
    columns = {
        "mse": ("MSE", ".4f"),
        "ssim": ("SSIM", ".3f"),
        "sharpness_of_reconstructions": ("sharpness, reconstructed", ".3f"),
        "sharpness_of_samples": ("sharpness, sampled", ".3f"),
        "frechet_of_reconstructions": ("Fréchet, reconstructed", ".1f"),
        "frechet_of_samples": ("Fréchet, sampled", ".1f"),
        "frechet_floor": ("its floor", ".1f"),
        "cas_of_reconstructions": ("CAS, reconstructed", ".3f"),
        "cas_of_samples": ("CAS, sampled", ".3f"),
    }
    # A real image is its own reconstruction and a sample.
    same = {"sharpness": ("sharpness_of_reconstructions", "sharpness_of_samples")}
    same |= {"cas": ("cas_of_reconstructions", "cas_of_samples")}
    lines = []
    for row in measured:
        row = row | {new: row[old] for old, news in same.items() if old in row for new in news}
        cells = [format(row[key], style) if key in row else "" for key, (_, style) in columns.items()]
        name = row["model"] if row["model"] == "real images" else f"`{row['model']}`"
        lines.append([name, row["regime"], *cells])
    return markdown(["model", "regime", *(label for label, _ in columns.values())], lines)


def tables(results, choices):
    """Return the tables by name."""
    table, pieces = results["table"], results["pieces"]
    refit = [row for row in table if row["protocol"] == "refit" and "," not in row["classifier"]]
    suffix = ", activation=identity"
    return {
        "accuracy": accuracies([row for row in refit if row["representation"] in models.COMPARED], study=True),
        "variants": accuracies([row for row in refit if row["representation"] not in models.COMPARED]),
        "unlabeled": accuracies([row for row in table if row["protocol"] != "refit"]),
        "identity": accuracies([row for row in table if row["classifier"].endswith(suffix)], suffix=suffix),
        "training": training(pieces),
        "quality": judged(results["quality"]),
        **{f"choices of {kind}": block for kind, block in regime_choices.tables(choices).items()},
    }


def fill(text, blocks):
    """Return the page with each block between the marks of its name."""
    for name, block in blocks.items():
        mark = rf"(<!-- begin {name} -->\n).*?(<!-- end {name} -->)"
        text = re.sub(mark, lambda match, block=block: f"{match[1]}\n{block}\n\n{match[2]}", text, flags=re.S)
    return text


def draw_figures(options, pieces, folder):
    """Draw the study's figures, of seed 0."""
    X, y, cv = models.load("fashion-mnist")
    vaes = [name for name in models.COMPARED if name in models.VAES]
    _, test = full.split(cv, X, y, "large")
    large = {name: full.Piece(name, "large", 0) for name in ("pca", *vaes)}
    kept = {name: full.fit_representation(piece, options) for name, piece in large.items()}
    fitted = {name: content["fitted"] for name, content in kept.items()}
    highest = models.HIGHEST["fashion-mnist"]
    folder.mkdir(parents=True, exist_ok=True)
    samples = {name: kept[name]["samples"] for name in vaes}
    figures.samples_by_epoch(folder / "samples_by_epoch.png", samples, highest)
    figures.samples(folder / "samples.png", X[test], {name: fitted[name] for name in vaes}, highest, 0)
    figures.reconstructions(folder / "reconstructions.png", X[test], fitted, highest)
    own = [
        piece
        for piece in pieces
        if (piece["seed"], piece["protocol"], piece["activation"]) == (0, "refit", "relu")
        and piece["representation"] in models.COMPARED
    ]
    histories = {(p["representation"], p["regime"]): p["history"] for p in own if "history" in p}
    figures.elbo(folder / "elbo.png", histories)
    for classifier in CLASSIFIERS:
        curves = {(piece["representation"], piece["regime"]): piece["curves"][classifier] for piece in own}
        figures.classifier_curves(folder / f"curves_{classifier}.png", classifier, curves)


def without_curves(piece):
    """Return what was measured of a piece, with the last epoch for its history."""
    last_epoch = {name: values[-1] for name, values in piece.get("history", {}).items()}
    return {key: value for key, value in piece.items() if key not in ("curves", "history")} | {"last_epoch": last_epoch}


def write(options):
    """Write figures, results and tables of all that has been measured."""
    pieces = full.results(options)
    draw_figures(options, pieces, DOCS / "images" / "fashion_mnist")
    results = {
        "settings": {
            "epochs": options.epochs,
            "classifier_epochs": options.classifier_epochs,
            "classifiers": {name: repr(c) for name, c in models.classifiers(options.classifier_epochs, 0).items()},
            "representations": {
                name: repr(models.representation(name, "fashion-mnist", options.epochs, 0)) for name in full.SEEDS
            },
        },
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("skvae", "torch", "scikit-learn", "skorch", "numpy", "scipy")},
        },
        "machine": {"cores": os.cpu_count(), "threads": torch.get_num_threads()},
        "table": full.table(pieces),
        "pieces": [without_curves(piece) for piece in pieces],
        "quality": quality.measure(options),
    }
    (DOCS / "results" / "fashion_mnist.json").write_text(json.dumps(results, indent=1) + "\n")
    choices = json.loads((DOCS / "results" / "regime_choices.json").read_text())
    page = DOCS / "results" / "fashion_mnist.md"
    page.write_text(fill(page.read_text(), tables(results, choices)))
