"""Regions of interest that ENVI exported as text: the training and test samples of several data fusion contests."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from bdgf_fast.errors import SceneError


def load_regions(path: Path) -> np.ndarray:
    """Label map int32 (H, W): code k in the pixels of the k-th region, 0 elsewhere.

    Comment lines begin with ";", one of them says "File Dimension: <columns> x <rows>". Every other line is a point "id x y
    ..." with 1-based x (column) and y (row); ids begin at 1 again with every region. Raises SceneError for text of another
    form, points outside the image and pixels in two regions.
    """
    try:
        lines = path.read_text(encoding="latin-1").splitlines()
    except OSError as error:
        raise SceneError(f"{path} cannot be read: {error.strerror}.") from None
    size = next((m for m in (re.search(r"File Dimension:\s*(\d+)\s*x\s*(\d+)", line) for line in lines) if m), None)
    if size is None:
        raise SceneError(f"{path} is not a list of ENVI regions: no line says '; File Dimension: <columns> x <rows>'.")
    width, height = int(size[1]), int(size[2])
    codes = np.zeros((height, width), np.int32)
    code = 0
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith(";"):
            continue
        try:
            point, x, y = (int(word) for word in line.split()[:3])
        except ValueError:
            raise SceneError(f"{path}, line {number}: {line.strip()[:40]!r} is not a point 'id x y ...'.") from None
        code += point == 1
        if not (1 <= x <= width and 1 <= y <= height):
            raise SceneError(f"{path}, line {number}: column {x}, row {y} lies outside the {height} x {width} image.")
        if codes[y - 1, x - 1] not in (0, code):
            raise SceneError(f"{path}, line {number}: column {x}, row {y} is in regions {codes[y - 1, x - 1]} and {code}.")
        codes[y - 1, x - 1] = code
    if not code:
        raise SceneError(f"{path} holds no point; export the regions from ENVI as text again.")
    return codes
