r"""Likelihoods p(x | z): the distribution of a row of data given its latent components.

A likelihood says in which units it works, which data it takes, and how dense, central and variable the data are given
what the decoder puts out. It works on single entries, which are independent given z. To add one, derive a class from
`Likelihood` and override `make_likelihood` in a subclass of an estimator.
"""

import dataclasses
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from skvae import distributions
from skvae._data.checks import warn_user
from skvae._data.rows import Summary, Units
from skvae._model import ops
from skvae._model.scale import fit_scale
from skvae._model.stored import StoredModule

__all__ = ["ContinuousBernoulliLikelihood", "Likelihood", "NormalLikelihood", "Summary", "Units"]

Purpose = Literal["train", "continue", "validate", "use"]

# How many times as much as a quarter of the features the one that varies most may vary without a warning.
_LARGEST_RATIO = 100

# Bounds on data to go on training with, in the units of earlier data, without a warning: how far they may lie from the
# earlier ones, and how little they may vary.
_LARGEST_DISTANCE, _SMALLEST_SPREAD = 10, 0.1

# The fewest rows that say how little data vary.
_FEWEST_ROWS_OF_SPREAD = 8

# The logit of a continuous Bernoulli changes by so much with its mean in the middle of the range.
_GAIN = 12.0

# Draws that say how variable entries are, where a likelihood does not.
_N_DRAWS_OF_VARIANCE = 64

# What the smallest standard deviation has above its lower bound, as a share of it: in training it can still grow.
_SMALLEST_EXCESS = 0.02


def _root_mean_square(values: NDArray[np.float64]) -> float:
    largest = float(values.max()) or 1.0
    return largest * float(np.sqrt(np.square(values / largest).mean()))


def _warn_of_different_scales(spread: NDArray[np.float64]) -> None:
    """Warn when a quarter of the features that vary are hardly seen beside the one that varies most."""
    varying = spread[spread > 0]
    if len(varying) == 0:
        return
    quarter, largest = float(np.quantile(varying, 0.25, method="lower")), float(varying.max())
    if largest > _LARGEST_RATIO * quarter:
        warn_user(
            f"Column {int(spread.argmax())} of X has a standard deviation of {largest:.3g}, a quarter of those that "
            f"vary one of {quarter:.3g} or less. Beside it the model hardly sees them. Put a StandardScaler ahead of "
            f"the VAE, and look for extreme values in that column.",
            UserWarning,
        )


def _warn_of_broken_entries(summary: Summary, advice: str) -> None:
    """Warn of columns that have entries out of all proportion to their others."""
    farthest, others = summary.columns.farthest, summary.without_broken_entries
    broken = np.flatnonzero(farthest > others.farthest)
    if len(broken) == 0:
        return
    column, n_more = broken[0], len(broken) - 1
    more = f", and {n_more} more column{' has' if n_more == 1 else 's have'} such entries" if n_more else ""
    warn_user(
        f"An entry of column {column} of X is {farthest[column]:.3g} away from the mean, where the others have a "
        f"standard deviation of {others.spread[column]:.3g}{more}. It has no part in shift_ and scale_, and training "
        f"sees it clipped. Look whether it is an error, and {advice}",
        UserWarning,
    )


def _ends_of_others(summary: Summary) -> tuple[float, float]:
    """Return the smallest and the largest entry of all rows that is not broken."""
    others = summary.without_broken_entries
    return float(np.fmin.reduce(others.low)), float(np.fmax.reduce(others.high))


