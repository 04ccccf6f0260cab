"""The maps beyond softmax, sparsemax and entmax: known values, the table, slow oracles, gradients, noise, refusals.

Where a tolerance comes from. Projections (onto the ball, within bounds) are 1-Lipschitz: roundings of scores near the
threshold, a few eps of the largest part, come out as they went in. Normalised maps carry a few eps relative to each
entry, and as many more as the score lies below the top in units of the temperature. normmax is held between its values
at scores that are moved by a few eps either way. Noise is held to adaptive quadrature within 1e-9.
"""

import inspect
import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from test_maps import DTYPES, SPECIAL_MAPS, assert_sums, eps, no, scores

import unitmass as um
from reference import maps as ref

quad = pytest.importorskip("scipy.integrate").quad

nan, inf = math.nan, math.inf
X = [-2, 0, 0.5]
NOISES = ["gumbel", "normal", "exponential", "uniform", "logistic"]
noises = pytest.mark.parametrize("noise", NOISES)
dtypes = pytest.mark.parametrize("dtype", DTYPES)
any_row = st.sampled_from(DTYPES).flatmap(lambda dtype: scores(dtype, max_dims=1, max_side=40))

# --- known values -----------------------------------------------------------------------------------------------------

# To the digits printed: by hand, by bisection in 50 digits, and for noise by quadrature (tests/reference/maps.py).
KNOWN = [
    ("normmax", lambda: um.normmax(X), [0, 0.3110, 0.6890], 5e-5),
    ("normmax alpha=1000", lambda: um.normmax(X, 1000), [0, 0.4997, 0.5003], 5e-5),
    ("budget", lambda: um.budget(X, 2), [0, 1, 1], 0),
    ("budget of all", lambda: um.budget(X, 3), [1, 1, 1], 0),
    ("capped_simplex", lambda: um.capped_simplex([0.5, 2, 1], [1, 0.25, 0.5], 1.5), [0.75, 0.25, 0.5], 1e-15),
    ("csparsemax", lambda: um.csparsemax(X, 0.5), [0, 0.5, 0.5], 0),
    ("csoftmax", lambda: um.csoftmax(X, 0.5), [0.05960146, 0.44039854, 0.5], 5e-9),
    ("project_l1_ball", lambda: um.project_l1_ball([-2, 0, 1.5]), [-0.75, 0, 0.25], 0),
    ("project_l1_ball inside", lambda: um.project_l1_ball([-0.5, 0, 0.25]), [-0.5, 0, 0.25], 0),
    ("taylor_softmax", lambda: um.taylor_softmax(X), [0.27586, 0.27586, 0.44828], 5e-6),
    ("taylor_softmax [-3, 0]", lambda: um.taylor_softmax([-3, 0]), [0.714, 0.286], 5e-4),
    ("topk_softmax", lambda: um.topk_softmax(X, 2), [0, 0.37754, 0.62246], 5e-6),
    ("topk_softmax by mass", lambda: um.topk_softmax(X, top_p=0.9), [0, 0.37754, 0.62246], 5e-6),
    ("ev_softmax", lambda: um.ev_softmax(X), [0, 0.37754067, 0.62245933], 5e-9),
    ("sparsegen", lambda: um.sparsegen(X, 0.25), [0, 1 / 6, 5 / 6], 1e-15),
    ("sparsemax at T = 2", lambda: um.sparsemax(X, 2.0), [0, 0.375, 0.625], 0),
    ("entmax at T = 1/2", lambda: um.entmax([0.5, 0], temperature=0.5), [0.83071891, 0.16928109], 5e-9),
    ("noisy_argmax", lambda: um.noisy_argmax(X), [0.04861082, 0.35918811, 0.59220107], 5e-9),
    ("noisy_argmax normal", lambda: um.noisy_argmax(X, "normal"), [0.01364552, 0.35606849, 0.63028599], 5e-9),
    ("noisy_argmax normal of 2", lambda: um.noisy_argmax([1, 0], "normal"), [0.76024994, 0.23975006], 5e-9),
    ("noisy_argmax normal of 3", lambda: um.noisy_argmax([1, 0, 0], "normal"), [0.63370205, *[0.18314898] * 2], 5e-9),
    ("noisy_argmax uniform", lambda: um.noisy_argmax([0.5, 0], "uniform"), [0.875, 0.125], 1e-12),
    # e^-1/2 to the second: permute-and-flip of two.
    ("noisy_argmax exponential", lambda: um.noisy_argmax([1, 0], "exponential"), [0.81606028, 0.18393972], 5e-9),
]


@pytest.mark.parametrize(("call", "value", "digits"), [k[1:] for k in KNOWN], ids=[k[0] for k in KNOWN])
def test_known_values(call, value, digits):
    np.testing.assert_allclose(call(), value, rtol=0, atol=digits)


# --- each map at its options, beside its oracle -----------------------------------------------------------------------


def projected(total=1.0):
    """Allow a few roundings of numbers no larger than the total."""
    return lambda q, x, dtype: 8 * eps(dtype) * total


def normalised(temperature=1.0):
    """Allow a few roundings of each entry, and those of its exponent and of all in the sum."""

    def error(q, x, dtype):
        y = np.minimum((x.max() - x.astype(ref.WIDE)) / ref.WIDE(temperature), 1000)
        return eps(dtype) * (16 + 4 * y + 4 * (q * y).sum()) * q + np.finfo(dtype).tiny

    return error


def relative(q, x, dtype):
    """Allow a few roundings of each factor of a polynomial, and as many for x/T."""
    return 128 * eps(dtype) * q + np.finfo(dtype).tiny


def between(alpha, temperature=1.0):
    """Allow what normmax can be at scores that are a few roundings off."""

    def error(q, x, dtype):
        z = x.astype(ref.WIDE) / ref.WIDE(temperature)
        z, e = z - z.max(), ref.WIDE(1) / (ref.WIDE(alpha) - 1)
        top = ref.normmax_top(z, alpha)
        low, high = (np.clip(z + top + s * 4 * eps(dtype), 0, None) for s in (-1, 1))
        low, high = (np.where(v > 0, v, 1) ** e * (v > 0) for v in (low, high))
        slack = eps(dtype) * (16 + 4 * e * np.abs(np.log(np.where(high > 0, high, 1))))
        return np.maximum(high / low.sum() * (1 + slack) - q, q - low / high.sum() * (1 - slack)) + np.finfo(dtype).tiny

    return error


class Case:
    """A map at some options, its oracle under the rule of special values, and the error allowed in a row."""

    def __init__(self, f, oracle, error, total=1.0):
        self.f, self.oracle, self.error, self.total = f, oracle, error, total


def plain(f, row, error, **options):
    """A map under the rule of all."""
    return Case(
        lambda x, **kw: f(x, **options, **kw),
        lambda x, where=None: ref.rowwise(lambda r: row(r, **options), x, where=where),
        error,
    )


def capped(f, row, upper, error, total=1.0, **options):
    """A map with bounds that n entries can hold: a number, or a function of n."""
    temperature = options.get("temperature", 1.0)

    def bound(x):
        n = x.shape[-1]
        return upper(n) if callable(upper) else max(upper, total / n)

    def oracle(x, where=None):
        stored = np.asarray(bound(x)).astype(x.dtype)
        return ref.with_bounds(lambda r, u, t: row(r, u, t, temperature), x, stored, total, where)

    return Case(lambda x, **kw: f(x, bound(x), **options, **kw), oracle, error, total)


def uneven(n):
    """Bounds that are not the same for all, some of them 0."""
    return np.where(np.arange(n) % 4 == 2, 0, 0.25 + np.arange(n) % 3 / 2) if n > 4 else np.full(n, 1.0)


def budget(k, temperature=1.0):
    def share(x):
        return min(k, x.shape[-1])

    return Case(
        lambda x, **kw: um.budget(x, share(x), temperature=temperature, **kw),
        lambda x, where=None: ref.with_bounds(
            lambda r, u, t: ref.capped_row(r, u, t, temperature), x, 1, x.dtype.type(share(x)), where
        ),
        projected(2 * k),
        k,
    )


