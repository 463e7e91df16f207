"""config.yaml of a run, read and checked, by train and report alike."""

import sys
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import yaml

from normexp.config.schema import KEYS, Config, Measure, to_dict
from normexp.system.foreign_files import RECORD, read_text
from normexp.system.printable import printable

# The C parser is ten times as fast; not every build of PyYAML has it.
Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

NEEDED: dict[str, type] = {
    "norm.name": str, "model.name": str, "data.name": str, "batch_size": int, "seed": int,
}  # fmt: skip
"""Keys of a configuration without which there is no cell."""

IN_RESULT = {"norm.name": "norm", "model.name": "model", "batch_size": "batch_size", "seed": "seed"}
"""What result.json tells too, by key."""


MOST_NESTED = 20
"""Levels of lists and tables in a file; runs write four."""


class NotReadable(Exception):
    """A run directory holds something else than a run would write; the message says what."""


def read_config(path: Path, result: dict[str, Any]) -> dict[str, Any]:
    """The configuration of a run by dotted key; what an older one lacks has its default.

    Args:
        result: the contents of the run's result.json, empty while there is none.

    Raises:
        NotReadable: it is damaged, or not that of the result.
        OSError: as the disk does.
    """
    if not path.exists():
        raise NotReadable(f"{path.name} is not there, which says what was trained")
    try:
        text = read_text(path, RECORD)
        # Runs write none; of lists of lists of the same list more would come than memory holds.
        if "*" in text and any(
            isinstance(one, yaml.AliasEvent) for one in yaml.parse(text, Loader)
        ):
            raise NotReadable(f"{path.name} has aliases, and no run writes them")
        found = fit_for_use(yaml.load(text, Loader))
        given = flat(found) if isinstance(found, dict) else {}
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise NotReadable(f"{path.name} is no YAML ({' '.join(str(error).split())})") from error
    if not given:
        raise NotReadable(f"{path.name} is no configuration")
    for key, kind in NEEDED.items():
        if type(given.get(key)) is not kind:
            raise NotReadable(f"{path.name} has no {key}")
    for key, name in IN_RESULT.items():
        if result and given[key] != result[name]:
            raise NotReadable(f"{path.name} is of another run: {key} is {given[key]!r}")
    for key, value in given.items():
        if not _fits(key, value):
            raise NotReadable(f"{path.name}: {key} is {value!r}")
    if not all(map(_is_published, given.get("published") or [])):
        raise NotReadable(f"{path.name}: published is no list of figures")
    # An older configuration may lack a key: it had what is the default.
    return DEFAULTS | given


def _fits(key: str, value: Any) -> bool:
    """Whether a value is of the kind that its default is of, and the key one that has a value."""
    if isinstance(value, dict) or is_dataclass(KEYS[key].type if key in KEYS else None):
        return False
    if (above := key.rpartition(".")[0]) in KEYS and not is_dataclass(KEYS[above].type):
        return False
    # The value of a key that is unknown here, too, tells cells apart.
    nested = isinstance(value, list) and any(isinstance(each, list | dict) for each in value)
    if nested and key != "published":
        return False
    default = DEFAULTS.get(key)
    if key in KEYS and key not in DEFAULTS:  # has none: lr, and what its choice is called
        return isinstance(value, int | float if KEYS[key].type is float else str)
    if isinstance(default, int | float) and not isinstance(default, bool):
        return isinstance(value, int | float | None)
    if isinstance(default, list):
        return isinstance(value, list)
    return default is None or value is None or isinstance(value, type(default))


def _is_published(figure: Any) -> bool:
    return (
        isinstance(figure, dict)
        and figure.get("what") in list(Measure)
        and is_number(figure.get("value"))
        and isinstance(figure.get("where", {}), dict)
        and "source" in figure
    )


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) <= sys.float_info.max


def fit_for_use(value: Any, depth: int = 0) -> Any:
    """What a file holds, its texts printable: anyone may have written it.

    Raises:
        ValueError: it is nested too deeply, a number is larger than runs write,
            or a value is none that JSON has.
    """
    if depth > MOST_NESTED:
        raise ValueError("nested too deeply")
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, list):
        return [fit_for_use(each, depth + 1) for each in value]
    if isinstance(value, dict):
        return {fit_for_use(key): fit_for_use(each, depth + 1) for key, each in value.items()}
    if isinstance(value, int) and abs(value) >= 2**63:
        raise ValueError("a number is too large")
    if not isinstance(value, int | float | None):
        raise ValueError(f"{type(value).__name__}: {value}")  # YAML has dates, bytes and sets
    return value


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested configuration by dotted key."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


DEFAULTS = {key: value for key, value in flat(to_dict(Config())).items() if value != "???"}
