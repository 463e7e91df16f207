"""Run directories as the report sees them: complete, under way, failed, or not readable."""

import csv
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from normexp.foreign_files import TABLE, read_text
from normexp.printable import printable
from normexp.recorded_config import NotReadable, read_config
from normexp.run_directory import run_directories
from normexp.run_records import FINAL, read_metrics, read_result

UNFINISHED = "unfinished"
"""The status of a run that has left no result: under way, or killed."""


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
        The runs, and one line for each run directory or diagnostics that cannot be read.
    """
    runs, unreadable = [], []
    for path in sorted(run_directories(root)):
        try:
            runs.append(_read(path, root))
        except (NotReadable, OSError) as error:
            unreadable.append(printable(f"{path}: {_reason(error)}; skipped"))
            continue
        try:
            runs[-1].diagnostics.update(_diagnostics(path / "diagnostics.csv"))
        except (NotReadable, OSError) as error:
            unreadable.append(printable(f"{path}: {_reason(error)}; its diagnostics are left out"))
    return runs, unreadable


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{Path(error.filename).name}: {error.strerror}"
    return str(error)


def _read(path: Path, root: Path) -> Run:
    result = _result(path / "result.json")
    return Run(
        folder=printable(path.relative_to(root).as_posix()),
        config=_config(path / "config.yaml", result),
        status=result.get("status", UNFINISHED),
        reason=result.get("reason"),
        result=result,
        metrics=read_metrics(path / "metrics.csv", result),
    )


def _result(path: Path) -> dict[str, Any]:
    return read_result(path, path.parent.name) if path.exists() else {}


def _config(path: Path, result: dict[str, Any]) -> dict[str, Any]:
    # A run that was refused before its first step may have left a result only.
    if result.get("status") not in FINAL and not path.exists():
        return {}
    return read_config(path, result)


def _diagnostics(path: Path) -> dict[tuple[int, str, str], float]:
    if not path.exists():
        return {}
    try:
        return {
            (int(row["epoch"]), printable(row["layer"]), row["quantity"]): float(row["value"])
            for row in csv.DictReader(io.StringIO(read_text(path, TABLE)))
        }
    except (KeyError, ValueError, TypeError, csv.Error) as error:
        raise NotReadable(f"{path.name} is no table of diagnostics ({error})") from error
