"""The report: what it computes, what it says, and what it writes."""

import csv
import io
import itertools
import json
import os
import re
import shlex
import statistics as plain
import subprocess
import sys
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from fake_runs import write_run, write_sweep
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from normexp.entry import compose, explain
from normexp.errors import UserError
from normexp.recorded_config import flat
from normexp.report import tables
from normexp.report.__main__ import main
from normexp.report.answer import Answer, answer, costs_note, write
from normexp.report.cost import cost, statistics_kept
from normexp.report.figures import pictures
from normexp.report.published import otherwise
from normexp.report.read import read_runs
from normexp.report.statistics import compare, holm, least_seeds, seeds_needed, verdict
from normexp.run_directory import BesideConfig, RunDirectory, run_id

BN = [0.60, 0.61, 0.62, 0.60, 0.63, 0.61, 0.62, 0.60]
HIGHER = [0.65, 0.655, 0.68, 0.65, 0.67, 0.67, 0.66, 0.65]


def report(root: Path, name: str = "default", **reference: str) -> Answer:
    return answer(root / name, reference or None)


def cells(found: Answer) -> dict[str, int]:
    """How many runs each cell has, by its label."""
    sweep = found.sweep
    return {
        f"{sweep.variant_label(c.variant)} {sweep.condition_label(c.condition)}".strip(): len(
            c.runs
        )
        for c in sweep.cells
    }


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes a second; not where only what is said matters."""
    monkeypatch.setattr("normexp.report.answer.pictures", lambda sweep, rows: [])


# --- statistics


def test_a_paired_difference_against_scipy_and_by_hand() -> None:
    found = compare(dict(enumerate(HIGHER)), dict(enumerate(BN)))
    assert found is not None
    differences = [a - b for a, b in zip(HIGHER, BN, strict=True)]
    assert found.mean == pytest.approx(plain.fmean(differences))
    assert found.std == pytest.approx(plain.stdev(differences))
    # All eight are above zero: of 256 sign patterns only this one and its mirror are as far out.
    assert found.p == pytest.approx(2 / 256)
    assert (found.better, found.n, found.paired, found.left_out) == (1.0, 8, True, 0)
    interval = stats.bootstrap(
        (np.array(differences),), np.mean, n_resamples=20000, method="BCa", rng=1
    ).confidence_interval
    assert found.low == pytest.approx(interval.low, abs=0.001)
    assert found.high == pytest.approx(interval.high, abs=0.001)


@given(st.lists(st.integers(-20, 20), min_size=2, max_size=7))
@settings(max_examples=40, deadline=None)
def test_the_sign_flip_test_counts_all_sign_patterns(points: list[int]) -> None:
    found = compare(dict(enumerate(float(x) for x in points)), dict.fromkeys(range(len(points)), 0))
    assert found is not None
    sums = [
        sum(sign * x for sign, x in zip(signs, points, strict=True))
        for signs in itertools.product((-1, 1), repeat=len(points))
    ]
    as_far = (
        sum(total >= sum(points) for total in sums),
        sum(total <= sum(points) for total in sums),
    )
    assert found.p == pytest.approx(min(1, 2 * min(as_far) / len(sums)))
    assert found.low is not None
    assert found.high is not None
    assert min(points) <= found.low <= found.high <= max(points)
    assert np.isfinite([found.low, found.high, found.better]).all()


def test_differences_that_do_not_scatter_have_an_interval_of_one_point() -> None:
    found = compare(dict.fromkeys(range(6), 0.5), dict.fromkeys(range(6), 0.25))
    assert found is not None
    assert (found.low, found.high, found.std) == (0.25, 0.25, 0.0)
    same = compare(dict.fromkeys(range(6), 0.5), dict.fromkeys(range(6), 0.5))
    assert same is not None
    assert same.spans_zero
    assert (same.p, same.better) == (1.0, 0.5)
    assert seeds_needed(same, 1) is None


def test_a_single_seed_has_neither_interval_nor_verdict() -> None:
    found = compare({3: 0.7}, {3: 0.5})
    assert found is not None
    assert (found.low, found.high, found.p, found.n) == (None, None, 1.0, 1)
    assert verdict(found, 1.0) == "n too small"


def test_only_common_seeds_are_paired_and_the_rest_is_counted() -> None:
    found = compare({0: 0.5, 1: 0.6, 2: 0.9}, {1: 0.5, 2: 0.8, 7: 0.1})
    assert found is not None
    assert (found.n, found.left_out) == (2, 2)
    assert found.mean == pytest.approx(0.1)


def test_seeds_that_nobody_shares_are_compared_unpaired() -> None:
    ours, theirs = [0.5, 0.6, 0.7], [0.4, 0.45, 0.65]
    found = compare(dict(enumerate(ours)), dict(enumerate(theirs, start=10)))
    assert found is not None
    assert not found.paired
    assert found.mean == pytest.approx(0.1)
    # 0.5 beats two of three, 0.6 two, 0.7 all.
    assert found.better == pytest.approx(7 / 9)
    test = stats.permutation_test(
        (np.array(ours), np.array(theirs)), lambda a, b: a.mean() - b.mean()
    )
    assert found.p == pytest.approx(test.pvalue)


def test_a_diverged_run_counts_as_worse_and_is_left_out_of_the_mean() -> None:
    found = compare({0: 0.7, 1: None, 2: None, 3: 0.5}, {0: 0.6, 1: 0.6, 2: None, 3: 0.5})
    assert found is not None
    assert found.mean == pytest.approx(0.05)
    assert (found.n, found.diverged) == (2, 3)
    # Won, lost by diverging, both diverged, equal.
    assert found.better == pytest.approx((1 + 0 + 0.5 + 0.5) / 4)
    assert compare({0: None}, {0: 0.5}) is None


def test_holm_by_hand() -> None:
    # 0.01 * 4, 0.02 * 3, then 0.03 * 2 and 0.04 * 1, which must not fall below those before.
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_the_plain_p_and_bonferroni(p_values: list[float]) -> None:
    for p, adjusted in zip(p_values, holm(p_values), strict=True):
        assert min(1, p) <= adjusted <= min(1, len(p_values) * p) + 1e-12 or adjusted <= 1
        assert adjusted >= p
    assert min(holm(p_values)) == pytest.approx(min(1, len(p_values) * min(p_values)))


def test_verdicts() -> None:
    clear = compare(dict(enumerate(HIGHER)), dict(enumerate(BN)))
    mirrored = compare(dict(enumerate(BN)), dict(enumerate(HIGHER)))
    assert verdict(clear, 0.04) == "better"
    assert verdict(mirrored, 0.04) == "worse"
    assert verdict(clear, 0.06) == "ahead"
    assert verdict(mirrored, 0.06) == "behind"
    # Five gains and a small loss: the interval excludes zero; of 64 sign patterns 4 are as far.
    short = compare(
        dict(enumerate([0.05, 0.06, 0.05, 0.04, 0.06, -0.001])), dict.fromkeys(range(6), 0.0)
    )
    assert short is not None
    assert not short.spans_zero
    assert short.p == pytest.approx(4 / 64)
    assert verdict(short, short.p) == "undecided"
    mixed = compare(dict(enumerate([0.1, -0.1] * 4)), dict.fromkeys(range(8), 0.0))
    assert verdict(mixed, 0.01) == "undecided"
    five = compare(dict(enumerate(HIGHER[:5])), dict(enumerate(BN[:5])))
    assert verdict(five, 0.0) == "n too small"
    assert verdict(None, None) == ""


def test_equal_cells_are_ahead_or_behind_in_no_more_than_one_comparison_of_twenty() -> None:
    # Of 64 equally likely sign patterns two are called so at n = 6.
    draws = np.random.default_rng(0).normal(size=(240, 6))
    zero = dict.fromkeys(range(6), 0.0)
    found = [compare(dict(enumerate(map(float, draw))), zero) for draw in draws]
    called = [verdict(one, 1.0) in ("ahead", "behind") for one in found]
    assert sum(called) / len(called) <= 0.05
    # By the interval alone it would be far more.
    assert np.mean([one is not None and not one.spans_zero for one in found]) > 0.1


def test_survivors_are_not_better(tmp_path: Path) -> None:
    lost = [None] * 12
    write_sweep(tmp_path, {"norm=bn": [0.6 + i / 500 for i in range(18)],
                           "norm=gn": [*lost, *(0.8 + i / 400 for i in range(6))],
                           "norm=ln": [*lost, *(0.3 + i / 400 for i in range(6))]})  # fmt: skip
    found = report(tmp_path)
    verdicts = {row.cell.variant[0]: row.verdict for row in found.rows}
    # Divergence is no excuse for what is worse without it too.
    assert verdicts == {"bn": "", "gn": "undecided: 12 of 18 diverged", "ln": "behind"}
    assert not next(row for row in found.rows if row.cell.variant[0] == "gn").bold
    text = " ".join(found.sentences)
    assert "bn reached the highest test accuracy on average, with 18 runs each" in text
    assert "leaving out where more runs diverged: ln (12 of 18), gn (12 of 18)." in text
    assert "higher mean is that of the runs that survived: gn (12 of 18 diverged)." in text
    other_way = report(tmp_path, norm="gn")
    (bn,) = [row for row in other_way.rows if row.cell.variant[0] == "bn"]
    assert bn.verdict == "undecided: 12 of 18 of the reference diverged"


def test_one_comparison_has_one_verdict(tmp_path: Path) -> None:
    # 0.003 is best for both; the table compares at two rates, and p = 2/64 is adjusted for both.
    for lr, up in ((0.003, 0.2), (0.03, 0.0)):
        cell = f"optimizer.lr={lr}"
        write_sweep(tmp_path, {f"norm=bn {cell}": [a + up for a in HIGHER[:6]],
                               f"norm=none {cell}": [a + up for a in BN[:6]]})  # fmt: skip
    found = report(tmp_path)
    (rates,) = found.rates
    verdicts = [row.verdict for row in (*rates.common, *rates.best) if not row.is_reference]
    assert verdicts == ["behind", "behind"]
    assert "at the common rate 0.003: none behind; each at its best: none behind." in " ".join(
        found.sentences
    )


def test_seeds_needed_gives_the_power_that_it_promises() -> None:
    points = [0.03, -0.01, 0.02, 0.00, -0.01, 0.03]
    found = compare(dict(enumerate(points)), dict.fromkeys(range(6), 0.0))
    assert found is not None
    n = seeds_needed(found, 1)
    assert n is not None
    draws = np.random.default_rng(0).normal(found.mean, found.std, (4000, n))
    power = np.mean(stats.ttest_1samp(draws, 0, axis=1).pvalue < 0.05)
    assert 0.78 < power < 0.86
    more = seeds_needed(found, 20)
    assert more is not None
    assert more > n


def test_no_p_of_so_few_seeds_survives_many_comparisons() -> None:
    # 2 / 2**9 * 20 = 0.078, 2 / 2**10 * 20 = 0.039
    assert least_seeds(20) == 10
    assert least_seeds(1) == 6


# --- cells


def test_cells_are_what_varies_but_the_seed(tmp_path: Path) -> None:
    for norm, batch, seed in itertools.product(("bn", "gn"), (2, 32), (0, 1)):
        write_run(tmp_path, f"norm={norm}", f"batch_size={batch}", seed=seed)
    found = report(tmp_path)
    # gn's num_groups=4, which bn does not have, is no cell of its own.
    assert cells(found) == {
        "bn batch_size=2": 2, "gn batch_size=2": 2, "bn batch_size=32": 2, "gn batch_size=32": 2,
    }  # fmt: skip
    assert found.sweep.variant_label(found.sweep.reference or ()) == "bn"


def test_groups_are_told_apart_where_they_were_swept(tmp_path: Path) -> None:
    write_run(tmp_path, "norm=bn")
    for groups in (2, 8):
        write_run(tmp_path, "norm=gn", f"norm.num_groups={groups}")
    write_run(tmp_path, "norm=gn", "norm.channels_per_group=8")
    assert set(cells(report(tmp_path))) == {
        "bn", "gn num_groups=2", "gn num_groups=8", "gn channels_per_group=8",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("one", "other", "labels"),
    [
        ("model=simple_cnn", "model=deep_cnn", {"simple_cnn", "deep_cnn"}),
        ("optimizer.lr=0.1", "optimizer.lr=0.001", {"lr=0.001", "lr=0.1"}),
        ("data.train_size=500", "data.train_size=null", {"train_size=null", "train_size=500"}),
        ("model.channels=[8,8]", "model.channels=[16,16]", {"channels=[8,8]", "channels=[16,16]"}),
    ],
)
def test_whatever_was_swept_makes_cells(
    one: str, other: str, labels: set[str], tmp_path: Path
) -> None:
    write_run(tmp_path, one)
    write_run(tmp_path, other)
    assert set(cells(report(tmp_path))) == labels


def test_where_and_how_fast_a_run_was_computed_makes_no_cell(tmp_path: Path) -> None:
    write_run(tmp_path, "threads=1", "log.every=5", seed=0)
    write_run(tmp_path, "threads=2", "data.root=elsewhere", seed=1, threads=2)
    found = report(tmp_path)
    assert cells(found) == {"all runs": 2}
    assert ("threads", [("1", 1), ("2", 1)]) in found.origin.differs


def test_the_reference_can_be_chosen(tmp_path: Path) -> None:
    for cell in ("norm=bn", "norm=gn norm.num_groups=2", "norm=gn norm.num_groups=4"):
        write_run(tmp_path, *cell.split())
    found = report(tmp_path, norm="gn", **{"norm.num_groups": "2"})
    assert found.sweep.variant_label(found.sweep.reference or ()) == "gn num_groups=2"
    with pytest.raises(UserError, match="norm=ln: no run has it; there are bn"):
        report(tmp_path, norm="ln")
    with pytest.raises(UserError, match="nothing of that group was swept"):
        report(tmp_path, model="mlp")


def test_a_run_kept_twice_counts_once(tmp_path: Path) -> None:
    write_run(tmp_path, "name=x/one", seed=0)
    write_run(tmp_path, "name=x/two", seed=0)
    found = report(tmp_path, "x")
    assert cells(found) == {"all runs": 1}
    assert len(found.origin.twice) == 1


def write_with(output: Path, *overrides: str, seed: int = 0, **beside: str | int) -> None:
    """A run that recorded what stands beside its configuration."""
    path = write_run(output, *overrides, seed=seed).path / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | beside))


@pytest.mark.usefixtures("no_pictures")
def test_runs_of_other_images_are_other_cells_and_that_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for norm, seed, images in itertools.product(("bn", "gn"), (0, 1), "ab"):
        where = f"name=x/{images}"
        write_with(tmp_path, f"norm={norm}", where, seed=seed, data_fingerprint=10 * images)
    # Of an earlier version.
    write_run(tmp_path, "norm=gn", "name=x/c", seed=2)
    found = report(tmp_path, "x")
    assert cells(found) == {
        "bn images=aaaaaaaa": 2, "gn images=aaaaaaaa": 2, "bn images=bbbbbbbb": 2,
        "gn images=bbbbbbbb": 2, "gn images=unknown": 1,
    }  # fmt: skip
    assert found.facts.endswith("swept: norm. Reference: bn.")
    said = "Runs differ in images (aaaaaaaa, bbbbbbbb, unknown), which nobody swept"
    assert said in " ".join(found.sentences)
    counts = [("aaaaaaaa", 4), ("bbbbbbbb", 4), ("unknown", 1)]
    assert ("images", counts) in found.origin.differs
    write_with(tmp_path, "norm=gn", "name=x/d", seed=1, data_fingerprint=10 * "a")
    main([str(tmp_path / "x")])
    printed = capsys.readouterr()
    assert said in printed.out
    assert re.search(r"1 run left out, .* same settings and seed: d/simple_cnn-gn", printed.err)


def test_unknown_or_chosen_images_are_no_cells_of_their_own(tmp_path: Path) -> None:
    write_with(tmp_path, "norm=bn", seed=0, data_fingerprint="a")
    write_run(tmp_path, "norm=bn", seed=1)
    # Other settings, so other images.
    write_with(tmp_path, "norm=bn", "data.image_size=16", seed=0, data_fingerprint="b")
    assert cells(report(tmp_path)) == {"image_size=32": 2, "image_size=16": 1}


def test_an_edited_norm_and_other_numbers_of_processes_are_other_variants(tmp_path: Path) -> None:
    # Norms that do not depend on it record one process.
    for seed, ranks in itertools.product((0, 1), (1, 2)):
        write_with(tmp_path, "norm=bn", f"name=x/{ranks}", seed=seed, ranks=ranks, norm_source="")
    write_with(tmp_path, "norm=gn", "name=x/1", ranks=1)
    found = report(tmp_path, "x")
    assert cells(found) == {"bn processes=1": 2, "bn processes=2": 2, "gn processes=1": 1}
    assert found.sweep.reference == ("bn", 1)
    own = "norm=gn"
    for seed, source in itertools.product((0, 1), "ab"):
        name = f"name=y/{source}"
        write_with(tmp_path, own, name, seed=seed, norm_source=source, norm="mine:own")
        config = next((tmp_path / "y" / source).glob(f"*seed{seed}*")) / "config.yaml"
        config.write_text(config.read_text().replace("name: gn", "name: mine:own"))
    write_with(tmp_path, "norm=bn", "name=y/a", norm_source="")
    assert cells(report(tmp_path, "y")) == {
        "bn": 1, "mine:own norm source=a": 2, "mine:own norm source=b": 2,
    }  # fmt: skip


# --- what is said


def test_better_is_said_with_n_and_interval_where_the_runs_support_it(tmp_path: Path) -> None:
    write_sweep(tmp_path, {"norm=bn": BN, "norm=gn": HIGHER})
    found = report(tmp_path)
    text = " ".join(found.sentences)
    assert re.search(r"gn is better than bn by 4\.94 points \[[\d.]+, [\d.]+\]", text)
    assert "n = 8 paired seeds, adjusted p = 0.008" in text
    assert found.rows[1].bold


def test_below_six_seeds_there_is_no_verdict_and_nothing_bold(tmp_path: Path) -> None:
    write_sweep(tmp_path, {"norm=bn": BN[:5], "norm=gn": HIGHER[:5]})
    found = report(tmp_path)
    text = " ".join(found.sentences)
    assert "n is too small for a verdict (n = 5" in text
    assert "better" not in text
    assert "**" not in tables.markdown(tables.summary(found.sweep, found.rows, bold="**{}**"))


def test_nothing_is_bold_whose_interval_spans_zero(tmp_path: Path) -> None:
    write_sweep(tmp_path, {"norm=bn": BN, "norm=gn": BN[::-1], "norm=ln": HIGHER})
    found = report(tmp_path)
    by_norm = {row.cell.variant[0]: row for row in found.rows}
    assert not by_norm["gn"].bold
    assert by_norm["ln"].bold
    assert "Undecided against bn" in " ".join(found.sentences)
    written = tables.markdown(tables.summary(found.sweep, found.rows, bold="**{}**"))
    bold = [line for line in written.splitlines() if "**" in line]
    assert len(bold) == 1
    assert bold[0].startswith("| ln")


def test_many_comparisons_are_adjusted_for_and_that_is_said(tmp_path: Path) -> None:
    write_sweep(tmp_path, {"norm=bn": BN[:6], "norm=none": HIGHER[:6], "norm=gn": HIGHER[:6]})
    found = report(tmp_path)
    assert {row.verdict for row in found.rows} == {"", "ahead"}
    adjusted = [row.adjusted_p for row in found.rows if row.adjusted_p is not None]
    assert adjusted == pytest.approx([2 * 2 / 64] * 2)
    assert "with 6 seeds it cannot be: that takes 7" in " ".join(found.sentences)


def test_what_changes_the_ranking_is_named(tmp_path: Path) -> None:
    write_sweep(tmp_path, {
        "norm=bn batch_size=2": BN, "norm=gn batch_size=2": HIGHER,
        "norm=bn batch_size=32": HIGHER, "norm=gn batch_size=32": BN,
    })  # fmt: skip
    text = " ".join(report(tmp_path).sentences)
    assert (
        "What changes the ranking is batch size: against bn, gn is ahead at 2 and behind at 32"
        in text
    )


def test_diverged_runs_are_counted_and_shown(tmp_path: Path) -> None:
    write_sweep(tmp_path, {"norm=bn": BN, "norm=none": [None, None, *BN[2:]]})
    found = report(tmp_path)
    assert "Diverged: none in 2 of 8 runs." in found.sentences
    headings, lines = tables.summary(found.sweep, found.rows)
    none = dict(zip(headings, next(line for line in lines if line[0] == "none"), strict=True))
    assert none["n"] == "6 (2 of 8 diverged)"
    assert none["P(better)"] == "0.38"  # two losses, six ties
    assert "without diverged runs" in none["verdict"]


def test_that_all_diverged_is_said(tmp_path: Path) -> None:
    write_sweep(tmp_path, {"norm=bn": [None] * 2, "norm=gn": [None]})
    said = report(tmp_path).sentences
    assert said[:2] == [
        "No run is completed: nothing can be compared.",
        "Diverged: bn in 2 of 2 runs, gn in 1 of 1 runs.",
    ]


def test_learning_rates_are_chosen_on_validation_and_both_views_are_shown(tmp_path: Path) -> None:
    for norm, lr, val, test in (
        ("bn", 0.01, 0.70, 0.60), ("bn", 0.1, 0.60, 0.80), ("gn", 0.01, 0.50, 0.50),
        ("gn", 0.1, 0.65, 0.64),
    ):  # fmt: skip
        for seed in range(6):
            write_run(
                tmp_path, f"norm={norm}", f"optimizer.lr={lr}", seed=seed,
                val_acc=val + seed / 1000, test_acc=test + seed / 1000,
            )  # fmt: skip
    found = report(tmp_path)
    (rates,) = found.rates
    # bn tests better at 0.1, but validation knows nothing of that.
    assert [(r.cell.variant[0], r.cell.condition[0]) for r in rates.best] == [
        ("bn", 0.01),
        ("gn", 0.1),
    ]
    assert [(r.cell.variant[0], r.cell.condition[0]) for r in rates.common] == [
        ("bn", 0.1),
        ("gn", 0.1),
    ]
    best, common = rates.best[1].difference, rates.common[1].difference
    assert best is not None
    assert best.mean == pytest.approx(0.04)
    assert common is not None
    assert common.mean == pytest.approx(-0.16)


@pytest.mark.usefixtures("no_pictures")
def test_statistics_of_evaluation_stand_side_by_side(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    several = "evaluate.bn_stats=[running,precise,batch]"
    for batch, precise, batch_gain in ((2, 0.05, -0.01), (8, 0.0, 0.001)):
        for seed, noise in enumerate((0.0, 0.01, -0.01, 0.02, 0.0, 0.01)):
            accuracy = 0.5 + noise
            kinds = {"running": accuracy, "precise": accuracy + precise + noise / 10}
            kinds["batch"] = accuracy + batch_gain + (noise if batch == 8 else 0)
            write_run(
                tmp_path, "norm=bn", f"batch_size={batch}", several, seed=seed, test_acc=accuracy,
                test_acc_by_bn_stats=kinds,
            )  # fmt: skip
            write_run(
                tmp_path, "norm=gn", f"batch_size={batch}", several, seed=seed, test_acc=accuracy,
                test_acc_by_bn_stats={"running": accuracy},
            )  # fmt: skip
    # gn reads no such setting: it is compared with bn all the same.
    found = report(tmp_path)
    assert cells(found) == {f"{n} batch_size={b}": 6 for n in ("bn", "gn") for b in (2, 8)}
    assert found.origin.commands == []
    main([str(tmp_path / "default")])
    printed = capsys.readouterr().out.splitlines()
    (place,) = [at for at, line in enumerate(printed) if "precise - running" in line]
    two, eight = printed[place + 1], printed[place + 2]
    # Noises of mean 0.005: 55.55 = 100 * (0.505 + 0.05 + 0.0005).
    assert re.match(r" +2  bn +6  50\.50 ± 1\.05  55\.55 ± 1\.15  49\.50 ± 1\.05 +\+5\.05 \[", two)
    assert two.endswith("-1.00 [-1.00, -1.00]")
    assert re.match(r" +8  bn +6 ", eight)
    assert not printed[place + 3]
    text = " ".join(found.sentences)
    assert (
        "Precise-BN's statistics instead of running averages test accuracy changes by +5.05" in text
    )
    out = tmp_path / "default" / "report"
    for file in ("index.html", "summary.md"):
        assert "precise - running, points [95 %]" in (out / file).read_text()
    (row,) = [
        row for row in csv.DictReader(io.StringIO((out / "runs.csv").read_text()))
        if (row["norm"], row["batch_size"], row["seed"]) == ("bn", "2", "1")
    ]  # fmt: skip
    kept = [float(row[f"test_acc_{kind}"]) for kind in ("running", "precise", "batch")]
    assert kept == pytest.approx([0.51, 0.561, 0.5])


def test_evaluations_that_were_swept_are_variants_of_the_norm(tmp_path: Path) -> None:
    for cell in ("norm=gn", *(f"norm=bn evaluate.bn_stats={k}" for k in ("running", "precise"))):
        write_run(tmp_path, *cell.split())
    labels = {"gn", "bn bn_stats=[running]", "bn bn_stats=[precise]"}
    assert set(cells(report(tmp_path))) == labels


def test_results_of_earlier_versions_are_read(tmp_path: Path) -> None:
    path = write_run(tmp_path).path / "result.json"
    record = json.loads(path.read_text())
    del record["test_acc_by_bn_stats"], record["fused"]
    path.write_text(json.dumps(record))
    assert cells(report(tmp_path)) == {"all runs": 1}


def test_published_figures_stand_beside_measured_ones(tmp_path: Path) -> None:
    preset = compose(["experiment=mlp_bn_vs_none", "data=synthetic"])
    figures = {item.where["norm"]: item.value for item in preset.published}
    assert figures == {"bn": 1.578, "none": 1.65}
    for loss, seed in ((1.5, 0), (1.7, 1)):
        write_run(tmp_path, "experiment=mlp_bn_vs_none", seed=seed, train_loss=loss)
    bn, none = report(tmp_path, "mlp_bn_vs_none").published
    assert (bn.published, bn.n) == (1.578, 2)
    assert bn.measured == pytest.approx(1.6)
    assert bn.difference == pytest.approx(0.022)
    assert (none.n, none.measured, none.difference) == (0, None, None)


@pytest.mark.usefixtures("no_pictures")
def test_published_figures_beside_shortened_runs_come_with_a_caution(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path, "experiment=mlp_bn_vs_none", "norm=bn", "max_steps=20", "name=x")
    # Another network that carries no figures.
    write_run(tmp_path, "norm=bn", "name=x", seed=1)
    found = report(tmp_path, "x")
    assert [one.n for one in found.published] == [1, 0]
    caution = (
        "Trained otherwise than what was published: max_steps=20, data.name=synthetic, where the "
        "preset mlp_bn_vs_none has epochs=5, data.name=cifar10."
    )
    main([str(tmp_path / "x")])
    printed = capsys.readouterr().out
    assert caution in printed
    assert "1.578" in printed
    for file in ("index.html", "summary.md"):
        assert caution in (tmp_path / "x" / "report" / file).read_text()


def test_nothing_is_cautioned_where_the_preset_was_kept(tmp_path: Path) -> None:
    kept = "mlp_bn_vs_none"
    path = write_run(tmp_path, f"experiment={kept}", "norm=bn").path / "config.yaml"
    path.write_text(path.read_text().replace("name: synthetic", "name: cifar10"))
    assert otherwise(report(tmp_path, kept).sweep) == ""


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ("{what: tset_acc, value: 1, source: a}", "expected one of [test_acc, "),
        ("{what: test_acc, value: 1, source: a, where: {nrm: bn}}", "did you mean norm?"),
        ("{what: test_acc, value: 1}", "published[0].source has no value"),
        ("{what: test_acc, vlaue: 1, source: a}", "vlaue"),
    ],
)
def test_a_misspelt_published_figure_is_refused(item: str, said: str) -> None:
    with pytest.raises(Exception) as refused:  # noqa: PT011 - as a person sees it
        compose(["data=synthetic", f"published=[{item}]"])
    line = explain(refused.value)
    assert said in line
    assert "\n" not in line


# --- what it costs


@pytest.mark.parametrize(
    ("norm", "expected"),
    # Two layers of 16 channels on 32x32 and 16x16 maps, 6 images: BN C, LN N, IN N*C, GN N*G.
    [
        ("none", 0),
        ("bn", 32),
        ("ln", 12),
        ("in", 192),
        ("gn", 48),
        ("gn norm.num_groups=2", 24),
        ("ghost_bn norm.ghost_batch_size=2", 2 * 16 * 3),
        ("ln2d", 6 * (32 * 32 + 16 * 16)),
        ("evonorm_b0", 2 * (16 + 6 * 16)),
        ("dyt", 0),
    ],
)
def test_statistics_that_a_norm_keeps(norm: str, expected: int, tmp_path: Path) -> None:
    write_run(tmp_path, *f"norm={norm} batch_size=6".split())
    (cell,) = report(tmp_path).sweep.cells
    assert cost(cell).statistics == expected


def test_the_tutorial_s_example_of_statistics(tmp_path: Path) -> None:
    write_run(tmp_path, "model=mlp", "model.hidden=[100]", "norm=bn", "batch_size=5")
    (run,) = report(tmp_path).runs
    assert statistics_kept(run.config) == 100
    assert statistics_kept(run.config | {"norm.name": "mine:own"}) is None


# --- half a sweep


def test_half_a_sweep_is_reported_with_the_command_that_finishes_it(tmp_path: Path) -> None:
    sweep = {f"norm={norm} batch_size=4": BN[:3] for norm in ("none", "bn")}
    write_sweep(tmp_path, sweep, "threads=1", "model=deep_cnn")
    common = ("threads=1", "model=deep_cnn", "norm=gn", "batch_size=4")
    write_run(tmp_path, *common, seed=0)
    write_run(tmp_path, *common, seed=1, status=None)
    write_run(tmp_path, *common, seed=2, status="failed", reason="OSError: no room")
    found = report(tmp_path)
    assert [run.status for run in found.origin.unanswered] == ["unfinished", "failed"]
    (line,) = found.origin.commands
    words = shlex.split(line)
    assert words[:4] == ["python", "-m", "normexp.train", "-m"]
    assert {"norm=gn", "seed=1,2", "batch_size=4", "model=deep_cnn", "data=synthetic"} <= set(words)
    # The directories that these settings lead to are those that lack an answer.
    asked = set()
    for seed in "12":
        config = compose([word.replace("seed=1,2", f"seed={seed}") for word in words[4:]])
        asked.add(RunDirectory(config, run_id(config, BesideConfig("images"))).path.name)
    assert asked == {run.folder for run in found.origin.unanswered}


def test_what_was_fused_is_finished_fused_and_costs_are_marked(tmp_path: Path) -> None:
    for seed in range(3):
        write_run(tmp_path, "norm=bn", "seeds=5", seed=seed, fused=3)
        write_run(tmp_path, "norm=gn", "fuse=1", seed=seed)
    for seed in (3, 4):
        write_run(tmp_path, "norm=bn", "seeds=5", seed=seed, status="interrupted")
        write_run(tmp_path, "norm=gn", "fuse=1", seed=seed, fused=3)
    found = report(tmp_path)
    # Neither how many seeds were trained together nor the list of them makes a cell.
    assert cells(found) == {"bn": 5, "gn": 5}
    (line,) = found.origin.commands
    assert "seeds=[3,4]" in line
    assert " seed=" not in line
    assert "Runs were not all timed alike (fused 3 or 1): compare times" in costs_note(found)
    assert ("fused", [("3", 5), ("1", 5)]) in found.origin.differs


@pytest.mark.usefixtures("no_pictures")
def test_times_taken_beside_other_work_come_with_a_caution(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, share in enumerate((None, 0.97, 1.0)):
        write_run(tmp_path, "norm=bn", seed=seed, cpu_share=share)
    assert costs_note(report(tmp_path)).startswith("Medians")
    write_run(tmp_path, "norm=gn", cpu_share=0.42)
    main([str(tmp_path / "default")])
    said = "(other work took the processor, cpu_share 0.42 to 1.00): compare times with care."
    printed = capsys.readouterr().out
    for text in (printed, (tmp_path / "default" / "report" / "summary.md").read_text()):
        assert said in text


@pytest.mark.usefixtures("no_pictures")
def test_results_on_made_up_images_say_so_above_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    warning = "made-up images: shows how it works, not which norm is better"
    write_sweep(tmp_path, {"norm=bn": BN[:2], "norm=gn": BN[:2]})
    main([str(tmp_path / "default")])
    assert capsys.readouterr().out.startswith(f"{warning}\n")
    out = tmp_path / "default" / "report"
    assert (out / "summary.md").read_text().splitlines()[2] == f"**{warning}**"
    page = (out / "index.html").read_text()
    assert page.index(warning) < page.index("4 runs (4 completed)")
    main([str(tmp_path / "default"), "--format", "latex"])
    assert capsys.readouterr().out.startswith(f"% {warning}\n")
    for path in (tmp_path / "default").glob("simple_cnn*/config.yaml"):
        path.write_text(path.read_text().replace("name: synthetic", "name: cifar10"))
        rest = sum("synthetic" in p.read_text() for p in path.parent.parent.glob("*/config.yaml"))
        assert report(tmp_path).warning == (f"{rest} runs: {warning}" if rest else "")


@pytest.mark.usefixtures("no_pictures")
def test_of_a_sweep_that_was_stopped_early_no_more_is_said_than_is_known(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Asked for were none, bn and gn; it was stopped in the first cell of none."""
    for seed in range(3):
        write_run(tmp_path, "norm=none", "batch_size=2", seed=seed, status="interrupted")
    main([str(tmp_path / "default")])
    printed = capsys.readouterr().out
    assert (
        "At least 3 runs have no answer yet, counting norms and values that have a run. Of what "
        "has no run yet nothing is known here: the sweep's own command trains all." in printed
    )
    assert "(the sweep's own command trains all):" in printed
    assert "finish" not in printed
    page = (tmp_path / "default" / "report" / "index.html").read_text()
    assert "finish the sweep" not in page


