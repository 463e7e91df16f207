"""CIFAR-10 (Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009).

Reads the original files, ``<root>/cifar-10-batches-py/*``, or ``<root>/*`` where they lie there.
What is missing is taken from ``<root>/cifar-10-python.tar.gz``, and that is downloaded by
torchvision where it is missing too.
"""

import contextlib
import errno
import hashlib
import io
import os
import pickle
import shutil
import socket
import sys
import tarfile
import urllib.request
import zlib
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np

from normexp.config.schema import DataConfig
from normexp.data.files import disk_errors, locked, working_folder
from normexp.data.images import Dataset, ImageSet, count_levels, mean_and_std
from normexp.system.errors import UserError
from normexp.system.foreign_files import IMAGES, open_regular

FOLDER = "cifar-10-batches-py"
ARCHIVE = "cifar-10-python.tar.gz"
# The checksums that torchvision demands; repeated because importing torchvision takes seconds.
ARCHIVE_MD5 = "c58f30108f718f92721af3b95e74349a"
FILES_MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
    "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
}
TRAIN_FILES = tuple(name for name in FILES_MD5 if name.startswith("data_batch_"))
TEST_FILES = ("test_batch",)
# What else is offered where CIFAR-10 is: {its folder: what it is}.
OTHERS = {
    "cifar-10-batches-bin": "CIFAR-10's binary version",
    "cifar-10-batches-mat": "CIFAR-10's Matlab version",
    "cifar-100-python": "CIFAR-100",
    "cifar-100-binary": "CIFAR-100",
    "cifar-100-matlab": "CIFAR-100",
}
OFFICIAL = "cifar10"
"""Fingerprint of the official files."""
OFFICIAL_MEAN = (0.49139968, 0.48215841, 0.44653091)
OFFICIAL_STD = (0.24703223, 0.24348513, 0.26158784)

_PIXELS = 3 * 32 * 32
_TIMEOUT = 15.0  # Seconds without an answer, or without a byte, until a download is given up.
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO)

# Checksums by (path, size, mtime): a sweep asks for the same files for each of its runs.
_known_md5: dict[tuple[str, int, int], str] = {}


def load(data: DataConfig, *, progress: bool = True) -> Dataset:
    """Read CIFAR-10, fetching it first where it is missing.

    Images are uint8 [N, 3, 32, 32]: 50,000 of train and 10,000 of test in the official files.

    Raises:
        UserError: it is missing and cannot be fetched; a file is broken, foreign or, with
            ``data.verify``, not the official one; the disk is full or may not be written to.
    """
    folder = prepare(data, progress=progress)
    found = fingerprint(data)  # which no file passes that is too large to be one
    train = _read_images(folder, TRAIN_FILES)
    test = _read_images(folder, TEST_FILES)
    if found == OFFICIAL:
        mean, std = OFFICIAL_MEAN, OFFICIAL_STD
    else:
        mean, std = mean_and_std(count_levels(train.images))
    return Dataset(train, test, _read_classes(folder / "batches.meta"), mean, std, found)


def fingerprint(data: DataConfig) -> str:
    """``"cifar10"`` for the official files, else a hash of the files' checksums.

    With ``data.verify`` nothing is read: :func:`load` refuses all other files.

    Raises:
        UserError: as :func:`load`, without ``data.verify``.
    """
    if data.verify:
        return OFFICIAL
    folder = prepare(data)
    found = {name: _md5(folder / name) for name in FILES_MD5}
    if found == FILES_MD5:
        return OFFICIAL
    return hashlib.sha256(" ".join(found.values()).encode()).hexdigest()


def place(data: DataConfig) -> Path:
    """The folder of the seven files, as an absolute path: the root where it holds them itself."""
    root = Path(os.path.abspath(os.path.expanduser(data.root)))
    inner = root / FOLDER
    return root if not inner.is_dir() and len(lacking(root)) < len(FILES_MD5) else inner


def prepare(data: DataConfig, *, progress: bool = True) -> Path:
    """See to it that all files are there, and the official ones if ``data.verify``.

    Returns:
        The folder of the files, as an absolute path.

    Raises:
        UserError: as :func:`load`.
    """
    folder = place(data)
    root = folder.parent
    if lacking(folder):
        _refuse_other(root, folder)
        # What a person re-encoded is not to be replaced.
        own = not data.verify and data.url is None and len(lacking(folder)) < len(FILES_MD5)
        if (own or not data.download) and not os.path.isfile(root / ARCHIVE):
            setting = "data.verify=false" if own else "data.download=false"
            raise _missing(root, f"{_what_is_missing(root)}, and {setting} fetches nothing")
        _fetch(data, root, progress)
    if data.verify:
        for name, expected in FILES_MD5.items():
            _demand_md5(folder / name, expected)
    return folder


