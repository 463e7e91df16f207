"""What was swept, and the cells that follow: the runs that differ in nothing but their seed."""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

import pandas as pd

from normexp.config.choices import GROUPS
from normexp.config.schema import READ_BY, NormConfig
from normexp.norms.catalogue import BUILT_IN
from normexp.report.read import OF_THE_NORM, Runs
from normexp.runs.recorded_config import DEFAULTS
from normexp.runs.records import FINAL
from normexp.system.errors import UserError

LR = "optimizer.lr"
FIRST = ("norm.name", "model.name", "batch_size", "optimizer.name", LR)
"""The order in which swept keys are shown; others follow as the schema has them."""

USUAL = ("keep", "bn", "none")
"""Norms that are the reference where nothing else was asked for, the first of those compared."""

IMAGES, SOURCE, PROCESSES = "data.fingerprint", "norm.source", "norm.processes"
NETWORK = "model.source"
BESIDE = {
    IMAGES: "images", SOURCE: "norm source", PROCESSES: "processes", NETWORK: "network source",
}  # fmt: skip
"""What tells runs apart though no setting does, and what a person calls it."""

OTHER_IMAGES = ("data.name", *(key for key in READ_BY if key.startswith("data.")))
"""Settings that choose images: only where all of them are the same should these be."""

UNKNOWN = "unknown"
"""Of a result of an earlier version, or a run without one, where others differ."""

DIGITS = 8
"""Of a hash that are shown, as in the names of runs."""

SETTINGS = {
    *(f"norm.{item.name}" for item in fields(NormConfig)), *OF_THE_NORM, *READ_BY,
    "epochs", "max_steps", *BESIDE,
}  # fmt: skip
"""Keys that only some choices read: without a value elsewhere."""


@dataclass
class Sweep:
    """The cells of some runs, and which of them are compared with which."""

    factors: list[str]
    """Columns that were swept, or that tell runs apart beside the configuration."""
    compared: list[str]
    """Those of them that are compared, the norm as a rule."""
    conditions: list[str]
    """The rest of them."""
    cells: pd.DataFrame
    """A row a cell: its factors, and in words its ``variant``, of what is compared, and its
    ``condition``."""
    runs: pd.DataFrame
    """A row a run, with the number of its ``cell``."""
    reference: str | None
    """The variant that the others are compared with; None if there is one only."""
    twice: list[str]
    """Folders of runs left out, since another has the same settings and seed."""
    tuned: list[str]
    """What varies and is no factor: it has one value under each combination of them."""

    @property
    def variants(self) -> list[str]:
        return list(dict.fromkeys(self.cells["variant"]))

    @property
    def swept(self) -> list[str]:
        """The factors that are settings."""
        return [key for key in self.factors if key not in BESIDE]

    def pairs(self, cells: pd.DataFrame | None = None) -> dict[int, int]:
        """Each cell's reference under the same condition, among these cells."""
        chosen = self.cells if cells is None else cells
        base = chosen[chosen["variant"] == self.reference]
        place = dict(zip(base["condition"], base.index, strict=True))
        others = chosen[chosen["variant"] != self.reference]["condition"]
        return {cell: place[where] for cell, where in others.items() if where in place}

    def key(self, cell: int) -> str:
        """What tells a cell from others, whatever is compared with what."""
        row = records(self.cells.loc[[cell]])[0]
        return " ".join(f"{key}={text(row[key])}" for key in sorted(self.factors)) or "all runs"

    def short(self, key: str) -> str:
        """The last word of a dotted key where that is clear: ``norm`` for ``norm.name``."""
        words = [_short(other) for other in self.factors]
        return key if words.count(_short(key)) > 1 else _short(key)

    def words(self, key: str) -> str:
        return self.short(key).replace("_", " ")

    def condition(self, row: Any, leaving_out: str = "") -> str:
        """Such as ``batch size 2, lr 0.01``."""
        keys = [key for key in self.conditions if key != leaving_out]
        return ", ".join(
            f"{self.words(key)} {text(row[key])}"
            for key in keys if not (row[key] is None and key in SETTINGS)
        )  # fmt: skip

    def variant(self, row: Any) -> str:
        """Such as ``gn num_groups=8``: names alone, settings with theirs."""
        parts = [
            text(row[key]) if key.endswith(".name") else f"{self.short(key)}={text(row[key])}"
            for key in self.compared if not (row[key] is None and key in SETTINGS)
        ]  # fmt: skip
        return " ".join(parts) or "all runs"


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows, each with its values as they are: pandas would make a NaN of None otherwise."""
    return list(frame.to_dict("records"))


def _short(key: str) -> str:
    if key in BESIDE:
        return BESIDE[key]
    parts = key.split(".")
    return parts[0] if parts[-1] == "name" else parts[-1]


def text(value: Any) -> str:
    """A value of the configuration as one writes it on the command line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(text, value)) + "]"
    return str(value)


