"""python -m normexp.report: what a directory of runs says, as a table, pictures and one page."""

import sys
from pathlib import Path

from normexp import streams
from normexp.command_line import OneLineParser
from normexp.entry import one_line_errors
from normexp.errors import UserError
from normexp.printable import printable
from normexp.run_directory import refuse_unwritable


def main(arguments: list[str] | None = None) -> None:
    parser = OneLineParser(
        prog="python -m normexp.report",
        description="Read every run below a directory, complete or not, and write DIR/report/: "
        "index.html, runs.csv, summary.csv, summary.md and figures/. No run is touched.",
    )
    parser.add_argument("directory", type=Path, help="such as outputs/NAME")
    parser.add_argument(
        "--reference", metavar="KEY=VALUE", action="append", default=[],
        help="what the others are compared with, such as norm=bn (the default, or none, or the "
        "first); give it again to narrow it down",
    )  # fmt: skip
    parser.add_argument(
        "--format", choices=("text", "md", "latex"), default="text",
        help="of the table that is printed; latex also writes summary.tex",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, help="another folder for the report")
    streams.end_unread()
    with one_line_errors():
        options = parser.parse_args(arguments)
        reference = _reference(options.reference)
        # scipy and matplotlib take a second to import: --help and mistakes answer before.
        from normexp.report import bn_evaluation, cost, tables
        from normexp.report.answer import answer, latex_tables, markdown, write
        from normexp.report.provenance import left_out
        from normexp.report.published import otherwise

        out = options.out or options.directory / "report"
        refuse_unwritable(out, "--out", folder=True)
        found = answer(options.directory, reference)
        for line in [*found.origin.unreadable, *left_out(found.origin)]:
            print(printable(f"normexp: {line}"), file=sys.stderr)
        write(found, out, latex=options.format == "latex")
        if options.format == "md":
            print(markdown(found), end="")
        elif options.format == "latex":
            print(latex_tables(found), end="")
        else:
            accuracies = tables.plain(tables.summary(found.sweep, found.rows))
            costs = [tables.plain(tables.costs(found.sweep, found.rows))]
            costs += [line] if (line := cost.caution(found.sweep.cells)) else []
            by_statistics = bn_evaluation.table(found.sweep)
            more = [] if by_statistics is None else [tables.plain(by_statistics)]
            if measured := [one for one in found.published if one.n]:
                more.append(tables.plain(tables.published(measured)))
                more += [line] if (line := otherwise(found.sweep)) else []
            above = [found.warning] if found.warning else []
            print(*above, found.facts, accuracies, *more, *costs, sep="\n\n")
            print("", *(f"- {one}" for one in found.sentences), sep="\n")
            if found.origin.commands:
                heading = (
                    "to train what can be seen to be missing (the sweep's own command trains all):"
                )
                print("", heading, *found.origin.commands, sep="\n")
            print(f"\nwritten to {out / 'index.html'}")


def _reference(given: list[str]) -> dict[str, str]:
    pairs = {}
    for setting in given:
        key, sign, value = setting.partition("=")
        if not sign or not key or not value:
            raise UserError(f"--reference {setting}: write KEY=VALUE, such as norm=bn")
        pairs[key] = value
    return pairs


if __name__ == "__main__":
    main()
