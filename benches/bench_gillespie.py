"""Time stochastic simulation beside the packages that offer it, and check the aims.

One process, one worker unless a line says otherwise. All contestants of a work are interleaved: every round lets each
of them simulate its share of trajectories, with new seeds, and a ratio is the median over rounds of the ratios within a
round, so that a slow spell of the machine hits both sides. Times are medians, in nanoseconds per event: unitmass, the
numba loop and BioNetGen count their events; for the others it is the mean number of events of a trajectory of unitmass,
which simulates the same law. That it is the same law is watched: final counts that differ print a warning.

    python benches/bench_gillespie.py                          everything that is generated here (minutes)
    python benches/bench_gillespie.py --quick --work vilar sir
    python benches/bench_gillespie.py --net multistate.net:1000 --net egfr_net.net:10:16
    python benches/bench_gillespie.py --markdown docs/benchmarks.md --plot docs/_static/benchmarks_gillespie.png
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
from _bench import Aim, Clock, cores, linked, note, optional, progress, publish, ratio, section, verdicts

import unitmass as um

Array = np.ndarray
WORKS = ("vilar", "sir", "net", "large", "engines", "workers", "memory")
PACKAGES = ("numpy", "rebop", "gillespy2", "libroadrunner", "numba", "bionetgen")
ENGINES = ("lockstep", "sparse", "next_reaction")

rebop, gillespy2, roadrunner, libsbml, numba, bionetgen = map(
    optional, ("rebop", "gillespy2", "roadrunner", "libsbml", "numba", "bionetgen")
)


# --- the networks -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Model:
    """A network of mass action, in a form that every contestant can be given; nothing in it takes two of a kind."""

    name: str
    initial: dict[str, int]
    params: dict[str, float]
    reactions: list[tuple[list[str], list[str], str]]  # reactants, products, name of the rate constant
    t: Array  # equally spaced, from 0

    def ours(self) -> um.ReactionNetwork:
        """Build it with the package."""
        net = um.ReactionNetwork(params=self.params)
        for name, count in self.initial.items():
            net.add_species(name, count)
        for takes, makes, rate in self.reactions:
            net.add_reaction(*({name: side.count(name) for name in side} for side in (takes, makes)), rate=rate)
        return net

    def to_bionetgen(self, path: Path) -> None:
        """Write it in the .net form."""
        index = {name: str(i) for i, name in enumerate(self.initial, 1)}
        lines = ["begin parameters", *(f" {i} {k} {v!r}" for i, (k, v) in enumerate(self.params.items(), 1))]
        lines += ["end parameters", "begin species"]
        lines += [f" {index[name]} {name}() {count}" for name, count in self.initial.items()]
        lines += ["end species", "begin reactions"]
        for i, (takes, makes, rate) in enumerate(self.reactions, 1):
            sides = (",".join(index[name] for name in side) or "0" for side in (takes, makes))
            lines.append(f" {i} {' '.join(sides)} {rate}")
        path.write_text("\n".join([*lines, "end reactions", "begin groups", "end groups", ""]))

    def to_sbml(self) -> str:
        """Write it in SBML, level 3."""
        document = libsbml.SBMLDocument(3, 1)
        model = document.createModel()
        box = model.createCompartment()
        box.setId("box")
        box.setSize(1)
        box.setConstant(True)
        for name, count in self.initial.items():
            species = model.createSpecies()
            species.setId(name)
            species.setCompartment("box")
            species.setInitialAmount(count)
            species.setHasOnlySubstanceUnits(True)
            species.setBoundaryCondition(False)
            species.setConstant(False)
        for name, value in self.params.items():
            parameter = model.createParameter()
            parameter.setId(name)
            parameter.setValue(value)
            parameter.setConstant(True)
        for i, (takes, makes, rate) in enumerate(self.reactions):
            reaction = model.createReaction()
            reaction.setId(f"r{i}")
            reaction.setReversible(False)
            reaction.setFast(False)
            for side, create in ((takes, reaction.createReactant), (makes, reaction.createProduct)):
                for name in dict.fromkeys(side):
                    reference = create()
                    reference.setSpecies(name)
                    reference.setStoichiometry(side.count(name))
                    reference.setConstant(True)
            reaction.createKineticLaw().setMath(libsbml.parseL3Formula("*".join([rate, *takes])))
        return libsbml.writeSBMLToString(document)


VILAR = """
    DA A > DAp : gA;   DAp > DA A : tA;   DR A > DRp : gR;   DRp > DR A : tR;   DAp > MA DAp : aAp;   DA > MA DA : aA
    MA > : dMA;        MA > A MA : bA;    DRp > MR DRp : aRp;   DR > MR DR : aR;   MR > : dMR;        MR > R MR : bR
    A R > C : gC;      C > R : dA;        A > : dA;          R > : dR
