"""Time questions about random points on a circle beside NumPy, SciPy, numba and mpmath, and check the aims.

One process, one worker unless a line says otherwise. All contestants of a question are interleaved: every round lets
each of them do its share of trials, with new seeds, and a ratio is the median over rounds of the ratios within a round,
so that a slow spell of the machine hits both sides. Times are medians, in nanoseconds per trial. That all answer the
same question is watched: means that differ print a warning.

    python benches/bench_sectors.py                            everything (minutes)
    python benches/bench_sectors.py --quick --work circle exact
    python benches/bench_sectors.py --markdown docs/benchmarks.md --plot docs/_static/benchmarks_sectors.png
"""

# ruff: noqa: NPY002 (numba has no von Mises for Generators, and its own functions are as fast)

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
from _bench import Aim, Clock, cores, linked, note, optional, progress, publish, ratio, section, verdicts

import unitmass as um

Array = np.ndarray
Run = Callable[[int, int], tuple[float, float]]  # trials and seed -> sum of what they give, and of its squares
WORKS = ("circle", "others", "workers", "rare", "exact")
PACKAGES = ("numpy", "scipy", "numba", "mpmath")
TURN = 2 * np.pi

numba, mpmath, optimize, spatial, special = map(
    optional, ("numba", "mpmath", "scipy.optimize", "scipy.spatial", "scipy.special")
)

CIRCLE = [(4, 0.5), (4, 0.6), (16, 0.8), (64, 0.5), (64, 0.92), (1000, 0.5), (1000, 0.9), (1000, 0.993)]
"""How many points, and the sector in turns."""

# What a trial may take, and how many times longer NumPy should.
MOST = {(4, 0.5): 0.6, (16, 0.8): 6, (64, 0.5): 30, (64, 0.92): 30, (1000, 0.5): 5}
LEAST = {(4, 0.5): 250, (16, 0.8): 60, (64, 0.5): 25, (64, 0.92): 25, (1000, 0.5): 1500}


# --- unitmass ---------------------------------------------------------------------------------------------------------


def hits(ask: Callable[..., um.SectorEstimate], *question: object, workers: int = 1, **options: object) -> Run:
    """Count hits with the package."""

    def run(trials: int, seed: int) -> tuple[float, float]:
        found = ask(*question, method="mc", trials=trials, rng=seed, workers=workers, **options).hits
        return found, found

    return run


def samples(n: int) -> Run:
    """Draw largest gaps with the package."""

    def run(trials: int, seed: int) -> tuple[float, float]:
        return sums(um.simulate_gaps(n, trials=trials, rng=seed, workers=1))

    return run


# --- NumPy ------------------------------------------------------------------------------------------------------------


def sums(values: Array) -> tuple[float, float]:
    """Sum values, which may be hits or none, and their squares."""
    if values.dtype == bool:
        return (found := np.count_nonzero(values)), found
    return float(values.sum(dtype=float)), float(np.square(values, dtype=float).sum())


CACHED = 2**15
"""Numbers drawn at a time: they and what is made of them fit the second cache."""

WHOLE = 2**22
"""Numbers drawn at a time by who does not think of caches."""


