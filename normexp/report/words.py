"""What the runs support, in a student's words, and no more."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from normexp.config.schema import DataName
from normexp.data.sources import MADE_UP
from normexp.report.cells import LR, Sweep, records, text
from normexp.report.tables import spread
from normexp.report.thresholds import LEAST_SEEDS
from normexp.report.verdicts import BestRates, Judge, compared, counted, decided, pairing

MOST = 6
"""How many cells a sentence names; the table has all."""

LOOKED = (
    "Each look at the same comparisons is another chance to be wrong: a test at 5 % that is looked "
    "at four times, with 6, 8, 10 and 12 seeds, finds a difference between equals in 10 % of "
    "cases. Decide how many seeds there shall be before you look."
)


DATA = {
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "image_folder": "an image folder",
    "digits": "handwritten digits",
    "synthetic": "made-up images",
}


def trained(judge: Judge) -> str:
    """In one line what was trained: data, network, epochs, rate."""
    table = judge.sweep.runs
    known = {
        key: table[key].map(text)
        for key in table
        if table[key].notna().all() and key not in judge.sweep.factors
    }
    same = {key: values.iloc[0] for key, values in known.items() if values.nunique() == 1}
    data = same.get("data.name", "")
    if data == DataName.image_folder.value and "data.root" in same:
        data = f"images of {Path(same['data.root']).name}"
    data = DATA.get(data, data)
    steps = same.get("max_steps")
    epochs = None if steps else same.get("epochs", same.get("epochs_trained"))
    rate = same.get(LR, same.get("lr"))
    parts = [
        data, same.get("model.name"), steps and f"{steps} steps",
        epochs and f"{epochs} epoch{'s' * (epochs != '1')}",
        " ".join(filter(None, [same.get("optimizer.name"), rate and f"learning rate {rate}"])),
        f"{_counted(len(table), 'run')} in {_counted(len(judge.cells), 'cell')}",
    ]  # fmt: skip
    return " · ".join(filter(None, parts))


def _counted(count: int, word: str) -> str:
    return f"{count} {word}{'s' if count != 1 else ''}"


def caution(sweep: Sweep) -> str:
    """What stands above all else: of runs on data=synthetic; empty where all images are real."""
    if "data.name" not in sweep.runs:
        return ""
    made_up = sweep.runs["data.name"] == DataName.synthetic.value
    if made_up.all() or not made_up.any():
        return MADE_UP if made_up.any() else ""
    return f"{_counted(made_up.sum(), 'run')}: {MADE_UP}"


def headline(judge: Judge, rows: pd.DataFrame) -> str:
    """The answer, and only what is decided."""
    sweep, beside, found = judge.sweep, compared(rows), decided(rows)
    if not rows["n"].any():
        return "No run is completed: nothing can be compared."
    if sweep.reference is None:
        row = next(rows.itertuples())
        return (
            f"One cell only, so nothing is compared: accuracy {spread(row.mean, row.std)} % "
            f"(n = {row.n})."
        )
    if beside.empty:
        return "No two cells that could be compared are completed yet."
    n = f"n = {counted(beside['pairs'])} seed{'s' if beside['pairs'].max() > 1 else ''} each"
    if (beside["pairs"] < LEAST_SEEDS).all():
        return f"Too few seeds for a verdict: it takes {LEAST_SEEDS} ({n})."
    if found.empty:
        hints = ((beside["low"] > 0) | (beside["high"] < 0)).any()
        found_is = "is more than a hint" if hints else "was found"
        return (
            f"No difference from {named(sweep.reference)} {found_is}: of {_comparisons(beside)} "
            f"none is decided ({n})."
        )
    order = found["variant"].value_counts(sort=True).index
    parts = [
        _over_conditions(judge, variant, found[found["variant"] == variant]) for variant in order
    ]
    more = f"; and {len(parts) - MOST} more" if len(parts) > MOST else ""
    return (
        f"{'; '.join(parts[:MOST])}{more}. Decided: {len(found)} of {_comparisons(beside)} with "
        f"{named(sweep.reference)} ({n}; at most {100 * judge.level:g} % risk of a false "
        "difference)."
    )


def _comparisons(rows: pd.DataFrame) -> str:
    return _counted(len(rows), "comparison")


def _over_conditions(judge: Judge, variant: str, found: pd.DataFrame) -> str:
    """``in is worse than bn at every batch size, by 2.6 to 5.9 points``."""
    sweep = judge.sweep
    parts: list[str] = []
    for verdict, group in found.groupby("verdict", sort=False):
        than = (
            f" {'as' if verdict == 'same' else 'than'} {named(sweep.reference)}"
            if not parts
            else ""
        )
        article = "the " if verdict == "same" else ""
        parts.append(
            f"{article}{verdict}{than}{_places(sweep, group)}{_by(judge, str(verdict), group)}"
        )
    return f"{named(variant)} is {' and '.join(parts)}"


def _places(sweep: Sweep, rows: pd.DataFrame) -> str:
    conditions = list(dict.fromkeys(sweep.cells["condition"]))
    if len(conditions) == 1:
        return ""
    if len(sweep.conditions) > 1:
        where = "; ".join(rows["condition"][:MOST])
        return f" at {where}" + (" and others" if len(rows) > MOST else "")
    key = sweep.conditions[0]
    if len(rows) == len(conditions):
        return f" at every {sweep.words(key)}"
    return f" at {sweep.words(key)} {listed([text(value) for value in rows[key]])}"


def _by(judge: Judge, verdict: str, rows: pd.DataFrame) -> str:
    if verdict == "same":
        return f" (within {100 * judge.margin:g} points)"
    least, most = (f"{100 * size(rows['difference'].abs()):.1f}" for size in (min, max))
    return f" (by {least}{f' to {most}' if least != most else ''} points)"


def method(judge: Judge, rows: pd.DataFrame) -> str:
    """What the figures and verdicts are, in one short paragraph."""
    beside = compared(rows)
    if beside.empty:
        return ""
    tested = beside[beside["pairs"] >= LEAST_SEEDS]
    percent = f"{100 * judge.level:g} %"
    parts = [
        "Differences are percentage points of accuracy, paired by seed, ± half of their 95 % t "
        "interval, each on its own."
    ]
    if len(tested):
        parts.append(
            f"Better and worse hold for all {_comparisons(tested)} together at {percent}: a "
            "step-down maxT test that flips the signs of each seed in all of them (so an interval "
            "may leave out zero and the table still not decide: a hint). Same: two one-sided t "
            f"tests within {100 * judge.margin:g} points, adjusted by Holm."
        )
    if welch := (tested["paired"] == False).sum():  # noqa: E712
        parts.append(
            f"{welch} of them share too few seeds and go by Welch's t test and Holm, with their "
            f"share of the {percent}."
        )
    if brought := pairing(rows):
        correlation, ratio = brought
        parts.append(
            f"Pairing: the accuracies of a seed correlate by {correlation:.2f} on average, so "
            f"differences vary {ratio:.2f} times as much as those of unpaired seeds."
        )
    return " ".join(parts)


def diverged(rows: pd.DataFrame) -> list[str]:
    lost = [row for row in rows.itertuples() if row.diverged]
    parts = [f"{_cell(row)} in {row.diverged} of {row.n + row.diverged} runs" for row in lost]
    return [f"Diverged: {', '.join(parts)}."] if parts else []


def _cell(row: Any) -> str:
    return f"{named(row.variant)} at {row.condition}" if row.condition else named(row.variant)


def rates(judge: Judge, views: Sequence[BestRates]) -> list[str]:
    """What was decided with a rate for each, and that the seeds that chose the rates report too."""
    lines = []
    if judge.sweep.tuned:
        lines.append("Learning rates differ between cells: the table of all cells has them.")
    for view in views:
        chosen = ", ".join(f"{row['variant']} {text(row[LR])}" for row in records(view.best))
        where = f" at {view.condition}" if view.condition else ""
        common = "there is no rate that all were run at"
        if len(view.common):
            common = f"at the common rate {text(view.common[LR].iloc[0])}: {_verdicts(view.common)}"
        lines.append(
            f"Learning rates, chosen on validation{where}: {chosen}. Each at its best: "
            f"{_verdicts(view.best)}; {common}."
        )
    if views:
        lines.append(
            "The seeds that chose the rates report here too, so each norm at its best looks a "
            "little better than it is; fresh seeds at the chosen rates would tell."
        )
    return lines


def _verdicts(rows: pd.DataFrame) -> str:
    found = [f"{named(row.variant)} {row.verdict}" for row in decided(rows).itertuples()]
    return ", ".join(found) or "nothing decided"


def looked(looks: Sequence[dict[str, int]]) -> list[str]:
    """That this is not the first look, and what that does."""
    if len(looks) < 2:
        return []
    seeds = ", then ".join(counted(list(look.values())) for look in looks)
    return [f"Look {len(looks)} at these comparisons, after seeds were added ({seeds}). {LOOKED}"]


def named(variant: Any) -> str:
    """A variant in a sentence, in which some norms' names would read as other words."""
    return f"“{variant}”" if variant in ("none", "in") else str(variant)


def listed(names: Sequence[str], word: str = "and") -> str:
    return f" {word} ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
