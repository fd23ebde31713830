"""Prediction by a forest of decision trees."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import _native, backends, reference
from . import _check as check
from ._library import call_kernel, call_plain, define, needs_grad

backends.register_plain("decision_forest", "reference", reference.decision_forest)

define(
    "decision_forest",
    "fwd",
    "Tensor x, Tensor feature, Tensor threshold, Tensor child, Tensor share, Tensor root",
    lambda x, feature, threshold, child, share, root: [share.new_empty(x.shape[0], share.shape[1])],
)


def _native_forward(outputs, x, *tables):
    _native.load().decision_forest(outputs[0], x, *(t.contiguous() for t in tables), torch.get_num_threads())


backends.register("decision_forest", "cpu", forward=_native_forward)


def decision_forest(x: Tensor, feature: Tensor, threshold: Tensor, child: Tensor, share: Tensor, root: Tensor) -> Tensor:
    """For each row of x, the shares of the leaf that it reaches, averaged over the trees.

    From node v a row goes to child[v, 1] where x[feature[v]] > threshold[v], else (also where x is NaN) to child[v, 0]. The nodes
    of all trees stand in one table; a leaf is its own child on both sides, and any other node's children stand after it.
    Breiman, Random Forests, Machine Learning 45, 2001. There is no gradient.

    Args:
        x: (n, S) float32, any strides.
        feature: int32 (nodes,), 0 to S - 1, at leaves as well (where it does not matter).
        threshold: float32 (nodes,).
        child: int32 (nodes, 2), left and right.
        share: float32 (nodes, K), such as each class's share of a leaf's training samples; read at leaves alone.
        root: int32 (trees,), the node at which each tree begins.

    Returns:
        (n, K) float32, a sum in the order of the trees.

    Raises:
        ValueError, TypeError: the shape, dtype or device of an argument or a number in a table is not accepted, or an argument
            requires a gradient; the message names the argument.

    Complexity: O(nodes + n trees depth) time.

    Examples:
        One tree of three nodes: left where x[0] <= 0.5.

        >>> feature, threshold = torch.zeros(3, dtype=torch.int32), torch.full((3,), 0.5)
        >>> child = torch.tensor([[1, 2], [1, 1], [2, 2]], dtype=torch.int32)
        >>> share = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.25, 0.75]])
        >>> decision_forest(torch.tensor([[0.0], [1.0]]), feature, threshold, child, share, torch.zeros(1, dtype=torch.int32))
        tensor([[1.0000, 0.0000],
                [0.2500, 0.7500]])
    """
    check.a_tensor("x", x, 2, "(n, S)")
    check.beside("x", x, x, (torch.float32,))
    check.at_least_one("x", x.shape[1], "features")
    check.a_tensor("feature", feature, 1, "(nodes,)")
    check.a_tensor("share", share, 2, "(nodes, K)")
    check.a_tensor("root", root, 1, "(trees,)")
    nodes = len(feature)
    tables = {"feature": feature, "threshold": threshold, "child": child, "share": share, "root": root}
    for name, table in tables.items():
        check.beside(name, table, x, (torch.float32 if name in ("threshold", "share") else torch.int32,))
    check.shape("threshold", threshold, (nodes,), "(nodes,)")
    check.shape("child", child, (nodes, 2), "(nodes, 2)")
    check.shape("share", share, (nodes, share.shape[1]), "(nodes, K)")
    check.at_least_one("root", len(root), "trees")
    for name, value in {"x": x, "threshold": threshold, "share": share}.items():
        if needs_grad(value):
            raise ValueError(f"{name} requires a gradient, which a forest does not have: detach it or use torch.no_grad()")

    backend, _ = backends.choose("decision_forest", x.device.type, x.dtype)
    plain = backends.plain("decision_forest", backend)
    if plain is None:
        return call_kernel("decision_forest", backend, (x, *tables.values()), ())
    _check_numbers(x.shape[1], feature, child, root)
    return call_plain(plain, x.device.type, x, *tables.values())


def _check_numbers(features: int, feature: Tensor, child: Tensor, root: Tensor) -> None:
    """What the kernel's binding checks as well: a number out of range, or a walk that might not end."""
    nodes = len(feature)
    for name, table, count in (("feature", feature, features), ("root", root, nodes)):
        outside = table[(table < 0) | (table >= count)]
        if len(outside):
            raise ValueError(f"decision_forest: {name} has {int(outside[0])}; it takes 0 to {count - 1}")
    own = torch.arange(nodes, device=child.device)[:, None]
    fits = (child == own).all(1) | ((child > own) & (child < nodes)).all(1)
    if not fits.all():
        node = int((~fits).nonzero()[0])
        raise ValueError(
            f"decision_forest: child of node {node} is {tuple(child[node].tolist())}; it takes the node itself twice (a leaf), "
            f"or two nodes after it, up to {nodes - 1}"
        )
