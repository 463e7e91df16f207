"""The errors that an entry point shows as one line without a traceback."""

import errno
from pathlib import Path

from normexp.system.printable import printable

# EFBIG: larger than the system allows this process.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class UserError(ValueError):
    """Something a person asked for cannot be done; the message is one line that names the fix."""

    def __str__(self) -> str:
        # It may name files and classes that others named.
        return printable(super().__str__())


class DiskFull(UserError):
    """There is no room for a file; other runs on that disk fare no better."""

    def __init__(self, path: Path, why: str, fix: str) -> None:
        super().__init__(f"{path} cannot be written: {why}; make room or {fix}")
        self.arguments = path, why, fix

    def __reduce__(self) -> tuple[type, tuple[Path, str, str]]:
        return type(self), self.arguments  # from the processes of a launcher

    def of(self, folder: Path) -> str:
        """The same of all runs below a folder, or as it is of a file elsewhere."""
        path, why, fix = self.arguments
        return str(DiskFull(folder, why, fix) if path.is_relative_to(folder) else self)


def cannot_write(path: Path, error: OSError, fix: str = "choose output=...") -> UserError:
    """What to raise when a file cannot be written.

    Args:
        fix: what a person can do, beside making room on a disk that is full.
    """
    why = error.strerror or str(error)
    if error.errno in FULL:
        return DiskFull(path, why, fix)
    return UserError(f"{path} cannot be written: {why}; {fix}")


class BusyElsewhere(Exception):
    """Another process is training this run."""


class RunFailed(Exception):
    """An error ended a run; the message is one line, the traceback is in the run's train.log."""
