"""The picture of the imports, in the site: files of any depth, each below all that it imports, folders in one piece."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "docs" / "_ext"))

import rooms

FILES = {
    "__init__": "from skvae._model import VAE",
    "_data/__init__": "",
    "_data/checks": "import numpy\nfrom json import dumps",
    "_data/rows": "import skvae._data.checks",
    "_fit/loop": "from skvae._data import rows\nfrom skvae import _version",
    "_model/__init__": "def lazy():\n    from skvae._model.network import Network",
    "_model/network": "from skvae.distributions import Normal\nfrom skvae._data.rows import Rows",
    "_version": "",
    "distributions": "from skvae._data.checks import check",
}


@pytest.fixture
def package(tmp_path):
    for name, code in FILES.items():
        path = tmp_path / "skvae" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code)
    return tmp_path / "skvae"


def test_imports_of_files_of_any_depth(package):
    assert rooms.imports(package) == {
        "__init__": {"_model/__init__"},
        "_data/checks": set(),
        "_data/rows": {"_data/checks"},
        "_fit/loop": {"_data/rows", "_version"},
        "_model/__init__": {"_model/network"},
        "_model/network": {"distributions", "_data/rows"},
        "_version": set(),
        "distributions": {"_data/checks"},
    }


@pytest.mark.parametrize("where", ["made up", "skvae"])
def test_each_stands_below_all_that_it_imports(where, package, tmp_path):
    package = package if where == "made up" else rooms.PACKAGE
    graph = rooms.imports(package)
    ordered = rooms.sort(graph)
    assert sorted(ordered) == sorted(graph)
    assert all(ordered.index(other) < ordered.index(room) for room in graph for other in graph[room])
    rooms.draw(tmp_path / "rooms.png", package)
    assert (tmp_path / "rooms.png").exists()


def test_folders_are_in_one_piece_where_the_order_allows(package):
    bands = list(rooms.bands(rooms.sort(rooms.imports(package))))
    assert sorted(folder for folder, _, _ in bands) == ["_data", "_fit", "_model"]
    between = {"a/first": set(), "b/second": {"a/first"}, "a/third": {"b/second"}}
    assert list(rooms.bands(rooms.sort(between))) == [("a", 0, 0), ("b", 1, 1), ("a", 2, 2)]


def test_a_circle_is_an_error():
    with pytest.raises(ValueError, match="go round in a circle"):
        rooms.sort({"a": {"b"}, "b": {"a"}})
