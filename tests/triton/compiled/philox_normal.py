"""What is compiled of philox_normal: long samples, short ones, a scene's pixels, seed and stream from tensors."""

import torch

from bdgf_fast import ops

REGISTERS = {"philox_normal_kernel": 96}


def _call(shape, **options):
    return lambda dtype: ops.philox_normal(shape, options.pop("seed", 3), dtype=dtype, device="cpu", **options)


CALLS = [
    _call((16, 64, 121)),
    _call((64, 49)),
    _call((4, 3, 11, 11), origin=torch.zeros(4, 2, dtype=torch.int64), extent=(300, 500)),
    _call((16, 1024), stream=torch.tensor(1), sample_ids=torch.arange(16)),
]
