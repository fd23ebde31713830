"""Stand-in: the kernels of `bdgf_fast.compat.causal_conv1d` under the names that newer releases give them."""

from bdgf_fast.compat.causal_conv1d import kernel_bwd as causal_conv1d_bwd_function
from bdgf_fast.compat.causal_conv1d import kernel_fwd as causal_conv1d_fwd_function
from bdgf_fast.compat.causal_conv1d import kernel_update as causal_conv1d_update_function

__all__ = ["causal_conv1d_bwd_function", "causal_conv1d_fwd_function", "causal_conv1d_update_function"]
