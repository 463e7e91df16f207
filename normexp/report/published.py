"""What others published, beside what these runs measured."""

import statistics
from dataclasses import dataclass
from typing import Any

from normexp.config import Measure
from normexp.report.cells import Cell, Sweep, full_key, text
from normexp.report.read import Run


@dataclass(frozen=True)
class Beside:
    """A published figure and the measured one, for one cell; fractions and losses as recorded."""

    what: Measure
    where: str
    source: str
    published: float
    n: int
    measured: float | None
    """Mean over the completed runs."""
    std: float | None

    @property
    def difference(self) -> float | None:
        return None if self.measured is None else self.measured - self.published


def beside(sweep: Sweep) -> list[Beside]:
    """Every figure that the runs' configurations carry, once for each cell that it is about; with
    n = 0 where no run is such a one."""
    figures: dict[str, dict[str, Any]] = {}
    for cell in sweep.cells:
        for run in cell.runs:
            for figure in run.config.get("published") or []:
                figures.setdefault(str(figure), figure)
    found = []
    for figure in figures.values():
        cells: list[Cell | None] = [cell for cell in sweep.cells if _is_about(figure, cell)]
        found += [_row(sweep, figure, cell) for cell in cells or [None]]
    return found


def _is_about(figure: dict[str, Any], cell: Cell) -> bool:
    config = cell.runs[0].config
    where = figure.get("where", {})
    return all(text(config.get(full_key(key))) == value for key, value in where.items())


def _row(sweep: Sweep, figure: dict[str, Any], cell: Cell | None) -> Beside:
    what = Measure(figure["what"])
    values = [] if cell is None else [measured(run, what) for run in cell.completed]
    known = [value for value in values if value is not None]
    labels = [f"{key}={value}" for key, value in figure.get("where", {}).items()]
    if cell is not None:
        labels = [sweep.variant_label(cell.variant), sweep.condition_label(cell.condition)]
    return Beside(
        what=what,
        where=" ".join(filter(None, labels)),
        source=str(figure["source"]),
        published=float(figure["value"]),
        n=len(known),
        measured=statistics.fmean(known) if known else None,
        std=statistics.stdev(known) if len(known) > 1 else None,
    )


def measured(run: Run, what: Measure) -> float | None:
    """One figure of a completed run."""
    if what is Measure.test_error:
        return None if run.accuracy is None else 1 - run.accuracy
    found = run.result.get(what.value)
    return None if found is None else float(found)
