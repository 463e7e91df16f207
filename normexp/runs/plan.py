"""The plan of a sweep, ``outputs/NAME/plan.json``: what was asked for, written before anything is
trained.

Progress, what is missing and the command that goes on are read from it and never guessed from what
is there. A second command into the same folder adds to it.
"""

import json
import shlex
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from filelock import FileLock

from normexp import __version__
from normexp.system.errors import UserError, cannot_write
from normexp.system.foreign_files import read_json
from normexp.system.writing import replacing

FILE = "plan.json"
SCHEMA_VERSION = 1

NOT_REPEATED = ("force=true",)
"""Settings of a command that the command to go on leaves out: they would start over."""


@dataclass
class Command:
    """A command that asked for cells."""

    arguments: list[str]
    """As a shell passes them to its module."""
    began: str = ""
    """When, in UTC, as ISO 8601."""
    normexp: str = __version__
    module: str = "normexp.train"

    @staticmethod
    def now(arguments: list[str], module: str) -> "Command":
        began = datetime.now(timezone.utc).isoformat(timespec="seconds")
        return Command(arguments, began, module=module)

    def line(self) -> str:
        """What to type to go on."""
        kept = [one for one in self.arguments if one not in NOT_REPEATED]
        return shlex.join(["python", "-m", self.module, *kept])


@dataclass
class Cell:
    """Runs that differ in nothing but their seed."""

    name: str | None
    """As a run's, of all but the seed; None while its images cannot be read."""
    settings: dict[str, str]
    """What tells it from the other cells of its command, as it was written there."""
    runs: dict[int, str | None]
    """Name of each run's directory by its seed; None where the cell has no name."""
    command: int = 0
    """Which of the plan's commands asked for it first."""


@dataclass
class Comparison:
    """What `normexp.compare` goes by, and what it has decided."""

    asked: dict[str, Any]
    """What was asked for; the same command goes on, another is refused."""
    looks: list[int]
    """Seeds of each cell at each look."""
    levels: list[float]
    """Of each look, of the whole table."""
    length: tuple[str, int]
    """``epochs`` or ``max_steps``, and how many a run trains."""
    rates_tried: int
    """Learning rates that each cell tries at first; 1 for none but its own."""
    share: float
    """Of the training of a run, what trying a rate gets."""
    fuse: dict[str, int] = field(default_factory=dict)
    """By cell, how many runs are trained as one network: measured once, since results differ by
    rounding with it."""
    tried: list[float] = field(default_factory=list)
    """All rates that were tried, by each cell."""
    rates: dict[str, float] = field(default_factory=dict)
    """By cell, the rate that was best; empty before."""
    history: list[list[dict[str, Any]]] = field(default_factory=list)
    """Of each look so far, what is known of each pair."""
    spent: float = 0.0
    """Seconds, of all starts."""


@dataclass
class Plan:
    """All that was asked for in one folder."""

    commands: list[Command] = field(default_factory=list)
    cells: list[Cell] = field(default_factory=list)
    reference: str | None = None
    """The variant that others are compared with; None leaves that to the report."""
    margin: float | None = None
    """Differences in accuracy within it count as none; None leaves that to the report."""
    comparison: Comparison | None = None
    """Where `normexp.compare` made it."""

    def add(self, command: Command, cells: Iterable[Cell]) -> None:
        """Add what a command asks for; cells that are there already gain its seeds."""
        lines = [known.arguments for known in self.commands]
        if command.arguments not in lines:
            self.commands.append(command)
            lines.append(command.arguments)
        place = lines.index(command.arguments)
        for cell in cells:
            known = next((one for one in self.cells if _same(one, cell)), None)
            if known is None:
                self.cells.append(replace(cell, runs=dict(cell.runs), command=place))
            else:
                if cell.runs.keys() - known.runs.keys():
                    known.command = place  # the one that asks for all of them
                known.name = cell.name or known.name
                known.runs = {**cell.runs, **known.runs}
                known.runs |= {seed: name for seed, name in cell.runs.items() if name}

    def missing(self, done: Iterable[str]) -> list[tuple[Cell, list[int]]]:
        """The cells that lack runs, each with the seeds of those.

        Args:
            done: names of the runs that are answered.
        """
        answered = set(done)
        found = []
        for cell in self.cells:
            if lacking := [seed for seed, name in cell.runs.items() if name not in answered]:
                found.append((cell, sorted(lacking)))
        return found

    def goes_on(self, done: Iterable[str]) -> list[str]:
        """The command lines that train what is missing."""
        wanted = {cell.command for cell, _ in self.missing(done)}
        return [self.commands[place].line() for place in sorted(wanted)]


