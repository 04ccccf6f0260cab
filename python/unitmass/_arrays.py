"""The one policy for arrays: what is accepted, in what type it is computed, and where the result goes."""

from __future__ import annotations

import operator
import reprlib
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from unitmass._workers import resolve

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

__all__ = [
    "Array",
    "Pair",
    "Rows",
    "Triple",
    "axis_of",
    "deliver",
    "dense_like",
    "labels_like",
    "map_elements",
    "map_means",
    "map_pair",
    "map_scores",
    "mask_like",
    "number",
    "numbers_like",
    "pair",
    "per_row",
    "real_numbers",
    "room",
    "targets_like",
]

Array: TypeAlias = "NDArray[np.floating[Any]]"
Pair: TypeAlias = "tuple[Array, Array]"
Triple: TypeAlias = "tuple[Array, NDArray[np.integer[Any]], NDArray[np.integer[Any]]]"

_NATIVE = {dtype: dtype for dtype in map(np.dtype, (np.float32, np.float64, np.float16))}
"""The types of the kernels; a type that equals one, as long double does on some systems, is taken for it."""


class Rows:
    """A C-ordered array of float16, float32 or float64, seen along one axis."""

    __slots__ = ("axis", "dtype", "values")

    def __init__(self, values: Array, axis: int, dtype: np.dtype[Any]) -> None:
        self.values = values
        self.axis = axis
        self.dtype = dtype
        """The type of the result; bfloat16, which NumPy does not know itself, is computed and held in float32."""

    @classmethod
    def of(cls, x: ArrayLike, axis: int, name: str) -> Rows:
        """Take whatever NumPy, DLPack or ml_dtypes call an array of real numbers."""
        given = x if type(x) is np.ndarray else _as_array(x, name)
        if given.ndim == 0:
            raise ValueError(f"{name}: expected an array of at least one dimension, found the scalar {given}")
        axis = axis_of(axis, given.ndim)
        if given.shape[axis] == 0:
            raise ValueError(f"{name}: the axis is empty (axis {axis} of shape {given.shape})")
        computed, dtype = _types(given.dtype, name)
        flags = given.flags
        if given.dtype is not computed or not (flags.c_contiguous and flags.aligned):
            given = np.require(given, computed, ["C", "A"])
        return cls(given, axis, dtype)

    @property
    def batch(self) -> tuple[int, ...]:
        """The shape without the axis."""
        shape = self.values.shape
        return shape[: self.axis] + shape[self.axis + 1 :]

    def finish(self, result: Array) -> Array:
        """Give a result the type that the caller expects."""
        return result if result.dtype == self.dtype else result.astype(self.dtype)


def axis_of(axis: Any, ndim: int) -> int:
    """Take an axis of an array of `ndim` dimensions."""
    try:
        index = operator.index(axis)
    except TypeError:
        raise TypeError(f"axis: expected an integer, found {axis!r}") from None
    if not -ndim <= index < ndim:
        raise np.exceptions.AxisError(f"axis {index} is out of bounds for array of dimension {ndim}")
    return index % ndim


def _as_array(x: Any, name: str, has_where: bool = True) -> NDArray[Any]:
    _refuse_mask(x, name, has_where)
    if hasattr(x, "__dlpack__") and not hasattr(x, "__array__"):
        return np.from_dlpack(x)
    try:
        return np.asarray(x)
    except ValueError as error:  # ragged
        raise ValueError(f"{name}: {error}") from None


def _refuse_mask(x: Any, name: str, has_where: bool = True) -> None:
    if isinstance(x, np.ndarray) and isinstance(x, np.ma.MaskedArray):  # np.ma is imported where it is asked for
        where = f" and where=~np.ma.getmaskarray({name})" if has_where and name in ("x", "scores") else ""
        raise TypeError(f"{name}: a masked array would lose its mask: pass {name}.data{where}")


def _types(dtype: np.dtype[Any], name: str) -> tuple[np.dtype[Any], np.dtype[Any]]:
    """Return the type of the computation's arrays and of the result."""
    native = _NATIVE.get(dtype.newbyteorder("="))
    if native is not None:
        return native, native
    if dtype.kind in "iub":
        return np.dtype(np.float64), np.dtype(np.float64)
    if dtype.name == "bfloat16":
        return np.dtype(np.float32), dtype
    raise TypeError(f"{name}: expected float16, float32, float64, bfloat16, integers or booleans, found dtype {dtype}")


def mask_like(rows: Rows, where: ArrayLike | None, name: str = "x") -> NDArray[np.bool_] | None:
    """Broadcast `where` to the scores; None where it excludes nothing."""
    if where is None or where is True:
        return None
    mask = _as_array(where, "where")
    if mask.dtype != np.bool_:
        raise TypeError(f"where: expected booleans, found dtype {mask.dtype}")
    shape = rows.values.shape
    try:
        return np.ascontiguousarray(np.broadcast_to(mask, shape))
    except ValueError:
        raise ValueError(f"where: shape {mask.shape} does not broadcast to the shape {shape} of {name}") from None


