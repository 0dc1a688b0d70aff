"""Rows of data: what is known of them, the units that they are brought to, and the batches that a step gets."""

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, Self, TypeVar, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skvae._data.checks import LARGEST

__all__ = [
    "Batch",
    "Columns",
    "Rows",
    "Summary",
    "Units",
    "as_tensor",
    "blocks",
    "computed_once",
]

T = TypeVar("T")

# Entries in one block of data that is read to learn something of all of it.
_BLOCK_ENTRIES = 1 << 16

# In float32, a shift of this many scales costs a value the digits below a millionth of a scale.
_LARGEST_SHIFT = 16

# Up to this, differences from a shift and quotients by a scale stay within float32.
_LARGEST_IN_FLOAT32 = LARGEST / 100

# Entries of a column are broken when they are this many times as far from its median as all others, hold more than this
# share of its variance, and are this many times as far from its mean as all others of the table are from theirs.
_BROKEN_GAP, _BROKEN_SHARE, _REACH = 10.0, 0.99, 2.0

# Of so many rows one entry of a column may be broken; of fewer one as well, but of very few none can be told.
_ROWS_FOR_ONE_BROKEN, _FEWEST_ROWS_WITH_BROKEN = 100, 10

# The types of which torch takes rows faster than NumPy.
_SELECTED_BY_TORCH = [np.dtype(name) for name in ("bool", "uint8", "int32", "int64", "float32", "float64")]

# Down to this, differences that matter keep all their bits.
_SMALLEST_IN_FLOAT32 = 100 * float(np.finfo(np.float32).tiny)


@dataclass(frozen=True, slots=True)
class Batch:
    """What one step of training, or one block of rows to score, consists of.

    Attributes
    ----------
    x : Tensor of shape (n_rows, n_features), float32
        The rows, in the units in which the likelihood works.
    observed : Tensor of shape (n_rows, n_features), bool, default=None
        Which entries count; None is all of them. Where it is False, `x` holds what stands in for the missing entry.
    """

    x: Tensor
    observed: Tensor | None = None

    def __len__(self) -> int:
        return len(self.x)

    @property
    def mask(self) -> Tensor:
        """`observed`, also where all entries are."""
        return torch.ones_like(self.x, dtype=torch.bool) if self.observed is None else self.observed


class Columns(NamedTuple):
    """What is known of the columns of a table.

    Attributes
    ----------
    mean, spread : ndarray of shape (n_features,), float64
        Mean and standard deviation over the rows to train on.
    low, high : ndarray of shape (n_features,), float64
        The smallest and the largest entry of all rows.

    Missing entries have no part in them. Where a column has no other entries, all four are NaN.
    """

    mean: NDArray[np.float64]
    spread: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]

    @property
    def farthest(self) -> NDArray[np.float64]:
        """How far an entry of each column is from the mean at most."""
        return np.maximum(self.high - self.mean, self.mean - self.low)


class computed_once(Generic[T]):
    """A property that is computed when it is first asked for, and kept.

    `functools.cached_property` holds a lock in Python 3.11, for all objects of a class: a child that is forked while
    another thread computes would wait forever.
    """

    def __init__(self, compute: Callable[[Any], T]) -> None:
        self._compute = compute
        self.__doc__ = compute.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...

    @overload
    def __get__(self, instance: object, owner: type) -> T: ...

    def __get__(self, instance: object | None, owner: type) -> Self | T:
        if instance is None:
            return self
        value = instance.__dict__[self._name] = self._compute(instance)
        return value


