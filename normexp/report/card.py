"""The answer card: under each condition what to use, by how much, at what cost; what is open."""

import json
from typing import Any

import pandas as pd

from normexp.report.cells import LR, records, text
from normexp.report.tables import number, points
from normexp.report.verdicts import BestRates, Judge, compared
from normexp.report.words import MOST, listed, named

FILE = "answer.json"
SCHEMA_VERSION = 1
MOST_LINES = 12
"""Conditions that have a line of their own; the grid has all."""


def card(
    judge: Judge, rows: pd.DataFrame, rates: list[BestRates], costs: pd.DataFrame
) -> list[dict[str, Any]]:
    """Under each condition what the runs decide, every variant at its best learning rate.

    Args:
        rows: of all cells, as :meth:`normexp.report.verdicts.Judge.rows` gives them.
        costs: by cell, as :func:`normexp.report.cost.costs` gives them.

    Returns:
        A table a condition, as answer.json has it: ``condition`` in words and its ``settings``;
        ``recommendation``, the variants to choose from: those that are better than the reference,
        or where all is decided and none is, the reference and what is the same; empty where that
        is ``undecided``, which lists what is; ``variants``, one after the other with ``verdict``,
        ``n``, ``accuracy`` in percent, ``gain`` over the reference in points with the 95 % interval
        ``low`` .. ``high``, ``p``, learning ``rate``, ``ms`` and ``step_mib`` of a step and how
        many times those of the reference they are (``ms_ratio``, ``step_mib_ratio``), None where
        unknown; and ``advice`` in a few words, with which ``line`` begins, all of it in words.
    """
    where = pd.Series(
        [judge.sweep.condition(row, leaving_out=LR) for row in records(rows)], rows.index, str
    )
    at_best = {view.condition: view.best for view in rates}
    count = len(compared(rows))
    rest = rows[~where.isin(at_best)]
    groups = [*at_best.items(), *rest.groupby("condition", sort=False)]
    return [
        _entry(judge, str(condition), group, costs, count)
        for condition, group in groups if not compared(group).empty
    ]  # fmt: skip


def _entry(
    judge: Judge, condition: str, rows: pd.DataFrame, costs: pd.DataFrame, count: int
) -> dict[str, Any]:
    sweep, beside = judge.sweep, compared(rows)
    known = _variants(judge, rows, costs)
    by_gain = beside.sort_values("difference", ascending=False, kind="stable")
    verdicts = by_gain.groupby("verdict")["variant"].agg(list)
    undecided = [*verdicts.get("undecided", []), *verdicts.get("too few seeds", [])]
    chosen = verdicts.get("better") or (
        [] if undecided else [sweep.reference, *verdicts.get("same", [])]
    )
    keys = [key for key in sweep.conditions if rows[key].nunique(dropna=False) == 1]
    found = {
        "condition": condition,
        "settings": {key: text(rows[key].iloc[0]) for key in keys},
        "recommendation": chosen,
        "undecided": undecided,
        # NaN is no JSON.
        "variants": json.loads(known.to_json(orient="records", double_precision=15)),
    }
    advice = (f"{condition}: " if condition else "") + _advice(judge, found)
    line = "; ".join([advice, *_verdicts(judge, beside, count)]) + "."
    return found | {"advice": advice, "line": line}


def _variants(judge: Judge, rows: pd.DataFrame, costs: pd.DataFrame) -> pd.DataFrame:
    runs = judge.sweep.runs
    known = pd.DataFrame(
        {"variant": rows["variant"], "verdict": rows["verdict"],
         "n": rows["pairs"].where(rows["difference"].notna(), rows["n"]).astype(int),
         "accuracy": 100 * rows["mean"], "gain": 100 * rows["difference"],
         "low": 100 * rows["low"], "high": 100 * rows["high"], "p": rows["p"]}
    )  # fmt: skip
    known["rate"] = runs.groupby("cell")[LR].first() if LR in runs else None
    reference = rows["variant"] == judge.sweep.reference
    timed = costs if "step_mib" in costs else costs[[]]  # never times of the runs themselves
    for name in ("ms", "step_mib"):
        known[name] = timed.reindex(index=rows.index, columns=[name])[name].astype(float)
        base = known.loc[reference, name]
        known[f"{name}_ratio"] = known[name] / (base.iloc[0] if len(base) else float("nan"))
    return known


def _advice(judge: Judge, found: dict[str, Any]) -> str:
    """``use gn (learning rate 0.01; 1.10 times bn's time and 1.02 times its memory a step)``."""
    reference, chosen = str(judge.sweep.reference), found["recommendation"]
    if not chosen:
        same = [one["variant"] for one in found["variants"] if one["verdict"] == "same"]
        left = map(named, [reference, *same, *found["undecided"]])
        return f"not decided: {listed([*left], 'or')}"
    tuned = LR in judge.sweep.factors or LR in judge.sweep.tuned
    each = []
    for one in found["variants"]:
        if one["variant"] not in chosen:
            continue
        notes = [f"learning rate {text(one['rate'])}"] if tuned and one["rate"] else []
        costs = [
            f"{one[f'{name}_ratio']:.2f} times the {word}"
            for name, word in (("ms", "time"), ("step_mib", "memory"))
            if one[f"{name}_ratio"] and one["variant"] != reference
        ]
        notes += [f"{' and '.join(costs)} of a step with {named(reference)}"] if costs else []
        each.append((named(one["variant"]), f" ({'; '.join(notes)})" if notes else ""))
    order = [named(one) for one in chosen]
    each.sort(key=lambda one: order.index(one[0]))
    return "use " + " or ".join(name + note for name, note in each)


def _verdicts(judge: Judge, beside: pd.DataFrame, count: int) -> list[str]:
    """What is decided, and how large a difference may be where nothing is."""
    outside = (beside["low"] > 0) | (beside["high"] < 0)
    hint = "only a hint" + (f" among {count} comparisons" if count > 1 else "")
    undecided = beside["verdict"] == "undecided"
    parts = [
        f"{named(row.variant)} {verdict} by {abs(100 * row.difference):.2f} ± {_half(row)} points"
        for verdict in ("better", "worse")
        for row in beside[beside["verdict"] == verdict].itertuples()
    ]
    for words, chosen in (
        (f"the same within {100 * judge.margin:g} points", beside["verdict"] == "same"),
        ("no difference found", undecided & ~outside),
        (hint, undecided & outside),
        ("too few seeds", beside["verdict"] == "too few seeds"),
    ):
        cells = list(beside[chosen].itertuples())
        each = [f"{named(row.variant)} ({_open(row)})" for row in cells[:MOST]]
        rest = f" and {len(cells) - MOST} more" if len(cells) > MOST else ""
        parts += [f"{words}: {', '.join(each)}{rest}"] if cells else []
    return parts


def _half(row: Any) -> str:
    return number(100 * (row.high - row.low) / 2, ".2f")


def _open(row: Any) -> str:
    """What is known of a difference that is not decided."""
    if row.survivors and row.verdict == "undecided":
        return f"{points(row.difference)}, of the runs that survived"
    known = points(row.difference) + ("" if pd.isna(row.high) else f" ± {_half(row)}")
    return f"n = {row.pairs:.0f}; {known}" if row.verdict == "too few seeds" else known


def lines(found: list[dict[str, Any]]) -> list[str]:
    """A line a condition."""
    more = len(found) - MOST_LINES
    rest = [f"{more} more conditions are in the grid."] if more > 0 else []
    return [one["line"] for one in found[:MOST_LINES]] + rest
