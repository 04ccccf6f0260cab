"""The formats of a file of scores, a reader and a writer for each; `_files` puts the maps between the two.

    reader.batches(start, growth) -> batches from row `start` on
    writer.write(batch) -> a record of the batch for the journal

The writers work in the folder of partial results, on a file named ``whole``.
"""

from __future__ import annotations

import base64
import csv
import io
import math
import os
import shutil
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np

from unitmass._arrays import axis_of
from unitmass._arrow import choose, empty, pyarrow

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from types import ModuleType

    import pyarrow as pa
    from numpy.typing import NDArray

    Window = tuple[int, int, int, int]

__all__ = ["CsvReader", "CsvWriter", "NpyReader", "NpyWriter", "NpzWriter", "ParquetReader", "ParquetWriter", "sync"]

BATCH_BYTES = 32 << 20  # of a batch, read or written, whichever is larger
READ_BYTES = 4 << 20  # of a step of a reader; several make a batch


class _Writer:
    """What the writers of one file have in common."""

    _file: Any

    def sync(self) -> None:
        sync(self._file)

    def finish(self) -> None:
        self.sync()

    def close(self) -> None:
        self._file.close()


# --- Parquet --------------------------------------------------------------------------------------------------------


class ParquetReader:
    def __init__(self, path: Path, batch_rows: int | None, column: str | None, columns: Sequence[str] | None) -> None:
        pq = _parquet()
        self.metadata = pq.read_metadata(path)
        # Without these two, the whole of a row group is held in memory, however large it is. A buffer is of one column.
        buffer = min(1 << 20, max(1 << 15, (16 << 20) // max(1, self.metadata.num_columns)))
        self._file = pq.ParquetFile(path, metadata=self.metadata, pre_buffer=False, buffer_size=buffer)
        self.rows: int | None = self.metadata.num_rows
        self.example = empty(self._file.schema_arrow)
        self.schema = str(self._file.schema_arrow)
        names = self.example.schema.names
        self.scored = [names[i] for i in choose(self.example.schema, column, columns)]
        self.passed = [name for name in names if name not in self.scored]
        self._batch_rows = batch_rows

    def batches(self, start: int, growth: float) -> Iterator[Any]:
        if self._batch_rows:
            yield from self._steps(start, self._batch_rows)
            return
        pa = pyarrow()
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


class ParquetWriter(_Writer):
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
        pq, pa = _parquet(), pyarrow()
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

    def finish(self) -> None:
        pq = _parquet()
        if not self._footers:
            self._footers = [self._append(empty(self._schema))[1]]
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


def _parquet() -> ModuleType:
    pyarrow()
    from pyarrow import parquet

    return parquet  # type: ignore[no-any-return]


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


# What pyarrow takes for a float64; of its usual names of a missing value "NaN" is left out: it is a score.
_NUMBER = r"(?i)^[ \t]*[+-]?(\d+\.?\d*(e[+-]?\d+)?|\.\d+(e[+-]?\d+)?|inf|infinity|nan)[ \t]*$"
_MISSING = ["", "NA", "N/A", "#N/A", "n/a", "null", "NULL", "None"]


class CsvReader:
    """Scored columns are read as float64, the others as text, so that they come out as they went in."""

    def __init__(self, path: Path, batch_rows: int | None, columns: Sequence[str] | None) -> None:
        pa = pyarrow()
        self._path, self._batch_rows = path, batch_rows
        with open(path, "rb") as file:
            longest = max(len(file.readline()), len(file.readline()))
        self._block = max(READ_BYTES, 8 * longest)
        with self._open({}) as guess:
            names, kinds = guess.schema.names, guess.schema.types
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"column {twice[0]!r} occurs {names.count(twice[0])} times")
        self._text = dict.fromkeys(names, pa.string())
        self.scored = self._columns_of_numbers(kinds) if columns is None else list(columns)
        self.passed = [name for name in names if name not in self.scored]
        self._types = {name: pa.float64() if name in self.scored else kind for name, kind in self._text.items()}
        self.rows: int | None = None
        self.example = empty(pa.schema(list(self._types.items())))
        self.schema = str(self.example.schema)

    def _open(self, types: dict[str, Any]) -> Any:
        pyarrow()
        from pyarrow import csv as pcsv

        return pcsv.open_csv(
            self._path,
            read_options=pcsv.ReadOptions(block_size=self._block),
            parse_options=pcsv.ParseOptions(newlines_in_values=True),
            convert_options=pcsv.ConvertOptions(column_types=types, null_values=_MISSING),
        )

    def _columns_of_numbers(self, kinds: list[pa.DataType]) -> list[str]:
        """Tell which columns have numbers in the first block (inferred `kinds`); one that has text, too, is refused."""
        types = pyarrow().types
        with self._open(self._text) as stream:
            block = next((block for block in stream if block.num_rows), None)
        if block is None:
            return list(self._text)
        scored = []
        for name, kind in zip(self._text, kinds, strict=True):
            if types.is_integer(kind) or types.is_floating(kind):
                scored.append(name)
            elif _is_number(block[name]).any():
                if text := _first_text(block, [name], 0):
                    raise ValueError(f"{text}: mend it, or name the columns of scores with --columns")
                scored.append(name)
        if not scored:
            raise ValueError(f"there are no numeric columns; the columns are {', '.join(self._text)}")
        return scored

    def batches(self, start: int, growth: float) -> Iterator[pa.RecordBatch]:
        pa = pyarrow()
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
            raise ValueError(self._bad_cell() or error) from None

    def _bad_cell(self) -> str | None:
        """Find what could not be read as a number: pyarrow does not tell the row."""
        at = 0
        with self._open(self._text) as stream:
            for block in stream:
                if text := _first_text(block, self.scored, at):
                    return text
                at += block.num_rows
        return None


def _is_number(cells: pa.Array) -> NDArray[np.bool_]:
    from pyarrow import compute

    numbers: NDArray[np.bool_] = compute.match_substring_regex(cells, _NUMBER).to_numpy(zero_copy_only=False)
    return numbers


def _first_text(block: pa.RecordBatch, columns: Sequence[str], row: int) -> str | None:
    """Tell of the first cell in `columns` that is neither a number nor missing; `row` is the first of the block."""
    for name in columns:
        for at in np.flatnonzero(~_is_number(block[name])):
            cell = block[name][int(at)].as_py()
            if cell not in _MISSING:
                return f"column {name!r}: row {row + at} has {cell[:40]!r}, which is not a number (counting from 0)"
    return None


class CsvWriter(_Writer):
    def __init__(self, folder: Path, reader: Any, example: pa.RecordBatch, records: list[dict[str, Any]]) -> None:
        self._file = _open(folder / "whole", records)
        if not records:
            text = io.StringIO()
            csv.writer(text, lineterminator="\n").writerow(example.schema.names)
            self._file.write(text.getvalue().encode())

    def write(self, batch: pa.RecordBatch) -> dict[str, Any]:
        pa = pyarrow()
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


# --- .npy and .npz --------------------------------------------------------------------------------------------------


class NpyReader:
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
        at = axis_of(axis, len(self.shape))
        if self.shape[at] == 0:
            raise ValueError(f"the axis is empty (axis {at} of shape {self.shape})")
        # A file in Fortran order is the transposed array in C order.
        shape, at = (self.shape[::-1], len(self.shape) - 1 - at) if self.fortran else (self.shape, at)
        self.outer, self.n, self.inner = math.prod(shape[:at]), shape[at], math.prod(shape[at + 1 :])
        self.rows: int | None = self.outer * self.inner
        self.example = np.empty((0, self.n, 1), self.dtype.newbyteorder("="))
        self.scored: list[str] = []  # an array has no columns
        self.passed: list[str] = []
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
        if not self.rows:
            return
        outer, inner = (rows // self.inner, self.inner) if rows >= self.inner else (1, rows)
        at = 0
        for o in range(0, self.outer, outer):
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


class NpyWriter(_Writer):
    """Writes windows of the same array in the same layout, in place; so a window written twice does no harm."""

    def __init__(
        self, folder: Path, reader: NpyReader, example: NDArray[Any], records: list[dict[str, Any]], growth: float
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


class NpzWriter:
    """Collects the three arrays of a CSR matrix and packs them as `scipy.sparse.load_npz` reads them."""

    _NAMES = ("data", "indices", "indptr")

    def __init__(self, folder: Path, reader: NpyReader, example: Any, records: list[dict[str, Any]]) -> None:
        self._folder, self._shape = folder, (reader.rows, reader.n)
        if reader.fortran and len(reader.shape) > 2:
            raise ValueError(
                "an array of three or more axes in Fortran order has its rows in another order than a CSR matrix"
            )
        data, indices, _ = example
        self._dtypes = [data.dtype, indices.dtype, np.dtype(np.int64)]  # a file may have more entries than a batch
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
        for file, part in zip(self._files, (data, indices, indptr[1:] + np.int64(self._entries)), strict=True):
            file.write(np.ascontiguousarray(part).data)
        self._rows += len(indptr) - 1
        self._entries += len(data)
        return {"entries": self._entries}

    def sync(self) -> None:
        for file in self._files:
            sync(file)

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
            sync(whole)

    def close(self) -> None:
        for file in self._files:
            file.close()


# --- files ------------------------------------------------------------------------------------------------------------


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


def sync(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())
