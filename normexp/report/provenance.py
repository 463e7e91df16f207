"""Where the figures come from: what all runs share, what differs, and what has no answer yet."""

from dataclasses import dataclass
from typing import Any

from normexp.recorded_config import DEFAULTS, flat
from normexp.report import beside_config, finish
from normexp.report.cells import Sweep, text, what_was_read
from normexp.report.read import Run
from normexp.report.wording import MOST, listed
from normexp.run_records import FINAL

SURROUNDINGS = ("device", "threads", "fused", "versions", "git")
"""Fields of a result that nobody sweeps but that may differ."""


@dataclass
class Provenance:
    shared: list[tuple[str, str]]
    """Settings and surroundings that all runs have in common, less those that are defaults."""
    differs: list[tuple[str, list[tuple[str, int]]]]
    """What differs though it was not swept: values, and how many runs have each."""
    unanswered: list[Run]
    """Failed, interrupted and unfinished runs."""
    commands: list[str]
    """What would finish the sweep."""
    never_begun: int
    """Runs that these commands would begin, seen from the grid of those that are there."""
    unreadable: list[str]
    twice: list[str]
    """Folders of runs left out, since another has the same configuration and seed."""


def provenance(runs: list[Run], unreadable: list[str], sweep: Sweep) -> Provenance:
    lines, never = finish.commands(runs)
    surroundings = [_surroundings(run) for run in runs if run.result.get("versions")]
    fields = list(dict.fromkeys(key for one in surroundings for key in one))
    shared, differs = _settings(runs, sweep), []
    for name in fields:
        counts: dict[str, int] = {}
        for one in surroundings:
            value = text(one.get(name))
            counts[value] = counts.get(value, 0) + 1
        if len(counts) == 1:
            shared.append((name, next(iter(counts))))
        else:
            differs.append((name, list(counts.items())))
    for key in (beside_config.IMAGES, beside_config.SOURCE):
        values = [text(run.config[key]) for run in runs if run.config.get(key) is not None]
        if values:
            counted = [(value, values.count(value)) for value in sorted(set(values))]
            differs.append((beside_config.NAMES[key], counted))
    unanswered = [run for run in runs if run.status not in FINAL]
    return Provenance(
        shared, differs, unanswered, lines, never, unreadable, [run.folder for run in sweep.twice]
    )


def left_out(origin: Provenance) -> list[str]:
    """In one line the runs that are counted once though they are there twice."""
    if not origin.twice:
        return []
    count = len(origin.twice)
    rest = f" and {count - MOST} more" if count > MOST else ""
    return [
        f"{count} run{'s' if count > 1 else ''} left out, since another has the same settings and "
        f"seed: {', '.join(origin.twice[:MOST])}{rest}"
    ]


def not_swept(origin: Provenance) -> list[str]:
    """In one sentence what tells cells apart though nobody swept it."""
    names = beside_config.NAMES.values()
    parts = [
        f"{name} ({', '.join(value for value, _ in values)})"
        for name, values in origin.differs if name in names
    ]  # fmt: skip
    if not parts:
        return []
    return [f"Runs differ in {listed(parts)}, which nobody swept: those of each are other cells."]


def _settings(runs: list[Run], sweep: Sweep) -> list[tuple[str, str]]:
    """The configuration that all runs share, where it is not the default."""
    configs = [what_was_read(run.config) for run in runs if run.config]
    if not configs:
        return []
    shared = []
    for key, value in configs[0].items():
        same = all(config.get(key) == value for config in configs)
        if same and value is not None and text(value) != text(DEFAULTS.get(key)):
            shared.append((key, text(value)))
    return shared


def _surroundings(run: Run) -> dict[str, Any]:
    known = {name: run.result.get(name) for name in SURROUNDINGS}
    known["fused"] = run.result.get("fused") or 1
    known[beside_config.NAMES[beside_config.PROCESSES]] = run.result.get("ranks") or 1
    return flat({key: value for key, value in known.items() if value is not None})
