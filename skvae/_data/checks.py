"""What the user hands in: arrays, image shapes, seeds and devices, checked; and the messages when they are wrong."""

import contextlib
import inspect
import math
import sys
import types
import warnings
from collections.abc import Iterable, Iterator
from numbers import Integral, Real
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import check_array, check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

__all__ = [
    "LARGEST",
    "as_array",
    "check_range",
    "check_is_fitted",
    "check_labeled_rows",
    "check_latent",
    "check_positive_integer",
    "check_rows",
    "check_nothing_hidden",
    "enough_memory",
    "features_seen",
    "image_dimensions",
    "in_memory",
    "labels_as_array",
    "layer_sizes",
    "resolve_device",
    "spawn_seeds",
    "twin_of",
    "warn_user",
    "with_defaults",
]

T = TypeVar("T")

# The largest number that float32 holds.
LARGEST = float(np.finfo(np.float32).max)

# Packages whose frames lie between a warning and the user's own line.
_BETWEEN = {"contextlib", "joblib", "sklearn", "skvae"}


def warn_user(message: str, category: type[Warning]) -> None:
    """Warn, pointing at the line of the user's own code that has called this library or scikit-learn."""
    level = 1
    while sys._getframe(level).f_globals.get("__name__", "").partition(".")[0] in _BETWEEN:
        level += 1
    warnings.warn(message, category, stacklevel=level + 1)


def check_nothing_hidden(estimator: object, state: dict[str, Any]) -> None:
    """Raise ValueError when a stored state would hide a method or a property of its class."""
    kinds = types.FunctionType, property, classmethod, staticmethod
    hidden = [name for name in state if isinstance(inspect.getattr_static(type(estimator), name, None), kinds)]
    if hidden:
        raise ValueError(
            f"The file is damaged: it has {hidden[0]!r} in the place of what a {type(estimator).__name__} calls so."
        )


def twin_of(estimator: T) -> T:
    """Return a copy of an estimator for checks of data to note names and numbers of features in.

    The estimator itself gets them when its fit is over: until then another thread may be using the fitted model.
    """
    twin = object.__new__(type(estimator))
    twin.__dict__.update(estimator.__dict__)
    return twin


def features_seen(twin: object) -> dict[str, Any]:
    """Return the attributes that the check of training data has set."""
    return {name: value for name, value in vars(twin).items() if name in ("n_features_in_", "feature_names_in_")}


def with_defaults(estimator: object, state: dict[str, Any]) -> dict[str, Any]:
    """Return the state with defaults for parameters that were not there when an earlier version saved it."""
    parameters = inspect.signature(type(estimator)).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters} | state


@contextlib.contextmanager
def _readable(name: str) -> Iterator[None]:
    """Name the argument where NumPy cannot make an array of it."""
    try:
        yield
    except (OverflowError, RuntimeError) as error:
        raise ValueError(f"{name} cannot be read as an array of numbers: {error}") from error


@contextlib.contextmanager
def in_memory(name: str, value: object) -> Iterator[None]:
    """Name the parameter that asks for more memory than there is, or than torch can count."""
    try:
        yield
    except (RuntimeError, TypeError, ValueError) as error:
        raise MemoryError(f"{name}={value!r} takes more memory than there is: {error}") from error


# What torch says when there is no memory, or when the size asked for is no number that it can hold.
_NO_MEMORY = ("allocate memory", "out of memory", "overflow")


