"""The arguments that simulations share: counts, seeds, and room for results."""

from __future__ import annotations

import math
import operator
import os
import re
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Rng", "finite", "real", "room", "seed_of", "whole_number"]

Rng: TypeAlias = "np.random.Generator | int | None"


def whole_number(value: Any, name: str, least: int) -> int:
    """Take an integer from `least` on."""
    try:
        count = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: expected an integer, found {value!r}") from None
    if count < least:
        raise ValueError(f"{name}: must be at least {least}, found {count}")
    if count >= 2**62:
        raise ValueError(f"{name}: must be less than 2**62, found {count}")
    return count


def seed_of(rng: Rng) -> int:
    """Take a seed, or draw one."""
    if rng is None:
        return secrets.randbits(64)
    if isinstance(rng, np.random.Generator):
        return int(rng.integers(2**64, dtype=np.uint64, endpoint=False))
    try:
        seed = operator.index(rng)
    except TypeError:
        raise TypeError(f"rng: expected a Generator, an integer or None, found {rng!r}") from None
    if not 0 <= seed < 2**64:
        raise ValueError(f"rng: a seed must be from 0 to 2**64 - 1, found {seed}")
    return seed


def finite(value: Any, name: str) -> float:
    """Take a finite number."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{name}: expected a number, found {value!r}") from None
    if not math.isfinite(number):
        raise ValueError(f"{name}: must be finite, found {number}")
    return number


def real(values: ArrayLike, name: str) -> NDArray[np.float64]:
    """Take an array of real numbers, of any shape."""
    try:
        array = np.asarray(values)
    except ValueError as error:  # ragged
        raise ValueError(f"{name}: {error}") from None
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name}: expected real numbers, found dtype {array.dtype}")
    return array.astype(np.float64)


def room(shape: tuple[int, ...], name: str, hint: str) -> NDArray[np.int64]:
    """Make an array of 64-bit numbers, unless there is no memory for it; `hint` says what to do then."""
    size = 8 * math.prod(shape)
    message = f"{name}: {size / 2**30:.3g} GiB do not fit; {hint}"
    if size > _SMALL and size > _memory():
        raise MemoryError(message)
    try:
        return np.empty(shape, np.int64)
    except (MemoryError, ValueError):
        raise MemoryError(message) from None


_SMALL = 1 << 26
"""So many bytes are there."""


def _memory() -> float:
    """Find how many bytes there are, at most: those of the machine, those not in use, and those of the container."""
    found = [math.inf]
    if hasattr(os, "sysconf"):
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for path, pattern, unit in _MEMORY:
        with suppress(OSError, ValueError):
            found += [unit * int(number) for number in re.findall(pattern, Path(path).read_text())]
    return min(found)


_MEMORY = (
    ("/proc/meminfo", r"MemAvailable:\s*(\d+) kB", 1024),
    ("/sys/fs/cgroup/memory.max", r"\d+", 1),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", r"\d+", 1),
)
"""Files of Linux, where in them the bytes are, and their unit."""
