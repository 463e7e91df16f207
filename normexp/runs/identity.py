"""A run's identity: the hash of what can change its result, and the name made of it."""

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from typing import Any

from normexp.config.schema import ADDED_SINCE, Config, outside_identity, to_dict
from normexp.runs.records import SCHEMA_VERSION


@dataclass(frozen=True)
class BesideConfig:
    """What tells runs of one configuration apart."""

    data_fingerprint: str = ""
    """Of the images' content, wherever they lie; empty for synthetic ones."""
    norm_source: str = ""
    """Hash of the source of a norm that is not of the catalogue; empty for those of it."""
    ranks: int = 1
    """How many processes share a batch, where the norm sees its share only."""
    model_source: str = ""
    """Hash of the source of a network of one's own and of the weights it begins with; empty where
    there is neither."""


def run_id(config: Config, beside: BesideConfig) -> str:
    """The name of a run: the same question asked twice has the same name.

    Args:
        config: settled, so that settings nobody reads have their defaults.
    """
    return _name(config, beside, {}, f"seed{config.seed}-")


def cell_id(config: Config, beside: BesideConfig) -> str:
    """The name of the runs that differ from one in nothing but their seed."""
    return _name(config, beside, {"seed": None}, "")


def _name(config: Config, beside: BesideConfig, changed: dict[str, Any], seed: str) -> str:
    asked = question(config)
    asked.update(asdict(beside), schema=SCHEMA_VERSION, **changed)
    if beside.ranks == 1:
        del asked["ranks"]  # as before several processes could train a run
    if not beside.model_source:
        del asked["model_source"]  # as before there were such networks
    digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:8]
    norm = re.sub(r"[^\w.]+", "_", config.norm.name)
    model = re.sub(r"[^\w.]+", "_", config.model.name)
    return f"{model}-{norm}-bs{config.batch_size}-{seed}{digest}"


def question(config: Config) -> dict[str, Any]:
    """The part of a configuration that a run's name is of."""
    return _without(to_dict(config), "", outside_identity(config))


def _without(tree: dict[str, Any], prefix: str, outside: frozenset[str]) -> dict[str, Any]:
    kept = {}
    for key, value in tree.items():
        name = prefix + key
        if name in outside or (name in ADDED_SINCE and value == ADDED_SINCE[name]):
            continue
        kept[key] = _without(value, f"{name}.", outside) if isinstance(value, dict) else value
    return kept
