"""CIFAR-10 and CIFAR-100 (Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009).

Reads the original files, ``<root>/cifar-10-batches-py/*``, or ``<root>/*`` where they lie there.
What is missing is taken from ``<root>/cifar-10-python.tar.gz``, and that is downloaded by
torchvision where it is missing too.
"""

import contextlib
import errno
import hashlib
import io
import os
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

from normexp.config.schema import DataConfig
from normexp.data.cifar_files import md5, one_line, read_classes, read_images
from normexp.data.cifar_versions import OTHERS, Version, version_of
from normexp.data.files import disk_errors, locked, working_folder
from normexp.data.images import Dataset, count_levels, mean_and_std
from normexp.system.errors import UserError

_TIMEOUT = 15.0  # Seconds without an answer, or without a byte, until a download is given up.
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO)


def load(data: DataConfig, *, progress: bool = True) -> Dataset:
    """Read the one that ``data`` names, fetching it first where it is missing.

    Images are uint8 [N, 3, 32, 32]: 50,000 of train and 10,000 of test in the official files.

    Raises:
        UserError: it is missing and cannot be fetched; a file is broken, foreign or, with
            ``data.verify``, not the official one; the disk is full or may not be written to.
    """
    version = version_of(data)
    folder = prepare(data, progress=progress)
    found = fingerprint(data)  # which no file passes that is too large to be one
    train = read_images(folder, version.train, version)
    test = read_images(folder, version.test, version)
    if found == version.name and version.mean is not None and version.std is not None:
        mean, std = version.mean, version.std
    else:
        mean, std = mean_and_std(count_levels(train.images))
    return Dataset(train, test, read_classes(folder / version.meta, version), mean, std, found)


def fingerprint(data: DataConfig) -> str:
    """``"cifar10"`` or ``"cifar100"`` for the official files, else a hash of the files' checksums.

    With ``data.verify`` nothing is read: :func:`load` refuses all other files.

    Raises:
        UserError: as :func:`load`, without ``data.verify``.
    """
    version = version_of(data)
    if data.verify:
        return version.name
    folder = prepare(data)
    found = {name: md5(folder / name) for name in version.md5}
    if found == version.md5:
        return version.name
    return hashlib.sha256(" ".join(found.values()).encode()).hexdigest()


def place(data: DataConfig) -> Path:
    """The folder of the files, as an absolute path: the root where it holds them itself."""
    root = Path(os.path.abspath(os.path.expanduser(data.root)))
    version = version_of(data)
    inner = root / version.folder
    some = len(lacking(root, version)) < len(version.md5)
    return root if not inner.is_dir() and some else inner


def prepare(data: DataConfig, *, progress: bool = True) -> Path:
    """See to it that all files are there, and the official ones if ``data.verify``.

    Returns:
        The folder of the files, as an absolute path.

    Raises:
        UserError: as :func:`load`.
    """
    folder, version = place(data), version_of(data)
    root, absent = folder.parent, lacking(folder, version)
    if absent:
        _refuse_other(root, folder, version)
        # What a person re-encoded is not to be replaced.
        own = not data.verify and data.url is None and len(absent) < len(version.md5)
        if (own or not data.download) and not os.path.isfile(root / version.archive):
            setting = "data.verify=false" if own else "data.download=false"
            what = _what_is_missing(root, version)
            raise _missing(root, f"{what}, and {setting} fetches nothing", version)
        _fetch(data, version, root, progress)
    if data.verify:
        for name, expected in version.md5.items():
            _demand_md5(folder / name, expected)
    return folder


def lacking(folder: Path, version: Version) -> list[str]:
    """Which of the files are not in a folder; nothing is written to it if none."""
    return [name for name in version.md5 if not os.path.isfile(folder / name)]


