"""What is missing of a sweep, and the commands that would finish it."""

import itertools
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from hydra import compose, initialize_config_dir

from normexp import config as schema
from normexp.entry import settle
from normexp.recorded_config import flat
from normexp.report.cells import GROUPS, OF_THE_NORM, full_key, text
from normexp.report.read import Run
from normexp.run_records import FINAL

NOT_ASKED_AGAIN = ("resume", "force", "published", "seed", "seeds", "on_error")
"""Keys that a command to go on need not repeat; seeds are added on their own."""

MOST_OF_GRID = 2
"""A grid that has more than so many times the runs there are was not swept as a grid."""

OWN_COMMAND = "Of what has no run yet nothing is known here: the sweep's own command trains all."

Settings = dict[str, str]
Pairs = tuple[tuple[str, str], ...]
Combination = tuple[Pairs, tuple[str, ...]]
"""A norm with the settings of its own, and the values of the other keys that vary."""


@dataclass
class Grid:
    """The runs of one sweep: every norm, with the settings of its own, at all other values."""

    norms: list[Pairs]
    others: dict[str, list[str]]
    """Values of each other key that varies, the seed among them."""
    done: set[Combination] = field(default_factory=set)
    begun: set[Combination] = field(default_factory=set)

    @property
    def missing(self) -> set[Combination]:
        """Combinations without an answer: those begun, and those of a grid that are not there."""
        size = len(self.norms)
        for values in self.others.values():
            size *= len(values)
        if size > MOST_OF_GRID * len(self.begun | self.done):
            return self.begun - self.done
        rest = itertools.product(*self.others.values())
        return set(itertools.product(self.norms, rest)) - self.done


def commands(runs: list[Run]) -> tuple[list[str], int]:
    """Command lines that would train what has no answer; what is done is skipped by them.

    Returns:
        The lines, and how many runs they lack that were never begun.
    """
    sweeps: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        if run.config:
            folder = (text(run.config.get("output")), text(run.config.get("name")))
            sweeps.setdefault(folder, []).append(run)
    lines, never = [], 0
    for members in sweeps.values():
        asked = _asked(members)
        grid = _grid(members, asked)
        never += len(grid.missing - grid.begun)
        lines += _lines(grid, members, asked)
    return lines, never


def _asked(runs: list[Run]) -> list[Settings]:
    """The settings of each run; a key is written where it is not the default, and then by all
    runs, or by all of its norm if it is one of those that only norms read."""
    asked = [_settings(run.config) for run in runs]
    everywhere = {key for settings in asked for key in settings if not _of_norm(key)}
    own: dict[str | None, set[str]] = {}
    for settings in asked:
        own.setdefault(settings.get("norm"), set()).update(filter(_of_norm, settings))
    for run, settings in zip(runs, asked, strict=True):
        for key in everywhere | own[settings.get("norm")]:
            if key not in settings:
                settings[key] = _written(run.config.get(full_key(key)))
    return asked


def _grid(runs: list[Run], asked: list[Settings]) -> Grid:
    first = asked[0]
    varying = [
        key for key in first
        if not _of_norm(key) and not _outside(key) and any(one[key] != first[key] for one in asked)
    ]  # fmt: skip
    seeds = sorted({run.seed for run in runs})
    others = {key: _in_order([one[key] for one in asked]) for key in varying}
    grid = Grid(_norms(asked), {**others, "seed": [str(seed) for seed in seeds]})
    for run, one in zip(runs, asked, strict=True):
        combination = (_norm(one), (*(one[key] for key in varying), str(run.seed)))
        (grid.done if run.status in FINAL else grid.begun).add(combination)
    return grid


def _norm(settings: Settings) -> Pairs:
    return tuple(sorted((key, value) for key, value in settings.items() if _of_norm(key)))


def _norms(asked: list[Settings]) -> list[Pairs]:
    """Every norm with the settings of its own: those that are there, and what completes a grid of
    them; where a setting is null at times, as one of two that exclude each other, there is none."""
    by_keys: dict[tuple[str, ...], list[Pairs]] = {}
    for pairs in dict.fromkeys(map(_norm, asked)):
        kind = tuple(value if key in ("norm", "norm.name") else key for key, value in pairs)
        by_keys.setdefault(kind, []).append(pairs)
    found: list[Pairs] = []
    for group in by_keys.values():
        values = [list(dict.fromkeys(column)) for column in zip(*group, strict=True)]
        product = list(itertools.product(*values))
        whole = all(value != "null" for column in values for _, value in column)
        found += product if whole and len(product) <= MOST_OF_GRID * len(group) else group
    return found


