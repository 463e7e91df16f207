"""Simulate `normexp.compare`: how often tables are told apart falsely, how often rightly, and with
how many seeds, beside the same test with a number of seeds that is fixed. Takes some minutes;
docs/compare.md has what it prints.
"""

import argparse

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from normexp.comparing.looks import Verdict, levels, look
from normexp.comparing.settings import LOOKS
from normexp.report.statistics import Pair, max_t
from normexp.report.thresholds import LEVEL

Floats = NDArray[np.float64]
EFFECTS = (0.0, 0.5, 1.0, 1.5, 2.0)
"""Of half of the comparisons, in standard deviations of the paired differences; the rest are of
equals."""
FIXED = (6, 8, 10, 12, 14, 16)
SPREAD = 0.012
"""Standard deviation of a difference, as a fraction: the study's (docs/study)."""


def draw(rng: np.random.Generator, shape: str, seeds: int, variants: int, tables: int) -> Floats:
    """Accuracies (tables, seeds, variants) less what seeds share, such that differences have the
    standard deviation SPREAD."""
    size = (tables, seeds, variants)
    values = rng.normal(size=size) if shape == "normal" else (rng.gamma(4.0, size=size) - 4) / 2
    return values * SPREAD / np.sqrt(2)


def sequential(scores: Floats, planned: list[int], spent: list[float]) -> tuple[Floats, Floats]:
    """One table, looked at as planned: by comparison, whether it was found different, and the seeds
    that it took. Columns of scores: the reference of each four, then the four."""
    frame, pairs = table(scores)
    lost = pd.Series(0.0, index=frame.columns)
    known: dict[Pair, Verdict] = {}
    taken = np.zeros(len(pairs))
    for place, (seeds, level) in enumerate(zip(planned, spent, strict=True)):
        closed = [known[pair].verdict != "undecided" if known else False for pair in pairs]
        taken[~np.array(closed)] = seeds
        part = frame.iloc[:seeds].copy()
        for (cell, _), done, n in zip(pairs, closed, taken, strict=True):
            if done:
                part.loc[int(n) :, cell] = np.nan
        known = look(part, pairs, lost, known, place, level)
        if all(one.verdict != "undecided" for one in known.values()):
            break
    different = [one.verdict in ("better", "worse") for one in known.values()]
    return np.array(different, dtype=float), taken


def table(scores: Floats) -> tuple[pd.DataFrame, list[Pair]]:
    frame = pd.DataFrame(scores)
    pairs = [(column, column - column % 5) for column in range(scores.shape[1]) if column % 5]
    return frame, pairs


def fixed(scores: Floats, seeds: int) -> Floats:
    """One table, tested once: by comparison, whether it was found different."""
    frame, pairs = table(scores)
    differences = np.array([frame[cell] - frame[other] for cell, other in pairs]).T[:seeds]
    return (max_t(differences) <= LEVEL).astype(float)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", type=int, default=400, help="for each row")
    parser.add_argument("--looks", type=int, nargs="+", default=list(LOOKS))
    parser.add_argument("--power", type=float, default=2.0, help="of the spending function")
    options = parser.parse_args()
    planned, spent = options.looks, levels(options.looks, power=options.power)
    shown = ", ".join(f"{seeds} seeds at {100 * level:.2f} %" for seeds, level in
                      zip(planned, spent, strict=True))  # fmt: skip
    print(f"looks: {shown}; {options.tables} tables a row\n")
    print("| comparisons | accuracies | effect, sd | false difference in a table | power | seeds, "
          "those that differ | seeds, all | fixed n of that power | power of fixed n = "
          f"{', '.join(map(str, FIXED))} |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|")
    for comparisons in (4, 20):
        for shape in ("normal", "skewed"):
            for effect in EFFECTS:
                print(row(comparisons, shape, effect, options.tables, planned, spent), flush=True)


def row(
    comparisons: int, shape: str, effect: float, tables: int, planned: list[int], spent: list[float]
) -> str:
    rng = np.random.default_rng(comparisons)
    columns = comparisons * 5 // 4
    scores = draw(rng, shape, max(*planned, *FIXED), columns, tables)
    # Every other comparison differs.
    differs = np.array([column % 5 in (1, 3) and effect > 0 for column in range(columns)])
    scores[:, :, differs] += effect * SPREAD
    truly = differs[[column for column in range(columns) if column % 5]]
    ended = [sequential(one, planned, spent) for one in scores]
    found, taken = np.array([one[0] for one in ended]), np.array([one[1] for one in ended])
    false = (found[:, ~truly] > 0).any(axis=1).mean()
    cells = [comparisons, shape, effect, f"{100 * false:.1f} %"]
    if not effect:
        return "| " + " | ".join(map(str, [*cells, "", "", f"{taken.mean():.1f}", "", ""])) + " |"
    power = found[:, truly].mean()
    alone = [np.mean([fixed(one, n)[truly].mean() for one in scores]) for n in FIXED]
    enough = [n for n, each in zip(FIXED, alone, strict=True) if each >= power - 0.005]
    cells += [f"{power:.2f}", f"{taken[:, truly].mean():.1f}", f"{taken.mean():.1f}"]
    cells.append(str(enough[0]) if enough else f"above {FIXED[-1]}")
    cells.append(" ".join(f"{each:.2f}" for each in alone))
    return "| " + " | ".join(map(str, cells)) + " |"


if __name__ == "__main__":
    main()
