"""What the entry points share: composing conf/, refusing what cannot work, one-line errors."""

import contextlib
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, QuotedString
from omegaconf import DictConfig, open_dict

from normexp import bn_stats, choices, config_checks, plain_texts, signals, torchrun
from normexp import config as schema
from normexp.config import Config
from normexp.errors import BusyElsewhere, RunFailed, UserError
from normexp.explain import explain
from normexp.models.plan import norm_sites
from normexp.norms import rules
from normexp.printable import printable

BAD_USAGE, FAILED = 2, 1

GOES_ON = "the same command goes on"

# Read before one_line_errors sets it for Hydra's sake.
WANTS_TRACEBACK = os.environ.get("HYDRA_FULL_ERROR") == "1"


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Show what a person did as one line on stderr and leave with a non-zero exit status.

    Signals that end the command leave with 128 + signal. A KeyboardInterrupt may carry what to do
    to go on.

    HYDRA_FULL_ERROR=1 shows the traceback as well.
    """
    before = os.environ.get("HYDRA_FULL_ERROR", "0")
    # Hydra then lets errors pass to us instead of printing them over several lines.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        with signals.raised():
            try:
                yield
            except Exception:
                signals.check()  # a library made it of the signal
                raise
    except (RunFailed, BusyElsewhere) as error:
        _tell(str(error))
        sys.exit(FAILED)
    except KeyboardInterrupt as stop:
        _tell(f"interrupted; {str(stop) or signals.AGAIN}")
        sys.exit(signals.status())
    except BrokenPipeError:
        # The reader of our output has gone, as `head` does; python would complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILED)
    except Exception as error:
        # Runs record their own errors: what comes here was wrong with what was asked for.
        if WANTS_TRACEBACK:
            raise
        _tell(f"error: {explain(error)}")
        sys.exit(BAD_USAGE)
    finally:
        os.environ["HYDRA_FULL_ERROR"] = before


def _tell(line: str) -> None:
    """One line on stderr; of the processes that train one run together, rank 0 says it."""
    if torchrun.rank() == 0:
        print(printable(f"normexp: {line}"), file=sys.stderr)
    else:
        # torchrun ends all processes when the first leaves: rank 0 is to have spoken by then.
        time.sleep(2)


def compose(overrides: list[str]) -> Config:
    """Compose, type-check and settle a configuration as `normexp.train` does.

    Raises:
        UserError, HydraException, OmegaConfBaseException: as :func:`one_line_errors` shows them.
    """
    config = read(overrides)
    check(config)
    return config


def read(overrides: list[str]) -> Config:
    """As :func:`compose`, but whether the values can work together is not checked."""
    schema.register()
    with initialize_config_dir(str(schema.conf_dir()), version_base="1.3"):
        composed = hydra_compose("config", prepare(overrides), return_hydra_config=True)
        chosen = composed.hydra.runtime.choices
        with open_dict(composed):
            del composed["hydra"]
        config, _ = settle(composed, chosen)
    return config


def prepare(given: list[str], sweeps: bool = False) -> list[str]:
    """The settings of a command line as Hydra is to have them.

    Args:
        sweeps: several values may be given, separated by commas.

    Raises:
        UserError, OverrideParseException: one cannot be used.
    """
    presets = any(setting.startswith("experiment=") for setting in given)  # one may be a sweep
    settings = plain_texts.quoted(given, sweeps or presets)
    refuse_unknown_keys(settings)
    return settings + instead_of_presets(settings)


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
    config = config_checks.from_hydra(composed)
    notes = config_checks.set_aside_unread(config) + rules.settle(config.norm)
    return config, notes + bn_stats.settle(config)


def check(config: Config, ranks: int = 1) -> None:
    """Refuse a run that cannot work, before data is read.

    Args:
        ranks: how many processes share a batch.

    Raises:
        UserError: names the key, what was given and what would work.
    """
    config_checks.check(config)
    sites = norm_sites(config.model, image_size(config))
    rules.check(config.norm, sites, config.batch_size, ranks)
    bn_stats.check(config, sites, ranks)
    if config.batch_size % ranks:
        raise UserError(
            f"batch_size={config.batch_size}: {ranks} processes cannot share it evenly; use a "
            f"multiple of {ranks}"
        )


def image_size(config: Config) -> int:
    """Pixels on a side of the images that the network will see."""
    return 32 if config.data.name is schema.DataName.cifar10 else config.data.image_size


def refuse_unknown_flags(arguments: list[str]) -> list[str]:
    """The settings among the arguments of a command line.

    Raises:
        UserError: a flag is none of Hydra's, whose parser would print its usage over many lines.
    """

    def refuse(message: str) -> NoReturn:
        hint = "settings are written key=value, --help lists them"
        if re.search(r"unrecognized arguments: [^-\s]", message):
            hint = "flags such as -m stand before all settings"
        elif flag := re.search(r"unrecognized arguments: (\S+)", message):
            guess = config_checks.nearest(flag[1], parser._option_string_actions)
            raise UserError(f"{flag[1]}: no such flag;{guess} {hint}")
        raise UserError(f"{message}; {hint}")

    parser = get_args_parser()
    parser.error = refuse  # type: ignore[method-assign]
    settings: list[str] = parser.parse_args(arguments).overrides
    return settings


def refuse_unknown_keys(overrides: list[str]) -> None:
    """Raise a UserError for settings that Hydra would refuse without naming the fix.

    Raises:
        OverrideParseException: one cannot be read.
    """
    given = OverridesParser.create().parse_overrides(overrides)
    # seeds=null says that there are none, beside any seed.
    valued = {override.key_or_group for override in given if override.value() is not None}
    if {"seed", "seeds"} <= valued:
        raise UserError("seed and seeds: give one of them, not both")
    for override in given:
        key = override.key_or_group
        if key == "hydra.job.chdir" and override.value() is not False:
            raise UserError(f"{override.input_line}: runs have folders of their own; leave it out")
        if "/" in key or key.split(".")[0] == "hydra":
            continue
        if (schema.conf_dir() / key).is_dir():
            _refuse_no_choice(override)
        else:
            config_checks.refuse_unknown(key)
            choices.refuse_name_of_choice(override, _values(override))
            config_checks.refuse_number_for_switch(key, _values(override))


def _refuse_no_choice(override: Override) -> None:
    """Raise a UserError for what is no choice of a group."""
    key, value = override.key_or_group, (override.input_line or "").partition("=")[2]
    if any(isinstance(one, list) for one in _values(override)):
        values = re.sub(r"[\[\]\s]", "", value)
        fix = f"to sweep write -m {key}={values}"
        if key == "experiment":
            fix = "start a command for each"
        raise UserError(f"{key}={value}: takes one choice; {fix}")
    if None in _values(override) and not override.is_delete():
        raise UserError(
            f"{key}=null: takes a choice, such as those that --help lists, or leave it out"
        )
    if override.is_add():
        raise UserError(f"+{key}={value}: takes no +; write {key}={value}")


def _values(override: Override) -> list[Any]:
    """The values that a setting lists, one or those of a sweep."""
    value = override.value()
    if isinstance(value, ChoiceSweep):
        return [one.text if isinstance(one, QuotedString) else one for one in value.list]
    return [value]


def instead_of_presets(overrides: list[str]) -> list[str]:
    """Settings to add: a preset may have one of `seed` and `seeds` where the other is given.

    Raises:
        OverrideParseException: one cannot be read.
    """
    given = {
        override.key_or_group: override.value()
        for override in OverridesParser.create().parse_overrides(overrides)
    }
    if "seed" in given:
        return ["seeds=null"]
    return [] if given.get("seeds") is None else [f"seed={Config().seed}"]


def how_to_go_on(overrides: list[str]) -> str:
    """What to do after these settings were stopped half-way: force=true would start over."""
    given = OverridesParser.create().parse_overrides(overrides)
    forced = [
        one.input_line for one in given if one.key_or_group == "force" and one.value() is True
    ]
    return f"leave out {forced[0]} to go on" if forced else GOES_ON
