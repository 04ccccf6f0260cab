"""`score_batches`: every Arrow layout against the map on the plain matrix, and what it refuses."""

import numpy as np
import pytest

import unitmass as um

pa = pytest.importorskip("pyarrow")

N = 4
OPTIONS = {
    "softmax": {"temperature": 0.5},
    "log_softmax": {"temperature": 2.0},
    "sparsemax": {},
    "entmax": {"alpha": 1.3},
    "project_simplex": {"total": 3.0},
    "sparsegen": {"lam": 0.5},
    "normmax": {"alpha": 3.0},
    "budget": {"k": 2},
    "capped_simplex": {"upper": 0.5, "total": 1.5},
    "csoftmax": {"upper": 0.4},
    "csparsemax": {"upper": 0.4, "temperature": 2.0},
    "project_l1_ball": {"radius": 0.5},
    "taylor_softmax": {"order": 4},
    "topk_softmax": {"k": 2},
    "ev_softmax": {},
    "noisy_argmax": {"noise": "normal", "scale": 0.5},
}


def matrix(rows=6, dtype=np.float32, seed=0):
    x = np.random.default_rng(seed).normal(0, 2, (rows, N)) * (1 if np.dtype(dtype).kind == "f" else 3)
    return (x > 0) if np.dtype(dtype) == bool else np.abs(x).astype(dtype) if dtype == np.uint8 else x.astype(dtype)


def flat(x):
    return pa.array(x.ravel())


def fixed(x):
    return pa.FixedSizeListArray.from_arrays(flat(x), x.shape[1])


def variable(x, large=False):
    kind, offset = (pa.LargeListArray, np.int64) if large else (pa.ListArray, np.int32)
    return kind.from_arrays(pa.array(np.arange(len(x) + 1, dtype=offset) * x.shape[1]), flat(x))


def large(x):
    return variable(x, large=True)


def sliced(make):
    """The rows of `x` inside a longer array: offsets that are not zero."""

    def layout(x):
        return make(np.concatenate([x[:1], x, x[-2:]])).slice(1, len(x))

    return layout


def child_offset(x):
    """Lists whose values do not begin at the beginning of the values."""
    values = pa.array(np.concatenate([np.full(3, 7, x.dtype), x.ravel(), x.ravel()[:1]]))
    return pa.ListArray.from_arrays(pa.array(np.arange(len(x) + 1, dtype=np.int32) * N + 3), values)


def fixed_child_offset(x):
    return pa.FixedSizeListArray.from_arrays(pa.array(np.concatenate([x[0], x.ravel()])).slice(N), N)


LAYOUTS = {
    "list": variable,
    "large_list": large,
    "fixed_size_list": fixed,
    "sliced list": sliced(variable),
    "sliced large_list": sliced(large),
    "sliced fixed_size_list": sliced(fixed),
    "list with a child offset": child_offset,
    "fixed_size_list with a child offset": fixed_child_offset,
}


def dense(array):
    return np.array([list(row) for row in array.to_pylist()])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int32, np.uint8, bool])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_agree_with_the_matrix(layout, dtype):
    x = matrix(dtype=dtype)
    batch = pa.record_batch({"id": pa.array(range(len(x))), "s": LAYOUTS[layout](x), "z": pa.array([None, *"abcde"])})
    (scored,) = um.score_batches([batch], map="sparsemax")
    expected = um.sparsemax(x)
    np.testing.assert_array_equal(dense(scored["s"]), expected)
    assert type(scored) is pa.RecordBatch
    assert scored["s"].type.id == batch["s"].type.id
    assert scored["s"].type.value_type == pa.from_numpy_dtype(expected.dtype)
    assert scored.drop_columns("s").equals(batch.drop_columns("s"))
    scored.validate(full=True)


@pytest.mark.parametrize("layout", ["list", "sliced list", "fixed_size_list", "sliced fixed_size_list"])
def test_arrow_values_are_not_copied(layout, monkeypatch):
    from unitmass import score

    seen = []
    monkeypatch.setitem(score.MAPS, "softmax", (lambda x, **_: seen.append(x) or um.softmax(x), ("temperature",)))
    array = LAYOUTS[layout](matrix())
    list(um.score_batches([pa.record_batch({"s": array})], column="s"))
    buffer = array.values.buffers()[1]
    start = seen[-1].__array_interface__["data"][0]
    assert buffer.address <= start < buffer.address + buffer.size


