"""What GeoTIFF and ENVI tags say of the values: scale, alpha, nodata, control points, grids, bad bands, legends."""

import warnings

import numpy as np
import pytest

from bdgf_fast.data import load_scene
from bdgf_fast.data.sources.raster import ArrayRaster
from bdgf_fast.errors import DataWarning, SceneError

rasterio = pytest.importorskip("rasterio")
from known_files import save_envi  # noqa: E402
from rasterio.control import GroundControlPoint  # noqa: E402
from rasterio.enums import ColorInterp  # noqa: E402
from rasterio.transform import from_origin  # noqa: E402

H, W = 12, 16
RNG = np.random.default_rng(5)
CUBE = RNG.integers(1, 4000, (5, H, W)).astype(np.int16)


@pytest.fixture
def scene(write_toml):
    def load(*entries, labels=""):
        text = "\n".join(f'[[modality]]\nname = "m{i}"\n{entry}' for i, entry in enumerate(entries))
        return load_scene(write_toml(f"{text}\n{labels}"))

    return load


def whole(scene, index=0):
    return scene.modalities[index].read(0, scene.height, 0, scene.width)


# --- scale and offset ---


def test_scale_and_offset_are_applied_unless_switched_off(scene, write_tif):
    path = write_tif("x.tif", CUBE, nodata=int(CUBE[1, 2, 3]))
    with rasterio.open(path, "r+") as data:
        data.scales, data.offsets, data.units = (1e-4, 2, 1, 1, 1), (-0.1, 0, 0, 0, 7), ("reflectance",) * 5
    stored = CUBE.astype(np.float64)
    expected = stored * np.array([1e-4, 2, 1, 1, 1])[:, None, None] + np.array([-0.1, 0, 0, 0, 7])[:, None, None]
    hidden = CUBE[1, 2, 3] == CUBE
    got = scene('path = "x.tif"')
    np.testing.assert_allclose(whole(got), np.where(hidden, np.nan, expected), rtol=1e-6)
    np.testing.assert_allclose(got.modalities[0].read(2, 5, 3, 9), np.where(hidden, np.nan, expected)[:, 2:5, 3:9], rtol=1e-6)
    assert sum("unscaled by the file's scale 0.0001 offset -0.1" in note for note in got.notes) == 1
    assert got.modalities[0].units == ["reflectance"] * 5
    np.testing.assert_array_equal(whole(scene('path = "x.tif"\nunscale = false')), np.where(hidden, np.nan, stored))
    picked = scene('path = "x.tif"\nbands = [5, 1]')
    np.testing.assert_allclose(whole(picked), np.where(hidden, np.nan, expected)[[4, 0]], rtol=1e-6)


def test_envi_gains_are_scales(scene, tmp_path):
    header = save_envi(tmp_path / "x.img", CUBE)
    header.write_text(header.read_text() + "data gain values = {2, 1, 1, 1, 1}\ndata offset values = {3, 0, 0, 0, 0}\n")
    np.testing.assert_array_equal(whole(scene('path = "x.hdr"'))[:2], np.stack([CUBE[0] * 2 + 3, CUBE[1]]))


@pytest.mark.parametrize("scale", [0.0, float("nan"), float("inf")])
def test_scales_that_leave_no_values_are_refused(scene, write_tif, scale):
    with rasterio.open(write_tif("x.tif", CUBE), "r+") as data:
        data.scales = (scale,) * 5
    with pytest.raises(SceneError, match=rf"x\.tif: band 1 has scale {scale} and offset 0\.0.*unscale = false"):
        scene('path = "x.tif"')
    assert np.array_equal(whole(scene('path = "x.tif"\nunscale = false')), CUBE)


def test_scale_of_a_label_map_leaves_its_codes(scene, write_tif):
    codes = np.where(CUBE[0] > 2000, 1, 2).astype(np.uint8)
    write_tif("x.tif", CUBE)
    with rasterio.open(write_tif("gt.tif", codes), "r+") as data:
        data.scales = (0.5,)
    assert np.array_equal(scene('path = "x.tif"', labels='[labels]\npath = "gt.tif"').labels, codes - 1)


# --- alpha ---