@dataclass(frozen=True, eq=False)
class Summary:
    """What a likelihood may know of data before they are brought to units.

    Each fact is computed when it is first asked for, a few rows at a time, and kept.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        All rows, of any real dtype. Missing entries are NaN, the others finite. They are neither copied nor changed.
    index : ndarray of int, default=None
        The rows to train on; None is all of them. The others are set aside.
    name : str, default="X"
        What messages call the data.
    """

    X: NDArray[Any]
    index: NDArray[np.intp] | None = None
    name: str = "X"

    @property
    def n_rows(self) -> int:
        """The number of rows to train on."""
        return len(self.X) if self.index is None else len(self.index)

    @computed_once
    def _ends_and_missing(self) -> tuple[Any, Any, bool]:
        """The smallest and the largest entry, and whether one is missing, from one pass over the data."""
        low, high, has_missing = np.inf, -np.inf, False
        for block in blocks(self.X):
            smallest, largest = block.min(), block.max()
            if smallest != smallest:  # NaN is not equal to itself
                has_missing, observed = True, ~np.isnan(block)
                smallest = block.min(initial=np.inf, where=observed)
                largest = block.max(initial=-np.inf, where=observed)
            low, high = min(low, smallest), max(high, largest)
        return low, high, has_missing

    @property
    def has_missing(self) -> bool:
        """Whether an entry of any row is missing; only floats are looked at."""
        return self.X.dtype.kind == "f" and self._ends_and_missing[2]

    def check_observed(self, *, each_column: bool) -> None:
        """Check that there is something to train on.

        Parameters
        ----------
        each_column : bool
            Whether each column needs an entry, and not only the table.

        Raises
        ------
        ValueError
            When all entries are missing, or those of a column that needs one.
        """
        if not self.has_missing:
            return
        empty = ~np.any([~np.isnan(block).all(axis=0) for block in blocks(self.X)], axis=0)
        if empty.all():
            raise ValueError(f"All entries of {self.name} are missing (NaN). Give rows with entries to learn from.")
        if not self.n_observed.any():
            raise ValueError(
                f"All entries of the rows of {self.name} that are not set aside are missing (NaN). Give more rows with "
                f"entries to learn from."
            )
        if each_column and empty.any():
            column, n_more = int(empty.argmax()), int(empty.sum()) - 1
            more = f", like {n_more} other column{'' if n_more == 1 else 's'}" if n_more else ""
            raise ValueError(
                f"Column {column} of {self.name} has missing entries (NaN) alone{more}. A model needs at least one "
                f"entry in each column. Leave such columns out."
            )

    def _ends(self, block: NDArray[Any], axis: int) -> tuple[Any, Any]:
        """Return the smallest and the largest entries of a block along an axis; (inf, -inf) where all are missing."""
        if not self.has_missing:
            return block.min(axis=axis), block.max(axis=axis)
        observed = ~np.isnan(block)
        return block.min(axis, initial=np.inf, where=observed), block.max(axis, initial=-np.inf, where=observed)

    @computed_once
    def extent(self) -> tuple[float, float]:
        """The smallest and the largest entry of all rows, both within float32; (inf, -inf) where all are missing.

        Raises
        ------
        ValueError
            When an entry is too large for float32.
        """
        low, high = float(self._ends_and_missing[0]), float(self._ends_and_missing[1])
        if low > high:
            return low, high
        largest = max(low, high, key=abs)
        if abs(largest) > LARGEST:
            raise ValueError(
                f"{self.name} contains {largest:.6g}, a value too large for dtype('float32'). Rescale the data before "
                f"fitting."
            )
        return low, high

    @computed_once
    def extent_of_rows(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The smallest and the largest entry of each row, of all rows; (inf, -inf) where all are missing."""
        smallest, largest = zip(*(self._ends(block, 1) for block in blocks(self.X)), strict=True)
        return np.concatenate(smallest).astype(float), np.concatenate(largest).astype(float)

    @computed_once
    def n_observed(self) -> NDArray[np.intp]:
        """How many entries of each column are not missing, of the rows to train on."""
        if not self.has_missing:
            return np.full(self.X.shape[1], self.n_rows)
        return np.sum([(~np.isnan(block)).sum(axis=0) for block in blocks(self.X, self.index)], axis=0)

    @computed_once
    def columns(self) -> Columns:
        """Mean and standard deviation of each column over the rows to train on, and the ends of all rows.

        Mean and standard deviation of a constant column are the constant and 0, to the last bit.

        Raises
        ------
        ValueError
            When an entry of `X` is too large for float32.
        """
        self.check_float32()
        total = np.nansum if self.has_missing else np.sum
        n_features, n_observed = self.X.shape[1], np.maximum(self.n_observed, 1)
        mean, low, high = np.zeros(n_features), np.full(n_features, np.inf), np.full(n_features, -np.inf)
        for block in blocks(self.X, self.index):
            mean += total(block, axis=0, dtype=np.float64) / n_observed
            low, high = self._wider(low, high, block)
        seen = self.n_observed > 0
        mean[seen] = np.clip(mean, low, high)[seen]
        largest = float((high - low)[seen].max(initial=0)) or 1.0
        squares = np.zeros(n_features)
        for block in blocks(self.X, self.index):
            squares += total(np.square(np.subtract(block, mean, dtype=np.float64) / largest), axis=0)
        if self.index is not None:
            for block in blocks(self.X, np.delete(np.arange(len(self.X)), self.index)):
                low, high = self._wider(low, high, block)
        aside = ~seen & (low <= high)  # only rows that are set aside have entries
        mean[aside] = (low[aside] + high[aside]) / 2
        spread = largest * np.sqrt(squares / n_observed)
        return Columns(
            *(np.where(low > high, np.nan, values).astype(np.float64) for values in (mean, spread, low, high))
        )

    def _wider(self, low: NDArray[Any], high: NDArray[Any], block: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the ends of columns, with those of a block."""
        smallest, largest = self._ends(block, 0)
        return np.minimum(low, smallest), np.maximum(high, largest)

    @computed_once
    def without_broken_entries(self) -> Columns:
        """What is known of the columns without broken entries, which the rows that are set aside may have as well.

        Broken are a few entries of a column that hold nearly all of its variance and are far beyond its others, and
        beyond all others of the table. Where the others do not vary, they are what there is to learn.
        """
        columns = self.columns
        if len(self.X) < _FEWEST_ROWS_WITH_BROKEN:
            return columns
        farthest, others = columns.farthest, Columns(*(values.copy() for values in columns))
        most = max(len(self.X) // _ROWS_FOR_ONE_BROKEN, 1)
        # The other columns are not read: so few entries cannot hold so much of their variance.
        suspect = most * np.square(farthest) > _BROKEN_SHARE / 2 * self.n_observed * np.square(columns.spread)
        learned: list[np.intp] = []
        for column in np.argsort(-farthest):
            entries = self._without_broken(column, most) if suspect[column] else None
            if entries is None:
                break  # no later column is beyond twice this one
            for values, value in zip(others, entries, strict=True):
                values[column] = value
            learned.append(column)
        for column in reversed(learned):
            if farthest[column] <= _REACH * np.fmax.reduce(others.farthest):
                for values, all_values in zip(others, columns, strict=True):
                    values[column] = all_values[column]
        return others

    def _without_broken(self, column: np.intp, most: int) -> tuple[float, float, float, float] | None:
        """Return mean, spread and ends of a column without at most so many entries; None where all of them count."""
        entries = self.X[:, column].astype(np.float64)
        observed = ~np.isnan(entries)
        n_observed = int(observed.sum())
        if n_observed < _FEWEST_ROWS_WITH_BROKEN:
            return None
        most = min(most, max(n_observed // _ROWS_FOR_ONE_BROKEN, 1))
        distances = np.where(observed, np.abs(entries - np.median(entries[observed])), 0)
        order = np.argpartition(distances, -most - 1)[-most - 1 :]
        order = order[np.argsort(distances[order])]
        near, far = distances[order[:-1]], distances[order[1:]]
        gaps = np.flatnonzero((near > 0) & (far > _BROKEN_GAP * near))
        if len(gaps) == 0:
            return None
        counts, entries_there = observed.copy(), entries[observed]
        counts[order[gaps[0] + 1 :]] = False
        others = entries[counts]
        trained = others if self.index is None else entries[self.index][counts[self.index]]
        most_left = (1 - _BROKEN_SHARE) * entries_there.var() * len(entries_there)
        if others.var() * len(others) >= most_left or len(trained) == 0:
            return None
        return trained.mean(), trained.std(), others.min(), others.max()

    def reach(self, shift: float | NDArray[np.float64]) -> float:
        """Return what entries are clipped to where none is to decide all: a distance from a shift.

        Parameters
        ----------
        shift : float or ndarray of shape (n_features,)
            One number, or one for each feature.

        Returns
        -------
        float
            Twice the distance of the farthest entry of all rows that is not broken.
        """
        others = self.without_broken_entries
        return _REACH * float(np.fmax.reduce(np.fmax(np.abs(others.low - shift), np.abs(others.high - shift))))

    def check_float32(self) -> None:
        """Check that the entries are within float32; only floats wider than that are looked at.

        Raises
        ------
        ValueError
            When an entry is too large for float32.
        """
        if self.X.dtype.kind == "f" and self.X.dtype.itemsize > 4:
            _ = self.extent


@dataclass(frozen=True, slots=True, eq=False)
class Units:
    """The units in which a likelihood works: ``u = (x - shift) / scale`` for a value x of the data.

    Parameters
    ----------
    shift : float or ndarray of shape (n_features,), float64
        What is subtracted: one number, or one for each feature.
    scale : float
        What is divided by; positive.
    low : float, default=-1e6
        What u is clipped to from below on its way to the networks. By default no more is clipped than what would
        overflow: the square of u, and what networks make of it, stays within float32.
    high : float, default=1e6
        What u is clipped to from above.

    Raises
    ------
    ValueError
        When `shift` or `scale` is not finite, or `scale` is not positive.
    """

    shift: float | NDArray[np.float64]
    scale: float
    low: float = -1e6
    high: float = 1e6

    def __post_init__(self) -> None:
        if not (np.isfinite(self.shift).all() and math.isfinite(self.scale) and self.scale > 0):
            raise ValueError(f"Units must have a finite shift and a positive scale; got {self.shift}, {self.scale}.")
        if isinstance(self.shift, np.ndarray):
            shift = self.shift.copy()
            shift.setflags(write=False)
            object.__setattr__(self, "shift", shift)

    @property
    def largest_shift(self) -> float:
        """The largest absolute value of the shift."""
        return float(np.abs(self.shift).max())

    @property
    def fit_float32(self) -> bool:
        """Whether float32 is enough to map float32 values."""
        is_within = max(self.largest_shift, self.scale) < _LARGEST_IN_FLOAT32 and self.scale > _SMALLEST_IN_FLOAT32
        return is_within and self.largest_shift <= _LARGEST_SHIFT * self.scale

    @property
    def dtype(self) -> type[np.floating[Any]]:
        """Float64 if float32 cannot resolve a thousandth of a scale near the shift, else float32."""
        is_coarse = self.largest_shift * float(np.finfo(np.float32).eps) > 1e-3 * self.scale
        return np.float64 if is_coarse else np.float32

    def apply(self, block: Tensor, shift: Tensor) -> Tensor:
        """Return the values in these units, clipped.

        Parameters
        ----------
        block : Tensor
            Values of the data, of any real dtype. It is not written to.
        shift : Tensor
            The shift, on the device of `block`. Its dtype is the one to compute in.

        Returns
        -------
        Tensor of the shape of `block`
            In the dtype of `shift`.
        """
        converted = block.to(shift.dtype)
        converted = converted.sub(shift) if converted is block else converted.sub_(shift)
        converted = converted.div_(self.scale)
        return converted if self._holds_all(block.dtype) else converted.clamp_(self.low, self.high)

    def _holds_all(self, dtype: torch.dtype) -> bool:
        """Return whether no number of this type, such as a byte, is clipped."""
        if dtype.is_floating_point or dtype.itemsize > 2:
            return False
        ends = (0, 1) if dtype == torch.bool else (torch.iinfo(dtype).min, torch.iinfo(dtype).max)
        shifts = np.min(self.shift), np.max(self.shift)
        return all(self.low <= (end - shift) / self.scale <= self.high for end in ends for shift in shifts)

    def invert(self, u: NDArray[Any]) -> NDArray[Any]:
        """Return the values of the data.

        Parameters
        ----------
        u : ndarray
            Values in these units.

        Returns
        -------
        ndarray of the shape of `u`, float64
            ``shift + scale * u``.
        """
        return u * np.float64(self.scale) + self.shift

    def log_volume(self, n_observed: float) -> float:
        """Return log p(u) - log p(x) for a row.

        Parameters
        ----------
        n_observed : float
            Number of observed entries of the row, or their mean over rows.

        Returns
        -------
        float
            ``n_observed * log(scale)``, in nats.
        """
        return n_observed * math.log(self.scale)


class Rows:
    """Rows of a numeric array as batches in some units, converted when they are asked for.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        Any real dtype and memory layout. It is neither copied nor changed.
    units : Units
        What the rows are brought to. The map is applied in float64 for dtypes that float32 cannot hold, and for a
        shift or a scale near its ends, so that large offsets and tiny or huge scales lose nothing before the rounding
        to float32.
    device : torch.device
        Where the batches go.
    has_missing : bool, default=False
        Whether entries are missing, as NaN. Then batches say which are observed, and have 0 in the place of the others,
        or what `filled` says.
    read_often : bool, default=False
        Whether all rows will be read many times. Then a CUDA device gets `X`, in its own dtype, once and for all if
        it has room; otherwise rows go there through pinned memory when they are asked for.
    """

    def __init__(
        self,
        X: NDArray[Any],
        units: Units,
        device: torch.device,
        *,
        has_missing: bool = False,
        read_often: bool = False,
    ) -> None:
        self.X, self.units, self.device, self.has_missing = X, units, device, has_missing
        self._index: Tensor | None = None
        self._filling: tuple[Tensor, Tensor, Tensor] | None = None
        narrow = np.result_type(X.dtype, np.float32) == np.float32 and units.fit_float32
        self._shift = torch.tensor(
            units.shift,
            dtype=torch.float32 if narrow else torch.float64,
            device=device if device.type == "cuda" else "cpu",
        )
        # The data as a tensor: on the device, or in the memory of X.
        self._source = None
        if device.type == "cuda":
            if read_often and 2 * X.nbytes < torch.cuda.mem_get_info(device)[0]:
                self._source = as_tensor(X).to(device)
        elif _is_shareable(X) and X.dtype in _SELECTED_BY_TORCH:
            self._source = torch.from_numpy(X)

    def filled(self, mean: Tensor, components: Tensor, coordinates: Tensor) -> "Rows":
        """Return these rows with ``mean + coordinates @ components`` in the place of missing entries.

        Parameters
        ----------
        mean : Tensor of shape (n_features,), float32
            On the device of the rows, as are the others.
        components : Tensor of shape (n_directions, n_features), float32
            Directions.
        coordinates : Tensor of shape (n_samples, n_directions), float32
            A row for each row of `X`.
        """
        if len(coordinates) != len(self.X):
            raise ValueError(f"coordinates has {len(coordinates)} rows; {len(self.X)} are expected, those of X.")
        filled = copy.copy(self)
        filled._filling = mean, components, coordinates
        return filled

    def with_more_missing(self, share: float, n_rows: int, seed: int) -> "Rows":
        """Return a table of so many of these rows, again and again where they are fewer, with more entries missing.

        Parameters
        ----------
        share : float
            The probability with which an entry is lost.
        n_rows : int
            The number of rows.
        seed : int
            Where the draw begins.
        """
        index = np.arange(len(self.X)) if self._index is None else self._index.cpu().numpy()
        X = self.X[np.resize(index, n_rows)].astype(np.result_type(self.X.dtype, np.float32))
        X[np.random.RandomState(seed).random_sample(X.shape) < share] = np.nan
        return Rows(X, self.units, self.device, has_missing=True)

    def subset(self, index: NDArray[np.intp] | None) -> "Rows":
        """Return the rows `index` alone, None being all; what is on the device already is shared."""
        if index is None:
            return self
        chosen = copy.copy(self)
        chosen._index = self.place(torch.from_numpy(index))
        return chosen

    def between(self, first: int, stop: int) -> "Rows":
        """Return the rows from `first` to the one before `stop`."""
        return self.subset(np.arange(first, stop))

    def sample(self, n_rows: int, seed: int) -> "Rows":
        """Return so many rows, drawn at random and in their order; all where there are no more."""
        if len(self) <= n_rows:
            return self
        return self.subset(np.sort(np.random.RandomState(seed).choice(len(self), n_rows, replace=False)))

    def __len__(self) -> int:
        return len(self.X) if self._index is None else len(self._index)

    @property
    def is_resident(self) -> bool:
        """Whether all the data are on a CUDA device, so that a batch can be taken there by numbers that are there."""
        return self._source is not None and self._source.is_cuda

    @property
    def n_features(self) -> int:
        """The number of columns."""
        return self.X.shape[1]

    def count_missing(self) -> int:
        """Return the number of entries that are missing; all are looked at."""
        if not self.has_missing:
            return 0
        index = None if self._index is None else self._index.cpu().numpy()
        return sum(int(np.isnan(block).sum()) for block in blocks(self.X, index))

    def place(self, rows: Tensor) -> Tensor:
        """Return the numbers that rows have in `X`, where they will be looked up."""
        if self.is_resident:
            rows = rows.to(self.device)
        return rows if self._index is None else self._index[rows]

    def take(self, placed: Tensor) -> Batch:
        """Return the rows whose numbers in `X` are what `place` returned."""
        if self._source is not None:
            return self._convert(self._source.index_select(0, placed), placed)
        return self._convert(self._send(as_tensor(self.X[placed.numpy()])), placed)

    def __getitem__(self, rows: slice) -> Batch:
        if self._index is not None:
            return self.take(self._index[rows])
        block = self._send(as_tensor(self.X[rows])) if self._source is None else self._source[rows]
        return self._convert(block, rows)

    def _send(self, block: Tensor) -> Tensor:
        return block.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else block

    def _convert(self, block: Tensor, rows: Tensor | slice) -> Batch:
        x = self.units.apply(block, self._shift).to(self.device, torch.float32)
        if not self.has_missing:
            return Batch(x)
        observed, low, high = x == x, self.units.low, self.units.high  # NaN is not equal to itself
        if self._filling is None:
            return Batch(torch.where(observed, x, min(max(0.0, low), high)), observed)
        mean, components, coordinates = self._filling
        filling = torch.addmm(mean, coordinates[rows], components).clamp_(low, high)
        return Batch(torch.where(observed, x, filling), observed)

    def blocks(self, n_rows: int) -> Iterator[Batch]:
        """Yield all rows in order, at most `n_rows` at a time."""
        for start in range(0, len(self), n_rows):
            yield self[start : start + n_rows]


def as_tensor(block: NDArray[Any]) -> Tensor:
    """Return `block` as a tensor, which shares its memory where torch can; it is not to be written to."""
    if block.dtype.kind == "f" and block.dtype.itemsize > 8:
        block = block.astype(np.float64)
    if not _is_shareable(block):
        block = np.array(block, dtype=block.dtype.newbyteorder("="), order="C")
    return torch.from_numpy(block)


def _is_shareable(X: NDArray[Any]) -> bool:
    """Return whether torch can share the memory of `X`, and reads it in order."""
    # In one row or column, strides that torch refuses count as contiguous.
    strides = all(n >= 0 and n % X.dtype.itemsize == 0 for n in X.strides)
    return X.flags.c_contiguous and strides and X.flags.writeable and X.dtype.isnative


def blocks(X: NDArray[Any], index: NDArray[np.intp] | None = None) -> Iterator[NDArray[Any]]:
    """Yield the rows `index` of `X`, None being all, a few at a time and as they are."""
    n_samples = len(X) if index is None else len(index)
    step = max(1, _BLOCK_ENTRIES // X.shape[1])
    for start in range(0, n_samples, step):
        rows = slice(start, start + step)
        yield X[rows if index is None else index[rows]]
