"""denoising_loss's Triton kernel: values and gradients for every target, address and layout."""

from __future__ import annotations

import pytest
import torch
from bdgf_fast.triton_kernels import denoising_loss as kernels

from bdgf_fast import ops, reference
from bdgf_fast.diffusion import Schedule

OP = "denoising_loss"
SCHEDULE = Schedule.linear()
TYPES = ("epsilon", "sample", "v_prediction")
T = torch.tensor([0, 500, 999])
HIDDEN = torch.tensor([[True, False], [False, True], [False, False]])


def tensors(shape=(3, 5, 3, 7), dtype=torch.float32):
    g = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=g).to(dtype) for name in ("pred", "x0")}


def compare(check_gradients, given, **options):
    options = {"t": T[: given["pred"].shape[0]], "schedule": SCHEDULE, "seed": 7, "channel_groups": (2, 3)} | options
    check_gradients(
        lambda **t: ops.denoising_loss(**t, **options), lambda **t: reference.denoising_loss(**t, **options), given
    )


@pytest.mark.parametrize("prediction_type", TYPES)
def test_targets(check_gradients, prediction_type):
    compare(check_gradients, tensors(), prediction_type=prediction_type)
    compare(check_gradients, tensors(), prediction_type=prediction_type, hidden=HIDDEN, min_snr_gamma=5.0)
    given = tensors() | {"weights": torch.rand(3, 2, generator=torch.Generator().manual_seed(1))}
    compare(check_gradients, given, prediction_type=prediction_type, hidden=HIDDEN)


@pytest.mark.parametrize("groups", [(5,), (1, 1, 3), (1,) * 5])
def test_groups(check_gradients, groups):
    compare(check_gradients, tensors(), channel_groups=groups, prediction_type="v_prediction")


@pytest.mark.parametrize("shape", [(1, 5), (3, 5, 1), (2, 5, 33), (2, 5, 2, 2, 3)])
def test_shapes(check_gradients, shape):
    compare(check_gradients, tensors(shape), prediction_type="v_prediction")


def test_segments(check_gradients, monkeypatch):
    monkeypatch.setattr(kernels, "TILES", 1)
    compare(check_gradients, tensors((2, 5, 33, 40)), prediction_type="v_prediction", channel_groups=(4, 1))
    options = {"origin": torch.tensor([[0, 0], [3, 2]]), "extent": (40, 50)}
    compare(check_gradients, tensors((2, 5, 33, 40)), channel_groups=(4, 1), **options)


def test_addresses(check_gradients):
    options = {"sample_ids": torch.tensor([8, 8, 1]), "stream": 5}
    compare(check_gradients, tensors(), **options)
    options |= {"origin": torch.tensor([[0, 0], [3, 2], [4, 0]]), "extent": (10, 9)}
    compare(check_gradients, tensors(), **options, prediction_type="v_prediction")


def test_layouts(check_gradients):
    given = tensors()
    for lay in (lambda x: x.to(memory_format=torch.channels_last), lambda x: torch.cat([x, x], 1)[:, 5:]):
        laid = {name: lay(x) for name, x in given.items()}
        compare(check_gradients, laid, prediction_type="v_prediction")
    compare(check_gradients, {"pred": given["pred"], "x0": given["x0"][:1].expand(3, -1, -1, -1)}, prediction_type="sample")


def test_dtypes(check_gradients, as_dtype):
    given = {name: as_dtype(x) for name, x in tensors().items()}
    compare(check_gradients, given, prediction_type="v_prediction")
    compare(check_gradients, given | {"x0": given["x0"].float()}, prediction_type="sample")


def test_a_timestep_out_of_range_is_nan():
    for kind in TYPES:
        loss = ops.denoising_loss(**tensors(), t=torch.tensor([3, -1, 1000]), schedule=SCHEDULE, seed=5, channel_groups=(5,),
                                  prediction_type=kind)  # fmt: skip
        assert loss[1:].isnan().all() and loss[0].isfinite().all()


def test_empty():
    given = {k: x.requires_grad_() for k, x in tensors((0, 5, 3, 3)).items()}
    loss = ops.denoising_loss(**given, t=T[:0], schedule=SCHEDULE, seed=1, channel_groups=(2, 3), prediction_type="sample")
    loss.sum().backward()
    assert loss.shape == (0, 2)
