"""Time the maps beside the packages that offer them, and check the aims.

One process, one thread unless a line says otherwise. All contestants of a case are interleaved: every round times each
of them once, and a ratio is the median over rounds of the ratios within a round, so that a slow spell of the machine
hits both sides. Where a peer takes `out=`, both sides write into an array made beforehand; where it does not, both are
plain calls (columns and peers marked *). Times are medians, in nanoseconds per element.

    python benches/bench_maps.py                       everything (minutes)
    python benches/bench_maps.py --quick --only softmax
    python benches/bench_maps.py --markdown docs/benchmarks.md --plot docs/_static/benchmarks.png
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from _bench import Aim, Clock, cores, linked, machine, note, optional, progress, ratio, verdicts

import unitmass as um

Array = np.ndarray
SHAPES = [(160_000, 10), (10_000, 128), (2_000, 1_000), (64, 32_000), (3, 1_000_000)]
SCORES: dict[str, Callable[[np.random.Generator, tuple[int, int]], Array]] = {
    "normal(0, 2)": lambda rng, shape: rng.normal(0, 2, shape),
    "uniform(0, 1)": lambda rng, shape: rng.uniform(0, 1, shape),
    "normal(0, .01)": lambda rng, shape: rng.normal(0, 0.01, shape),
}
NORMAL = "normal(0, 2)"
PACKAGES = ("numpy", "scipy", "torch", "fastprox", "entmax")


torch, scipy_special, fastprox, entmax = map(optional, ("torch", "scipy.special", "fastprox", "entmax"))
if torch is not None:
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)


# --- who takes part ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Peer:
    """One implementation of a map. `prepare(x, out)` returns the call to time; `out` is None for plain calls."""

    name: str
    prepare: Callable[[Array, Array | None], Callable[[], object]]
    takes_out: bool
    slow: bool = False


def ours(f: Callable[..., Array], **options) -> Callable[[Array, Array | None], Callable[[], object]]:
    return lambda x, out: lambda: f(x, out=out, workers=1, **options)


def of_torch(f: Callable[..., object], takes_out: bool = False, **options):
    def prepare(x: Array, out: Array | None) -> Callable[[], object]:
        tensor = torch.from_numpy(x)
        if not takes_out:
            return lambda: f(tensor, dim=-1, **options)
        target = torch.from_numpy(out)
        return lambda: f(tensor, -1, out=target)

    return prepare


def peers_of(name: str) -> list[Peer]:
    """Whatever is installed and does the same job."""
    peers = []
    if name in ("softmax", "log_softmax"):
        if torch is not None:
            peers.append(Peer("torch", of_torch(getattr(torch, name), takes_out=True), True))
        if scipy_special is not None:
            f = getattr(scipy_special, name)
            peers.append(Peer("scipy", lambda x, out: lambda: f(x, axis=-1), False))
    if name in ("sparsemax", "project_simplex") and fastprox is not None:
        project = fastprox.project_simplex
        peers.append(Peer("fastprox", lambda x, out: lambda: project(x, 1.0, out=out, threads=1), True))
    if entmax is not None and torch is not None:
        if name == "sparsemax":
            peers.append(Peer("entmax", of_torch(entmax.sparsemax), False, slow=True))
        if name == "entmax 1.5":
            peers.append(Peer("entmax", of_torch(entmax.entmax15), False, slow=True))
        if name == "entmax 1.3":
            peers.append(Peer("entmax_bisect", of_torch(entmax.entmax_bisect, alpha=1.3), False, slow=True))
    return peers


MAPS: dict[str, tuple[Callable[..., Array], dict[str, float]]] = {
    "softmax": (um.softmax, {}),
    "log_softmax": (um.log_softmax, {}),
    "sparsemax": (um.sparsemax, {}),
    "project_simplex": (um.project_simplex, {"total": 1.0}),
    "entmax 1.5": (um.entmax, {"alpha": 1.5}),
    "entmax 1.3": (um.entmax, {"alpha": 1.3}),
}


# --- cases ------------------------------------------------------------------------------------------------------------


@dataclass
class Case:
    """One map on one shape and kind of scores: seconds per call and round, by contestant."""

    map: str
    shape: tuple[int, int]
    scores: str
    times: dict[str, list[float]]
    peers: list[Peer] = field(default_factory=list)

    def ns(self, name: str) -> float:
        """Nanoseconds per element."""
        return statistics.median(self.times[name]) * 1e9 / math.prod(self.shape)

    def against(self, peer: Peer) -> float:
        """How many times longer the peer takes."""
        return ratio(self.times[peer.name], self.times["unitmass" if peer.takes_out else "unitmass*"])


def measure(name: str, shape: tuple[int, int], scores: str, clock: Clock) -> Case:
    f, options = MAPS[name]
    x = SCORES[scores](np.random.default_rng(0), shape).astype(np.float32)
    out = np.zeros_like(x)
    peers = peers_of(name)
    run = ours(f, **options)
    calls = {"copy": lambda: np.copyto(out, x), "unitmass": run(x, out)}
    if any(not p.takes_out for p in peers):
        calls["unitmass*"] = run(x, None)
    for peer in peers:
        calls[peer.name] = peer.prepare(x, np.zeros_like(x) if peer.takes_out else None)
        worst = float(np.abs(np.asarray(calls[peer.name]()) - np.asarray(calls["unitmass"]())).max())
        if not worst < 1e-3 * (1 + float(np.abs(out).max())):
            note(f"{peer.name} and unitmass differ by {worst:.2g}: {name}, {shape[0]} x {shape[1]}, {scores}")
    return Case(name, shape, scores, clock.interleave(calls, [p.name for p in peers if p.slow]), peers)


# --- the aims ---------------------------------------------------------------------------------------------------------


def aims_of_cases(cases: list[Case]) -> list[Aim]:
    torch_aim = Aim("softmax beside torch: 1.2x at n ≥ 128, 8x at n = 10")
    fastprox_aim = Aim("sparsemax, project_simplex beside fastprox: 3x at n ≤ 32000, 1.7x at 1M")
    entmax_aim = Aim("sparsemax, entmax 1.5 beside entmax: 60x at n ≥ 128, 12x at n = 10")
    bisect_aim = Aim("entmax 1.3 beside entmax_bisect: 40x")
    copy_aim = Aim("any map beside np.copyto, normal rows, n = 1000: at most 1.7x its time", least=False)
    for case in cases:
        n = case.shape[1]
        where = f"{case.map}, {case.shape[0]} x {n}, {case.scores}"
        for peer in case.peers:
            figure = case.against(peer)
            if peer.name == "torch" and case.map == "softmax":
                torch_aim.add(figure, 8 if n == 10 else 1.2, where)
            elif peer.name == "fastprox":
                fastprox_aim.add(figure, 3 if n <= 32_000 else 1.7, where)
            elif peer.name == "entmax":
                entmax_aim.add(figure, 12 if n == 10 else 60, where)
            elif peer.name == "entmax_bisect":
                bisect_aim.add(figure, 40, where)
        if n == 1000 and case.scores == NORMAL:
            copy_aim.add(ratio(case.times["unitmass"], case.times["copy"]), 1.7, where)
    return [torch_aim, fastprox_aim, entmax_aim, bisect_aim, copy_aim]


def overhead(clock: Clock, lines: list[str]) -> Aim:
    """Plain calls on ten numbers."""
    aim = Aim("softmax of 10 numbers beside scipy.special.softmax: 5x")
    x = np.random.default_rng(0).normal(0, 2, 10)
    calls: dict[str, Callable[[], object]] = {"softmax": lambda: um.softmax(x), "sparsemax": lambda: um.sparsemax(x)}
    calls["entmax"] = lambda: um.entmax(x)
    if scipy_special is not None:
        calls["scipy.special.softmax"] = lambda: scipy_special.softmax(x)
    times = clock.interleave(calls)
    lines += ["| call on 10 numbers | µs |", "|---|---|"]
    lines += [f"| {name} | {statistics.median(t) * 1e6:.2f} |" for name, t in times.items()]
    if scipy_special is not None:
        aim.add(ratio(times["scipy.special.softmax"], times["softmax"]), 5, "softmax, 10 float64")
    return aim


def two_workers(names: list[str], shapes: list[tuple[int, int]], clock: Clock, lines: list[str]) -> Aim:
    """Two workers beside one. The aim is for work that is not memory-bound: over three times a copy's time on one."""
    aim = Aim("two workers beside one: 1.6x where one takes over 3x np.copyto's time")
    if cores() < 2:
        lines.append("Two workers: not measured, one core.")
        return aim
    lines += ["| two workers | rows x n | one, ns | two, ns | gain | one beside copy |", "|---|---|---|---|---|---|"]
    for name in names:
        f, options = MAPS[name]
        for shape in shapes:
            x = SCORES[NORMAL](np.random.default_rng(0), shape).astype(np.float32)
            out = np.zeros_like(x)
            times = clock.interleave(
                {
                    "copy": lambda x=x, out=out: np.copyto(out, x),
                    "one": lambda x=x, out=out, f=f, o=options: f(x, out=out, workers=1, **o),
                    "two": lambda x=x, out=out, f=f, o=options: f(x, out=out, workers=2, **o),
                }
            )
            gain, bound = ratio(times["one"], times["two"]), ratio(times["one"], times["copy"])
            one, two = (statistics.median(times[k]) * 1e9 / x.size for k in ("one", "two"))
            lines.append(f"| {name} | {shape[0]} x {shape[1]} | {one:.2f} | {two:.2f} | {gain:.2f}x | {bound:.1f}x |")
            if bound > 3:
                aim.add(gain, 1.6, f"{name}, {shape[0]} x {shape[1]}")
    return aim