def _refuse_other(root: Path, folder: Path, version: Version) -> None:
    """Raise a UserError where nothing should be fetched: into another data set, or a folder that a
    person made."""
    if root.is_file():
        beside = f"write data.root={root.parent}, the folder it lies in"
        unpack = f"give data.root=FOLDER to unpack it into and data.url={root.as_uri()}"
        raise UserError(
            f"data.root={root}: is a file; {beside if root.name == version.archive else unpack}"
        )
    if root.name != version.folder and (what := OTHERS.get(root.name)):
        raise UserError(
            f"data.root={root}: is {what}, which is not read by data={version.name}; give "
            f"data.root=FOLDER of its Python version ({version.archive}), or another folder to "
            "fetch it into"
        )
    if folder.name != version.folder:
        raise UserError(
            f"{folder} lacks {', '.join(lacking(folder, version))}; put it there, or give "
            f"data.root=FOLDER to fetch {version.title} into"
        )


def _what_is_missing(root: Path, version: Version) -> str:
    absent = lacking(root / version.folder, version)
    if len(absent) < len(version.md5):
        return f"{root / version.folder} lacks {', '.join(absent)}"
    others = [
        f", only {what} ({name})"
        for name, what in OTHERS.items()
        if name != version.folder and (root / name).is_dir()
    ]
    return f"{version.title} is not in {root}{''.join(others[:1])}"


def _missing(root: Path, reason: str, version: Version) -> UserError:
    return UserError(
        f"{reason}; put {version.archive} (md5 {version.archive_md5}) into {root}, or give "
        "data.root=FOLDER where it lies, data.url=URL of a mirror, or data=synthetic"
    )


def _fetch(data: DataConfig, version: Version, root: Path, progress: bool) -> None:
    """Unpack the archive, downloading it if need be; of two runs at once one does the work."""
    with disk_errors(root, "give data.root=FOLDER with 400 MB to write to"):
        root.mkdir(parents=True, exist_ok=True)
        with locked(root / f".{version.title.lower()}.lock"):
            if not lacking(root / version.folder, version):
                return
            with working_folder(root / f".{version.title.lower()}-part") as part:
                archive = root / version.archive
                downloaded = not archive.is_file()
                if downloaded:
                    archive = part / version.archive
                    _download(data, version, root, archive, progress)
                if data.verify:
                    _demand_md5(archive, version.archive_md5, data.url if downloaded else None)
                _unpack(archive, part, version)
                if downloaded:  # Only now: a broken archive would be found by the next run.
                    os.replace(archive, root / version.archive)
                (root / version.folder).mkdir(exist_ok=True)
                for name in version.md5:
                    os.replace(part / name, root / version.folder / name)


def _download(data: DataConfig, version: Version, root: Path, target: Path, progress: bool) -> None:
    url = data.url or _official_url(version)
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
        missing = _what_is_missing(root, version)
        reason = f"{missing}; cannot download {url} ({one_line(reason)})"
        raise _missing(root, reason, version) from error


def _official_url(version: Version) -> str:
    """torchvision's, at the time of the call: people point that attribute to their mirrors."""
    from torchvision import datasets

    return str(getattr(datasets, version.name.upper()).url)


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


def _unpack(archive: Path, target: Path, version: Version) -> None:
    """Copy the files, and nothing else an archive may hold, straight into ``target``."""
    wanted = {f"{version.folder}/{name}": name for name in version.md5}
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
        raise _broken_archive(archive, one_line(error), version) from error
    if wanted:
        raise _broken_archive(archive, f"it has no {next(iter(wanted))}", version)


def _broken_archive(archive: Path, reason: str, version: Version) -> UserError:
    return UserError(
        f"{archive} cannot be unpacked ({reason}); remove it to fetch it again, "
        f"or give data.root=FOLDER with a whole {version.archive} (md5 {version.archive_md5})"
    )


def _demand_md5(path: Path, expected: str, url: str | None = None) -> None:
    found = md5(path)
    if found != expected:
        raise UserError(
            f"{url or path} has md5 {found}, but the official file has {expected}; "
            "get the official one, or give data.verify=false to accept a re-encoded copy"
        )
