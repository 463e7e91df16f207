"""What the command lines share: one-line errors, which folders are runs, norms that lie here."""

import argparse
import re
import sys
from pathlib import Path
from typing import Any, NoReturn

from normexp import __version__
from normexp.config_checks import nearest
from normexp.errors import UserError
from normexp.printable import note
from normexp.recorded_config import NotReadable
from normexp.run_directory import NOT_RUNS, run_directories
from normexp.run_records import read_result


class OneLineParser(argparse.ArgumentParser):
    """Says what is wrong with a command line in one line, and which version this is."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.add_argument("--version", action="version", version=f"normexp {__version__}")
        self.given: list[str] = []

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        self.given = list(sys.argv[1:] if args is None else args)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Name an unknown option rather than what argparse misses beside it."""
        known, lists = self._option_string_actions, "--help lists what there is"
        for word in self.given:
            option = word.partition("=")[0]
            flag = re.match(r"--?[a-zA-Z]", option)
            if flag and not any(name.startswith(option) for name in known):
                raise UserError(f"{option}: no such option;{nearest(option, known)} {lists}")
        raise UserError(f"{message.removeprefix('argument ')}; {lists}")


def add_norm(parser: argparse.ArgumentParser) -> None:
    """The option by which a person asks for code that a run alone may not choose."""
    parser.add_argument(
        "--norm", metavar="MODULE:FUNCTION",
        help="the run's own norm, where its code may be used although the run does not say which "
        "file that was, or it is of an installed package",
    )  # fmt: skip


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


def look_for_norms_here() -> None:
    """A norm of one's own may lie in the folder one works in, with the console script too."""
    if str(Path.cwd()) not in sys.path:
        # Last: what lies here is to be mistaken for no package that is imported later.
        sys.path.append(str(Path.cwd()))
