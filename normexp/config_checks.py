"""What values of the configuration may be: unknown keys, unread settings, impossible values."""

import difflib
import math
from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from normexp.config import Architecture, Config, DataName, ModelConfig, Stem, get, to_dict
from normexp.errors import UserError
from normexp.run_directory import NOT_RUNS

# Keys that only some choices read: {key: (key of the choice, choices that read it)}.
READ_BY: dict[str, tuple[str, frozenset[str]]] = {
    "model.channels": ("model.architecture", frozenset({"cnn"})),
    "model.pool_after": ("model.architecture", frozenset({"cnn"})),
    "model.hidden": ("model.architecture", frozenset({"cnn", "mlp"})),
    "model.bias": ("model.architecture", frozenset({"cnn", "mlp"})),
    "model.stem": ("model.architecture", frozenset({"resnet18"})),
    "model.pretrained": ("model.architecture", frozenset({"resnet18"})),
    "data.url": ("data.name", frozenset({"cifar10"})),
    "data.cache": ("data.name", frozenset({"image_folder"})),
    "data.train_folder": ("data.name", frozenset({"image_folder"})),
    "data.test_folder": ("data.name", frozenset({"image_folder"})),
    "data.val_folder": ("data.name", frozenset({"image_folder"})),
    "data.test_fraction": ("data.name", frozenset({"image_folder"})),
    "data.image_size": ("data.name", frozenset({"image_folder", "synthetic"})),
    "data.seed": ("data.name", frozenset({"synthetic"})),
    "data.train_images": ("data.name", frozenset({"synthetic"})),
    "data.test_images": ("data.name", frozenset({"synthetic"})),
    "optimizer.betas": ("optimizer.name", frozenset({"adam", "adamw"})),
    "optimizer.eps": ("optimizer.name", frozenset({"adam", "adamw"})),
    "optimizer.momentum": ("optimizer.name", frozenset({"sgd"})),
    "optimizer.nesterov": ("optimizer.name", frozenset({"sgd"})),
    "optimizer.reference_batch": ("optimizer.lr_rule", frozenset({"linear", "sqrt"})),
    "scheduler.milestones": ("scheduler.name", frozenset({"step"})),
    "scheduler.gamma": ("scheduler.name", frozenset({"step"})),
    "scheduler.final": ("scheduler.name", frozenset({"cosine", "one_cycle"})),
}


def from_hydra(composed: DictConfig) -> Config:
    """Turn Hydra's composed configuration into a :class:`Config`.

    Raises:
        UserError: a key has no value, or is none of the schema (Hydra lets `+key=value` pass).
    """
    for key in _keys(composed):
        refuse_unknown(key)
    for key in sorted(OmegaConf.missing_keys(composed)):
        raise UserError(f"{key} has no value; give one: {key}=...")
    config = OmegaConf.to_object(composed)
    assert isinstance(config, Config)
    return config


def _keys(composed: DictConfig, prefix: str = "") -> Iterator[str]:
    for key in map(str, composed):
        yield f"{prefix}{key}"
        if not OmegaConf.is_missing(composed, key) and isinstance(composed[key], DictConfig):
            yield from _keys(composed[key], f"{prefix}{key}.")


def refuse_unknown(key: str) -> None:
    """Raise a UserError if a dotted key leaves the schema, with the keys known at that level."""
    level: Any = Config
    parts = key.split(".")
    for depth, part in enumerate(parts):
        part = part.partition("[")[0]
        known = {item.name: item.type for item in fields(level)}
        if key == "experiment":
            raise UserError("experiment: a preset begins with the line `# @package _global_`")
        if part not in known:
            prefix = "".join(f"{parent}." for parent in parts[:depth])
            keys = [*known] if depth else [*known, "experiment"]
            raise UserError(
                f"{prefix}{part}: no such key;{nearest(part, keys, prefix)} "
                f"known are {', '.join(keys)}"
            )
        if not is_dataclass(known[part]):
            path = ".".join(parts[: depth + 1])
            if depth + 1 < len(parts):
                raise UserError(f"{key}: nothing lies below {path}; write {path}=...")
            return
        level = known[part]


def nearest(given: str, known: Iterable[str], prefix: str = "") -> str:
    """A guess at what a person meant, or nothing."""
    near = difflib.get_close_matches(given, list(known), 1, cutoff=0.5)
    return f" did you mean {prefix}{near[0]}?" if near else ""


