"""The figure of a map: colours that differ in meaning, named bands, coordinates, scale, fonts; pixels without value."""

import warnings

import numpy as np
import pytest

from bdgf_fast.config import Config
from bdgf_fast.data import ClassInfo, SplitSpec, make_split, prepare, scene_from_arrays
from bdgf_fast.errors import DataWarning
from bdgf_fast.report import figure_parts as parts
from bdgf_fast.report.figure import IGNORED, NO_VALUE, RIGHT, UNLABELLED, WRONG, false_colour, write_png

rasterio = pytest.importorskip("rasterio")
image = pytest.importorskip("matplotlib.image")
from rasterio.transform import from_origin  # noqa: E402

H, W = 30, 40


def build(**options):
    labels = np.arange(H * W).reshape(H, W) // 7 % 4
    bands = np.random.default_rng(0).normal(size=(4, H, W)).astype(np.float32)
    return scene_from_arrays("s", {"x": bands}, labels, ignore=[0, 3], split=SplitSpec(block=5, per_class=9), **options)


def colours(path):
    return {tuple(c) for c in (image.imread(path)[..., :3] * 255).round().astype(int).reshape(-1, 3)}


def test_no_value_unlabelled_ignored_and_scored_differ(tmp_path):
    assert len({NO_VALUE, UNLABELLED, IGNORED, RIGHT, WRONG}) == 5
    scene = build()
    predicted = np.where(scene.labels < 0, 0, scene.labels)
    predicted[:5] = -1
    scored = np.zeros((H, W), bool)
    scored[10:20] = True
    write_png(tmp_path / "a.png", scene, predicted, scored=scored, blocks=scored)
    assert {NO_VALUE, UNLABELLED, IGNORED, RIGHT} <= colours(tmp_path / "a.png")
    whole = scene_from_arrays("s", {"x": np.random.default_rng(0).normal(size=(H, W))}, np.ones((H, W), int))
    write_png(tmp_path / "b.png", whole, np.zeros((H, W), int))
    assert IGNORED not in colours(tmp_path / "b.png"), "nothing is shown that is not there"


BANDS = [
    (["Blue", "green", "RED", "nir"], [2, 1, 0], True),
    (["443 nm", "490 nm", "560 nm", "665 nm", "842 nm"], [3, 2, 1], True),
    (["Band 1 (0.48 Micrometers)", "Band 2 (0.56 Micrometers)", "Band 3 (0.66 Micrometers)"], [2, 1, 0], True),
    (["B01", "B02", "B03", "B04", "B8A"], [3, 2, 1], True),
    (["B1", "B2", "B3", "B4"], [2, 1, 0], False),
    (["900 nm", "1000 nm", "1200 nm"], [1, 0, 0], False),
    (["VV", "VH"], [0, 1, 1], False),
    (["dem"], [0, 0, 0], False),
]


@pytest.mark.parametrize(("names", "picked", "true"), BANDS, ids=[b[0][0] for b in BANDS])
def test_bands_of_the_colours(names, picked, true):
    modality = build().modalities[0]
    modality.bands = names
    assert parts.choose_bands(modality) == (picked, true)
    kind = "true colour" if true else "false colour" if len(names) > 1 else "grey"
    assert parts.colour_title(modality, picked, true).startswith(f"x, {kind}: {names[picked[0]][:13]}")


def test_rgb_key_and_empty_bands():
    scene = build()
    scene.modalities[0].rgb = (3, 1, 0)
    assert parts.choose_bands(scene.modalities[0], [3]) == ([3, 1, 0], False)
    scene.modalities[0].rgb = None
    assert parts.choose_bands(scene.modalities[0], [2]) == ([1, 0, 0], False)
    scene.empty["x"] = [0, 2]
    assert (false_colour(scene) != 255).any()


@pytest.mark.parametrize(("value", "expected"), [(1.0, 1), (9.9, 5), (2400.0, 2000), (0.031, 0.02), (5e-5, 5e-5)])
def test_nice_numbers(value, expected):
    assert parts.nice(value) == pytest.approx(expected)


