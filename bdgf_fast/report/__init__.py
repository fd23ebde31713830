"""What is said of a result: accuracy, pages, pictures, logs."""

from .evaluation import evaluate

__all__ = ["evaluate"]
