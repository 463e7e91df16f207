"""How much memory this process can still take; told without torch."""

import contextlib
from pathlib import Path

MIB = 1024 * 1024


def free() -> float | None:
    """Of the machine, or of the group of processes where that is less, in MiB; None where nothing
    tells."""
    found = []
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                found.append(int(line.split()[1]) / 1024)
    group = Path("/sys/fs/cgroup")
    with contextlib.suppress(OSError, ValueError):  # no limit, or "max"
        limit = int((group / "memory.max").read_text())
        found.append((limit - int((group / "memory.current").read_text())) / MIB)
    return min(found, default=None)
