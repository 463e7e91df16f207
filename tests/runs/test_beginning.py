"""A run of more epochs goes on from one of fewer where that is its beginning, and says so."""

from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import SMALL, metrics, run, same_tensors, small, state, without_times
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from normexp.config.schema import Config, to_dict
from normexp.data import sources
from normexp.runs import recording
from normexp.runs.beginning import go_on_from_shorter
from normexp.runs.composing import compose
from normexp.runs.directory import RunDirectory
from normexp.runs.one_run import jobs_of
from normexp.runs.seed_run import SeedRun
from normexp.runs.training import run as run_all

CPU = torch.device("cpu")


def jobs(output: Path, *overrides: str) -> list[tuple[Config, RunDirectory]]:
    return jobs_of(compose([*SMALL, f"output={output}", *overrides]))


def rows(directory: RunDirectory) -> list[dict[str, Any]]:
    return [without_times(row) for row in metrics(directory)]


def assert_same(one: RunDirectory, other: RunDirectory) -> None:
    """Bit for bit, but for times and the folder."""
    assert one.run_id == other.run_id
    assert rows(one) == rows(other)
    results = [directory.result() for directory in (one, other)]
    assert without_times(results[0] or {}) == without_times(results[1] or {})
    for part in ("model", "optimizer", "rng", "run_id"):
        assert same_tensors(state(one)[part], state(other)[part]), part
    best = [torch.load(each.best, weights_only=True) for each in (one, other)]
    for part in ("model", "run_id", "epoch", "step", "classes", "beside_config"):
        assert same_tensors(best[0][part], best[1][part]), part


@pytest.mark.parametrize(
    ("settings", "shorter", "longer"),
    [
        (("norm=bn",), ("epochs=2",), ("epochs=5",)),
        (("norm=gn", "diagnostics=true"), ("max_steps=54",), ("epochs=3",)),
        (
            ("norm=none", "optimizer=sgd", "scheduler=step", "optimizer.lr=0.02"),
            ("epochs=2", "scheduler.milestones=[0.5]"),
            ("epochs=4", "scheduler.milestones=[0.25,0.75]"),
        ),
        (("norm=bn", "data.val_fraction=0"), ("epochs=1",), ("max_steps=40",)),
        (("norm=bn", "seeds=3", "fuse=3"), ("epochs=1",), ("epochs=3",)),
        (("norm=batch_instance", "seeds=2", "fuse=1"), ("epochs=1",), ("epochs=2",)),
    ],
)
def test_more_epochs_go_on_bit_for_bit_as_if_asked_for_at_once(
    tmp_path: Path, settings: tuple[str, ...], shorter: tuple[str, ...], longer: tuple[str, ...]
) -> None:
    at_once = jobs(tmp_path / "once", *settings, *longer)
    run_all(at_once, [])
    first = jobs(tmp_path / "parts", *settings, *shorter)
    before = run_all(first, [])
    second = jobs(tmp_path / "parts", *settings, *longer)
    run_all(second, [])
    for (_, whole), (config, directory), (_, origin), earlier in zip(
        at_once, second, first, before, strict=True
    ):
        assert_same(directory, whole)
        log = directory.log.read_text()
        length = shorter[0].partition("=")[2]
        length += " steps" if shorter[0].startswith("max_steps") else " epochs"
        length = "1 epoch" if length == "1 epochs" else length
        said = f"going on from step {earlier['steps']} of "
        (line,) = [line for line in log.splitlines() if said in line]
        assert line.endswith(f", where the run of {length} in {origin.path} is")
        assert f"epoch {earlier['epochs']}/" not in log
        best = torch.load(directory.best, weights_only=True)
        assert best["config"] == to_dict(config)
        # The run that it began with is left as it was.
        assert origin.result() == earlier
        assert state(origin)["run_id"] == origin.run_id
        if config.diagnostics:
            told = [(each.path / "diagnostics.csv").read_text() for each in (directory, whole)]
            assert told[0] == told[1]


