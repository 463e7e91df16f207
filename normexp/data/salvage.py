"""What a packing had decoded when it ended over images that cannot be read, for the next one."""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from normexp.data.packing import BLOCK, NOT_WHOLE, checksums, is_block
from normexp.system.errors import UserError
from normexp.system.printable import printable

File = tuple[str, int, int]
"""Path relative to the folder, size in bytes, time of change in ns."""

NAMED = 5
"""How many unreadable images the error names; a file has them all."""


class Salvage:
    """Decoded images of ``<name>_images.npy`` by their files; none where ``folder`` is absent."""

    def __init__(self, folder: Path, name: str) -> None:
        self._rows: dict[File, int] = {}
        path = folder / f"{name}_images.npy"
        try:
            self._images = np.load(path, mmap_mode="r")
            whole = {
                number
                for number, checksum in enumerate(checksums(path))
                if is_block(self._images, number, checksum.removeprefix(NOT_WHOLE))
            }
            listed = json.loads((folder / f"{name}_files.json").read_text(encoding="ascii"))
        except (OSError, ValueError):
            return
        self._rows = {
            (file[0], file[1], file[2]): row
            for row, file in enumerate(listed)
            if file and row // BLOCK in whole
        }

    def get(self, file: File) -> np.ndarray | None:
        """Its pixels, uint8 [3, S, S]; None if it was not decoded or has changed since."""
        row = self._rows.get(file)
        return None if row is None else self._images[row]


def leave(
    part: Path,
    folder: Path,
    sets: Mapping[str, tuple[Path, Sequence[File]]],
    unreadable: Mapping[Path, str],
) -> UserError:
    """Move what was packed in ``part`` to ``folder``, in place of what lay there.

    Args:
        sets: by name the folder of the set's images, and its files in the order of their pixels.
        unreadable: why, by path; their pixels mean nothing.

    Returns:
        The error to end with: how many images cannot be read, and which.
    """
    for name, (root, files) in sets.items():
        listed = [None if root / file[0] in unreadable else file for file in files]
        (part / f"{name}_files.json").write_text(json.dumps(listed), encoding="ascii")
    paths = sorted(unreadable)
    (part / "unreadable.txt").write_bytes(b"".join(os.fsencode(path) + b"\n" for path in paths))
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(part, folder)

    total = sum(len(files) for _, files in sets.values())
    named = ", ".join(f"{printable(str(path))} ({unreadable[path]})" for path in paths[:NAMED])
    more = len(paths) - NAMED
    rest = f" and {more} more, all listed in {folder / 'unreadable.txt'}" if more > 0 else ""
    return UserError(
        f"cannot read {len(paths)} of {total} images: {named}{rest}; repair or remove "
        f"{'it' if len(paths) == 1 else 'them'}"
    )
