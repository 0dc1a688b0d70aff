"""The README and the pages keep their promises about files and commands."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted(path for folder in (".", "guide", "how_to", "results") for path in (DOCS / folder).glob("*.md")),
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        path = (page.parent / target).resolve()
        if path.parent == DOCS / "auto_examples":  # made of the examples when the site is built
            assert path.stem == "index" or (ROOT / "examples" / "gallery" / f"{path.stem}.py").exists(), target
        elif target not in ("api", "generated/rooms.png"):
            assert "://" in target or path.exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_scripts_that_are_named_exist(page):
    for path in re.findall(r"\b(?:examples|docs|tests|skvae)/[\w/]+\.(?:py|md|json|png)", page.read_text()):
        assert (ROOT / path).exists(), f"{page.name} names {path}"


def test_examples_lie_in_three_folders():
    folders = {"gallery", "study", "benchmarks"}
    left_by_runs = {"output", "__pycache__"}
    assert {path.name for path in (ROOT / "examples").iterdir()} - left_by_runs == folders
    loose = [path for path in (ROOT / "examples" / "gallery").glob("*.py") if not path.name.startswith("plot_")]
    assert loose == []


def test_two_commands_install_and_do_everything():
    blocks = re.findall(r"^```bash\n(.*?)^```", (ROOT / "README.md").read_text(), re.S | re.M)
    commands = [line for block in blocks for line in block.splitlines() if line.startswith("pip install ")]
    assert len(commands) == 2
    assert commands[0].endswith("&& python examples/study/regime_comparison.py")
    assert commands[1].endswith("&& pytest -n 2")


# The same sections on fewer rows and in one round: what is tested is that the tables are written.
QUICK_BENCHMARKS = """
import runpy, sys
folder = sys.argv[1]
sys.path.insert(0, folder)
import harness

in_turn, median_of_processes = harness.in_turn, harness.median_of_processes
harness.in_turn = lambda contestants, *, seconds, n_rounds: in_turn(contestants, seconds=seconds, n_rounds=1)
harness.median_of_processes = lambda *names, **arguments: median_of_processes(*names, n_processes=1, **arguments)
import inference

inference.N_ROWS, inference.N_SCORED = 1000, 50
sys.argv = sys.argv[1:]
runpy.run_path(folder, run_name="__main__")
"""


@pytest.mark.slow
def test_the_benchmarks_write_their_tables(tmp_path):
    command = [
        sys.executable,
        "-c",
        QUICK_BENCHMARKS,
        ROOT / "examples" / "benchmarks",
        "--output",
        tmp_path,
        "--seconds",
        "0",
        "--threads",
        "1",
    ]
    sections = ["inference", "loading", "deployment"]  # the others take minutes, or a package apart
    subprocess.run([*map(str, command), "--sections", *sections], check=True)
    results = json.loads((tmp_path / "results" / "benchmarks.json").read_text())
    assert list(results) == sections
    text = (tmp_path / "results" / "benchmarks.md").read_text()
    assert text.count("Measured on: ") == len(sections)
    assert "| transform |" in text
