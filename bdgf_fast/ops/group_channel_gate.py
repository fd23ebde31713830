"""A gate per channel, made inside each group of channels from a branch and its guide."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from .. import _native, backends, reference
from . import _check as check
from ._library import autocast, call_kernel, call_plain, cast, define, gradients, needs_grad, register_triton

backends.register_plain("group_channel_gate", "reference", reference.group_channel_gate)

_TENSORS = "Tensor x, Tensor? guide, Tensor weight1, Tensor bias1, Tensor weight2, Tensor bias2"
_SCALARS = "int groups, bool use_x, bool use_guide"


def _allocate_forward(x, guide, weight1, bias1, weight2, bias2, groups, use_x, use_guide):
    """out; then, kept for the backward, the squeezed means (batch, groups, in) and the gate (batch, C)."""
    batch, channels = x.shape[:2]
    inputs = weight1.shape[2]
    squeezed = x.new_empty(batch, groups, inputs, dtype=weight1.dtype)
    return [torch.empty_like(x), squeezed, x.new_empty(batch, channels, dtype=weight1.dtype)]


define("group_channel_gate", "fwd", f"{_TENSORS}, {_SCALARS}", _allocate_forward)
define(
    "group_channel_gate",
    "bwd",
    f"Tensor grad_out, {_TENSORS}, Tensor squeezed, Tensor gate, {_SCALARS}, bool[] needs",
    lambda grad_out, *arguments: gradients(arguments[:6], arguments[-1]),
)


def _workspace(native, x, guide, weight1, groups, backward):
    threads = torch.get_num_threads()
    elements = native.group_channel_gate_workspace(*x.shape[:2], groups, *weight1.shape[1:], backward, threads)
    return weight1.new_empty(elements), threads


def _cuda_workspace(native, x, guide, weight1, groups, backward):
    guide_sizes = (0, 0) if guide is None else (guide.shape[1], guide.shape[2:].numel())
    sizes = (*x.shape[:2], x.shape[2:].numel(), *guide_sizes, groups, *weight1.shape[1:])
    return weight1.new_empty(native.group_channel_gate_cuda_workspace(*sizes, backward)), 1


def _native_forward(outputs, x, guide, weight1, bias1, weight2, bias2, *scalars, workspace=_workspace):
    native = _native.load()
    parameters = [p.contiguous() for p in (weight1, bias1, weight2, bias2)]
    space, threads = workspace(native, x, guide, weight1, scalars[0], False)
    native.group_channel_gate_fwd(*outputs, x, guide, *parameters, *scalars, space, threads, _native.stream_of(x))


def _native_backward(
    outputs, grad_out, x, guide, weight1, bias1, weight2, bias2, squeezed, gate, *rest, workspace=_workspace
):
    native = _native.load()
    *scalars, _ = rest
    parameters = [p.contiguous() for p in (weight1, bias1, weight2, bias2)]
    space, threads = workspace(native, x, guide, weight1, scalars[0], True)
    found = [g if g is None or i < 2 else g.contiguous() for i, g in enumerate(outputs)]
    native.group_channel_gate_bwd(
        *found, grad_out, x, guide, *parameters, squeezed, gate, *scalars, space, threads, _native.stream_of(x)
    )
    for output, values in zip(outputs, found, strict=True):
        if output is not values:  # the gradient of a parameter that is not contiguous
            output.copy_(values)


_VECTORS = 8000  # csrc/include/bdgf/group_channel_gate.h: kGateVectors


def _supports_cuda(facts):
    vectors = facts.get("inputs", 0) + 2 * facts.get("hidden", 0) + facts.get("channels", 0) // facts.get("groups", 1)
    return None if vectors <= _VECTORS else f"in + 2 hidden + C/groups is {vectors}; it takes at most {_VECTORS}"


backends.register("group_channel_gate", "cpu", forward=_native_forward, backward=_native_backward)
backends.register(
    "group_channel_gate",
    "cuda",
    forward=functools.partial(_native_forward, workspace=_cuda_workspace),
    backward=functools.partial(_native_backward, workspace=_cuda_workspace),
    supports=_supports_cuda,
)
register_triton("group_channel_gate", backward_module="group_channel_gate_bwd")


def group_channel_gate(
    x: Tensor,
    guide: Tensor | None,
    weight1: Tensor,
    bias1: Tensor,
    weight2: Tensor,
    bias2: Tensor,
    *,
    groups: int,
    gate_source: str = "both",
) -> Tensor:
    """out = x * sigmoid(W2 relu(W1 s + b1) + b2), with s the spatial means of x, of the guide, or of both.

    Squeeze and excitation (Hu et al., arXiv 1709.01507, eq. 2-4) in `groups` blocks: group g of x's channels is
    gated by group g of the means alone.

    Args:
        x: (batch, C, H, W), float32, float16 or bfloat16 (float64 on the CPU), any strides; cast under autocast.
        guide: (batch, C_guide, H', W'), x's dtype; cast under autocast. May be None when gate_source is "x".
        weight1: (groups, hidden, in), in = C/groups for x plus C_guide/groups for the guide, only the sources used, x
            first. bias1: (groups, hidden). weight2: (groups, C/groups, hidden). bias2: (groups, C/groups). Any float
            dtype.
        groups: divides C, and C_guide where the guide is used.
        gate_source: what is squeezed: "x", "guide" or "both".

    Returns:
        (batch, C, H, W) in x's dtype, computed in float32. A guide that is not used has gradient None.

    Raises:
        ValueError, TypeError: the shape, dtype, device or value of an argument is not accepted; the message names the argument.
        RuntimeError: a kernel is asked for a second derivative, a torch.func transform or forward-mode AD, which only the reference
            has.

    Complexity: O(N + N_guide) time for N elements of x beside the small MLP. Elements moved: forward 2 N + N_guide; backward 3 N,
    and N_guide when the guide needs a gradient.

    Examples:
        >>> x = torch.ones(1, 4, 2, 2)
        >>> zeros = torch.zeros(2, 3, 2), torch.zeros(2, 3), torch.zeros(2, 2, 3), torch.zeros(2, 2)
        >>> group_channel_gate(x, None, *zeros, groups=2, gate_source="x")[0, :, 0, 0]  # sigmoid(0) = 0.5
        tensor([0.5000, 0.5000, 0.5000, 0.5000])
    """
    check.main("x", x, 4, "(batch, C, H, W)")
    check.choice("gate_source", gate_source, ("x", "guide", "both"))
    use_x, use_guide = gate_source != "guide", gate_source != "x"
    batch, channels, height, width = x.shape
    check.at_least_one("x", height * width, "pixels")
    groups = check.groups(groups, channels, "x")
    inputs = channels // groups if use_x else 0
    if use_guide:
        check.a_tensor("guide", guide, 4, "(batch, C_guide, H', W')")
        assert guide is not None
        check.at_least_one("guide", guide.shape[2] * guide.shape[3], "pixels")
        check.groups(groups, guide.shape[1], "guide")
        if guide.shape[0] != batch:
            raise ValueError(f"guide has batch {guide.shape[0]}; it takes x's batch, {batch}")
        inputs += guide.shape[1] // groups
    else:
        guide = None
    x, guide = autocast(x, guide)
    if guide is not None:
        check.beside("guide", guide, x, (x.dtype,))
    check.a_tensor("weight1", weight1, 3, "(groups, hidden, in)")
    hidden = weight1.shape[1]
    check.at_least_one("weight1", hidden, "hidden size")
    for name, parameter, expected, layout in (
        ("weight1", weight1, (groups, hidden, inputs), "(groups, hidden, in)"),
        ("bias1", bias1, (groups, hidden), "(groups, hidden)"),
        ("weight2", weight2, (groups, channels // groups, hidden), "(groups, C/groups, hidden)"),
        ("bias2", bias2, (groups, channels // groups), "(groups, C/groups)"),
    ):
        check.beside(name, parameter, x)
        check.shape(name, parameter, expected, layout)

    tensors = (x, guide, weight1, bias1, weight2, bias2)
    facts = {"needs_grad": needs_grad(*tensors), "channels": channels, "groups": groups, "pixels": height * width}
    facts.update(hidden=hidden, inputs=inputs)
    backend, _ = backends.choose("group_channel_gate", x.device.type, x.dtype, **facts)
    plain = backends.plain("group_channel_gate", backend)
    if plain is not None:
        return call_plain(plain, x.device.type, *tensors, groups=groups, gate_source=gate_source)
    real = torch.float64 if x.dtype is torch.float64 else torch.float32
    parameters = (cast(p, real) for p in (weight1, bias1, weight2, bias2))
    return call_kernel("group_channel_gate", backend, (x, guide, *parameters), (groups, use_x, use_guide))
