"""What the runs support, in plain words, and no more."""

import statistics
from collections.abc import Sequence

from normexp.report.cells import Sweep, Values, text
from normexp.report.compare import BestRates, Row
from normexp.report.statistics import LEAST_SEEDS, LEVEL
from normexp.report.tables import accuracies, accuracy, p_value

MOST = 6
"""How many comparisons a sentence names; the table has all."""


def sentences(
    sweep: Sweep, rows: Sequence[Row], rates: Sequence[BestRates], unanswered: int
) -> list[str]:
    """One sentence a finding, the most certain first."""
    if not any(row.cell.completed for row in rows):
        return ["No run is completed yet: there is nothing to tell."]
    if sweep.reference is None:
        found = [_alone(sweep, rows)]
    else:
        found = [
            *_decided(sweep, rows), *_leaning(sweep, rows), *_ranking(sweep, rows),
            *_undecided(sweep, rows), *_too_few(sweep, rows),
        ]  # fmt: skip
        found += [_rate(sweep, one) for one in rates]
    return [*found, *_diverged(sweep, rows), *_missing(unanswered)]


def _alone(sweep: Sweep, rows: Sequence[Row]) -> str:
    row = rows[0]
    n = len(row.cell.completed)
    return f"One cell only, so nothing is compared: test accuracy {accuracy(row.cell)} % (n = {n})."


def _decided(sweep: Sweep, rows: Sequence[Row]) -> list[str]:
    decided = [row for row in rows if row.verdict in ("better", "worse")]
    compared = sum(row.difference is not None for row in rows)
    reference = sweep.variant_label(_reference(sweep))
    if not decided:
        return [
            f"No difference from {reference} is decided among {compared} "
            f"comparison{'s' if compared != 1 else ''}."
        ]
    return _by_variant(sweep, decided, "{variant} is {direction} than " + reference + " ")


def _leaning(sweep: Sweep, rows: Sequence[Row]) -> list[str]:
    leaning = [row for row in rows if row.verdict.startswith("leans")]
    if not leaning:
        return []
    reference = sweep.variant_label(_reference(sweep))
    start = "Not decided, but zero lies outside the interval: {variant} looks {direction} than "
    lines = _by_variant(sweep, leaning, start + reference + " ")
    compared = sum(row.difference is not None for row in rows)
    first = leaning[0].difference
    assert first is not None
    if first.least_p * compared >= LEVEL:
        lines.append(
            f"With {first.n} seeds no p can fall below {p_value(min(1, first.least_p * compared))} "
            f"once it is adjusted for {compared} comparisons: more seeds or fewer comparisons "
            "would decide."
        )
    return lines


def _by_variant(sweep: Sweep, rows: Sequence[Row], start: str) -> list[str]:
    """A sentence for each variant and direction, its largest differences first."""
    groups: dict[tuple[Values, bool], list[Row]] = {}
    for row in sorted(rows, key=lambda row: -abs(_mean(row))):
        groups.setdefault((row.cell.variant, _mean(row) > 0), []).append(row)
    lines = []
    for (variant, up), members in groups.items():
        parts = [_measured(sweep, row) for row in members[:MOST]]
        if len(members) > MOST:
            parts.append(f"and under {len(members) - MOST} more conditions, in the table")
        beginning = start.format(
            variant=sweep.variant_label(variant), direction="better" if up else "worse"
        )
        lines.append(beginning + "; ".join(parts) + ".")
    return lines


def _measured(sweep: Sweep, row: Row) -> str:
    found = row.difference
    assert found is not None
    kind = "seeds" if found.paired else "unpaired seeds"
    condition = _at(sweep, row.cell.condition)
    limits = ""
    if found.low is not None and found.high is not None:
        near, far = sorted((abs(found.low), abs(found.high)))
        limits = f"95 % interval {100 * near:.2f} to {100 * far:.2f}, "
    survivors = ", without the runs that diverged" if found.diverged else ""
    return (
        f"{condition}by {100 * abs(found.mean):.2f} points of test accuracy ({limits}"
        f"n = {found.n} {kind}, adjusted p {_equals(p_value(row.adjusted_p))}{survivors})"
    )


def _equals(p: str) -> str:
    return p if p.startswith("<") else f"= {p}"


def _ranking(sweep: Sweep, rows: Sequence[Row]) -> list[str]:
    """Which swept condition turns the order around, and whether the intervals bear it."""
    lines = []
    for place, key in enumerate(sweep.conditions):
        turned = []
        for variant in sweep.variants:
            own = [row for row in rows if row.cell.variant == variant and row.bold]
            others: dict[Values, list[Row]] = {}
            for row in own:
                condition = row.cell.condition
                others.setdefault(condition[:place] + condition[place + 1 :], []).append(row)
            if any(len({_mean(row) > 0 for row in group}) > 1 for group in others.values()):
                ahead = [text(row.cell.condition[place]) for row in own if _mean(row) > 0]
                behind = [text(row.cell.condition[place]) for row in own if _mean(row) < 0]
                label, reference = sweep.variant_label(variant), _reference(sweep)
                turned.append(
                    f"{label} is ahead of {sweep.variant_label(reference)} at "
                    f"{', '.join(dict.fromkeys(ahead))} and behind at "
                    f"{', '.join(dict.fromkeys(behind))}"
                )
        if turned:
            lines.append(
                f"What changes the ranking is {_words(sweep.short(key))}: {'; '.join(turned)} "
                "(each interval excludes zero)."
            )
    return lines or _leaders(sweep, rows)


