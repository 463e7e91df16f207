"""The jobs of one step of a comparison, through whatever launcher Hydra is configured with."""

from collections.abc import Sequence
from typing import Any

from normexp.runs import planning, sweep_job
from normexp.runs import sweep as sweeps
from normexp.runs.planning import Job
from normexp.system import signals


class Incomplete(Exception):
    """A run failed, so nothing can be decided; the sweep's table tells which and why."""


class Stages:
    """Trains jobs and waits for them, one stage after the other."""

    def __init__(self, sweeper: Any) -> None:
        """
        Args:
            sweeper: Hydra's, set up.
        """
        self.sweeper = sweeper
        self.loader: Any = sweeper.hydra_context.config_loader
        self.shared = list(sweeper.config.hydra.overrides.hydra)

    def compose(self, lists: list[list[str]]) -> list[Job]:
        return planning.compose(self.loader, self.shared, lists)

    def train(self, lists: list[list[str]]) -> list[Job]:
        """Train what is not done yet of each job.

        Returns:
            The jobs; each of their runs is answered.

        Raises:
            Incomplete: a run failed; the others are trained before.
        """
        signals.check()
        (sweep,) = sweeps.opened
        sweep.restart(len(lists), _common(lists))
        jobs = self.compose(lists)
        pending, first = sweep_job.begin(jobs, say=False), 0
        for part in self.sweeper.split_overrides_to_chunks(
            pending, self.sweeper.max_batch_size
        ) if pending else ():  # fmt: skip
            for result in self.sweeper.launcher.launch(part, initial_job_idx=first):
                _ = result.return_value  # raises what the job did
            first += len(part)
        sweep_job.finish(sweep)
        if sweep.failed():
            raise Incomplete
        return jobs


def _common(lists: Sequence[list[str]]) -> list[str]:
    return [text for text in lists[0] if all(text in one for one in lists)]


def changed(overrides: Sequence[str], **settings: Any) -> list[str]:
    """Overrides with some settings put in the place of what they were; `__` stands for a dot."""
    new = {key.replace("__", "."): value for key, value in settings.items()}
    kept = [text for text in overrides if text.partition("=")[0].lstrip("+") not in new]
    return kept + [f"{key}={value}" for key, value in new.items()]
