"""The smooth functions against known values, the slow oracles, quadrature, properties, and what they refuse.

Where a tolerance comes from. x/width is rounded once, so a value is compared at widths that are powers of two, or is
allowed the change of an x off by an ulp. The tails of the kernels are promised to 4 ulp (measured: 3.4) of themselves,
and everything is the exact function plus such tails. Stairs: 4 ulp of 1 or of the value. Power mean: an ulp for each
unit of an exponent.
"""

import itertools
import math

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

import unitmass as um
from reference import smooth as ref

sm = um.smooth
DTYPES = [np.float32, np.float64]
KERNELS = ["logistic", "gaussian", "uniform"]
kernels = pytest.mark.parametrize("kernel", KERNELS)
dtypes = pytest.mark.parametrize("dtype", DTYPES)
TINY = {np.float32: 2.0**-149, np.float64: 2.0**-1074}

ELEMENTWISE = {
    "relu": sm.relu,
    "relu product": lambda x, **o: sm.relu(x, 0.7, form="product", **o),
    "leaky_relu": lambda x, **o: sm.leaky_relu(x, 0.1, 2.0, **o),
    "leaky_relu product": lambda x, **o: sm.leaky_relu(x, -0.3, form="product", **o),
    "step": sm.step,
    "sign": sm.sign,
    "floor narrow": lambda x, **o: sm.floor(x, 0.1, **o),
    "floor wide": lambda x, **o: sm.floor(x, 0.6, **o),
    "round narrow": lambda x, **o: sm.round(x, 0.1, **o),
    "round wide": lambda x, **o: sm.round(x, 0.6, **o),
    "smooth": lambda x, **o: sm.smooth(x, [-1, 0.5, 2], [0.5, -1, 0, 2], [1, 0, -2], 0.3, value=0.7, **o),
}
CURVES = [(name, kernel) for name in ELEMENTWISE for kernel in KERNELS]


def curve(name, x, kernel, **options):
    if name.startswith("smooth_abs"):
        return sm.smooth_abs(x, 1.5, form=kernel, **options)
    return ELEMENTWISE[name](x, kernel=kernel, **options)


CURVES += [("smooth_abs", "maximum"), ("smooth_abs", "root")]
curves = pytest.mark.parametrize(("name", "kernel"), CURVES, ids=[" ".join(c) for c in CURVES])


@pytest.fixture(autouse=True)
def digits():
    with mp.workdps(ref.DIGITS):
        yield


