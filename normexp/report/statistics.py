"""Whether cells differ: t intervals, one test for a whole table, and equivalence.

Accuracies are fractions, as in result.json. docs/report.md has what was measured of all this: how
often intervals hold the truth, and how often tables of equals are told apart.
"""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special, stats

from normexp.report.thresholds import CONFIDENCE, LEAST_SEEDS

Floats = NDArray[np.float64]
Pair = tuple[Any, Any]
"""A cell and its reference."""

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
