"""MATLAB v7.3, ENVI and exported regions: the same values as any other way, and what is said of bad files."""

import logging
import pickle

import numpy as np
import pytest

from bdgf_fast.data import load_scene
from bdgf_fast.data.sources.envi_regions import load_regions
from bdgf_fast.data.sources.matfile import Hdf5Array, choose_variable, load_names, load_variable
from bdgf_fast.errors import DataWarning, SceneError

pytest.importorskip("rasterio")
sio = pytest.importorskip("scipy.io")
h5py = pytest.importorskip("h5py")
from known_files import save_envi, save_mat, save_regions, save_v73  # noqa: E402

RNG = np.random.default_rng(8)
CUBE = RNG.normal(size=(9, 12, 4)).astype(np.float32)
GT = RNG.integers(0, 4, (9, 12)).astype(np.uint8)


def scene(tmp_path, text):
    path = tmp_path / "scene.toml"
    path.write_text(text)
    return load_scene(path)


def modality(path, *extra):
    return "\n".join(["[[modality]]", 'name = "x"', f'path = "{path}"', *extra]) + "\n"


def test_v73_axes_are_matlab_s_and_windows_are_read_lazily(tmp_path):
    save_v73(tmp_path / "cube.mat", {"cube": CUBE, "gt": GT})
    array = load_variable(tmp_path / "cube.mat", "cube")
    assert isinstance(array, Hdf5Array) and array.shape == (9, 12, 4) and array.dtype == np.float32
    assert np.array_equal(np.asarray(array), CUBE)
    labels = '[labels]\npath = "cube.mat"\nvariable = "gt"\n'
    got = scene(tmp_path, modality("cube.mat", 'variable = "cube"', "bands = [4, 2]") + labels)
    assert np.array_equal(got.modalities[0].read(2, 7, 3, 11), CUBE[2:7, 3:11, [3, 1]].transpose(2, 0, 1))
    assert np.array_equal(got.labels, GT.astype(int) - 1)
    again = pickle.loads(pickle.dumps(got))
    assert np.array_equal(again.modalities[0].read(0, 9, 0, 12), CUBE[:, :, [3, 1]].transpose(2, 0, 1))
    assert choose_variable(tmp_path / "cube.mat", ["CUBE"]) == "cube"


def test_hdf5_of_another_program_keeps_its_order(tmp_path):
    with h5py.File(tmp_path / "plain.mat", "w") as file:
        file["cube"] = CUBE
    assert np.array_equal(load_variable(tmp_path / "plain.mat", "cube"), CUBE)


def test_v73_structs_cells_and_names(tmp_path):
    flights = [{"z": CUBE[:, :, :2]}, {"z": CUBE[:, :, 2:]}]
    save_v73(tmp_path / "s.mat", {"hsi": {"Data": CUBE, "Lidar": flights, "names": ["trees", "road"], "text": "abc"}})
    for index in (0, 1):
        assert np.array_equal(load_variable(tmp_path / "s.mat", f"hsi.Lidar[{index}].z"), flights[index]["z"])
    assert load_names(tmp_path / "s.mat", "hsi.names") == ["trees", "road"]
    assert load_names(tmp_path / "s.mat", "hsi.nothing") == []
    for variable, message in (
        ("hsi.Depth", r"stops at 'Depth'; there it has Data, Lidar"),
        ("hsi.Lidar[2].z", r"stops at 2"),
        ("hsi", r"'hsi' is not a numeric array; it is struct"),
        ("hsi.text", r"is not a numeric array; it is char"),
        ("cube", r"has no variable 'cube'; it holds hsi \(1 x 1 struct\)"),
    ):
        with pytest.raises(SceneError, match=message):
            load_variable(tmp_path / "s.mat", variable)


def test_v73_struct_array(tmp_path):
    save_v73(tmp_path / "s.mat", {"s": {"z": [CUBE, CUBE * 2]}})
    assert np.array_equal(load_variable(tmp_path / "s.mat", "s[1].z"), CUBE * 2)


@pytest.mark.parametrize("save", [save_mat, save_v73])
def test_wrong_variable_lists_what_the_file_holds(tmp_path, save):
    save(tmp_path / "two.mat", {"first": CUBE, "second": CUBE})
    held = r"first \(9 x 12 x 4 single\), second \(9 x 12 x 4 single\)"
    with pytest.raises(SceneError, match=rf"two\.mat holds {held}, but none of data, HSI"):
        choose_variable(tmp_path / "two.mat", ["data", "HSI"])
    with pytest.raises(SceneError, match=rf"has no variable 'third'; it holds {held}"):
        load_variable(tmp_path / "two.mat", "third")


@pytest.mark.parametrize(("save", "said"), [(save_mat, "complete"), (save_v73, "v7.3 file.*complete")])
def test_truncated_mat_files(tmp_path, save, said):
    path = tmp_path / "cut.mat"
    save(path, {"cube": RNG.normal(size=(60, 50, 4))})
    for share in (0.3, 0.9):
        whole = path.read_bytes()
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(SceneError, match=rf"cut\.mat.*{said}"):
            np.asarray(load_variable(path, "cube"))
        path.write_bytes(whole)


