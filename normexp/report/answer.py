"""The whole report of some runs: read, compared, and written."""

import json
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from normexp.report import (
    bn_evaluation,
    card,
    cost,
    csv_files,
    looks,
    origin,
    page,
    planned,
    published,
    tables,
    words,
)
from normexp.report.cells import arrange
from normexp.report.figures import pictures
from normexp.report.origin import Origin
from normexp.report.read import Runs
from normexp.report.tables import Grid, Table
from normexp.report.thresholds import LEVEL, MARGIN
from normexp.report.verdicts import BestRates, Judge, best_rates
from normexp.system.printable import printable
from normexp.system.writing import replacing


@dataclass
class Section:
    """A heading, what is to be known, and tables."""

    heading: str
    text: str
    tables: list[Table]


@dataclass
class Answer:
    """What some runs say; every part of it in words."""

    title: str
    judge: Judge
    rows: pd.DataFrame
    """A row a cell, as :meth:`normexp.report.verdicts.Judge.rows` says."""
    rates: list[BestRates]
    costs: pd.DataFrame
    origin: Origin
    looks: list[looks.Look]
    caution: str
    """On top of everything; empty where there is none."""
    trained: str
    headline: str
    """The answer in one sentence."""
    card: list[dict[str, Any]]
    """It, under each condition, as :func:`normexp.report.card.card` gives it."""
    lines: list[str]
    """The card in words, a line a condition."""
    method: str
    notes: list[str]
    """What else is to be known, a sentence each."""
    grid: Grid | None
    summary: Table
    sections: list[Section]


def answer(
    runs: Runs, out: Path, reference: Mapping[str, str] | None = None,
    margin: float | None = None, level: float = LEVEL,
) -> Answer:  # fmt: skip
    """Compare runs.

    Args:
        out: the folder of the report, where earlier ones left how often somebody looked, and what
            was timed.
        reference: what the others are compared with, such as ``{"norm": "bn"}``; by default what
            the sweep's plan says.
        margin: differences of accuracy within it count as none; by default likewise, or half a
            point.
        level: of all comparisons together.

    Raises:
        UserError: no run is such a reference.
    """
    plan = origin.plan_of(runs)
    comparison = plan.comparison if plan and not reference and margin is None else None
    if plan is not None and plan.reference and not reference:
        key, sign, value = plan.reference.rpartition("=")
        reference = {key if sign else "norm": value}
    if margin is None:
        margin = (plan.margin if plan else None) or MARGIN
    sweep = arrange(runs, dict(reference or {}))
    judge = Judge(sweep, runs, margin, level)
    rows = judge.rows()
    if comparison is not None:
        rows = planned.verdicts(rows, sweep, comparison)
    rates = best_rates(judge, rows)
    found, note = cost.costs(judge, out)
    where = origin.origin(runs, sweep)
    seen = [] if comparison else looks.looks(out, rows, sweep.reference)
    method = words.method(judge, rows) + (f" {planned.method(comparison)}" if comparison else "")
    gains = bn_evaluation.gains(judge)
    figures = published.beside(sweep)
    cards = card.card(judge, rows, rates, found)
    sections = []
    if not figures.empty:
        about = "What others published for such runs, and what these measured. "
        sections.append(
            Section(
                "Published and measured",
                about + published.otherwise(sweep),
                [published.table(figures)],
            )
        )
    if (table := bn_evaluation.table(judge, gains)) is not None:
        sections.append(Section(bn_evaluation.HEADING, bn_evaluation.NOTE, [table]))
    if rates:
        sections.append(Section("Learning rates", RATES, _rates(judge, rates)))
    if len(found.columns):
        sections.append(Section("Cost", note, [tables.costs(judge, found)]))
    elif runs.in_directories:
        sections.append(Section("Cost", note, []))
    return Answer(
        title=printable(runs.title),
        judge=judge,
        rows=rows,
        rates=rates,
        costs=found,
        origin=where,
        looks=seen,
        caution=words.caution(sweep),
        trained=words.trained(judge),
        headline=words.headline(judge, rows),
        card=cards,
        lines=card.lines(cards),
        method=method,
        notes=[
            *words.looked(seen), *words.rates(judge, rates), *bn_evaluation.sentences(judge, gains),
            *words.diverged(rows), *where.not_swept(), *where.missing(),
        ],
        grid=tables.grid(judge, rows),
        summary=tables.summary(judge, rows),
        sections=sections,
    )  # fmt: skip


RATES = (
    "Rates are chosen by mean validation accuracy, never on the test images, and after those at "
    "which no run diverged: one for all, the best for all together; and one for each, the best for "
    "itself. Comparisons at the same rate are those of the table of all cells; p of the others is "
    "adjusted over those of this view."
)


def _rates(judge: Judge, rates: list[BestRates]) -> list[Table]:
    views = []
    for one in rates:
        where = f" ({one.condition})" if one.condition else ""
        for caption, rows in (
            ("All at one common rate", one.common),
            ("Each at its best rate", one.best),
        ):
            if len(rows):
                table = tables.summary(judge, rows)
                table.caption = caption + where
                views.append(table)
    return views


