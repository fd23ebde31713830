import numpy as np
import pytest
import torch

from bdgf_fast.common.augmentation import cut, turned
from bdgf_fast.diffusion.denoiser import Denoiser
from bdgf_fast.errors import UserError
from bdgf_fast.features.dense import DiffusionFeatures
from bdgf_fast.files import checkpoint
from bdgf_fast.network.predict import predict, predict_pixels
from bdgf_fast.network.train import load_network, train
from bdgf_fast.report.evaluation import evaluate


@pytest.fixture
def denoiser(site, config):
    torch.manual_seed(0)
    denoiser = Denoiser.create(site.prepared.groups, site.prepared.modality_names, config.pretrain)
    denoiser.unet.eval().requires_grad_(False)
    return denoiser


@pytest.fixture
def features(site, config, denoiser):
    return DiffusionFeatures.fit(denoiser, site.prepared, config, 3)


def equal(a, b) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_resume_gives_the_same_bits(site, config, features, denoiser, tmp_path):
    config = config.override("model.dropout=0.2")
    whole, history = train(site.prepared, features, config, seed=1)
    path = tmp_path / "c.safetensors"

    class KillError(Exception):
        pass

    def kill(done, total, facts):
        if done == total // 2 + 1:
            raise KillError

    with pytest.raises(KillError):
        train(site.prepared, features, config, seed=1, checkpoint=path, progress=kill)
    resumed, resumed_history = train(site.prepared, features, config, seed=1, checkpoint=path, resume=True)
    assert equal(whole, resumed) and history == resumed_history
    network, state, tensors = load_network(path, config)
    restored = DiffusionFeatures.restore(denoiser, site.prepared, config, state, tensors)
    rc = site.split.test[:20]
    a, b = (
        predict_pixels(whole, features, site.prepared, config, rc),
        predict_pixels(network, restored, site.prepared, config, rc),
    )
    assert torch.equal(a.probabilities, b.probabilities)
    with pytest.raises(UserError, match="train.epochs"):
        train(site.prepared, features, config.override("train.epochs=3"), seed=1, checkpoint=path, resume=True)


def test_it_learns_and_the_map_agrees_with_the_pixels(site, config, features):
    config = config.override(
        "model.branches=cnn,transformer", "train.crops=12", "train.epochs=15", "train.learning_rate=5e-3", "train.ema=0.9"
    )
    network, history = train(site.prepared, features, config, seed=0)
    series = history["curves"]["series"]
    assert series["loss"][-1] < 0.8 * series["loss"][0] and len(history["curves"]["step"]) == 15
    figures = evaluate(network, features, site.prepared, config)
    assert figures["overall_accuracy"] > 0.6  # three even classes
    assert set(figures["branches"]) == {"cnn", "transformer", "forest of bands", "forest of bands and guides"}
    assert 0 <= figures["diversity"]["disagreement"] <= 1
    assert figures["diversity"]["any_right"] >= max(figures["branches"].values()) >= figures["diversity"]["all_right"]
    whole = torch.full((3, 65, 65), torch.nan)
    for y, x, block, _ in predict(network, features, site.prepared, config):
        whole[:, y : y + block.shape[1], x : x + block.shape[2]] = block
    torch.testing.assert_close(whole.sum(0), torch.ones(65, 65))
    rc = site.split.test
    pixels = predict_pixels(network, features, site.prepared, config, rc)
    torch.testing.assert_close(whole[:, rc[:, 0], rc[:, 1]].T, pixels.probabilities, rtol=1e-3, atol=1e-5)
    truth = site.prepared.labels[rc[:, 0], rc[:, 1]]
    assert figures["overall_accuracy"] == pytest.approx(
        (pixels.probabilities.argmax(1) == truth).double().mean().item()
    )


def test_without_features_one_branch_and_eight_views(site, config):
    config = config.override("model.branches=[cnn]", "train.epochs=1", "predict.views=8")
    network, history = train(site.prepared, None, config, seed=0)
    assert set(history["curves"]["series"]) == {"loss", "ce"}
    rc = site.split.test[:7]
    averaged = predict_pixels(network, None, site.prepared, config, rc).probabilities
    single = predict_pixels(network, None, site.prepared, config.override("predict.views=1"), rc).probabilities
    torch.testing.assert_close(averaged.sum(1), torch.ones(7))
    assert not torch.allclose(averaged, single)


def test_one_modality(site, config):
    prepared = site.prepared.select(["height"])
    torch.manual_seed(0)
    denoiser = Denoiser.create(prepared.groups, prepared.modality_names, config.pretrain)
    features = DiffusionFeatures.fit(denoiser, prepared, config, 0)
    network, _ = train(prepared, features, config.override("train.epochs=1", "model.branches=[cnn]"), seed=0)
    assert evaluate(network, features, prepared, config, site.split.test[:50])["overall_accuracy"] >= 0


