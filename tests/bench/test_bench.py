"""The bench times the trainer itself and the parts it stands on, and keeps what it measured."""

import csv
import json
import math
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_runs import write_run
from torch import nn

from normexp.bench import engine, growth, norms
from normexp.bench.__main__ import main
from normexp.bench.cells import cells
from normexp.config.schema import Precision
from normexp.runs.composing import compose
from normexp.system.errors import RunFailed
from normexp.trainer.process import autocast
from normexp.trainer.steps import Trainer

SMALL = (
    *("data.train_images=100", "data.test_images=20", "data.image_size=8", "data.crop_padding=1"),
    *("threads=1", "device=cpu"),
)
QUICK = ("--rounds", "2", "--seconds", "0.01")
CPU = torch.device("cpu")


def bench(*arguments: str, path: Path) -> list[dict[str, str]]:
    """What a bench leaves in its CSV; a picture lies beside it."""
    main([*arguments, *SMALL, *QUICK, "--csv", str(path)])
    return table(path)


def table(path: Path) -> list[dict[str, str]]:
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    with path.open() as file:
        return list(csv.DictReader(file))


def in_order(row: dict[str, str], *names: str) -> None:
    for name in names:
        low, middle, high = (float(row[name + end]) for end in ("_min", "", "_max"))
        assert 0 < low <= middle <= high


def test_three_loops_are_timed_in_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = []
    step = Trainer.step
    monkeypatch.setattr(
        Trainer, "step", lambda self, *batch: taken.append(batch[0].shape[:2]) or step(self, *batch)
    )
    path = tmp_path / "deep" / "bench.csv"
    rows = bench("model=mlp", "batch_size=4", "norm=bn,gn", "seeds=1,2", path=path)
    assert [(row["norm"], row["batch_size"], row["seeds"]) for row in rows] == [
        ("bn", "4", "1"), ("bn", "4", "2"), ("gn", "4", "1"), ("gn", "4", "2")
    ]  # fmt: skip
    for row in rows:
        in_order(row, "trainer_ms", "bare_ms", "tutorial_ms", "of_bare", "x_tutorial")
        speed = float(row["images_per_second"])
        assert speed == pytest.approx(4000 / float(row["trainer_ms"]))
    # Batches of 4 images of 3 channels, of each seed; 2 at least to warm up and 1 in each of 2
    # rounds, of each norm.
    assert {shape: taken.count(shape) >= 8 for shape in taken} == {(4, 3): True, (4, 6): True}
    assert str(path) in capsys.readouterr().out


def test_seeds_that_cannot_be_one_network_are_not_timed_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mixing_to_bench.py").write_text(
        "import torch\n\n\nclass Mixing(torch.nn.Module):\n"
        "    def forward(self, x):\n        return x - x.mean(1, keepdim=True)\n\n\n"
        "def norm(channels, dims, norm):\n    return Mixing()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["norm=mixing_to_bench:norm", "model=simple_cnn", "seeds=2", *SMALL])
    (line,) = capsys.readouterr().err.splitlines()
    assert "seeds=2: several Sequential cannot be made one" in line


def test_ratios_are_taken_round_by_round(monkeypatch: pytest.MonkeyPatch) -> None:
    log = []
    # A machine whose speed drifts: each round is twice as slow as the one before.
    speeds = {"slow": 3.0, "fast": 1.0}
    drift = {name: iter((1, 1, 1, 2, 4)) for name in speeds}
    now = 0.0
    monkeypatch.setattr("time.perf_counter", lambda: now)

    def take(name: str, count: int) -> None:
        nonlocal now
        log.append((name, count))
        now += count * speeds[name] * next(drift[name])

    takes = {name: lambda count, name=name: take(name, count) for name in speeds}
    times = engine.in_turn(CPU, 3, 6.0, takes)
    assert {name: list(found) for name, found in times.items()} == {
        "slow": [3.0, 6.0, 12.0], "fast": [1.0, 2.0, 4.0]
    }  # fmt: skip
    assert log[4:] == [("slow", 2), ("fast", 6)] * 3
    ratio = engine.spread("x", times["slow"] / times["fast"])
    assert ratio == {"x": 3.0, "x_min": 3.0, "x_max": 3.0}


