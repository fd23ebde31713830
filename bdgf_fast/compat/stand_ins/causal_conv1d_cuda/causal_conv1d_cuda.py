"""Stand-in for causal_conv1d's kernel module, on whatever device the tensors are."""

from bdgf_fast.compat.causal_conv1d import kernel_bwd as causal_conv1d_bwd
from bdgf_fast.compat.causal_conv1d import kernel_fwd as causal_conv1d_fwd
from bdgf_fast.compat.causal_conv1d import kernel_update as causal_conv1d_update

__version__ = "0.0.0+bdgf"
__all__ = ["causal_conv1d_bwd", "causal_conv1d_fwd", "causal_conv1d_update"]
