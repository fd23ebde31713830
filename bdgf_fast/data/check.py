"""What is in a folder or scene file, what is missing and what looks wrong, before hours go into training on it."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bdgf_fast.common.packages import require
from bdgf_fast.data import known_sets
from bdgf_fast.data.known_sets import SUFFIXES, Found, KnownSet
from bdgf_fast.data.notes import Doubt
from bdgf_fast.data.prepared import PreparedScene, prepare
from bdgf_fast.data.ranges import value_warnings
from bdgf_fast.data.scene import COMPLETE, Modality, Scene, mark_lacking
from bdgf_fast.data.scene_file import DEFAULT_NAME, in_folder, known_scene, load_scene, no_scene
from bdgf_fast.data.sources.matfile import list_variables, listing
from bdgf_fast.data.sources.raster import counted
from bdgf_fast.data.split import make_split
from bdgf_fast.errors import DataWarning, MissingFile, NoSceneFile, SceneError, SceneErrors, SplitError, StateError

LEVELS = ("ok", "note", "look", "missing", "wrong")
# Values that stand for "no value" in many files; with 1e30 and beyond they are looked for at both ends of each band.
MARKS = (-9999.0, -99999.0, -32768.0, -32767.0, -1000000.0)
PATCH, LEAST_PATCH = 11, 7  # the default of data.patch, and the smallest it takes
BORDER = 0.001
"""Share of the scene's pixels from which zeros along its border are pointed out."""
OUTWEIGHS = 5
"""From how many times the bands of the others a modality is reported: 4 times made no difference on a Sentinel tile, 9 times did
on the synthetic scene."""


@dataclass
class Report:
    """Findings of a check, each a (level, sentence). "ok": recognised; "note": worth knowing; "look": a run is possible, but a
    person should look at it; "missing" and "wrong": these stop a run or spoil its figures."""

    title: str
    findings: list[tuple[str, str]] = field(default_factory=list)
    root: Path | None = None  # stands in the title, so that sentences name files without it

    def add(self, level: str, text: str) -> None:
        self.findings.append((level, text.replace(f"{self.root}{os.sep}", "") if self.root else text))

    def count(self, *levels: str) -> int:
        return sum(level in levels for level, _ in self.findings)

    def status(self, strict: bool = False) -> int:
        """0 when nothing is missing or wrong (``strict``: and nothing needs a look), else 1."""
        return int(self.count("missing", "wrong", *(["look"] if strict else [])) > 0)

    def text(self) -> str:
        """One line per finding, the grave ones in capitals, and a summary."""
        lines = [self.title]
        for level, text in self.findings:
            lines.append(f"  {level.upper() if level in ('missing', 'wrong') else level:<8}{text}")
        summary = {"missing": "missing", "wrong": "wrong", "look": "to look at"}
        bad = [f"{self.count(level)} {said}" for level, said in summary.items() if self.count(level)]
        lines.append(f"{', '.join(bad)}" if bad else "nothing is missing and nothing looks wrong")
        return "\n".join(lines)


def check(reference: str | os.PathLike[str], run: str | os.PathLike[str] | None = None) -> Report:
    """Check a folder, a scene file or NAME:FOLDER; ``run`` is the directory of a run whose model is to map it.

    Values are read in strips, once as they are and once as a run reads them. Raises SceneError only if ``reference`` itself names
    nothing.
    """
    named = known_sets.split_reference(reference)
    if named is not None:
        return _check_known(known_sets.find(*named), str(reference), run)
    path = in_folder(Path(reference))
    if path.is_dir():
        return _check_folder(path, run)
    report = Report(f"{path}: a scene file")
    if not path.is_file():
        raise no_scene(path)
    with _heeding(report):
        _check_scene(report, load_scene(path), run)
    return report


def _check_folder(folder: Path, run: str | os.PathLike[str] | None) -> Report:
    if (folder / "state.json").is_file():
        raise SceneError(f"{folder} is the directory of a run, not a scene; check a scene, if need be with --run {folder}.")
    found = known_sets.recognise(folder)
    if len(found) == 1:
        return _check_known(found[0], str(folder), run)
    report = Report(f"{folder}: no scene yet", root=folder)
    if found:
        names = ", ".join(one.known.name for one in found)
        report.add("wrong", f"the files fit several known data sets ({names}); say which, as in {found[0].known.name}:{folder}")
        return report
    scenes = sorted(folder.glob("*.toml"))
    report.add("missing", f"{DEFAULT_NAME}, or the files of a known data set ({', '.join(known_sets.known_sets())})")
    for file in sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES):
        try:
            report.add("note", f"{file.name}: {_contents(file)}")
        except SceneError as error:
            report.add("wrong", str(error))
    hint = f"check {scenes[0].name}" if scenes else "write a scene file (.toml) with [[modality]] and [labels] tables"
    report.add("note", f"for data of your own, {hint}")
    return report


