"""Keeping the memory of freed tensors for the next step.

glibc gives the memory of a large tensor back to the system when it is freed, and the system clears
each of its pages when the next step asks for it again: an eighth of the time of a step of deep_cnn
at batch 128. See mallopt(3).
"""

import contextlib
import ctypes
from collections.abc import Iterator

from normexp.system.memory import MIB

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4
# Where glibc's own thresholds end up in a process that frees large tensors: it raises them by what
# is freed, which setting any of them ends.
AS_IT_COMES = {M_TRIM_THRESHOLD: 64 * MIB, M_MMAP_THRESHOLD: 32 * MIB, M_MMAP_MAX: 65536}
KEEPING = {M_TRIM_THRESHOLD: 2**31 - 1, M_MMAP_MAX: 0}


@contextlib.contextmanager
def kept(wanted: bool = True) -> Iterator[None]:
    """Keep freed memory in the process, or, where that is on, not; does nothing without glibc."""
    libc = _glibc()
    if libc is None:
        yield
        return
    _set(libc, KEEPING if wanted else AS_IT_COMES)
    try:
        yield
    finally:
        _set(libc, AS_IT_COMES if wanted else KEEPING)
        if wanted:
            libc.malloc_trim(0)


def _set(libc: ctypes.CDLL, options: dict[int, int]) -> None:
    for option, value in options.items():
        libc.mallopt(option, value)


def _glibc() -> ctypes.CDLL | None:
    try:
        libc = ctypes.CDLL("libc.so.6")
    except OSError:
        return None
    return libc if hasattr(libc, "gnu_get_libc_version") and hasattr(libc, "malloc_trim") else None
