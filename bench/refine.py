"""What smoothing a map among similar neighbours is worth: `python bench/refine.py SCENE FOLDER [--out JSON]`.

For each split (a seed) and number of labels per class, the default network and extra trees on statistics at several radii give
the class probabilities of the whole scene. These are averaged over windows, each neighbour weighted by how alike its bands are (a
Gaussian of the root mean square difference of the normalised bands), some rounds in turn, and the test pixels are scored before
and after. FOLDER keeps what is finished, one JSON file per split, with denoisers and networks; `--out` gathers them. The settings
were chosen among four on split 0 with 10 labels per class; splits 20 to 25 are reported.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from missing_modality import denoiser_of
from torch import Tensor

from bdgf_fast.baselines.forest import EXTRA, RADII, grow
from bdgf_fast.config import Config
from bdgf_fast.data import load_scene, make_split, prepare
from bdgf_fast.features.dense import DiffusionFeatures
from bdgf_fast.network.held_out import calibrate
from bdgf_fast.network.predict import predict
from bdgf_fast.network.reach import reach
from bdgf_fast.network.train import train

RADIUS, WIDTH, ROUNDS = 4, 0.3, 3
LABELS = (10, 100)


def refined(probabilities: Tensor, bands: Tensor) -> Tensor:
    """Class probabilities (K, H, W) averaged over similar pixels of ``bands`` (C, H, W) nearby."""
    h, w = bands.shape[1:]
    shifts = [(y, x) for y in range(2 * RADIUS + 1) for x in range(2 * RADIUS + 1)]

    def around(maps: Tensor, y: int, x: int) -> Tensor:
        return maps[:, y : y + h, x : x + w]

    def padded(maps: Tensor) -> Tensor:
        return F.pad(maps[None], (RADIUS,) * 4, mode="reflect")[0]

    wide = padded(bands)
    weights = [torch.exp(-((around(wide, *shift) - bands) ** 2).mean(0) / (2 * WIDTH**2)) for shift in shifts]
    total = torch.stack(weights).sum(0)
    for _ in range(ROUNDS):
        wide = padded(probabilities)
        probabilities = sum(weight * around(wide, *shift) for weight, shift in zip(weights, shifts, strict=True)) / total
    return probabilities


def one_split(scene: Any, seed: int, folder: Path) -> dict[str, Any]:
    path = folder / f"refine-{seed}.json"
    if path.exists():
        return json.loads(path.read_text())
    config, result = Config().override("train.checkpoint_every=1"), {}
    for labels in LABELS:
        spec = replace(scene.split_spec, per_class=labels)
        prepared = prepare(scene, make_split(scene, patch=config.data.patch, seed=seed, spec=spec, reach=reach(config)))
        denoiser = denoiser_of(prepared, config, seed, folder / f"denoiser-{seed}.safetensors")
        features = DiffusionFeatures.fit(denoiser, prepared, config, seed)
        stored = folder / (f"network-{seed}.safetensors" if labels == 100 else f"network-{seed}-{labels}.safetensors")
        network, _ = train(prepared, features, config, seed=seed, checkpoint=stored, resume=True)
        network.calibration = calibrate(network, features, prepared, config, seed=seed)
        forest = grow(prepared, config=config, kind=RADII, seed=seed, grower=EXTRA)
        shape = (prepared.height, prepared.width)
        ours = torch.zeros(len(prepared.classes), *shape)
        for y, x, block, _ in predict(network, features, prepared, config):
            ours[:, y : y + block.shape[1], x : x + block.shape[2]] = block
        every = torch.cartesian_prod(*map(torch.arange, shape))
        theirs = torch.as_tensor(forest.probabilities(prepared, every)).T.reshape(-1, *shape).float()
        test = torch.as_tensor(prepared.split.test)
        truth, bands = prepared.labels[test[:, 0], test[:, 1]], prepared.window(0, 0, *shape)
        result[str(labels)] = {
            name: float((maps[:, test[:, 0], test[:, 1]].argmax(0) == truth).float().mean())
            for method, plain in (("default", ours), (f"{EXTRA}, {RADII}", theirs))
            for name, maps in ((method, plain), (f"{method}, refined", refined(plain, bands)))
        }
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(seed, json.dumps(result), flush=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("scene", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--splits", type=int, nargs="+", default=[20, 21, 22, 23, 24, 25])
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    scene = load_scene(args.scene)
    result = {str(seed): one_split(scene, seed, args.folder) for seed in args.splits}
    if args.out:
        settings = {"radius": RADIUS, "width": WIDTH, "rounds": ROUNDS}
        args.out.write_text(json.dumps({"settings": settings, "splits": result}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