def _warn_of_other_units(summary: Summary, units: Units) -> None:
    """Warn when data to go on training with are nothing like those that the units come from."""
    mean, spread, *_ = summary.without_broken_entries
    seen = summary.n_observed > 0
    mean, spread, shift = mean[seen], spread[seen], np.broadcast_to(units.shift, seen.shape)[seen]
    distance = _root_mean_square(np.hypot(mean - shift, spread)) / units.scale
    relative_spread = _root_mean_square(spread) / units.scale
    if distance > _LARGEST_DISTANCE:
        warn_user(
            f"The rows of X are {distance:.3g} times as far from shift_ as scale_={units.scale:.3g} says, which an "
            f"earlier call has learned. The model was made for data that are nothing like them. Begin with rows "
            f"that are like the later ones, or scale all of them ahead of the VAE.",
            UserWarning,
        )
    elif summary.n_rows >= _FEWEST_ROWS_OF_SPREAD and 0 < relative_spread < _SMALLEST_SPREAD:
        warn_user(
            f"The rows of X vary {relative_spread:.3g} times as much as scale_={units.scale:.3g} says, which an "
            f"earlier call has learned. The model hardly sees how they differ. Look for extreme values in the rows of "
            f"that call. Begin with rows that are like the later ones, or scale all of them ahead of the VAE.",
            UserWarning,
        )


