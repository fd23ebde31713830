"""Splits of the labelled pixels that respect space, and those of published data sets."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from bdgf_fast.data.notes import Doubt
from bdgf_fast.data.scene import Scene, SplitSpec
from bdgf_fast.data.sources.raster import counted
from bdgf_fast.errors import DataWarning, SplitError

KINDS = ("blocks", "given", "per_class", "all")
NAMED_GAPS = ("patch", "features")
GAPS = '"patch" (the patch radius), "features" (how far the whole method sees) or a number of pixels'
DEFAULT_VAL_BLOCKS = 1 / 6


@dataclass
class Split:
    """Pixels for training, for validation and for scoring.

    ``train``, ``val`` and ``test`` are int64 (n, 2) of (row, column). ``train_region`` is bool (H, W): the part of the
    scene that statistics may be taken from. ``counts`` maps "train", "val" and "test" to the pixels per class index;
    ``notes`` are sentences a report should show.
    """

    train: torch.Tensor
    val: torch.Tensor
    test: torch.Tensor
    train_region: np.ndarray
    counts: dict[str, list[int]]
    kind: str
    seed: int
    gap: int
    notes: list[str] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """JSON-able facts for a report."""
        return {"kind": self.kind, "seed": self.seed, "gap": self.gap, "counts": self.counts, "notes": self.notes}


def make_split(
    scene: Scene, patch: int = 11, seed: int = 0, spec: SplitSpec | None = None, *, reach: int | None = None
) -> Split:
    """Divide the labelled pixels of ``scene`` by its split rules.

    Only pixels with a value in every modality take part.

    * ``blocks``: the scene is cut into ceil(H / block) x ceil(W / block) blocks, numbered row by row (blocks at the
      right and lower edge may be smaller). The first floor(train_fraction * blocks) of
      ``default_rng(seed).permutation(blocks)`` are training blocks. With ``val_blocks`` = f the last
      floor(f * training blocks), at least one, of these become validation blocks. Test pixels lie more than ``gap``
      pixels (Chebyshev) from every training and validation block, validation pixels from every training block.
      ``gap`` "patch", the default, is patch // 2, and "features" is ``reach``: how far the whole method sees.
    * ``given``: the scene's own train and test maps (and val map, if any). A pixel on several sides stays on the first
      of train, val, test. ``gap`` defaults to 0, because the published splits have none.
    * ``per_class``: ``per_class`` random pixels of each class for training, the others for testing. Patches of the two
      sides overlap, which flatters every method; kept because much of the literature does it. ``gap`` defaults to 0.
    * ``all``: every labelled pixel may train and none is scored here: for a model that maps other scenes.

    Up to ``per_class`` training pixels per class are kept: classes in ascending code, one generator
    ``default_rng(seed + 1)`` permuting each class's candidates in row-major order; of joined scenes, up to as many in each.

    ``train_region`` is the training blocks, for ``all`` the scene, for the other kinds the union of the patches around the training
    pixels.

    Raises SplitError for rules that make no sense or leave a class without training pixels.
    """
    spec = spec or scene.split_spec
    if patch < 1:
        raise SplitError(f"patch is {patch}; a patch has at least 1 pixel.")
    _check(spec, scene)
    shape = (scene.height, scene.width)
    labelled = (scene.labels >= 0) & scene.valid()
    gap = _gap(spec, patch, reach, scene)
    val_region = np.zeros(shape, bool)
    if spec.kind == "blocks":
        region, val_region = _block_regions(shape, spec, seed, scene)
        candidates = labelled & region
        val = labelled & val_region & ~dilate(region, gap)
        chosen = _draw(scene, candidates, spec.per_class, seed)
        test = labelled & ~dilate(region | val_region, gap)
    elif spec.kind == "all":
        region, val, test = np.ones(shape, bool), np.zeros(shape, bool), np.zeros(shape, bool)
        chosen = _draw(scene, labelled, spec.per_class, seed)
    else:
        if spec.kind == "given":
            candidates, rest = labelled & scene.given["train"], labelled & scene.given["test"]
            val = labelled & scene.given.get("val", np.zeros(shape, bool)) & ~candidates
        else:
            candidates = rest = labelled
            val = np.zeros(shape, bool)
        chosen = _draw(scene, candidates, spec.per_class, seed)
        taken = np.zeros(labelled.size, bool)
        taken[chosen] = True
        taken = taken.reshape(shape)
        test = rest & ~(dilate(taken | val, gap) if gap else taken | val)
        region = dilate(taken, patch // 2)
    flat = scene.labels.reshape(-1)
    sides = {"train": chosen, "val": np.flatnonzero(val), "test": np.flatnonzero(test)}
    counts = {side: np.bincount(flat[index], minlength=len(scene.classes)).tolist() for side, index in sides.items()}
    split = Split(
        train=_row_col(sides["train"], scene.width),
        val=_row_col(sides["val"], scene.width),
        test=_row_col(sides["test"], scene.width),
        train_region=region,
        counts=counts,
        kind=spec.kind,
        seed=seed,
        gap=gap,
    )
    _notes(split, scene, spec, patch)
    return split


def dilate(mask: np.ndarray, distance: int) -> np.ndarray:
    """Pixels within ``distance`` (Chebyshev) of a True pixel of ``mask`` (H, W); two bytes a pixel beside the mask."""
    out = mask.copy()
    if not mask.any():
        return out
    for axis in (0, 1):
        reach, distant = 0, min(distance, mask.shape[axis])
        while reach < distant:  # beyond a reach of r + 1 a shift would leave a gap along the edge
            step = min(reach + 1, distant - reach)
            before = np.moveaxis(out.copy(), axis, 0)
            after = np.moveaxis(out, axis, 0)
            after[step:] |= before[:-step]
            after[:-step] |= before[step:]
            reach += step
    return out


def _check(spec: SplitSpec, scene: Scene) -> None:
    where = f"{scene.labels_source}, [split]"
    if spec.kind not in KINDS:
        raise SplitError(f"{where}: kind is {spec.kind!r}; it can be {', '.join(KINDS)}.")
    if not scene.classes:
        raise SplitError(f"{scene.labels_source} has no labels to train on; add a [labels] table, or map the scene "
                         "with a run that is trained already: `bdgf-fast predict DIR --scene SCENE --out MAPS`.")  # fmt: skip
    if len(scene.classes) == 1:
        name = scene.classes[0].name
        raise SplitError(f"{scene.labels_source} has the class {name!r} alone; training needs two classes or more.")
    if spec.kind == "blocks":
        if spec.block < 1:
            raise SplitError(f"{where}: block is {spec.block}; it is a side length in pixels, at least 1.")
        if not 0 < spec.train_fraction < 1:
            raise SplitError(f"{where}: train_fraction is {spec.train_fraction}; it lies between 0 and 1.")
        if not 0 <= spec.val_blocks < 1:
            raise SplitError(
                f"{where}: val_blocks is {spec.val_blocks}; it is a fraction of the training blocks below 1."
            )
    elif spec.val_blocks:
        raise SplitError(f'{where}: val_blocks goes with kind = "blocks"; for "given" name a val map in [labels].')
    if spec.kind == "given" and not {"train", "test"} <= set(scene.given):
        raise SplitError(f'{where}: kind = "given" needs a train and a test map in [labels].')
    if spec.kind == "per_class" and spec.per_class is None:
        raise SplitError(f'{where}: kind = "per_class" needs per_class, the number of training pixels per class.')
    if spec.per_class is not None and spec.per_class < 1:
        raise SplitError(f"{where}: per_class is {spec.per_class}; it is at least 1.")
    if not (spec.gap is None or spec.gap in NAMED_GAPS or (isinstance(spec.gap, int) and spec.gap >= 0)):
        raise SplitError(f"{where}: gap is {spec.gap!r}; it takes {GAPS}.")


def _gap(spec: SplitSpec, patch: int, reach: int | None, scene: Scene) -> int:
    if spec.gap is None:
        return patch // 2 if spec.kind == "blocks" else 0
    if spec.gap != "features":
        return patch // 2 if spec.gap == "patch" else int(spec.gap)
    if reach is None:
        raise SplitError(
            f'{scene.labels_source}, [split]: gap is "features", which a run works out from its network; name the pixels here.'
        )
    return reach


def _block_regions(shape: tuple[int, int], spec: SplitSpec, seed: int, scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of the training and of the validation blocks, bool (H, W) each."""
    down, across = (math.ceil(size / spec.block) for size in shape)
    total = down * across
    # The small constant keeps 0.29 * 100 at 29, whatever its binary fraction says.
    count = math.floor(spec.train_fraction * total + 1e-9)
    order = np.random.default_rng(seed).permutation(total)[:count]
    held = max(1, math.floor(spec.val_blocks * count + 1e-9)) if spec.val_blocks else 0
    if count - held < 1 or count == total:
        raise SplitError(
            f"{scene.labels_source}, [split]: {shape[0]} x {shape[1]} pixels make {counted(total, 'block')} of {spec.block}, of "
            f"which {count - held} would train and {total - count} test; use smaller blocks or another train_fraction."
        )
    train, val = order[: count - held], order[count - held :]

    def region(blocks: np.ndarray) -> np.ndarray:
        grid = np.zeros(total, bool)
        grid[blocks] = True
        big = grid.reshape(down, across).repeat(spec.block, 0).repeat(spec.block, 1)
        return np.ascontiguousarray(big[: shape[0], : shape[1]])

    return region(train), region(val)


