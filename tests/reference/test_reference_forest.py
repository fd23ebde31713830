"""The reference forest against a walk in plain Python."""

from __future__ import annotations

import math

import torch

from bdgf_fast import reference


def test_a_forest_by_hand():
    """A tree of five nodes and one that is a single leaf."""
    feature = torch.tensor([1, 0, 0, 0, 0, 0], dtype=torch.int32)
    threshold = torch.tensor([0.5, 0.0, -1.0, 0.0, 0.0, 0.0])
    child = torch.tensor([[1, 2], [1, 1], [3, 4], [3, 3], [4, 4], [5, 5]], dtype=torch.int32)
    share = torch.tensor([[9.0, 9.0], [1.0, 0.0], [9.0, 9.0], [0.0, 1.0], [0.5, 0.5], [0.25, 0.75]])
    x = torch.tensor([[0.0, 0.5], [-1.0, 0.6], [-0.5, 0.6], [math.nan, 0.6], [math.inf, math.nan]])
    got = reference.decision_forest(x, feature, threshold, child, share, torch.tensor([0, 5], dtype=torch.int32))
    leaves = torch.tensor([1, 3, 4, 3, 1])  # on the threshold, or where x is NaN, a row goes left
    assert torch.equal(got, (share[leaves] + share[5]) / 2)
    twice = reference.decision_forest(x, feature, threshold, child, share, torch.tensor([2, 2, 0]))
    assert torch.equal(twice[1:2], share[3:4])


def test_more_rows_than_are_walked_at_once():
    x = torch.linspace(-1, 1, 9001)[:, None]
    child = torch.tensor([[1, 2], [1, 1], [2, 2]])
    got = reference.decision_forest(x, torch.zeros(3).int(), torch.zeros(3), child, torch.eye(3), torch.tensor([0]))
    assert torch.equal(got[:, 2], (x[:, 0] > 0).float()) and torch.equal(got[:, 1], (x[:, 0] <= 0).float())
