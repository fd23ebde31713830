"""What refining a map is worth, with many labels and with few: `python bench/refine.py SCENE FOLDER [--out JSON]`.

For each split (a seed) and number of labels per class, the default network and extra trees on statistics at several radii give the
class probabilities of the whole scene, which are averaged over similar pixels nearby (`predict.refine`); the test pixels are scored
before and after. FOLDER keeps what is finished, one JSON file per split, and the denoisers and networks; `--out` gathers them. The
settings were chosen on split 0 with 10 labels per class; splits 20 to 25 are reported.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from splits import default_config, gather, prepared_split, trained, whole_map

from bdgf_fast.baselines.forest import EXTRA, RADII, grow
from bdgf_fast.config import Config
from bdgf_fast.network.refine import RADIUS, WIDTH, refine
from bdgf_fast.studies.cells import REFINING

LABELS = (10, 100)


def by_trees(prepared: Any, config: Config, seed: int) -> torch.Tensor:
    """Class probabilities (K, H, W) of the whole scene by extra trees on statistics at several radii."""
    grown = grow(prepared, config=config, kind=RADII, seed=seed, grower=EXTRA)
    every = torch.cartesian_prod(torch.arange(prepared.height), torch.arange(prepared.width))
    found = torch.zeros(len(every), len(prepared.classes))
    found[:, torch.from_numpy(grown.forest.classes_)] = torch.from_numpy(grown.probabilities(prepared, every)).float()
    return found.T.reshape(-1, prepared.height, prepared.width)


def one_split(scene: Any, seed: int, folder: Path) -> dict[str, Any]:
    config, result, seconds = default_config(), {}, 0.0
    for labels in LABELS:
        spec = replace(scene.split_spec, per_class=labels)
        prepared = prepared_split(scene, config, seed, spec)
        stored = "network" if labels == LABELS[-1] else f"network-{labels}"
        network, features, _ = trained(prepared, config, seed, folder, stored)
        maps = {"default": whole_map(network, features, prepared, config), EXTRA: by_trees(prepared, config, seed)}
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
    return result


if __name__ == "__main__":
    settings = {"radius": RADIUS, "width": WIDTH, "rounds": REFINING, "threads": torch.get_num_threads()}
    gather(__doc__, "refine", one_split, settings=settings)
