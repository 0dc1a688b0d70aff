"""What is saved loads to the same bits, holds no data, and is the right model or an error."""

import copy
import importlib
import io
import json
import pickle
import random
import zipfile
from pathlib import Path

import cloudpickle
import joblib
import numpy as np
import pytest
import skops.io
import torch
from save_models import computed, data
from sklearn.callback import ScoringMonitor
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from skvae import TRUSTED_TYPES, ContinuousBernoulliVAETransformer, NormalVAETransformer
from skvae.classifiers import MultilayerCNNClassifier, SimpleCNNClassifier

from conftest import bits

X, y = load_digits(return_X_y=True)
# Rows of numbers that nothing else has the bytes of.
X = X[:200] / 16 + np.random.RandomState(0).uniform(0, 1e-3, (200, 64))
y = y[:200]

VAE = {"n_components": 3, "hidden_layer_sizes": (16,), "max_iter": 3, "random_state": 0}


def in_joblib(model):
    file = io.BytesIO()
    joblib.dump(model, file)
    return file.getvalue()


def from_skops(blob):
    return skops.io.loads(blob, trusted=TRUSTED_TYPES)


FORMATS = {
    "pickle": (pickle.dumps, pickle.loads),
    "joblib": (in_joblib, lambda blob: joblib.load(io.BytesIO(blob))),
    "cloudpickle": (cloudpickle.dumps, cloudpickle.loads),
    "skops": (skops.io.dumps, from_skops),
}

MODELS = {
    "normal": lambda: NormalVAETransformer(**VAE).fit(X, X_val=X[:20]),
    "normal, early stopping": lambda: NormalVAETransformer(
        **VAE | {"max_iter": 50}, early_stopping=True, n_iter_no_change=1, tol=100.0
    ).fit(X),
    "normal, in parts": lambda: NormalVAETransformer(**VAE).partial_fit(X).partial_fit(X),
    "continuous Bernoulli": lambda: ContinuousBernoulliVAETransformer(**VAE).fit(X),
    "continuous Bernoulli, in parts": lambda: ContinuousBernoulliVAETransformer(
        **VAE, data_range=(0, 2), encoder="dense"
    ).partial_fit(X),
    "simple CNN": lambda: SimpleCNNClassifier(max_iter=2, random_state=0).fit(X, y, X_val=X[:20], y_val=y[:20]),
    "multilayer CNN": lambda: MultilayerCNNClassifier(max_iter=2, random_state=0).fit(X, y),
    "Pipeline": lambda: make_pipeline(NormalVAETransformer(**VAE), LogisticRegression()).fit(X, y),
    "Pipeline to a CNN": lambda: make_pipeline(
        ContinuousBernoulliVAETransformer(**VAE), SimpleCNNClassifier(max_iter=2, random_state=0)
    ).fit(X, y),
}


@pytest.fixture(scope="module")
def models():
    """Each fitted model; not to be changed."""
    return {name: fit() for name, fit in MODELS.items()}


def outcome(model):
    return model.predict_proba(X).tobytes() if hasattr(model, "predict_proba") else bits(model, X)


def networks(model):
    """Return the modules that hold a model's weights."""
    steps = [step for _, step in model.steps] if hasattr(model, "steps") else [model]
    return [
        step.module_ if hasattr(step, "module_") else step.net_.module_
        for step in steps
        if not isinstance(step, LogisticRegression)
    ]


@pytest.mark.parametrize("form", [*FORMATS, "deepcopy"])
@pytest.mark.parametrize("name", MODELS)
def test_the_same_bits(name, form, models):
    if form == "deepcopy":
        loaded = copy.deepcopy(models[name])
    else:
        save, load = FORMATS[form]
        loaded = load(save(models[name]))
    assert outcome(loaded) == outcome(models[name])


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", MODELS)
def test_no_training_data_and_little_else_than_weights(name, form, models):
    save, _ = FORMATS[form]
    blob = save(models[name])
    n_bytes = sum(value.numel() * 4 for module in networks(models[name]) for value in module.state_dict().values())
    # The optimizer's two moments are kept after partial_fit alone.
    # A skops file describes each of its entries in words, of which the prior has some.
    n_priors = sum(getattr(module, "prior", None) is not None for module in networks(models[name]))
    allowed = 115_000 + 25_000 * n_priors if form == "skops" else 50_000
    assert len(blob) <= 1.1 * n_bytes * (3 if "in parts" in name else 1) + allowed
    if form == "skops":
        with zipfile.ZipFile(io.BytesIO(blob)) as archive:
            blob = b"".join(archive.read(entry) for entry in archive.namelist())
    for row in X[:20]:
        assert row[:4].tobytes() not in blob
        assert row[:4].astype(np.float32).tobytes() not in blob


