"""Stand-in for the kernel module of VMamba's first release, on whatever device the tensors are."""

from bdgf_fast.compat.selective_scan import core_fwd as fwd
from bdgf_fast.compat.selective_scan import cross_scan_bwd as bwd

__version__ = "0.0.0+bdgf"
__all__ = ["bwd", "fwd"]
