"""result.json and metrics.csv of a run, read and checked, by train and report alike."""

import csv
from pathlib import Path
from typing import Any

from normexp.runs.recorded_config import NotReadable, fit_for_use, is_number
from normexp.system.foreign_files import TABLE, read_json, read_text
from normexp.system.printable import printable

SCHEMA_VERSION = 1

METRICS = (
    *("epoch", "step", "samples_seen", "lr", "train_loss", "train_acc", "val_loss", "val_acc"),
    *("grad_norm", "seconds", "images_per_second"),
)

RESULT = (
    *("schema_version", "status", "reason", "run_id", "name", "model", "norm", "batch_size"),
    *("seed", "data", "epochs", "steps", "samples_seen", "train_loss", "train_acc", "val_loss"),
    *("val_acc", "test_loss", "test_acc", "tested_epoch", "parameters", "lr", "seconds"),
    *("train_seconds", "ms_per_step", "images_per_second", "peak_memory_mb", "device", "threads"),
    *("precision", "versions", "git", "fused", "test_acc_by_bn_stats"),
    *("data_fingerprint", "norm_source", "ranks", "cpu_share", "model_source"),
)

RESULT_ADDED_SINCE: dict[str, Any] = {
    "fused": 1,
    "test_acc_by_bn_stats": None,
    "data_fingerprint": "",
    "norm_source": "",
    "ranks": 1,
    "cpu_share": None,
    "model_source": "",
}
"""Fields that the first runs did not write, with what they would have written; the hashes of those
runs are not known any more."""

NUMBERS = (
    *("test_acc", "val_acc", "train_loss", "ms_per_step", "images_per_second", "train_seconds"),
    *("peak_memory_mb", "parameters", "fused", "cpu_share"),
)
"""Fields of a result that are computed with; each may be missing."""

TEXTS = (
    *("status", "reason", "run_id", "name", "model", "norm", "data", "device", "precision", "git"),
    *("data_fingerprint", "norm_source", "model_source"),
)
TABLES = ("versions", "test_acc_by_bn_stats")
"""Fields of a result that hold no number; each may be missing."""

FINAL = ("completed", "diverged")
"""How a run has ended whose question is answered."""


def whole_result(found: Any) -> dict[str, Any]:
    """What result.json holds, with the fields that came later.

    Raises:
        ValueError: it is no result.
    """
    if not isinstance(found, dict):
        raise ValueError("is no result")
    whole = RESULT_ADDED_SINCE | found
    if missing := set(RESULT) - whole.keys():
        raise ValueError(f"lacks fields of a result: {', '.join(sorted(missing))}")
    if whole["schema_version"] != SCHEMA_VERSION:
        raise ValueError(f"has schema version {whole['schema_version']}")
    for name in RESULT:
        if whole[name] is not None and not _fits(name, whole[name]):
            raise ValueError(f"has a {name} that is no {_kind(name)}")
    by_kind = whole["test_acc_by_bn_stats"] or {}
    known = [whole[name] for name in ("test_acc", "val_acc") if whole[name] is not None]
    if not all(is_number(value) and 0 <= value <= 1 for value in [*known, *by_kind.values()]):
        raise ValueError("has an accuracy that is not within 0 and 1")
    if not isinstance(whole["status"], str):
        raise ValueError("has no status")
    if whole["status"] == "completed" and whole["test_acc"] is None:
        raise ValueError("is completed without a test accuracy")
    return whole


def _kind(name: str) -> str:
    return "text" if name in TEXTS else "table" if name in TABLES else "number"


def _fits(name: str, value: Any) -> bool:
    """Whether a field of a result holds what runs write there."""
    if name in TABLES:
        return isinstance(value, dict) and not any(
            isinstance(each, list | dict) for each in value.values()
        )
    return isinstance(value, str) if name in TEXTS else is_number(value)


def read_result(path: Path, run_id: str) -> dict[str, Any]:
    """The contents of the result.json of a run.

    Raises:
        NotReadable: it is damaged, or that of another run.
        OSError: as the disk does.
    """
    try:
        found = fit_for_use(read_json(path))
    except ValueError as error:
        raise NotReadable(f"{path.name} is no JSON ({error})") from error
    try:
        found = whole_result(found)
    except ValueError as error:
        raise NotReadable(f"{path.name} {error}") from error
    if found["run_id"] != printable(run_id):
        raise NotReadable(f"{path.name} is of another run, {found['run_id']}")
    return found


def read_metrics(path: Path, result: dict[str, Any]) -> list[dict[str, float | None]]:
    """The rows of the metrics.csv of a run; none while there is none.

    Args:
        result: the contents of the run's result.json, empty while there is none.

    Raises:
        NotReadable: it is damaged, or lacks epochs of a run that has ended.
        OSError: as the disk does.
    """
    rows = []
    if path.exists():
        try:
            text = read_text(path, TABLE)
            if not text.endswith("\n"):
                raise ValueError("its last line is not whole")
            table = csv.DictReader(text.splitlines())
            for row in table:
                if None in row or None in row.values():
                    raise ValueError(f"line {table.line_num} is not whole")
                rows.append({key: float(cell) if cell else None for key, cell in row.items()})
        except (ValueError, TypeError, csv.Error) as error:
            raise NotReadable(f"{path.name} is no table of numbers ({error})") from error
        if missing := set(METRICS) - set(table.fieldnames or ()):
            raise NotReadable(f"{path.name} lacks columns: {', '.join(sorted(missing))}")
    epochs = result.get("epochs") if result.get("status") in FINAL else None
    if epochs is not None and epochs != len(rows):
        raise NotReadable(f"{path.name} has {len(rows)} of {epochs} epochs")
    return rows
