"""Diffusion: schedules, the denoiser and its features."""

from .denoiser import Denoiser
from .features import DiffusionFeatures, FeatureSource
from .schedule import Schedule
from .unet import DenoisingUNet

__all__ = ["Denoiser", "DenoisingUNet", "DiffusionFeatures", "FeatureSource", "Schedule"]
