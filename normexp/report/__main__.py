"""python -m normexp.report: what runs say, as a table, pictures and one page."""

import argparse
import math
import os
import sys
import webbrowser
from pathlib import Path

from normexp.config.command_line import OneLineParser
from normexp.config.one_line import one_line_errors
from normexp.system import streams
from normexp.system.errors import UserError
from normexp.system.printable import printable
from normexp.system.writing import refuse_unwritable


def main(arguments: list[str] | None = None) -> None:
    parser = OneLineParser(
        prog="python -m normexp.report",
        description="Compare the runs below a directory, complete or not, or those of a CSV with a "
        "row a run, and write DIR/report/ (or RESULTS-report/): index.html, answer.json, "
        "summary.csv, summary.md, runs.csv and figures/. No run is touched.",
    )
    parser.add_argument(
        "source", type=Path, metavar="DIR|CSV",
        help="such as outputs/NAME; or a file with the columns norm, seed, an accuracy, and "
        "conditions such as batch_size",
    )  # fmt: skip
    parser.add_argument(
        "--reference", metavar="KEY=VALUE", action="append", default=[],
        help="what the others are compared with, such as norm=bn (the default, or none, or the "
        "first); give it again to narrow it down",
    )  # fmt: skip
    parser.add_argument(
        "--margin", type=_points, metavar="POINTS",
        help="differences within so many points of accuracy count as the same (default: 0.5)",
    )  # fmt: skip
    parser.add_argument(
        "--measure", metavar="COLUMN", help="of a CSV: the accuracy to compare, 0..1 or percent"
    )
    parser.add_argument(
        "--conditions", metavar="COLUMN,...", default="",
        help="of a CSV: the columns that are conditions (default: all others)",
    )  # fmt: skip
    parser.add_argument(
        "--time", action="store_true",
        help="time each cell's network by itself first, in turn: the costs in the report",
    )  # fmt: skip
    parser.add_argument(
        "--format", choices=("text", "md", "latex"), default="text",
        help="of what is printed; latex also writes summary.tex",
    )  # fmt: skip
    parser.add_argument("--wide", action="store_true", help="print all columns, past 80 too")
    parser.add_argument("--open", action="store_true", help="open the page in a browser")
    parser.add_argument("--out", type=Path, help="another folder for the report")
    streams.end_unread()
    with one_line_errors():
        options = parser.parse_args(arguments)
        _report(options, _reference(options.reference))


def _report(options: argparse.Namespace, reference: dict[str, str]) -> None:
    # pandas, scipy and matplotlib take a second to import: --help and mistakes answer before.
    from normexp.report.answer import answer, latex_tables, markdown, terminal, write
    from normexp.report.origin import left_out
    from normexp.report.read import read_runs
    from normexp.report.results_file import read_file
    from normexp.report.tables import WIDTH

    source: Path = options.source
    file = source.exists() and not source.is_dir()
    named = tuple(filter(None, options.conditions.split(",")))
    if not file and (options.measure or named):
        raise UserError("--measure and --conditions are for a CSV; a run's accuracy is test_acc")
    out = options.out or (source.with_name(f"{source.stem}-report") if file else source / "report")
    runs = read_file(source, options.measure, named) if file else read_runs(source)
    refuse_unwritable(out, "--out", folder=True)
    if options.time:
        from normexp.report.timing import time_cells

        time_cells(runs, out)
    margin = None if options.margin is None else options.margin / 100
    found = answer(runs, out, reference, margin)
    for line in [*runs.unreadable, *left_out(found.judge.sweep.twice)]:
        print(printable(f"normexp: {line}"), file=sys.stderr)
    write(found, out, latex=options.format == "latex")
    page = out / "index.html"
    if options.format == "text":
        colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        print(terminal(found, None if options.wide else WIDTH, colour))
        print(f"\nwritten to {printable(str(page))}")
    else:
        print(latex_tables(found) if options.format == "latex" else markdown(found), end="")
    if options.open and not webbrowser.open(page.resolve().as_uri()):
        raise UserError(f"--open: no browser was found; open {page} yourself")


def _reference(given: list[str]) -> dict[str, str]:
    pairs = {}
    for setting in given:
        key, sign, value = setting.partition("=")
        if not sign or not key or not value:
            raise UserError(f"--reference {setting}: write KEY=VALUE, such as norm=bn")
        pairs[key] = value
    return pairs


def _points(word: str) -> float:
    value = float(word)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{word}: must be a number of percentage points above 0")
    return value


if __name__ == "__main__":
    main()
