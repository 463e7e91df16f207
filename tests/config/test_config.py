"""The configuration: what it composes to, and how what cannot work is refused."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hypothesis import given, settings
from hypothesis import strategies as st
from schema_keys import leaves

from normexp.config import checks, choices, schema
from normexp.config.explain import explain
from normexp.config.schema import Config, conf_dir
from normexp.data.enough_images import refuse_unseen
from normexp.runs.composing import check, compose, settle
from normexp.system.errors import UserError

ROOT = Path(__file__).parents[2]
GROUPS = ["model", "norm", "data", "optimizer", "scheduler"]


def refusal(*overrides: str) -> str:
    """The one line with which these settings are refused."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - which kind is up to Hydra
        compose(list(overrides))
    message = explain(caught.value)
    assert "\n" not in message
    assert message.strip()
    return message


def settled(*overrides: str) -> tuple[Config, list[str]]:
    choices.register()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return settle(hydra_compose("config", list(overrides)))


def command(arguments: list[str], folder: Path, code: str | None = None) -> Any:
    """Run `python -m normexp.train`, or a piece of code, in an empty folder."""
    program = ["-m", "normexp.train"] if code is None else ["-c", code]
    environment = {key: value for key, value in os.environ.items() if key != "HYDRA_FULL_ERROR"}
    return subprocess.run(
        [sys.executable, *program, *arguments], cwd=folder, capture_output=True, text=True,
        env={**environment, "PYTHONPATH": str(ROOT)}, timeout=120, check=False,
    )  # fmt: skip


