"""A run's identity and its directory: which files it holds and how they are written and read."""

import contextlib
import csv
import hashlib
import io
import json
import math
import os
import re
import stat
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import yaml

from normexp.config import ADDED_SINCE, Config, outside_identity, to_dict
from normexp.errors import UserError, cannot_write
from normexp.foreign_files import TABLE, kind, read_text
from normexp.recorded_config import NotReadable, flat, read_config
from normexp.run_records import FINAL, METRICS, RESULT, SCHEMA_VERSION, read_metrics, read_result

Buffer = bytes | memoryview

DIAGNOSTICS = ("epoch", "step", "layer", "quantity", "value")

FILES = (
    *("result.json", "config.yaml", "metrics.csv", "diagnostics.csv", "train.log", ".lock"),
    *("checkpoints/last.pt", "checkpoints/previous.pt", "checkpoints/best.pt"),
)
"""What a run writes, but for TensorBoard's."""

NOT_RUNS = frozenset({"report", "checkpoints", ".sweeps"})
"""Folders among and in those of runs that are none."""


@dataclass(frozen=True)
class BesideConfig:
    """What tells runs of one configuration apart."""

    data_fingerprint: str = ""
    """Of the images' content, wherever they lie; empty for synthetic ones."""
    norm_source: str = ""
    """Hash of the source of a norm that is not of the catalogue; empty for those of it."""
    ranks: int = 1
    """How many processes share a batch, where the norm sees its share only."""


def run_id(config: Config, beside: BesideConfig) -> str:
    """The name of a run: the same question asked twice has the same name.

    Args:
        config: settled, so that settings nobody reads have their defaults.
    """
    return _name(config, beside, {}, f"seed{config.seed}-")


def cell_id(config: Config, beside: BesideConfig) -> str:
    """The name of the runs that differ from one in nothing but their seed."""
    return _name(config, beside, {"seed": None}, "")


def _name(config: Config, beside: BesideConfig, changed: dict[str, Any], seed: str) -> str:
    question = _question(config)
    question.update(asdict(beside), schema=SCHEMA_VERSION, **changed)
    if beside.ranks == 1:
        del question["ranks"]  # as before several processes could train a run
    digest = hashlib.sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()[:8]
    norm = re.sub(r"[^\w.]+", "_", config.norm.name)
    model = re.sub(r"[^\w.]+", "_", config.model.name)
    return f"{model}-{norm}-bs{config.batch_size}-{seed}{digest}"


def _question(config: Config) -> dict[str, Any]:
    """The part of a configuration that a run's name is of."""
    return _without(to_dict(config), "", outside_identity(config))


def _without(tree: dict[str, Any], prefix: str, outside: frozenset[str]) -> dict[str, Any]:
    kept = {}
    for key, value in tree.items():
        name = prefix + key
        if name in outside or (name in ADDED_SINCE and value == ADDED_SINCE[name]):
            continue
        kept[key] = _without(value, f"{name}.", outside) if isinstance(value, dict) else value
    return kept


