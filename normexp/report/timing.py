"""``--time``: what a step of each cell's network costs, measured alike for all.

Each network is trained by itself, one seed, on the same threads, in turn with those under the same
condition, so that a machine whose speed drifts is fair to all. The images are made up: of them only
the size matters here.
"""

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from shlex import quote
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout
from omegaconf import OmegaConf

from normexp.config.command_line import look_for_norms_here
from normexp.config.schema import Config, DataName, side
from normexp.report.cells import arrange
from normexp.report.cost import COLUMNS, FILE, HOW, run_id
from normexp.report.csv_files import to_csv
from normexp.report.read import Runs, read_runs
from normexp.system.errors import UserError
from normexp.system.memory import MIB
from normexp.system.printable import printable
from normexp.system.writing import replacing

ROUNDS = 7
SECONDS = 0.3
"""Of each network in each round, where there is time for it."""
LEAST_SECONDS = 0.03
SHARE = 0.1
"""Of the time that a sweep took, the most that timing its cells may add."""
LEAST_SWEEP = 30.0
"""Seconds: a shorter sweep is a try, of which nobody awaits costs."""
IMAGES = 2_000
"""Made up for each network, or two batches."""


def after_sweep(folder: Path, took: float) -> None:
    """Time the cells of a sweep that is done, where two or more of them can be compared and that
    adds no more than a tenth to its time; say what to do where it would add more.

    Args:
        folder: of its runs.
        took: seconds that the sweep took.
    """
    if took < LEAST_SWEEP:
        return
    how = HOW.format(quote(str(folder)))
    try:
        runs = read_runs(folder)
        count = len(arrange(runs).cells)
        seconds = min(SECONDS, SHARE * took / (1.5 * ROUNDS * count))
        if count < 2:
            return
        if seconds < LEAST_SECONDS:
            print(f"costs: not timed, which would take long beside the sweep; {how}")
            return
        out = folder / "report"
        out.mkdir(exist_ok=True)
        lock = out / f".{FILE}.lock"
        with FileLock(lock, timeout=0):
            time_cells(runs, out, seconds)
            lock.unlink(missing_ok=True)
    except Timeout:
        return  # another process of the same sweep does it
    except KeyboardInterrupt:
        print(f"costs: not timed; {how}")
    except Exception as error:  # the sweep is done, whatever this meets
        print(f"costs: not timed ({printable(str(error))}); {how}")


def time_cells(runs: Runs, out: Path, seconds: float | None = None) -> None:
    """Time all cells and write what it gave into the folder of the report.

    Args:
        seconds: that each network takes in each round; by default SECONDS.

    Raises:
        UserError: the runs are those of a file, or a network cannot be built here.
    """
    if not runs.in_directories:
        raise UserError("--time: a file of results holds no networks; give a directory of runs")
    # The profiler speaks of itself otherwise.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    look_for_norms_here()
    from normexp.bench.engine import in_turn
    from normexp.bench.steps import trainer_loop
    from normexp.data import sources
    from normexp.trainer import process

    sweep = arrange(runs)
    first = sweep.runs.drop_duplicates("cell").set_index("cell")["folder"]
    threads = sweep.runs["threads"].dropna()
    configs = {cell: _config(runs.source / folder) for cell, folder in first.items()}
    for config in configs.values():
        config.threads = int(threads.min()) if len(threads) else None
    seconds = SECONDS if seconds is None else seconds
    about = 1.5 * ROUNDS * seconds * len(configs)
    print(f"timing {len(configs)} networks in turn, about {about:.0f} s", file=sys.stderr)
    rows: list[dict[str, Any]] = []
    for _, cells in sweep.cells.groupby("condition", sort=False):
        device = process.pick_device(configs[cells.index[0]].device)
        with process.settings(configs[cells.index[0]], device):
            takes = {
                cell: trainer_loop(configs[cell], sources.load(configs[cell].data), device)
                for cell in cells.index
            }
            times = in_turn(device, ROUNDS, seconds, takes)
            for cell, take in takes.items():
                ms = 1000 * pd.Series(times[cell])
                rows.append(
                    {
                        "cell": sweep.key(cell), "run": run_id(runs.source, first[cell]),
                        "ms": ms.median(), "ms_low": ms.min(), "ms_high": ms.max(),
                        "step_mib": _memory_of_a_step(take, device), "rounds": ROUNDS,
                        "device": process.device_name(device), **process.measured(device),
                    }
                )  # fmt: skip
    with replacing(out / FILE, fix="give another folder by --out") as file:
        file.write(to_csv(pd.DataFrame(rows)[[*COLUMNS]]).encode())


def _config(run: Path) -> Config:
    """The configuration of a run, for one seed on made-up images of the same size."""
    merged = OmegaConf.merge(OmegaConf.structured(Config), OmegaConf.load(run / "config.yaml"))
    config = OmegaConf.to_object(merged)
    assert isinstance(config, Config)
    data = config.data
    data.image_size = side(data.name, data.image_size)
    data.name, data.val_fraction, data.train_size = DataName.synthetic, 0.0, None
    data.test_size = None
    data.train_images, data.test_images = max(IMAGES, 2 * config.images_per_step), 10
    config.seeds, config.rates, config.fuse, config.diagnostics = None, None, "1", False
    config.epochs, config.max_steps = 10**6, None
    return config


@contextlib.contextmanager
def _no_native_words() -> Iterator[None]:
    """Swallow what torch's own code says of memory from before the profile: it asks the environment
    how much to say when it is loaded, which it is after a sweep."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _memory_of_a_step(take: Any, device: Any) -> float:
    """The most MiB that the tensors of one step hold at a time, beside what is there between steps:
    of the allocator, so that what the process did before does not matter."""
    import torch

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        take(1)
        return float(torch.cuda.max_memory_allocated(device) - before) / MIB
    activities = [torch.profiler.ProfilerActivity.CPU]
    with (
        _no_native_words(),
        torch.profiler.profile(
            activities=activities, profile_memory=True, acc_events=True
        ) as profile,
    ):
        take(1)
    with tempfile.TemporaryDirectory() as folder:
        profile.export_chrome_trace(f"{folder}/trace.json")
        trace = json.loads(Path(folder, "trace.json").read_text(encoding="utf-8"))
    events = [event for event in trace["traceEvents"] if event.get("name") == "[memory]"]
    events.sort(key=lambda event: event["ts"])
    held = pd.Series([event["args"]["Bytes"] for event in events], dtype=float).cumsum()
    return float(held.max()) / MIB if len(held) else 0.0
