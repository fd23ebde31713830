"""Stand-in: `bdgf_fast.compat.layer_norm`."""

from bdgf_fast.compat.layer_norm import RMSNorm, layer_norm_fn, rms_norm_fn

__all__ = ["RMSNorm", "layer_norm_fn", "rms_norm_fn"]
