"""What a run or a study was made from: its files, its scene's tables and its labels; and the split of its pixels, as stored.

A later stage opens the run by this, and refuses a scene that is no longer the same: pixels that were trained on would be scored.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
import zipfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data import Scene
from ..data.scene_file import in_folder
from ..data.split import Split
from ..errors import UserError
from ..files.atomic import atomic
from ..files.json_files import read_json, write_json

ORIGIN, SPLIT = "origin.json", "split.npz"
VERSION = 1
ALWAYS_READ = 256 * 2**20
"""Files up to this size are compared by their content every time; larger ones only when their size or time has changed."""
SHOWN_ONLY = re.compile(r"name|.*\.rgb|labels\.colours.*")
"""Keys of a scene file that change no value, label or pixel's side."""
MOST_NAMED = 4


def describe(scene: Scene, maps: Sequence[str] = (), before: Any = None, *, always_read: int | None = None) -> dict[str, Any]:
    """JSON-able facts about a scene and the files ``maps`` of another model: size, time and sha256 of every file, the tables of
    the scene file, what the rasters were read as, and digests of the labels and of the given sides.

    Every file is read once, but for those above ``always_read`` bytes (default: ``ALWAYS_READ``) that have kept their size and time
    since the description ``before``.
    """
    always_read = ALWAYS_READ if always_read is None else always_read
    known = before.get("files", {}) if isinstance(before, dict) else {}
    return {
        "version": VERSION,
        "files": {str(path): _stamp(path, known.get(str(path)), always_read) for path in files(scene, maps)},
        "tables": _tables(scene),
        "modalities": {
            m.name: {
                "bands": list(m.bands), "pca": m.pca, "size": [m.height, m.width],
                "rasters": [[list(bands), [repr(raster.nodata[b]) for b in bands],
                             None if raster.scales is None else [list(raster.scales[b]) for b in bands]]
                            for raster, bands in m.parts],
            }
            for m in scene.modalities
        },
        "labels": _digest(scene.labels),
        "classes": [c.code for c in scene.classes],
        "given": {side: _digest(mask) for side, mask in sorted(scene.given.items())},
    }  # fmt: skip


def files(scene: Scene, maps: Sequence[str | Path] = ()) -> list[Path]:
    """The files on this machine that a scene's bands are read from, and ``maps``."""
    sources = dict.fromkeys(source for modality in scene.modalities for raster, _ in modality.parts for source in raster.sources)
    return list(dict.fromkeys([*(path for source in sources for path in _local(source)), *map(Path, maps)]))


def changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What differs between two descriptions of a scene, each in a few words; empty where they are the same."""
    out = []
    for path in sorted(before["files"].keys() | now["files"].keys()):
        a, b = before["files"].get(path), now["files"].get(path)
        if a is None or b is None:
            out.append(f"{path} {'is new' if a is None else 'is no longer used'}")
        elif a["sha256"] != b["sha256"]:
            out.append(f"the content of {path}")
    a, b = (_leaves(facts["tables"]) for facts in (before, now))
    for key in sorted(a.keys() | b.keys()):
        if a.get(key) != b.get(key) and not SHOWN_ONLY.fullmatch(key):
            out.append(f"{_spoken(key)} was {a.get(key, 'not set')}, is {b.get(key, 'not set')}")
    if before.get("denoiser") != now.get("denoiser"):
        out.append("the denoiser")
    if before["labels"] != now["labels"] or before["classes"] != now["classes"]:
        out.append("the labels")
    out += [f"the {side} side in [labels]" for side in sorted(before["given"].keys() | now["given"].keys())
            if before["given"].get(side) != now["given"].get(side)]  # fmt: skip
    if not out:  # the header of a raster, say, which gives another value for nodata
        out += [f"what is read of modality {name!r}" for name in before["modalities"].keys() | now["modalities"].keys()
                if before["modalities"].get(name) != now["modalities"].get(name)]  # fmt: skip
    return out


def require_same(where: Path, noun: str, before: Any, now: dict[str, Any]) -> None:
    """Raise UserError that says in what the scene has changed since the ``noun`` (run, study) in ``where`` began."""
    if not isinstance(before, dict) or before.get("version") != VERSION:
        raise UserError(f"{where} holds a {noun} of another release, which did not keep what it was made from; start it anew")
    found = changes(before, now)
    if found:
        more = f", and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
        raise UserError(
            f"the scene has changed since the {noun} in {where} began ({'; '.join(found[:MOST_NAMED])}{more}): put it back, or "
            f"start another {noun}"
        )


def bind(folder: Path, scene: Scene, maps: Sequence[str], denoiser: str | None = None) -> None:
    """Write what the run in ``folder`` is made from; ``denoiser`` is the sha256 of one that it was given."""
    write_json(folder / ORIGIN, {**describe(scene, maps), **({} if denoiser is None else {"denoiser": denoiser})})


def check(folder: Path, scene: Scene, maps: Sequence[str], denoiser: Path | None = None) -> None:
    """Raise UserError when the scene of the run in ``folder``, or the ``denoiser`` that it was given, is no longer what the run was
    made from."""
    path = folder / ORIGIN
    before = read_json(path) if path.exists() else None
    given = {} if denoiser is None or not denoiser.exists() else {"denoiser": digest_of(denoiser)}
    require_same(folder, "run", before, {**describe(scene, maps, before), **given})


# --- the split ---


def save_split(path: Path, split: Split, labels: np.ndarray) -> None:
    """Row, column and class index of every training, validation and test pixel, the training region and the split's facts."""
    sides: dict[str, Any] = {}
    for name in ("train", "val", "test"):
        rc = getattr(split, name).numpy()
        sides[name] = np.concatenate([rc, labels[rc[:, 0], rc[:, 1], None]], 1).astype(np.int32)
    with atomic(path) as beside:
        np.savez_compressed(beside, **sides, train_region=split.train_region, facts=np.array(json.dumps(split.summary())))


