"""What the command lines share: one-line errors, which folders are runs, norms that lie here."""

import argparse
import sys
from pathlib import Path
from typing import NoReturn

from normexp.errors import UserError
from normexp.run_directory import NOT_RUNS


class OneLineParser(argparse.ArgumentParser):
    """Says what is wrong with a command line in one line."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message.removeprefix('argument ')}; --help lists what there is")


def runs_among(given: list[Path]) -> list[Path]:
    """Folders less those that are never runs, such as the report's, which `outputs/NAME/*` names
    too; all where nothing else is given."""
    return [path for path in given if path.name not in NOT_RUNS] or given


def look_for_norms_here() -> None:
    """A norm of one's own may lie in the folder one works in, with the console script too."""
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
