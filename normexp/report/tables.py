"""The report's tables: words in the cells of a DataFrame, as text, Markdown and LaTeX."""

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import pandas as pd
from tabulate import tabulate

from normexp.report.cells import LR, Sweep, records, text
from normexp.report.verdicts import DECIDED, Judge
from normexp.system.printable import printable

NOTHING = "–"
DIFFERENCE = "difference [95 %]"
"""The column whose decided values are bold."""
WIDTH = 80
"""Columns of a terminal, to which tables keep unless they are asked for whole."""

COLOURS = {"better": "32", "worse": "31", "same": "36", "undecided": "2", "too few seeds": "2"}
"""Of verdicts on a terminal, as ANSI has them."""

MARKS = {"undecided": "?", "too few seeds": "n<6", "reference": ""}
"""Verdicts that are shortened in the grid."""


@dataclass
class Table:
    """A table in words."""

    frame: pd.DataFrame
    heads: int
    """So many columns at the left tell the rows apart."""
    caption: str = ""
    optional: Sequence[str] = ()
    """Columns that a narrow terminal does without, first those that are missed least."""
    kinds: Sequence[str] = ()
    """The verdict of each row."""
    tips: Sequence[str] = ()
    """Which cell each row is, with its n."""
    links: Sequence[str] = ()
    """What the first column of each row leads to."""

    @property
    def right(self) -> list[bool]:
        """Which columns hold figures, that belong to the right."""
        return [self.frame[name].map(_is_figure).all() for name in self.frame]


def _is_figure(word: str) -> bool:
    return word == NOTHING or bool(re.match(r"[-+<~]? ?\d", word))


@dataclass
class Grid:
    """Verdicts at one glance: a row a variant, a column a condition."""

    name: str
    """What the rows are."""
    corner: str
    """What the columns are; empty where there is one condition."""
    shown: pd.DataFrame
    """The difference in points with its sign; of the reference its accuracy."""
    verdicts: pd.DataFrame
    tips: pd.DataFrame


def spread(mean: float, std: float, scale: float = 100, form: str = ".2f") -> str:
    """Mean and standard deviation, of accuracies in percent."""
    if pd.isna(mean):
        return NOTHING
    written = format(scale * mean, form)
    return written if pd.isna(std) else f"{written} ± {format(scale * std, form)}"


def points(value: float) -> str:
    """A difference of accuracies in percentage points, with its sign."""
    return NOTHING if pd.isna(value) else f"{100 * value:+.2f}"


def within(mean: float, low: float, high: float) -> str:
    """A difference with its interval, in points."""
    return points(mean) if pd.isna(low) else f"{points(mean)} [{points(low)}, {points(high)}]"


def number(value: float, form: str) -> str:
    return NOTHING if pd.isna(value) else format(value, form)


def p_value(p: float) -> str:
    return "< 0.001" if p < 0.001 else number(p, ".3f")


def count(row: Any) -> str:
    """``8``; ``6 (2 of 8 diverged)``; ``3 (5 without an answer)``."""
    notes = []
    if row.diverged:
        notes.append(f"{row.diverged} of {row.n + row.diverged} diverged")
    if row.unanswered:
        notes.append(f"{row.unanswered} without an answer")
    return f"{row.n} ({', '.join(notes)})" if notes else str(row.n)


def said(row: Any, judge: Judge) -> str:
    """The verdict with what one must know of how it came about."""
    notes = []
    if not pd.isna(row.difference):
        if not row.paired:
            notes.append("unpaired seeds")
        elif row.left_out:
            notes.append(f"{row.left_out:.0f} unpaired seed{'s' * (row.left_out > 1)} left out")
        if row.survivors and row.verdict == "undecided":
            notes.append("the higher mean is that of survivors")
        elif row.verdict in ("better", "worse") and row.p_same <= judge.level:
            notes.append(f"within {100 * judge.margin:g} points")
    return f"{row.verdict} ({', '.join(notes)})" if notes else str(row.verdict)


def tip(row: Any) -> str:
    """Such as ``gn, batch size 2: 56.40 ± 0.67 %, n = 8``."""
    where = f", {row.condition}" if row.condition else ""
    return f"{row.variant}{where}: {spread(row.mean, row.std)} %, n = {row.n}"


def keys(sweep: Sweep, rows: pd.DataFrame) -> dict[str, list[str]]:
    """The columns that tell cells apart."""
    columns = {
        sweep.short(key): [NOTHING if value is None else text(value) for value in rows[key]]
        for key in [*sweep.conditions, *sweep.compared, *sweep.tuned]
    }
    return columns or {"runs": ["all"] * len(rows)}


