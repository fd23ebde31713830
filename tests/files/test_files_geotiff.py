"""Result files: read back, killed half-way, on a full disk."""

import os
import signal
import subprocess
import sys
import textwrap
import time
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from bdgf_fast.data import ClassInfo, MapWriter, ProbabilityWriter, map_codes, write_map, write_probabilities
from bdgf_fast.errors import OutputError
from bdgf_fast.files.atomic import atomic

rasterio = pytest.importorskip("rasterio")
from rasterio.transform import from_origin  # noqa: E402

CLASSES = [
    ClassInfo(2, "water", (10, 20, 30)),
    ClassInfo(5, "wood & <heath>", (40, 50, 60)),
    ClassInfo(9, "é", (7, 8, 9)),
]
PLACE = ("EPSG:32718", from_origin(700_000, 5_700_000, 10, 10))


def codes_of(shape=(300, 270)):
    return np.random.default_rng(0).choice(np.array([0, 2, 5, 9], np.uint8), shape)


def no_leftovers(folder, *expected):
    assert sorted(p.name for p in folder.iterdir()) == sorted(expected)


def test_map_reads_back(tmp_path):
    codes = codes_of()
    assert write_map(tmp_path / "map.tif", codes, *PLACE, CLASSES) is None
    with rasterio.open(tmp_path / "map.tif") as data:
        assert np.array_equal(data.read(1), codes)
        assert data.nodata == 0 and data.crs.to_epsg() == 32718 and data.transform == PLACE[1]
        assert data.profile["tiled"] and data.profile["compress"] == "deflate" and data.profile["dtype"] == "uint8"
        table = data.colormap(1)
        assert [table[c][:3] for c in (2, 5, 9)] == [(10, 20, 30), (40, 50, 60), (7, 8, 9)] and table[2][3] == 255
        assert data.colorinterp[0].name == "palette"
        assert data.tags(1)["CLASS_5"] == "wood & <heath>"
    no_leftovers(tmp_path, "map.tif", "map.tif.aux.xml")


def test_gdal_finds_the_class_names(tmp_path):
    """GDAL copies what it read of the map into a VRT; category names are where QGIS takes the legend from."""
    from rasterio.shutil import copy

    write_map(tmp_path / "map.tif", codes_of(), *PLACE, CLASSES)
    copy(str(tmp_path / "map.tif"), str(tmp_path / "copy.vrt"), driver="VRT")
    band = ElementTree.parse(tmp_path / "copy.vrt").getroot().find("VRTRasterBand")
    names = [node.text or "" for node in band.find("CategoryNames")]
    assert names == ["", "", "water", "", "", "wood & <heath>", "", "", "", "é"]
    sidecar = ElementTree.parse(tmp_path / "map.tif.aux.xml").getroot()
    rows = [[f.text for f in row] for row in sidecar.iter("Row")]
    assert rows[1] == ["5", "wood & <heath>", "40", "50", "60"]


def test_map_in_blocks_equals_map_at_once(tmp_path):
    codes = codes_of()
    with MapWriter(tmp_path / "map.tif", codes.shape, *PLACE, CLASSES) as out:
        for y in range(0, 300, 128):
            for x in range(0, 270, 100):
                out.write_block(y, x, codes[y : y + 128, x : x + 100])
        assert not (tmp_path / "map.tif").exists()
        with pytest.raises(ValueError, match=r"codes holds \[3\]"):
            out.write_block(0, 0, np.full((2, 2), 3, np.uint8))
        with pytest.raises(ValueError, match=r"block of 2 x 2 at \(299, 0\) leaves the 300 x 270 map"):
            out.write_block(299, 0, np.zeros((2, 2), np.uint8))
    with rasterio.open(tmp_path / "map.tif") as data:
        assert np.array_equal(data.read(1), codes)


def test_map_without_georeference(tmp_path, recwarn):
    write_map(tmp_path / "map.tif", codes_of(), None, None, CLASSES)
    assert not recwarn.list
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning), rasterio.open(tmp_path / "map.tif") as data:
        assert data.crs is None


def test_codes_that_do_not_fit_a_byte():
    assert map_codes(CLASSES)[0].tolist() == [2, 5, 9] and map_codes(CLASSES)[1] is None
    for odd in (0, 256, -4):
        codes, note = map_codes([ClassInfo(odd, "odd", (0, 0, 0)), *CLASSES])
        assert codes.tolist() == [1, 2, 3, 4] and codes.dtype == np.uint8
        assert f"1 = odd (label code {odd})" in note
    with pytest.raises(OutputError, match="up to 255 classes in one byte; this scene has 256"):
        map_codes([ClassInfo(i, str(i), (0, 0, 0)) for i in range(256)])


