"""Stand-in: `bdgf_fast.compat.selective_scan` and `bdgf_fast.compat.mamba_inner`."""

from bdgf_fast.compat.mamba_inner import (
    BiMambaInnerFn,
    MambaInnerFn,
    MambaInnerFnNoOutProj,
    bimamba_inner_fn,
    mamba_inner_fn,
    mamba_inner_fn_no_out_proj,
)
from bdgf_fast.compat.selective_scan import SelectiveScanFn, selective_scan_fn, selective_scan_ref

__all__ = [
    "BiMambaInnerFn",
    "MambaInnerFn",
    "MambaInnerFnNoOutProj",
    "SelectiveScanFn",
    "bimamba_inner_fn",
    "mamba_inner_fn",
    "mamba_inner_fn_no_out_proj",
    "selective_scan_fn",
    "selective_scan_ref",
]
