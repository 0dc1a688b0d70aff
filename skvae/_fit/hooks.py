"""What happens around an epoch, one small class each."""

import copy
import functools
import math
import sys
import time
from typing import Any

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning

from skvae._data.checks import warn_user
from skvae._data.fingerprint import Identity
from skvae._data.rows import Rows
from skvae._fit.checkpoint import Checkpoint, unreadable_error
from skvae._fit.distributed import Group
from skvae._fit.run import Hook, Run, Seeds
from skvae._model.bounds import ElboEstimate, LowerBound
from skvae._model.stored import copy_weights, weights_from_numpy, weights_to_numpy

__all__ = ["Callbacks", "EarlyStopping", "Progress", "Saving", "Validation"]


class Validation(Hook):
    """The ELBO of validation rows: an estimate after each epoch, and the score when it is asked for.

    Parameters
    ----------
    rows : Rows
        The rows, the same in all processes; each scores its part of them.
    """

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def begin_run(self, run: Run) -> None:
        """Make room for the records, and the points that the estimate takes."""
        run.history.setdefault("validation_elbo", [math.nan] * run.epoch)
        self._estimate = ElboEstimate(run.model, len(self._rows))

    def end_epoch(self, run: Run) -> None:
        """Record the estimate of the mean ELBO."""
        first, stop = run.group.part(len(self._rows))
        elbo = self._mean(run, self._estimate.total(self._rows.between(first, stop), first))
        run.history["validation_elbo"][-1] = elbo
        if not math.isfinite(elbo):
            raise ValueError(
                f"The validation ELBO is {elbo} after epoch {run.epoch}. Try a smaller learning_rate_init, look for "
                f"validation rows (X_val) far from the training data, and if a module of your own is in use, check "
                f"that its output is finite in evaluation mode."
            )

    def score(self, run: Run) -> float:
        """Return the mean of the scores, which take more points than the estimates."""
        part = self._rows.between(*run.group.part(len(self._rows)))
        return self._mean(run, float(LowerBound(run.model, 1)(part).sum()))

    def _mean(self, run: Run, total: float) -> float:
        """Return the mean over the rows of all processes."""
        totals = run.group.sum(torch.tensor(total, dtype=torch.float64, device="cpu"))
        return float(totals) / len(self._rows)


class EarlyStopping(Hook):
    """Remember the best weights, and ask to stop when the validation ELBO has stopped rising.

    Parameters
    ----------
    validation : Validation
        What validates the model, ahead of this hook.
    n_iter_no_change : int
        Number of epochs in a row without an improvement of more than `tol` after which to stop.
    tol : float
        The improvement that counts, in nats per row.
    """

    def __init__(self, validation: Validation, n_iter_no_change: int, tol: float) -> None:
        self._validation, self._n_iter_no_change, self._tol = validation, n_iter_no_change, tol
        self._best_score = -math.inf
        self._best_weights: dict[str, Any] = {}
        self._n_stale = 0

    def end_epoch(self, run: Run) -> bool:
        """Take note of the epoch's validation ELBO."""
        score = run.history["validation_elbo"][-1]
        self._n_stale = 0 if score > self._best_score + self._tol else self._n_stale + 1
        if score > self._best_score or not self._best_weights:
            self._best_score = score
            self._best_weights = copy_weights(run.model.state_dict())
        return self._n_stale >= self._n_iter_no_change

    def end_run(self, run: Run) -> None:
        """Give the model the best weights, and score them."""
        run.model.load_state_dict(self._best_weights)
        self._best_score = self._validation.score(run)
        if not run.stopped:
            warn_user(
                f"Early stopping did not set in within max_iter={run.plan.n_epochs} epochs: the validation ELBO had "
                f"not stopped rising. Raise max_iter, or ask for less with n_iter_no_change and tol.",
                ConvergenceWarning,
            )

    def state(self) -> dict[str, Any]:
        """Return all that it remembers, weights as NumPy arrays."""
        weights = weights_to_numpy(self._best_weights)
        return {"best_score": self._best_score, "best_weights": weights, "n_stale": self._n_stale}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        self._best_score, self._n_stale = state["best_score"], state["n_stale"]
        self._best_weights = weights_from_numpy(state["best_weights"])

    def results(self, run: Run) -> dict[str, Any]:
        """Return the estimates of this run, and the score of the best weights: until the run ends, their estimate."""
        scores = run.history["validation_elbo"][run.n_before :]
        return {"validation_scores_": scores, "best_validation_score_": self._best_score}


