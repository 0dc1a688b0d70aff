"""The run, its optimizer and its hooks, on a model whose minimum is known."""

import dataclasses
import gc
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from skvae._data.rows import Batch, Rows, Units
from skvae._fit.distributed import Group
from skvae._fit.graphs import RecordedSteps
from skvae._fit.hooks import EarlyStopping
from skvae._fit.run import Hook, Run, Seeds
from skvae._fit.schedule import Plan
from skvae._model.vae import Terms

CPU = torch.device("cpu")
UNITS = Units(0.0, 1.0)


class Regression(nn.Module):
    """A linear map whose squared error stands for minus the log likelihood, with all that a run asks of a model."""

    capturable = False
    device, n_features, units = CPU, 3, UNITS
    inner_weights: tuple[nn.Parameter, ...] = ()

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))
        self.likelihood = SimpleNamespace(log_prob=lambda x, parameters: x)

    def error(self, x):
        return (x[:, :2] @ self.weight - x[:, 2]).square().sum()

    def terms(self, batch, noise):
        return Terms(-self.error(batch.x), torch.zeros(()))

    def posterior(self, batch):
        return batch.x, batch.x

    def decoder(self, z):
        return z


@pytest.fixture
def rows():
    x = torch.randn(101, 2, generator=torch.Generator().manual_seed(0))
    return Rows(torch.cat([x, x @ torch.tensor([[3.0], [-2.0]])], dim=1).numpy(), UNITS, CPU)


PLAN = Plan(
    n_epochs=5, batch_size=20, learning_rate=0.1, schedule="constant", weight_decay=0.0, clip_value=None, beta=1.0
)


def make_run(model, rows, *, history=None, hooks=(), **options):
    plan = dataclasses.replace(PLAN, **options)
    return Run(model, rows, Seeds(0, 0, 1, 1, 0), Group(), plan, history=history or {}, hooks=hooks)


def trained(model, rows, n_epochs, **options):
    run = make_run(model, rows, n_epochs=n_epochs, **options)
    run.train()
    return run


def test_reaches_the_minimum(rows):
    model = Regression()
    run = trained(model, rows, 100)
    assert torch.allclose(model.weight, torch.tensor([3.0, -2.0]), atol=1e-2)
    assert not run.stopped
    assert len(run.history["loss"]) == run.epoch == run.n_done == 100
    assert run.history["loss"][-1] < 1e-3 < run.history["loss"][0]


def test_one_step_is_adam_on_the_clipped_gradient(rows):
    model, reference = Regression(), nn.Parameter(torch.zeros(2))
    trained(model, rows, 3, batch_size=101, clip_value=0.5)
    adam = torch.optim.Adam([reference], lr=0.1)
    x = rows[:].x
    for _ in range(3):
        adam.zero_grad()
        (x[:, :2] @ reference - x[:, 2]).square().mean().backward()
        reference.grad.clamp_(-0.5, 0.5)
        adam.step()
    assert torch.allclose(model.weight, reference, atol=1e-5)


def test_each_epoch_has_its_own_order(rows):
    seen = []

    class Watching(Regression):
        def terms(self, batch, noise):
            seen.append(batch.x[:, 0].clone())
            return super().terms(batch, noise)

    trained(Watching(), rows, 2)
    first, second = torch.cat(seen[:6]), torch.cat(seen[6:])
    assert not torch.equal(first, second)
    assert torch.equal(first.sort().values, rows[:].x[:, 0].sort().values)
    assert torch.equal(second.sort().values, rows[:].x[:, 0].sort().values)


def test_the_state_of_a_run_goes_on_to_the_bit(rows):
    whole = Regression()
    expected = trained(whole, rows, 5)
    state = trained(Regression(), rows, 3).state()
    assert all(isinstance(array, np.ndarray) for entry in state["optimizer"].values() for array in entry)
    model = Regression()
    run = make_run(model, rows)
    run.load_state(state)
    assert run.n_done == 3
    run.train()
    assert torch.equal(model.weight, whole.weight)
    assert run.history == expected.history


class Scores(Hook):
    """Give the model, epoch by epoch, these weights and these validation scores."""

    def __init__(self, scores):
        self.scores = scores

    def end_epoch(self, run):
        score = self.scores[run.n_done - 1]
        nn.init.constant_(run.model.weight, score)
        run.history.setdefault("validation_elbo", [0.0] * run.epoch)[-1] = score

    def score(self, run):
        return float(run.model.weight.detach().mean())


