"""Comparing representations in two data regimes, as one grid search.

Nothing here knows of autoencoders: any transformer and any classifier will do.
"""

import atexit
import math
import os
import shutil
import tempfile

import joblib
import numpy as np
from sklearn.base import is_classifier
from sklearn.model_selection import BaseCrossValidator, GridSearchCV, train_test_split
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from skvae._validation import Integral, Real, spawn_seeds

__all__ = ["RegimeSplit", "regime_search", "regime_table"]

_REGIMES = ("large", "small")

# What a step of a Pipeline cannot be called.
_RESERVED = ("steps", "memory", "verbose", "transform_input")


class RegimeSplit(BaseCrossValidator):
    """Cross-validation in two regimes: train on the large part and test on the small one, and the other way round.

    Parameters
    ----------
    small_size : int or float
        Size of the small part: a number of rows, or a share in (0, 1). The large part is all the rest.
    shuffle : bool, default=False
        Whether the small part is drawn at random. Otherwise it is the last rows.
    stratify : bool, default=False
        Whether the classes are as frequent in either part as in all of `y`. Needs `shuffle`.
    random_state : int, RandomState instance or None, default=None
        Source of the draw. None takes fresh entropy each time.

    Examples
    --------
    >>> import numpy as np
    >>> from skvae.model_selection import RegimeSplit
    >>> for train, test in RegimeSplit(2).split(np.zeros((6, 3))):
    ...     print(train, test)
    [0 1 2 3] [4 5]
    [4 5] [0 1 2 3]
    """

    def __init__(self, small_size, *, shuffle=False, stratify=False, random_state=None):
        self.small_size = small_size
        self.shuffle = shuffle
        self.stratify = stratify
        self.random_state = random_state

    def _iter_test_indices(self, X=None, y=None, groups=None):
        n_samples = X.shape[0] if hasattr(X, "shape") else len(X)
        size = self.small_size
        is_count = isinstance(size, Integral) and not isinstance(size, bool) and size >= 1
        if not is_count and not (isinstance(size, Real) and 0 < size < 1):
            raise ValueError(f"small_size must be a number of rows, or a share in (0, 1); got {size!r}.")
        n_small = int(size) if is_count else math.ceil(size * n_samples)
        if 2 * n_small > n_samples:
            raise ValueError(
                f"small_size={size!r} makes the small part, of {n_small} rows, larger than the large one, of "
                f"{n_samples - n_small}. Choose at most half of the rows."
            )
        if self.stratify and not self.shuffle:
            raise ValueError("stratify=True needs shuffle=True: without it the small part is the last rows.")
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

    def get_n_splits(self, X=None, y=None, groups=None):
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


def regime_search(transformers, classifiers, *, cv=None, scoring=None, n_jobs=None, memory=None):
    """Return a grid search over every transformer ahead of every classifier, in two data regimes.

    The search fits `Pipeline` objects of two steps, ``"representation"`` and ``"classifier"``. Fitted transformers are
    cached, so that each one is fitted once for each regime and not once for each classifier.

    Parameters
    ----------
    transformers : dict of str to transformer or "passthrough"
        The representations, by name: any transformer that can be pickled, or a `Pipeline` of several. Give them a
        `random_state` that is an integer, or there is nothing to be cached.
    classifiers : dict of str to classifier
        What stands behind them, by name.
    cv : RegimeSplit, default=None
        The two regimes. None is ``RegimeSplit(1 / 7, shuffle=True, stratify=True, random_state=0)``: a large part six
        times the size of the small one.
    scoring : str or callable, default=None
        What to measure on the test part; None takes the classifiers' own score, which is the accuracy.
    n_jobs : int, default=None
        Number of processes, as in `GridSearchCV`. Two of them may begin the same fit at the same time, before it is
        in the cache; the results are the same.
    memory : str, path-like or joblib.Memory, default=None
        The folder of the cache, which holds fitted transformers and transformed training data. None makes a temporary
        one, which is deleted when the process ends. With a folder of your own, what is in it is not computed again by
        a later search with the same parameters and data, even if the code of a transformer has changed since.

    Returns
    -------
    GridSearchCV
        The search, not fitted. It does not refit on all data; set ``refit=True`` if it should.

    Raises
    ------
    TypeError
        When transformers or classifiers are not such a dict, or hold something else.
    ValueError
        When there are none, a name cannot be that of a step, or a transformer cannot be cached.

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
    if memory is None:
        memory = tempfile.mkdtemp(prefix="regime_search_")
        atexit.register(shutil.rmtree, memory, ignore_errors=True)
    if isinstance(memory, (str, os.PathLike)):
        memory = joblib.Memory(memory, verbose=0)
    elif not hasattr(memory, "cache"):
        raise TypeError(f"memory must be a folder, a joblib.Memory or None; got {memory!r}.")
    grid = {
        # A name is that of the only step of a Pipeline, so that results carry it.
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


def _is_transformer(candidate):
    return hasattr(candidate, "transform") or (isinstance(candidate, str) and candidate == "passthrough")


def _check_candidates(argument, candidates, kind, is_valid):
    """Raise an error unless `candidates` is a dict of names of steps to instances of a kind."""
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


def regime_table(search):
    """Return the test scores of a fitted search as a table.

    Parameters
    ----------
    search : GridSearchCV
        What `regime_search` returned, fitted. Needs pandas.

    Returns
    -------
    pandas.DataFrame
        A row for each representation, and for each classifier the columns "large" and "small", the regimes that it was
        trained in.

    Raises
    ------
    NotFittedError
        When the search is not fitted.
    ValueError
        When the search is not one over representations and classifiers in two regimes with one score.
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
