"""scikit-learn's private API, in the only module that imports it."""

from sklearn.base import _fit_context as fit_context
from sklearn.callback._callback_support import callback_management_context
from sklearn.impute._base import _BaseImputer as BaseImputer
from sklearn.utils import _safe_indexing as safe_indexing
from sklearn.utils._dataframe import is_pandas_df, is_polars_df
from sklearn.utils._param_validation import HasMethods, Interval, MissingValues, StrOptions
from sklearn.utils.validation import _check_feature_names_in as check_feature_names_in
from sklearn.utils.validation import _check_sample_weight as check_sample_weight

__all__ = [
    "BaseImputer",
    "HasMethods",
    "Interval",
    "MissingValues",
    "StrOptions",
    "callback_management_context",
    "check_feature_names_in",
    "check_sample_weight",
    "fit_context",
    "is_pandas_df",
    "is_polars_df",
    "safe_indexing",
]
