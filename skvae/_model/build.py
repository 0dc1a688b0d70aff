"""From an estimator's parameters to its model."""

from typing import Any

import torch

from skvae._data.checks import image_dimensions, layer_sizes
from skvae._data.rows import Units
from skvae._model.networks import make_decoder, make_encoder
from skvae._model.stored import copy_weights
from skvae._model.vae import VAE
from skvae.likelihoods import Likelihood

__all__ = ["build_vae"]


def build_vae(
    estimator: Any, likelihood: Likelihood, units: Units, n_features: int, *, seed: int, fitted: VAE | None
) -> VAE:
    """Return a model with the networks that the parameters of an estimator ask for.

    Parameters
    ----------
    estimator : BaseVAETransformer
        The owner of the parameters. Its attributes `_posterior_scale` and `_activation` say how the encoder gives the
        posterior's standard deviation, and what the decoder's hidden layers are activated by.
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
    # Weights are drawn only where there are none to go on from.
    generator = torch.Generator("cpu").manual_seed(seed) if fitted is None else None
    encoder = make_encoder(
        estimator.encoder,
        n_features,
        2 * n_components,
        image_shape=image_dimensions(estimator.image_shape, n_features),
        hidden_layer_sizes=hidden_layer_sizes,
        dropout=estimator.dropout,
        generator=generator,
    )
    decoder = make_decoder(
        estimator.decoder,
        n_components,
        likelihood.n_parameters * n_features,
        hidden_layer_sizes=hidden_layer_sizes,
        activation=estimator._activation,
        dropout=estimator.dropout,
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
            vae.load_state_dict(copy_weights(fitted.state_dict()), assign=True)
        except RuntimeError as error:
            raise ValueError(
                f"{type(estimator).__name__} cannot go on from its fitted weights, because a parameter that shapes the "
                f"networks has changed since (n_components, encoder, decoder, hidden_layer_sizes or image_shape). "
                f"Put it back, or start anew with warm_start=False and fit. {error}"
            ) from error
    return vae
