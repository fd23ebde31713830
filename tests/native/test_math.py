"""The vector functions of csrc/include/bdgf/math.h and scan_step.h as the kernels call them, and the 16-bit conversions, on
every instruction set level."""

import numpy as np
import pytest
import torch

from bdgf_fast import _native

C = _native.load()
LEVELS = list(C.cpu_isas())


def run(function, x, level):
    return np.frombuffer(C._elementwise(function, np.asarray(x, np.float32).tobytes(), level), np.float32)


def ulps(got, want):
    """Distance in units in the last place of the f32 nearest to the true value."""
    spacing = np.spacing(np.abs(want).astype(np.float32)).astype(np.float64)
    return np.abs(got.astype(np.float64) - want) / spacing


EXACT = {
    "exp": np.exp,
    "exp2": np.exp2,
    "log": np.log,
    "softplus": lambda x: np.logaddexp(0, x),
    "softplus_slope": lambda d: -np.expm1(-d),  # the argument is the value of softplus
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "silu_slope": lambda x: (1 + x / (1 + np.exp(x))) / (1 + np.exp(-x)),
}


def samples(function):
    rng = np.random.default_rng(0)
    if function == "log":
        bits = rng.integers(1, 0x7F800000, 300_000).astype(np.uint32)  # every positive number, subnormal ones too
        near_one = 1 + np.linspace(-0.3, 0.4, 100_000)
        return np.concatenate([bits.view(np.float32), near_one.astype(np.float32)])
    ranges = {"exp": (-87.3, 88.7), "exp2": (-126, 127.99), "softplus": (-87, 60), "softplus_slope": (0, 30)}
    low, high = ranges.get(function, (-80, 80))
    wide = rng.uniform(low, high, 300_000)
    small = rng.uniform(-1, 1, 100_000) * 2.0 ** rng.integers(-30, 1, 100_000)
    return np.clip(np.concatenate([wide, small]), low, high).astype(np.float32)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    ("function", "bound"), [("exp", 2.5), ("exp2", 2.5), ("log", 2), ("softplus_slope", 8), ("sigmoid", 4), ("silu", 4)]
)
def test_error_in_ulps(function, bound, level):
    x = samples(function)
    error = ulps(run(function, x, level), EXACT[function](x.astype(np.float64)))
    assert error.max() < bound, (x[error.argmax()], error.max())


@pytest.mark.parametrize("level", LEVELS)
def test_error_of_softplus(level):
    """Where softplus(x) is e^x, the product |x| log2(e) is rounded before it becomes an exponent: about an ulp a unit of |x|."""
    x = samples("softplus")
    error = ulps(run("softplus", x, level), EXACT["softplus"](x.astype(np.float64)))
    excess = error - 1.25 * np.maximum(-x, 0)
    assert excess.max() < 4, (x[excess.argmax()], error[excess.argmax()])


@pytest.mark.parametrize("level", LEVELS)
def test_error_of_the_slope_of_silu(level):
    """Of the largest slope, not of each: it passes through 0."""
    x = samples("silu_slope")
    error = np.abs(run("silu_slope", x, level) - EXACT["silu_slope"](x.astype(np.float64)))
    assert error.max() < 10 * 2.0**-23, (x[error.argmax()], error.max())


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("function", ["exp", "exp2"])
def test_exp_at_the_edges(function, level):
    inf, nan = np.inf, np.nan
    x = np.array(
        [0.0, -0.0, inf, -inf, nan, 1e30, -1e30, 3.4e38, -3.4e38, 89.0 * 1.5, -104.0 * 1.5, 1e-40, -1e-40], np.float32
    )
    want = [1, 1, inf, 0, nan, inf, 0, inf, 0, inf, 0, 1, 1]
    np.testing.assert_array_equal(run(function, x, level), np.array(want, np.float32))
    x = np.linspace(-103.9, -87.3, 4001) if function == "exp" else np.linspace(-149.4, -126, 4001)
    x = x.astype(np.float32)  # subnormal results: right to two units of the smallest number
    assert np.abs(run(function, x, level) - EXACT[function](x.astype(np.float64))).max() <= 2 * 2.0**-149


