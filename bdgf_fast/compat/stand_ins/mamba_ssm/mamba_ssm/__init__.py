"""Stand-in for mamba_ssm on bdgf_fast's operations: Mamba, and what its scan module offers.

The version is one without Mamba-2, so that callers who ask do not look for it here.
"""

from .modules.mamba_simple import Mamba
from .ops.selective_scan_interface import bimamba_inner_fn, mamba_inner_fn, selective_scan_fn

__version__ = "1.2.2+bdgf"
__all__ = ["Mamba", "bimamba_inner_fn", "mamba_inner_fn", "selective_scan_fn"]
