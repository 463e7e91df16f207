"""What a person sees of a run: a bar on a terminal, a line an epoch, a table at the end; the same
lines go to the run's train.log."""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from tqdm import tqdm

logger = logging.getLogger("normexp")


class _AboveTheBar(logging.Handler):
    """Prints to stdout without tearing the progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stdout)
        sys.stdout.flush()


class Logs:
    """Sends the lines of a run to stdout and to its train.log until closed."""

    def __init__(self, path: Path, brief: bool) -> None:
        self.file = logging.FileHandler(path, encoding="utf-8")
        self.file.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        self.screen = _AboveTheBar()
        # A traceback belongs into the file; the screen gets one line.
        self.screen.addFilter(lambda record: record.exc_info is None)
        if brief:
            self.screen.addFilter(lambda record: not getattr(record, "detail", False))
        logger.setLevel(logging.INFO)
        logger.propagate = False
        for handler in (self.file, self.screen):
            logger.addHandler(handler)

    def close(self) -> None:
        for handler in (self.file, self.screen):
            logger.removeHandler(handler)
            handler.close()


def detail(text: str) -> None:
    """Say what is of interest for a single run, not for each of a hundred."""
    logger.info("%s", text, extra={"detail": True})


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
