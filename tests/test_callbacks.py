"""scikit-learn's callback protocol."""

import numpy as np
import pytest
import torch
from sklearn.callback import ProgressBar, ScoringMonitor
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline

from skvae import NormalVAETransformer

from conftest import bits, make, make_plain


class Recorder:
    """Keeps what the hooks are given, and may ask to stop."""

    def __init__(self, stop_after=None):
        self.stop_after = stop_after
        self.events, self.estimators = [], []

    def setup(self, estimator, context):
        self.events.append("setup")

    def teardown(self, estimator, context):
        self.events.append("teardown")

    def on_fit_task_begin(self, estimator, context, *, X=None):
        self.events.append(("begin", context.task_name, context.task_id, X.shape))

    def on_fit_task_end(self, estimator, context, *, X=None, y=None, fitted_estimator=None):
        assert len(X) == len(y)
        self.events.append(("end", context.task_name, context.task_id, X.shape))
        if context.task_name == "epoch":
            self.estimators.append(fitted_estimator)
        return context.task_name == "epoch" and context.task_id + 1 == self.stop_after


def test_every_epoch_is_a_task(estimator_class, digits):
    recorder = Recorder()
    make(estimator_class, max_iter=2).set_callbacks(recorder).fit(digits)
    shape = digits.shape
    assert recorder.events == [
        "setup",
        ("begin", "fit", 0, shape),
        ("begin", "epoch", 0, shape),
        ("end", "epoch", 0, shape),
        ("begin", "epoch", 1, shape),
        ("end", "epoch", 1, shape),
        ("end", "fit", 0, shape),
        "teardown",
    ]


def test_the_estimator_of_an_epoch_is_that_of_a_fit_that_stopped_there(estimator_class, digits):
    recorder = Recorder()
    fitted = make_plain(estimator_class, dropout=0.2).set_callbacks(recorder).fit(digits)
    assert bits(recorder.estimators[-1], digits) == bits(fitted, digits)
    stopped = make_plain(estimator_class, dropout=0.2, max_iter=2).fit(digits)
    assert bits(recorder.estimators[1], digits) == bits(stopped, digits)
    assert recorder.estimators[1].n_iter_ == 2
    assert recorder.estimators[1].history_ == stopped.history_


def test_what_ends_a_fit_is_not_in_the_estimator_of_an_epoch(estimator_class, digits):
    """Its prior is N(0, I), and its noise the one it is trained with."""
    recorder = Recorder()
    fitted = make(estimator_class, prior="mixture").set_callbacks(recorder).fit(digits)
    assert fitted.prior_ is not None
    for estimator in recorder.estimators:
        assert estimator.prior_ is None
        assert estimator.transform(digits).shape == (300, 3)
    assert recorder.estimators[-1].transform(digits).tobytes() == fitted.transform(digits).tobytes()
    if estimator_class is NormalVAETransformer:
        assert np.ptp(recorder.estimators[-1].noise_variance_) == 0 < np.ptp(fitted.noise_variance_)


def test_callbacks_change_no_bit(estimator_class, digits):
    with_callback = make(estimator_class, dropout=0.2).set_callbacks(Recorder()).fit(digits)
    assert bits(with_callback, digits) == bits(make(estimator_class, dropout=0.2).fit(digits), digits)


def test_a_callback_can_stop_training(estimator_class, digits):
    fitted = make(estimator_class).set_callbacks(Recorder(stop_after=2)).fit(digits)
    assert fitted.n_iter_ == 2


@pytest.mark.filterwarnings("ignore:0 of 3 components are active")
def test_dropout_is_on_in_every_epoch(digits):
    modes = []

    class Watching(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.utils.skip_init(torch.nn.Linear, 64, 6)
            torch.nn.init.zeros_(self.linear.weight)
            torch.nn.init.zeros_(self.linear.bias)

        def forward(self, x):
            if len(x) == 300:
                modes.append(self.training)
            return self.linear(x)

    monitor = elbo_monitor()
    parameters = {"encoder": Watching(), "batch_size": 300, "max_iter": 3, "noise": "shared"}
    make(NormalVAETransformer, **parameters).set_callbacks(monitor).fit(digits)
    assert modes.count(True) == 3


def test_teardown_after_a_failure(estimator_class, digits):
    recorder = Recorder()
    estimator = make(estimator_class, learning_rate_init=1e30, max_iter=20).set_callbacks(recorder)
    with pytest.raises(ValueError, match="diverged"):
        estimator.fit(digits)
    assert recorder.events[-1] == "teardown"
    assert set(vars(estimator)) == {*estimator.get_params(), "_skl_callbacks"}


def elbo_monitor():
    """A monitor of `score`. scoring=None, for a single unnamed score, fails in scikit-learn 1.9 for any estimator."""
    return ScoringMonitor(scoring={"elbo": lambda estimator, X, y: estimator.score(X)})


def test_scoring_monitor(estimator_class, digits):
    monitor = elbo_monitor()
    fitted = make_plain(estimator_class).set_callbacks(monitor).fit(digits)
    rows = [row for row in monitor.get_logs().data if row["task_name"] == "epoch"]
    scores = [row["elbo"] for row in rows]
    assert len(scores) == 4
    assert scores[-1] == fitted.score(digits)
    assert scores[-1] > scores[0]


def test_scoring_monitor_on_a_grid_search_of_pipelines(estimator_class, digits):
    monitor = elbo_monitor()
    vae = make(estimator_class).set_callbacks(monitor)
    pipeline = Pipeline([("vae", vae), ("classifier", LogisticRegression())])
    GridSearchCV(pipeline, {"vae__n_components": [1, 2]}, cv=2).fit(digits, np.arange(len(digits)) % 2)
    epochs = [row for log in monitor.get_logs(select="all") for row in log.data if row["task_name"] == "epoch"]
    assert len(epochs) == (2 * 2 + 1) * 4
    assert all(np.isfinite(row["elbo"]) for row in epochs)


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_progress_bar_shows_epochs_through_a_grid_search_of_pipelines(
    estimator_class, digits, capsys, monkeypatch, n_jobs
):
    monkeypatch.setenv("COLUMNS", "200")
    pipeline = Pipeline([("vae", make(estimator_class)), ("classifier", LogisticRegression())])
    search = GridSearchCV(pipeline, {"vae__n_components": [1, 2]}, cv=2, n_jobs=n_jobs)
    search.set_callbacks(ProgressBar(max_propagation_depth=None)).fit(digits, np.arange(len(digits)) % 2)
    shown = capsys.readouterr().out
    assert shown.count(f"{estimator_class.__name__} - fit") == 2 * 2 + 1
    assert "100%" in shown


def test_no_callback_in_partial_fit(estimator_class, digits):
    recorder = Recorder()
    make(estimator_class).set_callbacks(recorder).partial_fit(digits)
    assert recorder.events == []
