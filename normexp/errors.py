"""The errors that an entry point shows as one line without a traceback."""


class UserError(ValueError):
    """Something a person asked for cannot be done; the message is one line that names the fix."""


class BusyElsewhere(Exception):
    """Another process is training this run."""


class RunFailed(Exception):
    """An error ended a run; the message is one line, the traceback is in the run's train.log."""
