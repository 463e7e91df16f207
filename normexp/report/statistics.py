"""Whether one cell differs from another, by scipy: intervals, tests, and how many seeds it takes.

Everything is computed from the accuracies of single seeds; nothing is assumed to be normal but in
:func:`seeds_needed`, which is an estimate.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Sample = NDArray[np.float64]

LEAST_SEEDS = 6
"""Below, no verdict: with five pairs the sign-flip test cannot come below p = 0.06."""
LEVEL = 0.05
POWER = 0.8
RESAMPLES = 9999
MOST_SEEDS = 1000
SEED = 0
"""Of the resampling, so that the same runs give the same figures."""


@dataclass(frozen=True)
class Difference:
    """How one cell differs from its reference; accuracies are fractions, as in result.json."""

    n: int
    """Pairs of seeds, or the seeds of the smaller cell if they could not be paired."""
    paired: bool
    mean: float
    std: float
    """Of the paired differences; if unpaired, what a single difference would scatter by."""
    low: float | None
    """Nominal 95 % BCa bootstrap interval (Efron 1987), narrower than it should be with few seeds:
    docs/report.md has its coverage. None below two seeds."""
    high: float | None
    p: float
    """Of the sign-flip permutation test, two-sided; of the labels if unpaired."""
    better: float
    """Share of the pairs in which this cell has the higher accuracy, ties counting half. A run
    that diverged is worse than one that did not. If unpaired, of all pairs."""
    left_out: int
    """Seeds without a partner."""
    diverged: int
    """Runs of both cells that diverged: they count in ``better`` and in ``survived``."""
    survived: str = ""
    """Where the mean favours the cell of which the larger share of runs diverged, so that it speaks
    of survivors: how many those were, such as ``12 of 18 diverged``."""

    @property
    def spans_zero(self) -> bool:
        return self.low is None or self.high is None or self.low <= 0 <= self.high

    @property
    def stands(self) -> bool:
        """Whether a single comparison shows a difference: the interval, too narrow where seeds are
        few, excludes zero, and so does the test, which is exact."""
        return not self.spans_zero and self.p < LEVEL


def compare(
    ours: Mapping[int, float | None], theirs: Mapping[int, float | None]
) -> Difference | None:
    """Compare accuracies by seed; None stands for a run that diverged.

    Returns:
        The difference ours - theirs, over the seeds that both have if there are such; None if
        either has no accuracy at all.
    """
    here = {seed: value for seed, value in ours.items() if value is not None}
    there = {seed: value for seed, value in theirs.items() if value is not None}
    if not here or not there:
        return None
    diverged = len(ours) - len(here) + len(theirs) - len(there)

    def survived(mean: float) -> str:
        if mean > 0:
            return _survivors(ours, theirs)
        return _survivors(theirs, ours, " of the reference") if mean < 0 else ""

    common = sorted(here.keys() & there.keys())
    if common:
        differences = np.array([here[seed] - there[seed] for seed in common])
        mean = float(differences.mean())
        both = sorted(ours.keys() & theirs.keys())
        low, high = _interval((differences,))
        return Difference(
            n=len(common),
            paired=True,
            mean=mean,
            std=_std(differences),
            low=low,
            high=high,
            p=_permutation_p((differences,)),
            better=float(np.mean([_wins(ours[seed], theirs[seed]) for seed in both])),
            left_out=len(ours.keys() ^ theirs.keys()),
            diverged=diverged,
            survived=survived(mean),
        )
    first, second = np.array(list(here.values())), np.array(list(there.values()))
    mean = float(first.mean() - second.mean())
    low, high = _interval((first, second))
    wins = [_wins(mine, other) for mine in ours.values() for other in theirs.values()]
    return Difference(
        n=min(len(first), len(second)),
        paired=False,
        mean=mean,
        std=float(np.hypot(_std(first), _std(second))),
        low=low,
        high=high,
        p=_permutation_p((first, second)),
        better=float(np.mean(wins)),
        left_out=0,
        diverged=diverged,
        survived=survived(mean),
    )


def _survivors(
    higher: Mapping[int, float | None], lower: Mapping[int, float | None], whose: str = ""
) -> str:
    """Empty unless a larger share of the higher one's runs diverged."""
    lost, other = (sum(value is None for value in one.values()) for one in (higher, lower))
    more = lost * len(lower) > other * len(higher)
    return f"{lost} of {len(higher)}{whose} diverged" if more else ""


