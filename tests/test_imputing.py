"""The benchmark of imputation: holes, its measures, and a page that is made of its results."""

import json
import re
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "examples" / "benchmarks"))

import imputing
import imputing_report
import panel_data
from panel_report import fill

from skvae import NormalVAETransformer
from skvae.impute import VAEImputer


@pytest.fixture
def run(monkeypatch, tmp_path):
    """A function that runs the benchmark with arguments, into an empty folder, with VAEs as good as not trained."""
    short = partial(NormalVAETransformer, max_iter=1, hidden_layer_sizes=8, prior="normal")
    monkeypatch.setattr(imputing, "NormalVAETransformer", short)
    monkeypatch.setitem(imputing.IMPUTERS, "VAEImputer", lambda n_columns: VAEImputer(short(2), n_importance_samples=5))

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["imputing.py", "--output", str(tmp_path), *arguments])
        imputing.main()

    return run


@pytest.fixture
def holes():
    return imputing.Holes.of(panel_data.LOADERS["iris"]().part("validation"))


def test_holes_leave_an_entry_in_each_row_and_column():
    X = np.arange(2000.0).reshape(1000, 2)
    hidden = np.isnan(imputing.hide(X, np.random.default_rng(0)))
    assert 0.2 < hidden.mean() < 0.25
    assert not hidden.all(axis=1).any()
    assert not np.isnan(imputing.hide(X[:1], np.random.default_rng(0))).any(axis=1).all()


def test_columns_are_standardized_by_what_is_observed(holes):
    np.testing.assert_allclose(np.nanmean(holes.X, axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(np.nanstd(holes.X, axis=0), 1)
    for complete, X in ((holes.complete, holes.X), (holes.complete_held_out, holes.X_held_out)):
        np.testing.assert_array_equal(np.where(np.isnan(X), complete, X), complete)


def test_columns_that_hardly_vary_are_left_out():
    part = panel_data.LOADERS["digits"]().part("validation")
    kept = [np.unique(column, return_counts=True)[1].max() <= 0.95 * len(column) for column in part.X.T]
    assert sum(kept) < 64
    assert imputing.Holes.of(part).X.shape == (len(part.X), sum(kept))


def test_error_counts_hidden_entries_alone(holes):
    filled = holes.complete_held_out + np.where(np.isnan(holes.X_held_out), 0.5, 9)
    assert holes.error(filled) == pytest.approx(0.5)


def test_coverage_of_draws_of_the_truth(holes):
    rng = np.random.default_rng(0)
    truth = rng.normal(size=holes.X_held_out.shape)
    holes = imputing.Holes(**vars(holes) | {"complete_held_out": truth})
    draws = norm.ppf(np.linspace(0.005, 0.995, 100))[:, None, None] * np.ones_like(truth)
    inside = np.abs(truth[np.isnan(holes.X_held_out)]) < norm.ppf(0.95)
    assert holes.coverage(draws) == pytest.approx(inside.mean(), abs=0.02)
    assert holes.coverage(draws + 10) == 0


def test_a_run_goes_on_where_it_stopped(run, tmp_path):
    sets = ["--sets", "iris", "wine"]
    run(*sets, "--imputers", "SimpleImputer", "KNNImputer")
    path = tmp_path / "results" / "imputation.json"
    first = json.loads(path.read_text())["sets"]
    run(*sets)
    second = json.loads(path.read_text())["sets"]
    assert list(second) == ["iris", "wine"]
    for name, entry in second.items():
        assert list(entry["imputers"]) == list(imputing_report.IMPUTERS)
        assert first[name]["imputers"].items() <= entry["imputers"].items()
    assert second["iris"]["imputers"]["NormalVAETransformer"].keys() >= {"coverage", "logistic", "seconds_fit"}
    page = (tmp_path / "guide" / "missing_values.md").read_text()
    assert re.search(r"\| error below those of both rivals \| more than half \| \d of 2 \| \d of 2 \|", page)
    assert "\n| iris | 105 × 4, 2 | 0.99" in page
    run(*sets, "--imputers", "KNNImputer", "--fresh")
    third = json.loads(path.read_text())["sets"]
    assert third["iris"]["imputers"]["SimpleImputer"] == second["iris"]["imputers"]["SimpleImputer"]


def test_choices_are_made_elsewhere(run, tmp_path):
    run("--sets", "iris", "--part", "validation", "--imputers", "SimpleImputer")
    assert [path.name for path in tmp_path.rglob("*.*")] == ["imputation_validation.json"]


def test_targets():
    errors = {"SimpleImputer": 1.0, "KNNImputer": 0.6, "IterativeImputer": 0.5, "VAEImputer": 0.52}
    entry = {"imputers": {name: {"rmse": error} for name, error in errors.items()}}
    assert imputing_report.holds(entry, "VAEImputer")
    assert not imputing_report.leads(entry, "VAEImputer")
    assert not imputing_report.holds(entry, "SimpleImputer")
    entry["imputers"]["NormalVAETransformer"] = {"coverage": 0.9, "seconds_fit": 3.0, "seconds_fit_complete": 2.0}
    assert imputing_report.covers(entry)
    assert imputing_report.slowdown(entry) == 1.5


def test_the_page_is_made_of_the_results():
    page = (ROOT / "docs" / "guide" / "missing_values.md").read_text()
    blocks = imputing_report.blocks(json.loads((ROOT / "docs" / "results" / "imputation.json").read_text()))
    assert re.findall("<!-- begin (.*) -->", page) == re.findall("<!-- end (.*) -->", page) == list(blocks)
    assert fill(page, blocks) == page