"""


def vilar() -> Model:
    """Build the circadian oscillator of Vilar, Kueh, Barkai & Leibler 2002."""
    params = dict(gA=1.0, tA=50.0, gR=1.0, tR=100.0, aAp=500.0, aA=50.0, dMA=10.0, bA=50.0)
    params |= dict(aRp=50.0, aR=0.01, dMR=0.5, bR=5.0, gC=2.0, dA=1.0, dR=0.2)
    reactions = []
    for text in VILAR.replace("\n", ";").split(";"):
        if text.strip():
            sides, rate = text.split(":")
            takes, makes = sides.split(">")
            reactions.append((takes.split(), makes.split(), rate.strip()))
    initial = dict.fromkeys(("DA", "DAp", "DR", "DRp", "MA", "MR", "A", "R", "C"), 0) | {"DA": 1, "DR": 1}
    return Model("Vilar oscillator", initial, params, reactions, np.linspace(0, 200, 201))


def sir() -> Model:
    reactions = [(["S", "I"], ["I", "I"], "beta"), (["I"], ["R"], "gamma")]
    return Model(
        "SIR",
        {"S": 999, "I": 1, "R": 0},
        {"beta": 1e-4, "gamma": 0.01},
        reactions,
        np.linspace(0, 250, 251),
    )


def chain(sites: int, t_end: float = 1.0) -> Model:
    """Build reaction and diffusion on a line: in every site A is supplied, A + B -> 2 B, B decays; both hop.

    8 sites - 4 reactions, of which an event changes about ten; it begins at the steady state, A = 45 and B = 22 a site.
    """
    reactions = []
    for i in range(sites):
        a, b = f"A{i}", f"B{i}"
        reactions += [([], [a], "supply"), ([], [b], "seed"), ([a, b], [b, b], "meet"), ([b], [], "decay")]
        for j in (i - 1, i + 1):
            if 0 <= j < sites:
                reactions += [([a], [f"A{j}"], "hop"), ([b], [f"B{j}"], "hop")]
    initial = {name: count for i in range(sites) for name, count in ((f"A{i}", 45), (f"B{i}", 22))}
    params = {"supply": 10.0, "seed": 1.0, "meet": 0.01, "decay": 0.5, "hop": 1.0}
    return Model(f"chain of {sites} sites", initial, params, reactions, np.linspace(0, t_end, 11))


def multisite(sites: int, t_end: float = 100.0) -> Model:
    """Build a receptor whose sites are phosphorylated by a kinase and freed by a phosphatase.

    In any order: each of 2^sites states binds an enzyme at each site, which leaves it or turns the site over. These are
    3 sites 2^sites reactions. The enzymes are hubs: binding one changes the propensities of half the bindings.
    """
    initial = {"K": 200, "P": 200} | {f"R{s}": 0 for s in range(2**sites)} | {"R0": 1000}
    reactions = []
    for state in range(2**sites):
        for site in range(sites):
            enzyme, bound = "P" if state >> site & 1 else "K", f"R{state}_{site}"
            initial[bound] = 0
            reactions.append(([enzyme, f"R{state}"], [bound], "kon"))
            reactions.append(([bound], [enzyme, f"R{state}"], "koff"))
            reactions.append(([bound], [enzyme, f"R{state ^ 1 << site}"], "kcat"))
    params = {"kon": 1e-3, "koff": 1.0, "kcat": 1.0}
    return Model(f"phosphorylation, {sites} sites", initial, params, reactions, np.linspace(0, t_end, 11))


# --- who takes part ---------------------------------------------------------------------------------------------------


@dataclass
class Contestant:
    """One implementation, ready to simulate n trajectories a call.

    `run(n, seed)` returns the final counts, shape (n, species), and the number of events where they are counted.
    `start()`, if there is one, is what a call spends before its first event, once for each trajectory.
    """

    name: str
    n: int
    run: Callable[[int, int], tuple[Array, float | None]]
    slow: bool = False
    start: Callable[[], object] | None = None
    remark: str = ""
    whole: bool = True  # whether it simulates all of the time, so that final counts compare
    finals: list[Array] = field(default_factory=list)
    events: list[float | None] = field(default_factory=list)

    def __call__(self) -> None:
        """Simulate, with a seed of its own."""
        final, events = self.run(self.n, 1 + len(self.finals) * self.n)
        self.finals.append(np.asarray(final, float))
        self.events.append(events)


def ours(
    net: um.ReactionNetwork, t: Array, n: int, name: str = "unitmass", method: str = "auto", workers: int = 1
) -> Contestant:
    def run(n: int, seed: int) -> tuple[Array, float]:
        ensemble = net.simulate(t=t, n=n, rng=seed, method=method, workers=workers)
        return ensemble.counts[:, -1], float(ensemble.n_events.sum())

    return Contestant(name, n, run, remark=net._method(method))


def of_rebop(model: Model, n: int, sparse: bool) -> Contestant:
    """Loop over trajectories, as its users do: it has no ensembles."""
    system = rebop.Gillespie()
    for takes, makes, rate in model.reactions:
        system.add_reaction(model.params[rate], takes, makes)
    steps, t_end = len(model.t) - 1, float(model.t[-1])

    def run(n: int, seed: int) -> tuple[Array, None]:
        final = np.empty((n, len(model.initial)))
        for i in range(n):
            run = system.run(model.initial, t_end, steps, rng=seed + i, sparse=sparse)
            final[i] = [run[name].values[-1] for name in model.initial]
        return final, None

    return Contestant("rebop, sparse" if sparse else "rebop, default", n, run)


def of_gillespy2(model: Model, n: int) -> Contestant:
    """Use the solver in C++, which compiles the model; the remark says how long that took."""
    gillespy2.log.setLevel("ERROR")
    theirs = gillespy2.Model(name="model")
    theirs.add_species([gillespy2.Species(name=k, initial_value=v, mode="discrete") for k, v in model.initial.items()])
    theirs.add_parameter([gillespy2.Parameter(name=k, expression=str(v)) for k, v in model.params.items()])
    for i, (takes, makes, rate) in enumerate(model.reactions):
        sides = ({name: side.count(name) for name in side} for side in (takes, makes))
        reactants, products = sides
        theirs.add_reaction(
            gillespy2.Reaction(name=f"r{i}", reactants=reactants, products=products, rate=theirs.listOfParameters[rate])
        )
    theirs.timespan(gillespy2.TimeSpan(model.t))
    # It looks for SCons in the interpreter beneath a virtual environment: show the way.
    path, begin = os.environ.get("PYTHONPATH"), time.perf_counter()
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (path, str(Path(gillespy2.__file__).parents[1]))))
    try:
        solver = gillespy2.SSACSolver(model=theirs)
    finally:
        os.environ.pop("PYTHONPATH") if path is None else os.environ.update(PYTHONPATH=path)
    took = time.perf_counter() - begin

    def run(n: int, seed: int) -> tuple[Array, None]:
        results = solver.run(number_of_trajectories=n, seed=seed)
        return np.array([[one[name][-1] for name in model.initial] for one in results]), None

    return Contestant("GillesPy2, C++", n, run, slow=True, remark=f"compiling takes {took:.1f} s more")


def of_roadrunner(model: Model, n: int) -> Contestant:
    runner = roadrunner.RoadRunner(model.to_sbml())
    runner.setIntegrator("gillespie")
    runner.integrator.variable_step_size = False
    runner.timeCourseSelections = ["time", *model.initial]

    def run(n: int, seed: int) -> tuple[Array, None]:
        final = np.empty((n, len(model.initial)))
        runner.integrator.seed = seed
        for i in range(n):
            runner.resetToOrigin()
            final[i] = np.asarray(runner.simulate(0, float(model.t[-1]), len(model.t)))[-1, 1:]
        return final, None

    return Contestant("libRoadRunner", n, run, slow=True)


def of_numba(model: Model, n: int, net: um.ReactionNetwork) -> Contestant:
    """Write the loop that one would write for this very network: counts and propensities in registers.

    The most frequent reactions come first, and an event evaluates the propensities that it changes, no others.
    """
    fired = net.events(t_max=float(model.t[-1]), n=1, rng=1).reaction
    order = np.argsort(-np.bincount(fired, minlength=len(model.reactions)), kind="stable")
    reactions = [model.reactions[j] for j in order]
    place = {name: i for i, name in enumerate(model.initial)}

    def propensity(j: int) -> str:
        takes, _, rate = reactions[j]
        return f"a{j} = " + " * ".join([repr(model.params[rate]), *(f"x{place[name]}" for name in takes)])

    def total(j: int, k: int) -> str:
        return f"a{j}" if k - j == 1 else f"({total(j, (j + k) // 2)} + {total((j + k) // 2, k)})"

    begin = [f"x{place[name]} = {float(count)}" for name, count in model.initial.items()]
    begin += [propensity(j) for j in range(len(reactions))]
    branches = []
    for j, (takes, makes, _) in enumerate(reactions):
        changes = {name: makes.count(name) - takes.count(name) for name in {*takes, *makes}}
        changes = {name: by for name, by in sorted(changes.items()) if by}
        steps = [f"x{place[name]} += {float(by)}" for name, by in changes.items()]
        steps += [propensity(k) for k, other in enumerate(reactions) if changes.keys() & set(other[0])]
        branches += [f"u -= a{j}", "if u < 0.0:", *(f"    {step}" for step in [*steps, "continue"])]
    lines = [
        "def loop(seed, n, grid, counts):",
        "    np.random.seed(seed)",
        "    events = 0",
        "    for i in range(n):",
        *(f"        {line}" for line in begin),
        "        t, k = 0.0, 0",
        "        while True:",
        f"            total = {total(0, len(reactions))}",
        "            t = t - math.log(1.0 - np.random.random()) / total if total > 0.0 else math.inf",
        "            while k < grid.size and grid[k] < t:",
        *(f"                counts[i, k, {s}] = x{s}" for s in place.values()),
        "                k += 1",
        "            if k == grid.size:",
        "                break",
        "            events += 1",
        "            u = np.random.random() * total",
        *(f"            {line}" for line in branches),
        "    return events",
    ]
    names: dict[str, object] = {"np": np, "math": math}
    exec("\n".join(lines), names)
    loop = numba.njit(names["loop"])

    def run(n: int, seed: int) -> tuple[Array, float]:
        counts = np.empty((n, len(model.t), len(place)), np.int64)
        events = loop(seed, n, model.t, counts)
        return counts[:, -1], float(events)

    start = time.perf_counter()
    run(1, 1)
    return Contestant("numba loop", n, run, remark=f"compiling takes {time.perf_counter() - start:.1f} s more")


@cache
def run_network() -> str | None:
    """Find BioNetGen's simulator, which comes inside the package."""
    if bionetgen is None:
        return None
    system = {"linux": "linux", "darwin": "mac", "win32": "win"}.get(sys.platform, "linux")
    folder = Path(bionetgen.__file__).parent / f"bng-{system}" / "bin"
    found = shutil.which("run_network", path=str(folder))
    if found is None:
        note(f"run_network is left out: not in {folder}")
    return found


