"""What a sweep knows of its runs: which of how many, time left, and what happened to each.

Hydra's sweepers and launchers make the runs, in this process, in others, or on other machines. All
that is shared between them are files in the sweep's folder: ``sweep.json``, written once, and one
small file a run, so the same lines and the same table come from every launcher.
"""

import json
import os
import secrets
import shutil
import subprocess
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from normexp import choices, torchrun
from normexp.entry import one_line_errors, refuse_unknown_keys
from normexp.errors import UserError
from normexp.run_directory import replacing

VARIABLE = "NORMEXP_SWEEP"
"""Names the sweep to the processes that launchers start; conf/config.yaml reads it."""

GOOD = ("completed", "diverged", "skipped")

opened: list["Sweep"] = []
"""The sweep that this process began, if it did."""


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
    # As the basic sweeper does: what the command line says takes the place of a preset's.
    (jobs,) = BasicSweeper.split_arguments(parsed, None)
    shared = [text for text in jobs[0] if len(jobs) > 1 and all(text in job for job in jobs)]
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}-{secrets.token_hex(3)}"
    os.environ[VARIABLE] = name
    opened.append(Sweep.open(Path(config.output), len(jobs), shared))


@dataclass
class Outcome:
    """What happened to one run of a sweep."""

    cell: str
    status: str
    """As in result.json; or ``skipped``: was complete; ``elsewhere``: another process has it."""
    reason: str | None = None
    val_acc: float | None = None
    test_acc: float | None = None
    seed: int | None = None
    """Where a cell of the sweep is trained with several seeds."""
    seconds: float = 0.0
    refused: bool = False
    """Of a failed run: its settings can never work."""
    config: dict[str, Any] = field(default_factory=dict)
    """The composed configuration of a run that is to be tried again."""

    @staticmethod
    def of(cell: str, result: dict[str, Any], status: str = "") -> "Outcome":
        """What result.json says.

        Args:
            status: in place of the one recorded.
        """
        known = {name: result[name] for name in ("reason", "val_acc", "test_acc", "seed")}
        return Outcome(cell, status or result["status"], **known)


@dataclass
class Sweep:
    """A sweep under way."""

    folder: Path
    total: int
    started: float
    """Seconds since the epoch, as other processes read it too."""
    shared: list[str]
    """Overrides that all of its runs have in common."""

    @staticmethod
    def open(output: Path, total: int, shared: list[str]) -> "Sweep":
        """Begin a sweep.

        Raises:
            UserError: the output folder cannot be written.
        """
        sweep = Sweep(_folder(output), total, time.time(), shared)
        content = {"total": total, "started": sweep.started, "shared": shared}
        with replacing(sweep.folder / "sweep.json") as file:
            file.write(json.dumps(content).encode())
        return sweep

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
        return Sweep(_folder(output), found["total"], found["started"], found["shared"])

    def outcomes(self) -> dict[int, list[Outcome]]:
        """What is known so far, by the number of the run; of several seeds, one after the other."""
        known = {}
        for path in self.folder.glob("run-*.json"):
            number = int(path.stem.partition("-")[2])
            known[number] = [Outcome(**each) for each in json.loads(path.read_text())]
        return dict(sorted(known.items()))

    def record(self, number: int, outcomes: list[Outcome]) -> None:
        if not (self.folder / "sweep.json").exists():
            return  # the sweep was stopped while this run, in another process, went on
        with replacing(self.folder / f"run-{number}.json") as file:
            file.write(json.dumps([asdict(outcome) for outcome in outcomes]).encode())

    def place(self, number: int, cell: str) -> str:
        """One line: which run of how many, its cell, time so far and time left."""
        so_far = time.time() - self.started
        known = self.outcomes()
        trained = [n for n in known if any(o.status != "skipped" for o in known[n])]
        left = ""
        if trained:
            # What was skipped took no time; the rest is taken to be like what was trained.
            each = so_far / len(trained)
            left = f", about {duration(each * (self.total - len(known)))} left"
        return f"run {number + 1} of {self.total}: {cell}  ({duration(so_far)} so far{left})"

    def table(self) -> str:
        """What happened to each run."""
        known = self.outcomes()
        lines = [_row("run", "status", "test acc", "time", "")]
        for number, outcomes in known.items():
            for outcome in outcomes:
                lines.append(_outcome_row(number, outcome, len(outcomes) > 1))
        every = [outcome.status for outcomes in known.values() for outcome in outcomes]
        missing = self.total - len(known)
        counts = [f"{every.count(name)} {name}" for name in dict.fromkeys(every)]
        took = duration(time.time() - self.started)
        total = f"{self.total} run{'s' if self.total > 1 else ''} in {took}"
        what = ", ".join(counts)
        if len(every) > len(known):
            # Seeds are counted apart: a run that is not begun may have any number of them.
            rest = f"; {missing} of the runs not begun" if missing else ""
            return "\n".join([*lines, f"{total}; of {len(every)} seeds {what}{rest}"])
        what += f", {missing} not begun" if missing and every else ""
        return "\n".join([*lines, f"{total}: {what or 'none begun'}"])

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
        os.environ.pop(VARIABLE, None)


def this_run() -> int | None:
    """The number of this run in its sweep, or None for a run of its own."""
    hydra = HydraConfig.get()
    return int(hydra.job.num) if hydra.mode == RunMode.MULTIRUN else None


def this_cell(sweep: Sweep) -> str:
    """The overrides that tell this run from others of its sweep."""
    own = [text for text in HydraConfig.get().overrides.task if text not in sweep.shared]
    return " ".join(own)


def duration(seconds: float) -> str:
    """A time a person can read: 8 s, 3 min, 2 h 05 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def _folder(output: Path) -> Path:
    return output / ".sweeps" / os.environ[VARIABLE]


def _outcome_row(number: int, outcome: Outcome, several: bool) -> str:
    accuracy = "-" if outcome.test_acc is None else f"{100 * outcome.test_acc:.2f} %"
    took = duration(outcome.seconds) if outcome.seconds else "-"
    seed = f" seed={outcome.seed}" if several else ""
    text = f"{outcome.cell}{seed}" + (f"  {outcome.reason}" if outcome.reason else "")
    return _row(str(number + 1), outcome.status, accuracy, took, text)


def _row(number: str, status: str, accuracy: str, took: str, text: str) -> str:
    return f"{number:>5}  {status:<11}  {accuracy:>8}  {took:>10}  {text}".rstrip()
