"""Columns of Arrow data as matrices of scores, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

    import pyarrow as pa
    from numpy.typing import NDArray

__all__ = ["choose", "empty", "lists", "matrix", "pyarrow", "targets", "value_type", "vector"]


def pyarrow() -> ModuleType:
    """Import pyarrow, or say how to get it."""
    try:
        import pyarrow
        import pyarrow.types
    except ImportError:
        raise ImportError('pyarrow is needed for this: pip install "unitmass[cli]"') from None
    module: ModuleType = pyarrow
    return module


def empty(schema: pa.Schema) -> pa.RecordBatch:
    """Make a batch without rows."""
    pa = pyarrow()
    return pa.RecordBatch.from_arrays([pa.array([], field.type) for field in schema], schema=schema)


def _is_number(kind: pa.DataType) -> bool:
    types = pyarrow().types
    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind))


def _is_list(kind: pa.DataType) -> bool:
    types = pyarrow().types
    known = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    return bool(known and _is_number(kind.value_type))


def value_type(kind: pa.DataType) -> pa.DataType:
    """Tell the type of a score in a column of type `kind`."""
    return kind.value_type if _is_list(kind) else kind


def choose(schema: pa.Schema, column: str | None, columns: Sequence[str] | None) -> list[int]:
    """Give the places in `schema` of the columns to score."""
    if column is None and columns is None:
        found = [field.name for field in schema if _is_list(field.type)]
        numeric = [field.name for field in schema if _is_number(field.type)]
        if len(found) != 1:
            there = (
                f"there are several list columns: {', '.join(found)}" if found else "there is no list column of numbers"
            )
            there += "" if found or not numeric else f"; numeric columns: {', '.join(numeric)}"
            raise ValueError(f"name the column or columns of scores: {there}")
        column = found[0]
    places = []
    for name in [column] if columns is None else columns:
        found_at = schema.get_all_field_indices(name)
        if not found_at:
            raise ValueError(f"column {name!r} does not exist; the columns are {', '.join(schema.names)}")
        if len(found_at) > 1:
            raise ValueError(f"column {name!r} occurs {len(found_at)} times")
        kind = schema.field(found_at[0]).type
        if columns is None and not _is_list(kind):
            hint = "; numeric columns are scored together, as `columns`" if _is_number(kind) else ""
            raise TypeError(f"column {name!r} is {kind}, not a list of numbers{hint}")
        if columns is not None and not _is_number(kind):
            hint = "; a list column is scored by itself, as `column`" if _is_list(kind) else ""
            raise TypeError(f"column {name!r} is {kind}, not numeric{hint}")
        places.append(found_at[0])
    return places


def vector(array: pa.Array, name: str, row: int) -> NDArray[Any]:
    """Give a numeric column as an ndarray; `row` is that of its first value, for messages."""
    return _numbers(array, f"column {name!r}: row", row, 1, "is null")


def matrix(array: pa.Array, name: str, row: int, width: int | None) -> NDArray[Any]:
    """Give a list column as a matrix; `row` is its first row and `width` the length of the lists before it."""
    where = f"column {name!r}: row"
    _refuse_nulls(array, where, row, 1, "is null")
    if pyarrow().types.is_fixed_size_list(array.type):
        size = array.type.list_size
        if size == 0:
            raise ValueError(f"column {name!r}: its lists are empty")
        values = array.values.slice(array.offset * size, len(array) * size)
    else:
        offsets = array.offsets.to_numpy()
        lengths = np.diff(offsets)
        size = width or (int(lengths[0]) if len(lengths) else 1)
        if size == 0:
            raise ValueError(f"{where} {row} is an empty list (counting from 0)")
        wrong = lengths != size
        if wrong.any():
            at = int(wrong.argmax())
            raise ValueError(
                f"{where} {row + at} has {lengths[at]} values where the rows before it have {size} (counting from 0)"
            )
        values = array.values.slice(offsets[0], offsets[-1] - offsets[0]) if len(array) else array.values.slice(0, 0)
    return _numbers(values, where, row, size, "has a null").reshape(-1, size)


def targets(batch: pa.RecordBatch, name: str, row: int, width: int, fill: int | None) -> NDArray[Any]:
    """Give what scores are compared with: a vector, a matrix of `width`, or lists of labels, filled up with `fill`."""
    schema = batch.schema
    is_list = name in schema.names and _is_list(schema.field(name).type)
    (place,) = choose(schema, name if is_list else None, None if is_list else [name])
    array = batch.column(place)
    if not is_list:
        return vector(array, name, row)
    if fill is None:
        return matrix(array, name, row, width)
    _refuse_nulls(array, f"column {name!r}: row", row, 1, "is null")
    lengths = array.value_lengths().to_numpy(zero_copy_only=False)
    padded = np.full((len(array), max(lengths.max(initial=0), 1)), fill, np.int64)
    labels = vector(array.flatten(), name, row)
    if labels.dtype.kind not in "iu":
        raise TypeError(f"column {name!r} is {array.type}, not lists of labels")
    padded[np.arange(padded.shape[1]) < lengths[:, np.newaxis]] = labels
    return padded


def _numbers(array: pa.Array, where: str, row: int, per_row: int, what: str) -> NDArray[Any]:
    _refuse_nulls(array, where, row, per_row, what)
    copy = pyarrow().types.is_boolean(array.type)  # Arrow keeps eight of them in a byte
    numbers: NDArray[Any] = array.to_numpy(zero_copy_only=not copy)
    return numbers


def _refuse_nulls(array: pa.Array, where: str, row: int, per_row: int, what: str) -> None:
    if array.null_count:
        at = int(array.is_null().to_numpy(zero_copy_only=False).argmax())
        raise ValueError(f"{where} {row + at // per_row} {what} (counting from 0)")


def lists(kind: pa.DataType, values: NDArray[Any], indptr: NDArray[Any], fixed: bool = False) -> pa.Array:
    """Give ``values[indptr[i]:indptr[i + 1]]`` as lists of the kind of `kind`, of fixed size only if `fixed`."""
    pa = pyarrow()
    flat = pa.array(np.ascontiguousarray(values))
    item = kind.value_field.with_type(flat.type)
    if fixed and pa.types.is_fixed_size_list(kind):
        return pa.FixedSizeListArray.from_arrays(flat, type=pa.list_(item, kind.list_size))
    if pa.types.is_large_list(kind):
        return pa.LargeListArray.from_arrays(pa.array(indptr.astype(np.int64)), flat, type=pa.large_list(item))
    return pa.ListArray.from_arrays(pa.array(indptr.astype(np.int32)), flat, type=pa.list_(item))
