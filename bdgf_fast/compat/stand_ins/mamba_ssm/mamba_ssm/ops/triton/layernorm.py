"""Stand-in: the name that `layer_norm` had in the first releases, which vision Mambas import."""

from .layer_norm import RMSNorm, layer_norm_fn, rms_norm_fn

__all__ = ["RMSNorm", "layer_norm_fn", "rms_norm_fn"]
