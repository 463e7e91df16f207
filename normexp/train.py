"""python -m normexp.train: train one run, or a sweep of runs with -m."""

import sys
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig

from normexp.config import conf_dir, register
from normexp.data.sources import fingerprint
from normexp.entry import one_line_errors, refuse_unknown_flags, settle
from normexp.errors import RunFailed, UserError
from normexp.norms.rules import source_digest
from normexp.run_directory import RunDirectory, run_id

register()

failures: list[Exception] = []
"""What went wrong in the runs of this process."""

FINAL = ("completed", "diverged")


@hydra.main(config_path=str(conf_dir()), config_name="config", version_base="1.3")
def job(composed: DictConfig) -> float | None:
    """One run; its validation accuracy is what a sweeper may optimize."""
    try:
        return _train_unless_done(composed)
    except (UserError, RunFailed) as error:
        # Hydra would print a line of its own before ours if the error passed through it.
        failures.append(error)
        return None


def _train_unless_done(composed: DictConfig) -> float | None:
    config, notes = settle(composed)
    identity = run_id(config, fingerprint(config.data), source_digest(config.norm))
    directory = RunDirectory(config, identity)
    result = directory.result()
    if result is not None and result["status"] in FINAL and not config.force:
        print(f"{directory.path} is {result['status']}; force=true trains it again", flush=True)
        return _objective(result)
    # torch takes seconds to import: only a run that trains needs it.
    from normexp.trainer.run import run

    return _objective(run(config, directory, notes))


def _objective(result: dict[str, Any]) -> float | None:
    accuracy = result["val_acc"]
    return None if accuracy is None else float(accuracy)


def main() -> None:
    # A norm of one's own may lie in the folder one works in, with the console script too.
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    with one_line_errors():
        refuse_unknown_flags(sys.argv[1:])
        job()
        for error in failures:
            raise error


if __name__ == "__main__":
    main()
