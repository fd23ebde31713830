"""The CUDA source of the noise, compiled for the CPU by a plain C++ compiler: bit for bit the CPU kernels' noise."""

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from bdgf_fast import _native

C = _native.load()
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def device(tmp_path_factory):
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler to build the emulation with")
    library = tmp_path_factory.mktemp("emulated") / "noise_device.so"
    command = [compiler, "-std=c++17", "-O2", "-shared", "-fPIC", "-ffp-contract=off", "-fsanitize=undefined"]
    command += ["-fno-sanitize-recover", f"-I{ROOT}/csrc", f"-I{ROOT}/csrc/include"]
    subprocess.run([*command, ROOT / "tests/emulated/noise_device.cpp", "-o", library], check=True)
    return ctypes.CDLL(str(library))


@pytest.mark.parametrize("tile", [None, (0, 0), (3, 5), (2, 6)])
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 5, 7), (3, 2, 4, 16), (2, 1, 3, 130)])
def test_same_bits_as_the_cpu(device, shape, tile):
    seed, stream, purpose = torch.tensor(-77), torch.tensor(2**33 + 5), 3
    ids = torch.arange(shape[0]) * 3 + 1
    origin = None if tile is None else torch.tensor([[tile[0] + b, tile[1]] for b in range(shape[0])])
    extent = (40, 200)
    want, got = torch.full(shape, torch.nan), torch.full(shape, torch.nan)
    C.philox_normal(want, seed, stream, ids, origin, *extent, purpose, 1)
    pointers = [ctypes.c_void_p(t.data_ptr()) for t in (seed, stream, ids)]
    device.fill(
        ctypes.c_void_p(got.data_ptr()), ctypes.c_uint64(0), purpose, *pointers,
        ctypes.c_void_p(None if origin is None else origin.data_ptr()), *map(ctypes.c_int64, (*extent, *shape)),
    )  # fmt: skip
    assert not want.isnan().any()
    assert torch.equal(got.view(torch.int32), want.view(torch.int32))
