"""Accuracy against the number of labels: one study for each number, on the same splits, test pixels and denoisers.

    labels-N/          the study with N training pixels per class
    labels.json, .md, .png
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from ..data import Scene
from ..errors import UserError
from ..files.atomic import atomic
from ..files.json_files import read_json, write_json
from ..pipeline.commands import Device, PathLike, reference_of
from ..pipeline.session import session
from ..pipeline.settings import ConfigLike
from ..report.label_curve import curve, markdown, picture
from .cells import CURVE, select
from .study import Study


@dataclass(frozen=True)
class LabelCurve:
    """The curve's files in ``path``: labels.json, labels.md and labels.png, and the study of each number in labels-N."""

    path: Path

    @cached_property
    def cells(self) -> dict[str, dict[str, Any]]:
        """By the cells' names: ``title``, and for each number of labels as text ``oa`` (accuracy by seed) and ``difference`` to the
        default (see ``study_page.difference``; None for the default itself)."""
        return read_json(self.path / "labels.json")["cells"]

    def __str__(self) -> str:
        return (self.path / "labels.md").read_text(encoding="utf-8")


def label_curve(
    scene: PathLike | Scene, out: PathLike, labels: Sequence[int] = (5, 10, 20, 50, 100), *,
    preset: Literal["quick", "full"] = "quick", seeds: Sequence[int] = (0, 1, 2), cells: Sequence[str] | None = None,
    config: ConfigLike = None, features: Sequence[str | os.PathLike[str]] = (), device: Device = "auto", quiet: bool = False,
) -> LabelCurve:  # fmt: skip
    """Measure the accuracy of the default, its controls and the forests for several numbers of training pixels per class.

    The test pixels of a seed are the same for every number, and its denoisers are trained once. It can be resumed like a study.

    Args:
        labels: training pixels per class; the scene's split must be of kind "blocks".
        cells: as for ``study`` (default: guidance off, the untrained denoiser and the forests).
        preset, seeds, config, features: as for ``study``.

    Example::

        result = bdgf_fast.label_curve("scene.toml", "runs/labels", [5, 20, 100], seeds=[0, 1])
        print(result)
    """
    if not labels or min(labels) < 1 or len(set(labels)) != len(labels):
        raise UserError(f"--labels is {list(labels)}; it takes different numbers, each 1 or more")
    folder = Path(out)
    with session(device) as chosen:
        made = {
            n: Study(folder / f"labels-{n}", reference_of(scene), preset=preset, config=config, features=features, quiet=quiet,
                     device=chosen, per_class=n, pretraining=folder / "pretrain")
            for n in sorted(labels)
        }  # fmt: skip
        known = {cell.name for cell in next(iter(made.values())).cells}
        wanted = list(cells) if cells else [name for name in CURVE if name in known]
        for study in made.values():
            select(study.cells, wanted)  # a wrong name is said before the first study
        for n, study in made.items():
            study.run(wanted, seeds)
            found = curve({m: one.state for m, one in made.items() if m <= n})
            write_json(folder / "labels.json", found)
            picture(found, folder / "labels.png")
            with atomic(folder / "labels.md") as beside:
                beside.write_text(markdown(found), encoding="utf-8")
    return LabelCurve(folder)
