"""Stand-ins for mamba_ssm.ops.triton; no Triton is needed."""

from . import layer_norm, layernorm, selective_state_update

__all__ = ["layer_norm", "layernorm", "selective_state_update"]
