"""The report of the full run: figures, fashion_mnist.json in docs/results, and the tables of the pages there."""

import json
import math
import os
import platform
import re
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from study import figures, full, models, quality, regime_choices
from study.pieces import SEEDS, Piece, picture_path, split

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

# The regime of the models whose images are shown.
PICTURED = "small"

# What makes bits of each pixel out of nats of an image.
BITS = 1 / (models.N_PIXELS["fashion-mnist"] * math.log(2))


def markdown(header, rows, n_names=2):
    """Return a Markdown table, whose first columns are names."""
    rule = ["---"] * n_names + ["---:"] * (len(header) - n_names)
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in [header, rule, *rows])


def accuracies(rows, classifiers=CLASSIFIERS, *, study=False):
    """Return a table of accuracies by representation and regime, each with its spread, and with what the study has."""
    found = {(row["representation"], row["regime"], row["classifier"]): row for row in rows}
    lines = []
    for name, regime in dict.fromkeys(key[:2] for key in found):
        cells = []
        for classifier in classifiers:
            row = found.get((name, regime, classifier))
            cell = f"{row['accuracy']:.4f}" if row else ""
            if row and row["std"] is not None:
                cell += f" ± {row['std']:.4f}"
            if study and (name, classifier) in STUDY:
                cell += f" ({STUDY[name, classifier][models.REGIMES.index(regime)]:.4f})"
            cells.append(cell)
        n_seeds = max(row["seeds"] for key, row in found.items() if key[:2] == (name, regime))
        lines.append([f"`{name}`", regime, *cells, n_seeds])
    titles = (figures.title(classifier) for classifier in classifiers)
    return markdown(["representation", "regime", *titles, "seeds"], lines)


def gains(table):
    """Return the table of what the models are worth beyond PCA, in points of accuracy, over the cells of a protocol.

    In the large regime the two protocols are the same.
    """
    found = {(r["representation"], r["protocol"], r["regime"], r["classifier"]): r["accuracy"] for r in table}
    lines = []
    for protocol in ("refit", "unlabeled"):
        halves = ("refit", "large"), (protocol, "small")
        cells = [(*half, classifier) for half in halves for classifier in CLASSIFIERS]
        for name in dict.fromkeys((*models.COMPARED[2:], *models.VAES)):
            pairs = [(found.get((name, *cell)), found.get(("pca", *cell))) for cell in cells]
            gain = [100 * (ours - of_pca) for ours, of_pca in pairs if None not in (ours, of_pca)]
            if gain:
                points = (f"{value:+.1f}" for value in gain)
                n_ahead = f"{sum(value > 0 for value in gain)} of {len(gain)}"
                lines.append([f"`{name}`", protocol, ", ".join(points), n_ahead, f"{np.mean(gain):+.2f}"])
    return markdown(["representation", "protocol", "points over PCA", "ahead", "mean"], lines)


def again(measured):
    """Return the table of the cells that an earlier run has measured and this one again, with the same seed."""
    found = {(p["representation"], p["regime"], p["seed"], p["protocol"]): p for p in of_measure(measured, "accuracy")}
    lines = []
    for (name, regime, seed, protocol), piece in found.items():
        first = found.get((name, regime, seed, "refit"))
        if protocol == "again" and first and "accuracy" in piece:
            cells = (f"{first['accuracy'][c]:.4f} → {piece['accuracy'][c]:.4f}" for c in CLASSIFIERS)
            lines.append([f"`{name}`", regime, *cells])
    return markdown(["representation", "regime", *map(figures.title, CLASSIFIERS)], lines)


def of_measure(measured, measure):
    """Return the pieces of one measure."""
    return [piece for piece in measured if piece["measure"] == measure]


def training(measured):
    """Return the table of what training gave: densities, KL and active components, means over the seeds."""
    groups, gaps = {}, {}
    for piece in of_measure(measured, "accuracy"):
        key = piece["representation"], piece["regime"]
        if "test_elbo" in piece and piece["protocol"] == "refit":
            groups.setdefault(key, []).append(piece)
        if "few_test_bound" in piece:
            gaps[key] = f"{piece['few_test_bound'] - piece['few_test_elbo']:+.1f}"
    lines = []
    for (name, regime), group in groups.items():
        train, kl = (np.mean([piece["last_epoch"][key] for piece in group]) for key in ("elbo", "kl"))
        elbo, active = (np.mean([piece[key] for piece in group]) for key in ("test_elbo", "active"))
        cells = [
            f"{train:.1f}",
            f"{elbo:.1f}",
            f"{-BITS * elbo:.3f}",
            gaps.get((name, regime), ""),
            f"{kl:.1f}",
            f"{active:.3g}",
        ]
        lines.append([f"`{name}`", regime, *cells])
    header = ["training ELBO", "test ELBO", "bits per dimension", "K = 1,000 bound", "KL", "active components"]
    return markdown(["model", "regime", *header], lines)


