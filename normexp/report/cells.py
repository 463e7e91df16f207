"""What was swept, and the cells that follow: the runs that differ in nothing but their seed."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

from normexp import config_checks
from normexp.config import OUTSIDE_IDENTITY, NormConfig
from normexp.errors import UserError
from normexp.norms import rules
from normexp.norms.catalogue import CATALOGUE
from normexp.recorded_config import DEFAULTS
from normexp.report import beside_config
from normexp.report.read import Run

FIRST = ("norm.name", "model.name", "batch_size", "optimizer.name", "optimizer.lr")
"""The order in which swept keys are shown; others follow as the schema has them."""

OF_THE_NORM = {"evaluate.bn_stats": "norm.name", "evaluate.precise_samples": "evaluate.bn_stats"}
"""Keys of other groups that only some norms read, each with the key that decides whether."""

GROUPS = ("model", "norm", "data", "optimizer", "scheduler")

Values = tuple[Any, ...]


@dataclass
class Cell:
    """The runs of one combination of what was swept."""

    variant: Values
    """Values of the keys that are compared, the norm as a rule."""
    condition: Values
    """Values of the other swept keys."""
    runs: list[Run]

    @property
    def completed(self) -> list[Run]:
        return [run for run in self.runs if run.status == "completed"]

    @property
    def diverged(self) -> list[Run]:
        return [run for run in self.runs if run.status == "diverged"]

    @property
    def answered(self) -> dict[int, float | None]:
        """Test accuracy by seed; None where the run diverged."""
        return {run.seed: run.accuracy for run in [*self.completed, *self.diverged]}


@dataclass
class Sweep:
    """The cells of a directory of runs, and which of them are compared with which."""

    factors: list[str]
    """Dotted keys that were swept, or that tell runs apart beside the configuration."""
    compared: list[str]
    """Those of them that are compared."""
    conditions: list[str]
    """The rest of them."""
    reference: Values | None
    """The variant that the others are compared with; None if there is one only."""
    cells: list[Cell]
    twice: list[Run]
    """Runs left out since another has the same configuration."""

    @property
    def swept(self) -> list[str]:
        """The factors that are settings."""
        return [key for key in self.factors if key not in beside_config.NAMES]

    def cell(self, variant: Values, condition: Values) -> Cell | None:
        for cell in self.cells:
            if cell.variant == variant and cell.condition == condition:
                return cell
        return None

    @property
    def variants(self) -> list[Values]:
        return list(dict.fromkeys(cell.variant for cell in self.cells))

    @property
    def all_conditions(self) -> list[Values]:
        return list(dict.fromkeys(cell.condition for cell in self.cells))

    def variant_label(self, variant: Values) -> str:
        """Such as ``gn num_groups=8``: the first name alone, settings with theirs."""
        return self._label(self.compared, variant) or "all runs"

    def condition_label(self, condition: Values) -> str:
        """Such as ``batch_size=2 lr=0.01``; empty if nothing but the variants was swept."""
        return self._label(self.conditions, condition, named=True)

    def _label(self, keys: list[str], values: Values, named: bool = False) -> str:
        parts = []
        for key, value in zip(keys, values, strict=True):
            if value is None and key in SETTINGS:
                continue
            bare = key.endswith(".name") and not named
            parts.append(text(value) if bare else f"{self.short(key)}={text(value)}")
        return " ".join(parts)

    def short(self, key: str) -> str:
        """The last word of a dotted key where that is clear: ``norm`` for ``norm.name``."""
        words = [_short(other) for other in self.factors]
        return key if words.count(_short(key)) > 1 else _short(key)


def _short(key: str) -> str:
    if key in beside_config.NAMES:
        return beside_config.NAMES[key]
    parts = key.split(".")
    return parts[0] if parts[-1] == "name" else parts[-1]


SETTINGS = {
    *(f"norm.{item.name}" for item in fields(NormConfig)), *OF_THE_NORM, *config_checks.READ_BY,
    "epochs", *beside_config.NAMES,
}  # fmt: skip
"""Keys that only some choices read: without a value elsewhere."""


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


def what_was_read(config: dict[str, Any]) -> dict[str, Any]:
    """The part of a flat configuration that can tell cells apart; None for settings not read."""
    kept = {}
    for key, value in config.items():
        if key != "seed" and key not in OUTSIDE_IDENTITY and key.split(".")[0] != "log":
            # Values become parts of keys; lists could not.
            kept[key] = tuple(value) if isinstance(value, list) else value
    entry = CATALOGUE.get(config["norm.name"])
    # One's own norms may read any setting.
    known = [item.name for item in fields(NormConfig)]
    read = (*rules.READ_BY_ALL, *entry.settings) if entry else known
    kept |= {f"norm.{name}": None for name in known if name not in read}
    if entry and not entry.train_differs:
        kept |= dict.fromkeys(OF_THE_NORM)
    elif "precise" not in config["evaluate.bn_stats"]:
        kept["evaluate.precise_samples"] = None
    for key, (choice, readers_of) in config_checks.READ_BY.items():
        if str(config.get(choice)) not in readers_of:
            kept[key] = None
    return kept


def arrange(runs: Iterable[Run], reference: dict[str, str] | None = None) -> Sweep:
    """Sort runs into cells.

    Args:
        runs: each with its configuration.
        reference: what the others are compared with, such as ``{"norm": "bn"}``.

    Raises:
        UserError: no run is such a reference.
    """
    known = [(run, what_was_read(run.config)) for run in runs]
    factors = _factors([settings for _, settings in known])
    compared = _compared(factors, reference)
    conditions = [key for key in factors if key not in compared]
    cells: dict[tuple[str, str], Cell] = {}
    twice = []
    for run, settings in known:
        variant = tuple(settings.get(key) for key in compared)
        condition = tuple(settings.get(key) for key in conditions)
        cell = cells.setdefault((_key(variant), _key(condition)), Cell(variant, condition, []))
        same = next((other for other in cell.runs if other.seed == run.seed), None)
        if same is None:
            cell.runs.append(run)
        elif run.status == "completed" and same.status != "completed":
            cell.runs[cell.runs.index(same)] = run
            twice.append(same)
        else:
            twice.append(run)
    for cell in cells.values():
        cell.runs.sort(key=lambda run: run.seed)
    ordered = sorted(cells.values(), key=lambda cell: _order(cell.condition + cell.variant))
    sweep = Sweep(factors, compared, conditions, None, ordered, twice)
    sweep.reference = _reference(sweep, reference)
    return sweep


def _factors(settings: list[dict[str, Any]]) -> list[str]:
    """The keys that vary, without those whose value follows from the choice of their group."""
    keys = list(dict.fromkeys(key for one in settings for key in one))
    varying = [key for key in keys if len({_key(one.get(key)) for one in settings}) > 1]
    kept = []
    for key in varying:
        choice = OF_THE_NORM.get(key, f"{key.rpartition('.')[0]}.name")
        if choice not in varying or choice == key:
            kept.append(key)
            continue
        values: dict[str, set[str]] = {}
        for one in settings:
            values.setdefault(_key(one.get(choice)), set()).add(_key(one.get(key)))
        if any(len(found) > 1 for found in values.values()):
            kept.append(key)
    return sorted(kept, key=lambda key: FIRST.index(key) if key in FIRST else len(FIRST))


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


def _reference(sweep: Sweep, asked: dict[str, str] | None) -> Values | None:
    if len(sweep.variants) < 2:
        if asked:
            raise UserError(
                f"--reference {_written(asked)}: nothing of that group was swept; swept were "
                f"{', '.join(map(sweep.short, sweep.factors)) or 'seeds only'}"
            )
        return None
    if asked:
        found = [variant for variant in sweep.variants if _matches(sweep, variant, asked)]
        if not found:
            known = ", ".join(map(sweep.variant_label, sweep.variants))
            raise UserError(f"--reference {_written(asked)}: no run has it; there are {known}")
        return min(found, key=lambda variant: _departures(sweep, variant))
    for name in ("bn", "none"):
        found = [variant for variant in sweep.variants if variant[0] == name]
        if found:
            return min(found, key=lambda variant: _departures(sweep, variant))
    return sweep.variants[0]


def _written(asked: dict[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in asked.items())


def _matches(sweep: Sweep, variant: Values, asked: dict[str, str]) -> bool:
    for key, value in asked.items():
        if full_key(key) not in sweep.compared:
            return False
        if text(variant[sweep.compared.index(full_key(key))]) != value:
            return False
    return True


def _departures(sweep: Sweep, variant: Values) -> int:
    """How many settings are not the default, so that the plain variant is preferred."""
    pairs = zip(sweep.compared, variant, strict=True)
    usual = DEFAULTS | {beside_config.PROCESSES: 1}
    return sum(value is not None and value != usual.get(key) for key, value in pairs)


def _key(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _order(values: Values) -> list[tuple[int, float, str]]:
    return [_place(value) for value in values]


def _place(value: Any) -> tuple[int, float, str]:
    """Numbers by size, then norms as the catalogue has them, then words; no value first."""
    if value is None:
        return (0, 0.0, "")
    if isinstance(value, int | float):
        return (1, float(value), "")
    if value in rules.BUILT_IN:
        return (2, float(rules.BUILT_IN.index(value)), "")
    return (3, 0.0, text(value))
