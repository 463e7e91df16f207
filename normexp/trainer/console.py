"""What a person sees of a run: a bar on a terminal, a line an epoch, a table at the end; the same
lines go to the run's train.log."""

import contextlib
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

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
def screen(brief: bool) -> Iterator[None]:
    """Show on stdout what is logged.

    Args:
        brief: not what is of interest for a single run, not for each of a hundred.
    """
    handler = _AboveTheBar()
    # A traceback belongs into the file; the screen gets one line.
    handler.addFilter(lambda record: record.exc_info is None and getattr(record, "screen", True))
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


def progress_bar(steps: int, done: int, wanted: bool) -> "tqdm[NoReturn]":
    """A bar over all steps of a run, on stderr, silent when that is not a terminal."""
    return tqdm(
        total=steps, initial=done, unit="step", dynamic_ncols=True, leave=False,
        disable=None if wanted else True, smoothing=0.1,
    )  # fmt: skip


def percent(fraction: float | None) -> str:
    return "-" if fraction is None else f"{100 * fraction:.2f} %"


def table(rows: Sequence[tuple[str, str]]) -> str:
    """Two aligned columns."""
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in rows)


def number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
