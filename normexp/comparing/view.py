"""What a person sees of a comparison: a line a stage and a cell, and on a terminal a bar."""

import contextlib
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from normexp.comparing.cells import Table
from normexp.comparing.looks import Verdict
from normexp.report.statistics import Pair, half_width
from normexp.system.printable import printable


def say(text: str) -> None:
    print(printable(text), flush=True)


@contextlib.contextmanager
def bar(what: str, results: Sequence[Path], wanted: bool = True) -> Iterator[None]:
    """A bar over runs while some process trains them, on a terminal only.

    Args:
        results: the files that are there once a run has ended.
    """
    if not (wanted and sys.stderr.isatty()):
        yield
        return
    done = threading.Event()
    with tqdm(
        total=len(results), desc=what, unit="run", dynamic_ncols=True, leave=False,
        bar_format="{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}]",
    ) as shown:  # fmt: skip

        def watch() -> None:
            while not done.wait(0.5):
                shown.n = sum(path.exists() for path in results)
                shown.refresh()

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


def standings(table: Table, known: dict[Pair, Verdict]) -> list[str]:
    """A line a cell: seeds so far, its difference with the 95 % interval, and the verdict."""
    by_cell = {pair[0]: one for pair, one in known.items()}
    several = len({cell.condition for cell in table.cells}) > 1
    names = [
        f"{cell.condition}: {cell.variant}" if several else cell.variant for cell in table.cells
    ]
    width = max(map(len, names))
    scores = table.scores()
    lines = []
    for number, (cell, name) in enumerate(zip(table.cells, names, strict=True)):
        column = scores[number].dropna()
        one = by_cell.get(number)
        if one is None:
            half = half_width(column.sem(), len(column) - 1)
            what = f"{100 * column.mean():6.2f} ± {100 * half:.2f} %  reference"
        else:
            half = (one.high - one.low) / 2
            what = f"{100 * one.difference:+6.2f} ± {100 * half:.2f}    {one.verdict}"
        lines.append(f"  {name:<{width}}  {cell.seeds:>2} seeds  {what}")
    return lines
