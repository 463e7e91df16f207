"""Kill a sweep at random moments until it finishes, and compare it with one that was left alone.

    python scripts/kill_sweep.py FOLDER --kills 30 --seed 0

Every run must be there once, with the same weights, metrics.csv and result.json, bit for bit but
for the times. Prints what it found and exits with 1 if anything differs.

With --fused the seeds of a cell are trained as one network. A kill after some of them have ended
leaves the others to go on without those; if they had steps to take they differ by rounding, and
only that they are complete is compared.
"""

import argparse
import csv
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

SWEEP = (
    *("-m", "norm=bn,gn", "batch_size=4", "model.channels=[8,8]"),
    *("data=synthetic", "data.train_images=8000", "data.test_images=200", "data.image_size=16"),
    *("epochs=3", "scheduler=cosine", "log.every=20", "checkpoint_minutes=0.005", "threads=1"),
    *("device=cpu", "log.tensorboard=false"),
)
SMALL = ("norm=gn", "data.train_images=1000")
TIMES = {
    *("seconds", "train_seconds", "ms_per_step", "images_per_second", "peak_memory_mb", "git"),
    "cpu_share",
}


def settings(small: bool, fused: bool) -> list[str]:
    """Of a sweep of six runs, or of two."""
    count = 2 if small else 3
    seeds = [f"seeds={count}", f"fuse={count}"] if fused else [f"seed=range({count})"]
    return [*SWEEP, *(SMALL if small else ()), *seeds]


def start(output: Path, sweep: list[str]) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "normexp.train", *sweep, f"output={output}"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def finish(output: Path, sweep: list[str]) -> float:
    """Let a sweep run to its end; seconds that took."""
    began = time.monotonic()
    process = start(output, sweep)
    _, errors = process.communicate()
    if process.returncode != 0:
        raise SystemExit(f"the sweep failed: {errors}")
    return time.monotonic() - began


def kill_often(
    output: Path, sweep: list[str], kills: int, longest: float, generator: random.Random
) -> int:
    """Start the sweep and kill it, ``kills`` times or until it finishes before its kill."""
    for done in range(kills):
        process = start(output, sweep)
        try:
            process.communicate(timeout=generator.uniform(0, longest))
            return done
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
    return kills


def runs(output: Path) -> dict[str, Path]:
    return {path.parent.name: path.parent for path in output.glob("default/*/result.json")}


def timeless(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in TIMES}


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return [timeless(row) for row in csv.DictReader(file)]


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    return bool(one == other)


def differences(whole: Path, killed: Path) -> list[str]:
    """What is not the same in one run."""
    found = []
    results = [timeless(json.loads((run / "result.json").read_text())) for run in (whole, killed)]
    parted = results[0]["fused"] != results[1]["fused"]
    if parted and any(results[0][name] != results[1][name] for name in ("status", "steps")):
        found.append("result.json: it is not complete")
    if not parted and results[0] != results[1]:
        found.append("result.json")
    if not parted and rows(whole) != rows(killed):
        found.append("metrics.csv")
    for name in () if parted else ("last.pt", "best.pt"):
        states = [torch.load(run / "checkpoints" / name, weights_only=True)["model"]
                  for run in (whole, killed)]  # fmt: skip
        if not equal(*states):
            found.append(name)
    if (killed / "train.log").read_text().count("test accuracy") != 1:
        found.append("train.log: it ended more than once")
    if leftovers := [path.name for path in killed.rglob(".*.tmp")]:
        found.append(f"left behind: {leftovers}")
    return [f"{killed.name}: {what}" for what in found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="an empty folder to work in")
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--small", action="store_true", help="a sweep of 2 runs instead of 6")
    parser.add_argument("--fused", action="store_true", help="train the seeds of a cell together")
    arguments = parser.parse_args()
    small = arguments.small
    sweep = settings(small, arguments.fused)
    whole, killed = arguments.folder / "whole", arguments.folder / "killed"
    # A killed sweep comes far enough to get somewhere, and not so far that few kills are enough.
    longest = finish(whole, sweep) * (1 if small else 0.2)
    kills = kill_often(killed, sweep, arguments.kills, longest, random.Random(arguments.seed))
    finish(killed, sweep)
    expected, found = runs(whole), runs(killed)
    problems = [f"{name}: lost" for name in expected.keys() - found.keys()]
    problems += [f"{name}: one too many" for name in found.keys() - expected.keys()]
    resumed = 0
    for name in sorted(expected.keys() & found.keys()):
        problems += differences(expected[name], found[name])
        resumed += (found[name] / "train.log").read_text().count("going on from step")
    print(
        f"{len(expected)} runs, {kills} kills, {resumed} times a run went on from its checkpoint: "
        f"{len(problems)} differences"
    )
    print("\n".join(problems))
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