# The kinds of images that `quality` tells apart, as the tables call them.
KINDS = {
    "real": "real images",
    "reconstructed": "reconstructions",
    "mixture": "samples, mixture",
    "normal": "samples, normal",
    "class mixtures": "of classes, mixture",
    "class normals": "of classes, normal",
}


# How they are written.
QUALITY = {"sharpness": ".3f", "frechet": ".1f", "cas": ".3f"}


def judged(measured, measure, style):
    """Return the table of one measure of quality, for each kind of images."""
    pieces = of_measure(measured, "quality")
    kinds = [kind for kind in KINDS if any(kind in piece["quality"].get(measure, {}) for piece in pieces)]
    lines = []
    for regime in models.REGIMES:
        for piece in pieces:
            if piece["regime"] == regime:
                found = piece["quality"][measure]
                cells = [format(found[kind], style) if kind in found else "" for kind in kinds]
                lines.append([name_of(piece), regime, *cells])
    return markdown(["model", "regime", *(KINDS[kind] for kind in kinds)], lines)


def name_of(piece):
    """Return how a table of quality calls what was judged."""
    return "real images" if piece["representation"] == "pixels" else f"`{piece['representation']}`"


def errors(measured):
    """Return the table of the errors of reconstructions."""
    pieces = [piece for piece in of_measure(measured, "quality") if "mse" in piece["quality"]]
    lines = [
        [name_of(piece), regime, f"{piece['quality']['mse']:.4f}", f"{piece['quality']['ssim']:.3f}"]
        for regime in models.REGIMES
        for piece in pieces
        if piece["regime"] == regime
    ]
    return markdown(["model", "regime", "MSE", "SSIM"], lines)


def by_labels(measured):
    """Return the accuracies with few labels: by classifier, representation and number of labels, all draws of them."""
    found = {}
    for piece in of_measure(measured, "few labels"):
        for classifier, numbers in piece["few_labels"].items():
            for n_labels, accuracies in numbers.items():
                key = classifier, piece["representation"], int(n_labels)
                found.setdefault(key, []).extend(accuracies)
    return found


def few_labels(measured):
    """Return the table of accuracies with few labels, means and standard deviations over the draws of the labels."""
    found = by_labels(measured)
    sizes = sorted({n_labels for _, _, n_labels in found})
    lines = [
        [
            figures.title(classifier),
            f"`{name}`",
            *(f"{np.mean(found[classifier, name, n]):.3f} ± {np.std(found[classifier, name, n]):.3f}" for n in sizes),
        ]
        for classifier, name in dict.fromkeys(key[:2] for key in found)
    ]
    return markdown(["classifier", "representation", *(f"{n:,} labels" for n in sizes)], lines)


def tables(results, choices):
    """Return the tables by name."""
    table, measured = full.table(results["pieces"]), results["pieces"]

    def rows(protocol, *classifiers, compared=None):
        return [
            row
            for row in table
            if row["protocol"] == protocol
            and row["classifier"] in classifiers
            and compared in (None, row["representation"] in models.COMPARED)
        ]

    identity = [f"{classifier}, activation=identity" for classifier in CLASSIFIERS[1:]]
    return {
        "accuracy": accuracies(rows("refit", *CLASSIFIERS, compared=True), study=True),
        "variants": accuracies(rows("refit", *CLASSIFIERS, compared=False)),
        "unlabeled": accuracies(rows("unlabeled", *CLASSIFIERS)),
        "identity": accuracies(rows("refit", *identity), identity),
        "gains": gains(table),
        "neighbors": accuracies(rows("refit", "neighbors"), ["neighbors"]),
        "neighbors, unlabeled": accuracies(rows("unlabeled", "neighbors"), ["neighbors"]),
        "few labels": few_labels(measured),
        "again": again(measured),
        "training": training(measured),
        "errors": errors(measured),
        **{name: judged(measured, name, style) for name, style in QUALITY.items()},
        **{f"choices of {kind}": block for kind, block in regime_choices.tables(choices).items()},
    }


def fill(text, blocks):
    """Return the page with each block between the marks of its name."""
    for name, block in blocks.items():
        mark = rf"(<!-- begin {name} -->\n).*?(<!-- end {name} -->)"
        text = re.sub(mark, lambda match, block=block: f"{match[1]}\n{block}\n\n{match[2]}", text, flags=re.S)
    return text


