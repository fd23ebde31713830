"""Guide maps: of the frozen denoiser, of another model, or of plain statistics."""

from .arrays import ArrayFeatures
from .dense import DiffusionFeatures
from .source import FeatureSource

__all__ = ["ArrayFeatures", "DiffusionFeatures", "FeatureSource"]
