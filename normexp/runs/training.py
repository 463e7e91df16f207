"""Runs from their locks to their result.json: however they end, that is recorded."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from normexp.config.schema import Architecture, Config, Freeze, OnError
from normexp.data import sources
from normexp.data.enough_images import refuse_too_few
from normexp.data.sources import Dataset
from normexp.data.split import train_and_val
from normexp.models import named, swap
from normexp.models.build import count_parameters
from normexp.models.head import head
from normexp.models.weights import load_matching, read
from normexp.norms import rules
from normexp.norms.catalogue import BUILT_IN
from normexp.norms.factory import own_norm
from normexp.runs import console, groups
from normexp.runs.beginning import go_on_from_shorter
from normexp.runs.composing import image_size
from normexp.runs.directory import RunDirectory
from normexp.runs.recording import train_and_record
from normexp.runs.seed_run import SeedRun
from normexp.system.errors import BusyElsewhere, DiskFull, RunFailed, UserError, cannot_write
from normexp.system.signals import Interrupts
from normexp.trainer import process
from normexp.trainer.evaluation import Stopped
from normexp.trainer.fit import Fit
from normexp.trainer.ranks import Ranks
from normexp.trainer.room import CLASSES, parameters_of, refuse_too_large

Job = tuple[Config, RunDirectory]
"""A run that is asked for, and where it is kept."""

_shown: set[str] = set()
"""Notes on images: a sweep shows each once, the logs of its runs have all."""


def run(
    jobs: list[Job], notes: list[str], brief: bool = False, wait: bool = False
) -> list[dict[str, Any]]:
    """Train runs that differ in their seed and learning rate alone, and record how each ended.

    Once only in a process that torchrun started: torch cannot meet the same processes twice.

    Args:
        notes: sentences about the configuration, printed first.
        brief: print an epoch a line and no more; all is in train.log either way.
        wait: if another process trains one of the runs, wait for it instead of raising.

    Returns:
        The contents of each result.json, completed or diverged.

    Raises:
        BusyElsewhere: another process trains one of the runs; the others are trained before.
        UserError: the device, the data or the disk do not allow it.
        RunFailed: an error ended a run; the others are trained before unless on_error=stop.
        KeyboardInterrupt: a person stopped it; asked again, it goes on from there.
    """
    config = jobs[0][0]
    device = process.pick_device(config.device)
    ranks = Ranks()
    _refuse(config, device, ranks)
    notes = notes + _refuse_network(config, device)
    process.allow_open_files(len(jobs))
    with ranks.joined(device):
        if not ranks.main:
            for job in jobs:
                # Rank 0 locks and prepares the directory; it says nothing more if it is done.
                if ranks.from_main(False):
                    _train_silently(job, device, ranks)
            return [{} for _ in jobs]
        with console.screen(brief, config.log.quiet):
            results: dict[str, dict[str, Any]] = {}
            busy: list[Job] = []
            # Processes that train together train one run after the other.
            for part in [jobs] if ranks.world == 1 else [[job] for job in jobs]:
                ended, taken = _lock_and_train(part, 0, device, notes, ranks)
                results |= ended
                busy += taken
            if busy and not wait:
                raise BusyElsewhere(f"{busy[0][1].path} is being trained by another process")
            # One after the other and holding none: two processes could wait for each other.
            for job in busy:
                results |= _lock_and_train([job], -1, device, notes, ranks)[0]
    return [results[directory.run_id] for _, directory in jobs]


def _refuse(config: Config, device: torch.device, ranks: Ranks) -> None:
    """Raise a UserError for what only shows when device and processes are known."""
    if config.norm.name == "syncbn" and device.type != "cuda":
        raise UserError(
            f"norm=syncbn device={device.type}: torch has SyncBatchNorm on CUDA only; use norm=bn, "
            "which sees each process's share of the batch, or a norm without batch statistics"
        )
    if config.norm.name == "syncbn" and config.diagnostics and ranks.world > 1:
        raise UserError(
            "diagnostics=true: one process measures, and norm=syncbn would wait for the others; "
            "leave it out"
        )
    compilers = (os.environ.get("CXX"), "g++", "clang++", "cl")
    if config.compile and not any(name and shutil.which(name) for name in compilers):
        raise UserError(
            "compile=true: torch.compile needs a C++ compiler and finds none; install g++ or leave "
            "it out"
        )


def _refuse_network(config: Config, device: torch.device) -> list[str]:
    """Raise a UserError for a network that cannot be made, before images are read.

    Returns:
        What is to be said of it.
    """
    if config.model.architecture is Architecture.named:
        _refuse_named(config, device)
        return named.unlike(config.model, config.data)
    if config.norm.name not in BUILT_IN:
        try:
            own_norm(config.norm.name)
        except UserError:
            raise
        except (Exception, SystemExit):
            pass  # what its code does wrong is met again where the run records it
    size = image_size(config)
    refuse_too_large(config, parameters_of(config.model, size), device)
    return []


def _refuse_named(config: Config, device: torch.device) -> None:
    """Raise a UserError for a network by name that cannot be made, whose weights do not fit, whose
    norms cannot be swapped, or which such batches cannot train; of how many classes is not known
    yet."""
    model, norm, size = config.model, config.norm, image_size(config)
    with torch.random.fork_rng(devices=[]):
        network = named.build(model, size, CLASSES)
        refuse_too_large(config, count_parameters(network), device)
        if model.weights:
            load_matching(network, read(Path(model.weights)))
        images = torch.zeros(swap.PROBE_IMAGES, 3, size, size)
        sites = swap.sites(network, images)
        rules.check(norm, sites, config.batch_size)
        swap.swap(network, norm, sites)
        what = f"model={model.name} norm={norm.name} batch_size={config.batch_size}"
        if model.freeze is not Freeze.none or config.optimizer.head_lr_factor != 1:
            head(network, model, size, CLASSES)
        swap.try_training(network, images[: config.batch_size], what)


def _train_silently(job: Job, device: torch.device, ranks: Ranks) -> None:
    """The part of a process that is not rank 0: the same steps, and nothing printed or written."""
    config, directory = job
    with process.settings(config, device), Interrupts() as interrupts:
        dataset = sources.load(config.data, progress=False)
        silent = SeedRun(config, directory, main=False)
        silent.find_state(device)
        silent.fit_state(Fit(config, dataset), device)
        go_on_from_shorter([silent], dataset, device)
        try:
            train_and_record([silent], dataset, device, interrupts.wanted, ranks)
        except Stopped:
            raise KeyboardInterrupt from None


def _lock_and_train(
    jobs: list[Job], timeout: float, device: torch.device, notes: list[str], ranks: Ranks
) -> tuple[dict[str, dict[str, Any]], list[Job]]:
    """Train what no other process trains.

    Args:
        timeout: seconds to wait for another process; -1 waits until it is done.

    Returns:
        The results by the identity of the run, and the jobs that another process has.
    """
    results, busy, runs = {}, [], []
    with contextlib.ExitStack() as held:
        try:
            for config, directory in jobs:
                directory.create()
                try:
                    held.enter_context(FileLock(directory.lock, timeout=timeout, poll_interval=0.5))
                except Timeout:
                    busy.append((config, directory))
                    continue
                # Another process may have finished it since the caller looked.
                answer = None if config.force else directory.answer()
                if answer is not None:
                    results[directory.run_id] = answer
                    continue
                directory.tidy()
                run = SeedRun(config, directory)
                if not run.anew and (damage := directory.damage()):
                    run.log.warning("%s; making it anew", damage)
                runs.append(run)
        except (OSError, UserError) as error:
            ranks.from_main(False)
            if isinstance(error, UserError):
                raise
            raise cannot_write(Path(error.filename or directory.path), error) from error
        ranks.from_main(bool(runs))
        for run in runs:
            held.callback(run.close)
        if runs:
            _train_all(runs, device, notes, ranks)
    for run in runs:
        assert run.result is not None
        results[run.directory.run_id] = run.result
    return results, busy


def _train_all(runs: list[SeedRun], device: torch.device, notes: list[str], ranks: Ranks) -> None:
    """Train runs, as many together as configured or fastest; an error in some spares the others."""
    config = runs[0].config
    rates = {run.config.optimizer.lr for run in runs}
    for run in runs:
        run.several = len(runs) > 1
        run.on_screen = run is runs[0]
        if len(rates) > 1:
            run.called += f" at {run.config.optimizer.lr:g}"
    errors = []
    with process.settings(config, device):
        with _ends_recorded(runs, device):
            for run in runs:
                run.find_state(device)
            dataset = _images(runs)
            for run in runs:
                run.say(str(run.directory.path), detail=True, screen=not run.several)
                for note in notes:
                    run.say(f"note: {note}")
            for note in dataset.notes:
                for run in runs:
                    run.say(f"note: {note}", screen=note not in _shown)
                _shown.add(note)
            fit = Fit(config, dataset)
            for run in runs:
                run.fit_state(fit, device)
            groups.rejoin(runs, device)
            go_on_from_shorter(runs, dataset, device)
            formed = groups.form(runs, dataset, device)
        for group in formed:
            process.reset_peak_memory(device)
            # For norms that draw: in turn a run meets the same random numbers as alone.
            torch.manual_seed(group[0].config.seed)
            interrupts = Interrupts()
            try:
                with _ends_recorded(group, device), interrupts:
                    train_and_record(group, dataset, device, interrupts.wanted, ranks)
            except (UserError, RunFailed) as error:
                if config.on_error is OnError.stop or isinstance(error, DiskFull):
                    raise
                errors.append(error)
            if interrupts.received:
                # After the last step: these runs have ended, but a person wants no more of them.
                raise KeyboardInterrupt
    if errors:
        raise errors[0]


def _images(runs: list[SeedRun]) -> Dataset:
    """The images of runs, which begin with them: what cannot have any leaves what was there, and
    nothing where nothing was.

    Raises:
        UserError: they cannot be read, or are too few.
    """
    config = runs[0].config
    try:
        dataset = sources.load(config.data, progress=config.log.progress)
        train_images, _ = train_and_val(dataset, config.data)
        refuse_too_few(len(train_images), len(dataset.train.labels), config)
    except BaseException as error:
        for run in runs:
            run.withdrawn = run.anew or (isinstance(error, UserError) and run.state is None)
        raise
    for run in runs:
        if run.anew:
            run.directory.clear()
    return dataset


@contextlib.contextmanager
def _ends_recorded(runs: list[SeedRun], device: torch.device) -> Iterator[None]:
    """Record how runs ended that an exception ended.

    Raises:
        UserError, RunFailed, KeyboardInterrupt: what ended them, for the caller.
    """
    try:
        yield
        return
    except (Stopped, KeyboardInterrupt) as end:
        status, reason = "interrupted", str(end)
        error: BaseException = KeyboardInterrupt()
    except UserError as end:
        status, reason, error = "failed", str(end), end
    except (Exception, SystemExit) as end:
        if isinstance(end, SystemExit) and "SUBMITIT_EXECUTOR" in os.environ:
            raise  # how submitit ends a job that it puts into the queue again
        # submitit raises it in a job whose time on the cluster is over.
        out_of_time = type(end).__name__ == "UncompletedJobError"
        status = "interrupted" if out_of_time else "failed"
        reason = " ".join(f"{type(end).__name__}: {end}".split())
        if process.out_of_memory(end):
            reason = (
                f"not enough memory ({device.type}): use a smaller batch_size, evaluate.batch_size "
                "or model (model.channels, model.hidden), or fuse=1"
            )
        log = runs[0].directory.log
        error = RunFailed(f"run {status}: {reason}; the traceback is in {log}")
        error.__cause__ = end
    for run in runs:
        if run.result is None and not run.withdrawn:
            if status == "failed":
                cause = error.__cause__ if isinstance(error, RunFailed) else error
                run.log.error("failed", exc_info=cause)
            step = run.progress.step
            so_far = f"at step {step}" if step else "before the first step"
            if isinstance(error, DiskFull):
                reason = error.of(Path(run.config.output))
            with contextlib.suppress(DiskFull):
                run.end(status, reason or so_far, device, {})
    raise error