def load_split(path: Path) -> Split:
    """Inverse of ``save_split``."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            sides = {name: torch.from_numpy(stored[name][:, :2].astype(np.int64)) for name in ("train", "val", "test")}
            facts: dict[str, Any] = json.loads(str(stored["facts"]))
            return Split(sides["train"], sides["val"], sides["test"], stored["train_region"], **facts)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is missing or damaged ({error}); start the run again with --overwrite") from None


# --- parts ---


def digest_of(path: Path) -> str:
    """The sha256 of a file's content."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _local(source: str) -> list[Path]:
    """The files on this machine behind a raster's source (a path, ``file[variable]``, a path into an archive) and, where there
    is one, the ENVI header that says how the values are stored. Addresses have none: what is read of them is all that is known."""
    text = source if Path(source).exists() else re.sub(r"\[[^][]*\]$", "", source)
    text = re.sub(r"^(/vsi[a-z]+)+(?=/)", "", text)
    path = next((p for p in (Path(text), *Path(text).parents) if p.is_file()), None)
    if path is None:
        return []
    return [path, *(p for p in (path.with_suffix(".hdr"), Path(f"{path}.hdr")) if p != path and p.is_file())]


def _stamp(path: Path, known: dict[str, Any] | None, always_read: int) -> dict[str, Any]:
    try:
        facts = path.stat()
        stamp = {"size": facts.st_size, "mtime_ns": facts.st_mtime_ns}
        if known is not None and facts.st_size > always_read and {**stamp, "sha256": known["sha256"]} == known:
            return known
        return {**stamp, "sha256": digest_of(path)}
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None


def _tables(scene: Scene) -> Any:
    """The parsed scene file, where the scene has one, with the rules of the split as they apply, defaults included."""
    path = None if scene.path is None else in_folder(Path(scene.path))
    tables: Any = {}
    if path is not None and path.is_file():
        tables = json.loads(json.dumps(tomllib.loads(path.read_text(encoding="utf-8-sig")), default=str))
    return {**tables, "split": asdict(scene.split_spec)}


def _digest(array: np.ndarray) -> str:
    values = np.ascontiguousarray(array)
    return hashlib.sha256(f"{values.dtype} {values.shape}".encode() + values.tobytes()).hexdigest()


def _leaves(value: Any, path: str = "") -> dict[str, str]:
    """{"split.block": "16", "modality.sar.path": ...}; modalities go by their names."""
    if isinstance(value, dict):
        return {k: v for key, inner in value.items() for k, v in _leaves(inner, f"{path}.{key}" if path else key).items()}
    if path == "modality" and isinstance(value, list):
        return _leaves({str(entry.get("name", i)): entry for i, entry in enumerate(value, 1)}, path)
    return {path: json.dumps(value, ensure_ascii=False)}


def _spoken(key: str) -> str:
    """``[split] block`` of ``split.block``."""
    table, dot, rest = key.partition(".")
    return f"[{table}] {rest}" if dot else key
