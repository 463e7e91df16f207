"""Any images laid out as ``<root>/train/<class>/*`` and ``<root>/test/<class>/*``.

They are decoded and resized once and packed into uint8 arrays in a cache folder; later runs map
those at once, so that they may be larger than memory. A change of any file's name, size or time of
change packs them anew; packing that was killed goes on where it was. Images that cannot be read
are named together, once all were tried; the next packing keeps what the others gave.
"""

import hashlib
import json
import logging
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from tqdm import tqdm

from normexp.config import DataConfig
from normexp.data.decoding import EXTENSIONS, UnreadableImage, decode
from normexp.data.files import disk_errors, locked
from normexp.data.images import Dataset, ImageSet, count_levels, mean_and_std
from normexp.data.packing import BLOCK, pack
from normexp.data.salvage import File, Salvage, leave
from normexp.errors import UserError
from normexp.printable import printable

SCHEMA_VERSION = 3
"""Of the cache; to be raised when what is packed for the same files changes."""

# Bytes. Pillow reads headers in Python, one thread at a time: threads slow small images down.
_SMALL_FILE = 16_384

log = logging.getLogger(__name__)

# Fingerprints by (folders, size, cache): a sweep asks for the same one for each of its runs.
_known_fingerprints: dict[tuple[object, ...], str] = {}


@dataclass(frozen=True)
class _Listing:
    """The image files of one folder, sorted by class and name."""

    folder: Path
    classes: tuple[str, ...]
    files: tuple[File, ...]
    labels: np.ndarray
    """int64 [N]: indices into ``classes``."""
    ignored: int
    """How many files are no images by their names."""


def load(data: DataConfig, *, progress: bool = True) -> Dataset:
    """Map the packed images, packing them first where that has not been done.

    Images become RGB, on white, upright and ``data.image_size`` pixels square (not cropped:
    resized), uint8 [N, 3, S, S]. Classes are the sorted names of the training folder's sub-folders.

    Raises:
        UserError: a folder is missing or holds no images; there is but one class; a class of test
            is not one of train; images cannot be decoded; the cache cannot be written.
    """
    train, test = _list_both(data)
    folder = _cache_folder(data) / _cache_key(data, train, test)
    dataset = _map(folder, data.image_size)
    if dataset is None:
        _pack_once(folder, train, test, data, progress)
        dataset = _map(folder, data.image_size)
        if dataset is None:
            raise UserError(f"{folder} cannot be read back; give data.cache=FOLDER on another disk")
    _known_fingerprints[_memo_key(data)] = dataset.fingerprint
    return dataset


def fingerprint(data: DataConfig) -> str:
    """A hash of pixels, labels and class names, wherever they lie; packs them if need be.

    Asked for the same folders again, this process gives the same answer without looking.

    Raises:
        UserError: as :func:`load`.
    """
    key = _memo_key(data)
    if key not in _known_fingerprints:
        load(data)
    return _known_fingerprints[key]


def place(data: DataConfig) -> Path:
    """The folder of the packed images."""
    return _cache_folder(data) / _cache_key(data, *_list_both(data))


def _memo_key(data: DataConfig) -> tuple[object, ...]:
    root = os.path.abspath(os.path.expanduser(data.root))
    return root, data.train_folder, data.test_folder, data.image_size, _cache_folder(data)


# --- What there is -------------------------------------------------------------------------------


def _list_both(data: DataConfig) -> tuple[_Listing, _Listing]:
    root = Path(os.path.abspath(os.path.expanduser(data.root)))
    train = _list(root / data.train_folder, "data.train_folder")
    test = _list(root / data.test_folder, "data.test_folder")
    if len(train.classes) < 2:
        raise UserError(
            f"{train.folder} holds a single class, {train.classes[0]}; "
            "give at least two class folders, or another data.root= or data.train_folder="
        )
    if odd := sorted(set(test.classes) - set(train.classes)):
        raise UserError(
            f"{test.folder / odd[0]} is a class that {train.folder} does not have; "
            "rename or remove it, or give another data.train_folder= or data.test_folder="
        )
    index = np.array([train.classes.index(name) for name in test.classes])
    return train, _Listing(
        test.folder, train.classes, test.files, index[test.labels].astype(np.int64), test.ignored
    )


