"""What both training loops share: AdamW with a cosine schedule, averaged weights, and the tensors of a checkpoint."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from .named_tensors import load_optimizer_tensors, optimizer_tensors, with_prefix, without_prefix
from .ranks import ranks, reduce_sum


def warm_cosine(step: int, steps: int, warmup: float) -> float:
    """Factor of the learning rate at ``step``: linear over the first ``warmup`` of the steps, then a half cosine to
    zero."""
    rise = max(1, round(warmup * steps))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


class Optimisation:
    """AdamW over a model's parameters, with a moving average of the weights.

    Biases, norms and every other vector are not decayed. ``ema`` = 0 keeps no average. All state is in ``tensors()``.
    """

    def __init__(
        self, model: nn.Module, rate: float, decay: float, warmup: float, steps: int, ema: float, clip: float
    ) -> None:
        self.model, self.rate, self.warmup, self.steps, self.ema, self.clip = model, rate, warmup, steps, ema, clip
        self.parameters = list(model.parameters())
        matrices = [p for p in self.parameters if p.dim() > 1]
        vectors = [p for p in self.parameters if p.dim() <= 1]
        groups = [{"params": matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.99), foreach=True)
        self.average = [p.detach().clone() for p in self.parameters]

    def step(self, loss: Tensor, step: int) -> None:
        """Backward, then ``apply``."""
        loss.backward()
        self.apply(step)

    def apply(self, step: int) -> None:
        """Sum of the gathered gradients over the ranks, clipping, AdamW, average; the gradients are dropped."""
        if ranks()[1] > 1:
            for parameter in self.parameters:  # a rank without a sample has no gradient of its own
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
            gradients = [p.grad for p in self.parameters if p.grad is not None]
            flat = reduce_sum(torch.cat([g.reshape(-1) for g in gradients]))
            for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
                gradient.copy_(part.view_as(gradient))
        if self.clip:
            torch.nn.utils.clip_grad_norm_(self.parameters, self.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * warm_cosine(step, self.steps, self.warmup)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.ema:
            # a short run must not be ruled by its first weights
            keep = min(self.ema, (1 + step) / (10 + step))
            torch._foreach_lerp_(self.average, [p.detach() for p in self.parameters], 1 - keep)

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Within the block the model has the averaged weights."""
        current = [p.detach().clone() for p in self.parameters]
        self.use_average()
        try:
            yield
        finally:
            self._assign(current)

    def use_average(self) -> None:
        """Give the model the averaged weights for good."""
        if self.ema:
            self._assign(self.average)

    def settle(self, weights: list[Tensor]) -> None:
        """Let ``weights`` be what predicts: the average, or the model's own where no average is kept."""
        self.average = [w.clone() for w in weights]
        if not self.ema:
            self._assign(weights)

    @torch.no_grad()
    def _assign(self, values: list[Tensor]) -> None:
        for parameter, value in zip(self.parameters, values, strict=True):
            parameter.copy_(value)

    def tensors(self) -> dict[str, Tensor]:
        """``model.*``, ``average.*`` and ``optimizer.*``: everything ``load`` needs to go on bit for bit."""
        names = [name for name, _ in self.model.named_parameters()]
        average = self.average if self.ema else self.parameters
        return {
            **with_prefix("model", self.model.state_dict()),
            **with_prefix("average", dict(zip(names, average, strict=True))),
            **with_prefix("optimizer", optimizer_tensors(self.optimizer)),
        }

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Inverse of ``tensors()``."""
        self.model.load_state_dict(without_prefix("model", tensors))
        average = without_prefix("average", tensors)
        with torch.no_grad():
            for (name, _), value in zip(self.model.named_parameters(), self.average, strict=True):
                value.copy_(average[name])
        load_optimizer_tensors(self.optimizer, without_prefix("optimizer", tensors))
