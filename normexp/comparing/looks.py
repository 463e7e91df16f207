"""Looks that were planned: one error of 5 % spent over several tests of a table that grows.

Group-sequential testing (Lan & DeMets 1983) with the report's step-down maxT test at each look. The
probability that a look claims a false difference is at most its level (docs/compare.md says why),
so over all looks it is at most the sum of the levels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from normexp.report.statistics import ALL_SIGNS, SAMPLED, Pair
from normexp.report.thresholds import LEAST_SEEDS, LEVEL, MARGIN
from normexp.report.verdicts import compare

DIFFERENT = ("better", "worse")


def least_p(seeds: int) -> float:
    """The smallest p that a permutation test of so many pairs can give."""
    return 2.0 ** (1 - seeds) if seeds <= ALL_SIGNS else 1 / (SAMPLED + 1)


def levels(looks: Sequence[int], total: float = LEVEL, power: float = 2.0) -> list[float]:
    """The level of each look: of ``total``, a share t**power is spent by the look at which a share
    t of the seeds is there, in steps of the p that its seeds can give; the rest goes to the next.

    Args:
        looks: seeds at each, rising.

    Returns:
        As many levels, whose sum is at most ``total``; 0 where the least p of its seeds is larger.
    """
    spent, found = 0.0, []
    for seeds in looks:
        step = least_p(seeds)
        room = total * (seeds / looks[-1]) ** power - spent
        level = int(room / step + 1e-9) * step
        found.append(level)
        spent += level
    return found


@dataclass(frozen=True)
class Verdict:
    """What is known of one comparison."""

    verdict: str
    """``better``, ``worse``, ``same``, or ``undecided``."""
    look: int
    """The look that decided, or the last one so far; from 0."""
    n: int
    difference: float
    low: float
    high: float
    p: float
    p_same: float


def look(
    scores: pd.DataFrame, pairs: Sequence[Pair], lost: pd.Series, known: dict[Pair, Verdict],
    place: int, level: float, margin: float = MARGIN,
) -> dict[Pair, Verdict]:  # fmt: skip
    """Look at a table: decide what can be decided at this look's level.

    What was found different before has left the family, as in a step-down test; what was found the
    same stays in it, since it may be a null hypothesis still, with the seeds that it has.

    Args:
        scores, pairs, lost: as :func:`normexp.report.verdicts.compare` takes them.
        known: verdicts of earlier looks, by pair.
        place: which look this is, from 0.
        level: of this look, for differences; for sameness likewise.

    Returns:
        The verdict of every pair, in the order of ``pairs``.
    """
    different = {pair for pair, one in known.items() if one.verdict in DIFFERENT}
    family = [pair for pair in pairs if pair not in different]
    found = compare(scores, family, lost, margin, level)
    fresh = {}
    for pair, row in zip(family, found.to_dict("records"), strict=True):
        verdict = row["verdict"] if row["n"] >= LEAST_SEEDS else "undecided"
        fresh[pair] = Verdict(
            verdict, place, int(row["n"]), *(float(row[key]) for key in RESULTS)
        )  # fmt: skip
    decided = {pair: one for pair, one in known.items() if one.verdict != "undecided"}
    return {pair: (fresh | decided)[pair] for pair in pairs}


RESULTS = ("difference", "low", "high", "p", "p_same")
