"""Variational autoencoders as scikit-learn transformers."""

from skvae._transformers import ContinuousBernoulliVAETransformer, NormalVAETransformer
from skvae._version import __version__ as __version__

__all__ = ["ContinuousBernoulliVAETransformer", "NormalVAETransformer"]
