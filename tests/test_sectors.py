"""Random points on circles and spheres: exact laws, closed forms, trials, and what each of them promises.

Laws are held against sums in hundreds of digits of the very double that was given, and of the true π. Trials are held
against the definition on the same random numbers, against the exact laws, and against other ways to the same answer.

Statistical tests fix their seeds. For a seed drawn anew, a bound of 5 standard errors raises a false alarm once in 2e6,
one of 6 once in 5e8, and a quantile of a chi-square or Kolmogorov-Smirnov statistic as often as it says.
"""

import itertools
import json
import math
import os
import subprocess
import sys
import textwrap
import threading
import time

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, special, stats

import unitmass as um
from reference import sectors as ref

TURN = 2 * np.pi
with mp.workdps(100):
    TURN_MP = 2 * mp.pi
LAWS = (um.MaxGap, um.MinGap, um.CommonSector)
QUANTITIES = ("cdf", "sf", "logcdf", "logsf", "pdf", "ppf", "isf")
laws = pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
BELOW, ABOVE = np.nextafter(np.pi, 0), np.nextafter(np.pi, 4)
PATIENCE = 60  # seconds before a child counts as hanging


def near(found, expected, error, sigmas=6):
    """Within so many standard errors."""
    found, expected, error = np.broadcast_arrays(found, expected, error)
    off = np.abs(found - expected) / np.where(error > 0, error, 1e-300)
    assert (off < sigmas).all(), f"{found} is not {expected}: off by {off} standard errors"


def agrees(found, expected, trials, sigmas=6):
    """A share of trials with a probability."""
    near(found, expected, np.sqrt(np.multiply(expected, np.subtract(1, expected)) / trials) + 1e-12, sigmas)


def agree(hits, trials, other_hits, other_trials, sigmas=6):
    """Two shares with each other."""
    share = (hits + other_hits) / (trials + other_trials)
    error = np.sqrt(share * (1 - share) * (1 / trials + 1 / other_trials)) + 1e-12
    near(hits / trials, other_hits / other_trials, error, sigmas)


def run_child(code, **environment):
    """Run a script in a fresh interpreter; what it prints, or a failure with what it said."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={k: v for k, v in os.environ.items() if not k.startswith("UNITMASS_")} | environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


# --- known values -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "part", "value", "digits"),
    [
        (4, 1 / 2, 1 / 2, 15),  # the four ducks; kexue.fm of 25 October 2022, as all up to 8 points
        (3, 1 / 2, 3 / 4, 15),
        (4, 1 / 3, 4 / 27, 15),
        (4, 2 / 3, 26 / 27, 15),
        (6, 2 / 3, 0.72839506, 8),
        (4, 0.6, 0.816, 15),
        (5, 0.7, 0.9455, 15),
        (8, 0.85, 0.9999872, 7),
    ],
)
def test_known_sectors(n, part, value, digits):
    for found in (
        um.common_sector(n, part * TURN).estimate,
        um.CommonSector(n).cdf(part * TURN),
        um.MaxGap(n).sf((1 - part) * TURN),
        1 - um.coverage(n, (1 - part) * TURN).estimate,
    ):
        assert found == pytest.approx(value, abs=6 * 10.0**-digits)


@pytest.mark.parametrize(
    ("n", "x", "value", "digits"),
    [
        # The log-space sum prints 4.7733e-7, -4.6e-7, 8.9e-3 and 7.65784124e-7.
        (200, 1 - 0.985, 4.771707e-7, 7),
        (1000, 1 - 0.996, 2.24686e-10, 6),
        (1000, 1 - 0.9965, 5.19224e-18, 6),
        (100, 1 / 40, 7.657839875e-7, 10),
    ],
)
def test_known_values_that_alternating_sums_miss(n, x, value, digits):
    gap = x * TURN
    assert um.MaxGap(n).cdf(gap) == pytest.approx(value, rel=5 * 10.0**-digits)
    assert um.MaxGap(n).logcdf(gap) == pytest.approx(math.log(value), abs=5 * 10.0**-digits)
    assert um.CommonSector(n).sf(TURN - gap) == pytest.approx(value, rel=5 * 10.0**-digits)
    assert um.coverage(n, gap).estimate == pytest.approx(value, rel=5 * 10.0**-digits)


def test_the_rarest_sector_of_the_table():
    """1000 points within .9 of the circle, from 4,000 weighed trials and exactly."""
    exact = um.common_sector(1000, 0.9 * TURN)
    assert (exact.method, exact.trials, exact.hits, exact.seed, exact.z_score) == ("exact", 0, None, None, None)
    assert exact.estimate == exact.exact == pytest.approx(1.942e-43, rel=3e-4)
    weighed = um.common_sector(1000, 0.9 * TURN, method="karp-luby", trials=4000, rng=1)
    assert weighed.estimate == pytest.approx(1.942e-43, rel=3e-4)
    assert weighed.exact == exact.exact
    assert (weighed.method, weighed.trials, weighed.hits) == ("karp-luby", 4000, None)


def test_von_mises_at_half_a_turn():
    assert um.common_sector(4, np.pi, density="vonmises:1").estimate == pytest.approx(0.7170, abs=5e-5)


def test_angles_that_others_cannot_test():
    """pycircstat2's circ_range_test returns a p-value of 187.2 on such regular angles, and NaN on such uniform ones."""
    regular = np.arange(200) / 200 * TURN + np.random.default_rng(1).normal(0, 1e-3, 200)
    found = um.circular_range_test(regular)
    with mp.workdps(ref.DIGITS):
        expected = 1 - ref.largest_gap_cdf(200, 1 - ref.turns(found.statistic))
    assert found.pvalue == pytest.approx(float(expected), rel=1e-11)
    assert um.circular_range_test(np.arange(200) / 200 * TURN).pvalue == 1
    for seed in range(20):
        statistic, pvalue = um.circular_range_test(np.random.default_rng(seed).uniform(0, TURN, 5000))
        assert 0 < pvalue < 1
        assert pvalue == pytest.approx(um.MaxGap(5000).sf(TURN - statistic), rel=1e-9)
        assert pvalue == pytest.approx(-math.expm1(-5000 * (statistic / TURN) ** 4999), abs=0.01)  # Gumbel's law


# --- the laws against hundreds of digits ------------------------------------------------------------------------------

POINTS = (1, 2, 3, 4, 5, 8, 16, 33, 64, 65, 100, 200, 500, 1000)
PARTS = np.linspace(0.1, 0.995, 40)
TOLERANCE = 1e-11  # what the docstring of MaxGap says for n up to 1,000


def law_of_largest_gap(n, x, digits):
    """The cdf, sf, their logarithms and the density of the largest gap at x turns, n > 1."""
    with mp.workdps(digits):
        cdf = ref.largest_gap_cdf(n, x, digits) if n * x > 1 else mp.mpf(0)
        sf = 1 - cdf
        pdf = ref.largest_gap_pdf(n, x, digits) / (2 * mp.pi) if n * x > 1 else mp.mpf(0)
        assert cdf == 0 or cdf > mp.mpf(10) ** (100 - digits)
        assert sf == 0 or sf > mp.mpf(10) ** (100 - digits)
        return {"cdf": cdf, "sf": sf, "logcdf": logarithm(cdf, sf), "logsf": logarithm(sf, cdf), "pdf": pdf}


def logarithm(p, rest):
    return mp.log1p(-rest) if rest < 0.5 else mp.log(p) if p else mp.ninf


def assert_relative(found, expected, tolerance=TOLERANCE):
    """Each double within a relative tolerance of a number of any size; below 1e-300, close to nothing."""
    for name, value in expected.items():
        if mp.isinf(value) or abs(value) < 1e-300:
            assert found[name] == float(value) or abs(found[name]) < 1.1e-300, f"{name}: {found[name]}, not {value}"
        else:
            error = abs(mp.mpf(float(found[name])) / value - 1)
            assert error < tolerance, f"{name}: {found[name]} is not {mp.nstr(value, 17)}: off by {mp.nstr(error, 3)}"


def all_of(law, x):
    return {name: getattr(law, name)(x) for name in QUANTITIES[:5]}


def digits_for(n, x):
    """Enough for tails below 1e-600, after the sum of x = 1/n has lost a digit or so for each point."""
    return int(ref.DIGITS + 150 - n * math.log10(1 - x) + (n if n * x < 1.1 else 0))


@pytest.mark.parametrize("n", POINTS[1:])
def test_largest_gaps_keep_their_accuracy_in_both_tails(n):
    for part in PARTS:
        gap = float((1 - part) * TURN)
        digits = digits_for(n, 1 - part)
        x = ref.turns(gap, digits)
        if abs(n * x - 1) > 1e-9:  # the end of the support has a test of its own
            assert_relative(all_of(um.MaxGap(n), gap), law_of_largest_gap(n, x, digits))


@pytest.mark.parametrize("n", POINTS[1:])
def test_sectors_keep_their_accuracy_in_both_tails(n):
    for part in PARTS[::5]:
        theta = float(part * TURN)
        digits = digits_for(n, 1 - part)
        with mp.workdps(digits):
            x = 1 - ref.turns(theta, digits)
        if abs(n * x - 1) > 1e-9:
            expected = law_of_largest_gap(n, x, digits)
            swapped = {"cdf": "sf", "sf": "cdf", "logcdf": "logsf", "logsf": "logcdf", "pdf": "pdf"}
            found = all_of(um.CommonSector(n), theta)
            assert_relative(found, {name: expected[swapped[name]] for name in swapped})
            assert_relative({"p": um.common_sector(n, theta).estimate}, {"p": expected["sf"]})


@pytest.mark.parametrize("n", POINTS[1:])
def test_smallest_gaps_keep_their_accuracy_in_both_tails(n):
    for part in (1e-300, 1e-12, *PARTS, 1 - 1e-9):
        gap = float(part * TURN / n)
        with mp.workdps(400):
            x = ref.turns(gap, 400)
            sf = (1 - n * x) ** (n - 1)
            expected = {
                "cdf": 1 - sf,
                "sf": sf,
                "logcdf": logarithm(1 - sf, sf),
                "logsf": (n - 1) * mp.log1p(-n * x),
                "pdf": n * (n - 1) * (1 - n * x) ** (n - 2) / (2 * mp.pi),
            }
            assert_relative(all_of(um.MinGap(n), gap), expected)


@pytest.mark.parametrize("n", [3, 10, 64, 65, 300, 1000])
def test_accuracy_beside_the_ends_of_the_support(n):
    """Just above 2π/n, where the sum cancels most, and just below 2π."""
    for excess in (1e-12, 1e-6, 1e-3, 0.05):
        gap = TURN / n * (1 + excess)
        with mp.workdps(100):
            cdf, pdf = ref.largest_gap_from_below(n, ref.turns(gap, 100), 100)
            expected = {"cdf": cdf, "sf": 1 - cdf, "logcdf": mp.log(cdf), "logsf": mp.log1p(-cdf), "pdf": pdf / TURN_MP}
            assert_relative(all_of(um.MaxGap(n), gap), expected)
    for rest in (1e-15, 1e-6, 1e-2):
        gap = TURN * (1 - rest)
        with mp.workdps(100):
            rest = 1 - ref.turns(gap, 100)
            expected = {"sf": n * rest ** (n - 1), "logsf": mp.log(n * rest ** (n - 1))}
        assert_relative(all_of(um.MaxGap(n), gap), expected)


def test_many_points_still_have_both_tails():
    """Beyond 1,000 points an accuracy of about 1e-15 n; and Gumbel's law in the limit."""
    for n, part in ((5000, 0.998), (5000, 0.9988), (20_000, 0.9995)):
        gap = float((1 - part) * TURN)
        x = ref.turns(gap, 150)
        assert_relative(all_of(um.MaxGap(n), gap), law_of_largest_gap(n, x, 150), 4e-15 * n)
    for n in (10**9, 10**12, 2**53):
        gap = (math.log(n) + np.linspace(-2, 5, 8)) / n * TURN
        np.testing.assert_allclose(um.MaxGap(n).cdf(gap), np.exp(-np.exp(-np.linspace(-2, 5, 8))), rtol=1e-5)


# --- properties of the laws -------------------------------------------------------------------------------------------

numbers = st.one_of(st.integers(1, 100), st.integers(1, 2000), st.integers(1, 2**53))
angles = st.one_of(
    st.floats(-1, 7), st.floats(0, TURN), st.floats(allow_nan=False), st.sampled_from([0.0, BELOW, np.pi, ABOVE, TURN])
)
probabilities = st.one_of(st.floats(0, 1), st.floats(0, 1e-9), st.floats(-300, 0).map(lambda e: 10**e))


@laws
@given(n=numbers, x=angles)
def test_probabilities_are_probabilities(law, n, x):
    found = all_of(law(n), x)
    assert not any(map(math.isnan, found.values()))
    assert 0 <= found["cdf"] <= 1
    assert 0 <= found["sf"] <= 1
    assert found["cdf"] + found["sf"] == pytest.approx(1, abs=1e-15)
    assert found["logcdf"] <= 0
    assert found["logsf"] <= 0
    assert found["pdf"] >= 0
    for name in ("cdf", "sf"):
        if found[name] > 1e-300:
            assert math.exp(found[f"log{name}"]) == pytest.approx(found[name], rel=1e-12)
        else:
            assert found[f"log{name}"] < -690


