"""The execution of compiled kernels that counts their instructions (bench/gpu/sass.py), and the rates of bench/gpu/predict.py."""

from __future__ import annotations

import json
import re
import statistics
import struct
import sys
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "bench/gpu")]
import predict  # noqa: E402
import sass  # noqa: E402

FIRST = sass.PARAMETERS["sm_90"]


def run(*lines: str, threads: int = 32, parameters: bytes = b"", shared: int = 4096, block=(0, 0, 0)):
    """Counts of a program, one instruction a line at 0x00, 0x10, ..."""
    kernel = sass.Kernel([(16 * n, line) for n, line in enumerate(lines)])
    return kernel.count(sass.Launch((7, 1, 1), threads, shared, parameters), block)


def lanes(*lines: str, register: int = 0, **how):
    """The 32 values that a program leaves in a register, through shared memory and back."""
    seen = {}

    class Watched(sass.Warp):
        def run(self):
            yield from super().run()
            seen["value"] = self.bank["R"][register].copy()

    old, sass.Warp = sass.Warp, Watched
    try:
        run(*lines, "EXIT", **how)
    finally:
        sass.Warp = old
    return seen["value"]


def test_a_loop_runs_as_often_as_its_parameter_says():
    program = ("MOV R0, RZ", "IADD3 R0, R0, 0x1, RZ", f"ISETP.GE.AND P0, PT, R0, c[0x0][{FIRST:#x}], PT", "@!P0 BRA 0x10", "EXIT")
    counts = run(*program, parameters=struct.pack("i", 5))
    assert counts["IADD3"] == counts["ISETP"] == counts["BRA"] == 5 and counts["EXIT"] == 1


def test_lanes_that_part_are_counted_on_both_ways_and_meet_again():
    program = ("S2R R0, SR_TID.X", "ISETP.GE.AND P0, PT, R0, 0x8, PT", "BSSY B0, 0x70", "@P0 BRA 0x60", "FADD R1, R1, R1",
               "BRA 0x70", "FMUL R1, R1, R1", "BSYNC B0", "FFMA R1, R1, R1, R1", "EXIT")  # fmt: skip
    counts = run(*program)
    assert (counts["FADD"], counts["FMUL"], counts["BSYNC"], counts["FFMA"]) == (1, 1, 2, 1)


def test_warps_wait_for_each_other_at_a_barrier():
    program = ("S2R R0, SR_TID.X", "SHF.L.U32 R1, R0, 0x2, RZ", "STS [R1], R0", "BAR.SYNC.DEFER_BLOCKING 0x0",
               "LOP3.LUT R1, R1, 0x80, RZ, 0x3c, !PT", "LDS R2, [R1]")  # fmt: skip
    counts = run(*program, "EXIT", threads=64)
    assert counts["BAR"] == 2 and counts["shared_wavefronts"] == 4
    assert (lanes(*program, register=2, threads=64) == np.arange(32)).all()  # the last warp to end reads the first's


@pytest.mark.parametrize(("pitch", "turns"), [(4, 1), (8, 2), (128, 32), (132, 1)])
def test_banks_of_shared_memory(pitch, turns):
    counts = run("S2R R0, SR_TID.X", f"IMAD R1, R0, {pitch:#x}, RZ", "LDS R2, [R1]", "EXIT", shared=8192)
    assert counts["shared_wavefronts"] == turns


def test_arithmetic_of_addresses():
    start = ("S2R R0, SR_TID.X", "MOV R3, 0xfffffff0")
    n = np.arange(32)
    assert (lanes(*start, "IADD3 R1, P0, R3, R0, RZ", "IADD3.X R2, RZ, RZ, RZ, P0, !PT", register=2) == (n >= 16)).all()
    assert (lanes(*start, "IMAD.WIDE.U32 R4, R3, R0, RZ", register=5) == (0xFFFFFFF0 * n >> 32)).all()
    assert (lanes(*start, "LEA.HI R1, R3, R0, RZ, 0x4", register=1) == n + 15).all()
    borrow = lanes(*start, "IADD3 R1, P0, RZ, -R0, RZ", "IMAD.X R2, RZ, RZ, ~RZ, P0", register=2)
    assert (borrow.view(np.int32) == -1 + (n == 0)).all()
    assert (lanes(*start, "SHF.R.S32.HI R1, RZ, 0x1, R3", register=1).view(np.int32) == -8).all()
    assert (lanes(*start, "SHFL.BFLY PT, R1, R0, 0x3, 0x1f", register=1) == n ^ 3).all()
    assert (lanes(*start, "SHFL.UP PT, R1, R0, 0x1, RZ", register=1) == np.maximum(n - 1, 0)).all()
    assert (lanes(*start, "PRMT R1, R3, 0x4560, RZ", register=1) == 0xF0).all()
    assert (lanes(*start, "SGXT.U32 R1, R0, 0x3", register=1) == n % 8).all()
    assert (lanes(*start, "SGXT R1, R0, 0x3", register=1).view(np.int32) == (n + 4) % 8 - 4).all()


