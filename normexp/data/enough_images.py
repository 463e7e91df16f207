"""Whether there are images enough to train on: told without torch, and before any is read or made
where the configuration says how many there are."""

import numpy as np

from normexp.config.schema import CIFAR, Config, DataName
from normexp.data import digits, synthetic
from normexp.data.cifar_versions import version_of
from normexp.data.split import split
from normexp.system.errors import UserError

CIFAR_IMAGES = 50_000
MANY = 1_000_000
"""More than these are counted once they are there."""


def refuse_unseen(config: Config) -> None:
    """Refuse what could not be trained on, or held in memory, as far as the configuration tells.

    Raises:
        UserError: names the key and what would work.
    """
    data = config.data
    if data.name is DataName.synthetic:
        synthetic.refuse_too_large(data)
        if data.train_images > MANY:
            return
        labels = np.arange(data.train_images) % 10
    elif data.name is DataName.digits:
        labels = digits.train_labels()
    elif data.name in CIFAR and data.verify:  # else it may be a part of it
        labels = np.arange(CIFAR_IMAGES) % version_of(data).classes
    else:
        return
    train, _ = split(labels, data.val_fraction, data.train_size, data.split_seed)
    refuse_too_few(len(train), len(labels), config)


def refuse_too_few(images: int, of: int, config: Config) -> None:
    """Refuse to train on fewer images than one step takes.

    Args:
        images: how many are left to train on.
        of: how many there were before validation took its share.

    Raises:
        UserError: names the key and what would work.
    """
    if images == 0:
        raise UserError(
            f"data.val_fraction={config.data.val_fraction}: leaves no image of {of} to train on; "
            "use a smaller share"
        )
    if images < config.images_per_step:
        given, most = f"batch_size={config.batch_size}", f"batch_size={images}"
        if config.accumulate_steps > 1:
            given += f" accumulate_steps={config.accumulate_steps}"
            most = f"batch_size * accumulate_steps = {images}"
        raise UserError(
            f"{given}: there are {images} training images, less than one batch; use {most} or less"
        )
