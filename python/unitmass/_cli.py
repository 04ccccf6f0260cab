"""The command line: ``unitmass score``, ``unitmass demo`` and ``unitmass config``."""

from __future__ import annotations

import argparse
import csv
import errno
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from unitmass._files import file_format, score_file
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
        print(f"unitmass: error: {_line(_described(error))}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    from unitmass import __version__

    parser = _Parser(prog="unitmass", description="Scores in, probability distributions out.")
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
    score.add_argument("--alpha", type=float, help="entmax: 1 is softmax, 2 is sparsemax (default 1.5)")
    score.add_argument("--temperature", type=float, help="softmax, log_softmax: what scores are divided by (default 1)")
    score.add_argument("--total", type=float, help="project_simplex: the sum of a row (default 1)")
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

    demo = commands.add_parser(
        "demo",
        help="score real logits and draw what comes out",
        description="Score the logits of 1,797 handwritten digits with three maps; print a table and draw maps.png.",
    )
    demo.set_defaults(command=_demo)
    demo.add_argument("--out", default="demo", metavar="DIR", help="folder for the results (default: demo)")
    demo.add_argument("--data", metavar="DIR", help="folder with digits_logits.npy (default: examples/data)")

    config = commands.add_parser("config", help="print versions, SIMD level and workers")
    config.set_defaults(command=_config)
    return parser


def _integer(least: int, most: int) -> Callable[[str], int]:
    def integer(text: str) -> int:
        number = int(text)
        if not least <= number <= most:
            raise argparse.ArgumentTypeError(f"expected a number from {least} to {most}, found {number}")
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
    options = {name: rest.pop(name) for name in ("alpha", "temperature", "total")}
    options = {name: value for name, value in options.items() if value is not None}
    names = next(csv.reader([columns]), []) if columns is not None else None
    _check_usage(parser, source, target, map, options, column, names, axis, rest)
    done = 0

    with _progress(off=no_progress) as bar, _sigterm_interrupts():

        def progress(rows: int, total: int | None) -> None:
            nonlocal done
            done = rows
            bar(rows, total)

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
            interrupted: int | None = 128 + (stop.args[0] if stop.args else signal.SIGINT)
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
def _progress(off: bool) -> Iterator[Callable[[int, int | None], None]]:
    """Draw a bar on a terminal, if rich is there to draw it."""
    off = off or not sys.stderr.isatty()
    if not off:
        try:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
        except ImportError:
            off = True
    if off:
        yield lambda rows, total: None
        return
    columns = (TextColumn("scoring"), BarColumn(), MofNCompleteColumn(), TextColumn("rows"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda rows, total: bar.update(task, completed=rows, total=total)


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


def _report(report: dict[str, Any], as_json: bool) -> None:
    options = "".join(f", {name} {value:g}" for name, value in report["options"].items() if isinstance(value, float))
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


def _described(error: BaseException) -> str:
    if isinstance(error, OSError) and error.errno is not None:
        hint = "; the same command with --resume goes on" if error.errno in _PASSING else ""
        return f"{error.filename + ': ' if isinstance(error.filename, str) else ''}{error.strerror}{hint}"
    return str(error) or type(error).__name__


def _line(text: str) -> str:
    return " ".join(text.split())
