"""Every operation that has a CUDA kernel, forward and backward on small, odd shapes: what compute-sanitizer watches
(`make gpu-sanitize`). Prints what ran; an operation that did not take its CUDA kernel is an error."""

from __future__ import annotations

import torch

from bdgf_fast import backends, ops
from bdgf_fast.diffusion import Schedule


def images(*shape: int, dtype=torch.float32, last: bool = False) -> torch.Tensor:
    x = torch.randn(shape, device="cuda").to(dtype)
    x = x.contiguous(memory_format=torch.channels_last) if last else x
    return x.requires_grad_()


def noise(dtype: torch.dtype, last: bool) -> None:
    schedule, t = Schedule.linear().to(torch.device("cuda")), torch.tensor([0, 500, 999], device="cuda")
    x, pred = images(3, 5, 11, 11, dtype=dtype, last=last), images(3, 5, 11, 11, dtype=dtype, last=last)
    origin, mask = torch.tensor([[0, 0], [3, 7], [20, 21]], device="cuda"), torch.rand(3, 5, device="cuda") > 0.5
    ops.philox_normal((3, 5, 11, 11), seed=1, dtype=dtype, device="cuda", origin=origin, extent=(40, 40))
    ops.q_sample(x, t, schedule, 1, channel_mask=mask, mask_mode="noise").sum().backward()
    ops.q_sample(x, t, schedule, 1, origin=origin, extent=(40, 40)).sum().backward()
    for kind in ("epsilon", "sample", "v_prediction"):
        hidden = torch.rand(3, 2, device="cuda") > 0.5
        loss = ops.denoising_loss(pred, t, schedule, 1, x0=x, prediction_type=kind, channel_groups=(2, 3), hidden=hidden)
        loss.sum().backward()
        ops.ddpm_step(pred, t, x, schedule, prediction_type=kind, clip_sample=True, seed=2).sum().backward()
        ops.ddim_step(pred, t, x, schedule, prediction_type=kind, eta=0.5, noise=torch.randn_like(x)).sum().backward()


def gate(dtype: torch.dtype, last: bool) -> None:
    for side in (1, 7, 11, 96):
        x, guide = images(3, 8, side, side, dtype=dtype, last=last), images(3, 4, 5, 9, dtype=dtype, last=last)
        parameters = [torch.randn(s, device="cuda").requires_grad_() for s in ((2, 3, 6), (2, 3), (2, 4, 3), (2, 4))]
        ops.group_channel_gate(x, guide, *parameters, groups=2).sum().backward()


def scans(dtype: torch.dtype, last: bool) -> None:
    batch, dim, states, side = 3, 33, 16, 7

    def at(*shape: int) -> torch.Tensor:
        return torch.randn(shape, device="cuda").to(dtype).requires_grad_()

    A, D, bias = (torch.rand(s, device="cuda").neg().requires_grad_() for s in ((dim, states), (dim,), (dim,)))
    for length in (1, 8, 49, 130):
        u, delta, z, B, C = (at(batch, n, length) for n in (dim, dim, dim, states, states))
        if last:
            u, delta, z = (x.detach().transpose(1, 2).contiguous().transpose(1, 2).requires_grad_() for x in (u, delta, z))
        ops.selective_scan(u, delta, A, B, C, D, z, bias, True, reverse=last).sum().backward()
    x, delta, B, C = at(batch, dim, side, side), at(batch, 4, dim, side * side), *(at(batch, 4, states, side * side) for _ in "BC")
    ops.selective_scan_2d(x, delta, A.expand(4, dim, states), B, C, D, delta_bias=bias).sum().backward()


PROGRAMS = {
    noise: ("philox_normal", "q_sample", "denoising_loss", "diffusion_step"),
    gate: ("group_channel_gate",),
    scans: ("selective_scan", "selective_scan_2d"),
}


def main() -> None:
    with backends.use_backend("cuda"):
        for program, operations in PROGRAMS.items():
            missing = [op for op in operations if "cuda" not in backends.available(op, "cuda")]
            if missing:
                raise SystemExit(f"no CUDA kernel of {', '.join(missing)} can run here:\n{backends.explain()}")
            for dtype in (torch.float32, torch.float16, torch.bfloat16):
                for last in (False, True):
                    program(dtype, last)
            torch.cuda.synchronize()
            print("ran:", ", ".join(operations), flush=True)


if __name__ == "__main__":
    main()
