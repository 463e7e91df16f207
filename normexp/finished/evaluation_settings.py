"""The settings of `python -m normexp.evaluate`: which it reads, and how they change a run."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from normexp.config.schema import CIFAR, Config, DataConfig, DataName, to_dict
from normexp.config.settings import refuse_unknown_keys
from normexp.data import sources
from normexp.norms import bn_stats
from normexp.runs import composing
from normexp.system.errors import UserError

SOURCE = (
    *("name", "root", "url", "download", "verify", "cache", "train_folder", "test_folder"),
    *("val_folder", "seed", "train_images", "test_images"),
)
"""Keys of data.* that say which images; the others are of how a run uses them."""

READ = (
    *(f"data.{key}" for key in SOURCE if key != "name"),
    "data.test_fraction",
    *("evaluate.batch_size", "evaluate.bn_stats", "evaluate.precise_samples"),
    *("device", "threads", "precision"),
)


@dataclass
class Scored:
    """How a run is to be scored."""

    config: Config
    """The run's, with the settings."""
    test: DataConfig
    """The images whose test set it meets."""
    notes: list[str]
    """A sentence for each setting that this run ignores."""


def refuse_unread(settings: list[str]) -> None:
    """Raise a UserError for the first setting that evaluation does not read or cannot."""
    refuse_unknown_keys(settings)
    for override in OverridesParser.create().parse_overrides(settings):
        key = override.key_or_group
        if key != "data" and key not in READ:
            raise UserError(
                f"{key}: evaluation does not read it, a run brings its own; it reads data, "
                f"{', '.join(READ)}"
            )
        if override.is_sweep_override():
            raise UserError(f"{key}: takes one value here; a list is [a,b]")


def apply(config: Config, settings: list[str]) -> Scored:
    """Change a run's configuration by settings that :func:`refuse_unread` let pass.

    `data=NAME` names another data set, whose test images are used; without it `data.root=` and the
    like say where the images of the run's own kind lie.

    Raises:
        UserError, OmegaConfBaseException: a value is of a wrong type or cannot work.
    """
    tree = OmegaConf.merge(OmegaConf.structured(Config), to_dict(config))
    overrides = OverridesParser.create().parse_overrides(settings)
    another = [override for override in overrides if override.key_or_group == "data"]
    if another:
        group = f"data={another[-1].value()}"
        chosen = composing.read([group]).data
        for key in SOURCE:
            OmegaConf.update(tree, f"data.{key}", getattr(chosen, key))
    for override in overrides:
        if override.key_or_group != "data":
            OmegaConf.update(tree, override.key_or_group, override.value())
    changed = OmegaConf.to_object(tree)
    assert isinstance(changed, Config)
    given = {override.key_or_group for override in overrides}
    notes = [note for note in bn_stats.settle(changed) if note.split("=")[0] in given]
    size = composing.image_size(config)
    if changed.data.name not in CIFAR:
        changed.data.image_size = size
    elif size != 32:
        raise UserError(
            f"data={changed.data.name.value}: its images are 32x32, and the network takes "
            f"{size}x{size}; use data=image_folder, which resizes"
        )
    composing.check(changed)
    test = changed.data
    if another:
        # Precise statistics stay those of the images that the run was trained on.
        changed = replace(changed, data=config.data)
    return Scored(changed, test, notes)


def same_place(one: DataConfig, other: DataConfig) -> bool:
    """Whether both name the same images, as far as the configuration tells."""
    keys = ("name", "train_folder", "test_folder")
    roots = {os.path.abspath(os.path.expanduser(data.root)) for data in (one, other)}
    return len(roots) == 1 and all(getattr(one, key) == getattr(other, key) for key in keys)


def images_of(data: DataConfig, own: DataConfig) -> tuple[DataConfig, bool]:
    """The settings as this folder allows, and whether its test images alone are of interest.

    Args:
        own: the images that the run was trained on.

    Raises:
        UserError: it cannot be told which folders are meant.
    """
    if data.name is not DataName.image_folder:
        return data, False
    root = Path(data.root).expanduser()
    if own.name is DataName.image_folder and data.test_fraction is None:
        trained = Path(own.root).expanduser() / own.train_folder
        if os.path.realpath(root / data.test_folder) == os.path.realpath(trained):
            raise UserError(
                f"{root / data.test_folder}: the images that the run was trained on, which tell "
                "nothing of new ones; give data.root= or data.test_folder= of others"
            )
    if data.val_folder and not (root / data.val_folder).is_dir():
        data = replace(data, val_folder=None)  # Of training; the test does not need it.
    data, _ = sources.settle(data)
    elsewhere = not same_place(data, own) or not (root / data.train_folder).is_dir()
    return data, elsewhere and data.test_fraction is None
