"""Stand-in for causal_conv1d on bdgf_fast's operations."""

from .causal_conv1d_interface import causal_conv1d_fn, causal_conv1d_update

__version__ = "1.5.0+bdgf"
__all__ = ["causal_conv1d_fn", "causal_conv1d_update"]
