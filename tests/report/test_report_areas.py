"""Areas by the error matrix: the published worked example, a case by hand, and what its interval promises."""

import csv

import numpy as np
import pytest

from bdgf_fast.data.classes import ClassInfo
from bdgf_fast.report.areas import COLUMNS, area_table, error_matrix_areas, write_areas
from bdgf_fast.report.run_page import amount

CLASSES = [ClassInfo(1, "water", (0, 0, 255)), ClassInfo(2, "trees", (0, 255, 0))]


def predicted(on_ground: bool, counted=(30_000.0, 70_000.0)) -> dict:
    return {"pixels": [300, 700], "counted": list(counted), "expected": [35_000.0, 65_000.0], "on_ground": on_ground,
            "priors": {"estimated": {"water": 0.4, "trees": 0.6}}}  # fmt: skip


def test_the_published_example_of_deforestation():
    # Olofsson et al. 2014: pixels of 30 m in the map, and the error matrix of a sample of 640 (rows = map)
    matrix = [[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]]
    area, half = error_matrix_areas(matrix, 0.09 * np.array([200_000, 150_000, 3_200_000, 6_450_000]))
    np.testing.assert_allclose(area, [21_158, 11_686, 285_770, 581_386], atol=0.5)
    np.testing.assert_allclose(half, [6_158, 3_756, 15_510, 16_281], atol=0.6)


def test_two_classes_by_hand():
    # strata of 0.3 and 0.7; 8 of 10 and 1 of 20 are water: 0.3 * 0.8 + 0.7 * 0.05 = 0.275
    area, half = error_matrix_areas([[8, 2], [1, 19]], [30, 70])
    np.testing.assert_allclose(area, [27.5, 72.5])
    variance = 0.3**2 * 0.8 * 0.2 / 9 + 0.7**2 * 0.05 * 0.95 / 19
    np.testing.assert_allclose(half, 2 * [100 * 1.959964 * np.sqrt(variance)], rtol=1e-5)


def test_the_interval_holds_what_it_promises():
    rng = np.random.default_rng(0)
    share = np.array([[0.85, 0.1, 0.05], [0.05, 0.9, 0.05], [0.2, 0.1, 0.7]])  # of each class (columns) in what the map calls so
    mapped = np.array([1000.0, 5000.0, 300.0])
    true = mapped @ share
    held = []
    for _ in range(2000):
        area, half = error_matrix_areas([rng.multinomial(1000, row) for row in share], mapped)
        held.append(np.abs(area - true) <= half)
        assert area.sum() == pytest.approx(mapped.sum())
    assert (np.abs(np.mean(held, 0) - 0.95) < 0.02).all()


def test_a_stratum_without_pixels():
    assert error_matrix_areas([[9, 1], [1, 0]], [30, 70]) is None  # one pixel has no variance
    area, _ = error_matrix_areas([[9, 1], [0, 0]], [30, 0])  # a class that the map does not have needs none
    np.testing.assert_allclose(area, [27, 3])
    table = area_table(CLASSES, predicted(True), [[9, 0], [1, 1]])
    assert table["note"].startswith("Fewer than two test pixels lie in what the map calls trees:")
    assert table["rows"][0]["error_matrix"] is None


def test_the_table_and_its_file(tmp_path):
    table = area_table(CLASSES, predicted(True), [[8, 1], [2, 19]])  # rows = truth
    assert table["unit"] == "ha" and table["note"] is None
    water = table["rows"][0]
    assert (water["counted"], water["expected"], water["corrected"]) == (3.0, 3.5, 4.0)
    assert water["error_matrix"] == pytest.approx(2.75)
    assert water["error_matrix_low"] < 2.75 < water["error_matrix_high"]
    write_areas(tmp_path / "areas.csv", table)
    rows = list(csv.DictReader((tmp_path / "areas.csv").open(encoding="utf-8")))
    assert tuple(rows[0]) == COLUMNS and [row["class"] for row in rows] == ["water", "trees"]
    assert rows[1]["code"] == "2" and rows[1]["unit"] == "ha" and float(rows[1]["error_matrix"]) == pytest.approx(7.25)


def test_pixels_where_there_is_no_ground(tmp_path):
    table = area_table(CLASSES, predicted(False, (300.0, 700.0)))
    assert table["unit"] == "pixels" and table["rows"][1]["counted"] == 700
    write_areas(tmp_path / "areas.csv", table)
    row = next(csv.DictReader((tmp_path / "areas.csv").open(encoding="utf-8")))
    assert row["error_matrix"] == row["error_matrix_low"] == "" and row["corrected"] == "400"


@pytest.mark.parametrize(
    "value, text",
    [(30.06, "30.1"), (20.02, "20.0"), (57.0, "57"), (0.0, "0"), (99.96, "100.0"), (1234.5, "1,234"), (1.5, "1.50"),
     (0.0123, "0.0123"), (0.00004, "0.0000"), (None, "-")],
)  # fmt: skip
def test_figures_of_a_column_have_the_same_digits(value, text):
    assert amount(value) == text
