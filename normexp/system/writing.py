"""Files that are written whole or not at all, and places that cannot be written."""

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from normexp.system.errors import UserError, cannot_write
from normexp.system.foreign_files import kind


@contextlib.contextmanager
def replacing(
    path: Path, fix: str = "choose output=...", follow: bool = False, kept: Path | None = None
) -> Iterator[BinaryIO]:
    """Open a temporary file that takes the place of ``path`` once it is whole and on the disk.

    Args:
        fix: what a person can do instead if it cannot be written.
        follow: replace what a link leads to, where a person named the file. A link in a run
            directory is replaced itself: whoever made that would choose what is overwritten.
        kept: what becomes of the file that was there.

    Raises:
        UserError: the disk is full, the folder cannot be written, or no file is there but
            something else, such as a device.
    """
    temporary = None
    if follow:
        path = Path(os.path.realpath(path))
    try:
        refuse_other_than_file(path, fix, links=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(
            dir=path.parent, prefix=f".{path.name}.", suffix=".tmp"
        )
        with os.fdopen(handle, "wb") as file:
            yield file
            # Readable by whom the person's umask allows, as any file; mkstemp's are private.
            os.chmod(temporary, 0o666 & ~_umask())
            file.flush()
            os.fsync(file.fileno())
        if kept is not None and path.exists():
            os.replace(path, kept)
        os.replace(temporary, path)
    except OSError as error:
        raise cannot_write(path, error, fix) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def refuse_other_than_file(path: Path, fix: str, links: bool = False) -> None:
    """Raise a UserError where a file is to be written and something else is, but maybe a link."""
    with contextlib.suppress(FileNotFoundError):
        mode = path.lstat().st_mode
        if not stat.S_ISREG(mode) and not (links and stat.S_ISLNK(mode)):
            raise UserError(f"{path} is {kind(mode)}, and a file is to be written; {fix}")


def refuse_other_than_folder(path: Path, fix: str) -> None:
    """Raise a UserError where a folder of a run should be and something else is, a link too.

    Whoever made that would choose what is read, and where files go.
    """
    with contextlib.suppress(FileNotFoundError):
        mode = path.lstat().st_mode
        if not stat.S_ISDIR(mode):
            raise UserError(f"{path} is {kind(mode)}, and a folder belongs there; {fix}")


def refuse_unwritable(path: Path, option: str, folder: bool = False) -> None:
    """Find out before any work whether a file that a person named can be written, or a folder.

    Args:
        option: by which it was named.

    Raises:
        UserError: it cannot, or something else is there, such as a device.
    """
    real = Path(os.path.realpath(path))
    fix = "choose another place"
    try:
        if os.path.lexists(real) and not (real.is_dir() if folder else real.is_file()):
            raise UserError(f"{option} {path} is {kind(real.stat().st_mode)}; {fix}")
        places = [real, *real.parents] if folder else real.parents
        with tempfile.TemporaryFile(dir=next(place for place in places if place.exists())):
            pass
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{option} {path}: cannot be written: {reason}; {fix}") from error


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
