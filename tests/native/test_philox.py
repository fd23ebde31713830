"""philox_normal of the extension: known answers, bits against the contract in words, addressing, statistics."""

import numpy as np
import pytest
import torch

from bdgf_fast import _native

C = _native.load()
LEVELS = list(C.cpu_isas())


@pytest.fixture(autouse=True)
def keep_level():
    level = C.cpu_isa()
    yield
    C.set_cpu_isa(level)


def fill(out, seed=1, stream=0, sample_ids=None, origin=None, extent=(0, 0), purpose=0, threads=1):
    out.view(torch.uint8 if out.numel() else out.dtype).fill_(255)  # NaN in every float format
    C.philox_normal(out, seed, stream, sample_ids, origin, *extent, purpose, threads)
    return out


def words(block, sample, stream, key):
    """Philox4x32-10 in numpy: four uint64 arrays that hold 32-bit words."""
    mask = np.uint64(0xFFFFFFFF)
    c = [block & mask, block >> np.uint64(32), sample + 0 * block, np.full_like(block, stream)]
    k0, k1 = key & 0xFFFFFFFF, key >> 32
    for _ in range(10):
        p0, p1 = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        c = [
            (p1 >> np.uint64(32)) ^ c[1] ^ np.uint64(k0),
            p1 & mask,
            (p0 >> np.uint64(32)) ^ c[3] ^ np.uint64(k1),
            p0 & mask,
        ]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c


def box_muller(w0, w1):
    """The contract of csrc/include/bdgf/philox.h, line by line."""
    f32 = np.float32

    def fma(a, b, c):  # exact product in float64, so one rounding but for rare double ones
        return (a.astype(np.float64) * np.asarray(b, np.float64) + np.asarray(c, np.float64)).astype(f32)

    u = (w0 >> np.uint64(1)).astype(f32) * f32(2**-31) + f32(2**-32)
    i = u.view(np.int32) - np.int32(0x3F3504F3)
    e = i >> 23
    f = (u.view(np.int32) - (e << 23)).view(f32) - f32(1)
    p = np.full_like(f, -0.17472130060195923)
    for a in (
        0.2861863374710083,
        -0.2983667850494385,
        0.3314060866832733,
        -0.3992404341697693,
        0.5000352263450623,
        -0.6666790246963501,
        0.9999998211860657,
    ):
        p = fma(p, f, f32(a))
    r = np.sqrt(fma(e.astype(f32), f32(-1.3862943649291992), fma(f * f, p, f * f32(-2))))
    x = w1.astype(np.uint32).view(np.int32).astype(f32) * f32(7.31459059988282e-10)
    z = x * x
    s = np.full_like(x, 2.605780537123792e-06)
    for a in (-0.00019809602235909551, 0.00833306647837162, -0.16666659712791443):
        s = fma(s, z, f32(a))
    s = fma(z * x, s, x)
    c = np.full_like(x, -2.607710598567792e-07)
    for a in (2.4761886379565112e-05, -0.00138884037733078, 0.04166664183139801, -0.5, 1.0):
        c = fma(c, z, f32(a))
    sign = (w0 << np.uint64(31)).astype(np.uint32)
    return ((r * c).view(np.uint32) ^ sign).view(f32), r * s