def of_bionetgen(path: Path, folder: Path, t: Array, n: int, patience: float) -> Contestant | None:
    """Run a process for each trajectory; reading the file and setting up are timed apart, and taken off."""
    local = folder / "f.net"
    shutil.copyfile(path, local)

    def call(seed: int, step: float, steps: int, timeout: float | None = None) -> float:
        command = [run_network(), "-p", "ssa", "-h", str(seed), "--cdat", "0", "--fdat", "0", "-e", "-g", "f.net"]
        command += ["f.net", repr(float(step)), str(steps)]
        ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True, timeout=timeout)
        return float(ran.stdout.partition("TOTAL STEPS:")[2].split(maxsplit=1)[0])

    step, share = float(t[1] - t[0]), 1.0
    try:
        times = []
        for until in (1e-9, step / 10):
            begin = time.perf_counter()
            call(1, until, 1, patience)
            times.append(time.perf_counter() - begin)
        if (times[1] - times[0]) * 10 * (len(t) - 1) > 30:
            share = 0.1 / (len(t) - 1)
            note(f"run_network on {path.stem}: only the first {share:g} of the time, as it is slow")
            n = 1
    except subprocess.TimeoutExpired:
        note(f"run_network is left out on {path.stem}: it needs more than {patience:g} s to begin")
        return None
    except (subprocess.CalledProcessError, IndexError) as error:
        note(f"run_network is left out on {path.stem}: {error}")
        return None

    def run(n: int, seed: int) -> tuple[Array, float]:
        final, events = [], 0.0
        for i in range(n):
            events += call(seed + i, step * share, len(t) - 1)
            final.append(np.fromstring((folder / "f.cdat").read_text().splitlines()[-1], sep=" ")[1:])
        return np.array(final), events

    return Contestant("run_network", n, run, slow=True, start=lambda: call(1, 1e-9, 1), whole=share == 1)


