"""The CPU kernel of selective_scan: the states that the forward keeps, the keywords of the bindings."""

from __future__ import annotations

import sys

import pytest
import torch
from levels import LEVELS, close, level, native

from bdgf_fast import backends, ops

scan_module = sys.modules["bdgf_fast.ops.selective_scan"]  # which the function of the same name hides


def inputs(batch, dim, length, state=16, dtype=torch.float32):
    g = torch.Generator().manual_seed(0)

    def randn(*shape):
        return torch.randn(shape, generator=g)

    return {
        "u": randn(batch, dim, length).to(dtype),
        "delta": randn(batch, dim, length).to(dtype),
        "A": -torch.exp(randn(dim, state)),
        "B": randn(batch, state, length).to(dtype),
        "C": randn(batch, state, length).to(dtype),
        "D": randn(dim),
        "z": randn(batch, dim, length).to(dtype),
        "delta_bias": randn(dim) - 3,
        "initial_state": randn(batch, dim, state),
    }


def gradients(given, **options):
    leaves = {k: x.detach().requires_grad_() for k, x in given.items()}
    with backends.use_backend("cpu"):
        out, last = ops.selective_scan(**leaves, delta_softplus=True, return_last_state=True, **options)
    weights = [torch.linspace(-1, 1, out.numel()).view_as(out).to(out.dtype), torch.ones_like(last)]
    found = torch.autograd.grad([out, last], list(leaves.values()), weights, retain_graph=True)
    again = torch.autograd.grad([out, last], list(leaves.values()), weights)
    for x, y in zip(found, again, strict=True):
        assert torch.equal(x, y), "what the forward kept must survive a backward"
    return out, last, dict(zip(leaves, found, strict=True))


@pytest.mark.parametrize("isa", LEVELS)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    ("batch", "dim", "length", "state", "dtype"),
    [(1, 40, 1100, 16, torch.float32), (2, 5, 512, 3, torch.bfloat16), (1, 20, 769, 40, torch.float32)],
)
def test_kept_states_change_nothing_but_the_order_of_sums(monkeypatch, isa, reverse, batch, dim, length, state, dtype):
    given = inputs(batch, dim, length, state, dtype)
    with level(isa):
        monkeypatch.setattr(scan_module, "_keeps_checkpoints", lambda *_: True)
        out, last, found = gradients(given, reverse=reverse)
        monkeypatch.setattr(scan_module, "_keeps_checkpoints", lambda *_: False)
        want_out, want_last, want = gradients(given, reverse=reverse)
    assert torch.equal(out, want_out) and torch.equal(last, want_last)
    for name, grad in found.items():
        close(grad, want[name], grad.dtype)
        if name in ("u", "delta", "B", "C", "z", "initial_state"):
            assert torch.equal(grad, want[name]), name


def kept_bytes(given):
    leaves = {k: x.detach().requires_grad_() for k, x in given.items()}
    with backends.use_backend("cpu"):
        out = ops.selective_scan(**leaves, delta_softplus=True)
    shared = {x.data_ptr() for x in leaves.values()}
    saved = [x for x in out.grad_fn.saved_tensors if x is not None and x.data_ptr() not in shared]
    return sum(x.numel() * x.element_size() for x in saved)


def test_states_are_kept_of_few_long_rows_alone():
    given = inputs(1, 64, 2048)
    everything = sum(x.numel() * x.element_size() for x in given.values())
    assert 0 < kept_bytes(given) == 8 * 64 * 16 * 4 <= 0.05 * everything
    assert kept_bytes(inputs(8, 8, 1024)) == 0  # many rows
    assert kept_bytes(inputs(1, 64, 256)) == 0  # short
    assert kept_bytes(inputs(1, 64, 2048, state=128)) == 0  # more than 5 %


def test_the_steps_between_kept_states_are_the_kernels():
    assert scan_module.CHECKPOINT_STEPS == native.SCAN_CHECKPOINT_STEPS


def test_unknown_keywords_are_refused():
    with pytest.raises(ValueError, match="selective_scan_fwd: the call has a keyword that the kernel does not know"):
        native.selective_scan_fwd(u=None, softplus=True)
    with pytest.raises((TypeError, ValueError), match="selective_scan: u"):
        native.selective_scan_fwd(u=None)