def _contents(file: Path) -> str:
    if file.suffix.lower() == ".mat":
        return listing(list_variables(file))
    return f"shape {known_sets.shape_of(file, None)}"


# --- known sets ---


def _check_known(found: Found, said: str, run: str | os.PathLike[str] | None) -> Report:
    known = found.known
    report = Report(f"{said}: {known.title}, files in {found.root}", root=found.root)
    for role in known.roles:
        if role.name not in found.files:
            if role.optional:
                report.add("note", f"{role.name}: no file, the scene is used without it ({' or '.join(role.files)})")
            continue
        file = found.files[role.name]
        try:
            variable = found.variable(role)
        except SceneError as error:
            report.add("wrong", f"{role.name}: {error}")
            continue
        shape = known_sets.shape_of(file, variable)
        where = f"{file.name}[{variable}]" if variable else file.name
        report.add("ok", f"{role.name}: {where}{f', {_times(shape)}' if shape else ''}")
    for text in found.missing:
        report.add("missing", f"{text}: no such .mat, .npy, GeoTIFF or ENVI file in {found.root}")
    if report.count("missing", "wrong"):
        return report
    with _heeding(report):
        scene = known_scene(found, {}, f"{known.name} in {found.root}", found.root)
        _check_published(report, known, scene)
        _check_scene(report, scene, run)
    for text in known.unverified:
        report.add("note", f"not verified in the table of {known.name}: {text}")
    return report


def _check_published(report: Report, known: KnownSet, scene: Scene) -> None:
    """Size, bands and pixels per class against what is published."""
    size = (scene.height, scene.width)
    published = " or ".join(_times(one) for one in known.sizes)
    if size in known.sizes:
        report.add("ok", f"{_times(size)} pixels, as published")
    elif size[::-1] in known.sizes:
        report.add("wrong", f"{_times(size)} pixels (rows x columns), published are {published}: rows and columns are swapped")
    else:
        report.add("look", f"{_times(size)} pixels, published are {published}: a part of the scene?")
    for role in known.modalities:
        bands = next((len(m.bands) for m in scene.modalities if m.name == role.name), None)
        if bands is not None and role.bands is not None and bands != role.bands:
            report.add("look", f"{role.name}: {counted(bands, 'band')}, published are {role.bands}")
    for side, counts in known.counts.items():
        mask = scene.given.get(side) if side != "labelled" else np.ones(size, bool)
        if mask is None:
            continue
        own = np.bincount(scene.labels[mask & (scene.labels >= 0)], minlength=len(scene.classes)).tolist()
        if own == counts:
            report.add("ok", f"{side}: {sum(own)} pixels, every class as published")
        elif sorted(own) == sorted(counts):
            report.add("wrong", f"{side}: the published counts are in another order of classes: {own}, published {counts}")
        else:
            report.add("look", f"{side}: {sum(own)} pixels, published are {sum(counts)} (per class {own} and {counts})")


# --- any scene ---


def _check_scene(report: Report, scene: Scene, run: str | os.PathLike[str] | None) -> None:
    for text in scene.notes:
        report.add(_level(text), text)
    where = scene.crs.to_string() if scene.crs is not None else "no coordinate system"
    report.add("ok", f"grid: {_times((scene.height, scene.width))} pixels, {where}")
    lacking = np.full((scene.height, scene.width), COMPLETE, np.uint8)
    for index, modality in enumerate(scene.modalities):
        if scene.crs is not None:
            for raster in {id(r): r for r, _ in modality.parts if r.crs is None}.values():
                report.add("look", f"{raster.source} has no coordinate system; it is taken to lie on the grid of the others")
        mark_lacking(lacking, index, _check_bands(report, scene, modality))
    valid = lacking == COMPLETE
    _check_balance(report, scene)
    if not report.count("wrong"):
        scene._lacking = lacking
    if run is not None and not report.count("wrong"):
        _check_run(report, scene, Path(run))
    labelled = scene.labels >= 0
    if not scene.classes:
        report.add("note", "no labels: the scene can be predicted, not trained on")
        return
    lost = int((labelled & ~valid).sum())
    if lost:
        report.add("look", f"{lost} of {int(labelled.sum())} labelled pixels have no value in some band and are left out")
    counts = np.bincount(scene.labels[labelled], minlength=len(scene.classes))
    present = ", ".join(f"{c.name} {n}" for c, n in zip(scene.classes, counts, strict=True))
    report.add("ok", f"labels: {int(labelled.sum())} pixels in {counted(len(scene.classes), 'class')}: {present}")
    if not valid.any():
        report.add("wrong", "no pixel has a value in every band: do the files cover the same ground, is nodata right?")
    elif scene._lacking is not None:
        _check_split(report, scene)


