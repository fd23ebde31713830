"""The tables of a scene file: which keys there are, what kind of value each takes, and their JSON schema for editors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Annotated, Any

from pydantic import Strict, TypeAdapter, ValidationError, WithJsonSchema

from bdgf_fast.config import Config
from bdgf_fast.errors import SceneError, closest
from bdgf_fast.validation import FORBID

RESAMPLING = ("nearest", "bilinear", "cubic", "cubic_spline", "lanczos", "average", "mode", "max", "min", "med", "q1", "q3", "rms")
_TEXTS = {"type": "array", "items": {"type": "string"}}
_WHOLE = {"type": "integer"}
_FILE = {"type": "object", "properties": {name: {"type": "string"} for name in ("path", "variable", "field", "layer")},
         "required": ["path"], "additionalProperties": False}  # fmt: skip

Text = Annotated[str, Strict()]
Whole = Annotated[int, Strict()]
Number = Annotated[float, Strict()]
Flag = Annotated[bool, Strict()]
# Values that the reading itself checks, because what it says depends on the files or on other keys.
Files = Annotated[Any, WithJsonSchema({"anyOf": [{"type": "string"}, _TEXTS]})]
Bands = Annotated[Any, WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": ["integer", "string"]}}]})]
Codes = Annotated[Any, WithJsonSchema({"type": "array", "items": _WHOLE})]
ByCode = Annotated[Any, WithJsonSchema({"type": "object", "propertyNames": {"pattern": "^-?[0-9]+$"}})]
LabelFile = Annotated[Any, WithJsonSchema({"anyOf": [{"type": "string"}, _FILE]})]
Layout = Annotated[str, Strict(), WithJsonSchema({"enum": ["hwc", "chw"]})]
Resampling = Annotated[str, Strict(), WithJsonSchema({"enum": list(RESAMPLING)})]
Kind = Annotated[str, Strict(), WithJsonSchema({"enum": ["blocks", "given", "per_class", "all"]})]


@dataclass
class ModalityTable:
    """One sensor."""

    __pydantic_config__ = FORBID

    name: Text | None = None
    """What the modality is called."""
    path: Files = None
    """Its file: GeoTIFF, ENVI, .npy, .npz, .mat, or what GDAL opens; relative to the scene file. Or a pattern: "B*.tif"."""
    files: Files = None
    """In place of path: several files whose bands are stacked."""
    bands: Bands = None
    """The bands to use, counted from 1 or by name: [1, 3], "1-12, 14", ["red", "nir"]; default: all that the file calls good."""
    band_names: Annotated[Any, WithJsonSchema(_TEXTS)] = None
    """A name for each band used."""
    variable: Text | None = None
    """The array in a .mat or .npz file that holds several."""
    layout: Layout | None = None
    """Order of an array's axes: hwc (rows, columns, bands) or chw."""
    nodata: Number | None = None
    """The stored number that stands for no value."""
    unscale: Flag | None = None
    """false: leave out the file's scale and offset."""
    alpha: Flag | None = None
    """false: read an alpha band as data."""
    resampling: Resampling | None = None
    """How bands on another grid are resampled; default: bilinear."""
    pca: Whole | None = None
    """Reduce the bands to this many principal components, fitted on the training side."""
    rgb: Annotated[Any, WithJsonSchema({"type": "array", "items": _WHOLE, "minItems": 3, "maxItems": 3})] = None
    """Bands for red, green and blue in pictures, counted from 1 among those used."""


