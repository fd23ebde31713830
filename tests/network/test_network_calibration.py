"""A temperature makes probabilities mean what they say, and changes no class; it is kept in the network's checkpoint."""

import numpy as np
import pytest
import torch

from bdgf_fast.files import checkpoint
from bdgf_fast.network.calibration import UNCALIBRATED, Calibration, fit_temperature, store, tempered
from bdgf_fast.network.predict import predict, predict_pixels
from bdgf_fast.network.train import load_network, train
from bdgf_fast.report.reliability import reliability


def drawn(sharpened: float, n: int = 40_000) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn from known probabilities, and these raised to the power ``sharpened``: over-confident above 1."""
    rng = np.random.default_rng(0)
    true = np.exp(1.5 * rng.normal(size=(n, 5)))
    true /= true.sum(1, keepdims=True)
    truth = (true.cumsum(1) < rng.random((n, 1))).sum(1).clip(max=4)
    said = true**sharpened
    return said / said.sum(1, keepdims=True), truth


@pytest.mark.parametrize("sharpened", [0.5, 1.0, 2.0])
def test_the_temperature_undoes_what_was_sharpened(sharpened):
    said, truth = drawn(sharpened)
    found = fit_temperature(said, truth)
    assert found == pytest.approx(sharpened, rel=0.03)
    mended = tempered(torch.from_numpy(said), found, 1).numpy()
    before, after = (
        reliability(p.max(1), p.argmax(1) == truth)["expected_calibration_error"] for p in (said, mended)
    )
    assert after < 0.01 and (before > 0.08 or sharpened == 1)


def test_a_weight_counts_as_copies_do():
    said, truth = drawn(2.0, 500)
    weight = np.random.default_rng(1).integers(0, 4, 500)
    copies = np.repeat(np.arange(500), weight)
    assert fit_temperature(said, truth, weight) == pytest.approx(fit_temperature(said[copies], truth[copies]), rel=1e-3)


def test_without_a_label_the_temperature_is_one():
    assert fit_temperature(np.empty((0, 3)), np.empty(0, int)) == 1


def test_no_class_changes_and_no_value_stays_none():
    said = torch.from_numpy(drawn(1.0, 300)[0].T.copy()).reshape(5, 15, 20).float()
    said[:, 3] = 0
    calibration = Calibration(temperature=2.5)
    found = calibration.apply(said, 0)
    assert torch.equal(found.argmax(0), said.argmax(0))
    assert (found[:, 3] == 0).all()
    torch.testing.assert_close(found.sum(0)[4:], torch.ones(11, 20))
    torch.testing.assert_close(calibration.undo(found, 0), said, rtol=1e-4, atol=1e-6)
    by_hand = said[:, 0, 0] ** 0.4
    torch.testing.assert_close(found[:, 0, 0], by_hand / by_hand.sum())


def test_a_checkpoint_keeps_it_and_an_older_one_has_none(site, config, tmp_path):
    config = config.override("model.branches=[cnn]", "train.epochs=1")
    path = tmp_path / "network.safetensors"
    train(site.prepared, None, config, seed=0, checkpoint=path)
    rc = site.split.test[:50]
    network, _, _ = load_network(path, config)
    assert network.calibration == UNCALIBRATED and network.calibration.temperature == 1
    before = predict_pixels(network, None, site.prepared, config, rc)
    wanted = Calibration(2.0, (0.25, 0.25, 0.5), 0.4, (0.1, 0.0, -0.1), "validation part", 60)
    store(path, "train", wanted)
    network, _, _ = load_network(path, config)
    assert network.calibration == wanted
    after = predict_pixels(network, None, site.prepared, config, rc)
    torch.testing.assert_close(after.probabilities, tempered(before.probabilities, 2.0, 1))
    assert torch.equal(after.probabilities.argmax(1), before.probabilities.argmax(1))
    whole = torch.zeros(3, 65, 65)
    for y, x, block, _ in predict(network, None, site.prepared, config):
        whole[:, y : y + block.shape[1], x : x + block.shape[2]] = block
    torch.testing.assert_close(whole[:, rc[:, 0], rc[:, 1]].T, after.probabilities, rtol=1e-3, atol=1e-5)
    tensors, meta = checkpoint.load(path, "train")
    assert meta["calibration"]["pixels"] == 60 and any(name.startswith("model") for name in tensors)
