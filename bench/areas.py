"""Class areas and calibration against labels: `python bench/areas.py SCENE FOLDER [--out JSON]`.

For each split (a seed) the default network is trained and calibrated, and the scene's labelled pixels outside the training blocks
are predicted. Compared are the true class shares there with those counted in the map, expected by its probabilities, estimated by
expectation-maximisation (with the temperature alone, and with the classes' biases, which is `predict.priors = "scene"`), and
counted in the map under the estimated shares. FOLDER keeps what is finished, one JSON file per split, and checkpoints from which
a killed split goes on; `--out` gathers them. Everything was chosen on splits 0 to 2; splits 20 to 25 are reported.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from splits import default_config, gather, prepared_split, trained, whole_map

from bdgf_fast.network.priors import confidences, settle_priors
from bdgf_fast.report.metrics import METRICS, scores
from bdgf_fast.report.reliability import calibration_report


def one_split(scene: Any, seed: int, folder: Path) -> dict[str, Any]:
    config = default_config()
    prepared = prepared_split(scene, config, seed)
    split, names = prepared.split, [info.name for info in prepared.classes]
    network, features, seconds = trained(prepared, config, seed, folder)
    said = whole_map(network, features, prepared, config).numpy()
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
    return {
        "temperature": network.calibration.temperature, "labels": network.calibration.pixels,
        "seconds": seconds,
        "shares": {name: dict(zip(names, map(float, values), strict=True)) for name, values in found.items()},
        "area_error": {name: float(np.abs(values - found["true"]).sum() / 2) for name, values in found.items() if name != "true"},
        "accuracy": {priors: {key: scores(truth, labels, len(names))[key] for key in METRICS}
                     for priors, labels in (("train", confidence["label"]), ("scene", under))},
        "expected_calibration_error": {name: entry["expected_calibration_error"] for name, entry in reliability.items()},
    }  # fmt: skip


if __name__ == "__main__":
    gather(__doc__, "areas", one_split)