@dataclass
class LabelsTable:
    """Where the labels are and what they mean."""

    __pydantic_config__ = FORBID

    path: Annotated[Any, WithJsonSchema({"type": "string"})] = None
    """The label map: a raster, an array or a vector file."""
    variable: Text | None = None
    """The array in a .mat or .npz file that holds several."""
    field: Text | None = None
    """The field of a vector file that holds the class."""
    layer: Text | None = None
    """The layer of a vector file that has several."""
    train: LabelFile = None
    """A map of the training pixels, or a list of them; a table where it lies in a variable, field or layer of its own."""
    test: LabelFile = None
    """The same for the test pixels."""
    val: LabelFile = None
    """The same for the validation pixels."""
    ignore: Codes = None
    """Codes that are no class."""
    classes: ByCode = None
    """Name of each code; a code that occurs needs one, unless ignore leaves it out."""
    colours: ByCode = None
    """Colour of each code: "#rrggbb", a CSS name or [r, g, b]."""
    nodata: Number | None = None
    """The stored number that stands for no label."""


@dataclass
class SplitTable:
    """How labelled pixels are divided into a training and a test side."""

    __pydantic_config__ = FORBID

    kind: Kind | None = None
    """blocks: squares of the scene; given: the maps in [labels]; per_class: random pixels, which flatters every method; all: every
    labelled pixel trains and none is scored, for maps of other scenes."""
    block: Whole | None = None
    """Side of a block in pixels."""
    train_fraction: Number | None = None
    """Share of the blocks on the training side."""
    per_class: Whole | None = None
    """Training pixels of each class, at most."""
    gap: Annotated[Any, WithJsonSchema({"anyOf": [{"enum": ["patch", "features"]}, {"type": "integer", "minimum": 0}]})] = None
    """No test pixel this near to a training block: "patch" (the patch radius), "features" (how far the method sees), or pixels."""
    val_blocks: Annotated[Any, WithJsonSchema({"type": ["boolean", "number"]})] = None
    """Share of the training blocks that are kept for validation."""


@dataclass
class SceneTable:
    """A scene file of bdgf-fast: rasters, labels and split."""

    __pydantic_config__ = FORBID

    name: Text | None = None
    """What the scene is called; default: the file's name."""
    grid: Text | None = None
    """Name of the modality whose grid all others are brought to; default: the first with a georeference."""
    modality: list[ModalityTable] | None = None
    """The sensors."""
    labels: LabelsTable | None = None
    split: SplitTable | None = None


@dataclass
class DatasetTable:
    """A scene file of bdgf-fast that changes something about a data set known by name."""

    __pydantic_config__ = FORBID

    dataset: Annotated[Any, WithJsonSchema({"type": "string"})]
    """Name of the set; `bdgf-fast data list` shows them."""
    folder: Annotated[Any, WithJsonSchema({"type": "string"})] = "."
    """The folder its files lie in, relative to this file."""
    name: Text | None = None
    """What the scene is called."""
    files: Annotated[Any, WithJsonSchema({"type": "object", "additionalProperties": {"anyOf": [{"type": "string"}, _FILE]}})] = None
    """Other file names, by modality or labels, train, test."""
    nodata: Annotated[Any, WithJsonSchema({"type": "object", "additionalProperties": {"type": "number"}})] = None
    """The stored number that stands for no value, by modality."""
    pca: Annotated[Any, WithJsonSchema({"type": "object", "additionalProperties": _WHOLE})] = None
    """Principal components, by modality."""
    ignore: Codes = None
    """Codes to leave out."""
    split: Any = None
    """Rules of the split in place of the published one."""


@dataclass
class JoinTable:
    """A scene file of bdgf-fast that makes one scene of several, to train on all of them."""

    __pydantic_config__ = FORBID

    join: Annotated[Any, WithJsonSchema({**_TEXTS, "minItems": 1})]
    """The scenes: files relative to this one, or NAME:FOLDER of known data sets. Same modalities, bands and legend."""
    name: Text | None = None
    """What the whole is called; default: the file's name."""
    gap: Whole | None = None
    """Rows without a value between two scenes, at least: more than the method sees; default: 128."""
    split: SplitTable | None = None


TABLES = (SceneTable, DatasetTable, JoinTable)
_KINDS = {"string_type": "text in quotes", "int_type": "a whole number", "float_type": "a number", "bool_type": "true or false"}