@laws
@given(n=numbers, x=st.lists(angles, min_size=2, max_size=6))
def test_distribution_functions_rise(law, n, x):
    """But for the relative accuracy that is promised."""
    x = np.sort(x)
    slack = 1e-11 + 4e-15 * n
    cdf, sf = law(n).cdf(x), law(n).sf(x)
    assert (cdf[1:] >= cdf[:-1] * (1 - slack)).all()
    assert (sf[1:] <= sf[:-1] * (1 + slack) + 1e-300).all()


@laws
@given(n=st.integers(2, 2000), q=probabilities)
def test_quantiles_are_where_the_probability_is(law, n, q):
    low, high = {um.MaxGap: (TURN / n, TURN), um.MinGap: (0, TURN / n), um.CommonSector: (0, TURN - TURN / n)}[law]
    for quantile, probability in (("ppf", "cdf"), ("isf", "sf")):
        x = getattr(law(n), quantile)(q)
        assert low <= x <= high
        if 1e-300 < q < 1 and low < x < high:
            # The doubles around x have probabilities on both sides of q, but for its accuracy.
            around = np.array([x * (1 - 1e-12), x * (1 + 1e-12)])
            found = np.sort(getattr(law(n), probability)(np.clip(around, low, high)))
            assert found[0] * (1 - 1e-9) <= q <= found[1] * (1 + 1e-9)


@given(n=st.integers(2, 1000), part=st.floats(0.001, 0.999))
def test_a_sector_is_what_the_largest_gap_leaves(n, part):
    """Where 2π less the angle is exact, but for the 2.4e-16 by which the double is not 2π."""
    theta = part * TURN
    gap = TURN - theta
    if TURN - gap == theta:
        slack = 1e-11 + 3e-15 * n / min(part, 1 - part)
        assert um.CommonSector(n).logcdf(theta) == pytest.approx(um.MaxGap(n).logsf(gap), rel=slack, abs=slack)


@laws
def test_ends_of_the_support(law):
    for n in (2, 3, 10, 100, 1000, 10**6):
        low, high = {um.MaxGap: (TURN / n, TURN), um.MinGap: (0, TURN / n), um.CommonSector: (0, TURN - TURN / n)}[law]
        some = law(n)
        assert some.cdf([-np.inf, -1, low]).tolist() == [0, 0, 0]
        assert some.sf([high, 7, np.inf]).tolist() == [0, 0, 0]
        assert some.cdf([high, 7, np.inf]).tolist() == [1, 1, 1]
        assert some.sf([-np.inf, -1, low]).tolist() == [1, 1, 1]
        assert some.logcdf([low, high]).tolist() == [-np.inf, 0]
        assert some.logsf([low, high]).tolist() == [0, -np.inf]
        assert some.pdf([np.nextafter(low, -1), np.nextafter(high, 7), -1, 7, -np.inf, np.inf]).tolist() == [0] * 6
        assert some.ppf([0, 1]).tolist() == [low, high]
        assert some.isf([0, 1]).tolist() == [high, low]
        assert np.isnan(some.ppf([-1e-300, np.nextafter(1, 2), np.nan, np.inf, -np.inf])).all()
        assert np.isnan(some.isf([-1e-300, np.nextafter(1, 2), np.nan, np.inf, -np.inf])).all()
        for name in QUANTITIES:
            assert np.isnan(getattr(some, name)(np.nan)), name


@laws
def test_a_single_point(law):
    at = 0.0 if law is um.CommonSector else TURN
    one = law(1)
    assert one.cdf([np.nextafter(at, -1), at, np.nextafter(at, 9)]).tolist() == [0, 1, 1]
    assert one.sf([np.nextafter(at, -1), at, np.nextafter(at, 9)]).tolist() == [1, 0, 0]
    assert one.pdf([-1, 3, 7, at]).tolist() == [0, 0, 0, np.inf]
    assert one.ppf([0, 0.5, 1]).tolist() == [at] * 3
    assert one.isf([0, 0.5, 1]).tolist() == [at] * 3
    assert (one.mean(), one.var(), one.std()) == (at, 0, 0)
    assert one.rvs(3, rng=1).tolist() == [at] * 3


def test_two_points():
    """The larger of their gaps is uniform from π to 2π, the smaller, and the sector, from 0 to π."""
    x = np.linspace(0, np.pi, 9)
    np.testing.assert_allclose(um.MaxGap(2).cdf(np.pi + x), x / np.pi, rtol=1e-14, atol=1e-16)
    for law in (um.MinGap, um.CommonSector):
        np.testing.assert_allclose(law(2).cdf(x), x / np.pi, rtol=1e-14)
        np.testing.assert_allclose(law(2).pdf(x), 1 / np.pi, rtol=1e-14)


def test_half_a_turn_is_no_seam():
    for n in (3, 4, 10, 100):
        value = n / 2 ** (n - 1)
        for theta in (BELOW, np.pi, ABOVE):
            assert um.CommonSector(n).cdf(theta) == pytest.approx(value, rel=1e-13)
            assert um.MaxGap(n).sf(theta) == pytest.approx(value, rel=1e-13)
            assert um.common_sector(n, theta).estimate == pytest.approx(value, rel=1e-13)


# --- moments, spacings ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3, 4, 10, 31, 32, 33, 100, 1000, 10**6])
def test_moments_are_those_of_the_literature(n):
    with mp.workdps(50):
        if n <= 1000:
            one = mp.fsum(mp.mpf(1) / j for j in range(1, n + 1))
            two = mp.fsum(mp.mpf(1) / j**2 for j in range(1, n + 1))
        else:
            one, two = mp.harmonic(n), mp.zeta(2) - mp.zeta(2, n + 1)
        turn = 2 * mp.pi
        mean = one / n * turn
        var = (one**2 + two) / (n * (n + 1)) * turn**2 - mean**2
        assert um.MaxGap(n).mean() == pytest.approx(float(mean), rel=1e-13)
        assert um.MaxGap(n).var() == pytest.approx(float(var), rel=1e-11)
        assert um.CommonSector(n).mean() == pytest.approx(float(turn - mean), rel=1e-13, abs=1e-15)
        assert um.MinGap(n).mean() == pytest.approx(float(turn / n**2), rel=1e-13)
        assert um.MinGap(n).var() == pytest.approx(float(turn**2 * (n - 1) / (mp.mpf(n) ** 4 * (n + 1))), rel=1e-13)
    assert um.CommonSector(n).var() == um.MaxGap(n).var()
    for law in LAWS:
        assert law(n).std() == pytest.approx(math.sqrt(law(n).var()), rel=1e-15)


@laws
@pytest.mark.parametrize("n", [2, 5, 40, 300])
def test_moments_are_those_of_the_density_and_the_tails(law, n):
    some = law(n)
    low, high = some.ppf([0, 1])
    ends = np.unique([low, *some.ppf([1e-12, 1e-3, 0.5, 0.999, 1 - 1e-12]), high])

    def over(f):
        return sum(integrate.quad(f, a, b, epsabs=1e-14, epsrel=1e-11)[0] for a, b in itertools.pairwise(ends))

    assert over(some.pdf) == pytest.approx(1, abs=1e-9)
    assert over(lambda x: x * some.pdf(x)) == pytest.approx(some.mean(), rel=1e-8)
    assert over(lambda x: (x - some.mean()) ** 2 * some.pdf(x)) == pytest.approx(some.var(), rel=1e-7)
    assert low + over(some.sf) == pytest.approx(some.mean(), rel=1e-9)


@pytest.mark.parametrize("n", [1, 2, 3, 20, 31, 32, 33, 64, 1000])
def test_means_of_ordered_gaps(n):
    means = um.gap_means(n)
    assert means.shape == (n,)
    assert means.dtype == np.float64
    expected = [math.fsum(1 / j for j in range(k, n + 1)) / n * TURN for k in range(1, n + 1)]
    np.testing.assert_allclose(means, expected, rtol=1e-13)
    assert math.fsum(means) == pytest.approx(TURN, rel=1e-13)
    assert (np.diff(means) < 0).all()
    assert means[0] == pytest.approx(um.MaxGap(n).mean(), rel=1e-14)
    assert means[-1] == pytest.approx(um.MinGap(n).mean(), rel=1e-13)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8, 30, 64, 65, 200])
def test_numbers_of_long_gaps(n):
    for gap in (6.0, ABOVE, np.pi, BELOW, 3.0, 1.7, 0.9, 0.3, 0.11):
        counts = um.gap_counts(n, gap)
        assert counts.shape == (min(n, math.floor(TURN / gap)) + 1,)
        assert (counts >= 0).all()
        assert math.fsum(counts) == pytest.approx(1, abs=1e-11)
        digits = ref.DIGITS + 4 * n
        x = ref.turns(gap, digits)
        exact = [ref.exactly(n, number, x, digits) for number in range(counts.size)]
        for found, expected in zip(counts, exact, strict=True):
            if abs(expected) > 1e-290:
                assert abs(mp.mpf(float(found)) / expected - 1) < 1e-11
            else:
                assert found < 1e-289
        if n > 1:
            assert counts[0] == pytest.approx(um.MaxGap(n).cdf(gap), rel=1e-11, abs=1e-300)
            near(counts @ np.arange(counts.size), n * (1 - gap / TURN) ** (n - 1), 1e-11 * n)  # as many are expected


