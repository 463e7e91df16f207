"""A run from its lock to its result.json: however it ends, that is recorded."""

import os
import signal
import threading
from types import FrameType
from typing import Any

import torch
from filelock import FileLock, Timeout

from normexp.config import Config
from normexp.data import sources
from normexp.errors import BusyElsewhere, RunFailed, UserError
from normexp.run_directory import RunDirectory, result_record
from normexp.trainer import console, process
from normexp.trainer.checkpoint import Progress
from normexp.trainer.evaluation import Stopped
from normexp.trainer.loop import Diverged, train
from normexp.trainer.ranks import Ranks


def run(
    config: Config,
    directory: RunDirectory,
    notes: list[str],
    brief: bool = False,
    wait: bool = False,
) -> dict[str, Any]:
    """Train a run and record how it ended.

    Args:
        notes: sentences about the configuration, printed first.
        brief: print an epoch a line and no more; all is in train.log either way.
        wait: if another process trains this run, wait for it instead of raising.

    Returns:
        The contents of result.json, completed or diverged.

    Raises:
        BusyElsewhere: another process trains this run.
        UserError: the device, the data or the disk do not allow it.
        RunFailed: an error ended it.
        KeyboardInterrupt: a person stopped it; asked again, it goes on from there.
    """
    device = process.pick_device(config.device)
    ranks = Ranks()
    _refuse(config, device, ranks)
    with ranks.joined(device):
        if not ranks.main:
            # Rank 0 locks and prepares the directory; it says nothing more if it is done.
            if ranks.from_main(False):
                _train_silently(config, directory, device, ranks)
            return {}
        directory.create()
        try:
            with FileLock(directory.lock, timeout=-1 if wait else 0, poll_interval=0.5):
                # Another process may have finished it since the caller looked.
                answer = None if config.force else directory.answer()
                if answer is not None:
                    ranks.from_main(False)
                    return answer
                directory.tidy()
                if config.force or not config.resume:
                    directory.clear()
                logs = console.Logs(directory.log, brief)
                ranks.from_main(True)
                try:
                    return _run(config, directory, device, notes, ranks)
                finally:
                    logs.close()
        except PermissionError as error:
            ranks.from_main(False)
            raise UserError(
                f"{error.filename} cannot be written: {error.strerror}; choose output=..."
            ) from error
        except Timeout:
            ranks.from_main(False)
            raise BusyElsewhere(f"{directory.path} is being trained by another process") from None


def _refuse(config: Config, device: torch.device, ranks: Ranks) -> None:
    """Raise a UserError for what only shows when device and processes are known."""
    if config.norm.name == "syncbn" and device.type != "cuda":
        raise UserError(
            f"norm=syncbn device={device.type}: torch has SyncBatchNorm on CUDA only; use norm=bn, "
            "which sees each process's share of the batch, or a norm without batch statistics"
        )
    if config.batch_size % ranks.world:
        raise UserError(
            f"batch_size={config.batch_size}: {ranks.world} processes cannot share it evenly; use "
            f"a multiple of {ranks.world}"
        )


def _train_silently(
    config: Config, directory: RunDirectory, device: torch.device, ranks: Ranks
) -> None:
    """The part of a process that is not rank 0: the same steps, and nothing printed or written."""
    with process.settings(config, device), Interrupts() as interrupts:
        dataset = sources.load(config.data, progress=False)
        try:
            train(config, directory, dataset, device, Progress(), interrupts.wanted, ranks)
        except Stopped:
            raise KeyboardInterrupt from None
        except Diverged:
            return


def _run(
    config: Config, directory: RunDirectory, device: torch.device, notes: list[str], ranks: Ranks
) -> dict[str, Any]:
    console.detail(str(directory.path))
    for note in notes:
        console.logger.info("note: %s", note)
    progress = Progress()
    tested: dict[str, Any] = {}
    error: BaseException | None = None
    with process.settings(config, device):
        try:
            status, reason = "completed", None
            dataset = sources.load(config.data, progress=config.log.progress)
            with Interrupts() as interrupts:
                stop = interrupts.wanted
                tested = train(config, directory, dataset, device, progress, stop, ranks)
        except Diverged as end:
            status, reason = "diverged", str(end)
        except (Stopped, KeyboardInterrupt) as end:
            status, reason = "interrupted", str(end) or "before the first step"
            error = KeyboardInterrupt()
        except UserError as end:
            status, reason, error = "failed", str(end), end
            console.logger.exception("failed")
        except (Exception, SystemExit) as end:
            if isinstance(end, SystemExit) and "SUBMITIT_EXECUTOR" in os.environ:
                raise  # how submitit ends a job that it puts into the queue again
            # submitit raises it in a job whose time on the cluster is over.
            out_of_time = type(end).__name__ == "UncompletedJobError"
            status = "interrupted" if out_of_time else "failed"
            reason = " ".join(f"{type(end).__name__}: {end}".split())
            error = RunFailed(f"run {status}: {reason}; the traceback is in {directory.log}")
            console.logger.exception("failed")
        measured = {**_measured(progress, config.batch_size), **process.measured(device), **tested}
    result = result_record(config, directory.run_id, status, reason, measured)
    directory.write_result(result)
    if error is not None:
        raise error
    _show(result, directory)
    return result


def _measured(progress: Progress, batch_size: int) -> dict[str, Any]:
    """What can be said of a run wherever it ended."""
    last = progress.rows[-1] if progress.rows else {}
    steps, seconds = progress.step, progress.train_seconds
    samples = steps * batch_size
    return {
        "epochs": progress.epoch,
        "steps": steps,
        "samples_seen": samples,
        "train_loss": last.get("train_loss"),
        "train_acc": last.get("train_acc"),
        "seconds": round(progress.seconds, 3),
        "train_seconds": round(seconds, 3),
        "ms_per_step": round(1000 * seconds / steps, 4) if steps else None,
        "images_per_second": round(samples / seconds, 1) if seconds else None,
    }


def _show(result: dict[str, Any], directory: RunDirectory) -> None:
    if result["status"] == "diverged":
        console.logger.info("diverged: %s", result["reason"])
    rows = [
        ("test accuracy", console.percent(result["test_acc"])),
        ("validation accuracy", console.percent(result["val_acc"])),
        ("tested weights of epoch", str(result["tested_epoch"] or "-")),
        ("training loss, last epoch", console.number(result["train_loss"], ".4f")),
        ("parameters", console.number(result["parameters"], ",d")),
        ("time", console.number(result["seconds"], ".1f") + " s"),
        ("time a step", console.number(result["ms_per_step"], ".3f") + " ms"),
        ("images a second", console.number(result["images_per_second"], ",.0f")),
        ("run directory", str(directory.path)),
    ]
    console.detail(console.table(rows))


class Interrupts:
    """Turns the first Ctrl-C or SIGTERM into a wish that the loop fulfils at its next step; the
    second acts at once."""

    def __init__(self) -> None:
        self.received = False
        self.previous: dict[int, Any] = {}

    def wanted(self) -> bool:
        return self.received

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = True
        self._restore()

    def _restore(self) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)
        self.previous = {}

    def __enter__(self) -> "Interrupts":
        # Python allows handlers in the main thread only; elsewhere signals keep their meaning.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self.previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *exception: object) -> None:
        self._restore()
