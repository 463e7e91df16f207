"""The files of CIFAR-10 and CIFAR-100: pickles, of which nothing is called."""

import contextlib
import hashlib
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from normexp.data.cifar_versions import Version
from normexp.data.images import ImageSet
from normexp.system.errors import UserError
from normexp.system.foreign_files import IMAGES, open_regular

_PIXELS = 3 * 32 * 32

# Checksums by (path, size, mtime): a sweep asks for the same files for each of its runs.
_known_md5: dict[tuple[str, int, int], str] = {}


def md5(path: Path) -> str:
    status = path.stat()
    key = (str(path), status.st_size, status.st_mtime_ns)
    if key not in _known_md5:
        digest = hashlib.md5(usedforsecurity=False)
        with _reading(path), open_regular(path, IMAGES) as file:
            while block := file.read(1 << 20):
                digest.update(block)
        _known_md5[key] = digest.hexdigest()
    return _known_md5[key]


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error


def read_images(folder: Path, names: tuple[str, ...], version: Version) -> ImageSet:
    """Fill one array from the files, holding one of them at a time besides."""
    # A file cannot hold more images than its size allows; pages never filled cost no memory.
    with _reading(folder):
        capacity = sum(os.path.getsize(folder / name) // _PIXELS for name in names)
    images = np.empty((capacity, _PIXELS), dtype=np.uint8)
    labels = np.empty(capacity, dtype=np.int64)
    count = 0
    for name in names:
        pixels, numbers = _read_batch(folder / name, version)
        end = count + len(pixels)
        if end > capacity:
            raise _foreign(version, folder / name, "it holds more images than its size allows")
        images[count:end], labels[count:end] = pixels, numbers
        count = end
    return ImageSet(images[:count].reshape(count, 3, 32, 32), labels[:count])


def _read_batch(path: Path, version: Version) -> tuple[np.ndarray, np.ndarray]:
    """The images (uint8 [N, 3072]: red, green, blue planes) and labels ([N]) of one file."""
    content = _read_pickle(path, version)
    pixels, labels = content.get("data"), content.get(version.labels)
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8:
        raise _foreign(version, path, "its 'data' is no array of uint8")
    if pixels.ndim != 2 or pixels.shape[1] != _PIXELS or len(pixels) == 0:
        raise _foreign(version, path, f"its 'data' has shape {pixels.shape}, not [N, {_PIXELS}]")
    if not isinstance(labels, list | np.ndarray) or len(labels) != len(pixels):
        raise _foreign(version, path, f"its '{version.labels}' are not one for each image")
    try:
        numbers = np.asarray(labels)
    except ValueError as error:
        raise _foreign(version, path, f"its '{version.labels}' are not numbers") from error
    good = numbers.dtype.kind in "iu" and numbers.ndim == 1
    if not good or numbers.min() < 0 or numbers.max() >= version.classes:
        raise _foreign(
            version, path, f"its '{version.labels}' are not numbers from 0 to {version.classes - 1}"
        )
    return pixels, numbers


def read_classes(path: Path, version: Version) -> tuple[str, ...]:
    names = _read_pickle(path, version).get(version.names)
    if not isinstance(names, list) or len(names) != version.classes:
        raise _foreign(version, path, f"its '{version.names}' are not {version.classes} names")
    return tuple(_text(name) for name in names)


def _text(value: object) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)


def _foreign(version: Version, path: Path, reason: str) -> UserError:
    return UserError(
        f"{path} is no file of {version.title} ({reason}); "
        f"remove it to unpack {version.archive} again, or give data.root=FOLDER with good files"
    )


def one_line(error: object) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"encoding {encoding} is not allowed")
    return text.encode(encoding)


class _ArrayUnpickler(pickle.Unpickler):
    """Builds numbers, strings, lists, dicts and numpy arrays; calls nothing else.

    Pickles can name any function to be called, and copies of CIFAR-10 come from anywhere.
    """

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode"):  # How Python 3 writes bytes in protocol 2.
            return _encode
        short = module.replace("numpy._core.", "numpy.core.")
        if (short, name) in (("numpy", "ndarray"), ("numpy", "dtype")):
            return getattr(np, name)
        if (short, name) in (
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy.core.numeric", "_frombuffer"),
        ):
            here = "numpy._core." if np.__version__[0] != "1" else "numpy.core."
            return super().find_class(short.replace("numpy.core.", here), name)
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed")


def _read_pickle(path: Path, version: Version) -> dict[str, Any]:
    try:
        with open_regular(path, IMAGES) as file:
            content = _ArrayUnpickler(file, encoding="bytes").load()
    except Exception as error:  # A broken pickle can raise nearly anything.
        raise _foreign(version, path, one_line(error)) from error
    if not isinstance(content, dict):
        raise _foreign(version, path, "it holds no dict")
    return {_text(key): value for key, value in content.items()}