class Axis:
    """Remembers what is drawn."""

    def __init__(self):
        self.lines, self.texts, self.ticks = [], [], {}

    def plot(self, x, y, **_):
        self.lines.append((x, y))

    def text(self, x, y, text, **_):
        self.texts.append(text)

    def set_xticks(self, at, labels, **_):
        self.ticks["x"] = dict(zip(labels, at, strict=True))

    def set_yticks(self, at, labels, **_):
        self.ticks["y"] = dict(zip(labels, at, strict=True))

    def tick_params(self, **_):
        pass

    def get_yticklabels(self):
        return []


def test_scale_bar_and_coordinates():
    scene = build(crs=rasterio.crs.CRS.from_epsg(32633), transform=from_origin(500_000, 5_000_000, 10, 10))
    axis = Axis()
    parts.draw_scale(axis, scene, 1)
    parts.draw_coordinates(axis, scene, 1)
    assert axis.texts == ["100 m"] and np.diff(axis.lines[0][0]) == pytest.approx(10.0)
    assert axis.ticks["x"] == {"500000": -0.5, "500200": 19.5, "500400": 39.5}
    assert axis.ticks["y"]["5000000"] == -0.5 and axis.ticks["y"]["4999900"] == pytest.approx(9.5)
    degrees = build(crs=rasterio.crs.CRS.from_epsg(4326), transform=from_origin(10.0, 60.0, 0.001, 0.001))
    axis = Axis()
    parts.draw_scale(axis, degrees, 2)
    pixel = 111.32 * np.cos(np.radians(59.985))
    assert axis.texts == ["500 m"] and np.diff(axis.lines[0][0]) == pytest.approx(500 / pixel / 2)
    axis = Axis()
    parts.draw_scale(axis, build(), 1)
    parts.draw_coordinates(axis, build(), 1)
    assert not axis.lines and not axis.ticks, "without georeference there is neither"


def test_names_take_a_font_that_has_them(tmp_path):
    from matplotlib import font_manager

    usual, other = (parts._characters(font_manager.findfont(name)) for name in ("DejaVu Sans", "STIXGeneral"))
    rare = chr(min(c for c in other - usual if c > 0x2000))
    families = parts.fonts_for(["wood", f"a{rare}"], "map.png")
    assert families[0] == "DejaVu Sans" and len(families) == 2
    assert ord(rare) in parts._characters(font_manager.findfont(families[1]))
    nowhere = "\U000f1234"  # of the private area
    scene = build()
    scene.classes[0] = ClassInfo(1, nowhere, (1, 2, 3))
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        write_png(tmp_path / "a.png", scene, np.maximum(scene.labels, 0))
    said = [str(w.message) for w in seen if not issubclass(w.category, (DeprecationWarning, PendingDeprecationWarning))]
    assert len(said) == 1 and "no font here has" in said[0] and issubclass(seen[0].category, DataWarning)


def test_pixels_without_value_have_no_probability(tmp_path):
    from bdgf_fast.network.whole_scene import Blocks, assemble

    bands = np.random.default_rng(0).normal(size=(2, H, W)).astype(np.float32)
    bands[:, 4:9, 6] = np.nan
    scene = scene_from_arrays("s", {"x": bands}, np.arange(H * W).reshape(H, W) // 7 % 3 + 1, split=SplitSpec(block=5, per_class=9))
    with pytest.warns(DataWarning):
        prepared = prepare(scene, make_split(scene, patch=3))
    config = Config().override("predict.block=16")
    blocks = Blocks(tmp_path / "blocks", {})
    chances = np.random.default_rng(1).dirichlet([1, 1, 1], (H, W)).transpose(2, 0, 1).astype(np.float32)
    chances[:, ~prepared.valid.numpy()] = 0  # as the network's side marks them
    for y in range(0, H, 16):
        for x in range(0, W, 16):
            blocks.save(y, x, chances[:, y : y + 16, x : x + 16], {})
    assemble(prepared, config, blocks, tmp_path)
    with rasterio.open(tmp_path / "probabilities.tif") as data, rasterio.open(tmp_path / "map.tif") as codes:
        got, missing = data.read(), ~prepared.valid.numpy()
        assert np.isnan(data.nodata) and np.array_equal(np.isnan(got), np.broadcast_to(missing, got.shape))
        np.testing.assert_array_equal(got[:, ~missing], chances[:, ~missing])
        assert np.array_equal(codes.read(1) == 0, missing)