def test_an_interrupted_bench_keeps_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    step = Trainer.step

    def interrupted(self: Trainer, *batch: Any) -> Any:
        if len(batch[0]) == 6:
            raise KeyboardInterrupt
        return step(self, *batch)

    monkeypatch.setattr(Trainer, "step", interrupted)
    path = tmp_path / "bench.csv"
    with pytest.raises(SystemExit) as end:
        bench("model=mlp", "batch_size=4,6,8", path=path)
    assert end.value.code == 130
    said = capsys.readouterr()
    assert said.err == f"normexp: interrupted; what was measured is in {path}\n"
    assert "mlp" in said.out
    assert [row["batch_size"] for row in table(path)] == ["4"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["model=simple_cnn,mlb"], "mlb: no such choice"),
        (["norm=bn,bm"], "norm=bm: no such choice; did you mean bn?"),
        (["model=mlp", "norm=in"], "no positions to average over"),
        (["model=mlp", "norm=bn,syncbn", *SMALL], "torch has it on CUDA only"),
        (["batch_size=4,x"], "batch_size"),
        (["threads=1,2"], "threads: give one value"),
        (["data.image_size=8,16"], "data.image_size: give one value"),
        (["accumulate_steps=2", *SMALL], "accumulate_steps"),
        (["--rounds", "0"], "--rounds and --seconds must be above 0"),
        (["--seconds", "-1"], "--rounds and --seconds must be above 0"),
        (["--batch-sizes", "4"], "--batch-sizes: no such option"),
        (["norms", "runs"], "norms runs: no such part of the bench"),
        (["--csv", "shape.png"], "must end in .csv"),
        (["--csv", "file/bench.csv", "model=mlp", *SMALL], "file/bench.csv: cannot be written"),
        (["--csv", "folder.csv", "model=mlp", *SMALL], "folder.csv is a folder"),
        (["norms", "norm=gn", "norm.num_groups=0"], "norm.num_groups=0"),
        (["norms", "model=mlp", "norm=in,frn"], "no positions to average over"),
        (["norms", "model=mlp", "model.hidden=[]", *SMALL], "has no norms to time"),
        (["images", "data=cifar10", "device=cpu"], "images grow where data=synthetic makes them"),
    ],
)
def test_what_cannot_be_measured_is_refused_at_once(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "folder.csv").mkdir()
    monkeypatch.setattr(engine, "in_turn", lambda *_: pytest.fail("measured before it refused"))
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_norms_are_timed_where_they_can_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "timed_norm.py").write_text(
        "from torch import nn\n\n\ndef same(channels, dims, norm):\n    return nn.Identity()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    own = "timed_norm:same"
    rows = bench(
        "norms", "model=simple_cnn,mlp", "batch_size=3", f"norm=bn,in,{own}",
        "model.channels=[16,8]", "model.hidden=[7,7]", path=tmp_path / "norms.csv",
    )  # fmt: skip
    # Of 3 images channels, height and width at the two norms, of 4 bytes.
    size = {"simple_cnn": 3 * 4 * (16 * 8 * 8 + 8 * 4 * 4), "mlp": 3 * 4 * (7 + 7)}
    assert [(row["model"], row["norm"], int(row["input_bytes"])) for row in rows] == [
        *(("simple_cnn", name, size["simple_cnn"]) for name in ("bn", "in", own)),
        *(("mlp", name, size["mlp"]) for name in ("bn", own)),
    ]
    for row in rows:
        in_order(row, "ms", "copy_ms", "x_copy")
    assert [row["kept_bytes"] for row in rows if row["norm"] == own] == ["0", "0"]
    assert "left out: norm=in at norm1: vectors, as in an MLP" in capsys.readouterr().out


def test_bytes_kept_for_backward() -> None:
    class Scaled(nn.Module):
        """Keeps exp(x), once for two uses, and its scale, which is a parameter."""

        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1, 8, 1, 1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.exp() * self.scale

    x = torch.randn(4, 8, 3, 5, requires_grad=True)
    image = 4 * 8 * 3 * 5 * 4
    expected = {
        # The input, and a mean and a deviation for each channel, or each group of each image.
        nn.BatchNorm2d(8): image + 2 * 8 * 4,
        nn.GroupNorm(2, 8): image + 2 * 4 * 2 * 4,
        nn.Identity(): 0,
        Scaled(): image,
    }
    precision = autocast(Precision.fp32, CPU)
    for layer, size in expected.items():
        assert norms.kept_for_backward(layer, x, precision) == size, layer


def test_growth_of_a_step_is_told_for_each_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "peak_memory", lambda cell, output: 100.0 + cell.seeds)
    asked = cells("batch_size", ["model=mlp", "seeds=1,2", "batch_size=2,4"], SMALL)
    rows = list(growth.rows(asked, CPU, lambda takes: dict.fromkeys(takes, np.array([3, 1, 2]))))
    assert [(row["value"], row["curve"], row["peak_memory_mb"]) for row in rows] == [
        (2, "step seeds=1", 101), (4, "step seeds=1", 101),
        (2, "step seeds=2", 102), (4, "step seeds=2", 102),
    ]  # fmt: skip
    times = [(row["ms_min"], row["ms"], row["ms_max"]) for row in rows[1:3]]
    assert times == [(1000, 2000, 3000), (500, 1000, 1500)]


