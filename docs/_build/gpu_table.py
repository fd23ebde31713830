"""Writes the tables of docs/operations/gpu.md from the results: `python docs/_build/gpu_table.py`. A test compares the two."""

from __future__ import annotations

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "bench/results/nvidia-h200.json"
PREDICTED = ROOT / "bench/results/sm_90_predicted.json"
VERSIONS = ROOT / "tests/triton/executed_budget.json"
PAGE = ROOT / "docs/operations/gpu.md"
# What the kernels were to reach, in warp instructions for 32 exps or elements: (count of the first kernels, target).
TARGETS = {
    "selective_scan (256, 128, 49, 16) float32 forward": (24.9, 14),
    "selective_scan (256, 128, 121, 16) float32 forward": (19.2, 11),
    "selective_scan (256, 128, 256, 16) float32 forward": (17.4, 10.5),
    "selective_scan (256, 128, 49, 16) float32 backward": (72, 50),
    "selective_scan (256, 128, 121, 16) float32 backward": (70, 50),
    "selective_scan (256, 128, 256, 16) float32 backward": (68, 50),
    "q_sample (1024, 64, 32, 32) float32 forward": (102, 60),
    "philox_normal (1024, 64, 32, 32) float32 forward": (80, 50),
    "denoising_loss (1024, 65, 32, 32) float32 forward and backward": (158, 115),
}


def table() -> str:
    """One line per row of the results."""
    lines = ["| operation, direction, shape, type | CUDA | Triton | fastest baseline | ratio |", "|---|---|---|---|---|"]
    for row in json.loads(RESULTS.read_text(encoding="utf-8"))["benchmarks"]:
        ms = row["ms"]
        peers = {who: time for who, time in ms.items() if not who.startswith("ours")}
        best = min(peers, key=peers.__getitem__) if peers else None
        cells = [f"{ms[who]:.3f}" if who in ms else "wrong" if who in row["failed"] else "" for who in ("ours cuda", "ours triton")]
        cells.append("" if best is None else f"{peers[best]:.3f} ({best})")
        cells.append(f"{row['ratio']:.2f}" if row.get("ratio") else "")
        lines.append("| " + " | ".join([row["group"], *cells]) + " |")
    return "\n".join(lines) + "\n"


def predictions() -> list[dict]:
    return json.loads(PREDICTED.read_text(encoding="utf-8"))["rows"]



def count_of(row: dict) -> float:
    """Warp instructions for 32 exps or elements."""
    return row.get("instructions_per_exp") or row["instructions_per_element"]


def measured(case: str, direction: str) -> dict[str, float]:
    """Milliseconds of the kernels that were measured, by who: of a backward, what it adds to the forward."""
    operation, shape = case.split(" ", 1)
    rows = {r["group"]: r["ms"] for r in json.loads(RESULTS.read_text(encoding="utf-8"))["benchmarks"]}

    def of(way: str) -> dict[str, float]:
        names = (f"{operation} {way} {shape}", f"{operation} {way} {shape.removesuffix(' float32')}")
        return next((rows[n] for n in names if n in rows), {})

    forward, both = of("fwd") or rows.get(case, {}), of("fwd+bwd")
    return forward if direction == "forward" else {who: both[who] - forward[who] for who in both if who in forward}


def predicted_table() -> str:
    """One line per case and direction: the count, what binds, the predicted times; beside them the measured earlier kernels."""
    head = ("case", "instructions", "integer", "registers", "warps", "binds", "*predicted* us", "*predicted* mamba_ssm us",
            "*predicted* ratio", "measured, earlier kernels, us", "measured mamba_ssm us")  # fmt: skip
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in predictions():
        kernel = max(row["kernels"], key=lambda k: k["microseconds"] * k["launches"])
        peer, ms = row.get("mamba_ssm", {}), measured(row["case"], row["direction"])
        cells = [f"{row['case']} {row['direction']}", f"{count_of(row):.1f}", f"{100 * kernel['integer_share']:.0f} %",
                 str(kernel["registers"]), str(kernel["resident_warps"]), row["bound"], f"{row['microseconds']:.1f}",
                 f"{peer['microseconds']:.1f}" if peer else "", f"{row['ratio']:.2f}" if peer else "",
                 *(f"{1e3 * ms[who]:.1f}" if who in ms else "" for who in ("ours cuda", "mamba_ssm"))]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def triton_table() -> str:
    """The Triton kernels likewise, beside the predicted time of the CUDA kernels. Where tensor cores work, no time is predicted."""
    triton = json.loads(PREDICTED.read_text(encoding="utf-8"))["triton"]
    head = (f"case, Triton {triton['version']}", "instructions", "integer", "registers", "warps", "binds", "*predicted* us",
            "*predicted* CUDA us", "measured, earlier kernels, us")  # fmt: skip
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    cuda = {(row["case"], row["direction"]): row["microseconds"] for row in predictions()}
    for row in triton["rows"]:
        kernel = max(row["kernels"], key=lambda k: k["warp_instructions"] * k["launches"])
        key, ms = (row["case"], row["direction"]), measured(row["case"], row["direction"])
        times = (row.get("microseconds"), cuda.get(key), 1e3 * ms["ours triton"] if "ours triton" in ms else None)
        used = (f"{100 * kernel['integer_share']:.0f} %", str(kernel["registers"]), str(kernel["resident_warps"]))
        cells = [" ".join(key), f"{count_of(row):.1f}", *used, row.get("bound", "")]
        cells += ["" if t is None else f"{t:.1f}" for t in times]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def versions_table() -> str:
    """The scan's Triton kernels under two versions of Triton."""
    older, newer = sorted(budget := json.loads(VERSIONS.read_text(encoding="utf-8")))
    lines = [f"| case | Triton {older} | Triton {newer} | ratio |", "|---|---|---|---|"]
    for case, count in budget[newer].items():
        lines.append(f"| {case} | {budget[older][case]:.1f} | {count:.1f} | {budget[older][case] / count:.2f} |")
    return "\n".join(lines) + "\n"


def targets_table() -> str:
    """The counts that were aimed at, with those of the first kernels and of the present ones."""
    counts = {f"{row['case']} {row['direction']}": count_of(row) for row in predictions()}
    for row in predictions():  # of the scan's backward the kernel alone, without the states before it and the sums after it
        some = [k for k in row["kernels"] if k["kernel"].startswith("selective_scan_bwd_kernel")]
        if some:
            counts[f"{row['case']} backward"] = 32 * sum(k["warp_instructions"] * k["launches"] for k in some) / row["exps"]
    for name in [n for n in counts if n.endswith(" forward")]:
        counts[f"{name} and backward"] = counts[name] + counts.get(name.replace("forward", "backward"), 0)
    lines = ["| case | first kernels | target | now, *counted* | reached |", "|---|---|---|---|---|"]
    for case, (before, target) in TARGETS.items():
        if case not in counts:
            continue
        now = counts[case]
        lines.append(f"| {case} | {before:g} | {target:g} | {now:.1f} | {'yes' if now <= target else 'no'} |")
    return "\n".join(lines) + "\n"


TABLES = {
    "table": table, "predicted": predicted_table, "triton": triton_table, "versions": versions_table, "targets": targets_table,
}  # fmt: skip


def page_with_table(text: str) -> str:
    """The page with its tables as the results say."""
    for name, write in TABLES.items():
        start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        text = re.sub(f"{start}.*?{end}", lambda _, s=start, w=write, e=end: s + w() + e, text, flags=re.DOTALL)
    return text


if __name__ == "__main__":
    PAGE.write_text(page_with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