# --- timing -----------------------------------------------------------------------------------------------------------


@dataclass
class Race:
    """What contestants took, a figure for each round: seconds for each trajectory and each event."""

    contestants: list[Contestant]
    events: float  # of a trajectory, on average
    seconds: dict[str, list[float]]
    starts: dict[str, float]
    per_event: dict[str, list[float]]

    def ns(self, name: str) -> float:
        """Nanoseconds per event."""
        return statistics.median(self.per_event[name]) * 1e9

    def us(self, name: str) -> float:
        """Microseconds per trajectory."""
        return statistics.median(self.seconds[name]) * 1e6

    def against(self, name: str) -> float:
        """How many times longer an event takes than ours."""
        return ratio(self.per_event[name], self.per_event[self.contestants[0].name])


def race(where: str, contestants: list[Contestant], clock: Clock, alike: bool = True) -> Race:
    """Let each take its turn in every round; the first is ours, and counts events. Alike: all for the same time."""
    calls: dict[str, Callable[[], object]] = {}
    for one in contestants:
        if one.start is None:
            one.run(min(2, one.n), 987_654)  # what is loaded, compiled or allocated once
        else:
            calls[f"{one.name} start"] = one.start
        calls[one.name] = one
    slow = {name for one in contestants if one.slow for name in (one.name, f"{one.name} start")}
    progress(where)
    times = clock.interleave(calls, slow)
    progress()
    mine = contestants[0]
    mean = sum(mine.events) / (mine.n * len(mine.events))
    seconds, per_event, starts = {}, {}, {}
    for one in contestants:
        starts[one.name] = statistics.median(times[f"{one.name} start"]) if one.start else 0.0
        seconds[one.name] = [max(t / one.n - starts[one.name], 0.0) for t in times[one.name]]
        counted = [mean if e is None else e / one.n for e in one.events]
        per_event[one.name] = [s / e for s, e in zip(seconds[one.name], counted, strict=True)]
        if alike and one.whole and one is not mine:
            same_law(where, mine, one)
    return Race(contestants, mean, seconds, starts, per_event)


