"""python -m normexp.export: a finished run as ONNX or as a program of torch.export."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from normexp.config.command_line import OneLineParser, add_norm, look_for_norms_here
from normexp.config.one_line import one_line_errors
from normexp.config.schema import Config, Device, Precision
from normexp.runs.named import best_below, runs_among
from normexp.system.errors import UserError
from normexp.system.printable import printable
from normexp.system.writing import refuse_other_than_folder, refuse_unwritable

if TYPE_CHECKING:
    from normexp.finished.finished_run import FinishedRun


FORMATS = ("onnx", "pt2")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; exits with a non-zero status on errors, said in one line."""
    parser = OneLineParser(
        prog="python -m normexp.export",
        description="Write a finished run as a file that needs no normexp: input `images`, fp32 "
        "(N,3,S,S), RGB, 0..1, any N; output `logits` (N,classes). The normalization of the run's "
        "images is a part of it. It is read back and has to give the run's own answers.",
        epilog="onnx needs the packages of pip install 'normexp[export]'.",
        allow_abbrev=False,
    )
    # Several, since outputs/NAME/* may name the report's folder beside the one run.
    parser.add_argument(
        "given", type=Path, nargs="+", metavar="RUN_DIR",
        help="outputs/NAME/RUN_ID, or outputs/NAME for its run that was best on validation",
    )  # fmt: skip
    parser.add_argument(
        "--format", choices=FORMATS,
        help="onnx, or pt2 for torch.export.load (default: as --out ends, or onnx)",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, metavar="FILE",
        help="where to write (default: RUN_DIR/export/RUN_ID.onnx or .pt2)",
    )  # fmt: skip
    parser.add_argument(
        "--data", type=Path, metavar="FOLDER",
        help="where the images it was trained on lie now (only precise statistics need them)",
    )  # fmt: skip
    add_norm(parser)
    with one_line_errors():
        options = parser.parse_args(arguments)
        look_for_norms_here()
        run, *others = runs_among(options.given)
        if others:
            best = f"{run.parent} names the best of its runs"
            raise UserError(f"{others[0]}: one run at a time; {best}")
        _export(best_below(run), options)


def _export(folder: Path, options: argparse.Namespace) -> None:
    from normexp.finished import exporting, finished_run
    from normexp.trainer import process

    form = _format(options.format, options.out)
    exporting.refuse_missing_packages(form)
    if options.out:
        refuse_unwritable(options.out, "--out")
    else:
        refuse_other_than_folder(folder / "export", "remove it, or give --out FILE")
    run = finished_run.load(
        folder, lambda config: finished_run.lying_in(_on_cpu(config), options.data), options.norm
    )
    path = options.out or folder / "export" / f"{run.run_id}.{form}"
    if options.out and path.is_symlink():
        path = path.resolve()  # what it leads to is written, as where any program writes
    with process.settings(run.config, run.device), run.for_single_images():
        difference = exporting.export(run, form, path)
    _say(run, path, difference)


def _format(given: str | None, out: Path | None) -> str:
    ending = out.suffix[1:].lower() if out else ""
    if given and ending in FORMATS and given != ending:
        raise UserError(f"--format {given} --out {out}: two formats; leave one of them out")
    return given or (ending if ending in FORMATS else "onnx")


def _on_cpu(config: Config) -> Config:
    """In fp32: who uses the file chooses how it is computed."""
    return replace(config, device=Device.cpu, precision=Precision.fp32)


def _say(run: "FinishedRun", path: Path, difference: float) -> None:
    size = run.image_size
    rows = {
        "written": f"{printable(str(path))}, {path.stat().st_size / 1e6:.2f} MB",
        "input": f"images: fp32 (N,3,{size},{size}), RGB, 0..1; normalized inside",
        "output": f"logits: fp32 (N,{len(run.classes)})",
        "checked": f"read back, logits differ from the run's by {difference:.1e} at most",
    }
    for name, value in rows.items():
        print(f"{name:8} {value}")


if __name__ == "__main__":
    main()
