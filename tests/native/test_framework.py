"""What stands around the kernels: levels, build facts, tensor crossing, forked children, what the binary links."""

import multiprocessing
import os
import re
import shutil
import subprocess
import sys

import pytest
import torch

from bdgf_fast import _native

C = _native.load()


def draw(out, threads=1):
    C.philox_normal(out, 3, 0, None, None, 0, 0, 0, threads)
    return out


def python(code, **env):
    return subprocess.run(
        [sys.executable, "-c", code], env=os.environ | env, capture_output=True, text=True, timeout=120, check=False
    )


def test_build_info():
    info = _native.build_info()
    assert _native.available() and info["extension"] == C.__file__
    assert info["cpu_isa"] in info["cpu_isas"] and info["cpu_isas"][0] == "scalar"
    assert info["threads"] in ("OpenMP", "the process's OpenMP", "libdispatch", "std::thread") and info["compiler"]
    assert info["openmp"] == ("OpenMP" in info["threads"])
    if info["cuda"] is None:
        assert info["cuda_missing_because"]
    else:
        assert re.match(r"\d+\.\d+", info["cuda"]) and info["cuda_architectures"]


@pytest.mark.parametrize("level", C.cpu_isas())
def test_level_by_environment(level):
    done = python("from bdgf_fast import _native; print(_native.load().cpu_isa())", BDGF_CPU_ISA=level)
    assert done.stdout.strip() == level, done.stderr


def test_unknown_level_is_one_sentence():
    done = python("from bdgf_fast import _native; _native.load()", BDGF_CPU_ISA="sse9")
    assert "ImportError: BDGF_CPU_ISA=sse9: known levels are scalar, neon, avx2 and avx512" in done.stderr
    with pytest.raises(ValueError, match="'sse9' known levels are"):
        C.set_cpu_isa("sse9")
    missing = "neon" if "avx2" in C.cpu_isas() else "avx2"
    with pytest.raises(ValueError, match="this build has no such level|this CPU does not have"):
        C.set_cpu_isa(missing)


def test_missing_extension_names_the_fix(tmp_path):
    package = os.path.dirname(_native.__file__)
    shutil.copytree(package, tmp_path / "bdgf_fast", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        # not the finder of an editable install
        "sys.meta_path[:] = [f for f in sys.meta_path if 'ScikitBuild' not in type(f).__name__]\n"
        "from bdgf_fast import _native\nassert not _native.available()\nprint(_native.build_info()['reason'])"
    )
    done = python(code)
    assert "pip install ." in done.stdout and "run pytest against what is installed" in done.stdout, done.stderr


# ------------------------------------------------------------------------------------------------ tensors
class OldTensor:
    """A tensor as torch before 2.10 shows it: no exchange API, only methods."""

    def __init__(self, tensor):
        self.tensor = tensor

    def __getattr__(self, name):
        return getattr(self.tensor, name)


def test_older_torch_path_agrees():
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        new, old = torch.empty(3, 17, dtype=dtype), torch.empty(3, 17, dtype=dtype)
        draw(new)
        draw(OldTensor(old))
        assert torch.equal(new, old)
    with pytest.raises(ValueError, match="must be contiguous"):
        draw(OldTensor(torch.empty(4, 6).t()))
    with pytest.raises(TypeError, match="dtype float64"):
        draw(OldTensor(torch.empty(4, dtype=torch.float64)))
    with pytest.raises(ValueError, match="other than cpu and cuda"):
        draw(OldTensor(torch.empty(4, device="meta")))


def test_offset_views_parameters_and_gradients():
    want = draw(torch.empty(2, 6))
    buffer = torch.zeros(4, 6)
    draw(buffer[1:3])
    assert torch.equal(buffer[1:3], want) and not buffer[0].any() and not buffer[3].any()
    parameter = torch.nn.Parameter(torch.empty(2, 6))
    draw(parameter)
    assert torch.equal(parameter.detach(), want)


def test_size_one_dimensions_may_have_any_stride():
    out = torch.empty(8).as_strided((2, 1, 4), (4, 77, 1))
    assert torch.equal(draw(out).flatten(1), draw(torch.empty(2, 4)))


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.view_as_complex(torch.zeros(3, 2)).conj().imag.clone(),
        lambda: torch._neg_view(torch.zeros(6)),
        lambda: torch.zeros(3, dtype=torch.complex64),
        lambda: torch.zeros(3, 3).to_sparse(),
        lambda: torch.zeros((1,) * 9),
    ],
    ids=["plain", "negated", "complex", "sparse", "nine dimensions"],
)
def test_odd_tensors_are_refused_or_work(make, request):
    if "plain" in request.node.callspec.id:
        draw(make())
        return
    with pytest.raises((ValueError, TypeError), match="philox_normal: out "):
        draw(make())


def test_fake_tensors_are_refused():
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        fake = torch.empty(4)
    with pytest.raises((ValueError, TypeError), match="philox_normal: out "):
        draw(fake)


def test_views_beyond_the_output_stay_untouched():
    for n in range(1, 40):
        buffer = torch.full((n + 64,), torch.nan)
        draw(buffer[32 : 32 + n].view(1, n))
        assert buffer[:32].isnan().all() and buffer[32 + n :].isnan().all() and not buffer[32 : 32 + n].isnan().any()
        tiles = torch.full((n * 3 + 64,), torch.nan)
        C.philox_normal(tiles[32:-32].view(1, 1, 3, n), 1, 0, None, torch.tensor([[1, 1]]), 9, 99, 0, 1)
        assert tiles[:32].isnan().all() and tiles[-32:].isnan().all() and not tiles[32:-32].isnan().any()


# ------------------------------------------------------------------------------------------------ processes
def child(queue):
    torch.set_num_threads(1)  # torch's own parallel regions do hang in such a child
    queue.put(draw(torch.empty(64, 4096), threads=2).numpy().tobytes())


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_forked_child_after_threads_were_used():
    want = draw(torch.empty(64, 4096), threads=2).numpy().tobytes()
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=child, args=(queue,))
    process.start()
    try:
        assert queue.get(timeout=60) == want
    finally:
        process.join(10)
        process.kill()


class Noise(torch.utils.data.Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, i):
        out = torch.empty(16, 4096)
        C.philox_normal(out, i, 0, None, None, 0, 0, 0, 2)
        return out


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_data_loader_workers():
    draw(torch.empty(64, 4096), threads=2)
    loader = torch.utils.data.DataLoader(
        Noise(), batch_size=2, num_workers=2, timeout=60, multiprocessing_context="fork"
    )
    got = torch.cat(list(loader))
    assert torch.equal(got, torch.stack([Noise()[i] for i in range(8)]))


def test_many_python_threads():
    from concurrent.futures import ThreadPoolExecutor

    want = draw(torch.empty(32, 4096))
    with ThreadPoolExecutor(4) as pool:
        assert all(torch.equal(o, want) for o in pool.map(lambda _: draw(torch.empty(32, 4096), 2), range(16)))


@pytest.mark.skipif(shutil.which("readelf") is None, reason="readelf is not installed")
def test_links_neither_torch_nor_the_driver():
    text = subprocess.run(["readelf", "-d", C.__file__], capture_output=True, text=True, check=True).stdout
    needed = re.findall(r"NEEDED.*\[(.*)\]", text)
    assert needed and not [n for n in needed if re.match(r"lib(cuda|cudart|torch|c10)", n)], needed
