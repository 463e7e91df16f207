"""What the entry points share: composing conf/, refusing what cannot work, one-line errors."""

import contextlib
import io
import os
import re
import sys
import time
import traceback
from collections.abc import Iterator
from typing import NoReturn

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from normexp import bn_stats, config_checks, signals, torchrun
from normexp import config as schema
from normexp.config import Config
from normexp.errors import BusyElsewhere, RunFailed, UserError
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
            yield
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
    """As :func:`compose`, but whether the values can work is not checked."""
    refuse_unknown_keys(overrides)
    schema.register()
    with initialize_config_dir(str(schema.conf_dir()), version_base="1.3"):
        composed = hydra_compose("config", overrides + instead_of_presets(overrides))
    config, _ = settle(composed)
    return config


def settle(composed: DictConfig) -> tuple[Config, list[str]]:
    """The configuration as it will be read, and a sentence for each setting that it ignores.

    Raises:
        UserError: a key is unknown or has no value.
    """
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
    share = ranks if rules.normalizes_share(config.norm) else 1
    rules.check(config.norm, sites, config.batch_size // share)
    bn_stats.check(config, sites, ranks)


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
        elif flag := _first(r"unrecognized arguments: (\S+)", message):
            guess = config_checks.nearest(flag, parser._option_string_actions)
            raise UserError(f"{flag}: no such flag;{guess} {hint}")
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
        if "/" in key or key.split(".")[0] in ("hydra", "experiment"):
            continue
        is_group = (schema.conf_dir() / key).is_dir()
        if is_group and isinstance(override.value(), list):
            values = override.get_value_element_as_str().strip("[]")
            raise UserError(f"{key}=[{values}]: takes one choice; to sweep write -m {key}={values}")
        if is_group and override.value() is None and not override.is_delete():
            raise UserError(f"{key}=null: takes a choice, such as those that --help lists")
        if override.is_add() and is_group:
            text = f"{key}={override.get_value_element_as_str()}"
            raise UserError(f"+{text}: {key} has a choice already; write {text} without the +")
        config_checks.refuse_unknown(key)


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


def explain(error: BaseException) -> str:
    """One line that names the key, what was given, and what would work."""
    if isinstance(error, UserError):
        return _one_line(str(error))
    if isinstance(error, UnicodeDecodeError) and (file := _file_being_read(error)):
        return f"{file} is not UTF-8 text; save it as UTF-8, or without accents and symbols"
    links = list(_chain(error))
    text = "\n".join(str(link) for link in links)
    if isinstance(error, OverrideParseException):
        return f"{error.override}: not a setting; write key=value, and quote what the shell changes"
    if swept := _first(r"Ambiguous value for argument '([^']+)'", text):
        return f"{swept}: to sweep over several values add -m before it; a list is [a,b]"
    if choice := re.search(r"Could not find '([\w/]+)/([^'\n]*)'", text):
        return _unknown_choice(choice[1], choice[2], text)
    key = (
        _first(r"full_key: (\S+)", text)
        or _first(r"Could not override '([^']+)'", text)
        or _first(r"No match in the defaults[^']*'?([\w.@/]+)", text)
    )
    if "object_type=PublishedFigure" in text:
        key = "published"  # OmegaConf names the key within the item of the list
    if key and not key.startswith("hydra"):
        try:
            config_checks.refuse_unknown(key.lstrip("+~").replace("/", "."))
        except UserError as unknown:
            return str(unknown)
    known = (OmegaConfBaseException, HydraException, ValueError)
    if not isinstance(error, known):
        text = f"{type(error).__name__}: {error}"
    reason = next((str(link) for link in links if isinstance(link, OmegaConfBaseException)), text)
    reason = _one_line(re.split(r"\n\s*full_key:", reason)[0])
    reason = re.sub(
        r"Invalid value assigned: (\w+) is not a ListConfig.*", r"must be a list, [a,b]", reason
    )
    where = _first(r"merging override (\S+)", text) or key
    return f"{where}: {reason}" if where else reason


def _file_being_read(error: BaseException) -> str | None:
    """The text file that the innermost function was reading: Hydra does not name it."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    for frame in reversed(frames):
        for value in frame.f_locals.values():
            if isinstance(value, io.TextIOWrapper):
                return str(value.name)
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _first(pattern: str, text: str) -> str | None:
    found = re.search(pattern, text)
    return found[1] if found else None


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _unknown_choice(group: str, given: str, text: str) -> str:
    listed = re.search(r"Available options in '[^']+':\n((?:\t\S+\n?)+)", text)
    known = listed[1].split() if listed else []
    hint = config_checks.nearest(given, known)
    return f"{group}={given}: no such choice;{hint} choose from {', '.join(known)}"
