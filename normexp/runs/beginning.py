"""A run of fewer epochs may be the beginning of one that is asked for, which then goes on from its
checkpoint."""

import glob
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import torch

from normexp.config.schema import Config, SchedulerConfig, SchedulerName
from normexp.data.sources import Dataset
from normexp.data.split import train_and_val
from normexp.models.build import build_model
from normexp.runs import checkpoint
from normexp.runs.directory import RunDirectory
from normexp.runs.identity import run_id
from normexp.runs.recorded_config import NotReadable, read_config
from normexp.runs.seed_run import SeedRun
from normexp.system.errors import UserError
from normexp.trainer.optimization import rate_factor
from normexp.trainer.steps import total_steps


def go_on_from_shorter(runs: list[SeedRun], dataset: Dataset, device: torch.device) -> None:
    """Let each run that has no checkpoint begin with that of another run, if training from scratch
    would come to the same one; where a run of another length is no such beginning, say so.

    Raises:
        UserError: the disk is full or cannot be written.
    """
    for run in runs:
        if run.state is not None or run.config.force or not run.config.resume:
            continue
        reasons: dict[str, str] = {}
        fitting = []
        for config, directory in _others(run):
            where = f"the run of {_length(config)} in {directory.path}"
            try:
                found = _beginning(run, config, directory, dataset, device)
                fitting.append((where, directory, *found))
            except UserError as error:
                if config.scheduler == run.config.scheduler:
                    reasons[where] = str(error)
        if fitting:
            furthest = max(fitting, key=lambda one: one[2]["progress"]["step"])
            _take_over(run, *furthest)
        elif reasons:
            where, reason = next(iter(reasons.items()))
            run.say(f"{where} is another question, and this one begins anew: {reason}")


def _others(run: SeedRun) -> Iterator[tuple[Config, RunDirectory]]:
    """The runs beside this one that differ in nothing but length and schedule, and have come
    somewhere."""
    own = run.directory
    stem = glob.escape(own.run_id.rpartition("-")[0])
    for path in sorted(own.path.parent.glob(f"{stem}-*")):
        try:
            found = read_config(path / "config.yaml", {})
            schedule = SchedulerConfig(
                **{item.name: found[f"scheduler.{item.name}"] for item in fields(SchedulerConfig)}
            )
            schedule.name = SchedulerName(schedule.name)
            config = replace(
                run.config, epochs=found["epochs"], max_steps=found["max_steps"], scheduler=schedule
            )
        except (OSError, NotReadable, ValueError, KeyError):
            continue  # of another version, or damaged
        other = RunDirectory(config, path.name, own.beside)
        if path != own.path and run_id(config, own.beside) == path.name and other.last.exists():
            yield config, other


def _length(config: Config) -> str:
    count, word = config.max_steps or config.epochs, "step" if config.max_steps else "epoch"
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def _beginning(
    run: SeedRun, shorter: Config, directory: RunDirectory, dataset: Dataset, device: torch.device
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The last and the best checkpoint of a run that is the beginning of this one.

    Raises:
        UserError: it is none; the message says why.
    """
    config = run.config
    train, _ = train_and_val(dataset, config.data)
    epoch = len(train) // config.images_per_step
    if epoch == 0:
        raise UserError("there are too few images")
    total, before = total_steps(config, epoch), total_steps(shorter, epoch)
    state = checkpoint.read_last(directory, device, run.log)
    if state is None:
        raise UserError("its checkpoints are damaged")
    progress = state["progress"]
    step = progress["step"]
    if step > total:
        raise UserError("it has come further")
    if step < epoch * progress["epoch"]:
        raise UserError("it ended within an epoch")
    if any(
        rate_factor(config.scheduler, place / total)
        != rate_factor(shorter.scheduler, place / before)
        for place in range(step)
    ):
        raise UserError("its steps had other learning rates, which go by the share of training")
    layers = build_model(
        replace(config.model, pretrained=False), config.norm, dataset.train.images.shape[-1],
        len(dataset.classes), 0,
    ).modules()  # fmt: skip
    if any(hasattr(layer, "at_fraction") for layer in layers):
        raise UserError(f"norm={config.norm.name} goes by the share of training that is done")
    if config.diagnostics and "diagnostics" not in state:
        raise UserError("it left no diagnostics")
    if config.diagnostics:
        directory.read_diagnostics(progress["epoch"])
    best = None
    if progress["best_epoch"] > 0:
        best = checkpoint.read(directory.best, checkpoint.BEST, device, directory.run_id)
        if best["epoch"] != progress["best_epoch"]:
            raise UserError("it is being trained just now")
    return state, best


def _take_over(
    run: SeedRun, where: str, other: RunDirectory, state: dict[str, Any],
    best: dict[str, Any] | None,
) -> None:  # fmt: skip
    if run.main:
        if best is not None:
            checkpoint.copy_best(best, run.directory, run.config)
        if run.config.diagnostics:
            rows = other.read_diagnostics(state["progress"]["epoch"])
            run.directory.write_diagnostics(rows)
    # last.pt is written when the next is due: until then a run that is killed begins here again.
    run.take(state, f", where {where} is")