def arrange(runs: Runs, reference: dict[str, str] | None = None) -> Sweep:
    """Sort runs into cells.

    Args:
        reference: what the others are compared with, such as ``{"norm": "bn"}``.

    Raises:
        UserError: no run is such a reference.
    """
    # A run that was refused before its first step may have left no configuration.
    table = runs.table[runs.table["norm.name"].notna()].reset_index(drop=True)
    # A file has what else tells runs apart among its columns.
    beside = _beside(table) if runs.in_directories else {}
    table = table.assign(**beside)
    factors = _factors(table, [*runs.settings, *beside])
    tuned = _tuned(table, factors)
    factors = [key for key in factors if key not in tuned]
    compared = _compared(factors, reference)
    conditions = [key for key in factors if key not in compared]
    keys = (
        table[factors].map(text).agg("\0".join, axis=1) if factors else pd.Series("", table.index)
    )
    firsts = table[~keys.duplicated()].astype(object)
    order = sorted(
        firsts.index, key=lambda row: [_place(firsts.at[row, key]) for key in conditions + compared]
    )
    cells = firsts.loc[order, factors + tuned]
    number = {keys[row]: place for place, row in enumerate(order)}
    cells.index = range(len(cells))
    table["cell"] = keys.map(number)
    # Of two runs of one seed the answered one counts, and the first of those.
    first = table.iloc[(~table["status"].isin(FINAL)).argsort(kind="stable")]
    again = first.duplicated(["cell", "seed"]).sort_index()
    sweep = Sweep(
        factors,
        compared,
        conditions,
        cells,
        table[~again],
        None,
        list(table["folder"][again]),
        tuned,
    )
    sweep.runs = sweep.runs.sort_values(["cell", "seed"], kind="stable")
    cells["variant"] = [sweep.variant(row) for row in records(cells)]
    cells["condition"] = [sweep.condition(row) for row in records(cells)]
    sweep.reference = _reference(sweep, reference)
    return sweep


def _beside(table: pd.DataFrame) -> dict[str, pd.Series]:
    """The columns that tell runs apart beside their settings, where they differ and should not."""
    found = {}
    for key, field, settings in (
        (IMAGES, "data_fingerprint", OTHER_IMAGES),
        (SOURCE, "norm_source", ("norm.name",)),
        (NETWORK, "model_source", ("model.name", "model.weights")),
        (PROCESSES, "ranks", ("norm.name",)),
    ):
        # Nothing is known where it is empty; what there is no result of is computed by one process.
        given = table[field].map(lambda value: value or None)
        values = given if key == PROCESSES else given.str[:DIGITS]
        group = table[list(settings)].map(text).agg("\0".join, axis=1)
        several = values.groupby(group).transform("nunique") > 1
        if several.any():
            # What earlier versions did not write is taken to be the same where all others are.
            other = values.groupby(group).transform("first").where(~several, UNKNOWN)
            filled = values.where(values.notna(), other)
            known = [None if pd.isna(value) else value for value in filled]
            found[key] = pd.Series(known, table.index, dtype=object)
    return found