def test_a_command_names_the_choices_that_are_defaults_too(tmp_path: Path) -> None:
    write_run(tmp_path, "optimizer=sgd", "model=deep_cnn")
    write_run(tmp_path, seed=1, status="interrupted")
    (line,) = report(tmp_path).origin.commands
    assert {"optimizer=adam", "model=simple_cnn"} <= set(shlex.split(line))


def test_combinations_that_were_never_begun_are_in_the_command(tmp_path: Path) -> None:
    write_sweep(tmp_path, {"norm=bn batch_size=2": BN[:3], "norm=bn batch_size=4": BN[:3],
                           "norm=gn batch_size=2": BN[:3]})  # fmt: skip
    found = report(tmp_path)
    assert found.origin.never_begun == 3
    (line,) = found.origin.commands
    assert "norm=gn" in line
    assert "batch_size=4" in line
    assert "seed=0,1,2" in line


def test_settings_of_one_norm_split_no_grid(tmp_path: Path) -> None:
    # Stopped in the third of four cells: gn at 4 was never begun.
    for cell in ("norm=bn batch_size=16", "norm=bn batch_size=4", "norm=gn batch_size=16"):
        for seed in (0, 1):
            words = (*cell.split(), *(["norm.num_groups=8"] if "gn" in cell else []), "fuse=6")
            stopped = seed == 1 and cell == "norm=gn batch_size=16"
            write_run(tmp_path, *words, seed=seed, status="interrupted" if stopped else "completed")
    found = report(tmp_path)
    assert found.origin.never_begun == 2
    (line,) = found.origin.commands
    words = set(shlex.split(line))
    assert {"norm=gn", "norm.num_groups=8", "batch_size=4,16", "seed=0,1", "fuse=6"} <= words
    said = "At least 1 run has no answer yet and 2 of the grid were never begun, counting"
    assert said in " ".join(found.sentences)


