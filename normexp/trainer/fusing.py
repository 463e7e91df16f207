"""How many seeds to train as one network: what fits memory and is fastest, measured."""

import time
from collections.abc import Callable, Sequence

import torch

from normexp.config.schema import Config
from normexp.data.sources import Dataset
from normexp.models.fuse import CannotFuse
from normexp.models.proof import IMAGES, memory_mb, prove
from normexp.models.side_by_side import DrawnApart
from normexp.system import memory
from normexp.trainer import process
from normexp.trainer.evaluation import ignore, never
from normexp.trainer.steps import Trainer

ROUNDS = 3  # each trial, in turn with what it is compared with: the machine may be busy
SECONDS = 0.05  # of each round, and one interval at least
WORTH_IT = 0.97  # of the time a seed with fewer; less is noise, and a larger group risks more
SHARE_OF_MEMORY = 0.7  # of what is free; evaluation and others need some too


def at_a_time(
    config: Config, seeds: Sequence[int], dataset: Dataset, device: torch.device,
    say: Callable[[str], None], rates: Sequence[float] | None = None,
) -> int:  # fmt: skip
    """How many of these runs to train together.

    Args:
        seeds: of each.
        rates: of each, where they differ.
        say: told what was measured, or why the seeds have to be trained in turn.
    """
    wanted = len(seeds) if config.fuse == "auto" else min(int(config.fuse), len(seeds))
    if wanted == 1:
        return 1
    with torch.random.fork_rng(devices=[]):
        try:
            demand_the_same(Trainer(config, seeds[:2], dataset, device))
        except CannotFuse as reason:
            say(f"seeds are trained in turn: {reason}")
            return 1
        if config.fuse != "auto":
            return wanted
        given = rates or [config.optimizer.lr] * len(seeds)
        return _fastest(config, seeds, given, dataset, device, say)


def demand_the_same(trainer: Trainer) -> None:
    """Try two of the networks together before more are trained so.

    Raises:
        CannotFuse: they do not do what they do alone, or it cannot be told.
    """
    config = trainer.config
    if config.compile and any(isinstance(one, DrawnApart) for one in trainer.network.modules()):
        raise CannotFuse("a compiled network draws other random numbers alone")
    free, needed = memory.free(), memory_mb(trainer.members[0].network)
    if free is not None and needed > SHARE_OF_MEMORY * free:
        raise CannotFuse(f"to try two of them as one takes {needed:,.0f} MiB, {free:,.0f} are free")
    images = IMAGES - IMAGES % min(config.norm.ghost_batch_size, IMAGES)  # no short ghost batch
    networks = [member.network for member in trainer.members[:2]]
    prove(networks, trainer.pictures.pixels.shape[-1], trainer.channels_last, images)


def _fastest(
    config: Config, seeds: Sequence[int], rates: Sequence[float], dataset: Dataset,
    device: torch.device, say: Callable[[str], None],
) -> int:  # fmt: skip
    """Try 1, 2, 4, ... seeds for a few steps each, until more is no faster, twice, or would not
    fit."""
    free = process.free_memory(device)
    process.reset_peak_memory(device)
    before = process.peak_memory_mb(device)
    counts = [2**power for power in range(len(seeds).bit_length()) if 2**power < len(seeds)]
    best = _Trial(config, seeds[:1], rates[:1], dataset, device)
    times, misses = {}, 0
    for count in [*counts[1:], len(seeds)]:
        peak = process.peak_memory_mb(device)
        if free is not None and peak is not None and before is not None:
            grown = (peak - before) * count / best.seeds
            if grown > SHARE_OF_MEMORY * free:
                break
        try:
            more = _Trial(config, seeds[:count], rates[:count], dataset, device)
            rounds = [(best.seconds(), more.seconds()) for _ in range(ROUNDS)]
        except (RuntimeError, MemoryError) as error:
            if not process.out_of_memory(error):
                raise
            break
        times[best.seeds], times[count] = map(min, zip(*rounds, strict=True))
        if times[count] <= WORTH_IT * times[best.seeds]:
            best, misses = more, 0
        elif misses == 1:
            break
        else:
            misses = 1  # the machine may have been busy just then: one more is looked at
    measured = ", ".join(f"{count}: {1000 * each:.2f}" for count, each in times.items())
    what = "seed" if len(set(rates)) == 1 else "run"
    say(f"{best.seeds} of {len(seeds)} {what}s at a time (ms a step and {what}: {measured})")
    return best.seeds


class _Trial:
    """A trainer of so many seeds; what it trains is thrown away."""

    def __init__(
        self, config: Config, seeds: Sequence[int], rates: Sequence[float], dataset: Dataset,
        device: torch.device,
    ) -> None:  # fmt: skip
        self.seeds = len(seeds)
        self.trainer = Trainer(config, seeds, dataset, device, rates=rates)
        self.plan = self.trainer.batches.plan(0)
        self.steps = 1
        most = min(64, self.trainer.batches.steps)
        self._interval()
        while self._interval() < SECONDS and self.steps < most:
            self.steps = min(2 * self.steps, most)

    def _interval(self) -> float:
        began = time.perf_counter()
        self.trainer.interval(self.plan, 0, self.steps, 0, False, never, ignore)
        return time.perf_counter() - began

    def seconds(self) -> float:
        """Of a step, for each seed."""
        return self._interval() / self.steps / self.seeds