def test_early_stopping_keeps_the_best(rows):
    model = Regression()
    scores = [1.0, 2.0, 2.05, 1.0, 9.0]
    validation = Scores(scores)
    run = trained(model, rows, 5, hooks=[validation, EarlyStopping(validation, n_iter_no_change=2, tol=0.1)])
    assert run.stopped
    assert run.n_done == 4
    assert model.weight.tolist() == pytest.approx([2.05, 2.05])
    results = run.results()
    assert results["best_validation_score_"] == pytest.approx(2.05)
    assert results["validation_scores_"] == scores[:4]


def test_early_stopping_with_scores_that_are_not_finite(rows):
    validation = Scores([float("-inf"), float("-inf")])
    hooks = [validation, EarlyStopping(validation, n_iter_no_change=2, tol=0.0)]
    run = make_run(Regression(), rows, hooks=hooks)
    hooks[0].scores = [0.0, 0.0]
    run.history["validation_elbo"] = [float("nan")]
    assert hooks[1].end_epoch(run) is False
    run.history["validation_elbo"].append(float("-inf"))
    assert hooks[1].end_epoch(run) is True


class Recorder(Hook):
    def __init__(self, stop_after=None):
        self.events, self.stop_after = [], stop_after

    def begin_run(self, run):
        self.events.append(("run", run.n_done, run.stopped))

    def begin_epoch(self, run):
        self.events.append(("begin", run.n_done, run.stopped))

    def end_epoch(self, run):
        self.events.append(("end", run.n_done, run.stopped))
        return run.n_done == self.stop_after

    def end_run(self, run):
        self.events.append(("over", run.n_done, run.stopped))


def test_hooks_come_in_turn_and_see_what_those_before_them_asked_for(rows):
    first, second = Recorder(stop_after=2), Recorder()
    assert trained(Regression(), rows, 9, hooks=[first, second]).stopped
    common = [("run", 0, False), ("begin", 0, False), ("end", 1, False), ("begin", 1, False)]
    assert first.events == [*common, ("end", 2, False), ("over", 2, True)]
    assert second.events == [*common, ("end", 2, True), ("over", 2, True)]


def test_a_run_that_has_nothing_left_to_do(rows):
    run = make_run(Regression(), rows, hooks=[recorder := Recorder()])
    run.stopped = True
    run.train()
    assert recorder.events == [("over", 0, True)]


def test_a_record_that_only_some_epochs_have_stays_aligned(rows):
    run = trained(Regression(), rows, 2, history={"loss": [1.0], "elbo": [1.0], "validation_elbo": [0.5]})
    assert len(run.history["loss"]) == len(run.history["validation_elbo"]) == 3
    assert np.isnan(run.history["validation_elbo"][1:]).all()


def test_divergence_in_the_last_step(rows):
    """A loss that is finite does not mean that the weights after its step are."""

    class Poisoned(Regression):
        def error(self, x):
            return super().error(x) + (float("inf") * self.weight.sum()).nan_to_num(0.0, 0.0, 0.0)

    with pytest.raises(ValueError, match="diverged in epoch 1: its last step left weights that are not finite"):
        trained(Poisoned(), rows, 1, batch_size=200)


def test_parameters_without_a_gradient_stay(rows):
    class Idle(Regression):
        def __init__(self):
            super().__init__()
            self.idle = nn.Parameter(torch.ones(3))

    model, plain = Idle(), Regression()
    trained(model, rows, 2)
    trained(plain, rows, 2)
    assert torch.equal(model.idle, torch.ones(3))
    assert torch.equal(model.weight, plain.weight)


def test_a_gradient_of_another_memory_layout(rows):
    """Adam runs over memory in order, so gradients are brought to the layout of their parameters."""

    class Transposed(Regression):
        def __init__(self, contiguous):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(2, 3))
            self.contiguous = contiguous

        def error(self, x):
            factor = torch.arange(6.0).view(3, 2).t() - 2
            return _Scaled.apply(self.weight, factor.contiguous() if self.contiguous else factor)

    one, other = Transposed(True), Transposed(False)
    trained(one, rows, 1)
    trained(other, rows, 1)
    assert one.weight.any()
    assert torch.equal(one.weight, other.weight)


class _Scaled(torch.autograd.Function):
    """A product whose gradient is the factor as it lies in memory."""

    @staticmethod
    def forward(ctx, weight, factor):
        ctx.factor = factor
        return (weight * factor).sum()

    @staticmethod
    def backward(ctx, gradient):
        return ctx.factor, None


class RowsOnADevice(Rows):
    is_resident = True

    def place(self, rows):
        return rows


