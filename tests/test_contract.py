"""The promises that every array function keeps, as a matrix made from `unitmass.__all__`.

dtype x layout x shape x workers x special rows: each result must have the bits of the plainest call there is, one row
at a time, C order, one worker. A new export fails `test_every_export_is_listed` until the table knows how to call it.
"""

import functools

import numpy as np
import pytest

import unitmass as um

try:
    import ml_dtypes
except ImportError:
    BFLOAT16 = []
else:
    BFLOAT16 = [np.dtype(ml_dtypes.bfloat16)]


def at_least(least):
    """A bound with which n entries can hold a sum of 1."""
    return lambda x, n, axis: max(least, 1 / n)


def at_most(most):
    """A budget that n entries can hold."""
    return lambda x, n, axis: min(most, n)


def by_column(x, n, axis):
    """A bound for each place along the axis."""
    bound = np.arange(n) % 3 / 4 + (0.5 if n > 1 else 1)
    return np.moveaxis(bound.reshape(n, *(1,) * (x.ndim - 1)), 0, axis)


def by_entry(x, n, axis):
    """A bound for each entry that goes where the entry goes; exact in half precision."""
    return np.floor(np.nan_to_num(x.astype(float), posinf=0, neginf=0) * 16 % 8) / 16 + (0.5 if n > 1 else 1)


# How to call each array function: option sets worth telling apart. Functions of scores take one array, gradients two.
# An option that depends on the scores is a function of them, their number in a row, and the axis.
BOUNDS = [{"upper": at_least(0.3)}, {"upper": by_column}, {"upper": by_entry}]
NOISES = [{"noise": noise} for noise in ("normal", "exponential", "uniform", "logistic")]
GRID = np.linspace(-1, 1, 9)
TRIANGLE = (GRID, 1 - abs(GRID), np.where(GRID < 0, (1 + GRID) ** 2 / 2, 1 - (1 - GRID) ** 2 / 2))
OF_SCORES = {
    "softmax": [{}, {"temperature": 0.7}],
    "log_softmax": [{}],
    "project_simplex": [{}, {"total": 2.5}],
    "sparsemax": [{}, {"temperature": 0.7}],
    "sparsegen": [{}, {"lam": 0.3}],
    "entmax": [
        {},
        *({"alpha": a} for a in (1, 1.3, 2, 3)),
        {"alpha": 1.3, "temperature": 0.7},
        {"alpha": 1.5, "method": "bisect", "n_iter": 20},
    ],
    "threshold": [{}, {"alpha": 1.5}],
    "normmax": [{}, {"alpha": 1.3}, {"alpha": 5, "temperature": 0.7}],
    "project_l1_ball": [{}, {"radius": 3.5}],
    "capped_simplex": [*BOUNDS, {"total": 1.5, "upper": at_least(1.5)}],
    "csparsemax": [*BOUNDS, {"temperature": 0.7, "upper": by_entry}],
    "csoftmax": [*BOUNDS, {"temperature": 0.7, "upper": by_entry}],
    "budget": [{"k": at_most(2.5)}, {"k": 0.7, "temperature": 0.7}],
    "taylor_softmax": [{}, {"order": 6, "temperature": 0.7}],
    "topk_softmax": [{"k": 3}, {"k": None, "top_p": 0.6}, {"k": 1}],
    "ev_softmax": [{}, {"temperature": 0.7}],
    "noisy_argmax": [{}, {"scale": 0.7}, *NOISES, {"noise": TRIANGLE, "scale": 3}],
}
OF_RESULTS = {
    "softmax_vjp": [{}],
    "log_softmax_vjp": [{"temperature": 0.7}],
    "project_simplex_vjp": [{}],
    "sparsemax_vjp": [{}, {"temperature": 0.7}],
    "sparsegen_vjp": [{"lam": 0.3}],
    "entmax_vjp": [{}, {"alpha": 1.3}, {"alpha": 3}, {"temperature": 0.7}],
    "entmax_alpha_grad": [{}, {"alpha": 1}],
    "normmax_vjp": [{}, {"alpha": 1.3}, {"alpha": 5, "temperature": 0.7}],
    "project_l1_ball_vjp": [{}, {"radius": 3.5}],
    "capped_simplex_vjp": BOUNDS,
    "csparsemax_vjp": [*BOUNDS, {"temperature": 0.7, "upper": by_entry}],
    "csoftmax_vjp": [*BOUNDS, {"temperature": 0.7, "upper": by_entry}],
    "budget_vjp": [{}, {"temperature": 0.7}],
    "taylor_softmax_vjp": [{}, {"order": 6, "temperature": 0.7}],
    "topk_softmax_vjp": [{}, {"temperature": 0.7}],
    "ev_softmax_vjp": [{}],
    "noisy_argmax_vjp": [{}, {"scale": 0.7}, *NOISES, {"noise": TRIANGLE, "scale": 3}],
}
GRADIENTS_OF_SCORES = {"taylor_softmax_vjp", "noisy_argmax_vjp"}  # take the scores, not the result
REQUIRED = {  # options without a default
    name: sets[0] for name, sets in (OF_SCORES | OF_RESULTS).items() if {"k", "upper"} & {*sets[0]}
}
NOT_OF_ARRAYS = {
    *("score_batches", "set_workers", "show_config"),  # test_score, test_threads
    *("common_cap", "common_sector", "coverage", "hemisphere", "scan_circle", "simulate_gaps"),  # test_sectors
    *("circular_range_test", "gap_counts", "gap_means", "hodges_ajne_test"),
}
CLASSES = {
    *("Ensemble", "Events", "Moments", "Passages", "ReactionNetwork"),  # test_gillespie
    *("CircularTest", "CommonSector", "MaxGap", "MinGap", "SectorEstimate"),  # test_sectors
}
MODULES = {"losses", "maps", "smooth"}  # test_losses, test_smooth
ONE_PER_ROW = {"threshold", "entmax_alpha_grad"}  # drop the axis, take no out=
NO_WHERE = set(OF_RESULTS)

