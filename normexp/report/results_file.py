"""Other people's results: a CSV with a row a run, from any program."""

import csv
import io
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from normexp.report.read import RENAMED, UNFINISHED, Runs, table_of
from normexp.runs.records import FINAL, NUMBERS
from normexp.system.errors import UserError
from normexp.system.foreign_files import TABLE, read_bytes
from normexp.system.printable import printable

MEASURES = ("test_acc", "test_accuracy", "accuracy", "acc", "val_acc")
"""Columns of which the first that is there is compared, if none is named."""

KEYS = {
    "norm": "norm.name", "model": "model.name", "data": "data.name", "optimizer": "optimizer.name",
    "lr": "optimizer.lr",
}  # fmt: skip
"""What settings of normexp are called in other programs' files."""

STATUS = (*FINAL, "failed", "interrupted", UNFINISHED)
NOT_COMPARED = ("seed", "status", "folder")
"""Columns that are neither a condition nor an accuracy."""

MOST_NAMED = 6
"""Faulty lines that a message names."""


def read_file(path: Path, measure: str | None = None, conditions: Sequence[str] = ()) -> Runs:
    """The runs of a CSV with the columns ``norm``, ``seed``, an accuracy, and conditions.

    A row without an accuracy is a run that diverged, unless a column ``status`` says otherwise.

    Args:
        measure: the column that is compared, in fractions or percent.
        conditions: the columns that are conditions; all others if there are none.

    Raises:
        UserError: a column is missing, or a line has no seed, text in a number's place, or the
            settings and the seed of another.
    """
    header, lines = _lines(path)
    columns = {name: [row[place].strip() for _, row in lines] for place, name in enumerate(header)}
    numbers = [number for number, _ in lines]
    measure = measure or next((name for name in MEASURES if name in columns), "an accuracy")
    for name in ("norm", "seed", measure, *conditions):
        if name not in columns:
            raise UserError(
                f"{path}: no column {name}; there are {', '.join(header)}"
                + ("; name it by --measure" if name == measure else "")
            )
    _refuse_not_compared(measure, conditions)
    faults: list[str] = []

    def parsed(name: str, read: Callable[[str], Any], what: str) -> list[Any]:
        values = []
        for number, word in zip(numbers, columns[name], strict=True):
            try:
                values.append(read(word))
            except ValueError:
                said = f"{name} is {word!r}, {what}" if word else f"{name} is missing"
                faults.append(f"line {number}: {said}")
                values.append(None)
        return values

    parsed("norm", _word, "no name")
    seeds = parsed("seed", _whole, "no whole number")
    accuracy = parsed(measure, _accuracy, "no accuracy")
    status = [word.lower() for word in columns.get("status", [])]
    if status:
        parsed("status", _status, "none of " + ", ".join(STATUS))
    for name in header:
        if name in NUMBERS and name != measure:
            parsed(name, _number, "no number")
    _refuse(path, faults)
    if max((value for value in accuracy if value is not None), default=0) > 1:
        accuracy = [None if value is None else value / 100 for value in accuracy]
    own = "run_id" in columns and "status" in columns
    settings = list(conditions)
    if own:  # normexp's own runs.csv, which begins with what was swept
        settings += [*header[1 : header.index("status")], "model", "data", "batch_size"]
    elif not conditions:
        settings += [name for name in header if name not in ("seed", measure, "status", "folder")]
    settings = list(dict.fromkeys(["norm", *settings]))
    kept = {KEYS.get(name, name): _values(columns[name]) for name in settings if name in columns}
    met = ["diverged" if value is None else "completed" for value in accuracy]
    status = [said or known for said, known in zip(status, met, strict=True)] if status else met
    for number, said, value in zip(numbers, status, accuracy, strict=True):
        if said == "completed" and value is None:
            faults.append(f"line {number}: completed, and {measure} is missing")
    _refuse(path, faults)
    # Of normexp's own the fields of results too: what was trained, and how well on validation.
    more = {RENAMED.get(name, name): _values(columns[name]) for name in header if own}
    rows = [
        {name: values[place] for name, values in {**more, **kept}.items()}
        | {"seed": seeds[place], "status": status[place], measure: accuracy[place]}
        | {"folder": f"line {number}"}
        for place, number in enumerate(numbers)
    ]
    if not own:
        if not conditions:
            _refuse_measurements(path, kept)
        _refuse(path, list(_doubles(rows, list(kept))))
    return Runs(path, table_of(rows), list(kept), measure)


