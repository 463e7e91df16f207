"""What `python -m normexp.evaluate` leaves and prints of a run."""

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from sklearn.metrics import confusion_matrix

from normexp.config.schema import DataConfig
from normexp.finished.scores import (
    calibration,
    expected_calibration_error,
    ratios,
)
from normexp.system.figure_files import letters_of, save
from normexp.system.printable import csv_cell, printable, to_json
from normexp.system.writing import replacing

if TYPE_CHECKING:
    from normexp.finished.finished_run import FinishedRun

SCHEMA_VERSION = 1
MOST_CLASSES = 20  # that are told one by one, or written out in a picture
FIX = "give --out DIR"

HEAD = ("accuracy", "loss", "ECE", "images", "norms by", "run")
WIDTHS = (8, 6, 7, 6, -8, -1)


def describe(
    run: "FinishedRun", data: DataConfig, fingerprint: str, notes: list[str],
    answers: dict[str, tuple[np.ndarray, np.ndarray]],
) -> tuple[dict[str, Any], np.ndarray]:  # fmt: skip
    """The contents of evaluation.json, and the confusion matrix of the first statistics.

    Args:
        fingerprint: of the images' content.
        notes: sentences on how it was scored.
        answers: logits (n,classes) and labels (n,) by the statistics that norms had.
    """
    config, kinds = run.config, list(answers)
    by_kind = {kind: _scores(*answer) for kind, answer in answers.items()}
    logits, labels = answers[kinds[0]]
    classes = range(len(run.classes))
    confusion = confusion_matrix(labels, logits.argmax(1), labels=classes)
    right, shown = confusion.diagonal(), confusion.sum(1)
    recalls, precisions = ratios(right, shown), ratios(right, confusion.sum(0))
    record = {
        "schema_version": SCHEMA_VERSION,
        "run_id": run.run_id,
        "model": config.model.name,
        "norm": config.norm.name,
        "batch_size": config.batch_size,
        "seed": config.seed,
        "epoch": run.epoch,
        "data": data.name.value,
        "root": None if data.name.value == "synthetic" else data.root,
        "data_fingerprint": fingerprint,
        "images": len(labels),
        "bn_stats": kinds[0],
        **by_kind[kinds[0]],
        "by_bn_stats": by_kind,
        "by_class": [
            {"class": name, "images": int(shown[i]), "accuracy": recalls[i],
             "precision": precisions[i]}
            for i, name in enumerate(run.classes)
        ],
        "calibration": _bins(logits, labels).to_dict("records"),
        "evaluate_batch_size": config.evaluate.batch_size,
        "precision": config.precision.value,
        "device": run.device.type,
        "notes": notes,
    }  # fmt: skip
    return record, confusion


def _scores(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(1)) - shifted[np.arange(len(labels)), labels]
    return {
        "accuracy": float((logits.argmax(1) == labels).mean()),
        "loss": float(losses.mean()),
        "ece": expected_calibration_error(_bins(logits, labels)),
    }


def _bins(logits: np.ndarray, labels: np.ndarray) -> pd.DataFrame:
    shifted = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    return calibration(shifted / shifted.sum(1, keepdims=True), labels)


def write(folder: Path, record: dict[str, Any], confusion: np.ndarray) -> None:
    """Write evaluation.json, confusion.csv and confusion.png.

    Raises:
        UserError: they cannot be written.
    """
    names = [each["class"] for each in record["by_class"]]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    cells = list(map(csv_cell, names))
    writer.writerow(["shown \\ taken for", *cells])
    writer.writerows([name, *row] for name, row in zip(cells, confusion.tolist(), strict=True))
    with replacing(folder / "confusion.csv", FIX) as file:
        file.write(text.getvalue().encode())
    save(_picture(names, confusion), folder / "confusion.png", FIX)
    with replacing(folder / "evaluation.json", FIX) as file:
        file.write(f"{to_json(record)}\n".encode())


def _picture(names: list[str], confusion: np.ndarray) -> Figure:
    """Counts, shaded by their share of what is shown."""
    count = len(names)
    side = min(12.0, 2.5 + 0.42 * count)
    figure = Figure(figsize=(side, side), layout="constrained")
    shares = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    size = 8 if count <= MOST_CLASSES else max(2.0, 480 / max(count, 60))
    named = list(map(printable, names))
    with letters_of(named) as written:
        labels = [written(name, f"class {place}") for place, name in enumerate(named, start=1)]
        rest = "" if labels == named else "\n(class 1: row 1 of confusion.csv)"
        axes = figure.add_subplot()
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        axes.set_xlabel(f"taken for{rest}")
        axes.set_ylabel("shown")
        axes.set_xticks(range(count), labels, rotation=90, fontsize=size, parse_math=False)
        axes.set_yticks(range(count), labels, fontsize=size, parse_math=False)
    if count <= MOST_CLASSES:
        for (row, column), number in np.ndenumerate(confusion):
            shade = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, str(number), ha="center", va="center", color=shade, fontsize=7)
    return figure


def lines(record: dict[str, Any], first: bool) -> list[str]:
    """A line for each of the statistics; a heading before the first run."""
    rows = [HEAD] if first else []
    for kind, scores in record["by_bn_stats"].items():
        rows.append(
            (
                *(_percent(scores["accuracy"]), _number(scores["loss"]), _percent(scores["ece"])),
                *(f"{record['images']:,}", kind, record["run_id"]),
            )
        )
    return [_aligned(row, WIDTHS) for row in rows]


def by_class(record: dict[str, Any], confusion: np.ndarray) -> list[str]:
    """Accuracy of each class, of the worst where there are many, and what it was taken for."""
    others = confusion.copy()
    np.fill_diagonal(others, 0)
    classes = [(each["accuracy"], i) for i, each in enumerate(record["by_class"])]
    chosen = [(accuracy, i) for accuracy, i in classes if accuracy is not None]
    heading = "most often taken for"
    if len(chosen) > MOST_CLASSES:
        heading += f" (the {MOST_CLASSES} worst of {len(chosen)} classes)"
        chosen = sorted(chosen)[:MOST_CLASSES]
    names = [printable(each["class"]) for each in record["by_class"]]
    width = max(len(names[i]) for _, i in chosen)
    widths = (-max(width, 5), 6, 8, -1)
    found = [_aligned(("class", "images", "accuracy", heading), widths)]
    for accuracy, i in chosen:
        each, worst = record["by_class"][i], int(others[i].argmax())
        count = int(others[i, worst])
        other = f"{names[worst]} ({count})" if count else "-"
        row = (names[i], f"{each['images']:,}", _percent(accuracy), other)
        found.append(_aligned(row, widths))
    return found


def _aligned(row: tuple[str, ...], widths: tuple[int, ...]) -> str:
    parts = [
        text.rjust(width) if width > 0 else text.ljust(-width)
        for text, width in zip(row, widths, strict=True)
    ]
    return "  ".join(parts).rstrip()


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f} %"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
