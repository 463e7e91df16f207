"""What folders hold: which files are images, in which classes, and what is left out."""

import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np

from normexp.data.decoding import ENDINGS, is_image
from normexp.data.salvage import File
from normexp.system.errors import UserError
from normexp.system.printable import printable

NOT_OF_PEOPLE = frozenset(
    ("__MACOSX", "@eaDir", "@Recycle", "#recycle", "$RECYCLE.BIN", "System Volume Information")
)
"""Folders that archives, file servers and bins make, with thumbnails and what was thrown away."""


@dataclass
class Found:
    """What is in a folder and below it; names that begin with a dot are passed over."""

    images: list[File] = field(default_factory=list)
    """By the paths of their folders and then by name, as torchvision has them."""
    others: list[str] = field(default_factory=list)
    """Files that are no images: their paths relative to the folder, as the next."""
    left_out: list[str] = field(default_factory=list)
    """Folders that were not looked into."""
    folders: set[tuple[int, int]] = field(default_factory=set)
    """Device and inode of those that images lie in."""
    closed: list[OSError] = field(default_factory=list)
    """Why folders cannot be read."""


@dataclass(frozen=True)
class Listing:
    """The image files of the class folders in one folder, in the order of their classes."""

    folder: Path
    classes: tuple[str, ...]
    files: tuple[File, ...]
    labels: np.ndarray
    """int64 [N]: indices into ``classes``."""
    found: Found
    """All there is, those that are in no class too."""

    def of(self, places: np.ndarray) -> "Listing":
        """Some of the files, and nothing of what is left out."""
        files = tuple(self.files[place] for place in places)
        return Listing(self.folder, self.classes, files, self.labels[places], Found())


def look_into(folder: Path) -> Found:
    """All images in a folder and in those below it; links are followed, but in no circle."""
    by_folder: dict[str, list[File]] = {}
    found = Found()
    _look_into(str(folder), "", frozenset(), by_folder, found)
    for name in sorted(by_folder):
        found.images += by_folder[name]
    return found


def _look_into(
    path: str, prefix: str, above: frozenset[tuple[int, int]], by_folder: dict[str, list[File]],
    found: Found,
) -> None:  # fmt: skip
    try:
        status = os.stat(path)
        entries = visible(path)
    except OSError as error:
        found.closed.append(error)
        return
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        return
    images = []
    for entry in entries:
        name = f"{prefix}{entry.name}"
        if entry.is_dir():
            if entry.name in NOT_OF_PEOPLE:
                found.left_out.append(name)
            else:
                _look_into(entry.path, f"{name}/", above | {identity}, by_folder, found)
        elif entry.is_file() and _is_image(entry):
            status = entry.stat()
            images.append((name, status.st_size, status.st_mtime_ns))
        else:
            found.others.append(name)
    if images:
        by_folder[prefix.rstrip("/")] = images
        found.folders.add(identity)


def visible(folder: str | Path) -> list[os.DirEntry[str]]:
    """What is in a folder but for names that begin with a dot, sorted by name."""
    with os.scandir(folder) as entries:
        kept = [entry for entry in entries if not entry.name.startswith(".")]
    return sorted(kept, key=lambda entry: entry.name)


def _is_image(entry: os.DirEntry[str]) -> bool:
    if os.path.splitext(entry.name)[1].lower() in ENDINGS:
        return True
    status = entry.stat()
    return _looks_like_one(entry.path, status.st_size, status.st_mtime_ns)


@cache
def _looks_like_one(path: str, size: int, changed: int) -> bool:
    return size > 0 and is_image(path)


def list_classes(folder: Path, fix: str) -> Listing:
    """The images in the class folders of a folder.

    Folders without images are no classes, and files beside class folders are no images.

    Args:
        fix: what to do if there are none.

    Raises:
        UserError: the folder cannot be read or holds no images; two classes have one name, or a
            class has a name that is no text.
    """
    found = Found()
    classes: list[str] = []
    counts: list[int] = []
    try:
        for entry in visible(folder):
            inside = Found()
            if not entry.is_dir():
                found.others.append(entry.name)
                continue
            if entry.name not in NOT_OF_PEOPLE:
                inside = look_into(folder / entry.name)
                for error in inside.closed:
                    raise error
            if inside.images:
                classes.append(_text(folder, entry.name))
                counts.append(len(inside.images))
            else:
                found.left_out.append(entry.name)
            prefix = f"{entry.name}/"
            found.images += [(prefix + name, size, time) for name, size, time in inside.images]
            found.others += [prefix + name for name in inside.others]
            found.left_out += [prefix + name for name in inside.left_out if inside.images]
            found.folders |= inside.folders
    except OSError as error:
        reason = error.strerror or error
        where = printable(str(error.filename or folder))
        raise UserError(f"cannot read {where}: {reason}; {fix}") from error
    if not found.images:
        more = f", but {few(found.others)}" if found.others else ""
        raise UserError(f"{folder} holds no images in class folders{more}; {fix}")
    _refuse_equal_names(folder, classes)
    labels = np.repeat(np.arange(len(classes), dtype=np.int64), counts)
    return Listing(folder, tuple(classes), tuple(found.images), labels, found)


def _text(folder: Path, name: str) -> str:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{printable(str(folder / name))}: the name of this class is no text in UTF-8; "
            "rename the folder"
        ) from error
    return name


def _refuse_equal_names(folder: Path, classes: Sequence[str]) -> None:
    known: dict[str, str] = {}
    for name in classes:
        other = known.setdefault(same_name(name), name)
        if other != name:
            raise UserError(
                f"{folder} holds the classes {other!a} and {name!a}, which are one "
                "name in two spellings of Unicode; join them, or rename one"
            )


def same_name(name: str) -> str:
    """Equal for names that only differ in how Unicode composes their letters, as macOS and Linux
    do."""
    return unicodedata.normalize("NFC", name)


def few(names: Sequence[str], most: int = 3) -> str:
    """The first names, and how many more there are."""
    more = len(names) - most
    shown = ", ".join(map(printable, names[:most]))
    return f"{shown} and {more:,} more" if more > 0 else shown
