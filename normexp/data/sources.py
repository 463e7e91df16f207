"""The one door to images: ``load`` gives a data set, ``fingerprint`` names its content."""

from pathlib import Path

from normexp.config import DataConfig, DataName
from normexp.data import cifar10, image_folder, synthetic
from normexp.data.images import Dataset, ImageSet

__all__ = ["Dataset", "ImageSet", "fingerprint", "load", "place"]

MADE_UP = "made-up images: shows how it works, not which norm is better"
"""What to say of results on synthetic images."""


def load(data: DataConfig, *, progress: bool = True) -> Dataset:
    """The images that ``data`` names, as uint8 [N, 3, H, W]; fetched or packed first if need be.

    Args:
        data: its ``name`` chooses the source; each source reads the keys that are its own.
        progress: show bars while fetching or packing, on terminals only.

    Raises:
        UserError: one line that names the file or folder, and what would work.
    """
    if data.name is DataName.cifar10:
        return cifar10.load(data, progress=progress)
    if data.name is DataName.image_folder:
        return image_folder.load(data, progress=progress)
    return synthetic.load(data)


def fingerprint(data: DataConfig) -> str:
    """What tells data sets of different content apart, wherever they lie.

    Empty for synthetic images, which the configuration describes in full. Repeated calls in one
    process are cheap; the first may fetch or pack.

    Raises:
        UserError: as :func:`load`.
    """
    if data.name is DataName.cifar10:
        return cifar10.fingerprint(data)
    if data.name is DataName.image_folder:
        return image_folder.fingerprint(data)
    return ""


def place(data: DataConfig) -> Path | None:
    """The folder that later runs read; None for synthetic images, which are made each time."""
    if data.name is DataName.cifar10:
        return cifar10.place(data)
    if data.name is DataName.image_folder:
        return image_folder.place(data)
    return None
