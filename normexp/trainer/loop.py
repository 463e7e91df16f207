"""The training loop: intervals of steps, epochs, and one test at the end."""

import math
import time
from collections.abc import Callable
from typing import Any, NoReturn

import torch
from tqdm import tqdm

from normexp.data.sources import Dataset
from normexp.models.build import NOTES, count_parameters
from normexp.norms.population import refuse_unknown
from normexp.runs import console
from normexp.runs.seed_run import SeedRun
from normexp.trainer import process
from normexp.trainer.evaluation import Stopped
from normexp.trainer.ranks import Ranks
from normexp.trainer.steps import Interval, Trainer


def train(
    runs: list[SeedRun], dataset: Dataset, device: torch.device, stop: Callable[[], bool],
    ranks: Ranks | None = None,
) -> None:  # fmt: skip
    """Train runs to their ends, from their last checkpoints where there are any.

    How each ended, completed or diverged, is in its ``result``, and in its directory.

    Args:
        runs: they differ in their seed alone and are all at the same step; several are trained as
            one network. Their progress is kept up to date, so that the caller can tell how far a
            run came that failed.
        stop: asked before each step; once true, the runs save themselves and Stopped is raised.
        ranks: the processes that train the run together; rank 0 alone writes.

    Raises:
        UserError: the data or the disk do not allow it.
        CannotFuse: several runs, and a network of which several cannot be made one.
        Stopped: ``stop()`` was true.
    """
    config = runs[0].config
    seeds = [run.config.seed for run in runs]
    trainer = Trainer(config, seeds, dataset, device, ranks)
    if "precise" in config.evaluate.bn_stats:
        refuse_unknown(trainer.members[0].network)
    resumed = any(run.state is not None for run in runs)
    for run, member in zip(runs, trainer.members, strict=True):
        run.begin(member, trainer, seeds)
        run.say(_introduction(trainer, dataset), detail=True)
    main, alone = trainer.ranks.main, trainer.ranks.world == 1
    if resumed and len(runs) > 1:
        trainer.join(trainer.members)  # with what the checkpoints held
    progress = runs[0].progress
    bar = console.progress_bar(trainer.total_steps, progress.step, main and config.log.progress)
    clock = Clock()
    # Processes that train together can only stop at the same step: at the end of an interval.
    stop_now = stop if alone else lambda: False
    going = list(runs)
    try:
        while going and going[0].progress.epoch < trainer.total_epochs:
            going = _train_epoch(trainer, going, bar, clock, stop, stop_now)
            if main:
                going = _finish_epoch(trainer, going, dataset, clock, stop_now)
            elif going:
                going[0].progress.next_epoch()
            # Rank 0 alone validates: the others go on if it does.
            going = going if trainer.ranks.from_main(bool(going)) else []
        for run in going if main else ():
            _test(trainer, run, clock, stop_now)
    finally:
        bar.close()
        for run in runs:
            run.close()


class Clock:
    """Wall time, shared evenly among the runs it is spent on, and when the last checkpoint was."""

    def __init__(self) -> None:
        self.charged = self.saved = time.perf_counter()

    def charge(self, runs: list[SeedRun]) -> None:
        now = time.perf_counter()
        for run in runs:
            run.progress.seconds += (now - self.charged) / len(runs)
        self.charged = now

    def since_saved(self) -> float:
        return time.perf_counter() - self.saved