class Progress(Hook):
    """A line for each epoch, printed by the first process.

    Parameters
    ----------
    verbose : bool
        Whether to print. A process may be silent where others print, but it has the hook.
    """

    def __init__(self, verbose: bool) -> None:
        self._verbose = verbose

    def begin_run(self, run: Run) -> None:
        """Start the clock."""
        self._start, self._n_resumed = time.perf_counter(), run.n_done

    def begin_epoch(self, run: Run) -> None:
        """Start the clock of the epoch."""
        self._epoch_start = time.perf_counter()

    def end_epoch(self, run: Run) -> None:
        """Print the line."""
        if not self._verbose or run.group.rank > 0 or sys.stdout is None:
            return
        now = time.perf_counter()
        left = (now - self._start) / (run.n_done - self._n_resumed) * (run.plan.n_epochs - run.n_done)
        last = {name: values[-1] for name, values in run.history.items()}
        validation = last.get("validation_elbo", math.nan)
        validation_elbo = "" if math.isnan(validation) else f"  validation ELBO {validation:.2f}"
        sys.stdout.write(
            f"epoch {run.n_done}/{run.plan.n_epochs}  ELBO {last['elbo']:.2f}  "
            f"log likelihood {last['log_likelihood']:.2f}  KL {last['kl']:.2f}{validation_elbo}  "
            f"{now - self._epoch_start:.1f} s  {left:.0f} s left\n"
        )
        sys.stdout.flush()


class Callbacks(Hook):
    """scikit-learn's callbacks: the fit is one task, each epoch a subtask.

    Parameters
    ----------
    estimator : BaseVAETransformer
        The estimator that is being fitted.
    X : ndarray of shape (n_samples, n_features)
        The training data.
    y : array-like or None
        The target. Callbacks score only when there is one, so zeros replace None.
    features : dict of str to object
        The attributes that say what features `X` has.
    n_epochs : int
        The largest number of epochs.
    """

    def __init__(self, estimator: Any, X: Any, y: Any, features: dict[str, Any], n_epochs: int) -> None:
        self._features = features
        self._estimator, self._arguments = estimator, {"X": X, "y": functools.partial(np.zeros, len(X))}
        if y is not None:
            self._arguments["y"] = y
        self._context = estimator._init_callback_context(max_subtasks=n_epochs)
        self._context.call_on_fit_task_begin(estimator=estimator, **self._arguments)

    def begin_run(self, run: Run) -> None:
        """Make a task for each epoch that a checkpoint has, so that numbering goes on."""
        for _ in range(run.n_done):
            self._context.subcontext(task_name="epoch")

    def begin_epoch(self, run: Run) -> None:
        """Begin a task."""
        self._task = self._context.subcontext(task_name="epoch")
        self._task.call_on_fit_task_begin(estimator=self._estimator, **self._arguments)

    def end_epoch(self, run: Run) -> bool:
        """End the task."""
        snapshot = functools.partial(self._snapshot, run)
        return self._task.call_on_fit_task_end(
            estimator=self._estimator, **self._arguments, reconstruction_attributes=snapshot
        )

    def _snapshot(self, run: Run) -> dict[str, Any]:
        """Return the fitted attributes as they would be if training stopped now, with a model of their own."""
        # It is set on a copy of the estimator, which may have names from an earlier fit.
        return {"feature_names_in_": None} | run.results() | self._features | {"module_": copy.deepcopy(run.model)}

    def end_fit(self) -> None:
        """End the task of the whole fit; the estimator has its fitted attributes."""
        self._context.call_on_fit_task_end(estimator=self._estimator, **self._arguments, reconstruction_attributes={})


class Saving(Hook):
    """The checkpoint of a fit: read before training, written by the first process after each epoch.

    It comes last, so that it saves what the other hooks have made of an epoch, a request to stop included. The identity
    is worked out before seeds are drawn, since a RandomState is part of it.

    Parameters
    ----------
    path : str, path-like or None
        The parameter `checkpoint`.
    identity : Identity
        The identity of the fit.
    group : Group
        The processes.
    """

    def __init__(self, path: Any, identity: Identity, group: Group) -> None:
        self._path = path
        self._checkpoint = None
        if path is not None and group.rank == 0:
            self._checkpoint = Checkpoint(path, identity.of_training)
        self._saved = group.broadcast(None if self._checkpoint is None else self._checkpoint.load())

    def seeds(self, random_state: Any) -> Seeds:
        """Return the seeds in the checkpoint, or new ones."""
        drawn = Seeds.draw(random_state)  # in any case, so that a RandomState goes on as in a fit from the start
        return drawn if self._saved is None else Seeds(**self._saved["seeds"])

    def restore(self, run: Run) -> None:
        """Put the run into the state that is in the checkpoint, if there is one."""
        if self._saved is None:
            return
        try:
            run.load_state(self._saved["run"])
        except Exception as error:  # whatever a state that somebody else made lacks
            raise unreadable_error(self._path, error) from error

    def begin_run(self, run: Run) -> None:
        """Save before the first epoch, so that a path that cannot be written to costs nothing."""
        self._save(run)

    def end_epoch(self, run: Run) -> None:
        """Save the epoch."""
        self._save(run)

    def _save(self, run: Run) -> None:
        if self._checkpoint is not None:
            self._checkpoint.save({"seeds": run.seeds.state(), "run": run.state()})