@pytest.mark.parametrize("kind", [np.uint8, np.int16])
@pytest.mark.parametrize("bands", [1, 3, 5])
def test_alpha_is_a_mask_and_no_band(scene, write_tif, bands, kind):
    cube = (CUBE % 200 + 1).astype(kind)
    alpha = np.full((1, H, W), 255, kind)
    alpha[0, 3, 4:7] = 0
    path = write_tif("x.tif", np.concatenate([cube[:bands], alpha]), photometric="MINISBLACK")
    with rasterio.open(path, "r+") as data:
        data.colorinterp = [ColorInterp.undefined] * bands + [ColorInterp.alpha]
    got = scene('path = "x.tif"')
    assert got.modalities[0].bands == [f"band {i + 1}" for i in range(bands)]
    np.testing.assert_array_equal(whole(got), np.where(alpha == 0, np.nan, cube[:bands]))
    with pytest.warns(DataWarning, match="3 of 192 pixels"):
        assert np.array_equal(got.valid(), alpha[0] != 0)
    assert any(f"band {bands + 1} is its alpha band" in note for note in got.notes)
    plain = whole(scene('path = "x.tif"\nalpha = false'))
    assert np.array_equal(plain, np.concatenate([cube[:bands], alpha])), "a band tagged wrongly can be had as values"


# --- nodata ---

NODATA = [
    (np.float32, -3.4e38, np.finfo(np.float32).min),
    (np.float32, -3.40282306074e38, np.finfo(np.float32).min),
    (np.float64, -3.4028234663852886e38, float(np.finfo(np.float32).min)),
    (np.float64, -1.7976931348623157e308, np.finfo(np.float64).min),
    (np.float32, 1e-20, np.float32(1e-20)),
    (np.float32, -9999.9, np.float32(-9999.9)),
    (np.int32, -2147483648, -(2**31)),
]


@pytest.mark.parametrize(("kind", "tag", "pixel"), NODATA)
def test_nodata_as_near_as_gdal_takes_it(scene, write_tif, kind, tag, pixel):
    band = RNG.normal(size=(1, H, W)).astype(kind) + 1
    band[0, 1, 1], band[0, 5, 5] = pixel, 0
    write_tif("x.tif", band, nodata=tag)
    missing = np.isnan(whole(scene('path = "x.tif"'))[0])
    assert missing[1, 1] and missing.sum() == 1
    write_tif("y.tif", band)
    if abs(tag) < 1e38:
        assert np.isnan(whole(scene(f'path = "y.tif"\nnodata = {tag!r}'))[0]).sum() == 1


@pytest.mark.parametrize("nodata", [float("inf"), -1e300, 0.5, 300.0, -1.0, float("nan")])
def test_nodata_that_the_type_cannot_hold_hides_nothing(nodata):
    for kind in (np.uint8, np.int16, np.float16, np.bool_, np.uint64):
        raster = ArrayRaster(np.ones((2, 3), kind), "x", layout="hw", nodata=nodata)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert np.isfinite(raster.read([0], 0, 2, 0, 3)).all()


def test_nodata_of_64_bits():
    values = np.array([[2**64 - 1, 5]], np.uint64)
    raster = ArrayRaster(values, "x", layout="hw", nodata=float(2**64 - 1))
    assert np.isnan(raster.read([0], 0, 1, 0, 2)).tolist() == [[[True, False]]]


# --- control points ---


def with_points(path, points, crs="EPSG:32718"):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(path, "w", driver="GTiff", count=1, height=H, width=W, dtype="int16", gcps=points, crs=crs) as data:
            data.write(CUBE[0], 1)


def corners(x0=700_000.0, y0=5_700_000.0, bend=0.0):
    places = [(0, 0), (0, W), (H, 0), (H, W)]
    return [GroundControlPoint(row=r, col=c, x=x0 + 10 * c + bend * r * c, y=y0 - 10 * r) for r, c in places]


def test_control_points_that_fit_a_grid_place_the_scene(scene, tmp_path, write_tif):
    with_points(tmp_path / "g.tif", corners())
    got = scene('path = "g.tif"')
    assert got.crs.to_epsg() == 32718
    np.testing.assert_allclose(tuple(got.transform)[:6], tuple(from_origin(700_000, 5_700_000, 10, 10))[:6], atol=1e-6)
    assert any("4 ground control points, which fit one affine transform" in note for note in got.notes)
    write_tif("x.tif", CUBE)
    assert np.array_equal(whole(scene('path = "x.tif"', 'path = "g.tif"'), 1), CUBE[:1])


