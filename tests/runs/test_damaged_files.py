"""What a run finds in its directory that it did not write: never taken for its own, and said."""

import io
import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_runs import metrics, run, small, state, without_times

from normexp.config.schema import Config
from normexp.data import sources
from normexp.finished import finished_run
from normexp.report.read import read_runs
from normexp.runs import checkpoint, recording
from normexp.runs.directory import RunDirectory
from normexp.runs.seed_run import SeedRun
from normexp.system.errors import UserError
from normexp.trainer.evaluation import Stopped
from normexp.trainer.fit import Fit

CPU = torch.device("cpu")
Change = Callable[[dict[str, Any]], None]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of three epochs."""
    config, directory = small(tmp_path_factory.mktemp("whole"), "epochs=3")
    run(config, directory)
    return directory.path


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run, stopped within its third epoch: at step 69, and before that at step 54."""
    config, directory = small(tmp_path_factory.mktemp("stopped"), "epochs=3")
    directory.create()
    one = SeedRun(config, directory)
    asked, data = iter(range(100)), sources.load(config.data)
    with pytest.raises(Stopped):
        recording.train_and_record([one], data, CPU, lambda: next(asked, None) is None)
    assert (one.progress.step, one.progress.epoch) == (69, 2)
    return directory.path


def copy_of(path: Path, output: Path) -> tuple[Config, RunDirectory]:
    config, directory = small(output, "epochs=3")
    shutil.copytree(path, directory.path)
    return config, directory


def as_earlier_versions(path: Path) -> bytes:
    """The same checkpoint without a checksum, as plain torch.save writes it."""
    file = io.BytesIO()
    torch.save(torch.load(path, weights_only=True), file)
    return file.getvalue()


def assert_same_run(directory: RunDirectory, expected: Path) -> None:
    result = json.loads((expected / "result.json").read_text())
    assert without_times(directory.result() or {}) == without_times(result)
    others = torch.load(expected / "checkpoints" / "last.pt", weights_only=True)["model"]
    assert all(
        torch.equal(value, others[name]) for name, value in state(directory)["model"].items()
    )


def flip(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


# --- Checkpoints ---------------------------------------------------------------------------------


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_any_bit_of_a_checkpoint_counts(data: st.DataObject) -> None:
    """All are covered, those between the parts of the file and of the checksum itself too."""
    content = bytearray(checkpoint._packed({"model": {"weight": torch.arange(7.0)}, "step": 3}))
    assert torch.load(io.BytesIO(content), weights_only=True)["step"] == 3
    checkpoint._demand_checksum(bytes(content))
    bit = data.draw(st.integers(0, 8 * len(content) - 1))
    content[bit // 8] ^= 1 << bit % 8
    with pytest.raises(checkpoint.Damaged):
        checkpoint._demand_checksum(bytes(content))


def in_progress(**values: Any) -> Change:
    return lambda state: state["progress"].update(values)


def in_optimizer(**values: Any) -> Change:
    return lambda state: state["optimizer"]["state"][0].update(values)


def other_shapes(state: dict[str, Any]) -> None:
    state["model"] = {name: torch.zeros(3, 3) for name in state["model"]}


def as_kind(kind: torch.dtype) -> Change:
    return lambda state: state.update(
        model={name: value.to(kind) for name, value in state["model"].items()}
    )


def other_step(state: dict[str, Any]) -> None:
    for values in state["optimizer"]["state"].values():
        values["step"].fill_(5)


def in_row(**values: Any) -> Change:
    return lambda state: state["progress"]["rows"][0].update(values)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (as_kind(torch.float16), "torch.float16, and the network has torch.float32"),
        (as_kind(torch.int64), "torch.int64, and the network has torch.float32"),
        (lambda state: state["model"]["conv1.weight"].fill_(math.nan), "weights are not finite"),
        (in_optimizer(exp_avg=torch.full((16, 3, 3, 3), math.nan)), "is not a number"),
        (in_optimizer(exp_avg=torch.zeros(16, 3, 3, 3).half()), "parameter 0 is of another"),
        (other_step, "its optimizer has taken 5 steps"),
        (in_progress(best_acc=7), "its progress"),
        (in_progress(seconds=math.inf), "its progress"),
        (in_row(val_acc="high"), "its progress"),
        (in_row(more=1), "its progress"),
        (lambda state: state.update(run_id="another"), "is of another run, another"),
        (lambda state: state.update(schema_version=2), "of another version"),
        (lambda state: state.pop("rng"), "is damaged"),
        (other_shapes, "size mismatch"),
        (lambda state: state.update(model=[1]), "checkpoint of step 69 does not fit"),
        (lambda state: state.update(progress=[1]), "checkpoint does not fit"),
        (lambda state: state.update(together=[[1]]), "the runs beside it"),
        (lambda state: state.update(rng=torch.zeros(3)), "RNG state"),
        (lambda state: state.update(optimizer=None), "checkpoint of step 69 does not fit"),
        (lambda state: state["optimizer"].update(state={}), "remembers nothing"),
        (in_optimizer(exp_avg=torch.zeros(1)), "parameter 0 is of another"),
        (in_optimizer(momentum_buffer=torch.zeros(16, 3, 3, 3)), "parameter 0 is of another"),
        (lambda state: state["optimizer"]["state"].update({-1: {}}), "no parameter -1"),
        (in_progress(later=1), "unexpected keyword argument 'later'"),
        (in_progress(step=10**9), "step 1000000000 is none of epoch 3"),
        (in_progress(step=53), "step 53 is none of epoch 3"),
        (in_progress(step=69.0), "its progress"),
        (in_progress(epoch=4), "its progress"),
        (in_progress(rows=[{}, {}]), "its progress"),
        (in_progress(grad_norms="x"), "its progress"),
        (in_progress(best_epoch=0), "its progress"),
    ],
)
def test_a_checkpoint_that_cannot_be_gone_on_from_gives_way_to_the_one_before(
    whole: Path, stopped: Path, tmp_path: Path, change: Change, says: str
) -> None:
    """Whole by its checksum, and still not what the run would have written."""
    config, directory = copy_of(stopped, tmp_path)
    found = state(directory)
    change(found)
    directory.last.write_bytes(checkpoint._packed(found))
    run(config, directory)
    log = directory.log.read_text()
    assert says in log
    assert log.count("going on without it") == 1
    assert "going on from step 54 of 81" in log
    assert_same_run(directory, whole)


