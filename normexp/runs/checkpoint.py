"""Checkpoints: plain values and tensors only, which `torch.load(weights_only=True)` reads, and a
checksum, which that passes over."""

import hashlib
import io
import logging
import math
import struct
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from normexp.config.schema import Config, to_dict
from normexp.data.sources import Dataset
from normexp.runs.directory import RunDirectory
from normexp.runs.records import METRICS, SCHEMA_VERSION
from normexp.system.errors import UserError
from normexp.system.foreign_files import CHECKPOINT, read_bytes
from normexp.trainer import process
from normexp.trainer.fit import Fit, take_weights
from normexp.trainer.optimizer import Optimizer

ZIP_END, ZIP_END_SIZE = b"PK\5\6", 22
"""How the last record of a zip file without a comment begins, and its bytes."""

CHECKSUM = "normexp sha256 "
"""How the comment begins that vouches for all before it; 64 digits follow."""

COMMENT_SIZE = len(CHECKSUM) + 64


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

    def demand_whole(self) -> None:
        """Raise a ValueError where a run cannot have come to this."""
        counts = (self.epoch, self.step, self.correct, self.best_epoch)
        times = (self.epoch_seconds, self.train_seconds, self.seconds, self.cpu_seconds or 0)
        measured = [value for row in self.rows for value in row.values() if value is not None]
        if not (
            all(type(value) is int and value >= 0 for value in counts)
            and all(map(_finite, (self.loss_sum, *times)))
            and min(times) >= 0
            # A gradient may overflow where the loss does not.
            and all(type(value) in (int, float) for value in self.grad_norms)
            and (self.best_acc is None or (_finite(self.best_acc) and 0 <= self.best_acc <= 1))
            and all(row.keys() == set(METRICS) for row in self.rows)
            and all(type(value) in (int, float) for value in measured)
            and [row["epoch"] for row in self.rows] == list(range(1, self.epoch + 1))
            and min(self.epoch, 1) <= self.best_epoch <= self.epoch
        ):
            raise ValueError("its progress is not one that a run comes to")

    def next_epoch(self) -> None:
        self.epoch += 1
        self.loss_sum, self.correct, self.grad_norms, self.epoch_seconds = 0.0, 0, [], 0.0