def test_invalid_pixels_get_no_class(site, config):
    config = config.override("model.branches=[cnn]", "train.epochs=1")
    network, _ = train(site.prepared, None, config, seed=0)
    prepared = site.prepared.select(list(site.prepared.modality_names))
    prepared.__dict__["valid"] = site.prepared.valid.clone()
    prepared.valid[3:9, 50:] = False
    for y, x, block, branches in predict(network, None, prepared, config):
        inside = prepared.valid[y : y + block.shape[1], x : x + block.shape[2]]
        assert (block[:, ~inside] == 0).all() and torch.allclose(block.sum(0)[inside], torch.ones(int(inside.sum())))
        assert ((branches["cnn"] == -1) == ~inside).all()


def test_no_training_pixel(site, config):
    import dataclasses

    empty = dataclasses.replace(site.split, train=torch.empty(0, 2, dtype=torch.int64))
    with pytest.raises(UserError, match="no training pixel"):
        train(site.prepared, None, config, seed=0, split=empty)


def test_predictions_do_not_depend_on_the_blocks(site, config, features):
    network, _ = train(site.prepared, features, config.override("train.epochs=1", "model.branches=[cnn]"), seed=0)
    rc = torch.from_numpy(np.random.default_rng(0).integers(0, 65, (40, 2)))
    a = predict_pixels(network, features, site.prepared, config, rc).probabilities
    b = predict_pixels(
        network, features, site.prepared, config.override("predict.block=64", "predict.batch=7"), rc
    ).probabilities
    torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_parts_of_a_batch_give_its_gradient(site, config, features):
    config = config.override("train.lambda_similarity=0", "model.dropout=0.3", "train.epochs=1")
    whole, _ = train(site.prepared, features, config, seed=0)
    parts, _ = train(site.prepared, features, config.override("train.accumulate=3"), seed=0)
    for (name, a), b in zip(whole.named_parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4, msg=lambda text, name=name: f"{name}: {text}")


def test_bfloat16_stays_close(site, config, features):
    _, single = train(site.prepared, features, config, seed=0)
    _, half = train(site.prepared, features, config.override("train.precision=bfloat16"), seed=0)
    for name, values in single["curves"]["series"].items():
        assert half["curves"]["series"][name] == pytest.approx(values, rel=0.1, abs=0.02)
    assert half["curves"]["series"]["ce"] != single["curves"]["series"]["ce"]


def test_patience_stops_by_the_validation_part_and_resumes(site, config, tmp_path):
    from bdgf_fast.data import SplitSpec, make_split, prepare

    scene = site.scene
    before, scene.split_spec = scene.split_spec, SplitSpec(kind="blocks", block=8, train_fraction=0.4, per_class=20, val_blocks=0.3)
    try:
        split = make_split(scene, 7, 0)
        prepared = prepare(scene, split)
    finally:
        scene.split_spec = before
    config = config.override("model.branches=[cnn]", "train.epochs=30", "train.patience=2", "train.learning_rate=0.03")
    path = tmp_path / "c.safetensors"
    whole, history = train(prepared, None, config, seed=0, checkpoint=path)
    assert len(history["curves"]["step"]) < 30
    network, _, _ = load_network(path, config)
    assert equal(whole, network)
    again, same = train(prepared, None, config, seed=0, checkpoint=path, resume=True)
    assert equal(whole, again) and same == history
    longer, _ = train(prepared, None, config.override("train.patience=0"), seed=0)
    assert not equal(whole, longer)


def test_a_network_of_another_version_is_refused(site, config, tmp_path):
    path = tmp_path / "c.safetensors"
    train(site.prepared, None, config.override("train.epochs=1", "model.branches=[cnn]"), seed=0, checkpoint=path)
    tensors, meta = checkpoint.load(path, "train")
    checkpoint.save(path, "train", {k: v for k, v in tensors.items() if not k.endswith("classify.bias")}, meta)
    with pytest.raises(UserError, match="c.safetensors holds a network that this version"):
        load_network(path, config)
    facts = {k: v for k, v in meta["run"]["network"].items() if k != "groups"}  # as an older version wrote it
    checkpoint.save(path, "train", tensors, {**meta, "run": {**meta["run"], "network": facts}})
    with pytest.raises(UserError, match="does not build; train again"):
        load_network(path, config)


@pytest.mark.parametrize("patch", [7, 8])
def test_the_labelled_pixel_stays_in_its_place(patch):
    squares = torch.zeros(2, 1, cut(patch), cut(patch))
    squares[:, :, patch // 2, patch // 2] = 1
    for which in range(8):
        patches = turned(squares, which, patch)
        assert patches.shape == (2, 1, patch, patch) and patches[:, :, patch // 2, patch // 2].all() and patches.sum() == 2
