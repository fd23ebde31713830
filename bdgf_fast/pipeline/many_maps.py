"""The maps of many scenes by one trained run, each in a folder of its own, with an index and mosaics beside them.

    NAME/map.tif, probabilities.tif, ...   what `Run.predict` writes
    NAME/item.json                         what the map was made from, and its entry in the index; written last
    index.json                             every scene of the list, as GeoJSON, after each scene
    mosaic.vrt, mosaic-<crs>.vrt           the maps of a coordinate system as one raster, at the end

A scene is finished when its item.json names the same model, settings and content of the scene; it is not mapped again then. What
was killed goes on: at the next scene, and within a scene at the next block.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..common.ranks import alone, barrier, collect, leads, on_any_rank, ranks
from ..data import ClassInfo, Scene
from ..errors import UserError, spoken
from ..files.json_files import read_json, write_json
from ..files.vrt import MapTile, write_mosaic
from . import origin
from .locks import create, lock, released
from .run import Run
from .scene_list import Listed
from .scenes import open_scene

log = logging.getLogger(__name__)

INDEX, ITEM, MOSAIC = "index.json", "item.json", "mosaic"
DONE, FAILED, WAITING = "done", "failed", "waiting"
ASSETS = {
    "map.tif": "image/tiff; application=geotiff", "probabilities.tif": "image/tiff; application=geotiff",
    "quality.tif": "image/tiff; application=geotiff", "map.png": "image/png", "areas.csv": "text/csv",
}  # fmt: skip
"""What a prediction may leave, and its media type."""
HOW_ONLY = ("block", "batch")
"""Settings of ``predict`` that decide how a map is computed, not what it shows."""


def predict_list(
    made: Run, scenes: Sequence[Listed], out: Path, *, memory: int | None = None, stride: int = 1, precision: str | None = None,
    priors: str | Mapping[str, float] | None = None, refine: int | None = None,
) -> None:  # fmt: skip
    """Map the scenes into folders of ``out``; arguments as for ``Run.predict``.

    Where there are at least as many scenes as ranks, each rank maps scenes of its own; otherwise all share the blocks of each.
    A scene that cannot be mapped is one logged sentence and its state in the index, and the others go on.
    """
    create(out)
    lock(out)
    options = {"memory": memory, "stride": stride, "precision": precision, "priors": priors, "refine": refine}
    maps = _Maps(made, scenes, out, options)
    rank, world = ranks()
    shared = len(scenes) < world
    with contextlib.nullcontext() if shared else alone():
        for scene in scenes if shared else scenes[rank::world]:
            maps.add(scene)
    for failed in collect(maps.failed) or ():
        maps.failed.update(failed)
    if leads():
        maps.finish()
    barrier()


class _Maps:
    """The maps in a folder and what is known of them; ``failed`` holds a sentence for each scene that could not be mapped."""

    def __init__(self, made: Run, scenes: Sequence[Listed], out: Path, options: dict[str, Any]) -> None:
        self.made, self.scenes, self.out, self.options = made, scenes, out, options
        config = made.predict_config(options["precision"], options["priors"], options["refine"])
        kept = {key: value for key, value in config.to_dict()["predict"].items() if key not in HOW_ONLY}
        self.model = {**made.model_digests(), "stride": options["stride"], "predict": kept}
        self.failed: dict[str, str] = {}
        self._read: dict[str, tuple[int, Any]] = {}

    def add(self, listed: Listed) -> None:
        """Map a scene, unless its map is there."""
        error: Exception | None = None
        scene: Scene | None = None
        there = False
        try:
            scene = open_scene(listed.reference)
            there = self._finished(listed, scene)
        except Exception as found:
            error = found
        failed, missing = on_any_rank(error is not None, not there)
        if not failed and not missing:
            log.info("%s: %s is there already", listed.name, self.out / listed.name / "map.tif")
            return
        if not failed and scene is not None:
            log.info("%s: %d of %d scenes", listed.name, self.scenes.index(listed) + 1, len(self.scenes))
            try:
                self._map(listed, scene)
            except Exception as found:
                if ranks()[1] > 1:  # the others wait within this scene
                    raise
                error = found
        if error is not None:
            self._fail(listed, error)
        self._write_index()

    def _map(self, listed: Listed, scene: Scene) -> None:
        target, start = self.out / listed.name, time.perf_counter()
        with released():  # lists are longer than the files that a process may hold open
            made_of: dict[str, Any] = {}
            if leads():
                (target / ITEM).unlink(missing_ok=True)
                made_of = {**self.model, "scene": origin.describe(scene)}  # before it is read: it may change meanwhile
            self.made.predict(listed.reference, target, scene=scene, **self.options)
            feature = _feature(listed, scene, self.model, target, round(time.perf_counter() - start, 3))
            write_json(target / ITEM, {"made_of": made_of, "feature": feature})

    def _finished(self, listed: Listed, scene: Scene) -> bool:
        """Whether the scene's map is there, made by this model from the same content."""
        item = self._item(listed)
        if item is None:
            return False
        before = item["made_of"]["scene"]
        if before.get("version") != origin.VERSION:
            return False
        # As for the blocks of a map, a file of the same size and time is taken for the same.
        return not origin.changes(before, origin.describe(scene, (), before, always_read=0))

    def _item(self, listed: Listed) -> dict[str, Any] | None:
        """The record of a map that this model made with these settings."""
        folder = self.out / listed.name
        if not all((folder / name).exists() for name in (ITEM, "map.tif", "probabilities.tif")):
            return None
        written = (folder / ITEM).stat().st_mtime_ns
        if self._read.get(listed.name, (0,))[0] != written:
            with contextlib.suppress(UserError):  # a damaged record is none
                self._read[listed.name] = written, read_json(folder / ITEM)
        item = self._read.get(listed.name, (0, None))[1]
        try:
            same = {key: item["made_of"].get(key) for key in self.model} == self.model
            return item if same and item["feature"]["properties"]["scene"] == listed.reference else None
        except (KeyError, TypeError, AttributeError):
            return None

    def _fail(self, listed: Listed, error: Exception) -> None:
        said = spoken(error)
        self.failed[listed.name] = said or f"internal error: {type(error).__name__}: {error}"
        if leads():
            log.error("%s: not mapped: %s", listed.name, self.failed[listed.name], exc_info=None if said else error)

    # --- what stands beside the maps ---

    def _features(self) -> list[dict[str, Any]]:
        found = []
        for listed in self.scenes:
            item = None if listed.name in self.failed else self._item(listed)
            state = FAILED if listed.name in self.failed else WAITING
            facts = {"scene": listed.reference, "state": state, "error": self.failed.get(listed.name)}
            found.append({"type": "Feature", "id": listed.name, "geometry": None, "properties": facts, "assets": {}}
                         if item is None else item["feature"])  # fmt: skip
        return found

    def _write_index(self, mosaics: Sequence[dict[str, Any]] = ()) -> list[dict[str, Any]]:
        features = self._features()
        write_json(self.out / INDEX, {"type": "FeatureCollection", "run": str(self.made.directory.path.resolve()),
                                      "features": features, "mosaics": list(mosaics)})  # fmt: skip
        return features

    def finish(self) -> None:
        """Write the mosaics and the last state of the index; mosaics of an earlier call that are none any more are removed."""
        path = self.out / INDEX
        before = [entry["file"] for entry in read_json(path).get("mosaics", ())] if path.exists() else []
        done = [feature for feature in self._features() if feature["properties"]["state"] == DONE]
        by_crs: dict[str, list[dict[str, Any]]] = {}
        apart = []
        for feature in done:
            facts = feature["properties"]
            if facts["crs"] is None or not self._tile(feature).upright:
                apart.append(feature["id"])
            else:
                by_crs.setdefault(facts["crs"], []).append(feature)
        if apart:
            log.warning("not part of a mosaic, for want of a coordinate system or because they are turned: %s", ", ".join(apart))
        state = read_json(self.made.directory / "scene.json")
        classes = [ClassInfo(c["code"], c["name"], tuple(c["colour"])) for c in state["classes"]]
        mosaics = []
        for number, (crs, features) in enumerate(by_crs.items(), 1):
            code = crs.lower().replace(":", "") if crs.startswith("EPSG:") else f"crs{number}"
            name = f"{MOSAIC}.vrt" if len(by_crs) == 1 else f"{MOSAIC}-{code}.vrt"
            write_mosaic(self.out / name, [self._tile(f) for f in features], _wkt(crs), classes)
            mosaics.append({"file": name, "crs": crs, "scenes": [f["id"] for f in features]})
        for name in set(before) - {entry["file"] for entry in mosaics}:
            (self.out / name).unlink(missing_ok=True)
        self._write_index(mosaics)

    def _tile(self, feature: dict[str, Any]) -> MapTile:
        facts = feature["properties"]
        return MapTile(self.out / feature["assets"]["map"]["href"], tuple(facts["proj:shape"]), tuple(facts["proj:transform"]))


