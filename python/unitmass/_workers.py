"""How many threads a call uses."""

from __future__ import annotations

import operator
import os
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import TYPE_CHECKING

from unitmass import _core

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["resolve", "set_workers"]

VARIABLE = "UNITMASS_NUM_THREADS"

MOST = 1024
"""Threads that a call may ask for."""

_current: ContextVar[int | None] = ContextVar("unitmass_workers", default=None)


@cache
def available() -> int:
    """Count the cores that this process may use; once, for asking the system takes as long as a small call."""
    return _core.available_workers()


@cache
def _from_environment() -> int:
    value = os.environ.get(VARIABLE, "")
    if not value:
        return available()
    try:
        return _count(int(value), VARIABLE)
    except ValueError:
        raise ValueError(f"{VARIABLE}: expected a number of threads other than 0, found {value!r}") from None


def _count(workers: int, name: str) -> int:
    try:
        number = operator.index(workers)
    except TypeError:
        raise TypeError(f"{name}: expected an integer or None, found {workers!r}") from None
    count = number if number > 0 else available() + 1 + number
    if number == 0 or not 1 <= count <= MOST:
        raise ValueError(
            f"{name}: expected a number from 1 to {MOST}, or a negative one down to -{available()}, found {number}"
        )
    return count


def resolve(workers: int | None) -> int:
    """Return the number of threads that `workers` asks for; None stands for the setting, or the environment's."""
    if workers is not None:
        return _count(workers, "workers")
    current = _current.get()
    return _from_environment() if current is None else current


@contextmanager
def set_workers(workers: int) -> Iterator[None]:
    """Set the default number of threads inside a ``with`` block.

    Parameters
    ----------
    workers : int
        Threads for every call that does not pass its own `workers`. Negative numbers count back from all the cores
        that the process may use: -1 is all of them.

    Raises
    ------
    ValueError
        If `workers` is 0, above 1024, or negative beyond the number of cores.
    TypeError
        If `workers` is not an integer.

    Notes
    -----
    The setting belongs to the current thread or task (it is a context variable) and blocks nest. Outside of every
    block the environment variable ``UNITMASS_NUM_THREADS`` sets the default; without it, all cores are used. Results
    never depend on the number of threads.

    Examples
    --------
    >>> import unitmass as um
    >>> with um.set_workers(1):
    ...     p = um.softmax([0.0, 0.0])
    >>> p
    array([0.5, 0.5])
    """
    token = _current.set(_count(workers, "workers"))
    try:
        yield
    finally:
        _current.reset(token)
