"""Tables in a terminal: figures stand below each other, however long the names are."""

from pathlib import Path

from bdgf_fast.report.terminal import run_text, summary_text

ACCURACY = {"overall_accuracy": 0.961, "average_accuracy": 1.0, "kappa": 0.9}
REPORT = {
    "name": "valley", "seed": 0, "train_pixels": 5, "test_pixels": 7, **ACCURACY, "modalities": ["a"],
    "baselines": {"random forest, statistics at several radii, bands and features": {**ACCURACY, "overall_accuracy": 0.09}},
    "per_class": {"water": 1.0, "a class with a name of more than forty characters": None},
}  # fmt: skip


def test_rows_of_a_run_are_aligned():
    lines = run_text(REPORT, Path("runs/x")).splitlines()
    rows = [line for line in lines if " OA " in line]
    assert len(rows) == 2 and len({line.index(" OA ") for line in rows}) == 1 and len({line.index("kappa") for line in rows}) == 1
    classes = [line for line in lines if line.endswith("%")]
    assert len(classes) == 2 and len({len(line) for line in classes}) == 1


def test_rows_of_several_seeds_are_aligned():
    means = {"short": 0.77, "a name of more than forty characters, as forests have": 1.0}
    rows = [{"name": name, "overall_accuracy": {"mean": mean, "std": 0.052}} for name, mean in means.items()]
    lines = summary_text({"seeds": [0, 1], "rows": rows}, Path("runs/x")).splitlines()[1:]
    assert lines[0].endswith("OA  77.0 ±  5.2 %") and len({len(line) for line in lines}) == 1
