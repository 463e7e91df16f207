"""What a sweep knows of its runs: which of how many, time left, and what became of each.

A run is one seed with a directory of its own, a cell the runs that differ in their seed, a sweep
all cells of one command. Of Hydra's jobs, which a sweep is made of, each is a cell where ``seeds``
are given, and else a run.

Hydra's sweepers and launchers make the runs, in this process, in others, or on other machines. All
that is shared between them are files in the sweep's folder: ``sweep.json``, written once, and one
small file a run, so the same lines and the same table come from every launcher.
"""

import contextlib
import json
import math
import os
import secrets
import shlex
import shutil
import socket
import subprocess
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, RangeSweep
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig

from normexp.config import choices
from normexp.config.one_line import one_line_errors
from normexp.config.schema import DataName
from normexp.config.settings import refuse_unknown_keys
from normexp.data.sources import MADE_UP
from normexp.runs import sweep_folders
from normexp.runs.console import fitting
from normexp.runs.outcomes import GOOD, Outcome, counted, duration, row, rows, statuses
from normexp.system import torchrun
from normexp.system.errors import UserError, cannot_write
from normexp.system.writing import replacing

VARIABLE = "NORMEXP_SWEEP"
"""Names the sweep to the processes that launchers start; conf/config.yaml reads it."""

MOST = 10_000
"""Combinations of a sweep."""

opened: list["Sweep"] = []
"""The sweep that this process began, if it did."""

typed: list[str] = []
"""The command line of this process as a person typed it."""

module = "normexp.train"
"""The command that this process is."""


