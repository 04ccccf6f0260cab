"""The second part of ``unitmass demo``: a gene whose moments are known exactly, and a genetic oscillator."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unitmass.gillespie import Ensemble, ReactionNetwork

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

__all__ = ["gillespie_demo"]

_COLOURS = {"m": "#dd8452", "n": "#4c72b0", "A": "#dd8452", "R": "#4c72b0"}
_SEED = 1
_EXACT = {"E m": 20.0, "E n": 50.0, "Var m": 20.0, "Var n": 112.5, "Cov(m, n)": 25.0}


def gillespie_demo(models: Path, folder: Path) -> Path:
    """Simulate the models, print tables and draw ``gillespie.png``; return the picture."""
    gene, oscillator = (ReactionNetwork.from_text(models / f"{name}.txt") for name in ("gene", "vilar"))
    runs = {
        "gene": _timed(gene, np.linspace(0, 20, 101), 10_000),
        "oscillator": _timed(oscillator, np.linspace(0, 200, 1001), 32),
    }
    cells, cell = (ensemble for ensemble, _ in runs.values())
    found = _moments(*(cells[name][:, -1].astype(float) for name in ("m", "n")))
    _print_tables(runs, found)
    picture = folder / "gillespie.png"
    _draw(picture, gene, cells, found, cell)
    return picture


def _timed(network: ReactionNetwork, t: NDArray[np.float64], n: int) -> tuple[Ensemble, float]:
    begun = time.perf_counter()
    ensemble = network.simulate(t=t, n=n, rng=_SEED)
    return ensemble, time.perf_counter() - begun


def _moments(m: NDArray[np.float64], n: NDArray[np.float64]) -> dict[str, tuple[float, float]]:
    """Estimate the moments in `_EXACT`, with their standard errors: each is the mean of a product of deviations."""
    dm, dn = m - m.mean(), n - n.mean()
    terms = {"E m": m, "E n": n, "Var m": dm * dm, "Var n": dn * dn, "Cov(m, n)": dm * dn}
    return {name: (float(x.mean()), float(x.std() / np.sqrt(x.size))) for name, x in terms.items()}


def _print_tables(runs: dict[str, tuple[Ensemble, float]], found: dict[str, tuple[float, float]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Exact stochastic simulation of two reaction networks")
    table.add_column("model")
    for title in ("trajectories", "events", "seconds", "events/s", "engine"):
        table.add_column(title, justify="right")
    for name, (ensemble, seconds) in runs.items():
        events = int(ensemble.n_events.sum())
        n = len(ensemble.counts)
        table.add_row(name, f"{n:,}", f"{events:,}", f"{seconds:.2f}", f"{events / seconds:,.0f}", ensemble.method)
    console = Console()
    console.print(table)
    table = Table(
        title="The gene in the long run: messengers m, proteins n", caption="z: off by so many standard errors"
    )
    table.add_column("moment")
    for title in ("measured", "standard error", "exact", "z"):
        table.add_column(title, justify="right")
    for name, (value, error) in found.items():
        exact = _EXACT[name]
        table.add_row(name, f"{value:.3f}", f"{error:.3f}", f"{exact:g}", f"{(value - exact) / error:+.2f}")
    console.print(table)


def _exact(t: NDArray[np.float64]) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Give the means and standard deviations of the gene, from its moment equations."""
    e = np.exp(-t)
    m = 20 * (1 - e)
    n = 50 * (1 - e - t * e)
    beyond_poisson = 125 * ((1 - e**2) / 2 - 2 * (e - e**2) + t * e**2)
    return {"m": (m, np.sqrt(m)), "n": (n, np.sqrt(n + beyond_poisson))}


def _draw(
    path: Path, gene: ReactionNetwork, cells: Ensemble, found: dict[str, tuple[float, float]], oscillator: Ensemble
) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = Figure(figsize=(14, 8), layout=ConstrainedLayoutEngine(wspace=0.05, hspace=0.07))
    FigureCanvasAgg(figure)  # draws without a display
    axes: dict[str, Axes] = figure.subplot_mosaic([["paths", "band", "histogram"], ["oscillator"] * 3])
    figure.suptitle("Genes by the molecule: every reaction at its own random time", fontsize=15, fontweight="bold")
    _draw_paths(axes["paths"], gene)
    _draw_band(axes["band"], cells)
    _draw_histogram(axes["histogram"], cells["n"][:, -1], found)
    _draw_oscillator(axes["oscillator"], oscillator)
    for ax in axes.values():
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(frameon=False, loc="upper right" if ax is axes["oscillator"] else "upper left")
    figure.savefig(path, dpi=130)


