import numpy as np
import pytest
import torch

from bdgf_fast.diffusion.denoiser import Denoiser
from bdgf_fast.features.dense import DiffusionFeatures


@pytest.fixture
def denoiser(site, config):
    torch.manual_seed(0)
    denoiser = Denoiser.create(site.prepared.groups, site.prepared.modality_names, config.pretrain)
    for module in denoiser.unet.modules():
        if hasattr(module, "conv2"):
            torch.nn.init.normal_(module.conv2.weight, std=0.1)
    denoiser.unet.eval().requires_grad_(False)
    return denoiser


def fit(denoiser, site, config, **changes):
    return DiffusionFeatures.fit(
        denoiser, site.prepared, config.override(*(f"features.{k}={v}" for k, v in changes.items())), 3
    )


@pytest.mark.parametrize("pca", ["joint", "level"])
def test_seams_agree(site, config, denoiser, pca):
    features = fit(denoiser, site, config, pca=pca)
    whole = features.tile(0, 0, 65, 65)
    assert len(whole) == len(features.channels) == (1 if pca == "joint" else 3)
    # odd origins and sizes, far smaller than the scene
    for y, x, h, w in ((0, 0, 20, 20), (20, 11, 13, 30), (43, 38, 22, 27), (64, 64, 1, 1)):
        for part, full in zip(features.tile(y, x, h, w), whole, strict=True):
            torch.testing.assert_close(part, full[:, y : y + h, x : x + w], rtol=1e-5, atol=1e-5)


def test_the_margin_covers_what_the_network_sees(site, config):
    cases = (([8, 12, 16], 1, 3, 35), ([8, 12, 16], 2, 3, 63), ([8, 8, 8, 8], 1, 4, 75), ([8, 8], 1, 1, 0))
    for widths, blocks, levels, least in cases:
        torch.manual_seed(0)
        changed = config.override(f"pretrain.widths={widths}", f"pretrain.blocks={blocks}", f"features.levels={levels}")
        deep = Denoiser.create(site.prepared.groups, site.prepared.modality_names, changed.pretrain)
        deep.unet.eval().requires_grad_(False)
        features = DiffusionFeatures.fit(deep, site.prepared, changed, 3)
        assert features.margin >= max(least, deep.unet.receptive_radius(levels))
        whole = features.tile(0, 0, 65, 65)[-1]
        torch.testing.assert_close(features.tile(50, 3, 9, 9)[-1], whole[:, 50:59, 3:12], rtol=1e-5, atol=1e-5)


def test_too_small_a_margin_shows_at_seams(site, config, denoiser, monkeypatch):
    # the tests above can fail: without a halo tiles disagree
    monkeypatch.setattr(DiffusionFeatures, "margin", 0)
    features = fit(denoiser, site, config)
    change = features.tile(20, 20, 20, 20)[0] - features.tile(0, 0, 65, 65)[0][:, 20:40, 20:40]
    assert change.abs().max() > 1e-2


@pytest.mark.parametrize("pca", ["joint", "level"])
def test_projection_is_fitted_on_the_training_side(site, config, denoiser, pca):
    config = config.override(f"features.pca={pca}")
    features = fit(denoiser, site, config)
    other = DiffusionFeatures.fit(denoiser, site.prepared, config, 3, region=np.ones((65, 65), bool))
    assert not torch.equal(features.projection[0], other.projection[0])
    region = torch.from_numpy(site.split.train_region)
    variances = []
    for level in features.tile(0, 0, 65, 65):
        values = level[:, region].double()
        torch.testing.assert_close(values.mean(1), torch.zeros(len(values)).double(), atol=1e-4, rtol=0)
        covariance = values @ values.T / values.shape[1]
        variance = covariance.diagonal()
        assert (covariance - variance.diag()).abs().max() < 1e-3  # principal components
        assert (variance.diff() < 1e-6).all() and variance[0] > 1.5 * variance[-1]
        variances.append(variance)
    assert len(variances) == (1 if pca == "joint" else config.features.levels)
    assert torch.cat(variances).mean().item() == pytest.approx(1, abs=1e-3)  # one common factor


def test_fit_does_not_depend_on_the_tiles(site, config, denoiser):
    a, b = fit(denoiser, site, config, tile=64), fit(denoiser, site, config, tile=20)
    torch.testing.assert_close(a.tile(5, 5, 9, 9)[0], b.tile(5, 5, 9, 9)[0], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("mode", ["dense", "patch"])
@pytest.mark.parametrize("size", [7, 8])
def test_patches_blocks_and_restored_features(site, config, denoiser, mode, size):
    config = config.override("model.mode=patch", f"features.mode={mode}")
    features = DiffusionFeatures.fit(denoiser, site.prepared, config, 3)
    rc = torch.tensor([[0, 0], [64, 64], [30, 40], [33, 2], [0, 64]])
    patches = features.patches(rc, size)
    assert [p.shape for p in patches] == [(5, c, size, size) for c in features.channels]
    block = features.block(0, 0, 65, 65, size)(rc)
    restored = DiffusionFeatures.restore(denoiser, site.prepared, config, features.state(), features.tensors())
    for a, b, c in zip(patches, block, restored.patches(rc, size), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
        assert torch.equal(a, c)
    if mode == "dense":
        before = size // 2
        r, c = rc[2].tolist()
        torch.testing.assert_close(
            patches[0][2], features.tile(r - before, c - before, size, size)[0], rtol=1e-4, atol=1e-5
        )
        corner = features.tile(0, 0, 9, 9)[0]  # mirrored past the edge, as the bands are
        torch.testing.assert_close(patches[0][0][:, before - 1, before], corner[:, 1, 0], rtol=1e-4, atol=1e-5)
    else:
        with pytest.raises(ValueError, match="dense"):
            features.tile(0, 0, 8, 8)


@pytest.mark.parametrize("mode", ["dense", "patch"])
def test_noise_free_input_is_the_signal_alone(site, config, denoiser, mode):
    """The denoiser sees sqrt(abar_t) x0: no seed enters, and the mean over many noises of x_t is approached."""
    config = config.override("model.mode=patch", f"features.mode={mode}")
    seen = []
    whole = denoiser.unet.features
    denoiser.unet.features = lambda x, t, visible=None, **_: seen.append((x, t)) or whole(x, t)
    rc = torch.tensor([[5, 9]])
    inputs = {}
    for noise, seed in (("drawn", 3), ("drawn", 4), ("none", 3), ("none", 4)):
        changed = config.override(f"features.noise={noise}")
        features = DiffusionFeatures.fit(denoiser, site.prepared, changed, seed)
        seen.clear()
        features.patches(rc, 8)
        inputs[noise, seed] = seen[0]
    assert not torch.equal(inputs["drawn", 3][0], inputs["drawn", 4][0])
    x, t = inputs["none", 3]
    assert torch.equal(x, inputs["none", 4][0]) and t.tolist() == config.features.timesteps
    abar = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64).neg().add(1).cumprod(0)[t]
    if mode == "patch":
        clean = site.prepared.patches(rc, 8)[0]
        torch.testing.assert_close(x, (abar.sqrt()[:, None, None, None] * clean).float())
    noisy = inputs["drawn", 3][0]
    spread = (noisy - x).flatten(1).std(1).double()
    torch.testing.assert_close(spread, (1 - abar).sqrt(), rtol=0.15, atol=0)


def test_a_denoiser_of_other_modalities_is_refused(site, config, denoiser):
    with pytest.raises(ValueError, match="channels per modality"):
        DiffusionFeatures.fit(denoiser, site.prepared.select(["radar"]), config, 0)
