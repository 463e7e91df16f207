"""What all parts share: things timed in turn, and rows that are kept as they come."""

import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from matplotlib.figure import Figure
from tqdm import tqdm

from normexp.system import figure_files
from normexp.system.writing import refuse_unwritable, replacing

Row = dict[str, Any]
Rounds = npt.NDArray[np.float64]
"""One number a round."""
Take = Callable[[int], object]
"""Does something so many times, and may not wait for its end on the device."""
Timer = Callable[[dict[Any, Take]], dict[Any, Rounds]]
""":func:`in_turn`, as a person wants it."""


def repeat(do: Callable[[], object]) -> Take:
    def take(count: int) -> None:
        for _ in range(count):
            do()

    return take


def in_turn(
    device: torch.device, rounds: int, seconds: float, takes: dict[Any, Take]
) -> dict[Any, Rounds]:
    """Seconds that each takes for one time, in each round: a machine that drifts is fair to all.

    Args:
        seconds: that each takes in a round, about.
    """

    def timed(take: Take, count: int) -> float:
        began = time.perf_counter()
        take(count)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - began

    counts = {}
    for key, take in takes.items():
        timed(take, 1)  # the first may compile, or fill caches
        count = 1
        while (taken := timed(take, count)) < seconds / 8:
            count *= 2
        counts[key] = max(1, round(count * seconds / taken))
    times: dict[Any, list[float]] = {key: [] for key in takes}
    for _ in range(rounds):
        for key, take in takes.items():
            times[key].append(timed(take, counts[key]) / counts[key])
    return {key: np.array(found) for key, found in times.items()}


def spread(name: str, rounds: Rounds) -> Row:
    """The median, smallest and largest of what the rounds gave, as columns of a row."""
    low, middle, high = np.quantile(rounds, (0, 0.5, 1)).tolist()
    return {name: middle, f"{name}_min": low, f"{name}_max": high}


def keep(
    rows: Iterable[Row], columns: Mapping[str, str], path: Path,
    draw: Callable[[pd.DataFrame], Figure] | None = None,
) -> None:  # fmt: skip
    """Write rows to ``path`` as they come, and print them at the end, also if not all came.

    Args:
        rows: measured only when asked for.
        columns: that are printed, with their headings.
        draw: makes the picture beside the CSV; None for none.

    Raises:
        UserError: a file cannot be written.
        KeyboardInterrupt: a person stopped it.
    """
    fix = "choose another --csv"
    for place in (path, path.with_suffix(".png")):
        refuse_unwritable(place, "--csv")
    done: list[Row] = []
    try:
        for row in tqdm(rows, "measured", unit=" rows", leave=False, disable=None):
            done.append(row)
            with replacing(path, fix, follow=True) as file:
                pd.DataFrame(done).to_csv(file, index=False)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"what was measured is in {path}") from None
    finally:
        if done:
            table = pd.DataFrame(done)
            shown = table.reindex(columns=list(columns)).set_axis(list(columns.values()), axis=1)
            shown = shown.loc[:, (shown != "").any()]
            print(shown.to_string(index=False, float_format=_short, na_rep="-"))
            if draw is not None:
                figure_files.save(draw(table), path.with_suffix(".png"), fix, follow=True)
            print(f"written to {path}" + (" and its picture" if draw is not None else ""))


def _short(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"