@contextlib.contextmanager
def enough_memory(advice: str) -> Iterator[None]:
    """Turn whatever says that there is no memory into a MemoryError that says what to do."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not any(words in str(error) for words in _NO_MEMORY):
            raise
        reason = (str(error).strip().splitlines() or ["none is left"])[0]
        raise MemoryError(f"There is not enough memory: {reason.rstrip('.')}. {advice}") from error


def as_array(X: Any, name: str = "X") -> Any:
    """Return what NumPy can read as its array; leave alone what scikit-learn reads otherwise.

    These are DataFrames, Series, and what is no array at all, such as a sparse matrix or None. scikit-learn may not
    find the width of other things, and with array API dispatch it keeps tensors as they are.

    Parameters
    ----------
    X : object
        What the user hands in.
    name : str, default="X"
        What messages call it.

    Returns
    -------
    object
        A NumPy array, or `X` itself.

    Raises
    ------
    TypeError
        When NumPy does not take it, such as a tensor on another device or of a dtype that NumPy lacks.
    ValueError
        When it has no numbers to give, such as a tensor that requires a gradient.
    """
    if isinstance(X, np.ndarray) or hasattr(type(X), "columns") or hasattr(type(X), "dtypes"):
        return X
    try:
        with _readable(name):
            array = np.asarray(X)
    except TypeError as error:
        has_other_dtype = isinstance(X, torch.Tensor) and "ScalarType" in str(error)
        advice = f". NumPy has no {X.dtype}. Convert it before, by {name}.float()." if has_other_dtype else ""
        raise TypeError(f"{name} cannot be read as an array of numbers: {error}{advice}") from error
    return X if array.ndim == 0 and array.dtype == object else array


def _rows_as_array(X: Any, name: str) -> Any:
    """Return `X` as `as_array` does, and say what to do with datasets and images."""
    is_dataset = isinstance(X, (Dataset, DataLoader))
    try:
        rows = None if isinstance(X, (DataLoader, IterableDataset, TensorDataset)) else as_array(X, name)
    except (TypeError, ValueError):
        if not is_dataset:
            raise
        rows = None
    if is_dataset and not (isinstance(rows, np.ndarray) and rows.ndim == 2):
        take = f"{name}.tensors[0]" if isinstance(X, TensorDataset) else "np.stack([row for row, *_ in dataset])"
        raise TypeError(
            f"{name} is a {type(X).__name__} of torch; an array of shape (n_samples, n_features) is expected. Take the "
            f"rows out of it, for example by {take}."
        )
    if isinstance(rows, np.ndarray):
        _check_dtype(rows, name)
        _check_flat(rows.shape, name)
    return rows


def _check_flat(shape: tuple[int, ...], name: str) -> None:
    """Raise ValueError for rows that are images, and say how to flatten them; scikit-learn's message begins alike."""
    if len(shape) <= 2:
        return
    rows, image_shape = name, shape[1:]
    if len(shape) == 4 and shape[1] in (1, 3) and shape[3] > 4:  # channels first, as torch has them
        rows, image_shape = f"np.transpose({name}, (0, 2, 3, 1))", (*shape[2:], shape[1])
    image = f", and give image_shape={image_shape}" if len(shape) <= 4 else ""
    raise ValueError(
        f"Found array with dim {len(shape)}: {name} has shape {shape}, and (n_samples, n_features) is expected. "
        f"Flatten each sample by np.reshape({rows}, (len({name}), -1)){image}."
    )


def _check_dtype(X: NDArray[Any], name: str) -> None:
    """Raise ValueError for a dtype that another package has added to NumPy's own, such as bfloat16."""
    if X.dtype.isbuiltin == 2:
        raise ValueError(
            f"{name} has dtype {X.dtype}, which NumPy itself does not have; a real dtype of its own is expected. "
            f"Convert it before, by {name}.astype(np.float32)."
        )


def check_rows(estimator: object, X: Any, *, reset: bool, name: str = "X", allow_missing: bool = False) -> NDArray[Any]:
    """Return `X` as a 2-D numeric array of its own dtype, without a copy where it already is one.

    With `allow_missing`, entries may be missing: they are NaN in the array.
    """
    finite = "allow-nan" if allow_missing else True
    try:
        with _readable(name):
            X = _rows_as_array(X, name)
            if name != "X":  # validate_data calls everything X
                check_array(X, input_name=name, ensure_all_finite=finite)
            X = validate_data(estimator, X, reset=reset, ensure_all_finite=finite)
            if allow_missing and X.dtype.kind == "O":  # what holds booleans and nulls
                X = check_array(X, dtype=np.float64, input_name=name, ensure_all_finite=finite)
    except (TypeError, ValueError) as error:
        if name == "X" or name in str(error):
            raise
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{name}: {error}") from error
    _check_numeric(X, name)
    return X


def _check_numeric(X: NDArray[Any], name: str) -> None:
    _check_dtype(X, name)
    if X.dtype.kind not in "biuf":
        raise ValueError(f"{name} has dtype {X.dtype}; numbers are expected. Convert it, for example to float32.")