def _check_run(report: Report, scene: Scene, run: Path) -> None:
    """Whether the scene fits the model of a run, and whether its values look like those the model was trained on."""
    file = run / "scene.json"
    try:
        state = json.loads(file.read_text(encoding="utf-8"))
        settings = run / "config.json"
        model = json.loads(settings.read_text(encoding="utf-8"))["config"]["model"] if settings.exists() else {}
        prepared = PreparedScene.from_state(scene, None, state, may_lack=model.get("hide_rate", 0) > 0)
    except OSError as error:
        raise SceneError(f"{error.filename} cannot be read ({error.strerror}); --run names the directory of a run.") from None
    except (ValueError, KeyError) as error:
        raise SceneError(f"{file} cannot be read ({error}); --run names the directory of a run.") from None
    except StateError as error:
        report.add("wrong", str(error))
        return
    found = value_warnings(prepared)
    for text in found:
        report.add("look", text)
    if not found:
        report.add("ok", f"values look like those the model in {run} was trained on")


def _check_balance(report: Report, scene: Scene) -> None:
    largest = max(scene.modalities, key=lambda m: len(m.bands))
    bands, rest = len(largest.bands), sum(len(m.bands) for m in scene.modalities if m is not largest)
    if bands > OUTWEIGHS * rest > 0:
        report.add("note", f"{largest.name} has {bands} of the {bands + rest} bands and outweighs the other modalities in the "
                   "branches; try a run with --set model.balance=true")  # fmt: skip


def _check_split(report: Report, scene: Scene) -> None:
    least = min(scene.height, scene.width)
    if least < LEAST_PATCH:
        report.add("wrong", f"the scene is {_times((scene.height, scene.width))} pixels; a patch has at least {LEAST_PATCH} a side")
        return
    if least < PATCH:
        report.add("look", f"patches of {PATCH} pixels are larger than the scene: run with --set data.patch={least}")
    try:
        split = make_split(scene, patch=min(PATCH, least))
        prepared = prepare(scene, split)
    except (SplitError, SceneError) as error:
        report.add("wrong", str(error))
        return
    sizes = ", ".join(f"{sum(counts)} {side}" for side, counts in split.counts.items() if sum(counts))
    report.add("ok", f"split {split.kind!r}, seed 0, patches of {min(PATCH, least)}: {sizes} pixels")
    if not sum(split.counts["test"]):
        report.add("wrong", "the split leaves no test pixel; choose smaller blocks or a smaller train_fraction")
    for text in split.notes:
        report.add(_level(text), text)
    for text in value_warnings(prepared):
        report.add("look", text.replace("what the model was trained on", "the range of the training side"))


