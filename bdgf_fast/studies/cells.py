"""The cells of a study: what is changed in each, and which belong together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..baselines import DUAL, FORESTS, GUIDED_FOREST, available
from ..config import Config
from ..errors import UserError, closest
from ..network.train import PATCH_TRAINING
from ..report.study_page import DEFAULT

METHOD, STATISTICS = "method", "raw statistics"
GUIDES = {"fusion": "feature fusion", "gate": "group channel gate", "channel_attention": "group channel attention",
          "cross_attention": "cross-attention"}  # fmt: skip
HIDE_RATE = 0.3
REFINING = 3
UNGUIDED = ("model.guide_cnn=none", "model.guide_mamba=none", "model.guide_transformer=none")


@dataclass(frozen=True)
class Cell:
    """One row of the table. ``settings`` override the default's configuration; ``modalities`` None = all; ``kind`` is
    ``METHOD``, ``STATISTICS`` (raw statistics guide) or the name of a baseline."""

    name: str
    title: str
    group: str
    settings: tuple[str, ...] = ()
    modalities: tuple[str, ...] | None = None
    kind: str = METHOD


def cell_name(title: str) -> str:
    """The name of a baseline's cell."""
    return title.replace(", ", "-").replace(" ", "-").lower()


DEFAULT_CELL = Cell(DEFAULT, "default", DEFAULT)


@dataclass(frozen=True)
class Preset:
    """``settings`` come before the user's own, ``test_pixels`` None = all, ``groups`` of cells by default (None = all)."""

    settings: tuple[str, ...]
    test_pixels: int | None
    wanted: tuple[str, ...] | None

    def base(self) -> Config:
        """The configuration that the user's own values come on top of."""
        return Config().override(*self.settings)


PRESETS = {
    "quick": Preset(("pretrain.steps=400", "pretrain.evaluate_every=400", "train.epochs=4"), 1500, None),
    "full": Preset((), None, (DEFAULT, "guidance-off", "forests-off", "controls", "baselines")),
}
CURVE = ("guidance-off", "untrained-denoiser", *(cell_name(name) for name in (*FORESTS, GUIDED_FOREST)))
"""Cells of a curve over the number of labels by default, beside the default cell."""


def all_cells(config: Config, modalities: Sequence[str]) -> list[Cell]:
    """Every cell that makes sense for a scene with these modalities and this default configuration, in the table's order."""
    several, own_denoiser = len(modalities) > 1, not config.features.path
    cells = [DEFAULT_CELL]
    if several and own_denoiser:
        policies = ("none", "fixed", "adaptive")
        cells += [Cell(f"masking-{p}", f"masking: {p}", "masking", (f"pretrain.masking={p}",)) for p in policies]
    branches = config.model.branches
    if len(branches) > 1:
        cells += [Cell(f"{b}-alone", f"{b} branch alone", "branches", (f"model.branches=[{b}]",)) for b in branches]
        cells.append(Cell("mutual-learning-off", "mutual learning off", "branches",
                          ("train.lambda_entropy=0", "train.lambda_similarity=0")))  # fmt: skip
    if several:
        balance, title = ("false", "off") if config.model.balance else ("true", "on")
        cells.append(Cell(f"input-balance-{title}", f"input balance {title}", "branches", (f"model.balance={balance}",)))
        if config.model.mode == "dense":
            rate, title = ("0", "off") if config.model.hide_rate else (str(HIDE_RATE), "on")
            cells.append(Cell(f"hiding-{title}", f"hiding of modalities in training {title}", "branches",
                              (f"model.hide_rate={rate}",)))  # fmt: skip
    if config.model.mode == "dense":
        if config.model.statistics and config.model.trees:
            cells.append(Cell("forests-off", "forests off", "branches", ("model.trees=0",)))
        cells.append(Cell("patch-network", "one patch per pixel, with unguided copies", "branches",
                          (*PATCH_TRAINING, "model.twins=true")))  # fmt: skip
    rounds, title = (0, "off") if config.predict.refine else (REFINING, "on")
    cells.append(Cell(f"refinement-{title}", f"refinement among similar pixels {title}", "branches", (f"predict.refine={rounds}",)))
    if config.model.statistics:
        cells.append(Cell("head-statistics-off", "statistics in the heads off", "branches", ("model.statistics=false",)))
    ways = {b: getattr(config.model, f"guide_{b}") for b in branches}
    used = [way for way in GUIDES if way in ways.values()]
    if used:
        cells.append(Cell("guidance-off", "guidance off", "guidance", UNGUIDED))
        twins, title = ("false", "off") if config.model.twins else ("true", "on")
        cells.append(Cell(f"twins-{title}", f"unguided copies of the branches {title}", "guidance", (f"model.twins={twins}",)))
    if len(used) > 1:
        cells += [
            Cell(f"{way.replace('_', '-')}-off", f"{GUIDES[way]} off", "guidance",
                 tuple(f"model.guide_{b}=none" for b in branches if ways[b] == way))  # fmt: skip
            for way in used
        ]
    for branch in branches:
        if ways[branch] in ("gate", "channel_attention"):
            cells += [
                Cell(way.replace("_", "-"), f"{branch} branch: {GUIDES[way]}", "guidance", (f"model.guide_{branch}={way}",))
                for way in ("gate", "channel_attention")
            ]
            break
    if own_denoiser:
        cells.append(Cell("patch-features", "network and features on one patch per pixel", "features",
                          (*PATCH_TRAINING, "features.mode=patch")))  # fmt: skip
    if own_denoiser and used:
        noise, title = ("none", "noise-free") if config.features.noise == "drawn" else ("drawn", "noisy")
        cells.append(Cell(f"{title}-input", f"features from {title} input", "features", (f"features.noise={noise}",)))
    if several and own_denoiser:  # maps of another model still show a single modality what the others saw
        cells += [Cell(f"{m}-alone", f"{m} alone", "modalities", modalities=(m,)) for m in modalities]
    if own_denoiser and used:
        cells.append(Cell("untrained-denoiser", "untrained denoiser", "controls", ("pretrain.steps=0",)))
    if used:
        cells.append(Cell("raw-statistics", "raw statistics guide", "controls", kind=STATISTICS))
    cells += [Cell(cell_name(name), name, "baselines", kind=name)
              for name in available(len(modalities)) if own_denoiser or name not in (DUAL, GUIDED_FOREST)]  # fmt: skip
    return cells


def select(cells: Sequence[Cell], wanted: Sequence[str] | None) -> list[Cell]:
    """Those named, by cell or by group, and always the default (differences are to it); None or ``all`` gives every one."""
    if not wanted or "all" in wanted:
        return list(cells)
    known = {c.name for c in cells} | {c.group for c in cells}
    for name in wanted:
        if name not in known:
            hint = closest(name, known)
            raise UserError(f"--cells: this scene's study has no cell or group {name!r}{hint}; --cells list shows them")
    return [c for c in cells if {c.name, c.group} & {*wanted, DEFAULT}]


def listing(cells: Sequence[Cell]) -> str:
    """The cells as `--cells list` prints them."""
    lines, group = [], None
    for cell in cells:
        if cell.group != group:
            lines.append(cell.group)
            group = cell.group
        change = ", ".join(cell.settings) or (f"only {', '.join(cell.modalities)}" if cell.modalities else "")
        lines.append(f"  {cell.name:<30} {cell.title}{f' ({change})' if change else ''}")
    return "\n".join(lines)
