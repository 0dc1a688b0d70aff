"""Fashion-MNIST, from idx files that are verified, or from OpenML."""

import gzip
import hashlib
import importlib.util
import os
import zlib
from pathlib import Path

import numpy as np
from sklearn.datasets import fetch_openml, get_data_home
from sklearn.utils import Bunch

__all__ = ["fetch_fashion_mnist"]

_FOLDER = "fashion-mnist"
_IMAGES_MAGIC, _LABELS_MAGIC = 2051, 2049

# Name, magic number, shape and sha256 of the uncompressed bytes of the idx files of each subset: images, labels.
_FILES = {
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

70,000 grey-scale images of articles of clothing, 28 x 28 pixels of 0 to 255 each, in 10 classes of equal size:
60,000 in the subset "train" and 10,000 in the subset "test".

H. Xiao, K. Rasul and R. Vollgraf, "Fashion-MNIST: a novel image dataset for benchmarking machine learning
algorithms", arXiv:1708.07747, 2017. MIT licence.
"""


def _find(folder, name):
    """Return the path of an idx file, plain or compressed, or None."""
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def _read(path, magic, shape, digest):
    """Return the array in the idx file at `path` after checking everything that can be checked."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(
            f"{path} cannot be read: {error}. Replace the file, or delete it to fetch it again."
        ) from error
    header = b"".join(number.to_bytes(4, "big") for number in (magic, *shape))
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


def _download(folder):
    """Fetch the data from OpenML and keep it in `folder` as idx files, each whole or not there at all."""
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
            header = b"".join(number.to_bytes(4, "big") for number in (magic, *shape))
            content = header + array[start:stop].tobytes()
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


def fetch_fashion_mnist(*, data_home=None, subset="all", return_X_y=False, dtype="uint8"):
    """Load the Fashion-MNIST images and labels, downloading them when they are not there.

    The four idx files, plain or compressed with gzip, are looked for in the folder ``fashion-mnist`` of the data home.
    If one that is needed is missing, the data are fetched from OpenML and kept there. Every file is verified: magic
    number, shape and sha256.

    Parameters
    ----------
    data_home : str or path-like, default=None
        The folder that holds ``fashion-mnist``. None takes the environment variable ``SKVAE_DATA_HOME`` or, when that
        is not set, scikit-learn's data home.
    subset : {"train", "test", "all"}, default="all"
        The 60,000 training images, the 10,000 test images, or both in this order.
    return_X_y : bool, default=False
        Whether to return ``(data, target)`` instead of a Bunch.
    dtype : str or dtype, default="uint8"
        Type of the pixels, whose values are 0 to 255 in any case.

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
        The first and the third of these.

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
    if any(_find(folder, name) is None for name, *_ in files):
        _download(folder)
    arrays = [_read(_find(folder, name), *checks) for name, *checks in files]
    images = np.concatenate(arrays[::2]).astype(dtype, copy=False)
    target = np.concatenate(arrays[1::2]).astype(np.int64)
    data = images.reshape(len(images), -1)
    if return_X_y:
        return data, target
    return Bunch(data=data, images=images, target=target, target_names=list(_TARGET_NAMES), DESCR=_DESCR)
