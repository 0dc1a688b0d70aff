"""Time to quality, on small sets."""

import json
import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "examples" / "benchmarks"))

import time_to_quality
import time_to_quality_report
from panel_data import Part
from plain_models import PlainModel


@pytest.fixture
def run(monkeypatch, tmp_path):
    """A function that measures short fits of some digits, with arguments, into an empty folder."""
    X, y = load_digits(return_X_y=True)
    X = X.astype(np.uint8)
    part = Part(X[:200], X[200:300], 3, y[:200], y[200:300])
    monkeypatch.setattr(time_to_quality, "SETS", {"MNIST": lambda: part})
    monkeypatch.setattr(time_to_quality, "EPOCHS", (1, 3))
    # pythae may not be there, and the plain network of the other model is for images of 28 x 28.
    for name in ("normal_vae, pythae", "continuous_bernoulli_vae, pythae", "continuous_bernoulli_vae, plain loop"):
        monkeypatch.delitem(time_to_quality.CONTESTANTS, name)
    monkeypatch.setattr(torch, "set_num_threads", lambda n_threads: None)  # it would last

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["time_to_quality.py", "--output", str(tmp_path), *arguments])
        time_to_quality.main()
        (entry,) = json.loads((tmp_path / "results" / "time_to_quality.json").read_text())["sets"].values()
        return entry["curves"]

    return run


@pytest.mark.draws_globally  # in the plain loop
def test_a_run_goes_on_where_it_stopped(run, tmp_path):
    first = run("--epochs", "5", "--contestants", "pca", "normal_vae, earlier")
    assert list(first) == ["pca", "normal_vae, earlier"]
    curves = run("--epochs", "5")
    assert curves | first == curves
    assert {name: [point.get("epochs") for point in points] for name, points in curves.items()} == {
        "pca": [None],
        "normal_vae": [1, 3],
        "continuous_bernoulli_vae": [1, 3],
        "continuous_bernoulli_vae, earlier bound": [1, 3],
        "normal_vae, earlier": [1, 2, 5],
        "normal_vae, plain loop": [1, 2, 5],
        "continuous_bernoulli_vae, earlier": [1, 2, 5],
    }
    for name in ("normal_vae, earlier", "normal_vae, plain loop"):
        seconds = [point["seconds"] for point in curves[name]]
        assert seconds == sorted(seconds)
    for points in curves.values():
        assert all({"elbo", "r2", "accuracy"} <= set(point) for point in points)
    page = (tmp_path / "performance.md").read_text()
    assert re.search(r"\n\| MNIST, normal VAE \| \S+, 5 epochs \|", page)
    assert (tmp_path / "images" / "time_to_quality.png").exists()


def test_the_shortest_fit_that_gets_there_counts():
    today = [{"seconds": seconds, "r2": r2} for seconds, r2 in ((1, 0.5), (2, 0.7), (4, 0.6), (8, 0.8))]
    earlier = [{"seconds": 5, "r2": 0.9}, {"seconds": 20, "r2": 0.6}]
    assert time_to_quality_report.time_to(today, earlier, "r2") == "2 (0.1)"
    assert time_to_quality_report.time_to(today, earlier[:1], "r2") == "not reached ↓"
    assert time_to_quality_report.time_to(today, [{"seconds": 10, "r2": 0.6}], "r2") == "2 (0.2) ↓"
    assert time_to_quality_report.time_to(today, earlier, "accuracy") == ""


def test_each_set_keeps_its_machine(run, tmp_path, monkeypatch):
    run("--contestants", "pca")
    path = tmp_path / "results" / "time_to_quality.json"
    (here,) = json.loads(path.read_text())["sets"].values()
    elsewhere = here["machine"] | {"gpu": "a GPU"}
    monkeypatch.setattr(time_to_quality, "machine", lambda: elsewhere)
    run("--contestants", "pca")  # nothing is to be measured
    with pytest.raises(SystemExit, match="measured on another machine"):
        run("--contestants", "normal_vae")
    assert list(run("--contestants", "normal_vae", "--fresh")) == ["normal_vae"]
    (there,) = json.loads(path.read_text())["sets"].values()
    assert there["machine"] == elsewhere


