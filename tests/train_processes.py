"""Commands of normexp.train in processes of their own: started, watched, and read."""

import os
import re
import resource
import subprocess
import sys
from pathlib import Path

from small_runs import SMALL

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
LONG = ("max_steps=1000000", "epochs=null", "checkpoint_minutes=0.001")


def _limit_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))


def start(*arguments: str, folder: Path, limit_files: bool = False) -> "subprocess.Popen[str]":
    """Begin ``python -m normexp.train arguments`` in ``folder``.

    Args:
        limit_files: no file may be larger than 8 kB, as on a disk that is full.
    """
    return subprocess.Popen(
        [sys.executable, "-m", "normexp.train", *arguments], cwd=folder, env=ENVIRONMENT,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=_limit_files if limit_files else None,
    )  # fmt: skip


def finished(process: "subprocess.Popen[str]", status: int = 0) -> tuple[str, str]:
    output, errors = process.communicate(timeout=300)
    assert process.returncode == status, output + errors
    return output, errors


def sweep(*arguments: str, folder: Path, status: int = 0) -> tuple[str, str]:
    return finished(start("-m", *SMALL, *arguments, folder=folder), status)


def wait_for_step(process: "subprocess.Popen[str]", folder: Path) -> None:
    """Until the run has written a checkpoint."""
    while not list(folder.rglob("last.pt")):
        assert process.poll() is None


def statuses(output: str) -> list[str]:
    """Of the runs of each cell in the table that a sweep ends with, in the order of the cells."""
    table = output[output.index("cell: what became of its runs\n") :]
    rows = re.findall(
        r"^ *(?:[\d.]+(?: ± [\d.]+)?|-) +\d+  .*: (\d+ \w+(?:, \d+ \w+)*)$", table, re.M
    )
    return [
        status for row in rows for count, status in re.findall(r"(\d+) (\w+)", row)
        for _ in range(int(count))
    ]  # fmt: skip
