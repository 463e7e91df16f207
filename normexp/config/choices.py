"""Choices of the groups of conf/: norms of one's own among them, and names that only they have."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import yaml
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf

from normexp.config.schema import Architecture, Config, conf_dir, to_dict
from normexp.system.errors import UserError

GROUPS = ("model", "norm", "data", "optimizer", "scheduler")


class OwnChoices(ConfigSource):
    """Where Hydra finds `norm=module:function` and `model=torchvision:NAME` or `module:function`,
    which no file describes: their names say it all."""

    @staticmethod
    def scheme() -> str:
        return "own"

    def load_config(self, config_path: str) -> ConfigResult:
        group, _, name = config_path.partition("/")
        content = OmegaConf.create({"name": name})
        if group == "model":
            content.architecture = Architecture.named.value
        return ConfigResult(self.provider, self.full_path(), content, {"package": None})

    def is_group(self, config_path: str) -> bool:
        return False

    def is_config(self, config_path: str) -> bool:
        return config_path.startswith(("norm/", "model/")) and ":" in config_path

    def available(self) -> bool:
        return True

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        return []


class OwnChoicesPath(SearchPathPlugin):
    """Has Hydra look there, last."""

    def manipulate_search_path(self, search_path: Any) -> None:
        search_path.append("normexp", "own://")


@cache
def register() -> None:
    """Put the schema where the defaults list of conf/config.yaml finds it, and norms of one's own
    where `norm=module:function` does."""
    ConfigStore.instance().store(name="schema", node=Config)
    Plugins.instance().register(OwnChoices)
    Plugins.instance().register(OwnChoicesPath)


def is_packaged(group: str, name: str) -> bool:
    """Whether a file of conf/ describes a choice."""
    return "/" not in name and (conf_dir() / group / f"{name}.yaml").is_file()


def refuse_name_of_choice(override: Override, values: Sequence[Any]) -> None:
    """Refuse a key that names a choice where it is given such a name: that alone chooses nothing.

    Args:
        values: of the override, one or those of a sweep.

    Raises:
        UserError: says what to write instead.
    """
    group, _, leaf = override.key_or_group.partition(".")
    if leaf == "name" and any(
        is_packaged(group, str(value)) or (group == "model" and ":" in str(value))
        for value in values
    ):
        given = ",".join(map(str, values))
        raise UserError(f"{group}.name={given}: names a choice of {group}; write {group}={given}")


def refuse_past_group(composed: DictConfig, chosen: Mapping[str, str]) -> None:
    """Refuse a configuration that is called after a choice and is another: a key that names the
    choice was set past its group, on the command line or by a preset.

    Args:
        chosen: of each group, as Hydra records them.

    Raises:
        UserError: says what to write instead.
    """
    files = _files()
    for group in GROUPS:
        choice, name = chosen.get(group), to_dict(OmegaConf.select(composed, f"{group}.name"))
        if name in (None, choice) or ":" in name or not files.config_exists(f"{group}/{name}"):
            continue
        # Another name than its own may stand in a file, such as `name: sgd` in my_sgd.yaml.
        loaded = files.load_config(f"{group}/{choice}")
        if loaded is not None and loaded.config.get("name") != name:
            raise UserError(
                f"{group}.name={name}: the choice is {group}={choice}; write {group}={name} (in a "
                f"preset `override /{group}: {name}` among its defaults)"
            )
    name, given = (
        to_dict(OmegaConf.select(composed, f"model.{key}")) for key in ("name", "architecture")
    )
    if given and name and is_packaged("model", name) and _architecture(name) != given:
        raise UserError(
            f"model.architecture={given}: {name} is another network; write model="
            f"{given if is_packaged('model', given) else '...'}, or give yours a name of its own, "
            "model.name=..."
        )


def _files() -> Any:
    """What finds the file of a choice, with the folders of this command line."""
    loader: Any = GlobalHydra.instance().config_loader()
    return loader.repository


@cache
def _architecture(model: str) -> str:
    found = yaml.safe_load((conf_dir() / "model" / f"{model}.yaml").read_text(encoding="utf-8"))
    return str(found["architecture"])


def refuse_sweep_of_sweeps(overrides: Sequence[Override]) -> None:
    """Refuse a sweep over presets of which one has settings for Hydra: only those of a preset that
    stands alone reach it.

    Args:
        overrides: with a loader of configurations.

    Raises:
        UserError: says which commands work.
    """
    files = _files()
    for override in overrides:
        if override.key_or_group != "experiment" or not override.is_sweep_override():
            continue
        names = [*override.sweep_string_iterator()]
        for name in names:
            loaded = files.load_config(f"experiment/{name}")
            own = {} if loaded is None else loaded.config.get("hydra") or {}
            if set(own) - {"mode"}:
                alone = ", ".join(f"experiment={each}" for each in names)
                raise UserError(
                    f"{override.input_line}: {name} is a sweep of its own; start a command for "
                    f"each, {alone}"
                )
