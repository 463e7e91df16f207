"""The handwritten digits that scikit-learn ships: 1,797 real images of 8x8 pixels in 17 greys,
the test part of "Optical Recognition of Handwritten Digits" (Alpaydin & Kaynak 1998, UCI)."""

import hashlib

import numpy as np
from PIL import Image

from normexp.config.schema import DataConfig
from normexp.data.images import Dataset, ImageSet, count_levels, mean_and_std
from normexp.data.split import split
from normexp.system.errors import UserError

COUNTS = (178, 182, 177, 183, 181, 182, 181, 179, 174, 180)
"""Images of each class."""
SIDE, BLACK = 8, 16
TEST_FRACTION, TEST_SEED = 0.2, 0
"""Of each class, drawn once for all: the test set is the same whatever ``data.split_seed`` is."""
SHA256 = "87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"
"""Of the images and then the labels, a byte each: what the name of a run relies on."""


def load(data: DataConfig) -> Dataset:
    """The digits as grey images in three equal channels, uint8 [N, 3, S, S], S = data.image_size.

    Raises:
        UserError: scikit-learn brings other images than those known.
    """
    from sklearn.datasets import load_digits  # takes a second: only where images are needed

    images, labels = load_digits(return_X_y=True)
    content = images.astype(np.uint8).tobytes() + labels.astype(np.uint8).tobytes()
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise UserError(
            "data=digits: the digits of the installed scikit-learn are not those known here; "
            "install another release of scikit-learn"
        )
    grey = np.rint(images * (255 / BLACK)).astype(np.uint8).reshape(-1, SIDE, SIDE)
    pixels = np.stack([_resized(image, data.image_size) for image in grey])
    whole = np.ascontiguousarray(np.repeat(pixels[:, None], 3, axis=1))
    labels = labels.astype(np.int64)
    train, test = split(labels, TEST_FRACTION, None, TEST_SEED)
    mean, std = mean_and_std(count_levels(whole[train]))
    known, new = (ImageSet(whole[part], labels[part]) for part in (train, test))
    return Dataset(known, new, tuple("0123456789"), mean, std, fingerprint="")


def train_labels() -> np.ndarray:
    """As many labels of each class as there are training images, told without reading any."""
    return np.repeat(np.arange(10), [count - round(count * TEST_FRACTION) for count in COUNTS])


def _resized(image: np.ndarray, size: int) -> np.ndarray:
    if size == SIDE:
        return image
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))
