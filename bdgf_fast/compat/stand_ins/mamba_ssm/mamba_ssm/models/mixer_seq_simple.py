"""Stand-in: `bdgf_fast.compat.blocks`, without the language model."""

from bdgf_fast.compat.blocks import MixerModel, create_block
from bdgf_fast.compat.blocks import init_weights as _init_weights

__all__ = ["MixerModel", "_init_weights", "create_block"]
