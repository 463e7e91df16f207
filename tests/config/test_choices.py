"""Choices: what a name means, norms of one's own among them, and presets that sweep."""

from pathlib import Path

import pytest
from small_runs import SMALL, small
from test_commands import call, results
from test_config import command, refusal

from normexp.config.schema import Architecture, conf_dir
from normexp.config.settings import prepare
from normexp.runs.composing import check, compose
from normexp.system.errors import UserError

NAMED = [("model", "resnet20"), ("norm", "gn"), ("data", "synthetic"), ("optimizer", "sgd"),
         ("scheduler", "one_cycle")]  # fmt: skip


@pytest.mark.parametrize(("group", "choice"), NAMED)
@pytest.mark.parametrize("sign", ["", "+", "++"])
def test_a_name_of_a_choice_set_past_its_group_is_refused_with_the_line_that_works(
    group: str, choice: str, sign: str
) -> None:
    assert refusal(f"{sign}{group}.name={choice}").endswith(f"; write {group}={choice}")
    line = f"{group}.name=mine,{choice}"
    with pytest.raises(UserError, match=f"write {group}=mine,{choice}$"):
        prepare([line], sweeps=True)


@pytest.fixture
def preset(tmp_path: Path) -> list[str]:
    """The settings that find the choices of one's own, in files below the folder of the test."""
    for group in ("experiment", "model", "optimizer"):
        (tmp_path / "conf" / group).mkdir(parents=True)
    return [f"hydra.searchpath=[{tmp_path / 'conf'}]"]


def write(folder: Path, choice: str, content: str) -> None:
    (folder / "conf" / f"{choice}.yaml").write_text(content)


@pytest.mark.parametrize(
    ("content", "fix"),
    [
        ("model: {name: deep_cnn}", "override /model: deep_cnn"),
        ("optimizer: {name: sgd}", "override /optimizer: sgd"),
        ("defaults: [override /model: mlp]\nmodel: {architecture: resnet20}", "model=resnet20"),
    ],
)
def test_a_preset_cannot_name_a_choice_past_its_group_either(
    content: str, fix: str, tmp_path: Path, preset: list[str]
) -> None:
    write(tmp_path, "experiment/mine", f"# @package _global_\n{content}\n")
    assert fix in refusal("experiment=mine", *preset)


def test_no_network_is_filed_under_the_name_of_another(tmp_path: Path, preset: list[str]) -> None:
    assert refusal("model.architecture=resnet20").endswith(
        "simple_cnn is another network; write model=resnet20, or give yours a name of its own, "
        "model.name=..."
    )
    write(tmp_path, "model/mine", "name: resnet20\narchitecture: cnn\nchannels: [8]\n")
    assert "resnet20 is another network" in refusal("model=mine", *preset)


def test_labels_and_files_of_ones_own_are_free(tmp_path: Path, preset: list[str]) -> None:
    assert compose(["model.name=label", "model.channels=[32,64]"]).model.name == "label"
    own = ["model.name=label", "model.architecture=mlp", "model.hidden=[50]"]
    assert compose(own).model.architecture is Architecture.mlp
    write(tmp_path, "optimizer/slow", "name: sgd\nlr: 0.05\n")
    assert compose(["optimizer=slow", *preset]).optimizer.lr == 0.05


def test_a_finished_run_under_a_wrong_name_can_still_be_used() -> None:
    config = compose([])
    config.model.name = "resnet20"
    check(config)


def test_a_norm_of_ones_own_is_a_choice_like_any_other(tmp_path: Path) -> None:
    source = "from torch import nn\n\n\ndef norm(channels, dims, norm):\n    return nn.Identity()\n"
    (tmp_path / "mine.py").write_text(source)
    call("normexp.train", "-m", "norm=none,mine:norm", *SMALL, "max_steps=1", folder=tmp_path)
    assert [one["norm"] for one in results(tmp_path)] == ["mine:norm", "none"]


def test_a_norm_of_ones_own_has_one_name_however_it_is_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "norm_that_is_chosen.py").write_text("def norm(channels, dims, norm): ...")
    monkeypatch.syspath_prepend(tmp_path)
    by_group, by_name = (
        small(tmp_path, f"{key}=norm_that_is_chosen:norm")[1].run_id
        for key in ("norm", "norm.name")
    )
    assert by_group == by_name


PRESETS = [
    (["experiment=[study,gn_cnn]"], ["takes one choice", "a command for each"]),
    (["experiment=null"], ["experiment=null", "leave it out"]),
    (["+experiment=gn_cnn"], ["write experiment=gn_cnn"]),
]


@pytest.mark.parametrize(("settings", "named"), PRESETS)
def test_what_is_no_preset_is_refused(settings: list[str], named: list[str]) -> None:
    message = refusal(*settings)
    assert [word for word in named if word not in message] == [], message


@pytest.mark.parametrize("defaults", ["", "defaults: [override /model: mlp]\n"])
def test_a_preset_without_its_first_line_is_told_of_it(
    defaults: str, tmp_path: Path, preset: list[str]
) -> None:
    write(tmp_path, "experiment/mine", f"{defaults}batch_size: 4\n")
    assert "`# @package _global_`" in refusal("experiment=mine", *preset)


def test_a_sweep_is_made_whole_or_not_at_all(tmp_path: Path, preset: list[str]) -> None:
    """A preset's sweep was lost among several presets, and without -m."""
    sweep = "hydra: {sweeper: {params: {norm: 'bn,gn'}}}\n"
    write(tmp_path, "experiment/mine", f"# @package _global_\n{sweep}")
    for arguments, fix in (
        (["-m", "experiment=study,gn_cnn"], "experiment=study, experiment=gn_cnn"),
        (["--config-dir", "conf", "experiment=mine"], "-m"),
    ):
        done = command(arguments, tmp_path)
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert fix in line
    assert [path.name for path in tmp_path.iterdir()] == ["conf"]


def test_packaged_names_are_those_of_their_files() -> None:
    for group in ("model", "norm", "data", "optimizer", "scheduler"):
        for path in (conf_dir() / group).glob("*.yaml"):
            assert f"name: {path.stem}\n" in path.read_text()
