"""The regime comparison of the examples, on small data, and the page that its full run writes."""

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from torch import nn

from skvae import NormalVAETransformer
from skvae.classifiers import MultilayerCNNClassifier

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "examples"))

from study import full, models, quality, report

CLASSIFIERS = ("logistic", "simple_cnn", "multilayer_cnn")


@pytest.fixture
def options(tmp_path, monkeypatch):
    """A full run on the digits, as good as no training, in an empty folder."""
    load, digits = models.load, models.load("digits")
    monkeypatch.setattr(models, "load", lambda dataset: digits if dataset == "fashion-mnist" else load(dataset))
    return SimpleNamespace(output=tmp_path, epochs=1, classifier_epochs=2)


@pytest.fixture
def fits(monkeypatch):
    """The numbers of rows of all fits of the normal VAE."""
    sizes, fit = [], NormalVAETransformer.fit
    monkeypatch.setattr(NormalVAETransformer, "fit", lambda self, X, y=None: sizes.append(len(X)) or fit(self, X, y))
    return sizes


def test_the_plan_has_every_cell():
    cells = {(p.representation, p.regime) for p in full.plan() if p.protocol == "refit" and p.activation == "relu"}
    assert cells >= {(name, regime) for name in models.COMPARED for regime in models.REGIMES}
    assert len({piece.slug for piece in full.plan()}) == len(full.plan())