def topk(k=None, top_p=None, temperature=1.0):
    def oracle(x, where=None):
        """Of scores of +inf only the chosen share."""
        p = ref.rowwise(lambda r: ref.topk_row(r, k, top_p, temperature), x, where=where)
        for i in np.ndindex(x.shape[:-1]):
            tops = np.flatnonzero(np.isinf(x[i]) & (p[i] > 0))
            count = min(tops.size, k) if k else math.ceil(top_p * tops.size)
            if tops.size:
                p[i] = np.isin(np.arange(x.shape[-1]), tops[:count]) / ref.WIDE(count)
        return p

    return Case(
        lambda x, **kw: um.topk_softmax(x, k, top_p=top_p, temperature=temperature, **kw),
        oracle,
        normalised(temperature),
    )


def ball(radius):
    return Case(
        lambda x, **kw: um.project_l1_ball(x, radius, **kw),
        lambda x, where=None: ref.l1_ball(x, radius, where),
        projected(radius),
    )


def tempered(f, row, temperature):
    """A map of the first family at a temperature: that of x/T in long doubles."""
    return Case(
        lambda x, **kw: f(x, temperature=temperature, **kw),
        lambda x, where=None: ref.rowwise(lambda r: row(r / ref.WIDE(temperature)), x, where=where),
        lambda q, x, dtype: 32 * eps(dtype),
    )


CASES = {
    **{f"sparsemax T={t}": tempered(um.sparsemax, ref.sparsemax_row, t) for t in (0.3, 2.0)},
    **{f"entmax T={t}": tempered(um.entmax, ref.entmax15_row, t) for t in (0.3, 2.0)},
    "sparsegen 0.7": Case(
        lambda x, **kw: um.sparsegen(x, 0.7, **kw),
        lambda x, where=None: ref.rowwise(lambda r: ref.sparsemax_row(r / ref.WIDE(1 - 0.7)), x, where=where),
        projected(),
    ),
    **{
        f"normmax {a} T={t}": plain(um.normmax, ref.normmax_row, between(a, t), alpha=a, temperature=t)
        for a, t in [(1.05, 1.0), (1.3, 1.0), (1.5, 2.0), (2.0, 1.0), (2.0, 0.3), (3.0, 1.0), (10.0, 1.0)]
    },
    **{f"budget {k} T={t}": budget(k, t) for k, t in [(0.25, 1.0), (1.0, 1.0), (2.0, 0.3), (3.7, 2.0)]},
    "capped_simplex .3": capped(um.capped_simplex, ref.capped_row, 0.3, projected()),
    "capped_simplex 1.3": capped(
        lambda x, u, **kw: um.capped_simplex(x, u, 2.5, **kw), ref.capped_row, 1.3, projected(2.5), 2.5
    ),
    "capped_simplex uneven": capped(um.capped_simplex, ref.capped_row, uneven, projected()),
    "csparsemax .4 T=.3": capped(um.csparsemax, ref.capped_row, 0.4, projected(), temperature=0.3),
    "csoftmax .3": capped(um.csoftmax, ref.csoftmax_row, 0.3, normalised()),
    "csoftmax uneven": capped(um.csoftmax, ref.csoftmax_row, uneven, normalised()),
    "csoftmax inf": capped(um.csoftmax, ref.csoftmax_row, math.inf, normalised()),
    **{f"project_l1_ball {r}": ball(r) for r in (0.25, 1.0, 7.0)},
    **{
        f"taylor_softmax {k} T={t}": plain(um.taylor_softmax, ref.taylor_row, relative, order=k, temperature=t)
        for k, t in [(2, 1.0), (2, 0.3), (4, 1.0), (6, 2.0), (16, 1.0)]
    },
    **{f"topk_softmax {k} T={t}": topk(k, None, t) for k, t in [(1, 1.0), (3, 1.0), (5, 0.5), (100, 1.0)]},
    **{f"topk_softmax top_p={m}": topk(None, m) for m in (0.3, 0.9, 1.0)},
    **{f"ev_softmax T={t}": plain(um.ev_softmax, ref.ev_row, normalised(t), temperature=t) for t in (1.0, 0.3)},
    "noisy_argmax T=.3": Case(
        lambda x, **kw: um.noisy_argmax(x, scale=0.3, **kw),
        lambda x, where=None: ref.softmax(x, 0.3, where=where),
        lambda q, x, dtype: 16 * eps(dtype),
    ),
}
STEEP = [name for name in CASES if name.startswith(("normmax 3", "normmax 10"))]  # roots of what is near 0
TABLE = {row.name: row for row in um.maps.table()}
ONE_EACH = {name.split()[0]: name for name in CASES}.values()  # where the oracles are slow
cases = pytest.mark.parametrize("name", CASES)


def tolerance(name, dtype):
    return (eps(dtype) ** (1 / 3) if name in STEEP else 128 * eps(dtype)) * max(CASES[name].total, 1)


def knife_edge(name, x):
    """Whether a rounding decides what is kept."""
    y = x.astype(ref.WIDE)
    y, slack = y - y.max(), 64 * eps(x.dtype)
    if name.startswith("topk_softmax top_p") and not name.endswith("1.0"):
        mass = np.cumsum(np.sort(ref.softmax_row(y))[::-1])
        return (np.abs(mass - float(name.split("=")[1])) < slack).any()
    if name.startswith("ev_softmax") and y.any():
        return (np.abs(y - y.mean()) <= slack * -y.min()).any()
    return False


# --- the table cannot lie ---------------------------------------------------------------------------------------------

NOT_MAPS = {"Map", "Table", "entmax_alpha_grad", "sample", "table", "threshold"}
NEEDED = {  # options without a default
    "budget": {"k": 2},
    "capped_simplex": {"upper": 0.4},
    "csoftmax": {"upper": 0.4},
    "csparsemax": {"upper": 0.4},
    "topk_softmax": {"k": 2},
}


def test_every_map_is_in_the_table_and_has_a_gradient():
    gradients = {name for name in um.maps.__all__ if name.endswith("_vjp")}
    assert {*um.maps.__all__} - gradients - NOT_MAPS == {*TABLE}
    assert gradients == {f"{name}_vjp" for name in TABLE}
    assert {*um.maps.__all__} - {"Map", "Table", "sample", "table"} <= {*um.__all__}
    assert {name.split()[0] for name in (*CASES, *SPECIAL_MAPS)} == {*TABLE}


def test_the_table_prints_aligned():
    table = um.maps.table()
    head, *lines = str(table).splitlines()
    assert len(lines) == len(table)
    assert {line.index("O(n)") for line in lines} == {head.index("cost")}
    assert repr(table) == str(table)


@pytest.mark.parametrize("name", TABLE)
def test_the_table_says_what_the_numbers_say(name):
    f, row, options = getattr(um, name), TABLE[name], NEEDED.get(name, {})
    x = np.random.default_rng(1).normal(0, 2, (2000, 6))
    p = f(x, **options)
    masses = np.exp(p) if name == "log_softmax" else p
    if name == "project_l1_ball":
        assert (np.abs(p).sum(-1) <= 1 + 1e-15).all()
    else:
        np.testing.assert_allclose(masses.sum(-1), options["k"] if name == "budget" else 1, rtol=4e-15)
    assert (masses == 0).any() == row.sparse
    sorted_p = np.take_along_axis(p, np.argsort(x), -1)
    assert (np.diff(sorted_p) >= 0).all() == row.order_preserving
    assert np.allclose(f(x + 3.0, **options), p, rtol=0, atol=1e-13) == row.shift_invariant


# --- agreement with the oracles ---------------------------------------------------------------------------------------


def assert_agrees(name, x):
    case = CASES[name]
    p, q = case.f(x), case.oracle(x)
    assert p.dtype == x.dtype
    off, allowed = np.broadcast_arrays(np.abs(p - q), case.error(q, x, x.dtype))
    worst = int(np.argmax(off / allowed))
    assert (off <= allowed).all(), (
        f"[{worst}] is {p[worst]!r}, not {float(q[worst])!r}; allowed {float(allowed[worst])}"
    )
    if not name.startswith("project_l1_ball"):
        assert_sums(p, x.dtype.type(min(case.total, x.size) if name.startswith("budget") else case.total))
    elif np.abs(q).sum() >= float(name.split()[1]):
        assert_sums(np.abs(p), float(name.split()[1]))
    return p


@cases
@given(x=any_row)
def test_agrees_with_the_oracle(name, x):
    x = np.clip(x, -1e30, 1e30)
    assume(not knife_edge(name, x))
    assert_agrees(name, x)