def test_control_points_elsewhere_or_bent_are_refused(scene, tmp_path, write_tif):
    write_tif("x.tif", CUBE)
    with_points(tmp_path / "g.tif", corners(x0=800_000.0))
    with pytest.raises(SceneError, match=r"g\.tif and .*x\.tif do not cover the same ground \(columns 10000 to 10016"):
        scene('path = "x.tif"', 'path = "g.tif"')
    with_points(tmp_path / "g.tif", corners(bend=1.0))
    with pytest.raises(SceneError, match=r"g\.tif is placed by 4 ground control points alone, which no affine transform fits"):
        scene('path = "g.tif"')


# --- other grids ---


def test_coarser_pixels_and_wider_extents_are_resampled(scene, write_tif):
    write_tif("fine.tif", CUBE)
    coarse = np.arange(6 * 8, dtype=np.float32).reshape(1, 6, 8)
    write_tif("coarse.tif", coarse, pixel=20.0)
    wide = np.arange((H + 4) * (W + 4), dtype=np.float32).reshape(1, H + 4, W + 4)
    write_tif("wide.tif", wide, origin=(699_980.0, 5_700_020.0))
    codes = (np.arange(6 * 8, dtype=np.uint8).reshape(6, 8) % 3) + 1
    write_tif("gt.tif", codes, pixel=20.0)
    got = scene('path = "fine.tif"', 'path = "coarse.tif"', 'path = "wide.tif"', labels='[labels]\npath = "gt.tif"')
    assert (got.height, got.width) == (H, W)
    # Bilinear between centres 20 m apart at points 5 m from them: weights 3/4 and 1/4; by hand for one inner pixel.
    by_hand = 0.75 * 0.75 * coarse[0, 1, 1] + 0.75 * 0.25 * (coarse[0, 1, 2] + coarse[0, 2, 1]) + 0.0625 * coarse[0, 2, 2]
    assert whole(got, 1)[0, 3, 3] == pytest.approx(by_hand, rel=1e-6)
    np.testing.assert_array_equal(whole(got, 2), wide[:, 2:-2, 2:-2])
    np.testing.assert_array_equal(got.labels, codes.repeat(2, 0).repeat(2, 1) - 1)
    said = [note for note in got.notes if "resampled" in note]
    assert len(said) == 3 and "coarse.tif: 6 x 8 pixels of 20 m, resampled (bilinear) to the 12 x 16 pixels of 10 m" in said[0]
    assert "gt.tif: 6 x 8 pixels of 20 m, resampled (nearest)" in said[2]
    nearest = scene('path = "fine.tif"', 'path = "coarse.tif"\nresampling = "nearest"')
    np.testing.assert_array_equal(whole(nearest, 1), coarse.repeat(2, 1).repeat(2, 2))


def test_grid_of_a_named_modality(write_toml, write_tif):
    write_tif("fine.tif", CUBE)
    write_tif("coarse.tif", CUBE[:, :6, :8], pixel=20.0)
    text = '[[modality]]\nname = "a"\npath = "fine.tif"\nresampling = "average"\n[[modality]]\nname = "b"\npath = "coarse.tif"\n'
    got = load_scene(write_toml('grid = "b"\n' + text))
    assert (got.height, got.width, got.transform.a) == (6, 8, 20.0)
    np.testing.assert_allclose(whole(got), CUBE.reshape(5, 6, 2, 8, 2).mean((2, 4)), rtol=1e-6)


def test_resampling_keeps_what_is_missing_missing(scene, write_tif):
    write_tif("fine.tif", CUBE)
    part = CUBE[:1, :5, :6].astype(np.int16).copy()
    part[0, 2, 3] = -99
    write_tif("nodata.tif", part, pixel=20.0, nodata=-99)
    write_tif("key.tif", part, pixel=20.0)
    alpha = np.full((1, 5, 6), 255, np.int16)
    alpha[0, 2, 3] = 0
    with rasterio.open(write_tif("alpha.tif", np.concatenate([part, alpha]), pixel=20.0), "r+") as data:
        data.colorinterp = [ColorInterp.gray, ColorInterp.alpha]
    got = scene('path = "fine.tif"', 'path = "nodata.tif"', 'path = "key.tif"\nnodata = -99', 'path = "alpha.tif"')
    expected = np.zeros((H, W), bool)
    expected[4:6, 6:8] = expected[10:] = expected[:, 12:] = True
    for i in (1, 2, 3):
        assert np.array_equal(np.isnan(whole(got, i)[0]), expected), i
        assert np.nanmin(whole(got, i)) >= 0
    assert np.array_equal(got.modalities[1].read(3, 6, 2, 9), whole(got, 1)[:, 3:6, 2:9], equal_nan=True)