def _same(one: Cell, other: Cell) -> bool:
    """Whether two cells are of the same question."""
    if one.name is None or other.name is None:
        return one.settings == other.settings
    return one.name == other.name


def read(folder: Path) -> Plan | None:
    """The plan of a folder of runs; None where no sweep has written one.

    Raises:
        UserError: it cannot be read.
    """
    path = folder / FILE
    try:
        found = read_json(path)
        if found["schema_version"] != SCHEMA_VERSION:
            raise _unreadable(path)
        plan = Plan(
            [Command(**each) for each in found["commands"]],
            [_cell(**each) for each in found["cells"]],
            found["reference"],
            found["margin"],
            Comparison(**found["comparison"]) if found.get("comparison") else None,
        )
        if not _whole(plan):
            raise _unreadable(path)
        return plan
    except FileNotFoundError:
        return None
    except UserError:
        raise
    except (OSError, ValueError, OverflowError, KeyError, TypeError, AttributeError) as error:
        raise _unreadable(path) from error


def _cell(runs: dict[str, str | None], **rest: Any) -> Cell:
    return Cell(runs={int(seed): name for seed, name in runs.items()}, **rest)


def _whole(plan: Plan) -> bool:
    """Whether a plan that was read holds what plans hold."""
    commands, cells = plan.commands, plan.cells
    names = [name for cell in cells for name in (cell.name, *cell.runs.values())]
    settings = [cell.settings for cell in cells]
    texts = [
        *(word for one in commands for word in one.arguments),
        *(one.began for one in commands),
    ]
    return (
        all(isinstance(one.arguments, list) for one in commands)
        and all(isinstance(one, dict) for one in settings)
        and all(isinstance(name, str | None) for name in (*names, plan.reference))
        and all(
            isinstance(one, str) for one in (*texts, *(v for s in settings for v in s.values()))
        )
        and all(type(cell.command) is int and 0 <= cell.command < len(commands) for cell in cells)
        and (plan.margin is None or (type(plan.margin) in (int, float) and 0 < plan.margin < 1))
    )


def _unreadable(path: Path) -> UserError:
    return UserError(
        f"{path} is damaged or of another version of normexp; remove it, and the sweep's own "
        "command writes it anew"
    )


def extend(folder: Path, command: Command, cells: list[Cell]) -> Plan:
    """Add what a command asks for to the plan of a folder, before it is trained.

    Raises:
        UserError: the plan there cannot be read, or not be written.
    """
    return _change(folder, lambda plan: plan.add(command, cells))


def record(folder: Path, comparison: Comparison, reference: str, margin: float) -> Plan:
    """Write into the plan of a folder how its cells are compared, and what was decided.

    Raises:
        UserError: the plan there cannot be read, or not be written.
    """

    def put(plan: Plan) -> None:
        plan.comparison, plan.reference, plan.margin = comparison, reference, margin

    return _change(folder, put)


def _change(folder: Path, change: Callable[[Plan], None]) -> Plan:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".plan.lock"):
            plan = read(folder) or Plan()
            change(plan)
            content: dict[str, Any] = {"schema_version": SCHEMA_VERSION, **asdict(plan)}
            with replacing(folder / FILE) as file:
                file.write((json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())
    except OSError as error:
        raise cannot_write(folder / FILE, error) from error
    return plan
