"""Sweeps that are killed, shared or interrupted, or hold runs that fail: nothing is lost."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from small_runs import SMALL
from train_processes import ENVIRONMENT, LONG, ROOT, finished, start, statuses, sweep, wait_for_step

from normexp.runs.outcomes import Outcome
from normexp.runs.sweep import VARIABLE, Sweep


def results(folder: Path) -> list[dict[str, Any]]:
    found = sorted((folder / "outputs").glob("*/*/result.json"))
    return [json.loads(path.read_text()) for path in found]


def test_killed_at_random_moments_nothing_is_lost_and_nothing_done_twice(tmp_path: Path) -> None:
    script = [sys.executable, str(ROOT / "scripts" / "kill_sweep.py"), str(tmp_path)]
    done = subprocess.run(
        [*script, "--kills", "4", "--seed", "1", "--small"],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("2 runs")
    assert "0 differences" in done.stdout


def test_the_same_command_again_trains_nothing(tmp_path: Path) -> None:
    first, _ = sweep("norm=none,gn", "seed=0,1", folder=tmp_path)
    assert statuses(first) == ["completed"] * 4
    assert "run 3 of 4: norm=gn seed=0" in first
    *_, total, made_up, compare = first.splitlines()
    assert re.fullmatch(r"4 runs in 2 cells, \d+ s: 4 completed", total)
    assert made_up == "made-up images: shows how it works, not which norm is better"
    assert compare == "compare them: python -m normexp.report outputs/default"
    for norm in ("none", "gn"):
        # By hand: the mean and the standard deviation of two are their half sum and difference.
        one, two = (100 * each["test_acc"] for each in results(tmp_path) if each["norm"] == norm)
        accuracy = f"{(one + two) / 2:.2f} ± {abs(one - two) / 2**0.5:.2f}"
        assert re.search(rf"^ +{accuracy} +2 .*  norm={norm}: 2 completed$", first, re.M)
    before = results(tmp_path)
    again, _ = sweep("norm=none,gn", "seed=0,1", folder=tmp_path)
    assert statuses(again) == ["skipped"] * 4
    assert "epoch" not in again
    assert results(tmp_path) == before


def test_the_closing_table_says_what_became_of_each_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "now")
    table = Sweep.open(tmp_path / "my runs", 3, [])

    def outcome(seed: int, status: str, acc: float | None, reason: str | None = None) -> Outcome:
        known = {"seed": seed, "name": "first", "data": "cifar10"}
        return Outcome("norm=bn batch_size=2", status, reason, acc, acc, seconds=60.0, **known)

    table.record(0, [
        outcome(0, "completed", 0.5), outcome(1, "skipped", 0.4),
        outcome(2, "diverged", None, "the loss became nan at step 7"),
        outcome(3, "diverged", None, "the loss became nan at step 7"),
    ])  # fmt: skip
    table.record(1, [Outcome("norm=gn batch_size=2", "failed", "no room")])
    head, bn, why, gn, also, total, compare = table.table().splitlines()
    row = "   45.00 ± 7.07    2       4 min  norm=bn batch_size=2: "
    assert bn == row + "1 completed, 1 skipped, 2 diverged"
    assert why.split("  ")[-1] == "seed 2, 3: the loss became nan at step 7"
    assert gn.endswith("  norm=gn batch_size=2: 1 failed")
    assert also.strip() == "no room"
    assert total == "5 runs in 2 cells, 0 s: 1 completed, 1 skipped, 2 diverged, 1 failed; " + (
        "1 cell not begun"
    )
    folder = f"'{tmp_path}/my runs/first'"
    assert compare == f"compare them: python -m normexp.report {folder}"
    assert len(head) <= 80


def test_skipping_imports_no_torch(tmp_path: Path) -> None:
    sweep("norm=none,gn", folder=tmp_path)
    code = (
        f"import sys; sys.argv = ['train', '-m', *{SMALL}, 'norm=none,gn']\n"
        "from normexp import train\ntrain.main()\nassert 'torch' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert statuses(done.stdout) == ["skipped", "skipped"]


def test_two_processes_share_a_sweep(tmp_path: Path) -> None:
    arguments = ("-m", *SMALL, "norm=none,bn,gn", "seed=0,1", "epochs=20")
    both = [start(*arguments, folder=tmp_path) for _ in range(2)]
    tables = [statuses(finished(process)[0]) for process in both]
    assert [result["status"] for result in results(tmp_path)] == ["completed"] * 6
    # Trained by one of them; the other found it done, or waited for it.
    assert {*tables[0], *tables[1]} <= {"completed", "skipped"}
    assert sum(table.count("completed") for table in tables) >= 6
    for log in (tmp_path / "outputs").rglob("train.log"):
        assert log.read_text().count("epoch 1/20") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_run_saves_itself_and_goes_on(tmp_path: Path, number: int) -> None:
    process = start(*SMALL, *LONG, folder=tmp_path)
    wait_for_step(process, tmp_path)
    process.send_signal(number)
    _, errors = finished(process, 128 + number)
    assert errors == "normexp: interrupted; the same command goes on\n"
    (result,) = results(tmp_path)
    assert result["status"] == "interrupted"
    assert f"at step {result['steps']} of 1000000" in result["reason"]
    process = start(*SMALL, *LONG, folder=tmp_path)
    (log,) = (tmp_path / "outputs").rglob("train.log")
    while f"going on from step {result['steps']}" not in log.read_text():
        assert process.poll() is None
    process.kill()
    process.communicate()


def test_an_interrupted_sweep_tells_what_it_did(tmp_path: Path) -> None:
    process = start("-m", *SMALL, *LONG, "norm=none,gn", folder=tmp_path)
    wait_for_step(process, tmp_path)
    process.send_signal(signal.SIGINT)
    output, errors = finished(process, 130)
    assert statuses(output) == ["interrupted"]
    assert "1 run in 1 cell, " in output
    assert "1 interrupted; 1 run not begun" in output
    assert errors.count("\n") == 1


def test_an_interrupted_sweep_of_several_seeds_that_was_forced(tmp_path: Path) -> None:
    arguments = ("-m", *SMALL, *LONG, "norm=none,gn", "seeds=[3,4]", "fuse=1", "force=true")
    process = start(*arguments, folder=tmp_path)
    wait_for_step(process, tmp_path)
    process.send_signal(signal.SIGTERM)
    output, errors = finished(process, 143)
    assert errors == "normexp: interrupted; leave out force=true to go on\n"
    assert statuses(output) == ["interrupted"] * 2
    # The second had not begun, and has recorded nothing.
    assert re.search(r"^ +seed 3: at step \d+ of 1000000(, in validation)?$", output, re.M)
    assert "cell 1 of 2: norm=none, 2 runs" in output
    last = output.splitlines()[-2]
    assert last.startswith("2 runs in 1 cell, ")
    assert last.endswith(": 2 interrupted; 1 cell not begun")


def test_one_bad_run_hurts_nobody(tmp_path: Path) -> None:
    output, _ = sweep(
        "norm=gn,none", "norm.num_groups=3,4", "optimizer=sgd", "optimizer.lr=0.1,1e12",
        folder=tmp_path, status=1,
    )  # fmt: skip
    found = statuses(output)
    assert found[:2] == ["failed", "failed"]
    assert set(found) == {"failed", "completed", "diverged", "skipped"}
    # Nothing had to be read to refuse them: the table says why, and they leave nothing.
    assert found.count("failed") == output.count("cannot be split into 3 groups; use") // 2 == 2
    assert {result["status"] for result in results(tmp_path)} == {"completed", "diverged"}


def test_a_sweep_that_can_never_be_completed_does_not_say_that_it_goes_on(tmp_path: Path) -> None:
    arguments = ("norm=gn,none", "model.channels=[6,6]", "seeds=2", "max_steps=2")
    output, errors = sweep(*arguments, folder=tmp_path, status=1)
    assert statuses(output) == ["failed"] * 2 + ["completed"] * 2
    assert "cannot work as they are asked for" in errors
    assert "goes on" not in errors


def test_an_exception_in_a_run_is_recorded_and_the_sweep_goes_on(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(
        "import torch\n\n\nclass Broken(torch.nn.Module):\n"
        "    def forward(self, x):\n        raise RuntimeError('out of\\nmemory')\n\n\n"
        "def norm(channels, dims, norm):\n    return Broken()\n"
    )
    arguments = ("norm=broken:norm,none", "seed=0")
    output, _ = sweep(*arguments, folder=tmp_path, status=1)
    assert statuses(output) == ["failed", "completed"]
    # As it was written, without the backslash that Hydra adds.
    assert "run 1 of 2: norm=broken:norm seed=0" in output
    assert "  norm=broken:norm: 1 failed\n" in output
    (bad,) = [result for result in results(tmp_path) if result["status"] == "failed"]
    assert bad["reason"] == "RuntimeError: out of memory"
    # It is tried again, and with on_error=stop the sweep ends there.
    output, _ = sweep(*arguments, "on_error=stop", "name=other", folder=tmp_path, status=1)
    assert statuses(output) == ["failed"]


def test_a_full_disk_is_one_line_and_nothing_else_is_damaged(tmp_path: Path) -> None:
    process = start(*SMALL, folder=tmp_path, limit_files=True)
    _, errors = finished(process, 2)
    assert errors.startswith("normexp: error: ")
    assert errors.count("\n") == 1
    assert "best.pt cannot be written: File too large" in errors
    (result,) = results(tmp_path)
    assert result["status"] == "failed"
    assert not list(tmp_path.rglob("*.tmp"))
    finished(start(*SMALL, folder=tmp_path))
    assert [result["status"] for result in results(tmp_path)] == ["completed"]


def test_a_name_that_leaves_the_output_folder_writes_nothing(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    output, _ = sweep("name=../x", "seed=0,1", folder=work, status=1)
    assert statuses(output) == ["failed", "failed"]
    assert [path.name for path in tmp_path.iterdir()] == ["work"]
    assert not list(work.rglob("result.json"))


def test_a_refused_question_leaves_the_answer_of_before(tmp_path: Path) -> None:
    sweep("norm=gn", "seed=0", folder=tmp_path)
    before = results(tmp_path)
    output, _ = sweep("norm=gn", "seed=0", "force=true", "device=mps", folder=tmp_path, status=1)
    assert statuses(output) == ["failed"]
    assert results(tmp_path) == before


def test_a_norm_that_ends_the_process_ends_its_run_only(tmp_path: Path) -> None:
    (tmp_path / "exits.py").write_text("def norm(channels, dims, norm):\n    raise SystemExit(0)\n")
    output, _ = sweep("norm=exits:norm,none", folder=tmp_path, status=1)
    assert statuses(output) == ["failed", "completed"]


def test_a_sweep_by_glob_and_one_over_output_folders(tmp_path: Path) -> None:
    output, _ = sweep("norm=glob(?n)", folder=tmp_path)
    assert statuses(output) == ["completed"] * 4  # bn, gn, in, ln
    _, errors = sweep("output=a,b", folder=tmp_path, status=2)
    assert errors.splitlines() == [
        "normexp: error: output: all runs of a sweep share one; sweep name= instead"
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outputs"]


def test_a_full_disk_ends_a_sweep_with_one_line_and_what_is_there_goes_on(tmp_path: Path) -> None:
    arguments = ("-m", *SMALL, "log.tensorboard=true", "log.every=1", "norm=gn,none", "fuse=2")
    # TensorBoard's events of 27 steps are as large as what may be written.
    process = start(*arguments, "seeds=2", folder=tmp_path, limit_files=True)
    output, errors = finished(process, 2)
    assert "  run  status" not in output
    (line,) = errors.splitlines()
    assert "cannot be written: File too large; make room or choose output=" in line
    reasons = [result["reason"] for result in results(tmp_path)]
    assert reasons
    assert not [reason for reason in reasons if "-seed" in reason]  # of another run
    output, _ = sweep(*arguments[1:], "seeds=2", folder=tmp_path)
    assert statuses(output) == ["completed"] * 4
