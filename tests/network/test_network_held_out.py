"""A temperature is fitted on labels not learned from: whole squares are left out, and their neighbours are not judged."""

import dataclasses

import numpy as np
import pytest
import torch

from bdgf_fast.network import held_out as module
from bdgf_fast.network.held_out import block_folds, calibrate, held_out, judged
from bdgf_fast.network.train import train


def test_squares_stay_whole_and_classes_spread():
    rng = np.random.default_rng(0)
    rc = torch.from_numpy(rng.integers(0, 96, (900, 2)))
    target = torch.from_numpy(rng.integers(0, 3, 900))
    fold = block_folds(rc, target, 8, 4, 0)
    square = (rc[:, 0] // 8 * 100 + rc[:, 1] // 8).numpy()
    assert all(len(set(fold[square == k])) == 1 for k in set(square))
    for k in range(4):
        counts = np.bincount(target.numpy()[fold == k], minlength=3)
        assert (np.abs(counts - 75) < 15).all()
    np.testing.assert_array_equal(fold, block_folds(rc, target, 8, 4, 0))
    assert (fold != block_folds(rc, target, 8, 4, 1)).any()


def test_who_may_be_judged():
    rc = torch.tensor([[0, 0], [0, 3], [0, 4], [9, 9], [20, 20]])
    target = torch.tensor([0, 0, 0, 1, 0])
    kept = np.array([True, False, False, False, False])
    # more than 3 pixels away, and of a class that is known
    assert judged(rc, target, kept, 3).tolist() == [False, False, True, False, True]
    assert not judged(rc, target, ~np.ones(5, bool), 3).any()


@pytest.fixture
def branch(config):
    return config.override("model.branches=[cnn]", "train.epochs=1", "model.trees=10")


def test_forests_are_grown_anew(site, branch, monkeypatch):
    network, _ = train(site.prepared, None, branch, seed=0)
    monkeypatch.setattr(module, "train", None)  # no network is trained
    rc, said = held_out(network, None, site.prepared, branch, seed=0)
    train_rc = {tuple(p) for p in site.split.train.tolist()}
    assert 10 < len(rc) <= len(train_rc) and {tuple(p) for p in rc.tolist()} <= train_rc
    torch.testing.assert_close(said.sum(1), torch.ones(len(rc)))
    truth = site.prepared.labels[rc[:, 0], rc[:, 1]]
    at_home = network.forests[0].share.max(1).values
    assert at_home.max() == 1 and (said.argmax(1) == truth).double().mean() < 0.98  # they do not know these labels by heart
    found = calibrate(network, None, site.prepared, branch, seed=0)
    assert found.fitted_on == "squares left out in turn" and found.pixels == len(rc)
    assert 0.1 <= found.temperature <= 10 and len(found.bias) == 3
    assert found == calibrate(network, None, site.prepared, branch, seed=0)
    counts = np.bincount(site.prepared.labels[tuple(site.split.train.T)].numpy(), minlength=3)
    np.testing.assert_allclose(found.prior, counts / counts.sum())


def test_a_network_without_forests_has_a_stand_in(site, branch):
    branch = branch.override("model.trees=0")
    network, _ = train(site.prepared, None, branch, seed=0)
    found = calibrate(network, None, site.prepared, branch, seed=0)
    assert found.fitted_on == "squares left out in turn" and found.pixels > 10


def test_a_validation_part_is_taken(site, branch):
    network, _ = train(site.prepared, None, branch, seed=0)
    prepared = site.prepared.select(list(site.prepared.modality_names))
    prepared.split = dataclasses.replace(site.split, val=site.split.test[:90])
    found = calibrate(network, None, prepared, branch, seed=0)
    assert (found.fitted_on, found.pixels) == ("validation part", 90)


def test_switched_off_it_knows_the_shares_alone(site, branch):
    network, _ = train(site.prepared, None, branch, seed=0)
    found = calibrate(network, None, site.prepared, branch.override("predict.calibrate=false"), seed=0)
    assert (found.temperature, found.fitted_on, found.bias) == (1, "none", None) and sum(found.prior) == pytest.approx(1)
