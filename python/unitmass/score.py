"""The scoring engine: batches of scores in, the same with probabilities out. `_files` runs it from file to file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from unitmass._arrow import choose, empty, lists, matrix, pyarrow, value_type, vector
from unitmass.maps import entmax, log_softmax, project_simplex, softmax, sparsemax

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

__all__ = ["MAPS", "SPARSE_MAPS", "Scores", "score_batches"]

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
    return Scores(batches, map, column, columns, axis, sparse, workers, options)


class Scores:
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
                homes = " or ".join(other for other, (_, names) in MAPS.items() if name in names)
                raise ValueError(
                    f"{name}: " + (f"belongs to {homes}, not to {map}" if homes else "not an option of any map")
                )
        if sparse and map not in SPARSE_MAPS:
            raise ValueError(f"sparse: {map} has no zeros to leave out; use {', '.join(SPARSE_MAPS)}")
        if column is not None and columns is not None:
            raise ValueError("column, columns: give one of the two")
        if sparse and columns is not None:
            raise ValueError("sparse: needs a list column, not several numeric columns")
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
        """Score one batch."""
        if isinstance(batch, np.ndarray):
            return self._array(batch, self._axis)
        pa = pyarrow()
        if isinstance(batch, pa.RecordBatch):
            return self._record_batch(batch)
        if isinstance(batch, pa.Table):
            pieces = batch.to_batches() or [empty(batch.schema)]
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
        pa = pyarrow()
        schema = batch.schema
        chosen = choose(schema, self._column, self._columns)
        bits = min(value_type(schema.field(i).type).bit_width for i in chosen)
        new: dict[int, list[tuple[Any, Any]]] = {}  # fields and arrays
        if self._columns is not None:
            scores = [vector(batch.column(i), schema.names[i], self.rows) for i in chosen]
            p = self._array(np.stack(scores, axis=1), 1)
            for k, i in enumerate(chosen):
                values = pa.array(np.ascontiguousarray(p[:, k]))
                new[i] = [(schema.field(i).with_type(values.type), values)]
        else:
            (i,) = chosen
            array, field = batch.column(i), schema.field(i)
            x = matrix(array, field.name, self.rows, self._width)
            if len(x):
                self._width = x.shape[1]
            p = self._array(x, 1)
            if self._sparse:
                data, indices, indptr = p
                if clash := {f"{field.name}_indices", f"{field.name}_values"} & set(schema.names):
                    raise ValueError(f"{clash.pop()}: the batch has a column of this name already")
                for part, values in (("indices", indices.astype(np.int32, copy=False)), ("values", data)):
                    scored = lists(array.type, values, indptr)
                    new.setdefault(i, []).append((pa.field(f"{field.name}_{part}", scored.type), scored))
            else:
                indptr = np.arange(len(x) + 1, dtype=np.int64) * x.shape[1]
                scored = lists(array.type, p.reshape(-1), indptr, fixed=True)
                new[i] = [(field.with_type(scored.type), scored)]
        self.growth = max(1.0, 8 * self._written / bits)
        pairs = [pair for i in range(len(schema)) for pair in new.get(i, [(schema.field(i), batch.column(i))])]
        fields, arrays = zip(*pairs, strict=True)
        return pa.RecordBatch.from_arrays(list(arrays), schema=pa.schema(fields, metadata=schema.metadata))
