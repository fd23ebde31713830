"""Forest against scikit-learn's own prediction, grown here and stored in a state dict."""

from __future__ import annotations

import pytest
import torch
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier

from bdgf_fast import backends
from bdgf_fast.network.forest import Forest

CLASSES, TREES, SEED = 7, 40, 5


def samples(n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Classes 1, 2, 4 and 6 of seven; numbers with ties, so that rows stand on thresholds."""
    g = torch.Generator().manual_seed(seed)
    x = (8 * torch.randn(n, 30, generator=g)).round() / 8
    return x, torch.tensor([1, 2, 4, 6])[(x[:, 0] > 0).long() + 2 * (x[:, 1] + x[:, 2] > 0.3).long()]


@pytest.fixture(scope="module", params=[False, True], ids=["random forest", "extra trees"])
def grown(request):
    x, target = samples(300)
    forest = Forest(CLASSES)
    forest.fit(x, target, TREES, SEED, extra=request.param)
    theirs = (ExtraTreesClassifier if request.param else RandomForestClassifier)(TREES, random_state=SEED)
    return forest, theirs.fit(x.numpy(), target.numpy())


@pytest.mark.parametrize("backend", [None, "reference"])
def test_agrees_with_scikit_learn(grown, backend):
    """Also where classes are absent from the training labels: they have no share."""
    forest, theirs = grown
    x = torch.cat([samples(5000, seed=1)[0], samples(300)[0]])
    want = torch.zeros(len(x), CLASSES, dtype=torch.float64)
    want[:, theirs.classes_] = torch.from_numpy(theirs.predict_proba(x.numpy()))
    with backends.use_backend(backend):
        got = forest(x.requires_grad_())
    assert not got.requires_grad and got.dtype == torch.float32
    torch.testing.assert_close(got.double(), want, rtol=0, atol=1e-6)
    assert not got[:, [0, 3, 5]].any()


def test_a_state_dict_round_trip(grown, tmp_path):
    forest, _ = grown
    torch.save(forest.state_dict(), tmp_path / "forest.pt")
    again = Forest(CLASSES)
    again.load_state_dict(torch.load(tmp_path / "forest.pt", weights_only=True))
    x = samples(100, seed=2)[0]
    assert torch.equal(again(x), forest(x))


def test_reads_tables_of_int64(grown):
    forest, _ = grown
    wide = {k: v if v.is_floating_point() else v.long() for k, v in forest.state_dict().items()}
    again = Forest(CLASSES)
    again.load_state_dict(wide)
    x = samples(100, seed=2)[0]
    assert torch.equal(again(x), forest(x))


def test_extra_trees_are_others_than_a_random_forests():
    x, target = samples(200)
    found = []
    for extra in (False, True):
        forest = Forest(CLASSES)
        forest.fit(x, target, 3, SEED, extra)
        found.append(forest(x))
    assert not torch.equal(*found)
