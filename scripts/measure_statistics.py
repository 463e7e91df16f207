"""Measure what the report's statistics promise, with its own code: how often a 95 % interval holds
the truth, how often a table of equals is told apart, and what looking several times does. Takes a
few minutes; docs/report.md has what it prints.
"""

import argparse
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from normexp.report.statistics import half_width, max_t
from normexp.report.thresholds import LEVEL

Floats = NDArray[np.float64]
Draw = Callable[[np.random.Generator, tuple[int, ...]], Floats]

SHAPES: dict[str, Draw] = {
    "normal": lambda rng, size: rng.normal(size=size),
    "skewed": lambda rng, size: rng.gamma(4.0, size=size) - 4.0,  # of skewness 1
    "t(4)": lambda rng, size: rng.standard_t(4, size=size),
}
"""Distributions around zero."""

SEEDS = (3, 4, 5, 6, 8, 10, 20)
BATCH_SIZES, NORMS = 5, 4
LOOKS = (6, 8, 10, 12)


def coverage(draw: Draw, seeds: int, samples: int) -> float:
    """Share of samples of so many differences whose interval holds the true mean, zero."""
    differences = draw(np.random.default_rng(seeds), (samples, seeds))
    error = differences.std(axis=1, ddof=1) / np.sqrt(seeds)
    half = half_width(error, np.full(samples, seeds - 1))
    return float((np.abs(differences.mean(axis=1)) <= half).mean())


def family_wise_error(draw: Draw, seeds: int, tables: int) -> float:
    """Share of tables of equals in which a difference is found: norms at some batch sizes, each
    beside the reference that all norms of its batch size share."""
    rng = np.random.default_rng(seeds)
    wrong = 0
    for _ in range(tables):
        accuracies = draw(rng, (seeds, BATCH_SIZES, NORMS + 1))
        differences = accuracies[:, :, 1:] - accuracies[:, :, :1]
        wrong += max_t(differences.reshape(seeds, -1)).min() <= LEVEL
    return wrong / tables


def looked_at_four_times(samples: int) -> float:
    """Share of single comparisons of equals that are found different at one look or another."""
    differences = np.random.default_rng(0).normal(size=(samples, max(LOOKS)))
    found = [
        any(max_t(one[:n, None])[0] <= LEVEL for n in LOOKS) for one in differences
    ]  # fmt: skip
    return float(np.mean(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=20_000, help="for each interval")
    parser.add_argument(
        "--tables", type=int, default=2_000, help="of equals, for each number of seeds"
    )
    options = parser.parse_args()
    print("| 95 % interval holds the truth, n = |", *(f"{n} |" for n in SEEDS))
    print("|---|" + "---|" * len(SEEDS))
    for name, draw in SHAPES.items():
        held = (coverage(draw, n, options.samples) for n in SEEDS)
        print(f"| {name} differences |", *(f"{100 * one:.1f} % |" for one in held))
    print(f"\n({options.samples:,} samples each: standard error "
          f"{100 * np.sqrt(0.05 * 0.95 / options.samples):.2f} points.)\n")  # fmt: skip
    tested = [n for n in SEEDS if n >= 6]
    print("| table of equals told apart, n = |", *(f"{n} |" for n in tested))
    print("|---|" + "---|" * len(tested))
    for name, draw in SHAPES.items():
        wrong = (family_wise_error(draw, n, options.tables) for n in tested)
        print(f"| {name} accuracies |", *(f"{100 * one:.1f} % |" for one in wrong))
    error = 100 * np.sqrt(LEVEL * (1 - LEVEL) / options.tables)
    print(
        f"\n({options.tables:,} tables each, of {BATCH_SIZES} batch sizes x {NORMS} norms beside "
        f"one reference: standard error {error:.2f} points.)\n"
    )
    share = looked_at_four_times(options.samples)
    print(
        f"Looking at {', '.join(map(str, LOOKS))} seeds, {100 * share:.1f} % of "
        f"{options.samples:,} comparisons of equals are found different at one look or another."
    )


if __name__ == "__main__":
    main()
