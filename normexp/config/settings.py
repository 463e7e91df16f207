"""The settings of a command line, key=value, as Hydra is to have them; flags and keys that it does
not know are refused here."""

import re
from typing import Any, NoReturn

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, QuotedString

from normexp.config import checks, choices, plain_texts, schema
from normexp.config.schema import Config
from normexp.system.errors import UserError

GOES_ON = "the same command goes on"


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
            guess = checks.nearest(flag[1], parser._option_string_actions)
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
            checks.refuse_unknown(key)
            choices.refuse_name_of_choice(override, _values(override))
            checks.refuse_number_for_switch(key, _values(override))


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
