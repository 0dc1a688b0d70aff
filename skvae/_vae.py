"""The variational autoencoder: encoder, decoder and likelihood make a posterior, its bounds and a generator."""

import functools
import math
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, softplus

from skvae import distributions
from skvae._distributed import draw_rows

__all__ = ["VAE", "ContinuousBernoulliLikelihood", "Likelihood", "NormalLikelihood", "standard_normal_points"]

# The smallest standard deviation a softplus posterior can have; keeps its logarithm finite.
_SMALLEST_STD = 1e-6


class Likelihood(Protocol):
    """What a likelihood p(x | z) offers; the decoder's output holds its parameters.

    Attributes
    ----------
    n_parameters : int
        Number of decoder outputs for one feature. The output is ``(..., n_parameters * n_features)``, all values of
        the first parameter first.

    Notes
    -----
    A class may also have a method ``log_prob_vjp(x, parameters)`` that returns `log_prob` and a function from its
    gradient to that of `parameters`. Otherwise the gradient is found by automatic differentiation.
    """

    n_parameters: int

    def log_prob(self, x: Tensor, parameters: Tensor) -> Tensor:
        """Return log p(x | z), summed over the features: ``(...)`` for x of shape ``(..., n_features)``."""

    def mean(self, parameters: Tensor) -> Tensor:
        """Return the mean of p(x | z), ``(..., n_features)``."""

    def sample(self, parameters: Tensor, generator: torch.Generator) -> Tensor:
        """Return a draw from p(x | z), ``(..., n_features)``."""


def _gradient_by_hand(likelihood: Likelihood) -> Callable[..., tuple[Tensor, Callable[[Tensor], Tensor]]] | None:
    """Return the `log_prob_vjp` of the class itself; one that is inherited may be that of another density."""
    return vars(type(likelihood)).get("log_prob_vjp")


