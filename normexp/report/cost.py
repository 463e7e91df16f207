"""What a cell costs: time, memory, parameters, and the statistics its norms keep."""

import math
import statistics
from dataclasses import dataclass
from typing import Any

from normexp.config import Architecture, DataName, ModelConfig, NormConfig
from normexp.models.plan import norm_sites
from normexp.norms import rules
from normexp.norms.catalogue import CATALOGUE
from normexp.norms.rules import Site
from normexp.report import beside_config
from normexp.report.cells import Cell, text
from normexp.report.read import Run

COMPUTED_ON = ("device", "threads", "fused", "precision")
"""Fields of a result without which times cannot be compared."""

QUIET = 0.8
"""Where no other work takes it, the thread that trains has a processor for more than this share of
the time of its steps; the rest it waits for its helpers."""


@dataclass(frozen=True)
class Cost:
    """Medians over the completed runs of a cell, each None if nothing is known."""

    ms_per_step: float | None
    images_per_second: float | None
    train_seconds: float | None
    peak_memory_mb: float | None
    parameters: int | None
    statistics: int | None
    """Means and variances, counted as one each, in all norms for one batch of training."""


def cost(cell: Cell) -> Cost:
    runs = cell.completed
    parameters = _median(runs, "parameters")
    return Cost(
        ms_per_step=_median(runs, "ms_per_step"),
        images_per_second=_median(runs, "images_per_second"),
        train_seconds=_median(runs, "train_seconds"),
        peak_memory_mb=_median(runs, "peak_memory_mb"),
        parameters=None if parameters is None else round(parameters),
        statistics=statistics_kept(cell.runs[0].config),
    )


def _median(runs: list[Run], field: str) -> float | None:
    found = [run.result[field] for run in runs if run.result.get(field) is not None]
    return statistics.median(found) if found else None


def caution(cells: list[Cell]) -> str:
    """In one sentence how runs were timed differently, so that their times do not compare; empty
    where they were timed alike."""
    differs = _uneven(cells)
    if not differs:
        return ""
    return f"Runs were not all timed alike ({'; '.join(differs)}): compare times with care."


def _uneven(cells: list[Cell]) -> list[str]:
    """Such as ``threads 1 or 2``."""
    runs = [run for cell in cells for run in cell.completed]
    found = []
    for field in COMPUTED_ON:
        values = dict.fromkeys(text(run.result.get(field) or 1) for run in runs)
        if len(values) > 1:
            found.append(f"{field} {' or '.join(values)}")
    shares = [share for run in runs if (share := run.result.get("cpu_share")) is not None]
    if shares and min(shares) < QUIET:
        found.append(
            f"other work took the processor, cpu_share {min(shares):.2f} to {max(shares):.2f}"
        )
    return found


def statistics_kept(config: dict[str, Any]) -> int | None:
    """How many pairs of a mean and a variance the norms of a network keep for one batch.

    For a batch of N images and C channels: BN C, LN N, IN N*C, GN with G groups N*G; summed over
    the network. normexp/norms/catalogue.py has the formula of each.

    Args:
        config: by dotted key.

    Returns:
        None for a norm that is not of the catalogue.
    """
    batch = int(config["batch_size"])
    try:
        norm, model = _part(NormConfig, config, "norm"), _part(ModelConfig, config, "model")
        model.architecture = Architecture(model.architecture)
        cifar10 = config["data.name"] == DataName.cifar10.value
        sites = norm_sites(model, 32 if cifar10 else int(config["data.image_size"]))
        own = rules.at_sites(norm, len(sites))
        return sum(_kept(each, batch, site) for each, site in zip(own, sites, strict=True))
    except (KeyError, TypeError, ValueError):
        return None  # a norm or network of one's own, or what was refused


def _kept(norm: NormConfig, batch: int, site: Site) -> int:
    """Of one norm; raises a KeyError for one that is not of the catalogue or undefined here."""
    entry = CATALOGUE[norm.name]
    if entry.vectors is None and site.positions is None:
        raise KeyError(norm.name)
    grouped = "num_groups" in entry.settings
    values = {
        "N": batch, "C": site.channels, "H": site.positions or 1, "W": 1,
        "G": rules.groups_of(norm, site.channels) if grouped else 1,
        "N/g": batch // (norm.ghost_batch_size or batch), "0": 0,
    }  # fmt: skip
    terms = entry.keeps.split(" + ")
    return sum(math.prod(values[factor] for factor in term.split("·")) for term in terms)


def _part(kind: Any, config: dict[str, Any], group: str) -> Any:
    values = {
        key.partition(".")[2]: value for key, value in config.items()
        if key.startswith(f"{group}.") and key not in beside_config.NAMES
    }  # fmt: skip
    return kind(**values)
