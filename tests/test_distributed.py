"""Processes that fit together end with the same bits, which are those of one process but for rounding; none hangs."""

import os
import pickle
import re
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from fit_together import FITS, X
from sklearn.exceptions import ConvergenceWarning

from skvae._fit.distributed import Group, ProcessGroup, _deferred_interrupts, current_group
from skvae._model.noise import Noise
from skvae.exceptions import PeerError

INFINITY = "Input X contains infinity or a value too large for dtype('float64')"

pytestmark = pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="needs the gloo backend")


def start(folder, n_processes, *scenarios):
    """Return what each process has found out."""
    np.save(folder / "X.npy", X)
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(Path(__file__).with_name("fit_together.py"))]
    processes = [
        subprocess.Popen(
            [*command, str(rank), str(n_processes), str(folder), *scenarios],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(n_processes)
    ]
    try:
        errors = [process.communicate(timeout=600)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    paths = [folder / f"outcomes{rank}" for rank in range(n_processes)]
    assert all(path.exists() for path in paths), "\n".join(errors)
    return [pickle.loads(path.read_bytes()) for path in paths]


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    """What each of two processes has found out that do everything, one after the other: their imports take longest."""
    return start(tmp_path_factory.mktemp("two"), 2, "fits", "others", "killed")


@pytest.fixture(scope="module", params=[2, pytest.param(3, marks=pytest.mark.slow)])
def fits(request, tmp_path_factory):
    """What each process has fitted."""
    if request.param == 2:
        return request.getfixturevalue("others")
    return start(tmp_path_factory.mktemp("fits"), request.param, "fits")


@pytest.mark.parametrize("name", FITS)
def test_fits_are_those_of_one_process(name, fits):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        alone = FITS[name]()
    latents, history, n_iter, shift = fits[0][name]
    for other in fits[1:]:
        assert other[name][0].tobytes() == latents.tobytes()
        assert repr(other[name][1:]) == repr((history, n_iter, shift))
    assert n_iter == alone.n_iter_
    np.testing.assert_allclose(latents, alone.transform(X), rtol=1e-3, atol=2e-4)
    for key, values in alone.history_.items():
        np.testing.assert_allclose(history[key], values, rtol=1e-5, err_msg=key)


@pytest.mark.parametrize(
    ("name", "own_error", "report"),
    [
        ("an infinity in one", ("ValueError", INFINITY), f"rank 1: ValueError: {INFINITY}"),
        ("a module that fails in one", ("RuntimeError", "out of luck"), "rank 1: RuntimeError: out of luck"),
        ("a callback that fails in one", ("OSError", "printer on fire"), "rank 1: OSError: printer on fire"),
    ],
)
def test_what_fails_in_one_stops_all(name, own_error, report, others):
    (first, first_message, first_as_before), (second, second_message, second_as_before) = (o[name] for o in others)
    assert (second, second_message.splitlines()[0].rstrip(".")) == own_error
    assert first == "PeerError"
    assert first_message.startswith("The fit was stopped in all processes, since it failed in another one.")
    assert report in first_message
    assert first_as_before
    assert second_as_before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("other data", "have to fit the same: X is float64 array of shape .* in rank 0 and .* in rank 1"),
        ("other parameters", "have to fit the same: beta is 1.0 in rank 0 and 2.0 in rank 1"),
        ("divergence", "Training diverged in epoch 1"),
    ],
)
def test_what_fails_in_all_says_so_in_all(name, message, others):
    for outcome in others:
        error, found, is_as_before = outcome[name]
        assert error == "ValueError"
        assert re.search(message, found), found
        assert is_as_before


def test_a_callback_in_one_process_stops_all(others):
    assert [outcome["a callback that stops in one"] for outcome in others] == [2, 2]


def test_ctrl_c_in_one_process_and_on_from_the_checkpoint(others):
    assert [outcome["Ctrl-C in one"] for outcome in others] == [
        ("PeerError", True, ["fit"]),
        ("KeyboardInterrupt", True, ["fit"]),
    ]


def test_ctrl_c_at_random_times_stops_all_and_leaves_estimators_alone(others):
    for i, outcome in enumerate(zip(*(o["Ctrl-C at random times"] for o in others), strict=True)):
        names = [name for name, _ in outcome]
        assert set(names) <= {"KeyboardInterrupt", "PeerError"}
        assert "KeyboardInterrupt" in names if i % 3 == 2 else names[i % 3] == "KeyboardInterrupt"
        assert not any(is_fitted for _, is_fitted in outcome)


