"""One run whose files somebody changed: it is left out and named, and the others are reported."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from fake_runs import write_run
from hypothesis import given, settings
from hypothesis import strategies as st

from normexp.report.answer import answer, terminal
from normexp.report.read import read_runs
from normexp.runs import plan as plans
from normexp.runs.directory import RunDirectory
from normexp.system.errors import UserError

ODD: tuple[Any, ...] = (
    *([[1]], [{}], [None], ["a"], [1, "a"], [1e300], [], {}, {"a": 1}, None, True, "", "x", -1, 0),
    *(1.5, 1e300, 10**18, 10**30, 10**300, float("nan"), float("inf"), "\x1b[31m", "2020-01-01"),
)
VALUES = st.sampled_from(ODD) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=5,
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """The last of three runs."""
    root = tmp_path_factory.mktemp("runs")
    *_, last = (write_run(root, "norm=gn", seed=seed) for seed in range(3))
    return last


def places(tree: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for key, value in tree.items():
        yield (key,)
        if isinstance(value, dict):
            yield from ((key, *rest) for rest in places(value))


def changed(tree: dict[str, Any], place: tuple[str, ...], value: Any) -> dict[str, Any]:
    found = copy.deepcopy(tree)
    inner = found
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return found


def report_on(run: RunDirectory) -> int:
    """How many runs the report counts; no error comes of any."""
    found = read_runs(run.path.parents[1])
    assert len(found.table) + len(found.unreadable) == 3
    assert all(str(run.path) in line for line in found.unreadable)
    if not found.unreadable:
        terminal(answer(found, run.path.parents[1] / "report"), 80, False)
    run.answer()
    return len(found.table)


@given(st.data())
@settings(max_examples=20, deadline=None)
def test_no_value_of_one_run_ends_the_report(runs: RunDirectory, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["config.yaml", "result.json"]))
    file = runs.path / name
    good = file.read_text()
    tree = yaml.safe_load(good)
    place = data.draw(st.sampled_from(list(places(tree))))
    other = changed(tree, place, data.draw(VALUES))
    try:
        file.write_text(yaml.safe_dump(other) if name == "config.yaml" else json.dumps(other))
        report_on(runs)
    finally:
        file.write_text(good)


@given(st.data())
@settings(max_examples=10, deadline=None)
def test_no_cell_of_metrics_ends_the_report(runs: RunDirectory, data: st.DataObject) -> None:
    file = runs.path / "metrics.csv"
    good = file.read_text()
    words = good.replace("\n", ",\n,").split(",")
    words[data.draw(st.integers(0, len(words) - 1))] = data.draw(
        st.sampled_from(["nan", "inf", "-1", "1e300", "x", "", '"', "\0", "\u2028"])
    )
    try:
        file.write_text(",".join(words).replace(",\n,", "\n"))
        report_on(runs)
    finally:
        file.write_text(good)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("model.pool_after", [[1]]),
        ("data", 1e300),
        ("data", {}),
        ("evaluate.bn_stats", None),
        ("norm.eps", {"a": 1}),
        ("norm.eps", {}),
        ("seed", 2**64),
    ],
)
def test_what_no_run_would_write_is_left_out(runs: RunDirectory, place: str, value: Any) -> None:
    file = runs.path / "config.yaml"
    good = file.read_text()
    try:
        file.write_text(yaml.safe_dump(changed(yaml.safe_load(good), (*place.split("."),), value)))
        assert report_on(runs) == 2
        (line,) = read_runs(runs.path.parents[1]).unreadable
        assert "config.yaml" in line
        assert runs.answer() is None
    finally:
        file.write_text(good)
    assert report_on(runs) == 3


@pytest.mark.parametrize(
    "change",
    [
        {"reference": 5},
        {"margin": "x"},
        {"margin": float("inf")},
        {"commands": [{"arguments": 5}]},
        {"cells": [{"name": "a", "settings": {}, "runs": {"0": None}, "command": 3}]},
        {"cells": [{"name": "a", "settings": {"norm": [1]}, "runs": {}, "command": 0}]},
    ],
)
def test_a_plan_that_no_sweep_would_write_is_refused(
    change: dict[str, Any], tmp_path: Path
) -> None:
    plan = plans.extend(tmp_path, plans.Command(["norm=bn"]), [])
    assert plans.read(tmp_path) == plan
    path = tmp_path / plans.FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match="is damaged or of another version"):
        plans.read(tmp_path)
