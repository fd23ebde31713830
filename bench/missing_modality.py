"""Accuracy with a modality missing: `python bench/missing_modality.py SCENE FOLDER [--out JSON]`.

For each split (a seed) one denoiser is trained, and one network for each rate of `model.hide_rate`; every network classifies the
test pixels with all modalities and with each one hidden. They are compared with networks that were trained without the modality
from the start, on the features of an untrained denoiser (on this tile they serve as well as a trained one's). FOLDER keeps what
is finished, one JSON file per split; `--out` gathers them. The rate was chosen on splits 0 to 2; splits 20 to 25 are reported.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from splits import denoiser_of

from bdgf_fast.config import Config
from bdgf_fast.data import load_scene, make_split, prepare
from bdgf_fast.features.dense import DiffusionFeatures
from bdgf_fast.features.source import hiding
from bdgf_fast.network.reach import reach
from bdgf_fast.network.train import train
from bdgf_fast.report.evaluation import evaluate
from bdgf_fast.report.metrics import METRICS


def one_split(scene: Any, seed: int, rates: list[float], alone: bool, folder: Path) -> dict[str, Any]:
    base = Config()
    split = make_split(scene, patch=base.data.patch, seed=seed, reach=reach(base))
    whole = prepare(scene, split)
    path = folder / f"split-{seed}.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}

    def keep(name: str, result: Any) -> None:
        found[name] = result
        path.write_text(json.dumps(found, indent=1) + "\n")

    denoiser = denoiser_of(whole, base, seed, folder / f"denoiser-{seed}.safetensors")
    for rate in rates:
        name = f"rate {rate:g}"
        if name in found:
            continue
        start = time.perf_counter()
        config = base.override(f"model.hide_rate={rate}")
        features = DiffusionFeatures.fit(denoiser, whole, config, seed)
        network, _ = train(whole, features, config, seed=seed)
        seconds = time.perf_counter() - start
        rows = {"none": evaluate(network, features, whole, config)}
        for modality in whole.modality_names:
            view, own = hiding(whole, features, modality)
            rows[modality] = evaluate(network, own, view, config)
        keep(name, {"seconds": round(seconds, 1), **{k: {m: row[m] for m in (*METRICS, "branches")} for k, row in rows.items()}})
        print(seed, name, {k: round(100 * row["overall_accuracy"], 2) for k, row in rows.items()}, round(seconds), "s", flush=True)
    for modality in whole.modality_names if alone else ():
        name = f"trained without {modality}"
        if name in found:
            continue
        part = whole.select([m for m in whole.modality_names if m != modality])
        untrained = folder / f"untrained-{seed}-without-{modality}.safetensors"
        own = denoiser_of(part, base.override("pretrain.steps=0"), seed, untrained)
        features = DiffusionFeatures.fit(own, part, base, seed)
        network, _ = train(part, features, base, seed=seed)
        row = evaluate(network, features, part, base)
        keep(name, {key: row[key] for key in METRICS})
        print(seed, name, round(100 * row["overall_accuracy"], 2), flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("scene", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--splits", type=int, nargs="+", default=[20, 21, 22, 23, 24, 25])
    parser.add_argument("--rates", type=float, nargs="+", default=[0.0, 0.3])
    parser.add_argument("--no-alone", action="store_true", help="leave out the networks trained without a modality from the start")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    scene = load_scene(args.scene)
    result = {str(seed): one_split(scene, seed, args.rates, not args.no_alone, args.folder) for seed in args.splits}
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
