"""The scoring engine: batches or files of scores in, the same with probabilities out.

`score_batches` maps an iterator to an iterator. `score_file` puts a reader in front of it and a writer behind it, one
pair of small classes for each format:

    reader.batches(start, growth) -> score_batches -> writer.write(batch) -> a record for the journal

The writer works in the folder ``OUT.partial`` beside the target. A journal in that folder holds one line for every
batch that is safely on disk. A run that was cut short goes on behind the last such line; a file is the same, byte for
byte, in however many pieces it was written. Only a whole file is renamed to its target.
"""

from __future__ import annotations

import base64
import csv
import inspect
import io
import json
import math
import os
import shutil
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from unitmass.maps import entmax, log_softmax, project_simplex, softmax, sparsemax

try:
    import fcntl
except ImportError:  # Windows: two runs at once on one target are then not noticed.
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    Batch = pa.RecordBatch | pa.Table | NDArray[Any]
    Window = tuple[int, int, int, int]

__all__ = ["MAPS", "SPARSE_MAPS", "file_format", "score_batches", "score_file"]

T = TypeVar("T")

#: The maps by name, each with the options that belong to it.
MAPS: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
    "softmax": (softmax, ("temperature",)),
    "log_softmax": (log_softmax, ("temperature",)),
    "sparsemax": (sparsemax, ()),
    "entmax": (entmax, ("alpha", "method", "n_iter")),
    "project_simplex": (project_simplex, ("total",)),
}
#: The maps that give exact zeros.
SPARSE_MAPS = ("sparsemax", "entmax", "project_simplex")

BATCH_BYTES = 32 << 20  # of a batch, read or written, whichever is larger
READ_BYTES = 4 << 20  # of a step of a reader; several make a batch
COMMIT_SECONDS = 2.0  # at most this much work is lost to a kill

_COUNTED = "(counting from 0)"


# --- batches --------------------------------------------------------------------------------------------------------


def score_batches(
    batches: Iterable[T],
    *,
    map: str = "softmax",
    column: str | None = None,
    columns: Sequence[str] | None = None,
    axis: int = -1,
    sparse: bool = False,
    workers: int | None = None,
    **options: Any,
) -> Iterator[T]:
    """Turn batches of scores into batches of probabilities, one at a time.

    Parameters
    ----------
    batches : iterable of ndarray, pyarrow.RecordBatch or pyarrow.Table
        The scores. Each batch is asked for when its result is, so a stream of any length takes the memory of one batch.
    map : {"softmax", "log_softmax", "sparsemax", "entmax", "project_simplex"}
        The map, by the name of its function.
    column : str, optional
        Arrow only: the list column (list, large list or fixed-size list of numbers) that holds the scores of a row. By
        default the only list column there is.
    columns : sequence of str, optional
        Arrow only, in place of `column`: the numeric columns that hold one score each.
    axis : int, default -1
        Arrays only: the axis of the distributions.
    sparse : bool, default False
        Keep only the entries that are not zero (sparsemax, entmax and project_simplex). A list column `NAME` gives way
        to the two list columns `NAME_indices` (int32) and `NAME_values`; an array becomes a CSR triple
        ``(data, indices, indptr)``.
    workers : int, optional
        Threads to use; all available ones by default. The result does not depend on it.
    **options
        Options of the map: `temperature`, `alpha`, `method`, `n_iter` or `total`.

    Returns
    -------
    iterator
        A batch of the same kind for each batch of `batches`. The probabilities stand in place of the scores; other
        columns, the order of the columns and the metadata stay. Its attributes `rows`, `nan_rows` and `nbytes` (of
        scores) count what has gone through.

    Raises
    ------
    ValueError
        At once if `map` is unknown or an option has no meaning for it. From the iterator if a score is null or a list
        is longer or shorter than the one before it; the message has the row, counted from 0 over all batches.
    TypeError
        From the iterator if a batch or the type of a column cannot be scored.

    Notes
    -----
    Arrow data without nulls is read where it lies, with no copy, unless it is boolean or comes in several columns. The
    arguments are plain values, so the call can be made on the workers of Dask, Ray or Spark:
    ``frame.mapInArrow(lambda batches: score_batches(batches, map="sparsemax", column="logits"), schema)``.

    Examples
    --------
    >>> import numpy as np
    >>> import unitmass as um
    >>> batches = (np.array([[0.0, 0.25 * k]]) for k in range(3))
    >>> for p in um.score_batches(batches, map="sparsemax"):
    ...     print(p)
    [[0.5 0.5]]
    [[0.375 0.625]]
    [[0.25 0.75]]
    """
    return _Scores(batches, map, column, columns, axis, sparse, workers, options)