def in_chunks(size: int, work: Callable[[np.random.Generator, int], Array], chunk: int = CACHED) -> Run:
    """Do trials of so many numbers, by as many trials at a time as have so many numbers together."""

    def run(trials: int, seed: int) -> tuple[float, float]:
        rng, total, squares = np.random.default_rng(seed), 0.0, 0.0
        for begin in range(0, trials, each := max(chunk // size, 1)):
            more = sums(work(rng, min(each, trials - begin)))
            total, squares = total + more[0], squares + more[1]
        return total, squares

    return run


def uniform(dtype: type) -> Callable[..., Array]:
    """Draw turns."""
    return lambda rng, shape: rng.random(shape, dtype=dtype)


def vonmises(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
    return rng.vonmises(0.0, 1.0, shape) / TURN


def largest_gap(turns: Array) -> Array:
    """Find it in each row of sorted turns."""
    return np.maximum(np.diff(turns, axis=1).max(axis=1), 1 - (turns[:, -1] - turns[:, 0]))


def largest_gap_of_columns(turns: Array) -> Array:
    """Likewise; but operations along short rows are slow, and those along columns are not."""
    turns = np.ascontiguousarray(turns.T)
    return np.maximum(np.diff(turns, axis=0).max(axis=0), 1 - (turns[-1] - turns[0]))


def shortest_arc(turns: Array, k: int) -> Array:
    """Find the shortest arc that holds k of the points."""
    ends = np.concatenate([turns, turns[:, : k - 1] + 1], axis=1)[:, k - 1 :]
    return (ends - turns).min(axis=1)


def sorting(
    n: int,
    found: Callable[[Array], Array],
    draw: Callable[[np.random.Generator, tuple[int, int]], Array],
    chunk: int = CACHED,
) -> Run:
    """Sort the points of each trial, and look."""

    def work(rng: np.random.Generator, trials: int) -> Array:
        turns = draw(rng, (trials, n))
        turns.sort(axis=1)
        return found(turns)

    return in_chunks(n, work, chunk)


def half_sphere(rng: np.random.Generator, trials: int, n: int) -> Array:
    """Look for a plane through the centre and two of n points on a sphere that has the others on one side."""
    points = rng.standard_normal((trials, n, 3))
    i, j = np.triu_indices(n, 1)
    sides = np.cross(points[:, i], points[:, j]) @ points.swapaxes(1, 2)
    pair = np.arange(i.size)
    sides[:, pair, i] = sides[:, pair, j] = 0
    return ((sides >= 0).all(axis=2) | (sides <= 0).all(axis=2)).any(axis=1)


def wide_cap(rng: np.random.Generator, trials: int, n: int, angle: float) -> Array:
    """Look for a plane through three of n points that leaves an empty cap as large as the rest of this one."""
    points = rng.standard_normal((trials, n, 3))
    points /= np.linalg.norm(points, axis=2, keepdims=True)
    i, j, k = np.array([(i, j, k) for k in range(n) for j in range(k) for i in range(j)]).T
    normals = np.cross(points[:, j] - points[:, i], points[:, k] - points[:, i])
    normals /= np.linalg.norm(normals, axis=2, keepdims=True)
    height = (normals * points[:, i]).sum(axis=2)
    above = normals @ points.swapaxes(1, 2) - height[..., None]
    three = np.arange(i.size)
    above[:, three, i] = above[:, three, j] = above[:, three, k] = 0
    most = np.cos(np.pi - angle)
    return (((above <= 0).all(axis=2) & (height <= most)) | ((above >= 0).all(axis=2) & (-height <= most))).any(axis=1)


# --- SciPy ------------------------------------------------------------------------------------------------------------


def of_points(n: int, hit: Callable[[Array], bool]) -> Run:
    """Loop over trials, each with n points on a sphere."""

    def run(trials: int, seed: int) -> tuple[float, float]:
        points = np.random.default_rng(seed).standard_normal((trials, n, 3))
        points /= np.linalg.norm(points, axis=2, keepdims=True)
        return (found := sum(map(hit, points))), found

    return run


def hull(points: Array, angle: float) -> bool:
    """Whether a facet of the convex hull lies as low as the rim of the cap: the empty cap over it is the rest."""
    return spatial.ConvexHull(points).equations[:, -1].max() >= np.cos(angle)


def program(points: Array) -> bool:
    """Whether a linear program finds a direction from which all points are seen."""
    n, d = points.shape
    return optimize.linprog(np.zeros(d), -points, -np.ones(n), bounds=(None, None)).status == 0


# --- numba ------------------------------------------------------------------------------------------------------------


def gap_loop(trials: int, n: int, least: float, seed: int) -> int:
    np.random.seed(seed)
    turns = np.empty(n)
    found = 0
    for _ in range(trials):
        for i in range(n):
            turns[i] = np.random.random()
        turns.sort()
        gap = 1 - (turns[n - 1] - turns[0])
        for i in range(1, n):
            gap = max(gap, turns[i] - turns[i - 1])
        found += gap >= least
    return found


def leaving_loop(trials: int, n: int, theta: float, seed: int) -> int:
    """Count for theta up to half a turn, without sorting: a trial ends with the point that no sector has room for."""
    np.random.seed(seed)
    found = 0
    for _ in range(trials):
        first = np.random.random()
        low = high = 0.0
        hit = True
        for _ in range(1, n):
            turn = np.random.random() - first
            turn -= np.floor(turn + 0.5)
            low, high = min(low, turn), max(high, turn)
            if high - low > theta:
                hit = False
                break
        found += hit
    return found


def vonmises_loop(trials: int, n: int, least: float, seed: int) -> int:
    np.random.seed(seed)
    angles = np.empty(n)
    found = 0
    for _ in range(trials):
        for i in range(n):
            angles[i] = np.random.vonmises(0.0, 1.0)
        angles.sort()
        gap = 2 * np.pi - (angles[n - 1] - angles[0])
        for i in range(1, n):
            gap = max(gap, angles[i] - angles[i - 1])
        found += gap >= least
    return found


def scan_loop(trials: int, n: int, k: int, width: float, seed: int) -> int:
    np.random.seed(seed)
    turns = np.empty(n)
    found = 0
    for _ in range(trials):
        for i in range(n):
            turns[i] = np.random.random()
        turns.sort()
        for i in range(n):
            end = turns[i + k - 1] if i + k <= n else turns[i + k - 1 - n] + 1
            if end - turns[i] <= width:
                found += 1
                break
    return found


def of_numba(loop: Callable[..., int], *question: float) -> Run:
    """Count with a compiled loop."""
    compiled = compile_loop(loop)

    def run(trials: int, seed: int) -> tuple[float, float]:
        return (found := compiled(trials, *question, seed)), found

    return run


@cache
def compile_loop(loop: Callable[..., int]) -> Callable[..., int]:
    return numba.njit(loop)


# --- timing -----------------------------------------------------------------------------------------------------------


@dataclass
class Contestant:
    """One implementation, which does its trials at each call, with seeds of its own."""

    name: str
    run: Run
    trials: int = 1
    call: float = 0.0  # seconds with a single trial
    found: list[tuple[float, float]] = field(default_factory=list)

    def __call__(self) -> None:
        """Do the trials."""
        self.found.append(self.run(self.trials, 1 + len(self.found)))

    def fit(self, seconds: float) -> None:
        """Choose the number of trials that take so long, beyond what a call takes anyway."""

        def took() -> float:
            start = time.perf_counter()
            self.run(self.trials, 987_654)
            return time.perf_counter() - start

        took()  # what is loaded, compiled or allocated once
        self.call = took()
        while (more := took() - self.call) < seconds / 4:
            self.trials = math.ceil(self.trials * min(max(seconds / 2 / max(more, 1e-9), 2), 16))
        self.trials = max(1, round(self.trials * seconds / more))

    def moments(self) -> tuple[float, float, int]:
        """Mean and variance of all trials, and how many they are."""
        done = self.trials * len(self.found)
        mean, squares = (sum(column) / done for column in zip(*self.found, strict=True))
        return mean, squares - mean**2, done


@dataclass
class Race:
    """What contestants took for a trial: a figure for each round."""

    contestants: list[Contestant]
    seconds: dict[str, list[float]]

    def ns(self, name: str) -> float:
        """Nanoseconds per trial."""
        return statistics.median(self.seconds[name]) * 1e9

    def against(self, name: str) -> float:
        """How many times longer a trial takes than ours."""
        return ratio(self.seconds[name], self.seconds[self.contestants[0].name])


def race(where: str, contestants: list[Contestant], clock: Clock, seconds: float) -> Race:
    """Let each take its turn in every round; the first is ours."""
    progress(where)
    for one in contestants:
        one.fit(seconds)
    times = clock.interleave({one.name: one for one in contestants})
    progress()
    for other in contestants[1:]:
        same_question(where, contestants[0], other)
    return Race(contestants, {one.name: [t / one.trials for t in times[one.name]] for one in contestants})


def same_question(where: str, mine: Contestant, other: Contestant) -> None:
    """Warn where means are more than 6 standard errors apart; not where hits are too rare for the normal law."""
    (a, va, m), (b, vb, n) = mine.moments(), other.moments()
    variance = (m * va + n * vb) / (m + n)
    error = math.sqrt(variance * (1 / m + 1 / n))
    if min(m, n) * variance >= 25 and abs(a - b) > 6 * error:
        note(
            f"WARNING, {where}: {other.name} answers another question than {mine.name}: {b:g} and {a:g} are "
            f"{abs(a - b) / error:.1f} standard errors apart"
        )


def faster(contestants: Iterable[Contestant]) -> Contestant:
    """Take the faster of several ways to do the same."""
    ways = list(contestants)
    for one in ways:
        one.fit(0.02)
    times = Clock(5, 5, 0).interleave({str(i): one for i, one in enumerate(ways)})
    best = min(range(len(ways)), key=lambda i: min(times[str(i)]) / ways[i].trials)
    return Contestant(ways[best].name, ways[best].run)


def figure(value: float) -> str:
    """Three digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def times(value: float) -> str:
    """Render a ratio."""
    return f"**{value:,.0f}x**" if value >= 100 else f"**{value:.1f}x**"


# --- exact values -----------------------------------------------------------------------------------------------------


def alternating(n: int, angles: Array) -> Array:
    """Sum P(largest gap <= angle) in doubles, as formularies print it; the angles rise."""
    turns = angles / TURN
    total = np.zeros(angles.shape)
    for k in range(n + 1):
        some = slice(np.searchsorted(turns * k, 1) if k else None)  # those with k turns below 1
        if not turns[some].size:
            break
        total[some] += (-1) ** k * special.comb(n, k) * (1 - k * turns[some]) ** (n - 1)
    return total


def by_mpmath(n: int, angle: float, digits: int = 60) -> mpmath.mpf:
    """Sum it with as many digits as leave 20 of the value, or of the smallest double; 0 where that is known."""
    with mpmath.workdps(digits):
        turns = mpmath.mpf(float(angle)) / (2 * mpmath.pi)
        if n * turns <= 1:
            return mpmath.mpf(0)
        total, choose, largest, least = mpmath.mpf(0), mpmath.mpf(1), mpmath.mpf(1), mpmath.mpf(10) ** -digits
        for k in range(n + 1):
            if k * turns >= 1:
                break
            term = choose * (1 - k * turns) ** (n - 1)
            total += -term if k % 2 else term
            largest = max(largest, term)
            if term < least:
                break
            choose = choose * (n - k) / (k + 1)
        lost = largest * least * 10**20
        return total if total > lost or lost < 1e-320 else by_mpmath(n, angle, 2 * digits)


# --- the works --------------------------------------------------------------------------------------------------------


@dataclass
class Bench:
    """The settings, and what was found."""

    quick: bool
    clock: Clock
    pages: list[str] = field(default_factory=list)
    points: dict[str, list[tuple[int, float, float]]] = field(default_factory=dict)  # n, sector, ns, by contestant
    aims: dict[str, Aim] = field(
        default_factory=lambda: {
            "most": Aim(
                "a trial at most: 0.6 ns for 4 points in half a turn (AVX-512), 6 ns for 16, 30 ns for 64, 5 ns for "
                "1,000 in half a turn",
                least=False,
                unit=" ns",
            ),
            "numpy": Aim(
                "beside NumPy on whole arrays: 250x for 4 points in half a turn, 60x for 16, 25x for 64, 1,500x for "
                "1,000 in half a turn"
            ),
            "workers": Aim("two workers beside one: 1.8x"),
            "exact": Aim("MaxGap(100).cdf of 100,000 angles: at most 50 ms", least=False, unit=" ms"),
        }
    )

    @property
    def turn(self) -> float:
        """Seconds that a contestant gets in a round."""
        return 0.05 if self.quick else 0.3

    def write(self, *lines: str) -> None:
        """Print lines, and keep them for the page."""
        print("\n".join(lines))
        self.pages += lines

    def circle(self) -> None:
        """Ask whether all points lie in a sector."""
        peers = ("NumPy", "NumPy, in the cache", "NumPy, by columns", "numba", "numba, no sort")
        self.write(
            "### Do n points lie in a sector?",
            "",
            f"| n | sector, turns | P | unitmass | {' | ratio | '.join(peers)} | ratio |",
            "|" + "---|" * (4 + 2 * len(peers)),
        )
        avx512 = um.show_config(mode="dicts")["simd"]["level"] == "avx512"
        for n, theta in CIRCLE:
            where = f"{n} points, {theta:g} turns"
            progress(where)
            found = race(where, self.of_circle(n, theta), self.clock, self.turn)
            mine = found.ns("unitmass")
            cells = [f"{n:,}", f"{theta:g}", f"{um.CommonSector(n).cdf(theta * TURN):.3g}", figure(mine)]
            for name in peers:
                some = name in found.seconds
                cells += [figure(found.ns(name)), times(found.against(name))] if some else ["", ""]
            self.write(f"| {' | '.join(cells)} |")
            for name in found.seconds:
                self.points.setdefault(name, []).append((n, theta, found.ns(name)))
            if (n, theta) in MOST and (n > 4 or avx512):
                self.aims["most"].add(mine, MOST[n, theta], where)
            if (n, theta) in LEAST:
                self.aims["numpy"].add(found.against("NumPy"), LEAST[n, theta], where)
        self.write("")

    def of_circle(self, n: int, theta: float) -> list[Contestant]:
        """Make who counts hits of a sector."""
        contestants = [Contestant("unitmass", hits(um.common_sector, n, theta * TURN))]
        gap = 1 - theta

        def by_rows(turns: Array) -> Array:
            return largest_gap(turns) >= gap

        def by_columns(turns: Array) -> Array:
            return largest_gap_of_columns(turns) >= gap

        contestants.append(Contestant("NumPy", sorting(n, by_rows, uniform(np.float64), WHOLE)))
        for name, found in (("NumPy, in the cache", by_rows), ("NumPy, by columns", by_columns)):
            contestants.append(
                faster(Contestant(name, sorting(n, found, uniform(dtype))) for dtype in (np.float64, np.float32))
            )
        if numba is not None:
            contestants.append(Contestant("numba", of_numba(gap_loop, n, gap)))
            if theta <= 0.5:
                contestants.append(Contestant("numba, no sort", of_numba(leaving_loop, n, theta)))
        return contestants

    def others(self) -> None:
        """Ask other questions."""
        self.write(
            "### Other questions", "", "| | | ns a trial | ratio | a call with one trial, ms |", "|" + "---|" * 5
        )
        for question, contestants in self.of_others():
            found = race(question, contestants, self.clock, self.turn)
            for one in contestants:
                first = one is contestants[0]
                longer = "" if first else times(found.against(one.name))
                call = f"{one.call * 1e3:.2f}" if first else ""
                cells = [question if first else "", one.name, figure(found.ns(one.name)), longer, call]
                self.write(f"| {' | '.join(cells)} |")
        self.write("")

    def of_others(self) -> Iterable[tuple[str, list[Contestant]]]:
        """Make who answers, one question after the other."""
        n = 100
        ways = [
            Contestant(name, sorting(n, lambda turns, largest=largest: largest(turns) * TURN, uniform(np.float64)))
            for name, largest in (("NumPy, in the cache", largest_gap), ("NumPy, by columns", largest_gap_of_columns))
        ]
        yield f"the largest gap of {n} points, sampled", [Contestant("unitmass", samples(n)), faster(ways)]

        question = hits(um.common_sector, 4, np.pi, density="vonmises:1")
        ways = [
            Contestant(name, sorting(4, lambda turns, largest=largest: largest(turns) >= 0.5, vonmises))
            for name, largest in (("NumPy, in the cache", largest_gap), ("NumPy, by columns", largest_gap_of_columns))
        ]
        contestants = [Contestant("unitmass", question), faster(ways)]
        if numba is not None:
            contestants.append(Contestant("numba", of_numba(vonmises_loop, 4, np.pi)))
        yield "4 points of von Mises's law, kappa = 1, in half a turn", contestants

        k, n, width = 5, 50, 0.02
        ways = [
            Contestant("NumPy", sorting(n, lambda turns: shortest_arc(turns, k) <= width, uniform(dtype)))
            for dtype in (np.float64, np.float32)
        ]
        contestants = [Contestant("unitmass", hits(um.scan_circle, k, n, width * TURN)), faster(ways)]
        if numba is not None:
            contestants.append(Contestant("numba", of_numba(scan_loop, n, k, width)))
        yield f"{k} of {n} points in {width:g} turns", contestants

        n = 10
        contestants = [
            Contestant("unitmass", hits(um.common_cap, n, np.pi / 2)),
            Contestant("NumPy, all pairs", in_chunks(n * n * n, lambda rng, trials: half_sphere(rng, trials, n))),
        ]
        if spatial is not None:
            contestants += [
                Contestant("SciPy, ConvexHull", of_points(n, lambda points: hull(points, np.pi / 2))),
                Contestant("SciPy, linprog", of_points(n, program)),
            ]
        yield f"{n} points in half a sphere", contestants

        angle = 2.0
        contestants = [
            Contestant("unitmass", hits(um.common_cap, n, angle)),
            Contestant("NumPy, all triples", in_chunks(n**4 // 6, lambda rng, trials: wide_cap(rng, trials, n, angle))),
        ]
        if spatial is not None:
            contestants.append(Contestant("SciPy, ConvexHull", of_points(n, lambda points: hull(points, angle))))
        yield f"{n} points in a cap of radius {angle:g}", contestants

    def workers(self) -> None:
        """Time two workers beside one."""
        if cores() < 2:
            self.write("Two workers: not measured, one core.", "")
            return
        self.write("| two workers | one, ns a trial | two, ns a trial | gain |", "|---|---|---|---|")
        for n, theta in ((4, 0.5), (64, 0.92)):
            where = f"{n} points, {theta:g} turns"
            pair = [
                Contestant(name, hits(um.common_sector, n, theta * TURN, workers=k))
                for k, name in ((1, "one"), (2, "two"))
            ]
            found = race(f"two workers, {where}", pair, self.clock, self.turn)
            gain = 1 / found.against("two")
            self.write(f"| {where} | {figure(found.ns('one'))} | {figure(found.ns('two'))} | {gain:.2f}x |")
            self.aims["workers"].add(gain, 1.8, where)
        self.write("")

    def rare(self) -> None:
        """Estimate what trials never hit, from trials in which all points lie clockwise of the first."""
        n, theta, trials = 1000, 0.9, 4000

        def ask(trials: int = trials, seed: int = 1) -> um.SectorEstimate:
            return um.common_sector(n, theta * TURN, method="karp-luby", trials=trials, rng=seed, workers=1)

        def ours(trials: int, seed: int) -> tuple[float, float]:
            counts = ask(trials, seed).counts
            weights = 1 / np.arange(1, counts.size + 1)
            return float(counts @ weights), float(counts @ weights**2)

        def theirs(rng: np.random.Generator, trials: int) -> Array:
            turns = np.zeros((trials, n))
            turns[:, 1:] = theta * rng.random((trials, n - 1))
            turns.sort(axis=1)
            return 1 / (1 + (np.diff(turns, axis=1) >= 1 - theta).sum(axis=1))

        found = ask()
        low, high = found.ci()
        contestants = [Contestant("unitmass", ours), Contestant("NumPy", in_chunks(n, theirs))]
        timed = race("Karp-Luby", contestants, self.clock, self.turn)
        seconds = statistics.median(self.clock.interleave({"ask": ask})["ask"])
        self.write(
            f"{n:,} points in {theta:g} turns, {trials:,} trials by the method of Karp and Luby: {found.estimate:.6g}, "
            f"with 95 % confidence from {low:.6g} to {high:.6g}, in {seconds * 1e3:.1f} ms; exactly {found.exact:.6g}. "
            f"A trial takes {timed.ns('unitmass') / 1e3:.1f} µs, in NumPy {timed.ns('NumPy') / 1e3:.1f} µs "
            f"({timed.against('NumPy'):.1f}x).",
            "",
        )

    def exact(self) -> None:
        """Evaluate the law of the largest gap, and look how far off it is."""
        many = 10_000 if self.quick else 100_000
        self.write(
            f"### MaxGap(n).cdf of {many:,} angles",
            "",
            "| n | angles | unitmass, ms | alternating sum, ms | ratio | mpmath, s | ratio | unitmass off by at most | "
            "of the value | the sum off by at most |",
            "|" + "---|" * 10,
        )
        for n in (100, 1_000, 1_000_000):
            law = um.MaxGap(n)
            over = np.linspace(0, TURN, many + 2)[1:-1]
            ranges = {
                "from 0 to 2π": over,
                "P from 1e-30 to 1 - 1e-9": np.linspace(law.ppf(1e-30), law.isf(1e-9), many),
            }
            for name, angles in ranges.items():
                self.row(n, name, angles)
        self.write("")

    def row(self, n: int, name: str, angles: Array) -> None:
        """Time one law over one range of angles."""
        law, few = um.MaxGap(n), angles[:: len(angles) // 16]
        calls: dict[str, Callable[[], object]] = {"unitmass": lambda: law.cdf(angles)}
        share = {"unitmass": 1.0, "sum": 1.0, "mpmath": len(angles) / len(few)}
        if special is not None and n <= 1_000:
            calls["sum"] = lambda: alternating(n, angles)
        if mpmath is not None:
            calls["mpmath"] = lambda: [by_mpmath(n, angle) for angle in few]
        progress(f"MaxGap({n}).cdf, {name}")
        with um.set_workers(1):
            law.cdf(angles)
            seconds = self.clock.interleave(calls, slow=("sum", "mpmath"))
        progress()
        seconds = {way: [t * share[way] for t in taken] for way, taken in seconds.items()}
        mine = statistics.median(seconds["unitmass"]) * 1e3
        cells = [f"{n:,}", name, figure(mine)]
        for way, scale in (("sum", 1e3), ("mpmath", 1)):
            if way in seconds:
                cells += [figure(statistics.median(seconds[way]) * scale)]
                cells += [times(ratio(seconds[way], seconds["unitmass"]))]
            else:
                cells += ["", ""]
        cells += self.errors(n, few)
        self.write(f"| {' | '.join(cells)} |")
        if n == 100 and not self.quick:
            self.aims["exact"].add(mine, 50, name)

    def errors(self, n: int, angles: Array) -> list[str]:
        """Hold values to those of mpmath: our largest error and relative error, and the largest error of the sum."""
        if mpmath is None:
            return ["", "", ""]
        true = [by_mpmath(n, angle) for angle in angles]
        off = [abs(a - b) for a, b in zip(um.MaxGap(n).cdf(angles).tolist(), true, strict=True)]
        relative = max(float(d / t) for d, t in zip(off, true, strict=True) if t > 1e-300)
        cells = [f"{float(max(off)):.1e}", f"{relative:.1e}"]
        if special is None or n > 1_000:
            return [*cells, ""]
        sums = alternating(n, angles).tolist()
        return [*cells, f"{float(max(abs(a - b) for a, b in zip(sums, true, strict=True))):.1e}"]


# --- what is written --------------------------------------------------------------------------------------------------


TITLE = "## Random points on a circle"

HOW = """\
One worker, nanoseconds per trial (median); contestants interleaved in one process, ratios taken within a round, then
their median: how many times longer the peer takes for a trial. NumPy draws four million turns at a time with its
default generator, sorts each trial, and takes the largest gap of each row; or it does so by chunks that fit the
cache; or, by columns, after transposing these; the latter two in float32 where that is faster. The numba loops do one
trial after the other; for at most half a turn, the one without sorting ends a trial with the point that no sector has
room for, as unitmass does. Values of mpmath have 20 digits or more; their time is scaled from some of the angles. The
alternating sum is that of Fisher and Stevens, in doubles."""


def draw(path: str, points: dict[str, list[tuple[int, float, float]]]) -> None:
    """Nanoseconds per trial against the number of points."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9.6, 4.6), sharey=True)
    for i, (name, found) in enumerate(points.items()):
        mine = name == "unitmass"
        style = {"ms": 8, "lw": 2, "color": "C3", "mec": "k", "zorder": 5} if mine else {"ms": 6, "color": f"C{i + 3}"}
        for half, ax in zip((True, False), axes, strict=True):
            some = [(n, ns) for n, theta, ns in found if (theta == 0.5) == half]
            if some:
                ax.loglog(*zip(*some, strict=True), "osDv^P"[i] + ("-" if half else ""), label=name, **style)
        for n, theta, ns in found if mine else ():
            if theta != 0.5:
                axes[1].annotate(f"{theta:g}", (n, ns), (-7, -4), textcoords="offset points", ha="right", fontsize=8)
    for ax, title in zip(axes, ("in half a turn", "in a wider sector (turns beside the points)"), strict=True):
        ax.set(xlabel="points", title=title, xlim=(2, 2000))
        ax.grid(alpha=0.3, which="both", lw=0.4)
    axes[0].set_ylabel("time per trial (ns)")
    axes[0].legend(fontsize=8)
    figure.suptitle("Do random points lie in a sector? One worker: lower is faster")
    figure.tight_layout()
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    print(f"plot: {path}", file=sys.stderr)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="two short rounds: a look, not a measurement")
    parser.add_argument("--work", nargs="+", choices=WORKS, help="some of the works; all by default")
    parser.add_argument("--markdown", metavar="FILE", help="write the section of FILE with tables, machine and command")
    parser.add_argument("--plot", metavar="PNG", help="draw ns per trial against the number of points")
    args = parser.parse_args(argv)
    bench = Bench(args.quick, Clock(2, 1, 0) if args.quick else Clock(7, 3, 0))
    for work in args.work or WORKS:
        getattr(bench, work)()
    aims = verdicts(bench.aims.values())
    print("\n".join(aims))
    if args.plot and bench.points:
        draw(args.plot, bench.points)
    if args.markdown:
        picture = linked(args.plot, args.markdown, "Nanoseconds per trial against the number of points")
        aims = ["### Aims of trials and laws", "", *aims]
        publish(args.markdown, TITLE, section("bench_sectors.py", HOW, PACKAGES, aims, bench.pages, picture))
    return 0


if __name__ == "__main__":
    sys.exit(main())