def as_dict(found: Answer) -> dict[str, Any]:
    """What answer.json holds: the answer, and under ``conditions`` what
    :func:`normexp.report.card.card` gives."""
    judge = found.judge
    return {
        "schema_version": card.SCHEMA_VERSION,
        "title": found.title,
        "caution": found.caution,
        "trained": found.trained,
        "headline": found.headline,
        "reference": judge.sweep.reference,
        "level": judge.level,
        "margin": 100 * judge.margin,
        "conditions": found.card,
        "missing": found.origin.missing(),
        "commands": found.origin.commands,
    }


def write(found: Answer, out: Path, latex: bool = False, live: bool = False) -> None:
    """Write index.html, answer.json, runs.csv, summary.csv, summary.md, figures/, looks.json, and
    summary.tex if asked.

    Args:
        live: the sweep goes on: the page loads itself again from time to time.

    Raises:
        UserError: the folder cannot be written.
    """
    judge = found.judge
    drawn = pictures(judge, found.rows, found.costs)
    files = {
        "index.html": page.page(found, drawn, out, live).encode(),
        card.FILE: (json.dumps(as_dict(found), indent=1, ensure_ascii=False) + "\n").encode(),
        "summary.csv": csv_files.summary_csv(judge, found.rows, found.costs).encode(),
        "summary.md": markdown(found).encode(),
    }
    if judge.runs.in_directories:  # what was read from a file need not be written again
        files["runs.csv"] = csv_files.runs_csv(judge).encode()
    if found.looks:
        files[looks.FILE] = looks.written(found.looks)
    if latex:
        files["summary.tex"] = f"{latex_tables(found)}\n".encode()
    for picture in drawn:
        files[f"figures/{picture.name}.svg"] = picture.svg
        files[f"figures/{picture.name}.png"] = picture.png
    for name, content in files.items():
        with replacing(out / name, fix="give another folder by --out") as file:
            file.write(content)


def _filled(line: str, width: int | None, begin: str = "") -> str:
    return textwrap.fill(
        begin + printable(line), width or tables.WIDTH, subsequent_indent=" " * len(begin),
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip


def _first(found: Answer, width: int | None) -> list[str]:
    return [_filled(one, width) for one in (found.caution, found.trained, found.headline)]


def _listed(lines: list[str], width: int | None) -> str:
    return "\n".join(_filled(line, width, "- ") for line in lines)


def card_text(found: Answer, width: int = tables.WIDTH) -> str:
    """The answer card for a terminal: the answer, and a line a condition."""
    parts = [*_first(found, width), _listed(found.lines, width)]
    return "\n\n".join(filter(None, parts))


def terminal(found: Answer, width: int | None = tables.WIDTH, colour: bool = False) -> str:
    """The answer, the grid, a line a condition, and the tables.

    Args:
        width: that nothing but names and commands exceeds; None for all columns.
        colour: of the verdicts, as ANSI has them.
    """

    def filled(line: str) -> str:
        return _filled(line, width)

    reference = str(found.judge.sweep.reference)
    grid = [] if found.grid is None else [tables.plain_grid(found.grid, reference, width, colour)]
    parts = [*_first(found, width), *grid, _listed([*found.lines, *found.notes], width)]
    parts += [tables.plain(found.summary, width), filled(found.method)]
    for section in found.sections:
        for table in section.tables:
            title = filled(table.caption if len(section.tables) > 1 else section.heading)
            parts.append(f"{title}\n{tables.plain(table, width)}")
        parts.append(filled(section.text))
    if found.origin.commands:
        parts.append("\n".join(["to go on:", *map(printable, found.origin.commands)]))
    return "\n\n".join(filter(None, parts))


def markdown(found: Answer) -> str:
    """The answer and all tables as Markdown."""
    own = tables.no_html
    parts = [
        f"# {own(found.title)}",
        f"**{own(found.caution)}**" if found.caution else "",
        own(found.trained),
        f"**{own(found.headline)}**",
    ]
    if found.grid is not None:
        parts.append(tables.markdown_grid(found.grid, str(found.judge.sweep.reference)))
    parts += ["\n".join(f"- {own(one)}" for one in [*found.lines, *found.notes])]
    parts += [tables.markdown(found.summary), own(found.method)]
    for section in found.sections:
        parts += [f"## {section.heading}", own(section.text)]
        for table in section.tables:
            parts += [f"{own(table.caption)}:", tables.markdown(table)]
    return "\n\n".join(filter(None, parts)) + "\n"


def latex_tables(found: Answer) -> str:
    """The table of accuracies and that of costs, for ``booktabs``."""
    chosen = [found.summary]
    if len(found.costs.columns):
        chosen.append(tables.costs(found.judge, found.costs))
    caution = [f"% {printable(found.caution)}"] if found.caution else []
    return "\n\n".join([*caution, *map(tables.latex, chosen)])
