"""Stand-in: `bdgf_fast.compat.selective_scan`."""

from bdgf_fast.compat.selective_scan import mamba_inner_fn, selective_scan_fn, selective_scan_ref

__all__ = ["mamba_inner_fn", "selective_scan_fn", "selective_scan_ref"]
