"""The panel of the examples, on a few small sets."""

import json
import re
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import multivariate_normal
from sklearn.decomposition import FactorAnalysis

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "examples" / "benchmarks"))

import panel
import panel_choices
import panel_data
import panel_measures
import panel_report
import panel_targets


@pytest.fixture
def fits(monkeypatch):
    """The names of all models that are fitted; they are as good as not trained."""
    names = []
    monkeypatch.setattr(panel_measures, "ROWS_OF_NARROW", 20)  # an importance bound takes longer than such a fit
    for name, estimator in panel.MODELS.items():
        short = partial(estimator, max_iter=1, hidden_layer_sizes=8)
        monkeypatch.setitem(
            panel.MODELS, name, lambda *k, short=short, name=name, **o: names.append(name) or short(*k, **o)
        )
    return names


@pytest.fixture
def run(monkeypatch, tmp_path):
    """A function that runs the panel with arguments, into an empty folder."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["panel.py", "--output", str(tmp_path), *arguments])
        panel.main()

    return run


@pytest.mark.parametrize("name", ["iris", "malignant tumors", "barometers", "broken entry"])
def test_shares_have_no_row_in_common(name):
    data = panel_data.LOADERS[name]()
    rows = [tuple(row) for X in data.X.values() for row in X]
    assert len(rows) - len(set(rows)) == (1 if name == "iris" else 0)  # iris has a row twice
    test, validation = (data.part(share) for share in ("test", "validation"))
    assert len(test.X) + len(test.X_held_out) == len(rows)
    assert len(validation.X) + len(validation.X_held_out) == len(test.X)
    if data.standardized:
        for part in (test, validation):
            np.testing.assert_allclose(part.X.mean(axis=0), 0, atol=1e-12)
            np.testing.assert_allclose(part.X.std(axis=0), 1)
    if test.anomalies is not None:
        assert test.anomalies.shape == validation.anomalies.shape
        assert not np.isin(data.anomalies["test"], data.anomalies["validation"]).all(axis=1).any()


def test_the_broken_entry_is_trained_on_by_every_part():
    data = panel_data.broken_entry()
    for share in ("validation", "test"):
        part = data.part(share)
        assert part.X.max() == 1e4
        assert part.X_held_out.max() < 100


def test_fashion_mnist_is_left_out_with_a_word(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("SKVAE_DATA_HOME", str(tmp_path))
    assert set(panel_data.LOADERS) - set(panel_data.data_sets()) == {"Fashion-MNIST"}
    assert "Fashion-MNIST is left out" in capsys.readouterr().out


def test_log_density_is_that_of_a_normal_distribution():
    part = panel_data.LOADERS["iris"]().part("validation")
    factors = FactorAnalysis(2, random_state=0).fit(part.X)
    centered = part.X_held_out - factors.mean_
    measured = panel_measures.log_density(centered, factors.components_, factors.noise_variance_)
    np.testing.assert_allclose(measured, factors.score_samples(part.X_held_out))
    noise = np.maximum(factors.noise_variance_, 0.1)
    covariance = factors.components_.T @ factors.components_ + np.diag(noise)
    measured = panel_measures.log_density(centered, factors.components_, noise)
    np.testing.assert_allclose(measured, multivariate_normal(cov=covariance).logpdf(centered))


def test_pca_without_a_floor_has_its_own_density():
    linear = panel_measures.LinearModels(panel_data.LOADERS["iris"]().part("test"))
    measured = linear.densities(0, linear.part.X_held_out)
    assert measured["pca"] == pytest.approx(linear.pca.score(linear.part.X_held_out), rel=1e-5)


def test_a_run_goes_on_where_it_stopped(run, fits, tmp_path, capsys):
    sets = ["--sets", "iris", "malignant tumors", "masks of digits"]
    run(*sets, "--models", "normal_vae")
    assert fits == ["normal_vae"] * 3
    first = json.loads((tmp_path / "results" / "panel.json").read_text())["sets"]
    run(*sets)
    # The continuous Bernoulli model is for values between two ends.
    assert fits == ["normal_vae"] * 3 + ["continuous_bernoulli_vae"]
    second = json.loads((tmp_path / "results" / "panel.json").read_text())["sets"]
    assert second["masks of digits"]["models"].pop("continuous_bernoulli_vae")["epochs"] == 1
    assert second == first
    page = (tmp_path / "panel.md").read_text()
    assert re.search(r"\| R² at least PCA's - 0.01 \| all \| \d of 3 \| \d of 1 \|", page)
    assert "\n| malignant tumors | 249 × 30, 5 | 0.80" in page
    assert (tmp_path / "images" / "panel.png").exists()
    run("--sets", "iris", "--models", "normal_vae", "--fresh")
    assert fits[4:] == ["normal_vae"]
    third = json.loads((tmp_path / "results" / "panel.json").read_text())["sets"]
    assert [len(entry["models"]) for entry in third.values()] == [1, 1, 2]


def test_an_experiment_takes_parameters_and_writes_nothing(run, fits, tmp_path, capsys):
    run("--part", "validation", "--sets", "iris", "--models", "normal_vae", "--options", '{"max_iter": 2}')
    assert fits == ["normal_vae"]
    assert re.search(r"^iris, normal VAE .* 2$", capsys.readouterr().out, re.M)
    assert not list(tmp_path.iterdir())
    with pytest.raises(SystemExit):
        run("--options", '{"max_iter": 2}')


def test_a_fit_that_fails_misses_every_target(run, fits, tmp_path):
    run("--sets", "iris", "--models", "normal_vae")
    (entry,) = json.loads((tmp_path / "results" / "panel.json").read_text())["sets"].values()
    entry["models"]["normal_vae"] = {"error": "ValueError: the loss is not finite"}
    counts = panel_targets.counts({"iris": entry}, "normal_vae")
    assert set(counts.values()) == {(0, 1)}
    assert "the loss is not finite" in panel_report.screen_row("iris", "normal_vae", entry)
    assert all(
        isinstance(block, str) for block in panel_report.blocks({"sets": {"iris": entry}, "machine": {}}).values()
    )
    panel_report.plot({"iris": entry}, tmp_path / "panel.png")


def test_targets():
    pca = {"r2": 0.9, "logistic": 0.8, "logistic_error": 0.02, "neighbors": 0.8, "neighbors_error": 0.02}
    entry = {"linear": {"pca": pca, "auc": {"a": 0.7, "b": 0.9}}}
    vae = {"r2": 0.895, "density": -10.05, "rows_outside": 0, "rivals": {"factor_analysis": -10}, "auc": 0.9}
    vae |= {"logistic": 0.79, "logistic_error": 0.01, "neighbors": 0.81, "neighbors_error": 0.01, "warnings": ["a"]}
    held = [panel_targets.reached(name, entry, vae) for name in panel_targets.TARGETS]
    assert held == [True, False, True, True, True, False, True, True, False]
    assert not panel_targets.reached(panel_targets.DENSITY, entry, vae | {"density": -10.2})
    assert not panel_targets.reached(panel_targets.DENSITY, entry, vae | {"rows_outside": 1})
    assert not panel_targets.reached(panel_targets.R2, entry, vae | {"r2": 0.88})
    assert not panel_targets.reached(panel_targets.ACCURACY["logistic"], entry, vae | {"logistic": 0.77})


def test_the_page_has_a_place_for_every_block():
    page = (ROOT / "docs" / "panel.md").read_text()
    blocks = panel_report.blocks({"sets": {}, "machine": {}})
    places = re.findall("<!-- begin (.*) -->", page)
    assert places == re.findall("<!-- end (.*) -->", page) == [*blocks, *panel_choices.blocks({})]


def test_the_page_is_made_of_the_results():
    page = (ROOT / "docs" / "panel.md").read_text()
    results = ROOT / "docs" / "results"
    measured = panel_report.blocks(json.loads((results / "panel.json").read_text()))
    choices = panel_choices.blocks(json.loads((results / "panel_choices.json").read_text()))
    assert panel_report.fill(page, measured | choices) == page
