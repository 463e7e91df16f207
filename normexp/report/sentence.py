"""What the runs support, in plain words, and no more."""

import statistics
from collections.abc import Sequence

from normexp.report import bn_evaluation
from normexp.report.cells import Cell, Sweep, Values, text
from normexp.report.compare import LR, BestRates, Row
from normexp.report.finish import OWN_COMMAND
from normexp.report.statistics import (
    LEAST_SEEDS,
    LEVEL,
    Difference,
    clearly_not_zero,
    least_seeds,
)
from normexp.report.tables import accuracies, accuracy, p_value, points
from normexp.report.wording import (
    MOST,
    at,
    cell_words,
    condition_words,
    counted,
    key_words,
    listed,
    places,
)

WORDS = {"better": "better than", "worse": "worse than", "ahead": "ahead of", "behind": "behind"}


def sentences(
    sweep: Sweep,
    rows: Sequence[Row],
    rates: Sequence[BestRates],
    unanswered: int,
    never_begun: int,
) -> list[str]:
    """One sentence a finding: who leads, by how much, what is open, what is missing."""
    missing = _missing(unanswered, never_begun)
    if not any(row.cell.completed for row in rows):
        return ["No run is completed: nothing can be compared.", *_diverged(sweep, rows), *missing]
    if sweep.reference is None:
        found = [_alone(sweep, rows)]
    else:
        found = [
            *_ranking(sweep, rows), *_differences(sweep, rows), *_adjusted(rows),
            *_undecided(sweep, rows), *_survived(sweep, rows), *_too_few(rows),
        ]  # fmt: skip
        found += [_rate(sweep, one) for one in rates]
        found = found or ["No two cells that could be compared are completed yet."]
    return [
        *found,
        *_evaluation(sweep),
        *_diverged(sweep, rows),
        *_missing(unanswered, never_begun),
    ]


def _alone(sweep: Sweep, rows: Sequence[Row]) -> str:
    row = rows[0]
    n = len(row.cell.completed)
    return f"One cell only, so nothing is compared: test accuracy {accuracy(row.cell)} % (n = {n})."


def _ranking(sweep: Sweep, rows: Sequence[Row]) -> list[str]:
    """Who has the highest mean, and what turns the order around where the intervals bear it."""
    lines = []
    for place, key in enumerate(sweep.conditions):
        patterns: dict[str, list[str]] = {}
        for variant in sweep.variants:
            own = [row for row in rows if row.cell.variant == variant and row.bold]
            pattern = _turns(sweep, own, place)
            if pattern:
                patterns.setdefault(pattern, []).append(sweep.variant_label(variant))
        if patterns:
            parts = [
                f"{listed(names)} {'is' if len(names) == 1 else 'are'} {pattern}"
                for pattern, names in patterns.items()
            ]
            lines.append(
                f"What changes the ranking is {key_words(sweep, key)}: against "
                f"{sweep.variant_label(_reference(sweep))}, {'; '.join(parts)}."
            )
    return [*_leaders(sweep, rows, changes=bool(lines)), *lines]


def _turns(sweep: Sweep, rows: list[Row], place: int) -> str:
    """Where differences have both signs although this condition alone is changed."""
    others: dict[Values, list[Row]] = {}
    for row in rows:
        condition = row.cell.condition
        others.setdefault(condition[:place] + condition[place + 1 :], []).append(row)
    keys = sweep.conditions[:place] + sweep.conditions[place + 1 :]
    parts = []
    for rest, group in others.items():
        ahead = [text(row.cell.condition[place]) for row in group if _mean(row) > 0]
        behind = [text(row.cell.condition[place]) for row in group if _mean(row) < 0]
        if ahead and behind:
            where = f"with {condition_words(sweep, keys, rest)} " if rest else ""
            parts.append(f"{where}ahead at {', '.join(ahead)} and behind at {', '.join(behind)}")
    return ", ".join(parts)


def _leaders(sweep: Sweep, rows: Sequence[Row], changes: bool) -> list[str]:
    leaders: dict[Values, list[Values]] = {}
    ranked, left_out = [], []
    for condition in sweep.all_conditions:
        here = [row.cell for row in rows if row.cell.condition == condition and row.cell.completed]
        if len(here) > 1:
            # The mean of what survived is no rank among cells of which more did.
            least = min(map(_share_diverged, here))
            kept = [cell for cell in here if _share_diverged(cell) == least]
            best = max(kept, key=lambda cell: statistics.fmean(accuracies(cell)))
            leaders.setdefault(best.variant, []).append(condition)
            ranked += kept
            left_out += [cell for cell in here if _share_diverged(cell) > least]
    if not leaders:
        return []
    n = counted([len(cell.completed) for cell in ranked])
    runs = f"with {n} run{'s' if n != '1' else ''} each" + _without(sweep, left_out)
    if len(leaders) == 1:
        (variant,) = leaders
        name = sweep.variant_label(variant)
        everywhere = places(sweep, leaders[variant])
        every = f" {everywhere}" if everywhere else ""
        return [f"{name} reached the highest test accuracy on average{every}, {runs}."]
    parts = [
        f"{sweep.variant_label(variant)} {places(sweep, where)}".strip()
        for variant, where in leaders.items()
    ]
    doubt = "" if changes else "; the runs do not decide whether the ranking really changes"
    return [f"The highest test accuracy on average was reached by {listed(parts)}, {runs}{doubt}."]


