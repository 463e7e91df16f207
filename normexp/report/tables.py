"""The report's tables as text, Markdown, LaTeX and CSV."""

import csv
import io
import statistics
from collections.abc import Sequence
from typing import Any

from normexp.bn_stats import KINDS
from normexp.printable import csv_cell
from normexp.report.cells import Cell, Sweep, text
from normexp.report.compare import LR, Row, validation
from normexp.report.cost import cost
from normexp.report.published import Beside
from normexp.report.read import Run
from normexp.run_records import RESULT

Table = tuple[list[str], list[list[str]]]
"""Headings and rows of what stands in each column."""

NOTHING = "–"


def accuracy(cell: Cell) -> str:
    """Mean and standard deviation of the test accuracy in percent, and what n hides."""
    return spread(accuracies(cell))


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation of accuracies in percent."""
    if not values:
        return NOTHING
    mean = f"{100 * statistics.fmean(values):.2f}"
    return f"{mean} ± {100 * statistics.stdev(values):.2f}" if len(values) > 1 else mean


def accuracies(cell: Cell) -> list[float]:
    return [run.accuracy for run in cell.completed if run.accuracy is not None]


def count(cell: Cell) -> str:
    """``8``; ``6 (2 of 8 diverged)``; ``3 (5 without an answer)``."""
    notes = []
    answered = len(cell.completed) + len(cell.diverged)
    if cell.diverged:
        notes.append(f"{len(cell.diverged)} of {answered} diverged")
    if len(cell.runs) > answered:
        notes.append(f"{len(cell.runs) - answered} without an answer")
    return f"{len(cell.completed)} ({', '.join(notes)})" if notes else str(len(cell.completed))


def points(value: float) -> str:
    """A difference of accuracies in percentage points, with its sign."""
    return f"{100 * value:+.2f}"


def interval(row: Row) -> str:
    """The difference from the reference and its 95 % interval, in percentage points."""
    found = row.difference
    if found is None:
        return NOTHING
    if found.low is None or found.high is None:
        return points(found.mean)
    return f"{points(found.mean)} [{points(found.low)}, {points(found.high)}]"


def p_value(p: float | None) -> str:
    if p is None:
        return NOTHING
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def said(row: Row) -> str:
    """The verdict with what one must know of how it came about."""
    found = row.difference
    if found is None:
        if not row.cell.completed:
            return "no result" if row.cell.diverged else "no result yet"
        return "reference" if row.is_reference else "nothing to compare with"
    notes = []
    if not found.paired:
        notes.append("unpaired seeds")
    elif found.left_out:
        notes.append(f"{found.left_out} unpaired seed{'s' if found.left_out > 1 else ''} left out")
    if found.diverged and not found.survived:
        notes.append("without diverged runs")
    return f"{row.verdict} ({', '.join(notes)})" if notes else row.verdict


def more_seeds(row: Row) -> str:
    """How many seeds more would decide, about."""
    if row.difference is None or not row.open or row.difference.n < 2:
        return NOTHING
    return "> 1000" if row.needed is None else f"~{max(1, row.needed - row.difference.n)}"


def summary(sweep: Sweep, rows: Sequence[Row], bold: str = "{}") -> Table:
    """A row a cell: what was swept, accuracy, and the difference from the reference.

    Args:
        bold: what to write around a difference whose interval does not span zero.
    """
    headings = [*swept(sweep), "n", "test accuracy %"]
    compared = sweep.reference is not None
    if compared:
        headings += [
            "difference, points [95 %]",
            "P(better)",
            "p",
            "p Holm",
            "verdict",
            "seeds to add",
        ]
    lines = []
    for row in rows:
        line = [*values_of(row.cell), count(row.cell), accuracy(row.cell)]
        if compared:
            found, written = row.difference, interval(row)
            line += [
                bold.format(written) if row.bold else written,
                NOTHING if found is None else f"{found.better:.2f}",
                p_value(found.p if found else None),
                p_value(row.adjusted_p),
                said(row),
                more_seeds(row),
            ]
        lines.append(line)
    return headings, lines


def costs(sweep: Sweep, rows: Sequence[Row]) -> Table:
    """A row a cell: accuracy beside time, memory, parameters and statistics."""
    headings = [*swept(sweep), "test accuracy %", "ms/step", "images/s", "training s"]
    headings += ["memory MiB", "parameters", "statistics"]
    lines = []
    for row in rows:
        spent = cost(row.cell)
        lines.append(
            [
                *values_of(row.cell),
                accuracy(row.cell),
                _number(spent.ms_per_step, ".2f"),
                _number(spent.images_per_second, ",.0f"),
                _number(spent.train_seconds, ",.1f"),
                _number(spent.peak_memory_mb, ",.0f"),
                _number(spent.parameters, ",d"),
                _number(spent.statistics, ",d"),
            ]
        )
    return headings, lines


def swept(sweep: Sweep) -> list[str]:
    """Headings of the columns that tell cells apart."""
    return [sweep.short(key) for key in [*sweep.conditions, *sweep.compared]] or ["runs"]


def values_of(cell: Cell) -> list[str]:
    """What stands in these columns."""
    values = [*cell.condition, *cell.variant]
    return [NOTHING if value is None else text(value) for value in values] or ["all"]


def _number(value: float | None, form: str) -> str:
    return NOTHING if value is None else format(value, form)


def rates(sweep: Sweep, rows: Sequence[Row]) -> Table:
    """One view of a swept learning rate: each variant with the rate it is shown at."""
    place = sweep.conditions.index(LR)
    headings = ["lr", *map(sweep.short, sweep.compared), "n", "validation accuracy %"]
    headings += ["test accuracy %", "difference, points [95 %]", "p Holm", "verdict"]
    lines = []
    for row in rows:
        chosen_by = validation(row.cell)
        lines.append(
            [
                text(row.cell.condition[place]),
                *(NOTHING if value is None else text(value) for value in row.cell.variant),
                count(row.cell),
                NOTHING if chosen_by is None else f"{100 * chosen_by:.2f}",
                accuracy(row.cell),
                interval(row),
                p_value(row.adjusted_p),
                said(row),
            ]
        )
    return headings, lines


def published(figures: Sequence[Beside]) -> Table:
    headings = ["what", "runs", "published", "measured", "n", "difference", "source"]
    lines = []
    for one in figures:
        scale, form = (1, ".3f") if one.what.value == "train_loss" else (100, ".2f")
        measured = NOTHING if one.measured is None else format(scale * one.measured, form)
        if one.std is not None:
            measured += f" ± {format(scale * one.std, form)}"
        lines.append(
            [
                one.what.value + (" %" if scale == 100 else ""),
                one.where,
                format(scale * one.published, form),
                measured,
                str(one.n),
                NOTHING if one.difference is None else format(scale * one.difference, f"+{form}"),
                one.source,
            ]
        )
    return headings, lines


def plain(table: Table) -> str:
    """For a terminal: columns in line, as wide as they must be."""
    headings, lines = table
    widths = [max(map(len, column)) for column in zip(headings, *lines, strict=True)]
    right = [numeric(column) for column in zip(*lines, strict=True)] or [False] * len(headings)
    written = []
    for line in [headings, *lines]:
        parts = [
            one.rjust(width) if to_right else one.ljust(width)
            for one, width, to_right in zip(line, widths, right, strict=True)
        ]
        written.append("  ".join(parts).rstrip())
    return "\n".join(written)


def numeric(column: Sequence[str]) -> bool:
    """Whether figures stand in a column, which belong to the right."""
    return all(one == NOTHING or one[:1].isdigit() or one[:1] in "+-<>~*" for one in column)


def markdown(table: Table) -> str:
    headings, lines = table
    written = [headings, ["---"] * len(headings), *lines]
    return "\n".join(
        "| " + " | ".join(no_html(one).replace("|", "\\|") for one in line) + " |"
        for line in written
    )


def no_html(words: str) -> str:
    """Markdown in which what looks like HTML or a link is read as it was written, in one line."""
    plain = " ".join(words.split()).replace("&", "&amp;").replace("<", "&lt;")
    return plain.replace("](", "]\\(")


LATEX = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "±": r"$\pm$", "–": "--", "<": "$<$", ">": "$>$",
}  # fmt: skip


def latex(table: Table) -> str:
    """A booktabs table; differences marked ``**so**`` become bold."""
    headings, lines = table
    columns = "".join("r" if numeric(column) else "l" for column in zip(*lines, strict=True))
    body = [f"\\begin{{tabular}}{{{columns or 'l' * len(headings)}}}", "\\toprule"]
    body += [" & ".join(map(_latex_cell, headings)) + r" \\", "\\midrule"]
    body += [" & ".join(map(_latex_cell, line)) + r" \\" for line in lines]
    return "\n".join([*body, "\\bottomrule", "\\end{tabular}"])


def _latex_cell(words: str) -> str:
    bold = len(words) > 4 and words.startswith("**") and words.endswith("**")
    inner = words[2:-2] if bold else words
    escaped = "".join(LATEX.get(sign, sign) for sign in inner)
    return f"\\textbf{{{escaped}}}" if bold else escaped


OWN_COLUMNS = ("schema_version", "versions", "test_acc_by_bn_stats")
RUN_FIELDS = tuple(name for name in RESULT if name not in OWN_COLUMNS)


def runs_csv(sweep: Sweep, runs: Sequence[Run]) -> str:
    """A row a run: where it is, what was swept, and every field of its result."""
    rows = []
    for run in runs:
        row: dict[str, Any] = {"folder": run.folder}
        row |= {key: text(run.config.get(key)) for key in sweep.factors}
        row |= {name: run.result.get(name) for name in RUN_FIELDS}
        by_kind = run.result.get("test_acc_by_bn_stats") or {}
        row |= {f"test_acc_{kind}": by_kind[kind] for kind in KINDS if kind in by_kind}
        row |= {"status": run.status, "seed": run.config.get("seed", run.result.get("seed"))}
        row |= {"fused": run.result.get("fused", 1) if run.result else None}
        row |= {f"version_{name}": v for name, v in (run.result.get("versions") or {}).items()}
        rows.append(row)
    return _csv(rows)


def summary_csv(sweep: Sweep, rows: Sequence[Row]) -> str:
    """A row a cell, in full precision; accuracies and differences as fractions."""
    written = []
    for row in rows:
        cell, found, spent = row.cell, row.difference, cost(row.cell)
        values = accuracies(cell)
        line: dict[str, Any] = {}
        line |= dict(zip(sweep.conditions, map(text, cell.condition), strict=True))
        line |= dict(zip(sweep.compared, map(text, cell.variant), strict=True))
        line |= {
            "n": len(values),
            "diverged": len(cell.diverged),
            "without_answer": len(cell.runs) - len(cell.completed) - len(cell.diverged),
            "test_acc_mean": statistics.fmean(values) if values else None,
            "test_acc_std": statistics.stdev(values) if len(values) > 1 else None,
            "val_acc_mean": validation(cell),
            "pairs": found.n if found else None,
            "paired": found.paired if found else None,
            "difference": found.mean if found else None,
            "difference_low": found.low if found else None,
            "difference_high": found.high if found else None,
            "probability_better": found.better if found else None,
            "p": found.p if found else None,
            "p_holm": row.adjusted_p,
            "verdict": row.verdict or ("reference" if row.is_reference else None),
            "seeds_needed": row.needed,
            "ms_per_step": spent.ms_per_step,
            "images_per_second": spent.images_per_second,
            "train_seconds": spent.train_seconds,
            "peak_memory_mb": spent.peak_memory_mb,
            "parameters": spent.parameters,
            "statistics": spent.statistics,
        }
        written.append(line)
    return _csv(written)


def _csv(rows: list[dict[str, Any]]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(map(csv_cell, names))
    writer.writerows([csv_cell(row.get(name, "")) for name in names] for row in rows)
    return file.getvalue()
