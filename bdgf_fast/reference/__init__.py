"""Plain PyTorch definitions of every operation, differentiable and float64-capable: oracle, fallback, baseline."""

from .box_statistics import box_statistics
from .causal_conv1d import causal_conv1d
from .cross_attention import cross_attention
from .decision_forest import decision_forest
from .denoising_loss import denoising_loss
from .diffusion_step import ddim_step, ddpm_step
from .group_channel_attention import group_channel_attention
from .group_channel_gate import group_channel_gate
from .philox import philox_normal
from .q_sample import q_sample
from .selective_scan import selective_scan, selective_scan_2d

__all__ = [
    "box_statistics",
    "causal_conv1d",
    "cross_attention",
    "ddim_step",
    "ddpm_step",
    "decision_forest",
    "denoising_loss",
    "group_channel_attention",
    "group_channel_gate",
    "philox_normal",
    "q_sample",
    "selective_scan",
    "selective_scan_2d",
]