def test_stray_codes_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"codes holds \[1, 3\], which are no class"):
        write_map(tmp_path / "map.tif", np.array([[1, 3], [2, 0]], np.uint8), *PLACE, CLASSES)
    with pytest.raises(ValueError, match="codes is int64"):
        write_map(tmp_path / "map.tif", np.zeros((3, 3), np.int64), *PLACE, CLASSES)
    no_leftovers(tmp_path)


def test_probabilities_read_back(tmp_path):
    values = np.random.default_rng(1).random((3, 300, 270)).astype(np.float32)
    write_probabilities(tmp_path / "p.tif", values, *PLACE, ["water", "wood", "é"])
    with rasterio.open(tmp_path / "p.tif") as data:
        assert np.array_equal(data.read(), values) and data.descriptions == ("water", "wood", "é")
        assert np.isnan(data.nodata) and data.dtypes == ("float32",) * 3
    with ProbabilityWriter(tmp_path / "q.tif", (300, 270), *PLACE, ["a", "b", "c"]) as out:
        out.write_block(0, 0, values[:, :256])
        out.write_block(256, 10, values[:, 256:290, 10:])
        with pytest.raises(ValueError, match=r"\(3, h, w\) is needed"):
            out.write_block(0, 0, values[:2])
    with rasterio.open(tmp_path / "q.tif") as data:
        got = data.read()
    assert np.array_equal(got[:, :256], values[:, :256]) and np.array_equal(
        got[:, 256:290, 10:], values[:, 256:290, 10:]
    )
    assert np.isnan(got[:, 290:]).all() and np.isnan(got[:, 256:, :10]).all(), "never written = no value"


def test_an_error_leaves_the_old_file(tmp_path):
    path = tmp_path / "map.tif"
    write_map(path, codes_of(), *PLACE, CLASSES)
    before = path.read_bytes()
    with pytest.raises(KeyError), MapWriter(path, (300, 270), *PLACE, CLASSES) as out:
        out.write_block(0, 0, np.full((256, 256), 9, np.uint8))
        raise KeyError("stop")
    assert path.read_bytes() == before
    no_leftovers(tmp_path, "map.tif", "map.tif.aux.xml")


def test_a_kill_leaves_no_half_file(tmp_path):
    script = f"""
        import numpy as np, time
        from bdgf_fast.data import ProbabilityWriter
        with ProbabilityWriter({str(tmp_path / "p.tif")!r}, (600, 600), None, None, ["a"]) as out:
            out.write_block(0, 0, np.ones((1, 256, 600)))
            print("ready", flush=True)
            time.sleep(60)
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "p.tif").exists()


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="needs a file size limit to play a full disk")
@pytest.mark.parametrize("kind", ["map", "probabilities", "text"])
def test_a_full_disk_is_said_and_leaves_nothing(tmp_path, kind):
    script = f"""
        import resource, signal, numpy as np
        from bdgf_fast.data import ClassInfo, write_map, write_probabilities
        from bdgf_fast.files.geotiff import atomic
        from bdgf_fast.errors import OutputError
        import rasterio
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        rng, path = np.random.default_rng(0), {str(tmp_path / "out.tif")!r}
        try:
            if {kind!r} == "map":
                classes = [ClassInfo(i, str(i), (0, 0, 0)) for i in range(1, 200)]
                write_map(path, rng.integers(0, 200, (900, 900)).astype(np.uint8), None, None, classes)
            elif {kind!r} == "text":
                with atomic(path) as part:
                    part.write_bytes(bytes(100_000))
            else:
                write_probabilities(path, rng.random((2, 900, 900)), None, None, ["a", "b"])
        except OutputError as error:
            print("said:", error)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=120)
    assert "said:" in done.stdout and "out.tif could not be written" in done.stdout, done.stdout + done.stderr
    assert "room" in done.stdout
    no_leftovers(tmp_path)


def test_unwritable_places(tmp_path):
    with pytest.raises(OutputError, match=r"none/map\.tif could not be written.*Check that the folder exists"):
        write_map(tmp_path / "none" / "map.tif", codes_of(), None, None, CLASSES)
    (tmp_path / "taken").mkdir()
    with pytest.raises(OutputError, match="taken could not be written"), atomic(tmp_path / "taken") as part:
        part.write_text("x")
    no_leftovers(tmp_path, "taken")


def test_readers_never_see_a_part(tmp_path):
    """Two writers of one file: whoever ends last wins, and it is whole."""
    path = tmp_path / "x.txt"
    with atomic(path) as first:
        first.write_text("first")
        assert not path.exists() and first.parent == path.parent
    with atomic(path) as second:
        second.write_text("second")
        assert path.read_text() == "first"
    assert path.read_text() == "second" and time.time() - os.path.getmtime(path) < 600