CASES = [(name, options) for table in (OF_SCORES, OF_RESULTS) for name, sets in table.items() for options in sets]
IDS = [
    " ".join([n, *(f"{k}={'table' if v is TRIANGLE else getattr(v, '__name__', v)}" for k, v in o.items())])
    for n, o in CASES
]
cases = pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
into = pytest.mark.parametrize("name", sorted({*OF_SCORES, *OF_RESULTS} - ONE_PER_ROW))
DTYPES = [*map(np.dtype, ("f2", "f4", "f8", "i1", "i8", "?")), *BFLOAT16]
FLOATS = [d for d in DTYPES if d.kind == "f" or d in BFLOAT16]
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=str)
WORKERS = [1, 2, -1]


def test_every_export_is_listed():
    listed = {*OF_SCORES, *OF_RESULTS, *NOT_OF_ARRAYS, *CLASSES}
    assert sorted(um.__all__) == sorted({*listed, *MODULES})
    for name in listed:
        assert callable(getattr(um, name))
    assert set(um.maps.__all__) - set(um.__all__) == {"Map", "Table", "sample", "table"}  # test_more_maps


# --- inputs -----------------------------------------------------------------------------------------------------------


@functools.cache
def inputs(name, dtype, shape, special=True):
    """Arrays that suit the function, in C order. Scores of float dtypes carry NaN, inf and -inf rows."""
    rng = np.random.default_rng(sum(shape))
    x = rng.normal(0, 2, shape).round(2).reshape(-1, shape[-1]) if 0 not in shape else np.zeros(shape)
    if special and dtype in FLOATS and len(x) >= 8:
        x[1, 0] = np.nan
        x[2, -1] = np.inf
        x[3] = np.inf
        x[4, :-1] = -np.inf
        x[5] = -np.inf
    x = x.reshape(shape).astype(dtype)
    if name in OF_SCORES:
        return (x,)
    g = rng.normal(0, 2, shape).astype(dtype)
    if name in GRADIENTS_OF_SCORES:
        return x, g
    if dtype not in FLOATS:
        p = (x == x.max(-1, keepdims=True, initial=0)).astype(dtype)
    else:
        p = (um.log_softmax if name == "log_softmax_vjp" else um.entmax)(x.astype(np.float64)).astype(dtype)
    return p, g


def result_dtype(dtype):
    return dtype if dtype in FLOATS else np.dtype("f8")


def assert_same(got, expected):
    """Same bits; a NaN is a NaN whatever its payload."""
    if isinstance(expected, tuple):
        assert len(got) == len(expected)
        for a, b in zip(got, expected, strict=True):
            assert_same(a, b)
        return
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.shape == expected.shape
    assert got.dtype == expected.dtype
    assert got.dtype.isnative
    wide = np.float64 if got.dtype.kind in "fV" or got.dtype in BFLOAT16 else got.dtype
    a, b = got.astype(wide), expected.astype(wide)
    differ = ~((a == b) | ((a != a) & (b != b)))
    assert not differ.any(), f"{np.count_nonzero(differ)} of {a.size} differ: {a[differ][0]!r} for {b[differ][0]!r}"
    if wide is np.float64:
        np.testing.assert_array_equal(np.signbit(a[a == 0]), np.signbit(b[b == 0]))


