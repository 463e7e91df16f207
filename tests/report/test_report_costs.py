"""What cells cost: right, or not shown."""

from pathlib import Path

import pandas as pd
import pytest
from fake_runs import write_run
from reports import BN, report

from normexp.report.__main__ import main
from normexp.report.answer import answer
from normexp.report.cost import statistics_kept
from normexp.report.read import read_runs
from normexp.report.timing import after_sweep


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
    assert report(tmp_path).costs["statistics"].tolist() == [expected]


def test_the_tutorial_s_example_of_statistics(tmp_path: Path) -> None:
    write_run(tmp_path, "model=mlp", "model.hidden=[100]", "norm=bn", "batch_size=5")
    (config,) = read_runs(tmp_path).table.to_dict("records")
    assert statistics_kept(config) == 100
    assert statistics_kept(config | {"norm.name": "mine:own"}) is None


def test_times_of_like_runs_are_shown_with_their_spread(tmp_path: Path) -> None:
    for norm, seed in (("bn", 0), ("bn", 1), ("gn", 0)):
        write_run(tmp_path, f"norm={norm}", seed=seed, ms_per_step=2.0 + 0.5 * seed)
    found = report(tmp_path)
    assert found.costs.loc[0, ["ms", "ms_low", "ms_high"]].tolist() == [2.25, 2.0, 2.5]
    # The memory of a whole process is that of all its runs.
    assert "step_mib" not in found.costs


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"fused": 3}, "fused was 1 or 3"),
        ({"threads": 2}, "threads was 1 or 2"),
        ({"device": "Some GPU"}, "device was cpu or Some GPU"),
        ({"ms_per_step": 5.0}, "the machine was busy"),
        ({"cpu_share": 0.42}, "other work took the processor (cpu_share 0.42)"),
    ],
)
def test_times_of_unlike_runs_are_left_out_with_a_way_to_get_them(
    other: dict[str, object], why: str, tmp_path: Path
) -> None:
    write_run(tmp_path, "norm=bn", seed=0)
    write_run(tmp_path, "norm=bn", seed=1, **other)
    write_run(tmp_path, "norm=gn", seed=0)
    found = report(tmp_path)
    assert "ms" not in found.costs
    (section,) = [one for one in found.sections if one.heading == "Cost"]
    assert why in section.text
    assert f"python -m normexp.report --time {tmp_path / 'default'}" in section.text


def test_seeds_trained_together_tell_no_times(tmp_path: Path) -> None:
    for norm in ("bn", "gn"):
        write_run(tmp_path, f"norm={norm}", fused=8)
    assert "ms" not in report(tmp_path).costs


def test_cells_are_timed_alone_and_kept_for_later_reports(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    no_pictures: None,
) -> None:  # fmt: skip
    monkeypatch.setattr("normexp.report.timing.SECONDS", 0.01)
    monkeypatch.setattr("normexp.report.timing.LEAST_SECONDS", 0.001)
    monkeypatch.setattr("normexp.report.timing.ROUNDS", 3)
    small = ("data.image_size=8", "data.crop_padding=1", "threads=1", "model.channels=[4,4]")
    for norm, batch in (("bn", 2), ("gn", 2), ("bn", 8), ("gn", 8)):
        for seed, fused in ((0, 2), (1, 1)):
            write_run(
                tmp_path, f"norm={norm}", f"batch_size={batch}", *small, seed=seed, fused=fused,
                test_acc=BN[seed],
            )  # fmt: skip
    assert "ms" not in report(tmp_path).costs
    # The end of a short sweep times nothing, that of a long one does what --time does.
    after_sweep(tmp_path / "default", took=1.0)
    assert not (tmp_path / "default" / "report").exists()
    after_sweep(tmp_path / "default", took=3600.0)
    assert report(tmp_path).costs["ms"].notna().all()
    main([str(tmp_path / "default"), "--time"])
    assert "ms a step [range]" in capsys.readouterr().out
    found = report(tmp_path).costs
    assert (found["ms_low"] <= found["ms"]).all()
    assert (found["ms"] <= found["ms_high"]).all()
    # What a step takes grows with the batch: activations of 8 images of 4 channels of 8x8.
    memory = found["step_mib"]
    assert memory.min() > 0
    assert memory[2] > memory[0]
    assert memory[3] > memory[1]
    # A cell that came later has no time, and that is said.
    write_run(tmp_path, "norm=ln", "batch_size=2", *small)
    later = report(tmp_path)
    assert pd.isna(later.costs.set_index(later.rows["variant"])["ms"]["ln"])
    assert "Cells without a time came later" in " ".join(one.text for one in later.sections)
    # Of other runs nothing was timed, though their cells have the same settings but for the depth.
    write_run(tmp_path / "other", "norm=bn", "batch_size=2", "model.channels=[8,8,8]", fused=2)
    theirs = answer(read_runs(tmp_path / "other"), tmp_path / "default" / "report")
    assert "ms" not in theirs.costs
    # What is no such table is as if it were not there.
    (tmp_path / "default" / "report" / "time.csv").write_text("cell,ms\n")
    assert "ms" not in report(tmp_path).costs