def set_aside_unread(config: Config) -> list[str]:
    """Reset what the choices made do not read, so that it cannot tell equal runs apart.

    Returns:
        One sentence for each setting that was given and is ignored.
    """
    notes = []
    defaults = Config()
    for key, (choice, readers) in READ_BY.items():
        chosen = str(to_dict(get(config, choice)))
        given, default = get(config, key), get(defaults, key)
        if chosen not in readers and given != default:
            owner, leaf = key.split(".")
            setattr(getattr(config, owner), leaf, default)
            notes.append(f"{key}={to_dict(given)} is ignored: {choice}={chosen} does not read it")
    if config.scheduler.warmup == 0 and config.scheduler.warmup_start != 0:
        notes.append(
            f"scheduler.warmup_start={config.scheduler.warmup_start} is ignored: scheduler.warmup=0"
        )
        config.scheduler.warmup_start = 0.0
    if config.max_steps is not None:
        config.epochs = None
    config.model.pool_after = sorted(config.model.pool_after)
    return notes


def _require(good: bool, key: str, value: Any, rule: str) -> None:
    if not good:
        raise UserError(f"{key}={value}: {rule}")


def check(config: Config) -> None:
    """Refuse values that no run could use, each with the key, the value and what would work.

    Raises:
        UserError: on the first such value.
    """

    def positive(*keys: str) -> None:
        for key in keys:
            value = get(config, key)
            if value is not None:
                good = value > 0 and math.isfinite(value)
                _require(good, key, value, "must be greater than 0")

    def fraction(*keys: str) -> None:
        for key in keys:
            value = get(config, key)
            _require(0 <= value < 1, key, value, "must be at least 0 and less than 1")

    positive("batch_size", "accumulate_steps", "epochs", "max_steps", "threads", "grad_clip")
    positive("norm.eps")
    positive("data.image_size", "data.train_images", "data.test_images", "data.train_size")
    positive("optimizer.lr", "optimizer.eps", "optimizer.reference_batch", "scheduler.gamma")
    positive("norm.channels_per_group", "norm.ghost_batch_size")
    positive("norm.alpha_init", "evaluate.batch_size", "log.every", "checkpoint_minutes")
    positive("evaluate.precise_samples")
    size = config.data.image_size
    _require(size <= 4096, "data.image_size", size, "must be at most 4096")
    fraction("data.val_fraction", "label_smoothing", "scheduler.warmup", "optimizer.momentum")
    share = config.data.test_fraction
    _require(share is None or 0 < share < 1, "data.test_fraction", share,
             "must be more than 0 and less than 1")  # fmt: skip
    if config.epochs is None and config.max_steps is None:
        raise UserError("epochs=null: give epochs=N or max_steps=N")
    for key in ("seed", "data.seed", "data.split_seed"):
        value = get(config, key)
        _require(0 <= value < 2**63, key, value, "must be from 0 to 2**63-1")
    for key in ("data.crop_padding", "log.images", "optimizer.weight_decay", "scheduler.final"):
        value = get(config, key)
        _require(0 <= value < math.inf, key, value, "must not be negative")
    seeds_of(config)
    number = config.fuse.isdecimal() and int(config.fuse) > 0
    _require(config.fuse == "auto" or number, "fuse", config.fuse,
             "must be auto, or the number of seeds to train at a time, 1 or more")  # fmt: skip
    _require(0 <= config.scheduler.warmup_start <= 1, "scheduler.warmup_start",
             config.scheduler.warmup_start, "must be from 0 to 1")  # fmt: skip
    momentum = config.norm.momentum
    _require(0 < momentum <= 1, "norm.momentum", momentum, "must be above 0 and at most 1")
    _check_groups(config)
    _check_renorm(config)
    _check_augmentation(config)
    betas = config.optimizer.betas
    _require(len(betas) == 2 and all(0 <= beta < 1 for beta in betas), "optimizer.betas", betas,
             "must be two numbers, each at least 0 and less than 1")  # fmt: skip
    if config.optimizer.nesterov and config.optimizer.momentum == 0:
        raise UserError("optimizer.nesterov=true needs optimizer.momentum above 0")
    stones = config.scheduler.milestones
    _require(all(0 < stone < 1 for stone in stones) and stones == sorted(stones),
             "scheduler.milestones", stones,
             "must be rising fractions of training, such as [0.3,0.6,0.9]")  # fmt: skip
    check_name(config.name)
    _check_model(config)
    for figure in config.published:
        for key in figure.where:
            refuse_unknown(key)


