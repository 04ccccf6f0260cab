"""The maps against known values, properties, slow oracles, and what they refuse (layouts and dtypes: test_contract).

Where a tolerance comes from. A kernel may round y = x - max, (alpha-1) y and the threshold once each: it then returns
the exact map of scores perturbed by a few eps |y|. `assert_accurate` allows that perturbation, carried through the map,
plus a relative error for the power and for the division by the sum. It knows nothing of the kernel's ways. Where
alpha < 1.05 the rounding of 1 + (alpha-1) y is not forgiven: magnified by 1/(alpha-1), it would be the whole answer.
"""

import math
import time

import mpmath as mp
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

import unitmass as um
from reference import maps as ref
from unitmass import _core

DTYPES = [np.float32, np.float64]
ALPHAS = [1, 1 + 1e-9, 1.0001, 1.05, 1.25, 4 / 3, 1.3, 1.5, 1.7, 1.9, 2, 2.0001, 2.5, 3, 10, 20]
ROUNDINGS = 4  # of y, of (alpha-1) y, of the threshold and of their difference: eps/2 each, and a factor 2


def eps(dtype):
    return np.finfo(dtype).eps


# --- strategies -------------------------------------------------------------------------------------------------------


def scores(dtype, max_dims=2, max_side=70):
    """Every finite float, tame floats, or many ties."""
    shape = array_shapes(max_dims=max_dims, min_side=1, max_side=max_side)
    width = np.dtype(dtype).itemsize * 8
    return st.one_of(
        arrays(dtype, shape, elements=st.floats(width=width, allow_nan=False, allow_infinity=False)),
        arrays(dtype, shape, elements=st.floats(-8, 8, width=width)),
        arrays(dtype, shape, elements=st.integers(-3, 3).map(float)),
    )


any_scores = st.sampled_from(DTYPES).flatmap(scores)
any_row = st.sampled_from(DTYPES).flatmap(lambda dtype: scores(dtype, max_dims=1))
alphas = st.one_of(st.sampled_from(ALPHAS), st.floats(1, 30))


def softmax(x, alpha=1):
    return um.softmax(x)


def sparsemax(x, alpha=2):
    return um.sparsemax(x)


def entmax15(x, alpha=1.5):
    return um.entmax(x)


def entmax(x, alpha):
    return um.entmax(x, alpha)


maps = pytest.mark.parametrize("f", [softmax, sparsemax, entmax15, entmax])


# --- how close is close -----------------------------------------------------------------------------------------------


def assert_sums(p, total=1.0):
    """Each row sums to its total within 4 eps: the promise, with the sum itself exactly rounded."""
    p = np.asarray(p)
    for row, t in zip(p.reshape(-1, p.shape[-1]), np.broadcast_to(total, p.shape[:-1]).ravel(), strict=True):
        assert (row >= 0).all()
        error = abs(math.fsum([*row.tolist(), -float(t)]))
        assert error <= 4 * eps(p.dtype) * t, f"off by {error / eps(p.dtype) / t:.3g} eps"


def expected_row(x, alpha):
    quick = {1: ref.softmax_row, 1.5: ref.entmax15_row, 2: ref.sparsemax_row}
    return quick[alpha](x) if alpha in quick else ref.entmax_row(x, alpha)


def assert_accurate(p, x, alpha, expected=None):
    """One row of entmax(x, alpha) against the oracle; x may be long doubles. See the top of this file."""
    wide, e = ref.WIDE, ref.WIDE(eps(p.dtype))
    x = np.asarray(x, wide)
    q = expected_row(x, alpha) if expected is None else np.asarray(expected, wide)
    a = wide(alpha) - 1
    y, on = np.abs(x - x.max()), q > 0
    logq = np.log(q, out=np.zeros_like(q), where=on)
    w = ref.weights(q, alpha)
    top = np.log(q.max())
    m = -top if a == 0 else -np.expm1(a * top) / a  # p = [1 + a (x - max - m)]_+^(1/a)
    # u - 1 = a (x - max - m), which for positive q is known without cancellation.
    below = np.where(on, np.expm1(a * logq), np.minimum(-a * (y + m), -1))
    mean = (w * y).sum() / w.sum()
    shift = ROUNDINGS * e * (y + m + mean)
    u = np.where(on, q**a, below + 1)
    near_threshold = np.count_nonzero(np.abs(u) < 4 * a * ROUNDINGS * e * y[on].max())

    def power(v):
        with np.errstate(divide="ignore"):
            return np.exp(np.log1p(np.clip(v, -1, 0)) / a)

    if alpha == 1:
        low, high = np.exp(-y - m - shift), np.exp(np.minimum(-y - m + shift, 0))
    elif alpha <= 2 or near_threshold > 1:
        # Were every score off by `shift`, so would be the threshold, at most.
        low, high = power(below - a * shift), power(below + a * shift)
    else:
        # Steep powers at small p: take the Jacobian at its word, w (delta_i - weighted mean of the others).
        s, k = w / w.sum(), int(np.argmax(w))
        others = 1 - s
        others[k] = np.delete(s, k).sum()
        delta = ROUNDINGS * e * y
        reach = w * (others * delta + np.abs((s * delta).sum() - s * delta))
        low, high = q - reach, q + reach
    slack = e * (8 + 2 * np.abs(logq) + (2 / a if alpha >= 1.05 else 0))
    tiny = np.finfo(p.dtype).tiny  # results below the normal numbers may be flushed
    low, high = low * (1 - slack) - tiny, high * (1 + slack) + tiny
    got = p.astype(wide)
    bad = np.flatnonzero(~((low <= got) & (got <= high)))
    if bad.size:
        i = int(bad[np.argmax(np.abs(got - q)[bad])])
        pytest.fail(
            f"alpha={alpha}, {p.dtype}, n={p.size}: {bad.size} entries off; [{i}] is {p[i]!r}, "
            f"not {float(q[i])!r} ({float(abs(got[i] - q[i]) / e / max(q[i], tiny)):.3g} eps)"
        )


def assert_close(p, q, n_eps=32):
    """For alpha in [1, 2]: |dp| <= p^(2-alpha) |du|/(alpha-1) or p |log p| eps, so a few eps of 1 bound every entry."""
    np.testing.assert_allclose(p, q, rtol=0, atol=n_eps * eps(np.asarray(p).dtype))


# --- known values -----------------------------------------------------------------------------------------------------

# To the digits printed, from 50-digit bisection on the threshold (tests/reference/maps.py) and, for softmax and
# sparsemax, by hand: sparsemax of [-2, 0, .5] is [0, (1-.5)/2, (1+.5)/2].
X = [-2, 0, 0.5]
KNOWN = [
    ("softmax", lambda: um.softmax(X), [0.0486, 0.3592, 0.5922], 5e-5),
    ("sparsemax", lambda: um.sparsemax(X), [0, 0.25, 0.75], 0),
    ("project_simplex", lambda: um.project_simplex(X), [0, 0.25, 0.75], 0),
    ("entmax alpha=1", lambda: um.entmax(X, alpha=1), [0.0486, 0.3592, 0.5922], 5e-5),
    ("entmax alpha=1.25", lambda: um.entmax(X, alpha=1.25), [0.00533942, 0.35210979, 0.6425508], 5e-9),
    ("entmax alpha=1.5", lambda: um.entmax(X), [0, 0.3260, 0.6740], 5e-5),
    ("entmax alpha=2", lambda: um.entmax(X, alpha=2), [0, 0.25, 0.75], 0),
    ("entmax alpha=3", lambda: um.entmax(X, alpha=3), [0, 0, 1], 0),
    ("entmax [1, 0]", lambda: um.entmax([1, 0]), [0.83071891, 0.16928109], 5e-9),
    # The second entry sits on the threshold: [2, 0, 0]/2 leaves 1 = 1^2 for the first.
    ("entmax [2, 0, 0]", lambda: um.entmax([2, 0, 0]), [1, 0, 0], 0),
    # s + t = 1 with s^19 - t^19 = .19: plain bisection in float64 returns [1, 0].
    ("entmax alpha=20", lambda: um.entmax([0.01, 0], alpha=20), [0.91630417, 0.08369583], 5e-9),
    # log softmax = -log1p(e^-17), -17 - log1p(e^-17): exp(-17) is below half an eps of float32.
    ("log_softmax", lambda: um.log_softmax(np.float32([17, 0])), [-4.1399376e-08, -17], 5e-15),
]


@pytest.mark.parametrize(("call", "value", "digits"), [k[1:] for k in KNOWN], ids=[k[0] for k in KNOWN])
def test_known_values(call, value, digits):
    got = call()
    if digits == 0:
        assert got.tolist() == value
    else:
        np.testing.assert_allclose(got, value, rtol=0, atol=digits)