def test_recorded_steps_are_the_ordinary_ones(rows):
    """All of a recorded step but the recording itself, which takes a CUDA device."""

    class Noisy(Regression):
        def terms(self, batch, noise):
            return super().terms(Batch(batch.x + noise.normal(batch.x.shape)), noise)

    class Recorded(RecordedSteps):
        n_ordinary = 2

        def _record(self, step, held):
            return lambda: step(held)

    ordinary, recorded = Noisy(), Noisy()
    expected = trained(ordinary, rows, 6)
    run = make_run(recorded, RowsOnADevice(rows.X, UNITS, CPU), n_epochs=6)
    run._recorded_steps = steps = Recorded(run.noise.generator)
    run.train()
    assert run.history == expected.history
    assert torch.equal(recorded.weight, ordinary.weight)
    assert set(steps._recorded) == {20, 1}


def test_a_parameter_that_joins_late_starts_from_the_first_step(rows):
    """Adam's correction of its moments counts the steps of each parameter."""

    class Late(Regression):
        n_calls = 0

        def __init__(self):
            super().__init__()
            self.late = nn.Parameter(torch.zeros(1))

        def error(self, x):
            self.n_calls += 1
            return super().error(x) + (len(x) * self.late.sum() if self.n_calls > 30 else 0)

    model = Late()
    trained(model, rows, 31, batch_size=200)
    assert float(model.late.detach()) == pytest.approx(-0.1)


def test_nothing_to_train(rows):
    class Idle(Regression):
        def error(self, x):
            return x.sum()

    with pytest.raises(ValueError, match="the loss depends on no parameter"):
        trained(Idle(), rows, 1)


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_the_learning_rate_of_each_step(rows, schedule):
    """A cosine falls from the first step, at learning_rate, to 0 after the last."""
    seen = []

    class Watching(Regression):
        def terms(self, batch, noise):
            seen.append(float(run.optimizer.learning_rate))
            return super().terms(batch, noise)

    run = make_run(Watching(), rows, n_epochs=3, schedule=schedule)
    run.train()
    n_steps = 3 * 6
    expected = 0.05 * (1 + np.cos(np.pi * np.arange(n_steps) / n_steps)) if schedule == "cosine" else [0.1] * n_steps
    assert seen == pytest.approx(list(expected), rel=1e-6)


def test_a_cosine_is_that_of_the_whole_fit_after_an_interruption(rows):
    whole, model = Regression(), Regression()
    expected = trained(whole, rows, 5, schedule="cosine")
    part = make_run(model, rows, n_epochs=5, schedule="cosine")
    for _ in range(2):
        part.train_epoch()
    resumed = make_run(Regression(), rows, n_epochs=5, schedule="cosine")
    resumed.load_state(part.state())
    resumed.train()
    assert torch.equal(resumed.model.weight, whole.weight)
    assert resumed.history == expected.history


def test_weight_decay_is_decoupled_and_of_the_inner_weights_alone(rows):
    """Each step takes learning_rate * weight_decay of them away, whatever the gradient is."""

    class Decaying(Regression):
        def __init__(self):
            super().__init__()
            self.inner = nn.Parameter(torch.tensor([3.0, -2.0]))

        @property
        def inner_weights(self):
            return [self.inner]

        def error(self, x):
            return super().error(x) + 0 * self.inner.sum()

    model, plain = Decaying(), Regression()
    trained(model, rows, 2, weight_decay=0.25, schedule="cosine")
    trained(plain, rows, 2, schedule="cosine")
    rates = 0.05 * (1 + np.cos(np.pi * np.arange(12) / 12))
    factor = np.prod(1 - 0.25 * rates)
    torch.testing.assert_close(model.inner.detach(), float(factor) * torch.tensor([3.0, -2.0]))
    assert torch.equal(model.weight, plain.weight)


def test_the_weight_of_the_kl_term_may_change(rows):
    class WithKL(Regression):
        def terms(self, batch, noise):
            return Terms(0 * self.weight.sum(), (self.weight - 5).square().sum())

    class WarmUp(Hook):
        def begin_epoch(self, run):
            run.beta = float(run.n_done >= 2)
            if run.n_done == 2:
                assert not run.model.weight.any()

    model = WithKL()
    trained(model, rows, 30, hooks=[WarmUp()])
    assert float(model.weight.detach().mean()) > 1


def test_a_run_goes_away_with_its_last_reference(rows):
    run = trained(Regression(), rows, 1)
    gone = weakref.ref(run)
    gc.disable()
    try:
        del run
        assert gone() is None
    finally:
        gc.enable()