def _list(folder: Path, key: str) -> _Listing:
    fix = f"give data.root=FOLDER that holds {folder.name}/<class>/*, or {key}=NAME"
    try:
        entries = _visible(folder)
        classes = tuple(sorted(entry.name for entry in entries if entry.is_dir()))
        files, labels = [], []
        ignored = len(entries) - len(classes)
        for label, name in enumerate(classes):
            inside = _visible(folder / name)
            found = sorted(
                (f"{name}/{entry.name}", status.st_size, status.st_mtime_ns)
                for entry in inside
                if os.path.splitext(entry.name)[1].lower() in EXTENSIONS and entry.is_file()
                for status in (entry.stat(),)
            )
            files += found
            labels += [label] * len(found)
            ignored += len(inside) - len(found)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"cannot read {error.filename or folder}: {reason}; {fix}") from error
    if not files:
        raise UserError(f"{folder} holds no images in class folders; {fix}")
    return _Listing(folder, classes, tuple(files), np.array(labels, dtype=np.int64), ignored)


def _visible(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return [entry for entry in entries if not entry.name.startswith(".")]


# --- The cache -----------------------------------------------------------------------------------


def _cache_folder(data: DataConfig) -> Path:
    cache = data.cache or os.environ.get("NORMEXP_CACHE")
    if not cache:
        cache = os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "normexp")
    return Path(os.path.abspath(os.path.expanduser(cache)))


def _cache_key(data: DataConfig, train: _Listing, test: _Listing) -> str:
    """Of the files and what is made of them.

    The folders' own paths count: names, sizes and times alone can agree between different data
    sets, as those of uncompressed images unpacked from an archive with fixed times do.
    """
    digest = hashlib.sha256(f"{SCHEMA_VERSION} {data.image_size}".encode())
    for part in (train, test):
        digest.update(repr((os.path.realpath(part.folder), part.classes, part.files)).encode())
    return digest.hexdigest()[:32]


def _folders_key(data: DataConfig, train: _Listing, test: _Listing) -> str:
    """Of the folders, whatever lies in them, and what is made of it."""
    folders = [os.path.realpath(part.folder) for part in (train, test)]
    key = repr((SCHEMA_VERSION, data.image_size, folders))
    return hashlib.sha256(key.encode()).hexdigest()[:32]


def _map(folder: Path, size: int) -> Dataset | None:
    """The packed images of a cache folder; None if there are none or not whole ones."""
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        if meta["schema_version"] != SCHEMA_VERSION:
            return None
        classes = tuple(str(name) for name in meta["classes"])
        mean, std = ([float(value) for value in meta[key]] for key in ("mean", "std"))
        return Dataset(
            train=_map_set(folder, "train", meta["train_images"], size, len(classes)),
            test=_map_set(folder, "test", meta["test_images"], size, len(classes)),
            classes=classes,
            mean=(mean[0], mean[1], mean[2]),
            std=(std[0], std[1], std[2]),
            fingerprint=str(meta["sha256"]),
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, IndexError, EOFError) as error:
        log.warning("the packed images in %s are broken (%s)", folder, error)
        return None


def _map_set(folder: Path, part: str, count: int, size: int, classes: int) -> ImageSet:
    images = np.load(folder / f"{part}_images.npy", mmap_mode="c")
    labels = np.load(folder / f"{part}_labels.npy")
    if images.shape != (count, 3, size, size) or images.dtype != np.uint8:
        raise ValueError(f"{part}_images.npy has {images.dtype} {images.shape}")
    if labels.shape != (count,) or labels.dtype != np.int64:
        raise ValueError(f"{part}_labels.npy has {labels.dtype} {labels.shape}")
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"{part}_labels.npy has labels outside the classes")
    return ImageSet(images, labels)


# --- Packing -------------------------------------------------------------------------------------


def _pack_once(
    folder: Path, train: _Listing, test: _Listing, data: DataConfig, progress: bool
) -> None:
    """Pack into ``folder``; of two runs at once one does the work."""
    cache = folder.parent
    with disk_errors(cache, "give data.cache=FOLDER with room to write to"):
        cache.mkdir(parents=True, exist_ok=True)
        with locked(cache / f"{folder.name}.lock"):
            if _map(folder, data.image_size) is not None:
                return
            # What a killed run left there is of the same files, by which the folder is named.
            part = cache / f"{folder.name}.part"
            part.mkdir(exist_ok=True)
            # Whatever the files: those that could not be read will have changed.
            salvage = cache / f"{_folders_key(data, train, test)}.salvage"
            try:
                unreadable = _pack(part, train, test, data.image_size, progress, salvage)
                if unreadable:
                    sets = {"train": (train.folder, train.files), "test": (test.folder, test.files)}
                    raise leave(part, salvage, sets, unreadable)
            except OSError:  # the disk is to be seen to: nothing to keep
                shutil.rmtree(part, ignore_errors=True)
                raise
            if folder.exists():
                shutil.rmtree(folder)
            os.replace(part, folder)
            shutil.rmtree(salvage, ignore_errors=True)


