"""What each of the processes does that tests/test_distributed.py starts: fit together, and note how it ended.

python tests/fit_together.py RANK SIZE FOLDER SCENARIO...
"""

import contextlib
import faulthandler
import io
import os
import pickle
import signal
import sys
import threading
import warnings
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning

from skvae import ContinuousBernoulliVAETransformer, NormalVAETransformer

from conftest import Callback

X = load_digits(return_X_y=True)[0][:300]
HOLEY = np.where(np.random.RandomState(0).random_sample(X.shape) < 0.2, np.nan, X)
HOLEY[0] = X[0] * 0  # an entry in each column
LIMIT = 100  # seconds for what takes two when nothing else runs
RANK = int(sys.argv[1]) if sys.argv[1:2] and sys.argv[1].isdigit() else 0
SMALL = {"n_components": 3, "hidden_layer_sizes": (16,), "batch_size": 32, "max_iter": 4, "random_state": 0}


def normal(**parameters):
    return NormalVAETransformer(**{**SMALL, **parameters})


def continuous_bernoulli(**parameters):
    return ContinuousBernoulliVAETransformer(**{**SMALL, **parameters})


def with_dropout():
    generator = torch.Generator().manual_seed(0)
    encoder = torch.nn.Sequential(torch.nn.Linear(64, 6), torch.nn.Dropout(0.5))
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.1, generator=generator)
    return normal(encoder=encoder)


# Fits that one process can do as well.
FITS = {
    "short last minibatch": lambda: normal().fit(X),
    "uneven parts": lambda: normal(batch_size=7).fit(X),
    "a minibatch of one row": lambda: normal(batch_size=299).fit(X),
    "bytes, and one noise": lambda: normal(noise="shared", prior="normal").fit(X.astype(np.uint8)),
    "convolution and dropout": lambda: continuous_bernoulli(dropout=0.2).fit(X),
    "early stopping": lambda: normal(early_stopping=True, n_iter_no_change=1, tol=4.0, max_iter=20).fit(X),
    "one row to validate": lambda: normal(early_stopping=True).fit(X, X_val=X[:1]),
    "warm start": lambda: normal(warm_start=True, noise="shared").fit(X).fit(X[:100]),
    "one process prints": lambda: normal(verbose=int(RANK == 0)).fit(X),
    "in parts, one process prints": lambda: normal(verbose=int(RANK == 0)).partial_fit(X),
    "missing entries": lambda: normal(max_iter=2).fit(HOLEY),
    "missing entries in parts": lambda: continuous_bernoulli().partial_fit(HOLEY[:150]).partial_fit(HOLEY[150:]),
    "missing entries, one row to validate": lambda: normal(early_stopping=True).fit(HOLEY, X_val=HOLEY[1:2]),
    "in parts": lambda: normal().partial_fit(X[:150]).partial_fit(X[150:]),
}


class AtEpoch(Callback):
    """A callback that does something after an epoch, in one process alone."""

    def __init__(self, rank, epoch, act):
        self.epoch, self.act = epoch, act if int(sys.argv[1]) == rank else lambda: False

    def on_fit_task_end(self, estimator, context):
        if context.task_name == "epoch" and context.task_id + 1 == self.epoch:
            return self.act()
        return False


def fail(error):
    raise error


class FailsInOneProcess(torch.nn.Linear):
    def __init__(self):
        super().__init__(64, 6)
        torch.nn.init.zeros_(self.weight)
        torch.nn.init.zeros_(self.bias)
        self.n_calls = 0

    def forward(self, x):
        if self.training:
            self.n_calls += 1
            if self.n_calls == 5 and int(sys.argv[1]) == 1:
                raise RuntimeError("out of luck")
        return super().forward(x)