@cases
@dtypes
@pytest.mark.parametrize("n", [1, 2, 7, 31, 33, 100, 1000, 5000])
def test_every_width(name, dtype, n):
    rng = np.random.default_rng(n)
    quarters, equal = rng.integers(0, 3, n) / 4, np.full(n, 0.1)
    for x in (rng.normal(0, 2, n), rng.uniform(0, 1, n), rng.normal(0, 0.01, n), quarters, equal):
        x = x.astype(dtype)
        if not knife_edge(name, x):
            assert_agrees(name, x)


@dtypes
@pytest.mark.parametrize("name", ONE_EACH)
def test_long_rows(name, dtype):
    rng = np.random.default_rng(5)
    for scale in (2, 0.01):
        x = rng.normal(0, scale, 140_001).astype(dtype)
        if not knife_edge(name, x):
            np.testing.assert_array_equal(CASES[name].f(x, workers=1), assert_agrees(name, x))


@pytest.mark.parametrize("alpha", [1.01, 1.3, 2, 5, 1000])
def test_the_oracles_of_normmax_agree(alpha):
    for n in (1, 2, 5):
        x = np.random.default_rng(n).normal(0, 0.5, n).round(4)
        exact = [float(v) for v in ref.normmax_mp(x, alpha)]
        np.testing.assert_allclose(ref.normmax_row(x, alpha).astype(float), exact, rtol=1e-11, atol=1e-13)


def test_the_oracle_of_bounds_is_optimal():
    """The conditions of Karush, Kuhn and Tucker: x - p is tau inside, not above it at 0, not below it at the bound."""
    rng = np.random.default_rng(6)
    for _ in range(200):
        n = int(rng.integers(1, 9))
        x, u = rng.normal(0, 1, n).round(1), rng.choice([0, 0.25, 0.5, 1, np.inf], n)
        total = min(rng.uniform(0.1, 2), u.sum() / 2)
        if total > 0:
            p = ref.capped_row(x, u, total).astype(float)
            assert abs(p.sum() - total) < 1e-14
            assert ((p >= 0) & (p <= u)).all()
            assert (x - p)[p < u].max() <= (x - p)[p > 0].min() + 1e-12


# --- special values ---------------------------------------------------------------------------------------------------


@cases
@given(dtype=st.sampled_from(DTYPES), data=st.data())
def test_special_values_follow_the_rule(name, dtype, data):
    case = CASES[name]
    shape = data.draw(array_shapes(min_dims=1, max_dims=2, max_side=12))
    quarter = st.integers(-12, 12).map(lambda v: v / 4)
    x = data.draw(arrays(dtype, shape, elements=st.one_of(quarter, st.sampled_from([math.inf, -math.inf, math.nan]))))
    where = data.draw(st.one_of(st.none(), arrays(bool, shape)))
    keep = np.ones(shape, bool) if where is None else where
    # Of a row that has a NaN and is excluded whole, either may be said.
    assume(not (np.isnan(x).any(-1) & ~keep.any(-1)).any())
    for r, k in zip(x.reshape(-1, shape[-1]), keep.reshape(-1, shape[-1]), strict=True):
        body = r[k & np.isfinite(r)]
        assume(not (body.size and knife_edge(name, body)))
    got, expected = case.f(x, where=where), case.oracle(x, where=where)
    np.testing.assert_allclose(got, expected.astype(float), rtol=0, atol=tolerance(name, dtype))
    absent = ~keep if name.startswith("project_l1_ball") else ~keep | (x == -np.inf)
    assert (got[absent & ~np.isnan(expected)] == 0).all()


@dtypes
@pytest.mark.parametrize(("name", "n"), [*((name, 50) for name in CASES), *((name, 140_000) for name in ONE_EACH)])
def test_special_rows(name, dtype, n):
    case = CASES[name]
    x = np.random.default_rng(3).normal(0, 1, (7, n)).astype(dtype)
    where = np.ones((7, n), bool)
    x[0, 7] = np.nan
    x[1, ::2] = -np.inf
    x[2] = -np.inf
    x[3, [0, 9]] = np.inf
    where[4], where[5, ::3] = False, False
    x[6, 0], where[6, 0] = np.nan, False
    got = case.f(x, where=where)
    assert np.isnan(got[[0, 6]]).all()
    assert (got[4] == 0).all()
    for i in (1, 2, 3, 5):
        if not any(knife_edge(name, body) for body in [x[i][where[i] & np.isfinite(x[i])]] if body.size):
            expected = case.oracle(x[i], where=where[i]).astype(float)
            np.testing.assert_allclose(got[i], expected, rtol=0, atol=tolerance(name, dtype))
    if not name.startswith("project_l1_ball"):
        assert np.isnan(got[2]).all()
        assert (got[1, ::2] == 0).all()


SHIFTED = [name for name in CASES if TABLE[name.split()[0]].shift_invariant]


@pytest.mark.parametrize("name", SHIFTED)
def test_survives_a_large_offset(name):
    # float32 near 1e6 has steps of 1/16. Taking 1e6 away again is exact, so it must give the same row.
    x = np.random.default_rng(0).normal(0, 0.5, (20, 1000)).astype(np.float32) + np.float32(1e6)
    near = x - np.float32(1e6)
    if any(knife_edge(name, row) for row in near):
        pytest.skip("a rounding decides what is kept")
    np.testing.assert_allclose(CASES[name].f(x), CASES[name].f(near), rtol=0, atol=tolerance(name, np.float32))


@cases
@dtypes
def test_one_score_gets_all(name, dtype):
    x = np.array([[3.0], [-2.0]], dtype)
    if name.startswith("project_l1_ball"):
        expected = ref.l1_ball(x, float(name.split()[1]))
    else:
        total = CASES[name].total
        expected = np.full((2, 1), min(total, 1) if name.startswith("budget") else total)
    np.testing.assert_allclose(CASES[name].f(x), expected.astype(dtype), rtol=2 * eps(dtype))


@cases
def test_no_rows(name):
    for shape in [(0, 5), (3, 0, 4)]:
        assert CASES[name].f(np.zeros(shape)).shape == shape


ORDERED = [name for name in CASES if TABLE[name.split()[0]].order_preserving and "uneven" not in name]


@pytest.mark.parametrize("name", ORDERED)
@given(x=any_row)
def test_the_larger_score_has_no_less(name, x):
    x = np.sort(x)
    with np.errstate(over="ignore"):
        steps = np.diff(x)
    p = CASES[name].f(x)
    assert (np.diff(p)[steps > 0] >= 0).all()
    if not name.startswith("topk_softmax"):
        assert (np.diff(p)[steps == 0] == 0).all()


# --- bounds -----------------------------------------------------------------------------------------------------------

BOUNDED = [um.capped_simplex, um.csoftmax, um.csparsemax]
BOUNDED_VJPS = [um.capped_simplex_vjp, um.csoftmax_vjp, um.csparsemax_vjp]


@dtypes
@pytest.mark.parametrize("f", BOUNDED)
def test_bounds_that_just_hold_the_sum(f, dtype):
    """1/n is rounded, and n times it may be less than 1."""
    for n in range(1, 60):
        p = f(np.random.default_rng(n).normal(0, 3, n).astype(dtype), 1 / n)
        np.testing.assert_allclose(p, 1 / n, rtol=8 * n * eps(dtype))


@pytest.mark.parametrize("f", BOUNDED)
def test_what_a_bound_keeps_off_goes_to_any_depth(f):
    """e^-1e5 is 0, and yet the second entry gets what the first may not have."""
    for x in ([0.0, -1e5], [0.0, -1e5, -2e5]):
        np.testing.assert_allclose(f(x, 0.6)[:2], [0.6, 0.4], rtol=4e-15)


def test_infinite_scores_fill_up_to_their_bounds():
    assert um.budget([inf, 0, 1, inf], 2.5).tolist() == [1, 0, 0.5, 1]
    assert um.budget([inf, 0, 1, inf], 1.5).tolist() == [0.75, 0, 0, 0.75]
    np.testing.assert_allclose(um.csparsemax([inf, 0.0, 0.0], 0.5), [0.5, 0.25, 0.25], rtol=1e-15)
    np.testing.assert_allclose(um.csoftmax([inf, 0.0, 0.0, inf], [0.2, 1, 1, 0.4]), [0.2, 0.2, 0.2, 0.4], rtol=4e-15)
    assert np.isnan(um.csoftmax([-inf, 0.0, 0.0], 0.4)).all()
    assert np.isnan(um.budget([[0.0, 1.0]], 1.5, where=[[True, False]])).all()