def test_resampled_values_are_unscaled(scene, write_tif):
    write_tif("fine.tif", CUBE)
    with rasterio.open(write_tif("coarse.tif", CUBE[:1, :6, :8], pixel=20.0), "r+") as data:
        data.scales, data.offsets = (0.5,), (3.0,)
    got = whole(scene('path = "fine.tif"', 'path = "coarse.tif"\nresampling = "nearest"'), 1)
    np.testing.assert_allclose(got, (CUBE[:1, :6, :8] * 0.5 + 3).repeat(2, 1).repeat(2, 2), rtol=1e-6)


COMPOUND = "EPSG:32718+5773"


def test_coordinate_systems_count_by_their_horizontal_part(scene, write_tif):
    write_tif("x.tif", CUBE)
    write_tif("h.tif", CUBE[:1], crs=COMPOUND)
    wkt1 = rasterio.crs.CRS.from_epsg(32718).to_wkt(version="WKT1_ESRI")
    write_tif("esri.tif", CUBE[:1], crs=rasterio.crs.CRS.from_wkt(wkt1))
    got = scene('path = "x.tif"', 'path = "h.tif"', 'path = "esri.tif"')
    assert np.array_equal(whole(got, 1), CUBE[:1]) and not any("resampled" in note for note in got.notes)


def test_another_coordinate_system_is_reprojected(scene, write_tif):
    from rasterio.warp import calculate_default_transform, reproject

    y, x = np.mgrid[:H, :W].astype(np.float32)
    write_tif("x.tif", (10 * x + y)[None])
    there, width, height = calculate_default_transform(
        "EPSG:32718", "EPSG:4326", W, H, left=700_000, right=700_160, top=5_700_000, bottom=5_699_880
    )
    turned = np.full((height, width), np.nan, np.float32)
    reproject(10 * x + y, turned, src_transform=from_origin(700_000, 5_700_000, 10, 10), src_crs="EPSG:32718",
              dst_transform=there, dst_crs="EPSG:4326", src_nodata=np.nan, dst_nodata=np.nan, resampling=1)  # fmt: skip
    write_tif("degrees.tif", turned[None], crs="EPSG:4326", transform=there, nodata=float("nan"))
    got = whole(scene('path = "x.tif"', 'path = "degrees.tif"'), 1)[0]
    inner = got[3:-3, 3:-3]
    np.testing.assert_allclose(inner, (10 * x + y)[3:-3, 3:-3], atol=2.0)


def test_refusal_shows_where_two_systems_differ(scene, write_tif):
    local = 'LOCAL_CS["the mine",UNIT["metre",1]]'
    write_tif("x.tif", CUBE)
    write_tif("mine.tif", CUBE[:1], crs=rasterio.crs.CRS.from_wkt(local))
    with pytest.raises(SceneError, match=r"mine\.tif and .*x\.tif differ in coordinate system: .*the mine"):
        scene('path = "x.tif"', 'path = "mine.tif"')


# --- bands and legends ---


def test_bad_bands_of_an_envi_header(scene, tmp_path):
    header = save_envi(tmp_path / "c3.ref", CUBE)
    header.write_text(header.read_text() + "bbl = {1, 0, 1, 1.0, 0}\n")
    got = scene('path = "c3.hdr"')
    assert np.array_equal(whole(got), CUBE[[0, 2, 3]]) and any("bad bands by the header's bbl" in note for note in got.notes)
    assert np.array_equal(whole(scene('path = "c3.hdr"\nbands = [2, 1]')), CUBE[[1, 0]])


def test_data_file_of_any_suffix_beside_its_header(scene, tmp_path):
    save_envi(tmp_path / "c3.ref", CUBE)
    (tmp_path / "c3.xml").write_text("<x/>")
    assert np.array_equal(whole(scene('path = "c3.hdr"')), CUBE)
    (tmp_path / "c3.old").write_bytes(b"")
    with pytest.raises(SceneError, match=r"c3\.hdr is an ENVI header beside c3\.old, c3\.ref; name the data file"):
        scene('path = "c3.hdr"')
    assert np.array_equal(whole(scene('path = "c3.ref"')), CUBE)


