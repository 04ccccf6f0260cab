"""The scoring engine: batches of scores in, the same with probabilities out. `_files` runs it from file to file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from inspect import signature
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from unitmass import losses
from unitmass._arrow import choose, empty, lists, matrix, pyarrow, targets, value_type, vector
from unitmass.maps import listing

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

__all__ = ["LOSSES", "MAPS", "SPARSE_MAPS", "Losses", "Scores", "score_batches"]

T = TypeVar("T")

#: The maps by name, each with the options that belong to it.
MAPS: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
    name: (function, listing.options(name)) for name, function in listing.MAPS.items()
}
#: The maps that leave zeros out if they are asked to.
SPARSE_MAPS = tuple(name for name, (function, _) in MAPS.items() if "sparse" in signature(function).parameters)


def _losses() -> Iterator[tuple[str, tuple[Callable[..., Any], tuple[str, ...]]]]:
    """Find the losses that give a number for a row of scores, each with the options that belong to it."""
    shared = ("scores", "targets", "axis", "reduction", "weights", "value_and_grad", "alpha_grad", "where", "workers")
    for name in losses.__all__:
        function = getattr(losses, name)
        known = signature(function).parameters
        if "targets" in known and name != "group_zlpr":  # a value of that belongs to several rows
            yield name, (function, tuple(option for option in known if option not in shared))


#: The losses by name, each with the options that belong to it.
LOSSES = dict(_losses())


def score_batches(
    batches: Iterable[T],
    *,
    map: str | None = None,
    loss: str | None = None,
    target: str | None = None,
    column: str | None = None,
    columns: Sequence[str] | None = None,
    axis: int = -1,
    sparse: bool = False,
    workers: int | None = None,
    **options: Any,
) -> Iterator[T]:
    """Turn batches of scores into batches of probabilities, or of losses, one at a time.

    Parameters
    ----------
    batches : iterable of ndarray, pyarrow.RecordBatch or pyarrow.Table
        The scores; for a loss tuples ``(scores, targets)`` in the place of arrays. Each batch is asked for when its
        result is, so a stream of any length takes the memory of one batch.
    map : str, optional
        The map, by the name of its function; `maps.table` lists them. "softmax" unless there is a `loss`.
    loss : str, optional
        In the place of `map`, the loss, by the name of its function in `unitmass.losses`; one that gives a value to
        each row of scores.
    target : str, optional
        Arrow only: the column of the targets of `loss`, labels or lists of numbers for the scores; with
        ``sparse_labels=True`` lists of labels of any length.
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
        Options of the map or loss, such as `temperature`, `alpha` or `k`: numbers or names, the same for every row;
        `upper` may be an array that broadcasts to every batch.

    Returns
    -------
    iterator
        A batch of the same kind for each batch of `batches`. The probabilities stand in place of the scores; losses in
        a column behind the others, with the name of the loss, or in an array. Other columns, the order of the columns
        and the metadata stay. Its attributes `rows`, `nan_rows` and `nbytes` (of
        scores) count what has gone through.

    Raises
    ------
    ValueError
        At once if `map` or `loss` is unknown or an option has no meaning for it. From the iterator if a score is null
        or a list is longer or shorter than the one before it; the message has the row, counted from 0 over all batches.
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
    >>> next(um.score_batches([(np.array([[0.0, 1.0]]), [1])], loss="entmax_loss", alpha=2.0))
    array([0.])
    """
    if loss is None:
        if target is not None:
            raise ValueError("target: belongs to a loss, not to a map")
        return Scores(batches, map or "softmax", column, columns, axis, sparse, workers, options)
    if map is not None:
        raise ValueError("map, loss: give one of the two")
    if sparse:
        raise ValueError("sparse: belongs to a map, not to a loss")
    return Losses(batches, loss, target, column, columns, axis, workers, options)


class _Stream(ABC):
    """What the iterators behind `score_batches` share: batches, and the columns of the scores."""

    def __init__(
        self,
        batches: Iterable[Any],
        kind: str,
        name: str,
        known: dict[str, tuple[Callable[..., Any], tuple[str, ...]]],
        column: str | None,
        columns: Sequence[str] | None,
        axis: int,
        options: dict[str, Any],
    ) -> None:
        if name not in known:
            there = "maps" if kind == "map" else "losses"
            raise ValueError(f"{kind}: unknown {kind} {name!r}; the {there} are {', '.join(known)}")
        self._function, options_of_it = known[name]
        for option in options:
            if option not in options_of_it:
                homes = " or ".join(other for other, (_, names) in known.items() if option in names)
                raise ValueError(
                    f"{option}: " + (f"belongs to {homes}, not to {name}" if homes else f"not an option of any {kind}")
                )
        if column is not None and columns is not None:
            raise ValueError("column, columns: give one of the two")
        if isinstance(columns, str):
            raise TypeError(f"columns: a sequence of names is needed, not the string {columns!r}")
        if columns is not None and not columns:
            raise ValueError("columns: no name is given")
        for one in columns or ():
            if list(columns or ()).count(one) > 1:
                raise ValueError(f"columns: {one!r} is named twice")
        self._batches = iter(batches)
        self._column, self._columns, self._axis = column, columns, axis
        self._width: int | None = None
        self.rows = self.nan_rows = self.nbytes = 0

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return self.score(next(self._batches))

    def score(self, batch: Any) -> Any:
        """Score one batch."""
        if isinstance(batch, np.ndarray | tuple):
            return self._array(batch, self._axis)
        pa = pyarrow()
        if isinstance(batch, pa.RecordBatch):
            return self._record_batch(batch)
        if isinstance(batch, pa.Table):
            pieces = batch.to_batches() or [empty(batch.schema)]
            return pa.Table.from_batches([self._record_batch(piece) for piece in pieces])
        raise TypeError(f"batches: {type(batch).__name__} is neither an ndarray nor a pyarrow RecordBatch or Table")

    @abstractmethod
    def _array(self, batch: Any, axis: int) -> Any: ...

    @abstractmethod
    def _record_batch(self, batch: pa.RecordBatch) -> pa.RecordBatch: ...

    def _matrix(self, batch: pa.RecordBatch, places: list[int]) -> NDArray[Any]:
        """Give the columns of the scores as a matrix."""
        names = batch.schema.names
        if self._columns is not None:
            return np.stack([vector(batch.column(i), names[i], self.rows) for i in places], axis=1)
        (i,) = places
        x = matrix(batch.column(i), names[i], self.rows, self._width)
        if len(x):
            self._width = x.shape[1]
        return x


class Scores(_Stream):
    """The iterator behind `score_batches` for maps."""

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
        super().__init__(batches, "map", map, MAPS, column, columns, axis, options)
        if sparse and map not in SPARSE_MAPS:
            raise ValueError(f"sparse: {map} has no sparse result; those that have are {', '.join(SPARSE_MAPS)}")
        if sparse and columns is not None:
            raise ValueError("sparse: needs a list column, not several numeric columns")
        self._arguments = {"workers": workers, **options, **({"sparse": True} if sparse else {})}
        self._sparse = sparse
        self.dtype: np.dtype[Any] | None = None  # of the probabilities
        self._written = 0  # bytes in memory for a probability
        self.growth = 1.0  # the same for each byte of scores
        # So that a bad value of an option is found before any work; whether a row can hold a sum, the row will tell.
        columns_of_it = np.shape(options.get("upper", 1.0)) or (1,)
        self._function(np.zeros((0, *columns_of_it)), **self._arguments)

    def _array(self, batch: Any, axis: int) -> Any:
        if not isinstance(batch, np.ndarray):
            raise TypeError("batches: tuples of scores and targets belong to a loss, not to a map")
        x = batch
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
            p = self._array(self._matrix(batch, chosen), 1)
            for k, i in enumerate(chosen):
                values = pa.array(np.ascontiguousarray(p[:, k]))
                new[i] = [(schema.field(i).with_type(values.type), values)]
        else:
            (i,) = chosen
            array, field = batch.column(i), schema.field(i)
            x = self._matrix(batch, chosen)
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


class Losses(_Stream):
    """The iterator behind `score_batches` for losses."""

    def __init__(
        self,
        batches: Iterable[Any],
        loss: str,
        target: str | None,
        column: str | None,
        columns: Sequence[str] | None,
        axis: int,
        workers: int | None,
        options: dict[str, Any],
    ) -> None:
        super().__init__(batches, "loss", loss, LOSSES, column, columns, axis, options)
        self._loss, self._target = loss, target
        self._arguments = {"workers": workers, **options}
        ignored = options.get("ignore_index")
        self._fill = (-1 if ignored is None else ignored) if options.get("sparse_labels") else None

    def _array(self, batch: Any, axis: int) -> Any:
        if not isinstance(batch, tuple) or len(batch) != 2:
            raise TypeError(f"batches: a loss needs tuples of scores and targets, not {type(batch).__name__}")
        x, wanted = batch
        values = self._function(x, wanted, axis=axis, **self._arguments)
        self.rows += values.size
        self.nan_rows += int(np.count_nonzero(np.isnan(values)))
        self.nbytes += np.asarray(x).nbytes
        return values

    def _record_batch(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        if self._target is None:
            raise ValueError("target: the name of the column is missing")
        if self._loss in batch.schema.names:
            raise ValueError(f"{self._loss}: the batch has a column of this name already")
        x = self._matrix(batch, choose(batch.schema, self._scores(batch), self._columns))
        wanted = targets(batch, self._target, self.rows, x.shape[1], self._fill)
        return batch.append_column(self._loss, pyarrow().array(self._array((x, wanted), 1)))

    def _scores(self, batch: pa.RecordBatch) -> str | None:
        """Name the list column of the scores: one that is not that of the targets."""
        if self._column is not None or self._columns is not None:
            return self._column
        others = batch.drop_columns([self._target]) if self._target in batch.schema.names else batch
        (place,) = choose(others.schema, None, None)
        name: str = others.schema.names[place]
        return name