def _pack(
    target: Path, train: _Listing, test: _Listing, size: int, progress: bool, salvage: Path
) -> dict[Path, str]:
    """Pack into ``target``; why images cannot be read, by path: nothing is finished then."""
    _report(train, test)
    digest = hashlib.sha256(json.dumps(train.classes).encode())
    disable = None if progress else True  # None: silent when the output is not a terminal.
    total = len(train.files) + len(test.files)
    counts: dict[str, np.ndarray] = {}
    unreadable: dict[Path, str] = {}
    with tqdm(total=total, desc="packing images", unit="img", disable=disable) as bar:
        for name, listing in (("train", train), ("test", test)):
            decoder = _Decoder(listing, size, Salvage(salvage, name), unreadable)
            counts[name] = _pack_set(target, name, decoder, digest, bar)
    if unreadable:
        return unreadable
    mean, std = mean_and_std(counts["train"])
    meta = {
        "schema_version": SCHEMA_VERSION,
        "classes": train.classes,
        "train_images": len(train.files),
        "test_images": len(test.files),
        "image_size": size,
        "mean": mean,
        "std": std,
        "sha256": digest.hexdigest(),
        "source": [str(train.folder), str(test.folder)],
    }
    (target / "meta.json").write_text(json.dumps(meta, indent=1), encoding="utf-8")
    for sums in target.glob("*.sums"):  # needed while packing only
        sums.unlink()
    return {}


def _report(train: _Listing, test: _Listing) -> None:
    for part in (train, test):
        log.info("packing %d images of %s", len(part.files), part.folder)
        if part.ignored:
            log.info("ignored %d entries of %s that are no images", part.ignored, part.folder)
    present = np.bincount(train.labels, minlength=len(train.classes))
    for name in (name for name, count in zip(train.classes, present, strict=True) if count == 0):
        folder = printable(str(train.folder / name))
        log.warning("%s holds no images: nothing to learn this class from", folder)


@dataclass(frozen=True)
class _Decoder:
    """Decodes the images of one listing."""

    listing: _Listing
    size: int
    salvage: Salvage
    unreadable: dict[Path, str]
    """Why, by path: those met so far, of other listings too."""

    def blocks(self, first: int) -> Iterator[tuple[np.ndarray, bool]]:
        """As :func:`pack` asks for them, the images from ``first`` on."""
        files = self.listing.files
        blocks = (files[start : start + BLOCK] for start in range(first, len(files), BLOCK))
        mean_bytes = sum(count for _, count, _ in files) / len(files)
        workers = 1 if mean_bytes < _SMALL_FILE else os.cpu_count() or 1
        with ThreadPoolExecutor(workers) as pool:
            yield from _in_order(pool, 2 * workers, self._block, blocks)

    def _block(self, files: Sequence[File]) -> tuple[np.ndarray, bool]:
        """uint8 [n, 3, S, S], zeros for what cannot be read; and whether all could."""
        images = np.zeros((len(files), 3, self.size, self.size), dtype=np.uint8)
        whole = True
        for image, file in zip(images, files, strict=True):
            path = self.listing.folder / file[0]
            known = self.salvage.get(file)
            try:
                image[:] = decode(path, self.size) if known is None else known
            except UnreadableImage as error:
                self.unreadable[path] = error.reason
                whole = False
        return images, whole


def _pack_set(target: Path, name: str, decoder: _Decoder, digest: Any, bar: Any) -> np.ndarray:
    """Write ``<name>_images.npy`` and ``<name>_labels.npy``.

    Returns:
        How often each level occurs in each channel, int64 [3, 256].
    """
    counts = np.zeros((3, 256), dtype=np.int64)
    labels = decoder.listing.labels
    shape = (len(labels), 3, decoder.size, decoder.size)
    digest.update(repr(shape).encode())
    for images in pack(target / f"{name}_images.npy", shape, decoder.blocks):
        digest.update(images.data)
        counts += count_levels(images)
        bar.update(len(images))
    np.save(target / f"{name}_labels.npy", labels)
    digest.update(labels.astype("<i8").tobytes())
    return counts


_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def _in_order(
    pool: ThreadPoolExecutor,
    ahead: int,
    function: Callable[[_Item], _Result],
    items: Iterable[_Item],
) -> Iterator[_Result]:
    """``pool.map`` that starts ``ahead`` calls at most, so that results do not pile up."""
    pending: deque[Future[_Result]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()
