"""Slow, obvious laws of the gaps between n uniform points on a circle: what `unitmass` is held against.

Each law is the plain formula of the literature in 600 digits. The alternating sums cancel, and so does 1 minus them:
`digits` is there for more than some 800 points, or for probabilities below 1e-200. A gap x is measured in turns, as an
mpf: `turns` makes one of the very double that a kernel was given. Probabilities come back as mpf numbers.
"""

import math

import mpmath as mp
import numpy as np
from scipy.spatial import ConvexHull

DIGITS = 600


def turns(angle, digits=DIGITS):
    """An angle in radians as a part of the circle."""
    with mp.workdps(digits):
        return mp.mpf(angle) / (2 * mp.pi)


def exactly(n, l, x, digits=DIGITS):  # noqa: E741  (the letter of the literature)
    """P(exactly l of the n gaps are >= x): inclusion and exclusion (Stevens 1939)."""
    with mp.workdps(digits):
        x = mp.mpf(x)
        terms = (
            (-1) ** (j - l) * mp.binomial(n - l, j - l) * (1 - j * x) ** (n - 1) for j in range(l, n + 1) if j * x < 1
        )
        return mp.binomial(n, l) * mp.fsum(terms)


def largest_gap_cdf(n, x, digits=DIGITS):
    """P(the largest gap < x)."""
    return exactly(n, 0, x, digits)


def largest_gap_sf(n, x, digits=DIGITS):
    """P(the largest gap >= x): some sector of 1 - x turns holds all points (Fisher 1929)."""
    with mp.workdps(digits):
        return 1 - exactly(n, 0, x, digits)


def largest_gap_pdf(n, x, digits=DIGITS):
    """Minus the derivative of `largest_gap_sf`, in 1/turns; n > 1."""
    with mp.workdps(digits):
        x = mp.mpf(x)
        terms = ((-1) ** (k + 1) * mp.binomial(n, k) * k * (1 - k * x) ** (n - 2) for k in range(1, n + 1) if k * x < 1)
        return (n - 1) * mp.fsum(terms)


def largest_gap_from_below(n, x, digits=DIGITS):
    """The cdf and the density in 1/turns of the largest gap for x a little above 1/n, where few terms are left; n > 1.

    The density of a sum of n uniform numbers is symmetric, so that (1 - jx) may be (nx - 1 - jx) in the sum.
    """
    with mp.workdps(digits):
        x = mp.mpf(x)
        terms = [((-1) ** j * mp.binomial(n, j), n - j, n * x - 1 - j * x) for j in range(n) if n * x - 1 - j * x > 0]
        cdf = mp.fsum(sign * rest ** (n - 1) for sign, _, rest in terms)
        return cdf, (n - 1) * mp.fsum(sign * left * rest ** (n - 2) for sign, left, rest in terms)


def half_circle(n, k):
    """P(at least k of n points lie in some half circle) (Hodges 1955)."""
    if 2 * k <= n + 1:
        return mp.mpf(1)
    c = 2 * k - n
    with mp.workdps(DIGITS):
        return mp.ldexp(mp.mpf(c * sum(math.comb(n, i) for i in range(k, n + 1, c))), 1 - n)


def half_space(n, d):
    """P(n points of a centrally symmetric law in d dimensions lie in a half space through the centre) (Wendel 1962)."""
    with mp.workdps(DIGITS):
        return mp.ldexp(mp.mpf(sum(math.comb(n - 1, k) for k in range(d))), 1 - n)


def cap(n, beta):
    """P(n points on the sphere lie in a common cap of angular radius beta <= pi/2)."""
    with mp.workdps(DIGITS):
        q = (1 - mp.cos(mp.mpf(beta))) / 2
        return n**2 * q ** (n - 1) - (n - 1) * (n + 2) * q**n


# --- points that were drawn -------------------------------------------------------------------------------------------


def shortest_arc(angles, k):
    """The shortest arc that holds k of the angles, row by row: from each, all others clockwise (O(n² log n))."""
    after = np.sort(np.mod(angles[:, None, :] - angles[:, :, None], 2 * np.pi), axis=-1)
    return after[:, :, k - 1].min(axis=-1)


def covers(starts, lengths):
    """Whether arcs cover the circle, row by row: just if each of them ends in another (O(n²))."""
    after = np.mod((starts + lengths)[:, :, None] - starts[:, None, :], 2 * np.pi)
    inside = (after < lengths) & ~np.eye(lengths.size, dtype=bool)
    return inside.any(axis=-1).all(axis=-1)


def largest_of_exponentials(rng, n, size):
    """The largest gap in radians without a circle: n exponential numbers over their sum."""
    numbers = rng.exponential(size=(size, n))
    return 2 * np.pi * numbers.max(axis=1) / numbers.sum(axis=1)


def largest_cap(points):
    """The cosine of the smallest cap that holds all points of a set whose hull holds the centre; 1 for other sets."""
    offsets = -ConvexHull(points).equations[:, -1]
    return -offsets.min() if (offsets > 0).all() else 1.0


def fewest_on_a_side(angles):
    """The smallest number of angles on one side of any diameter that none lies on: one between any two that matter."""
    ends = np.sort(np.mod(np.concatenate([angles, angles + np.pi]), 2 * np.pi))
    ends = ends[np.diff(ends, append=ends[0] + 2 * np.pi) > 1e-9]
    middles = (ends + np.append(ends[1:], ends[0] + 2 * np.pi)) / 2
    return min(int((np.mod(angles - middle, 2 * np.pi) < np.pi).sum()) for middle in middles)


# --- the trials themselves, with Python's integers -------------------------------------------------------------------

_WORD = 2**64 - 1


def words(seed, index):
    """The stream (seed, index): SplitMix64 fills the state of xoshiro256++."""

    def mixed(state):
        while True:
            state = (state + 0x9E3779B97F4A7C15) & _WORD
            z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
            z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _WORD
            yield z ^ (z >> 31)

    root = mixed(next(mixed(seed)) ^ index)
    a, b, c, d = (next(root) for _ in range(4))
    while True:
        yield (_turned((a + d) & _WORD, 23) + a) & _WORD
        c, d, shifted = c ^ a, d ^ b, (b << 17) & _WORD
        a, b, c, d = a ^ d, b ^ c, c ^ shifted, _turned(d, 45)


def _turned(word, by):
    return (word << by | word >> (64 - by)) & _WORD


def trials_of_block(n, trials, seed, block=0):
    """The uniform points of trials of a block, as integers, and what a turn is: the first is at 0.

    Up to 1,024 points, sixteen trials at a time take halves of the words of eight streams. Beyond, a trial takes rounds
    of all eight streams until it has n words; the first does not matter.
    """
    streams = [words(seed, 8 * block + lane) for lane in range(8)]
    found = []
    while len(found) < trials:
        if n > 1024:
            drawn = [next(stream) for _ in range(-(-n // 8)) for stream in streams]
            found.append([0, *drawn[1:n]])
            continue
        group = [[0] for _ in range(16)]
        for _ in range(n - 1):
            for lane, stream in enumerate(streams):
                word = next(stream)
                group[2 * lane].append(word & 0xFFFFFFFF)
                group[2 * lane + 1].append(word >> 32)
        found += group
    return found[:trials], 2**32 if n <= 1024 else 2**64


def shortest_whole_arc(points, turn, k):
    """The shortest arc that holds k of the points, by the definition (O(n²)), in units of a turn in `turn` parts."""
    return min(sorted((point - start) % turn for point in points)[k - 1] for start in points)
