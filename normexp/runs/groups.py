"""Which runs are trained together, as one network."""

import torch

from normexp.data.sources import Dataset
from normexp.runs.seed_run import SeedRun
from normexp.trainer import fusing


def rejoin(runs: list[SeedRun], device: torch.device) -> None:
    """Bring seeds together again that a kill parted while they were saved one after the other.

    Those that are a checkpoint ahead go on from the one before, if that is where the others are;
    if it is not, each goes on from where it is.
    """
    ahead: dict[tuple[int, int], list[SeedRun]] = {}
    for run in runs:
        others = [other.reached for other in runs if other.key in run.companions]
        last = min(others, default=run.reached)
        if last < run.reached:
            ahead.setdefault(last, []).append(run)
    for place, parted in ahead.items():
        if all(run.was_at(place, device) for run in parted):
            for run in parted:
                run.go_back()


def form(runs: list[SeedRun], dataset: Dataset, device: torch.device) -> list[list[SeedRun]]:
    """What to train together: runs that are at the same step, no more than asked for or fastest."""
    at: dict[tuple[int, int], list[SeedRun]] = {}
    for run in runs:
        at.setdefault(run.reached, []).append(run)
    groups = []
    for alike in at.values():
        most = _at_a_time(alike, dataset, device)
        count = -(-len(alike) // most)
        # Evenly: ten runs of which eight fit are five and five.
        groups += [alike[place::count] for place in range(count)]
    return groups


def _at_a_time(alike: list[SeedRun], dataset: Dataset, device: torch.device) -> int:
    """How many of these runs to train as one network."""

    def say(text: str) -> None:
        for run in alike:
            run.say(text)

    config, keys = alike[0].config, [run.key for run in alike]
    if config.fuse == "auto" and all(set(keys) <= run.companions for run in alike):
        # Measured anew it may be another number, which rounds otherwise.
        return len(alike)
    seeds, rates = zip(*keys, strict=True)
    return fusing.at_a_time(config, seeds, dataset, device, say, rates)
