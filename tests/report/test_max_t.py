"""The statistics of the report, against scipy, by hand, and against a test written another way."""

import itertools
import math
import statistics as plain

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from normexp.report.statistics import SAMPLED, difference, half_width, holm, max_t
from normexp.report.verdicts import compare

BN = [0.60, 0.61, 0.62, 0.60, 0.63, 0.61, 0.62, 0.60]
HIGHER = [0.65, 0.655, 0.68, 0.65, 0.67, 0.67, 0.66, 0.65]


def scores(**cells: list[float | None]) -> pd.DataFrame:
    return pd.DataFrame({name: pd.Series(values, dtype=float) for name, values in cells.items()})


def judged(table: pd.DataFrame, **options: float) -> pd.DataFrame:
    """Every column but the first beside it, by its name."""
    first, *others = table.columns
    lost = pd.Series(0.0, index=table.columns)
    return compare(table, [(one, first) for one in others], lost, **options).set_index(
        pd.Index(others)
    )


def by_another_way(differences: list[list[float]]) -> list[float]:
    """Step-down maxT as the book has it, on |t| itself: one hypothesis after the other, from the
    largest |t| down, each against the largest of those that are left.

    Args:
        differences: a list for each comparison, of as many seeds each.
    """

    def t(values: list[float]) -> float:
        spread = plain.stdev(values)
        mean = abs(plain.fmean(values))
        return math.inf if spread < 1e-12 * mean else mean * math.sqrt(len(values)) / spread

    n = len(differences[0])
    observed = [t(one) for one in differences]
    order = sorted(range(len(observed)), key=lambda one: -observed[one])
    adjusted, largest = [0.0] * len(observed), 0.0
    for rank, place in enumerate(order):
        as_far = 0
        for signs in itertools.product((-1, 1), repeat=n):
            most = max(
                t([sign * value for sign, value in zip(signs, differences[other], strict=True)])
                for other in order[rank:]
            )
            as_far += most >= observed[place] * (1 - 1e-9)
        largest = max(largest, as_far / 2**n)
        adjusted[place] = largest
    return adjusted


@given(
    st.integers(2, 6).flatmap(
        lambda n: st.lists(
            st.lists(st.integers(-40, 40).map(lambda x: x + 0.123), min_size=n, max_size=n),
            min_size=1,
            max_size=4,
        )
    )
)
@settings(max_examples=40, deadline=None)
def test_step_down_max_t_against_one_written_another_way(table: list[list[float]]) -> None:
    found = max_t(np.array(table).T)
    assert found == pytest.approx(by_another_way(table))


def test_step_down_max_t_by_hand() -> None:
    # Three seeds; the first seed keeps its sign, so four patterns of signs:
    #        +++              ++-             +-+             +--   (sum² over 3 times the squares)
    # a: 1 2 3   36/42          0/42            4/42           16/42
    # b: 3 -1 1   9/33          1/33           25/33            9/33
    # |t| grows with that share. Of a, 36/42 is the largest of all: p = 1/4. Of b alone, 9/33 is
    # reached in three of four patterns (+++, +-+, +--).
    assert max_t(np.array([[1, 3], [2, -1], [3, 1]], dtype=float)) == pytest.approx([0.25, 0.75])


@given(st.lists(st.integers(-20, 20).filter(bool), min_size=2, max_size=7))
@settings(max_examples=40, deadline=None)
def test_one_comparison_is_the_sign_flip_test(points: list[int]) -> None:
    (found,) = max_t(np.array(points, dtype=float)[:, None])
    sums = [
        abs(sum(sign * x for sign, x in zip(signs, points, strict=True)))
        for signs in itertools.product((-1, 1), repeat=len(points))
    ]
    assert found == pytest.approx(np.mean([total >= abs(sum(points)) for total in sums]))


def test_the_least_p_does_not_depend_on_how_many_comparisons_there_are() -> None:
    draws = np.random.default_rng(0)
    for n, comparisons in ((6, 1), (6, 100), (8, 100)):
        clear = 5 + 0.01 * draws.normal(size=(n, comparisons))
        assert max_t(clear) == pytest.approx([2 / 2**n] * comparisons)