def draw_figures(options, measured, folder):
    """Draw the figures, of seed 0 where they show models or curves."""
    folder.mkdir(parents=True, exist_ok=True)
    table = full.table(measured)
    figures.accuracies(folder / "accuracies.png", series(table), models.REGIMES)
    if few := by_labels(measured):
        figures.few_labels(folder / "few_labels.png", few)
    X, y, cv = models.load("fashion-mnist")
    X_test = X[quality.judged_rows(split(cv, X, y, PICTURED)[1])]
    paths = {name: picture_path(Piece(name, PICTURED, 0, measure="quality"), options) for name in models.COMPARED[1:]}
    pictures = {name: dict(np.load(path)) for name, path in paths.items() if path.exists()}
    highest = models.HIGHEST["fashion-mnist"]
    how = {"normal": "one normal distribution", "mixture": "a mixture"}
    rows = [
        {"real images": X_test[40 * number :]}
        | {f"{figures.title(name)}\n{words}": images[kind] for name, images in pictures.items()}
        for number, (kind, words) in enumerate(how.items())
    ]
    figures.samples(folder / "samples.png", rows, highest)
    of_kind = {kind: {name: images[kind] for name, images in pictures.items()} for kind in pictures["pca"]}
    figures.classes(folder / "classes.png", of_kind["class mixtures"], highest)
    figures.reconstructions(folder / "reconstructions.png", X_test, of_kind["reconstructed"], highest)
    by_epoch = {
        name: {int(kind.removeprefix("epoch ")): rows for kind, rows in kinds.items() if kind.startswith("epoch")}
        for name, kinds in pictures.items()
        if name in models.VAES
    }
    figures.samples_by_epoch(folder / "samples_by_epoch.png", by_epoch, highest)
    own = [p for p in of_measure(measured, "accuracy") if p["seed"] == 0 and p["protocol"] != "unlabeled"]
    own = [piece for piece in own if piece["representation"] in models.COMPARED and "curves" in piece]
    figures.elbo(folder / "elbo.png", {(p["representation"], p["regime"]): p["history"] for p in own if "history" in p})
    for classifier in CLASSIFIERS:
        curves = {(piece["representation"], piece["regime"]): piece["curves"][classifier] for piece in own}
        figures.classifier_curves(folder / f"curves_{classifier}.png", classifier, curves)


def series(table):
    """Return the accuracies by classifier and regime that the picture shows, by what they are of."""
    found = {}
    for row in table:
        is_shown = row["protocol"] == "refit" and row["classifier"] in CLASSIFIERS
        if is_shown and row["representation"] in models.COMPARED[1:]:
            found.setdefault(row["representation"], {})[row["classifier"], row["regime"]] = row["accuracy"]
    reported = {}
    for (name, classifier), values in STUDY.items():
        for regime, value in zip(models.REGIMES, values, strict=True):
            reported.setdefault(f"{name}, as reported", {})[classifier, regime] = value
    del reported["pixels, as reported"]
    return found | reported


def without_curves(piece):
    """Return what was measured of a piece, with the last epoch for its history."""
    kept = {key: value for key, value in piece.items() if key not in ("curves", "history")}
    if "history" in piece:
        kept["last_epoch"] = {name: values[-1] for name, values in piece["history"].items()}
    return kept


def write(options):
    """Write figures, results and tables of all that has been measured."""
    measured = full.results(options)
    draw_figures(options, measured, DOCS / "images" / "fashion_mnist")
    results = {
        "settings": {
            "classifier_epochs": options.classifier_epochs,
            "classifiers": {name: repr(c) for name, c in models.classifiers(options.classifier_epochs, 0).items()},
            "representations": {
                name: repr(models.representation(name, "fashion-mnist", options.epochs, 0)) for name in SEEDS
            },
        },
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("skvae", "torch", "scikit-learn", "skorch", "numpy", "scipy")},
        },
        "machine": {"cores": os.cpu_count(), "threads": torch.get_num_threads()},
        "table": full.table(measured),
        "pieces": [without_curves(piece) for piece in measured],
    }
    (DOCS / "results" / "fashion_mnist.json").write_text(json.dumps(results, indent=1) + "\n")
    fill_pages()


def fill_pages():
    """Write the tables of the results into the pages of this run and of the earlier one."""
    choices = json.loads((DOCS / "results" / "regime_choices.json").read_text())
    for name in ("fashion_mnist", "fashion_mnist_study"):
        results = json.loads((DOCS / "results" / f"{name}.json").read_text())
        page = DOCS / "results" / f"{name}.md"
        page.write_text(fill(page.read_text(), tables(results, choices)))
