"""Data flows one way: a module imports only from the rooms above its own."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import skvae

PACKAGE = Path(skvae.__file__).parent

# From the top: each room, and the third-party packages that it may import. A room imports only from rooms above it.
ROOMS = {
    "_version": set(),
    "exceptions": set(),
    "_sklearn": {"sklearn"},
    "_data.checks": {"numpy", "sklearn", "torch"},
    "_data.rows": {"numpy", "torch"},
    "_data.split": {"numpy"},
    "_data.fingerprint": {"joblib", "numpy", "torch"},
    "_model.ops": {"numpy", "torch"},
    "_kl": {"torch"},
    "distributions": {"torch"},
    "_model.noise": {"numpy", "torch"},
    "_model.stored": {"numpy", "torch"},
    "_model.scale": {"torch"},
    "likelihoods": {"numpy", "torch"},
    "_model.networks": {"torch"},
    "_model.threads": {"torch"},
    "_model.completion": {"numpy", "torch"},
    "_model.em": {"torch"},
    "_model.prior": {"numpy", "sklearn", "torch"},
    "_model.mixture": {"numpy", "sklearn", "torch"},
    "_model.vae": {"numpy", "sklearn", "torch"},
    "_model.build": {"torch"},
    "_model.linear": {"torch"},
    "_model.approximation": {"torch"},
    "_model.bounds": {"numpy", "torch"},
    "_model.imputation": {"torch"},
    "_fit.distributed": {"torch"},
    "_fit.checkpoint": {"numpy"},
    "_fit.optimizer": {"numpy", "torch"},
    "_fit.graphs": {"torch"},
    "_fit.schedule": set(),
    "_fit.run": {"numpy", "torch"},
    "_fit.finish": {"numpy", "sklearn", "torch"},
    "_fit.hooks": {"numpy", "sklearn", "torch"},
    "_fit.context": {"numpy", "sklearn", "torch"},
    "_base": {"numpy", "sklearn", "torch"},
    "_transformers": {"numpy", "torch"},
    "__init__": set(),
    "impute": {"numpy", "sklearn"},
    "outliers": {"numpy", "sklearn"},
    "classifiers": {"numpy", "scipy", "sklearn", "skorch", "torch"},
    "_onnx.graph": {"numpy", "onnx", "onnxscript", "torch"},
    "_onnx.layers": {"numpy", "onnx", "skl2onnx", "torch"},
    "_onnx.scores": {"numpy", "onnx", "sklearn"},
    "onnx": {"numpy", "onnx", "skl2onnx", "sklearn"},
    "datasets": {"numpy", "sklearn"},
    "model_selection": {"joblib", "numpy", "pandas", "sklearn"},
    "metrics": {"numpy", "scipy", "skimage", "sklearn"},
    "callbacks": {"numpy", "sklearn"},
    "inspection._montage": {"matplotlib", "numpy", "sklearn"},
    "inspection._samples": {"matplotlib", "numpy"},
    "inspection._reconstruction": {"matplotlib", "numpy"},
    "inspection._training_curve": {"matplotlib", "sklearn"},
    "inspection._latent": {"matplotlib", "numpy", "scipy", "sklearn"},
    "inspection.__init__": set(),
}


def room_of(path):
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def imports(path):
    """Yield the dotted names of what a file imports, at any depth of its code, modules of skvae as rooms."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} has a relative import"
            module = node.module.removeprefix("skvae").lstrip(".")
            folder = PACKAGE.joinpath(*module.split("."))
            if node.module.split(".")[0] != "skvae":
                yield node.module
            elif folder.is_dir():
                yield from (f"skvae.{module}.{alias.name}".replace("..", ".") for alias in node.names)
            else:
                yield node.module


FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if path.name != "__init__.py" or "import " in path.read_text()]


def test_every_file_is_a_room():
    assert {room_of(path) for path in FILES} == set(ROOMS)


@pytest.mark.parametrize("path", FILES, ids=room_of)
def test_imports_only_from_above(path):
    room = room_of(path)
    above = list(ROOMS)[: list(ROOMS).index(room)]
    for name in imports(path):
        top, _, rest = name.partition(".")
        if top == "skvae":
            assert rest in above, f"{room} must not import {name}"
        elif top not in sys.stdlib_module_names:
            assert top in ROOMS[room], f"{room} must not import {name}"
        private = top == "sklearn" and any(part.startswith("_") for part in name.split("."))
        assert not private or room == "_sklearn", f"only _sklearn.py may import {name}"


def test_only_one_room_makes_private_calls_of_torch():
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            is_private = isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.endswith("__")
            owner = node.value.id if is_private and isinstance(node.value, ast.Name) else None
            of_torch = owner in ("torch", "nn", "dist", "forward_ad")
            aten = isinstance(node, ast.Attribute) and ast.unparse(node).startswith("torch.ops.aten")
            assert not (of_torch or aten) or room_of(path) == "_model.ops", f"{path.name}: {ast.unparse(node)}"


def test_importing_skvae_is_free_of_optional_packages():
    code = """
import sys, torch, sklearn.callback, sklearn.datasets
before = set(sys.modules)
import skvae, skvae.callbacks, skvae.datasets, skvae.distributions, skvae.exceptions, skvae.inspection
import skvae.impute, skvae.likelihoods, skvae.metrics, skvae.model_selection
optional = {"matplotlib", "pandas", "polars", "rich", "skimage", "skorch"}
optional |= {"dask", "distributed", "onnx", "onnxruntime", "onnxscript", "pyarrow", "ray", "skl2onnx"}
print(*sorted(optional & (set(sys.modules) - before)))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == ""


def test_public_names_exist():
    for path in [*PACKAGE.glob("[!_]*.py"), PACKAGE / "inspection"]:
        module = __import__(f"skvae.{path.stem}", fromlist=["__all__"])
        assert all(hasattr(module, name) for name in module.__all__)
    assert all(hasattr(skvae, name) for name in skvae.__all__)
