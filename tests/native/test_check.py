"""The CPU kernels without Python: here, for aarch64 under qemu-user, and the threads under ThreadSanitizer."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "check"))
import run as native_check  # noqa: E402

CSRC = native_check.ROOT / "csrc"


@pytest.mark.slow
def test_every_level_against_float64():
    """For aarch64 where its tools are installed, else for this machine, whose levels the other tests of this folder know."""
    machine = "here" if native_check.missing("aarch64") else "aarch64"
    if lacking := native_check.missing(machine):
        pytest.skip(lacking)
    status, text = native_check.check(machine)
    assert status == 0, text[-4000:]
    assert "threads from std::thread" in text and " 0 problems" in text
    assert ("neon" if machine == "aarch64" else "scalar") in text


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_the_pool_under_thread_sanitizer(tmp_path):
    """Each task once, no more threads than asked for, several callers, exceptions, nested regions, a forked child."""
    pool = ("cpu/parallel.cpp", "cpu/threads/pool.cpp", "cpu/threads/pool_alone.cpp")
    sources = [native_check.HERE / "threads.cpp", *(CSRC / f for f in pool)]
    program = tmp_path / "threads"
    subprocess.run(
        ["g++", "-std=gnu++17", "-O1", "-g", "-fsanitize=thread", "-pthread", "-DBDGF_ISA=base", "-DBDGF_THREADS_MAIN",
         f"-I{CSRC}", f"-I{CSRC / 'include'}", *map(str, sources), "-o", str(program)], check=True)  # fmt: skip
    done = subprocess.run([program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]


OPENMP = """
extern "C" void GOMP_parallel(void (*function)(void*), void* data, unsigned, unsigned) { function(data); }
extern "C" int omp_get_thread_num() { return 0; }
"""
ASKING = """
#include "cpu/threads/team.h"
extern "C" const char* source() { return bdgf::thread_source(); }
extern "C" int members_run() {
  int ran = 0;
  bdgf::run_team(1, [](void* count, int member) { *static_cast<int*>(count) += member + 1; }, &ran);
  return ran;
}
"""


@pytest.mark.skipif(not sys.platform.startswith("linux") or shutil.which("g++") is None, reason="needs Linux and g++")
def test_threads_come_from_the_openmp_that_torch_links(tmp_path):
    """Not every torch puts its OpenMP among the names of the whole process: those for aarch64 keep it to themselves."""
    for name, source in {"openmp": OPENMP, "torch": "", "asking": ASKING}.items():
        (tmp_path / f"{name}.cpp").write_text(source)

    def library(name, *rest):
        command = ["g++", "-std=gnu++17", "-shared", "-fPIC", "-pthread", f"-I{CSRC}", *rest]
        subprocess.run([*map(str, command), f"-Wl,-soname,{name}", "-o", str(tmp_path / name)], check=True)

    library("libstub.so.1", tmp_path / "openmp.cpp")
    library("libtorch_cpu.so", tmp_path / "torch.cpp", "-Wl,--no-as-needed,-rpath,$ORIGIN", tmp_path / "libstub.so.1")
    library("libasking.so", tmp_path / "asking.cpp", CSRC / "cpu/threads/runtime.cpp", CSRC / "cpu/threads/pool.cpp", "-ldl")
    code = "import ctypes, sys; [ctypes.CDLL(n, int(m)) for n, m in zip(sys.argv[2::2], sys.argv[3::2])]; "
    code += "c = ctypes.CDLL(sys.argv[1]); c.source.restype = ctypes.c_char_p; print(c.source().decode(), c.members_run())"

    def source(*before):
        command = [sys.executable, "-c", code, tmp_path / "libasking.so", *before]
        return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True).stdout.strip()

    assert source() == "std::thread 1"
    assert source(tmp_path / "libtorch_cpu.so", os.RTLD_LOCAL) == "the process's OpenMP 1"
    assert source(tmp_path / "libstub.so.1", os.RTLD_GLOBAL) == "the process's OpenMP 1"
