"""Shares of a scene's classes are estimated without labels, and probabilities follow them as Bayes' rule says."""

import numpy as np
import pytest

from bdgf_fast.errors import UserError
from bdgf_fast.network import priors
from bdgf_fast.network.calibration import UNCALIBRATED, Calibration
from bdgf_fast.network.priors import Priors, confidences, corrected, estimate_shares, named_shares, settle_priors

TRAINING = np.array([0.4, 0.4, 0.2])
TRUE = np.array([0.05, 0.15, 0.8])
NAMES = ["water", "trees", "crops"]


def scene(n: int = 30_000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three normal classes in the shares ``TRUE``: their labels, and exact posteriors under ``TRAINING`` and ``TRUE``, (n, 3)."""
    rng = np.random.default_rng(0)
    truth = rng.choice(3, n, p=TRUE)
    x = rng.normal(1.5 * truth, 1)
    density = np.exp(-((x[:, None] - 1.5 * np.arange(3)) ** 2) / 2)
    posterior = [density * share / (density * share).sum(1, keepdims=True) for share in (TRAINING, TRUE)]
    return truth, *posterior


def test_the_shares_are_found_without_labels():
    truth, said, _ = scene()
    found = estimate_shares(said, TRAINING)
    counted = np.bincount(said.argmax(1), minlength=3) / len(truth)
    assert np.abs(found - TRUE).sum() / 2 < 0.01 < 0.1 < np.abs(counted - TRUE).sum() / 2
    # the fixed point: the shares are the mean of the probabilities that they correct
    np.testing.assert_allclose(corrected(said.T, found / TRAINING).mean(1), found, atol=1e-4)


def test_a_case_by_hand():
    # two pixels that say 0.8 and 0.5 of the first of two even classes: the likelihood of a share s is (0.6 s + 0.2) (0.5)
    said = np.array([[0.8, 0.2], [0.5, 0.5]])
    np.testing.assert_allclose(estimate_shares(said, np.array([0.5, 0.5])), [1, 0], atol=1e-3)
    # two opposite ones: (0.6 s + 0.2) (0.7 - 0.4 s) is largest at s = 17/24
    said = np.array([[0.8, 0.2], [0.3, 0.7]])
    np.testing.assert_allclose(estimate_shares(said, np.array([0.5, 0.5])), [17 / 24, 7 / 24], atol=1e-4)
    np.testing.assert_allclose(corrected(np.array([[0.5], [0.5]]), np.array([1.8, 0.2])), [[0.9], [0.1]], rtol=1e-6)


def test_bayes_rule():
    truth, said, wanted = scene()
    found = corrected(said.T.astype(np.float32), TRUE / TRAINING)
    np.testing.assert_allclose(found, wanted.T, atol=1e-5)
    assert (found.argmax(0) == truth).mean() > (said.argmax(1) == truth).mean() + 0.03


def test_no_value_stays_none_and_no_share_no_pixel():
    said = np.zeros((3, 2, 2), np.float32)
    said[:, 0, 0], said[:, 1, 1] = (0, 0, 1), (0.2, 0.3, 0.5)
    found = corrected(said, np.array([1.0, 1.0, 0.0]))
    assert (found[:, 0, 1] == 0).all() and (found[:, 1, 0] == 0).all()
    np.testing.assert_allclose(found[:, 1, 1], [0.4, 0.6, 0], rtol=1e-6)
    assert found[:, 0, 0].sum() == pytest.approx(1)  # only the class without a share was likely


def blocks(said: np.ndarray, side: int):
    for y in range(0, said.shape[1], side):
        for x in range(0, said.shape[2], side):
            yield y, x, said[:, y : y + side, x : x + side]


def test_a_sample_of_the_scene_whatever_its_blocks(monkeypatch):
    monkeypatch.setattr(priors, "SAMPLE", 5000)
    said = scene(24_000)[1].T.reshape(3, 120, 200).astype(np.float32)
    said[:, :10] = 0
    calibration = Calibration(prior=tuple(TRAINING))
    one, other = (settle_priors("scene", calibration, NAMES, (120, 200), blocks(said, side)) for side in (32, 50))
    np.testing.assert_array_equal(one.estimated, other.estimated)
    assert 4400 < one.pixels == other.pixels < 4750  # eleven of twelve rows have a value
    assert np.abs(one.estimated - TRUE).sum() / 2 < 0.02
    np.testing.assert_array_equal(one.correct(said), corrected(said, one.estimated / TRAINING))
    again = Priors.from_facts(one.facts(NAMES))
    np.testing.assert_array_equal(again.correct(said), one.correct(said))


def test_training_priors_leave_the_probabilities():
    said = scene(400)[1].T.reshape(3, 20, 20).astype(np.float32)
    found = settle_priors("train", Calibration(prior=tuple(TRAINING)), NAMES, (20, 20), blocks(said, 8))
    assert found.correct(said) is said and found.estimated is not None
    given = settle_priors({"trees": 0.25, "crops": 0.75}, Calibration(prior=tuple(TRAINING)), NAMES, (20, 20), ())
    np.testing.assert_array_equal(given.correct(said), corrected(said, np.array([0, 0.25, 0.75]) / TRAINING))
    assert Priors.from_facts(given.facts(NAMES)).asked == {"water": 0, "trees": 0.25, "crops": 0.75}


def test_confidence_by_hand():
    said = np.array([[0.8, 0.1], [0.2, 0.9]], np.float32)
    calibration = Calibration(temperature=0.5, prior=(0.5, 0.5))
    given = Priors({"a": 0.1, "b": 0.9}, np.array([0.5, 0.5]), None, np.array([0.1, 0.9]), 1.0, np.ones(2), 0)
    found = confidences(said, calibration, given)
    assert found["label"].tolist() == [0, 1]
    np.testing.assert_allclose(found["calibrated"], [0.8, 0.9])
    np.testing.assert_allclose(found["uncalibrated"], [2 / 3, 3 / 4], rtol=1e-5)  # square roots: 2 to 1, 3 to 1
    np.testing.assert_allclose(found["written"], [0.18 / 0.26, 0.81 / 0.82], rtol=1e-5)


def test_bad_shares_are_one_sentence():
    with pytest.raises(UserError, match=r"predict\.priors names no class of this scene: 'watr' \(did you mean 'water'\?\)"):
        named_shares({"watr": 0.5, "trees": 0.5}, NAMES)
    with pytest.raises(UserError, match="trained by an earlier version"):
        settle_priors("scene", UNCALIBRATED, NAMES, (2, 2), ())
    assert settle_priors("train", UNCALIBRATED, NAMES, (2, 2), ()).estimated is None


def test_a_bias_is_not_taken_for_a_share():
    """A classifier that overrates one class at home: with the bias known, the shares are found all the same."""
    truth, said, _ = scene()
    overrated = corrected(said.T, np.array([1, 1, 0.5]), 0.7)
    blind, knowing = Calibration(prior=tuple(TRAINING)), Calibration(1, tuple(TRAINING), 1 / 0.7, (0, 0, np.log(2) / 0.7))
    wide = overrated.reshape(3, 150, 200)
    errors = [
        np.abs(settle_priors("scene", calibration, NAMES, (150, 200), blocks(wide, 64)).estimated - TRUE).sum() / 2
        for calibration in (blind, knowing)
    ]
    assert errors[1] < 0.015 < 0.05 < errors[0]
