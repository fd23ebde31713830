"""Scene files: what is accepted, what is refused, and that every format gives the same scene."""

import contextlib
import logging
import re
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch

from bdgf_fast.data import SplitSpec, load_scene, make_split, prepare, scene_from_arrays
from bdgf_fast.errors import DataWarning, SceneError, UserError

pytest.importorskip("rasterio")
sio = pytest.importorskip("scipy.io")

LABELS = """
[labels]
path = "{}"
classes = {{ 2 = "water", 5 = "meadow", 7 = "roofs" }}
colours = {{ 5 = "#102030", 7 = [1, 2, 3] }}
[split]
block = 4
train_fraction = 0.5
per_class = 20
"""


def modality(name, path, *extra):
    return "\n".join(["[[modality]]", f'name = "{name}"', f'path = "{path}"', *extra]) + "\n"


HSI = modality("x", "hsi.tif")


@pytest.fixture
def folder(tmp_path, arrays, write_tif):
    """The same scene as GeoTIFF, .npy (bands last) and .mat files."""
    bands, labels = arrays
    write_tif("hsi.tif", bands["hsi"])
    write_tif("dsm.tif", bands["dsm"].astype(np.float64))
    write_tif("gt.tif", labels)
    np.save(tmp_path / "hsi.npy", bands["hsi"].transpose(1, 2, 0))
    np.save(tmp_path / "dsm.npy", bands["dsm"][0])
    np.save(tmp_path / "gt.npy", labels.astype(np.int64))
    sio.savemat(tmp_path / "hsi.mat", {"data_HS_LR": bands["hsi"].transpose(1, 2, 0)})
    sio.savemat(tmp_path / "dsm.mat", {"data_DSM": bands["dsm"][0]})
    sio.savemat(tmp_path / "gt.mat", {"gt": labels.astype(float)})
    return tmp_path


def scene_text(kind, hsi_extra=()):
    return modality("hsi", f"hsi.{kind}", *hsi_extra) + modality("dsm", f"dsm.{kind}") + LABELS.format(f"gt.{kind}")


def test_formats_give_the_same_prepared_scene(folder, write_toml, arrays, caplog):
    prepared = []
    for kind in ("tif", "npy", "mat"):
        with caplog.at_level(logging.INFO, "bdgf_fast.data"):
            scene = load_scene(write_toml(scene_text(kind), f"{kind}.toml"))
        split = make_split(scene, patch=3, seed=1)
        prepared.append((scene, split, prepare(scene, split)))
    assert "layout 'hwc'" in caplog.text, "a guessed layout is said"
    memory = scene_from_arrays(
        "tif",
        arrays[0],
        arrays[1],
        classes={2: "water", 5: "meadow", 7: "roofs"},
        split=SplitSpec(block=4, train_fraction=0.5, per_class=20),
    )
    split = make_split(memory, patch=3, seed=1)
    prepared.append((memory, split, prepare(memory, split)))
    first, first_split, first_prepared = prepared[0]
    assert first.crs.to_epsg() == 32718 and first.transform.a == 10
    assert [c.code for c in first.classes] == [2, 5, 7]
    assert first.classes[1].colour == (16, 32, 48) and first.classes[2].colour == (1, 2, 3)
    for scene, split, other in prepared[1:]:
        assert scene.crs is None and scene.transform is None
        assert np.array_equal(scene.labels, first.labels)
        assert torch.equal(split.train, first_split.train) and torch.equal(split.test, first_split.test)
        assert other.groups == first_prepared.groups == (5, 1)
        assert torch.equal(other.window(-2, -3, 40, 50), first_prepared.window(-2, -3, 40, 50))


def test_labels_are_class_indices(folder, write_toml, arrays):
    scene = load_scene(write_toml(scene_text("tif")))
    expected = np.full(arrays[1].shape, -1)
    for index, code in enumerate((2, 5, 7)):
        expected[arrays[1] == code] = index
    assert scene.labels.dtype == np.int16 and np.array_equal(scene.labels, expected)


def test_without_classes_every_code_becomes_one(folder, write_toml):
    text = modality("hsi", "hsi.tif") + '[labels]\npath = "gt.tif"\nignore = [5]\n'
    scene = load_scene(write_toml(text))
    assert [(c.code, c.name) for c in scene.classes] == [(2, "class 2"), (7, "class 7")]
    assert len({c.colour for c in scene.classes}) == 2


