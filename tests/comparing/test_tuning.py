"""Which learning rates are tried, and which one is the best."""

import pytest

from normexp.comparing import tuning


def test_rates_lie_half_a_power_of_ten_apart_around_the_default() -> None:
    steps = tuning.grid(5)
    assert [tuning.rate(0.001, one) for one in steps] == [0.0001, 0.000316, 0.001, 0.00316, 0.01]
    assert tuning.grid(4) == [-2, -1, 0, 1]
    assert tuning.rate(0.0123456, 0) == 0.0123456  # the default is what it is


def test_the_grid_is_widened_for_all_where_the_best_of_some_lies_at_an_edge() -> None:
    assert tuning.wider([-1, 0, 1], [0, 1]) == [2, 3]
    assert tuning.wider([-1, 0, 1], [-1, 0, 1]) == [-3, -2, 2, 3]
    assert tuning.wider([-1, 0, 1], [0, 0]) == []


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ({-1: [0.5, 0.5], 0: [0.6, 0.4], 1: [0.7, 0.5]}, 1),
        ({-1: [0.5], 0: [0.5], 1: [0.5]}, 0),  # of equals the nearest to the default
        ({0: [0.3, 0.3], 1: [0.9, None]}, 0),  # a rate at which a run diverged comes last
        ({0: [None, None], 1: [0.1, None]}, 1),
    ],
)
def test_the_best_rate(scores: dict[int, list[float | None]], expected: int) -> None:
    assert tuning.best(scores) == expected
