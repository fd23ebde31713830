"""Write a scene as files other programs read: GeoTIFFs beside a scene.toml."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from bdgf_fast.common.packages import require
from bdgf_fast.data.scene import Scene, SplitSpec
from bdgf_fast.errors import OutputError
from bdgf_fast.files.atomic import atomic
from bdgf_fast.files.geotiff import write_raster


def write_scene(scene: Scene, folder: str | Path, *, crs: Any = "EPSG:32633", transform: Any = None) -> Path:
    """Write a scene as GeoTIFFs and a scene.toml, from which the same scene is read; returns the path of the scene.toml.

    A scene without georeference is placed at (500000, 5500000) m in ``crs`` with 10 m pixels.
    """
    require("rasterio", str(folder))
    from rasterio.transform import from_origin

    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be made a folder: {error.strerror}; name another one.") from None
    crs = scene.crs or crs
    transform = scene.transform or transform or from_origin(500_000, 5_500_000, 10, 10)
    lines = [f"name = {_quote(scene.name)}"]
    for modality in scene.modalities:
        values = modality.read(0, scene.height, 0, scene.width)
        nodata = float("nan") if np.isnan(values).any() else None
        write_raster(folder / f"{modality.name}.tif", values, crs, transform, names=modality.bands, nodata=nodata)
        lines += ["[[modality]]", f"name = {_quote(modality.name)}", f"path = {_quote(modality.name + '.tif')}"]
        if modality.pca:
            lines.append(f"pca = {modality.pca}")
        if modality.rgb:
            lines.append(f"rgb = [{', '.join(str(b + 1) for b in modality.rgb)}]")
    if scene.classes:
        code = np.array([c.code for c in scene.classes], np.int32)
        # 0 means unlabelled; a class with that code needs another mark for pixels without label.
        empty = 0 if 0 not in code else int(code.min()) - 1
        labels = np.where(scene.labels < 0, empty, code[scene.labels])
        write_raster(folder / "labels.tif", labels[None].astype(_smallest(labels)), crs, transform)
        names = ", ".join(f"{c.code} = {_quote(c.name)}" for c in scene.classes)
        colours = ", ".join(f'{c.code} = "#{c.colour[0]:02x}{c.colour[1]:02x}{c.colour[2]:02x}"' for c in scene.classes)
        lines += ["[labels]", 'path = "labels.tif"', f"ignore = [{empty}]"]
        lines += [f"classes = {{ {names} }}", f"colours = {{ {colours} }}"]
        for side, mask in scene.given.items():
            write_raster(folder / f"{side}.tif", mask[None].astype(np.uint8), crs, transform)
            lines.append(f'{side} = "{side}.tif"')
        lines += _split_lines(scene.split_spec)
    path = folder / "scene.toml"
    with atomic(path) as part:
        part.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _split_lines(spec: SplitSpec) -> list[str]:
    lines = ["[split]", f"kind = {_quote(spec.kind)}"]
    if spec.kind == "blocks":
        lines += [f"block = {spec.block}", f"train_fraction = {spec.train_fraction}"]
        if spec.val_blocks:
            lines.append(f"val_blocks = {spec.val_blocks}")
    if spec.per_class is not None:
        lines.append(f"per_class = {spec.per_class}")
    if spec.gap is not None:
        lines.append(f"gap = {_quote(spec.gap) if isinstance(spec.gap, str) else spec.gap}")
    return lines


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)  # TOML's basic strings take JSON's escapes


def _smallest(values: np.ndarray) -> str:
    if values.min() < 0:
        return "int32" if values.max() > 32767 or values.min() < -32768 else "int16"
    return "uint8" if values.max() <= 255 else "uint16" if values.max() <= 65535 else "int32"
