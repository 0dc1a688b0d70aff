"""Which rows are trained on, and which are set aside."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["split_rows"]

# Rows that are set aside to calibrate the noise: a share of all, at most so many, and none if they are too few.
_CALIBRATION_FRACTION, _MOST_CALIBRATION_ROWS, _FEWEST_CALIBRATION_ROWS = 0.1, 500, 5


def split_rows(
    estimator: Any, n_samples: int, seed: int, *, calibrates: bool
) -> tuple[NDArray[np.intp] | None, NDArray[np.intp]]:
    """Return the rows to train on, None being all, and those to set aside, drawn at random.

    Parameters
    ----------
    estimator : BaseVAETransformer
        The owner of the parameters `early_stopping` and `validation_fraction`.
    n_samples : int
        The number of rows.
    seed : int
        Where the draw begins.
    calibrates : bool
        Whether rows are set aside also without early stopping, to calibrate the noise.

    Raises
    ------
    ValueError
        When early stopping leaves no row to train on.
    """
    if estimator.early_stopping:
        n_aside = math.ceil(estimator.validation_fraction * n_samples)
    else:
        n_aside = min(int(_CALIBRATION_FRACTION * n_samples), _MOST_CALIBRATION_ROWS)
        n_aside = n_aside if calibrates and n_aside >= _FEWEST_CALIBRATION_ROWS else 0
    if n_aside >= n_samples:
        raise ValueError(
            f"early_stopping=True sets aside validation_fraction={estimator.validation_fraction} of the rows, which "
            f"leaves none of n_samples={n_samples} to train on. Give more rows, a smaller validation_fraction, or "
            f"X_val."
        )
    if n_aside == 0:
        return None, np.empty(0, np.intp)
    order = np.random.RandomState(seed).permutation(n_samples)
    return np.sort(order[n_aside:]), np.sort(order[:n_aside])
