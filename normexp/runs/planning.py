"""The jobs of a sweep, composed together: what they share is composed once.

Hydra composes each job from its files, about a tenth of a second each, and a sweep over seeds the
same configuration again and again. Here jobs with the same choices of files share their
composition, single values are set in a copy of it by Hydra's own code, as it does itself, and jobs
that differ in their seed alone share all of it.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig, open_dict

from normexp.config.checks import rates_of, seeds_of
from normexp.config.schema import Config
from normexp.data.enough_images import refuse_unseen
from normexp.runs import plan as plans
from normexp.runs.composing import check, settle
from normexp.runs.directory import RunDirectory
from normexp.runs.identity import cell_id
from normexp.runs.one_run import jobs_of
from normexp.runs.plan import Cell, Command
from normexp.system.errors import UserError


@dataclass
class Job:
    """A combination of the values that a sweep crosses: one run, or one for each of its
    seeds and rates."""

    overrides: list[str]
    """All of it, as Hydra takes them."""
    config: Config | None = None
    """Settled; None where it cannot be."""
    refused: str | None = None
    """Why it can never work, whatever the images."""
    runs: list[tuple[Config, RunDirectory]] = field(default_factory=list)
    """Of each seed at each rate; none where its images or its norm cannot be read."""

    def answers(self) -> list[dict[str, Any]] | None:
        """The results of all its runs, or None if there is something to train or to refuse."""
        if self.refused or self.config is None or self.config.force or not self.runs:
            return None
        found = []
        for _, directory in self.runs:
            if (answer := directory.answer()) is None:
                return None
            found.append(answer)
        return found


class Composer:
    """Composes jobs as Hydra would."""

    def __init__(self, loader: ConfigLoaderImpl, shared: Sequence[str]) -> None:
        """
        Args:
            shared: overrides of Hydra's own keys, which all jobs have.
        """
        self.loader, self.shared = loader, list(shared)
        self.parser = OverridesParser.create(loader)
        self.files: dict[tuple[str, ...], tuple[DictConfig, dict[str, str]]] = {}
        """Compositions, with their choices, by the overrides that choose files."""
        self.settled: dict[tuple[str, ...], Config] = {}
        """Configurations by all overrides but the seed."""

    def config(self, overrides: Sequence[str]) -> Config:
        """The settled configuration of a job.

        Raises:
            UserError, HydraException, OmegaConfBaseException: as ``explain.explain`` shows them.
        """
        seeds = [text.partition("=")[2] for text in overrides if text.startswith("seed=")]
        if len(seeds) != 1 or not (seeds[0].isascii() and seeds[0].isdecimal()):
            return self._settled(tuple(overrides))
        # Of equal settings but the seed, all but the seed is equal.
        rest = tuple("seed=0" if text.startswith("seed=") else text for text in overrides)
        return replace(self._settled(rest), seed=int(seeds[0]))

    def _settled(self, overrides: tuple[str, ...]) -> Config:
        if overrides not in self.settled:
            parsed = self.parser.parse_overrides(list(overrides))
            choosing = [one for one in parsed if self._chooses_files(one)]
            composed, chosen = self._composed(choosing)
            composed = copy.deepcopy(composed)
            values = [one for one in parsed if one not in choosing]
            ConfigLoaderImpl._apply_overrides_to_config(values, composed)
            self.settled[overrides], _ = settle(composed, chosen)
        return self.settled[overrides]

    def _chooses_files(self, override: Override) -> bool:
        is_group: bool = self.loader.repository.group_exists(override.key_or_group)
        return is_group and not isinstance(override.value(), dict)

    def _composed(self, choosing: list[Override]) -> tuple[DictConfig, dict[str, str]]:
        key = tuple(str(one.input_line) for one in choosing)
        if key not in self.files:
            composed = self.loader.load_configuration("config", [*self.shared, *key], RunMode.RUN)
            chosen = dict(composed.hydra.runtime.choices)
            with open_dict(composed):
                del composed["hydra"]
            self.files[key] = composed, chosen
        return self.files[key]


def compose(loader: ConfigLoaderImpl, shared: Sequence[str], lists: list[list[str]]) -> list[Job]:
    """The jobs of a sweep, with what can be said of each before it begins.

    Args:
        shared: overrides of Hydra's own keys, which all jobs have.
        lists: the overrides of each job.

    Raises:
        HydraException, OmegaConfBaseException: one cannot be composed.
    """
    composer = Composer(loader, shared)
    jobs = [Job(overrides) for overrides in lists]
    for job in jobs:
        try:
            job.config = composer.config(job.overrides)
            check(job.config)
            refuse_unseen(job.config)
        except UserError as error:
            job.refused = str(error)
            continue
        try:
            job.runs = jobs_of(job.config)
        except UserError:
            continue  # of its images: the job says so when it begins, and the rest go on
    return jobs


def _cells(job: Job, config: Config, settings: dict[str, str]) -> list[Cell]:
    """Those that a job asks for: one, or one for each of its learning rates.

    Args:
        settings: what tells them from those of other jobs.
    """
    cells = []
    for rate in rates_of(config):
        named = settings if config.rates is None else {**settings, "optimizer.lr": str(rate)}
        cell = Cell(None, named, dict.fromkeys(seeds_of(config)))
        for own, directory in job.runs:
            if own.optimizer.lr == rate:
                cell.name = cell_id(own, directory.beside)
                cell.runs[own.seed] = directory.run_id
        cells.append(cell)
    return cells


def write_plan(
    jobs: Sequence[Job], command: Command, label: Callable[[list[str]], dict[str, str]]
) -> list[Path]:
    """Write what jobs ask for into the plans of their folders, before anything is trained.

    Args:
        command: that asks for them.
        label: what tells the cell of a job from others, by its overrides.

    Returns:
        The folders, ``outputs/NAME`` for each name.

    Raises:
        UserError: a plan cannot be written.
    """
    folders: dict[Path, dict[Any, Cell]] = {}
    for job in jobs:
        if job.config is None or job.refused:
            continue
        folder = Path(job.config.output) / job.config.name
        cells = folders.setdefault(folder, {})
        for cell in _cells(job, job.config, label(job.overrides)):
            key = cell.name or tuple(cell.settings.items())
            if key in cells:
                cells[key].runs |= cell.runs
            else:
                cells[key] = cell
    for folder, cells in folders.items():
        plans.extend(folder, command, list(cells.values()))
    return list(folders)