def _finite(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def save_last(
    directory: RunDirectory,
    network: nn.Module,
    optimizer: Optimizer,
    progress: Progress,
    rng: Tensor,
    together: Sequence[tuple[int, float]],
    diagnostics: Any = None,
) -> None:
    """Write all that a run needs to go on as if it had never stopped.

    Args:
        rng: the state of torch's global generator, or what it would be if the run were alone.
        together: seed and learning rate of the runs that are trained as one network with it,
            its own included.
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
        "rng": rng,
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
    # A zip file, which ends in the length of its comment, none so far.
    content = buffer.getbuffer()
    assert content[-ZIP_END_SIZE : -ZIP_END_SIZE + 4] == ZIP_END
    content[-2:] = struct.pack("<H", COMMENT_SIZE)
    comment = _comment(content)
    content.release()
    buffer.write(comment)
    return buffer.getbuffer()


def _comment(content: bytes | memoryview) -> bytes:
    return f"{CHECKSUM}{hashlib.sha256(content).hexdigest()}".encode()


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


class Damaged(ValueError):
    """A checkpoint is not what a run would have written; the message says of which file and why."""


def read(
    path: Path, parts: frozenset[str], device: torch.device, run_id: str | None = None
) -> dict[str, Any]:
    """Load a checkpoint of this schema; tensors land on ``device``.

    Args:
        parts: what it must hold: LAST or BEST.
        run_id: whose it must be; None for anyone's.

    Raises:
        UserError: the file is damaged, not to be read, or of another run or version of normexp.
    """
    try:
        return _read(path, parts, device, run_id)
    except Damaged as error:
        raise UserError(
            f"{error}; python -m normexp.train with force=true trains that run again"
        ) from error


def _read(
    path: Path, parts: frozenset[str], device: torch.device, run_id: str | None
) -> dict[str, Any]:
    try:
        content = read_bytes(path, CHECKPOINT)
        _demand_checksum(content)
        state = torch.load(io.BytesIO(content), map_location=device, weights_only=True)
    except PermissionError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; make it readable") from error
    except OSError as error:
        raise Damaged(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # whatever a damaged file makes torch raise
        if process.out_of_memory(error):
            raise
        why = str(error) if isinstance(error, Damaged) else type(error).__name__
        raise Damaged(f"{path} cannot be read ({why})") from error
    whole = isinstance(state, dict) and parts <= state.keys()
    version = state.get("schema_version") if whole else None
    if type(version) is not int or version != SCHEMA_VERSION:
        raise Damaged(f"{path} is damaged or of another version")
    if run_id is not None and state.get("run_id") != run_id:
        raise Damaged(f"{path} is of another run, {state.get('run_id')}")
    return dict(state)


def _demand_checksum(content: bytes) -> None:
    """Raise Damaged where a file is not what was written."""
    if content[-ZIP_END_SIZE:].startswith(ZIP_END):
        # Of an earlier version: the parts of a zip file have checksums too, of 32 bits.
        whole = zipfile.ZipFile(io.BytesIO(content)).testzip() is None
    else:
        whole = content[-COMMENT_SIZE:] == _comment(memoryview(content)[:-COMMENT_SIZE])
    if not whole:
        raise Damaged("its checksum does not match")


def read_last(
    directory: RunDirectory, device: torch.device, log: logging.Logger
) -> dict[str, Any] | None:
    """The newest checkpoint that is whole and the run's own, or None where it has to begin; what
    is neither is said in the log."""
    return _whole((directory.last, directory.previous), directory, device, log, None)


def read_previous(
    directory: RunDirectory, device: torch.device, log: logging.Logger, fit: Fit | None
) -> dict[str, Any] | None:
    """The checkpoint before the newest, as :func:`read_last`; it has to fit, too."""
    return _whole((directory.previous,), directory, device, log, fit)


def _whole(
    paths: Sequence[Path], directory: RunDirectory, device: torch.device, log: logging.Logger,
    fit: Fit | None,
) -> dict[str, Any] | None:  # fmt: skip
    found = [path for path in paths if path.exists()]
    said: set[str] = set()
    for path in found:
        try:
            state = _read(path, LAST, device, directory.run_id)
            _demand_use(state, directory, device, fit)
            return state
        except Damaged as error:
            if str(error) not in said:  # both want the best weights
                log.warning("%s; going on without it", error)
            said.add(str(error))
    if found:
        log.warning("%s: no checkpoint can be used", directory.path)
    return None


def fits(
    state: dict[str, Any], directory: RunDirectory, device: torch.device, log: logging.Logger,
    fit: Fit,
) -> bool:  # fmt: skip
    """Whether a run can go on from a checkpoint that was read; if not, the log says so."""
    try:
        _demand_use(state, directory, device, fit)
        return True
    except Damaged as error:
        log.warning("%s; going on without it", error)
        return False


def _names_a_run(one: Any) -> bool:
    """Whether it is a seed with its learning rate, or a seed alone, as earlier versions wrote."""
    if isinstance(one, tuple | list) and len(one) == 2:
        one, rate = one
        if type(rate) is not float:
            return False
    return type(one) is int


def _demand_use(
    state: dict[str, Any], directory: RunDirectory, device: torch.device, fit: Fit | None
) -> None:
    """Raise Damaged where a run cannot go on from a checkpoint, or could not be tested then."""
    what = f"{directory.path}: its checkpoint"
    # Before all else: what making it raises is not the checkpoint's fault.
    network = None if fit is None else fit.trained[0]
    try:
        what += f" of step {state['progress']['step']}"
        progress = Progress(**state["progress"])
        progress.demand_whole()
        if not all(map(_names_a_run, state.get("together", ()))):
            raise ValueError("the runs beside it are no seeds with rates")
        if fit is not None:
            fit.demand(state, progress.epoch, progress.step)
        if progress.best_epoch > 0:
            what = str(directory.best)
            best = _read(directory.best, BEST, device, directory.run_id)
            if best["epoch"] < progress.best_epoch:
                raise ValueError(f"it is of epoch {best['epoch']}, before {progress.best_epoch}")
            if network is not None:
                take_weights(network, best["model"])
    except Damaged:
        raise
    except Exception as error:  # whatever torch makes of what does not fit
        if process.out_of_memory(error):
            raise
        why = str(error).splitlines()[-1:] or [type(error).__name__]
        raise Damaged(f"{what} does not fit the run ({why[0].strip()})") from error


def restore(state: dict[str, Any], network: nn.Module, optimizer: Optimizer) -> None:
    """Put weights, optimizer and random state back to where :func:`save_last` saw them."""
    network.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["rng"].cpu())
