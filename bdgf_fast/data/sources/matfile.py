"""MATLAB files: v5 to v7.2 through SciPy (read whole, the format allows no windows), v7.3 (HDF5) in windows through h5py.

MATLAB stores arrays column-major, so HDF5 shows the axes of a v7.3 array in reverse; they are turned back here. A data set
without the attribute MATLAB_class was written by another program and keeps the order it is stored in.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from bdgf_fast.common.packages import require
from bdgf_fast.data.sources.matfile_structure import damage
from bdgf_fast.errors import SceneError, SeveralArrays, closest

_NOT_ARRAYS = ("struct", "cell", "char", "function", "opaque", "object")
CHUNK_CACHE = 256 * 2**20  # bytes per open array
Listing = list[tuple[str, tuple[int, ...], str]]  # (name, shape, MATLAB's class) of every variable


class Hdf5Array:
    """Numeric array of a v7.3 file, read in windows: ``shape`` and indices in MATLAB's axis order.

    Indices are slices, one per axis. The file is opened on first use, once per process, and reading is guarded by a lock
    (HDF5 handles survive no fork and are not thread-safe).
    """

    def __init__(self, path: Path, key: str, dtype: np.dtype, shape: tuple[int, ...], backwards: bool) -> None:
        self.path, self.key, self.dtype, self.shape = path, key, dtype, shape
        self.ndim = len(shape)
        self._backwards = backwards
        self._file: Any = None
        self._pid = -1
        self._lock = threading.RLock()

    def __getitem__(self, index: tuple[slice, ...]) -> np.ndarray:
        with self._lock:
            if self._file is None or self._pid != os.getpid():
                self._file, self._pid = _open(self.path), os.getpid()
            with _reading(self.path, f"MATLAB v7.3 file at {self.key!r}"):
                values = self._file[self.key][index[::-1] if self._backwards else index]
        return values.T if self._backwards else values

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[(slice(None),) * self.ndim], dtype)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_file", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _file=None, _lock=threading.RLock())


def list_variables(path: Path) -> Listing:
    """Name, shape and MATLAB class of every variable, without reading the arrays."""
    if _is_hdf5(path):
        with _open(path) as file, _reading(path, "MATLAB v7.3 file"):
            return [(name, *_describe(item)) for name, item in file.items() if not name.startswith("#")]
    _check_v5(path)
    io = require("scipy.io", str(path))
    with _reading(path, ".mat file"):
        try:
            return [(name, tuple(shape), kind) for name, shape, kind in io.whosmat(path)]
        except NotImplementedError:
            raise SceneError(f"{path} is a .mat file of a version that is not known; save it again with '-v7'.") from None


@contextmanager
def _reading(path: Path, what: str) -> Iterator[None]:
    """One sentence for whatever a reader fed with a damaged file comes upon: SciPy and HDF5 let errors of all kinds through."""
    try:
        yield
    except (SceneError, _Stopped):
        raise
    except MemoryError:
        raise SceneError(f"{path} promises an array larger than the memory; is the file damaged?") from None
    except Exception as error:
        reason = str(error).strip().rstrip(".").replace("\n", " ") or type(error).__name__
        raise SceneError(f"{path} is not a readable {what}: {reason}; is it complete?") from None


def _check_v5(path: Path) -> None:
    with _reading(path, ".mat file"):
        if (found := damage(path)) is not None:
            raise ValueError(found)


def choose_variable(path: Path, wanted: Sequence[str], role: str = "hsi") -> str:
    """The first of ``wanted`` (each "name" or "name.field[0]") that the file holds, else its only array.

    Names match whatever their case. Raises SceneError listing what the file holds; ``role`` is for its message.
    """
    listed = list_variables(path)
    for variable in wanted:
        first = re.split(r"\W", variable, maxsplit=1)[0]
        rest = variable[len(first) :]
        for name, _, kind in listed:
            if name.lower() == first.lower() and bool(rest) == (kind in ("struct", "cell")):
                return name + rest
    arrays = _arrays(listed)
    if len(arrays) == 1:
        return arrays[0]
    raise SceneError(
        f"{path} holds {listing(listed)}, but none of {', '.join(wanted)}; name the one to take in a scene file, as in "
        f'files = {{ {role} = {{ path = "{path.name}", variable = "{arrays[0] if arrays else "..."}" }} }}.'
    )


def load_variable(path: Path, variable: str | None) -> np.ndarray | Hdf5Array:
    """Numeric array "name" or "name.field[0].field" of a .mat file, by default the only one in it.

    Structs are walked by field, cells and struct arrays by 0-based index; sparse matrices of v5 files become dense.
    """
    listed = list_variables(path)
    if variable is None:
        arrays = _arrays(listed)
        if len(arrays) != 1:
            raise SeveralArrays(path, listing(listed), {name: shape for name, shape, _ in listed if name in arrays})
        variable = arrays[0]
    name, steps = _steps(variable, path)
    if name not in [entry[0] for entry in listed]:
        raise SceneError(f"{path} has no variable {name!r}{closest(name, [n for n, *_ in listed])}; it holds {listing(listed)}.")
    return _load_hdf5(path, variable, name, steps) if _is_hdf5(path) else _load_v5(path, variable, name, steps)


def load_names(path: Path, variable: str) -> list[str]:
    """Texts of a cell array such as "hsi.sceneLabels.Materials_Type"; empty when the file has none there."""
    name, steps = _steps(variable, path)
    try:
        if _is_hdf5(path):
            with _open(path) as file:
                cells = _walk_hdf5(file, name, steps)
                return ["".join(map(chr, np.asarray(file[ref]).ravel())) for ref in np.asarray(cells).ravel()]
        value = _walk_v5(_read_v5(path, name, True), steps)
        return [str(text) for text in np.atleast_1d(value)]
    except Exception:  # names are a convenience; what is wrong with the file shows where its values are read
        return []


def listing(listed: Listing) -> str:
    """The variables of a file as a sentence names them."""
    return ", ".join(f"{n} ({' x '.join(map(str, shape))} {kind})" for n, shape, kind in listed) or "no variables"


def _arrays(listed: Listing) -> list[str]:
    return [name for name, shape, kind in listed if kind not in _NOT_ARRAYS and np.prod(shape, dtype=float) > 1]


def _steps(variable: str, path: Path) -> tuple[str, list[str | int]]:
    """'hsi.Lidar[0].z' -> ('hsi', ['Lidar', 0, 'z'])."""
    if not re.fullmatch(r"\w+(\.\w+|\[\d+\])*", variable):
        raise SceneError(f"{path}: variable {variable!r} is not of the form name.field[0].field.")
    name, *rest = re.findall(r"\w+|\[\d+\]", variable)
    return name, [int(step[1:-1]) if step.startswith("[") else step for step in rest]


# --- v5 to v7.2 ---


def _read_v5(path: Path, name: str, squeeze: bool) -> Any:
    _check_v5(path)
    io = require("scipy.io", str(path))
    return io.loadmat(path, variable_names=[name], squeeze_me=squeeze, struct_as_record=False)[name]


def _walk_v5(value: Any, steps: Sequence[str | int]) -> Any:
    for step in steps:
        try:
            value = np.atleast_1d(value)[step] if isinstance(step, int) else getattr(value, step)
        except (AttributeError, IndexError):
            raise _Stopped(step, getattr(value, "_fieldnames", [])) from None
    return value


class _Stopped(LookupError):
    def __init__(self, step: str | int, fields: Sequence[str]) -> None:
        super().__init__(f"stops at {step!r}; there it has {', '.join(fields) or 'no fields'}")


def _load_v5(path: Path, variable: str, name: str, steps: list[str | int]) -> np.ndarray:
    try:
        with _reading(path, ".mat file"):
            # Structs are far easier to walk squeezed; plain arrays keep their singleton dimensions (scenes of one row).
            value = _walk_v5(_read_v5(path, name, bool(steps)), steps)
            if hasattr(value, "toarray"):
                value.check_format(full_check=True)  # SciPy writes where the indices say, also outside the array
                value = value.toarray()
    except _Stopped as error:
        raise SceneError(f"{path}: {variable!r} {error}.") from None
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "biufc":
        raise SceneError(f"{path}: {variable!r} is not a numeric array; it is {type(value).__name__}.")
    return value


# --- v7.3 ---


def _is_hdf5(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            head = file.read(128)
    except OSError as error:
        raise SceneError(f"{path} cannot be read: {error.strerror}.") from None
    return head.startswith((b"MATLAB 7.3", b"\x89HDF"))


def _open(path: Path) -> Any:
    h5py = require("h5py", f"{path}, a MATLAB v7.3 file,")
    try:
        # Strips of rows cut through MATLAB's compressed chunks: keep a row of chunks unpacked instead of unpacking it each time.
        return h5py.File(path, "r", rdcc_nbytes=CHUNK_CACHE, rdcc_nslots=100_003)
    except OSError as error:
        raise SceneError(f"{path} is not a readable MATLAB v7.3 file: {error}; is it complete?") from None


def _matlab_class(item: Any) -> str | None:
    value = item.attrs.get("MATLAB_class")
    return value.decode() if isinstance(value, bytes) else value


def _describe(item: Any) -> tuple[tuple[int, ...], str]:
    kind = _matlab_class(item)
    if not hasattr(item, "shape"):
        return (1, 1), "sparse" if "MATLAB_sparse" in item.attrs else kind or "struct"
    if "MATLAB_empty" in item.attrs:
        return (0, 0), kind or "double"
    if kind is None:
        return item.shape, str(item.dtype)
    return item.shape[::-1], kind


def _walk_hdf5(file: Any, name: str, steps: Sequence[str | int]) -> Any:
    """The HDF5 object at the end of the steps; cells and fields of struct arrays are data sets of references."""
    item, index = file[name], None
    for step in steps:
        fields = list(item) if hasattr(item, "keys") else []
        if isinstance(step, int) and fields:
            index = step  # of a struct array: it picks from the field that follows
            continue
        if isinstance(step, int):
            item = _referred(file, item, step)
        elif step not in fields:
            raise _Stopped(step, fields)
        else:
            item = item[step]
            if index is not None and (index or _is_reference(item)):
                item = _referred(file, item, index)
        index = None
    return item


def _is_reference(item: Any) -> bool:
    return hasattr(item, "shape") and item.dtype.kind == "O"


def _referred(file: Any, item: Any, index: int) -> Any:
    references: Any = np.asarray(item).ravel() if _is_reference(item) else []
    if index >= len(references):
        raise _Stopped(index, [])
    return file[references[index]]


def _load_hdf5(path: Path, variable: str, name: str, steps: list[str | int]) -> Hdf5Array:
    try:
        with _open(path) as file, _reading(path, f"MATLAB v7.3 file at {variable!r}"):
            item = _walk_hdf5(file, name, steps)
            if _is_reference(item) and item.size == 1:
                item = _referred(file, item, 0)
            shape, kind = _describe(item)
            if hasattr(item, "shape") and item.dtype.names == ("real", "imag"):
                raise SceneError(f"{path}: {variable!r} holds complex values; real numbers are needed (take magnitude or dB).")
            if not hasattr(item, "shape") or kind in _NOT_ARRAYS or item.dtype.kind not in "biuf" or 0 in shape:
                raise SceneError(f"{path}: {variable!r} is not a numeric array; it is {'empty' if 0 in shape else kind}.")
            return Hdf5Array(path, item.name, item.dtype, tuple(shape), _matlab_class(item) is not None)
    except _Stopped as error:
        raise SceneError(f"{path}: {variable!r} {error}.") from None
