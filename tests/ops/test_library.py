"""The layer in front of the kernels, on stand-in kernels: operators, autograd, compile, autocast, transforms."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.library import opcheck

from bdgf_fast import backends, ops
from bdgf_fast.diffusion import Schedule

pytestmark = pytest.mark.usefixtures("mirror")
SCHEDULE = Schedule.linear(50)


def scan(dtype=torch.float64, **options):
    g = torch.Generator().manual_seed(0)
    b, d, L, N = 2, 4, 3, 2
    shapes = {"u": (b, d, L), "delta": (b, d, L), "A": (d, N), "B": (b, 2, N, L), "C": (b, N, L), "D": (d,)}
    shapes |= {"z": (b, d, L), "delta_bias": (d,), "initial_state": (b, d, N)}
    t = {k: torch.randn(s, generator=g, dtype=torch.float64).to(dtype) for k, s in shapes.items()}
    t["A"] = -t["A"].abs()
    fixed = {"delta_softplus": True, "return_last_state": True} | options
    return t, lambda **x: ops.selective_scan(**x, **fixed)


def scan_2d(dtype=torch.float64):
    g = torch.Generator().manual_seed(0)
    b, d, K, N, P = 2, 2, 2, 2, 6
    shapes = {"x": (b, d, 2, 3), "delta": (b, 1, d, P), "A": (K, d, N), "B": (b, K, N, P), "C": (b, K, N, P)}
    shapes |= {"D": (d,), "delta_bias": (K, d)}
    t = {k: torch.randn(s, generator=g, dtype=torch.float64).to(dtype) for k, s in shapes.items()}
    t["A"] = -t["A"].abs()
    return t, lambda **x: ops.selective_scan_2d(**x, directions=2)


def random_tensors(dtype, **shapes):
    g = torch.Generator().manual_seed(0)
    return {k: torch.randn(s, generator=g, dtype=torch.float64).to(dtype) for k, s in shapes.items()}


def conv(dtype=torch.float64):
    t = random_tensors(dtype, x=(2, 3, 4), weight=(3, 2), bias=(3,))
    return t, lambda **x: ops.causal_conv1d(**x, activation="silu")


def boxes(dtype=torch.float64):
    return random_tensors(dtype, x=(2, 3, 6, 7)), lambda x: ops.box_statistics(x, [1, 2])


def gate(dtype=torch.float64):
    shapes = {"x": (2, 4, 2, 2), "guide": (2, 2, 1, 3), "weight1": (2, 3, 3), "bias1": (2, 3)}
    t = random_tensors(dtype, **shapes, weight2=(2, 2, 3), bias2=(2, 2))
    return t, lambda **x: ops.group_channel_gate(**x, groups=2)


def channel_attention(dtype=torch.float64):
    t = random_tensors(dtype, q=(2, 4, 3), k=(2, 4, 3), v=(2, 4, 3), temperature=(2,))
    return t, lambda **x: ops.group_channel_attention(**x, groups=2)


def attention(dtype=torch.float64):
    t = random_tensors(dtype, query=(2, 2, 3, 4), key=(2, 2, 2, 4), value=(2, 2, 2, 4), attn_bias=(1, 2, 1, 2))
    mask = torch.tensor([[True, False], [True, True]])
    return t, lambda **x: ops.cross_attention(**x, key_mask=mask, dropout_p=0.3, seed=5)


def noising(dtype=torch.float64):
    mask = torch.tensor([[True, False, False], [False] * 3])
    options = {"t": torch.tensor([3, 40]), "schedule": SCHEDULE, "seed": 7, "channel_mask": mask}
    return random_tensors(dtype, x0=(2, 3, 2, 2)), lambda **x: ops.q_sample(**x, **options)


def loss(dtype=torch.float64):
    t = random_tensors(dtype, pred=(2, 3, 2, 2), x0=(2, 3, 2, 2), weights=(2,))
    options = {"t": torch.tensor([3, 40]), "schedule": SCHEDULE, "seed": 7, "prediction_type": "v_prediction"}
    options |= {"channel_groups": (1, 2), "min_snr_gamma": 5.0, "hidden": torch.tensor([[True, False], [False, False]])}
    return t, lambda **x: ops.denoising_loss(**x, **options)


def step(dtype=torch.float64):
    t = random_tensors(dtype, pred=(2, 3, 2), sample=(2, 3, 2))
    options = {"t": torch.tensor([3, 40]), "schedule": SCHEDULE, "prediction_type": "epsilon", "seed": 4}
    return t, lambda **x: ops.ddpm_step(**x, **options, clip_sample=True)


CASES = {f.__name__: f for f in (scan, scan_2d, conv, boxes, gate, channel_attention, attention, noising, loss, step)}
cases = pytest.mark.parametrize("case", CASES)


@cases
def test_gradcheck(case):
    tensors, call = CASES[case]()
    names = list(tensors)
    values = [x.requires_grad_() for x in tensors.values()]
    assert torch.autograd.gradcheck(lambda *v: call(**dict(zip(names, v, strict=True))), values)


@cases
def test_a_gradient_only_where_it_is_needed(case):
    tensors, call = CASES[case]()

    def total(out):
        return sum(x.sum() for x in (out if isinstance(out, tuple) else (out,)))

    every = {k: x.clone().requires_grad_() for k, x in tensors.items()}
    total(call(**every)).backward()
    for name in tensors:
        one = dict(tensors, **{name: tensors[name].clone().requires_grad_()})
        total(call(**one)).backward()
        torch.testing.assert_close(one[name].grad, every[name].grad)
    assert not total(call(**tensors)).requires_grad
    with torch.no_grad():
        assert not total(call(**every)).requires_grad


@cases
def test_sixteen_bit_gradients_have_their_inputs_dtype(case):
    tensors, call = CASES[case](torch.float32)
    kept = ("A", "D", "delta_bias", "initial_state", "weight", "bias", "weight1", "bias1", "weight2", "bias2")
    kept += ("temperature", "attn_bias", "weights")
    leaves = {k: (x if k in kept else x.bfloat16()).requires_grad_() for k, x in tensors.items()}
    out = call(**leaves)
    out = out[0] if isinstance(out, tuple) else out
    assert out.dtype == (torch.float32 if case == "loss" else torch.bfloat16)
    out.float().sum().backward()
    for name, x in leaves.items():
        assert x.grad.dtype == x.dtype, name


@cases
def test_double_backward_raises(case):
    tensors, call = CASES[case]()
    leaf = next(iter(tensors.values())).requires_grad_()
    out = call(**tensors)
    out = out[0] if isinstance(out, tuple) else out
    with pytest.raises(RuntimeError, match="double backward is not implemented"):
        torch.autograd.grad(out.sum(), leaf, create_graph=True)


@cases
def test_transforms_and_forward_mode_raise(case):
    tensors, call = CASES[case]()
    name, x = next(iter(tensors.items()))

    def of(x):
        out = call(**dict(tensors, **{name: x}))
        return out[0] if isinstance(out, tuple) else out

    for transform in (
        lambda: torch.func.grad(lambda x: of(x).sum())(x),
        lambda: torch.func.jvp(of, (x,), (x,)),
        lambda: torch.func.vmap(of)(x[None]),
    ):
        with pytest.raises(RuntimeError, match="use_backend"):
            transform()
    with torch.autograd.forward_ad.dual_level(), pytest.raises(RuntimeError, match="forward-mode"):
        of(torch.autograd.forward_ad.make_dual(x, x))


@cases
def test_compiles_without_a_graph_break(case):
    torch._dynamo.reset()
    tensors, call = CASES[case]()
    results = []
    for function in (call, torch.compile(call, fullgraph=True, backend="aot_eager")):
        leaves = {k: x.clone().requires_grad_() for k, x in tensors.items()}
        out = function(**leaves)
        out = out if isinstance(out, tuple) else (out,)
        sum(x.square().sum() for x in out).backward()
        results.append([*out, *(x.grad for x in leaves.values())])
    for eager, compiled in zip(*results, strict=True):
        torch.testing.assert_close(compiled, eager, rtol=0, atol=0)


def test_compiles_with_inductor():
    torch._dynamo.reset()
    tensors, call = scan(torch.float32)
    leaf = tensors["u"].requires_grad_()
    out, _ = torch.compile(call, fullgraph=True)(**tensors)
    (grad,) = torch.autograd.grad(out.sum(), leaf)
    (expected,) = torch.autograd.grad(call(**tensors)[0].sum(), leaf)
    torch.testing.assert_close(grad, expected)


def test_reference_compiles_too():
    torch._dynamo.reset()
    with backends.use_backend("reference"):
        for case in ("scan", "attention", "noising", "loss", "step"):
            tensors, call = CASES[case]()
            out = torch.compile(call, fullgraph=True, backend="aot_eager")(**tensors)
            torch.testing.assert_close(out, call(**tensors))


@pytest.mark.parametrize("where", ["seed", "stream"])
def test_a_new_seed_does_not_recompile(where):
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    x0, t = torch.randn(2, 3, 2, 2, requires_grad=True), torch.tensor([3, 40])

    @torch.compile(fullgraph=True, backend=counter)
    def call(value):
        return ops.q_sample(x0, t, SCHEDULE, **{"seed": 1, where: value})

    def expected(value):
        return ops.q_sample(x0, t, SCHEDULE, **{"seed": 1, where: value})

    call(5), call(6)
    frames = counter.frame_count
    assert frames <= 2  # the first number is taken as a constant, the second makes it symbolic
    for value in (7, 2**40, -3):
        torch.testing.assert_close(call(value), expected(value))
    assert counter.frame_count == frames
    for value in (5, 2**50):
        torch.testing.assert_close(call(torch.tensor(value)), expected(value))
    assert counter.frame_count == frames + 1


def test_a_compiled_function_follows_the_backend():
    """In a thread of its own, where no backend has been forced before: there an attribute was missing that the compiler guards."""
    tensors, call = conv(torch.float32)
    calls = []
    forward = backends.implementation("causal_conv1d", "cpu").forward
    backends.register("causal_conv1d", "cpu", forward=lambda *a: (calls.append(1), forward(*a)))

    def follow():
        torch._dynamo.reset()
        compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
        compiled(**tensors)
        assert len(calls) == 1
        with backends.use_backend("reference"):
            compiled(**tensors)
        assert len(calls) == 1
        compiled(**tensors)
        assert len(calls) == 2

    with ThreadPoolExecutor(1) as pool:
        pool.submit(follow).result()


def test_the_backward_uses_the_forwards_backend():
    """Autograd may run the backward on another thread, where nothing is forced."""
    tensors, call = conv()
    x = tensors["x"].requires_grad_()
    with backends.use_backend("cpu"):
        out = call(**tensors)
    del backends._registry["causal_conv1d"]["cpu"]
    with pytest.raises(KeyError):
        out.sum().backward()
    assert x.grad is None


def test_a_forced_backend_is_the_threads_own():
    found = []
    with backends.use_backend("reference"):
        thread = threading.Thread(target=lambda: found.append(backends.forced()))
        thread.start()
        thread.join()
        assert backends.forced() == "reference"
    assert found == [None]


def test_operators_pass_opcheck():
    g = torch.Generator().manual_seed(0)

    def randn(*shape):
        return torch.randn(shape, generator=g)

    s, c = scan(torch.float32)[0], gate(torch.float32)[0]
    q, k, v, bias = attention(torch.float32)[0].values()
    a, mask, t = channel_attention(torch.float32)[0], torch.ones(2, 2).bool(), torch.tensor([3, 40])
    tables = (SCHEDULE.sqrt_alphas_cumprod, SCHEDULE.sqrt_one_minus_alphas_cumprod)
    x, address, numbers = randn(2, 3, 2, 2), (None,) * 4, (7, 1, 0, 0)
    scan_inputs = [s[n] for n in ("u", "delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state")]
    plane = list(scan_2d(torch.float32)[0].values())
    plane[5] = plane[5].expand(2, 2)
    noised = (x, t, *tables, None, *address)
    target = (x, randn(2, 3, 2, 2), t, *tables, None, *address)
    stepped = (x, randn(2, 3, 2, 2), randn(2, 6), None, *address)
    calls = {
        "selective_scan": (scan_inputs, (True, True, False, True), (randn(2, 4, 3), randn(2, 4, 2)), (randn(2, 1, 4, 2),)),
        "selective_scan_2d": (plane, (True, 2, True), (randn(2, 2, 2, 3),), ()),
        "causal_conv1d": (list(conv(torch.float32)[0].values()), (True,), (randn(2, 3, 4),), ()),
        "box_statistics": ((randn(2, 3, 5, 6),), ([1, 2],), (randn(2, 15, 1, 2),), ()),
        "group_channel_gate": (list(c.values()), (2, True, True), (randn(2, 4, 2, 2),), (randn(2, 2, 3), randn(2, 4))),
        "group_channel_attention": (list(a.values()), (2,), (randn(2, 4, 3),), ()),
        "cross_attention": ((q, k, v, mask, bias, None), (0.5, 0.0, 0), (randn(2, 2, 3, 4),), (randn(2, 2, 2, 3),)),
        "q_sample": (noised, (False, *numbers), (randn(2, 3, 2, 2),), ()),
        "denoising_loss": (target, (2, [1, 2], *numbers), (randn(2, 2),), ()),
        "diffusion_step": (stepped, (True, True, *numbers), (randn(2, 3, 2, 2),), ()),
    }
    for op, (tensors, scalars, grads, kept) in calls.items():
        forward, backward = (getattr(torch.ops.bdgf, f"{op}_{d}").default for d in ("fwd", "bwd"))
        opcheck(forward, (*tensors, *scalars, "cpu"))
        floating = [x is not None and x.is_floating_point() and i < 9 for i, x in enumerate(tensors)]
        if op in ("q_sample", "denoising_loss", "diffusion_step"):
            floating = [i < {"q_sample": 1, "denoising_loss": 2, "diffusion_step": 2}[op] for i in range(len(tensors))]
        opcheck(backward, (*grads, *tensors, *kept, *scalars, floating, "cpu"))
    opcheck(torch.ops.bdgf.philox_normal_fwd.default, (torch.zeros(2, 5), *address, *numbers, "cpu"))


def test_autocast_casts_attention_gate_and_conv_alone():
    with torch.autocast("cpu", torch.bfloat16):
        for case in ("conv", "gate", "channel_attention", "attention"):
            for backend in ("cpu", "reference"):
                tensors, call = CASES[case](torch.float32)
                leaves = {k: x.requires_grad_() for k, x in tensors.items()}
                with backends.use_backend(backend):
                    out = call(**leaves)
                assert out.dtype == torch.bfloat16, (case, backend)
                out.float().sum().backward()
                assert all(x.grad.dtype == torch.float32 for x in leaves.values())
        for case in ("scan", "scan_2d", "boxes", "noising", "loss", "step"):
            for backend in ("cpu", "reference"):
                tensors, call = CASES[case](torch.float32)
                with backends.use_backend(backend):
                    out = call(**tensors)
                expected = call(**tensors)
                out, expected = (o[0] if isinstance(o, tuple) else o for o in (out, expected))
                assert out.dtype == torch.float32, (case, backend)
                torch.testing.assert_close(out, expected)


def test_the_reference_under_autocast_computes_in_float32():
    """A matrix product inside the reference must not be cast: float32 inputs would lose their digits."""
    tensors, call = gate(torch.float32)
    with backends.use_backend("reference"):
        exact = call(**{k: x.bfloat16() if k in ("x", "guide") else x for k, x in tensors.items()})
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(call(**tensors), exact)


def test_autocast_in_a_graph():
    torch._dynamo.reset()
    tensors, call = attention(torch.float32)

    def run(**tensors):
        with torch.autocast("cpu", torch.bfloat16):
            return call(**tensors)

    out = torch.compile(run, fullgraph=True, backend="aot_eager")(**tensors)
    assert out.dtype == torch.bfloat16 and torch.equal(out, run(**tensors))


def test_philox_normal_compiles():
    torch._dynamo.reset()
    compiled = torch.compile(lambda s: ops.philox_normal((2, 5), s), fullgraph=True, backend="aot_eager")
    seed = torch.tensor(4)
    assert torch.equal(compiled(seed), ops.philox_normal((2, 5), 4))
    assert torch.equal(compiled(seed + 1), ops.philox_normal((2, 5), 5))


def test_an_empty_batch():
    for case in CASES:
        if case in ("attention", "noising", "loss", "step"):
            continue  # their masks and timesteps have a batch of their own
        tensors, call = CASES[case](torch.float32)
        batch = tensors[next(iter(tensors))].shape[0]
        shared = ("A", "D", "delta_bias", "weight", "bias", "weight1", "bias1", "weight2", "bias2", "temperature")
        empty = {k: (x if k in shared else x[:0]).requires_grad_() for k, x in tensors.items()}
        for backend in ("cpu", "reference"):
            with backends.use_backend(backend):
                out = call(**empty)
            out = out[0] if isinstance(out, tuple) else out
            assert batch and out.shape[0] == 0
            out.sum().backward()
            assert all(x.grad is None or not x.grad.any() for x in empty.values())
