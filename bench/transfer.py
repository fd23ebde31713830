"""Accuracy across scenes: `python bench/transfer.py FOLDER --tile SCENE [--forests] [--cases ...] [--seeds ...] [--out JSON]`.

The tile: one half trains, the other one is scored, in four directions. Synthetic: two scenes train, and others are scored: alike,
with another calibration of the sensors, in another season, and with both. Every case is run with the bands as they are and aligned.
`--forests` takes the strongest baseline alone, in seconds a case; without it the method runs, with the forests on the same labels
beside it, by a reduced budget: a twenty-fourth of the pre-training, and the convolution branch alone. FOLDER keeps every finished
case; `--out` gathers those that are there. Seed 0 was used to develop.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bdgf_fast.baselines.forest import EXTRA, RADII, grow
from bdgf_fast.config import Config
from bdgf_fast.data import (
    PreparedScene,
    Scene,
    SplitSpec,
    load_scene,
    make_split,
    prepare,
    scene_from_arrays,
    synthetic_scene,
    write_scene,
)
from bdgf_fast.data.joined import join_scenes
from bdgf_fast.pipeline.transfer import transfer
from bdgf_fast.report.metrics import METRICS, scores
from bdgf_fast.report.transfer_table import WAYS

SETTINGS = {"pretrain.steps": 100, "pretrain.evaluate_every": 100, "model.branches": ["cnn"]}
LABELS = {"tile": 100, "synthetic": 40}
DIRECTIONS = {"west-east": ("west", "east"), "east-west": ("east", "west"), "north-south": ("north", "south"),
              "south-north": ("south", "north")}  # fmt: skip
TARGETS = {"alike": (0.0, 0.0), "sensor": (0.0, 1.0), "season": (1.0, 0.0), "season-and-sensor": (1.0, 1.0)}
"""Season and sensor of a synthetic target."""
SIDE, BANDS = 112, 12


def cut(scene: Scene, name: str, rows: slice, columns: slice) -> Scene:
    """A part of a scene, with its classes' names; the split does not matter here."""
    window = (rows.start, rows.stop, columns.start, columns.stop)
    codes = np.array([*(info.code for info in scene.classes), 0], np.int64)  # the last entry is that of -1
    part = scene_from_arrays(
        name,
        {modality.name: modality.read(*window) for modality in scene.modalities},
        codes[scene.labels[rows, columns]],
        classes={info.code: info.name for info in scene.classes},
    )
    for modality in scene.modalities:
        part.modality(modality.name).bands = list(modality.bands)
    return part