def points(dtype, low, high, n=60, seed=0):
    rng = np.random.default_rng(seed)
    near = 10 ** rng.uniform(-12, 0, n // 4)
    return np.concatenate([rng.uniform(low, high, n), rng.normal(0, 1, n), near, -near, [0, -0.0]]).astype(dtype)


def assert_ulps(got, expected, n, scale=None):
    """Within n ulp of `scale`, which is the expected value itself by default."""
    dtype = got.dtype.type
    for i, (g, e) in enumerate(zip(got.ravel().tolist(), expected, strict=True)):
        s = abs(e) if scale is None else scale[i]
        allowed = n * (s * float(np.finfo(dtype).eps) + TINY[dtype])
        assert abs(mp.mpf(g) - e) <= allowed, (
            f"[{i}]: {g!r}, not {mp.nstr(e, 18)}: {mp.nstr(abs(g - e) / allowed * n, 3)} ulp"
        )


def wide(x):
    return [mp.mpf(float(v)) for v in x]


# --- known values -----------------------------------------------------------------------------------------------------


def test_known_values():
    """To the digits printed, from 50-digit arithmetic on the formulas."""
    gaussian = sm.relu([-1.0, 0.0, 1.0, 2.0], kernel="gaussian")
    np.testing.assert_allclose(gaussian, [0.08331547, 0.39894228, 1.08331547, 2.0084907], rtol=0, atol=5e-9)
    for t in (0.5, 1.0, 4.0):
        for x in (-3.0, 0.0, 2.0):
            np.testing.assert_allclose(sm.relu(x, 1 / t), math.log1p(math.exp(t * x)) / t, rtol=4e-16)
    for k, value in [(1, 1.67019810), (5, 1.09481543), (20, 1.00634640)]:
        got = sm.smooth_max([1, 0.9, -2], k)
        np.testing.assert_allclose(got, value, rtol=0, atol=5e-9)
        assert 1 <= got <= 1 + math.log(3) / k
        np.testing.assert_allclose(sm.smooth_max([-1, -0.9, 2], -k), -value, rtol=0, atol=5e-9)


def test_known_values_of_the_named_activations():
    # SiLU(2) = 2/(1 + e^-2); GELU(1) = Φ(1); softplus(0) = log 2; the uniform ramp at 0 is w/4.
    np.testing.assert_allclose(sm.relu(2.0, form="product"), 2 / (1 + math.exp(-2)), rtol=3e-16)
    np.testing.assert_allclose(sm.relu(1.0, form="product", kernel="gaussian"), 0.8413447460685429, rtol=3e-16)
    np.testing.assert_allclose(sm.relu(0.0), math.log(2), rtol=3e-16)
    assert sm.relu(0.0, 2.0, kernel="uniform") == 0.5
    np.testing.assert_allclose(sm.smooth_abs(0.0, 2.0), math.log(2) / 2, rtol=3e-16)
    assert sm.smooth_abs(3.0, 0.25, form="root") == 5.0
    np.testing.assert_allclose(sm.sign(1.0, 0.5), math.tanh(1), rtol=3e-16)
    assert sm.floor([0.0, 1.0, -7.0], 0.1).tolist() == [-0.5, 0.5, -7.5]
    assert sm.round([0.0, 1.0, -7.0], 0.1).tolist() == [0, 1, -7]
    for p, value in [(-1, 12 / 7), (0, 2), (1, 7 / 3), (2, math.sqrt(7)), (math.inf, 4), (-math.inf, 1)]:
        np.testing.assert_allclose(sm.power_mean([1, 2, 4], p), value, rtol=4e-16)


# --- precision --------------------------------------------------------------------------------------------------------

TOP = {"logistic": (86, 700), "gaussian": (13, 37.5), "uniform": (1.2, 1.2)}


@dtypes
@kernels
def test_tails_keep_their_relative_precision(kernel, dtype):
    x = points(dtype, -TOP[kernel][dtype is np.float64], 3)
    xs = wide(x)
    ramps = [ref.ramp_mp(v, 1, kernel) for v in xs]
    steps = [ref.step_mp(v, 1, kernel) for v in xs]
    densities = [ref.density_mp(v, 1, kernel) for v in xs]
    products = [v * h for v, h in zip(xs, steps, strict=True)]
    gates = [h + v * d for h, v, d in zip(steps, xs, densities, strict=True)]
    terms = [h + abs(v) * d for h, v, d in zip(steps, xs, densities, strict=True)]
    with mp.workdps(3 * ref.DIGITS):
        signs = [2 * ref.step_mp(v, 1, kernel) - 1 for v in xs]
    for width in (1.0, 0.25, 8.0):  # by which the oracle's values scale exactly
        y = (x * dtype(width)).astype(dtype)
        value, slope = sm.relu(y, width, kernel=kernel, value_and_grad=True)
        assert_ulps(value, [width * r for r in ramps], 4)
        assert_ulps(slope, steps, 4)
        value, slope = sm.step(y, width, kernel=kernel, value_and_grad=True)
        assert_ulps(value, steps, 4)
        assert_ulps(slope, [d / width for d in densities], 4)
        value, slope = sm.sign(y, width, kernel=kernel, value_and_grad=True)
        assert_ulps(value, signs, 4)
        assert_ulps(slope, [2 * d / width for d in densities], 4)
        value, slope = sm.relu(y, width, kernel=kernel, form="product", value_and_grad=True)
        assert_ulps(value, [width * p for p in products], 4)
        assert_ulps(slope, gates, 4, terms)


@dtypes
@kernels
def test_leaky_relu_is_accurate_to_the_larger_of_leak_and_tail(kernel, dtype):
    x = points(dtype, -TOP[kernel][dtype is np.float64], 3)
    for slope in (0.125, -0.5, 1.0):
        for form in ("convolution", "product"):
            got, change = sm.leaky_relu(x, slope, kernel=kernel, form=form, value_and_grad=True)
            xs, s = wide(x), mp.mpf(slope)
            bend = 1 - s
            steps = [ref.step_mp(v, 1, kernel) for v in xs]
            ramps = [ref.ramp_mp(v, 1, kernel) for v in xs]
            if form == "product":
                ramps = [v * h for v, h in zip(xs, steps, strict=True)]
                steps = [h + v * ref.density_mp(v, 1, kernel) for h, v in zip(steps, xs, strict=True)]
            expected = [s * v + bend * r for v, r in zip(xs, ramps, strict=True)]
            larger = [abs(s * v) + abs(bend * r) for v, r in zip(xs, ramps, strict=True)]
            assert_ulps(got, expected, 5, larger)
            assert_ulps(change, [s + bend * h for h in steps], 5, [abs(s) + abs(bend) + abs(h) for h in steps])


@dtypes
def test_smooth_abs(dtype):
    x = points(dtype, -300, 300)
    for k in (1.0, 0.25, 16.0):
        got, slope = sm.smooth_abs(x, k, value_and_grad=True)
        assert_ulps(got, [abs(v) + mp.log1p(mp.exp(-2 * k * abs(v))) / k for v in wide(x)], 3)
        assert_ulps(slope, [mp.tanh(k * v) for v in wide(x)], 3)
        got, slope = sm.smooth_abs(x, k, form="root", value_and_grad=True)
        assert_ulps(got, [mp.hypot(v, 1 / mp.mpf(k)) for v in wide(x)], 3)
        assert_ulps(slope, [v / mp.hypot(v, 1 / mp.mpf(k)) for v in wide(x)], 3)


WIDTHS = [1e-6, 0.01, 0.06, 0.1249, 0.125, 0.2, 0.2499, 0.25, 0.4999, 0.5, 0.77, 1.3]


@dtypes
@kernels
@pytest.mark.parametrize("width", WIDTHS)
def test_stairs(kernel, dtype, width):
    """Both ways of adding up, at their border and far from it."""
    width = float(dtype(width))
    rng = np.random.default_rng(1)
    x = np.concatenate([rng.uniform(-3, 3, 14), [900.3, 0, 0.5, -0.5, 1, 1e-9]]).astype(dtype)
    for f, shift in ((sm.floor, 0), (sm.round, mp.mpf(1) / 2)):
        value, slope = f(x, width, kernel=kernel, value_and_grad=True)
        expected = [ref.stairs_mp(v, mp.mpf(width), kernel, shift) for v in wide(x)]
        # Where a step is narrow, an x off by an ulp is seen: x/width is rounded.
        off = [4 * max(1, abs(v)) + abs(d) * min(mp.mpf(1), width) for v, d in expected]
        assert_ulps(value, [v for v, _ in expected], 1, off)
        if kernel == "uniform":  # at its ends, a step has two derivatives
            pairs = [
                (s, d) for s, (v, d), x in zip(slope, expected, wide(x), strict=True) if not _at_an_end(x, width, shift)
            ]
            slope, expected = np.array([s for s, _ in pairs], dtype), [(0, d) for _, d in pairs]
        steep = [8 * max(1, abs(d)) * (1 + min(30, 1 / width)) for _, d in expected]
        assert_ulps(slope, [d for _, d in expected], 1, steep)


def _at_an_end(x, width, shift):
    return any(abs(t - mp.nint(t)) < 1e-6 for t in (x + shift - width, x + shift + width))


@kernels
def test_round_is_floor_moved_by_a_half(kernel):
    x = np.random.default_rng(2).integers(-4000, 4000, 500) / 512.0
    for width in (0.03, 0.2, 0.6, 2.0):
        np.testing.assert_allclose(
            sm.round(x, width, kernel=kernel), sm.floor(x + 0.5, width, kernel=kernel), atol=3e-15
        )


HAT = ([-1.0, 0.0, 2.0], [0.0, 2.0, -1.0, 0.0], [0.0, 0.0, 0.0], 0.0)
ZIGZAG = ([-1.5, -1.0, 0.5, 2.0], [0.5, -1.0, 0.0, 3.0, 0.0], [1.0, 0.0, -2.0, 0.25], 0.7)


@dtypes
@kernels
@pytest.mark.parametrize("pieces", [HAT, ZIGZAG, ([0.0], [0.0, 1.0], [0.0], 0.0)], ids=["hat", "zigzag", "relu"])
def test_pieces(kernel, dtype, pieces):
    breaks, slopes, jumps, value = pieces
    x = points(dtype, -5, 5, 30)
    for width in (0.0625, 2.0):
        got, grad = sm.smooth(x, breaks, slopes, jumps, width, value=value, kernel=kernel, value_and_grad=True)
        expected = [ref.pieces_mp(v, *pieces, mp.mpf(width), kernel) for v in wide(x)]
        assert_ulps(got, [f for f, _ in expected], 16, [1 + abs(v) for v in wide(x)])
        keep = np.ones(len(x), bool)
        if kernel == "uniform":
            keep = np.abs(np.abs(x[:, None] - np.array(breaks)) - width).min(1) > 1e-5
        assert_ulps(
            grad[keep],
            [d for (_, d), k in zip(expected, keep, strict=True) if k],
            16 * (2 + 2 / width),
            [1] * keep.sum(),
        )


def test_pieces_leave_level_ground_with_all_their_digits():
    x = np.array([-60.0, -30.0, 40.0, 100.0])
    got = sm.smooth(x, *HAT[:2])
    with mp.workdps(120):
        expected = [ref.pieces_mp(v, *HAT, 1, "logistic")[0] for v in wide(x)]
    assert_ulps(got, expected, 16)


@kernels
def test_pieces_are_the_named_functions(kernel):
    x = points(np.float64, -20, 20)
    for value_and_grad in (False, True):
        options = {"kernel": kernel, "value_and_grad": value_and_grad}
        for got, expected in [
            (sm.smooth(x, [0], [0, 1], **options), sm.relu(x, **options)),
            (sm.smooth(x, [0], [0, 0], [1], **options), sm.step(x, **options)),
        ]:
            np.testing.assert_allclose(got, expected, rtol=1e-15)
        got, expected = sm.smooth(x, [0], [0, 0], [2], value=-1, **options), sm.sign(x, **options)
        np.testing.assert_allclose(got, expected, rtol=1e-15, atol=1e-15)
        got, expected = sm.smooth(x, [0], [0.25, 1], **options), sm.leaky_relu(x, 0.25, **options)
        np.testing.assert_allclose(got, expected, rtol=1e-14, atol=1e-15)


@kernels
@pytest.mark.parametrize("pieces", [HAT, ZIGZAG], ids=["hat", "zigzag"])
def test_the_convolution_by_quadrature(kernel, pieces):
    """The oracle's closed forms, and the kernels, against the definition."""
    with mp.workdps(20):
        for width in (0.25, 1.5):
            for x in (-2.0, 0.4, 1.7):
                by_definition = ref.convolved(x, *pieces, mp.mpf(width), kernel)
                closed = ref.pieces_mp(x, *pieces, mp.mpf(width), kernel)[0]
                assert abs(by_definition - closed) < 1e-12
                breaks, slopes, jumps, value = pieces
                got = sm.smooth(x, breaks, slopes, jumps, width, value=value, kernel=kernel)
                np.testing.assert_allclose(got, float(by_definition), rtol=0, atol=1e-12)


# --- derivatives ------------------------------------------------------------------------------------------------------


@curves
def test_derivatives_by_finite_differences(name, kernel):
    x = np.random.default_rng(3).uniform(-4, 4, 200)
    h = 1e-5
    value, slope = curve(name, x, kernel, value_and_grad=True)
    np.testing.assert_array_equal(value, curve(name, x, kernel))
    difference = (curve(name, x + h, kernel) - curve(name, x - h, kernel)) / (2 * h)
    # h² f'''/6 with f''' up to 1/w³ of a jump of 2, and rounding eps/h; a uniform kernel has bends: few points are
    # near.
    close = np.abs(slope - difference) <= 1e-6
    assert close.all() if kernel != "uniform" else np.count_nonzero(~close) <= 3


@pytest.mark.parametrize("k", [1.0, 7.0, -3.0])
def test_gradient_of_smooth_max_by_finite_differences(k):
    x = np.random.default_rng(4).normal(0, 1, (6, 9))
    assert_gradient(lambda x, **o: sm.smooth_max(x, k, **o), x)


@pytest.mark.parametrize("p", [-30, -2, -1, -1e-9, 0, 1e-9, 0.3, 1, 1.5, 2, 30])
def test_gradient_of_power_mean_by_finite_differences(p):
    x = np.random.default_rng(5).uniform(0.5, 2, (6, 9))
    assert_gradient(lambda x, **o: sm.power_mean(x, p, **o), x)


def assert_gradient(f, x, h=1e-6):
    value, gradient = f(x, value_and_grad=True)
    np.testing.assert_array_equal(value, f(x))
    for i in range(x.shape[1]):
        step = np.zeros_like(x)
        step[:, i] = h
        np.testing.assert_allclose(gradient[:, i], (f(x + step) - f(x - step)) / (2 * h), rtol=0, atol=2e-8)


# --- means against the oracle -----------------------------------------------------------------------------------------


@dtypes
@pytest.mark.parametrize("k", [1.0, 0.125, 16.0, -2.0])
def test_smooth_max(dtype, k):
    rng = np.random.default_rng(6)
    for n in (1, 2, 7, 50):
        x = rng.normal(0, 3, n).astype(dtype)
        value, gradient = sm.smooth_max(x, k, value_and_grad=True)
        expected, softmax = ref.smooth_max_mp(x, k)
        # The maximum and what is above it are rounded apart.
        above = abs(expected) + abs(expected - (mp.mpf(float(x.max())) if k > 0 else mp.mpf(float(x.min()))))
        assert_ulps(np.array(value), [expected], 2, [above])
        assert_ulps(gradient, softmax, 1, [p * (4 - mp.log(p)) for p in softmax])


def test_smooth_max_above_a_lone_maximum_keeps_its_digits():
    np.testing.assert_allclose(sm.smooth_max([0.0, -40.0]), math.exp(-40), rtol=4e-16)
    np.testing.assert_allclose(sm.smooth_max([0.0, 40.0], -1.0), -math.exp(-40), rtol=4e-16)


@dtypes
@pytest.mark.parametrize(
    "p", [-math.inf, -1e4, -3, -1, -0.5, -1e-6, -1e-12, 0, 1e-300, 1e-12, 1e-3, 0.5, 1, 2, 3.5, 40, 1e4, math.inf]
)
def test_power_mean(dtype, p):
    p = float(dtype(p))
    rng = np.random.default_rng(7)
    for n in (1, 2, 7, 16, 50):
        for spread in (0.1, 5):
            x = np.exp(rng.normal(0, spread, n)).astype(dtype)
            value, gradient = sm.power_mean(x, p, value_and_grad=True)
            with mp.workdps(60 if abs(p) < 1e-2 else ref.DIGITS):
                expected, slopes = ref.power_mean_mp(x, p if abs(p) > 1e-100 else 0)
            logs = [abs(mp.log(v / expected)) for v in wide(x)]
            assert_ulps(np.array(value), [expected], 6 + 2 * max(logs) * (p == 0 or abs(p) < 1))
            if not math.isinf(p):
                exponent = abs(p - 1)
                scale = [
                    s * (8 + exponent * (4 + 2 * log + 2 * max(logs))) for s, log in zip(slopes, logs, strict=True)
                ]
                assert_ulps(gradient, slopes, 1, scale)
            else:
                assert_ulps(gradient, slopes, 1)


@dtypes
def test_power_mean_neither_overflows_nor_underflows(dtype):
    info = np.finfo(dtype)
    for scale in (float(info.max) / 4, float(info.tiny) * 4):
        x = np.array([1.0, 2.0, 4.0], dtype) * dtype(scale)
        for p in (-50.0, -1.0, 0.0, 1.0, 2.0, 50.0):
            with np.errstate(all="ignore"):
                expected = sm.power_mean(np.array([1.0, 2.0, 4.0], dtype), p) * dtype(scale)
            np.testing.assert_allclose(sm.power_mean(x, p), expected, rtol=8 * float(info.eps))
    x = np.array([info.tiny, info.max], dtype)
    np.testing.assert_allclose(
        sm.power_mean(x, 0.0), math.sqrt(float(info.tiny)) * math.sqrt(float(info.max)), rtol=1e-4
    )
    small = sm.power_mean(x, 1e-6)
    np.testing.assert_allclose(small, sm.power_mean(x.astype(np.float64), 1e-6), rtol=1e-3)


def test_long_rows():
    """Rows that are cut into chunks, against the same numbers in short rows of the oracle NumPy is."""
    rng = np.random.default_rng(8)
    x = rng.uniform(0.5, 2, (2, 300_001))
    x[1, -1] = 40.0
    for workers in (1, 2, 3):
        value, gradient = sm.smooth_max(x, 3.0, value_and_grad=True, workers=workers)
        m = x.max(1, keepdims=True)
        e = np.exp(3 * (x - m))
        np.testing.assert_allclose(value, m[:, 0] + np.log(e.sum(1)) / 3, rtol=1e-14)
        np.testing.assert_allclose(gradient, e / e.sum(1, keepdims=True), rtol=1e-13)
        for p in (-1.0, 0.0, 2.0):
            value, gradient = sm.power_mean(x, p, value_and_grad=True, workers=workers)
            exact = np.exp(np.log(x).mean(1)) if p == 0 else (x**p).mean(1) ** (1 / p)
            np.testing.assert_allclose(value, exact, rtol=1e-13)
            np.testing.assert_allclose(gradient, (x / exact[:, None]) ** (p - 1) / x.shape[1], rtol=1e-13)
    same = [sm.smooth_max(x.astype(np.float32), 3.0, workers=w) for w in (1, 2, 5)]
    assert all((a == same[0]).all() for a in same)


# --- properties -------------------------------------------------------------------------------------------------------

finite = st.floats(-60, 60)
widths = st.sampled_from([0.01, 0.125, 0.3, 1.0, 4.0])
some_kernel = st.sampled_from(KERNELS)


@given(some_kernel, widths, st.lists(finite, min_size=2, max_size=40))
def test_monotone(kernel, width, xs):
    x = np.sort(np.array(xs))
    for f in (sm.relu, sm.step, sm.sign, sm.floor, sm.round):
        y = f(x, width, kernel=kernel)
        slack = 8 * np.finfo(float).eps * (1 + np.abs(y[1:]))
        assert (np.diff(y) >= -slack).all()
        _, slope = f(x, width, kernel=kernel, value_and_grad=True)
        assert (slope >= -1e-14).all()


@given(some_kernel, widths, st.lists(st.floats(allow_nan=False), min_size=1, max_size=40), st.sampled_from(DTYPES))
def test_odd_and_even(kernel, width, xs, dtype):
    with np.errstate(over="ignore"):
        x = np.array(xs).astype(dtype)
    for f in (sm.sign, sm.round):
        np.testing.assert_array_equal(f(-x, width, kernel=kernel), -f(x, width, kernel=kernel))
    for form in ("maximum", "root"):
        np.testing.assert_array_equal(sm.smooth_abs(-x, 1 / width, form=form), sm.smooth_abs(x, 1 / width, form=form))
    _, slope = sm.sign(x, width, kernel=kernel, value_and_grad=True)
    _, other = sm.sign(-x, width, kernel=kernel, value_and_grad=True)
    np.testing.assert_array_equal(slope, other)


@given(some_kernel, st.floats(-50, 50), st.sampled_from([1e-300, 1e-30, 1e-6]))
def test_a_small_width_gives_the_exact_function(kernel, x, width):
    far = abs(x) > 50 * width
    if not far:
        return
    assert sm.relu(x, width, kernel=kernel) == max(x, 0)
    assert sm.relu(x, width, kernel=kernel, form="product") == max(x, 0)
    assert sm.leaky_relu(x, 0.25, width, kernel=kernel) == (x if x > 0 else 0.25 * x)
    assert sm.step(x, width, kernel=kernel) == float(x > 0)
    assert sm.sign(x, width, kernel=kernel) == math.copysign(1, x)
    assert sm.smooth_abs(x, 1 / width) == abs(x)
    tail = 2 * math.exp(-50)  # what a corner so far away may add, which shows beside 0
    if abs(x - np.rint(x)) > 50 * width:
        assert abs(sm.floor(x, width, kernel=kernel) - math.floor(x)) <= tail
    if abs(x - 0.5 - np.rint(x - 0.5)) > 50 * width + 1e-15:
        assert abs(sm.round(x, width, kernel=kernel) - np.rint(x)) <= tail


@given(some_kernel, st.floats(-1e6, 1e6), st.floats(8, 1e300))
def test_a_large_width_leaves_the_line_of_stairs(kernel, x, width):
    slack = 0.26 / width if kernel == "uniform" else 0  # the waves of its series fall as 1/w
    assert abs(sm.round(x, width, kernel=kernel) - x) <= slack + 3e-16 * abs(x)
    assert abs(sm.floor(x, width, kernel=kernel) - (x - 0.5)) <= slack + 3e-16 * (1 + abs(x))


@given(arrays(np.float64, array_shapes(max_dims=1, max_side=30), elements=st.floats(-1e3, 1e3)), st.floats(0.01, 100))
def test_smooth_max_is_bounded(x, k):
    value, gradient = sm.smooth_max(x, k, value_and_grad=True)
    slack = 4e-16 * (abs(x.max()) + math.log(len(x)) / k)
    assert x.max() <= value <= x.max() + math.log(len(x)) / k + slack
    assert abs(gradient.sum() - 1) < 1e-15 * 4
    assert -sm.smooth_max(-x, k) == sm.smooth_max(x, -k)


@given(arrays(np.float64, array_shapes(max_dims=1, max_side=30), elements=st.floats(1e-3, 1e3)))
def test_power_means_grow_with_the_power(x):
    means = [sm.power_mean(x, p) for p in (-math.inf, -50, -1, -1e-9, 0, 1e-9, 0.5, 1, 3, 50, math.inf)]
    assert all(b >= a * (1 - 1e-13) for a, b in itertools.pairwise(means))
    assert means[0] == x.min()
    assert means[-1] == x.max()


# --- special values ---------------------------------------------------------------------------------------------------

INF, NAN = np.inf, np.nan


@dtypes
@kernels
def test_infinities_give_the_limits(kernel, dtype):
    x = np.array([-INF, INF, NAN], dtype)
    big = np.finfo(dtype).max

    def both(f, *arguments, **options):
        value, slope = f(x, *arguments, kernel=kernel, value_and_grad=True, **options)
        np.testing.assert_array_equal(f(x, *arguments, kernel=kernel, **options), value)
        return value.tolist(), slope.tolist()

    for form in ("convolution", "product"):
        np.testing.assert_equal(both(sm.relu, form=form), ([0, INF, NAN], [0, 1, NAN]))
        np.testing.assert_equal(both(sm.leaky_relu, 0.5, form=form), ([-INF, INF, NAN], [0.5, 1, NAN]))
        np.testing.assert_equal(both(sm.leaky_relu, -2.0, form=form), ([INF, INF, NAN], [-2, 1, NAN]))
        assert sm.relu(np.array([-big, big]), kernel=kernel, form=form).tolist() == [0, big]
    np.testing.assert_equal(both(sm.step), ([0, 1, NAN], [0, 0, NAN]))
    np.testing.assert_equal(both(sm.sign), ([-1, 1, NAN], [0, 0, NAN]))
    for width in (0.1, 3.0):
        for f in (sm.floor, sm.round):
            np.testing.assert_equal(both(f, width), ([-INF, INF, NAN], [NAN, NAN, NAN]))
            assert f(np.array([-big, big]), width, kernel=kernel).tolist() == [-big, big]
    np.testing.assert_equal(both(sm.smooth, [0, 1], [0, 2, 0]), ([0, 2, NAN], [0, 0, NAN]))
    np.testing.assert_equal(both(sm.smooth, [0, 1], [1, 2, -1]), ([-INF, -INF, NAN], [1, -1, NAN]))
    for form in ("maximum", "root"):
        value, slope = sm.smooth_abs(x, form=form, value_and_grad=True)
        np.testing.assert_equal((value.tolist(), slope.tolist()), ([INF, INF, NAN], [-1, 1, NAN]))


@dtypes
def test_special_rows_of_smooth_max(dtype):
    x = np.array([[1, NAN, 0], [1, INF, 0], [INF, INF, 0], [-INF, 0, 1], [-INF] * 3, [1, -INF, INF]], dtype)
    third = 1 / (1 + math.e)
    for sign in (1, -1):
        value, gradient = sm.smooth_max(sign * x, sign, value_and_grad=True)
        value = sign * value
        np.testing.assert_allclose(value, [NAN, INF, INF, 1 + math.log1p(math.exp(-1)), -INF, INF], rtol=1e-6)
        rows = [[NAN] * 3, [0, 1, 0], [0.5, 0.5, 0], [0, third, 1 - third], [NAN] * 3, [0, 0, 1]]
        np.testing.assert_allclose(gradient, rows, rtol=1e-6)


@dtypes
def test_special_rows_of_power_mean(dtype):
    def both(row, p, **options):
        value, gradient = sm.power_mean(np.array(row, dtype), p, value_and_grad=True, **options)
        return [value.item(), *gradient.tolist()]

    for p in (-INF, -2, 0, 0.5, 1, 3, INF):
        for wrong in (NAN, -1e-30):
            np.testing.assert_equal(both([1, wrong], p), [NAN, NAN, NAN])
        np.testing.assert_equal(both([-INF, -INF], p), [NAN, NAN, NAN])
        np.testing.assert_equal(both([0, 0], p), [0, 0.5, 0.5])
        np.testing.assert_equal(both([INF, INF], p), [INF, 0.5, 0.5])
        np.testing.assert_allclose(both([2, -INF, 2], p), [2, 0.5, 0, 0.5], rtol=1e-6)
        np.testing.assert_equal(both([4], p), [4, 1])
    np.testing.assert_allclose(both([0, 4], 2), [math.sqrt(8), 0, math.sqrt(0.5)], rtol=1e-6)
    np.testing.assert_allclose(both([0, 4], 0.5), [1, INF, 0.25], rtol=1e-6)
    assert both([0, 4], 1) == [2, 0.5, 0.5]
    assert both([0, 4], 0) == [0, INF, 0]
    np.testing.assert_allclose(both([0, 4], -1), [0, 2, 0], rtol=1e-6)  # of small ε and 4, M is about 2 ε
    assert both([0, 4], -INF) == [0, 1, 0]
    assert both([3, INF], 2) == [INF, 0, pytest.approx(math.sqrt(0.5))]
    assert both([3, INF], 0) == [INF, INF, 0]
    assert both([3, INF], -1) == [6, pytest.approx(2), 0]
    np.testing.assert_equal(both([0, INF], 0), [NAN, NAN, NAN])


def test_masks():
    rng = np.random.default_rng(9)
    x = rng.uniform(0.5, 2, (7, 11, 5))
    mask = rng.random(x.shape) < 0.6
    mask[2, :, 3] = False
    for f, nothing in (
        (lambda x, **o: sm.smooth_max(x, 2.0, **o), -INF),
        (lambda x, **o: sm.smooth_max(x, -2.0, **o), INF),
        (lambda x, **o: sm.power_mean(x, 1.5, **o), NAN),
        (lambda x, **o: sm.power_mean(x, -1.5, **o), NAN),
    ):
        value, gradient = f(x, axis=1, where=mask, value_and_grad=True)
        for i, j in np.ndindex(7, 5):
            some = mask[i, :, j]
            assert (gradient[i, ~some, j] == 0).all()
            if some.any():
                v, g = f(x[i, some, j], value_and_grad=True)
                np.testing.assert_allclose(value[i, j], v, rtol=1e-15, atol=4e-16)
                np.testing.assert_allclose(gradient[i, some, j], g, rtol=2e-15)
            else:
                np.testing.assert_equal(value[i, j], nothing)
        x[0, 0, 0], mask[0, 0, 0] = NAN, False
        assert np.isnan(f(x, axis=1, where=mask)[0, 0])
        x[0, 0, 0] = 1


# --- arrays -----------------------------------------------------------------------------------------------------------


def same(a, b):
    np.testing.assert_array_equal(np.asarray(a), np.asarray(b), strict=True)


LAYOUTS = [
    np.asfortranarray,
    lambda a: np.repeat(np.repeat(a, 2, 0), 3, 1)[::2, ::3],
    lambda a: np.array(a[::-1, ::-1])[::-1, ::-1],
    lambda a: a.astype(a.dtype.newbyteorder()),
]


@curves
def test_dtypes_layouts_and_workers(name, kernel):
    x = np.random.default_rng(10).normal(0, 2, (150, 333))
    x[0, :3] = NAN, INF, -INF
    for dtype in ("f2", "f4", "f8"):
        a = x.astype(dtype)
        value, slope = curve(name, a, kernel, value_and_grad=True, workers=1)
        assert value.dtype == slope.dtype == a.dtype
        same(curve(name, a, kernel), value)
        if dtype == "f2":
            with np.errstate(over="ignore"):
                same(curve(name, a.astype("f4"), kernel).astype("f2"), value)
        for workers in (2, -1):
            for got, expected in zip(
                curve(name, a, kernel, value_and_grad=True, workers=workers), (value, slope), strict=True
            ):
                same(got, expected)
        for layout in LAYOUTS:
            same(curve(name, layout(a), kernel), value)
        # Each value alone, as one of a stripe that is padded.
        for i in (0, 1, 2, 17):
            same(curve(name, a[0, i : i + 1], kernel), value[0, i : i + 1])
            scalar = curve(name, a[0, i], kernel)
            assert type(scalar) is a.dtype.type
            same(scalar, value[0, i])
    for dtype in ("i4", "?"):
        a = (x[1:, :5] > 0).astype(dtype)
        same(curve(name, a, kernel), curve(name, a.astype("f8"), kernel))
    same(curve(name, x.tolist(), kernel), curve(name, x, kernel))
    for shape in [(0,), (3, 0), (), (1, 1, 1), (2, 3, 4)]:
        value, slope = curve(name, np.zeros(shape), kernel, value_and_grad=True)
        assert value.shape == slope.shape == shape


@curves
def test_out(name, kernel):
    x = np.random.default_rng(11).normal(0, 2, (40, 1000))
    for dtype in ("f2", "f4", "f8"):
        a = x.astype(dtype)
        value, slope = curve(name, a, kernel, value_and_grad=True)
        for out in (np.empty_like(a), np.empty_like(a, order="F"), np.empty((80, 1000), dtype)[::2]):
            assert curve(name, a, kernel, out=out) is out
            same(out, value)
        outs = (np.empty_like(a), np.empty_like(a))
        got = curve(name, a, kernel, value_and_grad=True, out=outs)
        assert got[0] is outs[0]
        assert got[1] is outs[1]
        same(outs[0], value)
        same(outs[1], slope)
        own = a.copy()
        assert curve(name, own, kernel, out=own, workers=2) is own
        same(own, value)
        own = a.copy()
        curve(name, own, kernel, value_and_grad=True, out=(outs[0], own))  # slopes over the values
        same(own, slope)
        same(outs[0], value)
        own = np.concatenate([a.ravel(), a[0]])
        n = a.size
        curve(name, own[:n], kernel, out=own[7 : n + 7])  # overlapping
        same(own[7 : n + 7], value.ravel())
    zero = np.empty(())
    assert curve(name, 0.5, kernel, out=zero) is zero


def test_out_of_means():
    x = np.random.default_rng(12).uniform(0.5, 2, (6, 50, 7))
    for f in (sm.smooth_max, sm.power_mean):
        for dtype in ("f2", "f4", "f8"):
            a = x.astype(dtype)
            value, gradient = f(a, 2.0, axis=1, value_and_grad=True)
            assert value.shape == (6, 7)
            assert gradient.shape == a.shape
            assert value.dtype == gradient.dtype == a.dtype
            for order in "CF":
                outs = (np.empty((6, 7), dtype, order), np.empty_like(a, order=order))
                got = f(a, 2.0, axis=1, value_and_grad=True, out=outs)
                assert got[0] is outs[0]
                assert got[1] is outs[1]
                same(outs[0], value)
                same(outs[1], gradient)
                same(f(np.asfortranarray(a), 2.0, axis=1, out=outs[0]), value)
            own = a.copy()
            f(own, 2.0, axis=1, value_and_grad=True, out=(outs[0], own))
            same(own, gradient)
            for i, j in np.ndindex(6, 7):
                same(f(a[i, :, j], 2.0), value[i, j])
        assert f(np.ones((0, 4))).shape == (0,)
        assert isinstance(f([1.0, 2.0]), np.float64)


# --- what they refuse -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: sm.relu(1.0, 0.0), ValueError, r"^width: must be finite and positive, found 0\.0$"),
        (lambda: sm.step(1.0, -1), ValueError, r"^width: .*-1\.0"),
        (lambda: sm.floor([], INF), ValueError, r"^width: .*inf"),
        (lambda: sm.sign(1.0, NAN), ValueError, r"^width: .*nan"),
        (lambda: sm.round(1.0, "wide"), TypeError, r"^width: .*'wide'"),
        (
            lambda: sm.relu(1.0, kernel="box"),
            ValueError,
            r"^kernel: expected 'logistic', 'gaussian' or 'uniform', found 'box'$",
        ),
        (lambda: sm.relu(1.0, form="sum"), ValueError, r"^form: .*'sum'"),
        (lambda: sm.leaky_relu(1.0, INF), ValueError, r"^slope: must be finite in the type of the values, found inf$"),
        (lambda: sm.smooth_abs(1.0, 0), ValueError, r"^k: must be finite and positive, found 0\.0$"),
        (lambda: sm.smooth_abs(1.0, form="product"), ValueError, r"^form: expected 'maximum' or 'root'"),
        (lambda: sm.smooth(1.0, [], [1]), ValueError, r"^breaks: "),
        (lambda: sm.smooth(1.0, [0], [1]), ValueError, r"^slopes: expected 2 values, found 1$"),
        (lambda: sm.smooth(1.0, [0], [1, 2], [1, 2]), ValueError, r"^jumps: expected 1 values, found 2$"),
        (lambda: sm.smooth(1.0, [0, 0], [1, 2, 3]), ValueError, r"^breaks: must be increasing, found 0\.0$"),
        (
            lambda: sm.smooth(1.0, [0, INF], [1, 2, 3]),
            ValueError,
            r"^breaks: must be finite in the type of the values, found inf$",
        ),
        (
            lambda: sm.smooth(1.0, [0], [1, NAN]),
            ValueError,
            r"^slopes: must be finite in the type of the values, found nan$",
        ),
        (
            lambda: sm.smooth(1.0, [0], [1, 1], [INF]),
            ValueError,
            r"^jumps: must be finite in the type of the values, found inf$",
        ),
        (
            lambda: sm.smooth(1.0, [0], [1, 1], value=INF),
            ValueError,
            r"^value: must be finite in the type of the values, found inf$",
        ),
        (lambda: sm.smooth(1.0, [[0]], [1, 1]), ValueError, r"^breaks: expected one dimension, found shape \(1, 1\)$"),
        (lambda: sm.smooth(1.0, ["a"], [1, 1]), TypeError, r"^breaks: "),
        (lambda: sm.smooth_max([1.0], 0.0), ValueError, r"^k: must be finite and not 0, found 0\.0$"),
        (lambda: sm.smooth_max([1.0], INF), ValueError, r"^k: .*inf"),
        (lambda: sm.power_mean([1.0], NAN), ValueError, r"^p: must be a number, found nan$"),
        (lambda: sm.smooth_max(1.0), ValueError, r"^x: .*scalar"),
        (lambda: sm.power_mean(np.ones((3, 0))), ValueError, r"^x: the axis is empty"),
        (lambda: sm.relu(1j), TypeError, r"^x: .*complex"),
        (lambda: sm.relu(np.ma.ones(3)), TypeError, r"^x: a masked array would lose its mask: pass x.data$"),
        (lambda: sm.relu(np.ones(3), out=np.ones(4)), ValueError, r"^out: expected shape \(3,\), found \(4,\)$"),
        (lambda: sm.relu(np.ones(3), out=np.ones(3, int)), TypeError, r"^out: cannot hold"),
        (lambda: sm.relu(np.ones(3), value_and_grad=True, out=np.ones(3)), TypeError, r"^out: expected a tuple of two"),
        (lambda: sm.relu(np.ones(3), value_and_grad=True, out=(a := np.ones(3), a)), ValueError, r"^out: .*overlap"),
        (lambda: sm.relu(np.ones(3), workers=0), ValueError, r"^workers: "),
    ],
)
def test_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
