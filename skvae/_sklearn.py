"""scikit-learn's private API, in the only module that imports it."""

from sklearn.callback._callback_support import callback_management_context
from sklearn.utils._param_validation import Interval, StrOptions

__all__ = ["Interval", "StrOptions", "callback_management_context"]