def test_scene_without_labels(folder, write_toml):
    scene = load_scene(write_toml(modality("hsi", "hsi.tif")))
    assert (scene.labels == -1).all() and scene.classes == []
    with pytest.raises(UserError, match=r"no labels to train on; add a \[labels\] table, or map the scene"):
        make_split(scene)


def test_bands_files_and_names(folder, write_toml, write_tif, arrays):
    hsi = arrays[0]["hsi"]
    write_tif("named.tif", hsi, names=["blue", "green", "red", "nir", "swir"])
    read = [
        ("hsi.tif", 'bands = [5, 1]\nband_names = ["swir", "blue"]', [4, 0], ["swir", "blue"]),
        ("named.tif", 'bands = ["nir", "red"]\nrgb = [1, 2, 2]', [3, 2], ["nir", "red"]),
        ("hsi.tif", 'bands = "2-3, 5"', [1, 2, 4], ["band 2", "band 3", "band 5"]),
        ("named.tif", 'bands = "green"', [1], ["green"]),
    ]
    for file, extra, index, names in read:
        got = load_scene(write_toml(modality("x", file, extra))).modalities[0]
        assert got.bands == names
        assert np.array_equal(got.read(2, 9, 3, 8), hsi[index, 2:9, 3:8])
    text = '[[modality]]\nname = "x"\nfiles = ["dsm.tif", "hsi.tif"]\nbands = [3, 1, 6]\n'
    stacked = load_scene(write_toml(text)).modalities[0]
    assert np.array_equal(stacked.read(0, 23, 0, 31), np.concatenate([hsi[1:2], arrays[0]["dsm"], hsi[4:5]]))
    assert stacked.bands == ["hsi band 2", "dsm", "hsi band 5"]
    assert [stacked.band_source(i).endswith(n) for i, n in enumerate(("hsi.tif", "dsm.tif", "hsi.tif"))] == [True] * 3


def test_mat_struct_and_layout(tmp_path, write_toml, arrays):
    bands, labels = arrays
    lidar = np.empty(2, object)
    lidar[0], lidar[1] = {"z": bands["dsm"][0]}, {"z": bands["dsm"][0] * 2}
    hsi = {"Data": bands["hsi"].transpose(1, 2, 0), "Lidar": lidar, "sceneLabels": {"labels": labels.astype(int) - 1}}
    sio.savemat(tmp_path / "muufl.mat", {"hsi": hsi})
    text = modality("hsi", "muufl.mat", 'variable = "hsi.Data"')
    text += modality("lidar", "muufl.mat", 'variable = "hsi.Lidar[1].z"')
    text += '[labels]\npath = "muufl.mat"\nvariable = "hsi.sceneLabels.labels"\nignore = [-1]\n'
    scene = load_scene(write_toml(text))
    assert np.array_equal(scene.modality("hsi").read(0, 23, 0, 31), bands["hsi"])
    assert np.array_equal(scene.modality("lidar").read(0, 23, 0, 31), bands["dsm"] * 2)
    assert [c.code for c in scene.classes] == [1, 4, 6]
    np.save(tmp_path / "chw.npy", bands["hsi"])
    alone = load_scene(write_toml(modality("x", "chw.npy", 'layout = "chw"')))
    assert (alone.height, alone.width) == (23, 31)
    one_row = tmp_path / "row.mat"
    sio.savemat(one_row, {"x": np.arange(7.0)[None]})
    assert load_scene(write_toml(modality("x", "row.mat"))).modalities[0].read(0, 1, 0, 7).shape == (1, 1, 7)


def test_envi_header_names_its_data_file(tmp_path, write_toml, arrays):
    import rasterio

    cube = arrays[0]["hsi"]
    with rasterio.open(tmp_path / "x.dat", "w", driver="ENVI", count=5, height=23, width=31, dtype="float32") as data:
        data.write(cube)
    scene = load_scene(write_toml(modality("x", "x.hdr")))
    assert np.array_equal(scene.modalities[0].read(0, 23, 0, 31), cube) and scene.transform is None


