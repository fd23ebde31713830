"""Classes of a label map: which codes are one, their names and colours, and the map as class indices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bdgf_fast.data.colours import class_colours
from bdgf_fast.errors import SceneError

MAX_CLASSES = 32767  # class indices are int16
MISSING = np.iinfo(np.int64).min
"""Code of pixels for which a label file holds no value."""
STRIP_PIXELS = 2**17
NO_CLASS_NAMES = frozenset(
    ("unclassified", "unlabelled", "unlabeled", "background", "no data", "nodata", "none", "null", "undefined", "unknown")
)

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class ClassInfo:
    """One land-cover class: its code in the label file, its name and its colour (0-255 each)."""

    code: int
    name: str
    colour: Colour


def strips(height: int, width: int) -> Iterator[tuple[int, int]]:
    """Row ranges of about 130,000 pixels: label maps are looked through piece by piece, in int64."""
    rows = max(1, STRIP_PIXELS // max(1, width))
    for y0 in range(0, height, rows):
        yield y0, min(height, y0 + rows)


def as_codes(raw: np.ndarray, source: str, missing: np.ndarray | None = None) -> np.ndarray:
    """Label values as int64, checked to be whole numbers; ``missing`` ones get a code of their own."""
    if raw.dtype.kind not in "biuf":
        raise SceneError(f"{source} holds {raw.dtype} values; a label map holds whole numbers.")
    bad = np.zeros(raw.shape, bool) if missing is None else missing.copy()
    if raw.dtype.kind == "f":
        bad |= ~np.isfinite(raw)
        raw = np.where(bad, 0, raw)
        fractions = raw != np.round(raw)
        if fractions.any():
            raise SceneError(
                f"{source} is not a label map: {int(fractions.sum())} values are not whole numbers (such as "
                f"{raw[fractions][0]:g})."
            )
    beyond = ~bad & (np.abs(raw) > 2**53 if raw.dtype.kind == "f" else raw > 2**53 if raw.dtype == np.uint64 else False)
    if np.any(beyond):
        raise SceneError(f"{source} is not a label map: it holds codes as large as {raw[beyond][0]:.6g}.")
    codes = raw.astype(np.int64)
    codes[bad] = MISSING
    return codes


def count_codes(tally: Counter[int], codes: np.ndarray) -> None:
    """Add the pixels of each code to ``tally``."""
    present, counts = np.unique(codes, return_counts=True)
    tally.update(dict(zip(present.tolist(), counts.tolist(), strict=True)))


def skipped_codes(classes: Collection[int] | None, ignore: Collection[int]) -> list[int]:
    """Codes of pixels without label: the ignored ones, 0 unless it is a class, and where the file holds no value."""
    return sorted({MISSING, *ignore, *(() if classes and 0 in classes else (0,))})


def settle_classes(
    tally: Mapping[int, int],
    source: str,
    *,
    classes: Mapping[int, str] | None,
    ignore: Collection[int],
    colours: Mapping[int, Colour] | None = None,
    names: Mapping[int, str] | None = None,
    shades: Mapping[int, Colour] | None = None,
    notes: list[str],
) -> list[ClassInfo]:
    """The classes in ascending code, of the pixels counted in ``tally``.

    Args:
        classes: code -> name as a person gave them; None makes every code from 1 on a class.
        ignore: codes without label, whatever ``classes`` says of them.
        colours: as a person gave them.
        names, shades: what the file itself says of its codes, for what is not given.
        notes: what was settled here is added.
    """
    known = set(classes or ()) | set(names or ())
    skipped = set(skipped_codes(known, ignore))
    present = {code: count for code, count in sorted(tally.items()) if code not in skipped}
    if classes is None:
        said = {code: f"class {code}" for code in present if code >= 0} | {c: n for c, n in (names or {}).items() if c in present}
    else:
        said = {code: name for code, name in classes.items() if code not in skipped}
    for code, count in present.items():
        if code not in said:
            raise SceneError(
                f"{source}: label code {code} ({count} pixels) has no class; add it to classes or to ignore in "
                "[labels]."
            )
    absent = [f"{name} ({code})" for code, name in sorted(said.items()) if code not in present]
    order = [code for code in sorted(said) if code in present]
    if not order:
        raise SceneError(f"{source} holds no labelled pixel: only ignored codes occur.")
    if absent:
        notes.append(f"{source}: no pixel of {', '.join(absent)}; left out of the classes")
    if len(order) > MAX_CLASSES:
        raise SceneError(f"{source} holds {len(order)} different codes; is it a label map?")
    for code in sorted(set(colours or ()) - set(said) - set(ignore)):
        listed = ", ".join(map(str, sorted(said)))
        raise SceneError(f"{source}: a colour is given for code {code}, which is not a class ({listed}).")
    texts = _apart([(code, said[code] or f"class {code}") for code in order], source, notes)
    own = {code: shades[code] for code in order if code in shades} if shades else {}
    if len(set(own.values())) < len(own):  # an unused palette is black throughout
        own = {}
    given = {**own, **(colours or {})}
    return [
        ClassInfo(code, text, given.get(code, shade)) for code, text, shade in zip(order, texts, class_colours(texts), strict=True)
    ]


def _apart(named: Sequence[tuple[int, str]], source: str, notes: list[str]) -> list[str]:
    """Names of the classes, with the code where several codes share one: results are kept by name."""
    names = [name for _, name in named]
    shared = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    twice = [f"{name} ({', '.join(str(c) for c, n in named if n == name)})" for name in shared]
    if not twice:
        return names
    notes.append(f"{source}: several codes are called {', '.join(twice)}; they stay classes of their own, named with their codes")
    return [f"{name} ({code})" if names.count(name) > 1 else name for code, name in named]


def class_indices(
    read: Callable[[int, int], np.ndarray], shape: tuple[int, int], classes: Sequence[ClassInfo], ignore: Collection[int] = ()
) -> tuple[np.ndarray, np.ndarray | None]:
    """Class indices int16 (H, W), -1 without label, and bool (H, W) of the pixels ``ignore`` takes the label of, 0 apart.

    ``read(y0, y1)`` gives the codes of rows as int64. Next to the results it holds a strip of rows at a time.
    """
    index = np.empty(shape, np.int16)
    passed = np.zeros(shape, bool)
    order = np.array([info.code for info in classes], np.int64)
    dropped = [code for code in ignore if code not in (0, MISSING)]
    for y0, y1 in strips(*shape):
        codes = read(y0, y1)
        position = np.searchsorted(order, codes)
        position[position == len(order)] = 0
        index[y0:y1] = np.where(order[position] == codes, position, -1)
        if dropped:
            passed[y0:y1] = np.isin(codes, dropped)
    return index, passed if passed.any() else None


def index_labels(
    codes: np.ndarray, source: str, *, classes: Mapping[int, str] | None, ignore: Collection[int] = (0,), notes: list[str]
) -> tuple[np.ndarray, list[ClassInfo], np.ndarray | None]:
    """Class indices, classes and ignored pixels of a label map in memory, see `settle_classes` and `class_indices`."""
    tally: Counter[int] = Counter()

    def read(y0: int, y1: int) -> np.ndarray:
        return as_codes(codes[y0:y1], source)

    for y0, y1 in strips(*codes.shape):
        count_codes(tally, read(y0, y1))
    infos = settle_classes(tally, source, classes=classes, ignore=ignore, notes=notes)
    index, passed = class_indices(read, (codes.shape[0], codes.shape[1]), infos, ignore)
    return index, infos, passed