def test_rows_say_where_they_were_measured():
    curves = {name: [{"seconds": 1, "epochs": 1, "elbo": 1, "r2": 1}] for name in ("normal_vae", "normal_vae, earlier")}
    curves["pca"] = [{"seconds": 1, "r2": 1}]
    sets = {
        name: {"machine": {"processor": processor, "gpu": gpu}, "curves": curves}
        for name, processor, gpu in (("iris", "A", None), ("wine", "A", None), ("MNIST", "B", "H"))
    }
    blocks = time_to_quality_report.blocks({"sets": sets})
    names = [line.split("|")[1].strip() for line in blocks["seconds to quality"].splitlines()[2:]]
    assert names == ["iris, normal VAE", "wine, normal VAE", "MNIST, normal VAE, on H"]
    assert blocks["quality"].endswith(
        "\niris; wine: measured on processor A.\n\nMNIST: measured on processor B, gpu H.\n"
    )


# What the loss of a plain model leaves out of a pixel.
LEFT_OUT = {"normal": 0.5 * math.log(2 * math.pi), "continuous Bernoulli": 0.0}


@pytest.mark.draws_globally
@pytest.mark.parametrize("model", LEFT_OUT)
def test_a_plain_model_scores_in_the_units_of_the_data(model):
    X = np.random.default_rng(0).integers(0, 256, (60, 784)).astype(np.uint8)
    torch.manual_seed(0)
    with torch.no_grad():  # its loss draws points of its own
        plain = PlainModel(model, X, 2)
        module = plain.module.eval()
        loss = float(torch.stack([module(plain.rows) for _ in range(300)]).mean())
    expected = -loss - 784 * (LEFT_OUT[model] + math.log(plain.scale))
    np.testing.assert_allclose(plain.score(X), expected, atol=0.5)
    reconstructed = plain.inverse_transform(plain.transform(X))
    assert reconstructed.shape == X.shape
    assert 90 < reconstructed.mean() < 165  # of bytes, and not of units


def test_seconds_are_of_the_wall_clock_on_a_gpu(monkeypatch):
    monkeypatch.setattr(time_to_quality.time, "perf_counter", lambda: 1.0)
    monkeypatch.setattr(time_to_quality.time, "process_time", lambda: 2.0)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    for has_gpu, seconds in ((True, 1.0), (False, 2.0)):
        monkeypatch.setattr(torch.cuda, "is_available", lambda has_gpu=has_gpu: has_gpu)
        assert time_to_quality.now() == seconds


def test_loops_are_compared_where_there_is_one():
    end = {"epochs": 200, "seconds": 12.3, "elbo": -1234.56, "r2": 0.5}
    names = [f"normal_vae, {by}" for by in ("earlier", "plain loop", "pythae")]
    sets = {
        "MNIST": {"curves": {name: [{"epochs": 1}, end] for name in names}},
        "iris": {"curves": {name: [end] for name in names[:2]}},
        "wine": {"curves": {name: [end] for name in names[:1]}},
    }
    shown = [("MNIST", by) for by in ("skvae", "a plain loop", "pythae")] + [
        ("iris", "skvae"),
        ("iris", "a plain loop"),
    ]
    assert time_to_quality_report.loops(sets).splitlines()[2:] == [
        f"| {name}, normal VAE | {by} | 200 | 12 | -1,234.6 | 0.500 |  |" for name, by in shown
    ]


def test_the_page_is_made_of_the_results():
    page = (ROOT / "docs" / "performance.md").read_text()
    results = json.loads((ROOT / "docs" / "results" / "time_to_quality.json").read_text())
    blocks = time_to_quality_report.blocks(results)
    assert re.findall("<!-- begin (.*) -->", page) == re.findall("<!-- end (.*) -->", page) == [*blocks]
    assert time_to_quality_report.fill(page, blocks) == page