def _lines(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The header, and each row with its line, counted from 1."""
    try:
        text = read_bytes(path, TABLE).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: no text in UTF-8; save it as CSV in UTF-8") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    first = text.partition("\n")[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=first.count))
    try:
        read = [(reader.line_num, row) for row in reader if any(map(str.strip, row))]
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: {error}") from error
    rows = [(number, [printable(word) for word in row]) for number, row in read]
    if len(rows) < 2:
        raise UserError(f"{path}: no rows; it takes a header and a row a run")
    header = [name.strip() for name in rows[0][1]]
    if len(set(header)) < len(header):
        raise UserError(f"{path}: a column is there twice: {', '.join(header)}")
    _refuse(path, [
        f"line {number}: {len(row)} fields, and the header has {len(header)}"
        for number, row in rows if len(row) != len(header)
    ])  # fmt: skip
    return header, rows[1:]


def _refuse(path: Path, faults: Sequence[str]) -> None:
    if faults:
        rest = f"; and {len(faults) - MOST_NAMED} more" if len(faults) > MOST_NAMED else ""
        raise UserError(f"{path}: {'; '.join(faults[:MOST_NAMED])}{rest}")


def _refuse_not_compared(measure: str, conditions: Sequence[str]) -> None:
    for option, names in (("--measure", [measure]), ("--conditions", conditions)):
        for name in names:
            if name in NOT_COMPARED or (option == "--measure" and name == "norm"):
                raise UserError(
                    f"{option} {name}: has a meaning of its own; name "
                    + ("an accuracy" if option == "--measure" else "what was chosen of the runs")
                )
    if measure in conditions:
        raise UserError(f"--conditions {measure}: is the measure; leave it out")


def _status(word: str) -> None:
    if word and word.lower() not in STATUS:
        raise ValueError


def _number(word: str) -> None:
    if word and math.isinf(float(word)):
        raise ValueError


def _word(text: str) -> str:
    if not text:
        raise ValueError("nothing")
    return text


def _whole(word: str) -> int:
    """As other programs write it, with a point maybe."""
    value = float(word)
    if value % 1 != 0:
        raise ValueError
    return int(value)


def _accuracy(word: str) -> float | None:
    """In fractions or percent; None where there is none."""
    value = float(word.removesuffix("%") or "nan")
    if math.isnan(value):
        return None
    if not 0 <= value <= 100:
        raise ValueError
    return value


def _values(words: Sequence[str]) -> list[Any]:
    """Whole numbers, numbers, or else texts; None where a field is empty."""
    for read in (int, float):
        try:
            return [read(word) if word else None for word in words]
        except ValueError:
            pass
    return [word or None for word in words]


def _refuse_measurements(path: Path, kept: dict[str, list[Any]]) -> None:
    """Raise a UserError for a column that would make a cell of nearly every row."""
    for name, values in kept.items():
        fractions = any(isinstance(value, float) and value % 1 for value in values)
        if fractions and len(values) > 3 and len(set(values)) > len(values) / 2:
            raise UserError(
                f"{path}: column {name} has another value in most rows, so it is no condition that "
                "was chosen; name those by --conditions, such as --conditions batch_size,lr"
            )


def _doubles(rows: Sequence[dict[str, Any]], keys: Sequence[str]) -> Iterator[str]:
    first: dict[tuple[Any, ...], str] = {}
    for row in rows:
        cell = (*(row[key] for key in keys), row["seed"])
        if first.setdefault(cell, row["folder"]) != row["folder"]:
            yield f"{row['folder']}: the settings and the seed of {first[cell]}"
