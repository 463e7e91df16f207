"""Runs as a table, and what makes cells of them."""

import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from fake_runs import write_run, write_sweep
from reports import BN, by_variant, cells, report, said, write_with

import normexp
from normexp.report.__main__ import main
from normexp.report.read import read_runs
from normexp.runs.recorded_config import flat
from normexp.system.errors import UserError


def test_runs_are_one_table_for_a_notebook_too(tmp_path: Path) -> None:
    write_sweep(tmp_path, {"norm=bn": BN[:2], "norm=gn": [0.5, None]})
    write_run(tmp_path, "norm=gn", seed=5, status=None)
    (tmp_path / "default" / "broken").mkdir()
    (tmp_path / "default" / "broken" / "result.json").write_text("{")
    runs = normexp.read_runs(tmp_path / "default")
    assert len(runs) == 5
    assert runs.groupby("norm")["test_acc"].agg(["mean", "count"]).loc["bn"].tolist() == [
        pytest.approx(0.605),
        2,
    ]
    assert set(runs["status"]) == {"completed", "diverged", "unfinished"}
    gn = runs[runs["norm"] == "gn"]
    assert set(gn["norm.num_groups"]) == {4}
    assert set(runs[runs["norm"] == "bn"]["norm.num_groups"]) == {None}
    done = runs[runs["status"] == "completed"]
    assert set(done["version_torch"]) == {"2.15.0"}
    assert set(done["batch_size"]) == {64}
    assert len(runs.attrs["unreadable"]) == 1
    with pytest.raises(UserError, match="no such directory"):
        normexp.read_runs(str(tmp_path / "no"))


def test_the_door_is_quick() -> None:
    code = "import sys, normexp; assert not {'torch', 'pandas', 'numpy'} & set(sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_cells_are_what_varies_but_the_seed(tmp_path: Path) -> None:
    for norm, batch, seed in itertools.product(("bn", "gn"), (2, 32), (0, 1)):
        write_run(tmp_path, f"norm={norm}", f"batch_size={batch}", seed=seed)
    found = report(tmp_path)
    # gn's num_groups=4, which bn does not have, is no cell of its own.
    assert cells(found) == {
        "bn batch size 2": 2, "gn batch size 2": 2, "bn batch size 32": 2, "gn batch size 32": 2,
    }  # fmt: skip
    assert found.judge.sweep.reference == "bn"


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
    assert ("threads", "1: 1 run, 2: 1 run") in found.origin.differs


def test_the_reference_can_be_chosen(tmp_path: Path) -> None:
    for cell in ("norm=bn", "norm=gn norm.num_groups=2", "norm=gn norm.num_groups=4"):
        write_run(tmp_path, *cell.split())
    found = report(tmp_path, norm="gn", **{"norm.num_groups": "2"})
    assert found.judge.sweep.reference == "gn num_groups=2"
    with pytest.raises(UserError, match="norm=ln: no run has it; there are bn"):
        report(tmp_path, norm="ln")
    with pytest.raises(UserError, match="nothing of that group was swept"):
        report(tmp_path, model="mlp")


def test_the_plain_variant_of_a_norm_is_the_reference(tmp_path: Path) -> None:
    for given in ("norm.momentum=0.2", "norm.momentum=0.1"):
        write_run(tmp_path, "norm=bn", given)
    assert report(tmp_path).judge.sweep.reference == "momentum=0.1"


def test_a_run_kept_twice_counts_once(tmp_path: Path) -> None:
    write_run(tmp_path, "name=x/one", seed=0)
    write_run(tmp_path, "name=x/two", seed=0)
    found = report(tmp_path, "x")
    assert cells(found) == {"all runs": 1}
    assert len(found.judge.sweep.twice) == 1


def test_a_linked_run_directory_is_read(tmp_path: Path) -> None:
    made = write_run(tmp_path / "elsewhere", "norm=bn").path
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / made.name).symlink_to(made)
    (tmp_path / "sweep" / "round").symlink_to(tmp_path / "sweep")
    assert read_runs(tmp_path / "sweep").table["folder"].tolist() == [made.name]


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
        "bn images aaaaaaaa": 2, "gn images aaaaaaaa": 2, "bn images bbbbbbbb": 2,
        "gn images bbbbbbbb": 2, "gn images unknown": 1,
    }  # fmt: skip
    counts = "aaaaaaaa: 4 runs, bbbbbbbb: 4 runs, unknown: 1 run"
    assert f"Runs differ in images ({counts}), which nobody swept" in said(found)
    write_with(tmp_path, "norm=gn", "name=x/d", seed=1, data_fingerprint=10 * "a")
    main([str(tmp_path / "x")])
    printed = capsys.readouterr()
    assert "which nobody swept" in " ".join(printed.out.split())
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
    assert found.judge.sweep.reference == "bn processes=1"
    own = "norm=gn"
    for seed, source in itertools.product((0, 1), "ab"):
        write_with(tmp_path, own, f"name=y/{source}", seed=seed, norm_source=source)
        path = next((tmp_path / "y" / source).glob(f"*seed{seed}*"))
        for name, old, new in (
            ("config.yaml", "name: gn", "name: mine:own"),
            ("result.json", '"norm": "gn"', '"norm": "mine:own"'),
        ):
            (path / name).write_text((path / name).read_text().replace(old, new))
    write_with(tmp_path, "norm=bn", "name=y/a", norm_source="")
    assert cells(report(tmp_path, "y")) == {
        "bn": 1, "mine:own norm source=a": 2, "mine:own norm source=b": 2,
    }  # fmt: skip


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


def test_a_config_of_an_older_version_has_the_defaults_it_did_not_name(tmp_path: Path) -> None:
    old, new = write_run(tmp_path, seed=0).path, write_run(tmp_path, seed=1).path
    kept = [
        line for line in (old / "config.yaml").read_text().splitlines() if "split_seed" not in line
    ]
    (old / "config.yaml").write_text("\n".join(kept))
    assert "split_seed" in (new / "config.yaml").read_text()
    assert cells(report(tmp_path)) == {"all runs": 2}
    assert flat({"a": {"b": [1]}}) == {"a.b": [1]}


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
        ("result.json", r'"precision": "\w+"', '"precision": {"a": 1}'),
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
    assert "3 runs in 1 cell" in " ".join(printed.out.split())


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
        found = read_runs(root)
        folders = found.table["folder"].str.rpartition("/")[2]
        assert sorted(folders) == [moved.name, stays.name]
        assert found.unreadable == []


def test_what_has_no_configuration_is_counted_and_not_compared(tmp_path: Path) -> None:
    write_sweep(tmp_path, {"norm=bn": BN[:2], "norm=gn": BN[:2]})
    refused = write_run(tmp_path, "norm=gn", seed=7, status="failed", reason="no room").path
    (refused / "config.yaml").unlink()
    found = report(tmp_path)
    assert by_variant(found)["n"].to_dict() == {"bn": 2, "gn": 2}
    assert found.origin.unanswered["reason"].tolist() == ["no room"]
