"""decision_forest on every backend, against its definition in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch.library import opcheck

from bdgf_fast import _native, backends, ops, reference

OP = "decision_forest"


def tree(nodes: int, features: int, g: torch.Generator) -> tuple[torch.Tensor, ...]:
    """Nodes in the order in which a random leaf is split; an odd number of them."""
    feature, threshold = torch.randint(features, (nodes,), generator=g).int(), torch.randn(nodes, generator=g) / 2
    child = torch.arange(nodes, dtype=torch.int32)[:, None].repeat(1, 2)
    leaves = [0]
    for new in range(1, nodes - 1, 2):
        split = leaves.pop(int(torch.randint(len(leaves), (), generator=g)))
        child[split] = torch.tensor([new, new + 1])
        leaves += [new, new + 1]
    return feature, threshold, child


def forest(trees=5, nodes=31, features=6, classes=3, seed=0):
    """feature, threshold, child, share, root."""
    g = torch.Generator().manual_seed(seed)
    made = [tree(nodes, features, g) for _ in range(trees)]
    child = torch.cat([c + i * nodes for i, (_, _, c) in enumerate(made)])
    root = torch.arange(trees, dtype=torch.int32) * nodes
    share = torch.rand(trees * nodes, classes, generator=g)
    return torch.cat([f for f, _, _ in made]), torch.cat([t for _, t, _ in made]), child, share, root


def rows(n, features=6, seed=1):
    return torch.randn(n, features, generator=torch.Generator().manual_seed(seed))


def exact(x, feature, threshold, child, share, root):
    """The walk takes float32, as the trees do; the mean is taken in float64."""
    return reference.decision_forest(x, feature, threshold, child, share.double(), root)


def close(got, want):
    assert got.dtype == torch.float32 and got.is_contiguous()
    torch.testing.assert_close(got.double(), want, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("n", [0, 1, 11, 12, 13, 95, 96, 97, 200])
@pytest.mark.parametrize("classes", [0, 1, 3, 8, 16, 19])
def test_agrees_with_the_definition(target, n, classes):
    tables = forest(classes=classes)
    x = rows(n)
    got = ops.decision_forest(x, *tables)
    assert got.shape == (n, classes)
    close(got, exact(x, *tables))


@pytest.mark.parametrize(("trees", "nodes"), [(1, 1), (1, 3), (100, 199), (3, 2001)])
def test_sizes_of_forests(target, trees, nodes):
    tables, x = forest(trees, nodes, 50), rows(130, 50)
    close(ops.decision_forest(x, *tables), exact(x, *tables))


def test_a_tree_that_is_a_chain(target):
    """As deep as it has leaves: rows end after different numbers of steps."""
    inner = torch.arange(0, 100, 2)
    child = torch.arange(101)[:, None].repeat(1, 2)
    child[inner] = torch.stack([inner + 1, inner + 2], 1)
    threshold = torch.arange(101.0) / 2
    share = torch.arange(101.0)[:, None]
    tables = (torch.zeros(101).int(), threshold, child.int(), share, torch.tensor([0]).int())
    got = ops.decision_forest(torch.arange(60.0)[:, None], *tables)
    want = torch.tensor([min(2 * row + 1, 100) for row in range(60)], dtype=torch.float32)[:, None]
    assert torch.equal(got, want)


@pytest.mark.parametrize("layout", ["transposed", "every other", "expanded", "backwards tables"])
def test_any_strides(target, layout):
    tables, x = forest(), rows(77)
    if layout == "transposed":
        x = x.t().contiguous().t()
    elif layout == "every other":
        x = rows(77, 12)[:, ::2]
    elif layout == "expanded":
        x = x[:1].expand(77, 6)
    else:
        tables = tuple(t.t().contiguous().t() if t.dim() == 2 else torch.stack([t, t], 1)[:, 0] for t in tables)
    close(ops.decision_forest(x, *tables), exact(x, *tables))


def test_nan_and_infinities(target):
    tables, x = forest(), rows(64)
    x.view(-1)[::3] = math.nan
    x.view(-1)[1::7], x.view(-1)[2::11] = math.inf, -math.inf
    got = ops.decision_forest(x, *tables)
    close(got, exact(x, *tables))
    lowest = x.clone()
    lowest[x.isnan()] = -math.inf  # NaN goes where the least number goes
    assert torch.equal(got, ops.decision_forest(lowest, *tables))


def test_roots_may_be_shared_and_inside_a_tree(target):
    feature, threshold, child, share, root = forest()
    root = torch.cat([root, root[:2], root + 1]).int()
    tables = (feature, threshold, child, share, root)
    close(ops.decision_forest(rows(20), *tables), exact(rows(20), *tables))


def test_bits_depend_on_neither_threads_nor_the_rows_beside(target):
    tables, x = forest(40), rows(1000)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(ops.decision_forest(x, *tables))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
    if target.backend == "cpu":
        assert torch.equal(ops.decision_forest(x[613:640], *tables), found[0][613:640])


@pytest.mark.parametrize("change", ["feature", "leaf", "before", "loop", "past", "half", "root", "negative root"])
def test_numbers_out_of_range(target, change):
    feature, threshold, child, share, root = forest()
    inner = int((child[:, 0] > torch.arange(len(child))).nonzero()[3])
    node = int((child[:, 0] == torch.arange(len(child))).nonzero()[2])
    if change == "feature":
        feature[7], message = 6, "feature has 6; it takes 0 to 5"
    elif change == "leaf":
        feature[node], message = -2, "feature has -2; it takes 0 to 5"
    elif change in ("root", "negative root"):
        root[1] = 155 if change == "root" else -1
        message = f"root has {root[1]}; it takes 0 to 154"
    else:
        bad = {"before": (0, inner + 1), "loop": (inner, inner + 1), "past": (inner + 1, 155), "half": (-1, inner)}[change]
        child[inner], message = torch.tensor(bad), rf"child of node {inner} is \({bad[0]}, {bad[1]}\); it takes the node itself"
    with pytest.raises(ValueError, match=message):
        ops.decision_forest(rows(3), feature, threshold, child, share, root)


@pytest.mark.parametrize("name", ["x", "threshold", "share"])
def test_a_gradient_is_refused(target, name):
    names = ("x", "feature", "threshold", "child", "share", "root")
    given = dict(zip(names, (rows(5), *forest()), strict=True))
    want = ops.decision_forest(**given)
    given[name].requires_grad_()
    with pytest.raises(ValueError, match=f"{name} requires a gradient"):
        ops.decision_forest(**given)
    with torch.no_grad():
        assert torch.equal(ops.decision_forest(**given), want)


@pytest.mark.skipif("cpu" not in backends.available(OP), reason="needs the compiled extension")
def test_operator_and_compiler():
    x, tables = rows(9), forest()
    opcheck(torch.ops.bdgf.decision_forest_fwd.default, (x, *tables, "cpu"))
    torch._dynamo.reset()
    compiled = torch.compile(ops.decision_forest, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x, *tables), ops.decision_forest(x, *tables))


@pytest.mark.skipif("cpu" not in backends.available(OP), reason="needs the compiled extension")
def test_every_instruction_set_level():
    native = _native.load()
    before, x, tables = native.cpu_isa(), rows(131), forest(classes=19)
    try:
        for isa in native.cpu_isas():
            native.set_cpu_isa(isa)
            close(ops.decision_forest(x, *tables), exact(x, *tables))
    finally:
        native.set_cpu_isa(before)
