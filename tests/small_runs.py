"""Runs small enough for a test, and how to look at what they left."""

import csv
from pathlib import Path
from typing import Any

import torch

from normexp.config.schema import Config
from normexp.data.sources import fingerprint
from normexp.norms.rules import source_digest
from normexp.runs.composing import compose
from normexp.runs.directory import RunDirectory
from normexp.runs.identity import BesideConfig, run_id
from normexp.runs.training import run as run_all

# 270 training images and 30 for validation, on 8x8 pixels.
SMALL = (
    *("data=synthetic", "data.train_images=300", "data.test_images=60", "data.image_size=8"),
    *("data.crop_padding=1", "batch_size=10", "epochs=2", "log.every=5", "log.tensorboard=false"),
    *("device=cpu", "threads=1"),
)
TIMES = (
    *("fused", "seconds", "train_seconds", "ms_per_step", "images_per_second", "peak_memory_mb"),
    "cpu_share",
)


def small(output: Path, *overrides: str) -> tuple[Config, RunDirectory]:
    """A small configuration and the directory its run would have below ``output``."""
    config = compose([*SMALL, f"output={output}", *overrides])
    beside = BesideConfig(fingerprint(config.data), source_digest(config.norm))
    return config, RunDirectory(config, run_id(config, beside), beside)


def run(config: Config, directory: RunDirectory) -> dict[str, Any]:
    """Train one run; the contents of its result.json."""
    (result,) = run_all([(config, directory)], [])
    return result


def metrics(directory: RunDirectory) -> list[dict[str, str]]:
    with (directory.path / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def without_times(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in TIMES}


def state(directory: RunDirectory) -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(directory.last, weights_only=True)
    return loaded


def same_tensors(one: Any, other: Any) -> bool:
    """Whether two nests of dicts and lists hold equal values, tensors bit for bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same_tensors(one[k], other[k]) for k in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same_tensors, one, other))
    return bool(one == other)
