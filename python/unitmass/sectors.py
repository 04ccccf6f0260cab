"""Random points on circles and spheres: do all lie in a common sector, and what else do their gaps tell."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Literal, NamedTuple, TypeAlias, TypedDict, Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unitmass import _core
from unitmass._arguments import Rng, finite, real, room, seed_of, whole_number
from unitmass._density import Density, density_of
from unitmass._estimate import SectorEstimate, plain
from unitmass._gap_laws import MOST_POINTS, TURN, CommonSector, MaxGap, MinGap, law, points
from unitmass._progress import bar
from unitmass._workers import resolve

__all__ = [
    "CircularTest",
    "CommonSector",
    "MaxGap",
    "MinGap",
    "SectorEstimate",
    "circular_range_test",
    "common_cap",
    "common_sector",
    "coverage",
    "gap_counts",
    "gap_means",
    "hemisphere",
    "hodges_ajne_test",
    "scan_circle",
    "simulate_gaps",
]

Live: TypeAlias = "bool | Callable[[int, int | None], object]"

_ALL = 2**62
"""More trials, hits or blocks than there can be."""

_RARE = 0.1
"""Where so few points are expected to lead, weighing trials is better than counting them."""


class Sampling(TypedDict, total=False):
    """How an answer is found, for all questions: see `common_sector`."""

    method: Literal["auto", "exact", "mc"]
    trials: int | None
    rel_se: float | None
    max_seconds: float | None
    first_block: int
    blocks: int | None
    rng: Rng
    workers: int | None
    progress: Live


def common_sector(
    n: int,
    theta: ArrayLike,
    *,
    density: Density = None,
    method: Literal["auto", "exact", "mc", "karp-luby"] = "auto",
    trials: int | None = None,
    rel_se: float | None = None,
    max_seconds: float | None = None,
    first_block: int = 0,
    blocks: int | None = None,
    rng: Rng = None,
    workers: int | None = None,
    progress: Live = False,
) -> SectorEstimate:
    """Find the probability that some sector of angle theta holds n random points.

    Only the angles of the points matter: they may lie on a circle or in a disk, at any distance from its centre.

    Parameters
    ----------
    n : int
        How many points, at least 1.
    theta : float or array_like
        The angle of the sector in radians, from 0 to 2π. One run of trials serves all of them.
    density : str, callable, array_like or None
        The law of the angles: ``"vonmises:KAPPA"`` or ``"wrappednormal:SIGMA"`` (radians); a function of an array of
        angles from 0 to 2π; or a table of its values at 2πi/m for i < m, with straight lines between. It need not
        integrate to 1. None stands for uniform angles.
    method : {"auto", "exact", "mc", "karp-luby"}
        ``"exact"`` evaluates a formula; ``"mc"`` counts hits in trials; ``"karp-luby"`` weighs trials in which all
        points lie in a sector, so that its relative error is bounded however rare that is. ``"auto"`` is exact where
        that is possible and nothing below is given that belongs to trials; else it counts; at one angle and
        without them, it weighs if fewer than 0.1 points are expected to lead (see Notes).
    trials : int, optional
        How many trials; 1,000,000 unless something else ends them, 100,000 for ``"karp-luby"``.
    rel_se : float, optional
        Stop at this relative standard error: with the trial that makes 2 + 1/rel_se² hits. For one theta.
    max_seconds : float, optional
        Stop after so much time. The result then does not repeat.
    first_block : int, default 0
        Do only the blocks of trials from this one on; hits of disjoint ranges add up to those of the whole.
    blocks : int, optional
        Do at most so many blocks.
    rng : Generator, int or None
        What seeds the trials. The result has the seed.
    workers : int, optional
        Threads to use. Hits do not depend on it.
    progress : bool or callable, default False
        True draws a line on a terminal with the estimate so far; a callable is given the number of trials that are
        done, and of all, or None.

    Returns
    -------
    SectorEstimate
        The probability, its standard error, and, where it is known, the exact value.

    Raises
    ------
    TypeError, ValueError
        If an argument has no place in its domain; the message names it.

    See Also
    --------
    CommonSector : The exact law for uniform angles.
    scan_circle : Some k of the points.
    common_cap : Points on a sphere.

    Notes
    -----
    All points lie in a sector of angle θ just if the largest gap between neighbours is at least 2π - θ. For uniform
    angles `CommonSector` is exact. For a density f with cumulative F and θ <= π, it is n ∫ f(a) [F(a+θ) - F(a)]^(n-1)
    da, where F is linear in each of 65,536 cells.

    Trials are done in blocks; block b has random numbers of its own, from the seed and b, so that hits are the same
    integer at any number of workers and on any CPU. Angles are multiples of 2^-32 turns for up to 1,024 points or theta
    <= π, of 2^-64 turns otherwise; `bias` of the result says how much that may matter. A block has 2^20 / n trials or
    the power of two below, at most 65,536 and, for up to 1,024 points, at least 16; for theta <= π, n counts as at most
    16.

    Which random numbers make which trial depends on n and on the angles: those of one angle up to half a turn go
    through a kernel that stops early, so that it finds other hits alone than among others.

    With `rel_se`, the estimate is (hits - 1) / (trials - 1), which has no bias (inverse binomial sampling).

    The weighed trials are those of Karp and Luby: some point leads, with all others within θ clockwise of it, and N of
    the points could have been that one. Then P = n (θ/2π)^(n-1) E[1/N], with 1 <= N <= K = floor(1/(1 - θ/2π)), and
    `rel_se` takes (K-1)²/(4K rel_se²) trials at most.

    References
    ----------
    Karp, R. M., Luby, M. and Madras, N. (1989). Monte-Carlo approximation algorithms for enumeration problems. Journal
    of Algorithms 10.

    Examples
    --------
    Four ducks in a circular pond: are they in one half of it?

    >>> import numpy as np
    >>> import unitmass as um
    >>> um.common_sector(4, np.pi).estimate
    0.5
    >>> ducks = um.common_sector(4, np.pi, trials=1_000_000, rng=2022)
    >>> ducks.hits, bool(abs(ducks.z_score) < 4)
    (500049, True)
    >>> um.common_sector(4, np.pi, density="vonmises:1").estimate
    0.7170
    >>> rare = um.common_sector(1000, 0.9 * 2 * np.pi, method="karp-luby", trials=4000, rng=1)
    >>> rare.estimate
    1.942e-43
    """
    n, angles, law_of_angles = _points(n), _angles(theta, "theta"), density_of(density)
    if method not in ("auto", "exact", "mc", "karp-luby"):
        raise ValueError(f"method: expected 'auto', 'exact', 'mc' or 'karp-luby', found {method!r}")
    sampling: Sampling = {
        "method": "auto" if method == "karp-luby" else method,
        "trials": trials,
        "rel_se": rel_se,
        "max_seconds": max_seconds,
        "first_block": first_block,
        "blocks": blocks,
        "rng": rng,
        "workers": workers,
        "progress": progress,
    }
    exact = _sector(n, angles, law_of_angles, workers)
    given = _Sampling(sampling)
    unknown = method == "auto" and not given.any and angles.ndim == 0 and np.isnan(exact)
    if method == "karp-luby" or (unknown and _leaders(n, angles, law_of_angles) < _RARE):
        return _karp_luby(n, angles, law_of_angles, exact, given)
    return given.answer(
        _core.Experiment.arc(n, n, law_of_angles), n, angles, exact, _rounding(n, n, angles, law_of_angles)
    )


def scan_circle(
    k: int, n: int, width: ArrayLike, *, density: Density = None, **sampling: Unpack[Sampling]
) -> SectorEstimate:
    """Find the probability that some arc of this width holds at least k of n random points on a circle.

    Parameters
    ----------
    k : int
        How many points the arc holds, from 1 to n.
    n : int
        How many points there are.
    width : float or array_like
        The width of the arc in radians, from 0 to 2π.
    density : str, callable, array_like or None
        The law of the angles, as in `common_sector`.
    **sampling
        ``method`` ("auto", "exact" or "mc"), ``trials``, ``rel_se``, ``max_seconds``, ``first_block``, ``blocks``,
        ``rng``, ``workers`` and ``progress``, as in `common_sector`.

    Returns
    -------
    SectorEstimate
        The probability, its standard error, and, where it is known, the exact value.

    Raises
    ------
    TypeError, ValueError
        If an argument has no place in its domain; the message names it.

    See Also
    --------
    common_sector : All of the points.
    hodges_ajne_test : The test for half circles.

    Notes
    -----
    This is the scan statistic on the circle. For uniform points it is known where k is n (`CommonSector`) or 2
    (`MinGap`), and where the arc is a half circle, for k > n/2: 2^(1-n) (2k - n) Σ_j C(n, k + j(2k - n)) (Hodges 1955,
    Ajne 1968).

    Examples
    --------
    Do 10 of 365 people's birthdays fall on 4 days, somewhere in the year?

    >>> import numpy as np
    >>> import unitmass as um
    >>> um.scan_circle(10, 365, 4 / 365 * 2 * np.pi, trials=20_000, rng=1).estimate
    0.966
    >>> um.scan_circle(8, 10, np.pi).estimate  # exact
    0.527
    """
    n, widths, law_of_angles = _points(n), _angles(width, "width"), density_of(density)
    k = whole_number(k, "k", 1)
    if k > n:
        raise ValueError(f"k: must be at most n, which is {n}, found {k}")
    given = _Sampling(sampling)
    exact = _scan(k, n, widths, law_of_angles, given.workers)
    return given.answer(
        _core.Experiment.arc(n, k, law_of_angles), n, widths, exact, _rounding(n, k, widths, law_of_angles)
    )


def coverage(n: int | None, arc: ArrayLike, *, density: Density = None, **sampling: Unpack[Sampling]) -> SectorEstimate:
    """Find the probability that n random arcs cover the circle.

    Parameters
    ----------
    n : int or None
        How many arcs, all as long as `arc`; None if `arc` has the length of each.
    arc : float or array_like
        The length of the arcs in radians, from 0 to 2π: one length, or several to be answered for; or, if `n` is None,
        the lengths of the arcs, in one dimension.
    density : str, callable, array_like or None
        The law of the places where arcs start, as in `common_sector`; uniform if `n` is None.
    **sampling
        ``method`` ("auto", "exact" or "mc"), ``trials``, ``rel_se``, ``max_seconds``, ``first_block``, ``blocks``,
        ``rng``, ``workers`` and ``progress``, as in `common_sector`.

    Returns
    -------
    SectorEstimate
        The probability, its standard error, and, where it is known, the exact value.

    Raises
    ------
    TypeError, ValueError
        If an argument has no place in its domain; the message names it.

    See Also
    --------
    MaxGap : Arcs of one length cover if that is at least the largest gap between their starts.

    Notes
    -----
    Exact for arcs of one length at uniform places (Stevens 1939).

    Examples
    --------
    >>> import numpy as np
    >>> import unitmass as um
    >>> um.coverage(20, 0.2 * 2 * np.pi).estimate
    0.7233
    >>> um.coverage(None, np.pi * np.array([1, 1, 0.5, 0.25]), trials=100_000, rng=1).estimate  # mixed
    0.080
    """
    given, lengths = _Sampling(sampling), _angles(arc, "arc")
    if n is None:
        if density is not None:
            raise ValueError("density: arcs of several lengths lie at uniform places")
        if lengths.ndim != 1 or not lengths.size:
            raise ValueError(f"arc: expected the lengths of the arcs in one dimension, found shape {lengths.shape}")
        exact = np.array(1.0 if (lengths == TURN).any() else 0.0 if lengths.sum() < TURN else np.nan)
        if (lengths == lengths[0]).all():
            exact = np.asarray(law("max_gap", "cdf", lengths.size, lengths[0]))
        return given.answer(
            _core.Experiment.cover(lengths), lengths.size, np.array(0.0), exact, lengths.size * 2.0**-64
        )
    n, law_of_angles = _points(n), density_of(density)
    if (lengths == TURN).all():
        given.rel_se = None  # every trial is a hit: there is nothing to wait for
    rest = TURN - lengths
    if law_of_angles:
        exact = np.asarray(1 - _sector(n, rest, law_of_angles, given.workers))
        exact[lengths == TURN] = 1
    else:
        exact = np.asarray(law("max_gap", "cdf", n, lengths))
    experiment = _core.Experiment.arc(n, n, law_of_angles)
    return given.answer(experiment, n, rest, exact, _rounding(n, n, rest, law_of_angles), above=True)


def hemisphere(n: int, d: int, **sampling: Unpack[Sampling]) -> SectorEstimate:
    """Find the probability that n random points around the origin of R^d lie on one side of some plane through it.

    Parameters
    ----------
    n : int
        How many points, at least 1.
    d : int
        The dimension of the space, at least 1; from 2 to 16 for trials.
    **sampling
        ``method`` ("auto", "exact" or "mc"), ``trials``, ``rel_se``, ``max_seconds``, ``first_block``, ``blocks``,
        ``rng``, ``workers`` and ``progress``, as in `common_sector`.

    Returns
    -------
    SectorEstimate
        The probability; exact unless trials are asked for.

    Raises
    ------
    TypeError, ValueError
        If an argument has no place in its domain; the message names it.

    See Also
    --------
    common_cap : Smaller and larger caps.

    Notes
    -----
    2^(1-n) Σ_{k<d} C(n-1, k), for any law that is symmetric about the origin and puts no mass on planes through it
    (Wendel 1962). One less this is the probability that the convex hull of the points holds the origin.

    References
    ----------
    Wendel, J. G. (1962). A problem in geometric probability. Mathematica Scandinavica 11.

    Examples
    --------
    >>> import unitmass as um
    >>> um.hemisphere(4, 2).estimate, um.hemisphere(4, 3).estimate  # on a circle, on a sphere
    (0.5, 0.875)
    """
    n, d, given = _few(_points(n)), whole_number(d, "d", 1), _Sampling(sampling)
    exact = np.array(_core.half_space(n, d)[0])
    return given.answer(_core.Experiment.cap(n, d), n, np.array(np.pi / 2), exact, n * 2.0**-50, d)


def common_cap(n: int, angle: ArrayLike, d: int = 3, **sampling: Unpack[Sampling]) -> SectorEstimate:
    """Find the probability that some spherical cap holds n random points on the unit sphere of R^d.

    Parameters
    ----------
    n : int
        How many points, at least 1.
    angle : float or array_like
        The angular radius of the cap in radians, from 0 to π; π/2 is a half sphere.
    d : int, default 3
        The dimension of the space, at least 2; up to 16 for trials.
    **sampling
        ``method`` ("auto", "exact" or "mc"), ``trials``, ``rel_se``, ``max_seconds``, ``first_block``, ``blocks``,
        ``rng``, ``workers`` and ``progress``, as in `common_sector`.

    Returns
    -------
    SectorEstimate
        The probability, its standard error, and, where it is known, the exact value.

    Raises
    ------
    TypeError, ValueError
        If an argument has no place in its domain; the message names it.

    See Also
    --------
    common_sector : Points on a circle: d = 2, and a sector of twice the angle.
    hemisphere : Half spheres in any dimension.

    Notes
    -----
    Exact for d = 2; for half spheres; and for d = 3 and caps up to half spheres: n² q^(n-1) - (n-1)(n+2) q^n with
    q = (1 - cos β)/2. A trial finds the smallest cap: by an incremental method for convex programs while the points lie
    in a half space, which stops early where only that is asked; otherwise from the facets of their convex hull, whose
    number grows quickly with d.

    Examples
    --------
    >>> import numpy as np
    >>> import unitmass as um
    >>> um.common_cap(5, [np.pi / 4, np.pi / 2]).estimate.round(4)
    array([0.0096, 0.6875])
    >>> um.common_cap(12, 2.0, trials=100_000, rng=1).estimate  # more than half of the sphere
    0.6
    """
    n, d, given = _few(_points(n)), whole_number(d, "d", 2), _Sampling(sampling)
    angles = _angles(angle, "angle", np.pi)
    exact = _cap(n, d, angles)
    return given.answer(_core.Experiment.cap(n, d), n, angles, exact, n * 2.0**-50, d)


def simulate_gaps(
    n: int,
    statistic: Literal["max_gap", "min_gap", "min_arc"] = "max_gap",
    *,
    density: Density = None,
    trials: int = 10_000,
    bins: int | ArrayLike | None = None,
    rng: Rng = None,
    workers: int | None = None,
    progress: Live = False,
) -> Any:
    """Simulate the gaps between n random points on a circle.

    Parameters
    ----------
    n : int
        How many points, at least 1.
    statistic : {"max_gap", "min_gap", "min_arc"}
        The largest gap between neighbours, the smallest, or the shortest arc that holds all points.
    density : str, callable, array_like or None
        The law of the angles, as in `common_sector`.
    trials : int, default 10,000
        How many trials.
    bins : int or array_like, optional
        Return a histogram, in memory that does not grow with `trials`: of so many equal bins from 0 to 2π, or with
        these edges.
    rng : Generator, int or None
        What seeds the trials.
    workers : int, optional
        Threads to use; the result does not depend on it.
    progress : bool or callable, default False
        True draws a bar on a terminal; a callable is given the number of trials that are done and of all.

    Returns
    -------
    ndarray, or (counts, edges)
        Angles in radians, one for each trial; or, with `bins`, how many fall into each, as `numpy.histogram` returns
        them: ends of bins belong to the next one, that of the last to the last.

    Raises
    ------
    TypeError, ValueError
        If an argument has no place in its domain; the message names it.
    MemoryError
        If there is no room for as many numbers.

    See Also
    --------
    MaxGap, MinGap, CommonSector : The exact laws for uniform angles.

    Examples
    --------
    >>> import numpy as np
    >>> import unitmass as um
    >>> gaps = um.simulate_gaps(10, trials=100_000, rng=1)
    >>> bool(abs(gaps.mean() - um.MaxGap(10).mean()) < 4 * gaps.std() / len(gaps) ** 0.5)
    True
    >>> counts, edges = um.simulate_gaps(4, "min_arc", trials=1_000_000, bins=8, rng=2)
    >>> float(counts[:4].sum() / counts.sum())  # up to half a turn
    0.5
    """
    n, law_of_angles, trials = _points(n), density_of(density), whole_number(trials, "trials", 0)
    _refuse_many(n)
    if str(statistic) not in ("max_gap", "min_gap", "min_arc"):
        raise ValueError(f"statistic: expected 'max_gap', 'min_gap' or 'min_arc', found {statistic!r}")
    k = min(n, 2) if statistic == "min_gap" else n
    # The only gap of a single point is the whole circle, and the arc that holds it has length 0.
    turned = statistic == "max_gap" or (statistic == "min_gap" and n == 1)
    experiment, seed, threads = _core.Experiment.arc(n, k, law_of_angles), seed_of(rng), resolve(workers)
    with _live(progress, trials, False) as tell:
        if bins is None:
            angles = room((trials,), "trials", "ask for a histogram, with bins=").view(np.float64)
            experiment.sample(angles, seed, threads, tell)
            if tell:
                tell(trials, 0)
            angles *= TURN
            return TURN - angles if turned else angles
        edges = _edges(bins)
        ends = np.append(TURN - edges[::-1], TURN) if turned else np.append(edges, TURN)
        counts, *_ = experiment.count(
            np.clip(ends, 0, TURN), seed, 0, _ALL, trials, _ALL, False, math.inf, threads, tell
        )
        if tell:
            tell(trials, 0)
    # What is exactly 0 belongs to the first cell, as 1 / 2^64 turns does.
    counts[1] += counts[0] * (ends[0] <= 0)
    inner = counts[1 : edges.size].astype(np.int64)
    return (inner[::-1] if turned else inner), edges


class CircularTest(NamedTuple):
    """The result of a test of uniformity on the circle."""

    statistic: float
    pvalue: float


def circular_range_test(angles: ArrayLike) -> CircularTest:
    """Test whether angles are uniform against all of them lying close together, by their range.

    Parameters
    ----------
    angles : array_like
        Angles in radians, in one dimension, at least one; any real numbers.

    Returns
    -------
    CircularTest
        ``statistic`` is the range: the shortest arc, in radians, that holds all angles. ``pvalue`` is the probability
        of one as short or shorter if they are uniform.

    Raises
    ------
    TypeError, ValueError
        If there are no angles, or they are not finite.

    See Also
    --------
    CommonSector : The law of the range.

    Notes
    -----
    The p-value is exact to its last digits for any number of angles; sums of alternating terms return nonsense from
    about a hundred regular ones on.

    References
    ----------
    Rao, J. S. (1969). Some contributions to the analysis of circular data. Ph.D. thesis, Indian Statistical Institute.

    Examples
    --------
    >>> import unitmass as um
    >>> um.circular_range_test([0.1, 0.6, 0.7, 1.2, 6.2])
    CircularTest(statistic=1.2832, pvalue=0.0087)
    """
    sorted_angles = _sorted(angles)
    gaps = np.diff(sorted_angles, append=sorted_angles[0] + TURN)
    # A largest gap that rounding made less than the mean of all would be impossible.
    spread = float(min(TURN - gaps.max(), TURN * (1 - 1 / gaps.size)))
    return CircularTest(spread, float(law("sector", "cdf", gaps.size, spread)))


def hodges_ajne_test(angles: ArrayLike) -> CircularTest:
    """Test whether angles are uniform against more of them lying in one half circle, by Hodges and Ajne.

    Parameters
    ----------
    angles : array_like
        Angles in radians, in one dimension, at least one; any real numbers.

    Returns
    -------
    CircularTest
        ``statistic`` is the smallest number of angles on one side of any diameter that none of them lies on. ``pvalue``
        is the probability of as few or fewer if they are uniform, for any number of angles; it is exact.

    Raises
    ------
    TypeError, ValueError
        If there are no angles, or they are not finite.

    See Also
    --------
    scan_circle : Arcs of other widths.

    References
    ----------
    Ajne, B. (1968). A simple test for uniformity of a circular distribution. Biometrika 55.

    Examples
    --------
    >>> import unitmass as um
    >>> um.hodges_ajne_test([0.1, 0.6, 0.7, 1.2, 2.5, 2.9, 4.2, 6.2])
    CircularTest(statistic=1.0, pvalue=0.375)
    """
    # In units of which whole degrees, and their antipodes, have whole numbers: ties are found whatever rounding did.
    turn = 360 << 30
    units = np.sort(np.rint(_sorted(angles) / TURN * turn).astype(np.int64) % turn)
    n = units.size
    ends = np.searchsorted(np.concatenate([units, units + turn]), units + turn // 2)
    # The half circles that begin with an angle and do not hold their end.
    fewest = int(n - (ends - np.searchsorted(units, units)).max())
    return CircularTest(float(fewest), _core.half_circle(n, n - fewest))


def gap_means(n: int) -> NDArray[np.float64]:
    """Return the means of the largest, second largest, … smallest gap between n uniform points on a circle.

    Parameters
    ----------
    n : int
        How many points, at least 1.

    Returns
    -------
    ndarray of shape (n,)
        Angles in radians that fall, and sum to 2π.

    Raises
    ------
    TypeError, ValueError
        If `n` is not an integer from 1 on.
    MemoryError
        If there is no room for as many numbers.

    See Also
    --------
    MaxGap, MinGap : The laws of the first and the last.

    Notes
    -----
    The mean of the k-th largest is (2π/n) Σ_{j=k}^n 1/j.

    Examples
    --------
    >>> import numpy as np
    >>> import unitmass as um
    >>> um.gap_means(3) / (2 * np.pi) * 18
    array([11., 5., 2.])
    """
    means = room((_points(n),), "n", "MaxGap and MinGap need no room").view(np.float64)
    _core.gap_means(means, resolve(None))
    return means


def gap_counts(n: int, gap: float) -> NDArray[np.float64]:
    """Return the probabilities that 0, 1, 2, … gaps between n uniform points on a circle are at least this long.

    Parameters
    ----------
    n : int
        How many points, at least 1.
    gap : float
        The length in radians, above 0 and up to 2π.

    Returns
    -------
    ndarray
        Probabilities of 0 to floor(2π/gap) gaps, at most n. They sum to 1.

    Raises
    ------
    TypeError, ValueError
        If an argument has no place in its domain, or n (2π/gap)² is too large: about 1e9.

    See Also
    --------
    MaxGap : ``MaxGap(n).sf`` is the probability of at least one.

    Notes
    -----
    C(n, l) Σ_{j>=l} (-1)^(j-l) C(n-l, j-l) (1 - jx)^(n-1) for gaps of 2πx, by a recursion whose terms are all positive.

    Examples
    --------
    >>> import numpy as np
    >>> import unitmass as um
    >>> um.gap_counts(5, 0.3 * 2 * np.pi)
    array([0.0545, 0.6915, 0.253 , 0.001 ])
    """
    n, gap = _points(n), finite(gap, "gap")
    if not 0 < gap <= TURN:
        raise ValueError(f"gap: must be above 0 and up to 2π, found {gap}")
    return _core.gap_counts(n, gap)


class _Sampling:
    """How an answer is found."""

    def __init__(self, given: Sampling) -> None:
        unknown = set(given) - set(Sampling.__annotations__)
        if unknown:
            raise TypeError(f"{min(unknown)}: there is no such argument")
        self.method = given.get("method", "auto")
        if str(self.method) not in ("auto", "exact", "mc"):
            raise ValueError(f"method: expected 'auto', 'exact' or 'mc', found {self.method!r}")
        self.trials = _optional(given.get("trials"), "trials")
        self.blocks = _optional(given.get("blocks"), "blocks")
        self.first_block = whole_number(given.get("first_block", 0), "first_block", 0)
        self.rel_se = _positive(given.get("rel_se"), "rel_se")
        self.max_seconds = _positive(given.get("max_seconds"), "max_seconds")
        if self.rel_se is not None and not 1e-9 <= self.rel_se <= 1:
            raise ValueError(f"rel_se: must be from 1e-9 to 1, found {self.rel_se}")
        self.rng = given.get("rng")
        self.workers = resolve(given.get("workers"))
        self.progress = given.get("progress", False)
        limits = {"trials": self.trials, "blocks": self.blocks, "max_seconds": self.max_seconds}
        self.any_limit = any(limit is not None for limit in limits.values())
        named = {**limits, "rel_se": self.rel_se, "first_block": self.first_block or None}
        asked = [name for name, value in named.items() if value is not None]
        if asked and self.method == "exact":
            raise ValueError(f"{asked[0]}: belongs to trials, not to method 'exact'")
        self.any = bool(asked)
        """Whether something is given that belongs to trials."""

    def most(self, default: int) -> int:
        """Say how many trials there are at most."""
        if self.trials is not None:
            return self.trials
        return _ALL if self.blocks is not None or self.rel_se or self.max_seconds else default

    def answer(
        self,
        experiment: _core.Experiment,
        n: int,
        angles: NDArray[np.float64],
        exact: NDArray[np.float64],
        bias: float,
        d: int = 2,
        above: bool = False,
    ) -> SectorEstimate:
        """Find the probability that the number of a trial is up to that of each angle, or above it."""
        known = ~np.isnan(exact)
        if self.method == "exact" or (self.method == "auto" and known.all() and not self.any):
            if not known.all():
                raise ValueError("method: no exact value is known for these arguments; 'mc' estimates it")
            copy = plain(exact.copy())
            return SectorEstimate(plain(exact), plain(np.zeros(exact.shape)), None, 0, copy, "exact", None)
        _refuse_many(n)
        if not 2 <= d <= 16:
            raise ValueError(f"d: must be from 2 to 16 for trials, found {d}")
        hits_wanted = _ALL
        if self.rel_se is not None:
            if angles.ndim:
                raise ValueError(f"rel_se: needs one angle, found an array of shape {angles.shape}")
            hits_wanted = math.ceil(self.rel_se**-2) + 2
            if not self.any_limit and known.all() and hits_wanted > 1e15 * exact:
                raise ValueError(f"rel_se: would take too many trials, for the probability is {exact.item():.3g}")
        rising, places = np.unique(angles, return_inverse=True)
        seed, most = seed_of(self.rng), self.most(1_000_000)
        with self.told(most, angles.ndim == 0) as tell:
            counts, trials, stopped = self.count(experiment, rising, seed, most, tell, hits_wanted, above)
            if tell:
                tell(trials, int(counts[1:].sum() if above else counts[:1].sum()))
        below = np.cumsum(counts)[:-1][places.reshape(angles.shape)].astype(np.int64)
        hits = np.where(angles > 0, trials - below, trials) if above else below
        if stopped == "hits":
            estimate = np.asarray((hits - 1) / (trials - 1))
            error = estimate * np.sqrt((1 - estimate) / (hits - 2))
        else:
            with np.errstate(invalid="ignore"):  # without trials
                estimate = np.asarray(np.true_divide(hits, trials))
            error = np.sqrt(estimate * (1 - estimate) / max(trials, 1))
        return SectorEstimate(
            estimate=plain(estimate),
            standard_error=plain(error),
            hits=plain(hits),
            trials=trials,
            exact=plain(exact) if known.any() else None,
            method="mc",
            seed=seed,
            bias=bias,
            stopped=_STOPPED[stopped],
            blocks=_blocks(experiment, rising, most),
        )

    def told(self, most: int, share: bool) -> AbstractContextManager[Callable[[int, int], object] | None]:
        """Make what hears of `most` trials, as long as they go on."""
        return _live(self.progress, None if most == _ALL else most, share)

    def count(
        self,
        experiment: _core.Experiment,
        rising: NDArray[np.float64],
        seed: int,
        most: int,
        tell: Callable[[int, int], object] | None,
        hits: int = _ALL,
        above: bool = False,
    ) -> tuple[NDArray[np.uint64], int, Literal["trials", "hits", "time"]]:
        """Count trials until there are `most` of them, or so many hits, or the time is over."""
        return experiment.count(
            rising,
            seed,
            self.first_block,
            _ALL if self.blocks is None else self.blocks,
            most,
            hits,
            above,
            math.inf if self.max_seconds is None else self.max_seconds,
            self.workers,
            tell,
        )


def _blocks(experiment: _core.Experiment, rising: NDArray[np.float64], most: int) -> int | None:
    """Say how many blocks `most` trials fill, unless there is no end to them."""
    return None if most == _ALL else -(-most // experiment.trials_in_block(rising))


_STOPPED: dict[str, Literal["trials", "rel_se", "max_seconds"]] = {
    "trials": "trials",
    "hits": "rel_se",
    "time": "max_seconds",
}


def _leaders(n: int, theta: NDArray[np.float64], density: _core.Density | None) -> float:
    """Say how many points are expected to have all others within theta clockwise."""
    if density is None:
        return n * float(theta / TURN) ** (n - 1)
    return float(density.leaders(n, theta.reshape(1), 1)[0])


def _karp_luby(
    n: int,
    theta: NDArray[np.float64],
    density: _core.Density | None,
    exact: NDArray[np.float64],
    given: _Sampling,
) -> SectorEstimate:
    if theta.ndim:
        raise ValueError(f"theta: 'karp-luby' needs one angle, found an array of shape {theta.shape}")
    leaders = _leaders(n, theta, density)
    most = min(n, math.floor(1 / max(1 - float(theta / TURN), 1 / n) + 1e-9))
    trials = given.most(100_000)
    if given.rel_se is not None:
        trials = min(trials, max(math.ceil((most - 1) ** 2 / (4 * most) / given.rel_se**2), 1))
    _refuse_many(n)
    experiment, seed, no_angles = _core.Experiment.lead(n, float(theta), density), seed_of(given.rng), np.empty(0)
    with given.told(trials, False) as tell:
        counts, done, stopped = given.count(experiment, no_angles, seed, trials, tell)
        if tell:
            tell(done, done)
    counts = counts[:-1]
    weights = 1 / np.arange(1, counts.size + 1)
    mean = float(counts @ weights) / max(done, 1)
    spread = math.sqrt(float(counts @ (weights - mean) ** 2) / max(done - 1, 1) / max(done, 1))
    return SectorEstimate(
        estimate=min(leaders * mean, 1.0) if done else math.nan,
        standard_error=leaders * spread,
        hits=None,
        trials=done,
        exact=None if np.isnan(exact) else plain(exact),
        method="karp-luby",
        seed=seed,
        bias=leaders * _rounding(n, n, theta, density),
        stopped="rel_se" if given.rel_se is not None and stopped == "trials" else _STOPPED[stopped],
        blocks=_blocks(experiment, no_angles, trials),
        counts=counts,
        bound=leaders,
    )


@contextmanager
def _live(progress: Live, total: int | None, share: bool) -> Iterator[Callable[[int, int], object] | None]:
    """Make what takes the numbers of trials and hits that are done, and tells those who wait; perhaps their share."""
    if callable(progress):
        call, most = progress, 0

        def tell_most(trials: int, hits: int) -> None:
            nonlocal most
            most = max(most, trials)  # those that were done beyond the last one that counts do not come back
            call(most, total)

        yield tell_most
        return
    with bar("counting", "trials{task.fields[found]}", off=not progress, total=total, found="") as update:
        begun = time.perf_counter()

        def tell(trials: int, hits: int) -> None:
            found = f", {trials / max(time.perf_counter() - begun, 1e-9):.3g} trials/s"
            if share:
                part = hits / max(trials, 1)
                found = f", {part:.6g} ± {math.sqrt(part * (1 - part) / max(trials, 1)):.1g}{found}"
            update(completed=trials, found=found)

        yield tell if update else None


def _points(n: Any) -> int:
    whole_number(n, "n", 1)
    return int(points(n))


def _optional(value: int | None, name: str) -> int | None:
    return None if value is None else whole_number(value, name, 0)


def _positive(value: float | None, name: str) -> float | None:
    if value is None:
        return None
    number = finite(value, name)
    if number <= 0:
        raise ValueError(f"{name}: must be above 0, found {number}")
    return number


def _angles(values: ArrayLike, name: str, most: float = TURN) -> NDArray[np.float64]:
    angles = real(values, name)
    end = np.float32(most) if getattr(values, "dtype", None) == np.float32 else most
    bad = angles[~((angles >= 0) & (angles <= end))]
    if bad.size:
        raise ValueError(f"{name}: must be from 0 to {'2π' if most == TURN else 'π'}, found {bad.flat[0]}")
    return np.minimum(angles, most)  # float32's 2π and π lie a little above


def _sorted(values: ArrayLike) -> NDArray[np.float64]:
    angles = real(values, "angles")
    if angles.ndim != 1 or not angles.size:
        raise ValueError(f"angles: expected at least one, in one dimension, found shape {angles.shape}")
    bad = angles[~np.isfinite(angles)]
    if bad.size:
        raise ValueError(f"angles: must be finite, found {bad[0]}")
    return np.sort(np.mod(angles, TURN))


def _edges(bins: int | ArrayLike) -> NDArray[np.float64]:
    if np.ndim(bins) == 0:
        number = whole_number(bins, "bins", 1)
        if number > 2**24:
            raise ValueError(f"bins: must be at most 2**24, found {number}")
        return np.linspace(0, TURN, number + 1)
    edges = _angles(bins, "bins")
    if edges.ndim != 1 or edges.size < 2 or (np.diff(edges) < 0).any():
        raise ValueError(f"bins: edges must be two or more that rise, found {bins!r}")
    return edges


def _few(n: int) -> int:
    if n > 2**40:
        raise ValueError(f"n: must be at most 2**40, found {n}")
    return n


def _refuse_many(n: int) -> None:
    if n > MOST_POINTS:
        raise ValueError(f"n: must be at most 2**22 for trials, found {n}")


def _rounding(n: int, k: int, angles: NDArray[np.float64], density: _core.Density | None) -> float:
    """Say how much the estimates may be off for what angles are rounded to, at most."""
    coarse = n <= 1024 or (k == n and np.unique(angles).size == 1 and bool(angles.max() <= np.pi))
    crowding = float(n if k == n else n * n) * (density.peak if density else 1.0)
    return min(crowding * 2.0 ** (-32 if coarse else -64), 1.0)


def _sector(
    n: int, theta: NDArray[np.float64], density: _core.Density | None, workers: int | None
) -> NDArray[np.float64]:
    """Find the exact probability of a common sector, NaN where none is known."""
    if density is None:
        return np.asarray(law("sector", "cdf", n, theta, workers))
    exact = np.full(theta.shape, np.nan)
    narrow = theta <= np.pi
    if narrow.any():
        exact[narrow] = np.minimum(density.leaders(n, theta[narrow], resolve(workers)), 1)
    exact[(theta == TURN) | (n == 1) | (~narrow & (n == 2))] = 1
    return exact


def _scan(
    k: int, n: int, width: NDArray[np.float64], density: _core.Density | None, workers: int
) -> NDArray[np.float64]:
    if k == n:
        return _sector(n, width, density, workers)
    exact = np.full(width.shape, np.nan)
    if density is None and k == 2:
        exact = np.asarray(law("min_gap", "cdf", n, width, workers))
    elif density is None:
        exact[width == np.pi] = _core.half_circle(n, k)
    # The mean of all arcs from a point to the one that is k - 1 further.
    exact[width >= TURN * (k - 1) / n] = 1
    return exact


def _cap(n: int, d: int, angle: NDArray[np.float64]) -> NDArray[np.float64]:
    if d == 2:
        return np.asarray(law("sector", "cdf", n, 2 * angle))
    exact = np.full(angle.shape, np.nan)
    small = angle <= np.pi / 2
    if d == 3 and small.any():
        exact[small] = [_core.small_cap(n, float(beta)) for beta in angle[small]]
    exact[angle == np.pi / 2] = _core.half_space(n, d)[0]
    exact[(angle == np.pi) | (n == 1) | ((n <= d) & (angle >= np.pi / 2))] = 1
    return exact
