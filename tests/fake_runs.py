"""Run directories as a finished training would leave them, without training."""

import copy
import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from normexp.config.schema import Config
from normexp.runs.composing import compose
from normexp.runs.directory import RunDirectory, result_record
from normexp.runs.identity import BesideConfig, run_id

ALONE = (
    *("batch_size", "data.train_size", "model.channels", "norm.weight_standardization"),
    *("optimizer.lr", "threads"),
)
"""Keys from which no other follows: they are set afterwards, since composing is slow."""


@cache
def _composed(*overrides: str) -> Config:
    return compose(list(overrides))


def write_run(
    output: Path,
    *overrides: str,
    seed: int = 0,
    test_acc: float | None = 0.5,
    val_acc: float | None = 0.5,
    status: str | None = "completed",
    reason: str | None = None,
    epochs: int = 2,
    **measured: Any,
) -> RunDirectory:
    """One run directory; ``status=None`` for a run that has left no result."""
    pairs = [override.split("=", 1) for override in overrides]
    composed = ["=".join(pair) for pair in pairs if pair[0] not in ALONE]
    # The folder is set afterwards, so that tests share what was composed.
    config = copy.deepcopy(_composed("data=synthetic", *composed))
    config.seed, config.output = seed, str(output)
    for key, value in pairs:
        if key in ALONE:
            group, _, name = key.rpartition(".")
            setattr(getattr(config, group) if group else config, name, json.loads(value))
    directory = RunDirectory(config, run_id(config, BesideConfig("images")))
    directory.create()
    directory.write_config(config)
    done = status == "completed"
    directory.write_metrics(
        [
            {
                "epoch": epoch, "step": 10 * epoch, "samples_seen": 10 * epoch * config.batch_size,
                "lr": 0.001, "train_loss": 2 / epoch, "train_acc": 0.4, "val_loss": 2.1 / epoch,
                "val_acc": None if val_acc is None else val_acc * (1 - 0.5**epoch),
                "grad_norm": 1.0, "seconds": 1.0 * epoch, "images_per_second": 1000.0,
            }
            for epoch in range(1, epochs + 1)
        ]
    )  # fmt: skip
    if status is not None:
        known = {
            "train_loss": 2 / epochs,
            "test_acc": test_acc if done else None,
            "val_acc": val_acc if done else None,
            "parameters": 13082, "ms_per_step": 2.0, "images_per_second": 1000.0,
            "train_seconds": 10.0, "seconds": 11.0, "peak_memory_mb": 500.0, "device": "cpu",
            "threads": 1, "fused": 1, "versions": {"normexp": "0.1.0", "torch": "2.15.0"},
            "git": "abc",
        }  # fmt: skip
        record = result_record(config, directory.run_id, status, reason, known | measured)
        directory.write_result(record)
    return directory


def write_sweep(
    output: Path,
    accuracies: dict[str, Iterable[float | None]],
    *overrides: str,
    seeds: Iterable[int] | None = None,
) -> None:
    """A run for each accuracy of each cell, such as ``{"norm=bn batch_size=2": [0.5, 0.6]}``; None
    for a run that diverged."""
    for cell, values in accuracies.items():
        found = list(values)
        for seed, value in zip(seeds or range(len(found)), found, strict=True):
            status, reason = "completed", None
            if value is None:
                status, reason = "diverged", "the loss became nan at step 7"
            write_run(
                output, *overrides, *cell.split(), seed=seed, test_acc=value, val_acc=value,
                status=status, reason=reason,
            )  # fmt: skip
