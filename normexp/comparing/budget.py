"""What a seed of each cell takes, measured in a few steps, and how much of a comparison fits a
time."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from normexp.comparing.settings import Asked
from normexp.config.schema import Config
from normexp.report.thresholds import LEAST_SEEDS
from normexp.system.errors import UserError

SECONDS = 0.2
"""For which the steps of a cell are taken, and at least two."""
TOGETHER = (1, 2, 8)
"""Runs that are timed as one network."""
AN_EPOCH, A_RUN, A_JOB = 0.05, 0.2, 0.5
"""Seconds beside steps and evaluation: checkpoints of an epoch, files of a run, composing and
building of a job. Rough: what runs took corrects it, see :class:`Clock`."""
SAFETY = 0.9
"""Of a budget that is planned with; timings drift."""
SHARES = (1.0, 0.75, 0.5, 0.35, 0.25, 0.15, 0.1, 0.05, 0.0)
"""Of the training that was asked for, what is tried in turn."""
IMAGES = 512
"""Evaluated to tell what evaluation takes."""
LEAST_STEPS = 50


@dataclass(frozen=True)
class Cost:
    """Of one run of a cell."""

    steps: dict[int, float]
    """Seconds a step of each of so many runs that are trained as one network."""
    epoch: int
    """Steps of an epoch."""
    validation: float
    """Seconds of validation after an epoch."""
    test: float

    def step(self, runs: int) -> float:
        """Seconds a step of each of so many runs, as many at a time as is fastest."""
        return min(each for count, each in self.steps.items() if count <= max(1, runs))

    @property
    def together(self) -> int:
        """As many runs as are fastest as one network."""
        return min(self.steps, key=lambda count: self.steps[count])

    def run(self, length: "Length", of: int, share: float = 1.0) -> float:
        """Seconds of one of so many runs."""
        steps = length.steps(self.epoch, share)
        epochs = max(1, -(-steps // self.epoch))
        each = self.validation + AN_EPOCH
        return steps * self.step(of) + epochs * each + self.test + A_RUN


@dataclass(frozen=True)
class Length:
    """How long runs train: the key that says so, and its value."""

    key: str
    value: int

    @staticmethod
    def of(config: Config) -> "Length":
        if config.max_steps:
            return Length("max_steps", config.max_steps)
        return Length("epochs", config.epochs or 1)

    def part(self, share: float) -> "Length":
        """That share of it, one epoch or some steps at least."""
        least = 1 if self.key == "epochs" else min(LEAST_STEPS, self.value)
        return Length(self.key, max(least, round(self.value * share)))

    def steps(self, epoch: int, share: float = 1.0) -> int:
        value = self.part(share).value
        return value if self.key == "max_steps" else value * epoch

    def __str__(self) -> str:
        unit = "epoch" if self.key == "epochs" else "step"
        return f"{self.value:,} {unit}{'' if self.value == 1 else 's'}"


def measure(config: Config) -> Cost:
    """Take a few steps of a cell, one seed alone and several as one network.

    Raises:
        UserError: its images cannot be read, or it cannot work.
    """
    import torch

    from normexp.data import sources
    from normexp.trainer import process
    from normexp.trainer.fusing import at_a_time
    from normexp.trainer.steps import Trainer

    device = process.pick_device(config.device)
    data, _ = sources.settle(config.data)
    dataset = sources.load(data, progress=False)
    config = replace(config, data=data)
    with process.settings(config, device), torch.random.fork_rng(devices=[]):
        alone = Trainer(config, [0], dataset, device)
        steps = {1: _step(alone)}
        most = TOGETHER[-1]
        if config.fuse != "1":  # whether they can be fused at all
            wanted = replace(config, fuse=str(most))
            most = at_a_time(wanted, range(most), dataset, device, lambda words: None)
        for count in TOGETHER[1:]:
            if count <= most:
                steps[count] = _step(Trainer(config, range(count), dataset, device))
        images = len(alone.val_indices)
        sample = Trainer(config, [0], dataset, device)
        sample.val_indices = alone.val_indices[:IMAGES]
        began = time.perf_counter()
        sample.validate(sample.members[0])
        each = (time.perf_counter() - began) / max(1, min(images, IMAGES))
        if not images:  # nothing was evaluated: a third of a step's work on an image
            each = steps[1] / 3 / config.batch_size
        kinds = len(config.evaluate.bn_stats)
        return Cost(
            steps,
            alone.batches.steps,
            images * each,
            kinds * each * len(alone.test_pictures.labels),
        )


def _step(trainer: Any) -> float:
    """Seconds a step and seed."""
    plan, steps, taken, spent = trainer.batches.plan(0), 1, 0, 0.0
    never: Callable[[], bool] = lambda: False  # noqa: E731
    trainer.interval(plan, 0, 1, 0, False, never, lambda count: None)  # loads and allocates
    while spent < SECONDS:
        began = time.perf_counter()
        trainer.interval(plan, 0, steps, 0, False, never, lambda count: None)
        spent += time.perf_counter() - began
        taken += steps
        steps = min(2 * steps, trainer.batches.steps)
    return spent / taken / len(trainer.members)


@dataclass(frozen=True)
class Fit:
    """As much of a comparison as fits."""

    asked: Asked
    length: Length
    seconds: float
    """If no look decides anything before the last."""


def tuning(costs: Sequence[Cost], asked: Asked, length: Length) -> float:
    """Seconds of trying rates, the grid not widened."""
    if not asked.tunes:
        return 0.0
    runs = asked.rates * asked.tuning_seeds
    return sum(runs * cost.run(length, runs, asked.share) + A_JOB for cost in costs)


def deciding(costs: Sequence[Cost], asked: Asked, length: Length) -> float:
    """Seconds of all looks, if none decides anything before the last."""
    return sum(
        looking(cost, length, more) for cost in costs
        for more in (after - before for before, after in pairwise((0, *asked.looks)))
    )  # fmt: skip


def looking(cost: Cost, length: Length, more: int) -> float:
    """Seconds of giving a cell so many seeds more."""
    return more * cost.run(length, more) + A_JOB


def total(costs: Sequence[Cost], asked: Asked, length: Length) -> float:
    return tuning(costs, asked, length) + deciding(costs, asked, length)


def fit(costs: Sequence[Cost], asked: Asked, length: Length, budget: float) -> Fit:
    """The longest training for which tuning and the first look fit; then as many looks, and then as
    long trials of rates, as fit beside it.

    Raises:
        UserError: not even six seeds of the shortest training fit; says what would.
    """
    room = SAFETY * budget

    def fits(one: Asked, train: Length) -> bool:
        return total(costs, one, train) <= room

    plain = replace(asked, looks=asked.looks[:1], share=min(asked.share, 0.25))
    few = replace(plain, looks=(LEAST_SEEDS,), rates=min(asked.rates, 3))
    bare = replace(few, rates=1)
    options = [(plain, length.part(share)) for share in SHARES]
    options += [(few, length.part(0.0)), (bare, length.part(0.0))]
    chosen = next((each for each in options if fits(*each)), None)
    if chosen is None:
        raise UserError(_too_short(costs, bare, length.part(0.0), budget))
    found, train = chosen
    if found is plain:
        for count in range(len(asked.looks), 1, -1):
            more = replace(found, looks=asked.looks[:count])
            if fits(more, train):
                found = more
                break
        for share in (asked.share, 0.75 * asked.share, 0.5 * asked.share):
            if share > found.share and fits(replace(found, share=share), train):
                found = replace(found, share=share)
                break
    return Fit(found, train, total(costs, found, train))


def _too_short(costs: Sequence[Cost], least: Asked, length: Length, budget: float) -> str:
    from normexp.runs.outcomes import duration

    needed = total(costs, least, length)
    longest = max(cost.step(LEAST_SEEDS) * cost.epoch for cost in costs)
    share = SAFETY * budget / needed
    fix = f"budget={_round_up(needed / SAFETY)}, fewer cells"
    if share < 1 and longest > 1:
        fix += f", or data.train_size= of about {max(share, 0.001):.1%} of the images"
    return (
        f"budget={duration(budget)}: six seeds of {length} in {len(costs)} cells take about "
        f"{duration(needed)}; use {fix}"
    )


def _round_up(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{-(-seconds // size):.0f}{unit}"
    return f"{max(1, -(-seconds // 1)):.0f}s"


class Clock:
    """How long a comparison has taken, beside what it was expected to take."""

    def __init__(self, spent: float = 0.0) -> None:
        """
        Args:
            spent: by earlier starts of the same comparison.
        """
        self.before, self.began = spent, time.monotonic()
        self.expected, self.took = 0.0, 0.0

    def spent(self) -> float:
        return self.before + time.monotonic() - self.began

    def learn(self, expected: float, took: float) -> None:
        """What a stage took."""
        self.expected += expected
        self.took += took

    def corrected(self, expected: float) -> float:
        """Seconds that a stage will take, by what earlier ones took."""
        return expected * (self.took / self.expected if self.expected else 1.0)
