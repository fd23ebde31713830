"""The operations on a GPU against their peers, each case checked against the float64 reference before it is timed.

    python bench/gpu/run.py [--small] [--once] [--only NAME] [--out FILE]

Peers: torch SDPA, torch.compile of the reference, torch.randn and arithmetic, the extensions of mamba_ssm and causal_conv1d
where peers.py finds or can build them. --small walks through every case at tiny shapes, on a CPU too; --once makes each call
a single time, which compiles what the benchmark needs.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parent))
import peers  # noqa: E402
from harness import DEVICE, Results, limits, summary  # noqa: E402

from bdgf_fast import backends, ops, reference  # noqa: E402
from bdgf_fast.diffusion import Schedule  # noqa: E402

LIMITS = {torch.float32: 1e-4, torch.float16: 3e-3, torch.bfloat16: 3e-2}  # relative error, in the norm


def peer(module: str):
    """The extension of a peer, or None and one line that says why it is left out."""
    if DEVICE == "cpu":
        return None
    try:
        return peers.build(module)
    except Exception as error:
        print(f"without {module}: {type(error).__name__}: {str(error)[:200]}", file=sys.stderr, flush=True)
        return None


selective_scan_cuda, causal_conv1d_cuda = peer("selective_scan_cuda"), peer("causal_conv1d_cuda")


def randn(*shape, dtype=torch.float32):
    return torch.randn(shape, device=DEVICE, dtype=dtype)


def ours(op: str, call, *, grad=None) -> dict:
    """Our kernels for `op`, each forced: forward, or forward and backward towards `grad`'s (inputs, weight)."""
    names = [b for b in backends.available(op, DEVICE) if b in ("cuda", "triton", "cpu")]

    def forced(name):
        def timed():
            with backends.use_backend(name):
                return call() if grad is None else torch.autograd.grad(call(), *grad)

        return timed

    return {f"ours {name}": forced(name) for name in names}


def backwards(call, inputs, weight):
    return lambda: torch.autograd.grad(call(), inputs, weight)


def exact(function, inputs, weight) -> tuple[torch.Tensor, torch.Tensor]:
    """The reference's output of these (few) inputs in float64, and the gradient of the first towards `weight`."""
    leaves = [x.detach().double().requires_grad_() for x in inputs]
    with torch.enable_grad():
        out = function(*leaves)
        (slope,) = torch.autograd.grad(out, leaves[:1], weight.double())
    return out.detach(), slope


def checked(calls: dict, expected: torch.Tensor, part=slice(0, 2)) -> dict:
    """`calls`, where one whose first result is wrong in its first rows is replaced by the error that it is."""

    def wrong(error: float, limit: float):
        def call():
            raise ValueError(f"WRONG: relative error {error:.2e} above {limit:.0e}")

        return call

    result = dict(calls)
    for who, call in calls.items():
        if who == "torch.compile":  # the reference itself; calling it here would compile it twice
            continue
        try:
            found = call()
        except Exception:  # the timing reports it
            continue
        found = (found[0] if isinstance(found, tuple | list) else found)[part]
        error = ((found.double() - expected).norm() / expected.norm().clamp_min(1e-30)).item()
        if not error <= LIMITS[found.dtype]:
            result[who] = wrong(error, LIMITS[found.dtype])
    return result


