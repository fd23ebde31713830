"""Stand-in: `bdgf_fast.compat.blocks`."""

from bdgf_fast.compat.blocks import load_config_hf, load_state_dict_hf

__all__ = ["load_config_hf", "load_state_dict_hf"]
