"""Stand-in: `bdgf_fast.compat.causal_conv1d`."""

from bdgf_fast.compat.causal_conv1d import CausalConv1dFn, causal_conv1d_fn, causal_conv1d_update

__all__ = ["CausalConv1dFn", "causal_conv1d_fn", "causal_conv1d_update"]
