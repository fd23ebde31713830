"""Checkpoints without pickle: one safetensors file, its JSON beside the tensors in the file's own header.

A file is written beside its place, flushed to the disk and renamed, so a kill leaves the old one or the new one. Every
tensor's bytes enter a digest that ``load`` checks: a truncated, damaged or foreign file is one clear sentence.
"""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import UserError

FORMAT = "bdgf_fast/1"
_MEND = "remove it and run the stage again, or restore it from a copy"


def _digest(tensors: dict[str, Tensor]) -> str:
    value = 0
    for name in sorted(tensors):
        tensor = tensors[name]
        value = zlib.crc32(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}".encode(), value)
        if tensor.numel():
            value = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, value)
    return f"{value:08x}"


def save(path: Path | str, kind: str, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
    """Write ``tensors`` and JSON-able ``meta`` as a checkpoint of ``kind`` (a stage's name), whole or not at all.

    Raises UserError when the place cannot be written (full disk, no permission). O(bytes).
    """
    path = Path(path)
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    header = {"format": FORMAT, "kind": kind, "crc32": _digest(tensors), "meta": json.dumps(meta, allow_nan=False)}
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, str(beside), header)
        with open(beside, "rb+") as stream:
            os.fsync(stream.fileno())
        os.replace(beside, path)
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"cannot write the checkpoint {path}: {error}; free some space or choose another directory"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()


def load(path: Path | str, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a checkpoint of ``kind`` -> (tensors on the CPU, meta).

    Raises UserError naming the file and the correction when it is missing, truncated, damaged, foreign or of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"the checkpoint {path} is missing; run the stage {kind} first")
    try:
        with safe_open(str(path), framework="pt", device="cpu") as stream:
            header = stream.metadata() or {}
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"the checkpoint {path} is truncated or no checkpoint ({error}); {_MEND}") from error
    if header.get("format") != FORMAT:
        raise UserError(
            f"the checkpoint {path} was not written by this program (its format is {header.get('format')!r}, "
            f"not {FORMAT!r}); {_MEND}"
        )
    if header.get("kind") != kind:
        raise UserError(
            f"the checkpoint {path} belongs to the stage {header.get('kind')!r}, not {kind!r}; name that stage's file"
        )
    if header.get("crc32") != _digest(tensors):
        raise UserError(f"the checkpoint {path} is damaged (its checksum does not match); {_MEND}")
    return tensors, json.loads(header["meta"])


def require_same_run(path: Path | str, found: dict[str, Any], wanted: dict[str, Any], where: str = "") -> None:
    """Raise UserError naming the first value in which a checkpoint's run differs from the one that would go on with
    it."""
    for key in sorted(found.keys() | wanted.keys()):
        a, b = found.get(key), wanted.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            require_same_run(path, a, b, f"{where}{key}.")
        elif a != b:
            raise UserError(
                f"the checkpoint {path} was made with {where}{key} = {a}, this run has {b}; use the same value, "
                "or start again without --resume"
            )
