"""The variational autoencoder: its posterior, the terms of its ELBO, its importance weights and its generator."""

import copy
import dataclasses
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.mixture import GaussianMixture
from torch import Tensor, nn

from skvae._data.rows import Batch, Units
from skvae._model import ops
from skvae._model.completion import Completion
from skvae._model.networks import Network
from skvae._model.noise import Noise
from skvae._model.prior import check_mixture, draw_from_prior, log_prior
from skvae.likelihoods import Likelihood

__all__ = ["VAE", "Gaussian", "Terms"]


class Gaussian(NamedTuple):
    """A normal distribution of the latent components of each of some rows.

    Attributes
    ----------
    mean : Tensor of shape (n_rows, n_components)
        The means.
    scale : Tensor of shape (n_rows, n_components) or (n_rows, n_components, n_components)
        Standard deviations of independent components, or upper triangular roots R of covariance matrices RR'.
    """

    mean: Tensor
    scale: Tensor

    @property
    def std(self) -> Tensor:
        """The standard deviation of each component."""
        return self.scale if self.scale.ndim == 2 else torch.linalg.vector_norm(self.scale, dim=2)

    @property
    def log_volume(self) -> Tensor:
        """The logarithm of the root of the determinant of the covariance of each row."""
        diagonal = self.scale if self.scale.ndim == 2 else self.scale.diagonal(dim1=1, dim2=2)
        return diagonal.log().sum(1)

    def deviations(self, points: Tensor) -> Tensor:
        """Return what standard-normal points are in units of each row: ``(n_rows, n_points, n_components)``."""
        return self.scale[:, None] * points if self.scale.ndim == 2 else points @ self.scale.mT

    def at(self, points: Tensor) -> Tensor:
        """Return z at standard-normal points, those of all rows or of each: ``(n_rows, n_points, n_components)``."""
        return self.mean[:, None] + self.deviations(points)


class Terms(NamedTuple):
    """The two terms of the ELBO, each summed over the rows of a batch, in nats."""

    log_likelihood: Tensor
    kl: Tensor