@pytest.mark.parametrize("level", LEVELS)
def test_bounded_exp2_has_the_bits_of_exp2(level):
    x = samples("exp2")
    steps = np.arange(-120 * 64, 120 * 64 + 1) / 64  # every multiple of 1/32 and the ties between them
    x = np.concatenate([x[np.abs(x) <= 120], steps, np.nextafter(steps.astype(np.float32), np.float32(0))]).astype(np.float32)
    np.testing.assert_array_equal(run("exp2_bounded", x, level), run("exp2", x, level))


@pytest.mark.parametrize("level", LEVELS)
def test_the_others_at_the_edges(level):
    inf, nan = np.inf, np.nan
    x = np.array([0.0, -0.0, inf, -1.0, -inf, nan, 1.0], np.float32)
    np.testing.assert_array_equal(run("log", x, level), np.array([-inf, -inf, inf, nan, nan, nan, 0], np.float32))
    x = np.array([inf, -inf, nan, 100, -200], np.float32)
    np.testing.assert_array_equal(run("softplus", x, level), np.array([inf, 0, nan, 100, 0], np.float32))
    np.testing.assert_array_equal(run("softplus_slope", [0, inf, nan], level), np.array([0, 1, nan], np.float32))
    np.testing.assert_array_equal(run("sigmoid", x, level), np.array([1, 0, nan, 1, 0], np.float32))
    np.testing.assert_array_equal(run("silu", x[[0, 2, 3]], level), np.array([inf, nan, 100], np.float32))


@pytest.mark.parametrize("level", LEVELS)
def test_softplus_is_torch_s(level):
    x = torch.linspace(-30, 30, 10007)
    torch.testing.assert_close(torch.from_numpy(run("softplus", x, level).copy()), torch.nn.functional.softplus(x))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sixteen_bits_round_as_torch_does(level, dtype):
    rng = np.random.default_rng(1)
    bits = rng.integers(0, 2**32, 200_000, dtype=np.uint64).astype(np.uint32)
    ties = (rng.integers(0, 2**19, 100_000).astype(np.uint32) << 13) | (
        rng.integers(0, 3, 100_000).astype(np.uint32) << 11
    )
    x = np.concatenate([bits, ties, np.array([0, 2**31, 0x7F800000, 0xFF800000, 0x477FEFFF, 0x477FF000], np.uint32)])
    x = x.view(np.float32)
    x = x[~np.isnan(x)]
    narrow, wide = C._round_trip(dtype == torch.bfloat16, x.tobytes(), level)
    want = torch.from_numpy(x.copy()).to(dtype)
    assert np.array_equal(np.frombuffer(narrow, np.int16), want.view(torch.int16).numpy())
    assert np.array_equal(np.frombuffer(wide, np.float32), want.float().numpy())
    _, wide = C._round_trip(dtype == torch.bfloat16, np.full(17, np.nan, np.float32).tobytes(), level)
    assert np.isnan(np.frombuffer(wide, np.float32)).all()


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("n", [0, 1, 3, 7, 15, 16, 17, 31, 63, 64, 65])
def test_tails(level, n):
    x = np.linspace(-5, 5, n).astype(np.float32)
    got = run("exp", x, level)
    assert got.shape == (n,)
    np.testing.assert_allclose(got, np.exp(x), rtol=1e-6)


def test_unknown_names():
    with pytest.raises(ValueError, match="is not one of exp"):
        C._elementwise("tan", b"", LEVELS[0])
    with pytest.raises(ValueError, match="bench_exp: tan is not a known function"):
        C.bench_exp(1, 1, "tan")


def test_bench_exp_counts_something_plausible():
    assert 1e6 < C.bench_exp(1, 50) < 1e12
