"""Stand-in: `bdgf_fast.compat.blocks`."""

from bdgf_fast.compat.blocks import Block

__all__ = ["Block"]
