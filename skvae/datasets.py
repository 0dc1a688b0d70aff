"""Fashion-MNIST, from verified idx files or from OpenML."""

import gzip
import hashlib
import importlib.util
import os
import zlib
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import DTypeLike, NDArray
from sklearn.datasets import fetch_openml, get_data_home
from sklearn.utils import Bunch

__all__ = ["fetch_fashion_mnist"]

_FOLDER = "fashion-mnist"
_IMAGES_MAGIC, _LABELS_MAGIC = 2051, 2049

# Name, magic number, shape, and sha256 of the uncompressed bytes.
_IdxFile = tuple[str, int, tuple[int, ...], str]

# The files of each subset: images, labels.
_FILES: dict[str, tuple[_IdxFile, _IdxFile]] = {
    "train": (
        (
            "train-images-idx3-ubyte",
            _IMAGES_MAGIC,
            (60000, 28, 28),
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        ),
        (
            "train-labels-idx1-ubyte",
            _LABELS_MAGIC,
            (60000,),
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        ),
    ),
    "test": (
        (
            "t10k-images-idx3-ubyte",
            _IMAGES_MAGIC,
            (10000, 28, 28),
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        ),
        (
            "t10k-labels-idx1-ubyte",
            _LABELS_MAGIC,
            (10000,),
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
    ),
}

_TARGET_NAMES = [
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
]

_DESCR = """\
Fashion-MNIST
-------------

70,000 grayscale images of articles of clothing, in 10 classes of equal size. Each has 28 x 28 pixels from 0 to 255.
The subset "train" has 60,000 images, and the subset "test" has 10,000.

H. Xiao, K. Rasul and R. Vollgraf, "Fashion-MNIST: a novel image dataset for benchmarking machine learning
algorithms", arXiv:1708.07747, 2017. MIT license.
"""


def _path(folder: Path, name: str) -> Path:
    """Return the path of an idx file: of the compressed one if only this is there, otherwise of the plain one."""
    plain, compressed = folder / name, folder / f"{name}.gz"
    return compressed if compressed.is_file() and not plain.is_file() else plain


def _header(magic: int, shape: tuple[int, ...]) -> bytes:
    """Return the first bytes of an idx file."""
    return b"".join(number.to_bytes(4, "big") for number in (magic, *shape))


def _read(path: Path, magic: int, shape: tuple[int, ...], digest: str) -> NDArray[np.uint8]:
    """Return the array in the idx file at `path`, after a check of header, size and sha256."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(
            f"{path} cannot be read: {error}. Replace the file, or delete it to fetch it again."
        ) from error
    header = _header(magic, shape)
    size = len(header) + int(np.prod(shape))
    fault = None
    if content[:4] != header[:4]:
        fault = f"begins with {content[:4].hex() or 'nothing'}, not with the magic number {header[:4].hex()}"
    elif content[: len(header)] != header:
        fault = f"does not say in its header that its shape is {shape}"
    elif len(content) != size:
        fault = f"holds {len(content)} bytes instead of {size}"
    elif (found := hashlib.sha256(content).hexdigest()) != digest:
        fault = f"has sha256 {found} instead of {digest}"
    if fault:
        raise ValueError(f"{path} is not the file of Fashion-MNIST: uncompressed, it {fault}. Replace or delete it.")
    return np.frombuffer(content, np.uint8, offset=len(header)).reshape(shape).copy()


def _download(folder: Path) -> None:
    """Fetch the data from OpenML and keep them in `folder` as idx files. No file is ever there in part."""
    parser = "pandas" if importlib.util.find_spec("pandas") else "liac-arff"
    try:
        data, target = fetch_openml("Fashion-MNIST", version=1, return_X_y=True, as_frame=False, parser=parser)
    except OSError as error:
        raise OSError(
            f"Fashion-MNIST is not in {folder}, and it could not be downloaded from OpenML: {error}. Put the four idx "
            f"files there, or name the folder above theirs by data_home or SKVAE_DATA_HOME."
        ) from error
    pixels, labels = np.asarray(data).astype(np.uint8), np.asarray(target).astype(np.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    start = 0
    for subset in ("train", "test"):
        stop = start + _FILES[subset][0][2][0]
        for (name, magic, shape, digest), array in zip(_FILES[subset], (pixels, labels), strict=True):
            content = _header(magic, shape) + array[start:stop].tobytes()
            if hashlib.sha256(content).hexdigest() != digest:
                raise ValueError(
                    f"What OpenML delivered as Fashion-MNIST is not the published data: {name} differs. Nothing of it "
                    f"was kept. Put the four idx files into {folder} by hand."
                )
            part = folder / f"{name}.{os.getpid()}.part"
            try:
                part.write_bytes(content)
                part.replace(folder / name)
            finally:
                part.unlink(missing_ok=True)
        start = stop


@overload
def fetch_fashion_mnist(
    *,
    data_home: str | os.PathLike[str] | None = None,
    subset: Literal["train", "test", "all"] = "all",
    return_X_y: Literal[False] = False,
    dtype: DTypeLike = "uint8",
) -> Bunch: ...


@overload
def fetch_fashion_mnist(
    *,
    data_home: str | os.PathLike[str] | None = None,
    subset: Literal["train", "test", "all"] = "all",
    return_X_y: Literal[True],
    dtype: DTypeLike = "uint8",
) -> tuple[NDArray[Any], NDArray[np.int64]]: ...


def fetch_fashion_mnist(
    *,
    data_home: str | os.PathLike[str] | None = None,
    subset: Literal["train", "test", "all"] = "all",
    return_X_y: bool = False,
    dtype: DTypeLike = "uint8",
) -> Bunch | tuple[NDArray[Any], NDArray[np.int64]]:
    """Load the Fashion-MNIST images and labels. Download them if they are not there.

    The folder ``fashion-mnist`` of the data home holds the four idx files, plain or compressed with gzip. If a file is
    missing that is needed, the data are fetched from OpenML and kept there. The magic number, the shape and the sha256
    of each file are verified.

    Parameters
    ----------
    data_home : str or path-like, default=None
        The folder that holds ``fashion-mnist``. None takes the environment variable ``SKVAE_DATA_HOME``. If it is not
        set, None takes scikit-learn's data home.
    subset : {"train", "test", "all"}, default="all"
        The 60,000 training images, the 10,000 test images, or all in this order.
    return_X_y : bool, default=False
        Whether to return ``(data, target)`` instead of a Bunch.
    dtype : str or dtype, default="uint8"
        Type of the pixels. Their values are 0 to 255 for each type.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        A dictionary-like object with

        data : ndarray of shape (n_samples, 784)
            The pixels, row by row.
        images : ndarray of shape (n_samples, 28, 28)
            The same as images.
        target : ndarray of shape (n_samples,), int64
            The classes, 0 to 9.
        target_names : list of str
            The names of the ten classes.
        DESCR : str
            A description of the data.
    (data, target) : tuple if `return_X_y` is True
        Pixels and classes.

    Raises
    ------
    ValueError
        When `subset` is unknown, `dtype` cannot hold the pixels, or a file is truncated or altered.
    OSError
        When the data are not there and cannot be downloaded or stored.

    Examples
    --------
    >>> from skvae.datasets import fetch_fashion_mnist
    >>> X, y = fetch_fashion_mnist(subset="test", return_X_y=True)  # doctest: +SKIP
    >>> X.shape  # doctest: +SKIP
    (10000, 784)
    """
    if subset not in ("train", "test", "all"):
        raise ValueError(f"subset must be 'train', 'test' or 'all'; got {subset!r}.")
    if np.dtype(dtype).kind not in "uif" or not np.can_cast(np.uint8, dtype):
        raise ValueError(f"dtype must be a number type that holds 0 to 255; got {dtype!r}.")
    home = data_home if data_home is not None else os.environ.get("SKVAE_DATA_HOME") or get_data_home()
    folder = Path(home).expanduser() / _FOLDER
    subsets = ("train", "test") if subset == "all" else (subset,)
    files = [file for name in subsets for file in _FILES[name]]
    if not all(_path(folder, name).is_file() for name, *_ in files):
        _download(folder)
    arrays = [_read(_path(folder, name), magic, shape, digest) for name, magic, shape, digest in files]
    images = np.concatenate(arrays[::2]).astype(dtype, copy=False)
    target = np.concatenate(arrays[1::2]).astype(np.int64)
    data = images.reshape(len(images), -1)
    if return_X_y:
        return data, target
    return Bunch(data=data, images=images, target=target, target_names=list(_TARGET_NAMES), DESCR=_DESCR)
