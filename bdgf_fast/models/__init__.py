"""The group network of BDGF."""

from .group_network import DenseNetwork, GroupNetwork, GroupOutput
from .head import Address

__all__ = ["Address", "DenseNetwork", "GroupNetwork", "GroupOutput"]