@pytest.mark.parametrize("map", OPTIONS)
def test_every_map_with_its_options_on_every_kind(map):
    x = matrix()
    expected = getattr(um, map)(x, **OPTIONS[map])
    batch = pa.record_batch({"s": fixed(x)})
    arrays, batches, tables = (
        list(um.score_batches([item, item], map=map, **OPTIONS[map])) for item in (x, batch, pa.table(batch))
    )
    for p, scored, table in zip(arrays, batches, tables, strict=True):
        np.testing.assert_array_equal(p, expected)
        np.testing.assert_array_equal(dense(scored["s"]), expected)
        assert type(table) is pa.Table
        np.testing.assert_array_equal(dense(table["s"]), expected)


def test_every_map_is_listed():
    assert sorted(OPTIONS) == sorted(row.name for row in um.maps.table())


def test_metadata_order_and_names_stay():
    item = pa.field("score", pa.float32(), metadata={"in": "nats"})
    field = pa.field("s", pa.list_(item), metadata={"kind": "logits"})
    others = pa.field("a", pa.string(), nullable=False), pa.field("b", pa.int8())
    schema = pa.schema([others[0], field, others[1]], metadata={"k": "v"})
    batch = pa.record_batch([pa.array(["x"]), pa.array([[1.0, 2.0]], field.type), pa.array([None], pa.int8())], schema)
    (scored,) = um.score_batches([batch], workers=1)
    assert scored.schema.equals(schema, check_metadata=True)


def test_numeric_columns_are_each_replaced():
    batch = pa.record_batch({"b": np.array([1, 2], np.int8), "n": ["x", "y"], "a": np.array([0.5, 2.5], np.float32)})
    (scored,) = um.score_batches([batch], columns=["a", "b"])
    expected = um.softmax(np.array([[0.5, 1], [2.5, 2]], np.result_type(np.int8, np.float32)))
    assert scored.schema.names == ["b", "n", "a"]
    assert scored["n"].to_pylist() == ["x", "y"]
    np.testing.assert_array_equal(np.column_stack([scored["a"], scored["b"]]), expected)


def test_a_table_of_unequal_chunks():
    x = matrix(9)
    table = pa.table(
        {
            "s": pa.chunked_array([variable(x[:2]), variable(x[2:2]), variable(x[2:])]),
            "id": pa.chunked_array([pa.array(range(5)), pa.array(range(5, 9))]),
        }
    )
    (scored,) = um.score_batches([table])
    np.testing.assert_array_equal(dense(scored["s"]), um.softmax(x))
    assert scored["id"].to_pylist() == list(range(9))


@pytest.mark.parametrize("make", [variable, large, fixed])
@pytest.mark.parametrize("kind", [pa.record_batch, pa.table])
def test_no_rows(make, kind):
    (scored,) = um.score_batches([kind({"s": make(matrix(0, np.int16))})])
    assert scored.num_rows == 0
    assert scored.schema.field("s").type.value_type == pa.float64()
    (scored,) = um.score_batches([kind({"s": make(matrix(0))}).schema.empty_table()])
    assert scored.num_rows == 0


@pytest.mark.parametrize("make", [variable, large, fixed])
def test_sparse_lists(make):
    x = matrix()
    batch = pa.record_batch({"a": range(6), "s": make(x), "z": range(6)})
    (scored,) = um.score_batches([batch], map="entmax", sparse=True)
    assert scored.schema.names == ["a", "s_indices", "s_values", "z"]
    p = np.zeros_like(x)
    for row, indices, values in zip(p, scored["s_indices"].to_pylist(), scored["s_values"].to_pylist(), strict=True):
        assert all(values)
        row[indices] = values
    np.testing.assert_array_equal(p, um.entmax(x))
    assert scored["s_indices"].type.value_type == pa.int32()
    assert pa.types.is_large_list(scored["s_values"].type) == (make is large)


def test_sparse_arrays_are_csr_triples():
    x = matrix()
    ((data, indices, indptr),) = um.score_batches([x], map="sparsemax", sparse=True)
    for got, expected in zip((data, indices, indptr), um.sparsemax(x, sparse=True), strict=True):
        np.testing.assert_array_equal(got, expected)


def test_axis_of_arrays():
    x = np.random.default_rng(1).normal(size=(3, 4, 5))
    (p,) = um.score_batches([x], map="sparsemax", axis=1)
    np.testing.assert_array_equal(p, um.sparsemax(x, axis=1))


