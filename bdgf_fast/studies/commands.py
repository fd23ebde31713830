"""A study as a function."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from ..data import Scene
from ..errors import UserError
from ..files.json_files import read_json
from ..pipeline.commands import Device, PathLike, reference_of
from ..pipeline.run_directory import RunDirectory
from ..pipeline.session import session
from ..pipeline.settings import ConfigLike
from ..report.run_page import render
from ..report.study_page import analyse
from .study import Study


@dataclass(frozen=True)
class StudyResult:
    """A study's table: study.json, study.md and study.html in ``path``.

    Attributes: ``note`` is None, or a sentence if the study lies in a run whose page could not be renewed.
    """

    path: Path
    note: str | None = None

    @cached_property
    def state(self) -> dict[str, Any]:
        """The content of study.json: every cell's figures for every seed, the pre-trainings, the configuration."""
        return read_json(self.path / "study.json")

    @property
    def page(self) -> Path:
        """The study as one HTML page."""
        return self.path / "study.html"

    @property
    def cells(self) -> dict[str, dict[str, Any]]:
        """The table by the cells' names: ``title``, ``group``, ``oa`` (accuracy by seed) and ``difference`` to the default (mean,
        interval, verdict; None for the default itself)."""
        found = [cell for group in analyse(self.state)["cells"].values() for cell in group]
        return {cell["name"]: {key: cell[key] for key in ("title", "group", "oa", "difference")} for cell in found}

    def __str__(self) -> str:
        return (self.path / "study.md").read_text(encoding="utf-8")


def study(
    scene: PathLike | Scene, out: PathLike, *, preset: Literal["quick", "full"] = "quick", seeds: Sequence[int] = (0, 1, 2),
    cells: Sequence[str] | None = None, config: ConfigLike = None, features: Sequence[PathLike] = (), device: Device = "auto",
    quiet: bool = False,
) -> StudyResult:  # fmt: skip
    """Measure what each part of the method contributes on a scene: a table of ablations, controls and baselines.

    The same call continues an interrupted study; finished cells are kept. Only test pixels are scored, and nothing is selected by
    them.

    Args:
        preset: "quick" (fewer steps and a random part of the test pixels) or "full" (the configuration as it is).
        seeds: of the splits; differences are paired by them.
        cells: names of cells or groups, ["all"] for every one (default: all in the quick preset, the main ones in the full one).
        config: what differs from the preset, as for ``run``; a whole ``Config`` takes the preset's place.

    Example::

        result = bdgf_fast.study("scene.toml", "runs/study", seeds=[0, 1], cells=["guidance-off"])
        print(result.cells["guidance-off"]["difference"]["mean"])
    """
    with session(device) as chosen:
        made = Study(Path(out), reference_of(scene), preset=preset, config=config, features=features, quiet=quiet, device=chosen)
        made.run(cells, seeds)
        return StudyResult(made.out, _show_in_run(made.out.absolute().parent))


def _show_in_run(folder: Path) -> str | None:
    """Renew the page of a run whose directory holds the study; returns why that could not be."""
    if not ((folder / "report.json").exists() and (folder / "history.json").exists()):
        return None
    try:
        directory = RunDirectory.open(folder)
        render(folder, with_map=directory.done("predict"))
    except UserError as error:  # another command works in it
        return f"{folder / 'report.html'} does not show this study yet: {error}"
    return None
