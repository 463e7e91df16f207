"""What tells runs apart though no setting does: their images, the source of a norm of one's own,
and how many processes shared a batch."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import Any

from normexp.config import READ_BY
from normexp.report.read import Run

IMAGES, SOURCE, PROCESSES = "data.fingerprint", "norm.source", "norm.processes"
NAMES = {IMAGES: "images", SOURCE: "norm source", PROCESSES: "processes"}
"""Keys that stand beside those of the configuration, and what a person calls them."""

UNKNOWN = "unknown"
"""Of a result of an earlier version, or a run without one, where others differ."""

CONTENT = ("data.name", *(key for key in READ_BY if key.startswith("data.")))
"""Settings that choose images: only where all of them are the same should these be."""

DIGITS = 8
"""Of a hash that are shown, as in the names of runs."""


def told_apart(runs: Sequence[Run]) -> list[Run]:
    """The runs with these keys in their configurations, where they differ and should not."""
    known = [run for run in runs if run.config]
    added: dict[str, dict[str, Any]] = {run.folder: {} for run in runs}
    for key, field, settings in (
        (IMAGES, "data_fingerprint", CONTENT),
        (SOURCE, "norm_source", ("norm.name",)),
        (PROCESSES, "ranks", ("norm.name",)),
    ):
        for folder, value in _values(known, _reader(key, field), settings).items():
            added[folder][key] = value
    return [replace(run, config=run.config | added[run.folder]) for run in runs]


def _reader(key: str, field: str) -> Callable[[Run], Any]:
    def read(run: Run) -> Any:
        found = run.result.get(field)
        if key == PROCESSES:
            return found or (1 if run.result else None)
        # Nothing is known where it is empty.
        return found[:DIGITS] if found else None

    return read


def _values(
    runs: list[Run], read: Callable[[Run], Any], settings: tuple[str, ...]
) -> dict[str, Any]:
    """By folder; empty where runs of the same settings have the same value."""
    groups: dict[Hashable, list[Run]] = {}
    for run in runs:
        groups.setdefault(tuple(str(run.config.get(key)) for key in settings), []).append(run)
    values: dict[str, Any] = {}
    differ = False
    for group in groups.values():
        known = {read(run) for run in group} - {None}
        differ |= len(known) > 1
        # What earlier versions did not write is taken to be the same where all others are.
        other = UNKNOWN if len(known) > 1 else next(iter(known), None)
        for run in group:
            found = read(run)
            values[run.folder] = other if found is None else found
    return values if differ else {}