class _Scores:
    """The iterator behind `score_batches`."""

    def __init__(
        self,
        batches: Iterable[Any],
        map: str,
        column: str | None,
        columns: Sequence[str] | None,
        axis: int,
        sparse: bool,
        workers: int | None,
        options: dict[str, Any],
    ) -> None:
        if map not in MAPS:
            raise ValueError(f"map: unknown map {map!r}; the maps are {', '.join(MAPS)}")
        function, known = MAPS[map]
        for name in options:
            if name not in known:
                raise ValueError(f"{name}: not an option of {map}")
        if sparse and map not in SPARSE_MAPS:
            raise ValueError(f"sparse: {map} has no zeros to leave out; use {', '.join(SPARSE_MAPS)}")
        if column is not None and columns is not None:
            raise ValueError("column, columns: give one of the two")
        if isinstance(columns, str):
            raise TypeError(f"columns: a sequence of names is needed, not the string {columns!r}")
        if columns is not None and not columns:
            raise ValueError("columns: no name is given")
        for name in columns or ():
            if list(columns or ()).count(name) > 1:
                raise ValueError(f"columns: {name!r} is named twice")
        self._batches = iter(batches)
        self._function = function
        self._arguments = {"workers": workers, **options, **({"sparse": True} if sparse else {})}
        self._column, self._columns, self._axis, self._sparse = column, columns, axis, sparse
        self._width: int | None = None
        self.rows = self.nan_rows = self.nbytes = 0
        self.dtype: np.dtype[Any] | None = None  # of the probabilities
        self._written = 0  # bytes in memory for a probability
        self.growth = 1.0  # the same for each byte of scores
        function(np.zeros((1, 1)), **self._arguments)  # so that a bad value of an option is found before any work

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return self.score(next(self._batches))

    def score(self, batch: Any) -> Any:
        if isinstance(batch, np.ndarray):
            return self._array(batch, self._axis)
        pa = _pyarrow()
        if isinstance(batch, pa.RecordBatch):
            return self._record_batch(batch)
        if isinstance(batch, pa.Table):
            pieces = batch.to_batches() or [_empty(batch.schema)]
            return pa.Table.from_batches([self._record_batch(piece) for piece in pieces])
        raise TypeError(f"batches: {type(batch).__name__} is neither an ndarray nor a pyarrow RecordBatch or Table")

    def _array(self, x: NDArray[Any], axis: int) -> Any:
        p = self._function(x, axis=axis, **self._arguments)
        if self._sparse:
            data, indices, indptr = p
            rows = len(indptr) - 1
            first = data[indptr[:-1][np.diff(indptr) > 0]]
            self.dtype, self._written = data.dtype, data.itemsize + indices.itemsize
        else:
            first = np.moveaxis(p, axis, 0)[0]
            rows = first.size
            self.dtype, self._written = p.dtype, p.itemsize
        self.growth = max(1.0, self._written / x.itemsize)
        self.rows += rows
        self.nan_rows += int(np.count_nonzero(np.isnan(first)))  # a row is NaN as a whole or not at all
        self.nbytes += x.nbytes
        return p

    def _record_batch(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        pa = _pyarrow()
        schema = batch.schema
        chosen = _choose(schema, self._column, self._columns)
        bits = min(_value_type(schema.field(i).type).bit_width for i in chosen)
        new: dict[int, list[tuple[Any, Any]]] = {}  # fields and arrays
        if self._columns is not None:
            if self._sparse:
                raise ValueError("sparse: needs a list column, not several numeric columns")
            scores = [_numbers(batch.column(i), schema.names[i], self.rows) for i in chosen]
            p = self._array(np.stack(scores, axis=1), 1)
            for k, i in enumerate(chosen):
                values = pa.array(np.ascontiguousarray(p[:, k]))
                new[i] = [(schema.field(i).with_type(values.type), values)]
        else:
            (i,) = chosen
            array, field = batch.column(i), schema.field(i)
            x = _rows_of_lists(array, field.name, self.rows, self._width)
            if len(x):
                self._width = x.shape[1]
            p = self._array(x, 1)
            if self._sparse:
                data, indices, indptr = p
                if clash := {f"{field.name}_indices", f"{field.name}_values"} & set(schema.names):
                    raise ValueError(f"{clash.pop()}: the batch has a column of this name already")
                for part, values in (("indices", indices.astype(np.int32, copy=False)), ("values", data)):
                    lists = _lists(array.type, values, indptr)
                    new.setdefault(i, []).append((pa.field(f"{field.name}_{part}", lists.type), lists))
            else:
                indptr = np.arange(len(x) + 1, dtype=np.int64) * x.shape[1]
                lists = _lists(array.type, p.reshape(-1), indptr, fixed=True)
                new[i] = [(field.with_type(lists.type), lists)]
        self.growth = max(1.0, 8 * self._written / bits)
        pairs = [pair for i in range(len(schema)) for pair in new.get(i, [(schema.field(i), batch.column(i))])]
        fields, arrays = zip(*pairs, strict=True)
        return pa.RecordBatch.from_arrays(list(arrays), schema=pa.schema(fields, metadata=schema.metadata))


def _pyarrow() -> ModuleType:
    try:
        import pyarrow
        import pyarrow.types
    except ImportError:
        raise ImportError('pyarrow is needed for this: pip install "unitmass[cli]"') from None
    module: ModuleType = pyarrow
    return module


def _empty(schema: pa.Schema) -> pa.RecordBatch:
    pa = _pyarrow()
    return pa.RecordBatch.from_arrays([pa.array([], field.type) for field in schema], schema=schema)


def _is_number(kind: pa.DataType) -> bool:
    types = _pyarrow().types
    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind))


