"""The console script: `normexp train ...` is `python -m normexp.train ...`."""

import importlib
import sys

from normexp import __version__
from normexp.help.commands import COMMANDS


def _completes(arguments: list[str]) -> bool:
    """Answer a shell, which asks at each press of a key, without importing the rest of train."""
    from normexp.help import completion

    return completion.main(arguments)


def main() -> None:
    command, *arguments = sys.argv[1:] or ["--help"]
    if command in COMMANDS:
        if command == "train" and _completes(arguments):
            return
        sys.argv[:2] = [f"normexp {command}"]
        importlib.import_module(COMMANDS[command][0]).main()
    elif command in ("-h", "--help"):
        lines = [f"  {name:<8}  {what}" for name, (_, what) in COMMANDS.items()]
        print("usage: normexp COMMAND ...; each command answers --help", "", *lines, sep="\n")
        print('\ncompletion in bash: eval "$(normexp train -sc install=bash)"; also zsh, fish')
    elif command == "--version":
        print(f"normexp {__version__}")
    else:
        from normexp.config.checks import nearest

        known = f"use {', '.join(COMMANDS)}"
        hint = nearest(command, [*COMMANDS, "--help", "--version"])
        print(f"normexp: error: {command}: no such command;{hint} {known}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
