"""Labels drawn as points and polygons, against maps made by hand."""

import json
import warnings

import numpy as np
import pytest

from bdgf_fast.data import load_scene
from bdgf_fast.errors import SceneError

pytest.importorskip("rasterio")
pyogrio = pytest.importorskip("pyogrio")
shapely = pytest.importorskip("shapely")

H, W = 10, 12
X0, Y0 = 700_000.0, 5_700_000.0


def square(row, column, rows, columns):
    """Polygon around whole pixels."""
    return shapely.box(X0 + 10 * column, Y0 - 10 * (row + rows), X0 + 10 * (column + columns), Y0 - 10 * row)


def point(row, column):
    return shapely.Point(X0 + 10 * column + 4, Y0 - 10 * row - 6)


def write(path, shapes, crs="EPSG:32718", layer=None, **fields):
    columns = {key: np.array(values, object if isinstance(values[0], str) else None) for key, values in fields.items()}
    kind = {shape.geom_type for shape in shapes if shape is not None}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pyogrio.raw.write(
            path, shapely.to_wkb(np.array(shapes, object)), list(columns.values()), list(columns), crs=crs, layer=layer,
            geometry_type=kind.pop() if len(kind) == 1 else "Unknown", append=path.exists(),
        )  # fmt: skip


@pytest.fixture
def scene(write_toml, write_tif):
    write_tif("x.tif", np.random.default_rng(0).normal(size=(2, H, W)))

    def load(labels):
        return load_scene(write_toml(f'[[modality]]\nname = "x"\npath = "x.tif"\n[labels]\n{labels}\n'))

    return load


SHAPES = [square(0, 0, 3, 4), square(5, 6, 2, 2), point(8, 1)]


def expected(*values):
    out = np.full((H, W), -1)
    out[:3, :4], out[5:7, 6:8], out[8, 1] = values
    return out


@pytest.mark.parametrize("suffix", ["gpkg", "geojson", "fgb"])
def test_codes_of_a_field(scene, tmp_path, suffix):
    write(tmp_path / f"gt.{suffix}", SHAPES, kind=[7, 0, 3])
    got = scene(f'path = "gt.{suffix}"')
    assert [c.code for c in got.classes] == [3, 7] and np.array_equal(got.labels, expected(1, -1, 0))
    zero = scene(f'path = "gt.{suffix}"\nclasses = {{ 0 = "sea", 3 = "rock", 7 = "ice" }}')
    assert [c.name for c in zero.classes] == ["sea", "rock", "ice"] and np.array_equal(zero.labels, expected(2, 0, 1))


def test_names_of_a_field(scene, tmp_path):
    write(tmp_path / "gt.gpkg", SHAPES, id=[1, 2, 3], cover=["wood", "Lake", "wood"])
    got = scene('path = "gt.gpkg"\nfield = "cover"')
    assert [(c.code, c.name) for c in got.classes] == [(1, "Lake"), (2, "wood")]
    assert np.array_equal(got.labels, expected(1, 0, 1)) and any("classes numbered 1 Lake, 2 wood" in note for note in got.notes)
    named = scene('path = "gt.gpkg"\nfield = "cover"\nclasses = { 4 = "lake", 2 = "wood" }')
    assert [(c.code, c.name) for c in named.classes] == [(2, "wood"), (4, "lake")]
    with pytest.raises(SceneError, match=r"the class 'Lake' is not among classes in \[labels\]"):
        scene('path = "gt.gpkg"\nfield = "cover"\nclasses = { 2 = "wood" }')
    with pytest.raises(SceneError, match=r'holds the fields id, cover; name the one with the class in .* with field = "\.\.\."'):
        scene('path = "gt.gpkg"')
    with pytest.raises(SceneError, match=r"has no field 'covr' \(did you mean 'cover'\?\); it has: id, cover\. Correct field in"):
        scene('path = "gt.gpkg"\nfield = "covr"')


def test_shapefiles_in_another_system_and_given_sides(scene, tmp_path):
    from rasterio.warp import transform_geom

    turned = [shapely.geometry.shape(transform_geom("EPSG:32718", "EPSG:4326", s.__geo_interface__)) for s in SHAPES[:2]]
    write(tmp_path / "train.shp", turned, crs="EPSG:4326", cover=["wood", "lake"])
    write(tmp_path / "test.geojson", [square(7, 0, 2, 2), square(0, 8, 2, 3)], cover=["lake", "wood"])
    got = scene('train = "train.shp"\ntest = "test.geojson"')
    assert [c.name for c in got.classes] == ["lake", "wood"]
    assert np.array_equal(got.given["train"], expected(1, 1, -1) > 0) and got.given["test"].sum() == 10
    assert (got.labels[got.given["test"]] == np.array([1] * 6 + [0] * 4)).all()


def test_overlaps_nulls_and_layers(scene, tmp_path):
    write(tmp_path / "gt.gpkg", [*SHAPES, square(2, 3, 2, 2), None], layer="a", kind=[1, 2, 2, 2, 1])
    got = scene('path = "gt.gpkg"')
    by_hand = expected(0, 1, 1)
    by_hand[2:4, 3:5], by_hand[2, 3] = 1, -1
    assert np.array_equal(got.labels, by_hand)
    assert any("pixels in shapes of different classes stay without label: 1" in note for note in got.notes)
    assert any("shapes without geometry or class are left out: 1" in note for note in got.notes)
    write(tmp_path / "gt.gpkg", SHAPES, layer="b", kind=[1, 2, 2])
    with pytest.raises(SceneError, match=r"holds the layers a, b; name one in .* with layer"):
        scene('path = "gt.gpkg"')
    with pytest.raises(SceneError, match=r"has no layer 'c'; it has: a, b\. Correct layer in .*\[labels\]"):
        scene('path = "gt.gpkg"\nlayer = "c"')
    assert np.array_equal(scene('path = "gt.gpkg"\nlayer = "b"').labels, expected(0, 1, 1))


BAD = [
    (json.dumps({"type": "FeatureCollection", "features": []}), "fields none"),
    ("{", "cannot be read as a vector file"),
    ("", "cannot be read as a vector file"),
]


@pytest.mark.parametrize(("text", "message"), BAD, ids=range(len(BAD)))
def test_files_without_shapes(scene, tmp_path, text, message):
    (tmp_path / "gt.geojson").write_text(text)
    with pytest.raises(SceneError, match=rf"gt\.geojson.*{message}"):
        scene('path = "gt.geojson"')


def test_shapes_elsewhere_and_fractions(scene, tmp_path, write_toml):
    write(tmp_path / "far.gpkg", [square(900, 900, 2, 2)], kind=[1])
    with pytest.raises(SceneError, match=r"far\.gpkg: no shape covers a pixel of .*x\.tif"):
        scene('path = "far.gpkg"')
    write(tmp_path / "odd.gpkg", SHAPES[:1], kind=[1.5])
    with pytest.raises(SceneError, match=r"odd\.gpkg, field 'kind', is not a label map: 1 values are not whole numbers"):
        scene('path = "odd.gpkg"')
    np.save(tmp_path / "x.npy", np.zeros((H, W)))
    text = '[[modality]]\nname = "x"\npath = "x.npy"\n[labels]\npath = "far.gpkg"\n'
    with pytest.raises(SceneError, match=r"far\.gpkg holds shapes in map coordinates, but .*x\.npy has no georeference"):
        load_scene(write_toml(text))
