"""python -m normexp.evaluate: score finished runs again, on their own test set or another."""

import argparse
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from normexp.config.command_line import OneLineParser, add_norm, look_for_norms_here
from normexp.config.one_line import BAD_USAGE, FAILED, one_line_errors
from normexp.config.plain_texts import quoted
from normexp.finished import evaluation_settings
from normexp.norms.bn_stats import KINDS
from normexp.runs.named import runs_among, runs_below
from normexp.system import streams
from normexp.system.errors import UserError
from normexp.system.printable import note, printable, to_json
from normexp.system.writing import refuse_other_than_folder, refuse_unwritable

if TYPE_CHECKING:
    import numpy as np

    from normexp.config.schema import Config, DataConfig
    from normexp.data.images import Dataset, ImageSet
    from normexp.data.levels import Levels
    from normexp.finished.finished_run import FinishedRun

FIX = "use evaluate.bn_stats=running, or, without data=, data.root=FOLDER of those"

Datasets = dict[str, "Dataset"]
"""Those in memory: several runs meet the same images."""


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
    from normexp.finished import evaluation_files

    out, as_json = options.out, options.json
    if out is not None:
        refuse_unwritable(out, "--out", folder=True)
    loaded: Datasets = {}
    records = []
    for path in runs:
        try:
            if out is None:
                refuse_other_than_folder(path / "evaluation", "remove it, or give --out DIR")
            record, confusion = _score(path, settings, options.norm, loaded)
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


def _score(
    path: Path, settings: list[str], norm: str | None, loaded: Datasets
) -> "tuple[dict[str, Any], np.ndarray]":
    """What a run is worth: the contents of its evaluation.json, and its confusion matrix."""
    from normexp.data.layout import without_images
    from normexp.data.levels import SIXTEEN_BITS
    from normexp.finished import finished_run
    from normexp.finished.evaluation_files import describe
    from normexp.trainer import process

    scored: list[evaluation_settings.Scored] = []
    trained: list[DataConfig] = []

    def change(config: "Config") -> "Config":
        trained.append(config.data)
        scored.append(evaluation_settings.apply(config, settings))
        return scored[0].config

    run = finished_run.load(path, change, norm)
    (how,), (own,) = scored, trained
    test, alone = evaluation_settings.images_of(how.test, own)
    dataset = _load(test, run.levels or SIXTEEN_BITS, alone, loaded)
    changed = run.data_fingerprint not in ("", dataset.fingerprint)
    if changed and not alone and evaluation_settings.same_place(own, test):
        how.notes.append(
            f"the images in {test.root} are not those it was trained with; its test set may be "
            "another"
        )
    images = _in_classes_of(run, dataset, test)
    lacking = without_images(run.classes, images.labels, "test")
    notes = list(dict.fromkeys([*how.notes, *dataset.notes, *lacking]))
    for each in notes:
        note(f"{path}: {each}")
    with process.settings(run.config, run.device):
        answers = {kind: _answers(run, images, kind) for kind in run.config.evaluate.bn_stats}
    return describe(run, test, dataset.fingerprint, notes, answers)


def _load(data: "DataConfig", levels: "Levels", alone: bool, loaded: Datasets) -> "Dataset":
    from normexp.data import sources

    key = repr((data, levels, alone))
    if key not in loaded:
        loaded[key] = sources.load(data, levels=levels, test_only=alone)
    return loaded[key]


def _in_classes_of(run: "FinishedRun", dataset: "Dataset", data: "DataConfig") -> "ImageSet":
    """The test images with labels that are the run's, by the names of the classes.

    Raises:
        UserError: an image is of a class that the run does not know.
    """
    import numpy as np

    from normexp.data.listing import same_name

    if dataset.classes == run.classes:
        return dataset.test
    known_as = {same_name(name): place for place, name in enumerate(run.classes)}
    used = [dataset.classes[place] for place in np.unique(dataset.test.labels)]
    if odd := [name for name in used if same_name(name) not in known_as]:
        known = ", ".join(run.classes[:5]) + (", ..." if len(run.classes) > 5 else "")
        raise UserError(
            f"{data.root}: {odd[0]} is none of the {len(run.classes)} classes that {run.path} "
            f"knows ({known}); give images of those"
        )
    places = np.array([known_as.get(same_name(name), -1) for name in dataset.classes])
    labels = places[dataset.test.labels]
    return replace(dataset.test, labels=labels.astype(np.int64))


def _answers(run: "FinishedRun", images: "ImageSet", kind: str) -> "tuple[np.ndarray, np.ndarray]":
    """Logits fp32 (n,classes) and labels int64 (n,), in no particular order."""
    import torch

    from normexp.runs import console
    from normexp.trainer import process
    from normexp.trainer.evaluation import answers

    samples: Callable[[], Iterable[torch.Tensor]] = list
    if kind == "precise":
        samples = run.training_samples(run.config.data, FIX)
    count = len(images.labels)
    found = []
    with torch.inference_mode(), console.evaluation_bar(run.path.name, count, True) as bar:
        for logits, labels in answers(
            run.network, run.pictures(images), torch.arange(count), run.config.evaluate.batch_size,
            process.autocast(run.config.precision, run.device), bn_stats=kind, samples=samples,
        ):  # fmt: skip
            found.append((run.numbers(logits.float().cpu()), labels.cpu()))
            bar.update(len(labels))
    logits, labels = (torch.cat(values) for values in zip(*found, strict=True))
    return logits.numpy(), labels.numpy()


if __name__ == "__main__":
    main()
