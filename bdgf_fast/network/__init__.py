"""The group network of BDGF: its parts, its training and its prediction."""

from .group_network import DenseNetwork, GroupNetwork, GroupOutput
from .head import Address
from .predict import predict, predict_pixels
from .train import load_network, train

__all__ = [
    "Address",
    "DenseNetwork",
    "GroupNetwork",
    "GroupOutput",
    "load_network",
    "predict",
    "predict_pixels",
    "train",
]
