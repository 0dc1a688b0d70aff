"""What the panel measures: reconstructions, densities, accuracy of classifiers, anomalies.

A measurement is a dictionary of numbers for JSON. What a set does not have, its measurements do not have either.
"""

import math
import time
import warnings

import numpy as np
from sklearn.decomposition import PCA, FactorAnalysis
from sklearn.ensemble import IsolationForest
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KNeighborsClassifier, LocalOutlierFactor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

N_IMPORTANCE_SAMPLES = 64

# A row's importance bound takes thousands of decodings: so many rows of a narrow table and of a wide one have it.
WIDE, ROWS_OF_NARROW, ROWS_OF_WIDE = 100, 500, 200

# A mixture with full covariances is a rival on tables up to this width; its size is chosen by BIC.
WIDEST_FOR_MIXTURE, MIXTURE_SIZES = 30, (1, 2, 3, 5, 8, 12)

# Noise below this share of a column's mean variance is bounded even where a model has no floor.
SMALLEST_NOISE = 1e-12

CLASSIFIERS = {
    "logistic": lambda: make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
    "neighbors": lambda: KNeighborsClassifier(15),
}


def number(value, digits=6):
    """Return a float of so many digits, or None for what is not finite."""
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None


def density_rows(part):
    """Return the held-out rows whose log density is measured."""
    n_rows = ROWS_OF_WIDE if part.X.shape[1] > WIDE else ROWS_OF_NARROW
    return part.X_held_out[:n_rows].astype(float)


def reconstruction(part, reconstructed):
    """Return R² of the held-out rows, overall and by column, about the mean of the rows that were fitted.

    Columns that do not vary among the held-out rows have no R².
    """
    X = part.X_held_out.astype(float)
    residual = ((reconstructed - X) ** 2).sum(axis=0)
    total = ((X - part.X.mean(axis=0)) ** 2).sum(axis=0)
    varies = np.ptp(X, axis=0) > 0
    by_column = 1 - residual[varies] / total[varies]
    return {
        "r2": number(1 - residual.sum() / total.sum()),
        "r2_median": number(np.median(by_column)),
        "r2_smallest": number(by_column.min()),
    }


def accuracies(part, latents, latents_held_out):
    """Return the accuracy of each classifier on the held-out rows, with its standard error."""
    if part.y is None:
        return {}
    measured = {}
    for name, make in CLASSIFIERS.items():
        accuracy = make().fit(latents, part.y).score(latents_held_out, part.y_held_out)
        measured[name] = number(accuracy)
        measured[f"{name}_error"] = number(math.sqrt(accuracy * (1 - accuracy) / len(part.y_held_out)))
    return measured


def area(part, strangeness):
    """Return the AUC of the anomalies among the held-out rows, given a function that is large for strange rows."""
    scores = [np.nan_to_num(strangeness(X)) for X in (part.X_held_out, part.anomalies)]
    return number(roc_auc_score(np.repeat([0, 1], [len(s) for s in scores]), np.concatenate(scores)))