def _draw_paths(ax: Axes, gene: ReactionNetwork) -> None:
    until, shown = 8.0, 3
    events = gene.events(t_max=until, n=shown, rng=_SEED)
    for i in range(shown):
        part = slice(events.offsets[i], events.offsets[i + 1])
        times = np.concatenate([[0], events.time[part], [until]])
        for name in ("n", "m"):
            counts = events.state[part, events.species.index(name)]
            counts = np.concatenate([[0], counts, counts[-1:]])
            label = {"m": "messengers m", "n": "proteins n"}[name] if i == 0 else None
            width, alpha = (1.2, 1.0) if i == 0 else (0.8, 0.4)
            ax.step(times, counts, where="post", color=_COLOURS[name], lw=width, alpha=alpha, label=label)
    ax.set_title(f"A gene in {shown} cells: all {len(events.time):,} events")
    ax.set_xlabel("time, in lifetimes of a messenger")
    ax.set_ylabel("molecules")
    ax.set_xlim(0, until)
    ax.set_ylim(0, 105)


def _draw_band(ax: Axes, cells: Ensemble) -> None:
    here = cells.t <= 8
    t, exact = cells.t[here], _exact(cells.t[here])
    for name in ("n", "m"):
        counts = cells[name][:, here]
        mean, sd = counts.mean(axis=0), counts.std(axis=0, ddof=1)
        ax.fill_between(
            t, mean - sd, mean + sd, color=_COLOURS[name], alpha=0.3, lw=0, label=f"{name}: measured mean ± sd"
        )
        ax.plot(t, mean, color=_COLOURS[name], lw=3, alpha=0.8)
        mean, sd = exact[name]
        ax.plot(t, mean, color="black", lw=1, label="exact mean" if name == "m" else None)
        for edge in (mean - sd, mean + sd):
            ax.plot(
                t,
                edge,
                color="black",
                lw=0.9,
                ls=":",
                label="exact mean ± sd" if name == "m" and edge[-1] > mean[-1] else None,
            )
    ax.set_title(f"{len(cells.counts):,} cells beside the exact moments")
    ax.set_xlabel("time, in lifetimes of a messenger")
    ax.set_ylabel("molecules")
    ax.set_xlim(0, 8)
    ax.set_ylim(0, 105)


def _draw_histogram(ax: Axes, n: NDArray[Any], found: dict[str, tuple[float, float]]) -> None:
    mean, sd = _EXACT["E n"], np.sqrt(_EXACT["Var n"])
    counts = np.bincount(n) / n.size
    ax.fill_between(np.arange(counts.size), counts, step="mid", color=_COLOURS["n"], alpha=0.75, lw=0, label="measured")
    top = 1.12 * counts.max()
    ax.fill_between([mean - sd, mean + sd], top, color="black", alpha=0.1, lw=0, label="exact mean ± sd")
    ax.plot([mean, mean], [0, top], color="black", lw=1)
    for name in ("E n", "Var n"):
        value, error = found[name]
        ax.fill_between([], [], alpha=0, label=f"{name} = {value:.2f} ± {error:.2f}, exact {_EXACT[name]:g}")
    ax.set_title("Proteins in the long run")
    ax.set_xlabel("proteins n in a cell")
    ax.set_ylabel("share of the cells")
    ax.set_xlim(0, 110)
    ax.set_ylim(0, 1.75 * counts.max())


def _draw_oscillator(ax: Axes, oscillator: Ensemble) -> None:
    for name, label in (("A", "activator A"), ("R", "repressor R")):
        ax.step(oscillator.t, oscillator[name][0], where="post", color=_COLOURS[name], lw=1.3, label=label)
        ax.fill_between(oscillator.t, oscillator[name][0], step="post", color=_COLOURS[name], alpha=0.15, lw=0)
    ax.set_title(f"A genetic oscillator (Vilar et al. 2002) in one cell: {int(oscillator.n_events[0]):,} events")
    ax.set_xlabel("time, hours")
    ax.set_ylabel("molecules")
    ax.set_xlim(0, oscillator.t[-1])
    ax.set_ylim(bottom=0)
