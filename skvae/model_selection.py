"""Comparison of representations in two data regimes, as one grid search.

It takes any transformers and any classifiers, not only those of this library.
"""

from __future__ import annotations

import atexit
import copy
import functools
import inspect
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray
from sklearn.base import is_classifier
from sklearn.model_selection import BaseCrossValidator, GridSearchCV, train_test_split
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from skvae._data.checks import spawn_seeds, warn_user

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["RegimeSplit", "regime_search", "regime_table"]

_REGIMES = ("large", "small")

# Parameters of a Pipeline, which cannot be names of its steps.
_RESERVED = ("steps", "memory", "verbose", "transform_input")


class RegimeSplit(BaseCrossValidator):
    """Cross-validation in two regimes, of one large and one small part of the data.

    The first split trains on the large part and tests on the small part. The second split does the opposite.

    Parameters
    ----------
    small_size : int or float
        Size of the small part, as a number of rows or as a share in (0, 1). The large part has all other rows.
    shuffle : bool, default=False
        Whether to draw the small part at random. Otherwise it has the last rows.
    stratify : bool, default=False
        Whether both parts have the same class frequencies as `y`. It needs `shuffle`.
    random_state : int, RandomState instance or None, default=None
        Source of the draw. None takes fresh entropy for each call of `split`.

    Examples
    --------
    >>> import numpy as np
    >>> from skvae.model_selection import RegimeSplit
    >>> for train, test in RegimeSplit(2).split(np.zeros((6, 3))):
    ...     print(train, test)
    [0 1 2 3] [4 5]
    [4 5] [0 1 2 3]
    """

    def __init__(
        self,
        small_size: float,
        *,
        shuffle: bool = False,
        stratify: bool = False,
        random_state: int | RandomState | None = None,
    ) -> None:
        self.small_size = small_size
        self.shuffle = shuffle
        self.stratify = stratify
        self.random_state = random_state

    def _iter_test_indices(self, X: Any = None, y: Any = None, groups: Any = None) -> Iterator[NDArray[np.intp]]:
        n_samples = X.shape[0] if hasattr(X, "shape") else len(X)
        n_small = _size_in_rows(self.small_size, n_samples)
        if self.stratify and not self.shuffle:
            raise ValueError("stratify=True needs shuffle=True: without it the small part has the last rows.")
        if self.stratify and y is None:
            raise ValueError("stratify=True needs y, the classes to stratify by; got None.")
        large, small = train_test_split(
            np.arange(n_samples),
            test_size=n_small,
            shuffle=self.shuffle,
            stratify=y if self.stratify else None,
            random_state=spawn_seeds(self.random_state, 1)[0],
        )
        yield small
        yield large

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Return 2, the number of regimes.

        Parameters
        ----------
        X : Ignored
            Not used, present for API consistency by convention.
        y : Ignored
            Not used, present for API consistency by convention.
        groups : Ignored
            Not used, present for API consistency by convention.

        Returns
        -------
        int
            The number of splits.
        """
        return len(_REGIMES)


def _size_in_rows(small_size: Any, n_samples: int) -> int:
    """Return the number of rows of the small part."""
    is_count = not isinstance(small_size, bool) and isinstance(small_size, Integral) and int(small_size) >= 1
    is_share = isinstance(small_size, Real) and 0 < float(small_size) < 1
    if not is_count and not is_share:
        raise ValueError(f"small_size must be a number of rows, or a share in (0, 1); got {small_size!r}.")
    n_small = int(small_size) if is_count else math.ceil(small_size * n_samples)
    if 2 * n_small > n_samples:
        raise ValueError(
            f"small_size={small_size!r} makes the small part, of {n_small} rows, larger than the large part, of "
            f"{n_samples - n_small}. Choose at most half of the rows."
        )
    return n_small


def regime_search(
    transformers: dict[str, Any],
    classifiers: dict[str, Any],
    *,
    cv: Any = None,
    scoring: str | Callable[..., Any] | None = None,
    n_jobs: int | None = None,
    memory: str | os.PathLike[str] | joblib.Memory | None = None,
) -> GridSearchCV:
    """Return a grid search over all pairs of a transformer and a classifier, in two data regimes.

    The search fits `Pipeline` objects with the steps ``"representation"`` and ``"classifier"``. Fitted transformers
    are cached. Each transformer is fitted once for each regime, not once for each classifier.

    Parameters
    ----------
    transformers : dict of str to transformer or "passthrough"
        The representations, by name. Each is a transformer that can be pickled, or a `Pipeline` of them. An integer
        `random_state` makes the results reproducible. The cache knows a fit by its parameters and data. With
        ``random_state=None`` too, it gives the first fit again, to all classifiers and to a second `fit` of the search.
    classifiers : dict of str to classifier
        The classifiers, by name.
    cv : RegimeSplit, default=None
        The two regimes. None stands for ``RegimeSplit(1 / 7, shuffle=True, stratify=True, random_state=0)``, whose
        large part is six times as large as the small part.
    scoring : str or callable, default=None
        The score on the test part. None takes the score of the classifiers, which is the accuracy.
    n_jobs : int, default=None
        Number of processes, as in `GridSearchCV`. Two processes may begin the same fit before it is in the cache. The
        results are the same, unless it has ``random_state=None``.
    memory : str, path-like or joblib.Memory, default=None
        The folder of the cache, which holds fitted transformers and transformed training data. None makes a temporary
        folder, which is deleted when the process ends. A folder of your own keeps its content for later searches with
        the same parameters and data. They use it even if the code of a transformer has changed, and even with
        ``random_state=None``, so that repeated runs show no spread.

    Returns
    -------
    GridSearchCV
        The search, not fitted. It does not refit on all data, unless you set ``refit=True``.

    Raises
    ------
    TypeError
        When `transformers` or `classifiers` is not such a dict, or holds something else.
    ValueError
        When a dict is empty, a name cannot be the name of a step, or a transformer cannot be cached.

    Warns
    -----
    UserWarning
        When `memory` is given, and a transformer, or an estimator inside it, has ``random_state=None``.

    See Also
    --------
    regime_table : The results as a table.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.decomposition import PCA
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.neighbors import KNeighborsClassifier
    >>> from skvae.model_selection import regime_search, regime_table
    >>> X, y = load_digits(return_X_y=True)
    >>> search = regime_search(
    ...     {"pixels": "passthrough", "pca": PCA(10, random_state=0)},
    ...     {"logistic": LogisticRegression(max_iter=5000), "neighbors": KNeighborsClassifier()},
    ... )
    >>> regime_table(search.fit(X, y)).shape
    (2, 4)
    """
    _check_candidates("transformers", transformers, "a transformer or 'passthrough'", _is_transformer)
    _check_candidates("classifiers", classifiers, "a classifier", is_classifier)
    for name, transformer in transformers.items():
        try:
            joblib.hash(transformer)
        except Exception as error:  # pickling fails in many ways
            raise ValueError(
                f"transformers[{name!r}] cannot be cached, because it cannot be pickled: {error}. Define its functions "
                f"by def, in a module or a script."
            ) from error
    memory = _make_cache(memory, transformers)
    grid = {
        # Each candidate is a Pipeline of one step, because the name of the step appears in the results.
        step: [Pipeline([named]) for named in candidates.items()]
        for step, candidates in (("representation", transformers), ("classifier", classifiers))
    }
    return GridSearchCV(
        Pipeline([(step, candidates[0]) for step, candidates in grid.items()], memory=memory),
        grid,
        cv=RegimeSplit(1 / 7, shuffle=True, stratify=True, random_state=0) if cv is None else cv,
        scoring=scoring,
        n_jobs=n_jobs,
        refit=False,
    )


class _Memory(joblib.Memory):
    """A cache that does not warn of a slow disk: where warnings are errors, a fit would fail of it."""

    def cache(self, *args: Any, **kwargs: Any) -> Any:
        """Return the function of which results are kept, as `joblib.Memory` does."""
        cached = super().cache(*args, **kwargs)
        persist = getattr(cached, "_persist_input", None)
        if persist is not None and "this_duration_limit" in inspect.signature(persist).parameters:
            cached._persist_input = functools.partial(persist, this_duration_limit=math.inf)
        return cached


def _make_cache(memory: Any, transformers: dict[str, Any]) -> Any:
    """Return the cache that the parameter `memory` asks for, and warn where it outlives what is random."""
    if memory is None:
        folder = tempfile.mkdtemp(prefix="regime_search_")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        return _Memory(folder, verbose=0)
    if isinstance(memory, (str, os.PathLike)):
        memory = _Memory(memory, verbose=0)
    elif not hasattr(memory, "cache"):
        raise TypeError(f"memory must be a folder, a joblib.Memory or None; got {memory!r}.")
    elif type(memory) is joblib.Memory:
        memory = copy.copy(memory)
        memory.__class__ = _Memory
    unseeded = _unseeded(transformers) if getattr(memory, "location", memory) is not None else []
    if unseeded:
        warn_user(
            f"memory keeps fits for later searches, and these are None: {', '.join(unseeded)}. Later searches find the "
            f"first fit again, so that repeated runs show no spread. Give an integer random_state, and another one to "
            f"each run whose spread you want to see, or choose memory=None.",
            UserWarning,
        )
    return memory


def _unseeded(transformers: dict[str, Any]) -> list[str]:
    """Return the names of each `random_state` of None, of transformers and the estimators inside them."""
    return [
        f"{name}__{path}"
        for name, transformer in transformers.items()
        for path, value in getattr(transformer, "get_params", dict)().items()
        if path.rpartition("__")[2] == "random_state" and value is None
    ]


def _is_transformer(candidate: Any) -> bool:
    return hasattr(candidate, "transform") or (isinstance(candidate, str) and candidate == "passthrough")


def _check_candidates(argument: str, candidates: Any, kind: str, is_valid: Callable[[Any], bool]) -> None:
    """Raise an error unless `candidates` is a dict of names of steps to valid instances, which are of this kind."""
    if not isinstance(candidates, dict):
        raise TypeError(f"{argument} must be a dict of names to {argument}; got {candidates!r}.")
    if not candidates:
        raise ValueError(f"{argument} must hold at least one of them; got an empty dict.")
    for name, candidate in candidates.items():
        if not isinstance(name, str) or not name or "__" in name or name in _RESERVED:
            raise ValueError(
                f"{argument} has the name {name!r}; a name must be a string without a double underscore, and none of "
                f"{', '.join(_RESERVED)}."
            )
        if isinstance(candidate, type) or not is_valid(candidate):
            raise TypeError(f"{argument}[{name!r}] must be {kind}, an instance; got {candidate!r}.")


def regime_table(search: GridSearchCV) -> DataFrame:
    """Return the test scores of a fitted search as a table.

    It needs pandas.

    Parameters
    ----------
    search : GridSearchCV
        A fitted search that `regime_search` has made.

    Returns
    -------
    pandas.DataFrame
        One row for each representation. Each classifier has the columns "large" and "small", for the regime it was
        trained in.

    Raises
    ------
    NotFittedError
        When the search is not fitted.
    ValueError
        When `regime_search` has not made the search, its grid is extended, or it has several scores or other than two
        regimes.
    """
    import pandas as pd

    check_is_fitted(search, "cv_results_")
    names = ("representation", "classifier")
    try:
        cells = [tuple(params[name].steps[0][0] for name in names) for params in search.cv_results_["params"]]
        scores = np.column_stack([search.cv_results_[f"split{i}_test_score"] for i in range(search.n_splits_)])
        table = pd.DataFrame(scores, pd.MultiIndex.from_tuples(cells, names=names), list(_REGIMES))
        table = table.rename_axis(columns="regime").stack().unstack(["classifier", "regime"])
    except (AttributeError, KeyError, ValueError) as error:
        raise ValueError(
            "search must be one that regime_search made, nothing added to its grid, a single score and two "
            "regimes; its results have another form."
        ) from error
    representations, classifiers = (list(dict.fromkeys(column)) for column in zip(*cells, strict=True))
    return table.reindex(index=representations, columns=[(c, regime) for c in classifiers for regime in _REGIMES])
