"""What values of the configuration may be: unknown keys, unread settings, impossible values."""

import difflib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf

from normexp.config.schema import (
    KEYS,
    READ_BY,
    Architecture,
    Config,
    ModelConfig,
    Stem,
    get,
    side,
    to_dict,
)
from normexp.system.errors import UserError

NOT_RUNS = frozenset({"report", "checkpoints", ".sweeps", "cells", ".cells"})
"""Folders among and in those of runs that are none."""


def from_hydra(composed: DictConfig) -> Config:
    """Turn Hydra's composed configuration into a :class:`Config`.

    Raises:
        UserError: a key has no value or one that no run could use, or is none of the schema
            (Hydra lets `+key=value` pass).
    """
    args = OmegaConf.select(composed, "model.args")
    if isinstance(args, DictConfig):  # a text from here on, the same for the same arguments
        plain = OmegaConf.to_container(args, resolve=True)
        OmegaConf.update(composed, "model.args", json.dumps(plain, sort_keys=True), merge=False)
    # As plain values: a walk through OmegaConf's takes ten times as long.
    for key, value in _items(OmegaConf.to_container(composed)):
        if key not in KEYS and "[" not in key:  # what lies in a list has a type of its own
            refuse_unknown(key)
        if value == MISSING:
            raise UserError(f"{key} has no value; give one: {key}=...")
    config = OmegaConf.to_object(composed)
    assert isinstance(config, Config)
    check_values(config)
    return config


