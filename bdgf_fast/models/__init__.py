"""The group network of BDGF."""

from .group_network import Address, GroupNetwork, GroupOutput

__all__ = ["Address", "GroupNetwork", "GroupOutput"]
