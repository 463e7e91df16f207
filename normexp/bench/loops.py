"""The loops that are timed: training steps in three ways, and batches in two."""

import functools
import importlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader

from normexp.bench.timing import Loop, timed
from normexp.config import Architecture, Config, NormConfig
from normexp.config_checks import seeds_of
from normexp.data.batches import Pictures, TrainingBatches
from normexp.data.images import Dataset
from normexp.errors import UserError
from normexp.models.build import build_model
from normexp.trainer.process import autocast
from normexp.trainer.steps import Trainer

SCRIPTS = Path(__file__).parents[2] / "scripts"


def trainer_loop(config: Config, dataset: Dataset, device: torch.device) -> Callable[[int], None]:
    """Steps of the trainer itself: intervals of log.every steps, as in a run; of all ``seeds`` in
    one network.

    Raises:
        UserError: a run would be refused here.
    """
    refuse_sync_bn(config.norm, device)
    trainer = Trainer(config, seeds_of(config), dataset, device)
    plan, epoch, position, done = trainer.batches.plan(0), 0, 0, 0

    def take(count: int) -> None:
        nonlocal plan, epoch, position, done
        while count:
            if position == trainer.batches.steps:
                epoch, position = epoch + 1, 0
                plan = trainer.batches.plan(epoch)
            last = min(position + min(config.log.every, count), trainer.batches.steps)
            trainer.interval(plan, position, last, done, True, lambda: False, lambda taken: None)
            count, done, position = count - (last - position), done + last - position, last

    return take


def bare_loop(config: Config, dataset: Dataset, device: torch.device) -> Callable[[int], None]:
    """The least a step can cost: a resident batch, forward, backward, fused Adam."""
    size = dataset.train.images.shape[-1]
    network = build_model(config.model, config.norm, size, len(dataset.classes), 0).to(device)
    images = torch.randn(config.batch_size, 3, size, size, device=device)
    labels = torch.from_numpy(dataset.train.labels[: config.batch_size]).to(device)
    if config.channels_last and config.model.architecture is not Architecture.mlp:
        network = network.to(memory_format=torch.channels_last)
        images = images.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), fused=True)
    precision = autocast(config.precision, device)

    def take(count: int) -> None:
        for _ in range(count):
            with precision:
                logits = network(images)
            loss = F.cross_entropy(logits.float(), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        loss.item()

    return take


def tutorial_loop(
    config: Config, dataset: Dataset, device: torch.device
) -> Callable[[int], None] | None:
    """Steps of the tutorial's script; None where it is not at hand."""
    tutorial = _tutorial()
    if tutorial is None:
        return None
    size = dataset.train.images.shape[-1]
    network = build_model(config.model, config.norm, size, len(dataset.classes), 0).to(device)
    images = tutorial.Images(dataset.train.images, dataset.train.labels)
    loader = DataLoader(images, batch_size=config.batch_size, shuffle=True, drop_last=True)
    steps = tutorial.train(network, loader)

    def take(count: int) -> None:
        for _ in range(count):
            next(steps)

    return take


def pipeline_loop(config: Config, dataset: Dataset, device: torch.device) -> Loop:
    """Batches as the trainer makes them, prepared as far ahead as in a run."""
    channels_last = config.channels_last and config.model.architecture is not Architecture.mlp
    pictures = Pictures(dataset.train, dataset, config.data, device, channels_last)
    indices = torch.arange(len(dataset.train.labels))
    batches = TrainingBatches(pictures, indices, config.data, config.batch_size, [config.seed])
    plan, epoch, position = batches.plan(0), 0, 0

    def take(count: int) -> None:
        nonlocal plan, epoch, position
        while count:
            if position == batches.steps:
                epoch, position = epoch + 1, 0
                plan = batches.plan(epoch)
            last = min(position + min(config.log.every, count), batches.steps)
            for images, labels in batches.chunks(plan, position, last):
                for _ in zip(
                    images.split(config.batch_size), labels.split(config.batch_size), strict=True
                ):
                    pass
            count, position = count - (last - position), last

    return timed(take, device)


def loader_loop(
    config: Config, dataset: Dataset, device: torch.device, workers: int
) -> Loop | None:
    """Batches of a DataLoader as in the tutorial's script; None where that is not at hand.

    Worker processes live only while they are timed, so that they are in nobody else's way; the
    time to start them and what they prepare meanwhile are not counted.
    """
    tutorial = _tutorial()
    if tutorial is None:
        return None
    loader = DataLoader(
        tutorial.Images(dataset.train.images, dataset.train.labels), config.batch_size,
        shuffle=True, drop_last=True, num_workers=workers,
    )  # fmt: skip

    def loop(count: int) -> float:
        batches = iter(loader)
        # By default a worker is two batches ahead: those are ready before the clock starts.
        for _ in range(min(2 * workers + 1, len(loader) - 1)):
            next(batches)
        began = time.perf_counter()
        for _ in range(count):
            try:
                images, labels = next(batches)
            except StopIteration:
                batches = iter(loader)
                images, labels = next(batches)
            images.to(device), labels.to(device)
        return time.perf_counter() - began

    return loop


def refuse_sync_bn(norm: NormConfig, device: torch.device) -> None:
    """Raise a UserError for SyncBatchNorm on a CPU: alone it would do what BatchNorm does."""
    if norm.name == "syncbn" and device.type != "cuda":
        raise UserError("norm=syncbn: torch has it on CUDA only; use norm=bn")


@functools.cache
def _tutorial() -> Any:
    """The module of scripts/tutorial.py; None where normexp was installed without its checkout."""
    if not (SCRIPTS / "tutorial.py").exists():
        print("no tutorial to compare with: scripts/tutorial.py is in a checkout", file=sys.stderr)
        return None
    # Found by its name, so that worker processes find it too.
    if str(SCRIPTS) not in sys.path:
        sys.path.insert(0, str(SCRIPTS))
    return importlib.import_module("tutorial")