def test_skops_needs_trust_in_this_library_alone(models):
    asked_for = {name for model in models.values() for name in skops.io.get_untrusted_types(data=skops.io.dumps(model))}
    assert asked_for <= set(TRUSTED_TYPES)
    for name in TRUSTED_TYPES:
        module, _, attribute = name.rpartition(".")
        trusted = getattr(importlib.import_module(module), attribute)
        assert isinstance(trusted, type)
        assert trusted.__module__ == module


def node(kind, name, module, **content):
    return {"__class__": name, "__module__": module, "__loader__": f"{kind}Node", **content}


def test_skops_files_cannot_reach_through_this_library(models, tmp_path):
    """A file may name what a module of ours has imported, under a name that begins with ours."""
    with zipfile.ZipFile(io.BytesIO(skops.io.dumps(models["simple CNN"]))) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    schema = json.loads(files["schema.json"])
    function = node("Function", "os", "skvae._fit.checkpoint")
    method = node("Method", "os", "skvae._fit.checkpoint", content={"func": "system", "obj": function})
    plain = {
        name: node("Json", "str", "builtins", content=json.dumps(value), is_json=True)
        for name, value in {"args": f"touch {tmp_path / 'harm'}", "kwds": {}, "namespace": None}.items()
    }
    arguments = plain | {"args": node("Tuple", "tuple", "builtins", content=[plain["args"]])}
    disguised = node("Partial", "VAE", "skvae._model.vae", content={"func": method, **arguments})
    state = schema["content"]["content"]
    network = state["net_"]["content"]["network"]
    network.update(__class__="NormalLikelihood", __module__="skvae.likelihoods")
    network["content"]["content"]["state_dict"] = disguised
    evil = io.BytesIO()
    with zipfile.ZipFile(evil, "w") as archive:
        for name, content in (files | {"schema.json": json.dumps(schema)}).items():
            archive.writestr(name, content)
    asked_for = skops.io.get_untrusted_types(data=evil.getvalue())
    assert "skvae._fit.checkpoint.os.system" in asked_for
    with pytest.raises(skops.io.exceptions.UntrustedTypesFoundException):
        from_skops(evil.getvalue())
    # Whoever trusts a prefix gets no further than the network, which is none of ours.
    with pytest.raises(ValueError, match="A NormalLikelihood that skvae .* has saved cannot be loaded"):
        skops.io.loads(evil.getvalue(), trusted=asked_for)
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("form", FORMATS)
def test_a_loaded_model_goes_on(estimator_class, form):
    save, load = FORMATS[form]
    fitted = estimator_class(**VAE, data_range=(0, 2)) if "Bern" in estimator_class.__name__ else estimator_class(**VAE)
    in_parts, fitted = copy.deepcopy(fitted).partial_fit(X), fitted.fit(X)
    # partial_fit goes on with the optimizer, warm starts with the weights.
    assert bits(load(save(in_parts)).partial_fit(X), X) == bits(copy.deepcopy(in_parts).partial_fit(X), X)
    warm = {"warm_start": True, "max_iter": 2, "learning_rate_init": 1e-4}
    loaded = load(save(fitted)).set_params(**warm)
    monitor = ScoringMonitor(scoring={"elbo": lambda estimator, X, y: estimator.score(X)})
    assert bits(loaded.set_callbacks(monitor).fit(X), X) == bits(copy.deepcopy(fitted).set_params(**warm).fit(X), X)
    assert len(loaded.loss_curve_) == 5
    assert len(monitor.get_logs().data) == 3  # two epochs and the fit


