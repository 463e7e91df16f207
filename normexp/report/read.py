"""Run directories as the report sees them: complete, under way, failed, or not readable."""

import csv
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from normexp.config import Config, to_dict
from normexp.run_directory import RESULT, RESULT_ADDED, SCHEMA_VERSION

# The C parser is ten times as fast; not every build of PyYAML has it.
Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

UNFINISHED = "unfinished"
"""The status of a run that has left no result: under way, or killed."""

NOT_RUNS = {"report", "checkpoints", ".sweeps"}


class NotReadable(Exception):
    """A run directory holds something else than a run would write; the message says what."""


@dataclass(frozen=True)
class Run:
    """One run directory."""

    folder: str
    """Below the directory that is reported on, with slashes."""
    config: dict[str, Any]
    """By dotted key; lists are whole values. Empty if the run left no config.yaml."""
    status: str
    reason: str | None
    result: dict[str, Any]
    metrics: list[dict[str, float | None]] = field(default_factory=list)
    """A row an epoch."""
    diagnostics: dict[tuple[int, str, str], float] = field(default_factory=dict)
    """By epoch (0 is before training), layer (empty for the network) and quantity."""

    @property
    def seed(self) -> int:
        return int(self.config["seed"])

    @property
    def accuracy(self) -> float | None:
        """On the test images, 0..1; None unless the run is completed."""
        found = self.result.get("test_acc") if self.status == "completed" else None
        return None if found is None else float(found)


def read_runs(root: Path) -> tuple[list[Run], list[str]]:
    """All runs below a directory, in the order of their paths.

    Returns:
        The runs, and one line for each run directory that cannot be read.
    """
    runs, unreadable = [], []
    for path in sorted(_run_directories(root)):
        try:
            runs.append(_read(path, root))
        except (NotReadable, OSError) as error:
            unreadable.append(f"{path}: {error}; skipped")
    return runs, unreadable


def _run_directories(root: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name not in NOT_RUNS]
        if "result.json" in files or "config.yaml" in files:
            yield Path(place)


def _read(path: Path, root: Path) -> Run:
    result = _result(path / "result.json")
    return Run(
        folder=path.relative_to(root).as_posix(),
        config=_config(path / "config.yaml", result),
        status=result.get("status", UNFINISHED),
        reason=result.get("reason"),
        result=result,
        metrics=_metrics(path / "metrics.csv"),
        diagnostics=_diagnostics(path / "diagnostics.csv"),
    )


def _result(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise NotReadable(f"{path.name} is no JSON ({error})") from error
    if isinstance(found, dict):
        found = RESULT_ADDED | found
    if not isinstance(found, dict) or not set(RESULT) <= found.keys():
        raise NotReadable(f"{path.name} lacks fields of a result")
    if found["schema_version"] != SCHEMA_VERSION:
        raise NotReadable(f"{path.name} has schema version {found['schema_version']}")
    numbers = ("test_acc", "val_acc", "train_loss", "ms_per_step", "peak_memory_mb", "parameters")
    for name in numbers:
        if not isinstance(found[name], int | float | None):
            raise NotReadable(f"{path.name}: {name} is no number")
    by_kind = found["test_acc_by_bn_stats"]
    if by_kind is not None and not (
        isinstance(by_kind, dict)
        and all(isinstance(value, int | float) for value in by_kind.values())
    ):
        raise NotReadable(f"{path.name}: test_acc_by_bn_stats is no table of numbers")
    if found["status"] == "completed" and found["test_acc"] is None:
        raise NotReadable(f"{path.name}: completed without a test accuracy")
    return found


def _config(path: Path, result: dict[str, Any]) -> dict[str, Any]:
    if not path.exists():
        # A run that was refused before its first step may have left a result only.
        return {}
    try:
        found = yaml.load(path.read_text(encoding="utf-8"), Loader)
    except (yaml.YAMLError, UnicodeError) as error:
        raise NotReadable(f"{path.name} is no YAML ({' '.join(str(error).split())})") from error
    if not isinstance(found, dict):
        raise NotReadable(f"{path.name} is no configuration")
    given = flat(found)
    for key in ("norm.name", "model.name", "batch_size", "seed"):
        if key not in given:
            raise NotReadable(f"{path.name} has no {key}")
    # An older configuration may lack a key: it had what is the default.
    return DEFAULTS | given


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested configuration by dotted key."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


DEFAULTS = {key: value for key, value in flat(to_dict(Config())).items() if value != "???"}


def _metrics(path: Path) -> list[dict[str, float | None]]:
    if not path.exists():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [
                {key: float(text) if text else None for key, text in row.items()}
                for row in csv.DictReader(file)
            ]
    except (ValueError, TypeError, csv.Error) as error:
        raise NotReadable(f"{path.name} is no table of numbers ({error})") from error


def _diagnostics(path: Path) -> dict[tuple[int, str, str], float]:
    if not path.exists():
        return {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return {
                (int(row["epoch"]), row["layer"], row["quantity"]): float(row["value"])
                for row in csv.DictReader(file)
            }
    except (KeyError, ValueError, TypeError, csv.Error) as error:
        raise NotReadable(f"{path.name} is no table of diagnostics ({error})") from error