def test_given_maps(folder, write_toml, write_tif, arrays):
    labels = arrays[1]
    train, test = labels.copy(), labels.copy()
    train[:, 12:], test[:, :12] = 0, 0
    write_tif("train.tif", train)
    write_tif("test.tif", test)
    scene = load_scene(write_toml(modality("x", "hsi.tif") + '[labels]\ntrain = "train.tif"\ntest = "test.tif"\n'))
    assert scene.split_spec.kind == "given" and scene.split_spec.per_class is None
    assert np.array_equal(scene.given["train"], train > 0) and np.array_equal(scene.given["test"], test > 0)
    assert np.array_equal(scene.labels >= 0, labels > 0)
    write_tif("marks.tif", (train > 0).astype(np.uint8))
    sio.savemat(folder / "both.mat", {"tr": train, "te": test})
    text = '[labels]\npath = "gt.tif"\ntrain = "marks.tif"\ntest = { path = "both.mat", variable = "te" }\n'
    marked = load_scene(write_toml(modality("x", "hsi.tif") + text))
    assert np.array_equal(marked.labels, scene.labels) and np.array_equal(marked.given["train"], scene.given["train"])
    test[0], test[1, 20] = 0, 2 if test[1, 20] != 2 else 5
    write_tif("test.tif", test)
    text = '[labels]\npath = "gt.tif"\ntrain = "train.tif"\ntest = "test.tif"\n'
    with pytest.raises(SceneError, match=r"test\.tif contradicts the other label maps at 1 pixels .*row 1, column 20"):
        load_scene(write_toml(modality("x", "hsi.tif") + text))


def test_class_0_and_ignored_classes(folder, write_toml, write_tif, arrays):
    codes = np.where(arrays[1] == 2, 0, arrays[1])
    write_tif("zero.tif", codes)
    text = HSI + '[labels]\npath = "zero.tif"\nclasses = { 0 = "water", 5 = "meadow", 7 = "roofs", 9 = "ice" }\n'
    scene = load_scene(write_toml(text))
    assert [(c.code, c.name) for c in scene.classes] == [(0, "water"), (5, "meadow"), (7, "roofs")] and scene.ignored is None
    assert np.array_equal(scene.labels == 0, codes == 0)
    assert any("zero.tif: no pixel of ice (9); left out of the classes" in note for note in scene.notes)
    less = load_scene(write_toml(text + "ignore = [0, 5]\n"))
    assert [c.code for c in less.classes] == [7] and np.array_equal(less.labels == 0, codes == 7)
    assert np.array_equal(less.ignored, codes == 5), "0 is no label, 5 is a class left out"


def test_codes_that_share_a_name_stay_apart(folder, write_toml):
    text = HSI + '[labels]\npath = "gt.tif"\nclasses = { 2 = "wood", 5 = "meadow", 7 = "wood" }\n'
    scene = load_scene(write_toml(text))
    assert [c.name for c in scene.classes] == ["wood (2)", "meadow", "wood (7)"]
    assert any("several codes are called wood (2, 7)" in note for note in scene.notes)


@contextlib.contextmanager
def served(folder):
    """Address of a folder behind HTTP, in a process of its own: GDAL holds the interpreter while it opens a file."""
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        yield f"http://127.0.0.1:{re.search(r'port ([0-9]+)', process.stdout.readline())[1]}"
    finally:
        process.terminate()
        process.communicate()


def test_files_by_pattern_archive_and_address(folder, write_toml, write_tif, arrays):
    import zipfile

    hsi = arrays[0]["hsi"]
    for i in (10, 2, 1):
        write_tif(f"B{i}.tif", hsi[i % 5])
    got = load_scene(write_toml('[[modality]]\nname = "x"\nfiles = "B*.tif"\n')).modalities[0]
    assert got.bands == ["B1", "B2", "B10"] and np.array_equal(got.read(0, 23, 0, 31), hsi[[1, 2, 0]])
    with zipfile.ZipFile(folder / "all.zip", "w") as archive:
        archive.write(folder / "hsi.tif", "in/hsi.tif")
    np.savez(folder / "one.npz", cube=hsi)
    names = ["/vsizip/all.zip/in/hsi.tif", f"/vsizip/{folder}/all.zip/in/hsi.tif", f"zip://{folder}/all.zip!in/hsi.tif"]
    with served(folder) as address:
        for path in (*names, f"{address}/hsi.tif"):
            raster = load_scene(write_toml(modality("x", path))).modalities[0]
            assert np.array_equal(raster.read(0, 23, 0, 31), hsi), path
        with pytest.raises(SceneError, match="none.tif cannot be opened as a raster"):
            load_scene(write_toml(modality("x", f"{address}/none.tif")))
    text = modality("x", "one.npz", 'layout = "chw"')
    assert np.array_equal(load_scene(write_toml(text)).modalities[0].read(0, 23, 0, 31), hsi)