def numbers_like(values: ArrayLike, rows: Rows, name: str) -> NDArray[Any]:
    """Take a number for each score, in any type."""
    given = _as_array(values, name)
    _types(given.dtype, name)
    if given.shape != rows.values.shape:
        raise ValueError(f"{name}: expected the shape {rows.values.shape} of scores, found {given.shape}")
    return given


def dense_like(values: ArrayLike, rows: Rows, name: str) -> Array:
    """Take a number for each score, in the type of the computation."""
    with np.errstate(over="ignore"):
        return np.require(numbers_like(values, rows, name), rows.values.dtype, ["C", "A"])


def labels_like(values: ArrayLike, shape: tuple[int, ...] | None, name: str) -> NDArray[np.int64]:
    """Take integers of a shape, or of any."""
    given = _as_array(values, name)
    if given.dtype.kind not in "iu" and given.size:
        raise TypeError(f"{name}: expected integer labels, found dtype {given.dtype}")
    if shape is not None and given.shape != shape:
        raise ValueError(f"{name}: expected labels of the batch shape {shape}, found {given.shape}")
    if given.dtype.kind == "u" and given.size and given.max() > np.iinfo(np.int64).max:
        raise ValueError(f"{name}: a label must fit in 63 bits, found {given.max()}")
    return np.require(given, np.int64, ["C", "A"])


def targets_like(values: ArrayLike, rows: Rows, name: str) -> Array | NDArray[np.int64]:
    """Take a label for each row, or a number for each score: they differ in their dimensions."""
    given = _as_array(values, name)
    shape = rows.values.shape
    if given.ndim == len(shape) and given.shape != shape and given.dtype.kind in "iu":
        raise ValueError(
            f"{name}: expected labels of shape {rows.batch} or numbers of shape {shape}, found {given.shape}"
        )
    if given.ndim == len(shape) or (given.dtype.kind == "f" and given.ndim != len(rows.batch)):
        return dense_like(given, rows, name)
    return labels_like(given, rows.batch, name)


def number(value: Any, name: str) -> float:
    """Take a real number."""
    if not isinstance(value, (float, int)):
        value = _numbers(value, name, "a real number")
        if value.ndim:
            raise TypeError(f"{name}: expected a real number, found an array of shape {value.shape}")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{name}: must be finite, found an integer beyond the range of float64") from None


def _numbers(value: Any, name: str, expected: str) -> NDArray[Any]:
    values = _as_array(value, name)
    if values.dtype.kind not in "fiub" and values.dtype.name != "bfloat16":
        raise TypeError(f"{name}: expected {expected}, found {reprlib.repr(value)}")
    return values


def per_row(value: Any, rows: Rows, name: str) -> float | NDArray[np.float64]:
    """Take a real number, or one for each row: an array that broadcasts to the batch."""
    if isinstance(value, (float, int)):
        return number(value, name)
    values = _numbers(value, name, "a real number or an array of them")
    if values.ndim == 0:
        return float(values)
    try:
        each = np.broadcast_to(values, rows.batch)
    except ValueError:
        raise ValueError(f"{name}: shape {values.shape} does not broadcast to the batch shape {rows.batch}") from None
    return np.array(each, np.float64, order="C").reshape(-1)  # a copy: `out` may be what was passed


