"""Where the figures come from: what all runs share, what differs, and what has no answer yet."""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from normexp.report.cells import BESIDE, IMAGES, SOURCE, Sweep, text
from normexp.report.read import NESTED, Runs
from normexp.report.words import MOST, listed
from normexp.runs import plan as plans
from normexp.runs.recorded_config import DEFAULTS
from normexp.runs.records import FINAL
from normexp.system.errors import UserError

SURROUNDINGS = (
    "device",
    "threads",
    "fused",
    "git",
    "ranks",
    *(f"{NESTED['versions']}{one}" for one in ("normexp", "torch", "python")),
)
"""Columns that nobody sweeps but that may differ."""


@dataclass
class Origin:
    shared: list[tuple[str, str]]
    """Settings and surroundings that all runs have in common, less those that are defaults."""
    differs: list[tuple[str, str]]
    """What differs though it was not swept: values, and how many runs have each."""
    unanswered: pd.DataFrame
    """Failed, interrupted and unfinished runs."""
    never_begun: int
    """Runs that the plans ask for and that have no directory."""
    cells_never_begun: list[str]
    """Settings of the cells that have none at all."""
    commands: list[str]
    """What trains all that the plans ask for and that has no answer."""

    def missing(self) -> list[str]:
        """In one sentence how much is not there."""
        parts = []
        if count := len(self.unanswered):
            parts.append(f"{count} run{'s have' if count > 1 else ' has'} no answer yet")
        if count := self.never_begun:
            cells = (
                f" ({'; '.join(self.cells_never_begun[:MOST])})" if self.cells_never_begun else ""
            )
            parts.append(f"{count} run{'s were' if count > 1 else ' was'} never begun{cells}")
        end = "; the command at the end goes on" if self.commands else ""
        return [f"{listed(parts)}{end}."] if parts else []

    def not_swept(self) -> list[str]:
        """In one sentence what tells cells apart though nobody swept it."""
        parts = [f"{name} ({values})" for name, values in self.differs if name in BESIDE.values()]
        if not parts:
            return []
        return [
            f"Runs differ in {listed(parts)}, which nobody swept: those of each are other cells."
        ]


def origin(runs: Runs, sweep: Sweep) -> Origin:
    table = sweep.runs
    shared, differs = [], []
    for key in runs.settings:
        values = table[key].map(text).unique()
        if len(values) == 1 and values[0] not in ("null", "[]", text(DEFAULTS.get(key))):
            shared.append((key, values[0]))
    for name in SURROUNDINGS:
        found = table[name].dropna() if name in table else pd.Series(dtype=object)
        counts = found.map(text).value_counts(sort=False)
        if len(counts) == 1 and name != "ranks":
            shared.append((name, counts.index[0]))
        elif len(counts) > 1:
            differs.append((name, _counted(counts)))
    for key in (IMAGES, SOURCE):
        if key in table:
            values = table[key].dropna().sort_values()
            differs.append((BESIDE[key], _counted(values.value_counts(sort=False))))
    unanswered = runs.table[~runs.table["status"].isin(FINAL)]
    return Origin(shared, differs, unanswered, *_planned(runs))


def _counted(counts: Any) -> str:
    return ", ".join(f"{value}: {n} run{'s' * (n > 1)}" for value, n in counts.items())


def _planned(runs: Runs) -> tuple[int, list[str], list[str]]:
    """How many runs were never begun, cells of which none was, and the commands that go on, as the
    plans say of all sweeps whose runs these are; without a plan nothing is known of either."""
    never = 0
    cells: list[str] = []
    commands: list[str] = []
    if not runs.in_directories:
        return never, cells, commands
    # Runs lie in the folder of their sweep, which may be the one that is reported on, or below.
    places = {runs.source, *(runs.source / Path(one).parent for one in runs.table["folder"])}
    begun = {Path(one).name for one in runs.table["folder"]}
    ended = runs.table[runs.table["status"].isin(FINAL)]["folder"].map(lambda one: Path(one).name)
    for place in sorted(places):
        try:
            plan = plans.read(place)
        except UserError as error:
            runs.unreadable.append(str(error))
            plan = None
        if plan is None:
            continue
        for cell, seeds in plan.missing(ended):
            new = [seed for seed in seeds if cell.runs[seed] not in begun]
            never += len(new)
            if new and len(new) == len(cell.runs):
                cells.append(" ".join(f"{key}={value}" for key, value in cell.settings.items()))
        commands += plan.goes_on(ended)
    return never, cells, commands


def plan_of(runs: Runs) -> plans.Plan | None:
    """The plan of the sweep that is reported on, if there is one that can be read."""
    with contextlib.suppress(UserError):
        return plans.read(runs.source) if runs.in_directories else None
    return None


def left_out(twice: list[str]) -> list[str]:
    """In one line the runs that are counted once though they are there twice."""
    if not twice:
        return []
    rest = f" and {len(twice) - MOST} more" if len(twice) > MOST else ""
    return [
        f"{len(twice)} run{'s' * (len(twice) > 1)} left out, since another has the same settings "
        f"and seed: {', '.join(twice[:MOST])}{rest}"
    ]


def address(folder: Path, out: Path) -> str:
    """Of a run's directory, seen from the report's."""
    return Path(os.path.relpath(folder, out)).as_posix() + "/"