def test_grid_tolerates_rounding_of_the_origin(folder, write_toml, write_tif, arrays):
    write_tif("shifted.tif", arrays[0]["dsm"], origin=(700_000.0 + 1e-6, 5_700_000.0))
    load_scene(write_toml(modality("a", "hsi.tif") + modality("b", "shifted.tif")))


def test_nodata_tag_scene_value_nan_and_mask(tmp_path, write_toml, write_tif, arrays):
    import rasterio

    tagged = arrays[0]["hsi"].copy()
    tagged[2, 4, 5] = -9999
    tagged[0, 6, 7] = np.nan
    tagged[1, 8, 9] = np.inf
    write_tif("tagged.tif", tagged, nodata=-9999)
    whole = np.arange(23 * 31).reshape(23, 31).astype(np.int16)
    write_tif("whole.tif", whole)
    write_tif("masked.tif", arrays[0]["dsm"])
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(tmp_path / "masked.tif", "r+") as data:
        mask = np.full((23, 31), 255, np.uint8)
        mask[22, 30] = 0
        data.write_mask(mask)
    text = modality("a", "tagged.tif") + modality("b", "whole.tif", "nodata = 40") + modality("c", "masked.tif")
    scene = load_scene(write_toml(text))
    with pytest.warns(DataWarning) as seen:
        valid = scene.valid()
    expected = np.ones((23, 31), bool)
    for y, x in ((4, 5), (6, 7), (8, 9), (1, 9), (22, 30)):
        expected[y, x] = False
    assert np.array_equal(valid, expected)
    assert any("tagged.tif: 3 of 713 pixels" in str(w.message) for w in seen)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scene.valid()  # counted and said once


def test_nodata_of_float32_lowest(write_toml, write_tif, arrays):
    lowest = float(np.finfo(np.float32).min)
    band = arrays[0]["dsm"].copy()
    band[0, 0, 0] = lowest
    write_tif("low.tif", band, nodata=lowest)
    scene = load_scene(write_toml(modality("a", "low.tif")))
    assert np.isnan(scene.modalities[0].read(0, 1, 0, 1)).all()


