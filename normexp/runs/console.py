"""What a person sees of a run: a bar on a terminal, a line an epoch, a table at the end; the same
lines go to the run's train.log."""

import contextlib
import logging
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from tqdm import tqdm

logger = logging.getLogger("normexp")
"""The screen of a command; each run's log passes on to it."""

SILENT = logging.Logger("silent", logging.CRITICAL)
"""The log of a process that leaves speaking to another."""


class _AboveTheBar(logging.Handler):
    """Prints to stdout without tearing the progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stdout)
        sys.stdout.flush()


class _Log(logging.FileHandler):
    """Says less where the disk is full, which the run's other files tell: logging would print a
    traceback for each line."""

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(OSError):
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            super().close()


@contextlib.contextmanager
def screen(brief: bool, quiet: bool = False) -> Iterator[None]:
    """Show on stdout what is logged.

    Args:
        brief: not what is of interest for a single run, not for each of a hundred.
        quiet: only warnings and worse.
    """
    handler = _AboveTheBar()
    # A traceback belongs into the file; the screen gets one line.
    handler.addFilter(lambda record: record.exc_info is None and getattr(record, "screen", True))
    if quiet:
        handler.setLevel(logging.WARNING)
    if brief:
        handler.addFilter(lambda record: not getattr(record, "detail", False))
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def run_log(path: Path) -> logging.Logger:
    """What a run says: appended to its train.log, and passed on to the screen."""
    # Not logging.getLogger, which would keep each run's log for ever.
    log = logging.Logger(path.parent.name)
    log.parent = logger
    # Names of files need not be UTF-8.
    handler = _Log(path, encoding="utf-8", errors="backslashreplace", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log.addHandler(handler)
    return log


def close_log(log: logging.Logger) -> None:
    for handler in log.handlers:
        handler.close()


BESIDE = "| {n_fmt}/{total_fmt} [{elapsed}<{remaining}"
LEAST_BAR = 8
"""Columns of a bar below which it says less beside itself."""


def evaluation_bar(what: str, images: int, wanted: bool) -> "tqdm[NoReturn]":
    """A bar over images, on stderr, silent when that is not a terminal."""
    return tqdm(
        total=images, desc=what, dynamic_ncols=True, leave=False,
        disable=None if wanted and images else True,
        bar_format="{desc} {percentage:3.0f}%|{bar}" + BESIDE + "]",
    )  # fmt: skip


class Bars:
    """A bar over all steps of a run, and below it one over the images of a validation or a test,
    on stderr, silent when that is not a terminal."""

    def __init__(self, steps: int, done: int, wanted: bool) -> None:
        self.wanted = wanted
        self.steps: tqdm[NoReturn] = tqdm(
            total=steps, initial=done, dynamic_ncols=True, leave=False, smoothing=0.1,
            disable=None if wanted else True,
            bar_format="{percentage:3.0f}%|{bar}" + BESIDE + "{postfix}]",
        )  # fmt: skip
        self.evaluation: tqdm[NoReturn] | None = None

    def begin_evaluation(self, what: str, images: int) -> None:
        self.evaluation = evaluation_bar(what, images, self.wanted)

    def end_evaluation(self) -> None:
        if self.evaluation is not None:
            self.evaluation.close()
        self.evaluation = None

    def advance(self, count: int) -> None:
        """So many steps were taken, or images evaluated."""
        (self.steps if self.evaluation is None else self.evaluation).update(count)

    def say(self, fields: Sequence[str]) -> None:
        """Write fields beside the bar of steps: as many, from the first, as leave it room."""
        bar = self.steps
        if bar.disable:
            return
        free = (bar.format_dict["ncols"] or 80) - LEAST_BAR
        free -= len(f"100%|| {bar.total}/{bar.total} [00:00<00:00]")
        count = 0
        while count < len(fields) and len(", " + ", ".join(fields[: count + 1])) <= free:
            count += 1
        bar.set_postfix_str(", ".join(fields[:count]))

    def close(self) -> None:
        self.end_evaluation()
        self.steps.close()


def fitting(forms: Sequence[str]) -> str:
    """The first of several forms of a line that a terminal has room for; else the last. Where
    stdout is none, the first."""
    if not sys.stdout.isatty():
        return forms[0]
    columns = shutil.get_terminal_size().columns
    return next((form for form in forms if len(form) <= columns), forms[-1])


def percent(fraction: float | None) -> str:
    return "-" if fraction is None else f"{100 * fraction:.2f} %"


def table(rows: Sequence[tuple[str, str]]) -> str:
    """Two aligned columns."""
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in rows)


def closing(result: dict[str, Any], folder: Path) -> str:
    """What one run came to, of its result.json."""
    return table(
        [
            ("test accuracy", percent(result["test_acc"])),
            ("validation accuracy", percent(result["val_acc"])),
            ("tested weights of epoch", str(result["tested_epoch"] or "-")),
            ("training loss, last epoch", number(result["train_loss"], ".4f")),
            ("parameters", number(result["parameters"], ",d")),
            ("time", number(result["seconds"], ".1f") + " s"),
            ("time a step", number(result["ms_per_step"], ".3f") + " ms"),
            ("images a second", number(result["images_per_second"], ",.0f")),
            ("run directory", str(folder)),
        ]
    )


def number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
