"""Runs as one table: run directories, complete, under way or failed, read into a DataFrame."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import pandas as pd

from normexp.config.schema import OUTSIDE_IDENTITY, READ_BY, Config, NormConfig, to_dict
from normexp.norms import rules
from normexp.norms.catalogue import CATALOGUE
from normexp.runs.directory import run_directories
from normexp.runs.recorded_config import NotReadable, flat, read_config
from normexp.runs.records import FINAL, NUMBERS, RESULT, read_metrics, read_result
from normexp.system.errors import UserError
from normexp.system.foreign_files import TABLE, read_text
from normexp.system.printable import printable

UNFINISHED = "unfinished"
"""The status of a run that has left no result: under way, or killed."""

OF_THE_NORM = {"evaluate.bn_stats": "norm.name", "evaluate.precise_samples": "evaluate.bn_stats"}
"""Keys of other groups that only some norms read, each with the key that decides whether."""

RENAMED = {"epochs": "epochs_trained"}
"""Fields of a result that are named otherwise in the table, where a setting has their name."""

NESTED = {"versions": "version_", "test_acc_by_bn_stats": "test_acc_"}
"""Fields of a result that are tables: each of their entries is a column with this before it."""


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
            epochs = read_metrics(path / "metrics.csv", result)
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
    whole = {key, key.partition(".")[0]}
    return key != "seed" and whole.isdisjoint(OUTSIDE_IDENTITY)


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
    if entry and not entry.averages:
        kept |= dict.fromkeys(OF_THE_NORM)
    elif "precise" not in config["evaluate.bn_stats"]:
        kept["evaluate.precise_samples"] = None
    for key, (choice, readers_of) in READ_BY.items():
        if str(config.get(choice)) not in readers_of:
            kept[key] = None
    return kept


def _result(path: Path) -> dict[str, Any]:
    return read_result(path, path.parent.name) if path.exists() else {}


def _config(path: Path, result: dict[str, Any]) -> dict[str, Any]:
    # A run that was refused before its first step may have left a result only.
    if result.get("status") not in FINAL and not path.exists():
        return {}
    return read_config(path, result)


KEYS = flat(to_dict(Config()))


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