GT = '[labels]\npath = "gt.tif"\n'
BAD = [
    (
        'colour = 3\n[[modality]]\nname = "x"\npath = "hsi.tif"',
        r"scene\.toml: unknown key 'colour'; known keys are name, grid, modality",
    ),
    (modality("x", "hsi.tif", "band = [1]"), r"\[\[modality\]\] 'x': unknown key 'band' \(did you mean 'bands'\?\)"),
    (HSI + '[labels]\nfile = "gt.tif"', r"\[labels\]: unknown key 'file'"),
    (HSI + "[split]\nblocks = 3", r"\[split\]: unknown key 'blocks' \(did you mean 'block'\?\); known keys are kind, block,"),
    ("name = ", r"not valid TOML"),
    (HSI + "[split]\nkind = blocks", r"not valid TOML: Invalid value \(at line .*\); text needs quotes\.$"),
    (HSI + '[modality]\nname = "y"', r"not valid TOML: .*; each sensor is a \[\[modality\]\] table \(double brackets\)\.$"),
    ('name = "x"', r"at least one \[\[modality\]\] table"),
    ('[modality]\nname = "x"\npath = "hsi.tif"', r"double brackets"),
    (modality("x", "none.tif"), r"none\.tif does not exist; it is named in .*\[\[modality\]\] 'x'"),
    (modality("x", "gt.npy", 'layout = "bsq"'), r"layout is 'bsq'; it is \"hwc\""),
    (modality("x", "hsi.tif", 'layout = "hwc"'), r"'layout' belongs to \.mat, \.npz and \.npy"),
    (modality("x", "hsi.npy"), r"hsi\.npy has shape \(23, 31, 5\).*say layout"),
    ('[[modality]]\nname = "x"', r"give either path or files"),
    ('[[modality]]\npath = "hsi.tif"', r"give the modality a name"),
    (HSI * 2, r"two modalities are called 'x'"),
    (modality("x", "hsi.tif", "bands = [6]"), r"bands asks for 6, but there are bands 1 to 5"),
    (modality("x", "hsi.tif", "bands = [0]"), r"bands asks for 0"),
    (modality("x", "hsi.tif", 'bands = "1-9"'), r"bands asks for 1-9"),
    (modality("x", "hsi.tif", 'bands = ["red"]'), r"bands asks for 'red'; there are band 1, band 2"),
    (modality("x", "hsi.tif", "bands = [1, 1]"), r"each once"),
    (modality("x", "hsi.tif", 'band_names = ["a"]'), r"band_names must be 5 names"),
    (modality("x", "hsi.tif", "pca = 6"), r"pca is 6; with 5 bands it is 1 to 5"),
    (modality("x", "hsi.tif", 'pca = "3"'), r"pca is '3'; it must be a whole number"),
    (modality("x", "hsi.tif", "rgb = [1, 2]"), r"rgb is three band numbers"),
    (modality("x", "hsi.tif", 'nodata = "x"'), r"nodata is 'x'; it must be a number"),
    (modality("x", "broken.tif"), r"broken\.tif cannot be opened as a raster"),
    (modality("x", "broken.npy"), r"broken\.npy is not a readable \.npy"),
    (modality("x", "broken.mat"), r"broken\.mat is not a readable \.mat"),
    (modality("x", "v73.mat"), r"v73\.mat is not a readable MATLAB v7\.3 file: .*complete"),
    (
        modality("x", "hsi.mat", 'variable = "gt"'),
        r"hsi\.mat has no variable 'gt'; it holds data_HS_LR \(23 x 31 x 5",
    ),
    (modality("b", "two.mat"), r"\[\[modality\]\] 'b': .*two\.mat holds a \(.*b \(.*; name the one .* such as variable = \"b\"\.$"),
    (modality("x", "two.mat", 'variable = "s.q"'), r"'s\.q' stops at 'q'; there it has p"),
    (modality("x", "complex.npy"), r"complex\.npy holds complex64 values; real numbers"),
    (
        modality("a", "hsi.tif") + modality("b", "bare.tif"),
        r"bare\.tif and .*hsi\.tif differ in size: 20 x 31 and 23 x 31",
    ),
    (
        modality("a", "hsi.tif") + modality("b", "odd.npy"),
        r"odd\.npy has shape \(9, 8, 7\).*23 x 31 pixels of .*hsi\.tif",
    ),
    (
        modality("a", "hsi.tif") + modality("b", "crs.tif"),
        r"crs\.tif and .*hsi\.tif do not cover the same ground \(columns ",
    ),
    (modality("a", "hsi.tif") + modality("b", "moved.tif"), r"moved\.tif and .*hsi\.tif do not cover the same ground"),
    (modality("a", "hsi.tif", 'resampling = "linear"'), r"resampling is 'linear'; it can be nearest, bilinear"),
    (modality("a", "hsi.npy", "unscale = false"), r"'unscale' belongs to GeoTIFF"),
    ('grid = "z"\n' + HSI, r"grid is 'z'; it is the name of a modality \(x\)"),
    ('grid = "b"\n' + HSI + modality("b", "dsm.npy"), r"dsm\.npy has no georeference, so it gives no grid"),
    (modality("x", "B*.tif"), r"no file is named like 'B\*\.tif' in"),
    (modality("x", "two.npz"), r"'x': .*two\.npz holds a, b; name the one to take there, such as variable = \"[ab]\"\.$"),
    (modality("x", "two.npz", 'variable = "aa"'), r"two\.npz has no variable 'aa' \(did you mean 'a'\?\); it holds a, b\.$"),
    (HSI + '[labels]\npath = "scene.mat"', r"\[labels\]: .*scene\.mat holds cube .*such as variable = \"gt\"\.$"),
    (HSI + '[labels]\ntrain = "scene.mat"', r"such as train = \{ path = \"scene\.mat\", variable = \"gt\" \}\.$"),
    (modality("x", "hsi.tif", "nodata = " + "9" * 400), r"nodata lies beyond the range of numbers"),
    ('name = ' + "9" * 5000 + "\n" + HSI, r"is not valid TOML"),
    (HSI + GT + 'ignore = [1' + "0" * 40 + "]", r"ignore is a list of codes"),
    (
        HSI + GT + 'classes = { 2 = "a", 5 = "b" }',
        r"gt\.tif: label code 7 \(\d+ pixels\) has no class; add it to classes or to ignore",
    ),
    (HSI + '[labels]\npath = "hsi.tif"', r"hsi\.tif has 5 bands; a label map has one"),
    (HSI + '[labels]\npath = "dsm.tif"', r"dsm\.tif is not a label map: \d+ values are not whole numbers"),
    (HSI + GT + 'ignore = [2, 5, 7]', r"no labelled pixel"),
    (HSI + GT + 'ignore = 2', r"ignore is a list"),
    (HSI + GT + 'classes = { two = "a" }', r"classes has the key 'two'"),
    (HSI + GT + 'colours = { 2 = "red" }', r"colour of code 2: 'red' is not a colour"),
    (HSI + GT + 'colours = { 3 = "#aabbcc" }', r"colour is given for code 3, which is not a class"),
    (HSI + '[labels]\ntrain = "gt.tif"', r"give path, or train and test"),
    (HSI + '[split]\nkind = "random"', r"kind is 'random'; it can be blocks, given, per_class"),
    (HSI + '[split]\nkind = "given"\nblock = 3', r"block goes with kind = \"blocks\""),
    (HSI + '[split]\ngap = "big"', r"gap is 'big'; it takes \"patch\""),
    (HSI + '[split]\nblock = 1.5', r"block is 1\.5; it must be a whole number"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), BAD, ids=range(len(BAD)))
