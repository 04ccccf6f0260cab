"""The command line: ``unitmass score``, ``simulate``, ``sector``, ``demo`` and ``config``."""

from __future__ import annotations

import argparse
import csv
import errno
import json
import math
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from inspect import Parameter, signature
from pathlib import Path
from typing import Any, NoReturn, get_args

from unitmass._files import file_format, score_file
from unitmass._progress import bar
from unitmass._sector import sector_lines, sector_report
from unitmass._simulate import MODELS, RESULTS, simulate_file
from unitmass._workers import resolve
from unitmass.gillespie import Method
from unitmass.score import MAPS, score_batches

__all__ = ["main"]

_PASSING = (errno.ENOSPC, errno.EDQUOT, errno.EIO)  # what a run can go on after, once it is mended


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"unitmass: error: {_line(message)}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line on `argv` and return its exit code: 0, 1 (input or run), 2 (usage), 128 + signal."""
    parser = _parser()
    arguments = vars(parser.parse_args(argv))
    command: Callable[..., int] = arguments.pop("command")
    try:
        return command(parser, **arguments)
    except (ValueError, TypeError, NotImplementedError, OSError, ImportError, MemoryError) as error:
        text = _described(error, resumes=command is _score)
        marked = re.search(r"\n *\^$", text)  # a line of a model, and a mark under it
        print(f"unitmass: error: {text if marked else _line(text)}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    from unitmass import __version__

    parser = _Parser(
        prog="unitmass",
        description="Scores in, probability distributions out; networks in, trajectories out; and the probability that "
        "a sector holds random points.",
    )
    parser.add_argument("--version", action="version", version=f"unitmass {__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")

    score = commands.add_parser(
        "score",
        help="score a Parquet, .npy or CSV file",
        description="Turn the scores in a Parquet, .npy or CSV file into probabilities, in a file of the same format. "
        "Columns that are not scored pass through; the last line says which.",
    )
    score.set_defaults(command=_score)
    score.add_argument("source", metavar="IN", help="file of scores: .parquet, .pq, .npy or .csv")
    score.add_argument("target", metavar="OUT", help="file to write, of the same format (.npz for --sparse from .npy)")
    score.add_argument("--map", choices=list(MAPS), required=True, help="how scores become probabilities")
    for name, (kind, text) in _OPTIONS.items():
        score.add_argument(f"--{name.replace('_', '-')}", type=kind, help=f"{', '.join(_homes(name))}: {text}")
    score.add_argument(
        "--axis", type=_integer(-64, 63), metavar="N", help=".npy: the axis of the distributions (default -1)"
    )
    columns = score.add_mutually_exclusive_group()
    columns.add_argument("--column", metavar="NAME", help="Parquet: the list column (default: the only one)")
    columns.add_argument(
        "--columns",
        metavar="A,B,C",
        help="Parquet, CSV: numeric columns, one score each (default for CSV: all; one that has text, too, is refused)",
    )
    score.add_argument(
        "--batch-rows", type=_integer(1, 2**31 - 1), metavar="N", help="rows at a time (default: about 32 MiB)"
    )
    score.add_argument("--workers", type=int, metavar="W", help="threads (default: all cores)")
    score.add_argument("--sparse", action="store_true", help="write the entries that are not zero, and their indices")
    score.add_argument("--resume", action="store_true", help="go on where an interrupted run stopped")
    score.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    score.add_argument("--no-progress", action="store_true", help="draw no progress bar, not even on a terminal")
    score.add_argument("--json", dest="as_json", action="store_true", help="print what was done as one JSON object")

    _add_simulate(commands)
    _add_sector(commands)

    demo = commands.add_parser(
        "demo",
        help="score real logits, simulate genes, look for ducks in sectors, and draw what comes out",
        description="Score the logits of 1,797 handwritten digits with three maps and draw maps.png; simulate a gene "
        "and a genetic oscillator and draw gillespie.png; count how often all ducks of a pond are in one sector of it "
        "and draw sectors.png; run every map at falling temperatures, and three losses, and draw survey.png; print "
        "tables of all.",
    )
    demo.set_defaults(command=_demo)
    demo.add_argument("--out", default="demo", metavar="DIR", help="folder for the results (default: demo)")
    demo.add_argument("--data", metavar="DIR", help="folder with digits_logits.npy (default: examples/data)")

    config = commands.add_parser("config", help="print versions, SIMD level and workers")
    config.set_defaults(command=_config)
    return parser


def _number(text: str) -> float | int:
    """Read a number; one without a fraction is an integer."""
    number = float(text)
    return int(number) if number.is_integer() else number


_OPTIONS: dict[str, tuple[Callable[[str], Any], str]] = {  # of the maps, as `score` takes them
    "alpha": (float, "how sparse; 1 is softmax, 2 is sparsemax (entmax: 1.5, normmax: 2 unless said)"),
    "temperature": (float, "what scores are divided by (default 1)"),
    "total": (float, "the sum of a row (default 1)"),
    "upper": (float, "the largest share"),
    "k": (_number, "the sum of a row of shares of at most 1; how many scores are kept"),
    "top_p": (float, "in place of --k, the mass that the scores have that are kept"),
    "order": (int, "of the Taylor polynomial, even (default 2)"),
    "lam": (float, "how much sparser, below 1 (default 0)"),
    "radius": (float, "of the ball (default 1)"),
    "noise": (str, "gumbel, normal, exponential, uniform or logistic (default gumbel)"),
    "scale": (float, "of the noise (default 1)"),
}


def _homes(option: str) -> list[str]:
    """Name the maps that an option belongs to; those without it, if they are few."""
    homes = [name for name, (_, options) in MAPS.items() if option in options]
    others = [name for name in MAPS if name not in homes]
    return homes if len(homes) <= len(others) else [f"all but {', '.join(others)}"]


def _add_simulate(commands: Any) -> None:
    simulate = commands.add_parser(
        "simulate",
        help="simulate a reaction network",
        description="Simulate the reaction network in MODEL exactly, from time 0 to T, and write the counts of all "
        "trajectories, or their moments. Trajectory i depends on the seed and i alone.",
    )
    simulate.set_defaults(command=_simulate)
    simulate.add_argument(
        "model", metavar="MODEL", help="network: .txt (as ReactionNetwork reads), .xml (SBML) or .net"
    )
    simulate.add_argument("--t-end", type=_positive, metavar="T", required=True, help="until when")
    simulate.add_argument(
        "--points", type=_integer(2, 2**31 - 1), default=101, metavar="P", help="times from 0 to T (default 101)"
    )
    simulate.add_argument(
        "--runs", type=_integer(1, 2**63 - 1), default=1, metavar="N", help="trajectories (default 1)"
    )
    simulate.add_argument("--out", metavar="FILE", help="file to write: .npz, .parquet or .nc (netCDF)")
    simulate.add_argument("--plot", metavar="PNG", help="draw paths, means and bands of a standard deviation")
    simulate.add_argument(
        "--moments", action="store_true", help="means and covariances only, in memory that does not grow with N"
    )
    simulate.add_argument("--seed", type=_integer(0, 2**64 - 1), metavar="S", help="default: the system draws one")
    simulate.add_argument(
        "--first", type=_integer(0, 2**63 - 1), default=0, metavar="I", help="index of the first trajectory (default 0)"
    )
    simulate.add_argument(
        "--param", dest="params", type=_pair, action="append", metavar="NAME=VALUE", help="in place of the model's"
    )
    simulate.add_argument("--x0", type=_pair, action="append", metavar="NAME=COUNT", help="in place of the model's")
    simulate.add_argument("--species", metavar="A,B,C", help="which to record (default: all)")
    simulate.add_argument("--method", choices=get_args(Method), default="auto", help="the engine (default: auto)")
    simulate.add_argument(
        "--max-events", type=_integer(0, 2**63 - 1), metavar="M", help="a trajectory with more events is an error"
    )
    simulate.add_argument("--workers", type=int, metavar="W", help="threads (default: all cores)")
    simulate.add_argument("--overwrite", action="store_true", help="replace FILE and PNG if they exist")
    simulate.add_argument("--no-progress", action="store_true", help="draw no progress bar, not even on a terminal")
    simulate.add_argument("--json", dest="as_json", action="store_true", help="print what was done as one JSON object")


def _add_sector(commands: Any) -> None:
    sector = commands.add_parser(
        "sector",
        help="find the probability that a sector holds random points",
        description="Find the probability that some sector of angle THETA holds N random points of a circle or a disk: "
        "exactly, or by trials if there is no formula, or --trials, --rel-se or --max-seconds ask for them.",
    )
    sector.set_defaults(command=_sector)
    sector.add_argument("--n", type=_integer(1, 2**53), metavar="N", required=True, help="how many points")
    sector.add_argument(
        "--theta",
        type=_angle,
        metavar="THETA",
        required=True,
        help="angle of the sector: 180deg, 3.14rad or 3.14, 0.5turn, pi, 2pi/3",
    )
    sector.add_argument(
        "--trials", type=_integer(1, 2**62 - 1), metavar="T", help="how many trials (1e9 is understood)"
    )
    sector.add_argument("--rel-se", type=_positive, metavar="R", help="stop at this relative standard error")
    sector.add_argument(
        "--max-seconds", type=_positive, metavar="SEC", help="stop after so much time; the result does not repeat"
    )
    sector.add_argument("--density", metavar="LAW", help="of the angles: vonmises:KAPPA, wrappednormal:SIGMA (radians)")
    sector.add_argument(
        "--method", choices=["auto", "exact", "mc", "karp-luby"], default="auto", help="how (default: auto)"
    )
    sector.add_argument("--seed", type=_integer(0, 2**64 - 1), metavar="S", help="default: the system draws one")
    sector.add_argument("--workers", type=int, metavar="W", help="threads (default: all cores)")
    sector.add_argument("--plot", metavar="PNG", help="draw the probability at all angles, and the estimate")
    sector.add_argument("--overwrite", action="store_true", help="replace PNG if it exists")
    sector.add_argument("--no-progress", action="store_true", help="draw no progress bar, not even on a terminal")
    sector.add_argument("--json", dest="as_json", action="store_true", help="print the result as one JSON object")


_ANGLE = re.compile(
    r"(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?)?\s*\*?\s*(?P<unit>[a-zπ°]*)(?:\s*/\s*(?P<parts>\d+))?"
)
_UNITS = {  # what a number is divided by, and then multiplied with: 360 / 360 is 1, and 360deg is 2π
    **dict.fromkeys(("deg", "°"), (360, 2 * math.pi)),
    **dict.fromkeys(("turn", "turns"), (1, 2 * math.pi)),
    **dict.fromkeys(("pi", "π"), (1, math.pi)),
    **dict.fromkeys(("rad", ""), (1, 1.0)),
}


def _angle(text: str) -> float:
    """Read an angle from 0 to 2π, in radians."""
    found = _ANGLE.fullmatch(text.strip().lower())
    number, unit, parts = found.group("number", "unit", "parts") if found else (None, None, None)
    nameless = number is None and unit not in ("turn", "pi", "π")
    if unit not in _UNITS or nameless or (parts and not int(parts)):
        raise argparse.ArgumentTypeError(f"expected an angle such as 180deg, 3.14rad, 0.5turn or pi/2, found {text!r}")
    divisor, factor = _UNITS[unit]
    angle = float(number or 1) / divisor * factor / int(parts or 1)
    if not 0 <= angle <= 2 * math.pi:
        hint = "" if unit else "; without a unit it is in radians"
        raise argparse.ArgumentTypeError(f"must be from 0 to 360deg, found {text!r}{hint}")
    return angle


def _positive(text: str) -> float:
    number = _finite(text)
    if number is None or number <= 0:
        raise argparse.ArgumentTypeError(f"expected a number above 0, found {text!r}")
    return number


def _pair(text: str) -> tuple[str, float]:
    name, _, value = text.rpartition("=")
    number = _finite(value)
    if not name.strip() or number is None:
        raise argparse.ArgumentTypeError(f"expected a name, '=' and a number, found {text!r}")
    return name.strip(), number


def _finite(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _integer(least: int, most: int) -> Callable[[str], int]:
    def integer(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            if not float(text).is_integer():  # 1e9 is
                raise
            number = int(float(text))
        if not least <= number <= most:
            raise argparse.ArgumentTypeError(f"expected a number from {least} to {most}, found {text}")
        return number

    return integer


def _score(
    parser: argparse.ArgumentParser,
    *,
    source: str,
    target: str,
    map: str,
    column: str | None,
    columns: str | None,
    axis: int | None,
    no_progress: bool,
    as_json: bool,
    **rest: Any,
) -> int:
    options = {name: rest.pop(name) for name in _OPTIONS}
    options = {name: value for name, value in options.items() if value is not None}
    names = next(csv.reader([columns]), []) if columns is not None else None
    _check_usage(parser, source, target, map, options, column, names, axis, rest)
    done = 0

    with bar("scoring", "rows", off=no_progress, total=None) as update, _sigterm_interrupts():

        def progress(rows: int, total: int | None) -> None:
            nonlocal done
            done = rows
            if update:
                update(completed=rows, total=total)

        try:
            report = score_file(
                source,
                target,
                map=map,
                column=column,
                columns=names,
                axis=-1 if axis is None else axis,
                progress=progress,
                **rest,
                **options,
            )
        except KeyboardInterrupt as stop:
            interrupted: int | None = _code_of(stop)
        else:
            interrupted = None
    if interrupted is not None:
        print(f"unitmass: interrupted after {done:,} rows; the same command with --resume goes on", file=sys.stderr)
        return interrupted
    _report(report, as_json)
    return 0


def _check_usage(
    parser: argparse.ArgumentParser,
    source: str,
    target: str,
    map: str,
    options: dict[str, Any],
    column: str | None,
    columns: list[str] | None,
    axis: int | None,
    rest: dict[str, Any],
) -> None:
    """Exit with code 2 if the options do not fit each other, before any file is touched."""
    sparse = rest["sparse"]
    for name, parameter in signature(MAPS[map][0]).parameters.items():
        if name in _OPTIONS and name not in options and parameter.default is Parameter.empty:
            parser.error(f"the following arguments are required by --map {map}: --{name}")
    try:
        kind, other = file_format(source), file_format(target)
        score_batches([], map=map, column=column, columns=columns, sparse=sparse, workers=rest["workers"], **options)
    except (ValueError, TypeError) as error:
        parser.error(str(error))
    if kind == "npz":
        parser.error(f"{source}: a sparse matrix cannot be scored")
    if os.path.exists(source) and os.path.exists(target) and os.path.samefile(source, target):
        parser.error(f"IN and OUT are the same file: {source}")
    expected = "npz" if kind == "npy" and sparse else kind
    if other != expected:
        parser.error(f"{target}: must be a .{expected} file, for {source}{' and --sparse' if sparse else ''}")
    if axis is not None and kind != "npy":
        parser.error("--axis belongs to .npy files")
    if kind == "npy" and (column is not None or columns is not None):
        parser.error("--column and --columns belong to Parquet and CSV files")
    if kind == "csv" and column is not None:
        parser.error("--column needs lists, which CSV does not have; use --columns")
    if kind == "csv" and sparse:
        parser.error("--sparse needs a list column or an .npy file")


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """Let SIGTERM end the command as Ctrl-C does."""

    def interrupt(number: int, _frame: object) -> NoReturn:
        raise KeyboardInterrupt(number)

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # not in the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _code_of(stop: KeyboardInterrupt) -> int:
    code: int = 128 + (stop.args[0] if stop.args else signal.SIGINT)
    return code


def _simulate(
    parser: argparse.ArgumentParser,
    *,
    model: str,
    out: str | None,
    plot: str | None,
    species: str | None,
    params: list[tuple[str, float]] | None,
    x0: list[tuple[str, float]] | None,
    no_progress: bool,
    as_json: bool,
    **rest: Any,
) -> int:
    # A comma between brackets is part of a name.
    names = re.split(r",(?![^()]*\))", species) if species else None if species is None else []
    names = names and [name.strip('"') for name in names]
    _check_simulate(parser, model, out, plot, names, rest)
    interrupted: int | None = None
    with _sigterm_interrupts():
        try:
            report = simulate_file(
                model,
                out=out,
                plot=plot,
                species=names,
                params=dict(params or ()),
                x0=dict(x0 or ()),
                progress=not no_progress,
                **rest,
            )
        except KeyboardInterrupt as stop:
            interrupted = _code_of(stop)
    if interrupted is not None:
        print("unitmass: interrupted; nothing is written", file=sys.stderr)
        return interrupted
    n = report["trajectories"]
    print(
        f"{' and '.join(path for path in (out, plot) if path)}: {n:,} trajector{'y' if n == 1 else 'ies'}, "
        f"{report['events']:,} events in {report['seconds']:.3g} s: {report['events_per_second']:,.0f} events/s "
        f"(seed {report['seed']}, {report['method']})",
        file=sys.stderr,
    )
    if as_json:
        print(json.dumps(report, ensure_ascii=False))
    return 0


def _check_simulate(
    parser: argparse.ArgumentParser,
    model: str,
    out: str | None,
    plot: str | None,
    names: list[str] | None,
    rest: dict[str, Any],
) -> None:
    """Exit with code 2 if the options do not fit each other, before any file is touched."""
    for path, known in ((model, MODELS), (out, RESULTS), (plot, [".png"])):
        if path is not None and Path(path).suffix.lower() not in known:
            *others, last = known
            parser.error(f"{path}: the name must end in {', '.join(others)}{' or ' if others else ''}{last}")
    if out is None and plot is None:
        parser.error("nothing to write: give --out, --plot or both")
    if rest["moments"] and rest["runs"] < 2:
        parser.error("--moments needs --runs of at least 2")
    for name in names or ():
        if (names or []).count(name) > 1:
            parser.error(f"species: {name!r} is named twice")
    if names == []:
        parser.error("species: no name is given")
    try:
        resolve(rest["workers"])
    except (ValueError, TypeError) as error:
        parser.error(str(error))


def _sector(parser: argparse.ArgumentParser, *, plot: str | None, no_progress: bool, as_json: bool, **rest: Any) -> int:
    _check_sector(parser, plot, rest)
    with _sigterm_interrupts():
        try:
            report = sector_report(plot=plot, progress=not no_progress, **rest)
        except (ValueError, TypeError) as error:  # about an argument, all of them
            parser.error(str(error))
        except KeyboardInterrupt as stop:
            print("unitmass: interrupted; there is no result (--max-seconds ends a run with one)", file=sys.stderr)
            return _code_of(stop)
    answer, run = sector_lines(report)
    print(answer, file=sys.stderr if as_json else sys.stdout)
    print(run, file=sys.stderr)
    if as_json:
        print(json.dumps(report, ensure_ascii=False, allow_nan=False))
    return 0


def _check_sector(parser: argparse.ArgumentParser, plot: str | None, rest: dict[str, Any]) -> None:
    """Exit with code 2 if the options do not fit each other, before any trial."""
    if plot is not None and Path(plot).suffix.lower() != ".png":
        parser.error(f"{plot}: the name must end in .png")
    if rest["method"] == "exact":
        for name in ("trials", "rel_se", "max_seconds"):
            if rest[name] is not None:
                parser.error(f"--{name.replace('_', '-')} belongs to trials, not to --method exact")
    try:
        resolve(rest["workers"])
    except (ValueError, TypeError) as error:
        parser.error(str(error))


def _report(report: dict[str, Any], as_json: bool) -> None:
    options = "".join(
        f", {name} {value:g}" if isinstance(value, float) else f", {name} {value}"
        for name, value in report["options"].items()
        if value is not None
    )
    resumed = f" ({report['resumed_rows']:,} of them before)" if report["resumed_rows"] else ""
    nan = f"; NaN in {report['nan_rows']:,} rows" if report["nan_rows"] else ""
    print(
        f"{report['out']}: {report['map']}{options}, {report['rows']:,} rows{resumed} in {report['seconds']:.3g} s: "
        f"{report['rows_per_second']:,.0f} rows/s, {report['mb_per_second']:,.1f} MB/s{nan}",
        file=sys.stderr,
    )
    if report["scored"]:
        print(f"columns scored: {_few(report['scored'])}; passed through: {_few(report['passed'])}", file=sys.stderr)
    if as_json:
        print(json.dumps(report, ensure_ascii=False))


def _few(names: list[str]) -> str:
    """List names; of many the first ones and how many there are."""
    if len(names) > 12:
        return f"{', '.join(names[:10])} and {len(names) - 10:,} more"
    return ", ".join(names) or "none"


def _demo(parser: argparse.ArgumentParser, *, out: str, data: str | None) -> int:
    from unitmass._demo import demo

    demo(out, data)
    return 0


def _config(parser: argparse.ArgumentParser) -> int:
    from unitmass import show_config

    show_config()
    return 0


def _described(error: BaseException, resumes: bool) -> str:
    if isinstance(error, OSError) and error.errno is not None:
        hint = "; the same command with --resume goes on" if resumes and error.errno in _PASSING else ""
        return f"{error.filename + ': ' if isinstance(error.filename, str) else ''}{error.strerror}{hint}"
    return str(error) or type(error).__name__


def _line(text: str) -> str:
    return " ".join(text.split())