def _train_epoch(
    trainer: Trainer, going: list[SeedRun], bar: "tqdm[NoReturn]", clock: Clock,
    stop: Callable[[], bool], stop_now: Callable[[], bool],
) -> list[SeedRun]:  # fmt: skip
    """Take the steps of the epoch that are not taken yet, an interval at a time.

    Returns:
        The runs that go on; those whose loss is no number any more have ended.
    """
    config = trainer.config
    progress = going[0].progress
    epoch, steps = progress.epoch, trainer.epoch_steps(progress.epoch)
    position = progress.step - epoch * trainer.batches.steps
    plan = trainer.batches.plan(epoch)
    if progress.step == 0:
        images, _ = next(trainer.batches.chunks(plan, 0, 1))
        for run, own in zip(going, images.chunk(len(going), dim=1), strict=True):
            run.board.images(own)
    while going and position < steps:
        # Intervals begin at fixed places in an epoch, so that a resumed run reports the same.
        last = min((position // config.log.every + 1) * config.log.every, steps)
        done = going[0].progress.step
        began, busy = time.perf_counter(), time.thread_time()
        part = trainer.interval(plan, position, last, done, True, stop_now, bar.update)
        seconds, busy = time.perf_counter() - began, time.thread_time() - busy
        clock.charge(going)
        position += part.taken
        ended = _account(trainer, going, part, seconds, busy, bar)
        if ended:
            going = [run for run in going if run not in ended]
            trainer.split()
            if going:
                trainer.join([run.member for run in going])
                plan = trainer.batches.plan(epoch)
        stopping = trainer.ranks.any(stop(), trainer.device)
        if stopping or clock.since_saved() > 60 * config.checkpoint_minutes:
            _save(trainer, going)
            clock.saved = time.perf_counter()
        if stopping and going:
            raise Stopped(f"at step {going[0].progress.step} of {trainer.total_steps}")
    return going


def _account(
    trainer: Trainer, going: list[SeedRun], part: Interval, seconds: float, busy: float,
    bar: "tqdm[NoReturn]",
) -> list[SeedRun]:  # fmt: skip
    """Record an interval; the runs that it ended."""
    ended = []
    share = seconds / len(going)
    for place, run in enumerate(going):
        reason = run.account(part, place, share, busy / len(going))
        if reason is not None:
            _diverge(run, reason, trainer.device)
            ended.append(run)
        elif part.taken:
            run.report(part, place, trainer.rate(run.progress.step - 1), share)
    if part.taken:
        images = part.taken * trainer.config.images_per_step * len(going)
        loss = sum(map(sum, part.losses)) / (part.taken * len(going))
        accuracy = console.percent(sum(part.correct) / images)
        speed = f"{images / seconds:,.0f} images/s"
        console.say_beside(bar, (f"loss {loss:.3f}", f"acc {accuracy}", speed))
    return ended


def _diverge(run: SeedRun, reason: str, device: torch.device) -> None:
    run.say(f"diverged: {reason}", screen=not run.several)
    run.end("diverged", reason, device, {})
    if run.several:
        console.logger.info(f"seed {run.config.seed} diverged: {reason}")


def _save(trainer: Trainer, going: list[SeedRun]) -> None:
    if trainer.ranks.main:
        trainer.split()
        for run in going:
            run.save()


def _finish_epoch(
    trainer: Trainer, going: list[SeedRun], dataset: Dataset, clock: Clock,
    stop: Callable[[], bool],
) -> list[SeedRun]:  # fmt: skip
    """Validate, record the epoch, keep the best weights, write the checkpoints.

    Returns:
        The runs that go on; those whose validation loss is no number have ended, and the epoch is
        not recorded: its last steps broke the weights, after their losses were known.
    """
    if not going:
        return going
    config = trainer.config
    images = trainer.passing(len(trainer.val_indices), config.evaluate.bn_stats[0])
    try:
        with console.evaluation_bar("validation", images * len(going), config.log.progress) as bar:
            scores = [trainer.validate(run.member, stop, bar.update) for run in going]
    except Stopped:
        # The steps of the epoch are taken; only its validation is to be done again.
        _save(trainer, going)
        step = going[0].progress.step
        raise Stopped(f"at step {step} of {trainer.total_steps}, in validation") from None
    clock.charge(going)
    trainer.split()
    steps = trainer.epoch_steps(going[0].progress.epoch)
    rate = trainer.rate(going[0].progress.step - 1)
    rows, left = [], []
    for run, score in zip(going, scores, strict=True):
        if score is not None and not math.isfinite(score.loss):
            reason = f"the validation loss became {score.loss} at step {run.progress.step}"
            _diverge(run, reason, trainer.device)
            continue
        rows.append(run.finish_epoch(steps, rate, score, dataset))
        run.say(_epoch_lines(trainer, rows[-1:])[0], screen=False)
        left.append(run)
    if left:
        lines = [_whose(left) + line for line in _epoch_lines(trainer, rows)]
        console.logger.info(console.fitting(lines))
        if len(left) < len(going):
            trainer.join([run.member for run in left])
    clock.saved = time.perf_counter()
    return left


def _whose(going: list[SeedRun]) -> str:
    if len(going) > 1:
        return f"mean of {len(going)} seeds, "
    return f"seed {going[0].config.seed}, " if going[0].several else ""


def _epoch_lines(trainer: Trainer, rows: list[dict[str, Any]]) -> list[str]:
    """An epoch of one run, or the means over several seeds: in full, and in less and less room."""

    def mean(name: str) -> float:
        return sum(float(row[name]) for row in rows) / len(rows)

    def scores(part: str, kind: str) -> tuple[str, str]:
        accuracy = f"acc {console.percent(mean(f'{part}_acc'))}"
        return f"  {kind} loss {mean(f'{part}_loss'):.4f} {accuracy}", f"  {kind} {accuracy}"

    parts = [scores("train", "train")]
    if rows[0]["val_acc"] is not None:
        parts.append(scores("val", "val"))
    epoch = f"epoch {rows[0]['epoch']}/{trainer.total_epochs}"
    whole, short = (epoch + "".join(each) for each in zip(*parts, strict=True))
    speed = f"  {mean('images_per_second'):,.0f} images/s"
    return [whole + speed, whole, short, epoch + parts[-1][1]]


def _test(trainer: Trainer, run: SeedRun, clock: Clock, stop: Callable[[], bool]) -> None:
    """Meet the test set, once, with the weights that the configuration asks for."""
    epoch = run.choose_weights(trainer.device)
    kinds = trainer.config.evaluate.bn_stats
    images = sum(trainer.passing(len(trainer.test_pictures.labels), kind) for kind in kinds)
    with console.evaluation_bar("test", images, run.config.log.progress) as bar:
        scores = {kind: trainer.test(run.member, kind, stop, bar.update) for kind in kinds}
    score = scores[kinds[0]]
    clock.charge([run])
    if not math.isfinite(score.loss):
        # Without validation images it shows here first.
        _diverge(run, f"the test loss of epoch {epoch} is {score.loss}", trainer.device)
        return
    if len(scores) > 1:
        each = [f"{kind} {console.percent(found.accuracy)}" for kind, found in scores.items()]
        # Of several seeds the closing table tells the mean.
        line = f"test accuracy by statistics: {', '.join(each)}"
        run.say(line, detail=True, screen=not run.several)
    scalars = {"test/loss": score.loss, "test/acc": score.accuracy}
    run.board.scalars(scalars, run.progress.step * run.config.images_per_step)
    tested = run.progress.rows[epoch - 1]
    measured = {
        "tested_epoch": epoch,
        "val_loss": tested["val_loss"],
        "val_acc": tested["val_acc"],
        "test_loss": score.loss,
        "test_acc": score.accuracy,
        "test_acc_by_bn_stats": {kind: found.accuracy for kind, found in scores.items()},
        "parameters": count_parameters(run.member.network),
        "lr": trainer.lr,
    }
    run.end("completed", None, trainer.device, measured)


def _introduction(trainer: Trainer, dataset: Dataset) -> str:
    """The network and what it is trained on."""
    config, network = trainer.config, trainer.members[0].network
    images = (len(trainer.train_indices), len(trainer.val_indices), len(dataset.test.labels))
    counts = [f"{count:,}" for count in images]
    notes = "".join(f"{note}\n" for note in NOTES.get(network, []) if note)
    return (
        f"{network}\n{notes}{count_parameters(network):,} parameters\n"
        f"{config.data.name.value}: {counts[0]} training, {counts[1]} validation, {counts[2]} test "
        f"images; {trainer.total_steps:,} steps of {config.images_per_step} images; "
        f"{process.device_name(trainer.device)}, {config.precision.value}"
    )
