"""The commands of the console script."""

COMMANDS = {
    "train": ("normexp.train", "train one run, or a sweep with -m"),
    "compare": (
        "normexp.compare",
        "tune norms, add seeds until it is decided, within a time",
    ),
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
