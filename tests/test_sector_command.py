"""`unitmass sector` from outside: what it finds, prints, draws and refuses."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import unitmass as um
from unitmass._cli import main

DUCKS = ["--n", "4", "--theta", "180deg"]
TRIALS = ["--trials", "1e5", "--seed", "7", "--no-progress"]


def sector(*arguments, code=0):
    """Run the command in this process."""
    assert main(["sector", *map(str, arguments)]) == code


def answered(capsys, *arguments):
    """Run it and return its JSON."""
    sector(*arguments, "--json")
    said = capsys.readouterr()
    assert said.out.count("\n") == 1
    assert "Warning" not in said.err
    return json.loads(said.out, parse_constant=pytest.fail)  # no NaN, no Infinity


def refused(capsys, *arguments, code=2):
    if code == 2:
        with pytest.raises(SystemExit) as exit_:
            sector(*arguments)
        assert exit_.value.code == 2
    else:
        sector(*arguments, code=code)
    said = capsys.readouterr()
    assert said.out == ""
    assert re.fullmatch(r"unitmass: error: [^\n]+\n", said.err)
    return said.err.removeprefix("unitmass: error: ")[:-1]


# --- what it finds ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "arguments", "named"),
    [
        (DUCKS, (4, np.pi), {}),
        ([*DUCKS, *TRIALS], (4, np.pi), {"trials": 100_000, "rng": 7}),
        ([*DUCKS, "--rel-se", "0.01", "--seed", "7"], (4, np.pi), {"rel_se": 0.01, "rng": 7}),
        (["--n", "16", "--theta", "5", *TRIALS], (16, 5.0), {"trials": 100_000, "rng": 7}),
        (
            [*DUCKS, "--density", "vonmises:1", *TRIALS],
            (4, np.pi),
            {"density": "vonmises:1", "trials": 100_000, "rng": 7},
        ),
        (
            ["--n", "4", "--theta", "200deg", "--density", "wrappednormal:1", "--seed", "7"],
            (4, 200 / 360 * 2 * np.pi),
            {"density": "wrappednormal:1", "rng": 7},
        ),
        (
            ["--n", "1e3", "--theta", "0.9turn", "--method", "karp-luby", "--trials", "500", "--seed", "1"],
            (1000, 0.9 * 2 * np.pi),
            {"method": "karp-luby", "trials": 500, "rng": 1},
        ),
    ],
    ids=["exact", "trials", "rel-se", "wide", "density", "no formula", "rare"],
)
def test_the_values_are_those_of_the_function(capsys, options, arguments, named):
    found, report = um.common_sector(*arguments, **named), answered(capsys, *options)
    names = ("method", "estimate", "standard_error", "exact", "hits", "trials", "seed", "bias", "stopped", "z_score")
    assert {name: report[name] for name in names} == {name: getattr(found, name) for name in names}
    assert report["interval"] == list(found.ci())
    assert (report["n"], report["theta"]) == arguments
    assert report["density"] == named.get("density")
    assert report["reproducible"]
    assert report["trials_per_second"] == pytest.approx(report["trials"] / report["seconds"])
    assert report["plot"] is None


def test_the_lines(capsys):
    sector(*DUCKS)
    said = capsys.readouterr()
    assert said.out == "P(4 points in a sector of 180°) = 0.5\n"
    assert re.fullmatch(r"exact, in [\d.e-]+ s\n", said.err)
    sector(*DUCKS, *TRIALS)
    said, found = capsys.readouterr(), um.common_sector(4, np.pi, trials=100_000, rng=7)
    low, high = found.ci()
    assert said.out == (
        f"P(4 points in a sector of 180°) = {found.estimate:.4f} ± 0.0016, 95 % interval {low:.4f} to {high:.4f}; "
        f"exact 0.5, z = {found.z_score:+.2f}\n"
    )
    line = rf"{found.hits:,} hits in 100,000 trials in [\d.e-]+ s: [\d,]+ trials/s \(seed 7, mc\)\n"
    assert re.fullmatch(line, said.err)
    sector(*DUCKS, *TRIALS, "--json")
    again = capsys.readouterr()
    assert again.err.startswith(said.out)  # out of the way of the object
    assert again.out.startswith("{")


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--n", "1", "--theta", "0", "--trials", "1"], r"P\(1 point in a sector of 0°\) = .*; exact 1, z = \+0\.00"),
        (
            ["--n", "4", "--theta", "0", "--trials", "9"],
            r"P\(.* of 0°\) = 0 ± 0, 95 % interval 0 to 0\.283; exact 0, z.*",
        ),
        (["--n", "4", "--theta", "2pi", "--trials", "9"], r"P\(.* of 360°\) = 1\.000 ± 0, 95 % interval 0\.717 to 1.*"),
        (["--n", "30", "--theta", "2", "--trials", "1e4"], r".* = 0 ± 0, 95 % interval 0 to 0\.000300; exact .*e-13.*"),
        (
            ["--n", "9", "--theta", "30deg", "--method", "karp-luby", "--trials", "9"],
            r".* = 2\.0931\d+e-08 ± 0, .*; exact 2\.0931\d+e-08, z = \+0\.00",
        ),
        (
            ["--n", "4", "--theta", "90.5deg", "--trials", "1e6", "--density", "vonmises:0.5", "--seed", "1"],
            r"P\(4 points, vonmises:0\.5, in a sector of 90\.5°\) = 0\.\d{5} ± 0\.\d{5}, .*",
        ),
    ],
)
def test_the_lines_at_the_ends(capsys, options, line):
    sector(*options)
    assert re.fullmatch(line + "\n", capsys.readouterr().out)


def test_the_rare_event(capsys):
    """1.942e-43: the figure of the guide."""
    report = answered(capsys, "--n", "1000", "--theta", "324deg", "--method", "karp-luby", "--trials", "400")
    assert report["hits"] is None
    assert report["estimate"] == pytest.approx(1.942e-43, rel=1e-3)
    low, high = report["interval"]
    assert low < report["estimate"] <= high


@pytest.mark.parametrize(
    ("text", "angle"),
    [
        ("360deg", 2 * np.pi),
        ("360°", 2 * np.pi),
        ("1turn", 2 * np.pi),
        ("turn/2", np.pi),
        ("2pi", 2 * np.pi),
        ("180deg", np.pi),
        ("180 DEG", np.pi),
        ("90deg", np.pi / 2),
        ("0.5turn", np.pi),
        (".25turns", np.pi / 2),
        ("pi", np.pi),
        ("π", np.pi),
        ("pi/2", np.pi / 2),
        ("3pi/4", 3 * np.pi / 4),
        ("3*pi/4", 3 * np.pi / 4),
        ("3.14159", 3.14159),
        ("3.14rad", 3.14),
        ("1e-3rad", 1e-3),
        ("0", 0.0),
        ("-0.0", 0.0),
        (repr(2 * np.pi), 2 * np.pi),
    ],
)
def test_angles(capsys, text, angle):
    assert answered(capsys, "--n", "4", f"--theta={text}")["theta"] == angle


def test_counts_may_have_an_exponent(capsys):
    assert answered(capsys, *DUCKS, "--trials", "2e3", "--seed", "1e1")["trials"] == 2000
    assert answered(capsys, "--n", "2.0", "--theta", "180deg")["n"] == 2


def test_the_seed_gives_the_same_again(capsys):
    first = answered(capsys, *DUCKS, "--trials", "1e5")
    again = answered(capsys, *DUCKS, "--trials", "1e5", "--seed", first["seed"])
    other = answered(capsys, *DUCKS, "--trials", "1e5", "--seed", first["seed"] ^ 1)
    assert again["hits"] == first["hits"] != other["hits"]  # equal by chance once in 600


@pytest.mark.parametrize("options", [[], ["--rel-se", "0.005"], ["--method", "karp-luby"]])
def test_workers_change_nothing(capsys, options):
    reports = []
    for workers in (1, 2, 5):
        command = ["--n", 6, "--theta", "220deg", *TRIALS, *options, "--workers", workers]
        report = answered(capsys, *command)
        reports.append({name: value for name, value in report.items() if "second" not in name})
    assert reports[0] == reports[1] == reports[2]


def test_what_the_clock_stopped_does_not_repeat(capsys):
    report = answered(capsys, *DUCKS, "--trials", "1e17", "--max-seconds", "0.01")
    assert (report["stopped"], report["reproducible"]) == ("max_seconds", False)
    assert 0 < report["trials"] < 10**17
    sector(*DUCKS, "--max-seconds", "0.01", "--seed", "3")
    assert "(seed 3, mc; stopped by the clock: the seed alone" in capsys.readouterr().err


# --- refusals ---------------------------------------------------------------------------------------------------------


FORM = "expected an angle such as 180deg, 3.14rad, 0.5turn or pi/2, found "


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "the following arguments are required: --n, --theta"),
        (["--n", "4"], "the following arguments are required: --theta"),
        (["--n", "0", "--theta", "1"], r"argument --n: expected a number from 1 to \d+, found 0"),
        (["--n", "1e16", "--theta", "1"], r"argument --n: .* found 1e16"),
        (["--n", "4.5", "--theta", "1"], "argument --n: invalid integer value: '4.5'"),
        (["--n", "4", "--theta", "361deg"], "argument --theta: must be from 0 to 360deg, found '361deg'"),
        (["--n", "4", "--theta=-1deg"], "argument --theta: must be from 0 to 360deg, found '-1deg'"),
        (["--n", "4", "--theta", "1.01turn"], "argument --theta: must be from .*"),
        (["--n", "4", "--theta", "1e999"], "argument --theta: must be from .*"),
        (["--n", "4", "--theta", "180"], "argument --theta: .*, found '180'; without a unit it is in radians"),
        *(
            (["--n", "4", f"--theta={text}"], re.escape(f"argument --theta: {FORM}{text!r}"))
            for text in ("", "deg", "rad", "x", "1grad", "nan", "inf", "1,5", "1e", "pi/0", "pi/x", "pi pi", "0x1")
        ),
        ([*DUCKS, "--trials", "1.5"], "argument --trials: invalid integer value: '1.5'"),
        ([*DUCKS, "--trials", "0"], "argument --trials: expected a number from 1 to .*, found 0"),
        ([*DUCKS, "--trials", "1e30"], "argument --trials: expected .* found 1e30"),
        *(([*DUCKS, "--trials", text], "argument --trials: .*") for text in ("x", "nan", "inf", "-1", "1e999")),
        ([*DUCKS, "--rel-se", "0"], "argument --rel-se: expected a number above 0, found '0'"),
        ([*DUCKS, "--rel-se", "2"], "rel_se: must be from 1e-9 to 1, found 2.0"),
        ([*DUCKS, "--max-seconds", "0"], "argument --max-seconds: .*"),
        ([*DUCKS, "--max-seconds", "inf"], "argument --max-seconds: .*"),
        ([*DUCKS, "--seed", "-1"], "argument --seed: .*"),
        ([*DUCKS, "--workers", "0"], "workers: .*"),
        ([*DUCKS, "--workers", "x"], "argument --workers: .*"),
        ([*DUCKS, "--method", "guess"], "argument --method: invalid choice: 'guess'.*"),
        ([*DUCKS, "--method", "exact", "--trials", "9"], "--trials belongs to trials, not to --method exact"),
        ([*DUCKS, "--method", "exact", "--rel-se", ".1"], "--rel-se belongs to .*"),
        ([*DUCKS, "--density", "normal"], "density: expected 'vonmises:KAPPA' or .*, found 'normal'"),
        ([*DUCKS, "--density", "vonmises:x"], "density: vonmises: expected a number, found 'x'"),
        (["--n", "4", "--theta", "4", "--density", "vonmises:1", "--method", "exact"], "method: no exact value .*"),
        ([*DUCKS, "--plot", "y.pdf"], r"y\.pdf: the name must end in \.png"),
    ],
)
def test_usage_errors(capsys, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    assert re.fullmatch(message, refused(capsys, *options))
    assert os.listdir(tmp_path) == []


# --- the picture ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        DUCKS,
        [*DUCKS, *TRIALS],
        ["--n", "4", "--theta", "200deg", "--density", "vonmises:1", *TRIALS],
        ["--n", "1000", "--theta", "324deg", "--method", "karp-luby", "--trials", "50"],
        ["--n", "30", "--theta", "1", "--trials", "50"],
        ["--n", "1", "--theta", "0"],
    ],
    ids=["exact", "trials", "density", "rare", "no hit", "one point"],
)
def test_a_picture(capsys, tmp_path, options):
    pytest.importorskip("matplotlib")
    report = answered(capsys, *options, "--plot", tmp_path / "y.png")
    assert report["plot"] == str(tmp_path / "y.png")
    picture = (tmp_path / "y.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 10_000
    assert os.listdir(tmp_path) == ["y.png"]
    sector(*options, "--plot", tmp_path / "y.png", "--overwrite")
    assert capsys.readouterr().err.startswith(f"{tmp_path}/y.png: ")


def test_what_is_drawn(tmp_path, monkeypatch):
    """The curve is the exact law, and the point has the estimate and its interval."""
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **_: drawn.append(figure))
    sector(*DUCKS, *TRIALS, "--plot", tmp_path / "y.png")
    (figure,) = drawn
    (ax,) = figure.axes
    (curve,) = (line for line in ax.lines if line.get_label() == "exact")
    angles, values = curve.get_data()
    np.testing.assert_allclose(angles[[0, -1]], [0, 360])
    np.testing.assert_allclose(values, um.CommonSector(4).cdf(angles / 360 * 2 * np.pi), atol=1e-12)
    found = um.common_sector(4, np.pi, trials=100_000, rng=7)
    point, _, (bar,) = ax.containers[0].lines
    np.testing.assert_allclose(point.get_xydata(), [(180, found.estimate)])
    (segment,) = bar.get_segments()
    np.testing.assert_allclose(segment, [(180, end) for end in found.ci()])


def test_what_exists_is_replaced_only_on_request(tmp_path, capsys, monkeypatch):
    pytest.importorskip("matplotlib")
    (tmp_path / "y.png").write_text("mine")
    command = [*DUCKS, *TRIALS, "--plot", tmp_path / "y.png"]
    with monkeypatch.context() as patch:
        patch.setattr("unitmass._sector.common_sector", None)  # no work before the refusal
        said = refused(capsys, *command, code=1)
    assert said == f"{tmp_path}/y.png: exists already; --overwrite replaces it"
    assert (tmp_path / "y.png").read_text() == "mine"
    sector(*command, "--overwrite")
    capsys.readouterr()
    assert (tmp_path / "y.png").read_bytes().startswith(b"\x89PNG")
    said = refused(capsys, *DUCKS, "--plot", tmp_path / "no" / "y.png", code=1)
    assert said == f"{tmp_path}/no/y.png: the folder does not exist"


def test_a_missing_extra_is_named_before_the_work(capsys, monkeypatch):
    monkeypatch.setattr("unitmass._sector.common_sector", None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    said = refused(capsys, *DUCKS, "--plot", "y.png", code=1)
    assert said == 'matplotlib is needed for this: pip install "unitmass[plot]"'


# --- interrupts and progress ------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="signals are of POSIX")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("method", ["mc", "karp-luby"])
def test_an_interrupt_leaves_the_old_picture_and_no_other(tmp_path, number, code, method):
    """The run would take years."""
    pytest.importorskip("matplotlib")
    (tmp_path / "y.png").write_text("mine")
    command = [sys.executable, "-m", "unitmass", "sector", *DUCKS, "--trials", "1e17", "--method", method, "--json"]
    command += ["--plot", tmp_path / "y.png", "--overwrite"]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 60
    while len(os.listdir(tmp_path)) == 1 and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.1)
    run.send_signal(number)
    begun = time.monotonic()
    answer, said = run.communicate(timeout=60)
    assert time.monotonic() - begun < 5  # a quarter of a second, on a machine that has nothing else to do
    assert run.returncode == code
    assert answer == ""
    assert said == "unitmass: interrupted; there is no result (--max-seconds ends a run with one)\n"
    assert (tmp_path / "y.png").read_text() == "mine"
    assert os.listdir(tmp_path) == ["y.png"]


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are of POSIX")
@pytest.mark.parametrize("off", [False, True])
def test_progress_is_drawn_on_a_terminal_only(off, seen_on_a_terminal):
    drawn = seen_on_a_terminal("sector", *DUCKS, "--trials", "3e7", *(["--no-progress"] if off else []))
    assert (b"counting" in drawn) != off
    live = re.search(rb"30000000/30000000\S* trials, 0\.(49|50)\d* \xc2\xb1 9e-05, \S+ trials/s", drawn)
    assert (live is None) == off
    assert b"hits in 30,000,000 trials" in drawn


def test_help(capsys):
    with pytest.raises(SystemExit, match="0"):
        sector("--help")
    said = capsys.readouterr().out
    for option in ("--theta", "--rel-se", "--max-seconds", "--density", "--plot"):
        assert option in said