def _share_diverged(cell: Cell) -> float:
    return len(cell.diverged) / len(cell.answered)


def _without(sweep: Sweep, left_out: list[Cell]) -> str:
    """That cells were left out of a ranking since runs of them diverged."""
    if not left_out:
        return ""
    named = [_lost(sweep, cell) for cell in left_out[:MOST]]
    rest = f" and {len(left_out) - MOST} more" if len(left_out) > MOST else ""
    return f", leaving out where more runs diverged: {', '.join(named)}{rest}"


def _lost(sweep: Sweep, cell: Cell) -> str:
    """``gn at batch size 2 (12 of 18)``."""
    label = cell_words(sweep, cell.variant, cell.condition)
    return f"{label} ({len(cell.diverged)} of {len(cell.answered)})"


def _differences(sweep: Sweep, rows: Sequence[Row]) -> list[str]:
    """A sentence for each variant: where its interval excludes zero, the largest differences; then
    what the figures rest on."""
    lines, named = [], []
    for variant in sweep.variants:
        own = [row for row in rows if row.cell.variant == variant and row.bold]
        largest = sorted(own, key=lambda row: -abs(_mean(row)))[:MOST]
        groups: dict[str, list[Row]] = {}
        for row in own:
            if any(row is one for one in largest):
                groups.setdefault(row.verdict, []).append(row)
        reference = sweep.variant_label(_reference(sweep))
        parts = [
            f"{WORDS[verdict]} {reference} {_measured(sweep, found)}"
            for verdict, found in groups.items()
        ]
        rest = f"; {len(own) - MOST} more in the table" if len(own) > MOST else ""
        if parts:
            lines.append(f"{sweep.variant_label(variant)} is {'; '.join(parts)}{rest}.")
            named += own
    return [*lines, _support(named)] if lines else []


def _measured(sweep: Sweep, rows: list[Row]) -> str:
    """``at batch size 2 by 1.75 points [0.93, 2.69], 4 by 3.17 [1.95, 4.59]``."""
    parts = []
    for place, row in enumerate(rows):
        found = row.difference
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        near, far = sorted((abs(found.low), abs(found.high)))
        where = at(sweep, row.cell.condition)
        if place and len(sweep.conditions) == 1:
            where = text(row.cell.condition[0])
        unit = "" if place else " points"
        by = f"by {100 * abs(found.mean):.2f}{unit} [{100 * near:.2f}, {100 * far:.2f}]"
        parts.append(f"{where} {by}".strip())
    return ", ".join(parts)


def _support(rows: list[Row]) -> str:
    """What the figures of the sentences before rest on."""
    found = [row.difference for row in rows if row.difference]
    largest = max(row.adjusted_p for row in rows if row.adjusted_p is not None)
    least = min(row.adjusted_p for row in rows if row.adjusted_p is not None)
    p = p_value(least)
    words = [f"n = {counted([one.n for one in found])} {_pairs(found)}"]
    words.append(
        f"adjusted p {_equals(p)}" + (f" to {p_value(largest)}" if p_value(largest) != p else "")
    )
    if any(one.diverged for one in found):
        words.append("without the runs that diverged")
    return (
        "Points are percentage points of test accuracy, in brackets the nominal 95 % BCa interval, "
        f"narrower than it should be with few seeds ({', '.join(words)})."
    )


def _pairs(found: list[Difference]) -> str:
    if all(one.paired for one in found):
        return "paired seeds"
    return "seeds, not paired" if not any(one.paired for one in found) else "seeds, not all paired"


def _equals(p: str) -> str:
    return p if p.startswith("<") else f"= {p}"


def _adjusted(rows: Sequence[Row]) -> list[str]:
    """What ahead and behind mean, where there are such; and whether the seeds can do better."""
    unsure = [row for row in rows if row.verdict in ("ahead", "behind")]
    if not unsure:
        return []
    compared = sum(row.difference is not None for row in rows)
    line = (
        f"“Ahead” and “behind” are weaker than “better” and “worse”: p is below {LEVEL}, which "
        f"chance alone gives up to {LEVEL * compared:g} of {compared} comparisons, but not once it "
        "is adjusted over them"
    )
    most = max(row.difference.n for row in unsure if row.difference)
    if most < least_seeds(compared):
        line += (
            f", and with {most} seeds it cannot be: that takes {least_seeds(compared)} seeds, or "
            "fewer comparisons"
        )
    return [line + "."]


