"""From points and an angle to a probability and a picture of it: the body of `unitmass sector`."""

from __future__ import annotations

import math
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from unitmass._ensemble import extra
from unitmass._estimate import SectorEstimate
from unitmass._gap_laws import TURN, CommonSector
from unitmass._simulate import blank_figure, replacing
from unitmass.sectors import common_sector

__all__ = ["sector_lines", "sector_report"]

_RARE = 1e-3
"""Below it, pictures have a logarithmic scale."""


def sector_report(
    n: int,
    theta: float,
    *,
    density: str | None = None,
    method: Literal["auto", "exact", "mc", "karp-luby"] = "auto",
    trials: int | None = None,
    rel_se: float | None = None,
    max_seconds: float | None = None,
    seed: int | None = None,
    workers: int | None = None,
    plot: str | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> dict[str, Any]:
    """Find the probability of a common sector, draw it, and tell what was found; None stands for what is not known.

    Nothing is at `plot` before all is done; what was there stays until then.
    """
    if plot:
        extra("matplotlib", "plot")
    with ExitStack() as files:
        picture = files.enter_context(replacing(plot, overwrite)) if plot else None
        begun = time.perf_counter()
        found = common_sector(
            n,
            theta,
            density=density,
            method=method,
            trials=trials,
            rel_se=rel_se,
            max_seconds=max_seconds,
            rng=seed,
            workers=workers,
            progress=progress,
        )
        seconds = time.perf_counter() - begun
        if picture:
            _draw(found, picture, n, theta, density, workers)
    return {
        "n": n,
        "theta": theta,
        "density": density,
        "method": found.method,
        "estimate": _known(found.estimate),
        "standard_error": _known(found.standard_error),
        "interval": [_known(end) for end in found.ci()],
        "exact": _known(found.exact),
        "z_score": _known(found.z_score),
        "hits": found.hits,
        "trials": found.trials,
        "seconds": seconds,
        "trials_per_second": found.trials / seconds,
        "seed": found.seed,
        "bias": found.bias,
        "stopped": found.stopped,
        "reproducible": found.reproducible,
        "plot": plot,
    }


def _known(number: float | None) -> float | None:
    return None if number is None or not math.isfinite(number) else float(number)


def sector_lines(report: dict[str, Any]) -> tuple[str, str]:
    """Tell in a line what was found, and in another how."""
    law = f", {report['density']}," if report["density"] else ""
    points = f"{report['n']:,} point{'' if report['n'] == 1 else 's'}"
    answer = f"P({points}{law} in a sector of {_degrees(report['theta'])}) = "
    seconds = f"{report['seconds']:.3g} s"
    plot = f"{report['plot']}: " if report["plot"] else ""
    if report["method"] == "exact":
        return f"{answer}{report['estimate']:.10g}", f"{plot}exact, in {seconds}"
    estimate, error, low, high = _rounded(report["estimate"], report["standard_error"], *report["interval"])
    answer += f"{estimate} ± {error}, 95 % interval {low} to {high}"
    if report["exact"] is not None:
        z = report["z_score"]
        answer += f"; exact {report['exact']:.10g}, z = {'?' if z is None else f'{z:+.2f}'.replace('-0.00', '+0.00')}"
    if report["bias"] > 0.1 * report["standard_error"] > 0:
        answer += f"; rounded angles may add {report['bias']:.1g}"
    hits = "" if report["hits"] is None else f"{report['hits']:,} hit{'' if report['hits'] == 1 else 's'} in "
    late = "" if report["reproducible"] else "; stopped by the clock: the seed alone does not give this again"
    return answer, (
        f"{plot}{hits}{report['trials']:,} trial{'' if report['trials'] == 1 else 's'} in {seconds}: "
        f"{report['trials_per_second']:,.0f} trials/s (seed {report['seed']}, {report['method']}{late})"
    )


def _degrees(theta: float) -> str:
    return f"{360 * (theta / TURN):.6g}°"


def _rounded(estimate: float, error: float, low: float, high: float) -> list[str]:
    """Write an estimate, its error and the ends of its interval with two digits of the error."""
    spread = error or (high - low) / 4
    if not spread:
        return [f"{number:.10g}" for number in (estimate, error, low, high)]
    place = math.floor(math.log10(spread)) - 1
    top = math.floor(math.log10(estimate or high))
    fixed = f".{max(-place, 0)}f"
    style, small = (fixed, fixed) if top >= -4 else (f".{max(top - place, 1)}e", ".1e")
    pairs = ((estimate, style), (error, small), (low, style), (high, style))
    return [format(number, form) if number else "0" for number, form in pairs]


# --- the picture ------------------------------------------------------------------------------------------------------


def _draw(found: SectorEstimate, path: Path, n: int, theta: float, density: str | None, workers: int | None) -> None:
    figure = blank_figure(8, 5)
    ax = figure.subplots()
    angles = np.linspace(0, TURN, 721)
    uniform = CommonSector(n).cdf(angles)
    if density is None:
        ax.plot(_in_degrees(angles), uniform, color="#4c72b0", lw=2, label="exact")
    else:
        ax.plot(_in_degrees(angles), uniform, color="#a0a0a0", lw=1, ls="--", label="exact, for uniform angles")
        narrow = angles[angles <= np.pi]
        exact = common_sector(n, narrow, density=density, method="exact", workers=workers).estimate
        ax.plot(_in_degrees(narrow), exact, color="#4c72b0", lw=2, label=f"exact, for {density} (up to 180°)")
    low, high = found.ci()
    estimate = found.estimate
    estimated, error, *interval = _rounded(estimate, found.standard_error, low, high)
    rest = " (exact)" if found.method == "exact" else f" ± {error}, 95 % interval {' to '.join(interval)}"
    ax.errorbar(
        _in_degrees(theta),
        estimate,
        yerr=[[max(estimate - low, 0)], [max(high - estimate, 0)]],
        fmt="o",
        color="#dd8452",
        ms=7,
        mec="white",
        capsize=4,
        lw=2,
        zorder=3,
        label=f"at {_degrees(theta)}: {estimated}{rest}",
    )
    if 0 < estimate < _RARE:
        ax.set_yscale("log")
        ax.set_ylim(max(1e-3 * low, 1e-6 * estimate, 1e-307), 3)
    else:
        ax.set_ylim(-0.03, 1.03)
    ax.set_title(f"{n:,} random point{'' if n == 1 else 's'}: the probability that a sector holds all")
    ax.set_xlabel("angle of the sector, degrees")
    ax.set_ylabel("probability")
    ax.set_xlim(0, 360)
    ax.set_xticks(np.arange(0, 361, 45))
    ax.grid(color="#e5e5e5", lw=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    figure.legend(frameon=False, loc="outside lower center")
    figure.savefig(path, dpi=150, format="png")


def _in_degrees(angles: float | NDArray[np.float64]) -> float | NDArray[np.float64]:
    return 360 * (angles / TURN)