def _is_list(kind: pa.DataType) -> bool:
    types = _pyarrow().types
    known = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    return bool(known and _is_number(kind.value_type))


def _value_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if _is_list(kind) else kind


def _choose(schema: pa.Schema, column: str | None, columns: Sequence[str] | None) -> list[int]:
    """Give the places in `schema` of the columns to score."""
    if column is None and columns is None:
        lists = [field.name for field in schema if _is_list(field.type)]
        if len(lists) != 1:
            numbers = [field.name for field in schema if _is_number(field.type)]
            found = f"several list columns: {', '.join(lists)}" if lists else "no list column of numbers"
            found += "" if lists or not numbers else f"; numeric columns: {', '.join(numbers)}"
            raise ValueError(f"name the column or columns of scores: there are {found}")
        column = lists[0]
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


def _numbers(array: pa.Array, name: str, row: int, width: int | None = None) -> NDArray[Any]:
    """Give `array` as an ndarray; `row` is that of its first value and `width` the length of its lists, if any."""
    if array.null_count:
        at = int(array.is_null().to_numpy(zero_copy_only=False).argmax())
        what = "is null" if width is None else "has a null"
        raise ValueError(f"column {name!r}: row {row + at // (width or 1)} {what} {_COUNTED}")
    copy = _pyarrow().types.is_boolean(array.type)  # Arrow keeps eight of them in a byte
    numbers: NDArray[Any] = array.to_numpy(zero_copy_only=not copy)
    return numbers


def _rows_of_lists(array: pa.Array, name: str, row: int, width: int | None) -> NDArray[Any]:
    """Give a list column as a matrix; `row` is its first row and `width` the length of the lists before it."""
    if array.null_count:
        at = int(array.is_null().to_numpy(zero_copy_only=False).argmax())
        raise ValueError(f"column {name!r}: row {row + at} is null {_COUNTED}")
    if _pyarrow().types.is_fixed_size_list(array.type):
        size = array.type.list_size
        if size == 0:
            raise ValueError(f"column {name!r}: its lists are empty")
        values = array.values.slice(array.offset * size, len(array) * size)
    else:
        offsets = array.offsets.to_numpy()
        lengths = np.diff(offsets)
        size = width or (int(lengths[0]) if len(lengths) else 1)
        if size == 0:
            raise ValueError(f"column {name!r}: row {row} is an empty list {_COUNTED}")
        wrong = lengths != size
        if wrong.any():
            at = int(wrong.argmax())
            raise ValueError(
                f"column {name!r}: row {row + at} has {lengths[at]} values "
                f"where the rows before it have {size} {_COUNTED}"
            )
        values = array.values.slice(offsets[0], offsets[-1] - offsets[0]) if len(array) else array.values.slice(0, 0)
    return _numbers(values, name, row, size).reshape(-1, size)


def _lists(kind: pa.DataType, values: NDArray[Any], indptr: NDArray[Any], fixed: bool = False) -> pa.Array:
    """Give ``values[indptr[i]:indptr[i + 1]]`` as lists of the kind of `kind`, of fixed size only if `fixed`."""
    pa = _pyarrow()
    flat = pa.array(np.ascontiguousarray(values))
    item = kind.value_field.with_type(flat.type)
    if fixed and pa.types.is_fixed_size_list(kind):
        return pa.FixedSizeListArray.from_arrays(flat, type=pa.list_(item, kind.list_size))
    if pa.types.is_large_list(kind):
        return pa.LargeListArray.from_arrays(pa.array(indptr.astype(np.int64)), flat, type=pa.large_list(item))
    return pa.ListArray.from_arrays(pa.array(indptr.astype(np.int32)), flat, type=pa.list_(item))


# --- Parquet --------------------------------------------------------------------------------------------------------


