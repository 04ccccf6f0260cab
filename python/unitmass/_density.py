"""Laws of angles, in the forms that callers have them."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unitmass import _core
from unitmass._arguments import finite, real

__all__ = ["Density", "density_of"]

Density: TypeAlias = "str | Callable[[NDArray[np.float64]], ArrayLike] | ArrayLike | None"

_NAMED = {"vonmises": _core.Density.von_mises, "wrappednormal": _core.Density.wrapped_normal}


def density_of(density: Density) -> _core.Density | None:
    """Take a density; None stands for the uniform one."""
    if density is None:
        return None
    if isinstance(density, str):
        return _named(density)
    masses = _masses_of_function(density) if callable(density) else _masses_of_table(density)
    return _core.Density(masses)


@lru_cache(8)
def _named(text: str) -> _core.Density:
    name, _, parameter = text.partition(":")
    make = _NAMED.get(name)
    if make is None or not parameter:
        raise ValueError(f"density: expected 'vonmises:KAPPA' or 'wrappednormal:SIGMA', found {text!r}")
    try:
        return make(finite(parameter, name))
    except ValueError as error:
        raise ValueError(f"density: {error}") from None


def _masses_of_function(density: Callable[[NDArray[np.float64]], ArrayLike]) -> NDArray[np.float64]:
    """Integrate over each cell by Gauss's rule of three points."""
    nodes, weights = np.polynomial.legendre.leggauss(3)
    angles = (np.arange(_core.Density.CELLS)[:, None] + (nodes + 1) / 2) * (2 * np.pi / _core.Density.CELLS)
    values = real(density(angles.ravel()), "density: values of the function")
    if values.shape != (angles.size,):
        raise ValueError(f"density: the function returned shape {values.shape} for angles of shape {(angles.size,)}")
    return np.ascontiguousarray(_scaled(values).reshape(angles.shape) @ weights)


def _masses_of_table(density: Any) -> NDArray[np.float64]:
    """Integrate the straight lines between the values of a table."""
    values = real(density, "density")
    if values.ndim != 1 or values.size < 2:
        raise ValueError(f"density: a table needs one dimension and two values or more, found shape {values.shape}")
    values = _scaled(values)
    closed = np.append(values, values[0])
    cumulated = np.append(0, np.cumsum((closed[1:] + closed[:-1]) / 2))
    place = np.arange(_core.Density.CELLS + 1) * (values.size / _core.Density.CELLS)
    index = np.minimum(place.astype(np.intp), values.size - 1)
    part = place - index
    return np.diff(cumulated[index] + part * (closed[index] + part * np.diff(closed)[index] / 2)).clip(0)


def _scaled(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Make the largest value 1: neither sums nor means of values leave the range of numbers then."""
    bad = values[~((values >= 0) & np.isfinite(values))]
    if bad.size:
        raise ValueError(f"density: must be finite and not negative, found {bad[0]}")
    largest = values.max()
    if largest == 0:
        raise ValueError("density: must be above 0 somewhere, found only 0.0")
    scaled: NDArray[np.float64] = values / largest
    return scaled
