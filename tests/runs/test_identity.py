"""A run's identity: the same question has the same name, another question another."""

import copy
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from schema_keys import leaves

from normexp.config.schema import (
    CIFAR,
    Architecture,
    Checkpoint,
    Config,
    DataName,
    Device,
    Freeze,
    Head,
    LrRule,
    Measure,
    OnError,
    OptimizerName,
    Order,
    Precision,
    PublishedFigure,
    SchedulerName,
    Stem,
)
from normexp.norms.rules import source_digest
from normexp.runs.composing import compose, settle
from normexp.runs.identity import BesideConfig, run_id

# What the documentation promises to be outside of a run's identity.
OUTSIDE = {
    *("name", "output", "device", "threads", "channels_last", "deterministic"),
    *("checkpoint_minutes", "resume", "force", "on_error", "published"),
    *("seeds", "rates", "fuse", "compile", "diagnostics"),
    *("log.every", "log.progress", "log.quiet", "log.tensorboard", "log.histograms", "log.images"),
    *("report.time", "model.weights"),
    *("data.root", "data.url", "data.download", "data.verify", "data.cache"),
}

# A value for every key that no base below has.
ANOTHER: dict[str, Any] = {
    "model.name": "another", "model.architecture": Architecture.mlp, "model.channels": [8, 8, 8],
    "model.norm_from": 2, "model.order": Order.conv_relu_norm, "model.head": Head.average,
    "model.pool_after": [2], "model.hidden": [24], "model.bias": False,
    "model.stem": Stem.imagenet, "model.pretrained": True, "model.args": '{"depth": 3}',
    "model.weights": "weights.pt",
    "norm.name": "ln", "norm.num_groups": 2, "norm.channels_per_group": 2, "norm.eps": 1e-3,
    "norm.affine": False, "norm.momentum": 0.25, "norm.weight_standardization": True,
    "norm.ghost_batch_size": 2, "norm.rmax": 2.0, "norm.dmax": 2.0, "norm.renorm_from": 0.1,
    "norm.rmax_at": 0.9, "norm.dmax_at": 0.9, "norm.alpha_init": 0.9,
    "norm.freeze_at": 0.75,
    "data.name": DataName.synthetic, "data.root": "elsewhere", "data.url": "http://mirror",
    "data.download": False, "data.verify": False, "data.cache": "cached",
    "data.train_folder": "training", "data.test_folder": "testing", "data.image_size": 48,
    "data.val_folder": "validation", "data.test_fraction": 0.3,
    "data.seed": 1, "data.train_images": 999, "data.test_images": 99, "data.val_fraction": 0.25,
    "data.split_seed": 1, "data.train_size": 500, "data.test_size": 50, "data.flip": False,
    "data.crop_padding": 2,
    "data.normalize": False, "data.resized_crop": [0.5, 1.0], "data.rotation": 15.0,
    "optimizer.name": OptimizerName.adamw, "optimizer.lr": 0.02, "optimizer.weight_decay": 0.3,
    "optimizer.decay_norms": True, "optimizer.head_lr_factor": 2.0,
    "model.freeze": Freeze.backbone, "data.mean": [0.5, 0.5, 0.5], "data.std": [0.5, 0.5, 0.5],
    "optimizer.betas": [0.8, 0.9], "optimizer.eps": 1e-6, "optimizer.momentum": 0.8,
    "optimizer.nesterov": True, "optimizer.lr_rule": LrRule.sqrt, "optimizer.reference_batch": 7,
    "scheduler.name": SchedulerName.cosine, "scheduler.warmup": 0.2,
    "scheduler.warmup_start": 0.3, "scheduler.milestones": [0.4], "scheduler.gamma": 0.7,
    "scheduler.final": 0.6,
    "evaluate.batch_size": 77, "evaluate.checkpoint": Checkpoint.last,
    "evaluate.bn_stats": ["precise", "batch"], "evaluate.precise_samples": 777,
    "log.every": 7, "log.progress": False, "log.quiet": True,
    "log.tensorboard": False, "log.histograms": True,
    "log.images": 3, "report.time": False,
    "name": "another", "output": "another", "batch_size": 17, "epochs": 17, "max_steps": 17,
    "seed": 17, "label_smoothing": 0.1, "grad_clip": 1.5, "precision": Precision.bf16,
    "device": Device.cpu, "threads": 1, "channels_last": False, "deterministic": True,
    "checkpoint_minutes": 17.0, "resume": False, "force": True, "on_error": OnError.stop,
    "accumulate_steps": 3, "diagnostics": True,
    "published": [PublishedFigure(Measure.test_acc, 0.7, "a paper", {"norm": "bn"})],
    "seeds": 3, "rates": [0.1, 0.2], "fuse": "4", "compile": True,
}  # fmt: skip

