"""Files and tables that nobody would write on purpose: every one is read or refused in one sentence, none ends otherwise.

A short run with fixed examples; ``BDGF_EXAMPLES=5000 pytest tests/data/test_data_hypothesis.py`` looks longer, with others.
"""

import copy
import json
import math
import os
import warnings

import numpy as np
import pytest

from bdgf_fast.data import load_scene, make_split, prepare
from bdgf_fast.data.scene_file import build_scene
from bdgf_fast.errors import UserError

hypothesis = pytest.importorskip("hypothesis")
rasterio = pytest.importorskip("rasterio")
sio = pytest.importorskip("scipy.io")
pytest.importorskip("h5py")
from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from known_files import save_envi, save_v73  # noqa: E402
from rasterio.enums import ColorInterp  # noqa: E402

EXAMPLES = int(os.environ.get("BDGF_EXAMPLES", 0))
H, W = 8, 9
RNG = np.random.default_rng(1)
CUBE = RNG.normal(100, 20, (3, H, W)).astype(np.float32)
CODES = (np.arange(H * W) // 4 % 3).astype(np.uint8).reshape(H, W)
LABELS = {"path": "gt.npy", "classes": {"1": "a", "2": "b"}}
SPLIT = {"block": 2, "train_fraction": 0.5, "per_class": 3, "gap": 0}


def short(examples):
    """Few and the same examples in the tests, many and others on demand."""
    return settings(
        max_examples=EXAMPLES or examples, derandomize=not EXAMPLES, database=None, deadline=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("files")
    np.save(path / "gt.npy", CODES)
    np.save(path / "x.npy", CUBE)
    np.savez(path / "x.npz", x=CUBE)
    sio.savemat(path / "x.mat", {"x": CUBE.transpose(1, 2, 0), "s": {"y": CUBE}})
    save_v73(path / "h.mat", {"x": CUBE.transpose(1, 2, 0), "s": {"y": [CUBE[0], CUBE[1]]}})
    profile = {"driver": "GTiff", "count": 3, "height": H, "width": W, "dtype": "float32", "crs": "EPSG:32633"}
    with rasterio.open(path / "x.tif", "w", transform=rasterio.Affine(10, 0, 5e5, 0, -10, 5e6), **profile) as data:
        data.write(CUBE)
        data.update_tags(1, a="b")
        data.scales = (0.5, 1, 1)
    return path


def use(table, folder):
    """Everything a run does with the data; only sentences for a person may come out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            read = (lambda: build_scene(table, "scene.toml", folder, folder / "s.toml")) if isinstance(table, dict) else None
            scene = read() if read else load_scene(table)
            scene.valid()
            if scene.classes:
                split = make_split(scene, patch=3)
                prepare(scene, split).window(-2, -2, 5, 5)
        except UserError as error:
            assert str(error).strip() and "\n\n" not in str(error)


def modality(path, **more):
    return {"name": "x", "path": str(path), **more}


def table_of(*entries, labels=LABELS):
    return {"modality": list(entries), "labels": labels, "split": SPLIT}


def mutated(data, whole):
    """Bytes with some swapped, overwritten, cut out or cut off."""
    raw = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, max(0, len(raw) - 1)))
        how = data.draw(st.sampled_from(("byte", "cut", "end", "big", "swap")))
        if how == "byte":
            raw[at : at + 1] = bytes([data.draw(st.integers(0, 255))])
        elif how == "cut":
            del raw[at : at + data.draw(st.integers(1, 40))]
        elif how == "end":
            del raw[max(at, 1) :]
        elif how == "big":
            raw[at : at + 4] = b"\xff\xff\xff\x7f"
        else:
            raw[at : at + 4] = raw[at : at + 4][::-1]
    return bytes(raw)


# --- tables ---

NUMBERS = st.one_of(
    st.integers(-3, 12), st.sampled_from((2**31, 2**63, -(2**70), 10**400)), st.floats(), st.sampled_from((1e308, -0.0, math.nan))
)
FILES = ("x.npy", "x.tif", "gt.npy", "x.mat", "*", "[", "~x", "", "a\0b", "/vsizip/x", "x://y", "..")
TEXTS = st.one_of(st.text(max_size=12), st.sampled_from(FILES))
VALUES = st.recursive(
    st.one_of(st.booleans(), NUMBERS, TEXTS, st.dates()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=5,
)
KEYS = st.sampled_from(
    ("name", "grid", "modality", "labels", "split", "path", "files", "bands", "band_names", "variable", "layout", "nodata",
     "unscale", "alpha", "resampling", "pca", "rgb", "train", "test", "val", "ignore", "classes", "colours", "field", "layer",
     "kind", "block", "train_fraction", "per_class", "gap", "val_blocks")
)  # fmt: skip


@short(60)
@given(st.data())
def test_tables(folder, data):
    file = data.draw(st.sampled_from(("x.npy", "x.tif", "x.mat", "h.mat", "x.npz")))
    extra = {".mat": {"variable": "x"}, ".npy": {"layout": "chw"}}.get(file[-4:], {})
    table = copy.deepcopy(table_of(modality(file, **extra), modality("x.tif", name="y")))
    table["modality"][1]["name"] = "y"
    places = [table, table["modality"][0], table["modality"][1], table["labels"], table["split"]]
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.sampled_from(places))
        key = data.draw(st.one_of(KEYS, st.sampled_from(sorted(place) or ["name"])))
        if data.draw(st.integers(0, 4)) == 0:
            place.pop(key, None)
        else:
            place[key] = data.draw(VALUES)
    use(table, folder)


@short(30)
@given(st.data())
def test_text_of_a_scene_file(folder, data):
    text = '\ufeff[[modality]]\nname = "x"\npath = "x.npy"\nlayout = "chw"\n[labels]\npath = "gt.npy"\n[split]\nblock = 2\n'
    path = folder / "scene.toml"
    path.write_bytes(mutated(data, text.encode()))
    use(path, folder)


# --- files cut, swapped and overwritten ---


@pytest.mark.parametrize("name", ["x.tif", "x.npy", "x.npz", "x.mat", "h.mat", "gt.npy"])
@short(25)
@given(st.data())
def test_damaged_files(folder, name, data):
    whole = (folder / name).read_bytes()
    start = data.draw(st.sampled_from((0, 0, len(whole) // 2)))
    bad = folder / f"bad{name[-4:]}"
    bad.write_bytes(whole[:start] + mutated(data, whole[start:]))
    extra = {"x.mat": {"variable": "x"}, "h.mat": {"variable": "x"}, "x.npy": {"layout": "chw"}}.get(name, {})
    if name == "gt.npy":
        use(table_of(modality("x.tif"), labels={"path": bad.name}), folder)
    else:
        use(table_of(modality(bad.name, **extra)), folder)


# --- GeoTIFF tags ---

TAGGED = st.one_of(st.floats(width=32), st.sampled_from((0.0, 1.0, -9999.0, 1e-4, -3.4e38, 3.4028234663852886e38, 1e300)))


@short(40)
@given(st.data())
def test_tags_of_a_geotiff(folder, data):
    kind = data.draw(st.sampled_from(("uint8", "int16", "uint16", "int32", "uint32", "float32", "float64", "complex64", "int8")))
    count = data.draw(st.integers(1, 5))
    values = np.resize(CUBE, (count, H, W)).astype(kind)
    path = folder / "tags.tif"
    numbers = data.draw(st.lists(st.floats(-1e7, 1e7), min_size=6, max_size=6))
    profile = {
        "crs": data.draw(st.sampled_from((None, "EPSG:32633", "EPSG:4326", "EPSG:32633+5773", "EPSG:4979", "EPSG:3857"))),
        "transform": data.draw(st.sampled_from((None, rasterio.Affine(10, 0, 5e5, 0, -10, 5e6), rasterio.Affine(*numbers)))),
    }
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with rasterio.open(path, "w", driver="GTiff", count=count, height=H, width=W, dtype=kind, **profile) as out:
                out.write(values)
                out.colorinterp = [data.draw(st.sampled_from((ColorInterp.undefined, ColorInterp.alpha))) for _ in range(count)]
                out.scales = [data.draw(st.one_of(st.just(1.0), TAGGED)) for _ in range(count)]
                out.offsets = [data.draw(st.one_of(st.just(0.0), TAGGED)) for _ in range(count)]
                if data.draw(st.booleans()):
                    out.nodata = data.draw(TAGGED)
    except (ValueError, rasterio.errors.RasterioError, OverflowError):
        return  # not a file that can be
    entries = [modality("tags.tif"), modality("x.tif", name="y")]
    entries[1]["name"] = "y"
    if data.draw(st.booleans()):
        entries = entries[::-1]
    use(table_of(*entries[: data.draw(st.integers(1, 2))]), folder)
    use(table_of(modality("x.tif"), labels={"path": "tags.tif"}), folder)


# --- ENVI headers ---

FIELDS = (
    "samples", "lines", "bands", "header offset", "file type", "data type", "interleave", "byte order", "bbl", "data ignore value",
    "data gain values", "wavelength", "class names", "class lookup", "classes", "map info", "coordinate system string",
    "file compression", "band names",
)  # fmt: skip
ODD = ("9" * 30, "{1, 0, 1}", "{a, b", "}", "", "{}", "1e400", "nan", "-1", "bip")


@short(40)
@given(st.data())
def test_headers_of_envi(folder, data):
    header = save_envi(folder / "e.img", CUBE)
    lines = header.read_text().splitlines()
    for _ in range(data.draw(st.integers(1, 4))):
        value = data.draw(
            st.one_of(
                st.integers(-5, 70000).map(str),
                st.sampled_from(ODD),
                st.text("0123456789{},.-eE ab", max_size=12),
                st.lists(st.floats(), max_size=4).map(lambda v: f"{{{str(v)[1:-1]}}}"),
            )
        )
        line = f"{data.draw(st.sampled_from(FIELDS))} = {value}"
        at = data.draw(st.integers(0, len(lines)))
        if data.draw(st.booleans()):
            lines = [old for old in lines if old.split(" =")[0] != line.split(" =")[0]]
        lines.insert(min(at, len(lines)), line)
    header.write_text("\n".join(lines))
    use(table_of(modality("e.hdr")), folder)
    use(table_of(modality("x.npy", layout="chw"), labels={"path": "e.hdr"}), folder)


# --- vectors and regions ---

COORDINATES = st.one_of(st.floats(), st.floats(500_000, 500_090), st.floats(4_999_900, 5_000_000))


@short(30)
@given(st.data())
def test_shapes(folder, data):
    pytest.importorskip("pyogrio")
    point = st.lists(COORDINATES, min_size=0, max_size=3)
    ring = st.one_of(st.lists(point, max_size=5), st.just([[5e5, 5e6], [500050.0, 5e6], [500050.0, 4999950.0], [5e5, 5e6]]))
    shape = st.one_of(
        st.fixed_dictionaries({"type": st.just("Polygon"), "coordinates": st.lists(ring, max_size=2)}),
        st.fixed_dictionaries({"type": st.just("Point"), "coordinates": point}),
        st.none(),
    )
    value = st.one_of(st.integers(-3, 9), st.text(max_size=4), st.none(), st.floats(), st.just(2**62))
    feature = st.fixed_dictionaries(
        {"type": st.just("Feature"), "geometry": shape, "properties": st.fixed_dictionaries({"c": value})}
    )
    text = json.dumps({"type": "FeatureCollection", "features": data.draw(st.lists(feature, max_size=4))})
    if data.draw(st.integers(0, 3)) == 0:
        text = mutated(data, text.encode()).decode("latin-1")
    (folder / "s.geojson").write_text(text)
    use(table_of(modality("x.tif"), labels={"path": "s.geojson", "field": "c"}), folder)


@short(30)
@given(st.data())
def test_exported_regions(folder, data):
    lines = ["; ENVI Output of ROIs", f"; File Dimension: {W} x {H}", "; ROI name: a", " 1 2 2 3.0", " 2 3 3", "", " 1 5 5"]
    (folder / "roi.txt").write_bytes(mutated(data, "\n".join(lines).encode()))
    use(table_of(modality("x.npy", layout="chw"), labels={"path": "roi.txt"}), folder)
