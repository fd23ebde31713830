"""The figure of a result: false colour, labels and the predicted map side by side, with one legend."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bdgf_fast.data.export import atomic
from bdgf_fast.data.readers import require
from bdgf_fast.data.scene import ClassInfo, Modality, Scene

MAX_SIDE = 1500  # pixels of the scene a panel shows; larger scenes are thinned
UNLABELLED = (235, 235, 235)
RIGHT, WRONG = (178, 205, 227), (203, 24, 29)  # told apart without red-green vision


def false_colour(scene: Scene, modality: str | None = None, step: int = 1) -> np.ndarray:
    """Every ``step``-th pixel as uint8 (h, w, 3), each band stretched from its 2nd to its 98th percentile.

    Bands are those named by ``rgb`` in the scene file, else those called red, green and blue, else spread over the
    cube; one band gives grey, two give (a, b, b). Without ``modality`` the one with the most bands is shown. Missing
    values are white.
    """
    shown = scene.modality(modality) if modality else max(scene.modalities, key=lambda m: len(m.bands))
    picked = _rgb_bands(shown)
    rows = []
    for y0, y1 in scene.strips():
        first = -(-y0 // step) * step - y0
        rows.append(shown.read(y0, y1, 0, scene.width)[picked][:, first::step, ::step])
    values = np.concatenate(rows, axis=1)
    out = np.empty((*values.shape[1:], 3), np.uint8)
    for i, band in enumerate(values):
        finite = band[np.isfinite(band)]
        low, high = np.percentile(finite, (2, 98)) if finite.size else (0, 1)
        scaled = (np.nan_to_num(band, nan=high) - low) / max(high - low, np.finfo(np.float32).tiny)
        out[..., i] = np.clip(scaled * 255, 0, 255)
    out[~np.isfinite(values).all(0)] = 255
    return out


def _rgb_bands(modality: Modality) -> list[int]:
    if modality.rgb is not None:
        return list(modality.rgb)
    names = [re.sub(r"[^a-z]", "", name.lower()) for name in modality.bands]
    if {"red", "green", "blue"} <= set(names):
        return [names.index(colour) for colour in ("red", "green", "blue")]
    count = len(modality.bands)
    if count < 3:
        return [0, count - 1, count - 1]
    return [round(count * share) for share in (0.3, 0.15, 0.05)] if count > 20 else [count // 2, count // 4, 0]


def paint(index: np.ndarray, classes: Sequence[ClassInfo]) -> np.ndarray:
    """Class indices (H, W), -1 none, as uint8 (H, W, 3)."""
    return np.array([UNLABELLED, *(c.colour for c in classes)], np.uint8)[np.asarray(index, np.int64) + 1]


def _errors(labels: np.ndarray, predicted: np.ndarray, scored: np.ndarray) -> np.ndarray:
    """Scored pixels as right or wrong, uint8 (H, W, 3)."""
    index = np.where(scored & (labels >= 0), np.where(labels == predicted, 0, 1), -1)
    return np.array([UNLABELLED, RIGHT, WRONG], np.uint8)[index + 1]


def write_png(
    path: str | Path,
    scene: Scene,
    predicted: np.ndarray,
    *,
    classes: Sequence[ClassInfo] | None = None,
    title: str | None = None,
    modality: str | None = None,
    scored: np.ndarray | None = None,
    dpi: int = 160,
) -> None:
    """Figure of false colour, labels (where the scene has any), ``predicted`` and its errors, with a legend.

    Args:
        predicted: class indices (H, W), -1 for pixels without a value.
        classes: those of the prediction; the scene's own by default.
        modality: the one to show in false colour, by default that with the most bands.
        scored: bool (H, W), the pixels an error map is shown of; none without it.
    """
    matplotlib = require("matplotlib", str(path))
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.patches import Patch

    if predicted.shape != (scene.height, scene.width):
        raise ValueError(f"predicted has shape {predicted.shape}; ({scene.height}, {scene.width}) is needed")
    classes = list(classes if classes is not None else scene.classes)
    step = max(1, -(-max(predicted.shape) // MAX_SIDE))
    panels = [("false colour", false_colour(scene, modality, step))]
    if (scene.labels >= 0).any():
        panels.append(("labels", paint(scene.labels[::step, ::step], scene.classes)))
    panels.append(("classification", paint(predicted[::step, ::step], classes)))
    judged = scored is not None and bool((scored & (scene.labels >= 0)).any())
    if scored is not None and judged:
        thin = (map_[::step, ::step] for map_ in (scene.labels, predicted, scored))
        panels.append(("errors on the test pixels", _errors(*thin)))
    # Wide scenes are stacked, so that the panels stay large.
    height, width = panels[0][1].shape[:2]
    stacked = width > 1.8 * height
    across, down = (1, len(panels)) if stacked else ((2, 2) if len(panels) == 4 else (len(panels), 1))
    panel_w = 7.0 if stacked else 3.2
    panel_h = min(max(panel_w * height / width, 0.6), 9.0)
    entries = len(classes) + 1 + 2 * judged
    rows = -(-entries // max(2, int(panel_w * across / 1.15)))
    columns = -(-entries // rows)  # evenly filled rows
    legend_h = 0.25 * rows + 0.05
    size = (panel_w * across, (panel_h + 0.24) * down + legend_h + (0.25 if title else 0.0))
    with matplotlib.rc_context({"font.family": "sans-serif", "font.size": 9}):
        figure = Figure(figsize=size, dpi=dpi, layout=ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03, wspace=0.01, hspace=0.01))
        FigureCanvasAgg(figure)  # no display and no global state needed
        axes = figure.subplots(down, across, squeeze=False).reshape(-1)
        for axis, (name, image) in zip(axes, panels, strict=True):
            axis.imshow(image, interpolation="nearest")
            axis.set_title(name, fontsize=9, pad=4)
            axis.set_xticks([])
            axis.set_yticks([])
            for spine in axis.spines.values():
                spine.set_linewidth(0.5)
        shades = [(c.name, c.colour) for c in classes]
        if (predicted < 0).any() or (scene.classes and (scene.labels < 0).any()):
            shades.append(("no value", UNLABELLED))
        if scored is not None and judged:
            shades += [("right", RIGHT), ("wrong", WRONG)] + [("not scored", UNLABELLED)] * (not scored.all())
        patches = [Patch(facecolor=(r / 255, g / 255, b / 255), edgecolor="0.3", lw=0.4, label=name) for name, (r, g, b) in shades]
        figure.legend(
            handles=patches,
            loc="outside lower center",
            ncols=columns,
            frameon=False,
            handlelength=1.2,
            columnspacing=1.4,
        )
        if title:
            figure.suptitle(title, fontsize=10)
        with atomic(path) as part:
            figure.savefig(part, format="png")
