"""Sections of the benchmarks, on tiny data, and their tables."""

import json
import sys
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "examples" / "benchmarks"))

import anomalies
import growth
import report
import start
from panel_data import split
from panel_report import fill
from sklearn.decomposition import PCA


def cells(text):
    """Return the cells of the lines of the last table."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_a_fit_is_measured_by_part(monkeypatch):
    monkeypatch.setattr(torch, "set_num_threads", lambda n_threads: None)  # it would last
    measured = growth.fit(n_rows=300, n_features=12, n_components=2, batch_size=128)
    assert measured["n_rows"] == 300
    assert measured["megabytes_of_data"] == 300 * 12 * 4 / 1e6
    assert min(measured[part] for part in ("start", "epoch", "end")) > 0


def test_generated_rows_are_of_low_rank():
    singular_values = np.linalg.svd(growth.low_rank(2000, 40), compute_uv=False)
    assert singular_values[growth.RANK - 1] > 1.5 * singular_values[growth.RANK]
    assert singular_values[growth.RANK] < 1.5 * singular_values[-1]


def test_growth_is_told_for_a_row_of_an_epoch():
    parts = {"start": 0.1, "end": 0.2, "megabytes": 5.0, "megabytes_of_data": 1.0}
    figures = [
        {"varies": varies, "value": value, "n_rows": n_rows, "epoch": seconds, **parts}
        for varies, value, n_rows, seconds in (
            ("n_rows", 1000, 1000, 1.0),
            ("n_rows", 10_000, 10_000, 5.0),
            ("n_features", 10, 1000, 2.0),
            ("n_features", 100, 1000, 30.0),
        )
    ]
    assert [line[5] for line in cells(report.growth(figures))] == ["1", "0.5", "1", "15"]


def test_the_start_is_measured_beside_an_epoch(monkeypatch):
    X = growth.low_rank(400, 12)
    monkeypatch.setattr(start, "SETS", {"a table": (lambda: start.to_unit(X), 2)})
    figures = start.measure(seconds=0)
    assert [line[:2] for line in cells(report.start(figures))] == [["a table", model] for model in start.MODELS]
    assert all(row["time_over_epoch"]["median"] > 0 for row in figures)
    assert X.min() == 0
    assert X.max() == 1


def test_the_tables_and_the_picture_are_made_of_the_results(tmp_path):
    results = json.loads((ROOT / "docs" / "results" / "benchmarks.json").read_text())
    (tmp_path / "results").mkdir()
    report.write(results, tmp_path)
    page = (tmp_path / "results" / "benchmarks.md").read_text()
    assert page == (ROOT / "docs" / "results" / "benchmarks.md").read_text()
    assert (tmp_path / "images" / "benchmarks.png").exists()


def test_a_detector_is_measured_by_what_it_finds_and_by_its_false_alarms():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(600, 2)) @ rng.normal(size=(2, 8)) + 0.1 * rng.normal(size=(600, 8))
    part = split(X, 2, anomalies=X[:200] + rng.normal(size=(200, 8))).part("test")
    for estimator in (PCA(2), anomalies.ReconstructionError(PCA(2))):
        found = anomalies.measure(estimator, part)
        assert found["auc"] > 0.99
        assert found["found"] > 0.9
        assert found["false_alarms"] < 0.05
    same = anomalies.measure(PCA(2), split(X, 2, anomalies=X).part("test"))
    assert 0.45 < same["auc"] < 0.55
    assert same["found"] < 0.05


def test_the_page_has_the_figures_of_detectors():
    docs = ROOT / "docs"
    sets = json.loads((docs / "results" / "anomalies.json").read_text())["sets"]
    assert list(sets) == list(anomalies.SETS)
    page = (docs / "guide" / "scores.md").read_text()
    assert fill(page, {"anomalies": anomalies.tables(sets)}) == page