def failing(rank, estimator, make_data=lambda rank: X):
    """Fit what was fitted before, where it must fail; return the error and whether the estimator is as it was."""
    estimator = normal().fit(X).set_params(**estimator.get_params())
    before = estimator.transform(X).tobytes()
    try:
        estimator.fit(make_data(rank))
    except BaseException as error:
        return type(error).__name__, str(error), estimator.transform(X).tobytes() == before
    return "no error", "", True


def with_callback(estimator, callback):
    return estimator.set_callbacks(callback)


def other_data(rank):
    return X[rank:]


def infinity(rank):
    return np.where((np.arange(X.size).reshape(X.shape) == 99) & (rank == 1), np.inf, X)


FAILURES = {
    "other data": lambda rank: failing(rank, normal(), other_data),
    "other parameters": lambda rank: failing(rank, normal(beta=1.0 + rank)),
    "an infinity in one": lambda rank: failing(rank, normal(), infinity),
    "a module that fails in one": lambda rank: failing(rank, normal(encoder=FailsInOneProcess())),
    "divergence": lambda rank: failing(rank, normal(learning_rate_init=1e30)),
}


def refused(fit, *arguments):
    """Return the message of the error that `fit` raises."""
    try:
        fit(*arguments)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


def other_beginnings(rank):
    """Try to fit what is fitted in one process alone, or by other methods, or with other names or files."""
    fitted = [normal().partial_fit(X) for _ in range(3)]
    for estimator in fitted[::2]:
        del estimator._continuation
    frame = pd.DataFrame(X).add_prefix("pixel_")
    path = Path(sys.argv[3]) / "checkpoint of one"
    return {
        "module_ before": refused(fitted[0].partial_fit if rank else normal().partial_fit, X),
        "the method": refused(normal().partial_fit if rank else normal().fit, X),
        "the steps of the optimizer": refused(fitted[1 + rank].partial_fit, X),
        "feature names": refused(normal().fit, frame if rank else X),
        "checkpoint": refused(normal(checkpoint=path if rank else None).fit, X),
    }


class ChoosesByProcess(torch.nn.Module):
    """Uses another layer in each process, and a third one in none."""

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.ModuleList(torch.nn.Linear(64, 6) for _ in range(3))
        for parameter in self.parameters():
            torch.nn.init.zeros_(parameter)

    def forward(self, x):
        return self.layers[int(sys.argv[1])](x)


def other_parameters_in_each(rank):
    """Return the steps that each layer has taken, and whether its weights have moved."""
    vae = normal(encoder=ChoosesByProcess(), batch_size=128).partial_fit(X)
    steps = vae._continuation["optimizer"]
    return [
        (int(steps[f"encoder.{name}"][0]), bool(weight.any()))
        for name, weight in vae.module_.encoder.named_parameters()
        if name.endswith("weight")
    ]


def from_another_thread(rank):
    """Begin a fit in another thread while one is under way, and one of the same thread."""
    found = []

    def act():
        with ThreadPoolExecutor(1) as pool:
            found.append(pool.submit(refused, normal().fit, X).result(timeout=60))
        found.append(refused(normal().fit, X))

    one = AtEpoch(rank, 2, act)
    return normal().set_callbacks(one).fit(X).n_iter_, found


