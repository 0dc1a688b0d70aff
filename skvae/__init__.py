"""Variational autoencoders as scikit-learn transformers."""

from skvae._transformers import ContinuousBernoulliVAETransformer, NormalVAETransformer
from skvae._version import __version__ as __version__

__all__ = ["TRUSTED_TYPES", "ContinuousBernoulliVAETransformer", "NormalVAETransformer"]

#: The types of this library that a skops file of its models may hold, to be loaded with
#: ``skops.io.load(file, trusted=TRUSTED_TYPES)``. They hold numbers, strings and arrays, and call nothing that comes
#: out of the file.
TRUSTED_TYPES = (
    "skvae._model.completion.Completion",
    "skvae._model.networks.ConvEncoder",
    "skvae._model.networks.DenseNetwork",
    "skvae._transformers.ContinuousBernoulliVAETransformer",
    "skvae._transformers.NormalVAETransformer",
    "skvae._model.vae.VAE",
    "skvae.classifiers.MultilayerCNNClassifier",
    "skvae.classifiers.SimpleCNNClassifier",
    "skvae.classifiers._MultilayerCNN",
    "skvae.classifiers._SimpleCNN",
    "skvae.impute.VAEImputer",
    "skvae.impute._Standardizer",
    "skvae.likelihoods.ContinuousBernoulliLikelihood",
    "skvae.likelihoods.NormalLikelihood",
    "skvae.outliers.DensityOutlierDetector",
)
