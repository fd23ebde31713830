"""The figure of a result: false colour, labels and the predicted map side by side, with one legend."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bdgf_fast.common.packages import require
from bdgf_fast.data.classes import ClassInfo, Colour
from bdgf_fast.data.scene import Scene
from bdgf_fast.files.atomic import atomic
from bdgf_fast.report.figure_parts import choose_bands, colour_title, draw_coordinates, draw_scale, fonts_for

MAX_SIDE = 1500  # pixels of the scene a panel shows; larger scenes are thinned
NO_VALUE, UNLABELLED, IGNORED = (255, 255, 255), (235, 235, 235), (150, 150, 155)
RIGHT, WRONG = (178, 205, 227), (203, 24, 29)  # told apart without red-green vision


def false_colour(scene: Scene, modality: str | None = None, step: int = 1) -> np.ndarray:
    """Every ``step``-th pixel as uint8 (h, w, 3), each band stretched from its 2nd to its 98th percentile.

    Bands are those of `figure_parts.choose_bands`. Without ``modality`` the one with the most bands is shown. Missing values
    are white.
    """
    return _coloured(scene, modality, step)[0]


def _coloured(scene: Scene, name: str | None, step: int) -> tuple[np.ndarray, str]:
    """The image of `false_colour`, and its title."""
    shown = scene.modality(name) if name else max(scene.modalities, key=lambda m: len(m.bands))
    picked, true = choose_bands(shown, scene.empty.get(shown.name, ()))
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
    out[~np.isfinite(values).all(0)] = NO_VALUE
    return out, colour_title(shown, picked, true)


def paint(index: np.ndarray, classes: Sequence[ClassInfo], none: Colour = UNLABELLED) -> np.ndarray:
    """Class indices (H, W), -1 none, as uint8 (H, W, 3)."""
    return np.array([none, *(c.colour for c in classes)], np.uint8)[np.asarray(index, np.int64) + 1]


def _labels(scene: Scene, step: int) -> np.ndarray:
    image = paint(scene.labels[::step, ::step], scene.classes)
    if scene.ignored is not None:
        image[scene.ignored[::step, ::step]] = IGNORED
    return image


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
    blocks: np.ndarray | None = None,
    dpi: int = 160,
) -> None:
    """Figure of the scene in colour, its labels (where it has any), ``predicted`` and its errors, with a legend.

    Args:
        predicted: class indices (H, W), -1 for pixels without a value.
        classes: those of the prediction; the scene's own by default.
        modality: the one to show in colour, by default that with the most bands.
        scored: bool (H, W), the pixels an error map is shown of; none without it.
        blocks: bool (H, W), the training blocks, outlined over the labels.
    """
    matplotlib = require("matplotlib", str(path))
    if predicted.shape != (scene.height, scene.width):
        raise ValueError(f"predicted has shape {predicted.shape}; ({scene.height}, {scene.width}) is needed")
    classes = list(classes if classes is not None else scene.classes)
    step = max(1, -(-max(predicted.shape) // MAX_SIDE))
    image, called = _coloured(scene, modality, step)
    panels = [(called, image)]
    labelled = bool((scene.labels >= 0).any())
    if labelled:
        panels.append(("labels", _labels(scene, step)))
    panels.append(("classification", paint(predicted[::step, ::step], classes, NO_VALUE)))
    judged = scored is not None and bool((scored & (scene.labels >= 0)).any())
    if scored is not None and judged:
        thin = (map_[::step, ::step] for map_ in (scene.labels, predicted, scored))
        panels.append(("errors on the test pixels", _errors(*thin)))
    entries: list[tuple[str, Colour]] = [(c.name, c.colour) for c in classes]
    entries += [("no value", NO_VALUE)] * bool((predicted < 0).any())
    plain = [text for text, there in (("no label", labelled and (scene.labels < 0).any()), ("not scored", judged)) if there]
    entries += [(" or ".join(plain), UNLABELLED)] * bool(plain)
    entries += [("ignored class", IGNORED)] * (labelled and scene.ignored is not None)
    entries += [("right", RIGHT), ("wrong", WRONG)] * judged
    outline = None if blocks is None or not labelled else blocks[::step, ::step]
    families = fonts_for([*(c.name for c in classes), scene.name, called, title or ""], str(path))
    with matplotlib.rc_context({"font.family": families, "font.size": 9}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # said in words of our own
        figure = _draw(scene, step, panels, entries, title, outline, dpi)
        with atomic(path) as part:
            figure.savefig(part, format="png")


def _draw(
    scene: Scene,
    step: int,
    panels: Sequence[tuple[str, np.ndarray]],
    entries: Sequence[tuple[str, Colour]],
    title: str | None,
    outline: np.ndarray | None,
    dpi: int,
) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    # Wide scenes are stacked, so that the panels stay large.
    height, width = panels[0][1].shape[:2]
    stacked = width > 1.8 * height
    across, down = (1, len(panels)) if stacked else ((2, 2) if len(panels) == 4 else (len(panels), 1))
    panel_w = 7.0 if stacked else 3.2
    panel_h = min(max(panel_w * height / width, 0.6), 9.0)
    handles: list[Any] = [
        Patch(facecolor=(r / 255, g / 255, b / 255), edgecolor="0.3", lw=0.4, label=name) for name, (r, g, b) in entries
    ]
    if outline is not None:
        handles.append(Line2D([], [], color="black", linewidth=0.8, label="training block"))
    rows = -(-len(handles) // max(2, int(panel_w * across / 1.15)))
    columns = -(-len(handles) // rows)  # evenly filled rows
    legend_h = 0.25 * rows + 0.05
    size = (panel_w * across, (panel_h + 0.24) * down + legend_h + (0.25 if title else 0.0))
    figure = Figure(figsize=size, dpi=dpi, layout=ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03, wspace=0.01, hspace=0.01))
    FigureCanvasAgg(figure)  # no display and no global state needed
    axes = figure.subplots(down, across, squeeze=False).reshape(-1)
    for axis, (name, image) in zip(axes, panels, strict=True):
        axis.imshow(image, interpolation="nearest")
        axis.set_title(name, fontsize=9 if len(name) < 40 else 7, pad=4)
        axis.set_xticks([])
        axis.set_yticks([])
        for spine in axis.spines.values():
            spine.set_linewidth(0.5)
    if outline is not None and outline.any() and not outline.all():
        axes[1].contour(outline, levels=[0.5], colors="black", linewidths=0.8)
    draw_coordinates(axes[0], scene, step)
    draw_scale(axes[0], scene, step)
    for axis in axes:  # what is drawn over an image may stretch its axes
        axis.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, handlelength=1.2, columnspacing=1.4)
    if title:
        figure.suptitle(title, fontsize=10)
    return figure