def test_bad_input_is_named_with_its_mend(folder, write_toml, write_tif, arrays, text, message):
    hsi = arrays[0]["hsi"]
    (folder / "broken.tif").write_bytes(b"no raster")
    (folder / "broken.npy").write_bytes(b"no array")
    (folder / "broken.mat").write_bytes(b"no matrix" * 40)
    (folder / "v73.mat").write_bytes(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(512, b" "))
    sio.savemat(folder / "two.mat", {"a": hsi, "b": hsi, "s": {"p": hsi}})
    sio.savemat(folder / "scene.mat", {"cube": hsi, "gt": arrays[1]})
    np.save(folder / "complex.npy", hsi[0] + 1j)
    np.save(folder / "odd.npy", np.zeros((9, 8, 7)))
    write_tif("crs.tif", hsi, crs="EPSG:32719")
    write_tif("moved.tif", hsi, origin=(800_000.0, 5_700_000.0))
    write_tif("bare.tif", hsi[:, :20], crs=None, transform=None)
    np.savez(folder / "two.npz", a=hsi, b=hsi)
    with pytest.raises(SceneError, match=message) as caught:
        load_scene(write_toml(text))
    assert len(str(caught.value)) < 700


def test_missing_scene_file(tmp_path):
    with pytest.raises(SceneError, match=r"none\.toml does not exist"):
        load_scene(tmp_path / "none.toml")


def test_a_raster_in_place_of_a_scene_file(folder):
    with pytest.raises(SceneError, match=r"hsi\.tif is not a text file; name a scene file \(TOML\), which says where .* are\.$"):
        load_scene(folder / "hsi.tif")


def test_a_configuration_in_place_of_a_scene_file(folder):
    (folder / "quick.toml").write_text("seed = 3\n[train]\nepochs = 3\n")
    with pytest.raises(SceneError, match=r"quick\.toml holds settings and describes no scene; name .* with --config\.$"):
        load_scene(folder / "quick.toml")
    (folder / "both.toml").write_text('[[modality]]\nname = "x"\npath = "hsi.tif"\n[train]\nepochs = 3\n')
    with pytest.raises(SceneError, match=r"both\.toml: unknown key 'train'"):
        load_scene(folder / "both.toml")


def test_a_misspelt_scene_file(tmp_path):
    (tmp_path / "valley.toml").write_text("")
    for name in ("valley", "vally.toml"):
        with pytest.raises(SceneError, match=rf"{name} does not exist \(did you mean .*/valley\.toml\?\); name a scene file"):
            load_scene(tmp_path / name)


