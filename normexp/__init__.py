"""normexp: which normalization layer, at which batch size, and what does it cost?"""

from pathlib import Path
from typing import TYPE_CHECKING

from normexp.system import signals

if TYPE_CHECKING:
    import pandas as pd

__version__ = "0.1.0"

if signals.is_command():
    # First of all: the imports of a command take seconds.
    signals.begin()
    from normexp.system import streams

    streams.begin()


def read_runs(folder: "str | Path") -> "pd.DataFrame":
    """All runs below a folder, such as ``outputs/first``, as a table with a row a run.

    Columns: ``folder``, where the run lies below the given one; ``status`` (``completed``,
    ``diverged``, ``failed``, ``interrupted`` or ``unfinished``) with its ``reason``; ``model``,
    ``norm``, ``data``, ``batch_size``, ``seed``; every field of result.json by its own name, such
    as ``test_acc`` (0..1), ``ms_per_step`` and ``peak_memory_mb``, with ``test_acc_running``,
    ``version_torch`` and the like for what stands deeper, and ``epochs_trained`` for how many there
    were; and every setting of config.yaml by its dotted key, such as ``norm.num_groups``, None
    where nothing reads it. ``.attrs["unreadable"]`` has a line for each run directory skipped.

        runs = normexp.read_runs("outputs/first")
        runs.groupby(["norm", "batch_size"])["test_acc"].agg(["mean", "std", "count"])

    Raises:
        UserError: there is no such folder, or no run in it that can be read.
    """
    # pandas takes its time, which --help need not wait for.
    from normexp.report.read import read_runs as read

    runs = read(Path(folder))
    runs.table.attrs["unreadable"] = runs.unreadable
    return runs.table
