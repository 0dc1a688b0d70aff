"""Variational autoencoders as scikit-learn transformers."""

from skvae._transformers import ContinuousBernoulliVAETransformer, NormalVAETransformer

__all__ = ["ContinuousBernoulliVAETransformer", "NormalVAETransformer"]

__version__ = "0.1.0"
