"""`unitmass score` from outside: formats, figures, refusals, memory, and the same bytes after a kill."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import unitmass as um

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

ROWS, N = 1000, 5
BATCH = ["--batch-rows", "70"]


def run(*arguments, code=0, cwd=None):
    """Run the command line; check its exit code and that an error is one line."""
    command = [sys.executable, "-m", "unitmass", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=120, cwd=cwd)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    if code in (1, 2):
        assert re.fullmatch(r"unitmass: error: [^\n]+\n", done.stderr)
    return done


def refused(*arguments, code):
    return run(*arguments, code=code).stderr.removeprefix("unitmass: error: ").rstrip("\n")


def scores(rows=ROWS, dtype=np.float32):
    return np.random.default_rng(7).normal(0, 2, (rows, N)).astype(dtype)


def table(x):
    return pa.table(
        {
            "id": [f'row "{k}", é\n' for k in range(len(x))],
            "logits": pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), N),
            "kind": pa.array([f"k{k % 3}" for k in range(len(x))]).dictionary_encode(),
            **{f"c{j}": x[:, j] for j in range(N)},
        }
    )


def lists(column):
    return np.array([list(row) for row in column.to_pylist()])


@pytest.fixture
def inputs(tmp_path):
    """One file of each format with the same scores."""
    x = scores()
    np.save(tmp_path / "x.npy", x)
    pq.write_table(table(x), tmp_path / "x.parquet", row_group_size=300)
    with open(tmp_path / "x.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id", *(f"c{j}" for j in range(N)), "note"])
        notes = ('a "b", é' if k % 100 == 9 else "" for k in range(ROWS))
        writer.writerows([f"00{k}", *map(float, row), note] for k, (row, note) in enumerate(zip(x, notes, strict=True)))
    return tmp_path


COLUMNS = ["--columns", ",".join(f"c{j}" for j in range(N))]
CASES = {  # input, output, options
    "parquet list": ("x.parquet", "y.parquet", ["--map", "entmax", "--alpha", "1.3"]),
    "parquet columns": ("x.parquet", "y.parquet", ["--map", "softmax", *COLUMNS]),
    "parquet sparse": ("x.parquet", "y.parquet", ["--map", "sparsemax", "--sparse"]),
    "csv": ("x.csv", "y.csv", ["--map", "sparsemax", *COLUMNS]),
    "npy": ("x.npy", "y.npy", ["--map", "softmax", "--temperature", "2"]),
    "npy axis 0": ("x.npy", "y.npy", ["--map", "sparsemax", "--axis", "0"]),
    "npy sparse": ("x.npy", "y.npz", ["--map", "project_simplex", "--total", "2", "--sparse"]),
}


# --- formats --------------------------------------------------------------------------------------------------------


def test_parquet_list(inputs):
    files = inputs / "x.parquet", inputs / "y.parquet"
    done = run("score", *files, "--map", "entmax", "--alpha", 1.3, "--column", "logits")
    before, after = pq.read_table(inputs / "x.parquet"), pq.read_table(inputs / "y.parquet")
    assert done.stderr.endswith("columns scored: logits; passed through: id, kind, c0, c1, c2, c3, c4\n")
    assert after.schema.equals(before.schema, check_metadata=True)
    assert after.drop_columns("logits").equals(before.drop_columns("logits"))
    np.testing.assert_array_equal(lists(after["logits"]), um.entmax(scores(), 1.3))


def test_parquet_columns(inputs):
    run("score", inputs / "x.parquet", inputs / "y.parquet", "--map", "sparsemax", "--columns", "c3,c0", *BATCH)
    before, after = pq.read_table(inputs / "x.parquet"), pq.read_table(inputs / "y.parquet")
    assert after.schema.equals(before.schema)
    assert after.drop_columns(["c0", "c3"]).equals(before.drop_columns(["c0", "c3"]))
    np.testing.assert_array_equal(np.column_stack([after["c3"], after["c0"]]), um.sparsemax(scores()[:, [3, 0]]))


def test_parquet_sparse(inputs):
    run("score", inputs / "x.parquet", inputs / "y.parquet", "--map", "sparsemax", "--sparse")
    after = pq.read_table(inputs / "y.parquet")
    assert after.schema.names[:4] == ["id", "logits_indices", "logits_values", "kind"]
    p = um.sparsemax(scores())
    columns = (after[f"logits_{part}"].to_pylist() for part in ("indices", "values"))
    for row, indices, values in zip(p, *columns, strict=True):
        np.testing.assert_array_equal(np.flatnonzero(row), indices)
        np.testing.assert_array_equal(row[indices], np.float32(values))


@pytest.mark.parametrize("codec", ["NONE", "ZSTD"])
def test_parquet_keeps_the_compression_and_has_sound_metadata(tmp_path, codec):
    pq.write_table(table(scores()), tmp_path / "x.parquet", compression=codec)
    run("score", tmp_path / "x.parquet", tmp_path / "y.parquet", "--map", "softmax", *BATCH)
    file = pq.ParquetFile(tmp_path / "y.parquet")
    assert [file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)] == [70] * 14 + [20]
    codecs = {file.metadata.row_group(g).column(0).compression for g in range(3)}
    assert codecs == {codec.replace("NONE", "UNCOMPRESSED")}
    np.testing.assert_array_equal(lists(file.read_row_group(14)["logits"]), um.softmax(scores())[-20:])


def test_parquet_of_integers_in_small_groups(tmp_path):
    x = np.arange(60).reshape(20, 3) % 7
    batch = pa.table({"s": [list(map(int, row)) for row in x]})
    pq.write_table(batch, tmp_path / "x.pq", row_group_size=1)
    run("score", tmp_path / "x.pq", tmp_path / "y.pq", "--map", "softmax")
    file = pq.ParquetFile(tmp_path / "y.pq")
    assert file.num_row_groups == 1  # small groups are gathered
    assert file.schema_arrow.field("s").type == pa.list_(pa.float64())
    np.testing.assert_array_equal(lists(file.read()["s"]), um.softmax(x))


def test_csv(inputs):
    run("score", inputs / "x.csv", inputs / "y.csv", "--map", "sparsemax", *COLUMNS)
    texts = [(inputs / name).read_text(encoding="utf-8").splitlines() for name in ("x.csv", "y.csv")]
    (header, *before), (head, *after) = map(csv.reader, texts)
    assert head == header
    assert [(row[0], row[-1]) for row in after] == [(row[0], row[-1]) for row in before]  # "007" stays "007"
    p = np.array([[float(field) for field in row[1:-1]] for row in after])
    np.testing.assert_array_equal(p, um.sparsemax(np.array([[float(field) for field in row[1:-1]] for row in before])))


def test_csv_takes_all_numeric_columns(tmp_path):
    (tmp_path / "x.csv").write_text("\ufeffa,name,b\n1,x,2.5\nnan,y,3\n", encoding="utf-8")
    done = run("score", tmp_path / "x.csv", tmp_path / "y.csv", "--map", "sparsemax")
    assert (tmp_path / "y.csv").read_text() == "a,name,b\n0,x,1\nnan,y,nan\n"
    assert done.stderr.endswith("; NaN in 1 rows\ncolumns scored: a, b; passed through: name\n")


def test_csv_names_what_passes_through(tmp_path):
    names = [f"n{j}" for j in range(20)]
    (tmp_path / "x.csv").write_text(f"a,{','.join(names)}\n1{',x' * 20}\n2{',2020-01-01' * 20}\n")
    done = run("score", tmp_path / "x.csv", tmp_path / "y.csv", "--map", "softmax", "--json")
    assert done.stderr.endswith(
        "columns scored: a; passed through: n0, n1, n2, n3, n4, n5, n6, n7, n8, n9 and 10 more\n"
    )
    report = json.loads(done.stdout)
    assert (report["scored"], report["passed"]) == (["a"], names)


NUMBERS = ["1", "-1", "+1", "1.", ".5", "-.5", "1e5", "1E+5", " 1 ", "inf", "-Infinity", "nan", "-NaN", "007", "1e400"]
WORDS = ["1e", "1e+", "0x10", "1_0", "1;5", "١", "1d5", "1f", "--1", ".", "- 1", "infin", "one", "true", "2020-01-01"]


@pytest.mark.parametrize("cell", [*NUMBERS, *WORDS])
def test_what_csv_takes_for_a_number(tmp_path, cell):
    """What pyarrow reads as a float64, and nothing else, counts as a number when the columns are chosen."""
    from unitmass._formats import CsvReader

    path, at = tmp_path / "x.csv", r"column 'b': row 1 has .*, which is not a number \(counting from 0\)"
    path.write_text(f"a,b\n1,1\n1,{cell}\n", encoding="utf-8")
    if cell in NUMBERS:
        assert CsvReader(path, None, None).scored == ["a", "b"]
        assert sum(batch.num_rows for batch in CsvReader(path, None, ["b"]).batches(0, 1.0)) == 2
    else:
        if cell != "0x10":  # an integer where types are inferred
            with pytest.raises(ValueError, match=f"{at}: mend it, or name the columns of scores with --columns"):
                CsvReader(path, None, None)
        with pytest.raises(ValueError, match=f"{at}$"):
            list(CsvReader(path, None, ["b"]).batches(0, 1.0))
        assert CsvReader(path, None, ["a"]).passed == ["b"]


@pytest.mark.parametrize("options", [[], BATCH])
@pytest.mark.parametrize("axis", [0, 1, 2, -3])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_axes_and_orders(tmp_path, axis, order, options, capsys):
    from unitmass._cli import main

    x = np.asarray(np.random.default_rng(3).normal(size=(6, 7, 50)), order=order)
    np.save(tmp_path / "x.npy", x)
    command = ["score", f"{tmp_path}/x.npy", f"{tmp_path}/y.npy", "--map", "sparsemax", "--axis", str(axis)]
    assert main([*command, *options]) == 0
    p = np.load(tmp_path / "y.npy")
    assert p.flags["C_CONTIGUOUS" if order == "C" else "F_CONTIGUOUS"]
    np.testing.assert_array_equal(p, um.sparsemax(x, axis=axis))


def test_npy_windows_of_a_strided_axis_in_blocks(tmp_path, monkeypatch):
    from unitmass import _files, _formats

    monkeypatch.setattr(_formats, "READ_BYTES", 4096)  # so that a window takes several mappings
    x = np.random.default_rng(3).normal(size=(2, 90, 40))
    np.save(tmp_path / "x.npy", x)
    _files.score_file(tmp_path / "x.npy", tmp_path / "y.npy", map="softmax", axis=1, batch_rows=7)
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), um.softmax(x, axis=1))


@pytest.mark.parametrize("dtype", ["<f2", "<f4", ">f4", ">f8", "i1", "<u4", "?"])
def test_npy_dtypes(tmp_path, dtype, capsys):
    from unitmass._cli import main

    x = scores(20, np.float32) > 0 if dtype == "?" else np.abs(scores(20)).astype(dtype)
    np.save(tmp_path / "x.npy", x)
    assert main(["score", f"{tmp_path}/x.npy", f"{tmp_path}/y.npy", "--map", "softmax"]) == 0
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), um.softmax(x.astype(x.dtype.newbyteorder("="))))


def test_npy_of_one_row(tmp_path):
    np.save(tmp_path / "x.npy", np.array([1.0, 0.0]))
    run("score", tmp_path / "x.npy", tmp_path / "y.npy", "--map", "entmax")
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), um.entmax([1.0, 0.0]))


def test_npz_is_read_by_scipy(inputs):
    sparse = pytest.importorskip("scipy.sparse")
    run("score", inputs / "x.npy", inputs / "y.npz", "--map", "entmax", "--sparse", *BATCH)
    matrix = sparse.load_npz(inputs / "y.npz")
    matrix.check_format(full_check=True)
    np.testing.assert_array_equal(matrix.toarray(), um.entmax(scores()))


def test_npz_of_more_entries_than_int32_counts(tmp_path):
    from unitmass._formats import NpyReader, NpzWriter

    np.save(tmp_path / "x.npy", scores(3))
    reader = NpyReader(tmp_path / "x.npy", None, -1)
    p = um.softmax(scores(3))
    triple = p.ravel(), np.tile(np.arange(N, dtype=np.int32), 3), np.arange(4, dtype=np.int32) * N
    writer = NpzWriter(tmp_path, reader, triple, [])
    writer._entries = 2**31 - 3
    writer.write(triple)
    writer.sync()
    indptr = np.fromfile(tmp_path / "indptr", np.int64)
    writer.close()
    assert indptr.tolist() == [0, *(2**31 - 3 + N * k for k in (1, 2, 3))]


@pytest.mark.parametrize("order", ["C", "F"])
def test_npz_has_its_rows_in_the_order_of_the_batch(tmp_path, order):
    sparse = pytest.importorskip("scipy.sparse")
    x = np.asarray(np.random.default_rng(4).normal(size=(4, 6, 5)), order=order)
    for axis in range(3):
        np.save(tmp_path / "x.npy", x)
        command = ["score", tmp_path / "x.npy", tmp_path / "y.npz", "--map", "sparsemax", "--sparse", "--overwrite"]
        if order == "F":
            assert "Fortran order" in refused(*command, "--axis", axis, code=1)
            continue
        run(*command, "--axis", axis, "--batch-rows", 3)
        p = np.moveaxis(um.sparsemax(x, axis=axis), axis, -1)
        np.testing.assert_array_equal(sparse.load_npz(tmp_path / "y.npz").toarray(), p.reshape(-1, p.shape[-1]))


@pytest.mark.parametrize(("shape", "axis"), [((3, 5, 0), 1), ((0, 5, 3), 1), ((5, 0), 0), ((3, 0, 5), 2)])
def test_npy_without_rows(tmp_path, shape, axis, capsys):
    from unitmass._cli import main

    np.save(tmp_path / "x.npy", np.zeros(shape, np.float32))
    for options in ([], ["--batch-rows", "1"]):
        command = ["score", f"{tmp_path}/x.npy", f"{tmp_path}/y.npy", "--map", "sparsemax", "--axis", str(axis)]
        assert main([*command, "--overwrite", *options]) == 0
        written = np.load(tmp_path / "y.npy")
        assert (written.shape, written.dtype) == (shape, np.float32)


@pytest.mark.parametrize("sparse", [False, True])
def test_no_rows(tmp_path, sparse):
    x = scores(0)
    np.save(tmp_path / "x.npy", x)
    pq.write_table(table(x), tmp_path / "x.parquet")
    option = ["--sparse"] if sparse else []
    run("score", tmp_path / "x.parquet", tmp_path / "y.parquet", "--map", "sparsemax", *option)
    written = pq.read_table(tmp_path / "y.parquet")
    assert written.num_rows == 0
    assert written.schema.names[1] == ("logits_indices" if sparse else "logits")
    run("score", tmp_path / "x.npy", tmp_path / f"y.np{'z' if sparse else 'y'}", "--map", "sparsemax", *option)
    if not sparse:
        assert np.load(tmp_path / "y.npy").shape == (0, N)
        (tmp_path / "x.csv").write_text("a,b\n")
        run("score", tmp_path / "x.csv", tmp_path / "y.csv", "--map", "sparsemax")
        assert (tmp_path / "y.csv").read_text() == "a,b\n"


def test_paths_with_spaces_and_other_letters(tmp_path):
    folder = tmp_path / "größe 大 %s"
    folder.mkdir()
    np.save(folder / "x y.npy", scores())
    done = run("score", "x y.npy", "ŷ .npy", "--map", "softmax", "--json", cwd=folder)
    assert json.loads(done.stdout)["out"] == "ŷ .npy"
    assert sorted(path.name for path in folder.iterdir()) == ["x y.npy", "ŷ .npy"]


# --- figures --------------------------------------------------------------------------------------------------------


def test_report(tmp_path):
    x = scores()
    x[3, 1] = x[900, 0] = np.nan
    np.save(tmp_path / "x.npy", x)
    source, target = str(tmp_path / "x.npy"), str(tmp_path / "y.npy")
    done = run("score", source, target, "--map", "project_simplex", "--total", "2", "--json", "--workers", 1)
    report = json.loads(done.stdout)
    assert done.stdout.count("\n") == 1
    seconds = report.pop("seconds")
    assert report.pop("rows_per_second") == pytest.approx(ROWS / seconds)
    assert report.pop("mb_per_second") == pytest.approx(x.nbytes / 1e6 / seconds)
    assert report == {
        "in": source,
        "out": target,
        "format": "npy",
        "map": "project_simplex",
        "options": {"total": 2.0},
        "sparse": False,
        "dtype": "float32",
        "rows": ROWS,
        "resumed_rows": 0,
        "nan_rows": 2,
        "scored": [],
        "passed": [],
    }
    assert re.fullmatch(
        r".*y\.npy: project_simplex, total 2, 1,000 rows in [\d.e-]+ s: [\d,]+ rows/s, [\d,.]+ MB/s; NaN in 2 rows\n",
        done.stderr,
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("topk_softmax --k 2", "topk_softmax, k 2, temperature 1"),
        ("taylor_softmax --order 4 --temperature 0.5", "taylor_softmax, order 4, temperature 0.5"),
        ("noisy_argmax --noise uniform", "noisy_argmax, noise uniform, scale 1"),
    ],
)
def test_the_last_line_names_every_option(inputs, options, said):
    done = run("score", inputs / "x.npy", inputs / "y.npy", "--map", *options.split())
    assert f"y.npy: {said}, 1,000 rows" in done.stderr


def test_version_config_and_help():
    assert run("--version").stdout == f"unitmass {um.__version__}\n"
    assert um.__version__ in run("config").stdout
    for option in ("--map", "--resume", "--sparse", "--json"):
        assert option in run("score", "--help").stdout


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are of POSIX")
@pytest.mark.parametrize("off", [False, True])
def test_progress_is_drawn_on_a_terminal_only(inputs, off, seen_on_a_terminal):
    command = ["score", inputs / "x.npy", inputs / "y.npy", "--map", "softmax", *(["--no-progress"] if off else [])]
    drawn = seen_on_a_terminal(*command)
    assert (b"scoring" in drawn) != off
    assert b"rows/s" in drawn


# --- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["x.npy", "y.npy"], r"the following arguments are required: --map"),
        (["x.npy", "y.npy", "--map", "argmax"], r"argument --map: invalid choice: 'argmax'.*"),
        (
            ["x.npy", "y.npy", "--map", "softmax", "--alpha", "2"],
            r"alpha: belongs to entmax or normmax, not to softmax",
        ),
        (
            ["x.npy", "y.npy", "--map", "project_simplex", "--temperature", "2"],
            r"temperature: belongs to softmax or log_softmax or .*",
        ),
        (
            ["x.npy", "y.npy", "--map", "entmax", "--total", "2"],
            r"total: belongs to project_simplex or capped_simplex, not to entmax",
        ),
        (["x.npy", "y.npy", "--map", "entmax", "--alpha", "0.5"], r".*alpha.*0\.5.*"),
        (["x.npy", "y.npy", "--map", "entmax", "--alpha", "x"], r"argument --alpha: invalid float value: 'x'"),
        (["x.npy", "y.npy", "--map", "softmax", "--workers", "0"], r".*workers.*0.*"),
        (
            ["x.npy", "y.npy", "--map", "softmax", "--batch-rows", "0"],
            r"argument --batch-rows: expected a number from 1 to .*, found 0",
        ),
        (["x.npy", "y.npz", "--map", "softmax", "--sparse"], r"sparse: softmax has no sparse result; .*"),
        (["x.npy", "y.npy", "--map", "csoftmax"], r"the following arguments are required by --map csoftmax: --upper"),
        (["x.npy", "y.npy", "--map", "sparsemax", "--sparse"], r"y\.npy: must be a \.npz file, for .*"),
        (["x.npy", "y.parquet", "--map", "softmax"], r"y\.parquet: must be a \.npy file, for x\.npy"),
        (["x.txt", "y.npy", "--map", "softmax"], r"x\.txt: the name must end in .*"),
        (["x.npy", "x.npy", "--map", "softmax", "--overwrite"], r"IN and OUT are the same file: x\.npy"),
        (["x.npy", "link.npy", "--map", "softmax", "--overwrite"], r"IN and OUT are the same file: x\.npy"),
        (["x.npy", "y.npy", "--map", "softmax", "--column", "a"], r"--column and --columns belong to Parquet.*"),
        (["x.csv", "y.csv", "--map", "softmax", "--column", "a"], r"--column needs lists.*"),
        (["x.csv", "y.csv", "--map", "softmax", "--axis", "0"], r"--axis belongs to \.npy files"),
        (["x.csv", "y.csv", "--map", "sparsemax", "--sparse"], r"--sparse needs a list column or an \.npy file"),
        (["x.csv", "y.csv", "--map", "softmax", "--columns", "a,b,a"], r"columns: 'a' is named twice"),
        (["x.csv", "y.csv", "--map", "softmax", "--columns", ""], r"columns: no name is given"),
        (["x.parquet", "y.parquet", "--map", "softmax", "--column", "a", "--columns", "b"], r".*not allowed with.*"),
    ],
)
def test_usage_errors(inputs, monkeypatch, capsys, arguments, message):
    from unitmass._cli import main

    monkeypatch.chdir(inputs)
    os.link("x.npy", "link.npy")
    before = sorted(os.listdir())
    with pytest.raises(SystemExit) as exit_:
        main(["score", *arguments])
    assert exit_.value.code == 2
    assert re.fullmatch(f"unitmass: error: {message}\n", capsys.readouterr().err)
    assert sorted(os.listdir()) == before


HUGE = str(10**30)
EXTREME = [
    *(("parquet", "softmax", option, sign + HUGE) for option in ("--workers", "--batch-rows") for sign in ("", "-")),
    *(("npy", "softmax", option, sign + HUGE) for option in ("--axis", "--batch-rows") for sign in ("", "-")),
    *(("npy", "softmax", "--temperature", value) for value in ("nan", "inf", "-inf", "0", "-1", "1e999", "1e-999")),
    *(("npy", "entmax", "--alpha", value) for value in ("nan", "inf", "-inf", "0", "-1", "1e999")),
    *(("npy", "project_simplex", "--total", value) for value in ("nan", "inf", "-inf", "0", "-1", "1e999")),
]


@pytest.mark.parametrize(("kind", "map", "option", "value"), EXTREME)
def test_extreme_numbers_are_usage_errors(inputs, kind, map, option, value):
    said = refused("score", inputs / f"x.{kind}", inputs / f"y.{kind}", "--map", map, f"{option}={value}", code=2)
    assert option.removeprefix("--") in said
    assert not (inputs / f"y.{kind}").exists()


def test_no_command():
    assert refused(code=2) == "the following arguments are required: command"
    assert refused("score", code=2) == "the following arguments are required: IN, OUT, --map"


def test_an_existing_target_is_refused_and_overwritten_on_request(inputs):
    target = inputs / "y.npy"
    target.write_bytes(b"precious")
    command = ["score", inputs / "x.npy", target, "--map", "softmax"]
    assert refused(*command, code=1) == f"{target}: exists already; --overwrite replaces it"
    assert target.read_bytes() == b"precious"
    run(*command, "--overwrite")
    np.testing.assert_array_equal(np.load(target), um.softmax(scores()))


def write(path, value):
    if isinstance(value, np.ndarray):
        np.save(path, value)
    elif isinstance(value, dict):
        pq.write_table(pa.table(value), path)
    else:
        path.write_bytes(value)


BIG = [[1.0, 2.0]] * 500
BAD_FILES = [
    ("x.npy", None, r"no such file"),
    ("x.npy", b"junk", r"x\.npy: .*magic.*"),
    ("x.npy", np.array(["a"]), r"an array of dtype <U1 cannot be scored"),
    ("x.npy", np.array([None]), r"an array of dtype object cannot be scored"),
    ("x.npy", np.ones(3, complex), r"an array of dtype complex128 cannot be scored"),
    ("x.npy", np.array(3.0), r"a 0-d array has no axis"),
    ("x.npy", np.ones((3, 0)), r"axis is empty"),
    ("x.parquet", b"junk", r"x\.parquet: .*"),
    ("x.parquet", {"s": [*BIG, None, *BIG]}, r"column 's': row 500 is null \(counting from 0\)$"),
    ("x.parquet", {"s": [*BIG, [1.0, None], *BIG]}, r"column 's': row 500 has a null \(counting from 0\)$"),
    ("x.parquet", {"s": [*BIG, [1.0], *BIG]}, r"column 's': row 500 has 1 values where the rows before it have 2"),
    ("x.parquet", {"a": [1.0], "b": [2]}, r"no list column of numbers; numeric columns: a, b$"),
    ("x.parquet", {"a": [[1.0]], "b": [[2.0]]}, r"several list columns: a, b$"),
    ("x.parquet", {"a": [[[1.0]]], "b": ["x"]}, r"there is no list column of numbers$"),
    ("x.csv", b"", r"Empty CSV file"),
    ("x.csv", b"a,b\n1,2\n3,\n", r"column 'b': row 1 is null \(counting from 0\)$"),
    ("x.csv", b"a,b\n1,2\n3\n", r"Expected 2 columns, got 1"),
    ("x.csv", b"a,b,a\n1,2,3\n", r"column 'a' occurs 2 times$"),
    ("x.csv", b"a,b\nx,y\n", r"there are no numeric columns; the columns are a, b$"),
    (
        "x.csv",
        b"a,b\n1,2\ntrue,4\n",
        r"column 'a': row 1 has 'true', which is not a number \(counting from 0\): mend it, ",
    ),
    ("x.csv", b'n,b\n"x\ny",2\n42,4\n', r"column 'n': row 0 has 'x.*y', which is not a number .*: mend it, or name"),
    ("x.csv", b"a,b\n" + b"1,2\n" * 1_100_000 + b"1,x\n", r"column 'b': row 1100000 has 'x', which is not a number"),
]


@pytest.mark.parametrize(("name", "value", "message"), BAD_FILES, ids=[message for *_, message in BAD_FILES])
def test_bad_input_leaves_nothing_behind(tmp_path, capsys, name, value, message):
    from unitmass._cli import main

    if value is not None:
        write(tmp_path / name, value)
    before = sorted(tmp_path.iterdir())
    assert main(["score", f"{tmp_path / name}", f"{tmp_path}/y{name[1:]}", "--map", "softmax", *BATCH]) == 1
    error = capsys.readouterr().err
    assert re.fullmatch(r"unitmass: error: .*x\.\w+: [^\n]+\n", error)
    assert re.search(message, error, re.MULTILINE)
    assert sorted(tmp_path.iterdir()) == before


def test_a_damaged_parquet_page_leaves_nothing_behind(inputs):
    raw = bytearray((inputs / "x.parquet").read_bytes())
    column = pq.read_metadata(inputs / "x.parquet").row_group(2).column(1)
    raw[column.data_page_offset : column.data_page_offset + 200] = bytes(200)
    (inputs / "x.parquet").write_bytes(raw)
    before = sorted(inputs.iterdir())
    refused("score", inputs / "x.parquet", inputs / "y.parquet", "--map", "softmax", *BATCH, code=1)
    assert sorted(inputs.iterdir()) == before


def test_npy_that_is_cut_off(inputs):
    raw = (inputs / "x.npy").read_bytes()
    (inputs / "x.npy").write_bytes(raw[:-1])
    message = refused("score", inputs / "x.npy", inputs / "y.npy", "--map", "softmax", code=1)
    assert message.endswith("the file is too short for an array of shape (1000, 5): it is cut off")


def test_axis_that_does_not_exist(inputs):
    message = refused("score", inputs / "x.npy", inputs / "y.npy", "--map", "softmax", "--axis", "2", code=1)
    assert "axis 2 is out of bounds" in message


def test_target_in_a_folder_that_does_not_exist(inputs):
    target = inputs / "no" / "y.npy"
    said = refused("score", inputs / "x.npy", target, "--map", "softmax", code=1)
    assert said == f"{target}: the folder does not exist"


def test_a_folder_in_the_way_is_left_alone(inputs):
    folder = inputs / "y.npy.partial"
    folder.mkdir()
    (folder / "thesis.tex").write_text("precious")
    assert "is in the way" in refused("score", inputs / "x.npy", inputs / "y.npy", "--map", "softmax", code=1)
    assert (folder / "thesis.tex").read_text() == "precious"


# --- interruption ---------------------------------------------------------------------------------------------------

# The real command, which sends itself a real signal when it asks for the batch with this number.
STOPPED = textwrap.dedent(
    """
    import os, sys
    from unitmass import _cli, _files, score
    number, at, _files.COMMIT_SECONDS = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    function, options = score.MAPS[sys.argv[sys.argv.index("--map") + 1]]
    calls = 0

    def interrupted(*arguments, **named):
        global calls
        calls += arguments[0].size > 1  # the trials before the work have one score or none
        if calls == at:
            os.kill(os.getpid(), number)
        return function(*arguments, **named)

    score.MAPS[sys.argv[sys.argv.index("--map") + 1]] = (interrupted, options)
    sys.exit(_cli.main(sys.argv[4:]))
    """
)


def stopped(number, at, *arguments, commit_seconds=0.0):
    command = [sys.executable, "-c", STOPPED, str(int(number)), str(at), str(commit_seconds), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def journal(target):
    path = target.with_name(target.name + ".partial") / "journal.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def batches_of(case):
    # Along axis 0 there are five rows of 1,000 scores, all in one window: take them one by one.
    return ["--batch-rows", "1"] if case == "npy axis 0" else BATCH


@pytest.mark.skipif(sys.platform == "win32", reason="signals are of POSIX")
@pytest.mark.parametrize("case", CASES)
def test_resume_after_kill_9_gives_the_same_bytes(inputs, case):
    name, out, options = CASES[case]
    at = 4 if case == "npy axis 0" else 8
    source, whole, target = inputs / name, inputs / f"whole{Path(out).suffix}", inputs / out
    options = [*options, *batches_of(case)]
    run("score", source, whole, *options)
    command = ["score", source, target, *options]
    assert stopped(signal.SIGKILL, at, *command).returncode == -signal.SIGKILL
    assert not target.exists()
    done = journal(target)[-1]["rows"]
    assert 0 < done < (N if case == "npy axis 0" else ROWS)
    # A torn line, and bytes that the journal does not vouch for: a kill in the middle of writing.
    with open(inputs / f"{out}.partial" / "journal.jsonl", "ab") as file:
        file.write(b'{"rows": 99')
    if "npy" not in case:
        with open(inputs / f"{out}.partial" / "whole", "ab") as file:
            file.write(b"garbage")
    report = json.loads(run(*command, "--resume", "--json").stdout)
    assert report["resumed_rows"] == done
    assert target.read_bytes() == whole.read_bytes()
    assert not (inputs / f"{out}.partial").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="signals are of POSIX")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupt_keeps_what_is_done_and_says_how_to_go_on(inputs, number, code):
    x = scores()
    x[10] = np.nan
    np.save(inputs / "x.npy", x)
    target = inputs / "y.npy"
    command = ["score", inputs / "x.npy", target, "--map", "softmax", *BATCH]
    end = stopped(number, 6, *command, commit_seconds=1e9)  # nothing but the first batch is committed by the clock
    assert end.returncode == code
    assert end.stderr == "unitmass: interrupted after 350 rows; the same command with --resume goes on\n"
    assert not target.exists()
    assert journal(target)[-1]["rows"] == 350
    report = json.loads(run(*command, "--resume", "--json", "--workers", "1").stdout)
    assert (report["rows"], report["resumed_rows"], report["nan_rows"]) == (ROWS, 350, 1)
    np.testing.assert_array_equal(np.load(target), um.softmax(x))


@pytest.mark.skipif(sys.platform == "win32", reason="signals are of POSIX")
def test_twice_killed(inputs):
    target = inputs / "y.parquet"
    options = ["--map", "sparsemax", *BATCH]
    command = ["score", inputs / "x.parquet", target, *options]
    run("score", inputs / "x.parquet", inputs / "whole.parquet", *options)
    stopped(signal.SIGKILL, 3, *command)
    stopped(signal.SIGKILL, 3, *command, "--resume")
    assert journal(target)[-1]["rows"] == 280  # row groups of 300 end in a batch of 20: 70 + 70 + 70 + 70
    run(*command, "--resume")
    assert target.read_bytes() == (inputs / "whole.parquet").read_bytes()


def test_an_interrupt_right_behind_a_commit(inputs, monkeypatch, capsys):
    """Most of a commit is spent in fsync, so this is where Ctrl-C strikes: nothing must be recorded twice."""
    from unitmass import _files
    from unitmass._cli import main

    command = ["score", str(inputs / "x.parquet"), str(inputs / "y.parquet"), "--map", "softmax", *BATCH]
    assert main([*command[:2], str(inputs / "whole.parquet"), *command[3:]]) == 0
    sync, commits = _files.sync, 0

    def interrupted(file):
        nonlocal commits
        sync(file)
        commits += 1
        if commits == 5:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(_files, "COMMIT_SECONDS", 0)
        patch.setattr(_files, "sync", interrupted)
        assert main(command) == 130
    rows = [record["rows"] for record in journal(inputs / "y.parquet")[1:]]
    assert rows == sorted(set(rows))
    assert main([*command, "--resume"]) == 0
    assert (inputs / "y.parquet").read_bytes() == (inputs / "whole.parquet").read_bytes()


@pytest.fixture
def partial(inputs):
    """A run that was killed."""
    if sys.platform == "win32":
        pytest.skip("signals are of POSIX")
    stopped(signal.SIGKILL, 6, "score", inputs / "x.npy", inputs / "y.npy", "--map", "entmax", "--alpha", "1.5", *BATCH)
    assert journal(inputs / "y.npy")[-1]["rows"] == 350
    return inputs


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--map", "entmax", "--alpha", "2", *BATCH], "options: {'alpha': 1.5} there, {'alpha': 2.0} here"),
        (["--map", "softmax", *BATCH], "map: entmax there, softmax here; options: {'alpha': 1.5} there, {} here"),
        (["--map", "entmax", "--alpha", "1.5"], "batch rows: 70 there, None here"),
        (["--map", "entmax", "--alpha", "1.5", "--axis", "0", *BATCH], "axis: -1 there, 0 here"),
    ],
)
def test_resume_refuses_other_options(partial, options, message):
    target = partial / "y.npy"
    before = journal(target)
    said = refused("score", partial / "x.npy", target, "--resume", *options, code=1)
    assert said == f"{target}.partial is the state of another run ({message}): leave out --resume to start anew"
    assert journal(target) == before


def test_resume_refuses_another_input(partial):
    options = ["--map", "entmax", "--alpha", "1.5", *BATCH]
    np.save(partial / "x.npy", scores()[::-1])
    said = refused("score", partial / "x.npy", partial / "y.npy", "--resume", *options, code=1)
    assert "time of the input: " in said
    run("score", partial / "x.npy", partial / "y.npy", *options)  # without --resume: begins anew
    np.testing.assert_array_equal(np.load(partial / "y.npy"), um.entmax(scores()[::-1], 1.5))
    assert not (partial / "y.npy.partial").exists()


def test_resume_refuses_a_state_that_is_damaged(inputs):
    if sys.platform == "win32":
        pytest.skip("signals are of POSIX")
    command = ["score", inputs / "x.csv", inputs / "y.csv", "--map", "softmax", *COLUMNS, *BATCH]
    stopped(signal.SIGKILL, 6, *command)
    os.truncate(inputs / "y.csv.partial" / "whole", 100)
    assert "is shorter than its journal says" in refused(*command, "--resume", code=1)
    run(*command)


def test_resume_of_nothing_begins_at_the_beginning(inputs):
    run("score", inputs / "x.npy", inputs / "y.npy", "--map", "softmax", "--resume")
    np.testing.assert_array_equal(np.load(inputs / "y.npy"), um.softmax(scores()))


@pytest.mark.skipif(sys.platform == "win32", reason="file locks are of POSIX")
def test_two_runs_on_one_target(partial):
    import fcntl

    with open(partial / "y.npy.partial" / "journal.jsonl", "a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        said = refused("score", partial / "x.npy", partial / "y.npy", "--map", "softmax", code=1)
    assert said == f"another run is writing {partial / 'y.npy'}"
    assert journal(partial / "y.npy")[-1]["rows"] == 350


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a full disk")
def test_a_full_disk_keeps_the_state(inputs, monkeypatch, capsys):
    import errno

    from unitmass import _formats
    from unitmass._cli import main

    def full(self, batch):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    command = ["score", str(inputs / "x.csv"), str(inputs / "y.csv"), "--map", "softmax", *COLUMNS, *BATCH]
    with monkeypatch.context() as patch:
        patch.setattr(_formats.CsvWriter, "write", full)
        assert main(command) == 1
    assert capsys.readouterr().err == (
        "unitmass: error: No space left on device; the same command with --resume goes on\n"
    )
    assert main([*command, "--resume"]) == 0


# --- memory ---------------------------------------------------------------------------------------------------------

PEAK = textwrap.dedent(
    """
    import sys
    import numpy, pyarrow, pyarrow.csv, pyarrow.parquet, unitmass._cli

    def peak():
        lines = open("/proc/self/status").read().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1])

    before = peak()
    assert unitmass._cli.main(sys.argv[1:]) == 0
    print((peak() - before) // 1024)
    """
)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is read from /proc")
@pytest.mark.parametrize("kind", ["npy", "parquet"])
def test_memory_does_not_grow_with_the_file(tmp_path, kind):
    rows, n = 1_000_000, 100  # 400 MB in float32
    row = np.random.default_rng(0).normal(size=n).astype(np.float32)
    source, target = tmp_path / f"x.{kind}", tmp_path / f"y.{kind}"
    if kind == "npy":
        x = np.lib.format.open_memmap(source, "w+", np.float32, (rows, n))
        x[...] = row
        del x
    else:  # one row group
        values = pa.array(np.tile(row, rows))
        lists = pa.FixedSizeListArray.from_arrays(values, n)
        pq.write_table(pa.table({"s": lists}), source, row_group_size=rows, compression="NONE", use_dictionary=False)
        assert pq.read_metadata(source).num_row_groups == 1
    command = [sys.executable, "-c", PEAK, "score", source, target, "--map", "softmax"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert int(done.stdout) < 300
    source.unlink()
    target.unlink()
