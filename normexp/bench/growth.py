"""How cost grows: time and peak memory along one axis at a time."""

import functools
import itertools
import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from normexp.bench import pictures, steps
from normexp.bench.cells import Cell
from normexp.bench.engine import Rounds, Row, Take, Timer, repeat, spread
from normexp.config.checks import seeds_of
from normexp.config.schema import DataName, get
from normexp.data import sources
from normexp.data.sources import Dataset
from normexp.system.errors import RunFailed, UserError

COLUMNS = {
    "axis": "axis", "value": "value", "curve": "curve", "ms": "ms", "ms_min": "min",
    "ms_max": "max", "peak_memory_mb": "peak MiB",
}  # fmt: skip
GROWS = {"batch_size": "batch_size", "images": "data.train_images"}
AGAIN = "sweep again"

draw = pictures.curves


def rows(cells: Sequence[Cell], device: torch.device, timer: Timer) -> Iterator[Row]:
    """A row for each cell, and of sweeps two; those of an axis are timed in turn.

    Raises:
        UserError: a cell cannot be measured.
    """
    for part, group in itertools.groupby(cells, lambda cell: cell.part):
        along = list(group)
        data = along[0].config.data
        if part == "images" and data.name is not DataName.synthetic:
            raise UserError(f"data={data.name.value}: images grow where data=synthetic makes them")
        # Where steps are timed all are on the same images.
        images = functools.cache(functools.partial(sources.load, data))
        with TemporaryDirectory() as folder:
            takes = {}
            for number, cell in enumerate(along):
                for what, take in _ways(cell, images, device, f"{folder}/{number}").items():
                    takes[number, what] = take
            for (number, what), seconds in timer(takes).items():
                yield _row(along[number], what, seconds, f"{folder}/{number}")


def _row(cell: Cell, what: str, seconds: Rounds, output: str) -> Row:
    key = GROWS.get(cell.part, "seeds")
    value = cell.seeds if key == "seeds" else get(cell.config, key)
    row = {"axis": cell.part, "value": value, "curve": f"{what} {cell.others(key)}".strip()}
    each = seconds / cell.seeds if what == "step" else seconds
    row |= cell.row() | {"rounds": len(seconds)} | spread("ms", 1000 * each)
    # What skips all runs does not load torch.
    return row | {"peak_memory_mb": math.nan if what == AGAIN else peak_memory(cell, output)}


def _ways(
    cell: Cell, images: Callable[[], Dataset], device: torch.device, output: str
) -> dict[str, Take]:
    """What is timed of a cell."""
    if cell.part == "images":
        return {"loading": repeat(lambda: sources.load(cell.config.data, progress=False))}
    if cell.part == "runs":
        return {
            "sweep": repeat(lambda: _train(cell, output, "force=true")),
            AGAIN: repeat(lambda: _train(cell, output)),
        }
    return {"step": steps.trainer_loop(cell.config, images(), device)}


def peak_memory(cell: Cell, output: str) -> float:
    """The most memory in MiB of a process that trains the cell: it shows what a run leaves to the
    next. NaN where the system does not tell."""
    _train(cell, output)
    results = [json.loads(path.read_text()) for path in Path(output).rglob("result.json")]
    return max(result["peak_memory_mb"] or 0 for result in results) or math.nan


def _train(cell: Cell, output: str, *more: str) -> None:
    """Train what is not yet trained of a cell in a process of its own: where runs grow all seeds in
    a sweep, one after the other, else as one network for a few steps.

    Raises:
        RunFailed: it did not end well.
    """
    settings = [each for each in cell.settings if not each.startswith("seeds=")]
    seeds = ",".join(map(str, seeds_of(cell.config)))
    if cell.part == "runs":
        settings = ["-m", *settings, f"seed={seeds}"]
    else:
        settings += [
            f"seeds=[{seeds}]",
            f"fuse={cell.seeds}",
            "max_steps=3",
            "log.tensorboard=false",
        ]
        settings += [f"evaluate.batch_size={cell.config.batch_size}", "data.test_images=100"]
    command = ["normexp.train", *settings, f"output={output}", *more]
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.strip().rpartition("\n")[2] or f"exit status {done.returncode}"
        raise RunFailed(f"python -m {' '.join(command)}: {said.removeprefix('normexp: ')}")