def seeds_of(config: Config) -> list[int]:
    """The seeds to train: those of ``seeds``, or else the one ``seed``.

    Raises:
        UserError: they cannot be used.
    """
    given = config.seeds
    if given is None:
        return [config.seed]
    if config.seed != Config().seed:
        raise UserError(f"seed={config.seed} and seeds={given}: give one of them, not both")
    rule = "must be a number of seeds from 1 to 1000, or a list of different ones such as [0,1,2]"
    seeds = list(range(given)) if type(given) is int and given <= 1000 else given
    good = isinstance(seeds, list) and len(seeds) > 0 and len(set(map(str, seeds))) == len(seeds)
    if not good or not all(type(seed) is int and 0 <= seed < 2**63 for seed in seeds):
        raise UserError(f"seeds={given}: {rule}")
    return seeds


def _check_groups(config: Config) -> None:
    groups = config.norm.num_groups
    for number in groups if isinstance(groups, list) else [groups]:
        _require(number is None or type(number) is int, "norm.num_groups", groups,
                 "must be a number, or a list with one for each norm, such as [4,8]")  # fmt: skip
        _require(number is None or number > 0, "norm.num_groups", groups, "must be greater than 0")


def _check_augmentation(config: Config) -> None:
    area, rotation = config.data.resized_crop, config.data.rotation
    _require(area is None or (len(area) == 2 and 0 < area[0] <= area[1] <= 1),
             "data.resized_crop", area,
             "must be null, or the range of the share of the area, such as [0.08,1]")  # fmt: skip
    _require(0 <= rotation <= 180, "data.rotation", rotation, "must be degrees from 0 to 180")


def _check_renorm(config: Config) -> None:
    norm = config.norm
    _require(1 <= norm.rmax < math.inf, "norm.rmax", norm.rmax, "must be at least 1")
    _require(0 <= norm.dmax < math.inf, "norm.dmax", norm.dmax, "must not be negative")
    start = norm.renorm_from
    _require(0 <= start <= 1, "norm.renorm_from", start, "must be a fraction of training, 0 to 1")
    for key in ("rmax_at", "dmax_at"):
        value = getattr(norm, key)
        _require(start <= value <= 1, f"norm.{key}", value,
                 f"must be a fraction of training from norm.renorm_from={start} to 1")  # fmt: skip


def check_name(name: str) -> None:
    """Refuse a name that would lead out of the output folder, that no file system takes, or where
    the report looks for no runs.

    Raises:
        UserError: it does.
    """
    parts = Path(name).parts
    good = parts and not Path(name).is_absolute() and ".." not in parts and name.isprintable()
    _require(
        bool(good), "name", name, "must be a folder below the output folder, such as name=first"
    )
    taken = NOT_RUNS.intersection(parts)
    _require(not taken, "name", name, f"{', '.join(taken)} is no place for runs; use another name")


def _check_model(config: Config) -> None:
    model = config.model
    for key in ("channels", "hidden"):
        widths = getattr(model, key)
        _require(all(width > 0 for width in widths), f"model.{key}", widths, "must be above 0")
    if model.architecture is Architecture.resnet18 and model.pretrained:
        _check_pretrained(model, config)
    if model.architecture is not Architecture.cnn:
        return
    _require(len(model.channels) > 0, "model.channels", model.channels,
             "a cnn needs at least one convolution, such as [16,16]")  # fmt: skip
    places, count = model.pool_after, len(model.channels)
    _require(all(1 <= place <= count for place in places) and len(set(places)) == len(places),
             "model.pool_after", places,
             f"must name convolutions from 1 to {count}, each once")  # fmt: skip
    size = config.data.image_size if config.data.name is not DataName.cifar10 else 32
    _require(size >> len(places) > 0, "model.pool_after", places,
             f"{size}x{size} images have room for {size.bit_length() - 1} pools")  # fmt: skip


def _check_pretrained(model: ModelConfig, config: Config) -> None:
    given, norm = "model.pretrained=true", config.norm
    _require(model.stem is Stem.imagenet, "model.pretrained", "true",
             "the weights are of the ImageNet stem; use model.stem=imagenet")  # fmt: skip
    if norm.name not in ("bn", "syncbn") or not norm.affine:
        affine = "" if norm.affine else " norm.affine=false"
        raise UserError(
            f"{given} norm={norm.name}{affine}: the weights were trained with BatchNorm, its "
            "scales and shifts; use norm=bn norm.affine=true, or model.pretrained=false"
        )
    if norm.weight_standardization:
        raise UserError(
            f"{given} norm.weight_standardization=true: the weights were trained without; use one "
            "of them"
        )
