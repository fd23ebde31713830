"""Logs for TensorBoard: the loss of every step while a stage runs, its curves when it ends, the result at last."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import UserError

PICTURES = ("map", "losses", "mask_rates", "confusion", "tsne", "reliability")


class Log:
    """Event files below ``folder``; needs the package tensorboard (an extra), else a UserError says so."""

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise UserError(
                "--tensorboard needs the package tensorboard: pip install tensorboard, or leave the option out"
            ) from None
        self.writer = SummaryWriter(str(folder))

    def watch(self, stage: str, progress: Callable) -> Callable:
        """``progress`` with its figures logged as ``stage/step/<figure>``."""

        def logged(done: int, total: int, figures: dict[str, float]) -> None:
            for name, value in figures.items():
                self.writer.add_scalar(f"{stage}/step/{name}", value, done)
            progress(done, total, figures)

        return logged

    def history(self, stage: str, history: dict[str, Any]) -> None:
        """Curves of a stage that ended: losses, mask rates, held-out figures."""
        curves = history["curves"]
        for group, series in (("loss", curves["series"]), ("mask rate", history.get("mask_rates", {}))):
            for name, values in series.items():
                for step, value in zip(curves["step"], values, strict=True):
                    self.writer.add_scalar(f"{stage}/{group}/{name}", value, step)
        for entry in history.get("evaluations", ()):
            if entry["balance"] is not None:
                self.writer.add_scalar(f"{stage}/balance", entry["balance"], entry["step"])
            for figure in ("influence", "visible_r2", "hidden_r2"):
                for name, value in zip(history["modalities"], entry[figure], strict=True):
                    if value is not None:
                        self.writer.add_scalar(f"{stage}/{figure}/{name}", value, entry["step"])
        self.writer.flush()

    def report(self, report: dict[str, Any], folder: Path) -> None:
        """Accuracy, per class and of the baselines, and the pictures."""
        import matplotlib.pyplot as plt

        for name in ("overall_accuracy", "average_accuracy", "kappa"):
            self.writer.add_scalar(f"result/{name}", report[name])
        for name, value in report["per_class"].items():
            if value is not None:
                self.writer.add_scalar(f"result/class/{name}", value)
        for name, row in report["baselines"].items():
            self.writer.add_scalar(f"baselines/{name}", row["overall_accuracy"])
        for name in PICTURES:
            path = folder / f"{name}.png"
            if path.exists():
                self.writer.add_image(name, plt.imread(path)[..., :3], dataformats="HWC")
        self.writer.flush()
