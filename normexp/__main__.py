"""The console script: `normexp train ...` is `python -m normexp.train ...`."""

import importlib
import sys

COMMANDS = {
    "train": "train one run, or a sweep with -m",
    "evaluate": "score finished runs again, with a confusion matrix and calibration",
    "predict": "classify images with a finished run",
    "export": "write a finished run as ONNX or for torch.export",
    "data": "prepare a data set before a sweep: normexp data fetch",
    "report": "what a directory of runs says: table, pictures, one HTML page",
    "norms": "the norms as a table, or one with its formula",
    "bench": "what things cost: a step, each norm, the batches, and how it grows",
}
MODULES = {
    "train": "normexp.train",
    "evaluate": "normexp.evaluate",
    "predict": "normexp.predict",
    "export": "normexp.export",
    "data": "normexp.data.__main__",
    "report": "normexp.report.__main__",
    "norms": "normexp.norms.__main__",
    "bench": "normexp.bench.__main__",
}


def main() -> None:
    command = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if command in COMMANDS:
        sys.argv[:2] = [f"normexp {command}"]
        importlib.import_module(MODULES[command]).main()
        return
    lines = [f"  {name:<8}  {what}" for name, what in COMMANDS.items()]
    usage = "\n".join(["usage: normexp COMMAND ...; each command answers --help", "", *lines])
    if command in ("-h", "--help"):
        print(usage)
        return
    print(f"normexp: error: {command}: no such command; use {', '.join(COMMANDS)}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
