"""Diffusion: schedules, samplers, the denoiser and its pre-training."""

from .denoiser import Denoiser
from .schedule import Schedule
from .scheduler import DDIMScheduler, DDPMScheduler
from .unet import DenoisingUNet

__all__ = ["DDIMScheduler", "DDPMScheduler", "Denoiser", "DenoisingUNet", "Schedule"]
