"""What others published, beside what these runs measured."""

import statistics
from dataclasses import dataclass
from functools import cache
from typing import Any

import yaml

from normexp.config import Measure, conf_dir
from normexp.recorded_config import DEFAULTS, flat
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
    if not any(figure in (run.config.get("published") or []) for run in cell.runs):
        return False  # another preset's cell
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


BUDGET = ("epochs", "max_steps", "data.name", "data.train_size")
"""Settings without which a published figure is one of other runs."""


def otherwise(sweep: Sweep) -> str:
    """In one line how runs were trained otherwise than the presets whose figures they carry; empty
    if they were not."""
    parts: dict[str, None] = {}
    for run in (run for cell in sweep.cells for run in cell.runs):
        figures = run.config.get("published")
        for name, budget in _presets().get(_key(figures), {}).items() if figures else ():
            differ = [key for key in BUDGET if text(run.config.get(key)) != text(budget[key])]
            if differ:
                ours, theirs = _written(run.config, differ), _written(budget, differ)
                parts[f"{ours}, where the preset {name} has {theirs}"] = None
    if not parts:
        return ""
    return f"Trained otherwise than what was published: {'; '.join(parts)}."


def _written(config: dict[str, Any], keys: list[str]) -> str:
    # Of epochs and steps one is chosen; the other is null.
    chosen = [key for key in keys if config[key] is not None or key == "data.train_size"]
    return ", ".join(f"{key}={text(config[key])}" for key in chosen)


@cache
def _presets() -> dict[str, dict[str, dict[str, Any]]]:
    """By the figures that they carry and by their name, the budgets of the presets."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for path in sorted((conf_dir() / "experiment").glob("*.yaml")):
        preset = yaml.safe_load(path.read_text(encoding="utf-8"))
        if preset.get("published"):
            given = flat(preset)
            for one in preset.get("defaults", []):
                given["data.name"] = one.get("override /data", given.get("data.name", "cifar10"))
            budget = {key: given.get(key, DEFAULTS.get(key)) for key in BUDGET}
            found.setdefault(_key(preset["published"]), {})[path.stem] = budget
    return found


def _key(figures: list[dict[str, Any]]) -> str:
    return str([(one["what"], float(one["value"]), one["source"]) for one in figures])


def measured(run: Run, what: Measure) -> float | None:
    """One figure of a completed run."""
    if what is Measure.test_error:
        return None if run.accuracy is None else 1 - run.accuracy
    found = run.result.get(what.value)
    return None if found is None else float(found)
