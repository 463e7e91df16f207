"""What the commands on finished runs share: one-line errors, and norms in the working folder."""

import argparse
import sys
from pathlib import Path
from typing import NoReturn

from normexp.errors import UserError


class OneLineParser(argparse.ArgumentParser):
    """Says what is wrong with a command line in one line."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message.removeprefix('argument ')}; --help lists what there is")


def look_for_norms_here() -> None:
    """A norm of one's own may lie in the folder one works in, with the console script too."""
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
