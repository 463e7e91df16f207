"""Several things timed in one process and in turn: a machine that drifts is fair to all."""

import statistics
import time
from collections.abc import Callable
from typing import Any, TypeVar

Loop = Callable[[int], float]
"""Does something so many times and tells how many seconds that took."""

Key = TypeVar("Key")


def timed(take: Callable[[int], None], device: Any) -> Loop:
    """A loop from what does something ``count`` times on a device and may not wait for its end."""

    def loop(count: int) -> float:
        _wait_for(device)
        began = time.perf_counter()
        take(count)
        _wait_for(device)
        return time.perf_counter() - began

    return loop


def _wait_for(device: Any) -> None:
    if device.type == "cuda":
        import torch

        torch.cuda.synchronize(device)


def in_turn(loops: dict[Key, Loop], rounds: int, seconds: float) -> dict[Key, list[float]]:
    """Seconds that each loop takes for one time, in each round.

    Args:
        seconds: that a loop takes in a round, about.
    """
    counts = {}
    for name, loop in loops.items():
        loop(3)
        counts[name] = max(1, round(5 * seconds / loop(5)))
    times: dict[Key, list[float]] = {name: [] for name in loops}
    for _ in range(rounds):
        for name, loop in loops.items():
            times[name].append(loop(counts[name]) / counts[name])
    return times


def spread(name: str, values: list[float]) -> dict[str, float]:
    """The median, smallest and largest of what the rounds gave, as fields of a row."""
    return {name: statistics.median(values), f"{name}_min": min(values), f"{name}_max": max(values)}


def ratios(name: str, over: list[float], under: list[float]) -> dict[str, float]:
    """The spread of a ratio that is taken round by round."""
    return spread(name, [a / b for a, b in zip(over, under, strict=True)])


def of_spread(row: dict[str, Any], name: str) -> tuple[float, float, float]:
    """What :func:`spread` put into a row."""
    return row[name], row[f"{name}_min"], row[f"{name}_max"]


def spread_names(*names: str) -> list[str]:
    """The columns that :func:`spread` fills."""
    return [name + end for name in names for end in ("", "_min", "_max")]