def test_defaults_are_those_documented(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NORMEXP_DATA", raising=False)
    config = compose([])
    chosen = {group: schema.to_dict(schema.get(config, f"{group}.name")) for group in GROUPS}
    assert chosen == {
        "model": "simple_cnn", "norm": "bn", "data": "cifar10", "optimizer": "adam",
        "scheduler": "constant",
    }  # fmt: skip
    expected = {
        "batch_size": 64, "epochs": 10, "max_steps": None, "seed": 0, "optimizer.lr": 1e-3,
        "optimizer.weight_decay": 0.0, "norm.eps": 1e-5, "norm.affine": True, "norm.momentum": 0.1,
        "data.val_fraction": 0.1, "data.flip": True, "data.crop_padding": 4, "data.root": "data",
        "data.normalize": True, "output": "outputs", "resume": True, "force": False,
        "evaluate.checkpoint": schema.Checkpoint.best, "precision": schema.Precision.fp32,
        "device": schema.Device.auto, "label_smoothing": 0.0, "grad_clip": None,
    }  # fmt: skip
    assert {key: schema.get(config, key) for key in expected} == expected


@pytest.mark.parametrize("data", ["cifar10", "image_folder"])
def test_an_environment_variable_says_where_images_lie(
    data: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NORMEXP_DATA", "/somewhere else")
    assert compose([f"data={data}"]).data.root == "/somewhere else"
    assert compose([f"data={data}", "data.root=here"]).data.root == "here"


CHOICES = sorted((path.parent.name, path.stem) for path in conf_dir().glob("*/*.yaml"))


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_every_choice_composes(group: str, choice: str) -> None:
    needs = {"frozen_bn": ["norm.freeze_at=0.5"], "keep": ["model=torchvision:resnet18"]}
    config = compose([f"{group}={choice}", *needs.get(choice, [])])
    if group in GROUPS:
        assert schema.to_dict(schema.get(config, f"{group}.name")) == choice


def test_every_group_has_choices() -> None:
    assert {group for group, _ in CHOICES} >= set(GROUPS)


# What is asked, and what its refusal must name: the key, what was given, what would work.
REFUSED: dict[str, tuple[list[str], list[str]]] = {
    "misspelt key": (["batchsize=2"], ["batchsize", "batch_size"]),
    "misspelt nested key": (["optimizer.lrr=1"], ["optimizer.lrr", "optimizer.lr?"]),
    "misspelt group": (["optimiser=sgd"], ["optimiser", "optimizer"]),
    "key of another group": (["data.eps=1"], ["data.eps", "known are", "image_size"]),
    "key below a leaf": (["seed.value=1"], ["seed"]),
    "key below a list": (["model.hidden.x=1"], ["model.hidden"]),
    "misspelt added key": (["+batchsize=3"], ["batchsize", "batch_size"]),
    "misspelt added nested key": (["+data.rooot=x"], ["data.rooot", "data.root"]),
    "misspelt forced key": (["++norm.epss=1"], ["norm.epss", "norm.eps"]),
    "text for an integer": (["batch_size=abc"], ["batch_size", "abc", "Integer"]),
    "fraction for an integer": (["batch_size=1.5"], ["batch_size", "1.5", "Integer"]),
    "text for a number": (["norm.eps=small"], ["norm.eps", "small", "Float"]),
    "text for a switch": (["data.flip=perhaps"], ["data.flip", "perhaps", "bool"]),
    "number for a list": (["model.channels=3"], ["model.channels", "3", "[a,b]"]),
    "text in a list": (["model.hidden=[a]"], ["model.hidden", "Integer"]),
    "fraction in a list": (["model.channels=[16.5]"], ["model.channels", "16.5", "Integer"]),
    "nothing for a number": (["batch_size=null"], ["batch_size", "null", "not Optional"]),
    "unknown norm": (
        ["norm=gnn"],
        ["norm=gnn", "did you mean gn?", "bn, derf, dyt", "gn, in, keep, ln, ln2d, none"],
    ),
    "unknown model": (["model=resnet"], ["model=resnet", "resnet18, resnet20, simple_cnn"]),
    "unknown data": (["data=cifar"], ["data=cifar", "cifar10, cifar100, digits, image_folder"]),
    "unknown experiment": (["experiment=none_such"], ["experiment=none_such"]),
    "two choices": (["norm=[gn,bn]"], ["norm=[gn,bn]", "-m norm=gn,bn"]),
    "no choice": (["norm=null"], ["norm=null", "--help"]),
    "images too large": (["data.image_size=100000000", "data=synthetic"], ["data.image_size"]),
    "unprintable name": (["name='a\tb'"], ["name"]),
    "choice added": (["+norm=gn"], ["norm=gn"]),
    "unknown optimizer by name": (["optimizer.name=adm"], ["optimizer.name", "adm", "adamw"]),
    "unknown precision": (["precision=fp16"], ["precision", "fp16", "fp32, bf16"]),
    "unknown norm by name": (["norm.name=gnn"], ["norm=gnn: ", "gn", "module:function"]),
    "norm of one's own that is absent": (
        ["norm.name=none_such:build"], ["norm=none_such:build: ", "path"],
    ),
    "groups that do not divide": (
        ["norm=gn", "norm.num_groups=3"],
        ["norm.num_groups=3", "16 channels", "[1, 2, 4, 8, 16]", "norm.channels_per_group"],
    ),
    "group size that does not divide": (
        ["norm=gn", "norm.channels_per_group=5"],
        ["norm.channels_per_group=5", "16 channels", "[1, 2, 4, 8, 16]"],
    ),
    "groups that do not divide a later layer": (
        ["norm=gn", "norm.num_groups=16", "model.channels=[16,24]"],
        ["norm.num_groups=16 at norm2", "24 channels", "[1, 2, 3, 4, 6, 8, 12, 24]"],
    ),
    "groups that are no number": (["norm=gn", "norm.num_groups=many"], ["many", "number, auto"]),
    "a group of one value in each": (
        ["model=mlp", "norm=gn", "norm.num_groups=auto"], ["at norm2 (32 channels)", "one value"],
    ),
    "both group keys": (
        ["norm=gn", "norm.num_groups=4", "norm.channels_per_group=4"],
        ["norm.num_groups=4", "norm.channels_per_group=4", "one of them"],
    ),
    "a list in a list": (
        ["scheduler=step", "scheduler.milestones=[[1]]"], ["scheduler.milestones=[[1]]", "[a,b]"],
    ),
    "no groups": (["norm=gn", "norm.num_groups=0"], ["norm.num_groups=0", "greater than 0"]),
    "GN of single values": (
        ["model=mlp", "norm=gn", "norm.num_groups=32"], ["norm=gn", "one value", "norm.num_groups"],
    ),
    "IN in an MLP": (["model=mlp", "norm=in"], ["norm=in at norm1", "MLP", "norm=ln", "norm=gn"]),
    "IN on maps of one pixel": (
        ["norm=in", "model=deep_cnn", "data=synthetic", "data.image_size=4",
         "model.pool_after=[1,2]"],
        ["norm=in at norm3", "1x1", "model.pool_after", "norm=gn"],
    ),
    "BN in an MLP at batch 1": (
        ["model=mlp", "norm=bn", "batch_size=1"],
        ["norm=bn at norm1", "batch_size=1", "batch_size=2", "norm=ln"],
    ),
    "BN on maps of one pixel at batch 1": (
        ["norm=bn", "batch_size=1", "data=synthetic", "data.image_size=1", "model.pool_after=[]"],
        ["norm=bn", "batch_size=1", "batch_size=2"],
    ),
    "ghost batches that do not divide the batch": (
        ["norm=ghost_bn", "norm.ghost_batch_size=12", "batch_size=20"],
        ["norm.ghost_batch_size=12", "20 images", "[1, 2, 4, 5, 10, 20]"],
    ),
    "ghost batches of one value": (
        ["model=mlp", "norm=ghost_bn", "norm.ghost_batch_size=1"],
        ["norm.ghost_batch_size=1", "norm.ghost_batch_size=2"],
    ),
    "FRN on maps of one pixel": (
        ["norm=frn", "model=deep_cnn", "data=synthetic", "data.image_size=4",
         "model.pool_after=[1,2]"],
        ["norm=frn", "1x1", "model.pool_after", "norm=gn"],
    ),
    "RMS of one channel": (
        ["norm=rms", "model.channels=[1]", "model.pool_after=[]"], ["(1 channel", "norm=bn"],
    ),
    "EvoNorm on groups of one value": (
        ["model=mlp", "norm=evonorm_s0", "norm.num_groups=32"],
        ["norm=evonorm_s0", "one value", "norm.num_groups"],
    ),
    "weight standardization in an MLP": (
        ["model=mlp", "norm.weight_standardization=true"],
        ["norm.weight_standardization=true", "convolution"],
    ),
    "weight standardization without a norm": (
        ["norm=none", "norm.weight_standardization=true"],
        ["norm.weight_standardization=true", "norm=none", "norm=gn"],
    ),
    "a correction below 1": (["norm=batch_renorm", "norm.rmax=0.5"], ["norm.rmax=0.5", "1"]),
    "a negative correction": (["norm=batch_renorm", "norm.dmax=-1"], ["norm.dmax=-1", "least 0"]),
    "a warm-up in steps": (
        ["norm=batch_renorm", "norm.rmax_at=40000"], ["norm.rmax_at=40000", "fraction"],
    ),
    "a warm-up that ends before it begins": (
        ["norm=batch_renorm", "norm.renorm_from=0.5"], ["norm.rmax_at=0.3", "renorm_from=0.5"],
    ),
    "more pools than pixels": (
        ["model=deep_cnn", "data=synthetic", "data.image_size=4"],
        ["model.pool_after=[1, 2, 3]", "4x4", "2 pools"],
    ),
    "a pool after no convolution": (["model.pool_after=[3]"], ["model.pool_after=[3]", "1 to 2"]),
    "a pool twice": (["model.pool_after=[1,1]"], ["model.pool_after=[1, 1]", "once"]),
    "no convolution": (["model.channels=[]"], ["model.channels=[]", "at least one"]),
    "no width": (["model.hidden=[0]"], ["model.hidden=[0]", "greater than 0"]),
    "name above the output": (["name=../x"], ["name=../x", "output folder", "name=first"]),
    "name below and above": (["name=a/../../x"], ["name=a/../../x", "output folder"]),
    "name from the root": (["name=/x"], ["name=/x", "output folder"]),
    "empty name": (["name=''"], ["name=", "empty"]),
    "empty label": (["model.name=''"], ["model.name=", "empty"]),
    "name of the report's folder": (["name=report"], ["name=report", "use another name"]),
    "name of a folder of sweeps": (["name=a/.sweeps"], ["name=a/.sweeps", "use another name"]),
    "norm of Python itself": (["norm.name=os:system"], ["os:system", "no file", "MODULE.py"]),
    "neither epochs nor steps": (["epochs=null"], ["epochs=null", "epochs=N", "max_steps=N"]),
    "no rate": (["optimizer.lr=0"], ["optimizer.lr=0", "greater than 0"]),
    "rate that is no number": (["optimizer.lr=nan"], ["optimizer.lr=nan", "greater than 0"]),
    "infinite rate": (["optimizer.lr=inf"], ["optimizer.lr=inf"]),
    "one beta": (["optimizer.betas=[0.9]"], ["optimizer.betas=[0.9]", "2 values"]),
    "milestones in epochs": (
        ["scheduler=step", "scheduler.milestones=[3,6]"],
        ["scheduler.milestones", "[3.0, 6.0]", "fractions"],
    ),
    "all for validation": (["data.val_fraction=1"], ["data.val_fraction=1", "less than 1"]),
    "epochs beside steps": (["epochs=-1", "max_steps=9"], ["epochs=-1", "greater than 0"]),
    "endless epochs": ([f"epochs={10**12}"], [f"epochs={10**12}", "at most"]),
    "endless steps": ([f"max_steps={10**12}"], [f"max_steps={10**12}", "at most"]),
    "more threads than any machine has": (["threads=1000"], ["threads=1000", "at most 512"]),
    "a number for a switch": (["data.flip=7"], ["data.flip=7", "true or false"]),
    "a number for a switch of the norm": (["norm.affine=2"], ["norm.affine=2", "true or false"]),
    "padding beyond reason": (["data.crop_padding=1000000"], ["data.crop_padding", "at most 512"]),
    "a published figure that is none": (
        ["published=[{what:test_acc,value:nan,source:s}]"], ["published.value=nan", "finite"],
    ),
    "a published figure without a source": (
        ["published=[{what:test_acc,value:0.5,source:''}]"], ["published.source", "empty"],
    ),
    "an endless correction": (["norm=batch_renorm", "norm.dmax=inf"], ["norm.dmax=inf"]),
    "a value that norms do not read": (["norm=ln", "norm.momentum=7"], ["norm.momentum=7"]),
    "another setting that is not there": (
        ["batch_size=${nope}"], ["batch_size", "'nope' not found", "${oc.env:nope}"],
    ),
    "a folder for each run": (["hydra.job.chdir=true"], ["hydra.job.chdir=true", "leave it out"]),
    "a launcher that is not installed": (
        ["hydra/launcher=ray_aws"], ["hydra/launcher=ray_aws", "pip install 'normexp[ray]'"],
    ),
    "a sweeper that is not there": (["hydra/sweeper=optuna"], ["hydra/sweeper=optuna", "basic"]),
    "negative seed": (["seed=-1"], ["seed=-1", "0"]),
    "negative padding": (["data.crop_padding=-1"], ["data.crop_padding=-1", "at least 0"]),
    "nesterov without momentum": (
        ["optimizer=sgd", "optimizer.nesterov=true", "optimizer.momentum=0"],
        ["optimizer.nesterov=true", "optimizer.momentum"],
    ),
    "brackets that do not close": (["model.hidden=[1,2"], ["model.hidden=[1,2", "key=value"]),
    "a word alone": (["gn"], ["gn", "key=value"]),
    "values swept without -m": (["seed=0,1"], ["seed=0,1", "-m", "[a,b]"]),
    "choices swept without -m": (["norm=bn,gn"], ["norm=bn,gn", "-m"]),
    "a group removed": (["~norm"], ["norm.name", "norm.name=..."]),
}  # fmt: skip


def bounded() -> list[tuple[str, float]]:
    """A number beyond each bound that the schema has for a key."""
    beyond = []
    for key, item in schema.KEYS.items():
        facts = item.metadata
        if "most" in facts:
            beyond.append((key, facts["most"] + 1))
        for bound, step in (("above", 0), ("least", -1), ("below", 0)):
            if bound in facts:
                beyond.append((key, facts[bound] + step))
    return beyond


@pytest.mark.parametrize(("key", "value"), bounded())
def test_each_bound_of_the_schema_holds(key: str, value: float) -> None:
    config = Config()
    owner, _, leaf = key.rpartition(".")
    level = schema.get(config, owner) if owner else config
    before = getattr(level, leaf)
    given = [value] * len(before or [1]) if isinstance(before, list) else value
    setattr(level, leaf, given)
    # What has no default is of no matter here.
    config.optimizer.lr = given if key == "optimizer.lr" else 1.0  # type: ignore[assignment]
    with pytest.raises(UserError, match=re.escape(f"{key}={given}: ")):
        checks.check_values(config)


RANKS = [
    ("model=mlp batch_size=2", 2, "each of 2 processes has one value .*use batch_size=4 or more"),
    ("model=mlp batch_size=3", 3, "each of 3 processes has one value .*use batch_size=6 or more"),
    ("model=mlp norm=batch_renorm batch_size=2", 2, "use batch_size=4 or more"),
    ("model=mlp norm=ghost_bn batch_size=2", 2, "use batch_size=4 or more"),
    ("norm=ghost_bn norm.ghost_batch_size=4 batch_size=12", 2, r"each .* has 6 .*\[1, 2, 3, 6\]"),
    (
        "data=synthetic data.image_size=1 model.pool_after=[] batch_size=4", 4,
        "each of 4 processes has one value .*use batch_size=8 or more",
    ),
    ("model=mlp batch_size=2 accumulate_steps=8", 2, "use batch_size=4 or more"),
    ("norm=gn batch_size=5", 2, "2 processes cannot share it evenly; use a multiple of 2"),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "ranks", "named"), RANKS)
def test_processes_that_share_a_batch_are_told_the_batch_that_works(
    settings: str, ranks: int, named: str
) -> None:
    config = compose(settings.split())
    with pytest.raises(UserError, match=named):
        check(config, ranks)


@pytest.mark.parametrize("settings", ["norm=bn batch_size=2", "model=mlp norm=ln batch_size=2"])
def test_processes_with_one_image_each_may_have_values_enough(settings: str) -> None:
    check(compose(settings.split()), 2)


@pytest.mark.parametrize("what", REFUSED)
def test_refusals_name_the_key_the_value_and_the_fix(what: str) -> None:
    overrides, named = REFUSED[what]
    message = refusal(*overrides)
    assert [word for word in named if word not in message] == [], message


@settings(max_examples=25, deadline=None)
@given(key=st.sampled_from(leaves()), data=st.data())
def test_a_key_with_a_letter_too_few_or_too_many_is_refused(key: str, data: st.DataObject) -> None:
    start = key.rfind(".") + 1
    place = data.draw(st.integers(start, len(key) - 1))
    wrong = data.draw(st.sampled_from([key[:place] + key[place + 1 :], f"{key}q"]))
    if wrong == key[:start] or wrong in leaves():
        wrong = f"{key}q"
    assert f"{wrong}: no such key" in refusal(f"{wrong}=1")


IGNORED = {
    "norm=ln norm.num_groups=8": "norm.num_groups=8",
    "norm=bn norm.channels_per_group=8": "norm.channels_per_group=8",
    "norm=gn norm.momentum=0.5": "norm.momentum=0.5",
    "norm=none norm.eps=0.1": "norm.eps=0.1",
    "norm=none norm.affine=false": "norm.affine=False",
    "norm=bn norm.rmax=2": "norm.rmax=2.0",
    "norm=dyt norm.eps=0.1": "norm.eps=0.1",
    "optimizer=adam optimizer.momentum=0.5": "optimizer.momentum=0.5",
    "optimizer=sgd optimizer.betas=[0.5,0.5]": "optimizer.betas=[0.5, 0.5]",
    "optimizer.reference_batch=256": "optimizer.reference_batch=256",
    "scheduler=cosine scheduler.gamma=0.5": "scheduler.gamma=0.5",
    "scheduler=constant scheduler.final=0.5": "scheduler.final=0.5",
    "scheduler.warmup_start=0.5": "scheduler.warmup_start=0.5",
    "model=mlp model.channels=[8]": "model.channels=[8]",
    "data=cifar10 data.image_size=64": "data.image_size=64",
    "data=synthetic data.train_folder=x": "data.train_folder=x",
}


@pytest.mark.parametrize("asked", IGNORED)
def test_an_ignored_setting_is_said(asked: str) -> None:
    _, notes = settled(*asked.split())
    assert [note for note in notes if note.startswith(f"{IGNORED[asked]} is ignored")], notes
    assert len(notes) == 1


@pytest.mark.parametrize(
    "asked", ["norm=gn", "optimizer=sgd scheduler=one_cycle", "model=mlp data=synthetic"]
)
def test_nothing_is_said_of_settings_that_are_used(asked: str) -> None:
    assert settled(*asked.split())[1] == []


def test_steps_take_the_place_of_epochs() -> None:
    config = compose(["max_steps=7"])
    assert (config.epochs, config.max_steps) == (None, 7)


@pytest.fixture
def in_folder(tmp_path: Path) -> Callable[..., Any]:
    def run(*arguments: str, code: str | None = None) -> Any:
        return command(list(arguments), tmp_path, code)

    return run


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["batchsize=2"], ["batchsize", "batch_size"]),
        (["+data.rooot=x"], ["data.rooot", "data.root"]),
        (["batch_size=abc"], ["batch_size", "abc", "Integer"]),
        (["norm=gnn"], ["norm=gnn", "gn", "none"]),
        (["norm=gn", "norm.num_groups=3"], ["norm.num_groups=3", "16 channels", "8"]),
        (["name=../x"], ["name=../x", "output folder"]),
        (["--batch-size", "2"], ["--batch-size", "key=value"]),
        (["model.hidden=[1,2"], ["model.hidden=[1,2", "key=value"]),
        (["seed=0,1"], ["seed=0,1", "-m"]),
        (["hydra.foo=1"], ["hydra.foo"]),
        (["hydra.run.dir=here"], ["hydra.run.dir=here", "output=here"]),
        (["batch_size=${nope}"], ["batch_size", "nope"]),
        (["--config-name", "mine"], ["--config-name", "--config-dir"]),
        (["--config-dir", "mine"], ["--config-dir", "mine", "no such folder"]),
        (
            ["data=synthetic", "data.image_size=4096", "data.train_images=100000000"],
            ["data.train_images=100000000", "MiB of memory"],
        ),
    ],
)
def test_the_command_says_one_line_and_leaves_nothing(
    arguments: list[str], named: list[str], in_folder: Callable[..., Any], tmp_path: Path
) -> None:
    done = in_folder(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("normexp: error: ")
    assert [word for word in named if word not in lines[0]] == [], lines[0]
    assert list(tmp_path.iterdir()) == []


def test_a_norm_of_ones_own_is_one_line_of_yaml(
    in_folder: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "my_norms.py").write_text("def rms(channels, dims, norm): ...")
    (tmp_path / "conf" / "norm").mkdir(parents=True)
    (tmp_path / "conf" / "norm" / "mine.yaml").write_text("name: my_norms:rms\n")
    done = in_folder("--config-dir", "conf", "norm=mine", "--cfg", "job")
    assert done.stderr == ""
    assert "  name: my_norms:rms\n" in done.stdout
    refused = in_folder("--config-dir", "conf", "norm=mine", "batch_size=0")
    assert refused.stderr.startswith("normexp: error: batch_size=0")


@pytest.mark.parametrize("header", ["# @package _global_\n", "# @package _global_\n" + 9000 * "#"])
def test_a_preset_that_is_not_utf8_is_named(header: str, tmp_path: Path) -> None:
    preset = tmp_path / "experiment" / "mine.yaml"
    preset.parent.mkdir()
    preset.write_bytes(f"{header}\n# naïf\nbatch_size: 4\n".encode("latin-1"))
    message = refusal("experiment=mine", f"hydra.searchpath=[{tmp_path}]")
    assert message.startswith(f"{preset} is not UTF-8 text; save it as UTF-8")


@pytest.mark.parametrize("argument", ["norm.num_groups=3", "--help"])
def test_torch_is_not_imported_to_answer(argument: str, in_folder: Callable[..., Any]) -> None:
    code = (
        "import sys\nfrom normexp.train import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    status = end.code or 0\n"
        "else:\n    status = 0\n"
        "print('status', status, 'torch' in sys.modules)\n"
    )
    done = in_folder("norm=gn", argument, code=code)
    status = 0 if argument == "--help" else 2
    assert done.stdout.splitlines()[-1] == f"status {status} False", done.stderr


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ("data=synthetic data.train_images=60", "batch_size=64: there are 50 .* batch_size=50"),
        ("batch_size=300 accumulate_steps=200", "there are 45000 .* accumulate_steps = 45000"),
        ("data=synthetic data.train_images=9", "data.val_fraction=0.1: leaves no image of 9"),
        ("data.val_fraction=0.99999", "data.val_fraction=0.99999: leaves no image of 50000"),
        ("data.train_size=45001", "data.train_size=45001: there are 45000"),
        ("data=synthetic data.train_images=100000000000", "train_images=1000.* MiB of memory"),
    ],
)
def test_what_the_configuration_alone_tells_is_refused_before_images_are_there(
    settings: str, named: str
) -> None:
    with pytest.raises(UserError, match=named):
        refuse_unseen(compose(settings.split()))


def test_a_part_of_cifar10_may_be_all_there_is() -> None:
    refuse_unseen(compose(["data.verify=false", "batch_size=50000"]))


def test_an_error_can_be_shown_with_its_traceback(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "normexp.train", "name=../x"], cwd=tmp_path, capture_output=True,
        text=True, env={**os.environ, "PYTHONPATH": str(ROOT), "HYDRA_FULL_ERROR": "1"},
        timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "Traceback" in done.stderr
    assert UserError.__name__ in done.stderr
