"""Ctrl-C, SIGTERM and SIGHUP end a command with one line and the status 128 + signal, from the
first import on: until a command can clean up behind itself at once, then by a KeyboardInterrupt."""

import atexit
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

AGAIN = "give the same command again"

Handler = Callable[[int, FrameType | None], Any]


class Interrupted(KeyboardInterrupt):
    """Python would end itself by SIGINT, whatever the status, after one of the very class that
    passed through exec(), as that of dataclasses, although it was caught."""


_last: int = signal.SIGINT
"""The signal that ends this command."""

_raised = False
"""Whether one has been raised; what it passes through may swallow it or make it another error."""


def received(number: int) -> None:
    global _last
    _last = number


def check() -> None:
    """Raise again what a library swallowed.

    Raises:
        Interrupted: a signal came, and the command went on.
    """
    if _raised:
        raise Interrupted


def status() -> int:
    """The exit status of a command that a signal ended."""
    return 128 + _last


def handle(handler: Handler | signal.Handlers) -> dict[int, Any]:
    """Give the signals that end a command to a handler, but for a SIGHUP that nohup ignores.

    Returns:
        The handlers before; none where Python allows no change, in another than the main thread.
    """
    before: dict[int, Any] = {}
    with contextlib.suppress(ValueError):
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            ignored = name == "SIGHUP" and number and signal.getsignal(number) == signal.SIG_IGN
            if number is not None and not ignored:
                before[number] = signal.signal(number, handler)
    return before


def restore(before: dict[int, Any]) -> None:
    for number, handler in before.items():
        if handler is not None:  # None: not one of Python's
            signal.signal(number, handler)


def leave(number: int, frame: FrameType | None) -> None:
    """End this process now: there is nothing that it would have to save."""
    with contextlib.suppress(OSError):
        os.write(2, f"normexp: interrupted; {AGAIN}\n".encode())
    os._exit(128 + number)


def begin() -> None:
    """For a command, from its first import to the end of its process."""
    handle(leave)
    # All is done and told by then, and Python takes its handlers away before the process ends.
    atexit.register(handle, signal.SIG_IGN)


def _importing(frame: FrameType | None) -> bool:
    while frame is not None and frame.f_code.co_filename != "<frozen importlib._bootstrap>":
        frame = frame.f_back
    return frame is not None


@contextlib.contextmanager
def raised() -> Iterator[None]:
    """Within, a signal raises KeyboardInterrupt, as Ctrl-C does in any Python."""

    global _raised
    _raised = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        global _raised
        if _importing(frame):
            # Libraries catch all that an import raises, and the command would go on.
            leave(number, frame)
        received(number)
        _raised = True
        raise Interrupted

    received(signal.SIGINT)
    before = handle(interrupt)
    try:
        yield
    finally:
        restore(before)


def is_command() -> bool:
    """Whether this process is `normexp ...` or `python -m normexp...`, which is importing it; not
    one that imports it as a library, a launcher's worker, or one of several under torchrun."""
    argv = getattr(sys, "argv", None) or [""]
    if "RANK" in os.environ or len(argv) > len(sys.orig_argv):
        return False
    if argv[0] == "-m":  # runpy looks for the module, and imports its package for that
        module = sys.orig_argv[-len(argv)].removeprefix("-m")
        return module.partition(".")[0] == "normexp"
    # Workers are told their parent's argv, which the system did not give them.
    name = os.path.basename(argv[0]).removesuffix(".exe")
    return name == "normexp" and argv[0] in sys.orig_argv


class Interrupts:
    """Turns the first Ctrl-C, SIGTERM or SIGHUP into a wish that the loop fulfils at its next step;
    the second acts at once."""

    def __init__(self) -> None:
        self.received = False
        self.previous: dict[int, Any] = {}

    def wanted(self) -> bool:
        return self.received

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = True
        received(number)
        self._restore()

    def _restore(self) -> None:
        restore(self.previous)
        self.previous = {}

    def __enter__(self) -> "Interrupts":
        self.previous = handle(self._receive)
        return self

    def __exit__(self, *exception: object) -> None:
        self._restore()
