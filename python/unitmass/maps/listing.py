"""The maps and their properties, in one list."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, NamedTuple

from unitmass.maps.bounded import budget, capped_simplex, csoftmax, csparsemax
from unitmass.maps.exponential import ev_softmax, log_softmax, softmax, taylor_softmax, topk_softmax
from unitmass.maps.noise import noisy_argmax
from unitmass.maps.norms import normmax, project_l1_ball
from unitmass.maps.thresholds import entmax, project_simplex, sparsegen, sparsemax

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["MAPS", "Map", "Table", "options", "table"]


class Map(NamedTuple):
    """What is known of a map."""

    name: str
    """The name of its function."""
    sparse: bool
    """Whether it gives exact zeros to finite scores."""
    order_preserving: bool
    """Whether the larger of two scores never gets the smaller value, bounds being equal."""
    shift_invariant: bool
    """Whether a constant added to a row changes nothing."""
    closed_form: bool
    """Whether a formula tells the result, perhaps of the sorted scores; otherwise an equation is solved."""
    cost: str
    """Growth with the n scores of a row; the steps of an iteration and the nodes of an integral are counted apart."""


class Table(tuple[Map, ...]):
    """Maps and their properties; prints as a table."""

    __slots__ = ()

    def __repr__(self) -> str:
        """Align the columns."""
        said = {True: "yes", False: "no"}
        rows = [
            [field.replace("_", " ") for field in Map._fields],
            *([said[cell] if isinstance(cell, bool) else cell for cell in row] for row in self),
        ]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        return "\n".join(lines)


#                      sparse  order  shift  closed  cost
_DECLARED: tuple[tuple[Callable[..., Any], bool, bool, bool, bool, str], ...] = (
    (softmax, False, True, True, True, "O(n)"),
    (log_softmax, False, True, True, True, "O(n)"),
    (sparsemax, True, True, True, True, "O(n) a step"),
    (sparsegen, True, True, True, True, "O(n) a step"),
    (entmax, True, True, True, False, "O(n) a step"),
    (normmax, True, True, True, False, "O(n) a step"),
    (project_simplex, True, True, True, True, "O(n) a step"),
    (capped_simplex, True, True, True, True, "O(n) a step"),
    (budget, True, True, True, True, "O(n) a step"),
    (csparsemax, True, True, True, True, "O(n) a step"),
    (csoftmax, False, True, True, True, "O(n) a step"),
    (project_l1_ball, True, True, False, True, "O(n) a step"),
    (taylor_softmax, False, False, False, True, "O(n)"),
    (topk_softmax, True, True, True, True, "O(n) a step"),
    (ev_softmax, True, True, True, True, "O(n)"),
    (noisy_argmax, False, True, True, False, "O(n) a node"),
)

#: The functions of the maps by name.
MAPS: dict[str, Callable[..., Any]] = {function.__name__: function for function, *_ in _DECLARED}


def options(name: str) -> tuple[str, ...]:
    """Name the options that belong to a map and not to every one."""
    shared = ("x", "axis", "where", "out", "workers", "sparse")
    return tuple(option for option in inspect.signature(MAPS[name]).parameters if option not in shared)


def table() -> Table:
    """List every map with its properties.

    Returns
    -------
    tuple of Map
        A named tuple for each map: `name`, `sparse`, `order_preserving`, `shift_invariant`, `closed_form` and `cost`.
        The whole prints as a table.

    Notes
    -----
    The properties are those of every choice of options, but for the end points: `entmax` has no zeros at alpha 1, and
    noise that is bounded gives zeros to `noisy_argmax`. With bounds that differ from entry to entry the order is kept
    among equal bounds. Of equal scores `topk_softmax` may keep the first alone.

    Examples
    --------
    >>> import unitmass as um
    >>> [row.name for row in um.maps.table() if not row.shift_invariant]
    ['project_l1_ball', 'taylor_softmax']
    >>> print(um.maps.table())
    name             sparse  order preserving  shift invariant  closed form  cost
    softmax          no      yes               yes              yes          O(n)
    ...
    """
    return Table(Map(row[0].__name__, *row[1:]) for row in _DECLARED)
