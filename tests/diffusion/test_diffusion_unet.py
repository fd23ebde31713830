import pytest
import torch
from torch.autograd import gradcheck

from bdgf_fast.common.layers import PixelNorm
from bdgf_fast.diffusion.unet import DenoisingUNet, to_pixel_grid


def make(groups=(3, 2), widths=(8, 12, 16)) -> DenoisingUNet:
    torch.manual_seed(0)
    unet = DenoisingUNet(groups, widths)
    torch.nn.init.normal_(unet.outlet.weight, std=0.1)  # zero at the start: everything would pass
    for module in unet.modules():
        if hasattr(module, "conv2"):
            torch.nn.init.normal_(module.conv2.weight, std=0.1)
    return unet


@pytest.mark.parametrize("height", range(7, 17))
@pytest.mark.parametrize("width", [7, 10, 16])
def test_every_size(height, width):
    unet = make()
    x, t = torch.randn(2, 5, height, width), torch.tensor([3, 700])
    maps = unet.features(x, t)
    assert [tuple(m.shape[2:]) for m in maps] == [(-(-height // s), -(-width // s)) for s in (4, 2, 1)]
    out = unet(x, t)
    assert out.shape == x.shape and out.isfinite().all()


def test_gradients_reach_every_parameter():
    unet = make()
    unet(
        torch.randn(2, 5, 9, 12), torch.tensor([3, 700]), torch.tensor([[True, False], [True, True]])
    ).square().sum().backward()
    assert [name for name, p in unet.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_a_sample_does_not_depend_on_its_batch():
    unet, x = make().double(), torch.randn(5, 5, 11, 11, dtype=torch.float64)
    t, visible = torch.tensor([0, 10, 100, 500, 999]), torch.rand(5, 2) > 0.3
    whole = unet(x, t, visible)
    for i in range(5):
        torch.testing.assert_close(
            unet(x[i : i + 1], t[i : i + 1], visible[i : i + 1])[0], whole[i], rtol=1e-12, atol=1e-12
        )


def test_visibility_and_time_matter():
    unet, x, t = make(), torch.randn(1, 5, 9, 9), torch.tensor([5])
    base = unet(x, t)
    assert (unet(x, t, torch.tensor([[True, False]])) - base).abs().max() > 1e-4
    assert (unet(x, torch.tensor([600])) - base).abs().max() > 1e-4
    torch.testing.assert_close(unet(x, t, torch.tensor([[True, True]])), base)


def test_no_block_behind_the_last_level_runs():
    unet, x, t = make(), torch.randn(1, 5, 12, 12), torch.tensor([5])
    ran = []
    for level, blocks in enumerate(unet.decoder):
        blocks[0].register_forward_hook(lambda *_, level=level: ran.append(level))
    unet.outlet.register_forward_hook(lambda *_: ran.append("outlet"))
    maps = unet.features(x, t, levels=2)
    assert len(maps) == 2 and ran == [2, 1]
    for a, b in zip(maps, unet.features(x, t), strict=False):
        assert torch.equal(a, b)


def test_receptive_radius_is_a_bound_and_is_nearly_reached():
    unet = make((2,), (6, 6, 6)).double()
    radius = unet.receptive_radius()
    size = 2 * radius + 21
    # shifts of the changed pixel cover every position on the coarse grid
    reached = 0
    for shift in range(4):
        x = torch.randn(1, 2, size, size, dtype=torch.float64)
        y = x.clone()
        c = size // 2 + shift
        y[:, :, c, c] += 10
        t = torch.tensor([50])
        for a, b, s in zip(unet.features(x, t), unet.features(y, t), (4, 2, 1), strict=True):
            change = (to_pixel_grid(a, s, size, size) - to_pixel_grid(b, s, size, size))[0].abs().sum(0)
            rows = change.sum(1).nonzero().squeeze(1)
            distance = int((rows - c).abs().max())
            assert distance <= radius
            reached = max(reached, distance)
    assert reached >= radius - 4


def test_to_pixel_grid_is_exact_on_planes():
    coarse = torch.arange(5.0)[:, None] * 4 * 2 + torch.arange(4.0)[None] * 4 * 3
    fine = to_pixel_grid(coarse[None, None], 4, 17, 13)[0, 0]
    torch.testing.assert_close(fine, torch.arange(17.0)[:, None] * 2 + torch.arange(13.0)[None] * 3)
    held = to_pixel_grid(coarse[None, None], 4, 20, 13)[0, 0]
    assert torch.equal(held[17:], held[16:17].expand(3, -1))


def test_pixel_norm():
    norm = PixelNorm(6).double()
    x = torch.randn(2, 6, 3, 4, dtype=torch.float64, requires_grad=True)
    y = norm(x)
    torch.testing.assert_close(y.mean(1), torch.zeros(2, 3, 4, dtype=torch.float64), atol=1e-10, rtol=0)
    torch.testing.assert_close(y.var(1, unbiased=False), torch.ones(2, 3, 4, dtype=torch.float64), atol=1e-3, rtol=0)
    assert gradcheck(norm, (x,))


def test_wrong_channels_are_named():
    with pytest.raises(ValueError, match="4 channels.*made for 5"):
        make()(torch.randn(1, 4, 8, 8), torch.tensor([0]))
