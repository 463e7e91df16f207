"""python -m normexp.bench [norms|data|growth]: the first argument picks what is measured."""

import importlib
import sys
from pathlib import Path

from normexp.config_checks import nearest
from normexp.entry import one_line_errors
from normexp.errors import UserError
from normexp.openmp import wait_briefly

COMMANDS = {
    "norms": "each norm alone: forward, backward, memory, over a plain copy",
    "data": "the batch pipeline alone, beside a DataLoader",
    "growth": "how time and memory grow with batch size, runs and images",
}


def main(arguments: list[str] | None = None) -> None:
    given = sys.argv[1:] if arguments is None else arguments
    # A norm of one's own may lie in the folder one works in, with the console script too.
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    wait_briefly()
    with one_line_errors():
        command, rest = _pick(given)
        importlib.import_module(f"normexp.bench.{command}").main(rest)


def _pick(given: list[str]) -> tuple[str, list[str]]:
    """The part that is meant and its arguments; the trainer's steps if none is named."""
    first = given[0] if given else ""
    if first in COMMANDS:
        return first, given[1:]
    if first and not first.startswith("-") and "=" not in first:
        raise UserError(
            f"{first}: no such part of the bench;{nearest(first, COMMANDS)} "
            f"there are {', '.join(COMMANDS)}, and none for the trainer's steps"
        )
    return "steps", given


if __name__ == "__main__":
    main()