CODES = (np.arange(H * W) % 3).astype(np.uint8).reshape(H, W)


def test_legend_of_an_envi_classification(scene, tmp_path):
    save_envi(tmp_path / "x.img", CUBE)
    header = save_envi(tmp_path / "gt.img", CODES[None])
    legend = "classes = 4\nclass lookup = {0,0,0, 0,0,200, 0,99,0, 9,9,9}\nclass names = {Unclassified, water, wood, ice}\n"
    header.write_text(header.read_text().replace("ENVI Standard", "ENVI Classification") + legend)
    labels = '[labels]\npath = "gt.hdr"\n'
    got = scene('path = "x.img"', labels=labels)
    assert [(c.code, c.name, c.colour) for c in got.classes] == [(1, "water", (0, 0, 200)), (2, "wood", (0, 99, 0))]
    named = scene('path = "x.img"', labels=labels + 'classes = { 1 = "lake", 2 = "wood" }\ncolours = { 2 = "#010203" }')
    assert [(c.name, c.colour) for c in named.classes] == [("lake", (0, 0, 200)), ("wood", (1, 2, 3))]


def test_palette_of_a_geotiff(scene, write_tif):
    write_tif("x.tif", CUBE)
    path = write_tif("gt.tif", CODES)
    with rasterio.open(path, "r+") as data:
        data.write_colormap(1, {0: (5, 5, 5, 255), 1: (255, 0, 0, 255), 2: (0, 255, 0, 255)})
    names = "".join(f"<Category>{name}</Category>" for name in ("sea", "rock", ""))
    aux = f"<PAMDataset><PAMRasterBand band='1'><CategoryNames>{names}</CategoryNames></PAMRasterBand></PAMDataset>"
    (path.parent / "gt.tif.aux.xml").write_text(aux)
    got = scene('path = "x.tif"', labels='[labels]\npath = "gt.tif"')
    assert [(c.code, c.name, c.colour) for c in got.classes] == [
        (0, "sea", (5, 5, 5)), (1, "rock", (255, 0, 0)), (2, "class 2", (0, 255, 0)),
    ]  # fmt: skip
    without = scene('path = "x.tif"', labels='[labels]\npath = "gt.tif"\nignore = [0]')
    assert [c.code for c in without.classes] == [1, 2]


# --- what GDAL itself raises ---


@pytest.fixture
def gdal_error():
    from rasterio._err import CPLE_AppDefinedError

    def fails(*_, **__):
        raise CPLE_AppDefinedError(3, 1, "Invalid tag.")

    return fails


def test_an_error_of_gdal_s_own_on_opening_is_a_refusal(scene, write_tif, monkeypatch, gdal_error):
    """Damaged files reach errors that rasterio does not wrap, whose classes share nothing but Exception."""
    path = write_tif("x.tif", CUBE)
    monkeypatch.setattr(rasterio, "open", gdal_error)
    with pytest.raises(SceneError, match=r"x\.tif cannot be opened as a raster: Invalid tag\."):
        scene(f'path = "{path}"')


def test_an_error_of_gdal_s_own_in_the_header_is_a_refusal(scene, write_tif, monkeypatch, gdal_error):
    class Broken(rasterio.io.DatasetReader):
        gcps = property(gdal_error)

    path = write_tif("x.tif", CUBE)
    monkeypatch.setattr(rasterio, "open", Broken)
    with pytest.raises(SceneError, match=r"x\.tif cannot be opened as a raster: Invalid tag\."):
        scene(f'path = "{path}"')


def test_an_error_of_gdal_s_own_in_the_pixels_is_a_refusal(scene, write_tif, monkeypatch, gdal_error):
    class Broken(rasterio.io.DatasetReader):
        read = gdal_error

    path = write_tif("x.tif", CUBE)
    monkeypatch.setattr(rasterio, "open", Broken)
    with pytest.raises(SceneError, match=r"x\.tif: rows 0-12, columns 0-16 cannot be read \(Invalid tag\)"):
        whole(scene(f'path = "{path}"'))
