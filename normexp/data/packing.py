"""An array of images written block by block; what a killed run has written, the next one keeps."""

import hashlib
import logging
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

BLOCK = 64  # Images written, and vouched for by a checksum, at a time.
SAMPLE = 1 << 23  # Bytes: what is checked of an array each time that it is opened.
NOT_WHOLE = "not-whole:"  # Before the checksum of a block that holds images that could not be read.

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
    known = checksums(path) if path.exists() else []
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
                record.write(f"{'' if whole else NOT_WHOLE}{_sum(block)}\n")
                record.flush()
                yield block


def checksums(path: Path) -> list[str]:
    """Those of the blocks of a file that :func:`pack` wrote; none where they are not there."""
    sums = path.with_suffix(".sums")
    if not sums.exists():
        return []
    return sums.read_text(encoding="ascii", errors="replace").split()


def is_block(images: np.ndarray, number: int, checksum: str) -> bool:
    """Whether a block of an array is what was written."""
    return _sum(images[BLOCK * number : BLOCK * (number + 1)]) == checksum


def is_sound(images: np.ndarray, known: list[str]) -> bool:
    """Whether blocks that are drawn anew each time are what was written: all of a small array, and
    at least one of any.

    Args:
        known: the :func:`checksums` of all blocks.
    """
    blocks = range(-(-len(images) // BLOCK))
    most = max(1, SAMPLE // images[:BLOCK].nbytes)
    # Of no seed: the numbers that a run draws stay what they are.
    drawn = blocks if len(blocks) <= most else random.SystemRandom().sample(blocks, most)
    return len(known) == len(blocks) and all(is_block(images, n, known[n]) for n in drawn)


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