def doubles(names: list[str], shapes: list[tuple[int, int]], clock: Clock, lines: list[str]) -> Aim:
    """float64 beside float32 on the same scores."""
    aim = Aim("float64 beside float32: at most 2.3x its time", least=False)
    lines += ["| float64 | rows x n | float32, ns | float64, ns | ratio |", "|---|---|---|---|---|"]
    for name in names:
        f, options = MAPS[name]
        for shape in shapes:
            x = SCORES[NORMAL](np.random.default_rng(0), shape)
            pairs = {"f4": x.astype(np.float32), "f8": x}
            outs = {k: np.zeros_like(v) for k, v in pairs.items()}
            calls = {
                k: lambda v=v, out=outs[k], f=f, o=options: f(v, out=out, workers=1, **o) for k, v in pairs.items()
            }
            times = clock.interleave(calls)
            figure = ratio(times["f8"], times["f4"])
            single, double = (statistics.median(times[k]) * 1e9 / x.size for k in ("f4", "f8"))
            lines.append(f"| {name} | {shape[0]} x {shape[1]} | {single:.2f} | {double:.2f} | {figure:.2f}x |")
            aim.add(figure, 2.3, f"{name}, {shape[0]} x {shape[1]}")
    return aim


# --- what is written --------------------------------------------------------------------------------------------------


