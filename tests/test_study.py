"""The regime comparison of the examples, on small data, and the page that its full run writes."""

import json
import re
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

from study import few_labels, full, models, quality, regime_comparison, report
from study.pieces import Piece, fit_representation, piece_path, plan, split

CLASSIFIERS = ("logistic", "simple_cnn", "multilayer_cnn")


@pytest.fixture
def options(tmp_path):
    """A full run on the digits, as good as no training, in an empty folder."""
    return SimpleNamespace(dataset="digits", output=tmp_path, epochs=1, classifier_epochs=2, only="", jobs=1)


@pytest.fixture
def fits(monkeypatch):
    """The numbers of rows of all fits of the normal VAE."""
    sizes, fit = [], NormalVAETransformer.fit
    monkeypatch.setattr(NormalVAETransformer, "fit", lambda self, X, y=None: sizes.append(len(X)) or fit(self, X, y))
    return sizes


def test_the_plan_has_every_cell():
    pieces = plan()
    every = {(name, regime) for name in models.COMPARED for regime in models.REGIMES}
    for measure in ("accuracy", "neighbors", "quality"):
        assert {(p.representation, p.regime) for p in pieces if (p.protocol, p.measure) == ("refit", measure)} >= every
    seeds = {name: {p.seed for p in pieces if p.fit[:2] == (name, "small")} for name in models.VAES}
    assert all(len(seeds[name]) == 3 for name in seeds if "default" in name or "study" not in name)
    assert len({piece.slug for piece in pieces}) == len(pieces)


def test_a_run_goes_on_where_it_stopped(options, fits, monkeypatch):
    pieces = [Piece("normal_vae", regime, 0) for regime in ("large", "small")]
    pieces.append(Piece("normal_vae", "small", 0, "unlabeled"))
    monkeypatch.setattr(full, "plan", lambda: pieces)
    monkeypatch.setattr(full, "N_POINTS", 10)

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
    assert large["few_test_elbo"] < large["few_test_bound"]
    assert fit_representation(*pieces[0].fit, options)["samples"][1].shape == (10, 64)


def test_a_piece_is_what_pipelines_by_hand_give(options):
    measured = full.measure(Piece("pca", "small", 1, measure="identity"), options)
    X, y, cv = models.load("digits")
    train, test = split(cv, X, y, "small")
    assert len(train) < len(test)
    pca = models.representation("pca", "digits", 1, 1)
    classifier = models.classifiers(2, 1, "identity")["multilayer_cnn"]
    score = classifier.fit(pca.fit_transform(X[train]), y[train]).score(pca.transform(X[test]), y[test])
    assert measured["accuracy"]["multilayer_cnn"] == score
    assert set(measured["accuracy"]) == {"simple_cnn", "multilayer_cnn"}