def _check_bands(report: Report, scene: Scene, modality: Modality) -> np.ndarray:
    """One pass over the values: bool (H, W) of the pixels with a value in every band that has any."""
    count = len(modality.bands)
    low, high = np.full(count, np.inf), np.full(count, -np.inf)
    at_low, at_high, seen = (np.zeros(count, np.int64) for _ in range(3))
    valid, zero = (np.zeros((scene.height, scene.width), bool) for _ in range(2))
    tells = np.full(count, len(scene.classes) > 1)  # whether a band holds the codes of the classes
    codes = np.array([info.code for info in scene.classes] or [0], np.float32)
    for y0, y1 in scene.strips():
        values = modality.read(y0, y1, 0, scene.width)
        finite = np.isfinite(values)
        valid[y0:y1], zero[y0:y1] = finite.all(0), (values == 0).all(0)
        seen += finite.sum((1, 2))
        if tells.any():
            labels = scene.labels[y0:y1]
            tells &= ((values == codes[labels]) | (labels < 0)).all((1, 2))
        lows, highs = (np.where(finite, values, fill) for fill in (np.inf, -np.inf))
        strip_low, strip_high = lows.min((1, 2)), highs.max((1, 2))
        at_low = _tally(at_low, low, strip_low, (lows == strip_low[:, None, None]).sum((1, 2)), np.less)
        at_high = _tally(at_high, high, strip_high, (highs == strip_high[:, None, None]).sum((1, 2)), np.greater)
        low, high = np.minimum(low, strip_low), np.maximum(high, strip_high)
    names = np.array(modality.bands)
    empty = seen == 0
    dead = ~empty & (low == high)
    span = f"values {low[~empty].min():.6g} to {high[~empty].max():.6g}" if not empty.all() else "no values"
    report.add("ok", f"{modality.name}: {counted(count, 'band')}, {span}")
    if empty.all():
        report.add("wrong", f"{modality.name}: no value at all (NaN or nodata everywhere)")
        return valid
    if empty.any():
        report.add("look", f"{modality.name}: no value at all (NaN or nodata everywhere) in {_some(names[empty])}; used without")
        scene.empty[modality.name] = np.flatnonzero(empty).tolist()
        _, valid = scene._look(modality)
    if dead.any():
        report.add("look", f"{modality.name}: one value everywhere in {_some(names[dead])}; dead bands are dropped")
    if tells.any():
        report.add("look", f"{modality.name}: {_some(names[tells])} equals the class code at every labelled pixel: a label map?")
    missing = int((~valid).sum())
    if missing:
        report.add("look", f"{modality.name}: {missing} of {valid.size} pixels hold NaN, infinity or nodata in some band")
    for value, tally, ends in ((low, at_low, low < high), (high, at_high, low < high)):
        for mark in sorted({float(v) for v in value[~empty & ends] if v in MARKS or abs(v) >= 1e30}):
            hit = value == mark
            report.add("look", f"{modality.name}: {int(tally[hit].max())} pixels of {_some(names[hit])} are {mark!r}, which looks "
                       f"like a mark for no value; if it is, say nodata = {mark!r}")  # fmt: skip
    border = _at_border(zero)
    if border > BORDER * zero.size and not zero.all():
        report.add("look", f"{modality.name}: {border} pixels along the border are 0 in every band and count as values; if they "
                   "hold none, say nodata = 0")  # fmt: skip
    return valid


def _at_border(zero: np.ndarray) -> int:
    """Pixels of the True areas that touch the edge of the scene."""
    edge = (zero[0], zero[-1], zero[:, 0], zero[:, -1])
    if not any(side.any() for side in edge):
        return 0
    areas, _ = require("scipy.ndimage", "data check").label(zero)
    touching = np.unique(np.concatenate([areas[0], areas[-1], areas[:, 0], areas[:, -1]]))
    return int(np.isin(areas, touching[touching > 0]).sum())


def _tally(total: np.ndarray, best: np.ndarray, strip: np.ndarray, count: np.ndarray, better: np.ufunc) -> np.ndarray:
    """How often the extreme value has been seen, after one more strip."""
    return np.where(better(strip, best), count, np.where(strip == best, total + count, total))


@contextmanager
def _heeding(report: Report) -> Iterator[None]:
    """Turn warnings and the errors that end the look into findings."""
    ending: list[SceneError] = []
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always", DataWarning)
        try:
            yield
        except NoSceneFile:  # there is nothing to look at
            raise
        except SceneError as error:
            ending = error.errors if isinstance(error, SceneErrors) else [error]
    said = [text for _, text in report.findings]
    for text in [str(w.message) for w in seen if issubclass(w.category, DataWarning)]:
        if not any(one in text for one in said):  # the notes of scene and split come as warnings too
            report.add("look", text)
    for one in ending:
        report.add("missing" if isinstance(one, MissingFile) else "wrong", str(one))


def _level(note: str) -> str:
    return "look" if isinstance(note, Doubt) else "note"


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _some(names: np.ndarray) -> str:
    shown = ", ".join(names[:6])
    return f"{counted(len(names), 'band')} ({shown}{', ...' if len(names) > 6 else ''})" if len(names) > 1 else shown
