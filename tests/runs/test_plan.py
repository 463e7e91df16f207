"""The plan of a sweep tells what was asked for, what is missing, and how to go on."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from normexp.runs import plan as plans
from normexp.runs.plan import Cell, Command, Plan
from normexp.system.errors import UserError


def cell(norm: str, *seeds: int) -> Cell:
    return Cell(norm, {"norm": norm}, {seed: f"{norm}-seed{seed}" for seed in seeds})


def test_what_was_never_begun_is_missing_and_its_command_is_told(tmp_path: Path) -> None:
    first = Command(["-m", "norm=bn,gn", "seeds=2", "data.root=my images"], "2026-01-01T00:00:00")
    plans.extend(tmp_path, first, [cell("bn", 0, 1), cell("gn", 0, 1)])
    plan = plans.read(tmp_path)
    assert plan is not None
    missing = plan.missing(["bn-seed0", "bn-seed1"])
    assert [(one.settings, seeds) for one, seeds in missing] == [({"norm": "gn"}, [0, 1])]
    line = "python -m normexp.train -m norm=bn,gn seeds=2 'data.root=my images'"
    assert plan.goes_on(["bn-seed0"]) == [line]
    assert plan.goes_on(["bn-seed0", "bn-seed1", "gn-seed0", "gn-seed1"]) == []


def test_a_second_command_adds_its_cells_and_seeds(tmp_path: Path) -> None:
    plans.extend(tmp_path, Command(["norm=bn", "seeds=2"]), [cell("bn", 0, 1)])
    plans.extend(tmp_path, Command(["norm=bn", "seeds=2"]), [cell("bn", 0, 1)])
    plan = plans.extend(tmp_path, Command(["norm=bn", "seeds=4"]), [cell("bn", 0, 1, 2, 3)])
    assert [sorted(one.runs) for one in plan.cells] == [[0, 1, 2, 3]]
    assert [command.arguments[1] for command in plan.commands] == ["seeds=2", "seeds=4"]
    assert plan.goes_on(["bn-seed0"]) == ["python -m normexp.train norm=bn seeds=4"]


def test_a_command_that_starts_over_is_not_the_one_to_go_on_with() -> None:
    plan = Plan()
    plan.add(Command(["-m", "norm=bn,gn", "force=true"]), [cell("bn", 0)])
    assert plan.goes_on([]) == ["python -m normexp.train -m norm=bn,gn"]


def test_cells_whose_images_could_not_be_read_get_their_names_later(tmp_path: Path) -> None:
    plans.extend(tmp_path, Command(["norm=bn"]), [Cell(None, {"norm": "bn"}, {0: None})])
    plan = plans.extend(tmp_path, Command(["norm=bn"]), [cell("bn", 0)])
    assert [(one.name, one.runs) for one in plan.cells] == [("bn", {0: "bn-seed0"})]
    plan = plans.extend(tmp_path, Command(["norm=bn"]), [Cell(None, {"norm": "bn"}, {0: None})])
    assert [(one.name, one.runs) for one in plan.cells] == [("bn", {0: "bn-seed0"})]


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"schema_version": 9}', "[" * 100_000, '{"schema_version": 1, "cells": 3}'],
)
def test_a_damaged_plan_is_refused_in_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / plans.FILE).write_text(content)
    with pytest.raises(UserError, match=r"plan\.json is damaged .*writes it anew"):
        plans.read(tmp_path)


@given(
    st.lists(
        st.dictionaries(st.sampled_from("abcd"), st.sets(st.integers(0, 4), min_size=1), min_size=1)
    )
)
def test_commands_in_any_order_ask_for_the_union(asked: list[dict[str, set[int]]]) -> None:
    plan = Plan()
    for number, norms in enumerate(asked):
        plan.add(Command([str(number)]), [cell(norm, *seeds) for norm, seeds in norms.items()])
    wanted = {f"{norm}-seed{seed}" for norms in asked for norm in norms for seed in norms[norm]}
    # By hand: every run asked for is in the plan, once, and missing until it is done.
    told = [name for one in plan.cells for name in one.runs.values()]
    assert sorted(told) == sorted(wanted)
    assert {one.runs[seed] for one, seeds in plan.missing([]) for seed in seeds} == wanted
    assert plan.missing(wanted) == []


def test_what_is_written_is_json_that_others_can_read(tmp_path: Path) -> None:
    plans.extend(tmp_path, Command(["norm=bn"], "2026-01-01T00:00:00+00:00"), [cell("bn", 0)])
    found = json.loads((tmp_path / "plan.json").read_text())
    assert found["cells"] == [
        {"name": "bn", "settings": {"norm": "bn"}, "runs": {"0": "bn-seed0"}, "command": 0}
    ]
    assert found["commands"][0]["arguments"] == ["norm=bn"]