class _ParquetReader:
    def __init__(self, path: Path, batch_rows: int | None, column: str | None, columns: Sequence[str] | None) -> None:
        pq = _parquet()
        self.metadata = pq.read_metadata(path)
        # Without these two, the whole of a row group is held in memory, however large it is. A buffer is of one column.
        buffer = min(1 << 20, max(1 << 15, (16 << 20) // max(1, self.metadata.num_columns)))
        self._file = pq.ParquetFile(path, metadata=self.metadata, pre_buffer=False, buffer_size=buffer)
        self.rows: int | None = self.metadata.num_rows
        self.example = _empty(self._file.schema_arrow)
        self.schema = str(self._file.schema_arrow)
        self.scored = {self.example.schema.names[i] for i in _choose(self.example.schema, column, columns)}
        self._batch_rows = batch_rows

    def batches(self, start: int, growth: float) -> Iterator[Any]:
        if self._batch_rows:
            yield from self._steps(start, self._batch_rows)
            return
        pa = _pyarrow()
        held: list[Any] = []
        size = 0.0
        for step in self._steps(start, self._step_rows()):
            grown = growth * step.nbytes
            if held and size + grown > BATCH_BYTES:
                yield pa.Table.from_batches(held)
                held, size = [], 0.0
            held.append(step)
            size += grown
        if held:
            yield pa.Table.from_batches(held)

    def _step_rows(self) -> int:
        """Tell how many rows take READ_BYTES, by the counts of values and, for repeated text, by the first few rows."""
        values = sum(
            max(chunk.num_values, chunk.total_uncompressed_size // 8)
            for group in (self.metadata.row_group(g) for g in range(self.metadata.num_row_groups))
            for chunk in (group.column(c) for c in range(group.num_columns))
        )
        row_bytes = max(1, 8 * values / max(1, self.metadata.num_rows))
        for first in self._steps(0, int(min(64, max(1, READ_BYTES / row_bytes)))):
            row_bytes = max(row_bytes, first.nbytes / first.num_rows)
            break
        return int(min(8192, max(1, READ_BYTES / row_bytes)))

    def _steps(self, start: int, rows: int) -> Iterator[pa.RecordBatch]:
        """Read group by group, so that whole groups before `start` are skipped and steps always fall alike."""
        at = 0
        for group in range(self.metadata.num_row_groups):
            at += self.metadata.row_group(group).num_rows
            if at <= start:
                continue
            at -= self.metadata.row_group(group).num_rows
            for step in self._file.iter_batches(rows, row_groups=[group]):
                if at >= start and step.num_rows:
                    yield step
                at += step.num_rows


class _ParquetWriter:
    """Writes each batch as a small Parquet file, keeps its row group and puts its footer, shifted, into the journal."""

    def __init__(self, folder: Path, reader: Any, example: pa.RecordBatch, records: list[dict[str, Any]]) -> None:
        self._schema = example.schema
        metadata = reader.metadata
        places = range(metadata.num_columns if metadata.num_row_groups else 0)
        chunks = [metadata.row_group(0).column(place) for place in places]
        self._options = {
            "compression": chunks[0].compression.replace("UNCOMPRESSED", "NONE") if chunks else "SNAPPY",
            "use_dictionary": [  # hardly two probabilities are equal
                chunk.path_in_schema
                for chunk in chunks
                if chunk.has_dictionary_page and chunk.path_in_schema.split(".")[0] not in reader.scored
            ],
        }
        self._file = _open(folder / "whole", records)
        self._footers = [base64.b64decode(record["footer"]) for record in records]

    def write(self, batch: pa.RecordBatch | pa.Table) -> dict[str, Any]:
        start, footer = self._append(batch)
        self._footers.append(_shifted(footer, start))
        return {"bytes": self._file.tell(), "footer": base64.b64encode(self._footers[-1]).decode()}

    def _append(self, batch: pa.RecordBatch | pa.Table) -> tuple[int, bytes]:
        """Write `batch` at the end of the file, without its footer; give its place and the footer."""
        pq, pa = _parquet(), _pyarrow()
        start = self._file.tell()
        table = pa.Table.from_batches([batch]) if isinstance(batch, pa.RecordBatch) else batch
        with pq.ParquetWriter(self._file, self._schema, **self._options) as writer:
            if table.num_rows:
                writer.write_table(table, row_group_size=table.num_rows)
        self._file.seek(-8, os.SEEK_END)
        length = int.from_bytes(self._file.read(4), "little")
        self._file.seek(-8 - length, os.SEEK_END)
        footer = self._file.read(length)
        self._file.seek(-8 - length, os.SEEK_END)
        self._file.truncate()
        return start, footer

    def sync(self) -> None:
        _sync(self._file)

    def finish(self) -> None:
        pq = _parquet()
        if not self._footers:
            self._footers = [self._append(_empty(self._schema))[1]]
        magic = b"PAR1"
        whole, *others = (
            pq.read_metadata(io.BytesIO(magic + footer + len(footer).to_bytes(4, "little") + magic))
            for footer in self._footers
        )
        for other in others:
            whole.append_row_groups(other)
        stream = io.BytesIO()
        whole.write_metadata_file(stream)
        self._file.write(stream.getvalue()[len(magic) :])
        self.sync()

    def close(self) -> None:
        self._file.close()


def _parquet() -> ModuleType:
    _pyarrow()
    import pyarrow.parquet

    return pyarrow.parquet  # type: ignore[no-any-return]


# Places in a file, by their field numbers in parquet.thrift: in FileMetaData (4: row groups), RowGroup (1: columns,
# 5: file offset), ColumnChunk (2: file offset, 3: metadata, 4: offset index, 6: column index) and ColumnMetaData
# (9, 10, 11: data, index and dictionary page, 14: Bloom filter).
_PLACES = {(4, 5), (4, 1, 2), (4, 1, 4), (4, 1, 6), (4, 1, 3, 9), (4, 1, 3, 10), (4, 1, 3, 11), (4, 1, 3, 14)}


def _shifted(footer: bytes, by: int) -> bytes:
    """Add `by` to every place that a Parquet footer (Thrift's compact protocol) names; 0 means that there is none."""
    source, out = io.BytesIO(footer), bytearray()

    def copy(count: int) -> bytes:
        out.extend(piece := source.read(count))
        return piece

    def read_varint() -> int:
        value = shift = 0
        while True:
            byte = source.read(1)[0]
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    def write_varint(value: int) -> int:
        rest = value
        while rest > 0x7F:
            out.append(rest & 0x7F | 0x80)
            rest >>= 7
        out.append(rest)
        return value

    def value(kind: int, path: tuple[int, ...]) -> None:
        if kind == 3:  # byte, or a boolean in a list
            copy(1)
        elif kind in (4, 5, 6):  # integers, zigzag
            number = read_varint()
            write_varint(number + 2 * by if path in _PLACES and number else number)
        elif kind == 7:  # double
            copy(8)
        elif kind == 8:  # binary
            copy(write_varint(read_varint()))
        elif kind in (9, 10):  # list, set
            head = copy(1)[0]
            size = head >> 4 if head >> 4 < 15 else write_varint(read_varint())
            for _ in range(size):
                value(3 if head & 15 in (1, 2) else head & 15, path)
        elif kind == 12:  # struct
            field = 0
            while head := copy(1)[0]:
                if head >> 4:
                    field += head >> 4
                else:
                    number = write_varint(read_varint())
                    field = number >> 1 ^ -(number & 1)
                value(head & 15, (*path, field))
        elif kind not in (1, 2):  # true and false have no bytes of their own
            raise ValueError(f"a Parquet footer with an unknown Thrift type, {kind}")

    value(12, ())
    return bytes(out)


# --- CSV ------------------------------------------------------------------------------------------------------------


class _CsvReader:
    """Scored columns are read as float64, the others as text, so that they come out as they went in."""

    def __init__(self, path: Path, batch_rows: int | None, columns: Sequence[str] | None) -> None:
        pa = _pyarrow()
        self._path, self._batch_rows = path, batch_rows
        with open(path, "rb") as file:
            longest = max(len(file.readline()), len(file.readline()))
        self._block = max(READ_BYTES, 8 * longest)
        with self._open({}) as guess:
            schema = guess.schema
            types = pa.types
            nothing = not any(batch.num_rows for batch in guess)  # ends at the first batch with a row
        if twice := [name for name in schema.names if schema.names.count(name) > 1]:
            raise ValueError(f"column {twice[0]!r} occurs {schema.names.count(twice[0])} times")
        if columns is None:
            columns = [f.name for f in schema if nothing or types.is_integer(f.type) or types.is_floating(f.type)]
            if not columns:
                raise ValueError(f"there are no numeric columns; the columns are {', '.join(schema.names)}")
        for name in columns:
            if name not in schema.names:
                raise ValueError(f"column {name!r} does not exist; the columns are {', '.join(schema.names)}")
        self.columns = list(columns)
        self._types = {n: pa.float64() if n in self.columns else pa.string() for n in schema.names}
        self.rows: int | None = None
        self.example = _empty(pa.schema(list(self._types.items())))
        self.schema = str(self.example.schema)

    def _open(self, types: dict[str, Any]) -> Any:
        _pyarrow()
        from pyarrow import csv as pcsv

        return pcsv.open_csv(
            self._path,
            read_options=pcsv.ReadOptions(block_size=self._block),
            parse_options=pcsv.ParseOptions(newlines_in_values=True),
            # Of the usual names of a missing value "NaN" is left out: it is a score.
            convert_options=pcsv.ConvertOptions(
                column_types=types, null_values=["", "NA", "N/A", "#N/A", "n/a", "null", "NULL", "None"]
            ),
        )

    def batches(self, start: int, growth: float) -> Iterator[pa.RecordBatch]:
        pa = _pyarrow()
        at = 0
        try:
            with self._open(self._types) as stream:
                for block in stream:
                    step = self._batch_rows or max(1, block.num_rows)
                    for first in range(0, block.num_rows, step):
                        batch = block.slice(first, step)
                        if at >= start:
                            yield batch
                        at += batch.num_rows
        except pa.ArrowInvalid as error:
            raise ValueError(f"{error} (at or after row {at}, counting from 0)") from None


class _CsvWriter:
    def __init__(self, folder: Path, reader: Any, example: pa.RecordBatch, records: list[dict[str, Any]]) -> None:
        self._file = _open(folder / "whole", records)
        if not records:
            text = io.StringIO()
            csv.writer(text, lineterminator="\n").writerow(example.schema.names)
            self._file.write(text.getvalue().encode())

    def write(self, batch: pa.RecordBatch) -> dict[str, Any]:
        pa = _pyarrow()
        from pyarrow import csv as pcsv

        def text(style: str) -> bytes:
            stream = io.BytesIO()
            pcsv.write_csv(batch, stream, pcsv.WriteOptions(include_header=False, quoting_style=style))
            return stream.getvalue()

        try:
            written = text("none")
        except pa.ArrowInvalid:  # some text has a comma, a quote or a line break: pyarrow then quotes all text
            written = text("needed")
        self._file.write(written)
        return {"bytes": self._file.tell()}

    def sync(self) -> None:
        _sync(self._file)

    finish = sync

    def close(self) -> None:
        self._file.close()


# --- .npy and .npz --------------------------------------------------------------------------------------------------


class _NpyReader:
    """An array file as three axes: those before the scored one as one, the scored one, those behind it as one."""

    def __init__(self, path: Path, batch_rows: int | None, axis: int) -> None:
        with open(path, "rb") as file:
            version = np.lib.format.read_magic(file)
            if version not in ((1, 0), (2, 0)):
                raise ValueError(f"version {version[0]}.{version[1]} of the .npy format holds no plain numbers")
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            self.shape, self.fortran, self.dtype = read(file)
            self._offset = file.tell()
        if self.dtype.kind not in "fiub":
            raise TypeError(f"an array of dtype {self.dtype} cannot be scored")
        if not self.shape:
            raise ValueError("a 0-d array has no axis to score along")
        if os.path.getsize(path) < self._offset + math.prod(self.shape) * self.dtype.itemsize:
            raise ValueError(f"the file is too short for an array of shape {self.shape}: it is cut off")
        at = np.lib.array_utils.normalize_axis_index(axis, len(self.shape))
        # A file in Fortran order is the transposed array in C order.
        shape, at = (self.shape[::-1], len(self.shape) - 1 - at) if self.fortran else (self.shape, at)
        self.outer, self.n, self.inner = math.prod(shape[:at]), shape[at], math.prod(shape[at + 1 :])
        self.rows: int | None = self.outer * self.inner
        self.example = np.empty((0, self.n, 1), self.dtype.newbyteorder("="))
        self.schema = f"{self.dtype.str} {self.shape} {'F' if self.fortran else 'C'}"
        self._path, self._batch_rows = path, batch_rows

    def batches(self, start: int, growth: float) -> Iterator[NDArray[Any]]:
        for window in self.windows(start, growth):
            yield self._read(window).astype(self.dtype.newbyteorder("="), copy=False)

    def _read(self, window: Window) -> NDArray[Any]:
        blocks = self.blocks(window, self._path, self.dtype, self._offset, "r")
        if window[3] - window[2] == self.inner:
            return next(blocks)[1]
        x = np.empty((window[1] - window[0], self.n, window[3] - window[2]), self.dtype)
        for part, block in blocks:
            x[:, part] = block
        return x

    def windows(self, start: int, growth: float) -> Iterator[Window]:
        """Cut the batch axes into windows (outer from, to, inner from, to) and give those from row `start` on."""
        rows = self._batch_rows or max(1, int(BATCH_BYTES / (growth * self.n * self.dtype.itemsize)))
        outer, inner = (rows // self.inner, self.inner) if rows >= self.inner else (1, rows)
        at = 0
        for o in range(0, self.outer if self.inner else 0, outer):
            for i in range(0, self.inner, inner):
                window = o, min(o + outer, self.outer), i, min(i + inner, self.inner)
                if at >= start:
                    yield window
                at += (window[1] - window[0]) * (window[3] - window[2])

    def blocks(
        self, window: Window, path: Path, dtype: np.dtype[Any], offset: int, mode: Any
    ) -> Iterator[tuple[slice, NDArray[Any]]]:
        """Map `window` of the array in `path`, in blocks along the scored axis if it is not one piece of the file."""
        outer, outer_end, inner, inner_end = window
        whole = inner_end - inner == self.inner
        # Pages of a mapping count as memory of the process: map no more than a few at a time.
        step = self.n if whole else max(1, READ_BYTES // (self.inner * dtype.itemsize))
        for first in range(0, self.n, step):
            last = min(first + step, self.n)
            shape = (outer_end - outer, last - first, self.inner)
            place = offset + (outer * self.n + first) * self.inner * dtype.itemsize
            mapped = np.memmap(path, dtype, mode, place, shape)
            yield slice(first, last), mapped.view(np.ndarray)[:, :, inner:inner_end]


class _NpyWriter:
    """Writes windows of the same array in the same layout, in place; so a window written twice does no harm."""

    def __init__(
        self, folder: Path, reader: _NpyReader, example: NDArray[Any], records: list[dict[str, Any]], growth: float
    ) -> None:
        self._path, self._reader, self._dtype = folder / "whole", reader, example.dtype
        self._file = open(self._path, "r+b" if records else "w+b")  # noqa: SIM115
        header = {"descr": self._dtype.str, "fortran_order": reader.fortran, "shape": reader.shape}
        np.lib.format.write_array_header_1_0(self._file, header)
        self._file.flush()
        self._offset = self._file.tell()
        size = self._offset + math.prod(reader.shape) * self._dtype.itemsize
        if hasattr(os, "posix_fallocate"):  # a full disk is an error here, and a crash in a mapping
            os.posix_fallocate(self._file.fileno(), 0, size)
        else:
            self._file.truncate(size)
        self._windows = reader.windows(records[-1]["rows"] if records else 0, growth)

    def write(self, p: NDArray[Any]) -> dict[str, Any]:
        window = next(self._windows)
        for part, block in self._reader.blocks(window, self._path, self._dtype, self._offset, "r+"):
            block[...] = p[:, part]
        return {}

    def sync(self) -> None:
        _sync(self._file)

    finish = sync

    def close(self) -> None:
        self._file.close()


class _NpzWriter:
    """Collects the three arrays of a CSR matrix and packs them as `scipy.sparse.load_npz` reads them."""

    _NAMES = ("data", "indices", "indptr")

    def __init__(self, folder: Path, reader: _NpyReader, example: Any, records: list[dict[str, Any]]) -> None:
        self._folder, self._shape = folder, (reader.rows, reader.n)
        self._dtypes = [part.dtype for part in example]
        self._rows = records[-1]["rows"] if records else 0
        self._entries = records[-1]["entries"] if records else 0
        self._files = []
        for name, dtype, count in zip(
            self._NAMES, self._dtypes, (self._entries, self._entries, self._rows + 1), strict=True
        ):
            file = _open(folder / name, records and [{"bytes": count * dtype.itemsize}])
            self._files.append(file)
        if not records:
            self._files[2].write(np.zeros(1, self._dtypes[2]).tobytes())

    def write(self, p: tuple[NDArray[Any], NDArray[Any], NDArray[Any]]) -> dict[str, Any]:
        data, indices, indptr = p
        for file, part in zip(self._files, (data, indices, indptr[1:] + self._entries), strict=True):
            file.write(np.ascontiguousarray(part).data)
        self._rows += len(indptr) - 1
        self._entries += len(data)
        return {"entries": self._entries}

    def sync(self) -> None:
        for file in self._files:
            _sync(file)

    def finish(self) -> None:
        counts = (self._entries, self._entries, self._rows + 1)
        with open(self._folder / "whole", "w+b") as whole, zipfile.ZipFile(whole, "w") as archive:
            for name, value in (
                ("format", np.array(b"csr")),
                ("shape", np.array(self._shape)),
                ("_is_array", np.array(True)),
            ):
                with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w") as member:
                    np.lib.format.write_array(member, value)
            for name, dtype, count, file in zip(self._NAMES, self._dtypes, counts, self._files, strict=True):
                with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                    header = {"descr": dtype.str, "fortran_order": False, "shape": (count,)}
                    np.lib.format.write_array_header_1_0(member, header)
                    file.seek(0)
                    shutil.copyfileobj(file, member, 1 << 20)
            archive.close()
            _sync(whole)

    def close(self) -> None:
        for file in self._files:
            file.close()


# --- files ----------------------------------------------------------------------------------------------------------


def _open(path: Path, records: list[dict[str, Any]]) -> Any:
    """Open a file to append to what the journal vouches for."""
    if not records:
        return open(path, "w+b")
    file = open(path, "r+b")  # noqa: SIM115
    if file.seek(0, os.SEEK_END) < records[-1]["bytes"]:
        file.close()
        raise ValueError(f"{path} is shorter than its journal says: leave out --resume to start anew")
    file.seek(records[-1]["bytes"])
    file.truncate()
    return file


def _sync(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    if os.name == "posix":
        folder = os.open(path, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)


# pyarrow says OSError (without a number) for a damaged file and NotImplementedError for what it cannot read.
_BAD_INPUT = (ValueError, TypeError, NotImplementedError, OSError)


def _named(error: Exception, source: str | os.PathLike[str]) -> Exception:
    if isinstance(error, OSError) and error.errno is not None:
        return error
    return (TypeError if isinstance(error, TypeError) else ValueError)(f"{os.fspath(source)}: {error}")


class _Journal:
    """The folder ``OUT.partial``: what is on disk, of which run. The first line of the journal describes the run."""

    def __init__(self, target: Path, run: dict[str, Any], resume: bool) -> None:
        self.folder = target.with_name(target.name + ".partial")
        path = self.folder / "journal.jsonl"
        if self.folder.exists() and not path.exists() and any(self.folder.iterdir()):
            raise FileExistsError(f"{self.folder} is in the way: it is not the partial state of a run")
        self.folder.mkdir(exist_ok=True)
        self._file = open(path, "a+b")  # noqa: SIM115
        try:
            if fcntl is not None:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.records = self._read(run) if resume else []
        except BlockingIOError:
            self._file.close()
            raise ValueError(f"another run is writing {target}") from None
        except BaseException:
            self._file.close()
            raise
        if not self.records:
            self._file.truncate(0)
            self.commit([run])

    def _read(self, run: dict[str, Any]) -> list[dict[str, Any]]:
        self._file.seek(0)
        lines, whole = [], 0
        for line in self._file:
            try:
                lines.append(json.loads(line))
            except ValueError:  # cut off while it was written
                break
            whole += len(line)
        self._file.truncate(whole)
        if lines and lines[0] != run:
            there = lines[0]
            changes = [f"{key}: {there.get(key)} there, {run[key]} here" for key in run if there.get(key) != run[key]]
            raise ValueError(
                f"{self.folder} is the state of another run ({'; '.join(changes)}): leave out --resume to start anew"
            )
        return lines[1:]

    def commit(self, records: list[dict[str, Any]]) -> None:
        self._file.write("".join(json.dumps(record) + "\n" for record in records).encode())
        _sync(self._file)

    def close(self) -> None:
        self._file.close()

    def remove(self) -> None:
        shutil.rmtree(self.folder)


def score_file(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    map: str = "softmax",
    column: str | None = None,
    columns: Sequence[str] | None = None,
    axis: int = -1,
    batch_rows: int | None = None,
    sparse: bool = False,
    workers: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: Callable[[int, int | None], None] = lambda done, total: None,
    **options: Any,
) -> dict[str, Any]:
    """Score a file of scores into a file of the same format and tell what was done: the body of `unitmass score`.

    `progress` is called with the rows done and the rows there are (None if that is not known). Bad input raises
    ValueError or TypeError and leaves nothing behind; after anything else, `resume` goes on from the last batch.
    """
    clock = time.perf_counter()
    inside, outside = Path(source), Path(os.path.realpath(target))
    if not inside.is_file():
        raise FileNotFoundError(f"{source}: {'is not a file' if inside.exists() else 'no such file'}")
    if outside.exists() and os.path.samefile(inside, outside):
        raise ValueError(f"{target}: is the input itself")
    if outside.exists() and not overwrite:
        raise FileExistsError(f"{target}: exists already; --overwrite replaces it")
    if not outside.parent.is_dir():
        raise FileNotFoundError(f"{target}: the folder does not exist")

    kind = file_format(inside)
    reader: Any
    try:
        if kind == "npy":
            reader = _NpyReader(inside, batch_rows, axis)
        elif kind == "csv":
            reader = _CsvReader(inside, batch_rows, columns)
            columns = reader.columns
        else:
            reader = _ParquetReader(inside, batch_rows, column, columns)
        along = 1 if kind == "npy" else -1  # of the three axes that the reader makes
        trial = _Scores([], map, column, columns, along, sparse, workers, options)
        example = trial.score(reader.example)
    except _BAD_INPUT as error:
        raise _named(error, source) from None
    growth = trial.growth

    import unitmass

    status = inside.stat()
    run = {
        "unitmass": unitmass.__version__,
        "size of the input": status.st_size,
        "time of the input": status.st_mtime_ns,
        "schema": reader.schema,
        "map": map,
        "options": options,
        "column": column,
        "columns": list(columns) if columns is not None else None,
        "axis": axis,
        "batch rows": batch_rows,
        "sparse": sparse,
    }
    journal = _Journal(outside, json.loads(json.dumps(run)), resume)
    records = journal.records
    before = records[-1] if records else {"rows": 0, "nan_rows": 0}
    writer: Any = None
    pending: list[dict[str, Any]] = []
    try:
        if kind == "npy":
            writer = (
                _NpzWriter(journal.folder, reader, example, records)
                if sparse
                else _NpyWriter(journal.folder, reader, example, records, growth)
            )
        else:
            writer = (_CsvWriter if kind == "csv" else _ParquetWriter)(journal.folder, reader, example, records)
        scores = _Scores(reader.batches(before["rows"], growth), map, column, columns, along, sparse, workers, options)
        scores.rows, scores.nan_rows = before["rows"], before["nan_rows"]
        progress(scores.rows, reader.rows)
        committed = -math.inf
        for batch in scores:
            pending.append({"rows": scores.rows, "nan_rows": scores.nan_rows, **writer.write(batch)})
            if time.monotonic() - committed >= COMMIT_SECONDS:
                writer.sync()
                journal.commit(pending)
                pending, committed = [], time.monotonic()
            progress(scores.rows, reader.rows)
        writer.finish()
        writer.close()
        os.replace(journal.folder / "whole", outside)
        _sync_folder(outside.parent)
    except _BAD_INPUT as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk, not the input
        journal.remove()
        raise _named(error, source) from None
    except KeyboardInterrupt:
        if writer and pending:
            writer.sync()
            journal.commit(pending)
        raise
    finally:
        if writer:
            writer.close()
        journal.close()
    journal.remove()

    seconds = time.perf_counter() - clock
    parameters = inspect.signature(MAPS[map][0]).parameters
    return {
        "in": os.fspath(source),
        "out": os.fspath(target),
        "format": kind,
        "map": map,
        "options": {name: options.get(name, parameters[name].default) for name in MAPS[map][1]},
        "sparse": sparse,
        "dtype": str(trial.dtype),
        "rows": scores.rows,
        "resumed_rows": before["rows"],
        "nan_rows": scores.nan_rows,
        "seconds": seconds,
        "rows_per_second": (scores.rows - before["rows"]) / seconds,
        "mb_per_second": scores.nbytes / 1e6 / seconds,
    }


def file_format(path: str | os.PathLike[str]) -> str:
    """Tell the format of a file by its name: "parquet", "csv", "npy" or "npz"."""
    suffix = Path(path).suffix.lower()
    if suffix not in (".parquet", ".pq", ".csv", ".npy", ".npz"):
        raise ValueError(f"{os.fspath(path)}: the name must end in .parquet, .pq, .csv or .npy")
    return {".pq": "parquet"}.get(suffix, suffix[1:])
