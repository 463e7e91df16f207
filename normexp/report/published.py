"""What others published, beside what these runs measured."""

import json
from functools import cache
from typing import Any

import pandas as pd
import yaml

from normexp.config.schema import Measure, conf_dir
from normexp.report.cells import Sweep, full_key, records, text
from normexp.report.tables import NOTHING, Table, number, spread
from normexp.runs.recorded_config import DEFAULTS, flat

BUDGET = ("epochs", "max_steps", "data.name", "data.train_size")
"""Settings without which a published figure is one of other runs."""


def beside(sweep: Sweep) -> pd.DataFrame:
    """Every figure that the runs' configurations carry, once for each cell that it is about; with
    n = 0 where no run is such a one. Fractions and losses as recorded."""
    if "published" not in sweep.runs:
        return pd.DataFrame()
    carried = sweep.runs["published"].map(lambda figures: [*map(json.dumps, figures or [])])
    found = []
    for figure in dict.fromkeys(carried.explode().dropna()):
        runs = sweep.runs[[figure in figures for figures in carried]]  # not another preset's
        what = json.loads(figure)
        for key, value in what.get("where", {}).items():
            runs = runs[runs.get(full_key(key), pd.Series(index=runs.index)).map(text) == value]
        done = runs[runs["status"] == "completed"]
        labels = [f"{key}={value}" for key, value in what.get("where", {}).items()]
        groups = list(done.groupby("cell")) if len(done) else []
        found += [
            {"where": _label(sweep, cell)} | _figure(what, group) for cell, group in groups
        ] or [{"where": " ".join(labels)} | _figure(what, done)]
    return pd.DataFrame(found)


def _label(sweep: Sweep, cell: Any) -> str:
    row = sweep.cells.loc[cell]
    return " ".join(filter(None, [row["variant"], row["condition"]]))


def _figure(what: dict[str, Any], runs: pd.DataFrame) -> dict[str, Any]:
    """A published figure and the measured one, for one cell."""
    error = what["what"] == Measure.test_error.value
    values = 1 - runs["test_acc"] if error else runs[what["what"]]
    return {
        "what": what["what"], "published": float(what["value"]), "n": int(values.count()),
        "measured": values.mean(), "std": values.std(), "source": str(what["source"]),
    }  # fmt: skip


def table(figures: pd.DataFrame) -> Table:
    lines = []
    for row in figures.itertuples():
        scale, form = (1, ".3f") if row.what == Measure.train_loss.value else (100, ".2f")
        difference = scale * (row.measured - row.published)
        lines.append(
            {
                "runs": row.where or NOTHING,
                "what": row.what + (" %" if scale == 100 else ""),
                "published": format(scale * row.published, form),
                "measured": spread(row.measured, row.std, scale, form),
                "n": str(row.n),
                "difference": number(difference, f"+{form}"),
                "source": row.source,
            }
        )
    return Table(pd.DataFrame(lines), 1, "Published and measured", ("source",))


def otherwise(sweep: Sweep) -> str:
    """In one line how runs were trained otherwise than the presets whose figures they carry; empty
    if they were not."""
    parts: dict[str, None] = {}
    for run in records(sweep.runs) if "published" in sweep.runs else ():
        figures = run["published"]
        for name, budget in _presets().get(_key(figures), {}).items() if figures else ():
            differ = [key for key in BUDGET if text(run[key]) != text(budget[key])]
            if differ:
                ours, theirs = _written(run, differ), _written(budget, differ)
                parts[f"{ours}, where the preset {name} has {theirs}"] = None
    if not parts:
        return ""
    return f"Trained otherwise than what was published: {'; '.join(parts)}."


def _written(config: Any, keys: list[str]) -> str:
    # Of epochs and steps one is chosen; the other is null.
    chosen = [key for key in keys if config[key] is not None or key == "data.train_size"]
    return ", ".join(f"{key}={text(config[key])}" for key in chosen)


@cache
def _presets() -> dict[str, dict[str, dict[str, Any]]]:
    """By the figures that they carry and by their name, the budgets of the presets."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for path in sorted((conf_dir() / "experiment").glob("*.yaml")):
        preset = yaml.safe_load(path.read_text(encoding="utf-8"))
        if preset.get("published"):
            given = flat(preset)
            for one in preset.get("defaults", []):
                given["data.name"] = one.get("override /data", given.get("data.name", "cifar10"))
            budget = {key: given.get(key, DEFAULTS.get(key)) for key in BUDGET}
            found.setdefault(_key(preset["published"]), {})[path.stem] = budget
    return found


def _key(figures: list[dict[str, Any]]) -> str:
    return str([(one["what"], float(one["value"]), one["source"]) for one in figures])