@pytest.mark.parametrize("f", BOUNDED)
def test_bounds_broadcast(f):
    rng = np.random.default_rng(4)
    x, each = rng.normal(0, 1, (3, 4, 5)), rng.uniform(0.4, 1, (3, 4, 5))
    parts = [each, each[0], each[0, 0], each[:, :1], each[..., :1], each[:1, :1], 0.5, np.float32(0.5), np.array([0.5])]
    for bound in parts:
        full = np.array(np.broadcast_to(bound, x.shape))
        expected = f(x, full)
        np.testing.assert_array_equal(f(x, bound), expected)
        for axis in range(3):
            turned = f(np.moveaxis(x, -1, axis), np.moveaxis(full, -1, axis), axis=axis)
            np.testing.assert_array_equal(np.moveaxis(turned, axis, -1), expected)
        rows = [f(x[i], full[i].copy()) for i in np.ndindex(3, 4)]
        np.testing.assert_array_equal(expected, np.reshape(rows, x.shape))
    np.testing.assert_array_equal(f(x, each.tolist()), f(x, each))
    assert f(x[:0], each[0]).shape == (0, 4, 5)


def test_one_parameter_per_row():
    rng = np.random.default_rng(8)
    x, g = rng.normal(0, 1, (6, 9)), rng.normal(size=(6, 9))
    k, alpha, radius = rng.uniform(0.5, 4, 6), rng.uniform(1.2, 4, 6), rng.uniform(0.5, 4, 6)

    def by_rows(f, *arguments):
        return [f(*row) for row in zip(*arguments, strict=True)]

    for f, values in (
        (um.budget, k),
        (um.normmax, alpha),
        (um.project_l1_ball, radius),
        (lambda x, total: um.capped_simplex(x, 0.7, total), k),
    ):
        np.testing.assert_array_equal(f(x, values), by_rows(f, x, values))
        np.testing.assert_array_equal(f(x.T, values, axis=0).T if f in (um.budget,) else f(x, values), f(x, values))
    for f, vjp, values in (
        (um.normmax, um.normmax_vjp, alpha),
        (um.project_l1_ball, um.project_l1_ball_vjp, radius),
    ):
        p = f(x, values)
        np.testing.assert_array_equal(vjp(p, g, values), by_rows(vjp, p, g, values))


@pytest.mark.parametrize("f", BOUNDED)
def test_bounds_may_lie_in_the_output(f):
    x = np.random.default_rng(9).normal(size=(4, 6))
    bounds = np.random.default_rng(10).uniform(0.4, 1, x.shape)
    expected = f(x, bounds)
    np.testing.assert_array_equal(f(x, bounds, out=bounds), expected)


@pytest.mark.parametrize("f", BOUNDED)
def test_a_bound_beyond_the_type_is_none(f):
    x = np.array([0.0, 1, 0.5], np.float32)
    np.testing.assert_array_equal(f(x, [1e300, 1e300, 1]), f(x, [inf, inf, 1]))  # and no warning, which is an error


def test_cold_budgets_are_whole():
    x = np.random.default_rng(11).normal(size=(50, 20))
    p = um.budget(x, 5, temperature=1e-6)
    np.testing.assert_array_equal(p, np.argsort(np.argsort(x)) >= 15)


# --- at the borders ---------------------------------------------------------------------------------------------------


def test_ties_of_topk_go_to_the_first():
    assert um.topk_softmax([1.0, 2, 2, 2, 0], 2).tolist() == [0, 0.5, 0.5, 0, 0]
    assert um.topk_softmax([1.0, 1, 1, 1], top_p=0.4).tolist() == [0.5, 0.5, 0, 0]
    assert um.topk_softmax([inf, 1, inf, inf], 2).tolist() == [0.5, 0, 0.5, 0]
    for options in ({"k": 3}, {"k": 10**9}, {"top_p": 1}):
        np.testing.assert_array_equal(um.topk_softmax(X, **options), um.softmax(X))


@dtypes
def test_ev_softmax_of_equal_scores(dtype):
    for n in (2, 3, 7, 10, 100, 1000, 4097, 150_001):  # a mean is rounded, and may lie above all of them
        np.testing.assert_allclose(um.ev_softmax(np.full(n, 0.1, dtype)), 1 / n, rtol=8 * eps(dtype))


def test_sparsegen_at_its_ends_and_as_the_least():
    x, rng, lam = np.random.default_rng(12).normal(size=(20, 9)), np.random.default_rng(13), 0.4
    np.testing.assert_array_equal(um.sparsegen(x), um.sparsemax(x))
    np.testing.assert_allclose(um.sparsegen(x, -1e9), 1 / 9, rtol=1e-7)
    assert (um.sparsegen(x, 1 - 1e-12) == (x == x.max(-1, keepdims=True))).all()

    def objective(p):
        return ((p - x) ** 2).sum(-1) - lam * (p**2).sum(-1)

    p = um.sparsegen(x, lam)
    for _ in range(100):
        assert (objective(0.99 * p + 0.01 * rng.dirichlet(np.ones(9), 20)) >= objective(p) - 1e-14).all()


@dtypes
def test_temperature_divides(dtype):
    x = (np.random.default_rng(14).integers(-64, 64, (30, 12)) / 16).astype(dtype)
    for f, options in [
        (um.sparsemax, {}),
        (um.entmax, {}),
        (um.entmax, {"alpha": 1.3}),
        (um.entmax, {"alpha": 1.3, "method": "bisect"}),
        (um.normmax, {}),
        (um.budget, {"k": 3}),
        (um.csparsemax, {"upper": 0.3}),
        (um.csoftmax, {"upper": 0.3}),
        (um.taylor_softmax, {}),
        (um.ev_softmax, {}),
        (um.topk_softmax, {"k": 3}),
    ]:
        for t in (0.25, 2.0):
            expected = f(x / dtype(t), **options)
            np.testing.assert_allclose(f(x, temperature=t, **options), expected, rtol=0, atol=64 * eps(dtype))
    for f in (um.sparsemax, um.entmax):
        data, indices, _ = f(x, temperature=2.0, sparse=True)
        p = f(x, temperature=2.0)
        np.testing.assert_array_equal(data, p[p > 0])
        np.testing.assert_array_equal(indices, np.nonzero(p)[1])


@dtypes
def test_sparse_gradients_at_a_temperature(dtype):
    rng = np.random.default_rng(24)
    x, g = rng.normal(size=(5, 9)).astype(dtype), rng.normal(size=(5, 9)).astype(dtype)
    for f, vjp in ((um.sparsemax, um.sparsemax_vjp), (um.entmax, um.entmax_vjp)):
        p, triple = f(x, temperature=0.6), f(x, temperature=0.6, sparse=True)
        got, expected = vjp(triple, g, temperature=0.6)[0], vjp(p, g, temperature=0.6)[p > 0]
        np.testing.assert_allclose(got, expected, rtol=0, atol=64 * eps(dtype))


@dtypes
@pytest.mark.parametrize("n", [1, 2, 5, 40, 600, 5000, 200_000])  # each way of doing a row
@pytest.mark.parametrize("t", [1, 0.5])
def test_scores_at_the_threshold_itself_get_nothing(n, t, dtype):
    """Steep powers would make much of a rounding: at alpha 100, all scores became equal."""
    for lowest in (0, -5, 100):
        x, one = np.full(n, lowest, dtype), np.zeros(n, dtype)
        top = n // 3
        one[top] = 1
        for alpha in (1.1, 1.5, 2, 2.5, 3, 10, 100, 1e6):
            x[top] = lowest + t
            np.testing.assert_array_equal(um.normmax(x, alpha, temperature=t), one)
            assert t != 1 or um.losses.normmax_loss(x, top, alpha) == 0
        for alpha in (1.25, 1.5, 2, 3, 5):
            x[top] = lowest + t / (alpha - 1)
            np.testing.assert_array_equal(um.entmax(x, alpha, temperature=t), one)
            assert t != 1 or um.losses.entmax_loss(x, top, alpha) == 0


# --- gradients --------------------------------------------------------------------------------------------------------

ROW_BOUNDS = np.linspace(0.2, 0.5, 6)


