"""Draw docs/precise.png of the runs in outputs/precise: what other statistics than running averages
bring BN at batch 2. `scripts/figures.sh IMAGES precise` makes the runs.

    python scripts/draw_precise.py outputs/precise docs/precise.png
"""

import sys

import matplotlib.pyplot as plt
import pandas as pd

import normexp
from normexp.report.statistics import half_width

ROWS = {
    "BN, statistics of each\ntest batch (128)": ("bn", None, "batch"),
    "GN": ("gn", None, "running"),
    "BN, Precise-BN": ("bn", None, "precise"),
    "BN, statistics frozen\nfrom 3/4 of training": ("frozen_bn", 0.75, "running"),
    "BN, statistics frozen\nfrom half of training": ("frozen_bn", 0.5, "running"),
}
"""Norm, norm.freeze_at, and the statistics of evaluation."""


def accuracies(runs: pd.DataFrame, norm: str, freeze_at: float | None, kind: str) -> pd.Series:
    """By seed, in percent."""
    own = runs[runs["norm"] == norm]
    if freeze_at is not None:
        own = own[own["norm.freeze_at"] == freeze_at]
    column = "test_acc" if kind == "running" else f"test_acc_{kind}"
    return 100 * own.set_index("seed")[column].astype(float)


def main() -> None:
    folder, out = sys.argv[1:]
    runs = normexp.read_runs(folder)
    base = accuracies(runs, "bn", None, "running")
    figure, axes = plt.subplots(figsize=(7.5, 3), layout="constrained")
    for place, (name, which) in enumerate(ROWS.items()):
        gain = (accuracies(runs, *which) - base).dropna()
        half = half_width(gain.sem(), len(gain) - 1)
        print(f"{name!r}: {gain.mean():+.2f} ± {half:.2f} (n = {len(gain)})")
        axes.errorbar(gain.mean(), place, xerr=half, fmt="o", color="#0072B2", capsize=4)
        above = {"xytext": (0, 7), "textcoords": "offset points", "ha": "center"}
        axes.annotate(f"{gain.mean():+.2f}", (gain.mean(), place), fontsize=9, **above)
    axes.axvline(0, color="0.5", lw=1)
    axes.set_yticks(range(len(ROWS)), list(ROWS))
    axes.set_ylim(-0.6, len(ROWS) - 0.3)
    axes.set_xlabel("points of test accuracy over BN with running averages (95 %)")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(out, dpi=130)


if __name__ == "__main__":
    main()
