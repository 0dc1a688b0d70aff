"""How good reconstructions and samples are: of the VAEs, and of PCA with the same mixture of normal distributions.

In each regime the models are those of the comparison, fitted to its training images; all is measured on ten thousand of
its test images, with features and classifiers of a multilayer CNN that was trained on its training images.
"""

import joblib
import numpy as np
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import train_test_split
from sklearn.utils import resample, shuffle

from skvae.classifiers import MultilayerCNNClassifier
from skvae.metrics import (
    classification_accuracy_score,
    classifier_frechet_distance,
    reconstruction_mse,
    reconstruction_ssim,
    sharpness,
)
from study import models
from study.pieces import fit_representation, keep, picture_path, split

N_IMAGES = 10_000

# How many components a mixture may have: of all images, and of one class.
SIZES, SIZES_OF_CLASS = (1, 3, 10, 40), (1, 3, 10)

# What is added to the variances of a component.
REGULARIZATION = 1e-3

# Images of each kind that are kept for pictures, and of each class.
N_SHOWN, N_SHOWN_OF_CLASS = 64, 10


def fit_mixture(Z, sizes, seed):
    """Return the mixture of normal distributions, of one of these sizes, that suits a held-out fifth best."""
    fitted, held_out = train_test_split(Z.astype(np.float64), test_size=0.2, random_state=seed)
    mixtures = [
        GaussianMixture(size, reg_covar=REGULARIZATION, random_state=seed).fit(fitted)
        for size in sizes
        if size * Z.shape[1] < len(fitted)
    ]
    return max(mixtures, key=lambda mixture: mixture.score(held_out))


def latents(model, X, seed):
    """Return a draw of the latent components of each row: from the posterior of a VAE, for PCA the components."""
    if not hasattr(model, "posterior"):
        return model.transform(X)
    mean, std = model.posterior(X)
    return np.random.RandomState(seed).normal(mean, std)


def draw(model, X, n_samples, seed):
    """Draw from a model with a mixture for the latent components of its training rows `X`.

    A VAE that has none, such as the study's, and PCA get one that is fitted in the same way.
    """
    if getattr(model, "prior", None) == "mixture":
        return model.sample(n_samples, random_state=seed)
    few = resample(X, replace=False, n_samples=min(N_IMAGES, len(X)), random_state=seed)
    mixture = fit_mixture(latents(model, few, seed), SIZES, seed)
    return model.inverse_transform(shuffle(mixture.sample(n_samples)[0], random_state=seed))


def draw_plainly(model, n_samples, seed):
    """Draw from a model with one normal distribution: N(0, I) for a VAE, for PCA the one that it fits."""
    deviations = np.sqrt(model["pca"].explained_variance_) if not hasattr(model, "posterior") else 1.0
    Z = np.random.RandomState(seed).normal(size=(n_samples, models.N_COMPONENTS)) * deviations
    return model.inverse_transform(Z)


def draw_by_class(model, X, y, n_samples, sizes, seed):
    """Draw images of every class, from the mixture of these sizes that suits the latents of its images best."""
    Z = model.transform(X)
    drawn, labels = [], []
    for label in np.unique(y):
        rows = y == label
        n_of_class = round(n_samples * rows.mean())
        drawn.append(shuffle(fit_mixture(Z[rows], sizes, seed).sample(n_of_class)[0], random_state=seed))
        labels.append(np.full(n_of_class, label))
    return model.inverse_transform(np.concatenate(drawn)), np.concatenate(labels)


def judged_rows(test):
    """Return those of the test rows of which all is measured."""
    return resample(test, replace=False, n_samples=min(N_IMAGES, len(test)), random_state=0)


