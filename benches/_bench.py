"""What the benchmarks share: turns on a clock, aims, and the description of the machine."""

from __future__ import annotations

import datetime
import importlib
import importlib.metadata
import os
import platform
import shlex
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import unitmass as um


def note(text: str) -> None:
    print(f"note: {text}", file=sys.stderr)


def progress(text: str = "") -> None:
    """Rewrite the last line of a terminal."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def optional(name: str):
    """Import a peer, or say that it is left out."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        wants = " (it needs Python >= 3.12)" if name == "fastprox" and sys.version_info < (3, 12) else ""
        note(f"{name} is left out: {error}{wants}")
        return None


@dataclass
class Clock:
    """How long to look."""

    rounds: int
    slow_rounds: int
    sample: float  # seconds a contestant gets in a round; 0 for one call, and none to warm up

    def interleave(self, calls: dict[str, Callable[[], object]], slow: Iterable[str] = ()) -> dict[str, list[float]]:
        """Seconds a call, one figure per round and contestant; the slow ones sit out the later rounds."""
        repeats = dict.fromkeys(calls, 1)
        for name, call in calls.items() if self.sample else ():
            call()  # pages, caches and thread pools are made here
            start = time.perf_counter()
            call()
            once = max(time.perf_counter() - start, 1e-7)
            repeats[name] = max(1, round(self.sample / once))
        slow, times = set(slow), defaultdict(list)
        for turn in range(self.rounds):
            for name, call in calls.items():
                if name in slow and turn >= self.slow_rounds:
                    continue
                start = time.perf_counter()
                for _ in range(repeats[name]):
                    call()
                times[name].append((time.perf_counter() - start) / repeats[name])
        return times


def ratio(numerator: list[float], denominator: list[float]) -> float:
    """Median of the ratios within a round."""
    return statistics.median(a / b for a, b in zip(numerator, denominator, strict=False))


@dataclass
class Aim:
    """A line of the list of aims: every figure must be at least (or at most) its limit."""

    text: str
    least: bool = True
    found: list[tuple[float, float, str]] = field(default_factory=list)  # figure, limit, where
    unit: str = "x"

    def add(self, figure: float, limit: float, where: str) -> None:
        """Take note of a measurement."""
        self.found.append((figure, limit, where))

    def row(self) -> str:
        """Render the figure closest to its limit, or furthest beyond."""
        if not self.found:
            return f"| {self.text} | | | not measured |"
        margin = [(f / m if self.least else m / f, f, m, w) for f, m, w in self.found]
        worst, figure, limit, where = min(margin)
        missed = sum(m[0] < 1 for m in margin)
        verdict = "pass" if worst >= 1 else f"FAIL ({missed} of {len(margin)})"
        sign = "≥" if self.least else "≤"
        return f"| {self.text} | {figure:.2f}{self.unit} ({sign} {limit:g}{self.unit}) | {where} | {verdict} |"


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1))


def cpu() -> str:
    """Name of the processor, as well as the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def machine(script: str, packages: Iterable[str]) -> list[str]:
    config = um.show_config(mode="dicts")
    versions = [f"Python {platform.python_version()}", f"unitmass {um.__version__}"]
    for package in packages:
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"{package} absent")
    return [
        f"- Machine: {cpu()}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}; "
        f"SIMD level {config['simd']['level']}.",
        f"- Versions: {', '.join(versions)}.",
        f"- Date: {datetime.datetime.now(datetime.UTC).date().isoformat()}.",
        f"- Command: `{shlex.join(['python', f'benches/{script}', *sys.argv[1:]])}`.",
    ]


def verdicts(aims: Iterable[Aim]) -> list[str]:
    """Render the list of aims."""
    return ["| aim | worst | where | |", "|---|---|---|---|", *(aim.row() for aim in aims)]


def section(
    script: str, how: str, packages: Iterable[str], aims: Iterable[str], pages: Iterable[str], picture: str = ""
) -> list[str]:
    """Put together what a script writes: how, where and when, a picture, the aims, the tables."""
    return [how, "", *machine(script, packages), "", *([picture, ""] if picture else []), *aims, "", *pages]


def linked(plot: str | None, file: str, text: str) -> str:
    """Show a picture on a page, if there is one."""
    return f"![{text}]({os.path.relpath(plot, Path(file).parent)})" if plot else ""


def publish(file: str, title: str, lines: Iterable[str]) -> None:
    """Write a section into a page, in the place of an earlier one or after what is there."""
    target = Path(file)
    page = target.read_text(encoding="utf-8") if target.exists() else "# Benchmarks\n"
    before, _, earlier = page.partition(f"\n{title}\n")
    _, mark, after = earlier.partition("\n## ")
    section = "\n".join([before.rstrip(), "", title, "", *lines]).replace("\n\n\n", "\n\n").rstrip() + "\n"
    target.write_text(section + mark + after, encoding="utf-8")
    print(f"table: {file}", file=sys.stderr)