def test_each_sweep_is_finished_under_its_own_name_and_asked_for_no_more(tmp_path: Path) -> None:
    for name in ("one", "two"):
        for norm, batch in itertools.product(("bn", "gn", "ln"), (2, 4)):
            # Of the second sweep two runs are lacking that are no rectangle of its grid.
            lacks = name == "two" and (norm, batch) in (("bn", 2), ("gn", 4))
            status = "failed" if lacks else "completed"
            write_run(
                tmp_path, f"name={name}", f"norm={norm}", f"batch_size={batch}", status=status
            )
    write_run(
        tmp_path, "name=two", "norm=gn", "norm.num_groups=2", "batch_size=64", status="failed"
    )
    write_run(tmp_path, "name=two", "norm=gn", "norm.channels_per_group=8", "batch_size=8")
    lines = answer(tmp_path).origin.commands
    assert all("name=two" in line for line in lines)
    asked = set()
    for line in lines:
        words = [w.split("=", 1) for w in shlex.split(line) if "=" in w]
        values = [value.split(",") for _, value in words]
        for one in itertools.product(*values):
            setting = dict(zip([key for key, _ in words], one, strict=True))
            asked.add((setting["norm"], setting["batch_size"], setting.get("norm.num_groups")))
    assert {("bn", "2", None), ("gn", "64", "2")} <= asked
    assert ("gn", "4", "4") in asked
    assert not any(batch == "64" for norm, batch, _ in asked if norm != "gn")