def from_a_fork(rank):
    # A child has the handlers of its parent, and no alarm.
    fork = get_context("fork")
    with ProcessPoolExecutor(1, mp_context=fork, initializer=signal.alarm, initargs=[LIMIT // 2]) as pool:
        return pool.submit(normal().fit, X).result().transform(X)


def real_interrupts(rank):
    """Press Ctrl-C at random times, in the first process, the second, both; return how the fits ended."""
    outcomes = []
    delays = np.random.RandomState(0).uniform(0, 0.05, size=15)
    for i, delay in enumerate(delays):
        estimator = normal(max_iter=100_000, batch_size=50)
        timer = threading.Timer(delay, os.kill, (os.getpid(), signal.SIGINT))
        hit = i % 3 in (rank, 2)
        outcome = "no error"
        try:
            try:
                estimator.set_callbacks(AtEpoch(rank if hit else -1, 2, timer.start)).fit(X)
            finally:
                if hit:
                    timer.join()
        except BaseException as error:
            outcome = type(error).__name__
        outcomes.append((outcome, hasattr(estimator, "module_")))
    return outcomes


def callback_fails(rank):
    estimator = normal().set_callbacks(AtEpoch(1, 2, lambda: fail(OSError("printer on fire"))))
    try:
        estimator.fit(X)
    except Exception as error:
        return type(error).__name__, str(error), not hasattr(estimator, "module_")


def one_stops(rank):
    return normal().set_callbacks(AtEpoch(1, 2, lambda: True)).fit(X).n_iter_


def interrupted(rank):
    """Ctrl-C in one process, then all again: together they end as if nothing had happened."""
    path = Path(sys.argv[3]) / "checkpoint" / "fit"
    path.parent.mkdir(exist_ok=True)
    estimator = normal(checkpoint=path).set_callbacks(AtEpoch(1, 2, lambda: fail(KeyboardInterrupt())))
    try:
        estimator.fit(X)
    except BaseException as error:
        name = type(error).__name__
    estimator.set_callbacks()
    resumed, whole = estimator.fit(X), normal().fit(X)
    same = resumed.transform(X).tobytes() == whole.transform(X).tobytes() and resumed.history_ == whole.history_
    return name, same, [file.name for file in path.parent.iterdir()]


def fresh_randomness(rank):
    return [normal(random_state=seed).fit(X).transform(X).tobytes() for seed in (None, np.random.RandomState(3))]


def printed(rank):
    with contextlib.redirect_stdout(io.StringIO()) as output:
        normal(verbose=1).fit(X)
    return len(output.getvalue().splitlines())


OTHERS = {
    **FAILURES,
    "a callback that fails in one": callback_fails,
    "a callback that stops in one": one_stops,
    "Ctrl-C in one": interrupted,
    "fresh randomness": fresh_randomness,
    "what is printed": printed,
    "other beginnings": other_beginnings,
    "other parameters in each": other_parameters_in_each,
    "from another thread": from_another_thread,
    "from a fork": from_a_fork,
    "Ctrl-C at random times": real_interrupts,
    "dropout of a module": lambda rank: with_dropout().fit(X).transform(X).tobytes(),
}


def killed(rank):
    """Be killed, or find out that another process was."""
    callback = AtEpoch(1, 2, lambda: os.kill(os.getpid(), signal.SIGKILL))
    try:
        normal(max_iter=100_000).set_callbacks(callback).fit(X)
    except Exception as error:
        return type(error).__name__, str(error)


def in_time(names):
    """Return them one after the other; a process that takes too long over one says where it stands, and ends.

    One alarm for all would go off where the machine is busy: it may take minutes then.
    """
    for name in names:
        signal.alarm(LIMIT)
        yield name


def main():
    """Run the scenarios of the command line, and leave their outcomes in the folder."""
    faulthandler.register(signal.SIGALRM, chain=True)
    signal.alarm(LIMIT)
    rank, size, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a process in the background may ignore it
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=size)
    warnings.simplefilter("ignore", ConvergenceWarning)
    outcomes = {}
    for name in in_time(FITS if "fits" in sys.argv else ()):
        fitted = FITS[name]()
        outcomes[name] = fitted.transform(X), fitted.history_, fitted.n_iter_, fitted.shift_
    for name in in_time(OTHERS if "others" in sys.argv else ()):
        outcomes[name] = OTHERS[name](rank)
    path = folder / f"outcomes{rank}"
    path.write_bytes(pickle.dumps(outcomes))
    if "killed" in sys.argv:
        outcomes["killed"] = killed(rank)
        path.write_bytes(pickle.dumps(outcomes))
        os._exit(0)  # there is nobody left to say goodbye to
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
