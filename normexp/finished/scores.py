"""What answers of a classifier are worth: confusion, accuracy by class, calibration."""

from dataclasses import dataclass

import numpy as np

BINS = 15


@dataclass(frozen=True)
class Bin:
    """The images whose confidence, the largest probability, lies in (low, high]."""

    low: float
    high: float
    images: int
    confidence: float | None
    """Their mean confidence; None without images, as the next."""
    accuracy: float | None


def confusion_matrix(labels: np.ndarray, guesses: np.ndarray, classes: int) -> np.ndarray:
    """How many images of each class (rows) were taken for each class (columns), int64."""
    counts = np.bincount(labels * classes + guesses, minlength=classes * classes)
    return counts.reshape(classes, classes).astype(np.int64)


def ratios(parts: np.ndarray, wholes: np.ndarray) -> list[float | None]:
    """Each part by its whole; None where there is nothing."""
    return [
        float(part / whole) if whole else None for part, whole in zip(parts, wholes, strict=True)
    ]


def calibration(probabilities: np.ndarray, labels: np.ndarray) -> list[Bin]:
    """Confidence beside accuracy in 15 bins of equal width (Guo et al. 2017, arXiv 1706.04599).

    Args:
        probabilities: fp64 (n,classes).
        labels: int64 (n,).
    """
    confidence = probabilities.max(1)
    right = probabilities.argmax(1) == labels
    edges = np.linspace(0, 1, BINS + 1)
    place = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, BINS - 1)
    counts = np.bincount(place, minlength=BINS)
    confidences = ratios(np.bincount(place, confidence, BINS), counts)
    accuracies = ratios(np.bincount(place, right.astype(np.float64), BINS), counts)
    return [
        Bin(float(edges[i]), float(edges[i + 1]), int(counts[i]), confidences[i], accuracies[i])
        for i in range(BINS)
    ]


def expected_calibration_error(bins: list[Bin]) -> float:
    """The mean over images of |accuracy - confidence| of their bins, 0..1."""
    total = sum(each.images for each in bins)
    gaps = (
        each.images * abs(each.accuracy - each.confidence)
        for each in bins
        if each.accuracy is not None and each.confidence is not None
    )
    return sum(gaps) / total
