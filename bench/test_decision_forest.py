"""decision_forest on the CPU against the walk in torch and against scikit-learn's own."""

import pytest
import torch
from race import race, report

from bdgf_fast import backends
from bdgf_fast.network.forest import Forest


@pytest.mark.parametrize(("rows", "features", "classes", "trees"), [(4000, 567, 8, 100)])
def test_forward(benchmark, rows, features, classes, trees):
    from sklearn.ensemble import RandomForestClassifier

    g = torch.Generator().manual_seed(0)
    centre = torch.randn(classes, features, generator=g)
    target = torch.randint(classes, (800,), generator=g)
    learnt = centre[target] + 3 * torch.randn(800, features, generator=g)
    forest = Forest(classes)
    forest.fit(learnt, target, trees, 0)
    theirs = RandomForestClassifier(trees, random_state=0, n_jobs=torch.get_num_threads()).fit(learnt.numpy(), target.numpy())
    x = centre[torch.randint(classes, (rows,), generator=g)] + 3 * torch.randn(rows, features, generator=g)
    values = x.numpy()

    def walk(backend):
        with backends.use_backend(backend):
            return forest(x)

    torch.testing.assert_close(walk("cpu").double(), torch.from_numpy(theirs.predict_proba(values)), rtol=0, atol=1e-6)
    calls = {"ours": lambda: walk("cpu"), "torch": lambda: walk("reference"), "scikit-learn": lambda: theirs.predict_proba(values)}
    best = race(calls)
    group = f"decision_forest ({rows}, {features}), {trees} trees of {len(forest.feature) // trees} nodes"
    report(benchmark, group, best, ratio=best["scikit-learn"] / best["ours"])
    assert best["scikit-learn"] >= best["ours"]
