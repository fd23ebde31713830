"""The command line of the benchmarks that train on several splits of a scene."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bdgf_fast.data import load_scene


def gather(description: str, one_split: Callable[[Any, int, Path], dict[str, Any]], **facts: Any) -> None:
    """``one_split(scene, seed, folder)`` for every split, and the results with ``facts`` beside them in ``--out``."""
    parser = argparse.ArgumentParser(description=description.partition("\n")[0])
    parser.add_argument("scene", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--splits", type=int, nargs="+", default=[20, 21, 22, 23, 24, 25])
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    scene = load_scene(args.scene)
    result = {str(seed): one_split(scene, seed, args.folder) for seed in args.splits}
    if args.out:
        args.out.write_text(json.dumps({**facts, "splits": result}, indent=1) + "\n", encoding="utf-8")