def _leaders(sweep: Sweep, rows: Sequence[Row]) -> list[str]:
    """Where the best mean changes hands without the intervals bearing it."""
    leaders: dict[Values, list[str]] = {}
    for condition in sweep.all_conditions:
        here = [row for row in rows if row.cell.condition == condition and row.cell.completed]
        if len(here) > 1:
            best = max(here, key=lambda row: statistics.fmean(accuracies(row.cell)))
            leaders.setdefault(best.cell.variant, []).append(sweep.condition_label(condition))
    if len(leaders) < 2:
        return []
    parts = [
        f"{sweep.variant_label(variant)} at {', '.join(where)}"
        for variant, where in leaders.items()
    ]
    return [
        f"The highest mean is that of {'; '.join(parts)}; the runs do not decide whether the "
        "ranking really changes."
    ]


def _undecided(sweep: Sweep, rows: Sequence[Row]) -> list[str]:
    unclear = [row for row in rows if row.verdict == "undecided"]
    if not unclear:
        return []
    unclear.sort(key=lambda row: row.needed or 10**6)
    parts = []
    for row in unclear[:MOST]:
        assert row.difference is not None
        more = f"about {row.needed - row.difference.n}" if row.needed else "over a thousand"
        where = _at(sweep, row.cell.condition).strip()
        parts.append(f"{sweep.variant_label(row.cell.variant)} {where} ({more})".replace("  ", " "))
    rest = f", and {len(unclear) - MOST} more in the table" if len(unclear) > MOST else ""
    return [
        f"Undecided against {sweep.variant_label(_reference(sweep))}, in brackets how many more "
        "seeds would decide if the difference is as large as it looks now: "
        f"{', '.join(parts)}{rest}."
    ]


def _too_few(sweep: Sweep, rows: Sequence[Row]) -> list[str]:
    few = [row for row in rows if row.verdict == "n too small"]
    if not few:
        return []
    counts = sorted({row.difference.n for row in few if row.difference})
    n = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    compared = sum(row.difference is not None for row in rows)
    which = f"{len(few)} of {compared}" if len(few) < compared else "all"
    return [
        f"In {which} comparisons n is too small for a verdict (n = {n}; it takes {LEAST_SEEDS} "
        "seeds or more)."
    ]


def _rate(sweep: Sweep, rates: BestRates) -> str:
    def said(rows: list[Row]) -> str:
        found = [row for row in rows if row.verdict in ("better", "worse")]
        names = [f"{sweep.variant_label(row.cell.variant)} {row.verdict}" for row in found]
        return ", ".join(names) or "nothing decided"

    place = sweep.conditions.index("optimizer.lr")
    chosen = ", ".join(
        f"{sweep.variant_label(row.cell.variant)} {row.cell.condition[place]:g}"
        for row in rates.best
    )
    labels = [
        f"{sweep.short(key)}={value}"
        for key, value in zip(
            [key for key in sweep.conditions if key != "optimizer.lr"], rates.condition, strict=True
        )
    ]
    where = f" at {' '.join(labels)}" if labels else ""
    common = "there is no rate that all were run at"
    if rates.common:
        rate = rates.common[0].cell.condition[place]
        common = f"at the common rate {rate:g}: {said(rates.common)}"
    return (
        f"Learning rates, chosen on validation{where}: {chosen}. Against "
        f"{sweep.variant_label(_reference(sweep))}, {common}; each at its best: {said(rates.best)}."
    )


def _diverged(sweep: Sweep, rows: Sequence[Row]) -> list[str]:
    parts = []
    for row in rows:
        cell = row.cell
        if cell.diverged:
            where = _at(sweep, cell.condition).strip()
            total = len(cell.diverged) + len(cell.completed)
            label = f"{sweep.variant_label(cell.variant)} {where}".strip()
            parts.append(f"{label} in {len(cell.diverged)} of {total} runs")
    return [f"Diverged: {', '.join(parts)}."] if parts else []


def _missing(unanswered: int) -> list[str]:
    if not unanswered:
        return []
    runs = "run has" if unanswered == 1 else "runs have"
    return [f"{unanswered} {runs} no answer yet; the command below would finish the sweep."]


def _at(sweep: Sweep, condition: Values) -> str:
    label = sweep.condition_label(condition)
    return f"at {_words(label)} " if label else ""


def _words(label: str) -> str:
    return label.replace("batch_size=", "batch size ").replace("batch_size", "batch size")


def _mean(row: Row) -> float:
    return row.difference.mean if row.difference else 0.0


def _reference(sweep: Sweep) -> Values:
    assert sweep.reference is not None
    return sweep.reference