class Likelihood(nn.Module):
    """Base class of likelihoods.

    A subclass has `n_parameters` and the methods `log_prob`, `mean` and `sample`. The units, and the data that it
    takes, are by default those of the normal likelihood: any finite data, standardized. It may have parameters of its
    own (`torch.nn.Parameter`), which are then trained and saved with the model.

    Attributes
    ----------
    n_parameters : int
        Number of decoder outputs for one feature. The decoder's output is ``(..., n_parameters * n_features)``, all
        values of the first parameter first.
    capturable : bool
        Whether a training step with it can be recorded as a CUDA graph: it must not read numbers back from the device.
    smallest_scale : float
        The smallest standard deviation with which a fit may begin, in the units of the likelihood.
    remedy : str
        What to do when reconstructions are worse than those of the linear model, for the warning of it.
    smooth : bool
        Whether the log density of an entry depends smoothly on one parameter, and on no other. Then scores take it at
        three values of the parameter that stand for all latent points. A subclass that overrides `log_prob` sets it
        anew.
    calibrates : bool
        Whether `calibrate` does anything. Then `fit` sets rows aside, and tells it what is left of them as well.

    See Also
    --------
    NormalLikelihood : Independent normal entries.
    ContinuousBernoulliLikelihood : Independent continuous Bernoulli entries.

    Examples
    --------
    >>> import math
    >>> import torch
    >>> from skvae.likelihoods import Likelihood
    >>> class Laplace(Likelihood):
    ...     n_parameters = 1
    ...
    ...     def log_prob(self, x, parameters):
    ...         return -(x - parameters).abs() - math.log(2)
    ...
    ...     def mean(self, parameters):
    ...         return parameters
    ...
    ...     def sample(self, parameters, generator):
    ...         uniform = torch.rand(parameters.shape, generator=generator) - 0.5
    ...         return parameters - uniform.sign() * torch.log1p(-2 * uniform.abs())
    >>> Laplace().log_prob(torch.zeros(3), torch.zeros(3)).shape
    torch.Size([3])
    """

    n_parameters: int = 1
    capturable: bool = False
    smallest_scale: float = 0.0
    remedy: str = "Try more epochs (max_iter), a smaller learning_rate_init, or a smaller beta."
    smooth: bool = False
    calibrates: bool = False

    def __init__(self) -> None:
        super().__init__()

    def learn_units(self, summary: Summary) -> Units:
        """Return the units in which the likelihood works.

        Parameters
        ----------
        summary : Summary
            What is known of the training data.

        Returns
        -------
        Units
            By default ``(x - shift) / scale`` with the mean of each feature and the root mean square of what is left.
            Broken entries have no part in them: a few of a feature that hold nearly all of its variance, and are far
            beyond its others and twice as far away as any other of the table.

        Warns
        -----
        UserWarning
            By default when the features differ by orders of magnitude.
        """
        mean, spread, *_ = summary.without_broken_entries
        _warn_of_different_scales(spread)
        return Units(mean, _root_mean_square(spread) or 1.0)

    def training_units(self, summary: Summary, units: Units) -> Units:
        """Return the units with what they clip in training and validation, so that no broken entry decides them.

        Parameters
        ----------
        summary : Summary
            What is known of the training data.
        units : Units
            The units in which the model works, learned from these data or from earlier ones.

        Returns
        -------
        Units
            By default they clip what is more than twice as far from the shift as any entry that is not broken.

        Warns
        -----
        UserWarning
            By default when there are broken entries.
        """
        _warn_of_broken_entries(summary, "correct it or leave out its row.")
        reach = summary.reach(units.shift) / units.scale
        return dataclasses.replace(units, low=max(units.low, -reach), high=min(units.high, reach))

    def begin_at(self, mean: Tensor, noise_variance: float) -> Tensor | None:
        """Begin at a linear model, probabilistic PCA, of which the decoder has the components.

        Parameters
        ----------
        mean : Tensor of shape (n_features,), float64
            The mean of the training rows, in the units of the likelihood.
        noise_variance : float
            The variance of each entry around the linear model, in these units.

        Returns
        -------
        Tensor of shape (n_parameters * n_features,) or None
            What the decoder puts out at z = 0. The components are then added to its first `n_features` outputs. None,
            the default, says that no linear map of z gives the mean; the decoder then begins at random weights.
        """
        return None

    def begin_training(self) -> None:
        """Take back what `calibrate` has set, before `fit` trains; by default nothing."""

    def calibrate(self, means: Tensor, squares: Tensor) -> None:
        """Set what is left to set when training has ended; by default nothing.

        Parameters
        ----------
        means, squares : Tensor of shape (n_samples, n_features), float64
            The mean of each entry of training rows under the posterior, and the mean square of what is left of it, in
            the units of the likelihood. The square of a missing entry is NaN.
        """

    def check_values(self, summary: Summary, units: Units, *, purpose: Purpose) -> None:
        """Raise ValueError for data that the likelihood does not take.

        Parameters
        ----------
        summary : Summary
            What is known of the data.
        units : Units
            The units in which the model works.
        purpose : {"train", "continue", "validate", "use"}
            What they are for: to train a model whose units are learned from them, to go on training one that has its
            units from earlier data, to validate it, or to be transformed and scored by it.

        Raises
        ------
        ValueError
            By default when an entry is too large for float32.

        Warns
        -----
        UserWarning
            By default when data to go on training with are far from those that the units come from, or vary far less.
        """
        summary.check_float32()
        if purpose == "continue":
            _warn_of_other_units(summary, units)

    def in_support(self, summary: Summary, units: Units) -> NDArray[np.bool_]:
        """Return which rows can come out of the model; the others have the density 0.

        Parameters
        ----------
        summary : Summary
            What is known of the data.
        units : Units
            The units in which the model works.

        Returns
        -------
        ndarray of shape (n_samples,), bool
            By default all True.
        """
        return np.ones(len(summary.X), bool)

    def log_prob(self, x: Tensor, parameters: Tensor) -> Tensor:
        """Return the log density of each entry given its parameters.

        Parameters
        ----------
        x : Tensor of shape (..., n_features)
            Rows in the units of the likelihood.
        parameters : Tensor of shape (..., n_parameters * n_features), float32
            What the decoder puts out, which the result may be differentiated by. Its leading axes may be longer than
            those of `x`, as in broadcasting: scores take each row at several latent points.

        Returns
        -------
        Tensor of shape (..., n_features)
            Log densities, in nats.
        """
        raise NotImplementedError(f"{type(self).__name__} needs a method log_prob(x, parameters).")

    def mean(self, parameters: Tensor) -> Tensor:
        """Return the mean of each entry.

        Parameters
        ----------
        parameters : Tensor of shape (..., n_parameters * n_features), float32
            What the decoder puts out.

        Returns
        -------
        Tensor of shape (..., n_features)
            Means, in the units of the likelihood.
        """
        raise NotImplementedError(f"{type(self).__name__} needs a method mean(parameters).")

    def variance(self, parameters: Tensor) -> Tensor:
        """Return the variance of each entry around its mean, for the imputation of missing entries.

        Parameters
        ----------
        parameters : Tensor of shape (..., n_parameters * n_features), float32
            What the decoder puts out.

        Returns
        -------
        Tensor of shape (..., n_features)
            Variances, in the units of the likelihood. By default they come from 64 draws.
        """
        generator = torch.Generator("cpu").manual_seed(0)
        mean, total = self.mean(parameters), torch.zeros_like(self.mean(parameters))
        for _ in range(_N_DRAWS_OF_VARIANCE):
            total += (self.sample(parameters, generator) - mean).square()
        return total / _N_DRAWS_OF_VARIANCE

    def sample(self, parameters: Tensor, generator: torch.Generator) -> Tensor:
        """Return a draw of each entry.

        Parameters
        ----------
        parameters : Tensor of shape (..., n_parameters * n_features), float32
            What the decoder puts out.
        generator : torch.Generator
            The source of the draws. It is on the CPU, wherever the parameters are.

        Returns
        -------
        Tensor of shape (..., n_features)
            Draws, in the units of the likelihood.
        """
        raise NotImplementedError(f"{type(self).__name__} needs a method sample(parameters, generator).")


