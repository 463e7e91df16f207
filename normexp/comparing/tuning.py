"""A learning rate for each cell: the same number of rates for all, judged on validation images, by
seeds that do not report."""

import math
from collections.abc import Iterable, Mapping, Sequence

STEP = math.sqrt(10)
"""From one rate to the next. Rates are named by how many such steps they are from the default."""
WIDER = 2
"""Rates that are added beyond an edge."""
MOST_WIDENINGS = 2
"""How often, because the best rate of a cell lies at an edge."""

Scores = Mapping[int, Sequence[float | None]]
"""Of one cell: validation accuracies of the seeds by rate; None for a run that diverged."""


def rate(default: float, steps: int) -> float:
    """The rate so many steps from the default, to three digits: what stands in names and tables is
    what was trained with."""
    return float(f"{default * STEP**steps:.3g}") if steps else default


def grid(count: int) -> list[int]:
    """So many rates around the default, rising; of an even number the larger half lies below."""
    return [place - count // 2 for place in range(count)]


def wider(tried: Iterable[int], best: Iterable[int]) -> list[int]:
    """The rates to try in addition, by all cells alike, where the best of some lies at an edge."""
    low, high, chosen = min(tried := [*tried]), max(tried), {*best}
    found = [*range(low - WIDER, low)] if low in chosen else []
    return found + ([*range(high + 1, high + 1 + WIDER)] if high in chosen else [])


def best(scores: Scores) -> int:
    """The rate of the best mean accuracy; rates at which runs diverged come after all others.

    Of equals the one nearest to the default.
    """

    def place(steps: int) -> tuple[int, float, int]:
        known = [score for score in scores[steps] if score is not None]
        mean = sum(known) / len(known) if known else -math.inf
        return len(scores[steps]) - len(known), -mean, abs(steps)

    return min(scores, key=place)
