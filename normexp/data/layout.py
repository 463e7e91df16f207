"""Which folders make a data set: training, test and validation images, and how they fit."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from normexp.config.schema import DataConfig
from normexp.data.listing import Listing, few, list_classes, same_name, visible
from normexp.data.split import split
from normexp.system.errors import UserError

VALIDATION = ("val", "valid", "validation", "dev")
"""What folders of validation images are called."""

NO_FOLDER = "none"
"""As data.val_folder: a share of the training images, whatever folders there are."""

TEST_FRACTION = 0.2

SET_NAMES = {"train": "training", "val": "validation", "test": "test"}

_PARTS = frozenset((*VALIDATION, "train", "training", "test", "testing", "eval", "evaluation"))
"""Names of folders that hold classes, and are none."""


def root_of(data: DataConfig) -> Path:
    return Path(os.path.abspath(os.path.expanduser(data.root)))


def settle(data: DataConfig) -> tuple[DataConfig, list[str]]:
    """Make explicit what the folders imply: where the validation and the test images come from.

    Returns:
        The settings, and one sentence for each that was given and is ignored.

    Raises:
        UserError: it cannot be told which folders are meant.
    """
    root, default, notes = root_of(data), DataConfig(), []
    if (root / data.test_folder).is_dir():
        if data.test_fraction is not None:
            notes.append(
                f"data.test_fraction={data.test_fraction} is ignored: the test images are those of "
                f"{root / data.test_folder}"
            )
            data = replace(data, test_fraction=None)
    elif _is_flat(data, root):
        fraction = TEST_FRACTION if data.test_fraction is None else data.test_fraction
        data = replace(data, train_folder=os.curdir, test_fraction=fraction)
    elif data.test_fraction is not None and data.test_folder != default.test_folder:
        raise UserError(
            f"data.test_folder={data.test_folder} data.test_fraction={data.test_fraction}: "
            f"there is no {root / data.test_folder}; leave out one of them"
        )
    usual = _usual_validation(data, root)
    if data.val_folder == NO_FOLDER and not usual:
        data = replace(data, val_folder=None)
    if data.val_folder is None and data.val_fraction > 0 and usual:
        if len(usual) > 1:
            raise UserError(
                f"{root} holds {' and '.join(usual)}; say which has the validation images: "
                f"data.val_folder={usual[0]}, or data.val_folder={NO_FOLDER}"
            )
        data = replace(data, val_folder=usual[0])
    if data.val_folder not in (None, NO_FOLDER) and data.val_fraction != default.val_fraction:
        notes.append(
            f"data.val_fraction={data.val_fraction} is ignored: the validation images are those of "
            f"{root / str(data.val_folder)}; data.val_folder={NO_FOLDER} takes a share "
            "of training images"
        )
        data = replace(data, val_fraction=default.val_fraction)
    return data, notes


def _is_flat(data: DataConfig, root: Path) -> bool:
    """Whether the classes lie in the root itself."""
    default = DataConfig()
    usual = data.train_folder == default.train_folder and data.test_folder == default.test_folder
    if not usual or (root / data.train_folder).is_dir() or not root.is_dir():
        return False
    folders = _folders(root)
    if parts := [name for name in folders if name.lower() in _PARTS]:
        raise UserError(
            f"{root} has no {data.train_folder} and no {data.test_folder} folder but "
            f"{few(parts)}; name what is what, data.train_folder=NAME data.test_folder=NAME, or "
            f"data.train_folder=. data.test_fraction={TEST_FRACTION} if these are classes"
        )
    for name in folders:
        if any((root / name / part).is_dir() for part in ("train", "Train", "Training")):
            raise UserError(
                f"{root / name} is a data set and no class; give data.root={root / name}"
            )
    return bool(folders)


def _usual_validation(data: DataConfig, root: Path) -> list[str]:
    if data.train_folder == os.curdir:
        return []  # There they are classes.
    taken = (data.train_folder, data.test_folder)
    return [name for name in _folders(root) if name.lower() in VALIDATION and name not in taken]


def _folders(root: Path) -> list[str]:
    try:
        return [entry.name for entry in visible(root) if entry.is_dir()]
    except OSError:  # Said where its images are listed.
        return []


def sets_of(data: DataConfig, test_only: bool = False) -> dict[str, Listing]:
    """The files of the sets ``train``, ``test`` and, where it has a folder, ``val``.

    Labels of all are indices into the classes of train.

    Args:
        data: settled.
        test_only: of a folder that holds test images and nothing to train on.

    Raises:
        UserError: a folder is missing or holds no images; there is but one class; a class of test
            is not one of train; two sets hold the same folder.
    """
    root = root_of(data)
    if test_only:
        return {"test": _list(root, data.test_folder, "data.test_folder")}
    train = _list(root, data.train_folder, "data.train_folder")
    if data.test_fraction is None:
        sets = {"train": train, "test": _list(root, data.test_folder, "data.test_folder")}
    else:
        sets = _set_aside(train, data)
    if len(train.classes) < 2:
        raise UserError(
            f"{train.folder} holds a single class, {train.classes[0]}; "
            "give at least two class folders, or another data.root= or data.train_folder="
        )
    if data.val_folder not in (None, NO_FOLDER):
        sets["val"] = _list(root, str(data.val_folder), "data.val_folder")
    for name in [name for name in sets if name != "train"]:
        for other in sets.keys() - {name}:
            _refuse_overlap(sets[name], sets[other], f"data.{name}_folder")
        sets[name] = _in_classes_of(sets[name], train, f"data.{name}_folder")
    return sets


def _list(root: Path, name: str, key: str) -> Listing:
    folder = root / name
    fix = f"give data.root=FOLDER that holds {folder.name}/<class>/*, or {key}=NAME"
    if key == "data.test_folder":
        fix += f", or data.test_fraction={TEST_FRACTION} to test on a share of the training images"
    return list_classes(folder, fix)


def _set_aside(listing: Listing, data: DataConfig) -> dict[str, Listing]:
    """Training and test images of one folder, the same for all runs of a comparison."""
    assert data.test_fraction is not None
    given = f"data.test_fraction={data.test_fraction}"
    if round(np.bincount(listing.labels).max() * data.test_fraction) == 0:
        raise UserError(f"{given}: leaves no image of any class for the test; use a larger share")
    kept, held = split(listing.labels, data.test_fraction, None, data.split_seed)
    if len(kept) == 0:
        raise UserError(f"{given}: leaves no image to train on; use a smaller share")
    return {"train": replace(listing.of(kept), found=listing.found), "test": listing.of(held)}


def _in_classes_of(listing: Listing, train: Listing, key: str) -> Listing:
    """The same files with labels by the classes of the training images."""
    places = {same_name(name): place for place, name in enumerate(train.classes)}
    if odd := [name for name in listing.classes if same_name(name) not in places]:
        raise UserError(
            f"{listing.folder / odd[0]} is a class that {train.folder} does not have; "
            f"rename or remove it, or give another data.train_folder= or {key}="
        )
    index = np.array([places[same_name(name)] for name in listing.classes], dtype=np.int64)
    return replace(listing, classes=train.classes, labels=index[listing.labels])


def _refuse_overlap(listing: Listing, other: Listing, key: str) -> None:
    """Raise a UserError where a folder of images, by whatever name or link, is in both."""
    if listing.found.folders & other.found.folders:
        rest = f", or {key}={NO_FOLDER}" if key == "data.val_folder" else ""
        raise UserError(
            f"{key}={listing.folder.name}: {listing.folder} and "
            f"{other.folder} hold the same folders, so that images would be scored that "
            f"are not new; give {key}=NAME of a folder of its own, beside the other{rest}"
        )


def notes_of(sets: Mapping[str, Listing], data: DataConfig) -> list[str]:
    """What a person should know of the files, one sentence each.

    Args:
        data: settled.
    """
    root, notes = root_of(data), []
    others: list[str] = []
    left_out: list[str] = []
    for listing in sets.values():
        prefix = "" if listing.folder == root_of(data) else f"{listing.folder.name}/"
        others += [prefix + name for name in listing.found.others]
        left_out += [prefix + name for name in listing.found.left_out]
    if "train" in sets and data.test_fraction is not None:
        notes.append(
            f"no test folder in {root}: of each class a share of data.test_fraction="
            f"{data.test_fraction} is set aside for the test, drawn by data.split_seed="
            f"{data.split_seed}"
        )
    if "val" in sets:
        notes.append(
            f"the validation images are those of {sets['val'].folder}, "
            f"data.val_folder={data.val_folder}"
        )
    if others:
        notes.append(
            f"ignored what is no image or lies in no class, {len(others):,} in all: {few(others)}"
        )
    if left_out:
        notes.append(f"left out folders without images of a class: {few(left_out)}")
    for name, listing in sets.items():
        notes += without_images(listing.classes, listing.labels, name)
    return notes


def without_images(classes: Sequence[str], labels: np.ndarray, name: str) -> list[str]:
    """A sentence that names the classes of which there are no images, if any.

    Args:
        labels: int64 [N], indices into the classes.
        name: of the set, ``train``, ``val`` or ``test``.
    """
    counts = np.bincount(labels, minlength=len(classes))
    lacking = [each for each, count in zip(classes, counts, strict=True) if count == 0]
    if not lacking:
        return []
    return [
        f"no {SET_NAMES[name]} images of {len(lacking)} of {len(classes)} classes: "
        f"{few(lacking, 10)}"
    ]