def test_growth_with_images_where_the_system_tells_of_no_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(growth, "peak_memory", lambda cell, output: math.nan)
    path = tmp_path / "growth.csv"
    main(["images", "data.train_images=100,200", "threads=1", *QUICK, "--csv", str(path)])
    rows = table(path)
    found = [(row["axis"], row["value"], row["curve"], row["peak_memory_mb"]) for row in rows]
    assert found == [("images", "100", "loading", ""), ("images", "200", "loading", "")]
    assert "nan" not in capsys.readouterr().out.lower()
    for row in rows:
        in_order(row, "ms")


def test_growth_with_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sweep itself takes two processes that import torch, and is tested elsewhere."""
    forced = []

    def train(command: list[str], **_: Any) -> Any:
        *settings, seeds, output = [each for each in command if each != "force=true"]
        assert settings[1:4] == ["-m", "normexp.train", "-m"]
        assert seeds == "seed=0,1"
        config = compose([*settings[4:], output])
        if not forced:
            for seed, peak in ((0, 300.0), (1, 301.0)):
                write_run(Path(config.output), *settings[4:], seed=seed, peak_memory_mb=peak)
        forced.append("force=true" in command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", train)
    (one,) = cells("runs", ["seeds=2"], SMALL)

    def timer(takes: dict[Any, engine.Take]) -> dict[Any, engine.Rounds]:
        for take in takes.values():
            take(1)
        return dict.fromkeys(takes, np.array([1.0]))

    sweep, again = growth.rows([one], CPU, timer)
    assert [(row["curve"], row["value"], row["ms"]) for row in (sweep, again)] == [
        ("sweep", 2, 1000), ("sweep again", 2, 1000)
    ]  # fmt: skip
    assert sweep["peak_memory_mb"] == 301
    assert math.isnan(again["peak_memory_mb"])  # nothing was trained
    # Trained anew, and again; memory is that of the runs that are there.
    assert forced == [True, False, False]


def test_peak_memory_is_that_of_a_process_of_its_own(tmp_path: Path) -> None:
    (cell,) = cells("seeds", ["model=mlp", "batch_size=4", "seeds=2"], SMALL)
    peak = growth.peak_memory(cell, str(tmp_path))
    assert 50 < peak < 10_000
    results = [json.loads(path.read_text()) for path in tmp_path.rglob("result.json")]
    assert [(each["steps"], each["fused"]) for each in results] == [(3, 2), (3, 2)]


def test_a_process_that_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = subprocess.CompletedProcess("", 2, "", "noise\nnormexp: error: the disk is full\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    (cell,) = cells("seeds", ["model=mlp"], SMALL)
    with pytest.raises(RunFailed, match=r"normexp\.train .*: error: the disk is full$"):
        growth.peak_memory(cell, str(tmp_path))