def clearly_not_zero(values: Sequence[float]) -> bool:
    """Whether a mean differs from zero, as a verdict asks it of a single comparison."""
    found = compare(dict(enumerate(values)), dict.fromkeys(range(len(values)), 0.0))
    return found is not None and found.n >= LEAST_SEEDS and found.stands


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % BCa bootstrap interval of a mean; the value itself where there is one only."""
    low, high = _interval((np.array(values),))
    return (values[0], values[0]) if low is None or high is None else (low, high)


def _std(values: Sample) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else 0.0


def _wins(mine: float | None, other: float | None) -> float:
    if mine is None or other is None:
        return 0.5 if mine is other else float(other is None)
    return 0.5 if mine == other else float(mine > other)


def _statistic(*samples: Sample, axis: int = -1) -> Any:
    means = [sample.mean(axis=axis) for sample in samples]
    return means[0] - means[1] if len(means) > 1 else means[0]


def _interval(samples: tuple[Sample, ...]) -> tuple[float | None, float | None]:
    if min(map(len, samples)) < 2:
        return None, None
    estimate = float(_statistic(*samples))
    if all(np.ptp(sample) == 0 for sample in samples):
        return estimate, estimate  # nothing scatters; BCa would divide by nothing
    found = None
    for method in ("BCa", "percentile"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", stats.DegenerateDataWarning)
            warnings.simplefilter("ignore", RuntimeWarning)
            found = stats.bootstrap(
                samples, _statistic, n_resamples=RESAMPLES, confidence_level=1 - LEVEL,
                method=method, rng=np.random.default_rng(SEED),
            ).confidence_interval  # fmt: skip
        if np.isfinite(found.low) and np.isfinite(found.high):
            break
    assert found is not None
    return float(found.low), float(found.high)


def _permutation_p(samples: tuple[Sample, ...]) -> float:
    if min(map(len, samples)) < 2:
        return 1.0
    kind = "independent" if len(samples) > 1 else "samples"
    found = stats.permutation_test(
        samples, _statistic, permutation_type=kind, vectorized=True, n_resamples=RESAMPLES,
        rng=np.random.default_rng(SEED),
    )  # fmt: skip
    return min(1.0, float(found.pvalue))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted so that all verdicts of a table hold together (Holm 1979)."""
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted


def verdict(difference: Difference | None, adjusted_p: float | None) -> str:
    """What a comparison supports.

    Returns:
        ``better`` or ``worse``: the interval excludes zero and the adjusted p is below 0.05;
        ``ahead`` or ``behind``: the interval excludes zero and p itself is below 0.05;
        ``undecided``: neither; ``undecided: 12 of 18 diverged``: the higher mean is that of what
        survived; ``n too small``: below six seeds; empty: there is nothing to compare.
    """
    if difference is None or adjusted_p is None:
        return ""
    if difference.n < LEAST_SEEDS:
        return "n too small"
    if difference.survived:
        return f"undecided: {difference.survived}"
    if not difference.stands:
        return "undecided"
    if adjusted_p < LEVEL:
        return "better" if difference.mean > 0 else "worse"
    return "ahead" if difference.mean > 0 else "behind"


def seeds_needed(difference: Difference, comparisons: int) -> int | None:
    """How many seeds in all would decide, if the difference is as large as it looks now.

    The least n at which a paired t test at level 0.05 / comparisons (Holm's first step) has a power
    of 0.8, and at which the sign-flip test can come below that level at all.

    Returns:
        None if it would take more than a thousand, or if there is nothing to estimate from.
    """
    if difference.n < 2 or difference.mean == 0:
        return None
    level = LEVEL / max(1, comparisons)
    counts = np.arange(2, MOST_SEEDS + 1)
    enough = counts >= least_seeds(comparisons)
    if difference.std > 0:
        effect = abs(difference.mean) / difference.std
        edge = stats.t.ppf(1 - level / 2, counts - 1)
        enough &= stats.nct.sf(edge, counts - 1, effect * np.sqrt(counts)) >= POWER
    return int(counts[enough][0]) if enough.any() else None


def least_seeds(comparisons: int) -> int:
    """How many paired seeds the sign-flip test needs before any p can fall below 0.05 once it is
    adjusted for so many comparisons: 2**(1 - n) is the smallest that it gives."""
    n = LEAST_SEEDS
    while 2.0 ** (1 - n) * comparisons >= LEVEL:
        n += 1
    return n
