"""python -m normexp.compare: tune each norm, add seeds until it is decided, within a time."""

import os
import sys

from normexp import __version__
from normexp.comparing.settings import KEYS, split
from normexp.config.command_line import look_for_norms_here
from normexp.config.one_line import one_line_errors
from normexp.config.settings import GOES_ON, prepare, refuse_unknown_flags
from normexp.runs import sweep as sweeps
from normexp.runs.sweep_job import tell_of_all
from normexp.system.errors import UserError

HELP = f"""\
usage: python -m normexp.compare norm=bn,gn,ln batch_size=2 [KEY=VALUE ...]

Tunes the learning rate of each norm (or whatever else is given several values),
adds fresh seeds until each difference is decided or all looks are taken, and
ends with an answer. The same command goes on where it was stopped.

{chr(10).join(f"  {key + '=':<11} {what}" for key, what in KEYS.items())}

All other keys are those of python -m normexp.train, --help of which lists them;
several values are separated by commas, as with its -m. Launchers are Hydra's:
hydra/launcher=joblib.
"""


def main() -> None:
    look_for_norms_here()
    os.environ.pop(sweeps.VARIABLE, None)
    arguments = sys.argv[1:]
    if "--version" in arguments:
        print(f"normexp {__version__}")
        return
    if not arguments or {"-h", "--help"} & set(arguments):
        print(HELP, end="")
        return
    with one_line_errors():
        sweeps.typed[:], sweeps.module = arguments, "normexp.compare"
        settings = refuse_unknown_flags(arguments)
        if flags := [one for one in arguments if one not in settings and one not in ("-m",)]:
            raise UserError(f"{flags[0]}: compare takes settings only, key=value; leave it out")
        own, runs = split(settings)
        runs = prepare(runs, sweeps=True)
        sys.argv[1:] = ["-m", "hydra/sweeper=compare", *own, *runs]
        from normexp.train import job

        try:
            with tell_of_all(GOES_ON, table=False):
                job()
        except KeyboardInterrupt:
            raise KeyboardInterrupt(GOES_ON) from None


if __name__ == "__main__":
    main()
