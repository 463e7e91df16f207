"""Where the figures come from: what all runs share, what differs, and what has no answer yet."""

from dataclasses import dataclass
from typing import Any

from normexp.report import finish
from normexp.report.cells import Sweep, text, what_was_read
from normexp.report.read import DEFAULTS, Run, flat
from normexp.run_directory import FINAL

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
    unanswered = [run for run in runs if run.status not in FINAL]
    return Provenance(
        shared, differs, unanswered, lines, never, unreadable, [run.folder for run in sweep.twice]
    )


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
    return flat({key: value for key, value in known.items() if value is not None})
