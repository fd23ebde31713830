"""Training, prediction and evaluation of the stages."""

from .predict import evaluate, predict, predict_pixels
from .pretrain import load_denoiser, pretrain
from .train import load_network, train

__all__ = ["evaluate", "load_denoiser", "load_network", "predict", "predict_pixels", "pretrain", "train"]