BASES = {
    "cnn bn": ["data=image_folder", "scheduler=one_cycle"],
    "cnn gn": [
        "norm=gn", "data=cifar10", "optimizer=sgd", "optimizer.lr_rule=linear", "scheduler=step",
    ],
    "cnn none": ["norm=none", "data=synthetic", "optimizer=sgd", "optimizer.lr=0.5", "epochs=3"],
    "cnn ghost_bn": ["norm=ghost_bn"],
    "cnn batch_renorm": ["norm=batch_renorm"],
    "cnn dyt": ["norm=dyt"],
    "cnn frozen_bn": ["norm=frozen_bn", "norm.freeze_at=0.5"],
    "resnet18": ["model=resnet18"],
    "cnn precise": ["evaluate.bn_stats=precise"],
    "cnn gn precise": ["norm=gn", "evaluate.bn_stats=precise"],
    "mlp in steps": ["model=mlp", "norm=bn", "data=synthetic", "max_steps=100"],
}  # fmt: skip

MODEL_KEYS = [key for key in leaves() if key.startswith("model.")]
NORM_KEYS = [key for key in leaves() if key.startswith("norm.")]
EVALUATE_KEYS = [key for key in leaves() if key.startswith("evaluate.")]
ONLY = {
    **dict.fromkeys(("cnn ghost_bn", "cnn batch_renorm", "cnn dyt", "cnn frozen_bn"), NORM_KEYS),
    "resnet18": MODEL_KEYS,
    **dict.fromkeys(("cnn precise", "cnn gn precise"), EVALUATE_KEYS),
}
"""Bases for some keys alone."""

THE_SAME = {
    ("cnn none", "data.name"),
    ("mlp in steps", "data.name"),
    ("mlp in steps", "model.architecture"),
}
"""Bases that have the value of ANOTHER."""


def reads(config: Config, key: str) -> bool:
    """Whether a run with these choices reads a key, by what the key means."""
    norm, data, optimizer = config.norm.name, config.data.name, config.optimizer.name
    scheduler = config.scheduler
    rules = {
        "model.channels": config.model.architecture is Architecture.cnn,
        "model.pool_after": config.model.architecture is Architecture.cnn,
        "model.hidden": config.model.architecture in (Architecture.cnn, Architecture.mlp),
        "model.bias": config.model.architecture in (Architecture.cnn, Architecture.mlp),
        "model.stem": config.model.architecture is Architecture.resnet18,
        **dict.fromkeys(
            ("model.norm_from", "model.order", "model.head"),
            config.model.architecture is Architecture.cnn,
        ),
        "model.args": config.model.architecture is Architecture.named,
        "model.pretrained": config.model.architecture is Architecture.resnet18,
        "norm.num_groups": norm == "gn",
        "norm.channels_per_group": norm == "gn",
        "norm.eps": norm not in ("none", "dyt"),
        "norm.affine": norm != "none",
        "norm.momentum": norm in ("bn", "ghost_bn", "batch_renorm", "frozen_bn"),
        "norm.ghost_batch_size": norm == "ghost_bn",
        "norm.rmax": norm == "batch_renorm",
        "norm.dmax": norm == "batch_renorm",
        "norm.renorm_from": norm == "batch_renorm",
        "norm.rmax_at": norm == "batch_renorm",
        "norm.dmax_at": norm == "batch_renorm",
        "norm.alpha_init": norm == "dyt",
        "norm.freeze_at": norm == "frozen_bn",
        "data.train_folder": data is DataName.image_folder,
        "data.test_folder": data is DataName.image_folder,
        "data.val_folder": data is DataName.image_folder,
        "data.test_fraction": data is DataName.image_folder,
        "data.image_size": data not in CIFAR,
        "data.seed": data is DataName.synthetic,
        "data.train_images": data is DataName.synthetic,
        "data.test_images": data is DataName.synthetic,
        "optimizer.betas": optimizer is not OptimizerName.sgd,
        "optimizer.eps": optimizer is not OptimizerName.sgd,
        "optimizer.momentum": optimizer is OptimizerName.sgd,
        "optimizer.nesterov": optimizer is OptimizerName.sgd,
        "optimizer.reference_batch": config.optimizer.lr_rule is not LrRule.none,
        "scheduler.warmup_start": scheduler.warmup > 0,
        "scheduler.milestones": scheduler.name is SchedulerName.step,
        "scheduler.gamma": scheduler.name is SchedulerName.step,
        "scheduler.final": scheduler.name in (SchedulerName.cosine, SchedulerName.one_cycle),
        "epochs": config.max_steps is None,
        "evaluate.batch_size": config.evaluate.bn_stats != ["running"],
        "evaluate.bn_stats": norm in ("bn", "ghost_bn", "batch_renorm"),
        "evaluate.precise_samples": "precise" in config.evaluate.bn_stats,
    }
    return rules.get(key, True)


@cache
def composed(*overrides: str) -> Config:
    return compose(list(overrides))


def identity(config: Config) -> str:
    return run_id(config, BesideConfig("content of the images", source_digest(config.norm)))


def asked(*overrides: str) -> str:
    return identity(composed(*overrides))


