"""Whole scenes: finished blocks wait as small files, so that a killed prediction goes on, ranks share the work and memory
stays bounded; the rasters are assembled from them at the end, every tile of the GeoTIFF written once."""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..common.memory import return_freed_memory
from ..common.packages import require
from ..common.progress import Progress
from ..common.ranks import barrier, leads, ranks
from ..config import Config
from ..data import ClassInfo, MapWriter, ProbabilityWriter
from ..data.prepared import PreparedScene
from ..data.sources.grid import pixel_areas
from ..diffusion.unet import receptive_radius
from ..errors import OutputError, UserError
from ..features.source import FeatureSource, feature_margin
from ..files.atomic import atomic
from ..files.geotiff import TILE
from .calibration import UNCALIBRATED, Calibration
from .predict import STRIP, Network, corners, predict
from .priors import SAMPLE, Priors, confidences, settle_priors
from .reach import guide_reach, raw_reach
from .refine import RADIUS

BASE_BYTES = 640 * 2**20
"""Interpreter, torch and libraries, measured, with room to spare."""
CACHE_SHARE, GDAL_SHARE = 12, 16
WORKING_MAPS = 16
"""Maps of the network's width that a stage of a branch holds at once, at most (measured: those of the scan)."""
BLOCKS = (512, 256, 128, 64, 32, 16)
LEAST_BATCH = 64
"""Patches a forward pass below which a smaller block is the better way to save memory: a block's margin costs less than that."""


def parse_bytes(text: str) -> int:
    """``2GiB``, ``1500 MB`` or plain bytes."""
    found = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([KMGT]?)(i?)B?\s*", text, re.IGNORECASE)
    if not found:
        raise UserError(f"--memory {text!r} is not a size; write 2GiB, 1500MB or a number of bytes")
    number, unit, binary = found.groups()
    return int(float(number) * (1024 if binary else 1000) ** " KMGT".index(unit.upper() or " "))


