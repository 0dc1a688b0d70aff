"""The training loop on a loss whose minimum is known."""

import gc
import weakref

import numpy as np
import pytest
import torch
from torch import nn

from skvae._training import EarlyStopping, Trainer, _CapturedSteps


class Regression(nn.Module):
    """Mean squared error of a linear map."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))

    def loss(self, batch, generator):
        with torch.enable_grad():
            error = (batch[:, :2] @ self.weight - batch[:, 2]).square()
        share = torch.full_like(error, 1 / len(batch))
        return {"error": error.detach().sum()}, lambda: list(torch.autograd.grad(error, [self.weight], share))


class Rows:
    def __init__(self, data):
        self.data = data

    def __len__(self):
        return len(self.data)

    def __getitem__(self, rows):
        return self.data[rows]


@pytest.fixture
def rows():
    x = torch.randn(101, 2, generator=torch.Generator().manual_seed(0))
    return Rows(torch.cat([x, x @ torch.tensor([[3.0], [-2.0]])], dim=1))


def trainer(module, **options):
    generators = {name: torch.Generator().manual_seed(1) for name in ("shuffle_generator", "noise_generator")}
    return Trainer(module, **{"learning_rate": 0.1, "batch_size": 20, "clip_value": None, **generators, **options})


def run(instance, rows, n_epochs, **options):
    history = {}
    hooks = {"on_epoch_begin": lambda: None, "on_epoch_end": lambda: False, "summarize": dict}
    stopped = instance.run(rows, n_epochs, history=history, **{**hooks, **options})
    return history, stopped


def test_reaches_the_minimum(rows):
    module = Regression()
    history, stopped = run(trainer(module), rows, 100)
    assert torch.allclose(module.weight, torch.tensor([3.0, -2.0]), atol=1e-2)
    assert not stopped
    assert len(history["error"]) == 100
    assert history["error"][-1] < 1e-3 < history["error"][0]


def test_one_step_is_adam_on_the_clipped_gradient(rows):
    module, reference = Regression(), nn.Parameter(torch.zeros(2))
    run(trainer(module, batch_size=101, clip_value=0.5), rows, 3)
    adam = torch.optim.Adam([reference], lr=0.1)
    for _ in range(3):
        adam.zero_grad()
        (rows.data[:, :2] @ reference - rows.data[:, 2]).square().mean().backward()
        reference.grad.clamp_(-0.5, 0.5)
        adam.step()
    assert torch.allclose(module.weight, reference, atol=1e-5)


def test_each_epoch_has_its_own_order(rows):
    seen = []

    class Watching(Regression):
        def loss(self, batch, generator):
            seen.append(batch[:, 0].clone())
            return super().loss(batch, generator)

    run(trainer(Watching()), rows, 2)
    first, second = torch.cat(seen[:6]), torch.cat(seen[6:])
    assert not torch.equal(first, second)
    assert torch.equal(first.sort().values, rows.data[:, 0].sort().values)
    assert torch.equal(second.sort().values, rows.data[:, 0].sort().values)


def test_state_continues_to_the_bit(rows):
    whole = Regression()
    run(trainer(whole), rows, 5)
    part = Regression()
    first = trainer(part)
    run(first, rows, 3)
    state = first.state()
    assert all(isinstance(array, np.ndarray) for entry in state["adam"].values() for array in entry)
    second = trainer(part)
    second.load_state(state)
    run(second, rows, 2)
    assert torch.equal(part.weight, whole.weight)


def test_early_stopping_restores_the_best():
    module = Regression()
    stopping = EarlyStopping(n_iter_no_change=2, tol=0.1)
    scores, stopped = [1.0, 2.0, 2.05, 1.0], []
    for score in scores:
        nn.init.constant_(module.weight, score)
        stopped.append(stopping.update(score, module))
    assert stopped == [False, False, False, True]
    stopping.restore(module)
    assert module.weight.tolist() == pytest.approx([2.05, 2.05])
    assert stopping.best_score == 2.05


def test_early_stopping_with_scores_that_are_not_finite():
    module = Regression()
    stopping = EarlyStopping(n_iter_no_change=2, tol=0.0)
    assert [stopping.update(score, module) for score in (float("nan"), float("-inf"))] == [False, True]
    stopping.restore(module)


def test_divergence_in_the_last_step(rows):
    """A loss that is finite does not mean that the weights after its step are."""

    class Poisoned(Regression):
        def loss(self, batch, generator):
            terms, gradients = super().loss(batch, generator)
            return terms, lambda: [gradient * float("inf") for gradient in gradients()]

    with pytest.raises(ValueError, match="diverged in epoch 1: its last step left weights that are not finite"):
        run(trainer(Poisoned(), batch_size=200), rows, 1)


def test_parameters_without_a_gradient_stay(rows):
    class Idle(Regression):
        def __init__(self):
            super().__init__()
            self.idle = nn.Parameter(torch.ones(3))

        def loss(self, batch, generator):
            terms, gradients = super().loss(batch, generator)
            return terms, lambda: [*gradients(), None]

    module, plain = Idle(), Regression()
    run(trainer(module), rows, 2)
    run(trainer(plain), rows, 2)
    assert torch.equal(module.idle, torch.ones(3))
    assert torch.equal(module.weight, plain.weight)


def test_a_gradient_of_another_memory_layout(rows):
    """Adam runs over memory in order, so gradients are brought to the layout of their parameters."""

    class Transposed(nn.Module):
        def __init__(self, contiguous):
            super().__init__()
            self.weight, self.contiguous = nn.Parameter(torch.zeros(2, 3)), contiguous

        def loss(self, batch, generator):
            gradient = torch.arange(6.0).view(3, 2).t() - 2
            return {"error": gradient.sum()}, lambda: [gradient.contiguous() if self.contiguous else gradient]

    one, other = Transposed(True), Transposed(False)
    run(trainer(one), rows, 1)
    run(trainer(other), rows, 1)
    assert torch.equal(one.weight, other.weight)


def test_recorded_steps_are_the_ordinary_ones(rows):
    """All of a recorded step but the recording itself, which takes a CUDA device."""

    class Noisy(Regression):
        def loss(self, batch, generator):
            return super().loss(batch + torch.randn(batch.shape, generator=generator), generator)

    class Recorded(_CapturedSteps):
        _N_ORDINARY = 2

        def _record(self, step, held):
            return lambda: step(held)

    ordinary, recorded = Noisy(), Noisy()
    history, _ = run(trainer(ordinary), rows, 6)
    instance = trainer(recorded)
    instance._captured = steps = Recorded(instance.noise_generator)
    assert run(instance, rows, 6)[0] == history
    assert torch.equal(recorded.weight, ordinary.weight)
    assert {tuple(shape) for shape in steps._recorded} == {(20, 3), (1, 3)}


def test_a_parameter_that_joins_late_starts_from_the_first_step(rows):
    """Adam's correction of its moments counts the steps of each parameter."""

    class Late(Regression):
        n_calls = 0

        def __init__(self):
            super().__init__()
            self.late = nn.Parameter(torch.zeros(1))

        def loss(self, batch, generator):
            self.n_calls += 1
            terms, gradients = super().loss(batch, generator)
            return terms, lambda: [*gradients(), torch.ones(1) if self.n_calls > 30 else None]

    module = Late()
    run(trainer(module, batch_size=200), rows, 31)
    assert float(module.late.detach()) == pytest.approx(-0.1)


def test_nothing_to_train(rows):
    class Idle(Regression):
        def loss(self, batch, generator):
            return {"error": batch.sum()}, lambda: [None]

    with pytest.raises(ValueError, match="the loss depends on no parameter"):
        run(trainer(Idle()), rows, 1)


def test_a_trainer_goes_away_with_its_last_reference(rows):
    instance = trainer(Regression())
    run(instance, rows, 1)
    gone = weakref.ref(instance)
    gc.disable()
    try:
        del instance
        assert gone() is None
    finally:
        gc.enable()
