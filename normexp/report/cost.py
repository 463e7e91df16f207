"""What a cell costs: time and memory of a step, parameters, and the statistics its norms keep.

Times and memory are shown where they were measured alike: by ``--time``, or by runs that nothing
tells apart but the network. Everything else is left out, with a line on how to get it.
"""

import io
import math
import os
from pathlib import Path
from shlex import quote
from typing import Any

import pandas as pd

from normexp.config.schema import Architecture, ModelConfig, NormConfig, side
from normexp.models.plan import norm_sites
from normexp.norms import rules
from normexp.norms.rules import Site
from normexp.report.cells import BESIDE, records, text
from normexp.report.verdicts import Judge
from normexp.system.foreign_files import TABLE, read_text

FILE = "time.csv"
"""What ``--time`` measured, in the folder of the report: of each cell, with the run that was taken
for it."""
TIMED = ("ms", "ms_low", "ms_high", "step_mib")
COLUMNS = ("cell", "run", *TIMED, "rounds", "device", "threads")

COMPUTED_ON = ("device", "threads", "fused", "precision", "version_torch")
"""Columns without which times cannot be compared."""

BUSY = 1.5
"""How many times as long as its fastest run the slowest of a cell may have taken a step."""

QUIET = 0.8
"""Where no other work takes it, the thread that trains has a processor for more than this share of
the time of its steps; the rest it waits for its helpers."""

HOW = "python -m normexp.report --time {} times each network by itself, in turn"


def costs(judge: Judge, out: Path) -> tuple[pd.DataFrame, str]:
    """What each cell costs, and in a few sentences how that was measured or why it is not known.

    Args:
        out: the folder of the report.

    Returns:
        By cell ``ms``, ``ms_low``, ``ms_high`` of a step, ``step_mib`` that it adds to memory,
        ``parameters``, ``statistics``; columns of which nothing is known are left out.
    """
    cells, runs = judge.cells, judge.sweep.runs
    done = runs[runs["status"] == "completed"]
    found = pd.DataFrame(index=cells.index)
    how = HOW.format(quote(str(judge.runs.source)))
    timed = _timed(out / FILE, judge.runs.source, runs)
    if timed is not None:
        found = timed.reindex(cells.index)[[*TIMED]]
        timed = timed.reset_index()
        note = (
            "Each network was timed by itself, in turn with the others, one seed, on "
            f"{timed['device'][0]} (threads: {timed['threads'][0]}): median, fastest and slowest "
            f"of {timed['rounds'][0]} rounds. Memory is what the tensors of one step take at most."
        )
        if found["ms"].isna().any():
            note += f" Cells without a time came later: {how}."
    elif not judge.runs.in_directories:
        note = "A file of results tells no costs."
    elif unlike := _unlike(done):
        note = f"Times are left out, since {unlike}: {how}."
    else:
        steps = done.groupby("cell")["ms_per_step"]
        found = found.assign(ms=steps.median(), ms_low=steps.min(), ms_high=steps.max())
        note = (
            "Times are those of the runs, all computed alike, whatever else the machine did: "
            f"median, fastest and slowest; {how}."
        )
    if not judge.runs.in_directories:
        return found, note
    if "parameters" in done:
        found["parameters"] = done.groupby("cell")["parameters"].median()
    first = runs.drop_duplicates("cell").set_index("cell")
    kept = {
        cell: statistics_kept(row) for cell, row in zip(first.index, records(first), strict=True)
    }
    found["statistics"] = pd.Series(kept, dtype=float)
    found = found.dropna(axis="columns", how="all")
    if "statistics" in found:
        note += (
            " Statistics are the pairs of a mean and a variance that all norms keep for one batch "
            "of training: BN C, LN N, IN N·C, GN N·G at each layer."
        )
    return found, note


def _timed(path: Path, source: Path, runs: pd.DataFrame) -> pd.DataFrame | None:
    """What was timed of these runs, by cell; None if nothing was, as where the folder has the
    report of others."""
    try:
        found = pd.read_csv(io.StringIO(read_text(path, TABLE)), keep_default_na=False, dtype=str)
        found = found[[*COLUMNS]].astype(dict.fromkeys(TIMED, float))
    except (OSError, ValueError, KeyError):
        return None
    cells = {
        run_id(source, folder): cell
        for folder, cell in zip(runs["folder"], runs["cell"], strict=True)
    }
    found["cell"] = found["run"].map(cells)
    found = found.dropna(subset="cell").drop_duplicates("cell").set_index("cell")
    return None if found.empty else found


def run_id(source: Path, folder: str) -> str:
    """What a run is called, wherever it lies."""
    return Path(os.path.abspath(source / folder)).name


def _unlike(done: pd.DataFrame) -> str:
    """How runs were computed differently, so that their times do not compare; empty if alike."""
    parts = []
    for name in COMPUTED_ON:
        values = done[name].map(text).unique() if name in done else []
        if len(values) > 1:
            parts.append(f"{name} was {' or '.join(values)}")
    if not parts and done["fused"].max() > 1:
        parts.append("seeds were trained together")
    if "cpu_share" in done and not parts and done["cpu_share"].min() < QUIET:
        parts.append(f"other work took the processor (cpu_share {done['cpu_share'].min():.2f})")
    steps = done.groupby("cell")["ms_per_step"]
    if not parts and (ratio := (steps.max() / steps.min()).max()) > BUSY:
        parts.append(f"the machine was busy (a step took up to {ratio:.1f} times as long as in "
                     "another seed of the same cell)")  # fmt: skip
    return ", ".join(parts)


def statistics_kept(config: dict[str, Any]) -> int | None:
    """How many pairs of a mean and a variance the norms of a network keep for one batch.

    For a batch of N images and C channels: BN C, LN N, IN N*C, GN with G groups N*G; summed over
    the network. the facts of each have the formula.

    Args:
        config: by dotted key.

    Returns:
        None for a norm that is not of the catalogue, or a network that is not known.
    """
    try:
        batch = int(config["batch_size"])
        norm, model = _part(NormConfig, config, "norm"), _part(ModelConfig, config, "model")
        model.architecture = Architecture(model.architecture)
        size = side(config["data.name"], int(config["data.image_size"]))
        sites = norm_sites(model, size)
        own = rules.at_sites(norm, len(sites))
        return sum(_kept(each, batch, site) for each, site in zip(own, sites, strict=True))
    except (KeyError, TypeError, ValueError, ArithmeticError):
        return None  # a norm or network of one's own, or what was refused


def _kept(norm: NormConfig, batch: int, site: Site) -> int:
    """Of one norm; raises a KeyError for one that is not of the catalogue or undefined here."""
    facts = rules.facts_of(norm)
    if facts is None or (facts.vectors is None and site.positions is None):
        raise KeyError(norm.name)
    grouped = "num_groups" in facts.settings
    values = {
        "N": batch, "C": site.channels, "H": site.positions or 1, "W": 1,
        "G": rules.groups_of(norm, site.channels) if grouped else 1,
        "N/g": batch // (norm.ghost_batch_size or batch), "0": 0,
    }  # fmt: skip
    terms = facts.keeps.split(" + ")
    return sum(math.prod(values[factor] for factor in term.split("·")) for term in terms)


def _part(kind: Any, config: dict[str, Any], group: str) -> Any:
    values = {
        key.partition(".")[2]: list(value) if isinstance(value, tuple) else value
        for key, value in config.items() if key.startswith(f"{group}.") and key not in BESIDE
    }  # fmt: skip
    return kind(**values)