def oracle(elements, samples, stream, key):
    elements = np.asarray(elements, np.int64)
    w = words((elements >> 2).astype(np.uint64), np.asarray(samples, np.uint64), stream, key)
    four = [*box_muller(w[0], w[1]), *box_muller(w[2], w[3])]
    return np.choose(elements & 3, four)


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((2**32 - 1,) * 4, (2**32 - 1,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_known_answers_of_random123(counter, key, expected):
    assert C.philox_raw(counter, key) == expected


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("shape", [(1,), (3, 1), (2, 5), (4, 63), (3, 64), (2, 3, 7, 11), (2, 20011)])
def test_bits_are_the_contract(level, shape):
    C.set_cpu_isa(level)
    seed, stream = 0x0123456789ABCDEF, 0xFEDCBA98
    ids = torch.arange(shape[0]) * 7 + 2**32 + 5  # low 32 bits count
    got = fill(torch.empty(shape), seed, stream, ids).numpy().reshape(shape[0], -1)
    want = oracle(
        np.arange(got.shape[1])[None] + 0 * got.astype(np.int64), (ids.numpy() & 0xFFFFFFFF)[:, None], stream, seed
    )
    assert np.array_equal(got.view(np.int32), want.view(np.int32))


@pytest.mark.parametrize("level", LEVELS)
def test_levels_agree_bit_for_bit(level):
    outs = []
    for isa in ("scalar", level):
        C.set_cpu_isa(isa)
        outs.append(fill(torch.empty(3, 300007), seed=-5, stream=11))
    assert torch.equal(outs[0].view(torch.int32), outs[1].view(torch.int32))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_blocks_beyond_32_bits(level, dtype):
    """A tile far down a huge scene, whose rows step over block 2^32: the high word, and the carry into it."""
    C.set_cpu_isa(level)
    extent, y, x = (2**20, 2**20 - 8), 16383, 2**20 - 1000
    first = y * extent[1] + x
    while first + 700 < 2**34:  # move down until a row of 800 elements crosses element 2^34
        y += 1
        first = y * extent[1] + x
    x += 2**34 - 300 - first
    out = fill(torch.empty(1, 1, 2, 800, dtype=dtype), 9, 3, None, torch.tensor([[y, x]]), extent)
    elements = (np.int64(y) + np.arange(2)[:, None]) * extent[1] + x + np.arange(800)
    assert elements[0, 0] == 2**34 - 300
    assert torch.equal(out[0, 0], torch.from_numpy(oracle(elements, 0, 3, 9)).to(dtype))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sixteen_bit_output_is_the_rounded_float(level, dtype):
    C.set_cpu_isa(level)
    wide = fill(torch.empty(2, 3001))
    assert torch.equal(fill(torch.empty(2, 3001, dtype=dtype)), wide.to(dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_any_number_of_threads_gives_the_same_bits(dtype):
    outs = [fill(torch.empty(7, 40003, dtype=dtype), threads=n) for n in (1, 2, 3, 16)]
    assert all(torch.equal(outs[0], o) for o in outs)


def test_batch_position_does_not_matter():
    ids = torch.tensor([4, 0, 9])
    whole = fill(torch.empty(10, 33))
    assert torch.equal(fill(torch.empty(3, 33), sample_ids=ids), whole[ids])


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("size", [(1, 1), (5, 3), (11, 11), (9, 64), (2, 130)])
def test_tiles_see_the_noise_of_their_scene(level, size):
    C.set_cpu_isa(level)
    h, w = 40, 151
    scene = fill(torch.empty(1, 3, h, w), stream=2)
    ids = torch.zeros(4, dtype=torch.int64)
    origin = torch.tensor([[0, 0], [7, 5], [h - size[0], w - size[1]], [20, 18]])
    tiles = fill(torch.empty(4, 3, *size), stream=2, sample_ids=ids, origin=origin, extent=(h, w), threads=2)
    for tile, (y, x) in zip(tiles, origin.tolist(), strict=True):
        assert torch.equal(tile, scene[0, :, y : y + size[0], x : x + size[1]])


def test_seed_and_stream_from_tensors_and_modulo():
    plain = fill(torch.empty(2, 50), seed=-3, stream=7)
    assert torch.equal(plain, fill(torch.empty(2, 50), torch.tensor(-3), torch.tensor(7)))
    assert torch.equal(plain, fill(torch.empty(2, 50), 2**64 - 3, 2**32 + 7))
    assert torch.equal(plain, fill(torch.empty(2, 50), np.int64(-3), 7))


def test_seed_stream_sample_and_purpose_each_change_everything():
    base = fill(torch.empty(1, 4096))
    others = [fill(torch.empty(1, 4096), seed=2), fill(torch.empty(1, 4096), seed=1 + 2**32)]
    others += [fill(torch.empty(1, 4096), stream=1), fill(torch.empty(1, 4096), sample_ids=torch.tensor([1]))]
    others += [fill(torch.empty(1, 4096), purpose=p) for p in sorted(C.PURPOSES.values()) if p]
    assert len(C.PURPOSES) == 7 and C.PURPOSES["target_noise"] == 0
    for o in others:
        assert (o == base).float().mean() < 0.01
        assert abs(float((o * base).mean())) < 0.08  # five standard deviations


def test_statistics_of_a_million():
    scipy_stats = pytest.importorskip("scipy.stats")
    n = 1_000_000
    x = fill(torch.empty(1, n), seed=20240229).double().numpy()[0]
    assert abs(x.mean()) < 4 / n**0.5
    assert abs(x.var() - 1) < 4 * (2 / n) ** 0.5
    assert abs((x**3).mean()) < 4 * (15 / n) ** 0.5
    assert abs((x**4).mean() - 3) < 4 * (96 / n) ** 0.5
    assert scipy_stats.kstest(x, "norm").pvalue > 1e-3
    for i in range(4):  # each of a block's four normals, and its pairs
        assert scipy_stats.kstest(x[i::4], "norm").pvalue > 1e-3
        assert abs((x[0::4] * x[i::4]).mean() - (i == 0)) < 4 * (2 / (n / 4)) ** 0.5
    for bound in (2.0, 3.0, 4.0):
        for tail in ((x > bound).sum(), (x < -bound).sum()):
            expected = n * scipy_stats.norm.sf(bound)
            assert abs(tail - expected) < 4 * expected**0.5 + 1


def test_extremes_of_the_words_stay_finite():
    w = np.array([0, 1, 2, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1], np.uint64)
    a, b = box_muller(*(v.ravel() for v in np.meshgrid(w, w)))
    assert np.isfinite(a).all() and np.isfinite(b).all()
    assert max(abs(a).max(), abs(b).max()) == pytest.approx((64 * np.log(2)) ** 0.5, rel=1e-6)


@pytest.mark.parametrize("shape", [(0,), (0, 4), (3, 0), (2, 0, 5, 5)])
def test_empty(shape):
    assert fill(torch.empty(shape)).shape == shape


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (
            {"out": torch.empty(2, 3, dtype=torch.float64)},
            TypeError,
            "out has dtype float64; it takes float32, float16, bfloat16",
        ),
        ({"out": torch.empty(4, 6).t()}, ValueError, "out has strides .* must be contiguous"),
        ({"out": [1.0]}, TypeError, "out must be a torch.Tensor, got list"),
        ({"out": torch.tensor(1.0)}, ValueError, "the output has shape \\(\\); it takes 1 to 8 dimensions"),
        ({"out": torch.empty(2, 3, device="meta")}, ValueError, "out is on a device|out has no plain memory"),
        ({"seed": "x"}, TypeError, "seed must be an int or a 0-d int64 tensor, got str"),
        ({"seed": 1.5}, TypeError, "seed must be an int or a 0-d int64 tensor, got float"),
        ({"seed": torch.tensor([1])}, ValueError, "seed has shape \\(1,\\); expected \\(\\)"),
        ({"stream": torch.tensor(1, dtype=torch.int32)}, TypeError, "stream has dtype int32; it takes int64"),
        (
            {"sample_ids": torch.zeros(3, dtype=torch.int64)},
            ValueError,
            "sample_ids has shape \\(3,\\); expected \\(2,\\)",
        ),
        ({"sample_ids": torch.zeros(2)}, TypeError, "sample_ids has dtype float32"),
        ({"origin": torch.zeros(2, 2, dtype=torch.int64)}, ValueError, "the output \\(with origin\\) has shape"),
        (
            {"out": torch.empty(2, 1, 4, 4), "origin": torch.zeros(2, 2, dtype=torch.int64), "extent": (4, 3)},
            ValueError,
            "extent is \\(4, 3\\), smaller than a tile",
        ),
        (
            {"out": torch.empty(2, 1, 4, 4), "origin": torch.zeros(2, 2, dtype=torch.int64), "extent": (2**40, 8)},
            ValueError,
            "extent is too large",
        ),
        ({"purpose": 7}, ValueError, "purpose is not in the table"),
    ],
)
def test_bad_arguments_get_one_sentence(call, error, sentence):
    call = {
        "out": torch.empty(2, 3),
        "seed": 1,
        "stream": 0,
        "sample_ids": None,
        "origin": None,
        "extent": (0, 0),
        "purpose": 0,
    } | call
    extent = call.pop("extent")
    with pytest.raises(error, match=f"philox_normal: {sentence}"):
        C.philox_normal(**call, extent_h=extent[0], extent_w=extent[1], num_threads=1)
