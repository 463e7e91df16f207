"""The trainer's steps beside a tutorial's loop and a bare one, for models x norms x batch sizes."""

import itertools
from collections.abc import Callable
from pathlib import Path

from normexp.bench.options import Parser, norm_setting
from normexp.bench.table import Column, Row, keep, number, with_range
from normexp.bench.timing import Loop, in_turn, of_spread, ratios, spread, spread_names, timed
from normexp.config import Config
from normexp.config_checks import seeds_of
from normexp.entry import compose
from normexp.errors import UserError

LOOPS = ("trainer", "bare", "tutorial")
FIELDS = (
    *("model", "norm", "batch_size", "seeds", "rounds"),
    *spread_names(*(f"{name}_ms" for name in LOOPS)),
    *("images_per_second", *spread_names("of_bare", "x_tutorial")),
)
COLUMNS = (
    Column("model", -11, lambda row: row["model"]),
    Column("norm", -5, lambda row: row["norm"]),
    Column("batch", 5, lambda row: str(row["batch_size"])),
    Column("seeds", 5, lambda row: str(row["seeds"])),
    Column("trainer", 9, lambda row: number(row, "trainer_ms")),
    Column("bare", 9, lambda row: number(row, "bare_ms")),
    Column("tutorial ms/step", 16, lambda row: number(row, "tutorial_ms")),
    Column("images/s", 9, lambda row: number(row, "images_per_second", ",.0f")),
    Column("of bare (min..max)", 18, lambda row: with_range(row, "of_bare")),
    Column("x tutorial (min..max)", 21, lambda row: with_range(row, "x_tutorial")),
)


def main(arguments: list[str]) -> None:
    parser = Parser(
        "",
        "Time the trainer itself, a tutorial's loop (scripts/tutorial.py) and a bare loop over one "
        "resident batch, in one process and in turn, so that a machine whose speed drifts is fair "
        "to all. The time of several seeds fused is given for each of them.",
        "bench.csv", 7,
        "Other parts, each with --help: norms, data, growth as the first argument.",
    )  # fmt: skip
    parser.add_list("--models", ["simple_cnn", "mlp"], "networks")
    parser.add_list("--norms", ["bn"], "norms")
    parser.add_counts("--batch-sizes", [2, 128], "images in a batch")
    parser.add_counts("--seeds", [1], "seeds that the trainer fuses")
    parser.add_seconds()
    options = parser.parse(arguments, taken=("model", "norm", "batch_size", "seeds"))
    cells = itertools.product(options.models, options.norms, options.batch_sizes, options.seeds)
    configs = [
        compose([
            f"model={model}", norm_setting(norm), f"batch_size={batch}", f"seeds={seeds}",
            "data=synthetic", "epochs=1000000", *options.settings,
        ])
        for model, norm, batch, seeds in cells
    ]  # fmt: skip
    if any(config.accumulate_steps > 1 for config in configs):
        raise UserError("accumulate_steps: the loops beside the trainer take one batch a step")
    rows = (_row(config, options.rounds, options.seconds) for config in configs)
    keep(rows, options.csv, FIELDS, COLUMNS, _draw)


def _row(config: Config, rounds: int, seconds: float) -> Row:
    times = _times(config, rounds, seconds)
    seeds = len(seeds_of(config))
    times["trainer"] = [each / seeds for each in times["trainer"]]
    row: Row = {
        "model": config.model.name,
        "norm": config.norm.name,
        "batch_size": config.batch_size,
        "seeds": seeds,
        "rounds": rounds,
    }
    for name in times:
        row |= spread(f"{name}_ms", [1000 * value for value in times[name]])
    row["images_per_second"] = 1000 * config.batch_size / row["trainer_ms"]
    row |= ratios("of_bare", times["bare"], times["trainer"])
    if "tutorial" in times:
        row |= ratios("x_tutorial", times["tutorial"], times["trainer"])
    return row


def _times(config: Config, rounds: int, seconds: float) -> dict[str, list[float]]:
    """Seconds a step of each loop in each round, with the threads and precision of a run."""
    from normexp.bench import loops
    from normexp.data import sources
    from normexp.trainer import process

    device = process.pick_device(config.device)
    dataset = sources.load(config.data)
    with process.settings(config, device):
        timers = {
            "trainer": timed(loops.trainer_loop(config, dataset, device), device),
            "bare": timed(loops.bare_loop(config, dataset, device), device),
        }
        tutorial = loops.tutorial_loop(config, dataset, device)
        if tutorial is not None:
            timers["tutorial"] = _as_it_comes(timed(tutorial, device))
        return in_turn(timers, rounds, seconds)


def _as_it_comes(loop: Loop) -> Loop:
    """A loop without what the trainer does for memory: a tutorial's script has none of it."""
    from normexp.trainer import malloc

    def alone(count: int) -> float:
        with malloc.kept(False):
            return loop(count)

    return alone


def _draw(rows: list[Row], path: Path) -> None:
    from normexp.bench import pictures

    def bars(name: str, note: Callable[[Row], str]) -> list[pictures.Bar | None]:
        return [
            pictures.Bar(*of_spread(row, f"{name}_ms"), note(row)) if f"{name}_ms" in row else None
            for row in rows
        ]

    series = {
        "trainer": bars("trainer", lambda row: f"{row['trainer_ms']:.3g} ms"),
        "bare loop": bars("bare", lambda row: f"trainer: {row['of_bare']:.2f} of its speed"),
        "tutorial": bars("tutorial", lambda row: f"trainer: {row['x_tutorial']:.1f} x its speed"),
    }
    made = pictures.figure(7.5, 1.2 + 0.62 * len(rows))
    axes = made.subplots()
    groups = [
        f"{row['model']}\n{row['norm']}, batch {row['batch_size']}"
        + (f", {row['seeds']} seeds" if row["seeds"] > 1 else "")
        for row in rows
    ]
    pictures.bars(axes, groups, {name: some for name, some in series.items() if any(some)})
    axes.set_xlabel("ms a step and seed (log scale; whiskers: smallest and largest of the rounds)")
    made.legend(loc="outside upper center", ncols=3, frameon=False)
    pictures.save(made, path)
