"""The whole report of a directory: read, compared, and written."""

from collections.abc import Sized
from dataclasses import dataclass
from pathlib import Path

from normexp.config import DataName
from normexp.data.sources import MADE_UP
from normexp.errors import UserError
from normexp.printable import printable
from normexp.report import bn_evaluation, page, tables
from normexp.report.beside_config import told_apart
from normexp.report.cells import Sweep, arrange
from normexp.report.compare import LR, BestRates, Row, best_rates, rows
from normexp.report.cost import caution
from normexp.report.figures import pictures
from normexp.report.provenance import Provenance, not_swept, provenance
from normexp.report.published import Beside, beside, otherwise
from normexp.report.read import Run, read_runs
from normexp.report.sentence import sentences
from normexp.run_directory import replacing


@dataclass
class Answer:
    """What a directory of runs says."""

    title: str
    runs: list[Run]
    sweep: Sweep
    rows: list[Row]
    rates: list[BestRates]
    published: list[Beside]
    origin: Provenance
    sentences: list[str]

    @property
    def warning(self) -> str:
        """What stands above all else; empty where all images are real."""
        made_up = [run.config.get("data.name") == DataName.synthetic for run in self.runs]
        if not any(made_up):
            return ""
        return MADE_UP if all(made_up) else f"{made_up.count(True)} runs: {MADE_UP}"

    @property
    def facts(self) -> str:
        by_status: dict[str, int] = {}
        for run in self.runs:
            by_status[run.status] = by_status.get(run.status, 0) + 1
        counts = ", ".join(f"{count} {status}" for status, count in sorted(by_status.items()))
        swept = " × ".join(map(self.sweep.short, self.sweep.swept)) or "seeds"
        text = f"{_counted(self.runs, 'run')} ({counts}) in {_counted(self.sweep.cells, 'cell')}; "
        text += f"swept: {swept}."
        if self.sweep.reference is not None:
            text += f" Reference: {self.sweep.variant_label(self.sweep.reference)}."
        return text


def _counted(things: Sized, word: str) -> str:
    return f"{len(things)} {word}{'' if len(things) == 1 else 's'}"


def answer(root: Path, reference: dict[str, str] | None = None) -> Answer:
    """Read all runs below a directory and compare them.

    Args:
        reference: what the others are compared with, such as ``{"norm": "bn"}``.

    Raises:
        UserError: there is no run, or none is such a reference.
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such directory; give one below outputs/")
    runs, unreadable = read_runs(root)
    runs = told_apart(runs)
    known = [run for run in runs if run.config]
    if not known:
        unread = f" that can be read ({unreadable[0]})" if unreadable else ""
        raise UserError(f"{root}: no runs{unread}; python -m normexp.train name=... makes some")
    sweep = arrange(known, reference)
    table = rows(sweep)
    rates = best_rates(sweep, table)
    origin = provenance(runs, unreadable, sweep)
    return Answer(
        title=printable(root.resolve().name),
        runs=runs,
        sweep=sweep,
        rows=table,
        rates=rates,
        published=beside(sweep),
        origin=origin,
        sentences=[
            *sentences(sweep, table, rates, len(origin.unanswered), origin.never_begun),
            *not_swept(origin),
        ],
    )


def write(found: Answer, out: Path, latex: bool = False) -> None:
    """Write index.html, runs.csv, summary.csv, summary.md, figures/, and summary.tex if asked.

    Raises:
        UserError: the folder cannot be written.
    """
    drawn = pictures(found.sweep, found.rows)
    summary = tables.summary(found.sweep, found.rows, bold="**{}**")
    costs = tables.costs(found.sweep, found.rows)
    html = page.page(
        found.title, found.warning, found.facts, found.sentences, summary, costs,
        costs_note(found), drawn, _sections(found),
        found.origin,
    )  # fmt: skip
    files = {
        "index.html": html.encode(),
        "runs.csv": tables.runs_csv(found.sweep, found.runs).encode(),
        "summary.csv": tables.summary_csv(found.sweep, found.rows).encode(),
        "summary.md": markdown(found).encode(),
    }
    if latex:
        files["summary.tex"] = latex_tables(found).encode()
    for picture in drawn:
        files[f"figures/{picture.name}.svg"] = picture.svg
        files[f"figures/{picture.name}.png"] = picture.png
    for name, content in files.items():
        with replacing(out / name, fix="give another folder by --out") as file:
            file.write(content)


def markdown(found: Answer) -> str:
    """The sentences and all tables as Markdown."""
    summary = tables.summary(found.sweep, found.rows, bold="**{}**")
    own = tables.no_html
    parts = [f"# {own(found.title)}", *([f"**{found.warning}**"] if found.warning else [])]
    parts += [own(found.facts)]
    parts += ["\n".join(f"- {own(one)}" for one in found.sentences)]
    parts += [tables.markdown(summary), "## Cost beside accuracy"]
    parts += [tables.markdown(tables.costs(found.sweep, found.rows)), own(costs_note(found))]
    for section in _sections(found):
        parts += [f"## {section.heading}", own(section.text)]
        for caption, table in section.tables:
            parts += [f"{own(caption)}:", tables.markdown(table)]
    return "\n\n".join(parts) + "\n"


COSTS = (
    "Medians over the completed runs. A CPU's memory is that of the whole process, which the runs "
    "of a sweep share. Statistics are the pairs of a mean and a variance that all norms keep for "
    "one batch of training: BN C, LN N, IN N·C, GN N·G at each layer."
)


def costs_note(found: Answer) -> str:
    """How the table of costs came about, and whether its times may be compared."""
    return f"{caution(found.sweep.cells)} {COSTS}".lstrip()


def latex_tables(found: Answer) -> str:
    """The table of accuracies and that of costs, for ``booktabs``."""
    summary = tables.summary(found.sweep, found.rows, bold="**{}**")
    costs = tables.costs(found.sweep, found.rows)
    warning = [f"% {found.warning}"] if found.warning else []
    return "\n\n".join([*warning, *map(tables.latex, (summary, costs))]) + "\n"


def _sections(found: Answer) -> list[page.Section]:
    sections = []
    if found.published:
        sections.append(
            page.Section(
                "Published and measured",
                "What others published for such runs, and what these measured (mean ± standard "
                f"deviation over n runs). {otherwise(found.sweep)}".rstrip(),
                [("Published and measured", tables.published(found.published))],
            )
        )
    by_statistics = bn_evaluation.table(found.sweep)
    if by_statistics is not None:
        views = [(bn_evaluation.HEADING, by_statistics)]
        sections.append(page.Section(bn_evaluation.HEADING, bn_evaluation.NOTE, views))
    if found.rates:
        sections.append(_rates_section(found))
    return sections


def _rates_section(found: Answer) -> page.Section:
    views = []
    others = [key for key in found.sweep.conditions if key != LR]
    for one in found.rates:
        pairs = zip(others, one.condition, strict=True)
        label = " ".join(f"{found.sweep.short(key)}={value}" for key, value in pairs)
        where = f" ({label})" if label else ""
        if one.common:
            common = tables.rates(found.sweep, one.common)
            views.append((f"All at one common rate{where}", common))
        views.append((f"Each at its best rate{where}", tables.rates(found.sweep, one.best)))
    return page.Section(
        "Learning rates",
        "The learning rate was swept. Rates are chosen by mean validation accuracy, never on the "
        "test images, and after those at which no run diverged: one for all, the best for all "
        "together; and one for each, the best for itself. Comparisons at the same rate are those "
        "of the table of all cells; p of the others is adjusted over those of this view.",
        views,
    )
