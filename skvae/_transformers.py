"""The two estimators: signature, documentation and likelihood of each."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from skvae._base import BaseVAETransformer
from skvae._data.checks import check_range
from skvae._sklearn import StrOptions
from skvae.likelihoods import ContinuousBernoulliLikelihood, Likelihood, NormalLikelihood

__all__ = ["ContinuousBernoulliVAETransformer", "NormalVAETransformer"]


class NormalVAETransformer(BaseVAETransformer):
    r"""Variational autoencoder with a normal likelihood, as a transformer.

    The model [1]_ is

    .. math::

        z \sim N(0, I), \qquad x \mid z \sim N(m(z), \mathrm{diag}\, s(z)^2), \qquad
        q(z \mid x) = N(\mu(x), \mathrm{diag}\, \sigma(x)^2),

    where networks give :math:`m, s` (the decoder) and :math:`\mu, \sigma` (the encoder). They are trained to raise the
    evidence lower bound, :math:`\mathbb{E}_q \log p(x \mid z) - \mathrm{KL}(q \,\|\, N(0, I))`. `transform` returns
    :math:`\mu(x)`. By default training begins at the linear model, probabilistic PCA [2]_, and one standard deviation
    for each feature takes the place of :math:`s(z)`. The likelihood works on data from which the mean of each feature
    has been subtracted, and which have been divided by one scale, the root mean square of what is left. What comes out
    is in the units of the data.

    Parameters
    ----------
    n_components : int, default=20
        Number of latent components.
    encoder : {"auto", "dense", "conv"} or torch.nn.Module, default="dense"
        ``"dense"`` is a fully connected network with ReLU. ``"conv"`` puts a convolution of 32 filters of 3 x 3 and a
        2 x 2 max-pooling ahead of it. ``"auto"`` is ``"conv"`` when the features form an image (`image_shape` is given,
        or their number is a square of at least 4 x 4) and ``"dense"`` otherwise. A module maps float32 tensors of shape
        (batch, n_features) to (batch, 2 * n_components): posterior means, then log variances. `fit`
        starts from its weights and trains a copy, in training mode; pickling the estimator pickles both. A layer that
        the decoder holds too is copied to each of them: it is no longer shared.
    decoder : {"dense"} or torch.nn.Module, default="dense"
        ``"dense"`` is a fully connected network with ReLU that mirrors the encoder's hidden layers. A module maps
        (batch, n_components) to (batch, n_features): means. With ``noise="network"`` they are followed by as many
        values r of which the standard deviations are made, ``min_scale + softplus(r)``. `fit` trains a copy of it as
        well. A layer that both modules hold is copied to each of them: it is no longer shared.
    hidden_layer_sizes : int or sequence of int, default=(128,)
        Widths of the encoder's dense hidden layers; the decoder has them in reverse. Empty for linear maps.
    dropout : float, default=0.0
        Probability in [0, 1) with which a dense hidden unit is zeroed in training.
    init : {"pca", "random"}, default="pca"
        Where training begins. ``"pca"`` puts a linear map beside each built-in network and begins at probabilistic PCA
        [2]_ of the training rows: the ELBO before the first step is the log likelihood of that model. Where the rows
        that are set aside for the noise are reconstructed better by the model as it began than by the trained one, it
        comes back. ``"random"`` is the networks alone, with random weights. Modules of your own get no linear map, and
        neither does a built-in network beside one.
    image_shape : tuple of int, default=None
        (height, width) or (height, width, channels) of a row before it was flattened in C order. None takes a
        square number of features for a square image.
    noise : {"feature", "shared", "network"}, default="feature"
        Where the standard deviations of p(x | z) come from. ``"shared"`` is one for all features, as in probabilistic
        PCA. ``"feature"`` is the same in training, which keeps the mean of every feature; then each feature gets the
        standard deviation of what its mean leaves, as in `FactorAnalysis`, and one that grows or falls with the mean
        where what is left does: with m the mean, it is ``min_scale + log(1 + exp(a + b m))`` with numbers a and b for
        each feature, in units of `scale_`. How much the mean leaves of later rows is measured on `X_val`, on the rows
        of early stopping, or without them on a tenth of the rows, at most 500, which are not trained on. `partial_fit`
        trains one level and leaves the differences of the features as they are. ``"network"`` is the decoder, for each
        row and feature.
    prior : {"normal", "mixture"}, default="mixture"
        What takes the place of N(0, I), with which the model is trained, in `sample` and `score_samples`. `impute`
        takes N(0, I) all the same.
        ``"mixture"`` is a mixture of normal distributions that is fitted to draws from q(z | x) of at most 10,000
        training rows when training has ended. Of up to 40 components it has as many as suit held-out draws; where N(0,
        I) suits them as well, it stays. `partial_fit` puts N(0, I) back. ``"normal"`` is N(0, I).
    min_scale : float, default=0.02
        Lower bound of the standard deviations of p(x | z), in units of `scale_`. It bounds the density where a feature
        is constant.
    beta : float, default=1.0
        Weight of the KL term in training. It has no part in `score`.
    learning_rate : {"constant", "cosine"}, default="cosine"
        Whether the step size of Adam stays what it is, or falls to zero over the epochs by a cosine. `partial_fit`
        keeps it constant.
    learning_rate_init : float, default=2e-3
        Step size of Adam at the beginning.
    weight_decay : float or "auto", default="auto"
        Times the step size, the share that the networks beside the linear paths lose of their weights at each step
        [3]_. It keeps them near the linear model. ``"auto"`` is 100 divided by the number of training rows, and 0 in
        `partial_fit`. Networks without a linear path do not decay.
    batch_size : int or "auto", default="auto"
        Rows of a minibatch. ``"auto"`` is the number of training rows divided by 32, at least 8 and at most 128. The
        last minibatch of an epoch may be smaller; none is left out.
    max_iter : int or None, default=None
        Number of epochs; with early stopping the largest number. None is as many as make 10,000 steps, at least 10 and
        at most 150.
    clip_value : float, default=2.0
        Bound on the absolute value of each entry of the gradient. None leaves the gradient alone.
    early_stopping : bool, default=False
        Whether to set rows aside, to stop when their ELBO no longer rises, and to keep the best weights. The ELBO of
        a row set aside costs as many passes through the decoder as `score` takes, about two for each component.
    validation_fraction : float, default=0.1
        Share of the rows that early stopping sets aside, when `fit` gets no `X_val`.
    n_iter_no_change : int, default=10
        Number of epochs in a row without an improvement after which early stopping stops.
    tol : float, default=1e-4
        The rise in the validation ELBO, in nats per row, that counts as an improvement.
    warm_start : bool, default=False
        Whether `fit` goes on from the fitted weights and units, with a new optimizer.
    checkpoint : str or path-like, default=None
        A file to which `fit` writes the state of training after each epoch. If the file is there, `fit` goes on from
        it, and ends with the same bits as if it had not been interrupted; with other parameters, other data or another
        kind of device it is an error. A file is for one fit, and not for those of a search. `partial_fit` takes no
        notice of it.
    random_state : int, RandomState instance or None, default=None
        Source of the initial weights, the split, the shuffling, the noise and dropout. None takes fresh entropy: the
        global generators of NumPy and torch are neither read nor changed.
    device : str, int or torch.device, default="auto"
        Where to compute: ``"auto"`` is CUDA when there is one and the CPU otherwise.
    verbose : int or bool, default=0
        Whether to print a line for each epoch: the ELBO, its two terms, seconds taken and seconds left.

    Attributes
    ----------
    module_ : torch.nn.Module
        The trained autoencoder.
    shift_ : ndarray of shape (n_features,), float64
        The mean of each feature of the training rows.
    scale_ : float
        The root mean square of what is left. The likelihood works on ``(x - shift_) / scale_``. Broken entries have
        no part in `shift_` and `scale_`: a few of a feature that hold more than 99 % of its variance, and are ten times
        as far away as its others and twice as far as all others of the table. There is at most one in a hundred rows,
        or one in fewer rows, and none in fewer than ten. A warning names the feature. Training sees them clipped;
        `transform` and `score_samples` see them as they are.
    noise_variance_ : float or ndarray of shape (n_features,)
        The variance of p(x | z), in the units of the data: of all features with ``noise="shared"``, of each with
        ``noise="feature"``, where its mean is that of the training rows. It is not there with ``noise="network"``.
    prior_ : GaussianMixture or None
        The distribution of the latent components in `sample` and `score_samples`; None is N(0, I).
    n_iter_ : int
        Number of epochs trained.
    n_features_in_ : int
        Number of features seen in `fit`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the features seen in `fit`, when they are all strings.
    loss_curve_ : list of float
        The training objective of each epoch, ``beta * kl - log_likelihood``, in nats per row in the units of the data.
    history_ : dict of str to list of float
        By epoch, in nats per row in the units of the data: ``"elbo"``, ``"log_likelihood"`` and ``"kl"`` on the
        training rows as they were trained on, and ``"validation_elbo"`` when there is validation data (NaN for epochs
        without it): an estimate over a few points for each row, the same each time, which says how epochs differ.
    validation_scores_ : list of float or None
        The estimate of each epoch of the last `fit`, with early stopping.
    best_validation_score_ : float or None
        The score of the weights that were kept, those with the largest estimate. `score` is the same with
        ``prior="normal"`` and another `noise` than ``"feature"``; otherwise both are set after it, and `score` is
        usually higher.

    See Also
    --------
    ContinuousBernoulliVAETransformer : For data in a bounded range.
    sklearn.decomposition.PCA : The linear method to compare with.
    sklearn.decomposition.FactorAnalysis : The exact linear model with a scale for each feature.

    References
    ----------
    .. [1] Kingma, D. P. and Welling, M., "Auto-encoding variational Bayes", ICLR 2014.
    .. [2] Tipping, M. E. and Bishop, C. M., "Probabilistic principal component analysis", Journal of the Royal
       Statistical Society B 61, 1999.
    .. [3] Loshchilov, I. and Hutter, F., "Decoupled weight decay regularization", ICLR 2019.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skvae import NormalVAETransformer
    >>> X, _ = load_digits(return_X_y=True)
    >>> vae = NormalVAETransformer(n_components=8, max_iter=5, random_state=0).fit(X)
    >>> vae.transform(X).shape
    (1797, 8)
    >>> vae.sample(3, random_state=0).shape
    (3, 64)
    """

    _parameter_constraints: dict[str, list[Any]] = {
        **BaseVAETransformer._parameter_constraints,
        "noise": [StrOptions({"feature", "shared", "network"})],
    }

    _posterior_scale = "log_variance"
    _decay_times_rows = 100.0

    def __init__(
        self,
        n_components: int = 20,
        *,
        encoder: str | nn.Module = "dense",
        decoder: str | nn.Module = "dense",
        hidden_layer_sizes: int | Sequence[int] = (128,),
        dropout: float = 0.0,
        init: str = "pca",
        image_shape: Sequence[int] | None = None,
        noise: str = "feature",
        prior: str = "mixture",
        min_scale: float = 0.02,
        beta: float = 1.0,
        learning_rate: str = "cosine",
        learning_rate_init: float = 2e-3,
        weight_decay: float | str = "auto",
        batch_size: int | str = "auto",
        max_iter: int | None = None,
        clip_value: float | None = 2.0,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        tol: float = 1e-4,
        warm_start: bool = False,
        checkpoint: str | os.PathLike[str] | None = None,
        random_state: int | np.random.RandomState | None = None,
        device: str | int | torch.device = "auto",
        verbose: int | bool = 0,
    ) -> None:
        self.n_components = n_components
        self.encoder = encoder
        self.decoder = decoder
        self.hidden_layer_sizes = hidden_layer_sizes
        self.dropout = dropout
        self.init = init
        self.image_shape = image_shape
        self.noise = noise
        self.prior = prior
        self.min_scale = min_scale
        self.beta = beta
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.clip_value = clip_value
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.warm_start = warm_start
        self.checkpoint = checkpoint
        self.random_state = random_state
        self.device = device
        self.verbose = verbose

    def make_likelihood(self, n_features: int) -> Likelihood:
        """Return the likelihood p(x | z) that the parameters ask for, not yet trained.

        Parameters
        ----------
        n_features : int
            Number of features of the data.

        Returns
        -------
        NormalLikelihood
            A new one each time.
        """
        return NormalLikelihood(float(self.min_scale), n_features, noise=self.noise)


class ContinuousBernoulliVAETransformer(BaseVAETransformer):
    r"""Variational autoencoder with a continuous Bernoulli likelihood, as a transformer.

    The model is

    .. math::

        z \sim N(0, I), \qquad x \mid z \sim \mathrm{CB}(\lambda(z)), \qquad
        q(z \mid x) = N(\mu(x), \mathrm{diag}\, \sigma(x)^2),

    for data in a bounded range, which is mapped to [0, 1]. The continuous Bernoulli [1]_ has the density
    :math:`p(x) \propto \lambda^x (1 - \lambda)^{1 - x}` on [0, 1], normalized, which a Bernoulli likelihood of
    continuous data is not. `inverse_transform` and `sample` return its mean, which is not :math:`\lambda`.

    Parameters
    ----------
    n_components : int, default=20
        Number of latent components.
    encoder : {"auto", "dense", "conv"} or torch.nn.Module, default="dense"
        ``"dense"`` is a fully connected network with ReLU. ``"conv"`` puts a convolution of 32 filters of 3 x 3 and a
        2 x 2 max-pooling ahead of it. ``"auto"`` is ``"conv"`` when the features form an image (`image_shape` is given,
        or their number is a square of at least 4 x 4) and ``"dense"`` otherwise. A module maps float32 tensors of shape
        (batch, n_features) to (batch, 2 * n_components): posterior means, then values whose softplus is the standard
        deviation. `fit` starts from its weights and trains a copy, in training mode; pickling the
        estimator pickles both. A layer that the decoder holds too is copied to each of them: it is no longer shared.
    decoder : {"dense"} or torch.nn.Module, default="dense"
        ``"dense"`` is a fully connected network with ReLU that mirrors the encoder's hidden layers. A module maps
        (batch, n_components) to (batch, n_features): the logits, before their bound. `fit` trains a copy of it as well.
        A layer that both modules hold is copied to each of them: it is no longer shared.
    hidden_layer_sizes : int or sequence of int, default=(128,)
        Widths of the encoder's dense hidden layers; the decoder has them in reverse. Empty for linear maps.
    dropout : float, default=0.0
        Probability in [0, 1) with which a dense hidden unit is zeroed in training.
    init : {"pca", "random"}, default="pca"
        Where training begins. ``"pca"`` puts a linear map beside each built-in network and begins at probabilistic PCA
        [2]_ of the training rows. The encoder has its posterior, and the decoder its mean, which the continuous
        Bernoulli distribution bends toward the ends of the range. ``"random"`` is the networks alone, with random
        weights. Modules of your own get no linear map, and neither does a built-in network beside one.
    image_shape : tuple of int, default=None
        (height, width) or (height, width, channels) of a row before it was flattened in C order. None takes a
        square number of features for a square image.
    prior : {"normal", "mixture"}, default="mixture"
        What takes the place of N(0, I), with which the model is trained, in `sample` and `score_samples`. `impute`
        takes N(0, I) all the same.
        ``"mixture"`` is a mixture of normal distributions that is fitted to draws from q(z | x) of at most 10,000
        training rows when training has ended. Of up to 40 components it has as many as suit held-out draws; where N(0,
        I) suits them as well, it stays. `partial_fit` puts N(0, I) back. ``"normal"`` is N(0, I).
    data_range : tuple of two floats, default=None
        (low, high), the range of the data. A value outside it, beyond rounding, is an error. None learns the range of
        the training data. Later values outside a learned range are clipped on their way to the encoder and have the
        density 0, a score of -inf. In training that goes on from a fitted model (`partial_fit`, or `fit` with
        `warm_start`), which must not lose data, they are an error. In `X_val` they are clipped with a warning. So are
        broken entries in training, a few of a feature that are far beyond all others, of which no range is learned.
    min_scale : float, default=1/64
        About the smallest standard deviation of p(x | z), as a share of the range. It bounds the logits softly, at 1 /
        min_scale, and so the density at the ends of the range.
    beta : float, default=1.0
        Weight of the KL term in training. It has no part in `score`.
    learning_rate : {"constant", "cosine"}, default="cosine"
        Whether the step size of Adam stays what it is, or falls to zero over the epochs by a cosine. `partial_fit`
        keeps it constant.
    learning_rate_init : float, default=2e-3
        Step size of Adam at the beginning.
    weight_decay : float or "auto", default="auto"
        Times the step size, the share that the networks beside the linear paths lose of their weights at each step
        [3]_. It keeps them near the linear model. ``"auto"`` is 300 divided by the number of training rows, and 0 in
        `partial_fit`. Networks without a linear path do not decay.
    batch_size : int or "auto", default="auto"
        Rows of a minibatch. ``"auto"`` is the number of training rows divided by 32, at least 8 and at most 128. The
        last minibatch of an epoch may be smaller; none is left out.
    max_iter : int or None, default=None
        Number of epochs; with early stopping the largest number. None is as many as make 10,000 steps, at least 10 and
        at most 150.
    clip_value : float, default=2.0
        Bound on the absolute value of each entry of the gradient. None leaves the gradient alone.
    early_stopping : bool, default=False
        Whether to set rows aside, to stop when their ELBO no longer rises, and to keep the best weights. The ELBO of
        a row set aside costs as many passes through the decoder as `score` takes, about two for each component.
    validation_fraction : float, default=0.1
        Share of the rows that early stopping sets aside, when `fit` gets no `X_val`.
    n_iter_no_change : int, default=10
        Number of epochs in a row without an improvement after which early stopping stops.
    tol : float, default=1e-4
        The rise in the validation ELBO, in nats per row, that counts as an improvement.
    warm_start : bool, default=False
        Whether `fit` goes on from the fitted weights and units, with a new optimizer.
    checkpoint : str or path-like, default=None
        A file to which `fit` writes the state of training after each epoch. If the file is there, `fit` goes on from
        it, and ends with the same bits as if it had not been interrupted; with other parameters, other data or another
        kind of device it is an error. A file is for one fit, and not for those of a search. `partial_fit` takes no
        notice of it.
    random_state : int, RandomState instance or None, default=None
        Source of the initial weights, the split, the shuffling, the noise and dropout. None takes fresh entropy: the
        global generators of NumPy and torch are neither read nor changed.
    device : str, int or torch.device, default="auto"
        Where to compute: ``"auto"`` is CUDA when there is one and the CPU otherwise.
    verbose : int or bool, default=0
        Whether to print a line for each epoch: the ELBO, its two terms, seconds taken and seconds left.

    Attributes
    ----------
    module_ : torch.nn.Module
        The trained autoencoder.
    shift_, scale_ : float
        The units in which the likelihood works: ``(x - shift_) / scale_``.
    prior_ : GaussianMixture or None
        The distribution of the latent components in `sample` and `score_samples`; None is N(0, I).
    n_iter_ : int
        Number of epochs trained.
    n_features_in_ : int
        Number of features seen in `fit`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the features seen in `fit`, when they are all strings.
    loss_curve_ : list of float
        The training objective of each epoch, ``beta * kl - log_likelihood``, in nats per row in the units of the data.
    history_ : dict of str to list of float
        By epoch, in nats per row in the units of the data: ``"elbo"``, ``"log_likelihood"`` and ``"kl"`` on the
        training rows as they were trained on, and ``"validation_elbo"`` when there is validation data (NaN for epochs
        without it): an estimate over a few points for each row, the same each time, which says how epochs differ.
    validation_scores_ : list of float or None
        The estimate of each epoch of the last `fit`, with early stopping.
    best_validation_score_ : float or None
        The score of the weights that were kept, those with the largest estimate. `score` is the same with
        ``prior="normal"``; otherwise the mixture is fitted after it, and `score` is usually higher.

    See Also
    --------
    NormalVAETransformer : For unbounded data.
    skvae.distributions.ContinuousBernoulli : The distribution.

    References
    ----------
    .. [1] Loaiza-Ganem, G. and Cunningham, J. P., "The continuous Bernoulli: fixing a pervasive error in variational
       autoencoders", NeurIPS 2019.
    .. [2] Tipping, M. E. and Bishop, C. M., "Probabilistic principal component analysis", Journal of the Royal
       Statistical Society B 61, 1999.
    .. [3] Loshchilov, I. and Hutter, F., "Decoupled weight decay regularization", ICLR 2019.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skvae import ContinuousBernoulliVAETransformer
    >>> X, _ = load_digits(return_X_y=True)
    >>> vae = ContinuousBernoulliVAETransformer(8, data_range=(0, 16), max_iter=2, random_state=0).fit(X)
    >>> vae.inverse_transform(vae.transform(X)).shape
    (1797, 64)
    """

    _parameter_constraints: dict[str, list[Any]] = {
        **BaseVAETransformer._parameter_constraints,
        "data_range": [tuple, list, np.ndarray, None],
    }

    _posterior_scale = "softplus"
    _decay_times_rows = 300.0

    def __init__(
        self,
        n_components: int = 20,
        *,
        encoder: str | nn.Module = "dense",
        decoder: str | nn.Module = "dense",
        hidden_layer_sizes: int | Sequence[int] = (128,),
        dropout: float = 0.0,
        init: str = "pca",
        image_shape: Sequence[int] | None = None,
        prior: str = "mixture",
        data_range: Sequence[float] | None = None,
        min_scale: float = 1 / 64,
        beta: float = 1.0,
        learning_rate: str = "cosine",
        learning_rate_init: float = 2e-3,
        weight_decay: float | str = "auto",
        batch_size: int | str = "auto",
        max_iter: int | None = None,
        clip_value: float | None = 2.0,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        tol: float = 1e-4,
        warm_start: bool = False,
        checkpoint: str | os.PathLike[str] | None = None,
        random_state: int | np.random.RandomState | None = None,
        device: str | int | torch.device = "auto",
        verbose: int | bool = 0,
    ) -> None:
        self.n_components = n_components
        self.encoder = encoder
        self.decoder = decoder
        self.hidden_layer_sizes = hidden_layer_sizes
        self.dropout = dropout
        self.init = init
        self.image_shape = image_shape
        self.prior = prior
        self.data_range = data_range
        self.min_scale = min_scale
        self.beta = beta
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.clip_value = clip_value
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.warm_start = warm_start
        self.checkpoint = checkpoint
        self.random_state = random_state
        self.device = device
        self.verbose = verbose

    def make_likelihood(self, n_features: int) -> Likelihood:
        """Return the likelihood p(x | z) that the parameters ask for, not yet trained.

        Parameters
        ----------
        n_features : int
            Number of features of the data.

        Returns
        -------
        ContinuousBernoulliLikelihood
            A new one each time.
        """
        data_range = None if self.data_range is None else check_range(self.data_range, "data_range")
        return ContinuousBernoulliLikelihood(data_range, float(self.min_scale))
