"""Diffusion: schedules, the denoiser and its features."""

from .array_features import ArrayFeatures
from .denoiser import Denoiser
from .features import DiffusionFeatures, FeatureSource
from .schedule import Schedule
from .scheduler import DDIMScheduler, DDPMScheduler
from .unet import DenoisingUNet

__all__ = [
    "ArrayFeatures",
    "DDIMScheduler",
    "DDPMScheduler",
    "Denoiser",
    "DenoisingUNet",
    "DiffusionFeatures",
    "FeatureSource",
    "Schedule",
]