class Watch(Callback):
    """Opens a sweep's folder before its first run, and refuses a folder that Hydra would make for a
    single one; conf/config.yaml names it to Hydra."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        # Nothing would ever be in it.
        folder = config.hydra.run.dir
        if folder != ".":
            with one_line_errors():
                raise UserError(
                    f"hydra.run.dir={folder}: runs have folders of their own; use output={folder}"
                )
        if swept := config.hydra.sweeper.get("params"):
            with one_line_errors():
                raise UserError(
                    f"hydra.sweeper.params sweep {', '.join(swept)}: that takes -m, or in the "
                    "preset `mode: MULTIRUN` below `hydra:`"
                )

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        # Hydra turns an Exception of a callback into a warning and goes on; this exits.
        with one_line_errors():
            _open_sweep(config)


def _open_sweep(config: DictConfig) -> None:
    if torchrun.world_size() > 1:
        raise UserError(
            "-m under torchrun: each process would sweep; start torchrun once for each run, or "
            "sweep without it"
        )
    parameters = config.hydra.sweeper.get("params") or {}
    swept = [f"{key}={parameters[key]}" for key in parameters]
    loader = GlobalHydra.instance().config_loader()
    parsed = OverridesParser.create(loader).parse_overrides([*swept, *config.hydra.overrides.task])
    refuse_unknown_keys(swept)
    choices.refuse_sweep_of_sweeps(parsed)
    if any(part.key_or_group == "output" and part.is_sweep_override() for part in parsed):
        raise UserError("output: all runs of a sweep share one; sweep name= instead")
    _refuse_too_many(parsed)
    for one in parsed:
        if one.is_discrete_sweep() and not list(one.sweep_string_iterator()):
            fix = "name values, as in batch_size=2,4; glob() is for choices, such as norm=glob(?n)"
            raise UserError(f"{one.input_line}: stands for no value; {fix}")
    # As the basic sweeper does: what the command line says takes the place of a preset's.
    (jobs,) = BasicSweeper.split_arguments(parsed, None)
    shared = [text for text in jobs[0] if all(text in job for job in jobs)]
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}-{secrets.token_hex(3)}"
    os.environ[VARIABLE] = name
    launcher = str(config.hydra.launcher._target_)
    opened.append(Sweep.open(Path(config.output), len(jobs), shared, launcher))


def _refuse_too_many(overrides: list[Override]) -> None:
    """Raise a UserError for a cross of more combinations than anybody trains, before it is made."""
    count = 1
    for override in overrides:
        value = override.value()
        if isinstance(value, RangeSweep):
            width = float(value.stop or 0) - float(value.start or 0)
            count *= max(1, math.ceil(width / value.step)) if value.step else 1
        elif isinstance(value, ChoiceSweep):
            count *= len(value.list or ())
    if count > MOST:
        raise UserError(
            f"{count:,} combinations: a sweep takes {MOST:,} at most; sweep fewer values"
        )


@dataclass
class Sweep:
    """A sweep under way."""

    folder: Path
    total: int
    began: float
    """As time.monotonic() of this process says it."""
    shared: list[str]
    """Overrides that all of its runs have in common."""
    numbers: list[int] | None = None
    """Of the jobs that a launcher was given, their numbers in the sweep; None where it has all."""
    finished: list[Path] = field(default_factory=list)
    """Folders of the runs that it trained, once all of it is done and each cell may be timed."""
    timed: bool = True
    """Whether its cells shall be timed at its end."""
    lock: FileLock | None = None
    """Held by the process that began it, and free when that dies."""

    @staticmethod
    def open(output: Path, total: int, shared: list[str], launcher: str = "") -> "Sweep":
        """Begin a sweep, and remove what is left of those that were killed.

        Raises:
            UserError: the output folder cannot be written.
        """
        sweep = Sweep(_folder(output), total, time.monotonic(), shared)
        sweep.timed = "submitit" not in launcher  # its machines are not this one
        clocks = {"started": time.time(), "monotonic": sweep.began, "boot": sweep_folders.boot()}
        home = {"host": socket.gethostname(), "launcher": launcher}
        try:
            sweep_folders.remove_dead(sweep.folder.parent)
            sweep.lock = sweep_folders.hold(sweep.folder)
        except OSError as error:
            raise cannot_write(sweep.folder, error) from error
        sweep._write("sweep.json", {"total": total, "shared": shared, **clocks, **home})
        return sweep

    def leave_out(self, known: dict[int, list["Outcome"]]) -> None:
        """Have a launcher begin only the jobs whose outcomes are not known yet."""
        self._write("known.json", {str(n): list(map(asdict, each)) for n, each in known.items()})
        self.numbers = [number for number in range(self.total) if number not in known]
        found = json.loads((self.folder / "sweep.json").read_text())
        self._write("sweep.json", {**found, "numbers": self.numbers})

    def restart(self, total: int, shared: list[str]) -> None:
        """Begin another stage, of other jobs; what is known of the last one's is forgotten."""
        for path in [self.folder / "known.json", *self.folder.glob("run-*.json")]:
            path.unlink(missing_ok=True)
        self.total, self.shared, self.numbers = total, shared, None
        found = json.loads((self.folder / "sweep.json").read_text())
        self._write("sweep.json", {**found, "total": total, "shared": shared, "numbers": None})

    def _write(self, name: str, content: Any) -> None:
        with replacing(self.folder / name) as file:
            file.write(json.dumps(content).encode())

    @staticmethod
    def current(output: Path) -> "Sweep":
        """The sweep that this process works for.

        Raises:
            UserError: the launcher did not pass its name on, or its folder cannot be seen here.
        """
        if VARIABLE not in os.environ:
            raise UserError(f"the launcher must pass on {VARIABLE}, which names the sweep")
        path = _folder(output) / "sweep.json"
        try:
            found = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise UserError(f"{path} cannot be read; all runs must share output=") from error
        began = sweep_folders.began(found)
        return Sweep(_folder(output), found["total"], began, found["shared"], found.get("numbers"))

    def outcomes(self) -> dict[int, list[Outcome]]:
        """What is known so far, by the number of the job: of each of its runs."""
        found = {}
        with contextlib.suppress(FileNotFoundError):
            found = json.loads((self.folder / "known.json").read_text())
        for path in self.folder.glob("run-*.json"):
            found[path.stem.partition("-")[2]] = json.loads(path.read_text())
        numbers = sorted(map(int, found))
        return {number: [Outcome(**each) for each in found[str(number)]] for number in numbers}

    def record(self, number: int, outcomes: list[Outcome]) -> None:
        if not (self.folder / "sweep.json").exists():
            return  # the sweep was stopped while this run, in another process, went on
        self._write(f"run-{number}.json", list(map(asdict, outcomes)))

    def where(self, number: int, cell: str, composed: DictConfig) -> str:
        """Which run of how many, or which cell."""
        unit, what = "run", f"{cell} seed={composed.seed}"
        seeds, rates = composed.seeds, composed.rates
        if seeds is not None or rates is not None:
            runs = len(seeds) if isinstance(seeds, ListConfig) else seeds or 1
            runs *= len(rates) if isinstance(rates, ListConfig) else 1
            unit, what = "cell", f"{cell}, {runs} run{'' if runs == 1 else 's'}"
        return f"{unit} {number + 1} of {self.total}: {what.lstrip(', ')}"

    def place(self, number: int, cell: str, composed: DictConfig) -> str:
        """One line: where in the sweep this is, time so far and time left."""
        so_far = time.monotonic() - self.began
        known = self.outcomes()
        trained = [n for n in known if any(o.status != "skipped" for o in known[n])]
        times = [f"{duration(so_far)} so far"]
        if trained:
            # What was skipped took no time; the rest is taken to be like what was trained.
            each = so_far / len(trained)
            times.append(f"about {duration(each * (self.total - len(known)))} left")
        where = self.where(number, cell, composed)
        return fitting([f"{where}  ({', '.join(times)})", f"{where}  ({times[-1]})", where])

    def table(self) -> str:
        """What became of each cell, and what to do with that."""
        known = self.outcomes()
        every = [outcome for outcomes in known.values() for outcome in outcomes]
        cells: dict[str, list[Outcome]] = {}
        for outcome in every:
            cells.setdefault(outcome.cell, []).append(outcome)
        lines = [row("test accuracy %", "n", "time", "cell: what became of its runs")]
        for cell, own in cells.items():
            lines += rows(cell, own)
        missing, unit = self.total - len(known), "cell" if len(every) > len(known) else "run"
        what = f"{counted(len(every), 'run')} in {counted(len(cells), 'cell')}, "
        what += f"{duration(time.monotonic() - self.began)}: {statuses(every) or 'none begun'}"
        if missing and every:
            what += f"; {counted(missing, unit)} not begun"
        lines.append(what)
        if any(outcome.data == DataName.synthetic for outcome in every):
            lines.append(MADE_UP)
        for folder in self.folders():
            lines.append(f"compare them: python -m normexp.report {shlex.quote(str(folder))}")
        return "\n".join(lines)

    def folders(self) -> list[Path]:
        """Where its runs lie: a folder for each name, as sweeps over `name` have several."""
        every = [outcome for outcomes in self.outcomes().values() for outcome in outcomes]
        names = sorted({one.name for one in every if one.name and one.status in GOOD})
        return [self.folder.parents[1] / name for name in names]

    def failed(self) -> bool:
        """Whether a run failed, or none knows what became of it."""
        known = self.outcomes()
        every = [outcome for outcomes in known.values() for outcome in outcomes]
        return len(known) < self.total or any(outcome.status not in GOOD for outcome in every)

    def hopeless(self) -> bool:
        """Whether runs failed, and none of those for another reason than its settings."""
        every = [outcome for outcomes in self.outcomes().values() for outcome in outcomes]
        bad = [outcome for outcome in every if outcome.status not in GOOD]
        return bool(bad) and all(outcome.refused for outcome in bad)

    def cancel(self) -> None:
        """End what a person stopped and a cluster would go on with: its queued and running jobs."""
        # submitit keeps the files of a job below .submitit, in a folder named after its number.
        jobs = [path.name for path in self.folder.glob(".submitit/*") if path.name.isdigit()]
        if jobs:
            subprocess.run(["scancel", "--quiet", *jobs], check=False)

    def close(self) -> None:
        """Remove the sweep's folder: the runs' own directories hold all that lasts."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.lock is not None:
            self.lock.release()
        os.environ.pop(VARIABLE, None)


def this_run() -> int | None:
    """The number that the launcher gave this job of a sweep, or None for a run of its own."""
    hydra = HydraConfig.get()
    return int(hydra.job.num) if hydra.mode == RunMode.MULTIRUN else None


def this_cell(sweep: Sweep) -> str:
    """The overrides that tell the cell of this run from others of its sweep, as one writes them."""
    return cell_of(list(HydraConfig.get().overrides.task), sweep)


def cell_of(overrides: list[str], sweep: Sweep) -> str:
    """As :func:`this_cell`, of any job."""
    return " ".join(f"{key}={value}" for key, value in settings_of(overrides, sweep).items())


def settings_of(overrides: list[str], sweep: Sweep) -> dict[str, str]:
    """What tells the cell of a job from others of its sweep, as one writes it."""
    own = [text for text in overrides if text not in sweep.shared]
    parsed = OverridesParser.create().parse_overrides(own)
    return {
        part.get_key_element(): _as_written(part)
        for part in parsed
        if part.key_or_group not in ("seed", "seeds", "rates")
    }


def _as_written(override: Override) -> str:
    """Hydra escapes colons and others in what it hands on."""
    value = override.value()
    return value if isinstance(value, str) else str(override.get_value_element_as_str())


def _folder(output: Path) -> Path:
    return output / ".sweeps" / os.environ[VARIABLE]
