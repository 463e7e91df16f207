"""What a sweep composes at once is what Hydra composes of each job alone."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from small_runs import SMALL
from train_processes import LONG, finished, start, sweep, wait_for_step

from normexp.config import choices, schema
from normexp.config.schema import to_dict
from normexp.report.__main__ import main as report
from normexp.runs import plan as plans
from normexp.runs import planning
from normexp.runs.composing import compose

LISTS = [
    ["norm=gn", "norm.num_groups=8", "seed=3"],
    ["norm=gn", "norm.num_groups=8", "seed=0"],
    ["norm=gn", "norm.num_groups=[4,8]", "seed=0"],
    ["norm=none", "model=mlp", "model.hidden=[8]", "batch_size=2"],
    ["experiment=gn_cnn", "data=synthetic", "norm=ln", "optimizer=sgd", "seeds=3"],
    ["optimizer=sgd", "optimizer.lr=0.3", "scheduler=step", "scheduler.milestones=[0.2,0.4]"],
    ["norm.name=mine:rms", "data=synthetic", "+seeds=[4,5]"],
    ["data=synthetic", "max_steps=7", "grad_clip=1e-3", "data.train_size=null"],
]


@pytest.fixture
def composer() -> Iterator[planning.Composer]:
    choices.register()
    with initialize_config_dir(str(schema.conf_dir()), version_base="1.3"):
        loader: Any = GlobalHydra.instance().config_loader()
        yield planning.Composer(loader, [])


def test_composed_together_is_composed_alone(composer: planning.Composer) -> None:
    # Twice and in both orders: no job changes what another finds.
    found = [to_dict(composer.config(overrides)) for overrides in [*LISTS, *reversed(LISTS)]]
    GlobalHydra.instance().clear()
    alone = [to_dict(compose([*overrides])) for overrides in LISTS if "mine" not in str(overrides)]
    for own in alone:
        assert found.count(own) == 2
    assert found[: len(LISTS)] == found[: len(LISTS) - 1 : -1]


def test_jobs_of_one_cell_differ_in_their_seed_alone(composer: planning.Composer) -> None:
    loads = []
    load = composer.loader.load_configuration
    composer.loader.load_configuration = lambda *args: loads.append(args) or load(*args)  # type: ignore
    configs = [composer.config(["norm=gn", f"seed={seed}"]) for seed in range(50)]
    assert len(loads) == 1
    assert [config.seed for config in configs] == list(range(50))
    one, *others = [{**to_dict(config), "seed": None} for config in configs]
    assert all(other == one for other in others)


def test_a_sweep_that_was_stopped_early_is_told_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("-m", *SMALL, *LONG, "norm=none,bn,gn", "batch_size=2,5", "seeds=2", "name=first")
    process = start(*arguments, folder=tmp_path)
    wait_for_step(process, tmp_path)
    process.send_signal(signal.SIGINT)
    finished(process, 130)
    monkeypatch.chdir(tmp_path)
    plan = plans.read(Path("outputs/first"))
    assert plan is not None
    assert [len(cell.runs) for cell in plan.cells] == [2] * 6
    report(["outputs/first"])
    said = " ".join(capsys.readouterr().out.split())
    assert "norm=none,bn,gn batch_size=2,5 seeds=2 name=first" in said
    assert "2 runs have no answer yet and 10 runs were never begun" in said


def test_refused_cells_are_told_and_the_others_planned(tmp_path: Path) -> None:
    output, _ = sweep("norm=gn,in", "model=mlp", "name=a", folder=tmp_path, status=1)
    assert output.count("no positions to average over") == 2  # at once, and in the table
    plan = plans.read(tmp_path / "outputs" / "a")
    assert plan is not None
    (cell,) = plan.cells
    assert cell.settings == {"norm": "gn"}
    assert plan.commands[0].arguments == ["-m", *SMALL, "norm=gn,in", "model=mlp", "name=a"]
    (name,) = cell.runs.values()
    assert (tmp_path / "outputs" / "a" / str(name) / "result.json").is_file()


def test_more_combinations_than_anybody_trains_are_refused_before_they_are_made(
    tmp_path: Path,
) -> None:
    for sweeps in (
        ["seed=range(0,100000000)"],
        ["seed=range(200)", "norm=bn,gn", "batch_size=range(2,60)"],
    ):
        _, errors = finished(start("-m", *SMALL, *sweeps, folder=tmp_path), 2)
        assert "combinations: a sweep takes 10,000" in errors
