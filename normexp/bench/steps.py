"""The trainer's steps beside a tutorial's loop and a bare one."""

import runpy
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from normexp.bench import pictures
from normexp.bench.cells import Cell
from normexp.bench.engine import Row, Take, Timer, repeat, spread
from normexp.config.checks import seeds_of
from normexp.config.schema import Config, NormConfig
from normexp.data import sources
from normexp.data.sources import Dataset
from normexp.models.build import build_model
from normexp.models.fuse import CannotFuse
from normexp.system.errors import UserError
from normexp.trainer import malloc, process
from normexp.trainer.fusing import demand_the_same
from normexp.trainer.steps import Trainer

COLUMNS = {
    "model": "model", "norm": "norm", "batch_size": "batch", "seeds": "seeds", "trainer_ms": "ms",
    "of_bare": "x bare", "of_bare_min": "min", "of_bare_max": "max",
    "x_tutorial": "x tutorial", "x_tutorial_min": "min", "x_tutorial_max": "max", "also": "",
}  # fmt: skip
TUTORIAL = Path(__file__).parents[2] / "scripts" / "tutorial.py"


def rows(cells: Sequence[Cell], device: torch.device, timer: Timer) -> Iterator[Row]:
    """A row for each cell.

    Raises:
        UserError: a cell cannot be measured so.
    """
    for cell in cells:
        if cell.config.accumulate_steps > 1:
            raise UserError("accumulate_steps: the loops beside the trainer take one batch a step")
    dataset = sources.load(cells[0].config.data)
    for cell in cells:
        ways = {
            "trainer": trainer_loop(cell.config, dataset, device),
            "bare": bare_loop(cell.config, dataset, device),
            "tutorial": tutorial_loop(cell.config, dataset, device),
        }
        there = {name: take for name, take in ways.items() if take}
        times = timer(there)
        times["trainer"] /= cell.seeds
        row = cell.row() | {"rounds": len(times["bare"])}
        for name, seconds in times.items():
            row |= spread(f"{name}_ms", 1000 * seconds)
        row["images_per_second"] = 1000 * cell.config.batch_size / row["trainer_ms"]
        row |= spread("of_bare", times["bare"] / times["trainer"])
        if "tutorial" in times:
            row |= spread("x_tutorial", times["tutorial"] / times["trainer"])
        yield row


def draw(table: pd.DataFrame) -> Figure:
    """How many times as fast the trainer is as the others."""
    shown = {"of_bare": "the bare loop's", "x_tutorial": "the tutorial's"}
    return pictures.dots(table, shown, "the trainer's speed over that of others")


def refuse_sync_bn(norm: NormConfig, device: torch.device) -> None:
    """Raise a UserError for SyncBatchNorm on a CPU: alone it would do what BatchNorm does."""
    if norm.name == "syncbn" and device.type != "cuda":
        raise UserError("norm=syncbn: torch has it on CUDA only; use norm=bn")


def trainer_loop(config: Config, dataset: Dataset, device: torch.device) -> Take:
    """Steps of the trainer itself, of all ``seeds`` in one network: intervals of log.every steps as
    in a run, through an epoch again and again.

    Raises:
        UserError: its seeds cannot be trained in one network.
    """
    seeds = seeds_of(config)
    try:
        trainer = Trainer(config, seeds, dataset, device)
        if len(seeds) > 1:
            demand_the_same(trainer)
    except CannotFuse as reason:
        raise UserError(f"seeds={len(seeds)}: {reason}; use seeds=1") from reason
    plan, position = trainer.batches.plan(0), 0

    def take(count: int) -> None:
        nonlocal position
        while count:
            last = min(position + min(config.log.every, count), trainer.batches.steps)
            trainer.interval(plan, position, last, 0, True, lambda: False, lambda taken: None)
            count, position = count - (last - position), last % trainer.batches.steps

    return take


def bare_loop(config: Config, dataset: Dataset, device: torch.device) -> Take:
    """The least a step can cost: a resident batch, forward, backward, fused Adam."""
    network = _network(config, dataset, device)
    size = dataset.train.images.shape[-1]
    images = torch.randn(config.batch_size, 3, size, size, device=device)
    labels = torch.from_numpy(dataset.train.labels[: config.batch_size]).to(device)
    if config.layout_last:
        network = network.to(memory_format=torch.channels_last)
        images = images.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), fused=True)
    precision = process.autocast(config.precision, device)

    def step() -> None:
        with precision:
            logits = network(images)
        loss = F.cross_entropy(logits.float(), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return repeat(step)


def tutorial_loop(config: Config, dataset: Dataset, device: torch.device) -> Take | None:
    """Steps of the tutorial's script, without what the trainer does for memory; None where normexp
    was installed without its checkout."""
    if not TUTORIAL.exists():
        return None
    tutorial = runpy.run_path(str(TUTORIAL))
    images = tutorial["Images"](dataset.train.images, dataset.train.labels)
    loader = DataLoader(images, batch_size=config.batch_size, shuffle=True, drop_last=True)
    steps = tutorial["train"](_network(config, dataset, device), loader)

    def take(count: int) -> None:
        with malloc.kept(False):
            for _ in range(count):
                next(steps)

    return take


def _network(config: Config, dataset: Dataset, device: torch.device) -> nn.Module:
    size = dataset.train.images.shape[-1]
    return build_model(config.model, config.norm, size, len(dataset.classes), 0).to(device)
