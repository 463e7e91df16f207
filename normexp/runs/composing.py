"""Composing conf/ to the configuration of a run, and refusing what cannot work."""

from collections.abc import Mapping

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict

from normexp.config import checks, choices, schema
from normexp.config.own_code import own_file
from normexp.config.schema import Config
from normexp.config.settings import prepare
from normexp.models.plan import norm_sites
from normexp.models.source import is_own
from normexp.norms import bn_stats, rules
from normexp.system.errors import UserError


def compose(overrides: list[str]) -> Config:
    """Compose, type-check and settle a configuration as `normexp.train` does.

    Raises:
        UserError, HydraException, OmegaConfBaseException: as
            :func:`normexp.config.one_line.one_line_errors` shows them.
    """
    config = read(overrides)
    check(config)
    return config


def read(overrides: list[str]) -> Config:
    """As :func:`compose`, but whether the values can work together is not checked."""
    choices.register()
    with initialize_config_dir(str(schema.conf_dir()), version_base="1.3"):
        composed = hydra_compose("config", prepare(overrides), return_hydra_config=True)
        chosen = composed.hydra.runtime.choices
        with open_dict(composed):
            del composed["hydra"]
        config, _ = settle(composed, chosen)
    return config


def settle(
    composed: DictConfig, chosen: Mapping[str, str] | None = None
) -> tuple[Config, list[str]]:
    """The configuration as it will be read, and a sentence for each setting that it ignores.

    Args:
        chosen: of each group, as Hydra records them; by default those of the job that runs.

    Raises:
        UserError: a key is unknown, or has no value or one that no run could use.
    """
    if chosen is None and HydraConfig.initialized():
        chosen = HydraConfig.get().runtime.choices
    if chosen is not None:
        choices.refuse_past_group(composed, chosen)
    config = checks.from_hydra(composed)
    notes = checks.set_aside_unread(config) + rules.settle(config.norm)
    return config, notes + bn_stats.settle(config)


def check(config: Config, ranks: int = 1) -> None:
    """Refuse a run that cannot work, before data is read.

    Args:
        ranks: how many processes share a batch.

    Raises:
        UserError: names the key, what was given and what would work.
    """
    checks.check(config)
    rules.check_statistics(config.norm, config.model)
    named = config.model.architecture is schema.Architecture.named
    _check_named(config, named)
    # Where the norms of a network by name stand is looked at once torch is there.
    sites = [] if named else norm_sites(config.model, image_size(config))
    rules.check(config.norm, sites, config.batch_size, ranks)
    bn_stats.check(config, sites, ranks)
    if config.batch_size % ranks:
        raise UserError(
            f"batch_size={config.batch_size}: {ranks} processes cannot share it evenly; use a "
            f"multiple of {ranks}"
        )


def _check_named(config: Config, named: bool) -> None:
    """Refuse what only networks by name have, and what they have not; what is no name at all."""
    model, norm = config.model, config.norm
    if not named:
        if norm.name == rules.KEEP:
            raise UserError(
                f"norm=keep model={model.name}: this network has no norms of its own; keep is for "
                "networks by name, such as model=torchvision:resnet18"
            )
        return
    if is_own(model):
        own_file("model", model.name)
    if norm.weight_standardization:
        raise UserError(
            f"norm.weight_standardization=true model={model.name}: only the networks of "
            "normexp itself have it; leave it out"
        )
    if isinstance(norm.num_groups, list):
        raise UserError(
            f"norm.num_groups={norm.num_groups} model={model.name}: give one number, or auto"
        )
    if model.pretrained and model.weights:
        raise UserError(f"model.pretrained=true model.weights={model.weights}: give one of them")


def image_size(config: Config) -> int:
    """Pixels on a side of the images that the network will see."""
    return schema.side(config.data.name, config.data.image_size)
