"""Which training images are trained on and which are kept for validation: fixed, class-balanced."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from normexp.config.schema import DataConfig
from normexp.data.images import Dataset, ImageSet
from normexp.system.errors import UserError

Indices = npt.NDArray[np.int64]


def train_and_val(dataset: Dataset, data: DataConfig) -> tuple[Indices, Indices]:
    """Indices of the images to train on, and of those to validate on.

    The latter are all of ``dataset.val`` where there is such a set, and else some of
    ``dataset.train``.

    Raises:
        UserError: as :func:`split`.
    """
    fraction = data.val_fraction if dataset.val is None else 0.0
    train, val = split(dataset.train.labels, fraction, data.train_size, data.split_seed)
    return train, val if dataset.val is None else np.arange(len(dataset.val.labels))


def split(
    labels: Indices, val_fraction: float, train_size: int | None, seed: int
) -> tuple[Indices, Indices]:
    """Split images into training and validation, with the classes' shares in both.

    The images of each class are shuffled once by ``seed``; validation takes the first of each, and
    a subset takes the next, so smaller subsets lie within larger ones and never meet validation.

    Args:
        labels: class of each image, (N,).
        val_fraction: share kept for validation, of each class, rounded.
        train_size: how many images to train on, evenly from the classes; None for all.
        seed: of the shuffle.

    Returns:
        Indices of the training and of the validation images, each sorted.

    Raises:
        UserError: there are not so many images, or none is left.
    """
    generator = np.random.default_rng(seed)
    train: list[Indices] = []
    val: list[Indices] = []
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        kept = round(len(members) * val_fraction)
        val.append(members[:kept])
        train.append(members[kept:])
    if train_size is not None:
        train = _subset(train, "data.train_size", train_size)
    chosen, held = np.sort(np.concatenate(train)), np.sort(np.concatenate(val))
    if val_fraction > 0 and len(held) == 0:
        raise UserError(
            f"data.val_fraction={val_fraction}: leaves no image of {len(labels)} for validation; "
            "use a larger share, or 0 for none"
        )
    return chosen, held


def smaller_test(dataset: Dataset, data: DataConfig) -> Dataset:
    """The data set with as many test images as are asked for, evenly from the classes, drawn once
    by ``data.split_seed``: smaller subsets lie within larger ones.

    Raises:
        UserError: there are not so many.
    """
    if data.test_size is None:
        return dataset
    generator, labels = np.random.default_rng(data.split_seed), dataset.test.labels
    classes = [generator.permutation(np.flatnonzero(labels == one)) for one in np.unique(labels)]
    chosen = np.sort(np.concatenate(_subset(classes, "data.test_size", data.test_size)))
    return replace(dataset, test=ImageSet(dataset.test.images[chosen], labels[chosen]))


def _subset(classes: list[Indices], key: str, size: int) -> list[Indices]:
    available = sum(len(members) for members in classes)
    if size > available:
        kind = "test images" if key == "data.test_size" else "training images after validation"
        raise UserError(f"{key}={size}: there are {available} {kind}; use at most {available}")
    # One image a class in turn, as far as the classes reach: the first `size` of all images when
    # they are ordered by their place in their class.
    sizes = [len(members) for members in classes]
    label = np.repeat(np.arange(len(classes)), sizes)
    place = np.concatenate([np.arange(count) for count in sizes])
    taken = label[np.lexsort((label, place))[:size]]
    quotas = np.bincount(taken, minlength=len(classes))
    return [members[:quota] for members, quota in zip(classes, quotas, strict=True)]
