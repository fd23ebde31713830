"""Stand-in: `bdgf_fast.compat.blocks`."""

from bdgf_fast.compat.blocks import MambaConfig

__all__ = ["MambaConfig"]