def test_known_values_of_threshold():
    # sparsemax: tau = (0 + .5 - 1)/2 on two entries. entmax 1.5 of [2, 0, 0]: z = [1, 0, 0], so tau = 0 on one.
    tau, support = um.threshold(X)
    assert (tau, support) == (-0.25, 2)
    tau, support = um.threshold([2, 0, 0], alpha=1.5)
    assert (tau, support) == (0, 1)


def test_known_value_of_steep_float32():
    np.testing.assert_allclose(um.entmax(np.float32([0.01, 0]), 20), [0.91630417, 0.08369583], rtol=0, atol=1e-6)


# --- the oracles agree with each other --------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("scale", [1, 0.01])
def test_the_oracles_agree(alpha, scale):
    for n in (1, 2, 5, 9):
        x = np.random.default_rng(n).normal(0, scale, n).round(4)
        exact = [float(v) for v in ref.entmax_mp(x, alpha)]
        # 1e-14 also where the long double is a double.
        np.testing.assert_allclose(ref.entmax_row(x, alpha).astype(float), exact, rtol=1e-13, atol=1e-14)
        np.testing.assert_allclose(expected_row(x, alpha).astype(float), exact, rtol=1e-13, atol=1e-14)


# --- properties -------------------------------------------------------------------------------------------------------


@maps
@given(any_scores, alphas)
def test_is_a_distribution(f, x, alpha):
    p = f(x, alpha)
    assert p.shape == x.shape
    assert p.dtype == x.dtype
    assert_sums(p)


@maps
@given(any_row, alphas)
def test_keeps_the_order(f, x, alpha):
    order = np.argsort(x)
    x, p = x[order], f(x, alpha)[order]
    assert (np.diff(p) >= 0).all()
    assert (np.diff(p)[np.diff(x) == 0] == 0).all()


@given(any_row)
def test_log_softmax_keeps_the_order(x):
    p = um.log_softmax(x)
    order = np.argsort(x)
    assert (p <= 0).all()
    with np.errstate(invalid="ignore"):  # -inf - -inf
        assert not (np.diff(p[order]) < 0).any()


@maps
@given(any_row, alphas, st.randoms(use_true_random=False))
def test_commutes_with_permutations(f, x, alpha, random):
    alpha = min(alpha, 2.0)
    permutation = list(range(x.size))
    random.shuffle(permutation)
    assert_close(f(x[permutation], alpha), f(x, alpha)[permutation])


@maps
@given(
    st.sampled_from(DTYPES).flatmap(
        lambda d: arrays(d, array_shapes(max_dims=1, max_side=70), elements=st.integers(-1000, 1000).map(float))
    ),
    st.integers(-60_000, 60_000),
    alphas,
)
def test_a_constant_added_to_a_row_changes_nothing(f, x, shift, alpha):
    # Multiples of 1/64 below 2^17: the sum is exact in float32.
    x, alpha = x / 64, min(alpha, 2.0)
    assert_close(f(x + x.dtype.type(shift), alpha), f(x, alpha))


@pytest.mark.parametrize("alpha", [1, 1.25, 1.5, 2])
def test_survives_a_large_offset(alpha):
    # float32 near 1e6 has steps of 1/16. Taking 1e6 away again is exact, so it must give the same row.
    x = np.random.default_rng(0).normal(0, 0.01, (20, 1000)).astype(np.float32) + np.float32(1e6)
    p = um.entmax(x, alpha)
    assert_sums(p)
    assert_close(p, um.entmax(x - np.float32(1e6), alpha))
    log_p = um.log_softmax(x)
    np.testing.assert_allclose(log_p, um.log_softmax(x - np.float32(1e6)), rtol=8 * eps(np.float32))


@given(any_row, st.integers(-40, 40), st.integers(-30, 30))
def test_project_simplex_scales(x, power, total_power):
    # Powers of two: exact, unless numbers leave the normal range.
    x = np.where(np.abs(x) < 1e-20, 0, np.clip(x, -1e20, 1e20))
    c, total = 2.0**power, 2.0**total_power
    p = um.project_simplex(x, total)
    q = um.project_simplex(x * x.dtype.type(c), c * total)
    assert_sums(p, total)
    np.testing.assert_allclose(q, p * p.dtype.type(c), rtol=0, atol=8 * eps(x.dtype) * c * total)


@given(any_row, st.floats(1e-6, 1e6))
def test_project_simplex_satisfies_kkt(x, total):
    p = um.project_simplex(x, total)
    assert_sums(p, total)
    # x - p = tau on the support, and x <= tau outside. Rounding of x - max, tau and p: eps of the total each.
    gap = ref.WIDE(1) * x - p
    tau, slack = gap[p > 0], 4 * eps(x.dtype) * total
    assert tau.max() - tau.min() <= slack
    assert (x[p == 0] <= tau.min() + slack).all()


@given(any_scores)
def test_sparsemax_is_project_simplex(x):
    np.testing.assert_array_equal(um.sparsemax(x), um.project_simplex(x, 1.0))
    np.testing.assert_array_equal(um.sparsemax(x), um.project_simplex(x))


@given(any_scores)
def test_entmax_at_its_ends(x):
    assert_close(um.entmax(x, 1), um.softmax(x))
    assert_close(um.entmax(x, 2), um.sparsemax(x))


@given(any_scores)
def test_the_default_alpha(x):
    np.testing.assert_array_equal(um.entmax(x), um.entmax(x, alpha=1.5))


@given(
    arrays(np.float64, array_shapes(max_dims=1, max_side=70), elements=st.integers(-400, 400).map(lambda v: v / 64)),
    st.lists(st.sampled_from([1.25, 4 / 3, 1.5, 1.7, 2, 2.5, 3, 10]), min_size=2, max_size=2, unique=True),
)
def test_support_shrinks_as_alpha_grows(x, pair):
    small, large = sorted(pair)
    assert not ((um.entmax(x, large) > 0) & (um.entmax(x, small) == 0)).any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("h", [2.3e-16, 1e-12, 1e-9, 1e-7, 1e-5, 1e-4, 1e-3])
def test_is_continuous_through_softmax(h, dtype):
    x = np.random.default_rng(1).normal(0, 2, (50, 20)).astype(dtype)
    p, q = um.entmax(x, 1 + h), um.softmax(x)
    log = um.log_softmax(x).astype(float)
    # dp/dalpha at 1 is p (sum p log^2 p - log^2 p)/2; the next order is smaller by h log^2, and log^2 stays below 200.
    slope = q * (log**2 + (q * log**2).sum(-1, keepdims=True)) / 2
    bound = 1.5 * h * slope + eps(dtype) * q * (16 + 8 * np.abs(log))
    assert (np.abs(p.astype(float) - q) <= bound).all()


