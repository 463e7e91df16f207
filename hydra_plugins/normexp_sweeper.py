"""The sweeper that conf/config.yaml names. Hydra takes sweepers only from below this namespace
package, which has no ``__init__`` of its own."""

from typing import Any

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


TARGET = f"{PlannedSweeper.__module__}.{PlannedSweeper.__name__}"

ConfigStore.instance().store(
    group="hydra/sweeper",
    name="normexp",
    node=BasicSweeperConf(_target_=TARGET),
    provider="normexp",
)