@pytest.mark.draws_globally
@pytest.mark.filterwarnings("ignore:. of 3 components are active")
@pytest.mark.parametrize("form", ["pickle", "joblib", "cloudpickle"])
def test_networks_of_the_users_own(estimator_class, form):
    save, load = FORMATS[form]
    encoder = torch.nn.Sequential(torch.nn.Linear(64, 8), torch.nn.ReLU(), torch.nn.Linear(8, 6))
    model = estimator_class(**VAE, encoder=encoder).fit(X)
    assert bits(load(save(model)), X) == bits(model, X)


FOLDERS = sorted((Path(__file__).parent / "data").glob("models_*"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
@pytest.mark.parametrize("extension", ["joblib", "skops"])
def test_models_of_every_version_load(folder, extension):
    paths = sorted(folder.glob(f"*.{extension}"))
    assert len(paths) == 7
    for path in paths:
        model = joblib.load(path) if extension == "joblib" else from_skops(path.read_bytes())
        expected = np.load(path.with_suffix(".npz"))
        for name, value in computed(model).items():
            # Other processors round otherwise.
            np.testing.assert_allclose(value, expected[name], rtol=1e-4, atol=1e-5, err_msg=f"{path.name}: {name}")
    assert FOLDERS


@pytest.mark.parametrize("extension", ["joblib", "skops"])
def test_what_a_gpu_process_has_written_loads_without_one(extension):
    path = FOLDERS[-1] / f"normal_on_gpu.{extension}"
    model = joblib.load(path) if extension == "joblib" else from_skops(path.read_bytes())
    rows, _ = data()
    assert model.device == "cuda"
    assert model.module_.device.type == "cpu"
    if not torch.cuda.is_available():
        before = model.transform(rows)
        with pytest.raises(ValueError, match="device='cuda' cannot be used"):
            model.partial_fit(rows)
        np.testing.assert_array_equal(model.transform(rows), before)
    model.set_params(device="cpu").partial_fit(rows)
    assert model.n_iter_ == 2


def test_a_model_of_a_version_that_cannot_be_read_says_which(models):
    state = models["normal"].module_.encoder.__getstate__()
    encoder = type(models["normal"].module_.encoder).__new__(type(models["normal"].module_.encoder))
    newer = state | {"version": "9.9", "config": state["config"] | {"normalization": "batch"}}
    with pytest.raises(ValueError, match="A DenseNetwork that skvae 9.9 has saved cannot be loaded by skvae 0.1.0"):
        encoder.__setstate__(newer)


def test_a_parameter_that_is_newer_than_the_file_takes_its_default(models):
    for name in ("normal", "simple CNN"):
        state = dict(models[name].__getstate__())
        del state["device"]
        older = type(models[name]).__new__(type(models[name]))
        older.__setstate__(state)
        assert older.get_params() == models[name].get_params()
        assert outcome(older) == outcome(models[name])


def mutate(blob, moments):
    """Return `blob` with a few bytes changed, moved, doubled or cut off."""
    content = bytearray(blob)
    for _ in range(moments.randint(1, 3)):
        where = moments.randrange(len(content))
        kind = moments.choice(["flip", "flip", "flip", "cut", "drop", "double", "zero"])
        if kind == "flip":
            content[where] ^= 1 << moments.randrange(8)
        elif kind == "cut":
            del content[where:]
        elif kind == "drop":
            del content[where : where + moments.randint(1, 100)]
        elif kind == "double":
            content[where:where] = content[where : where + moments.randint(1, 100)]
        else:
            content[where : where + 50] = bytes(len(content[where : where + 50]))
        if not content:
            break
    return bytes(content)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["normal", "continuous_bernoulli", "simple_cnn", "multilayer_cnn", "pipeline"])
def test_a_damaged_skops_file_is_an_error_or_the_right_model(name):
    blob = (FOLDERS[-1] / f"{name}.skops").read_bytes()
    expected = {key: value.tobytes() for key, value in computed(from_skops(blob)).items()}
    moments = random.Random(0)
    n_errors = 0
    for _ in range(300):
        try:
            loaded = from_skops(mutate(blob, moments))
            found = computed(loaded)
        except Exception:
            n_errors += 1
            continue
        assert {key: value.tobytes() for key, value in found.items()} == expected
    assert n_errors > 100