def test_one_in_one_out():
    asked = []

    def source():
        for k in range(5):
            asked.append(k)
            yield np.zeros((1, 2))

    scores = um.score_batches(source())
    assert asked == []
    next(scores)
    assert asked == [0]
    next(scores)
    assert asked == [0, 1]


def test_counts():
    x = matrix(5, np.float64)
    x[1, 2] = x[4, 0] = np.nan
    for item in (x, pa.record_batch({"s": variable(x)})):
        for sparse in (False, True):
            scores = um.score_batches([item, item], map="sparsemax", sparse=sparse)
            list(scores)
            assert (scores.rows, scores.nan_rows, scores.nbytes) == (10, 4, 2 * x.nbytes)


def test_input_is_left_alone():
    x = matrix()
    before = x.copy()
    list(um.score_batches([x, pa.record_batch({"s": fixed(x)})]))
    np.testing.assert_array_equal(x, before)


def lists(rows, kind=None):
    return pa.record_batch({"s": pa.array(rows, kind or pa.list_(pa.float32()))})


FSL = pa.list_(pa.float32(), 2)
GOOD = lists([[1, 2], [3, 4]])
REFUSED = [
    ([GOOD, lists([[1, 2], None])], r"column 's': row 3 is null \(counting from 0\)"),
    ([GOOD, lists([[1, 2], [1, None]])], r"column 's': row 3 has a null \(counting from 0\)"),
    ([GOOD, lists([[1, 2], [1, 2, 3]])], r"column 's': row 3 has 3 values where the rows before it have 2"),
    ([GOOD, lists([[1], [1]])], r"column 's': row 2 has 1 values where"),
    ([lists([[], []])], r"column 's': row 0 is an empty list"),
    ([lists([[1, 2], []])], r"column 's': row 1 has 0 values"),
    ([lists([[1, 2], None], FSL)], r"row 1 is null"),
    ([lists([[1, 2], [1, 2], [1, None], [1, 2]], FSL).slice(1)], r"row 1 has a null"),
    ([lists([[1, 2], [1, 2], [1, None], [1, 2]]).slice(1)], r"row 1 has a null"),
    ([lists([[]], pa.list_(pa.float32(), 0))], r"lists are empty"),
    ([pa.record_batch({"a": [1.0], "b": ["x"]})], r"no list column of numbers; numeric columns: a"),
    ([pa.record_batch({"a": [[1.0]], "b": [[1.0]]})], r"several list columns: a, b"),
]


@pytest.mark.parametrize(("batches", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_bad_rows_and_columns_are_named(batches, message):
    with pytest.raises(ValueError, match=message):
        list(um.score_batches(batches))


def test_null_in_a_numeric_column():
    batch = pa.record_batch({"a": [1.0, 2.0], "b": [1.0, None]})
    with pytest.raises(ValueError, match=r"column 'b': row 1 is null"):
        list(um.score_batches([batch], columns=["a", "b"]))


@pytest.mark.parametrize(
    ("named", "error", "message"),
    [
        ({"column": "q"}, ValueError, r"column 'q' does not exist; the columns are s, t, t, w"),
        ({"column": "t"}, ValueError, r"column 't' occurs 2 times"),
        ({"columns": ["t"]}, ValueError, r"column 't' occurs 2 times"),
        ({"columns": ["s"]}, TypeError, r"column 's' is list<item: double>, not numeric; a list column"),
        ({"column": "w"}, TypeError, r"column 'w' is string, not a list of numbers$"),
    ],
)
def test_names_that_do_not_fit(named, error, message):
    columns = [pa.array(value) for value in ([[1.0]], [1], [2], ["x"])]
    batch = pa.record_batch(columns, names=["s", "t", "t", "w"])
    with pytest.raises(error, match=message):
        list(um.score_batches([batch], **named))


def test_sparse_names_that_are_taken():
    batch = pa.record_batch({"s": [[1.0]], "s_values": [1]})
    with pytest.raises(ValueError, match=r"s_values: the batch has a column of this name already"):
        list(um.score_batches([batch], map="sparsemax", sparse=True))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"map": "argmax"}, ValueError, r"map: unknown map 'argmax'"),
        ({"map": "softmax", "alpha": 2}, ValueError, r"alpha: belongs to entmax or normmax, not to softmax"),
        ({"map": "softmax", "out": 2}, ValueError, r"out: not an option of any map"),
        ({"map": "entmax", "alpha": 0.5}, ValueError, r"alpha"),
        ({"map": "softmax", "sparse": True}, ValueError, r"sparse: softmax has no sparse result; .* sparsemax"),
        ({"map": "normmax", "sparse": True}, ValueError, r"sparse: normmax has no sparse result; .* sparsemax"),
        ({"map": "sparsemax", "columns": ["b"], "sparse": True}, ValueError, r"sparse: needs a list column"),
        ({"column": "a", "columns": ["b"]}, ValueError, r"give one of the two"),
        ({"columns": ["b", "a", "b"]}, ValueError, r"'b' is named twice"),
        ({"columns": "abc"}, TypeError, r"columns: a sequence"),
        ({"columns": []}, ValueError, r"columns: no name"),
        ({"workers": 0}, ValueError, r"workers"),
    ],
)
def test_bad_arguments_are_refused_at_the_call(arguments, error, message):
    with pytest.raises(error, match=message):
        um.score_batches([], **arguments)


