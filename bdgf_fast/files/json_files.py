"""JSON files of runs and studies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..common.ranks import leads
from ..errors import UserError
from .atomic import atomic


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON, whole or not at all; of several ranks the first writes."""
    if not leads():
        return
    with atomic(path) as beside, open(beside, "w", encoding="utf-8") as stream:
        json.dump(value, stream, indent=1, ensure_ascii=False, allow_nan=False)
        stream.write("\n")


def read_json(path: Path) -> Any:
    """Read a JSON file of a run; a missing or damaged one is a UserError that names it."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing: this is not the directory of a run, or its run never started") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged ({error}); start the run again with --overwrite") from None