def grid(judge: Judge, rows: pd.DataFrame) -> Grid | None:
    """Norm x condition; None where nothing is compared."""
    sweep = judge.sweep
    if sweep.reference is None:
        return None
    accuracy = rows["mean"].map(lambda mean: f"{number(100 * mean, '.1f')} %")
    known = pd.DataFrame(
        {
            "variant": rows["variant"],
            "column": [
                ", ".join(text(row[key]) for key in sweep.conditions) for row in records(rows)
            ],
            "shown": rows["difference"].map(points).where(rows["verdict"] != "reference", accuracy),
            "verdict": rows["verdict"],
            "tip": [tip(row) for row in rows.itertuples()],
        }
    )
    columns = list(dict.fromkeys(known["column"]))

    def wide(values: str) -> pd.DataFrame:
        found = known.pivot(index="variant", columns="column", values=values)
        return found.reindex(index=sweep.variants, columns=columns).fillna("")

    name, corner = (", ".join(map(sweep.words, k)) for k in (sweep.compared, sweep.conditions))
    return Grid(name, corner, wide("shown"), wide("verdict"), wide("tip"))


def summary(judge: Judge, rows: pd.DataFrame) -> Table:
    """A row a cell: what was swept, accuracy, and the difference from the reference."""
    cells = list(rows.itertuples())
    columns = keys(judge.sweep, rows) | {
        "n": [count(row) for row in cells],
        "accuracy %": [spread(row.mean, row.std) for row in cells],
        "± 95 %": [number(100 * (row.mean_high - row.mean), ".2f") for row in cells],
    }
    if LR in judge.sweep.conditions:
        columns["validation %"] = [number(100 * row.val_acc, ".2f") for row in cells]
    if judge.sweep.reference is not None:
        columns |= {
            DIFFERENCE: [within(row.difference, row.low, row.high) for row in cells],
            "p": [p_value(row.p) for row in cells],
            "p same": [p_value(row.p_same) for row in cells],
            "verdict": [said(row, judge) for row in cells],
        }
    return Table(
        pd.DataFrame(columns), len(keys(judge.sweep, rows)), "Every cell beside the reference",
        ("p same", "± 95 %", "p", "validation %", "accuracy %", "n"),
        [row.verdict for row in cells], [tip(row) for row in cells],
    )  # fmt: skip


def costs(judge: Judge, found: pd.DataFrame) -> Table:
    """A row a cell: accuracy beside what is known of time, memory, parameters and statistics."""
    forms = {
        "step_mib": ("MiB a step", ".3g"), "parameters": ("parameters", ",.0f"),
        "statistics": ("statistics", ",.0f"),
    }  # fmt: skip
    cells = judge.cells
    columns = keys(judge.sweep, cells)
    heads = len(columns)
    columns["accuracy %"] = [spread(row.mean, row.std) for row in cells.itertuples()]
    if "ms" in found:
        each = zip(found["ms"], found["ms_low"], found["ms_high"], strict=True)
        columns["ms a step [range]"] = [
            NOTHING if pd.isna(ms) else f"{ms:.3g} [{low:.3g}, {high:.3g}]"
            for ms, low, high in each
        ]
    for name, (heading, form) in forms.items():
        if name in found:
            columns[heading] = [number(value, form) for value in found[name]]
    tips = [tip(row) for row in cells.itertuples()]
    optional = ("statistics", "accuracy %", "parameters")
    return Table(pd.DataFrame(columns), heads, "Cost beside accuracy", optional, tips=tips)


def plain(table: Table, width: int | None = WIDTH) -> str:
    """For a terminal: columns in line, no wider than it.

    Args:
        width: of the terminal; None for all columns, however wide.
    """
    frame = table.frame.map(printable)
    for name in table.optional:
        if width is not None and name in frame and _width(_text(frame)) > width:
            frame = frame.drop(columns=name)
    if width is not None and (over := _width(_text(frame)) - width) > 0:
        longest = max(frame, key=lambda one: frame[one].str.len().max())
        room = max(1, frame[longest].str.len().max() - over)
        cut = frame[longest].str.slice(0, room - 1) + "…"
        frame[longest] = cut.where(frame[longest].str.len() > room, frame[longest])
    return _text(frame)


def _width(written: str) -> int:
    return max(map(len, written.splitlines()))


