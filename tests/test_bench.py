"""The bench times the trainer itself, and says what it measured."""

import csv
from pathlib import Path

import pytest

from normexp import bench
from normexp.trainer.steps import Trainer


def test_bench_times_three_loops_in_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = []
    step = Trainer.step
    monkeypatch.setattr(
        Trainer, "step", lambda self, *batch: taken.append(len(batch[0])) or step(self, *batch)
    )
    path = tmp_path / "deep" / "bench.csv"
    bench.main(
        [
            *("--models", "mlp", "--norms", "bn", "gn", "--batch-sizes", "4", "--rounds", "2"),
            *("--seconds", "0.01", "--csv", str(path), "data.train_images=100"),
            *("data.image_size=8", "data.crop_padding=1", "threads=1", "device=cpu"),
        ]
    )
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["norm"] for row in rows] == ["bn", "gn"]
    for row in rows:
        times = {name: float(row[f"{name}_ms"]) for name in ("trainer", "bare", "tutorial")}
        assert all(value > 0 for value in times.values())
        assert float(row["images_per_second"]) == pytest.approx(4000 / times["trainer"])
        assert float(row["of_bare_min"]) <= float(row["of_bare"]) <= float(row["of_bare_max"])
    # 3 + 5 to warm up and at least 1 in each of 2 rounds, for both norms.
    assert len(taken) >= 20
    assert set(taken) == {4}
    assert str(path) in capsys.readouterr().out


def test_bench_refuses_what_the_trainer_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        bench.main(["--models", "mlp", "--norms", "in"])
    assert "no positions to average over" in capsys.readouterr().err