def scan(results: Results, small: bool) -> None:
    usual = [(batch, 128, length, 16) for batch in (256, 1024, 4096) for length in (49, 121, 256)]
    shapes = usual + [(1, 128, 200_000, 16), (200_000, 32, 4, 16)]
    for dtype in (torch.float32, torch.bfloat16):
        for batch, dim, length, states in [(2, 8, 9, 4)] if small else shapes:
            u, delta = randn(batch, dim, length, dtype=dtype), randn(batch, dim, length, dtype=dtype) - 2
            A, D = -torch.exp(randn(dim, states)), randn(dim)
            B, C = randn(batch, states, length, dtype=dtype), randn(batch, states, length, dtype=dtype)
            inputs = [x.requires_grad_() for x in (u, delta, A, B, C, D)]
            weight = randn(batch, dim, length, dtype=dtype)
            few, most = min(2, batch), min(length, 256)
            cut = [x.detach()[:few, :, :most].double() if x.dim() == 3 else x.detach().double() for x in inputs]
            part = slice(0, few), slice(None), slice(0, most)
            expected, slope = exact(lambda *x: reference.selective_scan(*x, delta_softplus=True), cut, weight[part])

            def call(inputs=inputs):
                return ops.selective_scan(*inputs, delta_softplus=True)

            forward, both = {}, {}
            if selective_scan_cuda is not None:

                def fwd(u=u, delta=delta, A=A, B=B, C=C, D=D):
                    return selective_scan_cuda.fwd(u, delta, A, B[:, None], C[:, None], D, None, None, True)

                def fwd_bwd(fwd=fwd, u=u, delta=delta, A=A, B=B, C=C, D=D, weight=weight):
                    out, x, *_ = fwd()
                    rest = (D, None, None, weight, x, out, None, True, False)
                    return selective_scan_cuda.bwd(u, delta, A, B[:, None], C[:, None], *rest)

                forward["mamba_ssm"], both["mamba_ssm"] = fwd, fwd_bwd
            elif batch <= 256 and length <= 64 and dtype is torch.float32:  # a loop takes minutes to compile
                compiled = torch.compile(lambda *x: reference.selective_scan(*x, delta_softplus=True))
                forward["torch.compile"] = lambda c=compiled, i=inputs: c(*i)
            exps = batch * dim * length * states
            bytes_ = sum(x.nbytes for x in inputs) + weight.nbytes
            name = f"{(batch, dim, length, states)} {str(dtype)[6:]}"
            with torch.no_grad():
                calls = checked(ours("selective_scan", call) | forward, expected, part)
                results.add(f"selective_scan fwd {name}", calls, 1.5, exp=exps, copy_bytes=bytes_)
            calls = ours("selective_scan", call, grad=(inputs, weight)) | both
            if most == length:  # a gradient at a step depends on all steps after it
                calls = checked(calls, slope, part)
            results.add(f"selective_scan fwd+bwd {name}", calls, 1.5, exp=2 * exps, copy_bytes=3 * bytes_)


def scan_2d(results: Results, small: bool) -> None:
    for batch, dim, side in [(2, 4, 3)] if small else [(256, 128, 7), (256, 128, 16)]:
        for dtype in (torch.float32, torch.bfloat16):
            x, pixels = randn(batch, dim, side, side, dtype=dtype), side * side
            delta = randn(batch, 4, dim, pixels, dtype=dtype) - 2
            A, D = -torch.exp(randn(4, dim, 16)), randn(dim)
            B, C = (randn(batch, 4, 16, pixels, dtype=dtype) for _ in range(2))
            inputs = [v.requires_grad_() for v in (x, delta, A, B, C, D)]
            cut = [v.detach()[: 2 if v.shape[0] == batch else None].double() for v in inputs]
            exps, weight = 4 * batch * dim * pixels * 16, torch.randn_like(x)
            expected, slope = exact(reference.selective_scan_2d, cut, weight[:2])

            def call(inputs=inputs):
                return ops.selective_scan_2d(*inputs)

            name = f"{(batch, dim, side, side)} {str(dtype)[6:]}"
            with torch.no_grad():
                results.add(f"selective_scan_2d fwd {name}", checked(ours("selective_scan_2d", call), expected), exp=exps)
            calls = checked(ours("selective_scan_2d", call, grad=(inputs, weight)), slope)
            results.add(f"selective_scan_2d fwd+bwd {name}", calls, exp=2 * exps)


def conv(results: Results, small: bool) -> None:
    for shape in [(2, 8, 9)] if small else [(1024, 128, 49), (1024, 128, 256), (200_000, 32, 4)]:
        x, weight, bias = (v.requires_grad_() for v in (randn(*shape), randn(shape[1], 4), randn(shape[1])))

        def call(x=x, weight=weight, bias=bias):
            return ops.causal_conv1d(x, weight, bias, "silu")

        def plain(x=x, weight=weight, bias=bias):
            return F.silu(F.conv1d(x, weight[:, None], bias, padding=3, groups=len(bias))[..., : x.shape[2]])

        grad = ([x, weight, bias], torch.randn_like(x))
        cut = [x[:2], weight, bias]
        expected, slope = exact(lambda *v: reference.causal_conv1d(*v, "silu"), cut, grad[1][:2])
        peers = {"torch": plain, "torch.compile": torch.compile(plain)} if not small else {"torch": plain}
        forward, both = dict(peers), {k: backwards(p, *grad) for k, p in peers.items()}
        if causal_conv1d_cuda is not None:
            held = [v.detach() for v in (x, weight, bias)]
            sums = [torch.zeros_like(v) for v in held[1:]]

            def fwd(held=held):
                out = torch.empty_like(held[0])
                causal_conv1d_cuda.causal_conv1d_fwd(*held, None, None, out, None, True)
                return out

            def fwd_bwd(fwd=fwd, held=held, sums=sums, dout=grad[1]):
                fwd()
                dx = torch.empty_like(dout)
                for v in sums:
                    v.zero_()
                causal_conv1d_cuda.causal_conv1d_bwd(*held, dout, None, None, None, dx, *sums, None, True)
                return dx

            forward["causal_conv1d"], both["causal_conv1d"] = fwd, fwd_bwd
        with torch.no_grad():
            calls = checked(ours("causal_conv1d", call) | forward, expected)
            results.add(f"causal_conv1d fwd {shape}", calls, copy_bytes=2 * x.nbytes)
        calls = checked(ours("causal_conv1d", call, grad=grad) | both, slope)
        results.add(f"causal_conv1d fwd+bwd {shape}", calls, copy_bytes=5 * x.nbytes)


