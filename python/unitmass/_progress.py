"""Telling those who wait how far a simulation is."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

__all__ = ["Progress", "Tell", "shown"]

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
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    except ImportError:
        progress = False
    if not progress or not sys.stderr.isatty():
        yield None
        return
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("trajectories{task.fields[speed]}"), TimeRemainingColumn())
    with Progress(TextColumn("simulating"), *columns, console=Console(stderr=True), transient=True) as bar:
        task, begun = bar.add_task("", total=n, speed=""), time.perf_counter()

        def tell(done: int, events: int) -> None:
            speed = events / max(time.perf_counter() - begun, 1e-9)
            bar.update(task, completed=done, speed=f", {speed:.3g} events/s")

        yield tell
