"""Many image files as pixels, by several threads where that is faster."""

import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from normexp.data.decoding import LevelsWanted, UnreadableImage, decode, measure
from normexp.data.layout import SET_NAMES
from normexp.data.levels import SIXTEEN_BITS, Extent, Levels, levels_of
from normexp.data.listing import Listing
from normexp.data.packing import BLOCK
from normexp.data.salvage import File, Salvage

# Bytes. Pillow reads headers in Python, one thread at a time: threads slow small images down.
_SMALL_FILE = 16_384

MEASURED = "measured.json"

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Decoder:
    """Decodes the images of one listing."""

    listing: Listing
    size: int
    levels: Levels | None
    """Black and white of images of more than 8 bits a channel; None where they are not known."""
    salvage: Salvage
    unreadable: dict[Path, str]
    """Why, by path: those met so far, of other listings too."""

    def blocks(self, first: int) -> Iterator[tuple[np.ndarray, bool]]:
        """As :func:`normexp.data.packing.pack` asks for them, the images from ``first`` on.

        Raises:
            LevelsWanted: one has more than 8 bits a channel, and the levels are not known.
        """
        files = self.listing.files
        blocks = (files[start : start + BLOCK] for start in range(first, len(files), BLOCK))
        yield from _in_order(files, self._block, blocks)

    def _block(self, files: Sequence[File]) -> tuple[np.ndarray, bool]:
        """uint8 [n, 3, S, S], zeros for what cannot be read; and whether all could."""
        images = np.zeros((len(files), 3, self.size, self.size), dtype=np.uint8)
        whole = True
        for image, file in zip(images, files, strict=True):
            path = self.listing.folder / file[0]
            known = self.salvage.get(file)
            try:
                image[:] = decode(path, self.size, self._known) if known is None else known
            except UnreadableImage as error:
                self.unreadable[path] = error.reason
                whole = False
        return images, whole

    def _known(self, extent: Extent) -> Levels:
        if self.levels is None:
            raise LevelsWanted
        return self.levels


@dataclass(frozen=True)
class Measured:
    """What the images of more than 8 bits a channel are shown by."""

    levels: Levels
    notes: list[str]

    @classmethod
    def left_in(cls, folder: Path) -> "Measured | None":
        """What packing that was killed had found; None if it did not come so far."""
        try:
            found = json.loads((folder / MEASURED).read_text(encoding="utf-8"))
            return cls(Levels(**found["levels"]), found["notes"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def leave_in(self, folder: Path) -> None:
        (folder / MEASURED).write_text(json.dumps(asdict(self)), encoding="utf-8")


def measure_all(sets: Mapping[str, Listing], given: Levels | None, bar: Any) -> Measured:
    """One range for all sets: that of the training images, unless a run brings its own.

    Args:
        bar: told of each image.

    Raises:
        UserError: the training images have no common range.
    """
    extents: dict[str, list[Extent]] = {}
    for name, listing in sets.items():
        paths = (listing.folder / file[0] for file in listing.files)
        extents[name] = []
        for extent in _in_order(listing.files, measure, paths):
            bar.update()
            if extent is not None:
                extents[name].append(extent)
    found = levels_of(extents["train"]) if given is None and extents.get("train") else None
    levels = found or given or SIXTEEN_BITS
    if found:
        origin = "found from the training images"
    elif levels is SIXTEEN_BITS:
        origin = "all of 16 bits, since the training images say nothing of it"
    else:
        origin = "as in training"
    count = sum(map(len, extents.values()))
    notes = [
        f"{count:,} images have more than 8 bits a channel: {levels} is black to white, {origin}"
    ]
    for name, each in extents.items():
        if outside := sum(map(levels.exceeded_by, each)):
            part = f"{outside:,} of {len(each):,} such {SET_NAMES[name]} images"
            notes.append(f"values beyond that become black or white in {part}")
    return Measured(levels, notes)


def _in_order(
    files: Sequence[File], function: Callable[[_Item], _Result], items: Iterable[_Item]
) -> Iterator[_Result]:
    """``map`` by as many threads as these files are worth; few calls are started ahead, so that
    results do not pile up."""
    mean_bytes = sum(count for _, count, _ in files) / len(files)
    workers = 1 if mean_bytes < _SMALL_FILE else os.cpu_count() or 1
    pending: deque[Future[_Result]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) > 2 * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
