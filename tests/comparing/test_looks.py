"""Planned looks: how much of the 5 % each may spend, and what they decide."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from normexp.comparing.looks import Verdict, least_p, levels, look


def test_levels_of_the_default_looks() -> None:
    """By hand: 5 % t² at t = 8/16, 12/16, 1, each in whole steps of the least p of its seeds."""
    first, second, third = levels((8, 12, 16))
    assert first == 1 / 128  # 0.0125 holds one step of 1/128
    assert second == 41 / 2048  # 0.028125 - 1/128 holds 41 steps of 1/2048
    assert third == pytest.approx(0.0221)  # 0.05 - both, in steps of 1/10,000


@given(st.lists(st.integers(6, 40), min_size=1, max_size=6, unique=True).map(sorted))
def test_levels_sum_to_no_more_than_five_percent(planned: list[int]) -> None:
    found = levels(planned)
    assert sum(found) <= 0.05 + 1e-12
    for seeds, level in zip(planned, found, strict=True):
        assert level / least_p(seeds) == pytest.approx(round(level / least_p(seeds)), abs=1e-6)
    if planned[-1] <= 12:  # nothing that a test could still use is left
        assert sum(found) > 0.05 - least_p(planned[-1])


def table(seeds: int, **shifts: float) -> pd.DataFrame:
    """Accuracies of a reference and of cells that are shifted from it, with a little noise."""
    rng = np.random.default_rng(0)
    reference = rng.normal(0.6, 0.01, seeds)
    cells = {name: reference + shift + rng.normal(0, 0.002, seeds)
             for name, shift in shifts.items()}  # fmt: skip
    return pd.DataFrame({"ref": reference, **cells})


def test_a_look_decides_what_differs_and_what_is_the_same() -> None:
    scores = table(12, up=0.05, down=-0.05, equal=0.0)
    pairs = [(name, "ref") for name in ("up", "down", "equal")]
    lost = pd.Series(0.0, index=scores.columns)
    found = look(scores, pairs, lost, {}, 0, 0.02, margin=0.005)
    assert [one.verdict for one in found.values()] == ["better", "worse", "same"]
    assert found[pairs[0]].difference == pytest.approx(0.05, abs=0.003)


def test_what_was_decided_stays_decided() -> None:
    """Even where all seeds together would say otherwise: it was decided by those it had."""
    scores = table(12, up=0.0, open=0.004)
    pairs = [("up", "ref"), ("open", "ref")]
    before = {
        pairs[0]: Verdict("better", 0, 8, 0.05, 0.04, 0.06, 0.008, 1.0),
        pairs[1]: Verdict("undecided", 0, 8, 0.004, -0.01, 0.02, 0.3, 0.3),
    }
    found = look(scores, pairs, pd.Series(0.0, index=scores.columns), before, 1, 0.02)
    assert found[pairs[0]] == before[pairs[0]]
    assert found[pairs[1]].look == 1
    assert found[pairs[1]].n == 12


def test_what_was_found_the_same_still_counts_in_the_family() -> None:
    """It may be a null hypothesis still; without it the others would be tested too easily."""
    scores = table(8, a=0.0, b=0.003)
    pairs = [("a", "ref"), ("b", "ref")]
    lost = pd.Series(0.0, index=scores.columns)
    same = Verdict("same", 0, 8, 0.0, -0.001, 0.001, 1.0, 0.001)
    alone = look(scores, pairs[1:], lost, {}, 1, 0.02)[pairs[1]]
    beside = look(scores, pairs, lost, {pairs[0]: same}, 1, 0.02)[pairs[1]]
    assert beside.p >= alone.p


def test_no_level_no_verdict() -> None:
    """Six seeds cannot reach a level below 1/32."""
    scores = table(6, up=0.05)
    lost = pd.Series(0.0, index=scores.columns)
    first, _ = levels((6, 16))
    assert first == 0
    assert look(scores, [("up", "ref")], lost, {}, 0, first)[("up", "ref")].verdict == "undecided"


def test_looks_use_more_of_the_level_the_later_they_are() -> None:
    found = levels((8, 12, 16))
    assert all(one < other for one, other in pairwise(found))
