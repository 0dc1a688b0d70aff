"""The figures of the comparison: what the models generate and reconstruct, and how everything was trained."""

import matplotlib.pyplot as plt
import numpy as np

from skvae.inspection import ReconstructionDisplay, SamplesDisplay, TrainingCurveDisplay

TITLES = {
    "pca": "PCA",
    "normal_vae": "Normal VAE",
    "continuous_bernoulli_vae": "continuous Bernoulli VAE",
    "simple_cnn": "simple CNN",
    "multilayer_cnn": "multilayer CNN",
    "logistic": "logistic regression",
}


def title(name):
    """Return how `name` reads in a title."""
    head, comma, rest = name.partition(",")
    return TITLES.get(head, head) + comma + rest


def save(figure, path):
    """Save a figure and forget it."""
    figure.savefig(path, dpi=90)
    plt.close(figure)


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


def samples(path, X, vaes, highest, seed):
    """Draw real images and samples of each model."""
    n_columns, n_samples = 8, 64
    figure, axes = plt.subplots(1, 1 + len(vaes), figsize=(3.6 + 3.6 * len(vaes), 3.9), layout="constrained")
    grids = {"real images": X[:n_samples]}
    grids |= {name: vae.sample(n_samples, random_state=seed) for name, vae in vaes.items()}
    for ax, (name, images) in zip(axes, grids.items(), strict=True):
        SamplesDisplay(images, n_columns).plot(ax=ax, vmin=0, vmax=highest).ax_.set_title(title(name))
    save(figure, path)


def reconstructions(path, X, models, highest):
    """Draw images that no model was trained on, and what each model makes of them."""
    n_images = 15
    figure, axes = plt.subplots(len(models), 1, figsize=(10, 1.6 * len(models)), layout="constrained")
    for ax, (name, model) in zip(axes, models.items(), strict=True):
        display = ReconstructionDisplay.from_estimator(model, X[:n_images], ax=ax, vmin=0, vmax=highest)
        display.ax_.set_title(title(name))
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