def _feature(listed: Listed, scene: Scene, model: dict[str, Any], target: Path, seconds: float) -> dict[str, Any]:
    """A map's entry in the index: a GeoJSON feature with the names of a STAC item and of its projection extension where these have
    one. ``bounds`` are in the scene's own coordinates; ``geometry`` and ``bbox`` are in degrees, None without georeference."""
    properties: dict[str, Any] = {
        "scene": listed.reference, "state": DONE, "created": datetime.now(UTC).isoformat(timespec="seconds"), "seconds": seconds,
        "model_digest": model["network"], "proj:shape": [scene.height, scene.width], "proj:transform": None, "crs": None,
        "bounds": None, "pixel_size": None,
    }  # fmt: skip
    assets = {Path(name).stem if name != "map.png" else "picture": {"href": f"{listed.name}/{name}", "type": kind}
              for name, kind in ASSETS.items() if (target / name).exists()}  # fmt: skip
    feature: dict[str, Any] = {
        "type": "Feature", "id": listed.name, "geometry": None, "properties": properties, "assets": assets
    }  # fmt: skip
    if scene.transform is None:
        return feature
    a, b, c, d, e, f = (float(value) for value in tuple(scene.transform)[:6])
    corners = [(c + a * x + b * y, f + d * x + e * y) for x, y in
               ((0, 0), (0, scene.height), (scene.width, scene.height), (scene.width, 0))]  # fmt: skip
    xs, ys = zip(*corners, strict=True)
    properties |= {
        "bounds": [min(xs), min(ys), max(xs), max(ys)], "proj:transform": [a, b, c, d, e, f],
        "pixel_size": [(a * a + d * d) ** 0.5, (b * b + e * e) ** 0.5],
    }  # fmt: skip
    if scene.crs is None:
        return feature
    properties["crs"] = scene.crs.to_string()
    degrees = _degrees(scene.crs, xs, ys)
    if degrees is not None:
        ring = [[round(x, 7), round(y, 7)] for x, y in zip(*degrees, strict=True)]
        feature["geometry"] = {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}
        feature["bbox"] = [min(degrees[0]), min(degrees[1]), max(degrees[0]), max(degrees[1])]
    return feature


def _degrees(crs: Any, xs: Sequence[float], ys: Sequence[float]) -> tuple[list[float], list[float]] | None:
    """Longitudes and latitudes; None for a local system that has none."""
    from rasterio.errors import RasterioError
    from rasterio.warp import transform

    try:
        return transform(crs, "EPSG:4326", list(xs), list(ys))[:2]
    except RasterioError:
        return None


def _wkt(crs: str) -> str:
    from rasterio.crs import CRS

    return CRS.from_string(crs).to_wkt()