def same_law(where: str, mine: Contestant, other: Contestant) -> None:
    """Warn where the means of final counts are more than 6 standard errors apart: events of another law do not compare.

    Species that are too rare for the normal law are left out.
    """
    a, b = np.concatenate(mine.finals), np.concatenate(other.finals)
    variance = a.var(axis=0)
    error = np.sqrt(variance * (1 / len(a) + 1 / len(b)))
    z = np.abs(a.mean(axis=0) - b.mean(axis=0)) / np.where(error > 0, error, 1)
    z[(variance > 0) & (len(b) * variance < 25)] = 0
    if z.max() > 6:
        note(
            f"WARNING, {where}: {other.name} is of another law than {mine.name}: in species {int(z.argmax())} the mean "
            f"final counts, {b.mean(axis=0)[z.argmax()]:g} and {a.mean(axis=0)[z.argmax()]:g}, are {z.max():.1f} "
            f"standard errors apart"
        )
    if other.events[0] is not None:
        n, m = (sum(c.events) / (c.n * len(c.events)) for c in (mine, other))
        if abs(m / n - 1) > 0.1:
            note(f"WARNING, {where}: {other.name} has {m:.6g} events a trajectory, {mine.name} {n:.6g}")


def sized(net: um.ReactionNetwork, t: Array, events: float) -> tuple[int, float]:
    """How many trajectories have about so many events, and how many events one has.

    Enough to fill the lanes of the lockstep engine, and no more than 64 MiB of counts.
    """
    pilot = net.simulate(t=t[-1:], n=2, rng=1, workers=1)
    each = max(1.0, float(pilot.n_events.mean()))
    most = max(4, 2**26 // (8 * len(t) * len(net.species)))
    return int(np.clip(events / each, 64 if pilot.method == "lockstep" else 4, most)), each


# --- the works --------------------------------------------------------------------------------------------------------


@dataclass
class Bench:
    """The settings, and what was found."""

    quick: bool
    clock: Clock
    nets: list[tuple[Path, float, int | None]]
    pages: list[str] = field(default_factory=list)
    points: dict[str, list[tuple[int, float]]] = field(default_factory=dict)  # reactions, ns per event, by contestant
    aims: dict[str, Aim] = field(
        default_factory=lambda: {
            "vilar": Aim("Vilar oscillator beside rebop, sparse: 7x"),
            "sir": Aim("SIR, 251 times, beside a loop over rebop: 30x"),
            "net": Aim("networks in files beside run_network: multistate 10x, multisite2 10x, EGFR 15x"),
            "large": Aim("over 50,000 reactions: at most 1,000 ns an event", least=False, unit=" ns"),
            "workers": Aim("two workers beside one: 1.6x"),
            "memory": Aim("moments of 1e6 SIR trajectories: at most 100 MiB of memory", least=False, unit=" MiB"),
        }
    )

    def write(self, *lines: str) -> None:
        """Print lines, and keep them for the page."""
        print("\n".join(lines))
        self.pages += lines

    def point(self, name: str, reactions: int, ns: float) -> None:
        """Keep a time for the plot."""
        self.points.setdefault(name, []).append((reactions, ns))

    def small(self, model: Model, peers: list[Callable[[], Contestant]], n: int) -> Race:
        """Run ours and every peer on one network, and write a row for each."""
        net = model.ours()
        found = race(model.name, [ours(net, model.t, n), *(make() for make in peers)], self.clock)
        size = len(model.reactions)
        self.write(
            f"### {model.name}: {len(model.initial)} species, {size} reactions, {len(model.t)} times to "
            f"{model.t[-1]:g}, {found.events:,.0f} events a trajectory",
            "",
            "| | trajectories a round | ns an event | µs a trajectory | ratio | |",
            "|---|---|---|---|---|---|",
        )
        for one in found.contestants:
            times = "" if one.name == "unitmass" else f"**{found.against(one.name):.1f}x**"
            cells = [one.name, f"{one.n:,}", f"{found.ns(one.name):.1f}", f"{found.us(one.name):,.1f}"]
            self.write(f"| {' | '.join(cells)} | {times} | {one.remark} |")
            if model.name != "SIR":  # where peers spend their time on what is not events
                self.point(one.name, size, found.ns(one.name))
        self.write("")
        return found

    def vilar(self) -> None:
        """Time a small network whose events count."""
        model, few = vilar(), self.quick
        peers: list[Callable[[], Contestant]] = []
        if rebop is not None:
            peers += [lambda: of_rebop(model, 2 if few else 16, True), lambda: of_rebop(model, 1 if few else 6, False)]
        if numba is not None:
            peers.append(lambda: of_numba(model, 2 if few else 16, model.ours()))
        if gillespy2 is not None:
            peers.append(lambda: of_gillespy2(model, 1 if few else 4))
        if roadrunner is not None and libsbml is not None:
            peers.append(lambda: of_roadrunner(model, 1 if few else 2))
        found = self.small(model, peers, 64 if few else 256)
        if rebop is not None:
            self.aims["vilar"].add(found.against("rebop, sparse"), 7, model.name)

    def sir(self) -> None:
        """Time short trajectories, where wrappers count."""
        model, few = sir(), self.quick
        peers: list[Callable[[], Contestant]] = []
        if rebop is not None:
            peers += [
                lambda: of_rebop(model, 50 if few else 300, True),
                lambda: of_rebop(model, 50 if few else 300, False),
            ]
        if numba is not None:
            peers.append(lambda: of_numba(model, 2_000 if few else 20_000, model.ours()))
        if gillespy2 is not None:
            peers.append(lambda: of_gillespy2(model, 50 if few else 500))
        if roadrunner is not None and libsbml is not None:
            peers.append(lambda: of_roadrunner(model, 50 if few else 300))
        found = self.small(model, peers, 20_000)
        if rebop is not None:
            fastest = min(found.against(name) for name in ("rebop, sparse", "rebop, default"))
            self.aims["sir"].add(fastest, 30, "the faster of rebop's two forms")

    NETWORKS = (
        "| | species | reactions | events a trajectory | reading, s | compiling, s | engine | trajectories a round | "
        "unitmass, ns | run_network, ns | ratio | run_network's start, s |",
        "|" + "---|" * 12,
    )

    def network(
        self, name: str, make: Callable[[], um.ReactionNetwork], path: Path, t: Array, n: int | None, first: bool
    ) -> Race:
        """Run ours and run_network on one file, and write a row."""
        start = time.perf_counter()
        net = make()
        read = time.perf_counter()
        net._network()
        compiled = time.perf_counter()
        fitting, events = sized(net, t, 3e5 if self.quick else 2e7)
        n = n or fitting
        contestants = [ours(net, t, n)]
        with tempfile.TemporaryDirectory() as folder:
            if run_network() is not None:
                many = int(np.clip((5e4 if self.quick else 2e5) / events, 1, 50))
                theirs = of_bionetgen(path, Path(folder), t, many, 2 if self.quick else 20)
                contestants += [theirs] if theirs else []
            found = race(name, contestants, self.clock)
        size, mine = len(net.reactions), contestants[0]
        if first:
            self.write(*self.NETWORKS)
        cells = [name, f"{len(net.species):,}", f"{size:,}", f"{found.events:,.0f}", f"{read - start:.2f}"]
        cells += [f"{compiled - read:.2f}", mine.remark, f"{mine.n:,}", f"{found.ns('unitmass'):.1f}"]
        if len(contestants) > 1:
            cells += [f"{found.ns('run_network'):.0f}", f"**{found.against('run_network'):.1f}x**"]
            cells[-1] += "" if contestants[1].whole else r"\*"
            cells += [f"{found.starts['run_network']:.2f}"]
            self.point("run_network", size, found.ns("run_network"))
        else:
            cells += [""] * 3
        self.write(f"| {' | '.join(cells)} |")
        self.point("unitmass", size, found.ns("unitmass"))
        return found

    def net(self) -> None:
        """Time networks in files."""
        if not self.nets:
            note("networks in files: none is given (--net PATH:T_END)")
            return
        self.write("### Networks in BioNetGen's form, 21 times", "")
        for i, (path, t_end, n) in enumerate(self.nets):

            def make(path: Path = path) -> um.ReactionNetwork:
                return um.ReactionNetwork.from_bionetgen(path)

            name = f"{path.stem}, t = {t_end:g}"
            found = self.network(name, make, path, np.linspace(0, t_end, 21), n, i == 0)
            limit = {"multistate": 10, "multisite2": 10, "egfr_net": 15}.get(path.stem)
            if limit and "run_network" in found.seconds and found.contestants[1].whole:
                self.aims["net"].add(found.against("run_network"), limit, name)
        self.write("")

    def large(self) -> None:
        """Time networks of hundreds to tens of thousands of reactions."""
        models = [
            multisite(5),
            multisite(7),
            multisite(11, 50.0),
            chain(256, 10.0),
            chain(7285, 0.2 if self.quick else 1.0),
        ]
        self.write("### Large networks, 11 times", "")
        with tempfile.TemporaryDirectory() as folder:
            for i, model in enumerate(models):
                path = Path(folder) / f"{model.name.replace(' ', '_').replace(',', '')}.net"
                model.to_bionetgen(path)
                found = self.network(f"{model.name}, t = {model.t[-1]:g}", model.ours, path, model.t, None, i == 0)
                if len(model.reactions) > 50_000:
                    where = f"{model.name}, {len(model.reactions):,} reactions"
                    self.aims["large"].add(found.ns("unitmass"), 1000, where)
        self.write("")

    def engines(self) -> None:
        """Time the engines alone on chains: what `method="auto"` rests on."""
        sizes = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64, 128, 256, 512, 1024]
        if self.quick:
            sizes = [1, 4, 8, 16, 32, 128]
        self.write(
            "### The engines alone, on chains of 1 to 1,024 sites: ns an event",
            "",
            "| sites | reactions | lockstep | sparse | next_reaction | auto |",
            "|---|---|---|---|---|---|",
        )
        found: dict[str, list[float]] = {name: [] for name in ENGINES}
        reactions, chosen = [], []
        for sites in sizes:
            model = chain(sites)
            net, size = model.ours(), len(model.reactions)
            rate = float(net.simulate(t=[1.0], n=64, rng=1, workers=1).n_events.mean())
            budget = 1e5 if self.quick else 2e6
            contestants = []
            for name in ENGINES:
                # Long enough that a trajectory's start does not count; lockstep evaluates everything at any event.
                events = 3_000 if name == "lockstep" else max(20_000, 10 * size)
                n = int(np.clip(budget / events, 64 if name == "lockstep" else 4, 1_024))
                contestants.append(ours(net, np.array([0.0, events / rate]), n, name, name))
            timed = race(f"engines, {model.name}", contestants, self.clock, alike=False)
            for name in ENGINES:
                found[name].append(timed.ns(name))
                self.point(f"unitmass, {name}", size, found[name][-1])
            reactions.append(size)
            chosen.append(net._method("auto"))
            cells = [f"{sites:,}", f"{size:,}", *(f"{found[name][-1]:.1f}" for name in ENGINES), chosen[-1]]
            self.write(f"| {' | '.join(cells)} |")
        self.write("", crossing(reactions, found["lockstep"], found["sparse"], chosen), "")

    def workers(self) -> None:
        """Time two workers beside one."""
        if cores() < 2:
            self.write("Two workers: not measured, one core.", "")
            return
        self.write(
            "| two workers | trajectories | one, ns an event | two, ns an event | gain |", "|---|---|---|---|---|"
        )
        for model, n in ((vilar(), 512), (sir(), 20_000), (chain(256, 10.0), 16)):
            net = model.ours()
            n = max(n // 8, 8) if self.quick else n
            pair = [ours(net, model.t, n, name, workers=k) for k, name in ((1, "one"), (2, "two"))]
            found = race(f"two workers, {model.name}", pair, self.clock)
            gain = 1 / found.against("two")
            self.write(f"| {model.name} | {n:,} | {found.ns('one'):.1f} | {found.ns('two'):.1f} | {gain:.2f}x |")
            self.aims["workers"].add(gain, 1.6, model.name)
        self.write("")

    def memory(self) -> None:
        """Measure, in a fresh process, what many trajectories hold at most."""
        n = 50_000 if self.quick else 1_000_000
        ran = subprocess.run([sys.executable, "-c", MEMORY, str(n)], capture_output=True, text=True, check=True)
        before, after, seconds = map(float, ran.stdout.split())
        self.write(
            f"Moments of {n:,} SIR trajectories at 251 times, all workers: {after - before:.1f} MiB at most above the "
            f"{before:.1f} MiB of the interpreter with NumPy and unitmass, in {seconds:.1f} s.",
            "",
        )
        self.aims["memory"].add(after - before, 100, f"{n:,} trajectories")


MEMORY = """
import sys, time
import numpy as np
import unitmass as um

def peak():  # in MiB; ru_maxrss may be that of the process which started this one
    try:
        return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) / 2**10
    except (OSError, IndexError):
        import resource
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)

before, start = peak(), time.perf_counter()
net = um.ReactionNetwork("S + I -> 2 I @ 1e-4 \\n I -> R @ 0.01")
net.moments({"S": 999, "I": 1}, np.linspace(0, 250, 251), int(sys.argv[1]), 1)
print(before, peak(), time.perf_counter() - start)
"""


def crossing(reactions: list[int], lockstep: list[float], sparse: list[float], chosen: list[str]) -> str:
    """Say where two engines take the same time, and where the choice changes."""
    gap = np.log(np.array(lockstep) / np.array(sparse))
    over = np.flatnonzero(gap > 0)
    if not over.size or over[0] == 0:
        where = "Lockstep and sparse do not cross."
    else:
        j = over[0]
        share = -gap[j - 1] / (gap[j] - gap[j - 1])
        at = math.exp((1 - share) * math.log(reactions[j - 1]) + share * math.log(reactions[j]))
        where = f"Lockstep and sparse cross at about {at:.0f} reactions."
    fast = [size for size, name in zip(reactions, chosen, strict=True) if name == "lockstep"]
    slow = [size for size, name in zip(reactions, chosen, strict=True) if name != "lockstep"]
    taken = f'method="auto" takes lockstep up to {max(fast, default=0):,} reactions here'
    taken += f", and sparse from {min(slow):,}." if slow else "."
    # By least squares of the relative error: a part for the event, and a part for each reaction.
    size, time_of = np.array(reactions, float), np.array(lockstep)
    fixed, each = np.linalg.lstsq(np.stack([1 / time_of, size / time_of], 1), np.ones(len(size)), rcond=None)[0]
    return f"{where} {taken} Lockstep takes about {fixed:.1f} + {each:.2f} ns times the reactions."


# --- what is written --------------------------------------------------------------------------------------------------


TITLE = "## Stochastic simulation"

HOW = """\
One worker, nanoseconds per event (median); contestants interleaved in one process, ratios taken within a round, then
their median: how many times longer the peer takes for an event. unitmass, the numba loop and BioNetGen's `run_network`
count their events; for other peers it is the mean number of events of a trajectory of unitmass, which has the same law.
Every contestant records the counts at the same times; compiling is stated apart, and so are reading and setting up for
`run_network`, whose time is that of its process less that of one with nothing to simulate (\\*: of slow runs, only the
beginning is simulated). rebop and libRoadRunner simulate one trajectory a call, in a loop; GillesPy2 takes all
trajectories of a round in one call. The numba loop is written for the network: propensities in registers, those that an
event changes evaluated, frequent reactions first."""


def draw(path: str, points: dict[str, list[tuple[int, float]]]) -> None:
    """Nanoseconds per event against the number of reactions."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(7.6, 4.8))
    peers = 0
    for name, found in points.items():
        x, y = zip(*sorted(found), strict=True)
        if name.startswith("unitmass, "):
            ax.loglog(x, y, label=f"{name} (chains)", lw=2, color=f"C{ENGINES.index(name[10:])}")
        elif name == "unitmass":
            ax.loglog(x, y, "o", label="unitmass, auto (all networks)", color="C3", ms=8, mec="k", zorder=5)
        else:
            ax.loglog(x, y, "sDv^P*X"[peers % 7], label=name, color=f"C{4 + peers % 6}", ms=7, alpha=0.9)
            peers += 1
    ax.set(
        xlabel="reactions in the network",
        ylabel="time per event (ns)",
        title="Exact stochastic simulation, one worker: lower is faster",
    )
    ax.grid(alpha=0.3, which="both", lw=0.4)
    ax.legend(fontsize=8, ncols=2)
    figure.tight_layout()
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    print(f"plot: {path}", file=sys.stderr)


def a_net(text: str) -> tuple[Path, float, int | None]:
    """Read PATH:T_END[:N]."""
    path, *numbers = text.rsplit(":", 2)
    if len(numbers) == 2 and Path(f"{path}:{numbers[0]}").exists():  # a colon in the path
        path, numbers = f"{path}:{numbers[0]}", numbers[1:]
    try:
        t_end, n = float(numbers[0]), int(numbers[1]) if len(numbers) > 1 else None
    except (IndexError, ValueError):
        raise argparse.ArgumentTypeError(f"expected PATH:T_END[:N], found {text!r}") from None
    if not Path(path).is_file():
        raise argparse.ArgumentTypeError(f"no such file: {path}")
    return Path(path), t_end, n


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="two short rounds: a look, not a measurement")
    parser.add_argument("--work", nargs="+", choices=WORKS, help="some of the works; all by default")
    parser.add_argument("--engines", action="store_true", help="the engines alone, as --work engines")
    parser.add_argument(
        "--net", metavar="PATH:T_END[:N]", action="append", type=a_net, default=[], help="a .net file (repeatable)"
    )
    parser.add_argument("--markdown", metavar="FILE", help="write the section of FILE with tables, machine and command")
    parser.add_argument("--plot", metavar="PNG", help="draw ns per event against the number of reactions")
    args = parser.parse_args(argv)
    bench = Bench(args.quick, Clock(2, 1, 0) if args.quick else Clock(5, 3, 0), args.net)
    works = ["engines"] if args.engines and not args.work else args.work or WORKS
    for work in works:
        getattr(bench, work)()
    aims = verdicts(bench.aims.values())
    print("\n".join(aims))
    if args.plot and bench.points:
        draw(args.plot, bench.points)
    if args.markdown:
        picture = linked(args.plot, args.markdown, "Nanoseconds per event against the number of reactions")
        aims = ["### Aims of simulation", "", *aims]
        publish(args.markdown, TITLE, section("bench_gillespie.py", HOW, PACKAGES, aims, bench.pages, picture))
    return 0


if __name__ == "__main__":
    sys.exit(main())
