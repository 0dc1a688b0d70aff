"""What holds a fit: its transaction, its processes, its callbacks and the state of torch around it."""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from sklearn import config_context, get_config

from skvae._data.checks import enough_memory
from skvae._fit.distributed import Group, current_group
from skvae._sklearn import callback_management_context

__all__ = ["fitting", "transaction"]


@contextlib.contextmanager
def transaction(estimator: Any) -> Iterator[None]:
    """Restore the estimator when the block raises, also on Ctrl-C.

    A RandomState parameter is restored too, so the next call draws the same numbers.
    """
    before = dict(vars(estimator))
    source = estimator.random_state if isinstance(estimator.random_state, np.random.RandomState) else None
    drawn = None if source is None else source.get_state(legacy=False)
    try:
        yield
    except BaseException:
        # At no moment does it lack an attribute that it had: another thread may be using it.
        vars(estimator).update(before)
        for name in vars(estimator).keys() - before.keys():
            del vars(estimator)[name]
        if source is not None and drawn is not None:
            source.set_state(drawn)
        raise


@contextlib.contextmanager
def fitting(estimator: Any, group: Group | None = None) -> Iterator[Group]:
    """Hold a fit of `estimator`, by default in all the processes of its group, and check its parameters.

    An error in the block is raised in every process, and every estimator is restored. scikit-learn's callbacks are torn
    down. Gradients are enabled whatever mode the caller is in.
    """
    group = current_group() if group is None else group
    with (
        transaction(estimator),
        group.fitting(),
        callback_management_context(estimator),
        torch.inference_mode(False),
        torch.enable_grad(),
        enough_memory("Choose a smaller batch_size, narrower or fewer hidden_layer_sizes, or fewer n_components."),
    ):
        if not get_config()["skip_parameter_validation"]:
            estimator._validate_params()
        with config_context(skip_parameter_validation=True):  # of estimators and functions that the fit calls
            yield group
