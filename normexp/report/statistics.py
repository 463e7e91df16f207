"""Whether cells differ: t intervals, one test for a whole table, and equivalence.

Accuracies are fractions, as in result.json. docs/report.md has what was measured of all this: how
often intervals hold the truth, and how often tables of equals are told apart.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special, stats

Floats = NDArray[np.float64]
Pair = tuple[Any, Any]
"""A cell and its reference."""

LEAST_SEEDS = 6
"""Below, no verdict: of five differences all have one sign by chance in one of sixteen tables."""
LEVEL = 0.05
CONFIDENCE = 0.95
MARGIN = 0.005
"""Differences of accuracy within it count as none: half a percentage point."""
ALL_SIGNS = 12
"""Up to so many seeds all patterns of signs are tried, and above so many a sample of them."""
SAMPLED = 9_999
SEED = 0
"""Of the sample, so that the same runs give the same figures."""


def half_width(error: Any, freedom: Any) -> Any:
    """Of a t interval, from a standard error and its degrees of freedom; NaN without any."""
    return stats.t.ppf((1 + CONFIDENCE) / 2, freedom) * error


def difference(ours: pd.Series, theirs: pd.Series) -> dict[str, Any]:
    """One comparison: paired by seed, or by Welch where too few seeds are common for a verdict and
    enough are there in all.

    Args:
        ours, theirs: accuracies by seed; NaN where there is none.

    Returns:
        ``n``, pairs or seeds of the smaller cell; ``paired``; ``left_out``, seeds without a
        partner; ``difference``, ours less theirs, with its standard ``error`` and degrees of
        ``freedom``; ``correlation`` of the pairs, the variance of their differences (``variance``)
        and what it would be if they were not paired (``unpaired_variance``).
    """
    both = (ours - theirs).dropna()
    ours, theirs = ours.dropna(), theirs.dropna()
    fewer = min(len(ours), len(theirs))
    found: dict[str, Any] = {"n": len(both), "paired": True}
    if len(both) and (len(both) >= LEAST_SEEDS or fewer < LEAST_SEEDS):
        left_out = len(ours) + len(theirs) - 2 * len(both)
        ours, theirs = ours[both.index], theirs[both.index]
        return found | {
            "left_out": left_out,
            "difference": both.mean(),
            "error": both.std() / np.sqrt(len(both)),
            "freedom": len(both) - 1,
            "correlation": ours.corr(theirs) if ours.std() > 0 and theirs.std() > 0 else np.nan,
            "variance": both.var(),
            "unpaired_variance": ours.var() + theirs.var(),
        }
    lengths = np.array([len(ours), len(theirs)])
    shares = np.array([ours.var(), theirs.var()]) / np.maximum(lengths, 1)
    with np.errstate(invalid="ignore"):
        freedom = shares.sum() ** 2 / (shares**2 / np.maximum(lengths - 1, 1)).sum()
    return {
        "n": fewer,
        "paired": False,
        "left_out": 0,
        "difference": ours.mean() - theirs.mean(),
        "error": np.sqrt(shares.sum()),
        "freedom": freedom if np.isfinite(freedom) else fewer - 1,
    }


def max_t(differences: Floats) -> Floats:
    """Step-down maxT over the comparisons of a table (Westfall & Young 1993).

    The signs of the differences of a seed are flipped together in all comparisons: under the null
    hypothesis, that seeds are exchangeable between a cell and its reference, all patterns are
    equally likely, however the comparisons hang together. Each t counts as its own two-sided p, so
    that comparisons with fewer seeds are measured by their own degrees of freedom; with the same
    seeds everywhere that is the order of the |t|.

    Args:
        differences: (seeds, comparisons); NaN where a comparison lacks a seed. Each has two seeds
            or more.

    Returns:
        Adjusted p of each comparison, at least 2/2**n.
    """
    seeds, count = differences.shape
    if not count:
        return np.empty(0)
    n = (~np.isnan(differences)).sum(axis=0)
    values = np.nan_to_num(differences)
    squares = np.maximum((values**2).sum(axis=0), np.finfo(float).tiny)
    # The mirror of a pattern gives the same |t|: the last seed keeps its sign.
    if seeds <= ALL_SIGNS:
        signs = 1 - 2 * (np.arange(2 ** (seeds - 1))[:, None] >> np.arange(seeds) & 1)
    else:
        sample = np.random.default_rng(SEED).integers(0, 2, (SAMPLED, seeds))
        signs = np.vstack([np.ones(seeds), 1 - 2 * sample])
    # t² = (n - 1) r / (1 - r) of the share r. With the same n everywhere its order is that of p.
    p = 1 - np.clip((signs @ values) ** 2 / (n * squares), 0, 1 - 1e-12)
    if (n != n[0]).any():
        p = special.betainc((n - 1) / 2, 0.5, p)
    order = np.argsort(p[0])
    least = np.minimum.accumulate(p[:, order[::-1]], axis=1)[:, ::-1]
    # What differs by rounding only is a tie.
    as_small = (least <= p[0, order] * (1 + 1e-6)).mean(axis=0)
    adjusted = np.empty(count)
    adjusted[order] = np.maximum.accumulate(as_small)
    return adjusted


def holm(p: Floats) -> Floats:
    """P-values adjusted so that all verdicts of a table hold together (Holm 1979)."""
    order = np.argsort(p)
    adjusted = np.empty(len(p))
    steps = np.minimum(1, p[order] * np.arange(len(p), 0, -1))
    adjusted[order] = np.maximum.accumulate(steps) if len(p) else steps
    return adjusted


def compare(
    scores: pd.DataFrame, pairs: Sequence[Pair], lost: pd.Series,
    margin: float = MARGIN, level: float = LEVEL,
) -> pd.DataFrame:  # fmt: skip
    """Every comparison of a table with its verdict.

    Args:
        scores: accuracy by seed (rows) and cell (columns); NaN where there is none.
        pairs: each cell and its reference.
        lost: by cell, the share of its runs that diverged.
        margin: differences within it count as none.
        level: of the family of all comparisons, for the claims that cells differ; and again for
            the claims that they are the same.

    Returns:
        A row a pair, in their order: what :func:`difference` gives, ``low`` and ``high`` of the
        95 % t interval, ``p`` (adjusted over the table), ``p_same`` (likewise), ``verdict``:
        ``better``, ``worse``, ``same``, ``undecided`` or ``too few seeds``; and ``survivors``: the
        higher mean is that of the cell of which the larger share of runs diverged.
    """
    found = pd.DataFrame([difference(scores[cell], scores[other]) for cell, other in pairs])
    if found.empty:
        return found
    mean, error, freedom = found["difference"], found["error"], found["freedom"]
    half = half_width(error, freedom)
    found["low"], found["high"] = mean - half, mean + half
    with np.errstate(divide="ignore", invalid="ignore"):
        single = 2 * stats.t.sf(abs(mean) / error, freedom)
        same = stats.t.sf((margin - abs(mean)) / error, freedom)
    tested = (found["n"] >= LEAST_SEEDS).to_numpy()
    paired = found["paired"].to_numpy() & tested
    welch = tested & ~paired
    found["p"] = found["p_same"] = np.nan
    matrix = np.array([scores[cell] - scores[other] for cell, other in pairs]).T[:, paired]
    matrix = matrix[~np.isnan(matrix).all(axis=1)]
    # Both families share the level by their sizes, so that it is that of the whole table.
    for chosen, adjusted in (
        (paired, max_t(matrix)),
        (welch, holm(np.nan_to_num(single[welch], nan=1.0))),
    ):
        if chosen.any():
            found.loc[chosen, "p"] = np.minimum(1, adjusted * tested.sum() / chosen.sum())
    found.loc[tested, "p_same"] = holm(np.nan_to_num(same[tested], nan=1.0))
    ours, theirs = (np.array([lost[pair[side]] for pair in pairs]) for side in (0, 1))
    found["survivors"] = (mean * (ours - theirs) > 0).to_numpy()
    decided = tested & ~found["survivors"] & (found["p"] <= level)
    found["verdict"] = np.select(
        [~tested, decided & (mean > 0), decided, (ours == theirs) & (found["p_same"] <= level)],
        ["too few seeds", "better", "worse", "same"],
        "undecided",
    )
    return found