def _text(frame: pd.DataFrame) -> str:
    lines = _aligned([list(frame), *frame.to_numpy().tolist()], _align(Table(frame, 0)))
    return "\n".join(lines)


def _align(table: Table) -> list[str]:
    return ["right" if to_right else "left" for to_right in table.right]


def _aligned(rows: list[list[str]], align: Sequence[str] | None = None) -> list[str]:
    # The head as a row like the others: tabulate leaves room around it.
    found = tabulate(rows, tablefmt="plain", disable_numparse=True, colalign=align)
    return [line.rstrip() for line in str(found).splitlines()]


def plain_grid(found: Grid, reference: str, width: int | None = WIDTH, colour: bool = False) -> str:
    """The verdicts for a terminal, in as many blocks of columns as fit side by side.

    Args:
        colour: with ANSI's colours.
    """
    cells = {}
    for column in found.shown:
        words = []
        for figure, verdict in zip(found.shown[column], found.verdicts[column], strict=True):
            mark = MARKS.get(verdict, verdict if verdict in DECIDED else "")
            word = f"{figure} {mark}".rstrip()
            code = COLOURS.get(verdict) if colour else None
            words.append(f"\x1b[{code}m{word}\x1b[0m" if code else word)
        cells[printable(column)] = words
    names = [printable(name) for name in found.shown.index]
    blocks: list[str] = []
    columns = list(cells)
    while columns or not blocks:
        for last in range(len(columns), 0, -1):
            block = {found.name: names, **{one: cells[one] for one in columns[:last]}}
            lines = _aligned([list(block), *map(list, zip(*block.values(), strict=True))])
            if width is None or _width(re.sub(r"\x1b\[\d+m", "", "\n".join(lines))) <= width:
                break
        blocks.append("\n".join(lines))
        columns = columns[last:]
    marks = {MARKS[one]: one for one in ("undecided", "too few seeds")}
    used = [f"{m} {v}" for m, v in marks.items() if (found.verdicts == v).any(axis=None)]
    head = f"difference from {printable(reference)} in points of accuracy"
    head += f", by {found.corner}" if found.corner else ""
    head += f" ({', '.join(used)})" if used else ""
    return "\n".join([textwrap.fill(head, width or WIDTH), "\n\n".join(blocks)])


def markdown(table: Table) -> str:
    """For a file that is read as Markdown; differences that are decided are bold."""
    frame = table.frame.copy()
    if DIFFERENCE in frame:
        open_ = ~frame.index.isin(_decided(table))
        frame[DIFFERENCE] = frame[DIFFERENCE].where(open_, "**" + frame[DIFFERENCE] + "**")
    frame = frame.map(_in_a_cell).rename(columns=_in_a_cell)
    return str(
        frame.to_markdown(
            index=False, tablefmt="pipe", disable_numparse=True, colalign=_align(table)
        )
    )


def _in_a_cell(words: str) -> str:
    return no_html(words).replace("|", "\\|")


def _decided(table: Table) -> list[int]:
    return [place for place, kind in enumerate(table.kinds) if kind in DECIDED]


def markdown_grid(found: Grid, reference: str) -> str:
    """The verdicts as Markdown."""
    words = found.shown + " " + found.verdicts.map(lambda one: one if one in COLOURS else "")
    names = list(found.shown.index)
    frame = pd.DataFrame({f"{found.name}, against {reference}": names} | {
        f"{found.corner} {column}".strip() or "points": words[column].tolist() for column in words
    })  # fmt: skip
    return markdown(Table(frame, 1))


def no_html(words: str) -> str:
    """Markdown in which what looks like HTML or a link is read as it was written, in one line."""
    plain = escape(" ".join(words.split()), quote=False).replace("&gt;", ">")
    return plain.replace("](", "]\\(")


def latex(table: Table) -> str:
    """A booktabs table; differences that are decided are bold."""
    align = "".join("r" if to_right else "l" for to_right in table.right)
    frame = table.frame.map(printable)
    frame.index = pd.RangeIndex(len(frame))
    style = (
        frame.style.hide(axis="index").format(escape="latex").format_index(escape="latex", axis=1)
    )
    if DIFFERENCE in frame:
        style = style.map(lambda _: "textbf:--rwrap;", subset=(_decided(table), [DIFFERENCE]))
    written: str = style.to_latex(hrules=True, column_format=align)
    for sign, command in (("±", r"$\pm$"), ("–", "--"), ("<", "$<$"), (">", "$>$")):
        written = written.replace(sign, command)
    return written.rstrip()
