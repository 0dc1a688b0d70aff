"""From what the user hands in to what the networks take: arrays, image shapes, seeds and devices.

The only module that imports scikit-learn's private API.
"""

import contextlib
import functools
import hashlib
import inspect
import math
import sys
from collections.abc import Iterable, Iterator
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.base import _fit_context
from sklearn.utils import check_array, check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

__all__ = [
    "LARGEST",
    "Integral",
    "Interval",
    "Real",
    "Rows",
    "StrOptions",
    "_fit_context",
    "all_or_nothing",
    "bounds",
    "check_float32",
    "check_is_fitted",
    "check_labelled_rows",
    "check_latent",
    "check_positive_integer",
    "check_rows",
    "describe",
    "extent",
    "image_dimensions",
    "in_memory",
    "layer_sizes",
    "maps_in_float32",
    "mean_and_std",
    "resolve_device",
    "spawn_seeds",
    "with_defaults",
]

# The largest number that float32 holds.
LARGEST = float(np.finfo(np.float32).max)

_CHUNK_ENTRIES = 1 << 16

# Up to this, differences from a shift and quotients by a scale stay within float32.
_LARGEST_IN_FLOAT32 = LARGEST / 100

# Down to this, differences that matter keep all their bits.
_SMALLEST_IN_FLOAT32 = 100 * float(np.finfo(np.float32).tiny)

_CPU = torch.device("cpu")


def all_or_nothing(method):
    """Decorate a fitting method so that the estimator is as it was before when the method raises.

    So is a RandomState that it has for a parameter: the next call draws what this one has drawn.
    """

    @functools.wraps(method)
    def guarded(estimator, *args, **kwargs):
        before = dict(vars(estimator))
        source = estimator.random_state if isinstance(estimator.random_state, np.random.RandomState) else None
        drawn = None if source is None else source.get_state(legacy=False)
        try:
            return method(estimator, *args, **kwargs)
        except BaseException:
            vars(estimator).clear()
            vars(estimator).update(before)
            if source is not None:
                source.set_state(drawn)
            raise

    return guarded


def with_defaults(estimator, state: dict) -> dict:
    """Return the state with defaults for parameters that were not there when an earlier version saved it."""
    parameters = inspect.signature(type(estimator)).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters} | state


def maps_in_float32(shift: float, scale: float) -> bool:
    """Return whether float32 is enough to map float32 values by (x - shift) / scale."""
    return max(abs(shift), scale) < _LARGEST_IN_FLOAT32 and scale > _SMALLEST_IN_FLOAT32


@contextlib.contextmanager
def _readable(name: str) -> Iterator[None]:
    """Name the argument where NumPy cannot make an array of it."""
    try:
        yield
    except (OverflowError, RuntimeError) as error:
        raise ValueError(f"{name} cannot be read as an array of numbers: {error}") from error


@contextlib.contextmanager
def in_memory(name: str, value) -> Iterator[None]:
    """Name the parameter that asks for more memory than there is, or than torch can count."""
    try:
        yield
    except (RuntimeError, TypeError, ValueError) as error:
        raise MemoryError(f"{name}={value!r} takes more memory than there is: {error}") from error


def check_rows(estimator, X, *, reset: bool, name: str = "X") -> np.ndarray:
    """Return `X` as a 2-D numeric array of its own dtype, without a copy where it already is one."""
    try:
        with _readable(name):
            if name != "X":  # validate_data calls everything X
                check_array(X, input_name=name)
            X = validate_data(estimator, X, reset=reset)
    except (TypeError, ValueError) as error:
        if name == "X" or name in str(error):
            raise
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{name}: {error}") from error
    _check_numeric(X, name)
    return X


def _check_numeric(X: np.ndarray, name: str) -> None:
    if X.dtype.kind not in "biuf":
        raise ValueError(f"{name} has dtype {X.dtype}; numbers are expected. Convert it, for example to float32.")


def check_labelled_rows(estimator, X, y) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return `X` as `check_rows` does, within float32, `y` as a 1-D array, its classes and the class of each row."""
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
    check_float32(X, "X")
    return X, y, classes, labels


def check_latent(Z, n_components: int) -> np.ndarray:
    """Return `Z` as a float32 array of `n_components` columns."""
    with _readable("Z"), np.errstate(over="ignore"):  # what float32 cannot hold becomes an infinity, an error
        Z = check_array(Z, dtype=np.float32, order="C", input_name="Z")
    if Z.shape[1] != n_components:
        raise ValueError(f"Z has {Z.shape[1]} columns, but the model has {n_components} latent components.")
    return Z


def check_positive_integer(value, name: str) -> None:
    """Raise ValueError unless `value` is a positive integer."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be a positive integer; got {value!r}.")