@contextlib.contextmanager
def within(budget: int | None) -> Iterator[None]:
    """Holds GDAL's cache of blocks to a share of the budget: by itself it takes 5 % of the machine's memory."""
    if budget is None:
        yield
        return
    rasterio = require("rasterio", "--memory")
    with rasterio.Env(GDAL_CACHEMAX=budget // GDAL_SHARE):
        yield


def fit_to_memory(budget: int, prepared: PreparedScene, config: Config, guides: Sequence[int], stride: int = 1) -> Config:
    """The configuration with the largest ``predict.block`` whose working set fits ``budget`` bytes of resident memory, if need
    be with a ``predict.batch`` down to ``LEAST_BATCH``; the scene's cache of tiles is cut to a share of the budget. Raises
    UserError when not even the smallest block fits."""
    prepared.cache_bytes = min(prepared.cache_bytes, budget // CACHE_SHARE)
    fixed = BASE_BYTES + prepared.cache_bytes + budget // GDAL_SHARE + 8 * prepared.height * prepared.width
    dense = config.model.mode == "dense"
    side = max(config.model.scan_window, config.model.attention_window) if dense else 1
    need, refining = 0.0, 2 * config.predict.refine * RADIUS  # pixels around a block are predicted for its refinement
    for block in (size for size in BLOCKS if size % side == 0):
        sampled = 24 * min(SAMPLE, prepared.height * prepared.width)  # for the class shares
        assembling = len(prepared.classes) * (8 * math.lcm(block, TILE) * prepared.width + sampled)
        if dense:
            need = fixed + max(_dense_bytes(prepared, config, guides, block + refining), assembling)
            if need <= budget:
                return config.override(f"predict.block={block}")
            continue
        most = min(config.predict.batch, ((block + refining) // stride + 2) ** 2)
        least = min(most, LEAST_BATCH)
        maps, per_patch = _patch_bytes(prepared, config, guides, block + refining)
        need = fixed + max(maps + per_patch * least, assembling)
        if need <= budget:
            batch = min(most, int((budget - fixed - maps) // per_patch))
            return config.override(f"predict.block={block}", f"predict.batch={batch}")
    raise UserError(
        f"--memory {budget / 2**30:.2f} GiB is too small for one block of {max(side, BLOCKS[-1])} pixels with its margin; "
        f"this scene and model need {need / 2**30:.2f} GiB"
        + ("" if dense else f", or a smaller predict.batch (now {config.predict.batch})")
    )


def _feature_bytes(prepared: PreparedScene, config: Config, guides: Sequence[int], side: int) -> float:
    """Bytes while the features of side x side pixels are computed."""
    widths, times = config.pretrain.widths, len(config.features.timesteps)
    levels = sum(w / 4**i for i, w in enumerate(widths))
    margin = feature_margin(receptive_radius(len(widths), config.pretrain.blocks, config.features.levels), len(widths))
    per_pixel = 4 * (prepared.channels + (times * (prepared.channels + 8 * widths[0] + levels) if guides else 0))
    return per_pixel * (side + 2 * margin) ** 2


def _patch_bytes(prepared: PreparedScene, config: Config, guides: Sequence[int], block: int) -> tuple[float, float]:
    """Bytes of a block's maps, and of each patch of a batch."""
    size, c = config.data.patch, config.model
    members = len(c.branches) * (1 + c.twins)
    return (
        _feature_bytes(prepared, config, guides, block + size),
        4 * size**2 * (2 * (prepared.channels + 2 * sum(guides)) + 10 * c.width * members),
    )


def _dense_bytes(prepared: PreparedScene, config: Config, guides: Sequence[int], block: int) -> float:
    """Bytes of a block of the dense network: the larger of the features' pass and the branches' with the strips behind them."""
    c = config.model
    members, around = len(c.branches) * (1 + c.twins), max(raw_reach(c), guide_reach(c))
    pixels = (block + 2 * around) ** 2
    inputs = 4 * (prepared.channels + 2 * sum(guides)) * pixels
    working = 4 * c.width * (members + WORKING_MAPS) * pixels
    maps = prepared.channels * (1 + 2 * len(c.context)) + sum(guides)
    statistics = maps * (1 + 2 * max(len(c.radii), len(c.guide_radii)))
    strips = 4 * STRIP * block * (3 * statistics + 6 * c.width * members + 4 * c.hidden)
    return inputs + max(_feature_bytes(prepared, config, guides, block + 2 * around), working + strips)


class Blocks:
    """Finished blocks in a folder, one file each; those of a prediction with other ``facts`` are removed."""

    def __init__(self, folder: Path, facts: dict[str, Any]) -> None:
        self.folder = folder
        if leads():
            path, wanted = folder / "blocks.json", json.dumps(facts, sort_keys=True)
            if not path.exists() or path.read_text(encoding="utf-8") != wanted:
                self.remove()
                folder.mkdir(parents=True, exist_ok=True)
                try:
                    with atomic(path) as beside:
                        beside.write_text(wanted, encoding="utf-8")
                except OutputError:
                    self.remove()
                    raise
        barrier()

    def path(self, y: int, x: int) -> Path:
        return self.folder / f"{y}-{x}.npz"

    def save(self, y: int, x: int, probabilities: np.ndarray, labels: dict[str, np.ndarray]) -> None:
        with atomic(self.path(y, x)) as beside:
            branches: dict[str, Any] = {k: v.astype(np.int16) for k, v in labels.items()}
            np.savez_compressed(beside, probabilities=probabilities, **branches)

    def load(self, y: int, x: int) -> dict[str, np.ndarray]:
        with np.load(self.path(y, x)) as stored:
            return {name: stored[name] for name in stored.files}

    def remove(self) -> None:
        """Remove what this class wrote, and the folder if nothing else is in it: the place was named by a person."""
        for pattern in ("[0-9]*-[0-9]*.npz", ".[0-9]*-[0-9]*.part.npz", "blocks.json"):
            for path in self.folder.glob(pattern):
                path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # not there, or not empty
            self.folder.rmdir()


def predict_scene(
    network: Network, features: FeatureSource | None, prepared: PreparedScene, config: Config, target: Path,
    made_of: dict[str, Any], *, memory: int | None = None, stride: int = 1, pixels: torch.Tensor | None = None,
    progress: Progress | None = None,
) -> tuple[Assembled | None, Blocks]:  # fmt: skip
    """Predict a scene into map.tif and probabilities.tif in the folder ``target``, and quality.tif where the network can do
    without a modality; a killed call goes on.

    Args:
        made_of: JSON-able facts about network and scene; finished blocks of other ones are not taken.
        memory: resident bytes to stay within; decides the size of a block.
        stride, progress: as in ``predict``.
        pixels: int64 (n, 2), those whose labels are wanted.

    Returns the map (None but on the first rank) and its blocks, which the caller removes when all that is made of it is kept.
    """
    with within(memory):
        if memory is not None:
            config = fit_to_memory(memory, prepared, config, () if features is None else features.channels, stride)
        shape = [prepared.height, prepared.width]
        blocks = Blocks(target / "blocks", {**made_of, "stride": stride, "shape": shape, "predict": config.to_dict()["predict"]})
        predict_blocks(network, features, prepared, config, blocks, stride, progress)
        if not leads():
            return None, blocks
        if getattr(network, "hides", False):
            write_quality(prepared, target / "quality.tif")
        return assemble(prepared, config, blocks, target, pixels, Calibration.of(network)), blocks


def predict_blocks(
    network: Network, features: FeatureSource | None, prepared: PreparedScene, config: Config, blocks: Blocks,
    stride: int, progress: Progress | None,
) -> None:
    """Predict every block that is not finished; each rank takes its share of them."""
    rank, world = ranks()
    missing = [corner for corner in corners(prepared, config) if not blocks.path(*corner).exists()]
    barrier()  # every rank has looked before the first writes
    mine = set(missing[rank::world])
    for y, x, block, labels in predict(network, features, prepared, config, progress, stride=stride, wanted=mine.__contains__):
        blocks.save(y, x, block.numpy(), {name: value.numpy() for name, value in labels.items()})
        return_freed_memory()
    barrier()


@dataclass
class Assembled:
    """A map: its class ``index`` int16 (H, W), -1 without a value; at the wanted pixels the ``labels`` (n,) of the fused prediction
    and of every branch, and the ``confidence`` of `priors.confidences`; the sentence of ``map_codes``; for each class its
    ``pixels``, their area ``counted``, and the area ``expected``, the sum of its probabilities times the pixels' areas, both in
    square metres where the scene lies ``on_ground``, else in pixels; the class shares that the map goes by."""

    index: np.ndarray
    labels: dict[str, np.ndarray]
    confidence: dict[str, np.ndarray]
    note: str | None
    pixels: list[int]
    counted: list[float]
    expected: list[float]
    on_ground: bool
    priors: Priors

    def amounts(self, names: Sequence[str]) -> dict[str, Any]:
        """How much of each class there is, JSON-able; ``names`` are the classes'."""
        return {"pixels": self.pixels, "counted": self.counted, "expected": self.expected, "on_ground": self.on_ground,
                "priors": self.priors.facts(names)}  # fmt: skip


QUALITY_COLOURS = ((217, 240, 211), (253, 184, 99), (178, 171, 210), (224, 130, 20), (128, 115, 172), (90, 90, 90))


def write_quality(prepared: PreparedScene, path: Path) -> None:
    """What each pixel was classified from: 1 = all modalities, k + 1 = without the k-th, 0 = not classified. The file names them
    as a map names its classes."""
    names = ["all modalities", *(f"without {name}" for name in prepared.modality_names)]
    colours = [QUALITY_COLOURS[k % len(QUALITY_COLOURS)] for k in range(len(names))]
    kinds = [ClassInfo(k, name, colour) for k, (name, colour) in enumerate(zip(names, colours, strict=True), 1)]
    values = (prepared.lacking() + 2).numpy().astype(np.uint8)
    scene = prepared.scene
    with MapWriter(path, (prepared.height, prepared.width), scene.crs, scene.transform, kinds) as out:
        out.write_block(0, 0, values)


def assemble(
    prepared: PreparedScene, config: Config, blocks: Blocks, target: Path, pixels: torch.Tensor | None = None,
    calibration: Calibration = UNCALIBRATED,
) -> Assembled:  # fmt: skip
    """Write map.tif and probabilities.tif of a finished prediction, under the class shares of ``predict.priors``; ``pixels`` int64
    (n, 2) are those whose labels are wanted. Holds one row of blocks and the map's int16 indices at a time."""
    scene, shape, side = prepared.scene, (prepared.height, prepared.width), config.predict.block
    place, names = (shape, scene.crs, scene.transform), [info.name for info in prepared.classes]
    parts = ((y, x, blocks.load(y, x)["probabilities"]) for y, x in corners(prepared, config))
    priors = settle_priors(config.predict.priors, calibration, names, shape, parts)
    known = pixel_areas(scene)
    ground = np.ones(shape[0]) if known is None else known
    counted, expected = np.zeros(len(names)), np.zeros(len(names))
    fused = np.full(shape, -1, np.int16)
    rc = np.empty((0, 2), np.int64) if pixels is None else np.asarray(pixels)
    picked: dict[str, np.ndarray] = {}
    confidence: dict[str, np.ndarray] = {}
    rows = math.lcm(side, TILE)
    with (ProbabilityWriter(target / "probabilities.tif", *place, names) as probabilities,
          MapWriter(target / "map.tif", *place, prepared.classes) as codes):
        for top in range(0, shape[0], rows):
            strip = np.full((len(names), min(rows, shape[0] - top), shape[1]), np.nan, np.float32)
            for y in range(top, min(top + rows, shape[0]), side):
                for x in range(0, shape[1], side):
                    stored = blocks.load(y, x)
                    found = stored.pop("probabilities")
                    h, w = found.shape[1:]
                    there = found.any(0)  # 0 for every class stands for no value
                    block = priors.correct(found)
                    strip[:, y - top : y - top + h, x : x + w] = np.where(there, block, np.nan)
                    stored["fused"] = np.where(there, block.argmax(0), -1)
                    fused[y : y + h, x : x + w] = stored["fused"]
                    inside = (rc >= (y, x)).all(1) & (rc < (y + h, x + w)).all(1)
                    for name, values in stored.items():
                        picked.setdefault(name, np.full(len(rc), -1, np.int64))[inside] = values[tuple((rc[inside] - (y, x)).T)]
                    for name, values in confidences(found[:, *(rc[inside] - (y, x)).T], calibration, priors).items():
                        confidence.setdefault(name, np.zeros(len(rc), values.dtype))[inside] = values
                    lines = ground[y : y + h]
                    expected += block.sum(2, np.float64) @ lines
                    counted += np.stack([(stored["fused"] == k).sum(1) for k in range(len(names))]) @ lines
            for x in range(0, shape[1], TILE):
                probabilities.write_block(top, x, strip[:, :, x : x + TILE])
            index = fused[top : top + rows]
            codes.write_block(top, 0, np.where(index >= 0, codes.codes[index], 0).astype(np.uint8))
    total = np.bincount(fused[fused >= 0], minlength=len(names)).tolist()
    return Assembled(
        fused, picked, confidence, codes.note, total, counted.tolist(), expected.tolist(), known is not None, priors
    )