def test_a_flipped_bit_gives_way_to_the_checkpoint_before(
    whole: Path, stopped: Path, tmp_path: Path
) -> None:
    """Of this version and of one without checksums of its own; flipped in the weights."""
    for name in ("now", "earlier"):
        config, directory = copy_of(stopped, tmp_path / name)
        if name == "earlier":
            for path in (directory.last, directory.previous, directory.best):
                path.write_bytes(as_earlier_versions(path))
        weight = state(directory)["model"]["classifier.weight"].numpy().tobytes()
        flip(directory.last, 8 * directory.last.read_bytes().index(weight) + 30)
        run(config, directory)
        log = directory.log.read_text()
        assert "last.pt cannot be read (its checksum does not match); going on without it" in log
        assert "going on from step 54 of 81" in log
        assert_same_run(directory, whole)


def test_checkpoints_of_earlier_versions_are_gone_on_from(
    whole: Path, stopped: Path, tmp_path: Path
) -> None:
    config, directory = copy_of(stopped, tmp_path)
    for path in (directory.last, directory.best):
        path.write_bytes(as_earlier_versions(path))
    run(config, directory)
    assert "going on from step 69 of 81" in directory.log.read_text()
    assert_same_run(directory, whole)


@pytest.mark.parametrize("damage", ["flip", "foreign", "shapes", "older"])
def test_without_its_best_weights_a_run_begins_anew(
    whole: Path, stopped: Path, tmp_path: Path, damage: str
) -> None:
    config, directory = copy_of(stopped, tmp_path)
    best = torch.load(directory.best, weights_only=True)
    if damage == "flip":
        flip(directory.best, 4 * directory.best.stat().st_size)
    elif damage == "foreign":
        directory.best.write_bytes(checkpoint._packed(best | {"run_id": "another"}))
    elif damage == "shapes":
        other_shapes(best)
        directory.best.write_bytes(checkpoint._packed(best))
    else:
        directory.best.write_bytes(checkpoint._packed(best | {"epoch": 0}))
    run(config, directory)
    log = directory.log.read_text()
    assert "best.pt" in log
    assert "no checkpoint can be used" in log
    assert "going on from" not in log
    assert_same_run(directory, whole)


