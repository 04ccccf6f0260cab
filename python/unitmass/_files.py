"""From a file of scores to a file of probabilities, in batches, so that a run which was cut short can go on.

    reader.batches(start, growth) -> scores.score(batch) -> writer.write(batch) -> a record for the journal

The writer works in the folder ``OUT.partial`` beside the target. A journal in that folder holds one line for every
batch that is safely on disk. A run that was cut short goes on behind the last such line; a file is the same, byte for
byte, in however many pieces it was written. Only a whole file is renamed to its target.
"""

from __future__ import annotations

import inspect
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from unitmass._core import __version__
from unitmass._formats import CsvReader, CsvWriter, NpyReader, NpyWriter, NpzWriter, ParquetReader, ParquetWriter, sync
from unitmass.score import MAPS, Scores

try:
    import fcntl
except ImportError:  # Windows: two runs at once on one target are then not noticed.
    fcntl = None  # type: ignore[assignment]

__all__ = ["file_format", "score_file"]

COMMIT_SECONDS = 2.0  # at most this much work is lost to a kill

# pyarrow says OSError (without a number) for a damaged file and NotImplementedError for what it cannot read.
_BAD_INPUT = (ValueError, TypeError, NotImplementedError, OSError)


def file_format(path: str | os.PathLike[str]) -> str:
    """Tell the format of a file by its name: "parquet", "csv", "npy" or "npz"."""
    suffix = Path(path).suffix.lower()
    if suffix not in (".parquet", ".pq", ".csv", ".npy", ".npz"):
        raise ValueError(f"{os.fspath(path)}: the name must end in .parquet, .pq, .csv or .npy")
    return {".pq": "parquet"}.get(suffix, suffix[1:])


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
            reader = NpyReader(inside, batch_rows, axis)
        elif kind == "csv":
            reader = CsvReader(inside, batch_rows, columns)
            columns = reader.scored
        else:
            reader = ParquetReader(inside, batch_rows, column, columns)
        along = 1 if kind == "npy" else -1  # of the three axes that the reader makes
        scores = Scores([], map, column, columns, along, sparse, workers, options)
        example = scores.score(reader.example)
    except _BAD_INPUT as error:
        raise _named(error, source) from None
    growth = scores.growth

    status = inside.stat()
    run = {
        "unitmass": __version__,
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
    before = records[-1]["rows"] if records else 0
    scores.rows, scores.nan_rows = before, records[-1]["nan_rows"] if records else 0
    writer: Any = None
    pending: list[dict[str, Any]] = []
    try:
        if kind == "npy" and not sparse:
            writer = NpyWriter(journal.folder, reader, example, records, growth)
        else:
            kinds = {"npy": NpzWriter, "csv": CsvWriter, "parquet": ParquetWriter}
            writer = kinds[kind](journal.folder, reader, example, records)
        progress(before, reader.rows)
        committed = -math.inf
        for batch in reader.batches(before, growth):
            record = writer.write(scores.score(batch))
            pending.append({"rows": scores.rows, "nan_rows": scores.nan_rows, **record})
            if time.monotonic() - committed >= COMMIT_SECONDS:
                writer.sync()
                journal.commit(pending)
                committed = time.monotonic()
            progress(scores.rows, reader.rows)
        writer.finish()
        writer.close()
        os.replace(journal.folder / "whole", outside)
        _sync_folder(outside.parent)
    except _BAD_INPUT as error:
        if not _is_of_the_disk(error):
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
        "scored": reader.scored,
        "passed": reader.passed,
        "dtype": str(scores.dtype),
        "rows": scores.rows,
        "resumed_rows": before,
        "nan_rows": scores.nan_rows,
        "seconds": seconds,
        "rows_per_second": (scores.rows - before) / seconds,
        "mb_per_second": scores.nbytes / 1e6 / seconds,
    }


def _is_of_the_disk(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno is not None


def _named(error: Exception, source: str | os.PathLike[str]) -> Exception:
    if _is_of_the_disk(error):
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
        """Write `records` and empty the list first: an interrupt may come anywhere, and none must be written twice."""
        lines = "".join(json.dumps(record) + "\n" for record in records)
        records.clear()
        self._file.write(lines.encode())
        sync(self._file)

    def close(self) -> None:
        self._file.close()

    def remove(self) -> None:
        shutil.rmtree(self.folder)


def _sync_folder(path: Path) -> None:
    if os.name == "posix":
        folder = os.open(path, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
