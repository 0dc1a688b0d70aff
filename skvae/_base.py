"""The scikit-learn surface of a variational autoencoder."""

import copy
import math
import os
import sys
import time
import warnings
from abc import ABC, abstractmethod

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.callback import CallbackSupportMixin, with_callbacks
from sklearn.exceptions import ConvergenceWarning

from skvae import _validation as validation
from skvae._checkpoint import Checkpoint, unreadable
from skvae._distributed import ShardedGenerator, current_group, together
from skvae._training import EarlyStopping, Trainer, arrays, divergence, tensors
from skvae._vae import standard_normal_points
from skvae._validation import Integral, Interval, Real, StrOptions
from skvae._version import __version__

__all__ = ["BaseVAETransformer"]

# An ELBO takes two points for each component, up to this many components.
_MOST_WHITE_COMPONENTS = 64

# Features in one block of rows to encode or decode: keeps the activations in the caches, or near them.
_BLOCK_FEATURES = 1 << 19

# Training rows on which a model is tried after its last step.
_N_TRIED = 4


class _EpochMonitor:
    """What happens around each epoch: scikit-learn's callbacks and the line that `verbose` prints.

    Parameters
    ----------
    estimator : BaseVAETransformer
        The estimator that is being fitted.
    context : CallbackContext or None
        The context of the fit, of which each epoch is a task; None where there are no callbacks.
    history : dict of str to list of float
        What training records.
    n_epochs : int
        The most epochs there will be.
    n_done : int
        How many of them a checkpoint had.
    reports : bool
        Whether this process is the one that prints.
    snapshot : callable
        Returns the fitted attributes as they would be if training stopped now, not to change with further training.
    hook_arguments : dict
        The data that the hooks get.
    """

    def __init__(self, estimator, context, history, n_epochs, n_done, reports, snapshot, hook_arguments):
        self.estimator, self.context, self.history = estimator, context, history
        self.n_epochs, self.snapshot, self.hook_arguments = n_epochs, snapshot, hook_arguments
        self.n_done = self.n_done_before = n_done
        self.reports = reports
        self.start = time.perf_counter()
        for _ in range(n_done):  # tasks are numbered as they are made
            context.subcontext(task_name="epoch")

    def begin(self):
        self.epoch_start = time.perf_counter()
        if self.context is not None:
            self.task = self.context.subcontext(task_name="epoch")
            self.task.call_on_fit_task_begin(estimator=self.estimator, **self.hook_arguments)

    def end(self):
        self.n_done += 1
        if self.estimator.verbose and self.reports:
            self.report()
        return self.context is not None and self.task.call_on_fit_task_end(
            estimator=self.estimator, **self.hook_arguments, reconstruction_attributes=self.snapshot
        )

    def report(self):
        now = time.perf_counter()
        left = (now - self.start) / (self.n_done - self.n_done_before) * (self.n_epochs - self.n_done)
        last = {name: values[-1] for name, values in self.history.items()}
        validation_elbo = f"  validation ELBO {last['validation_elbo']:.2f}" if "validation_elbo" in last else ""
        sys.stdout.write(
            f"epoch {self.n_done}/{self.n_epochs}  ELBO {last['elbo']:.2f}  "
            f"log likelihood {last['log_likelihood']:.2f}  KL {last['kl']:.2f}{validation_elbo}  "
            f"{now - self.epoch_start:.1f} s  {left:.0f} s left\n"
        )
        sys.stdout.flush()


