"""The pictures of the site and the README: speed from bench/results/cpu.json, and the panels of a map's picture in one row.

    python docs/_build/pictures.py          writes docs/pictures/speed.png, speed_<operation>.png and sentinel_row.png
    python docs/_build/pictures.py RUN      writes docs/pictures/report.png, the top of a run's report (needs chromium)

Each case shows three times on one logarithmic axis: ours, the fastest baseline of the same run and, where it is known, the time
that the limit of the machine (exponentials, copy bandwidth or matrix products) allows.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS, PICTURES = ROOT / "bench/results/cpu.json", ROOT / "docs/pictures"
sys.path.insert(0, str(ROOT / "bench"))
import summary  # noqa: E402  (bench/ is a folder of scripts, not a package)

OURS, BASELINE, LIMIT = "#0f766e", "#c2793b", "#6b7280"
# Operation: the first words of its groups in the benchmark's file.
OPERATIONS = {
    "selective_scan": "selective_scan",
    "selective_scan_2d": "selective_scan_2d",
    "causal_conv1d": "causal_conv1d",
    "box_statistics": "box_statistics",
    "group_channel_gate": "group_channel_gate",
    "group_channel_attention": "group_channel_attention",
    "cross_attention": "cross_attention",
    "decision_forest": "decision_forest",
    "philox_normal": "normals",
    "q_sample": "q_sample",
    "denoising_loss": "denoising_loss",
    "diffusion_step": "ddpm_step",
}
# One case for each operation stands in the overview.
OVERVIEW = (
    "selective_scan fwd+bwd (1, 128, 50000, 16)",
    "selective_scan fwd+bwd (64, 128, 121, 16)",
    "selective_scan_2d fwd+bwd (64, 96, 11, 11, 16)",
    "causal_conv1d fwd+bwd (64, 128, 121) BDL",
    "cross_attention fwd+bwd [256, 8, 49, 16] torch.float32",
    "group_channel_attention fwd+bwd (256, 64, 121, 8)",
    "group_channel_gate fwd+bwd (256, 64, 11, 4, 8, False)",
    "q_sample by sample",
    "denoising_loss fwd+bwd",
    "ddpm_step",
)


def rows(data: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of the benchmark's file that have a baseline."""
    return [row for row in summary.rows(data) if row["ratio"]]


def cases(table: list[dict[str, Any]], operation: str) -> list[dict[str, Any]]:
    return [row for row in table if row["group"].split(" ")[0] == OPERATIONS[operation]]


def label(row: dict[str, Any]) -> str:
    text = row["group"].split("; extra")[0].replace("torch.", "").replace("[", "(").replace("]", ")")
    return text.replace("fwd+bwd", "forward + backward").replace("fwd", "forward")


def draw(table: list[dict[str, Any]], path: Path, strip: str = "") -> None:
    """One line a case, from our time to the baseline's, with the ratio beside it."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
    from PIL import Image

    figure, axes = plt.subplots(figsize=(9.5, 1.3 + 0.34 * len(table)), layout="constrained")
    for y, row in enumerate(table):
        ours, baseline = row["ours_ms"], row["baseline_ms"]
        axes.plot([ours, baseline], [y, y], color="#d1d5db", linewidth=3, zorder=1, solid_capstyle="round")
        names = ("bdgf_fast", "fastest baseline of the same run") if y == 0 else (None, None)
        axes.scatter(ours, y, color=OURS, s=46, zorder=3, label=names[0])
        axes.scatter(baseline, y, color=BASELINE, s=46, marker="s", zorder=3, label=names[1])
        axes.annotate(f"{row['ratio']:.1f}x  {row['baseline']}", (max(ours, baseline), y), (9, 0), textcoords="offset points",
                      va="center", fontsize=8.5, color="#374151")  # fmt: skip
    limits = [(min(row["share"], 1.0) * row["ours_ms"], y) for y, row in enumerate(table) if row["share"]]
    if limits:
        x, y = zip(*limits, strict=True)
        axes.scatter(x, y, color=LIMIT, marker="|", s=150, linewidth=2, zorder=2, label="limit of the machine")
    axes.set_yticks(range(len(table)), labels=[label(row).removeprefix(strip).strip() for row in table], fontsize=9)
    axes.set_ylim(len(table) - 0.4, -0.6)
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.set_xlim(low, high * (high / low) ** 0.22)  # room for the ratios
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 100 else (1,)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("milliseconds on a logarithmic scale; further left is faster")
    axes.grid(axis="x", color="#e5e7eb", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    figure.legend(loc="outside upper right", ncols=3, frameon=False, fontsize=9)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    Image.open(path).quantize(64).save(path, optimize=True)  # a few flat colours: a quarter of the bytes


def in_one_row(source: Path, path: Path) -> None:
    """The four panels of a run's map.png side by side over their legend: for a page that a tall picture would fill."""
    from PIL import Image

    with Image.open(source) as picture:
        picture = picture.convert("RGB")
    middle, top, between, legend, bottom = 522, 38, 598, 1140, picture.height  # where map.png of a square scene has its parts
    right = picture.width
    boxes = [(0, top, middle, 590), (middle, top, right, 590), (0, between, middle, 1130), (middle, between, right, 1130)]
    row = Image.new("RGB", (2 * right, 552 + bottom - legend), "white")
    for i, box in enumerate(boxes):
        row.paste(picture.crop(box), ((i // 2) * right + (i % 2) * middle, 0))
    row.paste(picture.crop((0, legend, right, bottom)), (right // 2, 556))
    row.resize((1600, round(1600 * row.height / row.width)), Image.Resampling.LANCZOS).quantize(128).save(path, optimize=True)


def report_page(run: Path) -> None:
    """The top of a run's report as a browser shows it; that of the gallery is the run of the researcher's guide."""
    import subprocess

    from PIL import Image

    path = PICTURES / "report.png"
    subprocess.run(["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1000,1350",
                    f"--screenshot={path}", (run / "report.html").resolve().as_uri()], check=True, capture_output=True)  # fmt: skip
    Image.open(path).convert("RGB").quantize(128).save(path, optimize=True)


def main() -> None:
    if len(sys.argv) > 1:
        report_page(Path(sys.argv[1]))
        return
    in_one_row(PICTURES / "sentinel.png", PICTURES / "sentinel_row.png")
    table = rows(json.loads(RESULTS.read_text(encoding="utf-8")))
    chosen = [next(row for row in table if row["group"].startswith(start)) for start in OVERVIEW]
    draw(chosen, PICTURES / "speed.png")
    for operation in OPERATIONS:
        found = cases(table, operation)
        if found:
            draw(found, PICTURES / f"speed_{operation}.png", OPERATIONS[operation])


if __name__ == "__main__":
    main()
