"""The sweepers that conf/config.yaml and `normexp.compare` name. Hydra takes sweepers only from
below this namespace package, which has no ``__init__`` of its own."""

import contextlib
from dataclasses import dataclass
from typing import Any, Optional

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper, BasicSweeperConf
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser


class PlannedSweeper(BasicSweeper):
    """Crosses values as the basic sweeper does; writes the plan first, and hands only those jobs to
    the launcher that have something to train."""

    def sweep(self, arguments: list[str]) -> Any:
        # Whoever uses Hydra for something else loads this file too.
        from normexp.runs import planning, sweep_job

        assert self.config is not None
        assert self.launcher is not None
        loader: Any = self.hydra_context.config_loader  # type: ignore[union-attr]
        parsed = OverridesParser.create(loader).parse_overrides([*self._parse_config(), *arguments])
        (lists,) = self.split_arguments(parsed, None)
        print(f"composing {len(lists)} combinations", flush=True)
        jobs = planning.compose(loader, list(self.config.hydra.overrides.hydra), lists)
        pending, first, returns = sweep_job.begin(jobs), 0, []
        for part in self.split_overrides_to_chunks(pending, self.max_batch_size) if pending else ():
            results = self.launcher.launch(part, initial_job_idx=first)
            for result in results:
                _ = result.return_value  # raises what the job did
            first += len(part)
            returns.append(results)
        return returns


class ComparingSweeper(BasicSweeper):
    """Tunes cells and gives them seeds until they are decided; `normexp.compare` asks for it."""

    def __init__(self, max_batch_size: int | None, params: Any = None, **asked: str | None) -> None:
        super().__init__(max_batch_size, params)
        self.asked = asked

    def sweep(self, arguments: list[str]) -> Any:
        from normexp.comparing import settings, start
        from normexp.comparing.stage import Incomplete

        given = {key: self.asked[key.replace(".", "_")] for key in settings.KEYS}
        with contextlib.suppress(Incomplete):  # the table of the sweep tells
            start.start(self, arguments, settings.read(given)).run()
        return []


@dataclass
class ComparingSweeperConf(BasicSweeperConf):
    """The keys of :data:`normexp.comparing.settings.KEYS`, as they were written."""

    _target_: str = f"{ComparingSweeper.__module__}.{ComparingSweeper.__name__}"
    looks: Optional[str] = None  # noqa: UP045 - OmegaConf wants it so
    tune: Optional[str] = None  # noqa: UP045
    tune_rates: Optional[str] = None  # noqa: UP045
    tune_seeds: Optional[str] = None  # noqa: UP045
    tune_share: Optional[str] = None  # noqa: UP045
    budget: Optional[str] = None  # noqa: UP045
    reference: Optional[str] = None  # noqa: UP045
    margin: Optional[str] = None  # noqa: UP045


TARGET = f"{PlannedSweeper.__module__}.{PlannedSweeper.__name__}"

ConfigStore.instance().store(
    group="hydra/sweeper",
    name="normexp",
    node=BasicSweeperConf(_target_=TARGET),
    provider="normexp",
)

ConfigStore.instance().store(
    group="hydra/sweeper", name="compare", node=ComparingSweeperConf, provider="normexp"
)
