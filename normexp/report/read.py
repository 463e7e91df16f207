"""Runs as one table: run directories, complete, under way or failed, read into a DataFrame."""

import csv
import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from normexp.config import OUTSIDE_IDENTITY, READ_BY, Config, Measure, NormConfig, to_dict
from normexp.errors import UserError
from normexp.foreign_files import RECORD, TABLE, read_json, read_text
from normexp.norms import rules
from normexp.norms.catalogue import CATALOGUE
from normexp.printable import printable
from normexp.run_directory import (
    FINAL,
    RESULT,
    SCHEMA_VERSION,
    run_directories,
    whole_result,
)

# The C parser is ten times as fast; not every build of PyYAML has it.
Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

NUMBERS = (
    *("test_acc", "val_acc", "train_loss", "ms_per_step", "images_per_second", "train_seconds"),
    *("peak_memory_mb", "parameters", "fused", "cpu_share"),
)
"""Fields of a result that are computed with; each may be missing."""

NEEDED: dict[str, type] = {"norm.name": str, "model.name": str, "batch_size": int, "seed": int}
"""Keys of a configuration without which there is no cell."""

MOST_NESTED = 20
"""Levels of lists and tables in a file; runs write four."""

UNFINISHED = "unfinished"
"""The status of a run that has left no result: under way, or killed."""

OF_THE_NORM = {"evaluate.bn_stats": "norm.name", "evaluate.precise_samples": "evaluate.bn_stats"}
"""Keys of other groups that only some norms read, each with the key that decides whether."""

RENAMED = {"epochs": "epochs_trained"}
"""Fields of a result that are named otherwise in the table, where a setting has their name."""

NESTED = {"versions": "version_", "test_acc_by_bn_stats": "test_acc_"}
"""Fields of a result that are tables: each of their entries is a column with this before it."""


class NotReadable(Exception):
    """A run directory holds something else than a run would write; the message says what."""


@dataclass
class Runs:
    """Runs, wherever they come from."""

    source: Path
    """A directory, or a file with a row a run."""
    table: pd.DataFrame
    """A row a run, as :func:`normexp.read_runs` says."""
    settings: list[str]
    """The columns that may tell cells apart."""
    measure: str = "test_acc"
    """The column that is compared, 0..1."""
    curves: pd.DataFrame = field(default_factory=pd.DataFrame)
    """metrics.csv of all runs: a row for each run, by its folder, and epoch."""
    diagnostics: pd.DataFrame = field(default_factory=pd.DataFrame)
    """diagnostics.csv of all runs, likewise."""
    unreadable: list[str] = field(default_factory=list)
    """A line for each run directory that was skipped."""

    @property
    def title(self) -> str:
        """The name that all runs of a file have, or that of where they are."""
        names = set(self.table.get("name", ()))
        if not self.in_directories and len(names) == 1:
            return str(names.pop())
        return self.source.resolve().name.removesuffix(".csv")

    @property
    def in_directories(self) -> bool:
        """Whether each run has a directory, rather than a line of a file."""
        return self.source.is_dir()


def read_runs(root: Path) -> Runs:
    """All runs below a directory, in the order of their paths.

    Raises:
        UserError: there is no such directory, or no run in it that can be read.
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such directory or file; give one below outputs/, or a CSV")
    rows, curves, diagnostics, unreadable = [], [], [], []
    settings: dict[str, None] = {}
    for path in sorted(run_directories(root)):
        folder = {"folder": printable(path.relative_to(root).as_posix())}
        try:
            result = _result(path / "result.json")
            config = _config(path / "config.yaml", result)
            epochs = _metrics(path / "metrics.csv")
        except (NotReadable, OSError) as error:
            unreadable.append(f"{path}: {_reason(error)}; skipped")
            continue
        try:
            layers = _diagnostics(path / "diagnostics.csv")
        except (NotReadable, OSError) as error:
            unreadable.append(f"{path}: {_reason(error)}; its diagnostics are left out")
            layers = []
        settings |= dict.fromkeys(filter(_tells_apart, config))
        rows.append(folder | _row(config, result))
        curves += [folder | epoch for epoch in epochs]
        diagnostics += [folder | layer for layer in layers]
    if not settings:
        unread = f" that can be read ({unreadable[0]})" if unreadable else ""
        raise UserError(f"{root}: no runs{unread}; python -m normexp.train name=... makes some")
    return Runs(
        root, table_of(rows), [*settings], curves=pd.DataFrame(curves),
        diagnostics=pd.DataFrame(diagnostics), unreadable=unreadable,
    )  # fmt: skip


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{Path(error.filename).name}: {error.strerror}"
    return str(error)


def table_of(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """A table in which a whole number stays one beside a None, and measures are floats."""
    columns = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        values = [row.get(name) for row in rows]
        measured = name in NUMBERS or name.startswith(NESTED["test_acc_by_bn_stats"])
        columns[name] = pd.Series(values, dtype=float if measured else object)
        if None not in values:
            columns[name] = columns[name].infer_objects()
    return pd.DataFrame(columns)


def _tells_apart(key: str) -> bool:
    return key != "seed" and key not in OUTSIDE_IDENTITY and not key.startswith("log.")


def _row(config: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    """Settings by dotted key, None where nothing reads one, and the fields of the result."""
    fields = [RENAMED.get(name, name) for name in RESULT if name not in NESTED]
    row: dict[str, Any] = dict.fromkeys([*KEYS, *fields])
    if config:
        row |= what_was_read(config)
        row |= {group: config[f"{group}.name"] for group in ("model", "norm", "data")}
    for name, value in result.items():
        if name in NESTED:
            row |= {NESTED[name] + key: entry for key, entry in (value or {}).items()}
        elif value is not None:
            row[RENAMED.get(name, name)] = value
    row["fused"] = result.get("fused") or (1 if result else None)
    return row | {"status": result.get("status", UNFINISHED)}


def what_was_read(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration with None for each setting that its choices do not read."""
    # Values become parts of keys; lists could not.
    kept = {key: tuple(v) if isinstance(v, list) else v for key, v in config.items()}
    kept["published"] = config.get("published") or []
    entry = CATALOGUE.get(config["norm.name"])
    # One's own norms may read any setting.
    known = [item.name for item in fields(NormConfig)]
    read = (*rules.READ_BY_ALL, *entry.settings) if entry else known
    kept |= {f"norm.{name}": None for name in known if name not in read}
    if entry and not entry.train_differs:
        kept |= dict.fromkeys(OF_THE_NORM)
    elif "precise" not in config["evaluate.bn_stats"]:
        kept["evaluate.precise_samples"] = None
    for key, (choice, readers_of) in READ_BY.items():
        if str(config.get(choice)) not in readers_of:
            kept[key] = None
    return kept


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


KEYS = flat(to_dict(Config()))
DEFAULTS = {key: value for key, value in KEYS.items() if value != "???"}


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


def _diagnostics(path: Path) -> list[dict[str, Any]]:
    """By epoch (0 is before training), layer (empty for the network) and quantity."""
    if not path.exists():
        return []
    try:
        return [
            {"epoch": int(row["epoch"]), "layer": printable(row["layer"])}
            | {"quantity": row["quantity"], "value": float(row["value"])}
            for row in csv.DictReader(io.StringIO(read_text(path, TABLE)))
        ]
    except (KeyError, ValueError, TypeError, csv.Error) as error:
        raise NotReadable(f"{path.name} is no table of diagnostics ({error})") from error
