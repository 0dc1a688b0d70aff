"""Fashion-MNIST: found, verified, downloaded; never wrong silently."""

import gzip
import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from skvae import NormalVAETransformer, datasets
from skvae.datasets import fetch_fashion_mnist


def idx(magic, array):
    return b"".join(int(n).to_bytes(4, "big") for n in (magic, *array.shape)) + array.tobytes()


@pytest.fixture
def published(monkeypatch):
    """A Fashion-MNIST of 7 + 3 images, with its checksums in place of the published ones."""
    rng = np.random.RandomState(0)
    arrays, files = {}, {}
    for subset, stem, n in (("train", "train", 7), ("test", "t10k", 3)):
        images = rng.randint(0, 256, size=(n, 28, 28), dtype=np.uint8)
        labels = rng.randint(0, 10, size=n, dtype=np.uint8)
        arrays[subset] = (images, labels)
        files[subset] = tuple(
            (name, magic, array.shape, hashlib.sha256(idx(magic, array)).hexdigest())
            for name, magic, array in (
                (f"{stem}-images-idx3-ubyte", 2051, images),
                (f"{stem}-labels-idx1-ubyte", 2049, labels),
            )
        )
    monkeypatch.setattr(datasets, "_FILES", files)
    monkeypatch.setattr(datasets, "fetch_openml", lambda *args, **kwargs: pytest.fail("tried to download"))
    return arrays


@pytest.fixture(params=["plain", "compressed"])
def home(request, tmp_path, published):
    """A data home with the four idx files in it."""
    folder = tmp_path / "fashion-mnist"
    folder.mkdir()
    for subset, arrays in published.items():
        for (name, magic, *_), array in zip(datasets._FILES[subset], arrays, strict=True):
            content = idx(magic, array)
            if request.param == "plain":
                (folder / name).write_bytes(content)
            else:
                (folder / f"{name}.gz").write_bytes(gzip.compress(content))
    return tmp_path


def test_bunch(home, published):
    bunch = fetch_fashion_mnist(data_home=home)
    assert set(bunch) == {"data", "images", "target", "target_names", "DESCR"}
    assert bunch.images.shape == (10, 28, 28)
    assert bunch.images.dtype == np.uint8
    assert bunch.target.dtype == np.int64
    assert len(bunch.target_names) == 10
    assert "Fashion-MNIST" in bunch.DESCR
    np.testing.assert_array_equal(bunch.data, bunch.images.reshape(10, 784))
    np.testing.assert_array_equal(bunch.images[:7], published["train"][0])
    np.testing.assert_array_equal(bunch.target[7:], published["test"][1])


@pytest.mark.parametrize(("subset", "n"), [("train", 7), ("test", 3), ("all", 10)])
def test_subset_and_dtype(home, subset, n):
    X, y = fetch_fashion_mnist(data_home=home, subset=subset, return_X_y=True, dtype="float32")
    assert X.shape == (n, 784)
    assert y.shape == (n,)
    assert X.dtype == np.float32
    assert X.max() > 200
    X[:] = 0  # the caller's own


def test_where_the_data_home_is(home, monkeypatch, tmp_path):
    monkeypatch.setenv("SKVAE_DATA_HOME", str(home))
    assert len(fetch_fashion_mnist().data) == 10
    monkeypatch.setenv("SKVAE_DATA_HOME", str(tmp_path / "elsewhere"))
    assert len(fetch_fashion_mnist(data_home=str(home)).data) == 10
    monkeypatch.delenv("SKVAE_DATA_HOME")
    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(home))
    assert len(fetch_fashion_mnist().data) == 10


def stored(home, name):
    return next((home / "fashion-mnist").glob(f"{name}*"))


def rewrite(path, change):
    content = path.read_bytes()
    packed = path.suffix == ".gz"
    content = bytearray(gzip.decompress(content) if packed else content)
    change(content)
    path.write_bytes(gzip.compress(bytes(content)) if packed else bytes(content))


DAMAGE = {
    "a pixel": (lambda content: content.__setitem__(100, content[100] ^ 1), "has sha256"),
    "cut short": (lambda content: content.__delitem__(slice(-5, None)), "holds 5483 bytes instead of 5504"),
    "magic number": (
        lambda content: content.__setitem__(3, 1),
        "begins with 00000801, not with the magic number 00000803",
    ),
    "shape": (lambda content: content.__setitem__(7, 6), r"does not say in its header that its shape is \(7, 28, 28\)"),
    "empty": (lambda content: content.clear(), "magic number"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_an_altered_file_is_named(home, damage):
    change, message = DAMAGE[damage]
    path = stored(home, "train-images")
    rewrite(path, change)
    with pytest.raises(ValueError, match=message if damage != "cut short" else "bytes instead of") as caught:
        fetch_fashion_mnist(data_home=home)
    assert str(path) in str(caught.value)
    assert len(fetch_fashion_mnist(data_home=home, subset="test").data) == 3


def store_compressed_test_files(home, published):
    """Store the two files of the test subset; return the path of the images."""
    folder = home / "fashion-mnist"
    folder.mkdir()
    for (name, magic, *_), array in zip(datasets._FILES["test"], published["test"], strict=True):
        (folder / f"{name}.gz").write_bytes(gzip.compress(idx(magic, array)))
    return folder / "t10k-images-idx3-ubyte.gz"


def test_a_truncated_archive_is_named(tmp_path, published):
    path = store_compressed_test_files(tmp_path, published)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"t10k-images-idx3-ubyte\.gz cannot be read"):
        fetch_fashion_mnist(data_home=tmp_path, subset="test")


def test_a_damaged_archive_is_named(tmp_path, published):
    path = store_compressed_test_files(tmp_path, published)
    whole = path.read_bytes()
    for position in range(20, len(whole), 150):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x5A]) + whole[position + 1 :])
        with pytest.raises(ValueError, match=r"t10k-images-idx3-ubyte\.gz"):
            fetch_fashion_mnist(data_home=tmp_path, subset="test")


