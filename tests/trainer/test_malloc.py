"""Memory of freed tensors stays with the process while a run lasts.

In a process of its own: what malloc gives back depends on all that was ever freed.
"""

import json
import subprocess
import sys

import pytest

from normexp.trainer import malloc

if malloc._glibc() is None:
    pytest.skip("the C library is not glibc", allow_module_level=True)

PROGRAM = """
import json, resource
from pathlib import Path
import torch
from normexp.trainer import malloc

def resident():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / malloc.MIB

def kept_of(*sizes):
    before = resident()
    tensors = [torch.ones(mib * 256 * 1024) for mib in sizes]
    while tensors:  # as a backward pass does, the last first
        tensors.pop()
    return resident() - before

found = {"before": kept_of(33, 40, 33)}
with malloc.kept():
    found["meanwhile"] = kept_of(33, 40, 33)
    held = resident()
found["given back"] = held - resident()
found["afterwards"] = kept_of(33, 40, 33)
print(json.dumps(found))
"""


def test_freed_memory_is_kept_while_asked_for() -> None:
    """MiB that the process holds of tensors of 33, 40 and 33 MiB once they are freed."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=True)
    found = json.loads(done.stdout)
    assert found["before"] < 10
    assert found["meanwhile"] > 95
    assert found["given back"] > 95
    assert found["afterwards"] < 95  # a block may fit what is free in between