def check_labeled_rows(
    estimator: object, X: Any, y: Any
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return `X` as `check_rows` does, `y` as a 1-D array, its classes and the class of each row."""
    X, y = _rows_as_array(X, "X"), labels_as_array(y, "y")
    try:
        with _readable("X or y"):
            X, y = validate_data(estimator, X, y, reset=True)
    except TypeError as error:
        raise TypeError(f"X or y: {error}") from error
    try:
        check_classification_targets(y)
        classes, labels = np.unique(y, return_inverse=True)
    except TypeError as error:
        raise TypeError(
            f"y must hold labels of one kind, which can be sorted, and none that is missing: {error}"
        ) from error
    _check_numeric(X, "X")
    return X, y, classes, labels


def labels_as_array(y: Any, name: str) -> Any:
    """Return labels as `as_array` does; lists stay, because NumPy makes one kind of labels of several."""
    return y if isinstance(y, (list, tuple)) else as_array(y, name)


def check_latent(Z: Any, n_components: int) -> NDArray[np.float32]:
    """Return `Z` as a float32 array of `n_components` columns."""
    Z = as_array(Z, "Z")
    if isinstance(Z, np.ndarray):
        _check_dtype(Z, "Z")
    with _readable("Z"), np.errstate(over="ignore"):  # what float32 cannot hold becomes an infinity, an error
        Z = check_array(Z, dtype=np.float32, order="C", input_name="Z")
    if Z.shape[1] != n_components:
        raise ValueError(f"Z has {Z.shape[1]} columns, but the model has {n_components} latent components.")
    return Z


def check_positive_integer(value: object, name: str) -> None:
    """Raise ValueError unless `value` is a positive integer."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise ValueError(f"{name} must be a positive integer; got {value!r}.")


def image_dimensions(image_shape: Any, n_features: int) -> tuple[int, int, int] | None:
    """Return (height, width, channels) of one row, or None when it is not known to be an image.

    Parameters
    ----------
    image_shape : tuple of int or None
        (height, width) or (height, width, channels). None takes a square number of at least 4 x 4 features for a
        square image of one channel.
    n_features : int
        The length of one row.

    Raises
    ------
    ValueError
        When `image_shape` is not two or three positive integers whose product is `n_features`.
    """
    if image_shape is None:
        side = math.isqrt(n_features)
        return (side, side, 1) if side >= 4 and side * side == n_features else None
    shape = tuple(image_shape) if isinstance(image_shape, Iterable) else ()
    if len(shape) not in (2, 3) or any(not isinstance(n, Integral) or n < 1 for n in shape):
        raise ValueError(
            f"image_shape must be (height, width) or (height, width, channels), all positive integers; "
            f"got {image_shape!r}."
        )
    height, width, *channels = map(int, shape)
    n_channels = channels[0] if channels else 1
    if height * width * n_channels != n_features:
        raise ValueError(
            f"image_shape={image_shape!r} describes {height * width * n_channels} features, but X has {n_features} "
            f"features."
        )
    return height, width, n_channels


def layer_sizes(hidden_layer_sizes: Any) -> tuple[int, ...]:
    """Return the parameter `hidden_layer_sizes`, an integer or a sequence of them, as a tuple.

    Raises
    ------
    ValueError
        When an entry is not a positive integer.
    """
    sizes = (hidden_layer_sizes,) if np.ndim(hidden_layer_sizes) == 0 else tuple(hidden_layer_sizes)
    for size in sizes:
        if not isinstance(size, Integral) or size < 1:
            raise ValueError(f"hidden_layer_sizes must hold positive integers; got {hidden_layer_sizes!r}.")
    return tuple(map(int, sizes))


def check_range(pair: Any, name: str) -> tuple[float, float]:
    """Return the pair (low, high) as floats.

    Raises
    ------
    ValueError
        Unless it is two numbers within float32, the first smaller than the second.
    """
    numbers = tuple(pair) if isinstance(pair, Iterable) else ()
    valid = all(isinstance(n, Real) for n in numbers) and all(abs(n) <= LARGEST for n in numbers)
    if len(numbers) != 2 or not valid or not numbers[0] < numbers[1]:
        raise ValueError(
            f"{name} must be (low, high), two finite numbers that float32 can hold, with low < high; got {pair!r}."
        )
    return float(numbers[0]), float(numbers[1])


def spawn_seeds(random_state: Any, n_seeds: int) -> list[int]:
    """Return `n_seeds` seeds drawn from `random_state`.

    None draws them from the operating system rather than from NumPy's global generator, which no call of this
    library changes.
    """
    if random_state is None:
        return [int(seed) for seed in np.random.SeedSequence().generate_state(n_seeds)]
    return [int(seed) for seed in check_random_state(random_state).randint(np.iinfo(np.int32).max, size=n_seeds)]


def resolve_device(device: Any) -> torch.device:
    """Return the torch device for the parameter `device`, known to work.

    Raises
    ------
    ValueError
        When torch does not know the device, or it is not there.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
        torch.ones(1, device=resolved).item()
    except (RuntimeError, AssertionError, NotImplementedError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise ValueError(
            f"device={device!r} cannot be used: {reason}. Choose 'auto', 'cpu' or a device that torch finds here."
        ) from error
    return resolved