@pytest.mark.parametrize("dtype", ["int8", "bool", str, "datetime64[s]"])
def test_dtypes_that_cannot_hold_a_pixel(home, dtype):
    with pytest.raises(ValueError, match="dtype must be a number type that holds 0 to 255"):
        fetch_fashion_mnist(data_home=home, dtype=dtype)


def test_unknown_subset():
    with pytest.raises(ValueError, match="subset must be 'train', 'test' or 'all'; got 'validation'"):
        fetch_fashion_mnist(subset="validation")


def openml(published, alter=lambda pixels: None):
    pixels = np.concatenate([published[subset][0].reshape(-1, 784) for subset in ("train", "test")]).astype(float)
    labels = np.concatenate([published[subset][1] for subset in ("train", "test")]).astype(str)
    alter(pixels)
    return lambda *args, **kwargs: (pixels, labels.astype(object))


def test_download_is_kept(tmp_path, published, monkeypatch):
    monkeypatch.setattr(datasets, "fetch_openml", openml(published))
    first = fetch_fashion_mnist(data_home=tmp_path)
    assert sorted(path.name for path in (tmp_path / "fashion-mnist").iterdir()) == [
        "t10k-images-idx3-ubyte",
        "t10k-labels-idx1-ubyte",
        "train-images-idx3-ubyte",
        "train-labels-idx1-ubyte",
    ]
    monkeypatch.setattr(datasets, "fetch_openml", lambda *args, **kwargs: pytest.fail("downloaded again"))
    second = fetch_fashion_mnist(data_home=tmp_path)
    np.testing.assert_array_equal(first.images[7:], published["test"][0])
    np.testing.assert_array_equal(first.data, second.data)
    np.testing.assert_array_equal(first.target, second.target)


def test_a_download_of_something_else_is_not_kept(tmp_path, published, monkeypatch):
    monkeypatch.setattr(datasets, "fetch_openml", openml(published, lambda pixels: pixels.__setitem__((0, 0), 17)))
    with pytest.raises(ValueError, match="is not the published data: train-images-idx3-ubyte differs"):
        fetch_fashion_mnist(data_home=tmp_path)
    assert list((tmp_path / "fashion-mnist").iterdir()) == []


def test_a_download_that_fails_leaves_nothing(tmp_path, published, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(datasets, "fetch_openml", fail)
    with pytest.raises(OSError, match=r"fashion-mnist.*no network.*Put the four idx files there"):
        fetch_fashion_mnist(data_home=tmp_path)
    assert not (tmp_path / "fashion-mnist").exists()


@pytest.mark.parametrize("exception", [OSError("disk full"), KeyboardInterrupt()])
def test_a_download_cut_off_half_way_leaves_nothing_that_looks_whole(tmp_path, published, monkeypatch, exception):
    monkeypatch.setattr(datasets, "fetch_openml", openml(published))
    write_bytes = Path.write_bytes

    def cut_off(path, content):
        if "t10k-images" in path.name:
            write_bytes(path, content[:100])
            raise exception
        return write_bytes(path, content)

    monkeypatch.setattr(Path, "write_bytes", cut_off)
    with pytest.raises(type(exception)):
        fetch_fashion_mnist(data_home=tmp_path)
    left = sorted(path.name for path in (tmp_path / "fashion-mnist").iterdir())
    assert left == ["train-images-idx3-ubyte", "train-labels-idx1-ubyte"]
    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    assert len(fetch_fashion_mnist(data_home=tmp_path).data) == 10


@pytest.mark.skipif(
    not os.environ.get("SKVAE_DATA_HOME"), reason="needs the environment variable SKVAE_DATA_HOME to find the real data"
)
class TestRealData:
    def test_facts(self):
        bunch = fetch_fashion_mnist()
        assert bunch.data.shape == (70000, 784)
        assert bunch.data.dtype == np.uint8
        assert bunch.data[:60000].mean(dtype=float) == pytest.approx(72.940352, abs=1e-6)
        assert bunch.data[:60000].std(dtype=float) == pytest.approx(90.021182, abs=1e-6)
        assert (bunch.data[0].sum(), bunch.data[60000].sum()) == (76247, 33456)
        assert np.bincount(bunch.target).tolist() == [7000] * 10

    def test_latents_of_real_images_are_worth_something(self):
        X, y = fetch_fashion_mnist(subset="test", return_X_y=True)
        vae = NormalVAETransformer(max_iter=4, random_state=0).fit(X[:5000])
        classifier = LogisticRegression(max_iter=1000).fit(vae.transform(X[:5000]), y[:5000])
        assert classifier.score(vae.transform(X[5000:]), y[5000:]) > 0.7
        assert vae.score(X[5000:]) > NormalVAETransformer(max_iter=1, random_state=0).fit(X[:5000]).score(X[5000:])
