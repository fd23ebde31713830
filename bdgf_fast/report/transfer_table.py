"""The table of a transfer: accuracy of every method on every test scene, with and without alignment."""

from __future__ import annotations

from typing import Any

import numpy as np

METHOD = "BDGF"
WAYS = {"none": "as they are", "scene": "aligned"}


def markdown(state: dict[str, Any]) -> str:
    """The content of transfer.md, from that of transfer.json."""
    targets = {name: target for name, target in state["targets"].items() if target["rows"]}
    total = sum(state["train_pixels"])
    lines = [
        f"# {', '.join(state['train'])} -> {', '.join(state['test'])}",
        "",
        f"Trained on {total} labelled pixels ({_limit(state)}) of {', '.join(state['train'])}; seed {state['seed']}. Scored on "
        "every labelled pixel of each test scene, none of which chose or trained anything.",
        "",
    ]
    if targets:
        head = " | ".join(f"{name} ({target['pixels']:,} pixels)" for name, target in targets.items())
        more = " | mean" if len(targets) > 1 else ""
        lines += ["Overall accuracy / average accuracy in %.", "", f"| method | bands | {head}{more} |",
                  f"|---|---|{'---|' * (len(targets) + bool(more))}"]  # fmt: skip
        methods = list(next(iter(next(iter(targets.values()))["rows"].values())))
        for method in methods:
            for way in state["align"]:
                rows = [target["rows"][way][method] for target in targets.values()]
                cells = [(row["overall_accuracy"], row["average_accuracy"]) for row in rows]
                cells += [tuple(np.mean(cells, axis=0))] if more else []
                shown = " | ".join(f"{100 * overall:.1f} / {100 * average:.1f}" for overall, average in cells)
                lines.append(f"| {method} | {WAYS[way]} | {shown} |")
        lines.append("")
    bare = [name for name in state["test"] if name not in targets]
    if bare:
        lines += [f"Mapped without a score, for want of labels: {', '.join(bare)}.", ""]
    if len(state["train"]) > 1:
        lines += ["The training scenes lie one below the other, with rows without a value between them: where a scene ends there, "
                  "nothing is mirrored.", ""]  # fmt: skip
    return "\n".join(lines)


def _limit(state: dict[str, Any]) -> str:
    return "all" if state["labels"] is None else f"up to {state['labels']} of each class in each scene"