def judge(regime, options):
    """Return the CNN that judges, trained on the real images of a regime; it is kept."""
    path = options.output / f"judge_{regime}.joblib"
    if not path.exists():
        X, y, cv = models.load(options.dataset)
        train, _ = split(cv, X, y, regime)
        network = MultilayerCNNClassifier(max_iter=10, random_state=0)
        network.fit(models.to_unit(X[train], models.HIGHEST[options.dataset]), y[train])
        keep(path, lambda part: joblib.dump(network, part))
    return joblib.load(path)


def measure(piece, options):
    """Return all measures of the model of a piece, or of real images, and keep some images for pictures."""
    X, y, cv = models.load(options.dataset)
    highest = models.HIGHEST[options.dataset]
    train, test = split(cv, X, y, piece.regime)
    test = judged_rows(test)
    judging = judge(piece.regime, options)
    if piece.representation == "pixels":
        return {"quality": of_real_images(judging, (X[train], y[train]), (X[test], y[test]), highest)}
    kept = fit_representation(*piece.fit, options)
    measured, images = of_model(kept["fitted"], judging, (X[train], y[train]), (X[test], y[test]), highest, piece.seed)
    images |= {f"epoch {epoch}": samples for epoch, samples in kept.get("samples", {}).items()}
    images = {name: np.clip(np.round(rows), 0, 255).astype(np.uint8) for name, rows in images.items()}
    keep(picture_path(piece, options), lambda part: np.savez_compressed(part.open("wb"), **images))
    return {"quality": measured}


def of_real_images(judging, train, test, highest, seed=0):
    """Return the measures of real images, to be seen beside those of models."""
    X_test = models.to_unit(test[0], highest)
    few, labels = resample(*train, replace=False, n_samples=min(N_IMAGES, len(train[0])), random_state=seed)
    few = models.to_unit(few, highest)
    return {
        "sharpness": {"real": sharpness(X_test)},
        "frechet": {"real": classifier_frechet_distance(judging, few, few, X_test, random_state=seed).floor},
        "cas": {"real": classification_accuracy_score(judging, few, labels, X_test, test[1])},
    }


def of_model(model, judging, train, test, highest, seed):
    """Return all measures of one model, and images of each kind.

    The kinds are "reconstructed"; "mixture" and "normal", samples with a mixture and with one normal distribution for
    the latent components; and "class mixtures", with a mixture for each class.
    """
    (X, y), (X_test, y_test) = train, test
    few, few_labels = resample(X, y, replace=False, n_samples=min(N_IMAGES, len(X)), random_state=seed)
    n_samples = len(X_test)
    of_class, labels = draw_by_class(model, X, y, n_samples, SIZES_OF_CLASS, seed)
    images = {
        "reconstructed": model.inverse_transform(model.transform(X_test)),
        "mixture": draw(model, X, n_samples, seed),
        "normal": draw_plainly(model, n_samples, seed),
        "class mixtures": of_class,
    }
    unit = {name: models.to_unit(rows, highest) for name, rows in images.items()}
    real = models.to_unit(X, highest), models.to_unit(X_test, highest)
    to_train_on = {
        "reconstructed": (models.to_unit(model.inverse_transform(model.transform(few)), highest), few_labels),
        "class mixtures": (unit["class mixtures"], labels),
    }
    measured = {
        "mse": reconstruction_mse(model, X_test) / highest**2,
        "ssim": reconstruction_ssim(model, X_test, data_range=(0, highest)),
        "sharpness": {name: sharpness(rows) for name, rows in unit.items()},
        "frechet": {
            name: classifier_frechet_distance(judging, rows, *real, random_state=seed).distance
            for name, rows in unit.items()
        },
        "cas": {
            name: classification_accuracy_score(judging, *rows, real[1], y_test) for name, rows in to_train_on.items()
        },
    }
    shown = {name: images[name][:N_SHOWN] for name in ("reconstructed", "mixture", "normal")}
    first = [np.flatnonzero(labels == label)[:N_SHOWN_OF_CLASS] for label in np.unique(labels)]
    return measured, shown | {"class mixtures": of_class[np.concatenate(first)]}
