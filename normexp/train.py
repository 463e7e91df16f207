"""python -m normexp.train: train one run, or a sweep of runs with -m."""

import os
import sys
import time

import hydra
from omegaconf import DictConfig

from normexp import __version__
from normexp.config.choices import register
from normexp.config.command_line import look_for_norms_here
from normexp.config.one_line import one_line_errors
from normexp.config.schema import conf_dir
from normexp.config.settings import how_to_go_on, prepare, refuse_unknown_flags
from normexp.help import completion, key_help
from normexp.runs import sweep as sweeps
from normexp.runs.one_run import accuracy, train_unless_done
from normexp.runs.sweep_job import run_in_sweep, tell_of_all
from normexp.system import signals, streams

register()
key_help.register()

failures: list[Exception] = []
"""What went wrong in a run that is of no sweep; Hydra would print a line of its own before ours if
the error passed through it."""


@hydra.main(config_path=str(conf_dir()), config_name="config", version_base="1.3")
def job(composed: DictConfig) -> float | None:
    """One run, alone or of a sweep; its validation accuracy is what a sweeper may optimize."""
    streams.go_on_unread()
    signals.check()
    number = sweeps.this_run()
    if number is not None:
        return run_in_sweep(composed, number)
    try:
        return accuracy([answer.result for answer in train_unless_done(composed)])
    except Exception as error:
        failures.append(error)
        return None


def main() -> None:
    look_for_norms_here()
    os.environ.pop(sweeps.VARIABLE, None)
    if "--version" in sys.argv[1:]:  # Hydra's parser would tell its own.
        print(f"normexp {__version__}")
        return
    if completion.main(sys.argv[1:]):
        return
    with one_line_errors():
        sweeps.typed[:] = flags = sys.argv[1:]
        for setting in (given := refuse_unknown_flags(flags)):
            flags.remove(setting)
        settings = prepare(given, sweeps=not {"-m", "--multirun"}.isdisjoint(flags))
        sys.argv[1:] = flags + settings
        goes_on = how_to_go_on(settings)
        try:
            with tell_of_all(goes_on):
                job()
        except KeyboardInterrupt:
            raise KeyboardInterrupt(goes_on) from None
        for error in failures:
            raise error
        _time_cells()


def _time_cells() -> None:
    """Of a sweep that came to its end: what a step of each cell costs."""
    for sweep in sweeps.opened:
        took = time.monotonic() - sweep.began
        for folder in sweep.finished:
            # Not before: it takes a second to import.
            from normexp.report.timing import after_sweep

            after_sweep(folder, took)


if __name__ == "__main__":
    main()
