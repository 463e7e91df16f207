"""What became of the runs of a sweep, and how it is told."""

import statistics
from dataclasses import dataclass, field
from typing import Any

from normexp.system.printable import printable

GOOD = ("completed", "diverged", "skipped")


@dataclass
class Outcome:
    """What happened to one run of a sweep."""

    cell: str
    """The overrides that its runs have in common, and no other cell; none if it is the only one."""
    status: str
    """As in result.json; or ``skipped``: was complete; ``elsewhere``: another process has it."""
    reason: str | None = None
    val_acc: float | None = None
    test_acc: float | None = None
    seed: int | None = None
    name: str | None = None
    """The folder below ``output`` where it is; not known of a run that recorded nothing."""
    data: str | None = None
    seconds: float = 0.0
    refused: bool = False
    """Of a failed run: its settings can never work."""
    config: dict[str, Any] = field(default_factory=dict)
    """The composed configuration of a run that is to be tried again."""

    @staticmethod
    def of(cell: str, result: dict[str, Any], status: str = "") -> "Outcome":
        """What result.json says.

        Args:
            status: in place of the one recorded.
        """
        names = ("reason", "val_acc", "test_acc", "seed", "name", "data")
        known = {name: result[name] for name in names}
        return Outcome(cell, status or result["status"], **known)


def duration(seconds: float) -> str:
    """A time a person can read: 8 s, 3 min, 2 h 05 min."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def rows(cell: str, runs: list[Outcome]) -> list[str]:
    """A cell, and below it why runs did not end well."""
    tested = [run.test_acc for run in runs if run.test_acc is not None]
    accuracy = f"{100 * statistics.mean(tested):.2f}" if tested else "-"
    if len(tested) > 1:
        accuracy += f" ± {100 * statistics.stdev(tested):.2f}"
    seconds = sum(run.seconds for run in runs)
    took = duration(seconds) if seconds else "-"
    reasons: dict[str, list[str]] = {}
    for run in runs:
        if run.reason:
            reasons.setdefault(run.reason, []).append(str(run.seed))
    why = [
        " " * 8 + (f"seed {', '.join(seeds)}: " if len(runs) > 1 else "") + printable(reason)
        for reason, seeds in reasons.items()
    ]
    return [row(accuracy, str(len(tested)), took, f"{cell or 'all'}: {statuses(runs)}"), *why]


def statuses(runs: list[Outcome]) -> str:
    found = [run.status for run in runs]
    return ", ".join(f"{found.count(status)} {status}" for status in dict.fromkeys(found))


def counted(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"


def row(accuracy: str, n: str, took: str, text: str) -> str:
    return f"{accuracy:>15}  {n:>3}  {took:>10}  {printable(text)}"
