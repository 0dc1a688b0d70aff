"""An imputer for Pipelines, which fills missing entries by a variational autoencoder."""

import math
from numbers import Integral, Real
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin, clone
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.utils import Tags

from skvae._data.checks import check_is_fitted, check_rows
from skvae._data.rows import Summary
from skvae._fit.context import transaction
from skvae._sklearn import BaseImputer, HasMethods, Interval, MissingValues, check_feature_names_in, fit_context
from skvae._transformers import NormalVAETransformer

__all__ = ["VAEImputer"]

# The most components of the default estimator.
_MOST_COMPONENTS = 40


class _Standardizer(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """A `StandardScaler` for which broken entries do not count: a few of a column that are far beyond its others."""

    def fit(self, X: NDArray[Any], y: Any = None) -> Self:
        columns = [Summary(column[:, None]).without_broken_entries for column in X.T]
        self.n_features_in_ = X.shape[1]
        self.mean_ = np.concatenate([column.mean for column in columns])
        spread = np.concatenate([column.spread for column in columns])
        self.scale_ = np.where(spread > 0, spread, 1.0)
        return self

    def transform(self, X: NDArray[Any]) -> NDArray[np.float64]:
        return (X - self.mean_) / self.scale_

    def inverse_transform(self, X: NDArray[Any]) -> NDArray[np.float64]:
        return X * self.scale_ + self.mean_


class VAEImputer(BaseImputer):
    """Imputer that fills missing entries by their conditional mean under a variational autoencoder.

    The autoencoder is fitted to rows with missing entries, of which only the observed entries count [1]_. It then fills
    what is missing in other rows, given what is observed in them. It stands in a Pipeline where a `KNNImputer` or an
    `IterativeImputer` would.

    Parameters
    ----------
    estimator : object, default=None
        A `NormalVAETransformer`, a `ContinuousBernoulliVAETransformer`, or a Pipeline that ends in one. The steps ahead
        of it take missing entries as NaN, keep the columns, and have an `inverse_transform`. `fit` works on a clone.
        None is a scaler that standardizes each column, for which entries out of all proportion do not count, ahead of a
        `NormalVAETransformer` with `random_state` and as many components as columns, at most 40.
    missing_values : int, float, np.nan, pd.NA or None, default=np.nan
        What stands for a missing entry. NaN, `pd.NA` and None all take NaN and whatever becomes NaN in an array of
        numbers, such as a null of a DataFrame. With a number, NaN is an error.
    n_importance_samples : int, default=200
        The number of points for each row over which the mean of a missing entry is taken.
    add_indicator : bool, default=False
        Whether to add a column of zeros and ones for each column that had missing entries in `fit`: 1 where an entry
        was missing.
    keep_empty_features : bool, default=False
        Whether to keep columns of which `fit` saw no entry, and to fill them with 0. False drops them.
    random_state : int, RandomState instance or None, default=None
        What the default estimator gets as its own. An estimator that is given has one itself, and `transform` draws
        nothing.

    Attributes
    ----------
    estimator_ : object
        The fitted clone of `estimator`.
    indicator_ : MissingIndicator or None
        What makes the columns of `add_indicator`.
    n_features_in_ : int
        Number of features seen in `fit`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the features seen in `fit`, when they are all strings.

    See Also
    --------
    skvae.NormalVAETransformer.impute : The method that fills the entries; it also draws them several times.
    sklearn.impute.KNNImputer : Takes the mean of the nearest rows.
    sklearn.impute.IterativeImputer : Takes a linear regression of each column on the others.

    References
    ----------
    .. [1] Mattei, P.-A. and Frellsen, J., "MIWAE: deep generative modelling and imputation of incomplete data sets",
       ICML 2019.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_iris
    >>> from skvae.impute import VAEImputer
    >>> X, _ = load_iris(return_X_y=True)
    >>> X[::3, 2] = np.nan
    >>> X_filled = VAEImputer(random_state=0).fit_transform(X)
    >>> X_filled.shape, int(np.isnan(X_filled).sum())
    ((150, 4), 0)
    """

    _parameter_constraints: dict[str, list[Any]] = {
        **BaseImputer._parameter_constraints,
        "estimator": [HasMethods(["fit", "transform"]), None],
        "missing_values": [MissingValues(numeric_only=True), None],
        "n_importance_samples": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
    }

    estimator_: Any

    def __init__(
        self,
        estimator: Any = None,
        *,
        missing_values: Any = np.nan,
        n_importance_samples: int = 200,
        add_indicator: bool = False,
        keep_empty_features: bool = False,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        super().__init__(
            missing_values=missing_values, add_indicator=add_indicator, keep_empty_features=keep_empty_features
        )
        self.estimator = estimator
        self.n_importance_samples = n_importance_samples
        self.random_state = random_state

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: ArrayLike, y: Any = None) -> Self:
        """Fit the autoencoder to the observed entries of `X`.

        When it raises, the imputer is as it was before the call.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training data of any real dtype.
        y : Ignored
            Not used, present for API consistency by convention.

        Returns
        -------
        self : object
            The fitted imputer.

        Raises
        ------
        ValueError
            When `X` or a parameter is not valid, when no entry of `X` is observed, or when training diverges.
        TypeError
            When `X` holds something that is no number, or `estimator` cannot impute.
        """
        with transaction(self):
            X = self._rows(X, reset=True)
            missing = np.isnan(X)
            self._fit_indicator(missing)
            self._is_seen = ~missing.all(axis=0)
            if not self._is_seen.any():
                raise ValueError("All entries of X are missing. Give rows with entries to learn from.")
            n_columns = int(self._is_seen.sum())
            self.estimator_ = self._unfitted(n_columns).fit(self._seen(X))
            _, vae = _steps(self.estimator_)
            if vae.n_features_in_ != n_columns:
                raise ValueError(
                    f"The steps of estimator ahead of its last one make {vae.n_features_in_} columns out of "
                    f"{n_columns}. Take steps that keep the columns, such as a scaler."
                )
        return self

    def transform(self, X: ArrayLike) -> NDArray[np.floating[Any]]:
        """Fill the missing entries of `X`.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Data of any real dtype, with entries missing that need not be those that were missing in `fit`.

        Returns
        -------
        X : ndarray of shape (n_samples, n_output_features), float32 or float64
            The observed entries as they are, to the bit, and the missing ones by their conditional mean; then the
            columns of `add_indicator`. It is float32 where `X` is, and float64 for other dtypes. The same array gives
            the same bits each time.

        Raises
        ------
        ValueError
            When `X` is not valid.
        """
        check_is_fitted(self)
        X = self._rows(X, reset=False)
        missing = np.isnan(X)
        indicator = self._transform_indicator(missing)
        filled = self._fill(self._seen(X), self._seen(missing))
        if self.keep_empty_features and not self._is_seen.all():
            seen, filled = filled, np.zeros_like(X)
            filled[:, self._is_seen] = seen
        return self._concatenate_indicator(filled, indicator)

    def get_feature_names_out(self, input_features: ArrayLike | None = None) -> NDArray[np.object_]:
        """Return the names of the columns that `transform` returns.

        Parameters
        ----------
        input_features : array-like of str, default=None
            Names of the columns that go in. None takes those seen in `fit`, or ``"x0"``, ``"x1"`` and so on.

        Returns
        -------
        names : ndarray of shape (n_output_features,), object
            The names of the columns that are kept, then those of the columns of `add_indicator`.

        Raises
        ------
        ValueError
            When `input_features` is of another length than the columns seen in `fit`, or has other names.
        """
        check_is_fitted(self)
        names = check_feature_names_in(self, input_features)
        kept = names if self.keep_empty_features else names[self._is_seen]
        return self._concatenate_indicator_feature_names_out(kept, names)

    def _rows(self, X: ArrayLike, *, reset: bool) -> NDArray[np.floating[Any]]:
        """Return `X` as an array of float32 or float64, with NaN for what is missing."""
        rows = check_rows(self, X, reset=reset, allow_missing=True)
        missing = rows == self.missing_values if self._takes_number() else None
        if missing is not None and rows.dtype.kind == "f" and np.isnan(rows).any():
            raise ValueError(
                f"X contains NaN, but missing_values={self.missing_values!r} stands for missing entries. Set "
                f"missing_values=np.nan."
            )
        if rows.dtype not in (np.float32, np.float64):
            rows = rows.astype(np.float64)
        return rows if missing is None else np.where(missing, np.nan, rows)

    def _takes_number(self) -> bool:
        """Return whether a number stands for missing entries, and not NaN or what becomes NaN."""
        return isinstance(self.missing_values, Real) and not math.isnan(self.missing_values)

    def _unfitted(self, n_columns: int) -> Any:
        """Return a clone of the estimator, whose steps hand on arrays."""
        if self.estimator is None:
            vae = NormalVAETransformer(min(n_columns, _MOST_COMPONENTS), random_state=self.random_state)
            estimator = make_pipeline(_Standardizer(), vae)
        else:
            estimator = clone(self.estimator)
        ahead, vae = _steps(estimator)
        if not hasattr(vae, "impute"):
            raise TypeError(
                f"estimator ends in a {type(vae).__name__}, which has no method impute. Give a NormalVAETransformer, a "
                f"ContinuousBernoulliVAETransformer, or a Pipeline that ends in one."
            )
        for step in ahead:
            if not hasattr(step, "inverse_transform"):
                raise TypeError(
                    f"The step {type(step).__name__} of estimator has no method inverse_transform, which takes what is "
                    f"imputed back to the units of X. Put it ahead of the imputer."
                )
        return estimator.set_output(transform="default")

    def _seen(self, X: NDArray[Any]) -> NDArray[Any]:
        """Return the columns of which `fit` saw an entry, without a copy when they are all there are."""
        return X if self._is_seen.all() else X[:, self._is_seen]

    def _fill(self, X: NDArray[Any], missing: NDArray[np.bool_]) -> NDArray[Any]:
        """Return a copy of `X` with its missing entries filled."""
        filled = X.copy()
        rows = missing.any(axis=1)
        if rows.any():
            ahead, vae = _steps(self.estimator_)
            block = X[rows]
            for step in ahead:
                block = step.transform(block)
            block = vae.impute(block, n_importance_samples=self.n_importance_samples)
            for step in reversed(ahead):
                block = step.inverse_transform(block)
            filled[missing] = block[missing[rows]]
        return filled

    def __sklearn_tags__(self) -> Tags:
        """Return what scikit-learn is to know of the imputer."""
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = not self._takes_number()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _steps(estimator: Any) -> tuple[list[Any], Any]:
    """Return the transformers ahead of the last step of a Pipeline, and that step, or the estimator itself."""
    steps = [step for _, step in estimator.steps] if isinstance(estimator, Pipeline) else [estimator]
    *ahead, last = [step for step in steps if step not in (None, "passthrough")] or [estimator]
    return ahead, last