def _lower_bounds(vae, rows, log_scale, n_importance_samples=1):
    """Return the importance-weighted bound of each row, with one sample the ELBO, in nats of the data's own units.

    With few samples the bound is the mean of several groups of that many points, so that there are enough points for
    their first two moments to be exact.
    """
    n_features = rows.X.shape[1]
    n_groups = math.ceil(max(32, 2 * min(vae.n_components, _MOST_WHITE_COMPONENTS)) / n_importance_samples)
    with validation.in_memory("n_importance_samples", n_importance_samples):
        points = standard_normal_points(n_groups * n_importance_samples, vae.n_components).to(vae.device)
    n_rows = max(1, _BLOCK_FEATURES // (len(points) * n_features))
    blocks = points.split(max(1, _BLOCK_FEATURES // (n_rows * n_features)))
    bounds = []
    with torch.inference_mode(), torch.autocast(vae.device.type, enabled=False):
        for x in rows.chunks(n_rows):
            log_weights = torch.cat([vae.log_weights(x, block) for block in blocks], dim=1).cpu().double()
            groups = log_weights.unflatten(1, (n_groups, n_importance_samples))
            bounds.append((groups.logsumexp(2) - math.log(n_importance_samples)).mean(1).numpy())
    return np.concatenate([np.empty(0), *bounds]) - n_features * log_scale


class BaseVAETransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, CallbackSupportMixin, BaseEstimator, ABC):
    """Base class of the VAE transformers.

    A subclass has a signature, a docstring, and three methods: `_learn_units` for the units its likelihood works in,
    `_check_values` for the data it accepts, and `_make_vae` for its networks and its likelihood.
    """

    _parameter_constraints: dict = {
        "n_components": [Interval(Integral, 1, 21201, closed="both")],  # as far as Sobol points go
        "encoder": [StrOptions({"auto", "dense", "conv"}), torch.nn.Module],
        "decoder": [StrOptions({"dense"}), torch.nn.Module],
        "hidden_layer_sizes": [tuple, list, np.ndarray, Interval(Integral, 1, None, closed="left")],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "image_shape": [tuple, list, np.ndarray, None],
        "beta": [Interval(Real, 0, validation.LARGEST, closed="both")],
        "learning_rate_init": [Interval(Real, 0, validation.LARGEST, closed="right")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "clip_value": [Interval(Real, 0, validation.LARGEST, closed="right"), None],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, validation.LARGEST, closed="both")],
        "warm_start": ["boolean"],
        "checkpoint": [str, os.PathLike, None],
        "random_state": ["random_state"],
        "device": [str, Integral, torch.device],
        "verbose": ["verbose"],
    }

    # Whether mapped values are clipped to [0, 1] on their way to the networks.
    _clip = False

    @abstractmethod
    def _learn_units(self, X, index):
        """Return the shift and the scale of the units in which the likelihood works, from the rows `index` of `X`."""

    @abstractmethod
    def _check_values(self, X, shift, scale, *, name, resume):
        """Raise ValueError for data that cannot be used; `resume` says that it is to train a fitted model further."""

    @abstractmethod
    def _make_vae(self, n_features, generator):
        """Return an untrained VAE on the CPU, its weights drawn from `generator`, or for None not set at all."""

    def __setstate__(self, state):
        super().__setstate__(validation.with_defaults(self, state))

    # Fitting

    @validation.all_or_nothing
    @together
    @with_callbacks
    @validation._fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None, *, X_val=None):
        """Fit the autoencoder to the rows of `X`.

        When it raises, also on Ctrl-C, the estimator is as it was before the call.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training data of any real dtype. It is neither copied nor changed: minibatches are converted to float32
            one at a time, so integer arrays and memory maps stay as they are.
        y : Ignored
            Not used, present for API consistency by convention.
        X_val : array-like of shape (n_val_samples, n_features), default=None
            Validation data. Its ELBO is recorded after each epoch. With early stopping it takes the place of a part
            of `X`.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            When `X`, `X_val` or a parameter is not valid, or when training diverges.
        """
        resume = self.warm_start and hasattr(self, "module_")
        X = validation.check_rows(self, X, reset=not resume)
        if X_val is not None:
            X_val = validation.check_rows(self, X_val, reset=False, name="X_val")
        context = self._init_callback_context(max_subtasks=self.max_iter)
        # A callback that scores does so only when there is a target.
        hook_arguments = {"X": X, "y": (lambda: np.zeros(len(X))) if y is None else y}
        context.call_on_fit_task_begin(estimator=self, **hook_arguments)
        self._train(X, X_val, resume=resume, context=context, hook_arguments=hook_arguments)
        context.call_on_fit_task_end(estimator=self, **hook_arguments, reconstruction_attributes={})
        return self

    @validation.all_or_nothing
    @together
    def partial_fit(self, X, y=None):
        """Train for one epoch on `X`, going on from what was fitted before.

        The first call learns the units of the data from `X`; later calls keep them. The optimiser goes on from call
        to call. When it raises, the estimator is as it was before the call.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training data of any real dtype, for example a part of a stream.
        y : Ignored
            Not used, present for API consistency by convention.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            When `X` or a parameter is not valid, or when training diverges.
        """
        self._validate_params()
        resume = hasattr(self, "module_")
        X = validation.check_rows(self, X, reset=not resume)
        self._train(X, None, resume=resume)
        return self

    @torch.inference_mode(False)
    def _train(self, X, X_val, *, resume, context=None, hook_arguments=None):
        """Train for `fit`, which has a callback context, or for `partial_fit`, which has none; then set the results."""
        incremental = context is None
        n_epochs = 1 if incremental else self.max_iter
        device = validation.resolve_device(self.device)
        group = current_group()
        checkpoint = saved = None
        if group is not None:
            # Beside what a checkpoint depends on, this has to be the same.
            adam = getattr(self, "_training_state", {"adam": {}})["adam"] if incremental else {}
            n_steps = max((int(steps) for steps, *_ in adam.values()), default=0)
            group.check_same(
                self._identity(X, X_val, device, resume)
                | {
                    "the method": "partial_fit" if incremental else "fit",
                    "the steps of the optimiser": str(n_steps),
                    "checkpoint": "None" if self.checkpoint is None else "given",
                    "feature names": validation.describe(list(getattr(self, "feature_names_in_", ()))),
                }
            )
        if self.checkpoint is not None and not incremental and (group is None or group.rank == 0):
            checkpoint = Checkpoint(self.checkpoint, self._identity(X, X_val, device, resume))
            saved = checkpoint.load()
        seeds = validation.spawn_seeds(self.random_state, 4)
        if saved is not None:
            seeds = saved["seeds"]
        if group is not None:
            seeds, saved = group.broadcast((seeds, saved))
        init_seed, split_seed, shuffle_seed, noise_seed = seeds

        index = val_index = stopping = None
        if self.early_stopping and not incremental:
            stopping = EarlyStopping(self.n_iter_no_change, self.tol)
            if X_val is None:
                index, val_index = self._split(len(X), split_seed)

        shift, scale = (self.shift_, self.scale_) if resume else self._learn_units(X, index)
        if group is not None:
            shift, scale = group.broadcast((shift, scale))
        self._check_values(X, shift, scale, name="X", resume=resume)
        rows = validation.Rows(X, shift, scale, clip=self._clip, index=index, device=device, read_often=True)
        val_rows, n_val_rows = None, 0
        if X_val is not None:
            self._check_values(X_val, shift, scale, name="X_val", resume=False)
            val_index = np.arange(len(X_val))
        if val_index is not None:
            n_val_rows = len(val_index)
            if group is not None:
                val_index = val_index[slice(*group.part(n_val_rows))]
            # A device that has room for X has it already.
            source, read_often = (X, False) if X_val is None else (X_val, True)
            val_rows = validation.Rows(
                source, shift, scale, clip=self._clip, index=val_index, device=device, read_often=read_often
            )

        # Weights are drawn only where there are none to go on from.
        module = self._make_vae(X.shape[1], None if resume else torch.Generator("cpu").manual_seed(init_seed))
        history = {"loss": [], "elbo": [], "log_likelihood": [], "kl": []}
        if resume:
            self._copy_weights(module)
            history = {name: list(values) for name, values in {"loss": self.loss_curve_, **self.history_}.items()}
        module.to(device)
        trainer = Trainer(
            module,
            learning_rate=float(self.learning_rate_init),
            batch_size=int(self.batch_size),
            clip_value=None if self.clip_value is None else float(self.clip_value),
            shuffle_generator=torch.Generator("cpu").manual_seed(shuffle_seed),
            noise_generator=(ShardedGenerator if group else torch.Generator)(device).manual_seed(noise_seed),
            group=group,
        )
        if incremental and hasattr(self, "_training_state"):
            trainer.load_state(self._training_state)

        log_scale = math.log(scale)
        n_before, n_done = len(history["elbo"]), 0
        if val_rows is not None:
            history.setdefault("validation_elbo", [math.nan] * n_before)
        if saved is not None:
            try:
                history = {name: values.tolist() for name, values in saved["history"].items()}
                n_done = len(history["elbo"]) - n_before
                module.load_state_dict(tensors(saved["weights"]))
                trainer.load_state(saved["trainer"])
                if stopping is not None:
                    stopping.load_state(saved["stopping"])
            except Exception as error:  # whatever a state that somebody else made lacks
                raise unreadable(self.checkpoint, error) from error

        def summarize(terms):
            kl, log_likelihood = terms["kl"], terms["log_likelihood"] - X.shape[1] * log_scale
            summary = {"loss": float(self.beta) * kl - log_likelihood, "elbo": log_likelihood - kl}
            summary |= {"log_likelihood": log_likelihood, "kl": kl}
            if val_rows is not None:
                total = torch.tensor(_lower_bounds(module, val_rows, log_scale).sum())
                if group is not None:
                    total = group.sum(total)
                summary["validation_elbo"] = float(total) / n_val_rows
                if not math.isfinite(summary["validation_elbo"]):
                    raise ValueError(
                        f"The validation ELBO is {summary['validation_elbo']} after epoch {len(history['loss']) + 1}. "
                        f"Try a smaller learning_rate_init, look for validation rows (X_val) far from the training "
                        f"data, and if a module of your own is in use, check that its output is finite in evaluation "
                        f"mode."
                    )
            elif "validation_elbo" in history:
                summary["validation_elbo"] = math.nan
            return summary

        def fitted(module):
            curves = {name: list(values) for name, values in history.items()}
            return {
                "module_": module,
                "shift_": shift,
                "scale_": scale,
                "n_iter_": len(history["loss"]),
                "loss_curve_": curves.pop("loss"),
                "history_": curves,
                "validation_scores_": history["validation_elbo"][n_before:] if stopping else None,
                "best_validation_score_": stopping.best_score if stopping else None,
            }

        def snapshot():
            return fitted(copy.deepcopy(module))

        def save(stop):
            checkpoint.save(
                {
                    "seeds": seeds,
                    "history": {name: np.array(values) for name, values in history.items()},
                    "weights": arrays(module.state_dict()),
                    "trainer": trainer.state(),
                    "stopping": None if stopping is None else stopping.state(),
                    "stop": stop,
                }
            )

        reports = group is None or group.rank == 0
        monitor = _EpochMonitor(self, context, history, n_epochs, n_done, reports, snapshot, hook_arguments)
        stopped = trainer.run(
            rows,
            n_epochs - n_done,
            history=history,
            summarize=summarize,
            early_stopping=stopping,
            stop=saved is not None and saved["stop"],
            save=None if checkpoint is None else save,
            on_epoch_begin=monitor.begin,
            on_epoch_end=monitor.end,
        )
        # Losses are those before each step; this is what the last one has left.
        tried = validation.Rows(
            X,
            shift,
            scale,
            clip=self._clip,
            index=(np.arange(len(X)) if index is None else index)[:_N_TRIED],
            device=device,
        )
        with torch.inference_mode(), torch.autocast(device.type, enabled=False):
            (x,) = tried.chunks(_N_TRIED)
            mean, std = module.posterior(x)
            log_likelihoods = module.likelihood.log_prob(x, module.decoder(mean))
        if not all(bool(values.isfinite().all()) for values in (mean, std, log_likelihoods)):
            raise divergence(len(history["loss"]), "what it makes of training rows after its last step is not finite")
        if stopping is not None and not stopped:
            warnings.warn(
                f"Early stopping did not set in within max_iter={self.max_iter} epochs: the validation ELBO had not "
                f"stopped rising. Raise max_iter, or ask for less with n_iter_no_change and tol.",
                ConvergenceWarning,
                stacklevel=8,
            )
        if group is not None:  # processors of different kinds may round differently
            module.load_state_dict(tensors(group.broadcast(arrays(module.state_dict()))))
        vars(self).update(fitted(module))
        vars(self).pop("_training_state", None)
        if incremental:
            self._training_state = trainer.state()

    def _identity(self, X, X_val, device, resume):
        """Return what a checkpoint has to agree on: parameters, data, and where training starts."""
        parameters = self.get_params(deep=False)
        for name in ("checkpoint", "device", "verbose"):
            del parameters[name]
        identity = {"skvae": __version__, "estimator": f"{type(self).__module__}.{type(self).__qualname__}"}
        identity |= {name: validation.describe(value) for name, value in parameters.items()}
        identity |= {"X": validation.describe(X), "X_val": validation.describe(X_val), "device": device.type}
        if resume:
            start = {name: getattr(self, name) for name in ("module_", "shift_", "scale_", "loss_curve_", "history_")}
            identity |= {f"{name} before": validation.describe(value) for name, value in start.items()}
        return identity

    def _split(self, n_samples, seed):
        """Return the rows to train on and the rows to validate on."""
        n_validation = math.ceil(self.validation_fraction * n_samples)
        if n_validation >= n_samples:
            raise ValueError(
                f"early_stopping=True sets aside validation_fraction={self.validation_fraction} of the rows, which "
                f"leaves none of n_samples={n_samples} to train on. Give more rows, a smaller validation_fraction, "
                f"or X_val."
            )
        order = np.random.RandomState(seed).permutation(n_samples)
        return np.sort(order[n_validation:]), np.sort(order[:n_validation])

    def _copy_weights(self, module):
        """Give `module` the fitted weights."""
        try:
            module.load_state_dict(self.module_.state_dict())
        except RuntimeError as error:
            raise ValueError(
                f"{type(self).__name__} cannot go on from its fitted weights, because a parameter that shapes the "
                f"networks has changed since (n_components, encoder, decoder, hidden_layer_sizes or image_shape). "
                f"Put it back, or start anew with warm_start=False and fit. {error}"
            ) from error

    # Inference

    def transform(self, X):
        """Return the mean of the posterior q(z | x) of each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Data of any real dtype.

        Returns
        -------
        Z : ndarray of shape (n_samples, n_components), float32
            Latent means. The same array gives the same bits each time.

        Raises
        ------
        ValueError
            When `X` is not valid.
        """
        mean, _ = self._encode(X)
        self._check_finite(mean, "The posterior mean")
        return mean

    def posterior(self, X):
        """Return mean and standard deviation of the posterior q(z | x) of each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Data of any real dtype.

        Returns
        -------
        mean, std : ndarray of shape (n_samples, n_components), float32
            The parameters of the posterior, a normal distribution with independent components.

        Raises
        ------
        ValueError
            When `X` is not valid.
        """
        mean, std = self._encode(X)
        self._check_finite(mean, "The posterior mean")
        self._check_finite(std, "The posterior standard deviation")
        return mean, std

    def inverse_transform(self, Z):
        """Return the mean of p(x | z) for each latent row, in the units of the training data.

        Parameters
        ----------
        Z : array-like of shape (n_samples, n_components)
            Latent rows.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features), float32
            Means of the likelihood.

        Raises
        ------
        ValueError
            When `Z` is not valid.
        """
        validation.check_is_fitted(self)
        return self._decode(validation.check_latent(Z, self.module_.n_components))

    def sample(self, n_samples=1, *, random_state=None, observation_noise=False):
        """Generate rows from the model: z from the prior N(0, I), decoded.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows.
        random_state : int, RandomState instance or None, default=None
            Seed of the draws; None takes a new one each time.
        observation_noise : bool, default=False
            Whether to draw from p(x | z) instead of returning its mean.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features), float32
            Generated rows, in the units of the training data.

        Raises
        ------
        ValueError
            When `n_samples` is not a positive integer.
        """
        validation.check_is_fitted(self)
        validation.check_positive_integer(n_samples, "n_samples")
        latent_seed, noise_seed = validation.spawn_seeds(random_state, 2)
        generator = torch.Generator("cpu").manual_seed(latent_seed)
        shape = int(n_samples), self.module_.n_components
        with validation.in_memory("n_samples", n_samples):
            Z = torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu").numpy()
        return self._decode(Z, torch.Generator("cpu").manual_seed(noise_seed) if observation_noise else None)

    def score_samples(self, X, *, n_importance_samples=None):
        r"""Return a lower bound on the log density of each row.

        It is a density in the units of the data: with x = shift + scale * u for the units u in which the
        likelihood works, log p(x) = log p(u) - n_features * log(scale). The expectations are estimated over one fixed
        set of standard-normal points that all rows share, so that the result is deterministic and each row's is its
        own. They are mirrored scrambled Sobol points with the covariance I (up to 64 components), which makes the
        ELBO exact for linear decoders; what error there is otherwise, the rows have in common.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Data of any real dtype.
        n_importance_samples : int, default=None
            None gives the evidence lower bound (ELBO). A number K gives the importance-weighted bound, the expected
            logarithm of the mean of K weights, which is tighter, the more so the larger K; 1 is the ELBO again [1]_.

        Returns
        -------
        scores : ndarray of shape (n_samples,), float32
            Lower bounds on log p(x), in nats.

        Raises
        ------
        ValueError
            When `X` or `n_importance_samples` is not valid.

        References
        ----------
        .. [1] Burda, Y., Grosse, R. and Salakhutdinov, R., "Importance weighted autoencoders", ICLR 2016.
        """
        rows = self._fitted_rows(X)
        if n_importance_samples is None:
            n_importance_samples = 1
        validation.check_positive_integer(n_importance_samples, "n_importance_samples")
        scores = _lower_bounds(self.module_, rows, math.log(self.scale_), int(n_importance_samples))
        self._check_finite(scores, "The score")
        return scores.astype(np.float32)

    def score(self, X, y=None):
        """Return the mean ELBO of the rows of `X`, in nats.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Data of any real dtype.
        y : Ignored
            Not used, present for API consistency by convention.

        Returns
        -------
        score : float
            Mean of `score_samples`.
        """
        return float(self.score_samples(X).mean(dtype=np.float64))

    def _fitted_rows(self, X):
        """Return `X`, checked against the fitted model, as rows to feed to its networks."""
        validation.check_is_fitted(self)
        X = validation.check_rows(self, X, reset=False)
        self._check_values(X, self.shift_, self.scale_, name="X", resume=False)
        return validation.Rows(X, self.shift_, self.scale_, clip=self._clip, device=self.module_.device)

    def _encode(self, X):
        rows = self._fitted_rows(X)
        mean = np.empty((len(rows), self.module_.n_components), np.float32)
        std = np.empty_like(mean)
        start = 0
        with torch.inference_mode(), torch.autocast(self.module_.device.type, enabled=False):
            for x in rows.chunks(max(1, _BLOCK_FEATURES // self.n_features_in_)):
                stop = start + len(x)
                block_mean, block_std = self.module_.posterior(x)
                mean[start:stop], std[start:stop] = block_mean.cpu().numpy(), block_std.cpu().numpy()
                start = stop
        return mean, std

    def _decode(self, Z, generator=None):
        X = np.empty((len(Z), self.n_features_in_), np.float32)
        step = max(1, _BLOCK_FEATURES // self.n_features_in_)
        with (
            torch.inference_mode(),
            torch.autocast(self.module_.device.type, enabled=False),
            np.errstate(under="ignore"),
        ):
            for start in range(0, len(Z), step):
                z = torch.tensor(Z[start : start + step], device=self.module_.device)
                decoded = self.module_.decode(z, generator).cpu().numpy()
                X[start : start + step] = decoded * np.float64(self.scale_) + self.shift_
        self._check_finite(X, "The decoded mean")
        return X

    def _check_finite(self, values, what):
        if not np.isfinite(values).all():
            row = int(np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(axis=1))[0])
            raise ValueError(
                f"{what} is not finite for row {row}: its values are out of proportion to the training data, which "
                f"{type(self).__name__} maps by (x - {self.shift_:.6g}) / {self.scale_:.6g}. Look for extreme values."
            )

    # Facts about the estimator

    @property
    def _n_features_out(self):
        return self.module_.n_components

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags
