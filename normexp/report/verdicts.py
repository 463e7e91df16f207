"""Every cell beside its reference, and every norm at its best learning rate."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from normexp.report.cells import LR, Sweep, records
from normexp.report.read import Runs
from normexp.report.statistics import Pair, difference, half_width, holm, max_t
from normexp.report.thresholds import LEAST_SEEDS, LEVEL, MARGIN
from normexp.runs.records import FINAL

DECIDED = ("better", "worse", "same")


def compare(
    scores: pd.DataFrame, pairs: Sequence[Pair], lost: pd.Series,
    margin: float = MARGIN, level: float = LEVEL,
) -> pd.DataFrame:  # fmt: skip
    """Every comparison of a table with its verdict; by Welch's test where seeds are not paired.

    Args:
        scores: accuracy by seed (rows) and cell (columns), the better the higher; NaN where there
            is none.
        pairs: each cell and its reference.
        lost: by cell, the share of its runs that diverged.
        margin: differences within it count as none; in the unit of the scores.
        level: of all comparisons together, for the claims that cells differ; and again for the
            claims that they are the same. Who looks more often gives each look its share.

    Returns:
        A row a pair, in their order: what :func:`normexp.report.statistics.difference` gives; the
        95 % t interval ``low`` .. ``high``, each on its own; ``p``, step-down maxT over the table,
        and ``p_same``, two one-sided t tests with Holm over the table, NaN below six seeds;
        ``survivors``, that the higher mean is that of the cell of which more diverged; and
        ``verdict``: ``better``, ``worse``, ``same``, ``undecided`` or ``too few seeds``.
    """
    found = pd.DataFrame([difference(scores[cell], scores[other]) for cell, other in pairs])
    if found.empty:
        return found
    differences = pd.DataFrame({i: scores[one] - scores[b] for i, (one, b) in enumerate(pairs)})
    more = np.array([lost[cell] - lost[other] for cell, other in pairs])
    return _judged(found, differences, more, level, margin)


def _judged(
    found: pd.DataFrame, differences: pd.DataFrame, lost: Any, level: float, margin: float
) -> pd.DataFrame:
    """Comparisons with their intervals, p and verdicts."""
    mean, error, freedom = found["difference"], found["error"], found["freedom"]
    half = half_width(error, freedom)
    tested = (found["n"] >= LEAST_SEEDS).to_numpy()
    paired = found["paired"].to_numpy() & tested
    welch = tested & ~paired
    with np.errstate(divide="ignore", invalid="ignore"):
        single = 2 * stats.t.sf(abs(mean) / error, freedom)
        same = stats.t.sf((margin - abs(mean)) / error, freedom)
    matrix = differences.loc[:, paired].dropna(how="all").to_numpy(dtype=float)
    p, p_same = np.full((2, len(found)), np.nan)
    # Both families share the level by their sizes, so that it is that of the whole table.
    for chosen, adjusted in (
        (paired, max_t(matrix)),
        (welch, holm(np.nan_to_num(single[welch], nan=1.0))),
    ):
        if chosen.any():
            p[chosen] = np.minimum(1, adjusted * tested.sum() / chosen.sum())
    p_same[tested] = holm(np.nan_to_num(same[tested], nan=1.0))
    survivors = mean * lost > 0
    decided = tested & ~survivors & (p <= level)
    verdict = np.select(
        [~tested, decided & (mean > 0), decided, (lost == 0) & (p_same <= level)],
        ["too few seeds", "better", "worse", "same"],
        "undecided",
    )
    return found.assign(
        low=mean - half, high=mean + half, p=p, p_same=p_same, survivors=survivors, verdict=verdict
    )


@dataclass
class Judge:
    """The accuracies of a sweep, and how they are compared."""

    sweep: Sweep
    runs: Runs
    margin: float = MARGIN
    """Differences of accuracy within it count as none."""
    level: float = LEVEL
    """Of the whole table. Who looks more often than once gives each look its share."""

    def __post_init__(self) -> None:
        known = self.sweep.runs
        done = known[known["status"] == "completed"]
        seeds = done.pivot(index="seed", columns="cell", values=self.runs.measure).astype(float)
        self.scores = seeds.reindex(columns=self.sweep.cells.index)
        """Accuracy by seed (rows) and cell (columns)."""
        by_cell = known.groupby("cell")
        count, error = self.scores.count(), self.scores.sem()
        half = half_width(error, count - 1)
        self.cells = self.sweep.cells.assign(
            n=count,
            diverged=by_cell["status"].agg(lambda one: (one == "diverged").sum()),
            unanswered=by_cell["status"].agg(lambda one: (~one.isin(FINAL)).sum()),
            mean=self.scores.mean(),
            std=self.scores.std(),
            mean_low=self.scores.mean() - half,
            mean_high=self.scores.mean() + half,
            val_acc=done.groupby("cell")["val_acc"].mean() if "val_acc" in done else np.nan,
        )

    def rows(self, pairs: Mapping[int, int] | None = None) -> pd.DataFrame:
        """A row a cell: what is measured, and how it compares with its reference.

        Args:
            pairs: each cell's reference; by default the one under the same condition.

        Returns:
            The cells with ``n``, ``diverged``, ``unanswered``, ``mean``, ``std``, the 95 %
            interval ``mean_low`` .. ``mean_high``, ``val_acc``, the ``other`` cell, and what
            :func:`compare` gives, with ``pairs`` for its ``n``.
        """
        cells, has = self.cells, self.cells["n"] > 0
        chosen = self.sweep.pairs() if pairs is None else pairs
        both = [(cell, other) for cell, other in chosen.items() if has[cell] and has[other]]
        lost = cells["diverged"] / (cells["n"] + cells["diverged"]).clip(lower=1)
        found = compare(self.scores, both, lost, self.margin, self.level)
        found.index = pd.Index([cell for cell, _ in both], dtype=int)
        # Of one seed or none there is no variance.
        columns = dict.fromkeys([*RESULTS, *found.columns])
        found = found.reindex(columns=[*columns]).rename(columns={"n": "pairs"})
        rows = cells.join(found.assign(other=dict(both)))
        reference = rows["variant"] == self.sweep.reference
        missing = np.select(
            [has & reference, has, rows["diverged"] > 0],
            ["reference", "nothing to compare with", "no result: diverged"], "no result yet",
        )  # fmt: skip
        return rows.assign(verdict=rows["verdict"].where(rows["verdict"].notna(), missing))


RESULTS = (
    *("n", "paired", "left_out", "difference", "error", "freedom", "correlation", "variance"),
    *("unpaired_variance", "low", "high", "p", "p_same", "survivors", "verdict"),
)
"""Columns of a comparison, where there is none."""


@dataclass
class BestRates:
    """What a swept learning rate does to the comparison, under one condition."""

    condition: str
    """Without the learning rate."""
    common: pd.DataFrame
    """All variants at the one rate that is best for their mean validation accuracy."""
    best: pd.DataFrame
    """Each variant at the rate that is best for its own."""


def best_rates(judge: Judge, rows: pd.DataFrame) -> list[BestRates]:
    """Both views of a swept learning rate; empty if none was swept, or nothing was kept to choose
    by (data.val_fraction=0).

    Args:
        rows: of all cells. A comparison that they hold, which is one at the same rate, is shown as
            it is there: one comparison has one verdict.
    """
    sweep = judge.sweep
    if LR not in sweep.conditions:
        return []
    where = [sweep.condition(row, leaving_out=LR) for row in records(rows)]
    # Rates at which no run diverged come first, then those better on validation.
    chosen = rows.assign(where=where)[rows["val_acc"].notna()]
    chosen = chosen.sort_values(["diverged", "val_acc"], ascending=[True, False], kind="stable")
    views: list[tuple[str, list[int], list[int]]] = []
    pairs: dict[int, int] = {}
    for condition, group in chosen.groupby("where", sort=False):
        variants = group["variant"].nunique()
        if len(group) == variants:
            continue
        best = group.drop_duplicates("variant").sort_index()
        by_rate = group.groupby(LR).agg(
            shared=("variant", "nunique"), diverged=("diverged", "sum"), val_acc=("val_acc", "sum")
        )
        shared = by_rate[by_rate["shared"] == variants]
        shared = shared.sort_values(["diverged", "val_acc"], ascending=[True, False])
        common = group[group[LR].isin(shared.index[:1])].sort_index()
        reference = best.index[best["variant"] == sweep.reference]
        pairs |= {cell: other for other in reference for cell in best.index if cell != other}
        views.append((str(condition), list(common.index), list(best.index)))
    # What only the view of best rates compares is adjusted over that view, in all conditions.
    at_best = judge.rows(pairs)
    same = [cell for cell, other in pairs.items() if rows.at[cell, LR] == rows.at[other, LR]]
    at_best.loc[same] = rows.loc[same]
    return [
        BestRates(condition, rows.loc[common], at_best.loc[best])
        for condition, common, best in sorted(views, key=lambda view: min(view[1] or view[2]))
    ]


def pairing(rows: pd.DataFrame) -> tuple[float, float] | None:
    """What pairing by seed brought: the mean correlation of paired seeds, and the variance of
    their differences over what it would be of unpaired ones; None where nothing is paired."""
    paired = rows[(rows["paired"] == True) & (rows["pairs"] > 2)]  # noqa: E712 - NaN elsewhere
    total = paired["unpaired_variance"].sum()
    if not total:
        return None
    return float(paired["correlation"].mean()), float(paired["variance"].sum() / total)


def decided(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["verdict"].isin(DECIDED)]


def compared(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows that stand beside a reference."""
    return rows[rows["difference"].notna()]


def counted(counts: Sequence[float]) -> str:
    """``8``, or ``6 to 8``."""
    low, high = int(min(counts)), int(max(counts))
    return str(low) if low == high else f"{low} to {high}"
