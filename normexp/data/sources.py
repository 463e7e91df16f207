"""The one door to images: ``load`` gives a data set, ``fingerprint`` names its content."""

from dataclasses import replace
from pathlib import Path

from normexp.config.schema import DataConfig, DataName
from normexp.data import cifar, digits, image_folder, layout, synthetic
from normexp.data.images import Dataset, ImageSet, triple
from normexp.data.levels import Levels
from normexp.data.split import smaller_test

__all__ = ["Dataset", "ImageSet", "fingerprint", "load", "place", "settle"]

MADE_UP = "made-up images: shows how it works, not which norm is better"
"""What to say of results on synthetic images."""


def settle(data: DataConfig) -> tuple[DataConfig, list[str]]:
    """The settings with what the folders imply, and a sentence for each that is ignored.

    Raises:
        UserError: it cannot be told which folders are meant.
    """
    return layout.settle(data) if data.name is DataName.image_folder else (data, [])


def load(
    data: DataConfig, *, progress: bool = True, levels: Levels | None = None,
    test_only: bool = False, every: bool = False,
) -> Dataset:  # fmt: skip
    """The images that ``data`` names, as uint8 [N, 3, H, W]; fetched or packed first if need be.

    Args:
        data: its ``name`` chooses the source; each source reads the keys that are its own.
        progress: show bars while fetching or packing, on terminals only.
        levels: black and white of images of more than 8 bits a channel, where a run brings its own.
        test_only: of a folder that holds test images and nothing to train on.
        every: check all packed images; a sample of them is checked in any case, and the official
            files of CIFAR always are.

    Raises:
        UserError: one line that names the file or folder, and what would work.
    """
    dataset = smaller_test(_whole(data, progress, levels, test_only, every), data)
    if data.mean is not None and data.std is not None:
        dataset = replace(dataset, mean=triple(data.mean), std=triple(data.std))
    return dataset


def _whole(
    data: DataConfig, progress: bool, levels: Levels | None, test_only: bool, every: bool
) -> Dataset:
    match data.name:
        case DataName.cifar10 | DataName.cifar100:
            return cifar.load(data, progress=progress)
        case DataName.image_folder:
            return image_folder.load(
                data, progress=progress, levels=levels, test_only=test_only, every=every
            )
        case DataName.digits:
            return digits.load(data)
        case DataName.synthetic:
            return synthetic.load(data)


def fingerprint(data: DataConfig) -> str:
    """What tells data sets of different content apart, wherever they lie.

    Empty for synthetic images, which the configuration describes in full, and for the digits, which
    are always the same. Repeated calls in one
    process are cheap; the first may fetch or pack.

    Raises:
        UserError: as :func:`load`.
    """
    match data.name:
        case DataName.cifar10 | DataName.cifar100:
            return cifar.fingerprint(data)
        case DataName.image_folder:
            return image_folder.fingerprint(data)
        case DataName.digits | DataName.synthetic:
            return ""


def place(data: DataConfig) -> Path | None:
    """The folder that later runs read; None for synthetic images, which are made each time, and
    the digits, which scikit-learn brings."""
    match data.name:
        case DataName.cifar10 | DataName.cifar100:
            return cifar.place(data)
        case DataName.image_folder:
            return image_folder.place(data)
        case DataName.digits | DataName.synthetic:
            return None