@pytest.mark.parametrize("item", [[[1.0, 2.0]], "text", None])
def test_other_batches_are_refused(item):
    with pytest.raises(TypeError, match=r"batches: \w+ is neither"):
        list(um.score_batches([item]))


# --- losses -----------------------------------------------------------------------------------------------------------

LABELS = np.array([0, 3, 1, 1, 2, 0])
LOSSES = {
    "am_softmax": {"margin": 0.2},
    "arcface": {"scale": 8.0},
    "cross_entropy": {"temperature": 2.0, "label_smoothing": 0.1},
    "entmax_loss": {"alpha": 1.3},
    "exact_accuracy_loss": {"temperature": 0.5},
    "normmax_loss": {"alpha": 3.0},
    "smooth_accuracy": {},
    "sphereface": {},
    "topk_cross_entropy": {"k": 2},
}
SETS = {"smooth_f1": {}, "subset_softmax_loss": {}, "zlpr": {"threshold": 0.5}}


def test_every_loss_of_rows_is_listed():
    from unitmass.score import LOSSES as KNOWN

    assert sorted(KNOWN) == sorted({**LOSSES, **SETS})
    assert set(um.losses.__all__) - set(KNOWN) == {
        *("cosent", "group_zlpr", "soft_argmax", "soft_top_k", "soft_top_k_vjp")
    }


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_of_labels(loss):
    x = np.tanh(matrix())
    expected = getattr(um.losses, loss)(x, LABELS, **LOSSES[loss])
    (values,) = um.score_batches([(x, LABELS)], loss=loss, **LOSSES[loss])
    np.testing.assert_array_equal(values, expected)
    batch = pa.record_batch({"y": pa.array(LABELS.astype(np.int8)), "s": variable(x), "z": pa.array(range(6))})
    for kind in (batch, pa.table(batch)):
        (scored,) = um.score_batches([kind], loss=loss, target="y", **LOSSES[loss])
        assert scored.schema.names == ["y", "s", "z", loss]
        assert type(scored) is type(kind)
        assert scored.drop_columns(loss).equals(kind)
        np.testing.assert_array_equal(scored[loss].to_numpy(), expected)


@pytest.mark.parametrize("loss", SETS)
def test_losses_of_sets(loss):
    x, lists = matrix(), [[0], [3, 1], [2, 0, 1], [1], [0, 3], [2]]
    hot = np.array([[k in some for k in range(N)] for some in lists])
    expected = getattr(um.losses, loss)(x, hot, **SETS[loss])
    dense = pa.record_batch({"s": fixed(x), "y": variable(hot)})
    (scored,) = um.score_batches([dense], loss=loss, column="s", target="y", **SETS[loss])
    np.testing.assert_array_equal(scored[loss].to_numpy(), expected)
    for made in (pa.array(lists), pa.array([[9], *lists], pa.large_list(pa.int16())).slice(1)):
        batch = pa.record_batch({"s": fixed(x), "y": made})
        scorer = um.score_batches(
            [batch.slice(0, 2), batch.slice(2)], loss=loss, column="s", target="y", sparse_labels=True, **SETS[loss]
        )
        values = np.concatenate([scored[loss].to_numpy() for scored in scorer])
        np.testing.assert_array_equal(values, expected)
        assert (scorer.rows, scorer.nan_rows, scorer.nbytes) == (6, 0, x.nbytes)