def lacking(folder: Path) -> list[str]:
    """Which of the seven files are not in a folder; nothing is written to it if none."""
    return [name for name in FILES_MD5 if not os.path.isfile(folder / name)]


def _refuse_other(root: Path, folder: Path) -> None:
    """Raise a UserError where nothing should be fetched: into another data set, or a folder that a
    person made."""
    if root.is_file():
        beside = f"write data.root={root.parent}, the folder it lies in"
        unpack = f"give data.root=FOLDER to unpack it into and data.url={root.as_uri()}"
        raise UserError(
            f"data.root={root}: is a file; {beside if root.name == ARCHIVE else unpack}"
        )
    if what := OTHERS.get(root.name):
        raise UserError(
            f"data.root={root}: is {what}, which is not read; give data.root=FOLDER of the Python "
            f"version ({ARCHIVE}), or another folder to fetch it into"
        )
    if folder.name != FOLDER:
        raise UserError(
            f"{folder} lacks {', '.join(lacking(folder))}; put it there, or give data.root=FOLDER "
            "to fetch CIFAR-10 into"
        )


def _what_is_missing(root: Path) -> str:
    absent = lacking(root / FOLDER)
    if len(absent) < len(FILES_MD5):
        return f"{root / FOLDER} lacks {', '.join(absent)}"
    others = [f", only {what} ({name})" for name, what in OTHERS.items() if (root / name).is_dir()]
    return f"CIFAR-10 is not in {root}{''.join(others[:1])}"


def _missing(root: Path, reason: str) -> UserError:
    return UserError(
        f"{reason}; put {ARCHIVE} (md5 {ARCHIVE_MD5}) into {root}, or give data.root=FOLDER "
        "where it lies, data.url=URL of a mirror, or data=synthetic"
    )


def _fetch(data: DataConfig, root: Path, progress: bool) -> None:
    """Unpack the archive, downloading it if need be; of two runs at once one does the work."""
    with disk_errors(root, "give data.root=FOLDER with 400 MB to write to"):
        root.mkdir(parents=True, exist_ok=True)
        with locked(root / ".cifar-10.lock"):
            if not lacking(root / FOLDER):
                return
            with working_folder(root / ".cifar-10-part") as part:
                archive = root / ARCHIVE
                downloaded = not archive.is_file()
                if downloaded:
                    archive = part / ARCHIVE
                    _download(data, root, archive, progress)
                if data.verify:
                    _demand_md5(archive, ARCHIVE_MD5, data.url if downloaded else None)
                _unpack(archive, part)
                if downloaded:  # Only now: a broken archive would be found by the next run.
                    os.replace(archive, root / ARCHIVE)
                (root / FOLDER).mkdir(exist_ok=True)
                for name in FILES_MD5:
                    os.replace(part / name, root / FOLDER / name)


def _download(data: DataConfig, root: Path, target: Path, progress: bool) -> None:
    url = data.url or _official_url()
    try:
        with _socket_timeout(_TIMEOUT), _quiet(not (progress and sys.stderr.isatty())):
            if url.startswith(("http://", "https://")):
                from torchvision.datasets.utils import download_url

                download_url(url, str(target.parent), target.name)
            else:  # torchvision knows no file:// addresses.
                with urllib.request.urlopen(url) as source, open(target, "wb") as file:
                    shutil.copyfileobj(source, file, 1 << 20)
    except (OSError, HTTPException, ValueError, RuntimeError) as error:
        if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
            raise
        reason = getattr(error, "reason", None) or error
        missing = _what_is_missing(root)
        raise _missing(root, f"{missing}; cannot download {url} ({_one_line(reason)})") from error


def _official_url() -> str:
    """torchvision's, at the time of the call: people point that attribute to their mirrors."""
    from torchvision.datasets import CIFAR10

    return str(CIFAR10.url)


@contextlib.contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """torchvision gives its connections no time limit, so they take this one."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _quiet(quiet: bool) -> contextlib.AbstractContextManager[Any]:
    """Swallow torchvision's progress bar, which would fill a redirected log."""
    return contextlib.redirect_stderr(io.StringIO()) if quiet else contextlib.nullcontext()


