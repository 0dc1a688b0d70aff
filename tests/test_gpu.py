"""What a CUDA device computes, and that it goes by the same rules as a CPU: run with ``pytest -m gpu``."""

import copy
import dataclasses
import io
import pickle
import socket

import joblib
import numpy as np
import pytest
import torch
from sklearn.callback import ScoringMonitor
from torch import nn

from skvae import ContinuousBernoulliVAETransformer, NormalVAETransformer
from skvae._data.rows import Batch, Rows, Summary, Units
from skvae._fit.distributed import Group
from skvae._fit.graphs import RecordedSteps
from skvae._fit.run import Hook, Run, Seeds
from skvae._fit.schedule import Plan
from skvae._model import ops
from skvae._model.build import build_vae
from skvae._model.linear import begin_at_linear_model
from skvae._model.noise import Noise
from skvae.classifiers import MultilayerCNNClassifier, SimpleCNNClassifier
from skvae.likelihoods import Likelihood

from conftest import Callback, bits, make, make_plain

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

CUDA = torch.device("cuda", 0)

# Enough minibatches of either size for steps to be recorded.
LONG = {"batch_size": 32, "max_iter": 30}

CONFIGURATIONS = [
    pytest.param(NormalVAETransformer, {}, id="normal"),
    pytest.param(NormalVAETransformer, {"noise": "network", "init": "random"}, id="noise of the decoder"),
    pytest.param(NormalVAETransformer, {"encoder": "conv", "dropout": 0.1, "hidden_layer_sizes": (32, 16)}, id="conv"),
    pytest.param(ContinuousBernoulliVAETransformer, {}, id="continuous Bernoulli"),
    pytest.param(ContinuousBernoulliVAETransformer, {"encoder": "dense", "dropout": 0.0}, id="dense CB"),
]


def make_run(estimator_class, parameters, X, device, hooks=(), records=True, n_epochs=30):
    """Return the run of a fit."""
    estimator = make(estimator_class, **LONG | parameters)
    likelihood = estimator.make_likelihood(X.shape[1])
    summary = Summary(X)
    units = likelihood.learn_units(summary)
    rows = Rows(X, units, device, has_missing=summary.has_missing, read_often=True)
    vae = build_vae(estimator, likelihood, units, X.shape[1], seed=0, fitted=None).to(device)
    begin_at_linear_model(vae, rows, 0, Group())
    rows = vae.completion.complete(rows)
    plan = dataclasses.replace(Plan.of_fit(estimator, len(X)), n_epochs=n_epochs)
    run = Run(vae, rows, Seeds(0, 0, 1, 2, 0), Group(), plan, history={}, hooks=hooks)
    if not records:
        run._recorded_steps = None
    return run


def weights_of(module):
    return {name: value.cpu().numpy() for name, value in module.state_dict().items()}


def assert_same_weights(one, other, **tolerance):
    one, other = weights_of(one), weights_of(other)
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_allclose(value, other[name], err_msg=name, **tolerance)


class OnTheCPU(Noise):
    """Noise that is drawn on the CPU, wherever the model is: the two devices have generators of their own."""

    def __init__(self, device, seed):
        super().__init__(torch.device("cpu"), seed)
        self.to = device

    def normal(self, shape):
        return super().normal(shape).to(self.to)

    def bits(self, shape):
        return super().bits(shape).to(self.to)


@pytest.mark.parametrize(("estimator_class", "parameters"), CONFIGURATIONS)
def test_a_fit_is_that_of_a_cpu(estimator_class, parameters, digits):
    runs = []
    for device in (torch.device("cpu"), CUDA):
        run = make_run(estimator_class, parameters, digits, device, records=False, n_epochs=3)
        run.noise = OnTheCPU(device, 3)
        run.train()
        runs.append(run)
    for name, values in runs[0].history.items():
        np.testing.assert_allclose(runs[1].history[name], values, rtol=2e-4, err_msg=name)
    assert_same_weights(runs[0].model, runs[1].model, rtol=1e-2, atol=2e-3)