def _factors(table: pd.DataFrame, settings: Iterable[str]) -> list[str]:
    """The keys that vary, without those whose value follows from the choice of their group."""
    words = {key: table[key].map(text) for key in settings if key != "published"}
    varying = {key: values for key, values in words.items() if values.nunique() > 1}
    kept = []
    for key, values in varying.items():
        choice = OF_THE_NORM.get(key, f"{key.rpartition('.')[0]}.name")
        follows = choice in varying and choice != key
        if not follows or (values.groupby(varying[choice]).nunique() > 1).any():
            kept.append(key)
    return sorted(kept, key=lambda key: FIRST.index(key) if key in FIRST else len(FIRST))


def _tuned(table: pd.DataFrame, factors: list[str]) -> list[str]:
    """The learning rate where it was chosen beforehand: one for each norm under each condition."""
    others = [key for key in factors if key != LR]
    if LR not in factors or not {"norm.name", "model.name"}.intersection(others):
        return []
    words = table[factors].map(text)
    return [LR] if words.groupby(others)[LR].nunique().max() == 1 else []


def _compared(factors: list[str], reference: dict[str, str] | None) -> list[str]:
    """The swept keys of one group: of the reference's, or norm, or else the first."""
    if reference:
        groups = {key.partition(".")[0] for key in reference}
        if len(groups) > 1:
            raise UserError(
                f"--reference {' '.join(reference)}: give keys of one group, such as norm=bn"
            )
        (group,) = groups
    elif any(key.startswith("norm.") for key in factors):
        group = "norm"
    else:
        group = factors[0].partition(".")[0] if factors else ""
    found = [key for key in factors if key.partition(".")[0] == group]
    if group == "norm":
        return found + [key for key in factors if key in OF_THE_NORM]
    if group == "model":
        return found
    # Settings of the other groups are questions of their own: only the named one is compared.
    named = [full_key(key) for key in reference or {}] or found[:1]
    return [key for key in found if key in named]


def full_key(key: str) -> str:
    """``norm`` means ``norm.name``, and so with all groups."""
    return f"{key}.name" if key in GROUPS else key


def _reference(sweep: Sweep, asked: dict[str, str] | None) -> str | None:
    variants = sweep.cells.drop_duplicates("variant")
    if len(variants) < 2:
        if asked:
            raise UserError(
                f"--reference {_written(asked)}: nothing of that group was swept; swept were "
                f"{', '.join(map(sweep.short, sweep.factors)) or 'seeds only'}"
            )
        return None
    if asked:
        if not all(full_key(key) in sweep.compared for key in asked):
            found = variants[:0]
        else:
            found = variants[
                [all(text(row[full_key(k)]) == v for k, v in asked.items())
                 for row in records(variants)]
            ]  # fmt: skip
        if found.empty:
            known = ", ".join(variants["variant"])
            raise UserError(f"--reference {_written(asked)}: no run has it; there are {known}")
    else:
        first = variants[sweep.compared[0]]
        named = (variants[first == name] for name in USUAL)
        found = next((one for one in named if not one.empty), variants[:1])
    usual = DEFAULTS | {PROCESSES: 1}
    # The plain variant is preferred: the one with the fewest settings that are not the default.
    departures = [
        sum(
            row[key] is not None and text(row[key]) != text(usual.get(key))
            for key in sweep.compared
        )
        for row in records(found)
    ]
    return str(found["variant"].iloc[departures.index(min(departures))])


def _written(asked: dict[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in asked.items())


def _place(value: Any) -> tuple[int, float, str]:
    """Numbers by size, then norms as the catalogue has them, then words; no value first."""
    if value is None:
        return (0, 0.0, "")
    if isinstance(value, int | float):
        return (1, float(value), "")
    if value in BUILT_IN:
        return (2, float(BUILT_IN.index(value)), "")
    return (3, 0.0, text(value))
