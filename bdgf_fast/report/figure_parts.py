"""What a map's figure needs besides its pixels: which bands make its colours, coordinates, a scale bar, and fonts."""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Sequence
from functools import cache
from typing import Any

import numpy as np

from bdgf_fast.data.scene import Modality, Scene
from bdgf_fast.data.sources.grid import pixel_metres
from bdgf_fast.errors import DataWarning

VISIBLE = (650.0, 550.0, 470.0)
"""Nanometres of red, green and blue."""
NEAR = 45.0
LONGEST_NAME = 14
_WAVELENGTH = re.compile(r"(\d+(?:\.\d+)?)\s*(nm|nanomet|[uµμ]m\b|micromet)", re.IGNORECASE)
_SENTINEL = {"b8a", "b9", "b10", "b11", "b12"}  # with these beside them, bands 4, 3 and 2 are red, green and blue
_FONTS = (
    "Noto Sans CJK", "Source Han Sans", "WenQuanYi", "Microsoft YaHei", "SimHei", "PingFang", "Hiragino Sans", "Yu Gothic",
    "MS Gothic", "Malgun Gothic", "Nanum Gothic", "Arial Unicode MS", "Noto Sans",
)  # fmt: skip


def choose_bands(modality: Modality, empty: Collection[int] = ()) -> tuple[list[int], bool]:
    """0-based bands of red, green and blue, and whether the result is true colour.

    Those named by ``rgb`` in the scene file, else those whose names say the colour, the wavelength or Sentinel-2's numbers,
    else spread over the cube, ``empty`` ones apart; one band gives grey, two give (a, b, b).
    """
    names = [name.strip().lower() for name in modality.bands]
    named = _by_colour(names) or _by_wavelength(names) or _by_number(names)
    if modality.rgb is not None:
        return list(modality.rgb), list(modality.rgb) == named
    if named and not set(named) & set(empty):
        return named, True
    filled = [band for band in range(len(names)) if band not in empty] or [0]
    count = len(filled)
    if count < 3:
        return [filled[0], filled[-1], filled[-1]], False
    spread = [round(count * share) for share in (0.3, 0.15, 0.05)] if count > 20 else [count // 2, count // 4, 0]
    return [filled[i] for i in spread], False


def _by_colour(names: Sequence[str]) -> list[int] | None:
    words = [re.sub(r"[^a-z]", "", name) for name in names]
    colours = ("red", "green", "blue")
    return [words.index(colour) for colour in colours] if set(colours) <= set(words) else None


def _by_wavelength(names: Sequence[str]) -> list[int] | None:
    found = [_WAVELENGTH.search(name) for name in names]
    if not all(found):
        return None
    nm = np.array([float(m[1]) * (1 if m[2].lower().startswith("n") else 1000) for m in found if m])
    picked = [int(np.abs(nm - wanted).argmin()) for wanted in VISIBLE]
    near = np.abs(nm[picked] - VISIBLE).max() <= NEAR
    return picked if near and len(set(picked)) == 3 else None


def _by_number(names: Sequence[str]) -> list[int] | None:
    short = [re.sub(r"^b0+", "b", name) for name in names]
    wanted = ("b4", "b3", "b2")
    return [short.index(name) for name in wanted] if set(wanted) <= set(short) and _SENTINEL & set(short) else None


def colour_title(modality: Modality, bands: Sequence[int], true: bool) -> str:
    """What a panel of these bands is called."""
    names = [modality.bands[b] for b in dict.fromkeys(bands)]
    short = [name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…" for name in names]
    kind = "true colour" if true else "false colour" if len(short) > 1 else "grey"
    return f"{modality.name}, {kind}: {', '.join(short)}"


def nice(value: float) -> float:
    """The largest of 1, 2 and 5 times a power of ten that does not exceed ``value``."""
    power = 10.0 ** np.floor(np.log10(value))
    return float(max(step * power for step in (1, 2, 5) if step * power <= value * (1 + 1e-9)))


def draw_coordinates(axis: Any, scene: Scene, step: int) -> None:
    """Ticks at round map coordinates on an axis that shows every ``step``-th pixel; nothing for turned or unplaced grids."""
    if scene.transform is None or scene.crs is None:
        return
    a, b, c, d, e, f = (float(v) for v in tuple(scene.transform)[:6])
    if b or d or not a or not e:
        return
    for ticks, origin, size, count in ((axis.set_xticks, c, a, scene.width), (axis.set_yticks, f, e, scene.height)):
        low, high = sorted((origin, origin + size * count))
        gap = nice((high - low) / 1.6)
        at = np.arange(np.ceil(low / gap), np.floor(high / gap) + 1) * gap
        decimals = max(0, int(np.ceil(-np.log10(gap))))
        shown = [f"{v:.{decimals}f}" for v in at]
        ticks([(v - origin) / size / step - 0.5 for v in at], shown, fontsize=5)
    axis.tick_params(length=2, width=0.4, pad=1)
    for label in axis.get_yticklabels():
        label.set(rotation=90, va="center")


def draw_scale(axis: Any, scene: Scene, step: int) -> None:
    """A scale bar in the lower left corner, where the size of a pixel is known."""
    pixel = pixel_metres(scene)
    if pixel is None or not pixel[0] > 0:
        return
    metres = nice(pixel[0] * scene.width * 0.3)
    length = metres / pixel[0] / step
    height, width = -(-scene.height // step), -(-scene.width // step)
    x, y = 0.04 * width, 0.94 * height
    text = f"{metres / 1000:g} km" if metres >= 1000 else f"{metres:g} m"
    axis.plot([x, x + length], [y, y], color="white", linewidth=3.5, solid_capstyle="butt")
    axis.plot([x, x + length], [y, y], color="black", linewidth=1.5, solid_capstyle="butt")
    frame = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.8}
    axis.text(x, y - 0.02 * height, text, fontsize=6, va="bottom", bbox=frame)


def fonts_for(texts: Sequence[str], source: str) -> list[str]:
    """Families that together have the characters of ``texts``, the usual one first; warns where no font here has them."""
    from matplotlib import font_manager

    usual = font_manager.findfont("DejaVu Sans")
    missing = {ord(c) for text in texts for c in text if not c.isspace()} - _characters(usual)
    families = ["DejaVu Sans"]
    entries = {entry.name: entry.fname for entry in font_manager.fontManager.ttflist if "Last Resort" not in entry.name}
    known = [name for start in _FONTS for name in sorted(entries) if name.startswith(start)]
    for name in dict.fromkeys([*known, *sorted(entries)]) if missing else ():
        if hit := missing & _characters(entries[name]):
            families.append(name)
            missing -= hit
        if not missing:
            break
    if missing:
        lacking = "".join(map(chr, sorted(missing)[:8]))
        warnings.warn(
            f"{source}: no font here has {lacking!r}; with one that does, such as Noto Sans CJK, the names can be read.",
            DataWarning,
            stacklevel=3,
        )
    return families


@cache
def _characters(file: str) -> frozenset[int]:
    from matplotlib.font_manager import get_font

    try:
        return frozenset(get_font(file).get_charmap())
    except (OSError, RuntimeError):  # a font FreeType cannot read
        return frozenset()
