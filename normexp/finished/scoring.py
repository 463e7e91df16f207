"""A finished run on its own test set or another."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from normexp.config.schema import Config, DataConfig
from normexp.data import sources
from normexp.data.images import Dataset, ImageSet
from normexp.data.layout import without_images
from normexp.data.levels import SIXTEEN_BITS, Levels
from normexp.data.listing import same_name
from normexp.finished import evaluation_settings, finished_run
from normexp.finished.evaluation_files import describe
from normexp.finished.finished_run import FinishedRun
from normexp.runs import console
from normexp.system.errors import UserError
from normexp.system.printable import note
from normexp.trainer import process
from normexp.trainer.evaluation import answers

FIX = "use evaluate.bn_stats=running, or, without data=, data.root=FOLDER of those"

Datasets = dict[str, Dataset]
"""Those in memory: several runs meet the same images."""


def score(
    path: Path, settings: list[str], norm: str | None, loaded: Datasets
) -> tuple[dict[str, Any], np.ndarray]:
    """What a run is worth: the contents of its evaluation.json, and its confusion matrix.

    Args:
        settings: of the command line.
        norm: the module of a norm of one's own.
        loaded: images in memory; those that are read are added.

    Raises:
        UserError: the run or the images cannot be read, or do not go together.
    """

    scored: list[evaluation_settings.Scored] = []
    trained: list[DataConfig] = []

    def change(config: Config) -> Config:
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


def _load(data: DataConfig, levels: Levels, alone: bool, loaded: Datasets) -> Dataset:

    key = repr((data, levels, alone))
    if key not in loaded:
        loaded[key] = sources.load(data, levels=levels, test_only=alone)
    return loaded[key]


def _in_classes_of(run: FinishedRun, dataset: Dataset, data: DataConfig) -> ImageSet:
    """The test images with labels that are the run's, by the names of the classes.

    Raises:
        UserError: an image is of a class that the run does not know.
    """

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


def _answers(run: FinishedRun, images: ImageSet, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Logits fp32 (n,classes) and labels int64 (n,), in no particular order."""
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
