"""The pieces of the full run, what each is measured on, and the representations that they share.

A piece is what one measure finds of one representation in one regime with one seed.
"""

import os
import time
from dataclasses import asdict, dataclass, replace

import joblib

from skvae.callbacks import SampleMonitor
from study import models

# How many seeds each representation has in the large and in the small regime.
SEEDS = {
    "pixels": (3, 3),
    "pca": (3, 3),
    "normal_vae": (3, 3),
    "continuous_bernoulli_vae": (3, 3),
    "normal_vae, study": (3, 3),
    "continuous_bernoulli_vae, study": (2, 3),
    "normal_vae, dense 512": (1, 3),
    "continuous_bernoulli_vae, dense 512": (1, 3),
    **{name: (0, 3) for name in models.VAES if ", study, default" in name},
    "normal_vae, study, dense 512": (1, 3),
    "normal_vae, study, conv 512": (0, 1),
    "continuous_bernoulli_vae, study, dense 128": (1, 3),
    "continuous_bernoulli_vae, study, data_range=(-4, 259)": (0, 1),
    "continuous_bernoulli_vae, study, dense 128, data_range=(-4, 259)": (1, 3),
}


@dataclass(frozen=True)
class Piece:
    """What one measure finds.

    Attributes
    ----------
    representation : str
        Its name.
    regime : {"large", "small"}
        What the classifiers are trained on, the larger or the smaller part of the images; they are tested on the other.
    seed : int
        Seed of representation and classifiers.
    protocol : {"refit", "unlabeled", "again"}
        Whether the representation is fitted to the regime's training images, or without labels to the larger part.
        "again" is "refit" where an earlier run has measured the same.
    measure : {"accuracy", "identity", "neighbors", "few labels", "quality"}
        Accuracies under the three classifiers; under the CNNs without an activation after the convolution; under
        nearest neighbors; with few labels; quality of samples and reconstructions.
    """

    representation: str
    regime: str
    seed: int
    protocol: str = "refit"
    measure: str = "accuracy"

    def __str__(self):
        """Return all that tells it from others."""
        return ", ".join(map(str, asdict(self).values()))

    @property
    def slug(self):
        """A name for files."""
        return "".join(c if c.isalnum() or c == "-" else "_" for c in str(self))

    @property
    def fit(self):
        """The representation, what it is fitted to, and the seed."""
        return self.representation, "large" if self.protocol == "unlabeled" else self.regime, self.seed


def plan():
    """Return the pieces, the most wanted first."""
    refit = [
        Piece(name, regime, seed)
        for seed in range(3)
        for name in SEEDS
        for regime, n_seeds in zip(models.REGIMES, SEEDS[name], strict=True)
        if seed < n_seeds
    ]
    unlabeled = [
        Piece(piece.representation, "small", piece.seed, "unlabeled")
        for piece in refit
        if piece.regime == "large" and piece.representation != "pixels"
    ]
    again = [
        Piece(name, regime, 0, "again")
        for name in models.COMPARED
        for regime in models.REGIMES
        if name == "pixels" or "study" in name
    ]
    compared = [piece for piece in refit + unlabeled if piece.representation in models.COMPARED]
    first = [piece for piece in compared if piece.seed == 0]
    others = [piece for piece in compared if piece.seed > 0 and piece.representation in models.REPRESENTATIONS[2:]]
    return [
        *refit,
        *unlabeled,
        *again,
        *(replace(piece, measure="neighbors") for piece in first + others),
        *(replace(piece, measure="quality") for piece in first if piece.protocol == "refit"),
        *(Piece(name, "large", seed, measure="few labels") for seed in range(2) for name in models.REPRESENTATIONS),
        *(replace(piece, measure="identity") for piece in first if piece.protocol == "refit"),
    ]


def split(cv, X, y, regime):
    """Return the training and the test rows of a regime."""
    return list(cv.split(X, y))[models.REGIMES.index(regime)]


def keep(path, write):
    """Let `write` write a file, and put it in its place when it is whole."""
    part = path.with_suffix(f".{os.getpid()}.part")  # several processes may write the same
    write(part)
    part.replace(path)


def fit_representation(name, regime, seed, options):
    """Return the fitted representation, the seconds it took and the samples by epoch of a VAE.

    What has been fitted is not fitted again.
    """
    path = options.output / f"{Piece(name, regime, seed).slug}.joblib"
    if not path.exists():
        X, y, cv = models.load(options.dataset)
        train, _ = split(cv, X, y, regime)
        transformer = models.representation(name, options.dataset, options.epochs, seed)
        monitor = SampleMonitor(epochs=(1, 5, 20, 50, 100, 200), random_state=0)
        is_vae = name in models.VAES
        if is_vae:
            transformer.set_callbacks(monitor)
        start = time.perf_counter()
        transformer.fit(X[train])
        kept = {"seconds": time.perf_counter() - start}
        if is_vae:
            transformer.set_callbacks()
            kept["samples"] = monitor.get_samples()[0]
        keep(path, lambda part: joblib.dump({"fitted": transformer, **kept}, part))
    return joblib.load(path)


def piece_path(piece, options):
    """Return where the measurements of a piece are kept."""
    return options.output / f"{piece.slug}.json"


def picture_path(piece, options):
    """Return where images of a model are kept, for pictures."""
    return options.output / f"{piece.slug}.npz"
