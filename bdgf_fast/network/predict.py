"""Prediction of pixels and of whole scenes, block by block, and their evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..common.augmentation import cut, dihedral, turned, undo_dihedral
from ..common.progress import Progress
from ..config import Config
from ..data.prepared import PreparedScene
from ..errors import UserError
from ..features.source import FeatureSource, hiding, tiles_of, windows
from .calibration import Calibration
from .group_network import DenseNetwork, GroupNetwork
from .reach import guide_reach, halo, middle, raw_reach
from .refine import RADIUS, refine
from .statistics import pick, statistics

Network = DenseNetwork | GroupNetwork
STRIP = 32
"""Rows of a block whose statistics are held at once."""


@dataclass
class Prediction:
    """n pixels: fused, calibrated ``probabilities`` float32 (n, K) and each member's ``labels`` int64 {name: (n,)}; on demand each
    branch's ``features`` float32 {name: (n, hidden)}, of the first view."""

    probabilities: Tensor
    labels: dict[str, Tensor]
    features: dict[str, Tensor] = field(default_factory=dict)


def corners(prepared: PreparedScene, config: Config) -> list[tuple[int, int]]:
    """Upper left pixels of a scene's blocks, row-major."""
    side = config.predict.block
    return [(y, x) for y in range(0, prepared.height, side) for x in range(0, prepared.width, side)]


def predict(
    network: Network,
    features: FeatureSource | None,
    prepared: PreparedScene,
    config: Config,
    progress: Progress | None = None,
    *,
    stride: int = 1,
    wanted: Callable[[tuple[int, int]], bool] | None = None,
) -> Iterator[tuple[int, int, Tensor, dict[str, Tensor]]]:
    """The whole scene in row-major blocks: yields (y0, x0, class probabilities float32 (K, h, w), {branch: labels
    int64 (h, w)}).

    Args:
        stride: classify the pixels whose row and column are multiples of it, and interpolate the probabilities between
            them bilinearly (over valid neighbours; beyond the last row or column the nearest counts). Branch labels are
            then those of the upper left neighbour.
        wanted: whether to predict the block with this corner, all by default.

    A network that was trained with modalities hidden also predicts the pixels that lack one, with it hidden all around them.
    Pixels that are not valid, or have no valid neighbour, have probability 0 for every class, and label -1. Memory is
    bounded by ``predict.block`` and ``predict.batch``. The result does not depend on the blocks.
    """
    if stride > 1 and isinstance(network, DenseNetwork):
        raise UserError("--stride is for patch networks; this one computes all pixels of a block at once, so it saves nothing")
    side = config.predict.block
    chosen = [corner for corner in corners(prepared, config) if wanted is None or wanted(corner)]
    looks = looks_of(network, features, prepared)
    for done, (y, x) in enumerate(chosen, 1):
        box = (y, x, min(side, prepared.height - y), min(side, prepared.width - x))
        yield y, x, *_refined_box(network, looks, config, box, stride)
        if progress is not None:
            progress(done, len(chosen), {})


@dataclass
class Look:
    """A view of the scene, its features, and where bool (H, W) pixels are predicted from it."""

    prepared: PreparedScene
    features: FeatureSource | None
    where: Tensor


def looks_of(network: Network, features: FeatureSource | None, prepared: PreparedScene) -> list[Look]:
    """The whole scene for the pixels that have all modalities, and, for a network that knows how to do without one, views that hide
    what the others lack. A view that hides one already is looked at as it is."""
    if prepared.hidden_index is not None or not getattr(network, "hides", False):
        return [Look(prepared, features, torch.as_tensor(prepared.valid))]
    lacking = prepared.lacking()
    looks = [Look(prepared, features, lacking == -1)]
    for index, name in enumerate(prepared.modality_names):
        where = lacking == index
        if bool(where.any()):
            looks.append(Look(*hiding(prepared, features, name), where))
    return looks


def _refined_box(
    network: Network, looks: list[Look], config: Config, box: tuple[int, int, int, int], stride: int = 1
) -> tuple[Tensor, dict[str, Tensor]]:
    """Probabilities (K, h, w) and branch labels (h, w) of the pixels of box = (y0, x0, h, w), the former refined by
    ``predict.refine`` rounds, for which the pixels around the box are predicted too."""
    rounds, prepared = config.predict.refine, looks[0].prepared
    if not rounds:
        return _predict_box(network, looks, config, box, stride)
    (y, x, h, w), margin = box, rounds * RADIUS
    top, left = max(y - margin, 0), max(x - margin, 0)
    wide = (top, left, min(y + h + margin, prepared.height) - top, min(x + w + margin, prepared.width) - left)
    block, labels = _predict_box(network, looks, config, wide, stride)
    rows, columns = slice(y - top, y - top + h), slice(x - left, x - left + w)
    refined = refine(block, prepared.window(*wide), rounds)[:, rows, columns]
    return refined, {name: values[rows, columns] for name, values in labels.items()}


