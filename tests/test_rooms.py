"""Data flows one way: a module imports only from the rooms above its own."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import skvae

PACKAGE = Path(skvae.__file__).parent

# Module: the modules of skvae and the third-party packages that it may import.
ROOMS = {
    "_validation": (set(), {"numpy", "sklearn", "torch"}),
    "_distributed": (set(), {"torch"}),
    "distributions": (set(), {"torch"}),
    "_version": (set(), set()),
    "_networks": ({"_distributed", "_version"}, {"torch", "numpy"}),
    "_vae": ({"_distributed", "distributions"}, {"torch"}),
    "_training": ({"_distributed"}, {"torch", "numpy"}),
    "_checkpoint": (set(), {"numpy"}),
    "_base": (
        {"_validation", "_distributed", "distributions", "_vae", "_training", "_checkpoint", "_version"},
        {"numpy", "sklearn", "torch"},
    ),
    "_transformers": (
        {"_validation", "_base", "_networks", "_vae", "distributions"},
        {"numpy", "sklearn", "torch"},
    ),
    "classifiers": ({"_validation", "_networks"}, {"numpy", "scipy", "sklearn", "skorch", "torch"}),
    "onnx": (
        {"_validation", "distributions", "_networks", "_vae", "_base", "classifiers"},
        {"numpy", "onnx", "onnxscript", "skl2onnx", "sklearn", "torch"},
    ),
    "datasets": (set(), {"numpy", "sklearn"}),
    "model_selection": ({"_validation"}, {"joblib", "numpy", "pandas", "sklearn"}),
    "callbacks": ({"_validation"}, {"numpy", "sklearn"}),
    "inspection": ({"_validation", "callbacks"}, {"matplotlib", "numpy", "scipy", "sklearn"}),
    "metrics": ({"_validation"}, {"numpy", "scipy", "skimage", "sklearn"}),
    "__init__": ({"_transformers", "_version"}, set()),
}


def imports(path):
    """Yield the dotted names that a file imports, at any depth of its code."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} has a relative import"
            if node.module == "skvae":
                yield from (f"skvae.{alias.name}" for alias in node.names)
            else:
                yield node.module


def room(path):
    """Return the name of a module, or of the package in skvae that it is in."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_only_from_above(path):
    own, third_party = ROOMS[room(path)]
    for name in imports(path):
        top, _, rest = name.partition(".")
        if top == "skvae":
            assert rest.split(".")[0] in own | {room(path)}, f"{path.name} must not import {name}"
        elif top not in sys.stdlib_module_names:
            assert top in third_party, f"{path.name} must not import {name}"
        private = top == "sklearn" and any(part.startswith("_") for part in name.split("."))
        assert not private or path.stem == "_validation", f"only _validation.py may import {name}"


def test_importing_skvae_is_free_of_optional_packages():
    code = """
import sys, torch, sklearn.callback, sklearn.datasets
before = set(sys.modules)
import skvae, skvae.callbacks, skvae.datasets, skvae.distributions, skvae.inspection, skvae.metrics
import skvae.model_selection
optional = {"matplotlib", "pandas", "polars", "rich", "skimage", "skorch"}
optional |= {"dask", "distributed", "onnx", "onnxruntime", "onnxscript", "pyarrow", "ray", "skl2onnx"}
print(*sorted(optional & (set(sys.modules) - before)))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == ""


def test_public_names_exist():
    for name in {room(path) for path in PACKAGE.rglob("*.py")}:
        if name.startswith("_"):
            continue
        module = __import__(f"skvae.{name}", fromlist=["__all__"])
        assert all(hasattr(module, name) for name in module.__all__)
    assert all(hasattr(skvae, name) for name in skvae.__all__)