def test_settings_with_odd_values_come_back_from_the_command(tmp_path: Path) -> None:
    odd = ("model.channels=[8,4]", "optimizer.lr=3e-05", "name='it is $5, \"new\"'", "grad_clip=1",
           "norm=gn", "norm.channels_per_group=2", "max_steps=7", "optimizer=sgd")  # fmt: skip
    made = write_run(tmp_path, *odd, status=None)
    (line,) = answer(tmp_path).origin.commands
    config = compose(shlex.split(line)[3:])
    assert RunDirectory(config, run_id(config, BesideConfig("images"))).path == made.path


@pytest.mark.usefixtures("no_pictures")
def test_a_corrupt_run_is_named_and_skipped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_sweep(tmp_path, {"norm=bn": BN[:2]})
    damage = [
        ("result.json", r".*", '{"status": '),
        ("result.json", r".*", "[" * 100_000),
        ("result.json", r'"test_acc": [\d.]+', '"test_acc": NaN'),
        ("result.json", r'"test_acc": [\d.]+', '"test_acc": 50'),
        ("result.json", r'"ms_per_step": [\d.]+', '"ms_per_step": "fast"'),
        ("result.json", r'"status": "\w+"', '"status": ["completed"]'),
        ("config.yaml", r".*", "norm: ["),
        ("config.yaml", r"\nseed: \d+", r"\nseed: two"),
        ("config.yaml", r"published: \[\]", "published: [{what: x}]"),
        ("config.yaml", r"(bn_stats:)\n *- running", r"\1 4"),
        ("metrics.csv", r".*", "epoch\nhello\n"),
        ("metrics.csv", r",[^,]*\n$", "\n"),
        ("metrics.csv", r"val_loss", "val_boss"),
        ("config.yaml", r"\nseed: \d+", r"\nseed: 1"),
        ("result.json", r'"run_id": "\w+', '"run_id": "another'),
        ("config.yaml", r".*", ""),
        ("diagnostics.csv", None, "epoch,layer\n1,conv1\n"),
    ]
    paths = []
    for seed, (name, old, new) in enumerate(damage, start=10):
        path = write_run(tmp_path, seed=seed).path
        if old is None:
            (path / name).write_text(new)
        elif not new and name == "config.yaml":
            (path / name).unlink()
        else:
            whole = (path / name).read_text()
            changed, found = re.subn(old, new, whole, count=1, flags=re.DOTALL)
            assert found
            (path / name).write_text(changed)
        paths.append(path)
    main([str(tmp_path / "default")])
    printed = capsys.readouterr()
    assert len(printed.err.splitlines()) == len(damage)
    for path, (name, _, _) in zip(paths, damage, strict=True):
        end = "its diagnostics are left out" if name == "diagnostics.csv" else "skipped"
        assert re.search(rf"{re.escape(str(path))}: {name}.*; {end}", printed.err)
    assert "3 runs (3 completed)" in printed.out


