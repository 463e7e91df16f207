"""Run directories as the report sees them: complete, under way, failed, or not readable."""

import csv
import io
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from normexp.config import Config, Measure, to_dict
from normexp.foreign_files import RECORD, TABLE, read_json, read_text
from normexp.printable import printable
from normexp.run_directory import FINAL, SCHEMA_VERSION, run_directories, whole_result

# The C parser is ten times as fast; not every build of PyYAML has it.
Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

NUMBERS = (
    *("test_acc", "val_acc", "train_loss", "ms_per_step", "images_per_second", "train_seconds"),
    *("peak_memory_mb", "parameters", "fused", "cpu_share"),
)
"""Fields of a result that are computed with; each may be missing."""

NEEDED: dict[str, type] = {"norm.name": str, "model.name": str, "batch_size": int, "seed": int}
"""Keys of a configuration without which there is no cell."""

UNFINISHED = "unfinished"
"""The status of a run that has left no result: under way, or killed."""

MOST_NESTED = 20
"""Levels of lists and tables in a file; runs write four."""


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
    for path in sorted(run_directories(root)):
        try:
            runs.append(_read(path, root))
        except (NotReadable, OSError) as error:
            file = Path(error.filename).name if isinstance(error, OSError) else ""
            reason = f"{file}: {error.strerror}" if isinstance(error, OSError) else error
            unreadable.append(printable(f"{path}: {reason}; skipped"))
    return runs, unreadable


def _read(path: Path, root: Path) -> Run:
    result = _result(path / "result.json")
    return Run(
        folder=printable(path.relative_to(root).as_posix()),
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
        found = _fit_for_use(read_json(path))
    except ValueError as error:
        raise NotReadable(f"{path.name} is no JSON ({error})") from error
    try:
        found = whole_result(found)
    except ValueError as error:
        raise NotReadable(f"{path.name} {error}") from error
    if found["schema_version"] != SCHEMA_VERSION:
        raise NotReadable(f"{path.name} has schema version {found['schema_version']}")
    for name in NUMBERS:
        if not _is_number(found[name]) and found[name] is not None:
            raise NotReadable(f"{path.name}: {name} is no number")
    by_kind = found["test_acc_by_bn_stats"] or {}
    if not isinstance(by_kind, dict):
        raise NotReadable(f"{path.name}: test_acc_by_bn_stats is no table")
    known = [found[name] for name in ("test_acc", "val_acc") if found[name] is not None]
    if not all(_is_number(value) and 0 <= value <= 1 for value in [*known, *by_kind.values()]):
        raise NotReadable(f"{path.name}: an accuracy is not within 0 and 1")
    if not isinstance(found["status"], str) or not isinstance(found["reason"], str | None):
        raise NotReadable(f"{path.name}: status or reason is no text")
    for name in ("data_fingerprint", "norm_source"):
        if not isinstance(found.get(name), str | None):
            raise NotReadable(f"{path.name}: {name} is no text")
    if not isinstance(found.get("ranks"), int | None):
        raise NotReadable(f"{path.name}: ranks is no number")
    if not isinstance(found["versions"], dict | None):
        raise NotReadable(f"{path.name}: versions is no table")
    if found["status"] == "completed" and found["test_acc"] is None:
        raise NotReadable(f"{path.name}: completed without a test accuracy")
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) <= sys.float_info.max


def _fit_for_use(value: Any, depth: int = 0) -> Any:
    """What a file holds, its texts printable: anyone may have written it.

    Raises:
        ValueError: it is nested too deeply, or a number is too large to be computed with.
    """
    if depth > MOST_NESTED:
        raise ValueError("nested too deeply")
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, list):
        return [_fit_for_use(each, depth + 1) for each in value]
    if isinstance(value, dict):
        return {_fit_for_use(key): _fit_for_use(each, depth + 1) for key, each in value.items()}
    if isinstance(value, int) and not _is_number(value):
        raise ValueError("a number is too large")
    return value


def _config(path: Path, result: dict[str, Any]) -> dict[str, Any]:
    if not path.exists():
        if result.get("status") in FINAL:
            raise NotReadable(f"{path.name} is not there, which says what was trained")
        # A run that was refused before its first step may have left a result only.
        return {}
    try:
        text = read_text(path, RECORD)
        # Runs write none; of lists of lists of the same list more would come than memory holds.
        if "*" in text and any(
            isinstance(one, yaml.AliasEvent) for one in yaml.parse(text, Loader)
        ):
            raise NotReadable(f"{path.name} has aliases, and no run writes them")
        found = _fit_for_use(yaml.load(text, Loader))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise NotReadable(f"{path.name} is no YAML ({' '.join(str(error).split())})") from error
    if not isinstance(found, dict):
        raise NotReadable(f"{path.name} is no configuration")
    given = flat(found)
    for key, kind in NEEDED.items():
        if not isinstance(given.get(key), kind):
            raise NotReadable(f"{path.name} has no {key}")
    for key, value in given.items():
        if not _fits(value, DEFAULTS.get(key)):
            raise NotReadable(f"{path.name}: {key} is {value!r}")
    if not all(map(_is_published, given.get("published") or [])):
        raise NotReadable(f"{path.name}: published is no list of figures")
    # An older configuration may lack a key: it had what is the default.
    return DEFAULTS | given


def _fits(value: Any, default: Any) -> bool:
    """Whether a value is of the kind that its default is of."""
    if isinstance(default, int | float) and not isinstance(default, bool):
        return isinstance(value, int | float | None)
    return default is None or value is None or isinstance(value, type(default))


def _is_published(figure: Any) -> bool:
    return (
        isinstance(figure, dict)
        and figure.get("what") in list(Measure)
        and _is_number(figure.get("value"))
        and isinstance(figure.get("where", {}), dict)
        and "source" in figure
    )


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
        return [
            {key: float(text) if text else None for key, text in row.items()}
            for row in csv.DictReader(io.StringIO(read_text(path, TABLE)))
        ]
    except (ValueError, TypeError, csv.Error) as error:
        raise NotReadable(f"{path.name} is no table of numbers ({error})") from error


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
