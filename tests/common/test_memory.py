"""Freed memory stays with the process, and can be returned: seen in a process of its own, since the setting stays."""

import subprocess
import sys

import pytest

PROGRAM = """
import resource
import torch
from bdgf_fast.common.memory import keep_freed_memory, return_freed_memory

def faults(times=20):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):  # 24 MiB, the size of a branch's map of a block, as tensors come and go in a pass
        a = torch.ones(6 << 20)
        b = a + 1
        del a, b
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return 1024 * int(open("/proc/self/status").read().partition("VmRSS:")[2].split()[0])

keep_freed_memory()
faults(10)  # the heap grows to its size
assert faults() < 20_000, "the pages were taken anew"  # 240,000 without
held = resident()
return_freed_memory()
assert resident() < held - (16 << 20)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")
def test_freed_memory_is_kept_and_returned():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
