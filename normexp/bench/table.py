"""Rows as they come: printed, kept in a CSV whatever happens, and drawn at the end."""

import csv
import io
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from normexp import signals
from normexp.run_directory import refuse_unwritable, replacing

Row = dict[str, Any]


@dataclass(frozen=True)
class Column:
    """A column of the printed table."""

    heading: str
    width: int
    """In characters; negative to stand at the left."""
    text: Callable[[Row], str]


def keep(
    rows: Iterable[Row], path: Path, fields: Sequence[str], columns: Sequence[Column],
    draw: Callable[[list[Row], Path], None] | None,
) -> None:  # fmt: skip
    """Print rows as they come, and write those that came to ``path``, also if the rest do not.

    Args:
        rows: measured only when asked for.
        fields: of the CSV; a row that has no such field leaves it empty.
        draw: makes the picture beside the CSV; None for none.

    Raises:
        UserError: the file cannot be written, said before anything is measured.
        SystemExit: a person stopped it.
    """
    for file in (path, path.with_suffix(".png")) if draw is not None else (path,):
        refuse_unwritable(file, "--csv")
    done: list[Row] = []
    interrupted = False
    print(_line(columns, [column.heading for column in columns]))
    try:
        for row in rows:
            print(_line(columns, [column.text(row) for column in columns]), flush=True)
            done.append(row)
            _write(done, path, fields)
    except KeyboardInterrupt:
        interrupted = True
        kept = "the rows above are kept" if done else "no row was complete"
        print(f"normexp: interrupted; {kept}", file=sys.stderr)
    finally:
        if done:
            written = str(path)
            if draw is not None:
                picture = path.with_suffix(".png")
                draw(done, picture)
                written += f" and {picture}"
            print(f"written to {written}")
    if interrupted:
        sys.exit(signals.status())


def _line(columns: Sequence[Column], texts: Sequence[str]) -> str:
    parts = [
        text.rjust(column.width) if column.width > 0 else text.ljust(-column.width)
        for column, text in zip(columns, texts, strict=True)
    ]
    return "  ".join(parts).rstrip()


def _write(rows: list[Row], path: Path, fields: Sequence[str]) -> None:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fields)
    writer.writeheader()
    writer.writerows(rows)
    with replacing(path, "choose another --csv", follow=True) as file:
        file.write(text.getvalue().encode())


def number(row: Row, name: str, form: str = ".3f", scale: float = 1.0) -> str:
    value = row.get(name)
    return "-" if value is None else format(scale * value, form)


def with_range(row: Row, name: str, form: str = ".2f", scale: float = 1.0) -> str:
    """A median with its smallest and largest value: 1.02 (0.84..1.28)."""
    if row.get(name) is None:
        return "-"
    middle, low, high = (number(row, name + end, form, scale) for end in ("", "_min", "_max"))
    return f"{middle} ({low}..{high})"