def table(name: str, cases: list[Case]) -> list[str]:
    peers, plain = cases[0].peers, "unitmass*" in cases[0].times
    head = ["rows x n", "scores", "copy", "unitmass", *([r"unitmass\*"] if plain else [])]
    for peer in peers:
        head += [peer.name + ("" if peer.takes_out else r"\*"), "ratio"]
    lines = [f"### {name}", "", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for case in cases:
        cells = [f"{case.shape[0]} x {case.shape[1]}", case.scores]
        cells += [f"{case.ns(k):.2f}" for k in ("copy", "unitmass", *(["unitmass*"] if plain else []))]
        for peer in peers:
            cells += [f"{case.ns(peer.name):.2f}", f"**{case.against(peer):.1f}x**"]
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, ""]


HOW = """\
float32, one thread, nanoseconds per element (median); contestants interleaved in one process, ratios taken within a
round, then their median: how many times longer the peer takes. `copy` is `np.copyto` of the same arrays. torch and
fastprox write into an output made beforehand, as `unitmass` does beside them; scipy and entmax take no `out=`, so they
are plain calls, and the ratio is to the plain call of `unitmass` (marked \\*)."""


def draw(path: str, names: list[str], clock: Clock) -> None:
    """Nanoseconds per element against the length of a row, a million normal scores each."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    lengths = [10, 32, 100, 316, 1_000, 3_162, 10_000, 31_623, 100_000, 316_228, 1_000_000]
    rows = -(-len(names) // 3)
    figure, axes = plt.subplots(
        rows, min(3, len(names)), figsize=(4.4 * min(3, len(names)), 3.6 * rows), squeeze=False, sharey=True
    )
    for name, ax in zip(names, axes.flat, strict=False):
        cases = [measure(name, (max(1, 1_000_000 // n), n), NORMAL, clock) for n in lengths]
        for who in cases[0].times:
            if who == "unitmass*":
                continue
            style = {"copy": {"color": "0.6", "ls": ":"}, "unitmass": {"color": "C3", "lw": 2.5}}.get(who, {"lw": 1.2})
            ax.loglog(lengths, [c.ns(who) for c in cases], label=who, **style)
        ax.set(title=name, xlabel="length of a row, n")
        ax.grid(alpha=0.3)
        ax.legend(fontsize=8)
    for ax in axes[:, 0]:
        ax.set_ylabel("ns per element")
    for ax in list(axes.flat)[len(names) :]:
        ax.set_visible(False)
    figure.suptitle("float32, one thread, normal(0, 2) scores: lower is faster", fontsize=10)
    figure.tight_layout()
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    print(f"plot: {path}", file=sys.stderr)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="three short rounds: a look, not a measurement")
    parser.add_argument("--only", metavar="MAP", action="append", choices=MAPS, help=f"one of: {', '.join(MAPS)}")
    parser.add_argument("--markdown", metavar="FILE", help="write the tables, the machine and the command to FILE")
    parser.add_argument("--plot", metavar="PNG", help="draw ns per element against n")
    args = parser.parse_args(argv)
    clock = Clock(3, 1, 0.01) if args.quick else Clock(11, 3, 0.03)
    names = args.only or list(MAPS)

    cases, pages = [], []
    for name in names:
        mine = []
        for shape in SHAPES:
            for scores in SCORES:
                progress(f"{name}, {shape[0]} x {shape[1]}, {scores}")
                mine.append(measure(name, shape, scores, clock))
        progress()
        cases += mine
        pages += table(name, mine)
        print("\n".join(table(name, mine)))

    extra: list[str] = []
    some = [s for s in SHAPES if s[1] in (10, 128, 1_000, 1_000_000)]
    aims = aims_of_cases(cases)
    aims.append(overhead(clock, extra))
    extra.append("")
    aims.append(two_workers(names, some, clock, extra))
    extra.append("")
    aims.append(doubles(names, some, clock, extra))
    rows = verdicts(aims)
    print("\n".join([*extra, "", *rows]))

    if args.plot:
        draw(args.plot, names, clock)
    if args.markdown:
        page = ["# Benchmarks", "", HOW, "", *machine("bench_maps.py", PACKAGES), ""]
        if args.plot:
            page += [linked(args.plot, args.markdown, "Nanoseconds per element against the length of a row"), ""]
        page += ["## Aims", "", *rows, "", "## Beside the other packages", "", *pages]
        page += ["## Calls, workers, float64", "", *extra, ""]
        Path(args.markdown).write_text("\n".join(page).replace("\n\n\n", "\n\n"), encoding="utf-8")
        print(f"table: {args.markdown}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
