"""Read a pytest-benchmark JSON and print ours against the fastest baseline and against the limit, as Markdown and a plot.

    python bench/summary.py bench/results/cpu.json [--plot bench/results/cpu.png]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path


def rows(data: dict) -> list[dict]:
    """One row a group: our minimum, the fastest baseline's, their ratio, and our share of the limit where it is known."""
    limits = data["machine_info"]["bdgf"]["limits"]
    groups: dict[str, dict[str, dict]] = defaultdict(dict)
    result = []
    for bench in data["benchmarks"]:
        if "who" in bench["extra_info"]:
            groups[bench["group"]][bench["extra_info"]["who"]] = bench
        elif "ours_ms" in bench["extra_info"]:
            result.append(_raced(bench["group"], bench["extra_info"], limits))
    for group, cases in groups.items():
        if "ours" not in cases:
            continue
        ours = cases.pop("ours")
        seconds, info = ours["stats"]["min"], ours["extra_info"]
        fastest = min(cases, key=lambda who: cases[who]["stats"]["min"], default=None)
        # A kernel is bound by the slowest of its units: the share is the largest of the single shares.
        shares = {unit: info[unit] / seconds / limits[unit] for unit in ("exp", "copy_bytes", "sgemm_flops") if unit in info}
        bound = max(shares, key=shares.get, default=None)
        result.append(
            {
                "group": group,
                "ours_ms": 1e3 * seconds,
                "ours_median_ms": 1e3 * ours["stats"]["median"],
                "baseline": fastest,
                "baseline_ms": 1e3 * cases[fastest]["stats"]["min"] if fastest else None,
                "ratio": cases[fastest]["stats"]["min"] / seconds if fastest else None,
                "bound": bound,
                "share": shares[bound] if bound else None,
                "others": {who: 1e3 * case["stats"]["min"] for who, case in cases.items()},
            }
        )
    return result


def _raced(group: str, info: dict, limits: dict) -> dict:
    """A row of `race.report`: the calls were timed in turn, their minima stand in extra_info."""
    times = {name[:-3]: value for name, value in info.items() if name.endswith("_ms")}
    ours = times.pop("ours")
    fastest = min(times, key=times.get)
    share = info.get("share", info.get("exp_share"))
    if "ours_extra_mib" in info:
        group += f"; extra memory {info['ours_extra_mib']:.1f} of {info['theirs_extra_mib']:.1f} MiB"
    bound = ("exp" if "exp_share" in info else "sgemm and exp") if share else None
    if "copy_bytes" in info:
        bound, share = "copy_bytes", info["copy_bytes"] / (ours / 1e3) / limits["copy_bytes"]
    return {"group": group, "ours_ms": ours, "baseline": fastest, "baseline_ms": times[fastest], "ratio": times[fastest] / ours,
            "bound": bound, "share": share, "others": times, "wanted": info.get("wanted")}


def misses(row: dict) -> bool:
    """Whether the row's ratio is below the one aimed at."""
    return bool(row.get("wanted")) and row["ratio"] < row["wanted"]


def markdown(table: list[dict]) -> str:
    """The table as GitHub Markdown."""
    lines = ["| operation, shape | ours ms | fastest baseline | ms | ratio | share of the limit |", "|---|---|---|---|---|---|"]
    for row in table:
        missed = f" (aim {row['wanted']}x)" if misses(row) else ""
        baseline = f"{row['baseline']} | {row['baseline_ms']:.2f} | {row['ratio']:.1f}x{missed}" if row["baseline"] else "- | - | -"
        share = f"{100 * row['share']:.0f} % ({row['bound']})" if row["bound"] else "-"
        lines.append(f"| {row['group']} | {row['ours_ms']:.2f} | {baseline} | {share} |")
    return "\n".join(lines)


def plot(table: list[dict], path: Path) -> None:
    """Ratios to the fastest baseline (log) beside shares of the limit."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shown = [row for row in table if row["ratio"]]
    names, ratios = [row["group"].replace("torch.", "").split("; extra")[0] for row in shown], [row["ratio"] for row in shown]
    figure, (left, right) = plt.subplots(
        1, 2, sharey=True, figsize=(12, 1 + 0.21 * len(names)), layout="constrained", width_ratios=(3, 2)
    )
    left.barh(names, [r - 1 for r in ratios], left=1, color=["#c9792b" if misses(row) else "#3b6ea5" for row in shown])
    for i, r in enumerate(ratios):
        left.annotate(f"{r:.1f}", (max(r, 1), i), (4, 0), textcoords="offset points", va="center", fontsize=8)
    left.axvline(1, color="black", linewidth=0.8)
    left.set_xscale("log")
    left.set_xlim(0.7, 2.5 * max(ratios))
    left.set_xticks([1, 2, 5, 10, 20, 50, 100, 200], labels=["1", "2", "5", "10", "20", "50", "100", "200"])
    left.minorticks_off()
    left.set_xlabel("times the fastest baseline's speed (orange: misses its aim)")
    right.barh(names, [100 * (row["share"] or 0) for row in shown], color="#7aa457")
    right.set_xlim(0, 110)
    right.set_xlabel("% of the limit, where known")
    left.set_ylim(len(names) - 0.4, -0.6)
    for axes in (left, right):
        axes.grid(axis="x", color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
    figure.savefig(path, dpi=120)


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("json", type=Path)
    arguments.add_argument("--plot", type=Path)
    args = arguments.parse_args()
    data = json.loads(args.json.read_text())
    state = data["machine_info"]["bdgf"]
    table = rows(data)
    print(markdown(table))
    if args.plot:
        plot(table, args.plot)
    if state["disturbed"]:
        print("\nthe exp limit moved by more than 10 % during this run: other work disturbed it, run it again", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
