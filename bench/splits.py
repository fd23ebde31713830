"""What the benchmarks that train on several splits of a scene have in common: their command line, files and networks."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from bdgf_fast.config import Config
from bdgf_fast.data import SplitSpec, load_scene, make_split, prepare
from bdgf_fast.data.prepared import PreparedScene
from bdgf_fast.diffusion.denoiser import Denoiser
from bdgf_fast.diffusion.pretrain import load_denoiser, pretrain
from bdgf_fast.features.dense import DiffusionFeatures
from bdgf_fast.network.held_out import calibrate
from bdgf_fast.network.predict import predict
from bdgf_fast.network.reach import reach
from bdgf_fast.network.train import train


class Trained(NamedTuple):
    """A calibrated network and its features, with the seconds that training and calibration took."""

    network: Any
    features: DiffusionFeatures
    seconds: dict[str, float]


def gather(description: str, name: str, one_split: Callable[[Any, int, Path], dict[str, Any]], **facts: Any) -> None:
    """``one_split(scene, seed, folder)`` for every split whose result is not yet in ``NAME-SEED.json``, and the results with
    ``facts`` beside them in ``--out``."""
    parser = argparse.ArgumentParser(description=description.partition("\n")[0])
    parser.add_argument("scene", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--splits", type=int, nargs="+", default=[20, 21, 22, 23, 24, 25])
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    scene, results = load_scene(args.scene), {}
    for seed in args.splits:
        path = args.folder / f"{name}-{seed}.json"
        if not path.exists():
            path.write_text(json.dumps(one_split(scene, seed, args.folder), indent=1) + "\n", encoding="utf-8")
            print(seed, path.read_text(encoding="utf-8"), flush=True)
        results[str(seed)] = json.loads(path.read_text(encoding="utf-8"))
    if args.out:
        args.out.write_text(json.dumps({**facts, "splits": results}, indent=1) + "\n", encoding="utf-8")


def default_config() -> Config:
    """The default settings, with a checkpoint after every epoch, from which a killed split goes on."""
    return Config().override("train.checkpoint_every=1")


def prepared_split(scene: Any, config: Config, seed: int, spec: SplitSpec | None = None) -> PreparedScene:
    return prepare(scene, make_split(scene, patch=config.data.patch, seed=seed, spec=spec, reach=reach(config)))


def denoiser_of(prepared: PreparedScene, config: Config, seed: int, path: Path) -> Denoiser:
    if not path.exists():
        pretrain(prepared, config, seed=seed, checkpoint=path)
    return load_denoiser(path)


def trained(prepared: PreparedScene, config: Config, seed: int, folder: Path, stored: str = "network") -> Trained:
    """The network of a split; ``folder`` keeps the denoiser of the seed, and the network as ``STORED-SEED.safetensors``."""
    denoiser = denoiser_of(prepared, config, seed, folder / f"denoiser-{seed}.safetensors")
    features = DiffusionFeatures.fit(denoiser, prepared, config, seed)
    start = time.perf_counter()
    network, _ = train(prepared, features, config, seed=seed, checkpoint=folder / f"{stored}-{seed}.safetensors", resume=True)
    ended = time.perf_counter()
    network.calibration = calibrate(network, features, prepared, config, seed=seed)
    calibrated = time.perf_counter() - ended
    return Trained(network, features, {"train": round(ended - start, 1), "calibrate": round(calibrated, 1)})


def whole_map(network: Any, features: Any, prepared: PreparedScene, config: Config) -> torch.Tensor:
    """Class probabilities (K, H, W) of every pixel."""
    found = torch.zeros(len(prepared.classes), prepared.height, prepared.width)
    for y, x, block, _ in predict(network, features, prepared, config):
        found[:, y : y + block.shape[1], x : x + block.shape[2]] = torch.as_tensor(block)
    return found
