import pytest
import torch

from bdgf_fast.config import PretrainConfig
from bdgf_fast.diffusion.masking import AdaptiveMasking, channel_mask, make_policy, measure_influence
from bdgf_fast.diffusion.unet import DenoisingUNet


def policy(masking: str, modalities: int = 3, **values):
    return make_policy(PretrainConfig(masking=masking, **values), modalities)


def test_none_hides_nothing():
    assert not policy("none").draw(torch.rand(500, 4)).any()


@pytest.mark.parametrize("masking, rate", [("fixed", 0.25), ("fixed", 0.9), ("fixed", 1.0), ("adaptive", 0.25)])
def test_rates_are_met_and_one_modality_stays(masking, rate):
    torch.manual_seed(0)
    chosen = policy(masking, mask_rate=rate)
    hidden = chosen.draw(torch.rand(40_000, 4, dtype=torch.float64))
    assert not hidden.all(1).any()
    p = chosen.rates()
    expected = p - p.prod() / 3  # all three drawn: one of them, evenly, comes back
    torch.testing.assert_close(hidden.double().mean(0), expected, atol=0.01, rtol=0)


def test_a_lone_modality_is_never_hidden():
    for masking in ("none", "fixed", "adaptive"):
        assert not policy(masking, 1, mask_rate=1.0).draw(torch.rand(100, 2)).any()


def test_adaptive_rule_by_hand():
    chosen = AdaptiveMasking(3, rate=0.25, low=0.05, high=0.6, decay=0.8)
    torch.testing.assert_close(chosen.rates(), torch.full((3,), 0.25, dtype=torch.float64))
    chosen.update(torch.tensor([8.0, 1.0, 1.0]))
    share = 0.8 / 3 + 0.2 * torch.tensor([0.8, 0.1, 0.1], dtype=torch.float64)
    torch.testing.assert_close(chosen.rates(), 0.75 * share)
    for _ in range(100):
        chosen.update(torch.tensor([98.0, 1.0, 1.0]))
    torch.testing.assert_close(chosen.rates(), torch.tensor([0.6, 0.05, 0.05], dtype=torch.float64))
    other = AdaptiveMasking(3, rate=0.25, low=0.05, high=0.6, decay=0.8)
    other.load(chosen.state())
    assert torch.equal(other.rates(), chosen.rates())


def test_influence_finds_the_modality_that_matters():
    torch.manual_seed(0)
    unet = DenoisingUNet((2, 2, 1), (8, 8))
    with torch.no_grad():
        unet.inlet.weight[:, :2] *= 10
        unet.inlet.weight[:, 4] = 0
    noisy, t = torch.randn(4, 5, 12, 12), torch.tensor([1, 50, 100, 200])
    influence = measure_influence(unet, noisy, t, (2, 2, 1))
    assert influence[0] > 3 * influence[1] > 0 and influence[2] == 0
    # swapping everything is the relative change of features of the next sample
    base, other = unet.features(noisy, t), unet.features(noisy.roll(1, 0), t)
    want = sum((a - b).norm().item() / a.norm().item() for a, b in zip(base, other, strict=True)) / 2
    assert measure_influence(unet, noisy, t, (5,)).item() == pytest.approx(want, rel=1e-5)


def test_channel_mask():
    mask = channel_mask(torch.tensor([[True, False], [False, True]]), (2, 3))
    assert mask.tolist() == [[True, True, False, False, False], [False, False, True, True, True]]
