"""Convolutional classifiers that read a row of features as an image, trained by skorch."""

import copy
import functools
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from numbers import Integral, Real
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_softmax, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.callback import CallbackSupportMixin
from sklearn.utils import column_or_1d
from sklearn.utils.class_weight import compute_class_weight
from skorch import NeuralNetClassifier
from skorch.callbacks import EpochScoring
from skorch.helper import predefined_split
from torch import Tensor, nn

from skvae._data.checks import (
    LARGEST,
    check_is_fitted,
    check_labeled_rows,
    check_nothing_hidden,
    check_rows,
    features_seen,
    image_dimensions,
    labels_as_array,
    resolve_device,
    spawn_seeds,
    twin_of,
    with_defaults,
)
from skvae._data.rows import Rows, Summary, Units
from skvae._fit.context import fitting
from skvae._fit.distributed import Group
from skvae._model.networks import Conv2d, Linear, Network
from skvae._model.threads import threads_for
from skvae._sklearn import Interval, StrOptions, check_sample_weight

__all__ = ["MultilayerCNNClassifier", "SimpleCNNClassifier"]

_N_FILTERS = 32

_N_HIDDEN = 128

# Each record of `history_`, and skorch's name for it.
_RECORDS = {
    "loss": "train_loss",
    "accuracy": "train_acc",
    "validation_loss": "valid_loss",
    "validation_accuracy": "valid_acc",
}

# Data are taken as they are.
_UNITS = Units(0.0, 1.0, -math.inf, math.inf)

_ACTIVATIONS: dict[str, type[nn.Module]] = {"identity": nn.Identity, "relu": nn.ReLU}

# Rows that are classified at a time: few enough for the convolution's output to stay near the caches.
_PREDICTION_BATCH = 256


def _most_square(n_features: int) -> tuple[int, int, int]:
    """Return (height, width, 1) of the image of `n_features` pixels nearest to a square, no higher than wide."""
    height = max(n for n in range(1, math.isqrt(n_features) + 1) if n_features % n == 0)
    return height, n_features // height, 1


class _CNN(Network):
    """A 3 x 3 convolution that keeps the image's size and what follows it: `features`, then a linear `head`."""

    def __init__(self, image_shape: tuple[int, int, int], n_classes: int, activation: str) -> None:
        super().__init__(image_shape=image_shape, n_classes=n_classes, activation=activation)
        height, width, n_channels = image_shape
        convolution = Conv2d(n_channels, _N_FILTERS)
        self.features, n_features = self._make_features(convolution, _ACTIVATIONS[activation](), height, width)
        self.head = Linear(n_features, n_classes)
        self.width = _N_FILTERS * height * width

    def forward(self, x: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """Return the logits, ``(batch, n_classes)``; weights, which skorch hands over as well, are for the loss."""
        return self.head(self.embed(x))

    def embed(self, x: Tensor) -> Tensor:
        """Return what the last layer sees, ``(batch, n_features)``."""
        return self.features(x.unflatten(1, self.config["image_shape"]).permute(0, 3, 1, 2))

    @staticmethod
    def _make_features(
        convolution: nn.Module, activation: nn.Module, height: int, width: int
    ) -> tuple[nn.Sequential, int]:
        """Return all layers ahead of the head, and the number of columns that come out of them."""
        raise NotImplementedError


class _SimpleCNN(_CNN):
    @staticmethod
    def _make_features(
        convolution: nn.Module, activation: nn.Module, height: int, width: int
    ) -> tuple[nn.Sequential, int]:
        return nn.Sequential(convolution, activation, nn.Flatten()), _N_FILTERS * height * width


class _MultilayerCNN(_CNN):
    @staticmethod
    def _make_features(
        convolution: nn.Module, activation: nn.Module, height: int, width: int
    ) -> tuple[nn.Sequential, int]:
        n_pooled = _N_FILTERS * math.ceil(height / 2) * math.ceil(width / 2)
        hidden = Linear(n_pooled, _N_HIDDEN)
        pooling = nn.MaxPool2d(2, ceil_mode=True)
        return nn.Sequential(convolution, activation, pooling, nn.Flatten(), hidden, nn.ReLU()), _N_HIDDEN


def _fresh_network(kind: type[_CNN], seed: int, **config: Any) -> _CNN:
    """Return a network with weights drawn from `seed`."""
    network = kind(**config)
    network.initialize(torch.Generator("cpu").manual_seed(seed))
    return network


class _Net(NeuralNetClassifier):
    """A net that weights the loss of each row where its input says so, as skorch advises."""

    def get_loss(self, y_pred: Tensor, y_true: Tensor, X: Any = None, training: bool = False) -> Tensor:
        """Return the mean loss of a minibatch."""
        if not isinstance(X, dict):
            return super().get_loss(y_pred, y_true, X=X, training=training)
        losses = nn.functional.cross_entropy(y_pred, y_true.to(y_pred.device), reduction="none")
        return (X["sample_weight"].to(y_pred.device) * losses).mean()


class _LabeledRows(torch.utils.data.Dataset[tuple[Any, Tensor]]):
    """Rows of an array, the numbers of their classes, and their weights, if they have any."""

    def __init__(self, rows: Rows, labels: NDArray[np.intp], weights: NDArray[np.float32] | None = None) -> None:
        self.rows, self.labels = rows, torch.from_numpy(labels)
        self.weights = None if weights is None else torch.from_numpy(weights)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: NDArray[np.intp]) -> tuple[Any, Tensor]:
        where = torch.from_numpy(index)
        x = self.rows.take(self.rows.place(where)).x
        if self.weights is None:
            return x, self.labels[where]
        return {"x": x, "sample_weight": self.weights[where]}, self.labels[where]