@pytest.mark.parametrize(("estimator_class", "parameters"), CONFIGURATIONS)
def test_what_a_model_computes_is_what_it_computes_on_a_cpu(estimator_class, parameters, digits):
    fitted = make(estimator_class, **LONG | parameters, device="cuda").fit(digits)
    assert fitted.module_.device.type == "cuda"
    on_cpu = pickle.loads(pickle.dumps(fitted))
    assert on_cpu.module_.device.type == "cpu"
    tolerance = {"rtol": 1e-3, "atol": 1e-3}
    np.testing.assert_allclose(fitted.transform(digits), on_cpu.transform(digits), **tolerance)
    for one, other in zip(fitted.posterior(digits), on_cpu.posterior(digits), strict=True):
        np.testing.assert_allclose(one, other, **tolerance)
    Z = on_cpu.transform(digits)
    np.testing.assert_allclose(fitted.inverse_transform(Z), on_cpu.inverse_transform(Z), **tolerance)
    for noise in (False, True):
        samples = [m.sample(50, random_state=0, observation_noise=noise) for m in (fitted, on_cpu)]
        np.testing.assert_allclose(*samples, rtol=1e-3, atol=1e-2)
    for n in (1, 64):
        scores = [m.score_samples(digits, n_importance_samples=n) for m in (fitted, on_cpu)]
        np.testing.assert_allclose(*scores, rtol=1e-3, atol=2e-2)


@pytest.mark.parametrize(("estimator_class", "parameters"), CONFIGURATIONS)
def test_the_same_bits_from_run_to_run(estimator_class, parameters, digits):
    fits = [make(estimator_class, **LONG | parameters, device="cuda").fit(digits) for _ in range(2)]
    assert bits(fits[0], digits) == bits(fits[1], digits)
    assert fits[0].history_ == fits[1].history_
    assert bits(fits[0], digits) == bits(fits[0], digits)


class WarmUp(Hook):
    """A weight of the KL term that rises, beside the learning rate that falls."""

    def begin_epoch(self, run):
        run.beta = min(1.0, run.n_done / 10)


@pytest.mark.parametrize("hooks", [(), (WarmUp(),)], ids=["constant", "warm-up"])
@pytest.mark.parametrize(("estimator_class", "parameters"), CONFIGURATIONS)
def test_recorded_steps_are_the_ordinary_ones(estimator_class, parameters, hooks, digits):
    runs = []
    for records in (True, False):
        run = make_run(estimator_class, parameters, digits, CUDA, hooks, records)
        assert run.rows.is_resident
        run.train()
        runs.append(run)
    assert set(runs[0]._recorded_steps._recorded) == {32, 300 % 32}
    assert_same_weights(runs[0].model, runs[1].model, rtol=1e-4, atol=1e-5)
    for name, values in runs[0].history.items():
        np.testing.assert_allclose(runs[1].history[name], values, rtol=1e-5, err_msg=name)


def test_recorded_steps_in_a_fit(digits, monkeypatch):
    """They are on by default, and a module of the user's own keeps them off."""
    recorded = []
    record = RecordedSteps._record
    monkeypatch.setattr(RecordedSteps, "_record", lambda *args: recorded.append(0) or record(*args))
    make(NormalVAETransformer, **LONG, device="cuda").fit(digits)
    assert len(recorded) == 2
    with torch.random.fork_rng():
        encoder = nn.Sequential(nn.Linear(64, 8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 6))
    fits = [make(NormalVAETransformer, encoder=encoder, **LONG, device="cuda").fit(digits) for _ in range(2)]
    assert len(recorded) == 2
    assert bits(fits[0], digits) == bits(fits[1], digits)


class Interrupt(Callback):
    def on_fit_task_end(self, estimator, context):
        if context.task_name == "epoch" and context.task_id == 9:
            raise KeyboardInterrupt


def test_checkpoints(estimator_class, digits, tmp_path):
    parameters = LONG | {"device": "cuda", "checkpoint": tmp_path / "fit"}
    with pytest.raises(KeyboardInterrupt):
        make(estimator_class, **parameters).set_callbacks(Interrupt()).fit(digits)
    resumed = make(estimator_class, **parameters).fit(digits)
    whole = make(estimator_class, **parameters | {"checkpoint": None}).fit(digits)
    # Steps are recorded again after the interruption, so that the last bits may differ.
    assert_same_weights(resumed.module_, whole.module_, rtol=1e-3, atol=1e-4)
    with pytest.raises(ValueError, match="device was cuda and is cpu"):
        make(estimator_class, **parameters | {"device": "cpu"}).fit(digits)


def test_files_and_going_on_elsewhere(estimator_class, digits):
    parameters = LONG | {"max_iter": 2}
    fitted = make(estimator_class, **parameters, device="cuda").partial_fit(digits).partial_fit(digits)
    file = io.BytesIO()
    joblib.dump(fitted, file)
    file.seek(0)
    loaded = joblib.load(file)
    assert loaded.module_.device.type == "cpu"
    np.testing.assert_allclose(loaded.transform(digits), fitted.transform(digits), rtol=1e-3, atol=1e-3)
    # On the CPU the noise starts anew; the optimizer goes on.
    loaded.set_params(device="cpu").partial_fit(digits)
    assert loaded.n_iter_ == 3
    back = pickle.loads(pickle.dumps(loaded)).set_params(device="cuda").partial_fit(digits)
    assert back.module_.device.type == "cuda"
    assert back.n_iter_ == 4


def test_a_copy_stays_on_the_device(estimator_class, digits):
    fitted = make(estimator_class, device="cuda").fit(digits)
    copied = copy.deepcopy(fitted)
    assert copied.module_.device.type == "cuda"
    assert bits(copied, digits) == bits(fitted, digits)


def test_early_stopping(estimator_class, digits):
    stopped = make_plain(estimator_class, **LONG | {"max_iter": 500}, early_stopping=True, n_iter_no_change=2, tol=0.5)
    stopped.set_params(device="cuda").fit(digits[:200], X_val=digits[200:])
    assert stopped.n_iter_ < 500
    assert stopped.score(digits[200:]) == pytest.approx(stopped.best_validation_score_, rel=1e-5)


def test_callbacks_score_on_the_device(estimator_class, digits):
    monitor = ScoringMonitor(scoring={"elbo": lambda estimator, X, y: estimator.score(X)})
    devices = []

    class Watch(Callback):
        def on_fit_task_end(self, estimator, context, *, fitted_estimator=None):
            devices.append(fitted_estimator.module_.device.type)

    fitted = make_plain(estimator_class, **LONG, device="cuda").set_callbacks(monitor, Watch()).fit(digits)
    assert set(devices) == {"cuda"}
    scores = [row["elbo"] for row in monitor.get_logs().data if row["task_name"] == "epoch"]
    assert scores[-1] == pytest.approx(fitted.score(digits), rel=1e-6)
    plain = make_plain(estimator_class, **LONG, device="cuda").fit(digits)
    assert bits(fitted, digits) == bits(plain, digits)


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
def test_data_of_every_kind(estimator_class, dtype, digits):
    X = digits.astype(dtype)
    fitted = make(estimator_class, **LONG, device="cuda").fit(X)
    reference = make(estimator_class, **LONG, device="cuda").fit(digits)
    np.testing.assert_allclose(fitted.transform(X), reference.transform(digits), rtol=1e-2, atol=1e-2)


def test_data_that_stay_where_they_are(digits, monkeypatch):
    """Rows that have no room on the device go there minibatch by minibatch, to the same numbers."""
    expected = make(NormalVAETransformer, **LONG, device="cuda").fit(digits)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (0, 0))
    fitted = make(NormalVAETransformer, **LONG, device="cuda").fit(digits)
    np.testing.assert_allclose(fitted.transform(digits), expected.transform(digits), rtol=1e-3, atol=1e-3)


def test_validation_rows_share_what_is_on_the_device(digits):
    rows = Rows(digits, Units(0.0, 1.0), CUDA, read_often=True)
    part = rows.subset(np.arange(0, 300, 7))
    assert part._source is rows._source
    np.testing.assert_array_equal(part[:].x.cpu().numpy(), digits[::7].astype(np.float32))


