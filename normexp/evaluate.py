"""python -m normexp.evaluate: score finished runs again, on their own test set or another."""

import argparse
import sys
from pathlib import Path

from normexp.config.command_line import OneLineParser, add_norm, look_for_norms_here
from normexp.config.one_line import BAD_USAGE, FAILED, one_line_errors
from normexp.config.plain_texts import quoted
from normexp.finished import evaluation_settings
from normexp.norms.bn_stats import KINDS
from normexp.runs.named import runs_among, runs_below
from normexp.system import streams
from normexp.system.errors import UserError
from normexp.system.printable import printable, to_json
from normexp.system.writing import refuse_other_than_folder, refuse_unwritable


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; exits with 1 if a run could not be scored, 2 if nothing could."""
    parser = OneLineParser(
        prog="python -m normexp.evaluate",
        description="Score finished runs again: loss, accuracy, accuracy by class, confusion "
        "matrix and calibration (ECE, 15 bins). Runs are read only; what is found is written to "
        "RUN_DIR/evaluation/.",
        epilog="settings: data=NAME and data.root=FOLDER for another test set (of an image folder "
        "only test/<class>/* need be there), evaluate.bn_stats= one or a list of "
        f"{', '.join(KINDS)}, evaluate.precise_samples=, evaluate.batch_size=, device=, threads=, "
        "precision=",
        allow_abbrev=False,
    )  # fmt: skip
    parser.add_argument(
        "given",
        nargs="+",
        metavar="RUN_DIR | KEY=VALUE",
        help="outputs/NAME/RUN_ID or, for all its runs, outputs/NAME; and settings",
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="write to DIR/RUN_ID/ instead of into the runs"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    add_norm(parser)
    streams.end_unread()
    with one_line_errors():
        options = parser.parse_intermixed_args(arguments)
        look_for_norms_here()
        folders = [Path(text) for text in options.given if "=" not in text or Path(text).is_dir()]
        settings = quoted(text for text in options.given if Path(text) not in folders)
        runs = runs_below(runs_among(folders))
        if not runs:
            raise UserError("no RUN_DIR is given; name one or more, outputs/NAME/RUN_ID")
        evaluation_settings.refuse_unread(settings)
        if status := _evaluate(runs, settings, options):
            sys.exit(status)


def _evaluate(runs: list[Path], settings: list[str], options: argparse.Namespace) -> int:
    """Score and print; the exit status. Of several runs the others are done where one fails."""
    from normexp.finished import evaluation_files, scoring

    out, as_json = options.out, options.json
    if out is not None:
        refuse_unwritable(out, "--out", folder=True)
    loaded: scoring.Datasets = {}
    records = []
    for path in runs:
        try:
            if out is None:
                refuse_other_than_folder(path / "evaluation", "remove it, or give --out DIR")
            record, confusion = scoring.score(path, settings, options.norm, loaded)
        except UserError as error:
            if len(runs) == 1:
                raise
            print(f"normexp: {error}", file=sys.stderr)
            continue
        folder = path / "evaluation" if out is None else out / record["run_id"]
        evaluation_files.write(folder, record, confusion)
        records.append(record)
        if not as_json:
            for line in evaluation_files.lines(record, first=len(records) == 1):
                print(line, flush=True)
    if as_json:
        print(to_json(records))
    elif len(runs) == 1:
        by_class = evaluation_files.by_class(records[0], confusion)
        print("\n".join(["", *by_class, "", printable(str(folder))]))
    if not records:
        return BAD_USAGE
    return FAILED if len(records) < len(runs) else 0


if __name__ == "__main__":
    main()
