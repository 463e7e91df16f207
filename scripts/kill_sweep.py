"""Kill a sweep at random moments until it finishes, and compare it with one that was left alone.

    python scripts/kill_sweep.py FOLDER --kills 30 --seed 0

Every run must be there once, with the same weights, metrics.csv and result.json, bit for bit but
for the times. Prints what it found and exits with 1 if anything differs.

With --fused the seeds of a cell are trained as one network. A kill after some of them have ended
leaves the others to go on without those; if they had steps to take they differ by rounding, and
only that they are complete is compared.

With --shared two processes train the sweep at once. With --harm something is done after each kill
to a run that nobody trains: a bit of a checkpoint is flipped, last.pt becomes that of another run,
or a record of a run that has ended is cut.
"""

import argparse
import contextlib
import csv
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

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
    output: Path, sweep: list[str], processes: int, kills: int, longest: float,
    generator: random.Random, harmed: Counter[str] | None,
) -> int:  # fmt: skip
    """Run the sweep in some processes and kill one, ``kills`` times or until one finishes."""
    running, done = [start(output, sweep) for _ in range(processes)], 0
    while done < kills:
        victim = generator.choice(running)
        try:
            victim.communicate(timeout=generator.uniform(0, longest))
            break
        except subprocess.TimeoutExpired:
            victim.send_signal(signal.SIGKILL)
            victim.communicate()
        done += 1
        if harmed is not None and (what := harm(output, generator)):
            harmed[what] += 1
        running[running.index(victim)] = start(output, sweep)
    for process in running:
        process.communicate()
    return done


def harm(output: Path, generator: random.Random) -> str:
    """Damage something of a run that nobody trains; what was done, if there is one."""
    found = [path.parent.parent for path in output.glob("default/*/checkpoints/last.pt")]
    generator.shuffle(found)
    if generator.random() < 0.8:  # first of those that have not ended
        found.sort(key=lambda path: (path / "result.json").exists())
    for path in found:
        with contextlib.suppress(Timeout), FileLock(path / ".lock", timeout=0):
            if (path / "result.json").exists():
                record = path / generator.choice(["config.yaml", "metrics.csv", "result.json"])
                content = record.read_bytes()
                record.write_bytes(content[: generator.randrange(len(content))])
                return "cut records"
            if len(found) > 1 and generator.random() < 0.4:
                other = next(one for one in found if one != path)
                shutil.copyfile(other / "checkpoints/last.pt", path / "checkpoints/last.pt")
                return "foreign checkpoints"
            flipped = generator.choice(sorted((path / "checkpoints").glob("*.pt")))
            content = bytearray(flipped.read_bytes())
            content[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
            flipped.write_bytes(content)
            return "bit flips"
    return ""


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
    log = (killed / "train.log").read_text()
    if log.count("test accuracy") != 1 + log.count("making it anew"):
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
    parser.add_argument("--shared", action="store_true", help="two processes on one folder")
    parser.add_argument("--harm", action="store_true", help="damage a file after each kill")
    arguments = parser.parse_args()
    small = arguments.small
    sweep = settings(small, arguments.fused)
    whole, killed = arguments.folder / "whole", arguments.folder / "killed"
    # A killed sweep comes far enough to get somewhere, and not so far that few kills are enough.
    longest = finish(whole, sweep) * (1 if small else 0.2)
    harmed: Counter[str] | None = Counter() if arguments.harm else None
    kills = kill_often(
        killed, sweep, 1 + arguments.shared, arguments.kills, longest,
        random.Random(arguments.seed), harmed,
    )  # fmt: skip
    finish(killed, sweep)
    expected, found = runs(whole), runs(killed)
    problems = [f"{name}: lost" for name in expected.keys() - found.keys()]
    problems += [f"{name}: one too many" for name in found.keys() - expected.keys()]
    logs = ""
    for name in sorted(expected.keys() & found.keys()):
        problems += differences(expected[name], found[name])
        logs += (found[name] / "train.log").read_text()
    done = [f"{len(expected)} runs", f"{kills} kills"]
    done += [f"{count} {what}" for what, count in sorted((harmed or {}).items())]
    done.append(f"{logs.count('going on from step')} times a run went on from its checkpoint")
    if harmed is not None:
        done.append(f"{logs.count('going on without it')} times without one")
        done.append(f"{logs.count('making it anew')} times it made a record anew")
    print(f"{', '.join(done)}: {len(problems)} differences")
    print("\n".join(problems))
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
