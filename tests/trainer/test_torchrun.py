"""One run over several processes equals the run of one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_runs import SMALL, metrics, run, same_tensors, small, state

from normexp.runs.directory import RunDirectory

ROOT = Path(__file__).parents[2]


def two_processes(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    flags = [argument for argument in arguments if argument.startswith("-")]
    settings = [argument for argument in arguments if not argument.startswith("-")]
    return subprocess.run(
        [*command, "-m", "normexp.train", *flags, *SMALL, *settings], cwd=folder, env=environment,
        capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=300,
    )  # fmt: skip


def only_run(output: Path) -> Path:
    (path,) = output.rglob("result.json")
    return path.parent


@pytest.mark.parametrize(
    "settings", [("norm=gn",), ("norm=none", "batch_size=6", "accumulate_steps=2")]
)
def test_two_processes_equal_one_up_to_rounding(tmp_path: Path, settings: tuple[str, ...]) -> None:
    config, one = small(tmp_path / "one", *settings)
    expected = run(config, one)
    done = two_processes(tmp_path, *settings, "output=two")
    assert done.returncode == 0, done.stderr
    # Rank 0 alone prints.
    assert done.stdout.count("epoch 2/2") == 1
    folder = only_run(tmp_path / "two")
    result = json.loads((folder / "result.json").read_text())
    # The same question: the same name.
    assert result["run_id"] == expected["run_id"]
    for key in ("train_loss", "val_loss", "test_loss"):
        assert result[key] == pytest.approx(expected[key], rel=1e-4)
    for key in ("steps", "samples_seen", "train_acc"):
        assert result[key] == pytest.approx(expected[key], abs=0.01)
    two = RunDirectory(config, one.run_id)
    two.path = folder
    assert [row["step"] for row in metrics(two)] == [row["step"] for row in metrics(one)]
    for name, weights in state(two)["model"].items():
        assert weights == pytest.approx(state(one)["model"][name], abs=1e-3)
    assert not same_tensors(state(two)["model"], {})


def test_bn_over_two_processes_is_a_question_of_its_own(tmp_path: Path) -> None:
    one = small(tmp_path / "one", "norm=bn")[1]
    done = two_processes(tmp_path, "norm=bn", "output=two")
    assert done.returncode == 0, done.stderr
    folder = only_run(tmp_path / "two")
    assert folder.name != one.run_id
    assert json.loads((folder / "result.json").read_text())["ranks"] == 2


def test_several_seeds_are_trained_one_after_the_other(tmp_path: Path) -> None:
    done = two_processes(tmp_path, "norm=gn", "seeds=2", "max_steps=4")
    assert done.returncode == 0, done.stderr
    found = [json.loads(path.read_text()) for path in tmp_path.rglob("result.json")]
    assert sorted((one["seed"], one["status"], one["fused"]) for one in found) == [
        (0, "completed", 1), (1, "completed", 1),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["-m", "norm=gn,bn"], "-m under torchrun"),
        (["batch_size=11"], "batch_size=11"),
        (["norm=syncbn"], "norm=syncbn"),
    ],
)
def test_what_cannot_work_is_said_once(tmp_path: Path, arguments: list[str], named: str) -> None:
    done = two_processes(tmp_path, *arguments)
    assert done.returncode != 0
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("normexp: error:")]
    assert named in line
