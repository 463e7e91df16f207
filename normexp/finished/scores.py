"""What answers of a classifier are worth: accuracy by class, calibration."""

import numpy as np
import pandas as pd

BINS = 15


def ratios(parts: np.ndarray, wholes: np.ndarray) -> list[float | None]:
    """Each part by its whole; None where there is nothing."""
    return [
        float(part / whole) if whole else None for part, whole in zip(parts, wholes, strict=True)
    ]


def calibration(probabilities: np.ndarray, labels: np.ndarray) -> pd.DataFrame:
    """Confidence, the largest probability, beside accuracy in 15 bins of equal width (Guo et al.
    2017, arXiv 1706.04599). (scikit-learn's calibration_curve does not tell how many images a bin
    has, which its mean needs.)

    Args:
        probabilities: fp64 (n,classes).
        labels: int64 (n,).

    Returns:
        A row a bin (``low``, ``high``]: its ``images``, and their mean ``confidence`` and
        ``accuracy``, None where there are none.
    """
    edges = np.linspace(0, 1, BINS + 1)
    known = pd.DataFrame(
        {"confidence": probabilities.max(1), "accuracy": probabilities.argmax(1) == labels}
    )
    bins = pd.cut(known["confidence"], edges, labels=False, include_lowest=True)
    grouped = known.astype(float).groupby(bins)
    means = grouped.mean().reindex(range(BINS)).astype(object)
    images = grouped.size().reindex(range(BINS), fill_value=0)
    found = pd.DataFrame({"low": edges[:-1], "high": edges[1:], "images": images})
    return found.join(means.where(means.notna(), None))


def expected_calibration_error(bins: pd.DataFrame) -> float:
    """The mean over images of |accuracy - confidence| of their bins, 0..1."""
    there = bins[bins["images"] > 0]
    gaps = (there["accuracy"] - there["confidence"]).abs()
    return float((there["images"] * gaps).sum() / there["images"].sum())
