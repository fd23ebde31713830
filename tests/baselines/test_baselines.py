"""The baselines do what their sources say, in the method's own loop."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bdgf_fast.baselines import CNN, DUAL, EXCHANGE, FORESTS, GUIDED_FOREST, available, channel_exchange, predict_baseline
from bdgf_fast.baselines.channel_exchange import GAIN, ChannelExchangeNetwork, ExchangeNorm
from bdgf_fast.baselines.dual_denoiser import JoinedFeatures
from bdgf_fast.diffusion.denoiser import Denoiser
from bdgf_fast.features.dense import DiffusionFeatures
from bdgf_fast.features.statistics import SIDES, StatisticsFeatures
from bdgf_fast.network.train import train


@pytest.fixture
def learns(config):
    return config.override("train.epochs=6", "train.crops=12", "train.learning_rate=8e-3", "train.ema=0.9")


def denoiser_of(site, config):
    def make(name):
        part = site.prepared.select([name])
        torch.manual_seed(len(name))
        denoiser = Denoiser.create(part.groups, part.modality_names, config.pretrain)
        denoiser.unet.eval().requires_grad_(False)
        return denoiser

    return make


@pytest.mark.parametrize("name", [*FORESTS, GUIDED_FOREST, CNN, EXCHANGE, DUAL])
def test_every_baseline_learns(site, learns, name):
    rc = site.split.test[::3]
    def features():
        torch.manual_seed(0)
        denoiser = Denoiser.create(site.prepared.groups, site.prepared.modality_names, learns.pretrain)
        denoiser.unet.eval().requires_grad_(False)
        return DiffusionFeatures.fit(denoiser, site.prepared, learns, 0)

    labels = predict_baseline(name, site.prepared, learns, 0, rc, denoiser=denoiser_of(site, learns), features=features)
    truth = site.prepared.labels[rc[:, 0], rc[:, 1]].numpy()
    assert labels.shape == truth.shape
    assert (labels == truth).mean() > 0.55  # three classes


@pytest.mark.parametrize("name", FORESTS)
def test_a_forest_does_not_ask_what_the_network_sees(site, config, name):
    rc = site.split.test[::7]
    with_them, without = (
        predict_baseline(name, site.prepared, config.override(f"model.statistics={on}"), 0, rc, denoiser=None, features=None)
        for on in ("true", "false")
    )
    assert np.array_equal(with_them, without)


def test_fusion_needs_two_modalities(config):
    assert available(2) == [*FORESTS, GUIDED_FOREST, CNN, EXCHANGE, DUAL]
    assert available(1) == [*FORESTS, GUIDED_FOREST, CNN]
    with pytest.raises(ValueError, match="two modalities"):
        ChannelExchangeNetwork((3,), ("a",), 2, config.model)


def test_small_scales_take_the_others_channel():
    norm = ExchangeNorm(3, 6)
    assert (norm.penalised.sum(0) == 1).all() and (norm.penalised.sum(1) == 2).all()  # disjoint, covering
    with torch.no_grad():
        norm.scale.copy_(torch.rand(3, 6) + 0.5)
        norm.bias.normal_()
        norm.scale[0, 0] = 0.001 / GAIN  # its own to give up
        norm.scale[0, 5] = 0.001 / GAIN  # not penalised: kept
    maps = [torch.randn(2, 6, 4, 5, requires_grad=True) for _ in range(3)]
    out = norm(maps)
    plain = [
        F.layer_norm(x.permute(0, 2, 3, 1), (6,), GAIN * s, b).permute(0, 3, 1, 2)
        for x, s, b in zip(maps, norm.scale, norm.bias, strict=True)
    ]
    torch.testing.assert_close(out[0][:, 0], (plain[1][:, 0] + plain[2][:, 0]) / 2, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(out[0][:, 1:], plain[0][:, 1:])
    torch.testing.assert_close(out[1], plain[1])
    out[0][:, 0].sum().backward()
    assert maps[1].grad.abs().sum() > 0


def test_the_penalty_makes_room_for_exchange(site, learns, monkeypatch):
    import sys

    module = sys.modules["bdgf_fast.baselines.channel_exchange"]
    monkeypatch.setattr(module, "THRESHOLD", 0.6)  # reached within a few steps
    monkeypatch.setattr(module, "PENALTY", 0.0)
    kept, _ = channel_exchange(site.prepared, learns, 0)
    monkeypatch.setattr(module, "PENALTY", 0.2)
    given, _ = channel_exchange(site.prepared, learns, 0)
    assert given.exchanged_share() > kept.exchanged_share() + 0.3, (given.exchanged_share(), kept.exchanged_share())


def test_channel_exchange_resumes_to_the_same_bits(site, config, tmp_path):
    whole, _ = channel_exchange(site.prepared, config, 0)

    class KillError(Exception):
        pass

    def kill(done, total, figures):
        if done == total // 2 + 1:
            raise KillError

    path = tmp_path / "c.safetensors"
    with pytest.raises(KillError):
        channel_exchange(site.prepared, config, 0, checkpoint=path, progress=kill)
    again, _ = channel_exchange(site.prepared, config, 0, checkpoint=path, resume=True)
    for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_joined_features_are_side_by_side(site, config):
    make = denoiser_of(site, config)
    sources = [DiffusionFeatures.fit(make(n), site.prepared.select([n]), config, 0) for n in ("optical", "radar")]
    joined = JoinedFeatures(sources)
    rc = torch.tensor([[5, 6], [20, 30]])
    assert joined.channels == tuple(a + b for a, b in zip(sources[0].channels, sources[1].channels, strict=True))
    for level, (a, b) in zip(joined.patches(rc, 7), zip(*(s.patches(rc, 7) for s in sources), strict=True), strict=True):
        assert torch.equal(level, torch.cat([a, b], 1))
    block = joined.block(5, 6, 16, 25, 7)(rc)
    for level, expected in zip(block, joined.patches(rc, 7), strict=True):
        torch.testing.assert_close(level, expected, rtol=1e-4, atol=1e-5)
    network, _ = train(site.prepared, joined, config, seed=0)
    assert network.branches[0].guidance


def test_raw_statistics_are_those_of_the_window(site, config):
    features = StatisticsFeatures(site.prepared, config, 0)
    assert len(features.channels) == len(SIDES)
    raw = features._raw(30, 31, 1, 1)
    for (values, *_), side in zip(raw, SIDES, strict=True):
        window = site.prepared.window(30 - side // 2, 31 - side // 2, side, side).numpy()
        expected = np.concatenate([window.mean((1, 2)), window.std((1, 2))])
        np.testing.assert_allclose(values[0, :, 0, 0].numpy(), expected, rtol=1e-3, atol=1e-4)
    whole = features.tile(0, 0, 65, 65)[0]
    torch.testing.assert_close(features.tile(20, 20, 9, 9)[0], whole[:, 20:29, 20:29], rtol=1e-3, atol=1e-4)