@contextlib.contextmanager
def replacing(
    path: Path, fix: str = "choose output=...", follow: bool = False, kept: Path | None = None
) -> Iterator[BinaryIO]:
    """Open a temporary file that takes the place of ``path`` once it is whole and on the disk.

    Args:
        fix: what a person can do instead if it cannot be written.
        follow: replace what a link leads to, where a person named the file. A link in a run
            directory is replaced itself: whoever made that would choose what is overwritten.
        kept: what becomes of the file that was there.

    Raises:
        UserError: the disk is full, the folder cannot be written, or no file is there but
            something else, such as a device.
    """
    temporary = None
    if follow:
        path = Path(os.path.realpath(path))
    try:
        refuse_other_than_file(path, fix, links=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(
            dir=path.parent, prefix=f".{path.name}.", suffix=".tmp"
        )
        with os.fdopen(handle, "wb") as file:
            yield file
            # Readable by whom the person's umask allows, as any file; mkstemp's are private.
            os.chmod(temporary, 0o666 & ~_umask())
            file.flush()
            os.fsync(file.fileno())
        if kept is not None and path.exists():
            os.replace(path, kept)
        os.replace(temporary, path)
    except OSError as error:
        raise cannot_write(path, error, fix) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def refuse_other_than_file(path: Path, fix: str, links: bool = False) -> None:
    """Raise a UserError where a file is to be written and something else is, but maybe a link."""
    with contextlib.suppress(FileNotFoundError):
        mode = path.lstat().st_mode
        if not stat.S_ISREG(mode) and not (links and stat.S_ISLNK(mode)):
            raise UserError(f"{path} is {kind(mode)}, and a file is to be written; {fix}")


def refuse_unwritable(path: Path, option: str, folder: bool = False) -> None:
    """Find out before any work whether a file that a person named can be written, or a folder.

    Args:
        option: by which it was named.

    Raises:
        UserError: it cannot, or something else is there, such as a device.
    """
    real = Path(os.path.realpath(path))
    fix = "choose another place"
    try:
        if os.path.lexists(real) and not (real.is_dir() if folder else real.is_file()):
            raise UserError(f"{option} {path} is {kind(real.stat().st_mode)}; {fix}")
        places = [real, *real.parents] if folder else real.parents
        with tempfile.TemporaryFile(dir=next(place for place in places if place.exists())):
            pass
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{option} {path}: cannot be written: {reason}; {fix}") from error


def result_record(
    config: Config, identity: str, status: str, reason: str | None, measured: dict[str, Any],
    beside: BesideConfig = BesideConfig(),
) -> dict[str, Any]:  # fmt: skip
    """Every field of result.json in its order; null where a run did not come that far."""
    record = dict.fromkeys(RESULT)
    record.update(
        asdict(beside),
        schema_version=SCHEMA_VERSION,
        status=status,
        reason=reason,
        run_id=identity,
        name=config.name,
        model=config.model.name,
        norm=config.norm.name,
        batch_size=config.batch_size,
        seed=config.seed,
        data=config.data.name.value,
        precision=config.precision.value,
    )
    assert measured.keys() <= record.keys(), measured.keys() - record.keys()
    return record | measured


def run_directories(root: Path) -> Iterator[Path]:
    """The run directories below a folder, or the folder itself.

    Links are followed, as train follows them; what they lead to is seen once.
    """
    top, seen = Path(os.path.realpath(root)), set()
    for place, folders, files in os.walk(root, followlinks=True):
        real = Path(os.path.realpath(place))
        within = place != str(root) and os.path.islink(place) and real.is_relative_to(top)
        if within or real in seen:  # it is seen where it lies
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if name not in NOT_RUNS]
        if "result.json" in files or "config.yaml" in files:
            yield Path(place)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


