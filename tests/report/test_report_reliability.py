"""The expected calibration error by hand."""

import numpy as np
import pytest

from bdgf_fast.report import pictures
from bdgf_fast.report.reliability import reliability


def test_by_hand():
    # bins are 1/15 wide: two pixels in (0.6, 0.667), one right; three in the last, two right
    found = reliability(np.array([0.61, 0.65, 0.95, 0.99, 1.0]), np.array([True, False, True, True, False]))
    assert found["bins"][9] == {"pixels": 2, "confidence": pytest.approx(0.63), "accuracy": 0.5}
    assert found["bins"][14] == {"pixels": 3, "confidence": pytest.approx(0.98), "accuracy": pytest.approx(2 / 3)}
    assert found["bins"][0] == {"pixels": 0, "confidence": None, "accuracy": None}
    assert found["expected_calibration_error"] == pytest.approx((2 * 0.13 + 3 * (0.98 - 2 / 3)) / 5)


def test_probabilities_that_are_right_have_none():
    rng = np.random.default_rng(0)
    sure = rng.uniform(0.2, 1, 200_000)
    assert reliability(sure, rng.random(200_000) < sure)["expected_calibration_error"] < 0.005


def test_the_legend_of_the_picture_keeps_off_the_curves(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(pictures, "_save", lambda figure, path: drawn.append(figure))
    sure = np.linspace(0.05, 1, 40)
    curves = {"uncalibrated": reliability(sure, sure > 0.2), "calibrated": reliability(sure, sure > 0.9)}  # through every corner
    assert pictures.reliability({**curves, "written": curves["calibrated"]}, tmp_path / "reliability.png")
    (figure,) = drawn
    figure.draw_without_rendering()
    (axis,), (legend,) = figure.axes, figure.legends
    assert axis.get_legend() is None and not legend.get_window_extent().overlaps(axis.get_window_extent())
    pictures.plt.close(figure)
