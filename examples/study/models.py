"""What is compared: data, representations and classifiers, by the names that the tables have."""

from itertools import chain, pairwise

import numpy as np
import torch
from sklearn.callback import ScoringMonitor
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from torch import nn

from skvae import ContinuousBernoulliVAETransformer, NormalVAETransformer
from skvae.classifiers import MultilayerCNNClassifier, SimpleCNNClassifier
from skvae.datasets import fetch_fashion_mnist
from skvae.model_selection import RegimeSplit

REGIMES = ("large", "small")

# The main job compares these, the VAEs at the defaults of their estimators. The full run has the study's as well.
REPRESENTATIONS = ("pixels", "pca", "normal_vae", "continuous_bernoulli_vae")
COMPARED = (*REPRESENTATIONS, "normal_vae, study", "continuous_bernoulli_vae, study")

# The number of pixels of an image, and the largest value of one.
N_PIXELS = {"digits": 64, "fashion-mnist": 784}
HIGHEST = {"digits": 16, "fashion-mnist": 255}

# The standard deviation of all pixels, in units of `scale_`, the root mean square around the mean of each pixel.
DEVIATION = {"digits": 1.389, "fashion-mnist": 1.197}

N_COMPONENTS = 20

# How the study trains.
STUDY = {
    "init": "random",
    "prior": "normal",
    "learning_rate": "constant",
    "learning_rate_init": 1e-3,
    "weight_decay": 0.0,
    "batch_size": 128,
    "max_iter": 200,
    "clip_value": 2.0,
}

# Its two models. The decoder of the normal one is a module of its own, `sigmoid_decoder`, and its `min_scale` is given
# here in standard deviations of all pixels, and so independently of the units. The other one's is as good as no bound.
DENSE_128 = {"encoder": "dense", "hidden_layer_sizes": (128,), "dropout": 0.0}
CONV_512 = {"encoder": "conv", "hidden_layer_sizes": (512, 512), "dropout": 0.1}
NORMAL = STUDY | {"noise": "network", "min_scale": 0.4} | DENSE_128
CONTINUOUS_BERNOULLI = STUDY | {"min_scale": 1e-6} | CONV_512

