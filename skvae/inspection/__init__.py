"""Displays of what a model generates, reconstructs and learns, in scikit-learn's conventions.

They use public methods of estimators only, so most of them also take a PCA or a whole Pipeline.
"""

from skvae.inspection._latent import LatentDisplay
from skvae.inspection._reconstruction import ReconstructionDisplay
from skvae.inspection._samples import SamplesDisplay
from skvae.inspection._training_curve import TrainingCurveDisplay

__all__ = ["LatentDisplay", "ReconstructionDisplay", "SamplesDisplay", "TrainingCurveDisplay"]