# --- half circles, half spaces, caps ----------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7, 10, 11, 64, 101, 500])
def test_points_in_a_half_circle(n):
    for k in sorted({1, 2, (n + 1) // 2, n // 2 + 1, n // 2 + 2, 3 * n // 4, n - 2, n - 1, n} & set(range(1, n + 1))):
        found = um.scan_circle(k, n, np.pi)
        expected = ref.half_circle(n, k)
        assert abs(mp.mpf(found.estimate) / expected - 1) < 1e-11
        if k == n:
            assert found.estimate == pytest.approx(n / 2 ** (n - 1), rel=1e-13)


def test_points_in_a_half_space():
    for n in (1, 2, 3, 4, 10, 33, 200, 1000):
        for d in (1, 2, 3, 4, 16, 17, 100, n // 2, n - 1, n, n + 1):
            if d:
                expected = ref.half_space(n, d)
                found = um.hemisphere(n, d)
                assert found.method == "exact"
                assert found.estimate == found.exact
                assert abs(mp.mpf(found.estimate) / expected - 1) < 1e-11, (n, d)
    for n in (2, 5, 50):
        assert um.hemisphere(n, 1).estimate == 2.0 ** (1 - n)
        assert um.hemisphere(n, 2).estimate == pytest.approx(um.CommonSector(n).cdf(np.pi), rel=1e-13)
        assert um.hemisphere(n, 3).estimate == pytest.approx(um.common_cap(n, np.pi / 2).estimate, rel=1e-13)


def test_small_caps_of_the_sphere():
    for n in (1, 2, 3, 4, 10, 100, 1000):
        for beta in (0.0, 1e-6, 0.3, 1.0, 1.5, np.pi / 2):
            expected = float(ref.cap(n, beta)) if n > 1 else 1.0
            assert um.common_cap(n, beta).estimate == pytest.approx(expected, rel=1e-12, abs=1e-300)
    assert um.common_cap(2, 0.7).estimate == pytest.approx((1 - math.cos(1.4)) / 2, rel=1e-13)  # they are 2β apart


def test_caps_of_the_circle_are_sectors():
    for n in (1, 2, 5, 40):
        beta = np.array([0.0, 0.4, 1.5, np.pi / 2, 2.0, 3.0, np.pi])
        np.testing.assert_array_equal(um.common_cap(n, beta, d=2).estimate, um.common_sector(n, 2 * beta).estimate)


def test_where_an_answer_is_trivial_it_is_exact():
    for question in (
        um.common_sector(1, 0.0),
        um.common_sector(5, TURN),
        um.common_sector(1, 1.0, density="vonmises:3"),
        um.common_sector(2, 4.0, density="vonmises:3"),
        um.common_sector(9, TURN, density=[1, 2, 3]),
        um.scan_circle(1, 7, 0.0),
        um.scan_circle(3, 7, TURN),
        um.scan_circle(3, 7, np.pi),  # the larger half of any seven is four
        um.coverage(1, TURN),
        um.hemisphere(3, 3),
        um.common_cap(9, np.pi, d=7),
        um.common_cap(1, 0.0, d=7),
    ):
        assert (question.method, question.estimate, question.standard_error) == ("exact", 1, 0)
    for question in (um.common_sector(2, 0.0), um.coverage(3, 0.0), um.coverage(None, [1, 2, 3]), um.common_cap(2, 0)):
        assert (question.method, question.estimate) == ("exact", 0)


# --- the methods of the laws as SciPy has them ------------------------------------------------------------------------


@laws
def test_shapes_and_types(law):
    some = law(4)
    for name in QUANTITIES:
        quantity = getattr(some, name)
        scalar = quantity(0.7)
        assert type(scalar) is float
        for alike in (np.float64(0.7), np.array(0.7)):
            assert type(quantity(alike)) is float
            assert quantity(alike) == scalar
        assert quantity([]).shape == (0,)
        assert quantity(np.empty((0, 3))).shape == (0, 3)
        values = np.linspace(0.01, 0.99, 24).reshape(2, 3, 4)
        whole = quantity(values)
        assert whole.shape == values.shape
        assert whole.dtype == np.float64
        assert whole.flags.c_contiguous
        for layout in (np.asfortranarray(values), values[::-1, :, ::-1][::-1, :, ::-1], values.tolist()):
            np.testing.assert_array_equal(quantity(layout), whole)
        assert [quantity(v) for v in values.ravel()] == whole.ravel().tolist()
        small = values.astype(np.float32)
        np.testing.assert_array_equal(quantity(small), quantity(small.astype(np.float64)))
        np.testing.assert_array_equal(quantity([0, 1]), quantity([0.0, 1.0]))
        np.testing.assert_array_equal(quantity([False, True]), quantity([0.0, 1.0]))
        read_only = values.copy()
        read_only.flags.writeable = False
        np.testing.assert_array_equal(quantity(read_only), whole)


@laws
def test_numbers_of_points_broadcast(law):
    n = np.array([[2], [5], [300]])
    many, x = law(n), np.linspace(0.01, 0.99, 7)
    assert many.n.tolist() == n.tolist()
    assert type(law(3).n) is int
    for name in QUANTITIES:
        found = getattr(many, name)(x)
        assert found.shape == (3, 7)
        for row, points in zip(found, n.ravel(), strict=True):
            np.testing.assert_array_equal(row, getattr(law(int(points)), name)(x))
    for name in ("mean", "var", "std"):
        found = getattr(many, name)()
        assert found.shape == (3, 1)
        assert found.ravel().tolist() == [getattr(law(int(points)), name)() for points in n.ravel()]
        assert np.ndim(getattr(law(5), name)()) == 0
    assert law([3]).cdf(1.0).shape == (1,)
    assert law(np.array([], int)).cdf([]).shape == (0,)
    assert law(np.array([], int)).mean().shape == (0,)
    assert law(np.uint8(200)).mean() == law(200).mean()
    assert repr(law(3)) == f"{law.__name__}(3)"
    assert repr(law([3, 4])) == f"{law.__name__}([3, 4])"


@laws
def test_many_values_are_shared_out(law):
    x = np.random.default_rng(0).uniform(0, TURN, 50_000)
    n = np.random.default_rng(1).integers(1, 300, x.size)
    whole = law(n).cdf(x)
    with um.set_workers(1):
        np.testing.assert_array_equal(law(n).cdf(x), whole)
    with um.set_workers(3):
        np.testing.assert_array_equal(law(n).cdf(x), whole)
    some = np.arange(0, x.size, 997)
    np.testing.assert_array_equal(law(n[some]).cdf(x[some]), whole[some])


@laws
def test_laws_refuse_what_has_no_meaning(law):
    for n, error, message in [
        (0, ValueError, r"^n: must be from 1 to 2\*\*53, found 0$"),
        (-3, ValueError, "^n: .*-3"),
        ([4, 0], ValueError, "^n: .*found 0"),
        (2**53 + 1, ValueError, "^n: .*9007199254740993"),
        (2**63, ValueError, "^n: .*9223372036854775808"),
        (2**70, (TypeError, ValueError), "^n: "),
        (2.0, TypeError, "^n: expected integers, found 2.0"),
        (math.nan, TypeError, "^n: .*nan"),
        (True, TypeError, "^n: .*True"),
        ("4", TypeError, "^n: .*'4'"),
        (None, TypeError, "^n: .*None"),
        ([[1, 2], [3]], (TypeError, ValueError), "^n: "),
    ]:
        with pytest.raises(error, match=message):
            law(n)
    for name in QUANTITIES:
        for x in ("1", 1j, None, [object()], np.datetime64("2026-01-01")):
            with pytest.raises(TypeError, match=f"^{name}: expected real numbers, found dtype"):
                getattr(law(3), name)(x)
        with pytest.raises(ValueError, match=rf"^{name}: .*\(3,\).*\(2,\)"):
            getattr(law([3, 4]), name)([0.1, 0.2, 0.3])


@laws
def test_draws(law):
    some = law(5)
    assert np.ndim(some.rvs(rng=1)) == 0
    assert np.ndim(some.rvs((), rng=1)) == 0
    for size, shape in ((7, (7,)), ((2, 3), (2, 3)), ([2, 3], (2, 3)), (0, (0,)), ((0, 4), (0, 4)), (np.int8(3), (3,))):
        drawn = some.rvs(size, rng=1)
        assert drawn.shape == shape
        assert drawn.dtype == np.float64
    whole = some.rvs(50_000, rng=7)
    for workers in (1, 2, 3):
        np.testing.assert_array_equal(some.rvs(50_000, rng=7, workers=workers), whole)
    np.testing.assert_array_equal(some.rvs(100, rng=7), whole[:100])
    np.testing.assert_array_equal(some.rvs((500, 100), rng=7).ravel(), whole)
    assert not np.array_equal(some.rvs(100, rng=8), whole[:100])
    assert not np.array_equal(some.rvs(100), some.rvs(100))
    rng = np.random.default_rng(1)
    assert not np.array_equal(some.rvs(100, rng=rng), some.rvs(100, rng=rng))
    np.testing.assert_array_equal(
        some.rvs(100, rng=np.random.default_rng(1)), some.rvs(100, rng=np.random.default_rng(1))
    )
    low, high = some.ppf([0, 1])
    assert ((whole >= low - 1e-9) & (whole <= high)).all()
    assert stats.kstest(whole, some.cdf).pvalue > 1e-6
    several = law([[2], [5], [100]]).rvs((3, 20_000), rng=3)
    for row, n in zip(several, (2, 5, 100), strict=True):
        assert stats.kstest(row, law(n).cdf).pvalue > 1e-6
        near(row.mean(), law(n).mean(), law(n).std() / math.sqrt(row.size))
    assert np.abs(np.corrcoef(several))[0, 1] < 6 / math.sqrt(20_000)
    assert law([3, 4]).rvs(rng=1).shape == (2,)


@laws
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"size": -1}, ValueError, "^size: .*-1"),
        ({"size": (2, -1)}, ValueError, "^size: "),
        ({"size": 2.5}, TypeError, "^size: .*2.5"),
        ({"size": "a"}, TypeError, "^size: .*'a'"),
        ({"size": 5}, ValueError, r"^size: n of shape \(2,\) does not broadcast to \(5,\)"),
        ({"size": (2**40, 2)}, MemoryError, "^size: .*GiB"),
        ({"size": (2**61, 2)}, ValueError, "^size: "),
        ({"rng": -1}, ValueError, "^rng: .*-1"),
        ({"rng": 2**64}, ValueError, "^rng: "),
        ({"rng": "a"}, TypeError, "^rng: .*'a'"),
        ({"workers": 0}, ValueError, "^workers: .*0"),
    ],
)
def test_draws_refuse(law, options, error, message):
    with pytest.raises(error, match=message):
        law([3, 4]).rvs(**options)


# --- trials, one by one, against the definition on the same random numbers --------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 8, 9, 16, 17, 33, 64, 65, 257, 1030])
def test_arcs_are_those_of_the_definition(n):
    """Numbers of trials that fill no vector; all arcs from every point, in Python's integers."""
    size = 53 if n < 200 else 17 if n < 1000 else 3
    points, turn = ref.trials_of_block(n, size, seed=2022)
    arcs = np.array([ref.shortest_whole_arc(p, turn, n) / turn for p in points])
    found = um.simulate_gaps(n, "min_arc", trials=size, rng=2022)
    np.testing.assert_allclose(found, arcs * TURN, rtol=1e-15, atol=1e-15)
    largest = um.simulate_gaps(n, "max_gap", trials=size, rng=2022)
    np.testing.assert_allclose(largest, TURN - arcs * TURN, rtol=1e-12, atol=1e-12)
    smallest = [TURN if n == 1 else ref.shortest_whole_arc(p, turn, 2) / turn * TURN for p in points]
    found = um.simulate_gaps(n, "min_gap", trials=size, rng=2022)
    np.testing.assert_allclose(found, smallest, rtol=1e-15, atol=1e-15)


