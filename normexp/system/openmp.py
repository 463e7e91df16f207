"""How the CPU threads of torch wait for each other; to be set before torch is imported."""

import os


def wait_briefly() -> None:
    """Let idle threads give their core away soon.

    GNU OpenMP's threads otherwise spin for milliseconds: where another program wants the cores too,
    as in a second sweep, small steps become ten times slower or worse. What the environment says
    already is left as it is.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
