"""Images that a person names, as a finished run wants them."""

import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from normexp.data.decoding import decode
from normexp.data.levels import SIXTEEN_BITS, Extent, Levels
from normexp.data.listing import few, look_into
from normexp.finished.finished_run import FinishedRun
from normexp.system.errors import UserError
from normexp.system.printable import note, printable

AT_ONCE = 128  # images that meet the network together


def packs(
    given: list[str], run: FinishedRun, bad: list[str]
) -> Iterator[tuple[list[str], np.ndarray]]:
    """Names and pixels, uint8 (n,3,S,S), of some images at a time.

    What is no image is named on stderr and added to ``bad``.
    """
    names: list[str] = []
    pixels: list[np.ndarray] = []
    levels_for = _levels_for(run)
    for file in _files(given, bad):
        try:
            pixels.append(decode(file, run.image_size, levels_for))
        except UserError as error:
            setting = re.match(r"[a-z_.]+=", str(file)) and not os.path.lexists(str(file))
            _complain(f"{file}: predict takes no settings" if setting else str(error), bad)
            continue
        names.append(str(file) if isinstance(file, Path) else "-")
        if len(names) == AT_ONCE:
            yield names, np.stack(pixels)
            names, pixels = [], []
    if names:
        yield names, np.stack(pixels)


def _levels_for(run: FinishedRun) -> Callable[[Extent], Levels]:
    """What is black and white in images of more than 8 bits a channel: as in training."""
    levels, told = run.levels or SIXTEEN_BITS, set()

    def say_once(what: str, line: str) -> None:
        if what not in told:
            note(line)
        told.add(what)

    def levels_for(extent: Extent) -> Levels:
        if run.levels is None:
            say_once(
                "unknown",
                f"images of more than 8 bits a channel are given: {levels} is black to white, "
                "since the run knows nothing of such images",
            )
        if levels.exceeded_by(extent):
            say_once(
                "beyond",
                f"an image, and perhaps others, has values from {extent.least:g} to "
                f"{extent.greatest:g}: what is beyond {levels} becomes black or white",
            )
        return levels

    return levels_for


def _files(given: list[str], bad: list[str]) -> Iterator[Path | BinaryIO]:
    for name in given:
        path = Path(name)
        if name == "-":
            yield sys.stdin.buffer
        elif path.is_dir():
            found = look_into(path)
            for error in found.closed:
                _complain(f"cannot look into {error.filename}: {error.strerror}", bad)
            if found.others:
                note(
                    f"{path}: ignored {len(found.others):,} files that are no images: "
                    f"{few(found.others)}"
                )
            if not found.images and not found.closed:
                _complain(f"{path} holds no images", bad)
            yield from sorted(path / file for file, _, _ in found.images)
        else:
            yield path


def _complain(line: str, bad: list[str]) -> None:
    bad.append(line)
    print(printable(f"normexp: {line}"), file=sys.stderr)
