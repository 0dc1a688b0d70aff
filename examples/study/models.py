"""What is compared: data, representations and classifiers, by the names that the tables have."""

import numpy as np
from sklearn.callback import ScoringMonitor
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer

from skvae import ContinuousBernoulliVAETransformer, NormalVAETransformer
from skvae.classifiers import MultilayerCNNClassifier, SimpleCNNClassifier
from skvae.datasets import fetch_fashion_mnist
from skvae.model_selection import RegimeSplit

REGIMES = ("large", "small")
REPRESENTATIONS = ("pixels", "pca", "normal_vae", "continuous_bernoulli_vae")

# The largest value of a pixel.
HIGHEST = {"digits": 16, "fashion-mnist": 255}

# Each model, and what differs in it from the defaults of its estimator.
CONV_512 = {"encoder": "conv", "hidden_layer_sizes": (512, 512), "dropout": 0.1}
DENSE_512 = {"hidden_layer_sizes": (512,)}
DENSE_128 = {"encoder": "dense", "hidden_layer_sizes": (128,), "dropout": 0.0}
MARGIN = {"data_range": (-4, 259)}
VAES = {
    "normal_vae": (NormalVAETransformer, {}),
    "normal_vae, dense 512": (NormalVAETransformer, DENSE_512),
    "normal_vae, conv 512": (NormalVAETransformer, CONV_512),
    "continuous_bernoulli_vae": (ContinuousBernoulliVAETransformer, {}),
    "continuous_bernoulli_vae, dense 128": (ContinuousBernoulliVAETransformer, DENSE_128),
    "continuous_bernoulli_vae, data_range=(-4, 259)": (ContinuousBernoulliVAETransformer, MARGIN),
    "continuous_bernoulli_vae, dense 128, data_range=(-4, 259)": (
        ContinuousBernoulliVAETransformer,
        DENSE_128 | MARGIN,
    ),
}


def load(dataset):
    """Return pixels, labels and the two regimes."""
    if dataset == "fashion-mnist":
        return *fetch_fashion_mnist(return_X_y=True), RegimeSplit(10_000)
    return *load_digits(return_X_y=True), RegimeSplit(0.2, shuffle=True, stratify=True, random_state=0)


def to_unit(X, highest):
    """Bring pixels to [0, 1], in float32."""
    return (X / highest).astype(np.float32)


def from_unit(X, highest):
    """Bring pixels back from [0, 1]."""
    return X * highest


def representation(name, dataset, n_epochs, seed):
    """Return the representation of this name, not fitted."""
    highest = {"highest": HIGHEST[dataset]}
    scale = FunctionTransformer(to_unit, from_unit, kw_args=highest, inv_kw_args=highest)
    if name == "pixels":
        return scale
    if name == "pca":
        return Pipeline([("scale", scale), ("pca", PCA(20, random_state=seed))])
    estimator, parameters = VAES[name]
    if estimator is ContinuousBernoulliVAETransformer:
        parameters = {"data_range": (0, HIGHEST[dataset])} | parameters
    return estimator(max_iter=n_epochs, random_state=seed, **parameters)


def classifiers(n_epochs, seed, activation="relu"):
    """Return the classifiers by name, each with a monitor of its training; see `curves`."""
    network = {"max_iter": n_epochs, "random_state": seed, "activation": activation}
    named = {
        "logistic": LogisticRegression(max_iter=500),
        "simple_cnn": SimpleCNNClassifier(**network),
        "multilayer_cnn": MultilayerCNNClassifier(**network),
    }
    for classifier in named.values():
        classifier.set_callbacks(ScoringMonitor(scoring={"loss": _loss, "accuracy": _accuracy}))
    return named


def _loss(classifier, X, y):
    """Return the training loss, which the networks have recorded already."""
    if hasattr(classifier, "history_"):
        return classifier.history_["loss"][-1]
    return log_loss(y, classifier.predict_proba(X), labels=classifier.classes_)


def _accuracy(classifier, X, y):
    return classifier.history_["accuracy"][-1] if hasattr(classifier, "history_") else classifier.score(X, y)


def curves(classifier):
    """Return training loss and accuracy by epoch, or by iteration, of each fit of `classifier` in the last search.

    The fits go by their number in the search, which counts candidates and within them regimes.
    """
    (monitor,) = classifier._skl_callbacks
    fits = {}
    for row in monitor.get_logs().data:
        if row["task_name"] != "fit":
            curve = fits.setdefault(row["task_id_path"][2], {"loss": [], "accuracy": []})
            for name, values in curve.items():
                values.append(row[name])
    return fits


def fitted(search, name, X, y):
    """Return the representation of this name as the search has fitted it to `X` and `y`, out of the search's cache."""
    (step,) = (step for step in search.param_grid["representation"] if step.steps[0][0] == name)
    pipeline = Pipeline([("representation", step), ("classifier", "passthrough")], memory=search.estimator.memory)
    return pipeline.fit(X, y)["representation"][name]
