"""The figures of the comparison: what the models generate and reconstruct, and how everything was trained."""

import matplotlib.pyplot as plt
import numpy as np

from skvae.inspection import SamplesDisplay, TrainingCurveDisplay

TITLES = {
    "pca": "PCA",
    "normal_vae": "normal VAE",
    "continuous_bernoulli_vae": "continuous Bernoulli VAE",
    "simple_cnn": "simple CNN",
    "multilayer_cnn": "multilayer CNN",
    "logistic": "logistic regression",
    "neighbors": "nearest neighbors",
}


def title(name):
    """Return how `name` reads in a title."""
    head, comma, rest = name.partition(",")
    return TITLES.get(head, head) + comma + rest


def save(figure, path, dpi=90):
    """Save a figure and forget it."""
    figure.savefig(path, dpi=dpi)
    plt.close(figure)


# How the pictures of accuracies show a representation: by its color, and whose settings it has by the form.
COLORS = {"pixels": "0.6", "pca": "black", "normal_vae": "tab:blue", "continuous_bernoulli_vae": "tab:orange"}
FORMS = {"": ("o", "full"), "study": ("s", "full"), "study, as reported": ("s", "none")}


def accuracies(path, series, regimes):
    """Draw accuracies by classifier, a panel for each regime; it is made to be read at the width of a phone.

    `series` has, by representation, accuracies by classifier and regime.
    """
    classifiers = list(dict.fromkeys(classifier for cells in series.values() for classifier, _ in cells))
    figure, axes = plt.subplots(len(regimes), 1, figsize=(4.4, 5.6), layout="constrained", sharex=True)
    for ax, regime in zip(axes, regimes, strict=True):
        for number, (name, cells) in enumerate(series.items()):
            head, _, whose = name.partition(", ")
            form, fill = FORMS[whose]
            heights = np.arange(len(classifiers)) + 0.7 * ((number + 0.5) / len(series) - 0.5)
            values = [100 * cells.get((classifier, regime), np.nan) for classifier in classifiers]
            style = {"color": COLORS[head], "marker": form, "fillstyle": fill, "linestyle": "none", "markersize": 6}
            ax.plot(values, heights, label=title(name), **style)
        ax.set_yticks(range(len(classifiers)), [title(name).replace(" ", "\n") for name in classifiers])
        ax.set(title=f"{regime} regime", ylim=(len(classifiers) - 0.5, -0.5))
        ax.grid(axis="x", alpha=0.4)
    axes[-1].set_xlabel("test accuracy, %")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", fontsize=9)
    save(figure, path, dpi=180)


def few_labels(path, found):
    """Draw accuracies over the number of labels, means and standard deviations, a panel for each classifier."""
    classifiers = list(dict.fromkeys(key[0] for key in found))
    names = list(dict.fromkeys(key[1] for key in found))
    shape = {"figsize": (4.4, 2.4 * len(classifiers)), "layout": "constrained", "sharex": True}
    figure, axes = plt.subplots(len(classifiers), 1, **shape)
    for ax, classifier in zip(axes, classifiers, strict=True):
        for name in names:
            sizes = sorted(key[2] for key in found if key[:2] == (classifier, name))
            accuracies = [100 * np.asarray(found[classifier, name, size]) for size in sizes]
            means, deviations = np.mean(accuracies, axis=1), np.std(accuracies, axis=1)
            ax.errorbar(sizes, means, deviations, color=COLORS[name], marker="o", markersize=4, label=title(name))
        ax.set(title=title(classifier), xscale="log", ylabel="test accuracy, %")
        ax.set_xticks(sizes, [f"{size:,}" for size in sizes])
        ax.minorticks_off()
        ax.grid(alpha=0.4)
    axes[-1].set_xlabel("labels")
    axes[0].legend(fontsize=9)
    save(figure, path, dpi=180)