@pytest.mark.parametrize(
    ("settings", "shorter", "longer", "reason"),
    [
        (("scheduler=cosine",), ("epochs=1",), ("epochs=2",), "other learning rates"),
        (("scheduler.warmup=0.1",), ("epochs=1",), ("epochs=2",), "other learning rates"),
        (
            ("scheduler=step", "scheduler.milestones=[0.5]"), ("epochs=1",), ("epochs=2",),
            "other learning rates",
        ),
        (("norm=batch_renorm",), ("epochs=1",), ("epochs=2",), "norm=batch_renorm goes by"),
        ((), ("max_steps=40",), ("epochs=2",), "it ended within an epoch"),
        ((), ("epochs=2",), ("epochs=1",), "it has come further"),
        ((), ("epochs=1",), ("epochs=2", "diagnostics=true"), "it left no diagnostics"),
        ((), ("epochs=1",), ("epochs=2", "resume=false"), None),
        ((), ("epochs=1",), ("epochs=2", "force=true"), None),
        ((), ("epochs=1",), ("epochs=2", "optimizer.lr=0.01"), None),
        ((), ("epochs=1",), ("epochs=2", "data.seed=3"), None),
    ],
)  # fmt: skip
def test_what_would_not_be_the_same_run_begins_anew_and_says_so(
    tmp_path: Path, settings: tuple[str, ...], shorter: tuple[str, ...], longer: tuple[str, ...],
    reason: str | None,
) -> None:  # fmt: skip
    settings = ("norm=gn", *settings) if not any("norm=" in one for one in settings) else settings
    run(*small(tmp_path, *settings, *shorter))
    config, directory = small(tmp_path, *settings, *longer)
    run(config, directory)
    log = directory.log.read_text()
    assert "going on" not in log
    assert "epoch 1/" in log
    lines = [line for line in log.splitlines() if "is another question" in line]
    assert len(lines) == (reason is not None)
    if reason is not None:
        assert reason in lines[0]
        assert ", and this one begins anew: " in lines[0]


def test_a_run_that_is_killed_before_its_first_checkpoint_begins_there_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("norm=bn", "seeds=2", "fuse=2")
    at_once = jobs(tmp_path / "once", *asked, "epochs=3")
    run_all(at_once, [])
    run_all(jobs(tmp_path / "parts", *asked, "epochs=1"), [])
    second = jobs(tmp_path / "parts", *asked, "epochs=3")

    def killed(self: SeedRun) -> None:
        # After the first of the two has saved itself.
        if self.config.seed == 1:
            raise SystemExit
        save(self)

    save = SeedRun.save
    runs = [SeedRun(*job) for job in second]
    for one in runs:
        one.directory.create()
    dataset = sources.load(second[0][0].data)
    go_on_from_shorter(runs, dataset, CPU)
    monkeypatch.setattr(SeedRun, "save", killed)
    with pytest.raises(SystemExit):
        recording.train_and_record(runs, dataset, CPU, lambda: False)
    monkeypatch.undo()
    assert [directory.last.exists() for _, directory in second] == [True, False]
    run_all(second, [])
    for (_, whole), (_, directory) in zip(at_once, second, strict=True):
        assert_same(directory, whole)


def test_tensorboard_shows_the_epochs_that_lie_behind(tmp_path: Path) -> None:
    found = {}
    for folder, lengths in (("once", (3,)), ("parts", (1, 3))):
        for epochs in lengths:
            asked = ("norm=bn", "log.tensorboard=true", f"epochs={epochs}")
            config, directory = small(tmp_path / folder, *asked)
            run(config, directory)
        events = EventAccumulator(str(directory.path)).Reload()
        found[folder] = {
            tag: [(event.step, event.value) for event in events.Scalars(tag)]
            for tag in ("val/acc", "val/loss", "test/acc", "hparam/test_acc")
        }
        assert "config/text_summary" in events.Tags()["tensors"]
        assert [event.step for event in events.Scalars("train/loss")][-1] == 810
        assert min(event.step for event in events.Scalars("train/loss")) <= 270
    assert found["once"] == found["parts"]