def _as_tensor(block: np.ndarray) -> torch.Tensor:
    """Return `block` as a tensor, which shares its memory where torch can; it is not to be written to."""
    if block.dtype.kind == "f" and block.dtype.itemsize > 8:
        block = block.astype(np.float64)
    # In a block of one row or column, strides that torch refuses count as contiguous.
    shared = block.flags.c_contiguous and all(n >= 0 and n % block.dtype.itemsize == 0 for n in block.strides)
    if not (shared and block.flags.writeable and block.dtype.isnative):
        block = np.array(block, dtype=block.dtype.newbyteorder("="), order="C")
    return torch.from_numpy(block)


class Rows:
    """Rows of a numeric array as float32 tensors of ``(x - shift) / scale``, converted when they are asked for.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        Any real dtype and memory layout. It is neither copied nor changed.
    shift, scale : float
        The affine map. It is applied in float64 for dtypes that float32 cannot hold, and for a shift or a scale near
        its ends, so that large offsets and tiny or huge scales lose nothing before the rounding to float32.
    clip : bool, default=False
        Whether to clip mapped values to [0, 1].
    index : ndarray of int, default=None
        The rows to keep; None keeps all.
    device : torch.device, default=CPU
        Where the tensors go.
    read_often : bool, default=False
        Whether all rows will be read many times. Then a CUDA device gets `X`, in its own dtype, once and for all if
        it has room; otherwise rows go there through pinned memory when they are asked for.
    """

    def __init__(self, X, shift, scale, *, clip=False, index=None, device=_CPU, read_often=False):
        self.X, self.shift, self.scale = X, shift, scale
        self.clip, self.index, self.device = clip, index, device
        narrow = np.result_type(X.dtype, np.float32) == np.float32 and maps_in_float32(shift, scale)
        self._dtype = torch.float32 if narrow else torch.float64
        self._source = None
        if read_often and device.type == "cuda" and 2 * X.nbytes < torch.cuda.mem_get_info(device)[0]:
            self._source = _as_tensor(X).to(device)

    def __len__(self) -> int:
        return len(self.X) if self.index is None else len(self.index)

    def __getitem__(self, rows: slice | torch.Tensor) -> torch.Tensor:
        if isinstance(rows, torch.Tensor):
            rows = rows.numpy()
        if self.index is not None:
            rows = self.index[rows]
        if self._source is not None:
            block = self._source[rows if isinstance(rows, slice) else torch.from_numpy(rows).to(self.device)]
        else:
            block = _as_tensor(self.X[rows])
            if self.device.type == "cuda":
                block = block.pin_memory().to(self.device, non_blocking=True)
        converted = block.to(self._dtype)
        converted = converted.sub(self.shift) if converted is block else converted.sub_(self.shift)
        block = converted.div_(self.scale).to(self.device, torch.float32)
        return block.clamp_(0, 1) if self.clip else block

    def chunks(self, n_rows: int) -> Iterator[torch.Tensor]:
        """Yield all rows in order, at most `n_rows` at a time."""
        for start in range(0, len(self), n_rows):
            yield self[start : start + n_rows]


def describe(value) -> str:
    """Return what tells a parameter or data from others: itself if it is short, a digest if it is large."""
    digest = hashlib.sha256()
    if isinstance(value, np.ndarray) and value.ndim == 2:
        text = f"{value.dtype} array of shape {value.shape}"
        for chunk in _raw_chunks(value, None):
            digest.update(_as_tensor(chunk).numpy())
    elif isinstance(value, torch.nn.Module):
        text = type(value).__name__
        digest.update(repr(value).encode())
        for part in value.modules():  # what an attribute says that is no weight
            plain = {key: item for key, item in vars(part).items() if isinstance(item, (bool, int, float, str, tuple))}
            digest.update(repr(plain).encode())
        for name, weight in value.state_dict().items():
            digest.update(name.encode())
            if isinstance(weight, torch.Tensor) and not torch.nn.parameter.is_lazy(weight):
                digest.update(weight.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy())
            else:
                digest.update(repr(weight).encode())
    elif isinstance(value, np.random.RandomState):
        text = "RandomState"
        state = value.get_state(legacy=False)
        with np.printoptions(threshold=sys.maxsize):
            digest.update(repr(state).encode())
    elif len(text := repr(value)) > 200:
        digest.update(text.encode())
        text = type(value).__name__
    else:
        return text
    return f"{text} with sha256 {digest.hexdigest()[:16]}"