class LinearModels:
    """PCA and FactorAnalysis, fitted to what a VAE is compared on."""

    def __init__(self, part):
        self.part = part
        start = time.perf_counter()
        self.pca = PCA(part.n_components, random_state=0).fit(part.X)
        middle = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            self.factors = FactorAnalysis(part.n_components, random_state=0).fit(part.X)
        self.seconds = {"pca": middle - start, "factor_analysis": time.perf_counter() - middle}

    def measure(self):
        """Return what does not depend on a floor of the noise."""
        part, pca, factors = self.part, self.pca, self.factors
        latents = {"pca": [pca.transform(X) for X in (part.X, part.X_held_out)]}
        latents["factor_analysis"] = [factors.transform(X) for X in (part.X, part.X_held_out)]
        reconstructed = {"pca": pca.inverse_transform(latents["pca"][1])}
        reconstructed["factor_analysis"] = latents["factor_analysis"][1] @ factors.components_ + factors.mean_
        return {
            name: {
                "seconds": number(self.seconds[name], 3),
                **reconstruction(part, reconstructed[name]),
                **accuracies(part, *latents[name]),
            }
            for name in latents
        } | ({} if part.anomalies is None else {"auc": self._areas()})

    def _areas(self):
        """Return the AUC of each rival in finding anomalies."""
        part, pca = self.part, self.pca
        forest = IsolationForest(random_state=0).fit(part.X)
        neighbors = LocalOutlierFactor(novelty=True).fit(part.X)
        strangeness = {
            "PCA, error": lambda X: ((pca.inverse_transform(pca.transform(X)) - X) ** 2).sum(axis=1),
            "PCA, density": lambda X: -pca.score_samples(X),
            "IsolationForest": lambda X: -forest.score_samples(X),
            "LocalOutlierFactor": lambda X: -neighbors.score_samples(X),
        }
        return {name: area(part, function) for name, function in strangeness.items()}

    def densities(self, floor, rows):
        """Return the mean log density of `rows` under each rival, whose noise variances are at least `floor`."""
        pca, factors = self.pca, self.factors
        floor = max(floor, SMALLEST_NOISE * self.part.X.var(axis=0).mean())
        scales = np.sqrt(np.maximum(pca.explained_variance_ - pca.noise_variance_, 0))
        noise = np.full(len(pca.mean_), pca.noise_variance_)
        measured = {
            "pca": log_density(rows - pca.mean_, pca.components_ * scales[:, None], np.maximum(noise, floor)),
            "factor_analysis": log_density(
                rows - factors.mean_, factors.components_, np.maximum(factors.noise_variance_, floor)
            ),
        }
        if rows.shape[1] <= WIDEST_FOR_MIXTURE:
            measured["gaussian_mixture"] = mixture(self.part.X, floor).score_samples(rows)
        return {name: number(values.mean()) for name, values in measured.items()}


def log_density(centered, W, noise):
    """Return log N(x | 0, Wᵀ W + diag(noise)) of each row x, by the determinant lemma and Woodbury's identity."""
    precision = np.eye(len(W)) + (W / noise) @ W.T
    root = np.linalg.cholesky(precision)
    explained = np.linalg.solve(root, W @ (centered / noise).T)
    distance = (centered**2 / noise).sum(axis=1) - (explained**2).sum(axis=0)
    log_determinant = np.log(noise).sum() + 2 * np.log(np.diag(root)).sum()
    return -0.5 * (distance + log_determinant + len(noise) * math.log(2 * math.pi))


def mixture(X, floor):
    """Return the mixture with the lowest BIC, `floor` added to its variances."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted = [GaussianMixture(size, reg_covar=floor, random_state=0).fit(X) for size in MIXTURE_SIZES]
    return min(fitted, key=lambda model: model.bic(X))


def fit(vae, part):
    """Fit a VAE. Return how long it took, how many epochs it had, and of what it warned."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        start = time.perf_counter()
        vae.fit(part.X)
        seconds = time.perf_counter() - start
    texts = [f"{warning.category.__name__}: {warning.message}" for warning in caught]
    return {"seconds": number(seconds, 3), "epochs": vae.n_iter_, "warnings": texts}


def measure_vae(vae, part, linear):
    """Fit a VAE and return what it is measured by, the densities of its rivals at the same floor among it.

    A model that has no `min_scale` has no floor.
    """
    measured = fit(vae, part)
    latents, latents_held_out = (vae.transform(X) for X in (part.X, part.X_held_out))
    measured |= reconstruction(part, vae.inverse_transform(latents_held_out).astype(float))
    measured |= accuracies(part, latents, latents_held_out)
    rows = density_rows(part)
    scores = vae.score_samples(rows, n_importance_samples=N_IMPORTANCE_SAMPLES).astype(float)
    inside = np.isfinite(scores)
    floor = float(getattr(vae, "min_scale", 0) * vae.scale_) ** 2
    measured["density"] = number(scores[inside].mean()) if inside.any() else None
    measured["rows_outside"] = int((~inside).sum())
    measured["rivals"] = linear.densities(floor, rows[inside]) if inside.any() else {}
    if part.anomalies is not None:
        measured["auc"] = area(part, lambda X: -vae.score_samples(X).astype(float))
    return measured