def test_v73_complex_and_empty(tmp_path):
    with h5py.File(tmp_path / "c.mat", "w") as file:
        file["c"] = np.zeros((3, 4), [("real", "f8"), ("imag", "f8")])
        file.create_dataset("e", data=np.zeros(2, np.uint64)).attrs["MATLAB_empty"] = 1
    for name, message in (("c", "holds complex values; real numbers"), ("e", "'e' is not a numeric array; it is empty")):
        with pytest.raises(SceneError, match=message):
            load_variable(tmp_path / "c.mat", name)


def test_sparse_label_map(tmp_path):
    from scipy.sparse import csc_matrix

    save_mat(tmp_path / "gt.mat", {"gt": csc_matrix(GT.astype(float))})
    assert np.array_equal(load_variable(tmp_path / "gt.mat", None), GT)


@pytest.mark.parametrize("interleave", ["bsq", "bil", "bip"])
@pytest.mark.parametrize("suffix", ["", ".img", ".raw"])
def test_envi_names_nodata_and_interleave(tmp_path, interleave, suffix):
    values = (CUBE * 100).astype(np.int16).transpose(2, 0, 1).copy()
    values[2, 4, 5] = -99
    header = save_envi(tmp_path / f"cube{suffix}", values, interleave=interleave, names=["a", "b", "c", "d"], nodata=-99)
    expected = values.astype(np.float32)
    expected[values == -99] = np.nan
    for name in (header.name, f"cube{suffix}"):
        got = scene(tmp_path, modality(name)).modalities[0]
        assert got.bands == ["a", "b", "c", "d"]
        assert np.array_equal(got.read(0, 9, 0, 12), expected, equal_nan=True)


def test_envi_in_capitals_and_header_named_after_the_whole_file(tmp_path):
    values = CUBE.transpose(2, 0, 1).copy()
    save_envi(tmp_path / "CUBE.IMG", values).rename(tmp_path / "CUBE.HDR")
    save_envi(tmp_path / "b.dat", values).rename(tmp_path / "b.dat.hdr")
    for name in ("CUBE.HDR", "b.dat.hdr"):
        assert np.array_equal(scene(tmp_path, modality(name)).modalities[0].read(0, 9, 0, 12), values)


def test_bad_envi_files(tmp_path):
    values = CUBE.transpose(2, 0, 1).copy()
    save_envi(tmp_path / "cut.img", values)
    (tmp_path / "cut.img").write_bytes((tmp_path / "cut.img").read_bytes()[:-1])
    with pytest.raises(SceneError, match=r"cut\.img has 1727 bytes, its header promises 1728 \(4 bands of 9 x 12\)"):
        scene(tmp_path, modality("cut.hdr"))
    save_envi(tmp_path / "bare.img", values).unlink()
    with pytest.raises(SceneError, match=r"bare\.img cannot be opened.* An ENVI file needs its header, bare\.hdr"):
        scene(tmp_path, modality("bare.img"))
    save_envi(tmp_path / "alone.img", values)
    (tmp_path / "alone.img").unlink()
    with pytest.raises(SceneError, match=r"alone\.hdr is an ENVI header, but its data file"):
        scene(tmp_path, modality("alone.hdr"))


def test_exported_regions(tmp_path):
    save_regions(tmp_path / "train.txt", GT)
    assert np.array_equal(load_regions(tmp_path / "train.txt"), GT)
    text = (tmp_path / "train.txt").read_text()
    for changed, message in (
        (text.replace("12 x 9", "5 x 9"), r"train\.txt, line \d+: column \d+, row \d+ lies outside the 9 x 5 image"),
        (text.replace("File Dimension", "Size"), r"is not a list of ENVI regions"),
        (text + "\n  1 a b", r"'1 a b' is not a point"),
        (text + f"\n  1 {text.splitlines()[7].split()[1]} {text.splitlines()[7].split()[2]}", r"is in regions 1 and 4"),
        ("; File Dimension: 3 x 4", r"holds no point"),
    ):
        (tmp_path / "bad.txt").write_text(changed.replace("train.txt", "bad.txt"))
        with pytest.raises(SceneError, match=message.replace("train", "bad")):
            load_regions(tmp_path / "bad.txt")


# --- lists of (row, column) ---


def lists(tmp_path, points, truth):
    sio.savemat(tmp_path / "i.mat", {"tr": points[::2], "te": points[1::2]})
    np.save(tmp_path / "x.npy", CUBE)
    np.save(tmp_path / "gt.npy", truth)
    labels = ['[labels]', 'path = "gt.npy"']
    labels += [f'{side} = {{ path = "i.mat", variable = "{name}" }}' for side, name in (("train", "tr"), ("test", "te"))]
    return scene(tmp_path, modality("x.npy") + "\n".join(labels))


BLOBS = np.zeros((9, 12), np.uint8)
BLOBS[:3, :4], BLOBS[5:, 8:] = 1, 2


