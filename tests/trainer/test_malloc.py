"""Memory of freed tensors stays with the process while a run lasts."""

import resource
from pathlib import Path

import pytest
import torch

from normexp.trainer import malloc

if malloc._glibc() is None:
    pytest.skip("the C library is not glibc", allow_module_level=True)


def resident() -> float:
    """MiB of memory that the process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / malloc.MIB


def kept_of(sizes: tuple[int, ...]) -> float:
    """MiB that the process still holds of tensors of such sizes, in MiB, once they are freed."""
    before = resident()
    tensors = [torch.ones(mib * 256 * 1024) for mib in sizes]
    held = resident()
    while tensors:  # as a backward pass does, the last first
        tensors.pop()
    assert held - before > 0.9 * sum(sizes)
    return resident() - before


def test_freed_memory_is_kept_while_asked_for() -> None:
    with malloc.kept():
        pass  # gives back what is free of earlier tests
    assert kept_of((33, 40, 33)) < 10
    with malloc.kept():
        assert kept_of((33, 40, 33)) > 90
        before = resident()
    assert before - resident() > 90  # given back at the end


def test_afterwards_glibc_does_as_it_would_have() -> None:
    """It keeps tensors below 32 MiB of its own accord, once one of them was freed."""
    with malloc.kept():
        pass
    held = [torch.ones(256 * 1024) for _ in range(150)]  # what is free below is in use
    assert kept_of((9, 5, 9)) > 20
    del held