def test_too_little_memory_is_no_damage(
    stopped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint stays for when there is more."""
    config, directory = copy_of(stopped, tmp_path)

    def no_memory(*arguments: Any, **options: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(torch, "load", no_memory)
    with pytest.raises(MemoryError):
        SeedRun(config, directory).find_state(CPU)


@pytest.mark.parametrize("name", ["best.pt", "last.pt"])
def test_damaged_weights_are_not_used(whole: Path, tmp_path: Path, name: str) -> None:
    settings = ("epochs=3", "evaluate.checkpoint=last") if name == "last.pt" else ("epochs=3",)
    config, directory = small(tmp_path, *settings)
    run(config, directory)
    finished_run.load(directory.path)
    path = directory.path / "checkpoints" / name
    good = path.read_bytes()
    flip(path, 4 * len(good))
    with pytest.raises(
        UserError, match=rf"{name} cannot be read \(its checksum .*normexp\.train .*force=true"
    ):
        finished_run.load(directory.path)
    if name == "last.pt":
        foreign = torch.load(io.BytesIO(good), weights_only=True) | {"run_id": "another"}
        path.write_bytes(checkpoint._packed(foreign))
        says = "is of another run, another"
    else:
        path.write_bytes((whole / "checkpoints" / name).read_bytes())
        path = directory.path / "result.json"
        path.write_text(path.read_text().replace('"run_id": "', '"run_id": "another-'))
        says = r"result\.json is of another-"
    with pytest.raises(UserError, match=says):
        finished_run.load(directory.path)


# --- The directory -------------------------------------------------------------------------------


def test_the_folder_of_another_seed_is_no_answer(tmp_path: Path) -> None:
    config, directory = small(tmp_path / "apart", "seed=2")
    expected = run(config, directory)
    _, other = small(tmp_path, "seed=1")
    run(*small(tmp_path, "seed=1"))
    config, directory = small(tmp_path, "seed=2")
    shutil.copytree(other.path, directory.path)
    (unreadable,) = read_runs(tmp_path / "default").unreadable
    assert f"result.json is of another run, {other.run_id}; skipped" in unreadable
    assert directory.answer() is None
    assert without_times(run(config, directory)) == without_times(expected)
    log = directory.log.read_text()
    assert f"result.json is of another run, {other.run_id}; making it anew" in log
    assert f"last.pt is of another run, {other.run_id}; going on without it" in log


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("config.yaml", "norm:", "norm: ["),
        ("config.yaml", "\nseed: 0", "\nseed: 1"),
        ("config.yaml", "batch_size: 10", ""),
        ("config.yaml", None, None),
        ("metrics.csv", "epoch,", "epo"),
        ("metrics.csv", "\n1,27", "\n1,2x7"),
        ("metrics.csv", "\n2,54,", "\n2,"),
        ("metrics.csv", None, None),
    ],
)
def test_what_is_damaged_of_a_finished_run_is_written_anew(
    whole: Path, tmp_path: Path, name: str, old: str | None, new: str | None
) -> None:
    config, directory = copy_of(whole, tmp_path)
    path = directory.path / name
    good = path.read_text().replace(str(whole.parents[1]), str(tmp_path))  # output=
    if old is None or new is None:
        path.unlink()
    else:
        assert old in good
        path.write_text(good.replace(old, new, 1))
    with pytest.raises(UserError, match=rf"no runs that can be read \(.*{re.escape(name)}"):
        read_runs(tmp_path)
    assert directory.answer() is None
    run(config, directory)
    assert path.read_text() == good
    log = directory.log.read_text()
    assert f"{name} " in log
    assert "; making it anew" in log
    assert "going on from step 81 of 81" in log
    assert_same_run(directory, whole)
    assert read_runs(tmp_path).unreadable == []


def test_a_configuration_that_was_not_trained_is_none(whole: Path, tmp_path: Path) -> None:
    """What can change without changing the result may be another."""
    _, directory = copy_of(whole, tmp_path)
    path = directory.path / "config.yaml"
    good = path.read_text()
    path.write_text(good.replace("threads: 1\n", "threads: 2\n"))
    assert directory.answer() is not None
    path.write_text(good.replace("eps: 1.0e-05\n", "eps: 0.1\n"))
    assert directory.damage() == f"{directory.path}: config.yaml is not what was trained: norm.eps"


@pytest.mark.parametrize(
    "name", ["result.json", "metrics.csv", "train.log", "checkpoints/last.pt", "checkpoints"]
)
def test_what_stands_where_the_run_writes_is_said_before_it_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    config, directory = small(tmp_path)
    path = directory.path / name
    if name == "checkpoints":
        path.parent.mkdir(parents=True)
        path.write_text("")
    else:
        path.mkdir(parents=True)
    monkeypatch.setattr(sources, "load", None)
    with pytest.raises(UserError, match=rf"{name}.* is a (folder|file), and a "):
        run(config, directory)


def test_a_run_outlives_its_diagnostics(tmp_path: Path) -> None:
    config, directory = small(tmp_path, "diagnostics=true", "norm=bn")
    directory.create()
    one, asked = SeedRun(config, directory), iter(range(40))
    with pytest.raises(Stopped):
        recording.train_and_record(
            [one], sources.load(config.data), CPU, lambda: next(asked, None) is None
        )
    table = directory.path / "diagnostics.csv"
    table.write_text(table.read_text() + "2,54\n")
    run(config, directory)
    assert "is no table of diagnostics" in directory.log.read_text()
    found = read_runs(tmp_path)
    assert found.unreadable == []
    assert set(found.diagnostics["epoch"]) == {2}
    table.write_text("epoch,layer\n1,conv1\n")
    found = read_runs(tmp_path)
    assert found.table["test_acc"].notna().all()
    (line,) = found.unreadable
    assert line.endswith("its diagnostics are left out")


def test_epochs_of_metrics_are_those_of_the_result(whole: Path) -> None:
    """What tells a run that was written anew in part from one that is whole."""
    _, directory = small(whole.parents[1], "epochs=3")
    assert len(metrics(directory)) == (directory.answer() or {})["epochs"] == 3


def test_a_network_is_made_only_where_there_is_a_checkpoint(tmp_path: Path) -> None:
    config, directory = small(tmp_path)
    fit = Fit(config, sources.load(config.data))
    SeedRun(config, directory).fit_state(fit, CPU)
    assert "trained" not in vars(fit)
