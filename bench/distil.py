"""A distilled student beside its teacher: `python bench/distil.py SCENE FOLDER [--out JSON]`.

For each split (a seed) the default network is trained and calibrated; a student learns from its probabilities (`bdgf-fast distil`
with the student's default settings), and both classify the test pixels. The cost of a pixel is that of a whole map, features
included. FOLDER keeps what is finished, one JSON file per split, and the denoisers and teachers, so that a killed split goes on;
`--out` gathers them. The student's settings were chosen on splits 0 to 2; splits 20 to 25 are reported.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from splits import default_config, gather, prepared_split, trained

from bdgf_fast.config import Config
from bdgf_fast.network.distil import student_config, unlabelled
from bdgf_fast.network.predict import predict, predict_pixels
from bdgf_fast.network.train import train
from bdgf_fast.report.evaluation import predicted_labels, score
from bdgf_fast.report.metrics import METRICS


def seconds_of_map(network: Any, features: Any, prepared: Any, config: Config) -> float:
    """Processor seconds of a whole map: on a shared machine they say more than the time that passes."""
    start = time.process_time()
    for _ in predict(network, features, prepared, config):
        pass
    return time.process_time() - start


def one_split(scene: Any, seed: int, folder: Path) -> dict[str, Any]:
    config = default_config()
    prepared = prepared_split(scene, config, seed)
    teacher, features, _ = trained(prepared, config, seed, folder)

    small = student_config(config)
    start = time.perf_counter()
    lessons = unlabelled(prepared, prepared.split.test, small.features.fit_pixels, seed)
    said = predict_pixels(teacher, features, prepared, config, lessons).probabilities
    student, _ = train(prepared, None, small, seed=seed, split=replace(prepared.split, train=lessons), targets=said)
    seconds = time.perf_counter() - start

    test = torch.as_tensor(prepared.split.test)
    members = {"teacher": (teacher, features, config), "student": (student, None, small)}
    labels = {name: predicted_labels(predict_pixels(net, own, prepared, c, test)) for name, (net, own, c) in members.items()}
    pixels = prepared.height * prepared.width
    result: dict[str, Any] = {
        name: {
            **{key: score(prepared, test, labels[name])[key] for key in METRICS},
            "microseconds_per_pixel": round(1e6 * seconds_of_map(net, own, prepared, c) / pixels, 1),
        }
        for name, (net, own, c) in members.items()
    }
    result["agreement"] = float((labels["teacher"]["fused"] == labels["student"]["fused"]).mean())
    result["lessons"], result["seconds"] = len(lessons), round(seconds, 1)
    return result


if __name__ == "__main__":
    gather(__doc__, "distil", one_split, settings={"threads": torch.get_num_threads()})
