"""Telling those who wait how far the work is."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeAlias

__all__ = ["Progress", "Tell", "bar", "shown"]

Progress: TypeAlias = "bool | Callable[[int, int], object]"
Tell: TypeAlias = "Callable[[int, int], object] | None"


@contextmanager
def shown(progress: Progress, n: int) -> Iterator[Tell]:
    """Make what takes the numbers of trajectories and events that are done.

    It draws a bar on a terminal's standard error (if rich is there to draw it), or calls `progress` with the
    trajectories that are done and their number.
    """
    if callable(progress):
        call = progress
        yield lambda done, events: call(done, n)
        call(n, n)
        return
    with bar("simulating", "trajectories{task.fields[speed]}", off=not progress, total=n, speed="") as update:
        begun = time.perf_counter()

        def tell(done: int, events: int) -> None:
            speed = events / max(time.perf_counter() - begun, 1e-9)
            update(completed=done, speed=f", {speed:.3g} events/s")

        yield tell if update else None


@contextmanager
def bar(title: str, unit: str, *, off: bool, **fields: Any) -> Iterator[Any]:
    """Draw a bar on a terminal's standard error, if rich is there, and give what updates it; otherwise None."""
    off = off or not sys.stderr.isatty()
    if not off:
        try:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
        except ImportError:
            off = True
    if off:
        yield None
        return
    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TextColumn(unit), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as drawn:
        yield partial(drawn.update, drawn.add_task("", **fields))
