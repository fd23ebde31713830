"""Stand-in: `bdgf_fast.compat.blocks`."""

from bdgf_fast.compat.blocks import GatedMLP

__all__ = ["GatedMLP"]
