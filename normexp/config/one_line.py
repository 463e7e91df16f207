"""What a person did, shown as one line on stderr with a non-zero exit status."""

import contextlib
import os
import sys
import time
from collections.abc import Iterator

from normexp.config.explain import explain
from normexp.system import signals, torchrun
from normexp.system.errors import BusyElsewhere, RunFailed
from normexp.system.printable import printable

BAD_USAGE, FAILED = 2, 1


# Read before one_line_errors sets it for Hydra's sake.
WANTS_TRACEBACK = os.environ.get("HYDRA_FULL_ERROR") == "1"


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Show what a person did as one line on stderr and leave with a non-zero exit status.

    Signals that end the command leave with 128 + signal. A KeyboardInterrupt may carry what to do
    to go on.

    HYDRA_FULL_ERROR=1 shows the traceback as well.
    """
    before = os.environ.get("HYDRA_FULL_ERROR", "0")
    # Hydra then lets errors pass to us instead of printing them over several lines.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        with signals.raised():
            try:
                yield
            except Exception:
                signals.check()  # a library made it of the signal
                raise
    except (RunFailed, BusyElsewhere) as error:
        _tell(str(error))
        sys.exit(FAILED)
    except KeyboardInterrupt as stop:
        _tell(f"interrupted; {str(stop) or signals.AGAIN}")
        sys.exit(signals.status())
    except BrokenPipeError:
        # The reader of our output has gone, as `head` does; python would complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILED)
    except Exception as error:
        # Runs record their own errors: what comes here was wrong with what was asked for.
        if WANTS_TRACEBACK:
            raise
        _tell(f"error: {explain(error)}")
        sys.exit(BAD_USAGE)
    finally:
        os.environ["HYDRA_FULL_ERROR"] = before


def _tell(line: str) -> None:
    """One line on stderr; of the processes that train one run together, rank 0 says it."""
    if torchrun.rank() == 0:
        print(printable(f"normexp: {line}"), file=sys.stderr)
    else:
        # torchrun ends all processes when the first leaves: rank 0 is to have spoken by then.
        time.sleep(2)
