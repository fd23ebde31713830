"""Class areas and calibration against labels: `python bench/areas.py SCENE FOLDER [--out JSON]`.

For each split (a seed) the default network is trained and calibrated, and the scene's labelled pixels outside the training blocks
are predicted. Compared are the true class shares there with those counted in the map, expected by its probabilities, estimated by
expectation-maximisation (with the temperature alone, and with the classes' biases, which is `predict.priors = "scene"`), and
counted in the map under the estimated shares. FOLDER keeps what is finished, one JSON file per split, and checkpoints from which
a killed split goes on; `--out` gathers them. Everything was chosen on splits 0 to 2; splits 20 to 25 are reported.
"""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from missing_modality import denoiser_of
from splits import gather

from bdgf_fast.config import Config
from bdgf_fast.data import make_split, prepare
from bdgf_fast.features.dense import DiffusionFeatures
from bdgf_fast.network.held_out import calibrate
from bdgf_fast.network.predict import predict
from bdgf_fast.network.priors import confidences, settle_priors
from bdgf_fast.network.reach import reach
from bdgf_fast.network.train import train
from bdgf_fast.report.metrics import METRICS, scores
from bdgf_fast.report.reliability import calibration_report


def one_split(scene: Any, seed: int, folder: Path) -> dict[str, Any]:
    path = folder / f"areas-{seed}.json"
    if path.exists():
        return json.loads(path.read_text())
    config = Config().override("train.checkpoint_every=1")
    prepared = prepare(scene, make_split(scene, patch=config.data.patch, seed=seed, reach=reach(config)))
    split, names = prepared.split, [info.name for info in prepared.classes]
    denoiser = denoiser_of(prepared, config, seed, folder / f"denoiser-{seed}.safetensors")
    features = DiffusionFeatures.fit(denoiser, prepared, config, seed)
    start = time.perf_counter()
    network, _ = train(prepared, features, config, seed=seed, checkpoint=folder / f"network-{seed}.safetensors", resume=True)
    trained = time.perf_counter()
    network.calibration = calibrate(network, features, prepared, config, seed=seed)
    calibrated = time.perf_counter()
    said = np.zeros((len(names), prepared.height, prepared.width), np.float32)
    for y, x, block, _ in predict(network, features, prepared, config):
        said[:, y : y + block.shape[1], x : x + block.shape[2]] = block
    np.savez_compressed(folder / f"areas-{seed}.npz", probabilities=said, test=split.test, region=split.train_region)
    labels = prepared.labels.numpy()
    judge = (labels >= 0) & ~split.train_region
    shape = (prepared.height, prepared.width)
    where = [(0, 0, np.where(judge, said, 0))]
    priors = settle_priors("scene", network.calibration, names, shape, where)
    blind = settle_priors("scene", dataclasses.replace(network.calibration, power=1 / network.calibration.temperature, bias=None),
                          names, shape, where)  # fmt: skip

    def shares(indices: np.ndarray) -> np.ndarray:
        return np.bincount(indices, minlength=len(names)) / len(indices)

    written = priors.correct(said)
    found = {"true": shares(labels[judge]), "counted": shares(said.argmax(0)[judge]), "expected": said[:, judge].mean(1),
             "estimated, temperature alone": blind.estimated, "estimated": priors.estimated,
             "counted under the estimated shares": shares(written.argmax(0)[judge])}  # fmt: skip
    test = tuple(torch.as_tensor(split.test).numpy().T)
    confidence = confidences(said[:, *test], network.calibration, priors)
    truth, under = labels[test], written.argmax(0)[test]
    reliability = calibration_report(truth, under, confidence)
    result = {
        "temperature": network.calibration.temperature, "labels": network.calibration.pixels,
        "seconds": {"train": round(trained - start, 1), "calibrate": round(calibrated - trained, 1)},
        "shares": {name: dict(zip(names, map(float, values), strict=True)) for name, values in found.items()},
        "area_error": {name: float(np.abs(values - found["true"]).sum() / 2) for name, values in found.items() if name != "true"},
        "accuracy": {priors: {key: scores(truth, labels, len(names))[key] for key in METRICS}
                     for priors, labels in (("train", confidence["label"]), ("scene", under))},
        "expected_calibration_error": {name: entry["expected_calibration_error"] for name, entry in reliability.items()},
    }  # fmt: skip
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(seed, json.dumps({name: value for name, value in result.items() if name != "shares"}), flush=True)
    return result


if __name__ == "__main__":
    gather(__doc__, one_split)
