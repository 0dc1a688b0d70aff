"""Save small models of this version, which later versions have to load: run once for each release.

    python tests/save_models.py

writes a folder of `tests/data` named after the version: joblib and skops files, and what the models compute. The GPU
model is what a process with a GPU writes: weights are CPU arrays wherever they were, so that what tells it apart is
`device` and the state of the noise generator, which for CUDA is sixteen bytes.
"""

from pathlib import Path

import joblib
import numpy as np
import skops.io
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

import skvae
from skvae import ContinuousBernoulliVAETransformer, NormalVAETransformer
from skvae.classifiers import MultilayerCNNClassifier, SimpleCNNClassifier


def data():
    """Return digits of 4 x 4 pixels from 0 to 1, and their labels."""
    X, y = load_digits(return_X_y=True)
    return X.reshape(-1, 4, 2, 4, 2).mean(axis=(2, 4)).reshape(-1, 16)[:200] / 16, y[:200]


def fitted_models():
    """Return a fitted model of each kind, by name."""
    X, y = data()
    vae = {"n_components": 2, "hidden_layer_sizes": (4,), "max_iter": 3, "random_state": 0}
    on_gpu = NormalVAETransformer(**vae).partial_fit(X).set_params(device="cuda")
    on_gpu._continuation["noise"] = {"generator": np.zeros(16, np.uint8), "device": "cuda"}
    return {
        "normal": NormalVAETransformer(**vae).fit(X),
        "normal_in_parts": NormalVAETransformer(**vae).partial_fit(X),
        "normal_on_gpu": on_gpu,
        "continuous_bernoulli": ContinuousBernoulliVAETransformer(**vae).fit(X),
        "simple_cnn": SimpleCNNClassifier(max_iter=2, random_state=0).fit(X[:, :4], y),
        "multilayer_cnn": MultilayerCNNClassifier(max_iter=2, random_state=0).fit(X[:, :4], y),
        "pipeline": make_pipeline(NormalVAETransformer(**vae), LogisticRegression()).fit(X, y),
    }


def computed(model):
    """Return what a model computes: latents, samples and scores, or probabilities."""
    X, _ = data()
    if hasattr(model, "predict_proba"):
        return {"probabilities": model.predict_proba(X[:, : model.n_features_in_])}
    return {
        "latents": model.transform(X),
        "samples": model.sample(3, random_state=0),
        "scores": model.score_samples(X[:5]),
        "means": model.inverse_transform(model.transform(X[:5])),
    }


def main():
    """Write the files."""
    folder = Path(__file__).parent / "data" / f"models_{skvae.__version__}"
    folder.mkdir(parents=True, exist_ok=True)
    for name, model in fitted_models().items():
        joblib.dump(model, folder / f"{name}.joblib", compress=3)
        skops.io.dump(model, folder / f"{name}.skops", compression=8)
        np.savez_compressed(folder / f"{name}.npz", **computed(model))


if __name__ == "__main__":
    main()
