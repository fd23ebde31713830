"""Balanced diffusion-guided fusion (BDGF) for multimodal land-cover classification, on fused kernels."""

__version__ = "0.1.0"