def _draw(scene: Scene, candidates: np.ndarray, per_class: int | None, seed: int) -> np.ndarray:
    """Flat indices of the training pixels, class after class."""
    rng = np.random.default_rng(seed + 1)
    labels = scene.labels.reshape(-1)
    pool = np.flatnonzero(candidates)
    chosen = []
    for index, info in enumerate(scene.classes):
        mine = pool[labels[pool] == index]
        if mine.size == 0:
            bare = f"class {info.code}"
            called = bare if info.name == bare else f"class {info.name!r} (code {info.code})"
            raise SplitError(
                f"{scene.labels_source}: {called} has no training pixel in this split "
                f"({int((labels == index).sum())} in the scene); put the code into ignore, or change seed, block or "
                "train_fraction."
            )
        parts = np.split(mine, np.searchsorted(mine, [row * scene.width for row, _ in scene.places[1:]]))
        chosen += [rng.permutation(part)[:per_class] for part in parts]
    return np.concatenate(chosen)


def _row_col(flat: np.ndarray, width: int) -> torch.Tensor:
    return torch.from_numpy(np.stack([flat // width, flat % width], axis=1).astype(np.int64))


def _notes(split: Split, scene: Scene, spec: SplitSpec, patch: int) -> None:
    """Sentences for the report; the grave ones are warned about as well."""
    names = [info.name for info in scene.classes]

    def add(text: str, warn: bool) -> None:
        split.notes.append(Doubt(text) if warn else text)
        if warn:
            warnings.warn(f"{scene.labels_source}: {text}", DataWarning, stacklevel=4)

    if spec.per_class is not None:
        short = [f"{n} {c}" for n, c in zip(names, split.counts["train"], strict=True) if c < spec.per_class]
        if short:
            add(f"fewer than {spec.per_class} training pixels: {', '.join(short)}.", warn=False)
    sides = (["test"] if spec.kind != "all" else []) + (["val"] if sum(split.counts["val"]) or spec.val_blocks else [])
    for side in sides:
        absent = [n for n, c in zip(names, split.counts[side], strict=True) if c == 0]
        if absent:
            add(f"no {'validation' if side == 'val' else side} pixel of {', '.join(absent)}.", warn=True)
    if spec.kind == "given":
        both = int((scene.given["train"] & scene.given["test"]).sum())
        if both:
            add(f"{both} pixels stand in the train and in the test map; those trained on are not scored.", warn=True)
    if spec.kind != "blocks" and split.gap < patch // 2 and len(split.test):
        rows, cols = split.test.numpy().T
        near = int(split.train_region[rows, cols].sum())
        add(
            f"{near} of {len(split.test)} test pixels lie within the patch radius ({patch // 2} px) of a training "
            "pixel; their patches overlap and the scores are optimistic.",
            warn=spec.kind == "per_class",
        )
    if spec.kind == "blocks" and split.gap < patch // 2:
        add(f"gap {split.gap} px is below the patch radius {patch // 2}: training and test patches overlap.", warn=True)
