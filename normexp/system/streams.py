"""Standard streams of commands: where nobody reads, no run ends; a full disk is one line."""

import atexit
import contextlib
import errno
import io
import os
import sys
from typing import Any


class _Output(io.FileIO):
    """A standard stream that, once it cannot be written, takes everything and drops it."""

    lost: OSError | None = None
    raises = False
    """Whether the first failure ends the command."""

    def __init__(self, number: int) -> None:
        super().__init__(number, "w", closefd=False)
        self.terminal = self.isatty()

    def write(self, data: Any) -> int:
        if self.lost is None:
            try:
                return super().write(data)
            except OSError as error:
                self.lost = error
                if self.raises:
                    raise BrokenPipeError from error
        return len(data)

    def unread(self) -> bool:
        """Whether it was lost because its reader has gone: a pipe's, or a terminal."""
        assert self.lost is not None
        return self.lost.errno == errno.EPIPE or (self.lost.errno == errno.EIO and self.terminal)


_outputs: dict[str, _Output] = {}


def _wrap(name: str) -> None:
    stream = getattr(sys, name)
    if stream is None:  # it is closed, as by >&-
        setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        return
    # Another where somebody, such as pytest, has put a stream of their own.
    if name in _outputs or stream is not getattr(sys, f"__{name}__"):
        return
    raw = _outputs[name] = _Output(stream.fileno())
    unbuffered = isinstance(stream.buffer, io.RawIOBase)  # python -u
    wrapped = io.TextIOWrapper(
        raw if unbuffered else io.BufferedWriter(raw),
        encoding=stream.encoding, errors=stream.errors, line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )  # fmt: skip
    setattr(sys, name, wrapped)


def begin() -> None:
    """For a command, from its first import on."""
    go_on_unread()
    if "stdout" in _outputs:
        # The first that registers is called last: all else has been printed.
        atexit.register(_tell)


def go_on_unread() -> None:
    """Be silent where nobody reads: in a process of a launcher as in the command."""
    _wrap("stdout")
    _wrap("stderr")


def end_unread() -> None:
    """For commands whose product is what they print: a BrokenPipeError ends them."""
    if "stdout" in _outputs:
        _outputs["stdout"].raises = True


def _tell() -> None:
    """Say that output was lost, with a non-zero status, which Python has no other way for here."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    output = _outputs["stdout"]
    if output.lost is None or output.unread():
        return
    why = output.lost.strerror
    print(
        f"normexp: error: standard output cannot be written: {why}; make room or send it elsewhere",
        file=sys.stderr, flush=True,
    )  # fmt: skip
    os._exit(1)
