"""normexp: which normalization layer, at which batch size, and what does it cost?"""

from normexp import signals

__version__ = "0.1.0"

if signals.is_command():
    # First of all: the imports of a command take seconds.
    signals.handle(signals.leave)
    from normexp import streams

    streams.begin()
