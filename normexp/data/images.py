"""What every source of images gives: uint8 arrays, labels, and the statistics of the channels."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from normexp.data.levels import Levels

_CHUNK = 1024  # Images counted at a time: keeps the integers bincount needs to a few megabytes.


@dataclass(frozen=True)
class ImageSet:
    """Images and what they show."""

    images: np.ndarray
    """uint8 [N, 3, H, W], C-contiguous; may be a copy-on-write memory map of a file."""
    labels: np.ndarray
    """int64 [N], indices into the classes."""


@dataclass(frozen=True)
class Dataset:
    """A training set and a test set of the same classes."""

    train: ImageSet
    test: ImageSet
    classes: tuple[str, ...]
    mean: tuple[float, float, float]
    """Of each channel over the pixels of train, on the scale 0..1."""
    std: tuple[float, float, float]
    """Of each channel over the pixels of train, on the scale 0..1."""
    fingerprint: str
    """Tells data sets of different content apart; empty if the configuration says it all."""
    val: ImageSet | None = None
    """Validation images of their own; None where they are a share of those of train."""
    levels: Levels | None = None
    """Black and white of those images that had more than 8 bits a channel; None if none had."""
    notes: tuple[str, ...] = ()
    """What a person should know of the images, one sentence each."""


Channels = tuple[float, float, float]


def count_levels(images: np.ndarray) -> np.ndarray:
    """How often each of the 256 levels occurs in each channel.

    Args:
        images: uint8 [N, 3, H, W].

    Returns:
        int64 [3, 256]; the counts of parts add up to the counts of the whole.
    """
    counts = np.zeros((3, 256), dtype=np.int64)
    for start in range(0, len(images), _CHUNK):
        chunk = images[start : start + _CHUNK]
        for channel in range(3):
            counts[channel] += np.bincount(chunk[:, channel].ravel(), minlength=256)
    return counts


def mean_and_std(counts: np.ndarray) -> tuple[Channels, Channels]:
    """Mean and (population) standard deviation of each channel on the scale 0..1.

    Args:
        counts: int64 [3, 256], from :func:`count_levels`.
    """
    levels = np.arange(256) / 255
    weights = counts / counts.sum(axis=1, keepdims=True)
    mean = weights @ levels
    std = np.sqrt((weights * (levels - mean[:, None]) ** 2).sum(axis=1))
    return triple(mean.tolist()), triple(std.tolist())


def triple(values: Sequence[float]) -> Channels:
    red, green, blue = values
    return red, green, blue