def test_a_linked_run_is_a_run_once(tmp_path: Path) -> None:
    """On another disk, say; a link back to where it lies is none more."""
    write_sweep(tmp_path, {"norm=bn": BN[:2]})
    for name in ("default", "elsewhere"):
        (tmp_path / name).mkdir(exist_ok=True)
    moved, stays = sorted((tmp_path / "default").iterdir())
    moved.rename(tmp_path / "elsewhere" / moved.name)
    moved.symlink_to(tmp_path / "elsewhere" / moved.name)
    (stays / "back").symlink_to(tmp_path)
    (tmp_path / "default" / "again").symlink_to(stays)
    (tmp_path / "a link").symlink_to(tmp_path / "default")
    for root in (tmp_path / "default", tmp_path / "a link", tmp_path):
        found, unreadable = read_runs(root)
        assert sorted(run.folder.rpartition("/")[2] for run in found) == [moved.name, stays.name]
        assert unreadable == []


@pytest.mark.usefixtures("no_pictures")
def test_nothing_to_report_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "one").path
    arguments_of_each = (
        [str(tmp_path / "no")], [str(tmp_path / "empty")], [str(tmp_path), "--reference", "x"],
        [str(run), "--out", str(run / "result.json")],
    )  # fmt: skip
    (tmp_path / "empty").mkdir()
    for arguments in arguments_of_each:
        with pytest.raises(SystemExit) as end:
            main(arguments)
        assert end.value.code == 2
        assert len(capsys.readouterr().err.splitlines()) == 1