def _raw_chunks(X: np.ndarray, index: np.ndarray | None) -> Iterator[np.ndarray]:
    n_samples = len(X) if index is None else len(index)
    step = max(1, _CHUNK_ENTRIES // X.shape[1])
    for start in range(0, n_samples, step):
        rows = slice(start, start + step)
        yield X[rows if index is None else index[rows]]


def extent(X: np.ndarray, index: np.ndarray | None = None, name: str = "X") -> tuple[float, float]:
    """Return the smallest and the largest entry, both within float32.

    Raises
    ------
    ValueError
        When an entry is too large for float32.
    """
    bounds = [(chunk.min(), chunk.max()) for chunk in _raw_chunks(X, index)]
    low, high = float(min(low for low, _ in bounds)), float(max(high for _, high in bounds))
    largest = max(low, high, key=abs)
    if abs(largest) > LARGEST:
        raise ValueError(
            f"{name} contains {largest:.6g}, a value too large for dtype('float32'). Rescale the data before fitting."
        )
    return low, high


def check_float32(X: np.ndarray, name: str) -> None:
    """Raise ValueError when an entry is too large for float32; only floats wider than that can hold one."""
    if X.dtype.kind == "f" and X.dtype.itemsize > 4:
        extent(X, name=name)


def mean_and_std(X: np.ndarray, index: np.ndarray | None = None) -> tuple[float, float]:
    """Return mean and standard deviation of all entries, computed in float64; the deviation of a constant is 1."""
    low, high = extent(X, index)
    spread = high - low
    if spread == 0:
        return low, 1.0
    n_entries = (len(X) if index is None else len(index)) * X.shape[1]
    mean = math.fsum(np.sum(chunk, dtype=np.float64) for chunk in _raw_chunks(X, index)) / n_entries
    deviations = (np.subtract(chunk, mean, dtype=np.float64) / spread for chunk in _raw_chunks(X, index))
    squares = (np.square(deviation).sum() for deviation in deviations)
    return mean, spread * math.sqrt(math.fsum(squares) / n_entries)


def image_dimensions(image_shape, n_features: int) -> tuple[int, int, int] | None:
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
    if len(shape) not in (2, 3) or not all(isinstance(n, Integral) and n > 0 for n in shape):
        raise ValueError(
            f"image_shape must be (height, width) or (height, width, channels), all positive integers; "
            f"got {image_shape!r}."
        )
    shape = tuple(map(int, shape))
    if math.prod(shape) != n_features:
        raise ValueError(
            f"image_shape={image_shape!r} describes {math.prod(shape)} features, but X has {n_features} features."
        )
    height, width, *channels = shape
    return height, width, *(channels or (1,))


def layer_sizes(hidden_layer_sizes) -> tuple[int, ...]:
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


def bounds(pair, name: str) -> tuple[float, float]:
    """Return the pair (low, high) as floats.

    Raises
    ------
    ValueError
        Unless it is two numbers within float32, the first smaller than the second.
    """
    numbers = tuple(pair) if isinstance(pair, Iterable) else ()
    valid = len(numbers) == 2 and all(isinstance(n, Real) and abs(n) <= LARGEST for n in numbers)
    if not valid or not numbers[0] < numbers[1]:
        raise ValueError(
            f"{name} must be (low, high), two finite numbers that float32 can hold, with low < high; got {pair!r}."
        )
    return float(numbers[0]), float(numbers[1])


def spawn_seeds(random_state, n_seeds: int) -> list[int]:
    """Return `n_seeds` seeds drawn from `random_state`.

    None draws them from the operating system rather than from NumPy's global generator, which no call of this
    library changes.
    """
    if random_state is None:
        return [int(seed) for seed in np.random.SeedSequence().generate_state(n_seeds)]
    return [int(seed) for seed in check_random_state(random_state).randint(np.iinfo(np.int32).max, size=n_seeds)]


def resolve_device(device) -> torch.device:
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