def test_above_twelve_seeds_a_fixed_sample_of_signs_is_near_all_of_them() -> None:
    draws = np.random.default_rng(1).normal(0.3, 1, size=(13, 5))
    sampled = max_t(draws)
    assert (sampled == max_t(draws)).all()
    assert (sampled >= 1 / (1 + SAMPLED)).all()
    n = 13
    signs = np.array(list(itertools.product((-1, 1), repeat=n)))
    t = np.abs(stats.ttest_1samp(signs[:, :, None] * draws, 0, axis=1).statistic)
    single_step = (t.max(axis=1)[:, None] >= t[-1] - 1e-9).mean(axis=0)
    # The first hypothesis of step-down is that of single step; three standard errors of a share.
    first = t[-1].argmax()
    assert sampled[first] == pytest.approx(single_step[first], abs=3 * 0.5 / math.sqrt(SAMPLED))


def test_comparisons_with_fewer_seeds_take_part_with_what_they_have() -> None:
    draws = np.random.default_rng(2).normal(0.5, 1, size=(8, 4))
    whole = max_t(draws)
    draws[6:, 3] = np.nan
    found = max_t(draws)
    # A fourth comparison with six seeds: its p is not below what six can give, and what it lacks
    # is no zero.
    assert found[3] >= 2 / 2**6
    assert np.isfinite(found).all()
    assert (found[:3] >= max_t(draws[:, :3]) - 1e-12).all()
    assert whole.shape == found.shape


def test_a_paired_comparison_against_scipy() -> None:
    found = difference(pd.Series(HIGHER), pd.Series(BN))
    test = stats.ttest_rel(HIGHER, BN)
    interval = test.confidence_interval(0.95)
    half = half_width(found["error"], found["freedom"])
    assert found["difference"] - half == pytest.approx(interval.low)
    assert found["difference"] + half == pytest.approx(interval.high)
    assert (found["n"], found["paired"], found["left_out"]) == (8, True, 0)
    assert found["correlation"] == pytest.approx(np.corrcoef(HIGHER, BN)[0, 1])
    assert found["variance"] == pytest.approx(np.var(np.subtract(HIGHER, BN), ddof=1))
    assert found["unpaired_variance"] == pytest.approx(np.var(HIGHER, ddof=1) + np.var(BN, ddof=1))


def test_seeds_that_nobody_shares_are_compared_by_welch() -> None:
    ours, theirs = pd.Series([0.5, 0.6, 0.7, 0.55]), pd.Series([0.4, 0.45, 0.65], index=[7, 8, 9])
    found = difference(ours, theirs)
    test = stats.ttest_ind(ours, theirs, equal_var=False)
    interval = test.confidence_interval(0.95)
    half = half_width(found["error"], found["freedom"])
    assert (found["n"], found["paired"]) == (3, False)
    assert found["freedom"] == pytest.approx(test.df)
    assert found["difference"] - half == pytest.approx(interval.low)
    assert found["difference"] + half == pytest.approx(interval.high)


def test_only_common_seeds_are_paired_and_the_rest_is_counted() -> None:
    ours = pd.Series({0: 0.5, 1: 0.6, 2: 0.9})
    found = difference(ours, pd.Series({1: 0.5, 2: 0.8, 7: 0.1}))
    assert (found["n"], found["left_out"], found["paired"]) == (2, 2, True)
    assert found["difference"] == pytest.approx(0.1)


def test_too_few_common_seeds_of_enough_are_not_all_that_is_looked_at() -> None:
    ours = pd.Series(HIGHER)
    found = difference(ours, pd.Series(BN, index=range(5, 13)))
    assert (found["n"], found["paired"]) == (8, False)


def test_a_table_with_unpaired_comparisons_shares_its_level() -> None:
    draws = np.random.default_rng(3)
    base = pd.Series(draws.normal(0.6, 0.01, 8))
    near = base + 0.05 + pd.Series(draws.normal(0, 0.001, 8))
    other = pd.Series(draws.normal(0.66, 0.01, 8), index=range(10, 18))
    found = judged(pd.DataFrame({"bn": base, "gn": near, "ln": other}))
    assert found["paired"].tolist() == [True, False]
    # Each family is of one comparison, and has half of the level.
    assert found.loc["gn", "p"] == pytest.approx(2 * 2 / 2**8)
    single = stats.ttest_ind(other, base, equal_var=False).pvalue
    assert found.loc["ln", "p"] == pytest.approx(2 * single)


