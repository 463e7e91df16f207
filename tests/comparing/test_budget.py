"""How much of a comparison fits a time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from normexp.comparing import budget
from normexp.comparing.budget import Cost, Length, fit
from normexp.comparing.settings import Asked
from normexp.system.errors import UserError

COST = Cost({1: 0.002, 8: 0.001}, epoch=1000, validation=0.5, test=1.0)


def test_a_run_by_hand() -> None:
    """Three epochs of 1,000 steps, a validation after each, one test."""
    assert COST.run(Length("epochs", 3), of=1) == pytest.approx(
        3 * 1000 * 0.002 + 3 * (0.5 + budget.AN_EPOCH) + 1.0 + budget.A_RUN
    )
    assert COST.run(Length("max_steps", 1500), of=8) == pytest.approx(
        1500 * 0.001 + 2 * (0.5 + budget.AN_EPOCH) + 1.0 + budget.A_RUN
    )


def test_plenty_of_time_changes_nothing() -> None:
    found = fit([COST] * 4, Asked(), Length("epochs", 10), 86400)
    assert (found.asked, found.length) == (Asked(), Length("epochs", 10))


@given(st.floats(600, 20000), st.integers(1, 12), st.integers(1, 50))
def test_what_is_planned_fits(seconds: float, cells: int, epochs: int) -> None:
    costs = [COST] * cells
    found = fit(costs, Asked(), Length("epochs", epochs), seconds)
    assert budget.total(costs, found.asked, found.length) <= 0.9 * seconds
    assert 1 <= found.length.value <= epochs
    assert found.asked.looks[-1] >= 6


def test_a_refused_budget_names_one_that_is_enough() -> None:
    with pytest.raises(UserError, match="six seeds of 1 epoch") as refused:
        fit([COST] * 10, Asked(), Length("epochs", 10), 30)
    named = str(refused.value).partition("use budget=")[2].partition(",")[0]
    from normexp.comparing.settings import seconds

    fit([COST] * 10, Asked(), Length("epochs", 10), seconds(named))


def test_a_clock_learns_from_what_stages_took() -> None:
    clock = budget.Clock(spent=100.0)
    assert clock.corrected(10.0) == 10.0
    clock.learn(expected=10.0, took=30.0)
    assert clock.corrected(10.0) == pytest.approx(30.0)
    assert clock.spent() >= 100.0
