"""How often somebody has looked at the same comparisons, with more seeds each time."""

import contextlib
import json
from pathlib import Path

import pandas as pd

from normexp.report.thresholds import LEAST_SEEDS
from normexp.report.verdicts import compared
from normexp.system.foreign_files import read_json

FILE = "looks.json"
"""In the folder of the report: a table a look, of the comparisons and how many seeds they had."""

Look = dict[str, int]


def looks(folder: Path, rows: pd.DataFrame, reference: str | None) -> list[Look]:
    """The looks so far, this one included: the same runs again are no look of their own."""
    now = {
        f"{row.variant} against {reference} {row.condition}".strip(): int(row.pairs)
        for row in compared(rows).itertuples() if row.pairs >= LEAST_SEEDS
    }  # fmt: skip
    before = _before(folder / FILE)
    if not now:
        return before
    if before and not any(now.get(name, 0) > n for name, n in before[-1].items()):
        return [*before[:-1], now | before[-1]]
    return [*before, now]


def _before(path: Path) -> list[Look]:
    with contextlib.suppress(OSError, ValueError, OverflowError, AttributeError, TypeError):
        return [{str(name): int(n) for name, n in look.items()} for look in read_json(path)]
    return []


def written(known: list[Look]) -> bytes:
    return (json.dumps(known, indent=1, ensure_ascii=False) + "\n").encode()
