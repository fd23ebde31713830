"""The emulation catches what it is there for: kernels with one planted bug each (planted.cu)."""

import pytest

pytestmark = pytest.mark.xdist_group("emulated")  # two workers would build the emulation twice

# A tensor as the bindings read it by its methods: the child starts without torch.
PROGRAM = """
import array, os, sys
sys.path.insert(0, os.environ["BDGF_EMULATED"])
import bdgf_emulated

class Device:
    type, index = "cpu", None

class Tensor:
    dtype, device = "torch.float32", Device()
    def __init__(self, n):
        self.values = array.array("f", [float("nan")] * n)
        self.shape = (n,)
    def stride(self):
        return (1,)
    def data_ptr(self):
        return self.values.buffer_info()[0]

found = []
for order in ("ascending", "descending", "random"):
    bdgf_emulated.set_order(order, 3)
    out = Tensor(256)
    bdgf_emulated.planted(sys.argv[1], out)
    found.append(out.values.tobytes())
if any(f != found[0] for f in found):
    print("the orders differ")
elif any(v != v for v in out.values):
    print("a value was never written")
else:
    expected = [2 * i + 1 - 128 * (i % 128 == 127) + 32 * (i - i % 32) + 496 for i in range(256)]
    print("right" if list(out.values) == expected else "wrong")
"""


@pytest.mark.parametrize(
    ("bug", "caught"),
    [
        ("none", "right"),
        ("missing barrier", "the orders differ"),
        ("missing warp barrier", "the orders differ"),
        ("store outside", "heap-buffer-overflow"),
        ("store outside shared memory", "heap-buffer-overflow"),
        ("store outside dynamic memory", "heap-buffer-overflow"),
        ("unwritten", "a value was never written"),
        ("unreached barrier", "the threads of a block do not meet"),
        ("unreached shuffle", "the threads of a block do not meet"),
        ("launch bound", "has 128 threads a block; its launch bound is 64"),
        ("grid", r"grid (1, 65536, 1)"),
        ("dynamic memory", "61440 bytes of dynamic shared memory; its limit is 49152"),
    ],
)
def test_a_planted_bug_is_caught(child, bug, caught):
    done = child("-c", PROGRAM, bug)
    assert caught in done.stdout + done.stderr, done.stdout + done.stderr[-3000:]


def test_division_by_a_known_number(child):
    program = """
import os, random, sys
sys.path.insert(0, os.environ["BDGF_EMULATED"])
from bdgf_emulated import divided
random.seed(0)
by = [*range(1, 70), *(2**k + j for k in range(7, 34) for j in (-1, 0, 1)), *(random.randrange(1, 2**31) for _ in range(300))]
for d in by:
    near = [d * k + j for k in (1, 2, 3, (2**31 - 1) // d, 2**40 // d) for j in (-1, 0, 1)]
    for n in [0, 1, 2**31 - 1, 2**31, 2**32 + 5, 2**45, *near, *(random.randrange(2**31) for _ in range(30))]:
        assert n < 0 or divided(n, d) == n // d, (n, d)
print("right")
"""
    done = child("-c", program)
    assert done.stdout == "right\n", done.stdout + done.stderr[-3000:]
