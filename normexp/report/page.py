"""The report as one HTML page that needs nothing else: no script, no font, no address."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from normexp.report.drawing import Picture
from normexp.report.finish import OWN_COMMAND
from normexp.report.provenance import Provenance
from normexp.report.tables import Table, numeric

STYLE = """
:root { color-scheme: light dark; --ink: #1d1f21; --paper: #ffffff; --soft: #5c6166;
  --line: #d9dcdf; --box: #f5f6f7; --accent: #0b5fa5; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8ea; --paper: #16181a; --soft: #a3a9af;
  --line: #3a3f44; --box: #202326; --accent: #7cbcf5; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.25rem; max-width: 70rem; background: var(--paper);
  color: var(--ink); font: 16px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: .5rem 0 1rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.25rem 0 .75rem; }
h3 { font-size: 1rem; margin: 1.25rem 0 .25rem; }
p, li { max-width: 46rem; }
.answer { border-left: 4px solid var(--accent); background: var(--box);
  padding: .75rem 1rem .75rem 1.75rem; margin: 1rem 0; }
.answer li { margin: .35rem 0; }
.answer li:first-child { font-weight: 600; }
.warning { border-left: 4px solid #c4501b; padding: .25rem 1rem; font-weight: 600; }
.note { color: var(--soft); font-size: .9rem; }
.scroll { overflow-x: auto; margin: .75rem 0; border: 1px solid var(--line); border-radius: 4px; }
.scroll:focus-visible { outline: 2px solid var(--accent); }
table { border-collapse: collapse; font-size: .875rem; width: 100%;
  font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .65rem; text-align: left; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
tbody tr:last-child > * { border-bottom: 0; }
.right { text-align: right; }
td.wrap { white-space: normal; min-width: 8rem; }
td.long { white-space: normal; min-width: 16rem; overflow-wrap: anywhere; }
thead th { background: var(--box); }
tbody th { font-weight: 500; }
figure { margin: 0; min-width: 0; }
.figures { display: grid; gap: 2rem; grid-template-columns: repeat(2, minmax(0, 1fr)); }
.figures .wide { grid-column: 1 / -1; }
@media (max-width: 50rem) { body { padding: .9rem; } .figures { grid-template-columns: 100%; }
  th, td { padding: .3rem .45rem; } thead th { white-space: normal; vertical-align: bottom; } }
figure svg { width: 100%; height: auto; display: block; }
figure > div { overflow-x: auto; }
figcaption { color: var(--soft); font-size: .9rem; margin-top: .35rem; }
figcaption b { color: var(--ink); display: block; }
pre { background: var(--box); border: 1px solid var(--line); border-radius: 4px; padding: .75rem;
  overflow-x: auto; font-size: .85rem; }
code { font-size: .9em; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; font-size: .9rem; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
details > summary { cursor: pointer; }
"""

READING = (
    "Accuracy is that of the test images: mean ± standard deviation over the n seeds. A difference "
    "is paired by seed and given with its nominal 95 % BCa bootstrap interval, which with few "
    "seeds is narrower than it should be: with 6 to 10 it covers the true difference in 85 to 90 % "
    "of cases. P(better) is the share of paired seeds in which the row is ahead of the reference, "
    "a tie counting half and a run that diverged as behind one that did not; p is that of a "
    "two-sided sign-flip permutation test, p Holm the same adjusted over all comparisons of the "
    "table. “ahead” and “behind” need six seeds, an interval without zero and p below 0.05, which "
    "chance alone gives up to one in twenty comparisons; “better” and “worse” also p Holm below "
    "0.05. Where the higher mean is that of the cell of which the larger share of runs diverged, "
    "it speaks of survivors: undecided. "
    "Seeds to add is an estimate: how many would decide with a power of 0.8 if the difference is "
    "as large as it looks now."
)


@dataclass
class Section:
    """A heading and tables below it."""

    heading: str
    text: str
    tables: Sequence[tuple[str, Table]]
    """Each with its caption."""


def page(
    title: str,
    warning: str,
    facts: str,
    sentences: Sequence[str],
    summary: Table,
    costs: Table,
    costs_note: str,
    pictures: Sequence[Picture],
    sections: Sequence[Section],
    origin: Provenance,
) -> str:
    """The whole page.

    Args:
        title: of the runs.
        warning: what a reader must know before all else, or nothing.
        facts: how many runs and cells there are, in one line.
        sentences: what the runs support.
        summary: a row a cell; a difference marked ``**so**`` stands out.
        costs: a row a cell; below it the note on how it came about.
    """
    parts = [
        f"<h1>{escape(title)}</h1>",
        *([f'<p class="warning">{escape(warning)}</p>'] if warning else []),
        f'<p class="note">{escape(facts)}</p>',
        '<ul class="answer">',
        *(f"<li>{escape(sentence)}</li>" for sentence in sentences),
        "</ul>",
        *_pictures(pictures[:2]),
        "<h2>All cells</h2>",
        _table(summary, "Every cell beside the reference"),
        f'<p class="note">{escape(READING)}</p>',
    ]
    for section in sections:
        parts += [f"<h2>{escape(section.heading)}</h2>", f"<p>{escape(section.text)}</p>"]
        for caption, table in section.tables:
            title = f"<h3>{escape(caption)}</h3>" if len(section.tables) > 1 else ""
            parts += [title, _table(table, caption)]
    parts += ["<h2>Cost beside accuracy</h2>", _table(costs, "Cost beside accuracy")]
    parts.append(f'<p class="note">{escape(costs_note)}</p>')
    if pictures[2:]:
        parts += ["<h2>More pictures</h2>", *_pictures(pictures[2:])]
    parts += _origin(origin)
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title>",
            f"<style>{STYLE}</style>",
            "</head>",
            "<body>",
            "<main>",
            *parts,
            "</main>",
            "</body>",
            "</html>",
            "",
        ]
    )


def _pictures(pictures: Sequence[Picture]) -> list[str]:
    written = ['<div class="figures">']
    for picture in pictures:
        wide = ' class="wide"' if picture.wide else ""
        written.append(
            f'<figure{wide}><div tabindex="0">{picture.inline()}</div><figcaption>'
            f"<b>{escape(picture.title)}</b>{escape(picture.caption)}</figcaption></figure>"
        )
    return [*written, "</div>"] if pictures else []


def _table(table: Table, caption: str) -> str:
    headings, lines = table
    right = [numeric(column) for column in zip(*lines, strict=True)] or [False] * len(headings)
    head = "".join(
        f'<th scope="col"{_class("right" if to_right else "")}>{escape(one)}</th>'
        for one, to_right in zip(headings, right, strict=True)
    )
    body = []
    for first, *others in lines:
        heading = f'<th scope="row"{_class("right" if right[0] else "")}>{escape(first)}</th>'
        cells = "".join(map(_cell, others, right[1:]))
        body.append(f"<tr>{heading}{cells}</tr>")
    # A box that scrolls must be reachable by keyboard.
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def _class(*names: str) -> str:
    known = " ".join(filter(None, names))
    return f' class="{known}"' if known else ""


def _cell(words: str, right: bool) -> str:
    written = escape(words)
    if len(words) > 4 and words.startswith("**") and words.endswith("**"):
        written = f"<strong>{escape(words[2:-2])}</strong>"
    wrapped = "long" if len(words) > 45 else "wrap" if " (" in words or ": " in words else ""
    return f"<td{_class('right' if right else '', wrapped)}>{written}</td>"


def _origin(origin: Provenance) -> list[str]:
    parts = ["<h2>Where this comes from</h2>"]
    if origin.unanswered:
        lines = [
            [run.folder, run.status, run.reason or "under way, or killed"]
            for run in origin.unanswered
        ]
        parts += [
            "<p>Runs without an answer:</p>",
            _table((["run", "status", "reason"], lines), "Runs without an answer"),
        ]
    if origin.commands:
        never = origin.never_begun
        begun = f" It begins {never} runs that are not there." if never else ""
        parts += [
            f"<p>This would train what can be seen to be missing; what is done is skipped.{begun} "
            f"{escape(OWN_COMMAND)}</p>",
            f"<pre>{escape(chr(10).join(origin.commands))}</pre>",
        ]
    if origin.differs:
        lines = [
            [name, ", ".join(f"{value} ({count} runs)" for value, count in values)]
            for name, values in origin.differs
        ]
        parts += [
            "<p>These differ between runs though nobody swept them; times are comparable only "
            "where device, threads and fused are the same:</p>",
            _table((["what", "values"], lines), "What differs and was not swept"),
        ]
    if origin.unreadable:
        parts.append("<p>Skipped, since they could not be read:</p><ul>")
        parts += [f"<li><code>{escape(line)}</code></li>" for line in origin.unreadable]
        parts.append("</ul>")
    if origin.twice:
        parts.append("<p>Left out, since another run has the same settings and seed:</p><ul>")
        parts += [f"<li><code>{escape(folder)}</code></li>" for folder in origin.twice]
        parts.append("</ul>")
    shared = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in origin.shared
    )
    parts.append(
        "<details open><summary>What all runs share, where it is not the default</summary>"
        f"<dl>{shared}</dl></details>"
    )
    return parts
