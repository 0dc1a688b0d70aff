"""A detector of outliers out of any estimator that gives rows a density."""

from numbers import Integral, Real
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, OutlierMixin, clone
from sklearn.model_selection import KFold, check_cv
from sklearn.utils import Tags, get_tags
from sklearn.utils.validation import validate_data

from skvae._data.checks import check_is_fitted, spawn_seeds, warn_user
from skvae._fit.context import transaction
from skvae._sklearn import HasMethods, Interval, fit_context, is_pandas_df, is_polars_df, safe_indexing

__all__ = ["DensityOutlierDetector"]

# What the product of a share and a number of rows may be off by, as a share of it.
_ROUNDING = 1e-9


class DensityOutlierDetector(OutlierMixin, BaseEstimator):
    """Detector that calls rows outliers where a density is low.

    Any estimator with a `score_samples` gives the density: a `NormalVAETransformer`, a `PCA`, a `GaussianMixture`, a
    `KernelDensity`, or a Pipeline that ends in one. A row is an outlier when its log density is below `offset_`, a
    quantile of the log densities of rows that the estimator was not fitted to. Where it fits rows closely, a quantile
    of their own log densities would be far too high: most later rows would be called outliers.

    The density of a row with missing entries is that of fewer numbers, and depends on the units. Such rows can only be
    judged beside rows that lack as many, also in `fit`. Otherwise fill them in first.

    Parameters
    ----------
    estimator : object
        An estimator with `fit` and `score_samples`. `fit` works on clones.
    contamination : float, default=0.01
        The share of rows like those of `fit` that are called outliers, in (0, 0.5]. Where `fit` gets usual rows alone,
        it is the rate of false alarms.
    cv : int, cross-validation splitter, iterable or None, default=5
        Which rows are held out to find the threshold. A number of folds, of shuffled rows, takes as many fits
        besides that to all rows. ``ShuffleSplit(1, test_size=0.1)`` takes one, and holds out a tenth;
        hold out each row once at most. Rows that depend
        on each other, such as windows of one time series, want folds that keep them together, for example
        ``list(GroupKFold(5).split(X, groups=groups))``. None takes the rows that the estimator is fitted to. Other
        detectors of scikit-learn do that, and its checks of `contamination` ask for it.
    random_state : int, RandomState instance or None, default=None
        Seed of the folds, when `cv` is a number. The estimator has its own.

    Attributes
    ----------
    estimator_ : object
        The clone of `estimator` that is fitted to all rows.
    offset_ : float
        The score below which a row is an outlier; a log density in nats, if that is what the estimator gives.
    n_features_in_ : int
        Number of features seen in `fit`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the features seen in `fit`, when they are all strings.

    See Also
    --------
    sklearn.ensemble.IsolationForest : Takes how soon random splits set a row apart.
    sklearn.neighbors.LocalOutlierFactor : Compares the density around a row with that around its neighbors.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.decomposition import PCA
    >>> from skvae.outliers import DensityOutlierDetector
    >>> X, _ = load_iris(return_X_y=True)
    >>> detector = DensityOutlierDetector(PCA(2), contamination=0.05, random_state=0).fit(X)
    >>> detector.predict([[5.0, 3.4, 1.5, 0.2], [5.0, 3.4, 6.0, 0.2]])
    array([ 1, -1])
    """

    _parameter_constraints: dict[str, list[Any]] = {
        "estimator": [HasMethods(["fit", "score_samples"])],
        "contamination": [Interval(Real, 0, 0.5, closed="right")],
        "cv": ["cv_object"],
        "random_state": ["random_state"],
    }

    estimator_: Any
    offset_: float

    def __init__(
        self,
        estimator: Any,
        *,
        contamination: float = 0.01,
        cv: Any = 5,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.estimator = estimator
        self.contamination = contamination
        self.cv = cv
        self.random_state = random_state

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: ArrayLike, y: Any = None) -> Self:
        """Fit the estimator to all rows, and find the threshold.

        When it raises, the detector is as it was before the call.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows of any kind that the estimator takes.
        y : array-like of shape (n_samples,), default=None
            Labels for a `cv` that asks for them. The estimator does not get them.

        Returns
        -------
        self : object
            The fitted detector.

        Raises
        ------
        ValueError
            When `X` or a parameter is not valid, or when rows have no log density.
        """
        with transaction(self):
            X = self._rows(X, reset=True)
            self.estimator_ = clone(self.estimator).fit(X, None)
            scores = _scores(self.estimator_, X) if self.cv is None else self._held_out_scores(X, y)
            self.offset_ = self._threshold(np.sort(scores))
        return self

    def _rows(self, X: Any, *, reset: bool) -> Any:
        """Return `X` as an array, or as the DataFrame that it is: a Pipeline may ask for its columns."""
        if is_pandas_df(X) or is_polars_df(X):
            validate_data(self, X, reset=reset, skip_check_array=True)
            return X
        return validate_data(
            self, X, reset=reset, dtype=None, ensure_all_finite=False, ensure_min_samples=2 if reset else 1
        )

    def _held_out_scores(self, X: Any, y: Any) -> NDArray[np.float64]:
        """Return the log density of each row that is held out, under an estimator that was not fitted to it."""
        if isinstance(self.cv, Integral):
            (seed,) = spawn_seeds(self.random_state, 1)
            cv = KFold(self.cv, shuffle=True, random_state=seed)
        else:
            cv = check_cv(self.cv)
        scores = []
        for fitted, held_out in cv.split(X, y):
            estimator = clone(self.estimator).fit(safe_indexing(X, fitted), None)
            scores.append(_scores(estimator, safe_indexing(X, held_out)))
        return np.concatenate(scores)

    def _threshold(self, scores: NDArray[np.float64]) -> float:
        """Return the score, among those in ascending order, below which a row is an outlier.

        Of n + 1 rows that are alike, each is as likely to have the k-th lowest score. So a later row has a score below
        the k-th of n held-out ones with probability k / (n + 1).
        """
        if np.isnan(scores).any() or np.isposinf(scores).any():
            n_bad = int((np.isnan(scores) | np.isposinf(scores)).sum())
            raise ValueError(
                f"{n_bad} of {len(scores)} rows have a score that is NaN or infinite. Look for extreme values in X, or "
                f"give another estimator."
            )
        n_impossible = int(np.isneginf(scores).sum())
        if n_impossible == len(scores):
            raise ValueError(
                f"All {n_impossible} rows have the density 0. Give the estimator a wider range, such as the data_range "
                f"of a VAE, or take another one."
            )
        share = self.contamination * (1 + _ROUNDING)
        rank = int(share * len(scores)) + 1 if self.cv is None else int(share * (len(scores) + 1))
        if n_impossible > share * len(scores):
            warn_user(
                f"{n_impossible} of {len(scores)} rows have the density 0, more than contamination="
                f"{self.contamination:g}: about {n_impossible / len(scores):.2g} of later rows are called outliers. "
                f"Give the estimator a wider range, such as the data_range of a VAE, or take another one.",
                UserWarning,
            )
        elif rank == 0:
            warn_user(
                f"The threshold is the lowest of {len(scores)} scores, and about {1 / (len(scores) + 1):.2g} of later "
                f"rows are called outliers: so few rows cannot tell what contamination={self.contamination:g} is. Give "
                f"more rows, or a larger contamination.",
                UserWarning,
            )
        return float(scores[max(rank - 1, n_impossible)])

    def score_samples(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the score of each row, as the estimator gives it.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        scores : ndarray of shape (n_samples,), float64
            The scores; log densities in nats, if that is what the estimator gives. The lower, the more of an outlier.

        Raises
        ------
        ValueError
            When `X` is not valid.
        """
        check_is_fitted(self)
        return _scores(self.estimator_, self._rows(X, reset=False))

    def decision_function(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return how far the log density of each row is above the threshold.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        scores : ndarray of shape (n_samples,), float64
            ``score_samples(X) - offset_``: negative for outliers.

        Raises
        ------
        ValueError
            When `X` is not valid.
        """
        return self.score_samples(X) - self.offset_

    def predict(self, X: ArrayLike) -> NDArray[np.int64]:
        """Return which rows are outliers.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        labels : ndarray of shape (n_samples,), int64
            -1 for outliers, 1 for the others.

        Raises
        ------
        ValueError
            When `X` is not valid.
        """
        return np.where(self.decision_function(X) >= 0, 1, -1)

    def __sklearn_tags__(self) -> Tags:
        """Return what scikit-learn is to know of the detector: it takes the dense rows that its estimator takes."""
        tags = super().__sklearn_tags__()
        tags.input_tags = get_tags(self.estimator).input_tags
        tags.input_tags.sparse = False
        return tags


def _scores(estimator: Any, X: Any) -> NDArray[np.float64]:
    """Return log densities in float64."""
    return np.asarray(estimator.score_samples(X), dtype=np.float64)
