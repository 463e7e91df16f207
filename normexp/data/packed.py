"""The packed images of a cache folder: mapped, and checked against what was packed.

``meta.json`` vouches for itself and for the labels, ``<set>_images.sums`` for the pixels, block by
block; the fingerprint for all pixels, labels and names of classes.
"""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from normexp.data.images import Dataset, ImageSet
from normexp.data.layout import SET_NAMES
from normexp.data.levels import Levels
from normexp.data.packing import checksums, is_sound

log = logging.getLogger(__name__)


def write_meta(folder: Path, meta: dict[str, Any]) -> None:
    """Write what is to be known of packed images; their labels have been written."""
    for name in _sets(meta):
        meta[f"{name}_labels"] = _sum_of_labels(np.load(folder / f"{name}_labels.npy"))
    content = json.dumps(meta | {"checksum": _checksum(meta)}, indent=1)
    (folder / "meta.json").write_text(content, encoding="utf-8")


def read(
    folder: Path, version: int, size: int, every: bool = False, level: int = logging.WARNING
) -> Dataset | None:
    """The packed images of a cache folder; None if there are none or not whole ones.

    Args:
        version: of the cache.
        size: pixels on a side.
        every: check all images and not a sample.
        level: at which it is logged that they are not whole.
    """
    try:
        for path in folder.glob("*"):
            if not path.is_file():  # opening a FIFO would wait for ever
                raise ValueError(f"{path.name} is no file")
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        if meta["schema_version"] != version:
            return None
        if meta.pop("checksum") != _checksum(meta):
            raise ValueError("the checksum of meta.json does not match")
        classes = tuple(str(name) for name in meta["classes"])
        mean, std = ([float(value) for value in meta[key]] for key in ("mean", "std"))
        sets = {name: _map_set(folder, name, meta, size, len(classes)) for name in _sets(meta)}
        if every and _fingerprint(classes, sets) != meta["sha256"]:
            raise ValueError("images are not what was packed")
        return Dataset(
            train=sets.get("train", sets["test"]),
            test=sets["test"],
            classes=classes,
            mean=(mean[0], mean[1], mean[2]),
            std=(std[0], std[1], std[2]),
            fingerprint=str(meta["sha256"]),
            val=sets.get("val"),
            levels=None if meta["levels"] is None else Levels(**meta["levels"]),
            notes=tuple(map(str, meta["notes"])),
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, IndexError, EOFError) as error:
        log.log(level, "the packed images in %s are damaged (%s): packing anew", folder, error)
        return None


def _sets(meta: Mapping[str, Any]) -> list[str]:
    """The sets that there are, in the order in which they were packed."""
    return [name for key in meta if (name := key.removesuffix("_images")) in SET_NAMES]


def _map_set(folder: Path, name: str, meta: Mapping[str, Any], size: int, classes: int) -> ImageSet:
    images = np.load(folder / f"{name}_images.npy", mmap_mode="c")
    labels = np.load(folder / f"{name}_labels.npy")
    count = meta[f"{name}_images"]
    if images.shape != (count, 3, size, size) or images.dtype != np.uint8:
        raise ValueError(f"{name}_images.npy has {images.dtype} {images.shape}")
    if labels.shape != (count,) or labels.dtype != np.int64:
        raise ValueError(f"{name}_labels.npy has {labels.dtype} {labels.shape}")
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"{name}_labels.npy has labels outside the classes")
    if _sum_of_labels(labels) != meta[f"{name}_labels"]:
        raise ValueError(f"the checksum of {name}_labels.npy does not match")
    if not is_sound(images, checksums(folder / f"{name}_images.npy")):
        raise ValueError(f"a checksum of {name}_images.npy does not match")
    return ImageSet(images, labels)


def _checksum(meta: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()


def _sum_of_labels(labels: np.ndarray) -> str:
    return hashlib.sha256(labels.astype("<i8").tobytes()).hexdigest()


def _fingerprint(classes: Sequence[str], sets: Mapping[str, ImageSet]) -> str:
    """As packing makes it in passing."""
    digest = hashlib.sha256(json.dumps(classes).encode())
    for part in sets.values():
        digest.update(repr(part.images.shape).encode())
        digest.update(part.images.data)
        digest.update(part.labels.astype("<i8").tobytes())
    return digest.hexdigest()