def with_another(config: Config, key: str) -> Config:
    """The configuration with another value of one key, settled as the program does it."""
    changed = copy.deepcopy(config)
    owner: Any = changed
    *path, leaf = key.split(".")
    for part in path:
        owner = getattr(owner, part)
    assert getattr(owner, leaf) != ANOTHER[key]
    setattr(owner, leaf, ANOTHER[key])
    if key == "norm.channels_per_group":  # Stands in the place of the other key.
        changed.norm.num_groups = None
    if key == "model.architecture":  # The groups of a CNN may not fit.
        changed.model.hidden = [16]
    return settle(OmegaConf.structured(changed))[0]


def test_every_key_of_the_schema_is_tried() -> None:
    assert set(ANOTHER) == set(leaves())
    assert set(leaves()) >= OUTSIDE


@pytest.mark.parametrize(
    ("base", "key"),
    [
        (base, key)
        for base in BASES
        for key in ONLY.get(base, leaves())
        if (base, key) not in THE_SAME
    ],
)
def test_identity_follows_what_changes_the_result_and_nothing_else(base: str, key: str) -> None:
    config = composed(*BASES[base])
    same = key in OUTSIDE or not reads(config, key)
    assert (identity(with_another(config, key)) == identity(config)) is same


def test_the_same_question_has_the_same_name() -> None:
    again = compose(["seed=3", "norm=gn"])
    assert identity(again) == identity(compose(["norm=gn", "seed=3"]))


@pytest.mark.parametrize(
    ("implied", "explicit"),
    [
        ("norm=gn", "norm=gn norm.num_groups=4"),
        ("norm=gn", "norm=gn norm.num_groups=4 norm.channels_per_group=null"),
        ("", "norm=bn norm.eps=0.00001 norm.momentum=0.1 norm.affine=true"),
        ("", "model=simple_cnn batch_size=64 epochs=10 seed=0"),
        ("", "model.channels=[16,16] model.hidden=[] optimizer.betas=[0.9,0.999]"),
        ("optimizer.lr=1", "optimizer.lr=1.0"),
        ("grad_clip=1", "grad_clip=1.0"),
        ("max_steps=9", "max_steps=9 epochs=3"),
        ("data.flip=false", "data.flip=no"),
        ("scheduler=cosine", "scheduler=cosine scheduler.warmup=0"),
        ("evaluate.bn_stats=batch", "evaluate.bn_stats=[batch]"),
        ("norm=gn", "norm=gn evaluate.bn_stats=[precise,batch] evaluate.precise_samples=9"),
    ],
)
def test_an_explicit_default_is_an_implied_one(implied: str, explicit: str) -> None:
    assert asked(*implied.split()) == asked(*explicit.split())


def test_the_name_tells_model_norm_batch_and_seed() -> None:
    found = asked("norm=gn", "batch_size=2", "seed=5", "model=deep_cnn")
    assert re.fullmatch(r"deep_cnn-gn-bs2-seed5-[0-9a-f]{8}", found)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        (["norm=gn"], "simple_cnn-gn-bs64-seed0-09b2aef1"),
        (["model=mlp", "norm=ln", "data=synthetic"], "mlp-ln-bs64-seed0-d24fe557"),
        (["model=deep_cnn", "norm=none", "optimizer=sgd"], "deep_cnn-none-bs64-seed0-5e8067fb"),
    ],
)
def test_runs_keep_their_names_when_the_schema_grows(settings: list[str], name: str) -> None:
    """Finished runs are found again; a changed default or meaning is to change these names."""
    assert run_id(compose(settings), BesideConfig("content")) == name


def test_other_images_are_another_question() -> None:
    config = composed()
    some, other = BesideConfig("some images"), BesideConfig("other images")
    assert run_id(config, some) != run_id(config, other)


def test_zero_is_a_seed_like_any_other() -> None:
    assert len({asked(f"seed={seed}") for seed in range(5)}) == 5
    assert asked("seed=0") == asked()


@pytest.fixture
def own_norm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    """Writes a norm's file to the path and gives the setting that names it."""

    def write(source: str) -> list[str]:
        (tmp_path / "norm_whose_file_changes.py").write_text(source)
        monkeypatch.syspath_prepend(tmp_path)
        return ["norm.name=norm_whose_file_changes:build"]

    return write


def test_a_changed_norm_of_ones_own_is_another_question(
    own_norm: Callable[[str], list[str]],
) -> None:
    first = identity(compose(own_norm("def build(channels, dims, norm): return 1")))
    again = identity(compose(own_norm("def build(channels, dims, norm): return 1")))
    changed = identity(compose(own_norm("def build(channels, dims, norm): return 2")))
    assert first == again
    assert first != changed
    assert re.fullmatch(r"simple_cnn-[\w.]+-bs64-seed0-[0-9a-f]{8}", first)


@pytest.mark.parametrize("key", ["norm.num_groups=8", "norm.eps=0.1", "norm.momentum=0.3"])
def test_a_norm_of_ones_own_may_read_every_key_of_its_group(
    key: str, own_norm: Callable[[str], list[str]]
) -> None:
    name = own_norm("def build(channels, dims, norm): return 1")
    assert identity(compose(name)) != identity(compose([*name, key]))