def halves(path: Path, folder: Path) -> dict[str, Path]:
    scene = load_scene(path)
    h, w = scene.height, scene.width
    whole = {"y": slice(0, h), "x": slice(0, w)}
    parts = {"west": (whole["y"], slice(0, w // 2)), "east": (whole["y"], slice(w // 2, w)),
             "north": (slice(0, h // 2), whole["x"]), "south": (slice(h // 2, h), whole["x"])}  # fmt: skip
    return {name: _written(folder / name, lambda n=name, p=part: cut(scene, n, *p)) for name, part in parts.items()}


def _written(folder: Path, made: Any) -> Path:
    path = folder / "scene.toml"
    return path if path.exists() else write_scene(made(), folder)


def scenes_of(case: str, seed: int, folder: Path, tile: Path | None) -> tuple[list[Path], dict[str, Path]]:
    """The scenes that train, and those that are scored by the names of their columns."""
    if case in DIRECTIONS:
        assert tile is not None, "name the scene with --tile"
        parts = halves(tile, folder)
        one, other = DIRECTIONS[case]
        return [parts[one]], {other: parts[other]}
    first = 10 * seed + 100

    def made(number: int, name: str, season: float = 0.0, sensor: float = 0.0) -> Path:
        how = {"bands": BANDS, "season": season, "sensor": sensor}
        return _written(folder / f"s{first}-{name}", lambda: synthetic_scene(first + number, (SIDE, SIDE), **how))

    test = {name: made(k, name, *how) for k, (name, how) in enumerate(TARGETS.items(), 2)}
    return [made(0, "one"), made(1, "two")], test if case == "synthetic" else {case: test[case]}


def labels_of(case: str) -> int:
    return LABELS["tile" if case in DIRECTIONS else "synthetic"]


def whole_method(case: str, seed: int, folder: Path, tile: Path | None) -> dict[str, Any]:
    train, test = scenes_of(case, seed, folder, tile)
    result = transfer(train, list(test.values()), folder / f"run-{case}-{seed}", labels=labels_of(case), align="both",
                      config=SETTINGS, seed=seed, overwrite=True, quiet=True)  # fmt: skip
    return {name: target["rows"] for name, target in zip(test, result.targets.values(), strict=True)}


def extra_trees(case: str, seed: int, folder: Path, tile: Path | None) -> dict[str, Any]:
    """The strongest baseline alone: what the alignment is worth, in seconds."""
    train, test = scenes_of(case, seed, folder, tile)
    spec = SplitSpec(kind="all", per_class=labels_of(case))
    scene = join_scenes([load_scene(path) for path in train], "training scenes", split=spec)
    name = f"{EXTRA}, {RADII}"
    found: dict[str, Any] = {column: {} for column in test}
    for way in WAYS:
        prepared = prepare(scene, make_split(scene, seed=seed), align=way == "scene")
        forest = grow(prepared, config=Config(), kind=RADII, seed=seed, grower=EXTRA)
        for column, path in test.items():
            other = PreparedScene.from_state(load_scene(path), None, prepared.state())
            rc = torch.nonzero((other.labels >= 0) & other.valid)
            truth = other.labels[rc[:, 0], rc[:, 1]].numpy()
            found[column][way] = {name: scores(truth, forest.predict(other, rc), len(other.classes))}
    return found


def one_case(case: str, seed: int, path: Path, forests: bool, *where: Any) -> None:
    if path.exists():
        return
    start = time.perf_counter()
    found = (extra_trees if forests else whole_method)(case, seed, *where)
    targets = {
        name: {way: {method: {key: round(row[key], 5) for key in METRICS} for method, row in rows.items()}
               for way, rows in ways.items()}
        for name, ways in found.items()
    }  # fmt: skip
    print(case, seed, {f"{n}, {w}": {m: row["overall_accuracy"] for m, row in rows.items()} for n, ways in targets.items()
                       for w, rows in ways.items()}, flush=True)  # fmt: skip
    path.write_text(json.dumps({"seconds": round(time.perf_counter() - start), "targets": targets}, indent=1) + "\n")


def table(result: dict[str, Any]) -> list[str]:
    """The lines of the documentation's table: overall accuracy in %, means over directions and seeds."""
    columns: dict[str, list[dict[str, Any]]] = {}
    for run in result["runs"].values():
        for name, rows in run["targets"].items():
            columns.setdefault(name if name in TARGETS else "halves of the tile", []).append(rows)
    lines = [f"| method | bands | {' | '.join(name.replace('-', ' ') for name in columns)} |", f"|---|---|{'---|' * len(columns)}"]
    for method in next(iter(columns.values()))[0]["none"]:
        for way, said in WAYS.items():
            means = [np.mean([rows[way][method]["overall_accuracy"] for rows in runs]) for runs in columns.values()]
            lines.append(f"| {method} | {said} | {' | '.join(f'{100 * mean:.1f}' for mean in means)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tile", type=Path)
    parser.add_argument("--forests", action="store_true", help="extra trees on statistics at several radii alone")
    parser.add_argument("--cases", nargs="+", help="directions, `synthetic`, or single synthetic targets (default: all)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--gather", action="store_true", help="run nothing; gather what is there")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    cases = args.cases or [*DIRECTIONS, *(TARGETS if args.forests else ("synthetic",))]
    kind = "forests-" if args.forests else ""
    paths = {(case, seed): args.folder / f"{kind}{case}-{seed}.json" for case in cases for seed in args.seeds}
    for (case, seed), path in () if args.gather else paths.items():
        one_case(case, seed, path, args.forests, args.folder, args.tile)
    if args.out:
        found = {f"{case}/{seed}": json.loads(path.read_text()) for (case, seed), path in paths.items() if path.exists()}
        result = {"settings": {} if args.forests else SETTINGS, "labels": LABELS, "runs": found}
        args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        print("\n".join(table(result)))


if __name__ == "__main__":
    main()
