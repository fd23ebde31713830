"""The group network of BDGF."""

from .group_network import GroupNetwork, GroupOutput

__all__ = ["GroupNetwork", "GroupOutput"]