def _undecided(sweep: Sweep, rows: Sequence[Row]) -> list[str]:
    unclear = [row for row in rows if row.verdict == "undecided"]
    if not unclear:
        return []
    unclear.sort(key=lambda row: row.needed or 10**6)
    parts = []
    for row in unclear[:MOST]:
        assert row.difference is not None
        more = f"{max(1, row.needed - row.difference.n)}" if row.needed else "over a thousand"
        parts.append(f"{cell_words(sweep, row.cell.variant, row.cell.condition)} ({more})")
    rest = f", and {len(unclear) - MOST} more in the table" if len(unclear) > MOST else ""
    return [
        f"Undecided against {sweep.variant_label(_reference(sweep))}: {', '.join(parts)}{rest}. In "
        "brackets about how many more seeds would decide, if the difference is as large as it "
        "looks now."
    ]


def _survived(sweep: Sweep, rows: Sequence[Row]) -> list[str]:
    """Comparisons without a verdict, since the higher mean is that of survivors."""
    found = [row for row in rows if row.difference and row.verdict.startswith("undecided:")]
    if not found:
        return []
    parts = [
        f"{cell_words(sweep, row.cell.variant, row.cell.condition)} ({row.difference.survived})"
        for row in found[:MOST]
        if row.difference
    ]
    rest = f", and {len(found) - MOST} more in the table" if len(found) > MOST else ""
    return [
        f"Undecided against {sweep.variant_label(_reference(sweep))}, since the higher mean is "
        f"that of the runs that survived: {', '.join(parts)}{rest}."
    ]


def _too_few(rows: Sequence[Row]) -> list[str]:
    few = [row for row in rows if row.verdict == "n too small"]
    if not few:
        return []
    n = counted([row.difference.n for row in few if row.difference])
    compared = sum(row.difference is not None for row in rows)
    which = f"{len(few)} of {compared}" if len(few) < compared else "all"
    return [
        f"In {which} comparisons n is too small for a verdict (n = {n}; it takes {LEAST_SEEDS} "
        "seeds or more)."
    ]


def _rate(sweep: Sweep, rates: BestRates) -> str:
    place = sweep.conditions.index(LR)
    keys = sweep.conditions[:place] + sweep.conditions[place + 1 :]

    def said(rows: list[Row]) -> str:
        found = [row for row in rows if row.bold]
        names = [f"{sweep.variant_label(row.cell.variant)} {row.verdict}" for row in found]
        return ", ".join(names) or "nothing decided"

    chosen = ", ".join(
        f"{sweep.variant_label(row.cell.variant)} {text(row.cell.condition[place])}"
        for row in rates.best
    )
    where = f" at {condition_words(sweep, keys, rates.condition)}" if keys else ""
    common = "there is no rate that all were run at"
    if rates.common:
        rate = text(rates.common[0].cell.condition[place])
        common = f"at the common rate {rate}: {said(rates.common)}"
    return (
        f"Learning rates, chosen on validation{where}: {chosen}. Against "
        f"{sweep.variant_label(_reference(sweep))}, {common}; each at its best: {said(rates.best)}."
    )


EVALUATED = {"precise": "Precise-BN's statistics", "batch": "the statistics of each test batch"}


def _evaluation(sweep: Sweep) -> list[str]:
    """What other statistics in evaluation change, where the runs decide it."""
    lines = []
    for kind, name in EVALUATED.items():
        tested, clear = False, []
        for cell in sweep.cells:
            gains = bn_evaluation.gains(bn_evaluation.several(cell), kind)
            if len(gains) >= LEAST_SEEDS:
                tested = True
                if clearly_not_zero(gains):
                    clear.append((statistics.fmean(gains), cell))
        clear.sort(key=lambda one: -abs(one[0]))
        parts = [
            f"{points(gain)} for {cell_words(sweep, cell.variant, cell.condition)}"
            for gain, cell in clear[:MOST]
        ]
        rest = f"; {len(clear) - MOST} more in the table" if len(clear) > MOST else ""
        change = (
            f"changes by {', '.join(parts)} points{rest}" if parts else "does not clearly change"
        )
        if tested:
            lines.append(f"With {name} instead of running averages test accuracy {change}.")
    return lines


def _diverged(sweep: Sweep, rows: Sequence[Row]) -> list[str]:
    parts = []
    for row in rows:
        cell = row.cell
        if cell.diverged:
            total = len(cell.diverged) + len(cell.completed)
            label = cell_words(sweep, cell.variant, cell.condition)
            parts.append(f"{label} in {len(cell.diverged)} of {total} runs")
    return [f"Diverged: {', '.join(parts)}."] if parts else []


def _missing(unanswered: int, never_begun: int) -> list[str]:
    if not unanswered and not never_begun:
        return []
    parts = []
    if unanswered:
        parts.append(f"{unanswered} run{'s have' if unanswered > 1 else ' has'} no answer yet")
    if never_begun:
        runs = "" if unanswered else f" run{'s' if never_begun > 1 else ''}"
        parts.append(f"{never_begun}{runs} of the grid {_were(never_begun)} never begun")
    return [f"At least {listed(parts)}, counting norms and values that have a run. {OWN_COMMAND}"]


def _were(count: int) -> str:
    return "was" if count == 1 else "were"


def _mean(row: Row) -> float:
    return row.difference.mean if row.difference else 0.0


def _reference(sweep: Sweep) -> Values:
    assert sweep.reference is not None
    return sweep.reference
