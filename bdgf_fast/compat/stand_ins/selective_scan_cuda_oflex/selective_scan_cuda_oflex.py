"""Stand-in for the kernel module of VMamba that writes float32 outputs, on whatever device the tensors are."""

from bdgf_fast.compat.selective_scan import cross_scan_bwd as bwd
from bdgf_fast.compat.selective_scan import oflex_fwd as fwd

__version__ = "0.0.0+bdgf"
__all__ = ["bwd", "fwd"]