def call(name, args, **options):
    x, axis = np.asarray(getattr(args[0], "a", args[0])), options.get("axis", -1)
    n = x.shape[axis] if x.ndim else 1
    chosen = {**REQUIRED.get(name, {}), **options}
    return getattr(um, name)(*args, **{k: v(x, n, axis) if callable(v) else v for k, v in chosen.items()})


def row_by_row(name, args, **options):
    """The plainest calls there are: each row alone, one worker."""
    shape = args[0].shape
    rows = [call(name, [np.array(a[i]) for a in args], workers=1, **options) for i in np.ndindex(shape[:-1])]
    batch = shape[:-1]
    if name == "threshold":
        taus, supports = [r[0] for r in rows], [r[1] for r in rows]
        return (
            np.array(taus, result_dtype(args[0].dtype)).reshape(batch),
            np.array(supports, np.int64).reshape(batch),
        )
    return np.array(rows, result_dtype(args[0].dtype)).reshape(batch if name in ONE_PER_ROW else shape)


# --- dtype, layout, workers, special rows -----------------------------------------------------------------------------


def fortran(a):
    return np.asfortranarray(a)


def strided(a):
    wide = np.zeros((a.shape[0] * 2, a.shape[1] * 3), a.dtype)
    wide[::2, 1::3] = a
    return wide[::2, 1::3]


def padded_rows(a):
    wide = np.zeros((a.shape[0], a.shape[1] + 5), a.dtype)
    wide[:, 2:-3] = a
    return wide[:, 2:-3]


def reversed_(a):
    return np.array(a[::-1, ::-1])[::-1, ::-1]


def read_only(a):
    a = a.copy()
    a.flags.writeable = False
    return a


def unaligned(a):
    buffer = np.zeros(a.nbytes + 1, np.uint8)
    view = buffer[1:].view(a.dtype).reshape(a.shape)
    view[...] = a
    return view


def swapped(a):
    return a.astype(a.dtype.newbyteorder())


LAYOUTS = [fortran, strided, padded_rows, reversed_, read_only, unaligned, swapped]


@dtypes
@cases
def test_layouts_and_workers(name, options, dtype):
    for shape in [(23, 10), (9, 33), (8, 150)]:
        args = inputs(name, dtype, shape)
        expected = row_by_row(name, args, **options)
        for workers in WORKERS:
            assert_same(call(name, args, workers=workers, **options), expected)
        for layout in LAYOUTS:
            if layout is swapped and dtype in BFLOAT16:
                continue  # has no other byte order
            moved = [layout(a) for a in args]
            assert_same(call(name, moved, workers=2, **options), expected)
            for a, b in zip(moved, args, strict=True):
                assert a.tobytes() == layout(b).tobytes(), "the input was written to"


@dtypes
@cases
def test_broadcast_inputs(name, options, dtype):
    args = inputs(name, dtype, (1, 33), special=False)
    rows = [np.broadcast_to(a, (12, 33)) for a in args]
    assert_same(call(name, rows, workers=2, **options), row_by_row(name, rows, **options))
    columns = [np.broadcast_to(a.reshape(33, 1), (33, 12)) for a in args]
    assert_same(call(name, columns, workers=2, **options), row_by_row(name, columns, **options))


@dtypes
@cases
def test_shapes(name, options, dtype):
    drop = name in ONE_PER_ROW
    for shape in [(0, 5), (3, 0, 4), (0, 1), (1, 5), (7, 1), (1, 1), (1,), (6,), (40, 3), (2, 3, 4)]:
        args = inputs(name, dtype, shape, special=False)
        got = call(name, args, **options)
        assert_same(got, row_by_row(name, args, **options))
        for g in got if isinstance(got, tuple) else [got]:
            assert g.shape == (shape[:-1] if drop else shape)


@cases
def test_every_axis(name, options):
    for dtype in (np.dtype("f4"), np.dtype("f8")):
        args = inputs(name, dtype, (8, 5, 11))
        for axis in range(-3, 3):
            expected = call(name, [np.ascontiguousarray(np.moveaxis(a, axis, -1)) for a in args], workers=1, **options)
            if name not in ONE_PER_ROW:
                expected = np.moveaxis(expected, -1, axis)
            assert_same(call(name, args, axis=axis, **options), expected)
            assert_same(call(name, [np.asfortranarray(a) for a in args], axis=axis, **options), expected)
        assert_same(call(name, args, axis=np.int64(1), **options), call(name, args, axis=1, **options))


