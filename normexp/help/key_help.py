"""What `python -m normexp.train --help` says of each key: the docstrings of the schema's fields."""

import ast
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import Field, fields, is_dataclass
from enum import Enum
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from hydra._internal.hydra import Hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from omegaconf import DictConfig, OmegaConf

from normexp.config import schema
from normexp.config.schema import Config
from normexp.norms.catalogue import CATALOGUE

WIDTH, COLUMN = 80, 32  # characters of a line, and where explanations begin
FEW = 4  # norms that read a setting are named where they are fewer


class _WhenNamed:
    """A text that is made when it is asked for."""

    def __init__(self, make: Callable[[], str]) -> None:
        self.make = make

    def __str__(self) -> str:
        return self.make()


def register() -> None:
    """Let Hydra's template of the help name the lists below, and make Hydra's own lists of groups,
    which take it a second, only where a template names them."""
    OmegaConf.register_new_resolver("normexp_keys", keys, replace=True)
    listed: Any = Hydra.format_config_groups
    if not hasattr(listed, "later"):

        def later(self: Hydra, *arguments: Any) -> Any:
            return _WhenNamed(lambda: listed(self, *arguments))

        later.later = True  # type: ignore[attr-defined]
        Hydra.format_config_groups = later  # type: ignore[assignment, method-assign]


def keys(*, _root_: DictConfig) -> str:
    """All keys by group, each with its value in a composed configuration and what it means."""
    groups = _choices()
    top = [item for item in fields(Config) if not is_dataclass(item.type)]
    lines = [_choice("experiment", groups.pop("experiment"))]
    for item in fields(Config):
        if is_dataclass(item.type):
            lines += ["", _choice(item.name, groups.get(item.name, []))]
            lines += _explained(item.type, fields(item.type), _root_, f"{item.name}.")
    # Last, and so in sight when a terminal has scrolled, what is asked for most.
    text = "\n".join([*lines, "", "of the run:", *_explained(Config, top, _root_)])
    return text.replace("$", "$$")  # Hydra's template takes $NAME for its own.


def _choices() -> dict[str, list[str]]:
    """The groups and their choices, those of --config-dir too."""
    loader = GlobalHydra.instance().config_loader()
    groups = [name for name in loader.list_groups("") if name != "hydra"]
    return {name: sorted(loader.get_group_options(name, ObjectType.CONFIG)) for name in groups}


def _choice(group: str, choices: list[str]) -> str:
    line = f"{group}=NAME, one of {', '.join(choices)}" if choices else f"{group}:"
    return textwrap.fill(line, WIDTH, subsequent_indent="  ", break_on_hyphens=False)


def _explained(
    level: Any,
    items: "tuple[Field[Any], ...] | list[Field[Any]]",
    root: DictConfig,
    prefix: str = "",
) -> Iterator[str]:
    for item in items:
        value = schema.to_dict(OmegaConf.select(root, prefix + item.name))
        if OmegaConf.is_config(value):
            value = OmegaConf.to_container(value)
        meaning = meanings()[level.__name__].get(item.name, "")
        if isinstance(item.type, type) and issubclass(item.type, Enum):
            names = [choice.value for choice in item.type]
            if not all(name in meaning for name in names):
                meaning = f"{meaning.rstrip('.')}: {', '.join(names)}."
        readers = [n for n, facts in CATALOGUE.items() if item.name in facts.settings]
        if prefix == "norm." and 0 < len(readers) < FEW:
            meaning = f"{meaning.rstrip('.')} ({', '.join(readers)})."
        yield _aligned(f"  {prefix}{item.name}={_written(value)}", meaning)


def _aligned(setting: str, meaning: str) -> str:
    own_line = len(setting) + 2 > COLUMN
    text = textwrap.fill(
        meaning, WIDTH, initial_indent=" " * COLUMN, subsequent_indent=" " * COLUMN,
        break_on_hyphens=False,
    )  # fmt: skip
    return f"{setting}\n{text}" if own_line else setting.ljust(COLUMN) + text.lstrip()


def _written(value: Any) -> str:
    flow = yaml.safe_dump(value, default_flow_style=True, width=1000)
    return flow.removesuffix("...\n").strip().replace(", ", ",")


@cache
def meanings() -> dict[str, dict[str, str]]:
    """The docstring under each field that has one, by the name of its class; on one line each."""
    module = ast.parse(Path(schema.__file__).read_text(encoding="utf-8"))
    return {
        owner.name: dict(_documented(owner.body))
        for owner in module.body
        if isinstance(owner, ast.ClassDef)
    }


def _documented(body: list[ast.stmt]) -> Iterator[tuple[str, str]]:
    for statement, after in pairwise(body):
        match statement, after:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(ast.Constant(str(text))):
                yield name, " ".join(text.split())
