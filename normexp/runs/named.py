"""Which runs a person means by the folders that a command is given."""

from pathlib import Path
from typing import Any

from normexp.config.checks import NOT_RUNS
from normexp.runs.directory import run_directories
from normexp.runs.recorded_config import NotReadable
from normexp.runs.records import read_result
from normexp.system.errors import UserError
from normexp.system.printable import note


def runs_among(given: list[Path]) -> list[Path]:
    """Folders less those that are never runs, such as the report's, which `outputs/NAME/*` names
    too; all where nothing else is given."""
    return [path for path in given if path.name not in NOT_RUNS] or given


def runs_below(given: list[Path]) -> list[Path]:
    """Run directories as they are, and for other folders the runs below them, if there are any."""
    found = [sorted(run_directories(path)) or [path] for path in given]
    return list(dict.fromkeys(run for runs in found for run in runs))


def best_below(folder: Path) -> Path:
    """A run directory as it is; for a sweep's folder the run that was best on validation, which is
    said on stderr where there are several.

    Raises:
        UserError: nothing tells which is best.
    """
    runs = runs_below([folder])
    if len(runs) == 1:
        return runs[0]
    results = {run: found for run in runs if (found := _completed(run))}
    images = {(found["data"], found["data_fingerprint"]) for found in results.values()}
    if len(images) != 1:
        why = "are of different images" if images else "have no accuracy on validation"
        known = ", ".join(map(str, runs[:3])) + (", ..." if len(runs) > 3 else "")
        raise UserError(f"{folder}: its {len(runs)} runs {why}; name one: {known}")
    best = max(results, key=lambda run: results[run]["val_acc"])
    reached = f"{100 * results[best]['val_acc']:.2f} %"
    note(f"{best} is the best on validation ({reached}) of {len(runs)} runs")
    return best


def _completed(run: Path) -> dict[str, Any] | None:
    """The result of a run that was completed and validated."""
    try:
        found = read_result(run / "result.json", run.name)
    except (OSError, NotReadable):
        return None
    validated = isinstance(found["val_acc"], int | float)
    return found if found["status"] == "completed" and validated else None
