"""The bench times the trainer itself and the parts it stands on, and keeps what it measured."""

import csv
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_runs import write_run
from torch import nn

from normexp.bench import growth, norm_loops, steps
from normexp.bench.__main__ import main
from normexp.bench.timing import in_turn, ratios
from normexp.config import Precision
from normexp.entry import compose
from normexp.errors import RunFailed
from normexp.trainer.process import autocast
from normexp.trainer.steps import Trainer

SMALL = (
    *("data.train_images=100", "data.test_images=20", "data.image_size=8", "data.crop_padding=1"),
    *("threads=1", "device=cpu"),
)
QUICK = ("--rounds", "2", "--seconds", "0.01")
ONE = ("--models", "mlp", "--batch-sizes", "4")
CPU = torch.device("cpu")


def bench(*arguments: str, path: Path) -> list[dict[str, str]]:
    """What a bench leaves in its CSV; a picture lies beside it."""
    main([*arguments, *SMALL, "--csv", str(path)])
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
        Trainer, "step", lambda self, *batch: taken.append(len(batch[0])) or step(self, *batch)
    )
    path = tmp_path / "deep" / "bench.csv"
    rows = bench(
        "--models", "mlp", "--batch-sizes", "4", "--norms", "bn", "gn", *QUICK, path=path
    )  # fmt: skip
    assert [(row["model"], row["norm"], row["batch_size"]) for row in rows] == [
        ("mlp", "bn", "4"), ("mlp", "gn", "4")
    ]  # fmt: skip
    for row in rows:
        in_order(row, "trainer_ms", "bare_ms", "tutorial_ms", "of_bare", "x_tutorial")
        speed = float(row["images_per_second"])
        assert speed == pytest.approx(4000 / float(row["trainer_ms"]))
    # 3 + 5 to warm up and at least 1 in each of 2 rounds, for both norms.
    assert len(taken) >= 20
    assert set(taken) == {4}
    assert str(path) in capsys.readouterr().out


def test_ratios_are_taken_round_by_round() -> None:
    log = []
    # A machine whose speed drifts: each round is twice as slow as the one before.
    speeds = {"slow": 3.0, "fast": 1.0}
    rounds = {name: iter((1, 1, 1, 2, 4)) for name in speeds}

    def loop(name: str) -> Any:
        def take(count: int) -> float:
            log.append((name, count))
            return count * speeds[name] * next(rounds[name])

        return take

    times = in_turn({name: loop(name) for name in speeds}, 3, 6.0)
    assert times == {"slow": [3.0, 6.0, 12.0], "fast": [1.0, 2.0, 4.0]}
    assert log[4:] == [("slow", 2), ("fast", 6)] * 3
    assert ratios("x", times["slow"], times["fast"]) == {"x": 3.0, "x_min": 3.0, "x_max": 3.0}


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
        bench("--models", "mlp", "--batch-sizes", "4", "6", "8", *QUICK, path=path)
    assert end.value.code == 130
    assert "interrupted" in capsys.readouterr().err
    assert [row["batch_size"] for row in table(path)] == ["4"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--models", "simple_cnn", "mlb"], "mlb: no such choice"),
        (["--norms", "bn", "bm"], "bm: no such norm; did you mean"),
        (["--models", "mlp", "--norms", "in"], "no positions to average over"),
        (["--rounds", "0"], "--rounds: 0: must be a whole number from 1"),
        (["--seconds", "-1"], "--seconds: -1: must be a number of seconds above 0"),
        (["--batch-sizes", "4", "x"], "--batch-sizes: x: must be"),
        (["--batchsizes", "4"], "--help"),
        (["norm=gn"], "--norms gn"),
        (["normz"], "did you mean norms?"),
        (["--csv", "shape.png"], ".csv"),
        ([*ONE, "--norms", "bn", "--csv", "file/bench.csv"], "file/bench.csv: cannot be written"),
        ([*ONE, "--norms", "bn", "--csv", "folder"], "folder is a folder"),
        ([*ONE, "--norms", "syncbn", *SMALL], "torch has it on CUDA only"),
        (["norms", "--norms", "gn", "norm.num_groups=0"], "norm.num_groups=0"),
        (["norms", "--shapes", "4,4,4"], "write N,C,H,W or N,C"),
        (["norms", "--shapes", "4,8", "--norms", "in"], "choose others"),
        (["data", "--workers", "0"], "--workers: 0"),
        (["growth", "--axes", "runs", "time"], "invalid choice: 'time'"),
        (["growth", "--axes", "images", "--images", "9", "data=cifar10"], "leave data= out"),
    ],
)
def test_what_cannot_be_measured_is_refused_at_once(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    monkeypatch.setattr(steps, "in_turn", lambda *_: pytest.fail("measured before it refused"))
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
        "norms", "--shapes", "4,8,3,5", "4,8", "--norms", "bn", "in", "syncbn", own, *QUICK,
        path=tmp_path / "norms.csv",
    )  # fmt: skip
    assert [(row["shape"], row["norm"]) for row in rows] == [
        *(("4x8x3x5", name) for name in ("bn", "in", own)),
        *(("4x8", name) for name in ("bn", own)),
    ]
    for row in rows:
        in_order(row, "forward_ms", "backward_ms", "copy_ms", "forward_x_copy", "backward_x_copy")
    said = capsys.readouterr().out
    assert "left out at 4x8: norm=in" in said
    assert "left out at 4x8x3x5, 4x8: norm=syncbn" in said