@pytest.mark.parametrize("shape", [(4000, 10), (300, 128), (40, 4097), (2, 300_001)], ids=str)
@cases
def test_large_batches(name, options, shape):
    """Enough work to be shared out, and rows long enough to be split."""
    for dtype in (np.dtype("f4"), np.dtype("f8")):
        args = inputs(name, dtype, shape)
        expected = call(name, args, workers=1, **options)
        for workers in (2, 3, -1, None):
            assert_same(call(name, args, workers=workers, **options), expected)
        some = np.linspace(0, shape[0] - 1, 12).astype(int)
        picked = tuple(e[some] for e in expected) if isinstance(expected, tuple) else expected[some]
        assert_same(row_by_row(name, [a[some] for a in args], **options), picked)


@cases
def test_small_floats_are_stored_small_and_computed_in_float32(name, options):
    if name == "project_l1_ball_vjp":
        return  # whether a sum is the radius is a matter of how it was rounded
    for dtype in FLOATS:
        if dtype.itemsize == 2:
            args = inputs(name, dtype, (9, 40))
            wide = call(name, [a.astype(np.float32) for a in args], **options)
            if isinstance(wide, tuple):
                tau, support = wide
                assert_same(call(name, args, **options), (tau.astype(dtype), support))
            else:
                with np.errstate(over="ignore"):
                    assert_same(call(name, args, **options), wide.astype(dtype))


@pytest.mark.parametrize("dtype", [d for d in DTYPES if d not in FLOATS], ids=str)
@cases
def test_integers_and_booleans_become_float64(name, options, dtype):
    args = inputs(name, dtype, (9, 40))
    assert_same(call(name, args, **options), call(name, [a.astype(np.float64) for a in args], **options))


@cases
def test_a_neighbour_changes_nothing(name, options):
    args = inputs(name, np.dtype("f4"), (33, 10), special=False)
    expected = call(name, args, **options)
    noisy = [a.copy() for a in args]
    for a in noisy:
        a[::2] = np.nan
    got = call(name, noisy, **options)
    odd = slice(1, None, 2)
    if isinstance(expected, tuple):
        got, expected = got[0], expected[0]
    assert_same(got[odd], expected[odd])
    assert np.isnan(got[::2]).all()


# --- what counts as an array ------------------------------------------------------------------------------------------


class HasArray:
    """Only `__array__`, as older containers have."""

    def __init__(self, a):
        self.a = a

    def __array__(self, dtype=None, copy=None):
        return self.a if dtype is None else self.a.astype(dtype)


class HasDlpack:
    """Only DLPack, as tensors have."""

    def __init__(self, a):
        self.a = a

    def __dlpack__(self, **options):
        return self.a.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.a.__dlpack_device__()


@cases
def test_array_likes(name, options):
    for dtype in (np.dtype("f4"), np.dtype("f8")):
        args = inputs(name, dtype, (9, 10))
        expected = call(name, args, **options)
        for kind in (HasArray, HasDlpack):
            got = call(name, [kind(a) for a in args], **options)
            for part in got if isinstance(got, tuple) else [got]:
                assert type(part) is np.ndarray
            assert_same(got, expected)
    lists = [a.tolist() for a in args]
    assert_same(call(name, lists, **options), expected)
    assert_same(call(name, [[tuple(row) for row in a] for a in lists], **options), expected)


@cases
def test_scalars_are_refused(name, options):
    count = 1 if name in OF_SCORES else 2
    for scalar in (1.0, 3, np.float32(1), np.array(2.0)):
        with pytest.raises(ValueError, match=r"\b(x|p|logp)\b"):
            call(name, [scalar] * count, **options)