# --- what is written


class Page(HTMLParser):
    """What a browser would be asked to fetch or to run."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href"):
                self.addresses.append(value or "")
            if name == "id":
                self.ids.append(value or "")


ODD = "<script>x</script>&_"


@dataclass
class Written:
    """A sweep with all that can happen, and its report by two processes."""

    runs: Path
    first: Path
    """Written by this process."""
    second: Path
    """Written beside the runs by the command."""
    before: dict[Path, bytes]
    """What the runs' files held before."""
    command: "subprocess.CompletedProcess[str]"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    root = tmp_path_factory.mktemp("outputs")
    # The odd name is a value of what was swept, and so stands in tables and on axes.
    odd = f"model.name='{ODD}'"
    sweep: dict[str, list[float | None]] = {
        "batch_size=2": [*BN[:6]], f"{odd} batch_size=2": [*HIGHER[:6]],
        "batch_size=8": [*HIGHER[:6]], f"{odd} batch_size=8": [*BN[:3]],
    }  # fmt: skip
    write_sweep(root, sweep)
    reason = "a <img src=x> reason & more"
    write_run(root, "batch_size=8", seed=9, status="failed", reason=reason)
    runs = root / "default"
    before = contents(runs)
    write(answer(runs), root / "first", latex=True)
    code = (
        "import sys\nfrom normexp.__main__ import main\n"
        f"sys.argv = ['normexp', 'report', {str(runs)!r}, '--format', 'latex']\n"
        "main()\nassert 'torch' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=root,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )  # fmt: skip
    return Written(runs, root / "first", runs / "report", before, done)


def contents(runs: Path) -> dict[Path, bytes]:
    files = [p for p in runs.rglob("*") if p.is_file() and "report" not in p.parts]
    return {p: p.read_bytes() for p in files}


def test_the_same_runs_give_the_same_bytes(written: Written) -> None:
    names = sorted(path.relative_to(written.first) for path in (written.first).rglob("*.*"))
    figures = {"error", "differences", "seeds", "heat_map", "curves", "cost"}
    assert {name.stem for name in names if name.parent.name == "figures"} == figures
    assert {"index.html", "runs.csv", "summary.csv", "summary.md", "summary.tex"} <= set(
        map(str, names)
    )
    for name in names:
        assert (written.first / name).read_bytes() == (written.second / name).read_bytes()


def test_the_page_needs_nothing_else_and_escapes_what_people_wrote(written: Written) -> None:
    text = (written.first / "index.html").read_text()
    page = Page(text)
    assert not {"script", "img", "link", "iframe"} & set(page.tags)
    assert all(address.startswith(("#", "data:")) for address in page.addresses)
    assert len(page.ids) == len(set(page.ids))
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    assert "&lt;script&gt;x&lt;/script&gt;&amp;_" in text
    assert "a &lt;img src=x&gt; reason &amp; more" in text
    assert page.tags.count("figure") == page.tags.count("figcaption") == 6
    assert '<th scope="col">' in text


def test_summary_md_holds_no_html_that_people_wrote(written: Written) -> None:
    text = (written.first / "summary.md").read_text()
    assert "&lt;script>x&lt;/script>&amp;_" in text
    assert "<" not in text


@pytest.mark.filterwarnings("error")
def test_labels_of_any_length_leave_room_for_the_heat_map(tmp_path: Path) -> None:
    for batch, mark in itertools.product((2, 8), "ab"):
        path = write_run(tmp_path, "norm=gn", f"name={mark}", f"batch_size={batch}").path
        config = (path / "config.yaml").read_text()
        many = f"num_groups: [{', '.join([str(int(mark, 16))] * 45)}]"
        (path / "config.yaml").write_text(config.replace("num_groups: 4", many))
    found = answer(tmp_path)
    drawn = {picture.name: picture for picture in pictures(found.sweep, found.rows)}
    assert drawn["heat_map"].svg


def test_long_labels_and_legends_leave_room_for_the_panels(tmp_path: Path) -> None:
    for standardized, groups in itertools.product(("true", "false"), (1, 2, 4, 8)):
        for batch in (2, 8):
            write_run(
                tmp_path, "norm=gn", f"norm.num_groups={groups}", f"batch_size={batch}",
                f"norm.weight_standardization={standardized}",
            )  # fmt: skip
    found = report(tmp_path)
    drawn = {picture.name: picture.figure for picture in pictures(found.sweep, found.rows)}
    for name in ("error", "differences"):
        figure = drawn[name]
        figure.draw_without_rendering()
        (axes,) = figure.axes
        panel, dots = axes.get_window_extent(), figure.dpi
        assert panel.height > 1.5 * dots
        assert panel.width > 1.5 * dots
        for words in (*axes.get_yticklabels(), axes.xaxis.label):
            assert figure.bbox.x0 <= words.get_window_extent().x0
            assert words.get_window_extent().x1 <= figure.bbox.x1


def test_runs_csv_has_a_row_a_run_and_summary_csv_a_row_a_cell(written: Written) -> None:
    runs = list(csv.DictReader(io.StringIO((written.first / "runs.csv").read_text())))
    assert len(runs) == 18 + 3 + 1
    assert {run["status"] for run in runs} == {"completed", "failed"}
    summary = list(csv.DictReader(io.StringIO((written.first / "summary.csv").read_text())))
    row = next(r for r in summary if (r["model.name"], r["batch_size"]) == ("simple_cnn", "2"))
    assert float(row["test_acc_mean"]) == pytest.approx(plain.fmean(BN[:6]))
    assert float(row["test_acc_std"]) == pytest.approx(plain.stdev(BN[:6]))
    assert float(row["p"]) == pytest.approx(2 / 64)


def test_latex_has_no_sign_that_latex_would_read(written: Written) -> None:
    text = (written.first / "summary.tex").read_text()
    body = text.replace("\\&", "").replace("\\_", "").replace("\\%", "").replace("\\\\", "")
    columns = len(re.findall(r"\{([lr]+)\}", text)[0])
    for line in body.split("\\midrule")[1].split("\\bottomrule")[0].strip().splitlines():
        assert line.count("&") == columns - 1
        assert not re.search(r"[%#_]", line)


def test_the_command_writes_beside_the_runs_touches_none_and_needs_no_torch(
    written: Written,
) -> None:
    assert written.command.returncode == 0, written.command.stderr
    assert "model & n & test accuracy" in written.command.stdout
    assert contents(written.runs) == written.before
    assert {path.name for path in written.second.iterdir()} == {
        "index.html", "runs.csv", "summary.csv", "summary.md", "summary.tex", "figures",
    }  # fmt: skip
    # A second report does not take the first for a run.
    assert len(answer(written.runs).runs) == 18 + 3 + 1


def test_a_config_of_an_older_version_has_the_defaults_it_did_not_name(tmp_path: Path) -> None:
    old, new = write_run(tmp_path, seed=0).path, write_run(tmp_path, seed=1).path
    kept = [
        line for line in (old / "config.yaml").read_text().splitlines() if "split_seed" not in line
    ]
    (old / "config.yaml").write_text("\n".join(kept))
    assert "split_seed" in (new / "config.yaml").read_text()
    assert cells(report(tmp_path)) == {"all runs": 2}
    assert flat({"a": {"b": [1]}}) == {"a.b": [1]}
