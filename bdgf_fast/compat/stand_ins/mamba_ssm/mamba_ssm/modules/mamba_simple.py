"""Stand-in: `bdgf_fast.nn.Mamba`."""

from bdgf_fast.nn import Mamba

__all__ = ["Mamba"]