def test_rows_of_the_table():
    def piece(representation, seed, accuracy, **changes):
        refit = {"regime": "large", "protocol": "refit", "measure": "accuracy"}
        return {"representation": representation, "seed": seed, "accuracy": {"logistic": accuracy}} | refit | changes

    rows = full.table(
        [
            piece("pca", 0, 0.5, protocol="unlabeled"),
            piece("pca", 0, 0.6, measure="identity"),
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
        ("pca", "logistic", "unlabeled", 1, None),
    ]
    assert rows[0]["accuracy"] == pytest.approx(0.85)


def test_points_over_pca_and_cells_that_were_measured_again():
    def piece(representation, regime, accuracy, **changes):
        accuracies = dict(zip(CLASSIFIERS, accuracy, strict=True))
        fields = {"seed": 0, "protocol": "refit", "measure": "accuracy"}
        return {"representation": representation, "regime": regime, "accuracy": accuracies} | fields | changes

    measured = [
        piece("pca", "large", (0.5, 0.6, 0.7)),
        piece("pca", "small", (0.5, 0.6, 0.7)),
        piece("pca", "small", (0.6, 0.6, 0.7), protocol="unlabeled"),
        piece("normal_vae", "large", (0.51, 0.62, 0.73)),
        piece("normal_vae", "small", (0.51, 0.6, 0.69)),
        piece("normal_vae", "small", (0.62, 0.62, 0.74), protocol="unlabeled"),
        piece("normal_vae", "small", (0.51, 0.61, 0.69), protocol="again"),
    ]
    assert report.gains(full.table(measured)).splitlines()[2:] == [
        "| `normal_vae` | refit | +1.0, +2.0, +3.0, +1.0, +0.0, -1.0 | 4 of 6 | +1.00 |",
        "| `normal_vae` | unlabeled | +1.0, +2.0, +3.0, +2.0, +2.0, +4.0 | 6 of 6 | +2.33 |",
    ]
    assert report.again(measured).splitlines()[2:] == [
        "| `normal_vae` | small | 0.5100 → 0.5100 | 0.6000 → 0.6100 | 0.6900 → 0.6900 |"
    ]


def test_the_representations_are_made_as_their_names_say():
    for name, (estimator, changes) in models.VAES.items():
        vae = models.representation(name, "digits", None, 0)
        defaults = estimator().get_params()
        given = {
            key for key, value in vae.get_params().items() if value is not defaults[key] and value != defaults[key]
        }
        assert bool(changes) == ("," in name)
        assert given - {"random_state"} <= set(changes) | {"decoder", "data_range"}
        assert vae.max_iter == (200 if "study" in name and "training" not in name else None)
        assert models.representation(name, "digits", 3, 0).max_iter == 3


def test_each_variant_has_one_thing_of_the_defaults():
    training = {"learning_rate", "learning_rate_init", "batch_size", "max_iter"}
    changed = {
        "decoder": {"decoder"},
        "decoder and start": {"decoder", "init"},
        "start": {"init"},
        "noise": {"noise"},
        "bound": {"min_scale"},
        "training": training,
    }
    variants = [name for name in models.VAES if ", study, default" in name]
    assert len(variants) == 8
    for name in variants:
        base, _, what = name.partition(", default ")
        defaults = models.VAES[name][0]().get_params()
        vae, study = (models.representation(n, "fashion-mnist", None, 0).get_params() for n in (name, base))
        differing = {key for key, value in vae.items() if key != "decoder" and value != study[key]}
        differing |= {"decoder"} if isinstance(vae["decoder"], str) != isinstance(study["decoder"], str) else set()
        assert differing == changed[what]
        assert {key: vae[key] for key in differing} == pytest.approx({key: defaults[key] for key in differing})


def is_variant_of_networks(name):
    """Return whether this is a model of the study, or one of its variants that differ in their networks."""
    return "study" in name and "data_range" not in name and "default" not in name


@pytest.mark.filterwarnings("ignore:.* components are active")
@pytest.mark.parametrize("name", list(filter(is_variant_of_networks, models.VAES)))
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


@pytest.fixture
def padded():
    """The digits as images of 12 x 12, which are large enough for structural similarity, with values up to 255."""
    X, y, _ = models.load("digits")
    X = np.pad(X.reshape(-1, 8, 8), ((0, 0), (2, 2), (2, 2))).reshape(len(X), -1)[:600] * 255 / 16
    return X, y[:600]


def test_judging_a_model(padded, monkeypatch):
    X, y = padded
    train, test = (X[:400], y[:400]), (X[400:], y[400:])
    judging = MultilayerCNNClassifier(max_iter=5, random_state=0).fit(models.to_unit(X[:400], 255), y[:400])
    pca = models.representation("pca", "fashion-mnist", 1, 0).fit(X[:400])
    monkeypatch.setattr(quality, "N_IMAGES", 300)
    measured, images = quality.of_model(pca, judging, train, test, 255, 0)
    real = quality.of_real_images(judging, train, test, 255)
    frechet, cas, sharpness = (measured[name] for name in ("frechet", "cas", "sharpness"))
    assert 0 < frechet["reconstructed"] < frechet["mixture"] < frechet["normal"]
    assert cas["class mixtures"] > 0.3
    assert cas["reconstructed"] > 0.3
    assert 0 < measured["mse"] < 0.05
    assert 0.5 < measured["ssim"] < 1
    assert sharpness["reconstructed"] < real["sharpness"]["real"]
    assert {name: rows.shape for name, rows in images.items()} == {
        **dict.fromkeys(("reconstructed", "mixture", "normal"), (64, 144)),
        "class mixtures": (100, 144),
    }


def test_images_drawn_by_class_have_the_moments_of_their_class():
    X, y, _ = models.load("digits")
    pca = models.representation("pca", "digits", 1, 0).fit(X)
    images, labels = quality.draw_by_class(pca, X, y, 20000, (1,), 0)
    latents = pca.transform(X)
    for label in (0, 7):
        drawn = pca.transform(images[labels == label])
        # One normal distribution, fitted to four fifths of the images of the class.
        np.testing.assert_allclose(drawn.mean(axis=0), latents[y == label].mean(axis=0), atol=0.1)
        np.testing.assert_allclose(np.cov(drawn.T), np.cov(latents[y == label].T), atol=0.15)


def test_a_mixture_has_as_many_components_as_suit_the_draws():
    draws = np.random.RandomState(0).normal(size=(1000, 2))
    assert quality.fit_mixture(draws, (1, 3, 10), 0).n_components == 1
    draws[::3] += 6
    draws[1::3] -= 6
    assert quality.fit_mixture(draws, (1, 3, 10), 0).n_components == 3


def test_models_without_a_mixture_are_drawn_from_as_those_that_have_one():
    X, _, _ = models.load("digits")
    vae = NormalVAETransformer(5, max_iter=20, random_state=0).fit(X)
    plain = NormalVAETransformer(5, max_iter=20, prior="normal", random_state=0).fit(X)
    own, fitted = vae.transform(vae.sample(5000, random_state=0)), plain.transform(quality.draw(plain, X, 5000, 0))
    np.testing.assert_allclose(fitted.mean(axis=0), own.mean(axis=0), atol=0.15)
    np.testing.assert_allclose(np.cov(fitted.T), np.cov(own.T), atol=0.2)
    assert np.array_equal(quality.draw(vae, X, 3, 0), vae.sample(3, random_state=0))


def test_few_labels(options, monkeypatch):
    monkeypatch.setattr(few_labels, "N_STEPS", 2)
    measured = few_labels.measure(Piece("pca", "large", 1, measure="few labels"), options)["few_labels"]
    assert set(measured) == {"logistic", "neighbors", "multilayer_cnn"}
    logistic = measured["logistic"]
    assert {n_labels: len(set(accuracies)) > 1 for n_labels, accuracies in logistic.items()} == dict.fromkeys(
        ("100", "300", "1000"), True
    )
    assert np.mean(logistic["100"]) < np.mean(logistic["1000"])


def test_a_run_in_several_processes_takes_over_what_an_earlier_one_has(options, tmp_path):
    options.jobs, options.only = 2, "^(pixels|pca), .*(accuracy|neighbors)"
    earlier = Piece("pixels", "small", 2)
    path = tmp_path / "earlier.json"
    judged = Piece("pca", "small", 0, measure="quality")
    rows = [{**earlier.__dict__, "accuracy": {"logistic": 0.5}}, {**judged.__dict__, "quality": {}}]
    path.write_text(json.dumps({"pieces": rows}))
    full.take_over(path, options)
    assert not piece_path(judged, options).exists()
    full.run(options)
    measured = {Piece(*list(row.values())[:5]): row for row in full.results(options)}
    assert {piece.measure for piece in measured} == {"accuracy", "neighbors"}
    assert measured.pop(earlier) == rows[0] | {"earlier": True}
    assert not any("earlier" in row for row in measured.values())
    again, first = (measured[Piece("pixels", "small", 0, protocol)] for protocol in ("again", "refit"))
    assert again["accuracy"] == first["accuracy"]


def test_a_fit_that_diverges_is_part_of_the_results(options, monkeypatch):
    monkeypatch.setattr(full, "plan", lambda: [Piece("normal_vae", "small", 0), Piece("pca", "small", 0)])

    def diverge(self, X, y=None):
        raise ValueError("Training diverged in epoch 3: too bad.")

    monkeypatch.setattr(NormalVAETransformer, "fit", diverge)
    full.run(options)
    diverged, pca = full.results(options)
    assert diverged["diverged"].startswith("Training diverged in epoch 3")
    assert pca["accuracy"]
    assert {row["representation"] for row in full.table([diverged, pca])} == {"pca"}

    def fail(self, X, y=None):
        raise ValueError("another thing")

    monkeypatch.setattr(NormalVAETransformer, "fit", fail)
    piece_path(Piece("normal_vae", "small", 0), options).unlink()
    with pytest.raises(ValueError, match="another thing"):
        full.run(options)


@pytest.mark.parametrize("name", ["fashion_mnist", "fashion_mnist_study"])
def test_the_pages_have_the_tables_of_their_results(name):
    folder = ROOT / "docs" / "results"
    results, choices = (json.loads((folder / f"{file}.json").read_text()) for file in (name, "regime_choices"))
    page = (folder / f"{name}.md").read_text()
    blocks = report.tables(results, choices)
    assert report.fill(page, blocks) == page
    assert set(re.findall("<!-- begin (.*) -->", page)) <= set(blocks)
    for block in blocks:
        assert f"<!-- begin {block} -->\n\n| " in page or f"<!-- begin {block} -->" not in page
    named = {row["representation"] for row in results["pieces"]} | {row["model"] for row in choices["models"]}
    assert named <= {"pixels", "pca", *models.VAES}


def test_every_table_is_on_a_page():
    folder = ROOT / "docs" / "results"
    results, choices = (
        json.loads((folder / f"{name}.json").read_text()) for name in ("fashion_mnist", "regime_choices")
    )
    pages = (folder / "fashion_mnist.md").read_text() + (folder / "fashion_mnist_study.md").read_text()
    assert all(f"<!-- begin {block} -->" in pages for block in report.tables(results, choices))


def test_the_results_have_every_cell_of_the_main_table_first():
    table = json.loads((ROOT / "docs" / "results" / "fashion_mnist.json").read_text())["table"]
    base = table[: 6 * len(models.COMPARED)]
    assert {row["protocol"] for row in base} == {"refit"}
    cells = [(row["representation"], row["classifier"], row["regime"]) for row in base]
    assert set(cells) == {(r, c, g) for r in models.COMPARED for c in CLASSIFIERS for g in models.REGIMES}


def test_two_sentences_say_what_one_sees_in_the_table():
    pd = pytest.importorskip("pandas")
    columns = pd.MultiIndex.from_product([CLASSIFIERS, models.REGIMES])
    table = pd.DataFrame(
        [[0.9] * 6, [0.8] * 6, [0.81] * 5 + [0.79], [0.7] * 6], index=models.REPRESENTATIONS, columns=columns
    )
    assert regime_comparison.in_words(table).splitlines() == [
        "On average the normal VAE is 0.7 points ahead of PCA, and ahead in 5 of 6 cells; "
        "the continuous Bernoulli VAE is 10.0 points behind PCA, and ahead in 0 of 6 cells.",
        "Pixels are 9.2 points ahead of the best of these, and ahead in 6 of 6 cells.",
    ]


@pytest.mark.slow
def test_the_main_job_writes_table_and_figures(tmp_path):
    script = ROOT / "examples" / "study" / "regime_comparison.py"
    options = ["--epochs", "2", "--classifier-epochs", "2", "--output", str(tmp_path)]
    subprocess.run([sys.executable, str(script), *options], check=True)
    figures = [
        "accuracies",
        "elbo",
        "reconstructions",
        "samples",
        "samples_by_epoch",
        *(f"curves_{name}" for name in CLASSIFIERS),
    ]
    assert {path.name for path in tmp_path.iterdir()} == {"table.csv", *(f"{name}.png" for name in figures)}