@pytest.mark.parametrize(("comparison", "holds"), [("NAN", [1, 0]), ("NUM", [0, 1]), ("GEU", [1, 0]), ("GE", [0, 0])])
def test_comparisons_with_nan(comparison, holds):
    """Of NaN in the upper half of a warp, of 1.0 in the lower, each with 2.0."""
    start = ("S2R R0, SR_TID.X", "ISETP.GE.AND P1, PT, R0, 0x10, PT", "SEL R1, 0x7fc00000, 0x3f800000, P1")
    found = lanes(*start, f"FSETP.{comparison}.AND P0, PT, R1, 2, PT", "SEL R2, 0x1, 0x0, P0", register=2)
    assert found[[31, 0]].tolist() == holds


def test_matrices_of_halves_in_shared_memory():
    """Lane 8 n + r names the 16 bytes of row r of matrix n; of them lane 4 r + j holds word j, or, transposed, two halves."""
    stored = ("S2R R0, SR_TID.X", "SHF.L.U32 R1, R0, 0x4, RZ", "IMAD R4, R0, 0x20001, RZ", "IADD3 R5, R4, 0x64, RZ",
              "STSM.16.M88.2 [R1], R4")  # fmt: skip
    n = np.arange(32)
    assert (lanes(*stored, "LDSM.16.M88.2 R8, [R1]", register=9) == n * 0x20001 + 100).all()
    words = lanes(*stored, "SHF.L.U32 R2, R0, 0x2, RZ", "LDS R8, [R2]", register=8)  # row by row, four words each
    assert (words == n * 0x20001).all()
    halves = (np.arange(32) * 0x20001).astype(np.uint32).view(np.uint16).reshape(8, 8)
    swapped = lanes(*stored, "LDSM.16.MT88.2 R8, [R1]", register=8).astype(np.uint32).view(np.uint16).reshape(8, 8)
    assert (swapped == halves.T).all()
    assert run(*stored, "EXIT")["shared_wavefronts"] == 2


def test_an_unknown_instruction_is_named():
    with pytest.raises(NotImplementedError, match="WGMMA"):
        run("WGMMA.SP R0, R1", "EXIT")


def test_the_rates_are_those_of_the_counters():
    """A scheduler's share of issuing cycles by its warps, over kernels of our own and of mamba_ssm that memory does not bind."""
    rows = json.loads(predict.MEASURED.read_text())
    some = [
        r for r in rows if r["ns"] > 25_000 and r["dram_percent"] < 40 and r["kernel"].startswith(("bdgf", "void", "philox", "q_"))
    ]
    ratios = [100 * predict.issue_share(0.64 * r["warps_percent"] / 4) / r["issue_percent"] for r in some]
    assert len(some) > 30
    assert statistics.median(ratios) == pytest.approx(1, abs=0.05)
    clocks = [r["warp_instructions"] / (528 * r["ns"] * r["issue_percent"] / 100) for r in rows if r["ns"] > 50_000]
    assert statistics.median(clocks) == pytest.approx(predict.RATES["clock"] / 1e9, rel=0.02)


def test_counts_are_those_of_the_hardware():
    """Of the kernels that are as they were when the counters were read: mamba_ssm's."""
    measured: dict[str, list[dict]] = {}
    for row in json.loads(predict.MEASURED.read_text()):
        measured.setdefault(plain(row["kernel"]), []).append(row)
    compared = 0
    for case in json.loads(predict.OUT.read_text())["rows"]:
        peers = case["mamba_ssm"]["kernels"] if "mamba_ssm" in case and "(256, 128" in case["case"] else []
        for kernel in peers:
            for name, tolerance in (("warp_instructions", 1e-6), ("special_functions", 0)):
                known = [row[name] for row in measured.get(plain(kernel["kernel"]), [])]
                near = [x for x in known if abs(kernel[name] - x) <= tolerance * x]
                assert near or not known, f"{case['case']}: {kernel[name]} {name} of {kernel['kernel']}, measured {known}"
                compared += bool(known)
    assert compared >= 10, compared


def plain(kernel: str) -> str:
    """A kernel's name as ncu and c++filt both write it."""
    name = re.sub(r"^void |bdgf::|\s", "", kernel).split("(")[0]
    return name.replace("true", "1").replace("false", "0")


def test_a_peer_without_its_sources_is_one_sentence(monkeypatch, tmp_path, capsys):
    import peers

    recorded = json.loads(predict.launches.FILE.read_text())
    kernels = {x["kernel"] for row in recorded["rows"] for x in row["launches"]}
    monkeypatch.setattr(peers, "PEERS", tmp_path)
    monkeypatch.setattr(predict, "kernels_of", lambda files: dict.fromkeys(kernels))
    monkeypatch.setattr(predict.launches, "sources_digest", lambda: recorded["sources"])
    monkeypatch.setattr(sys, "argv", ["predict.py", "--extension", "x", "--peer", "y", "--only", "(256, 128, 49, 16) float32"])
    assert predict.main() == 1
    assert "make peers" in capsys.readouterr().err


def test_constants_of_two_halves():
    """The compiler writes 32 bits as two halves where it is cheaper, small ones with an exponent."""
    assert (lanes("HFMA2.MMA R1, -RZ, RZ, 0.125, 0", register=1) == 0x30000000).all()
    assert (lanes("HFMA2.MMA R1, -RZ, RZ, 0, 5.9604644775390625e-08", register=1) == 1).all()
    assert run("HSETP2.BF16_V2.GT.AND P0, PT, R1, 20, 20, PT", "@P0 FADD R1, R1, R1", "EXIT")["FADD"] == 1
