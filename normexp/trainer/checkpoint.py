"""Checkpoints: plain values and tensors only, which `torch.load(weights_only=True)` reads."""

import io
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from normexp.config import Config, to_dict
from normexp.data.sources import Dataset
from normexp.errors import UserError
from normexp.foreign_files import CHECKPOINT, open_regular
from normexp.run_directory import SCHEMA_VERSION, RunDirectory
from normexp.trainer.optimizer import Optimizer


@dataclass
class Progress:
    """How far a run has come: all of its state that is neither weights nor optimizer."""

    epoch: int = 0
    """Epochs finished."""
    step: int = 0
    """Steps done, in all epochs."""
    loss_sum: float = 0.0
    """Of the epoch under way, over its steps so far; the next three likewise."""
    correct: int = 0
    grad_norms: list[float] = field(default_factory=list)
    epoch_seconds: float = 0.0
    train_seconds: float = 0.0
    cpu_seconds: float | None = 0.0
    """Of these, those in which the thread that trains had a processor."""
    seconds: float = 0.0
    """Wall time of the run in all its sittings."""
    best_acc: float | None = None
    best_epoch: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)
    """The rows of metrics.csv."""

    def next_epoch(self) -> None:
        self.epoch += 1
        self.loss_sum, self.correct, self.grad_norms, self.epoch_seconds = 0.0, 0, [], 0.0


def save_last(
    directory: RunDirectory,
    network: nn.Module,
    optimizer: Optimizer,
    progress: Progress,
    together: Sequence[int],
    diagnostics: Any = None,
) -> None:
    """Write all that a run needs to go on as if it had never stopped.

    Args:
        together: the seeds that are trained as one network with it, its own included.
        diagnostics: what the next measuring will be compared with, if there is any.

    Raises:
        UserError: the disk is full or cannot be written.
    """
    state = {
        "schema_version": SCHEMA_VERSION,
        "run_id": directory.run_id,
        "model": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "progress": asdict(progress),
        "rng": torch.get_rng_state(),
        "together": list(together),
    }
    if diagnostics is not None:
        state["diagnostics"] = diagnostics
    directory.write_last(_packed(state))


def save_best(
    directory: RunDirectory,
    network: nn.Module,
    config: Config,
    dataset: Dataset,
    progress: Progress,
) -> None:
    """Write the weights and what is needed to use them on other images.

    Raises:
        UserError: the disk is full or cannot be written.
    """
    state = {
        "schema_version": SCHEMA_VERSION,
        "run_id": directory.run_id,
        "model": network.state_dict(),
        "config": to_dict(config),
        "beside_config": asdict(directory.beside),
        "classes": list(dataset.classes),
        "mean": list(dataset.mean),
        "std": list(dataset.std),
        "levels": asdict(dataset.levels) if dataset.levels else None,
        "epoch": progress.epoch,
        "step": progress.step,
    }
    directory.write_best(_packed(state))


def copy_best(best: dict[str, Any], directory: RunDirectory, config: Config) -> None:
    """Write what :func:`save_best` of another run wrote, as this run's own.

    Raises:
        UserError: the disk is full or cannot be written.
    """
    own = {"run_id": directory.run_id, "config": to_dict(config)}
    directory.write_best(_packed(best | own))


def _packed(state: dict[str, Any]) -> memoryview:
    # Not straight into the file: torch hides from us what the system says of a full disk.
    buffer = io.BytesIO()
    torch.save(_without_strangers(state), buffer)
    return buffer.getbuffer()


def _without_strangers(value: Any) -> Any:
    """The same, with copies of tensors that are a part of something larger: torch would save all
    of that, the weights of every seed that is trained together with this one."""
    if isinstance(value, torch.Tensor):
        part = value.nbytes < value.untyped_storage().nbytes()
        return value.detach().clone() if part else value
    if isinstance(value, dict):
        return {name: _without_strangers(inner) for name, inner in value.items()}
    return [_without_strangers(inner) for inner in value] if isinstance(value, list) else value


LAST = frozenset({"model", "optimizer", "progress", "rng"})
BEST = frozenset({"model", "config", "classes", "mean", "std", "epoch", "step"})


def read(path: Path, parts: frozenset[str], device: torch.device) -> dict[str, Any]:
    """Load a checkpoint of this schema; tensors land on ``device``.

    Args:
        parts: what it must hold: LAST or BEST.

    Raises:
        UserError: the file is damaged, not to be read, or of another version of normexp.
    """
    try:
        with open_regular(path, CHECKPOINT) as file:
            state = torch.load(file, map_location=device, weights_only=True)
    except PermissionError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; make it readable") from error
    except OSError as error:
        raise UserError(
            f"{path} cannot be read: {error.strerror or error}; force=true trains the run again"
        ) from error
    except Exception as error:  # whatever a damaged file makes torch raise
        raise UserError(
            f"{path} cannot be read ({type(error).__name__}); force=true trains the run again"
        ) from error
    whole = isinstance(state, dict) and parts <= state.keys()
    if not whole or state.get("schema_version") != SCHEMA_VERSION:
        raise UserError(f"{path} is damaged or of another version; force=true trains the run again")
    return dict(state)


def read_last(
    directory: RunDirectory, device: torch.device, log: logging.Logger
) -> dict[str, Any] | None:
    """The newest checkpoint that can be read, or None where a run has to begin; what could not be
    read is said in the log."""
    return _readable((directory.last, directory.previous), directory, device, log)


def read_previous(
    directory: RunDirectory, device: torch.device, log: logging.Logger
) -> dict[str, Any] | None:
    """The checkpoint before the newest, as :func:`read_last`."""
    return _readable((directory.previous,), directory, device, log)


def _readable(
    paths: Sequence[Path], directory: RunDirectory, device: torch.device, log: logging.Logger
) -> dict[str, Any] | None:
    """The first of these checkpoints that can be read."""
    for path in paths:
        if path.exists():
            try:
                state = read(path, LAST, device)
                if state["progress"]["best_epoch"] > 0:
                    read(directory.best, BEST, device)  # the test will need it
                return state
            except UserError as error:
                log.warning("%s; going on without it", error)
    return None


def restore(state: dict[str, Any], network: nn.Module, optimizer: Optimizer) -> None:
    """Put weights, optimizer and random state back to where :func:`save_last` saw them."""
    network.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["rng"].cpu())