def test_a_run_goes_on_where_it_stopped(options, fits, monkeypatch):
    pieces = [full.Piece("normal_vae", regime, 0) for regime in ("large", "small")]
    pieces.append(full.Piece("normal_vae", "small", 0, "unlabeled-60000"))
    monkeypatch.setattr(full, "plan", lambda: pieces)

    def fail(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as interrupted:
        interrupted.setattr(models, "curves", fail)  # after the fits of the first piece, before it is kept
        with pytest.raises(KeyboardInterrupt):
            full.run(options)
    assert fits == [1437]
    full.run(options)
    # Each regime once; the third piece takes what the first one fitted.
    assert fits == [1437, 360]
    full.run(options)
    assert fits == [1437, 360]
    large, small, unlabeled = full.results(options)
    assert set(large["accuracy"]) == set(large["curves"]) == set(CLASSIFIERS)
    assert len(large["history"]["elbo"]) == 1
    assert len(large["curves"]["simple_cnn"]["loss"]) == 2
    assert small["accuracy"] != unlabeled["accuracy"]
    assert full.fit_representation(pieces[0], options)["samples"][1].shape == (10, 64)


def test_a_piece_is_what_pipelines_by_hand_give(options):
    measured = full.measure(full.Piece("pca", "small", 1, activation="identity"), options)
    X, y, cv = models.load("digits")
    train, test = full.split(cv, X, y, "small")
    assert len(train) < len(test)
    pca = models.representation("pca", "fashion-mnist", 1, 1)
    classifier = models.classifiers(2, 1, "identity")["multilayer_cnn"]
    score = classifier.fit(pca.fit_transform(X[train]), y[train]).score(pca.transform(X[test]), y[test])
    assert measured["accuracy"]["multilayer_cnn"] == score
    assert set(measured["accuracy"]) == {"simple_cnn", "multilayer_cnn"}


def test_rows_of_the_table():
    def piece(representation, seed, accuracy, **changes):
        refit = {"regime": "large", "protocol": "refit", "activation": "relu"}
        return {"representation": representation, "seed": seed, "accuracy": {"logistic": accuracy}} | refit | changes

    rows = full.table(
        [
            piece("pca", 0, 0.5, protocol="unlabeled-60000"),
            piece("pca", 0, 0.6, activation="identity"),
            piece("normal_vae, study, conv 512", 0, 0.7),
            piece("pca", 0, 0.8),
            piece("pca", 1, 0.9),
            piece("normal_vae, study", 0, 0.75),
        ]
    )
    names = [(row["representation"], row["classifier"], row["protocol"], row["seeds"], row["std"]) for row in rows]
    assert names == [
        ("pca", "logistic", "refit", 2, pytest.approx(0.05 * 2**0.5)),
        ("normal_vae, study", "logistic", "refit", 1, None),
        ("normal_vae, study, conv 512", "logistic", "refit", 1, None),
        ("pca", "logistic, activation=identity", "refit", 1, None),
        ("pca", "logistic", "unlabeled-60000", 1, None),
    ]
    assert rows[0]["accuracy"] == pytest.approx(0.85)


def test_the_representations_are_made_as_their_names_say():
    for name, (estimator, changes) in models.VAES.items():
        vae = models.representation(name, "digits", None, 0)
        defaults = estimator().get_params()
        given = {
            key for key, value in vae.get_params().items() if value is not defaults[key] and value != defaults[key]
        }
        assert ("study" in name) == bool(changes)
        assert given - {"random_state"} <= set(changes) | {"decoder", "data_range"}
        assert vae.max_iter == (200 if "study" in name else None)
        assert models.representation(name, "digits", 3, 0).max_iter == 3


@pytest.mark.filterwarnings("ignore:.* components are active")
@pytest.mark.parametrize("name", [name for name in models.VAES if "study" in name and "data_range" not in name])
def test_the_models_of_the_study_have_its_networks(name):
    X, _, _ = models.load("digits")
    vae = models.representation(name, "digits", 1, 0).fit(X[:256])
    sizes = {"dense 128": (128,), "dense 512": (512,), "conv 512": (512, 512)}
    own = "dense 128" if name.startswith("normal_vae") else "conv 512"
    hidden = sizes[name.split(", ")[2] if name.count(",") > 1 else own]
    n_outputs = 128 if name.startswith("normal_vae") else 64
    widths = [20, *hidden[::-1], n_outputs]
    linear = [layer for layer in vae.module_.decoder.modules() if isinstance(layer, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in linear] == list(pairwise(widths))
    assert any(isinstance(layer, nn.Sigmoid) for layer in vae.module_.decoder.modules()) == (n_outputs == 128)
    assert vae.prior_ is None
    if n_outputs == 128:  # the floor is 0.4 standard deviations of all pixels
        assert models.representation(name, "digits", 1, 0).fit(X).scale_ * vae.min_scale == pytest.approx(
            0.4 * X.std(), rel=1e-3
        )


def test_judging_a_model():
    X, y, _ = models.load("digits")
    X = np.pad(X.reshape(-1, 8, 8), ((0, 0), (2, 2), (2, 2))).reshape(len(X), -1)[:600] * 255 / 16
    y = y[:600]
    judging = MultilayerCNNClassifier(max_iter=5, random_state=0).fit(quality.unit(X[:400]), y[:400])
    pca = models.representation("pca", "fashion-mnist", 1, 0).fit(X[:400])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quality, "N_IMAGES", 300)
        measured = quality.judge(pca, judging, (X[:400], y[:400]), (X[400:], y[400:]))
        real = quality.real(judging, (X[:400], y[:400]), (X[400:], y[400:]))
    assert measured["frechet_of_reconstructions"] < measured["frechet_of_samples"]
    assert 0 < measured["mse"] < 0.05
    assert 0.5 < measured["ssim"] < 1
    assert measured["sharpness_of_reconstructions"] < real["sharpness"]
    assert measured["cas_of_samples"] > 0.3


def test_images_drawn_by_class_have_the_moments_of_their_class():
    X, y, _ = models.load("digits")
    pca = models.representation("pca", "digits", 1, 0).fit(X)
    images, labels = quality.draw_by_class(pca, X, y, 20000, 0)
    latents = pca.transform(X)
    for label in (0, 7):
        drawn = pca.transform(images[labels == label])
        np.testing.assert_allclose(drawn.mean(axis=0), latents[y == label].mean(axis=0), atol=0.05)
        np.testing.assert_allclose(np.cov(drawn.T), np.cov(latents[y == label].T), atol=0.05)


def test_the_page_has_the_tables_of_its_results():
    folder = ROOT / "docs" / "results"
    results, choices = (
        json.loads((folder / f"{name}.json").read_text()) for name in ("fashion_mnist", "regime_choices")
    )
    page = (folder / "fashion_mnist.md").read_text()
    assert report.fill(page, report.tables(results, choices)) == page
    # Models that have been measured are in the main table in every cell, ahead of everything else.
    measured = [name for name in models.COMPARED if name in {row["representation"] for row in results["table"]}]
    assert {"pixels", "pca", "normal_vae, study", "continuous_bernoulli_vae, study"} <= set(measured)
    base = results["table"][: 6 * len(measured)]
    assert {row["protocol"] for row in base} == {"refit"}
    cells = [(row["representation"], row["classifier"], row["regime"]) for row in base]
    assert set(cells) == {(r, c, g) for r in measured for c in CLASSIFIERS for g in models.REGIMES}
    named = {row["representation"] for row in results["table"]} | {row["model"] for row in results["quality"]}
    assert named | {row["model"] for row in choices["models"]} <= {"pixels", "pca", "real images", *models.VAES}
    for block in report.tables(results, choices):
        assert f"<!-- begin {block} -->\n\n| " in page


@pytest.mark.slow
def test_the_main_job_writes_table_and_figures(tmp_path):
    script = ROOT / "examples" / "study" / "regime_comparison.py"
    options = ["--epochs", "2", "--classifier-epochs", "2", "--output", str(tmp_path)]
    subprocess.run([sys.executable, str(script), *options], check=True)
    figures = ["elbo", "reconstructions", "samples", "samples_by_epoch", *(f"curves_{name}" for name in CLASSIFIERS)]
    assert {path.name for path in tmp_path.iterdir()} == {"table.csv", *(f"{name}.png" for name in figures)}
