import numpy as np
import pytest
import torch

from bdgf_fast.common.augmentation import dihedral
from bdgf_fast.diffusion.crops import Crops, box_sum, mostly
from bdgf_fast.diffusion.pretrain import load_denoiser, pretrain
from bdgf_fast.errors import UserError


def weights(denoiser) -> dict[str, torch.Tensor]:
    return denoiser.unet.state_dict()


def equal(a, b) -> bool:
    return all(torch.equal(x, y) for x, y in zip(weights(a).values(), weights(b).values(), strict=True))


@pytest.mark.parametrize("masking", ["none", "fixed", "adaptive"])
@pytest.mark.parametrize("prediction", ["sample", "epsilon", "v_prediction"])
def test_every_policy_and_prediction_runs_and_reports(site, config, masking, prediction):
    config = config.override(
        f"pretrain.masking={masking}",
        f"pretrain.prediction={prediction}",
        "pretrain.steps=3",
        "pretrain.mask_fill=noise",
        "pretrain.schedule=cosine",
        "pretrain.min_snr_gamma=5",
    )
    seen = []
    denoiser, history = pretrain(site.prepared, config, seed=1, progress=lambda *a: seen.append(a))
    assert [a[0] for a in seen] == [1, 2, 3] and all(np.isfinite(a[2]["loss"]) for a in seen)
    assert set(history["modalities"]) == {"optical", "radar", "height"}
    for facts in history["modalities"].values():
        assert all(np.isfinite(v) for v in facts.values())
        assert (facts["mask_rate"] == 0) == (masking == "none")
    assert 0 < history["balance"] <= 1
    assert all(len(v) == len(history["curves"]["step"]) == 3 for v in history["curves"]["series"].values())


@pytest.mark.parametrize("steps", [4, 8])
def test_resume_gives_the_same_bits(site, config, tmp_path, steps):
    whole, history = pretrain(site.prepared, config, seed=1)
    path = tmp_path / "c.safetensors"

    class KillError(Exception):
        pass

    def kill(done, total, facts):
        if done == steps + 1 or done == total:
            raise KillError

    with pytest.raises(KillError):
        pretrain(site.prepared, config, seed=1, checkpoint=path, progress=kill)
    resumed, resumed_history = pretrain(site.prepared, config, seed=1, checkpoint=path, resume=True)
    assert equal(whole, resumed) and history == resumed_history
    assert equal(whole, load_denoiser(path))
    again, again_history = pretrain(
        site.prepared, config, seed=1, checkpoint=path, resume=True
    )  # finished: nothing to do
    assert equal(whole, again) and again_history == history
    with pytest.raises(UserError, match="seed = 1, this run has 2"):
        pretrain(site.prepared, config, seed=2, checkpoint=path, resume=True)


def test_seed_decides(site, config):
    config = config.override("pretrain.steps=2")
    a, b, c = (pretrain(site.prepared, config, seed=s)[0] for s in (1, 1, 2))
    assert equal(a, b) and not equal(a, c)


def test_one_modality(site, config):
    denoiser, history = pretrain(site.prepared.select(["radar"]), config.override("pretrain.steps=2"), seed=0)
    assert denoiser.groups == (2,) and history["balance"] is None
    assert history["modalities"]["radar"]["hidden_r2"] is None and history["modalities"]["radar"]["mask_rate"] == 0


def test_zero_steps_is_an_untrained_control(site, config, tmp_path):
    denoiser, history = pretrain(site.prepared, config.override("pretrain.steps=0"), seed=0, checkpoint=tmp_path / "c")
    assert equal(denoiser, load_denoiser(tmp_path / "c")) and history["curves"]["step"] == []


def test_hidden_modalities_are_inferred_on_held_out_squares(site, config):
    config = config.override(
        "pretrain.steps=250",
        "pretrain.batch=8",
        "pretrain.learning_rate=4e-3",
        "pretrain.ema=0.95",
        "pretrain.mask_every=50",
        "pretrain.mask_rate=0.35",
    )
    _, history = pretrain(site.prepared, config, seed=0)
    for name, facts in history["modalities"].items():
        assert facts["visible_r2"] > 0.3, (name, facts)
        assert facts["hidden_r2"] > 0.1, (name, facts)


def test_held_out_squares_are_never_touched(site, config):
    crops = Crops([site.prepared], config.pretrain)
    assert crops.holdouts
    seen = np.zeros((site.prepared.height, site.prepared.width), bool)
    for y, x in crops.corners[0]:
        seen[y : y + crops.size, x : x + crops.size] = True
    for h in crops.holdouts:
        rows, columns = range(*h.rows.indices(crops.size)), range(*h.columns.indices(crops.size))
        assert len(rows) == len(columns) == crops.size // 2
        assert not seen[
            h.crop[0] + rows.start : h.crop[0] + rows.stop, h.crop[1] + columns.start : h.crop[1] + columns.stop
        ].any()


def test_region_train_keeps_centres_inside(site, config):
    region = site.split.train_region
    crops = Crops([site.prepared], config.pretrain, region)
    half = crops.size // 2
    assert all(region[y + half, x + half] for _, y, x in crops.draw(np.random.default_rng(0), 200))
    pretrain(site.prepared, config.override("pretrain.steps=1", "pretrain.region=train"), seed=0)


def test_box_sum_and_dihedral():
    mask = np.random.default_rng(0).random((7, 9)) > 0.5
    sums = box_sum(mask, 3)
    assert sums.shape == (5, 7) and sums[2, 4] == mask[2:5, 4:7].sum()
    tall = np.random.default_rng(1).random((2500, 9)) > 0.5  # summed strip by strip
    np.testing.assert_array_equal(mostly(tall, 4), 2 * box_sum(tall, 4) >= 16)
    x = torch.arange(12.0).view(1, 3, 4)[:, :, :3].contiguous()
    views = [dihedral(x, k) for k in range(8)]
    assert torch.equal(views[0], x) and len({tuple(v.flatten().tolist()) for v in views}) == 8
