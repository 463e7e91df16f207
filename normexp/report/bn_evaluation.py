"""How much of a norm's test accuracy depends on the statistics it is evaluated with."""

import pandas as pd

from normexp.norms.bn_stats import KINDS
from normexp.report.read import NESTED
from normexp.report.tables import Table, keys, points, spread, within
from normexp.report.verdicts import Judge, compare
from normexp.report.words import MOST

HEADING = "Accuracy by the statistics of evaluation"

NOTE = (
    "The same networks, tested with other statistics in place of the running averages: “precise” "
    "are those of training images, computed anew after training, “batch” those of each batch of "
    "test images. A difference is the mean over runs with its 95 % t interval: what is gained so "
    "was lost in evaluation, not in training."
)

NAMES = {"precise": "Precise-BN's statistics", "batch": "the statistics of each test batch"}


def gains(judge: Judge) -> dict[str, pd.DataFrame]:
    """By kind, for each cell whose runs were tested with it beside running averages, what
    :func:`normexp.report.verdicts.compare` says of the two; all kinds are one table each."""
    runs = judge.sweep.runs
    before, found = NESTED["test_acc_by_bn_stats"], {}
    for kind in KINDS[1:]:
        if before + kind not in runs or before + KINDS[0] not in runs:
            continue
        both = runs[(runs["status"] == "completed") & runs[before + kind].notna()]
        wide = both.pivot(index="seed", columns="cell", values=[before + kind, before + KINDS[0]])
        wide = wide.astype(float).dropna(axis="columns", how="all")
        cells = sorted(both["cell"][both[before + KINDS[0]].notna()].unique())
        pairs = [((before + kind, cell), (before + KINDS[0], cell)) for cell in cells]
        if pairs:
            lost = pd.Series(0.0, index=wide.columns)
            compared = compare(wide, pairs, lost, judge.margin, judge.level)
            found[kind] = compared.set_index(pd.Index(cells))
    return found


def table(judge: Judge, found: dict[str, pd.DataFrame]) -> Table | None:
    """A row a cell whose runs were tested with more than one kind; None if there is none."""
    cells = sorted({cell for rows in found.values() for cell in rows.index})
    if not cells:
        return None
    rows, runs = judge.cells.loc[cells], judge.sweep.runs
    columns = keys(judge.sweep, rows)
    heads = len(columns)
    done = runs[runs["status"] == "completed"].groupby("cell")
    for kind in KINDS:
        if (name := NESTED["test_acc_by_bn_stats"] + kind) in runs:
            mean, std = done[name].mean(), done[name].std()
            columns[f"{kind} %"] = [spread(mean[cell], std[cell]) for cell in cells]
    for kind, gained in found.items():
        columns[f"{kind} - running"] = [
            within(*gained.loc[cell, ["difference", "low", "high"]])
            if cell in gained.index
            else "–"
            for cell in cells
        ]
    columns["n"] = [str(count) for count in rows["n"]]
    return Table(pd.DataFrame(columns), heads, HEADING, ("n", *(f"{kind} %" for kind in KINDS)))


def sentences(judge: Judge, found: dict[str, pd.DataFrame]) -> list[str]:
    """What other statistics in evaluation change, where the runs decide it."""
    lines = []
    for kind, rows in found.items():
        clear = rows[rows["verdict"].isin(["better", "worse"])]
        clear = clear.sort_values("difference", key=abs, ascending=False)
        parts: list[str] = []
        for cell, gain in clear["difference"].iloc[:MOST].items():
            row = judge.cells.loc[cell]
            where = f" at {row['condition']}" if row["condition"] else ""
            unit = "" if parts else " points"
            parts.append(f"{points(gain)}{unit} for {row['variant']}{where}")
        rest = f"; {len(clear) - MOST} more in the table" if len(clear) > MOST else ""
        change = f"changes by {', '.join(parts)}{rest}" if parts else "does not clearly change"
        if (rows["verdict"] != "too few seeds").any():
            lines.append(f"With {NAMES[kind]} instead of running averages accuracy {change}.")
    return lines
