"""The folders of sweeps below ``output/.sweeps``: whose sweep is alive, and since when it runs."""

import contextlib
import json
import shutil
import socket
import time
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

LOCK = "lock"

ALONE = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
"""The launcher whose runs die with the process that began the sweep."""

DAY = 24 * 60 * 60


def hold(folder: Path) -> FileLock:
    """Make a sweep's folder, and lock it for as long as this process lives.

    Raises:
        OSError: it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    lock.acquire()
    return lock


def remove_dead(sweeps: Path) -> None:
    """Remove the folders of sweeps that were killed on this host.

    Jobs of a launcher may outlive the sweep: those of submitit, in a queue, for any time, so its
    folders stay; those of others not for a day in which none wrote anything.
    """
    for folder in sweeps.glob("*"):
        # One that cannot be read, or is removed at this moment, is left alone.
        with contextlib.suppress(OSError, ValueError, Timeout):
            found = json.loads((folder / "sweep.json").read_text())
            quiet = time.time() - max(path.stat().st_mtime for path in [folder, *folder.iterdir()])
            if found.get("host") != socket.gethostname() or (folder / ".submitit").exists():
                continue
            if found["launcher"] == ALONE or (quiet > DAY and "submitit" not in found["launcher"]):
                with FileLock(folder / LOCK, timeout=0):
                    shutil.rmtree(folder, ignore_errors=True)


def boot() -> str | None:
    """Names the boot of this machine, whose processes share time.monotonic(); None if unknown."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return None


def began(found: dict[str, Any]) -> float:
    """When a sweep began, as time.monotonic() of this process says it.

    Args:
        found: the contents of its sweep.json, perhaps written on another host.
    """
    now = time.monotonic()
    if found["boot"] is not None and found["boot"] == boot() and found["monotonic"] <= now:
        return float(found["monotonic"])
    return now - max(0.0, time.time() - float(found["started"]))
