"""What all losses share: their options, their targets, and the call of a kernel."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict

import numpy as np

from unitmass._arrays import Array, Rows, dense_like, labels_like, mask_like, per_row, targets_like
from unitmass._workers import resolve

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

__all__ = ["Options", "Reduction", "evaluate", "in_type", "index_of", "labels_or_dense", "loss", "sets"]

Reduction: TypeAlias = Literal["none", "sum", "mean"]


class Options(TypedDict, total=False):
    """What every loss takes."""

    axis: int
    reduction: Reduction
    weights: ArrayLike | None
    ignore_index: int | None
    where: ArrayLike | None
    workers: int | None


def evaluate(
    kernel: Callable[..., Any],
    rows: Rows,
    targets: NDArray[Any],
    *parameters: object,
    where: ArrayLike | None,
    weights: ArrayLike | None,
    ignore: int | None,
    reduction: str,
    value_and_grad: bool,
    workers: int | None,
) -> tuple[Any, ...]:
    """Run a loss; return the value as the caller gets it, the gradient or None, and what else the kernel returns."""
    if reduction not in ("none", "sum", "mean"):
        raise ValueError(f"reduction: expected 'none', 'sum' or 'mean', found {reduction!r}")
    request = (
        rows.values,
        targets,
        mask_like(rows, where, "scores"),
        rows.axis,
        1.0 if weights is None else per_row(weights, rows, "weights"),
        ignore,
        reduction,
        bool(value_and_grad),
        resolve(workers),
    )
    values, gradient, reduced, *others = kernel(request, *parameters)
    value = in_type(values.reshape(rows.batch) if reduction == "none" else np.float64(reduced), rows)
    return value, None if gradient is None else rows.finish(gradient), *others


def loss(
    kernel: Callable[..., Any], rows: Rows, targets: NDArray[Any], *parameters: object, **options: Any
) -> Array | tuple[Array, Array]:
    """Run a loss; the options are those of `evaluate`."""
    value, gradient = evaluate(kernel, rows, targets, *parameters, **options)
    return value if gradient is None else (value, gradient)


def in_type(values: NDArray[np.float64] | np.float64, rows: Rows) -> Array:
    """Give numbers the type of the scores; those without axes become scalars."""
    with np.errstate(over="ignore"):
        result: Array = np.asarray(values).astype(rows.dtype)[()]
    return result


def index_of(ignore_index: Any) -> int | None:
    """Take a label to ignore."""
    if ignore_index is None:
        return None
    try:
        index = operator.index(ignore_index)
    except TypeError:
        raise TypeError(f"ignore_index: expected an integer, found {ignore_index!r}") from None
    if not -(2**63) <= index < 2**63:
        raise ValueError(f"ignore_index: must fit in 64 bits, found {index}")
    return index


def labels_or_dense(rows: Rows, targets: ArrayLike, ignore_index: int | None) -> NDArray[Any]:
    """Take a label for each row, or a number for each score."""
    wanted = targets_like(targets, rows, "targets")
    if wanted.dtype != np.int64:
        _refuse(ignore_index)
    return wanted


def _refuse(ignore_index: int | None) -> None:
    if ignore_index is not None:
        raise ValueError(
            f"ignore_index: belongs to integer labels, not to numbers for each score, found {ignore_index}"
        )


def sets(
    rows: Rows, targets: ArrayLike, sparse_labels: bool, ignore_index: int | None
) -> tuple[NDArray[Any], int | None]:
    """Take sets of labels, as numbers or lists; and what fills up the lists."""
    if not sparse_labels:
        _refuse(ignore_index)
        return dense_like(targets, rows, "targets"), None
    lists = labels_like(targets, None, "targets")
    if lists.ndim == rows.values.ndim:
        lists = np.ascontiguousarray(np.moveaxis(lists, rows.axis, -1))
    if lists.ndim != rows.values.ndim or lists.shape[:-1] != rows.batch:
        shape = (*rows.batch[: rows.axis], "m", *rows.batch[rows.axis :])
        expected = ", ".join(map(str, shape))
        raise ValueError(f"targets: expected lists of labels of shape ({expected}), found {np.shape(targets)}")
    return lists, -1 if ignore_index is None else index_of(ignore_index)
