"""Multi-head attention between two token sequences as a module."""

from __future__ import annotations

from torch import Tensor, nn

from ..ops import cross_attention


class CrossAttention(nn.Module):
    """Queries from x (B, Lq, width), keys and values from context (B, Lk, context_width; x itself if None) -> (B, Lq,
    width)."""

    def __init__(self, width: int, heads: int = 4, context_width: int | None = None) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not a multiple of heads {heads}")
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width if context_width is None else context_width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(
        self, x: Tensor, context: Tensor | None = None, key_mask: Tensor | None = None, attn_bias: Tensor | None = None
    ) -> Tensor:
        batch, length, width = x.shape
        context = x if context is None else context
        q = self.query(x).view(batch, length, self.heads, -1).transpose(1, 2)
        k, v = self.key_value(context).view(batch, context.shape[1], 2, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = cross_attention(q, k, v, key_mask=key_mask, attn_bias=attn_bias)
        return self.out(y.transpose(1, 2).reshape(batch, length, width))
