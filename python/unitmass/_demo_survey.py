"""The last part of ``unitmass demo``: every map as its temperature falls, and losses that want different things."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unitmass import losses, maps

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure
    from numpy.typing import NDArray

__all__ = ["survey_demo"]

_SCORES = np.array([1.5, 1.2, 0.4, -0.3, -1.1])
_COLOURS = ("#4c72b0", "#dd8452", "#55a868", "#c44e52", "#8172b3")
_TEMPERATURES = np.geomspace(10, 0.1, 161)

_WITH: dict[str, list[tuple[str, dict[str, Any]]]] = {  # how maps with arguments are shown, and called
    "entmax": [("entmax, α = 1.25", {"alpha": 1.25}), ("entmax, α = 1.5", {"alpha": 1.5})],
    "normmax": [("normmax, α = 2", {"alpha": 2.0})],
    "budget": [("budget, k = 2", {"k": 2})],
    "capped_simplex": [("capped_simplex, u = .6", {"upper": 0.6})],
    "csoftmax": [("csoftmax, u = .4", {"upper": 0.4})],
    "csparsemax": [("csparsemax, u = .4", {"upper": 0.4})],
    "taylor_softmax": [("taylor_softmax, order 2", {"order": 2})],
    "topk_softmax": [("topk_softmax, k = 3", {"k": 3}), ("topk_softmax, top_p = .8", {"top_p": 0.8})],
    "sparsegen": [("sparsegen, λ = .5", {"lam": 0.5})],
    "noisy_argmax": [
        (f"noisy_argmax, {noise}", {"noise": noise}) for noise in ("normal", "exponential", "uniform", "logistic")
    ],
}

_POINTS, _CLASSES = np.array([-0.25, 0.0, 0.25]), np.array([0, 0, 1])
"""Three points on a line; the classifier says 1 right of b, by the scores 0 and x - b."""

_SIGMA = 0.05
_BIAS = np.linspace(-0.4, 1.2, 1601)


def survey_demo(folder: Path) -> Path:
    """Print both tables and draw ``survey.png``; return the picture."""
    curves = _curves()
    print(maps.table())
    print()
    _print_best(curves)
    picture = folder / "survey.png"
    _draw(picture, curves)
    return picture


def _curves() -> dict[str, NDArray[np.float64]]:
    """Add up each loss over the points, for every b."""
    scores = np.zeros((_BIAS.size, 3, 2))
    scores[..., 1] = _POINTS - _BIAS[:, np.newaxis]
    margins = scores[..., 1] * np.where(_CLASSES == 1, 1, -1)
    classes = np.broadcast_to(_CLASSES, margins.shape)
    exact = losses.exact_accuracy_loss(scores, classes, temperature=_SIGMA)
    return {
        "cross entropy": losses.cross_entropy(scores, classes).sum(axis=1),
        "hinge": np.maximum(1 - margins, 0).sum(axis=1),
        f"EXACT, σ = {_SIGMA:g}".replace("0.", "."): exact.mean(axis=1),
        "accuracy": (margins > 0).mean(axis=1),
    }


def _print_best(curves: dict[str, NDArray[np.float64]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Three points on a line, and the b that each loss likes best")
    table.add_column("loss")
    for title in ("best b", "loss there", "accuracy there"):
        table.add_column(title, justify="right")
    *shown, accuracy = curves.items()
    for name, curve in shown:
        least = np.flatnonzero(curve <= curve.min() + 1e-12)
        where = f"{_BIAS[least[0]]:.3f}"
        if least.size > 1:
            where += f" to {_BIAS[least[-1]]:.3f}"
        table.add_row(name, where, f"{curve.min():.6f}", f"{accuracy[1][least[0]]:.0%}")
    Console().print(table)


def _panels() -> dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]]:
    """Give every map of the table, with the arguments it needs."""
    panels: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {}
    for row in maps.table():
        function = getattr(maps, row.name)
        for title, options in _WITH.get(row.name, [(row.name, {})]):
            panels[title] = partial(function, **options)
    return panels


def _draw(path: Path, curves: dict[str, NDArray[np.float64]]) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = _panels()
    columns = 7
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(18, 2.1 * rows + 5.2), layout="constrained")
    FigureCanvasAgg(figure)  # draws without a display
    parts: Any = figure.subfigures(2, 1, height_ratios=[2.1 * rows, 5.2])
    _draw_maps(parts[0], panels, rows, columns)
    _draw_losses(parts[1], curves)
    figure.savefig(path, dpi=110)


def _draw_maps(figure: SubFigure, panels: dict[str, Any], rows: int, columns: int) -> None:
    all_axes = figure.subplots(rows, columns, sharex=True, squeeze=False)
    scores = _SCORES / _TEMPERATURES[:, np.newaxis]
    for axes, (title, function) in zip(all_axes.flat, panels.items(), strict=False):
        p = function(scores)
        if title == "log_softmax":
            for k, colour in enumerate(_COLOURS):
                axes.plot(_TEMPERATURES, p[:, k], color=colour)
            axes.set_ylim(-6, 0.2)
        elif p.min() < 0:  # a ball has both signs
            for k, colour in enumerate(_COLOURS):
                axes.plot(_TEMPERATURES, p[:, k], color=colour)
        else:
            axes.stackplot(_TEMPERATURES, p.T, colors=_COLOURS, linewidth=0)
            axes.set_ylim(0, p.sum(axis=1).max())
        axes.set_xscale("log")
        axes.set_xlim(_TEMPERATURES[0], _TEMPERATURES[-1])
        axes.set_title(title, fontsize=10)
        axes.tick_params(labelsize=8)
    for axes in all_axes.flat[len(panels) :]:
        axes.axis("off")
    for axes in all_axes[-1]:
        axes.set_xlabel("temperature, falling", fontsize=9)
    names = ", ".join(f"{score:g}" for score in _SCORES)
    figure.suptitle(f"Every map on the scores {names}: the shares as the temperature falls", fontsize=15)


def _draw_losses(figure: SubFigure, curves: dict[str, NDArray[np.float64]]) -> None:
    (proper, exact) = figure.subplots(1, 2)
    figure.suptitle("Three points at -¼ (0), 0 (0) and ¼ (1): which b says 1 to the right of it?", fontsize=15)
    *likelihoods, (name, curve) = [item for item in curves.items() if item[0] != "accuracy"]
    for colour, (other, values) in zip(_COLOURS, likelihoods, strict=False):
        _draw_curve(proper, other, values, colour)
    proper.set_ylabel("sum over the points")
    _draw_curve(exact, name, curve, _COLOURS[2])
    exact.plot(_BIAS, -curves["accuracy"], color="black", lw=1, ls=":", label="accuracy, with a minus")
    exact.set_ylabel("mean over the points")
    right = _BIAS[curves["accuracy"] == 1]
    for axes in (proper, exact):
        axes.axvspan(right[0], right[-1], color="#f0c75e", alpha=0.35, lw=0, label="accuracy 1")
        axes.set_xlabel("b")
        axes.margins(x=0)
        axes.legend(frameon=False)
        axes.spines[["top", "right"]].set_visible(False)


def _draw_curve(axes: Axes, name: str, values: NDArray[np.float64], colour: str) -> None:
    least = np.flatnonzero(values <= values.min() + 1e-12)
    axes.plot(_BIAS, values, color=colour, lw=2, label=name)
    axes.plot(_BIAS[least], values[least], color=colour, lw=6, marker="o", ms=7, solid_capstyle="round")
