"""The report as one HTML page that needs nothing else: page.html filled in by Jinja."""

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pandas as pd
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from normexp.report.drawing import Picture
from normexp.report.origin import address
from normexp.report.read import UNFINISHED
from normexp.report.tables import NOTHING, Table, number
from normexp.report.words import listed

if TYPE_CHECKING:
    from normexp.report.answer import Answer

REFRESH = 20
"""Seconds after which the page of a sweep under way loads itself again."""


def page(found: "Answer", pictures: list[Picture], out: Path, live: bool = False) -> str:
    """The whole page.

    Args:
        out: the folder that it is written to, from which runs are linked.
        live: whether it loads itself again from time to time, since the sweep goes on.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["kind"] = lambda verdict: str(verdict).partition(" ")[0]
    return environment.get_template("page.html").render(
        found=found, runs=_runs(found, out), reference=found.judge.sweep.reference,
        pictures=[(one, Markup(one.inline())) for one in pictures], listed=listed,
        refresh=REFRESH if live else None,
    ) + "\n"  # fmt: skip


def _runs(found: "Answer", out: Path) -> Table | None:
    """All runs, each linked to its directory; None where they have none."""
    runs = found.judge.runs
    if not runs.in_directories:
        return None
    known = runs.table.merge(found.judge.sweep.runs[["folder", "cell"]], "left", on="folder")
    cells = found.judge.cells
    names = (cells["variant"] + " " + cells["condition"]).str.strip()
    unknown = known["status"].map({UNFINISHED: "under way, or killed"}).fillna("")
    frame = pd.DataFrame(
        {
            "run": known["folder"],
            "cell": known["cell"].map(names).fillna(NOTHING),
            "seed": known["seed"].astype(float).map("{:.0f}".format).replace("nan", NOTHING),
            "status": known["status"],
            "accuracy %": known[runs.measure].map(lambda value: number(100 * value, ".2f")),
            "reason": known["reason"].where(known["reason"].astype(bool), unknown).fillna(unknown),
        }
    )
    links = [quote(address(runs.source.resolve() / one, out.resolve())) for one in known["folder"]]
    return Table(frame, 1, "All runs", links=links)