def _check_out(out: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Refuse an `out` that cannot hold the result."""
    if out is None:
        return
    _refuse_mask(out, "out")
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out: expected an ndarray, found {type(out).__name__}")
    if out.shape != shape:
        raise ValueError(f"out: expected shape {shape}, found {out.shape}")
    if not np.can_cast(dtype, out.dtype, "same_kind"):
        raise TypeError(f"out: cannot hold dtype {dtype} in dtype {out.dtype} (casting is 'same_kind')")
    if not out.flags.writeable:
        raise ValueError("out: the array is read-only")


def _takes_directly(out: Array, rows: Rows) -> bool:
    if not out.size:  # shares no memory with anything, and yet a kernel cannot borrow it twice
        return False
    return out.dtype == rows.values.dtype and out.flags.c_contiguous and out.flags.aligned


def map_scores(
    kernel: Callable[..., Array | None],
    x: ArrayLike | Rows,
    axis: int,
    parameter: Any,
    *options: object,
    name: str,
    where: ArrayLike | None,
    out: Array | None,
    workers: int | None,
) -> Array:
    """Run a map from scores, with a parameter that may differ from row to row, to an array of their shape."""
    count = resolve(workers)
    as_it_comes = where is None and out is None and type(x) is np.ndarray and type(axis) is int and axis == -1
    if as_it_comes and isinstance(parameter, float):
        result = kernel(x, None, None, axis, parameter, *options, count)
        if result is not None:
            return result
    rows = x if isinstance(x, Rows) else Rows.of(x, axis, "x")
    values = rows.values
    each = per_row(parameter, rows, name)
    mask = None if where is None else mask_like(rows, where)
    _check_out(out, values.shape, rows.dtype)
    if mask is not None and out is not None and np.may_share_memory(mask, out):
        mask = mask.copy()
    source: Array | None = values
    target = None
    if out is not None and _takes_directly(out, rows):
        if not np.may_share_memory(values, out):
            target = out
        elif values.ctypes.data == out.ctypes.data:
            source, target = None, out  # the kernel reads its scores from the output
    result = kernel(source, mask, target, rows.axis, each, *options, count)
    assert result is not None
    return deliver(result, out, rows)


def room(out: Array | None, shape: tuple[int, ...], rows: Rows, *others: NDArray[Any] | None) -> Array:
    """Find where a kernel can write: `out` if that holds neither the rows nor other inputs, else a new array."""
    _check_out(out, shape, rows.dtype)
    inputs = [rows.values, *(other for other in others if other is not None)]
    if out is None or not _takes_directly(out, rows) or any(np.may_share_memory(out, each) for each in inputs):
        return np.empty(shape, rows.values.dtype)
    return out


def deliver(target: Array, out: Array | None, rows: Rows) -> Array:
    """Give the caller what a kernel has written."""
    if out is None:
        return rows.finish(target)
    if target is not out:
        np.copyto(out, target, casting="same_kind")
    return out


def pair(p: ArrayLike, g: ArrayLike, axis: int, name: str = "p") -> tuple[Rows, Array]:
    """Take the result of a map, and a vector for each row in the same shape and type."""
    rows = Rows.of(p, axis, name)
    other = _as_array(g, "g")
    _types(other.dtype, "g")
    if other.shape != rows.values.shape:
        raise ValueError(f"g: expected the shape {rows.values.shape} of {name}, found {other.shape}")
    return rows, np.require(other, rows.values.dtype, ["C", "A"])


def map_pair(
    kernel: Callable[..., None],
    rows: Rows,
    g: Array,
    *parameters: object,
    shape: tuple[int, ...],
    out: Array | None,
    workers: int | None,
) -> Array:
    """Run a gradient."""
    count = resolve(workers)
    target = room(out, shape, rows, g)
    kernel(rows.values, g, target, rows.axis, *parameters, count)
    return deliver(target, out, rows)


def real_numbers(value: Any, name: str) -> NDArray[Any]:
    """Take an array of real numbers that are parameters."""
    return _numbers(value, name, "real numbers")


def _targets(out: Any, value_and_grad: bool) -> list[Any]:
    """Take `out=` of a function that may return derivatives too, for which it is a pair."""
    if not value_and_grad:
        return [out]
    if out is None:
        return [None, None]
    if not isinstance(out, tuple) or len(out) != 2:
        raise TypeError("out: expected a tuple of two arrays, for the values and the derivatives")
    if all(isinstance(each, np.ndarray) for each in out) and np.may_share_memory(*out):
        raise ValueError("out: the two arrays overlap")
    return list(out)


def map_elements(
    kernel: Callable[..., None],
    x: ArrayLike,
    *parameters: object,
    value_and_grad: bool,
    out: Array | Pair | None,
    workers: int | None,
) -> Array | Pair:
    """Run a function value by value; scalars are values too."""
    count = resolve(workers)
    given = x if type(x) is np.ndarray else _as_array(x, "x", has_where=False)
    computed, dtype = _types(given.dtype, "x")
    rows = Rows(np.require(given, computed, ["C", "A"]), 0, dtype)
    values = rows.values
    outs = _targets(out, value_and_grad)
    targets = [room(each, values.shape, rows) for each in outs]
    source: Array | None = values
    if outs[0] is not None and _takes_directly(outs[0], rows) and values.ctypes.data == outs[0].ctypes.data:
        source, targets[0] = None, outs[0]  # the kernel reads its values from the output
    kernel(source, targets[0], targets[1] if value_and_grad else None, *parameters, count)
    return _deliver_all(targets, outs, rows)


def map_means(
    kernel: Callable[..., None],
    x: ArrayLike,
    axis: int,
    *parameters: object,
    where: ArrayLike | None,
    value_and_grad: bool,
    out: Array | Pair | None,
    workers: int | None,
) -> Array | Pair:
    """Run a function from rows to values, which may have a gradient of the shape of the rows."""
    count = resolve(workers)
    rows = Rows.of(x, axis, "x")
    mask = mask_like(rows, where)
    outs = _targets(out, value_and_grad)
    shapes = [rows.batch, rows.values.shape]
    targets = [room(each, shape, rows, mask) for each, shape in zip(outs, shapes, strict=False)]
    kernel(rows.values, mask, targets[0], targets[1] if value_and_grad else None, rows.axis, *parameters, count)
    return _deliver_all(targets, outs, rows)


def _deliver_all(targets: list[Array], outs: list[Any], rows: Rows) -> Array | Pair:
    delivered = [deliver(target, out, rows) for target, out in zip(targets, outs, strict=True)]
    # As NumPy does, a scalar for a scalar.
    results = [r if out is not None or r.ndim else r[()] for r, out in zip(delivered, outs, strict=True)]
    return results[0] if len(results) == 1 else (results[0], results[1])
