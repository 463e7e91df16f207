"""python -m normexp.evaluate: score finished runs again, on their own test set or another."""

import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from normexp import evaluation_settings
from normexp.bn_stats import KINDS
from normexp.command_line import OneLineParser, look_for_norms_here, runs_among, runs_below
from normexp.entry import BAD_USAGE, FAILED, one_line_errors
from normexp.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from normexp.config import Config, DataConfig
    from normexp.data.images import Dataset, ImageSet
    from normexp.finished_run import FinishedRun

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
    with one_line_errors():
        options = parser.parse_intermixed_args(arguments)
        look_for_norms_here()
        folders = [Path(text) for text in options.given if "=" not in text or Path(text).is_dir()]
        settings = [text for text in options.given if Path(text) not in folders]
        runs = runs_below(runs_among(folders))
        if not runs:
            raise UserError("no RUN_DIR is given; name one or more, outputs/NAME/RUN_ID")
        evaluation_settings.refuse_unread(settings)
        if status := _evaluate(runs, settings, options.out, options.json):
            sys.exit(status)


def _evaluate(runs: list[Path], settings: list[str], out: Path | None, as_json: bool) -> int:
    """Score and print; the exit status. Of several runs the others are done where one fails."""
    from normexp import evaluation_files

    loaded: Datasets = {}
    records = []
    for path in runs:
        try:
            record, confusion = _score(path, settings, loaded)
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
        print(json.dumps(records, indent=2, ensure_ascii=False, allow_nan=False))
    elif len(runs) == 1:
        print("\n".join(["", *evaluation_files.by_class(records[0], confusion), "", str(folder)]))
    if not records:
        return BAD_USAGE
    return FAILED if len(records) < len(runs) else 0


def _score(
    path: Path, settings: list[str], loaded: Datasets
) -> "tuple[dict[str, Any], np.ndarray]":
    """What a run is worth: the contents of its evaluation.json, and its confusion matrix."""
    from normexp import finished_run
    from normexp.evaluation_files import describe
    from normexp.trainer import process

    scored: list[evaluation_settings.Scored] = []
    trained: list[DataConfig] = []

    def change(config: "Config") -> "Config":
        trained.append(config.data)
        scored.append(evaluation_settings.apply(config, settings))
        return scored[0].config

    run = finished_run.load(path, change)
    (how,), (own,) = scored, trained
    test = evaluation_settings.only_test_images(how.test)
    dataset = _load(test, loaded)
    changed = run.data_fingerprint not in ("", dataset.fingerprint)
    if changed and evaluation_settings.same_place(own, how.test):
        how.notes.append(
            f"the images in {test.root} are not those it was trained with; its test set may be "
            "another"
        )
    for note in how.notes:
        print(f"note: {path}: {note}", file=sys.stderr)
    images = _in_classes_of(run, dataset, test)
    with process.settings(run.config, run.device):
        answers = {kind: _answers(run, images, kind) for kind in run.config.evaluate.bn_stats}
    return describe(run, test, dataset.fingerprint, how.notes, answers)


def _load(data: "DataConfig", loaded: Datasets) -> "Dataset":
    from normexp.data import sources

    key = repr(data)
    if key not in loaded:
        loaded[key] = sources.load(data)
    return loaded[key]


def _in_classes_of(run: "FinishedRun", dataset: "Dataset", data: "DataConfig") -> "ImageSet":
    """The test images with labels that are the run's, by the names of the classes.

    Raises:
        UserError: an image is of a class that the run does not know.
    """
    import numpy as np

    if dataset.classes == run.classes:
        return dataset.test
    used = [dataset.classes[place] for place in np.unique(dataset.test.labels)]
    if odd := [name for name in used if name not in run.classes]:
        known = ", ".join(run.classes[:5]) + (", ..." if len(run.classes) > 5 else "")
        raise UserError(
            f"{data.root}: {odd[0]} is none of the {len(run.classes)} classes that {run.path} "
            f"knows ({known}); give images of those"
        )
    places = {name: run.classes.index(name) for name in used}
    labels = np.array([places[dataset.classes[label]] for label in dataset.test.labels])
    return replace(dataset.test, labels=labels.astype(np.int64))


def _answers(run: "FinishedRun", images: "ImageSet", kind: str) -> "tuple[np.ndarray, np.ndarray]":
    """Logits fp32 (n,classes) and labels int64 (n,), in no particular order."""
    import torch

    from normexp.trainer import process
    from normexp.trainer.evaluation import answers

    samples: Callable[[], Iterable[torch.Tensor]] = list
    if kind == "precise":
        samples = run.training_samples(run.config.data, FIX)
    with torch.inference_mode():
        found = [
            (run.numbers(logits.float().cpu()), labels.cpu())
            for logits, labels in answers(
                run.network, run.pictures(images), torch.arange(len(images.labels)),
                run.config.evaluate.batch_size,
                process.autocast(run.config.precision, run.device),
                bn_stats=kind, samples=samples,
            )
        ]  # fmt: skip
    logits, labels = (torch.cat(values) for values in zip(*found, strict=True))
    return logits.numpy(), labels.numpy()


if __name__ == "__main__":
    main()
