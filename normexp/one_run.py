"""One run as a person asks for it: found if it is done, refused if it cannot work, else trained."""

from typing import Any

from omegaconf import DictConfig

from normexp import torchrun
from normexp.config import Config
from normexp.config_checks import check_name
from normexp.data.sources import fingerprint
from normexp.entry import check, settle
from normexp.norms.rules import normalizes_share, source_digest
from normexp.openmp import wait_briefly
from normexp.run_directory import RunDirectory, run_id


def train_unless_done(
    composed: DictConfig, place_in_sweep: str | None = None, wait: bool = False
) -> tuple[dict[str, Any], bool]:
    """Train a run, or find that it is done.

    Args:
        place_in_sweep: which run of how many; printed first, and of the run itself less.
        wait: for another process that trains the same run.

    Returns:
        The contents of result.json, and whether anything was trained.

    Raises:
        UserError, RunFailed, BusyElsewhere, KeyboardInterrupt: as normexp.trainer.run.run.
    """
    config, notes = settle(composed)
    check(config, torchrun.world_size())
    directory = directory_of(config)
    answer = None if config.force else directory.answer()
    if answer is not None:
        place = f"{place_in_sweep}: " if place_in_sweep else ""
        if torchrun.rank() == 0:
            print(f"{place}{answer['status']} in {directory.path}; force=true trains again")
        return answer, False
    if place_in_sweep:
        print(place_in_sweep, flush=True)
    wait_briefly()
    # torch takes seconds to import: only a run that trains needs it.
    from normexp.trainer.run import run

    return run(config, directory, notes, brief=place_in_sweep is not None, wait=wait), True


def directory_of(config: Config) -> RunDirectory:
    """Where a settled configuration is, or will be, answered.

    Raises:
        UserError: the images or a norm of one's own cannot be read.
    """
    check_name(config.name)
    source = source_digest(config.norm)
    ranks = torchrun.world_size() if normalizes_share(config.norm) else 1
    return RunDirectory(config, run_id(config, fingerprint(config.data), source, ranks))


def accuracy(result: dict[str, Any]) -> float | None:
    """What a sweeper may optimize: accuracy on the validation images."""
    found = result.get("val_acc")
    return None if found is None else float(found)