def _items(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        yield f"{prefix}{key}", value
        if isinstance(value, dict):
            yield from _items(value, f"{prefix}{key}.")
        for place, entry in enumerate(value if isinstance(value, list) else ()):
            if isinstance(entry, dict):
                yield from _items(entry, f"{prefix}{key}[{place}].")


def refuse_unknown(key: str) -> None:
    """Raise a UserError if a dotted key leaves the schema, with the keys known at that level."""
    level: Any = Config
    parts = key.split(".")
    for depth, part in enumerate(parts):
        part = part.partition("[")[0]
        known = {item.name: item.type for item in fields(level)}
        if key == "experiment" or "@experiment" in key:
            raise UserError("experiment: a preset begins with the line `# @package _global_`")
        if part not in known:
            prefix = "".join(f"{parent}." for parent in parts[:depth])
            keys = [*known] if depth else [*known, "experiment"]
            below = [name for name in KEYS if name.rpartition(".")[2] == part]
            guess = f" did you mean {' or '.join(below)}?" if below else nearest(part, keys, prefix)
            raise UserError(f"{prefix}{part}: no such key;{guess} known are {', '.join(keys)}")
        if not is_dataclass(known[part]):
            path = ".".join(parts[: depth + 1])
            if depth + 1 < len(parts):
                raise UserError(f"{key}: nothing lies below {path}; write {path}=...")
            return
        level = known[part]


def refuse_number_for_switch(key: str, values: Iterable[Any]) -> None:
    """Raise a UserError for numbers but 0 and 1 where a key is true or false: OmegaConf takes them
    all."""
    if KEYS[key].type is bool:
        for value in values:
            if type(value) in (int, float) and value not in (0, 1):
                raise UserError(f"{key}={value}: must be true or false")


def nearest(given: str, known: Iterable[str], prefix: str = "") -> str:
    """A guess at what a person meant, or nothing."""
    near = difflib.get_close_matches(given.lower(), list(known), 1, cutoff=0.5)
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


BOUNDS = {"above": "greater than", "least": "at least", "most": "at most", "below": "less than"}


def check_values(level: Any, prefix: str = "") -> None:
    """Refuse what the schema says of each key alone that it cannot be.

    Args:
        level: a configuration, or a part of one whose keys begin with ``prefix``.

    Raises:
        UserError: on the first such value.
    """
    for item in fields(level):
        given, facts = getattr(level, item.name), item.metadata
        key, several = f"{prefix}{item.name}", isinstance(given, list)
        if several and len(given) != facts.get("length", len(given)):
            raise UserError(f"{key}={given}: must be {facts['length']} values")
        for value in given if several else [given]:
            if is_dataclass(value):
                check_values(value, f"{key}.")
            elif several and isinstance(value, list | dict):
                raise UserError(f"{key}={to_dict(given)}: each must be one value, as in [a,b]")
            elif isinstance(value, str):
                _require(value.strip() != "", key, "", "must not be empty")
            elif isinstance(value, int | float):
                bounds = " and ".join(
                    f"{BOUNDS[kind]} {facts[kind]}" for kind in BOUNDS if kind in facts
                )
                rule = f"{'each ' if several else ''}must be {bounds or 'a finite number'}"
                _require(_is_within(value, facts), key, to_dict(given), rule)


def _is_within(value: float, facts: Mapping[str, Any]) -> bool:
    """Whether a number is finite and within the bounds that are among the facts."""
    least, most = facts.get("least", -math.inf), facts.get("most", math.inf)
    above, below = facts.get("above", -math.inf), facts.get("below", math.inf)
    return abs(value) < math.inf and least <= value <= most and above < value < below


def check(config: Config) -> None:
    """Refuse values that no run could use, each with the key, the value and what would work.

    Raises:
        UserError: on the first such value.
    """
    check_values(config)
    if config.epochs is None and config.max_steps is None:
        raise UserError("epochs=null: give epochs=N or max_steps=N")
    seeds_of(config)
    rates_of(config)
    number = config.fuse.isdecimal() and int(config.fuse) > 0
    _require(config.fuse == "auto" or number, "fuse", config.fuse,
             "must be auto, or the number of runs to train at a time, 1 or more")  # fmt: skip
    _check_groups(config)
    _check_renorm(config)
    area = config.data.resized_crop
    _require(area is None or (len(area) == 2 and 0 < area[0] <= area[1] <= 1),
             "data.resized_crop", area,
             "must be null, or the range of the share of the area, such as [0.08,1]")  # fmt: skip
    data = config.data
    if (data.mean is None) != (data.std is None) or (data.mean is not None and not data.normalize):
        raise UserError(
            f"data.mean={data.mean} data.std={data.std} data.normalize={data.normalize}: give mean "
            "and std together, with data.normalize=true, or none of them"
        )
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


def rates_of(config: Config) -> list[float]:
    """The learning rates to train with: those of ``rates``, or else ``optimizer.lr``.

    Raises:
        UserError: they cannot be used.
    """
    given = config.rates
    if given is None:
        return [config.optimizer.lr]
    known = given if isinstance(given, list) else []
    numbers = [float(one) for one in known if type(one) in (int, float) and 0 < one < math.inf]
    if not known or len(numbers) < len(known) or len(set(numbers)) < len(numbers):
        rule = "must be a list of different numbers above 0, such as [1e-4,3e-4,1e-3]"
        raise UserError(f"rates={given}: {rule}")
    return numbers


def _check_groups(config: Config) -> None:
    groups = config.norm.num_groups
    for number in groups if isinstance(groups, list) else [groups]:
        if number not in (None, "auto"):
            rule = "must be a number, auto, or a list with one for each norm, such as [4,8]"
            _require(type(number) is int, "norm.num_groups", groups, rule)
            _require(number > 0, "norm.num_groups", groups, "must be greater than 0")


def _check_renorm(config: Config) -> None:
    start = config.norm.renorm_from
    for key in ("rmax_at", "dmax_at"):
        value = getattr(config.norm, key)
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
    _require(model.norm_from <= count, "model.norm_from", model.norm_from,
             f"there are {count} convolutions, so give at most {count}, or norm=none")  # fmt: skip
    size = side(config.data.name, config.data.image_size)
    _require(size >> len(places) > 0, "model.pool_after", places,
             f"{size}x{size} images have room for {size.bit_length() - 1} pools")  # fmt: skip


def _check_pretrained(model: ModelConfig, config: Config) -> None:
    given, norm = "model.pretrained=true", config.norm
    _require(model.stem is Stem.imagenet, "model.pretrained", "true",
             "the weights are of the ImageNet stem; use model.stem=imagenet")  # fmt: skip
    if norm.name not in ("bn", "syncbn", "frozen_bn") or not norm.affine:
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
