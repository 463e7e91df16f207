"""How cost grows: time and peak memory along one axis at a time.

An axis is a function that measures some values of one setting; what it gives is printed, kept and
drawn as that of any other.
"""

import argparse
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from normexp.bench.options import Parser, norm_setting
from normexp.bench.table import Column, Row, keep, number
from normexp.bench.timing import in_turn, of_spread, spread, spread_names, timed
from normexp.config import DataName
from normexp.entry import compose
from normexp.errors import RunFailed, UserError

# Runs so small that a sweep of them shows what a run costs beside its steps.
TINY = (
    *("data=synthetic", "data.train_images=500", "data.test_images=100", "batch_size=50"),
    *("epochs=1", "log.progress=false"),
)
ENDLESS = ("data=synthetic", "epochs=1000000")

FIELDS = (
    *("axis", "model", "norm", "what", "value", "rounds"),
    *(*spread_names("seconds"), "seconds_each", "peak_memory_mb"),
)
COLUMNS = (
    Column("axis", -10, lambda row: row["axis"]),
    Column("model", -11, lambda row: row["model"]),
    Column("norm", -5, lambda row: row["norm"]),
    Column("what", -12, lambda row: row["what"]),
    Column("value", 7, lambda row: f"{row['value']:,}"),
    Column("time (min..max)", 30, lambda row: _time(row)),
    Column("time / value", 12, lambda row: _duration(row["seconds_each"])),
    Column("peak MiB", 9, lambda row: number(row, "peak_memory_mb", ",.0f")),
)


@dataclass(frozen=True)
class Point:
    """What was measured at one value of an axis."""

    what: str
    """What was timed; one curve."""
    value: int
    seconds: list[float]
    """Of each round."""
    memory_mb: float | None = None


@dataclass(frozen=True)
class Axis:
    """Something that cost grows with."""

    key: str
    """The setting whose values these are."""
    fixed: tuple[str, ...]
    """Settings that a person's own take the place of."""
    default: list[int]
    label: str
    measure: Callable[[list[str], list[int], argparse.Namespace], Iterator[Point]]
    """From settings, values, and the options ``rounds`` and ``seconds``."""


def by_batch_size(
    settings: list[str], values: list[int], options: argparse.Namespace
) -> Iterator[Point]:
    """Time of a step of the trainer."""
    yield from _steps("batch_size", settings, values, options)


def by_seeds(
    settings: list[str], values: list[int], options: argparse.Namespace
) -> Iterator[Point]:
    """Time of a step of the trainer with so many seeds in one network."""
    yield from _steps("seeds", settings, values, options)


def _steps(
    key: str, settings: list[str], values: list[int], options: argparse.Namespace
) -> Iterator[Point]:
    from normexp.bench.loops import trainer_loop
    from normexp.data import sources
    from normexp.trainer import process

    configs = {value: compose([*settings, f"{key}={value}"]) for value in values}
    first = configs[values[0]]
    device, dataset = process.pick_device(first.device), sources.load(first.data)
    with process.settings(first, device):
        loops = {v: timed(trainer_loop(configs[v], dataset, device), device) for v in values}
        times = in_turn(loops, options.rounds, options.seconds)
    for value in values:
        yield Point("step", value, times[value], peak_memory([*settings, f"{key}={value}"]))


def by_runs(settings: list[str], values: list[int], options: argparse.Namespace) -> Iterator[Point]:
    """Time of a sweep of so many tiny runs, and of the same sweep again, which skips them all."""
    fresh: dict[int, list[float]] = {value: [] for value in values}
    again: dict[int, list[float]] = {value: [] for value in values}
    memory: dict[int, float | None] = {}
    for _ in range(options.rounds):
        for value in values:
            with TemporaryDirectory() as folder:
                seeds = ",".join(map(str, range(value)))
                sweep = ["normexp.train", "-m", *settings, f"output={folder}", f"seed={seeds}"]
                fresh[value].append(_wall_time(sweep))
                memory[value] = _peak_of_runs(Path(folder))
                again[value].append(_wall_time(sweep))
    for value in values:
        yield Point("sweep", value, fresh[value], memory[value])
    for value in values:
        yield Point("sweep again", value, again[value])


def by_images(
    settings: list[str], values: list[int], options: argparse.Namespace
) -> Iterator[Point]:
    """Time to make or read the images."""
    from normexp.data import sources

    chosen = {value: [*settings, f"data.train_images={value}"] for value in values}
    times: dict[int, list[float]] = {value: [] for value in values}
    for _ in range(options.rounds):
        for value in values:
            data = compose(chosen[value]).data
            began = time.perf_counter()
            sources.load(data, progress=False)
            times[value].append(time.perf_counter() - began)
    for value in values:
        yield Point("loading", value, times[value], peak_memory(chosen[value]))


AXES = {
    "batch_size": Axis(
        "batch_size", ENDLESS, [2, 8, 32, 128, 512], "images in a batch", by_batch_size
    ),
    "seeds": Axis(
        "seeds", (*ENDLESS, "batch_size=2"), [1, 2, 4, 8, 16, 32], "seeds in one network", by_seeds
    ),
    "runs": Axis("seed", TINY, [1, 2, 4, 8], "runs in a sweep", by_runs),
    "images": Axis(
        "data.train_images", ENDLESS, [1000, 5000, 10000, 25000, 50000],
        "training images", by_images,
    ),
}  # fmt: skip


