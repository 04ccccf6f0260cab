"""The first part of ``unitmass demo``: handwritten digits, scored with three maps through the command line."""

from __future__ import annotations

import contextlib
import io
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from unitmass.score import MAPS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

__all__ = ["maps_demo"]

_MAPS: dict[str, tuple[str, dict[str, float]]] = {  # as shown: its name and options on the command line
    "softmax": ("softmax", {}),
    "entmax 1.5": ("entmax", {"alpha": 1.5}),
    "sparsemax": ("sparsemax", {}),
}
_COLOURS = {"softmax": "#4c72b0", "entmax 1.5": "#dd8452", "sparsemax": "#55a868"}
_NOT_SEEN = slice(1, None, 2)  # the classifier was fitted on the other half: examples/make_digits_logits.py


class _Scored(NamedTuple):
    p: NDArray[Any]
    file: Path
    rows_per_second: float  # by the command line, with reading and writing
    rows_per_second_in_memory: float

    @property
    def support(self) -> NDArray[np.int64]:
        support: NDArray[np.int64] = np.count_nonzero(self.p, axis=1)
        return support


def maps_demo(source: Path, folder: Path) -> tuple[Path, list[Path]]:
    """Score the digits in `source`, print a table and draw ``maps.png``; return the picture and the scored files."""
    logits, labels, images = (np.load(source / f"digits_{name}.npy") for name in ("logits", "labels", "images"))
    results = {name: _score(source / "digits_logits.npy", logits, folder, *_MAPS[name]) for name in _MAPS}
    _print_table(results, logits, labels)
    picture = folder / "maps.png"
    _draw(picture, results, logits, labels, images)
    return picture, [result.file for result in results.values()]


def _score(source: Path, logits: NDArray[Any], folder: Path, name: str, options: dict[str, float]) -> _Scored:
    from unitmass._cli import main

    target = folder / f"digits_{name}.npy"
    command = ["score", str(source), str(target), "--map", name, "--overwrite", "--no-progress", "--json"]
    command += [text for option, value in options.items() for text in (f"--{option}", str(value))]
    answer, messages = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(answer), contextlib.redirect_stderr(messages):
        code = main(command)
    if code:
        raise ValueError(messages.getvalue().strip().removeprefix("unitmass: error: "))
    return _Scored(
        np.load(target), target, json.loads(answer.getvalue())["rows_per_second"], _speed(logits, name, options)
    )


def _speed(logits: NDArray[Any], name: str, options: dict[str, float]) -> float:
    """Give the rows per second of the map alone: the best of what a fifth of a second allows."""
    function, _ = MAPS[name]
    out, best = np.empty_like(logits), np.inf
    end = time.perf_counter() + 0.2
    while (start := time.perf_counter()) < end:
        function(logits, out=out, **options)
        best = min(best, time.perf_counter() - start)
    return len(logits) / best


def _print_table(results: dict[str, _Scored], logits: NDArray[Any], labels: NDArray[Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    rows, n = logits.shape
    table = Table(title=f"{rows:,} handwritten digits, {n} scores each", caption="accuracy: on the unseen half")
    table.add_column("map")
    for title in ("accuracy", "mean support\nof 10", "exact\nzeros", "file to file\nrows/s", "in memory\nrows/s"):
        table.add_column(title, justify="right")
    for name, result in results.items():
        right = result.p.argmax(axis=1) == labels
        table.add_row(
            name,
            f"{right[_NOT_SEEN].mean():.1%}",
            f"{result.support.mean():.2f}",
            f"{np.mean(result.p == 0):.1%}",
            f"{result.rows_per_second:,.0f}",
            f"{result.rows_per_second_in_memory:,.0f}",
        )
    Console().print(table)


def _draw(
    path: Path, results: dict[str, _Scored], logits: NDArray[Any], labels: NDArray[Any], images: NDArray[Any]
) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    softmax = results["softmax"].p.astype(float)
    entropy = -np.sum(softmax * np.log(softmax, where=softmax > 0, out=np.zeros_like(softmax)), axis=1)
    pick = np.arange(len(logits))[_NOT_SEEN][entropy[_NOT_SEEN].argmax()]  # the one that softmax is least sure of

    figure = Figure(figsize=(13, 7), layout=ConstrainedLayoutEngine(wspace=0.06, hspace=0.06))
    FigureCanvasAgg(figure)  # draws without a display
    (image, scores, sizes), below = figure.subplots(2, 3)
    figure.suptitle("One ambiguous digit: from scores to probabilities", fontsize=15, fontweight="bold")

    image.imshow(images[pick], cmap="gray_r", vmin=0, vmax=16)
    image.set_title(f"The digit, 8 × 8 pixels (labelled {labels[pick]})")
    image.set_xticks([])
    image.set_yticks([])

    _bars(scores, logits[pick], "#7f7f7f", "{:.1f}")
    scores.set_title("Its ten scores")
    scores.set_ylabel("score (logit)")
    scores.axhline(0, color="black", linewidth=0.8)
    scores.margins(y=0.15)

    highest = max(result.p[pick].max() for result in results.values())
    for axes, (name, result) in zip(below, results.items(), strict=True):
        _bars(axes, result.p[pick], _COLOURS[name], "{:.2f}")
        axes.set_ylim(0, 1.15 * highest)
        axes.set_title(f"{name}: {np.count_nonzero(result.p[pick])} of 10 answers possible")
        axes.set_ylabel("probability")

    sparse = {name: result.support for name, result in results.items() if name != "softmax"}
    largest = max(support.max() for support in sparse.values())
    for k, (name, support) in enumerate(sparse.items()):
        counts = np.bincount(support, minlength=largest + 1)[1:]
        drawn = sizes.bar(
            np.arange(1, largest + 1) + 0.44 * (k - 0.5), counts, width=0.44, color=_COLOURS[name], label=name
        )
        sizes.bar_label(drawn, [str(count) if count else "" for count in counts], fontsize=8, padding=1)
    sizes.set_yscale("log")
    sizes.set_ylim(0.7, 4 * len(logits))
    sizes.set_xticks(np.arange(1, largest + 1))
    sizes.yaxis.set_major_formatter("{x:,.0f}")
    sizes.set_title(f"Support sizes of all {len(logits):,} digits")
    sizes.set_xlabel("support size: answers possible (softmax: always 10)")
    sizes.set_ylabel("handwritten digits, log scale")
    sizes.legend(frameon=False)
    for axes in (scores, sizes, *below):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)


def _bars(axes: Axes, values: NDArray[Any], colour: str, style: str) -> None:
    """Draw a bar for each digit with its value; an exact zero is a grey 0."""
    drawn = axes.bar(np.arange(len(values)), values, color=colour)
    texts = ["0" if v == 0 else "<.01" if 0 < v < 0.005 else style.format(v) for v in values]
    for label, value in zip(axes.bar_label(drawn, texts, fontsize=8, padding=2), values, strict=True):
        if value == 0:
            label.set_color("#a0a0a0")
    axes.set_xticks(np.arange(len(values)))
    axes.set_xlabel("digit")
