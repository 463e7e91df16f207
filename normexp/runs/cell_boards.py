"""TensorBoard for a sweep: besides the runs' own files one series a cell, the mean over its seeds
with the band from lowest to highest, under a name that a person reads: ``cells/gn bs2``."""

import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from normexp.runs import plan as plans
from normexp.runs.recorded_config import NotReadable
from normexp.runs.records import read_metrics, read_result
from normexp.system.errors import UserError

FOLDER = "cells"
"""Below the folder of a sweep's runs; it is made anew each time."""

TAGS = {
    "val/acc": "validation accuracy", "train/acc": "training accuracy",
    "val/loss": "validation loss", "train/loss": "training loss",
}  # fmt: skip
LOWEST, HIGHEST = "lowest", "highest"

LAYOUT = {
    "cells: mean, lowest and highest seed": {
        title: ["Margin", [tag, f"{tag}/{LOWEST}", f"{tag}/{HIGHEST}"]]
        for tag, title in TAGS.items()
    }
}


def write(folder: Path) -> None:
    """Write the series of the cells of a sweep, as far as its runs have come; nothing where there
    is no plan, or no run has events of its own."""
    try:
        plan = plans.read(folder)
    except UserError:
        return  # the report says so
    if plan is None or not any(folder.glob("*/events.out.tfevents.*")):
        return
    from torch.utils.tensorboard.writer import SummaryWriter  # takes a second

    made = folder / f".{FOLDER}"
    shutil.rmtree(made, ignore_errors=True)
    for cell in plan.cells:
        names = [name for name in cell.runs.values() if name]
        rows = [found for name in names if (found := _rows(folder / name))]
        if not rows:
            continue
        with SummaryWriter(str(made / _free(made, label(cell.settings)))) as writer:
            writer.add_custom_scalars(LAYOUT)
            for tag, value, images in _series(rows):
                writer.add_scalar(tag, value, images)
    shutil.rmtree(folder / FOLDER, ignore_errors=True)
    if made.exists():
        made.replace(folder / FOLDER)


def label(settings: dict[str, str]) -> str:
    """What a cell is called, such as ``gn bs2`` or ``gn bs2 num_groups=8``."""
    parts = []
    for key, value in settings.items():
        short = key.rpartition(".")[2]
        lead = {"norm": "", "model": "", "batch_size": "bs"}.get(key, f"{short}=")
        parts.append(re.sub(r"[^\w.,=+-]+", "_", lead + value))
    return " ".join(parts)[:120] or "all"


def _free(folder: Path, name: str) -> str:
    """A name that no other cell has: those of two commands may be called alike."""
    count, free = 1, name
    while (folder / free).exists():
        count += 1
        free = f"{name} ({count})"
    return free


def _rows(run: Path) -> list[dict[str, float | None]]:
    """The epochs of a run; none of one that is damaged, which the report tells."""
    try:
        path = run / "result.json"
        result = read_result(path, run.name) if path.exists() else {}
        return read_metrics(run / "metrics.csv", result)
    except (OSError, NotReadable):
        return []


def _series(runs: Sequence[list[dict[str, Any]]]) -> Iterator[tuple[str, float, int]]:
    """Tags with their values and the images seen, over the runs that have come to each epoch."""
    for epoch in range(max(map(len, runs))):
        there = [run[epoch] for run in runs if epoch < len(run)]
        images = int(there[0]["samples_seen"])
        for tag in TAGS:
            values = [row[tag.replace("/", "_")] for row in there]
            known = [value for value in values if value is not None]
            if known:
                yield tag, sum(known) / len(known), images
                yield f"{tag}/{LOWEST}", min(known), images
                yield f"{tag}/{HIGHEST}", max(known), images
        yield "train/seeds", len(there), images
