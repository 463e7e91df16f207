"""Names of cells, conditions and counts as a sentence says them."""

from normexp.report.cells import Sweep, Values, text

MOST = 6
"""How many places or comparisons a sentence names; the table has all."""


def places(sweep: Sweep, conditions: list[Values]) -> str:
    """``at batch size 2, 4``; or ``at every batch size (2, 4, 8)`` where that is all there are."""
    if len(sweep.conditions) == 1 and len(sweep.all_conditions) > 1:
        values = ", ".join(text(condition[0]) for condition in conditions)
        name = key_words(sweep, sweep.conditions[0])
        if len(conditions) == len(sweep.all_conditions):
            return f"at every {name} ({values})"
        return f"at {name} {values}"
    known = [where for condition in conditions if (where := at(sweep, condition))]
    return "; ".join(known[:MOST]) + (" and others" if len(known) > MOST else "")


def at(sweep: Sweep, condition: Values) -> str:
    found = condition_words(sweep, sweep.conditions, condition)
    return f"at {found}" if found else ""


def cell_words(sweep: Sweep, variant: Values, condition: Values) -> str:
    return f"{sweep.variant_label(variant)} {at(sweep, condition)}".strip()


def condition_words(sweep: Sweep, keys: list[str], values: Values) -> str:
    """``batch size 2 and lr 0.01``."""
    pairs = zip(keys, values, strict=True)
    return listed([f"{key_words(sweep, key)} {text(value)}" for key, value in pairs])


def key_words(sweep: Sweep, key: str) -> str:
    return sweep.short(key).replace("_", " ")


def listed(names: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def counted(counts: list[int]) -> str:
    return str(counts[0]) if len(set(counts)) == 1 else f"{min(counts)} to {max(counts)}"
