"""The directory of a run: which files it holds and how they are written and read."""

import contextlib
import csv
import io
import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from normexp.config.checks import NOT_RUNS
from normexp.config.schema import Config, to_dict
from normexp.runs.identity import BesideConfig, question
from normexp.runs.recorded_config import NotReadable, flat, read_config
from normexp.runs.records import FINAL, METRICS, RESULT, SCHEMA_VERSION, read_metrics, read_result
from normexp.system.errors import UserError, cannot_write
from normexp.system.foreign_files import TABLE, read_text
from normexp.system.writing import refuse_other_than_file, refuse_other_than_folder, replacing

Buffer = bytes | memoryview

DIAGNOSTICS = ("epoch", "step", "layer", "quantity", "value")

FILES = (
    *("result.json", "config.yaml", "metrics.csv", "diagnostics.csv", "train.log", ".lock"),
    *("checkpoints/last.pt", "checkpoints/previous.pt", "checkpoints/best.pt"),
)
"""What a run writes, but for TensorBoard's."""

FOLDERS = ("checkpoints", "evaluation", "export")
"""In a run, where it and what uses it write."""


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
        self.question = question(config)
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
            UserError: it cannot be made, or what a run would write into is no file or no folder.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            fix = "remove it, or choose output=..."
            for name in FOLDERS:
                refuse_other_than_folder(self.path / name, fix)
            for name in FILES:
                refuse_other_than_file(self.path / name, fix)
        except OSError as error:
            raise cannot_write(Path(error.filename or self.path), error) from error

    def clear(self) -> None:
        """Remove what an earlier run left, but not the lock that its caller holds."""
        parts = ("*", *(f"{name}/*" for name in FOLDERS))
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
