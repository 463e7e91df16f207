"""Runs and cells as CSV, in full precision, for other programs."""

import pandas as pd

from normexp.report.cells import text
from normexp.report.read import NESTED, RENAMED
from normexp.report.verdicts import Judge
from normexp.runs.records import RESULT
from normexp.system.printable import csv_cell


def runs_csv(judge: Judge) -> str:
    """A row a run: where it is, what was swept, and every field of its result."""
    counted, every = judge.sweep.runs, judge.runs.table
    rest = every[~every["folder"].isin(counted["folder"])]
    runs = pd.concat([counted, rest]).sort_values("folder").astype(object)
    factors = {
        key: [text(None if value is pd.NA or value != value else value) for value in runs[key]]
        for key in judge.sweep.factors
    }
    results = {
        name: runs[RENAMED.get(name, name)] for name in RESULT
        if name not in (*factors, *NESTED, "schema_version")
    }  # fmt: skip
    nested = {
        name: runs[name] for name in runs
        if name not in results and name.startswith(tuple(NESTED.values()))
    }  # fmt: skip
    return to_csv(pd.DataFrame({"folder": runs["folder"], **factors, **results, **nested}))


def summary_csv(judge: Judge, rows: pd.DataFrame, cost: pd.DataFrame) -> str:
    """A row a cell, in full precision; accuracies and differences as fractions."""
    factors = [*judge.sweep.conditions, *judge.sweep.compared, *judge.sweep.tuned]
    measured = (
        *("n", "diverged", "unanswered", "mean", "std", "mean_low", "mean_high", "val_acc"),
        *("pairs", "paired", "left_out", "difference", "low", "high", "p", "p_same", "verdict"),
    )
    words = {key: rows[key].map(text) for key in factors}
    return to_csv(pd.concat([pd.DataFrame(words), rows[[*measured]], cost], axis=1))


def to_csv(frame: pd.DataFrame) -> str:
    safe = frame.convert_dtypes().astype(object).map(csv_cell)
    return str(safe.to_csv(index=False, lineterminator="\n"))
