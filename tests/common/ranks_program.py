"""One rank of test_ranks: trains on a small scene and rank 0 saves the weights."""

import sys

import numpy as np
import torch
import torch.distributed as dist

from bdgf_fast.config import Config
from bdgf_fast.data import SplitSpec, make_split, prepare, scene_from_arrays
from bdgf_fast.diffusion.pretrain import pretrain
from bdgf_fast.network.train import train


def main(rank: int, world: int, store: str, out: str) -> None:
    torch.set_num_threads(1)
    if world > 1:
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    rng = np.random.default_rng(0)
    base = rng.normal(size=(40, 40)).cumsum(0).cumsum(1).astype(np.float32)
    arrays = {"a": np.stack([base, base[::-1]]), "b": base.T[None].copy()}
    labels = 1 + (base > np.median(base)).astype(np.int64)
    spec = SplitSpec(kind="blocks", block=8, train_fraction=0.5, per_class=5)
    scene = scene_from_arrays("ranks", arrays, labels, classes={1: "low", 2: "high"}, split=spec)
    prepared = prepare(scene, make_split(scene, 7, 0))
    config = Config().override(
        "data.patch=7", "pretrain.steps=5", "pretrain.batch=3", "pretrain.crop=12", "pretrain.widths=[8,8]",
        "pretrain.mask_every=2", "features.levels=2", "model.width=8", "model.branches=cnn,transformer", "model.heads=2",
        "model.groups=2", "model.dropout=0.3", "train.epochs=2", "train.batch=3", "train.lambda_similarity=1", "train.ramp=0",
        "train.crops=3", "model.trees=3",
    )  # fmt: skip
    denoiser, history = pretrain(prepared, config, seed=0)
    network, trained = train(prepared, None, config, seed=0)
    over_patches, _ = train(prepared, None, config.override("model.mode=patch"), seed=0)
    if rank == 0:
        rates = [history["mask_rates"][name] for name in "ab"]
        losses = [trained["curves"]["series"]["loss"], history["curves"]["series"]["a"]]
        torch.save([denoiser.unet.state_dict(), network.state_dict(), over_patches.state_dict(), rates, losses], out)
    if world > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4])
