"""For code written against mamba_ssm, causal_conv1d, VMamba's kernels or torch's attention: the same names, our kernels.

`install()` makes those packages importable where they are not installed; `bdgf-fast compat script.py ARGS` runs a
script so. Importing this package alone changes nothing.
"""

from .causal_conv1d import causal_conv1d_fn, causal_conv1d_update
from .cross_attention import scaled_dot_product_attention
from .layer_norm import RMSNorm, layer_norm_fn, rms_norm_fn
from .mamba import Mamba
from .mamba_inner import bimamba_inner_fn, mamba_inner_fn, mamba_inner_fn_no_out_proj
from .selective_scan import selective_scan_fn, selective_scan_ref, selective_state_update
from .stand_in import install, uninstall

__all__ = [
    "Mamba",
    "RMSNorm",
    "bimamba_inner_fn",
    "causal_conv1d_fn",
    "causal_conv1d_update",
    "install",
    "layer_norm_fn",
    "mamba_inner_fn",
    "mamba_inner_fn_no_out_proj",
    "rms_norm_fn",
    "scaled_dot_product_attention",
    "selective_scan_fn",
    "selective_scan_ref",
    "selective_state_update",
    "uninstall",
]
