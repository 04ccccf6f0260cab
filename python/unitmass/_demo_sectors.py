"""The third part of ``unitmass demo``: how often all ducks of a round pond are in one half of it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import numpy as np

from unitmass._estimate import SectorEstimate
from unitmass._gap_laws import TURN, CommonSector
from unitmass.sectors import common_sector, gap_counts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

__all__ = ["sectors_demo"]

_Method: TypeAlias = Literal["mc", "karp-luby"]

_SEED = 2022
_COLOURS = ["#4c72b0", "#dd8452", "#55a868", "#c44e52", "#8172b3", "#937860", "#da8bc3"]
_FLOCKS = (2, 3, 4, 6, 8, 12, 16)
_DEGREES = np.arange(15, 360, 15)
_PONDS = 4_000
_FEW = 5
"""Hits or misses to be expected at least where z and χ² are formed, whose laws are those of large numbers."""


class _Question(NamedTuple):
    ducks: int
    degrees: float
    trials: int
    method: _Method = "mc"
    density: str | None = None


_QUESTIONS = (
    _Question(4, 180, 10**8),
    _Question(4, 180, 10**6, density="vonmises:1"),
    _Question(16, 240, 10**7),
    _Question(1000, 324, 4_000, "karp-luby"),
)


class _Event(NamedTuple):
    """What the errors of both methods are measured on, with more and more trials."""

    ducks: int
    degrees: float
    most: dict[_Method, int]
    """With how many trials, at most."""


_EVENTS = (
    _Event(16, 300, {"mc": 10**6, "karp-luby": 10**6}),
    _Event(100, 324, {"mc": 10**5, "karp-luby": 10**4}),
)
_RUNS = 6
"""How many runs an error is measured with."""
_RARE_DUCKS, _RARE_TRIALS = 1000, 1000
_RARE_DEGREES = (358, 356, 354, 351, 346, 339, 332, 324)  # down to 1.9e-43
_NAMES: dict[_Method, str] = {"mc": "plain", "karp-luby": "Karp-Luby"}


def sectors_demo(folder: Path) -> Path:
    """Put points in ponds, print tables and draw ``sectors.png``; return the picture."""
    answers = {question: _timed(question) for question in _QUESTIONS}
    flocks = {n: common_sector(n, _radians(_DEGREES), trials=_PONDS, rng=_SEED + n) for n in _FLOCKS}
    fits = {n: _chi_square(found) for n, found in flocks.items()}
    _print_tables(answers, flocks, fits)
    picture = folder / "sectors.png"
    _draw(picture, flocks, fits)
    return picture


def _radians(degrees: Any) -> Any:
    return degrees / 360 * TURN


def _timed(question: _Question) -> tuple[SectorEstimate, float]:
    ducks, degrees, trials, method, density = question
    begun = time.perf_counter()
    found = common_sector(ducks, _radians(degrees), density=density, method=method, trials=trials, rng=_SEED)
    return found, time.perf_counter() - begun


def _chi_square(found: SectorEstimate) -> tuple[float, int]:
    """Compare the hits at all angles with the exact law: χ² and its degrees of freedom.

    One run serves all angles, so that z scores of neighbours are much alike. Pearson's χ² of the smallest sectors
    between neighbouring angles is the sum of squares of what is independent in them.
    """
    observed = np.diff(found.hits, prepend=0, append=found.trials)
    expected = found.trials * np.diff(found.exact, prepend=0, append=1)
    groups: list[list[float]] = [[0, 0]]
    for pair in zip(observed, expected, strict=True):
        if groups[-1][1] >= _FEW:
            groups.append([0, 0])
        groups[-1] = [a + b for a, b in zip(groups[-1], pair, strict=True)]
    if groups[-1][1] < _FEW:
        last = groups.pop()
        groups[-1] = [a + b for a, b in zip(groups[-1], last, strict=True)]
    return sum((seen - due) ** 2 / due for seen, due in groups), len(groups) - 1


def _many(found: SectorEstimate) -> NDArray[np.bool_]:
    """Say at which angles there are enough hits and misses for a z score."""
    enough: NDArray[np.bool_] = found.trials * np.minimum(found.exact, 1 - found.exact) >= _FEW
    return enough


def _total(fits: dict[int, tuple[float, int]]) -> tuple[float, int]:
    return sum(chi for chi, _ in fits.values()), sum(freedom for _, freedom in fits.values())


def _print_tables(
    answers: dict[_Question, tuple[SectorEstimate, float]],
    flocks: dict[int, SectorEstimate],
    fits: dict[int, tuple[float, int]],
) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Are all ducks of a round pond in one sector of it?", caption="karp-luby: weighed, not counted")
    table.add_column("ducks, sector")
    for title in ("trials", "million\nper s", "estimate", "exact", "z"):
        table.add_column(title, justify="right")
    for question, (found, seconds) in answers.items():
        what = f"{question.ducks:,} in {question.degrees:g}°"
        extra = question.density or ("karp-luby" if question.method == "karp-luby" else "")
        estimate, error, speed = found.estimate, found.standard_error, found.trials / seconds / 1e6
        places = f".{1 - int(np.floor(np.log10(error)))}f" if error else ".5g"
        table.add_row(
            what + (f"\n{extra}" if extra else ""),
            f"{found.trials:.0e}".replace("e+0", "e"),
            f"{speed:,.0f}" if speed >= 100 else f"{speed:.3g}",
            f"{estimate:{places}}" + (f" ± {error:{places}}" if error else ""),
            f"{found.exact:.5g}",
            f"{found.z_score:+.2f}",
        )
    console = Console()
    console.print(table)
    table = Table(
        title=f"{_PONDS:,} ponds for each n, one run for {_DEGREES.size} angles",
        caption="χ² of f degrees of freedom: f ± √(2f)",
    )
    table.add_column("n", justify="right")
    for title in ("P(180°) exact", "found", "largest |z|", "χ²", "f"):
        table.add_column(title, justify="right")
    half = int(np.flatnonzero(_DEGREES == 180)[0])
    for n, found in flocks.items():
        chi, freedom = fits[n]
        z = np.abs(found.z_score[_many(found)]).max()
        row = (f"{found.exact[half]:.6f}", f"{found.estimate[half]:.6f}", f"{z:.2f}", f"{chi:.1f}", f"{freedom}")
        table.add_row(str(n), *row)
    chi, freedom = _total(fits)
    table.add_section()
    table.add_row("all", "", "", "", f"{chi:.1f}", f"{freedom}")
    console.print(table)


# --- the picture ------------------------------------------------------------------------------------------------------


def _draw(path: Path, flocks: dict[int, SectorEstimate], fits: dict[int, tuple[float, int]]) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = Figure(figsize=(15, 9), layout=ConstrainedLayoutEngine(wspace=0.05, hspace=0.05))
    FigureCanvasAgg(figure)  # draws without a display
    figure.suptitle("Ducks in a pond: does one sector of it hold them all?", fontsize=15, fontweight="bold")
    axes: dict[str, Axes] = figure.subplot_mosaic(
        [["curves", "ponds", "ponds"], ["curves", "trials", "rare"], ["residuals", "trials", "rare"]],
        width_ratios=[2.2, 1, 1],
        height_ratios=[1.25, 0.6, 0.8],
    )
    axes["curves"].sharex(axes["residuals"])
    _draw_curves(axes["curves"], flocks)
    _draw_residuals(axes["residuals"], flocks, fits)
    _draw_ponds(axes["ponds"])
    _draw_errors(axes["trials"])
    _draw_rare(axes["rare"])
    for name in ("curves", "residuals", "trials", "rare"):
        axes[name].spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)


def _draw_curves(ax: Axes, flocks: dict[int, SectorEstimate]) -> None:
    fine = np.linspace(0, 360, 721)
    for colour, (n, found) in zip(_COLOURS, flocks.items(), strict=True):
        ax.plot(fine, CommonSector(n).cdf(_radians(fine)), color=colour, lw=1.3, alpha=0.9)
        low, high = found.ci()
        # An interval may not hold the estimate by a rounding error.
        reach = np.maximum([found.estimate - low, high - found.estimate], 0)
        ax.errorbar(
            _DEGREES, found.estimate, yerr=reach, fmt="o", ms=3, color=colour, lw=1, capsize=2, label=f"n = {n}"
        )
    ax.plot([0, 180, 180], [0.5, 0.5, 0], color="black", lw=0.8, ls=":")
    ax.text(3, 0.51, "four ducks: 1/2", fontsize=9)
    ax.set_title(f"Exact curves; one run of {_PONDS:,} ponds for each n, with 95 % intervals")
    ax.set_ylabel("probability that a sector holds all n")
    ax.set_ylim(-0.02, 1.03)
    ax.tick_params(labelbottom=False)
    ax.legend(frameon=False, loc="upper left")


def _draw_residuals(ax: Axes, flocks: dict[int, SectorEstimate], fits: dict[int, tuple[float, int]]) -> None:
    ax.axhspan(-2, 2, color="black", alpha=0.08, lw=0)
    ax.axhline(0, color="black", lw=0.8)
    for k, (colour, found) in enumerate(zip(_COLOURS, flocks.values(), strict=True)):
        many = _many(found)
        aside = 1.1 * (k - (len(flocks) - 1) / 2)
        ax.plot(_DEGREES[many] + aside, found.z_score[many], "o", ms=3.5, color=colour)
    chi, freedom = _total(fits)
    ax.set_title(
        f"Residuals: χ² = {chi:.0f} with {freedom} degrees of freedom ({freedom} ± {np.sqrt(2 * freedom):.0f} expected)"
    )
    ax.set_ylabel("z")
    ax.set_xlabel("angle of the sector, degrees")
    ax.set_ylim(-4.2, 4.2)
    ax.set_yticks([-4, -2, 0, 2, 4])
    ax.set_xlim(0, 360)
    ax.set_xticks(np.arange(0, 361, 45))


def _draw_ponds(ax: Axes) -> None:
    from matplotlib.patches import Circle, Wedge

    rng, columns, rows = np.random.default_rng(_SEED), 5, 2
    for k in range(columns * rows):
        x, y = 2.5 * (k % columns), -2.9 * (k // columns)
        angles, distances = rng.uniform(0, 360, 4), np.sqrt(rng.uniform(0.02, 0.85, 4))
        start, size = _smallest_sector(angles)
        colour = _COLOURS[0] if size <= 180 else _COLOURS[1]
        ax.add_patch(Circle((x, y), 1, facecolor="#eef3f7", edgecolor="#9aa7b3", lw=1))
        ax.add_patch(Wedge((x, y), 1, start, start + size, facecolor=colour, alpha=0.45, lw=0))
        ax.add_patch(Wedge((x, y), 1, start, start + size, fill=False, edgecolor=colour, lw=1.2))
        radians = np.deg2rad(angles)
        ax.scatter(
            x + distances * np.cos(radians), y + distances * np.sin(radians), s=34, color="#f6d13b", ec="black", lw=0.8
        )
        ax.text(x, y - 1.08, f"{size:.0f}°", ha="center", va="top", color=colour, fontweight="bold")
    for label, colour in (("half of the pond is enough", _COLOURS[0]), ("it takes more", _COLOURS[1])):
        ax.fill_between([], [], color=colour, alpha=0.45, lw=0, label=label)
    ax.set_title("Four ducks, and the smallest sector that holds them")
    ax.set_xlim(-1.2, 2.5 * (columns - 1) + 1.2)
    ax.set_ylim(-2.9 * (rows - 1) - 2.3, 1.1)
    ax.set_aspect("equal")
    ax.axis("off")
    ax.legend(frameon=False, loc="lower center", ncols=2)


def _smallest_sector(degrees: NDArray[np.float64]) -> tuple[float, float]:
    """Give where the smallest sector with all points begins, counterclockwise, and its angle."""
    rising = np.sort(degrees)
    gaps = np.diff(rising, append=rising[0] + 360)
    widest = int(gaps.argmax())
    return float(rising[(widest + 1) % rising.size]), float(360 - gaps[widest])


def _draw_errors(ax: Axes) -> None:
    for colour, event in zip(_COLOURS, _EVENTS, strict=False):
        angle = _radians(event.degrees)
        exact = CommonSector(event.ducks).cdf(angle)
        for method, most in event.most.items():
            trials = 10 ** np.arange(2, np.log10(most) + 0.25, 0.5)
            found = [_error(event.ducks, angle, method, int(count)) for count in trials]
            label = f"{_NAMES[method]}: {event.ducks} in {event.degrees:g}°, P = {exact:.2g}"
            ax.plot(trials, found, _marker(method), color=colour, ms=4.5, mfc=_face(method, colour), label=label)
            line = np.array([1e2, 1e6])
            ax.plot(line, _spread(event.ducks, angle, method) / np.sqrt(line), color=colour, lw=1, zorder=1)
    ax.set_title("Error with more trials, and expected")
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_ylim(3e-7, 5)
    ax.set_xlabel("trials")
    ax.set_ylabel(f"relative error, root mean square of {_RUNS} runs")
    ax.legend(frameon=False, loc="lower left", fontsize=8.5, handlelength=1.2)


def _draw_rare(ax: Axes) -> None:
    angles = _radians(np.array(_RARE_DEGREES))
    exact = CommonSector(_RARE_DUCKS).cdf(angles)
    for colour, (method, name) in zip(_COLOURS, _NAMES.items(), strict=False):
        found = [_error(_RARE_DUCKS, angle, method, _RARE_TRIALS) for angle in angles]
        ax.plot(exact, found, _marker(method), color=colour, ms=4.5, mfc=_face(method, colour), label=name)
    most = np.floor(TURN / (TURN - angles))
    bound = (most - 1) / np.sqrt(4 * most * _RARE_TRIALS)
    ax.plot(exact, bound, color=_COLOURS[1], lw=1, label="Karp-Luby's bound")
    ax.text(1e-10, 2, "no hit: off by 100 %", fontsize=8.5, color=_COLOURS[0])
    ax.text(1e-12, 4e-13, "all digits but two", fontsize=8.5, color=_COLOURS[1])
    ax.set_title("Error for rarer events")
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlim(1e3, 1e-46)
    ax.set_xticks([1, 1e-10, 1e-20, 1e-30, 1e-40])
    ax.set_ylim(1e-17, 1e2)
    ax.set_xlabel(f"probability: {_RARE_DUCKS:,} ducks, {_RARE_TRIALS:,} trials")
    ax.legend(frameon=False, loc="lower left", fontsize=8.5, handlelength=1.2)


def _marker(method: _Method) -> str:
    return "o" if method == "mc" else "s"


def _face(method: _Method, colour: str) -> str:
    return "white" if method == "mc" else colour


def _error(ducks: int, angle: float, method: _Method, trials: int) -> float:
    """Measure the relative error: the root of the mean square of runs."""
    exact = CommonSector(ducks).cdf(angle)
    runs = (common_sector(ducks, angle, method=method, trials=trials, rng=_SEED + run) for run in range(_RUNS))
    return float(np.sqrt(np.mean([(run.estimate / exact - 1) ** 2 for run in runs])))


def _spread(ducks: int, angle: float, method: _Method) -> float:
    """Give the relative standard deviation of a trial."""
    if method == "mc":
        exact = CommonSector(ducks)
        return float(np.sqrt(exact.sf(angle) / exact.cdf(angle)))
    # A trial gives 1/N, where N gaps are wide enough, with N times the probability that it is so.
    chances = gap_counts(ducks, TURN - angle)[1:]
    number = np.arange(1, chances.size + 1)
    weights = number * chances / (number @ chances)
    mean = weights @ (1 / number)
    return float(np.sqrt(weights @ (1 / number - mean) ** 2) / mean)