@pytest.mark.parametrize("base", [0, 1])
def test_index_lists_of_either_base(tmp_path, base, caplog):
    points = np.argwhere(BLOBS) + base
    with caplog.at_level(logging.INFO, "bdgf_fast.data"):
        got = lists(tmp_path, points.astype(np.uint16), BLOBS)
    assert f"read as {base}-based (row, column); 100.0% of the listed pixels are labelled" in caplog.text
    both = got.given["train"] | got.given["test"]
    assert np.array_equal(both, BLOBS > 0) and not (got.given["train"] & got.given["test"]).any()
    assert np.array_equal(got.labels, BLOBS.astype(int) - 1) and any(f"{base}-based" in note for note in got.notes)


def test_index_lists_in_doubt(tmp_path):
    points = np.argwhere(BLOBS)
    with pytest.warns(DataWarning, match=r"read as 1-based \(column, row\).*unusual order"):
        got = lists(tmp_path, points[:, ::-1] + 1, BLOBS)
    assert np.array_equal(got.given["train"] | got.given["test"], BLOBS > 0)
    with pytest.warns(DataWarning, match="Both bases fit equally; the common one is taken"):
        lists(tmp_path, np.argwhere(BLOBS == 1)[:8] // 2 + 1, np.ones_like(BLOBS))
    with pytest.warns(DataWarning, match=r"i\.mat\[te\]: 1 listed pixels carry no label and are left out"):
        lists(tmp_path, np.concatenate([points, [[8, 0]]]), BLOBS)
    with pytest.raises(SceneError, match=r"i\.mat.*do not fit the 9 x 12 ground truth.*at most \d+% of them are labelled"):
        lists(tmp_path, np.argwhere(BLOBS == 0), BLOBS)
    with pytest.raises(SceneError, match=r"whole numbers, not float64 with fractions"):
        lists(tmp_path, points + 0.5, BLOBS)
    with pytest.raises(SceneError, match="at most 0% of them"):
        lists(tmp_path, points + 1000, BLOBS)
    text = '[labels]\ntrain = { path = "i.mat", variable = "tr" }\ntest = { path = "i.mat", variable = "te" }\n'
    with pytest.raises(SceneError, match="lists pixels; name the ground truth with path too"):
        scene(tmp_path, modality("x.npy", 'layout = "hwc"') + text)


def test_swapped_axes_are_named(tmp_path):
    np.save(tmp_path / "x.npy", CUBE)
    np.save(tmp_path / "gt.npy", GT.T)
    with pytest.raises(SceneError, match=r"x\.npy has shape \(9, 12, 4\).*rows and columns look swapped"):
        scene(tmp_path, modality("x.npy") + '[labels]\npath = "gt.npy"\n')
    np.save(tmp_path / "y.npy", CUBE[:, :, 0])
    with pytest.raises(SceneError, match=r"differ in size: 12 x 9 and 9 x 12 .*look swapped"):
        scene(tmp_path, modality("y.npy") + '[labels]\npath = "gt.npy"\n')


def test_tiles_of_a_mosaic_with_two_coordinate_systems(tmp_path, write_tif):
    tile = CUBE.transpose(2, 0, 1)
    write_tif("west.tif", tile)
    write_tif("east.tif", tile[:, :, :8], origin=(700_120.0, 5_700_000.0), crs="EPSG:32719")
    text = '[[modality]]\nname = "x"\nfiles = ["west.tif", "east.tif"]\n'
    with pytest.raises(SceneError, match=r"east\.tif and .*west\.tif do not cover the same ground"):
        scene(tmp_path, text)
    write_tif("east.tif", tile[:, :, :8], origin=(700_120.0, 5_700_000.0))
    with pytest.raises(SceneError, match=r"tiles of a mosaic first become one file with gdalbuildvrt"):
        scene(tmp_path, text)


def test_damage_that_ends_scipy_s_reader_is_refused_before(tmp_path):
    from scipy.sparse import csc_matrix

    path = tmp_path / "x.mat"
    sio.savemat(path, {"x": np.arange(12.0).reshape(3, 4)})
    whole = bytearray(path.read_bytes())
    at = whole.index(np.float64(4.0).tobytes()) - 8 - 8  # the tag of the values: their type, then their length
    assert whole[at] == 9
    whole[at] = 119
    path.write_bytes(whole)
    for read in (load_variable, load_names):
        if read is load_names:
            assert read(path, "x") == []
            continue
        with pytest.raises(SceneError, match=r"x\.mat is not a readable \.mat file: no type of MATLAB has the code 119"):
            read(path, "x")
    sio.savemat(path, {"q": csc_matrix(np.eye(5))})
    whole = bytearray(path.read_bytes())
    rows = np.arange(5, dtype=np.int32).tobytes()
    at = whole.index(rows)
    whole[at + 16 : at + 20] = np.int32(2**30).tobytes()
    path.write_bytes(whole)
    with pytest.raises(SceneError, match=r"x\.mat is not a readable \.mat file"):
        load_variable(path, "q")
