"""Stand-in: `bdgf_fast.nn.selective_state_update`."""

from bdgf_fast.nn import selective_state_update

__all__ = ["selective_state_update"]
