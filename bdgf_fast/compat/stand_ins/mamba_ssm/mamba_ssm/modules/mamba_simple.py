"""Stand-in: `bdgf_fast.compat.mamba`, and `Block`, which stood here in the first releases."""

from bdgf_fast.compat.blocks import Block
from bdgf_fast.compat.mamba import Mamba

__all__ = ["Block", "Mamba"]
