"""The plain autoencoders with the methods of an estimator, so that they are measured as one is."""

import math

import numpy as np
import torch
from alternatives import PlainVAE, kl_divergence
from torch.distributions import Normal

from skvae._model.bounds import standard_normal_points
from skvae.distributions import ContinuousBernoulli

# Rows that are measured at a time.
N_ROWS = 50


class PlainModel:
    """A plain autoencoder and the units in which it sees its data.

    The normal model has the standard deviation of all entries as its unit, the other one their range.

    Parameters
    ----------
    model : {"normal", "continuous Bernoulli"}
        Which one.
    X : ndarray of shape (n_rows, n_features)
        What is trained on, and what tells the units.
    n_components : int
        The size of a latent row.
    """

    def __init__(self, model, X, n_components):
        self.shift, self.scale = (X.mean(), X.std()) if model == "normal" else (float(X.min()), float(np.ptp(X)))
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.module = PlainVAE(model, X.shape[1], n_components).to(self.device)
        self.rows = self._rows(X)

    def _rows(self, X):
        return torch.from_numpy(((X - self.shift) / self.scale).astype(np.float32)).to(self.device)

    def _likelihood(self, z):
        """Return the distribution of rows. torch's continuous Bernoulli is wrong where an entry is near an end."""
        if self.module.model == "normal":
            return Normal(*self.module.normal(z))
        return ContinuousBernoulli(logits=self.module.decoder(z))

    @torch.inference_mode()
    def transform(self, X):
        """Return the posterior mean of each row."""
        return self.module.eval().posterior(self._rows(X))[0].cpu().numpy()

    @torch.inference_mode()
    def inverse_transform(self, Z):
        """Return the mean of the likelihood."""
        self.module.eval()
        mean = self._likelihood(torch.from_numpy(Z).to(self.device)).mean
        return mean.cpu().numpy() * self.scale + self.shift

    @torch.inference_mode()
    def score(self, X):
        """Return the mean ELBO of the rows, at as many points as an estimator takes for noise from a network."""
        self.module.eval()
        elbos = []
        for x in self._rows(X).split(N_ROWS):
            mean, std = self.module.posterior(x)
            n_components = mean.shape[1]
            points = standard_normal_points(max(32, 2 * n_components), n_components).to(self.device)
            z = mean + std * points[:, None]
            log_likelihood = self._likelihood(z.flatten(0, 1)).log_prob(x.repeat(len(points), 1))
            elbos.append(log_likelihood.sum(1).unflatten(0, z.shape[:2]).mean(0) - kl_divergence(mean, std))
        return float(torch.cat(elbos).double().mean()) - X.shape[1] * math.log(self.scale)
