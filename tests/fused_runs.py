"""Seeds trained as one network and alone, and what they are to have in common."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import SMALL, metrics, run, same_tensors, small, state

from normexp.config.schema import Config
from normexp.runs.composing import compose
from normexp.runs.directory import RunDirectory
from normexp.runs.one_run import jobs_of
from normexp.runs.training import run as run_all

CPU = torch.device("cpu")
# Fused and single networks round differently, and training makes differences grow.
CLOSE = {"rel": 2e-3, "abs": 1e-4}


def jobs(output: Path, *overrides: str) -> list[tuple[Config, RunDirectory]]:
    return jobs_of(compose([*SMALL, f"output={output}", *overrides]))


def together(*overrides: str, output: Path) -> list[tuple[RunDirectory, dict[str, Any]]]:
    """Train fused seeds; their directories and results."""
    asked = jobs(output, *overrides)
    return list(zip([d for _, d in asked], run_all(asked, []), strict=True))


def alone(*overrides: str, output: Path) -> tuple[RunDirectory, dict[str, Any]]:
    config, directory = small(output, *overrides)
    return directory, run(config, directory)


def assert_same_run(one: RunDirectory, other: RunDirectory) -> None:
    """But for rounding: the same rows, and the same tensors in the checkpoints."""
    assert one.run_id == other.run_id
    for mine, theirs in zip(metrics(one), metrics(other), strict=True):
        assert mine["step"] == theirs["step"]
        for name in ("lr", "train_loss", "val_loss", "grad_norm"):
            assert float(mine[name]) == pytest.approx(float(theirs[name]), **CLOSE), name
        for name in ("train_acc", "val_acc"):
            assert float(mine[name]) == pytest.approx(float(theirs[name]), abs=0.07)
    mine, theirs = state(one), state(other)
    assert mine["model"].keys() == theirs["model"].keys()
    for name, value in mine["model"].items():
        assert value.shape == theirs["model"][name].shape
        assert value.nbytes == value.untyped_storage().nbytes()
        # A norm cancels the bias before it: Adam makes steps of its rounding errors, and running
        # means follow it.
        cancelled = name.startswith("conv") and name.endswith("bias")
        close = 0.1 if cancelled or name.endswith("running_mean") else 0.01
        torch.testing.assert_close(value, theirs["model"][name], rtol=0.05, atol=close)
    assert same_tensors(mine["optimizer"]["param_groups"], theirs["optimizer"]["param_groups"])
    assert mine["optimizer"]["state"].keys() == theirs["optimizer"]["state"].keys()


def after(calls: int) -> Callable[[], bool]:
    asked = iter(range(calls))
    return lambda: next(asked, None) is None
