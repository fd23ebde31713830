"""What every operation shares: its torch.library registration, and the way from a public function to a backend.

A kernel sits behind two library operators, `bdgf::<op>_fwd` and `bdgf::<op>_bwd`, whose last argument names the
backend: the choice is made once, in the public function, and the backward (on another thread, maybe) follows it. Their
outputs are allocated here, by the function that also serves as the fake; a launcher fills them. The operators have no
autograd of their own: a ctx-style autograd.Function stands around them, and is skipped where nothing needs a gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor

from .. import backends

LIBRARY = torch.library.Library("bdgf", "DEF")
Maybe = TypeVar("Maybe", Tensor, Tensor | None)


def define(op: str, direction: str, arguments: str, allocate: Callable[..., Sequence[Tensor | None]]) -> None:
    """Define `bdgf::<op>_<direction>(arguments, str backend) -> Tensor[]`.

    `allocate(*arguments)` returns the outputs, None for those that are not needed; the launcher of the backend is
    called as launcher(outputs, *arguments) and fills them. No argument may have a default: the dispatcher would drop
    it.

    A forward has a second operator, `bdgf::<op>(..., int visible, int most, int kept)`, with the autograd.Function inside: what
    torch.jit.trace records, which has no node for the Function itself.
    """
    name = f"{op}_{direction}"
    launcher_of = {"fwd": "forward", "bwd": "backward"}[direction]

    def run(*arguments: Any) -> list[Tensor]:
        outputs = allocate(*arguments[:-1])
        getattr(backends.implementation(op, arguments[-1]), launcher_of)(outputs, *arguments[:-1])
        return [x for x in outputs if x is not None]

    def fake(*arguments: Any) -> list[Tensor]:
        return [x for x in allocate(*arguments[:-1]) if x is not None]

    LIBRARY.define(f"{name}({arguments}, str backend) -> Tensor[]")
    LIBRARY.impl(name, run, "CPU")
    LIBRARY.impl(name, run, "CUDA")
    torch.library.register_fake(f"bdgf::{name}", fake, lib=LIBRARY)
    if direction == "fwd":
        count = arguments.count("Tensor")

        def traced(*arguments: Any) -> list[Tensor]:
            *arguments, backend, visible, most, kept = arguments  # type: ignore[assignment]  # a list from here on
            found = _Kernel.apply(op, backend, visible, most, kept, count, *arguments)
            return [found] if visible == 1 else list(found)

        LIBRARY.define(f"{op}({arguments}, str backend, int visible, int most, int kept) -> Tensor[]")
        LIBRARY.impl(op, traced, "CompositeImplicitAutograd")


def register_triton(op: str, supports: backends.Supports | None = None, backward_module: str | None = None) -> None:
    """Register `forward` and `backward` of bdgf_fast.triton_kernels.<op>, imported at the first call.

    `backward_module`: where `backward` is, when that is another module.
    """

    def obstacle(facts: Mapping[str, Any]) -> str | None:
        if facts["dtype"] is torch.float64:
            return "the Triton kernels take float32, float16 and bfloat16; float64 runs on the CPU"
        return None if supports is None else supports(facts)

    modules = "bdgf_fast.triton_kernels."
    forward = backends.lazy(modules + op, "forward")
    backward = backends.lazy(modules + (backward_module or op), "backward")
    backends.register(op, "triton", forward=forward, backward=backward, supports=obstacle)


def gradients(inputs: Sequence[Tensor | None], needs: Sequence[bool]) -> list[Tensor | None]:
    """Where a backward writes: an empty tensor like each input that needs a gradient."""
    return [torch.empty_like(x) if need and x is not None else None for x, need in zip(inputs, needs, strict=True)]


def refuse_double_backward(op: str) -> None:
    """The opening of every backward: under create_graph=True its result would silently lack a graph."""
    if torch.is_grad_enabled():
        raise RuntimeError(
            f"{op}: double backward is not implemented by the kernels; "
            'run the forward under bdgf_fast.backends.use_backend("reference")'
        )


def refuse_transforms(op: str, *tensors: Tensor | None) -> None:
    """torch.func transforms and forward-mode AD would pass the operators by and lose derivatives."""
    if torch.compiler.is_compiling():
        return
    dual = forward_ad._current_level >= 0 and any(
        x is not None and forward_ad.unpack_dual(x).tangent is not None for x in tensors
    )
    if dual or torch._C._are_functorch_transforms_active():
        raise RuntimeError(
            f"{op}: the kernels support neither torch.func transforms nor forward-mode AD; "
            'run it under bdgf_fast.backends.use_backend("reference")'
        )


class _Kernel(torch.autograd.Function):
    """The autograd node of every kernel; ctx style, since the setup_context style costs three times as much a call.

    The arguments of `bdgf::<op>_fwd` are `count` tensors, then scalars. Its first `visible` outputs are the caller's,
    the rest (row statistics, vectors per sample and channel) are kept for `bdgf::<op>_bwd`, which takes the gradients
    of the visible outputs (`most` of them, None for one not asked for), the tensors, the rest (`kept` of them where that
    is given, None for one that the forward left out), the scalars, and which of the tensors need a gradient.
    """

    @staticmethod
    def forward(ctx, op: str, backend: str, visible: int, most: int, kept: int, count: int, *arguments):
        outputs = getattr(torch.ops.bdgf, f"{op}_fwd")(*arguments, backend)
        rest = outputs[visible:]
        ctx.save_for_backward(*arguments[:count], *rest, *[None] * (kept - len(rest)))
        ctx.call = (op, backend, most, arguments[count:])
        return outputs[0] if visible == 1 else tuple(outputs[:visible])

    @staticmethod
    def backward(ctx, *grads):
        op, backend, most, scalars = ctx.call
        refuse_double_backward(op)
        first = 6  # arguments of forward before the tensors
        count = len(ctx.needs_input_grad) - first - len(scalars)
        needs = list(ctx.needs_input_grad[first : first + count])
        grads += (None,) * (most - len(grads))
        found = getattr(torch.ops.bdgf, f"{op}_bwd")(*grads, *ctx.saved_tensors, *scalars, needs, backend)
        result: list[Tensor | None] = [None] * len(ctx.needs_input_grad)
        position = 0
        for i, need in enumerate(needs):
            if need:
                result[first + i] = found[position]
                position += 1
        return tuple(result)


def call_kernel(
    op: str,
    backend: str,
    tensors: Sequence[Tensor | None],
    scalars: Sequence[Any],
    visible: int = 1,
    most: int = 1,
    kept: int = 0,
) -> Any:
    """Run `op` on a backend that `choose` returned, with autograd where something needs a gradient."""
    refuse_transforms(op, *tensors)
    if torch.jit.is_tracing():
        outputs = getattr(torch.ops.bdgf, op)(*tensors, *scalars, backend, visible, most, kept)
        return outputs[0] if visible == 1 else tuple(outputs)
    if torch.compiler.is_compiling():
        tensors = _distinct(tensors)
    if needs_grad(*tensors):
        return _Kernel.apply(op, backend, visible, most, kept, len(tensors), *tensors, *scalars)
    outputs = getattr(torch.ops.bdgf, f"{op}_fwd")(*tensors, *scalars, backend)
    return outputs[0] if visible == 1 else tuple(outputs[:visible])


def _distinct(tensors: Sequence[Tensor | None]) -> list[Tensor | None]:
    """A tensor that is passed twice as two: the compiler takes no autograd.Function with the same input twice."""
    found: list[Tensor | None] = []
    for x in tensors:
        seen = x is not None and any(x is y for y in found)
        found.append(x.view_as(x) if seen and x is not None else x)
    return found


def cast(x: Maybe, dtype: torch.dtype) -> Maybe:
    """Parameters reach a kernel in the dtype of its arithmetic; autograd casts their gradients back."""
    return x if x is None or x.dtype is dtype else x.to(dtype)


def needs_grad(*tensors: Tensor | None) -> bool:
    """Whether autograd has to record a call on these inputs."""
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)


# Asked once: torch.compile cannot trace the question.
_AUTOCAST_DEVICES = frozenset(name for name in ("cpu", "cuda", "mps", "xpu") if torch.amp.is_autocast_available(name))


def autocasts(device_type: str) -> bool:
    """Whether autocast is on; it cannot be for a device that has none, such as meta."""
    return device_type in _AUTOCAST_DEVICES and torch.is_autocast_enabled(device_type)


def call_plain(function: Callable[..., Any], device_type: str, *arguments: Any, **options: Any) -> Any:
    """Call a function of torch operations as it stands: autocast was dealt with in the public function."""
    if autocasts(device_type):
        with torch.autocast(device_type, enabled=False):
            return function(*arguments, **options)
    return function(*arguments, **options)


def autocast(*tensors: Any) -> tuple[Any, ...]:
    """Cast to the autocast dtype of their device where autocast is on and it applies, as torch's own operators do."""
    device_type = tensors[0].device.type
    if not autocasts(device_type):
        return tensors
    dtype = torch.get_autocast_dtype(device_type)
    castable = (torch.float16, torch.bfloat16, torch.float32)
    return tuple(x.to(dtype) if x is not None and x.dtype in castable else x for x in tensors)