def _lines(grid: Grid, runs: list[Run], asked: list[Settings]) -> list[str]:
    """A line for the missing combinations of all norms that have the same settings of their own."""
    known = grid.done | grid.missing
    lines = []
    for keys in dict.fromkeys(_keys(norm) for norm in grid.norms):
        same = [place for place, one in enumerate(asked) if _keys(_norm(one)) == keys]
        fused = any((runs[place].result.get("fused") or 1) > 1 for place in same)
        shared = {
            key: value for key, value in asked[same[0]].items()
            if key not in grid.others and not _of_norm(key)
        }  # fmt: skip
        missing = {_values(one) for one in grid.missing if _keys(one[0]) == keys}
        allowed = {_values(one) for one in known if _keys(one[0]) == keys}
        for box in _boxes(missing, allowed):
            wanted = dict(zip([*keys, *grid.others], map(_in_order, box), strict=True))
            lines.append(_line(wanted, shared, fused))
    return lines


def _keys(norm: Pairs) -> tuple[str, ...]:
    return tuple(key for key, _ in norm)


def _values(combination: Combination) -> tuple[str, ...]:
    norm, rest = combination
    return (*(value for _, value in norm), *rest)


def _boxes(
    missing: set[tuple[str, ...]], allowed: set[tuple[str, ...]]
) -> Iterator[list[list[str]]]:
    """The values of each key, as few times as can be, so that all of their combinations are allowed
    and every missing one is among them."""
    if not missing:
        return
    box = [sorted(set(column)) for column in zip(*missing, strict=True)]
    if allowed.issuperset(itertools.product(*box)):
        yield box
        return
    place = next(place for place, values in enumerate(box) if len(values) > 1)
    for value in box[place]:
        yield from _boxes({one for one in missing if one[place] == value}, allowed)


def _line(wanted: dict[str, list[str]], shared: Settings, fused: bool) -> str:
    if fused:
        wanted["seeds"] = [f"[{','.join(wanted.pop('seed'))}]"]
    sweep = any(len(values) > 1 for values in wanted.values())
    settings = {**{key: ",".join(values) for key, values in wanted.items()}, **shared}
    written = [shlex.quote(f"{key}={value}") for key, value in settings.items()]
    return " ".join(["python -m normexp.train", *(["-m"] if sweep else []), *written])


def _of_norm(key: str) -> bool:
    return key == "norm" or key.startswith("norm.") or key in OF_THE_NORM


def _in_order(values: list[str]) -> list[str]:
    distinct = list(dict.fromkeys(values))
    try:
        return sorted(distinct, key=float)
    except ValueError:
        return distinct


def _outside(key: str) -> bool:
    return key in schema.OUTSIDE_IDENTITY or key.partition(".")[0] in schema.OUTSIDE_IDENTITY


def _settings(config: dict[str, Any]) -> Settings:
    """What one would write after `normexp.train` to ask for this configuration, less its seed."""
    chosen = {}
    for group in GROUPS:
        name = str(config.get(f"{group}.name"))
        word = re.fullmatch(r"\w{1,64}", name)  # a foreign run's could lead elsewhere
        if word and (schema.conf_dir() / group / f"{name}.yaml").is_file():
            chosen[group] = name
    default = _composed(tuple(f"{group}={name}" for group, name in chosen.items()))
    plain = _composed(())
    settings = {
        group: name for group, name in chosen.items()
        if group == "norm" or name != plain[f"{group}.name"]
    }  # fmt: skip
    for key, value in config.items():
        if key in NOT_ASKED_AGAIN or key not in default or value == default[key]:
            continue
        if key == "epochs" and config.get("max_steps") is not None:
            continue
        settings[key] = _written(value)
    return settings


@cache
def _composed(overrides: tuple[str, ...]) -> dict[str, Any]:
    schema.register()
    with initialize_config_dir(str(schema.conf_dir()), version_base="1.3"):
        config, _ = settle(compose("config", list(overrides)))
    return flat(schema.to_dict(config))


def _written(value: Any) -> str:
    """A value in Hydra's grammar of overrides."""
    if isinstance(value, list):
        return "[" + ",".join(map(_written, value)) + "]"
    if isinstance(value, str) and not _plain(value):
        escaped = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"'{escaped}'"
    return text(value)


def _plain(word: str) -> bool:
    if re.fullmatch(r"0|[1-9]\d{0,17}", word):
        return True  # a number to Hydra, and the same word again where the schema has a text
    looks_otherwise = re.fullmatch(r"(?i)true|false|null|nan|inf|[-+\d._e]+", word)
    return bool(re.fullmatch(r"[\w./:-]+", word)) and not looks_otherwise
