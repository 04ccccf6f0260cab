"""Models in files, ensembles as tables and pictures, and `unitmass simulate` from outside."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import unitmass as um
from unitmass._cli import main

MODELS = Path(__file__).parents[1] / "examples" / "models"
DIMER = """\
# dimers
k = 0.05
back = 1
A(0) = 60        # at time 0
2 A <-> A2  @ k, back
total := A + 2*A2
half := total / 2
"""
T_END, POINTS, RUNS, SEED = 4.0, 9, 300, 7
OPTIONS = ["--t-end", "4", "--points", "9", "--runs", "300", "--seed", "7", "--no-progress"]


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "dimer.txt"
    path.write_text(DIMER, encoding="utf-8")
    return path


def ensemble(path, **options):
    net = um.ReactionNetwork.from_text(path)
    return net.simulate(**{"t": np.linspace(0, T_END, POINTS), "n": RUNS, "rng": SEED, **options})


def simulate(*arguments, code=0):
    """Run the command in this process; no trace of a temporary file may be left."""
    assert main(["simulate", *map(str, arguments)]) == code


def refused(capsys, *arguments, code=1):
    if code == 2:
        with pytest.raises(SystemExit) as exit_:
            simulate(*arguments)
        assert exit_.value.code == 2
    else:
        simulate(*arguments, code=code)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("unitmass: error: ")
    assert said.err.endswith("\n")
    return said.err.removeprefix("unitmass: error: ")[:-1]


# --- models in text ---------------------------------------------------------------------------------------------------


def test_a_text_defines_parameters_counts_and_rules(model):
    net = um.ReactionNetwork.from_text(model)
    assert net.params == {"k": 0.05, "back": 1}
    assert net.initial == {"A": 60, "A2": 0}
    assert net.rules == {"total": "A + 2*A2", "half": "total / 2"}
    ens = ensemble(model)
    assert (ens["total"] == 60).all()
    other = um.ReactionNetwork("2 A <-> A2 @ k, back", params={"k": 0.05, "back": 1})
    same = other.simulate({"A": 60}, t=ens.t, n=RUNS, rng=SEED)
    assert np.array_equal(ens.counts, same.counts)


def test_params_come_before_those_in_the_text(model):
    assert um.ReactionNetwork.from_text(model, params={"k": 2}).params == {"k": 2, "back": 1}
    assert um.ReactionNetwork("A -> : k*A\nk = 1", params={"k": 3}).params == {"k": 3}
    assert "A*(A-1)\n" in repr(um.ReactionNetwork.from_text(model, mass_action="falling"))


def test_definitions_may_come_in_any_order_and_rules_name_propensities():
    net = um.ReactionNetwork("-> A : speed\nspeed := 2 * k\nA(0) = 1e3\nk = 1.5e1")
    assert net.initial == {"A": 1000}
    assert net.simulate(t=[1], n=4000, rng=1)["A"].mean() == pytest.approx(1030, abs=6 * np.sqrt(30 / 4000))


@pytest.mark.parametrize(
    ("text", "message", "line", "at"),
    [
        ("B(0) = 3\nA -> @ 1", "unknown species 'B'", "B(0) = 3", 0),
        ("  A = 3\nA -> @ 1", "'A' is a species: its count at time 0 is 'A(0) = 3'", "  A = 3", 2),
        ("k = x", "expected a number", "k = x", 4),
        ("k = 1/2", "expected a number", "k = 1/2", 4),
        ("k = nan", "expected a number", "k = nan", 4),
        ("k =", "expected a number", "k =", 3),
        ("k == 2", "expected a number", "k == 2", 3),
        ("A -> @ 1\nA(0) = 1.5", "expected a whole number that is not negative", "A(0) = 1.5", 7),
        ("A -> @ 1\nA(0) = -1", "expected a whole number that is not negative", "A(0) = -1", 7),
        ("k = 1\nk = 2", "'k' is defined before", "k = 2", 0),
        ("A -> @ 1\nA(0) = 1\nA(0) = 1", "'A' is defined before", "A(0) = 1", 0),
        ("r := 1\nr := 2", "'r' is defined before", "r := 2", 0),
        ("r := 3 +", "expected a number, a name or '('", "r := 3 +", 8),
        ("r := 2*q\nk = 1", "unknown name 'q'", "r := 2*q", 7),
        ("A -> @ 1\nA(0) := 2", "'A' cannot be a rule", "A(0) := 2", 0),
        ("A(1) = 3", "expected '->' or '<->' (or 'name = number'", "A(1) = 3", 8),
        ("A -> @ k\nK = 1", "unknown parameter 'k', did you mean 'K'", "A -> @ k", 7),
    ],
)
def test_what_cannot_be_read_is_marked(tmp_path, capsys, text, message, line, at):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        um.ReactionNetwork(text)
    assert str(caught.value).split("\n")[1:] == [f"    {line}", " " * (4 + at) + "^"]
    path = tmp_path / "x.txt"
    path.write_text(text, encoding="utf-8")
    said = refused(capsys, path, *OPTIONS, "--out", tmp_path / "y.npz")
    assert said == f"{path}: {caught.value}"  # three lines, as they are
    assert os.listdir(tmp_path) == ["x.txt"]


def test_a_file_that_is_not_text(tmp_path):
    (tmp_path / "x.txt").write_bytes(b"A -> @ 1 # \xff")
    with pytest.raises(ValueError, match=r"x\.txt: is not text in UTF-8"):
        um.ReactionNetwork.from_text(tmp_path / "x.txt")
    (tmp_path / "x.txt").write_bytes(b"\xef\xbb\xbfA -> @ 1 # \xc3\xa9\r\n\r\nA(0) = 3\r\n")  # as Windows writes it
    assert um.ReactionNetwork.from_text(tmp_path / "x.txt").initial == {"A": 3}


def test_the_models_of_the_examples():
    gene, vilar = (um.ReactionNetwork.from_text(MODELS / f"{name}.txt") for name in ("gene", "vilar"))
    assert (len(gene.species), len(gene.reactions)) == (2, 4)
    assert (len(vilar.species), len(vilar.reactions)) == (9, 16)
    assert vilar.initial == {name: int(name in ("DA", "DR")) for name in vilar.species}


# --- ensembles as tables and pictures ---------------------------------------------------------------------------------


def test_to_xarray(model):
    pytest.importorskip("xarray")
    ens = ensemble(model, first=100, rng=2**64 - 1)
    data = ens.to_xarray()
    assert dict(data.sizes) == {"trajectory": RUNS, "time": POINTS, "species": 2}
    assert np.shares_memory(data["counts"].values, ens.counts)
    np.testing.assert_array_equal(data["trajectory"], np.arange(100, 100 + RUNS))
    np.testing.assert_array_equal(data["counts"].sel(species="A2"), ens["A2"])
    np.testing.assert_array_equal(data["half"], ens["half"])
    np.testing.assert_array_equal(data["n_events"], ens.n_events)
    assert data.attrs == {"seed": 2**64 - 1, "method": ens.method}


def test_parts_of_an_ensemble_concatenate(model):
    xarray = pytest.importorskip("xarray")
    parts = [ensemble(model, first=first, n=n).to_xarray() for first, n in ((0, 100), (100, 200))]
    whole = ensemble(model).to_xarray()
    xarray.testing.assert_identical(xarray.concat(parts, "trajectory", data_vars="minimal"), whole)


def test_to_pandas(model):
    pytest.importorskip("pandas")
    ens = ensemble(model, first=5)
    table = ens.to_pandas()
    assert list(table.columns) == ["A", "A2", "total", "half"]
    assert table.index.names == ["trajectory", "time"]
    np.testing.assert_array_equal(table.loc[(17, 0.5)], [ens[name][12, 1] for name in table.columns])
    np.testing.assert_array_equal(table["A"].unstack(), ens["A"])


def test_observables_that_cannot_be_evaluated_are_left_out(model):
    pytest.importorskip("xarray")
    ens = ensemble(model, species=["A2"])
    assert ens.observed() == {}
    assert set(ens.to_xarray().data_vars) == {"counts", "n_events"}
    assert list(ens.to_pandas().columns) == ["A2"]


def test_an_observable_of_a_taken_name(model):
    pytest.importorskip("xarray")
    net = um.ReactionNetwork("A -> @ 1\nA(0) = 2\ncounts := 3*A\ntime := t")
    data = net.simulate(t=[0, 1], n=2, rng=1).to_xarray()
    assert data["counts"].shape == (2, 2, 1)
    assert data["counts_"].values[0, 0] == 6
    assert data["time_"].values[0].tolist() == [0, 1]


def test_no_trajectories(model):
    ens = ensemble(model, n=0)
    assert len(ens.to_pandas()) == 0
    assert ens.to_xarray().sizes["trajectory"] == 0
    with pytest.raises(ValueError, match="cannot be drawn of 0"):
        ens.plot()


@pytest.fixture
def axes():
    figure = pytest.importorskip("matplotlib.figure")
    return figure.Figure().subplots()


def test_plot(model, axes):
    ens = ensemble(model)
    assert ens.plot(ax=axes, trajectories=3) is axes
    assert axes.get_legend_handles_labels()[1] == ["A", "A2"]
    assert len(axes.lines) == 2 * (3 + 1)
    assert axes.lines[1].get_drawstyle() == "steps-post"
    np.testing.assert_array_equal(axes.lines[1].get_ydata(), ens["A"][1])
    np.testing.assert_array_equal(axes.lines[-1].get_ydata(), ens["A2"].mean(axis=0))
    low, high = np.ptp(axes.collections[0].get_paths()[0].vertices[:, 1]), ens.var()[:, 0]
    assert low == pytest.approx(np.max(ens.mean()[:, 0] + high**0.5) - np.min(ens.mean()[:, 0] - high**0.5))


def test_plot_of_chosen_names(model, axes):
    ens = ensemble(model)
    ens.plot("half", axes, 0)
    assert axes.get_legend_handles_labels()[1] == ["half"]
    assert len(axes.lines) == 1
    with pytest.raises(KeyError, match="unknown species 'B'"):
        ens.plot(["A", "B"], axes)
    with pytest.raises(ValueError, match="-1 cannot be drawn"):
        ens.plot(ax=axes, trajectories=-1)


def test_plot_of_one_path_and_of_moments(model, axes):
    one = ensemble(model, n=1)
    one.plot(ax=axes, trajectories=0)
    assert axes.get_legend_handles_labels()[1] == ["A", "A2"]
    axes.clear()
    moments = um.ReactionNetwork.from_text(model).moments(t=[0, 1, 2], n=50, rng=1)
    moments.plot("A2", axes)
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), moments.mean[:, 1])
    with pytest.raises(KeyError, match="unknown species 'total'"):
        moments.plot("total", axes)


def test_plot_says_which_of_many_species_it_draws(axes):
    net = um.ReactionNetwork("\n".join(f"-> S{i} @ {i + 1}" for i in range(12)))
    net.simulate(t=[0, 1], n=3, rng=1).plot(ax=axes)
    assert axes.get_legend().get_title().get_text() == "the first 8 of 12 species"
    assert axes.get_legend_handles_labels()[1] == [f"S{i}" for i in range(8)]


def test_plot_makes_a_figure_of_pyplot(model, monkeypatch):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    ax = ensemble(model).plot()
    assert len(plt.get_fignums()) == len(before) + 1
    plt.close(ax.figure)


def test_what_is_missing_is_named_with_its_extra(model, monkeypatch):
    ens = ensemble(model)
    for module, extra, call in (
        ("xarray", "xarray", ens.to_xarray),
        ("pandas", "xarray", ens.to_pandas),
        ("matplotlib.pyplot", "plot", ens.plot),
    ):
        monkeypatch.setitem(sys.modules, module, None)
        name = module.partition(".")[0]
        with pytest.raises(ImportError, match=rf'^{name} is needed for this: pip install "unitmass\[{extra}\]"$'):
            call()


# --- the command: files -----------------------------------------------------------------------------------------------


def test_npz(model, tmp_path):
    simulate(model, *OPTIONS, "--out", tmp_path / "y.npz")
    ens, data = ensemble(model), np.load(tmp_path / "y.npz")
    assert data["counts"].dtype == np.int64
    np.testing.assert_array_equal(data["counts"], ens.counts)
    np.testing.assert_array_equal(data["t"], ens.t)
    np.testing.assert_array_equal(data["n_events"], ens.n_events)
    assert data["species"].tolist() == ["A", "A2"]
    assert data["observables"].tolist() == ["total", "half"]
    np.testing.assert_array_equal(data["observed"][:, :, 1], ens["half"])
    assert (int(data["seed"]), int(data["first"]), str(data["method"])) == (SEED, 0, ens.method)
    assert sorted(os.listdir(tmp_path)) == ["dimer.txt", "y.npz"]


@pytest.mark.parametrize("rows", [1, 700, 1 << 20])  # in a row group
def test_parquet(model, tmp_path, monkeypatch, rows):
    pq = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr("unitmass._simulate._GROUP_ROWS", rows)
    simulate(model, *OPTIONS, "--out", tmp_path / "y.parquet", "--first", 50)
    ens, table = ensemble(model, first=50), pq.read_table(tmp_path / "y.parquet")
    assert table.column_names == ["trajectory", "time", "A", "A2", "total", "half"]
    np.testing.assert_array_equal(table["trajectory"], np.arange(50, 50 + RUNS).repeat(POINTS))
    np.testing.assert_array_equal(table["time"], np.tile(ens.t, RUNS))
    for name in table.column_names[2:]:
        np.testing.assert_array_equal(table[name], ens[name].ravel())
    assert str(table["A"].type) == "int64"
    facts = json.loads(table.schema.metadata[b"unitmass"])
    assert (facts["seed"], facts["first"], facts["n_events"]) == (SEED, 50, ens.n_events.sum())
    expected = {1: RUNS, 700: 4, 1 << 20: 1}[rows]
    if rows > 1:
        assert pq.read_metadata(tmp_path / "y.parquet").num_row_groups == expected


def test_netcdf(model, tmp_path):
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("h5netcdf")
    simulate(model, *OPTIONS, "--out", tmp_path / "y.nc", "--seed", 2**64 - 1)
    written, whole = xarray.load_dataset(tmp_path / "y.nc"), ensemble(model, rng=2**64 - 1).to_xarray()
    assert written["counts"].dtype == np.int64
    assert written.attrs.pop("source") == f"unitmass {um.__version__}"
    assert written.attrs == whole.attrs
    xarray.testing.assert_equal(written, whole)


@pytest.mark.parametrize("kind", ["npz", "parquet", "nc"])
def test_moments(model, tmp_path, kind):
    out = tmp_path / f"y.{kind}"
    for module in {"npz": [], "parquet": ["pyarrow"], "nc": ["xarray", "h5netcdf"]}[kind]:
        pytest.importorskip(module)
    simulate(model, *OPTIONS, "--out", out, "--moments")
    net = um.ReactionNetwork.from_text(model)
    moments = net.moments(t=np.linspace(0, T_END, POINTS), n=RUNS, rng=SEED)
    assert moments.n_events == ensemble(model).n_events.sum()
    if kind == "npz":
        data = np.load(out)
        mean, cov = data["mean"], data["cov"]
        assert (int(data["n"]), int(data["n_events"])) == (RUNS, moments.n_events)
    elif kind == "nc":
        data = pytest.importorskip("xarray").load_dataset(out)
        mean, cov = data["mean"], data["cov"]
        np.testing.assert_array_equal(data["standard_error"], moments.standard_error)
        assert cov.dims == ("time", "species", "other")
        assert data.attrs["n_events"] == moments.n_events
    else:
        table = pytest.importorskip("pyarrow.parquet").read_table(out)
        assert table.column_names == ["time", "species", "mean", "sd", "standard_error", "cov_A", "cov_A2"]
        assert table["species"].to_pylist() == ["A", "A2"] * POINTS
        np.testing.assert_array_equal(table["time"], moments.t.repeat(2))
        np.testing.assert_array_equal(table["sd"], np.sqrt(moments.var).ravel())
        mean = np.array(table["mean"]).reshape(POINTS, 2)
        cov = np.stack([np.array(table[f"cov_{name}"]).reshape(POINTS, 2) for name in ("A", "A2")], axis=-1)
    np.testing.assert_array_equal(mean, moments.mean)
    np.testing.assert_array_equal(cov, moments.cov)


def test_options_reach_the_engine(model, tmp_path):
    options = ["--param", "k=0.2", "--param=back=0", "--x0", "A = 12", "--x0", "A2=3", "--species", "A2"]
    options += ["--method", "next_reaction", "--workers", 1, "--first", 9, "--max-events", 1000]
    simulate(model, *OPTIONS, *options, "--out", tmp_path / "y.npz")
    ens = ensemble(
        model,
        x0={"A": 12, "A2": 3},
        params={"k": 0.2, "back": 0},
        species=["A2"],
        method="next_reaction",
        first=9,
    )
    data = np.load(tmp_path / "y.npz")
    np.testing.assert_array_equal(data["counts"], ens.counts)
    assert "observed" not in data
    assert (str(data["method"]), int(data["first"])) == ("next_reaction", 9)


def test_a_seed_that_the_system_draws_is_reported(model, tmp_path, capsys):
    options = ["--t-end", 4, "--points", 9, "--out", tmp_path / "y.npz", "--json"]
    simulate(model, *options)
    seed = json.loads(capsys.readouterr().out)["seed"]
    before = np.load(tmp_path / "y.npz")["counts"]
    simulate(model, *options, "--seed", seed, "--overwrite")
    np.testing.assert_array_equal(np.load(tmp_path / "y.npz")["counts"], before)


def test_report(model, tmp_path, capsys):
    out, plot = tmp_path / "y.npz", tmp_path / "y.png"
    simulate(model, *OPTIONS, "--out", out, "--plot", plot, "--json", "--param", "k=0.1")
    said, ens = capsys.readouterr(), ensemble(model, params={"k": 0.1})
    report, events = json.loads(said.out), int(ens.n_events.sum())
    assert said.out.count("\n") == 1
    assert report.pop("events_per_second") == pytest.approx(events / report["seconds"])
    assert report.pop("seconds") < report.pop("seconds_with_files")
    assert report == {
        "model": str(model),
        "out": str(out),
        "plot": str(plot),
        "moments": False,
        "trajectories": RUNS,
        "first": 0,
        "points": POINTS,
        "t_end": T_END,
        "params": {"k": 0.1},
        "x0": {},
        "species": ["A", "A2"],
        "seed": SEED,
        "method": ens.method,
        "events": events,
    }
    line = rf"{out} and {plot}: 300 trajectories, {events:,} events in [\d.e-]+ s: [\d,]+ events/s"
    assert re.fullmatch(rf"{line} \(seed 7, {ens.method}\)\n", said.err)


@pytest.mark.parametrize("options", [[], ["--moments"], ["--runs", "1"]])
def test_a_picture_alone(model, tmp_path, options):
    pytest.importorskip("matplotlib")
    simulate(model, *OPTIONS, *options, "--plot", tmp_path / "y.png")
    picture = (tmp_path / "y.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 10_000
    assert sorted(os.listdir(tmp_path)) == ["dimer.txt", "y.png"]


def test_other_kinds_of_models(model, tmp_path, monkeypatch):
    (tmp_path / "x.net").write_text(
        "begin parameters\n1 k 0.5\nend parameters\nbegin species\n1 A(b) 100\n2 A(b!1).A(b!1) 0\nend species\n"
        "begin reactions\n1 1,1 2 0.5*k\nend reactions\nbegin groups\n1 All 1,2*2\nend groups\n"
    )
    simulate(tmp_path / "x.net", *OPTIONS, "--out", tmp_path / "net.npz", "--species", "A(b!1).A(b!1),A(b)")
    data = np.load(tmp_path / "net.npz")
    assert data["species"].tolist() == ["A(b!1).A(b!1)", "A(b)"]
    assert (data["observed"] == 100).all()
    (tmp_path / "x.net").write_text((tmp_path / "x.net").read_text().replace("A(b", "A(a,b"))
    simulate(tmp_path / "x.net", *OPTIONS, "--out", tmp_path / "x.npz", "--species", "A(a,b!1).A(a,b!1),A(a,b)")
    assert np.load(tmp_path / "x.npz")["species"].tolist() == ["A(a,b!1).A(a,b!1)", "A(a,b)"]
    network = um.ReactionNetwork.from_text(model)
    monkeypatch.setattr(um.ReactionNetwork, "from_sbml", lambda path: network, raising=False)
    simulate(tmp_path / "x.XML", *OPTIONS, "--out", tmp_path / "sbml.npz")
    np.testing.assert_array_equal(np.load(tmp_path / "sbml.npz")["counts"], ensemble(model).counts)


# --- the command: refusals --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], r"the following arguments are required: --t-end"),
        (["--t-end", "1"], r"nothing to write: give --out, --plot or both"),
        (["--t-end", "0", "--out", "y.npz"], r"argument --t-end: expected a number above 0, found '0'"),
        (["--t-end", "inf", "--out", "y.npz"], r"argument --t-end: .*"),
        (["--t-end", "x", "--out", "y.npz"], r"argument --t-end: .*"),
        (["--t-end", "1", "--out", "y.csv"], r"y\.csv: the name must end in \.npz, \.parquet or \.nc"),
        (["--t-end", "1", "--plot", "y.pdf"], r"y\.pdf: the name must end in \.png"),
        (["--t-end", "1", "--out", "y.npz", "--points", "1"], r"argument --points: .*from 2 .*"),
        (["--t-end", "1", "--out", "y.npz", "--runs", "0"], r"argument --runs: .*"),
        (["--t-end", "1", "--out", "y.npz", "--seed", "-1"], r"argument --seed: .*"),
        (["--t-end", "1", "--out", "y.npz", "--seed", str(2**64)], r"argument --seed: .*"),
        (["--t-end", "1", "--out", "y.npz", "--workers", "0"], r"workers: .*"),
        (["--t-end", "1", "--out", "y.npz", "--method", "euler"], r"argument --method: invalid choice: 'euler'.*"),
        (
            ["--t-end", "1", "--out", "y.npz", "--param", "k"],
            r"argument --param: expected a name, '=' and a number, .*",
        ),
        (["--t-end", "1", "--out", "y.npz", "--param", "=2"], r"argument --param: .*"),
        (["--t-end", "1", "--out", "y.npz", "--x0", "A=nan"], r"argument --x0: .* found 'A=nan'"),
        (["--t-end", "1", "--out", "y.npz", "--moments"], r"--moments needs --runs of at least 2"),
        (["--t-end", "1", "--out", "y.npz", "--species", "A,A"], r"species: 'A' is named twice"),
        (["--t-end", "1", "--out", "y.npz", "--species", ""], r"species: no name is given"),
    ],
)
def test_usage_errors(model, tmp_path, monkeypatch, capsys, options, message):
    monkeypatch.chdir(tmp_path)
    assert re.fullmatch(message, refused(capsys, "dimer.txt", *options, code=2))
    assert os.listdir(tmp_path) == ["dimer.txt"]


def test_a_model_of_another_name(capsys):
    said = refused(capsys, "x.sbml", *OPTIONS, "--out", "y.npz", code=2)
    assert said == "x.sbml: the name must end in .txt, .xml or .net"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--param", "bck=1"], "params: unknown parameter 'bck', did you mean 'back'?"),
        (["--param", "k=-1"], "params: k: a rate must not be negative, found -1.0"),
        (["--x0", "a=1"], "x0: unknown species 'a', did you mean 'A'?"),
        (["--x0", "A=1.5"], "x0: A: must be whole numbers from 0 to 2**53, found 1.5"),
        (["--species", "A,B"], "species: unknown species 'B'"),
        (["--max-events", "3"], "max_events: there are more at t = .* in trajectory .*"),
        (["--runs", str(10**12)], r"counts: 1.34e\+05 GiB do not fit; --moments needs no room for trajectories"),
        (["--plot", "no/y.png"], "no/y.png: the folder does not exist"),
    ],
)
def test_a_run_that_fails_leaves_nothing(model, tmp_path, monkeypatch, capsys, options, message):
    monkeypatch.chdir(tmp_path)
    said = refused(capsys, "dimer.txt", *OPTIONS, "--out", "y.npz", *options)
    assert said == message or re.fullmatch(message, said)
    assert os.listdir(tmp_path) == ["dimer.txt"]


def test_missing_files(tmp_path, model, capsys):
    said = refused(capsys, tmp_path / "no.txt", *OPTIONS, "--out", tmp_path / "y.npz")
    assert said == f"{tmp_path}/no.txt: No such file or directory"
    said = refused(capsys, model, *OPTIONS, "--out", tmp_path / "no" / "y.npz")
    assert said == f"{tmp_path}/no/y.npz: the folder does not exist"
    (tmp_path / "y.npz").mkdir()
    said = refused(capsys, model, *OPTIONS, "--out", tmp_path / "y.npz", "--overwrite")
    assert said == f"{tmp_path}/y.npz: is a folder"


@pytest.mark.parametrize("there", ["y.npz", "y.png"])
def test_what_exists_is_replaced_only_on_request(model, tmp_path, capsys, monkeypatch, there):
    pytest.importorskip("matplotlib")
    (tmp_path / there).write_text("mine")
    command = [model, *OPTIONS, "--out", tmp_path / "y.npz", "--plot", tmp_path / "y.png"]
    with monkeypatch.context() as patch:
        patch.setattr(um.ReactionNetwork, "simulate", None)  # no work before the refusal
        said = refused(capsys, *command)
    assert said == f"{tmp_path}/{there}: exists already; --overwrite replaces it"
    assert sorted(os.listdir(tmp_path)) == ["dimer.txt", there]
    simulate(*command, "--overwrite")
    assert (tmp_path / there).read_bytes() != b"mine"


def test_a_link_is_followed(model, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "y.npz").write_text("old")
    (tmp_path / "link.npz").symlink_to(tmp_path / "there" / "y.npz")
    simulate(model, *OPTIONS, "--out", tmp_path / "link.npz", "--overwrite")
    assert (tmp_path / "link.npz").is_symlink()
    assert np.load(tmp_path / "there" / "y.npz")["counts"].shape == (RUNS, POINTS, 2)


def test_a_species_with_the_name_of_a_column(tmp_path, capsys):
    pytest.importorskip("pyarrow")
    (tmp_path / "x.txt").write_text("time -> @ 1\ntime(0) = 3\n")
    said = refused(capsys, tmp_path / "x.txt", *OPTIONS, "--out", tmp_path / "y.parquet")
    assert "'time' is a column of its own" in said
    simulate(tmp_path / "x.txt", *OPTIONS, "--out", tmp_path / "y.parquet", "--moments")


def test_what_the_command_misses_is_named_before_the_work(model, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(um.ReactionNetwork, "simulate", None)
    for module, extra, target in (
        ("pyarrow.parquet", "cli", "--out=y.parquet"),
        ("xarray", "xarray", "--out=y.nc"),
        ("h5netcdf", "xarray", "--out=y.nc"),
        ("h5py", "xarray", "--out=y.nc"),
        ("matplotlib", "plot", "--plot=y.png"),
    ):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, module, None)
            said = refused(capsys, model, *OPTIONS, target)
        assert said == f'{module.partition(".")[0]} is needed for this: pip install "unitmass[{extra}]"'


def test_a_full_disk_leaves_the_old_file(model, tmp_path, capsys, monkeypatch):
    import errno

    def full(*arguments, **named):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "y.npz").write_text("mine")
    monkeypatch.setattr(np, "savez", full)
    said = refused(capsys, model, *OPTIONS, "--out", tmp_path / "y.npz", "--overwrite")
    assert said == "No space left on device"
    assert (tmp_path / "y.npz").read_text() == "mine"
    assert sorted(os.listdir(tmp_path)) == ["dimer.txt", "y.npz"]


# --- the command: interrupts ------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="signals are of POSIX")
@pytest.mark.parametrize("moments", [False, True])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_leaves_the_old_file_and_no_other(tmp_path, number, code, moments):
    """The run would take hours."""
    (tmp_path / "y.npz").write_text("mine")
    command = [sys.executable, "-m", "unitmass", "simulate", MODELS / "vilar.txt", "--t-end", "1e6", "--runs", "1000"]
    command += ["--out", tmp_path / "y.npz", "--overwrite", *(["--moments"] if moments else [])]
    run = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 60
    while len(os.listdir(tmp_path)) == 1 and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.1)
    run.send_signal(number)
    begun = time.monotonic()
    _, said = run.communicate(timeout=60)
    assert time.monotonic() - begun < 5  # a quarter of a second, on a machine that has nothing else to do
    assert run.returncode == code
    assert said == "unitmass: interrupted; nothing is written\n"
    assert (tmp_path / "y.npz").read_text() == "mine"
    assert os.listdir(tmp_path) == ["y.npz"]


def test_an_interrupt_while_writing(model, tmp_path, capsys, monkeypatch):
    def interrupted(file, **arrays):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", interrupted)
    simulate(model, *OPTIONS, "--out", tmp_path / "y.npz", code=130)
    assert capsys.readouterr().err == "unitmass: interrupted; nothing is written\n"
    assert os.listdir(tmp_path) == ["dimer.txt"]


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are of POSIX")
@pytest.mark.parametrize("off", [False, True])
def test_progress_is_drawn_on_a_terminal_only(tmp_path, off, seen_on_a_terminal):
    command = ["simulate", MODELS / "vilar.txt", "--t-end", "100", "--runs", "100", "--out", tmp_path / "y.npz"]
    drawn = seen_on_a_terminal(*command, *(["--no-progress"] if off else []))
    assert (b"simulating" in drawn) != off
    assert b"events/s" in drawn
