"""`transform`, `inverse_transform`, `sample` and `score_samples`: rows per second and the time of one row."""

import numpy as np
import torch
from harness import images, in_turn, quartiles, ratios
from sklearn.decomposition import PCA
from training import LAYERS, MODELS

N_ROWS, N_SCORED = 10_000, 500


def encoder_products(model, n_rows):
    """Return a function that does the matrix products of the encoder on `n_rows` rows, as large as they come."""
    products = [
        (torch.randn(n_rows, n_inputs), torch.randn(n_outputs, n_inputs))
        for n_inputs, n_outputs in LAYERS[model][: 2 if model == "normal" else 3]
    ]
    # The convolution takes a few images at a time: the patches of all would fill the memory.
    n_images = min(n_rows, 500)
    n_blocks = n_rows // n_images if model == "continuous Bernoulli" else 0
    patches, kernels = torch.randn(784 * n_images, 9), torch.randn(32, 9)

    def multiply():
        for _ in range(n_blocks):
            torch.mm(patches, kernels.t())
        for x, weight in products:
            torch.mm(x, weight.t())

    return multiply


def measure(seconds):
    """Return rows per second for many rows, microseconds for one row, and both over the encoder's products."""
    X = images(N_ROWS)
    floats = X.astype(np.float32)
    results = []
    for model, estimator in MODELS.items():
        fitted = estimator(max_iter=1, batch_size=512, random_state=0).fit(X[:2000])
        pca = PCA(20, random_state=0).fit(floats[:2000])
        Z = fitted.transform(X)
        for n_rows in (N_ROWS, 1):
            contestants = {
                "encoder's matrix products": encoder_products(model, n_rows),
                "transform": lambda f=fitted, n=n_rows: f.transform(X[:n]),
                "transform, float32": lambda f=fitted, n=n_rows: f.transform(floats[:n]),
                "validation of a row alone": lambda f=fitted: f._model_and_data(X[:1]),
                "inverse_transform": lambda f=fitted, n=n_rows, Z=Z: f.inverse_transform(Z[:n]),
                "sample": lambda f=fitted, n=n_rows: f.sample(n, random_state=0),
                "score_samples": lambda f=fitted, n=n_rows: f.score_samples(X[: min(n, N_SCORED)]),
                "PCA.transform, float32": lambda p=pca, n=n_rows: p.transform(floats[:n]),
                "PCA.inverse_transform": lambda p=pca, n=n_rows, Z=Z: p.inverse_transform(Z[:n]),
            }
            if n_rows > 1:
                del contestants["validation of a row alone"]
            times = in_turn(contestants, seconds=seconds / 2, n_rounds=7 if n_rows > 1 else 200)
            over_products = ratios(times, "encoder's matrix products")
            for name, values in times.items():
                n = min(n_rows, N_SCORED) if name == "score_samples" else n_rows
                results.append(
                    {
                        "model": model,
                        "rows": n,
                        "what": name,
                        "rows_per_second": quartiles([n / value for value in values]),
                        "microseconds": quartiles([1e6 * value for value in values]),
                        "time_over_products": over_products[name] if n == n_rows else None,
                    }
                )
    return results