@given(any_scores, st.floats(-30, 30))
def test_temperature_divides(x, log2):
    temperature = 2.0 ** round(log2)
    x = np.where(np.abs(x) < 1e-20, 0, np.clip(x, -1e20, 1e20))
    assert_close(um.softmax(x, temperature=temperature), um.softmax(x / x.dtype.type(temperature)))
    np.testing.assert_allclose(
        um.log_softmax(x, temperature=temperature),
        um.log_softmax(x / x.dtype.type(temperature)),
        rtol=16 * eps(x.dtype),
        atol=np.finfo(x.dtype).tiny,
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_extreme_temperatures(dtype):
    # 1/T or T itself may leave the dtype; the limits are the argmax and the uniform distribution.
    x = np.array([1, 1, 0], dtype)
    for cold in (1e-30, 1e-50, 5e-324):
        assert um.softmax(x, cold).tolist() == [0.5, 0.5, 0]
        np.testing.assert_allclose(um.log_softmax(x, cold)[:2], -math.log(2), rtol=4 * eps(dtype))
    for hot in (1e30, 1e300):
        np.testing.assert_allclose(um.softmax(x, hot), 1 / 3, rtol=4 * eps(dtype))
        np.testing.assert_allclose(um.log_softmax(x, hot), -math.log(3), rtol=4 * eps(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_inverse_of_a_temperature_is_kept_normal(dtype):
    limits = np.finfo(dtype)
    least, most = 1 / ref.WIDE(limits.max), 1 / ref.WIDE(limits.tiny)
    x = np.array([0, -1, -2], dtype) * dtype(16 * limits.tiny)  # the only scores to which so little heat matters
    for cold in (5e-324, float(least) / 3):
        assert_accurate(um.softmax(x, cold), x / least, 1)
        expected = ref.log_softmax_row(np.array([1e-9, 0], dtype), least)
        np.testing.assert_allclose(um.log_softmax(np.array([1e-9, 0], dtype), cold), expected, rtol=8 * eps(dtype))
    x = np.array([1, 0, 0.25], dtype) * limits.max
    for hot in (float(most) * 3, 1.7e308):
        assert_accurate(um.softmax(x, hot), x / most, 1)


@given(any_row, st.floats(0.01, 100))
def test_softmax_agrees_with_the_oracle(x, temperature):
    y = x.astype(ref.WIDE) / ref.WIDE(temperature)
    assert_accurate(um.softmax(x, temperature), y, 1)


@given(any_row, st.floats(0.01, 100))
def test_log_softmax_agrees_with_the_oracle(x, temperature):
    got, expected = um.log_softmax(x, temperature), ref.log_softmax_row(x, temperature)
    # y/T and the logarithm are both negative, so nothing cancels: a few roundings, and eps |y| in each exponential.
    y = np.sort(x.astype(ref.WIDE) / ref.WIDE(temperature))[::-1]
    y = (y - y[0])[1:]
    rest = np.exp(y)
    mean = (rest * -y).sum() / rest.sum() if rest.sum() > 0 else 0
    tolerance = eps(x.dtype) * (8 + 2 * mean) * np.abs(expected) + np.finfo(x.dtype).tiny
    with np.errstate(over="ignore"):  # a difference beyond the type is infinite
        big = (np.abs(expected) > np.finfo(x.dtype).max) | np.isinf(x - x.max())
    assert (got[big] <= -np.finfo(x.dtype).max).all()
    assert (np.abs(got[~big] - expected[~big]) <= tolerance[~big]).all()


@given(any_row, alphas)
def test_entmax_agrees_with_the_oracle(x, alpha):
    assert_accurate(um.entmax(x, alpha), x, alpha)


@given(any_row, st.floats(1e-6, 1e6))
def test_project_simplex_agrees_with_the_oracle(x, total):
    p = um.project_simplex(x, total)
    expected = ref.simplex_row(x, total)
    # One rounding each of x - max (at most `total` on the support), tau, their difference, and the sum: eps of total.
    assert (np.abs(p - expected) <= 4 * eps(x.dtype) * total).all()


# --- special values ---------------------------------------------------------------------------------------------------

SPECIAL_MAPS = {
    "softmax": (um.softmax, ref.softmax),
    "log_softmax": (um.log_softmax, ref.log_softmax),
    "project_simplex": (
        lambda x, **kw: um.project_simplex(x, 2.5, **kw),
        lambda x, **kw: ref.project_simplex(x, 2.5, **kw),
    ),
    "sparsemax": (um.sparsemax, ref.sparsemax),
    **{
        f"entmax {alpha}": (
            lambda x, alpha=alpha, **kw: um.entmax(x, alpha, **kw),
            lambda x, alpha=alpha, **kw: ref.entmax(x, alpha, **kw),
        )
        for alpha in (1, 1.3, 1.5, 2, 3)
    },
}


@pytest.mark.parametrize("name", SPECIAL_MAPS)
@given(st.sampled_from(DTYPES), st.data())
def test_special_values_follow_the_one_rule(name, dtype, data):
    f, oracle = SPECIAL_MAPS[name]
    shape = data.draw(array_shapes(min_dims=1, max_dims=2, max_side=40))
    values = st.sampled_from([-np.inf, -np.inf, np.inf, np.nan, 0, 1, 1.25, -0.5, -3, 1, 0])
    x = data.draw(arrays(dtype, shape, elements=values, fill=st.just(-np.inf)))
    where = data.draw(st.one_of(st.none(), arrays(bool, shape)))
    if where is not None:  # a row both excluded whole and NaN is one or the other: not promised
        assume(not (np.isnan(x).any(-1) & ~where.any(-1)).any())
    got, expected = f(x, where=where), oracle(x, where=where)
    np.testing.assert_allclose(got, expected, rtol=32 * eps(dtype), atol=32 * eps(dtype))
    exact = (expected == 0) | ~np.isfinite(expected)
    np.testing.assert_array_equal(got[exact], expected[exact])


@pytest.mark.parametrize("name", SPECIAL_MAPS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [7, 33, 1000, 100_003])
def test_special_values_in_long_rows(name, dtype, n):
    f, oracle = SPECIAL_MAPS[name]
    x = np.random.default_rng(n).normal(0, 1, (6, n)).astype(dtype)
    where = np.ones((6, n), bool)
    x[0, n // 2] = np.nan
    x[1, [0, -1]] = np.inf
    x[2, ::2] = -np.inf
    x[3] = -np.inf
    where[4], where[5, n // 3 :] = False, False
    x[5, -1] = np.nan  # under the mask
    got, expected = f(x, where=where), oracle(x, where=where)
    # log n roundings more where a logarithm is returned; |log_softmax| stays below 30 here.
    np.testing.assert_allclose(got, expected, rtol=16 * eps(dtype), atol=16 * eps(dtype))


@given(any_row, alphas, st.data())
def test_where_is_leaving_out(x, alpha, data):
    where = data.draw(arrays(bool, x.shape))
    assume(where.any())
    p = um.entmax(x, alpha, where=where)
    assert (p[~where] == 0).all()
    assert_accurate(p[where], x[where], alpha)
    assert (um.log_softmax(x, where=where)[~where] == -np.inf).all()


def test_infinite_scores_share_the_total():
    x = [np.inf, 0, np.inf, -np.inf, 3]
    assert um.project_simplex(x, 3.0).tolist() == [1.5, 0, 1.5, 0, 0]
    assert um.log_softmax(x).tolist() == [-math.log(2), -np.inf, -math.log(2), -np.inf, -np.inf]


# --- long, tight, tied, hot: against the oracles, at every width ------------------------------------------------------

WIDTHS = [1, 2, 3, 5, 7, 10, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 127, 128, 129, 255, 256, 257, 1000, 4097]


def normal(n, rng):
    return rng.normal(0, 2, n)


def uniform(n, rng):
    return rng.uniform(0, 1, n)


def tight(n, rng):
    return rng.normal(0, 0.01, n)


def tied(n, rng):
    return rng.integers(0, 3, n) / 4


def constant(n, rng):
    return np.full(n, 0.1)


def one_hot(n, rng):
    """One logit far above the rest: a prefix sum in float32 cancels to nonsense."""
    return np.where(np.arange(n) == n // 3, 0.0, -1e3)


def offsets(n, rng):
    return rng.normal(0, 1, n) + np.where(np.arange(n) % 2, 1e6, -1e6)


def hot(n, rng):
    """Half the mass on one, the rest spread so thin that tau needs more digits than the dtype has."""
    return np.where(np.arange(n) == n // 2, 0.5, rng.uniform(0, 2e-9, n))


SHAPES = [normal, uniform, tight, tied, constant, one_hot, offsets, hot]
dtypes = pytest.mark.parametrize("dtype", DTYPES)


@dtypes
@pytest.mark.parametrize("draw", SHAPES)
@pytest.mark.parametrize("alpha", ALPHAS)
def test_every_width(alpha, draw, dtype):
    for n in WIDTHS:
        x = draw(n, np.random.default_rng(n)).astype(dtype)
        p = um.entmax(x, alpha)
        assert_sums(p)
        assert_accurate(p, x, alpha)


@dtypes
@pytest.mark.parametrize("draw", SHAPES)
def test_every_width_of_the_named_maps(draw, dtype):
    for n in WIDTHS:
        x = draw(n, np.random.default_rng(n)).astype(dtype)
        for f, alpha in ((um.softmax, 1), (um.sparsemax, 2), (um.project_simplex, 2)):
            p = f(x)
            assert_sums(p)
            assert_accurate(p, x, alpha)
        log_p, expected = um.log_softmax(x), ref.log_softmax_row(x)
        # |y| stays below 16 where exp(y) counts, so 2 |y| + 8 roundings.
        assert (np.abs(log_p - expected) <= 40 * eps(dtype) * np.abs(expected) + np.finfo(dtype).tiny).all()


LONG = [
    *[(32_000, draw, alpha) for draw in SHAPES for alpha in (1, 1.05, 1.5, 2)],
    *[(32_000, draw, alpha) for draw in (normal, uniform, tight, hot) for alpha in (1 + 1e-9, 1.3, 1.9, 3, 10, 20)],
    *[(200_001, draw, alpha) for draw in (uniform, tight, hot) for alpha in (1, 1.3, 1.5, 2, 10)],
    *[(200_001, draw, alpha) for draw in (tied, offsets) for alpha in (1, 1.7, 2)],
    *[(1_000_000, draw, alpha) for draw in (normal, tight, hot) for alpha in (1, 1.5, 2)],
    *[(1_000_000, uniform, 1.3), (1_000_000, constant, 1.5), (1_000_000, constant, 2), (1_000_000, tight, 3)],
]


@dtypes
@pytest.mark.parametrize(("n", "draw", "alpha"), LONG, ids=lambda v: getattr(v, "__name__", str(v)))
def test_long_rows(n, draw, alpha, dtype):
    x = draw(n, np.random.default_rng(n)).astype(dtype)
    p = um.entmax(x, alpha)
    assert_sums(p)
    order = np.argsort(x)
    assert (np.diff(p[order]) >= 0).all()
    assert_accurate(p, x, alpha)
    if alpha in (1, 2):
        named = um.softmax(x) if alpha == 1 else um.sparsemax(x)
        assert_sums(named)
        assert_accurate(named, x, alpha)


@dtypes
def test_log_softmax_of_a_million(dtype):
    for draw in (normal, tight, constant):
        x = draw(1_000_000, np.random.default_rng(3)).astype(dtype)
        np.testing.assert_allclose(um.log_softmax(x), ref.log_softmax_row(x), rtol=16 * eps(dtype))


def test_one_hot_among_32767():
    x = np.full(32_768, -1e3, np.float32)
    x[12_345] = 0
    for f in (um.softmax, um.sparsemax, um.entmax):
        assert f(x)[12_345] == 1
        assert np.count_nonzero(f(x)) == 1


@dtypes
def test_against_fifty_digits(dtype):
    rng = np.random.default_rng(5)
    for alpha in ALPHAS:
        for n in (2, 3, 8):
            x = rng.normal(0, rng.choice([0.01, 1]), n).astype(dtype)
            expected = [ref.WIDE(mp.nstr(v, 30)) for v in ref.entmax_mp(x, alpha)]
            assert_accurate(um.entmax(x, alpha), x, alpha, expected)


# --- bisection --------------------------------------------------------------------------------------------------------


@dtypes
@pytest.mark.parametrize("alpha", [1, 1.05, 1.3, 1.5, 1.7, 2, 2.5])
def test_bisection_converges_to_auto(alpha, dtype):
    x = np.random.default_rng(2).normal(0, 1, (20, 50)).astype(dtype)
    p = um.entmax(x, alpha, method="bisect", n_iter=50)
    assert_sums(p)
    # tau to a few eps; p = u^(1/(alpha-1)) magnifies at most 20 times here.
    assert_close(p, um.entmax(x, alpha), 32 if alpha <= 2 and alpha != 1.05 else 400)


def test_fewer_bisections_are_coarser():
    x = np.random.default_rng(3).normal(0, 1, (50, 30))
    exact = um.entmax(x, 1.5)
    errors = [np.abs(um.entmax(x, 1.5, method="bisect", n_iter=k) - exact).max() for k in (3, 8, 16, 50)]
    assert errors[0] > 10 * errors[1] > 100 * errors[2] > 1e4 * errors[3]
    # The bracket is [-1, -n^(1-alpha)], of length below 1; |dp| <= 2 p^(1/2) |dtau| before the division by the sum.
    assert errors[2] < 30 * 2.0**-16


def test_bisection_is_the_default_count():
    x = np.random.default_rng(4).normal(0, 1, (5, 30))
    np.testing.assert_array_equal(um.entmax(x, method="bisect"), um.entmax(x, method="bisect", n_iter=50))


# --- thresholds -------------------------------------------------------------------------------------------------------


@dtypes
@pytest.mark.parametrize("alpha", [1.25, 1.3, 1.5, 2, 2.5, 3])
@pytest.mark.parametrize("draw", [normal, uniform, tight, tied, constant, hot])
def test_threshold_agrees_and_rebuilds(alpha, draw, dtype):
    for n in (1, 2, 10, 33, 300):
        x = draw(n, np.random.default_rng(n)).astype(dtype)
        tau, support = um.threshold(x, alpha)
        assert np.asarray(tau).dtype == dtype
        assert np.asarray(support).dtype == np.int64
        assert support == np.count_nonzero(um.entmax(x, alpha))
        expected, _ = ref.threshold_row(x, alpha)
        # The product with alpha - 1, the threshold after the shift (at most 1), and their sum.
        slack = 4 * eps(dtype) * (1 + abs(expected) + (alpha - 1) * float(np.abs(x).max()))
        assert abs(tau - expected) <= slack
        # p from tau: within what an error `slack` in (alpha-1) x - tau makes.
        u = (ref.WIDE(alpha) - 1) * x - tau
        p = um.entmax(x, alpha)
        e = 1 / (ref.WIDE(alpha) - 1)
        assert (p >= np.maximum(u - slack, 0) ** e * (1 - 8 * eps(dtype))).all()
        assert (p <= np.maximum(u + slack, 0) ** e * (1 + 8 * eps(dtype))).all()


def test_threshold_of_special_rows():
    nan, inf = np.nan, np.inf
    x = np.array([[nan, 1, 2], [-inf, -inf, -inf], [inf, 1, inf], [1, 2, 3], [-inf, 5, -inf]])
    where = np.array([[True], [True], [True], [False], [True]])
    tau, support = um.threshold(x, where=where)
    np.testing.assert_array_equal(tau, [nan, nan, inf, nan, 4])
    assert support.tolist() == [0, 0, 2, 0, 1]


def test_threshold_has_the_batch_shape_along_any_axis():
    x = np.random.default_rng(0).normal(size=(3, 4, 5))
    for axis in range(-3, 3):
        tau, support = um.threshold(x, 1.5, axis=axis)
        moved_tau, moved_support = um.threshold(np.ascontiguousarray(np.moveaxis(x, axis, -1)), 1.5)
        np.testing.assert_array_equal(tau, moved_tau)
        np.testing.assert_array_equal(support, moved_support)


# --- bugs that were, each against the oracle --------------------------------------------------------------------------


@dtypes
@pytest.mark.parametrize("n", [2, 3, 7, 10, 16, 33, 64, 100, 127, 128])
def test_near_constant_rows_far_from_zero_with_small_totals(n, dtype):
    """A start at the mean was above the solution: the mean of large numbers is rounded."""
    rng = np.random.default_rng(n)
    offset = dtype(1e6)
    step = np.spacing(offset)
    for total in (1e-4, 1e-2, 0.3, 1, 7):
        for steps in (np.zeros(n), rng.integers(0, 2, n), rng.integers(0, 4, n), rng.integers(0, n, n)):
            for sign in (1, -1):
                x = (sign * offset + steps * step).astype(dtype)
                p = um.project_simplex(x, total)
                assert_sums(p, total)
                assert (np.abs(p - ref.simplex_row(x, total)) <= 4 * eps(dtype) * total).all()
                for alpha in (1.3, 1.5, 2, 3):
                    assert_accurate(um.entmax(x, alpha), x, alpha)


@dtypes
@pytest.mark.parametrize("method", ["auto", "bisect"])
@pytest.mark.parametrize("alpha", [1, 1.5, 2, 2.5, 3, 10])
def test_a_nan_is_never_lost(alpha, method, dtype):
    for n in (1, 2, 10, 33, 129, 1000, 100_003):
        x = np.random.default_rng(n).normal(0, 1, (3, n)).astype(dtype)
        x[1, n // 2] = np.nan
        p = um.entmax(x, alpha, method=method)
        assert np.isnan(p).tolist() == [[False] * n, [True] * n, [False] * n]


@dtypes
@pytest.mark.parametrize("alpha", [2.1, 2.5, 3, 5])
def test_vjp_of_a_heavy_tail_at_a_steep_alpha(alpha, dtype):
    """The weights p^(2-alpha) of a long row span more decades than float32 has; a sum of them in it lost the rest."""
    for n in (10, 100, 1000):
        rng = np.random.default_rng(n)
        for draw in (rng.standard_cauchy, rng.standard_exponential):
            p = draw(n) ** 8 + 1e-12
            p = (p / p.sum()).astype(dtype)
            g = rng.normal(size=n).astype(dtype)
            expected, w = ref.entmax_vjp_row(p, g, alpha), ref.weights(p, alpha)
            # Each entry w (g - mean g) is rounded once; its power, in float64, has (alpha - 2) |log p| roundings.
            spread = w * (np.abs(g - g[np.argmax(w)]) + np.abs(expected / w))
            tolerance = 2 * eps(dtype) * np.abs(expected) + (64 + 80 * alpha) * eps(np.float64) * spread
            heaviest = np.argmax(w)  # what is left over: the sum of the others, cancelling
            tolerance[heaviest] = np.delete(tolerance, heaviest).sum() + eps(dtype) * np.abs(expected[heaviest])
            inside = np.abs(expected) < np.finfo(dtype).max / 2
            assert (np.abs(um.entmax_vjp(p, g, alpha) - expected) <= tolerance)[inside].all()


@dtypes
@pytest.mark.parametrize("alpha", [2.0001, 2.5, 3, 10, 20])
def test_v_shaped_rows_at_a_steep_alpha(alpha, dtype):
    """A pivot taken from the middle of the row halved nothing here: time grew with the square of n."""
    n = 200_001
    x = (np.abs(np.arange(n) - n // 2) / (n * alpha)).astype(dtype)  # all within the window 1/(alpha - 1)
    seconds = []
    for row in (x, np.random.default_rng(0).permutation(x)):
        start = time.perf_counter()
        p = um.entmax(row, alpha)
        seconds.append(time.perf_counter() - start)
        assert_sums(p)
        assert_accurate(p, row, alpha)
    assert seconds[0] < 50 * seconds[1]  # the square of n takes some 10,000 times as long


def test_parameters_may_lie_in_the_output():
    x = np.random.default_rng(18).normal(size=(5, 5))
    parameter = np.array([1.25, 1.5, 2, 2.5, 3])
    g = np.random.default_rng(19).normal(size=(5, 5))
    for f, args, name in (
        (um.entmax, (x,), "alpha"),
        (um.project_simplex, (x,), "total"),
        (um.entmax_vjp, (um.entmax(x, parameter), g), "alpha"),
    ):
        expected = f(*args, **{name: parameter})
        for place in (np.s_[:, 0], np.s_[0], np.s_[4], np.s_[:, 4]):
            out = np.empty((5, 5))
            out[place] = parameter
            np.testing.assert_array_equal(f(*args, out=out, **{name: out[place]}), expected)
    p = um.entmax(x, parameter)
    out = np.empty(5)
    out[:] = parameter
    expected = um.entmax_alpha_grad(p, g, parameter)
    np.testing.assert_array_equal(um.entmax_alpha_grad(p, g, out, out=out), expected)


@pytest.mark.parametrize("f", [um.softmax, um.log_softmax, um.sparsemax, um.entmax])
def test_a_mask_may_lie_in_the_output(f):
    x = np.random.default_rng(20).normal(size=(50, 8))
    where = np.random.default_rng(21).random((50, 8)) < 0.7
    expected = f(x, where=where)
    out = np.empty((50, 8))
    mask = out.view(bool).reshape(-1)[:400].reshape(50, 8)
    mask[...] = where
    np.testing.assert_array_equal(f(x, where=mask, out=out), expected)


@dtypes
def test_parameters_of_any_size(dtype):
    """Those that are taken give the limit; the others are refused by name (below)."""
    x = np.array([3, 3, 1, 0.5], dtype)
    for alpha in (1e30, 1e300, 1e308):
        assert um.entmax(x, alpha).tolist() == [0.5, 0.5, 0, 0]
        assert um.entmax(x - x.max(), alpha).tolist() == [0.5, 0.5, 0, 0]
        assert um.entmax(x, alpha, method="bisect").tolist() == [0.5, 0.5, 0, 0]
        tau, support = um.threshold(x - x.max(), alpha)
        assert (float(tau), int(support)) == (-(0.5 ** (alpha - 1)), 2)
        halves, quarters = np.array([0.5, 0.5, 0], dtype), np.array([0.5, 0.25, 0.25], dtype)
        assert um.entmax_vjp(halves, halves - halves, alpha=alpha).tolist() == [0, 0, 0]
        assert um.entmax_vjp(halves, np.array([1, 2, 3], dtype), alpha=alpha).tolist() == [-np.inf, np.inf, 0]
        assert um.entmax_vjp(quarters, np.array([1, 2, 3], dtype), alpha=alpha).tolist() == [-np.inf, -np.inf, np.inf]
    largest = float(np.finfo(dtype).max) / 16
    for total in (2.0**-100, 2.0**100, largest):
        assert_sums(um.project_simplex(x, total), total)
    with pytest.raises(ValueError, match=r"total: .* a row of it can be added up, found 8e"):
        um.project_simplex(x.astype(np.float64), 8e307)
    expected = um.entmax(x, 1.3, method="bisect", n_iter=1000)
    np.testing.assert_array_equal(um.entmax(x, 1.3, method="bisect", n_iter=2**32 - 1), expected)


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("workers", [1, 2])
@dtypes
def test_a_long_row_whatever_its_first_chunk(dtype, workers, in_place):
    """The maximum of the first chunk serves if it is near that of the row; nothing shows whether it was."""
    n, chunk = 150_001, 1 << 14
    x = np.random.default_rng(4).normal(size=n).astype(dtype)
    for rise in (-40, 0, 3, 4, 5, 90, 800, np.inf):
        row = x.copy()
        row[:chunk] -= dtype(rise)
        p = row.copy()
        um.softmax(p if in_place else row, out=p, workers=workers)
        on = row > -np.inf
        assert_accurate(p[on], row[on], 1)
        assert_sums(p)
        assert not p[~on].any()
    for place in (0, chunk, n - 1):
        row = x.copy()
        row[place] = np.inf
        assert um.softmax(row, workers=workers)[[place, 1, n - 2]].tolist() == [1, 0, 0]
        row[place] = np.nan
        assert np.isnan(um.softmax(row, workers=workers)).all()


# --- one parameter a row ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_one_alpha_and_total_per_row(axis):
    rng = np.random.default_rng(7)
    x = rng.normal(0, 1, (3, 4, 5))
    batch = np.moveaxis(x, axis, -1).shape[:-1]
    alpha, total = rng.choice([1, 1.0001, 1.3, 1.5, 2, 3], batch), rng.uniform(0.5, 3, batch)
    p, q = um.entmax(x, alpha, axis=axis), um.project_simplex(x, total, axis=axis)
    tau, support = um.threshold(x, alpha + 0.25, axis=axis)
    g = rng.normal(size=x.shape)
    gx, ga = um.entmax_vjp(p, g, alpha=alpha, axis=axis), um.entmax_alpha_grad(p, g, alpha=alpha, axis=axis)
    rows, p, q, g, gx = (np.moveaxis(v, axis, -1) for v in (x, p, q, g, gx))
    for i in np.ndindex(batch):
        np.testing.assert_array_equal(p[i], um.entmax(rows[i], alpha[i]))
        np.testing.assert_array_equal(q[i], um.project_simplex(rows[i], total[i]))
        np.testing.assert_array_equal(gx[i], um.entmax_vjp(p[i], g[i], alpha=alpha[i]))
        assert ga[i] == um.entmax_alpha_grad(p[i], g[i], alpha=alpha[i])
        assert (tau[i], support[i]) == um.threshold(rows[i], alpha[i] + 0.25)


def test_parameters_broadcast_against_the_batch():
    x = np.random.default_rng(8).normal(size=(3, 4, 5))
    alpha = np.array([[1.0], [1.5], [3.0]])
    np.testing.assert_array_equal(um.entmax(x, alpha), um.entmax(x, np.repeat(alpha, 4, 1)))
    np.testing.assert_array_equal(um.entmax(x, [1, 1.5, 2, 3]), um.entmax(x, np.tile([1, 1.5, 2, 3], (3, 1))))
    np.testing.assert_array_equal(um.project_simplex(x, [1, 2, 3, 4]), um.project_simplex(x, [[1, 2, 3, 4]] * 3))
    np.testing.assert_array_equal(um.entmax(x[0], 2), um.entmax(x[0], np.full(4, 2)))


# --- sparse results ---------------------------------------------------------------------------------------------------

SPARSE = {
    "sparsemax": (um.sparsemax, um.sparsemax_vjp),
    "project_simplex": (lambda x, **kw: um.project_simplex(x, 2.0, **kw), um.project_simplex_vjp),
    "entmax 1.3": (lambda x, **kw: um.entmax(x, 1.3, **kw), lambda p, g: um.entmax_vjp(p, g, alpha=1.3)),
    "entmax 1.5": (um.entmax, um.entmax_vjp),
    "entmax 3": (lambda x, **kw: um.entmax(x, 3, **kw), lambda p, g: um.entmax_vjp(p, g, alpha=3)),
}


@dtypes
@pytest.mark.parametrize("name", SPARSE)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_sparse_is_the_dense_result(name, axis, dtype):
    csr_array = pytest.importorskip("scipy.sparse").csr_array
    f, vjp = SPARSE[name]
    rng = np.random.default_rng(9)
    x = rng.normal(0, 2, (6, 40, 7)).astype(dtype)
    where = rng.random(x.shape) < 0.8
    dense = np.moveaxis(f(x, axis=axis, where=where), axis, -1)
    dense = np.ascontiguousarray(dense).reshape(-1, dense.shape[-1])
    data, indices, indptr = triple = f(x, axis=axis, where=where, sparse=True)
    assert data.dtype == dtype
    assert (data > 0).all()
    matrix = csr_array(triple, shape=dense.shape)
    matrix.check_format(full_check=True)
    assert matrix.has_sorted_indices
    np.testing.assert_array_equal(matrix.toarray(), dense)

    g = rng.normal(size=dense.shape).astype(dtype)
    gdata, gindices, gindptr = vjp(triple, g)
    np.testing.assert_array_equal(gindices, indices)
    np.testing.assert_array_equal(gindptr, indptr)
    assert gdata.dtype == dtype
    row = np.repeat(np.arange(len(dense)), np.diff(indptr))
    # The same sums over the support, grouped otherwise.
    np.testing.assert_allclose(gdata, vjp(dense, g)[row, indices], rtol=0, atol=32 * eps(dtype) * np.abs(g).max() * 4)


def test_sparse_edges():
    nan = np.nan
    data, indices, indptr = um.sparsemax(np.zeros((0, 3)), sparse=True)
    assert (data.size, indices.size, indptr.tolist()) == (0, 0, [0])
    data, indices, indptr = um.sparsemax(np.zeros((0, 1 << 40)), sparse=True)  # no room for a row that is not there
    assert (data.size, indices.size, indptr.tolist()) == (0, 0, [0])
    data, indices, indptr = um.sparsemax([3.0, 1, 2], sparse=True)  # one row
    assert (data.tolist(), indices.tolist(), indptr.tolist()) == ([1.0], [0], [0, 1])
    data, indices, indptr = um.sparsemax([[0.0, nan], [np.inf, 0]], sparse=True)
    assert (indices.tolist(), indptr.tolist()) == ([0, 1, 0], [0, 2, 3])
    np.testing.assert_array_equal(data, [nan, nan, 1])


def test_sparse_with_one_alpha_per_row():
    x = np.random.default_rng(10).normal(size=(4, 9))
    alpha = np.array([1.2, 1.5, 2, 3])
    data, indices, indptr = triple = um.entmax(x, alpha, sparse=True)
    p = um.entmax(x, alpha)
    row = np.repeat(np.arange(4), np.diff(indptr))
    np.testing.assert_array_equal(data, p[row, indices])
    assert data.size == np.count_nonzero(p)
    g = np.random.default_rng(11).normal(size=x.shape)
    got = um.entmax_vjp(triple, g, alpha=alpha)[0]
    np.testing.assert_allclose(got, um.entmax_vjp(p, g, alpha=alpha)[row, indices], rtol=1e-12, atol=1e-14)


# --- gradients --------------------------------------------------------------------------------------------------------

GRADIENTS = {
    "softmax": (um.softmax, um.softmax_vjp, 1),
    "sparsemax": (um.sparsemax, um.sparsemax_vjp, 2),
    "project_simplex": (um.project_simplex, um.project_simplex_vjp, 2),
    **{
        f"entmax {a}": (lambda x, a=a: um.entmax(x, a), lambda p, g, a=a: um.entmax_vjp(p, g, alpha=a), a)
        for a in ALPHAS
    },
}


@dtypes
@pytest.mark.parametrize("name", GRADIENTS)
def test_vjp_is_the_dense_jacobian(name, dtype):
    f, vjp, alpha = GRADIENTS[name]
    for n in (1, 2, 10, 33, 129):
        for draw in (normal, uniform, tight, tied):
            rng = np.random.default_rng(n)
            p, g = f(draw(n, rng).astype(dtype)), rng.normal(size=n).astype(dtype)
            w = ref.weights(p, alpha)
            if not (w < np.finfo(dtype).max / 1e3).all():
                continue  # steep: see the test below
            expected = ref.jacobian(p, alpha).T @ g
            # w (g - mean g): the mean is a sum over the row, the power and the product one rounding each, and the
            # power itself carries |2 - alpha| |log p| eps.
            spread = w * (np.abs(g) + (w * np.abs(g)).sum() / w.sum())
            log = np.abs(np.log(np.where(p > 0, p, 1))).max()
            tolerance = eps(dtype) * (16 + 2 * abs(2 - alpha) * log) * spread
            assert (np.abs(vjp(p, g) - expected) <= tolerance + np.finfo(dtype).tiny).all()


@dtypes
@pytest.mark.parametrize("alpha", [2.5, 3, 10, 20])
def test_vjp_of_a_steep_map_does_not_cancel(alpha, dtype):
    # w = p^(2-alpha) is huge at the smallest p, whose own g is then nearly the weighted mean: measured from that g,
    # nothing cancels and the result is of the order of the other weights.
    for small in (1e-2, 1e-5, 1e-9, 1e-20):
        p = np.array([0.5, 0.3, small], dtype)
        p[0] = 1 - p[1:].sum()
        g = np.array([1.25, -2, 0.75], dtype)
        expected = ref.entmax_vjp_row(p, g, alpha)
        np.testing.assert_allclose(um.entmax_vjp(p, g, alpha=alpha), expected, rtol=8 * (alpha + 8) * eps(dtype))


@dtypes
@pytest.mark.parametrize("alpha", [1, 1.3, 1.5, 1.8, 2, 3])
def test_gradients_of_long_rows(alpha, dtype):
    """Probabilities far apart in a row that is shared out: as in a row of their own, but for the order of sums."""
    rng = np.random.default_rng(21)
    n, places = 150_001, [3, 16_383, 16_384, 49_152, 100_000, 131_072, 149_999, 150_000]
    x, g = rng.normal(size=len(places)).astype(dtype), rng.normal(size=n).astype(dtype)
    few, own = um.entmax(x, alpha), g[places]
    p = np.zeros(n, dtype)
    p[places] = few
    scale = np.abs(g).max()
    for product, expected in (
        (um.entmax_vjp(p, g, alpha), um.entmax_vjp(few, own, alpha)),
        (um.softmax_vjp(p, g, 2.0), um.softmax_vjp(few, own, 2.0)),
    ):
        np.testing.assert_allclose(product[places], expected, rtol=0, atol=16 * eps(dtype) * scale)
        assert np.count_nonzero(product) == np.count_nonzero(expected)
    got, expected = um.entmax_alpha_grad(p, g, alpha), um.entmax_alpha_grad(few, own, alpha)
    np.testing.assert_allclose(got, expected, rtol=16 * eps(dtype), atol=1e-14)
    dense = um.entmax(rng.normal(0, 0.01, n).astype(dtype), alpha)
    # Off by a few roundings of the weight, of g and of its mean.
    bound = 32 * eps(dtype) * (ref.weights(dense, alpha) * scale).astype(float)
    assert (np.abs(um.entmax_vjp(dense, g, alpha) - ref.entmax_vjp_row(dense, g, alpha)) <= bound).all()
    log_p = um.log_softmax(g)
    expected = ref.log_softmax_vjp_row(log_p, g)
    # The sum of g is rounded to the size of its partial sums.
    np.testing.assert_allclose(um.log_softmax_vjp(log_p, g), expected, rtol=0, atol=16 * eps(dtype) * scale)


@dtypes
@pytest.mark.parametrize("alpha", [1.1, 1.3, 1.5, 2, 3, 10])
def test_threshold_of_long_rows(alpha, dtype):
    rng = np.random.default_rng(22)
    for spread in (0.01, 1):
        x = rng.normal(0, spread, 150_001).astype(dtype)
        tau, support = um.threshold(x, alpha)
        expected = ref.threshold_row(x, alpha)
        assert support == np.count_nonzero(um.entmax(x, alpha))
        # tau is given in the type of x, on the scale of (alpha - 1) x and of the distance to it, at most 1.
        np.testing.assert_allclose(tau, expected[0], rtol=0, atol=4 * eps(dtype) * (1 + alpha * np.abs(x).max()))


@pytest.mark.parametrize("name", GRADIENTS)
def test_vjp_is_the_derivative(name):
    f, vjp, alpha = GRADIENTS[name]
    if alpha > 3:
        pytest.skip("the third derivative of a steep map is out of reach of a difference")
    rng = np.random.default_rng(12)
    h, checked = 1e-5, 0
    for _ in range(40):
        x, g = rng.normal(0, 1, 6), rng.normal(size=6)
        up, down = f(x + h * np.eye(6)), f(x - h * np.eye(6))
        p = f(x)
        if ((up > 0) != (p > 0)).any() or ((down > 0) != (p > 0)).any() or (alpha > 2 and p[p > 0].min() < 0.05):
            continue  # a kink between
        checked += 1
        # Truncation h^2 f'''/6, with f''' below 1e4 at p >= .05; rounding eps/h.
        np.testing.assert_allclose(vjp(p, g), (up - down) @ g / (2 * h), rtol=0, atol=1e-6 if alpha > 2 else 2e-8)
    assert checked >= 10


@pytest.mark.parametrize("temperature", [0.5, 1, 3])
def test_vjp_of_softmax_at_a_temperature(temperature):
    rng = np.random.default_rng(13)
    x, g, h = rng.normal(size=6), rng.normal(size=6), 1e-5
    for f, vjp in ((um.softmax, um.softmax_vjp), (um.log_softmax, um.log_softmax_vjp)):
        difference = (f(x + h * np.eye(6), temperature) - f(x - h * np.eye(6), temperature)) @ g / (2 * h)
        np.testing.assert_allclose(vjp(f(x, temperature), g, temperature=temperature), difference, rtol=0, atol=1e-8)


@dtypes
def test_vjp_of_log_softmax_agrees(dtype):
    for n in (1, 2, 10, 33, 1000):
        rng = np.random.default_rng(n)
        log_p, g = um.log_softmax(rng.normal(0, 2, n).astype(dtype)), rng.normal(size=n).astype(dtype)
        expected = ref.log_softmax_vjp_row(log_p, g, 0.5)
        p = np.exp(log_p.astype(ref.WIDE))
        scale = np.abs(g) + p * (1 + np.abs(log_p)) * np.abs(g).sum()
        assert (np.abs(um.log_softmax_vjp(log_p, g, temperature=0.5) - expected) <= 16 * eps(dtype) * scale).all()


def test_vjp_of_a_tie_takes_no_weight_where_p_is_zero():
    # [2, 0, 0] at 1.5 and [1, 0] at 2 sit on the threshold: the element of the generalised Jacobian with w = 0 there.
    assert um.entmax_vjp(um.entmax([2, 0, 0]), [1.0, 2, 3]).tolist() == [0, 0, 0]
    assert um.sparsemax_vjp(um.sparsemax([1, 0]), [1.0, 2]).tolist() == [0, 0]


def test_an_excluded_row_has_no_gradient():
    g = np.array([[1.0, 2, 3]])
    zeros = np.zeros((1, 3))
    for vjp in (um.softmax_vjp, um.sparsemax_vjp, um.project_simplex_vjp, um.entmax_vjp):
        np.testing.assert_array_equal(vjp(zeros, g), zeros)
    np.testing.assert_array_equal(um.entmax_vjp(zeros, g, alpha=1.3), zeros)
    np.testing.assert_array_equal(um.entmax_alpha_grad(zeros, g), [0])


@dtypes
@pytest.mark.parametrize("alpha", [1, 1 + 1e-9, 1.0001, 1.01, 1.05, 1.25, 1.5, 1.9, 2, 2.5, 3])
def test_alpha_grad_agrees(alpha, dtype):
    rng = np.random.default_rng(14)
    for n in (1, 2, 3, 6):
        for scale in (0.01, 1, 5):
            x, g = rng.normal(0, scale, n).astype(dtype), rng.normal(size=n).astype(dtype)
            p = um.entmax(x, alpha)
            expected = ref.entmax_alpha_grad_mp(x, g, alpha)
            # Second differences of p in log p: each term carries p's few roundings, twice the logarithm's size.
            q = ref.entmax_row(x, alpha)
            log = np.log(np.where(q > 0, q, 1))
            s = ref.weights(q, alpha) / ref.weights(q, alpha).sum()
            size = (np.abs(g) * (q + s) * (1 + log**2 + (q * log**2).sum()) * (1 + np.abs(log))).sum()
            got = um.entmax_alpha_grad(p, g, alpha=alpha)
            assert np.asarray(got).dtype == dtype
            assert abs(got - expected) <= 64 * eps(dtype) * size, (n, scale, float(got), expected)


def test_alpha_grad_at_softmax_is_the_limit():
    rng = np.random.default_rng(15)
    x, g = rng.normal(0, 2, (4, 20)), rng.normal(size=(4, 20))
    p = um.softmax(x)
    square = np.log(p) ** 2
    limit = (g * p * ((p * square).sum(-1, keepdims=True) - square)).sum(-1) / 2
    np.testing.assert_allclose(um.entmax_alpha_grad(p, g, alpha=1), limit, rtol=1e-12)
    # The next order: alpha - 1 times a third moment of log p, here below 1e3.
    np.testing.assert_allclose(um.entmax_alpha_grad(p, g, alpha=1 + 1e-10), limit, rtol=0, atol=1e-6)


def test_alpha_grad_is_the_derivative():
    rng = np.random.default_rng(16)
    h = 1e-5
    for alpha in (1.1, 1.3, 1.5, 1.8, 2.2):
        x, g = rng.normal(0, 0.5, 8), rng.normal(size=8)
        up, p, down = um.entmax(x, alpha + h), um.entmax(x, alpha), um.entmax(x, alpha - h)
        assert ((up > 0) == (down > 0)).all()
        difference = g @ (up - down) / (2 * h)
        np.testing.assert_allclose(um.entmax_alpha_grad(p, g, alpha=alpha), difference, rtol=1e-6, atol=1e-8)


# --- what is refused --------------------------------------------------------------------------------------------------

A = np.ones((2, 3))
FROZEN = np.empty((2, 3))
FROZEN.flags.writeable = False
CSR = um.sparsemax(A, sparse=True)
MASKED = np.ma.masked_equal(A, 0)
nan, inf = math.nan, math.inf


def no(error, message, f, *args, **options):
    """A call that must fail with a message that names the argument and the value."""
    label = f"{f.__name__} {message}".replace("\\b", "").replace("\\", "")
    return pytest.param(f, args, options, error, message, id=label)


AXIS = np.exceptions.AxisError
EITHER = (TypeError, ValueError)
TEMPERED = {um.softmax: (A,), um.log_softmax: (A,), um.softmax_vjp: (A, A), um.log_softmax_vjp: (A, A)}
OF_X = [um.softmax, um.log_softmax, um.project_simplex, um.sparsemax, um.entmax]
VJPS = [um.softmax_vjp, um.log_softmax_vjp, um.project_simplex_vjp, um.sparsemax_vjp, um.entmax_vjp]
ARRAYS = {um.softmax_vjp: "p", um.log_softmax_vjp: "logp", um.project_simplex_vjp: "p", um.sparsemax_vjp: "p"}
ARRAYS |= {um.entmax_vjp: "p", um.entmax_alpha_grad: "p"}
DATA, INDICES, INDPTR = CSR

REFUSED = [
    *(no(ValueError, rf"alpha\b.*{v}", um.entmax, A, alpha=v) for v in (0.5, 0.999, -1.0, nan, inf)),
    *(no(ValueError, rf"alpha\b.*{v}", um.threshold, A, alpha=v) for v in (1.0, 0.5, nan, inf)),
    no(ValueError, r"alpha\b.*0\.25", um.entmax, A, alpha=[1.5, 0.25]),
    no(ValueError, r"alpha\b.*\(3,\)", um.entmax, A, alpha=[1.5, 2, 3]),
    no(EITHER, r"alpha\b", um.entmax, A, alpha="high"),
    no(EITHER, r"alpha\b", um.entmax, A, alpha=1j),
    no(ValueError, r"alpha\b.*0\.5", um.entmax_vjp, A, A, alpha=0.5),
    no(ValueError, r"alpha\b.*nan", um.entmax_vjp, A, A, alpha=nan),
    no(ValueError, r"alpha\b.*0\.5", um.entmax_alpha_grad, A, A, alpha=0.5),
    no(ValueError, r"alpha\b.*nan", um.entmax_alpha_grad, A, A, alpha=[1.5, nan]),
    *(no(ValueError, rf"total\b.*{v}", um.project_simplex, A, total=v) for v in (0.0, -2.0, nan, inf)),
    no(ValueError, r"total\b.*-3", um.project_simplex, A, total=[1.0, -3.0]),
    no(ValueError, r"total\b.*\(4,\)", um.project_simplex, A, total=[1, 2, 3, 4]),
    *(
        no(ValueError, rf"temperature\b.*{v}", f, *args, temperature=v)
        for f, args in TEMPERED.items()
        for v in (0.0, -1.0, nan, inf)
    ),
    *(
        no(TypeError, rf"temperature: expected a real number, found .*{found}", f, *args, temperature=v)
        for f, args in TEMPERED.items()
        for v, found in (
            ("2", "'2'"),
            (b"2", "b'2'"),
            (1j, "1j"),
            (None, "None"),
            (np.array("2"), "2"),
            ([2.0], "array"),
        )
    ),
    *(
        no(TypeError, rf"{name}: expected a real number or an array of them, found .*{found}", f, A, **{name: v})
        for f, name in ((um.entmax, "alpha"), (um.threshold, "alpha"), (um.project_simplex, "total"))
        for v, found in (("2", "'2'"), (["2"] * 2, "'2'"), (1j, "1j"), (None, "None"))
    ),
    no(TypeError, r"alpha: a masked array", um.entmax, A, alpha=np.ma.array([1.5, 2])),
    *(
        no(
            ValueError,
            rf"total: must be finite and positive in the type of the result.*{v:g}",
            um.project_simplex,
            A.astype("f2"),
            v,
        )
        for v in (65520.0, 1e-10)
    ),
    no(ValueError, r"total\b.*100000", um.project_simplex, A.astype("f2"), [1.0, 1e5]),
    no(ValueError, r"total\b.*100000", um.project_simplex, A.astype("f2"), 1e5, sparse=True),
    no(TypeError, r"n_iter: expected an integer, found '2'", um.entmax, A, n_iter="2"),
    no(ValueError, r"n_iter\b.*1099511627776", um.entmax, A, n_iter=2**40),
    no(ValueError, r"alpha\b.*range", um.entmax, A, alpha=10**400),
    no(ValueError, r"method\b.*newton", um.entmax, A, method="newton"),
    no(ValueError, r"n_iter\b.*0", um.entmax, A, method="bisect", n_iter=0),
    no(ValueError, r"n_iter\b.*-3", um.entmax, A, method="bisect", n_iter=-3),
    no(TypeError, r"n_iter\b.*1\.5", um.entmax, A, method="bisect", n_iter=1.5),
    *(
        case
        for f in [*OF_X, um.threshold]
        for case in (
            no(ValueError, r"\bx\b", f, 1.0),
            no(ValueError, r"\bx: the axis is empty", f, np.ones((2, 0))),
            no(ValueError, r"\bx: the axis is empty", f, np.ones((0, 2)), axis=0),
            no(AXIS, r"axis\b.*2", f, A, axis=2),
            no(AXIS, r"axis\b.*-3", f, A, axis=-3),
            *(no(TypeError, rf"axis: expected an integer, found {v!r}", f, A, axis=v) for v in (None, 1.0, "0")),
            no(AXIS, r"axis\b.*1000000000000", f, A, axis=10**30),
            no(ValueError, "x: setting an array element", f, [[1], [1, 2]]),
            no(TypeError, r"x: a masked array .*pass x\.data and where=~np\.ma\.getmaskarray\(x\)", f, MASKED),
            no(TypeError, r"where: a masked array .*pass where\.data", f, A, where=MASKED > 0),
            no(TypeError, r"\bx\b.*complex128", f, A * 1j),
            no(TypeError, r"\bx\b.*object", f, A.astype(object)),
            no(TypeError, r"\bx\b.*U1", f, np.array(["a", "b"])),
            no(TypeError, r"\bx\b.*datetime64", f, np.array(["2020"], "M8[D]")),
            no(ValueError, r"workers\b.*0", f, A, workers=0),
            no(ValueError, r"workers\b.*-1000", f, A, workers=-1000),
            no(TypeError, r"workers\b.*1\.5", f, A, workers=1.5),
            no(TypeError, r"where\b.*int64", f, A, where=np.ones((2, 3), np.int64)),
            no(ValueError, r"where\b.*\(4,\)", f, A, where=np.ones(4, bool)),
            no(ValueError, r"where\b.*\(1, 2, 3\)", f, A, where=np.ones((1, 2, 3), bool)),
        )
    ),
    *(
        case
        for f, p in ARRAYS.items()
        for case in (
            no(ValueError, rf"\b{p}\b", f, 1.0, 1.0),
            no(ValueError, rf"\b{p}: the axis is empty", f, np.ones((2, 0)), np.ones((2, 0))),
            no(AXIS, r"axis\b.*2", f, A, A, axis=2),
            no(TypeError, rf"\b{p}\b.*complex128", f, A * 1j, A),
            no(TypeError, rf"{p}: a masked array", f, MASKED, A),
            no(TypeError, r"g: a masked array", f, A, MASKED),
            no(TypeError, r"axis: expected an integer, found None", f, A, A, axis=None),
            no(TypeError, r"\bg\b.*complex128", f, A, A * 1j),
            no(ValueError, r"\bg\b.*\(3,\)", f, A, A[0]),
            no(ValueError, r"\bg\b.*\(3, 2\)", f, A, A.T),
            no(ValueError, r"workers\b.*0", f, A, A, workers=0),
        )
    ),
    *(
        case
        for f, args in [*((f, (A,)) for f in OF_X), *((f, (A, A)) for f in VJPS)]
        for case in (
            no(ValueError, r"out\b.*\(3, 2\)", f, *args, out=np.empty((3, 2))),
            no(ValueError, r"out\b.*\(1, 2, 3\)", f, *args, out=np.empty((1, 2, 3))),
            no(TypeError, r"out\b.*int64", f, *args, out=np.empty((2, 3), np.int64)),
            no(TypeError, r"out\b.*bool", f, *args, out=np.empty((2, 3), bool)),
            no(ValueError, r"out\b.*(read|writ)", f, *args, out=FROZEN),
            no(TypeError, r"out\b.*list", f, *args, out=[0.0] * 3),
            no(TypeError, r"out: a masked array .*pass out\.data", f, *args, out=MASKED.copy()),
        )
    ),
    *(
        no(ValueError, r"out\b.*sparse|sparse\b.*out", f, A, sparse=True, out=np.empty((2, 3)))
        for f in (um.sparsemax, um.project_simplex, um.entmax)
    ),
    *(
        case
        for f in (um.sparsemax_vjp, um.project_simplex_vjp, um.entmax_vjp)
        for case in (
            no(ValueError, r"\bp\b.*2", f, (DATA, INDICES), A),
            no(ValueError, r"indptr", f, (DATA, INDICES, INDPTR[:-1]), A),
            no(ValueError, r"indptr", f, (DATA, INDICES, INDPTR + 1), A),
            no(ValueError, r"indptr", f, (DATA, INDICES, np.array([0, 9, 6])), A),
            no(ValueError, r"indptr", f, (DATA, INDICES, np.array([0, -1, 6])), A),
            no(ValueError, r"indices\b.*3", f, (DATA, INDICES + 1, INDPTR), A),
            no(ValueError, r"indices\b.*-1", f, (DATA, INDICES - 1, INDPTR), A),
            no(ValueError, r"indices|indptr", f, (DATA, INDICES[:-1], INDPTR), A),
            no(ValueError, r"\bg\b", f, CSR, A[0]),
            no(ValueError, r"axis\b.*0", f, CSR, A, axis=0),
            no(ValueError, r"out\b", f, CSR, A, out=np.empty((2, 3))),
        )
    ),
]


@pytest.mark.parametrize(("f", "args", "options", "error", "message"), REFUSED)
def test_refuses(f, args, options, error, message):
    with pytest.raises(error, match=message) as caught:
        f(*args, **options)
    assert "\n" not in str(caught.value).strip()


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "project_simplex", "sparsemax", "entmax"])
def test_options_are_keywords(name):
    f = getattr(um, name)
    with pytest.raises(TypeError, match="positional"):
        f(A, 1.0, -1)
    with pytest.raises(TypeError, match=r"unexpected keyword|positional-only"):
        f(x=A)


def test_bisection_ends_where_nothing_is_left_to_halve():
    x = np.array([1.0, 2.0, -3.0], np.float32)
    for alpha in (1.3, 3, 1e300):
        expected = um.entmax(x, alpha, method="bisect", n_iter=5000)
        np.testing.assert_array_equal(um.entmax(x, alpha, method="bisect", n_iter=2**32 - 1), expected)


ROW, OUT = np.array([0.5, 0.5, 1.0]), np.empty(3)
ODD = np.frombuffer(bytes(25), np.float64, 3, offset=1)
ENTRIES = np.arange(2, dtype=np.uintp)


@pytest.mark.parametrize(
    ("function", "arguments", "options", "error", "message"),
    [
        no(ValueError, "out: expected", _core.softmax, ROW, None, OUT[:2], -1, 1.0, 1),
        no(ValueError, "where: expected", _core.softmax, ROW, OUT[:2] == 0, OUT, -1, 1.0, 1),
        no(ValueError, "out: expected", _core.softmax_vjp, ROW, ROW, OUT[:2], -1, 1.0, 1),
        no(ValueError, "g: expected", _core.softmax_vjp, ROW, ROW[:2], OUT, -1, 1.0, 1),
        no(TypeError, "along the axis", _core.softmax_vjp, ROW, ROW, OUT, 1, 1.0, 1),
        no(TypeError, "along the axis", _core.entmax_sparse, ROW, None, -2, 1.5, None, 1.0, 1),
        no(TypeError, "along the axis", _core.threshold, ROW[:0], None, 0, 1.5, 1),
        no(ValueError, "indptr", _core.entmax_vjp_sparse, ROW[:2], ENTRIES, ENTRIES + 1, ROW, OUT[:2], 3, 1.5, 1.0, 1),
        no(TypeError, "aligned", _core.softmax, ROW, None, ODD, -1, 1.0, 1),
        no(TypeError, "aligned", _core.softmax_vjp, ROW, ODD, OUT, -1, 1.0, 1),
        no(TypeError, "C-contiguous", _core.softmax, ROW[None].repeat(2, 0), None, np.empty((3, 2)).T, -1, 1.0, 1),
        no(TypeError, "x or out", _core.softmax, None, None, None, -1, 1.0, 1),
    ],
)
def test_the_core_refuses_what_the_package_never_passes(function, arguments, options, error, message):
    with pytest.raises(error, match=message):
        function(*arguments, **options)


@pytest.mark.parametrize("x", [ODD, ROW.astype(">f8"), ROW[::2], ROW[:0], ROW.astype(int), ROW[0:1].reshape(())])
def test_the_core_leaves_what_is_not_plain_to_the_package(x):
    assert _core.softmax(x, None, None, -1, 1.0, 1) is None