@pytest.fixture
def _handlers():
    """Python's own handler of Ctrl-C; and an alarm, in case that it waits forever."""

    def late(*_):
        raise TimeoutError

    handlers = {signal.SIGINT: signal.default_int_handler, signal.SIGALRM: late}
    old = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    signal.alarm(60)
    yield
    signal.alarm(0)
    for number, handler in old.items():
        signal.signal(number, handler)


def press_again_and_again():
    """Press Ctrl-C, and once more in every function that its handler calls."""
    before = sys.gettrace()
    sys.settrace(lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        signal.raise_signal(signal.SIGINT)
    finally:
        sys.settrace(before)


@pytest.mark.usefixtures("_handlers")
def test_ctrl_c_pressed_again_while_it_is_noted():
    """As under torchrun, which passes on what the terminal has sent to all."""
    with pytest.raises(KeyboardInterrupt) as caught, _deferred_interrupts():
        press_again_and_again()
    assert caught.value.__context__ is None  # it did not wait until the alarm


def test_all_begin_alike(others):
    for outcome in others:
        for name, error in outcome["other beginnings"].items():
            assert error.startswith("ValueError: All processes of the group have to fit the same: ")
            assert f"{name} is " in error


def test_parameters_that_not_all_processes_use(others):
    n_steps = -(-len(X) // 128)
    for outcome in others:
        assert outcome["other parameters in each"] == [(n_steps, True), (n_steps, True), (0, False)]


def test_one_shared_fit_at_a_time(others):
    for outcome in others:
        n_iter, (in_another_thread, in_the_same) = outcome["from another thread"]
        assert n_iter == 4
        assert in_another_thread.startswith("RuntimeError: Another thread of this process is in a shared fit")
        assert in_the_same == "no error"


def test_a_forked_process_fits_alone(others):
    alone = FITS["short last minibatch"]().transform(X)
    for outcome in others:
        np.testing.assert_array_equal(outcome["from a fork"], alone)


def test_a_timeout_names_both_causes():
    def collective():
        raise RuntimeError("timed out")

    with pytest.raises(PeerError, match="is gone, or has not called fit within the timeout of .*: timed out"):
        ProcessGroup._exchange(collective)


@pytest.mark.parametrize("name", ["fresh randomness", "dropout of a module"])
def test_all_end_with_the_same_bits(name, others):
    assert others[0][name] == others[1][name]


def test_one_process_prints(others):
    assert [outcome["what is printed"] for outcome in others] == [4, 0]


def test_a_process_that_is_killed_stops_the_others(others):
    survivor, victim = others
    assert "killed" not in victim  # it has left nothing after that
    error, message = survivor["killed"]
    assert error == "PeerError"
    assert "Another process of the group is gone" in message


def test_without_torch_distributed_the_group_is_this_process():
    group = current_group()
    assert (group.rank, group.size, group.part(7)) == (0, 1, (0, 7))
    values = torch.arange(3.0)
    assert torch.equal(group.sum(values), values)
    assert group.broadcast("value") == "value"
    assert [group.any(condition) for condition in (False, True)] == [False, True]


@pytest.mark.parametrize("n_rows", [0, 1, 5, 128])
def test_parts_are_all_of_the_rows(n_rows):
    parts = []
    for rank in range(3):
        group = Group()
        group.rank, group.size = rank, 3
        parts += range(*group.part(n_rows))
    assert parts == list(range(n_rows))


@pytest.mark.parametrize("kind", ["normal", "bits"])
def test_a_process_draws_its_rows_of_what_all_draw(kind):
    def draw(first, n_own, n_rows):
        noise = Noise(torch.device("cpu"), 0)
        noise.first, noise.n_rows = first, n_rows
        return getattr(noise, kind)(torch.Size((n_own, 3)))

    whole = draw(0, 5, 5)
    assert whole.unique().numel() == 15
    assert torch.equal(torch.cat([draw(0, 2, 5), draw(2, 2, 5), draw(4, 1, 5)]), whole)


def test_each_process_seeds_a_users_module_otherwise():
    seeds = []
    for first in (0, 2):
        noise = Noise(torch.device("cpu"), 0)
        noise.first = first
        seeds.append(noise.seed())
    assert seeds[0] != seeds[1]


@pytest.mark.slow
def test_the_example_runs_under_torchrun(tmp_path):
    example = Path(__file__).parents[1] / "examples" / "benchmarks" / "several_processes.py"
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(example)]
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, *command, "--output", str(tmp_path / "vae")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("epoch ") == 20
    assert joblib.load(tmp_path / "vae").n_iter_ == 20