@pytest.mark.parametrize(
    ("n", "k"),
    [
        (2, 2),
        (4, 4),
        (4, 3),
        (5, 2),
        (9, 9),
        (9, 5),
        (17, 17),
        (33, 20),
        (64, 64),
        (65, 65),
        (65, 2),
        (100, 60),
        (1100, 700),
    ],
)
def test_hits_are_those_of_the_definition_at_ties_too(n, k):
    """Angles that are the arc of some trial, to the last bit: as long as the angle is no hit; and half a turn."""
    size = 200 if n < 100 else 60 if n < 1000 else 5
    points, turn = ref.trials_of_block(n, size, seed=5)
    arcs = np.array([ref.shortest_whole_arc(p, turn, k) for p in points], dtype=object)
    ties = [float(arc / turn * TURN) for arc in arcs if int(float(arc / turn * TURN) / TURN * turn) == arc]
    theta = np.array([0.0, 1.0, BELOW, np.pi, ABOVE, 5.0, TURN, *ties[:60]])
    allowed = [max(int(t / TURN * 2.0**64) - 1, 0) * turn // 2**64 for t in theta]  # in whole units, below the angle
    expected = [sum(arc <= most for arc in arcs) for most in allowed]
    expected[6] = size
    found = um.scan_circle(k, n, theta, trials=size, rng=5)
    assert found.hits.tolist() == expected
    assert len(ties) > min(30, size // 4) or n > 1024


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_both_kernels_of_few_points_see_the_same_trials(n):
    """Up to half a turn no sorting is needed; two angles at once, or one above π, are answered by sorting."""
    for theta in (0.0, 1e-9, 0.5, 2.0, BELOW, np.pi):
        alone = um.common_sector(n, theta, trials=100_000, rng=3)
        both = um.common_sector(n, [theta, 6.0], trials=100_000, rng=3)
        assert alone.hits == both.hits[0]
    ends = [um.common_sector(n, theta, trials=100_000, rng=3).hits for theta in (BELOW, np.pi, ABOVE)]
    assert len(set(ends)) == 1


def test_ties_are_no_hits_in_any_kernel():
    """All angles in one cell of the density, where 32 bits leave 65,536 places: a tie of two is no rarity.

    Of two points, a share of 2j - 1 (or, with ties, 2j + 1) to 65,536 is closer than j places, but for j²/65,536².
    """

    def cell(angle):
        return (angle < TURN / 2**16).astype(float)

    trials = 4_000_000
    for j in (1, 2, 5):
        theta = j * 2.0**-32 * TURN
        assert theta / TURN == j * 2.0**-32
        share = (2 * j - 1) / 2**16
        for angle in (theta, [theta, 4.0]):
            found = np.ravel(um.common_sector(2, angle, density=cell, method="mc", trials=trials, rng=1).hits)[0]
            agrees(found / trials, share, trials)


# --- trials against exact laws ----------------------------------------------------------------------------------------

GRID = [
    (n, part)
    for n in (2, 3, 4, 5, 8, 9, 16, 17, 32, 33, 64, 65, 100, 200, 1000)
    for part in (0.05, 0.3, 0.49999, 0.5, 0.50001, 0.7, 0.85, 0.9, 0.95, 0.98, 0.993)
    if 1e-4 < um.CommonSector(n).cdf(part * TURN) < 1 - 1e-4
]


def test_monte_carlo_agrees_with_the_exact_law_over_a_grid():
    """The sum of z² of independent runs is chi-square; it is out of bounds once in 1e6 seeds."""
    trials = 200_000
    z = [um.common_sector(n, part * TURN, trials=trials, rng=i).z_score for i, (n, part) in enumerate(GRID)]
    statistic = float(np.square(z).sum())
    print(f"chi-square of z: {statistic:.1f} with {len(z)} degrees of freedom, largest |z| {np.abs(z).max():.2f}")
    assert len(z) > 50
    assert stats.chi2.ppf(5e-7, len(z)) < statistic < stats.chi2.isf(5e-7, len(z))
    assert abs(np.sum(z)) < 5 * math.sqrt(len(z))


def test_rare_hits_among_many_points():
    """Where a mask of buckets turns away most trials after some points."""
    z = []
    for i, (n, p) in enumerate(itertools.product((65, 100, 130, 256, 1000, 1500), (2e-4, 3e-3, 0.02))):
        z.append(um.common_sector(n, um.CommonSector(n).ppf(p), trials=150_000, rng=i).z_score)
    assert stats.chi2.ppf(5e-7, len(z)) < np.square(z).sum() < stats.chi2.isf(5e-7, len(z))


def test_one_run_answers_for_all_angles():
    theta = np.linspace(0, TURN, 33).reshape(3, 11)
    for n in (4, 20, 100):
        found = um.common_sector(n, theta, trials=200_000, rng=n)
        assert found.hits.shape == found.estimate.shape == found.exact.shape == found.z_score.shape == theta.shape
        assert (np.abs(found.z_score) < 5).all()
        assert (np.diff(found.hits.ravel()) >= 0).all()
        # The band of Dvoretzky, Kiefer and Wolfowitz at 1e-6.
        assert np.abs(found.estimate - found.exact).max() < math.sqrt(math.log(2e6) / 2 / 200_000)
        shuffled = um.common_sector(n, theta[::-1, ::-1], trials=200_000, rng=n)
        np.testing.assert_array_equal(shuffled.hits, found.hits[::-1, ::-1])
        twice = um.common_sector(n, np.repeat(theta, 2), trials=200_000, rng=n)
        np.testing.assert_array_equal(twice.hits, np.repeat(found.hits, 2))


@pytest.mark.parametrize("n", [2, 5, 30, 300])
def test_exponential_numbers_are_another_way_to_the_same_law(n):
    """The largest of n exponential numbers over their sum: once in 1e6 each against the law and against points."""
    other = ref.largest_of_exponentials(np.random.default_rng(n), n, 20_000)
    points = um.simulate_gaps(n, trials=20_000, rng=n)
    assert stats.kstest(other, um.MaxGap(n).cdf).pvalue > 1e-6
    assert stats.kstest(points, um.MaxGap(n).cdf).pvalue > 1e-6
    assert stats.ks_2samp(points, other).pvalue > 1e-6
    for statistic, law in (("min_gap", um.MinGap), ("min_arc", um.CommonSector)):
        assert stats.kstest(um.simulate_gaps(n, statistic, trials=20_000, rng=n), law(n).cdf).pvalue > 1e-6


@pytest.mark.parametrize(
    ("k", "n", "width"),
    [(3, 4, 0.4), (3, 5, 1.0), (5, 6, 3.5), (7, 8, 4.5), (5, 20, 0.7), (40, 70, 2.9), (3, 90, 0.08)],
)
def test_scans_agree_with_brute_force(k, n, width):
    size = 200_000 // n
    other = ref.shortest_arc(np.random.default_rng(k).uniform(0, TURN, (size, n)), k) <= width
    found = um.scan_circle(k, n, width, trials=200_000, rng=k)
    assert found.exact is None
    assert found.z_score is None
    agree(found.hits, found.trials, other.sum(), size, 5)


def test_scans_that_have_another_name():
    for n, width in ((2, 1.0), (6, 2.5), (6, 4.0), (100, 3.0), (100, 6.0)):
        assert um.scan_circle(n, n, width).estimate == um.common_sector(n, width).estimate
        options = {"trials": 30_000, "rng": 1}
        assert um.scan_circle(n, n, width, **options).hits == um.common_sector(n, width, **options).hits
    for n, width in ((3, 1.0), (20, 0.02), (100, 1e-3)):
        assert um.scan_circle(2, n, width).estimate == pytest.approx(um.MinGap(n).cdf(width), rel=1e-14)
        assert abs(um.scan_circle(2, n, width, trials=200_000, rng=n).z_score) < 5
    z = []
    for n, k in ((3, 3), (7, 5), (8, 5), (20, 13), (64, 40), (65, 41), (200, 115)):
        found = um.scan_circle(k, n, np.pi, trials=100_000, rng=n)
        assert found.exact == pytest.approx(float(ref.half_circle(n, k)), rel=1e-12)
        z.append(found.z_score)
    assert np.square(z).sum() < stats.chi2.isf(1e-6, len(z))


def test_coverage():
    arcs = np.array([0.0, 0.3, 1.0, 2.0, np.pi, 5.0, TURN])
    for n in (1, 2, 5, 20, 100):
        np.testing.assert_array_equal(um.coverage(n, arcs).estimate, um.MaxGap(n).cdf(arcs))
        found = um.coverage(n, arcs, trials=100_000, rng=n)
        assert found.hits.tolist() == sorted(found.hits.tolist())
        assert (np.abs(found.z_score) < 5).all(), found
    for n, arc in ((5, 2.0), (30, 0.8), (100, 0.4)):
        alone = um.coverage(n, arc, trials=100_000, rng=1)
        mixed = um.coverage(None, np.full(n, arc), trials=100_000, rng=2)
        agrees(alone.estimate, alone.exact, 100_000, 5)
        agrees(mixed.estimate, alone.exact, 100_000, 5)


def test_coverage_by_arcs_of_several_lengths():
    """Two arcs cover with probability a + b - 1 turns; more of them by brute force."""
    for a, b in ((0.7, 0.6), (0.999, 0.5), (0.5, 0.51)):
        found = um.coverage(None, np.array([a, b]) * TURN, trials=200_000, rng=1)
        agrees(found.estimate, a + b - 1, 200_000, 5)
    rng = np.random.default_rng(3)
    for lengths in ([2.0, 3.0, 4.0], [np.pi, np.pi, 0.5, 0.25], [6.0, 0.1, 0.1], [0.0, 4.0, 3.0, 2.0], [1.0] * 15):
        starts = rng.uniform(0, TURN, (20_000, len(lengths)))
        other = ref.covers(starts, np.array(lengths)).sum()
        found = um.coverage(None, lengths, trials=100_000, rng=4)
        agree(found.hits, 100_000, other, 20_000, 5)
        backwards = um.coverage(None, lengths[::-1], trials=100_000, rng=5)
        agree(found.hits, 100_000, backwards.hits, 100_000, 5)


def test_an_arc_of_a_whole_turn_covers():
    assert um.coverage(1, TURN, trials=100, rng=1).hits == 100
    assert um.coverage(None, [TURN], trials=100, rng=1).hits == 100
    assert um.coverage(None, [0.0, TURN, 1.0], trials=100, rng=1).hits == 100


def test_half_spheres():
    z = []
    for i, (n, d) in enumerate(((3, 2), (9, 2), (5, 3), (12, 3), (7, 4), (40, 16), (9, 5), (20, 8))):
        found = um.hemisphere(n, d, trials=10_000, rng=i)
        assert found.exact == pytest.approx(float(ref.half_space(n, d)), rel=1e-12)
        z.append(found.z_score)
    assert np.square(z).sum() < stats.chi2.isf(1e-6, len(z))
    assert um.hemisphere(4, 4, trials=1000, rng=1).hits == 1000


def test_caps():
    z = []
    for i, (n, beta) in enumerate(((2, 0.4), (3, 1.0), (5, 1.5), (12, 1.5), (4, np.pi / 2), (9, 1.57))):
        z.append(um.common_cap(n, beta, trials=50_000, rng=i).z_score)
        several = um.common_cap(n, [beta, 3.0], trials=20_000, rng=i)  # by another way: the smallest cap itself
        z.append(several.z_score[0])
    for i, (n, beta) in enumerate(((3, 1.0), (6, 1.5), (6, 2.0), (20, 2.8))):
        z.append(um.common_cap(n, beta, d=2, trials=20_000, rng=i).z_score)
    assert np.square(z).sum() < stats.chi2.isf(1e-6, len(z))


@pytest.mark.parametrize(("n", "d", "beta"), [(6, 2, 2.2), (5, 3, 1.65), (12, 3, 1.9), (8, 4, 1.65), (12, 5, 1.65)])
def test_large_caps_agree_with_convex_hulls(n, d, beta):
    rng = np.random.default_rng(n)
    points = rng.normal(size=(1500, n, d))
    points /= np.linalg.norm(points, axis=-1, keepdims=True)
    other = sum(ref.largest_cap(p) >= math.cos(beta) for p in points)
    assert 150 < other < 1350
    found = um.common_cap(n, beta, d=d, trials=20_000, rng=n)
    agree(found.hits, 20_000, other, 1500, 5)


def test_caps_that_hold_any_points():
    """A simplex inscribed in the sphere has a facet within 1/d of its centre."""
    for n, d in ((2, 2), (4, 3), (5, 4), (6, 5)):
        assert um.common_cap(n, math.acos(-1 / d) + 1e-9, d=d, trials=3000, rng=1).hits == 3000
    assert um.common_cap(7, [0.0, np.pi], trials=100, rng=1).hits.tolist() == [0, 100]
    for d in (2, 3, 5):
        assert um.common_cap(1, 0.0, d=d, trials=100, rng=1).hits == 100


# --- densities --------------------------------------------------------------------------------------------------------


def by_quadrature(n, theta, f, F, low=0, high=TURN):
    """n ∫ f(a) [F(a+θ) - F(a)]^(n-1) da by SciPy."""
    places = np.linspace(low, high, 33)
    pieces = (
        integrate.quad(lambda a: f(a) * (F(a + theta) - F(a)) ** (n - 1), x, y, epsabs=1e-13, epsrel=1e-12)[0]
        for x, y in itertools.pairwise(places)
    )
    return n * sum(pieces)


@pytest.mark.parametrize("kappa", [0, 0.1, 1, 4])
def test_von_mises_agrees_with_quadrature(kappa):
    law = stats.vonmises(kappa) if kappa else stats.uniform(-np.pi, TURN)

    def cumulated(a):
        turns = np.floor((a + np.pi) / TURN)
        return turns + law.cdf(a - turns * TURN)

    for n, theta in ((2, 0.3), (4, np.pi), (10, 2.5)):
        expected = by_quadrature(n, theta, law.pdf, cumulated, -np.pi, np.pi)
        found = um.common_sector(n, theta, density=f"vonmises:{kappa}")
        assert found.method == "exact"
        assert found.estimate == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("sigma", [0.2, 1.0, 1.99, 2.01, 9.0])
def test_wrapped_normal_agrees_with_quadrature(sigma):
    wraps = np.arange(-12, 13) * TURN

    def f(a):
        return stats.norm.pdf((a + wraps) / sigma).sum() / sigma

    def cumulated(a):
        return stats.norm.cdf((a + wraps) / sigma).sum()

    for n, theta in ((2, 0.3), (3, np.pi), (6, 2.0)):
        expected = by_quadrature(n, theta, f, cumulated, -np.pi, np.pi)
        assert um.common_sector(n, theta, density=f"wrappednormal:{sigma}").estimate == pytest.approx(
            expected, abs=3e-8
        )


def test_tables_and_functions_agree_with_quadrature():
    values = np.array([1.0, 3, 0, 2, 5])
    knots = np.arange(6) * TURN / 5
    closed = np.append(values, values[0])
    total = np.trapezoid(closed, knots)
    sums = np.append(0, np.cumsum((closed[1:] + closed[:-1]) / 2 * np.diff(knots))) / total

    def f(a):
        return np.interp(np.mod(a, TURN), knots, closed) / total

    def cumulated(a):
        turns, rest = divmod(a, TURN)
        i = min(int(rest / knots[1]), 4)
        return turns + sums[i] + (rest - knots[i]) * (closed[i] / total + f(rest)) / 2

    for n, theta in ((2, 1.0), (3, np.pi), (7, 2.8)):
        expected = by_quadrature(n, theta, f, cumulated)
        for density in (values, values.tolist(), values * 1e-200, f, lambda a: 7e8 * f(a)):
            assert um.common_sector(n, theta, density=density).estimate == pytest.approx(expected, abs=2e-8)


def test_densities_in_other_forms_are_the_same():
    theta = np.array([0.5, 2.0, np.pi])
    plain = um.common_sector(5, theta).estimate
    for uniform in (
        [1, 1],
        np.ones(1000, int),
        lambda a: np.ones_like(a),
        "vonmises:0",
        "wrappednormal:900",
    ):
        np.testing.assert_allclose(um.common_sector(5, theta, density=uniform).estimate, plain, rtol=1e-11)
    named = um.common_sector(5, theta, density="vonmises:2.5").estimate
    turned = um.common_sector(5, theta, density=lambda a: np.exp(2.5 * np.cos(a - 1.2345))).estimate
    np.testing.assert_allclose(turned, named, rtol=1e-7)
    options = {"trials": 30_000, "rng": 1, "method": "mc"}
    hits = um.common_sector(5, theta, density="vonmises:2.5", **options).hits
    same = um.common_sector(5, theta, density=lambda a: np.exp(2.5 * np.cos(a)), **options).hits
    np.testing.assert_array_equal(hits, same)


@pytest.mark.parametrize("value", [5e-324, 1e-310, 1e308])
def test_values_of_any_size_make_a_density(value):
    """It need not integrate to 1."""
    expected = um.common_sector(4, 2.0).estimate
    for density in ([value, value], lambda a: np.full(a.shape, value)):
        assert um.common_sector(4, 2.0, density=density).estimate == pytest.approx(expected, rel=1e-11)


def test_a_hole_in_the_density():
    """Half of the circle is empty: all points lie in the other, whatever the arcs of the rest."""

    def half(a):
        return (a < np.pi).astype(float)

    for n in (2, 5, 30, 100):
        for method in ("exact", "mc"):
            found = um.common_sector(
                n, np.pi, density=half, method=method, trials=10_000 if method == "mc" else None, rng=1
            )
            assert found.estimate == pytest.approx(1, abs=1e-12)
            assert 0 <= found.estimate <= 1
            low, high = found.ci()
            assert 0 <= low <= high <= 1
        repr(found)
        # The range of n uniform points on a segment: n r^(n-1) - (n-1) r^n.
        r = 0.6
        found = um.common_sector(n, r * np.pi, density=half, trials=50_000, rng=n)
        assert found.exact == pytest.approx(n * r ** (n - 1) - (n - 1) * r**n, abs=1e-9)
        assert abs(found.z_score) < 5 or found.exact < 1e-4
    assert um.coverage(20, 3.0, density=half, trials=1000, rng=1).hits == 0


@pytest.mark.parametrize("density", ["vonmises:1", "wrappednormal:0.7", [0, 0, 1, 5, 0]], ids=str)
def test_trials_follow_the_density(density):
    z = []
    for i, n in enumerate((2, 4, 9, 33, 64, 65, 150)):
        for theta in (0.5, 1.7, 2.6, np.pi):
            exact = um.common_sector(n, theta, density=density).estimate
            if 1e-3 < exact < 1 - 1e-3:
                found = um.common_sector(n, theta, density=density, trials=50_000, rng=i)
                assert found.exact == exact
                z.append(found.z_score)
        both = um.common_sector(n, [2.6, 5.0], density=density, trials=50_000, rng=i + 100)
        assert np.isnan(both.exact[1]) == np.isnan(both.z_score[1]) == (n > 2)
        if 1e-3 < both.exact[0] < 1 - 1e-3:
            z.append(both.z_score[0])
    assert len(z) > 9
    assert np.square(z).sum() < stats.chi2.isf(1e-6, len(z))


def test_trials_under_a_density_agree_with_brute_force():
    rng = np.random.default_rng(1)
    for n, k, width in ((6, 6, 4.5), (5, 3, 1.0), (80, 30, 1.0)):
        size = 200_000 // n
        other = (ref.shortest_arc(rng.vonmises(0, 1.3, (size, n)), k) <= width).sum()
        found = um.scan_circle(k, n, width, density="vonmises:1.3", trials=100_000, rng=2)
        agree(found.hits, 100_000, other, size, 5)
    gaps = um.simulate_gaps(7, density="vonmises:1.3", trials=20_000, rng=3)
    other = TURN - ref.shortest_arc(rng.vonmises(0, 1.3, (20_000, 7)), 7)
    assert stats.ks_2samp(gaps, other).pvalue > 1e-6
    covered = um.coverage(7, 2.5, density="vonmises:1.3", trials=100_000, rng=4)
    agree(covered.hits, 100_000, (other <= 2.5).sum(), 20_000, 5)


def test_the_bias_bounds_what_rounding_does_under_a_narrow_density():
    """64 points within some hundredths: two of them are 1e-12 apart with probability 1.2e-7 at most (n² w ∫ f²)."""
    found = um.scan_circle(2, 64, 1e-12, density="vonmises:1e4", trials=1_000_000, rng=1)
    assert found.estimate <= 1.2e-7 + found.bias + 6 * found.standard_error
    assert found.estimate > 10 * um.scan_circle(2, 64, 1e-12, trials=10, rng=1).bias, "or rounding does nothing here"


DENSITIES = [
    ("vonmises", "^density: expected 'vonmises:KAPPA' or 'wrappednormal:SIGMA', found 'vonmises'$"),
    ("vonmises:", "^density: "),
    ("vonmises:x", "^density: vonmises: .*'x'"),
    ("vonmises:nan", "^density: vonmises: .*nan"),
    ("vonmises:-1", "kappa: .*-1"),
    ("vonmises:1e7", "kappa: .*10000000"),
    ("wrappednormal:0", "sigma: .*0"),
    ("wrappednormal:inf", "^density: wrappednormal: .*inf"),
    ("cauchy:1", "^density: .*'cauchy:1'"),
    ("", "^density: .*''"),
    (3.0, r"^density: .*shape \(\)"),
    ([], r"^density: .*shape \(0,\)"),
    ([1.0], r"^density: .*shape \(1,\)"),
    ([[1.0, 2.0]], r"^density: .*shape \(1, 2\)"),
    ([1.0, -2.0], "^density: .*-2.0"),
    ([1.0, np.nan], "^density: .*nan"),
    ([1.0, np.inf], "^density: .*inf"),
    ([0.0, 0.0, 0.0], "^density: must be above 0 somewhere"),
    (lambda a: a - 1, "^density: must be finite and not negative, found -0.99"),
    (lambda a: a * 0, "^density: must be above 0 somewhere"),
    (lambda a: a * np.nan, "^density: .*nan"),
    (lambda a: a * np.inf, "^density: .*inf"),
    (lambda a: 1.0, r"^density: the function returned shape \(\)"),
    (lambda a: a[:-1], "^density: the function returned shape"),
]


@pytest.mark.parametrize(("density", "message"), DENSITIES, ids=[str(i) for i in range(len(DENSITIES))])
def test_what_is_no_density_is_refused(density, message):
    for call in (
        lambda: um.common_sector(3, 1.0, density=density),
        lambda: um.scan_circle(2, 3, 1.0, density=density),
        lambda: um.coverage(3, 1.0, density=density),
        lambda: um.simulate_gaps(3, density=density, trials=3),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_densities_of_other_types_are_refused():
    for density in ([1j, 2], ["a", "b"], [object(), object()], lambda a: a * 1j, lambda a: a.astype(str)):
        with pytest.raises(TypeError, match="density: "):
            um.common_sector(3, 1.0, density=density)
    with pytest.raises(ZeroDivisionError):
        um.common_sector(3, 1.0, density=lambda a: 1 / 0)
    with pytest.raises(ValueError, match="density: "):
        um.coverage(None, [6.0, 3.0], density="vonmises:1")


# --- weighed trials ---------------------------------------------------------------------------------------------------


def test_weighed_trials_have_no_variance_up_to_half_a_turn():
    for n, theta in ((3, 1.0), (7, BELOW), (7, np.pi), (100, 0.01), (1000, 2.0), (1, 1.0)):
        found = um.common_sector(n, theta, method="karp-luby", trials=1000, rng=1)
        assert found.estimate == pytest.approx(found.exact, rel=1e-11, abs=1e-300)
        assert found.standard_error == 0
        assert found.counts.tolist() == [1000]
        assert found.z_score == 0
    found = um.common_sector(6, 2.0, density="vonmises:3", method="karp-luby", trials=1000, rng=1)
    assert (found.estimate, found.standard_error) == (pytest.approx(found.exact, rel=1e-12), 0)


def test_weighed_trials_agree_with_the_exact_law():
    """However rare it is; the variance is below that of weights which are 1 or 1/K: (K-1)²/4K of the square."""
    z = []
    for i, (n, part) in enumerate(itertools.product((3, 4, 8, 17, 33, 64, 65, 200, 1000), (0.55, 0.7, 0.8, 0.9, 0.97))):
        found = um.common_sector(n, part * TURN, method="karp-luby", trials=20_000, rng=i)
        assert found.counts.sum() == found.trials == 20_000
        most = min(n, math.floor(1 / (1 - part) + 1e-9))
        assert found.counts.size <= most
        weights = 1 / np.arange(1, found.counts.size + 1)
        mean = found.counts @ weights / 20_000
        leaders = n * part ** (n - 1)
        assert found.estimate == pytest.approx(min(leaders * mean, 1), rel=1e-9)
        bound = leaders * mean * math.sqrt((most - 1) ** 2 / (4 * most) / 20_000)
        assert found.standard_error <= bound * 1.1 + 1e-300
        # Where few weights differ from 1, the standard error is too rough for a z-score.
        if found.counts[1:].sum() > 50:
            z.append(found.z_score)
        else:
            assert found.estimate == pytest.approx(found.exact, rel=0.01)
    assert len(z) > 20
    assert stats.chi2.ppf(5e-7, len(z)) < np.square(z).sum() < stats.chi2.isf(5e-7, len(z))


def test_weights_have_the_law_of_long_gaps():
    """Weighed by how many gaps are long, `gap_counts` is the law of N."""
    for n, part in ((6, 0.8), (20, 0.85), (80, 0.93)):
        found = um.common_sector(n, part * TURN, method="karp-luby", trials=50_000, rng=n)
        counts = um.gap_counts(n, (1 - part) * TURN)
        law = (counts * np.arange(counts.size))[1:]
        law = law[: found.counts.size] / law.sum()
        cells = law * 50_000 > 10
        statistic = ((found.counts - law * 50_000) ** 2 / np.maximum(law * 50_000, 1e-300))[cells].sum()
        assert statistic < stats.chi2.isf(1e-6, cells.sum())


@pytest.mark.parametrize(
    "density", ["vonmises:1", [1, 0, 0, 2, 6], lambda a: (a < np.pi) + 0.2], ids=["vm", "table", "f"]
)
def test_weighed_trials_under_a_density_agree_with_plain_ones(density):
    for n, theta in ((3, 4.0), (5, 4.4), (12, 5.2), (70, 5.9)):
        weighed = um.common_sector(n, theta, density=density, method="karp-luby", trials=20_000, rng=1)
        plain = um.common_sector(n, theta, density=density, method="mc", trials=200_000, rng=2)
        near(weighed.estimate, plain.estimate, math.hypot(weighed.standard_error, plain.standard_error) + 1e-6, 5)


def test_weighed_trials_are_the_answer_where_no_law_is_known_and_it_is_rare():
    rare = um.common_sector(60, 4.0, density="vonmises:0.5", rng=1)
    assert (rare.method, rare.exact, rare.trials) == ("karp-luby", None, 100_000)
    assert rare.z_score is None
    assert 0 < rare.estimate < 1e-3
    assert um.common_sector(4, 4.0, density="vonmises:1", rng=1).method == "mc"
    assert um.common_sector(60, 4.0, density="vonmises:0.5", rng=1, trials=1000).method == "mc"
    assert um.common_sector(60, [4.0], density="vonmises:0.5", rng=1).method == "mc"
    assert um.common_sector(60, 3.0, density="vonmises:0.5").method == "exact"


def test_intervals_of_weighed_trials():
    found = um.common_sector(20, 0.8 * TURN, method="karp-luby", trials=5000, rng=3)
    low, high = found.ci(0.9)
    reach = stats.norm.ppf(0.95) * found.standard_error
    assert (low, high) == (pytest.approx(found.estimate - reach), pytest.approx(found.estimate + reach))
    assert low < found.exact < high
    assert found.ci(0.9, "jeffreys") == (low, high)
    # All weights are 1: Clopper and Pearson's bound for the share of others, which weigh 1/5 at least.
    rare = um.common_sector(1000, 0.8 * TURN, method="karp-luby", trials=4000, rng=1)
    assert rare.counts.tolist() == [4000, *[0] * (rare.counts.size - 1)]
    leaders = 1000 * 0.8**999
    others = 1 - 0.025 ** (1 / 4000)
    low, high = rare.ci()
    assert high == pytest.approx(leaders, rel=1e-9)
    assert low == pytest.approx(leaders * (1 - others * (1 - 1 / rare.counts.size)), rel=1e-9)
    assert low <= rare.exact <= high
    narrow = um.common_sector(5, 3.0, method="karp-luby", trials=10, rng=1)
    assert narrow.ci() == (pytest.approx(narrow.exact, rel=1e-11), pytest.approx(narrow.exact, rel=1e-11))
    none = um.common_sector(5, 5.0, method="karp-luby", trials=0, rng=1)
    assert none.ci() == (0, 1)
    for seed in range(20):
        sure = um.common_sector(5, 5.0, method="karp-luby", trials=200, rng=seed)
        low, high = sure.ci()
        assert 0 <= low <= sure.exact <= high + 1e-12 or abs(sure.z_score) > 1.9
        assert high <= 1, "it is a probability"


def test_weighed_trials_stop_at_the_relative_error():
    found = um.common_sector(200, 0.9 * TURN, method="karp-luby", rel_se=0.005, rng=1)
    assert found.standard_error / found.estimate <= 0.005 * 1.1
    most = math.floor(1 / 0.1 + 1e-9)
    assert found.trials <= math.ceil((most - 1) ** 2 / (4 * most) / 0.005**2)
    assert found.reproducible


# --- what a run promises ----------------------------------------------------------------------------------------------


def counted(question, **options):
    """All integers of an answer."""
    found = question(**options)
    return [found.trials, *np.ravel(found.hits if found.counts is None else found.counts).tolist()]


QUESTIONS = {
    **{
        f"{n} at {theta}": (um.common_sector, n, theta)
        for n in (3, 4, 9, 16, 17, 33, 64, 65, 200)
        for theta in (2.9, 5)
    },
    **{f"{n} rarely": (um.common_sector, n, 5.6) for n in (65, 130, 300)},
    **{f"{n} at all": (um.common_sector, n, [0.5, 3.0, 6.0]) for n in (4, 16, 17, 64, 65, 200)},
    **{f"{k} of {n}": (um.scan_circle, k, n, 1.0) for k, n in ((2, 3), (4, 9), (20, 33), (40, 64), (30, 65), (9, 200))},
    **{f"cap {d}": (um.common_cap, 7, 1.2, d) for d in (2, 3, 5)},
    **{f"caps {d}": (um.common_cap, 9, [1.4, 1.8, 2.2], d) for d in (2, 3, 5)},
    "half space": (um.hemisphere, 9, 4),
    "coverage": (um.coverage, 9, [1.5, 2.0]),
    "mixed": (um.coverage, None, [3.0, 2.0, 1.0, 4.0]),
}
CALLS = {
    name: lambda function=function, arguments=arguments, **options: function(
        *arguments, **{"trials": 20_001, **options}
    )
    for name, (function, *arguments) in QUESTIONS.items()
} | {
    **{
        f"{n} under {density}": lambda n=n, density=density, **options: um.common_sector(
            n, [2.0, 5.0], density=density, **{"trials": 20_001, **options}
        )
        for n, density in ((4, "vonmises:2"), (17, "wrappednormal:1"), (65, "vonmises:0.5"), (33, "vonmises:20"))
    },
    **{
        f"{n} weighed {density}": lambda n=n, density=density, **options: um.common_sector(
            n, 5.3, density=density, method="karp-luby", **{"trials": 20_001, **options}
        )
        for n, density in ((4, None), (17, None), (64, None), (65, None), (20, "vonmises:1"), (9, "wrappednormal:2"))
    },
}
calls = pytest.mark.parametrize("name", CALLS)


@calls
def test_hits_are_the_same_at_any_number_of_workers(name):
    expected = counted(CALLS[name], rng=11, workers=1)
    for workers in (2, 3, -1):
        assert counted(CALLS[name], rng=11, workers=workers) == expected
    assert expected[0] == 20_001
    assert counted(CALLS[name], rng=11) == expected
    again = CALLS[name](rng=np.random.default_rng(5))
    assert counted(CALLS[name], rng=again.seed) == counted(CALLS[name], rng=np.random.default_rng(5))


@calls
def test_shards_add_up_to_the_whole(name):
    """By blocks, the last of which has fewer trials."""
    trials = 20_001 if "cap" in name or "half space" in name else 150_001
    found = CALLS[name](rng=12, trials=trials)
    whole = counted(CALLS[name], rng=12, trials=trials)
    for cuts in ([0, 1, 2], [0, found.blocks // 2, found.blocks - 1], [0, found.blocks + 3]):
        shards = [
            counted(
                CALLS[name],
                rng=12,
                trials=trials,
                first_block=first,
                blocks=None if end is None else max(end - first, 0),
                workers=2,
            )
            for first, end in zip(cuts, [*cuts[1:], None], strict=True)
        ]
        assert np.sum(shards, axis=0).tolist() == whole
    assert counted(CALLS[name], rng=12, trials=trials, first_block=found.blocks)[0] == 0
    assert found.blocks > 1


# Every integer that comes out, by question.
FINGERPRINT = """
import json, sys
sys.path[:0] = {path!r}
import unitmass as um
from test_sectors import CALLS, counted
lines = {{name: counted(call, rng=13, workers=2) for name, call in CALLS.items()}}
lines["samples"] = [
    um.simulate_gaps(n, s, trials=999, rng=1, density=f).tobytes().hex()
    for n in (3, 8, 31, 64, 65, 150) for s in ("max_gap", "min_gap", "min_arc") for f in (None, "vonmises:2")
]
lines["laws"] = [
    getattr(law([2, 9, 64, 65, 700]), q)([[0.01], [0.1], [0.5], [0.9]]).tobytes().hex()
    for law in (um.MaxGap, um.MinGap, um.CommonSector) for q in ("cdf", "sf", "logcdf", "logsf", "pdf", "ppf", "isf")
]
print(json.dumps({{"level": um.show_config(mode="dicts")["simd"]["level"], "lines": lines}}))
"""


def fingerprint(**environment):
    here = os.path.dirname(os.path.abspath(__file__))
    return json.loads(run_child(FINGERPRINT.format(path=[here]), **environment))


@pytest.fixture(scope="module")
def default_bits():
    return fingerprint()


@pytest.mark.parametrize("level", um.show_config(mode="dicts")["simd"]["available"])
def test_every_simd_level_gives_the_same_integers(level, default_bits):
    forced = fingerprint(UNITMASS_SIMD=level)
    assert forced["level"] == level
    assert forced["lines"].keys() == default_bits["lines"].keys()
    differ = [name for name, line in forced["lines"].items() if line != default_bits["lines"][name]]
    assert not differ


@pytest.mark.parametrize("n", [4, 40, 100])
def test_trials_begin_alike(n):
    """The first so many trials of any number of them, in counts and samples."""
    arcs = um.simulate_gaps(n, "min_arc", trials=70_000, rng=4)
    np.testing.assert_array_equal(um.simulate_gaps(n, "min_arc", trials=50_001, rng=4), arcs[:50_001])
    for trials in (0, 1, 15, 16, 17, 1000, 65_535, 65_536, 65_537, 70_000):
        found = um.common_sector(n, [2.0, 4.0, 5.9], trials=trials, rng=4)
        assert found.trials == trials
        assert found.hits.tolist() == [(arcs[:trials] < theta).sum() for theta in (2.0, 4.0, 5.9)]
    single = [um.common_sector(n, 5.9, trials=trials, rng=4).hits for trials in (1000, 2000, 65_537)]
    assert single == sorted(single)


def test_the_seed_reproduces():
    first = um.common_sector(5, 2.0, trials=1000)
    assert first.reproducible
    assert 0 <= first.seed < 2**64
    assert um.common_sector(5, 2.0, trials=1000, rng=first.seed).hits == first.hits
    assert um.common_sector(5, 2.0, trials=100_000, rng=1).hits != um.common_sector(5, 2.0, trials=100_000, rng=2).hits
    assert um.common_sector(5, 2.0, trials=10, rng=2**64 - 1).seed == 2**64 - 1


# Hits of 100,000 trials with seed 2022: other numbers here are an entry in the changelog.
PINNED = {
    (4, np.pi): 50038,
    (4, 4.0): 90881,
    (20, 4.9): 17379,
    (64, 5.6): 4478,
    (100, 5.8): 3586,
    (1000, 6.23): 18545,
}


@pytest.mark.parametrize(("n", "theta"), PINNED)
def test_the_streams_are_pinned(n, theta):
    assert um.common_sector(n, theta, trials=100_000, rng=2022).hits == PINNED[n, theta]


# --- stopping ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [4, 40, 100])
def test_a_relative_error_stops_with_the_trial_of_the_last_hit(n):
    """Inverse binomial sampling, as samples with the same seed tell it."""
    theta = um.CommonSector(n).ppf(0.03) if n == 4 else um.CommonSector(n).ppf(0.2)
    for seed in range(20):
        arcs = um.simulate_gaps(n, "min_arc", trials=20_000, rng=seed)
        hits = np.flatnonzero(arcs < theta)
        for rel_se in (0.1, 0.3, 1.0):
            wanted = math.ceil(1 / rel_se**2) + 2
            found = um.common_sector(n, theta, rel_se=rel_se, rng=seed, workers=1 + seed % 3)
            assert found.hits == wanted
            assert found.estimate == pytest.approx((wanted - 1) / (found.trials - 1), rel=1e-15)
            if n < 100:  # beyond, one angle alone is answered by another kernel
                assert found.trials == hits[wanted - 1] + 1
            assert (found.stopped, found.reproducible) == ("rel_se", True)
            assert found.standard_error / found.estimate <= rel_se


def test_the_estimate_at_a_relative_error_has_no_bias():
    """Hits over trials would be 7 % too large; the mean over seeds is within 4 standard errors (1 in 16,000)."""
    for question, exact in (
        (lambda seed: um.common_sector(4, 2.0, rel_se=0.3, rng=seed), um.CommonSector(4).cdf(2.0)),
        (lambda seed: um.coverage(6, 2.0, rel_se=0.3, rng=seed), um.MaxGap(6).cdf(2.0)),
        (lambda seed: um.scan_circle(2, 30, 1e-3, rel_se=0.5, rng=seed), um.MinGap(30).cdf(1e-3)),
    ):
        estimates = np.array([question(seed).estimate for seed in range(1500)])
        near(estimates.mean(), exact, estimates.std() / math.sqrt(estimates.size), 4)
        errors = np.array([question(seed).standard_error for seed in range(200)])
        assert np.sqrt((errors**2).mean()) == pytest.approx(estimates.std(), rel=0.25)


def test_a_relative_error_is_the_same_at_any_number_of_workers():
    for question in (
        lambda **o: um.common_sector(4, 1.0, rel_se=0.01, **o),
        lambda **o: um.common_sector(64, 5.0, rel_se=0.1, **o),
        lambda **o: um.common_sector(300, 6.0, rel_se=0.05, **o),
        lambda **o: um.coverage(9, 2.0, rel_se=0.02, **o),
        lambda **o: um.common_cap(6, 1.2, rel_se=0.05, **o),
        lambda **o: um.coverage(None, [3.0, 2.0, 1.0, 4.0], rel_se=0.02, **o),
    ):
        assert len({tuple(counted(question, rng=3, workers=workers)) for workers in (1, 2, 3)}) == 1


def test_trials_and_a_relative_error_end_with_what_comes_first():
    found = um.common_sector(4, 1.0, rel_se=0.01, trials=1000, rng=1)
    assert (found.trials, found.stopped) == (1000, "trials")
    assert found.estimate == found.hits / 1000
    assert um.common_sector(4, 3.0, rel_se=0.5, trials=10**9, rng=1).stopped == "rel_se"
    assert um.common_sector(4, 3.0, trials=1000, max_seconds=100, rng=1).reproducible


def test_time_stops_a_run():
    for question in (
        lambda **o: um.common_sector(64, 5.9, **o),
        lambda **o: um.common_sector(64, 5.9, method="karp-luby", **o),
        lambda **o: um.common_cap(8, 1.0, **o),
        lambda **o: um.coverage(None, [3.0, 4.0, 1.0], **o),
    ):
        begun = time.perf_counter()
        found = question(max_seconds=0.2, rng=1)
        assert 0.1 < time.perf_counter() - begun < 3
        assert (found.stopped, found.reproducible) == ("max_seconds", False)
        again = question(trials=found.trials, rng=1)
        assert again.reproducible
        assert again.trials == found.trials
        assert np.array_equal(again.hits, found.hits)
    impossible = um.common_sector(500, 1.0, rel_se=0.1, max_seconds=0.2, rng=1)
    assert (impossible.hits, impossible.stopped, impossible.estimate) == (0, "max_seconds", 0)


# --- estimates and intervals ------------------------------------------------------------------------------------------


def of_hits(hits, trials, exact=None):
    share = np.true_divide(hits, trials)
    error = np.sqrt(share * (1 - share) / trials)
    return um.SectorEstimate(share, error, hits, trials, exact, "mc", 1)


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.999, 1 - 1e-9])
def test_intervals_are_those_of_scipy(level):
    for trials in (2, 10, 100, 10**7):
        for hits in sorted({1, 2, 5, trials // 3, trials // 2, trials - 1} & set(range(1, trials))):
            test = stats.binomtest(hits, trials)
            for method, name in (("wilson", "wilson"), ("clopper-pearson", "exact")):
                expected = test.proportion_ci(level, name)
                tolerance = 1e-8 if method == "wilson" else 1e-6  # binomtest finds its roots to no more
                assert of_hits(hits, trials).ci(level, method) == pytest.approx(tuple(expected), rel=tolerance)
            tail = (1 - level) / 2
            low, high = special.betaincinv([hits, hits + 1], [trials - hits + 1, trials - hits], [tail, 1 - tail])
            assert of_hits(hits, trials).ci(level, "clopper-pearson") == pytest.approx((low, high), rel=1e-9)
            expected = special.betaincinv(hits + 0.5, trials - hits + 0.5, [tail, 1 - tail])
            assert of_hits(hits, trials).ci(level, "jeffreys") == pytest.approx(tuple(expected), rel=1e-9)


@pytest.mark.parametrize("method", ["wilson", "jeffreys"])
def test_no_hits_and_nothing_else_have_a_bound_on_one_side(method):
    for trials in (1, 10, 10**6, 10**12):
        for level in (0.5, 0.95, 0.99):
            bound = -math.expm1(math.log1p(-level) / trials)
            assert of_hits(0, trials).ci(level, method) == (0, pytest.approx(bound, rel=1e-12))
            assert of_hits(trials, trials).ci(level, method) == (pytest.approx(1 - bound, rel=1e-12), 1)
    found = um.common_sector(500, 1.0, trials=1000, rng=1)
    assert (found.hits, found.estimate, found.standard_error) == (0, 0, 0)
    assert found.ci(method=method) == (0, pytest.approx(1 - 0.05**0.001, rel=1e-9))
    assert found.ci(method=method)[1] > found.exact


@pytest.mark.parametrize("trials", [5, 20, 60])
def test_clopper_and_pearson_never_cover_less(trials):
    """For any probability, also where 0 hits are likely."""
    ends = np.array([of_hits(hits, trials).ci(0.95, "clopper-pearson") for hits in range(trials + 1)])
    p = np.linspace(0.001, 0.999, 999)
    inside = (ends[:, :1] <= p) & (p <= ends[:, 1:])
    covered = (inside * stats.binom.pmf(np.arange(trials + 1)[:, None], trials, p)).sum(axis=0)
    assert covered.min() >= 0.95 - 1e-12, f"{covered.min():.4f} at p = {p[covered.argmin()]:.3f}"


def test_intervals_of_arrays_and_of_nothing():
    hits = np.array([[0, 3], [50, 100]])
    for method in ("wilson", "clopper-pearson", "jeffreys"):
        low, high = of_hits(hits, 100).ci(0.9, method)
        assert low.shape == high.shape == (2, 2)
        for place in np.ndindex(2, 2):
            assert (low[place], high[place]) == of_hits(int(hits[place]), 100).ci(0.9, method)
        assert ((low <= hits / 100) & (hits / 100 <= high)).all()
    exact = um.common_sector(4, np.pi)
    assert exact.ci() == (0.5, 0.5)
    none = um.common_sector(4, 1.0, trials=0, rng=1)
    assert none.ci() == (0, 1)
    assert np.isnan(none.estimate)
    assert (none.trials, none.hits) == (0, 0)
    assert none.z_score is None or np.isnan(none.z_score)
    assert "trials" in repr(none) or "SectorEstimate" in repr(none)


def test_intervals_refuse():
    found = um.common_sector(4, 1.0, trials=100, rng=1)
    for level in (0, 1, -0.5, 1.5, math.nan):
        with pytest.raises(ValueError, match="level: "):
            found.ci(level)
    with pytest.raises(TypeError, match="level: "):
        found.ci(None)
    for method in ("wald", "", None, 3):
        with pytest.raises(ValueError, match=f"^method: .*found {method!r}"):
            found.ci(0.9, method)


@given(hits=st.integers(0, 10**6), more=st.integers(0, 10**9), level=st.floats(0.01, 0.9999))
def test_intervals_hold_the_estimate(hits, more, level):
    trials = hits + more
    if trials:
        for method in ("wilson", "clopper-pearson", "jeffreys"):
            low, high = of_hits(hits, trials).ci(level, method)
            assert 0 <= low <= high <= 1
            if method != "jeffreys":  # which is about its median
                assert low - 1e-9 <= hits / trials <= high + 1e-9
            mirrored = of_hits(more, trials).ci(level, method)
            assert mirrored == (pytest.approx(1 - high, abs=1e-9), pytest.approx(1 - low, abs=1e-9))


def test_z_scores():
    found = um.common_sector(4, 2.0, trials=10_000, rng=1)
    error = math.sqrt(found.exact * (1 - found.exact) / 10_000)
    assert found.z_score == pytest.approx((found.estimate - found.exact) / error, rel=1e-12)
    assert found.standard_error == pytest.approx(math.sqrt(found.estimate * (1 - found.estimate) / 10_000), rel=1e-12)
    stopped = um.common_sector(4, 2.0, rel_se=0.1, rng=1)
    assert stopped.z_score == pytest.approx((stopped.estimate - stopped.exact) / stopped.standard_error, rel=1e-12)
    # Where nothing varies, nothing is off; and no warning tells of it.
    for sure in (
        um.common_sector(1, 2.0, trials=10, rng=1),
        um.common_sector(4, [0.0, TURN], trials=10, rng=1),
        um.common_sector(2, np.pi, trials=10, rng=1),
        um.common_sector(5, 1.0, method="karp-luby", trials=10, rng=1),
        um.hemisphere(3, 3, trials=10, rng=1),
        um.coverage(4, [0.0, TURN], trials=10, rng=1),
    ):
        assert np.all(np.equal(sure.z_score, 0))
        assert "z_score" in repr(sure)


def test_estimates_show_themselves():
    found = um.common_sector(4, 2.0, trials=10_000, rng=1)
    text = repr(found)
    assert text.startswith(f"SectorEstimate({found.estimate!r} ± 0.0034, ")
    for part in (f"hits={found.hits}", "trials=10000", "seed=1", "method='mc'", "exact=0.1290"):
        assert part in text
    assert repr(um.common_sector(4, np.pi)) == "SectorEstimate(0.5, method='exact')"
    assert type(found.estimate) is type(found.standard_error) is float
    assert type(found.hits) is int
    weighed = um.common_sector(4, 4.0, method="karp-luby", trials=100, rng=1)
    assert type(weighed.estimate) is type(weighed.standard_error) is float
    with pytest.raises(AttributeError):
        found.estimate = 3
    assert 0 < found.bias < 1e-8
    assert um.common_sector(2000, 6.0, trials=10, rng=1).bias < 1e-15


# --- samples and histograms -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("statistic", ["max_gap", "min_gap", "min_arc"])
@pytest.mark.parametrize("n", [1, 2, 7, 64, 65, 200])
def test_histograms_are_those_of_the_samples(n, statistic):
    samples = um.simulate_gaps(n, statistic, trials=20_001, rng=6)
    assert samples.shape == (20_001,)
    assert ((samples >= 0) & (samples <= TURN)).all()
    for bins in (1, 7, 100, [0.1, 0.5, 3.0, 3.3], np.linspace(0, TURN, 12), [0.0, 1.0, 1.0, TURN], [TURN - 0.1, TURN]):
        for workers in (1, 2):
            counts, edges = um.simulate_gaps(n, statistic, trials=20_001, bins=bins, rng=6, workers=workers)
            expected, ends = np.histogram(samples, bins=bins, range=(0, TURN))
            np.testing.assert_array_equal(edges, ends)
            np.testing.assert_array_equal(counts, expected)
            assert counts.dtype.kind == "i"


def test_samples_do_not_depend_on_workers_and_nothing_makes_none():
    for density in (None, "vonmises:2"):
        whole = um.simulate_gaps(9, density=density, trials=100_001, rng=1, workers=1)
        for workers in (2, 3):
            np.testing.assert_array_equal(
                um.simulate_gaps(9, density=density, trials=100_001, rng=1, workers=workers), whole
            )
    assert um.simulate_gaps(9, trials=0).shape == (0,)
    assert um.simulate_gaps(9, trials=0, bins=3)[0].tolist() == [0, 0, 0]
    assert um.simulate_gaps(9).shape == (10_000,)


# --- tests of uniformity ----------------------------------------------------------------------------------------------


def test_circular_range_test():
    statistic, pvalue = found = um.circular_range_test([0.1, 0.6, 0.7, 1.2, 6.2])
    assert statistic == pytest.approx(1.2 + TURN - 6.2)
    assert pvalue == pytest.approx(5 * (statistic / TURN) ** 4, rel=1e-13)
    assert type(found) is um.CircularTest
    assert (found.statistic, found.pvalue) == (statistic, pvalue)
    assert um.circular_range_test([1.0]) == (0, 1)
    assert um.circular_range_test([1, 1, 1]) == (0, 0)
    assert um.circular_range_test([0.0, np.pi]) == pytest.approx((np.pi, 1))
    rng = np.random.default_rng(0)
    for n in (2, 3, 10, 60):
        some = rng.uniform(0, TURN, n)
        statistic, pvalue = um.circular_range_test(some)
        assert statistic == pytest.approx(ref.shortest_arc(some[None], n)[0], rel=1e-12)
        with mp.workdps(ref.DIGITS):
            assert pvalue == pytest.approx(float(ref.largest_gap_sf(n, 1 - ref.turns(statistic))), rel=1e-11)
        for same in (some[::-1], some + 1.0, -some, some + 6 * np.pi, some.tolist(), rng.permutation(some)):
            assert um.circular_range_test(same) == pytest.approx((statistic, pvalue), rel=1e-11)


def test_hodges_ajne_test():
    assert um.hodges_ajne_test([0.1, 0.6, 0.7, 1.2, 2.5, 2.9, 4.2, 6.2]) == (1, pytest.approx(0.375, rel=1e-13))
    assert um.hodges_ajne_test([1.0]) == (0, 1)
    assert um.hodges_ajne_test([1, 1, 1, 1]) == (0, pytest.approx(0.5))
    assert um.hodges_ajne_test([0.0, np.pi]) == (1, 1)
    assert um.hodges_ajne_test(np.arange(4) * np.pi / 2) == (2, 1)
    rng = np.random.default_rng(0)
    for n in (2, 3, 5, 10, 41):
        for _ in range(30):
            some = rng.uniform(0, TURN, n) if rng.random() < 0.7 else rng.vonmises(1, 1, n)
            found = um.hodges_ajne_test(some)
            fewest = ref.fewest_on_a_side(np.mod(some, TURN))
            assert found.statistic == fewest
            assert found.pvalue == pytest.approx(float(ref.half_circle(n, n - fewest)), rel=1e-12)
            assert um.hodges_ajne_test(some - 2.0) == found
    statistic, pvalue = um.hodges_ajne_test(rng.uniform(0, TURN, 5000))
    assert pvalue == pytest.approx(float(ref.half_circle(5000, 5000 - int(statistic))), rel=1e-11)


def test_p_values_are_uniform_for_uniform_angles():
    """As far as the statistic is continuous; for the other, at each of its values. Once in 1e6 each."""
    rng = np.random.default_rng(4)
    sets = rng.uniform(0, TURN, (4000, 9))
    ranges = [um.circular_range_test(some).pvalue for some in sets]
    assert stats.kstest(ranges, "uniform").pvalue > 1e-6
    tests = [um.hodges_ajne_test(some) for some in sets]
    for fewest in range(4):
        p = float(ref.half_circle(9, 9 - fewest))
        agrees(np.mean([test.statistic <= fewest for test in tests]), p, 4000, 5)


@pytest.mark.parametrize("test", [um.circular_range_test, um.hodges_ajne_test])
def test_tests_refuse(test):
    for given_angles, error, message in [
        ([], ValueError, r"^angles: .*shape \(0,\)"),
        (1.0, ValueError, r"^angles: .*shape \(\)"),
        ([[1.0, 2.0]], ValueError, r"^angles: .*shape \(1, 2\)"),
        ([1.0, math.nan], ValueError, "^angles: must be finite, found nan"),
        ([1.0, -math.inf], ValueError, "^angles: must be finite, found -inf"),
        ([1j], TypeError, "^angles: .*complex"),
        (["a"], TypeError, "^angles: "),
        (None, TypeError, "^angles: .*object"),
    ]:
        with pytest.raises(error, match=message):
            test(given_angles)
    assert test(np.array([1, 2], np.int8)) == test([1.0, 2.0])
    assert test(np.array([1, 2], np.float32)) == test([1.0, 2.0])


# --- what is refused --------------------------------------------------------------------------------------------------

PROBLEMS = {
    "common_sector": lambda n=3, angle=1.0, **options: um.common_sector(n, angle, **options),
    "scan_circle": lambda n=3, angle=1.0, **options: um.scan_circle(2, n, angle, **options),
    "coverage": lambda n=3, angle=1.0, **options: um.coverage(n, angle, **options),
    "common_cap": lambda n=3, angle=1.0, **options: um.common_cap(n, angle, **options),
    "hemisphere": lambda n=3, **options: um.hemisphere(n, 3, **options),
}
ANGLES = {"common_sector": "theta", "scan_circle": "width", "coverage": "arc", "common_cap": "angle"}
problems = pytest.mark.parametrize("name", PROBLEMS)


@problems
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n": 0}, ValueError, "^n: .*0"),
        ({"n": -1}, ValueError, "^n: .*-1"),
        ({"n": 2.0}, TypeError, "^n: expected an integer, found 2.0"),
        ({"n": math.nan}, TypeError, "^n: .*nan"),
        ({"n": "3"}, TypeError, "^n: .*'3'"),
        ({"n": [3, 4]}, TypeError, r"^n: .*\[3, 4\]"),
        ({"n": 2**54}, ValueError, "^n: .*18014398509481984"),
        ({"n": 2**64}, ValueError, "^n: .*"),
        ({"n": 10**9, "trials": 1}, ValueError, r"^n: must be at most 2\*\*\d+ for trials, found 1000000000"),
        ({"method": "guess"}, ValueError, "^method: .*'guess'"),
        ({"method": None}, ValueError, "^method: .*None"),
        ({"trials": -1}, ValueError, "^trials: .*-1"),
        ({"trials": 1.5}, TypeError, "^trials: .*1.5"),
        ({"trials": 2**62}, ValueError, "^trials: .*4611686018427387904"),
        ({"rel_se": 0}, ValueError, "^rel_se: .*0"),
        ({"rel_se": -0.1}, ValueError, "^rel_se: .*-0.1"),
        ({"rel_se": 1.5}, ValueError, "^rel_se: .*1.5"),
        ({"rel_se": 1e-10}, ValueError, "^rel_se: .*1e-10"),
        ({"rel_se": math.nan}, ValueError, "^rel_se: .*nan"),
        ({"rel_se": "a"}, ValueError, "^rel_se: .*'a'"),
        ({"max_seconds": 0}, ValueError, "^max_seconds: .*0"),
        ({"max_seconds": math.inf}, ValueError, "^max_seconds: .*inf"),
        ({"max_seconds": [1]}, TypeError, "^max_seconds: "),
        ({"first_block": -1}, ValueError, "^first_block: .*-1"),
        ({"first_block": 0.5}, TypeError, "^first_block: .*0.5"),
        ({"blocks": -1}, ValueError, "^blocks: .*-1"),
        ({"blocks": "2"}, TypeError, "^blocks: .*'2'"),
        ({"rng": -1, "trials": 1}, ValueError, "^rng: .*-1"),
        ({"rng": 2**64, "trials": 1}, ValueError, "^rng: "),
        ({"rng": 1.0, "trials": 1}, TypeError, "^rng: .*1.0"),
        ({"workers": 0, "trials": 1}, ValueError, "^workers: .*0"),
        ({"workers": 1.5, "trials": 1}, TypeError, "^workers: .*1.5"),
        ({"tries": 3}, TypeError, "tries"),
    ],
    ids=str,
)
def test_refuses(name, options, error, message):
    with pytest.raises(error, match=message):
        PROBLEMS[name](**options)


@pytest.mark.parametrize(("name", "argument"), ANGLES.items())
def test_angles_outside_of_the_circle_are_refused(name, argument):
    most = np.pi if name == "common_cap" else TURN
    for angle in (-1e-300, -1, np.nextafter(most, 9), 7, math.inf, -math.inf, math.nan):
        for given_angle in (angle, [1.0, angle], np.array([[angle]])):
            with pytest.raises(ValueError, match=f"^{argument}: must be from 0 to {'' if most < 4 else '2'}π, found"):
                PROBLEMS[name](angle=given_angle)
    for angle in ("1", 1j, None, [object()]):
        with pytest.raises(TypeError, match=f"^{argument}: expected real numbers"):
            PROBLEMS[name](angle=angle)
    for angle in (0, 1, -0.0, most, np.float32(1), np.float32(most), True, np.array(1.0)):
        assert 0 <= PROBLEMS[name](angle=angle).estimate <= 1
    for shape in ((0,), (2, 0)):
        assert PROBLEMS[name](angle=np.empty(shape)).estimate.shape == shape
        assert PROBLEMS[name](angle=np.empty(shape), trials=10, rng=1).hits.shape == shape


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: um.scan_circle(0, 3, 1.0), ValueError, "^k: .*0"),
        (lambda: um.scan_circle(4, 3, 1.0), ValueError, "^k: must be at most n, which is 3, found 4"),
        (lambda: um.scan_circle(2.0, 3, 1.0), TypeError, "^k: .*2.0"),
        (lambda: um.scan_circle(2, 3, 1.0, method="karp-luby"), ValueError, "^method: .*'karp-luby'"),
        (lambda: um.scan_circle(3, 5, 1.0, method="exact"), ValueError, "^method: no exact value"),
        (lambda: um.common_sector(3, 4.0, density=[1, 2], method="exact"), ValueError, "^method: no exact value"),
        (lambda: um.common_sector(3, 4.0, method="guess"), ValueError, "^method: .*'karp-luby'.*'guess'"),
        (lambda: um.common_sector(3, [4.0], method="karp-luby"), ValueError, r"^theta: .*shape \(1,\)"),
        (lambda: um.common_sector(3, [4.0], rel_se=0.1), ValueError, r"^rel_se: .*shape \(1,\)"),
        (lambda: um.common_cap(9, 1.8, method="exact"), ValueError, "^method: no exact value"),
        (lambda: um.common_cap(3, 1.0, d=1), ValueError, "^d: .*1"),
        (lambda: um.common_cap(3, 1.0, d=2.0), TypeError, "^d: .*2.0"),
        (lambda: um.common_cap(40, 1.6, d=17), ValueError, "^d: must be from 2 to 16 for trials, found 17"),
        (lambda: um.hemisphere(3, 0), ValueError, "^d: .*0"),
        (lambda: um.hemisphere(3, "a"), TypeError, "^d: .*'a'"),
        (lambda: um.hemisphere(3, 1, trials=10), ValueError, "^d: must be from 2 to 16 for trials, found 1"),
        (lambda: um.coverage(None, 1.0), ValueError, r"^arc: .*shape \(\)"),
        (lambda: um.coverage(None, []), ValueError, r"^arc: .*shape \(0,\)"),
        (lambda: um.coverage(None, [[1.0]]), ValueError, r"^arc: .*shape \(1, 1\)"),
        (lambda: um.coverage(None, [7.0, 1.0]), ValueError, "^arc: .*7.0"),
        (lambda: um.simulate_gaps(0), ValueError, "^n: .*0"),
        (lambda: um.simulate_gaps(3, "gap"), ValueError, "^statistic: .*'gap'"),
        (lambda: um.simulate_gaps(3, trials=-1), ValueError, "^trials: .*-1"),
        (lambda: um.simulate_gaps(3, trials=2**61), MemoryError, "^trials: .*GiB"),
        (lambda: um.simulate_gaps(3, trials=None), TypeError, "^trials: .*None"),
        (lambda: um.simulate_gaps(3, bins=0), ValueError, "^bins: .*0"),
        (lambda: um.simulate_gaps(3, bins=2.5), TypeError, "^bins: .*2.5"),
        (lambda: um.simulate_gaps(3, bins="auto"), TypeError, "^bins: .*'auto'"),
        (lambda: um.simulate_gaps(3, bins=[1.0]), ValueError, "^bins: "),
        (lambda: um.simulate_gaps(3, bins=[2.0, 1.0]), ValueError, "^bins: "),
        (lambda: um.simulate_gaps(3, bins=[[1.0, 2.0]]), ValueError, "^bins: "),
        (lambda: um.simulate_gaps(3, bins=[0, 7]), ValueError, "^bins: .*7"),
        (lambda: um.simulate_gaps(3, bins=[0, math.nan]), ValueError, "^bins: .*nan"),
        (lambda: um.simulate_gaps(3, workers=0), ValueError, "^workers: "),
        (lambda: um.gap_means(0), ValueError, "^n: .*0"),
        (lambda: um.gap_means(2.0), TypeError, "^n: .*2.0"),
        (lambda: um.gap_counts(0, 1.0), ValueError, "^n: .*0"),
        (lambda: um.gap_counts(3, 0), ValueError, "^gap: .*0"),
        (lambda: um.gap_counts(3, -1), ValueError, "^gap: .*-1"),
        (lambda: um.gap_counts(3, 7.0), ValueError, "^gap: .*7.0"),
        (lambda: um.gap_counts(3, math.nan), ValueError, "^gap: .*nan"),
        (lambda: um.gap_counts(3, [1.0]), TypeError, r"^gap: .*\[1.0\]"),
        (lambda: um.gap_counts(10**6, 1e-5), ValueError, "^gap: "),
        (lambda: um.gap_counts(10**9, 1e-9), ValueError, "^gap: "),
    ],
)
def test_refuses_what_is_its_own(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_means_that_do_not_fit_are_refused():
    """2**53 numbers of eight bytes; in a child, for it might be killed."""
    told = run_child("""
        import unitmass as um
        try:
            um.gap_means(2**53)
        except MemoryError as error:
            print(error)
    """)
    assert told.startswith("n: ")


def test_a_first_block_asks_for_trials():
    """A shard that begins later is a shard, also if nothing says how long the whole is."""
    found = um.common_sector(4, 1.0, first_block=1, rng=1)
    assert found.method == "mc"
    assert found.trials > 0


# --- those who wait, interrupt, or fork -------------------------------------------------------------------------------


def test_what_is_certain_needs_no_stopping():
    for n in (1, 3):
        found = um.coverage(n, 2 * np.pi, rel_se=0.1, rng=1)
        assert found.estimate == found.exact == 1


def test_progress_is_told():
    for question, total in (
        (lambda **o: um.common_sector(100, 6.0, trials=600_000, **o).trials, 600_000),
        (lambda **o: um.common_sector(64, 5.0, method="karp-luby", trials=600_000, **o).trials, 600_000),
        (lambda **o: um.simulate_gaps(100, trials=300_000, **o).size, 300_000),
        (lambda **o: um.common_sector(100, 5.8, rel_se=0.01, **o).trials, None),
    ):
        told = []
        trials = question(rng=1, progress=lambda done, of, told=told: told.append((done, of)))
        assert told
        assert told == sorted(told)
        assert {of for _, of in told} == {total}
        assert told[0][0] > 0
        if total:
            assert told[-1][0] <= trials

    def stops(done, total):
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        um.common_sector(100, 5.0, trials=10**12, rng=1, progress=stops)
    assert um.common_sector(5, 1.0, trials=1000, rng=1, progress=True).trials == 1000


INTERRUPT = """
import os, signal, threading, time
import numpy as np, unitmass as um

def press():
    sent.append(time.perf_counter())
    os.kill(os.getpid(), signal.SIGINT)

o = {{"rng": 1, "workers": {workers}}}
for name, call in {{
    "narrow": lambda: um.common_sector(3, 3.0, trials=10**15, **o),
    "network": lambda: um.common_sector(64, 5.0, trials=10**15, **o),
    "crowd": lambda: um.common_sector(1000, 6.2, rel_se=1e-6, **o),
    "solo": lambda: um.common_sector(10**6, 6.28, trials=10**9, **o),
    "large": lambda: um.common_sector(4 * 10**6, 6.28, trials=10**9, **o),
    "weighed": lambda: um.common_sector(64, 5.0, method="karp-luby", trials=10**15, **o),
    "caps": lambda: um.common_cap(12, 2.0, d=5, trials=10**12, **o),
    "hulls": lambda: um.common_cap(40, 2.0, d=9, trials=10**6, **o),
    "coverage": lambda: um.coverage(None, np.full(1000, 0.05), trials=10**12, **o),
    "histogram": lambda: um.simulate_gaps(1000, bins=5, trials=10**12, **o),
}}.items():
    sent = []
    timer = threading.Timer(0.2, press)
    timer.start()
    try:
        call()
        print(name, "returned")
    except KeyboardInterrupt:
        print(name, time.perf_counter() - sent[0], flush=True)
    timer.join()
assert um.common_sector(3, 3.0, trials=1000, rng=1).trials == 1000  # nothing is left behind
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to oneself here")
@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_stops_a_run_at_once(workers):
    """A quarter of a second on a machine that has nothing else to do; left alone, the runs take hours."""
    try:
        told = run_child(INTERRUPT.format(workers=workers))
    except subprocess.TimeoutExpired as hangs:
        pytest.fail(f"one hangs after {(hangs.stdout or b'').decode().split()[::2]}")
    delays = dict(line.split() for line in told.splitlines())
    assert len(delays) == 10
    late = {name: delay for name, delay in delays.items() if delay == "returned" or float(delay) > 3}
    assert not late


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_forked_children_count_the_same():
    """A pool's threads do not follow into a forked child: one that waited for them would hang."""
    told = run_child("""
        import os, signal, time, warnings
        import unitmass as um
        warnings.simplefilter("ignore", DeprecationWarning)  # fork beside threads: the point
        expected = um.common_sector(64, 5.5, trials=200_000, rng=1, workers=2).hits
        for _ in range(3):
            child = os.fork()
            if child == 0:
                same = um.common_sector(64, 5.5, trials=200_000, rng=1, workers=2).hits == expected
                os._exit(0 if same else 3)
            limit = time.monotonic() + 30
            while not (ended := os.waitpid(child, os.WNOHANG))[0]:
                if time.monotonic() > limit:
                    os.kill(child, signal.SIGKILL)
                    raise SystemExit("the forked child hangs")
                time.sleep(0.005)
            assert os.waitstatus_to_exitcode(ended[1]) == 0, ended
            assert um.common_sector(64, 5.5, trials=200_000, rng=1, workers=2).hits == expected
        print("ok")
    """)
    assert told == "ok\n"


def test_the_gil_is_released():
    """This thread must go on counting while another is at its trials."""
    spent = []

    def trials():
        begun = time.perf_counter()
        um.common_sector(1000, 6.2, trials=150_000, rng=1, workers=1)
        spent.append(time.perf_counter() - begun)

    thread = threading.Thread(target=trials)
    thread.start()
    naps = 0
    while thread.is_alive():
        time.sleep(0.001)
        naps += 1
    assert naps >= max(3, spent[0] / 0.05)


def test_numbers_of_workers_may_be_set_around_a_call():
    with um.set_workers(2):
        assert (
            um.common_sector(9, 5.0, trials=50_000, rng=1).hits
            == um.common_sector(9, 5.0, trials=50_000, rng=1, workers=1).hits
        )