class NormalLikelihood(StoredModule, Likelihood):
    r"""Independent normal entries, each with a mean m and a standard deviation :math:`s = s_{\min} + \log(1 + e^r)`.

    .. math::

        \log p(x \mid m, r) = -\frac{(x - m)^2}{2 s^2} - \log s - \tfrac12 \log 2 \pi

    Parameters
    ----------
    min_scale : float
        The lower bound :math:`s_{\min}` of every standard deviation, in the units of the likelihood. It bounds the
        density.
    n_features : int
        Number of features.
    noise : {"feature", "shared", "network"}, default="feature"
        Where r comes from. ``"shared"`` is one for all features, a parameter of the likelihood. ``"feature"`` is the
        same in training; then that of each feature becomes a linear function of its mean, so that the standard
        deviation is what the mean leaves. ``"network"`` is the decoder, which puts out one for each row and feature.

    Examples
    --------
    >>> import torch
    >>> from skvae.likelihoods import NormalLikelihood
    >>> likelihood = NormalLikelihood(0.1, 2, noise="network")
    >>> likelihood.mean(torch.tensor([[1.0, 2.0, 0.0, 0.0]]))
    tensor([[1., 2.]])
    """

    capturable = True

    def __init__(self, min_scale: float, n_features: int, *, noise: str = "feature") -> None:
        super().__init__(min_scale=min_scale, n_features=n_features, noise=noise)
        self.n_parameters = 2 if noise == "network" else 1
        self.smallest_scale = (1 + _SMALLEST_EXCESS) * min_scale
        self.smooth = noise != "network"
        self.calibrates = noise == "feature"
        if noise != "network":
            self.level = nn.Parameter(torch.zeros((), dtype=torch.float32, device="cpu"))
        if noise == "feature":
            # What calibration adds to the level of all features: so much, and so many times the mean of the feature
            # within what it was in training. NumPy's zeros take no memory until they are read.
            for name in ("offsets", "slopes", "lowest", "highest"):
                self.register_buffer(name, torch.from_numpy(np.zeros(n_features, np.float32)))
            self.register_load_state_dict_post_hook(NormalLikelihood._note_slopes)
        self._follows_mean = False

    def _note_slopes(self, _: Any = None) -> None:
        """Note whether the noise of each feature follows its mean, which a device need not be asked for each time."""
        self._follows_mean = bool(self.get_buffer("slopes").any())

    @property
    def scale(self) -> Tensor | None:
        """The standard deviation of all features, or of each at mean 0; None where the decoder gives it."""
        noise = self.config["noise"]
        if noise == "network":
            return None
        raw = self.level if noise == "shared" else self._raw_at(torch.zeros_like(self.get_buffer("offsets")))
        return self.config["min_scale"] - logsigmoid(-raw)

    def _raw_at(self, means: Tensor) -> Tensor:
        """Return r of each feature where it has this mean."""
        within = means.clamp(self.get_buffer("lowest"), self.get_buffer("highest"))
        return self.level + self.get_buffer("offsets") + self.get_buffer("slopes") * within

    def begin_at(self, mean: Tensor, noise_variance: float) -> Tensor:
        """Begin at a linear model, probabilistic PCA, of which the decoder has the components.

        Parameters
        ----------
        mean : Tensor of shape (n_features,), float64
            The mean of the training rows, in the units of the likelihood.
        noise_variance : float
            The variance of each entry around the linear model, in these units.

        Returns
        -------
        Tensor of shape (n_parameters * n_features,)
            What the decoder puts out at z = 0.
        """
        raw = self._raw(torch.tensor(noise_variance, dtype=torch.float64, device="cpu"))
        if self.config["noise"] == "network":
            return torch.cat([mean, raw.expand_as(mean)])
        with torch.no_grad():
            self.level.copy_(raw)
        return mean

    def begin_training(self) -> None:
        """Put back one level for all features."""
        if self.calibrates:
            for name in ("offsets", "slopes"):
                self.get_buffer(name).zero_()
            self._note_slopes()

    def calibrate(self, means: Tensor, squares: Tensor) -> None:
        """Set the standard deviation of each feature, with ``noise="feature"``: the likeliest r = a + b m.

        Beyond the means that are given, r stays what it is at the nearest of them. A feature at the lower bound has
        b = 0.

        Parameters
        ----------
        means, squares : Tensor of shape (n_samples, n_features), float64
            The mean of each entry of training rows under the posterior, and the mean square of what is left of it, in
            the units of the likelihood. The square of a missing entry is NaN. A feature without others keeps the level
            of all features.
        """
        if not self.calibrates:
            return
        variance = squares.nanmean(0)
        level = self.level.detach().cpu()
        raw = torch.where(variance.isnan(), level, self._raw(variance)).double()
        found, slopes = fit_scale(means, squares, raw, self.config["min_scale"])
        noisy = raw > self._raw(torch.zeros_like(raw))
        offsets = self.get_buffer("offsets")
        offsets.copy_(torch.where(noisy, found, raw).float().to(offsets.device) - self.level.detach())
        self.get_buffer("slopes").copy_(torch.where(noisy, slopes, 0))
        self.get_buffer("lowest").copy_(means.amin(0))
        self.get_buffer("highest").copy_(means.amax(0))
        self._note_slopes()

    def _raw(self, variance: Tensor) -> Tensor:
        """Return r for these variances, or for the closest that the bound allows."""
        excess = (variance.sqrt() - self.config["min_scale"]).clamp_min(_SMALLEST_EXCESS * self.config["min_scale"])
        return (excess + torch.log(-torch.expm1(-excess))).float()

    def log_prob(self, x: Tensor, parameters: Tensor) -> Tensor:
        """Return the log density of each entry given its parameters.

        Parameters
        ----------
        x : Tensor of shape (..., n_features)
            Rows in the units of the likelihood.
        parameters : Tensor of shape (..., n_parameters * n_features)
            Means, and with ``noise="network"`` values r after them.

        Returns
        -------
        Tensor of shape (..., n_features)
            Log densities, in nats.
        """
        scale = self._constant_scale
        if scale is not None:
            return ops.normal_log_prob(x, parameters.float(), scale)
        return ops.network_normal_log_prob(x, self._with_noise(parameters), self.config["min_scale"])

    @property
    def _constant_scale(self) -> Tensor | None:
        """The standard deviations, where they are the same in all rows."""
        return None if self._follows_mean else self.scale

    def _with_noise(self, parameters: Tensor) -> Tensor:
        """Return means, and values r after them."""
        parameters = parameters.float()
        return torch.cat([parameters, self._raw_at(parameters)], dim=-1) if self._follows_mean else parameters

    def mean(self, parameters: Tensor) -> Tensor:
        """Return the mean of each entry.

        Parameters
        ----------
        parameters : Tensor of shape (..., n_parameters * n_features)
            Means, and with ``noise="network"`` values r after them.

        Returns
        -------
        Tensor of shape (..., n_features)
            Means, in the units of the likelihood.
        """
        return parameters.float()[..., : self.config["n_features"]]

    def variance(self, parameters: Tensor) -> Tensor:
        """Return the variance of each entry.

        Parameters
        ----------
        parameters : Tensor of shape (..., n_parameters * n_features)
            Means, and with ``noise="network"`` values r after them.

        Returns
        -------
        Tensor of shape (..., n_features)
            Variances, in the units of the likelihood.
        """
        location, scale = self._location_and_scale(parameters)
        return scale.square().expand_as(location)

    def sample(self, parameters: Tensor, generator: torch.Generator) -> Tensor:
        """Return a draw of each entry.

        Parameters
        ----------
        parameters : Tensor of shape (..., n_parameters * n_features)
            Means, and with ``noise="network"`` values r after them.
        generator : torch.Generator
            The source of the draws.

        Returns
        -------
        Tensor of shape (..., n_features)
            Draws, in the units of the likelihood.
        """
        location, scale = self._location_and_scale(parameters)
        noise = torch.randn(location.shape, generator=generator, device=generator.device, dtype=torch.float32)
        return location + scale * noise.to(location.device)

    def _location_and_scale(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        scale = self._constant_scale
        if scale is not None:
            return parameters.float(), scale
        location, raw = self._with_noise(parameters).chunk(2, dim=-1)
        return location, self.config["min_scale"] - logsigmoid(-raw)


class ContinuousBernoulliLikelihood(StoredModule, Likelihood):
    r"""Independent continuous Bernoulli entries on a bounded range, which is mapped to [0, 1].

    Each has a logit e, which is made of a number r by a gain g and a soft bound L:

    .. math::

        \log p(x \mid e) = e x - \log \frac{e^e - 1}{e}, \qquad e = L \tanh(g r / L), \qquad L = 1 / s_{\min}

    Where a fit begins at the linear model, the gain is 12, the derivative of the logit by the mean in the middle of the
    range: a small r is then how far the mean lies from the middle, as a share of the range. Otherwise the gain is 1.

    Parameters
    ----------
    data_range : tuple of two floats, default=None
        (low, high), the range of the data. None learns it: from the smallest to the largest entry of the training
        data that is not broken.
    min_scale : float, default=1/64
        About the smallest standard deviation :math:`s_{\min}` of an entry, as a share of the range. It bounds the
        density at the ends of the range, where it has no bound otherwise.

    See Also
    --------
    skvae.distributions.ContinuousBernoulli : The distribution.

    Examples
    --------
    >>> import torch
    >>> from skvae.likelihoods import ContinuousBernoulliLikelihood
    >>> ContinuousBernoulliLikelihood().mean(torch.zeros(2))
    tensor([0.5000, 0.5000])
    """

    n_parameters = 1
    capturable = True
    smooth = True
    remedy = (
        "A continuous Bernoulli distribution cannot be narrow in the middle of its range: it is for data with many "
        "values near the ends. Take NormalVAETransformer, or give the data_range at whose ends many values lie."
    )

    def __init__(self, data_range: tuple[float, float] | None = None, min_scale: float = 1 / 64) -> None:
        super().__init__(data_range=data_range, min_scale=min_scale)
        self.smallest_scale = min_scale
        self.register_buffer("gain", torch.ones((), dtype=torch.float32, device="cpu"))

    def begin_at(self, mean: Tensor, noise_variance: float) -> Tensor:
        """Begin near a linear model, probabilistic PCA, of which the decoder has the components.

        Parameters
        ----------
        mean : Tensor of shape (n_features,), float64
            The mean of the training rows, in the units of the likelihood.
        noise_variance : float
            Not used.

        Returns
        -------
        Tensor of shape (n_features,)
            What the decoder puts out at z = 0. In the middle of the range the decoded mean is that of the linear
            model. Near the ends it lies closer to the middle.
        """
        self.get_buffer("gain").fill_(_GAIN)
        return mean - 0.5

    def learn_units(self, summary: Summary) -> Units:
        """Return the units that map the range of the data to [0, 1].

        Parameters
        ----------
        summary : Summary
            What is known of the training data. The range is that of all rows, those that are set aside too, without
            broken entries.

        Returns
        -------
        Units
            ``(x - low) / (high - low)``, clipped.
        """
        if self.config["data_range"] is not None:
            low, high = self.config["data_range"]
        else:
            low, high = _ends_of_others(summary)
        return Units(low, high - low or 1.0, 0.0, 1.0)

    def training_units(self, summary: Summary, units: Units) -> Units:
        """Return the units as they are: they clip to the range.

        Parameters
        ----------
        summary : Summary
            What is known of the training data.
        units : Units
            The units in which the model works.

        Returns
        -------
        Units
            `units`.

        Warns
        -----
        UserWarning
            When a learned range has no room for broken entries.
        """
        if self.config["data_range"] is None:
            advice = "correct it, leave out its row, or give data_range=(low, high) that holds it."
            _warn_of_broken_entries(summary, advice)
        return units

    def in_support(self, summary: Summary, units: Units) -> NDArray[np.bool_]:
        """Return which rows lie in the range.

        Parameters
        ----------
        summary : Summary
            What is known of the data.
        units : Units
            The units in which the model works.

        Returns
        -------
        ndarray of shape (n_samples,), bool
            True where every entry is in the range, up to rounding.
        """
        low, high = self._ends(units, summary.X.dtype)
        smallest, largest = summary.extent_of_rows
        return (smallest >= low) & (largest <= high)

    def _warn_of_clipping(self, summary: Summary, units: Units) -> None:
        is_outside = ~self.in_support(summary, units)
        if is_outside.any():
            warn_user(
                f"{is_outside.sum()} of {len(is_outside)} rows of {summary.name} have values outside the range of the "
                f"training data. They are clipped to it. Give data_range=(low, high) for the range of all data.",
                UserWarning,
            )

    @staticmethod
    def _ends(units: Units, dtype: np.dtype[Any]) -> tuple[float, float]:
        """Return the ends of the range, and what rounding to float32, or to the type of the data, may add to them."""
        low, high = float(units.shift), float(units.shift) + units.scale
        of_data = float(np.finfo(dtype).eps) * max(abs(low), abs(high)) if dtype.kind == "f" else 0.0
        rounding = 4 * float(np.finfo(np.float32).eps) * units.scale + of_data
        return low - rounding, high + rounding

    def check_values(self, summary: Summary, units: Units, *, purpose: Purpose) -> None:
        """Raise ValueError for data outside the range, but for data that a learned range clips.

        Parameters
        ----------
        summary : Summary
            What is known of the data.
        units : Units
            The units in which the model works.
        purpose : {"train", "continue", "validate", "use"}
            What they are for. Data to go on training with are not clipped, but for broken entries. Of data to validate
            with, a warning says how many rows are.

        Raises
        ------
        ValueError
            When an entry is outside a given range, or would be lost to clipping in training.
        """
        data_range = self.config["data_range"]
        low, high = float(units.shift), float(units.shift) + units.scale
        given = None if data_range is None else self.learn_units(summary)
        if purpose == "continue" and given is not None and (given.shift, given.scale) != (low, units.scale):
            raise ValueError(
                f"data_range={data_range!r} is not the range ({low:.6g}, {high:.6g}) that the model was fitted "
                f"with, and training cannot go on in other units. Put it back, or start anew with warm_start=False and "
                f"fit."
            )
        if data_range is None and purpose != "continue":
            summary.check_float32()
            if purpose == "validate":
                self._warn_of_clipping(summary, units)
            return
        smallest, largest = _ends_of_others(summary) if data_range is None else summary.extent
        lowest, highest = self._ends(units, summary.X.dtype)
        if lowest <= smallest and largest <= highest:
            return
        culprit = smallest if smallest < lowest else largest
        if data_range is None:
            raise ValueError(
                f"{summary.name} contains {culprit:.10g}, outside the range [{low:.6g}, {high:.6g}] of the data that "
                f"the model was fitted on; training on it would lose data. Give data_range=(low, high) for the range "
                f"of all data."
            )
        raise ValueError(
            f"{summary.name} contains {culprit:.10g}, outside data_range=({low:.6g}, {high:.6g}). Rescale the data, or "
            f"give the data_range that holds all of it."
        )

    def log_prob(self, x: Tensor, parameters: Tensor) -> Tensor:
        """Return the log density of each entry.

        Parameters
        ----------
        x : Tensor of shape (..., n_features)
            Rows in [0, 1].
        parameters : Tensor of shape (..., n_features)
            What the decoder puts out.

        Returns
        -------
        Tensor of shape (..., n_features)
            Log densities, in nats.
        """
        if x.requires_grad:
            return distributions.log_prob(self.logits(parameters), x)
        return ops.bounded_log_prob(x, parameters.float(), self.get_buffer("gain"), 1 / self.config["min_scale"])

    def logits(self, parameters: Tensor) -> Tensor:
        """Return the logit of each entry, within the bound.

        Parameters
        ----------
        parameters : Tensor of shape (..., n_features)
            What the decoder puts out.

        Returns
        -------
        Tensor of shape (..., n_features)
            Logits, in float32.
        """
        bound = 1 / self.config["min_scale"]
        return bound * torch.tanh(parameters.float() * (self.get_buffer("gain") / bound))

    def mean(self, parameters: Tensor) -> Tensor:
        """Return the mean of each entry, which is not the sigmoid of its logit.

        Parameters
        ----------
        parameters : Tensor of shape (..., n_features)
            What the decoder puts out.

        Returns
        -------
        Tensor of shape (..., n_features)
            Means in [0, 1].
        """
        return distributions.mean(self.logits(parameters))

    def variance(self, parameters: Tensor) -> Tensor:
        """Return the variance of each entry.

        Parameters
        ----------
        parameters : Tensor of shape (..., n_features)
            What the decoder puts out.

        Returns
        -------
        Tensor of shape (..., n_features)
            Variances, as shares of the square of the range.
        """
        return distributions.ContinuousBernoulli(logits=self.logits(parameters), validate_args=False).variance

    def sample(self, parameters: Tensor, generator: torch.Generator) -> Tensor:
        """Return a draw of each entry: the quantile of a uniform draw.

        Parameters
        ----------
        parameters : Tensor of shape (..., n_features)
            What the decoder puts out.
        generator : torch.Generator
            The source of the draws.

        Returns
        -------
        Tensor of shape (..., n_features)
            Draws in [0, 1].
        """
        uniform = torch.rand(parameters.shape, generator=generator, device=generator.device, dtype=torch.float32)
        distribution = distributions.ContinuousBernoulli(logits=self.logits(parameters), validate_args=False)
        return distribution.icdf(uniform.to(parameters.device))