def with_holes(X):
    hidden = np.random.RandomState(0).random_sample(X.shape) < 0.2
    hidden[0] = False
    return np.where(hidden, np.nan, X)


@pytest.mark.parametrize(("estimator_class", "parameters"), CONFIGURATIONS)
def test_a_fit_to_rows_with_missing_entries_is_that_of_a_cpu(estimator_class, parameters, digits):
    runs = []
    for device in (torch.device("cpu"), CUDA):
        run = make_run(estimator_class, parameters, with_holes(digits), device, records=False, n_epochs=3)
        run.noise = OnTheCPU(device, 3)
        run.train()
        runs.append(run)
    for name, values in runs[0].history.items():
        np.testing.assert_allclose(runs[1].history[name], values, rtol=2e-4, err_msg=name)


@pytest.mark.parametrize(("estimator_class", "parameters"), CONFIGURATIONS)
def test_steps_with_missing_entries_are_recorded(estimator_class, parameters, digits):
    models = []
    for records in (False, True):
        run = make_run(estimator_class, parameters, with_holes(digits), CUDA, records=records)
        run.train()
        models.append(run.model)
    assert run._recorded_steps._recorded
    assert_same_weights(*models, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("estimator_class", "parameters"), CONFIGURATIONS)
def test_missing_entries_are_filled_in_as_on_a_cpu(estimator_class, parameters, digits):
    holey = with_holes(digits)
    fitted = make(estimator_class, **LONG | parameters, device="cuda").fit(holey)
    on_cpu = pickle.loads(pickle.dumps(fitted))
    tolerance = {"rtol": 1e-2, "atol": 1e-2}
    np.testing.assert_allclose(fitted.transform(holey), on_cpu.transform(holey), **tolerance)
    np.testing.assert_allclose(fitted.impute(holey), on_cpu.impute(holey), **tolerance)
    np.testing.assert_allclose(fitted.score_samples(holey), on_cpu.score_samples(holey), **tolerance)


@pytest.mark.parametrize(("estimator_class", "parameters"), CONFIGURATIONS)
def test_entries_that_are_not_observed(estimator_class, parameters, digits):
    run = make_run(estimator_class, parameters, digits, CUDA)
    batch = run.rows[:]
    observed = torch.rand(batch.x.shape, generator=torch.Generator().manual_seed(0)) < 0.7
    terms = []
    for device in ("cpu", "cuda"):
        model = run.model.to(device)
        noise = OnTheCPU(torch.device(device), 3)
        terms.append(model.terms(Batch(batch.x.to(device), observed.to(device)), noise))
    for one, other in zip(*terms, strict=True):
        assert float(one.detach()) == pytest.approx(float(other.detach()), rel=1e-4)


def test_kernels_against_their_plain_versions():
    generator = torch.Generator().manual_seed(0)
    x, parameters = (torch.randn(50, n, generator=generator).to(CUDA) for n in (30, 60))
    parameters.requires_grad_()
    values = [f(x, parameters, 0.3) for f in (ops.network_normal_log_prob, ops.plain_network_normal_log_prob)]
    torch.testing.assert_close(*values, rtol=1e-4, atol=1e-4)
    gradients = [torch.autograd.grad(value.sum(), parameters)[0] for value in values]
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-3)
    location, scale = parameters.detach()[:, :30].requires_grad_(), torch.tensor(0.3, device=CUDA, requires_grad=True)
    values = [f(x, location, scale) for f in (ops.normal_log_prob, ops.plain_normal_log_prob)]
    torch.testing.assert_close(*values, rtol=1e-4, atol=1e-4)
    gradients = [torch.autograd.grad(value.sum(), [location, scale]) for value in values]
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-3)
    arguments = x.sigmoid(), parameters.detach()[:, :30].requires_grad_(), torch.tensor(12.0, device=CUDA), 64.0
    values = [f(*arguments) for f in (ops.bounded_log_prob, ops.plain_bounded_log_prob)]
    torch.testing.assert_close(*values, rtol=1e-4, atol=1e-4)
    gradients = [torch.autograd.grad(value.sum(), arguments[1])[0] for value in values]
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("classifier_class", [SimpleCNNClassifier, MultilayerCNNClassifier])
def test_classifiers(classifier_class, digits):
    y = np.arange(len(digits)) % 3
    fits = [classifier_class(max_iter=3, random_state=0, device="cuda").fit(digits / 16, y) for _ in range(2)]
    assert next(fits[0].net_.module_.parameters()).device.type == "cuda"
    on_cpu = pickle.loads(pickle.dumps(fits[0])).set_params(device="cpu")
    np.testing.assert_allclose(fits[0].predict_proba(digits / 16), on_cpu.predict_proba(digits / 16), atol=1e-3)
    same_start = classifier_class(max_iter=3, random_state=0, device="cpu").fit(digits / 16, y)
    np.testing.assert_allclose(
        fits[0].history_["loss"], same_start.history_["loss"], rtol=1e-2
    )  # the same weights and order