def samples_by_epoch(path, samples, highest):
    """Draw, for each model, the same latent points as they are decoded after more and more epochs."""
    height = 0.6 + 0.45 * max(map(len, samples.values()))
    shape = 1, len(samples)
    figure, axes = plt.subplots(*shape, figsize=(5.5 * len(samples), height), layout="constrained", squeeze=False)
    for ax, (name, by_epoch) in zip(axes[0], samples.items(), strict=True):
        rows = list(by_epoch.values())
        labels = [f"epoch {epoch}" for epoch in by_epoch]
        display = SamplesDisplay(np.concatenate(rows), len(rows[0]), row_labels=labels)
        display.plot(ax=ax, vmin=0, vmax=highest).ax_.set_title(title(name))
    save(figure, path)


def samples(path, rows, highest):
    """Draw grids of images; `rows` has those beside each other by title, with a title of its own each."""
    n_columns, n_samples = 8, 40
    shape = len(rows), len(rows[0])
    figure, axes = plt.subplots(*shape, figsize=(3 * shape[1], 2.15 * shape[0]), layout="constrained", squeeze=False)
    for row, grids in zip(axes, rows, strict=True):
        for ax, (name, images) in zip(row, grids.items(), strict=True):
            SamplesDisplay(images[:n_samples], n_columns).plot(ax=ax, vmin=0, vmax=highest).ax_.set_title(name)
    save(figure, path)


def classes(path, images, highest):
    """Draw what each model makes of each class, a class in a row; `images` has them by the model's name."""
    figure, axes = plt.subplots(1, len(images), figsize=(3 * len(images), 3.4), layout="constrained", squeeze=False)
    for ax, (name, rows) in zip(axes[0], images.items(), strict=True):
        SamplesDisplay(rows, len(rows) // 10).plot(ax=ax, vmin=0, vmax=highest).ax_.set_title(title(name))
    save(figure, path)


def reconstructions(path, X, reconstructed, highest):
    """Draw images that no model was trained on, and what each model makes of them."""
    n_images = 15
    rows = {"real images": X}
    rows |= {title(name).replace("Bernoulli", "\nBernoulli"): images for name, images in reconstructed.items()}
    images = np.concatenate([images[:n_images] for images in rows.values()])
    figure, ax = plt.subplots(figsize=(11, 0.65 * len(rows)), layout="constrained")
    SamplesDisplay(images, n_images, row_labels=list(rows)).plot(ax=ax, vmin=0, vmax=highest)
    save(figure, path)


def elbo(path, histories):
    """Draw the ELBO and its terms by epoch, from the second epoch on, for each model and regime."""
    names = list(dict.fromkeys(name for name, _ in histories))
    regimes = list(dict.fromkeys(regime for _, regime in histories))
    shape = len(names), len(regimes)
    figure, axes = plt.subplots(*shape, figsize=(5 * shape[1], 3.4 * shape[0]), layout="constrained", squeeze=False)
    for (name, regime), history in histories.items():
        ax = axes[names.index(name), regimes.index(regime)]
        display = TrainingCurveDisplay(history).plot(ax=ax)
        values = np.concatenate([history[key][1:] or history[key] for key in ("elbo", "log_likelihood")])
        margin = 0.05 * np.ptp(values)
        ax.set_ylim(values.min() - margin, values.max() + margin)
        display.ax_.set_title(f"{title(name)}, {regime} regime")
        display.right_ax_.get_legend().remove()
    figure.legend(handles=display.lines_, ncols=len(display.lines_), loc="outside upper center")
    save(figure, path)


def classifier_curves(path, classifier, curves):
    """Draw training loss and accuracy of one classifier on each representation in each regime."""
    regimes = list(dict.fromkeys(regime for _, regime in curves))
    figure, axes = plt.subplots(2, len(regimes), figsize=(5 * len(regimes), 5.4), layout="constrained", sharex="col")
    step = "iteration" if classifier.startswith("logistic") else "epoch"
    for (representation, regime), curve in curves.items():
        for ax, name in zip(axes[:, regimes.index(regime)], ("loss", "accuracy"), strict=True):
            ax.plot(range(1, len(curve[name]) + 1), curve[name], label=title(representation))
            ax.set(ylabel=f"training {name}")
        axes[0, regimes.index(regime)].set_title(f"{title(classifier)}, {regime} regime")
        axes[1, regimes.index(regime)].set_xlabel(step)
    for ax in axes[0]:
        ax.set_ylim(0, min(ax.get_ylim()[1], 2.3))
    axes[1, -1].legend()
    save(figure, path)
