"""Locks between runs, working folders that never outlive their use, and disk errors in one line."""

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from normexp.system.errors import UserError

log = logging.getLogger(__name__)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file ``path``, waiting for whoever has it; the file is left behind."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("waiting for another run that is preparing the data in %s", path.parent)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def working_folder(path: Path) -> Iterator[Path]:
    """An empty folder that is gone afterwards; call it under a lock of its own.

    What a killed run left there is removed first.
    """
    if path.exists():
        shutil.rmtree(path)
    path.mkdir(parents=True)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def disk_errors(folder: Path, fix: str) -> Iterator[None]:
    """Turn a full disk, a missing permission and their like into one line.

    Raises:
        UserError: names the folder, what the system said, and ``fix``.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"cannot write to {folder}: {reason}; {fix}") from error
