"""python -m normexp.predict: classify images with a finished run."""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from normexp.config.command_line import OneLineParser, add_norm, look_for_norms_here
from normexp.config.one_line import FAILED, one_line_errors
from normexp.config.schema import Config, Device
from normexp.runs.named import best_below, runs_among
from normexp.system import streams
from normexp.system.errors import UserError
from normexp.system.printable import note, printable, to_json
from normexp.system.writing import refuse_unwritable

if TYPE_CHECKING:
    import numpy as np

    from normexp.finished.finished_run import FinishedRun

ON_A_SHEET = 100

Prediction = list[tuple[str, float]]
"""Class names and probabilities, the likeliest first."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; exits with 1 if a file was no image, 2 if nothing could be done."""
    parser = OneLineParser(
        prog="python -m normexp.predict",
        description="Classify images with a finished run. Images of any size and mode are turned "
        "upright, laid on white where they are transparent, made RGB and resized to the squares "
        "that the network was trained on.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "run", type=Path, metavar="RUN_DIR",
        help="outputs/NAME/RUN_ID, or outputs/NAME for its run that was best on validation",
    )  # fmt: skip
    parser.add_argument(
        "images", nargs="+", metavar="IMAGE",
        help="a file, a folder (all images in it and below), or - for an image on standard input",
    )  # fmt: skip
    parser.add_argument(
        "--top", type=_count, default=3, metavar="K", help="classes to tell (default: 3)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument(
        "--figure", type=Path, metavar="FILE",
        help=f"draw the first {ON_A_SHEET} images with their predictions (.png, .pdf, .svg)",
    )  # fmt: skip
    parser.add_argument(
        "--data", type=Path, metavar="FOLDER",
        help="where the images it was trained on lie now (only precise statistics need them)",
    )  # fmt: skip
    add_norm(parser)
    streams.end_unread()
    with one_line_errors():
        options = parser.parse_args(arguments)
        look_for_norms_here()
        run, images = _run_and_images(options.run, options.images)
        sys.exit(_predict(best_below(run), images, options))


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be a whole number from 1")
    return int(text)


def _run_and_images(first: Path, others: list[str]) -> tuple[Path, list[str]]:
    """What is meant where `outputs/NAME/*` names the report's folder beside the one run."""
    given = [first, *map(Path, others)]
    near = [path for path in given if path.parent == first.parent]
    report = set(near) - set(runs_among(near))
    run, *images = [path for path in given if path not in report]
    if not images:
        raise UserError("no IMAGE is given; name files or folders, or - for standard input")
    for path in images:
        if (path / "checkpoints" / "best.pt").is_file():
            raise UserError(f"{path}: one run at a time; {path.parent} names the best of its runs")
    return run, [str(path) for path in images]


def _predict(folder: Path, images: list[str], options: argparse.Namespace) -> int:
    """Predict and print; the exit status."""
    import torch

    from normexp.finished import finished_run
    from normexp.finished.given_images import packs
    from normexp.system.figure_files import refuse_unknown_format
    from normexp.trainer import process

    if options.figure:
        refuse_unknown_format(options.figure)
        refuse_unwritable(options.figure, "--figure")
    run = finished_run.load(
        folder, lambda config: finished_run.lying_in(_anywhere(config), options.data), options.norm
    )
    bad: list[str] = []
    shown: list[tuple[str, np.ndarray, Prediction]] = []
    records = []
    with process.settings(run.config, run.device), run.for_single_images():
        _say_of_statistics(run)
        for names, pixels in packs(images, run, bad):
            shares = run.logits(torch.from_numpy(pixels)).double().softmax(1)
            for name, image, row in zip(names, pixels, shares, strict=True):
                best = row.sort(descending=True).indices[: options.top].tolist()
                top = [(run.classes[place], row[place].item()) for place in best]
                if options.json:
                    guesses = [{"class": each, "probability": share} for each, share in top]
                    records.append({"image": name, "predictions": guesses})
                else:
                    print(_line(name, top), flush=True)
                if len(shown) < ON_A_SHEET:
                    shown.append((name, image, top))
    if options.json:
        print(to_json(records))
    if options.figure and shown:
        from normexp.finished.picture_sheet import draw

        unwritable = draw(shown, run.classes, options.figure)
        legend = "".join(f"; {instead} is {name}" for name, instead in unwritable.items())
        print(printable(f"drawn in {options.figure}{legend}"), file=sys.stderr)
    return FAILED if bad else 0


def _anywhere(config: Config) -> Config:
    """Where a run was trained says nothing of where it is used."""
    return replace(config, device=Device.auto)


def _say_of_statistics(run: "FinishedRun") -> None:
    if run.config.evaluate.bn_stats[0] == "batch":
        note(
            "the run was scored with the statistics of batches; single images have none, running "
            "averages take their place"
        )


def _line(name: str, top: Prediction) -> str:
    return printable(
        f"{name}  " + "  ".join(f"{label} {100 * share:.1f} %" for label, share in top)
    )


if __name__ == "__main__":
    main()
