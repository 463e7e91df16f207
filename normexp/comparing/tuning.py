"""A learning rate for each cell: the same number of rates for all, judged on validation images, by
seeds that do not report."""

import math
from collections.abc import Iterable, Mapping, Sequence

SPACING = math.sqrt(10)
"""Between neighbouring rates."""
MOST_WIDENINGS = 2
"""How often the grid is made wider because the best rate of a cell lies at its edge."""

Scores = Mapping[float, Sequence[float | None]]
"""Of one cell: validation accuracies of the seeds by rate; None for a run that diverged."""


def grid(default: float, count: int) -> list[float]:
    """So many rates around the default, rising, half a power of ten apart; of an even number the
    larger half lies below it."""
    below = count // 2
    return [rounded(default * SPACING ** (place - below)) for place in range(count)]


def wider(rates: Sequence[float], edges: Iterable[float]) -> list[float]:
    """The rates to try in addition, for all cells alike: two beyond each edge at which some cell
    has its best."""
    found: list[float] = []
    for edge in sorted(set(edges)):
        if edge == min(rates):
            found += [rounded(edge / SPACING**2), rounded(edge / SPACING)]
        elif edge == max(rates):
            found += [rounded(edge * SPACING), rounded(edge * SPACING**2)]
    return [rate for rate in found if rate not in rates]


def rounded(rate: float) -> float:
    """To three digits: what stands in names and tables is what was trained with."""
    return float(f"{rate:.3g}")


def best(scores: Scores, default: float) -> float:
    """The rate of the best mean accuracy; after those at which no run diverged come the others.

    Of equals the one nearest to the default.
    """

    def place(rate: float) -> tuple[int, float, float]:
        known = [score for score in scores[rate] if score is not None]
        mean = sum(known) / len(known) if known else -math.inf
        return len(scores[rate]) - len(known), -mean, abs(math.log(rate / default))

    return min(scores, key=place)
