"""Scaled dot-product attention between two sequences."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import _native, backends, reference
from . import _check as check
from . import _cross_attention_table as table
from ._library import autocast, call_kernel, call_plain, define, gradients, needs_grad, register_triton
from ._noise import number

_TENSORS = "Tensor query, Tensor key, Tensor value, Tensor? key_mask, Tensor? attn_bias, Tensor? seed_at"
_SCALARS = "float scale, float dropout_p, SymInt seed"


def _allocate_forward(query, key, value, key_mask, attn_bias, seed_at, scale, dropout_p, seed):
    """out; then, kept for the backward, statistics (2, batch, heads, Lq): each row's largest score, and the log of the sum of
    exp(score - largest), +inf for dead rows."""
    real = torch.float64 if query.dtype is torch.float64 else torch.float32
    return [torch.empty_like(query), query.new_empty((2, *query.shape[:3]), dtype=real)]


define("cross_attention", "fwd", f"{_TENSORS}, {_SCALARS}", _allocate_forward)
define(
    "cross_attention",
    "bwd",
    f"Tensor grad_out, {_TENSORS}, Tensor statistics, {_SCALARS}, bool[] needs",
    lambda grad_out, *arguments: gradients(arguments[:6], arguments[-1]),
)


def _seed(seed_at, seed):
    return seed if seed_at is None else seed_at


def _workspace(native, query, key, value, key_mask, dropout_p, backward):
    threads = torch.get_num_threads()
    floats = native.cross_attention_workspace(key, value, key_mask is not None, dropout_p > 0.0, backward)
    return query.new_empty(floats * threads, dtype=torch.float32), threads


def _native_forward(outputs, query, key, value, key_mask, attn_bias, seed_at, scale, dropout_p, seed):
    native = _native.load()
    workspace, threads = _workspace(native, query, key, value, key_mask, dropout_p, False)
    native.cross_attention_fwd(
        *outputs, query, key, value, key_mask, attn_bias, scale, dropout_p, _seed(seed_at, seed), workspace, threads
    )


def _native_backward(
    outputs, grad_out, query, key, value, key_mask, attn_bias, seed_at, statistics, scale, dropout_p, seed, needs
):
    native = _native.load()
    workspace, threads = _workspace(native, query, key, value, key_mask, dropout_p, True)
    grad_query, grad_key, grad_value, _, grad_bias, _ = outputs
    native.cross_attention_bwd(
        grad_query, grad_key, grad_value, grad_bias, grad_out, query, key, value, key_mask, attn_bias, statistics,
        scale, dropout_p, _seed(seed_at, seed), torch.empty_like(statistics[0]), workspace, threads,
    )  # fmt: skip


def _native_obstacle(facts):
    depth = facts.get("depth", 1)
    return f"depth is {depth}; the kernel takes up to 128" if depth > 128 else None


def _library_attention(query, key, value, *, key_mask, attn_bias, scale, dropout_p, seed):
    mask = attn_bias if key_mask is None else key_mask[:, None, None, :]
    if attn_bias is not None and mask.dtype is not torch.float32:  # which torch takes too, and whose range query's may lack
        mask = mask.to(query.dtype)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale)


def _library_obstacle(facts):
    if facts.get("dropout", False):
        return "torch's dropout draws from its own generator"
    if facts.get("mask", False) and facts.get("bias", False):
        return "torch would add key_mask and attn_bias into one full mask"
    if facts.get("mask", False) and torch.__version__ < torch.torch_version.TorchVersion("2.13"):
        return "rows without a key may come out as NaN in this torch"
    return None


_LEVEL = table.processor(_native.load().cpu_isa()) if _native.available() else None


def _native_preference(facts):
    """What was measured: the committed table sends a shape to torch where torch is ahead and can take the call."""
    if "columns" not in facts or facts["dtype"] is torch.float64 or _library_obstacle(facts) is not None:
        return None
    if facts.get("bias", False) and facts.get("needs_grad", False):
        return None  # torch keeps one number a row: the gradients of rows whose largest score is large are wrong
    bits = "float32" if facts["dtype"] is torch.float32 else "16 bit"
    ratio = table.ratio(_LEVEL, bits, facts.get("needs_grad", False), facts["columns"], facts["depth"])
    return None if ratio is None else f"torch was measured faster near this size (it takes {ratio:.2f} of the kernel's time)"


backends.register(
    "cross_attention", "cpu", forward=_native_forward, backward=_native_backward, supports=_native_obstacle,
    prefers=_native_preference,
)  # fmt: skip
register_triton("cross_attention", _native_obstacle, "cross_attention_bwd")
backends.register_plain("cross_attention", "reference", reference.cross_attention)
backends.register_plain("cross_attention", "torch", _library_attention, _library_obstacle)


def cross_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    key_mask: Tensor | None = None,
    attn_bias: Tensor | None = None,
    scale: float | None = None,
    dropout_p: float = 0.0,
    seed: int | Tensor | None = None,
) -> Tensor:
    """softmax(scale Q K' + attn_bias) V: torch's `scaled_dot_product_attention` for many short sequences.

    Args:
        query: (batch, heads, Lq, d), float32, float16 or bfloat16 (float64 on the CPU), any strides.
        key, value: (batch, heads, Lk, d), query's dtype. All three are cast under autocast.
        key_mask: bool (batch, Lk), True = attend. A row left without a key gives 0 and passes no gradient.
        attn_bias: (1 or batch, 1 or heads, 1 or Lq, Lk), any float dtype, added to the scores; -inf masks.
        scale: 1/sqrt(d) when None.
        dropout_p: probability in [0, 1) with which a weight is set to 0, the others being divided by 1 - dropout_p.
            Pass 0 outside of training.
        seed: int or 0-d int64 tensor on the device, needed for dropout: weight (head, i, j) of sample b is dropped when
            word (head Lq + i) Lk + j of sample b, stream 0, is below dropout_p 2^32. The same seed drops the same
            weights.

    Returns:
        (batch, heads, Lq, d) in query's dtype, computed in float32.

    Raises:
        ValueError, TypeError: the shape, dtype, device or value of an argument is not accepted; the message names the argument.
        RuntimeError: a kernel is asked for a second derivative, a torch.func transform or forward-mode AD, which only the reference
            has.

    The equation is (1) of Vaswani et al., arXiv 1706.03762. torch's own arguments (attn_mask, is_causal, heads shared by several
    queries, other numbers of dimensions): `bdgf_fast.compat.scaled_dot_product_attention`, on the same kernels.

    Complexity: O(batch heads Lq Lk d) time; nothing of size Lq Lk is stored but the gradient of an attn_bias of that size.

    Examples:
        >>> query, key, value = torch.zeros(1, 1, 2, 4), torch.zeros(1, 1, 3, 4), torch.arange(12.0).reshape(1, 1, 3, 4)
        >>> mask = torch.tensor([[True, True, False]])
        >>> cross_attention(query, key, value, key_mask=mask)[0, 0]
        tensor([[2., 3., 4., 5.],
                [2., 3., 4., 5.]])
    """
    check.main("query", query, 4, "(batch, heads, Lq, d)")
    batch, heads, rows, depth = query.shape
    check.at_least_one("query", rows, "length")
    check.at_least_one("query", depth, "depth")
    check.a_tensor("key", key, 4, "(batch, heads, Lk, d)")
    check.a_tensor("value", value, 4, "(batch, heads, Lk, d)")
    columns = key.shape[2]
    check.at_least_one("key", columns, "length")
    query, key, value = autocast(query, key, value)
    for name, x in (("key", key), ("value", value)):
        check.beside(name, x, query, (query.dtype,))
        check.shape(name, x, (batch, heads, columns, depth), "(batch, heads, Lk, d)")
    if key_mask is not None:
        check.beside("key_mask", key_mask, query, (torch.bool,))
        check.shape("key_mask", key_mask, (batch, columns), "(batch, Lk)")
    if attn_bias is not None:
        layout = "(1 or batch, 1 or heads, 1 or Lq, Lk)"
        check.a_tensor("attn_bias", attn_bias, 4, layout)
        check.beside("attn_bias", attn_bias, query)
        full = (batch, heads, rows, columns)
        if attn_bias.shape[3] != columns or any(s not in (1, n) for s, n in zip(attn_bias.shape, full, strict=True)):
            raise ValueError(f"attn_bias has shape {tuple(attn_bias.shape)}; it takes {layout} of {full}")
    dropout_p = check.real("dropout_p", dropout_p)
    if not 0.0 <= dropout_p < 1.0:
        raise ValueError(f"dropout_p is {dropout_p}; it takes a probability in [0, 1)")
    if dropout_p > 0.0 and seed is None:
        raise ValueError("seed is None; dropout_p above 0 takes an int or a 0-d int64 tensor")
    scale = 1.0 / math.sqrt(depth) if scale is None else check.real("scale", scale)
    seed, seed_at = number("seed", seed if dropout_p > 0.0 else 0, query.device)

    backend, _ = backends.choose(
        "cross_attention",
        query.device.type,
        query.dtype,
        needs_grad=needs_grad(query, key, value, attn_bias),
        batch=batch,
        heads=heads,
        rows=rows,
        columns=columns,
        depth=depth,
        mask=key_mask is not None,
        bias=attn_bias is not None,
        dropout=dropout_p > 0.0,
    )
    plain = backends.plain("cross_attention", backend)
    if plain is not None:
        return call_plain(
            plain, query.device.type, query, key, value, key_mask=key_mask, attn_bias=attn_bias, scale=scale,
            dropout_p=dropout_p, seed=seed if seed_at is None else seed_at,
        )  # fmt: skip
    if attn_bias is not None and attn_bias.dtype not in (query.dtype, torch.float32):
        attn_bias = attn_bias.to(torch.float64 if query.dtype is torch.float64 else torch.float32)
    tensors = (query, key, value, key_mask, attn_bias, seed_at)
    return call_kernel("cross_attention", backend, tensors, (scale, dropout_p, seed))