def _predict_box(
    network: Network, looks: list[Look], config: Config, box: tuple[int, int, int, int], stride: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """The same without refinement."""
    y, x, h, w = box
    shape, calibration = (looks[0].prepared.height, looks[0].prepared.width), Calibration.of(network)
    rows, columns = _grid(y, h, shape[0], stride), _grid(x, w, shape[1], stride)
    block = torch.zeros(network.classes, len(rows), len(columns))
    branches = {name: torch.full((len(rows), len(columns)), -1) for name in network.kinds}
    inside = torch.zeros(len(rows), len(columns), dtype=torch.bool)
    for look in looks:
        own = look.where[rows][:, columns]
        at = own.nonzero()
        if not len(at):
            continue
        inside |= own
        rc = torch.stack([rows[at[:, 0]], columns[at[:, 1]]], 1)
        around = (int(rows[0]), int(columns[0]), int(rows[-1] - rows[0]) + 1, int(columns[-1] - columns[0]) + 1)
        part = _predict_block(network, look.features, look.prepared, config, rc, around)
        block[:, own] = calibration.apply(part.probabilities, 1).T
        for name, labels in part.labels.items():
            branches[name][own] = labels
    if stride > 1:
        without = ~torch.stack([look.where[y : y + h, x : x + w] for look in looks]).any(0)
        block = _interpolate(block, inside, rows, columns, box, stride)
        block[:, without] = 0
        upper_left = (torch.arange(y, y + h) - rows[0]) // stride, (torch.arange(x, x + w) - columns[0]) // stride
        near = [axis.clamp(max=size - 1) for axis, size in zip(upper_left, inside.shape, strict=True)]
        branches = {name: labels[near[0]][:, near[1]] for name, labels in branches.items()}
        for labels in branches.values():
            labels[without] = -1
    return block, branches


def _grid(start: int, size: int, scene: int, stride: int) -> Tensor:
    """The multiples of ``stride`` that surround start..start+size-1, none beyond the scene."""
    last = min(-(-(start + size - 1) // stride), (scene - 1) // stride)
    return torch.arange(start // stride, last + 1) * stride


def _interpolate(
    coarse: Tensor, inside: Tensor, rows: Tensor, columns: Tensor, box: tuple[int, int, int, int], stride: int
) -> Tensor:
    """Bilinear interpolation of (K, len(rows), len(columns)) to the box's pixels, over those inside alone."""

    def weights(start: int, size: int, grid: Tensor) -> Tensor:
        distance = (torch.arange(start, start + size)[:, None] - grid).abs() / stride
        found = (1 - distance).clamp(min=0)
        return found / found.sum(1, keepdim=True)

    y, x, h, w = box
    down, across = weights(y, h, rows), weights(x, w, columns)
    total = down @ coarse @ across.T
    return total / (down @ inside.float() @ across.T).clamp(min=1e-6)


def predict_pixels(
    network: Network,
    features: FeatureSource | None,
    prepared: PreparedScene,
    config: Config,
    rc: Tensor,
    progress: Progress | None = None,
    *,
    keep_features: bool = False,
    refined: bool = True,
) -> Prediction:
    """Predict the pixels rc int64 (n, 2), in their order. Pixels of one block share one pass of the U-Net and of a dense network.

    Args:
        keep_features: return the branches' features too; needs ``refined=False`` where the setting is on.
        refined: False leaves ``predict.refine`` out, for which all pixels around those of rc are predicted.
    """
    rc = torch.as_tensor(rc, dtype=torch.int64)
    side, classes, calibration = config.predict.block, network.classes, Calibration.of(network)
    looks = looks_of(network, features, prepared) if refined and config.predict.refine else []
    result = Prediction(
        torch.zeros(len(rc), classes), {k: torch.zeros(len(rc), dtype=torch.int64) for k in network.kinds}
    )
    cells, group = torch.unique(rc // side, dim=0, return_inverse=True)
    for i in range(len(cells)):
        mine = (group == i).nonzero().squeeze(1)
        low, high = rc[mine].amin(0), rc[mine].amax(0) + 1
        box = (int(low[0]), int(low[1]), int(high[0] - low[0]), int(high[1] - low[1]))
        if looks:
            block, branches = _refined_box(network, looks, config, box)
            y, x = (rc[mine] - low).T
            part = Prediction(block[:, y, x].T, {name: labels[y, x] for name, labels in branches.items()})
        else:
            part = _predict_block(network, features, prepared, config, rc[mine], box, keep_features)
            part.probabilities = calibration.apply(part.probabilities, 1)
        result.probabilities[mine] = part.probabilities
        for name, labels in part.labels.items():
            result.labels[name][mine] = labels
        for name, values in part.features.items():
            result.features.setdefault(name, torch.empty(len(rc), values.shape[1]))[mine] = values
        if progress is not None:
            progress(i + 1, len(cells), {})
    return result


def _predict_block(
    network: Network,
    features: FeatureSource | None,
    prepared: PreparedScene,
    config: Config,
    rc: Tensor,
    box: tuple[int, int, int, int],
    keep_features: bool = False,
) -> Prediction:
    """Predict pixels rc that lie in box = (y0, x0, h, w)."""
    if isinstance(network, DenseNetwork):
        return _predict_map(network, features, prepared, config, rc, box, keep_features)
    return _predict_patches(network, features, prepared, config, rc, box, keep_features)


@torch.no_grad()
def _predict_map(
    network: DenseNetwork,
    features: FeatureSource | None,
    prepared: PreparedScene,
    config: Config,
    rc: Tensor,
    box: tuple[int, int, int, int],
    keep_features: bool = False,
) -> Prediction:
    """Pixels of a box by the dense network: the branches over the whole box, aligned to the scene's windows, then heads and
    statistics strip by strip."""
    c, device, tile = config.model, next(network.parameters()).device, tiles_of(features)
    side, around, raw_margin, guide_margin = max(c.scan_window, c.attention_window), halo(c), raw_reach(c), guide_reach(c)
    top, left = box[0] // side * side, box[1] // side * side
    h, w = -(-(box[0] + box[2]) // side) * side - top, -(-(box[1] + box[3]) // side) * side - left
    raw = prepared.window(top - raw_margin, left - raw_margin, h + 2 * raw_margin, w + 2 * raw_margin).to(device)
    guides = [] if tile is None else tile(top - guide_margin, left - guide_margin, h + 2 * guide_margin, w + 2 * guide_margin)
    guides = [g.to(device) for g in guides]
    cast = torch.autocast(device.type, torch.bfloat16, enabled=config.predict.precision == "bfloat16")
    total, by_branch = torch.zeros(len(rc), network.classes), torch.zeros(len(network.kinds), len(rc), network.classes)
    kept: dict[str, Tensor] = {}
    strip_of = (rc[:, 0] - top) // STRIP
    for view in range(config.predict.views):
        x = dihedral(middle(raw, raw_margin - around - 1)[None], view)
        seen = [dihedral(middle(g, guide_margin - around)[None], view) for g in guides]
        with cast:
            maps = [middle(undo_dihedral(m, view), around - c.map_radius) for m in network.branch_maps(x, seen)]
        for k in strip_of.unique().tolist():
            a, b = k * STRIP, min((k + 1) * STRIP, h)
            mine = (strip_of == k).nonzero().squeeze(1)
            at = ((rc[mine, 0] - top - a) * w + rc[mine, 1] - left).to(device)
            with cast:
                pooled = [pick(network.pooled(m[:, :, a : b + 2 * c.map_radius])[0], at) for m in maps]
                rows = None
                if network.standardise is not None:
                    near = raw[:, a : b + 2 * raw_margin]
                    guide = [g[:, a : b + 2 * guide_margin] for g in guides]
                    rows = statistics(near, raw_margin, guide, guide_margin, c, network.context, at)
                output = network.classify(pooled, rows, hidden=prepared.hidden_index)
            total[mine] += output.log_fused.exp().float().cpu()
            by_branch[:, mine] += torch.stack([z.float() for z in output.logits]).softmax(2).cpu()
            if keep_features and view == 0:
                for name, values in zip(network.kinds, output.features, strict=False):  # forests have none
                    kept.setdefault(name, torch.empty(len(rc), values.shape[1]))[mine] = values.float().cpu()
    labels = dict(zip(network.kinds, by_branch.argmax(2), strict=True))
    return Prediction(total / config.predict.views, labels, kept)


@torch.no_grad()
def _predict_patches(
    network: GroupNetwork,
    features: FeatureSource | None,
    prepared: PreparedScene,
    config: Config,
    rc: Tensor,
    box: tuple[int, int, int, int],
    keep_features: bool = False,
) -> Prediction:
    """Pixels of a box by patches of their own."""
    patch, size, device = config.data.patch, cut(config.data.patch), next(network.parameters()).device
    before = size // 2
    y0, x0, h, w = box
    corner = torch.tensor([y0, x0])
    raw = prepared.window(y0 - before, x0 - before, h + size - 1, w + size - 1)
    guide = None if features is None else features.block(y0, x0, h, w, size)
    probabilities, labels = [], []
    kept: dict[str, list[Tensor]] = {}
    for part in rc.split(config.predict.batch):
        x = windows(raw, part - corner, size).to(device)
        maps = [] if guide is None else [m.to(device) for m in guide(part)]
        total: Any = 0.0
        log_branches: Any = 0.0
        for view in range(config.predict.views):
            with torch.autocast(device.type, torch.bfloat16, enabled=config.predict.precision == "bfloat16"):
                output = network(turned(x, view, patch), [turned(m, view, patch) for m in maps])
            total = total + output.log_fused.exp()
            log_branches = log_branches + torch.stack(output.logits).softmax(2)
            if keep_features and view == 0:
                for name, values in zip(network.kinds, output.features, strict=True):
                    kept.setdefault(name, []).append(values.float().cpu())
        probabilities.append((total / config.predict.views).float().cpu())
        labels.append(log_branches.argmax(2).cpu())
    return Prediction(
        torch.cat(probabilities),
        dict(zip(network.kinds, torch.cat(labels, 1), strict=True)),
        {name: torch.cat(values) for name, values in kept.items()},
    )
