"""Stand-ins for mamba_ssm.ops."""

from . import selective_scan_interface, triton

__all__ = ["selective_scan_interface", "triton"]
