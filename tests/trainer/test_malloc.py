"""Memory of freed tensors stays with the process while a run lasts."""

import resource

import pytest
import torch

from normexp.trainer import malloc

if malloc._glibc() is None:
    pytest.skip("the C library is not glibc", allow_module_level=True)


def faults(sizes: tuple[int, ...] = (33, 9, 17, 5, 33, 3)) -> int:
    """Pages that the system has to hand out for ten times the tensors of a step, sizes in MiB."""

    def step() -> None:
        kept = [torch.ones(mib * 256 * 1024) for mib in sizes]
        while kept:  # as a backward pass does, the last first
            kept.pop()

    step()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        step()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def test_freed_memory_is_kept_while_asked_for() -> None:
    all_pages = 10 * 100 * 1024 * 1024 // resource.getpagesize()
    with malloc.kept():
        kept = faults()
    assert kept < all_pages / 4
    # How much is given back otherwise depends on what the process has freed before.
    assert kept < faults() / 2


def test_afterwards_glibc_does_as_it_would_have() -> None:
    """It keeps tensors below 32 MiB of its own accord, once one of them was freed."""
    with malloc.kept():
        pass
    held = [torch.ones(256 * 1024) for _ in range(150)]  # what is free below is in use
    assert faults((9, 5, 9)) < 10 * 23 * 256 / 4
    del held