# Each model: its estimator, and what differs from the defaults. A variant says what it changes, of the defaults or of
# the study's model. The study's with one thing of the defaults show what each is worth: where training begins, how it
# goes on, the noise and its bound, and the network. (A decoder of one's own cannot begin at PCA: there it is the
# default's.)
DENSE_512 = {"hidden_layer_sizes": (512,)}
MARGIN = {"data_range": (-4, 259)}
TRAINING = {"learning_rate": "cosine", "learning_rate_init": 2e-3, "batch_size": "auto", "max_iter": None}
DENSE_DECODER = {"decoder": "dense"}
VAES = {
    "normal_vae": (NormalVAETransformer, {}),
    "continuous_bernoulli_vae": (ContinuousBernoulliVAETransformer, {}),
    "normal_vae, dense 512": (NormalVAETransformer, DENSE_512),
    "continuous_bernoulli_vae, dense 512": (ContinuousBernoulliVAETransformer, DENSE_512),
    "normal_vae, study": (NormalVAETransformer, NORMAL),
    "continuous_bernoulli_vae, study": (ContinuousBernoulliVAETransformer, CONTINUOUS_BERNOULLI),
    "normal_vae, study, dense 512": (NormalVAETransformer, NORMAL | DENSE_512),
    "normal_vae, study, conv 512": (NormalVAETransformer, NORMAL | CONV_512),
    "continuous_bernoulli_vae, study, dense 128": (
        ContinuousBernoulliVAETransformer,
        CONTINUOUS_BERNOULLI | DENSE_128,
    ),
    "continuous_bernoulli_vae, study, data_range=(-4, 259)": (
        ContinuousBernoulliVAETransformer,
        CONTINUOUS_BERNOULLI | MARGIN,
    ),
    "continuous_bernoulli_vae, study, dense 128, data_range=(-4, 259)": (
        ContinuousBernoulliVAETransformer,
        CONTINUOUS_BERNOULLI | DENSE_128 | MARGIN,
    ),
    "normal_vae, study, default decoder": (NormalVAETransformer, NORMAL | DENSE_DECODER),
    "normal_vae, study, default decoder and start": (NormalVAETransformer, NORMAL | DENSE_DECODER | {"init": "pca"}),
    "normal_vae, study, default noise": (NormalVAETransformer, NORMAL | {"noise": "feature"}),
    "normal_vae, study, default bound": (
        NormalVAETransformer,
        NORMAL | {"min_scale": 0.02 / DEVIATION["fashion-mnist"]},
    ),
    "normal_vae, study, default training": (NormalVAETransformer, NORMAL | TRAINING),
    "continuous_bernoulli_vae, study, default start": (
        ContinuousBernoulliVAETransformer,
        CONTINUOUS_BERNOULLI | {"init": "pca"},
    ),
    "continuous_bernoulli_vae, study, default bound": (
        ContinuousBernoulliVAETransformer,
        CONTINUOUS_BERNOULLI | {"min_scale": 1 / 64},
    ),
    "continuous_bernoulli_vae, study, default training": (
        ContinuousBernoulliVAETransformer,
        CONTINUOUS_BERNOULLI | TRAINING,
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


def sigmoid_decoder(hidden_layer_sizes, dropout, n_outputs, seed, n_components=N_COMPONENTS):
    """Return the decoder of the study's normal model: means and, if any, what standard deviations are made of."""
    widths = [n_components, *reversed(hidden_layer_sizes)]
    with torch.random.fork_rng(devices=[]):  # layers come with weights from torch's global generator
        hidden = [(nn.Linear(*pair), nn.Sigmoid(), nn.Dropout(dropout)) for pair in pairwise(widths)]
        decoder = nn.Sequential(*chain.from_iterable(hidden), nn.Linear(widths[-1], n_outputs))
    generator = torch.Generator().manual_seed(seed)
    for layer in decoder:
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight, generator=generator)
            nn.init.zeros_(layer.bias)
    return decoder


def representation(name, dataset, n_epochs, seed, **changes):
    """Return the representation of this name, not fitted.

    `n_epochs` is that of VAEs; None leaves it to the library, or to the study. `changes` are other parameters.
    """
    highest = {"highest": HIGHEST[dataset]}
    scale = FunctionTransformer(to_unit, from_unit, kw_args=highest, inv_kw_args=highest)
    if name == "pixels":
        return scale
    if name == "pca":
        return Pipeline([("scale", scale), ("pca", PCA(N_COMPONENTS, random_state=seed))])
    estimator, parameters = VAES[name]
    parameters = parameters | changes
    if n_epochs is not None:
        parameters["max_iter"] = n_epochs
    if name.startswith("normal_vae, study"):
        n_outputs = N_PIXELS[dataset] * (2 if parameters["noise"] == "network" else 1)
        shape = parameters["hidden_layer_sizes"], parameters["dropout"]
        parameters.setdefault("decoder", sigmoid_decoder(*shape, n_outputs, seed))
        parameters["min_scale"] *= DEVIATION[dataset]
    elif name.startswith("continuous_bernoulli_vae, study"):
        parameters.setdefault("data_range", (0, HIGHEST[dataset]))
    return estimator(N_COMPONENTS, random_state=seed, **parameters)


def classifiers(n_epochs, seed, activation="relu", device="auto"):
    """Return the classifiers by name, each with a monitor of its training; see `curves`."""
    network = {"max_iter": n_epochs, "random_state": seed, "activation": activation, "device": device}
    named = {
        "logistic": LogisticRegression(max_iter=500),
        "simple_cnn": SimpleCNNClassifier(**network),
        "multilayer_cnn": MultilayerCNNClassifier(**network),
    }
    for classifier in named.values():
        classifier.set_callbacks(ScoringMonitor(scoring={"loss": _loss, "accuracy": _accuracy}))
    return named


def neighbors():
    """Return the fourth classifier, the measure of Loaiza-Ganem and Cunningham."""
    return KNeighborsClassifier(15, algorithm="brute")  # a tree takes many times as long in so many dimensions


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
