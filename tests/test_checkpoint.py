"""An interrupted fit goes on to the same bits, whatever interrupted it, and a checkpoint is never lost to a mishap."""

import collections
import dataclasses
import datetime
import decimal
import errno
import functools
import json
import logging
import operator
import os
import pickle
import re
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

from skvae import NormalVAETransformer
from skvae._data.fingerprint import fingerprint
from skvae._fit.checkpoint import Checkpoint
from skvae.callbacks import SampleMonitor
from skvae.likelihoods import NormalLikelihood

from conftest import Callback, bits, make

CONFIGURATIONS = {
    "plain": {},
    "dropout": {"dropout": 0.2, "encoder": "auto"},
    "early stopping": {"early_stopping": True, "n_iter_no_change": 2, "tol": 3.0, "max_iter": 8},
    "a custom encoder": {"encoder": torch.nn.Sequential(torch.nn.Linear(64, 6), torch.nn.Dropout(0.5))},
}


class InterruptAfter(Callback):
    """A callback that interrupts the fit after some epochs."""

    def __init__(self, n_epochs):
        self.n_left = n_epochs

    def on_fit_task_end(self, estimator, context):
        if context.task_name == "epoch":
            self.n_left -= 1
            if self.n_left == 0:
                raise KeyboardInterrupt


def interrupt(estimator, X, n_epochs, **fit_params):
    with pytest.raises(KeyboardInterrupt):
        estimator.set_callbacks(InterruptAfter(n_epochs)).fit(X, **fit_params)
    estimator.set_callbacks()


def outcome(estimator, X):
    curves = estimator.history_, estimator.loss_curve_, estimator.validation_scores_, estimator.best_validation_score_
    return bits(estimator, X), repr(curves), estimator.n_iter_  # NaN is not equal to itself


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_goes_on_to_the_same_bits(estimator_class, configuration, digits, tmp_path):
    estimator = make(estimator_class, **{"max_iter": 5, **CONFIGURATIONS[configuration]})
    expected = outcome(estimator.fit(digits), digits)
    estimator = clone(estimator).set_params(checkpoint=tmp_path / "fit")
    interrupt(estimator, digits, 1)
    interrupt(clone(estimator), digits, 2)
    assert not hasattr(estimator, "module_")
    assert outcome(estimator.fit(digits), digits) == expected


def test_a_finished_fit_is_read_and_not_repeated(estimator_class, digits, tmp_path, monkeypatch):
    for configuration in ({}, CONFIGURATIONS["early stopping"]):
        estimator = make(estimator_class, checkpoint=tmp_path / f"fit{len(configuration)}", **configuration)
        expected = outcome(estimator.fit(digits), digits)
        with monkeypatch.context() as patch:
            patch.setattr("skvae._fit.run.Run.train_epoch", lambda *args: pytest.fail("trained again"))
            assert outcome(clone(estimator).fit(digits), digits) == expected


def test_validation_data_and_warm_starts(estimator_class, digits, tmp_path):
    first = make(estimator_class, warm_start=True).fit(digits)
    stored = pickle.dumps(first)
    expected = outcome(first.fit(digits[:200], X_val=digits[200:]), digits)
    again = pickle.loads(stored).set_params(checkpoint=tmp_path / "fit")
    interrupt(again, digits[:200], 2, X_val=digits[200:])
    continued = pickle.loads(stored).set_params(checkpoint=tmp_path / "fit")
    assert outcome(continued.fit(digits[:200], X_val=digits[200:]), digits) == expected
    assert len(continued.loss_curve_) == 8
    with pytest.raises(ValueError, match="module_ before was"):
        continued.fit(digits[:200], X_val=digits[200:])  # this would be a second warm start


@pytest.mark.parametrize("random_state", [None, np.random.RandomState(3)], ids=["None", "RandomState"])
def test_seeds_that_are_drawn_are_kept(estimator_class, random_state, digits, tmp_path):
    estimator = make(estimator_class, random_state=random_state, checkpoint=tmp_path / "fit", early_stopping=True)
    estimator.set_params(n_iter_no_change=50)
    stored = pickle.dumps(estimator)
    interrupt(estimator, digits, 2)
    with pytest.warns(match="Early stopping did not set in"):
        fitted = estimator.fit(digits)
    assert fitted.history_["elbo"][:2] == Checkpointed(tmp_path / "fit").history["elbo"][:2]
    with pytest.warns(match="Early stopping did not set in"):
        assert outcome(pickle.loads(stored).fit(digits), digits) == outcome(fitted, digits)


