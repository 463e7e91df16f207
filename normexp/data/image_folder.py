"""Any images laid out as ``<root>/train/<class>/*`` and ``<root>/test/<class>/*``.

They are decoded and resized once and packed into uint8 arrays in a cache folder; later runs map
those at once, so that they may be larger than memory. A change of any file's name, size or time of
change packs them anew; packing that was killed goes on where it was.
"""

import hashlib
import io
import json
import logging
import os
import shutil
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from normexp.config import DataConfig
from normexp.data.files import disk_errors, locked
from normexp.data.images import Dataset, ImageSet, count_levels, mean_and_std
from normexp.data.packing import BLOCK, pack
from normexp.errors import UserError

EXTENSIONS = frozenset(
    (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
)
SCHEMA_VERSION = 2
"""Of the cache; to be raised when what is packed for the same files changes."""

# Bytes. Pillow reads headers in Python, one thread at a time: threads slow small images down.
_SMALL_FILE = 16_384

# Pillow refuses what is twice as large: that is the one limit.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

log = logging.getLogger(__name__)

# Fingerprints by (folders, size, cache): a sweep asks for the same one for each of its runs.
_known_fingerprints: dict[tuple[object, ...], str] = {}


@dataclass(frozen=True)
class _Listing:
    """The image files of one folder, sorted by class and name."""

    folder: Path
    classes: tuple[str, ...]
    files: tuple[tuple[str, int, int], ...]
    """(path relative to the folder, size in bytes, time of change in ns)"""
    labels: np.ndarray
    """int64 [N]: indices into ``classes``."""
    ignored: int
    """How many files are no images by their names."""


def load(data: DataConfig, *, progress: bool = True) -> Dataset:
    """Map the packed images, packing them first where that has not been done.

    Images become RGB, upright and ``data.image_size`` pixels square (not cropped: resized), uint8
    [N, 3, S, S]. Classes are the sorted names of the training folder's sub-folders.

    Raises:
        UserError: a folder is missing or holds no images; there is but one class; a class of test
            is not one of train; an image cannot be decoded; the cache cannot be written.
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
            try:
                _pack(part, train, test, data.image_size, progress)
            except (UserError, OSError):  # a file or the disk is to be seen to: nothing to keep
                shutil.rmtree(part, ignore_errors=True)
                raise
            if folder.exists():
                shutil.rmtree(folder)
            os.replace(part, folder)


def _pack(target: Path, train: _Listing, test: _Listing, size: int, progress: bool) -> None:
    _report(train, test)
    digest = hashlib.sha256(json.dumps(train.classes).encode())
    disable = None if progress else True  # None: silent when the output is not a terminal.
    total = len(train.files) + len(test.files)
    with tqdm(total=total, desc="packing images", unit="img", disable=disable) as bar:
        counts = _pack_set(target, "train", train, size, digest, bar)
        _pack_set(target, "test", test, size, digest, bar)
    mean, std = mean_and_std(counts)
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


def _report(train: _Listing, test: _Listing) -> None:
    for part in (train, test):
        log.info("packing %d images of %s", len(part.files), part.folder)
        if part.ignored:
            log.info("ignored %d entries of %s that are no images", part.ignored, part.folder)
    present = np.bincount(train.labels, minlength=len(train.classes))
    for name in (name for name, count in zip(train.classes, present, strict=True) if count == 0):
        log.warning("%s holds no images: nothing to learn this class from", train.folder / name)


def _pack_set(
    target: Path, name: str, listing: _Listing, size: int, digest: Any, bar: Any
) -> np.ndarray:
    """Write ``<name>_images.npy`` and ``<name>_labels.npy``.

    Returns:
        How often each level occurs in each channel, int64 [3, 256].
    """
    counts = np.zeros((3, 256), dtype=np.int64)
    shape = (len(listing.files), 3, size, size)
    digest.update(repr(shape).encode())
    packed = target / f"{name}_images.npy"
    for images in pack(packed, shape, lambda first: _decode_all(listing, size, first)):
        digest.update(images.data)
        counts += count_levels(images)
        bar.update(len(images))
    np.save(target / f"{name}_labels.npy", listing.labels)
    digest.update(listing.labels.astype("<i8").tobytes())
    return counts


def _decode_all(listing: _Listing, size: int, first: int) -> Iterator[np.ndarray]:
    """uint8 [n, 3, size, size], the images from ``first`` on in order, a block at a time."""
    paths = [listing.folder / path for path, _, _ in listing.files]
    chunks = (paths[start : start + BLOCK] for start in range(first, len(paths), BLOCK))
    mean_bytes = sum(count for _, count, _ in listing.files) / len(paths)
    workers = 1 if mean_bytes < _SMALL_FILE else os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as pool:
        yield from _in_order(pool, 2 * workers, lambda chunk: _decode_chunk(chunk, size), chunks)


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


def _decode_chunk(paths: list[Path], size: int) -> np.ndarray:
    images = np.empty((len(paths), 3, size, size), dtype=np.uint8)
    for image, path in zip(images, paths, strict=True):
        image[:] = decode(path, size)
    return images


def decode(file: Path | BinaryIO, size: int) -> np.ndarray:
    """One image, of any mode and size, as uint8 [3, size, size]: upright, resized, not cropped.

    Raises:
        UserError: it cannot be read or decoded.
    """
    path = file if isinstance(file, Path) else "on standard input"
    try:
        content = file.read_bytes() if isinstance(file, Path) else file.read()
    except OSError as error:
        raise UserError(
            f"cannot read image {path}: {error.strerror or error}; name a file that can be read"
        ) from error
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            upright = image if image.mode == "RGB" else _to_8_bit(image).convert("RGB")
    except Exception as error:  # Broken files make Pillow raise nearly anything.
        reason = " ".join(str(error).split("<")[0].split()) or type(error).__name__
        raise UserError(f"cannot read image {path} ({reason}); repair or remove it") from error
    if upright.size != (size, size):
        upright = upright.resize((size, size), Image.Resampling.BILINEAR)
    pixels: np.ndarray = np.asarray(upright).transpose(2, 0, 1)
    return pixels


def _to_8_bit(image: Image.Image) -> Image.Image:
    """Scale 16-bit grey, which Pillow would clip at 255.

    Raises:
        ValueError: the image has 32 bits a channel, of which nothing says what is white.
    """
    # Grey of 16 bits in PGM has 32 in older Pillows.
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError("32 bits a channel, without a scale; save it with 8 or 16")
    return image
