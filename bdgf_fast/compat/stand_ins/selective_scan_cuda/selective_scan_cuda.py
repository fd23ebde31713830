"""Stand-in for mamba_ssm's kernel module, on whatever device the tensors are."""

from bdgf_fast.compat.selective_scan import mamba_bwd as bwd
from bdgf_fast.compat.selective_scan import mamba_fwd as fwd

__version__ = "0.0.0+bdgf"
__all__ = ["bwd", "fwd"]
