"""Every CUDA kernel on the CPU: the tests of its operation (tests/ops), in a child, on the emulated backend."""

import re
from pathlib import Path

import pytest

import bdgf_fast.ops  # noqa: F401
from bdgf_fast import backends

pytestmark = pytest.mark.xdist_group("emulated")  # the last test looks back on the others
HERE = Path(__file__).parent
OPS = sorted(op for op, kernels in backends._registry.items() if "cuda" in kernels)
CASES = "10"
"""Of each test, spread over its cases: every launch runs twice, thread by thread. By hand, without --sample, all are run."""
launched: dict[str, set[str]] = {}


@pytest.mark.parametrize("op", OPS)
def test_the_operation_s_tests_on_emulated_kernels(child, op):
    files = [f"tests/ops/test_{op}.py", *(str(p) for p in HERE.glob(f"cases_{op}.py"))]
    options = ["-p", "emulated_plugin", "-p", "no:cacheprovider", "--sample", CASES, "-q", "-rf", "--durations=5"]
    done = child("-m", "pytest", *options, *files)
    print(done.stdout[-2000:])
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-4000:]
    assert " passed" in done.stdout
    launched[op] = set(re.search(r"^launched: (.*)$", done.stdout, re.M)[1].replace("(", "").replace(")", "").split("; "))


def test_every_launch_in_the_sources_was_made():
    if set(launched) != set(OPS):
        pytest.skip("not all operations ran in this session")
    sources = "".join(p.read_text() for p in (HERE.parents[1] / "csrc/cuda").glob("*.cu"))
    written = {name.strip("()") for name in re.findall(r"BDGF_LAUNCH\((\([^()]*\)|[^,()]*),", sources)}
    assert written and written <= set.union(*launched.values())


def test_the_gate_finds_the_entries_of_a_sample_and_group_in_64_bits():
    """No test can hold batch * C beyond 2^32: where the number of a (sample, group) has 32 bits, it is not multiplied."""
    kernels = (HERE.parents[1] / "csrc/cuda/group_channel_gate.cuh").read_text()
    assert "for (unsigned sample_group" in kernels and not re.findall(r"sample_group \*", kernels)
    assert "int64_t sample_group" in (HERE.parents[1] / "csrc/cuda/group_channel_gate_block.cuh").read_text()