def test_losses_of_numeric_columns_and_distributions():
    x = matrix(dtype=np.float64)
    y = um.softmax(matrix(dtype=np.float64, seed=1))
    batch = pa.record_batch({"a": x[:, 0], "b": x[:, 1], "y": variable(y[:, :2] / y[:, :2].sum(1, keepdims=True))})
    (scored,) = um.score_batches([batch], loss="entmax_loss", columns=["a", "b"], target="y", alpha=2.0)
    expected = um.losses.entmax_loss(x[:, :2], y[:, :2] / y[:, :2].sum(1, keepdims=True), 2.0)
    np.testing.assert_array_equal(scored["entmax_loss"].to_numpy(), expected)


def test_the_column_of_scores_is_the_list_that_is_no_target():
    x = matrix()
    batch = pa.record_batch({"y": variable(um.softmax(x)), "s": variable(x)})
    (scored,) = um.score_batches([batch], loss="cross_entropy", target="y")
    np.testing.assert_array_equal(scored["cross_entropy"].to_numpy(), um.losses.cross_entropy(x, um.softmax(x)))


@pytest.mark.parametrize(
    ("named", "error", "message"),
    [
        ({}, ValueError, r"target: the name of the column is missing"),
        ({"target": "no"}, ValueError, r"column 'no' does not exist"),
        ({"target": "text"}, TypeError, r"column 'text' is string, not numeric"),
        ({"target": "null"}, ValueError, r"column 'null': row 1 is null"),
        ({"target": "five"}, ValueError, r"targets.*5"),
        ({"target": "s", "column": "s", "loss": "zlpr", "sparse_labels": True}, TypeError, r"not lists of labels"),
        ({"target": "y", "loss": "taken"}, ValueError, r"unknown loss 'taken'; the losses are am_softmax"),
        ({"target": "y", "map": "softmax"}, ValueError, r"map, loss: give one"),
        ({"target": "y", "sparse": True}, ValueError, r"sparse: belongs to a map"),
        ({"target": "y", "alpha": 2}, ValueError, r"alpha: belongs to entmax_loss or normmax_loss, not to cross_ent"),
        ({"target": "y", "reduction": "sum"}, ValueError, r"reduction: not an option of any loss"),
    ],
)
def test_losses_that_are_refused(named, error, message):
    columns = {"s": variable(matrix(2)), "y": [0, 1], "text": ["a", "b"], "null": [1, None], "five": [0, 5]}
    with pytest.raises(error, match=message):
        list(um.score_batches([pa.record_batch(columns)], **{"loss": "cross_entropy", **named}))


def test_losses_want_targets():
    with pytest.raises(ValueError, match=r"target: belongs to a loss"):
        um.score_batches([], target="y")
    with pytest.raises(TypeError, match=r"a loss needs tuples"):
        list(um.score_batches([matrix()], loss="cross_entropy"))
    with pytest.raises(TypeError, match=r"tuples of scores and targets belong to a loss"):
        list(um.score_batches([(matrix(), LABELS)]))
    with pytest.raises(TypeError, match=r"scores: a masked array"):
        list(um.score_batches([(np.ma.ones((6, 4)), LABELS)], loss="cross_entropy"))
    batch = pa.record_batch({"s": variable(matrix(2)), "y": [0, 1], "cross_entropy": [0, 0]})
    with pytest.raises(ValueError, match=r"cross_entropy: the batch has a column of this name already"):
        list(um.score_batches([batch], loss="cross_entropy", target="y"))


def test_a_parquet_footer_is_shifted_place_by_place(tmp_path):
    pq = pytest.importorskip("pyarrow.parquet")
    from unitmass._formats import _shifted

    table = pa.table({"s": variable(matrix(200)), **{f"c{k}": pa.array(["x", None] * 100) for k in range(20)}})
    path = tmp_path / "f.parquet"
    pq.write_table(table, path, row_group_size=70, write_page_index=True)
    raw = path.read_bytes()
    length = int.from_bytes(raw[-8:-4], "little")
    footer = raw[-8 - length : -8]
    assert _shifted(footer, 0) == footer
    moved = tmp_path / "moved.parquet"
    shifted = _shifted(footer, 300)  # changes the number of bytes of most places
    end = len(shifted).to_bytes(4, "little") + b"PAR1"
    moved.write_bytes(b"PAR1" + bytes(296) + raw[: -8 - length] + shifted + end)
    assert pq.read_table(moved).equals(table)
