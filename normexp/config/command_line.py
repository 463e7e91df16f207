"""What the command lines share: one-line errors, and norms that lie here."""

import argparse
import re
import sys
from pathlib import Path
from typing import Any, NoReturn

from normexp import __version__
from normexp.config.checks import nearest
from normexp.system.errors import UserError


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


def look_for_norms_here() -> None:
    """A norm of one's own may lie in the folder one works in, with the console script too."""
    if str(Path.cwd()) not in sys.path:
        # Last: what lies here is to be mistaken for no package that is imported later.
        sys.path.append(str(Path.cwd()))
