"""Every public name is documented, in numpydoc's form, and what it says of defaults is true."""

import inspect
import pkgutil
import re
from pathlib import Path

import numpy as np  # noqa: F401 (defaults in docstrings are evaluated)
import pytest
from numpydoc.docscrape import NumpyDocString
from numpydoc.validate import validate

import skvae
from skvae.classifiers import MultilayerCNNClassifier, SimpleCNNClassifier
from skvae.impute import VAEImputer
from skvae.model_selection import RegimeSplit

MODULES = ["skvae", *(f"skvae.{m.name}" for m in pkgutil.iter_modules(skvae.__path__) if not m.name.startswith("_"))]

# Summaries that begin right after the quotes and returned values with names, as in scikit-learn; extended summaries,
# examples and see-also sections only where they help.
NOT_ASKED_FOR = {"GL01", "RT02", "ES01", "EX01", "SA01"}


def public_objects():
    """Yield the dotted name of every public function, class, method and property of the library's own."""
    for module_name in MODULES:
        module = __import__(module_name, fromlist=["__all__"])
        for name in module.__all__:
            if callable(getattr(module, name)):
                yield f"{module_name}.{name}"
            if inspect.isclass(getattr(module, name)):
                for member, value in inspect.getmembers(getattr(module, name)):
                    function = value.fget if isinstance(value, property) else value
                    if not member.startswith("_") and getattr(function, "__module__", "").startswith("skvae"):
                        yield f"{module_name}.{name}.{member}"


def resolve(name):
    module_name = max((m for m in MODULES if name.startswith(f"{m}.")), key=len)
    value = __import__(module_name, fromlist=["__all__"])
    for part in name.removeprefix(f"{module_name}.").split("."):
        value = getattr(value, part)
    return value


def test_every_public_name_is_in_the_reference():
    page = (Path(__file__).parents[1] / "docs" / "api.rst").read_text()
    listed = {f"skvae.{line.strip()}" for line in page.splitlines() if re.fullmatch(r"   [\w.]+", line)}
    assert listed == {f"{module}.{name}" for module in MODULES for name in __import__(module, fromlist="_").__all__}


# The methods of the distribution are those of torch.distributions, whose parameters are documented there.
IS_TORCH_INTERFACE = "skvae.distributions.ContinuousBernoulli."


@pytest.mark.parametrize("name", sorted(public_objects()))
def test_numpydoc(name):
    ignored = NOT_ASKED_FOR | ({"PR01", "RT01", "YD01"} if name.startswith(IS_TORCH_INTERFACE) else set())
    faults = [text for code, text in validate(name)["errors"] if code not in ignored]
    assert faults == []


@pytest.mark.parametrize("name", sorted(public_objects()))
def test_documented_defaults_are_those_of_the_signature(name):
    value = resolve(name)
    if not callable(value) or name.startswith(IS_TORCH_INTERFACE):
        return
    documented = {p.name: p.type for p in NumpyDocString(inspect.getdoc(value))["Parameters"]}
    for parameter in inspect.signature(value).parameters.values():
        if parameter.default is parameter.empty or documented[parameter.name] == "Ignored":
            continue
        match = re.search(r"default=(.*)$", documented[parameter.name])
        assert match, f"{name} documents no default of {parameter.name}"
        assert repr(eval(match[1])) == repr(parameter.default), f"{name} documents another default of {parameter.name}"


@pytest.mark.parametrize(
    "cls",
    [
        skvae.NormalVAETransformer,
        skvae.ContinuousBernoulliVAETransformer,
        SimpleCNNClassifier,
        MultilayerCNNClassifier,
        RegimeSplit,
        VAEImputer,
    ],
)
def test_parameters_stand_in_the_order_of_the_signature(cls):
    documented = [p.name for p in NumpyDocString(inspect.getdoc(cls))["Parameters"]]
    assert documented == list(inspect.signature(cls).parameters)
