"""From an estimator's parameters to its model."""

from typing import Any

import torch

from skvae._data.checks import image_dimensions, layer_sizes
from skvae._data.rows import Units
from skvae._model.networks import make_decoder, make_encoder
from skvae._model.vae import VAE
from skvae.likelihoods import Likelihood

__all__ = ["build_vae", "make_likelihood"]


def build_vae(
    estimator: Any, likelihood: Likelihood, units: Units, n_features: int, *, seed: int, fitted: VAE | None
) -> VAE:
    """Return a model with the networks that the parameters of an estimator ask for.

    Parameters
    ----------
    estimator : BaseVAETransformer
        The owner of the parameters. Its attribute `_posterior_scale` says how the encoder gives the
        posterior's standard deviation.
    likelihood : Likelihood
        p(x | z), which says how many outputs the decoder has.
    units : Units
        The units in which it works.
    n_features : int
        Number of features of the data.
    seed : int
        Where the initial weights come from.
    fitted : VAE or None
        A model whose weights are taken instead.

    Returns
    -------
    VAE
        On the CPU.
    """
    n_components = int(estimator.n_components)
    hidden_layer_sizes = layer_sizes(estimator.hidden_layer_sizes)
    # Modules of a user's own have no linear path, and one network alone cannot begin at a linear model.
    is_own = isinstance(estimator.encoder, torch.nn.Module) or isinstance(estimator.decoder, torch.nn.Module)
    has_path = estimator.init == "pca" and not is_own
    # Weights are drawn only where there are none to go on from.
    generator = torch.Generator("cpu").manual_seed(seed) if fitted is None else None
    encoder = make_encoder(
        estimator.encoder,
        n_features,
        2 * n_components,
        image_shape=image_dimensions(estimator.image_shape, n_features),
        hidden_layer_sizes=hidden_layer_sizes,
        dropout=estimator.dropout,
        n_path=n_components if has_path else 0,
        generator=generator,
    )
    decoder = make_decoder(
        estimator.decoder,
        n_components,
        likelihood.n_parameters * n_features,
        hidden_layer_sizes=hidden_layer_sizes,
        dropout=estimator.dropout,
        n_path=n_features if has_path else 0,
        generator=generator,
    )
    vae = VAE(
        encoder,
        decoder,
        likelihood,
        units,
        n_features=n_features,
        n_components=n_components,
        posterior_scale=estimator._posterior_scale,
    )
    if fitted is not None:
        try:
            vae.load_state_dict(fitted.state_dict())
        except RuntimeError as error:
            raise ValueError(
                f"{type(estimator).__name__} cannot go on from its fitted weights, because a parameter that shapes the "
                f"networks has changed since (n_components, encoder, decoder, hidden_layer_sizes, image_shape, init or "
                f"noise). Put it back, or start anew with warm_start=False and fit. {error}"
            ) from error
    return vae


def make_likelihood(estimator: Any, n_features: int) -> Likelihood:
    """Return the likelihood of an estimator, after a trial that it returns what it should.

    Raises
    ------
    ValueError
        When it does not.
    """
    likelihood = estimator.make_likelihood(n_features)
    kind = type(likelihood).__name__
    if not isinstance(likelihood, Likelihood):
        raise ValueError(f"make_likelihood must return a skvae.likelihoods.Likelihood; it returned a {kind}.")
    if not isinstance(likelihood.n_parameters, int) or likelihood.n_parameters < 1:
        raise ValueError(f"{kind}.n_parameters must be a positive integer; got {likelihood.n_parameters!r}.")
    # Rows beside their parameters, as in training; and beside those of several latent points each, as in scores.
    for x_shape, batch_shape in (((2, n_features), (2,)), ((2, 1, n_features), (2, 3))):
        x = torch.full(x_shape, 0.5, dtype=torch.float32, device="cpu")
        shape = *batch_shape, likelihood.n_parameters * n_features
        parameters = torch.zeros(shape, dtype=torch.float32, device="cpu")
        expected = *batch_shape, n_features
        for call, inputs in (("log_prob", (x, parameters)), ("mean", (parameters,))):
            given = f"for x of shape {x_shape} and parameters of shape {shape}"
            try:
                with torch.no_grad():
                    output = getattr(likelihood, call)(*inputs)
            except Exception as error:
                raise ValueError(f"{kind}.{call} raised {error!r} {given}.") from error
            got = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
            if got != expected:
                raise ValueError(
                    f"{kind}.{call} must return a tensor of shape {expected}, a number for each entry, {given}; it "
                    f"returned {got}."
                )
    return likelihood
