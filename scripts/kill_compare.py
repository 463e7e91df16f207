"""Kill a comparison with SIGKILL at random moments until it is done, and hold its plan, decisions
and answer against one that was left alone. docs/compare.md has what it printed.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

SETTINGS = (
    *("norm=bn,gn,ln", "batch_size=8", "data=digits", "epochs=2", "looks=[6,8]", "tune.rates=3"),
    *("threads=1", "fuse=4", "device=cpu", "log.tensorboard=false", "name=killed"),
)
# fuse=4: what fuse=auto measures may differ from start to start, and results by rounding with it.
COSTS = ("ms", "step")
"""Keys of answer.json begin so that are measured anew each time."""


def start(folder: Path, settings: list[str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "normexp.compare", *SETTINGS, *settings, f"output={folder}"]
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


def decided(folder: Path) -> dict[str, Any]:
    """All that must be the same; not when, and not how long it took."""
    plan = json.loads((folder / "killed/plan.json").read_text())
    answer = json.loads((folder / "killed/report/answer.json").read_text())
    comparison = {key: value for key, value in plan["comparison"].items() if key != "spent"}
    cells = sorted((cell["name"], sorted(cell["runs"].items())) for cell in plan["cells"])
    known = [
        {key: value for key, value in variant.items() if key.partition("_")[0] not in COSTS}
        for condition in answer["conditions"]
        for variant in condition["variants"]
    ]
    return {"comparison": comparison, "cells": cells, "answer": known}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--launcher", help="of Hydra, such as joblib, with two processes")
    options = parser.parse_args()
    alone, harmed = options.folder / "alone", options.folder / "killed"
    for folder in (alone, harmed):
        folder.mkdir(parents=True)
    settings = []
    if options.launcher:
        settings = [f"hydra/launcher={options.launcher}", "hydra.launcher.n_jobs=2"]
    began = time.monotonic()
    if start(alone, settings).wait() != 0:
        sys.exit(f"the comparison itself fails: {alone / 'log'}")
    took = time.monotonic() - began
    rng, kills, starts = random.Random(options.seed), 0, 0
    while True:
        process, starts = start(harmed, settings), starts + 1
        try:
            # Long enough to get somewhere, and short enough for that many kills.
            wait = rng.uniform(2, max(4, 0.3 * took)) if kills < options.kills else None
            if process.wait(wait) == 0:
                break
            sys.exit(f"it failed after {kills} kills: {harmed / 'log'}")
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
    one, other = decided(alone), decided(harmed)
    different = [key for key in one if one[key] != other[key]]
    print(f"{kills} kills in {starts} starts: {len(different)} differences {different or ''}")
    sys.exit(bool(different))


if __name__ == "__main__":
    main()
