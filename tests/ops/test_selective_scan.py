"""selective_scan on every backend against the float64 reference: values, every gradient, layouts, states, limits."""

from __future__ import annotations

import pytest
import torch

from bdgf_fast import ops, reference

OP = "selective_scan"
LENGTHS = (1, 2, 7, 8, 16, 31, 32, 33, 49, 64, 65, 81, 121, 127, 128, 129, 169, 196, 225, 256, 257, 289, 372)
LONG = (512, 529, 784, 1024, 1025, 2048, 4096)
OPTIONAL = ("D", "z", "delta_bias", "initial_state")


def tensors(length, *, batch=2, dim=5, state=16, groups=1, constant=(), leave_out=(), dtype=torch.float32, device="cpu", seed=0):
    """Inputs in the ranges that trained models have: delta about 0.001 to 1 after softplus, A from -1 to -N."""
    g = torch.Generator().manual_seed(seed)

    def randn(*shape):
        return torch.randn(shape, generator=g, dtype=torch.float64)

    matrix = (batch, state, length) if groups == 1 else (batch, groups, state, length)
    found = {"u": randn(batch, dim, length), "delta": randn(batch, dim, length)}
    found["A"] = -torch.arange(1.0, state + 1, dtype=torch.float64) * torch.exp(0.1 * randn(dim, state))
    for name in ("B", "C"):
        found[name] = randn(dim, state) if name in constant else randn(*matrix)
    found |= {"D": randn(dim), "z": randn(batch, dim, length), "delta_bias": randn(dim) - 3.0}
    found["initial_state"] = randn(batch, dim, state)
    kept = ("A", "D", "delta_bias", "initial_state", *constant)  # parameters stay in float32
    parameters = torch.promote_types(dtype, torch.float32)
    return {
        k: x.to(device, parameters if k in kept else dtype) for k, x in found.items() if k not in leave_out
    }  # fmt: skip


def compare(check_gradients, given, **options):
    options = {"delta_softplus": True, "return_last_state": True} | options
    check_gradients(lambda **t: ops.selective_scan(**t, **options), lambda **t: reference.selective_scan(**t, **options), given)


def too_slow(target, length):
    if target.backend == "reference" and length > 65:
        pytest.skip("the plain loop is compared at short lengths")


@pytest.mark.parametrize("length", LENGTHS + LONG)
def test_lengths(target, check_gradients, length):
    too_slow(target, length)
    small = {"batch": 1, "dim": 3} if length in LONG else {}
    compare(check_gradients, tensors(length, device=target.device, **small), reverse=length % 2 == 0)


@pytest.mark.parametrize("state", [1, 3, 8, 16, 17, 64, 256])
@pytest.mark.parametrize("length", [1, 9, 50])
def test_state_sizes(target, check_gradients, length, state):
    compare(check_gradients, tensors(length, state=state, device=target.device))


@pytest.mark.parametrize("dim", [1, 2, 15, 16, 17, 33, 96])
def test_channels(target, check_gradients, dim):
    compare(check_gradients, tensors(11, dim=dim, state=4, device=target.device))


@pytest.mark.parametrize(("groups", "constant"), [(1, ""), (2, ""), (1, "B"), (1, "BC")])
def test_many_channels_of_one_sequence(target, check_gradients, groups, constant):
    """The CPU's threads share the channels and meet after some segments: here there are several meetings."""
    too_slow(target, 700)
    if str(target) == "cuda":
        pytest.skip("an emulated GPU has no threads that share channels, and is slow")
    compare(check_gradients, tensors(700, batch=1, dim=200, groups=groups, constant=tuple(constant), device=target.device))


