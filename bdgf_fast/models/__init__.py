"""The group network of BDGF."""

from .group_network import GroupNetwork, GroupOutput
from .head import Address

__all__ = ["Address", "GroupNetwork", "GroupOutput"]
