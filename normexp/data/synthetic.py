"""Images made from a seed: ten classes, learnable but not trivial, nothing to download.

A class is a smooth pattern of colours that repeats at the edges. An image shows its class's
pattern at a random place, with another class's pattern faintly over it, each colour channel with
a contrast and a brightness of its own, and noise on top. What tells classes apart is shape, which
a convolution finds anywhere; contrast and brightness, which norms can remove, tell nothing.
"""

import numpy as np

from normexp.config.schema import DataConfig
from normexp.data.images import Dataset, ImageSet, count_levels, mean_and_std
from normexp.system import memory
from normexp.system.errors import UserError

CLASSES = tuple(f"pattern {index}" for index in range(10))

_CHUNK = 256  # Images made at a time; of its size depends what a seed gives.
_WAVES = 2  # In each direction and each pattern.
_OTHER = 0.5  # How strong the pattern of another class is at most.
_NOISE = 0.5
_SHIFT = 0.36  # How far a pattern moves at most, as a share of the image's side.
_CONTRAST = (10.0, 45.0)  # Levels of 0..255 for one standard deviation of a pattern.
_BRIGHTNESS = (40.0, 215.0)  # Levels of 0..255.


def load(data: DataConfig) -> Dataset:
    """Make ``data.train_images`` and ``data.test_images`` images from ``data.seed``.

    Images are uint8 [N, 3, S, S] with S = ``data.image_size``; the ten classes are as equal in
    number as they can be. The same seed and sizes give the same images. Training and test images
    show the same patterns and are drawn independently.

    Raises:
        UserError: memory does not suffice.
    """
    refuse_too_large(data)
    patterns = _make_patterns(np.random.default_rng([data.seed, 0]), data.image_size)
    train = _make_images(np.random.default_rng([data.seed, 1]), patterns, data.train_images)
    test = _make_images(np.random.default_rng([data.seed, 2]), patterns, data.test_images)
    mean, std = mean_and_std(count_levels(train.images))
    return Dataset(train, test, CLASSES, mean, std, fingerprint="")


def refuse_too_large(data: DataConfig) -> None:
    """Refuse images that memory certainly does not hold, before the first is made.

    Raises:
        UserError: names the keys.
    """
    count, free = data.train_images + data.test_images, memory.free()
    pixels = 3 * data.image_size**2
    # While a part of them is made it is there twice, in float32.
    needed = (count + 8 * min(_CHUNK, count)) * pixels / memory.MIB
    if free is not None and needed > free:
        raise UserError(
            f"data.image_size={data.image_size} data.train_images={data.train_images} "
            f"data.test_images={data.test_images}: take {needed:,.0f} MiB of memory, and "
            f"{free:,.0f} are free; use smaller or fewer images"
        )


def _make_patterns(rng: np.random.Generator, size: int) -> np.ndarray:
    """One pattern a class, float32 [10, size, size, 3] of mean 0 and standard deviation 1."""
    angle = 2 * np.pi * np.arange(size) / size
    waves = np.arange(-_WAVES, _WAVES + 1)
    basis = np.exp(1j * waves[:, None] * angle)
    shape = (len(CLASSES), 3, len(waves), len(waves))
    amplitudes = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
    patterns: np.ndarray = np.einsum("kcyx,yh,xw->khwc", amplitudes, basis, basis).real
    patterns -= patterns.mean(axis=(1, 2), keepdims=True)
    patterns /= patterns.std(axis=(1, 2), keepdims=True) + 1e-9  # One pixel has no deviation.
    return patterns.astype(np.float32)


def _make_images(rng: np.random.Generator, patterns: np.ndarray, count: int) -> ImageSet:
    size = patterns.shape[1]
    try:
        images = np.empty((count, 3, size, size), dtype=np.uint8)
    except (MemoryError, OverflowError, ValueError) as error:  # the last two: no machine has that
        raise UserError(
            f"data=synthetic: not enough memory for {count:,} images of {size}x{size}; use fewer "
            "(data.train_images, data.test_images) or a smaller data.image_size"
        ) from error
    labels = rng.permutation(np.arange(count, dtype=np.int64) % len(CLASSES))
    for start in range(0, count, _CHUNK):
        part = labels[start : start + _CHUNK]
        images[start : start + _CHUNK] = _draw(rng, patterns, part).transpose(0, 3, 1, 2)
    return ImageSet(images, labels)


def _draw(rng: np.random.Generator, patterns: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Images of the given classes, uint8 [n, size, size, 3]."""
    count = len(labels)
    others = (labels + rng.integers(1, len(CLASSES), count)) % len(CLASSES)
    strength = rng.uniform(0, _OTHER, (count, 1, 1, 1)).astype(np.float32)
    levels = _shift(rng, patterns, labels)
    levels += strength * _shift(rng, patterns, others)
    levels += _NOISE * rng.standard_normal(levels.shape, dtype=np.float32)
    levels *= rng.uniform(*_CONTRAST, (count, 1, 1, 3)).astype(np.float32)
    levels += rng.uniform(*_BRIGHTNESS, (count, 1, 1, 3)).astype(np.float32)
    pixels: np.ndarray = np.clip(np.rint(levels), 0, 255).astype(np.uint8)
    return pixels


def _shift(rng: np.random.Generator, patterns: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """The patterns of ``classes``, each moved round its edges by its own random number of pixels.

    float32 [n, size, size, 3].
    """
    size = patterns.shape[1]
    places, reach = np.arange(size), int(_SHIFT * size)
    rows = (places + rng.integers(-reach, reach + 1, (len(classes), 1))) % size
    columns = (places + rng.integers(-reach, reach + 1, (len(classes), 1))) % size
    moved: np.ndarray = patterns[classes[:, None, None], rows[:, :, None], columns[:, None, :]]
    return moved
