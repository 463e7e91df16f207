"""What tests of the report share."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
from fake_runs import write_run

from normexp.report.answer import Answer, answer
from normexp.report.read import read_runs

BN = [0.60, 0.61, 0.62, 0.60, 0.63, 0.61, 0.62, 0.60]
HIGHER = [0.65, 0.655, 0.68, 0.65, 0.67, 0.67, 0.66, 0.65]


def report(root: Path, name: str = "default", margin: float = 0.005, **reference: str) -> Answer:
    runs = read_runs(root / name)
    return answer(runs, root / name / "report", reference, margin)


def cells(found: Answer) -> dict[str, int]:
    """How many runs each cell has, by its label."""
    sweep = found.judge.sweep
    counts = sweep.runs["cell"].value_counts()
    return {
        f"{row['variant']} {row['condition']}".strip(): int(counts[cell])
        for cell, row in sweep.cells.iterrows()
    }


def by_variant(found: Answer) -> pd.DataFrame:
    return found.rows.set_index("variant")


def said(found: Answer) -> str:
    return " ".join([found.headline, *found.lines, *found.notes, found.method])


def write_with(output: Path, *overrides: str, seed: int = 0, **beside: Any) -> None:
    """A run that recorded what stands beside its configuration."""
    path = write_run(output, *overrides, seed=seed).path / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | beside))