class _Minibatches:
    """What takes the place of a DataLoader, which fetches rows one by one and draws from torch's global generator.

    Parameters
    ----------
    dataset : torch.utils.data.Dataset
        The data; it takes many indices at once.
    batch_size : int
        Rows of a minibatch; the last one may be smaller.
    random_state : RandomState, default=None
        Source of the order, a new one each time; None keeps the order of the data.
    """

    def __init__(
        self, dataset: _LabeledRows, batch_size: int, random_state: np.random.RandomState | None = None
    ) -> None:
        self.dataset, self.batch_size, self.random_state = dataset, batch_size, random_state

    def __iter__(self) -> Iterator[tuple[Any, Tensor]]:
        n_rows = len(self.dataset)
        order = np.arange(n_rows) if self.random_state is None else self.random_state.permutation(n_rows)
        for start in range(0, n_rows, self.batch_size):
            yield self.dataset[order[start : start + self.batch_size]]


class _BaseCNNClassifier(ClassifierMixin, CallbackSupportMixin, BaseEstimator):
    """Base class of the classifiers; a subclass has a docstring and `_network`, the class of its network."""

    _network: type[_CNN]

    _parameter_constraints: dict[str, list[Any]] = {
        "activation": [StrOptions(set(_ACTIVATIONS))],
        "image_shape": [tuple, list, np.ndarray, None],
        "class_weight": [dict, StrOptions({"balanced"}), None],
        "learning_rate_init": [Interval(Real, 0, LARGEST / 100, closed="right")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
        "device": [str, Integral, torch.device],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        *,
        activation: str = "relu",
        image_shape: Sequence[int] | None = None,
        class_weight: dict[Any, float] | str | None = None,
        learning_rate_init: float = 1e-3,
        batch_size: int = 128,
        max_iter: int = 20,
        random_state: int | np.random.RandomState | None = None,
        device: str | int | torch.device = "auto",
        verbose: int | bool = 0,
    ) -> None:
        self.activation = activation
        self.image_shape = image_shape
        self.class_weight = class_weight
        self.learning_rate_init = learning_rate_init
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.random_state = random_state
        self.device = device
        self.verbose = verbose

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        X_val: ArrayLike | None = None,
        y_val: ArrayLike | None = None,
    ) -> Self:
        """Fit the network to the rows of `X` and their labels.

        When it raises, also on Ctrl-C, the classifier is as it was before the call.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training data of any real dtype, converted to float32 a minibatch at a time. Nothing is scaled: bring the
            data to a range near one before.
        y : array-like of shape (n_samples,)
            Labels of any type that scikit-learn's classifiers take.
        sample_weight : array-like of shape (n_samples,), default=None
            How much each row counts in the loss, beside the others: not negative, and not all 0. A weight of 2 is as
            good as the row twice, but that an epoch has no more steps, and a weight of 0 as good as no row. None is 1
            for each.
        X_val : array-like of shape (n_val_samples, n_features), default=None
            Validation data, whose loss and accuracy are recorded after each epoch. Its rows have no weights.
        y_val : array-like of shape (n_val_samples,), default=None
            Its labels, all of them labels that `y` has too.

        Returns
        -------
        self : object
            The fitted classifier.

        Raises
        ------
        ValueError
            When an argument or a parameter is not valid, or when training diverges.
        """
        with fitting(self, Group()):
            twin = twin_of(self)
            X, y, classes, labels = check_labeled_rows(twin, X, y)
            Summary(X).check_float32()
            if sample_weight is not None:
                sample_weight = check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
            weights = self._row_weights(sample_weight, y, classes, labels)
            if (X_val is None) != (y_val is None):
                raise ValueError("X_val and y_val belong together; got only one of them.")
            device = resolve_device(self.device)
            train = _LabeledRows(Rows(X, _UNITS, device, read_often=True), labels, weights)
            valid = None
            if X_val is not None:
                X_val, val_labels = self._check_validation_data(twin, X_val, y_val, classes)
                valid = _LabeledRows(Rows(X_val, _UNITS, device, read_often=True), val_labels)
            init_seed, shuffle_seed = spawn_seeds(self.random_state, 2)

            features = features_seen(twin) | {"classes_": classes}
            metadata = None if sample_weight is None else {"sample_weight": sample_weight}
            hook_arguments = {"X": X, "y": y, "metadata": metadata}
            context = self._init_callback_context(max_subtasks=self.max_iter)
            context.call_on_fit_task_begin(estimator=self, **hook_arguments)
            shape = None if self.image_shape is None else image_dimensions(self.image_shape, X.shape[1])
            config = {"image_shape": shape or _most_square(X.shape[1]), "n_classes": len(classes)}
            net = self._make_net(
                config | {"activation": self.activation},
                init_seed,
                lr=float(self.learning_rate_init),
                batch_size=int(self.batch_size),
                iterator_train__random_state=np.random.RandomState(shuffle_seed),
                train_split=None if valid is None else predefined_split(valid),
                device=device.type if device.index is None else str(device),
                verbose=int(self.verbose),
            )
            net.notify("on_train_begin", X=train, y=None)
            names = [name for name in _RECORDS if valid is not None or not name.startswith("validation")]
            history: dict[str, list[float]] = {name: [] for name in names}
            for _ in range(self.max_iter):
                task = context.subcontext(task_name="epoch")
                task.call_on_fit_task_begin(estimator=self, **hook_arguments)
                self._train_epoch(net, train, history)
                snapshot = functools.partial(self._snapshot, net, history, features)
                if task.call_on_fit_task_end(estimator=self, **hook_arguments, reconstruction_attributes=snapshot):
                    break
            net.notify("on_train_end", X=train, y=None)
            self.__dict__.update(self._fitted(net, history, features))
            if "feature_names_in_" not in features:
                self.__dict__.pop("feature_names_in_", None)
            context.call_on_fit_task_end(estimator=self, **hook_arguments, reconstruction_attributes={})
        return self

    def _row_weights(
        self, sample_weight: Any, y: NDArray[Any], classes: NDArray[Any], labels: NDArray[np.intp]
    ) -> NDArray[np.float32] | None:
        """Return the weight of each row in the loss, in the mean 1; None where nothing is weighted."""
        if sample_weight is None and self.class_weight is None:
            return None
        weights = np.ones(len(labels)) if sample_weight is None else sample_weight / sample_weight.max()
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):  # of classes without weight, and below
            of_classes = compute_class_weight(self.class_weight, classes=classes, y=y, sample_weight=weights)
            weights = np.where(weights > 0, weights * of_classes[labels], 0)
        if not (np.isfinite(weights).all() and weights.min() >= 0 and weights.any()):
            raise ValueError(
                f"class_weight={self.class_weight!r} must give finite weights, none negative, and not 0 to all rows "
                f"that count."
            )
        weights = weights / weights.max()
        return (weights / weights.mean()).astype(np.float32)

    def _check_validation_data(
        self, twin: Self, X_val: Any, y_val: Any, classes: NDArray[Any]
    ) -> tuple[NDArray[Any], NDArray[np.intp]]:
        """Return the validation rows and the numbers of their classes."""
        X_val = check_rows(twin, X_val, reset=False, name="X_val")
        Summary(X_val, name="X_val").check_float32()
        try:
            y_val = column_or_1d(labels_as_array(y_val, "y_val"))
        except (TypeError, ValueError) as error:  # it calls everything y
            raise ValueError(f"y_val: {error}") from error
        if len(X_val) != len(y_val):
            raise ValueError(f"X_val has {len(X_val)} rows and y_val {len(y_val)} labels; they must have as many.")
        numbers = {label: number for number, label in enumerate(classes.tolist())}
        unknown = [label for label in y_val.tolist() if label not in numbers]
        if unknown:
            raise ValueError(f"y_val contains labels that y does not, such as {unknown[0]!r}. Leave their rows out.")
        return X_val, np.array([numbers[label] for label in y_val.tolist()])

    def _make_net(self, config: dict[str, Any], seed: int, **parameters: Any) -> NeuralNetClassifier:
        """Return the initialized net around a fresh network."""
        if sys.stdout is None:  # as under pythonw; skorch flushes it after each epoch, whether or not it prints
            parameters["callbacks__print_log"] = None
        arguments = {"kind": self._network, "seed": seed} | config
        scoring = EpochScoring("accuracy", name="train_acc", lower_is_better=False, on_train=True)
        return _Net(
            _fresh_network,
            criterion=nn.CrossEntropyLoss,
            optimizer=torch.optim.Adam,
            iterator_train=_Minibatches,
            iterator_valid=_Minibatches,
            iterator_valid__batch_size=_PREDICTION_BATCH,
            classes=np.arange(config["n_classes"]),
            callbacks=[("train_acc", scoring)],
            **{f"module__{name}": value for name, value in arguments.items()},
            **parameters,
        ).initialize()

    def _train_epoch(self, net: NeuralNetClassifier, train: _LabeledRows, history: dict[str, list[float]]) -> None:
        """Train for an epoch, and add its record to the history."""
        threads = threads_for(net.module_, min(self.batch_size, len(train)))
        with torch.autocast(train.rows.device.type, enabled=False), threads:
            net.fit_loop(train, epochs=1)
        record = net.history[-1]
        record["batches"].clear()
        for name, values in history.items():
            values.append(float(record[_RECORDS[name]]))
        self._check_finite(net, record, train.rows[:4].x)

    def __getstate__(self) -> dict[str, Any]:
        """Return the state with the network and three numbers for the net, which is made anew of them."""
        state = super().__getstate__()
        if "net_" in state:
            net = state["net_"]
            numbers = {"lr": net.lr, "batch_size": net.batch_size, "seed": net.module__seed}
            state = state | {"net_": {"network": net.module_} | numbers}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        check_nothing_hidden(self, state)
        if "net_" in state:
            network, *numbers = (state["net_"][name] for name in ("network", "lr", "batch_size", "seed"))
            if type(network) is not self._network:  # nothing of what a file holds is called before it is known
                raise ValueError(
                    f"The file is damaged: a {type(self).__name__} holds a {type(network).__name__} where its network "
                    f"should be."
                )
            lr, batch_size, seed = numbers
            options = {"train_split": None, "verbose": 0, "device": str(network.head.weight.device)}
            net = self._make_net(network.config, seed, lr=lr, batch_size=batch_size, **options)
            net.module_.load_state_dict(network.state_dict())
            state = state | {"net_": net}
        super().__setstate__(with_defaults(self, state))

    @staticmethod
    def _check_finite(net: NeuralNetClassifier, record: dict[str, Any], x: Tensor) -> None:
        """Raise ValueError unless the losses of an epoch are finite, and what the network then makes of rows `x`."""
        weights = all(bool(parameter.isfinite().all()) for parameter in net.module_.parameters())
        with torch.inference_mode(), torch.autocast(x.device.type, enabled=False):
            logits = bool(net.module_(x).isfinite().all())
        if not (weights and logits and math.isfinite(record["train_loss"])):
            rest = "" if weights and logits else ", and what its last step has left is not finite"
            raise ValueError(
                f"Training diverged in epoch {record['epoch']}: the loss is {record['train_loss']:g}{rest}. Try a "
                f"smaller learning_rate_init, and scale the data to a range near one before."
            )
        if not math.isfinite(record.get("valid_loss", 0)):
            raise ValueError(
                f"The validation loss is {record['valid_loss']:g} after epoch {record['epoch']}. Look for rows of "
                f"X_val far from the training data."
            )

    @staticmethod
    def _fitted(net: NeuralNetClassifier, history: dict[str, list[float]], features: dict[str, Any]) -> dict[str, Any]:
        """Return the fitted attributes; the net keeps nothing of the data."""
        net.set_params(train_split=None)
        return features | {"net_": net, "n_iter_": len(history["loss"]), "history_": history}

    def _snapshot(
        self, net: NeuralNetClassifier, history: dict[str, list[float]], features: dict[str, Any]
    ) -> dict[str, Any]:
        """Return the fitted attributes as they would be if training stopped now; a copied net has its own weights."""
        return self._fitted(copy.copy(net), {name: list(values) for name, values in history.items()}, features)

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the probability of each class.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Data.

        Returns
        -------
        ndarray of shape (n_samples, n_classes), float64
            Probabilities, the classes in the order of `classes_`.
        """
        logits, _ = self._apply(X, lambda module, x: module(x))
        return softmax(logits.astype(np.float64), axis=1)

    def predict_log_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the logarithm of the probability of each class, finite also where the probability rounds to 0.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Data.

        Returns
        -------
        ndarray of shape (n_samples, n_classes), float64
            Logarithms, the classes in the order of `classes_`.
        """
        logits, _ = self._apply(X, lambda module, x: module(x))
        return log_softmax(logits.astype(np.float64), axis=1)

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the most probable class of each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Data.

        Returns
        -------
        ndarray of shape (n_samples,)
            Labels, as in `classes_`.
        """
        logits, classes = self._apply(X, lambda module, x: module(x))
        return classes[softmax(logits.astype(np.float64), axis=1).argmax(axis=1)]

    def embed(self, X: ArrayLike) -> NDArray[np.float32]:
        """Return what the last layer sees: the features that the network has learned.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Data.

        Returns
        -------
        ndarray of shape (n_samples, n_learned), float32
            Features; `n_learned` is the number of inputs of the last layer.
        """
        features, _ = self._apply(X, lambda module, x: module.embed(x))
        return features

    def _apply(
        self, X: ArrayLike, function: Callable[[Any, Tensor], Tensor]
    ) -> tuple[NDArray[np.float32], NDArray[Any]]:
        """Return what `function` makes of the network and the rows, and the classes that go with the network."""
        check_is_fitted(self)
        fitted = dict(self.__dict__)  # read once: another thread may be fitting
        X = check_rows(self, X, reset=False)
        Summary(X).check_float32()
        module = fitted["net_"].module_
        rows = Rows(X, _UNITS, module.head.weight.device)
        with torch.inference_mode(), torch.autocast(rows.device.type, enabled=False):
            output = np.concatenate(
                [function(module, batch.x).cpu().numpy() for batch in rows.blocks(_PREDICTION_BATCH)]
            )
        is_finite = np.isfinite(output).all(axis=1)
        if not is_finite.all():
            raise ValueError(
                f"What the network makes of row {is_finite.argmin()} of X is not finite. Its values are out of "
                f"proportion to the training data."
            )
        return output, fitted["classes_"]


class SimpleCNNClassifier(_BaseCNNClassifier):
    """A convolution and a softmax layer, as a classifier.

    The features are read as an image. A convolution of 32 filters of 3 x 3, zero-padded so that the image keeps its
    size, is followed by one dense layer with a softmax. Adam minimizes the cross-entropy.

    There is no `partial_fit`: a saved classifier has no state of Adam to go on with. `net_.partial_fit` of skorch takes
    float32 rows and numbers of classes, and trains the net further.

    Parameters
    ----------
    activation : {"relu", "identity"}, default="relu"
        What follows the convolution; ``"identity"`` is nothing.
    image_shape : tuple of int, default=None
        (height, width) or (height, width, channels) of a row before it was flattened in C order. None takes the image
        nearest to a square: 784 features are 28 x 28, 20 are 4 x 5, a prime number p of them 1 x p.
    class_weight : dict, "balanced" or None, default=None
        How much the rows of each class count in the loss, as a dict of labels to weights; a class that is not in it has
        1. ``"balanced"`` gives each class as much in all. These weights multiply `sample_weight` of `fit`.
    learning_rate_init : float, default=1e-3
        Step size of Adam.
    batch_size : int, default=128
        Rows of a minibatch. The last one of an epoch may be smaller; no row is left out.
    max_iter : int, default=20
        Number of epochs.
    random_state : int, RandomState instance or None, default=None
        Source of the initial weights and the shuffling. None takes fresh entropy: the global generators of NumPy and
        torch are neither read nor changed.
    device : str, int or torch.device, default="auto"
        Where to compute: ``"auto"`` is CUDA when there is one and the CPU otherwise.
    verbose : int or bool, default=0
        Whether to print a line for each epoch.

    Attributes
    ----------
    net_ : skorch.NeuralNetClassifier
        The trained net.
    classes_ : ndarray of shape (n_classes,)
        The labels.
    history_ : dict of str to list of float
        By epoch: ``"loss"``, the weighted mean cross-entropy in nats, and ``"accuracy"``, without weights, both as met
        in training, before each step; with validation data ``"validation_loss"`` and ``"validation_accuracy"`` after
        the epoch, without weights.
    n_iter_ : int
        Number of epochs.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the features, when all of them are strings.

    See Also
    --------
    MultilayerCNNClassifier : The same convolution with pooling and a hidden layer.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skvae.classifiers import SimpleCNNClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> classifier = SimpleCNNClassifier(max_iter=5, random_state=0).fit(X / 16, y)
    >>> bool(classifier.score(X / 16, y) > 0.8)
    True
    """

    _network = _SimpleCNN


class MultilayerCNNClassifier(_BaseCNNClassifier):
    """A convolution, pooling, a hidden layer and a softmax layer, as a classifier.

    The features are read as an image. A convolution of 32 filters of 3 x 3, zero-padded so that the image keeps its
    size, is followed by 2 x 2 max-pooling, a dense layer of 128 with ReLU and a dense layer with a softmax. At an odd
    side the last pooling window is half as large, so that no pixel is lost. Adam minimizes the cross-entropy.

    There is no `partial_fit`: a saved classifier has no state of Adam to go on with. `net_.partial_fit` of skorch takes
    float32 rows and numbers of classes, and trains the net further.

    Parameters
    ----------
    activation : {"relu", "identity"}, default="relu"
        What follows the convolution; ``"identity"`` is nothing.
    image_shape : tuple of int, default=None
        (height, width) or (height, width, channels) of a row before it was flattened in C order. None takes the image
        nearest to a square: 784 features are 28 x 28, 20 are 4 x 5, a prime number p of them 1 x p.
    class_weight : dict, "balanced" or None, default=None
        How much the rows of each class count in the loss, as a dict of labels to weights; a class that is not in it has
        1. ``"balanced"`` gives each class as much in all. These weights multiply `sample_weight` of `fit`.
    learning_rate_init : float, default=1e-3
        Step size of Adam.
    batch_size : int, default=128
        Rows of a minibatch. The last one of an epoch may be smaller; no row is left out.
    max_iter : int, default=20
        Number of epochs.
    random_state : int, RandomState instance or None, default=None
        Source of the initial weights and the shuffling. None takes fresh entropy: the global generators of NumPy and
        torch are neither read nor changed.
    device : str, int or torch.device, default="auto"
        Where to compute: ``"auto"`` is CUDA when there is one and the CPU otherwise.
    verbose : int or bool, default=0
        Whether to print a line for each epoch.

    Attributes
    ----------
    net_ : skorch.NeuralNetClassifier
        The trained net.
    classes_ : ndarray of shape (n_classes,)
        The labels.
    history_ : dict of str to list of float
        By epoch: ``"loss"``, the weighted mean cross-entropy in nats, and ``"accuracy"``, without weights, both as met
        in training, before each step; with validation data ``"validation_loss"`` and ``"validation_accuracy"`` after
        the epoch, without weights.
    n_iter_ : int
        Number of epochs.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the features, when all of them are strings.

    See Also
    --------
    SimpleCNNClassifier : The same convolution and nothing else.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skvae.classifiers import MultilayerCNNClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> classifier = MultilayerCNNClassifier(max_iter=5, random_state=0).fit(X / 16, y)
    >>> bool(classifier.score(X / 16, y) > 0.8)
    True
    """

    _network = _MultilayerCNN