def gradient(f, vjp, *of_both, of_scores=False, edges=(0.0,), only_f=(), **options):
    """The map, and its gradient from (x, p, g); the values at which it has kinks."""
    return (
        lambda x: f(x, *of_both, *only_f, **options),
        lambda x, p, g: vjp(x if of_scores else p, g, *of_both, **options),
        edges,
    )


GRADIENTS = {
    "sparsemax": gradient(um.sparsemax, um.sparsemax_vjp, 0.6),
    "sparsegen": gradient(um.sparsegen, um.sparsegen_vjp, -0.5),
    **{
        f"entmax {a} {t}": gradient(um.entmax, um.entmax_vjp, a, temperature=t)
        for a, t in [(1, 0.6), (1.3, 0.6), (2, 2.0)]
    },
    **{
        f"normmax {a} {t}": gradient(um.normmax, um.normmax_vjp, a, temperature=t)
        for a, t in [(1.1, 1.0), (1.5, 1.0), (2, 1.0), (2, 0.6), (3, 2.0)]
    },
    **{
        f"budget {k} {t}": (
            lambda x, k=k, t=t: um.budget(x, k, temperature=t),
            lambda x, p, g, t=t: um.budget_vjp(p, g, temperature=t),
            (0.0, 1.0),
        )
        for k, t in [(0.7, 1.0), (2, 1.0), (2.5, 0.6)]
    },
    **{
        f"capped_simplex {np.ndim(u)}": gradient(
            um.capped_simplex, um.capped_simplex_vjp, u, only_f=(1.1,), edges=(0.0, u)
        )
        for u in (0.4, ROW_BOUNDS)
    },
    **{
        f"{f.__name__} {np.ndim(u)} {t}": gradient(f, vjp, u, temperature=t, edges=(0.0, u))
        for f, vjp in [(um.csparsemax, um.csparsemax_vjp), (um.csoftmax, um.csoftmax_vjp)]
        for u in (0.4, ROW_BOUNDS)
        for t in (1.0, 0.6)
    },
    **{f"project_l1_ball {r}": gradient(um.project_l1_ball, um.project_l1_ball_vjp, r) for r in (1.0, 4.0, 6.0)},
    **{
        f"taylor_softmax {k} {t}": gradient(
            um.taylor_softmax, um.taylor_softmax_vjp, k, temperature=t, of_scores=True, edges=()
        )
        for k, t in [(2, 1.0), (4, 0.6), (10, 2.0)]
    },
    "topk_softmax": (lambda x: um.topk_softmax(x, 3), lambda x, p, g: um.topk_softmax_vjp(p, g), (0.0,)),
    "topk_softmax top_p": (
        lambda x: um.topk_softmax(x, top_p=0.8, temperature=0.6),
        lambda x, p, g: um.topk_softmax_vjp(p, g, 0.6),
        (0.0,),
    ),
    **{f"ev_softmax {t}": gradient(um.ev_softmax, um.ev_softmax_vjp, t) for t in (1.0, 0.6)},
    **{
        f"noisy_argmax {noise} {s}": gradient(um.noisy_argmax, um.noisy_argmax_vjp, noise, s, of_scores=True)
        for noise in NOISES
        for s in (0.7, 2.0)
    },
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_vjp_is_the_derivative(name):
    f, vjp, edges = GRADIENTS[name]
    rng, checked = np.random.default_rng(12), 0
    noisy = name.startswith("noisy_argmax")
    h = 5e-3 if noisy else 1e-5  # an integral is right to 1e-10
    for _ in range(60):
        x, g = rng.normal(0, 1, 6), rng.normal(size=6)
        if name.startswith(("noisy_argmax exp", "noisy_argmax uni")):  # kinks where scores lie 0 or 1 noise apart
            apart = np.abs(np.subtract.outer(x, x))[np.triu_indices(6, 1)]
            if min(apart.min(), np.abs(apart - float(name.split()[2])).min()) < 0.02:
                continue
        up, p, down = f(x + h * np.eye(6)), f(x), f(x - h * np.eye(6))
        if any(((moved == edge) != (p == edge)).any() for moved in (up, down) for edge in edges):
            continue  # a kink between
        if name.startswith("project_l1_ball") and abs(np.abs(x).sum() - float(name.split()[1])) < 1e-3:
            continue
        if name.startswith("normmax 3") and p[p > 0].min() < 0.05:
            continue  # the third derivative is out of reach of a difference
        checked += 1
        difference = (up - down) @ g / (2 * h)
        if noisy:  # a second one takes the error of h^2 away
            difference = (4 * difference - (f(x + 2 * h * np.eye(6)) - f(x - 2 * h * np.eye(6))) @ g / (4 * h)) / 3
        # Truncation is h^2/6 times the third derivative, or h^4/30 times the fifth; rounding eps/h, or 1e-10/h.
        allowed = 5e-7 if noisy else 1e-6 if name.startswith("normmax 3") else 5e-8
        np.testing.assert_allclose(vjp(x, p, g), difference, rtol=0, atol=allowed)
    assert checked >= 10


@dtypes
@pytest.mark.parametrize("n", [1, 2, 10, 33, 129])
def test_vjp_is_the_dense_jacobian(n, dtype):
    rng = np.random.default_rng(n)
    x, g = rng.normal(0, 1, n).astype(dtype), rng.normal(size=n).astype(dtype)
    bound = (rng.uniform(0, 3 / n, n) + 1 / n).astype(dtype)

    def assert_product(got, jacobian):
        """Each entry within the roundings of its terms, of a weight for each, and of the mean."""
        terms = np.abs(jacobian).T @ np.abs(g) + np.abs(np.diag(jacobian)) * np.abs(g).max()
        assert (np.abs(got - jacobian.T @ g) <= eps(dtype) * (128 * terms + np.abs(g).max())).all()

    p = um.csparsemax(x, bound)
    assert_product(um.csparsemax_vjp(p, g, bound), ref.bounded_jacobian(p, bound))
    p = um.csoftmax(x, bound)
    assert_product(um.csoftmax_vjp(p, g, bound), ref.bounded_jacobian(p, bound, lambda p: p))
    p = um.budget(x, n / 2)
    assert_product(um.budget_vjp(p, g), ref.bounded_jacobian(p, 1))
    for alpha in (1.3, 2, 3):
        p = um.normmax(x, alpha)
        assert_product(um.normmax_vjp(p, g, alpha), ref.normmax_jacobian(p, alpha))
    for order in (2, 6):
        assert_product(um.taylor_softmax_vjp(x, g, order), ref.taylor_jacobian(x, order))


@dtypes
def test_vjp_of_long_rows(dtype):
    rng, n = np.random.default_rng(25), 150_001
    x, g = rng.normal(0, 1, n).astype(dtype), rng.normal(size=n).astype(dtype)
    p = um.csparsemax(x, 0.01)
    w = (p > 0) & (p < dtype(0.01))
    expected = w * (g - g[w].mean(dtype=ref.WIDE))
    np.testing.assert_allclose(um.csparsemax_vjp(p, g, 0.01), expected.astype(dtype), rtol=0, atol=64 * eps(dtype))
    p = um.csoftmax(x, 2e-5)
    q = np.where(p < dtype(2e-5), p, 0).astype(ref.WIDE)
    expected = q * (g - (q * g).sum() / q.sum())
    np.testing.assert_allclose(
        um.csoftmax_vjp(p, g, 2e-5), expected.astype(dtype), rtol=0, atol=64 * eps(dtype) * q.max()
    )
    p = um.project_l1_ball(x, 5.0)
    s = np.sign(p).astype(ref.WIDE)
    expected = s * (s * g - (s * g).sum() / np.count_nonzero(s))
    np.testing.assert_allclose(um.project_l1_ball_vjp(p, g, 5.0), expected.astype(dtype), rtol=0, atol=64 * eps(dtype))
    u = x.astype(ref.WIDE)
    f, slope = 1 + u + u * u / 2, 1 + u
    expected = slope / f.sum() * (g - (f * g).sum() / f.sum())
    got = um.taylor_softmax_vjp(x, g)
    np.testing.assert_allclose(got, expected.astype(dtype), rtol=0, atol=256 * eps(dtype) * np.abs(expected).max())


def test_vjp_of_rows_without_freedom_is_zero():
    g = np.array([1.0, 2, 3])
    assert um.budget_vjp([0.0, 1, 1], g).tolist() == [0, 0, 0]
    assert um.csparsemax_vjp([0.0, 0.5, 0.5], g, 0.5).tolist() == [0, 0, 0]
    assert um.csoftmax_vjp([0.2, 0.3, 0.5], g, [0.2, 0.3, 0.5]).tolist() == [0, 0, 0]
    zeros = np.zeros(3)  # a row that was excluded whole
    for vjp in (um.normmax_vjp, um.budget_vjp, um.topk_softmax_vjp, um.ev_softmax_vjp, um.sparsegen_vjp):
        np.testing.assert_array_equal(vjp(zeros, g), zeros)


@pytest.mark.parametrize("name", [name for name in GRADIENTS if name.startswith(("taylor", "noisy"))])
def test_vjp_of_impossible_scores(name):
    _, vjp, _ = GRADIENTS[name]
    x, g = np.array([-np.inf, 0.3, -0.2]), np.array([7.0, 1, 2])
    got = vjp(x, None, g)
    assert got[0] == 0
    np.testing.assert_allclose(got[1:], vjp(x[1:], None, g[1:]), rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_small_floats_know_where_they_reached_a_bound(kind):
    dtype = np.float16 if kind == "float16" else pytest.importorskip("ml_dtypes").bfloat16
    rng = np.random.default_rng(15)
    x, g = rng.normal(0, 1, (200, 8)).astype(dtype), rng.normal(0, 1, (200, 8)).astype(dtype)
    for f, vjp in ((um.csoftmax, um.csoftmax_vjp), (um.csparsemax, um.csparsemax_vjp)):
        for bound in (0.3, 0.7, 1 / 3, np.linspace(0.21, 0.37, 8)):
            reached = f(x.astype(np.float32), bound) == np.asarray(bound, np.float32)
            assert reached.any()
            assert (vjp(f(x, bound), g, bound)[reached] == 0).all()


def test_small_floats_know_that_they_reached_the_sphere():
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    x, g = np.array([-2, 0, 1.5, 0.7, -1.9, 2.1, -1.8]).astype(bfloat16), np.arange(7.0).astype(bfloat16)
    p = um.project_l1_ball(x, 1.3)
    assert np.abs(p.astype(np.float64)).sum() < 1.3
    expected = [-1.25, 0, 0, 0, 2.75, 6.25, 4.75]
    np.testing.assert_array_equal(um.project_l1_ball_vjp(p, g, 1.3).astype(np.float64), expected)
    both = um.project_l1_ball_vjp([p, p], [g, g], [1.3, 1.4]).astype(np.float64)  # the second is inside
    np.testing.assert_array_equal(both, [expected, np.arange(7)])


def test_a_million_subnormal_entries_reach_the_sphere():
    """Each of 16.45 / 2^24 is stored as 16 / 2^24."""
    x, g = np.ones(2**20, np.float16), np.arange(2**20) % 2
    p = um.project_l1_ball(x, 16.45 / 16)
    assert (p == 2.0**-20).all()
    np.testing.assert_array_equal(um.project_l1_ball_vjp(p, g, 16.45 / 16), g - 0.5)


# --- noise ------------------------------------------------------------------------------------------------------------


@noises
@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_noisy_argmax_agrees_with_quadrature(noise, scale):
    rng = np.random.default_rng(17)
    fixed = [[0.3], [1.0, 0.0], X, [1.0, 1.0, 0.0], [0.0, 0.0, 0.0], [30.0, 0.0, -1.0], [0.0, 1.0, 2.0]]
    for x in (*fixed, rng.normal(0, 1, 7), rng.normal(0, 0.1, 12)):
        expected = ref.noisy_argmax_row(x, noise, scale)
        assert abs(expected.sum() - 1) < 1e-11
        np.testing.assert_allclose(um.noisy_argmax(x, noise, scale), expected, rtol=0, atol=1e-9)
        # A score in units of the noise is rounded by eps of itself, and no derivative is above 2.
        allowed = 32 * eps(np.float32) * (1 + np.abs(x).max() / scale)
        np.testing.assert_allclose(um.noisy_argmax(np.float32(x), noise, scale), expected, rtol=0, atol=allowed)


@noises
def test_noisy_argmax_of_many(noise):
    """One score above equal others has what one integral says, and they share the rest."""
    law = ref.LAWS[noise]
    for n in (100, 1000, 5000):
        np.testing.assert_allclose(um.noisy_argmax(np.zeros(n), noise), 1 / n, rtol=1e-8)
        x = np.zeros(n)
        x[n // 3] = 0.5
        breaks = [law.low, *(k - 0.5 for k in law.kinks), *range(math.ceil(law.low), math.ceil(law.high)), law.high]
        breaks = sorted({u for u in breaks if u >= law.low})
        first = math.fsum(
            quad(lambda u, m=n - 1: law.pdf(u) * law.cdf(u + 0.5) ** m, a, b, epsabs=1e-14, limit=200)[0]
            for a, b in pairwise(breaks)
        )
        p = um.noisy_argmax(x, noise)
        np.testing.assert_allclose(p[n // 3], first, rtol=0, atol=1e-9)
        np.testing.assert_allclose(np.delete(p, n // 3), (1 - first) / (n - 1), rtol=1e-6, atol=1e-12)


def test_gumbel_noise_is_softmax():
    x = np.random.default_rng(18).normal(0, 2, (50, 30))
    for scale in (0.5, 1.0, 4.0):
        np.testing.assert_allclose(um.noisy_argmax(x, "gumbel", scale), um.softmax(x, scale), rtol=0, atol=1e-14)


def test_uniform_noise_gives_zeros_beyond_its_reach():
    assert um.noisy_argmax([0.0, 0.5, 2.0], "uniform").tolist() == [0, 0, 1]
    assert (um.noisy_argmax([0.0, 0.5, 1.2], "uniform") > 0).tolist() == [False, True, True]


@noises
@given(x=any_row)
@settings(max_examples=30)
def test_noisy_argmax_is_a_distribution_and_keeps_the_order(noise, x):
    p = um.noisy_argmax(x, noise)
    assert_sums(p)
    order = np.argsort(x)
    with np.errstate(over="ignore"):
        tied = np.diff(x[order]) == 0
    assert (np.diff(p[order]) >= 0).all()
    assert (np.diff(p[order])[tied] == 0).all()


def table_of(law, points):
    grid = np.linspace(max(law.low, -30), min(law.high, 40), points)
    return grid, np.array([law.pdf(u) for u in grid]), np.array([law.cdf(u) for u in grid])


@pytest.mark.parametrize("name", ["normal", "gumbel", "logistic"])
def test_a_table_of_a_law_is_near_the_law(name):
    noise = table_of(ref.LAWS[name], 20_001)
    rng = np.random.default_rng(19)
    x, g = rng.normal(0, 1, (5, 8)), rng.normal(size=(5, 8))
    # Between two points, at most 3.5e-3 apart, a density is off by h^2 f''/8 if it is taken as straight.
    np.testing.assert_allclose(um.noisy_argmax(x, noise), um.noisy_argmax(x, name), rtol=0, atol=2e-5)
    expected = um.noisy_argmax_vjp(x, g, name)
    np.testing.assert_allclose(um.noisy_argmax_vjp(x, g, noise), expected, rtol=0, atol=2e-3)


@noises
def test_noisy_argmax_leaves_out_what_is_excluded(noise):
    rng = np.random.default_rng(21)
    x, where = rng.normal(0, 1, (10, 7)), rng.random((10, 7)) < 0.6
    where[:, 0] = True
    p = um.noisy_argmax(x, noise, where=where)
    np.testing.assert_array_equal(p, um.noisy_argmax(np.where(where, x, -inf), noise))
    for row, keep, got in zip(x, where, p, strict=True):
        np.testing.assert_allclose(got[keep], um.noisy_argmax(row[keep], noise), rtol=0, atol=1e-9)
        assert (got[~keep] == 0).all()


@noises
def test_noise_in_special_rows(noise):
    x = np.array([[0, nan, 1], [-inf, 0, 0], [-inf] * 3, [inf, 0, inf]])
    p = um.noisy_argmax(x, noise)
    assert np.isnan(p[[0, 2]]).all()
    np.testing.assert_allclose(p[1], [0, 0.5, 0.5], rtol=1e-14)
    assert p[3].tolist() == [0.5, 0, 0.5]
    assert um.noisy_argmax(x[1], noise, where=False).tolist() == [0, 0, 0]
    assert um.noisy_argmax([5.0], noise).tolist() == [1]


# --- draws ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [*NOISES, "table"])
def test_draws_have_the_probabilities_of_noisy_argmax(noise):
    """Five standard errors for each of 20 counts: a false alarm for one seed in 90,000; the seed is fixed."""
    chosen = table_of(ref.LAWS["normal"], 4001) if noise == "table" else noise
    draws, x = 200_000, np.array([[-2.0, 0, 0.5, -inf], [0.0, 0.0, 0.0, 0.3], [1.0, -1.0, 0.4, 0.3]])
    for scale in (1.0, 0.6):
        found = um.maps.sample(x, chosen, 20240611, draws, scale=scale)
        assert found.shape == (draws, 3)
        assert found.dtype == np.int64
        counts = np.stack([np.bincount(found[:, i], minlength=4) for i in range(3)])
        p = um.noisy_argmax(x, chosen, scale)
        assert (np.abs(counts - draws * p) <= 5 * np.sqrt(draws * p * (1 - p)) + 1e-9).all()


@noises
def test_draws_are_reproducible(noise):
    x = np.random.default_rng(22).normal(size=(5, 300))
    first = um.maps.sample(x, noise, 7, 40)
    for workers in (1, 2, 3, -1):
        np.testing.assert_array_equal(um.maps.sample(x, noise, 7, 40, workers=workers), first)
    np.testing.assert_array_equal(um.maps.sample(np.asfortranarray(x), noise, 7, 40), first)
    np.testing.assert_array_equal(um.maps.sample(x.T, noise, 7, 40, axis=0), first)
    np.testing.assert_array_equal(um.maps.sample(x, noise, 7, (8, 5)), first.reshape(8, 5, 5))
    np.testing.assert_array_equal(um.maps.sample(x, noise, 7, 10), first[:10])
    assert (um.maps.sample(x, noise, 8, 40) != first).any()
    a, b = np.random.default_rng(1), np.random.default_rng(1)
    drawn = um.maps.sample(x, noise, a, 40)
    np.testing.assert_array_equal(um.maps.sample(x, noise, b, 40), drawn)
    assert (um.maps.sample(x, noise, a, 40) != drawn).any()
    assert (um.maps.sample(x, noise, None, 40) != um.maps.sample(x, noise, None, 40)).any()


def test_draws_are_independent_of_each_other():
    """Neighbours among the draws, and rows with the same scores, meet as often as chance says, to 5 standard errors."""
    found = um.maps.sample(np.zeros((2, 4)), "gumbel", 3, 100_000)
    for a, b in ((found[:-1, 0], found[1:, 0]), (found[:, 0], found[:, 1])):
        assert abs(np.count_nonzero(a == b) - a.size / 4) <= 5 * math.sqrt(a.size * 3 / 16)


def test_shapes_of_draws():
    x = np.zeros((3, 4, 5))
    assert um.maps.sample(x).shape == (3, 4)
    assert um.maps.sample(x, axis=1).shape == (3, 5)
    assert um.maps.sample(x, size=2).shape == (2, 3, 4)
    assert um.maps.sample(x, size=(2, 6)).shape == (2, 6, 3, 4)
    assert um.maps.sample(x, size=()).shape == (3, 4)
    assert um.maps.sample(x, size=0).shape == (0, 3, 4)
    assert um.maps.sample(x[:0], size=2).shape == (2, 0, 4)
    assert um.maps.sample([1.0, 2.0]).shape == ()
    assert um.maps.sample(np.float16([[0, 90]]), rng=1, size=3).tolist() == [[1], [1], [1]]
    assert um.maps.sample(np.float32([[0, 90]]), rng=1, size=3).tolist() == [[1], [1], [1]]


@noises
def test_draws_of_special_rows(noise):
    x = np.array([[0, nan, 1], [-inf] * 3, [inf, 0, inf], [0.0, 0, 0], [-inf, 2, -inf]])
    where = np.ones(x.shape, bool)
    where[3] = False
    found = um.maps.sample(x, noise, 5, 200, where=where)
    assert (found[:, [0, 1, 3]] == -1).all()
    assert {*found[:, 2].tolist()} == {0, 2}
    assert (found[:, 4] == 1).all()
    found = um.maps.sample([[90.0, 0, 0]] * 2, noise, 5, 200, where=[[False, True, True], [False, False, True]])
    assert {*found[:, 0].tolist()} == {1, 2}
    assert (found[:, 1] == 2).all()


# --- streams of batches -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TABLE)
def test_score_batches_knows_every_map(name):
    x = np.random.default_rng(23).normal(size=(4, 6))
    options = NEEDED.get(name, {})
    (p,) = um.score_batches([x], map=name, **options)
    np.testing.assert_array_equal(p, getattr(um, name)(x, **options))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("budget", {"k": 3.5, "temperature": 1e300}),
        ("capped_simplex", {"upper": 1e307, "total": 1e306}),
        ("csparsemax", {"upper": 0.5, "temperature": 1e300}),
        ("csoftmax", {"upper": [0.5, 0.2, 0.5, 0.1]}),
        ("csoftmax", {"upper": [[0.5], [0.2], [0.5], [0.6]], "axis": 0}),
    ],
)
def test_score_batches_takes_what_the_maps_take(name, options):
    x = np.random.default_rng(24).normal(size=(4, 4))
    (p,) = um.score_batches([x], map=name, **options)
    np.testing.assert_array_equal(p, getattr(um, name)(x, **options))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("budget", {"k": -1}, r"k\b.*-1"),
        ("budget", {"k": nan}, r"k\b.*nan"),
        ("csoftmax", {"upper": -0.5}, r"upper\b.*-0\.5"),
        ("csparsemax", {"upper": 0.5, "temperature": 0.0}, r"temperature\b.*0"),
        ("topk_softmax", {"k": 0}, r"k\b.*0"),
        ("topk_softmax", {}, r"k, top_p: give one"),
        ("noisy_argmax", {"noise": "pink"}, r"noise\b.*pink"),
        ("budget", {"k": inf}, r"k: must be finite and positive, found inf"),
        ("csoftmax", {"upper": [0.5, -0.5, 0.5]}, r"upper\b.*-0\.5"),
        ("csparsemax", {"upper": 0.5, "temperature": 1e308}, r"temperature\b.*1e\+?308"),
        ("softmax", {"order": 2}, r"order: belongs to taylor_softmax, not to softmax"),
    ],
)
def test_score_batches_refuses_at_the_call(name, options, message):
    with pytest.raises(ValueError, match=message):
        um.score_batches([], map=name, **options)


# --- what is refused --------------------------------------------------------------------------------------------------

A = np.ones((2, 3))
TEMPERED = {
    um.sparsemax: (A,),
    um.sparsemax_vjp: (A, A),
    um.entmax: (A,),
    um.entmax_vjp: (A, A),
    um.normmax: (A,),
    um.normmax_vjp: (A, A),
    um.budget: (A, 1),
    um.budget_vjp: (A, A),
    um.csoftmax: (A, 0.5),
    um.csoftmax_vjp: (A, A, 0.5),
    um.csparsemax: (A, 0.5),
    um.csparsemax_vjp: (A, A, 0.5),
    um.taylor_softmax: (A,),
    um.taylor_softmax_vjp: (A, A),
    um.topk_softmax: (A, 2),
    um.topk_softmax_vjp: (A, A),
    um.ev_softmax: (A,),
    um.ev_softmax_vjp: (A, A),
}
NOISY = {um.noisy_argmax: (A,), um.noisy_argmax_vjp: (A, A), um.maps.sample: (A,)}
GRID = np.linspace(0, 1, 5)
ONES = np.ones(5)

REFUSED = [
    *(
        no(ValueError, rf"temperature\b.*{v}", f, *a, temperature=v)
        for f, a in TEMPERED.items()
        for v in (0.0, -1.0, nan, inf)
    ),
    *(no(TypeError, "temperature: expected a real number", f, *a, temperature="hot") for f, a in TEMPERED.items()),
    *(no(ValueError, rf"alpha\b.*{v}", um.normmax, A, v) for v in (1.0, 0.5, -1.0, nan, inf)),
    *(no(ValueError, rf"alpha\b.*{v}", um.normmax_vjp, A, A, v) for v in (1.0, nan)),
    no(ValueError, r"alpha\b.*0\.5", um.normmax, A, [1.5, 0.5]),
    no(ValueError, r"alpha\b.*\(3,\)", um.normmax, A, [1.5, 2, 3]),
    *(no(ValueError, rf"k: must be finite and positive, found {v}", um.budget, A, v) for v in (0.0, -2.0, nan, inf)),
    no(ValueError, r"k: must be at most 3, the number of scores, found 3\.5", um.budget, A, 3.5),
    no(ValueError, r"k\b.*at most 3, .*found 4", um.budget, A, [1, 4]),
    no(ValueError, r"k\b.*\(3,\)", um.budget, A, [1, 2, 1]),
    no(TypeError, r"k: expected a real number", um.budget, A, "two"),
    *(no(ValueError, rf"radius\b.*{v}", um.project_l1_ball, A, v) for v in (0.0, -2.0, nan, inf)),
    no(ValueError, r"radius\b.*-1", um.project_l1_ball, A, [1, -1]),
    no(ValueError, r"radius\b.*-1", um.project_l1_ball_vjp, A, A, -1),
    *(no(ValueError, rf"radius\b.*{v}", um.project_l1_ball_vjp, A.astype("f2"), A, v) for v in (0.0, -1, nan, inf)),
    *(no(ValueError, rf"total\b.*{v}", um.capped_simplex, A, 1.0, v) for v in (0.0, -2.0, nan, inf)),
    *(
        case
        for f in BOUNDED
        for case in (
            no(ValueError, r"upper\b.*-0\.5", f, A, -0.5),
            no(ValueError, r"upper\b.*-0\.5", f, A, [1, -0.5, 1]),
            no(ValueError, r"upper\b.*nan", f, A, nan),
            no(ValueError, r"upper\b.*nan", f, A, [[1.0], [nan]]),
            no(ValueError, r"upper\b.*hold the total", f, A, 0.3),
            no(ValueError, r"upper\b.*hold the total", f, A, [0.5, 0.2, 0.2]),
            no(ValueError, r"upper\b.*hold the total", f, A, [[1.0], [0.25]]),
            no(ValueError, r"upper: shape \(2,\) does not broadcast to the shape \(2, 3\) of x", f, A, [1, 1]),
            no(ValueError, r"upper: shape \(1, 2, 3\)", f, A, np.ones((1, 2, 3))),
            no(TypeError, r"upper: expected real numbers, found '1'", f, A, "1"),
            no(TypeError, r"upper: expected real numbers, found 1j", f, A, 1j),
            no(TypeError, r"upper: expected real numbers, found None", f, A, None),
            no(TypeError, r"upper: a masked array", f, A, np.ma.ones(3)),
        )
    ),
    *(no(ValueError, r"upper\b.*-0\.5", f, A, A, -0.5) for f in BOUNDED_VJPS),
    *(no(ValueError, r"upper\b.*nan", f, A, A, [1, nan, 1]) for f in BOUNDED_VJPS),
    *(no(ValueError, r"upper: shape \(2,\) .* of p", f, A, A, [1, 1]) for f in BOUNDED_VJPS),
    *(
        no(ValueError, rf"order\b.*{v}", f, *args, v)
        for f, args in ((um.taylor_softmax, (A,)), (um.taylor_softmax_vjp, (A, A)))
        for v in (0, 1, 3, -2, 18, 10**6, 2**70)
    ),
    no(TypeError, r"order: expected an integer, found 2\.0", um.taylor_softmax, A, 2.0),
    no(ValueError, r"k, top_p: give one of the two, found k=None and top_p=None", um.topk_softmax, A),
    no(ValueError, r"k, top_p: give one of the two, found k=2 and top_p=0\.5", um.topk_softmax, A, 2, top_p=0.5),
    *(no(ValueError, rf"k\b.*{v}", um.topk_softmax, A, v) for v in (0, -1)),
    no(TypeError, r"k: expected an integer, found 1\.5", um.topk_softmax, A, 1.5),
    *(no(ValueError, rf"top_p\b.*{v}", um.topk_softmax, A, top_p=v) for v in (0.0, -0.5, 1.5, nan)),
    no(TypeError, r"top_p: expected a real number", um.topk_softmax, A, top_p="most"),
    *(
        no(ValueError, rf"lam: must be finite and less than 1, found {v}", f, *args, v)
        for f, args in ((um.sparsegen, (A,)), (um.sparsegen_vjp, (A, A)))
        for v in (1.0, 2.0, nan, -inf)
    ),
    *(
        case
        for f, args in NOISY.items()
        for case in (
            *(no(ValueError, rf"scale\b.*{v}", f, *args, scale=v) for v in (0.0, -1.0, nan, inf)),
            no(ValueError, r"noise: expected 'gumbel', .* found \"pink\"", f, *args, noise="pink"),
            no(TypeError, r"noise: expected a name or a triple .*found 3", f, *args, noise=3),
            no(TypeError, r"noise: expected a name or a triple", f, *args, noise=(GRID, ONES)),
            no(TypeError, r"noise: pdf: expected real numbers", f, *args, noise=(GRID, ["a"] * 5, GRID)),
            no(ValueError, r"noise: grid, pdf and cdf must be three vectors", f, *args, noise=(GRID, ONES[1:], GRID)),
            no(ValueError, r"noise: grid, pdf and cdf must be three vectors", f, *args, noise=(A, A, A)),
            no(ValueError, r"grid", f, *args, noise=(GRID[::-1], ONES, GRID)),
            no(ValueError, r"grid", f, *args, noise=(GRID * nan, ONES, GRID)),
            no(ValueError, r"pdf", f, *args, noise=(GRID, -ONES, GRID)),
            no(ValueError, r"pdf", f, *args, noise=(GRID, ONES * nan, GRID)),
            no(ValueError, r"cdf", f, *args, noise=(GRID, ONES, GRID[::-1])),
            no(ValueError, r"cdf", f, *args, noise=(GRID, ONES, GRID * 2)),
            no(ValueError, r"grid|pdf|cdf", f, *args, noise=([], [], [])),
        )
    ),
    no(TypeError, r"rng: expected a Generator, an integer or None, found 'a'", um.maps.sample, A, rng="a"),
    no(ValueError, r"rng\b.*-1", um.maps.sample, A, rng=-1),
    no(ValueError, r"size\b.*-1", um.maps.sample, A, size=-1),
    no(TypeError, r"size\b.*1\.5", um.maps.sample, A, size=1.5),
    no(TypeError, r"size\b.*'a'", um.maps.sample, A, size=("a",)),
    no(MemoryError, r"size\b.*GiB do not fit", um.maps.sample, A, size=10**13),
    *(
        case
        for f, args in [
            *((f, ()) for f in (um.maps.sample, um.normmax, um.project_l1_ball, um.ev_softmax, um.noisy_argmax)),
            *((f, ()) for f in (um.taylor_softmax, um.sparsegen)),
            (um.budget, (1,)),
            (um.topk_softmax, (2,)),
            *((f, (bound,)) for f in BOUNDED for bound in (0.6, [0.6])),
        ]
        for case in (
            no(ValueError, r"\bx\b", f, 1.0, *args),
            no(ValueError, r"\bx: the axis is empty", f, np.ones((2, 0)), *args),
            no(TypeError, r"\bx\b.*complex128", f, A * 1j, *args),
            no(np.exceptions.AxisError, r"axis\b.*2", f, A, *args, axis=2),
            no(TypeError, r"where\b.*int64", f, A, *args, where=np.ones((2, 3), np.int64)),
            no(ValueError, r"workers\b.*0", f, A, *args, workers=0),
        )
    ),
]


@pytest.mark.parametrize(("f", "args", "options", "error", "message"), REFUSED)
def test_refuses(f, args, options, error, message):
    with pytest.raises(error, match=message) as caught:
        f(*args, **options)
    assert "\n" not in str(caught.value).strip()


@pytest.mark.parametrize("name", TABLE)
def test_shared_options_are_keywords(name):
    kinds = {p.name: p.kind for p in inspect.signature(getattr(um, name)).parameters.values()}
    assert {kinds[option] for option in ("axis", "where", "out", "workers")} == {inspect.Parameter.KEYWORD_ONLY}
    assert kinds["x"] is inspect.Parameter.POSITIONAL_ONLY
