"""Pre-training on several scenes: one is as it was alone; crops come from all ground alike; what a scene has not plays no part."""

import copy

import numpy as np
import pytest
import torch

from bdgf_fast.data import scene_from_arrays
from bdgf_fast.data.together import prepare_together
from bdgf_fast.diffusion import pretrain as module
from bdgf_fast.diffusion.crops import MOST_HOLDOUTS, Crops
from bdgf_fast.diffusion.pretrain import load_denoiser, pretrain
from bdgf_fast.errors import UserError


def arrays(site, names=("optical", "radar", "height"), rows=slice(None), columns=slice(None)):
    return {name: site.scene.modality(name).read(0, 65, 0, 65)[:, rows, columns] for name in names}


@pytest.fixture
def three(site):
    """Scenes of three sizes; the second has no radar."""
    parts = {"a": arrays(site), "b": arrays(site, ("optical", "height"), slice(5, 50), slice(0, 30)),
             "c": arrays(site, rows=slice(20, 65), columns=slice(15, 65))}  # fmt: skip
    return prepare_together([scene_from_arrays(name, values) for name, values in parts.items()])


def weights(denoiser):
    return list(denoiser.unet.state_dict().values())


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(weights(a), weights(b), strict=True))


def test_one_scene_in_a_list_is_that_scene(site, config):
    a, history = pretrain(site.prepared, config, seed=2)
    b, other = pretrain([site.prepared], config, seed=2)
    assert same(a, b) and history == other


def test_every_crop_of_any_scene_is_drawn_as_often(three, config):
    crops = Crops(three, config.pretrain)
    counts = np.array([len(corners) for corners in crops.corners])
    assert counts.min() > 0 and counts[0] > 2 * counts[2] > 2 * counts[1]
    drawn = crops.draw(np.random.default_rng(0), 6000)
    seen = np.bincount([scene for scene, _, _ in drawn], minlength=3)
    np.testing.assert_allclose(seen / 6000, counts / counts.sum(), atol=0.02)
    for scene, y, x in drawn[:50]:
        window = crops.window((scene, y, x))
        assert torch.equal(window, three[scene].window(y, x, 16, 16))
    assert {h.scene for h in crops.holdouts} == {0, 1, 2} and len(crops.holdouts) <= MOST_HOLDOUTS
    assert crops.absent([0, 1]).tolist() == [[False] * 3, [False, True, False]]


def test_a_missing_modality_is_hidden_and_has_no_loss(three, config, monkeypatch):
    seen, policies = [], []
    step, update = module._step, module.measure_influence

    def watched(denoiser, policy, optimisation, x0, absent, c, seed, number):
        forward = denoiser.unet.forward
        denoiser.unet.forward = lambda x, t, visible=None: (seen.append((x, visible)), forward(x, t, visible))[1]
        losses = step(denoiser, policy, optimisation, x0, absent, c, seed, number)
        denoiser.unet.forward = forward
        seen[-1] = (*seen[-1], absent, losses)
        return losses

    monkeypatch.setattr(module, "_step", watched)
    monkeypatch.setattr(module, "measure_influence", lambda unet, noisy, *a: (policies.append(noisy), update(unet, noisy, *a))[1])
    _, history = pretrain(three, config.override("pretrain.mask_rate=0.9", "pretrain.mask_high=0.9"), seed=0)
    assert any(absent.any() for _, _, absent, _ in seen)
    for x, visible, absent, losses in seen:
        assert not (visible & absent).any() and visible.any(1).all()
        assert (x[:, 3:5][absent[:, 1]] == 0).all() and (losses[absent] == 0).all() and (losses[~absent] > 0).all()
    for noisy in policies:  # the influence is measured on crops that have everything
        assert len(noisy) >= 2 and (noisy.flatten(2).std(2) > 0).all()
    assert set(history["modalities"]) == {"optical", "radar", "height"}
    assert all(np.isfinite(value) for facts in history["modalities"].values() for value in facts.values())


def test_what_a_missing_modality_reads_as_changes_nothing(three, config, monkeypatch):
    a, _ = pretrain(three, config, seed=0)
    load = three[1]._load

    def other(*window):
        block = load(*window)
        block[..., 3:5] = 0.7
        return block

    changed = [three[0], copy.copy(three[1]), three[2]]
    changed[1]._load = other
    changed[1].__dict__.pop("_all", None)
    b, _ = pretrain(changed, config, seed=0)
    assert same(a, b)


def test_resume_gives_the_same_bits(three, config, tmp_path):
    whole, history = pretrain(three, config, seed=1)
    path = tmp_path / "c.safetensors"

    class KillError(Exception):
        pass

    def kill(done, total, facts):
        if done == 6:
            raise KillError

    with pytest.raises(KillError):
        pretrain(three, config, seed=1, checkpoint=path, progress=kill)
    resumed, again = pretrain(three, config, seed=1, checkpoint=path, resume=True)
    assert same(whole, resumed) and same(whole, load_denoiser(path)) and again == history


def test_no_scene_has_everything(site, config):
    scenes = [scene_from_arrays("a", arrays(site, ("optical", "radar"))), scene_from_arrays("b", arrays(site, ("height",)))]
    _, history = pretrain(prepare_together(scenes), config, seed=0)
    facts = history["modalities"]
    assert facts["height"]["hidden_r2"] is None and facts["height"]["visible_r2"] is not None  # nothing to tell it from
    assert facts["radar"]["hidden_r2"] is not None


def test_refusals(three, config, site):
    with pytest.raises(UserError, match='pretrain.region is "train", which is a part of one scene'):
        pretrain(three, config.override("pretrain.region=train"), seed=0)
    small = scene_from_arrays("small", arrays(site, rows=slice(0, 5)))
    with pytest.raises(UserError, match="scene 'small' is 5 x 65 pixels; pre-training needs at least 7 x 7"):
        pretrain(prepare_together([site.scene, small]), config, seed=0)