class TwoScales(Likelihood):
    """A likelihood with a parameter of its own, which may be recorded."""

    capturable = True

    def __init__(self):
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(64))

    def log_prob(self, x, parameters):
        return -0.5 * ((x - parameters) / self.log_scale.exp()).square() - self.log_scale

    def mean(self, parameters):
        return parameters

    def sample(self, parameters, generator):
        noise = torch.randn(parameters.shape, generator=generator).to(parameters.device)
        return parameters + self.log_scale.exp() * noise


class TwoScalesVAE(NormalVAETransformer):
    def make_likelihood(self, n_features):
        return TwoScales()


def test_a_likelihood_of_ones_own(digits):
    fitted = TwoScalesVAE(3, hidden_layer_sizes=16, random_state=0, **LONG, device="cuda").fit(digits)
    assert fitted.module_.likelihood.log_scale.is_cuda
    assert fitted.module_.likelihood.log_scale.detach().abs().min() > 0
    on_cpu = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_allclose(on_cpu.score_samples(digits), fitted.score_samples(digits), rtol=1e-3)


@pytest.mark.filterwarnings("default")
@pytest.mark.skipif(not torch.distributed.is_nccl_available(), reason="needs NCCL")
def test_one_process_over_nccl(digits, monkeypatch):
    """A group that torch.distributed was told of, of this process alone, exchanges over NCCL."""
    from skvae._fit import context, distributed

    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"tcp://localhost:{free.getsockname()[1]}"
    torch.distributed.init_process_group("nccl", init_method=address, rank=0, world_size=1, device_id=CUDA)
    try:
        monkeypatch.setattr(context, "current_group", distributed.ProcessGroup)
        together = make(NormalVAETransformer, **LONG | {"max_iter": 4}, device="cuda", early_stopping=True)
        with pytest.warns(match="Early stopping did not set in"):
            together.fit(digits)
        together.set_params(early_stopping=False).partial_fit(digits)
    finally:
        torch.distributed.destroy_process_group()
    assert np.isfinite(together.score(digits))
    assert together.n_iter_ == 5


def test_out_of_memory_leaves_the_estimator_alone(digits):
    fitted = make(NormalVAETransformer, device="cuda").fit(digits)
    before = bits(fitted, digits)
    many = np.tile(digits.astype(np.uint8), (10_000, 1))
    with pytest.raises((MemoryError, RuntimeError), match="memory"):
        fitted.set_params(hidden_layer_sizes=(20_000,), batch_size=len(many)).fit(many)
    assert bits(fitted.set_params(hidden_layer_sizes=(16,)), digits) == before


def test_large_numbers_of_rows_go_through_in_blocks(digits):
    fitted = make(ContinuousBernoulliVAETransformer, device="cuda").fit(digits)
    X = np.tile(digits.astype(np.float32), (5000, 1))
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    latents = fitted.transform(X)
    assert torch.cuda.max_memory_allocated() - before < X.nbytes
    np.testing.assert_allclose(latents[-300:], latents[:300], rtol=1e-4, atol=1e-4)
