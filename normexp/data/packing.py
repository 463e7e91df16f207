"""An array of images written block by block; what a killed run has written, the next one keeps."""

import hashlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

BLOCK = 64  # Images written, and vouched for by a checksum, at a time.

log = logging.getLogger(__name__)


def pack(
    path: Path, shape: tuple[int, ...], blocks: Callable[[int], Iterator[tuple[np.ndarray, bool]]]
) -> Iterator[np.ndarray]:
    """Write a file for ``np.load``, going on behind the blocks that an earlier call left there.

    Beside it stands ``<name>.sums`` with the SHA-256 of each block: blocks count as written up to
    the first that does not have its sum. The caller sees to it that they are of the same images.

    Args:
        shape: (N,...) of the whole uint8 array.
        blocks: gives the images from the n-th on in blocks of :data:`BLOCK`, the last shorter; each
            with whether it is whole: one that is not counts as not written.

    Yields:
        All blocks in order, those that were there too.

    Raises:
        OSError: as the disk does.
    """
    sums = path.with_suffix(".sums")
    known: list[str] = []
    if path.exists() and sums.exists():
        known = sums.read_text(encoding="ascii", errors="replace").split()
    with open(path, "r+b" if known else "wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        done, end = 0, file.tell()
        kept = []
        for block, digest in _kept(file, shape, known):
            kept.append(f"{digest}\n")
            done, end = done + len(block), file.tell()
            yield block
        if done:
            log.info("going on after %d images of %s", done, path.stem)
        file.seek(end)
        file.truncate()
        with open(sums, "w", encoding="ascii") as record:
            record.writelines(kept)
            for block, whole in blocks(done):
                # Written, not mapped: a full disk is then an error and not a killed process.
                file.write(block.data)
                file.flush()
                record.write(f"{_sum(block) if whole else 'not-whole'}\n")
                record.flush()
                yield block


def _kept(
    file: BinaryIO, shape: tuple[int, ...], known: list[str]
) -> Iterator[tuple[np.ndarray, str]]:
    """The whole blocks from the file's position on, with their sums."""
    for first, digest in zip(range(0, shape[0], BLOCK), known, strict=False):
        block = np.empty((min(BLOCK, shape[0] - first), *shape[1:]), np.uint8)
        if file.readinto(block.data) != block.nbytes or _sum(block) != digest:  # type: ignore[attr-defined]
            return
        yield block, digest


def _sum(block: np.ndarray) -> str:
    return hashlib.sha256(block.data).hexdigest()
