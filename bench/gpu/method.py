"""The whole method on one device: pre-training, features, training, map; and the map of the same networks on the CPU.

    python bench/gpu/method.py [--side N] [--quick]

Times are of a synthetic scene at the default configuration, the training with the kernels and with the reference in their
place. The map on the GPU must be the CPU's within rounding: an operation that reads another device's tensor shows here.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

import torch

from bdgf_fast import backends
from bdgf_fast.config import Config
from bdgf_fast.data import make_split, prepare
from bdgf_fast.data.synthetic import synthetic_scene
from bdgf_fast.diffusion.pretrain import pretrain
from bdgf_fast.features import DiffusionFeatures
from bdgf_fast.network import predict_pixels, train

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Clock:
    """Seconds by name; `every` counts the steps that a progress callback reports."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def __call__(self, name: str, call, count: int = 1):
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        result = call()
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        self.seconds[name] = (time.perf_counter() - start) / count
        print(f"{name}: {1e3 * self.seconds[name]:.4g} ms", flush=True)
        return result


class Steps:
    """A progress callback that takes the time of each step after the first ones."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(self, done: int, whole: int, values: dict) -> None:
        self.times.append(time.perf_counter())

    def median(self) -> float:
        gaps = sorted(b - a for a, b in zip(self.times[3:], self.times[4:], strict=False))
        return gaps[len(gaps) // 2] if gaps else float("nan")


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--side", type=int, default=256, help="pixels of the scene's side")
    arguments.add_argument("--quick", action="store_true", help="a few steps of each stage, to see every line run")
    args = arguments.parse_args()
    few = ("pretrain.steps=3", "train.epochs=1", "train.most_steps=6", "model.trees=5") if args.quick else ("pretrain.steps=200",)
    config, clock = Config().override(*few), Clock()
    scene = synthetic_scene(0, (args.side, args.side))
    prepared = prepare(scene, make_split(scene, patch=config.data.patch, seed=0))
    steps = Steps()
    denoiser, _ = pretrain(prepared, config, seed=0, device=DEVICE, progress=steps)
    clock.seconds["pre-training step"] = steps.median()
    denoiser.unet.eval().requires_grad_(False)
    features = DiffusionFeatures.fit(denoiser, prepared, config, 0)
    found = {}
    for name, backend in (("kernels", None), ("reference", "reference"))[: 1 if args.quick else 2]:
        steps = Steps()
        short = config if backend is None else config.override("train.most_steps=8", "train.epochs=2", "model.trees=5")
        with backends.use_backend(backend):
            torch.cuda.reset_peak_memory_stats() if DEVICE == "cuda" else None
            found[name], _ = train(prepared, features, short, seed=0, device=DEVICE, progress=steps)
        clock.seconds[f"training step, {name}"] = steps.median()
        clock.seconds[f"training MiB, {name}"] = torch.cuda.max_memory_allocated() / 2**20 if DEVICE == "cuda" else 0.0
    network, every = found["kernels"], torch.cartesian_prod(torch.arange(args.side), torch.arange(args.side))
    for short in ("float32", "bfloat16"):
        chosen = config.override(f"predict.precision={short}")
        for _ in range(2):
            there = clock(f"pixel of a map, {short}", lambda c=chosen: predict_pixels(network, features, prepared, c, every),
                          args.side**2)  # fmt: skip
        if short == "float32":
            exact = there.probabilities.cpu()
        else:
            print("bfloat16 beside float32:", (there.probabilities.cpu() - exact).abs().max().item())
    truth = prepared.labels.flatten()
    known = truth >= 0
    accuracy = (exact.argmax(1)[known] == truth[known]).double().mean().item()
    if DEVICE == "cuda":
        print("peak MiB", torch.cuda.max_memory_allocated() / 2**20)
        denoiser.to("cpu")
        network.to("cpu")
        features = DiffusionFeatures.restore(denoiser, prepared, config, features.state(),
                                             {k: v.cpu() for k, v in features.tensors().items()})  # fmt: skip
        some = every[:: max(1, len(every) // 4096)]
        here = predict_pixels(network, features, prepared, config, some).probabilities
        error = (here - exact[:: max(1, len(every) // 4096)]).abs().max().item()
        print(f"the map on the GPU beside the CPU's: largest difference of a probability {error:.1e}")
        clock.seconds["largest difference to the CPU's map"] = error
    facts = {"device": torch.cuda.get_device_name() if DEVICE == "cuda" else "cpu", "torch": torch.__version__, "side": args.side,
             "accuracy on all labels": accuracy, **clock.seconds}  # fmt: skip
    print(json.dumps(facts, indent=1))
    if DEVICE == "cuda" and not args.quick:
        name = torch.cuda.get_device_name().lower().replace(" ", "-")
        for folder in filter(None, (Path(__file__).parents[1] / "results", os.environ.get("RESULTS"))):
            (Path(folder) / f"{name}-method.json").write_text(json.dumps(facts, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
