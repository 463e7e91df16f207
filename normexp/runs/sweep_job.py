"""One run of a sweep: however it ends, that is recorded and the sweep goes on."""

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from normexp.config.checks import seeds_of
from normexp.config.schema import Config, OnError
from normexp.data.enough_images import refuse_unseen
from normexp.runs import cell_boards
from normexp.runs import sweep as sweeps
from normexp.runs.composing import check, settle
from normexp.runs.one_run import accuracy, jobs_of, labels, train_unless_done
from normexp.runs.outcomes import Outcome
from normexp.runs.plan import FILE, Command
from normexp.runs.planning import Job, write_plan
from normexp.runs.records import FINAL
from normexp.runs.sweep import Sweep
from normexp.system import signals
from normexp.system.errors import FULL, BusyElsewhere, DiskFull, RunFailed, UserError, cannot_write
from normexp.system.printable import printable


class SweepStopped(BaseException):
    """A run failed and on_error=stop, or, with a message, the disk is full; not an Exception, which
    Hydra would go on after."""


def begin(jobs: list[Job], say: bool = True) -> list[list[str]]:
    """Write the plan of the sweep that this process began, and tell of the jobs that need not run:
    those whose runs are all done, and those that can never work.

    Args:
        say: on the screen how many runs there are.

    Returns:
        The overrides of the jobs that a launcher is to run.

    Raises:
        UserError: the plan cannot be written.
        SweepStopped: a job can never work and on_error=stop.
    """
    signals.check()
    (sweep,) = sweeps.opened
    command = Command.now(list(sweeps.typed), sweeps.module)
    folders = write_plan(jobs, command, lambda overrides: sweeps.settings_of(overrides, sweep))
    known: dict[int, list[Outcome]] = {}
    told = set()
    for number, job in enumerate(jobs):
        cell = sweeps.cell_of(job.overrides, sweep)
        if job.refused:
            if (line := f"{cell or 'all'}: failed: {job.refused}") not in told:
                print(printable(line), flush=True)
            told.add(line)
            seeds = [None] if job.config is None else seeds_of(job.config)
            end = Outcome(cell, "failed", job.refused, refused=True)
            known[number] = [replace(end, seed=seed) for seed in seeds]
        elif (answers := job.answers()) and job.config is not None:
            known[number] = [
                Outcome.of(own, answer, "skipped")
                for own, answer in zip(labels(cell, job.config), answers, strict=True)
            ]
    runs = sum(len(job.runs) for job in jobs)
    done = sum(one.status == "skipped" for each in known.values() for one in each)
    where = ", ".join(str(folder / FILE) for folder in folders)
    if say:
        planned = f"planned in {where or 'no place'}"
        print(f"{runs} runs, {done} of them done before; {planned}", flush=True)
    sweep.leave_out(known)
    sweep.timed &= len(known) < len(jobs)  # what was timed before is kept
    sweep.timed &= all(job.config.report.time for job in jobs if job.config is not None)
    first = next((job.config for job in jobs if job.refused and job.config), None)
    if first is not None and first.on_error == OnError.stop:
        raise SweepStopped
    return [job.overrides for number, job in enumerate(jobs) if number not in known]


def run_in_sweep(composed: DictConfig, given: int) -> float | None:
    """Train a job of the sweep that this process works for.

    Args:
        given: the number that the launcher gave it.

    Raises:
        KeyboardInterrupt: a person stopped it.
        SweepStopped: it failed and on_error=stop, or the disk is full.
    """
    signals.check()
    sweep = Sweep.current(Path(composed.output))
    number = given if sweep.numbers is None else sweep.numbers[given]
    cell = sweeps.this_cell(sweep)
    try:
        outcomes, stopped = _attempt(composed, cell, sweep.place(number, cell, composed))
        sweep.record(number, outcomes)
    except DiskFull as error:
        raise SweepStopped(str(error)) from error
    if stopped:
        raise KeyboardInterrupt
    statuses = {outcome.status for outcome in outcomes}
    if "failed" in statuses and composed.on_error == OnError.stop:
        raise SweepStopped
    cells = {outcome.cell for outcome in outcomes}
    each = [
        accuracy([{"val_acc": one.val_acc} for one in outcomes if one.cell == cell])
        for cell in cells
    ]
    return max((one for one in each if one is not None), default=None)  # of rates the best