class Checkpointed:
    """What a checkpoint holds, whatever it is of."""

    def __init__(self, path):
        with np.load(path) as archive:
            identity = json.loads(archive["content"].tobytes())["identity"]
        history = Checkpoint(path, identity).load()["run"]["history"]
        self.history = {name: values.tolist() for name, values in history.items()}


def test_each_epoch_is_written(estimator_class, digits, tmp_path):
    estimator = make(estimator_class, checkpoint=tmp_path / "fit", max_iter=5)
    interrupt(estimator, digits, 3)
    # The epoch in whose callbacks it was interrupted is not over.
    assert len(Checkpointed(tmp_path / "fit").history["elbo"]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["fit"]


@pytest.mark.parametrize(
    ("change", "culprit"),
    [
        ({"beta": 2.0}, "beta was 1.0 and is 2.0"),
        ({"n_components": 4}, "n_components was 3 and is 4"),
        ({"max_iter": 9}, "max_iter was 4 and is 9"),
        ({"random_state": 1}, "random_state was 0 and is 1"),
        ({"encoder": torch.nn.Linear(64, 6)}, "encoder was '.*' and is Linear with sha256"),
    ],
)
def test_another_training_is_an_error(estimator_class, change, culprit, digits, tmp_path):
    path = tmp_path / "fit"
    make(estimator_class, checkpoint=path).fit(digits)
    before = path.read_bytes()
    estimator = make(estimator_class).fit(digits)
    expected = bits(estimator, digits)
    with pytest.raises(ValueError, match=f"is that of another training: {culprit}.*delete the file"):
        estimator.set_params(checkpoint=path, **change).fit(digits)
    assert path.read_bytes() == before
    assert bits(estimator, digits) == expected


def test_other_data_is_an_error(estimator_class, digits, tmp_path):
    path = tmp_path / "fit"
    make(estimator_class, checkpoint=path).fit(digits)
    changed = digits.copy()
    changed[17, 5] += 1
    for X in (changed, digits[:-1], digits[::-1], digits.astype(np.float32)):
        with pytest.raises(ValueError, match="another training: X was float64 array of shape"):
            make(estimator_class, checkpoint=path).fit(X)
    with pytest.raises(ValueError, match="X_val was None"):
        make(estimator_class, checkpoint=path).fit(digits, X_val=digits)
    # The same data in another layout.
    make(estimator_class, checkpoint=path).fit(np.asfortranarray(digits))


def test_a_file_that_is_no_checkpoint_is_left_alone(estimator_class, digits, tmp_path):
    path = tmp_path / "fit"
    make(estimator_class, checkpoint=path).fit(digits)
    whole = path.read_bytes()
    np.savez(tmp_path / "foreign.npz", a=np.ones(3))
    np.save(tmp_path / "foreign.npy", np.ones(3))
    foreign = [(tmp_path / name).read_bytes() for name in ("foreign.npz", "foreign.npy")]
    cut = [whole[: len(whole) * i // 7] for i in range(7)]
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 255
    for content in (*cut, *foreign, bytes(flipped), b"my thesis", pickle.dumps([1, 2])):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="cannot be read as a checkpoint: .*It was left as it is"):
            make(estimator_class, checkpoint=path).fit(digits)
        assert path.read_bytes() == content


def test_nowhere_to_write_is_found_out_before_any_epoch(estimator_class, digits, tmp_path, monkeypatch):
    monkeypatch.setattr("skvae._fit.run.Run.train_epoch", lambda *args: pytest.fail("an epoch was spent"))
    with pytest.raises(OSError, match="cannot be written: No such file or directory"):
        make(estimator_class, checkpoint=tmp_path / "missing" / "fit").fit(digits)
    (tmp_path / "folder").mkdir()
    for path, problem in ((tmp_path / "folder", "is a folder"), ("", "is a folder"), ("a\0b", "is not a path")):
        with pytest.raises(ValueError, match=f"checkpoint=.*{problem}"):
            make(estimator_class, checkpoint=path).fit(digits)
    (tmp_path / "closed").mkdir(mode=0o500)
    if os.access(tmp_path / "closed", os.W_OK):  # the superuser may write anywhere
        monkeypatch.setattr("builtins.open", refuse(open))
    with pytest.raises(OSError, match="cannot be written: Permission denied"):
        make(estimator_class, checkpoint=tmp_path / "closed" / "fit").fit(digits)


def refuse(function):
    """Return `open` as somebody without the right to write finds it."""

    def refusing(path, mode="r", *args, **kwargs):
        if ".skvae-part-" in str(path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return function(path, mode, *args, **kwargs)

    return refusing


def test_a_full_disk_leaves_the_last_checkpoint(estimator_class, digits, tmp_path, monkeypatch):
    estimator = make(estimator_class, max_iter=6)
    expected = outcome(estimator.fit(digits), digits)
    path = tmp_path / "fit"
    calls, savez = [], np.savez

    def full(file, **arrays):
        calls.append(None)
        if len(calls) == 4:
            file.write(b"x" * 100)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        savez(file, **arrays)

    monkeypatch.setattr(np, "savez", full)
    before = bits(estimator, digits)
    with pytest.raises(OSError, match="cannot be written: No space left on device. Whatever it held before is"):
        estimator.set_params(checkpoint=path).fit(digits)
    assert bits(estimator, digits) == before
    assert len(Checkpointed(path).history["elbo"]) == 2
    assert [file.name for file in tmp_path.iterdir()] == ["fit"]
    assert outcome(clone(estimator).fit(digits), digits) == expected


def test_files_that_may_not_grow(estimator_class, digits, tmp_path):
    resource = pytest.importorskip("resource", reason="needs a system with limits on files")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match="cannot be written: File too large"):
            make(estimator_class, checkpoint=tmp_path / "fit").fit(digits)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_a_cold_fit_does_not_go_on_from_a_warm_one(estimator_class, digits, tmp_path):
    path = tmp_path / "fit"
    warm = make(estimator_class, warm_start=True).fit(digits * 100 + 7)
    cold = clone(warm).set_params(checkpoint=path)
    warm.set_params(checkpoint=path).fit(digits * 100 + 7)
    with pytest.raises(ValueError, match="another training: .*module_ before was VAE .* and is not there"):
        cold.fit(digits * 100 + 7)


def test_a_subclass_is_another_training(estimator_class, digits, tmp_path):
    make(estimator_class, checkpoint=tmp_path / "fit").fit(digits)
    subclass = type("Subclass", (estimator_class,), {})
    with pytest.raises(ValueError, match="another training: estimator was .*Transformer and is .*Subclass"):
        subclass(**make(estimator_class, checkpoint=tmp_path / "fit").get_params()).fit(digits)


class Gain(torch.nn.Module):
    """A module with a number that is no weight, state of its own, and a layer that is made when it is first used."""

    def __init__(self, gain):
        super().__init__()
        self.gain = gain
        self.linear = torch.nn.LazyLinear(6)
        self.register_buffer("offset", torch.zeros((), dtype=torch.bfloat16))

    def forward(self, x):
        return self.gain * self.linear(x) + self.offset

    def get_extra_state(self):
        return {"calls": [1, 2.5, None]}

    def set_extra_state(self, state):
        assert state == {"calls": [1, 2.5, None]}


@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_modules_of_every_kind(estimator_class, digits, tmp_path):
    estimator = make(estimator_class, encoder=Gain(1.0), early_stopping=True, n_iter_no_change=1, tol=1e6)
    expected = outcome(estimator.fit(digits), digits)
    estimator = make(estimator_class, **estimator.get_params() | {"checkpoint": tmp_path / "fit"})
    interrupt(estimator, digits, 1)
    assert outcome(estimator.fit(digits), digits) == expected
    with pytest.raises(ValueError, match="another training: encoder was Gain"):
        estimator.set_params(encoder=Gain(3.0)).fit(digits)


def test_numbers_of_numpy_for_parameters(estimator_class, digits, tmp_path):
    numbers = {"beta": np.float32(1), "early_stopping": np.True_, "n_iter_no_change": np.int64(1), "tol": np.float32(9)}
    estimator = make(estimator_class, **numbers, checkpoint=tmp_path / "fit").fit(digits)
    assert outcome(clone(estimator).fit(digits), digits) == outcome(estimator, digits)


class StopAfter(Callback):
    """A callback that stops the fit after some epochs."""

    def on_fit_task_end(self, estimator, context, *, fitted_estimator=None):
        return context.task_name == "epoch" and fitted_estimator.n_iter_ >= 2


def test_what_a_callback_has_stopped_stays_stopped(estimator_class, digits, tmp_path):
    estimator = make(estimator_class, checkpoint=tmp_path / "fit").set_callbacks(StopAfter())
    expected = outcome(estimator.fit(digits), digits)
    assert estimator.n_iter_ == 2
    for _ in range(2):
        assert outcome(estimator.fit(digits), digits) == expected


def test_epochs_are_counted_on(estimator_class, digits, tmp_path, capsys):
    estimator = make(estimator_class, max_iter=6, checkpoint=tmp_path / "fit")
    interrupt(estimator, digits, 3)
    monitor = SampleMonitor(epochs=(2, 4, 6), random_state=0)
    estimator.set_params(verbose=1).set_callbacks(monitor).fit(digits)
    assert list(monitor.get_samples()[0]) == [4, 6]
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()] == ["3/6", "4/6", "5/6", "6/6"]


def test_a_link_is_followed_and_a_relative_path_stays_where_it_is(estimator_class, digits, tmp_path, monkeypatch):
    (tmp_path / "scratch").mkdir()
    (tmp_path / "fit").symlink_to(tmp_path / "scratch" / "fit")
    make(estimator_class, checkpoint=tmp_path / "fit").fit(digits)
    assert (tmp_path / "fit").is_symlink()
    assert [path.name for path in (tmp_path / "scratch").iterdir()] == ["fit"]

    class Wander(Callback):
        def on_fit_task_end(self, estimator, context):
            monkeypatch.chdir(tmp_path / "scratch")

    monkeypatch.chdir(tmp_path)
    make(estimator_class, checkpoint="relative").set_callbacks(Wander()).fit(digits)
    assert (tmp_path / "relative").exists()
    assert not (tmp_path / "scratch" / "relative").exists()


def test_two_writers_do_not_disturb_each_other(estimator_class, digits, tmp_path):
    expected = outcome(make(estimator_class, max_iter=20).fit(digits), digits)
    path = tmp_path / "fit"
    with ThreadPoolExecutor(3) as pool:
        fits = [pool.submit(make(estimator_class, max_iter=20, checkpoint=path).fit, digits) for _ in range(3)]
        while not all(fit.done() for fit in fits):
            if path.exists():
                Checkpointed(path)
    assert [outcome(fit.result(), digits) for fit in fits] == [expected] * 3
    assert [file.name for file in tmp_path.iterdir()] == ["fit"]


def test_what_was_left_of_a_write_is_removed_in_time(estimator_class, digits, tmp_path):
    old, new, foreign = (tmp_path / name for name in (".fit.skvae-part-1", ".fit.skvae-part-2", "fit.part"))
    for path in (old, new, foreign):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    os.utime(foreign, (0, 0))
    make(estimator_class, checkpoint=tmp_path / "fit").fit(digits)
    assert not old.exists()
    assert new.exists()
    assert foreign.exists()


def test_partial_fit_takes_no_notice(estimator_class, digits, tmp_path):
    estimator = make(estimator_class, checkpoint=tmp_path / "fit").partial_fit(digits)
    assert list(tmp_path.iterdir()) == []
    assert estimator.n_iter_ == 1


# Forks a fit again and again and kills it, each time at another moment, until one comes to its end.
KILLER = """
import os, pickle, random, signal, sys, time
import numpy as np
from skvae import *

estimator, X, path, seed = pickle.load(open(sys.argv[1], "rb"))
moments = random.Random(seed)

def fit():
    estimator.set_params(checkpoint=path).fit(X)
    with open(path + ".model", "wb") as file:
        pickle.dump(estimator, file)

def kill(*args):
    os.kill(os.getpid(), signal.SIGKILL)

def fork(n_kills):
    child = os.fork()
    if child:
        return child
    try:
        # Every third one dies in a write: in the middle of the file, before it is moved, or after.
        function, n_calls = [("savez", 0), (None, 0), (None, 0), ("replace", 0), (None, 0), (None, 0)][n_kills % 6]
        if function == "savez":
            def half(file, **arrays):
                file.write(b"PK" + bytes(1000))
                file.flush()
                kill()
            savez, calls = np.savez, []
            np.savez = lambda file, **arrays: (calls.append(0), (half if len(calls) == 3 else savez)(file, **arrays))
        elif function == "replace":
            replace, calls = os.replace, []
            os.replace = lambda *args: (calls.append(0), (kill if len(calls) == 2 else replace)(*args))
        fit()
        os._exit(0)
    except BaseException:
        import traceback
        traceback.print_exc()
        os._exit(1)

start = time.monotonic()
estimator.fit(X)
duration = time.monotonic() - start
n_kills = 0
while True:
    child = fork(n_kills)
    deadline = time.monotonic() + moments.uniform(0, duration / 12)
    status = None
    while status is None and time.monotonic() < deadline:
        done, result = os.waitpid(child, os.WNOHANG)
        status = result if done else None
        time.sleep(0.001)
    if status is None and n_kills < 50:
        os.kill(child, signal.SIGKILL)
    if status is None:
        _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        n_kills += 1
        continue
    print(n_kills if status == 0 else "failed")
    break
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("configuration", ["plain", "early stopping"])
def test_killed_again_and_again(estimator_class, configuration, digits, tmp_path):
    parameters = {**CONFIGURATIONS[configuration], "max_iter": 60, "hidden_layer_sizes": (64,)}
    if configuration == "early stopping":
        parameters |= {"n_iter_no_change": 60}
    estimator = make(estimator_class, **parameters)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        expected = clone(estimator).fit(digits)
    path = tmp_path / "fit"
    (tmp_path / "task").write_bytes(pickle.dumps((estimator, digits, str(path), 0)))
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", KILLER, tmp_path / "task"],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert int(run.stdout) >= 20, run.stderr
    fitted = pickle.loads((tmp_path / "fit.model").read_bytes())
    assert outcome(fitted, digits) == outcome(expected, digits)


def test_a_clear_error_where_nothing_can_be_removed(estimator_class, digits, tmp_path):
    with pytest.raises(OSError, match="The checkpoint .* cannot be written: File name too long"):
        make(estimator_class, checkpoint=tmp_path / ("x" * 250)).fit(digits)


def test_a_finished_fit_is_read_where_nothing_can_be_written(estimator_class, digits, tmp_path, monkeypatch):
    estimator = make(estimator_class, checkpoint=tmp_path / "fit")
    expected = outcome(estimator.fit(digits), digits)
    monkeypatch.setattr(Checkpoint, "save", lambda *args: pytest.fail("written again"))
    assert outcome(clone(estimator).fit(digits), digits) == expected


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_pipes_and_devices_are_refused(estimator_class, digits, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(ValueError, match="is a device or a pipe; a path of a file is expected"):
            make(estimator_class, checkpoint=path).fit(digits)


def test_another_bit_generator(estimator_class, digits, tmp_path):
    def estimator(seed):
        return make(estimator_class, random_state=np.random.RandomState(np.random.PCG64(seed)))

    expected = outcome(estimator(0).fit(digits), digits)
    for _ in range(2):
        assert outcome(estimator(0).set_params(checkpoint=tmp_path / "fit").fit(digits), digits) == expected
    with pytest.raises(ValueError, match="another training: random_state was RandomState"):
        estimator(1).set_params(checkpoint=tmp_path / "fit").fit(digits)


def test_another_version_or_another_content(estimator_class, digits, tmp_path, monkeypatch):
    path = tmp_path / "fit"
    interrupt(make(estimator_class, checkpoint=path), digits, 1)
    with monkeypatch.context() as patch:
        patch.setattr("skvae._data.fingerprint.__version__", "9.9")
        with pytest.raises(ValueError, match="another training: skvae was .* and is 9.9"):
            make(estimator_class, checkpoint=path).fit(digits)
    with np.load(path) as archive:
        identity = json.loads(archive["content"].tobytes())["identity"]
    state = Checkpoint(path, identity).load()
    state["run"]["weights"].popitem()
    Checkpoint(path, identity).save(state)
    with pytest.raises(ValueError, match="cannot be read as a checkpoint: .*delete the file"):
        make(estimator_class, checkpoint=path).fit(digits)


class Counting(torch.nn.Linear):
    def get_extra_state(self):
        return {0: 1}

    def set_extra_state(self, state):
        pass


@pytest.mark.draws_globally
def test_keys_that_json_would_change(estimator_class, digits, tmp_path):
    with pytest.raises(TypeError, match="dicts of them whose keys are strings"):
        make(estimator_class, encoder=Counting(64, 6), checkpoint=tmp_path / "fit").fit(digits)
    assert list(tmp_path.iterdir()) == []


MODULE = """
import torch

FACTOR = {factor}

def helper(x):
    return x.{function}()

class Encoder(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(64, 6)
        torch.nn.init.constant_(self.linear.weight, 0.01)
        torch.nn.init.zeros_(self.linear.bias)
        self.list = {list}
        self.function = torch.{attribute}
        self.register_buffer("hidden", torch.full((6,), {buffer}), persistent=False)

    def forward(self, x):
        return FACTOR * {body}
"""
UNCHANGED = {
    "factor": "1.0",
    "function": "abs",
    "list": "[1, {'a': (2, 3)}]",
    "attribute": "tanh",
    "buffer": "0.5",
    "body": "self.function(self.linear(helper(x))) + self.hidden",
}


def module_of_source(**changes):
    namespace = {}
    exec(MODULE.format(**UNCHANGED | changes), namespace)
    return namespace["Encoder"]()


@pytest.mark.draws_globally
@pytest.mark.filterwarnings("ignore:0 of 3 components are active")
@pytest.mark.parametrize(
    "change",
    [
        {"factor": "2.0"},
        {"function": "square"},
        {"list": "[1, {'a': (2, 4)}]"},
        {"attribute": "sigmoid"},
        {"buffer": "0.25"},
        {"body": "self.function(self.linear(helper(x)))"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_module_that_computes_something_else_is_another_training(change, digits, tmp_path):
    path = tmp_path / "fit"
    first = make(NormalVAETransformer, encoder=module_of_source(), checkpoint=path).fit(digits)
    again = make(NormalVAETransformer, encoder=module_of_source(), checkpoint=path).fit(digits)
    assert bits(again, digits) == bits(first, digits)
    with pytest.raises(ValueError, match="another training: encoder was Encoder with sha256"):
        make(NormalVAETransformer, encoder=module_of_source(**change), checkpoint=path).fit(digits)


class WithAnIterator(torch.nn.Linear):
    def __init__(self):
        super().__init__(64, 6)
        self.items = memoryview(b"12")

    def __deepcopy__(self, memo):
        return torch.nn.Linear(64, 6)


@pytest.mark.draws_globally
def test_what_cannot_be_compared_is_refused(digits, tmp_path):
    make(NormalVAETransformer, encoder=WithAnIterator(), max_iter=1).fit(digits)
    with pytest.raises(ValueError, match="encoder cannot be compared .*: a memoryview, .*fit without checkpoint"):
        make(NormalVAETransformer, encoder=WithAnIterator(), checkpoint=tmp_path / "fit").fit(digits)
    assert list(tmp_path.iterdir()) == []


def test_arrays_are_compared_by_their_bytes():
    array = np.arange(3000.0)
    changed = array.copy()
    changed[1500] += 1e-9
    for wrap in (lambda a: a, lambda a: [a], lambda a: {"a": a}, torch.from_numpy):
        assert fingerprint(wrap(array)) == fingerprint(wrap(array.copy()))
        assert fingerprint(wrap(array)) != fingerprint(wrap(changed))
    assert fingerprint(array) != fingerprint(array.astype(np.float32))
    assert fingerprint(array) != fingerprint(array.reshape(3, -1))


def test_objects_that_refer_to_themselves():
    loops = []
    for last in (2, 2, 3):
        loop = [1, last]
        loop.append(loop)
        loops.append(fingerprint(loop))
    assert loops[0] == loops[1] != loops[2]


def test_permissions_survive(estimator_class, digits, tmp_path):
    path = tmp_path / "fit"
    interrupt(make(estimator_class, checkpoint=path), digits, 2)
    path.chmod(0o600)
    make(estimator_class, checkpoint=path).fit(digits)
    assert path.stat().st_mode & 0o777 == 0o600


class DiesOrStops(Callback):
    """A callback whose process dies in it; in one that lives on, it asks to stop at the same epoch."""

    def __init__(self, dies):
        self.dies = dies

    def on_fit_task_end(self, estimator, context):
        if context.task_name == "epoch" and context.task_id == 1:
            if self.dies:
                raise SystemExit
            return True
        return False


def test_a_stop_is_not_lost_when_the_process_dies_in_the_callback(estimator_class, digits, tmp_path):
    estimator = make(estimator_class, max_iter=6, checkpoint=tmp_path / "fit")
    with pytest.raises(SystemExit):
        estimator.set_callbacks(DiesOrStops(dies=True)).fit(digits)
    assert estimator.set_callbacks(DiesOrStops(dies=False)).fit(digits).n_iter_ == 2
    assert estimator.set_callbacks().fit(digits).n_iter_ == 2


class Sharp(NormalVAETransformer):
    def make_likelihood(self, n_features):
        return NormalLikelihood(0.2, n_features)


class Blunt(NormalVAETransformer):
    def make_likelihood(self, n_features):
        return NormalLikelihood(0.9, n_features)


def test_another_likelihood_is_another_training(digits, tmp_path, monkeypatch):
    parameters = make(NormalVAETransformer, checkpoint=tmp_path / "fit").get_params()
    Sharp(**parameters).fit(digits)
    monkeypatch.setattr(Sharp, "make_likelihood", Blunt.make_likelihood)
    with pytest.raises(
        ValueError, match="another training: code of the estimator was .*likelihood was NormalLikelihood"
    ):
        Sharp(**parameters).fit(digits)


def test_a_fitted_model_in_other_units_is_another_start(digits):
    one, other = (make(NormalVAETransformer, max_iter=1).fit(digits * factor) for factor in (1, 2))
    other.module_.load_state_dict(one.module_.state_dict())
    assert fingerprint(one.module_) != fingerprint(other.module_)


class Settings:
    """A plain class of the user's own."""

    def __init__(self):
        self.factor = 1.0


@dataclasses.dataclass
class Options:
    factor: float = 1.0
    names: list[str] = dataclasses.field(default_factory=list)


class Ordinary(torch.nn.Module):
    """What ordinary modules hold and refer to."""

    scale: float | None = None
    log = logging.getLogger("a logger")

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(64, 6)
        torch.nn.init.constant_(self.linear.weight, 0.01)
        torch.nn.init.zeros_(self.linear.bias)
        self.settings, self.options = Settings(), Options()
        self.array, self.frame = np.arange(6.0), pd.DataFrame({"a": [1.0, 2.0]})
        self.sparse = torch.eye(3).to_sparse()
        self.things = [range(3), slice(2), re.compile("a+"), collections.deque([1]), operator.itemgetter(1)]
        self.things += [decimal.Decimal("1.5"), datetime.timedelta(1), bytearray(b"1"), np.random.default_rng(0)]
        self.functions = [torch.Tensor.relu, str.upper, len, np.sin, functools.partial(torch.add, alpha=2)]
        self.register_forward_hook(lambda module, inputs, output: None)

    @functools.cached_property
    def ones(self):
        return torch.ones(6)

    def forward(self, x):
        return self.linear(x[..., 0:64]) * self.ones


@pytest.mark.draws_globally
def test_ordinary_modules_can_be_compared(digits, tmp_path):
    path = tmp_path / "fit"
    estimator = make(NormalVAETransformer, encoder=Ordinary(), checkpoint=path)
    expected = bits(estimator.fit(digits), digits)
    assert bits(estimator.fit(digits), digits) == expected
    assert bits(clone(estimator).fit(digits), digits) == expected
    assert bits(make(NormalVAETransformer, encoder=Ordinary(), checkpoint=path).fit(digits), digits) == expected
    for change in ({"array": np.arange(6.0) + 1}, {"things": []}, {"options": Options(2.0)}):
        encoder = Ordinary()
        vars(encoder).update(change)
        with pytest.raises(ValueError, match="another training: encoder was Ordinary"):
            make(NormalVAETransformer, encoder=encoder, checkpoint=path).fit(digits)


@pytest.mark.draws_globally
@pytest.mark.filterwarnings("ignore:Lazy modules")
@pytest.mark.parametrize("kind", ["lazy", "weight norm"])
def test_a_clone_of_a_module_that_torch_has_hooked_into(kind, digits, tmp_path):
    if kind == "lazy":
        encoder = torch.nn.LazyLinear(6)
    else:
        encoder = torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(64, 6))
    estimator = make(NormalVAETransformer, encoder=encoder, checkpoint=tmp_path / "fit")
    assert bits(clone(estimator).fit(digits), digits) == bits(estimator.fit(digits), digits)


def test_a_random_state_goes_on_after_a_resumed_fit_as_after_a_whole_one(estimator_class, digits, tmp_path):
    estimator = make(estimator_class, random_state=np.random.RandomState(3), checkpoint=tmp_path / "fit")
    stored = pickle.dumps(estimator)
    estimator.fit(digits)
    resumed = pickle.loads(stored).fit(digits)
    assert resumed.random_state.randint(10**9) == estimator.random_state.randint(10**9)
