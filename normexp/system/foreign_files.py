"""Files that others may have made or damaged: regular ones, no larger than theirs would be.

All that a command reads and did not write a moment ago is opened here: opening a FIFO waits for
ever, and reading a device, or a file that says it is huge, takes all memory.
"""

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

RECORD = 2**26
"""The most bytes of a result, a configuration, or code of a person's own."""
TABLE = 2**28
"""Of metrics.csv and diagnostics.csv."""
IMAGES = 2**30
"""Of an image, or of a file of CIFAR-10."""
CHECKPOINT = 2**35


def kind(mode: int) -> str:
    """What ``st_mode`` says that something is."""
    names = {
        stat.S_IFREG: "a file", stat.S_IFDIR: "a folder", stat.S_IFLNK: "a link",
        stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket",
    }  # fmt: skip
    return names.get(stat.S_IFMT(mode), "a device")


def open_regular(path: Path, most: int) -> BinaryIO:
    """Open a file to be read, through links.

    Raises:
        OSError: it cannot be opened, is something else, or holds more than ``most`` bytes;
            ``strerror`` says which.
    """
    # Before it is opened, since that alone starts some devices, and after: it may be another now.
    _refuse(path, os.stat(path), most)
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    file = os.fdopen(os.open(path, flags), "rb")
    try:
        _refuse(path, os.fstat(file.fileno()), most)
    except OSError:
        file.close()
        raise
    return file


def _refuse(path: Path, status: os.stat_result, most: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, f"{kind(status.st_mode)} and no file", str(path))
    if status.st_size > most:
        raise _too_large(most, str(path))


def _too_large(most: int, path: str) -> OSError:
    return OSError(errno.EINVAL, f"larger than the {most // 2**20:,} MiB that are read of it", path)


def read_bytes(path: Path, most: int) -> bytes:
    """All of a file.

    Raises:
        OSError: as :func:`open_regular`.
    """
    with open_regular(path, most) as file:
        return file.read()


def read_stream(stream: BinaryIO, most: int) -> bytes:
    """All that comes, such as on standard input.

    Raises:
        OSError: it cannot be read, or more comes than ``most`` bytes.
    """
    parts, size = [], 0
    while part := stream.read(2**20):
        parts.append(part)
        size += len(part)
        if size > most:
            raise _too_large(most, "standard input")
    return b"".join(parts)


def read_text(path: Path, most: int) -> str:
    """All of a file in UTF-8.

    Raises:
        OSError, UnicodeDecodeError: as :func:`open_regular`, or it is no such text.
    """
    return read_bytes(path, most).decode()


def read_json(path: Path) -> Any:
    """What a file of JSON holds.

    Raises:
        OSError, ValueError: as :func:`open_regular`, or it is no JSON.
    """
    try:
        return json.loads(read_bytes(path, RECORD))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