def main(arguments: list[str]) -> None:
    parser = Parser(
        "growth",
        "Measure how time and peak memory grow: of a step with the batch size and with the seeds "
        "in one network, of a sweep with the number of its runs, of loading with the number of "
        "images. Memory is that of a process that does nothing else, PyTorch included.",
        "bench-growth.csv", 3,
    )  # fmt: skip
    parser.add_argument(
        "--axes", nargs="+", choices=AXES, default=list(AXES), metavar="AXIS",
        help=f"what is to grow, of {', '.join(AXES)} (default: all)",
    )  # fmt: skip
    parser.add_list("--models", ["simple_cnn"], "networks")
    parser.add_list("--norms", ["bn"], "norms")
    for name, axis in AXES.items():
        parser.add_counts(_option(name), axis.default, axis.label)
    parser.add_seconds()
    options = parser.parse(arguments, taken=("model", "norm"))
    plans = []
    for name, model, norm in itertools.product(options.axes, options.models, options.norms):
        axis = AXES[name]
        values = sorted(set(getattr(options, _option(name)[2:].replace("-", "_"))))
        settings = [f"model={model}", norm_setting(norm), *axis.fixed, *options.settings]
        for value in values:
            config = compose([*settings, f"{axis.key}={value}"])
        if name == "images" and config.data.name is not DataName.synthetic:
            raise UserError(
                f"data={config.data.name.value}: --axes images makes synthetic images; leave data= "
                "out, or choose other --axes"
            )
        plans.append((name, model, norm, settings, values))
    keep(_rows(plans, options), options.csv, FIELDS, COLUMNS, _draw)


def _option(axis: str) -> str:
    return "--" + axis.replace("_", "-") + ("" if axis.endswith("s") else "s")


def _rows(
    plans: list[tuple[str, str, str, list[str], list[int]]], options: argparse.Namespace
) -> Iterator[Row]:
    for name, model, norm, settings, values in plans:
        for point in AXES[name].measure(settings, values, options):
            row: Row = {"axis": name, "model": model, "norm": norm, "what": point.what}
            row |= {"value": point.value, "rounds": options.rounds}
            row |= spread("seconds", point.seconds)
            row["seconds_each"] = row["seconds"] / point.value
            row["peak_memory_mb"] = point.memory_mb
            yield row


def peak_memory(settings: list[str]) -> float | None:
    """The most memory in MiB of a fresh process that loads the data and takes some steps."""
    found: float | None = json.loads(_call(["normexp.bench.peak", *settings]))
    return found


def _wall_time(arguments: list[str]) -> float:
    began = time.perf_counter()
    _call(arguments)
    return time.perf_counter() - began


def _call(arguments: list[str]) -> str:
    """What ``python -m arguments`` prints.

    Raises:
        RunFailed: it did not end well.
    """
    done = subprocess.run(
        [sys.executable, "-m", *arguments], capture_output=True, text=True,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    if done.returncode:
        said = done.stderr.strip().rpartition("\n")[2] or f"exit status {done.returncode}"
        raise RunFailed(f"python -m {' '.join(arguments)}: {said.removeprefix('normexp: ')}")
    return done.stdout


def _peak_of_runs(output: Path) -> float | None:
    """The largest peak memory of the runs below a folder: it shows what one leaves to the next."""
    found = [json.loads(path.read_text())["peak_memory_mb"] for path in output.rglob("result.json")]
    return max((peak for peak in found if peak is not None), default=None)


def _time(row: Row) -> str:
    low, high = _duration(row["seconds_min"]), _duration(row["seconds_max"])
    return f"{_duration(row['seconds'])} ({low}..{high})"


def _duration(seconds: float) -> str:
    if seconds < 1e-3:
        return f"{1e6 * seconds:.3g} us"
    return f"{1e3 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def _draw(rows: list[Row], path: Path) -> None:
    from normexp.bench import pictures

    shown = list(dict.fromkeys(row["axis"] for row in rows))
    made = pictures.figure(9, 3.2 * len(shown))
    for name, (left, right) in zip(shown, made.subplots(len(shown), 2, squeeze=False), strict=True):
        curves: dict[str, list[Row]] = {}
        for row in rows:
            if row["axis"] == name:
                curves.setdefault(f"{row['what']}: {row['model']} {row['norm']}", []).append(row)
        times = {
            label: [(row["value"], *of_spread(row, "seconds")) for row in found]
            for label, found in curves.items()
        }
        for place, (label, points) in enumerate(times.items()):
            pictures.curve(left, place, label, points)
            memory = [(row["value"], *[row["peak_memory_mb"]] * 3) for row in curves[label]]
            if None not in memory[0]:
                pictures.curve(right, place, label, memory)
        pictures.time_axis(left, list(itertools.chain(*times.values())))
        for place, points in enumerate(times.values()):
            pictures.proportional(left, "" if place else "in proportion", points[-1])
        right.set_ylim(0, 1.15 * right.get_ylim()[1])
        left.set_ylabel("time (log scale)")
        right.set_ylabel("peak memory, MiB")
        for panel in (left, right):
            panel.set_xlabel(AXES[name].label)
        left.legend(fontsize=8)
    pictures.save(made, path)
