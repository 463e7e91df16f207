"""The training loop: intervals of steps, epochs, and one test at the end. It tells what happened;
it writes nothing down."""

import math
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass

from torch import Tensor

from normexp.trainer.evaluation import Score, Stopped
from normexp.trainer.ranks import Ranks
from normexp.trainer.steps import Interval, Member, Trainer


@dataclass(frozen=True)
class FirstBatch:
    """The first images of training are about to be seen."""

    images: list[Tensor]
    """Of each member, (N,C,H,W)."""


@dataclass(frozen=True)
class Steps:
    """Steps were taken. A member whose loss is no number any more is :class:`Diverged` next."""

    part: Interval
    rates: list[float]
    """The learning rate of each member at the last."""
    seconds: float
    busy: float
    """Of these seconds, those that the thread had a processor for."""


@dataclass(frozen=True)
class Diverged:
    """A member ends: it is no more among those of the events that follow."""

    member: Member
    reason: str


@dataclass(frozen=True)
class CheckpointDue:
    """Members are as they are to be saved; what is not saved is lost if the process is killed."""


@dataclass(frozen=True)
class Evaluating:
    """A pass over images begins, of which ``advanced`` is told until the next event."""

    what: str
    images: int


@dataclass(frozen=True)
class EpochDone:
    """An epoch was trained and validated; members are as they are to be saved, and a checkpoint is
    due then in any case."""

    steps: int
    """Of this epoch."""
    rates: list[float]
    """The learning rate of each member at the last."""
    scores: list[Score | None]
    """Of each member on the validation images; None where there are none."""


@dataclass(frozen=True)
class Testing:
    """A member is tested next: now is the time to give its network the weights to be tested."""

    member: Member


@dataclass(frozen=True)
class Tested:
    """The end of a member."""

    member: Member
    scores: dict[str, Score]
    """By the statistics of its norms, those of the configuration first."""


Event = (
    FirstBatch | Steps | Diverged | CheckpointDue | Evaluating | EpochDone | Testing | Tested
)  # fmt: skip


def train(
    trainer: Trainer, epoch: int, step: int, stop: Callable[[], bool],
    advanced: Callable[[int], object],
) -> Iterator[Event]:  # fmt: skip
    """Train the members to their ends.

    Args:
        epoch: how many are done and validated.
        step: how many are taken.
        stop: asked before each step; once true, a checkpoint is due and Stopped is raised.
        advanced: told how many steps were taken, or images evaluated, since it was last called.

    Raises:
        UserError: the data do not allow it.
        Stopped: ``stop()`` was true.
    """
    ranks = trainer.ranks
    going = list(trainer.members)
    if step == 0:
        images, _ = next(trainer.batches.chunks(trainer.batches.plan(0), 0, 1))
        yield FirstBatch(list(images.chunk(len(going), dim=1)))
    while going and epoch < trainer.total_epochs:
        going = yield from _take_steps(trainer, going, epoch, step, stop, advanced)
        if going:
            going = yield from _validate(trainer, going, epoch, _alone(stop, ranks), advanced)
        # Rank 0 alone validates: the others go on if it does.
        going = going if ranks.from_main(bool(going)) else []
        epoch += 1
        step = epoch * trainer.batches.steps
    for member in going if ranks.main else ():
        yield from _test(trainer, member, _alone(stop, ranks), advanced)


def _alone(stop: Callable[[], bool], ranks: Ranks) -> Callable[[], bool]:
    """Processes that train together can only stop at the same step: at the end of an interval."""
    return stop if ranks.world == 1 else lambda: False


def _take_steps(
    trainer: Trainer, going: list[Member], epoch: int, step: int, stop: Callable[[], bool],
    advanced: Callable[[int], object],
) -> Generator[Event, None, list[Member]]:  # fmt: skip
    """Take the steps of an epoch that are not taken yet, an interval at a time.

    Returns:
        The members that go on.
    """
    every, minutes = trainer.config.log.every, trainer.config.checkpoint_minutes
    plan, before = trainer.batches.plan(epoch), epoch * trainer.batches.steps
    end = before + trainer.epoch_steps(epoch)
    saved = time.perf_counter()
    while going and step < end:
        # Intervals begin at fixed places in an epoch, so that a resumed run reports the same.
        position = step - before
        last = min((position // every + 1) * every, end - before)
        began, busy = time.perf_counter(), time.thread_time()
        alone = _alone(stop, trainer.ranks)
        part = trainer.interval(plan, position, last, step, True, alone, advanced)
        seconds, busy = time.perf_counter() - began, time.thread_time() - busy
        if part.taken:
            yield Steps(part, trainer.rates(step + part.taken - 1), seconds, busy)
        left = []
        for member, losses in zip(going, part.losses, strict=True):
            broken = next((at for at, one in enumerate(losses) if not math.isfinite(one)), None)
            if broken is None:
                left.append(member)
            else:
                reason = f"the loss became {losses[broken]} at step {step + broken + 1}"
                yield Diverged(member, reason)
        step += part.taken
        if len(left) < len(going):
            going = left
            trainer.split()
            if going:
                trainer.join(going)
                plan = trainer.batches.plan(epoch)
        stopping = trainer.ranks.any(stop(), trainer.device)
        if going and (stopping or time.perf_counter() - saved > 60 * minutes):
            trainer.split()
            yield CheckpointDue()
            saved = time.perf_counter()
        if going and stopping:
            raise Stopped(f"at step {step} of {trainer.total_steps}")
    return going


def _validate(
    trainer: Trainer, going: list[Member], epoch: int, stop: Callable[[], bool],
    advanced: Callable[[int], object],
) -> Generator[Event, None, list[Member]]:  # fmt: skip
    """Validate where this process does, and end the epoch.

    Returns:
        The members that go on; those whose validation loss is no number have diverged: their last
        steps broke the weights, after their losses were known.
    """
    scores: list[Score | None] = [None] * len(going)
    steps = trainer.epoch_steps(epoch)
    done = epoch * trainer.batches.steps + steps
    if trainer.ranks.main:
        kind = trainer.config.evaluate.bn_stats[0]
        yield Evaluating("validation", trainer.passing(len(trainer.val_indices), kind) * len(going))
        try:
            scores = [trainer.validate(member, stop, advanced) for member in going]
        except Stopped:
            # The steps of the epoch are taken; only its validation is to be done again.
            trainer.split()
            yield CheckpointDue()
            raise Stopped(f"at step {done} of {trainer.total_steps}, in validation") from None
    trainer.split()
    left, found, rates = [], [], []
    for member, score, rate in zip(going, scores, trainer.rates(done - 1), strict=True):
        if score is not None and not math.isfinite(score.loss):
            yield Diverged(member, f"the validation loss became {score.loss} at step {done}")
            continue
        left.append(member)
        found.append(score)
        rates.append(rate)
    if left:
        yield EpochDone(steps, rates, found)
        if len(left) < len(going):
            trainer.join(left)
    return left


def _test(
    trainer: Trainer, member: Member, stop: Callable[[], bool], advanced: Callable[[int], object]
) -> Iterator[Event]:
    """Meet the test set, once."""
    yield Testing(member)
    kinds = trainer.config.evaluate.bn_stats
    images = len(trainer.test_pictures.labels)
    yield Evaluating("test", sum(trainer.passing(images, kind) for kind in kinds))
    yield Tested(member, {kind: trainer.test(member, kind, stop, advanced) for kind in kinds})
