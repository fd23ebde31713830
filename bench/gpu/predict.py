"""What the CUDA kernels execute on sm_90, counted without a GPU, and the time that follows: bench/results/sm_90_predicted.json.

    python bench/gpu/predict.py [--extension FILE ...] [--peer selective_scan_cuda.so] [--only TEXT] [--out FILE]

launches.json holds the launches of the standard shapes; sass.py executes the compiled kernels with them, block by block, and
this file turns the counts into a time by the rates below. The same is done for the scan of mamba_ssm where peers.py has built it,
and for the Triton kernels under the Triton that is installed (triton_launches.py).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import struct
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(ROOT / "tests/compiled")]
import binary  # noqa: E402
import launches  # noqa: E402
import sass  # noqa: E402
import sass_semantics  # noqa: E402

# The NVIDIA H200, as its counters showed it (bench/results/nvidia-h200-counters.json and the limits in nvidia-h200.json).
RATES = {
    "multiprocessors": 132,
    "schedulers": 4,  # of a multiprocessor; each issues at most one warp instruction a cycle
    "clock": 1.86e9,  # cycles a second, under load
    "ready": 0.18,  # the share of cycles in which one warp has an instruction to issue; n warps: 1 - (1 - ready)^n
    "most_issue": 0.83,  # of the cycles, however many warps there are
    "special_cycles": 8,  # that a special function of a warp keeps its unit (one a scheduler)
    "shared_cycles": 1,  # that a wavefront of shared memory, or a shuffle, keeps the multiprocessor's unit
    "bytes": 4.2e12,  # of device memory a second, read and written
    "launch": 2.0e-6,  # seconds from the start of a kernel to its first instruction, and from its last to its end
    "registers": 65536, "shared": 233472, "warps": 64, "blocks": 32, "shared_system": 1024,  # of a multiprocessor; of a block
}  # fmt: skip
ARCHITECTURE = "sm_90"
OUT = ROOT / "bench/results/sm_90_predicted.json"
MEASURED = ROOT / "bench/results/nvidia-h200-counters.json"
# Held by tests/compiled: what stands for each kernel and is counted within a second or two.
BUDGETED = (
    "selective_scan (256, 128, 49, 16) float32 forward", "selective_scan (256, 128, 49, 16) float32 backward",
    "selective_scan (256, 128, 49, 16) bfloat16 forward", "selective_scan (200000, 32, 4, 16) float32 forward",
    "selective_scan, constant B and C (256, 128, 49, 16) float32 backward",
    "group_channel_gate (1024, 128, 7, 7) float32 forward", "group_channel_gate (1024, 128, 7, 7) float32 backward",
    "group_channel_gate (128, 256, 32, 32) float32 forward", "group_channel_gate (128, 256, 32, 32) float32 backward",
    "philox_normal (1024, 64, 32, 32) float32 forward", "q_sample (1024, 64, 32, 32) float32 forward",
    "q_sample (1024, 64, 32, 32) bfloat16 forward", "denoising_loss (1024, 65, 32, 32) float32 forward",
    "denoising_loss (1024, 65, 32, 32) float32 backward",
)  # fmt: skip
BARRIERS, SHARED = {"BAR"}, {"LDS", "STS", "ATOMS", "LDSM"}
FLOAT = {"FFMA", "FMUL", "FADD", "FMNMX", "FSEL", "FSETP", "HADD2", "F2FP"}
OTHER = (
    SHARED | FLOAT | BARRIERS | sass.SPECIAL | {"LDG", "STG", "SHFL", "BRA", "EXIT", "BSSY", "BSYNC", "NOP", "shared_wavefronts"}
)
# Bytes of dynamic shared memory of mamba_ssm's kernels, by (direction, steps a thread, bytes an element).
PEER_SHARED = {("fwd", 4, 4): 3104, ("fwd", 8, 4): 4192, ("fwd", 8, 2): 3136, ("fwd", 4, 2): 2576,
               ("bwd", 4, 4): 8888, ("bwd", 8, 4): 11064, ("bwd", 8, 2): 10008, ("bwd", 4, 2): 8360}  # fmt: skip


def blocks_to_count(kernel: str, grid: tuple[int, ...], case: str) -> list[tuple[int, int, int]]:
    """The blocks that stand for all: one in the middle, or as many as differ from each other."""
    middle = grid[0] // 2
    if kernel.startswith("denoising_loss_kernel"):  # the segments of one sample
        segments = max(1, grid[0] // int(re.search(r"\((\d+),", case)[1]))
        return [(middle // segments * segments + i, 0, 0) for i in range(segments)]
    if kernel == "gate_weights_kernel":  # of each of the four parameters
        return [(grid[0] * (2 * i + 1) // 16, 0, 0) for i in range(8)]
    # y is the gradient; that of B, behind a table of jumps, is summed as that of C.
    if kernel == "selective_scan_block_sums_kernel":
        return [(middle, y, 0) for y in (0, 2, 2, 3, 4)]
    if "_kernel_traits<" in kernel:  # mamba_ssm: (sample, channel)
        return [(middle, grid[1] // 2, 0)]
    return [(middle, y, 0) for y in range(grid[1])]


def counted(kernel: binary.Kernel, launch: sass.Launch, blocks: Iterable[tuple[int, int, int]]) -> Counter:
    """What one block executes on average."""
    program, total, number = sass.Kernel(kernel.code), Counter(), 0
    for block in blocks:
        total.update(program.count(launch, block))
        number += 1
    return Counter({name: value / number for name, value in total.items()})


def counted_by_rows(kernel: binary.Kernel, launches_: list[sass.Launch], rows: float) -> Counter:
    """What one program executes that takes so many rows, from launches where it takes one and two."""
    one, two = (counted(kernel, launch, [(0, 0, 0)]) for launch in launches_)
    return Counter({name: one[name] + (rows - 1) * (two[name] - one[name]) for name in one | two})


def resident_blocks(kernel: binary.Kernel, threads: int, dynamic: int) -> int:
    """The blocks that fit on a multiprocessor at the same time."""
    warps = (threads + 31) // 32
    by_registers = RATES["registers"] // (warps * ((kernel.registers + 7) // 8 * 256))
    by_shared = RATES["shared"] // (kernel.shared + dynamic + RATES["shared_system"])
    return int(max(1, min(by_registers, by_shared, RATES["warps"] // warps, RATES["blocks"])))


def issue_share(warps: float) -> float:
    """The share of cycles in which a scheduler with so many warps issues an instruction."""
    return min(RATES["most_issue"], 1 - (1 - RATES["ready"]) ** warps)


def predicted(kernel: binary.Kernel, launch: dict, counts: Counter) -> dict:
    """One kernel's row: its counts over the whole grid, its time and what binds it."""
    blocks, warps = launch["grid"][0] * launch["grid"][1], (launch["block"] + 31) // 32
    shared_turns, shuffles = counts["shared_wavefronts"], counts["SHFL"]
    instructions = sum(v for name, v in counts.items() if name != "shared_wavefronts")
    special = sum(counts[name] for name in sass.SPECIAL)
    tensor = sum(counts[name] for name in sass_semantics.TENSOR)
    resident = resident_blocks(kernel, launch["block"], launch["dynamic_shared"])
    share = -(-blocks // RATES["multiprocessors"])  # of one multiprocessor
    beside = min(resident, share) * warps / RATES["schedulers"]
    issue = issue_share(beside)
    scheduler = share / RATES["schedulers"] / RATES["clock"]
    seconds = {
        "issue": scheduler * instructions / issue,
        "special functions": scheduler * special * RATES["special_cycles"],
        "shared memory": share / RATES["clock"] * (shared_turns + shuffles) * RATES["shared_cycles"],
    }
    bound = max(seconds, key=seconds.__getitem__)
    return {
        "kernel": kernel.name, "launches": launch["times"], "blocks": blocks, "threads": launch["block"],
        "warp_instructions": round(instructions * blocks), "special_functions": round(special * blocks),
        "shared_instructions": round(sum(counts[n] for n in SHARED) * blocks), "shared_wavefronts": round(shared_turns * blocks),
        "integer_share": round(sum(v for n, v in counts.items() if n not in OTHER) / instructions, 2),  # addresses, bounds, moves
        "shuffles": round(shuffles * blocks), "barriers": round(sum(counts[n] for n in BARRIERS) * blocks),
        "registers": kernel.registers, "shared_bytes": kernel.shared + launch["dynamic_shared"], "resident_warps": resident * warps,
        "microseconds": round(1e6 * (seconds[bound] + RATES["launch"]), 2), "bound": bound,
        **({"tensor_instructions": round(tensor * blocks)} if tensor else {}),
    }  # fmt: skip


def row_of(case: dict, kernels: dict[str, binary.Kernel]) -> dict:
    """A case in one direction: its kernels, their sum, and the bytes that must move."""
    rows = []
    for launch in case["launches"]:
        kernel, grid = kernels[launch["kernel"]], tuple(launch["grid"])
        shared = kernel.shared + launch["dynamic_shared"]

        def how(parameters, launch=launch, grid=grid, shared=shared):
            return sass.Launch(grid, launch["block"], shared, launches.unpacked(parameters), ARCHITECTURE)

        if "with_one_and_two_rows" in launch:
            counts = counted_by_rows(kernel, [how(p) for p in launch["with_one_and_two_rows"]], launch["rows"])
        else:
            counts = counted(kernel, how(launch["parameters"]), blocks_to_count(launch["kernel"], grid, case["case"]))
        rows.append(predicted(kernel, launch, counts))
    unit = "exps" if "exps" in case else "elements"
    total = sum(r["warp_instructions"] * r["launches"] for r in rows)
    kernels_us, memory_us = sum(r["microseconds"] * r["launches"] for r in rows), 1e6 * case["bytes"] / RATES["bytes"]
    longest = max(rows, key=lambda r: r["microseconds"] * r["launches"])
    row = {
        "case": case["case"], "direction": case["direction"], "label": "predicted", unit: case[unit], "bytes": case["bytes"],
        "warp_instructions": total, f"instructions_per_{unit[:-1]}": round(32 * total / case[unit], 2),
        "microseconds": round(max(kernels_us, memory_us), 1), "bound": "memory" if memory_us > kernels_us else longest["bound"],
        "kernels": rows,
    }  # fmt: skip
    if any("tensor_instructions" in r for r in rows):  # how long tensor cores take is not among the rates
        del row["microseconds"], row["bound"]
    return row


def instructions_per_unit(row: dict) -> float:
    """Warp instructions for 32 elements or exps."""
    return next(v for k, v in row.items() if k.startswith("instructions_per_"))


# ---------------------------------------------------------------------------------------------------- mamba_ssm
def peer_parameters(backward: bool, **values: int) -> bytes:
    """SSMParamsBase, or SSMParamsBwd: the fields in the order of mamba_ssm's header; pointers that are not given are not null."""
    import peers

    header = (peers.source("mamba_ssm") / "csrc/selective_scan/selective_scan.h").read_text()
    out = b""
    for body in re.findall(r"struct \w+[^{]*\{(.*?)\n\};", header, re.DOTALL)[: 2 if backward else 1]:
        for kind, names in re.findall(r"^\s*(int|bool|index_t|void \*__restrict__) ([^;=]+);", body, re.MULTILINE):
            code = {"int": "i", "bool": "?"}.get(kind, "Q")
            for name in (n.strip() for n in names.split(",")):
                out += b"\0" * (-len(out) % struct.calcsize(code))
                out += struct.pack(code, values.get(name, 1 << 32 if name.endswith("_ptr") else 0))
    return out


def peer_case(case: dict) -> dict | None:
    """The launch that mamba_ssm 2.3.2 makes for a case of the scan: up to 256 steps, a warp takes a channel."""
    match = re.match(r"selective_scan \((\d+), (\d+), (\d+), (\d+)\) (\w+)", case["case"])
    batch, dim, length, states = (int(match[n]) for n in range(1, 5)) if match else (0, 0, 0, 0)
    if not match or length > 256:
        return None
    steps, backward = 4 if length <= 128 else 8, case["direction"] == "backward"
    values = {"batch": batch, "dim": dim, "seqlen": length, "dstate": states, "n_groups": 1, "n_chunks": 1}
    values |= {"dim_ngroups_ratio": dim, "is_variable_B": 1, "is_variable_C": 1, "delta_softplus": 1}
    values |= {"A_d_stride": states, "A_dstate_stride": 1, "dA_d_stride": states, "dA_dstate_stride": 1}
    values |= dict.fromkeys(("z_ptr", "out_z_ptr", "dz_ptr", "delta_bias_ptr", "ddelta_bias_ptr"), 0)
    for x in ("B", "C", "dB", "dC"):
        values |= {f"{x}_batch_stride": states * length, f"{x}_group_stride": states * length, f"{x}_dstate_stride": length}
    for x in ("u", "delta", "out", "dout", "du", "ddelta"):
        values |= {f"{x}_batch_stride": dim * length, f"{x}_d_stride": length}
    way, even = "bwd" if backward else "fwd", str(length % (32 * steps) == 0).lower()
    traits = f"32, {steps}, {even}, true, true, true, false" if backward else f"32, {steps}, 1, {even}, true, true, false"
    dtype = {"float32": "float", "bfloat16": "c10::BFloat16"}[match[5]]
    launch = {"kernel": f"selective_scan_{way}_kernel<Selective_Scan_{way}_kernel_traits<{traits}, {dtype}, float> >",
              "grid": [batch, dim, 1], "block": 32, "dynamic_shared": PEER_SHARED[way, steps, 4 if dtype == "float" else 2],
              "parameters": launches.packed(peer_parameters(backward, **values)), "times": 1}  # fmt: skip
    return {**case, "launches": [launch]}


def peer_kernels(extension: Path, cases: list[dict]) -> dict[str, binary.Kernel]:
    """The kernels of mamba_ssm's extension, which holds hundreds, that these cases take."""
    wanted = {peer["launches"][0]["kernel"] for case in cases if (peer := peer_case(case))}
    mangled = re.findall(r"Function (\S+):", binary._run(binary.cuobjdump(), "-res-usage", str(extension)))
    names = binary._short(mangled)
    found = binary.read(str(extension), ARCHITECTURE, [m for m in mangled if names[m] in wanted])[0]
    return {k.name: k for k in found if k.architecture == ARCHITECTURE}


def add_peer(row: dict, peer: dict) -> None:
    """Beside a row of the scan what mamba_ssm's kernel takes, and the ratio of the two times."""
    row["mamba_ssm"] = {k: v for k, v in peer.items() if row.get(k) != v}
    row["ratio"] = round(peer["microseconds"] / row["microseconds"], 2)


def kernels_of(files: Iterable[str]) -> dict[str, binary.Kernel]:
    """The kernels of sm_90, with their instructions, of one or several compiled files."""
    return {k.name: k for file in files for k in binary.read(str(file), ARCHITECTURE)[0] if k.architecture == ARCHITECTURE}


def built_peer() -> Path | None:
    """mamba_ssm's extension for sm_90 as peers.py leaves it."""
    return next(iter(sorted(ROOT.glob(".peers/built/selective_scan_cuda-*sm_90/selective_scan_cuda.so"))), None)


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--extension", nargs="*", help="compiled files with SASS for sm_90 (default: the extension)")
    arguments.add_argument("--peer", type=Path, default=built_peer(), help="mamba_ssm's for sm_90 (default: from peers.py)")
    arguments.add_argument("--only", default="", help="cases whose name holds this text")
    arguments.add_argument("--out", type=Path, default=OUT)
    arguments.add_argument("--budget", action="store_true", help="also renew the instructions in tests/compiled/cuda_budget.json")
    args = arguments.parse_args()
    recorded = json.loads(launches.FILE.read_text())
    if recorded["sources"] != launches.sources_digest():
        print("bench/gpu/launches.json is of other sources: run python bench/gpu/launches.py", file=sys.stderr)
        return 1
    if not args.extension:
        from bdgf_fast import _native

        args.extension = [_native.build_info()["extension"]]
    kernels = kernels_of(args.extension)
    cases, rows = [c for c in recorded["rows"] if args.only in c["case"]], []
    missing = {x["kernel"] for c in cases for x in c["launches"]} - kernels.keys()
    if missing:
        files, names = ", ".join(map(str, args.extension)), ", ".join(sorted(missing))
        print(f"no code for {ARCHITECTURE} of {names} in {files}: build with CUDA (BDGF_CUDA=ON)", file=sys.stderr)
        return 1
    result = {"label": "predicted", "architecture": ARCHITECTURE, "sources": recorded["sources"], "rates": RATES, "rows": rows}
    try:
        peers = peer_kernels(args.peer, cases) if args.peer else {}
    except FileNotFoundError as error:  # built, but without the sources whose header says what its parameters are
        print(error, file=sys.stderr)
        return 1
    for case in cases:
        rows.append(row_of(case, kernels))
        if peers and (peer := peer_case(case)):
            add_peer(rows[-1], row_of(peer, peers))
        print({k: v for k, v in rows[-1].items() if k not in ("kernels", "mamba_ssm")}, flush=True)
        args.out.write_text(json.dumps(result, indent=1) + "\n")
    if importlib.util.find_spec("triton") is not None:
        import triton_launches

        result["triton"] = triton_launches.predictions(args.only)
        args.out.write_text(json.dumps(result, indent=1) + "\n")
    if args.budget:
        found = {f"{row['case']} {row['direction']}": instructions_per_unit(row) for row in rows}
        binary.write_budget(instructions={name: found[name] for name in BUDGETED})
    return 0


if __name__ == "__main__":
    sys.exit(main())