def test_better_and_worse() -> None:
    found = judged(scores(bn=BN, gn=HIGHER, ln=BN[::-1]))
    assert found["verdict"].tolist() == ["better", "undecided"]
    assert found.loc["gn", "p"] == pytest.approx(2 / 2**8)
    mirrored = judged(scores(gn=HIGHER, bn=BN))
    assert mirrored["verdict"].tolist() == ["worse"]


def test_six_seeds_decide_a_table_of_a_hundred() -> None:
    draws = np.random.default_rng(4)
    base = draws.normal(0.5, 0.01, 6)
    table = {f"norm{i}": list(base + 0.1 + draws.normal(0, 0.001, 6)) for i in range(100)}
    assert set(judged(scores(bn=list(base), **table))["verdict"]) == {"better"}


def test_a_higher_level_is_asked_for_by_a_parameter() -> None:
    table = scores(bn=BN, gn=HIGHER)
    assert judged(table, level=0.007)["verdict"].tolist() == ["undecided"]
    assert judged(table, level=0.008)["verdict"].tolist() == ["better"]


def test_below_six_seeds_there_is_an_interval_and_no_verdict() -> None:
    found = judged(scores(bn=BN[:5], gn=HIGHER[:5]))
    assert found["verdict"].tolist() == ["too few seeds"]
    assert np.isfinite(found[["low", "high"]].to_numpy()).all()
    assert found["p"].isna().all()


def test_a_single_seed_has_neither_interval_nor_verdict() -> None:
    found = judged(scores(bn=[0.5], gn=[0.7])).loc["gn"]
    assert (found["verdict"], found["n"]) == ("too few seeds", 1)
    assert math.isnan(found["low"])
    assert math.isnan(found["high"])


def test_the_same_is_said_where_two_one_sided_tests_say_so() -> None:
    draws = np.random.default_rng(5)
    base = draws.normal(0.6, 0.01, 8)
    table = scores(
        bn=list(base), gn=list(base + draws.normal(0, 0.001, 8)),
        ln=list(base + draws.normal(0, 0.02, 8)),
    )  # fmt: skip
    found = judged(table)
    assert found["verdict"].tolist() == ["same", "undecided"]
    one_sided = [
        max(
            stats.ttest_1samp(table[name] - table["bn"], -0.005, alternative="greater").pvalue,
            stats.ttest_1samp(table[name] - table["bn"], 0.005, alternative="less").pvalue,
        )
        for name in ("gn", "ln")
    ]
    assert found["p_same"].tolist() == pytest.approx(list(holm(np.array(one_sided))))
    # Nothing is the same within a hair.
    assert judged(table, margin=0.0001)["verdict"].tolist() == ["undecided", "undecided"]


def test_a_decided_difference_is_not_called_the_same() -> None:
    base = np.array(BN)
    table = scores(bn=list(base), gn=list(base + 0.001 + np.arange(8) * 1e-5))
    found = judged(table).loc["gn"]
    assert found["p_same"] < 0.05
    assert found["verdict"] == "better"


def test_differences_that_do_not_scatter_have_an_interval_of_one_point() -> None:
    found = judged(scores(bn=[0.25] * 6, gn=[0.5] * 6, ln=[0.25] * 6))
    assert found.loc["gn", ["low", "high"]].tolist() == [0.25, 0.25]
    assert found["verdict"].tolist() == ["better", "same"]
    assert found.loc["ln", "p"] == 1


def test_survivors_are_not_better() -> None:
    table = scores(bn=BN, gn=HIGHER, ln=[x - 0.2 for x in HIGHER])
    lost = pd.Series({"bn": 0.0, "gn": 0.6, "ln": 0.6})
    found = compare(table, [("gn", "bn"), ("ln", "bn")], lost)
    assert found["survivors"].tolist() == [True, False]
    # Divergence is no excuse for what is worse without it too.
    assert found["verdict"].tolist() == ["undecided", "worse"]
    found = compare(table, [("bn", "gn"), ("bn", "ln")], lost)
    assert found["verdict"].tolist() == ["undecided", "better"]


def test_holm_by_hand() -> None:
    # 0.01 * 4, 0.02 * 3, then 0.03 * 2 and 0.04 * 1, which must not fall below those before.
    found = holm(np.array([0.04, 0.01, 0.03, 0.02]))
    assert found == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm(np.array([0.5, 0.9])).tolist() == [1.0, 1.0]
    assert holm(np.array([])).tolist() == []