@contextlib.contextmanager
def tell_of_all(goes_on: str, table: bool = True) -> Iterator[None]:
    """Around what runs a sweep: see it to its end, and tell what happened to each run.

    Does nothing around a single run.

    Args:
        goes_on: what to do if not all of it came to its end.
        table: of the jobs, at the end; where one did not end well it is printed in any case.

    Raises:
        RunFailed: a run failed, or a process of the launcher died.
        UserError: the disk is full.
        KeyboardInterrupt: a person stopped it.
    """
    try:
        yield
        for sweep in sweeps.opened:
            finish(sweep)
    except SweepStopped as stop:
        if stop.args:
            for sweep in sweeps.opened:
                sweep.close()
            raise UserError(str(stop)) from stop
        print("stopped at the first failure, as on_error=stop asks", flush=True)
    except KeyboardInterrupt:
        for sweep in sweeps.opened:
            sweep.cancel()
            _tell_and_close(sweep)
        raise
    except Exception as error:
        if not sweeps.opened:
            raise
        full = isinstance(error, OSError) and error.errno in FULL
        if full or isinstance(error, ValueError | HydraException):
            for sweep in sweeps.opened:
                sweep.close()
            if isinstance(error, OSError):  # of Hydra's own files
                raise cannot_write(sweeps.opened[0].folder, error) from error
            raise
        # Runs record their own errors: what comes out of Hydra is its launcher's. Runs that the
        # launcher started may go on, so the sweep's folder stays for them.
        for sweep in sweeps.opened:
            print(sweep.table(), flush=True)
        kind = type(error).__name__
        raise RunFailed(
            f"a process of the launcher died ({kind}), of too little memory perhaps; {goes_on}"
        ) from error
    for sweep in sweeps.opened:
        failed, hopeless = sweep.failed(), sweep.hopeless()
        if table and sweep.timed and not failed:
            sweep.finished = sweep.folders()
        if table:
            _write_boards(sweep)
        if table or failed:
            print(sweep.table(), flush=True)
        sweep.close()
        if hopeless:
            raise RunFailed(
                "the failed runs cannot work as they are asked for; the table says what to change"
            )
        if failed:
            raise RunFailed(f"not all runs of the sweep are completed; {goes_on}")


def _write_boards(sweep: Sweep) -> None:
    """The series of its cells for TensorBoard, if it trained anything."""
    every = [outcome for outcomes in sweep.outcomes().values() for outcome in outcomes]
    if any(outcome.status != "skipped" for outcome in every):
        for folder in sweep.folders():
            with contextlib.suppress(OSError):  # a full disk, which the runs have told
                cell_boards.write(folder)


def _tell_and_close(sweep: Sweep) -> None:
    print(sweep.table(), flush=True)
    sweep.close()


def finish(sweep: Sweep) -> None:
    """See to the end what other processes were training: wait for them, take over what they leave.

    Raises:
        KeyboardInterrupt: a person did not want to wait.
    """
    for number, outcomes in sweep.outcomes().items():
        waiting = next((outcome for outcome in outcomes if outcome.config), None)
        if waiting is not None:
            composed = OmegaConf.merge(OmegaConf.structured(Config), waiting.config)
            assert isinstance(composed, DictConfig)
            cell = outcomes[0].cell
            place = f"{sweep.where(number, cell, composed)}, trained by another process"
            again, stopped = _attempt(composed, cell, place, wait=True)
            sweep.record(number, again)
            if stopped:
                raise KeyboardInterrupt


def _attempt(
    composed: DictConfig, cell: str, place: str, wait: bool = False
) -> tuple[list[Outcome], bool]:
    """Train a cell; what became of each of its runs, one for each seed, and whether a person
    stopped it, which the runs themselves do not tell: they may all have ended before."""
    began = time.monotonic()
    stopped = False
    try:
        answers = train_unless_done(composed, place, wait)
        config, _ = settle(composed)
        outcomes = [
            Outcome.of(own, answer.result, "" if answer.trained else "skipped")
            for own, answer in zip(labels(cell, config), answers, strict=True)
        ]
    except KeyboardInterrupt:
        stopped = True
        outcomes = _recorded(composed, cell, Outcome(cell, "interrupted"))
    except BusyElsewhere as error:
        plain: Any = OmegaConf.to_container(composed, resolve=True, enum_to_str=True)
        elsewhere = Outcome(cell, "elsewhere", str(error), config=plain)
        # All of the cell is looked at again when the other process is done.
        return [elsewhere], False
    except DiskFull:
        raise  # the runs after it fare no better
    except (Exception, SystemExit) as error:
        if isinstance(error, SystemExit) and "SUBMITIT_EXECUTOR" in os.environ:
            raise  # how submitit ends a job that it puts into the queue again
        reason = " ".join(str(error).split())
        if not isinstance(error, UserError | RunFailed):
            reason = f"{type(error).__name__}: {reason}"
        print(f"{place}: failed: {reason}", flush=True)
        end = Outcome(cell, "failed", reason, refused=_refused(composed))
        outcomes = _recorded(composed, cell, end)
    for outcome in outcomes:
        outcome.seconds = (time.monotonic() - began) / len(outcomes)
    return outcomes, stopped


def _refused(composed: DictConfig) -> bool:
    """Whether the settings can never work, whatever the data and the disk."""
    try:
        config, _ = settle(composed)
        check(config)
        refuse_unseen(config)
    except UserError:
        return True
    return False


def _recorded(composed: DictConfig, cell: str, end: Outcome) -> list[Outcome]:
    """What became of the runs of a cell that did not end well: some may have been completed.

    Args:
        end: what to say of those that recorded nothing.
    """
    try:
        config, _ = settle(composed)
        if end.refused:
            return [replace(end, seed=seed) for seed in seeds_of(config)]
        jobs = jobs_of(config)
    except UserError:
        return [end]
    if len(jobs) == 1 and end.status == "failed":
        return [end]
    # What an earlier attempt left, such as a failure, is not what became of this one.
    known = (*FINAL, end.status)
    outcomes = []
    for (own, directory), label in zip(jobs, labels(cell, config), strict=True):
        result = directory.result()
        if result is not None and result["status"] in known:
            outcomes.append(Outcome.of(label, result))
        else:
            outcomes.append(replace(end, cell=label, seed=own.seed))
    return outcomes