def test_ambiguous_layout(tmp_path, write_toml):
    np.save(tmp_path / "a.npy", np.zeros((5, 5, 5)))
    np.save(tmp_path / "b.npy", np.zeros((5, 5)))
    with pytest.raises(SceneError, match=r"a\.npy: shape \(5, 5, 5\) fits as rows, columns, bands and as bands first"):
        load_scene(write_toml(modality("a", "a.npy") + modality("b", "b.npy")))


def test_truncated_raster_is_named_when_read(tmp_path, write_toml, write_tif):
    path = write_tif("cut.tif", np.random.default_rng(0).normal(size=(3, 200, 200)))
    path.write_bytes(path.read_bytes()[:40_000])
    with pytest.raises(SceneError, match=r"cut\.tif.*(cannot be read|cannot be opened)"):
        load_scene(write_toml(modality("a", "cut.tif"))).valid()


def test_band_without_values(write_toml, write_tif, arrays):
    cube = arrays[0]["hsi"].copy()
    cube[3] = -1
    write_tif("dead.tif", cube, nodata=-1, names=["a", "b", "c", "d", "e"])
    scene = load_scene(write_toml(modality("x", "dead.tif")))
    with pytest.warns(DataWarning, match=r"dead\.tif: modality 'x' is used without d: no value there at all"):
        assert scene.valid().all()
    write_tif("dead.tif", np.full_like(cube, -1), nodata=-1)
    with pytest.raises(SceneError, match=r"dead\.tif: modality 'x' holds no value at all.*'nodata'"):
        load_scene(write_toml(modality("x", "dead.tif"))).valid()


def test_no_pixel_with_all_values(write_toml, write_tif, arrays):
    cube = arrays[0]["hsi"][:2].copy()
    cube[0, :12], cube[1, 12:] = -1, -1
    write_tif("apart.tif", cube, nodata=-1)
    with pytest.warns(DataWarning), pytest.raises(SceneError, match="no pixel has a value in every modality"):
        load_scene(write_toml(modality("x", "apart.tif"))).valid()


def test_rasters_survive_a_fork_and_a_pickle(folder, write_toml, arrays):
    import multiprocessing
    import pickle

    scene = load_scene(write_toml(modality("x", "hsi.tif")))
    scene.modalities[0].read(0, 1, 0, 1)
    again = pickle.loads(pickle.dumps(scene))
    assert np.array_equal(again.modalities[0].read(0, 23, 0, 31), arrays[0]["hsi"])
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert np.array_equal(pool.apply(scene.modalities[0].read, (3, 9, 4, 30)), arrays[0]["hsi"][:, 3:9, 4:30])


def test_the_real_tile(tile, write_toml):
    scene = load_scene(write_toml(tile))
    assert (scene.height, scene.width, scene.crs.to_epsg()) == (224, 224, 32718)
    assert [len(m.bands) for m in scene.modalities] == [12, 2, 1]
    assert np.bincount(scene.labels[scene.labels >= 0]).tolist() == [3127, 10396, 21213, 11742, 3608]
    assert scene.valid().all()


@pytest.mark.parametrize("given", [False, True])
def test_loading_labels_takes_few_bytes_a_pixel(tmp_path, write_toml, given):
    import tracemalloc

    side = 2500
    codes = np.arange(side * side, dtype=np.uint32).reshape(side, side) // 977 % 6
    np.save(tmp_path / "x.npy", np.zeros((side, side), np.uint8))
    for name, kind in (("gt", np.uint8), ("train", np.int16), ("test", np.float32)):
        np.save(tmp_path / f"{name}.npy", (codes if name == "gt" else codes * (codes % 2 == (name == "test"))).astype(kind))
    text = HSI.replace("hsi.tif", "x.npy") + '[labels]\npath = "gt.npy"\nignore = [0, 4]\n'
    text += 'train = "train.npy"\ntest = "test.npy"\n' if given else ""
    path = write_toml(text)
    tracemalloc.start()
    scene = load_scene(path)
    peak = tracemalloc.get_traced_memory()[1] / side**2
    tracemalloc.stop()
    assert peak < 8, f"{peak:.1f} bytes a pixel"
    assert np.array_equal(scene.labels, np.array([-1, 0, 1, 2, -1, 3])[codes]) and np.array_equal(scene.ignored, codes == 4)
