"""The console script: `normexp train ...` is `python -m normexp.train ...`."""

import importlib
import sys

from normexp import __version__

COMMANDS = {
    "train": ("normexp.train", "train one run, or a sweep with -m"),
    "evaluate": (
        "normexp.evaluate",
        "score finished runs again, with a confusion matrix and calibration",
    ),
    "predict": ("normexp.predict", "classify images with a finished run"),
    "export": ("normexp.export", "write a finished run as ONNX or for torch.export"),
    "data": ("normexp.data.__main__", "prepare a data set before a sweep: normexp data fetch"),
    "report": (
        "normexp.report.__main__",
        "what a directory of runs says: table, pictures, one HTML page",
    ),
    "norms": ("normexp.norms.__main__", "the norms as a table, or one with its formula"),
    "bench": (
        "normexp.bench.__main__",
        "what things cost: a step, the norms, and how it grows",
    ),
}
"""The module of each, and what it does."""


def _completes(arguments: list[str]) -> bool:
    """Answer a shell, which asks at each press of a key, without importing the rest of train."""
    from normexp import completion

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
        from normexp.config_checks import nearest

        known = f"use {', '.join(COMMANDS)}"
        hint = nearest(command, [*COMMANDS, "--help", "--version"])
        print(f"normexp: error: {command}: no such command;{hint} {known}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