def test_norms_stand_on_the_sites_of_models(tmp_path: Path) -> None:
    rows = bench(
        "norms", "--models", "simple_cnn", "mlp", "--batch-sizes", "3", "--norms", "none", *QUICK,
        "model.hidden=[7,7]", path=tmp_path / "norms.csv",
    )  # fmt: skip
    assert [(row["shape"], row["sites"]) for row in rows] == [
        ("3x16x8x8", "1 of simple_cnn"), ("3x16x4x4", "1 of simple_cnn"), ("3x7", "2 of mlp"),
    ]  # fmt: skip
    assert [row["kept_bytes"] for row in rows] == ["0", "0", "0"]


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
        assert norm_loops.kept_for_backward(layer, x, precision) == size, layer


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_batches_are_timed_beside_data_loaders(tmp_path: Path) -> None:
    rows = bench(
        "data", "--batch-sizes", "50", "--workers", "1", *QUICK, path=tmp_path / "data.csv"
    )
    sources = ["pipeline", "DataLoader", "DataLoader, workers: 1"]
    assert [(row["batch_size"], row["source"]) for row in rows] == [
        ("50", name) for name in sources
    ]
    for row in rows:
        in_order(row, "images_per_second")
        if row["source"] != "pipeline":
            in_order(row, "pipeline_x")


def test_growth_with_batch_size_and_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(growth, "peak_memory", lambda settings: asked.append(settings) or 100.0)
    rows = bench(
        "growth", "--axes", "batch_size", "images", "--models", "mlp", "--batch-sizes", "4", "2",
        "--images", "100", "200", *QUICK, path=tmp_path / "growth.csv",
    )  # fmt: skip
    assert [(row["axis"], row["what"], row["value"]) for row in rows] == [
        ("batch_size", "step", "2"), ("batch_size", "step", "4"),
        ("images", "loading", "100"), ("images", "loading", "200"),
    ]  # fmt: skip
    last = ["batch_size=2", "batch_size=4", "data.train_images=100", "data.train_images=200"]
    assert [settings[-1] for settings in asked] == last
    for row in rows:
        in_order(row, "seconds")
        each = float(row["seconds"]) / int(row["value"])
        assert float(row["seconds_each"]) == pytest.approx(each)
        assert row["peak_memory_mb"] == "100.0"


def test_growth_with_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sweep itself takes two processes that import torch, and is tested elsewhere."""
    asked = []

    def sweep(arguments: list[str]) -> str:
        command, flag, *settings = arguments
        assert (command, flag, settings.pop()) == ("normexp.train", "-m", "seed=0,1")
        config = compose(settings)
        if settings not in asked:
            for seed, peak in ((0, 300.0), (1, 301.0)):
                write_run(Path(config.output), *settings, seed=seed, peak_memory_mb=peak)
        asked.append(settings)
        return ""

    monkeypatch.setattr(growth, "_call", sweep)
    rows = bench(
        "growth", "--axes", "runs", "--runs", "2", "--rounds", "1", path=tmp_path / "growth.csv"
    )
    assert [(row["what"], row["value"]) for row in rows] == [("sweep", "2"), ("sweep again", "2")]
    assert len(asked) == 2
    assert asked[0] == asked[1]
    assert rows[0]["peak_memory_mb"] == "301.0"
    assert rows[1]["peak_memory_mb"] == ""  # nothing was trained


def test_peak_memory_is_that_of_a_process_of_its_own() -> None:
    peak = growth.peak_memory(["model=mlp", "data=synthetic", *SMALL, "batch_size=4"])
    assert peak is not None
    assert 50 < peak < 10_000


def test_a_process_that_fails_says_why() -> None:
    with pytest.raises(RunFailed, match=r"norm=nom: no such choice; did you mean none\?"):
        growth.peak_memory(["norm=nom"])


def test_help_needs_neither_torch_nor_pictures(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom normexp.bench.__main__ import COMMANDS, main\n"
        "for command in ([], *([name] for name in COMMANDS)):\n"
        "    try:\n        main([*command, '--help'])\n"
        "    except SystemExit as end:\n        assert not end.code, end.code\n"
        "assert not {'torch', 'matplotlib'} & set(sys.modules)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for name in ("norms", "data", "growth"):
        assert f"python -m normexp.bench {name}" in done.stdout
