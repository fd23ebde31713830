"""What refining a map is worth, with many labels and with few: `python bench/refine.py SCENE FOLDER [--out JSON]`.

For each split (a seed) and number of labels per class, the default network and extra trees on statistics at several radii give the
class probabilities of the whole scene, which are averaged over similar pixels nearby (`predict.refine`); the test pixels are scored
before and after. FOLDER keeps what is finished, one JSON file per split, and the denoisers and networks; `--out` gathers them. The
settings were chosen on split 0 with 10 labels per class; splits 20 to 25 are reported.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from missing_modality import denoiser_of
from splits import gather

from bdgf_fast.baselines.forest import EXTRA, RADII, grow
from bdgf_fast.config import Config
from bdgf_fast.data import make_split, prepare
from bdgf_fast.features.dense import DiffusionFeatures
from bdgf_fast.network.held_out import calibrate
from bdgf_fast.network.predict import predict
from bdgf_fast.network.reach import reach
from bdgf_fast.network.refine import RADIUS, WIDTH, refine
from bdgf_fast.network.train import train
from bdgf_fast.studies.cells import REFINING

LABELS = (10, 100)


def by_network(prepared: Any, config: Config, seed: int, denoiser: Any, stored: Path) -> torch.Tensor:
    """Class probabilities (K, H, W) of the default network."""
    features = DiffusionFeatures.fit(denoiser, prepared, config, seed)
    network, _ = train(prepared, features, config, seed=seed, checkpoint=stored, resume=True)
    network.calibration = calibrate(network, features, prepared, config, seed=seed)
    found = torch.zeros(len(prepared.classes), prepared.height, prepared.width)
    for y, x, block, _ in predict(network, features, prepared, config):
        found[:, y : y + block.shape[1], x : x + block.shape[2]] = block
    return found


def by_trees(prepared: Any, config: Config, seed: int) -> torch.Tensor:
    """Those of extra trees on statistics at several radii."""
    grown = grow(prepared, config=config, kind=RADII, seed=seed, grower=EXTRA)
    every = torch.cartesian_prod(torch.arange(prepared.height), torch.arange(prepared.width))
    found = torch.zeros(len(every), len(prepared.classes))
    found[:, torch.from_numpy(grown.forest.classes_)] = torch.from_numpy(grown.probabilities(prepared, every)).float()
    return found.T.reshape(-1, prepared.height, prepared.width)


def one_split(scene: Any, seed: int, folder: Path) -> dict[str, Any]:
    path = folder / f"refine-{seed}.json"
    if path.exists():
        return json.loads(path.read_text())
    config, result, seconds = Config().override("train.checkpoint_every=1"), {}, 0.0
    for labels in LABELS:
        spec = replace(scene.split_spec, per_class=labels)
        prepared = prepare(scene, make_split(scene, patch=config.data.patch, seed=seed, spec=spec, reach=reach(config)))
        denoiser = denoiser_of(prepared, config, seed, folder / f"denoiser-{seed}.safetensors")
        stored = folder / (f"network-{seed}.safetensors" if labels == LABELS[-1] else f"network-{seed}-{labels}.safetensors")
        maps = {"default": by_network(prepared, config, seed, denoiser, stored), EXTRA: by_trees(prepared, config, seed)}
        test = torch.as_tensor(prepared.split.test)
        truth = prepared.labels[test[:, 0], test[:, 1]]
        bands = prepared.window(0, 0, prepared.height, prepared.width)
        found = {}
        for name, plain in maps.items():
            start = time.process_time()
            refined = refine(plain, bands, REFINING)
            seconds = time.process_time() - start
            for title, probabilities in ((name, plain), (f"{name}, refined", refined)):
                said = probabilities[:, test[:, 0], test[:, 1]].argmax(0)
                found[title] = float((said == truth).double().mean())
        result[str(labels)] = found
    result["microseconds_per_pixel"] = round(1e6 * seconds / (prepared.height * prepared.width), 1)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(seed, json.dumps(result), flush=True)
    return result


if __name__ == "__main__":
    gather(__doc__, one_split, settings={"radius": RADIUS, "width": WIDTH, "rounds": REFINING, "threads": torch.get_num_threads()})
