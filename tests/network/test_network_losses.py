import math

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from bdgf_fast.config import TrainConfig
from bdgf_fast.network.losses import entropy_alignment, group_loss, ramp, similarity_alignment
from bdgf_fast.report.metrics import diversity, scores


def similarity_by_definition(features):
    n, total, pairs = len(features[0]), 0.0, 0
    gram = [torch.nn.functional.normalize(f @ f.T, dim=1) for f in features]
    for i in range(len(gram)):
        for j in range(i + 1, len(gram)):
            total, pairs = total + (gram[i] - gram[j]).square().sum() / n, pairs + 1
    return total / pairs


@pytest.mark.parametrize("n, widths", [(1, (4, 4)), (7, (5, 3)), (40, (6, 6, 6))])
def test_similarity_is_its_definition(n, widths):
    torch.manual_seed(n)
    features = [torch.randn(n, d, dtype=torch.float64, requires_grad=True) for d in widths]
    torch.testing.assert_close(
        similarity_alignment(features), similarity_by_definition(features), rtol=1e-10, atol=1e-12
    )
    ours = torch.autograd.grad(similarity_alignment(features), features)
    theirs = torch.autograd.grad(similarity_by_definition(features), features)
    torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-10)


def test_similarity_of_a_feature_with_itself_is_zero():
    f = torch.randn(9, 4, dtype=torch.float64)
    assert similarity_alignment([f, 3 * f]).abs() < 1e-12
    assert similarity_alignment([f]) == 0


def test_entropy_by_hand():
    even, sure = torch.zeros(1, 4, dtype=torch.float64), torch.tensor([[60.0, 0, 0, 0]], dtype=torch.float64)
    assert entropy_alignment([even, sure]).item() == pytest.approx(1.0)  # entropies log 4 and 0, over log 4
    assert entropy_alignment([even, sure, even]).item() == pytest.approx(2 / 3)
    a, b = torch.tensor([[math.log(3.0), 0.0]]).double(), torch.tensor([[0.0, 0.0]]).double()
    p, q = np.array([0.75, 0.25]), np.array([0.5, 0.5])
    assert entropy_alignment([a, b], "kl").item() == pytest.approx(
        (np.sum(p * np.log(p / q)) + np.sum(q * np.log(q / p))) / 2
    )
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    y = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    for kind in ("squared", "kl"):
        assert gradcheck(lambda *z, kind=kind: entropy_alignment(z, kind), (x, y))


def test_group_loss_adds_up_and_respects_the_ramp():
    torch.manual_seed(0)
    logits, features = [torch.randn(6, 3) for _ in range(3)], [torch.randn(6, 4) for _ in range(3)]
    target, config = torch.tensor([0, 1, 2, 0, 1, 2]), TrainConfig(label_smoothing=0.0)
    fused = torch.stack([z.softmax(1) for z in logits]).mean(0).log()
    for factor in (0.0, 1.0):
        loss, parts = group_loss(logits, features, fused, target, config, factor)
        want = sum(torch.nn.functional.cross_entropy(z, target) for z in logits) + torch.nn.functional.nll_loss(
            fused, target
        )
        want = want + factor * 0.1 * (entropy_alignment(logits) + similarity_alignment(features))
        torch.testing.assert_close(loss, want)
    single, parts = group_loss(logits[:1], features[:1], fused, target, config, 1.0)
    assert set(parts) == {"ce"} and single == parts["ce"]
    assert [ramp(s, 100, 0.2) for s in (0, 10, 20, 99)] == [0.0, 0.5, 1.0, 1.0]


def test_scores_by_hand():
    truth, predicted = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 1, 0])
    got = scores(truth, predicted, 4)
    assert got["confusion_matrix"] == [[2, 1, 0, 0], [0, 2, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    assert got["overall_accuracy"] == pytest.approx(4 / 6) and got["average_accuracy"] == pytest.approx(
        (2 / 3 + 1 + 0) / 3
    )
    assert got["per_class"] == [pytest.approx(2 / 3), 1.0, 0.0, None]
    chance = (3 * 3 + 2 * 3 + 1 * 0) / 36
    assert got["kappa"] == pytest.approx((4 / 6 - chance) / (1 - chance))
    with pytest.raises(ValueError, match="non-empty"):
        scores(np.array([]), np.array([]), 2)
    with pytest.raises(ValueError, match="0..1"):
        scores(np.array([2]), np.array([0]), 2)


def test_diversity_by_hand():
    truth = np.array([0, 1, 2, 0])
    got = diversity(truth, {"a": np.array([0, 1, 1, 1]), "b": np.array([0, 2, 2, 1])})
    assert got["branches"] == {"a": 0.5, "b": 0.5}
    assert got["diversity"] == {"disagreement": 0.5, "any_right": 0.75, "all_right": 0.25}