def _one_line(error: object) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _unpack(archive: Path, target: Path) -> None:
    """Copy the seven files, and nothing else an archive may hold, straight into ``target``."""
    wanted = {f"{FOLDER}/{name}": name for name in FILES_MD5}
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                name = wanted.pop(member.name.removeprefix("./"), None) if member.isreg() else None
                source = tar.extractfile(member) if name else None
                if name and source:
                    with source, open(target / name, "wb") as file:
                        shutil.copyfileobj(source, file, 1 << 20)
    except (tarfile.TarError, zlib.error, EOFError, ValueError, OSError) as error:
        # gzip's own errors are OSErrors without a number; those of the disk have one.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise _broken_archive(archive, _one_line(error)) from error
    if wanted:
        raise _broken_archive(archive, f"it has no {next(iter(wanted))}")


def _broken_archive(archive: Path, reason: str) -> UserError:
    return UserError(
        f"{archive} cannot be unpacked ({reason}); remove it to fetch it again, "
        f"or give data.root=FOLDER with a whole {ARCHIVE} (md5 {ARCHIVE_MD5})"
    )


def _demand_md5(path: Path, expected: str, url: str | None = None) -> None:
    found = _md5(path)
    if found != expected:
        raise UserError(
            f"{url or path} has md5 {found}, but the official file has {expected}; "
            "get the official one, or give data.verify=false to accept a re-encoded copy"
        )


def _md5(path: Path) -> str:
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


def _read_images(folder: Path, names: tuple[str, ...]) -> ImageSet:
    """Fill one array from the files, holding one of them at a time besides."""
    # A file cannot hold more images than its size allows; pages never filled cost no memory.
    with _reading(folder):
        capacity = sum(os.path.getsize(folder / name) // _PIXELS for name in names)
    images = np.empty((capacity, _PIXELS), dtype=np.uint8)
    labels = np.empty(capacity, dtype=np.int64)
    count = 0
    for name in names:
        pixels, numbers = _read_batch(folder / name)
        end = count + len(pixels)
        if end > capacity:
            raise _foreign(folder / name, "it holds more images than its size allows")
        images[count:end], labels[count:end] = pixels, numbers
        count = end
    return ImageSet(images[:count].reshape(count, 3, 32, 32), labels[:count])


def _read_batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The images (uint8 [N, 3072]: red, green, blue planes) and labels ([N]) of one file."""
    content = _read_pickle(path)
    pixels, labels = content.get("data"), content.get("labels")
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8:
        raise _foreign(path, "its 'data' is no array of uint8")
    if pixels.ndim != 2 or pixels.shape[1] != _PIXELS or len(pixels) == 0:
        raise _foreign(path, f"its 'data' has shape {pixels.shape}, not [N, {_PIXELS}]")
    if not isinstance(labels, list | np.ndarray) or len(labels) != len(pixels):
        raise _foreign(path, "its 'labels' are not one for each image")
    try:
        numbers = np.asarray(labels)
    except ValueError as error:
        raise _foreign(path, "its 'labels' are not numbers") from error
    good = numbers.dtype.kind in "iu" and numbers.ndim == 1
    if not good or numbers.min() < 0 or numbers.max() > 9:
        raise _foreign(path, "its 'labels' are not numbers from 0 to 9")
    return pixels, numbers


def _read_classes(path: Path) -> tuple[str, ...]:
    names = _read_pickle(path).get("label_names")
    if not isinstance(names, list) or len(names) != 10:
        raise _foreign(path, "its 'label_names' are not 10 names")
    return tuple(_text(name) for name in names)


def _text(value: object) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)


def _foreign(path: Path, reason: str) -> UserError:
    return UserError(
        f"{path} is no file of CIFAR-10 ({reason}); "
        f"remove it to unpack {ARCHIVE} again, or give data.root=FOLDER with good files"
    )


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


def _read_pickle(path: Path) -> dict[str, Any]:
    try:
        with open_regular(path, IMAGES) as file:
            content = _ArrayUnpickler(file, encoding="bytes").load()
    except Exception as error:  # A broken pickle can raise nearly anything.
        raise _foreign(path, _one_line(error)) from error
    if not isinstance(content, dict):
        raise _foreign(path, "it holds no dict")
    return {_text(key): value for key, value in content.items()}