def describes_scene(table: Mapping[str, Any]) -> bool:
    """Whether a parsed TOML file is meant as a scene file and not as a configuration."""
    return any(key in table for key in ("modality", "dataset", "join", "labels")) and not _holds_settings(table)


def describes_settings(table: Mapping[str, Any]) -> bool:
    """Whether a parsed TOML file is meant as a configuration and not as a scene file."""
    return _holds_settings(table) and not any(key in table for kind in TABLES for key in _keys(kind))


def _holds_settings(table: Mapping[str, Any]) -> bool:
    return any(key in table for key in _keys(Config))


def _keys(kind: Any) -> list[str]:
    return [field.name for field in fields(kind)]


def check_tables(table: dict[str, Any], said: str, kind: Any = SceneTable) -> None:
    """Raise SceneError for an unknown key or a value of the wrong kind in a parsed scene file, which messages call ``said``."""
    try:
        _adapter(kind).validate_python(table)
    except ValidationError as error:
        raise SceneError(_sentence(error.errors(include_url=False)[0], table, said, kind)) from None


def entry_name(said: str, i: int, entry: dict[str, Any]) -> str:
    """How messages name the i-th [[modality]] table."""
    return f"{said}, [[modality]] {entry.get('name', i)!r}"


def schema() -> dict[str, Any]:
    """JSON schema of a scene file."""
    _, found = TypeAdapter.json_schemas(
        [(kind, "validation", _adapter(kind)) for kind in TABLES], title="Scene file of bdgf-fast"
    )
    found["$defs"]["DatasetTable"]["properties"]["split"] |= {"$ref": "#/$defs/SplitTable"}  # checked with the set's own tables
    either = [{"$ref": f"#/$defs/{kind.__name__}"} for kind in TABLES]
    found["$defs"]["SceneTable"]["required"], found["$defs"]["ModalityTable"]["required"] = ["modality"], ["name"]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_without_null(found), "anyOf": either}


def _without_null(part: Any) -> Any:
    """A schema without the null that stands for a key left out: TOML has none."""
    if isinstance(part, list):
        return [_without_null(item) for item in part]
    if not isinstance(part, dict):
        return part
    kept = {key: _without_null(value) for key, value in part.items() if not (key == "default" and value is None)}
    options = [option for option in kept.get("anyOf", []) if option != {"type": "null"}]
    if options:
        kept["anyOf"] = options
    return {**{k: v for k, v in kept.items() if k != "anyOf"}, **options[0]} if len(options) == 1 else kept


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _sentence(fault: Any, table: dict[str, Any], said: str, kind: type) -> str:
    path, value = fault["loc"], repr(fault["input"])[:80]
    unknown = fault["type"] == "unexpected_keyword_argument"
    if (path == ("modality",) and not unknown) or (path[:1] == ("modality",) and len(path) == 2):
        return f"{said}: give at least one [[modality]] table (double brackets)."
    if fault["type"] == "dataclass_type":
        return f"{said}: {path[-1]} must be a table, [{path[-1]}]."
    where = said
    if path[0] == "modality" and len(path) > 1:
        where, kind = entry_name(said, path[1] + 1, table["modality"][path[1]]), ModalityTable
    elif len(path) > 1:
        where, kind = f"{said}, [{path[0]}]", {"labels": LabelsTable, "split": SplitTable}[path[0]]
    if unknown:
        names = _keys(kind)
        return f"{where}: unknown key {path[-1]!r}{closest(str(path[-1]), names)}; known keys are {', '.join(names)}."
    if fault["type"] == "float_type" and type(fault["input"]) is int:
        return f"{where}: {path[-1]} lies beyond the range of numbers."
    if fault["type"] in _KINDS:
        return f"{where}: {path[-1]} is {value}; it must be {_KINDS[fault['type']]}."
    return f"{where}: {path[-1]} is {value}: {fault['msg'][0].lower()}{fault['msg'][1:]}."