class VAE(nn.Module):
    r"""Variational autoencoder with posterior N(m(x), diag s(x)^2), which is trained with the prior N(0, I).

    Parameters
    ----------
    encoder : nn.Module
        Called with ``(batch, n_features)``, and in training with the source of its noise, it returns
        ``(batch, 2 * n_components)``: posterior means, then raw scales.
    decoder : nn.Module
        Called with ``(batch, n_components)``, and in training with the source of its noise, it returns
        ``(batch, likelihood.n_parameters * n_features)``.
    likelihood : Likelihood
        p(x | z).
    units : Units
        The units in which the likelihood works.
    n_features, n_components : int
        Number of features and of latent components.
    posterior_scale : {"log_variance", "softplus"}
        What a raw scale r stands for: the standard deviation exp(r / 2) or log(1 + exp(r)).
    prior : GaussianMixture, default=None
        The distribution of z that scores and samples have; None is N(0, I).
    completion : Completion, default=None
        What stands in the place of missing entries; None is a new one.

    References
    ----------
    .. [1] Kingma, D. P. and Welling, M., "Auto-encoding variational Bayes", ICLR 2014.
    """

    likelihood: Likelihood

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        likelihood: Likelihood,
        units: Units,
        *,
        n_features: int,
        n_components: int,
        posterior_scale: str,
        prior: GaussianMixture | None = None,
        completion: Completion | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.likelihood = likelihood
        self.completion = Completion(n_components, n_features) if completion is None else completion
        self.units = units
        self.n_features = n_features
        self.n_components = n_components
        self.posterior_scale = posterior_scale
        self.prior = prior

    @property
    def config(self) -> dict[str, Any]:
        """What the model is besides its parts."""
        names = ("n_features", "n_components", "posterior_scale", "prior")
        return {"units": dataclasses.asdict(self.units)} | {name: getattr(self, name) for name in names}

    def __getstate__(self) -> dict[str, Any]:
        likelihood = self.likelihood
        if next(likelihood.parameters(), None) is not None:
            likelihood = copy.deepcopy(likelihood).cpu()
        parts = {"encoder": self.encoder, "decoder": self.decoder, "likelihood": likelihood}
        parts |= {"completion": self.completion}
        return parts | self.config

    def __setstate__(self, state: dict[str, Any]) -> None:
        try:
            VAE.__init__(self, **state | {"units": Units(**state["units"]), "completion": state["completion"]})
            self._check()
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"The file is damaged: its parts do not make a VAE. {error}") from error
        self.eval()

    def _check(self) -> None:
        """Raise ValueError unless the parts belong together."""
        kinds: dict[str, type] = {"encoder": nn.Module, "decoder": nn.Module, "likelihood": Likelihood}
        kinds |= {"completion": Completion}
        kinds |= {"n_features": int, "n_components": int, "posterior_scale": str}
        for name, kind in kinds.items():
            if not isinstance(getattr(self, name), kind):
                raise ValueError(f"{name} is a {type(getattr(self, name)).__name__}; a {kind.__name__} is expected.")
        if self.posterior_scale not in ("log_variance", "softplus"):
            raise ValueError(f"posterior_scale is {self.posterior_scale!r}.")
        if self.prior is not None:
            check_mixture(self.prior, self.n_components)
        if np.shape(self.units.shift) not in ((), (self.n_features,)):
            raise ValueError(f"shift has {np.shape(self.units.shift)} numbers; 1 or {self.n_features} are expected.")
        shape = self.completion.config["n_directions"], self.completion.config["n_features"]
        if shape != (self.n_components, self.n_features):
            raise ValueError(f"completion is for {shape[0]} components of {shape[1]} features.")
        sizes = {
            "encoder": (self.n_features, 2 * self.n_components),
            "decoder": (self.n_components, self.likelihood.n_parameters * self.n_features),
        }
        for name, expected in sizes.items():
            network = getattr(self, name)
            if isinstance(network, Network) and (network.n_inputs, network.n_outputs) != expected:
                raise ValueError(
                    f"The {name} maps {network.n_inputs} to {network.n_outputs} columns, not {expected[0]} to "
                    f"{expected[1]}."
                )

    def __deepcopy__(self, memo: dict[int, Any]) -> "VAE":
        copied = VAE.__new__(VAE)
        memo[id(self)] = copied
        parts: dict[str, Any] = {
            name: copy.deepcopy(getattr(self, name), memo)
            for name in ("encoder", "decoder", "likelihood", "completion")
        }
        parts |= {"units": self.units, "prior": copy.deepcopy(self.prior, memo)}
        VAE.__init__(copied, **self.config | parts)
        copied.training = self.training
        return copied

    @property
    def capturable(self) -> bool:
        """Whether a training step can be recorded as a CUDA graph."""
        return all(getattr(part, "capturable", False) for part in (self.encoder, self.decoder, self.likelihood))

    @property
    def encoder_width(self) -> int:
        """The most numbers that encoding makes of one row."""
        return max(self.n_features, 2 * self.n_components, getattr(self.encoder, "width", 0))

    @property
    def decoder_width(self) -> int:
        """The most numbers that decoding makes of one latent row."""
        return max(self.likelihood.n_parameters * self.n_features, getattr(self.decoder, "width", 0))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next((p.device for p in self.parameters()), torch.device("cpu"))

    @property
    def inner_weights(self) -> list[nn.Parameter]:
        """The weights of networks that have a linear path beside them, but for the paths."""
        networks = [part for part in (self.encoder, self.decoder) if isinstance(part, Network)]
        return [weight for network in networks if network.path is not None for weight in network.inner_weights]

    def posterior(self, batch: Batch) -> Gaussian:
        """Return q(z | x), with independent components."""
        mean, raw = self._encode(batch, self.encoder(batch.x)).chunk(2, dim=1)
        return Gaussian(mean, ops.std_and_log(raw, self.posterior_scale)[0])

    def _encode(self, batch: Batch, encoded: Tensor) -> Tensor:
        """Return means and raw scales of the posterior, of what the encoder makes of completed rows."""
        if batch.observed is None:
            return encoded.float()
        return self.completion.widen(encoded.float(), batch.observed, self.posterior_scale)

    def terms(self, batch: Batch, noise: Noise) -> Terms:
        r"""Return the terms of the ELBO, with one draw of z for each row.

        .. math::

            \log p(x \mid z) \text{ for } z \sim q(z \mid x), \qquad \mathrm{KL}(q(z \mid x) \,\|\, p(z))

        Parameters
        ----------
        batch : Batch
            The rows.
        noise : Noise
            The source of the draws and of dropout.

        Returns
        -------
        Terms
            Summed over the rows, to be differentiated.
        """
        encoded = self._encode(batch, self.encoder(batch.x, noise))
        points = noise.normal(torch.Size((len(batch), self.n_components)))
        z, kl = ops.draw(encoded, points, self.posterior_scale)
        entries = self.likelihood.log_prob(batch.x, self.decoder(z, noise))
        if batch.observed is None:
            return Terms(entries.sum(), kl)
        # What stands in for missing entries is within the units, as observed ones are, so that its density is finite.
        return Terms(torch.dot(entries.flatten(), batch.observed.to(entries.dtype).flatten()), kl)

    def decode_parameters(self, z: Tensor) -> Tensor:
        """Return what the decoder makes of points of each row, ``(n_rows, n_points, n_components)``."""
        return self.decoder(z.flatten(0, 1)).unflatten(0, z.shape[:2])

    def log_likelihood(self, batch: Batch, z: Tensor) -> Tensor:
        """Return log p(observed entries | z) at points of each row: ``(n_rows, n_points)``, in nats."""
        entries = self.likelihood.log_prob(batch.x[:, None], self.decode_parameters(z))
        if batch.observed is not None:
            entries = torch.where(batch.observed[:, None], entries, 0)
        return entries.sum(2)

    def log_weights(self, batch: Batch, points: Tensor, posterior: Gaussian | None = None) -> Tensor:
        r"""Return the log importance weights :math:`\log p(x \mid z_k) + \log p(z_k) - \log q(z_k \mid x)`.

        Their expectation is the ELBO; the logarithm of the mean of K weights has the importance-weighted bound as its
        expectation [1]_.

        Parameters
        ----------
        batch : Batch
            The rows.
        points : Tensor of shape (n_points, n_components) or (n_rows, n_points, n_components)
            Standard-normal points, the same for every row or those of each: z = mean + std * point.
        posterior : Gaussian, default=None
            The distribution q of each row; None is the encoder's.

        Returns
        -------
        Tensor of shape (n_rows, n_points)
            The log weights, in nats.

        References
        ----------
        .. [1] Burda, Y., Grosse, R. and Salakhutdinov, R., "Importance weighted autoencoders", ICLR 2016, equation 8.
        """
        posterior = self.posterior(batch) if posterior is None else posterior
        z = posterior.at(points)
        if self.prior is None:  # the constants cancel
            log_prior_ratio = 0.5 * (points.square() - z.square()).sum(2)
        else:
            log_prior_ratio = log_prior(self.prior, z) - log_prior(None, points)
        return self.log_likelihood(batch, z) + log_prior_ratio + posterior.log_volume[:, None]

    def draw(self, n_samples: int, generator: torch.Generator) -> NDArray[np.float32]:
        """Return draws from the prior: ``(n_samples, n_components)``."""
        return draw_from_prior(self.prior, n_samples, self.n_components, generator)

    def decode(self, z: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the mean of p(x | z), or with a generator a draw from it: ``(batch, n_features)``."""
        parameters = self.decoder(z)
        return self.likelihood.mean(parameters) if generator is None else self.likelihood.sample(parameters, generator)
