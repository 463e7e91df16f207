"""What is missing of a sweep, and the commands that would finish it."""

import itertools
import re
import shlex
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from hydra import compose, initialize_config_dir

from normexp import config as schema
from normexp.entry import settle
from normexp.report.cells import GROUPS, OF_THE_NORM, text
from normexp.report.read import Run, flat
from normexp.run_directory import FINAL

NOT_ASKED_AGAIN = ("resume", "force", "published", "seed", "seeds", "on_error")
"""Keys that a command to go on need not repeat; seeds are added on their own."""

MOST_OF_GRID = 2
"""A grid that has more than so many times the runs there are was not swept as a grid."""

Settings = dict[str, str]


@dataclass
class Grid:
    """Runs whose settings name the same keys: those varying make a grid."""

    shared: Settings
    varying: dict[str, list[str]]
    """Values of each key that varies, the seed among them."""
    done: set[tuple[str, ...]] = field(default_factory=set)
    begun: set[tuple[str, ...]] = field(default_factory=set)
    fused: bool = False
    """Whether seeds of it were trained together."""

    @property
    def missing(self) -> set[tuple[str, ...]]:
        """Combinations without an answer: those begun, and those of a grid that are not there."""
        size = 1
        for values in self.varying.values():
            size *= len(values)
        if size > MOST_OF_GRID * (len(self.begun) + len(self.done)):
            return self.begun - self.done
        return set(itertools.product(*self.varying.values())) - self.done


def commands(runs: list[Run]) -> tuple[list[str], int]:
    """Command lines that would train what has no answer; what is done is skipped by them.

    Returns:
        The lines, and how many runs they lack that were never begun.
    """
    lines, never = [], 0
    for grid in _grids([run for run in runs if run.config]):
        missing = grid.missing
        never += len(missing - grid.begun)
        if missing:
            lines.append(_line(grid, missing))
    return lines, never


def _line(grid: Grid, missing: set[tuple[str, ...]]) -> str:
    wanted = {}
    for place, (key, values) in enumerate(grid.varying.items()):
        needed = {combination[place] for combination in missing}
        wanted[key] = [value for value in values if value in needed]
    if grid.fused:
        wanted["seeds"] = [f"[{','.join(wanted.pop('seed'))}]"]
    sweep = any(len(values) > 1 for values in wanted.values())
    settings = {**{key: ",".join(values) for key, values in wanted.items()}, **grid.shared}
    written = [shlex.quote(f"{key}={value}") for key, value in settings.items()]
    return " ".join(["python -m normexp.train", *(["-m"] if sweep else []), *written])


def _grids(runs: list[Run]) -> list[Grid]:
    asked = [_settings(run.config) for run in runs]
    # A key is written where it is not the default; all runs of a norm then write the same keys.
    groups: dict[str | None, list[int]] = {}
    for place, settings in enumerate(asked):
        groups.setdefault(settings.get("norm"), []).append(place)
    everywhere = {key for settings in asked for key in settings if not _of_norm(key)}
    by_keys: dict[tuple[str, ...], list[int]] = {}
    for places in groups.values():
        own = {key for place in places for key in asked[place] if _of_norm(key)}
        for place in places:
            for key in everywhere | own:
                if key not in asked[place]:
                    asked[place][key] = _written(runs[place].config.get(key))
            by_keys.setdefault(tuple(sorted(asked[place])), []).append(place)
    return [_grid([(runs[place], asked[place]) for place in places]) for places in by_keys.values()]


def _of_norm(key: str) -> bool:
    return key.startswith("norm.") or key in OF_THE_NORM


def _grid(members: list[tuple[Run, Settings]]) -> Grid:
    first = members[0][1]
    keys = [key for key in first if any(one[key] != first[key] for _, one in members)]
    identity = [key for key in keys if not _outside(key)]
    seeds = sorted({run.seed for run, _ in members})
    values = {key: _in_order([one[key] for _, one in members]) for key in identity}
    grid = Grid(
        {key: value for key, value in first.items() if key not in identity},
        {**values, "seed": [str(seed) for seed in seeds]},
    )
    for run, one in members:
        combination = (*(one[key] for key in identity), str(run.seed))
        (grid.done if run.status in FINAL else grid.begun).add(combination)
        grid.fused |= (run.result.get("fused") or 1) > 1
    return grid


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
        if (schema.conf_dir() / group / f"{name}.yaml").is_file():
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
    looks_otherwise = re.fullmatch(r"(?i)true|false|null|nan|inf|[-+\d._e]+", word)
    return bool(re.fullmatch(r"[\w./:-]+", word)) and not looks_otherwise