def attention(results: Results, small: bool) -> None:
    for batch, heads, length, d in [(2, 2, 5, 4)] if small else [(1024, 8, 49, 16), (1024, 8, 64, 32), (512, 8, 128, 32)]:
        for dtype in (torch.float32, torch.bfloat16):
            inputs = [randn(batch, heads, length, d, dtype=dtype).requires_grad_() for _ in range(3)]
            name, grad = f"{(batch, heads, length, d)} {str(dtype)[6:]}", (inputs, torch.randn_like(inputs[0]))
            expected, slope = exact(reference.cross_attention, [x[:2] for x in inputs], grad[1][:2])

            def call(inputs=inputs):
                return ops.cross_attention(*inputs)

            def sdpa(inputs=inputs):
                return F.scaled_dot_product_attention(*inputs)

            bytes_ = inputs[0].nbytes
            with torch.no_grad():
                calls = checked(ours("cross_attention", call) | {"sdpa": sdpa}, expected)
                results.add(f"cross_attention fwd {name}", calls, 1.5, copy_bytes=4 * bytes_)
            calls = checked(ours("cross_attention", call, grad=grad) | {"sdpa": backwards(sdpa, *grad)}, slope)
            results.add(f"cross_attention fwd+bwd {name}", calls, 2.0, copy_bytes=12 * bytes_)


def gate(results: Results, small: bool) -> None:
    for batch, channels, side in [(2, 8, 3)] if small else [(1024, 128, 7), (512, 128, 16), (128, 256, 32)]:
        x, guide, groups, hidden = randn(batch, channels, side, side), randn(batch, channels, side, side), 4, 8
        part = channels // groups
        weights = [randn(groups, hidden, 2 * part), randn(groups, hidden), randn(groups, part, hidden), randn(groups, part)]
        inputs = [v.requires_grad_() for v in (x, guide, *weights)]
        cut = [v.detach()[:2].double() if v.dim() == 4 else v.detach().double() for v in inputs]

        def call(inputs=inputs, groups=groups):
            return ops.group_channel_gate(*inputs, groups=groups)

        def plain(*inputs, groups=groups):
            return reference.group_channel_gate(*inputs, groups=groups)

        compiled, grad = plain if small else torch.compile(plain), (inputs, torch.randn_like(x))
        peer = {"torch.compile": lambda c=compiled, i=inputs: c(*i)}
        name, bytes_ = (batch, channels, side, side), x.nbytes
        expected, slope = exact(plain, cut, grad[1][:2])
        with torch.no_grad():
            calls = checked(ours("group_channel_gate", call), expected) | peer
            results.add(f"group_channel_gate fwd {name}", calls, 2.0, copy_bytes=3 * bytes_)
        calls = checked(ours("group_channel_gate", call, grad=grad), slope)
        calls |= {"torch.compile": backwards(peer["torch.compile"], *grad)}
        results.add(f"group_channel_gate fwd+bwd {name}", calls, 2.0, copy_bytes=7 * bytes_)