def _log_prob_vjp(likelihood: Likelihood, x: Tensor, parameters: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Return log p(x | z) and a function from its gradient to that of `parameters`, by hand where there is one."""
    by_hand = _gradient_by_hand(likelihood)
    if by_hand is not None:
        return by_hand(likelihood, x, parameters)
    with torch.enable_grad():
        parameters = parameters.detach().requires_grad_()
        log_prob = likelihood.log_prob(x, parameters.clone())  # a copy, since it may be written to
    return log_prob.detach(), lambda gradient: torch.autograd.grad(log_prob, parameters, gradient)[0]


class NormalLikelihood:
    r"""Independent normal features with a mean and a scale each, :math:`s = s_{\min} + \log(1 + \exp(r))`.

    Parameters
    ----------
    min_scale : float
        The lower bound :math:`s_{\min}` of every scale; it bounds the density.
    """

    n_parameters = 2

    def __init__(self, min_scale: float) -> None:
        self.min_scale = min_scale

    def log_prob(self, x: Tensor, parameters: Tensor) -> Tensor:
        """Return log p(x | z), summed over the features."""
        location, scale = self._location_and_scale(parameters)
        deviation = (x - location) / scale
        return -(0.5 * deviation.square() + scale.log()).sum(-1) - self._constant(x)

    def log_prob_vjp(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Return `log_prob`, and a function from its gradient to that of `parameters`.

        With u = (x - m) / s, the derivative in the mean is u / s, in the scale (u^2 - 1) / s.
        """
        location, raw = parameters.float().chunk(2, dim=-1)
        minus_raw = -raw  # in one piece, which halves of rows are not
        minus_softplus, buffer = torch.ops.aten.log_sigmoid_forward.default(minus_raw)
        scale = minus_softplus.neg_().add_(self.min_scale)
        inverse = scale.reciprocal()
        deviation = (x - location).mul_(inverse)
        location_gradient = deviation * inverse
        log_prob = scale.log_().addcmul_(deviation, deviation, value=0.5).sum(-1).neg_().sub_(self._constant(x))
        minus_scale_gradient = inverse.addcmul_(deviation, location_gradient, value=-1)

        def pullback(gradient: Tensor) -> Tensor:
            gradient = gradient.unsqueeze(-1)
            raw_gradient = torch.ops.aten.log_sigmoid_backward.default(minus_scale_gradient, minus_raw, buffer)
            result = torch.empty_like(parameters)
            torch.mul(location_gradient, gradient, out=result[..., : x.shape[-1]])
            torch.mul(raw_gradient, -gradient, out=result[..., x.shape[-1] :])
            return result

        return log_prob, pullback

    @staticmethod
    def _constant(x: Tensor) -> float:
        return 0.5 * math.log(2 * math.pi) * x.shape[-1]

    def _location_and_scale(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        location, raw = parameters.float().chunk(2, dim=-1)
        return location, self.min_scale - logsigmoid(-raw)

    def mean(self, parameters: Tensor) -> Tensor:
        """Return the location."""
        return self._location_and_scale(parameters)[0]

    def sample(self, parameters: Tensor, generator: torch.Generator) -> Tensor:
        """Return location + scale * noise."""
        location, scale = self._location_and_scale(parameters)
        noise = torch.randn(location.shape, generator=generator, device=generator.device, dtype=torch.float32)
        return location + scale * noise.to(location.device)


class ContinuousBernoulliLikelihood:
    """Independent continuous Bernoulli features on [0, 1], each with its logit."""

    n_parameters = 1

    def log_prob(self, x: Tensor, parameters: Tensor) -> Tensor:
        """Return log p(x | z), summed over the features."""
        return distributions.log_prob(parameters, x).sum(-1)

    def log_prob_vjp(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Return `log_prob`, and a function from its gradient to that of `parameters`: x less the mean."""
        logits = parameters.float()
        log_prob = distributions.log_prob(logits, x).sum(-1)
        return log_prob, lambda gradient: distributions.slope(logits, x).mul_(gradient.unsqueeze(-1))

    def mean(self, parameters: Tensor) -> Tensor:
        """Return the mean of the distribution, which is not sigmoid(logit)."""
        return distributions.mean(parameters.float())

    def sample(self, parameters: Tensor, generator: torch.Generator) -> Tensor:
        """Return the quantiles of uniform draws."""
        uniform = torch.rand(parameters.shape, generator=generator, device=generator.device, dtype=torch.float32)
        distribution = distributions.ContinuousBernoulli(logits=parameters.float(), validate_args=False)
        return distribution.icdf(uniform.to(parameters.device))


def standard_normal_points(n_points: int, n_components: int) -> Tensor:
    """Return a fixed set of points that stands for N(0, I): ``(n_points, n_components)`` in float32.

    Half are scrambled Sobol points, the other half their mirror images. Their mean is zero (for an even number), and
    their covariance is the identity if there are twice as many as components, or has a diagonal of ones otherwise:
    expectations of quadratic functions, which are most of an ELBO, are exact rather than off by nats.
    """
    n_pairs = (n_points + 1) // 2
    engine = torch.quasirandom.SobolEngine(n_components, scramble=True, seed=0)
    # In float32 the engine gives the same points whatever torch's default dtype; the bounds keep them off 0 and 1.
    uniform = engine.draw(n_pairs, dtype=torch.float32).double().clamp(2.0**-25, 1 - 2.0**-25)
    half = torch.special.ndtri(uniform)
    if n_pairs >= n_components:
        half = torch.linalg.qr(half).Q * math.sqrt(n_pairs)
    else:
        half = half / half.square().mean(0).sqrt()
    return torch.cat([half, -half])[:n_points].float()


class VAE(nn.Module):
    r"""Variational autoencoder with prior N(0, I) and posterior N(m(x), diag s(x)^2).

    Its training objective is the mean over the rows of

    .. math::

        \beta \, \mathrm{KL}(q(z \mid x) \,\|\, p(z)) - \mathbb{E}_{q(z \mid x)} \log p(x \mid z),

    with one draw of z for each row [1]_.

    Parameters
    ----------
    encoder : nn.Module
        Maps ``(batch, n_features)`` to ``(batch, 2 * n_components)``: posterior means, then raw scales. Its method
        `vjp` does so in training.
    decoder : nn.Module
        Maps ``(batch, n_components)`` to ``(batch, likelihood.n_parameters * n_features)``, likewise.
    likelihood : Likelihood
        p(x | z).
    n_components : int
        Number of latent components.
    posterior_scale : {"log_variance", "softplus"}
        What a raw scale r stands for: the standard deviation exp(r / 2) or log(1 + exp(r)).
    beta : float, default=1.0
        Weight of the KL term.

    References
    ----------
    .. [1] Kingma, D. P. and Welling, M., "Auto-encoding variational Bayes", ICLR 2014, equation 10.
    """

    encoder: Any  # to mypy, every attribute of a module is a tensor or a module
    decoder: Any

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        likelihood: Likelihood,
        *,
        n_components: int,
        posterior_scale: str,
        beta: float = 1.0,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.likelihood = likelihood
        self.n_components = n_components
        self.posterior_scale = posterior_scale
        self.beta = beta

    def __getstate__(self) -> dict[str, Any]:
        names = ("encoder", "decoder", "likelihood", "n_components", "posterior_scale", "beta")
        return {name: getattr(self, name) for name in names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name in ("encoder", "decoder"):
            if not isinstance(state[name], nn.Module):
                raise ValueError(f"The file is damaged: its {name} is a {type(state[name]).__name__}.")
        VAE.__init__(self, **state)
        self.eval()

    @property
    def capturable(self) -> bool:
        """Whether `loss` can be recorded as a CUDA graph; a user's networks and likelihoods are taken not to be."""
        networks = all(getattr(network, "capturable", False) for network in (self.encoder, self.decoder))
        return networks and _gradient_by_hand(self.likelihood) is not None

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next((p.device for p in self.parameters()), torch.device("cpu"))

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of q(z | x), each ``(batch, n_components)``."""
        mean, raw = self.encoder(x).float().chunk(2, dim=1)
        return mean, self._posterior_std(raw)

    def _posterior_std(self, raw: Tensor) -> Tensor:
        return (raw / 2).exp() if self.posterior_scale == "log_variance" else softplus(raw) + _SMALLEST_STD

    @staticmethod
    def kl(mean: Tensor, std: Tensor) -> Tensor:
        """Return KL(N(mean, std^2) || N(0, I)) of each row, in nats: ``(batch,)`` [1]_, appendix B."""
        terms = mean.square().addcmul_(std, std).sub_(std.log(), alpha=2)
        return 0.5 * (terms.sum(1) - mean.shape[1])

    def loss(
        self, x: Tensor, generator: torch.Generator
    ) -> tuple[dict[str, Tensor], Callable[[], list[Tensor | None]]]:
        """Return the two terms of the objective on a batch, and a function that gives its gradient.

        Parameters
        ----------
        x : Tensor of shape (batch, n_features)
            A minibatch.
        generator : torch.Generator
            The source of the noise and of dropout, on the device of `x`.

        Returns
        -------
        terms : dict of str to Tensor
            ``"log_likelihood"`` and ``"kl"``, summed over the rows.
        gradients : callable
            Returns the gradient of the objective, ``beta * kl - log_likelihood`` in the mean over the rows, for each
            trained parameter; None for one that plays no part. To be called once.
        """
        with torch.no_grad():
            encoded, pull_encoder = self.encoder.vjp(x, generator, wants_input=False)
            mean, raw = encoded.float().chunk(2, dim=1)
            std = self._posterior_std(raw)
            settings = {"generator": generator, "device": x.device, "dtype": torch.float32}
            noise = draw_rows(functools.partial(torch.randn, **settings), mean.shape, generator)
            z = torch.addcmul(mean, std, noise)
            decoded, pull_decoder = self.decoder.vjp(z, generator, wants_input=True)
            log_likelihood, pull_likelihood = _log_prob_vjp(self.likelihood, x, decoded)
            terms = {"log_likelihood": log_likelihood.sum(), "kl": self.kl(mean, std).sum()}

        def gradients() -> list[Tensor | None]:
            share = 1 / len(x)
            with torch.no_grad():
                gradient = pull_likelihood(torch.full_like(log_likelihood, -share))
                z_gradient, decoder_gradients = pull_decoder(gradient)
                # Through z = mean + std * noise, and of the KL term: mean, and std - 1 / std.
                mean_gradient = torch.add(z_gradient, mean, alpha=self.beta * share)
                noise_gradient = z_gradient * noise
                if self.posterior_scale == "log_variance":
                    raw_gradient = (std.square() - 1).mul_(self.beta * share).addcmul_(noise_gradient, std).div_(2)
                else:
                    std_gradient = noise_gradient.add_(std - 1 / std, alpha=self.beta * share)
                    raw_gradient = std_gradient.mul_(raw.sigmoid())
                _, encoder_gradients = pull_encoder(torch.cat([mean_gradient, raw_gradient], dim=1))
            return encoder_gradients + decoder_gradients

        return terms, gradients

    def log_weights(self, x: Tensor, points: Tensor) -> Tensor:
        r"""Return the log importance weights :math:`\log p(x \mid z_k) + \log p(z_k) - \log q(z_k \mid x)`.

        Their expectation is the ELBO; the logarithm of the mean of K weights has the importance-weighted bound as its
        expectation [1]_.

        Parameters
        ----------
        x : Tensor of shape (batch, n_features)
            Rows.
        points : Tensor of shape (n_points, n_components)
            Standard-normal points, the same for every row: z = mean + std * point.

        Returns
        -------
        Tensor of shape (batch, n_points)
            The log weights, in nats.

        References
        ----------
        .. [1] Burda, Y., Grosse, R. and Salakhutdinov, R., "Importance weighted autoencoders", ICLR 2016, equation 8.
        """
        mean, std = self.posterior(x)
        z = mean[:, None] + std[:, None] * points
        log_prior_ratio = (0.5 * (points.square() - z.square()) + std.log()[:, None]).sum(2)
        parameters = self.decoder(z.flatten(0, 1)).unflatten(0, z.shape[:2])
        return self.likelihood.log_prob(x[:, None], parameters) + log_prior_ratio

    def decode(self, z: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the mean of p(x | z), or with a generator a draw from it: ``(batch, n_features)``."""
        parameters = self.decoder(z)
        return self.likelihood.mean(parameters) if generator is None else self.likelihood.sample(parameters, generator)