@pytest.mark.parametrize("constant", ["", "B", "C", "BC"])
@pytest.mark.parametrize(("groups", "dim"), [(1, 6), (2, 6), (4, 8), (2, 64)])
def test_constant_and_grouped_matrices(target, check_gradients, groups, dim, constant):
    given = tensors(13, dim=dim, groups=groups, state=5, constant=tuple(constant), device=target.device)
    compare(check_gradients, given)
    if groups == 1:
        compare(check_gradients, {k: x.unsqueeze(1) if k in "BC" and x.dim() == 3 else x for k, x in given.items()})


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("softplus", [False, True])
@pytest.mark.parametrize("leave_out", [(), OPTIONAL, *((name,) for name in OPTIONAL)], ids=str)
def test_options(target, check_gradients, leave_out, softplus, reverse):
    given = tensors(17, state=4, leave_out=leave_out, device=target.device)
    if not softplus:
        given["delta"] = given["delta"].abs() * 0.1
        if "delta_bias" in given:
            given["delta_bias"] = given["delta_bias"].abs() * 0.1
    for last in (False, True):
        compare(check_gradients, given, delta_softplus=softplus, reverse=reverse, return_last_state=last)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", [5, 49, 130])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sixteen_bit(target, check_gradients, dtype, length, reverse):
    too_slow(target, length)
    given = tensors(length, dim=20, dtype=dtype, device=target.device)
    compare(check_gradients, given, reverse=reverse)
    given["delta"] = given["delta"].float()
    compare(check_gradients, given, reverse=reverse)


