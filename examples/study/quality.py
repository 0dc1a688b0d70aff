"""How good reconstructions and samples are: the likelihood against the architecture, and both against PCA.

In each regime the models are those of the comparison, fitted to its training images; all is measured on ten thousand of
its test images, with features and classifiers of a multilayer CNN that was trained on its training images.
"""

import time

import numpy as np
from joblib import Memory
from sklearn.utils import resample

from skvae.classifiers import MultilayerCNNClassifier
from skvae.metrics import (
    classification_accuracy_score,
    classifier_frechet_distance,
    reconstruction_mse,
    reconstruction_ssim,
    sharpness,
)
from study import full, models

N_IMAGES = 10_000

HIGHEST = models.HIGHEST["fashion-mnist"]


def unit(X):
    """Bring pixels to [0, 1]."""
    return models.to_unit(X, HIGHEST)


def draw(model, n_samples, seed):
    """Draw from a model: from the prior of a VAE, for PCA from the normal distribution that it fits."""
    if hasattr(model, "sample"):
        return model.sample(n_samples, random_state=seed)
    deviations = np.sqrt(model["pca"].explained_variance_)
    return model.inverse_transform(np.random.RandomState(seed).normal(size=(n_samples, len(deviations))) * deviations)


def draw_by_class(model, X, y, n_samples, seed):
    """Draw images of every class, from the normal distribution that its images have in the latent space."""
    random_state = np.random.RandomState(seed)
    means = model.transform(X)
    variances = model.posterior(X)[1] ** 2 if hasattr(model, "posterior") else np.zeros_like(means)
    latents, labels = [], []
    for label in np.unique(y):
        rows = y == label
        covariance = np.cov(means[rows], rowvar=False) + np.diag(variances[rows].mean(axis=0))
        n_of_class = round(n_samples * rows.mean())
        latents.append(random_state.multivariate_normal(means[rows].mean(axis=0), covariance, size=n_of_class))
        labels.append(np.full(n_of_class, label))
    return model.inverse_transform(np.concatenate(latents)), np.concatenate(labels)


def fit_judge(X, y, seed):
    """Return the CNN that judges: trained on real images in [0, 1]."""
    return MultilayerCNNClassifier(max_iter=10, random_state=seed).fit(X, y)


def judge(model, judging, train, test, seed=0):
    """Return all measures of one model."""
    (X, y), (X_test, y_test) = train, test
    reconstructed = unit(model.inverse_transform(model.transform(X_test)))
    samples = unit(draw(model, N_IMAGES, seed))
    generated, labels = draw_by_class(model, X, y, N_IMAGES, seed)
    distances = {
        name: classifier_frechet_distance(judging, images, unit(X), unit(X_test), random_state=seed)
        for name, images in (("reconstructions", reconstructed), ("samples", samples))
    }
    few, few_labels = resample(X, y, replace=False, n_samples=N_IMAGES, random_state=seed)
    rebuilt = unit(model.inverse_transform(model.transform(few)))
    real_test = unit(X_test), y_test
    return {
        "mse": reconstruction_mse(model, X_test) / HIGHEST**2,
        "ssim": reconstruction_ssim(model, X_test, data_range=(0, HIGHEST)),
        "sharpness_of_reconstructions": sharpness(reconstructed),
        "sharpness_of_samples": sharpness(samples),
        "frechet_of_reconstructions": distances["reconstructions"].distance,
        "frechet_of_samples": distances["samples"].distance,
        "frechet_floor": distances["samples"].floor,
        "cas_of_reconstructions": classification_accuracy_score(judging, rebuilt, few_labels, *real_test),
        "cas_of_samples": classification_accuracy_score(judging, unit(generated), labels, *real_test),
    }


def judge_piece(piece, options, judging, train, test):
    """Return all measures of the model of a piece. They are kept by piece, since modules have no lasting hash."""
    model = full.fit_representation(piece, options)["fitted"]
    start = time.perf_counter()
    measured = judge(model, judging, train, test)
    print(f"{piece.representation}, {piece.regime}: judged in {time.perf_counter() - start:.0f} s", flush=True)
    return measured


def real(judging, train, test, seed=0):
    """Return the measures of real images, to be seen beside those of models."""
    few, labels = resample(*train, replace=False, n_samples=N_IMAGES, random_state=seed)
    return {
        "sharpness": sharpness(unit(test[0])),
        "cas": classification_accuracy_score(judging, unit(few), labels, unit(test[0]), test[1]),
    }


def measure(options):
    """Return the measures of every fitted model of seed 0 in either regime; what has been measured is not again."""
    memory = Memory(options.output / "cache", verbose=0)
    X, y, cv = models.load("fashion-mnist")
    measured = []
    for regime in models.REGIMES:
        train, test = full.split(cv, X, y, regime)
        test = resample(test, replace=False, n_samples=N_IMAGES, random_state=0)
        train, test = (X[train], y[train]), (X[test], y[test])
        judging = memory.cache(fit_judge)(unit(train[0]), train[1], seed=0)
        measured.append({"model": "real images", "regime": regime, **memory.cache(real)(judging, train, test)})
        for piece in full.plan():
            wanted = (piece.regime, piece.seed, piece.protocol, piece.activation) == (regime, 0, "refit", "relu")
            if wanted and piece.representation != "pixels" and full.piece_path(piece, options).exists():
                figures = memory.cache(judge_piece, ignore=["options"])(piece, options, judging, train, test)
                measured.append({"model": piece.representation, "regime": regime, **figures})
    return measured
