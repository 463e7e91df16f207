"""Every cell beside its reference, and every norm at its best learning rate."""

from collections.abc import Sequence
from dataclasses import dataclass

from normexp.report.cells import Cell, Sweep, Values
from normexp.report.statistics import Difference, compare, holm, seeds_needed, verdict

LR = "optimizer.lr"


@dataclass
class Row:
    """A cell and what its difference from the reference supports."""

    cell: Cell
    is_reference: bool = False
    difference: Difference | None = None
    adjusted_p: float | None = None
    verdict: str = ""
    needed: int | None = None
    """Seeds in all that would decide, where they do not yet."""

    @property
    def bold(self) -> bool:
        """Whether the difference may stand out: six seeds or more, zero is not in the interval, and
        p is below 0.05."""
        return self.verdict in ("better", "worse", "ahead", "behind")

    @property
    def open(self) -> bool:
        """Whether more seeds could decide."""
        found = self.difference
        return found is not None and not found.survived and self.verdict not in ("better", "worse")


@dataclass
class BestRates:
    """What a swept learning rate does to the comparison, under one condition."""

    condition: Values
    """Without the learning rate."""
    common: list[Row]
    """All variants at the one rate that is best for their mean validation accuracy."""
    best: list[Row]
    """Each variant at the rate that is best for its own."""


def rows(sweep: Sweep) -> list[Row]:
    """A row a cell, in their order, adjusted over all comparisons of the table."""
    pairs = []
    for cell in sweep.cells:
        reference = None
        if sweep.reference is not None and cell.variant != sweep.reference:
            reference = sweep.cell(sweep.reference, cell.condition)
        pairs.append((cell, reference))
    return _judged(sweep, pairs)


def _judged(sweep: Sweep, pairs: Sequence[tuple[Cell, Cell | None]]) -> list[Row]:
    table = []
    for cell, reference in pairs:
        row = Row(cell, is_reference=cell.variant == sweep.reference)
        if reference is not None:
            row.difference = compare(cell.answered, reference.answered)
        table.append(row)
    compared = [row for row in table if row.difference is not None]
    adjusted = holm([row.difference.p for row in compared if row.difference is not None])
    for row, p in zip(compared, adjusted, strict=True):
        assert row.difference is not None
        row.adjusted_p = p
        row.verdict = verdict(row.difference, p)
        if row.open:
            row.needed = seeds_needed(row.difference, len(compared))
    return table


def best_rates(sweep: Sweep, table: Sequence[Row]) -> list[BestRates]:
    """Both views of a swept learning rate; empty if none was swept, or nothing was kept to choose
    by (data.val_fraction=0).

    Args:
        table: the rows of all cells. A comparison that they hold, which is one at the same rate, is
            shown as it is there: one comparison has one verdict.
    """
    if LR not in sweep.conditions:
        return []
    place = sweep.conditions.index(LR)

    def others(condition: Values) -> Values:
        return condition[:place] + condition[place + 1 :]

    conditions, commons, bests = [], [], []
    for condition in dict.fromkeys(others(cell.condition) for cell in sweep.cells):
        grids: dict[Values, list[Cell]] = {}
        for cell in sweep.cells:
            if others(cell.condition) == condition and validation(cell) is not None:
                grids.setdefault(cell.variant, []).append(cell)
        if any(len(grid) > 1 for grid in grids.values()):
            conditions.append(condition)
            commons.append(_at_common_rate(list(grids.values()), place))
            bests.append(_beside(sweep, [max(grid, key=_choice) for grid in grids.values()]))
    known = {id(row.cell): row for row in table}
    # What only the view of best rates compares is adjusted over that view, in all conditions.
    pairs = [pair for view in bests for pair in view]
    judged = iter(_judged(sweep, pairs))
    best = iter(
        [
            known[id(cell)] if other is None or other.condition == cell.condition else row
            for row, (cell, other) in zip(judged, pairs, strict=True)
        ]
    )
    return [
        BestRates(condition, [known[id(cell)] for cell in common], [next(best) for _ in one])
        for condition, common, one in zip(conditions, commons, bests, strict=True)
    ]


def _at_common_rate(grids: list[list[Cell]], place: int) -> list[Cell]:
    by_rate: dict[float, list[Cell]] = {}
    for grid in grids:
        for cell in grid:
            by_rate.setdefault(cell.condition[place], []).append(cell)
    shared = [cells for cells in by_rate.values() if len(cells) == len(grids)]
    return max(
        shared,
        key=lambda cells: (
            -sum(len(cell.diverged) for cell in cells),
            sum(validation(cell) or 0.0 for cell in cells),
        ),
        default=[],
    )


def _beside(sweep: Sweep, cells: list[Cell]) -> list[tuple[Cell, Cell | None]]:
    """Each cell with the reference among them."""
    reference = next((cell for cell in cells if cell.variant == sweep.reference), None)
    return [(cell, None if cell is reference else reference) for cell in cells]


def _choice(cell: Cell) -> tuple[int, float]:
    """Rates at which no run diverged come first, then those better on validation."""
    return -len(cell.diverged), validation(cell) or 0.0


def validation(cell: Cell) -> float | None:
    """Mean validation accuracy of the completed runs."""
    found = [run.result["val_acc"] for run in cell.completed if run.result["val_acc"] is not None]
    return sum(found) / len(found) if found else None