@pytest.mark.parametrize("layout", ["transposed", "slice", "expanded", "flipped_storage"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_layouts(target, check_gradients, layout, dtype):
    given = tensors(19, dim=18, groups=2, state=6, dtype=dtype, device=target.device)

    def lay(x):
        if x.dim() < 3:
            return x.t().contiguous().t() if x.dim() == 2 else torch.stack([x, x], -1)[:, 0]
        if layout == "transposed":
            return x.transpose(-1, -2).contiguous().transpose(-1, -2)
        if layout == "slice":
            return torch.cat([x, x], dim=1)[:, : x.shape[1]]
        if layout == "expanded":
            return x[:1].expand_as(x)
        return x.permute(*range(x.dim() - 1, -1, -1)).contiguous().permute(*range(x.dim() - 1, -1, -1))

    with torch.no_grad():
        given = {k: lay(x) for k, x in given.items()}
    compare(check_gradients, given)


def test_an_expanded_output_gradient(target, assert_close):
    given = tensors(9, device=target.device)
    u = given["u"].requires_grad_()
    ops.selective_scan(**given, delta_softplus=True).sum().backward()  # its gradient has strides 0
    exact = {k: x.detach().cpu().double() for k, x in given.items()}
    exact["u"].requires_grad_()
    reference.selective_scan(**exact, delta_softplus=True).sum().backward()
    assert_close(u.grad, exact["u"].grad)


def test_only_the_last_state_is_used(target, assert_close):
    given = tensors(9, constant=("B",), device=target.device)
    exact = {k: x.cpu().double().requires_grad_() for k, x in given.items()}
    given = {k: x.requires_grad_() for k, x in given.items()}
    for function, t in ((ops.selective_scan, given), (reference.selective_scan, exact)):
        function(**t, delta_softplus=True, return_last_state=True)[1].square().sum().backward()
    for name, x in given.items():
        expected = exact[name].grad
        if expected is not None:
            assert_close(x.grad, expected)
        else:
            assert x.grad is None or not x.grad.any()


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("cut", [1, 20, 32])
def test_two_halves_make_the_whole(target, assert_close, cut, reverse):
    given = tensors(40, leave_out=("initial_state",), device=target.device)
    whole, last = ops.selective_scan(**given, delta_softplus=True, return_last_state=True, reverse=reverse)
    along = ("u", "delta", "B", "C", "z")
    parts = [{k: x[..., s] if k in along else x for k, x in given.items()} for s in (slice(cut), slice(cut, None))]
    if reverse:
        parts.reverse()
    options = {"delta_softplus": True, "return_last_state": True, "reverse": reverse}
    first, state = ops.selective_scan(**parts[0], **options)
    second, state = ops.selective_scan(**parts[1], initial_state=state, **options)
    halves = [second, first] if reverse else [first, second]
    assert_close(torch.cat(halves, dim=-1), whole.double(), torch.float32)
    assert_close(state, last.double(), torch.float32)


def test_more_rows_than_a_launch_grid(target, assert_close):
    """70,000 pixels of a few spectral tokens each."""
    given = tensors(4, batch=70_000, dim=2, state=2, leave_out=("initial_state", "z"), device=target.device)
    out = ops.selective_scan(**given, delta_softplus=True)
    picked = [0, 1, 65_535, 65_536, 69_999]
    per_sample = ("u", "delta", "B", "C")
    exact = {k: (x[picked] if k in per_sample else x).cpu().double() for k, x in given.items()}
    assert_close(out[picked], reference.selective_scan(**exact, delta_softplus=True))
    assert out.isfinite().all()


def test_one_long_sequence(target, assert_close):
    if target.backend == "reference":
        pytest.skip("this is the reference")
    given = tensors(20_000, batch=1, dim=4, state=2, leave_out=("initial_state",), device=target.device)
    given = {k: x.requires_grad_() for k, x in given.items()}
    out = ops.selective_scan(**given, delta_softplus=True)
    (out * out.detach().cos()).sum().backward()
    # the state forgets: windows of the sequence, run on their own, give the same in their second half
    for end in (4_000, 11_000, 20_000):
        cut = {k: x.detach()[..., end - 2_000 : end] if x.dim() == 3 else x.detach() for k, x in given.items()}
        exact = {k: x.cpu().double() for k, x in cut.items()}
        expected = reference.selective_scan(**exact, delta_softplus=True)
        assert_close(out[..., end - 1_000 : end], expected[..., 1_000:])
    assert all(x.grad.isfinite().all() for x in given.values())


def test_extreme_steps(target, check_gradients):
    """Large delta forgets everything (exp underflows to 0), delta near 0 keeps everything."""
    given = tensors(12, state=4, leave_out=("delta_bias",), device=target.device)
    given["delta"][..., 3] = 60.0
    given["delta"][..., 7] = -60.0
    given["delta"][..., 9] = 20.5
    compare(check_gradients, given)


@pytest.mark.parametrize("value", [1e4, float("inf"), float("nan")])
def test_an_extreme_step_changes_nothing_beside_it(target, value):
    """Exponents known to be small are taken on a shorter path: the same bits as on the general one."""
    if target.backend != "cpu":
        pytest.skip("the two paths are the CPU kernels'")
    given = tensors(40, dim=20, leave_out=("delta_bias", "z"), device=target.device)
    plain = ops.selective_scan(**given, delta_softplus=True)
    given["delta"][1, 3, 30] = value
    extreme = ops.selective_scan(**given, delta_softplus=True)
    assert torch.equal(extreme[0], plain[0])
    assert torch.equal(extreme[1, :, :30], plain[1, :, :30])
    other = torch.arange(20) != 3
    assert torch.equal(extreme[1, other], plain[1, other])
    if value != value:
        assert extreme[1, 3, 30:].isnan().all()


def test_complex_A_runs_the_reference(target):
    g = torch.Generator().manual_seed(0)
    u, delta = torch.randn(2, 3, 5, generator=g), torch.rand(2, 3, 5, generator=g)
    A = torch.complex(-torch.rand(3, 2, generator=g), torch.randn(3, 2, generator=g))
    B, C = torch.randn(2, 2, 10, generator=g), torch.randn(2, 2, 10, generator=g)
    there = [x.to(target.device) for x in (u, delta, A, B, C)]
    torch.testing.assert_close(ops.selective_scan(*there).cpu(), reference.selective_scan(u, delta, A, B, C))


@pytest.mark.parametrize("shape", [(0, 3, 5), (2, 0, 5)])
def test_empty(target, shape):
    batch, dim, length = shape
    given = {k: x.requires_grad_() for k, x in tensors(length, batch=batch, dim=dim, device=target.device).items()}
    out, last = ops.selective_scan(**given, delta_softplus=True, return_last_state=True)
    assert out.shape == shape and last.shape == (batch, dim, 16)
    (out.sum() + last.sum()).backward()
    assert all(x.grad is not None and not x.grad.any() for x in given.values())


def grads_and_output(given):
    leaves = {k: x.clone().requires_grad_() for k, x in given.items()}
    out = ops.selective_scan(**leaves, delta_softplus=True)
    (out * out.detach().cos()).sum().backward()
    return [out.detach(), *(x.grad for x in leaves.values())]


@pytest.mark.parametrize("shape", [{"batch": 7, "dim": 40}, {"batch": 1, "dim": 40}, {"batch": 1, "dim": 200, "state": 16}])
def test_bitwise_the_same_on_repeat_and_for_any_thread_count(target, shape):
    given = tensors(64 if target.backend == "reference" else 700, **{"state": 4, "device": target.device, **shape})
    first = grads_and_output(given)
    assert all(torch.equal(a, b) for a, b in zip(first, grads_and_output(given), strict=True))
    if target.device != "cpu" or target.backend == "reference":
        return
    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            assert all(torch.equal(a, b) for a, b in zip(first, grads_and_output(given), strict=True))
    finally:
        torch.set_num_threads(before)
