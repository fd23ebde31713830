"""Class probabilities averaged over similar pixels nearby: a case by hand, edges, missing values, and blocks."""

import math

import pytest
import torch

from bdgf_fast.network.predict import predict, predict_pixels
from bdgf_fast.network.refine import RADIUS, WIDTH, refine
from bdgf_fast.network.train import train


def brute_force(probabilities, bands, rounds):
    """The same pixel by pixel, in float64."""
    p, x = probabilities.double(), bands.double()
    _, h, w = p.shape
    for _ in range(rounds):
        after = torch.zeros_like(p)
        for i in range(h):
            for j in range(w):
                if not p[:, i, j].any():
                    continue
                total = 0.0
                for k in range(max(i - RADIUS, 0), min(i + RADIUS + 1, h)):
                    for m in range(max(j - RADIUS, 0), min(j + RADIUS + 1, w)):
                        if p[:, k, m].any():
                            weight = math.exp(-float(((x[:, i, j] - x[:, k, m]) ** 2).mean()) / (2 * WIDTH**2))
                            after[:, i, j] += weight * p[:, k, m]
                            total += weight
                after[:, i, j] /= total
        p = after
    return p


def test_against_the_definition():
    torch.manual_seed(0)
    p, x = torch.rand(3, 7, 11).softmax(0), torch.randn(2, 7, 11) * WIDTH
    p[:, 2, 3:6] = 0
    found = refine(p, x, 2)
    torch.testing.assert_close(found.double(), brute_force(p, x, 2), rtol=1e-5, atol=1e-6)
    assert not found[:, 2, 3:6].any()
    there = found.any(0)
    torch.testing.assert_close(found.sum(0)[there], torch.ones(int(there.sum())))


def test_speckle_goes_and_edges_stay():
    x = torch.zeros(1, 20, 20)
    x[:, :, 10:] = 10 * WIDTH  # two fields
    p = torch.tensor([0.9, 0.1])[:, None, None].repeat(1, 20, 20)
    p[:, :, 10:] = torch.tensor([0.1, 0.9])[:, None, None]
    p[:, 5, 5] = torch.tensor([0.2, 0.8])  # one wrong pixel
    label = refine(p, x, 3).argmax(0)
    assert (label[:, :10] == 0).all() and (label[:, 10:] == 1).all()


def test_no_rounds_leave_the_probabilities():
    p = torch.rand(2, 5, 5)
    assert torch.equal(refine(p, torch.rand(3, 5, 5), 0), p)


@pytest.mark.parametrize("mode", ["dense", "patch"])
def test_maps_and_pixels_agree_whatever_the_blocks(site, config, mode):
    config = config.override("train.epochs=1", f"model.mode={mode}")
    network, _ = train(site.prepared, None, config, seed=0)
    shape = (site.prepared.height, site.prepared.width)

    def mapped(*settings):
        whole = torch.zeros(3, *shape)
        for y, x, part, _ in predict(network, None, site.prepared, config.override(*settings)):
            whole[:, y : y + part.shape[1], x : x + part.shape[2]] = part
        return whole

    plain = mapped("predict.block=128")
    expected = refine(plain, site.prepared.window(0, 0, *shape), 2)
    assert (expected - plain).abs().max() > 0.01
    for block in (16, 48, 128):
        torch.testing.assert_close(mapped("predict.refine=2", f"predict.block={block}"), expected, rtol=0, atol=2e-5)
    rc = torch.as_tensor(site.split.test)
    for settings, wanted in ((("predict.refine=2", "predict.block=16"), expected), ((), plain)):
        found = predict_pixels(network, None, site.prepared, config.override(*settings), rc)
        torch.testing.assert_close(found.probabilities, wanted[:, rc[:, 0], rc[:, 1]].T, rtol=0, atol=2e-5)
    left = predict_pixels(network, None, site.prepared, config.override("predict.refine=2"), rc, refined=False)
    torch.testing.assert_close(left.probabilities, plain[:, rc[:, 0], rc[:, 1]].T, rtol=0, atol=2e-5)
