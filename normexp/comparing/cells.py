"""What is compared with what: the cells of a command, their variants and conditions."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from normexp.config.schema import Config
from normexp.norms.catalogue import BUILT_IN
from normexp.report.cells import USUAL
from normexp.report.statistics import Pair
from normexp.runs.directory import RunDirectory
from normexp.runs.planning import Job
from normexp.system.errors import UserError


@dataclass
class Cell:
    """A variant under a condition: runs that differ in nothing but their seed."""

    overrides: list[str]
    """Of the runs, as Hydra takes them."""
    settings: dict[str, str]
    """What tells it from other cells, as it was written."""
    config: Config
    variant: str
    condition: str
    rate: float
    """The learning rate it decides with: the configured one until it is tuned."""
    seeds: int = 0
    """How many it has been given so far, 0, 1, 2, ..."""
    name: str = ""
    """As the plan has it; empty before its first seed is planned."""
    results: dict[int, dict[str, Any]] = field(default_factory=dict)
    """result.json of its seeds."""

    @property
    def key(self) -> str:
        return " ".join(f"{key}={value}" for key, value in self.settings.items()) or "all"

    @property
    def folder(self) -> Path:
        return Path(self.config.output) / self.config.name

    def take(self, runs: Sequence[tuple[Config, RunDirectory]]) -> None:
        """Read what became of runs of this cell."""
        for config, directory in runs:
            answer = directory.answer()
            if answer is not None:
                self.results[config.seed] = answer


@dataclass
class Table:
    """The cells and their pairs."""

    cells: list[Cell]
    reference: str
    """The variant that others are compared with."""
    reference_key: str
    """What is compared, such as ``norm``."""
    pairs: list[Pair]
    """Numbers of cells: each beside the reference under its condition."""

    def scores(self) -> pd.DataFrame:
        """Test accuracy by seed (rows) and number of the cell (columns); NaN where a run
        diverged."""
        columns = {}
        for number, cell in enumerate(self.cells):
            found = {seed: one["test_acc"] for seed, one in cell.results.items()}
            columns[number] = pd.Series(found, dtype=float)
        return pd.DataFrame(columns).sort_index()

    def lost(self) -> pd.Series:
        """By cell, the share of its runs that diverged."""
        shares = []
        for cell in self.cells:
            status = [one["status"] for one in cell.results.values()]
            shares.append(status.count("diverged") / len(status) if status else np.nan)
        return pd.Series(shares, dtype=float)


def arrange(jobs: Sequence[Job], settings: Sequence[dict[str, str]],
            asked: tuple[str, str] | None) -> Table:  # fmt: skip
    """The table that a command asks for.

    Args:
        settings: of each job, what tells it from the others.
        asked: key and value of the reference.

    Raises:
        UserError: a job can never work, there is nothing to compare, or no such reference.
    """
    for job, own in zip(jobs, settings, strict=True):
        if job.refused or job.config is None:
            words = " ".join(f"{key}={value}" for key, value in own.items())
            raise UserError(f"{words}: {job.refused}" if words else str(job.refused))
    key = _compared(settings, asked)
    variants = list(dict.fromkeys(own[key] for own in settings if key in own))
    reference = asked[1] if asked else next((one for one in USUAL if one in variants), variants[0])
    if reference not in variants:
        raise UserError(
            f"reference={key}={reference}: is not compared; there are {', '.join(variants)}"
        )
    cells = []
    for job, own in zip(jobs, settings, strict=True):
        assert job.config is not None
        rest = [f"{name.replace('_', ' ')} {value}" for name, value in own.items() if name != key]
        cells.append(
            Cell(list(job.overrides), own, job.config, own[key], ", ".join(rest),
                 job.config.optimizer.lr)
        )  # fmt: skip
    order = {norm: place for place, norm in enumerate(BUILT_IN)}
    variants.sort(key=lambda one: (one != reference, order.get(one, len(order))))
    cells.sort(key=lambda cell: variants.index(cell.variant))
    conditions = list(dict.fromkeys(cell.condition for cell in cells))
    cells.sort(key=lambda cell: conditions.index(cell.condition))
    base = {cell.condition: place for place, cell in enumerate(cells) if cell.variant == reference}
    pairs = [
        (place, base[cell.condition])
        for place, cell in enumerate(cells)
        if cell.variant != reference and cell.condition in base
    ]
    if not pairs:
        raise UserError(f"{key}={reference}: nothing stands beside it under the same condition")
    return Table(cells, reference, key, pairs)


def _compared(settings: Sequence[dict[str, str]], asked: tuple[str, str] | None) -> str:
    """The key whose values are compared: the reference's, the norm, or the first that varies."""
    varying = list(dict.fromkeys(key for own in settings for key in own))
    if not varying:
        raise UserError("nothing to compare: give two values or more, such as norm=bn,gn")
    if asked:
        if asked[0] not in varying:
            raise UserError(
                f"reference={'='.join(asked)}: {asked[0]} has one value; there vary "
                f"{', '.join(varying)}"
            )
        return asked[0]
    return "norm" if "norm" in varying else varying[0]
