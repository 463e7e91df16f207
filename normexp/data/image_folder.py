"""Any images laid out as ``<root>/train/<class>/*`` and ``<root>/test/<class>/*``.

They are decoded and resized once and packed into uint8 arrays in a cache folder; later runs map
those at once, so that they may be larger than memory, and check a sample against its checksums. A
change of any file's name, size or time of change packs them anew, and so does damage; packing that
was killed goes on where it was. Images that cannot be read are named together, once all were tried;
the next packing keeps what the others gave.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from normexp.config.schema import DataConfig
from normexp.data import packed
from normexp.data.decoders import MEASURED, Decoder, Measured, measure_all
from normexp.data.decoding import LevelsWanted
from normexp.data.files import disk_errors, locked
from normexp.data.images import Dataset, count_levels, mean_and_std
from normexp.data.layout import SET_NAMES, notes_of, root_of, sets_of, settle
from normexp.data.levels import Levels
from normexp.data.listing import Listing
from normexp.data.packing import pack
from normexp.data.salvage import Salvage, leave
from normexp.system.errors import UserError

SCHEMA_VERSION = 4
"""Of the cache; to be raised when what is packed for the same files changes."""

Sets = Mapping[str, Listing]
"""The files of ``train``, ``test`` and perhaps ``val``, or of ``test`` alone."""

log = logging.getLogger(__name__)

# Fingerprints by (folders, size, cache): a sweep asks for the same one for each of its runs.
_known_fingerprints: dict[tuple[object, ...], str] = {}


def load(
    data: DataConfig, *, progress: bool = True, levels: Levels | None = None,
    test_only: bool = False, every: bool = False,
) -> Dataset:  # fmt: skip
    """Map the packed images, packing them first where that has not been done or they are damaged.

    Images become RGB, on white, upright and ``data.image_size`` pixels square (not cropped:
    resized), uint8 [N, 3, S, S]. Classes are the sorted names of the training folder's sub-folders
    that hold images.

    Args:
        levels: black and white of images of more than 8 bits a channel, where a run brings its own;
            by default they are found from the training images.
        test_only: of a folder that holds test images and nothing to train on, which then stand in
            the place of training images too.
        every: check all of the packed images and not a sample.

    Raises:
        UserError: a folder is missing or holds no images; there is but one class; a class of test
            is not one of train; the same images are in both; images cannot be decoded; the cache
            cannot be written.
    """
    data, _ = settle(data)
    sets = sets_of(data, test_only)
    folder = _cache_folder(data) / _cache_key(data, sets)
    dataset = packed.read(folder, SCHEMA_VERSION, data.image_size, every)
    if levels is not None and (dataset is None or dataset.levels not in (None, levels)):
        folder = _cache_folder(data) / _cache_key(data, sets, levels)
        dataset = packed.read(folder, SCHEMA_VERSION, data.image_size, every)
    if dataset is None:
        _pack_once(folder, sets, data, progress, levels)
        dataset = packed.read(folder, SCHEMA_VERSION, data.image_size)
        if dataset is None:
            raise UserError(f"{folder} cannot be read back; give data.cache=FOLDER on another disk")
    if levels is None and not test_only:
        _known_fingerprints[_memo_key(data)] = dataset.fingerprint
    return replace(dataset, notes=(*notes_of(sets, data), *dataset.notes))


def fingerprint(data: DataConfig) -> str:
    """A hash of pixels, labels and class names, wherever they lie; packs them if need be.

    Asked for the same folders again, this process gives the same answer without looking.

    Raises:
        UserError: as :func:`load`.
    """
    key = _memo_key(settle(data)[0])
    if key not in _known_fingerprints:
        load(data)
    return _known_fingerprints[key]


def place(data: DataConfig) -> Path:
    """The folder of the packed images."""
    data, _ = settle(data)
    return _cache_folder(data) / _cache_key(data, sets_of(data))


def _memo_key(data: DataConfig) -> tuple[object, ...]:
    folders = (data.train_folder, data.test_folder, data.val_folder)
    drawn = None if data.test_fraction is None else (data.test_fraction, data.split_seed)
    return root_of(data), folders, drawn, data.image_size, _cache_folder(data)


# --- The cache -----------------------------------------------------------------------------------


def _cache_folder(data: DataConfig) -> Path:
    cache = data.cache or os.environ.get("NORMEXP_CACHE")
    if not cache:
        cache = os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "normexp")
    return Path(os.path.abspath(os.path.expanduser(cache)))


def _cache_key(data: DataConfig, sets: Sets, levels: Levels | None = None) -> str:
    """Of the files and what is made of them.

    The folders' own paths count: names, sizes and times alone can agree between different data
    sets, as those of uncompressed images unpacked from an archive with fixed times do.
    """
    digest = hashlib.sha256(f"{SCHEMA_VERSION} {data.image_size} {levels}".encode())
    for name, part in sets.items():
        files = (name, os.path.realpath(part.folder), part.classes, part.files)
        digest.update(repr(files).encode())
    return digest.hexdigest()[:32]


def _folders_key(data: DataConfig, sets: Sets, levels: Levels | None) -> str:
    """Of the folders, whatever lies in them, and what is made of it."""
    folders = [(name, os.path.realpath(part.folder)) for name, part in sets.items()]
    key = repr((SCHEMA_VERSION, data.image_size, levels, folders))
    return hashlib.sha256(key.encode()).hexdigest()[:32]


# --- Packing -------------------------------------------------------------------------------------


def _pack_once(
    folder: Path, sets: Sets, data: DataConfig, progress: bool, levels: Levels | None
) -> None:
    """Pack into ``folder``; of two runs at once one does the work."""
    cache = folder.parent
    damaged = folder.exists()
    with disk_errors(cache, "give data.cache=FOLDER with room to write to"):
        cache.mkdir(parents=True, exist_ok=True)
        with locked(cache / f"{folder.name}.lock"):
            # Another run may have packed them meanwhile; a sample could miss what is damaged.
            again = packed.read(folder, SCHEMA_VERSION, data.image_size, damaged, logging.DEBUG)
            if again is not None:
                return
            # What a killed run left there is of the same files, by which the folder is named.
            part = cache / f"{folder.name}.part"
            part.mkdir(exist_ok=True)
            for listing in sets.values():
                log.info("packing %d images of %s", len(listing.files), listing.folder)
            try:
                salvage = _pack(part, sets, data, progress, levels)
            except OSError:  # the disk is to be seen to: nothing to keep
                shutil.rmtree(part, ignore_errors=True)
                raise
            if folder.exists():
                shutil.rmtree(folder)
            os.replace(part, folder)
            shutil.rmtree(salvage, ignore_errors=True)


def _pack(part: Path, sets: Sets, data: DataConfig, progress: bool, given: Levels | None) -> Path:
    """Pack into ``part``; the folder of what an earlier packing had decoded.

    Raises:
        UserError: images cannot be read; what the others gave is in that folder.
    """
    total = sum(len(listing.files) for listing in sets.values())
    disable = None if progress else True  # None: silent when the output is not a terminal.
    measured = Measured.left_in(part)
    while True:
        levels = measured.levels if measured else None
        # Whatever the files: those that could not be read will have changed.
        salvage = part.parent / f"{_folders_key(data, sets, levels)}.salvage"
        unreadable: dict[Path, str] = {}
        try:
            with tqdm(total=total, desc="packing images", unit="img", disable=disable) as bar:
                decoders = {
                    name: Decoder(
                        listing, data.image_size, levels, Salvage(salvage, name), unreadable
                    )
                    for name, listing in sets.items()
                }
                meta = _pack_sets(part, decoders, bar)
            break
        except LevelsWanted:  # Blocks before it are whole, and kept.
            with tqdm(total=total, desc="looking for black and white", unit="img",
                      disable=disable) as bar:  # fmt: skip
                measured = measure_all(sets, given, bar)
            measured.leave_in(part)
    if unreadable:
        files = {name: (listing.folder, listing.files) for name, listing in sets.items()}
        raise leave(part, salvage, files, unreadable)
    meta["levels"] = asdict(levels) if levels else None
    meta["notes"] += measured.notes if measured else []
    packed.write_meta(part, meta)
    for needed_while_packing in part.glob(MEASURED):
        needed_while_packing.unlink()
    return salvage


def _pack_sets(target: Path, decoders: Mapping[str, Decoder], bar: Any) -> dict[str, Any]:
    """Pack the images of all sets; what meta.json says of them."""
    sets = {name: decoder.listing for name, decoder in decoders.items()}
    classes = next(iter(sets.values())).classes
    digest = hashlib.sha256(json.dumps(classes).encode())
    counts: dict[str, np.ndarray] = {}
    pixels: dict[str, list[bytes]] = {}
    for name, decoder in decoders.items():
        counts[name], pixels[name] = _pack_set(target, name, decoder, digest, bar)
    first = next(iter(counts))
    mean, std = mean_and_std(counts[first])
    return {
        "schema_version": SCHEMA_VERSION,
        "classes": classes,
        **{f"{name}_images": len(listing.files) for name, listing in sets.items()},
        "image_size": decoders[first].size,
        "mean": mean,
        "std": std,
        "sha256": digest.hexdigest(),
        "source": [str(listing.folder) for listing in sets.values()],
        "notes": _of_both(pixels),
    }


def _of_both(pixels: Mapping[str, list[bytes]]) -> list[str]:
    """Sentences that tell how many images of a set are among the training images too.

    Args:
        pixels: hashes of the packed images of each set.
    """
    notes = []
    known = set(pixels.get("train", ()))
    for name, hashes in pixels.items():
        count = sum(each in known for each in hashes) if name != "train" else 0
        if count:
            notes.append(
                f"among the training images too: {count:,} of {len(hashes):,} {SET_NAMES[name]} "
                "images"
            )
    return notes


def _pack_set(
    target: Path, name: str, decoder: Decoder, digest: Any, bar: Any
) -> tuple[np.ndarray, list[bytes]]:
    """Write ``<name>_images.npy`` and ``<name>_labels.npy``.

    Returns:
        How often each level occurs in each channel, int64 [3, 256], and a hash of each image.
    """
    counts = np.zeros((3, 256), dtype=np.int64)
    hashes: list[bytes] = []
    labels = decoder.listing.labels
    shape = (len(labels), 3, decoder.size, decoder.size)
    digest.update(repr(shape).encode())
    for images in pack(target / f"{name}_images.npy", shape, decoder.blocks):
        digest.update(images.data)
        counts += count_levels(images)
        hashes += [hashlib.sha1(image.data, usedforsecurity=False).digest() for image in images]
        bar.update(len(images))
    np.save(target / f"{name}_labels.npy", labels)
    digest.update(labels.astype("<i8").tobytes())
    return counts, hashes
