"""What a run is refused for when it begins: in one line, and what was there stays as it was."""

from pathlib import Path
from typing import Any

import pytest
from small_runs import run, small
from train_processes import finished, start

from normexp.config.schema import Config
from normexp.data import sources
from normexp.finished import finished_run
from normexp.runs.composing import compose
from normexp.runs.directory import RunDirectory
from normexp.runs.one_run import jobs_of
from normexp.runs.training import run as run_all
from normexp.system.errors import UserError


def cifar10(output: Path, *overrides: str) -> tuple[Config, RunDirectory]:
    """A run whose images are not there; its name can be told without."""
    config = compose(
        ["data=cifar10", f"data.root={output / 'none'}", "data.download=false", "device=cpu",
         f"output={output}", *overrides]
    )  # fmt: skip
    return jobs_of(config)[0]


def test_without_images_no_run_is_left(tmp_path: Path) -> None:
    config, directory = cifar10(tmp_path)
    with pytest.raises(UserError, match=r"data\.root"):
        run(config, directory)
    assert [path.name for path in directory.path.iterdir() if path.name != ".lock"] == []


@pytest.mark.parametrize("again", ["force=true", "resume=false"])
def test_an_answer_stays_until_there_are_images_for_another(again: str, tmp_path: Path) -> None:
    config, directory = small(tmp_path, "max_steps=2")
    before = run(config, directory)
    config, directory = small(tmp_path, "max_steps=2", again)
    files = {path: path.read_bytes() for path in directory.path.rglob("*") if path.is_file()}

    def none_there(*arguments: Any, **options: Any) -> None:
        raise UserError("there are no images; look for some")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "load", none_there)
        if again == "force=true":  # without, the answer counts
            with pytest.raises(UserError, match="there are no images"):
                run(config, directory)
        assert {path: path.read_bytes() for path in files} == files
    after = run(config, directory)
    assert after["test_acc"] == before["test_acc"]


def test_too_few_images_leave_no_run(tmp_path: Path) -> None:
    config, directory = small(tmp_path, "batch_size=271")
    with pytest.raises(UserError, match="batch_size=271: there are 270 training images"):
        run(config, directory)
    assert not (directory.path / "result.json").exists()


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("def norm(channels): return None", r"norm\(channels\) does not fit; it must be"),
        ("norm = 3", "is int; it must be a function"),
        ("def norm(channels, dims, norm): return 3", "gives int; it must be a function"),
    ],
)
def test_a_norm_of_ones_own_that_takes_something_else_is_named(
    code: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = f"norm_that_takes_{len(code)}"
    (tmp_path / f"{module}.py").write_text(f"{code}\n")
    monkeypatch.syspath_prepend(tmp_path)
    config, directory = small(tmp_path, f"norm={module}:norm")
    with pytest.raises(UserError, match=f"norm={module}:norm: {says}"):
        run(config, directory)


def test_a_network_that_no_memory_holds_is_refused_before_it_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, directory = small(tmp_path, "model=mlp", "norm=bn", "model.hidden=[1000,500]")
    # Layers of 3*8*8 -> 1000 -> 500 -> 10 with biases; weights, gradients, two moments; fp32.
    count = 192 * 1000 + 1000 + 1000 * 500 + 500 + 500 * 10 + 10
    need = 16 * count / 2**20
    monkeypatch.setattr("normexp.trainer.process.free_memory", lambda device: need + 0.01)
    assert run_all([(config, directory)], [])[0]["status"] == "completed"
    config, directory = small(tmp_path / "other", "model=mlp", "norm=bn", "model.hidden=[1000,500]")
    monkeypatch.setattr("normexp.trainer.process.free_memory", lambda device: need - 0.01)
    with pytest.raises(UserError, match=rf"model=mlp: {count:,} parameters.*model\.hidden"):
        run(config, directory)
    assert not directory.path.exists()


@pytest.mark.parametrize("name", ["checkpoints", "evaluation"])
def test_a_folder_of_a_run_that_leads_elsewhere_is_not_written_into(
    name: str, tmp_path: Path
) -> None:
    config, directory = small(tmp_path, "force=true")
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("mine")
    directory.path.mkdir(parents=True)
    (directory.path / name).symlink_to(precious)
    with pytest.raises(UserError, match=rf"{name} is a link, and a folder belongs there"):
        run(config, directory)
    assert [path.name for path in precious.iterdir()] == ["file"]


def test_weights_through_a_link_are_not_used(tmp_path: Path) -> None:
    config, directory = small(tmp_path, "max_steps=2")
    run(config, directory)
    (directory.path / "checkpoints").rename(tmp_path / "elsewhere")
    (directory.path / "checkpoints").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="checkpoints is a link"):
        finished_run.load(directory.path)


def test_a_sweep_over_nothing_is_refused(tmp_path: Path) -> None:
    _, errors = finished(start("-m", "batch_size=glob(*)", folder=tmp_path), 2)
    (line,) = errors.splitlines()
    assert "batch_size=glob(*): stands for no value" in line
    assert not list(tmp_path.rglob("result.json"))
