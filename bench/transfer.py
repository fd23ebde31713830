"""Accuracy across scenes: `python bench/transfer.py FOLDER [--tile SCENE] [--cases ...] [--seeds ...] [--out JSON]`.

`tile`: one half of a scene trains, the other one is scored, in four directions. `synthetic`: two synthetic scenes train, and others
are scored: alike, with another calibration of the sensors, in another season, and with both. Every case is run with the bands as
they are and aligned, with forests on the same labels beside it. Budgets are reduced: a twenty-fourth of the pre-training, and the
convolution branch alone with the forests. FOLDER keeps every finished case;
`--out` gathers those that are there. Seed 0 was used to develop.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from bdgf_fast.data import Scene, load_scene, scene_from_arrays, synthetic_scene, write_scene
from bdgf_fast.pipeline.transfer import transfer
from bdgf_fast.report.metrics import METRICS
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


def one_case(case: str, seed: int, folder: Path, tile: Path | None) -> None:
    path = folder / f"{case}-{seed}.json"
    if path.exists():
        return
    start = time.perf_counter()
    if case == "synthetic":
        first = 10 * seed + 100
        size = (SIDE, SIDE)

        def made(number: int, season: float, sensor: float) -> Scene:
            return synthetic_scene(number, size, bands=BANDS, season=season, sensor=sensor)

        train = [_written(folder / f"s{first + k}", lambda k=k: made(first + k, 0.0, 0.0)) for k in range(2)]
        test = [_written(folder / f"s{first}-{name}", lambda k=k, how=how: made(first + k, *how))
                for k, (name, how) in enumerate(TARGETS.items(), 2)]  # fmt: skip
    else:
        assert tile is not None, "name the scene with --tile"
        parts = halves(tile, folder)
        one, other = DIRECTIONS[case]
        train, test = [parts[one]], [parts[other]]
    labels = LABELS["synthetic" if case == "synthetic" else "tile"]
    result = transfer(train, test, folder / f"run-{case}-{seed}", labels=labels, align="both", config=SETTINGS, seed=seed,
                      overwrite=True, quiet=True)  # fmt: skip
    print(result, flush=True)
    names = list(TARGETS) if case == "synthetic" else [DIRECTIONS[case][1]]
    targets = {
        name: {way: {method: {key: round(row[key], 5) for key in METRICS} for method, row in rows.items()}
               for way, rows in target["rows"].items()}
        for name, target in zip(names, result.targets.values(), strict=True)
    }  # fmt: skip
    path.write_text(json.dumps({"seconds": round(time.perf_counter() - start), "targets": targets}, indent=1) + "\n")


def table(result: dict[str, Any]) -> list[str]:
    """The lines of the documentation's table: overall accuracy in %, means over directions and seeds."""
    columns: dict[str, list[dict[str, Any]]] = {}
    for case, run in result["runs"].items():
        for name, rows in run["targets"].items():
            columns.setdefault(name if case.startswith("synthetic") else "halves of the tile", []).append(rows)
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
    parser.add_argument("--cases", nargs="+", default=[*DIRECTIONS, "synthetic"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--gather", action="store_true", help="run nothing; gather what is there")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    for seed in () if args.gather else args.seeds:
        for case in args.cases:
            one_case(case, seed, args.folder, args.tile)
    if args.out:
        paths = {f"{case}/{seed}": args.folder / f"{case}-{seed}.json" for case in args.cases for seed in args.seeds}
        found = {name: json.loads(path.read_text()) for name, path in paths.items() if path.exists()}
        result = {"settings": SETTINGS, "labels": LABELS, "runs": found}
        args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        print("\n".join(table(result)))


if __name__ == "__main__":
    main()