# --- where= -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "options"), [c for c in CASES if c[0] not in NO_WHERE], ids=str)
def test_where_broadcasts(name, options):
    rng = np.random.default_rng(1)
    for dtype in (np.dtype("f2"), np.dtype("f4"), np.dtype("f8")):
        for shape in [(23, 10), (9, 33), (3, 300)]:
            args = inputs(name, dtype, shape)
            full = rng.random(shape) < 0.7
            for where in (full, full[:1], full[:, :1], full[0], np.True_, True, np.asfortranarray(full), full.tolist()):
                spread = np.broadcast_to(where, shape)
                rows = [
                    call(name, [a[i] for a in args], where=spread[i].copy(), workers=1, **options)
                    for i in range(shape[0])
                ]
                expected = tuple(map(np.array, zip(*rows, strict=True))) if name == "threshold" else np.array(rows)
                assert_same(call(name, args, where=where, workers=2, **options), expected)
            if name not in ONE_PER_ROW:
                got = call(name, [a.T for a in args], where=full.T, axis=0, **options)
                assert_same(got, call(name, args, where=full, **options).T)
            assert_same(call(name, args, where=True, **options), call(name, args, **options))


# --- out= -------------------------------------------------------------------------------------------------------------


@into
def test_out_is_filled_and_returned(name):
    for dtype in FLOATS:
        args = inputs(name, dtype, (23, 10))
        expected = call(name, args)
        wide = np.full((46, 30), 7, dtype)
        for out in (
            np.full((23, 10), 7, dtype),
            np.full((23, 10), 7, dtype, order="F"),
            wide[::2, ::3],
            np.full((23, 10), 7, dtype)[::-1, ::-1],
            unaligned(np.full((23, 10), 7, dtype)),
        ):
            assert call(name, args, out=out, workers=2) is out
            assert_same(np.array(out), expected)
        assert (wide[1::2] == 7).all(), "written beside the view"
        assert (wide[:, 1::3] == 7).all(), "written beside the view"


@into
def test_out_of_another_dtype(name):
    args = inputs(name, np.dtype("f8"), (23, 10))
    for dtype in ("f2", "f4", ">f8", ">f4", "g"):
        out = np.empty((23, 10), dtype)
        assert call(name, args, out=out) is out
        native = np.dtype(dtype).newbyteorder("=")
        with np.errstate(over="ignore"):
            assert_same(out.astype(native), call(name, args).astype(native))
    args = inputs(name, np.dtype("f4"), (23, 10))
    out = np.empty((23, 10))
    call(name, args, out=out)
    assert_same(out, call(name, args).astype(np.float64))
    integers = inputs(name, np.dtype("i8"), (23, 10))
    with pytest.raises(TypeError, match=r"out\b.*int64"):
        call(name, integers, out=np.empty((23, 10), np.int64))


@into
def test_out_may_be_the_input(name):
    for dtype in FLOATS:
        for shape in [(23, 10), (9, 33), (4, 5000), (2, 300_001)]:
            args = inputs(name, dtype, shape)
            expected = call(name, args)
            for i in range(len(args)):
                mine = [a.copy() for a in args]
                assert call(name, mine, out=mine[i], workers=2) is mine[i]
                assert_same(mine[i], expected)
                for axis_first in ([np.asfortranarray(a) for a in args], [reversed_(a) for a in args]):
                    call(name, axis_first, out=axis_first[i])
                    assert_same(np.array(axis_first[i]), expected)


@into
def test_out_may_overlap_the_input(name):
    """As in NumPy: as if the input had been copied first."""
    args = inputs(name, np.dtype("f4"), (24, 10))
    expected = call(name, args)
    for i in range(len(args)):
        buffer = np.zeros((30, 10), np.float32)
        for shift in (0, 1, 3):
            mine = [a.copy() for a in args]
            buffer[3:27] = args[i]
            mine[i] = buffer[3:27]
            for out in (buffer[3 - shift : 27 - shift], buffer[3 + shift : 27 + shift], buffer[3:27][::-1]):
                buffer[3:27] = args[i]
                call(name, mine, out=out, workers=2)
                assert_same(np.array(out), expected)


@into
def test_out_along_another_axis(name):
    args = inputs(name, np.dtype("f8"), (8, 5, 11))
    for axis in range(3):
        out = np.full((8, 5, 11), np.nan)
        assert call(name, args, axis=axis, out=out) is out
        assert_same(out, np.ascontiguousarray(call(name, args, axis=axis)))


@into
def test_an_empty_batch_fills_nothing(name):
    args = inputs(name, np.dtype("f4"), (0, 5))
    for out in (np.empty((0, 5), np.float32), *args):
        assert call(name, args, out=out) is out


@into
def test_out_stays_as_it_was_when_refused(name):
    args = inputs(name, np.dtype("f8"), (23, 10))
    out = np.full((23, 10), 7.0)
    with pytest.raises(ValueError, match="workers"):
        call(name, args, out=out, workers=0)
    assert (out == 7).all()