class RunDirectory:
    """The files of one run."""

    def __init__(
        self, config: Config, identity: str, beside: BesideConfig = BesideConfig()
    ) -> None:
        """
        Args:
            beside: what ``identity`` tells besides the configuration.
        """
        self.run_id = identity
        self.beside = beside
        self.question = _question(config)
        self.path = Path(config.output) / config.name / identity

    @property
    def last(self) -> Path:
        return self.path / "checkpoints" / "last.pt"

    @property
    def previous(self) -> Path:
        """The checkpoint before the last, for when that is damaged."""
        return self.path / "checkpoints" / "previous.pt"

    @property
    def best(self) -> Path:
        return self.path / "checkpoints" / "best.pt"

    @property
    def log(self) -> Path:
        return self.path / "train.log"

    @property
    def lock(self) -> Path:
        return self.path / ".lock"

    def tidy(self) -> None:
        """Remove the temporary files of a process that was killed while it wrote."""
        for path in self.path.rglob(".*.tmp"):
            path.unlink(missing_ok=True)

    def create(self) -> None:
        """Make the folder.

        Raises:
            UserError: it cannot be made, or what a run would write into is no file.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            for name in FILES:
                refuse_other_than_file(self.path / name, "remove it, or choose output=...")
        except OSError as error:
            raise cannot_write(Path(error.filename or self.path), error) from error

    def clear(self) -> None:
        """Remove what an earlier run left, but not the lock that its caller holds."""
        parts = ("*", "checkpoints/*", "evaluation/*", "export/*")
        for path in [found for part in parts for found in self.path.glob(part)]:
            if path.is_file() and path != self.lock:
                path.unlink()

    def write_config(self, config: Config) -> None:
        with replacing(self.path / "config.yaml") as file:
            # As comments: they are no settings, and a run under way has no result yet.
            for name, value in asdict(self.beside).items():
                file.write(f"# {name}: {json.dumps(value)}\n".encode())
            file.write(yaml.safe_dump(to_dict(config), sort_keys=False).encode())

    def write_metrics(self, rows: list[dict[str, Any]]) -> None:
        self._write_table("metrics.csv", METRICS, rows)

    def write_diagnostics(self, rows: list[dict[str, Any]]) -> None:
        self._write_table("diagnostics.csv", DIAGNOSTICS, rows)

    def read_diagnostics(self, epochs: int) -> list[dict[str, Any]]:
        """The rows of the first epochs, and of before them; none where none were written.

        Raises:
            UserError: the file is damaged.
        """
        path = self.path / "diagnostics.csv"
        try:
            text = read_text(path, TABLE)
            found = csv.DictReader(io.StringIO(text))
            rows = [row for row in found if math.isfinite(float(row["value"]))]
            return [row for row in rows if int(row["epoch"]) <= epochs]
        except FileNotFoundError:
            return []
        except (KeyError, ValueError, TypeError, csv.Error) as error:
            raise UserError(f"{path} is no table of diagnostics ({error}); remove it") from error

    def _write_table(self, name: str, columns: Sequence[str], rows: list[dict[str, Any]]) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        with replacing(self.path / name) as file:
            file.write(text.getvalue().encode())

    def write_result(self, result: dict[str, Any]) -> None:
        with replacing(self.path / "result.json") as file:
            file.write((json.dumps(result, indent=2, allow_nan=False) + "\n").encode())

    def write_last(self, content: Buffer) -> None:
        """Write last.pt; what it was becomes previous.pt."""
        with replacing(self.last, kept=self.previous) as file:
            file.write(content)

    def write_best(self, content: Buffer) -> None:
        with replacing(self.best) as file:
            file.write(content)

    def answer(self) -> dict[str, Any] | None:
        """The result of a run that needs no more training, or None."""
        with contextlib.suppress(NotReadable, OSError):
            return self._answer()
        return None

    def damage(self) -> str | None:
        """Why what stands there is no answer though the run has ended, if it is so."""
        try:
            self._answer()
        except (NotReadable, OSError) as error:
            return f"{self.path}: {error}"
        return None

    def _answer(self) -> dict[str, Any] | None:
        if not os.path.lexists(self.path / "result.json"):
            return None
        found = read_result(self.path / "result.json", self.run_id)
        if found["status"] not in FINAL:
            return None
        # Without these the report could not tell what the result is of.
        recorded = read_config(self.path / "config.yaml", found)
        if other := [
            key for key, value in flat(self.question).items() if recorded.get(key) != value
        ]:
            raise NotReadable(f"config.yaml is not what was trained: {other[0]}")
        read_metrics(self.path / "metrics.csv", found)
        return found

    def result(self) -> dict[str, Any] | None:
        """What the run recorded when it ended, or None while there is no readable record."""
        with contextlib.suppress(NotReadable, OSError):
            return read_result(self.path / "result.json", self.run_id)
        return None