def channel_attention(results: Results, small: bool) -> None:
    for batch, channels, length, groups in [(2, 8, 9, 2)] if small else [(1024, 64, 49, 8), (512, 128, 256, 4), (64, 256, 1024, 4)]:
        for dtype in (torch.float32, torch.bfloat16):
            inputs = [randn(batch, channels, length, dtype=dtype).requires_grad_() for _ in range(3)]
            temperature = torch.ones(groups, device=DEVICE, requires_grad=True)

            def call(inputs=inputs, temperature=temperature, groups=groups):
                return ops.group_channel_attention(*inputs, temperature, groups=groups)

            def plain(*inputs, temperature=temperature, groups=groups):
                return reference.group_channel_attention(*inputs, temperature, groups=groups)

            compiled = plain if small else torch.compile(plain)
            peer = {"torch.compile": lambda c=compiled, i=inputs: c(*i)}
            name, bytes_ = f"{(batch, channels, length, groups)} {str(dtype)[6:]}", inputs[0].nbytes
            grad = ((*inputs, temperature), torch.randn_like(inputs[0]))
            scaled = temperature.detach().double()
            few = [x[:2] for x in inputs]
            expected, slope = exact(lambda *x, p=plain, t=scaled: p(*x, temperature=t), few, grad[1][:2])
            with torch.no_grad():
                calls = checked(ours("group_channel_attention", call), expected) | peer
                results.add(f"group_channel_attention fwd {name}", calls, copy_bytes=4 * bytes_)
            calls = checked(ours("group_channel_attention", call, grad=grad), slope)
            calls |= {"torch.compile": backwards(peer["torch.compile"], *grad)}
            results.add(f"group_channel_attention fwd+bwd {name}", calls, copy_bytes=11 * bytes_)


def loss(results: Results, small: bool) -> None:
    """The peer draws its target with torch.randn; both end at the gradient in pred."""
    schedule = Schedule.linear(1000).to(DEVICE)
    for shape in [(2, 3, 4, 4)] if small else [(1024, 65, 32, 32), (4096, 65, 7, 7)]:
        for dtype in (torch.float32, torch.bfloat16):
            pred, t = randn(*shape, dtype=dtype).requires_grad_(), torch.randint(0, 1000, shape[:1], device=DEVICE)
            groups = (shape[1] - 1, 1)
            weight = torch.ones(shape[0], 2, device=DEVICE)

            def call(pred=pred, t=t, groups=groups):
                return ops.denoising_loss(pred, t, schedule, 3, channel_groups=groups)

            def library(pred=pred, groups=groups):
                parts = (pred.float() - torch.randn_like(pred, dtype=torch.float32)).square().split(groups, 1)
                return torch.stack([part.flatten(1).mean(1) for part in parts], 1)

            calls = ours("denoising_loss", call, grad=([pred], weight)) | {"torch.randn": backwards(library, [pred], weight)}
            results.add(f"denoising_loss fwd+bwd {shape} {str(dtype)[6:]}", calls, 2.0, copy_bytes=3 * pred.nbytes)


def noise(results: Results, small: bool) -> None:
    schedule = Schedule.linear(1000).to(DEVICE)
    for shape in [(2, 3, 4, 4)] if small else [(1024, 64, 32, 32), (4096, 64, 7, 7)]:
        for dtype in (torch.float32, torch.bfloat16):
            x0, t = randn(*shape, dtype=dtype), torch.randint(0, 1000, shape[:1], device=DEVICE)
            a, b = (v[t][:, None, None, None] for v in (schedule.sqrt_alphas_cumprod, schedule.sqrt_one_minus_alphas_cumprod))
            name = f"{shape} {str(dtype)[6:]}"

            def normal(shape=shape, dtype=dtype):
                return ops.philox_normal(shape, 3, dtype=dtype, device=DEVICE)

            def library(x0=x0, a=a, b=b):
                return (a * x0 + b * torch.randn_like(x0)).to(x0.dtype)

            peer = {"torch.randn": lambda x0=x0: torch.randn_like(x0)}
            results.add(f"philox_normal {name}", ours("philox_normal", normal) | peer, 2.0, copy_bytes=x0.nbytes)
            noised = ours("q_sample", lambda x0=x0, t=t: ops.q_sample(x0, t, schedule, 3))
            results.add(f"q_sample {name}", noised | {"torch.randn": library}, 2.0, copy_bytes=2 * x0.nbytes)


CASES = {"scan": scan, "scan_2d": scan_2d, "conv": conv, "attention": attention, "gate": gate,
         "channel_attention": channel_attention, "noise": noise, "loss": loss}  # fmt: skip


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--small", action="store_true", help="tiny shapes, to see every case run")
    arguments.add_argument("--once", action="store_true", help="make each call once and time nothing")
    arguments.add_argument("--only", choices=CASES, action="append", help="these cases alone")
    arguments.add_argument("--out", type=Path, help="the JSON (default: bench/results/<gpu>.json)")
    args = arguments.parse_args()
    if DEVICE == "cpu" and not args.small:
        print("no CUDA device: only --small runs here", file=sys.stderr)
        return 1
    torch.manual_seed(0)
    results = Results(args.out, args.once)
    if not args.small and not args.once:
        results.data["limits"] = limits()
        results.write()
    for name in args.only or CASES:
        CASES[name](results, args.small)
    print(summary(results.data))
    return 0


if __name__ == "__main__":
    sys.exit(main())
